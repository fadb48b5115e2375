package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/identity"
)

const (
	// keysTime is how long a poll waits for issuers that are slow: what was approved or revoked matters more.
	keysTime = 2500 * time.Millisecond
	// restTime is how long polls start no workflow after one could not be started.
	restTime = 5 * time.Second
)

// maxPolled is how many approvals one poll may ask about.
const maxPolled = 5000

// poll is the one call a second of a proxy task. It is answered whole or not at all: a proxy that is refused tells its
// outcomes again.
func (d *desk) poll(ctx context.Context, req wire.Poll) wire.ReviewAnswer {
	state, err := d.state(ctx, req)
	if err != nil {
		d.log.WarnContext(ctx, "poll refused", inforce.Why(err)...)
		return refuse(err)
	}
	return wire.ReviewAnswer{State: &state}
}

func (d *desk) state(ctx context.Context, req wire.Poll) (wire.State, error) {
	var s wire.State
	now := d.clock()
	g, refused, err := d.keeper.InForce(ctx)
	if err != nil {
		return s, err
	}
	s.Policy = wire.Policy{Digest: g.Policy.Digest, Version: g.Version, Refused: refused}
	if err := d.approve(ctx, req, now, &s); err != nil {
		return s, err
	}
	s.Issuers, s.KeysDigest = d.issuers(ctx, g, now)
	if s.KeysDigest == req.Keys {
		s.Issuers = nil
	}
	return s, nil
}

// approve stores the outcomes, and finds what became of the approvals.
func (d *desk) approve(ctx context.Context, req wire.Poll, now time.Time, s *wire.State) error {
	ids, asked := slices.Clone(req.Approvals), map[string]bool{}
	for _, id := range req.Approvals {
		asked[id] = true
	}
	for _, o := range req.Outcomes {
		ids = append(ids, o.Approval)
	}
	slices.Sort(ids)
	ids = slices.DeleteFunc(slices.Compact(ids), func(id string) bool { return !inforce.Label.MatchString(id) })
	if len(ids) > maxPolled {
		return access.Errorf(access.Invalid, "a poll asks about at most %d approvals; this one asks about %d", maxPolled, len(ids))
	}
	if len(ids) == 0 {
		return nil
	}
	all, err := d.approvals.GetAll(ctx, ids)
	if err != nil {
		return err
	}
	for _, o := range req.Outcomes {
		a, found := all[o.Approval]
		if !found || !news(a, o, now) {
			continue // there is nothing to store, or it was told before
		}
		a, err := d.approvals.Update(ctx, o.Approval, func(a *access.Approval) error {
			approval.Outcome(a, o.Request, o.Code, now)
			return nil
		})
		switch {
		case access.KindOf(err) == access.NotFound:
			continue
		case err != nil:
			return err
		}
		all[o.Approval] = a
	}
	for _, id := range ids {
		a, found := all[id]
		if !found || !asked[id] {
			continue
		}
		answer := d.answer(a, now)
		s.Approvals = append(s.Approvals, answer)
		// Who holds a connection open asks nothing again, so its workflow is looked after here. The answer does not depend on
		// it, and does not wait for it again and again.
		if d.rested(now) {
			if err := d.run(ctx, a, answer.State, now); err != nil {
				d.rest(now)
			}
		}
	}
	return nil
}

// news says whether an outcome changes anything about its approval.
func news(a access.Approval, o wire.Outcome, now time.Time) bool {
	a.Uses, a.History = slices.Clone(a.Uses), slices.Clone(a.History)
	return approval.Outcome(&a, o.Request, o.Code, now)
}

// issuers are the agents' issuers' keys, and their digest.
func (d *desk) issuers(ctx context.Context, g *inforce.Generation, now time.Time) ([]wire.IssuerKeys, string) {
	ctx, cancel := context.WithTimeout(ctx, keysTime)
	defer cancel()
	held, err := g.Held(ctx, false, now)
	if err != nil {
		// The proxy keeps what it has of the others until that is stale; one issuer that is away concerns only its own.
		d.log.WarnContext(ctx, "not every issuer's keys can be had", "error", err.Error())
	}
	all := make([]wire.IssuerKeys, 0, len(held))
	for _, k := range held {
		all = append(all, wire.IssuerKeys{Issuer: k.Issuer, JWKS: k.JWKS, Fetched: k.Fetched})
	}
	return all, digest(held)
}

// digest names a set of keys, and when each was fetched: a proxy must learn that keys it has are still an issuer's.
func digest(keys []identity.IssuerKeys) string {
	h := sha256.New()
	part := func(b []byte) {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(b)))
		h.Write(n[:])
		h.Write(b)
	}
	for _, k := range keys {
		part([]byte(k.Issuer))
		part([]byte(k.Fetched.UTC().Format(time.RFC3339Nano)))
		part(k.JWKS)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (d *desk) rested(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	since := now.Sub(d.failed)
	return since < 0 || since >= restTime
}

func (d *desk) rest(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed = now
}
