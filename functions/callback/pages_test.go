package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"sallyport/shared/access"
)

func serve(f *fixture, method, path, body string) int {
	req := httptest.NewRequest(method, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	rec := httptest.NewRecorder()
	f.handler.ServeHTTP(rec, req)
	return rec.Code
}

// rich is an approval with everything there is to show.
func rich(a *access.Approval, v *access.View) {
	a.Sentence = "run sh -c 'rm -rf /data' in container web of Pod web-0 in prod"
	a.Kubectl = "kubectl exec web-0 -n prod -c web -- sh -c 'rm -rf /data'"
	a.Reason = "pre-approved by SRE\n<script>alert(1)</script>"
	a.Action.Container = "web"
	v.Argv = []string{"sh", "-c", "rm -rf /data", "", " two  spaces "}
	v.Diff = "--- live\n+++ sent\n@@ -1,3 +1,3 @@\n spec:\n-  replicas: 1\n+  replicas: 2\n   x: \"+ not a sign\"\n"
	v.Approximate = "the patch's list keys are not known"
	v.Notes = []string{"stdin is recorded, not approved"}
}

// Threats A9, A11: what an agent wrote is text, said to be its own words, and everything of the request is on the page.
func TestApprovalPage(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, rich)
	r := f.as("ana@example.com").get("/approvals/" + a.ID)
	words := text(r.doc)
	for _, want := range []string{
		a.Kubectl, "In the agent's own words — not verified pre-approved by SRE <script>alert(1)</script>", "deploy-bot", "olga@example.com", "Run: run_id1",
		"deletes", "operate", "abc123abc123", "This is approximate. the patch's list keys are not known", "stdin is recorded, not approved",
		"Pod web-0 in dev, of ReplicaSet/web", "and 3 more", "(in 15 minutes)", "removed: replicas: 1", "added: replicas: 2", "as the gate's proxy read it", "Approve once",
	} {
		if !strings.Contains(words, want) {
			t.Errorf("%q is not on the page:\n%s", want, words)
		}
	}
	if strings.Contains(r.body, "<script") || strings.Contains(words, "task-token") {
		t.Error("the page holds what it must not")
	}
	var argv, diff []string
	each(r.doc, func(n *html.Node) {
		if n.Data != "code" || n.Parent.Data != "li" {
			return
		}
		list := attr(n.Parent.Parent, "class")
		raw := ""
		if n.FirstChild != nil {
			raw = n.FirstChild.Data
		}
		switch list {
		case "argv":
			argv = append(argv, raw)
		case "diff":
			diff = append(diff, attr(n.Parent, "class")+"|"+raw)
		}
	})
	if fmt.Sprintf("%q", argv) != `["sh" "-c" "rm -rf /data" "" " two  spaces "]` {
		t.Errorf("argv %q", argv)
	}
	if want := []string{"file|--- live", "file|+++ sent", "hunk|@@ -1,3 +1,3 @@", "same|spec:", "removed|  replicas: 1", "added|  replicas: 2", `same|  x: "+ not a sign"`}; fmt.Sprint(diff) != fmt.Sprint(want) {
		t.Errorf("diff %q", diff)
	}
	link := find(r.doc, func(n *html.Node) bool {
		return n.Data == "a" && attr(n, "href") == "https://ci.example.com/runs/1"
	})
	if link == nil || !strings.Contains(attr(link, "rel"), "noreferrer") {
		t.Error("there is no link to the run")
	}
	for _, bad := range []string{"http://ci.example.com/1", "javascript:alert(1)", "//x/1", "https://u@x/1", "data:text/html,x", "https:///x"} {
		b := f.ask(1+len(bad), func(a *access.Approval, _ *access.View) { a.Principal.RunLink = bad })
		if r := f.as("ana@example.com").get("/approvals/" + b.ID); strings.Contains(r.body, "Look at the run") {
			t.Errorf("%s is a link", bad)
		}
	}
}

