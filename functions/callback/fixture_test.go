package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	api "github.com/slack-go/slack"
	"golang.org/x/net/html"

	"sallyport/functions/inforce"
	"sallyport/functions/inforce/inforcetest"
	"sallyport/local/aws/httpapi"
	"sallyport/local/aws/lambda"
	"sallyport/local/issuer"
	"sallyport/shared/access"
	"sallyport/shared/identity"
	"sallyport/shared/slack"
	"sallyport/shared/store/storetest"
)

const (
	audience = "sallyport-reviews"
	signing  = "the signing secret"
	pagesKey = `{"key": "0123456789abcdef0123456789abcdef"}`
)

// policyText is the policy in force; %[1]s is the reviewers' issuer, %[2]s another issuer of reviewers, %[3]s how links work.
const policyText = `
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- {url: "%[1]s", algorithms: [ES256], groupsClaim: groups, private: true}
- {url: "%[2]s", algorithms: [ES256], groupsClaim: groups, private: true}
clusters: [{name: dev, region: eu-west-1}]
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate"}
sessions: {idle: 1h, longest: 12h, credential: 1h}
reviewers:
- name: sre
  issuer: "%[1]s"
  audience: sallyport-reviews
  people: [ana@example.com, ben@example.com, chi@example.com, Requester@example.com]
  slack: {team: T00000001, channel: C00000001, users: {U00000ANA: ana@example.com, U00000BEN: ben@example.com, U00000REQ: Requester@example.com}}
%[4]s
asks: {tier: operate, reviewers: [sre], quorum: 1, expires: 15m}
rules:
- {name: deletes, effect: ask, groups: [observers], verbs: [delete], apiGroups: [""], resources: [pods], links: %[3]s, grant: {scope: namespace, length: 1h}}
`

// dba is a second group, of the same issuer and audience.
const dba = `
- name: dba
  issuer: "%[1]s"
  audience: sallyport-reviews
  people: [dan@example.com]
`

type fixture struct {
	t       testing.TB
	url     string
	handler http.Handler
	idp     *issuer.Issuer
	idpURL  string
	ci      *issuer.Issuer // an issuer of agents alone
	ciURL   string
	bucket  *inforcetest.Bucket
	version int
	keeper  *inforce.Keeper
	store   *counted
	flow    *flow
	chat    *talk
	log     bytes.Buffer
	now     atomic.Pointer[time.Time]
	site    siteConfig
	// mint, when set, changes the claims of what the issuer's token endpoint gives.
	mint func(claims map[string]any)
}

func (f *fixture) clock() time.Time { return *f.now.Load() }

func (f *fixture) wait(d time.Duration) {
	then := f.clock().Add(d)
	f.now.Store(&then)
}

// counted counts what is written.
type counted struct {
	*storetest.ApprovalsMemory
	mu     sync.Mutex
	writes []string
	fail   error // of every call
}

func (c *counted) wrote(what string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = append(c.writes, what)
	return c.fail
}

func (c *counted) Get(ctx context.Context, id string) (access.Approval, error) {
	if c.fail != nil {
		return access.Approval{}, c.fail
	}
	return c.ApprovalsMemory.Get(ctx, id)
}

func (c *counted) Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error) {
	if err := c.wrote("approval " + id); err != nil {
		return access.Approval{}, err
	}
	return c.ApprovalsMemory.Update(ctx, id, change)
}

func (c *counted) UseLink(ctx context.Context, hash string, now time.Time) error {
	if err := c.wrote("link"); err != nil {
		return err
	}
	return c.ApprovalsMemory.UseLink(ctx, hash, now)
}

func (c *counted) Once(ctx context.Context, key string, until time.Time) (bool, error) {
	if err := c.wrote("once"); err != nil {
		return false, err
	}
	return c.ApprovalsMemory.Once(ctx, key, until)
}

func (c *counted) PutKnown(ctx context.Context, issuer, subject, email string) error {
	if err := c.wrote("known"); err != nil {
		return err
	}
	return c.ApprovalsMemory.PutKnown(ctx, issuer, subject, email)
}

// flow is the workflow.
type flow struct {
	mu    sync.Mutex
	ended []string // token and output
	err   error
}

func (f *flow) Succeed(_ context.Context, token, output string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = append(f.ended, token+" "+output)
	return f.err
}

// talk is Slack.
type talk struct {
	mu    sync.Mutex
	told  []string
	views []api.ModalViewRequest
	err   error
}

func (c *talk) Secret(context.Context) (slack.Secret, error) {
	return slack.Secret{SigningSecret: signing, BotToken: "xoxb"}, nil
}

func (c *talk) Open(_ context.Context, trigger string, v api.ModalViewRequest) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if trigger == "" {
		return errors.New("no trigger")
	}
	c.views = append(c.views, v)
	return c.err
}

func (c *talk) Tell(_ context.Context, channel, user, text string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.told = append(c.told, channel+" "+user+" "+text)
	return c.err
}

