package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

const merge = "application/merge-patch+json"

var (
	once = access.Grant{Scope: access.ScopeRequest}
	half = access.Grant{Scope: access.ScopeNamespace, Length: 30 * time.Minute}
	ana  = access.Reviewer{Email: "ana@example.com", Issuer: "https://i", Audience: "reviews", Channel: "page"}
)

// live is deployment shop/web as the proxy sees it.
func live(uid string, generation int64, status string) wire.Evidence {
	b, err := json.Marshal(map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "status": map[string]any{"phase": status},
		"metadata": map[string]any{"name": "web", "namespace": "shop", "uid": uid, "generation": generation, "resourceVersion": status},
		"spec":     map[string]any{"replicas": 3}})
	if err != nil {
		panic(err)
	}
	return wire.Evidence{Live: b}
}

func scale() wire.Raw {
	return wire.Raw{Method: "PATCH", Target: "/apis/apps/v1/namespaces/shop/deployments/web?fieldManager=kubectl", ContentType: merge, Body: []byte(`{"spec":{"replicas":0}}`)}
}

// pending opens an approval as function review does.
func (f *fixture) pending(t *testing.T, id, who string, raw wire.Raw, ev wire.Evidence) access.Approval {
	t.Helper()
	ctx := context.Background()
	g, _, err := f.keeper.InForce(ctx)
	if err != nil {
		t.Fatal(err, f.log.String())
	}
	of, err := g.Verify(ctx, f.token(who))
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Judge(of.Principal, "dev", raw, ev, f.now())
	if err != nil || r.Decision.Effect != access.Ask {
		t.Fatalf("%+v, %v", r.Decision, err)
	}
	a, _, err := f.kept.Open(ctx, approval.New(approval.Ask{
		ID: id, Digest: r.Digest, Principal: of.Principal, Request: "asked", Cluster: "dev", Action: r.Action, Decision: r.Decision,
		Kubectl: r.Kubectl, Sentence: r.Sentence, Target: approval.Target(r.Live), Now: f.now(),
	}), access.View{}, func(access.Approval) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// approved opens an approval and has Ana say yes.
func (f *fixture) approved(t *testing.T, id, who string, raw wire.Raw, ev wire.Evidence, give access.Grant) {
	t.Helper()
	f.pending(t, id, who, raw, ev)
	g, _, _ := f.keeper.InForce(context.Background())
	f.change(t, id, func(a *access.Approval) error {
		return approval.Vote(a, g.Roster(), access.Vote{By: ana, Yes: true, Grant: give}, f.now())
	})
}

func (f *fixture) change(t *testing.T, id string, change func(*access.Approval) error) access.Approval {
	t.Helper()
	a, err := f.kept.Update(context.Background(), id, change)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (f *fixture) get(t *testing.T, id string) access.Approval {
	t.Helper()
	a, err := f.kept.Get(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (f *fixture) use(t *testing.T, r wire.Redeem) wire.Answer {
	t.Helper()
	r.SubjectToken = f.token(r.SubjectToken)
	a, err := f.handle(context.Background(), wire.Request{Redeem: &r})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// redeem is the redemption of scale's approval.
func redeem() wire.Redeem {
	return wire.Redeem{SubjectToken: "good:bot", Cluster: "dev", Raw: scale(), Evidence: live("u1", 7, "ok"), Approval: "a1", Session: "s1", Request: "r1"}
}

func TestRedeem(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	f.now = func() time.Time { return now.Add(5 * time.Minute) }
	r := redeem()
	r.Evidence = live("u1", 7, "a status that changed is no drift")
	got := f.use(t, r)
	if got.Error != nil {
		t.Fatal(got.Error)
	}
	at := f.now()
	want := &wire.Token{
		IssuedTokenType: wire.CredentialsType, TokenType: "N_A", ExpiresIn: 900,
		Credentials: wire.Credentials{AccessKeyID: "ASIAKEYID", SecretAccessKey: "hushhush", SessionToken: "sessiontoken", Expiration: now.Add(15 * time.Minute)},
		Session: access.Session{
			ID: "s1", Cluster: "dev", Tier: "operate", Name: got.Token.Session.Name, Policy: f.digest(t), Started: at, Seen: at, Ends: at.Add(15 * time.Minute),
			Principal: access.Principal{Issuer: "https://i", Subject: "bot", Agent: "bot", Groups: []string{"agents"}},
		},
		Cluster:  wire.Cluster{Name: "dev", Region: "eu-west-1", Endpoint: "https://dev.eks.example.com", CA: []byte("PEM")},
		Tier:     "maintain",
		Approval: &wire.Approval{ID: "a1", State: access.StateSpent, By: "r1", Approvers: []string{"ana@example.com"}, Expires: now.Add(15 * time.Minute), Message: got.Token.Approval.Message},
	}
	want.Credentials.Expiration, want.ExpiresIn = got.Token.Credentials.Expiration, got.Token.ExpiresIn // of the fake's clock
	if d := cmp.Diff(want, got.Token); d != "" {
		t.Error(d)
	}
	if got.Token.Session.Name != f.ask(t, "good:bot", "dev").Token.Session.Name {
		t.Error("the agent has another name under an approval")
	}
	with := f.assumed[0]
	if with.tier.Name != "maintain" || with.tier.Role != "arn:aws:iam::111122223333:role/sallyport/maintain" || with.approval != "a1" || with.lifetime != 15*time.Minute || with.session.ID != "s1" {
		t.Errorf("assumed %+v", with)
	}
	a := f.get(t, "a1")
	if d := cmp.Diff([]access.Use{{Request: "r1", At: at}}, a.Uses); d != "" || a.State != access.StateSpent {
		t.Errorf("it is %s now: %s", a.State, d)
	}
	if base := f.assumed[1]; base.approval != "" || base.tier.Name != "operate" {
		t.Errorf("a session assumed %+v", base)
	}
}

// A1, A15: what people said yes to is the bytes they were asked about, from whom and for where they were asked.
func TestAnotherRequestIsNotApproved(t *testing.T) {
	for name, change := range map[string]func(*wire.Redeem){
		"another body":           func(r *wire.Redeem) { r.Raw.Body = []byte(`{"spec":{"replicas":1}}`) },
		"the same, spelled anew": func(r *wire.Redeem) { r.Raw.Body = []byte(`{"spec": {"replicas":0}}`) },
		"another field manager":  func(r *wire.Redeem) { r.Raw.Target = strings.Replace(r.Raw.Target, "kubectl", "helm", 1) },
		"no query":               func(r *wire.Redeem) { r.Raw.Target, _, _ = strings.Cut(r.Raw.Target, "?") },
		"one parameter more":     func(r *wire.Redeem) { r.Raw.Target += "&force=true" },
		"another content type":   func(r *wire.Redeem) { r.Raw.ContentType = "application/strategic-merge-patch+json" },
		"parameters of the type": func(r *wire.Redeem) { r.Raw.ContentType += ";charset=utf-8" },
		"another object": func(r *wire.Redeem) {
			r.Raw.Target, r.Evidence = strings.Replace(r.Raw.Target, "web", "api", 1), wire.Evidence{}
		},
		"another namespace": func(r *wire.Redeem) {
			r.Raw.Target, r.Evidence = strings.Replace(r.Raw.Target, "shop", "till", 1), wire.Evidence{}
		},
		"a trailing slash":        func(r *wire.Redeem) { r.Raw.Target = strings.Replace(r.Raw.Target, "web?", "web/?", 1) },
		"another verb":            func(r *wire.Redeem) { r.Raw.Method, r.Raw.ContentType, r.Raw.Body = "DELETE", "", nil },
		"another agent":           func(r *wire.Redeem) { r.SubjectToken = "good:other" },
		"another cluster":         func(r *wire.Redeem) { r.Cluster = "stage" },
		"a cluster there is not":  func(r *wire.Redeem) { r.Cluster = "prod" },
		"no token":                func(r *wire.Redeem) { r.SubjectToken = "" },
		"no agent's token":        func(r *wire.Redeem) { r.SubjectToken = "bad" },
		"an agent without a tier": func(r *wire.Redeem) { r.SubjectToken = "nobody:bot" },
		"no request at all":       func(r *wire.Redeem) { r.Raw, r.Evidence = wire.Raw{}, wire.Evidence{} },
		"a request the policy allows nobody": func(r *wire.Redeem) {
			r.Raw, r.Evidence = wire.Raw{Method: "DELETE", Target: "/api/v1/nodes/n"}, wire.Evidence{}
		},
		"another approval":    func(r *wire.Redeem) { r.Approval = "a2" },
		"no approval":         func(r *wire.Redeem) { r.Approval = "" },
		"a label that is not": func(r *wire.Redeem) { r.Request = "r1\nadmin" },
		"a session's label":   func(r *wire.Redeem) { r.Session = "<b>" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
			r := redeem()
			change(&r)
			got := f.use(t, r)
			if got.Error == nil || got.Token != nil || len(f.assumed) != 0 {
				t.Fatalf("got %+v, assumed %v", got, f.assumed)
			}
			if a := f.get(t, "a1"); a.State != access.StateApproved || len(a.Uses) != 0 {
				t.Errorf("the approval is %s, used %v", a.State, a.Uses)
			}
			if got := f.use(t, redeem()); got.Error != nil {
				t.Errorf("the approved request was refused afterwards: %+v", got.Error)
			}
		})
	}
}

// Who tries what they may not is in the history of the approval, and in the log.
func TestTheftIsKept(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	r := redeem()
	r.SubjectToken = "good:thief"
	f.use(t, r)
	a := f.get(t, "a1")
	if last := a.History[len(a.History)-1]; last.What != "refused" || last.By != "thief" {
		t.Errorf("the last thing that happened is %+v", last)
	}
	if !strings.Contains(f.log.String(), "redeem refused") || !strings.Contains(f.log.String(), "agent=thief") {
		t.Error(f.log.String())
	}
}

// A2: what was approved is withdrawn when its target is another.
func TestDriftWithdraws(t *testing.T) {
	for name, test := range map[string]struct{ asked, now wire.Evidence }{
		"another object of the name": {live("u1", 7, "ok"), live("u2", 1, "ok")},
		"changed meanwhile":          {live("u1", 7, "ok"), live("u1", 8, "ok")},
		"gone":                       {live("u1", 7, "ok"), wire.Evidence{}},
		"there now":                  {wire.Evidence{}, live("u1", 7, "ok")},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.approved(t, "a1", "good:bot", scale(), test.asked, once)
			r := redeem()
			r.Evidence = test.now
			if got := f.use(t, r); got.Error == nil || got.Error.Kind != access.Conflict || len(f.assumed) != 0 {
				t.Fatalf("got %+v", got)
			}
			if a := f.get(t, "a1"); a.State != access.StateWithdrawn {
				t.Errorf("the approval is %s", a.State)
			}
			r.Evidence = test.asked // it does not come back
			if got := f.use(t, r); got.Error == nil || len(f.assumed) != 0 {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A4: nothing is redeemed that is over, was taken back, or that today's policy would not ask in the same way.
func TestTooLate(t *testing.T) {
	policy := func(from, to string) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) {
			t.Helper()
			changed := strings.Replace(policyText, from, to, 1)
			if changed == policyText {
				t.Fatalf("%q is not in the policy", from)
			}
			f.bucket.Put("2", changed) // a moment ago: no exchange has looked for it yet
		}
	}
	at := func(d time.Duration) func(*testing.T, *fixture) {
		return func(_ *testing.T, f *fixture) { f.now = func() time.Time { return now.Add(d) } }
	}
	is := func(change func(*access.Approval) error) func(*testing.T, *fixture) {
		return func(t *testing.T, f *fixture) { t.Helper(); f.change(t, "a1", change) }
	}
	for _, test := range []struct {
		name  string
		do    func(*testing.T, *fixture)
		state access.ApprovalState
	}{
		{"expired", at(15 * time.Minute), access.StateExpired},
		{"long expired", at(55 * time.Minute), access.StateExpired},
		{"revoked", is(func(a *access.Approval) error {
			return approval.Revoke(a, approval.Roster{{Name: "sre", People: []string{"ana@example.com"}}}, ana, "no", now)
		}), access.StateRevoked},
		{"withdrawn", is(func(a *access.Approval) error { approval.Withdraw(a, "so", now); return nil }), access.StateWithdrawn},
		{"spent", is(func(a *access.Approval) error {
			a.State, a.Uses = access.StateSpent, []access.Use{{Request: "r0", At: now}}
			return nil
		}), access.StateSpent},
		{"pending", is(func(a *access.Approval) error { a.State = access.StatePending; return nil }), access.StatePending},
		{"denied", is(func(a *access.Approval) error { a.State, a.Message = access.StateDenied, "no"; return nil }), access.StateDenied},
		{"another rule", policy("name: change", "name: alter"), access.StateWithdrawn},
		{"another tier", policy("asks: {tier: maintain", "asks: {tier: operate"), access.StateWithdrawn},
		{"more people", policy("quorum: 1", "quorum: 2"), access.StateWithdrawn},
		{"denied by now", policy("name: change, effect: ask", "name: change, effect: deny"), access.StateWithdrawn},
		{"allowed by now", policy("name: change, effect: ask", "name: change, effect: allow"), access.StateWithdrawn},
		{"nobody's by now", policy("groups: [agents], verbs: [delete, patch]", "groups: [observers], verbs: [delete, patch]"), access.StateWithdrawn},
		{"only observed by now", policy("kind: Policy", "kind: Policy\nmode: observe"), access.StateWithdrawn},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
			test.do(t, f)
			got := f.use(t, redeem())
			if got.Error == nil || got.Token != nil || len(f.assumed) != 0 || got.Error.Description == "" {
				t.Fatalf("got %+v, assumed %v", got, f.assumed)
			}
			if got.Error.Kind != access.Denied && got.Error.Kind != access.Conflict {
				t.Errorf("refused as %s", got.Error.Kind)
			}
			if a := f.get(t, "a1"); a.State != test.state {
				t.Errorf("the approval is %s, want %s", a.State, test.state)
			}
		})
	}
}

// A3: of fifty at once one passes.
func TestOnePasses(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	token := f.token("good:bot")
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for i := range 50 {
		wg.Go(func() {
			r := redeem()
			r.SubjectToken, r.Request = token, "r"+string(rune('a'+i%26))+string(rune('a'+i/26))
			a, err := f.handle(context.Background(), wire.Request{Redeem: &r})
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err != nil:
				t.Error(err)
			case a.Token != nil:
				passed++
			case a.Error.Kind != access.Conflict:
				t.Errorf("refused as %s: %s", a.Error.Kind, a.Error.Description)
			}
		})
	}
	wg.Wait()
	if passed != 1 || len(f.assumed) != 1 {
		t.Errorf("%d passed, %d roles were assumed", passed, len(f.assumed))
	}
}

// A grant lets through what it covers, as often as it is asked and until it is taken back.
func TestGrant(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), half)
	use := func(request string, change func(*wire.Redeem)) wire.Answer {
		r := redeem()
		r.Request = request
		if change != nil {
			change(&r)
		}
		return f.use(t, r)
	}
	another := func(r *wire.Redeem) {
		r.Raw.Target, r.Raw.Body, r.Evidence = strings.Replace(r.Raw.Target, "web", "api", 1), []byte(`{"spec":{"replicas":9}}`), wire.Evidence{}
	}
	for _, request := range []string{"r1", "r2"} {
		if got := use(request, another); got.Error != nil || got.Token.Approval.State != access.StateGranted || got.Token.Approval.By != "" {
			t.Fatalf("got %+v", got)
		}
	}
	for name, change := range map[string]func(*wire.Redeem){
		"another namespace": func(r *wire.Redeem) {
			r.Raw.Target, r.Evidence = strings.Replace(r.Raw.Target, "shop", "till", 1), wire.Evidence{}
		},
		"another verb":  func(r *wire.Redeem) { r.Raw.Method, r.Raw.ContentType, r.Raw.Body = "DELETE", "", nil },
		"another agent": func(r *wire.Redeem) { r.SubjectToken = "good:other" },
	} {
		if got := use("r3", change); got.Error == nil || got.Error.Kind != access.Denied {
			t.Errorf("%s: got %+v", name, got)
		}
	}
	if a := f.get(t, "a1"); len(a.Uses) != 2 || a.State != access.StateGranted {
		t.Errorf("used %v", a.Uses)
	}
	f.change(t, "a1", func(a *access.Approval) error {
		return approval.Revoke(a, approval.Roster{{Name: "sre", People: []string{"ana@example.com"}}}, ana, "enough", now)
	})
	if got := use("r4", nil); got.Error == nil || !strings.Contains(got.Error.Description, "enough") || len(f.assumed) != 2 {
		t.Errorf("got %+v", got)
	}
	f.approved(t, "a2", "good:bot", scale(), live("u1", 7, "ok"), half)
	f.now = func() time.Time { return now.Add(30 * time.Minute) }
	if got := use("r5", func(r *wire.Redeem) { r.Approval = "a2" }); got.Error == nil || got.Error.Kind != access.Denied {
		t.Errorf("a grant that is over: %+v", got)
	}
}

// What fails before the approval is spent leaves it as it was, and what fails after gives it back: nothing was forwarded.
func TestNoCredential(t *testing.T) {
	for name, give := range map[string]access.Grant{"once": once, "a grant": half} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), give)
			before := f.get(t, "a1")
			f.down = true
			if got := f.use(t, redeem()); got.Error == nil || got.Error.Kind != access.Unavailable || got.Error.RetryAfter == 0 {
				t.Errorf("got %+v", got)
			}
			if d := cmp.Diff(before, f.get(t, "a1")); d != "" {
				t.Error(d)
			}
			f.down = false
			f.fail = access.Errorf(access.Unavailable, "STS is away").After(2 * time.Second)
			if give == half { // a use of another request stays
				f.change(t, "a1", func(a *access.Approval) error {
					a.Uses = []access.Use{{Request: "r1", At: now.Add(-time.Second)}}
					return nil
				})
			}
			before = f.get(t, "a1")
			if got := f.use(t, redeem()); got.Error == nil || got.Error.Kind != access.Unavailable || got.Error.RetryAfter != 2 {
				t.Errorf("got %+v", got)
			}
			a := f.get(t, "a1")
			if a.State != before.State || !a.Ended.IsZero() || !cmp.Equal(a.Uses, before.Uses) {
				t.Errorf("the approval is %s, ended %v, used %v", a.State, a.Ended, a.Uses)
			}
			if last := a.History[len(a.History)-1]; last.What != "unspent" || last.By != "r1" {
				t.Errorf("the last thing that happened is %+v", last)
			}
			f.fail = nil
			if got := f.use(t, redeem()); got.Error != nil {
				t.Errorf("it was given back, and does not pass: %+v", got.Error)
			}
		})
	}
}

