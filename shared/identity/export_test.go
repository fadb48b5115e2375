package identity

import (
	"context"

	"github.com/go-jose/go-jose/v4"
)

// Signature checks a token of a trusted issuer up to and including its signature, and nothing of its claims: the
// vectors' payloads are no claims.
func (v *Verifier) Signature(ctx context.Context, issuer, token string) ([]byte, error) {
	j, err := split(token)
	if err != nil {
		return nil, err
	}
	return (&proof{source: v.keys, issuer: v.issuers[issuer], header: j.header}).VerifySignature(ctx, token)
}

// Remembered is how many verified tokens are held.
func (v *Verifier) Remembered() int { return v.memory.recent.Len() }

// SetMemory bounds how many verified tokens are held.
func (v *Verifier) SetMemory(size int) { v.memory.size = size }

// ParseKeys reads a JWK Set.
func ParseKeys(data []byte) (*jose.JSONWebKeySet, error) { return parseKeys(data) }

// CheckDial is what a connection is checked with when it is made.
func CheckDial(address string, private bool) error { return checkDial(address, private) }
