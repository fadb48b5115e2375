// Package identity answers "who asks?": it turns an OIDC token into an [access.Principal], or says why it cannot.
//
// # What it promises
//
// An Identity is returned only for a token that an issuer of the policy signed for this gate, that is valid now, whose
// claims meet every condition of that issuer, and whose names are safe to write into a header, a role session name, a
// log line and a page. Everything else is an [access.Error] of one of three kinds:
//
//   - Unauthenticated: the token proves nothing (malformed, another audience, expired, a bad signature).
//   - Denied: the token is genuine, and what it says is not allowed (a condition, a group, a name).
//   - Unavailable: the issuer's keys cannot be had, so nothing can be said. It never means yes.
//
// # Against whom
//
// Against a caller who writes any bytes as a bearer, holds genuine tokens of a trusted issuer for other audiences, and
// chooses the text in claims such as branch names. Steps run in this order, the cheap and the strict before the costly:
//
//	size cap → compact JWS, strict base64url → header by allow-list → payload as strict JSON, no member twice →
//	iss, aud, alg exactly → exp, nbf, iat → key by kid → signature → conditions → run, agent, owner, groups
//
// A header member that is not on the list is refused, not ignored: jku, x5u, x5c and jwk would let the caller bring the
// key, crit and b64 would change what is signed. Keys come from the issuer alone and are used only with the algorithm
// they are for. JSON names are compared byte by byte ("ISS" is not iss; Go's decoder would fold them), so no two
// parsers read two identities out of one token. go-oidc checks the signature, issuer and audience; this package's own
// checks come on top and never replace it.
//
// Addresses of issuers are checked after name resolution, when the connection is made, so neither a policy nor an
// issuer's discovery document can turn the broker against the network it runs in; see [Fetcher].
//
// # Time
//
// exp is taken at its word, without leeway; nbf and iat may be up to [Skew] ahead. A verified token is remembered by
// its SHA-256 until it expires and verified afresh at least every [Reverify]: a key that left the held set stops being
// accepted within that time. The held set itself is at most [Fresh] old while the issuer answers and at most [Stale]
// when it does not; past that every token of that issuer is Unavailable.
//
// # Blast radius
//
// A fault here is the worst there is: who can make this package name another principal has that principal's base tier.
// It is held twice, in the proxy and in the broker, from different key sources. A stolen issuer key is outside of its
// power: whoever signs as the issuer is whoever they say, within the conditions of the policy.
//
// # What it does not promise
//
// It does not know whether a token was revoked before it expires, nor whether its bearer is the one it was issued to:
// bearer tokens carry no proof of possession. It does not rate-limit callers. ECDSA signatures are malleable, so one
// token may have two spellings and two SHA-256; nothing may count on the hash for more than finding it in a log.
// Names are ASCII; a Kubernetes service account's own token (sub system:serviceaccount:…) is refused, because that
// prefix is the cluster's.
package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// The times tokens and keys are held to.
const (
	// Skew is how far ahead of our clock a token's nbf and iat may be.
	Skew = 60 * time.Second
	// Reverify is how long a verified token is believed before its signature is checked again.
	Reverify = 60 * time.Second
	// Fresh is how long an issuer's keys are used without asking for newer ones.
	Fresh = 5 * time.Minute
	// Stale is how long an issuer's keys are used when newer ones cannot be had.
	Stale = time.Hour
	// RefreshEvery is the least time between two attempts to get newer keys, whatever asks for them.
	RefreshEvery = 10 * time.Second
)

// MaxToken is the size in bytes past which a token is refused unread.
const MaxToken = 16 << 10

// remembered is how many verified tokens are kept; about 1 KiB each.
const remembered = 10_000

