package rules_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/metrics"
	"sallyport/proxy/rules"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
	"sallyport/shared/policystore"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const policyText = `
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- {url: "https://a", algorithms: [ES256], groupsClaim: groups}
- {url: "https://b", algorithms: [ES256], groupsClaim: groups}
clusters: [{name: dev, region: eu-west-1}]
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
sessions: {idle: 1h, longest: 90m, credential: 1h}
`

// fixture is a Keeper with a broker and a bucket in memory, and two issuers.
type fixture struct {
	*rules.Keeper
	metrics *metrics.Metrics
	changes []string
	log     bytes.Buffer

	mu     sync.Mutex
	in     broker.Policy
	keys   []identity.IssuerKeys
	files  map[string]string // by version
	reads  int
	away   error // of the broker
	s3Away error
	later  atomic.Int64 // how much time passed
	signer map[string]*ecdsa.PrivateKey
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{metrics: metrics.New(func() int { return 0 }), files: map[string]string{}, signer: map[string]*ecdsa.PrivateKey{}}
	for _, issuer := range []string{"https://a", "https://b"} {
		f.keys = append(f.keys, f.newKey(t, issuer))
	}
	f.Keeper = rules.New(rules.Config{
		Broker: source{f}, Policies: source{f}, Observer: f.metrics, UnknownRate: 100, UnknownBurst: 100, Now: func() time.Time { return now.Add(time.Duration(f.later.Load())) },
		Log: slog.New(slog.NewTextHandler(&f.log, nil)),
		OnChange: func(old, new *rules.Generation) {
			was := ""
			if old != nil {
				was = old.Version
			}
			f.changes = append(f.changes, was+"->"+new.Version)
		},
	})
	return f
}

func (f *fixture) newKey(t *testing.T, issuer string) identity.IssuerKeys {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.signer[issuer] = key
	jwks, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &key.PublicKey, KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return identity.IssuerKeys{Issuer: issuer, JWKS: jwks, Fetched: now}
}

// put makes a version the one that the broker decides by.
func (f *fixture) put(version, text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	sum := sha256.Sum256([]byte(text))
	f.files[version] = text
	f.in = broker.Policy{Digest: hex.EncodeToString(sum[:]), Version: version}
}

// source is what the Keeper asks: the broker and the bucket.
type source struct{ *fixture }

func (s source) Poll(context.Context) (broker.Policy, []identity.IssuerKeys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.in, s.keys, s.away
}

func (s source) Keys(context.Context) ([]identity.IssuerKeys, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys, s.away
}

func (s source) Version(_ context.Context, version, digest string) (policystore.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	return policystore.File{Bytes: []byte(s.files[version]), Version: version, Digest: digest}, s.s3Away
}

func (f *fixture) poll(t *testing.T) {
	t.Helper()
	if err := f.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// token is one that an issuer signs now.
func (f *fixture) token(t *testing.T, issuer string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: f.signer[issuer], KeyID: "k"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	claims, err := json.Marshal(map[string]any{"iss": issuer, "aud": "sallyport", "sub": "bot", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "groups": []string{"observers"}, "roles": []string{"others"}})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := s.Sign(claims)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// authenticate says which groups a token has now, or why it is refused.
func (f *fixture) authenticate(t *testing.T, token string) ([]string, access.Kind) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/version", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	c, err := f.Current().Authn.Authenticate(t.Context(), r, "192.0.2.1")
	return c.Principal.Groups, access.KindOf(err)
}

// metric is the lines of the metrics that begin so.
func (f *fixture) metric(name string) string {
	w := httptest.NewRecorder()
	f.metrics.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	var found []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, name) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return strings.Join(found, "; ")
}

