// Package gate is a request's way through Sallyport, step by step: route, screen, authenticate, classify, open the
// session, decide, record, forward, record.
//
// It promises that nothing is forwarded which did not pass every step, that every request is recorded whatever became
// of it, and that every refusal is a Kubernetes Status. A request that cannot be recorded is not forwarded. The order
// matters: nothing the caller wrote is believed before its token was verified, and nothing is decided but about the exact target that is
// then forwarded.
package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/proxy/authn"
	"sallyport/proxy/forward"
	"sallyport/proxy/route"
	"sallyport/proxy/session"
	"sallyport/proxy/status"
	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/recording"
)

// MaxBody is the largest request body that is read: the API server's own limit.
const MaxBody = 3 << 20

// bodyTime is how long a caller may take to send a body.
const bodyTime = 60 * time.Second

// Decider decides actions; policy.Policy.
type Decider interface {
	Tier(who access.Principal) (access.Tier, error)
	Decide(who access.Principal, tier string, a access.Action) access.Decision
}

// Recorder records events; recording.Recorder. An error means that the event is not recorded.
type Recorder interface {
	Append(ctx context.Context, stream recording.Stream, ev *auditv1.Event) error
	AppendDurable(ctx context.Context, stream recording.Stream, ev *auditv1.Event) error
	Healthy() error
}

// Observer is told of every request that ended.
type Observer interface {
	Request(verb, effect string, code int, took time.Duration)
	Stream(delta int)
}

// Config is what a Gate is made of. All fields are needed.
type Config struct {
	Clusters *route.Clusters
	Authn    *authn.Authenticator
	Policy   Decider
	Sessions *session.Manager
	Recorder Recorder
	Observer Observer
	Now      func() time.Time
	Log      *slog.Logger
	// TrustForwardedFor takes the caller's address from the last entry of X-Forwarded-For, which a load balancer wrote.
	TrustForwardedFor bool
}

// Gate is the handler of the data path. It is safe for concurrent use.
type Gate struct {
	Config
	forward *forward.Forwarder
	streams atomic.Int64
}

// New returns a Gate.
func New(c Config) *Gate {
	g := &Gate{Config: c}
	g.forward = forward.New(func(w http.ResponseWriter, r *http.Request, err error) { passing(r.Context()).refuse(w, err) }, slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug))
	return g
}

// Streams is how many streams are open.
func (g *Gate) Streams() int64 { return g.streams.Load() }

type passKey struct{}

func passing(ctx context.Context) *pass { return ctx.Value(passKey{}).(*pass) }

// pass is one request on its way. Its facts grow step by step and become the record.
type pass struct {
	gate   *Gate
	facts  recording.Facts
	caller authn.Caller
	live   *session.Live
	cause  error           // what the log may know of a refusal
	open   context.Context // what the request was forwarded in; its cause says why it was cut
	out    *meter
	ended  bool
}

func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := &pass{gate: g, facts: recording.FactsOf(r), out: &meter{ResponseWriter: w}}
	p.facts.ID = uuid.NewString()
	p.facts.Received = g.Now()
	p.facts.Sources = g.sources(r)
	r = r.WithContext(context.WithValue(r.Context(), passKey{}, p))
	p.out.Header().Set("Audit-Id", p.facts.ID)
	defer func() {
		e := recover()
		if err, _ := e.(error); e != nil && !errors.Is(err, http.ErrAbortHandler) {
			p.facts.Error = "the gate itself failed"
			g.Log.Error("panic", "audit_id", p.facts.ID, "panic", fmt.Sprint(e))
			if !p.out.wrote() {
				p.refuse(p.out, errors.New("panic"))
			}
			p.end(auditv1.StagePanic)
			panic(http.ErrAbortHandler)
		}
		if e != nil {
			p.facts.Error = "the answer broke off"
			var why *access.Error
			if p.open != nil && errors.As(context.Cause(p.open), &why) {
				p.facts.Error = why.Message
			}
		}
		p.end(auditv1.StageResponseComplete)
		if e != nil {
			panic(e)
		}
	}()
	if err := p.serve(p.out, r); err != nil {
		p.refuse(p.out, err)
	}
}

