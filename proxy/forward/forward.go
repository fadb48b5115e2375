// Package forward sends a decided request to the cluster and its answer back.
//
// What goes up is built from nothing: the target that was classified, an allow-list of headers by exact name, the body
// that was read, and the session's token. Nothing the caller sent, a Connection header that names Authorization, an
// X-Remote-User, an Impersonate-User, can take a header away or add one; the last step before the wire checks it once
// more. What comes down is not trusted either: redirects are not followed and not passed on, a refusal of the gate's own
// token is not taken for one of the caller's, and a Retry-After that would make a client write twice is taken off.
package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptrace"
	"net/http/httputil"
	"net/textproto"
	"net/url"
	"strings"
	"sync"
	"time"

	"sallyport/proxy/authn"
	"sallyport/proxy/session"
	"sallyport/shared/access"
)

// Headers are what is forwarded of a request's headers, by exact name.
var Headers = []string{
	"Accept", "Content-Type", "User-Agent",
	"If-Match", "If-Modified-Since", "If-None-Match", "If-Unmodified-Since",
	"Kubectl-Command", "Kubectl-Session",
}

// UpgradeHeaders are forwarded in addition when a request upgrades. Extensions are not offered: what is compressed cannot
// be masked. Sec-WebSocket-Protocol is rebuilt without bearers.
var UpgradeHeaders = []string{"Sec-Websocket-Key", "Sec-Websocket-Version", "X-Stream-Protocol-Version"}

// ours are the headers the gate sets itself.
var ours = []string{"Authorization", "Accept-Encoding", "Audit-Id", "Connection", "Upgrade", "Sec-Websocket-Protocol"}

var allowed = func() map[string]bool {
	m := map[string]bool{}
	for _, list := range [][]string{Headers, UpgradeHeaders, ours} {
		for _, h := range list {
			m[textproto.CanonicalMIMEHeaderKey(h)] = true
		}
	}
	return m
}()

// Request is one request as it is to be forwarded.
type Request struct {
	Live    *session.Live
	Action  access.Action
	Target  string // path and query, exactly as classified
	Body    []byte
	Media   string // the body's Content-Type, where it is not the caller's: the body was written anew
	AuditID string // names the request in the gate's record and, as Audit-ID, in the cluster's audit log
	// Approved is true of a request that people let through once. To send it back for another try would ask them again, so
	// what the cluster certainly did not do is tried again here, for a little while, and no answer carries a Retry-After.
	Approved bool
	// Masking is how the answer is masked; nil for what no object is in.
	Masking *Masking
	// Broken, when it is set, is called with why the answer breaks off in its middle; that of an upgrade from any goroutine.
	Broken func(error)
	// Answered, when it is set, is called with the status of an answer before it is passed on.
	Answered func(code int)
	// Rejected is called when the cluster does not accept the session's token.
	Rejected func()
	// Again, when it is set, is called when the cluster answers 409: the body carried the version of the object it was
	// judged on, and that has changed. Nothing was done then, and the body it returns is sent instead, a few times at
	// most. An error is a refusal, and a nil body passes the 409 on.
	Again func(context.Context) ([]byte, error)
}

// Forwarder forwards requests. It is safe for concurrent use.
type Forwarder struct {
	proxy *httputil.ReverseProxy
}

// New returns a Forwarder. refuse writes a refusal to the caller.
func New(refuse func(http.ResponseWriter, *http.Request, error), logger *log.Logger) *Forwarder {
	f := &Forwarder{}
	f.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      transport{},
		FlushInterval:  -1, // watch events and log lines are passed on as they come; see unhurried for the others
		BufferPool:     &buffers{pool: sync.Pool{New: func() any { return new([32 << 10]byte) }}},
		ModifyResponse: screen,
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			of(r.Context()).refused = true
			refuse(w, r, explain(r, err))
		},
		ErrorLog: logger,
	}
	return f
}

