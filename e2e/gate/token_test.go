package gate_test

import (
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

const pods = "/api/v1/namespaces/MARK/pods"

// Threats O1, O2, O3, O7, H5, H6: tokens that are nobody's, or not for this gate.
func TestBadTokens(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	f := s.Forge(t)
	claims := func(kv ...any) map[string]any {
		m := map[string]any{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i].(string)] = kv[i+1]
		}
		return m
	}
	sign := func(change map[string]any) string { return f.Sign(f.Header(nil), f.Claims(change)) }
	now := time.Now().Unix()
	key, jwk := f.Key()
	public, err := x509.MarshalPKIXPublicKey(f.Public())
	if err != nil {
		t.Fatal(err)
	}
	good := sign(nil)
	parts := strings.Split(good, ".")
	duplicate, _ := json.Marshal(f.Claims(nil))

	tokens := []struct {
		name, token string
		code        int
	}{
		{"O1 alg none", f.Unsigned(f.Header(claims("alg", "none")), f.Claims(nil)), 401},
		{"O1 alg None", f.Unsigned(f.Header(claims("alg", "None")), f.Claims(nil)), 401},
		{"O1 alg NONE, no kid", f.Unsigned(`{"alg":"NONE"}`, f.Claims(nil)), 401},
		{"O1 no alg", f.Sign(f.Header(claims("alg", nil)), f.Claims(nil)), 401},
		{"O1 alg none, with a signature", f.Sign(f.Header(claims("alg", "none")), f.Claims(nil)), 401},
		{"O1 HS256 with the public key in DER", f.MAC(public, f.Header(claims("alg", "HS256")), f.Claims(nil)), 401},
		{"O1 HS256 with the public key in PEM", f.MAC(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), f.Header(claims("alg", "HS256")), f.Claims(nil)), 401},
		{"O1 HS256 with the JWKS", f.MAC(f.JWKS(), f.Header(claims("alg", "HS256")), f.Claims(nil)), 401},
		{"O1 another algorithm than the key's", f.Sign(f.Header(claims("alg", "RS256")), f.Claims(nil)), 401},
		{"O1 an algorithm that is not listed", f.Sign(f.Header(claims("alg", "ES384")), f.Claims(nil)), 401},
		{"O1 its own key under jwk", f.SignWith(key, f.Header(claims("jwk", jwk, "kid", jwk.KeyID)), f.Claims(nil)), 401},
		{"O1 its own key, the issuer's kid", f.SignWith(key, f.Header(nil), f.Claims(nil)), 401},
		{"O1 its own key, no kid", f.SignWith(key, f.Header(claims("kid", nil)), f.Claims(nil)), 401},
		{"O1 jku", f.Sign(f.Header(claims("jku", "http://127.0.0.1:1/jwks")), f.Claims(nil)), 401},
		{"O1 x5u", f.Sign(f.Header(claims("x5u", "http://127.0.0.1:1/cert")), f.Claims(nil)), 401},
		{"O1 x5c", f.Sign(f.Header(claims("x5c", []string{"AAAA"})), f.Claims(nil)), 401},
		{"O1 crit", f.Sign(f.Header(claims("crit", []string{"exp"})), f.Claims(nil)), 401},
		{"O1 b64", f.Sign(f.Header(claims("b64", false, "crit", []string{"b64"})), f.Claims(nil)), 401},
		{"O1 zip", f.Sign(f.Header(claims("zip", "DEF")), f.Claims(nil)), 401},
		{"O1 a logout token", f.Sign(f.Header(claims("typ", "logout+jwt")), f.Claims(nil)), 401},
		{"O1 kid is a number", f.Sign(f.Header(claims("kid", 7)), f.Claims(nil)), 401},
		{"O1 a JWE", strings.Join([]string{parts[0], "AAAA", "AAAA", "AAAA", "AAAA"}, "."), 401},
		{"O1 two parts", parts[0] + "." + parts[1], 401},
		{"O1 four parts", good + ".AAAA", 401},
		{"O1 no signature", parts[0] + "." + parts[1] + ".", 401},
		{"O1 a signature of zeros", parts[0] + "." + parts[1] + "." + strings.Repeat("A", 86), 401},
		{"O1 the signature of another token", parts[0] + "." + parts[1] + "." + strings.Split(agent.Token, ".")[2], 401},
		{"O1 padding", parts[0] + "." + parts[1] + "." + parts[2] + "==", 401},
		{"O1 the header twice", f.Sign(`{"alg":"ES256","alg":"none","kid":"`+f.Header(nil)["kid"].(string)+`"}`, f.Claims(nil)), 401},
		{"tampered groups", stacktest.Tampered(t, agent.Token, func(c map[string]any) { c["groups"] = []string{"developers"} }), 401},
		{"tampered subject", stacktest.Tampered(t, agent.Token, func(c map[string]any) { c["sub"] = "agent" }), 401},
		{"tampered expiry", stacktest.Tampered(t, agent.Token, func(c map[string]any) { c["exp"] = now + 1e6 }), 401},

		{"O2 expired", s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--expires", "-5m"), 401},
		{"O2 expired a second ago", s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--expires", "-1s"), 401},
		{"O2 no exp", sign(claims("exp", nil)), 401},
		{"O2 exp is text", sign(claims("exp", "9999999999")), 401},
		{"O2 exp is null", f.Sign(f.Header(nil), strings.Replace(string(duplicate), `"exp":`, `"exp":null,"x":`, 1)), 401},
		{"O2 not yet valid", sign(claims("nbf", now+600)), 401},
		{"O2 issued in the future", sign(claims("iat", now+600, "nbf", nil)), 401},
		{"O2 another audience", s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--audience", "elsewhere"), 401},
		{"O2 an audience more", sign(claims("aud", []string{"sallyport", "elsewhere"})), 401},
		{"O2 an audience of another case", sign(claims("aud", "Sallyport")), 401},
		{"O2 no audience", sign(claims("aud", nil)), 401},
		{"O2 an empty audience", sign(claims("aud", "")), 401},
		{"O2 another issuer", f.SignWith(key, f.Header(claims("kid", jwk.KeyID)), f.Claims(claims("iss", "https://issuer.example.com"))), 401},
		{"O2 another issuer, the right key", sign(claims("iss", "https://issuer.example.com")), 401},
		{"O2 iss with a slash more", sign(claims("iss", s.Issuer.URL+"/")), 401},
		{"O2 iss by another name of its host", sign(claims("iss", strings.Replace(s.Issuer.URL, "127.0.0.1", "localhost", 1))), 401},
		{"O2 no iss", sign(claims("iss", nil)), 401},
		{"O2 ISS", sign(claims("iss", nil, "ISS", s.Issuer.URL)), 401},
		{"O3 dots", strings.Repeat(".", 60<<10), 401},
		{"O3 three large parts", strings.Repeat("A", 30<<10) + "." + strings.Repeat("A", 30<<10) + "." + strings.Repeat("A", 30<<10), 401},
		{"O3 a good token with a large claim", sign(claims("pad", strings.Repeat("A", 60<<10))), 401},
		{"O7 a claim twice", f.Sign(f.Header(nil), strings.Replace(string(duplicate), `{`, `{"sub":"other",`, 1)), 401},
		{"O7 groups as text", sign(claims("groups", "agents")), 403},
		{"O7 groups as an object", sign(claims("groups", map[string]string{"a": "agents"})), 403},
		{"O7 a group that is a number", sign(claims("groups", []any{"agents", 7})), 403},
		{"O6 groups are elsewhere", sign(claims("_claim_names", map[string]string{"groups": "src1"}, "groups", nil)), 403},
		{"H7 a group of the cluster's own", sign(claims("groups", []string{"agents", "system:masters"})), 403},
		{"H7 a group of EKS'", sign(claims("groups", []string{"agents", "eks:admin"})), 403},
		{"H7 a group with a line break", sign(claims("groups", []string{"agents\r\nX-Remote-User: root"})), 403},
		{"H7 a subject of the cluster's own", sign(claims("sub", "system:admin")), 403},
		{"H7 a service account", sign(claims("sub", "system:serviceaccount:kube-system:default")), 403},
		{"H7 a subject of another case", sign(claims("sub", "SYSTEM:admin")), 403},
		{"H7 a subject with a line break", sign(claims("sub", "bot\r\nX-Remote-User: root")), 403},
		{"H7 a subject that is not ASCII", sign(claims("sub", "bоt")), 403}, // a Cyrillic о
		{"H9 an empty subject", sign(claims("sub", "")), 403},
		{"H9 no subject", sign(claims("sub", nil)), 403},
		{"H9 a subject of spaces", sign(claims("sub", "  ")), 403},
		{"H9 a subject that is a number", sign(claims("sub", 7)), 403},
		{"no JWT", "secret", 401},
		{"an EKS token", "k8s-aws-v1.aHR0cHM6Ly9zdHMuYW1hem9uYXdzLmNvbS8", 401},
	}
	var probes []probe
	for _, x := range tokens {
		p := probe{name: x.name, Request: get(pods), token: x.token, code: x.code, reason: "Unauthorized"}
		if x.code == 403 {
			p.reason = "Forbidden"
		}
		probes = append(probes, p)
	}

	ws := []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}
	subprotocol := func(token string) string {
		return "Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token))
	}
	exec := "/api/v1/namespaces/dev/pods/POD/exec?command=MARK&stdout=true"
	bearer := stacktest.Bearer(agent.Token)
	header := func(name, says string, lines ...string) probe {
		return probe{name: name, Request: get(pods, lines...), token: "none", code: 401, reason: "Unauthorized", says: says}
	}
	probes = append(probes,
		header("no token", "Authorization: Bearer"),
		header("an empty token", "no token", "Authorization: Bearer "),
		header("an empty header", "Bearer", "Authorization:"),
		header("Basic", "must be Bearer", "Authorization: Basic YWdlbnQ6YWdlbnQ="),
		header("AWS4-HMAC-SHA256", "must be Bearer", "Authorization: AWS4-HMAC-SHA256 Credential=x"),
		header("a token in the query", "no token"),
		header("H6 two headers", "2 tokens", bearer, bearer),
		header("H6 two headers, two people", "2 tokens", bearer, stacktest.Bearer(good)),
		header("H6 two headers, a bad one first", "2 tokens", "Authorization: Bearer x", bearer),
		header("H6 two headers, one of another scheme", "must be Bearer", bearer, "Authorization: Basic YWdlbnQ6YWdlbnQ="),
		header("H6 two in one header", "", "Authorization: Bearer "+agent.Token+", Bearer "+good),
		header("H6 two in one header, without a comma", "", "Authorization: Bearer "+agent.Token+" "+good),
		probe{name: "H6 header and subprotocol", Request: get(exec, append(ws, subprotocol(good))...), code: 401, reason: "Unauthorized", says: "2 tokens"},
		probe{name: "H6 two subprotocols", Request: get(exec, append(ws, subprotocol(good), subprotocol(good))...), token: "none", code: 401, reason: "Unauthorized", says: "2 tokens"},
		probe{name: "H5 a subprotocol that is no base64", Request: get(exec, append(ws, "Sec-WebSocket-Protocol: v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.%%%")...), token: "none", code: 401, reason: "Unauthorized", says: "base64url"},
		probe{name: "H5 a subprotocol with a bad token", Request: get(exec, append(ws, subprotocol("x.y.z"))...), token: "none", code: 401, reason: "Unauthorized"},
		probe{name: "O3 a megabyte", Request: get(pods), token: strings.Repeat("A", 1<<20), code: http.StatusRequestHeaderFieldsTooLarge},
		probe{name: "O3 a megabyte of dots", Request: get(pods), token: strings.Repeat(".", 1<<20), code: http.StatusRequestHeaderFieldsTooLarge},
	)
	for i := range probes {
		if probes[i].name == "a token in the query" {
			probes[i].Target += "?access_token=" + agent.Token
		}
	}
	refused(t, agent, probes)

	// A token of this forge is good when nothing is wrong with it: else nothing above was proven.
	a := s.Do(t, stacktest.Request{Target: s.Path("/version"), Header: []string{stacktest.Bearer(sign(nil))}})
	if a.Code != http.StatusOK {
		t.Errorf("a good token: %v", a)
	}
	for name, token := range map[string]string{
		"RS256":                    s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--alg", "RS256"),
		"a list of one audience":   sign(claims("aud", []string{"sallyport"})),
		"within the skew":          sign(claims("nbf", now+30, "iat", now+30)),
		"a group nobody knows too": sign(claims("groups", []string{"agents", "strangers"})),
	} {
		if a := s.Do(t, stacktest.Request{Target: s.Path("/version"), Header: []string{stacktest.Bearer(token)}}); a.Code != http.StatusOK {
			t.Errorf("%s: want 200, got %v", name, a)
		}
	}
}
