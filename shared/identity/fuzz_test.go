package identity_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/shared/access"
)

// FuzzVerify: whatever bytes come as a bearer, nothing panics, every refusal is one of ours and holds nothing of the
// token, and nothing is accepted but, to the byte, tokens that were signed.
func FuzzVerify(f *testing.F) {
	v, _, _ := newVerifier(f)
	signed := map[string]bool{}
	for _, s := range []signer{es256, rs256, ed} {
		for _, payload := range []string{with(nil), with(map[string]any{"aud": []string{audience}}), with(map[string]any{"exp": 1}), spelled(`"sub":"x"`), `foo`, ``} {
			token := s.sign(s.header(), payload)
			signed[token] = true
			f.Add(token)
		}
	}
	header, rest, _ := strings.Cut(es256.sign(es256.header(), with(nil)), ".")
	payload, signature, _ := strings.Cut(rest, ".")
	for _, token := range []string{
		"", ".", "..", "....", strings.Repeat(".", 1<<20), header, header + "." + payload + ".",
		header + "." + payload + "." + signature + "=", stranger.sign(stranger.header(), with(nil)),
		hs256([]byte("x"), `{"alg":"HS256","kid":"rs"}`, with(nil)), es256.sign(`{"alg":"none"}`, with(nil)),
		es256.sign(`{"alg":"ES256","kid":"es","crit":["x"]}`, with(nil)), `{"payload":"` + payload + `"}`,
	} {
		f.Add(token)
	}
	f.Fuzz(func(t *testing.T, token string) {
		id, err := v.Verify(t.Context(), token)
		if err == nil {
			if !signed[token] {
				t.Fatalf("accepted %q as %+v", token, id)
			}
			return
		}
		var e *access.Error
		if !errors.As(err, &e) || e.Kind != access.Unauthenticated && e.Kind != access.Denied {
			t.Fatalf("%T: %v", err, err)
		}
		if len(token) > 40 && strings.Contains(e.Message, token[:40]) {
			t.Fatalf("the message holds the token: %s", e.Message)
		}
	})
}

// FuzzAlteredSignature: no signature but the one that was made is accepted.
func FuzzAlteredSignature(f *testing.F) {
	v, _, _ := newVerifier(f)
	f.Add(uint8(0), []byte{})
	f.Add(uint8(1), make([]byte, 64))
	f.Add(uint8(2), []byte{1})
	f.Fuzz(func(t *testing.T, which uint8, change []byte) {
		s := []signer{es256, rs256, ed}[which%3]
		token := s.sign(s.header(), with(nil))
		dot := strings.LastIndexByte(token, '.')
		signature := must(base64.RawURLEncoding.DecodeString(token[dot+1:]))
		altered := append(bytes.Clone(signature), change[min(len(change), len(signature)):]...)
		for i := range min(len(change), len(signature)) {
			altered[i] ^= change[i]
		}
		_, err := v.Verify(t.Context(), token[:dot+1]+b64(altered))
		if same := bytes.Equal(altered, signature); (err == nil) != same {
			t.Fatalf("%s: altered %v, error %v", s.alg, !same, err)
		}
	})
}

// FuzzClaims: whatever a trusted issuer signs, nothing panics, and what is accepted is what another reader of the same
// claims would find, with names that are safe to write anywhere.
func FuzzClaims(f *testing.F) {
	v, _, _ := newVerifier(f, func(i *access.Issuer) {
		i.Agent, i.Owner, i.GroupsClaim, i.Run = "agent", "owner", "groups", []string{"run_id"}
		i.Require = []access.Condition{{Claim: "env", Matches: "^(dev|prod)$"}}
	})
	full := map[string]any{"agent": "bot", "owner": "ana", "groups": []string{"b", "a"}, "run_id": 1, "env": "dev"}
	f.Add([]byte(with(full)))
	f.Add([]byte(with(nil)))
	for _, members := range []string{
		`"sub":"x"`, `"groups":"a"`, `"groups":["system:masters"]`, `"agent":"a\r\nb"`, `"_claim_names":{"groups":"s"}`,
		`"AUD":"x"`, `"exp":1e999`, `"x":{"a":1,"a":1}`, `"\ud800":1`, `"run_id":1e3`,
	} {
		f.Add([]byte(strings.TrimSuffix(with(full), "}") + "," + members + "}"))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > 8<<10 {
			return
		}
		id, err := v.Verify(t.Context(), ed.sign(ed.header(), string(payload)))
		if err != nil {
			if e := (*access.Error)(nil); !errors.As(err, &e) {
				t.Fatalf("%T: %v", err, err)
			}
			return
		}
		dec := json.NewDecoder(bytes.NewReader(payload))
		dec.UseNumber()
		var c map[string]any
		if err := dec.Decode(&c); err != nil {
			t.Fatalf("accepted what is no JSON: %v", err)
		}
		p := id.Principal
		if p.Issuer != issuerURL || c["iss"] != issuerURL || c["sub"] != p.Subject || c["agent"] != p.Agent {
			t.Fatalf("%+v is not who %s says", p, payload)
		}
		aud, list := c["aud"].([]any)
		if !list {
			aud = []any{c["aud"]}
		}
		if len(aud) != 1 || aud[0] != audience {
			t.Fatalf("accepted for audience %v", aud)
		}
		if !id.Expires.After(at) || id.NotBefore.After(at.Add(60e9)) {
			t.Fatalf("accepted from %v until %v", id.NotBefore, id.Expires)
		}
		if c["env"] != "dev" && c["env"] != "prod" {
			t.Fatalf("accepted with env %v", c["env"])
		}
		if !slices.IsSorted(p.Groups) || len(p.Groups) != len(slices.Compact(slices.Clone(p.Groups))) {
			t.Fatalf("groups %q", p.Groups)
		}
		names := append([]string{p.Subject, p.Agent}, p.Groups...)
		for _, name := range names {
			lower := strings.ToLower(name)
			if name == "" || strings.HasPrefix(lower, "system:") || strings.HasPrefix(lower, "eks:") {
				t.Fatalf("name %q", name)
			}
		}
		for _, s := range append(names, p.Owner, p.Run["run_id"]) {
			for i := range len(s) {
				if s[i] < 0x20 || s[i] > 0x7e {
					t.Fatalf("name %q", s)
				}
			}
		}
		if p.Run["run_id"] == "" {
			t.Fatal("no run")
		}
	})
}
