package approval_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

var opened = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const ms = time.Millisecond

// ask is a question about deleting pod web-0; change may alter what it is made of.
func ask(change ...func(*approval.Ask)) access.Approval {
	in := approval.Ask{
		ID: "abcdefghijklmnopqrstuvwxyz", Digest: "d1", Session: "s", Request: "r0", Cluster: "dev", Reason: "it hangs",
		Principal: access.Principal{Issuer: "https://ci.example.com", Subject: "repo:acme/app", Agent: "deploy-bot", Run: map[string]string{"run_id": "1"}, Owner: "olga"},
		Action:    access.Action{Verb: "delete", Version: "v1", Resource: "pods", Namespace: "dev", Name: "web-0", Path: "/api/v1/namespaces/dev/pods/web-0"},
		Decision: access.Decision{Effect: access.Ask, Rule: "deletes", Tier: "operate", Policy: "p1", Obligations: access.Obligations{
			Reviewers: []string{"sre"}, Quorum: 1, Expires: 15 * time.Minute, Links: "login",
			Grant:    access.Grant{Scope: access.ScopeNamespace, Length: time.Hour},
			Escalate: access.Escalate{After: 5 * time.Minute, Reviewers: []string{"sre", "leads"}},
		}},
		Kubectl: "kubectl delete pod web-0 -n dev", Sentence: "delete Pod web-0 in dev",
		Target: access.Target{UID: "u1", Generation: 3}, Now: opened,
	}
	for _, c := range change {
		c(&in)
	}
	return approval.New(in)
}

var roster = approval.Roster{
	{Name: "sre", People: []string{"ana@example.com", "Ben@Example.com", "chi@example.com"}},
	{Name: "leads", People: []string{"lea@example.com"}},
}

func yes(email string, g ...access.Grant) access.Vote {
	v := access.Vote{By: access.Reviewer{Email: email, Channel: "page"}, Yes: true}
	if len(g) > 0 {
		v.Grant = g[0]
	}
	return v
}

func no(email, why string) access.Vote {
	return access.Vote{By: access.Reviewer{Email: email, Channel: "page"}, Reason: why}
}

var (
	once = access.Grant{Scope: access.ScopeRequest}
	hour = access.Grant{Scope: access.ScopeNamespace, Length: time.Hour}
)

func object(d time.Duration) access.Grant {
	return access.Grant{Scope: access.ScopeObject, Length: d}
}

func namespace(d time.Duration) access.Grant {
	return access.Grant{Scope: access.ScopeNamespace, Length: d}
}

// approved is ask with a yes of ana's, a minute after it was opened.
func approved(t *testing.T, g access.Grant) access.Approval {
	t.Helper()
	a := ask()
	if err := approval.Vote(&a, roster, yes("ana@example.com", g), opened.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return a
}

// redemption is what a's own request comes with.
func redemption(a access.Approval) approval.Redemption {
	return approval.Redemption{Digest: a.Digest, Principal: a.Principal, Cluster: a.Cluster, Action: a.Action, Decision: a.Decision, Target: a.Target, Use: access.Use{Request: "r1", At: opened, Code: 200}}
}

func spent(t *testing.T, at time.Time) access.Approval {
	t.Helper()
	a := approved(t, once)
	if err := approval.Redeem(&a, redemption(a), at); err != nil {
		t.Fatal(err)
	}
	return a
}

func state(t *testing.T, a access.Approval, now time.Time, want access.ApprovalState, says ...string) {
	t.Helper()
	got, why := approval.Status(a, now)
	if got != want {
		t.Errorf("at %v it is %s (%s), want %s", now.Sub(opened), got, why, want)
	}
	for _, s := range says {
		if !strings.Contains(why, s) {
			t.Errorf("%q does not say %q", why, s)
		}
	}
}

func kind(t *testing.T, err error, want access.Kind, says ...string) {
	t.Helper()
	if access.KindOf(err) != want {
		t.Errorf("got %v (%s), want %s", err, access.KindOf(err), want)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%q does not say %q", err, s)
		}
	}
}

func last(a access.Approval) access.History { return a.History[len(a.History)-1] }

