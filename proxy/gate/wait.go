package gate

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// waitersByAgent is how many requests of one agent may wait for people at one time. Each holds a connection and a body.
const waitersByAgent = 64

// late is how long after an approval expired the broker is given to say so.
const late = 10 * time.Second

// waiters counts the requests that wait for people, by agent.
type waiters struct {
	mu    sync.Mutex
	agent map[string]int
}

// take counts one more request of an agent's, and returns what takes it off again.
func (w *waiters) take(agent string) (func(), error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.agent[agent] >= waitersByAgent {
		return nil, access.Errorf(access.Limited, "%d of your requests wait for people already, the most one agent may have; nothing was forwarded, and nobody was asked about this one", waitersByAgent).After(5 * time.Second)
	}
	if w.agent == nil {
		w.agent = map[string]int{}
	}
	w.agent[agent]++
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.agent[agent]--; w.agent[agent] == 0 {
			delete(w.agent, agent)
		}
	}, nil
}

// agent is whom limits count against: all runs of one agent share them, or it would only have to begin another.
func agent(p access.Principal) string { return access.Digest(p.Issuer, p.Subject) }

// wait waits for an answer to a, for as long as this request may be held. A plain request is sent again by its client when
// it is told to, so it is held for less than a load balancer keeps a silent connection. An upgrade is sent once, so it is
// held until there is an answer.
func (p *pass) wait(ctx context.Context, a broker.Approval) (broker.Approval, error) {
	g := p.gate
	g.Observer.Waiting(1)
	defer g.Observer.Waiting(-1)
	now := g.Now()
	hold := g.Hold
	if p.facts.Action.Upgrade {
		hold = min(a.Expires.Sub(now)+late, p.caller.Expires.Sub(now))
	}
	held, done := context.WithTimeout(ctx, hold)
	defer done()
	a, err := g.Desk.Wait(held, a)
	switch {
	case err == nil:
		return a, nil
	case ctx.Err() == nil: // the hold is over
		if p.facts.Action.Upgrade && !g.Now().Before(p.caller.Expires) {
			return a, p.about(a, access.Errorf(access.Unauthenticated, "your token expired while the request waited for people; the question stands, so run the same command again"))
		}
	case access.KindOf(context.Cause(ctx)) == access.Unavailable: // this task ends; another one goes on
		p.facts.Error = access.AsError(context.Cause(ctx)).Message
	default:
		p.facts.Error = "the caller went away while it waited; the question stands"
	}
	return a, p.pending(a)
}

// pending is what a client is told that is to send the same request again. It may be the last it shows.
func (p *pass) pending(a broker.Approval) *access.Error {
	said := a.Message
	if said == "" {
		said = "people were asked and nobody answered yet"
	}
	if !strings.Contains(said, a.ID) {
		said += fmt.Sprintf("; approval %s stands until %s", a.ID, a.Expires.UTC().Format(time.RFC3339))
	}
	return p.about(a, access.Errorf(access.Limited, "%s: %s. Nothing was forwarded. kubectl goes on waiting by itself for a while; after that, running the same command again goes on from there", p.facts.Decision.Message, said)).After(time.Second)
}
