package main

import (
	"context"
	"reflect"
	"sync"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
	"sallyport/shared/policystore"
)

const (
	// lookEvery is how old a look at the policy may be when the function answers: a little less than the proxies wait
	// between two polls, so that each poll finds what is new.
	lookEvery = 4 * time.Second
	// lookTime is how long a look may take; an answer waits for it.
	lookTime = 3 * time.Second
	// keysEvery is how often the issuers are asked for their keys on behalf of proxies that only poll: often enough that a
	// proxy holds no key that was withdrawn when it verifies a token again (identity.Reverify). keysAgain is how often when
	// some could not be had.
	keysEvery = 30 * time.Second
	keysAgain = 15 * time.Second
)

// A generation is one policy in force, and what is made from it. It does not change, so whoever took it before another
// came goes on with it to the end of its answer.
type generation struct {
	policy   *policy.Policy
	version  string
	verifier verifier
	keys     keys

	published *published
}

// published are the keys as they were handed out last, kept with what they were fetched by.
type published struct {
	mu    sync.Mutex
	keys  []identity.IssuerKeys
	until time.Time // when the issuers are asked again
}

// build makes the generation of a policy file. While the issuers stay as they are, so do their keys and the tokens that
// were verified; when any changed, nothing that was verified or fetched for the old ones is used again.
func build(name string, b []byte, old *generation) (*generation, error) {
	p, err := policy.Load(name, b)
	if err != nil {
		return nil, err
	}
	if old != nil && reflect.DeepEqual(old.policy.Issuers, p.Issuers) {
		return &generation{policy: p, verifier: old.verifier, keys: old.keys, published: old.published}, nil
	}
	keys, err := identity.NewFetcher(identity.FetcherConfig{Issuers: p.Issuers})
	if err != nil {
		return nil, err
	}
	verifier, err := identity.New(identity.Config{Issuers: p.Issuers, Keys: keys})
	if err != nil {
		return nil, err
	}
	return &generation{policy: p, verifier: verifier, keys: keys, published: &published{}}, nil
}

// held are the issuers' keys, asked for anew when fresh ones are wanted or those handed out last are old. The error is
// about issuers whose keys could not be had; what is returned is good all the same.
func (g *generation) held(ctx context.Context, fresh bool, now time.Time) ([]identity.IssuerKeys, error) {
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

// load takes a policy file in as the next generation, if it is one; policystore.Follow calls it.
func (b *broker) load(name string, file []byte) error {
	next, err := b.build(name, file, b.current)
	if err == nil {
		b.next = next
	}
	return err
}

// inForce is the generation to answer by, and the newest version when that was refused. It looks for another policy
// unless it did so a moment ago. When there is none, everything is refused: the error is of kind unavailable.
func (b *broker) inForce(ctx context.Context) (*generation, *wire.Refusal, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	// A function is frozen between invocations: the wall clock goes on, the monotonic one may not.
	now := b.now().Round(0)
	if since := now.Sub(b.looked); since >= 0 && since < lookEvery && b.current != nil {
		return b.current, b.refused, nil
	}
	b.looked = now
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	look, err := b.policies.Look(ctx)
	if err != nil {
		e := access.AsError(err)
		b.log.WarnContext(ctx, "the policy cannot be looked for", "message", e.Message, "cause", causeOf(e), "in_force", digestOf(b.current))
	}
	b.take(ctx, look)
	switch {
	case b.current != nil:
		return b.current, b.refused, nil
	case err == nil:
		err = access.Errorf(access.Unavailable, "no policy is in force, so everything is refused; ask again")
	}
	return nil, nil, access.Errorf(access.Unavailable, "%s", access.AsError(err).Message).Because(err).After(lookEvery)
}

// take puts in force what a look found, and says in the log what that changes.
func (b *broker) take(ctx context.Context, look policystore.Look) {
	if r := look.Refused; r == nil {
		b.refused = nil
	} else {
		refusal := wire.Refusal{Version: r.Version, Digest: r.Digest, Message: r.Err.Error()}
		if b.refused == nil || *b.refused != refusal {
			b.log.ErrorContext(ctx, "policy refused", "version", r.Version, "digest", r.Digest, "reason", refusal.Message, "in_force", look.File.Digest)
		}
		b.refused = &refusal
	}
	next := b.next
	b.next = nil
	if next == nil || next.policy.Digest != look.File.Digest {
		return // nothing that loads was put since
	}
	next.version = look.File.Version
	switch old := b.current; {
	case old == nil:
		b.log.InfoContext(ctx, "policy in force", "digest", next.policy.Digest, "version", next.version)
	case old.policy.Digest != next.policy.Digest:
		b.log.InfoContext(ctx, "policy changed", "old", old.policy.Digest, "new", next.policy.Digest, "version", next.version, "reason", "another version is the newest that loads")
	}
	b.current = next
}

func causeOf(e *access.Error) string {
	if e.Cause == nil {
		return ""
	}
	return e.Cause.Error()
}

func digestOf(g *generation) string {
	if g == nil {
		return ""
	}
	return g.policy.Digest
}
