package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sallyport/shared/access"
)

const (
	waits  = "waitsaaaaaaaaaaaaaaaaaaaaa"
	two    = "twoaaaaaaaaaaaaaaaaaaaaaaa"
	grants = "grantsaaaaaaaaaaaaaaaaaaaa"
	over   = "overaaaaaaaaaaaaaaaaaaaaaa"
)

// theReviews is the reviews API, with a few approvals, for ana.
func theReviews() http.Handler {
	day := time.Date(2025, 11, 24, 9, 30, 0, 0, time.UTC)
	base := access.Approval{
		State: access.StatePending, Cluster: "prod", Session: "deploy2abc", Opened: day, Expires: day.Add(10 * time.Minute), Reviewers: []string{"sre"},
		Principal: access.Principal{Issuer: "https://issuer.example.com", Subject: "repo:acme/shop", Agent: "shop-deployer", Owner: "ada@example.com",
			Run: map[string]string{"run_id": "4711", "run_attempt": "1"}, RunLink: "https://ci.example.com/4711"},
		Decision: access.Decision{Effect: access.Ask, Rule: "change", Tier: "maintain", Obligations: access.Obligations{Quorum: 1, Grant: access.Grant{Scope: access.ScopeObject, Length: time.Hour}}},
		Kubectl:  "kubectl -n shop scale deployments web --replicas=5", Sentence: "change the scale of deployment web in namespace shop",
		Reason:  "more \x1b[2Jtraffic",
		History: []access.History{{At: day, What: "opened"}, {At: day, What: "notified", By: "slack", Text: "#sre"}},
	}
	var mu sync.Mutex
	all := map[string]*access.Approval{}
	for i, id := range []string{over, grants, two, waits} {
		a := base
		a.ID, a.Opened = id, day.Add(time.Duration(i)*time.Minute)
		switch id {
		case over:
			a.State, a.Ended, a.Message = access.StateDenied, day.Add(time.Minute), "ben@example.com said no: not today"
		case grants:
			a.State, a.Grant, a.Until = access.StateGranted, access.Grant{Scope: access.ScopeObject, Length: time.Hour}, day.Add(time.Hour)
			a.Uses = []access.Use{{Request: "request-7", At: day, Code: 200}, {Request: "request-8", At: day}}
		case two:
			a.Decision.Obligations.Quorum = 2
		}
		all[id] = &a
	}
	view := access.View{
		Argv: []string{"sh", "-c", "echo 1"}, Notes: []string{"Replicas: 2 → 5."}, Live: true, Approximate: "the change was merged here",
		Diff:     "--- live\n+++ request\n@@ -1,2 +1,2 @@\n spec:\n-  replicas: 2\n+  replicas: 5\x1b\n",
		Affected: []access.Affected{{Kind: "Pod", Namespace: "shop", Name: "web-0", Owner: "ReplicaSet/web-5d4f"}}, More: 3,
	}
	mux := http.NewServeMux()
	give := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(v)
	}
	refuse := func(w http.ResponseWriter, code int, kind, message, hint string) {
		w.WriteHeader(code)
		give(w, map[string]string{"error": kind, "message": message, "hint": hint})
	}
	mux.HandleFunc("GET /api/approvals", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		// One a page.
		before, _ := time.Parse(time.RFC3339Nano, r.URL.Query().Get("before"))
		page := []access.Approval{}
		answer := map[string]any{}
		for _, id := range []string{waits, two, grants, over} {
			a := all[id]
			ended := a.State == access.StateDenied || a.State == access.StateRevoked
			if ended != (r.URL.Query().Get("state") == "ended") || !before.IsZero() && !a.Opened.Before(before) {
				continue
			}
			page = append(page, *a)
			answer["before"] = a.Opened
			break
		}
		answer["approvals"] = page
		give(w, answer)
	})
	mux.HandleFunc("GET /api/approvals/{id}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		a := all[r.PathValue("id")]
		if a == nil {
			refuse(w, http.StatusNotFound, "not_found", "there is no such approval", "")
			return
		}
		give(w, map[string]any{"approval": a, "view": view})
	})
	mux.HandleFunc("POST /api/approvals/{id}/{what}", func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		var in struct{ Scope, Length, Reason string }
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&in); err != nil || r.Header.Get("Content-Type") != "application/json" {
			refuse(w, http.StatusBadRequest, "invalid", fmt.Sprint("the body: ", err), "")
			return
		}
		a := all[r.PathValue("id")]
		switch what := r.PathValue("what"); {
		case a == nil:
			refuse(w, http.StatusNotFound, "not_found", "there is no such approval", "")
			return
		case in.Reason == "lie": // a server that does nothing
		case a.State != access.StatePending && what != "revoke":
			refuse(w, http.StatusConflict, "conflict", "the approval is "+string(a.State)+" already\x1b[1m", "look at it")
			return
		case what == "approve":
			a.Votes = append(a.Votes, access.Vote{Yes: true})
			if len(a.Votes) < a.Decision.Obligations.Quorum {
				break
			}
			length, _ := time.ParseDuration(in.Length)
			a.State, a.Grant = access.StateApproved, access.Grant{Scope: access.Scope(in.Scope), Length: length}
			if length > 0 {
				a.State, a.Until = access.StateGranted, day.Add(length)
			}
		case what == "deny":
			a.State, a.Message = access.StateDenied, in.Reason
		case what == "revoke":
			a.State, a.Message = access.StateRevoked, in.Reason
		}
		give(w, map[string]any{"approval": a})
	})
	mux.HandleFunc("/elsewhere/", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/api/approvals", http.StatusFound) })
	mux.HandleFunc("/html/", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Values("Authorization"); !slices.Equal(got, []string{"Bearer ana.token"}) {
			refuse(w, http.StatusUnauthorized, "unauthenticated", "the token is nobody's", "send a reviewer's own token")
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// A gate answers as the gate does to requests that are asked ahead. The last segment of the path says what it answers.
type gate struct {
	mu    sync.Mutex
	asked map[string]int
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	answer := func(code int, message string, causes ...string) {
		s := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), Message: message, Details: &metav1.StatusDetails{}}
		if code < 300 {
			s.Status = metav1.StatusSuccess
		}
		for i := 0; i < len(causes); i += 2 {
			s.Details.Causes = append(s.Details.Causes, metav1.StatusCause{Type: metav1.CauseType(causes[i]), Message: causes[i+1]})
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(s)
	}
	if r.Header.Get("Authorization") != "Bearer agent.token" {
		answer(http.StatusUnauthorized, "no token")
		return
	}
	if v := r.Header.Get("Sallyport-Ask"); v != "ahead" {
		answer(http.StatusBadRequest, "Sallyport-Ask takes one word, which is ahead")
		return
	}
	reason, err := url.PathUnescape(strings.TrimPrefix(r.Header.Get("Sallyport-Reason"), "UTF-8''"))
	if err != nil || !strings.HasPrefix(r.URL.Path, "/clusters/dev/") {
		answer(http.StatusBadRequest, "the request is not as it was")
		return
	}
	name := filepath.Base(r.URL.Path)
	g.asked[name]++
	n := g.asked[name]
	pending := func() {
		body, _ := io.ReadAll(r.Body)
		answer(http.StatusAccepted, fmt.Sprintf("people are asked: %s (%s %s %s)", reason, r.Method, r.URL.RequestURI(), body), "Approval", "id-"+name, "State", "pending", "Rule", "delete", "Expires", "2025-11-24T10:00:00Z")
	}
	approved := func() {
		answer(http.StatusAccepted, "approved", "Approval", "id-"+name, "State", "approved", "Rule", "delete")
	}
	switch {
	case r.Method == http.MethodGet && r.Header.Get("Upgrade") == "" && name != "readme":
		answer(http.StatusNotFound, "not there")
	case name == "free":
		answer(http.StatusOK, "not needed: the policy allows it; nothing was forwarded", "Rule", "own")
	case name == "never":
		answer(http.StatusForbidden, "rule no-secrets denies it", "Rule", "no-secrets")
	case name == "down":
		answer(http.StatusServiceUnavailable, "the broker is away")
	case name == "slow" && n > 2, name == "shaky" && n > 4, name == "token" && n > 3:
		approved()
	case name == "shaky" && n > 1:
		answer(http.StatusServiceUnavailable, "the broker is away")
	case name == "token" && n == 2:
		answer(http.StatusUnauthorized, "the token is expired")
	case name == "no" && n > 1:
		answer(http.StatusForbidden, "ben@example.com said no: not \x1b[1mtoday", "Approval", "id-no", "State", "denied", "Rule", "delete")
	default:
		pending()
	}
}

// A plain API server knows nothing of asking: it does what it is asked.
type plain struct{ did chan string }

func (p *plain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		p.did <- r.Method + " " + r.URL.Path
	}
	_, _ = io.WriteString(w, `{"major": "1"}`)
}

// asking starts what people and agents speak with, and tells the script where.
func asking(env *testscript.Env) error {
	reviews := httptest.NewServer(theReviews())
	env.Defer(reviews.Close)
	gate := httptest.NewTLSServer(&gate{asked: map[string]int{}})
	env.Defer(gate.Close)
	did := &plain{did: make(chan string, 100)}
	other := httptest.NewTLSServer(did)
	env.Defer(other.Close)
	env.Values["did"] = did
	env.Setenv("REVIEWS_URL", reviews.URL)
	env.Setenv("NO_COLOR", "1")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: gate.Certificate().Raw})
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "dev",
"clusters": [{"name": "gate", "cluster": {"server": "%s/clusters/dev", "certificate-authority": "ca.crt"}}, {"name": "other", "cluster": {"server": %q, "insecure-skip-tls-verify": true}},
	{"name": "http", "cluster": {"server": "http://gate.example.com"}}, {"name": "away", "cluster": {"server": "https://127.0.0.1:1"}}],
