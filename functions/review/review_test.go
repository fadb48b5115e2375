package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/functions/inforce/inforcetest"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/store/storetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const policyText = `
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers: [{url: "https://i", algorithms: [ES256], groupsClaim: groups, owner: owner, run: [run_id]}]
clusters: [{name: dev, region: eu-west-1}]
tiers:
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate", groups: [agents]}
- {name: maintain, role: "arn:aws:iam::111122223333:role/sallyport/maintain", group: "sallyport:maintain", groups: []}
sessions: {idle: 1h, longest: 90m, credential: 1h}
reviewers: [{name: sre, issuer: "https://i", audience: reviews, people: [ana@example.com, ben@example.com]}]
asks: {tier: maintain, reviewers: [sre], quorum: 1, expires: 15m, grant: {scope: namespace, length: 30m}}
rules:
- {name: look, effect: allow, groups: [agents], verbs: [get], apiGroups: [apps], resources: [deployments]}
- {name: change, effect: ask, groups: [agents], verbs: [create, delete, patch], apiGroups: [apps], resources: [deployments]}
- {name: two, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [services], quorum: 2}
- {name: never, effect: deny, verbs: [delete], apiGroups: [""], resources: [secrets], reason: they are gone then}
`

var ana = access.Reviewer{Email: "ana@example.com", Issuer: "https://i", Audience: "reviews", Channel: "page"}

// fixture is the function with fakes for all that is outside. Tokens are real.
type fixture struct {
	*desk
	bucket  inforcetest.Bucket
	issuers *inforcetest.Issuers
	kept    *storetest.ApprovalsMemory
	log     bytes.Buffer

	mu      sync.Mutex
	at      time.Time
	started []string // names of executions
	inputs  map[string]wire.Execution
	down    error // Step Functions
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{kept: storetest.NewApprovals(), at: now, inputs: map[string]wire.Execution{}}
	clock := func() time.Time { f.mu.Lock(); defer f.mu.Unlock(); return f.at }
	f.issuers = inforcetest.NewIssuers(clock)
	log := slog.New(slog.NewTextHandler(&f.log, nil))
	f.desk = &desk{
		keeper:    inforce.New(inforce.Config{Policies: f.bucket.Follow, Every: lookEvery, Keys: f.issuers.Keys, Now: clock, Log: log}),
		approvals: f.kept, workflow: f, pages: "https://reviews.example.com", now: clock, log: log,
	}
	f.bucket.Put("1", policyText)
	return f
}

// Start takes a name once, as Step Functions does.
func (f *fixture) Start(_ context.Context, name string, in wire.Execution) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down != nil {
		return f.down
	}
	if _, exists := f.inputs[name]; !exists {
		f.started = append(f.started, name)
		f.inputs[name] = in
	}
	return nil
}

func (f *fixture) later(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.at = f.at.Add(d)
}

func (f *fixture) token(agent, run, owner string) string {
	return f.issuers.Token("https://i", "sallyport", agent, map[string]any{"groups": []string{"agents"}, "run_id": run, "owner": owner})
}

const web = "/apis/apps/v1/namespaces/shop/deployments/web"

// deletion is an ask of agent bot to delete deployment web.
func (f *fixture) deletion() wire.Open {
	return wire.Open{SubjectToken: f.token("bot", "1", "zoe"), Cluster: "dev", Raw: wire.Raw{Method: "DELETE", Target: web}, Session: "s1", Request: "r1", Evidence: live(7)}
}

// live is deployment shop/web as the proxy sees it.
func live(generation int64) wire.Evidence {
	b, err := json.Marshal(map[string]any{"apiVersion": "apps/v1", "kind": "Deployment",
		"metadata": map[string]any{"name": "web", "namespace": "shop", "uid": "u1", "generation": generation}, "spec": map[string]any{"replicas": 3}})
	if err != nil {
		panic(err)
	}
	return wire.Evidence{Live: b}
}

func (f *fixture) asks(t *testing.T, o wire.Open) wire.ReviewAnswer {
	t.Helper()
	a, err := f.handle(context.Background(), wire.ReviewRequest{Open: &o})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// opened is the approval an ask comes to.
func (f *fixture) opened(t *testing.T, o wire.Open) wire.Approval {
	t.Helper()
	a := f.asks(t, o)
	if a.Error != nil {
		t.Fatalf("%+v\n%s", a.Error, f.log.String())
	}
	return *a.Approval
}

func (f *fixture) polls(t *testing.T, p wire.Poll) wire.State {
	t.Helper()
	a, err := f.handle(context.Background(), wire.ReviewRequest{Poll: &p})
	if err != nil || a.Error != nil {
		t.Fatalf("%+v, %v", a.Error, err)
	}
	return *a.State
}

func (f *fixture) get(t *testing.T, id string) access.Approval {
	t.Helper()
	a, err := f.kept.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (f *fixture) change(t *testing.T, id string, change func(*access.Approval) error) {
	t.Helper()
	if _, err := f.kept.Update(t.Context(), id, change); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) vote(t *testing.T, id string, yes bool, give access.Grant) {
	t.Helper()
	g, _, _ := f.keeper.InForce(t.Context())
	f.change(t, id, func(a *access.Approval) error {
		return approval.Vote(a, g.Roster(), access.Vote{By: ana, Yes: yes, Grant: give, Reason: "because I say so"}, f.clock())
	})
}

func (f *fixture) all(t *testing.T) []access.Approval {
	t.Helper()
	pending, _ := f.kept.List(t.Context(), true, 1000, time.Time{})
	ended, _ := f.kept.List(t.Context(), false, 1000, time.Time{})
	return append(pending, ended...)
}

// Every sample event is one the function answers without an error.
func TestSampleEvents(t *testing.T) {
	files, err := filepath.Glob("../../events/review/*.json")
	if err != nil || len(files) < 3 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t)
		b = bytes.ReplaceAll(b, []byte("good:agent"), []byte(f.token("agent", "1", "")))
		var req wire.ReviewRequest
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&req); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if a, err := f.handle(context.Background(), req); err != nil || a.Error != nil {
			t.Errorf("%s: %+v, %v", name, a.Error, err)
		}
	}
}

func TestMalformed(t *testing.T) {
	for name, change := range map[string]func(*wire.Open){
		"no token":          func(o *wire.Open) { o.SubjectToken = "" },
		"a bad token":       func(o *wire.Open) { o.SubjectToken = "a.b.c" },
		"no request":        func(o *wire.Open) { o.Request = "" },
		"a session's label": func(o *wire.Open) { o.Session = "<script>" },
		"no raw request":    func(o *wire.Open) { o.Raw = wire.Raw{} },
		"no cluster":        func(o *wire.Open) { o.Cluster = "" },
		"another object":    func(o *wire.Open) { o.Raw.Target = strings.Replace(web, "web", "api", 1) },
	} {
		f := newFixture(t)
		o := f.deletion()
		change(&o)
		if a := f.asks(t, o); a.Error == nil || a.Approval != nil || a.Error.Description == "" {
			t.Errorf("%s: got %+v", name, a)
		}
		if len(f.all(t)) != 0 || len(f.started) != 0 {
			t.Errorf("%s: something was opened", name)
		}
	}
	for name, req := range map[string]wire.ReviewRequest{"nothing": {}, "both": {Open: &wire.Open{}, Poll: &wire.Poll{}}} {
		if a, err := newFixture(t).handle(context.Background(), req); err != nil || a.Error == nil || a.Error.Kind != access.Invalid {
			t.Errorf("%s: got %+v, %v", name, a, err)
		}
	}
}

// A15: what is asked, of whom and what it is bound to come from the token, the bytes and the policy.
func TestOpen(t *testing.T) {
	f := newFixture(t)
	o := f.deletion()
	o.Raw = wire.Raw{Method: "PATCH", Target: web + "?fieldManager=kubectl", ContentType: "application/merge-patch+json", Body: []byte(`{"spec":{"replicas":0}}`)}
	o.Reason = "because\u202e it is mine"
	o.Evidence.Affected, o.Evidence.More = []access.Affected{{Kind: "Pod", Name: "web-1"}}, 2
	got := f.opened(t, o)
	if got.State != access.StatePending || got.Joined || len(got.ID) != 26 || !got.Expires.Equal(now.Add(15*time.Minute)) ||
		!strings.Contains(got.Message, "sre") || !strings.Contains(got.Message, "https://reviews.example.com/approvals/"+got.ID) {
		t.Errorf("got %+v", got)
	}
	who := access.Principal{Issuer: "https://i", Subject: "bot", Agent: "bot", Owner: "zoe", Run: map[string]string{"run_id": "1"}, Groups: []string{"agents"}}
	digest, err := approval.Digest(approval.Request{Cluster: "dev", Principal: who, Verb: "patch", Target: o.Raw.Target, ContentType: o.Raw.ContentType, Body: o.Raw.Body})
	if err != nil {
		t.Fatal(err)
	}
	a := f.get(t, got.ID)
	want := access.Approval{
		ID: got.ID, Digest: digest, State: access.StatePending, Principal: who, Session: "s1", Request: "r1", Cluster: "dev",
		Action:   access.Action{Verb: "patch", Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Name: "web", Path: web, Patch: access.MergePatch},
		Decision: a.Decision, Kubectl: a.Kubectl, Sentence: "change deployment web in namespace shop", Reason: `because\u{202e} it is mine`,
		Target: access.Target{UID: "u1", Generation: 7}, Opened: now, Expires: now.Add(15 * time.Minute), Reviewers: []string{"sre"}, History: a.History, Started: 1,
	}
	if d := cmp.Diff(want, a); d != "" {
		t.Error(d)
	}
	if a.Decision.Rule != "change" || a.Decision.Tier != "maintain" || !strings.HasPrefix(a.Kubectl, "kubectl -n shop patch deployments web") {
		t.Errorf("decided %+v, shown as %s", a.Decision, a.Kubectl)
	}
	shown, err := f.kept.View(t.Context(), got.ID)
	if err != nil || !strings.Contains(shown.Diff, "-  replicas: 3") || !strings.Contains(shown.Diff, "+  replicas: 0") || len(shown.Affected) != 1 || shown.More != 2 || !shown.Live {
		t.Errorf("shown is %+v, %v", shown, err)
	}
	if d := cmp.Diff([]string{got.ID}, f.started); d != "" || f.inputs[got.ID].Approval != got.ID {
		t.Error(d, f.inputs)
	}
}

// A10: identical asks are one approval, whoever carries them and however many come at once, and count as one.
func TestIdenticalAsksJoin(t *testing.T) {
	f := newFixture(t)
	o := f.deletion()
	var wg sync.WaitGroup
	ids := make([]string, 50)
	all := &together{approvals: f.kept}
	all.wait.Add(len(ids))
	all.left.Store(int64(len(ids)))
	f.approvals = all
	for i := range ids {
		wg.Go(func() {
			o := o
			o.Request, o.Session = fmt.Sprint("r", i), fmt.Sprint("s", i%2)
			a, err := f.handle(context.Background(), wire.ReviewRequest{Open: &o})
			if err != nil || a.Error != nil {
				t.Errorf("%+v, %v", a.Error, err)
				return
			}
			ids[i] = a.Approval.ID
		})
	}
	wg.Wait()
	if slices.Sort(ids); len(slices.Compact(ids)) != 1 || len(f.all(t)) != 1 || len(f.started) != 1 {
		t.Errorf("%d approvals, executions %v", len(f.all(t)), f.started)
	}
	if a := f.opened(t, o); !a.Joined {
		t.Errorf("got %+v", a)
	}
	// Fifty asks took one of twenty.
	for i := range maxOpened - 1 {
		o.Raw.Target = fmt.Sprint(web, "?gracePeriodSeconds=", i)
		if a := f.asks(t, o); a.Error != nil {
			t.Fatalf("question %d: %+v", i, a.Error)
		}
	}
	// Another run asks for itself.
	other := f.deletion()
	other.SubjectToken = f.token("bob", "1", "")
	first := f.opened(t, other)
	other.SubjectToken = f.token("bob", "2", "")
	if second := f.opened(t, other); second.Joined || second.ID == first.ID {
		t.Error("two runs share an approval")
	}
}

// together holds the first who look for an approval until all have looked, so that none finds what another opens.
type together struct {
	approvals
	wait sync.WaitGroup
	left atomic.Int64
}

func (k *together) Find(ctx context.Context, principalKey, digest string) (access.Approval, bool, error) {
	a, found, err := k.approvals.Find(ctx, principalKey, digest)
	if k.left.Add(-1) >= 0 {
		k.wait.Done()
		k.wait.Wait()
	}
	return a, found, err
}

// A10: an agent that floods its reviewers is stopped, in all its runs, and alone.
func TestFlood(t *testing.T) {
	f := newFixture(t)
	ask := func(agent string, n int) wire.ReviewAnswer {
		o := f.deletion()
		o.SubjectToken, o.Raw.Target = f.token(agent, fmt.Sprint(n), ""), fmt.Sprint(web, "?gracePeriodSeconds=", n)
		return f.asks(t, o)
	}
	for n := range maxOpened {
		if a := ask("bot", n); a.Error != nil {
			t.Fatalf("question %d: %+v", n, a.Error)
		}
	}
	for range 2 { // asking again and again does not get past it
		a := ask("bot", maxOpened)
		if a.Error == nil || a.Error.Kind != access.Limited || a.Error.RetryAfter != 60 {
			t.Fatalf("got %+v", a)
		}
	}
	if len(f.all(t)) != maxOpened || len(f.started) != maxOpened {
		t.Errorf("%d approvals, %d executions", len(f.all(t)), len(f.started))
	}
	if a := ask("bot", 3); a.Error != nil || !a.Approval.Joined {
		t.Errorf("what was asked before cannot be joined: %+v", a)
	}
	if a := ask("other", 0); a.Error != nil {
		t.Errorf("another agent is stopped too: %+v", a.Error)
	}
	f.later(limitWindow)
	if a := ask("bot", maxOpened); a.Error != nil {
		t.Errorf("ten minutes later: %+v", a.Error)
	}
}

func TestNothingToAsk(t *testing.T) {
	for name, test := range map[string]struct {
		change  func(*fixture, *wire.Open)
		kind    access.Kind
		message string
	}{
		"allowed": {func(_ *fixture, o *wire.Open) { o.Raw.Method = "GET" }, access.Conflict, "does not ask"},
		"no rule": {func(_ *fixture, o *wire.Open) { o.Raw.Target, o.Evidence = "/api/v1/nodes/n", wire.Evidence{} }, access.Denied, "no rule"},
		"denied": {func(_ *fixture, o *wire.Open) {
			o.Raw.Target, o.Evidence = "/api/v1/namespaces/shop/secrets/s", wire.Evidence{}
		}, access.Denied, "gone then"},
		"observing": {func(f *fixture, _ *wire.Open) {
			f.bucket.Put("2", strings.Replace(policyText, "kind: Policy", "kind: Policy\nmode: observe", 1))
		}, access.Conflict, "does not ask"},
		"no tier": {func(f *fixture, o *wire.Open) {
			o.SubjectToken = f.issuers.Token("https://i", "sallyport", "bot", map[string]any{"run_id": "1"})
		}, access.Denied, "tier"},
		"too large a body": {func(_ *fixture, o *wire.Open) {
			o.Raw = wire.Raw{Method: "POST", Target: "/apis/apps/v1/namespaces/shop/deployments", ContentType: "application/json", Body: bytes.Repeat([]byte(" "), maxBody+1)}
			o.Evidence = wire.Evidence{}
		}, access.Denied, "cannot be shown whole"},
		"too large a view": {func(_ *fixture, o *wire.Open) {
			body, _ := json.Marshal(map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web", "namespace": "shop",
				"annotations": map[string]any{"note": strings.Repeat("\u200b", 60<<10)}}})
			o.Raw = wire.Raw{Method: "POST", Target: "/apis/apps/v1/namespaces/shop/deployments", ContentType: "application/json", Body: body}
			o.Evidence = wire.Evidence{}
		}, access.Denied, "cannot be shown whole"},
		// A5, A14: who asks, and who answers for the agent, are nobody who could answer.
		"too few people": {func(f *fixture, o *wire.Open) {
			o.Raw.Target, o.Evidence = "/api/v1/namespaces/shop/services/web", wire.Evidence{}
			o.SubjectToken = f.token("bot", "1", "ana@example.com")
		}, access.Denied, "2 of sre"},
		"known under another name": {func(f *fixture, o *wire.Open) {
			o.Raw.Target, o.Evidence = "/api/v1/namespaces/shop/services/web", wire.Evidence{}
			_ = f.kept.PutKnown(context.Background(), "https://i", "bot", "ben@example.com")
		}, access.Denied, "2 of sre"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			o := f.deletion()
			test.change(f, &o)
			a := f.asks(t, o)
			if a.Error == nil || a.Error.Kind != test.kind || !strings.Contains(a.Error.Description, test.message) {
				t.Errorf("got %+v", a.Error)
			}
			if len(f.all(t)) != 0 || len(f.started) != 0 {
				t.Error("something was opened")
			}
		})
	}
}

// A policy that changed is heard of by the next ask a second later.
func TestPolicyIsFresh(t *testing.T) {
	f := newFixture(t)
	f.opened(t, f.deletion())
	f.bucket.Put("2", strings.Replace(policyText, "name: change, effect: ask", "name: change, effect: deny", 1))
	f.later(time.Second)
	if a := f.asks(t, f.deletion()); a.Error == nil || a.Error.Kind != access.Denied {
		t.Errorf("got %+v", a)
	}
}

func TestAnswers(t *testing.T) {
	f := newFixture(t)
	first := f.opened(t, f.deletion())
	f.vote(t, first.ID, false, access.Grant{})
	if a := f.opened(t, f.deletion()); a.ID != first.ID || a.State != access.StateDenied || !a.Joined || !strings.Contains(a.Message, "because I say so") {
		t.Errorf("a no does not stick: %+v", a)
	}
	f.later(15 * time.Minute)
	second := f.opened(t, f.deletion())
	if second.ID == first.ID || second.State != access.StatePending {
		t.Errorf("after it expired: %+v", second)
	}
	f.vote(t, second.ID, true, access.Grant{})
	if a := f.opened(t, f.deletion()); a.ID != second.ID || a.State != access.StateApproved {
		t.Errorf("after a yes: %+v", a)
	}
	if len(f.started) != 2 {
		t.Errorf("executions %v", f.started)
	}
	// What was changed meanwhile is for the exchange to find out.
	f.change(t, second.ID, func(a *access.Approval) error { approval.Withdraw(a, "it changed", f.clock()); return nil })
	if a := f.opened(t, f.deletion()); a.ID == second.ID || a.State != access.StatePending {
		t.Errorf("after it was withdrawn: %+v", a)
	}
}

// One passes, the others hear of it; whose outcome nobody knows is told so once, and may then ask anew.
func TestSpent(t *testing.T) {
	f := newFixture(t)
	spend := func() string {
		a := f.opened(t, f.deletion())
		f.change(t, a.ID, func(a *access.Approval) error {
			a.State, a.Ended, a.Uses = access.StateSpent, f.clock(), []access.Use{{Request: "r9", At: f.clock()}}
			return nil
		})
		return a.ID
	}
	first := spend()
	if a := f.opened(t, f.deletion()); a.ID != first || a.State != access.StateSpent || a.By != "r9" || !a.Joined {
		t.Errorf("while it is used: %+v", a)
	}
	f.polls(t, wire.Poll{Outcomes: []wire.Outcome{{Approval: first, Request: "r9", Code: 200}}})
	f.later(time.Minute)
	second := spend()
	if second == first {
		t.Fatal("an approval whose outcome is known is joined")
	}
	f.later(2 * time.Minute)
	if peeked := f.asks(t, func() wire.Open { o := f.deletion(); o.Peek = true; return o }()); peeked.Approval.ID != second {
		t.Errorf("got %+v", peeked)
	}
	if a := f.opened(t, f.deletion()); a.ID != second || !strings.Contains(a.Message, "outcome unknown") {
		t.Errorf("the outcome is not known: %+v", a)
	}
	if a := f.opened(t, f.deletion()); a.ID == second || a.State != access.StatePending {
		t.Errorf("after that was told: %+v", a)
	}
}

// Of many asks at once one is told that the outcome is not known, and the others ask anew.
func TestToldOnce(t *testing.T) {
	f := newFixture(t)
	a := f.opened(t, f.deletion())
	f.change(t, a.ID, func(a *access.Approval) error {
		a.State, a.Uses = access.StateSpent, []access.Use{{Request: "r9", At: now}}
		return nil
	})
	f.later(3 * time.Minute)
	o := f.deletion()
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[string]int{}
	for range 10 {
		wg.Go(func() {
			a, err := f.handle(context.Background(), wire.ReviewRequest{Open: &o})
			if err != nil || a.Error != nil {
				t.Errorf("%+v, %v", a.Error, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			seen[a.Approval.ID]++
		})
	}
	wg.Wait()
	if seen[a.ID] != 1 || len(seen) != 2 {
		t.Errorf("told %d times, got %v", seen[a.ID], seen)
	}
}

func TestPeekOpensNothing(t *testing.T) {
	f := newFixture(t)
	o := f.deletion()
	o.Peek = true
	if a := f.opened(t, o); !cmp.Equal(a, wire.Approval{}) || len(f.all(t)) != 0 || len(f.started) != 0 {
		t.Errorf("got %+v", a)
	}
	o.Peek = false
	opened := f.opened(t, o)
	o.Peek = true
	if a := f.opened(t, o); a.ID != opened.ID || a.State != access.StatePending {
		t.Errorf("got %+v", a)
	}
}

func TestGrantCovers(t *testing.T) {
	f := newFixture(t)
	first := f.opened(t, f.deletion())
	f.vote(t, first.ID, true, access.Grant{Scope: access.ScopeNamespace, Length: 30 * time.Minute})
	o := f.deletion()
	o.Raw.Target, o.Evidence = strings.Replace(web, "web", "api", 1), wire.Evidence{}
	for _, peek := range []bool{true, false} {
		o.Peek = peek
		if a := f.opened(t, o); a.ID != first.ID || a.State != access.StateGranted || !a.Until.Equal(now.Add(30*time.Minute)) {
			t.Errorf("got %+v", a)
		}
	}
	o.Raw.Target = strings.Replace(web, "shop", "till", 1)
	if a := f.opened(t, o); a.ID == first.ID {
		t.Error("the grant covers another namespace")
	}
	f.later(30 * time.Minute)
	if a := f.opened(t, f.deletion()); a.ID == first.ID {
		t.Error("the grant is over, and covers")
	}
}

// A workflow that does not start, or is lost, is started again by whoever asks next.
func TestWorkflowIsStartedAgain(t *testing.T) {
	f := newFixture(t)
	f.down = errors.New("Step Functions is away")
	for range 2 {
		if a := f.asks(t, f.deletion()); a.Error == nil || a.Error.Kind != access.Unavailable || a.Error.RetryAfter == 0 || strings.Contains(a.Error.Description, "Step Functions") {
			t.Fatalf("got %+v", a)
		}
	}
	if all := f.all(t); len(all) != 1 || all[0].State != access.StatePending || all[0].Started != 0 {
		t.Fatalf("there are %+v", all)
	}
	f.down = nil
	a := f.opened(t, f.deletion())
	want := []string{a.ID}
	step := func(after time.Duration, more ...string) {
		t.Helper()
		f.mu.Lock()
		f.at = now.Add(after)
		f.mu.Unlock()
		f.opened(t, f.deletion())
		want = append(want, more...)
		if d := cmp.Diff(want, f.started); d != "" {
			t.Errorf("after %v: %s", after, d)
		}
	}
	step(9 * time.Second)
	step(10*time.Second, a.ID+"-2")
	step(29 * time.Second)
	step(30*time.Second, a.ID+"-3")
	if got := f.get(t, a.ID).Started; got != 3 {
		t.Errorf("%d executions are counted", got)
	}
	f.change(t, a.ID, func(a *access.Approval) error { a.Notified = now; return nil })
	step(10 * time.Minute)
}

// Two who find the same execution missing start one.
func TestRestartsAgree(t *testing.T) {
	f := newFixture(t)
	id := f.opened(t, f.deletion()).ID
	a := f.get(t, id)
	f.later(15 * time.Second)
	for range 2 { // both read it before either counted
		if err := f.run(t.Context(), a, access.StatePending, f.clock()); err != nil {
			t.Fatal(err)
		}
	}
	if d := cmp.Diff([]string{id, id + "-2"}, f.started); d != "" || f.get(t, id).Started != 2 {
		t.Error(d, f.get(t, id).Started)
	}
}

func TestReason(t *testing.T) {
	for in, want := range map[string]string{
		"":                                      "",
		"fixes #1":                              "fixes #1",
		"pre-approved \u202e":                   `pre-approved \u{202e}`,
		strings.Repeat("ä", approval.MaxReason): strings.Repeat("ä", approval.MaxReason),
		strings.Repeat("ä", approval.MaxReason+1): strings.Repeat("ä", approval.MaxReason) + "… (cut: it was longer)",
	} {
		if got := reason(in); got != want {
			t.Errorf("%q became %q", in, got)
		}
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	f := newFixture(t)
	o := f.deletion()
	o.Raw = wire.Raw{Method: "PATCH", Target: web, ContentType: "application/merge-patch+json", Body: []byte(`{"metadata":{"annotations":{"a":"bodysecret"}}}`)}
	o.Evidence.Live = bytes.Replace(o.Evidence.Live, []byte(`"spec"`), []byte(`"x":"livesecret","spec"`), 1)
	o.Reason = "reasonsecret"
	id := f.opened(t, o).ID
	f.asks(t, o)
	bad := o
	bad.Raw.Body = []byte(`{"bodysecret`)
	f.asks(t, bad)
	f.polls(t, wire.Poll{Approvals: []string{id}})
	_, signed, _ := strings.Cut(o.SubjectToken, ".")
	for _, secret := range []string{"bodysecret", "livesecret", "reasonsecret", signed[:20]} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, f.log.String())
		}
	}
	for _, want := range []string{"approval=" + id, "agent=bot", "rule=change", "request=r1", "ask refused"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("%q is not in the log: %s", want, f.log.String())
		}
	}
}