func TestNew(t *testing.T) {
	a := ask()
	if a.State != access.StatePending || !a.Opened.Equal(opened) || !a.Expires.Equal(opened.Add(15*time.Minute)) || last(a).What != "opened" {
		t.Errorf("got %+v", a)
	}
	if d := cmp.Diff([]string{"sre"}, a.Reviewers); d != "" {
		t.Error(d)
	}
	for name, test := range map[string]struct {
		change func(*approval.Ask)
		want   access.Grant
	}{
		"as it is":                        {func(*approval.Ask) {}, hour},
		"no namespace":                    {func(in *approval.Ask) { in.Action.Namespace = "" }, object(time.Hour)},
		"no name":                         {func(in *approval.Ask) { in.Action.Name = "" }, hour},
		"no name and no namespace":        {func(in *approval.Ask) { in.Action.Name, in.Action.Namespace = "", "" }, once},
		"an object's scope without one":   {func(in *approval.Ask) { in.Action.Name, in.Decision.Obligations.Grant = "", object(time.Hour) }, once},
		"no resource":                     {func(in *approval.Ask) { in.Action = access.Action{Verb: "get", Path: "/x", Resourceless: true} }, once},
		"no length":                       {func(in *approval.Ask) { in.Decision.Obligations.Grant.Length = 0 }, once},
		"a scope that there is not":       {func(in *approval.Ask) { in.Decision.Obligations.Grant.Scope = "cluster" }, once},
		"a rule that says nothing of one": {func(in *approval.Ask) { in.Decision.Obligations.Grant = access.Grant{} }, once},
	} {
		if got := ask(test.change).Decision.Obligations.Grant; got != test.want {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// A question, a yes to one request and a grant each end on the millisecond, whether or not anybody stored that.
func TestExpiry(t *testing.T) {
	end := opened.Add(15 * time.Minute)
	pending := ask()
	state(t, pending, end.Add(-ms), access.StatePending, "sre", pending.ID, "12:15:00 UTC")
	state(t, pending, end, access.StateExpired, "nobody of sre answered by 12:15:00 UTC", "again")
	kind(t, approval.Vote(&pending, roster, yes("ana@example.com"), end), access.Conflict, "expired")
	if pending.State != access.StatePending || len(pending.Votes) != 0 {
		t.Error("a late vote counts")
	}
	if approval.Expire(&pending, end.Add(-ms)) {
		t.Error("expired a millisecond early")
	}
	if !approval.Expire(&pending, end.Add(time.Hour)) || pending.State != access.StateExpired || !pending.Ended.Equal(end) || last(pending).What != "expired" {
		t.Errorf("not expired: %+v", pending)
	}
	if approval.Expire(&pending, end.Add(time.Hour)) {
		t.Error("expired twice")
	}
	state(t, pending, end.Add(time.Hour), access.StateExpired, "nobody of sre answered")

	a := approved(t, once)
	state(t, a, end.Add(-ms), access.StateApproved, "ana@example.com said yes", "once")
	state(t, a, end, access.StateExpired, "was not sent by 12:15:00 UTC")
	late := a
	kind(t, approval.Redeem(&late, redemption(a), end), access.Denied, "was not sent")
	if late.State != access.StateExpired || len(late.Uses) != 0 {
		t.Error("a late redemption passes")
	}
	if err := approval.Redeem(&a, redemption(a), end.Add(-ms)); err != nil {
		t.Error(err)
	}

	// A grant outlives the question.
	g := approved(t, hour)
	until := opened.Add(time.Minute + time.Hour)
	if !g.Until.Equal(until) {
		t.Errorf("until %v", g.Until)
	}
	state(t, g, until.Add(-ms), access.StateGranted, "delete on all pods in dev for 1h")
	state(t, g, until, access.StateExpired, "ended at 13:01:00 UTC")
	covers := func(now time.Time) bool {
		return approval.Covers(g, g.Principal, g.Cluster, g.Action, g.Decision.Rule, now)
	}
	if !covers(until.Add(-ms)) || covers(until) {
		t.Error("a grant does not end on the millisecond")
	}
	if err := approval.Redeem(&g, redemption(g), until.Add(-ms)); err != nil {
		t.Error(err)
	}
	kind(t, approval.Redeem(&g, redemption(g), until), access.Denied, "ended")
	if g.State != access.StateExpired || !g.Ended.Equal(until) || len(g.Uses) != 1 {
		t.Errorf("got %s with %d uses", g.State, len(g.Uses))
	}
	// What is over for another reason does not expire.
	s := spent(t, opened.Add(2*time.Minute))
	if approval.Expire(&s, end.Add(time.Hour)) {
		t.Error("spent is expired")
	}
}

func TestJoins(t *testing.T) {
	end := opened.Add(15 * time.Minute)
	denied := ask()
	if err := approval.Vote(&denied, roster, no("ana@example.com", "not today"), opened.Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	unasked := ask()
	approval.Deny(&unasked, "set SALLYPORT_MAIL_FROM", opened)
	withdrawn := ask()
	approval.Withdraw(&withdrawn, "x", opened)
	revoked := approved(t, hour)
	if err := approval.Revoke(&revoked, roster, yes("ana@example.com").By, "", opened.Add(2*time.Minute)); err != nil {
		t.Fatal(err)
	}
	used := opened.Add(2 * time.Minute)
	running := spent(t, used)
	ended := spent(t, used)
	approval.Outcome(&ended, "r1", 200, used)
	told := spent(t, used)
	approval.Tell(&told, used.Add(2*time.Minute))
	for name, test := range map[string]struct {
		a    access.Approval
		now  time.Time
		want bool
	}{
		"pending":                           {ask(), end.Add(-ms), true},
		"pending, late":                     {ask(), end, false},
		"approved":                          {approved(t, once), end.Add(-ms), true},
		"approved, late":                    {approved(t, once), end, false},
		"granted":                           {approved(t, hour), opened.Add(61*time.Minute - ms), true},
		"granted, over":                     {approved(t, hour), opened.Add(61 * time.Minute), false},
		"denied":                            {denied, end.Add(-ms), true},
		"denied, later than it would stand": {denied, end, false},
		"nobody asked":                      {unasked, opened.Add(time.Minute - ms), true},
		"nobody asked, a minute ago":        {unasked, opened.Add(time.Minute), false},
		"withdrawn":                         {withdrawn, opened, false},
		"revoked":                           {revoked, opened.Add(3 * time.Minute), false},
		"in use":                            {running, used.Add(2*time.Minute - ms), true},
		"unknown, not told":                 {running, used.Add(2 * time.Minute), true},
		"unknown, not told for a day":       {running, used.Add(24 * time.Hour), true},
		"unknown, told":                     {told, used.Add(2 * time.Minute), false},
		"spent":                             {ended, used, false},
	} {
		if got := approval.Joins(test.a, test.now); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestTell(t *testing.T) {
	used := opened.Add(2 * time.Minute)
	a := spent(t, used)
	state(t, a, used.Add(2*time.Minute-ms), access.StateSpent, "is being used by request r1")
	if approval.Tell(&a, used.Add(2*time.Minute-ms)) {
		t.Error("told while it may still be answered")
	}
	state(t, a, used.Add(2*time.Minute), access.StateSpent, "outcome unknown", "request r1", "look at the cluster before you ask again")
	if !approval.Tell(&a, used.Add(2*time.Minute)) || last(a).What != "told" {
		t.Error("not told")
	}
	if approval.Tell(&a, used.Add(time.Hour)) {
		t.Error("told twice")
	}
	// It became known after all.
	if !approval.Outcome(&a, "r1", 201, used.Add(time.Hour)) || a.Uses[0].Code != 201 || last(a).What != "outcome" {
		t.Errorf("got %+v", a.Uses)
	}
	state(t, a, used.Add(time.Hour), access.StateSpent, "r1", "answered 201")
	for _, a := range []access.Approval{ask(), approved(t, once), approved(t, hour)} {
		if approval.Tell(&a, used.Add(time.Hour)) {
			t.Errorf("told of one that is %s", a.State)
		}
	}
	b := spent(t, used)
	approval.Outcome(&b, "r1", 200, used)
	if approval.Tell(&b, used.Add(time.Hour)) {
		t.Error("told that a known outcome is unknown")
	}
}

func TestOutcome(t *testing.T) {
	used := opened.Add(2 * time.Minute)
	a := spent(t, used)
	for _, test := range []struct {
		request string
		code    int
		want    bool
	}{{"r2", 200, false}, {"r1", 0, false}, {"r1", -1, false}, {"r1", 409, true}, {"r1", 409, false}, {"r1", 200, false}} {
		if got := approval.Outcome(&a, test.request, test.code, used); got != test.want {
			t.Errorf("%v: %v", test, got)
		}
	}
	if a.Uses[0].Code != 409 {
		t.Errorf("got %d", a.Uses[0].Code)
	}
	// A grant keeps the last of its uses, and their outcomes.
	g := approved(t, hour)
	for i := range 30 {
		r := redemption(g)
		r.Use.Request = string(rune('A' + i))
		if err := approval.Redeem(&g, r, used); err != nil {
			t.Fatal(err)
		}
	}
	if len(g.Uses) != 20 || g.Uses[0].Request != "K" || g.State != access.StateGranted {
		t.Errorf("%d uses from %q", len(g.Uses), g.Uses[0].Request)
	}
	if !approval.Outcome(&g, "L", 200, used) || g.Uses[1].Code != 200 {
		t.Error("a grant's outcome is not kept")
	}
}

// What is over stays as it is, whatever comes.
func TestFinal(t *testing.T) {
	later := opened.Add(3 * time.Minute)
	final := map[access.ApprovalState]access.Approval{access.StateSpent: spent(t, opened.Add(2*time.Minute))}
	a := ask()
	approval.Deny(&a, "nobody could be reached: SALLYPORT_MAIL_FROM is not set", opened)
	final[access.StateDenied] = a
	state(t, a, later, access.StateDenied, "SALLYPORT_MAIL_FROM")
	a = ask()
	approval.Withdraw(&a, "the policy changed", opened)
	final[access.StateWithdrawn] = a
	state(t, a, later, access.StateWithdrawn, "the policy changed")
	a = ask()
	approval.Expire(&a, opened.Add(15*time.Minute))
	final[access.StateExpired] = a
	a = approved(t, hour)
	if err := approval.Revoke(&a, roster, yes("ben@example.com").By, "too wide", later); err != nil {
		t.Fatal(err)
	}
	final[access.StateRevoked] = a
	state(t, a, later, access.StateRevoked, "ben@example.com took it back: too wide")
	for want, a := range final {
		kind(t, approval.Vote(&a, roster, yes("chi@example.com"), later), access.Conflict)
		kind(t, approval.Vote(&a, roster, no("chi@example.com", ""), later), access.Conflict)
		kind(t, approval.Revoke(&a, roster, yes("chi@example.com").By, "", later), access.Conflict)
		if err := approval.Redeem(&a, redemption(a), later); err == nil {
			t.Errorf("%s passes", want)
		}
		if approval.Withdraw(&a, "x", later) || approval.Deny(&a, "x", later) || approval.Escalate(&a, later) {
			t.Errorf("%s changed", want)
		}
		if a.State != want {
			t.Errorf("%s became %s", want, a.State)
		}
	}
	for _, a := range []access.Approval{approved(t, once), approved(t, hour)} {
		was := a.State
		if approval.Deny(&a, "x", later) || approval.Escalate(&a, later) || a.State != was {
			t.Errorf("%s was denied or escalated", was)
		}
		if !approval.Withdraw(&a, "x", later) || a.State != access.StateWithdrawn || !a.Ended.Equal(later) {
			t.Errorf("%s was not withdrawn", was)
		}
	}
	// Late is over, though nobody stored it.
	a = ask()
	if end := a.Expires; approval.Withdraw(&a, "x", end) || approval.Deny(&a, "x", end) || approval.Escalate(&a, end) {
		t.Error("a late question changed")
	}
}

func TestEscalate(t *testing.T) {
	a := ask()
	kind(t, approval.Vote(&a, roster, yes("lea@example.com"), opened), access.Denied, "not a reviewer of sre")
	if !approval.Escalate(&a, opened.Add(5*time.Minute)) || last(a).What != "escalated" {
		t.Error("not escalated")
	}
	if d := cmp.Diff([]string{"sre", "leads"}, a.Reviewers); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]string{"sre"}, a.Decision.Obligations.Reviewers); d != "" {
		t.Error("the decision changed:", d)
	}
	if approval.Escalate(&a, opened.Add(6*time.Minute)) {
		t.Error("escalated twice")
	}
	if d := cmp.Diff([]string{"ana@example.com", "ben@example.com", "chi@example.com", "lea@example.com"}, roster.Eligible(a)); d != "" {
		t.Error(d)
	}
	if err := approval.Vote(&a, roster, yes("lea@example.com"), opened.Add(6*time.Minute)); err != nil || a.State != access.StateApproved {
		t.Error(a.State, err)
	}
	never := ask(func(in *approval.Ask) { in.Decision.Obligations.Escalate = access.Escalate{} })
	if approval.Escalate(&never, opened.Add(5*time.Minute)) {
		t.Error("escalated to nobody")
	}
}

// Nobody can push what was decided out of the history, or make it long, by being refused.
func TestHistory(t *testing.T) {
	a := ask()
	for range 300 {
		approval.Refused(&a, "eve@example.com", "is not a reviewer", opened)
		approval.Note(&a, "joined", "deploy-bot", "", opened)
	}
	if len(a.History) != 100 || a.History[0].What != "opened" {
		t.Errorf("%d entries, the first %q", len(a.History), a.History[0].What)
	}
	if err := approval.Vote(&a, roster, yes("ana@example.com"), opened); err != nil {
		t.Fatal(err)
	}
	if n := len(a.History); n != 100 || a.History[n-2].What != "vote" || a.History[n-1].What != "approved" {
		t.Errorf("%d entries, the last %q", n, a.History[n-1].What)
	}
}

func TestLink(t *testing.T) {
	token, hash := approval.NewLink()
	other, _ := approval.NewLink()
	if token == other || len(token) != 43 || strings.ContainsAny(token, "+/=") {
		t.Errorf("got %q and %q", token, other)
	}
	if approval.LinkHash(token) != hash || approval.LinkHash(other) == hash || strings.Contains(hash, token) || len(hash) != 64 {
		t.Errorf("hash %q", hash)
	}
}
