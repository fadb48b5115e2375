package gate_test

import (
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/proxy/authn"
	"sallyport/proxy/desk"
	"sallyport/proxy/gate"
	"sallyport/proxy/route"
	"sallyport/proxy/rules"
	"sallyport/proxy/session"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
	"sallyport/shared/recording"
)

// The gate in front of a cluster that says what it saw, with everything else real but for the verifier and the broker.
type rig struct {
	*httptest.Server
	gate     *gate.Gate
	rules    atomic.Pointer[rules.Generation]
	cluster  *httptest.Server
	recorder *recorder
	broker   *fakeBroker
	people   *people
	desk     *desk.Desk
	observer *observer

	mu   sync.Mutex
	seen []*http.Request // what reached the cluster
}

func newRig(t testing.TB, cluster http.HandlerFunc) *rig {
	t.Helper()
	return newRigWith(t, cluster, newPeople(t))
}

// output is what a container prints, as the frame of a WebSocket that carries it: binary, whole, on channel 1.
func output(s string) string { return "\x82" + string([]byte{byte(len(s) + 1)}) + "\x01" + s }

// newRigWith is one task of the gate: several may share the people they ask.
func newRigWith(t testing.TB, cluster http.HandlerFunc, asked *people) *rig {
	t.Helper()
	r := &rig{recorder: &recorder{}, people: asked, desk: desk.New(asked, time.Now), observer: &observer{}}
	if cluster == nil {
		cluster = func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Audit-Id", q.Header.Get("Audit-Id")) // as the API server does
			fmt.Fprint(w, `{"kind":"PodList"}`)
		}
	}
	r.cluster = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		r.mu.Lock()
		if !r.recorder.discard {
			r.seen = append(r.seen, q.Clone(context.Background()))
		}
		r.mu.Unlock()
		w.Header().Set("Content-Type", "application/json") // as the API server answers, unless a test says otherwise
		if strings.HasSuffix(q.URL.Path, "/log") {
			w.Header().Set("Content-Type", "text/plain")
		}
		cluster(w, q)
	}))
	t.Cleanup(r.cluster.Close)
	r.policy(t, "")
	r.broker = &fakeBroker{endpoint: r.cluster.URL, ca: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: r.cluster.Certificate().Raw})}
	r.gate = gate.New(gate.Config{
		Rules:    r.rules.Load,
		Sessions: session.New(session.Config{Broker: r.broker}), Recorder: r.recorder, Observer: r.observer, Now: time.Now,
		Reviews: asked, Redeemer: asked, Desk: r.desk, Hold: 5 * time.Second,
		Log: slog.New(slog.DiscardHandler),
	})
	go func() { // the task's one call, faster than in life
		for t.Context().Err() == nil {
			_, _, _ = r.desk.Poll(t.Context())
			time.Sleep(5 * time.Millisecond)
		}
	}()
	r.Server = httptest.NewUnstartedServer(r.gate)
	r.Server.EnableHTTP2 = true
	r.Server.StartTLS()
	t.Cleanup(r.Server.Close)
	return r
}

// policy puts a policy in force: observers may read pods, and what more says.
func (r *rig) policy(t testing.TB, more string) {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(`
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers: [{url: "https://i", algorithms: [ES256], groupsClaim: groups}]
clusters: [{name: dev, region: eu-west-1, hosts: [dev.gate]}, {name: prod, region: eu-west-1}]
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
- {name: maintain, role: "arn:aws:iam::111122223333:role/sallyport/maintain", group: "sallyport:maintain"}
reviewers: [{name: sre, issuer: "https://i", audience: reviews, people: [ana@example.com]}]
asks: {tier: maintain, reviewers: [sre]}
rules:
- {name: read, effect: allow, groups: [observers], verbs: [get, list, watch], apiGroups: [""], resources: [pods, pods/log]}
- {name: connect, effect: allow, groups: [observers], verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods], namespaces: [dev]}
`+more))
	if err != nil {
		t.Fatal(err)
	}
	r.rules.Store(&rules.Generation{Policy: p, Clusters: route.New(p.Clusters), Authn: authn.New(verifier{}, 5, 10, time.Now)})
}

func (r *rig) reached() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.seen
}