func TestSwap(t *testing.T) {
	f := newFixture(t)
	if f.Current() != nil || f.Ready() {
		t.Fatal("there is a policy before the first poll")
	}
	f.put("1", policyText)
	f.poll(t)
	first := f.Current()
	if first.Version != "1" || first.Policy.Digest != f.in.Digest || !f.Ready() {
		t.Fatalf("in force is %+v", first)
	}
	token := f.token(t, "https://a")
	if groups, kind := f.authenticate(t, token); kind != "" || len(groups) != 1 {
		t.Fatal(groups, kind)
	}
	f.poll(t)
	if f.Current() != first || f.reads != 1 {
		t.Errorf("nothing changed, and the policy was read %d times", f.reads)
	}
	f.put("2", strings.Replace(policyText, "name: dev", "name: prod", 1))
	f.poll(t)
	second := f.Current()
	if second.Version != "2" || second.Policy.Clusters[0].Name != "prod" || first.Policy.Clusters[0].Name != "dev" {
		t.Errorf("in force is %+v", second)
	}
	if second.Authn != first.Authn {
		t.Error("the issuers are as before, and every token is unknown again")
	}
	r := httptest.NewRequest(http.MethodGet, "/clusters/prod/version", nil)
	if c, _, err := second.Clusters.Find(r); err != nil || c.Name != "prod" {
		t.Errorf("the new cluster is not found: %v", err)
	}
	f.put("1", policyText) // back again, or from a function that has not heard
	f.poll(t)
	if f.Current() != second {
		t.Error("what was left a moment ago is in force again")
	}
	f.later.Add(int64(5 * time.Second)) // whoever says so now has looked since
	f.poll(t)
	if d := cmp.Diff([]string{"->1", "1->2", "2->1"}, f.changes); d != "" {
		t.Error(d)
	}
	if want := fmt.Sprintf(`sallyport_policy_info{digest="%s"} 1`, first.Policy.Digest); f.metric("sallyport_policy_info") != want {
		t.Errorf("metrics say %s", f.metric("sallyport_policy_info"))
	}
	if !strings.Contains(f.log.String(), `msg="policy changed" old=`+first.Policy.Digest+" new="+second.Policy.Digest) {
		t.Error("the change is not in the log:", f.log.String())
	}
}

// Whatever is wrong with another policy, the last good one stays, and it is said once.
func TestBadKeepsLast(t *testing.T) {
	for _, test := range []struct {
		name  string
		spoil func(*fixture)
		by    string // who refused it
	}{
		{"one that the broker refused", func(f *fixture) {
			f.in.Refused = &broker.Refusal{Version: "2", Digest: "d", Message: "line 4: no"}
		}, "broker"},
		{"one that does not load here", func(f *fixture) { f.put("2", policyText+"rulez: []\n") }, "proxy"},
		{"one that cannot be masked by", func(f *fixture) {
			f.put("2", policyText+"masking: {detectors: [{name: acme, pattern: '[0-9a-f]{32}'}]}\n")
		}, "proxy"},
		{"bytes of another digest", func(f *fixture) {
			f.put("2", policyText+"# more\n")
			f.s3Away = access.Errorf(access.Invalid, "other bytes")
		}, "proxy"},
		{"S3 is away", func(f *fixture) {
			f.put("2", policyText+"# more\n")
			f.s3Away = access.Errorf(access.Unavailable, "away")
		}, ""},
		{"the broker is away", func(f *fixture) { f.away = access.Errorf(access.Unavailable, "away") }, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.put("1", policyText)
			f.poll(t)
			good := f.Current()
			test.spoil(f)
			for range 3 {
				if err := f.Poll(t.Context()); (err == nil) != (test.by == "broker") {
					t.Errorf("the poll says %v", err)
				}
			}
			if f.Current() != good || len(f.changes) != 1 {
				t.Errorf("in force is %+v", f.Current())
			}
			if _, kind := f.authenticate(t, f.token(t, "https://a")); kind != "" {
				t.Errorf("a good token is refused: %s", kind)
			}
			for _, by := range []string{"broker", "proxy"} {
				n := 0
				if by == test.by {
					n = 1
				}
				if want := fmt.Sprintf(`sallyport_policies_refused_total{by=%q} %d`, by, n); !strings.Contains(f.metric("sallyport_policies"), want) {
					t.Errorf("metrics say %s, want %s", f.metric("sallyport_policies"), want)
				}
			}
			if n := strings.Count(f.log.String(), "policy refused"); (n == 1) != (test.by != "") {
				t.Errorf("it is %d times in the log", n)
			}
			// And the next good one takes effect.
			f.away, f.s3Away = nil, nil
			f.put("3", policyText+"# better\n")
			f.poll(t)
			if f.Current().Version != "3" || f.metric("sallyport_policy_refused") != "sallyport_policy_refused 0" {
				t.Errorf("in force is version %s; %s", f.Current().Version, f.metric("sallyport_policy_refused"))
			}
		})
	}
}

