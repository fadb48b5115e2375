package inforce

import (
	"context"
	"reflect"
	"sync"
	"time"

	"sallyport/shared/identity"
	"sallyport/shared/policy"
)

const (
	// keysEvery is how often the issuers are asked for their keys on behalf of proxies that only poll: often enough that a
	// proxy holds no key that was withdrawn when it verifies a token again (identity.Reverify). keysAgain is how often when
	// some could not be had.
	keysEvery = 30 * time.Second
	keysAgain = 15 * time.Second
)

// A Generation is one policy in force, and what is made from it. It does not change.
type Generation struct {
	Policy  *policy.Policy
	Version string // S3's id of the policy file's version

	agents    *identity.Verifier
	keys      Keys // of the agents' issuers
	published *published
	reviewers *reviewers
}

// published are the agents' issuers' keys as they were handed out last, kept with what they were fetched by.
type published struct {
	mu    sync.Mutex
	keys  []identity.IssuerKeys
	until time.Time // when the issuers are asked again
}

// build makes the generation of a policy. While the issuers stay as they are, so do their keys and the tokens that were
// verified; when any changed, nothing that was verified or fetched for the old ones is used again.
func build(p *policy.Policy, old *Generation, c Config) (*Generation, error) {
	g := &Generation{Policy: p}
	same := old != nil && reflect.DeepEqual(old.Policy.Issuers, p.Issuers)
	if same {
		g.agents, g.keys, g.published = old.agents, old.keys, old.published
	} else {
		var err error
		if g.keys, err = c.Keys(p.Issuers); err != nil {
			return nil, err
		}
		if g.agents, err = identity.New(identity.Config{Issuers: p.Issuers, Keys: g.keys, Now: c.Now}); err != nil {
			return nil, err
		}
		g.published = &published{}
	}
	proofs := proofsOf(p)
	if same && reflect.DeepEqual(old.reviewers.proofs, proofs) {
		g.reviewers = old.reviewers
		return g, nil
	}
	var err error
	g.reviewers, err = newReviewers(p, proofs, g.keys, c)
	return g, err
}

// Verify says which agent a token was issued to. Errors are of kind unauthenticated, denied or unavailable.
func (g *Generation) Verify(ctx context.Context, token string) (identity.Identity, error) {
	return g.agents.Verify(ctx, token)
}

// Held are the agents' issuers' keys, asked for anew when fresh ones are wanted or those handed out last are old. The error
// is about issuers whose keys could not be had; what is returned is good all the same.
func (g *Generation) Held(ctx context.Context, fresh bool, now time.Time) ([]identity.IssuerKeys, error) {
	p := g.published
	p.mu.Lock()
	defer p.mu.Unlock()
	now = now.Round(0)
	if left := p.until.Sub(now); !fresh && left > 0 && left <= keysEvery {
		return p.keys, nil
	}
	all, err := g.keys.All(ctx)
	p.keys, p.until = all, now.Add(keysEvery)
	if err != nil {
		p.until = now.Add(keysAgain)
	}
	return all, err
}
