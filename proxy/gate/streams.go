package gate

import (
	"context"
	"slices"
	"sync"

	"sallyport/proxy/rules"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/policy"
)

// streams are the requests that stay open: what was allowed when they were opened may be forbidden while they last.
type streams struct {
	mu   sync.Mutex
	open map[*pass]context.CancelCauseFunc
}

func (s *streams) add(p *pass, cut context.CancelCauseFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == nil {
		s.open = map[*pass]context.CancelCauseFunc{}
	}
	s.open[p] = cut
}

func (s *streams) remove(p *pass) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, p)
}

func (s *streams) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.open)
}

// Recheck decides about every open stream once more, by the policy in force now, and ends those it forbids. It is
// called when the policy changed, and now and then, as rules may look at the time.
func (g *Gate) Recheck(ctx context.Context) {
	g.open.mu.Lock()
	passes := make(map[*pass]context.CancelCauseFunc, len(g.open.open))
	for p, cut := range g.open.open {
		passes[p] = cut
	}
	g.open.mu.Unlock()
	for p, cut := range passes {
		if err := p.still(ctx); err != nil {
			cut(err)
		}
	}
}

// still says whether an open stream would be opened today. Only fields that do not change once it is open are read.
func (p *pass) still(ctx context.Context) error {
	now := p.gate.Rules()
	who, tier, err := p.standing(ctx, now)
	if err != nil {
		return err
	}
	d := now.Policy.Decide(policy.Request{Principal: who, Tier: tier.Name, Cluster: p.facts.Cluster, Action: p.facts.Action, Now: p.gate.Now()}, nil)
	if d.Effect == access.Allow || p.yes.given() && same(d, p.facts.Decision) {
		if stricter(d.Obligations, p.facts.Decision.Obligations) || now != p.rules && !now.Policy.Masking.Same(p.rules.Policy.Masking) {
			return access.Errorf(access.Denied, "the policy changed, and what was open would be masked otherwise; open it again")
		}
		return nil
	}
	return access.Errorf(access.Denied, "the policy no longer allows what was open: %s", d.Message)
}

// standing says who the caller is by the policy in force now, when that still lets it be where it is: its token is good,
// its cluster is behind this gate, and its tier is the session's.
func (p *pass) standing(ctx context.Context, now *rules.Generation) (access.Principal, access.Tier, error) {
	who := p.facts.Principal
	if now != p.rules {
		// Other issuers, or other groups for the same token.
		again, err := now.Authn.Again(ctx, p.caller.Bearer)
		switch {
		case access.KindOf(err) == access.Unavailable: // the keys cannot be had now; the next check will tell
		case err != nil:
			return who, access.Tier{}, access.Errorf(access.Denied, "the policy changed, and no longer knows your token: %s", access.AsError(err).Message)
		default:
			who = again.Principal
		}
		if !slices.ContainsFunc(now.Policy.Clusters, func(c access.Cluster) bool { return c.Name == p.facts.Cluster }) {
			return who, access.Tier{}, access.Errorf(access.Denied, "the policy changed, and cluster %q is no longer behind this gate", p.facts.Cluster)
		}
	}
	tier, err := now.Policy.Tier(who)
	if err != nil {
		return who, tier, err
	}
	if tier.Name != p.live.Session.Tier {
		return who, tier, access.Errorf(access.Denied, "the policy changed, and your tier is %q now; ask again", tier.Name)
	}
	return who, tier, nil
}

// taken ends a stream whose approval was taken back, or whose grant ended. A yes to one request is used up once that
// passed, and what it opened goes on.
func (p *pass) taken(a broker.Approval, cut context.CancelCauseFunc) {
	switch {
	case a.State == access.StateRevoked:
		cut(p.about(a, access.Errorf(access.Denied, "approval %s was taken back, and what was opened under it ended%s", a.ID, colon(a.Message))))
	case a.State == access.StateExpired && p.yes.State == access.StateGranted:
		cut(p.about(a, access.Errorf(access.Denied, "the grant of approval %s ended, and what was opened under it; ask again", a.ID)))
	}
}
