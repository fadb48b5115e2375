package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	api "github.com/slack-go/slack"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
	"sallyport/shared/slack"
	"sallyport/shared/store"
)

// What is read of a body, in bytes.
const (
	maxForm  = 64 << 10
	maxAPI   = 16 << 10
	maxSlack = 1 << 20 // Slack sends the whole message back with a button
)

// policies finds the policy in force; inforce.Keeper. The error is of kind unavailable.
type policies interface {
	InForce(ctx context.Context) (*inforce.Generation, *wire.Refusal, error)
}

// approvals keeps approvals; store.Approvals. Update calls change again when somebody else was first.
type approvals interface {
	Get(ctx context.Context, id string) (access.Approval, error)
	View(ctx context.Context, id string) (access.View, error)
	List(ctx context.Context, pending bool, limit int, before time.Time) ([]access.Approval, error)
	Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error)
}

// kept is what belongs to approvals; store.Approvals. UseLink and Once are conditional writes: of any number of callers one
// is the first.
type kept interface {
	Task(ctx context.Context, id string) (string, bool, error)
	Link(ctx context.Context, hash string) (store.Link, bool, error)
	UseLink(ctx context.Context, hash string, now time.Time) error
	Once(ctx context.Context, key string, until time.Time) (first bool, err error)
}

// people remembers which e-mail address a subject of an issuer has proven; store.Approvals.
type people interface {
	PutKnown(ctx context.Context, issuer, subject, email string) error
	Known(ctx context.Context, issuer, subject string) (string, bool, error)
}

// workflow ends the task that waits for an answer. An error that is errLate says that nothing waits any more.
type workflow interface {
	Succeed(ctx context.Context, token, output string) error
}

var errLate = errors.New("nothing waits for this answer any more")

// chat is Slack. Nothing in it decides.
type chat interface {
	Secret(ctx context.Context) (slack.Secret, error)
	Open(ctx context.Context, trigger string, view api.ModalViewRequest) error
	Tell(ctx context.Context, channel, user, text string) error // to that one user
}

// providers finds where an issuer's people log in; identity.Discover, with a memory.
type providers interface {
	Provider(ctx context.Context, issuer access.Issuer) (identity.Provider, error)
}

// siteConfig is what a site is made of.
type siteConfig struct {
	policies  policies
	approvals approvals
	kept      kept
	people    people
	workflow  workflow
	chat      chat // nil when Slack is not configured
	providers providers
	secret    func(context.Context) (string, error) // the pages' secret
	url       string                                // where the pages are, without a slash at the end
	now       func() time.Time
	log       *slog.Logger
}

// A site is the handler of all that reviewers do.
type site struct {
	siteConfig
	keys   *keyring
	secure bool // behind https
	pages  map[string]*template.Template
	style  style
}

// newSite returns the handler.
func newSite(c siteConfig) (http.Handler, error) {
	u, err := url.Parse(c.url)
	switch {
	case err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "":
		return nil, access.Errorf(access.Invalid, "SALLYPORT_REVIEWS_URL %q is no address; write one like https://reviews.example.com", c.url)
	case u.Path != "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, access.Errorf(access.Invalid, "SALLYPORT_REVIEWS_URL %q has more than a scheme and a host; the pages are at the root of a host of their own", c.url)
	}
	s := &site{siteConfig: c, secure: u.Scheme == "https", keys: &keyring{read: c.secret, now: c.now}}
	if s.pages, s.style, err = load(); err != nil {
		return nil, err
	}
	crossOrigin := http.NewCrossOriginProtection()
	if err := crossOrigin.AddTrustedOrigin(u.Scheme + "://" + u.Host); err != nil {
		return nil, err
	}
	crossOrigin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.fail(w, r, access.Errorf(access.Denied, "another site sent you here with a form of its own. Nothing was changed"))
	}))
	return s.safe(crossOrigin.Handler(s.routes())), nil
}

