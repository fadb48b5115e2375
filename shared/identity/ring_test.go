package identity_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

func noKeys(context.Context) ([]identity.IssuerKeys, error) { return nil, nil }

func pushed(issuer string, fetched time.Time, signers ...signer) identity.IssuerKeys {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, s := range signers {
		set.Keys = append(set.Keys, s.public())
	}
	return identity.IssuerKeys{Issuer: issuer, JWKS: must(json.Marshal(set)), Fetched: fetched}
}

// newRing is a Verifier with a Ring on a clock, and what the ring is told when it asks.
func newRing(t testing.TB) (v *identity.Verifier, r *identity.Ring, c *clock, tell func(error, ...identity.IssuerKeys), asked *atomic.Int64) {
	t.Helper()
	var mu sync.Mutex
	var all []identity.IssuerKeys
	var failure error
	asked = &atomic.Int64{}
	c = &clock{now: at}
	r = must(identity.NewRing(identity.RingConfig{Now: c.Now, Refresh: func(context.Context) ([]identity.IssuerKeys, error) {
		asked.Add(1)
		mu.Lock()
		defer mu.Unlock()
		return all, failure
	}}))
	v = must(identity.New(identity.Config{Issuers: []access.Issuer{trustedIssuer()}, Keys: r, Now: c.Now}))
	return v, r, c, func(err error, k ...identity.IssuerKeys) {
		mu.Lock()
		defer mu.Unlock()
		all, failure = k, err
	}, asked
}

func ringToken(s signer, n int) string { return s.sign(s.header(), with(forever(n))) }

func TestRing(t *testing.T) {
	v, r, c, tell, asked := newRing(t)
	// Asked when it holds nothing.
	tell(nil, pushed(issuerURL, at, es256))
	accepted(t, v, ringToken(es256, 0))
	// Not asked while what is pushed is fresh.
	for n := range 20 {
		c.Advance(time.Minute)
		if err := r.Set([]identity.IssuerKeys{pushed(issuerURL, c.Now(), es256)}); err != nil {
			t.Fatal(err)
		}
		accepted(t, v, ringToken(es256, n+1))
	}
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	// Asked for a key it does not know.
	tell(nil, pushed(issuerURL, c.Now(), es256, rs256))
	accepted(t, v, ringToken(rs256, 0))
	// A key withdrawn by a push is out within Reverify.
	old := ringToken(es256, 100)
	accepted(t, v, old)
	c.Advance(time.Second)
	r.Set([]identity.IssuerKeys{pushed(issuerURL, c.Now(), rs256)})
	tell(nil, pushed(issuerURL, c.Now(), rs256))
	refused(t, v, ringToken(es256, 101), access.Unauthenticated, "not among")
	c.Advance(identity.Reverify)
	refused(t, v, old, access.Unauthenticated, "not among")
	// An answer that was overtaken does not bring it back.
	r.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256, rs256)})
	refused(t, v, ringToken(es256, 102), access.Unauthenticated, "not among")
}

// O4 for the side that is told.
func TestO4RingStale(t *testing.T) {
	for name, answer := range map[string]struct {
		keys []identity.IssuerKeys
		err  error
	}{
		"the broker is away":         {nil, errors.New("away")},
		"the broker knows nothing":   {nil, nil},
		"keys as old as before":      {[]identity.IssuerKeys{pushed(issuerURL, at, es256)}, nil},
		"keys that are none":         {[]identity.IssuerKeys{{Issuer: issuerURL, JWKS: []byte("<html>"), Fetched: at.Add(time.Hour)}}, nil},
		"keys that are empty":        {[]identity.IssuerKeys{{Issuer: issuerURL, Fetched: at.Add(time.Hour)}}, nil},
		"keys of an issuer like it":  {[]identity.IssuerKeys{pushed(issuerURL+"/", at.Add(time.Hour), es256)}, nil},
		"keys and an error with it":  {[]identity.IssuerKeys{pushed(issuerURL, at.Add(time.Hour), es256)}, errors.New("half an answer")},
		"keys from the last century": {[]identity.IssuerKeys{pushed(issuerURL, time.Time{}, es256)}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			v, r, c, tell, _ := newRing(t)
			r.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256)})
			tell(answer.err, answer.keys...)
			c.Advance(identity.Stale)
			accepted(t, v, ringToken(es256, 0))
			refused(t, v, ringToken(rs256, 0), access.Unavailable, "try again")
			c.Advance(1)
			refused(t, v, ringToken(es256, 0), access.Unavailable, "try again")
			refused(t, v, ringToken(es256, 1), access.Unavailable, "try again")
		})
	}
}