// serve takes the steps. An error it returns is a refusal that is yet to be written.
func (p *pass) serve(w http.ResponseWriter, r *http.Request) error {
	g := p.gate
	cluster, target, err := g.Clusters.Find(r)
	if err != nil {
		return err
	}
	p.facts.Cluster, p.facts.URI = cluster.Name, target // the record and the cluster's audit log speak of one path
	if err := screen(r); err != nil {
		return err
	}
	if p.caller, err = g.Authn.Authenticate(r.Context(), r, p.facts.Sources[0]); err != nil {
		return err
	}
	who := p.caller.Principal
	p.facts.Principal = who
	a, err := action.Parse(r.Method, target)
	if err != nil {
		return err
	}
	p.facts.Action = a
	tier, err := g.Policy.Tier(who)
	if err != nil {
		return err
	}
	asks := session.Who{Principal: who, Bearer: p.caller.Bearer, Tier: tier.Name}
	if p.live, err = g.Sessions.Get(r.Context(), asks, cluster); err != nil {
		return err
	}
	p.facts.Session = p.live.Session
	p.facts.Decision = g.Policy.Decide(who, tier.Name, a)
	if d := p.facts.Decision; d.Effect != access.Allow {
		return access.Errorf(access.Denied, "%s", d.Message)
	}
	if err := upgrade(r, a); err != nil {
		if spdy(r) {
			if refused := g.forward.May(r.Context(), forward.Request{Live: p.live, Action: a, AuditID: p.facts.ID + "-may"}); refused != nil {
				return refused
			}
		}
		return err
	}
	body, err := read(w, r)
	if err != nil {
		return err
	}
	if err := p.begin(r.Context()); err != nil {
		return err
	}
	// Whatever was opened with the token ends with it, and with the session.
	ends, ended := p.caller.Expires, "your token expired, and what was opened with it ended"
	if p.live.Session.Ends.Before(ends) {
		ends, ended = p.live.Session.Ends, "the session reached its longest time and ended"
	}
	ctx, cancel := context.WithDeadlineCause(r.Context(), ends, access.Errorf(access.Unauthenticated, "%s; ask again", ended))
	defer cancel()
	p.open = ctx
	if a.Stream {
		g.streams.Add(1)
		g.Observer.Stream(1)
		defer func() { g.streams.Add(-1); g.Observer.Stream(-1) }()
	}
	return g.forward.Forward(w, r.WithContext(ctx), forward.Request{
		Live: p.live, Action: a, Target: target, Body: io.NopCloser(bytes.NewReader(body)), Length: int64(len(body)), AuditID: p.facts.ID,
		Rejected: func() { g.Sessions.Rejected(asks, cluster, p.live) },
	})
}

// screen refuses what no caller may send, whoever it is.
func screen(r *http.Request) error {
	for name := range r.Header {
		if strings.HasPrefix(strings.ToLower(name), "impersonate-") {
			return access.Errorf(access.Denied, "impersonation headers are not carried: the gate forwards you as yourself")
		}
	}
	if v := r.Header.Values("Content-Encoding"); len(v) > 0 && (len(v) > 1 || !strings.EqualFold(v[0], "identity")) {
		return access.Errorf(access.Media, "a compressed request body is not read; send it as it is")
	}
	if r.ContentLength > MaxBody {
		return access.Errorf(access.TooLarge, "the request body has %d bytes; %d is the limit", r.ContentLength, MaxBody)
	}
	return nil
}

