package issuer_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/local/issuer"
	"sallyport/shared/access"
	"sallyport/shared/identity"
)

const audience = "sallyport"

// serve is an issuer in a directory, served on loopback.
func serve(t *testing.T, dir string) (*issuer.Issuer, *httptest.Server) {
	t.Helper()
	var h http.Handler
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(w, r) }))
	t.Cleanup(s.Close)
	i, err := issuer.New(issuer.Config{Dir: dir, URL: s.URL, Audience: audience})
	if err != nil {
		t.Fatal(err)
	}
	h = i.Handler()
	return i, s
}

// gate is the gate's own reading of the issuer's tokens. Its clock goes on by whatever later says.
func gate(t *testing.T, url string, change ...func(*access.Issuer)) (v *identity.Verifier, later func(time.Duration)) {
	t.Helper()
	i := access.Issuer{URL: url, Audience: audience, Algorithms: issuer.Algorithms, Private: true, GroupsClaim: "groups"}
	for _, f := range change {
		f(&i)
	}
	var mu sync.Mutex
	var ahead time.Duration
	now := func() time.Time {
		mu.Lock()
		defer mu.Unlock()
		return time.Now().Add(ahead)
	}
	f, err := identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{i}, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	v, err = identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: f, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return v, func(d time.Duration) { mu.Lock(); ahead += d; mu.Unlock() }
}

// token runs the token command.
func token(t *testing.T, dir string, args ...string) string {
	t.Helper()
	var out, errs bytes.Buffer
	if code := issuer.Command(dir, args, &out, &errs); code != 0 {
		t.Fatalf("token %q: exit %d: %s", args, code, errs.String())
	}
	if n := strings.Count(out.String(), "\n"); n != 1 {
		t.Errorf("token %q prints %d lines", args, n)
	}
	return strings.TrimSpace(out.String())
}