// newFixture serves the function as API Gateway would, with a real issuer and a policy in force.
func newFixture(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{t: t, store: &counted{ApprovalsMemory: storetest.NewApprovals()}, flow: &flow{}, chat: &talk{}, bucket: &inforcetest.Bucket{}}
	start := time.Now().UTC().Truncate(time.Second)
	f.now.Store(&start)
	f.idp, f.idpURL = f.issuer()
	f.ci, f.ciURL = f.issuer()
	f.policy("login", "")
	log := slog.New(slog.NewTextHandler(&f.log, nil))
	f.keeper = inforce.New(inforce.Config{Policies: f.bucket.Follow, Now: f.clock, Log: log})

	server := httptest.NewUnstartedServer(nil)
	f.url = "http://" + server.Listener.Addr().String()
	f.site = siteConfig{
		policies: f.keeper, approvals: f.store, kept: f.store, people: f.store, workflow: f.flow, chat: f.chat,
		providers: &discovered{now: f.clock, discover: func(ctx context.Context, i access.Issuer) (identity.Provider, error) {
			return identity.Discover(ctx, i, nil)
		}},
		secret: func(context.Context) (string, error) { return pagesKey, nil }, url: f.url, now: f.clock, log: log,
	}
	var err error
	if f.handler, err = newSite(f.site); err != nil {
		t.Fatal(err)
	}
	server.Config.Handler = f.gateway()
	server.Start()
	t.Cleanup(server.Close)
	return f
}

// gateway is API Gateway before the handler, which may be replaced.
func (f *fixture) gateway() http.Handler {
	return httpapi.New(httpapi.Config{Function: "callback", Invoke: func(ctx context.Context, id string, payload []byte) (lambda.Result, error) {
		var e events.APIGatewayV2HTTPRequest
		if err := json.Unmarshal(payload, &e); err != nil {
			return lambda.Result{}, err
		}
		answer, err := proxied(f.handler)(ctx, e)
		if err != nil {
			f.t.Errorf("the function failed: %v", err)
		}
		out, err := json.Marshal(answer)
		return lambda.Result{Payload: out, RequestID: id}, err
	}})
}

// issuer is a local issuer, the claims of whose tokens a test may change.
func (f *fixture) issuer() (*issuer.Issuer, string) {
	f.t.Helper()
	server := httptest.NewUnstartedServer(nil)
	address := "http://" + server.Listener.Addr().String()
	i, err := issuer.New(issuer.Config{Dir: f.t.TempDir(), URL: address, Audience: "sallyport", Now: f.clock})
	if err != nil {
		f.t.Fatal(err)
	}
	inner := i.Handler()
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/token" || f.mint == nil {
			inner.ServeHTTP(w, r)
			return
		}
		// What the real endpoint gave, signed again with other claims.
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		var out map[string]any
		if err := json.Unmarshal(rec.Body.Bytes(), &out); err != nil || out["id_token"] == nil {
			w.WriteHeader(rec.Code)
			_, _ = w.Write(rec.Body.Bytes())
			return
		}
		claims := payload(f.t, out["id_token"].(string))
		f.mint(claims)
		token, err := i.Mint(issuer.Claims{Subject: fmt.Sprint(claims["sub"]), Extra: claims})
		if err != nil {
			f.t.Error(err)
		}
		out["id_token"] = token
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out)
	})
	server.Start()
	f.t.Cleanup(server.Close)
	return i, address
}

