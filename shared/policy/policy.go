// Package policy answers "may it?": it reads the one file that says which issuers are trusted, which tiers and clusters
// there are, how long a session lasts, and by which rules an action is allowed, asked about or denied.
//
// Rules have no order: a deny beats an ask, an ask beats an allow, and what no rule names is denied. A rule first has
// lists, which are compiled to one bit set a value and intersected, so that a decision costs what the rules that match
// cost; only then conditions on the body and a CEL expression, which can narrow a rule and never widen it. Whatever
// cannot be told (a body that cannot be decoded, an expression that errs, the names in a collection, the namespaces of
// a request over all of them) counts against the request: denies and asks match, allows do not.
//
// It promises that a policy that does not read exactly is refused whole, with the line and what to write instead, so
// that no typo is ever taken for a permission; that whatever no rule allows is denied; and that adding a deny never
// lets anything through. It does not promise that the policy is wise, nor that the cluster agrees: the tier's RBAC is
// the second wall, and Check lists the rules it cannot hold.
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
	"sallyport/shared/detect"
)

// A Policy is one version of the policy file. It does not change once loaded.
type Policy struct {
	Digest   string // lower-case hex SHA-256 of the file's bytes
	Audience string // the gate's audience
	Issuers  []access.Issuer
	Clusters []access.Cluster
	Tiers    []access.Tier // from least to most powerful
	Sessions Sessions

	// Observe is true when every decision is recorded and none enforced, the default deny neither: the base tier's RBAC
	// is then the only wall.
	Observe   bool
	Reviewers []ReviewerGroup
	Rules     []Rule // in the file's order, which means nothing
	Masking   Masking

	c      *compiled
	detect *detect.Set // nil when the policy has no detectors of its own
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

var (
	nameRE  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	roleRE  = regexp.MustCompile(`^arn:aws[a-z-]*:iam::[0-9]{12}:role/(?:[\w+=,.@/-]*/)?([\w+=,.@-]{1,64})$`)
	groupRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:._/@-]{0,62}$`)
	// The host of a run's address holds no claim: whoever writes a token's claims must not choose where a reviewer goes.
	runLinkRE = regexp.MustCompile(`^https://[a-z0-9.-]+(:[0-9]+)?/(?:[^{}\s"'<>]|\{[A-Za-z0-9_./:-]+\})*$`)
	hostRE    = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)
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
