package policy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// head is a policy up to its rules; a rule's first line is line 22.
const head = `apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- {url: "https://idp.example.com", algorithms: [ES256], groupsClaim: groups}
clusters:
- {name: dev, region: eu-west-1}
- {name: prod, region: eu-west-1}
tiers:
- {name: observe, role: "arn:aws:iam::111122223333:role/sallyport/observe", group: "sallyport:observe", groups: [observers]}
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate", groups: [agents]}
- {name: maintain, role: "arn:aws:iam::111122223333:role/sallyport/maintain", group: "sallyport:maintain"}
reviewers:
- name: sre
  issuer: https://idp.example.com
  audience: sallyport-reviews
  people: [ana@example.com, ben@example.com, chi@example.com]
- {name: leads, issuer: "https://idp.example.com", audience: sallyport-reviews, people: [dan@example.com, ana@example.com]}
asks:
  {tier: maintain, reviewers: [sre], quorum: 1, expires: 15m}
rules:
`

// allRules has every field of a rule.
const allRules = `- name: all
  effect: ask
  mode: observe
  reason: because
  groups: [agents]
  clusters: [dev]
  verbs: [create, update, patch]
  apiGroups: ["", apps]
  resources: [pods, deployments, "*/scale", pods/*]
  namespaces: [dev, stage]
  resourceNames: [web, '^web-.*$']
  dryRun: false
  object: {any: [privileged, host-path]}
  when: action.verb != "patch" || "web" in found.images
  tier: operate
  reviewers: [leads]
  quorum: 2
  expires: 1h
  grant: {scope: namespace, length: 30m}
  mask: off
  record: metadata
- {name: paths, effect: allow, groups: [agents], verbs: [get], nonResourceURLs: [/version, /healthz/*]}
- {name: commands, effect: allow, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods], argv: [[ls], [cat, '^/etc/[a-z]+$']]}
- {name: fields, effect: allow, groups: [agents], verbs: [patch], apiGroups: [apps], resources: [deployments], object: {none: [privileged], fields: [spec.replicas]}}
`

func load(t testing.TB, rules string) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", []byte(head+rules))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLoadRules(t *testing.T) {
	p := load(t, allRules)
	f := false
	want := []policy.Rule{
		{
			Name: "all", Effect: access.Ask, Observe: true, Reason: "because", Line: 22, Groups: []string{"agents"}, Clusters: []string{"dev"},
			Verbs: []string{"create", "update", "patch"}, APIGroups: []string{"", "apps"}, Resources: []string{"pods", "deployments", "*/scale", "pods/*"},
			Namespaces: []string{"dev", "stage"}, ResourceNames: []string{"web", "^web-.*$"}, DryRun: &f, Any: []access.Trait{access.Privileged, access.HostPath},
			When: `action.verb != "patch" || "web" in found.images`, Tier: "operate",
			Obligations: access.Obligations{Reviewers: []string{"leads"}, Quorum: 2, Expires: time.Hour, Grant: access.Grant{Scope: access.ScopeNamespace, Length: 30 * time.Minute}, Mask: "off", Record: "metadata"},
		},
		{Name: "paths", Effect: access.Allow, Line: 43, Groups: []string{"agents"}, Verbs: []string{"get"}, NonResourceURLs: []string{"/version", "/healthz/*"}, Obligations: access.Obligations{Mask: "on", Record: "full"}},
		{Name: "commands", Effect: access.Allow, Line: 44, Groups: []string{"agents"}, Verbs: []string{"exec"}, APIGroups: []string{""}, Resources: []string{"pods"}, Argv: [][]string{{"ls"}, {"cat", "^/etc/[a-z]+$"}}, Obligations: access.Obligations{Mask: "on", Record: "full"}},
		{Name: "fields", Effect: access.Allow, Line: 45, Groups: []string{"agents"}, Verbs: []string{"patch"}, APIGroups: []string{"apps"}, Resources: []string{"deployments"}, None: []access.Trait{access.Privileged}, Fields: []string{"spec.replicas"}, Obligations: access.Obligations{Mask: "on", Record: "full"}},
	}
	if d := cmp.Diff(want, p.Rules); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff([]policy.ReviewerGroup{
		{Name: "sre", Issuer: "https://idp.example.com", Audience: "sallyport-reviews", People: []string{"ana@example.com", "ben@example.com", "chi@example.com"}},
		{Name: "leads", Issuer: "https://idp.example.com", Audience: "sallyport-reviews", People: []string{"dan@example.com", "ana@example.com"}},
	}, p.Reviewers); d != "" {
		t.Error(d)
	}
	defaults := load(t, `- {name: a, effect: ask, verbs: [delete], apiGroups: [""], resources: [pods]}`).Rules[0]
	if want := (access.Obligations{Reviewers: []string{"sre"}, Quorum: 1, Expires: 15 * time.Minute, Grant: access.Grant{Scope: access.ScopeRequest}, Mask: "on", Record: "full"}); defaults.Tier != "maintain" || !cmp.Equal(defaults.Obligations, want) {
		t.Errorf("an ask that says nothing has tier %s and %+v", defaults.Tier, defaults.Obligations)
	}
}

