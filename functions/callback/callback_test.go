package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"golang.org/x/net/html"

	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/slack"
)

// The whole way: not logged in, the login, the list, the page, a yes, and what a second press says.
func TestApprove(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	b := f.browser()
	if r := b.loginAt("/approvals/"+a.ID, "ana@example.com"); r.code != 200 || r.url.Path != "/approvals/"+a.ID {
		t.Fatalf("the login led to %v", r)
	}
	if r := b.get("/"); r.url.Path != "/approvals" || !strings.Contains(r.body, a.Sentence) || r.h1() != "Waiting for an answer" {
		t.Errorf("the list: %v", r)
	}
	if got := f.get(a.ID); got.State != access.StatePending {
		t.Fatalf("looking made it %s", got.State)
	}
	r := b.press("/approvals/"+a.ID, "approve")
	if r.code != 200 || r.h1() != "Your answer was taken" || !strings.Contains(r.body, "You approved it: exactly this request may pass, once") {
		t.Errorf("the answer: %v", r)
	}
	got := f.get(a.ID)
	if got.State != access.StateApproved || len(got.Votes) != 1 {
		t.Fatalf("it is %s with %+v", got.State, got.Votes)
	}
	want := access.Reviewer{Email: "ana@example.com", Issuer: f.idpURL, Audience: audience, Subject: "ana@example.com", Channel: "page"}
	if got.Votes[0].By != want || got.Grant != (access.Grant{Scope: access.ScopeRequest}) {
		t.Errorf("vote %+v, grant %+v", got.Votes[0], got.Grant)
	}
	if want := fmt.Sprintf(`task-token-%s {"approval":"%s","state":"approved"}`, a.ID, a.ID); len(f.flow.ended) != 1 || f.flow.ended[0] != want {
		t.Errorf("the workflow was told %q", f.flow.ended)
	}
	// The page says so to whoever opens it now, and has nothing left to press.
	for _, who := range []*browser{b, f.as("ben@example.com")} {
		r = who.get("/approvals/" + a.ID)
		if !strings.Contains(r.body, "ana@example.com said yes to this request, once") || strings.Contains(r.body, `value="approve"`) {
			t.Errorf("the page afterwards: %v", r)
		}
	}
	if strings.Contains(f.log.String(), "task-token") {
		t.Error("the log holds the task's token")
	}
}

// A double submit, and a second reviewer who was slower, decide nothing and are told who decided.
func TestDecidedAlready(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	ana, ben := f.as("ana@example.com"), f.as("ben@example.com")
	action, values := ana.get("/approvals/"+a.ID).form(t, "approve")
	benAction, benValues := ben.get("/approvals/"+a.ID).form(t, "deny")
	benValues.Set("reason", "not now")
	if r := ana.post(action, values); r.code != 200 {
		t.Fatal(r)
	}
	for name, r := range map[string]reply{"the same again": ana.post(action, values), "ben": ben.post(benAction, benValues)} {
		if r.code != http.StatusConflict || r.h1() != "Already decided by ana@example.com" || !strings.Contains(r.body, "Your answer decided nothing") {
			t.Errorf("%s: %v", name, r)
		}
	}
	if got := f.get(a.ID); got.State != access.StateApproved || len(got.Votes) != 1 || happened(got, "refused") != 2 {
		t.Errorf("it is %s with %+v, history %+v", got.State, got.Votes, got.History)
	}
}