// A token that was verified under one policy is verified anew under another that reads its issuer in another way.
func TestTokensOfOtherIssuers(t *testing.T) {
	f := newFixture(t)
	f.put("1", policyText)
	f.poll(t)
	a, b := f.token(t, "https://a"), f.token(t, "https://b")
	for _, token := range []string{a, b} {
		if _, kind := f.authenticate(t, token); kind != "" {
			t.Fatal(kind)
		}
	}
	const issuer = `- {url: "https://b", algorithms: [ES256], groupsClaim: groups}`
	for _, test := range []struct {
		name, now string
		kind      access.Kind
		groups    string
	}{
		{"no longer trusted", "", access.Unauthenticated, ""},
		{"trusted again", issuer, "", "observers"},
		{"other groups", `- {url: "https://b", algorithms: [ES256], groupsClaim: roles}`, "", "others"},
		{"another algorithm", `- {url: "https://b", algorithms: [RS256], groupsClaim: groups}`, access.Unauthenticated, ""},
		{"a condition", `- {url: "https://b", algorithms: [ES256], groupsClaim: groups, require: [{claim: sub, equals: [nobody]}]}`, access.Denied, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f.put(test.name, strings.Replace(policyText, issuer, test.now, 1))
			f.poll(t)
			groups, kind := f.authenticate(t, b)
			if kind != test.kind || strings.Join(groups, " ") != test.groups {
				t.Errorf("its token has groups %q, error %q, want %q, %q", groups, kind, test.groups, test.kind)
			}
			if _, kind := f.authenticate(t, a); kind != "" {
				t.Errorf("the other issuer's token is refused: %s", kind)
			}
		})
	}
}

// Keys that came from where an issuer's keys lay before are not used once the policy names another place.
func TestKeysOfAnotherPlace(t *testing.T) {
	f := newFixture(t)
	f.put("1", policyText)
	f.poll(t)
	stolen := f.token(t, "https://b")
	if _, kind := f.authenticate(t, stolen); kind != "" {
		t.Fatal(kind)
	}
	moved := strings.Replace(policyText, `{url: "https://b",`, `{url: "https://b", jwks: "https://b/new",`, 1)
	f.put("2", moved)
	f.keys = f.keys[:1] // the broker could not fetch the new ones yet
	f.poll(t)
	if _, kind := f.authenticate(t, stolen); kind != access.Unavailable {
		t.Errorf("a token of the old keys: %q", kind)
	}
	if _, kind := f.authenticate(t, f.token(t, "https://a")); kind != "" {
		t.Errorf("the other issuer: %s", kind)
	}
	f.put("3", strings.Replace(moved, "groupsClaim: groups", "groupsClaim: roles", 1)) // another generation brings nothing back
	f.poll(t)
	if _, kind := f.authenticate(t, stolen); kind != access.Unavailable {
		t.Errorf("two policies later: %q", kind)
	}
	f.keys = append(f.keys, f.newKey(t, "https://b"))
	f.poll(t)
	if _, kind := f.authenticate(t, f.token(t, "https://b")); kind != "" {
		t.Errorf("a token of the new keys: %s", kind)
	}
	if _, kind := f.authenticate(t, stolen); kind != access.Unauthenticated {
		t.Errorf("a token of the old keys, once the new are there: %q", kind)
	}
}

// Requests read the generation while polls change it; run with -race.
func TestConcurrentCurrent(t *testing.T) {
	f := newFixture(t)
	f.put("1", policyText)
	f.poll(t)
	token := f.token(t, "https://a")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				g := f.Current()
				if name := map[string]string{"1": "dev", "2": "prod"}[g.Version]; g.Policy.Clusters[0].Name != name {
					t.Errorf("version %s has cluster %s", g.Version, g.Policy.Clusters[0].Name)
				}
				if _, kind := f.authenticate(t, token); kind != "" {
					t.Error(kind)
				}
			}
		})
	}
	for i := range 40 {
		f.later.Add(int64(5 * time.Second))
		if i%2 == 0 {
			f.put("2", strings.NewReplacer("name: dev", "name: prod", "https://b", "https://c").Replace(policyText))
		} else {
			f.put("1", policyText)
		}
		f.poll(t)
	}
	cancel()
	wg.Wait()
	if len(f.changes) != 41 {
		t.Errorf("%d changes were told of, want 41", len(f.changes))
	}
}

// Run goes on after a failure, and says what follows a poll.
func TestRun(t *testing.T) {
	f := newFixture(t)
	f.away = access.Errorf(access.Unavailable, "the broker does not answer").Because(errors.New("connection refused"))
	ctx, cancel := context.WithCancel(t.Context())
	polls := 0
	f.Run(ctx, func() {
		switch polls++; polls {
		case 1:
			f.mu.Lock()
			f.away = nil
			f.mu.Unlock()
			f.put("1", policyText)
		case 2:
			cancel()
		}
	})
	if f.Current() == nil || polls != 2 {
		t.Errorf("after %d polls in force is %v", polls, f.Current())
	}
	for _, want := range []string{"connection refused", "can be had again"} {
		if !strings.Contains(f.log.String(), want) {
			t.Errorf("the log does not say %q: %s", want, f.log.String())
		}
	}
}
