// Package gate is a request's way through Sallyport, step by step: route, screen, authenticate, classify, open the
// session, read the body, decide, record, forward, record. Where the policy asks people, there is more between decide and
// record: look at the object in the cluster, have people asked, wait for their answer, decide again, record, redeem the
// answer for a credential.
//
// It promises that nothing is forwarded which did not pass every step, that every request is recorded whatever became
// of it, and that every refusal is a Kubernetes Status. A request that cannot be recorded is not forwarded. The order
// matters: nothing the caller wrote is believed before its token was verified, and nothing is decided but about the exact target that is
// then forwarded. No answer with an object in it reaches the caller but through package mask, in the one form that is
// masked; what cannot be masked is not passed on, and a write that carries a mask is not forwarded.
//
// Of a request that asks it promises more. While it waits, nothing of it is in the cluster. What is decided before the wait
// is decided again after it, by the policy of then and about the object of then. The record of what is about to happen is
// durable before the yes is used up, so that a yes is not lost to a recorder that is away; and the yes is used up before
// anything is forwarded, so that of many equal requests one passes. The credential it was exchanged for is this request's
// alone. Whatever the cluster answers, the caller's client is never told to send such a request again by itself.
//
// It does not promise that the broker agrees. The broker computes everything anew from the raw request, and what it
// refuses is not forwarded, whatever was decided here.
package gate

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/proxy/authn"
	"sallyport/proxy/desk"
	"sallyport/proxy/forward"
	"sallyport/proxy/mask/back"
	"sallyport/proxy/rules"
	"sallyport/proxy/session"
	"sallyport/proxy/status"
	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/broker"
	"sallyport/shared/recording"
)

// MaxBody is the largest request body that is read: the API server's own limit.
const MaxBody = 3 << 20

// bodyTime is how long a caller may take to send a body.
const bodyTime = 60 * time.Second

// leftover is how long the rest of a refused request's body is waited for.
const leftover = 2 * time.Second

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
	// Waiting is told of requests that begin and cease to wait for people.
	Waiting(delta int)
	// Approval is told how a request that asked people came out of asking: the approval's state then.
	Approval(state access.ApprovalState)
	// Redeemed is told of every redemption that ended.
	Redeemed(took time.Duration, err error)
	// Released is told how long a request that was let through took from then to the cluster.
	Released(took time.Duration)
}

// Hold is how long a request is held that waits for people, unless the Config says otherwise.
const Hold = 50 * time.Second

// Config is what a Gate is made of. All fields but Hold are needed.
type Config struct {
	// Rules is the policy in force and what follows from it. A request is served by one generation from first to last.
	Rules    func() *rules.Generation
	Sessions *session.Manager
	Reviews  Reviews
	Redeemer Redeemer
	Desk     *desk.Desk
	// Hold is how long a request is held that waits for people, before its client is told to send it again; 50 s by default,
	// which is less than what lies between client and gate keeps a silent connection.
	Hold     time.Duration
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
	open    streams
	bodies  held
	waiting waiters
}

// New returns a Gate.
func New(c Config) *Gate {
	g := &Gate{Config: c}
	if g.Hold == 0 {
		g.Hold = Hold
	}
	g.forward = forward.New(func(w http.ResponseWriter, r *http.Request, err error) { passing(r.Context()).refuse(w, err) }, slog.NewLogLogger(c.Log.Handler(), slog.LevelDebug))
	return g
}

// Streams is how many streams are open.
func (g *Gate) Streams() int { return g.open.len() }

type passKey struct{}

func passing(ctx context.Context) *pass { return ctx.Value(passKey{}).(*pass) }

