// Package policy answers "may it?": it reads the one file that says which issuers are trusted, which tiers and clusters
// there are and how long a session lasts, and decides an action.
//
// It promises that a policy that does not read exactly is refused whole, with the line and what to write instead, so
// that no typo is ever taken for a permission; and that whatever no rule allows is denied. It does not promise that the
// policy is wise, nor that the cluster agrees: the tier's RBAC is the second wall.
package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"time"

	"sallyport/shared/access"
)

// A Policy is one version of the policy file. It does not change once loaded.
type Policy struct {
	Digest   string // lower-case hex SHA-256 of the file's bytes
	Audience string // the gate's audience
	Issuers  []access.Issuer
	Clusters []access.Cluster
	Tiers    []access.Tier // from least to most powerful
	Sessions Sessions
}

// Sessions says how long sessions and their credentials live.
type Sessions struct {
	Idle       time.Duration // a session unheard of for this long is over; at least Credential
	Longest    time.Duration // no session lasts longer
	Credential time.Duration // lifetime asked for a tier credential: 15m to 1h, role chaining's limit
}

// What AWS allows an assumed role's credential to live when one role assumes another.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use.html (role chaining)
const (
	shortestCredential = 15 * time.Minute
	longestCredential  = time.Hour
)

// Load reads a policy file. The error names file, line and field, and says what to write.
func Load(name string, b []byte) (*Policy, error) {
	doc, err := parse(name, b)
	if err != nil {
		return nil, err
	}
	p, err := doc.policy()
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	p.Digest = hex.EncodeToString(sum[:])
	return p, nil
}

// Tier is the base tier of a principal: the most powerful one that any of its groups has.
func (p *Policy) Tier(who access.Principal) (access.Tier, error) {
	for i := len(p.Tiers) - 1; i >= 0; i-- {
		for _, g := range p.Tiers[i].Groups {
			for _, has := range who.Groups {
				if g == has {
					return p.Tiers[i], nil
				}
			}
		}
	}
	has := "no group"
	if len(who.Groups) > 0 {
		has = "groups " + strings.Join(who.Groups, ", ")
	}
	return access.Tier{}, access.Errorf(access.Denied, "%s has %s, and none of them has a tier in the policy; ask who runs the gate to give one of them a tier", who.Agent, has)
}

// Cluster finds a cluster by name.
func (p *Policy) Cluster(name string) (access.Cluster, error) {
	for _, c := range p.Clusters {
		if c.Name == name {
			return c, nil
		}
	}
	return access.Cluster{}, access.Errorf(access.NotFound, "there is no cluster %q behind this gate", name)
}

// readVerbs are the verbs that change nothing.
var readVerbs = map[string]bool{"get": true, "list": true, "watch": true}

// streamVerbs are upgrades: what a tier may do with them is its RBAC's to say.
var streamVerbs = map[string]bool{"exec": true, "attach": true, "portforward": true}

// reviews are requests that are spelled create and change nothing: kubectl auth whoami and can-i.
var reviews = map[string]string{
	"selfsubjectreviews":       "authentication.k8s.io",
	"selfsubjectaccessreviews": "authorization.k8s.io",
	"selfsubjectrulesreviews":  "authorization.k8s.io",
}

// Decide answers an action. For now every tier may read, ask who it is and what it may do, and open streams; its RBAC
// narrows that. Anything else is denied.
func (p *Policy) Decide(who access.Principal, tier string, a access.Action) access.Decision {
	d := access.Decision{Effect: access.Deny, Rule: "default", Tier: tier, Policy: p.Digest}
	switch {
	case a.Resourceless && a.Verb == "get" && open(a.Path):
		d.Effect, d.Rule = access.Allow, "discovery"
	case a.Resourceless:
		d.Message = fmt.Sprintf("%s %s is not open through this gate", a.Verb, a.Path)
	case a.Subresource == "proxy":
		d.Rule = "no-proxy"
		d.Message = fmt.Sprintf("%s/proxy reaches past the Kubernetes API and is not open through this gate; use port-forward", a.Resource)
	case streamVerbs[a.Verb]:
		d.Effect, d.Rule = access.Allow, "streams"
	case readVerbs[a.Verb]:
		d.Effect, d.Rule = access.Allow, "reads"
	case a.Verb == "create" && a.Subresource == "" && reviews[a.Resource] == a.Group && a.Group != "":
		d.Effect, d.Rule = access.Allow, "self-reviews"
	default:
		where := ""
		if a.Namespace != "" {
			where = fmt.Sprintf(" in namespace %q", a.Namespace)
		}
		d.Message = fmt.Sprintf("the gate allows %s to read, not to %s %s%s; changes need a rule in the policy", who.Agent, a.Verb, a.Resource, where)
	}
	return d
}

// open says whether a path that is no resource's may be read: versions, health, discovery and the OpenAPI schemas.
// /metrics, /logs, /debug and /configz are not among them.
func open(path string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "version", "api", "apis", "openapi", "healthz", "livez", "readyz":
		return true
	}
	return false
}

var (
	nameRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	roleRE  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/(?:[\w+=,.@/-]*/)?([\w+=,.@-]{1,64})$`)
	groupRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._/@-]{0,62}$`)
	hostRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
)

// reserved prefixes of Kubernetes groups: the cluster's own, and those EKS refuses in an access entry.
// https://docs.aws.amazon.com/eks/latest/userguide/creating-access-entries.html
func reserved(group string) bool {
	for _, p := range []string{"system:", "eks:", "aws:", "amazon:", "iam:"} {
		if strings.HasPrefix(strings.ToLower(group), p) {
			return true
		}
	}
	return false
}

func checkURL(s string) error {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "":
		return fmt.Errorf("%q is no URL; write it as the token's iss has it, such as https://idp.example.com", s)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%q has a user, query or fragment; an issuer has none (OpenID Connect Discovery §3)", s)
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && loopback(u.Hostname()):
		return nil
	}
	return fmt.Errorf("%q must begin with https://", s)
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}