func TestDenyAndGrant(t *testing.T) {
	f := newFixture(t)
	ana := f.as("ana@example.com")

	a := f.ask(0, nil)
	for _, reason := range []string{"", "  \n ", strings.Repeat("é", approval.MaxReason+1)} {
		if r := ana.press("/approvals/"+a.ID, "deny", "reason", reason); r.code != http.StatusBadRequest || !strings.Contains(r.body, "Nothing was decided") {
			t.Errorf("a reason of %d bytes: %v", len(reason), r)
		}
	}
	if r := ana.press("/approvals/"+a.ID, "deny", "reason", "not \u202enow\r\nask ben"); r.code != 200 || !strings.Contains(r.body, "You denied it") {
		t.Error(r)
	}
	got := f.get(a.ID)
	if got.State != access.StateDenied || got.Votes[0].Reason != "not \\u{202e}now\nask ben" || !strings.Contains(got.Message, "ask ben") {
		t.Errorf("%s %+v %q", got.State, got.Votes, got.Message)
	}

	a = f.ask(1, nil)
	page := ana.get("/approvals/" + a.ID)
	var options []string
	each(page.doc, func(n *html.Node) {
		if n.Data == "option" {
			options = append(options, attr(n, "value"))
		}
	})
	if len(options) < 3 || options[0] != "" || options[1] != "object:15m0s" || options[len(options)-1] != "namespace:1h0m0s" {
		t.Errorf("the choices are %q", options)
	}
	for _, bad := range []string{"", "request:", "request:0s", "namespace:2h", "cluster:15m", "object:", "object:-5m", "object:1", "object"} {
		if r := ana.press("/approvals/"+a.ID, "approve-for", "grant", bad); r.code != http.StatusBadRequest {
			t.Errorf("%q: %v", bad, r)
		}
	}
	if r := ana.press("/approvals/"+a.ID, "approve", "verdict", "maybe"); r.code != http.StatusBadRequest {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 {
		t.Fatalf("it is %s", got.State)
	}
	if r := ana.press("/approvals/"+a.ID, "approve-for", "grant", "object:30m0s"); r.code != 200 || !strings.Contains(r.body, "delete pods web-0 in dev, any number of times, for 30 minutes") {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StateGranted || got.Grant != (access.Grant{Scope: access.ScopeObject, Length: 30 * time.Minute}) {
		t.Errorf("%s %+v", got.State, got.Grant)
	}

	// It is listed, and can be taken back, by anybody of the group, with a reason.
	ben := f.as("ben@example.com")
	grants := ben.get("/grants")
	if !strings.Contains(grants.body, "for 30 minutes") || !strings.Contains(grants.body, "by ana@example.com") {
		t.Errorf("the grants: %v", grants)
	}
	if r := ben.press("/approvals/"+a.ID, "revoke", "reason", ""); r.code != http.StatusBadRequest {
		t.Error(r)
	}
	if r := ben.press("/approvals/"+a.ID, "revoke", "reason", "enough"); r.code != 200 || r.h1() != "Taken back" {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StateRevoked || !strings.Contains(got.Message, "enough") {
		t.Errorf("%s %q", got.State, got.Message)
	}
	if r := ben.get("/grants"); strings.Contains(r.body, a.ID) {
		t.Errorf("still listed: %v", r)
	}
	_, values := ben.get("/grants").form(t, "logout")
	values.Set("reason", "again")
	if r := ben.post("/approvals/"+a.ID+"/revoke", values); r.code != http.StatusConflict || r.h1() != "Nothing to take back" {
		t.Error(r)
	}
	if r := ben.get("/history"); !strings.Contains(r.body, "Taken back") || !strings.Contains(r.body, "Denied") {
		t.Errorf("the history: %v", r)
	}
}

// Threat A6: one person is one person, whichever way they come.
func TestQuorum(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Quorum = 2 })
	ana := f.as("ana@example.com")
	if r := ana.press("/approvals/"+a.ID, "approve"); r.code != 200 || !strings.Contains(r.body, "Your yes counts: 1 of 2") {
		t.Fatal(r)
	}
	if len(f.flow.ended) != 0 {
		t.Errorf("the workflow was ended by one of two: %q", f.flow.ended)
	}
	_, values := ana.get("/approvals").form(t, "logout")
	values.Set("verdict", "approve")
	if r := ana.post("/approvals/"+a.ID+"/decision", values); r.code != http.StatusConflict || r.h1() != "You answered already" {
		t.Errorf("twice on the page: %v", r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", f.reviewer("ana@example.com"), `{}`); r.code != http.StatusConflict {
		t.Errorf("again by the API: %v", r)
	}
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)); r.code != 200 || len(f.chat.told) != 1 || !strings.Contains(f.chat.told[0], "answered already") {
		t.Errorf("again in Slack: %v, told %q", r, f.chat.told)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 1 {
		t.Fatalf("one person made it %s", got.State)
	}
	if r := f.slack(f.pressed("U00000BEN", "T00000001", slack.Approve, a.ID)); r.code != 200 {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StateApproved || len(got.Votes) != 2 {
		t.Errorf("two people made it %s", got.State)
	}
}

// Threat A5: nobody answers their own question, nor their own agent's, whichever way they come.
func TestRequesterAndOwner(t *testing.T) {
	everyWay := func(f *fixture, a access.Approval, email, slackUser string) {
		f.t.Helper()
		b := f.as(email)
		page := b.get("/approvals/" + a.ID)
		if page.code == 200 && strings.Contains(page.body, `value="approve"`) {
			f.t.Errorf("%s is offered an answer", email)
		}
		_, values := b.get("/approvals").form(f.t, "logout")
		values.Set("verdict", "approve")
		if r := b.post("/approvals/"+a.ID+"/decision", values); r.code != http.StatusForbidden {
			f.t.Errorf("%s on the page: %v", email, r)
		}
		values.Set("verdict", "deny")
		values.Set("reason", "no")
		if r := b.post("/approvals/"+a.ID+"/decision", values); r.code != http.StatusForbidden {
			f.t.Errorf("%s on the page: %v", email, r)
		}
		if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", f.reviewer(email), `{}`); r.code != http.StatusForbidden {
			f.t.Errorf("%s by the API: %v", email, r)
		}
		f.slack(f.pressed(slackUser, "T00000001", slack.Approve, a.ID))
		f.slack(f.pressed(slackUser, "T00000001", slack.Deny, a.ID))
		f.slack(f.dialog(slackUser, "T00000001", a.ID, "no"))
		if len(f.chat.views) != 0 || len(f.chat.told) != 3 {
			f.t.Errorf("%s in Slack: told %q, %d dialogs", email, f.chat.told, len(f.chat.views))
		}
		if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 || happened(got, "refused") < 6 {
			f.t.Errorf("%s made it %s with votes %+v; history %+v", email, got.State, got.Votes, got.History)
		}
	}
	t.Run("the owner, by address", func(t *testing.T) {
		f := newFixture(t)
		everyWay(f, f.ask(0, func(a *access.Approval, _ *access.View) { a.Principal.Owner = "Ana@Example.com" }), "ana@example.com", "U00000ANA")
	})
	t.Run("the owner, by name", func(t *testing.T) {
		f := newFixture(t)
		everyWay(f, f.ask(0, func(a *access.Approval, _ *access.View) { a.Principal.Owner = "ANA" }), "ana@example.com", "U00000ANA")
	})
	t.Run("the requester, by subject", func(t *testing.T) {
		f := newFixture(t)
		everyWay(f, f.ask(0, func(a *access.Approval, _ *access.View) {
			a.Principal.Issuer, a.Principal.Subject = f.idpURL, "requester@example.com"
		}), "requester@example.com", "U00000REQ")
	})
	t.Run("the requester, whose address is known from a login", func(t *testing.T) {
		f := newFixture(t)
		f.mint = func(claims map[string]any) { claims["sub"] = "12345" }
		a := f.ask(0, func(a *access.Approval, _ *access.View) { a.Principal.Issuer, a.Principal.Subject = f.idpURL, "12345" })
		everyWay(f, a, "ana@example.com", "U00000ANA")
	})
	t.Run("an alias of the requester's mailbox", func(t *testing.T) {
		f := newFixture(t)
		everyWay(f, f.ask(0, func(a *access.Approval, _ *access.View) { a.Principal.Subject = "ana+bot@example.com" }), "ana@example.com", "U00000ANA")
	})
	t.Run("the owner's link", func(t *testing.T) { // A14 too
		f := newFixture(t)
		f.policy("alone", "")
		a := f.ask(0, func(a *access.Approval, _ *access.View) {
			a.Principal.Owner, a.Decision.Obligations.Links = "ana@example.com", "alone"
		})
		link := f.link(a, "ana@example.com")
		if r := f.browser().post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusForbidden {
			t.Error(r)
		}
		if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 || happened(got, "refused") != 1 {
			t.Errorf("%s %+v", got.State, got.History)
		}
	})
}

// Threats A7: whatever is fetched, by whomever, nothing is written about any approval.
func TestLookingChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.policy("alone", "")
	a := f.ask(0, nil)
	alone := f.ask(1, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Links = "alone" })
	granted := f.ask(2, nil)
	ana := f.as("ana@example.com")
	ana.press("/approvals/"+granted.ID, "approve-for", "grant", "object:30m0s")
	links := []string{f.link(a, "ana@example.com"), f.link(alone, "ana@example.com"), f.link(alone, "ben@example.com")}
	paths := append([]string{"/", "/approvals", "/history", "/grants", "/login", "/login?next=/history", "/login/callback", "/login/callback?code=a&state=b", "/logout", "/slack/interactions",
		"/favicon.ico", "/nothing", "/link/", "/link/xyz", "/approvals/xyz", "/approvals/" + idN(19), "/api/approvals", "/api/approvals?state=ended"}, links...)
	for _, one := range []access.Approval{a, alone, granted} {
		for _, base := range []string{"/approvals/", "/api/approvals/"} {
			for _, end := range []string{"", "/decision", "/decision?verdict=approve", "/revoke", "/approve", "/deny?reason=x", "/approve?scope=request"} {
				paths = append(paths, base+one.ID+end)
			}
		}
	}
	for _, l := range links {
		paths = append(paths, l+"?verdict=approve")
	}
	before := []access.Approval{f.get(a.ID), f.get(alone.ID), f.get(granted.ID)}
	f.store.writes = nil
	token := f.reviewer("ana@example.com")
	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "OPTIONS", "TRACE", "PROPFIND"} {
			for _, b := range []*browser{ana, f.browser()} {
				b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
				for _, bearer := range []string{"", token} {
					req, err := http.NewRequestWithContext(t.Context(), method, b.at(path), nil)
					if err != nil {
						t.Fatal(err)
					}
					if bearer != "" {
						req.Header.Set("Authorization", "Bearer "+bearer)
					}
					if r := b.do(req); r.code >= 500 || method == "HEAD" && r.body != "" || method != "GET" && method != "HEAD" && r.code < 400 {
						t.Errorf("%s %s: %v", method, path, r)
					}
				}
			}
		}
	}
	if len(f.store.writes) != 0 {
		t.Errorf("looking wrote %q", f.store.writes)
	}
	for i, one := range []access.Approval{a, alone, granted} {
		if got := f.get(one.ID); fmt.Sprint(got) != fmt.Sprint(before[i]) {
			t.Errorf("%+v became %+v", before[i], got)
		}
	}
	if len(f.flow.ended) != 1 {
		t.Errorf("the workflow was told %q", f.flow.ended)
	}
}

