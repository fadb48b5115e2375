package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/store"
)

// Approvals is what the contract of approvals is about; store.Approvals.
type Approvals interface {
	Open(ctx context.Context, want access.Approval, view access.View, joins func(access.Approval) bool) (got access.Approval, opened bool, err error)
	Get(ctx context.Context, id string) (access.Approval, error)
	GetAll(ctx context.Context, ids []string) (map[string]access.Approval, error)
	View(ctx context.Context, id string) (access.View, error)
	Find(ctx context.Context, principalKey, digest string) (access.Approval, bool, error)
	Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error)
	Granted(ctx context.Context, principalKey, cluster string) ([]access.Approval, error)
	List(ctx context.Context, pending bool, limit int, before time.Time) ([]access.Approval, error)
	PutTask(ctx context.Context, id, token string) error
	Task(ctx context.Context, id string) (string, bool, error)
	PutLink(ctx context.Context, hash, approval, email string, expires time.Time) error
	Link(ctx context.Context, hash string) (store.Link, bool, error)
	UseLink(ctx context.Context, hash string, now time.Time) error
	PutSent(ctx context.Context, id, channel, ref string) error
	Sent(ctx context.Context, id string) (map[string]string, error)
	Limit(ctx context.Context, key string, window time.Time, limit int) error
	Once(ctx context.Context, key string, until time.Time) (first bool, err error)
	PutKnown(ctx context.Context, issuer, subject, email string) error
	Known(ctx context.Context, issuer, subject string) (email string, ok bool, err error)
}

var (
	_ Approvals = (*store.Approvals)(nil)
	_ Approvals = (*ApprovalsMemory)(nil)
)

// Asked is a valid pending approval of that id, asked for by an agent at a time: to delete pod web-0, by rule deletes, of
// reviewers sre, who may give the namespace for an hour. Its digest is the id's.
func Asked(id, agent string, now time.Time) access.Approval {
	who := Session("", agent, now).Principal
	return approval.New(approval.Ask{
		ID: id, Digest: access.Digest(id), Principal: who, Session: "s-" + id, Request: "r-" + id, Cluster: "dev", Reason: "<it> hangs & burns",
		Action: access.Action{Verb: "delete", Version: "v1", Resource: "pods", Namespace: "dev", Name: "web-0", Path: "/api/v1/namespaces/dev/pods/web-0"},
		Decision: access.Decision{Effect: access.Ask, Rule: "deletes", Tier: "operate", Policy: "p1", Obligations: access.Obligations{
			Reviewers: []string{"sre"}, Quorum: 1, Expires: 15 * time.Minute, Grant: access.Grant{Scope: access.ScopeNamespace, Length: time.Hour}, Links: "login"}},
		Kubectl: "kubectl delete pod web-0 -n dev", Sentence: "delete Pod web-0 in dev", Target: access.Target{UID: "u1", Generation: 1}, Now: now,
	})
}

// Sre is the roster of Asked's reviewers, with more people than a test needs.
func Sre() approval.Roster {
	g := approval.Group{Name: "sre"}
	for i := range 60 {
		g.People = append(g.People, fmt.Sprintf("p%d@example.com", i))
	}
	return approval.Roster{g}
}

// Yes is a vote of the i-th of Sre.
func Yes(i int, g access.Grant) access.Vote {
	return access.Vote{By: access.Reviewer{Email: fmt.Sprintf("p%d@example.com", i), Channel: "page"}, Yes: true, Grant: g}
}

// Redemption is the one that a's own request would be, under an audit id.
func Redemption(a access.Approval, request string) approval.Redemption {
	return approval.Redemption{Digest: a.Digest, Principal: a.Principal, Cluster: a.Cluster, Action: a.Action, Decision: a.Decision, Target: a.Target,
		Use: access.Use{Request: request}}
}

