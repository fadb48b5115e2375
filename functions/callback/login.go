package main

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// A visitor is who is logged in, seen by today's policy.
type visitor struct {
	voter
	gen     *inforce.Generation
	session string // the cookie's value, which forms are bound to
}

// member is a page for reviewers. Nothing of a cookie is believed but who it names: whether that is somebody is the
// policy's word, every time.
func (s *site) member(h func(http.ResponseWriter, *http.Request, visitor) error) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		v, err := s.visitor(r)
		if access.KindOf(err) == access.Unauthenticated && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			http.Redirect(w, r, loginURL(r.URL.Path), http.StatusSeeOther) //nolint:gosec // to /login, whatever comes behind it
			return nil
		}
		if err != nil {
			return err
		}
		return h(w, r, v)
	}
}

func loginURL(next string) string { return "/login?next=" + url.QueryEscape(next) }

// visitor is who a request's cookie names. The error is of kind unauthenticated when it names nobody, and denied when it
// names somebody who is no reviewer today.
func (s *site) visitor(r *http.Request) (visitor, error) {
	session := s.cookieOf(r, forSession)
	if session == "" {
		return visitor{}, errSeal
	}
	var p person
	if err := s.keys.open(r.Context(), forSession, session, &p); err != nil {
		return visitor{}, err
	}
	if now := s.now(); !now.Before(p.Expires) || p.Expires.After(now.Add(sessionFor+time.Minute)) {
		return visitor{}, errSeal
	}
	g, _, err := s.policies.InForce(r.Context())
	if err != nil {
		return visitor{}, err
	}
	v := visitor{gen: g, session: session}
	v.Reviewer = access.Reviewer{Email: p.Email, Issuer: p.Issuer, Audience: p.Audience, Subject: p.Subject, Channel: "page"}
	v.groups = provenBy(g.Policy, p.Issuer, p.Audience, p.Email)
	if len(v.groups) == 0 {
		return v, access.Errorf(access.Denied, "%s is in no group of reviewers by today's policy; who runs the gate can change that", p.Email)
	}
	return v, nil
}

// A way is one way to log in.
type way struct{ Issuer, Audience string }

// ways are the ways to log in, in the policy's order.
func ways(g *inforce.Generation) []way {
	var all []way
	seen := map[way]bool{}
	for _, group := range g.Policy.Reviewers {
		w := way{group.Issuer, group.Audience}
		if !seen[w] {
			all = append(all, w)
		}
		seen[w] = true
	}
	return all
}

// issuerOf is an issuer of reviewers as the policy trusts it.
func issuerOf(g *inforce.Generation, address string) access.Issuer {
	for _, i := range g.Policy.Issuers {
		if i.URL == address {
			return i
		}
	}
	return access.Issuer{URL: address}
}

var nextRE = regexp.MustCompile(`^/(?:approvals(?:/[a-z2-7]{26})?|history|grants|link/[A-Za-z0-9_-]{1,200})$`)

// nextOf is where to go after the login: one of our own pages, or the list.
func nextOf(s string) string {
	if nextRE.MatchString(s) {
		return s
	}
	return "/approvals"
}

// begin sends a browser to the issuer (RFC 6749 §4.1, RFC 7636, OpenID Connect Core §3.1.2), or asks which one.
func (s *site) begin(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return access.Errorf(access.Method, "a login is begun by a browser")
	}
	ctx := r.Context()
	g, _, err := s.policies.InForce(ctx)
	if err != nil {
		return err
	}
	q := r.URL.Query()
	next, all := nextOf(q.Get("next")), ways(g)
	var chosen *way
	for _, one := range all {
		if len(all) == 1 || one.Issuer == q.Get("issuer") && one.Audience == q.Get("audience") {
			chosen = &one
			break
		}
	}
	switch {
	case len(all) == 0:
		return access.Errorf(access.Denied, "the policy names no reviewers, so nobody can log in; who runs the gate can change that")
	case chosen == nil:
		return s.choose(w, all, next)
	}
	provider, err := s.providers.Provider(ctx, issuerOf(g, chosen.Issuer))
	if err != nil {
		return err
	}
	l := login{State: rand.Text(), Nonce: rand.Text(), Verifier: oauth2.GenerateVerifier(), Issuer: chosen.Issuer, Audience: chosen.Audience, Next: next, Expires: s.now().Add(loginFor)}
	if err := s.setCookie(ctx, w, forLogin, l, loginFor); err != nil {
		return err
	}
	http.Redirect(w, r, s.client(*chosen, provider).AuthCodeURL(l.State, oauth2.S256ChallengeOption(l.Verifier), oauth2.SetAuthURLParam("nonce", l.Nonce)), http.StatusSeeOther)
	return nil
}

// client is this site at an issuer: a public client, which has no secret to lose; PKCE holds its codes together.
func (s *site) client(to way, p identity.Provider) *oauth2.Config {
	return &oauth2.Config{
		ClientID:    to.Audience,
		Endpoint:    oauth2.Endpoint{AuthURL: p.Authorization, TokenURL: p.Token, AuthStyle: oauth2.AuthStyleInParams},
		RedirectURL: s.url + "/login/callback",
		Scopes:      []string{"openid", "email"},
	}
}

var errLogin = access.Errorf(access.Unauthenticated, "this login was not begun in this browser, was finished before, or took longer than ten minutes. Log in again")