func payload(t testing.TB, token string) map[string]any {
	t.Helper()
	b, err := base64Decode(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	if err := dec.Decode(&claims); err != nil {
		t.Fatal(err)
	}
	return claims
}

// policy puts another version in force.
func (f *fixture) policy(links, more string) {
	f.version++
	if strings.Contains(more, "%[") {
		more = fmt.Sprintf(more+"%.0[2]s", f.idpURL, f.ciURL)
	}
	f.bucket.Put(fmt.Sprint(f.version), fmt.Sprintf(policyText, f.idpURL, f.ciURL, links, more))
}

// ids are valid ones.
func idN(n int) string {
	return strings.Repeat("a", 24) + string(rune('b'+n/20)) + string(rune('b'+n%20))
}

// ask opens an approval; change changes it before.
func (f *fixture) ask(n int, change func(*access.Approval, *access.View)) access.Approval {
	f.t.Helper()
	a := storetest.Asked(idN(n), "deploy-bot", f.clock())
	a.Principal.RunLink = "https://ci.example.com/runs/1"
	a.Principal.Owner = "olga@example.com"
	a.Decision.Tier, a.Decision.Policy = "operate", strings.Repeat("abc123", 10)
	v := access.View{Diff: "--- live\n+++ sent\n@@ -1,2 +1,2 @@\n spec:\n-  replicas: 1\n+  replicas: 2\n", Affected: []access.Affected{{Kind: "Pod", Namespace: "dev", Name: "web-0", Owner: "ReplicaSet/web"}}, More: 3, Live: true}
	if change != nil {
		change(&a, &v)
	}
	got, opened, err := f.store.Open(context.Background(), a, v, func(access.Approval) bool { return false })
	if err != nil || !opened {
		f.t.Fatal(err)
	}
	if err := f.store.PutTask(context.Background(), a.ID, "task-token-"+a.ID); err != nil {
		f.t.Fatal(err)
	}
	return got
}

func (f *fixture) get(id string) access.Approval {
	f.t.Helper()
	a, err := f.store.ApprovalsMemory.Get(context.Background(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func happened(a access.Approval, what string) (n int) {
	for _, h := range a.History {
		if h.What == what {
			n++
		}
	}
	return n
}

// A browser is one, with its cookies.
type browser struct {
	f *fixture
	*http.Client
}

func (f *fixture) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		f.t.Fatal(err)
	}
	return &browser{f, &http.Client{Jar: jar}}
}

// A reply is an answer, whole.
type reply struct {
	code   int
	url    *url.URL
	header http.Header
	body   string
	doc    *html.Node
}

func (r reply) String() string { return fmt.Sprintf("%d %s\n%.3000s", r.code, r.url, r.body) }

func (b *browser) do(req *http.Request) reply {
	b.f.t.Helper()
	res, err := b.Do(req)
	if err != nil {
		b.f.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		b.f.t.Fatal(err)
	}
	r := reply{res.StatusCode, res.Request.URL, res.Header, string(body), nil}
	if strings.HasPrefix(res.Header.Get("Content-Type"), "text/html") {
		if r.doc, err = html.Parse(strings.NewReader(r.body)); err != nil {
			b.f.t.Fatal(err)
		}
	}
	return r
}

func (b *browser) at(path string) string {
	if strings.HasPrefix(path, "http") {
		return path
	}
	return b.f.url + path
}

func (b *browser) get(path string) reply {
	b.f.t.Helper()
	req, err := http.NewRequestWithContext(b.f.t.Context(), http.MethodGet, b.at(path), nil)
	if err != nil {
		b.f.t.Fatal(err)
	}
	return b.do(req)
}

func (b *browser) post(path string, form url.Values, header ...string) reply {
	b.f.t.Helper()
	req, err := http.NewRequestWithContext(b.f.t.Context(), http.MethodPost, b.at(path), strings.NewReader(form.Encode()))
	if err != nil {
		b.f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	for i := 0; i < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	return b.do(req)
}

// form is what a form of a page posts, and where, by the id of its button.
func (r reply) form(t testing.TB, button string) (string, url.Values) {
	t.Helper()
	b := find(r.doc, func(n *html.Node) bool { return n.Data == "button" && attr(n, "id") == button })
	if b == nil {
		t.Fatalf("there is no button %q on the page: %v", button, r)
	}
	form := b
	for form.Data != "form" {
		form = form.Parent
	}
	values := url.Values{}
	each(form, func(n *html.Node) {
		if n.Data == "input" && attr(n, "type") == "hidden" {
			values.Set(attr(n, "name"), attr(n, "value"))
		}
	})
	if attr(form, "method") != "post" {
		t.Errorf("the form of %q is no post", button)
	}
	return attr(form, "action"), values
}

// press opens a page and presses one of its buttons.
func (b *browser) press(path, button string, more ...string) reply {
	b.f.t.Helper()
	action, values := b.get(path).form(b.f.t, button)
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	return b.post(action, values)
}

// login logs in by the issuer's page, wherever that led from.
func (b *browser) login(email string) reply { return b.loginAt("/login", email) }

func (b *browser) loginAt(path, email string) reply {
	b.f.t.Helper()
	r := b.get(path)
	form := find(r.doc, func(n *html.Node) bool { return n.Data == "form" })
	if form == nil || !strings.Contains(r.url.Path, "authorize") {
		b.f.t.Fatalf("this is no login page: %v", r)
	}
	values := url.Values{"email": {email}}
	each(form, func(n *html.Node) {
		if n.Data == "input" && attr(n, "type") == "hidden" {
			values.Set(attr(n, "name"), attr(n, "value"))
		}
	})
	at, err := r.url.Parse(attr(form, "action"))
	if err != nil {
		b.f.t.Fatal(err)
	}
	return b.post(at.String(), values)
}

// as is a browser in which somebody logged in.
func (f *fixture) as(email string) *browser {
	f.t.Helper()
	b := f.browser()
	if r := b.login(email); r.code != 200 || r.url.Path != "/approvals" {
		f.t.Fatalf("logging in as %s: %v", email, r)
	}
	return b
}

func attr(n *html.Node, name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

func each(n *html.Node, f func(*html.Node)) {
	if n.Type == html.ElementNode {
		f(n)
	}
	for c := n.FirstChild; c != nil; c = c.NextSibling {
		each(c, f)
	}
}

func find(n *html.Node, is func(*html.Node) bool) (found *html.Node) {
	if n == nil {
		return nil
	}
	each(n, func(n *html.Node) {
		if found == nil && is(n) {
			found = n
		}
	})
	return found
}

func text(n *html.Node) string {
	var b strings.Builder
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.TextNode {
			b.WriteString(n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(n)
	return strings.Join(strings.Fields(b.String()), " ")
}

func (r reply) h1() string {
	if n := find(r.doc, func(n *html.Node) bool { return n.Data == "h1" }); n != nil {
		return text(n)
	}
	return ""
}
