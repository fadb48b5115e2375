// Package rules keeps the policy that the proxy decides by, and everything made from it, in step with the broker's.
//
// The broker says which version is in force, with every poll; the proxy reads that version itself, holds its bytes against
// the digest the broker named, and loads it with the broker's own code. What changes then changes at once and whole: a
// [Generation] is never changed, a request is served by one from first to last, and the next request by the next.
//
// It promises that nothing that was verified under the issuers of one generation is believed under those of another: when
// any issuer changed, the verified tokens are forgotten, and so are the keys of every issuer that takes its keys from
// elsewhere now. A version that cannot be read or loaded changes nothing, and says so in the log and in the metrics: a
// policy cannot be opened by breaking it. When the broker does not answer, the last policy stays; for how long is bounded
// by the issuers' keys, which come with the same answer and are used for an hour (identity.Stale).
package rules

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"sallyport/proxy/authn"
	"sallyport/proxy/route"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

// Every is the time between two polls: what people answer, and what they take back, is heard of with them too.
const Every = time.Second

// settle is longer than the broker's functions answer without looking for another policy. Polls come faster than that, so
// after one function told of a new policy another may still tell of the old one: for so long it is not believed.
const settle = 5 * time.Second

// What one poll may take.
const (
	pollTime = 10 * time.Second
	readTime = 5 * time.Second
)

// A Generation is one policy and what is made from it. It does not change.
type Generation struct {
	Policy   *policy.Policy
	Version  string // S3's id of the policy file's version
	Clusters *route.Clusters
	Authn    *authn.Authenticator

	ring *identity.Ring

	once    sync.Once
	masking map[string]Masking // by tier
	unclear error              // why there is none
}

// Broker says what is in force; desk.Desk and invoke.Client together. Errors are *access.Error. Safe for concurrent use.
type Broker interface {
	// Poll says which policy is in force, and the issuers' keys; keys that did not change may be left out.
	Poll(ctx context.Context) (broker.Policy, []identity.IssuerKeys, error)
	// Keys asks for keys that were fetched from the issuers a moment ago.
	Keys(ctx context.Context) ([]identity.IssuerKeys, error)
}

// Policies reads a version of the policy and holds it against a digest; policystore.Store. The error is of kind invalid when
// the bytes are not those of the digest.
type Policies interface {
	Version(ctx context.Context, version, digest string) (policystore.File, error)
}

// Observer is told what becomes of policies; metrics.Metrics.
type Observer interface {
	Policy(digest string)
	Polled(at time.Time, refused bool)
	PolicyRefused(by string)
}

// Config is what a Keeper is made of. All fields but OnChange are needed.
type Config struct {
	Broker   Broker
	Policies Policies
	Observer Observer
	// Tokens that were not seen before: how many a second one address may send, and how many at once.
	UnknownRate  float64
	UnknownBurst int
	// OnChange is called after another policy took effect, with what was in force before, nil for the first.
	OnChange func(old, new *Generation)
	Now      func() time.Time
	Log      *slog.Logger
}

// A Keeper keeps the generation in force. It is safe for concurrent use.
type Keeper struct {
	cfg     Config
	current atomic.Pointer[Generation]

	polling sync.Mutex // one poll at a time, so that an older answer never undoes a newer one
	keys    map[string]identity.IssuerKeys
	refused broker.Refusal // the last version the broker refused
	heard   time.Time      // when the broker last said so
	failed  version        // the last version that was refused here
	why     error
	left    version   // what was in force before
	changed time.Time // when that was left
}

// version names one version of the policy file by S3's id and by its bytes.
type version struct{ id, digest string }

// New returns a Keeper that holds no policy yet.
func New(c Config) *Keeper {
	if c.OnChange == nil {
		c.OnChange = func(_, _ *Generation) {}
	}
	return &Keeper{cfg: c, keys: map[string]identity.IssuerKeys{}}
}

// Current is the generation in force. It is nil until a poll brought the first, and never again.
func (k *Keeper) Current() *Generation { return k.current.Load() }

// Ready says whether there is a policy, and keys to verify tokens with.
func (k *Keeper) Ready() bool {
	g := k.Current()
	return g != nil && g.ring.Ready()
}

