package identity_test

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"crypto/sha256"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

func TestVerify(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) {
		i.Agent, i.Owner = "workflow", "actor"
		i.Run = []string{"run_id", "attempt"}
		i.GroupsClaim = "groups"
		i.Require = []access.Condition{
			{Claim: "repository_id", Equals: []string{"1", "42"}},
			{Claim: "ref", Matches: "^refs/heads/(main|release-.*)$"},
		}
		i.Groups = []access.GroupRule{
			{Group: "agents", When: []access.Condition{{Claim: "repository_owner_id", Equals: []string{"7"}}}},
			{Group: "deployers", When: []access.Condition{{Claim: "repository_owner_id", Equals: []string{"7"}}, {Claim: "environment", Equals: []string{"prod"}}}},
		}
	})
	for _, s := range []signer{es256, rs256, ed} {
		t.Run(s.alg, func(t *testing.T) {
			token := s.sign(s.header(), with(map[string]any{
				"workflow": "deploy", "actor": "ana", "run_id": 1234567890123, "attempt": "1", "repository_id": "42",
				"ref": "refs/heads/main", "repository_owner_id": "7", "groups": []string{"b", "a", "b", "agents"},
				"nested": map[string]any{"a": []any{1, map[string]any{"a": nil}}},
			}))
			sum := sha256.Sum256([]byte(token))
			want := identity.Identity{
				Principal: access.Principal{
					Issuer: issuerURL, Subject: "repo:acme/shop:ref:refs/heads/main", Agent: "deploy", Owner: "ana",
					Run:    map[string]string{"run_id": "1234567890123", "attempt": "1"},
					Groups: []string{"a", "agents", "b"},
				},
				Expires: at.Add(10 * time.Minute), NotBefore: at.Add(-time.Minute), Token: hex.EncodeToString(sum[:]),
			}
			for _, how := range []string{"verified", "remembered"} {
				if diff := cmp.Diff(want, accepted(t, v, token)); diff != "" {
					t.Errorf("%s (-want +got):\n%s", how, diff)
				}
			}
		})
	}
}

func TestAccepted(t *testing.T) {
	v, _, _ := newVerifier(t)
	for name, token := range map[string]string{
		"aud as an array of one":  es256.sign(es256.header(), with(map[string]any{"aud": []string{audience}})),
		"no iat, no nbf":          es256.sign(es256.header(), with(map[string]any{"iat": nil, "nbf": nil})),
		"exp with a fraction":     es256.sign(es256.header(), with(map[string]any{"exp": float64(at.Unix()) + 0.5})),
		"nbf within the skew":     es256.sign(es256.header(), with(map[string]any{"nbf": at.Add(identity.Skew).Unix()})),
		"iat within the skew":     es256.sign(es256.header(), with(map[string]any{"iat": at.Add(identity.Skew).Unix()})),
		"spaces in the JSON":      es256.sign("{ \"alg\" : \"ES256\" ,\n\"kid\" : \"es\" }\n", strings.ReplaceAll(with(nil), ",", " ,\n ")),
		"typ at+jwt":              es256.sign(`{"alg":"ES256","kid":"es","typ":"at+jwt"}`, with(nil)),
		"typ in lower case":       es256.sign(`{"alg":"ES256","kid":"es","typ":"jwt"}`, with(nil)),
		"no typ":                  es256.sign(`{"alg":"ES256","kid":"es"}`, with(nil)),
		"a thumbprint":            rs256.sign(`{"alg":"RS256","kid":"rs","x5t":"AAAA","typ":"JWT"}`, with(nil)),
		"no kid, one key fits":    rs256.sign(`{"alg":"RS256"}`, with(nil)),
		"escapes in a name":       es256.sign(es256.header(), strings.Replace(with(nil), `"sub"`, `"\u0073ub"`, 1)),
		"a look-alike of a claim": es256.sign(es256.header(), spelled(`"Groups":["admins"]`)),
		"some groups elsewhere":   es256.sign(es256.header(), spelled(`"_claim_names":{"groups":"s"},"_claim_sources":{"s":{"endpoint":"https://graph.example"}}`)), // no groups claim is read
	} {
		t.Run(name, func(t *testing.T) { accepted(t, v, token) })
	}
}

