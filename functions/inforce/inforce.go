// Package inforce is what the broker's functions share: the policy in force, and what is decided and verified by it.
//
// A [Keeper] finds the newest version of the policy that loads, looks again when its last look is too old, and hands out a
// [Generation], which does not change: whoever took one goes on with it to the end of its answer. A policy that does not
// load changes nothing; without one everything is refused.
//
// A Generation says who a token was issued to, agent or reviewer, and what a raw request comes to. It believes nothing that
// the proxy concluded: action, object, decision, digest and sentence are computed here from the bytes the agent sent. Of the
// evidence that comes along, the live object is the proxy's word, and can do no more than what the agent could do by having
// that object in the cluster.
//
// Agents and reviewers are verified apart, by issuer and audience: a token that proves an agent proves no reviewer, whatever
// e-mail address it claims, and the other way round. A fault here is a fault of every function at once.
package inforce

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
	"sallyport/shared/policystore"
)

// lookTime is how long a look may take; an answer waits for it.
const lookTime = 3 * time.Second

// Policies finds the policy in force; policystore.Follower. An error is of kind unavailable; what was in force before is
// returned with it. It is called by one at a time.
type Policies interface {
	Look(ctx context.Context) (policystore.Look, error)
}

// Follow says where the policy is followed: its argument loads a file, and the last file it took is the one that Look is
// about.
type Follow func(load func(name string, file []byte) error) Policies

// In follows the policy in its bucket.
func In(store policystore.Store) Follow {
	return func(load func(string, []byte) error) Policies { return policystore.Follow(store, load) }
}

// Keys hands out the public keys of issuers, none older than it may be; identity.Fetcher. The error of All is about issuers
// that are missing or could not be refreshed; what is returned is good all the same.
type Keys interface {
	identity.KeySource
	All(ctx context.Context) ([]identity.IssuerKeys, error)
}

// Config is what a Keeper is made of.
type Config struct {
	Policies Follow
	// Every is how old a look at the policy may be when the function answers.
	Every time.Duration
	// Keys makes what fetches the keys of issuers; nil means an identity.Fetcher.
	Keys func(issuers []access.Issuer) (Keys, error)
	Now  func() time.Time // nil means time.Now
	Log  *slog.Logger
}

// A Keeper keeps the policy in force. It is safe for concurrent use.
type Keeper struct {
	cfg      Config
	policies Policies

	mu      sync.Mutex
	current *Generation // nil until a policy is in force, and never nil again
	next    *Generation // what load made of the last file that is a policy
	refused *broker.Refusal
	looked  time.Time
}

// New returns a Keeper that has not looked yet.
func New(c Config) *Keeper {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Keys == nil {
		c.Keys = func(issuers []access.Issuer) (Keys, error) {
			return identity.NewFetcher(identity.FetcherConfig{Issuers: issuers, Now: c.Now})
		}
	}
	k := &Keeper{cfg: c}
	k.policies = c.Policies(k.load)
	return k
}

// InForce is the generation to answer by, and the newest version when that was refused. It looks for another policy
// unless it did so a moment ago. When there is none, everything is refused: the error is of kind unavailable.
func (k *Keeper) InForce(ctx context.Context) (*Generation, *broker.Refusal, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	// A function is frozen between invocations: the wall clock goes on, the monotonic one may not.
	now := k.cfg.Now().Round(0)
	if since := now.Sub(k.looked); since >= 0 && since < k.cfg.Every && k.current != nil {
		return k.current, k.refused, nil
	}
	err := k.look(ctx, now)
	switch {
	case k.current != nil:
		return k.current, k.refused, nil
	case err == nil:
		err = access.Errorf(access.Unavailable, "no policy is in force, so everything is refused; ask again")
	}
	return nil, nil, access.Errorf(access.Unavailable, "%s", access.AsError(err).Message).Because(err).After(max(k.cfg.Every, time.Second))
}

// Latest is InForce after a look that was made for this call, and succeeded: for what must not be decided by a policy that was
// replaced a few seconds ago. Where the policy cannot be looked for, the error is of kind unavailable.
func (k *Keeper) Latest(ctx context.Context) (*Generation, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.look(ctx, k.cfg.Now().Round(0))
	switch {
	case err != nil:
		return nil, access.Errorf(access.Unavailable, "%s", access.AsError(err).Message).Because(err).After(time.Second)
	case k.current == nil:
		return nil, access.Errorf(access.Unavailable, "no policy is in force, so everything is refused; ask again").After(time.Second)
	}
	return k.current, nil
}

// look looks for the policy and puts in force what it found. The error is the look's; what was in force stays then.
func (k *Keeper) look(ctx context.Context, now time.Time) error {
	k.looked = now
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	found, err := k.policies.Look(ctx)
	if err != nil {
		e := access.AsError(err)
		k.cfg.Log.WarnContext(ctx, "the policy cannot be looked for", "message", e.Message, "cause", causeOf(e), "in_force", digestOf(k.current))
	}
	k.take(ctx, found)
	return err
}

// load takes a policy file in as the next generation, if it is one. It is called within a look.
func (k *Keeper) load(name string, file []byte) error {
	p, err := policy.Load(name, file)
	if err != nil {
		return err
	}
	next, err := build(p, k.current, k.cfg)
	if err == nil {
		k.next = next
	}
	return err
}

// take puts in force what a look found, and says in the log what that changes.
func (k *Keeper) take(ctx context.Context, look policystore.Look) {
	if r := look.Refused; r == nil {
		k.refused = nil
	} else {
		refusal := broker.Refusal{Version: r.Version, Digest: r.Digest, Message: r.Err.Error()}
		if k.refused == nil || *k.refused != refusal {
			k.cfg.Log.ErrorContext(ctx, "policy refused", "version", r.Version, "digest", r.Digest, "reason", refusal.Message, "in_force", look.File.Digest)
		}
		k.refused = &refusal
	}
	next := k.next
	k.next = nil
	if next == nil || next.Policy.Digest != look.File.Digest {
		return // nothing that loads was put since
	}
	next.Version = look.File.Version
	switch old := k.current; {
	case old == nil:
		k.cfg.Log.InfoContext(ctx, "policy in force", "digest", next.Policy.Digest, "version", next.Version)
	case old.Policy.Digest != next.Policy.Digest:
		k.cfg.Log.InfoContext(ctx, "policy changed", "old", old.Policy.Digest, "new", next.Policy.Digest, "version", next.Version, "reason", "another version is the newest that loads")
	}
	k.current = next
}

func causeOf(e *access.Error) string {
	if e.Cause == nil {
		return ""
	}
	return e.Cause.Error()
}

func digestOf(g *Generation) string {
	if g == nil {
		return ""
	}
	return g.Policy.Digest
}