func TestRingNeverHeld(t *testing.T) {
	v, r, c, tell, asked := newRing(t)
	for n := range 20 {
		refused(t, v, ringToken(es256, n), access.Unavailable, "try again")
		c.Advance(time.Second)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times in 20 seconds", n)
	}
	tell(errors.New("away"))
	r.Set([]identity.IssuerKeys{pushed(issuerURL, c.Now(), es256)})
	accepted(t, v, ringToken(es256, 0))
}

// Keys from a clock ahead of ours do not stay longer than others.
func TestRingFuture(t *testing.T) {
	v, r, c, _, _ := newRing(t)
	r.Set([]identity.IssuerKeys{pushed(issuerURL, at.Add(24*time.Hour), es256)})
	accepted(t, v, ringToken(es256, 0))
	c.Advance(identity.Stale + 1)
	refused(t, v, ringToken(es256, 1), access.Unavailable, "try again")
}

// Nor do keys held when the clock is set back.
func TestRingClockSetBack(t *testing.T) {
	v, r, c, tell, asked := newRing(t)
	r.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256)})
	c.Advance(-time.Hour)
	tell(nil, pushed(issuerURL, c.Now(), rs256))
	refused(t, v, ringToken(es256, 0), access.Unauthenticated, "not among")
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func TestRingUnknownKid(t *testing.T) {
	v, r, c, tell, asked := newRing(t)
	r.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256)})
	tell(nil, pushed(issuerURL, at, es256))
	var wg sync.WaitGroup
	for n := range 500 {
		wg.Go(func() {
			unknown := stranger
			unknown.kid = fmt.Sprint("kid", n)
			if _, err := v.Verify(context.Background(), ringToken(unknown, n)); access.KindOf(err) != access.Unauthenticated {
				t.Errorf("%v", err)
			}
		})
	}
	wg.Wait()
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
	accepted(t, v, ringToken(es256, 0))
	c.Advance(identity.RefreshEvery)
	tell(nil, pushed(issuerURL, c.Now(), es256, rs256))
	accepted(t, v, ringToken(rs256, 0))
}

// What one side says the other understands.
func TestFetcherToRing(t *testing.T) {
	p := newProvider(t, es256, rs256, ed)
	_, f, c := p.gate(t)
	r := must(identity.NewRing(identity.RingConfig{Now: c.Now, Refresh: func(ctx context.Context) ([]identity.IssuerKeys, error) {
		all, err := f.All(ctx)
		if err != nil {
			return nil, err
		}
		var over []identity.IssuerKeys // as it goes over the wire
		return over, json.Unmarshal(must(json.Marshal(all)), &over)
	}}))
	v := must(identity.New(identity.Config{Issuers: []access.Issuer{p.issuer()}, Keys: r, Now: c.Now}))
	for n, s := range []signer{es256, rs256, ed} {
		accepted(t, v, p.token(s, forever(n)))
	}
	p.asked(t, 1)
	// A key that is new to the issuer passes through both with the first token signed with it.
	c.Advance(identity.RefreshEvery)
	next := es256
	next.kid, next.key = "next", stranger.key
	p.publish(es256, next)
	accepted(t, v, p.token(next, forever(0)))
	p.asked(t, 2)
	// With the issuer away both live on what they hold, the ring no longer than the fetcher.
	p.breakDown(500)
	c.Advance(identity.Stale)
	accepted(t, v, p.token(es256, forever(10)))
	c.Advance(1)
	refused(t, v, p.token(es256, forever(11)), access.Unavailable, "try again")
}

