// Package sts stands in for AWS STS: GetCallerIdentity and AssumeRole, judged by signature and by trust policy.
//
// It promises that
//   - nobody is anybody without the secret: every call is verified by package sigv4 against the secret on record,
//   - a role is assumed only by a caller its trust policy names, with the tags, source identity and external id it
//     demands, and never for longer than AWS would allow, one hour when a session assumes a role,
//   - a source identity, once set, and tags declared transitive stay with every session that follows,
//   - credentials end when they say so, and are then refused as expired.
//
// What it lets through wrongly would make the local gate look safer than the deployed one; in AWS this is AWS's work.
// It does not evaluate IAM policies beyond trust, knows no MFA, and keeps everything in memory: a restart forgets all
// sessions. Whoever may read this process's memory holds every credential in it, none of which is good anywhere else.
package sts

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/local/aws/sigv4"
)

const (
	defaultDuration = time.Hour
	minDuration     = 15 * time.Minute
	maxDuration     = 12 * time.Hour
	chainedDuration = time.Hour

	logLimit     = 2048 // AssumeRole calls kept for reading
	sessionLimit = 50_000
	expiredKept  = time.Hour // how long an expired session is still called expired rather than unknown
)

// Credentials are what a caller signs with.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string // "" for a user's long-term key
}

// Principal is somebody who holds credentials from the start, as Lambda and Fargate give them to what they run.
type Principal struct {
	// ARN is the IAM ARN of a role, with its path, or of a user.
	ARN string
	// Session is the role session's name; required for a role, not allowed for a user.
	Session string
	// Credentials are made up by Register when empty.
	Credentials Credentials
	// SourceIdentity the session carries, "" for none.
	SourceIdentity string
}

// Role is a role that may be assumed.
type Role struct {
	// ARN of the role, with its path: arn:aws:iam::111122223333:role/sallyport/operate.
	ARN string
	// Trust lists who may assume it; one statement that allows everything asked is enough.
	Trust []Trust
	// MaxSessionDuration is the most a caller may ask for, one to twelve hours; zero is one hour, as in IAM.
	MaxSessionDuration time.Duration
}

// Trust is one Allow statement of a trust policy: sts:AssumeRole, and sts:TagSession and sts:SetSourceIdentity as far
// as it says.
type Trust struct {
	// Callers are IAM ARNs of roles, with their path, or of users. A role's sessions count as the role.
	Callers []string
	// RequireTags are the keys a session must carry as tags, passed or inherited.
	RequireTags []string
	// AllowTags are keys that may be passed as well; all others are refused.
	AllowTags []string
	// AllowSourceIdentity lets a caller set one, or pass on the one it carries; RequireSourceIdentity demands it.
	AllowSourceIdentity   bool
	RequireSourceIdentity bool
	// ExternalID must be given as is, when not empty.
	ExternalID string
}

