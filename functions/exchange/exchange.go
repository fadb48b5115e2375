package main

import (
	"context"
	"log/slog"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/credential"
)

// sessions keeps sessions; storetest holds its contract.
type sessions interface {
	Open(ctx context.Context, want access.Session, idle time.Duration, now time.Time) (access.Session, error)
}

// roles assumes a tier's role, for an approval unless that is empty. Errors are of kind unavailable; nothing is kept.
type roles interface {
	Assume(ctx context.Context, tier access.Tier, s access.Session, approval string, lifetime time.Duration) (access.Credential, error)
}

// clusters says where a cluster is.
type clusters interface {
	Endpoint(ctx context.Context, c access.Cluster) (access.Endpoint, error)
}

// approvals keeps approvals; store.Approvals.
type approvals interface {
	// Update changes an approval so that no two changes are made to the same one: change is called again on what another
	// made of it. What change returns an error for is not stored, unless the error is one of store.Keep.
	Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error)
}

type broker struct {
	masks     *maskKeys
	keeper    *inforce.Keeper
	sessions  sessions
	approvals approvals
	roles     roles
	clusters  clusters
	now       func() time.Time
	log       *slog.Logger
}

// handle answers one invocation. A refusal is an answer, not a fault of the function: Lambda's own error is left for
// what nobody foresaw.
func (b *broker) handle(ctx context.Context, req wire.Request) (wire.Answer, error) {
	switch {
	case req.Exchange != nil && req.Keys == nil && req.Redeem == nil:
		return b.exchange(ctx, *req.Exchange), nil
	case req.Keys != nil && req.Exchange == nil && req.Redeem == nil:
		return b.publish(ctx, *req.Keys), nil
	case req.Redeem != nil && req.Exchange == nil && req.Keys == nil:
		return b.redeem(ctx, *req.Redeem), nil
	}
	return wire.Refuse(access.Errorf(access.Invalid, "exactly one of exchange, keys and redeem is wanted")), nil
}

func (b *broker) exchange(ctx context.Context, req wire.Exchange) wire.Answer {
	token, outcome := b.issue(ctx, req)
	attrs := []any{"cluster", req.Audience, "token_sha256", outcome.token, "agent", outcome.agent}
	if outcome.err != nil {
		b.log.WarnContext(ctx, "exchange refused", append(attrs, inforce.Why(outcome.err)...)...)
		return wire.Refuse(outcome.err)
	}
	b.log.InfoContext(ctx, "exchange", append(attrs, "session", token.Session.ID, "tier", token.Session.Tier, "name", token.Session.Name, "expires_in", token.ExpiresIn)...)
	return wire.Answer{Token: token}
}

// outcome is what the log may say: the token's SHA-256, never the token.
type outcome struct {
	token, agent string
	err          error
}

func (b *broker) issue(ctx context.Context, req wire.Exchange) (*wire.Token, outcome) {
	var o outcome
	fail := func(err error) (*wire.Token, outcome) {
		o.err = err
		return nil, o
	}
	switch {
	case req.GrantType != wire.GrantType:
		return fail(access.Errorf(access.Invalid, "grant_type must be %s (RFC 8693 §2.1)", wire.GrantType))
	case req.SubjectTokenType != wire.SubjectTokenType:
		return fail(access.Errorf(access.Invalid, "subject_token_type must be %s (RFC 8693 §3)", wire.SubjectTokenType))
	case req.RequestedTokenType != "" && req.RequestedTokenType != wire.CredentialsType:
		return fail(access.Errorf(access.Invalid, "requested_token_type must be %s or absent", wire.CredentialsType))
	case req.SubjectToken == "":
		return fail(access.Errorf(access.Unauthenticated, "subject_token is missing: send the agent's own OIDC token"))
	}
	g, _, err := b.keeper.InForce(ctx)
	if err != nil {
		return fail(err)
	}
	id, err := g.Verify(ctx, req.SubjectToken)
	if err != nil {
		return fail(err)
	}
	o.token, o.agent = id.Token, id.Principal.Agent
	cluster, err := g.Policy.Cluster(req.Audience)
	if err != nil {
		return fail(err)
	}
	tier, err := g.Policy.Tier(id.Principal)
	if err != nil {
		return fail(err)
	}
	endpoint, err := b.clusters.Endpoint(ctx, cluster)
	if err != nil {
		return fail(err)
	}
	now := b.now().UTC().Truncate(time.Millisecond)
	session, err := b.sessions.Open(ctx, access.Session{
		ID:        inforce.NewID(),
		Principal: id.Principal,
		Cluster:   cluster.Name,
		Tier:      tier.Name,
		Name:      credential.Name(id.Principal),
		Started:   now,
		Seen:      now,
		Ends:      now.Add(g.Policy.Sessions.Longest),
		Policy:    g.Policy.Digest,
	}, g.Policy.Sessions.Idle, now)
	if err != nil {
		return fail(err)
	}
	key, err := b.masks.of(ctx, session.ID)
	if err != nil {
		return fail(err)
	}
	// The session ends when it ends: a credential that AWS lets live longer is not used longer by the proxy.
	cred, err := b.roles.Assume(ctx, tier, session, "", min(g.Policy.Sessions.Credential, session.Ends.Sub(now)))
	if err != nil {
		return fail(err)
	}
	token := answer(cred, session, cluster, endpoint, now)
	token.MaskKey = key
	return token, o
}

// answer is a credential on its way to the proxy.
func answer(cred access.Credential, s access.Session, c access.Cluster, at access.Endpoint, now time.Time) *wire.Token {
	return &wire.Token{
		IssuedTokenType: wire.CredentialsType,
		TokenType:       "N_A",
		ExpiresIn:       int64(cred.Expires.Sub(now) / time.Second),
		Credentials: wire.Credentials{
			AccessKeyID: cred.AccessKeyID, SecretAccessKey: cred.SecretAccessKey, SessionToken: cred.SessionToken, Expiration: cred.Expires,
		},
		Session: s,
		Cluster: wire.Cluster{Name: c.Name, Region: c.Region, Endpoint: at.URL, CA: at.CA},
	}
}

func (b *broker) publish(ctx context.Context, req wire.Keys) wire.Answer {
	g, refused, err := b.keeper.InForce(ctx)
	if err != nil {
		return wire.Refuse(err)
	}
	all, err := g.Held(ctx, req.Fresh, b.now())
	if err != nil {
		b.log.WarnContext(ctx, "not every issuer's keys can be had", "error", err.Error())
		if len(all) == 0 && req.Fresh {
			return wire.Refuse(access.Errorf(access.Unavailable, "no issuer's keys can be had now").Because(err).After(5 * time.Second))
		}
		// The proxy keeps what it has of the others until that is stale; one issuer that is away concerns only its own.
		// And whatever becomes of keys, it hears of the policy.
	}
	set := &wire.KeySet{Policy: wire.Policy{Digest: g.Policy.Digest, Version: g.Version, Refused: refused}}
	for _, k := range all {
		set.Issuers = append(set.Issuers, wire.IssuerKeys{Issuer: k.Issuer, JWKS: k.JWKS, Fetched: k.Fetched})
	}
	return wire.Answer{Keys: set}
}