type contextKey struct{}

// state travels with one request.
type state struct {
	Request
	token  string
	accept []string // of what is masked
	sent   bool     // a connection was had, so the cluster may have seen the request and done what it asks
	// refused says that the caller was given a refusal of ours instead of an answer.
	refused bool
}

func of(ctx context.Context) *state { return ctx.Value(contextKey{}).(*state) }

// Forward sends req and copies the answer to w. Refusals, and whatever keeps the request from being forwarded, go to
// the refuse function. It panics with http.ErrAbortHandler when an answer breaks off half-way, so that the caller's
// connection does too and nobody takes half an answer for a whole one.
func (f *Forwarder) Forward(w http.ResponseWriter, r *http.Request, req Request) error {
	token, err := req.Live.Token(r.Context())
	if err != nil {
		return err
	}
	s := &state{Request: req, token: token}
	if req.Masking != nil {
		if s.accept, err = Accepts(r.Header); err != nil {
			return err
		}
	}
	ctx := context.WithValue(r.Context(), contextKey{}, s)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { s.sent = true }})
	if !req.Action.Stream {
		u := &unhurried{ResponseWriter: w}
		defer u.end()
		w = u
	}
	f.proxy.ServeHTTP(w, r.WithContext(ctx))
	if ctx.Err() != nil && !s.refused {
		// The request was cut. The cluster may have taken our hanging up for the end and finished its answer in the
		// moment that was left, and a cut answer must not end like a whole one.
		panic(http.ErrAbortHandler)
	}
	return nil
}

func rewrite(p *httputil.ProxyRequest) {
	s := of(p.In.Context())
	path, query, asked := strings.Cut(s.Target, "?")
	p.Out.URL = &url.URL{Scheme: "https", Host: s.Live.Base.Host, Path: path, RawPath: path, RawQuery: query, ForceQuery: asked && query == ""}
	p.Out.Host = s.Live.Base.Host
	p.Out.Header = header(p.In.Header, s)
	p.Out.Body, p.Out.ContentLength = io.NopCloser(bytes.NewReader(s.Body)), int64(len(s.Body))
	if len(s.Body) == 0 {
		p.Out.Body = http.NoBody
	}
	p.Out.TransferEncoding, p.Out.Trailer = nil, nil
}

func header(in http.Header, s *state) http.Header {
	out := http.Header{}
	keep := func(names []string) {
		for _, name := range names {
			if v := in.Values(name); len(v) > 0 {
				out[textproto.CanonicalMIMEHeaderKey(name)] = v
			}
		}
	}
	keep(Headers)
	if s.Media != "" {
		out["Content-Type"] = []string{s.Media}
	}
	if s.Masking != nil {
		out["Accept"] = s.accept
	}
	if isWhoami(s.Action) {
		out["Accept"] = []string{"application/json"}
	}
	if out["User-Agent"] == nil {
		out["User-Agent"] = []string{""} // or net/http would put its own name there
	}
	if s.Action.Upgrade {
		keep(UpgradeHeaders)
		out["Connection"], out["Upgrade"] = []string{"Upgrade"}, []string{"websocket"}
		if p := authn.PublicProtocols(in); len(p) > 0 {
			out["Sec-Websocket-Protocol"] = []string{strings.Join(p, ", ")}
		}
	}
	out["Accept-Encoding"] = []string{"identity"}
	out["Audit-Id"] = []string{s.AuditID}
	out["Authorization"] = []string{"Bearer " + s.token}
	return out
}

// check holds what is about to be sent against what was decided. It can only fail by a mistake of ours.
func check(r *http.Request, s *state) error {
	if auth := r.Header["Authorization"]; len(auth) != 1 || auth[0] != "Bearer "+s.token || s.token == "" {
		return access.Errorf(access.Internal, "the request would not have carried the session's credential; it was not forwarded")
	}
	for name := range r.Header {
		if !allowed[name] {
			return access.Errorf(access.Internal, "the request would have carried a header that is not on the list; it was not forwarded")
		}
	}
	if r.URL.Host != s.Live.Base.Host || r.URL.Scheme != "https" || r.URL.RequestURI() != s.Target {
		return access.Errorf(access.Internal, "the request would have been another one than was decided; it was not forwarded")
	}
	return nil
}