// O1: alg none, HS256 with the public key, crit, JWE, keys and addresses of keys in the header; and the header's other
// ways to be read twice.
func TestO1Headers(t *testing.T) {
	v, _, _ := newVerifier(t)
	spki := must(x509.MarshalPKIXPublicKey(rs256.key.Public()))
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})
	jwk := string(must(json.Marshal(stranger.public())))
	payload := with(nil)
	unsigned := func(header string) string { return b64([]byte(header)) + "." + b64([]byte(payload)) + "." }
	type test struct{ name, token, says string }
	tests := []test{
		{"alg none, no signature", unsigned(`{"alg":"none","kid":"es"}`), ""},
		{"alg none, a signature", es256.sign(`{"alg":"none","kid":"es"}`, payload), "algorithm"},
		{"alg None", es256.sign(`{"alg":"None","kid":"es"}`, payload), "algorithm"},
		{"alg nOnE, signature of one byte", unsigned(`{"alg":"nOnE","kid":"es"}`) + "AA", "algorithm"},
		{"alg empty", es256.sign(`{"alg":"","kid":"es"}`, payload), "algorithm"},
		{"alg missing", es256.sign(`{"kid":"es"}`, payload), "algorithm"},
		{"alg null", es256.sign(`{"alg":null,"kid":"es"}`, payload), "algorithm"},
		{"alg a list", es256.sign(`{"alg":["ES256"],"kid":"es"}`, payload), "algorithm"},
		{"alg in lower case", es256.sign(`{"alg":"es256","kid":"es"}`, payload), "algorithm"},
		{"alg with a space", es256.sign(`{"alg":"ES256 ","kid":"es"}`, payload), "algorithm"},
		{"Alg for alg", es256.sign(`{"Alg":"ES256","kid":"es"}`, payload), "member"},
		{"HS256 with the key as PEM", hs256(pemKey, `{"alg":"HS256","kid":"rs"}`, payload), "algorithm"},
		{"HS256 with the key as DER", hs256(spki, `{"alg":"HS256","kid":"rs"}`, payload), "algorithm"},
		{"HS256 with the key as JWK", hs256(must(json.Marshal(rs256.public())), `{"alg":"HS256","kid":"rs"}`, payload), "algorithm"},
		{"HS256 with nothing", hs256(nil, `{"alg":"HS256","kid":"rs"}`, payload), "algorithm"},
		{"alg not of the issuer", rs256.sign(`{"alg":"PS256","kid":"rs"}`, payload), "accepts"},
		{"alg of another key", es256.sign(`{"alg":"RS256","kid":"es"}`, payload), "not among"},
		{"crit known", es256.sign(`{"alg":"ES256","kid":"es","crit":["b64"],"b64":true}`, payload), "member"},
		{"crit unknown", es256.sign(`{"alg":"ES256","kid":"es","crit":["x"],"x":1}`, payload), "member"},
		{"crit empty", es256.sign(`{"alg":"ES256","kid":"es","crit":[]}`, payload), "member"},
		{"b64 false", es256.sign(`{"alg":"ES256","kid":"es","b64":false}`, payload), "member"},
		{"JWE", "eyJhbGciOiJSU0EtT0FFUCIsImVuYyI6IkEyNTZHQ00ifQ.AAAA.AAAA.AAAA.AAAA", "encrypted"},
		{"JWE header in a JWS", es256.sign(`{"alg":"ES256","kid":"es","enc":"A256GCM"}`, payload), "member"},
		{"zip", es256.sign(`{"alg":"ES256","kid":"es","zip":"DEF"}`, payload), "member"},
		{"cty JWT", es256.sign(`{"alg":"ES256","kid":"es","cty":"JWT"}`, payload), "member"},
		{"jku", stranger.sign(`{"alg":"ES256","kid":"es","jku":"https://evil.example/jwks"}`, payload), "member"},
		{"x5u", stranger.sign(`{"alg":"ES256","kid":"es","x5u":"https://evil.example/cert"}`, payload), "member"},
		{"x5c", stranger.sign(`{"alg":"ES256","kid":"es","x5c":["AAAA"]}`, payload), "member"},
		{"jwk", stranger.sign(`{"alg":"ES256","kid":"es","jwk":`+jwk+`}`, payload), "member"},
		{"alg twice, the same", es256.sign(`{"alg":"ES256","alg":"ES256","kid":"es"}`, payload), "twice"},
		{"alg twice, none last", es256.sign(`{"alg":"ES256","kid":"es","alg":"none"}`, payload), "twice"},
		{"alg twice, once escaped", es256.sign(`{"alg":"ES256","kid":"es","\u0061lg":"none"}`, payload), "twice"},
		{"kid twice", es256.sign(`{"alg":"ES256","kid":"es","kid":"rs"}`, payload), "twice"},
		{"kid a number", es256.sign(`{"alg":"ES256","kid":1}`, payload), "key id"},
		{"kid null", es256.sign(`{"alg":"ES256","kid":null}`, payload), "key id"},
		{"kid empty", es256.sign(`{"alg":"ES256","kid":""}`, payload), "key id"},
		{"kid of nobody", es256.sign(`{"alg":"ES256","kid":"nobody"}`, payload), "not among"},
		{"kid a path", es256.sign(`{"alg":"ES256","kid":"../../../dev/null"}`, payload), "not among"},
		{"kid in another case", es256.sign(`{"alg":"ES256","kid":"ES"}`, payload), "not among"},
		{"key of a stranger", stranger.sign(stranger.header(), payload), "signature"},
		{"key of a stranger, no kid", stranger.sign(`{"alg":"ES256"}`, payload), "signature"},
		{"typ of another use", es256.sign(`{"alg":"ES256","kid":"es","typ":"logout+jwt"}`, payload), "type"},
		{"typ a DPoP proof", es256.sign(`{"alg":"ES256","kid":"es","typ":"dpop+jwt"}`, payload), "type"},
		{"typ a number", es256.sign(`{"alg":"ES256","kid":"es","typ":1}`, payload), "type"},
		{"header a list", es256.sign(`["ES256"]`, payload), "header"},
		{"header null", es256.sign(`null`, payload), "header"},
		{"header with more after it", es256.sign(es256.header()+"{}", payload), "header"},
		{"header with a BOM", es256.sign("\xef\xbb\xbf"+es256.header(), payload), "header"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { refused(t, v, test.token, access.Unauthenticated, test.says) })
	}
}

// An algorithm that the issuer is not listed with is refused even if one of its keys would verify it.
func TestO1AlgorithmsPerIssuer(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) { i.Algorithms = []string{"ES256"} })
	accepted(t, v, es256.sign(es256.header(), with(nil)))
	refused(t, v, rs256.sign(rs256.header(), with(nil)), access.Unauthenticated, "accepts [ES256]")
}

// O1, and strictness of the compact form: one token has one spelling.
func TestCompactForm(t *testing.T) {
	v, _, _ := newVerifier(t)
	token := es256.sign(es256.header(), with(nil))
	accepted(t, v, token)
	h, rest, _ := strings.Cut(token, ".")
	p, s, _ := strings.Cut(rest, ".")
	// The last character of a 64-byte signature carries 2 bits and 4 that are nothing.
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(alphabet, s[len(s)-1])
	for name, bad := range map[string]string{
		"empty":                  "",
		"one part":               h,
		"two parts":              h + "." + p,
		"four parts":             token + ".",
		"six parts":              token + "...",
		"no header":              "." + p + "." + s,
		"no payload":             h + ".." + s,
		"no signature":           h + "." + p + ".",
		"only dots":              "..",
		"leading space":          " " + token,
		"trailing newline":       token + "\n",
		"newline inside":         h + "." + p[:8] + "\n" + p[8:] + "." + s,
		"CRLF inside":            h + "." + p + "." + s[:8] + "\r\n" + s[8:],
		"space inside":           h + "." + p[:8] + " " + p[8:] + "." + s,
		"padded":                 h + "." + p + "." + s + "==",
		"standard alphabet":      h + "." + p + "." + s[:4] + "+/" + s[6:],
		"bits past the end":      h + "." + p + "." + s[:len(s)-1] + string(alphabet[last|1]),
		"one byte short":         h + "." + p + "." + s[:len(s)-2],
		"JSON serialization":     fmt.Sprintf(`{"payload":%q,"protected":%q,"signature":%q}`, p, h, s),
		"JSON, general":          fmt.Sprintf(`{"payload":%q,"signatures":[{"protected":%q,"signature":%q}]}`, p, h, s),
		"Bearer in front":        "Bearer " + token,
		"two tokens":             token + "," + token,
		"NUL at the end":         token + "\x00",
		"header and payload cut": h[:4] + "." + p[:4] + "." + s,
		"parts exchanged":        p + "." + h + "." + s,
		"other payload":          h + "." + b64([]byte(with(map[string]any{"sub": "admin"}))) + "." + s,
		"signature of zeros":     h + "." + p + "." + b64(make([]byte, 64)),
		"signature in ASN.1":     h + "." + p + "." + b64(append([]byte{0x30, 0x44}, make([]byte, 68)...)),
	} {
		if name == "bits past the end" && last&1 == 1 {
			bad = h + "." + p + "." + s[:len(s)-1] + string(alphabet[last^2])
		}
		if bad == token {
			t.Fatalf("%s: the token itself", name)
		}
		t.Run(name, func(t *testing.T) { refused(t, v, bad, access.Unauthenticated, "") })
	}
}