// pass is one request on its way. Its facts grow step by step and become the record.
type pass struct {
	gate    *Gate
	rules   *rules.Generation
	cluster access.Cluster
	facts   recording.Facts
	wishes  wishes
	caller  authn.Caller
	live    *session.Live
	raw     broker.Raw // the request as it came
	media   string     // the body's Content-Type
	judged  bool       // the body carries the version of the live object it was judged on
	seen    sight      // the object the request is about, when it was last looked at
	yes     yes        // what people said, when they let the request through
	// rejected is told when the cluster does not accept the session's token.
	rejected func()
	cause    error           // what the log may know of a refusal
	client   context.Context // ends when the caller goes away
	open     context.Context // what the request was forwarded in; its cause says why it was cut
	out      *meter
	ended    bool
}

func (g *Gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := &pass{gate: g, rules: g.Rules(), facts: recording.FactsOf(r), out: &meter{ResponseWriter: w}}
	p.facts.ID = uuid.NewString()
	p.facts.Received = g.Now()
	p.facts.Sources = g.sources(r)
	p.client = r.Context()
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
	read, release, err := p.receive(w, r)
	if err != nil {
		return err
	}
	defer release()
	if p.facts.Action.Changes() {
		if err := back.Body(p.facts.Action, p.media, read); err != nil {
			return err
		}
	}
	body, err := p.judge(r.Context(), read)
	if err != nil {
		return err
	}
	a, asks := p.facts.Action, p.facts.Decision.Effect == access.Ask
	if p.wishes.look {
		p.tell(w)
		return nil
	}
	if p.wishes.ahead && (asks || a.Changes()) {
		return p.askAhead(r.Context(), w)
	}
	if err := upgrade(r, a); err != nil {
		if spdy(r) {
			if refused := p.fallback(r.Context()); refused != nil {
				return refused
			}
		}
		return err
	}
	if asks {
		if body, err = p.ask(r.Context(), read); err != nil {
			return err
		}
	}
	if err := p.begin(r.Context()); err != nil {
		return err
	}
	if p.yes.given() {
		if err := p.redeem(r.Context()); err != nil {
			return err
		}
	}
	return p.send(w, r, read, body)
}

// receive takes the steps before the decision, and the body in. release gives back the memory it takes.
func (p *pass) receive(w http.ResponseWriter, r *http.Request) (read []byte, release func(), err error) {
	var target string
	if p.cluster, target, err = p.rules.Clusters.Find(r); err != nil {
		return nil, nil, err
	}
	p.facts.Cluster, p.facts.URI = p.cluster.Name, target // the record and the cluster's audit log speak of one path
	if err := screen(r); err != nil {
		return nil, nil, err
	}
	if p.caller, err = p.rules.Authn.Authenticate(r.Context(), r, p.facts.Sources[0]); err != nil {
		return nil, nil, err
	}
	p.facts.Principal = p.caller.Principal
	if p.wishes, err = wishesOf(r.Header); err != nil {
		return nil, nil, err
	}
	if p.facts.Action, err = action.Parse(r.Method, target); err != nil {
		return nil, nil, err
	}
	if !p.facts.Action.Resourceless {
		if _, err := forward.Accepts(r.Header); err != nil {
			return nil, nil, err
		}
	}
	tier, err := p.rules.Policy.Tier(p.facts.Principal)
	if err != nil {
		return nil, nil, err
	}
	if err := p.enter(r.Context(), tier); err != nil {
		return nil, nil, err
	}
	read, give, err := p.body(w, r)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			give()
		}
	}()
	if p.media, err = media(r.Header); err != nil {
		return nil, nil, err
	}
	p.raw = broker.Raw{Method: r.Method, Target: target, ContentType: p.media, Body: read}
	p.facts.Action, err = action.Refine(p.facts.Action, p.media, read)
	return read, give, err
}

// enter opens the caller's session, or finds it open.
func (p *pass) enter(ctx context.Context, tier access.Tier) error {
	sessions := p.gate.Sessions
	asks := session.Who{Principal: p.facts.Principal, Bearer: p.caller.Bearer, Tier: tier.Name}
	live, err := sessions.Get(ctx, asks, p.cluster)
	if err != nil {
		return err
	}
	p.live, p.facts.Session = live, live.Session
	p.rejected = func() { sessions.Rejected(asks, p.cluster, live) }
	return nil
}