func TestParseKeys(t *testing.T) {
	jwk := func(s signer, members string) string {
		k := string(must(json.Marshal(s.public())))
		return k[:len(k)-1] + members + "}"
	}
	plain := func(s signer, alg, members string) string {
		k := s.public()
		k.Algorithm, k.Use = "", ""
		j := string(must(json.Marshal(k)))
		return j[:len(j)-1] + members + "}"
	}
	for name, test := range map[string]struct {
		key  string
		kept bool
	}{
		"as published":            {jwk(es256, ""), true},
		"unknown members":         {jwk(rs256, `,"x-vendor":[1]`), true},
		"no use, no alg":          {plain(es256, "", ""), true},
		"key_ops verify":          {plain(es256, "", `,"key_ops":["verify"]`), true},
		"use enc":                 {plain(es256, "", `,"use":"enc"`), false},
		"use empty":               {plain(es256, "", `,"use":""`), false},
		"use null":                {plain(es256, "", `,"use":null`), false},
		"use a list":              {plain(es256, "", `,"use":["sig"]`), false},
		"key_ops encrypt":         {plain(es256, "", `,"key_ops":["encrypt","wrapKey"]`), false},
		"key_ops sign":            {plain(es256, "", `,"key_ops":["sign"]`), false},
		"key_ops empty":           {plain(es256, "", `,"key_ops":[]`), false},
		"key_ops a string":        {plain(es256, "", `,"key_ops":"verify"`), false},
		"alg of encryption":       {plain(rs256, "", `,"alg":"RSA-OAEP"`), false},
		"alg HS256":               {plain(rs256, "", `,"alg":"HS256"`), false},
		"alg none":                {plain(rs256, "", `,"alg":"none"`), false},
		"alg null":                {plain(rs256, "", `,"alg":null`), false},
		"symmetric":               {`{"kty":"oct","k":"AAAA","kid":"a","alg":"HS256"}`, false},
		"private":                 {string(must(json.Marshal(jose.JSONWebKey{Key: es256.key, KeyID: "a"}))), false},
		"half private":            {jwk(es256, `,"d":"AAAA"`), false},
		"unknown type":            {`{"kty":"XYZ","kid":"a"}`, false},
		"no type":                 {`{"kid":"a"}`, false},
		"another curve":           {`{"kty":"EC","crv":"secp256k1","x":"AAAA","y":"AAAA"}`, false},
		"a point off the curve":   {`{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, false},
		"RSA without a modulus":   {`{"kty":"RSA","e":"AQAB"}`, false},
		"RSA with exponent 1":     {rsaJWK(2048, "AQ"), false},
		"RSA with exponent 2":     {rsaJWK(2048, "Ag"), false},
		"RSA with 2047 bits":      {rsaJWK(2047, "AQAB"), false},
		"RSA with 1024 bits":      {rsaJWK(1024, "AQAB"), false},
		"RSA with exponent 4":     {rsaJWK(2048, "BA"), false},
		"RSA with 8192 bits":      {rsaJWK(8192, "AQAB"), false},
		"RSA with a prime":        {jwk(rs256, `,"p":"AAAA"`), false},
		"RSA with 2048 bits":      {rsaJWK(2048, "AQAB"), true},
		"not an object":           {`"key"`, false},
		"null":                    {`null`, false},
		"a certificate that lies": {jwk(es256, `,"x5c":["AAAA"]`), false},
	} {
		t.Run(name, func(t *testing.T) {
			set, err := identity.ParseKeys([]byte(`{"keys":[` + test.key + `,` + jwk(ed, "") + `]}`))
			if err != nil {
				t.Fatal(err)
			}
			want := 1
			if test.kept {
				want = 2
			}
			if len(set.Keys) != want {
				t.Errorf("%d keys are kept, want %d", len(set.Keys), want)
			}
		})
	}
}

func TestParseKeysRefuses(t *testing.T) {
	for _, set := range []string{
		``, `[]`, `null`, `{}`, `{"keys":null}`, `{"keys":"x"}`, `{"Keys":[]}`, `{"keys":[],"keys":[]}`, `{"keys":[]}{}`, `{"keys":[]`,
		`{"keys":[{"kty":"EC","use":"enc","use":"sig"}]}`, "{\"keys\":[],\"x\":\"\xff\"}",
	} {
		if got, err := identity.ParseKeys([]byte(set)); err == nil {
			t.Errorf("%s is a set of %d keys", set, len(got.Keys))
		}
	}
}

// rsaJWK is a public key of random bits, of which some divisor is not a power of 65537.
func rsaJWK(bits int, e string) string {
	n := make([]byte, (bits+7)/8)
	for i := range n {
		n[i] = byte(i*7 + 1)
	}
	n[0] = 1 << ((bits - 1) % 8)
	n[len(n)-1] |= 1
	return fmt.Sprintf(`{"kty":"RSA","n":%q,"e":%q,"kid":"r"}`, b64(n), e)
}