// O2: audience, issuer and times.
func TestO2(t *testing.T) {
	v, _, _ := newVerifier(t)
	unix := func(d time.Duration) int64 { return at.Add(d).Unix() }
	for _, test := range []struct {
		name, claims, says string
	}{
		{"another audience", with(map[string]any{"aud": "https://other.example"}), audience},
		{"audience off by a slash", with(map[string]any{"aud": audience + "/"}), audience},
		{"audience in another case", with(map[string]any{"aud": strings.ToUpper(audience)}), audience},
		{"an extra audience", with(map[string]any{"aud": []string{audience, "https://other.example"}}), "2 audiences"},
		{"an extra audience first", with(map[string]any{"aud": []string{"https://other.example", audience}}), "2 audiences"},
		{"the audience twice", with(map[string]any{"aud": []string{audience, audience}}), "2 audiences"},
		{"no audience", with(map[string]any{"aud": nil}), audience},
		{"audience null", spelledWithout("aud", `"aud":null`), audience},
		{"audience empty", with(map[string]any{"aud": ""}), audience},
		{"audience an empty list", with(map[string]any{"aud": []string{}}), audience},
		{"audience a list in a list", with(map[string]any{"aud": []any{[]string{audience}}}), audience},
		{"audience a list of null", with(map[string]any{"aud": []any{nil}}), audience},
		{"audience an object", with(map[string]any{"aud": map[string]any{audience: true}}), audience},
		{"audience a number", with(map[string]any{"aud": 1}), audience},
		{"audiences in one string", with(map[string]any{"aud": audience + " https://other.example"}), audience},
		{"Aud for aud", spelledWithout("aud", `"Aud":"`+audience+`"`), audience},

		{"issuer off by a slash", with(map[string]any{"iss": issuerURL + "/"}), "not trusted"},
		{"issuer without scheme", with(map[string]any{"iss": "issuer.example"}), "not trusted"},
		{"issuer over http", with(map[string]any{"iss": "http://issuer.example"}), "not trusted"},
		{"issuer in another case", with(map[string]any{"iss": "https://Issuer.example"}), "not trusted"},
		{"issuer with its port", with(map[string]any{"iss": "https://issuer.example:443"}), "not trusted"},
		{"issuer with a space", with(map[string]any{"iss": issuerURL + " "}), "not trusted"},
		{"issuer of another", with(map[string]any{"iss": "https://evil.example"}), `issuer "https://evil.example" is not trusted by this gate; ask who runs it`},
		{"issuer with a line break", with(map[string]any{"iss": "https://evil.example\r\nX: y"}), "not trusted"},
		{"issuer of great length", with(map[string]any{"iss": strings.Repeat("x", 5000)}), "not trusted"},
		{"issuer missing", with(map[string]any{"iss": nil}), "missing"},
		{"issuer empty", with(map[string]any{"iss": ""}), "empty"},
		{"issuer a list", with(map[string]any{"iss": []string{issuerURL}}), "not a string"},
		{"issuer null", spelledWithout("iss", `"iss":null`), "not a string"},
		{"ISS for iss", spelledWithout("iss", `"ISS":"`+issuerURL+`"`), "missing"},
		{"iss in Kelvin's spelling", spelledWithout("iss", `"i\u017fs":"`+issuerURL+`"`), "missing"},

		{"expired", with(map[string]any{"exp": unix(-5 * time.Minute)}), "expired 5 minutes ago"},
		{"expired a second ago", with(map[string]any{"exp": unix(-time.Second)}), "expired 1 seconds ago"},
		{"expires now", with(map[string]any{"exp": unix(0)}), "expired 0 seconds ago"},
		{"expired long ago", with(map[string]any{"exp": 1}), "days ago"},
		{"exp zero", with(map[string]any{"exp": 0}), "expired"},
		{"no exp", with(map[string]any{"exp": nil}), "does not say when it expires"},
		{"EXP for exp", spelledWithout("exp", `"EXP":9999999999`), "does not say when it expires"},
		{"exp null", spelledWithout("exp", `"exp":null`), "exp is not a number"},
		{"exp a string", with(map[string]any{"exp": fmt.Sprint(unix(time.Hour))}), "exp is not a number"},
		{"exp a date", with(map[string]any{"exp": at.Add(time.Hour).Format(time.RFC3339)}), "exp is not a number"},
		{"exp true", with(map[string]any{"exp": true}), "exp is not a number"},
		{"exp a list", with(map[string]any{"exp": []any{unix(time.Hour)}}), "exp is not a number"},
		{"exp negative", with(map[string]any{"exp": -unix(time.Hour)}), "exp is not a number"},
		{"exp past all numbers", spelledWithout("exp", `"exp":1e999`), "exp is not a number"},
		{"exp past int64", spelledWithout("exp", `"exp":99999999999999999999`), "exp is not a number"},
		{"exp past all dates", spelledWithout("exp", `"exp":1e15`), "exp is not a number"},
		{"exp in milliseconds", with(map[string]any{"exp": at.Add(time.Hour).UnixMilli()}), "exp is not a number"},

		{"not yet valid", with(map[string]any{"nbf": unix(10 * time.Minute)}), "valid only in 10 minutes (nbf)"},
		{"not yet valid past the skew", with(map[string]any{"nbf": unix(61 * time.Second)}), "(nbf)"},
		{"nbf a string", with(map[string]any{"nbf": "0"}), "nbf is not a number"},
		{"nbf null", spelledWithout("nbf", `"nbf":null`), "nbf is not a number"},
		{"issued in the future", with(map[string]any{"iat": unix(61 * time.Second)}), "(iat)"},
		{"iat a string", with(map[string]any{"iat": "0"}), "iat is not a number"},
	} {
		t.Run(test.name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), test.claims), access.Unauthenticated, test.says)
		})
	}
}

