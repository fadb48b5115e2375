package inforce

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/identity"
	"sallyport/shared/policy"
)

// asymmetric are the algorithms taken from a reviewers' issuer of which the policy says nothing more than its address.
var asymmetric = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// A proof is how reviewers prove who they are: an issuer's token for an audience that no agent's token is for.
type proof struct{ issuer, audience string }

// reviewers verify reviewers' tokens. Each proof has a verifier of its own, so that what one issuer says of a person, or
// what a token for one audience is worth, never counts for another.
type reviewers struct {
	proofs    []access.Issuer
	verifiers map[proof]*identity.Verifier
}

// proofsOf are the issuers, each with the audience of a group, that reviewers prove themselves by. An issuer of agents is
// asked in the same way for reviewers; that is all the two have in common.
func proofsOf(p *policy.Policy) []access.Issuer {
	var proofs []access.Issuer
	seen := map[proof]bool{}
	for _, group := range p.Reviewers {
		key := proof{group.Issuer, group.Audience}
		if seen[key] {
			continue
		}
		seen[key] = true
		i := access.Issuer{
			URL: group.Issuer, Audience: group.Audience, Algorithms: asymmetric, Agent: "email",
			// Anybody can have an issuer put somebody else's address into a token, until the issuer has seen it proven.
			Require: []access.Condition{{Claim: "email_verified", Equals: []string{"true"}}},
		}
		if n := slices.IndexFunc(p.Issuers, func(of access.Issuer) bool { return of.URL == group.Issuer }); n >= 0 {
			i.Algorithms, i.JWKS, i.Private = p.Issuers[n].Algorithms, p.Issuers[n].JWKS, p.Issuers[n].Private
		}
		proofs = append(proofs, i)
	}
	return proofs
}

// newReviewers makes the verifiers. Keys of issuers that are agents' too come from where the agents' come from; the others
// have a source of their own, so that a reviewers' issuer that is slow holds up no agent.
func newReviewers(p *policy.Policy, proofs []access.Issuer, agents Keys, c Config) (*reviewers, error) {
	var others []access.Issuer
	for _, i := range proofs {
		same := func(of access.Issuer) bool { return of.URL == i.URL }
		if !slices.ContainsFunc(p.Issuers, same) && !slices.ContainsFunc(others, same) {
			others = append(others, i)
		}
	}
	source := sources{agents: agents, others: map[string]bool{}}
	if len(others) > 0 {
		var err error
		if source.own, err = c.Keys(others); err != nil {
			return nil, err
		}
		for _, i := range others {
			source.others[i.URL] = true
		}
	}
	r := &reviewers{proofs: proofs, verifiers: map[proof]*identity.Verifier{}}
	for _, i := range proofs {
		v, err := identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: source, Now: c.Now})
		if err != nil {
			return nil, access.Errorf(access.Invalid, "reviewers: %w", err)
		}
		r.verifiers[proof{i.URL, i.Audience}] = v
	}
	return r, nil
}

// sources takes each issuer's keys from the one source that fetches them.
type sources struct {
	agents, own Keys
	others      map[string]bool
}

func (s sources) Keys(ctx context.Context, issuer access.Issuer, kid string) (*jose.JSONWebKeySet, error) {
	if s.others[issuer.URL] {
		return s.own.Keys(ctx, issuer, kid)
	}
	return s.agents.Keys(ctx, issuer, kid)
}

// Reviewer says which person a token was issued to: one that an issuer of a reviewer group signed for that group's audience,
// with an e-mail address the issuer verified. Whether that person may answer something is for approval.Vote to say. Channel is
// left for the caller to set. Errors are of kind unauthenticated, denied or unavailable.
func (g *Generation) Reviewer(ctx context.Context, token string) (access.Reviewer, error) {
	by, err := g.reviewers.find(token)
	if err != nil {
		return access.Reviewer{}, err
	}
	id, err := g.reviewers.verifiers[by].Verify(ctx, token)
	if err != nil {
		return access.Reviewer{}, err
	}
	return access.Reviewer{Email: strings.ToLower(id.Principal.Agent), Issuer: by.issuer, Audience: by.audience, Subject: id.Principal.Subject}, nil
}

// find reads, without believing it, whose verifier the token is for.
func (r *reviewers) find(token string) (proof, error) {
	if len(token) > identity.MaxToken {
		return proof{}, access.Errorf(access.Unauthenticated, "the token is larger than %d bytes; send the JWT alone", identity.MaxToken)
	}
	var claims map[string]json.RawMessage
	parts := strings.Split(token, ".")
	if len(parts) == 3 {
		if payload, err := base64.RawURLEncoding.DecodeString(parts[1]); err == nil {
			_ = json.Unmarshal(payload, &claims) // nothing is found then
		}
	}
	var issuer, one string
	var many []string
	_ = json.Unmarshal(claims["iss"], &issuer)
	if json.Unmarshal(claims["aud"], &one) == nil {
		many = []string{one}
	} else {
		_ = json.Unmarshal(claims["aud"], &many)
	}
	for _, audience := range many {
		if by := (proof{issuer, audience}); r.verifiers[by] != nil {
			return by, nil
		}
	}
	for _, i := range r.proofs {
		if i.URL == issuer {
			return proof{}, access.Errorf(access.Unauthenticated, "this is no reviewer's token: reviewers of issuer %s bring one for the audience %q", issuer, i.Audience)
		}
	}
	return proof{}, access.Errorf(access.Unauthenticated, "this is no reviewer's token: none of the policy's reviewer groups is of its issuer; log in, or get one from the issuer the policy names for reviewers")
}

// Roster is who is in which group by this policy, and what proves it.
func (g *Generation) Roster() approval.Roster {
	r := approval.Roster{}
	for _, group := range g.Policy.Reviewers {
		of := approval.Group{Name: group.Name, Issuer: group.Issuer, Audience: group.Audience, People: group.People, Slack: map[string]string{}}
		if s := group.Slack; s != nil {
			for user, mail := range s.Users {
				of.Slack[s.Team+"/"+user] = mail
			}
		}
		r = append(r, of)
	}
	return r
}
