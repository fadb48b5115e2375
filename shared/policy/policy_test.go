package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

const good = `apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- url: https://ci.example.com
  algorithms: [RS256]
  owner: repository_owner
  run: [repository_id, run_id]
  require:
  - {claim: repository_owner_id, equals: [9919]}
  - {claim: ref, matches: '^refs/heads/main$'}
  groups:
  - group: agents
    when:
    - {claim: repository_id, equals: ["123"]}
clusters:
- name: dev
  region: eu-west-1
  hosts: [dev.gate.example.com]
tiers:
- name: observe
  role: arn:aws:iam::111122223333:role/sallyport/observe
  group: sallyport:observe
  groups: [observers]
- name: operate
  role: arn:aws:iam::111122223333:role/sallyport/operate
  group: sallyport:operate
  groups: [agents]
sessions: {idle: 2h, longest: 12h, credential: 30m}
`

func TestLoad(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	want := &policy.Policy{
		Digest:   p.Digest,
		Audience: "sallyport",
		Issuers: []access.Issuer{{
			URL: "https://ci.example.com", Audience: "sallyport", Algorithms: []string{"RS256"},
			Owner: "repository_owner", Run: []string{"repository_id", "run_id"},
			Require: []access.Condition{{Claim: "repository_owner_id", Equals: []string{"9919"}}, {Claim: "ref", Matches: "^refs/heads/main$"}},
			Groups:  []access.GroupRule{{Group: "agents", When: []access.Condition{{Claim: "repository_id", Equals: []string{"123"}}}}},
		}},
		Clusters: []access.Cluster{{Name: "dev", Region: "eu-west-1", Hosts: []string{"dev.gate.example.com"}}},
		Tiers: []access.Tier{
			{Name: "observe", Role: "arn:aws:iam::111122223333:role/sallyport/observe", Group: "sallyport:observe", Groups: []string{"observers"}},
			{Name: "operate", Role: "arn:aws:iam::111122223333:role/sallyport/operate", Group: "sallyport:operate", Groups: []string{"agents"}},
		},
		Sessions: policy.Sessions{Idle: 2 * time.Hour, Longest: 12 * time.Hour, Credential: 30 * time.Minute},
	}
	if d := cmp.Diff(want, p, cmpopts.IgnoreUnexported(policy.Policy{})); d != "" {
		t.Error(d)
	}
	if len(p.Digest) != 64 {
		t.Errorf("digest %q is not a hex SHA-256", p.Digest)
	}
}