// The function's own end leaves time to give back what it spent.
func TestSlowCredential(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	f.hang = true
	ctx, cancel := context.WithTimeout(t.Context(), undoTime+time.Second)
	defer cancel()
	r := redeem()
	r.SubjectToken = f.token(r.SubjectToken)
	got, err := f.handle(ctx, wire.Request{Redeem: &r})
	if err != nil || got.Error == nil || got.Error.Kind != access.Unavailable || ctx.Err() != nil {
		t.Errorf("got %+v, %v, %v", got, err, ctx.Err())
	}
	if a := f.get(t, "a1"); a.State != access.StateApproved || len(a.Uses) != 0 {
		t.Errorf("the approval is %s, used %v", a.State, a.Uses)
	}
}

// troubled is a table that fails at chosen writes.
type troubled struct {
	approvals
	n    int
	fail func(n int, do func() (access.Approval, error)) (access.Approval, error)
}

func (k *troubled) Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error) {
	k.n++
	return k.fail(k.n, func() (access.Approval, error) { return k.approvals.Update(ctx, id, change) })
}

// When it cannot be given back it stays spent, and nobody passes by it again.
func TestNoCredentialAndNoTable(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	f.fail = errors.New("STS says something else")
	away := access.Errorf(access.Unavailable, "the table is away")
	f.approvals = &troubled{approvals: f.kept, fail: func(n int, do func() (access.Approval, error)) (access.Approval, error) {
		if n == 1 {
			return do()
		}
		return access.Approval{}, away
	}}
	got := f.use(t, redeem())
	if got.Error == nil || got.Error.Kind != access.Unavailable || !strings.Contains(got.Error.Description, "outcome nobody knows") {
		t.Fatalf("got %+v", got)
	}
	if !strings.Contains(f.log.String(), "its outcome will be unknown") {
		t.Error("the log does not say so:", f.log.String())
	}
	f.fail, f.approvals = nil, f.kept
	if got := f.use(t, redeem()); got.Error == nil || got.Error.Kind != access.Conflict || len(f.assumed) != 0 {
		t.Errorf("it passes by a yes that was lost: %+v", got)
	}
	if a := f.get(t, "a1"); a.State != access.StateSpent || len(a.Uses) != 1 {
		t.Errorf("the approval is %s, used %v", a.State, a.Uses)
	}
}

