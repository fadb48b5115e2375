package access

// An Issuer is an OIDC provider the gate trusts, and how its tokens are read. It is part of the policy file.
type Issuer struct {
	// URL is the token's iss, compared exactly (OpenID Connect Core §3.1.3.7).
	URL string
	// Audience is the gate's own audience at this issuer. A token must carry exactly this one.
	Audience string
	// Algorithms are the JWS algorithms accepted from this issuer: RS256, RS384, RS512, PS256, PS384, PS512, ES256,
	// ES384, ES512 or EdDSA. Never empty.
	Algorithms []string
	// JWKS is the address of the issuer's keys; empty means its discovery document says (RFC 8414).
	JWKS string
	// Private allows addresses that are loopback, link-local or private, and plain http to loopback. Off, such an
	// issuer is refused, so that a policy cannot turn the broker against the network it runs in.
	Private bool
	// Agent is the claim that names the agent; empty means sub.
	Agent string
	// Owner is the claim that names who answers for the agent; empty means nobody is named.
	Owner string
	// Run are the claims that tell one run from the next. A token that lacks one is refused.
	Run []string
	// RunLink is the address of a run for people, with claims in braces: https://github.com/{repository}/actions/runs/{run_id}.
	// Every claim is escaped as one path segment, but for the slash of repository names. Empty for none.
	RunLink string
	// Require are conditions that every token must meet.
	Require []Condition
	// GroupsClaim is the claim that lists the principal's groups, a JSON array of strings; empty means none does.
	GroupsClaim string
	// Groups gives groups to tokens that meet conditions, for issuers that have no groups claim.
	Groups []GroupRule
}

// A Condition is met when a claim's value is one of Equals, or matches the anchored pattern Matches.
// Numbers and booleans are compared in their JSON spelling. Arrays and objects meet no condition.
type Condition struct {
	Claim   string
	Equals  []string
	Matches string // anchored: begins with ^ and ends with $
}

// A GroupRule puts a principal into Group when its token meets every condition of When.
type GroupRule struct {
	Group string
	When  []Condition
}
