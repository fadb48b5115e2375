package gate_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/approval"
	"sallyport/shared/broker"
)

// people are functions review and exchange as far as a gate can tell, and the people behind them. They are strict: what a
// gate must not do, or not do twice, fails the test.
type people struct {
	t testing.TB

	mu     sync.Mutex
	asked  map[string]*asked // by approval
	joins  map[string]string // approval by what is asked
	opens  []broker.Open
	peeks  int
	polls  int
	told   []broker.Outcome
	vain   []broker.Outcome // of what was never let through
	redeem []broker.Redeem
	decide func(*asked) // at once, when it is asked
	life   time.Duration
	away   error               // of review
	broken error               // of exchange
	during func(broker.Redeem) // while a redemption is on its way
	lose   bool                // the next poll's answer is lost
	spoil  func(*broker.Token) // what a redemption is answered with
	seen   map[string]bool     // approvals that polls asked about
}

// asked is one approval.
type asked struct {
	broker.Approval
	digest string
	target access.Target
	who    access.Principal
	spent  []string
	codes  map[string]int
}

func newPeople(t testing.TB) *people {
	return &people{t: t, asked: map[string]*asked{}, joins: map[string]string{}, life: time.Hour, seen: map[string]bool{}}
}

func deny(why string) func(*asked) {
	return func(a *asked) { a.State, a.Message = access.StateDenied, "ana@example.com said no: "+why }
}

func approve(a *asked) {
	a.State, a.Message, a.Approvers = access.StateApproved, "ana@example.com said yes", []string{"ana@example.com"}
}

func grant(length time.Duration) func(*asked) {
	return func(a *asked) { approve(a); a.State, a.Until = access.StateGranted, time.Now().Add(length) }
}

// answer lets people answer whatever is pending; there must be something.
func (p *people) answer(how func(*asked)) *asked {
	p.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p.mu.Lock()
		for _, a := range p.asked {
			if a.State == access.StatePending {
				how(a)
				p.mu.Unlock()
				return a
			}
		}
		p.mu.Unlock()
	}
	p.t.Error("nobody was asked anything")
	return &asked{}
}

// change changes an approval that was answered.
func (p *people) change(id string, how func(*asked)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	how(p.asked[id])
}

func (p *people) count() (approvals, opens, redeems int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.asked), len(p.opens), len(p.redeem)
}

func (p *people) outcomes() []broker.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.told)
}

// opened is the last question.
func (p *people) opened() broker.Open {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.opens) == 0 {
		p.t.Fatal("nobody was asked anything")
	}
	return p.opens[len(p.opens)-1]
}

// read checks what comes with every question and redemption, and says what it is about.
func (p *people) read(token, cluster string, raw broker.Raw, ev broker.Evidence, session, request string) (who access.Principal, digest string, target access.Target) {
	id, err := verifier{}.Verify(context.Background(), token)
	if err != nil {
		p.t.Errorf("a question came with the token %q", token)
	}
	a, err := action.Parse(raw.Method, raw.Target)
	if err != nil || strings.Contains(raw.Target, "/clusters/") {
		p.t.Errorf("%s %s is not the request as it was classified: %v", raw.Method, raw.Target, err)
	}
	if a, err = action.Refine(a, raw.ContentType, raw.Body); err != nil {
		p.t.Errorf("the raw body is not the caller's: %v", err)
	}
	if _, err := uuid.Parse(request); err != nil || session != "session"+id.Principal.Agent || cluster != "dev" {
		p.t.Errorf("request %q in session %q on cluster %q", request, session, cluster)
	}
	var live map[string]any
	if len(ev.Live) > 0 {
		if err := json.Unmarshal(ev.Live, &live); err != nil {
			p.t.Error(err)
		}
	}
	if ev.Missing && live != nil {
		p.t.Error("an object is there and missing")
	}
	digest, err = approval.Digest(approval.Request{Cluster: cluster, Principal: id.Principal, Verb: a.Verb, Target: raw.Target, ContentType: raw.ContentType, Body: raw.Body})
	if err != nil {
		p.t.Error(err)
	}
	return id.Principal, digest, approval.Target(live)
}

func (p *people) Open(ctx context.Context, o broker.Open) (broker.Approval, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.away != nil {
		return broker.Approval{}, p.away
	}
	who, digest, target := p.read(o.SubjectToken, o.Cluster, o.Raw, o.Evidence, o.Session, o.Request)
	a := p.asked[p.joins[digest]]
	if a != nil && (a.State == access.StateExpired || a.State == access.StateWithdrawn || a.State == access.StateRevoked || a.State == access.StateSpent && a.codes[a.spent[0]] != 0) && !o.Peek {
		a = nil
	}
	if o.Peek {
		p.peeks++
		if a == nil {
			return broker.Approval{}, nil
		}
		return a.Approval, nil
	}
	p.opens = append(p.opens, o)
	if a != nil {
		joined := a.Approval
		joined.Joined = true
		return joined, nil
	}
	a = &asked{digest: digest, target: target, who: who, codes: map[string]int{}}
	a.ID = fmt.Sprintf("approval%d", len(p.asked)+1)
	a.State, a.Message, a.Expires = access.StatePending, "waiting for sre to answer approval "+a.ID, time.Now().Add(p.life)
	p.asked[a.ID], p.joins[digest] = a, a.ID
	if p.decide != nil {
		p.decide(a)
	}
	return a.Approval, nil
}