// spelledWithout are the good claims with one taken away and members appended as they are spelled.
func spelledWithout(claim, members string) string {
	return strings.TrimSuffix(with(map[string]any{claim: nil}), "}") + "," + members + "}"
}

// O3: what is too large is refused before it is looked at.
func TestO3Size(t *testing.T) {
	v, _, _ := newVerifier(t)
	for name, token := range map[string]string{
		"1 MB of dots":       strings.Repeat(".", 1<<20),
		"1 MB of letters":    strings.Repeat("A", 1<<20),
		"1 MB of a token":    es256.sign(es256.header(), with(map[string]any{"x": strings.Repeat("x", 1<<20)})),
		"one byte too large": strings.Repeat("A", identity.MaxToken+1),
	} {
		t.Run(name, func(t *testing.T) { refused(t, v, token, access.Unauthenticated, "larger than 16384 bytes") })
	}
	token := strings.Repeat(".", 1<<20)
	if n := testing.AllocsPerRun(10, func() { v.Verify(t.Context(), token) }); n > 20 {
		t.Errorf("%v allocations for what is refused unread", n)
	}
	// As large as may be is not too large.
	pad := identity.MaxToken*3/4 - len(with(nil)) - 150
	accepted(t, v, es256.sign(es256.header(), with(map[string]any{"x": strings.Repeat("x", pad)})))
}

// O5: conditions on claims, exact or anchored as a whole; immutable ids; run claims.
func TestO5Conditions(t *testing.T) {
	conditions := func(c ...access.Condition) func(*access.Issuer) {
		return func(i *access.Issuer) { i.Require = c }
	}
	equals := conditions(access.Condition{Claim: "repository_id", Equals: []string{"42", "true"}})
	matches := func(p string) func(*access.Issuer) {
		return conditions(access.Condition{Claim: "ref", Matches: p})
	}
	for _, test := range []struct {
		name   string
		issuer func(*access.Issuer)
		claims map[string]any
		ok     bool
	}{
		{"equal", equals, map[string]any{"repository_id": "42"}, true},
		{"equal number", equals, map[string]any{"repository_id": 42}, true},
		{"equal boolean", equals, map[string]any{"repository_id": true}, true},
		{"unequal", equals, map[string]any{"repository_id": "43"}, false},
		{"a recycled repository: same sub, other id", equals, map[string]any{"repository_id": "1042"}, false},
		{"longer", equals, map[string]any{"repository_id": "421"}, false},
		{"with a space", equals, map[string]any{"repository_id": "42 "}, false},
		{"another spelling of the number", equals, map[string]any{"repository_id": json.RawMessage("42.0")}, false},
		{"in exponents", equals, map[string]any{"repository_id": json.RawMessage("4.2e1")}, false},
		{"missing", equals, nil, false},
		{"null", equals, map[string]any{"repository_id": json.RawMessage("null")}, false},
		{"a list", equals, map[string]any{"repository_id": []string{"42"}}, false},
		{"an object", equals, map[string]any{"repository_id": map[string]any{"42": "42"}}, false},
		{"in another case", equals, map[string]any{"Repository_id": "42"}, false},
		{"matches", matches("^refs/heads/main$"), map[string]any{"ref": "refs/heads/main"}, true},
		{"matches a part", matches("^refs/heads/main$"), map[string]any{"ref": "refs/heads/main2"}, false},
		{"matches a line", matches("^refs/heads/main$"), map[string]any{"ref": "refs/heads/main\n"}, false},
		{"matches a line of many", matches("(?m)^a$"), nil, false},
		{"first branch as a prefix", matches("^a|b$"), map[string]any{"ref": "a-and-more"}, false},
		{"last branch as a suffix", matches("^a|b$"), map[string]any{"ref": "more-and-b"}, false},
		{"first branch", matches("^a|b$"), map[string]any{"ref": "a"}, true},
		{"last branch", matches("^a|b$"), map[string]any{"ref": "b"}, true},
		{"middle branch", matches("^a|x|b$"), map[string]any{"ref": "yxy"}, false},
		{"an escaped bar", matches(`^a\|b$`), map[string]any{"ref": "a|b"}, true},
		{"a dollar at the end", matches(`^a\\$`), map[string]any{"ref": `a\`}, true},
		{"lines", matches(`^(?m)a$`), map[string]any{"ref": "a\nb"}, false},
		{"all must be met", conditions(access.Condition{Claim: "a", Equals: []string{"1"}}, access.Condition{Claim: "b", Equals: []string{"1"}}), map[string]any{"a": 1, "b": 2}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			i := trustedIssuer()
			test.issuer(&i)
			v, err := identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: keysOf(es256), Now: func() time.Time { return at }})
			if err != nil {
				if test.ok || !strings.Contains(err.Error(), "must begin with") {
					t.Fatal(err)
				}
				return
			}
			token := es256.sign(es256.header(), with(test.claims))
			if test.ok {
				accepted(t, v, token)
				return
			}
			refused(t, v, token, access.Denied, "claim")
		})
	}
}

// O5: a token without what tells runs apart is refused; a run is the same in every token of it.
func TestO5Run(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) { i.Run = []string{"run_id"} })
	for name, value := range map[string]any{
		"missing": nil, "empty": "", "null": json.RawMessage("null"), "a list": []int{1}, "an object": map[string]int{"a": 1},
		"a line break": "1\n2", "not ASCII": "ÿ", "too long": strings.Repeat("1", 513), "spaces": " 1",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), with(map[string]any{"run_id": value})), access.Denied, "run_id")
		})
	}
	first := accepted(t, v, es256.sign(es256.header(), with(map[string]any{"run_id": 7, "jti": "a"})))
	renewed := accepted(t, v, es256.sign(es256.header(), with(map[string]any{"run_id": "7", "jti": "b", "exp": at.Add(time.Hour).Unix()})))
	other := accepted(t, v, es256.sign(es256.header(), with(map[string]any{"run_id": 8, "jti": "a"})))
	if first.Principal.Key() != renewed.Principal.Key() {
		t.Error("a renewed token is another principal")
	}
	if first.Principal.Key() == other.Principal.Key() {
		t.Error("two runs are one principal")
	}
}

// O6: the issuer left the groups out; that is not the same as no groups.
func TestO6Overage(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) {
		i.GroupsClaim = "groups"
		i.Groups = []access.GroupRule{{Group: "agents", When: []access.Condition{{Claim: "sub", Matches: "^.*$"}}}}
	})
	for name, members := range map[string]string{
		"as documented":        `"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.example/x"}}`,
		"no sources":           `"_claim_names":{"groups":"src1"}`,
		"implicit flow":        `"hasgroups":true`,
		"hasgroups a string":   `"hasgroups":"true"`,
		"names not an object":  `"_claim_names":["groups"]`,
		"names null":           `"_claim_names":null`,
		"with a groups claim":  `"_claim_names":{"groups":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.example"}},"groups":["agents"]`,
		"with hasgroups and a": `"hasgroups":true,"groups":["agents"]`,
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), spelled(members)), access.Denied, "groups unknown")
		})
	}
	for name, members := range map[string]string{
		"hasgroups false":     `"hasgroups":false,"groups":["a"]`,
		"another claim there": `"_claim_names":{"address":"src1"},"_claim_sources":{"src1":{"endpoint":"https://graph.example"}},"groups":["a"]`,
	} {
		t.Run(name, func(t *testing.T) { accepted(t, v, es256.sign(es256.header(), spelled(members))) })
	}
	// Under another name, too.
	v, _, _ = newVerifier(t, func(i *access.Issuer) { i.GroupsClaim = "roles" })
	refused(t, v, es256.sign(es256.header(), spelled(`"_claim_names":{"roles":"src1"}`)), access.Denied, "groups unknown")
}