func (s *site) routes() http.Handler {
	mux := http.NewServeMux()
	page := func(pattern string, h func(http.ResponseWriter, *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := h(w, r); err != nil {
				s.fail(w, r, err)
			}
		})
	}
	page("GET /{$}", func(w http.ResponseWriter, r *http.Request) error {
		http.Redirect(w, r, "/approvals", http.StatusSeeOther)
		return nil
	})
	page("GET /approvals", s.member(s.pending))
	page("GET /approvals/{id}", s.member(s.approval))
	page("POST /approvals/{id}/decision", s.member(s.decision))
	page("POST /approvals/{id}/revoke", s.member(s.revocation))
	page("GET /history", s.member(s.history))
	page("GET /grants", s.member(s.grants))
	page("GET /login", s.begin)
	page("GET /login/callback", s.finish)
	page("POST /logout", s.logout)
	page("GET /link/{token}", s.followed)
	page("POST /link/{token}", s.posted)
	mux.HandleFunc("GET "+s.style.path, s.style.serve)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	mux.HandleFunc("POST /slack/interactions", s.interaction)

	page("GET /api/approvals", s.bearer(s.apiList))
	page("GET /api/approvals/{id}", s.bearer(s.apiShow))
	page("POST /api/approvals/{id}/approve", s.bearer(s.apiApprove))
	page("POST /api/approvals/{id}/deny", s.bearer(s.apiDeny))
	page("POST /api/approvals/{id}/revoke", s.bearer(s.apiRevoke))

	// What no route takes is told apart here, so that it looks like everything else: the mux knows which methods there are.
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h, pattern := mux.Handler(r); pattern == "" {
			probe := &probe{header: http.Header{}}
			h.ServeHTTP(probe, r)
			if probe.code == http.StatusMethodNotAllowed {
				w.Header().Set("Allow", probe.header.Get("Allow"))
				s.fail(w, r, access.Errorf(access.Method, "%s is not done here", r.Method))
				return
			}
			s.fail(w, r, access.Errorf(access.NotFound, "there is no such page"))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// probe is a ResponseWriter that remembers the code alone.
type probe struct {
	header http.Header
	code   int
}

func (p *probe) Header() http.Header         { return p.header }
func (p *probe) Write(b []byte) (int, error) { return len(b), nil }
func (p *probe) WriteHeader(code int)        { p.code = code }

// safe puts what every answer has around a handler, and turns a panic into an answer: in Lambda nothing else would.
func (s *site) safe(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		// No script runs here, whatever finds its way into a page. A form goes nowhere else.
		head.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		head.Set("Cache-Control", "no-store")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("X-Frame-Options", "DENY")
		head.Set("Referrer-Policy", "no-referrer") // an address may hold a link's token
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		if s.secure {
			head.Set("Strict-Transport-Security", "max-age=31536000")
		}
		defer func() {
			if v := recover(); v != nil {
				s.log.ErrorContext(r.Context(), "panic", "method", r.Method, "route", r.Pattern, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
				s.fail(w, r, errors.New("panic"))
			}
		}()
		if r.Method == http.MethodHead {
			w = headWriter{w}
		}
		h.ServeHTTP(w, r)
	})
}

// headWriter leaves the body out: API Gateway would not.
type headWriter struct{ http.ResponseWriter }

func (w headWriter) Write(b []byte) (int, error) {
	_, err := w.ResponseWriter.Write(nil)
	return len(b), err
}

// codes is the one place where kinds become HTTP codes here.
var codes = map[access.Kind]int{
	access.Invalid:         http.StatusBadRequest,
	access.Method:          http.StatusMethodNotAllowed,
	access.TooLarge:        http.StatusRequestEntityTooLarge,
	access.Media:           http.StatusUnsupportedMediaType,
	access.Unauthenticated: http.StatusUnauthorized,
	access.Denied:          http.StatusForbidden,
	access.NotFound:        http.StatusNotFound,
	access.Conflict:        http.StatusConflict,
	access.Limited:         http.StatusTooManyRequests,
	access.Unavailable:     http.StatusServiceUnavailable,
}

func codeOf(e *access.Error) int {
	if code := codes[e.Kind]; code != 0 {
		return code
	}
	return http.StatusInternalServerError
}

// errorOf is err as it is shown: what is not one of ours shows nothing of itself.
func errorOf(err error) *access.Error {
	var e *access.Error
	if errors.As(err, &e) {
		return e
	}
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return access.Errorf(access.TooLarge, "more than %d bytes were sent; nothing was done", large.Limit)
	}
	return &access.Error{Kind: access.Internal, Message: "this page made a mistake. Look at the approval before you try again; the operator finds the cause in the log of function callback", Cause: err}
}