// Another site's forms, and forms of another login, decide nothing.
func TestCrossSite(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	ana, ben := f.as("ana@example.com"), f.as("ben@example.com")
	action, good := ana.get("/approvals/"+a.ID).form(t, "approve")
	_, bens := ben.get("/approvals/"+a.ID).form(t, "approve")
	without := url.Values{"verdict": {"approve"}}
	for name, r := range map[string]reply{
		"cross-site":               ana.post(action, good, "Sec-Fetch-Site", "cross-site"),
		"same-site":                ana.post(action, good, "Sec-Fetch-Site", "same-site"),
		"another origin":           ana.post(action, good, "Sec-Fetch-Site", "", "Origin", "https://evil.example"),
		"no origin to speak of":    ana.post(action, good, "Sec-Fetch-Site", "", "Origin", "null"),
		"no token":                 ana.post(action, without),
		"no token, no metadata":    ana.post(action, without, "Sec-Fetch-Site", ""),
		"the token of another":     ana.post(action, bens),
		"a token that is a guess":  ana.post(action, url.Values{"verdict": {"approve"}, "form": {good.Get("form") + "x"}}),
		"two tokens":               ana.post(action, url.Values{"verdict": {"approve"}, "form": {good.Get("form"), good.Get("form")}}),
		"JSON":                     ana.post(action, good, "Content-Type", "application/json"),
		"text, as a form can send": ana.post(action, good, "Content-Type", "text/plain"),
		"in the query":             ana.post(action+"?"+good.Encode(), url.Values{}),
		"not logged in":            f.browser().post(action, good),
		"too long":                 ana.post(action, url.Values{"verdict": {"approve"}, "form": {good.Get("form")}, "x": {strings.Repeat("x", maxForm)}}),
	} {
		if r.code < 400 || r.code >= 500 {
			t.Errorf("%s: %v", name, r)
		}
	}
	if r := f.browser().post(action, good); r.code != http.StatusUnauthorized || r.h1() != "Log in first" {
		t.Errorf("not logged in: %v", r)
	}
	// Logged out and in again, the old form is another login's.
	if r := ana.press("/approvals", "logout"); r.h1() != "Logged out" {
		t.Error(r)
	}
	if r := ana.get("/approvals"); !strings.Contains(r.url.Path, "authorize") {
		t.Errorf("still logged in: %v", r)
	}
	ana.login("ana@example.com")
	if r := ana.post(action, good); r.code != http.StatusForbidden {
		t.Errorf("an old form: %v", r)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 {
		t.Fatalf("it is %s", got.State)
	}
	// The page's own address is good without Fetch metadata.
	action, good = ana.get("/approvals/"+a.ID).form(t, "approve")
	if r := ana.post(action, good, "Sec-Fetch-Site", "", "Origin", f.url); r.code != 200 {
		t.Error(r)
	}
}

// Who is no reviewer today, of this approval, in the way the group wants, decides nothing and sees nothing.
func TestWrongPeople(t *testing.T) {
	f := newFixture(t)
	f.policy("login", dba)
	a := f.ask(0, nil)
	eve := f.browser()
	if r := eve.login("eve@example.com"); r.code != http.StatusForbidden || r.h1() != "You may not do that" {
		t.Errorf("a stranger logs in: %v", r)
	}
	if r := eve.get("/approvals"); r.url.Path == "/approvals" {
		t.Errorf("a stranger is in: %v", r)
	}
	// A reviewer of another group is told whose it is; the attempt to answer is written down.
	dan := f.as("dan@example.com")
	if r := dan.get("/approvals"); strings.Contains(r.body, a.Sentence) {
		t.Errorf("another group's list: %v", r)
	}
	if r := dan.get("/approvals/" + a.ID); r.code != http.StatusForbidden || strings.Contains(r.body, a.Kubectl) || !strings.Contains(r.body, "for sre to answer") {
		t.Errorf("another group's page: %v", r)
	}
	_, values := dan.get("/approvals").form(t, "logout")
	values.Set("verdict", "approve")
	if r := dan.post("/approvals/"+a.ID+"/decision", values); r.code != http.StatusForbidden {
		t.Error(r)
	}
	if r := f.api("GET", "/api/approvals/"+a.ID, f.reviewer("dan@example.com"), ""); r.code != http.StatusForbidden {
		t.Error(r)
	}
	if got := f.get(a.ID); happened(got, "refused") != 1 || got.State != access.StatePending {
		t.Errorf("%s %+v", got.State, got.History)
	}
	// Whoever leaves the policy is nobody at once, logged in or not.
	ana := f.as("ana@example.com")
	action, form := ana.get("/approvals/"+a.ID).form(t, "approve")
	f.version++
	f.bucket.Put(fmt.Sprint(f.version), strings.Replace(strings.Replace(fmt.Sprintf(policyText, f.idpURL, f.ciURL, "login", ""), "people: [ana@example.com, ", "people: [", 1), "U00000ANA: ana@example.com, ", "", 1))
	f.wait(time.Minute)
	if r := ana.get("/approvals"); r.code != http.StatusForbidden || !strings.Contains(r.body, "no group of reviewers by today") {
		t.Error(r)
	}
	if r := ana.post(action, form); r.code != http.StatusForbidden {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", f.reviewer("ana@example.com"), `{}`); r.code != http.StatusForbidden {
		t.Error(r)
	}
	f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID))
	if got := f.get(a.ID); got.State != access.StatePending {
		t.Errorf("it is %s", got.State)
	}
}

