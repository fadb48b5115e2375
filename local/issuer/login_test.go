package issuer_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/oauth2"

	"sallyport/local/issuer"
)

const back = "http://localhost:4321/login/callback"

// clock is an issuer's, set forward by a test.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

// login is an issuer and a client of it, with everything a browser would do spelled out.
type login struct {
	t        *testing.T
	clock    *clock
	url      string
	oauth    oauth2.Config
	provider *oidc.Provider
}

func startLogin(t *testing.T) login {
	t.Helper()
	l := login{t: t, clock: &clock{}}
	var h http.Handler
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	i, err := issuer.New(issuer.Config{Dir: t.TempDir(), URL: s.URL, Audience: audience, Now: l.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	h = i.Handler()
	l.url = s.URL
	if l.provider, err = oidc.NewProvider(t.Context(), s.URL); err != nil {
		t.Fatal(err)
	}
	l.oauth = oauth2.Config{ClientID: issuer.ReviewsAudience, Endpoint: l.provider.Endpoint(), RedirectURL: back, Scopes: []string{"openid", "email"}}
	return l
}

// do sends a request and follows no redirect.
func (l login) do(r *http.Request) (*http.Response, string) {
	l.t.Helper()
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		l.t.Fatal(err)
	}
	return res, string(b)
}

// submit posts the login page's form: the parameters of the authorization request and who was chosen.
func (l login) submit(address string, more url.Values, headers ...string) (*http.Response, string) {
	l.t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		l.t.Fatal(err)
	}
	q := u.Query()
	for name, v := range more {
		q[name] = v
	}
	r, err := http.NewRequest(http.MethodPost, l.url+"/authorize", strings.NewReader(q.Encode()))
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return l.do(r)
}

// code logs in and returns the code the browser is sent back with.
func (l login) code(address, email string) string {
	l.t.Helper()
	res, body := l.submit(address, url.Values{"email": {email}})
	to, err := res.Location()
	if err != nil || res.StatusCode != http.StatusSeeOther || !strings.HasPrefix(to.String(), back+"?") || to.Query().Get("state") != "st&ate" {
		l.t.Fatalf("%s to %v: %v\n%s", res.Status, to, err, body)
	}
	return to.Query().Get("code")
}

func (l login) address(verifier string, more ...oauth2.AuthCodeOption) string {
	return l.oauth.AuthCodeURL("st&ate", append([]oauth2.AuthCodeOption{oauth2.S256ChallengeOption(verifier), oidc.Nonce("n-1")}, more...)...)
}

// A standard client logs somebody in, by the page's own buttons or by typing.
func TestLogin(t *testing.T) {
	l := startLogin(t)
	verifier := oauth2.GenerateVerifier()
	r, err := http.NewRequest(http.MethodGet, l.address(verifier), nil)
	if err != nil {
		t.Fatal(err)
	}
	res, page := l.do(r)
	if res.StatusCode != http.StatusOK || !strings.Contains(res.Header.Get("Content-Security-Policy"), "form-action 'self' http://localhost:4321") {
		t.Errorf("%s %v", res.Status, res.Header)
	}
	for _, want := range append([]string{"ocal stand-in", `name="other"`, `value="st&amp;ate"`}, issuer.People...) {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s", want)
		}
	}
	for _, email := range []string{"ben@example.com", "Somebody.Else+x@corp.example"} {
		token, err := l.oauth.Exchange(t.Context(), l.code(l.address(verifier), email), oauth2.VerifierOption(verifier))
		if err != nil {
			t.Fatal(err)
		}
		raw, _ := token.Extra("id_token").(string)
		id, err := l.provider.Verifier(&oidc.Config{ClientID: issuer.ReviewsAudience, SupportedSigningAlgs: issuer.Algorithms}).Verify(t.Context(), raw)
		if err != nil {
			t.Fatal(err)
		}
		var got struct {
			Email    string `json:"email"`
			Verified bool   `json:"email_verified"`
			AuthTime int64  `json:"auth_time"`
		}
		if err := id.Claims(&got); err != nil {
			t.Fatal(err)
		}
		if got.Email != email || !got.Verified || id.Subject != email || id.Nonce != "n-1" || got.AuthTime == 0 || !cmp.Equal(id.Audience, []string{issuer.ReviewsAudience}) {
			t.Errorf("%+v %+v", id, got)
		}
	}
}

