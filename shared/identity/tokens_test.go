package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

const (
	issuerURL = "https://issuer.example"
	audience  = "https://gate.example"
)

// at is the time it is in these tests.
var at = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

// clock is a clock that is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// signer is a private key with its algorithm and name.
type signer struct {
	kid string
	alg string
	key crypto.Signer
}

var (
	es256 = newSigner("es", "ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
	rs256 = newSigner("rs", "RS256", must(rsa.GenerateKey(rand.Reader, 2048)))
	ed    = newSigner("ed", "EdDSA", must2(ed25519.GenerateKey(rand.Reader)))
	// stranger is a key of nobody's that calls itself like one of the issuer's.
	stranger = newSigner("es", "ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func must2[A, B any](_ A, b B, err error) B { return must(b, err) }

func newSigner(kid, alg string, key crypto.Signer) signer { return signer{kid, alg, key} }

func (s signer) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: s.key.Public(), KeyID: s.kid, Algorithm: s.alg, Use: "sig"}
}

func (s signer) header() string { return fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, s.alg, s.kid) }

func b64(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// sign makes a compact JWS of exactly these bytes, whatever they say.
func (s signer) sign(header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	return input + "." + b64(s.signature(input))
}

func (s signer) signature(input string) []byte {
	sum := sha256.Sum256([]byte(input))
	switch key := s.key.(type) {
	case *ecdsa.PrivateKey:
		r, t, err := ecdsa.Sign(rand.Reader, key, sum[:])
		if err != nil {
			panic(err)
		}
		sig := make([]byte, 64)
		r.FillBytes(sig[:32])
		t.FillBytes(sig[32:])
		return sig
	case *rsa.PrivateKey:
		return must(rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:]))
	case ed25519.PrivateKey:
		return ed25519.Sign(key, []byte(input))
	}
	panic("unknown key")
}

func hs256(secret []byte, header, payload string) string {
	input := b64([]byte(header)) + "." + b64([]byte(payload))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(input))
	return input + "." + b64(mac.Sum(nil))
}

// good are claims that verify with trustedIssuer.
func good() map[string]any {
	return map[string]any{
		"iss": issuerURL,
		"aud": audience,
		"sub": "repo:acme/shop:ref:refs/heads/main",
		"exp": at.Add(10 * time.Minute).Unix(),
		"iat": at.Add(-time.Minute).Unix(),
		"nbf": at.Add(-time.Minute).Unix(),
	}
}

// with are the good claims with some of them set; a nil value takes one away.
func with(set map[string]any) string {
	c := good()
	maps.Copy(c, set)
	for k, v := range set {
		if v == nil {
			delete(c, k)
		}
	}
	return string(must(json.Marshal(c)))
}

// spelled are the good claims with members appended as they are spelled.
func spelled(members string) string {
	return strings.TrimSuffix(with(nil), "}") + "," + members + "}"
}

func trustedIssuer() access.Issuer {
	return access.Issuer{URL: issuerURL, Audience: audience, Algorithms: []string{"ES256", "RS256", "EdDSA"}}
}

// keys is a KeySource of fixed keys.
type keys struct {
	mu  sync.Mutex
	set jose.JSONWebKeySet
	err error
}

func (k *keys) Keys(context.Context, access.Issuer, string) (*jose.JSONWebKeySet, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, k.err
	}
	set := k.set
	return &set, nil
}

func (k *keys) replace(signers ...signer) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.set.Keys = nil
	for _, s := range signers {
		k.set.Keys = append(k.set.Keys, s.public())
	}
}

func keysOf(signers ...signer) *keys {
	k := &keys{}
	k.replace(signers...)
	return k
}

func newVerifier(t testing.TB, change ...func(*access.Issuer)) (*identity.Verifier, *clock, *keys) {
	t.Helper()
	i := trustedIssuer()
	for _, f := range change {
		f(&i)
	}
	c, k := &clock{now: at}, keysOf(es256, rs256, ed)
	v, err := identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: k, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return v, c, k
}

// refused checks that a token is refused with a kind, that the message says what the test wants said, and that neither
// message nor cause holds the token or a part of it.
func refused(t *testing.T, v *identity.Verifier, token string, kind access.Kind, says string) {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	if err == nil {
		t.Fatalf("accepted as %+v", id)
	}
	var e *access.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is a %T, not an *access.Error", err)
	}
	if e.Kind != kind {
		t.Errorf("kind %q, want %q (%s)", e.Kind, kind, e)
	}
	if !strings.Contains(e.Message, says) {
		t.Errorf("message %q does not say %q", e.Message, says)
	}
	if len(e.Message) > 1000 {
		t.Errorf("message of %d bytes", len(e.Message))
	}
	for _, r := range e.Message {
		if r < ' ' || r == 0x7f {
			t.Errorf("message %q holds a control character", e.Message)
		}
	}
	for _, part := range append(strings.Split(token, "."), token) {
		if len(part) >= 16 && (strings.Contains(e.Message, part) || e.Cause != nil && strings.Contains(e.Cause.Error(), part)) {
			t.Errorf("the error holds a part of the token: %s: %v", e.Message, e.Cause)
		}
	}
	if id.Principal.Subject != "" || !id.Expires.IsZero() {
		t.Errorf("an identity came with the error: %+v", id)
	}
}

func accepted(t *testing.T, v *identity.Verifier, token string) identity.Identity {
	t.Helper()
	id, err := v.Verify(t.Context(), token)
	if err != nil {
		t.Fatalf("refused: %v (%v)", err, access.AsError(err).Cause)
	}
	return id
}
