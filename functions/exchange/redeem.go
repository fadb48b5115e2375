package main

import (
	"context"
	"slices"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/credential"
	"sallyport/shared/store"
)

const (
	// undoTime is how long giving an approval back may take, however little time the caller had left.
	undoTime = 3 * time.Second
	// undoUntil is how long after it was spent an approval may be given back: well before anybody is told that the outcome is
	// not known.
	undoUntil = time.Minute
)

// redeem turns an approval into the credentials of its tier, for one request.
func (b *broker) redeem(ctx context.Context, req wire.Redeem) wire.Answer {
	r := redemption{Redeem: req, now: b.now().UTC().Truncate(time.Millisecond)}
	token, err := b.mint(ctx, &r)
	attrs := []any{"cluster", req.Cluster, "approval", req.Approval, "request", req.Request, "token_sha256", r.token, "agent", r.principal.Agent}
	if err != nil {
		b.log.WarnContext(ctx, "redeem refused", append(attrs, inforce.Why(err)...)...)
		return wire.Refuse(err)
	}
	b.log.InfoContext(ctx, "redeem", append(attrs, "session", token.Session.ID, "tier", token.Tier, "name", token.Session.Name, "state", token.Approval.State, "expires_in", token.ExpiresIn)...)
	return wire.Answer{Token: token}
}

// A redemption is what the proxy asks for, and who was found to ask it.
type redemption struct {
	wire.Redeem
	principal access.Principal
	token     string // SHA-256 of the agent's token
	now       time.Time
}

// mint does everything that can fail without a trace first, then spends the approval, then assumes the role. What the
// proxy says is an approval's id, a label for the session and what it saw of the target: everything else is found out here.
func (b *broker) mint(ctx context.Context, r *redemption) (*wire.Token, error) {
	switch {
	case r.SubjectToken == "":
		return nil, access.Errorf(access.Unauthenticated, "subject_token is missing: send the agent's own OIDC token")
	case !inforce.Label.MatchString(r.Approval), !inforce.Label.MatchString(r.Session), !inforce.Label.MatchString(r.Request):
		return nil, access.Errorf(access.Invalid, "approval, session and request must be names of up to 64 letters, digits, hyphens and underscores")
	}
	g, err := b.keeper.Latest(ctx)
	if err != nil {
		return nil, err
	}
	id, err := g.Verify(ctx, r.SubjectToken)
	if err != nil {
		return nil, err
	}
	r.token, r.principal = id.Token, id.Principal
	ruling, err := g.Judge(id.Principal, r.Cluster, r.Raw, r.Evidence, r.now)
	if err != nil {
		return nil, err
	}
	cluster, err := g.Policy.Cluster(r.Cluster)
	if err != nil {
		return nil, err
	}
	endpoint, err := b.clusters.Endpoint(ctx, cluster)
	if err != nil {
		return nil, err
	}
	// From here on there is something to give back, and the function must not end before it was.
	if deadline, ends := ctx.Deadline(); ends {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-undoTime-undoTime/4))
		defer cancel()
	}
	a, use, err := b.spend(ctx, r, ruling)
	if err != nil {
		return nil, err
	}
	// The approval's tier, in today's words: spend refuses when today's rule asks for another.
	i := slices.IndexFunc(g.Policy.Tiers, func(t access.Tier) bool { return t.Name == a.Decision.Tier })
	if i < 0 {
		return nil, b.undo(ctx, a.ID, use, access.Errorf(access.Denied, "tier %q of the approval is not in the policy any more; nothing was forwarded, ask again", a.Decision.Tier))
	}
	tier := g.Policy.Tiers[i]
	session := access.Session{
		ID: r.Session, Principal: id.Principal, Cluster: cluster.Name, Tier: ruling.Tier.Name, Name: credential.Name(id.Principal),
		Started: r.now, Seen: r.now, Ends: r.now.Add(credential.Shortest), Policy: g.Policy.Digest,
	}
	cred, err := b.roles.Assume(ctx, tier, session, a.ID, credential.Shortest)
	if err != nil {
		return nil, b.undo(ctx, a.ID, use, err)
	}
	token := answer(cred, session, cluster, endpoint, r.now)
	shown := inforce.Answer(a, r.now)
	token.Approval, token.Tier = &shown, tier.Name
	return token, nil
}

// spend is the one conditional write that lets exactly one request through, or one more under a grant. It is durable before
// any credential exists. What it refuses is kept too: the question is not the same any more, or somebody tried what they may
// not.
func (b *broker) spend(ctx context.Context, r *redemption, ruling inforce.Ruling) (access.Approval, access.Use, error) {
	use := access.Use{Request: r.Request, At: r.now}
	a, err := b.approvals.Update(ctx, r.Approval, func(a *access.Approval) error {
		return store.Keep(approval.Redeem(a, approval.Redemption{
			Digest: ruling.Digest, Principal: r.principal, Cluster: r.Cluster, Action: ruling.Action, Decision: ruling.Decision,
			Target: approval.Target(ruling.Live), Use: use,
		}, r.now))
	})
	if access.KindOf(err) == access.Unavailable { // it may have been written all the same
		err = b.undo(ctx, r.Approval, use, err)
	}
	return a, use, err
}

// undo gives an approval back that was spent on a request for which no credential could be had: nothing was forwarded. It
// takes away exactly that use. When it cannot, the use stays, and its outcome is one that nobody knows: the yes is lost
// rather than worth two requests. It returns what the caller is told.
func (b *broker) undo(ctx context.Context, id string, use access.Use, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTime)
	defer cancel()
	_, err := b.approvals.Update(ctx, id, func(a *access.Approval) error {
		i := slices.IndexFunc(a.Uses, func(u access.Use) bool { return u.Request == use.Request && u.At.Equal(use.At) })
		switch {
		case i < 0:
			// It was not kept, and must not be later: a write that was given up may still be on its way, and this one, whose
			// revision comes before it, has it refused.
			if a.State == access.StateApproved || a.State == access.StateGranted {
				approval.Note(a, "unspent", use.Request, "whether it was used was not known; it was not", b.now())
			}
			return nil
		case a.Uses[i].Code != 0 || b.now().Sub(use.At) > undoUntil:
			return access.Errorf(access.Conflict, "somebody may count on that use by now")
		}
		a.Uses = slices.Delete(a.Uses, i, i+1)
		if a.State == access.StateSpent {
			a.State, a.Ended = access.StateApproved, time.Time{}
		}
		approval.Note(a, "unspent", use.Request, "no credential could be had for it, so nothing was forwarded", b.now())
		return nil
	})
	if err == nil {
		return cause
	}
	b.log.ErrorContext(ctx, "an approval was spent and cannot be given back; its outcome will be unknown", append([]any{"approval", id, "request", use.Request}, inforce.Why(err)...)...)
	return access.Errorf(access.Unavailable, "the credential that the approval is for could not be had, and the approval could not be given back: it may count as used, with an outcome nobody knows. Nothing was forwarded; ask again").Because(cause)
}