func (p *people) Poll(ctx context.Context, q broker.Poll) (broker.State, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.polls++
	if p.away != nil {
		return broker.State{}, p.away
	}
	s := broker.State{Policy: broker.Policy{Digest: "d", Version: "v"}, KeysDigest: "k"}
	for _, o := range q.Outcomes {
		a := p.asked[o.Approval]
		if a == nil || !slices.Contains(a.spent, o.Request) {
			p.vain = append(p.vain, o)
			if p.broken == nil {
				p.t.Errorf("told of the outcome of request %s, which approval %s did not let through", o.Request, o.Approval)
			}
			continue
		}
		if a.codes[o.Request] != 0 && a.codes[o.Request] != o.Code {
			p.t.Errorf("request %s ended with %d and %d", o.Request, a.codes[o.Request], o.Code)
		}
		a.codes[o.Request] = o.Code
		p.told = append(p.told, o)
	}
	for _, id := range q.Approvals {
		p.seen[id] = true
		if a := p.asked[id]; a != nil {
			if a.State == access.StateGranted && time.Now().After(a.Until) {
				a.State = access.StateExpired
			}
			s.Approvals = append(s.Approvals, a.Approval)
		}
	}
	if p.lose {
		p.lose = false
		return broker.State{}, access.Errorf(access.Unavailable, "the answer was lost")
	}
	return s, nil
}

func (p *people) Redeem(ctx context.Context, r broker.Redeem) (broker.Token, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.during != nil {
		p.during(r)
	}
	who, digest, target := p.read(r.SubjectToken, r.Cluster, r.Raw, r.Evidence, r.Session, r.Request)
	p.redeem = append(p.redeem, r)
	if p.broken != nil {
		return broker.Token{}, p.broken
	}
	a := p.asked[r.Approval]
	switch {
	case a == nil:
		return broker.Token{}, access.Errorf(access.NotFound, "there is no such approval")
	case a.State == access.StateSpent:
		return broker.Token{}, access.Errorf(access.Conflict, "the approval is being used by request %s", a.By)
	case a.State == access.StateRevoked:
		return broker.Token{}, access.Errorf(access.Denied, "it was taken back")
	case a.State != access.StateApproved && a.State != access.StateGranted:
		p.t.Errorf("approval %s is %s, and was tried to be redeemed", a.ID, a.State)
		return broker.Token{}, access.Errorf(access.Denied, "it is not approved")
	case a.State == access.StateApproved && a.digest != digest:
		p.t.Error("another request was redeemed than was approved")
		return broker.Token{}, access.Errorf(access.Denied, "it is another request")
	case a.State == access.StateApproved && a.target != target:
		a.State = access.StateWithdrawn
		return broker.Token{}, access.Errorf(access.Conflict, "the target changed since it was asked about")
	}
	a.spent = append(a.spent, r.Request)
	if a.State == access.StateApproved {
		a.State, a.By, a.Message = access.StateSpent, r.Request, ""
	}
	shown := a.Approval
	now := time.Now()
	token := broker.Token{
		IssuedTokenType: broker.CredentialsType, Tier: "maintain", Approval: &shown,
		Session:     access.Session{ID: r.Session, Cluster: r.Cluster, Tier: "observe", Principal: who, Started: now, Ends: now.Add(15 * time.Minute)},
		Credentials: broker.Credentials{AccessKeyID: elevated, SecretAccessKey: "hush", SessionToken: "token", Expiration: now.Add(15 * time.Minute)},
	}
	if p.spoil != nil {
		p.spoil(&token)
	}
	return token, nil
}

// The access keys of the two tiers, as they are in the tokens the cluster is shown.
const base, elevated = "ASIAX", "ASIAELEVATED"

// key is the access key behind the token of a request.
func key(t testing.TB, q *http.Request) string {
	encoded, ok := strings.CutPrefix(q.Header.Get("Authorization"), "Bearer k8s-aws-v1.")
	b, err := base64.RawURLEncoding.DecodeString(encoded)
	u, err2 := url.Parse(string(b))
	if !ok || err != nil || err2 != nil {
		t.Errorf("the cluster was shown %q", q.Header.Get("Authorization"))
		return ""
	}
	k, _, _ := strings.Cut(u.Query().Get("X-Amz-Credential"), "/")
	return k
}

// changes are the requests that reached the cluster and were not the gate's own reads.
func (r *rig) changes(t testing.TB) []*http.Request {
	var all []*http.Request
	for _, q := range r.reached() {
		own := q.Header.Get("User-Agent") == "sallyport"
		if k := key(t, q); own && (k != base || q.Method != http.MethodGet) {
			t.Errorf("the gate's own %s %s was made with %s", q.Method, q.URL, k)
		}
		if !own {
			all = append(all, q)
		}
		for name := range q.Header {
			if strings.HasPrefix(name, "Sallyport") {
				t.Errorf("%s reached the cluster", name)
			}
		}
	}
	return all
}
