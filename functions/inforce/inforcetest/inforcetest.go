// Package inforcetest stands in for what package inforce reaches outside for: the policy's bucket and the issuers' keys.
// Tokens are real, and really verified.
package inforcetest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/identity"
	"sallyport/shared/policystore"
)

// A Bucket holds versions of the policy. Its zero value is empty.
type Bucket struct {
	mu     sync.Mutex
	put    policystore.File
	loaded string // the version that was loaded, or refused, last
	look   policystore.Look
	Err    error // when set, the bucket is away
	Looks  int
}

// Put makes a file the newest version.
func (b *Bucket) Put(version, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sum := sha256.Sum256([]byte(text))
	b.put = policystore.File{Bytes: []byte(text), Version: version, Digest: hex.EncodeToString(sum[:])}
}

// Follow is for inforce.Config.
func (b *Bucket) Follow(load func(name string, file []byte) error) inforce.Policies {
	return follower{b, load}
}

type follower struct {
	b    *Bucket
	load func(string, []byte) error
}

func (f follower) Look(context.Context) (policystore.Look, error) {
	f.b.mu.Lock()
	defer f.b.mu.Unlock()
	f.b.Looks++
	if f.b.Err != nil {
		return f.b.look, f.b.Err
	}
	if f.b.put.Version == f.b.loaded {
		return f.b.look, nil
	}
	f.b.loaded = f.b.put.Version
	if err := f.load("policy/current.yaml", f.b.put.Bytes); err != nil {
		f.b.look.Refused = &policystore.Refused{Version: f.b.put.Version, Digest: f.b.put.Digest, Err: err}
		return f.b.look, nil
	}
	f.b.look = policystore.Look{File: f.b.put}
	return f.b.look, nil
}

// Issuers are issuers that all sign with one key, each its own tokens.
type Issuers struct {
	key *ecdsa.PrivateKey
	now func() time.Time

	mu      sync.Mutex
	Away    map[string]bool // issuers whose keys cannot be had
	Err     error           // what All says besides the keys
	Fetched int             // how often all keys were asked for
	Made    [][]access.Issuer
}

// NewIssuers returns issuers whose tokens are valid for an hour around now.
func NewIssuers(now func() time.Time) *Issuers {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return &Issuers{key: key, now: now, Away: map[string]bool{}}
}

// Keys is for inforce.Config.
func (i *Issuers) Keys(issuers []access.Issuer) (inforce.Keys, error) {
	if _, err := identity.NewFetcher(identity.FetcherConfig{Issuers: issuers}); err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.Made = append(i.Made, issuers)
	return keys{i, issuers}, nil
}

// Token is a token of an issuer for an audience, with what more it claims.
func (i *Issuers) Token(issuer, audience, subject string, more map[string]any) string {
	claims := map[string]any{"iss": issuer, "aud": audience, "sub": subject, "iat": i.now().Unix() - 60, "exp": i.now().Add(time.Hour).Unix()}
	for k, v := range more {
		claims[k] = v
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "one"}}, nil)
	if err != nil {
		panic(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		panic(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		panic(err)
	}
	return token
}

func (i *Issuers) set() *jose.JSONWebKeySet {
	return &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "one", Algorithm: "ES256", Use: "sig"}}}
}

type keys struct {
	i       *Issuers
	issuers []access.Issuer
}

func (k keys) Keys(_ context.Context, issuer access.Issuer, _ string) (*jose.JSONWebKeySet, error) {
	k.i.mu.Lock()
	defer k.i.mu.Unlock()
	for _, i := range k.issuers {
		if i.URL == issuer.URL && !k.i.Away[i.URL] {
			return k.i.set(), nil
		}
	}
	return nil, access.Errorf(access.Unavailable, "the keys of issuer %s cannot be had", issuer.URL).After(5 * time.Second)
}

func (k keys) All(context.Context) ([]identity.IssuerKeys, error) {
	k.i.mu.Lock()
	defer k.i.mu.Unlock()
	k.i.Fetched++
	jwks, err := json.Marshal(k.i.set())
	if err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	all := []identity.IssuerKeys{}
	for _, i := range k.issuers {
		if !k.i.Away[i.URL] {
			all = append(all, identity.IssuerKeys{Issuer: i.URL, JWKS: jwks, Fetched: k.i.now()})
		}
	}
	return all, k.i.Err
}
