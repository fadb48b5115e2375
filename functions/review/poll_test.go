package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

func TestPoll(t *testing.T) {
	f := newFixture(t)
	first := f.opened(t, f.deletion())
	o := f.deletion()
	o.Raw.Target += "?gracePeriodSeconds=0"
	second := f.opened(t, o)
	f.vote(t, second.ID, true, access.Grant{})
	got := f.polls(t, wire.Poll{Approvals: []string{second.ID, first.ID, "none", second.ID, "<b>"}})
	states := map[string]access.ApprovalState{}
	for _, a := range got.Approvals {
		states[a.ID] = a.State
	}
	if d := cmp.Diff(map[string]access.ApprovalState{first.ID: access.StatePending, second.ID: access.StateApproved}, states); d != "" || len(got.Approvals) != 2 {
		t.Error(d, got.Approvals)
	}
	if i := slices.IndexFunc(got.Approvals, func(a wire.Approval) bool { return a.ID == second.ID }); !slices.Equal(got.Approvals[i].Approvers, []string{"ana@example.com"}) {
		t.Errorf("got %+v", got.Approvals[i])
	}
	if got.Policy.Version != "1" || len(got.Policy.Digest) != 64 || got.Policy.Refused != nil {
		t.Errorf("in force is %+v", got.Policy)
	}
	// A4: what is late is over, whether or not anybody stored it.
	f.later(15 * time.Minute)
	for _, a := range f.polls(t, wire.Poll{Approvals: []string{second.ID, first.ID}}).Approvals {
		if a.State != access.StateExpired || a.Message == "" {
			t.Errorf("got %+v", a)
		}
	}
	f.bucket.Put("2", strings.Replace(policyText, "audience:", "audiense:", 1))
	f.later(time.Second)
	if p := f.polls(t, wire.Poll{}).Policy; p.Version != "1" || p.Refused == nil || p.Refused.Version != "2" {
		t.Errorf("in force is %+v", p)
	}
}

// A look is never older than the second between two polls.
func TestPollLooks(t *testing.T) {
	f := newFixture(t)
	for range 10 {
		f.polls(t, wire.Poll{})
	}
	if f.bucket.Looks != 1 {
		t.Errorf("ten polls within a moment looked %d times", f.bucket.Looks)
	}
	for range 3 {
		f.later(900 * time.Millisecond)
		f.polls(t, wire.Poll{})
	}
	if f.bucket.Looks != 4 {
		t.Errorf("looked %d times, want 4", f.bucket.Looks)
	}
}

func TestKeysAreSentOnce(t *testing.T) {
	f := newFixture(t)
	first := f.polls(t, wire.Poll{})
	if len(first.Issuers) != 1 || first.Issuers[0].Issuer != "https://i" || len(first.Issuers[0].JWKS) == 0 || first.KeysDigest == "" {
		t.Fatalf("got %+v", first)
	}
	again := f.polls(t, wire.Poll{Keys: first.KeysDigest})
	if again.Issuers != nil || again.KeysDigest != first.KeysDigest {
		t.Errorf("got %+v", again)
	}
	if other := f.polls(t, wire.Poll{Keys: "another"}); len(other.Issuers) != 1 {
		t.Errorf("got %+v", other)
	}
	// Fetched again they are news, even when they are the same: a proxy forgets keys that it does not hear of.
	f.later(30 * time.Second)
	if news := f.polls(t, wire.Poll{Keys: first.KeysDigest}); news.KeysDigest == first.KeysDigest || len(news.Issuers) != 1 {
		t.Errorf("got %+v", news)
	}
	// One issuer that is away keeps nothing else back.
	f.issuers.Err = errors.New("one issuer is away")
	f.later(30 * time.Second)
	if a := f.polls(t, wire.Poll{}); len(a.Issuers) != 1 {
		t.Errorf("got %+v", a)
	}
}

func TestDigest(t *testing.T) {
	k := func(issuer string, at time.Time, jwks string) identity.IssuerKeys {
		return identity.IssuerKeys{Issuer: issuer, Fetched: at, JWKS: json.RawMessage(jwks)}
	}
	seen := map[string]int{}
	for i, keys := range [][]identity.IssuerKeys{
		{}, {k("a", now, "{}")}, {k("b", now, "{}")}, {k("a", now.Add(time.Nanosecond), "{}")}, {k("a", now, "{} ")},
		{k("a", now, "{}"), k("b", now, "{}")}, {k("b", now, "{}"), k("a", now, "{}")}, {k("", now, "a{}")},
	} {
		d := digest(keys)
		if other, twice := seen[d]; twice || len(d) != 64 {
			t.Errorf("%d and %d have digest %s", i, other, d)
		}
		seen[d] = i
	}
	if digest([]identity.IssuerKeys{k("a", now, "{}")}) != digest([]identity.IssuerKeys{k("a", now.In(time.FixedZone("x", 3600)), "{}")}) {
		t.Error("a time zone is another digest")
	}
}

