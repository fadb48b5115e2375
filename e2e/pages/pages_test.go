// Package pages_test is reviewers in a real browser: they log in, see what waits, look at it whole, and decide.
//
//	go test ./e2e/pages -screenshots    also renews the pictures in docs
package pages_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/e2e/stacktest"
)

var screenshots = flag.Bool("screenshots", false, "renew the pictures in docs")

func TestMain(m *testing.M) { stacktest.Main(m) }

const within = 20 * time.Second

// browser is a fresh profile: nobody is logged in.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal("there is no chromium; .ci/run installs it")
		}
		t.Skip("there is no chromium; install Debian's package chromium to run this test")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-features", "OptimizationHints,MediaRouter"), chromedp.WSURLReadTimeout(60*time.Second))
	allocator, cancel := chromedp.NewExecAllocator(context.WithoutCancel(t.Context()), options...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(1280, 900)); err != nil { // starts it, so without a time limit
		t.Fatal(err)
	}
	return ctx
}

func do(ctx context.Context, t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	_ = run(ctx, t, chromedp.Steps(actions...))
}

func run[T any](ctx context.Context, t *testing.T, a chromedp.Action[T]) T {
	t.Helper()
	c, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	v, err := chromedp.Run(c, a)
	if err != nil {
		late, cancel := context.WithTimeout(ctx, 5*time.Second)
		defer cancel()
		html, _ := chromedp.Run(late, chromedp.OuterHTML("html"))
		t.Fatalf("%v; the browser shows\n%.3000s", err, html)
	}
	return v
}

// text is what a person reads on the page.
func text(ctx context.Context, t *testing.T) string {
	t.Helper()
	return run(ctx, t, chromedp.Text("body"))
}

func says(ctx context.Context, t *testing.T, words ...string) {
	t.Helper()
	s := text(ctx, t)
	for _, w := range words {
		if !strings.Contains(strings.ToLower(s), strings.ToLower(w)) {
			t.Errorf("the page does not say %q:\n%.2500s", w, s)
		}
	}
}

// login goes to an address and through the issuer's login page.
func login(ctx context.Context, t *testing.T, address, email string) {
	t.Helper()
	do(ctx, t, chromedp.Navigate(address), chromedp.WaitVisible(`form[action="/authorize"] button[value="`+email+`"], #other`))
	if run(ctx, t, chromedp.Evaluate[bool](`!!document.querySelector('button[value="`+email+`"]')`)) {
		do(ctx, t, chromedp.Click(`button[value="`+email+`"]`))
	} else {
		do(ctx, t, chromedp.SetValue("#other", email), chromedp.Submit("#other"))
	}
	do(ctx, t, chromedp.WaitReady("#main"))
}

// ask asks ahead, and returns the approval's id.
func ask(t *testing.T, agent *stacktest.Agent, method, target, media, body, reason string) string {
	t.Helper()
	s := agent.Stack()
	r := stacktest.Request{Method: method, Target: s.Path(target), Body: body, Header: []string{stacktest.Bearer(agent.Token), "Sallyport-Ask: ahead"}}
	if media != "" {
		r.Header = append(r.Header, "Content-Type: "+media)
	}
	if reason != "" {
		r.Header = append(r.Header, "Sallyport-Reason: UTF-8''"+reason)
	}
	a := s.Do(t, r)
	var status metav1.Status
	if err := json.Unmarshal([]byte(a.Body), &status); err == nil && status.Details != nil {
		for _, c := range status.Details.Causes {
			if c.Type == "Approval" && a.Code == http.StatusAccepted {
				return c.Message
			}
		}
	}
	t.Fatalf("asking ahead: %v", a)
	return ""
}

func configMap(t *testing.T, s *stacktest.Stack) (name, target string) {
	t.Helper()
	name = "page-" + stacktest.Word()
	s.Create(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: blue}\n", name))
	return name, "/api/v1/namespaces/dev/configmaps/" + name
}