// Threat A4: after its time an approval is over, whether or not anybody wrote that down.
func TestLate(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	ana := f.as("ana@example.com")
	action, form := ana.get("/approvals/"+a.ID).form(t, "approve")
	f.wait(15*time.Minute + time.Second)
	if r := ana.post(action, form); r.code != http.StatusConflict || r.h1() != "Too late" {
		t.Error(r)
	}
	page := ana.get("/approvals/" + a.ID)
	if !strings.Contains(page.body, "Nobody answered in time") || strings.Contains(page.body, `value="approve"`) {
		t.Error(page)
	}
	if r := ana.get("/approvals"); !strings.Contains(r.body, "Nothing waits for your answer") || !strings.Contains(r.body, "Expired") {
		t.Error(r)
	}
	if got := f.get(a.ID); len(got.Votes) != 0 || happened(got, "refused") != 1 {
		t.Errorf("%+v", got)
	}
}

// The decision stands whatever becomes of the workflow, and the caller is not bothered.
func TestWorkflow(t *testing.T) {
	for name, err := range map[string]error{"late": errLate, "away": errors.New("no route to host")} {
		f := newFixture(t)
		f.flow.err = err
		a := f.ask(0, nil)
		if r := f.as("ana@example.com").press("/approvals/"+a.ID, "approve"); r.code != 200 {
			t.Errorf("%s: %v", name, r)
		}
		if got := f.get(a.ID); got.State != access.StateApproved || len(f.flow.ended) != 1 {
			t.Errorf("%s: %s, %q", name, got.State, f.flow.ended)
		}
		if !strings.Contains(f.log.String(), "workflow") {
			t.Errorf("%s: the log says nothing of it", name)
		}
		// Whoever comes too late wakes it once more: the one before may have been gone before it did.
		if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", f.reviewer("ben@example.com"), `{}`); r.code != http.StatusConflict || len(f.flow.ended) != 2 {
			t.Errorf("%s: %v, %q", name, r, f.flow.ended)
		}
	}
}

