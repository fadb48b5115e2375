// Package eks stands in for Amazon EKS: DescribeCluster, access entries, and the cluster's token webhook.
//
// It promises, to the API server that asks its webhook, that a token is somebody only if
//   - aws-iam-authenticator's own verifier accepts it for this cluster: the cluster's name is under the signature, so a
//     token made for another cluster is refused,
//   - STS vouches for the signature at this moment, over TLS to the one server this package was given, and
//   - the cluster has an access entry for the role or user. Entries are looked up for every review: one that is deleted
//     is gone with the next review. (The API server caches reviews; run it with a short
//     --authentication-token-webhook-cache-ttl.)
//
// An entry's groups and user name are all it grants; RBAC in the cluster does the rest. Whoever can call the API of this
// stand-in can make himself anyone in the cluster but a system: identity: in AWS that is what IAM guards, and it is not
// simulated here.
//
// As in EKS, an entry's principal is an IAM ARN with its path while STS names a session's role without it. The two are
// matched by account and role name, which is exact because IAM has one role of a name in an account whatever the path;
// a second entry for the same name with another path is therefore refused as in use.
package eks

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/aws-iam-authenticator/pkg/token"
)

// Cluster is a cluster as DescribeCluster tells it.
type Cluster struct {
	Name string
	// Endpoint is the API server's URL and CA the PEM certificates it is verified by. Both may come later, by
	// PutCluster: an API server needs the webhook before it has an address. Until then the cluster is CREATING.
	Endpoint string
	CA       []byte
	// Version of Kubernetes, "1.35"; optional.
	Version string
}

// AccessEntry lets an IAM principal into one cluster.
type AccessEntry struct {
	Cluster      string
	PrincipalARN string
	// Username is what the cluster calls the principal, with {{AccountID}}, {{SessionName}} and {{SessionNameRaw}}
	// filled in; EKS's default when empty.
	Username string
	Groups   []string
	Tags     map[string]string
	// Type is STANDARD, also when empty.
	Type string
}

type entry struct {
	AccessEntry
	arn               string
	created, modified time.Time
	token             string // clientRequestToken of the creation
}

type cluster struct {
	Cluster
	created time.Time
	entries map[string]*entry // by match key
	verify  token.Verifier
}

// Config of a Server.
type Config struct {
	AccountID string
	Region    string
	Clusters  []Cluster
	// Verifier makes a cluster's token verifier; see NewVerifier. nil leaves the webhook closed.
	Verifier func(cluster string) (token.Verifier, error)
	// Now is the clock of the entries' dates; nil is time.Now.
	Now func() time.Time
}

// Server is the stand-in. Its methods may be called by several goroutines.
type Server struct {
	cfg Config

	mu       sync.RWMutex
	clusters map[string]*cluster
}