func (r *rig) do(t *testing.T, method, path string, body io.Reader, h http.Header) (*http.Response, metav1.Status) {
	t.Helper()
	req, err := http.NewRequest(method, r.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if h != nil {
		req.Header = h
	}
	client := r.Client() // HTTP/2
	if h.Get("Connection") != "" {
		client = http1(r)
	}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(res.Body)
	res.Body.Close()
	var s metav1.Status
	if res.StatusCode >= 400 {
		if err := json.Unmarshal(b, &s); err != nil || s.Kind != "Status" || s.Message == "" || int(s.Code) != res.StatusCode {
			t.Errorf("%s %s: %d %q is no Status with its code and a message", method, path, res.StatusCode, b)
		}
	}
	return res, s
}

func good(name string, more ...string) http.Header {
	h := http.Header{"Authorization": {"Bearer good:" + name}}
	for i := 0; i+1 < len(more); i += 2 {
		h[more[i]] = append(h[more[i]], more[i+1])
	}
	return h
}

// verifier takes "good:<agent>" for a token of an observer and "nobody:<agent>" for one without groups.
type verifier struct{}

func (verifier) Known(token string) bool { return strings.HasPrefix(token, "good:") }

func (verifier) Verify(_ context.Context, token string) (identity.Identity, error) {
	id := identity.Identity{Expires: time.Now().Add(time.Hour)}
	kind, agent, _ := strings.Cut(token, ":")
	agent, run, _ := strings.Cut(agent, "#")
	id.Principal = access.Principal{Issuer: "https://i", Subject: agent, Agent: agent}
	if run != "" {
		id.Principal.Run = map[string]string{"run_id": run}
	}
	switch kind {
	case "good":
		id.Principal.Groups = []string{"observers"}
	case "brief":
		id.Principal.Groups, id.Expires = []string{"observers"}, time.Now().Add(time.Second)
	case "nobody":
	default:
		return identity.Identity{}, access.Errorf(access.Unauthenticated, "the token is no good; get another")
	}
	return id, nil
}

type fakeBroker struct {
	endpoint string
	ca       []byte
	err      error
	during   func() // what happens while a session is opened
}

func (b *fakeBroker) Exchange(_ context.Context, token, cluster string) (broker.Token, error) {
	if b.err != nil {
		return broker.Token{}, b.err
	}
	if b.during != nil {
		b.during()
	}
	id, _ := verifier{}.Verify(context.Background(), token)
	now := time.Now()
	return broker.Token{
		Session:     access.Session{ID: "session" + id.Principal.Agent, Cluster: cluster, Tier: "observe", Principal: id.Principal, Started: now, Ends: now.Add(time.Hour)},
		Credentials: broker.Credentials{AccessKeyID: "ASIAX", SecretAccessKey: "hush", SessionToken: "token", Expiration: now.Add(time.Hour)},
		Cluster:     broker.Cluster{Name: cluster, Region: "eu-west-1", Endpoint: b.endpoint, CA: b.ca},
		MaskKey:     []byte(strings.Repeat(id.Principal.Agent, 32)[:32]),
	}, nil
}

type recorder struct {
	mu      sync.Mutex
	events  []*auditv1.Event
	where   []recording.Stream
	sick    error
	discard bool
	durable func(context.Context) // while something is made durable
}

func (r *recorder) Append(_ context.Context, s recording.Stream, e *auditv1.Event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.discard {
		return nil
	}
	r.events, r.where = append(r.events, e), append(r.where, s)
	return nil
}

func (r *recorder) AppendDurable(ctx context.Context, s recording.Stream, e *auditv1.Event) error {
	if err := r.Healthy(); err != nil {
		return err
	}
	if r.durable != nil {
		r.durable(ctx)
	}
	return r.Append(ctx, s, e)
}

func (r *recorder) Healthy() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sick
}

func (r *recorder) all() []*auditv1.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.events
}

// wait returns the events once there are n of them: a handler records after its answer.
func (r *recorder) wait(t *testing.T, n int) ([]*auditv1.Event, []recording.Stream) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		r.mu.Lock()
		events, where := r.events, r.where
		r.mu.Unlock()
		if len(events) >= n {
			return events, where
		}
	}
	t.Fatalf("%d events were recorded, want %d", len(r.events), n)
	return nil, nil
}

// observer counts what the tests look at.
type observer struct {
	waiting atomic.Int64
	redeems atomic.Int64
}

func (*observer) Request(string, string, int, time.Duration) {}
func (*observer) Stream(int)                                 {}
func (o *observer) Waiting(delta int)                        { o.waiting.Add(int64(delta)) }
func (*observer) Approval(access.ApprovalState)              {}
func (o *observer) Redeemed(time.Duration, error)            { o.redeems.Add(1) }
func (*observer) Released(time.Duration)                     {}

const pods = "/clusters/dev/api/v1/namespaces/dev/pods"