// upgrade refuses any change of protocol but to WebSocket, on the three subresources that need one. It comes after the
// decision: kubectl falls back to SPDY when its WebSocket was refused, and must hear the decision then.
func upgrade(r *http.Request, a access.Action) error {
	asked := r.Header.Values("Upgrade")
	switch {
	case len(asked) == 0 && !a.Upgrade:
		return nil
	case !a.Upgrade:
		return access.Errorf(access.Invalid, "nothing but exec, attach and port-forward may upgrade its connection")
	case spdy(r):
		return access.Errorf(access.Invalid, "%s over SPDY is not carried by this gate, as load balancers do not carry it; use WebSocket: kubectl 1.31 or newer does by itself (unset KUBECTL_REMOTE_COMMAND_WEBSOCKETS and KUBECTL_PORT_FORWARD_WEBSOCKETS)", a.Verb)
	case len(asked) != 1 || !strings.EqualFold(asked[0], "websocket") || r.Method != http.MethodGet || r.ProtoMajor != 1:
		return access.Errorf(access.Invalid, "%s needs a WebSocket upgrade (RFC 6455), asked for with GET over HTTP/1.1", a.Verb)
	}
	return nil
}

// spdy says whether a request asks for the protocol kubectl used before 1.31, and falls back to.
func spdy(r *http.Request) bool {
	asked := r.Header.Values("Upgrade")
	return len(asked) == 1 && strings.HasPrefix(strings.ToLower(asked[0]), "spdy/")
}

// read takes the whole body before anything is decided to be forwarded: bounded in size and time.
func read(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTime))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, access.Errorf(access.TooLarge, "the request body is larger than %d bytes", MaxBody)
	case err != nil:
		return nil, access.Errorf(access.Invalid, "the request body did not arrive whole").Because(err)
	}
	return b, nil
}

// begin makes sure that what is about to be forwarded can be recorded. For exec, attach and port-forward, which can
// change anything, it returns only when the intent is stored.
func (p *pass) begin(ctx context.Context) error {
	if err := p.gate.Recorder.Healthy(); err != nil {
		return err
	}
	switch {
	case p.facts.Action.Upgrade:
		return p.gate.Recorder.AppendDurable(ctx, p.stream(), p.event(auditv1.StageRequestReceived))
	case p.facts.Action.Stream:
		return p.gate.Recorder.Append(ctx, p.stream(), p.event(auditv1.StageResponseStarted))
	}
	return nil
}

// refuse answers with a Status. It must be called at most once, and not after an answer began.
func (p *pass) refuse(w http.ResponseWriter, err error) {
	if p.out.wrote() {
		panic(http.ErrAbortHandler)
	}
	e := access.AsError(err)
	p.cause = e.Cause
	s := status.Write(w, e)
	p.facts.Reason, p.facts.Message = s.Reason, s.Message
}

// end records how the request ended. The caller has its answer by then, so what cannot be recorded is said in the log,
// and the recorder, which is not healthy then, refuses the next request.
func (p *pass) end(stage auditv1.Stage) {
	if p.ended {
		return
	}
	p.ended = true
	p.facts.Code, p.facts.Sent = p.out.result()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	g, f := p.gate, &p.facts
	if err := g.Recorder.Append(ctx, p.stream(), p.event(stage)); err != nil {
		g.Log.Error("a request was not recorded", "audit_id", f.ID, "error", err.Error())
	}
	effect := string(f.Decision.Effect)
	if effect == "" {
		effect = "refused"
	}
	took := g.Now().Sub(f.Received)
	g.Observer.Request(f.Action.Verb, effect, f.Code, took)
	if p.cause != nil {
		g.Log.Warn("refused", "audit_id", f.ID, "code", f.Code, "cluster", f.Cluster, "agent", f.Principal.Agent, "message", f.Message, "cause", p.cause.Error())
	}
}

func (p *pass) event(stage auditv1.Stage) *auditv1.Event {
	p.facts.Stage, p.facts.At = stage, p.gate.Now()
	return recording.Event(p.facts)
}

func (p *pass) stream() recording.Stream {
	return recording.Stream{Cluster: p.facts.Cluster, Session: p.facts.Session.ID}
}

// sources are the caller's addresses; the first is what limits count against.
func (g *Gate) sources(r *http.Request) []string {
	peer, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		peer = r.RemoteAddr
	}
	if g.TrustForwardedFor {
		if v := r.Header.Values("X-Forwarded-For"); len(v) > 0 {
			parts := strings.Split(v[len(v)-1], ",")
			return []string{strings.TrimSpace(parts[len(parts)-1]), peer}
		}
	}
	return []string{peer}
}
