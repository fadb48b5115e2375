package access

import "time"

// An Approval is one question to humans, about one request, and its answer. It is kept by package store and changed only
// by the transitions of package approval.
type Approval struct {
	ID string `json:"id"` // 26 characters of lower-case base32; it opens nothing by itself
	// Digest is what a yes is bound to: approval.Digest of the raw request, the cluster and the principal.
	Digest    string        `json:"digest"`
	State     ApprovalState `json:"state"`
	Principal Principal     `json:"principal"`
	Session   string        `json:"session"` // the session it was asked in
	Request   string        `json:"request"` // the audit id of the request that opened it
	Cluster   string        `json:"cluster"`
	Action    Action        `json:"action"`
	Decision  Decision      `json:"decision"` // of the policy when it was asked: rule, tier, obligations
	Kubectl   string        `json:"kubectl"`  // the command line, safe to show (package view)
	Sentence  string        `json:"sentence"` // the same as a sentence, safe to show
	Reason    string        `json:"reason,omitempty"`
	Target    Target        `json:"target"`
	Opened    time.Time     `json:"opened"`
	Expires   time.Time     `json:"expires"` // a question that is not answered, or a yes that is not used, by then is over
	// Reviewers are the groups that may answer now; escalation adds to those of the decision.
	Reviewers []string `json:"reviewers"`
	Votes     []Vote   `json:"votes,omitempty"`
	// Grant is what the reviewers gave, and Until when that ends; set when it was approved.
	Grant Grant     `json:"grant"`
	Until time.Time `json:"until,omitzero"`
	// Message is for the agent: why it was denied, withdrawn or revoked, in the words of whoever did.
	Message string    `json:"message,omitempty"`
	Ended   time.Time `json:"ended,omitzero"` // when State became one that is final
	// Uses are the requests it let through: one for a yes to one request, any number for a grant (the last few are kept).
	Uses    []Use     `json:"uses,omitempty"`
	History []History `json:"history,omitempty"` // what happened, oldest first
	// Notified is when somebody could first be reached; zero until then.
	Notified time.Time `json:"notified,omitzero"`
	// Started counts the executions of the workflow that were started for it.
	Started int `json:"started,omitempty"`
}

// An ApprovalState is how far an approval has come.
type ApprovalState string

// The states there are. Pending becomes Approved, Granted, Denied, Expired or Withdrawn; Approved becomes Spent, Expired,
// Withdrawn or Revoked; Granted becomes Expired, Withdrawn or Revoked. The others are final.
const (
	StatePending   ApprovalState = "pending"
	StateApproved  ApprovalState = "approved"  // this request may pass, once, until Expires
	StateGranted   ApprovalState = "granted"   // a scope may pass until Until
	StateDenied    ApprovalState = "denied"    // a reviewer said no, or nobody could be asked
	StateExpired   ApprovalState = "expired"   // nobody answered, or nobody used the answer, in time
	StateSpent     ApprovalState = "spent"     // the one request passed
	StateWithdrawn ApprovalState = "withdrawn" // the target or the policy changed, so the question is not the same any more
	StateRevoked   ApprovalState = "revoked"   // a reviewer took it back
)

// A Target is the object an approval is about as it was when it was asked about, in the proxy's words. Zero when the
// request names none, or it does not exist.
type Target struct {
	UID        string `json:"uid,omitempty"`
	Generation int64  `json:"generation,omitempty"` // zero for kinds that have none
	// Hash is of what the reviewer saw of the object, where there is no generation: without its status, managedFields and
	// resourceVersion.
	Hash string `json:"hash,omitempty"`
}

// A Reviewer is a person who may answer: one for every channel.
type Reviewer struct {
	Email   string `json:"email"` // lower case; the person
	Issuer  string `json:"issuer,omitempty"`
	Subject string `json:"subject,omitempty"`
	// Audience is what their token was for: with Issuer it says of which groups they brought the proof.
	Audience string `json:"audience,omitempty"`
	Slack    string `json:"slack,omitempty"` // team/user, when that is how they came
	Channel  string `json:"channel"`         // page, cli, slack, mail
}

// A Vote is one reviewer's answer.
type Vote struct {
	By     Reviewer  `json:"by"`
	Yes    bool      `json:"yes"`
	Grant  Grant     `json:"grant"` // of a yes: what they would give
	Reason string    `json:"reason,omitempty"`
	At     time.Time `json:"at"`
}

// A Use is one request that an approval let through.
type Use struct {
	Request string    `json:"request"` // its audit id
	At      time.Time `json:"at"`
	// Code is the HTTP status it was answered with; zero while that is not known.
	Code int `json:"code,omitempty"`
}

// A History is one thing that happened to an approval.
type History struct {
	At   time.Time `json:"at"`
	What string    `json:"what"`           // opened, joined, notified, unreached, reminded, escalated, failed, vote, approved, denied, expired, spent, outcome, withdrawn, revoked, refused
	By   string    `json:"by,omitempty"`   // who, safe to show
	Text string    `json:"text,omitempty"` // more, safe to show
}

// A View is what a reviewer is shown of a request beside the words of the Approval. All text in it is safe to show: what
// could deceive a reader (control, bidirectional, zero-width characters) was made visible, and secrets were masked.
type View struct {
	Argv []string `json:"argv,omitempty"` // of an exec, exactly
	// Diff is a unified diff of the object's YAML, from the live object to what the request makes of it; of a create, the
	// whole object as added lines.
	Diff string `json:"diff,omitempty"`
	// Approximate says why Diff may not be exactly what the cluster will make; empty when it is.
	Approximate string `json:"approximate,omitempty"`
	// Affected are the objects that a selector matches, or that go with the object; More is how many beyond those.
	Affected []Affected `json:"affected,omitempty"`
	More     int        `json:"more,omitempty"`
	// Notes are sentences a reviewer must know: "stdin is not approved".
	Notes []string `json:"notes,omitempty"`
	// Live says that a live object was seen: the one thing on the page that is the proxy's word.
	Live bool `json:"live,omitempty"`
}

// An Affected is an object that a request takes along.
type Affected struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Owner     string `json:"owner,omitempty"` // what controls it, such as ReplicaSet/web-5d4f
}