// Config of a Server.
type Config struct {
	AccountID string // twelve digits
	Region    string // of the endpoint, where the host name does not say
	// Principals and Roles that exist from the start.
	Principals []Principal
	Roles      []Role
	// Lifetime, when not zero, is the most minted credentials live, whatever was asked and granted: a test of renewal
	// does not want to wait for AWS's shortest quarter of an hour. The answer tells the true expiration.
	Lifetime time.Duration
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Assumed is one AssumeRole call as CloudTrail would tell it; it holds no secret.
type Assumed struct {
	Time              time.Time         `json:"time"`
	Caller            string            `json:"caller"` // STS or IAM ARN
	CallerAccessKeyID string            `json:"callerAccessKeyId"`
	RoleARN           string            `json:"roleArn"`
	RoleSessionName   string            `json:"roleSessionName"`
	SourceIdentity    string            `json:"sourceIdentity,omitempty"`
	Tags              map[string]string `json:"tags,omitempty"` // passed and inherited
	TransitiveTagKeys []string          `json:"transitiveTagKeys,omitempty"`
	DurationSeconds   int               `json:"durationSeconds"`
	// AccessKeyID and Expiration of what was minted; empty when Error says why nothing was.
	AccessKeyID string    `json:"accessKeyId,omitempty"`
	Expiration  time.Time `json:"expiration,omitzero"`
	Error       string    `json:"error,omitempty"` // AWS's code
	Message     string    `json:"message,omitempty"`
}

// Caller is a verified identity.
type Caller struct {
	ARN            string // as GetCallerIdentity says it
	IAM            string // IAM ARN of the user or role, with its path
	UserID         string
	AccountID      string
	SourceIdentity string
	AccessKeyID    string
	Session        bool // a role session, so a further role is chained
}

// session is one set of credentials and whom they make.
type session struct {
	Caller
	credentials Credentials
	expires     time.Time // zero: never
	transitive  map[string]string
}

// Server is the stand-in. Its methods may be called by several goroutines.
type Server struct {
	cfg Config
	now func() time.Time

	mu       sync.Mutex
	sessions map[string]*session // by access key id
	minted   []*session          // in order, to forget the oldest
	roles    map[string]Role     // by ARN
	assumed  []Assumed
}

// New makes a Server that knows the config's principals and roles.
func New(cfg Config) (*Server, error) {
	if !accountID.MatchString(cfg.AccountID) {
		return nil, fmt.Errorf("sts: account id %q is not twelve digits", cfg.AccountID)
	}
	if cfg.Region == "" {
		return nil, errors.New("sts: no region")
	}
	s := &Server{cfg: cfg, now: cfg.Now, sessions: map[string]*session{}, roles: map[string]Role{}}
	if s.now == nil {
		s.now = time.Now
	}
	for _, r := range cfg.Roles {
		if err := s.PutRole(r); err != nil {
			return nil, err
		}
	}
	for _, p := range cfg.Principals {
		if _, err := s.Register(p); err != nil {
			return nil, err
		}
	}
	return s, nil
}

var (
	accountID   = regexp.MustCompile(`^[0-9]{12}$`)
	iamARN      = regexp.MustCompile(`^arn:aws:iam::([0-9]{12}):(role|user)/((?:[\x21-\x7e]+/)?)([\w+=,.@-]{1,64})$`)
	sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`)
)

// Register adds a principal that holds credentials, or replaces the one with the same access key, and returns it with
// its credentials filled in. A role's own ARN need not be registered as assumable.
func (s *Server) Register(p Principal) (Principal, error) {
	m := iamARN.FindStringSubmatch(p.ARN)
	if m == nil {
		return p, fmt.Errorf("sts: principal %q is not the ARN of an IAM role or user", p.ARN)
	}
	role := m[2] == "role"
	if role && !sessionName.MatchString(p.Session) {
		return p, fmt.Errorf("sts: principal %s: session name %q must match %s", p.ARN, p.Session, sessionName)
	}
	if !role && p.Session != "" {
		return p, fmt.Errorf("sts: principal %s: a user has no session name", p.ARN)
	}
	if p.Credentials == (Credentials{}) {
		p.Credentials = newCredentials(role)
	}
	if c := p.Credentials; c.AccessKeyID == "" || c.SecretAccessKey == "" || strings.ContainsAny(c.AccessKeyID, "/, ") {
		return p, fmt.Errorf("sts: principal %s: access key id and secret must both be given", p.ARN)
	}
	se := &session{credentials: p.Credentials, Caller: Caller{
		ARN: p.ARN, IAM: p.ARN, UserID: uniqueID("AIDA", p.ARN), AccountID: m[1],
		SourceIdentity: p.SourceIdentity, AccessKeyID: p.Credentials.AccessKeyID,
	}}
	if role {
		se.become(m[1], m[4], p.Session)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sessions[se.AccessKeyID] = se
	return p, nil
}

// become turns the caller into a session of the role, whose path the STS ARN does not show.
func (se *session) become(account, role, name string) {
	se.ARN = "arn:aws:sts::" + account + ":assumed-role/" + role + "/" + name
	se.UserID = uniqueID("AROA", se.IAM) + ":" + name
	se.Session = true
}

// PutRole adds a role that may be assumed, or replaces its trust.
func (s *Server) PutRole(r Role) error {
	if m := iamARN.FindStringSubmatch(r.ARN); m == nil || m[2] != "role" {
		return fmt.Errorf("sts: %q is not the ARN of an IAM role", r.ARN)
	}
	if r.MaxSessionDuration == 0 {
		r.MaxSessionDuration = defaultDuration
	}
	if r.MaxSessionDuration < time.Hour || r.MaxSessionDuration > maxDuration {
		return fmt.Errorf("sts: role %s: longest session %v is not between 1 and 12 hours", r.ARN, r.MaxSessionDuration)
	}
	for _, t := range r.Trust {
		if len(t.Callers) == 0 {
			return fmt.Errorf("sts: role %s: a trust statement names no caller", r.ARN)
		}
		for _, c := range t.Callers {
			if !iamARN.MatchString(c) {
				return fmt.Errorf("sts: role %s trusts %q, which is not the ARN of an IAM role or user", r.ARN, c)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roles[r.ARN] = r
	return nil
}

// Assumed returns the AssumeRole calls of signed callers, refused ones too, oldest first, as far back as they are kept.
func (s *Server) Assumed() []Assumed {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.assumed)
}

// SetLifetime changes Config.Lifetime for credentials minted from now on.
func (s *Server) SetLifetime(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cfg.Lifetime = d
}

// stsHost finds the region in an endpoint's name.
var stsHost = regexp.MustCompile(`^sts(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com|api\.aws)(?::\d+)?$`)

func (s *Server) region(host string) string {
	switch m := stsHost.FindStringSubmatch(host); {
	case m != nil:
		return m[1]
	case host == "sts.amazonaws.com":
		return "us-east-1"
	default:
		return s.cfg.Region
	}
}

// Authenticate verifies who signed r, whose body has been read already.
func (s *Server) Authenticate(r *http.Request, body []byte) (Caller, error) {
	se, err := s.authenticate(r, body)
	if err != nil {
		return Caller{}, err
	}
	return se.Caller, nil
}

func (s *Server) authenticate(r *http.Request, body []byte) (*session, error) {
	sig, err := sigv4.Parse(r)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	se := s.sessions[sig.Scope.AccessKeyID]
	s.mu.Unlock()
	unknown := &sigv4.Error{Code: "InvalidClientTokenId", Status: http.StatusForbidden, Message: "The security token included in the request is invalid."}
	if se == nil {
		return nil, unknown
	}
	if !hmac.Equal([]byte(se.credentials.SessionToken), []byte(sig.Token)) {
		return nil, unknown
	}
	now := s.now()
	if err := sig.Verify(r, body, se.credentials.SecretAccessKey, "sts", s.region(r.Host), now); err != nil {
		return nil, err
	}
	// After the signature: only the holder learns that a key has expired.
	if !se.expires.IsZero() && !now.Before(se.expires) {
		return nil, &sigv4.Error{Code: "ExpiredToken", Status: http.StatusForbidden, Message: "The security token included in the request is expired"}
	}
	return se, nil
}

// uniqueID makes IAM's unchanging id for an ARN.
func uniqueID(prefix, arn string) string {
	sum := sha256.Sum256([]byte(arn))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:17]
}

func newCredentials(session bool) Credentials {
	var b [10 + 30 + 300]byte
	_, _ = rand.Read(b[:]) // never returns an error
	c := Credentials{
		AccessKeyID:     "AKIA" + base32.StdEncoding.EncodeToString(b[:10]),
		SecretAccessKey: base64.StdEncoding.EncodeToString(b[10:40]),
	}
	if session {
		c.AccessKeyID = "ASIA" + c.AccessKeyID[4:]
		// As long as AWS's, and with the characters that show a missing escape.
		c.SessionToken = "IQoJb3JpZ2luX2Vj" + base64.StdEncoding.EncodeToString(b[40:])
	}
	return c
}

// remember keeps a minted session, forgetting those long expired and, past the limit, the oldest.
func (s *Server) remember(se *session, now time.Time) {
	s.sessions[se.AccessKeyID] = se
	s.minted = append(s.minted, se)
	for len(s.minted) > sessionLimit || now.Sub(s.minted[0].expires) > expiredKept {
		delete(s.sessions, s.minted[0].AccessKeyID)
		s.minted = s.minted[1:]
	}
}