// New makes a Server that knows the config's clusters, without access entries.
func New(cfg Config) (*Server, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	s := &Server{cfg: cfg, clusters: map[string]*cluster{}}
	for _, c := range cfg.Clusters {
		if err := s.PutCluster(c); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var (
	clusterName = regexp.MustCompile(`^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$`)
	iamARN      = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):(role|user)/((?:[\x21-\x7e]+/)?)([\w+=,.@-]{1,64})$`)
)

// PutCluster adds a cluster, or changes the endpoint, CA and version of one that is there and keeps its entries.
func (s *Server) PutCluster(c Cluster) error {
	if !clusterName.MatchString(c.Name) {
		return fmt.Errorf("eks: cluster name %q must match %s", c.Name, clusterName)
	}
	if c.Endpoint != "" && !strings.HasPrefix(c.Endpoint, "https://") {
		return fmt.Errorf("eks: cluster %s: endpoint %q is not an https URL", c.Name, c.Endpoint)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.clusters[c.Name]; old != nil {
		old.Cluster = c
		return nil
	}
	n := &cluster{Cluster: c, created: s.cfg.Now(), entries: map[string]*entry{}}
	if s.cfg.Verifier != nil {
		v, err := s.cfg.Verifier(c.Name)
		if err != nil {
			return fmt.Errorf("eks: cluster %s: %w", c.Name, err)
		}
		n.verify = v
	}
	s.clusters[c.Name] = n
	return nil
}

// Clusters lists the names of all clusters, in order.
func (s *Server) Clusters() []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Sorted(maps.Keys(s.clusters))
}

// Error is a refusal in EKS's words.
type Error struct {
	Code    string // such as ResourceNotFoundException
	Status  int    // HTTP
	Message string
	Cluster string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func notFound(cluster, format string, args ...any) *Error {
	return &Error{"ResourceNotFoundException", 404, fmt.Sprintf(format, args...), cluster}
}

func inUse(cluster, format string, args ...any) *Error {
	return &Error{"ResourceInUseException", 409, fmt.Sprintf(format, args...), cluster}
}

func invalid(cluster, format string, args ...any) *Error {
	return &Error{"InvalidParameterException", 400, fmt.Sprintf(format, args...), cluster}
}

// matchKey is what an access entry and a verified identity are compared by: account, kind and name, no path.
func matchKey(arn string) (string, bool) {
	m := iamARN.FindStringSubmatch(arn)
	if m == nil {
		return "", false
	}
	if m[2] == "user" { // STS names users with their path
		return arn, true
	}
	return m[1] + ":role/" + m[4], true
}

// reserved are the beginnings Kubernetes or EKS keep for themselves.
var reserved = []string{"system:", "eks:", "aws:", "amazon:", "iam:"}

func isReserved(s string) bool {
	return slices.ContainsFunc(reserved, func(p string) bool {
		return len(s) >= len(p) && strings.EqualFold(s[:len(p)], p)
	})
}

func check(e *AccessEntry) error {
	if _, ok := matchKey(e.PrincipalARN); !ok {
		return invalid(e.Cluster, "The specified principalArn is invalid: invalid principal.")
	}
	if e.Type == "" {
		e.Type = "STANDARD"
	}
	if e.Type != "STANDARD" {
		return invalid(e.Cluster, "access entries of type %q are not part of this stand-in", e.Type)
	}
	if e.Username == "" {
		e.Username = defaultUsername(e.PrincipalARN)
	} else {
		if isReserved(e.Username) {
			return invalid(e.Cluster, "The username %q starts with one of the reserved %s", e.Username, strings.Join(reserved, ", "))
		}
		if strings.ContainsFunc(e.Username, isControl) || len(e.Username) > 1024 {
			return invalid(e.Cluster, "The username is not printable or too long")
		}
		if e.Username != defaultUsername(e.PrincipalARN) {
			if i := strings.Index(e.Username, "{{SessionName"); i >= 0 && !strings.Contains(e.Username[:i], ":") {
				return invalid(e.Cluster, "The username must have a colon before {{SessionName}}")
			}
		}
	}
	seen := map[string]bool{}
	for _, g := range e.Groups {
		switch {
		case g == "" || strings.ContainsFunc(g, isControl) || len(g) > 1024:
			return invalid(e.Cluster, "A Kubernetes group is empty, not printable or too long")
		case isReserved(g):
			return invalid(e.Cluster, "The kubernetes group name %s is invalid, it cannot start with %s", g, strings.Join(reserved, ", "))
		case seen[g]:
			return invalid(e.Cluster, "The kubernetes group name %s is given twice", g)
		}
		seen[g] = true
	}
	return nil
}

func isControl(r rune) bool { return r < 0x20 || r == 0x7f || r == '\uFFFD' }

func defaultUsername(arn string) string {
	m := iamARN.FindStringSubmatch(arn)
	if m[2] == "user" {
		return arn
	}
	return "arn:aws:sts::" + m[1] + ":assumed-role/" + m[4] + "/{{SessionName}}"
}

func (s *Server) find(name string) (*cluster, error) {
	c := s.clusters[name]
	if c == nil {
		return nil, notFound(name, "No cluster found for name: %s.", name)
	}
	return c, nil
}

func (s *Server) findEntry(name, principal string) (*cluster, string, *entry, error) {
	c, err := s.find(name)
	if err != nil {
		return nil, "", nil, err
	}
	k, ok := matchKey(principal)
	if !ok {
		return nil, "", nil, invalid(name, "The specified principalArn is invalid: invalid principal.")
	}
	e := c.entries[k]
	if e == nil || e.PrincipalARN != principal {
		return nil, "", nil, notFound(name, "The specified principalArn could not be found. You can view your available access entries with 'list-access-entries'.")
	}
	return c, k, e, nil
}

// CreateAccessEntry adds an entry. requestToken, when not empty, makes a repetition of the same call succeed.
func (s *Server) CreateAccessEntry(e AccessEntry, requestToken string) (AccessEntry, error) {
	made, err := s.create(e, requestToken)
	if err != nil {
		return AccessEntry{}, err
	}
	return made.AccessEntry, nil
}

func (s *Server) create(e AccessEntry, requestToken string) (entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, err := s.find(e.Cluster)
	if err != nil {
		return entry{}, err
	}
	if err := check(&e); err != nil {
		return entry{}, err
	}
	k, _ := matchKey(e.PrincipalARN)
	if old := c.entries[k]; old != nil {
		if requestToken != "" && requestToken == old.token && old.PrincipalARN == e.PrincipalARN {
			return *old, nil
		}
		return entry{}, inUse(e.Cluster, "The specified access entry resource is already in use on this cluster.")
	}
	m := iamARN.FindStringSubmatch(e.PrincipalARN)
	now := s.cfg.Now()
	n := &entry{AccessEntry: e, created: now, modified: now, token: requestToken,
		arn: fmt.Sprintf("arn:aws:eks:%s:%s:access-entry/%s/%s/%s/%s/%s", s.cfg.Region, s.cfg.AccountID, e.Cluster, m[2], m[1], m[4], uuid())}
	c.entries[k] = n
	return *n, nil
}

// UpdateAccessEntry changes groups and user name; a nil pointer leaves one as it is.
func (s *Server) UpdateAccessEntry(cluster, principal string, groups *[]string, username *string) (AccessEntry, error) {
	e, err := s.update(cluster, principal, groups, username)
	return e.AccessEntry, err
}

func (s *Server) update(cluster, principal string, groups *[]string, username *string) (entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, k, old, err := s.findEntry(cluster, principal)
	if err != nil {
		return entry{}, err
	}
	n := *old
	if groups != nil {
		n.Groups = slices.Clone(*groups)
	}
	if username != nil {
		n.Username = *username
	}
	if err := check(&n.AccessEntry); err != nil {
		return entry{}, err
	}
	n.modified = s.cfg.Now()
	c.entries[k] = &n
	return n, nil
}

// DeleteAccessEntry removes an entry; tokens of its principal stop working with the next review.
func (s *Server) DeleteAccessEntry(cluster, principal string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, k, _, err := s.findEntry(cluster, principal)
	if err != nil {
		return err
	}
	delete(c.entries, k)
	return nil
}

// DescribeAccessEntry returns an entry as it is stored, with the default user name filled in.
func (s *Server) DescribeAccessEntry(cluster, principal string) (AccessEntry, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	_, _, e, err := s.findEntry(cluster, principal)
	if err != nil {
		return AccessEntry{}, err
	}
	return e.AccessEntry, nil
}

// ListAccessEntries returns the principals that have an entry, in order.
func (s *Server) ListAccessEntries(cluster string) ([]string, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	c, err := s.find(cluster)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range c.entries {
		out = append(out, e.PrincipalARN)
	}
	slices.Sort(out)
	return out, nil
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (c *cluster) status() string {
	if c.Endpoint == "" {
		return "CREATING"
	}
	return "ACTIVE"
}

func (c *cluster) caData() string { return base64.StdEncoding.EncodeToString(c.CA) }

var errNoVerifier = errors.New("this cluster has no token verifier")
