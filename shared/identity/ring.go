package identity

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// RingConfig is what a Ring is made from.
type RingConfig struct {
	// Refresh asks for the keys of every issuer. It is called one at a time and at most once every RefreshEvery, when
	// a token names an issuer or a key the ring does not hold or when what it holds is no longer fresh. Its context
	// ends after ten seconds, since who is asked may have to ask the issuers first.
	Refresh func(context.Context) ([]IssuerKeys, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// A Ring is the KeySource that is handed its keys. It is for the side that has no way out to the internet.
type Ring struct {
	now     func() time.Time
	shelf   shelf
	refresh *refresher
}

// NewRing returns a Ring that holds nothing yet.
func NewRing(c RingConfig) (*Ring, error) {
	if c.Refresh == nil {
		return nil, access.Errorf(access.Invalid, "a ring needs somebody to ask for keys")
	}
	r := &Ring{now: wall(c.Now)}
	r.refresh = &refresher{now: r.now, timeout: 2 * timeout, run: func(ctx context.Context) error {
		all, err := c.Refresh(ctx)
		if err != nil {
			return fmt.Errorf("asking for the issuers' keys: %w", err)
		}
		return r.Set(all)
	}}
	return r, nil
}

// Set takes keys in, each issuer's unless newer ones are held. Issuers it does not name keep theirs until they are
// Stale. The error names issuers whose keys cannot be read; the others are taken in all the same.
func (r *Ring) Set(all []IssuerKeys) error {
	var failed []error
	for _, k := range all {
		set, err := parseKeys(k.JWKS)
		if err != nil {
			failed = append(failed, fmt.Errorf("keys of issuer %q: %w", k.Issuer, err))
			continue
		}
		now, fetched := r.now(), k.Fetched
		if fetched.After(now) {
			fetched = now // or keys from a clock ahead of ours would stay too long
		}
		r.shelf.put(k.Issuer, held{set: set, fetched: fetched}, now)
	}
	return errors.Join(failed...)
}

// Keys implements [KeySource].
func (r *Ring) Keys(ctx context.Context, issuer access.Issuer, kid string) (*jose.JSONWebKeySet, error) {
	return r.shelf.lookup(ctx, issuer.URL, kid, r.now, r.refresh)
}
