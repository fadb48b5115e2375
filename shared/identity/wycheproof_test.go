package identity_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/c2sp/wycheproof"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// TestWycheproof runs Project Wycheproof's vectors for signatures and for keys along the way a token takes: the key set
// as a Ring is handed it, the compact form, the header, the choice of key, the signature. What is valid must verify,
// and what is not must not; what is valid for JOSE and not for this gate is named in why.
func TestWycheproof(t *testing.T) {
	// why says for what reason a valid vector is refused here, "" when it is not.
	why := func(header string, key jwkOfVector) string {
		switch {
		case strings.Contains(header, `"HS`):
			return "HMAC"
		case key.Alg != "" && !strings.Contains(header, `"`+key.Alg+`"`):
			return "the key is declared for another algorithm" // PS256 for a PS384 signature, ES521, which is none
		}
		return ""
	}
	// At least so many of each kind must run, or the vectors were not read as they are written.
	for _, file := range []struct {
		name                    string
		valid, invalid, refused int
	}{
		{"json_web_signature_test.json", 32, 355, 14},
		{"json_web_key_test.json", 1, 21, 4},
	} {
		t.Run(file.name, func(t *testing.T) {
			data, err := fs.ReadFile(wycheproof.TestVectors, file.name)
			if err != nil {
				t.Fatal(err)
			}
			var vectors struct {
				TestGroups []struct {
					Comment         string
					Public, Private json.RawMessage
					Tests           []struct {
						TcID         int
						Comment, JWS string
						Result       string
					}
				}
			}
			if err := json.Unmarshal(data, &vectors); err != nil {
				t.Fatal(err)
			}
			valid, invalid, refusals := 0, 0, map[string]int{}
			for _, g := range vectors.TestGroups {
				raw := g.Public
				if len(raw) == 0 {
					raw = g.Private // a symmetric key
				}
				if !bytes.Contains(raw, []byte(`"keys"`)) {
					raw = []byte(`{"keys":[` + string(raw) + `]}`)
				}
				var set struct{ Keys []jwkOfVector }
				if err := json.Unmarshal(raw, &set); err != nil {
					t.Fatal(err)
				}
				v := vectorVerifier(t, raw)
				for _, test := range g.Tests {
					header, _, _ := strings.Cut(test.JWS, ".")
					decoded, _ := base64.RawURLEncoding.DecodeString(header)
					payload, err := v.Signature(t.Context(), issuerURL, test.JWS)
					if _, err := v.Verify(t.Context(), test.JWS); err == nil {
						t.Errorf("%s %d (%s): is an identity", g.Comment, test.TcID, test.Comment)
					}
					reason := why(string(decoded), set.Keys[0])
					switch {
					case test.Result == "valid" && reason == "":
						valid++
						want, _ := base64.RawURLEncoding.DecodeString(strings.Split(test.JWS, ".")[1])
						if err != nil || !bytes.Equal(payload, want) {
							t.Errorf("%s %d (%s): valid, refused: %v (%v)", g.Comment, test.TcID, test.Comment, err, access.AsError(err).Cause)
						}
					case test.Result == "valid":
						refusals[reason]++
						if err == nil {
							t.Errorf("%s %d (%s): verifies, though %s", g.Comment, test.TcID, test.Comment, reason)
						}
					case test.Result == "invalid":
						invalid++
						if err == nil {
							t.Errorf("%s %d (%s): invalid, verifies", g.Comment, test.TcID, test.Comment)
						}
					default:
						t.Errorf("%d: result %q", test.TcID, test.Result)
					}
				}
			}
			refused := 0
			for _, n := range refusals {
				refused += n
			}
			t.Logf("%d valid verified, %d invalid refused, %d valid for JOSE refused by design: %v", valid, invalid, refused, refusals)
			if valid < file.valid || invalid < file.invalid || refused < file.refused {
				t.Errorf("fewer ran than are known: want %d valid, %d invalid, %d refused by design", file.valid, file.invalid, file.refused)
			}
		})
	}
}

type jwkOfVector struct{ Alg string }

// vectorVerifier trusts one issuer with every algorithm there is and the keys of a vector.
func vectorVerifier(t *testing.T, jwks []byte) *identity.Verifier {
	t.Helper()
	now := func() time.Time { return at }
	ring := must(identity.NewRing(identity.RingConfig{Refresh: noKeys, Now: now}))
	if err := ring.Set([]identity.IssuerKeys{{Issuer: issuerURL, JWKS: jwks, Fetched: at}}); err != nil {
		t.Fatal(err)
	}
	i := trustedIssuer()
	i.Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
	return must(identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: ring, Now: now}))
}

// Each vector of the keys must fail for the key it shows, not for want of an issuer: a key set whose one key is left
// out holds none.
func TestWycheproofKeys(t *testing.T) {
	data, err := fs.ReadFile(wycheproof.TestVectors, "json_web_key_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		TestGroups []struct {
			Comment string
			Public  json.RawMessage
		}
	}
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	dropped := 0
	for _, g := range vectors.TestGroups {
		if len(g.Public) == 0 {
			continue
		}
		set, err := identity.ParseKeys(g.Public)
		if err != nil {
			t.Fatal(err)
		}
		if len(set.Keys) == 0 {
			dropped++
		}
	}
	if dropped != 10 {
		t.Errorf("%d keys are left out, want 10: enc, ROCA, 1024 bits, exponent 1, ES521, ES224, enc, a point off the curve, another curve, another type", dropped)
	}
}
