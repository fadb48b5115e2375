package inforce_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/functions/inforce"
	"sallyport/functions/inforce/inforcetest"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/broker"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const (
	ci    = "https://ci.example.com"
	idp   = "https://idp.example.com"
	other = "https://other.example.com"
)

const policyText = `
apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- {url: "https://ci.example.com", algorithms: [ES256], groupsClaim: groups}
- {url: "https://idp.example.com", algorithms: [ES256], groupsClaim: groups}
clusters: [{name: dev, region: eu-west-1}]
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate", groups: [agents]}
- {name: maintain, role: "arn:aws:iam::111122223333:role/sallyport/maintain", group: "sallyport:maintain", groups: []}
sessions: {idle: 1h, longest: 90m, credential: 1h}
reviewers:
- {name: sre, issuer: "https://idp.example.com", audience: reviews, people: [Ana@example.com, ben@example.com], slack: {team: T0123456789, channel: C0123456789, users: {U0000000ANA: Ana@example.com}}}
- {name: dba, issuer: "https://other.example.com", audience: reviews, people: [chi@example.com, ana@example.com]}
- {name: leads, issuer: "https://idp.example.com", audience: lead-reviews, people: [dan@example.com]}
asks: {tier: maintain, reviewers: [sre], quorum: 1, expires: 15m}
rules:
- {name: read, effect: allow, groups: [agents], verbs: [get, list, watch], apiGroups: [""], resources: [pods]}
- {name: pods, effect: ask, groups: [agents], verbs: [delete, exec], apiGroups: [""], resources: [pods]}
- {name: harmless, effect: allow, groups: [agents], verbs: [create, patch], apiGroups: [apps], resources: [deployments], object: {none: [privileged]}}
- {name: harmful, effect: ask, groups: [agents], verbs: [create, patch], apiGroups: [apps], resources: [deployments], object: {any: [privileged]}}
`

type fixture struct {
	*inforce.Keeper
	bucket  inforcetest.Bucket
	issuers *inforcetest.Issuers
	log     bytes.Buffer
	now     time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{now: start}
	clock := func() time.Time { return f.now }
	f.issuers = inforcetest.NewIssuers(clock)
	f.bucket.Put("1", policyText)
	f.Keeper = inforce.New(inforce.Config{Policies: f.bucket.Follow, Every: time.Second, Keys: f.issuers.Keys, Now: clock, Log: slog.New(slog.NewTextHandler(&f.log, nil))})
	return f
}

func (f *fixture) generation(t *testing.T) *inforce.Generation {
	t.Helper()
	g, _, err := f.InForce(t.Context())
	if err != nil {
		t.Fatal(err, f.log.String())
	}
	return g
}

func TestLooksAreBounded(t *testing.T) {
	f := newFixture(t)
	for range 20 {
		f.generation(t)
	}
	if f.bucket.Looks != 1 {
		t.Errorf("twenty answers within a moment looked %d times", f.bucket.Looks)
	}
	f.now = start.Add(time.Second)
	if f.generation(t); f.bucket.Looks != 2 {
		t.Error("a second later nothing is looked for")
	}
	f.now = start.Add(-time.Hour) // a clock that was set back holds up nothing
	if f.generation(t); f.bucket.Looks != 3 {
		t.Error("nothing is looked for while the clock is behind")
	}
}

// The latest is what lies there now, however short ago it was looked for; and nothing where nobody can look.
func TestLatest(t *testing.T) {
	f := newFixture(t)
	f.generation(t)
	f.bucket.Put("2", policyText+"# another\n")
	g, err := f.Latest(t.Context())
	if err != nil || g.Version != "2" {
		t.Errorf("the latest is %+v, %v", g, err)
	}
	f.bucket.Err = access.Errorf(access.Unavailable, "S3 is away")
	if g, err := f.Latest(t.Context()); access.KindOf(err) != access.Unavailable || g != nil {
		t.Errorf("the latest while S3 is away is %+v, %v", g, err)
	}
}