// A reviewer logs in, finds the question in the list, reads it and says yes; kubectl, which waited, finishes. Saying it again,
// from a page that was open already, decides nothing and says so.
func TestApprove(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	ctx := browser(t)
	agent := s.Agent(t, "agents")
	name, _ := configMap(t, s)
	kubectl := agent.Start(t, "delete", "configmap", name, "-n", "dev")
	a := s.Reviewer(t, "ana@example.com").Await(t, agent)

	login(ctx, t, s.Reviews.URL+"/approvals", "ana@example.com")
	says(ctx, t, "waiting for an answer", name, agent.Subject, "ana@example.com")
	link := fmt.Sprintf(`a[href="/approvals/%s"]`, a.ID)
	do(ctx, t, chromedp.Click(link), chromedp.WaitVisible("#approve"))
	says(ctx, t, "kubectl", name, "rule", "delete", "maintain", agent.Subject, "expires")

	other, cancel := chromedp.NewContext(ctx) // another tab of the same person
	defer cancel()
	if err := chromedp.Do(other, chromedp.EmulateViewport(1280, 900)); err != nil { // opens the tab, so without a time limit
		t.Fatal(err)
	}
	do(other, t, chromedp.Navigate(s.Reviews.URL+"/approvals/"+a.ID), chromedp.WaitVisible("#approve"))

	do(ctx, t, chromedp.Click("#approve"), chromedp.WaitNotPresent("#approve"), chromedp.WaitReady("#main"))
	says(ctx, t, "approved")
	if code := kubectl.Ended(within); code != 0 {
		t.Errorf("kubectl ended with %d: %s", code, kubectl.Text())
	}
	do(other, t, chromedp.Click("#approve"), chromedp.WaitNotPresent("#approve"), chromedp.WaitReady("#main"))
	says(other, t, "already")
	if again, _ := s.Reviewer(t, "ben@example.com").Show(t, a.ID); len(again.Votes) != 1 || again.Votes[0].By.Channel != "page" {
		t.Errorf("votes %+v", again.Votes)
	}
	do(ctx, t, chromedp.Navigate(s.Reviews.URL+"/history"), chromedp.WaitReady("#main"))
	says(ctx, t, name, "ana@example.com")
}

// No needs words, and the agent gets them. All of it works by keyboard alone.
func TestDenyByKeyboard(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	ctx := browser(t)
	agent := s.Agent(t, "agents")
	name, _ := configMap(t, s)
	kubectl := agent.Start(t, "delete", "configmap", name, "-n", "dev")
	a := s.Reviewer(t, "ben@example.com").Await(t, agent)
	login(ctx, t, s.Reviews.URL+"/approvals/"+a.ID, "ben@example.com")
	do(ctx, t, chromedp.WaitVisible("#deny"), chromedp.Click("#deny"), chromedp.Sleep(300*time.Millisecond))
	if again, _ := s.Reviewer(t, "ben@example.com").Show(t, a.ID); again.State != "pending" {
		t.Fatalf("a no without words made it %s", again.State)
	}
	do(ctx, t, chromedp.Focus("#reason"), chromedp.KeyEvent("ask the billing team"), chromedp.KeyEvent("\t"), chromedp.KeyEvent("\r"), chromedp.WaitNotPresent("#deny"), chromedp.WaitReady("#main"))
	says(ctx, t, "denied")
	if code := kubectl.Ended(within); code == 0 || !strings.Contains(kubectl.Text(), "ask the billing team") {
		t.Errorf("kubectl ended with %d: %s", code, kubectl.Text())
	}
	// The first thing the tab key reaches is the way past the header, and what has the focus is seen.
	do(ctx, t, chromedp.Navigate(s.Reviews.URL+"/approvals"), chromedp.WaitReady("#main"), chromedp.KeyEvent("\t"))
	first := run(ctx, t, chromedp.Evaluate[string](`document.activeElement.getAttribute("href") || document.activeElement.tagName`))
	outline := run(ctx, t, chromedp.Evaluate[string](`getComputedStyle(document.activeElement).outlineStyle`))
	if first != "#main" || outline == "none" {
		t.Errorf("the tab key reaches %q first, outline %q", first, outline)
	}
}

// Whoever is no reviewer, comes late, or by a link of a question that is over, is told which and decides nothing.
func TestWhoMayNot(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, target := configMap(t, s)
	id := ask(t, agent, "DELETE", target, "", "", "")
	stranger := browser(t)
	login(stranger, t, s.Reviews.URL+"/approvals/"+id, "eve@example.com")
	says(stranger, t, "eve@example.com", "reviewer")
	if strings.Contains(text(stranger, t), name) {
		t.Error("a stranger sees what is asked")
	}
	var link string
	stacktest.Eventually(t, within, func() string {
		for _, m := range s.Inbox(t) {
			if m.Channel == "mail" && m.To == "chi@example.com" && strings.Contains(m.Text, name) {
				for _, l := range m.Links {
					if strings.Contains(l, "/link/") {
						link = l
						return ""
					}
				}
			}
		}
		return "chi has no mail with a link"
	})
	ana.Deny(t, id, "no need")
	chi := browser(t)
	do(chi, t, chromedp.Navigate(link), chromedp.WaitReady("body"))
	if run(chi, t, chromedp.Evaluate[bool](`!!document.querySelector('form[action="/authorize"]')`)) {
		do(chi, t, chromedp.Click(`button[value="chi@example.com"]`), chromedp.WaitReady("#main"))
	}
	says(chi, t, "denied")
	if run(chi, t, chromedp.Evaluate[bool](`!!document.querySelector("#approve")`)) {
		t.Error("what was denied can be approved")
	}
}

