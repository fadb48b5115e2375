// Package broker is the wire between the proxy and the broker's functions: what an Invoke carries there and back, in
// the terms of RFC 8693 (OAuth 2.0 Token Exchange).
//
// An answer holds the tier's credential, so it exists only between Lambda and the proxy, over TLS and IAM
// authentication; nothing here is ever logged or recorded. The proxy's word is worth nothing to the broker: the agent's
// own token travels in every request and is verified there again.
package broker

import (
	"encoding/json"
	"time"

	"sallyport/shared/access"
)

// The identifiers of RFC 8693 that an exchange carries.
//
//nolint:gosec // names of types, no credentials
const (
	GrantType        = "urn:ietf:params:oauth:grant-type:token-exchange"
	SubjectTokenType = "urn:ietf:params:oauth:token-type:jwt"
	// CredentialsType is the type of what is issued: temporary AWS credentials of a tier's role (RFC 8693 §3 lets
	// other URIs be used by agreement).
	CredentialsType = "urn:sallyport:params:oauth:token-type:aws-credentials"
)

// A Request is the event of function exchange. Exactly one field is set.
type Request struct {
	Exchange *Exchange `json:"exchange,omitempty"`
	Keys     *Keys     `json:"keys,omitempty"`
	Redeem   *Redeem   `json:"redeem,omitempty"`
}

// Exchange asks for a session and its base tier's credentials (RFC 8693 §2.1).
type Exchange struct {
	GrantType          string `json:"grant_type"`
	SubjectToken       string `json:"subject_token"` // the agent's own OIDC token
	SubjectTokenType   string `json:"subject_token_type"`
	RequestedTokenType string `json:"requested_token_type,omitempty"`
	Audience           string `json:"audience"` // the cluster's name
}

// Keys asks for the policy in force and for the public keys of every trusted issuer, which the proxy needs to verify
// tokens without a way out to the internet.
type Keys struct {
	// Fresh asks for keys that were fetched a moment ago, for a proxy that met one it does not know. Otherwise the
	// issuers are asked about twice a minute, however many proxies poll.
	Fresh bool `json:"fresh,omitempty"`
}

// An Answer is what function exchange returns. Exactly one field is set.
type Answer struct {
	Token *Token  `json:"token,omitempty"`
	Keys  *KeySet `json:"keys,omitempty"`
	Error *Error  `json:"error,omitempty"`
}

// Token answers Exchange (RFC 8693 §2.2.1; credentials stands for access_token, since AWS credentials are three strings).
type Token struct {
	IssuedTokenType string         `json:"issued_token_type"`
	TokenType       string         `json:"token_type"` // N_A: it is no bearer token
	ExpiresIn       int64          `json:"expires_in"` // seconds
	Credentials     Credentials    `json:"credentials"`
	Session         access.Session `json:"session"`
	Cluster         Cluster        `json:"cluster"`
	// MaskKey is what equal values are masked alike with, in this session and in no other; an answer to Exchange has it.
	MaskKey []byte `json:"mask_key,omitempty"`
	// Approval is set when Redeem was asked: Credentials are those of the approval's tier then, and Tier names it.
	Approval *Approval `json:"approval,omitempty"`
	Tier     string    `json:"tier,omitempty"`
}

// Credentials are temporary AWS credentials.
type Credentials struct {
	AccessKeyID     string    `json:"access_key_id"`
	SecretAccessKey string    `json:"secret_access_key"`
	SessionToken    string    `json:"session_token"`
	Expiration      time.Time `json:"expiration"`
}

// Cluster is where the session's cluster is, as EKS describes it.
type Cluster struct {
	Name     string `json:"name"`
	Region   string `json:"region"`
	Endpoint string `json:"endpoint"` // https URL of the API server
	CA       []byte `json:"ca"`       // PEM bundle the API server's certificate is verified with
}

// KeySet answers Keys: the issuers' JWKS (RFC 7517), each with when it was fetched, and which policy is in force.
type KeySet struct {
	Issuers []IssuerKeys `json:"issuers"`
	Policy  Policy       `json:"policy"`
}

// Policy is the policy that the broker decides by: what the proxy has to read and decide by too.
type Policy struct {
	Digest  string `json:"digest"`  // lower-case hex SHA-256 of its bytes
	Version string `json:"version"` // S3's id of that version of settings.PolicyCurrent
	// Refused is the newest version, when that is not the one in force because it does not load.
	Refused *Refusal `json:"refused,omitempty"`
}

// Refusal is why a version of the policy is not in force.
type Refusal struct {
	Version string `json:"version"`
	Digest  string `json:"digest"`
	Message string `json:"message"` // with the line, and what to write instead
}

// IssuerKeys are one issuer's public keys.
type IssuerKeys struct {
	Issuer  string          `json:"issuer"`
	JWKS    json.RawMessage `json:"jwks"`
	Fetched time.Time       `json:"fetched"`
}

// Error is a refusal (RFC 6749 §5.2): a code for machines, our kind, and a sentence for whoever asked.
type Error struct {
	Code        string      `json:"error"`
	Kind        access.Kind `json:"kind"`
	Description string      `json:"error_description"`
	RetryAfter  int64       `json:"retry_after,omitempty"` // seconds
}

// Refuse turns an error into the broker's answer. This is the one place where kinds become RFC 6749 codes.
func Refuse(err error) Answer {
	e := access.AsError(err)
	code := map[access.Kind]string{
		access.Invalid:         "invalid_request",
		access.Unprocessable:   "invalid_request",
		access.Unauthenticated: "invalid_grant",
		access.Denied:          "access_denied",
		access.NotFound:        "invalid_target", // RFC 8693 §2.2.2
		access.Conflict:        "temporarily_unavailable",
		access.Limited:         "slow_down",
		access.Unavailable:     "temporarily_unavailable",
	}[e.Kind]
	if code == "" {
		code = "server_error"
	}
	return Answer{Error: &Error{Code: code, Kind: e.Kind, Description: e.Message, RetryAfter: int64(e.RetryAfter / time.Second)}}
}

// Err is the refusal as an error of the domain.
func (e *Error) Err() *access.Error {
	kind := e.Kind
	switch kind {
	case access.Invalid, access.Method, access.Unauthenticated, access.Denied, access.NotFound, access.Conflict, access.Unprocessable, access.Limited, access.Unavailable:
	default:
		kind = access.Internal
	}
	return &access.Error{Kind: kind, Message: e.Description, RetryAfter: time.Duration(e.RetryAfter) * time.Second}
}