"users": [{"name": "agent", "user": {"token": "agent.token"}}, {"name": "nobody", "user": {"token": "x"}}],
"contexts": [{"name": "dev", "context": {"cluster": "gate", "user": "agent"}}, {"name": "plain", "context": {"cluster": "other", "user": "agent"}}, {"name": "http", "context": {"cluster": "http", "user": "agent"}},
	{"name": "away", "context": {"cluster": "away", "user": "agent"}}]}`, gate.URL, other.URL)
	for name, text := range map[string]string{"kubeconfig": text, "ca.crt": string(ca)} {
		if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// fakectl is a program that honours KUBECONFIG. Each argument is a method and a target, with the body after a space.
func fakectl() {
	rules, overrides := clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{}
	code := 0
	for _, arg := range os.Args[1:] {
		if v, ok := strings.CutPrefix(arg, "--kubeconfig="); ok {
			rules.ExplicitPath = v
			continue
		}
		if v, ok := strings.CutPrefix(arg, "--context="); ok {
			overrides.CurrentContext = v
			continue
		}
		if v, ok := strings.CutPrefix(arg, "--user="); ok {
			overrides.Context.AuthInfo = v
			continue
		}
		switch arg {
		case "--":
			continue
		case "hang":
			time.Sleep(time.Minute)
		case "fail":
			fmt.Fprintln(os.Stderr, "fakectl: \x1b[1munknown command")
			os.Exit(3)
		}
		config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
		if err != nil {
			fmt.Fprintln(os.Stderr, "fakectl:", err)
			os.Exit(1)
		}
		client, err := rest.HTTPClientFor(config)
		if err != nil {
			fmt.Fprintln(os.Stderr, "fakectl:", err)
			os.Exit(1)
		}
		method, rest, _ := strings.Cut(arg, ":")
		target, body, _ := strings.Cut(rest, " ")
		upgrade := method == "UPGRADE"
		if upgrade {
			method = http.MethodGet
		}
		for {
			req, err := http.NewRequest(method, config.Host+target, strings.NewReader(body))
			if err != nil {
				fmt.Fprintln(os.Stderr, "fakectl:", err)
				os.Exit(1)
			}
			if upgrade {
				req.Header.Set("Connection", "Upgrade")
				req.Header.Set("Upgrade", "websocket")
			}
			res, err := client.Do(req)
			if err != nil {
				fmt.Fprintln(os.Stderr, "fakectl:", err)
				os.Exit(1)
			}
			text, _ := io.ReadAll(res.Body)
			res.Body.Close()
			fmt.Printf("fakectl: %s %d %s\n", target, res.StatusCode, strings.TrimSpace(string(text)))
			if res.StatusCode >= 400 {
				code = 1
			}
			if !upgrade || method == http.MethodPost {
				break
			}
			method = http.MethodPost // as kubectl falls back to SPDY
		}
	}
	os.Exit(code)
}

// nothing wants that the plain server was asked to do nothing.
func nothing(ts *testscript.TestScript, _ bool, _ []string) {
	select {
	case did := <-ts.Value("did").(*plain).did:
		ts.Fatalf("it did %s", did)
	default:
	}
}

func TestExtended(t *testing.T) {
	for in, want := range map[string]string{
		"plain":      "UTF-8''plain",
		"a b\n'%é~*": "UTF-8''a%20b%0A%27%25%C3%A9~%2A",
	} {
		if got := extended(in); got != want {
			t.Errorf("extended(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestDiffInColours(t *testing.T) {
	var b strings.Builder
	showDiff(&b, "--- live\n+++ request\n@@ -1 +1 @@\n a\n-b\n+c\x1b[2J\n\\ No newline\n", true)
	const want = "\x1b[1m--- live\x1b[0m\n\x1b[1m+++ request\x1b[0m\n\x1b[36m@@ -1 +1 @@\x1b[0m\n a\n\x1b[31m-b\x1b[0m\n\x1b[32m+c\\x1b[2J\x1b[0m\n\\ No newline\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nobody else on this machine gets through the relay, which may hold the agent's certificate.
func TestRelayIsForTheCommandAlone(t *testing.T) {
	server := httptest.NewTLSServer(&gate{asked: map[string]int{}})
	defer server.Close()
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"clusters": [{"name": "a", "cluster": {"server": %q, "insecure-skip-tls-verify": true}}], "contexts": [{"name": "a", "context": {"cluster": "a"}}], "current-context": "a"}`, server.URL+"/clusters/dev")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	aimed, err := aim([]string{"kubectl", "--kubeconfig", file}, environment{getenv: os.Getenv})
	if err != nil {
		t.Fatal(err)
	}
	r, err := newRelay(aimed, "why")
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	u, err := url.Parse(r.url)
	if err != nil {
		t.Fatal(err)
	}
	client := server.Client()
	client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	for path, want := range map[string]int{
		"/version": http.StatusNotFound, "/clusters/dev/version": http.StatusNotFound, "/" + r.secret: http.StatusNotFound,
		u.Path + "/version": http.StatusUnauthorized, // the gate's answer
	} {
		res, err := client.Get("https://" + u.Host + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, res.StatusCode, want)
		}
	}
}