// send forwards what passed every step: read is the body as it came, body as it is to go.
func (p *pass) send(w http.ResponseWriter, r *http.Request, read, body []byte) error {
	g, a := p.gate, p.facts.Action
	out := forward.Request{Live: p.live, Action: a, Target: action.Forwarded(p.raw.Target), Body: body, AuditID: p.facts.ID, Rejected: p.rejected}
	// Whatever was opened with the token ends with it, and with the session.
	ends, ended := p.caller.Expires, access.Errorf(access.Unauthenticated, "your token expired, and what was opened with it ended; ask again")
	if p.live.Session.Ends.Before(ends) {
		ends, ended = p.live.Session.Ends, access.Errorf(access.Unauthenticated, "the session reached its longest time and ended; ask again")
	}
	if p.yes.given() {
		out.Live, out.Rejected, out.Media = p.yes.live, func() {}, p.yes.media
		out.Approved, out.Answered = true, p.outcome
		if until := p.yes.Until; p.yes.State == access.StateGranted && until.Before(ends) {
			ends, ended = until, access.Errorf(access.Denied, "the grant of approval %s ended, and what was opened under it; ask again", p.yes.ID)
		}
	}
	var err error
	if out.Masking, err = p.masking(&out); err != nil {
		return err
	}
	out.Broken = func(why error) { p.cause = why }
	ctx, cancel := context.WithDeadlineCause(r.Context(), ends, ended)
	defer cancel()
	if a.Stream {
		var cut context.CancelCauseFunc
		ctx, cut = context.WithCancelCause(ctx)
		g.open.add(p, cut)
		g.Observer.Stream(1)
		defer func() { g.open.remove(p); g.Observer.Stream(-1); cut(nil) }()
		if p.yes.given() {
			defer g.Desk.Follow(p.yes.Approval, func(a broker.Approval) { p.taken(a, cut) })()
		}
		if a.Upgrade {
			out.Broken = cut // and so it is on record
		}
	}
	p.open = ctx
	if a.Stream && g.Rules() != p.rules { // changed since it was decided, and checked before this stream was there to be
		if err := p.still(ctx); err != nil {
			return err
		}
	}
	if p.judged {
		out.Again = func(ctx context.Context) ([]byte, error) { return p.rejudge(ctx, read) }
	}
	if p.yes.given() {
		p.yes.sent = true
		g.Observer.Released(g.Now().Sub(p.yes.heard))
	}
	return g.forward.Forward(w, r.WithContext(ctx), out)
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

// body takes the whole body before anything is decided: bounded in size, time and memory. release gives the memory back.
func (p *pass) body(w http.ResponseWriter, r *http.Request) (b []byte, release func(), err error) {
	if r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody {
		return nil, func() {}, nil
	}
	size := r.ContentLength
	if size < 0 {
		size = MaxBody // it does not say
	}
	give, err := p.gate.bodies.take(agent(p.facts.Principal), size)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			give()
		}
	}()
	c := http.NewResponseController(w)
	_ = c.SetReadDeadline(time.Now().Add(bodyTime))
	defer func() { _ = c.SetReadDeadline(time.Time{}) }()
	b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, nil, access.Errorf(access.TooLarge, "the request body is larger than %d bytes", MaxBody)
	case err != nil:
		return nil, nil, access.Errorf(access.Invalid, "the request body did not arrive whole").Because(err)
	}
	return b, give, nil
}

// begin makes sure that what is about to be forwarded can be recorded. For whatever may change something, exec, attach
// and port-forward among it, and for whatever people let through, it returns only when the intent is stored.
func (p *pass) begin(ctx context.Context) error {
	if err := p.gate.Recorder.Healthy(); err != nil {
		return err
	}
	switch {
	case p.facts.Action.Changes() || p.yes.given():
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
	// Before it answers, the server reads on for what is left of the body. Whoever does not send it waits no longer.
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(leftover))
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
	p.settle()
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