// Config is what a Verifier is made from.
type Config struct {
	// Issuers are the issuers that are trusted. Two with the same URL are refused.
	Issuers []access.Issuer
	// Keys holds their keys.
	Keys KeySource
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// An Identity is who asks and for how long that is known.
type Identity struct {
	Principal access.Principal
	// Expires is the token's exp: whatever was opened with the token must end then.
	Expires time.Time
	// NotBefore is the token's nbf, zero when it has none.
	NotBefore time.Time
	// Token is the SHA-256 of the token in lower-case hex. It may be logged; the token may not.
	Token string
}

// A Verifier verifies tokens. It is immutable but for its memory of verified tokens and safe for concurrent use;
// a new policy makes a new one.
type Verifier struct {
	issuers map[string]*trusted
	keys    KeySource
	now     func() time.Time
	memory  *memory
}

// trusted is an issuer with its conditions compiled.
type trusted struct {
	access.Issuer
	algorithms []jose.SignatureAlgorithm
	require    []condition
	groups     []groupRule
}

type groupRule struct {
	group string
	when  []condition
}

// New returns a Verifier. The error, of kind Invalid, names the issuer and what is wrong with it.
func New(c Config) (*Verifier, error) {
	if c.Keys == nil {
		return nil, access.Errorf(access.Invalid, "a verifier needs a source of keys")
	}
	if err := checkIssuers(c.Issuers); err != nil {
		return nil, err
	}
	v := &Verifier{issuers: map[string]*trusted{}, keys: c.Keys, now: wall(c.Now), memory: newMemory(remembered)}
	for _, i := range c.Issuers {
		t, err := trust(i)
		if err != nil {
			return nil, err
		}
		v.issuers[i.URL] = t
	}
	return v, nil
}

// Verify says who a token, without "Bearer ", was issued to. The error is always an *access.Error and never holds the
// token; its message says what is wrong and what to do about it.
func (v *Verifier) Verify(ctx context.Context, token string) (Identity, error) {
	if len(token) > MaxToken {
		return Identity{}, access.Errorf(access.Unauthenticated, "the bearer token is larger than %d bytes; send the JWT alone", MaxToken)
	}
	now := v.now()
	sum := sha256.Sum256([]byte(token))
	if id, ok := v.memory.get(sum, now); ok {
		return id, nil
	}
	id, err := v.verify(ctx, token, now)
	if err != nil {
		v.memory.forget(sum)
		return Identity{}, err
	}
	id.Token = hex.EncodeToString(sum[:])
	v.memory.put(sum, id, now)
	return id.clone(), nil
}

func (v *Verifier) verify(ctx context.Context, token string, now time.Time) (Identity, error) {
	j, err := split(token)
	if err != nil {
		return Identity{}, err
	}
	c, err := parseClaims(j.payload)
	if err != nil {
		return Identity{}, err
	}
	t, err := v.issuer(c)
	if err != nil {
		return Identity{}, err
	}
	if !slices.Contains(t.algorithms, j.header.alg) {
		return Identity{}, access.Errorf(access.Unauthenticated, "the token is signed with %s; this gate accepts %v from its issuer", short(string(j.header.alg)), t.algorithms)
	}
	if err := c.audience(t.Audience); err != nil {
		return Identity{}, err
	}
	id, err := c.times(now)
	if err != nil {
		return Identity{}, err
	}
	if err := v.signature(ctx, t, j, c); err != nil {
		return Identity{}, err
	}
	// From here on the claims are the issuer's word.
	id.Principal, err = t.principal(c)
	return id, err
}

func (v *Verifier) issuer(c claims) (*trusted, error) {
	iss, err := c.text("iss")
	if err != nil {
		return nil, access.Errorf(access.Unauthenticated, "the token does not say who issued it: %w", err)
	}
	t := v.issuers[iss]
	if t == nil {
		return nil, access.Errorf(access.Unauthenticated, "issuer %s is not trusted by this gate; ask who runs it to add it to the policy", short(iss))
	}
	return t, nil
}

// signature has go-oidc check the token against the key that the issuer publishes under the token's kid.
func (v *Verifier) signature(ctx context.Context, t *trusted, j jws, c claims) error {
	p := &proof{source: v.keys, issuer: t, header: j.header}
	_, err := oidc.NewVerifier(t.URL, p, &oidc.Config{
		ClientID:             t.Audience,
		SupportedSigningAlgs: t.Algorithms,
		SkipExpiryCheck:      true, // claims.times is stricter: no leeway for exp, Skew for nbf and iat
	}).Verify(ctx, j.raw)
	switch {
	case err == nil && p.verified:
		return nil
	case err == nil:
		return &access.Error{Kind: access.Internal, Message: "the token was not checked; nothing was done", Cause: errors.New("go-oidc asked for no signature")}
	case p.err != nil:
		return p.err
	case p.verified:
		// Genuine, and go-oidc stumbles over a claim. What this package says about such claims is more to the point.
		if _, err := t.principal(c); err != nil {
			return err
		}
		return access.Errorf(access.Unauthenticated, "the token's claims are not those of an OIDC token; ask its issuer").Because(err)
	}
	return access.Errorf(access.Unauthenticated, "the token cannot be verified; get a new one from its issuer").Because(err)
}

// proof is the oidc.KeySet of one token: it keeps the error as it was, which go-oidc turns into text.
type proof struct {
	source   KeySource
	issuer   *trusted
	header   header
	verified bool
	err      error
}

// VerifySignature implements [oidc.KeySet].
func (p *proof) VerifySignature(ctx context.Context, token string) ([]byte, error) {
	payload, err := p.verify(ctx, token)
	if err != nil {
		p.err = err
		return nil, err
	}
	p.verified = true
	return payload, nil
}

func (p *proof) verify(ctx context.Context, token string) ([]byte, error) {
	set, err := p.source.Keys(ctx, p.issuer.Issuer, p.header.kid)
	if err != nil {
		var e *access.Error
		if errors.As(err, &e) {
			return nil, e
		}
		return nil, unavailable(p.issuer.URL, RefreshEvery, err)
	}
	key, err := pick(set, p.header)
	if err != nil {
		return nil, err
	}
	parsed, err := jose.ParseSignedCompact(token, p.issuer.algorithms)
	if err != nil {
		return nil, access.Errorf(access.Unauthenticated, "the token is not a signed JWT; send the JWT alone").Because(err)
	}
	payload, err := parsed.Verify(key)
	if err != nil {
		return nil, access.Errorf(access.Unauthenticated, "the token's signature does not verify with its issuer's key; get a new one from its issuer").Because(err)
	}
	if !saltFits(key, p.header.alg, token) {
		return nil, access.Errorf(access.Unauthenticated, "the token's signature has a salt of another length than RFC 7518 §3.5 wants; have its issuer sign as it says")
	}
	return payload, nil
}

// principal builds who asks from the claims of a verified token.
func (t *trusted) principal(c claims) (access.Principal, error) {
	for _, r := range t.require {
		if !r.met(c) {
			return access.Principal{}, access.Errorf(access.Denied, "the token's claim %q is not what this gate requires of issuer %s; ask who runs the gate which values it accepts", r.claim, t.URL)
		}
	}
	p := access.Principal{Issuer: t.URL}
	var err error
	if p.Subject, err = c.name("sub"); err != nil {
		return access.Principal{}, err
	}
	p.Agent = p.Subject
	if t.Agent != "" {
		if p.Agent, err = c.name(t.Agent); err != nil {
			return access.Principal{}, err
		}
	}
	if owner, said := c[t.Owner]; t.Owner != "" && said && string(owner) != `""` {
		if p.Owner, err = c.name(t.Owner); err != nil {
			return access.Principal{}, err
		}
	}
	for _, claim := range t.Run {
		value, ok := c.scalar(claim)
		if !ok || value == "" {
			return access.Principal{}, access.Errorf(access.Denied, "the token lacks the claim %q, which tells this agent's runs apart; have its issuer add it", claim)
		}
		if err := checkText(value); err != nil {
			return access.Principal{}, access.Errorf(access.Denied, "the token's claim %q %w", claim, err)
		}
		if p.Run == nil {
			p.Run = map[string]string{}
		}
		p.Run[claim] = value
	}
	p.RunLink = t.runLink(c)
	p.Groups, err = t.groupsOf(c)
	if err != nil {
		return access.Principal{}, err
	}
	return p, nil
}

// groupsOf is the principal's groups, sorted, each once.
func (t *trusted) groupsOf(c claims) ([]string, error) {
	var groups []string
	if t.GroupsClaim != "" {
		if t.overage(c) {
			return nil, groupsUnknown()
		}
		if raw, ok := c[t.GroupsClaim]; ok {
			// A string is refused, not wrapped: "a b" and "a,b" would be read as one group by one reader and two by the next.
			var elements []json.RawMessage
			if raw[0] != '[' || json.Unmarshal(raw, &elements) != nil {
				return nil, access.Errorf(access.Denied, "the token's claim %q is not a list; have its issuer send a JSON array of strings", t.GroupsClaim)
			}
			if len(elements) > maxGroups {
				return nil, access.Errorf(access.Denied, "the token names %d groups; this gate reads %d. Have its issuer send only those assigned to the gate", len(elements), maxGroups)
			}
			for _, e := range elements {
				group, ok := text(e)
				if !ok {
					return nil, access.Errorf(access.Denied, "the token's claim %q holds something that is not a string; have its issuer send a JSON array of strings", t.GroupsClaim)
				}
				if err := checkName(group); err != nil {
					return nil, access.Errorf(access.Denied, "a group in the token's claim %q %w", t.GroupsClaim, err)
				}
				groups = append(groups, group)
			}
		}
	}
	for _, r := range t.groups {
		if !slices.ContainsFunc(r.when, func(c2 condition) bool { return !c2.met(c) }) {
			groups = append(groups, r.group)
		}
	}
	slices.Sort(groups)
	return slices.Clip(slices.Compact(groups)), nil
}

// overage reports whether the issuer left the groups out because there are too many, as Entra ID does: it then names
// an address to ask instead, or says hasgroups. The groups are then unknown, which is not the same as none.
func (t *trusted) overage(c claims) bool {
	if t.GroupsClaim == "" {
		return false
	}
	if raw, ok := c["hasgroups"]; ok && string(raw) != "false" {
		return true
	}
	raw, ok := c["_claim_names"]
	if !ok {
		return false
	}
	names, err := object(raw)
	if err != nil {
		return true
	}
	_, ok = names[t.GroupsClaim]
	_, groups := names["groups"]
	return ok || groups
}

func groupsUnknown() error {
	return access.Errorf(access.Denied, "groups unknown: the issuer left the groups out of the token because there are too many; have it send only those assigned to the gate")
}

// clone is a copy that shares nothing its holder could change.
func (id Identity) clone() Identity {
	id.Principal.Run = maps.Clone(id.Principal.Run)
	id.Principal.Groups = slices.Clone(id.Principal.Groups)
	return id
}

// short is s for a message: quoted, ASCII, of bounded length.
func short(s string) string {
	if len(s) > 200 {
		return fmt.Sprintf("%+q…", s[:200])
	}
	return fmt.Sprintf("%+q", s)
}
