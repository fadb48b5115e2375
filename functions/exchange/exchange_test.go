package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/functions/inforce/inforcetest"
	"sallyport/shared/access"
	"sallyport/shared/store/storetest"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fixture is the function with fakes for all that is outside. Tokens are real.
type fixture struct {
	*broker
	bucket  inforcetest.Bucket
	issuers *inforcetest.Issuers
	kept    *storetest.ApprovalsMemory
	log     bytes.Buffer
	fail    error // what roles fail with
	hang    bool  // roles are not heard of
	down    bool  // EKS

	mu      sync.Mutex
	assumed []assumption
}

type assumption struct {
	tier     access.Tier
	session  access.Session
	approval string
	lifetime time.Duration
}

const policyText = `
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers: [{url: "https://i", algorithms: [ES256], groupsClaim: groups}]
clusters: [{name: dev, region: eu-west-1}, {name: stage, region: eu-west-1}]
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate", groups: [agents]}
- {name: maintain, role: "arn:aws:iam::111122223333:role/sallyport/maintain", group: "sallyport:maintain", groups: []}
sessions: {idle: 1h, longest: 90m, credential: 1h}
reviewers: [{name: sre, issuer: "https://i", audience: reviews, people: [ana@example.com, ben@example.com]}]
asks: {tier: maintain, reviewers: [sre], quorum: 1, expires: 15m, grant: {scope: namespace, length: 1h}}
rules:
- {name: change, effect: ask, groups: [agents], verbs: [delete, patch], apiGroups: [apps], resources: [deployments]}
- {name: into, effect: ask, tier: maintain, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods]}
`

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{kept: storetest.NewApprovals()}
	clock := func() time.Time { return f.now() }
	f.issuers = inforcetest.NewIssuers(func() time.Time { return now })
	log := slog.New(slog.NewTextHandler(&f.log, nil))
	f.broker = &broker{
		masks:    &maskKeys{read: func(context.Context) (string, error) { return `{"key":"` + strings.Repeat("k", 64) + `"}`, nil }},
		keeper:   inforce.New(inforce.Config{Policies: f.bucket.Follow, Every: lookEvery, Keys: f.issuers.Keys, Now: clock, Log: log}),
		sessions: storetest.NewMemory(), approvals: f.kept, roles: f, clusters: f, now: func() time.Time { return now }, log: log,
	}
	f.bucket.Put("1", policyText)
	return f
}

// token is a token: "good:<agent>" is in the agents' group, "observer:<agent>" in the observers', "nobody:<agent>" in none,
// "away:<agent>" is of an issuer whose keys cannot be had. Everything else is itself.
func (f *fixture) token(spec string) string {
	kind, agent, _ := strings.Cut(spec, ":")
	switch kind {
	case "good":
		return f.issuers.Token("https://i", "sallyport", agent, map[string]any{"groups": []string{"agents"}})
	case "observer":
		return f.issuers.Token("https://i", "sallyport", agent, map[string]any{"groups": []string{"observers"}})
	case "nobody":
		return f.issuers.Token("https://i", "sallyport", agent, nil)
	case "away":
		f.issuers.Away["https://i"] = true
		return f.issuers.Token("https://i", "sallyport", agent, nil)
	}
	return spec
}