// ApprovalsContract runs the contract against a keeper of approvals, or several that share a table. Everything is made
// unique, so the table may hold others' too, and what was asked before.
func ApprovalsContract(t *testing.T, keepers ...Approvals) {
	t.Helper()
	ctx := context.Background()
	s := keepers[0]
	now := time.UnixMilli(time.Now().UnixMilli()).UTC()
	unique := fmt.Sprintf("-%x", time.Now().UnixNano())
	joins := func(a access.Approval) bool { return approval.Joins(a, now) }
	open := func(t *testing.T, want access.Approval) access.Approval {
		t.Helper()
		got, opened, err := s.Open(ctx, want, access.View{}, joins)
		if err != nil || !opened {
			t.Fatalf("opened %v, %v", opened, err)
		}
		return got
	}
	vote := func(t *testing.T, id string, g access.Grant) access.Approval {
		t.Helper()
		a, err := s.Update(ctx, id, func(a *access.Approval) error { return approval.Vote(a, Sre(), Yes(0, g), now) })
		if err != nil {
			t.Fatal(err)
		}
		return a
	}

	t.Run("opens, finds and joins", func(t *testing.T) {
		want := Asked("a"+unique, "bot"+unique, now)
		view := access.View{Argv: []string{"sh", "-c", "<&>\x00"}, Diff: strings.Repeat("+ line\n", 30000), Notes: []string{"stdin is recorded, not approved"}, Live: true}
		got, opened, err := s.Open(ctx, want, view, joins)
		if d := gocmp.Diff(want, got); err != nil || !opened || d != "" {
			t.Fatal(opened, err, d)
		}
		got, err = s.Get(ctx, want.ID)
		if d := gocmp.Diff(want, got); err != nil || d != "" {
			t.Error(err, d)
		}
		shown, err := s.View(ctx, want.ID)
		if d := gocmp.Diff(view, shown); err != nil || d != "" {
			t.Error(err, d)
		}
		got, ok, err := s.Find(ctx, want.Principal.Key(), want.Digest)
		if err != nil || !ok || got.ID != want.ID {
			t.Error(got.ID, ok, err)
		}
		again := want
		again.ID = "a2" + unique
		got, opened, err = s.Open(ctx, again, access.View{}, joins)
		if err != nil || opened || got.ID != want.ID {
			t.Errorf("got %s, opened %v, %v; want the first", got.ID, opened, err)
		}
		if _, err := s.Get(ctx, again.ID); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v: what was not opened is there", err)
		}
		if _, err := s.View(ctx, again.ID); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v: the view of what was not opened is there", err)
		}
	})
	t.Run("another digest, principal or run is another approval", func(t *testing.T) {
		first := open(t, Asked("b"+unique, "bot-b"+unique, now))
		digest, who, run := first, first, first
		digest.ID, digest.Digest = "b2"+unique, access.Digest("other")
		who.ID, who.Principal.Subject = "b3"+unique, "other"
		run.ID, run.Principal.Run = "b4"+unique, map[string]string{"run_id": "2"}
		for _, want := range []access.Approval{digest, who, run} {
			if got := open(t, want); got.ID != want.ID {
				t.Errorf("got %s, want %s", got.ID, want.ID)
			}
		}
		if _, ok, err := s.Find(ctx, "nobody", first.Digest); ok || err != nil {
			t.Error("found another's approval", err)
		}
	})
	t.Run("one that is over is not joined", func(t *testing.T) {
		first := open(t, Asked("c"+unique, "bot-c"+unique, now))
		if _, err := s.Update(ctx, first.ID, func(a *access.Approval) error {
			approval.Withdraw(a, "changed", now)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := first
		want.ID = "c2" + unique
		if got := open(t, want); got.ID != want.ID {
			t.Errorf("got %s", got.ID)
		}
		got, _, err := s.Find(ctx, first.Principal.Key(), first.Digest)
		if err != nil || got.ID != want.ID {
			t.Errorf("found %s, %v; want the newer", got.ID, err)
		}
	})
	t.Run("fifty asks at once are one", func(t *testing.T) {
		for round := range 3 { // the first of nothing, the others after one that is over
			var mu sync.Mutex
			ids, opened := map[string]int{}, 0
			var wg sync.WaitGroup
			for i := range 50 {
				wg.Go(func() {
					want := Asked("d"+unique, "bot-d"+unique, now)
					want.ID = fmt.Sprint("d", round, "-", i, unique)
					got, first, err := keepers[i%len(keepers)].Open(ctx, want, access.View{}, joins)
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					defer mu.Unlock()
					ids[got.ID]++
					if first {
						opened++
					}
				})
			}
			wg.Wait()
			if len(ids) != 1 || opened != 1 {
				t.Errorf("round %d: %d opened: %v", round, opened, ids)
			}
			for id := range ids {
				if _, err := s.Update(ctx, id, func(a *access.Approval) error {
					approval.Withdraw(a, "changed", now)
					return nil
				}); err != nil {
					t.Error(err)
				}
			}
		}
	})
	t.Run("what cannot be shown whole is not opened", func(t *testing.T) {
		want := Asked("e"+unique, "bot-e"+unique, now)
		if _, _, err := s.Open(ctx, want, access.View{Diff: strings.Repeat("x", 300<<10)}, joins); access.KindOf(err) != access.Denied {
			t.Errorf("got %v, want denied", err)
		}
		if _, err := s.Get(ctx, want.ID); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v, want not found", err)
		}
	})
	t.Run("an update is stored, refused, or refused and stored", func(t *testing.T) {
		a := open(t, Asked("f"+unique, "bot-f"+unique, now))
		change := func(word string, err error) func(*access.Approval) error {
			return func(a *access.Approval) error {
				approval.Note(a, word, "", "", now)
				return err
			}
		}
		no := access.Errorf(access.Denied, "no")
		for _, test := range []struct {
			word string
			err  error
			want error
			kept bool
		}{
			{"yes", nil, nil, true},
			{"no", no, no, false},
			{"kept", store.Keep(no), no, true},
			{"nil kept", store.Keep(nil), nil, true},
		} {
			got, err := s.Update(ctx, a.ID, change(test.word, test.err))
			if !errors.Is(err, test.want) || (test.want == nil) != (err == nil) {
				t.Errorf("%s: got %v, want %v", test.word, err, test.want)
			}
			stored, _ := s.Get(ctx, a.ID)
			if d := gocmp.Diff(stored, got); d != "" {
				t.Errorf("%s: what is returned is not what is stored: %s", test.word, d)
			}
			if kept := stored.History[len(stored.History)-1].What == test.word; kept != test.kept {
				t.Errorf("%s: stored: %v, want %v", test.word, kept, test.kept)
			}
		}
		if _, err := s.Update(ctx, "none"+unique, change("", nil)); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v, want not found", err)
		}
	})
	t.Run("of many changes at once none is lost", func(t *testing.T) {
		a := Asked("g"+unique, "bot-g"+unique, now)
		a.Decision.Obligations.Quorum = 20
		open(t, a)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				_, err := keepers[i%len(keepers)].Update(ctx, a.ID, func(a *access.Approval) error { return approval.Vote(a, Sre(), Yes(i, access.Grant{}), now) })
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		got, err := s.Get(ctx, a.ID)
		if err != nil || got.State != access.StateApproved || len(got.Votes) != 20 {
			t.Errorf("%s with %d votes, %v", got.State, len(got.Votes), err)
		}
	})
	t.Run("of fifty redeems at once one passes", func(t *testing.T) {
		a := open(t, Asked("h"+unique, "bot-h"+unique, now))
		a = vote(t, a.ID, access.Grant{})
		var mu sync.Mutex
		passed := []string{}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				request := fmt.Sprint("q", i)
				got, err := keepers[i%len(keepers)].Update(ctx, a.ID, func(a *access.Approval) error {
					return store.Keep(approval.Redeem(a, Redemption(*a, request), now))
				})
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					passed = append(passed, request)
				case access.KindOf(err) != access.Conflict:
					t.Errorf("got %v, want a conflict", err)
				case len(got.Uses) != 1 || !strings.Contains(err.Error(), got.Uses[0].Request):
					t.Errorf("%v does not name the request that passed: %v", err, got.Uses)
				}
			})
		}
		wg.Wait()
		got, err := s.Get(ctx, a.ID)
		if err != nil || len(passed) != 1 || got.State != access.StateSpent || len(got.Uses) != 1 || got.Uses[0].Request != passed[0] {
			t.Errorf("%v passed, stored is %s %v, %v", passed, got.State, got.Uses, err)
		}
	})
	t.Run("of a yes and a no at once one counts", func(t *testing.T) {
		for i := range 10 {
			a := open(t, Asked(fmt.Sprint("i", i, unique), "bot-i"+unique, now))
			no := Yes(1, access.Grant{})
			no.Yes = false
			errs := make([]error, 2)
			var wg sync.WaitGroup
			for j, v := range []access.Vote{Yes(0, access.Grant{}), no} {
				wg.Go(func() {
					_, errs[j] = keepers[j%len(keepers)].Update(ctx, a.ID, func(a *access.Approval) error { return approval.Vote(a, Sre(), v, now) })
				})
			}
			wg.Wait()
			got, err := s.Get(ctx, a.ID)
			want := access.StateApproved
			if errs[0] != nil {
				want = access.StateDenied
			}
			if err != nil || (errs[0] == nil) == (errs[1] == nil) || got.State != want || len(got.Votes) != 1 {
				t.Errorf("%v: %s with %d votes, %v", errs, got.State, len(got.Votes), err)
			}
		}
	})
	t.Run("grants are found until they end", func(t *testing.T) {
		grant := access.Grant{Scope: access.ScopeNamespace, Length: time.Hour}
		a := open(t, Asked("j1"+unique, "bot-j"+unique, now))
		b := open(t, Asked("j2"+unique, "bot-j"+unique, now))
		once := open(t, Asked("j3"+unique, "bot-j"+unique, now))
		open(t, Asked("j4"+unique, "bot-j"+unique, now))
		elsewhere := Asked("j5"+unique, "bot-j"+unique, now)
		elsewhere.Cluster = "prod"
		open(t, elsewhere)
		other := open(t, Asked("j6"+unique, "bot-j-other"+unique, now))
		for _, id := range []string{a.ID, b.ID, elsewhere.ID, other.ID} {
			if got := vote(t, id, grant); got.State != access.StateGranted {
				t.Fatal(got.State)
			}
		}
		vote(t, once.ID, access.Grant{})
		granted := func() []string {
			t.Helper()
			all, err := s.Granted(ctx, a.Principal.Key(), "dev")
			if err != nil {
				t.Fatal(err)
			}
			ids := []string{}
			for _, a := range all {
				ids = append(ids, a.ID)
			}
			slices.Sort(ids)
			return ids
		}
		if d := gocmp.Diff([]string{a.ID, b.ID}, granted()); d != "" {
			t.Error(d)
		}
		if _, err := s.Update(ctx, a.ID, func(a *access.Approval) error { return approval.Redeem(a, Redemption(*a, "q"), now) }); err != nil {
			t.Error(err)
		}
		if d := gocmp.Diff([]string{a.ID, b.ID}, granted()); d != "" {
			t.Error(d)
		}
		if _, err := s.Update(ctx, a.ID, func(a *access.Approval) error { return approval.Revoke(a, Sre(), Yes(3, grant).By, "", now) }); err != nil {
			t.Error(err)
		}
		if d := gocmp.Diff([]string{b.ID}, granted()); d != "" {
			t.Error(d)
		}
	})
	t.Run("a grant that is revoked while it is used", func(t *testing.T) {
		a := open(t, Asked("k"+unique, "bot-k"+unique, now))
		vote(t, a.ID, access.Grant{Scope: access.ScopeObject, Length: time.Hour})
		passed := make([]bool, 20)
		var wg sync.WaitGroup
		for i := range passed {
			wg.Go(func() {
				_, err := keepers[i%len(keepers)].Update(ctx, a.ID, func(a *access.Approval) error {
					return store.Keep(approval.Redeem(a, Redemption(*a, fmt.Sprint("q", i)), now))
				})
				passed[i] = err == nil
				if err != nil && access.KindOf(err) != access.Denied {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			if _, err := s.Update(ctx, a.ID, func(a *access.Approval) error { return approval.Revoke(a, Sre(), Yes(3, access.Grant{}).By, "", now) }); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
		n := 0
		for _, p := range passed {
			if p {
				n++
			}
		}
		got, err := s.Get(ctx, a.ID)
		if err != nil || got.State != access.StateRevoked || len(got.Uses) != n {
			t.Errorf("%s, %d passed and %d are kept, %v", got.State, n, len(got.Uses), err)
		}
	})
	t.Run("lists what is pending, and what is not any more", func(t *testing.T) {
		var ids []string
		for i := range 5 {
			// Ahead of whatever else the table holds.
			a := open(t, Asked(fmt.Sprint("l", i, unique), "bot-l"+unique, now.Add(time.Hour+time.Duration(i)*time.Microsecond)))
			ids = append(ids, a.ID)
		}
		slices.Reverse(ids)
		list := func(pending bool, before time.Time) []string {
			t.Helper()
			all, err := s.List(ctx, pending, 2, before)
			if err != nil || len(all) > 2 {
				t.Fatal(len(all), err)
			}
			got := []string{}
			for _, a := range all {
				got = append(got, a.ID)
			}
			return got
		}
		if d := gocmp.Diff(ids[:2], list(true, time.Time{})); d != "" {
			t.Error(d)
		}
		edge, err := s.Get(ctx, ids[1])
		if err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(ids[2:4], list(true, edge.Opened)); d != "" {
			t.Error(d)
		}
		for _, id := range ids[:2] {
			if _, err := s.Update(ctx, id, func(a *access.Approval) error {
				approval.Deny(a, "nobody", now)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if d := gocmp.Diff(ids[2:4], list(true, time.Time{})); d != "" {
			t.Error(d)
		}
		if d := gocmp.Diff(ids[:2], list(false, time.Time{})); d != "" {
			t.Error(d)
		}
	})
	t.Run("many at once", func(t *testing.T) {
		ids := []string{"none" + unique}
		for i := range 120 {
			a := open(t, Asked(fmt.Sprint("m", i, unique), "bot-m"+unique, now))
			ids = append(ids, a.ID, a.ID)
		}
		all, err := s.GetAll(ctx, ids)
		if err != nil || len(all) != 120 || all[ids[1]].ID != ids[1] {
			t.Error(len(all), err)
		}
		if all, err := s.GetAll(ctx, nil); err != nil || len(all) != 0 {
			t.Error(len(all), err)
		}
	})
	t.Run("task tokens", func(t *testing.T) {
		id := "n" + unique
		if _, ok, err := s.Task(ctx, id); ok || err != nil {
			t.Error(ok, err)
		}
		for _, token := range []string{"t1", "t1", "t2"} {
			if err := s.PutTask(ctx, id, token); err != nil {
				t.Error(err)
			}
			if got, ok, err := s.Task(ctx, id); got != token || !ok || err != nil {
				t.Errorf("got %q, %v, %v, want %q", got, ok, err, token)
			}
		}
	})
	t.Run("links work once, and not late", func(t *testing.T) {
		hash, late := "o"+unique, "o2"+unique
		if _, ok, err := s.Link(ctx, hash); ok || err != nil {
			t.Error(ok, err)
		}
		if err := s.UseLink(ctx, hash, now); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v, want not found", err)
		}
		ends := now.Add(time.Minute)
		for _, h := range []string{hash, hash, late} {
			if err := s.PutLink(ctx, h, "a", "ana@example.com", ends); err != nil {
				t.Error(err)
			}
		}
		if err := s.PutLink(ctx, hash, "a", "ben@example.com", ends); access.KindOf(err) != access.Conflict {
			t.Errorf("got %v: another's link is overwritten", err)
		}
		want := store.Link{Approval: "a", Email: "ana@example.com", Expires: ends}
		got, ok, err := s.Link(ctx, hash)
		if d := gocmp.Diff(want, got); d != "" || !ok || err != nil {
			t.Error(d, ok, err)
		}
		if err := s.UseLink(ctx, late, ends); access.KindOf(err) != access.Denied {
			t.Errorf("got %v, want denied: it ends that very millisecond", err)
		}
		used := make([]error, 10)
		var wg sync.WaitGroup
		for i := range used {
			wg.Go(func() { used[i] = keepers[i%len(keepers)].UseLink(ctx, hash, ends.Add(-time.Millisecond)) })
		}
		wg.Wait()
		n := 0
		for _, err := range used {
			if err == nil {
				n++
			} else if access.KindOf(err) != access.Conflict {
				t.Error(err)
			}
		}
		if n != 1 {
			t.Errorf("the link worked %d times", n)
		}
		if got, _, _ := s.Link(ctx, hash); !got.Used.Equal(ends.Add(-time.Millisecond)) {
			t.Errorf("used at %v", got.Used)
		}
	})
	t.Run("where messages are", func(t *testing.T) {
		id := "p" + unique
		for _, m := range [][2]string{{"slack:C1", "1.1"}, {"slack:C2", "2.1"}, {"slack:C1", "1.2"}, {"slack:C1", "1.2"}} {
			if err := s.PutSent(ctx, id, m[0], m[1]); err != nil {
				t.Error(err)
			}
		}
		got, err := s.Sent(ctx, id)
		if d := gocmp.Diff(map[string]string{"slack:C1": "1.2", "slack:C2": "2.1"}, got); err != nil || d != "" {
			t.Error(err, d)
		}
		if got, err := s.Sent(ctx, "none"+unique); err != nil || len(got) != 0 {
			t.Error(got, err)
		}
	})
	t.Run("a limit is kept by many at once", func(t *testing.T) {
		var mu sync.Mutex
		n := 0
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				err := keepers[i%len(keepers)].Limit(ctx, "q"+unique, now, 20)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					n++
				} else if e := access.AsError(err); e.Kind != access.Limited || e.RetryAfter != time.Minute {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if n != 20 {
			t.Errorf("%d were let through, want 20", n)
		}
		if err := s.Limit(ctx, "q"+unique, now.Add(time.Minute), 20); err != nil {
			t.Error("in the next window:", err)
		}
		if err := s.Limit(ctx, "q2"+unique, now, 20); err != nil {
			t.Error("of another:", err)
		}
	})
	t.Run("once", func(t *testing.T) {
		first := make([]bool, 20)
		var wg sync.WaitGroup
		for i := range first {
			wg.Go(func() {
				var err error
				if first[i], err = keepers[i%len(keepers)].Once(ctx, "r"+unique, now.Add(time.Minute)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		n := 0
		for _, f := range first {
			if f {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%d were first", n)
		}
		if first, err := s.Once(ctx, "r2"+unique, now); !first || err != nil {
			t.Error(first, err)
		}
	})
	t.Run("who is known", func(t *testing.T) {
		if _, ok, err := s.Known(ctx, "https://i"+unique, "a#b"); ok || err != nil {
			t.Error(ok, err)
		}
		for _, email := range []string{"Ana@example.com", "ben@example.com"} {
			if err := s.PutKnown(ctx, "https://i"+unique, "a#b", email); err != nil {
				t.Error(err)
			}
			if got, ok, err := s.Known(ctx, "https://i"+unique, "a#b"); got != strings.ToLower(email) || !ok || err != nil {
				t.Error(got, ok, err)
			}
		}
		if _, ok, _ := s.Known(ctx, "https://i"+unique+"#a", "b"); ok {
			t.Error("another issuer's subject is known")
		}
	})
}