func TestAuthorizationRequests(t *testing.T) {
	l := startLogin(t)
	good := l.address(oauth2.GenerateVerifier())
	set := func(name string, v ...string) string {
		u, _ := url.Parse(good)
		q := u.Query()
		q[name] = v
		u.RawQuery = q.Encode()
		return u.String()
	}
	for name, tt := range map[string]struct {
		address string
		status  int
		code    string // the error the client is told
		page    string
	}{
		"good":                     {address: good, status: 200, page: "Who are you?"},
		"no client":                {address: set("client_id"), status: 400, page: "client_id"},
		"a client twice":           {address: set("client_id", "a", "b"), status: 400, page: "more than once"},
		"somewhere else":           {address: set("redirect_uri", "https://evil.example.com/cb"), status: 400, page: "this machine"},
		"looks like here":          {address: set("redirect_uri", "http://localhost.evil.example.com/"), status: 400, page: "this machine"},
		"user looks like here":     {address: set("redirect_uri", "http://localhost@evil.example.com/"), status: 400, page: "this machine"},
		"script":                   {address: set("redirect_uri", "javascript:alert(1)"), status: 400, page: "this machine"},
		"the machine by address":   {address: set("redirect_uri", "http://[::1]:80/cb"), status: 200, page: "Who are you?"},
		"a token without a code":   {address: set("response_type", "id_token"), status: 303, code: "unsupported_response_type"},
		"no OpenID":                {address: set("scope", "email"), status: 303, code: "invalid_scope"},
		"no PKCE":                  {address: set("code_challenge"), status: 303, code: "invalid_request"},
		"plain PKCE":               {address: set("code_challenge_method", "plain"), status: 303, code: "invalid_request"},
		"without asking":           {address: set("prompt", "none"), status: 303, code: "login_required"},
		"hostile text is escaped":  {address: set("client_id", "<script>alert(1)</script>"), status: 200, page: "&lt;script&gt;"},
		"hostile state is escaped": {address: set("state", `"><script>`), status: 200, page: "&#34;&gt;&lt;script&gt;"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := http.NewRequest(http.MethodGet, tt.address, nil)
			if err != nil {
				t.Fatal(err)
			}
			res, page := l.do(r)
			to, _ := res.Location()
			told := ""
			if to != nil {
				told = to.Query().Get("error")
			}
			if res.StatusCode != tt.status || told != tt.code || !strings.Contains(page, tt.page) || strings.Contains(page, "<script>") {
				t.Errorf("%s to %v\n%s", res.Status, to, page)
			}
			if tt.status != http.StatusOK { // and the same when it is posted
				if res, _ := l.submit(tt.address, url.Values{"email": {"ana@example.com"}}); res.StatusCode != tt.status || strings.Contains(res.Header.Get("Location"), "code=") {
					t.Errorf("posted: %s to %s", res.Status, res.Header.Get("Location"))
				}
			}
		})
	}
	for _, email := range []string{"", "ana", "ana@", "a b@example.com", "a@b@c", "<a@b>"} {
		if res, page := l.submit(good, url.Values{"other": {email}}); res.StatusCode != http.StatusUnprocessableEntity || !strings.Contains(page, "Type an e-mail address") {
			t.Errorf("%q: %s", email, res.Status)
		}
	}
	if res, _ := l.submit(good, url.Values{"email": {"ana@example.com"}}, "Origin", "http://evil.example.com"); res.StatusCode != http.StatusForbidden {
		t.Errorf("another site logs in: %s", res.Status)
	}
}

func TestCodes(t *testing.T) {
	l := startLogin(t)
	verifier := oauth2.GenerateVerifier()
	for name, tt := range map[string]struct {
		change func(url.Values)
		first  func(code string) // before the code is shown
		error  string
	}{
		"good":             {},
		"used":             {first: func(code string) { l.redeem(code, verifier, nil) }, error: "invalid_grant"},
		"used wrongly":     {first: func(code string) { l.redeem(code, oauth2.GenerateVerifier(), nil) }, error: "invalid_grant"},
		"too old":          {first: func(string) { l.clock.ahead.Add(int64(61 * time.Second)) }, error: "invalid_grant"},
		"still young":      {first: func(string) { l.clock.ahead.Add(int64(59 * time.Second)) }},
		"another client":   {change: func(v url.Values) { v.Set("client_id", "sallyport") }, error: "invalid_grant"},
		"another redirect": {change: func(v url.Values) { v.Set("redirect_uri", back+"/") }, error: "invalid_grant"},
		"no verifier":      {change: func(v url.Values) { v.Del("code_verifier") }, error: "invalid_grant"},
		"another verifier": {change: func(v url.Values) { v.Set("code_verifier", oauth2.GenerateVerifier()) }, error: "invalid_grant"},
		"no code":          {change: func(v url.Values) { v.Del("code") }, error: "invalid_grant"},
		"another grant":    {change: func(v url.Values) { v.Set("grant_type", "password") }, error: "unsupported_grant_type"},
	} {
		t.Run(name, func(t *testing.T) {
			code := l.code(l.address(verifier), "ana@example.com")
			if tt.first != nil {
				tt.first(code)
			}
			if got := l.redeem(code, verifier, tt.change); got != tt.error {
				t.Errorf("got %q, want %q", got, tt.error)
			}
		})
	}
}

// redeem shows a code, and returns the error it was answered with.
func (l login) redeem(code, verifier string, change func(url.Values)) string {
	l.t.Helper()
	v := url.Values{"grant_type": {"authorization_code"}, "client_id": {issuer.ReviewsAudience}, "redirect_uri": {back}, "code": {code}, "code_verifier": {verifier}}
	if change != nil {
		change(v)
	}
	r, err := http.NewRequest(http.MethodPost, l.url+"/token", strings.NewReader(v.Encode()))
	if err != nil {
		l.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, body := l.do(r)
	var out struct {
		Error   string `json:"error"`
		IDToken string `json:"id_token"`
	}
	if err := json.Unmarshal([]byte(body), &out); err != nil || (out.Error == "") != (res.StatusCode == 200 && out.IDToken != "") {
		l.t.Fatalf("%s %s", res.Status, body)
	}
	return out.Error
}