// screen looks at an answer before any of it reaches the caller.
func screen(res *http.Response) error {
	s := of(res.Request.Context())
	h := res.Header
	switch code := res.StatusCode; {
	case code == http.StatusSwitchingProtocols:
		if !s.Action.Upgrade || !strings.EqualFold(h.Get("Upgrade"), "websocket") {
			return access.Errorf(access.Upstream, "the cluster switched to a protocol nobody asked for; the connection was closed")
		}
	case code < 200:
		return access.Errorf(access.Upstream, "the cluster answered %d, which was not asked for", code)
	case code == http.StatusUnauthorized:
		s.Rejected()
		return s.again(access.Errorf(access.Unavailable, "the cluster did not accept the gate's credential for tier %q; your own token is not the cause. Ask again, and if it stays so, whoever runs the gate: the tier's access entry may be missing", s.Live.Session.Tier))
	case code >= 300 && code < 400 && code != http.StatusNotModified:
		return access.Errorf(access.Upstream, "the cluster answered with a redirect, which the gate does not follow")
	case s.Action.Upgrade:
		// An upgrade that failed: this connection is never used again, on either side (CVE-2018-1002105).
		h.Set("Connection", "close")
	}
	// Audit-Id is the gate's to send, and it sent the same one.
	for _, name := range []string{"Audit-Id", "Set-Cookie", "Www-Authenticate", "Alt-Svc", "Strict-Transport-Security"} {
		h.Del(name)
	}
	if isWhoami(s.Action) {
		if err := withoutKeyID(res); err != nil {
			return err
		}
	}
	if err := s.mask(res); err != nil {
		return err
	}
	res.Body = cuttable(res.Request.Context(), res.Body)
	if !reads[s.Action.Verb] || s.Approved {
		h.Del("Retry-After") // the cluster has seen the request: a client must not send it twice
	}
	if s.Answered != nil {
		s.Answered(res.StatusCode)
	}
	return nil
}

var reads = map[string]bool{"get": true, "list": true, "watch": true, "reveal": true}

// again lets the caller send the request again by itself, unless people let it through: they would be asked anew.
func (s *state) again(e *access.Error) *access.Error {
	if s.Approved {
		e.Message += "; the approval is used up by this try"
		return e
	}
	return e.After(2 * time.Second)
}

// explain turns what went wrong into an answer. Only a request that certainly never left may be sent again.
func explain(r *http.Request, err error) error {
	var ours *access.Error
	if errors.As(err, &ours) {
		return ours
	}
	s := of(r.Context())
	if cause := context.Cause(r.Context()); cause != nil && errors.As(cause, &ours) {
		return ours
	}
	name := s.Live.Session.Cluster
	if !s.sent {
		return s.again(access.Errorf(access.Unavailable, "cluster %q cannot be reached; nothing was forwarded, ask again", name).Because(fmt.Errorf("forwarding: %w", err)))
	}
	if reads[s.Action.Verb] {
		return s.again(access.Errorf(access.Unavailable, "cluster %q did not answer; ask again", name).Because(fmt.Errorf("forwarding: %w", err)))
	}
	return access.Errorf(access.Unavailable, "cluster %q was sent the request and did not answer: the outcome is unknown; look before you ask again", name).Because(fmt.Errorf("forwarding: %w", err))
}

type buffers struct{ pool sync.Pool }

func (b *buffers) Get() []byte { return b.pool.Get().(*[32 << 10]byte)[:] }

func (b *buffers) Put(x []byte) { b.pool.Put((*[32 << 10]byte)(x)) }
