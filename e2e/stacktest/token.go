package stacktest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Forge makes tokens that bin/local would not.
type Forge struct {
	t     testing.TB
	stack *Stack
	key   *ecdsa.PrivateKey // the issuer's own
	kid   string
}

// Forge returns a forge that holds the issuer's own key, so that what a token says is all that can be wrong with it.
func (s *Stack) Forge(t testing.TB) *Forge {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.Root, ".local", "issuer", "keys.json"))
	if err != nil {
		t.Fatal(err)
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(b, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		if key, ok := k.Key.(*ecdsa.PrivateKey); ok {
			return &Forge{t: t, stack: s, key: key, kid: k.KeyID}
		}
	}
	t.Fatal("the issuer has no ECDSA key")
	return nil
}

// Claims are those of a good token of an agent in group agents, with changes; a nil takes a claim out.
func (f *Forge) Claims(change map[string]any) map[string]any {
	now := time.Now().Unix()
	c := map[string]any{"iss": f.stack.Issuer.URL, "aud": f.stack.Issuer.Audience, "sub": "bot-" + Word(), "groups": []string{"agents"},
		"iat": now, "nbf": now, "exp": now + 600, "jti": Word()}
	maps.Copy(c, change)
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// Header is a good token's, with changes.
func (f *Forge) Header(change map[string]any) map[string]any {
	h := map[string]any{"alg": "ES256", "kid": f.kid, "typ": "JWT"}
	maps.Copy(h, change)
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	return h
}

// Sign signs with the issuer's own key. header and claims are JSON already when they are strings.
func (f *Forge) Sign(header, claims any) string { return f.SignWith(f.key, header, claims) }

// SignWith signs with another key.
func (f *Forge) SignWith(key *ecdsa.PrivateKey, header, claims any) string {
	f.t.Helper()
	signed := f.part(header) + "." + f.part(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		f.t.Fatal(err)
	}
	sig := make([]byte, 64) // RFC 7518 §3.4
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return f.keep(signed + "." + encode(sig))
}

// MAC signs with a shared secret, the way a token is forged for a verifier that takes the public key for one.
func (f *Forge) MAC(secret []byte, header, claims any) string {
	signed := f.part(header) + "." + f.part(claims)
	h := hmac.New(sha256.New, secret)
	h.Write([]byte(signed))
	return f.keep(signed + "." + encode(h.Sum(nil)))
}

// Unsigned has no signature.
func (f *Forge) Unsigned(header, claims any) string {
	return f.keep(f.part(header) + "." + f.part(claims) + ".")
}

// Key is a key that is nobody's, and its JWK.
func (f *Forge) Key() (*ecdsa.PrivateKey, jose.JSONWebKey) {
	f.t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	jwk := jose.JSONWebKey{Key: k.Public(), Algorithm: "ES256", Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		f.t.Fatal(err)
	}
	jwk.KeyID = encode(thumbprint)
	return k, jwk
}

// JWKS is the issuer's public key set, as it is served.
func (f *Forge) JWKS() []byte {
	f.t.Helper()
	res, err := http.Get(f.stack.Issuer.URL + "/jwks")
	if err != nil {
		f.t.Fatal(err)
	}
	defer res.Body.Close()
	return []byte(readAll(res.Body))
}

// Public is the issuer's public key as PKIX DER.
func (f *Forge) Public() *ecdsa.PublicKey { return &f.key.PublicKey }

func (f *Forge) keep(token string) string {
	f.stack.seen.secret(token)
	return token
}

func (f *Forge) part(v any) string {
	f.t.Helper()
	if s, ok := v.(string); ok {
		return encode([]byte(s))
	}
	b, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return encode(b)
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// Tampered is a token whose claims were changed after it was signed.
func Tampered(t testing.TB, token string, change func(map[string]any)) string {
	t.Helper()
	parts := strings.Split(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var claims map[string]any
	if err := json.Unmarshal(b, &claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if b, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	return parts[0] + "." + encode(b) + "." + parts[2]
}