// A write whose answer was lost is taken back, and mints nothing.
func TestLostWrite(t *testing.T) {
	for name, kept := range map[string]bool{"it was kept": true, "it was not": false} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t)
			f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
			f.approvals = &troubled{approvals: f.kept, fail: func(n int, do func() (access.Approval, error)) (access.Approval, error) {
				if n > 1 {
					return do()
				}
				if kept {
					_, _ = do()
				}
				return access.Approval{}, access.Errorf(access.Unavailable, "the answer was lost").After(2 * time.Second)
			}}
			if got := f.use(t, redeem()); got.Error == nil || got.Error.Kind != access.Unavailable || len(f.assumed) != 0 {
				t.Errorf("got %+v", got)
			}
			a := f.get(t, "a1")
			if a.State != access.StateApproved || len(a.Uses) != 0 {
				t.Errorf("the approval is %s, used %v", a.State, a.Uses)
			}
			// Either way there is a new revision: the lost write, were it still to come, is refused.
			if last := a.History[len(a.History)-1]; last.What != "unspent" || last.By != "r1" {
				t.Errorf("the history ends with %+v", last)
			}
			if got := f.use(t, redeem()); got.Error != nil {
				t.Error(got.Error)
			}
		})
	}
}

// Whoever comes late takes nothing back: by then somebody was told that the outcome is not known.
func TestLateUndo(t *testing.T) {
	f := newFixture(t)
	f.approved(t, "a1", "good:bot", scale(), live("u1", 7, "ok"), once)
	f.change(t, "a1", func(a *access.Approval) error {
		a.State, a.Uses = access.StateSpent, []access.Use{{Request: "r1", At: now}}
		return nil
	})
	f.now = func() time.Time { return now.Add(2 * time.Minute) }
	if err := f.undo(t.Context(), "a1", access.Use{Request: "r1", At: now}, errors.New("cause")); access.KindOf(err) != access.Unavailable {
		t.Error(err)
	}
	if a := f.get(t, "a1"); a.State != access.StateSpent || len(a.Uses) != 1 {
		t.Errorf("the approval is %s, used %v", a.State, a.Uses)
	}
}

func TestRedeemingLogsNothingSecret(t *testing.T) {
	f := newFixture(t)
	raw := scale()
	raw.Body = []byte(`{"spec":{"replicas":0},"metadata":{"annotations":{"note":"bodysecret"}}}`)
	f.approved(t, "a1", "good:bot", raw, live("u1", 7, "livesecret"), once)
	r := redeem()
	r.Raw, r.Evidence = raw, live("u1", 7, "livesecret")
	if got := f.use(t, r); got.Error != nil {
		t.Fatal(got.Error)
	}
	f.use(t, r)
	r.SubjectToken = "good:thief"
	f.use(t, r)
	_, signed, _ := strings.Cut(f.token("good:bot"), ".")
	for _, secret := range []string{"hushhush", "sessiontoken", "ASIAKEYID", signed[:20], "bodysecret", "livesecret", "replicas"} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, f.log.String())
		}
	}
	for _, want := range []string{"approval=a1", "request=r1", "tier=maintain", "agent=thief"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("%q is not in the log: %s", want, f.log.String())
		}
	}
}
