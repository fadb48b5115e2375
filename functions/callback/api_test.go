package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"sallyport/local/issuer"
	"sallyport/shared/access"
	"sallyport/shared/approval"
)

func claims(email string) issuer.Claims {
	return issuer.Claims{Subject: email, Audience: audience, Extra: map[string]any{"email": email, "email_verified": true}}
}

func TestAPI(t *testing.T) {
	f := newFixture(t)
	token := f.reviewer("Ana@Example.com")
	a := f.ask(0, nil)
	var list struct {
		Approvals []access.Approval `json:"approvals"`
	}
	r := f.api("GET", "/api/approvals?state=pending", token, "")
	if err := json.Unmarshal([]byte(r.body), &list); err != nil || r.code != 200 || len(list.Approvals) != 1 || list.Approvals[0].ID != a.ID {
		t.Fatal(r, err)
	}
	var one struct {
		Approval access.Approval `json:"approval"`
		View     access.View     `json:"view"`
	}
	r = f.api("GET", "/api/approvals/"+a.ID, token, "")
	if err := json.Unmarshal([]byte(r.body), &one); err != nil || one.Approval.Kubectl != a.Kubectl || !strings.Contains(one.View.Diff, "replicas") {
		t.Fatal(r, err)
	}
	if strings.Contains(r.body, "task-token") {
		t.Error("the API shows the task's token")
	}
	for body, code := range map[string]int{
		`{"scope":"cluster"}`:                 400,
		`{"scope":"object"}`:                  400,
		`{"scope":"namespace","length":"2h"}`: 400,
		`{"scope":"object","length":"-5m"}`:   400,
		`{"scope":"object","length":"soon"}`:  400,
		`{"length":"5m"}`:                     400,
		`{"scope":"request","length":"5m"}`:   400,
		`{"verdict":"approve"}`:               400,
		`{} {}`:                               400,
		`[]`:                                  400,
		`{`:                                   400,
		`{"reason":"` + strings.Repeat("x", 1001) + `"}`:  400,
		`{"reason":"` + strings.Repeat("x", 20000) + `"}`: 413,
	} {
		r := f.api("POST", "/api/approvals/"+a.ID+"/approve", token, body)
		var e struct{ Error, Message, Hint string }
		if err := json.Unmarshal([]byte(r.body), &e); err != nil || r.code != code || e.Error == "" || e.Message == "" || e.Hint == "" {
			t.Errorf("%.60s: %v", body, r)
		}
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", token, `{}`, "Content-Type", "text/plain"); r.code != http.StatusUnsupportedMediaType {
		t.Error(r)
	}
	for _, path := range []string{"/api/approvals/x/approve", "/api/approvals/" + idN(19) + "/approve", "/api/nothing"} {
		if r := f.api("POST", path, token, `{}`); r.code != 404 || !strings.Contains(r.body, `"error":"not_found"`) {
			t.Error(path, r)
		}
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/deny", token, `{}`); r.code != 400 {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/deny", token, `{"reason":"x","scope":"object"}`); r.code != 400 {
		t.Error(r)
	}
	if r := f.api("DELETE", "/api/approvals/"+a.ID, token, ""); r.code != 405 || !strings.Contains(r.body, `"error":"method"`) {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 {
		t.Fatalf("it is %s", got.State)
	}
	r = f.api("POST", "/api/approvals/"+a.ID+"/approve", token, `{"scope":"namespace","length":"30m","reason":"go on"}`)
	if err := json.Unmarshal([]byte(r.body), &one); err != nil || r.code != 200 || one.Approval.State != access.StateGranted {
		t.Fatal(r, err)
	}
	got := f.get(a.ID)
	want := access.Reviewer{Email: "ana@example.com", Issuer: f.idpURL, Audience: audience, Subject: "Ana@Example.com", Channel: "cli"}
	if got.Votes[0].By != want || got.Votes[0].Reason != "go on" {
		t.Errorf("vote %+v", got.Votes[0])
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", token, ``); r.code != 409 || !strings.Contains(r.body, `"error":"conflict"`) {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/revoke", token, ``); r.code != 400 {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/revoke", f.reviewer("ben@example.com"), `{"reason":"enough"}`); r.code != 200 || f.get(a.ID).State != access.StateRevoked {
		t.Error(r)
	}
	r = f.api("GET", "/api/approvals?state=ended", token, "")
	if err := json.Unmarshal([]byte(r.body), &list); err != nil || len(list.Approvals) != 1 {
		t.Error(r, err)
	}
	for _, q := range []string{"state=all", "before=yesterday"} {
		if r := f.api("GET", "/api/approvals?"+q, token, ""); r.code != 400 {
			t.Error(q, r)
		}
	}
	// A cookie is no token, and no body is needed for a yes.
	b := f.ask(1, nil)
	if r := f.as("ana@example.com").get("/api/approvals"); r.code != 401 {
		t.Error(r)
	}
	if r := f.api("POST", "/api/approvals/"+b.ID+"/approve", token, ``); r.code != 200 || f.get(b.ID).State != access.StateApproved {
		t.Error(r)
	}
}

// A list longer than an answer goes on where it ended.
func TestPages(t *testing.T) {
	f := newFixture(t)
	var want []string
	for n := range apiLimit + 5 {
		a := f.ask(n, func(a *access.Approval, _ *access.View) {
			a.Opened = a.Opened.Add(time.Duration(n-200) * time.Second)
			a.State, a.Message, a.Ended = access.StateWithdrawn, "the target changed", a.Opened
		})
		want = append(want, a.ID)
	}
	token, before := f.reviewer("ana@example.com"), ""
	seen := map[string]bool{}
	for range 3 {
		var list struct {
			Approvals []access.Approval `json:"approvals"`
			Before    string            `json:"before"`
		}
		r := f.api("GET", "/api/approvals?state=ended&before="+before, token, "")
		if err := json.Unmarshal([]byte(r.body), &list); err != nil {
			t.Fatal(r, err)
		}
		for _, a := range list.Approvals {
			seen[a.ID] = true
		}
		if before = list.Before; before == "" {
			break
		}
	}
	if len(seen) != len(want) {
		t.Errorf("%d of %d were listed", len(seen), len(want))
	}
	ana := f.as("ana@example.com")
	pages := 0
	for path := "/history"; path != "" && pages < 5; pages++ {
		r := ana.get(path)
		path = ""
		for _, id := range want {
			if strings.Contains(r.body, id) {
				delete(seen, id)
			}
		}
		if _, after, ok := strings.Cut(r.body, `href="/history?before=`); ok {
			at, _, _ := strings.Cut(after, `"`)
			path = "/history?before=" + strings.ReplaceAll(at, "&amp;", "&")
		}
	}
	if pages != 3 || len(seen) != 0 {
		t.Errorf("%d pages, %d not among them", pages, len(seen))
	}
	if r := ana.get("/history?before=x"); r.code != 400 {
		t.Error(r)
	}
}

// Of the secret in a link nothing but the one that was mailed finds it.
func FuzzLink(f *testing.F) {
	for _, s := range []string{"", "x", strings.Repeat("A", 43), "../approvals", "%2e", "é", "a/b", "a?b"} {
		f.Add(s)
	}
	fix := newFixture(f)
	fix.policy("alone", "")
	a := fix.ask(0, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Links = "alone" })
	good, hash := approval.NewLink()
	if err := fix.store.PutLink(context.Background(), hash, a.ID, "ana@example.com", a.Expires); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, token string) {
		if token == good {
			return
		}
		rec := serve(fix, "POST", "/link/"+url.PathEscape(token), "verdict=approve")
		if rec < 400 && rec != 301 && rec != 307 && rec != 308 || rec >= 500 {
			t.Errorf("%q: %d", token, rec)
		}
		if a, err := fix.store.Get(context.Background(), idN(0)); err != nil || a.State != access.StatePending {
			t.Fatalf("%q made it %s, %v", token, a.State, err)
		}
	})
}

