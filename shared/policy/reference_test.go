package policy_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// linear says by a plain loop over the rules, as written, which effect the lists alone come to. It knows nothing of bit
// sets, caches or orders: it is what Match is held against, and what its speed is measured by.
func linear(p *policy.Policy, r policy.Request) access.Effect {
	effect := access.Effect("")
	for i := range p.Rules {
		x := &p.Rules[i]
		if x.Observe || !listsMatch(x, r) {
			continue
		}
		switch {
		case x.Effect == access.Deny:
			return access.Deny
		case x.Effect == access.Ask, effect == "":
			effect = x.Effect
		}
	}
	if effect == "" {
		effect = access.Deny
	}
	return effect
}

func in(list []string, s string) bool { return slices.Contains(list, s) }

func listsMatch(x *policy.Rule, r policy.Request) bool {
	a, strict := r.Action, x.Effect != access.Allow
	if len(x.Groups) > 0 && !slices.ContainsFunc(x.Groups, func(g string) bool { return in(r.Principal.Groups, g) }) ||
		len(x.Clusters) > 0 && !in(x.Clusters, r.Cluster) ||
		len(x.Verbs) > 0 && !in(x.Verbs, a.Verb) && !in(x.Verbs, "*") ||
		len(x.APIGroups) > 0 && !in(x.APIGroups, a.Group) && !in(x.APIGroups, "*") ||
		x.DryRun != nil && *x.DryRun != a.DryRun {
		return false
	}
	if len(x.Resources) > 0 && !slices.ContainsFunc(x.Resources, func(s string) bool {
		if a.Upgrade {
			return s == "*" || s == a.Resource || strict && (s == a.Resource+"/*" || s == a.Resource+"/"+a.Verb || s == "*/"+a.Verb)
		}
		full := a.Resource
		if a.Subresource != "" {
			full += "/" + a.Subresource
		}
		return s == "*" || s == full || a.Subresource != "" && (s == "*/"+a.Subresource || s == a.Resource+"/*")
	}) {
		return false
	}
	collection := a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection"
	global := a.Group == "" && (a.Resource == "nodes" || a.Resource == "namespaces")
	everywhere := strict && collection && a.Namespace == "" && !global
	if len(x.Namespaces) > 0 && !in(x.Namespaces, a.Namespace) && !everywhere {
		return false
	}
	if len(x.ResourceNames) > 0 {
		if a.Name == "" && !strict {
			return false
		}
		if a.Name != "" && !matchesOne(x.ResourceNames, a.Name) {
			return false
		}
	}
	if len(x.Argv) > 0 && !slices.ContainsFunc(x.Argv, func(command []string) bool {
		if a.Verb != "exec" || len(command) != len(a.Argv) {
			return false // another verb, or another number of words
		}
		for i, w := range command {
			if !matchesOne([]string{w}, a.Argv[i]) {
				return false
			}
		}
		return true
	}) {
		return false
	}
	return true
}

var compiledOnce = map[string]*regexp.Regexp{}

func matchesOne(list []string, s string) bool {
	for _, n := range list {
		if n == s {
			return true
		}
		if strings.HasPrefix(n, "^") && strings.HasSuffix(n, "$") {
			if compiledOnce[n] == nil {
				compiledOnce[n] = regexp.MustCompile(`\A(?:` + n + `)\z`)
			}
			if compiledOnce[n].MatchString(s) {
				return true
			}
		}
	}
	return false
}

// A dice makes rules and requests from few words, so that they meet often.
type dice struct{ *rand.Rand }

func (d dice) one(words ...string) string { return words[d.IntN(len(words))] }

func (d dice) some(words ...string) string {
	var out []string
	for _, w := range words {
		if d.IntN(3) == 0 {
			out = append(out, fmt.Sprintf("%q", w))
		}
	}
	if len(out) == 0 {
		out = []string{fmt.Sprintf("%q", d.one(words...))}
	}
	return "[" + strings.Join(out, ", ") + "]"
}