// The pages do without JavaScript, and nothing on them is loaded from elsewhere.
func TestNothingElse(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	ctx := browser(t)
	login(ctx, t, s.Reviews.URL+"/approvals", "ana@example.com")
	scripts := run(ctx, t, chromedp.Evaluate[int](`document.querySelectorAll("script,iframe,object,[onclick]").length`))
	foreign := run(ctx, t, chromedp.Evaluate[int](`performance.getEntriesByType("resource").filter(r => !r.name.startsWith(location.origin)).length`))
	if scripts != 0 || foreign != 0 {
		t.Errorf("%d scripts, %d loads from elsewhere", scripts, foreign)
	}
	res, err := http.Get(s.Reviews.URL + "/approvals")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	for _, want := range []string{"default-src 'none'", "frame-ancestors 'none'"} {
		if !strings.Contains(res.Header.Get("Content-Security-Policy"), want) {
			t.Errorf("Content-Security-Policy %q lacks %q", res.Header.Get("Content-Security-Policy"), want)
		}
	}
}

// Everything fits a phone, and the pictures in docs are of it.
func TestLooks(t *testing.T) {
	s := stacktest.Get(t)
	ctx := browser(t)
	agent := s.Agent(t, "developers")
	agent.Token = s.Token(t, "--subject", "release-bot-"+stacktest.Word(), "--groups", "developers", "--claim", "owner=dana@example.com")
	patch := `{"spec":{"template":{"spec":{"serviceAccountName":"release","containers":[{"name":"web","env":[{"name":"LOG_LEVEL","value":"debug"}]}]}}}}`
	id := ask(t, agent, "PATCH", "/apis/apps/v1/namespaces/dev/deployments/web", "application/strategic-merge-patch+json", patch, "the%20new%20image%20reads%20its%20settings%20through%20the%20API")
	other := s.Agent(t, "agents")
	other.Token = s.Token(t, "--subject", "incident-bot-"+stacktest.Word(), "--groups", "agents")
	pod := s.Pod(t, "dev")
	second := ask(t, other, "DELETE", "/api/v1/namespaces/dev/pods/"+pod, "", "", "it%20does%20not%20answer%20its%20health%20checks")
	login(ctx, t, s.Reviews.URL+"/approvals/"+id, "ana@example.com")
	says(ctx, t, "serviceAccountName", "LOG_LEVEL", "own words", "dana@example.com")
	root, err := stacktest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	pages := []struct{ name, address string }{
		{"review-list", s.Reviews.URL + "/approvals"}, {"review", s.Reviews.URL + "/approvals/" + id}, {"inbox", s.Reviews.Inbox},
	}
	for _, size := range []struct {
		name          string
		width, height int64
	}{{"desktop", 1280, 900}, {"phone", 390, 844}} {
		for _, p := range pages {
			viewport := chromedp.EmulateViewport(size.width, size.height)
			if size.name == "phone" {
				viewport = chromedp.EmulateViewport(size.width, size.height, chromedp.EmulateMobile)
			}
			do(ctx, t, viewport, chromedp.Navigate(p.address), chromedp.WaitReady("body"))
			wide := run(ctx, t, chromedp.Evaluate[int64](`document.documentElement.scrollWidth`))
			png := run(ctx, t, chromedp.CaptureScreenshot())
			if wide > size.width {
				t.Errorf("%s is %d pixels wide on a %s of %d", p.name, wide, size.name, size.width)
			}
			if *screenshots {
				if err := os.WriteFile(filepath.Join(root, "docs", p.name+"-"+size.name+".png"), png, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	ana := s.Reviewer(t, "ana@example.com")
	ana.Deny(t, id, "a picture was all we wanted")
	ana.Deny(t, second, "a picture was all we wanted")
}
