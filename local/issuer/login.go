package issuer

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	_ "embed"
	"encoding/base64"
	"html/template"
	"net/http"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// codeLife is how long an authorization code is good for, once.
const codeLife = time.Minute

// People are who the login page offers; any other address can be typed.
var People = []string{"ana@example.com", "ben@example.com", "chi@example.com"}

// A grant is what an authorization code stands for.
type grant struct {
	client, redirect, nonce, challenge, email string
	at                                        time.Time
}

// authorization is an authorization request (RFC 6749 §4.1.1, OpenID Connect Core §3.1.2.1), found well-formed as far as
// it says.
type authorization struct {
	Client, Redirect, State, Nonce, Challenge, Scope, Hint string
}

var (
	challengeRE = regexp.MustCompile(`^[A-Za-z0-9_-]{43}$`)                    // base64url of a SHA-256
	verifierRE  = regexp.MustCompile(`^[A-Za-z0-9._~-]{43,128}$`)              // RFC 7636 §4.1
	emailRE     = regexp.MustCompile(`^[^@\s<>,;"]{1,64}@[^@\s<>,;"]{1,255}$`) // what a policy can name
)

// parse reads an authorization request. Where bad is not empty nothing may be sent to Redirect, for it is not known to be
// the client's; where code is not empty, the client is told.
func parse(q url.Values) (a authorization, bad, code, description string) {
	for _, name := range []string{"client_id", "redirect_uri", "response_type", "state", "nonce", "code_challenge", "code_challenge_method", "scope"} {
		if len(q[name]) > 1 {
			return a, name + " is given more than once", "", ""
		}
	}
	a = authorization{Client: q.Get("client_id"), Redirect: q.Get("redirect_uri"), State: q.Get("state"), Nonce: q.Get("nonce"),
		Challenge: q.Get("code_challenge"), Scope: q.Get("scope"), Hint: q.Get("login_hint")}
	u, err := url.Parse(a.Redirect)
	switch {
	case a.Client == "":
		return a, "client_id is missing: it is the audience of the token", "", ""
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Fragment != "" || u.User != nil || !onLoopback(u.Hostname()):
		return a, "redirect_uri must be a page of this machine, such as http://localhost:1234/login", "", ""
	case q.Get("response_type") != "code":
		return a, "", "unsupported_response_type", "response_type must be code"
	case !slices.Contains(strings.Fields(a.Scope), "openid"):
		return a, "", "invalid_scope", "scope must hold openid"
	case q.Get("code_challenge_method") != "S256" || !challengeRE.MatchString(a.Challenge):
		return a, "", "invalid_request", "code_challenge with code_challenge_method S256 is required (RFC 7636)"
	case q.Get("prompt") == "none":
		return a, "", "login_required", "nobody is logged in; this issuer keeps no sessions"
	}
	return a, "", "", ""
}

// onLoopback says whether a host is this machine: a token must not be sent anywhere else.
func onLoopback(host string) bool {
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}

//go:embed login.html
var loginHTML string

//go:embed login.css
var loginCSS []byte

var loginPage = template.Must(template.New("login").Parse(loginHTML))

// authorize is the authorization endpoint: the login page, and what its form posts.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the request cannot be read", http.StatusBadRequest)
		return
	}
	values := r.URL.Query()
	if r.Method == http.MethodPost {
		values = r.PostForm
	}
	a, bad, code, description := parse(values)
	if bad != "" {
		i.page(w, http.StatusBadRequest, a, bad)
		return
	}
	if code != "" {
		redirect(w, r, a, url.Values{"error": {code}, "error_description": {description}})
		return
	}
	if r.Method != http.MethodPost {
		i.page(w, http.StatusOK, a, "")
		return
	}
	email := strings.TrimSpace(values.Get("email"))
	if email == "" {
		email = strings.TrimSpace(values.Get("other"))
	}
	if !emailRE.MatchString(email) {
		i.page(w, http.StatusUnprocessableEntity, a, "Type an e-mail address such as ana@example.com.")
		return
	}
	secret := rand.Text() + rand.Text()
	now := i.now()
	i.mu.Lock()
	for c, g := range i.codes {
		if now.Sub(g.at) > codeLife {
			delete(i.codes, c)
		}
	}
	i.codes[secret] = grant{client: a.Client, redirect: a.Redirect, nonce: a.Nonce, challenge: a.Challenge, email: email, at: now}
	i.mu.Unlock()
	redirect(w, r, a, url.Values{"code": {secret}})
}