// What is away decides nothing and says so, to people and to programs.
func TestAway(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	ana, token := f.as("ana@example.com"), f.reviewer("ana@example.com")
	action, form := ana.get("/approvals/"+a.ID).form(t, "approve")
	f.store.fail = access.Errorf(access.Unavailable, "the table does not answer").After(1500 * time.Millisecond).Because(errors.New("the cause"))
	r := ana.post(action, form)
	if r.code != http.StatusServiceUnavailable || r.h1() != "Not now" || r.header.Get("Retry-After") != "2" || strings.Contains(r.body, "the cause") {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", token, `{}`); r.code != http.StatusServiceUnavailable || !strings.Contains(r.body, `"error":"unavailable"`) || strings.Contains(r.body, "the cause") {
		t.Error(r)
	}
	if !strings.Contains(f.log.String(), "the cause") {
		t.Error("the log does not say why")
	}
	f.store.fail = errors.New("something nobody foresaw")
	if r := ana.post(action, form); r.code != http.StatusInternalServerError || r.h1() != "Our mistake" || strings.Contains(r.body, "nobody foresaw") {
		t.Error(r)
	}
	f.store.fail = nil
	if got := f.get(a.ID); got.State != access.StatePending {
		t.Errorf("it is %s", got.State)
	}
	// A secret that cannot be read lets nobody in.
	f.site.secret = func(context.Context) (string, error) { return `{"key": "short"}`, nil }
	h, err := newSite(f.site)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = h
	if r := ana.get("/approvals"); r.code != http.StatusServiceUnavailable || strings.Contains(r.body, "short") {
		t.Error(r)
	}
	// A panic is an answer too.
	f.site.secret = func(context.Context) (string, error) { panic("oops") }
	if f.handler, err = newSite(f.site); err != nil {
		t.Fatal(err)
	}
	if r := ana.get("/approvals/" + a.ID); r.code != http.StatusInternalServerError || strings.Contains(r.body, "oops") || !strings.Contains(f.log.String(), "oops") {
		t.Error(r)
	}
}

