// Package authn finds the caller's token in a request and has it verified.
//
// A request carries exactly one token: two are refused, since two readers could each take another. The token may stand in
// Authorization (RFC 6750 §2.1) or, for browsers, in a WebSocket subprotocol; wherever it stands, it goes no further
// than the broker.
package authn

import (
	"context"
	"encoding/base64"
	"net/http"
	"strings"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// bearerProtocol begins the WebSocket subprotocol that carries a token.
// https://pkg.go.dev/k8s.io/apiserver/pkg/authentication/request/websocket
const bearerProtocol = "base64url.bearer.authorization.k8s.io." //nolint:gosec // a name, no credential

// Verifier is what says whom a token was issued to; identity.Verifier. Safe for concurrent use.
type Verifier interface {
	Verify(ctx context.Context, token string) (identity.Identity, error)
	// Known says whether the token was verified lately, so that verifying it again costs next to nothing.
	Known(token string) bool
}

// An Authenticator authenticates requests. It is safe for concurrent use.
type Authenticator struct {
	verifier Verifier
	limit    *limiter
}

// New returns an Authenticator. A source, an address, may send rate tokens a second that were not seen before, and
// burst at once.
func New(v Verifier, rate float64, burst int, now func() time.Time) *Authenticator {
	return &Authenticator{verifier: v, limit: newLimiter(rate, burst, now)}
}

// Caller is who sent a request, and the token that says so.
type Caller struct {
	identity.Identity
	Bearer string
}

// Authenticate says who sent r. source is the address that unknown tokens are counted against.
func (a *Authenticator) Authenticate(ctx context.Context, r *http.Request, source string) (Caller, error) {
	token, err := bearer(r.Header)
	if err != nil {
		return Caller{}, err
	}
	if !a.verifier.Known(token) {
		if wait := a.limit.take(source); wait > 0 {
			return Caller{}, access.Errorf(access.Limited, "too many unknown tokens come from your address; wait and send one that is good").After(wait)
		}
	}
	id, err := a.verifier.Verify(ctx, token)
	if err != nil {
		return Caller{}, err
	}
	return Caller{Identity: id, Bearer: token}, nil
}

// Again verifies a token that was let in before, by the issuers that are trusted now.
func (a *Authenticator) Again(ctx context.Context, token string) (identity.Identity, error) {
	return a.verifier.Verify(ctx, token)
}

func bearer(h http.Header) (string, error) {
	var tokens []string
	for _, v := range h.Values("Authorization") {
		scheme, token, _ := strings.Cut(v, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return "", access.Errorf(access.Unauthenticated, "the Authorization scheme must be Bearer, with the agent's own OIDC token")
		}
		tokens = append(tokens, strings.TrimSpace(token))
	}
	for _, p := range Protocols(h) {
		if encoded, ok := strings.CutPrefix(p, bearerProtocol); ok {
			b, err := base64.RawURLEncoding.DecodeString(encoded)
			if err != nil {
				return "", access.Errorf(access.Unauthenticated, "the bearer subprotocol is not base64url without padding")
			}
			tokens = append(tokens, string(b))
		}
	}
	switch {
	case len(tokens) == 0 || tokens[0] == "":
		return "", access.Errorf(access.Unauthenticated, "no token: send the agent's own OIDC token as Authorization: Bearer <token>")
	case len(tokens) > 1:
		return "", access.Errorf(access.Unauthenticated, "%d tokens came in one request; send one", len(tokens))
	}
	return tokens[0], nil
}

// Protocols lists the WebSocket subprotocols a request offers.
func Protocols(h http.Header) []string {
	var out []string
	for _, line := range h.Values("Sec-Websocket-Protocol") {
		for p := range strings.SplitSeq(line, ",") {
			if p = strings.TrimSpace(p); p != "" {
				out = append(out, p)
			}
		}
	}
	return out
}

// PublicProtocols lists the subprotocols without the ones that carry a token.
func PublicProtocols(h http.Header) []string {
	var out []string
	for _, p := range Protocols(h) {
		if !strings.HasPrefix(p, bearerProtocol) {
			out = append(out, p)
		}
	}
	return out
}
