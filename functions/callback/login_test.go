package main

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"sallyport/local/issuer"
	"sallyport/shared/access"
)

// A login that was not begun here, or is finished twice, is none.
func TestLogin(t *testing.T) {
	f := newFixture(t)
	stop := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	begun := func(b *browser) url.Values {
		t.Helper()
		b.CheckRedirect = stop
		r := b.get("/login?next=/history")
		at, err := url.Parse(r.header.Get("Location"))
		if err != nil || r.code != http.StatusSeeOther {
			t.Fatal(r)
		}
		return at.Query()
	}
	b := f.browser()
	q := begun(b)
	for name, want := range map[string]string{"client_id": audience, "response_type": "code", "redirect_uri": f.url + "/login/callback", "code_challenge_method": "S256", "scope": "openid email"} {
		if q.Get(name) != want {
			t.Errorf("%s is %q", name, q.Get(name))
		}
	}
	if len(q.Get("state")) < 20 || len(q.Get("nonce")) < 20 || len(q.Get("code_challenge")) != 43 || q.Get("nonce") == q.Get("state") {
		t.Errorf("the request is %v", q)
	}
	// The issuer's answer, to the browser that began it and to others.
	code := func(q url.Values) string {
		t.Helper()
		values := url.Values{"email": {"ana@example.com"}}
		for name := range q {
			values.Set(name, q.Get(name))
		}
		other := f.browser()
		other.CheckRedirect = stop
		at, err := url.Parse(other.post(f.idpURL+"/authorize", values).header.Get("Location"))
		if err != nil {
			t.Fatal(err)
		}
		return at.Query().Get("code")
	}
	for name, r := range map[string]reply{
		"another browser":   f.browser().get("/login/callback?code=" + code(q) + "&state=" + q.Get("state")),
		"no cookie, no way": f.browser().get("/login/callback"),
	} {
		if r.code != http.StatusUnauthorized || r.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: %v", name, r)
		}
	}
	for name, query := range map[string]func(url.Values) string{
		"another state": func(q url.Values) string { return "code=" + code(q) + "&state=x" },
		"no state":      func(q url.Values) string { return "code=" + code(q) },
		"two states":    func(q url.Values) string { return "code=" + code(q) + "&state=" + q.Get("state") + "&state=x" },
		"two codes":     func(q url.Values) string { return "code=a&code=" + code(q) + "&state=" + q.Get("state") },
		"another code":  func(q url.Values) string { return "code=abc&state=" + q.Get("state") },
		"an error":      func(q url.Values) string { return "error=access_denied&state=" + q.Get("state") },
		"a hostile error": func(q url.Values) string {
			return "error=" + url.QueryEscape("<b>pay here</b>") + "&state=" + q.Get("state")
		},
		"another issuer": func(q url.Values) string {
			return "code=" + code(q) + "&state=" + q.Get("state") + "&iss=" + url.QueryEscape(f.ciURL)
		},
		"a code of another login": func(q url.Values) string {
			return "code=" + code(begun(f.browser())) + "&state=" + q.Get("state")
		},
	} {
		b := f.browser()
		q := begun(b)
		r := b.get("/login/callback?" + query(q))
		if r.code != http.StatusUnauthorized || strings.Contains(r.body, "pay here") {
			t.Errorf("%s: %v", name, r)
		}
		if r := b.get("/approvals"); r.code != http.StatusSeeOther {
			t.Errorf("%s leads in: %v", name, r)
		}
		// It was spent by the attempt.
		if r := b.get("/login/callback?code=" + code(q) + "&state=" + q.Get("state")); r.code != http.StatusUnauthorized {
			t.Errorf("%s, and then the good one: %v", name, r)
		}
	}
	good := "/login/callback?code=" + code(q) + "&state=" + q.Get("state") + "&iss=" + url.QueryEscape(f.idpURL)
	if r := b.get(good); r.code != http.StatusSeeOther || r.header.Get("Location") != "/history" {
		t.Fatal(r)
	}
	if r := b.get(good); r.code != http.StatusUnauthorized {
		t.Errorf("the same answer twice: %v", r)
	}
	if r := b.get("/approvals"); r.code != 200 {
		t.Errorf("the login is gone: %v", r)
	}
	// A login that takes too long, and one that lasted its hour.
	late := f.browser()
	q = begun(late)
	f.wait(loginFor + time.Second)
	if r := late.get("/login/callback?code=" + code(q) + "&state=" + q.Get("state")); r.code != http.StatusUnauthorized {
		t.Errorf("late: %v", r)
	}
	f.wait(sessionFor - loginFor)
	if r := b.get("/approvals"); r.code != http.StatusSeeOther || r.header.Get("Location") != "/login?next=%2Fapprovals" {
		t.Errorf("after an hour: %v", r)
	}
	for _, next := range []string{"//evil.example", "https://evil.example", "/\\evil.example", "/approvals/../../x", "/api/approvals", "/approvals?x=y", "/logout", "javascript:alert(1)", "/link/" + strings.Repeat("x", 300), ""} {
		if got := nextOf(next); got != "/approvals" {
			t.Errorf("after the login to %q", got)
		}
	}
	if strings.Contains(f.log.String(), "id_token") || strings.Contains(f.log.String(), q.Get("state")) {
		t.Error("the log holds a login")
	}
}