func TestHostileNames(t *testing.T) {
	f := newFixture(t)
	evil := "a\u202eb\u200b<img src=x onerror=alert(1)>\"'`{{.}}"
	a := f.ask(0, func(a *access.Approval, v *access.View) {
		a.Principal.Agent, a.Principal.Owner, a.Cluster, a.Action.Namespace, a.Action.Name = evil, evil, evil, evil, evil
		a.Principal.Run = map[string]string{evil: evil}
		a.Sentence, a.Kubectl, a.Reason, a.Decision.Rule, a.Request = evil, evil, evil, evil, evil
		v.Argv, v.Diff, v.Notes, v.Approximate = []string{evil + "\nsecond"}, "+"+evil, []string{evil}, evil
		v.Affected = []access.Affected{{Kind: evil, Namespace: evil, Name: evil, Owner: evil}}
	})
	ana := f.as("ana@example.com")
	for _, path := range []string{"/approvals", "/approvals/" + a.ID} {
		r := ana.get(path)
		if r.code != 200 || strings.Contains(r.body, "\u202e") || strings.Contains(r.body, "\u200b") || strings.Contains(r.body, "<img") {
			t.Errorf("%s shows it as it is: %v", path, r)
		}
		if !strings.Contains(r.body, `\u{202e}`) {
			t.Errorf("%s hides it", path)
		}
	}
	ana.press("/approvals/"+a.ID, "deny", "reason", evil)
	for _, path := range []string{"/history", "/approvals", "/approvals/" + a.ID} {
		if r := ana.get(path); strings.Contains(r.body, "\u202e") || strings.Contains(r.body, "<img") {
			t.Errorf("%s shows it as it is: %v", path, r)
		}
	}
}