// Run polls until ctx ends, and calls after when a poll is over, whatever came of it.
func (k *Keeper) Run(ctx context.Context, after func()) {
	wait, said := 250*time.Millisecond, ""
	for {
		err := k.Poll(ctx)
		after()
		switch {
		case err != nil:
			wait = min(2*wait, Every)
			if err.Error() != said && ctx.Err() == nil { // once, not with every poll
				k.cfg.Log.Warn("the policy or the issuers' keys cannot be had", "error", err.Error(), "cause", fmt.Sprint(access.AsError(err).Cause))
			}
			said = err.Error()
		case said != "":
			k.cfg.Log.Info("the policy and the issuers' keys can be had again")
			fallthrough
		default:
			wait, said = Every, ""
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// Poll asks the broker once and puts in force what it says. An error means that something could not be had or loaded;
// what was in force stays then.
func (k *Keeper) Poll(ctx context.Context) error {
	k.polling.Lock()
	defer k.polling.Unlock()
	ask, cancel := context.WithTimeout(ctx, pollTime)
	defer cancel()
	in, keys, err := k.cfg.Broker.Poll(ask)
	if err != nil {
		return err
	}
	k.hear(in)
	err = k.follow(ctx, in, keys)
	k.cfg.Observer.Polled(k.cfg.Now(), in.Refused != nil || err != nil)
	for _, key := range keys {
		k.keys[key.Issuer] = key
	}
	if g := k.Current(); g != nil {
		err = errors.Join(err, g.ring.Set(keys))
	}
	return err
}

// hear says once what the broker refused.
func (k *Keeper) hear(in broker.Policy) {
	switch {
	case in.Refused == nil:
		if k.cfg.Now().Sub(k.heard) >= settle {
			k.refused = broker.Refusal{}
		}
		return
	case *in.Refused != k.refused:
		k.refused = *in.Refused
		k.cfg.Observer.PolicyRefused("broker")
		k.cfg.Log.Error("policy refused", "by", "broker", "version", in.Refused.Version, "digest", in.Refused.Digest, "reason", in.Refused.Message, "in_force", in.Digest)
	}
	k.heard = k.cfg.Now()
}

// follow makes the policy that the broker decides by the one in force here.
func (k *Keeper) follow(ctx context.Context, in broker.Policy, keys []identity.IssuerKeys) error {
	old, want := k.Current(), version{in.Version, in.Digest}
	switch {
	case old != nil && old.Policy.Digest == in.Digest:
		k.failed, k.why = version{}, nil
		return nil
	case old != nil && want == k.left && k.cfg.Now().Sub(k.changed) < settle: // somebody has not heard
		return nil
	case want == k.failed: // it will not get better
		return k.why
	}
	read, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	file, err := k.cfg.Policies.Version(read, in.Version, in.Digest)
	if access.KindOf(err) == access.Unavailable {
		return err
	}
	var next *Generation
	if err == nil {
		next, err = k.generation(file, old, keys)
	}
	if err != nil {
		k.failed, k.why = want, err
		k.cfg.Observer.PolicyRefused("proxy")
		k.cfg.Log.Error("policy refused", "by", "proxy", "version", in.Version, "digest", in.Digest, "reason", err.Error(), "in_force", digestOf(old))
		return err
	}
	k.failed, k.why = version{}, nil
	if old != nil {
		k.left, k.changed = version{old.Version, old.Policy.Digest}, k.cfg.Now()
	}
	k.current.Store(next)
	k.cfg.Observer.Policy(next.Policy.Digest)
	if old == nil {
		k.cfg.Log.Info("policy in force", "digest", next.Policy.Digest, "version", next.Version)
	} else {
		k.cfg.Log.Info("policy changed", "old", old.Policy.Digest, "new", next.Policy.Digest, "version", next.Version, "reason", "the broker decides by it")
	}
	k.cfg.OnChange(old, next)
	return nil
}

// generation loads a policy file. The parts that its issuers make are the old ones' while no issuer changed; keys are
// those that came with the news of it.
func (k *Keeper) generation(file policystore.File, old *Generation, keys []identity.IssuerKeys) (*Generation, error) {
	p, err := policy.Load(settings.PolicyCurrent, file.Bytes)
	if err != nil {
		return nil, err
	}
	g := &Generation{Policy: p, Version: file.Version, Clusters: route.New(p.Clusters)}
	if _, err := g.maskings(); err != nil {
		return nil, err
	}
	if old != nil && reflect.DeepEqual(old.Policy.Issuers, p.Issuers) {
		g.Authn, g.ring = old.Authn, old.ring
		return g, nil
	}
	if g.ring, err = identity.NewRing(identity.RingConfig{Refresh: k.cfg.Broker.Keys, Now: k.cfg.Now}); err != nil {
		return nil, err
	}
	verifier, err := identity.New(identity.Config{Issuers: p.Issuers, Keys: g.ring, Now: k.cfg.Now})
	if err != nil {
		return nil, err
	}
	g.Authn = authn.New(verifier, k.cfg.UnknownRate, k.cfg.UnknownBurst, k.cfg.Now)
	k.drop(old, p)
	_ = g.ring.Set(slices.Collect(maps.Values(k.keys))) // what of it cannot be read was said when it came
	_ = g.ring.Set(keys)                                // and this will be said by Poll
	return g, nil
}

// drop forgets the keys that another policy has no use for, or takes from elsewhere: the broker has to fetch those again,
// from where the policy says now.
func (k *Keeper) drop(old *Generation, p *policy.Policy) {
	source := func(p *policy.Policy, url string) (string, bool) {
		n := slices.IndexFunc(p.Issuers, func(i access.Issuer) bool { return i.URL == url })
		if n < 0 {
			return "", false
		}
		return p.Issuers[n].JWKS, true
	}
	maps.DeleteFunc(k.keys, func(url string, _ identity.IssuerKeys) bool {
		now, trusted := source(p, url)
		if !trusted || old == nil {
			return !trusted
		}
		before, was := source(old.Policy, url)
		return was && before != now
	})
}

func digestOf(g *Generation) string {
	if g == nil {
		return ""
	}
	return g.Policy.Digest
}