// Every answer says what a browser may do with it: nothing.
func TestHeaders(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	ana := f.as("ana@example.com")
	replies := []reply{ana.get("/approvals"), ana.get("/approvals/" + a.ID), ana.get("/history"), ana.get("/nothing"), ana.get("/link/x"),
		f.api("GET", "/api/approvals", f.reviewer("ana@example.com"), ""), f.api("GET", "/api/nothing", "", ""), ana.post("/approvals/"+a.ID+"/decision", nil, "Sec-Fetch-Site", "cross-site")}
	for _, r := range replies {
		csp := r.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "style-src 'self'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: CSP %q", r.url, csp)
			}
		}
		if strings.Contains(csp, "script") || strings.Contains(csp, "unsafe") {
			t.Errorf("%s: CSP %q", r.url, csp)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY"} {
			if got := r.header.Get(name); got != want {
				t.Errorf("%s: %s is %q", r.url, name, got)
			}
		}
	}
	style := find(replies[0].doc, func(n *html.Node) bool { return n.Data == "link" && attr(n, "rel") == "stylesheet" })
	r := ana.get(attr(style, "href"))
	if r.code != 200 || !strings.HasPrefix(r.header.Get("Content-Type"), "text/css") || !strings.Contains(r.header.Get("Cache-Control"), "immutable") {
		t.Errorf("the stylesheet: %v", r)
	}
	if r := ana.get("/nothing"); r.code != 404 || r.h1() != "There is nothing here" {
		t.Error(r)
	}
	// API Gateway sends what it is given, to a HEAD too.
	for _, path := range []string{"/login", "/nothing", "/approvals", "/link/x", attr(style, "href"), "/api/approvals", "/favicon.ico"} {
		var e events.APIGatewayV2HTTPRequest
		e.RawPath, e.RequestContext.HTTP.Method, e.RequestContext.DomainName = path, http.MethodHead, "reviews.example.com"
		if a, err := proxied(f.handler)(t.Context(), e); err != nil || a.Body != "" || a.StatusCode == 504 {
			t.Errorf("HEAD %s: %+v, %v", path, a, err)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, f.url+"/approvals", nil)
	if r := ana.do(req); r.code != 405 || r.header.Get("Allow") != "GET, HEAD" {
		t.Error(r, r.header)
	}
}

func TestReviewsURL(t *testing.T) {
	for _, bad := range []string{"", "reviews.example.com", "ftp://x", "https://x/path", "https://x/", "https://x?y", "https://u@x", "https://"} {
		if _, err := newSite(siteConfig{url: bad, now: time.Now}); access.KindOf(err) != access.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// Every sample event is one that the function answers, as its name says.
func TestSampleEvents(t *testing.T) {
	files, err := filepath.Glob("../../events/callback/*.json")
	if err != nil || len(files) < 4 {
		t.Fatalf("found %v, %v", files, err)
	}
	want := map[string]int{"approvals.json": 303, "decision.json": 401, "slack.json": 401, "api-list.json": 401, "link.json": 404, "unreadable.json": 400, "garbled.json": 400}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var e events.APIGatewayV2HTTPRequest
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&e); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		f := newFixture(t)
		a, err := proxied(f.handler)(t.Context(), e)
		if err != nil || a.StatusCode != want[filepath.Base(name)] {
			t.Errorf("%s: %d %v %s", name, a.StatusCode, err, a.Body)
		}
	}
}
