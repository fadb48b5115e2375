// Package access holds the words Sallyport is spoken in: who asks (Principal), for how long (Session), with how much
// power (Tier), what a request would do (Action), and what is answered (Decision, Error).
//
// It imports only the standard library. Everything that reaches outside, to an issuer, to AWS, to a cluster, is an
// adapter that imports this package; adapters never import one another. A test at the root of the module holds that law.
package access

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Principal is who asks: a subject an issuer vouches for, and the claims that identify the run it is in.
// It is built only by package identity, from a verified token.
type Principal struct {
	Issuer  string `json:"issuer"`  // the token's iss, exactly as trusted
	Subject string `json:"subject"` // the token's sub
	// Agent is the name shown to people and written into the role session name. It is not unique: Key is.
	Agent string `json:"agent"`
	// Run holds the claims that tell one run of the agent from the next, such as run_id. It never holds jti or iat:
	// a renewed token belongs to the same run.
	Run    map[string]string `json:"run,omitempty"`
	Owner  string            `json:"owner,omitempty"` // who answers for the agent; empty when the issuer does not say
	Groups []string          `json:"groups,omitempty"`
	// RunLink is where a person can look at the run, https; empty when the policy does not say for this issuer.
	RunLink string `json:"runLink,omitempty"`
}

// Key identifies the principal and its run: equal for every token of one run, different for any other.
// It is 26 characters of lower-case base32, safe in keys and paths.
func (p Principal) Key() string {
	parts := []string{p.Issuer, p.Subject}
	for _, k := range slices.Sorted(maps.Keys(p.Run)) {
		parts = append(parts, k, p.Run[k])
	}
	return Digest(parts...)
}

// Digest is a short collision-resistant name for a list of strings: 128 bits of SHA-256 over the length-prefixed
// parts, so that no two different lists share one encoding, in 26 characters of lower-case base32.
func Digest(parts ...string) string {
	h := sha256.New()
	var n [8]byte
	for _, p := range parts {
		binary.BigEndian.PutUint64(n[:], uint64(len(p)))
		h.Write(n[:])
		h.Write([]byte(p))
	}
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(h.Sum(nil)[:16]))
}

// A Tier is a level of power: one IAM role, one EKS access entry per cluster, one Kubernetes group, one RBAC binding.
type Tier struct {
	Name string `json:"name"`
	// Role is the ARN of the IAM role the broker assumes for this tier. Its last path element is the tier's name, so
	// that the cluster's audit log reads assumed-role/<tier>/<agent>-<hash>.
	Role string `json:"role"`
	// Group is the Kubernetes group the tier's access entry carries and its RBAC binding names.
	Group string `json:"group"`
	// Groups are the principals' groups that have this tier as their base tier.
	Groups []string `json:"groups"`
}

// A Cluster is an EKS cluster behind the gate.
type Cluster struct {
	Name   string   `json:"name"`
	Region string   `json:"region"`
	Hosts  []string `json:"hosts,omitempty"` // host names of the gate that mean this cluster
}

// A Session is one principal's time on one cluster, with a start, an end and a recording.
type Session struct {
	ID        string    `json:"id"`
	Principal Principal `json:"principal"`
	Cluster   string    `json:"cluster"`
	Tier      string    `json:"tier"` // the base tier
	// Name is the role session name: the agent's name, made safe, and a hash of the whole principal.
	Name    string    `json:"name"`
	Started time.Time `json:"started"`
	// Ends is when the session is over however busy it is.
	Ends time.Time `json:"ends"`
	// Seen is when the broker last heard of the session; one not heard of for the idle time is over.
	Seen time.Time `json:"seen"`
	// Policy is the digest of the policy the session was opened under.
	Policy string `json:"policy"`
}

// A Credential is the tier's STS credential. It stays in the memory of the broker and the proxy; no agent ever sees
// it. It does not print and does not marshal: only package broker puts it on the wire, between Lambda and proxy.
type Credential struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
	Expires         time.Time
}

// String hides the credential from logs and errors.
func (Credential) String() string { return "[credential]" }

// GoString hides the credential from %#v.
func (Credential) GoString() string { return "[credential]" }

// MarshalJSON hides the credential from records and debug output.
func (Credential) MarshalJSON() ([]byte, error) { return []byte(`"[credential]"`), nil }

// An Action is what a request would do, in Kubernetes' words. It is computed from exactly the bytes that are forwarded.
type Action struct {
	Verb        string `json:"verb"` // Kubernetes' verb; exec, attach, portforward and reveal are verbs of their own
	Group       string `json:"group"`
	Version     string `json:"version,omitempty"`
	Resource    string `json:"resource,omitempty"`
	Subresource string `json:"subresource,omitempty"`
	Namespace   string `json:"namespace,omitempty"`
	Name        string `json:"name,omitempty"`
	// Path is the request's path; for requests that are not for a resource, such as /version, it is all there is.
	Path string `json:"path"`
	// Resourceless is true for requests that are not for a resource (discovery, /version, health).
	Resourceless bool `json:"resourceless,omitempty"`
	// Stream is true for requests that stay open: exec, attach, portforward, watch, logs that follow.
	Stream bool `json:"stream,omitempty"`
	// Upgrade is true for exec, attach and portforward.
	Upgrade bool `json:"upgrade,omitempty"`
	// Argv is the command of an exec, exactly.
	Argv []string `json:"argv,omitempty"`
	// Container, Stdin and TTY are what an exec or attach asks for besides.
	Container string `json:"container,omitempty"`
	Stdin     bool   `json:"stdin,omitempty"`
	TTY       bool   `json:"tty,omitempty"`
	// LabelSelector and FieldSelector narrow a list, a watch or a deletecollection, in the caller's words. They never
	// make Name: what a caller chooses to leave out says nothing about what it may see.
	LabelSelector string `json:"labelSelector,omitempty"`
	FieldSelector string `json:"fieldSelector,omitempty"`
	// DryRun is true when the cluster will certainly store nothing.
	DryRun bool `json:"dryRun,omitempty"`
	// Reveal is the key of a Secret whose value is asked for as it is, not masked. Empty for every verb but reveal.
	Reveal string `json:"reveal,omitempty"`
	// Patch is the form of a patch, and empty for everything else.
	Patch Patch `json:"patch,omitempty"`
}

// Changes says whether the action may change anything: whatever is not plainly a read may. Self-reviews are spelled
// create and change nothing.
func (a Action) Changes() bool {
	switch a.Verb {
	case "get", "list", "watch":
		return false
	case "create":
		return a.Subresource != "" || SelfReviews[a.Resource] != a.Group || a.Group == ""
	}
	return true
}

// SelfReviews are the resources, and their groups, whose creation only tells callers about themselves: kubectl auth
// whoami and can-i.
var SelfReviews = map[string]string{
	"selfsubjectreviews":       "authentication.k8s.io",
	"selfsubjectaccessreviews": "authorization.k8s.io",
	"selfsubjectrulesreviews":  "authorization.k8s.io",
}

// An Endpoint is where a cluster's API server is and what its certificate is verified with.
type Endpoint struct {
	URL string // https, no path
	CA  []byte // PEM
}