func TestPolicyChanges(t *testing.T) {
	f := newFixture(t)
	first := f.generation(t)
	f.bucket.Put("2", policyText+"# another\n")
	f.now = f.now.Add(time.Second)
	second := f.generation(t)
	if second.Version != "2" || second.Policy.Digest == first.Policy.Digest {
		t.Errorf("in force is version %s", second.Version)
	}
	if !strings.Contains(f.log.String(), `msg="policy changed" old=`+first.Policy.Digest+" new="+second.Policy.Digest+" version=2") {
		t.Error("the change is not in the log:", f.log.String())
	}
	for n, bad := range []struct{ text, says string }{
		{strings.Replace(policyText, "audience:", "audiense:", 1), "audiense"},
		{policyText + "masking: {detectors: [{name: acme, pattern: '[0-9a-f]{32}'}]}\n", `masking: detectors: "acme": its pattern has no fixed text`},
	} {
		version := fmt.Sprintf("3.%d", n)
		f.bucket.Put(version, bad.text)
		for range 3 {
			f.now = f.now.Add(time.Second)
			g, refused, err := f.InForce(t.Context())
			if err != nil || g.Version != "2" || refused == nil || refused.Version != version || !strings.Contains(refused.Message, bad.says) {
				t.Errorf("in force is %+v, refused is %+v, %v", g, refused, err)
			}
		}
		if said := strings.Count(f.log.String(), "policy refused"); said != n+1 {
			t.Errorf("refused %d times in the log, want %d: %s", said, n+1, f.log.String())
		}
	}
	f.bucket.Put("4", policyText)
	f.now = f.now.Add(time.Second)
	if g, refused, _ := f.InForce(t.Context()); g.Version != "4" || refused != nil {
		t.Errorf("in force is %s, refused is %+v", g.Version, refused)
	}
}

func TestNoPolicyNoAnswer(t *testing.T) {
	f := newFixture(t)
	f.bucket.Err = access.Errorf(access.Unavailable, "no version loads").Because(errors.New("secret detail"))
	_, _, err := f.InForce(t.Context())
	if e := access.AsError(err); e.Kind != access.Unavailable || e.RetryAfter == 0 || strings.Contains(e.Message, "secret") {
		t.Errorf("got %+v", e)
	}
	f.bucket.Err = nil
	good := f.generation(t) // no waiting: there was nothing in force
	f.bucket.Err = access.Errorf(access.Unavailable, "S3 is away")
	f.now = f.now.Add(time.Hour)
	if f.generation(t) != good {
		t.Error("another policy came in force while S3 was away")
	}
}

// What was verified or fetched for an issuer as it was is not used for what it became.
func TestGenerations(t *testing.T) {
	for _, test := range []struct {
		name, from, to string
		agents         bool // are kept
		reviewers      bool
	}{
		{"other tiers", "[observers]", "[watchers]", true, true},
		{"another person", "ben@example.com", "bob@example.com", true, true},
		{"another cluster", "name: dev", "name: prod", true, true},
		{"another groups claim", "groupsClaim: groups", "groupsClaim: roles", false, false},
		{"another audience", "audience: sallyport", "audience: elsewhere", false, false},
		{"another reviewers' issuer", "https://other.", "https://another.", true, false},
		{"another reviewers' audience", "audience: lead-reviews", "audience: leads", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.generation(t)
			made := len(f.issuers.Made) // agents', and the one of reviewers that is not
			if made != 2 {
				t.Fatalf("%d sources of keys were made, want 2", made)
			}
			f.bucket.Put("2", strings.Replace(policyText, test.from, test.to, 1))
			f.now = f.now.Add(time.Second)
			if g := f.generation(t); g.Version != "2" {
				t.Fatal(f.log.String())
			}
			more := slices.Clone(f.issuers.Made[made:])
			want := 0
			if !test.agents {
				want++
			}
			if !test.reviewers {
				want++
			}
			if len(more) != want {
				t.Errorf("%d more sources of keys were made, want %d", len(more), want)
			}
		})
	}
}

// A reviewers' issuer that is away is nothing the proxies hear of.
func TestHeldAreTheAgentsKeys(t *testing.T) {
	f := newFixture(t)
	g := f.generation(t)
	all, err := g.Held(t.Context(), false, f.now)
	var urls []string
	for _, k := range all {
		urls = append(urls, k.Issuer)
	}
	if d := cmp.Diff([]string{ci, idp}, urls); err != nil || d != "" {
		t.Error(err, d)
	}
}