// O7: claims said twice, and groups as a string.
func TestO7(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) { i.GroupsClaim = "groups" })
	for name, payload := range map[string]string{
		"sub twice":                 spelled(`"sub":"admin"`),
		"sub twice, the same":       spelled(`"sub":"repo:acme/shop:ref:refs/heads/main"`),
		"sub twice, escaped":        spelled(`"\u0073\u0075b":"admin"`),
		"iss twice":                 spelled(`"iss":"` + issuerURL + `"`),
		"aud twice":                 spelled(`"aud":"` + audience + `"`),
		"exp twice":                 spelled(`"exp":9999999999`),
		"groups twice":              spelled(`"groups":[],"groups":["admins"]`),
		"an unread claim twice":     spelled(`"x":1,"x":1`),
		"a claim twice inside":      spelled(`"x":{"a":1,"a":2}`),
		"a claim twice deep inside": spelled(`"x":[[{"b":{"a":1,"a":2}}]]`),
		"halves of surrogates":      spelled(`"\ud800":1,"\udfff":2`),
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), payload), access.Unauthenticated, "twice")
		})
	}
	for name, groups := range map[string]string{
		"a string":          `"admins"`,
		"an empty string":   `""`,
		"a list in text":    `"[\"admins\"]"`,
		"null":              `null`,
		"an object":         `{"admins":true}`,
		"a number":          `1`,
		"a list of numbers": `[1]`,
		"a list of null":    `["a",null]`,
		"a list of lists":   `[["admins"]]`,
		"a list of objects": `[{"name":"admins"}]`,
	} {
		t.Run("groups as "+name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), spelled(`"groups":`+groups)), access.Denied, "groups")
		})
	}
	for name, payload := range map[string]string{
		"a list":         `[]`,
		"null":           `null`,
		"a string":       `"x"`,
		"nothing":        ``,
		"spaces":         `  `,
		"two objects":    with(nil) + with(nil),
		"a BOM":          "\xef\xbb\xbf" + with(nil),
		"not UTF-8":      spelled("\"x\":\"\xff\""),
		"a comma at end": strings.TrimSuffix(with(nil), "}") + ",}",
		"comments":       "/**/" + with(nil),
		"NaN":            spelled(`"x":NaN`),
		"nested deeply":  spelled(`"x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000)),
	} {
		t.Run("payload is "+name, func(t *testing.T) {
			refused(t, v, es256.sign(es256.header(), payload), access.Unauthenticated, "payload")
		})
	}
}

// H7 and H9: names that are none, or that would be more than a name where they are written.
func TestH7H9Names(t *testing.T) {
	v, _, _ := newVerifier(t, func(i *access.Issuer) {
		i.Agent, i.Owner, i.GroupsClaim = "agent", "owner", "groups"
	})
	everywhere := map[string]string{
		"CR LF":                    "a\r\nX-Remote-Group: system:masters",
		"LF at the end":            "a\n",
		"CR":                       "a\rb",
		"NUL":                      "a\x00b",
		"tab":                      "a\tb",
		"escape":                   "a\x1b[31mb",
		"DEL":                      "a\x7fb",
		"umlaut":                   "müller",
		"Cyrillic a":               "\u0430dmin",
		"zero width":               "ad\u200bmin",
		"right to left":            "ad\u202emin",
		"no-break space":           "ad\u00a0min",
		"line separator":           "a\u2028b",
		"C1 control":               "a\u0085b",
		"replacement":              "a\ufffdb",
		"too long":                 strings.Repeat("a", 513),
		"system:":                  "system:masters",
		"SYSTEM:":                  "SYSTEM:masters",
		"sYsTeM: alone":            "sYsTeM:",
		"eks:":                     "eks:node-manager",
		"EKS:":                     "EKS:x",
		"a space in front":         " system:masters",
		"a space at the end":       "a ",
		"only a space":             " ",
		"system in long s":         "\u017fystem:masters",
		"service account's prefix": "system:serviceaccount:default:default",
	}
	empty := map[string]any{"empty": "", "null": json.RawMessage("null"), "a number": 1, "a list": []string{"a"}, "true": true}
	base := func(claim string, value any) string {
		c := map[string]any{"agent": "bot", "owner": "ana", "groups": []string{"agents"}}
		c[claim] = value
		if claim == "groups" {
			c[claim] = []any{"agents", value}
		}
		return es256.sign(es256.header(), with(c))
	}
	accepted(t, v, base("sub", "A b+c=d,e.f@g-h_i/j:k|l"))
	accepted(t, v, base("groups", "my-system:x"))
	for _, claim := range []string{"sub", "agent", "owner", "groups"} {
		for name, value := range everywhere {
			t.Run(claim+" with "+name, func(t *testing.T) { refused(t, v, base(claim, value), access.Denied, claim) })
		}
		for name, value := range empty {
			if claim == "owner" && name == "empty" {
				continue
			}
			t.Run(claim+" is "+name, func(t *testing.T) { refused(t, v, base(claim, value), access.Denied, claim) })
		}
	}
	for _, claim := range []string{"sub", "agent"} {
		t.Run(claim+" is missing", func(t *testing.T) { refused(t, v, base(claim, nil), access.Denied, claim) })
	}
	for _, value := range []any{nil, ""} {
		if got := accepted(t, v, base("owner", value)).Principal.Owner; got != "" {
			t.Errorf("owner %q from %v", got, value)
		}
	}
	many := make([]string, 201)
	for i := range many {
		many[i] = fmt.Sprint("g", i)
	}
	refused(t, v, es256.sign(es256.header(), with(map[string]any{"agent": "a", "groups": many})), access.Denied, "201 groups")
	accepted(t, v, es256.sign(es256.header(), with(map[string]any{"agent": "a", "groups": many[:200]})))
}

// A13: a claim that looks like a reviewer's makes nobody of another issuer that reviewer: the principal is the
// issuer's, and conditions such as email_verified hold.
func TestA13(t *testing.T) {
	people := access.Issuer{
		URL: "https://people.example", Audience: audience, Algorithms: []string{"ES256"}, Agent: "email",
		Require: []access.Condition{{Claim: "email_verified", Equals: []string{"true"}}},
	}
	v, err := identity.New(identity.Config{Issuers: []access.Issuer{trustedIssuer(), people}, Keys: keysOf(es256), Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	ana := map[string]any{"iss": people.URL, "sub": "1", "email": "ana@example.com", "email_verified": true}
	person := accepted(t, v, es256.sign(es256.header(), with(ana))).Principal
	ana["iss"] = issuerURL
	robot := accepted(t, v, es256.sign(es256.header(), with(ana))).Principal
	if robot.Key() == person.Key() || robot.Issuer == person.Issuer || robot.Agent == person.Agent {
		t.Errorf("%+v is as good as %+v", robot, person)
	}
	ana["iss"] = people.URL
	for _, verified := range []any{nil, false, "false", 1, "TRUE", []bool{true}} {
		ana["email_verified"] = verified
		refused(t, v, es256.sign(es256.header(), with(ana)), access.Denied, "email_verified")
	}
}

// An issuer's keys are no other issuer's, even under the same name.
func TestKeysPerIssuer(t *testing.T) {
	other := trustedIssuer()
	other.URL = "https://other.example"
	ring := must(identity.NewRing(identity.RingConfig{Refresh: noKeys, Now: func() time.Time { return at }}))
	if err := ring.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256), pushed(other.URL, at, stranger)}); err != nil {
		t.Fatal(err)
	}
	v, err := identity.New(identity.Config{Issuers: []access.Issuer{trustedIssuer(), other}, Keys: ring, Now: func() time.Time { return at }})
	if err != nil {
		t.Fatal(err)
	}
	accepted(t, v, es256.sign(es256.header(), with(nil)))
	accepted(t, v, stranger.sign(stranger.header(), with(map[string]any{"iss": other.URL})))
	refused(t, v, stranger.sign(stranger.header(), with(nil)), access.Unauthenticated, "signature")
	refused(t, v, es256.sign(es256.header(), with(map[string]any{"iss": other.URL})), access.Unauthenticated, "signature")
}

// Keys that are for something else, or for no algorithm a token has, verify nothing.
func TestKeyChoice(t *testing.T) {
	again := es256
	again.kid = "es2"
	twice := func() *keys { return keysOf(es256, es256) }
	wrongAlg := keysOf(rs256)
	wrongAlg.set.Keys[0].Algorithm = "PS256"
	noAlg := keysOf(rs256)
	noAlg.set.Keys[0].Algorithm = ""
	for _, test := range []struct {
		name  string
		keys  *keys
		token string
		says  string
	}{
		{"two keys of one name", twice(), es256.sign(es256.header(), with(nil)), "kid of its own"},
		{"no kid, two keys fit", keysOf(es256, again), es256.sign(`{"alg":"ES256"}`, with(nil)), "kid of its own"},
		{"no kid, no key fits", keysOf(rs256), es256.sign(`{"alg":"ES256"}`, with(nil)), "none is for ES256"},
		{"declared for another algorithm", wrongAlg, rs256.sign(rs256.header(), with(nil)), "not among"},
		{"no keys", keysOf(), es256.sign(es256.header(), with(nil)), "not among"},
		{"declared for none", noAlg, rs256.sign(rs256.header(), with(nil)), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			v, err := identity.New(identity.Config{Issuers: []access.Issuer{trustedIssuer()}, Keys: test.keys, Now: func() time.Time { return at }})
			if err != nil {
				t.Fatal(err)
			}
			if test.says == "" {
				accepted(t, v, test.token)
				return
			}
			refused(t, v, test.token, access.Unauthenticated, test.says)
		})
	}
}

// When keys cannot be had nobody is anybody, and the caller may ask again.
func TestUnavailable(t *testing.T) {
	for name, failure := range map[string]error{
		"an error of ours":   access.Errorf(access.Unavailable, "away").After(3 * time.Second),
		"an error of no one": errors.New("boom"),
	} {
		t.Run(name, func(t *testing.T) {
			v, _, k := newVerifier(t)
			k.err = failure
			refused(t, v, es256.sign(es256.header(), with(nil)), access.Unavailable, "")
			_, err := v.Verify(t.Context(), es256.sign(es256.header(), with(nil)))
			if access.AsError(err).RetryAfter <= 0 {
				t.Error("does not say when to ask again")
			}
		})
	}
}

func TestMemory(t *testing.T) {
	token := es256.sign(es256.header(), with(nil))
	t.Run("expires with the token", func(t *testing.T) {
		v, c, _ := newVerifier(t)
		short := es256.sign(es256.header(), with(map[string]any{"exp": at.Add(5 * time.Second).Unix()}))
		accepted(t, v, short)
		c.Advance(5*time.Second - 1)
		accepted(t, v, short)
		c.Advance(1)
		refused(t, v, short, access.Unauthenticated, "expired")
		if n := v.Remembered(); n != 0 {
			t.Errorf("%d tokens held", n)
		}
	})
	t.Run("checks nbf again when the clock is set back", func(t *testing.T) {
		v, c, _ := newVerifier(t)
		token := es256.sign(es256.header(), with(map[string]any{"nbf": at.Unix(), "iat": nil}))
		accepted(t, v, token)
		c.Advance(-2 * time.Minute)
		refused(t, v, token, access.Unauthenticated, "nbf")
	})
	t.Run("counts for nothing when the clock is set back", func(t *testing.T) {
		v, c, k := newVerifier(t)
		token := es256.sign(es256.header(), with(map[string]any{"nbf": nil, "iat": nil}))
		accepted(t, v, token)
		k.replace(rs256)
		c.Advance(-time.Hour)
		refused(t, v, token, access.Unauthenticated, "not among")
	})
	t.Run("a key withdrawn is out within Reverify", func(t *testing.T) {
		v, c, k := newVerifier(t)
		accepted(t, v, token)
		k.replace(rs256)
		c.Advance(identity.Reverify)
		accepted(t, v, token)
		c.Advance(1)
		refused(t, v, token, access.Unauthenticated, "not among")
	})
	t.Run("does not renew itself", func(t *testing.T) {
		v, c, k := newVerifier(t)
		accepted(t, v, token)
		k.replace(rs256)
		for range 6 {
			c.Advance(10 * time.Second)
			accepted(t, v, token)
		}
		c.Advance(10 * time.Second)
		refused(t, v, token, access.Unauthenticated, "not among")
	})
	t.Run("keys that are away are no yes", func(t *testing.T) {
		v, c, k := newVerifier(t)
		accepted(t, v, token)
		k.err = errors.New("away")
		c.Advance(identity.Reverify + 1)
		refused(t, v, token, access.Unavailable, "")
		k.err = nil
		accepted(t, v, token)
	})
	t.Run("does not remember refusals", func(t *testing.T) {
		v, c, k := newVerifier(t)
		k.replace(rs256)
		refused(t, v, token, access.Unauthenticated, "")
		k.replace(es256)
		accepted(t, v, token)
		early := es256.sign(es256.header(), with(map[string]any{"nbf": at.Add(2 * time.Minute).Unix()}))
		refused(t, v, early, access.Unauthenticated, "nbf")
		c.Advance(time.Minute)
		accepted(t, v, early)
	})
	t.Run("is bounded, the least recently used go", func(t *testing.T) {
		v, _, k := newVerifier(t)
		v.SetMemory(2)
		tokens := make([]string, 3)
		for i := range tokens {
			tokens[i] = ed.sign(ed.header(), with(map[string]any{"jti": i}))
		}
		for _, i := range []int{0, 1, 0, 2} {
			accepted(t, v, tokens[i])
		}
		if n := v.Remembered(); n != 2 {
			t.Fatalf("%d tokens held", n)
		}
		k.replace()
		accepted(t, v, tokens[0])
		refused(t, v, tokens[1], access.Unauthenticated, "")
		accepted(t, v, tokens[2])
	})
	t.Run("is nobody else's to change", func(t *testing.T) {
		v, _, _ := newVerifier(t, func(i *access.Issuer) { i.Run, i.GroupsClaim = []string{"run_id"}, "groups" })
		token := es256.sign(es256.header(), with(map[string]any{"run_id": 1, "groups": []string{"a", "b"}}))
		for range 3 {
			id := accepted(t, v, token)
			if diff := cmp.Diff([]string{"a", "b"}, id.Principal.Groups); diff != "" {
				t.Fatal(diff)
			}
			if id.Principal.Run["run_id"] != "1" {
				t.Fatal(id.Principal.Run)
			}
			id.Principal.Groups[0] = "admins"
			id.Principal.Run["run_id"] = "2"
		}
	})
	t.Run("another token of the same claims is another", func(t *testing.T) {
		v, _, _ := newVerifier(t)
		accepted(t, v, token)
		h, rest, _ := strings.Cut(token, ".")
		p, _, _ := strings.Cut(rest, ".")
		refused(t, v, h+"."+p+"."+b64(make([]byte, 64)), access.Unauthenticated, "signature")
	})
}

func TestNewRefuses(t *testing.T) {
	set := func(f func(*access.Issuer)) []access.Issuer {
		i := trustedIssuer()
		f(&i)
		return []access.Issuer{i}
	}
	url := func(u string) []access.Issuer { return set(func(i *access.Issuer) { i.URL = u }) }
	private := func(u string) []access.Issuer { return set(func(i *access.Issuer) { i.URL, i.Private = u, true }) }
	algs := func(a ...string) []access.Issuer { return set(func(i *access.Issuer) { i.Algorithms = a }) }
	pattern := func(p string) []access.Issuer {
		return set(func(i *access.Issuer) { i.Require = []access.Condition{{Claim: "c", Matches: p}} })
	}
	group := func(name string, when ...access.Condition) []access.Issuer {
		return set(func(i *access.Issuer) { i.Groups = []access.GroupRule{{Group: name, When: when}} })
	}
	always := access.Condition{Claim: "c", Equals: []string{"x"}}
	for name, issuers := range map[string][]access.Issuer{
		"no audience":            set(func(i *access.Issuer) { i.Audience = "" }),
		"no algorithms":          algs(),
		"alg none":               algs("none"),
		"alg None":               algs("ES256", "None"),
		"alg empty":              algs(""),
		"alg HS256":              algs("HS256"),
		"alg HS512":              algs("ES256", "HS512"),
		"alg unknown":            algs("ES256K"),
		"alg in lower case":      algs("es256"),
		"twice":                  {trustedIssuer(), trustedIssuer()},
		"no URL":                 url(""),
		"no host":                url("https://"),
		"not absolute":           url("issuer.example"),
		"opaque":                 url("https:issuer.example"),
		"http":                   url("http://issuer.example"),
		"ftp":                    url("ftp://issuer.example"),
		"file":                   url("file:///etc/passwd"),
		"a user":                 url("https://a:b@issuer.example"),
		"a query":                url("https://issuer.example?a=b"),
		"an empty query":         url("https://issuer.example?"),
		"a fragment":             url("https://issuer.example#a"),
		"an empty fragment":      url("https://issuer.example#"),
		"loopback":               url("https://127.0.0.1"),
		"loopback with port":     url("https://127.0.0.1:8443/x"),
		"all of loopback":        url("https://127.255.0.1"),
		"loopback in IPv6":       url("https://[::1]"),
		"loopback mapped":        url("https://[::ffff:127.0.0.1]"),
		"localhost":              url("https://localhost"),
		"localhost with a dot":   url("https://localhost."),
		"LOCALHOST":              url("https://LOCALHOST"),
		"below localhost":        url("https://a.localhost"),
		"unspecified":            url("https://0.0.0.0"),
		"unspecified in IPv6":    url("https://[::]"),
		"metadata":               url("https://169.254.169.254"),
		"metadata of tasks":      url("https://169.254.170.2"),
		"metadata in IPv6":       url("https://[fd00:ec2::254]"),
		"metadata mapped":        url("https://[::ffff:169.254.169.254]"),
		"metadata over NAT64":    url("https://[64:ff9b::a9fe:a9fe]"),
		"loopback over 6to4":     url("https://[2002:7f00:1::]"),
		"private 10":             url("https://10.1.2.3"),
		"private 172":            url("https://172.16.0.1"),
		"private 192":            url("https://192.168.1.1"),
		"shared 100":             url("https://100.64.0.1"),
		"link-local":             url("https://169.254.1.1"),
		"link-local in IPv6":     url("https://[fe80::1]"),
		"link-local with zone":   url("https://[fe80::1%25eth0]"),
		"unique local":           url("https://[fc00::1]"),
		"multicast":              url("https://224.0.0.1"),
		"broadcast":              url("https://255.255.255.255"),
		"JWKS on metadata":       set(func(i *access.Issuer) { i.JWKS = "https://169.254.169.254/keys" }),
		"JWKS over http":         set(func(i *access.Issuer) { i.JWKS = "http://issuer.example/keys" }),
		"JWKS on localhost":      set(func(i *access.Issuer) { i.JWKS = "https://localhost/keys" }),
		"private over http":      private("http://10.1.2.3"),
		"private over http name": private("http://issuer.internal"),
		"private, almost local":  private("http://localhost.example"),
		"private, metadata":      private("http://169.254.169.254"),
		"pattern unanchored":     pattern("a"),
		"pattern without end":    pattern("^a"),
		"pattern without begin":  pattern("a$"),
		"pattern's end escaped":  pattern(`^a\$`),
		"pattern's end quoted":   pattern(`^\Qa$`),
		"pattern broken":         pattern("^(a$"),
		"pattern out of group":   pattern("^a)|(b$"),
		"pattern in other words": pattern(`\Aa\z`),
		"no condition":           set(func(i *access.Issuer) { i.Require = []access.Condition{{Claim: "c"}} }),
		"no claim":               set(func(i *access.Issuer) { i.Require = []access.Condition{{Equals: []string{"x"}}} }),
		"run claim without name": set(func(i *access.Issuer) { i.Run = []string{""} }),
		"run claim jti":          set(func(i *access.Issuer) { i.Run = []string{"jti"} }),
		"group without name":     group("", always),
		"group of everybody":     group("agents"),
		"group system:masters":   group("system:masters", always),
		"group EKS:x":            group("EKS:x", always),
		"group not ASCII":        group("ägents", always),
		"group pattern open":     group("agents", access.Condition{Claim: "c", Matches: "a"}),
	} {
		t.Run(name, func(t *testing.T) {
			for what, err := range map[string]error{
				"New":        errorOf(identity.New(identity.Config{Issuers: issuers, Keys: keysOf()})),
				"NewFetcher": errorOf(identity.NewFetcher(identity.FetcherConfig{Issuers: issuers})),
			} {
				if access.KindOf(err) != access.Invalid {
					t.Errorf("%s: %v, want it to be invalid", what, err)
				}
			}
		})
	}
	for name, issuers := range map[string][]access.Issuer{
		"a path":               url("https://issuer.example/tenant/v2.0"),
		"a port":               url("https://issuer.example:8443"),
		"a public address":     url("https://1.1.1.1"),
		"public in IPv6":       url("https://[2606:4700:4700::1111]"),
		"off by a slash":       {trustedIssuer(), url(issuerURL + "/")[0]},
		"private over https":   private("https://10.1.2.3"),
		"private on localhost": private("http://localhost:8080"),
		"private on 127":       private("http://127.0.0.1:8080"),
		"private on ::1":       private("http://[::1]:8080"),
		"every algorithm":      algs("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"),
		"no issuers":           nil,
	} {
		t.Run("takes "+name, func(t *testing.T) {
			if _, err := identity.New(identity.Config{Issuers: issuers, Keys: keysOf()}); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := identity.New(identity.Config{Issuers: nil}); access.KindOf(err) != access.Invalid {
		t.Errorf("without keys: %v", err)
	}
}

func errorOf[T any](_ T, err error) error { return err }

// ECDSA signatures can be written in two ways; both are the issuer's, and neither makes a second principal.
func TestMalleability(t *testing.T) {
	v, _, _ := newVerifier(t)
	token := es256.sign(es256.header(), with(nil))
	dot := strings.LastIndexByte(token, '.')
	sig := must(jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})).Signatures[0].Signature
	s := new(big.Int).SetBytes(sig[32:])
	n, _ := new(big.Int).SetString("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551", 16)
	n.Sub(n, s).FillBytes(sig[32:])
	other := token[:dot+1] + b64(sig)
	if diff := cmp.Diff(accepted(t, v, token).Principal, accepted(t, v, other).Principal); diff != "" {
		t.Error(diff)
	}
}
