package access

import "time"

// An Effect is what a decision comes to.
type Effect string

// The effects there are. The zero value is no effect: it must be treated as Deny.
const (
	Allow Effect = "allow"
	Ask   Effect = "ask"
	Deny  Effect = "deny"
)

// A Decision is the answer to an Action.
type Decision struct {
	Effect Effect `json:"effect"`
	Rule   string `json:"rule"`   // the rule that decided; "default" when none did
	Tier   string `json:"tier"`   // the tier the request is forwarded as, or would be once a human said yes
	Policy string `json:"policy"` // digest of the policy that decided
	// Message is a sentence for whoever asked: what was decided and what to do about it.
	Message string `json:"message,omitempty"`
	// Near are the rules that nearly let the action through, each as a sentence that says what it lacks.
	Near []string `json:"near,omitempty"`
	// Obligations come with an Allow or an Ask.
	Obligations Obligations `json:"obligations"`
	// Observed is what would have been decided were the rule, or the policy, not in observe mode. Effect is Allow then,
	// Tier is the base tier, and the tier's RBAC alone decides.
	Observed *Decision `json:"observed,omitempty"`
}

// Obligations are what an answer is tied to.
type Obligations struct {
	Reviewers []string      `json:"reviewers,omitempty"` // groups of reviewers, any of which may answer
	Quorum    int           `json:"quorum,omitempty"`    // how many distinct people must say yes
	Expires   time.Duration `json:"expires,omitempty"`   // how long the question stands
	Grant     Grant         `json:"grant"`               // the most that a yes may give
	// Remind is how long after the question the reviewers are reminded; zero for never.
	Remind time.Duration `json:"remind,omitempty"`
	// Escalate is when others may answer too; its After is zero for never.
	Escalate Escalate `json:"escalate"`
	// Links is "alone" where a mail link decides without a login; otherwise "login" or empty.
	Links string `json:"links,omitempty"`
	Mask  string `json:"mask,omitempty"` // "on", or "off" where a rule says so
	// Binary is "block" where nothing but text may come out of a stream; otherwise "pass" or empty.
	Binary string `json:"binary,omitempty"`
	Record string `json:"record,omitempty"` // "full" or "metadata"
}

// An Escalate names who may answer as well when nobody did for a while.
type Escalate struct {
	After     time.Duration `json:"after,omitempty"`
	Reviewers []string      `json:"reviewers,omitempty"`
}

// A Grant is what a yes gives: this request once, or a scope for a time that starts when it was approved.
type Grant struct {
	Scope  Scope         `json:"scope,omitempty"`
	Length time.Duration `json:"length,omitempty"` // zero for ScopeRequest
}

// A Scope is how far a grant reaches.
type Scope string

// The scopes there are.
const (
	ScopeRequest   Scope = "request"   // exactly this request, once
	ScopeObject    Scope = "object"    // this verb on this object
	ScopeNamespace Scope = "namespace" // this verb on this resource in this namespace
)
