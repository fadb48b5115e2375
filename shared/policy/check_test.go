package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

func TestCheckProblems(t *testing.T) {
	for _, test := range []struct {
		name, rules string
		want        []string // rule kind: part of the sentence
	}{
		{"nothing", get, nil},
		{"a deny hides an allow", get + `- {name: a, effect: deny, apiGroups: ["*"], resources: [pods, pods/log, nodes, deployments, "*/scale", widgets, namespaces]}`,
			[]string{`get shadowed: rule "a" (line 24) denies everything it is about`, `streams shadowed`}},
		{"a deny of everything", get + `- {name: a, effect: deny}`, []string{"get shadowed", "streams shadowed"}},
		{"an ask hides an allow", get + `- {name: a, effect: ask, verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods]}`, []string{`streams shadowed: rule "a" (line 24) asks about everything`}},
		{"a deny hides an ask", "- {name: b, effect: ask, apiGroups: [apps], resources: [deployments]}\n- {name: a, effect: deny, apiGroups: [apps]}", []string{"b shadowed"}},
		{"a deny of some of it", get + `- {name: a, effect: deny, apiGroups: ["*"], resources: [pods, pods/log]}`, []string{"streams shadowed"}},
		{"a deny in one namespace", get + `- {name: a, effect: deny, namespaces: [dev]}`, nil},
		{"a deny of one group", get + `- {name: a, effect: deny, groups: [observers]}`, nil},
		{"a deny under a condition", get + `- {name: a, effect: deny, when: now.getHours() > 18}`, nil},
		{"a deny that observes", get + `- {name: a, effect: deny, mode: observe}`, []string{"a observed: mode: enforce"}},
		{"a deny of paths", `- {name: a, effect: allow, groups: [agents], verbs: [get], nonResourceURLs: [/healthz]}` + "\n" + `- {name: b, effect: deny, nonResourceURLs: [/h*]}`, []string{"a shadowed"}},
		{"groups without a tier", strings.ReplaceAll(get, "agents", "oncall"), []string{"get no-tier: no tier has oncall", "streams no-tier"}},
	} {
		problems := load(t, test.rules).Check().Problems
		if len(problems) != len(test.want) {
			t.Errorf("%s: got %+v, want %q", test.name, problems, test.want)
			continue
		}
		for i, want := range test.want {
			head, says, _ := strings.Cut(want, ": ")
			if p := problems[i]; p.Rule+" "+p.Kind != head || !strings.Contains(p.Says, says) || p.Line < 22 {
				t.Errorf("%s: got %+v, want %q", test.name, p, want)
			}
		}
	}
	noClaim := strings.Replace(head, "groupsClaim: groups", `groups: [{group: agents, when: [{claim: a, equals: [b]}]}]`, 1)
	p, err := policy.Load("policy.yaml", []byte("mode: observe\n"+noClaim+strings.ReplaceAll(get, "agents", "observers")))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, x := range p.Check().Problems {
		got = append(got, x.Rule+" "+x.Kind)
	}
	if want := []string{" observed", "get unreachable", "streams unreachable"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOneWall(t *testing.T) {
	p, err := policy.Load("policy.yaml", []byte(strings.Replace(head, "groups: [agents]", "groups: [agents, bots]", 1)+allRules+`
- {name: whole-tier, effect: allow, groups: [bots, agents], verbs: [get], apiGroups: [""], resources: [pods]}
- {name: both-walls, effect: deny, verbs: [get], apiGroups: [""], resources: [secrets], namespaces: [prod]}
- {name: all-verbs, effect: deny, verbs: ["*"], apiGroups: [""], resources: [secrets], namespaces: [stage]}
- {name: reveal, effect: ask, verbs: [reveal], apiGroups: [""], resources: [secrets]}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := []policy.OneWall{
		{Rule: "all", Line: 22, Effect: access.Ask, By: []string{"groups", "resourceNames", "dryRun", "object", "when"}},
		{Rule: "paths", Line: 43, Effect: access.Allow, By: []string{"groups"}},
		{Rule: "commands", Line: 44, Effect: access.Allow, By: []string{"groups", "argv"}},
		{Rule: "fields", Line: 45, Effect: access.Allow, By: []string{"groups", "object"}},
		{Rule: "reveal", Line: 50, Effect: access.Ask, By: []string{"verbs"}},
	}
	if d := cmp.Diff(want, p.Check().OneWall); d != "" {
		t.Error(d)
	}
}

// Whoever reads a policy sees what it shows.
func TestUnmasked(t *testing.T) {
	p := load(t, get+`
- {name: bare, effect: allow, groups: [agents], verbs: [get, list], apiGroups: [""], resources: [nodes, events], mask: off}
- {name: asked, effect: ask, apiGroups: [apps], mask: off}
- {name: health, effect: allow, groups: [agents, observers], verbs: [get], nonResourceURLs: [/healthz/*], mask: off}
- {name: watched, effect: allow, mode: observe, groups: [agents], verbs: [get], apiGroups: [""], resources: [pods], mask: off}
- {name: masked, effect: allow, groups: [agents], verbs: [get], apiGroups: [""], resources: [services], mask: on}
masking:
  names: [PIN]
  exempt:
  - {tiers: [operate, maintain], apiGroups: [""], resources: [configmaps], path: data.EXAMPLE_TOKEN}
  - tiers: [observe]
    apiGroups: [""]
    resources: [secrets]
    path: data.ca\.crt
`)
	want := []policy.Unmasked{
		{Rule: "bare", Line: 25, Says: "answers to get, list on nodes, events, for group agents"},
		{Rule: "asked", Line: 26, Says: "answers to every verb on everything, for everybody"},
		{Rule: "health", Line: 27, Says: "answers to get on /healthz/*, for groups agents, observers"},
		{Line: 33, Says: "data.EXAMPLE_TOKEN of configmaps, for tiers operate, maintain"},
		{Line: 34, Says: `data.ca\.crt of secrets, for tier observe`},
	}
	if d := cmp.Diff(want, p.Check().Unmasked); d != "" {
		t.Error(d)
	}
	if got := load(t, get).Check().Unmasked; got == nil || len(got) > 0 {
		t.Errorf("a policy that shows nothing: %+v", got)
	}
}

func TestMatrix(t *testing.T) {
	p := load(t, `
- {name: read, effect: allow, groups: [observers, agents], verbs: [get, list], apiGroups: [""], resources: [pods, configmaps, events]}
- {name: write, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], namespaces: [dev]}
- {name: remove, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: [web]}
- {name: no-secrets, effect: deny, verbs: [get], apiGroups: [""], resources: [secrets]}
- {name: body, effect: deny, verbs: [create], apiGroups: ["*"], object: {any: [privileged]}}
- {name: patch, effect: allow, groups: [agents], verbs: [patch], apiGroups: [apps], resources: [deployments], object: {fields: [spec.replicas]}}
- {name: exec, effect: ask, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods]}
- {name: watched, effect: deny, mode: observe, verbs: [get]}
- {name: things, effect: allow, groups: [observers], verbs: [get], apiGroups: [example.com], resources: ["*"]}
- {name: health, effect: deny, groups: [agents], nonResourceURLs: [/healthz]}
`)
	m := p.Check().Matrix
	if d := cmp.Diff([]policy.Column{{Group: "observers", Tier: "observe"}, {Group: "agents", Tier: "operate"}}, m.Groups); d != "" {
		t.Error(d)
	}
	var got []string
	for _, r := range m.Rows {
		s := fmt.Sprintf("%s %s %s %s", r.APIGroup, strings.Join(r.Resources, ","), r.Verb, r.Namespace)
		for _, c := range r.Cells {
			s += " " + c.Effect
			if c.Rule != "" {
				s += "(" + c.Rule + ")"
			}
			if c.If {
				s += "*" + strings.Join(c.Conditions, ",")
			}
		}
		got = append(got, s)
	}
	want := []string{
		"- /healthz get * allow(discovery) deny(health)",
		" configmaps get * allow(read) allow(read)",
		" configmaps list * allow(read) allow(read)",
		" configmaps create dev - allow(write)*body",
		" configmaps delete * - ask(remove)*remove",
		" events get * allow(read) allow(read)",
		" events list * allow(read) allow(read)",
		" pods get * allow(read) allow(read)",
		" pods list * allow(read) allow(read)",
		" pods exec * - ask(exec)",
		" secrets get * deny(no-secrets) deny(no-secrets)",
		"apps deployments patch * - allow(patch)*patch",
		"example.com * get * allow(things) -",
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Whoever reads the report by machine gets the same bytes for the same policy, and lists that are never null.
func TestReportIsStable(t *testing.T) {
	p := shipped(t)
	first, err := json.Marshal(p.Check())
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if again, _ := json.Marshal(shipped(t).Check()); string(again) != string(first) {
			t.Fatal("the report of one policy differs from time to time")
		}
	}
	for _, policy := range []*policy.Policy{p, load(t, "")} {
		b, _ := json.Marshal(policy.Check())
		if strings.Contains(string(b), "null") {
			t.Errorf("a list is null: %.200s", b)
		}
	}
	for _, x := range p.Check().Problems {
		t.Errorf("the policy that ships has a problem: %+v", x)
	}
}