// page is the login page, or one that says what is wrong with the request.
func (i *Issuer) page(w http.ResponseWriter, status int, a authorization, problem string) {
	h := w.Header()
	// A browser holds the redirect that answers a form to form-action as well.
	target := ""
	if u, err := url.Parse(a.Redirect); err == nil && onLoopback(u.Hostname()) {
		target = " " + u.Scheme + "://" + u.Host
	}
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"+target)
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = loginPage.Execute(w, map[string]any{"Request": a, "People": People, "Problem": problem, "Broken": status == http.StatusBadRequest, "Issuer": i.URL})
}

func redirect(w http.ResponseWriter, r *http.Request, a authorization, more url.Values) {
	u, _ := url.Parse(a.Redirect) // parse read it
	q := u.Query()
	for name := range more {
		q.Set(name, more.Get(name))
	}
	if a.State != "" {
		q.Set("state", a.State)
	}
	u.RawQuery = q.Encode()
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, u.String(), http.StatusSeeOther)
}

// token is the token endpoint: a code, once, for an ID token (RFC 6749 §4.1.3). Clients are public: PKCE is what proves
// that the one who redeems a code is the one who asked for it.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	refuse := func(status int, code, description string) {
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		w.WriteHeader(status)
		encode(w, map[string]string{"error": code, "error_description": description})
	}
	r.Body = http.MaxBytesReader(w, r.Body, 1<<16)
	if err := r.ParseForm(); err != nil {
		refuse(http.StatusBadRequest, "invalid_request", "the request cannot be read")
		return
	}
	client := r.PostForm.Get("client_id")
	if user, _, ok := r.BasicAuth(); ok { // client_secret_basic is form-encoded (RFC 6749 §2.3.1)
		var err error
		if client, err = url.QueryUnescape(user); err != nil {
			refuse(http.StatusUnauthorized, "invalid_client", "the client id cannot be read")
			return
		}
	}
	if r.PostForm.Get("grant_type") != "authorization_code" {
		refuse(http.StatusBadRequest, "unsupported_grant_type", "grant_type must be authorization_code")
		return
	}
	code := r.PostForm.Get("code")
	i.mu.Lock()
	g, ok := i.codes[code]
	delete(i.codes, code) // whoever shows it: a code that came twice was seen by two
	i.mu.Unlock()
	verifier := r.PostForm.Get("code_verifier")
	sum := sha256.Sum256([]byte(verifier))
	challenge := base64.RawURLEncoding.EncodeToString(sum[:])
	switch {
	case !ok:
		refuse(http.StatusBadRequest, "invalid_grant", "there is no such code, or it was used")
		return
	case i.now().Sub(g.at) > codeLife:
		refuse(http.StatusBadRequest, "invalid_grant", "the code is too old; it is good for one minute")
		return
	case g.client != client:
		refuse(http.StatusBadRequest, "invalid_grant", "the code is another client's")
		return
	case g.redirect != r.PostForm.Get("redirect_uri"):
		refuse(http.StatusBadRequest, "invalid_grant", "redirect_uri is not the one the code was asked for with")
		return
	case !verifierRE.MatchString(verifier) || subtle.ConstantTimeCompare([]byte(challenge), []byte(g.challenge)) != 1:
		refuse(http.StatusBadRequest, "invalid_grant", "code_verifier is not that of the code's challenge")
		return
	}
	extra := person(g.email)
	extra["auth_time"] = g.at.Unix()
	if g.nonce != "" {
		extra["nonce"] = g.nonce
	}
	id, err := i.Mint(Claims{Subject: g.email, Audience: g.client, Extra: extra})
	if err != nil {
		refuse(http.StatusInternalServerError, "server_error", "the token cannot be made")
		return
	}
	answer(w, "no-store", map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "expires_in": 600, "id_token": id})
}

// person are the claims that say who somebody is.
func person(email string) map[string]any {
	return map[string]any{"email": email, "email_verified": true}
}
