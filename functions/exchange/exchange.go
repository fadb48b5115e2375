package main

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"log/slog"
	"strings"
	"sync"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
	"sallyport/shared/credential"
	"sallyport/shared/identity"
	"sallyport/shared/policystore"
)

// Verifier says who a token was issued to. Safe for concurrent use; errors are of kind unauthenticated, denied or
// unavailable.
type verifier interface {
	Verify(ctx context.Context, token string) (identity.Identity, error)
}

// keys hands out the public keys of the issuers, none older than it may be. The error is about issuers that are missing
// or could not be refreshed; what is returned is good all the same.
type keys interface {
	All(ctx context.Context) ([]identity.IssuerKeys, error)
}

// sessions keeps sessions; storetest holds its contract.
type sessions interface {
	Open(ctx context.Context, want access.Session, idle time.Duration, now time.Time) (access.Session, error)
}

// roles assumes a tier's role. Errors are of kind unavailable; nothing is kept.
type roles interface {
	Assume(ctx context.Context, tier access.Tier, s access.Session, lifetime time.Duration) (access.Credential, error)
}

// clusters says where a cluster is.
type clusters interface {
	Endpoint(ctx context.Context, c access.Cluster) (access.Endpoint, error)
}

// policies finds the policy in force; policystore.Follower. An error is of kind unavailable; what was in force before is
// returned with it.
type policies interface {
	Look(ctx context.Context) (policystore.Look, error)
}

type broker struct {
	policies policies
	build    func(name string, file []byte, old *generation) (*generation, error)
	sessions sessions
	roles    roles
	clusters clusters
	now      func() time.Time
	log      *slog.Logger

	mu      sync.Mutex
	current *generation // nil until a policy is in force, and never nil again
	next    *generation // what load made of the last file that is a policy
	refused *wire.Refusal
	looked  time.Time
}

// handle answers one invocation. A refusal is an answer, not a fault of the function: Lambda's own error is left for
// what nobody foresaw.
func (b *broker) handle(ctx context.Context, req wire.Request) (wire.Answer, error) {
	switch {
	case req.Exchange != nil && req.Keys == nil:
		return b.exchange(ctx, *req.Exchange), nil
	case req.Keys != nil && req.Exchange == nil:
		return b.publish(ctx, *req.Keys), nil
	}
	return wire.Refuse(access.Errorf(access.Invalid, "exactly one of exchange and keys is wanted")), nil
}

func (b *broker) exchange(ctx context.Context, req wire.Exchange) wire.Answer {
	token, outcome := b.issue(ctx, req)
	attrs := []any{"cluster", req.Audience, "token_sha256", outcome.token, "agent", outcome.agent}
	if outcome.err != nil {
		e := access.AsError(outcome.err)
		attrs = append(attrs, "kind", e.Kind, "message", e.Message)
		if e.Cause != nil {
			attrs = append(attrs, "cause", e.Cause.Error())
		}
		b.log.WarnContext(ctx, "exchange refused", attrs...)
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
	g, _, err := b.inForce(ctx)
	if err != nil {
		return fail(err)
	}
	id, err := g.verifier.Verify(ctx, req.SubjectToken)
	if err != nil {
		return fail(err)
	}
	o.token, o.agent = id.Token, id.Principal.Agent
	cluster, err := g.policy.Cluster(req.Audience)
	if err != nil {
		return fail(err)
	}
	tier, err := g.policy.Tier(id.Principal)
	if err != nil {
		return fail(err)
	}
	endpoint, err := b.clusters.Endpoint(ctx, cluster)
	if err != nil {
		return fail(err)
	}
	now := b.now().UTC().Truncate(time.Millisecond)
	session, err := b.sessions.Open(ctx, access.Session{
		ID:        newID(),
		Principal: id.Principal,
		Cluster:   cluster.Name,
		Tier:      tier.Name,
		Name:      credential.Name(id.Principal),
		Started:   now,
		Seen:      now,
		Ends:      now.Add(g.policy.Sessions.Longest),
		Policy:    g.policy.Digest,
	}, g.policy.Sessions.Idle, now)
	if err != nil {
		return fail(err)
	}
	// The session ends when it ends: a credential that AWS lets live longer is not used longer by the proxy.
	cred, err := b.roles.Assume(ctx, tier, session, min(g.policy.Sessions.Credential, session.Ends.Sub(now)))
	if err != nil {
		return fail(err)
	}
	return &wire.Token{
		IssuedTokenType: wire.CredentialsType,
		TokenType:       "N_A",
		ExpiresIn:       int64(cred.Expires.Sub(now) / time.Second),
		Credentials: wire.Credentials{
			AccessKeyID: cred.AccessKeyID, SecretAccessKey: cred.SecretAccessKey, SessionToken: cred.SessionToken, Expiration: cred.Expires,
		},
		Session: session,
		Cluster: wire.Cluster{Name: cluster.Name, Region: cluster.Region, Endpoint: endpoint.URL, CA: endpoint.CA},
	}, o
}

func (b *broker) publish(ctx context.Context, req wire.Keys) wire.Answer {
	g, refused, err := b.inForce(ctx)
	if err != nil {
		return wire.Refuse(err)
	}
	all, err := g.held(ctx, req.Fresh, b.now())
	if err != nil {
		b.log.WarnContext(ctx, "not every issuer's keys can be had", "error", err.Error())
		if len(all) == 0 && req.Fresh {
			return wire.Refuse(access.Errorf(access.Unavailable, "no issuer's keys can be had now").Because(err).After(5 * time.Second))
		}
		// The proxy keeps what it has of the others until that is stale; one issuer that is away concerns only its own.
		// And whatever becomes of keys, it hears of the policy.
	}
	set := &wire.KeySet{Policy: wire.Policy{Digest: g.policy.Digest, Version: g.version, Refused: refused}}
	for _, k := range all {
		set.Issuers = append(set.Issuers, wire.IssuerKeys{Issuer: k.Issuer, JWKS: k.JWKS, Fetched: k.Fetched})
	}
	return wire.Answer{Keys: set}
}

// newID is 128 random bits in lower-case base32: unguessable, and safe in keys, paths and tags.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