// A tier without groups is nobody's base tier, however a principal's groups are called.
func TestTierByApproval(t *testing.T) {
	p := load(t, "")
	for _, groups := range [][]string{nil, {""}, {"maintain"}, {"sallyport:maintain"}} {
		if tier, err := p.Tier(access.Principal{Agent: "a", Groups: groups}); err == nil {
			t.Errorf("groups %q have tier %s", groups, tier.Name)
		}
	}
}

// Each row is a rule, or a change of the head, and what is said of it: line, field, and what to write.
func TestLoadRefusesRules(t *testing.T) {
	const (
		allow = `- {name: a, effect: allow, groups: [agents], verbs: [get], apiGroups: [""], resources: [pods]`
		ask   = `- {name: a, effect: ask, verbs: [delete], apiGroups: [""], resources: [pods]`
		deny  = `- {name: a, effect: deny, verbs: [create, update, patch], apiGroups: ["*"], resources: ["*"]`
		exec  = `- {name: a, effect: allow, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods]`
	)
	for _, test := range []struct{ name, rule, line, says string }{
		{"unknown field", "- name: a\n  efect: allow", "line 23", `unknown field "efect"; did you mean effect?`},
		{"unknown field of object", deny + ", object: {some: [privileged]}}", "line 22", `unknown field "some"; did you mean none?`},
		{"unknown field of grant", ask + ", grant: {scop: request}}", "line 22", `did you mean scope?`},
		{"a rule that is a word", "- allow", "line 22", "a mapping is wanted here"},
		{"rules that are a mapping", "  a: b", "line 22", "a list is wanted here, not a mapping"},
		{"no name", strings.Replace(allow, "name: a, ", "", 1) + "}", "line 22", "a rule without a name"},
		{"a name with spaces", strings.Replace(allow, "name: a", "name: my rule", 1) + "}", "line 22", "name: lower-case letters"},
		{"a reserved name", strings.Replace(allow, "name: a", "name: discovery", 1) + "}", "line 22", "what the gate calls its own decisions; write another, such as my-discovery"},
		{"a name twice", allow + "}\n" + deny + "}", "line 23", `rule "a": name: it stands at line 22 already`},
		{"no effect", `- {name: a, verbs: [get]}`, "line 22", "effect is missing; write allow, ask or deny"},
		{"unknown effect", strings.Replace(allow, "allow", "alow", 1) + "}", "line 22", `effect: "alow" is not one of allow, ask, deny; did you mean allow?`},
		{"unknown mode", allow + ", mode: dry}", "line 22", `mode: "dry" is neither enforce nor observe`},
		{"two lines of reason", "- name: a\n  effect: deny\n  reason: \"a\\nb\"", "line 24", "reason: one line of at most 300 characters"},

		{"an allow that reveals", strings.Replace(allow, "[get]", "[get, reveal]", 1) + "}", "line 22", `verbs: an allow does not say reveal`},
		{"an allow that reveals Secrets", `- {name: a, effect: allow, groups: [agents], verbs: [reveal], apiGroups: [""], resources: [secrets]}`, "line 22", `a person says yes to that, each time; write effect: ask`},
		{"a reveal of something else", strings.Replace(ask, "[delete]", "[delete, reveal]", 1) + "}", "line 22", `verbs: reveal is a verb on Secrets, which are not named here`},
		{"a reveal of other secrets", `- {name: a, effect: ask, verbs: [reveal], apiGroups: [example.com], resources: [secrets]}`, "line 22", `verbs: reveal is a verb on Secrets`},
		{"a reveal of a subresource", `- {name: a, effect: deny, verbs: [reveal], apiGroups: [""], resources: [secrets/status]}`, "line 22", `verbs: reveal is a verb on Secrets`},
		{"a reveal for a time", `- {name: a, effect: ask, verbs: [reveal], apiGroups: [""], resources: [secrets], grant: {scope: object, length: 30m}}`, "line 22", `grant: a yes to a reveal is for one key, once`},
		{"typo in a verb", strings.Replace(allow, "[get]", "[patc]", 1) + "}", "line 22", `rule "a": verbs: there is no verb "patc"; did you mean patch?`},
		{"a verb in capitals", strings.Replace(allow, "[get]", "[GET]", 1) + "}", "line 22", `did you mean get?`},
		{"an HTTP method", strings.Replace(allow, "[get]", "[options]", 1) + "}", "line 22", `there is no verb "options"; the verbs are get, list`},
		{"a word for verbs", strings.Replace(allow, "[get]", "get", 1) + "}", "line 22", `a list is wanted here, not a word (get); write [get]`},
		{"core", strings.Replace(allow, `[""]`, "[core]", 1) + "}", "line 22", `apiGroups: "core" is no API group; did you mean ""?`},
		{"a version", strings.Replace(allow, `[""]`, "[apps/v1]", 1) + "}", "line 22", `names a version; did you mean apps?`},
		{"typo in a group", strings.Replace(allow, `[""]`, "[rbac.authorisation.k8s.io]", 1) + "}", "line 22", `did you mean rbac.authorization.k8s.io?`},
		{"nothing for a group", strings.Replace(allow, `[""]`, "[~]", 1) + "}", "line 22", `write "" if you mean the core API group`},
		{"resources in capitals", strings.Replace(allow, "[pods]", "[Pods]", 1) + "}", "line 22", `did you mean pods?`},
		{"singular", strings.Replace(allow, "[pods]", "[networkpolicy]", 1) + "}", "line 22", `did you mean networkpolicies?`},
		{"typo in a resource of a deny", `- {name: a, effect: deny, apiGroups: [""], resources: [secretss]}`, "line 22", `resources: there is no resource "secretss"; did you mean secrets?`},
		{"every subresource", strings.Replace(allow, "[pods]", "['*/*']", 1) + "}", "line 22", `did you mean "*"?`},
		{"no resource", strings.Replace(allow, "[pods]", "['p*ds']", 1) + "}", "line 22", `is no resource; write it as RBAC does`},
		{"pods/exec", `- {name: a, effect: deny, verbs: [create, get], apiGroups: [""], resources: [pods/exec]}`, "line 22", "exec is a verb of its own here, however it is asked; write verbs: [exec], resources: [pods]"},
		{"pods/attach with every verb", `- {name: a, effect: deny, verbs: ["*"], resources: [pods/attach]}`, "line 22", "write verbs: [attach], resources: [pods]"},
		{"any portforward", `- {name: a, effect: deny, verbs: ["*"], apiGroups: ["*"], resources: ["*/portforward"]}`, "line 22", "write verbs: [portforward], resources: [pods]"},
		{"exec of deployments", `- {name: a, effect: ask, verbs: [exec], apiGroups: [apps], resources: [deployments]}`, "line 22", "exec is a verb on resource pods, which is not named here"},

		{"a namespace with a star", allow + `, namespaces: ["dev-*"]}`, "line 22", `namespaces: "dev-*" is no namespace; they are written out`},
		{"unknown cluster", allow + `, clusters: [prd]}`, "line 22", `clusters: there is no cluster "prd"; did you mean prod?`},
		{"a star among groups", strings.Replace(allow, "[agents]", `["*"]`, 1) + "}", "line 22", `groups: "*" is no usable group name`},
		{"unanchored name", allow + `, resourceNames: ["web-*"]}`, "line 22", `resourceNames: pattern "web-*" is not anchored; write '^web-.*$'`},
		{"half-anchored name", allow + `, resourceNames: ["^web-.*"]}`, "line 22", `write '^web-.*$', or '^\^web-\.\*$' for exactly these characters`},
		{"bad pattern", allow + `, resourceNames: ["^web-($"]}`, "line 22", "missing closing )"},
		{"unanchored word", exec + `, argv: [[cat, "*"]]}`, "line 22", `argv: pattern "*" is not anchored; write '^.*$'`},
		{"argv of a word", exec + `, argv: [ls]}`, "line 22", `a list is wanted here, not a word (ls); write [ls]`},
		{"an empty command", exec + `, argv: [[]]}`, "line 22", `argv: an empty command`},
		{"argv of a get", allow + `, argv: [[ls]]}`, "line 22", `argv: only exec has a command; write verbs: [exec] in a rule of its own`},
		{"argv of every verb", `- {name: a, effect: deny, verbs: ["*"], argv: [[ls]]}`, "line 22", `argv: only exec has a command`},
		{"empty namespaces", "- name: a\n  effect: deny\n  namespaces: []", "line 24", `namespaces: there is nothing in it; fill it in, or leave the field out`},
		{"nothing for namespaces", "- name: a\n  effect: deny\n  namespaces:", "line 24", `namespaces: there is nothing in it`},
		{"an empty when", "- name: a\n  effect: deny\n  when: ' '", "line 24", `when: there is nothing in it`},
		{"an empty any", deny + ", object: {any: []}}", "line 22", `there is nothing in it`},
		{"dryRun maybe", allow + ", dryRun: maybe}", "line 22", `true or false is wanted here, not a word (maybe)`},

		{"allow without groups", `- {name: a, effect: allow, verbs: [get], apiGroups: [""], resources: [pods]}`, "line 22", "groups is missing: an allow names whom it is for"},
		{"allow without verbs", `- {name: a, effect: allow, groups: [a], apiGroups: [""], resources: [pods]}`, "line 22", "verbs is missing"},
		{"allow without apiGroups", `- {name: a, effect: allow, groups: [a], verbs: [get], resources: [pods]}`, "line 22", "apiGroups is missing"},
		{"allow without resources", `- {name: a, effect: allow, groups: [a], verbs: [get], apiGroups: [""]}`, "line 22", "resources is missing"},
		{"allow every verb", strings.Replace(allow, "[get]", `["*"]`, 1) + "}", "line 22", `an allow does not say "*"; write out what is allowed`},
		{"allow every group", strings.Replace(allow, `[""]`, `["*"]`, 1) + "}", "line 22", `apiGroups: an allow does not say "*"`},
		{"allow every resource", `- {name: a, effect: allow, groups: [a], verbs: [get], apiGroups: [example.com, apps], resources: ["*"]}`, "line 22", `"apps" is; write the resources out`},
		{"allow all of k8s.io", `- {name: a, effect: allow, groups: [a], verbs: [get], apiGroups: [metrics.k8s.io], resources: ["*"]}`, "line 22", `resources: an allow may say "*" only in API groups that are not Kubernetes' own`},
		{"ask without apiGroups", `- {name: a, effect: ask, verbs: [delete], resources: [pods]}`, "line 22", "apiGroups is missing: an ask names them"},
		{"ask about every group", strings.Replace(ask, `[""]`, `["*"]`, 1) + "}", "line 22", `apiGroups: an ask does not say "*"`},
		{"ask about a path", `- {name: a, effect: ask, nonResourceURLs: [/metrics]}`, "line 22", "an ask is about resources"},
		{"allow metrics", `- {name: a, effect: allow, groups: [a], verbs: [get], nonResourceURLs: [/metrics]}`, "line 22", `an allow may open only what is /version`},
		{"allow what begins like health", `- {name: a, effect: allow, groups: [a], verbs: [get], nonResourceURLs: ["/healthz*"]}`, "line 22", `"/healthz*" is more than /healthz and what is below it; write /healthz/*`},
		{"argv that is a word", exec + `, argv: ls}`, "line 22", `a list of commands is wanted here, each a list of words such as [[ls, -l]], not a word (ls)`},
		{"allow every path", `- {name: a, effect: allow, groups: [a], verbs: [get], nonResourceURLs: ["*"]}`, "line 22", `an allow may open only`},
		{"a path with a star inside", `- {name: a, effect: deny, nonResourceURLs: ["/a*b"]}`, "line 22", `a path is wanted, such as /healthz`},
		{"paths and resources", allow + ", nonResourceURLs: [/version]}", "line 22", `a rule is about resources or about nonResourceURLs; make two of it`},

		{"object of a get", allow + ", object: {none: [privileged]}}", "line 22", `object: verb "get" carries no object; only create, update, patch do`},
		{"object of every verb", `- {name: a, effect: deny, apiGroups: [""], object: {any: [privileged]}}`, "line 22", `only some verbs carry an object; name them: verbs: [create, update, patch]`},
		{"unknown trait", deny + ", object: {any: [priviledged]}}", "line 22", `object: any: there is no trait "priviledged"; did you mean privileged?`},
		{"any of an allow", strings.Replace(allow, "[get]", "[create]", 1) + ", object: {any: [secret]}}", "line 22", `any belongs to an ask or a deny; an allow says none`},
		{"none of a deny", deny + ", object: {none: [secret]}}", "line 22", `none belongs to an allow`},
		{"fields of a deny", deny + ", object: {fields: [spec]}}", "line 22", `fields belongs to an allow`},
		{"fields of an update", strings.Replace(allow, "[get]", "[patch, update]", 1) + ", object: {fields: [spec.replicas]}}", "line 22", `fields is about patches`},
		{"a field with an index", strings.Replace(allow, "[get]", "[patch]", 1) + ", object: {fields: ['spec.a[0]']}}", "line 22", `is no path of a field; write one like spec.replicas`},

		{"CEL that does not parse", allow + ", when: 'action.verb =='}", "line 22", `rule "a": when: character`},
		{"CEL that does not type-check", allow + ", when: 'action.verb == 1'}", "line 22", "found no matching overload for '_==_'"},
		{"CEL with an unknown variable", allow + ", when: 'acton.verb == \"get\"'}", "line 22", "undeclared reference to 'acton' (did you mean 'action'?)"},
		{"CEL with an unknown field", allow + ", when: 'action.verbs == \"get\"'}", "line 22", "undefined field 'verbs'; did you mean verb?"},
		{"CEL that is no bool", allow + ", when: 'action.verb'}", "line 22", "it gives string, and a condition gives bool"},
		{"CEL that may be no bool", deny + ", when: 'object.spec.paused'}", "line 22", "it gives dyn, and a condition gives bool"},
		{"CEL with a bad pattern", allow + ", when: 'action.name.matches(\"(\")'}", "line 22", "character 21: invalid matches argument"},
		{"CEL that costs too much", deny + ", when: 'object.a.all(x, object.b.all(y, object.c.all(z, x == y && y == z)))'}", "line 22", "times the limit; take out loops inside loops"},
		{"CEL over the object of a get", allow + ", when: 'has(object.spec)'}", "line 22", `when: it looks at the object, and verb "get" carries no object`},
		{"CEL over what is found, of every verb", `- {name: a, effect: deny, when: 'found.images.size() > 0'}`, "line 22", `it looks at the object, and only some verbs carry an object`},

		{"tier of an allow", allow + ", tier: maintain}", "line 22", "tier: only a rule that asks has it; this one says effect: allow"},
		{"reviewers of a deny", deny + ", reviewers: [sre]}", "line 22", "reviewers: only a rule that asks has it"},
		{"grant of an allow", allow + ", grant: {scope: request}}", "line 22", "grant: only a rule that asks has it"},
		{"mask of a deny", deny + ", mask: off}", "line 22", "mask: what is denied has no answer"},
		{"no such tier", ask + ", tier: maintein}", "line 22", `tier: there is no tier "maintein"; did you mean maintain?`},
		{"no such reviewers", ask + ", reviewers: [sr]}", "line 22", `reviewers: there is no group "sr" under reviewers; did you mean sre?`},
		{"quorum of nobody", ask + ", quorum: 0}", "line 22", `quorum: 0; at least one person must say yes`},
		{"quorum of more than there are", ask + ", quorum: 4}", "line 22", `quorum: 4, but sre has 3 people`},
		{"quorum counts people once", ask + ", reviewers: [sre, leads], quorum: 5}", "line 22", `quorum: 5, but sre and leads has 4 people`},
		{"the policy's quorum of fewer", ask + ", reviewers: [leads], quorum: 3}", "line 22", `quorum: 3, but leads has 2 people`},
		{"quorum of words", ask + ", quorum: two}", "line 22", `a whole number is wanted here, not a word (two)`},
		{"a bad duration", ask + ", expires: 15 minutes}", "line 22", `expires: "15 minutes" is no duration; write one like 15m or 2h`},
		{"a number for a duration", ask + ", expires: 15}", "line 22", `expires: "15" is no duration`},
		{"a question for weeks", ask + ", expires: 800h}", "line 22", `expires: 800h is not within 1m0s and 24h0m0s`},
		{"a negative time", ask + ", expires: -5m}", "line 22", `expires: -5m is not within`},
		{"unknown scope", ask + ", grant: {scope: names}}", "line 22", `grant: scope "names" is not one of request, object, namespace`},
		{"a scope without a length", ask + ", grant: {scope: object}}", "line 22", `grant: scope object needs a length, such as length: 30m`},
		{"a length without a scope", ask + ", grant: {scope: request, length: 5m}}", "line 22", `has no length; leave it out`},
		{"a grant longer than a session", ask + ", grant: {scope: object, length: 13h}}", "line 22", `grant: length: 13h is not within 1m0s and 12h0m0s`},
		{"a reminder after the end", ask + ", expires: 5m, remind: 5m}", "line 22", `remind: 5m0s is not before the question expires, after 5m0s`},
		{"a reminder at once", ask + ", remind: 1s}", "line 22", `remind: 1s is not within 5s and 24h0m0s`},
		{"an escalation to nobody", ask + ", escalate: {after: 5m}}", "line 22", `escalate: reviewers is empty`},
		{"an escalation to a group that is not there", ask + ", escalate: {after: 5m, reviewers: [lead]}}", "line 22", `did you mean leads?`},
		{"an escalation after the end", ask + ", escalate: {after: 15m, reviewers: [leads]}}", "line 22", `escalate: after 15m0s is not before the question expires`},
		{"an escalation before the reminder", ask + ", remind: 6m, escalate: {after: 5m, reviewers: [leads]}}", "line 22", `is not after the reminder, which comes after 6m0s`},
		{"a link alone by another name", ask + ", links: only}", "line 22", `links: "only" is neither login nor alone`},
		{"links of an allow", allow + ", links: alone}", "line 22", "links: only a rule that asks has it"},
		{"unknown mask", allow + ", mask: maybe}", "line 22", `mask: "maybe" is neither on nor off`},
		{"unknown binary", exec + ",\n   binary: blok}", "line 23", `binary: "blok" is neither pass nor block; did you mean block?`},
		{"empty binary", exec + ", binary: }", "line 22", `binary: there is nothing in it`},
		{"binary of a deny", deny + ",\n   binary: block}", "line 23", `binary: what is denied has no answer to mask, block or record`},
		{"binary of no stream", allow + ", binary: block}", "line 22", `binary: it is about what comes out of exec, attach and port-forward`},
		{"binary of paths", `- {name: a, effect: allow, groups: [agents], verbs: [get], nonResourceURLs: [/version], binary: pass}`, "line 22", `none of which is among the verbs here`},
		{"binary of what nobody looks at", exec + ", mask: off, binary: block}", "line 22", `with mask: off nothing is; leave one of them out`},
		{"binary that leaves nothing", strings.Replace(exec, "[exec]", "[portforward]", 1) + ", binary: block}", "line 22", `leaves nothing of a port-forward, which is never looked at; write effect: deny`},
		{"unknown record", allow + ", record: meta}", "line 22", `record: "meta" is neither full nor metadata`},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := policy.Load("policy.yaml", []byte(head+test.rule))
			refused(t, err, test.line, test.says)
		})
	}
	const slackAt = "people: [dan@example.com, ana@example.com]"
	for _, test := range []struct{ name, old, new, line, says string }{
		{"reviewers without people", "people: [dan@example.com, ana@example.com]", "people: []", "line 18", `reviewers "leads": people is empty, so nobody could answer`},
		{"reviewers without issuer", `- {name: leads, issuer: "https://idp.example.com",`, `- {name: leads,`, "line 18", `reviewers "leads": issuer: "" is no URL`},
		{"reviewers of the gate's audience", "  audience: sallyport-reviews", "  audience: sallyport", "line 16", `audience "sallyport" is the gate's`},
		{"reviewers without audience", "  audience: sallyport-reviews\n", "", "line 14", "audience is missing"},
		{"reviewers named twice", "name: leads", "name: sre", "line 18", "named twice"},
		{"no e-mail address", "ben@example.com", "ben", "line 17", `"ben" is no e-mail address`},
		{"a person twice", "ben@example.com", "Ana@example.com", "line 17", `"Ana@example.com" is named twice`},
		{"a Slack channel by name", slackAt, slackAt + ", slack: {team: T123, channel: '#sre'}", "line 18", `channel "#sre": write the channel's id`},
		{"a Slack workspace by name", slackAt, slackAt + ", slack: {team: acme, channel: C123}", "line 18", `team "acme": write the workspace's id`},
		{"a Slack user who is nobody here", slackAt, slackAt + ", slack: {team: T123, channel: C123, users: {U123: eve@example.com}}", "line 18", `"eve@example.com", who is not among the group's people`},
		{"a Slack user by name", slackAt, slackAt + ", slack: {team: T123, channel: C123, users: {dan: dan@example.com}}", "line 18", `"dan" is no user id`},
		{"a person who is two Slack users", slackAt, slackAt + ", slack: {team: T123, channel: C123, users: {U123: dan@example.com, U124: Dan@example.com}}", "line 18", `has two user ids; one person is one user`},
		{"asks of no tier", "tier: maintain,", "tier: admin,", "line 20", `asks: tier: there is no tier "admin"; the tiers are observe, operate, maintain`},
		{"asks of nobody", "reviewers: [sre], quorum", "reviewers: [], quorum", "line 20", `asks: reviewers: empty`},
		{"asks of a group that is not there", "reviewers: [sre], quorum", "reviewers: [sr], quorum", "line 20", `did you mean sre?`},
		{"asks with a bad time", "expires: 15m", "expires: soon", "line 20", `asks: expires: "soon" is no duration`},
		{"a field asks does not have", "expires: 15m}", "expires: 15m, mask: on}", "line 20", `unknown field "mask"; the fields here are tier, reviewers, quorum, expires, remind, escalate, links, grant`},
		{"a tier nothing leads to", "tier: maintain, ", "", "line 12", `tier "maintain": it has no groups and no ask leads to it`},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(head, test.old, test.new, 1)
			if bad == head {
				t.Fatalf("%q does not stand in the policy", test.old)
			}
			_, err := policy.Load("policy.yaml", []byte(bad))
			refused(t, err, test.line, test.says)
		})
	}
	nobody := strings.Replace(strings.Replace(head, ", groups: [observers]", "", 1), ", groups: [agents]", "", 1)
	_, err := policy.Load("policy.yaml", []byte(nobody+"- {name: a, effect: ask, verbs: [get], apiGroups: [\"\"], tier: observe}\n- {name: b, effect: ask, verbs: [get], apiGroups: [\"\"], tier: operate}"))
	refused(t, err, "line 10", "none has groups")
	unanswered := strings.Replace(head, "reviewers: [sre], ", "", 1)
	_, err = policy.Load("policy.yaml", []byte(unanswered+ask+"}"))
	refused(t, err, "line 22", "it asks nobody; name a group of reviewers here or under asks")
}