// finish takes a browser back from the issuer. It decides nothing about any approval.
func (s *site) finish(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		return access.Errorf(access.Method, "a login is finished by a browser")
	}
	ctx := r.Context()
	var l login
	err := s.keys.open(ctx, forLogin, s.cookieOf(r, forLogin), &l)
	if access.KindOf(err) == access.Unauthenticated {
		return errLogin
	}
	if err != nil {
		return err
	}
	s.dropCookie(w, forLogin) // once, however it ends
	q := r.URL.Query()
	if now := s.now(); !now.Before(l.Expires) || l.State == "" || len(q["state"]) != 1 || !hmac.Equal([]byte(q.Get("state")), []byte(l.State)) {
		return errLogin
	}
	g, _, err := s.policies.InForce(ctx)
	if err != nil {
		return err
	}
	provider, err := s.providers.Provider(ctx, issuerOf(g, l.Issuer))
	if err != nil {
		return err
	}
	// RFC 9207 §2.4: an answer that another issuer gave must not have its code sent to this one.
	if said := q["iss"]; len(said) > 1 || len(said) == 1 && said[0] != l.Issuer || len(said) == 0 && provider.Iss {
		return access.Errorf(access.Unauthenticated, "the answer is not that of the issuer where this login was begun. Log in again")
	}
	if len(q["error"]) > 0 || len(q["code"]) != 1 || q.Get("code") == "" {
		return access.Errorf(access.Unauthenticated, "the issuer did not log you in (%s). Log in again", word(q.Get("error")))
	}
	ctx = context.WithValue(ctx, oauth2.HTTPClient, provider.Client)
	token, err := s.client(way{l.Issuer, l.Audience}, provider).Exchange(ctx, q.Get("code"), oauth2.VerifierOption(l.Verifier))
	if err != nil {
		var said *oauth2.RetrieveError
		if errors.As(err, &said) { // its text quotes the issuer's answer, which may hold anything
			err = errors.New("the issuer answered " + word(said.ErrorCode))
		}
		return access.Errorf(access.Unauthenticated, "the issuer gave no token for this login. Log in again").Because(err)
	}
	id, _ := token.Extra("id_token").(string)
	by, err := g.Reviewer(ctx, id)
	if err != nil {
		return err
	}
	if nonce := nonceOf(id); by.Issuer != l.Issuer || by.Audience != l.Audience || nonce == "" || !hmac.Equal([]byte(nonce), []byte(l.Nonce)) {
		return access.Errorf(access.Unauthenticated, "the issuer's token is not one for this login. Log in again")
	}
	if len(provenBy(g.Policy, by.Issuer, by.Audience, by.Email)) == 0 {
		return access.Errorf(access.Denied, "%s is in no group of reviewers by today's policy; who runs the gate can change that", by.Email)
	}
	// From now on the person's e-mail address is known by their subject, whichever channel an answer comes by.
	if err := s.people.PutKnown(ctx, by.Issuer, by.Subject, by.Email); err != nil {
		return err
	}
	p := person{Email: by.Email, Subject: by.Subject, Issuer: l.Issuer, Audience: l.Audience, Expires: s.now().Add(sessionFor)}
	if err := s.setCookie(ctx, w, forSession, p, sessionFor); err != nil {
		return err
	}
	s.log.InfoContext(ctx, "login", "by", by.Email, "issuer", by.Issuer)
	http.Redirect(w, r, nextOf(l.Next), http.StatusSeeOther)
	return nil
}

// logout forgets who is logged in. A copy of the cookie that somebody made is good until it expires.
func (s *site) logout(w http.ResponseWriter, r *http.Request) error {
	form, err := formOf(w, r)
	if err != nil {
		return err
	}
	if session := s.cookieOf(r, forSession); session != "" {
		if err := s.keys.checkForm(r.Context(), session, form.Get("form")); err != nil {
			return err
		}
	}
	s.dropCookie(w, forSession)
	return s.render(w, http.StatusOK, "said", page{Title: "Logged out", Said: "You are logged out on this browser."})
}

// word is a word of the issuer's that may be shown.
func word(s string) string {
	if wordRE.MatchString(s) {
		return s
	}
	return "no reason"
}

var wordRE = regexp.MustCompile(`^[a-z_]{1,60}$`)

// nonceOf is the nonce of a token that was verified before (OpenID Connect Core §3.1.3.7).
func nonceOf(token string) string {
	var claims struct {
		Nonce string `json:"nonce"`
	}
	if parts := strings.Split(token, "."); len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(payload, &claims) // there is no nonce then
		}
	}
	return claims.Nonce
}

// discovered remembers where people log in for a while.
type discovered struct {
	discover func(context.Context, access.Issuer) (identity.Provider, error)
	now      func() time.Time

	mu  sync.Mutex
	all map[string]found
}

type found struct {
	provider identity.Provider
	private  bool
	until    time.Time
}

// Provider asks the issuer, unless it did so within ten minutes.
func (d *discovered) Provider(ctx context.Context, issuer access.Issuer) (identity.Provider, error) {
	d.mu.Lock()
	f, ok := d.all[issuer.URL]
	d.mu.Unlock()
	now := d.now().Round(0)
	if left := f.until.Sub(now); ok && f.private == issuer.Private && left > 0 && left <= secretEvery {
		return f.provider, nil
	}
	p, err := d.discover(ctx, issuer)
	if err != nil {
		return p, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.all == nil {
		d.all = map[string]found{}
	}
	d.all[issuer.URL] = found{p, issuer.Private, now.Add(secretEvery)}
	return p, nil
}
