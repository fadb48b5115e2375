package broker

import (
	"encoding/json"
	"time"

	"sallyport/shared/access"
)

// A Raw is a request as the proxy received it, from which the broker computes everything itself.
type Raw struct {
	Method      string `json:"method"`
	Target      string `json:"target"` // path and query, as classified: without the prefix that chose the cluster
	ContentType string `json:"content_type,omitempty"`
	Body        []byte `json:"body,omitempty"`
}

// Evidence is what only the proxy can tell, as the session's base tier saw it: it has the cluster in view, the broker has not.
type Evidence struct {
	// Live is the object the request is about; absent when there is none or the tier may not read it.
	Live json.RawMessage `json:"live,omitempty"`
	// Missing is true when the cluster said that there is no such object.
	Missing  bool              `json:"missing,omitempty"`
	Affected []access.Affected `json:"affected,omitempty"`
	More     int               `json:"more,omitempty"`
}

// A ReviewRequest is the event of function review. Exactly one field is set.
type ReviewRequest struct {
	Open *Open `json:"open,omitempty"`
	Poll *Poll `json:"poll,omitempty"`
}

// Open asks humans about a request: it joins the approval that the same principal has for the same request, finds a grant
// that covers it, or opens an approval.
type Open struct {
	SubjectToken string   `json:"subject_token"` // the agent's own OIDC token
	Cluster      string   `json:"cluster"`
	Raw          Raw      `json:"raw"`
	Evidence     Evidence `json:"evidence"`
	Session      string   `json:"session"`          // the session's id
	Request      string   `json:"request"`          // the request's audit id
	Reason       string   `json:"reason,omitempty"` // the agent's own words
	// Peek only looks: nothing is opened. The answer's state is empty when there is nothing.
	Peek bool `json:"peek,omitempty"`
}

// Poll is a proxy task's one call a second.
type Poll struct {
	// Approvals are those that requests wait for, and those under which something is open.
	Approvals []string `json:"approvals,omitempty"`
	// Outcomes are how requests ended that an approval let through. They are told again until the call is answered.
	Outcomes []Outcome `json:"outcomes,omitempty"`
	// Keys is the digest of the issuers' keys the proxy holds (KeysDigest of an answer); equal, and they are not sent again.
	Keys string `json:"keys,omitempty"`
}

// An Outcome is how a request ended.
type Outcome struct {
	Approval string `json:"approval"`
	Request  string `json:"request"` // its audit id
	Code     int    `json:"code"`    // the HTTP status the agent was answered with
}

// A ReviewAnswer is what function review returns. Exactly one field is set.
type ReviewAnswer struct {
	Approval *Approval `json:"approval,omitempty"`
	State    *State    `json:"state,omitempty"`
	Error    *Error    `json:"error,omitempty"`
}

// An Approval is what the proxy may know of one.
type Approval struct {
	ID    string               `json:"id"`
	State access.ApprovalState `json:"state"`
	// Message is a sentence for the agent: who was asked, who said what and why.
	Message string    `json:"message,omitempty"`
	Expires time.Time `json:"expires"`
	Until   time.Time `json:"until,omitzero"` // of a grant
	// By is the audit id of the request that spent it.
	By string `json:"by,omitempty"`
	// Approvers are the people who said yes, by e-mail address; for the gate's record.
	Approvers []string `json:"approvers,omitempty"`
	// Joined says that the approval was there before this call.
	Joined bool `json:"joined,omitempty"`
}

// State answers Poll.
type State struct {
	Approvals []Approval `json:"approvals,omitempty"` // of those asked for; one that does not exist is left out
	Policy    Policy     `json:"policy"`
	// Issuers and KeysDigest are the issuers' keys; Issuers is empty when the proxy has them already.
	Issuers    []IssuerKeys `json:"issuers,omitempty"`
	KeysDigest string       `json:"keys_digest"`
}

// Redeem asks function exchange for the credentials of an approval's tier, for the request it is about or one that its
// grant covers. The approval's id alone redeems nothing: everything is computed again from the token and the raw request.
type Redeem struct {
	SubjectToken string   `json:"subject_token"`
	Cluster      string   `json:"cluster"`
	Raw          Raw      `json:"raw"`
	Evidence     Evidence `json:"evidence"` // as it is now
	Approval     string   `json:"approval"`
	Session      string   `json:"session"`
	Request      string   `json:"request"` // the audit id it is used under
}