// fail answers with an error: as JSON to programs, as a page to people.
func (s *site) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := errorOf(err)
	if e.Cause != nil || e.Kind == access.Internal {
		cause := ""
		if e.Cause != nil {
			cause = e.Cause.Error()
		}
		s.log.ErrorContext(r.Context(), "error", "method", r.Method, "route", r.Pattern, "kind", e.Kind, "message", e.Message, "cause", cause)
	}
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int64((e.RetryAfter+time.Second-1)/time.Second)))
	}
	if strings.HasPrefix(r.URL.Path, "/api/") || strings.HasPrefix(r.URL.Path, "/slack/") {
		if e.Kind == access.Unauthenticated {
			w.Header().Set("WWW-Authenticate", "Bearer") // RFC 9110 §11.6.1
		}
		s.json(w, codeOf(e), map[string]any{"error": e.Kind, "message": e.Message, "hint": hint(e)})
		return
	}
	s.failPage(w, r, e, err)
}

// hint is what to do next.
func hint(e *access.Error) string {
	switch e.Kind {
	case access.Unauthenticated:
		return "send a reviewer's own token, of the issuer and audience of a reviewer group of the policy, as Authorization: Bearer …"
	case access.Denied:
		return "the policy says who may answer; who runs the gate can change it"
	case access.NotFound:
		return "list what there is with GET /api/approvals?state=pending"
	case access.Conflict:
		return "look at the approval: GET /api/approvals/{id}"
	case access.Unavailable, access.Limited:
		return "look at the approval before you ask again: GET /api/approvals/{id}"
	case access.Method, access.Media, access.TooLarge, access.Invalid:
		return `decisions are POST /api/approvals/{id}/approve {"scope", "length", "reason"}, …/deny {"reason"} and …/revoke {"reason"}`
	}
	return "look at the approval; the operator finds the cause in the log of function callback"
}

func (s *site) json(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(true)
	_ = enc.Encode(v) // an error is the client gone
}

var idRE = regexp.MustCompile(`^[a-z2-7]{26}$`)

// idOf is the approval a path is about.
func idOf(r *http.Request) (string, error) {
	id := r.PathValue("id")
	if !idRE.MatchString(id) {
		return "", access.Errorf(access.NotFound, "there is no such approval")
	}
	return id, nil
}

// body reads a body whole, up to a limit.
func body(w http.ResponseWriter, r *http.Request, limit int64) ([]byte, error) {
	return io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
}

// formOf reads a form that was posted. Of a field that is there twice nothing is taken.
func formOf(w http.ResponseWriter, r *http.Request) (url.Values, error) {
	if t, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(t), "application/x-www-form-urlencoded") {
		return nil, access.Errorf(access.Media, "a form is wanted here")
	}
	b, err := body(w, r, maxForm)
	if err != nil {
		return nil, err
	}
	form, err := url.ParseQuery(string(b))
	if err != nil {
		return nil, access.Errorf(access.Invalid, "this is no form that can be read")
	}
	for name, values := range form {
		if len(values) != 1 {
			return nil, access.Errorf(access.Invalid, "the form says %q more than once", short(name))
		}
	}
	return form, nil
}

func short(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return s
}

// A voter is a reviewer, and the groups of today's policy that they have proven to be of.
type voter struct {
	access.Reviewer
	groups []string
}

// provenBy are the groups that a login at that issuer, for that audience, proves the person to be of.
func provenBy(p *policy.Policy, issuer, audience, email string) []string {
	var groups []string
	for _, g := range p.Reviewers {
		if g.Issuer == issuer && g.Audience == audience && has(g.People, email) {
			groups = append(groups, g.Name)
		}
	}
	return groups
}

func has(people []string, email string) bool {
	return email != "" && slices.ContainsFunc(people, func(who string) bool { return strings.EqualFold(who, email) })
}

// concerns says whether an approval is, or may come to be, one of those groups' business.
func concerns(a access.Approval, groups []string) bool {
	o := a.Decision.Obligations
	for _, g := range groups {
		if slices.Contains(a.Reviewers, g) || slices.Contains(o.Reviewers, g) || slices.Contains(o.Escalate.Reviewers, g) {
			return true
		}
	}
	return false
}

// anyOf names groups, any of which will do.
func anyOf(groups []string) string {
	if len(groups) == 0 {
		return "nobody"
	}
	return strings.Join(groups, " or ")
}
