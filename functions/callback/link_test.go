package main

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/approval"
)

// link is a mail link's path.
func (f *fixture) link(a access.Approval, email string) string {
	f.t.Helper()
	token, hash := approval.NewLink()
	if err := f.store.PutLink(context.Background(), hash, a.ID, email, a.Expires); err != nil {
		f.t.Fatal(err)
	}
	return "/link/" + token
}

// Threat A14: by default a link in a mail leads to the login, and whoever reads the mail is not who it was sent to.
func TestLinkWithLogin(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	link := f.link(a, "ana@example.com")
	if r := f.browser().get(link); !strings.Contains(r.url.Path, "authorize") || strings.Contains(r.body, a.Sentence) {
		t.Errorf("without a login it shows %v", r)
	}
	if r := f.browser().post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusForbidden || r.h1() != "Log in to answer" {
		t.Errorf("posting to it: %v", r)
	}
	if r := f.browser().loginAt(link, "ana@example.com"); r.code != 200 || r.url.Path != "/approvals/"+a.ID {
		t.Errorf("after the login: %v", r)
	}
	ben := f.browser()
	r := ben.loginAt(link, "ben@example.com")
	if r.code != http.StatusForbidden || r.h1() != "This link is for somebody else" || !strings.Contains(r.body, "/approvals/"+a.ID) {
		t.Errorf("somebody else: %v", r)
	}
	if r := ben.post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusForbidden {
		t.Errorf("somebody else posts: %v", r)
	}
	for _, bad := range []string{"/link/x", "/link/" + strings.Repeat("A", 43), "/link/" + strings.Repeat("A", 500)} {
		if r := f.browser().get(bad); r.code != http.StatusNotFound {
			t.Errorf("%s: %v", bad, r)
		}
		if r := f.browser().post(bad, url.Values{"verdict": {"approve"}}); r.code != http.StatusNotFound && r.code != http.StatusMethodNotAllowed {
			t.Errorf("%s: %v", bad, r)
		}
	}
	f.wait(16 * time.Minute)
	if r := f.browser().get(link); r.code != http.StatusGone || r.h1() != "This link has expired" {
		t.Errorf("late: %v", r)
	}
	if r := f.browser().post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusGone {
		t.Errorf("late: %v", r)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 || happened(got, "refused") != 3 {
		t.Errorf("%s %+v", got.State, got.History)
	}
	if strings.Contains(f.log.String(), strings.TrimPrefix(link, "/link/")) {
		t.Error("the log holds the link")
	}
}

// Where a rule says so, the link alone decides: as one person, once, and not for somebody else who is logged in.
func TestLinkAlone(t *testing.T) {
	f := newFixture(t)
	f.policy("alone", "")
	alone := func(a *access.Approval, _ *access.View) {
		a.Decision.Obligations.Links, a.Decision.Obligations.Quorum = "alone", 2
	}
	a := f.ask(0, alone)
	link := f.link(a, "ana@example.com")
	b := f.browser()
	r := b.get(link)
	if r.code != 200 || !strings.Contains(r.body, a.Kubectl) {
		t.Fatal(r)
	}
	if action, _ := r.form(t, "approve"); action != link {
		t.Errorf("the form posts to %s", action)
	}
	ben := f.as("ben@example.com")
	if r := ben.get(link); r.code != http.StatusForbidden || r.h1() != "This link is for somebody else" {
		t.Errorf("ben follows ana's: %v", r)
	}
	if r := ben.post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusForbidden {
		t.Errorf("ben uses ana's: %v", r)
	}
	// What cannot count does not use it up.
	for _, form := range []url.Values{{}, {"verdict": {"deny"}}, {"verdict": {"approve-for"}, "grant": {"namespace:9h"}}, {"verdict": {"approve", "deny"}}} {
		if r := b.post(link, form); r.code < 400 {
			t.Errorf("%v: %v", form, r)
		}
	}
	if r := b.post(link, url.Values{"verdict": {"approve"}}, "Sec-Fetch-Site", "cross-site"); r.code != http.StatusForbidden {
		t.Errorf("from another site: %v", r)
	}
	var wg sync.WaitGroup
	var taken atomic.Int64
	for range 8 {
		wg.Go(func() {
			if f.browser().post(link, url.Values{"verdict": {"approve"}}).code == 200 {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 {
		t.Errorf("it was taken %d times", taken.Load())
	}
	got := f.get(a.ID)
	if len(got.Votes) != 1 || got.Votes[0].By != (access.Reviewer{Email: "ana@example.com", Channel: "mail"}) {
		t.Fatalf("votes %+v", got.Votes)
	}
	for _, r := range []reply{b.get(link), b.post(link, url.Values{"verdict": {"deny"}, "reason": {"x"}})} {
		if r.code != http.StatusGone || r.h1() != "This link was used already" {
			t.Errorf("used: %v", r)
		}
	}
	// The rule of today decides how links work, not that of yesterday.
	other := f.ask(1, alone)
	link = f.link(other, "chi@example.com")
	f.policy("login", "")
	f.wait(time.Second)
	if r := b.post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusForbidden {
		t.Error(r)
	}
	if r := b.get(link); !strings.Contains(r.url.Path, "authorize") {
		t.Error(r)
	}
	f.policy("alone", "")
	f.wait(time.Second)
	if r := b.press(link, "deny", "reason", "no"); r.code != 200 || !strings.Contains(r.body, "You denied it") {
		t.Error(r)
	}
	late := f.ask(2, alone)
	link = f.link(late, "chi@example.com")
	f.wait(16 * time.Minute)
	if r := b.post(link, url.Values{"verdict": {"approve"}}); r.code != http.StatusGone || r.h1() != "This link has expired" {
		t.Error(r)
	}
	if got := f.get(late.ID); len(got.Votes) != 0 || happened(got, "refused") != 1 {
		t.Errorf("%+v", got.History)
	}
}