// A cookie that we did not seal opens as nothing, and never breaks anything.
func FuzzCookie(f *testing.F) {
	k := &keyring{read: func(context.Context) (string, error) { return pagesKey, nil }, now: time.Now}
	sealed, err := k.seal(context.Background(), forSession, person{Email: "ana@example.com"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sealed)
	f.Add("a.b.c.d.e")
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		var p person
		if err := k.open(context.Background(), forSession, s, &p); err == nil && s != sealed && p.Email != "ana@example.com" {
			t.Errorf("%q opens as %+v", s, p)
		}
		if err := k.open(context.Background(), forLogin, s, &login{}); err == nil {
			t.Errorf("%q opens as a login", s)
		}
	})
}

// What nobody answered in time is over when its time is up, not when somebody writes that down.
func TestAPITellsWhatIsOver(t *testing.T) {
	f := newFixture(t)
	a := f.ask(1, nil)
	token := f.reviewer("ana@example.com")
	if r := f.api("GET", "/api/approvals?state=pending", token, ""); !strings.Contains(r.body, a.ID) {
		t.Fatalf("it is not listed: %d %s", r.code, r.body)
	}
	f.wait(a.Expires.Sub(f.clock()))
	token = f.reviewer("ana@example.com")
	if r := f.api("GET", "/api/approvals?state=pending", token, ""); r.code != 200 || strings.Contains(r.body, a.ID) {
		t.Errorf("it waits for an answer still: %d %s", r.code, r.body)
	}
	if r := f.api("GET", "/api/approvals/"+a.ID, token, ""); !strings.Contains(r.body, `"state":"expired"`) {
		t.Errorf("it is shown as %s", r.body)
	}
}