// digest is the digest of the policy in force.
func (f *fixture) digest(t *testing.T) string {
	t.Helper()
	g, _, err := f.keeper.InForce(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return g.Policy.Digest
}

func (f *fixture) Assume(ctx context.Context, tier access.Tier, s access.Session, approval string, lifetime time.Duration) (access.Credential, error) {
	if f.hang {
		<-ctx.Done()
		return access.Credential{}, access.Errorf(access.Unavailable, "STS does not answer").Because(ctx.Err())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return access.Credential{}, f.fail
	}
	f.assumed = append(f.assumed, assumption{tier, s, approval, lifetime})
	return access.Credential{AccessKeyID: "ASIAKEYID", SecretAccessKey: "hushhush", SessionToken: "sessiontoken", Expires: now.Add(lifetime)}, nil
}

func (f *fixture) Endpoint(_ context.Context, c access.Cluster) (access.Endpoint, error) {
	if f.down {
		return access.Endpoint{}, access.Errorf(access.Unavailable, "EKS does not answer").After(2 * time.Second)
	}
	return access.Endpoint{URL: "https://" + c.Name + ".eks.example.com", CA: []byte("PEM")}, nil
}

func (f *fixture) ask(t *testing.T, token, cluster string) wire.Answer {
	t.Helper()
	a, err := f.handle(context.Background(), wire.Request{Exchange: &wire.Exchange{GrantType: wire.GrantType, SubjectToken: f.token(token), SubjectTokenType: wire.SubjectTokenType, Audience: cluster}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// Every sample event is one the function answers without an error.
func TestSampleEvents(t *testing.T) {
	files, err := filepath.Glob("../../events/exchange/*.json")
	if err != nil || len(files) < 2 {
		t.Fatalf("found %v, %v", files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f := newFixture(t)
		b = bytes.ReplaceAll(b, []byte("good:agent"), []byte(f.token("good:agent")))
		var req wire.Request
		dec := json.NewDecoder(bytes.NewReader(b))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&req); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if r := req.Redeem; r != nil {
			f.approved(t, r.Approval, "good:agent", r.Raw, r.Evidence, once)
		}
		if a, err := f.handle(context.Background(), req); err != nil || a.Error != nil {
			t.Errorf("%s: %+v, %v", name, a.Error, err)
		}
	}
}

func TestExchange(t *testing.T) {
	f := newFixture(t)
	a := f.ask(t, "good:bot", "dev")
	if a.Error != nil {
		t.Fatal(a.Error)
	}
	want := &wire.Token{
		IssuedTokenType: wire.CredentialsType, TokenType: "N_A", ExpiresIn: 3600,
		Credentials: wire.Credentials{AccessKeyID: "ASIAKEYID", SecretAccessKey: "hushhush", SessionToken: "sessiontoken", Expiration: now.Add(time.Hour)},
		Session: access.Session{
			ID: a.Token.Session.ID, Cluster: "dev", Tier: "operate", Name: a.Token.Session.Name, Policy: f.digest(t), Started: now, Seen: now, Ends: now.Add(90 * time.Minute),
			Principal: access.Principal{Issuer: "https://i", Subject: "bot", Agent: "bot", Groups: []string{"agents"}},
		},
		Cluster: wire.Cluster{Name: "dev", Region: "eu-west-1", Endpoint: "https://dev.eks.example.com", CA: []byte("PEM")},
		MaskKey: a.Token.MaskKey, // TestMaskKeys
	}
	if d := cmp.Diff(want, a.Token); d != "" {
		t.Error(d)
	}
	if len(a.Token.Session.ID) != 26 || !strings.HasPrefix(a.Token.Session.Name, "bot-") {
		t.Errorf("session %q is named %q", a.Token.Session.ID, a.Token.Session.Name)
	}
	// The same run joins, another agent does not, and the credential is asked for no longer than the session lasts.
	f.now = func() time.Time { return now.Add(50 * time.Minute) }
	again := f.ask(t, "good:bot", "dev")
	if again.Token.Session.ID != a.Token.Session.ID {
		t.Error("the same run opened a second session")
	}
	if got := f.assumed[1].lifetime; got != 40*time.Minute {
		t.Errorf("asked for %v of credential in a session that ends in 40 minutes", got)
	}
	if other := f.ask(t, "good:other", "dev"); other.Token.Session.ID == a.Token.Session.ID || other.Token.Session.Name == a.Token.Session.Name {
		t.Error("two agents share a session or a name")
	}
	if got := f.ask(t, "observer:o", "dev").Token.Session.Tier; got != "observe" {
		t.Errorf("an observer got tier %q", got)
	}
}

func TestRefusals(t *testing.T) {
	for _, test := range []struct {
		name           string
		token, cluster string
		change         func(*fixture)
		kind           access.Kind
		code           string
		retry          int64
	}{
		{"a bad token", "bad", "dev", nil, access.Unauthenticated, "invalid_grant", 0},
		{"no token", "", "dev", nil, access.Unauthenticated, "invalid_grant", 0},
		{"no tier", "nobody:x", "dev", nil, access.Denied, "access_denied", 0},
		{"unknown cluster", "good:bot", "prod", nil, access.NotFound, "invalid_target", 0},
		{"no cluster", "good:bot", "", nil, access.NotFound, "invalid_target", 0},
		{"the issuer is away", "away:bot", "dev", nil, access.Unavailable, "temporarily_unavailable", 5},
		{"STS is away", "good:bot", "dev", func(f *fixture) { f.fail = access.Errorf(access.Unavailable, "no").After(2 * time.Second) }, access.Unavailable, "temporarily_unavailable", 2},
		{"EKS is away", "good:bot", "dev", func(f *fixture) { f.down = true }, access.Unavailable, "temporarily_unavailable", 2},
		{"a fault", "good:bot", "dev", func(f *fixture) { f.fail = errors.New("secret detail") }, access.Internal, "server_error", 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			if test.change != nil {
				test.change(f)
			}
			a := f.ask(t, test.token, test.cluster)
			if a.Error == nil || a.Token != nil {
				t.Fatalf("got %+v, want a refusal", a)
			}
			if a.Error.Kind != test.kind || a.Error.Code != test.code || a.Error.RetryAfter != test.retry || a.Error.Description == "" {
				t.Errorf("got %+v", a.Error)
			}
			if strings.Contains(a.Error.Description, "secret detail") {
				t.Errorf("%q shows a cause", a.Error.Description)
			}
			if a.Error.Err().Kind != test.kind {
				t.Errorf("the proxy would read kind %q", a.Error.Err().Kind)
			}
			if len(f.assumed) != 0 {
				t.Error("a role was assumed for a refused exchange")
			}
		})
	}
}

func TestMalformedRequests(t *testing.T) {
	good := wire.Exchange{GrantType: wire.GrantType, SubjectToken: "good:bot", SubjectTokenType: wire.SubjectTokenType, Audience: "dev"}
	with := func(change func(*wire.Exchange)) wire.Request {
		e := good
		change(&e)
		return wire.Request{Exchange: &e}
	}
	for name, req := range map[string]wire.Request{
		"empty":              {},
		"both":               {Exchange: &good, Keys: &wire.Keys{}},
		"keys and redeem":    {Redeem: &wire.Redeem{}, Keys: &wire.Keys{}},
		"all":                {Exchange: &good, Redeem: &wire.Redeem{}, Keys: &wire.Keys{}},
		"grant type":         with(func(e *wire.Exchange) { e.GrantType = "password" }),
		"subject token type": with(func(e *wire.Exchange) { e.SubjectTokenType = "" }),
		"requested type":     with(func(e *wire.Exchange) { e.RequestedTokenType = "urn:ietf:params:oauth:token-type:access_token" }),
	} {
		a, err := newFixture(t).handle(context.Background(), req)
		if err != nil || a.Error == nil || a.Error.Kind != access.Invalid {
			t.Errorf("%s: got %+v, %v, want it refused as invalid", name, a, err)
		}
	}
}

func TestKeys(t *testing.T) {
	f := newFixture(t)
	poll := func(fresh bool) wire.Answer {
		t.Helper()
		a, err := f.handle(context.Background(), wire.Request{Keys: &wire.Keys{Fresh: fresh}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	a := poll(false)
	if a.Keys == nil || len(a.Keys.Issuers) != 1 || a.Keys.Issuers[0].Issuer != "https://i" {
		t.Fatalf("got %+v", a)
	}
	if d := cmp.Diff(wire.Policy{Digest: f.digest(t), Version: "1"}, a.Keys.Policy); d != "" {
		t.Error(d)
	}
	// However many proxies poll, the issuers are asked now and then; who met a key it does not know gets fresh ones.
	for range 10 {
		poll(false)
	}
	if f.issuers.Fetched != 1 {
		t.Errorf("eleven polls asked the issuers %d times", f.issuers.Fetched)
	}
	if poll(true); f.issuers.Fetched != 2 {
		t.Error("fresh keys were asked for, and old ones given")
	}
	f.now = func() time.Time { return now.Add(30 * time.Second) }
	if poll(false); f.issuers.Fetched != 3 {
		t.Error("the issuers are not asked again when it is time")
	}
	// One issuer that is away keeps nobody else's agents out, and is asked again sooner.
	f.issuers.Err = access.Errorf(access.Unavailable, "one issuer is away")
	if a := poll(true); a.Keys == nil || len(a.Keys.Issuers) != 1 {
		t.Errorf("got %+v: the keys that are held were kept back", a)
	}
	f.now = func() time.Time { return now.Add(45 * time.Second) }
	if poll(false); f.issuers.Fetched != 5 {
		t.Errorf("the issuers were asked %d times, want 5", f.issuers.Fetched)
	}
}

func TestNothingSecretIsLogged(t *testing.T) {
	f := newFixture(t)
	f.ask(t, "good:bot", "dev")
	f.ask(t, "verysecrettoken", "dev")
	_, signature, _ := strings.Cut(f.token("good:bot"), ".")
	for _, secret := range []string{"hushhush", "sessiontoken", signature[:20], "verysecrettoken", "ASIAKEYID"} {
		if strings.Contains(f.log.String(), secret) {
			t.Errorf("%q is in the log: %s", secret, f.log.String())
		}
	}
	if !regexp.MustCompile(`token_sha256=[0-9a-f]{64} agent=bot`).MatchString(f.log.String()) {
		t.Error("the log does not name the token by its SHA-256")
	}
}
