package identity

import (
	"encoding/base64"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// algorithms are those an issuer may be trusted with: signatures by a private key, none weaker than SHA-256. HMAC is
// not among them: with it the issuer's public key, taken for the secret, would sign.
var algorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512, jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
}

// jws is a token taken apart; nothing of it is verified yet.
type jws struct {
	raw     string
	header  header
	payload []byte
}

type header struct {
	alg jose.SignatureAlgorithm
	kid string // empty when the token names no key
}

// headerMembers are the members a header may have (RFC 7515 §4.1). A certificate's thumbprint names a key and brings
// none; it is not used.
var headerMembers = []string{"alg", "kid", "typ", "x5t", "x5t#S256"}

// types are the values of typ, in lower case, that are an ID or access token. Others, such as logout+jwt, are
// genuine tokens for another use (RFC 8725 §3.11).
var types = []string{"jwt", "at+jwt", "application/jwt", "application/at+jwt"}

// split takes a compact JWS apart (RFC 7515 §7.1).
func split(token string) (jws, error) {
	malformed := func(how string) (jws, error) {
		return jws{}, access.Errorf(access.Unauthenticated, "the bearer token is not a signed JWT: %s. Send the token of your OIDC issuer as it is", how)
	}
	// Bounded before it is cut: three parts are a JWS, five a JWE (RFC 7516 §7.1).
	switch strings.Count(token, ".") {
	case 2:
	case 4:
		return malformed("it is encrypted")
	default:
		return malformed("it does not have three parts")
	}
	h, rest, _ := strings.Cut(token, ".")
	p, s, _ := strings.Cut(rest, ".")
	var parts [3][]byte
	for i, part := range []string{h, p, s} {
		var ok bool
		if parts[i], ok = decode(part); !ok {
			return malformed("it is not base64url")
		}
	}
	members, err := object(parts[0])
	if err != nil {
		return malformed("its header " + err.Error())
	}
	for m := range members {
		if !slices.Contains(headerMembers, m) {
			return malformed("its header has a member this gate does not accept: " + short(m))
		}
	}
	j := jws{raw: token, payload: parts[1]}
	alg, ok := text(members["alg"])
	if !ok || !slices.Contains(algorithms, jose.SignatureAlgorithm(alg)) {
		return malformed("its algorithm " + short(alg) + " is no signature this gate accepts")
	}
	j.header.alg = jose.SignatureAlgorithm(alg)
	if raw, said := members["kid"]; said {
		if j.header.kid, ok = text(raw); !ok || j.header.kid == "" {
			return malformed("its key id is not a string")
		}
	}
	if raw, said := members["typ"]; said {
		if typ, ok := text(raw); !ok || !slices.Contains(types, strings.ToLower(typ)) {
			return malformed("its type is neither JWT nor at+jwt")
		}
	}
	return j, nil
}

// decode decodes unpadded base64url. Unlike encoding/base64 alone it takes no line breaks and no bits past the end, so
// that no two tokens say the same.
func decode(s string) ([]byte, bool) {
	if strings.ContainsAny(s, "\r\n") {
		return nil, false
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return b, err == nil
}