// What a screen reader, a keyboard and a phone need of every page.
func TestPagesAreReadable(t *testing.T) {
	f := newFixture(t)
	f.policy("alone", dba)
	open := f.ask(0, rich)
	granted := f.ask(1, nil)
	f.ask(2, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Quorum = 2 })
	denied := f.ask(3, nil)
	alone := f.ask(4, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Links = "alone" })
	ana := f.as("ana@example.com")
	ana.press("/approvals/"+granted.ID, "approve-for", "grant", "object:30m0s")
	said := ana.press("/approvals/"+denied.ID, "deny", "reason", "no")
	pages := map[string]reply{
		"list": ana.get("/approvals"), "open": ana.get("/approvals/" + open.ID), "granted": ana.get("/approvals/" + granted.ID), "denied": ana.get("/approvals/" + denied.ID),
		"history": ana.get("/history"), "grants": ana.get("/grants"), "said": said, "error": ana.get("/nothing"), "link": f.browser().get(f.link(alone, "ana@example.com")),
		"expired": f.browser().post("/approvals/"+open.ID+"/decision", nil),
	}
	f.policy("login", fmt.Sprintf("- {name: dba, issuer: %q, audience: dba-reviews, people: [dan@example.com]}\n", f.ciURL))
	f.wait(time.Second)
	pages["choice"] = f.browser().get("/login")
	for name, r := range pages {
		problem := func(format string, a ...any) {
			t.Helper()
			t.Errorf("%s: "+format, append([]any{name}, a...)...)
		}
		counts, ids, labelled, level := map[string]int{}, map[string]int{}, map[string]bool{}, 0
		each(r.doc, func(n *html.Node) {
			counts[n.Data]++
			if id := attr(n, "id"); id != "" {
				ids[id]++
			}
			if n.Data == "label" {
				labelled[attr(n, "for")] = true
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") || a.Key == "style" {
					problem("%s has %s", n.Data, a.Key)
				}
			}
			if len(n.Data) == 2 && n.Data[0] == 'h' && n.Data[1] >= '1' && n.Data[1] <= '6' {
				if now := int(n.Data[1] - '0'); now > level+1 {
					problem("heading %q is of level %d, after %d", text(n), now, level)
				} else {
					level = now
				}
			}
		})
		each(r.doc, func(n *html.Node) {
			id := attr(n, "id")
			switch n.Data {
			case "select", "textarea":
				if !labelled[id] {
					problem("%s %q has no label", n.Data, id)
				}
			case "input":
				if attr(n, "type") != "hidden" && !labelled[id] {
					problem("input %q has no label", id)
				}
			case "section":
				if ids[attr(n, "aria-labelledby")] != 1 {
					problem("a section is not named")
				}
			case "table":
				if find(n, func(n *html.Node) bool { return n.Data == "caption" }) == nil {
					problem("a table has no caption")
				}
			case "a":
				if text(n) == "" {
					problem("a link says nothing: %s", attr(n, "href"))
				}
				if to := attr(n, "href"); strings.HasPrefix(to, "#") && ids[to[1:]] != 1 {
					problem("%s leads nowhere", to)
				}
			case "button":
				if text(n) == "" {
					problem("a button says nothing")
				}
			case "form":
				if attr(n, "method") != "post" {
					problem("a form is no post")
				}
			}
			for _, ref := range strings.Fields(attr(n, "aria-labelledby") + " " + attr(n, "aria-describedby")) {
				if ids[ref] != 1 {
					problem("%q names nothing", ref)
				}
			}
		})
		for id, n := range ids {
			if n != 1 {
				problem("id %q is there %d times", id, n)
			}
		}
		for element, want := range map[string]int{"h1": 1, "main": 1, "title": 1, "script": 0, "style": 0, "iframe": 0, "img": 0, "object": 0} {
			if counts[element] != want {
				problem("%d %s", counts[element], element)
			}
		}
		root := find(r.doc, func(n *html.Node) bool { return n.Data == "html" })
		viewport := find(r.doc, func(n *html.Node) bool { return n.Data == "meta" && attr(n, "name") == "viewport" })
		first := find(r.doc, func(n *html.Node) bool { return n.Data == "a" })
		if attr(root, "lang") != "en" || viewport == nil || attr(first, "href") != "#main" {
			problem("no language, viewport or skip link")
		}
		if !strings.HasPrefix(r.body, "<!doctype html>") {
			problem("no doctype: %.100s", r.body)
		}
		// For looking at: SALLYPORT_PAGES=dir go test -run Readable
		if dir := os.Getenv("SALLYPORT_PAGES"); dir != "" {
			style := find(r.doc, func(n *html.Node) bool { return n.Data == "link" })
			body := strings.Replace(r.body, attr(style, "href"), "style.css", 1)
			if err := os.WriteFile(filepath.Join(dir, name+".html"), []byte(body), 0o600); err != nil {
				t.Error(err)
			}
			if err := os.WriteFile(filepath.Join(dir, "style.css"), []byte(ana.get(attr(style, "href")).body), 0o600); err != nil {
				t.Error(err)
			}
		}
	}
	if find(pages["list"].doc, func(n *html.Node) bool { return attr(n, "http-equiv") == "refresh" }) == nil {
		t.Error("the list does not look again")
	}
	if find(pages["open"].doc, func(n *html.Node) bool { return attr(n, "http-equiv") == "refresh" }) != nil {
		t.Error("the page would forget what is typed into it")
	}
	if r := pages["expired"]; r.code != http.StatusUnauthorized {
		t.Error(r)
	}
}

func TestRelative(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "now", 4 * time.Second: "now", -3 * time.Second: "now", 12 * time.Minute: "in 12 minutes", 90 * time.Second: "in 90 seconds", -3 * time.Minute: "3 minutes ago",
		5 * time.Hour: "in 5 hours", -72 * time.Hour: "3 days ago",
	} {
		if got := relative(d); got != want {
			t.Errorf("%v: %q, not %q", d, got, want)
		}
	}
	for d, want := range map[time.Duration]string{0: "no time", time.Hour: "1 hour", 90 * time.Minute: "1 hour 30 minutes", 15 * time.Minute: "15 minutes", 61 * time.Second: "1 minute 1 second"} {
		if got := length(d); got != want {
			t.Errorf("%v: %q, not %q", d, got, want)
		}
	}
}