func (f *fixture) person(issuer, audience, email string, more map[string]any) string {
	claims := map[string]any{"email": email, "email_verified": true}
	for k, v := range more {
		claims[k] = v
	}
	return f.issuers.Token(issuer, audience, "subject-of-"+email, claims)
}

// A13: a reviewer is who the group's own issuer says has that address, for the group's own audience, and has seen it proven.
func TestReviewer(t *testing.T) {
	f := newFixture(t)
	for _, test := range []struct {
		name  string
		token string
		want  access.Kind // empty for a reviewer
	}{
		{"a reviewer", f.person(idp, "reviews", "Ana@Example.com", nil), ""},
		{"of another audience", f.person(idp, "lead-reviews", "dan@example.com", nil), ""},
		{"of an issuer that is no agents'", f.person(other, "reviews", "chi@example.com", nil), ""},
		{"a CI issuer that claims the address", f.person(ci, "reviews", "ana@example.com", nil), access.Unauthenticated},
		{"an agent's token of the reviewers' issuer", f.person(idp, "sallyport", "ana@example.com", nil), access.Unauthenticated},
		{"an agent's token of a CI issuer", f.person(ci, "sallyport", "ana@example.com", map[string]any{"groups": []string{"agents"}}), access.Unauthenticated},
		{"an audience of no group", f.person(other, "lead-reviews", "ana@example.com", nil), access.Unauthenticated},
		{"both audiences", f.issuers.Token(idp, "", "ana", map[string]any{"aud": []string{"reviews", "sallyport"}, "email": "ana@example.com", "email_verified": true}), access.Unauthenticated},
		{"not verified", f.person(idp, "reviews", "ana@example.com", map[string]any{"email_verified": false}), access.Denied},
		{"verified is not said", f.issuers.Token(idp, "reviews", "ana", map[string]any{"email": "ana@example.com"}), access.Denied},
		{"verified twice over", f.person(idp, "reviews", "ana@example.com", map[string]any{"email_verified": []bool{true}}), access.Denied},
		{"verified is a number", f.person(idp, "reviews", "ana@example.com", map[string]any{"email_verified": 1}), access.Denied},
		{"no address", f.issuers.Token(idp, "reviews", "ana", map[string]any{"email_verified": true}), access.Denied},
		{"an address that does not show", f.person(idp, "reviews", "ana\u200b@example.com", nil), access.Denied},
		{"expired", f.person(idp, "reviews", "ana@example.com", map[string]any{"exp": start.Unix() - 1}), access.Unauthenticated},
		{"nonsense", "a.b.c", access.Unauthenticated},
		{"nothing", "", access.Unauthenticated},
		{"a megabyte of dots", strings.Repeat(".", 1<<20), access.Unauthenticated},
		{"unsigned", unsigned(t, map[string]any{"iss": idp, "aud": "reviews", "sub": "ana", "email": "ana@example.com", "email_verified": true, "exp": start.Unix() + 600, "iat": start.Unix()}), access.Unauthenticated},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := f.generation(t).Reviewer(t.Context(), test.token)
			if access.KindOf(err) != test.want {
				t.Fatalf("got %+v, %v, want %q", got, err, test.want)
			}
			if test.want != "" && got != (access.Reviewer{}) {
				t.Errorf("who was refused is %+v", got)
			}
			if err != nil && len(test.token) > 40 && strings.Contains(err.Error(), test.token[20:40]) {
				t.Errorf("%q holds the token", err)
			}
			if test.want == "" && (got.Email != strings.ToLower(got.Email) || got.Subject == "" || got.Issuer == "" || got.Audience == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
	f.issuers.Away[idp] = true
	f.now = f.now.Add(2 * time.Minute) // verified tokens are verified again
	if _, err := f.generation(t).Reviewer(t.Context(), f.person(idp, "reviews", "ana@example.com", nil)); access.KindOf(err) != access.Unavailable {
		t.Errorf("got %v without the issuer's keys, want unavailable", err)
	}
	// A reviewer's token is no agent's.
	if _, err := f.generation(t).Verify(t.Context(), f.person(idp, "reviews", "ana@example.com", map[string]any{"groups": []string{"agents"}})); access.KindOf(err) != access.Unauthenticated {
		t.Errorf("a reviewer's token was verified as an agent's: %v", err)
	}
}

func unsigned(t *testing.T, claims map[string]any) string {
	t.Helper()
	b, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + base64.RawURLEncoding.EncodeToString(b) + "."
}

// A13: another issuer's word for the address of a reviewer does not answer for a group it does not prove.
func TestOneIssuersPersonIsNotAnothers(t *testing.T) {
	f := newFixture(t)
	g := f.generation(t)
	a := approval.New(approval.Ask{
		ID: "a", Principal: access.Principal{Issuer: ci, Subject: "bot", Agent: "bot"}, Now: start, Action: access.Action{Verb: "delete", Resource: "pods"},
		Decision: access.Decision{Effect: access.Ask, Obligations: access.Obligations{Reviewers: []string{"sre"}, Quorum: 1, Expires: time.Minute, Grant: access.Grant{Scope: access.ScopeRequest}}},
	})
	for _, test := range []struct {
		by   access.Reviewer
		want access.Kind
	}{
		{access.Reviewer{Email: "ana@example.com", Issuer: idp, Audience: "reviews", Channel: "page"}, ""},
		{access.Reviewer{Email: "ana@example.com", Slack: "T0123456789/U0000000ANA", Channel: "slack"}, ""},
		{access.Reviewer{Email: "ana@example.com", Issuer: other, Audience: "reviews", Channel: "page"}, access.Denied}, // a dba, and no sre
		{access.Reviewer{Email: "ana@example.com", Issuer: idp, Audience: "lead-reviews", Channel: "page"}, access.Denied},
		{access.Reviewer{Email: "ben@example.com", Slack: "T0123456789/U0000000ANA", Channel: "slack"}, access.Denied},
		{access.Reviewer{Email: "ana@example.com", Slack: "T9999999999/U0000000ANA", Channel: "slack"}, access.Denied},
		{access.Reviewer{Email: "dan@example.com", Issuer: idp, Audience: "lead-reviews", Channel: "page"}, access.Denied},
	} {
		c := a
		err := approval.Vote(&c, g.Roster(), access.Vote{By: test.by, Yes: true}, start)
		if access.KindOf(err) != test.want {
			t.Errorf("%+v: got %v, want %q", test.by, err, test.want)
		}
	}
}

func pod(name, image string) map[string]any {
	return map[string]any{"name": name, "image": image}
}

func deployment(privileged bool) []byte {
	c := pod("c", "i")
	if privileged {
		c["securityContext"] = map[string]any{"privileged": true}
	}
	b, _ := json.Marshal(map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
		"spec": map[string]any{"template": map[string]any{"spec": map[string]any{"containers": []any{c}}}}})
	return b
}

const deployments = "/apis/apps/v1/namespaces/shop/deployments"

// A15: everything that is decided and shown is computed from the bytes, and the live object decides only what it may.
func TestJudge(t *testing.T) {
	who := access.Principal{Issuer: ci, Subject: "bot", Agent: "bot", Groups: []string{"agents"}}
	const merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
	label := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	for _, test := range []struct {
		name     string
		raw      broker.Raw
		ev       broker.Evidence
		effect   access.Effect
		rule     string
		kubectl  string
		sentence string
		object   bool
		err      access.Kind
	}{
		{name: "a read", raw: broker.Raw{Method: "GET", Target: "/api/v1/namespaces/shop/pods"}, effect: access.Allow, rule: "read", kubectl: "kubectl -n shop get pods", sentence: "list every pod in namespace shop"},
		{name: "a delete", raw: broker.Raw{Method: "DELETE", Target: "/api/v1/namespaces/shop/pods/web-1"}, effect: access.Ask, rule: "pods", kubectl: "kubectl -n shop delete pods web-1", sentence: "delete pod web-1 in namespace shop", object: true},
		{name: "an exec", raw: broker.Raw{Method: "GET", Target: "/api/v1/namespaces/shop/pods/web-1/exec?command=sh&command=-c&command=id&stdout=1"}, effect: access.Ask, rule: "pods", kubectl: "kubectl -n shop exec web-1 -- sh -c id", object: true},
		{name: "no rule", raw: broker.Raw{Method: "DELETE", Target: "/api/v1/nodes/n"}, effect: access.Deny, rule: "default"},
		{name: "a create the rules look at", raw: broker.Raw{Method: "POST", Target: deployments, ContentType: "application/json", Body: deployment(false)}, effect: access.Allow, rule: "harmless", object: true},
		{name: "a privileged one", raw: broker.Raw{Method: "POST", Target: deployments, ContentType: "application/json", Body: deployment(true)}, effect: access.Ask, rule: "harmful", object: true},
		{name: "one that cannot be read", raw: broker.Raw{Method: "POST", Target: deployments, ContentType: "text/plain", Body: deployment(false)}, err: access.Media},
		{name: "a patch and its object", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, ev: broker.Evidence{Live: deployment(false)}, effect: access.Allow, rule: "harmless", object: true},
		{name: "a patch of a privileged object", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, ev: broker.Evidence{Live: deployment(true)}, effect: access.Ask, rule: "harmful", object: true},
		{name: "a patch of nobody knows what", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, effect: access.Ask, rule: "harmful"},
		{name: "a patch of nothing", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, ev: broker.Evidence{Missing: true}, err: access.NotFound},
		{name: "an apply of nothing is a create", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: apply, Body: bytes.Replace(deployment(false), []byte(`"uid":"u1"`), []byte(`"labels":{}`), 1)}, ev: broker.Evidence{Missing: true}, effect: access.Allow, rule: "harmless", object: true},
		{name: "an apply of nobody knows what", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: apply, Body: deployment(false)}, effect: access.Ask, rule: "harmful"},
		{name: "another live object", raw: broker.Raw{Method: "PATCH", Target: deployments + "/api", ContentType: merge, Body: label}, ev: broker.Evidence{Live: deployment(false)}, err: access.Invalid},
		{name: "one of another namespace", raw: broker.Raw{Method: "PATCH", Target: "/apis/apps/v1/namespaces/till/deployments/web", ContentType: merge, Body: label}, ev: broker.Evidence{Live: deployment(false)}, err: access.Invalid},
		{name: "there and missing", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, ev: broker.Evidence{Live: deployment(false), Missing: true}, err: access.Invalid},
		{name: "no JSON", raw: broker.Raw{Method: "PATCH", Target: deployments + "/web", ContentType: merge, Body: label}, ev: broker.Evidence{Live: []byte("{")}, err: access.Invalid},
		{name: "not canonical", raw: broker.Raw{Method: "DELETE", Target: "/api/v1/namespaces/shop//pods/web"}, err: access.Invalid},
		{name: "a body where none belongs", raw: broker.Raw{Method: "GET", Target: "/api/v1/namespaces/shop/pods", Body: label}, err: access.Invalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := newFixture(t).generation(t).Judge(who, "dev", test.raw, test.ev, start)
			if access.KindOf(err) != test.err {
				t.Fatalf("got %+v, %v, want error %q", r.Decision, err, test.err)
			}
			if test.err != "" {
				return
			}
			if r.Decision.Effect != test.effect || r.Decision.Rule != test.rule {
				t.Errorf("got %s by %s: %s", r.Decision.Effect, r.Decision.Rule, r.Decision.Message)
			}
			if test.kubectl != "" && r.Kubectl != test.kubectl || test.sentence != "" && r.Sentence != test.sentence {
				t.Errorf("it reads %q, %q", r.Kubectl, r.Sentence)
			}
			if (r.Object != nil) != test.object || r.Tier.Name != "operate" || len(r.Digest) != 64 || (r.Live != nil) != (len(test.ev.Live) > 0) {
				t.Errorf("got %+v", r)
			}
		})
	}
	g := newFixture(t).generation(t)
	raw := broker.Raw{Method: "DELETE", Target: "/api/v1/namespaces/shop/pods/web-1"}
	if _, err := g.Judge(who, "prod", raw, broker.Evidence{}, start); access.KindOf(err) != access.NotFound {
		t.Errorf("a cluster that is none: %v", err)
	}
	if _, err := g.Judge(access.Principal{Agent: "x"}, "dev", raw, broker.Evidence{}, start); access.KindOf(err) != access.Denied {
		t.Errorf("who has no tier: %v", err)
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		id := inforce.NewID()
		if len(id) != 26 || id != strings.ToLower(id) || seen[id] {
			t.Errorf("%q", id)
		}
		seen[id] = true
	}
}