func claimsOf(t *testing.T, token string) map[string]any {
	t.Helper()
	payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	dec := json.NewDecoder(bytes.NewReader(payload))
	dec.UseNumber()
	if err := dec.Decode(&c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTokensAreTheGates(t *testing.T) {
	dir := t.TempDir()
	_, s := serve(t, dir)
	for _, test := range []struct {
		name   string
		args   []string
		issuer func(*access.Issuer)
		want   access.Principal
	}{
		{"an agent", []string{"--subject", "bot", "--groups", "agents,observers"}, nil,
			access.Principal{Subject: "bot", Agent: "bot", Groups: []string{"agents", "observers"}}},
		{"RS256", []string{"--subject", "bot", "--alg", "RS256"}, nil, access.Principal{Subject: "bot", Agent: "bot"}},
		{"a run with an owner", []string{"--subject", "bot", "--claim", "run_id=12345678901234567890", "--claim", "actor=ana", "--claim", "name=my bot"},
			func(i *access.Issuer) { i.Run, i.Owner, i.Agent = []string{"run_id"}, "actor", "name" },
			access.Principal{Subject: "bot", Agent: "my bot", Owner: "ana", Run: map[string]string{"run_id": "12345678901234567890"}}},
		{"a reviewer", []string{"--reviewer", "ana@example.com"},
			func(i *access.Issuer) {
				i.Audience = issuer.ReviewsAudience
				i.Require = []access.Condition{{Claim: "email", Equals: []string{"ana@example.com"}}, {Claim: "email_verified", Equals: []string{"true"}}}
			},
			access.Principal{Subject: "ana@example.com", Agent: "ana@example.com"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.issuer == nil {
				test.issuer = func(*access.Issuer) {}
			}
			v, _ := gate(t, s.URL, test.issuer)
			id, err := v.Verify(t.Context(), token(t, dir, test.args...))
			if err != nil {
				t.Fatalf("%v (%v)", err, access.AsError(err).Cause)
			}
			test.want.Issuer = s.URL
			if diff := cmp.Diff(test.want, id.Principal); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	v, _ := gate(t, s.URL)
	for _, test := range []struct {
		name string
		args []string
		kind access.Kind
	}{
		{"expired", []string{"--subject", "bot", "--expires", "-5m"}, access.Unauthenticated},
		{"another audience", []string{"--subject", "bot", "--audience", "other"}, access.Unauthenticated},
		{"another issuer", []string{"--subject", "bot", "--claim", "iss=https://evil.example"}, access.Unauthenticated},
		{"two audiences", []string{"--subject", "bot", "--claim", `aud=["sallyport","other"]`}, access.Unauthenticated},
		{"groups as a string", []string{"--subject", "bot", "--claim", "groups=agents"}, access.Denied},
		{"a reserved group", []string{"--subject", "bot", "--groups", "system:masters"}, access.Denied},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, err := v.Verify(t.Context(), token(t, dir, test.args...)); access.KindOf(err) != test.kind {
				t.Errorf("%v, want it %s", err, test.kind)
			}
		})
	}
}

func TestCommandClaims(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	before := time.Now().Unix()
	c := claimsOf(t, token(t, dir, "--subject", "s", "--expires", "1h",
		"--claim", "n=1", "--claim", "big=9007199254740993", "--claim", "b=false", "--claim", `l=["a",1]`, "--claim", `o={"k":"v"}`,
		"--claim", "s=text", "--claim", "e=", "--claim", "z=null", "--claim", `q="quoted"`, "--claim", "v=a=b", "--claim", "w= spaced ",
		"--claim", "ref=refs/heads/main", "--claim", "nan=NaN", "--claim", "half={"))
	number := func(claim string) int64 {
		n, err := c[claim].(json.Number).Int64()
		if err != nil {
			t.Fatal(err)
		}
		delete(c, claim)
		return n
	}
	exp, iat, nbf := number("exp"), number("iat"), number("nbf")
	if iat < before || iat > time.Now().Unix() || nbf != iat || exp-iat != 3600 {
		t.Errorf("iat %d, nbf %d, exp %d", iat, nbf, exp)
	}
	if jti, _ := c["jti"].(string); len(jti) < 20 {
		t.Errorf("jti %q", jti)
	}
	delete(c, "jti")
	delete(c, "iss")
	want := map[string]any{
		"sub": "s", "aud": audience, "n": json.Number("1"), "big": json.Number("9007199254740993"), "b": false,
		"l": []any{"a", json.Number("1")}, "o": map[string]any{"k": "v"}, "s": "text", "e": "", "z": "null", "q": `"quoted"`,
		"v": "a=b", "w": " spaced ", "ref": "refs/heads/main", "nan": "NaN", "half": "{",
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	expired := claimsOf(t, token(t, dir, "--subject", "s", "--expires", "-30s"))
	at := func(claim string) int64 { n, _ := expired[claim].(json.Number).Int64(); return n }
	if at("exp") > time.Now().Unix()-30 || at("iat") >= at("exp") {
		t.Errorf("%v", expired)
	}
	if one, other := token(t, dir, "--subject", "s"), token(t, dir, "--subject", "s"); claimsOf(t, one)["jti"] == claimsOf(t, other)["jti"] {
		t.Error("two tokens have one jti")
	}
}

func TestCommandRefuses(t *testing.T) {
	dir := t.TempDir()
	serve(t, dir)
	for _, test := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing", nil, 2, "--subject"},
		{"subject and reviewer", []string{"--subject", "a", "--reviewer", "b"}, 2, "--subject"},
		{"a reviewer's groups", []string{"--reviewer", "b", "--groups", "sre"}, 2, "policy"},
		{"a word too many", []string{"--subject", "a", "b"}, 2, `"b"`},
		{"a claim without value", []string{"--subject", "a", "--claim", "x"}, 2, "k=v"},
		{"a claim without name", []string{"--subject", "a", "--claim", "=x"}, 2, "k=v"},
		{"a claim twice", []string{"--subject", "a", "--claim", "x=1", "--claim", "x=2"}, 2, "twice"},
		{"no duration", []string{"--subject", "a", "--expires", "soon"}, 2, "expires"},
		{"zero", []string{"--subject", "a", "--expires", "0"}, 2, "expires"},
		{"an unknown flag", []string{"--subjet", "a"}, 2, "subjet"},
		{"an unknown algorithm", []string{"--subject", "a", "--alg", "none"}, 1, "ES256 and RS256"},
		{"no issuer there", []string{"--subject", "a", "--dir", filepath.Join(dir, "none")}, 1, "start the local stack"},
		{"help", []string{"--help"}, 0, "-reviewer"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			if code := issuer.Command(dir, test.args, &out, &errs); code != test.code || !strings.Contains(errs.String(), test.says) || out.Len() > 0 {
				t.Errorf("exit %d, want %d; stdout %q, stderr %q", code, test.code, out.String(), errs.String())
			}
		})
	}
}

func TestExecCredential(t *testing.T) {
	dir := t.TempDir()
	_, s := serve(t, dir)
	var got struct {
		APIVersion, Kind string
		Status           struct {
			Token               string
			ExpirationTimestamp time.Time
		}
	}
	if err := json.Unmarshal([]byte(token(t, dir, "--subject", "bot", "--exec-credential")), &got); err != nil {
		t.Fatal(err)
	}
	if got.APIVersion != "client.authentication.k8s.io/v1" || got.Kind != "ExecCredential" {
		t.Errorf("%+v", got)
	}
	v, _ := gate(t, s.URL)
	id, err := v.Verify(t.Context(), got.Status.Token)
	if err != nil {
		t.Fatal(err)
	}
	if d := id.Expires.Sub(got.Status.ExpirationTimestamp).Abs(); d > time.Second {
		t.Errorf("says it expires %v off", d)
	}
}

func post(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := 0; n < len(header); n += 2 {
		req.Header.Set(header[n], header[n+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
	return resp
}

// Rotation on command: the verifier follows without being started again.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	_, s := serve(t, dir)
	v, later := gate(t, s.URL)
	good := func(what, token string) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	bad := func(what, token string) {
		t.Helper()
		if _, err := v.Verify(t.Context(), token); access.KindOf(err) != access.Unauthenticated {
			t.Errorf("%s: %v, want it refused", what, err)
		}
	}
	mint := func() string { return token(t, dir, "--subject", "bot", "--expires", "10h") }
	first, unused := mint(), mint()
	good("first", first)
	for _, alg := range issuer.Algorithms {
		good(alg, token(t, dir, "--subject", "bot", "--alg", alg))
	}

	if resp := post(t, s.URL+"/rotate"); resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	later(identity.RefreshEvery)
	second := mint()
	good("second after one rotation", second)
	good("first after one rotation", unused)
	if kid(t, first) == kid(t, second) {
		t.Error("the key is the same after rotation")
	}

	post(t, s.URL+"/rotate")
	later(identity.RefreshEvery)
	third := mint()
	good("third after two rotations", third)
	good("second after two rotations", second)
	later(identity.Reverify)
	bad("first after two rotations", unused)

	post(t, s.URL+"/rotate?drop=1")
	later(identity.RefreshEvery)
	good("fourth after drop", mint())
	later(identity.Reverify)
	bad("third after drop", third)
	bad("second after drop", second)
}

func kid(t *testing.T, token string) string {
	t.Helper()
	header, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	if err != nil {
		t.Fatal(err)
	}
	var h struct{ Kid string }
	if err := json.Unmarshal(header, &h); err != nil || h.Kid == "" {
		t.Fatalf("header %s: %v", header, err)
	}
	return h.Kid
}

func TestRotateIsOurs(t *testing.T) {
	dir := t.TempDir()
	i, s := serve(t, dir)
	before := token(t, dir, "--subject", "bot")
	if resp := post(t, s.URL+"/rotate", "Origin", "https://evil.example"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("from another page: %s", resp.Status)
	}
	if resp := post(t, s.URL+"/rotate", "Sec-Fetch-Site", "cross-site"); resp.StatusCode != http.StatusForbidden {
		t.Errorf("from another site: %s", resp.Status)
	}
	for _, addr := range []string{"192.0.2.1:1234", "[2001:db8::1]:1234", "10.0.0.1:1", "", "localhost"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, s.URL+"/rotate", nil)
		r.RemoteAddr = addr
		r.Header.Set("X-Forwarded-For", "127.0.0.1")
		if i.Handler().ServeHTTP(w, r); w.Code != http.StatusForbidden {
			t.Errorf("from %q: %d", addr, w.Code)
		}
	}
	resp, err := http.Get(s.URL + "/rotate")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("GET: %s", resp.Status)
	}
	if kid(t, before) != kid(t, token(t, dir, "--subject", "bot")) {
		t.Error("the key was rotated all the same")
	}
}

func TestServed(t *testing.T) {
	dir := t.TempDir()
	_, s := serve(t, dir)
	for path, want := range map[string]string{
		"/.well-known/openid-configuration": `"issuer":"` + s.URL + `"`,
		"/jwks":                             `"kty":"EC"`,
	} {
		resp, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "application/json" || !strings.Contains(resp.Header.Get("Cache-Control"), "max-age=") {
			t.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		if !strings.Contains(string(body), want) {
			t.Errorf("%s: %s", path, body)
		}
		for _, private := range []string{`"d":`, `"p":`, `"q":`, `"dp":`, `"qi":`} {
			if strings.Contains(string(body), private) {
				t.Errorf("%s holds %s", path, private)
			}
		}
	}
}

func TestState(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "issuer")
	_, s := serve(t, dir)
	before := token(t, dir, "--subject", "bot")
	// Only the owner reads it.
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	// Another process, another start: the same keys.
	if _, err := issuer.New(issuer.Config{Dir: dir, URL: s.URL, Audience: audience}); err != nil {
		t.Fatal(err)
	}
	if kid(t, before) != kid(t, token(t, dir, "--subject", "bot")) {
		t.Error("the key did not survive a start")
	}
	v, _ := gate(t, s.URL)
	if _, err := v.Verify(t.Context(), before); err != nil {
		t.Error(err)
	}
	// A rotation by another process is served.
	other, err := issuer.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Rotate(true); err != nil {
		t.Fatal(err)
	}
	v, _ = gate(t, s.URL)
	if _, err := v.Verify(t.Context(), token(t, dir, "--subject", "bot")); err != nil {
		t.Error(err)
	}
	if _, err := v.Verify(t.Context(), before); access.KindOf(err) != access.Unauthenticated {
		t.Errorf("after drop: %v", err)
	}
	// Files that are broken are not replaced in silence.
	if err := os.WriteFile(filepath.Join(dir, "keys.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := issuer.New(issuer.Config{Dir: dir, URL: s.URL, Audience: audience}); err == nil {
		t.Error("started on broken keys")
	}
}

// Started at once by many, all have the same keys.
func TestFirstStart(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	tokens := make([]string, 4)
	for n := range tokens {
		wg.Go(func() {
			i, err := issuer.New(issuer.Config{Dir: dir, URL: "http://localhost:1", Audience: audience})
			if err != nil {
				t.Error(err)
				return
			}
			tokens[n], err = i.Mint(issuer.Claims{Subject: "bot"})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, token := range tokens[1:] {
		if kid(t, token) != kid(t, tokens[0]) {
			t.Error("two starts made two keys")
		}
	}
}