// rule makes a rule of an effect that loads.
func (d dice) rule(name, effect string, conditions bool) string {
	maybe := func(s string) string {
		if d.IntN(3) == 0 {
			return ", " + s
		}
		return ""
	}
	s := fmt.Sprintf("- {name: %s, effect: %s", name, effect)
	groups := "groups: " + d.some("agents", "observers", "others")
	apis := "apiGroups: " + d.some("", "apps", "example.com")
	resources := "resources: " + d.some("pods", "pods/log", "pods/*", "*/scale", "deployments", "nodes", "widgets")
	if conditions && d.IntN(2) == 0 {
		s += ", verbs: " + d.some("create", "update", "patch")
		object := "object: {any: " + d.some("privileged", "secret") + "}"
		if effect == "allow" {
			object = "object: {none: " + d.some("privileged", "secret") + "}"
		}
		s += maybe(object) + maybe("when: 'object.metadata.name == \"web\"'") + maybe("resourceNames: "+d.some("web", "^web-[0-9]$"))
	} else {
		switch d.IntN(4) {
		case 0:
			s += ", verbs: [exec]" + maybe("argv: [["+d.one("ls", "id")+"], [cat, '^/.*$']]")
			resources = "resources: [pods]"
		case 1:
			if effect != "allow" {
				s += `, verbs: ["*"]`
				break
			}
			fallthrough
		default:
			s += ", verbs: " + d.some("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
		}
		if conditions {
			s += maybe("when: 'action.namespace == \"dev\"'") + maybe("when: 'action.name == \"web\"'")
			if strings.Count(s, "when:") > 1 {
				s = s[:strings.LastIndex(s, ", when:")]
			}
		}
		s += maybe("resourceNames: " + d.some("web", "^web-[0-9]$"))
	}
	switch effect {
	case "allow":
		s += ", " + groups + ", " + apis + ", " + resources
	case "ask":
		s += maybe(groups) + ", " + apis + maybe(resources) + maybe("quorum: 2")
	default:
		s += maybe(groups) + maybe(d.one(apis, `apiGroups: ["*"]`)) + maybe(d.one(resources, `resources: ["*"]`))
	}
	return s + maybe("namespaces: "+d.some("dev", "prod")) + maybe("clusters: "+d.some("dev", "prod")) + maybe("dryRun: "+d.one("true", "false")) + "}\n"
}

func (d dice) rules(n int, conditions bool) []string {
	var out []string
	for i := range n {
		out = append(out, d.rule(fmt.Sprintf("r%d", i), d.one("allow", "allow", "ask", "deny"), conditions))
	}
	return out
}

func (d dice) request() policy.Request {
	verb := d.one("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "exec", "exec", "frob")
	group, resource, sub := d.one("", "apps", "example.com", "evil.io"), d.one("pods", "pods", "deployments", "nodes", "widgets"), d.one("", "", "log", "scale", "status")
	if verb == "exec" {
		group, resource, sub = "", "pods", "exec"
	}
	a := access.Action{Verb: verb, Group: group, Resource: resource, Subresource: sub, Namespace: d.one("dev", "prod", "stage", ""), Name: d.one("web", "web-1", "db"), DryRun: d.IntN(4) == 0, Upgrade: verb == "exec"}
	if verb == "exec" {
		a.Argv = strings.Fields(d.one("", "ls", "id", "cat /etc", "cat x"))
	}
	if verb == "list" || verb == "watch" || verb == "deletecollection" || verb == "create" {
		a.Name = ""
	}
	r := request(d.one("agents", "observers", "others"), a)
	r.Tier, r.Cluster = "operate", d.one("dev", "prod")
	if d.IntN(3) == 0 {
		r.Principal.Groups = append(r.Principal.Groups, "observers")
	}
	return r
}

func (d dice) object() *access.Object {
	if d.IntN(4) == 0 {
		return nil
	}
	o := &access.Object{Value: map[string]any{"metadata": map[string]any{"name": d.one("web", "web-1", "db")}}, Partial: d.IntN(5) == 0}
	for _, t := range []access.Trait{access.Privileged, access.SecretRef} {
		switch d.IntN(4) {
		case 0:
			o.Traits = append(o.Traits, t)
		case 1:
			o.Unsure = append(o.Unsure, t)
		}
	}
	return o
}

// Bit sets say what a plain loop over the rules says, and so do explanations.
func TestMatchIsALoopOverTheRules(t *testing.T) {
	for seed := range uint64(60) {
		d := dice{rand.New(rand.NewPCG(seed, 1))}
		n := 1 + d.IntN(140)
		if seed == 0 {
			n = 1100 // more than a Match has room for itself
		}
		rules := d.rules(n, false)
		p := load(t, strings.Join(rules, ""))
		for range 200 {
			r := d.request()
			if r.Action.Verb == "create" {
				continue // its name is in the object, which a loop over lists does not see
			}
			m := p.Match(r)
			got := m.Decide(nil)
			if want := linear(p, r); got.Effect != want {
				t.Fatalf("seed %d: got %s by %s, a loop says %s, of %+v\n%s", seed, got.Effect, got.Rule, want, r.Action, strings.Join(rules, ""))
			}
			var explained, looped []string
			for _, x := range m.Explain(nil) {
				if x.Matches {
					explained = append(explained, x.Rule)
				}
			}
			for i := range p.Rules {
				if listsMatch(&p.Rules[i], r) {
					looped = append(looped, p.Rules[i].Name)
				}
			}
			if !slices.Equal(explained, looped) {
				t.Fatalf("seed %d: explained %v, a loop says %v, of %+v", seed, explained, looped, r.Action)
			}
		}
	}
}

// explained is what Explain's reasons come to; it must be what Decide says.
func explained(reasons []policy.Reason) access.Effect {
	effect := access.Deny
	for _, x := range reasons {
		switch {
		case !x.Matches || x.Observe:
		case x.Effect == access.Deny && !strings.Contains(x.Says, "a person is asked"):
			return access.Deny
		case x.Effect == access.Ask:
			effect = access.Ask
		case x.Effect == access.Allow && effect == access.Deny:
			effect = access.Allow
		}
	}
	for _, x := range reasons {
		if x.Effect == access.Deny && x.Matches && !x.Observe && effect == access.Allow {
			return access.Ask
		}
	}
	return effect
}

var whenRE = regexp.MustCompile(`, when: '[^']*'`)

// unconditional takes the expressions out of the rules of an effect.
func unconditional(rules []string, effect string) string {
	var out strings.Builder
	for _, r := range rules {
		if strings.Contains(r, "effect: "+effect) {
			r = whenRE.ReplaceAllString(r, "")
		}
		out.WriteString(r)
	}
	return out.String()
}

var strictness = map[access.Effect]int{access.Allow: 0, access.Ask: 1, access.Deny: 2}

func FuzzDecide(f *testing.F) {
	for seed := range uint64(40) {
		f.Add(seed, "dev", "web")
	}
	f.Fuzz(func(t *testing.T, seed uint64, namespace, name string) {
		d := dice{rand.New(rand.NewPCG(seed, 2))}
		rules := d.rules(1+d.IntN(12), true)
		p := load(t, strings.Join(rules, ""))
		deny := d.rule("extra", "deny", true)
		denied := load(t, strings.Join(rules, "")+deny)
		shuffled := slices.Clone(rules)
		d.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		reordered := load(t, strings.Join(shuffled, ""))
		plain := map[string]*policy.Policy{"allow": load(t, unconditional(rules, "allow")), "deny": load(t, unconditional(rules, "deny"))}
		for i := range 30 {
			r, obj := d.request(), d.object()
			if i%3 == 0 {
				r.Action.Namespace, r.Action.Name = namespace, name
			}
			got := p.Decide(r, obj)

			// A deny more lets nothing more through, and makes nothing easier to pass.
			if more := denied.Decide(r, obj); strictness[more.Effect] < strictness[got.Effect] {
				t.Fatalf("%s became %s by adding %s", got.Effect, more.Effect, deny)
			} else if got.Effect == access.Ask && more.Effect == access.Ask && more.Obligations.Quorum < got.Obligations.Quorum {
				t.Fatalf("a quorum of %d became one of %d by adding %s", got.Obligations.Quorum, more.Obligations.Quorum, deny)
			}

			// Order means nothing.
			same := reordered.Decide(r, obj)
			same.Policy = got.Policy
			if diff := cmp.Diff(got, same); diff != "" {
				t.Fatalf("the order of rules matters: %s\n%s", diff, strings.Join(rules, ""))
			}

			// An expression narrows: without those of the allows, at least as much is allowed; without those of the denies
			// and asks, at least as much is denied and asked.
			if wide := plain["allow"].Decide(r, obj); strictness[wide.Effect] > strictness[got.Effect] {
				t.Fatalf("an expression made %s of %s\n%s", got.Effect, wide.Effect, strings.Join(rules, ""))
			}
			if wide := plain["deny"].Decide(r, obj); got.Effect == access.Deny && got.Rule != "default" && wide.Effect != access.Deny {
				t.Fatalf("an expression made a denial of %s\n%s", wide.Effect, strings.Join(rules, ""))
			}

			// What is not needed changes nothing.
			m := p.Match(r)
			if !m.NeedsObject() && m.Decide(nil).Effect != got.Effect {
				t.Fatalf("the object is not needed and makes %s of %s", got.Effect, m.Decide(nil).Effect)
			}

			// The explanation is the decision's.
			if want := explained(m.Explain(obj)); want != got.Effect {
				t.Fatalf("decided %s by %s, explained as %s: %+v\n%s", got.Effect, got.Rule, want, m.Explain(obj), strings.Join(rules, ""))
			}
		}
	})
}