func refused(t *testing.T, err error, line, says string) {
	t.Helper()
	if access.KindOf(err) != access.Invalid {
		t.Fatalf("got %v, want an invalid policy", err)
	}
	for _, want := range []string{"policy policy.yaml: " + line + ": ", says} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not say %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%q has several lines", err)
	}
}

// What asks says holds for every rule that does not say otherwise, and what would come too late for a shorter rule is left out.
func TestWaits(t *testing.T) {
	asks := strings.Replace(head, "expires: 15m}", "expires: 15m, remind: 4m, escalate: {after: 10m, reviewers: [leads]}, links: alone}", 1)
	p, err := policy.Load("policy.yaml", []byte(asks+"- {name: a, effect: ask, verbs: [get], apiGroups: [\"\"], resources: [pods]}\n"+
		"- {name: b, effect: ask, verbs: [get], apiGroups: [\"\"], resources: [pods], expires: 5m, links: login}\n"+
		"- {name: c, effect: ask, verbs: [get], apiGroups: [\"\"], resources: [pods], expires: 2m}\n"))
	if err != nil {
		t.Fatal(err)
	}
	type waits struct {
		Remind   time.Duration
		Escalate access.Escalate
		Links    string
	}
	want := []waits{{4 * time.Minute, access.Escalate{After: 10 * time.Minute, Reviewers: []string{"leads"}}, "alone"}, {4 * time.Minute, access.Escalate{}, "login"}, {0, access.Escalate{}, "alone"}}
	for i, r := range p.Rules {
		if d := cmp.Diff(want[i], waits{r.Obligations.Remind, r.Obligations.Escalate, r.Obligations.Links}); d != "" {
			t.Errorf("rule %s: %s", r.Name, d)
		}
	}
}