// Where people of several issuers review, they choose; one's login is not another's.
func TestSeveralIssuers(t *testing.T) {
	f := newFixture(t)
	f.policy("login", fmt.Sprintf("- {name: dba, issuer: %q, audience: dba-reviews, people: [ana@example.com, dan@example.com]}\n", f.ciURL))
	a := f.ask(0, nil)
	b := f.browser()
	r := b.get("/login?next=/history")
	var ways []string
	each(r.doc, func(n *html.Node) {
		if href := attr(n, "href"); n.Data == "a" && strings.HasPrefix(href, "/login?") {
			ways = append(ways, href)
		}
	})
	if r.code != 200 || len(ways) != 2 || !strings.Contains(ways[1], "dba-reviews") {
		t.Fatalf("the choice: %v", r)
	}
	if r := b.get("/login?issuer=https://evil.example&audience=" + audience); r.url.Path != "/login" {
		t.Errorf("an issuer of the caller's: %v", r)
	}
	if r := b.loginAt(ways[1], "ana@example.com"); r.code != 200 || r.url.Path != "/history" {
		t.Fatal(r)
	}
	// Ana of dba has not proven to be ana of sre.
	if r := b.get("/approvals/" + a.ID); r.code != http.StatusForbidden {
		t.Error(r)
	}
	_, values := b.get("/approvals").form(t, "logout")
	values.Set("verdict", "approve")
	if r := b.post("/approvals/"+a.ID+"/decision", values); r.code != http.StatusForbidden {
		t.Error(r)
	}
	if r := b.loginAt(ways[0], "ana@example.com"); r.code != 200 {
		t.Fatal(r)
	}
	if r := b.press("/approvals/"+a.ID, "approve"); r.code != 200 {
		t.Error(r)
	}
	if r := f.browser().get("/login/callback"); r.code != http.StatusUnauthorized {
		t.Error(r)
	}
}