// An outcome is told until it is heard, and stored once.
func TestOutcomes(t *testing.T) {
	f := newFixture(t)
	id := f.opened(t, f.deletion()).ID
	f.change(t, id, func(a *access.Approval) error {
		a.State, a.Uses = access.StateSpent, []access.Use{{Request: "r1", At: now}}
		return nil
	})
	before := len(f.get(t, id).History)
	writes := &counting{approvals: f.kept}
	f.approvals = writes
	outcomes := []wire.Outcome{
		{Approval: id, Request: "another", Code: 500}, {Approval: "none", Request: "r1", Code: 200}, {Approval: id, Request: "r1", Code: 0},
		{Approval: id, Request: "r1", Code: 201}, {Approval: id, Request: "r1", Code: 201}, {Approval: id, Request: "r1", Code: 500},
	}
	for range 3 {
		if got := f.polls(t, wire.Poll{Outcomes: outcomes}); len(got.Approvals) != 0 {
			t.Errorf("got %+v", got.Approvals)
		}
	}
	a := f.get(t, id)
	if d := cmp.Diff([]access.Use{{Request: "r1", At: now, Code: 201}}, a.Uses); d != "" || len(a.History) != before+1 {
		t.Error(d, a.History)
	}
	if writes.updates != 1 {
		t.Errorf("written %d times", writes.updates)
	}
	// One that cannot be stored is told again, so the call is not answered.
	other := f.deletion()
	other.SubjectToken = f.token("other", "1", "")
	next := f.opened(t, other).ID
	f.change(t, next, func(a *access.Approval) error {
		a.State, a.Uses = access.StateSpent, []access.Use{{Request: "r1", At: now}}
		return nil
	})
	writes.err = access.Errorf(access.Unavailable, "the table is away").After(time.Second)
	got, err := f.handle(t.Context(), wire.ReviewRequest{Poll: &wire.Poll{Outcomes: []wire.Outcome{{Approval: next, Request: "r1", Code: 200}}}})
	if err != nil || got.Error == nil || got.Error.Kind != access.Unavailable || got.State != nil {
		t.Errorf("got %+v, %v", got, err)
	}
}

type counting struct {
	approvals
	updates int
	err     error
}

func (c *counting) Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error) {
	if c.err != nil {
		return access.Approval{}, c.err
	}
	c.updates++
	return c.approvals.Update(ctx, id, change)
}

// Who holds a connection open asks nothing again: a workflow that was lost is started for them too, and one that cannot be
// started holds no poll up.
func TestPollStartsLostWorkflows(t *testing.T) {
	f := newFixture(t)
	id := f.opened(t, f.deletion()).ID
	f.later(9 * time.Second)
	f.polls(t, wire.Poll{Approvals: []string{id}})
	if len(f.started) != 1 {
		t.Errorf("executions %v", f.started)
	}
	f.down = errors.New("Step Functions is away")
	f.later(time.Second)
	if a := f.polls(t, wire.Poll{Approvals: []string{id}}); len(a.Approvals) != 1 || a.Approvals[0].State != access.StatePending {
		t.Errorf("got %+v", a)
	}
	f.down = nil
	f.later(time.Second)
	f.polls(t, wire.Poll{Approvals: []string{id}})
	if len(f.started) != 1 {
		t.Errorf("started within a second of a failure: %v", f.started)
	}
	f.later(restTime)
	f.polls(t, wire.Poll{Approvals: []string{id}})
	if d := cmp.Diff([]string{id, id + "-2"}, f.started); d != "" {
		t.Error(d)
	}
}

func TestPollIsBounded(t *testing.T) {
	ids := make([]string, maxPolled+1)
	for i := range ids {
		ids[i] = fmt.Sprint("a", i)
	}
	for n, want := range map[int]access.Kind{maxPolled: "", maxPolled + 1: access.Invalid} {
		a, err := newFixture(t).handle(t.Context(), wire.ReviewRequest{Poll: &wire.Poll{Approvals: ids[:n]}})
		if err != nil || (a.Error == nil) != (want == "") || a.Error != nil && a.Error.Kind != want {
			t.Errorf("%d: got %+v, %v", n, a.Error, err)
		}
	}
}

// Without a policy nothing is answered.
func TestPollWithoutPolicy(t *testing.T) {
	f := newFixture(t)
	f.bucket.Err = access.Errorf(access.Unavailable, "no version loads").Because(errors.New("secret detail"))
	a, err := f.handle(t.Context(), wire.ReviewRequest{Poll: &wire.Poll{}})
	if err != nil || a.Error == nil || a.Error.Kind != access.Unavailable || a.Error.RetryAfter == 0 || strings.Contains(a.Error.Description, "secret") {
		t.Errorf("got %+v, %v", a, err)
	}
}
