package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256"
	_ "crypto/sha512"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// A KeySource holds the public keys of issuers. [Fetcher] gets them from the issuers, [Ring] is given them.
//
// Keys returns the issuer's keys: never ones older than [Stale], and when kid is not empty and not among them, ones for
// which it has tried to get newer, unless it did so less than [RefreshEvery] ago. A set without kid is an answer: the
// issuer has no such key. The set holds only keys fit to verify a signature with; the caller must not change it.
//
// An error is an *access.Error of kind Unavailable: the keys cannot be had, which is not to be taken for yes or no.
// Keys may block for the time of one request to the issuer or until ctx is done. It is safe for concurrent use.
type KeySource interface {
	Keys(ctx context.Context, issuer access.Issuer, kid string) (*jose.JSONWebKeySet, error)
}

// IssuerKeys are one issuer's public keys, to be handed from a Fetcher to a Ring.
type IssuerKeys struct {
	Issuer  string          `json:"issuer"`  // the issuer's URL
	JWKS    json.RawMessage `json:"jwks"`    // a JWK Set (RFC 7517 §5) of public keys
	Fetched time.Time       `json:"fetched"` // when the issuer answered with them
}

const (
	maxKeys = 100  // in one set
	minRSA  = 2048 // bits (RFC 7518 §3.3)
)

// pick is the one key of the set that a token of that header can be signed with. Where none or more than one fits,
// nothing is tried: an issuer that gives two keys one name does not say which one it meant.
func pick(set *jose.JSONWebKeySet, h header) (*jose.JSONWebKey, error) {
	var found *jose.JSONWebKey
	for i := range set.Keys {
		k := &set.Keys[i]
		if h.kid != "" && k.KeyID != h.kid || !fits(k, h.alg) {
			continue
		}
		if found != nil {
			return nil, access.Errorf(access.Unauthenticated, "the token does not say which of its issuer's keys it is signed with; its issuer must give each key a kid of its own")
		}
		found = k
	}
	switch {
	case found != nil:
		return found, nil
	case h.kid == "":
		return nil, access.Errorf(access.Unauthenticated, "the token does not say which of its issuer's keys it is signed with, and none is for %s; get a new one from its issuer", h.alg)
	}
	return nil, access.Errorf(access.Unauthenticated, "the token is signed with key %s, which is not among its issuer's signing keys for %s; get a new one from its issuer. If it changed its keys just now, try again in %d seconds", short(h.kid), h.alg, int(RefreshEvery/time.Second))
}

// fits reports whether a key may verify signatures of an algorithm: the one it is declared for, if it is, and always
// one of its own kind, so that no key is used in a way its owner did not mean.
func fits(k *jose.JSONWebKey, alg jose.SignatureAlgorithm) bool {
	if k.Algorithm != "" && k.Algorithm != string(alg) {
		return false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		return slices.Contains([]jose.SignatureAlgorithm{jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512}, alg)
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256():
			return alg == jose.ES256
		case elliptic.P384():
			return alg == jose.ES384
		case elliptic.P521():
			return alg == jose.ES512
		}
	case ed25519.PublicKey:
		return alg == jose.EdDSA
	}
	return false
}

// saltFits reports whether a token that verified as RSASSA-PSS did so with a salt as long as its hash (RFC 7518 §3.5);
// go-jose takes any. Other algorithms have no salt.
func saltFits(k *jose.JSONWebKey, alg jose.SignatureAlgorithm, token string) bool {
	hash, pss := map[jose.SignatureAlgorithm]crypto.Hash{jose.PS256: crypto.SHA256, jose.PS384: crypto.SHA384, jose.PS512: crypto.SHA512}[alg]
	if !pss {
		return true
	}
	public, ok := k.Key.(*rsa.PublicKey)
	dot := strings.LastIndexByte(token, '.')
	signature, decoded := decode(token[dot+1:])
	if !ok || !decoded {
		return false
	}
	h := hash.New()
	h.Write([]byte(token[:dot]))
	return rsa.VerifyPSS(public, hash, h.Sum(nil), signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// parseKeys reads a JWK Set and keeps what signatures may be verified with. Keys that are for something else, that are
// unknown, weak or malformed are left out (RFC 7517 §5); only a set that is none is an error, so that an issuer can
// withdraw all its keys, and so that an error page cannot.
func parseKeys(data []byte) (*jose.JSONWebKeySet, error) {
	set, err := object(data)
	if err != nil {
		return nil, fmt.Errorf("the key set %w", err)
	}
	var raw []json.RawMessage
	if keys := set["keys"]; len(keys) == 0 || keys[0] != '[' || json.Unmarshal(keys, &raw) != nil {
		return nil, errors.New("the key set has no list of keys")
	}
	if len(raw) > maxKeys {
		return nil, fmt.Errorf("the key set holds %d keys; %d is the most this gate takes", len(raw), maxKeys)
	}
	usable := &jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, r := range raw {
		if k, ok := parseKey(r); ok {
			usable.Keys = append(usable.Keys, k)
		}
	}
	return usable, nil
}

func parseKey(raw json.RawMessage) (jose.JSONWebKey, bool) {
	none := jose.JSONWebKey{}
	members, err := object(raw)
	if err != nil {
		return none, false
	}
	// A private key that is published is nobody's any more; a symmetric one is private.
	for _, secret := range []string{"k", "d", "p", "q", "dp", "dq", "qi", "oth", "priv"} {
		if _, ok := members[secret]; ok {
			return none, false
		}
	}
	if use, said := members["use"]; said && string(use) != `"sig"` {
		return none, false
	}
	if ops, said := members["key_ops"]; said {
		var list []string
		if json.Unmarshal(ops, &list) != nil || !slices.Contains(list, "verify") {
			return none, false
		}
	}
	if alg, said := members["alg"]; said {
		if name, ok := text(alg); !ok || !slices.Contains(algorithms, jose.SignatureAlgorithm(name)) {
			return none, false
		}
	}
	var k jose.JSONWebKey
	if k.UnmarshalJSON(raw) != nil || !k.Valid() || len(k.KeyID) > maxText {
		return none, false
	}
	switch key := k.Key.(type) {
	case *rsa.PublicKey:
		// go-jose refuses more than 4096 bits and an exponent of 1, which makes every value its own signature.
		if key.N.BitLen() < minRSA || key.E%2 == 0 || roca(key.N) {
			return none, false
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return none, false
	}
	// Certificates and the addresses of certificates are left behind.
	return jose.JSONWebKey{Key: k.Key, KeyID: k.KeyID, Algorithm: k.Algorithm, Use: "sig"}, true
}

// roca reports whether an RSA modulus was made by the faulty generator of CVE-2017-15361, whose keys can be factored:
// its primes are powers of 65537 modulo every small prime, and so is their product.
func roca(n *big.Int) bool {
	var r big.Int
	for p := int64(3); p <= 167; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		rest := r.Mod(n, big.NewInt(p)).Int64()
		power, seen := int64(1), false
		for range p {
			seen = seen || power == rest
			power = power * 65537 % p
		}
		if !seen {
			return false
		}
	}
	return true
}

func unavailable(issuer string, retry time.Duration, cause error) error {
	return access.Errorf(access.Unavailable, "the keys of issuer %s cannot be had just now, so the token cannot be verified; nothing was done, try again", short(issuer)).
		After(max(retry, time.Second)).Because(cause)
}