// What is in a cookie is sealed, for one use, and no longer good than it says.
func TestCookies(t *testing.T) {
	f := newFixture(t)
	ana := f.as("ana@example.com")
	at, err := url.Parse(f.url)
	if err != nil {
		t.Fatal(err)
	}
	good := ana.Jar.Cookies(at)
	if len(good) != 1 || good[0].Name != "sallyport-session" || strings.Count(good[0].Value, ".") != 4 || strings.Contains(good[0].Value, "ana") {
		t.Fatalf("the cookies are %v", good)
	}
	keys := &keyring{read: f.site.secret, now: f.clock}
	seal := func(k *keyring, use string, v any) string {
		t.Helper()
		s, err := k.seal(t.Context(), use, v)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	who := person{Email: "ana@example.com", Subject: "s", Issuer: f.idpURL, Audience: audience, Expires: f.clock().Add(time.Minute)}
	later := who
	later.Expires = f.clock().Add(24 * time.Hour)
	nobody := who
	nobody.Audience = "other"
	other := &keyring{read: func(context.Context) (string, error) { return `{"key": "another key of at least 32 bytes..."}`, nil }, now: f.clock}
	for name, test := range map[string]struct {
		value string
		in    bool
	}{
		"as it was":         {good[0].Value, true},
		"sealed by us":      {seal(keys, forSession, who), true},
		"for a login":       {seal(keys, forLogin, who), false},
		"for a form":        {seal(keys, forForm, who), false},
		"by another secret": {seal(other, forSession, who), false},
		"too long a life":   {seal(keys, forSession, later), false},
		"too large":         {strings.Repeat("a", maxCookie+1), false},
		"nothing":           {"", false},
		"no JWE":            {"a.b.c.d.e", false},
		"changed":           {good[0].Value[:len(good[0].Value)-2] + "AA", false},
		"alg none, in name": {"eyJhbGciOiJub25lIn0." + good[0].Value[strings.Index(good[0].Value, ".")+1:], false},
		"twice":             {good[0].Value + "; sallyport-session=" + good[0].Value, false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/approvals", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Cookie", "sallyport-session="+test.value)
		b := &browser{f, &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
		if r := b.do(req); (r.code == 200) != test.in {
			t.Errorf("%s: %v", name, r)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+"/approvals", nil)
	req.Header.Set("Cookie", "sallyport-session="+seal(keys, forSession, nobody))
	if r := (&browser{f, &http.Client{}}).do(req); r.code != http.StatusForbidden {
		t.Errorf("a login for another audience: %v", r)
	}
	// Behind https the cookie is bound to the host and to https.
	f.site.url = "https://reviews.example.com"
	h, err := newSite(f.site)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, "https://reviews.example.com/login", nil))
	set := rec.Result().Cookies()
	if len(set) != 1 || set[0].Name != "__Host-sallyport-login" || !set[0].Secure || !set[0].HttpOnly || set[0].SameSite != http.SameSiteLaxMode || set[0].Path != "/" || set[0].Domain != "" || set[0].MaxAge != 600 {
		t.Errorf("the cookie is %+v", set)
	}
	if rec.Header().Get("Strict-Transport-Security") == "" || !strings.Contains(rec.Header().Get("Location"), url.QueryEscape("https://reviews.example.com/login/callback")) {
		t.Errorf("headers %v", rec.Header())
	}
}

// Threat A13: an e-mail address in a token is worth what the group's issuer says of it, for the group's audience.
func TestOtherProofs(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	mint := func(i *issuer.Issuer, aud string, extra map[string]any) string {
		t.Helper()
		token, err := i.Mint(issuer.Claims{Subject: "s", Audience: aud, Extra: extra})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	verified := map[string]any{"email": "ana@example.com", "email_verified": true}
	good := mint(f.idp, audience, verified)
	for name, token := range map[string]string{
		"a CI issuer":              mint(f.ci, audience, verified),
		"a CI issuer, as an agent": mint(f.ci, "sallyport", verified),
		"the gate's audience":      mint(f.idp, "sallyport", verified),
		"two audiences":            mint(f.idp, audience, map[string]any{"email": "ana@example.com", "email_verified": true, "aud": []string{audience, "sallyport"}}),
		"not verified":             mint(f.idp, audience, map[string]any{"email": "ana@example.com", "email_verified": false}),
		"not said to be verified":  mint(f.idp, audience, map[string]any{"email": "ana@example.com"}),
		"no address":               mint(f.idp, audience, nil),
		"another address":          mint(f.idp, audience, map[string]any{"email": "ana@example.com.evil.example", "email_verified": true}),
		"expired": func() string {
			x, _ := f.idp.Mint(issuer.Claims{Subject: "s", Audience: audience, Expires: -time.Minute, Extra: verified})
			return x
		}(),
		"nothing":       "",
		"no token":      "abc",
		"a changed one": good[:len(good)-4] + "AAAA",
	} {
		if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", token, `{}`); r.code != http.StatusUnauthorized && r.code != http.StatusForbidden {
			t.Errorf("%s: %v", name, r)
		}
		if r := f.api("GET", "/api/approvals", token, ""); r.code == 200 || !strings.Contains(r.body, `"hint"`) {
			t.Errorf("%s lists: %v", name, r)
		}
	}
	if r := f.api("POST", "/api/approvals/"+a.ID+"/approve", good, `{}`, "Authorization", "Bearer "+good+",Bearer "+good); r.code != http.StatusUnauthorized {
		t.Errorf("two tokens: %v", r)
	}
	// The same at the login.
	for name, change := range map[string]func(map[string]any){
		"not verified":     func(c map[string]any) { c["email_verified"] = false },
		"no nonce":         func(c map[string]any) { delete(c, "nonce") },
		"another nonce":    func(c map[string]any) { c["nonce"] = "x" },
		"another audience": func(c map[string]any) { c["aud"] = "sallyport" },
		"another issuer":   func(c map[string]any) { c["iss"] = f.ciURL },
	} {
		f.mint = change
		b := f.browser()
		if r := b.login("ana@example.com"); r.code != http.StatusUnauthorized && r.code != http.StatusForbidden {
			t.Errorf("a login with %s: %v", name, r)
		}
		if r := b.get("/approvals"); r.url.Path == "/approvals" {
			t.Errorf("a login with %s leads in: %v", name, r)
		}
	}
	f.mint = nil
	if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 {
		t.Errorf("it is %s", got.State)
	}
}