// Each row changes one thing of the good policy, and is refused with the line and what to do.
func TestLoadRefuses(t *testing.T) {
	for _, test := range []struct{ name, old, new, line, says string }{
		{"unknown field", "audience: sallyport", "audiance: sallyport", "line 3", `unknown field "audiance"; did you mean audience?`},
		{"unknown field of a tier", "  group: sallyport:observe", "  grupo: sallyport:observe", "line 23", `did you mean group?`},
		{"unknown field of a condition", "claim: ref,", "claims: ref,", "line 11", `did you mean claim?`},
		{"duplicate key", "kind: Policy\n", "kind: Policy\nkind: Policy\n", "line 3", "already defined"},
		{"wrong kind", "kind: Policy", "kind: Role", "line 1", "sallyport/v1 and Policy"},
		{"no audience", "audience: sallyport\n", "", "", "audience is missing"},
		{"two documents", "apiVersion", "a: b\n---\napiVersion", "", "more than one document"},
		{"alias", "groups: [agents]", "groups: &a [agents]", "line 28", "anchors and aliases"},
		{"no algorithms", "algorithms: [RS256]", "algorithms: []", "line 6", "algorithms is missing"},
		{"symmetric algorithm", "[RS256]", "[HS256]", "line 6", `"HS256" is not one of`},
		{"alg none", "[RS256]", "[none]", "line 6", `"none" is not one of`},
		{"plain http", "https://ci.example.com", "http://ci.example.com", "line 5", "must begin with https"},
		{"run by jti", "run: [repository_id, run_id]", "run: [jti]", "line 8", "differs in every token"},
		{"unanchored pattern", "'^refs/heads/main$'", "refs/heads/main", "line 11", "is not anchored; write ^refs/heads/main$"},
		{"bad pattern", "'^refs/heads/main$'", "'^refs/(heads/main$'", "line 11", "missing closing )"},
		{"neither equals nor matches", "claim: ref, matches: '^refs/heads/main$'", "claim: ref", "line 11", "exactly one of equals and matches"},
		{"reserved group", "group: sallyport:observe", "group: system:masters", "line 23", "does not begin with system:"},
		{"tier without role", "  role: arn:aws:iam::111122223333:role/sallyport/observe\n", "", "line 21", "role is missing"},
		{"role of another name", "role/sallyport/observe", "role/sallyport/look", "line 22", "named like the tier"},
		{"role that is no ARN", "arn:aws:iam::111122223333:role/sallyport/observe", "observe", "line 22", "no IAM role ARN"},
		{"tier nobody has", "groups: [observers]", "groups: []", "line 24", "nobody would have it; give it groups, or name it as the tier of a rule that asks"},
		{"tier without the field", "  groups: [observers]\n", "", "line 21", "nobody would have it"},
		{"wrong mode", "kind: Policy", "kind: Policy\nmode: observ", "line 3", `mode: "observ" is neither enforce nor observe; did you mean observe?`},
		{"a word for a list", "algorithms: [RS256]", "algorithms: RS256", "line 6", "a list is wanted here, not a word (RS256); write [RS256]"},
		{"nothing in a list", "groups: [observers]", "groups: [~]", "line 24", "an item of this list is nothing"},
		{"two tiers, one group", "group: sallyport:operate", "group: sallyport:observe", "line 27", `is tier "observe"'s already`},
		{"host with port", "dev.gate.example.com", "dev.gate.example.com:443", "line 19", "without port"},
		{"cluster without region", "  region: eu-west-1\n", "", "line 17", "region is missing"},
		{"no duration", "idle: 2h", "idle: 2 hours", "line 29", `sessions: idle: "2 hours" is no duration`},
		{"credential past role chaining", "credential: 30m", "credential: 2h", "line 29", "AWS allows 15m0s to 1h0m0s"},
		{"idle shorter than credential", "idle: 2h", "idle: 10m", "line 29", "would end before it is renewed"},
		{"longest shorter than idle", "longest: 12h", "longest: 1h", "line 29", "shorter than idle"},
		{"a list for a mapping", "sessions: {idle: 2h, longest: 12h, credential: 30m}", "sessions: [1]", "line 29", "a mapping is wanted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(good, test.old, test.new, 1)
			if bad == good {
				t.Fatalf("%q does not stand in the good policy", test.old)
			}
			_, err := policy.Load("policy.yaml", []byte(bad))
			if access.KindOf(err) != access.Invalid {
				t.Fatalf("got %v, want an invalid policy", err)
			}
			for _, want := range []string{"policy policy.yaml: ", test.line, test.says} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
	for name, in := range map[string]string{"empty": "", "not YAML": "\t:", "a scalar": "hello", "binary": "\x00\x01"} {
		if _, err := policy.Load("policy.yaml", []byte(in)); access.KindOf(err) != access.Invalid {
			t.Errorf("%s: got %v, want an invalid policy", name, err)
		}
	}
}

func TestTier(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		groups []string
		want   string
	}{
		{[]string{"observers"}, "observe"},
		{[]string{"agents"}, "operate"},
		{[]string{"agents", "observers"}, "operate"}, // the most powerful, in either order
		{[]string{"observers", "agents"}, "operate"},
	} {
		tier, err := p.Tier(access.Principal{Agent: "a", Groups: test.groups})
		if err != nil || tier.Name != test.want {
			t.Errorf("%v: got %q, %v, want %q", test.groups, tier.Name, err, test.want)
		}
	}
	for _, groups := range [][]string{nil, {"Agents"}, {"agent"}, {"agentss"}} {
		if tier, err := p.Tier(access.Principal{Agent: "a", Groups: groups}); access.KindOf(err) != access.Denied {
			t.Errorf("%v: got %q, %v, want denied", groups, tier.Name, err)
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(good))
	f.Add([]byte(head + allRules))
	f.Add([]byte("apiVersion: sallyport/v1\nkind: Policy\nsessions: {idle: 1h}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := policy.Load("f", b)
		if err != nil && access.KindOf(err) != access.Invalid {
			t.Errorf("%v is not invalid", err)
		}
		if err == nil && (p.Audience == "" || len(p.Issuers) == 0 || len(p.Tiers) == 0) {
			t.Errorf("loaded without audience, issuers or tiers: %+v", p)
		}
	})
}
