package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A Rule is one rule of the policy, as written. A list that is empty narrows nothing.
type Rule struct {
	Name            string             `json:"name"`
	Effect          access.Effect      `json:"effect"`
	Observe         bool               `json:"observe,omitempty"` // decided and recorded, not enforced
	Reason          string             `json:"reason,omitempty"`
	Line            int                `json:"line"`
	Groups          []string           `json:"groups,omitempty"` // the principal's
	Clusters        []string           `json:"clusters,omitempty"`
	Verbs           []string           `json:"verbs,omitempty"`
	APIGroups       []string           `json:"apiGroups,omitempty"`
	Resources       []string           `json:"resources,omitempty"`
	Namespaces      []string           `json:"namespaces,omitempty"`
	ResourceNames   []string           `json:"resourceNames,omitempty"`
	NonResourceURLs []string           `json:"nonResourceURLs,omitempty"`
	Argv            [][]string         `json:"argv,omitempty"`
	DryRun          *bool              `json:"dryRun,omitempty"`
	Any             []access.Trait     `json:"any,omitempty"`
	None            []access.Trait     `json:"none,omitempty"`
	Fields          []string           `json:"fields,omitempty"`
	When            string             `json:"when,omitempty"`
	Tier            string             `json:"tier,omitempty"` // of an ask: the tier a yes leads to; empty is the base tier
	Obligations     access.Obligations `json:"obligations"`    // of an ask with the policy's asks filled in
}

// ruleFile is a rule in the file. Whether a field is there at all is asked of at.
type ruleFile struct {
	at              marks
	Name            string       `yaml:"name"`
	Effect          string       `yaml:"effect"`
	Mode            string       `yaml:"mode"`
	Reason          string       `yaml:"reason"`
	Groups          []string     `yaml:"groups"`
	Clusters        []string     `yaml:"clusters"`
	Verbs           []string     `yaml:"verbs"`
	APIGroups       []string     `yaml:"apiGroups"`
	Resources       []string     `yaml:"resources"`
	Namespaces      []string     `yaml:"namespaces"`
	ResourceNames   []string     `yaml:"resourceNames"`
	NonResourceURLs []string     `yaml:"nonResourceURLs"`
	Argv            [][]string   `yaml:"argv"`
	DryRun          *bool        `yaml:"dryRun"`
	Object          objectFile   `yaml:"object"`
	When            string       `yaml:"when"`
	Tier            string       `yaml:"tier"`
	Reviewers       []string     `yaml:"reviewers"`
	Quorum          int          `yaml:"quorum"`
	Expires         string       `yaml:"expires"`
	Remind          string       `yaml:"remind"`
	Escalate        escalateFile `yaml:"escalate"`
	Links           string       `yaml:"links"`
	Grant           grantFile    `yaml:"grant"`
	Mask            string       `yaml:"mask"`
	Binary          string       `yaml:"binary"`
	Record          string       `yaml:"record"`
}

type objectFile struct {
	at     marks
	Any    []string `yaml:"any"`
	None   []string `yaml:"none"`
	Fields []string `yaml:"fields"`
}

// A fault is what is wrong with a field, and where.
type fault struct {
	line line
	err  error
}

func (f *fault) Error() string { return f.err.Error() }

func faultf(at line, format string, a ...any) *fault {
	return &fault{at, fmt.Errorf(format, a...)}
}

// checker holds what rules are checked against.
type checker struct {
	p        *Policy
	people   map[string][]string // by name of the group of reviewers
	groups   []string
	clusters []string
	tiers    []string
	reached  map[string]bool // tiers that an ask leads to
	asks     asksFile
	given    access.Obligations // what asks says, and what is there when nobody says anything
	exprs    *expressions
	names    map[string]line
}

const (
	longestReason = 300 // it becomes part of a sentence
	mostRules     = 5000
)

// reservedNames are what decisions without a rule are called.
var reservedNames = []string{"default", "discovery", "self-reviews"}

func (doc *document) fillRules(p *Policy) *fault {
	c := &checker{p: p, people: map[string][]string{}, reached: map[string]bool{}, asks: doc.Asks, names: map[string]line{}, exprs: &expressions{}}
	for _, t := range p.Tiers {
		c.tiers = append(c.tiers, t.Name)
	}
	for _, k := range p.Clusters {
		c.clusters = append(c.clusters, k.Name)
	}
	var err error
	if p.Observe, err = mode(doc.Mode); err != nil {
		return &fault{doc.at.of("mode"), err}
	}
	for _, f := range doc.Reviewers {
		g, bad := f.group(c)
		if bad != nil {
			return bad
		}
		c.people[g.Name] = g.People
		c.groups = append(c.groups, g.Name)
		p.Reviewers = append(p.Reviewers, g)
	}
	c.given = access.Obligations{Quorum: 1, Expires: defaultExpires, Grant: access.Grant{Scope: access.ScopeRequest}, Mask: "on", Record: "full"}
	if doc.Asks.at.begin > 0 {
		a := doc.Asks
		if bad := c.ask(a.at, askFields{a.Tier, a.Reviewers, a.Quorum, a.Expires, a.Remind, a.Escalate, a.Links, a.Grant}, &c.given); bad != nil {
			return faultf(bad.line, "asks: %w", bad.err)
		}
	}
	if len(doc.Rules) > mostRules {
		return faultf(doc.at.of("rules"), "rules: there are %d; at most %d are read", len(doc.Rules), mostRules)
	}
	for _, f := range doc.Rules {
		r, bad := c.rule(f)
		if bad != nil {
			if f.Name == "" {
				return bad
			}
			return faultf(bad.line, "rule %q: %w", f.Name, bad.err)
		}
		p.Rules = append(p.Rules, r)
	}
	based := false
	for i, t := range p.Tiers {
		based = based || len(t.Groups) > 0
		if len(t.Groups) == 0 && !c.reached[t.Name] {
			return faultf(doc.Tiers[i].at.of("groups"), "tier %q: it has no groups and no ask leads to it, so nobody would have it; give it groups, or name it as the tier of a rule that asks", t.Name)
		}
	}
	if !based {
		return faultf(doc.Tiers[0].at.begin, "tiers: none has groups, so nobody could come in; give the least powerful one groups")
	}
	p.c = compile(p, c.exprs, doc.Asks.Tier, c.given)
	return nil
}

func mode(s string) (observe bool, err error) {
	switch s {
	case "", "enforce":
		return false, nil
	case "observe":
		return true, nil
	}
	return false, fmt.Errorf("mode: %q is neither enforce nor observe%s", s, meant(s, []string{"enforce", "observe"}))
}

// rule checks a rule and fills in what it leaves to the policy.
func (c *checker) rule(f ruleFile) (Rule, *fault) {
	r := Rule{
		Name: f.Name, Effect: access.Effect(f.Effect), Reason: f.Reason, Line: int(f.at.begin), Groups: f.Groups, Clusters: f.Clusters, Verbs: f.Verbs,
		APIGroups: f.APIGroups, Resources: f.Resources, Namespaces: f.Namespaces, ResourceNames: f.ResourceNames, NonResourceURLs: f.NonResourceURLs,
		Argv: f.Argv, DryRun: f.DryRun, Any: traits(f.Object.Any), None: traits(f.Object.None), Fields: f.Object.Fields, When: f.When,
	}
	for _, check := range []func(ruleFile, *Rule) *fault{c.named, c.full, c.who, c.what, c.where, c.effects, c.reveals, c.argv, c.object, c.when, c.obliged} {
		if bad := check(f, &r); bad != nil {
			return r, bad
		}
	}
	return r, nil
}

func traits(in []string) []access.Trait {
	var out []access.Trait
	for _, t := range in {
		out = append(out, access.Trait(t))
	}
	return out
}

func (c *checker) named(f ruleFile, r *Rule) *fault {
	at, twice := c.names[f.Name]
	switch {
	case f.Name == "":
		return faultf(f.at.of("name"), "rules: a rule without a name; decisions are recorded by it, so give it one, such as name: no-secrets")
	case !nameRE.MatchString(f.Name):
		return faultf(f.at.of("name"), "name: lower-case letters, digits and hyphens are wanted")
	case slices.Contains(reservedNames, f.Name):
		return faultf(f.at.of("name"), "name: %s is what the gate calls its own decisions; write another, such as my-%s", f.Name, f.Name)
	case twice:
		return faultf(f.at.of("name"), "name: it stands at line %d already", at)
	}
	c.names[f.Name] = f.at.of("name")
	switch r.Effect {
	case access.Allow, access.Ask, access.Deny:
	case "":
		return faultf(f.at.begin, "effect is missing; write allow, ask or deny")
	default:
		return faultf(f.at.of("effect"), "effect: %q is not one of allow, ask, deny%s", f.Effect, meant(f.Effect, []string{"allow", "ask", "deny"}))
	}
	var err error
	if r.Observe, err = mode(f.Mode); err != nil {
		return &fault{f.at.of("mode"), err}
	}
	r.Reason = strings.TrimSpace(f.Reason)
	if len(r.Reason) > longestReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return c < ' ' || c == 0x7f }) {
		return faultf(f.at.of("reason"), "reason: one line of at most %d characters is wanted; it becomes part of a sentence", longestReason)
	}
	return nil
}

// full refuses a field that is there and empty. It would narrow nothing, and look as if it narrowed everything.
func (c *checker) full(f ruleFile, _ *Rule) *fault {
	for _, field := range []struct {
		name  string
		empty bool
	}{
		{"groups", len(f.Groups) == 0}, {"clusters", len(f.Clusters) == 0}, {"verbs", len(f.Verbs) == 0}, {"apiGroups", len(f.APIGroups) == 0},
		{"resources", len(f.Resources) == 0}, {"namespaces", len(f.Namespaces) == 0}, {"resourceNames", len(f.ResourceNames) == 0},
		{"nonResourceURLs", len(f.NonResourceURLs) == 0}, {"argv", len(f.Argv) == 0}, {"dryRun", f.DryRun == nil}, {"when", strings.TrimSpace(f.When) == ""},
		{"object", len(f.Object.Any)+len(f.Object.None)+len(f.Object.Fields) == 0}, {"mode", f.Mode == ""}, {"tier", f.Tier == ""},
		{"mask", f.Mask == ""}, {"binary", f.Binary == ""}, {"record", f.Record == ""},
	} {
		if field.empty && f.at.has(field.name) {
			return faultf(f.at.of(field.name), "%s: there is nothing in it; fill it in, or leave the field out", field.name)
		}
	}
	for _, field := range []struct {
		name  string
		empty bool
	}{{"any", len(f.Object.Any) == 0}, {"none", len(f.Object.None) == 0}, {"fields", len(f.Object.Fields) == 0}} {
		if field.empty && f.Object.at.has(field.name) {
			return faultf(f.Object.at.of(field.name), "object: %s: there is nothing in it; fill it in, or leave the field out", field.name)
		}
	}
	return nil
}

func (c *checker) who(f ruleFile, _ *Rule) *fault {
	for _, g := range f.Groups {
		if !groupRE.MatchString(g) {
			return faultf(f.at.of("groups"), "groups: %q is no usable group name; name the groups of principals one by one", g)
		}
	}
	for _, k := range f.Clusters {
		if !slices.Contains(c.clusters, k) {
			return faultf(f.at.of("clusters"), "clusters: there is no cluster %q%s", k, suggestOf("clusters", k, c.clusters))
		}
	}
	return nil
}

func (c *checker) what(f ruleFile, _ *Rule) *fault {
	for _, v := range f.Verbs {
		if !slices.Contains(verbs, v) {
			return faultf(f.at.of("verbs"), "verbs: there is no verb %q%s", v, suggestOf("verbs", v, verbs))
		}
	}
	for _, g := range f.APIGroups {
		if bad := apiGroup(g); bad != "" {
			return faultf(f.at.of("apiGroups"), "apiGroups: %s", bad)
		}
	}
	for _, r := range f.Resources {
		if bad := resource(r, f.APIGroups); bad != "" {
			return faultf(f.at.of("resources"), "resources: %s", bad)
		}
	}
	for _, v := range f.Verbs {
		if stream(v) && len(f.Resources) > 0 && !slices.ContainsFunc(f.Resources, func(r string) bool { return r == "pods" || r == "*" || (r == "pods/*" && f.Effect == "deny") }) {
			return faultf(f.at.of("resources"), "resources: %s is a verb on resource pods, which is not named here; write verbs: [%s], resources: [pods] in a rule of its own", v, v)
		}
	}
	if f.at.has("nonResourceURLs") {
		for _, other := range []string{"apiGroups", "resources", "namespaces", "resourceNames", "argv", "object"} {
			if f.at.has(other) {
				return faultf(f.at.of(other), "%s: a rule is about resources or about nonResourceURLs; make two of it", other)
			}
		}
	}
	for _, u := range f.NonResourceURLs {
		if i := strings.IndexByte(u, '*'); (!strings.HasPrefix(u, "/") && u != "*") || (i >= 0 && i != len(u)-1) {
			return faultf(f.at.of("nonResourceURLs"), `nonResourceURLs: %q: a path is wanted, such as /healthz, or all below one, such as /healthz/*`, u)
		}
	}
	return nil
}

func (c *checker) where(f ruleFile, _ *Rule) *fault {
	for _, ns := range f.Namespaces {
		if !nameRE.MatchString(ns) {
			return faultf(f.at.of("namespaces"), "namespaces: %q is no namespace; they are written out one by one, because the cluster's RBAC, the second wall, knows no patterns", ns)
		}
	}
	for _, n := range f.ResourceNames {
		if bad := pattern(n); bad != "" {
			return faultf(f.at.of("resourceNames"), "resourceNames: %s", bad)
		}
	}
	return nil
}

// effects checks what only some effects may have.
func (c *checker) effects(f ruleFile, r *Rule) *fault {
	switch r.Effect {
	case access.Allow:
		if len(f.Groups) == 0 {
			return faultf(f.at.begin, "groups is missing: an allow names whom it is for, such as groups: [agents]")
		}
		if len(f.Verbs) == 0 {
			return faultf(f.at.begin, "verbs is missing: an allow names them, such as verbs: [get, list, watch]")
		}
		if slices.Contains(f.Verbs, "*") {
			return faultf(f.at.of("verbs"), `verbs: an allow does not say "*"; write out what is allowed, such as [get, list, watch]`)
		}
		if f.at.has("nonResourceURLs") {
			for _, u := range f.NonResourceURLs {
				path, below := strings.CutSuffix(u, "*")
				if below && open(path) && !strings.HasSuffix(path, "/") {
					return faultf(f.at.of("nonResourceURLs"), "nonResourceURLs: %q is more than %s and what is below it; write %s/*", u, path, path)
				}
				if !open(path) {
					return faultf(f.at.of("nonResourceURLs"), "nonResourceURLs: an allow may open only what is %s or below; %q is not", strings.Join(paths, ", "), u)
				}
			}
			return nil
		}
		if len(f.APIGroups) == 0 {
			return faultf(f.at.begin, `apiGroups is missing: an allow names them, such as apiGroups: [""] for the core group`)
		}
		if slices.Contains(f.APIGroups, "*") {
			return faultf(f.at.of("apiGroups"), `apiGroups: an allow does not say "*", so that what nobody thought of stays denied; write the groups out`)
		}
		if len(f.Resources) == 0 {
			return faultf(f.at.begin, "resources is missing: an allow names them, such as resources: [pods]")
		}
		if i := slices.IndexFunc(f.APIGroups, own); i >= 0 && slices.Contains(f.Resources, "*") {
			return faultf(f.at.of("resources"), `resources: an allow may say "*" only in API groups that are not Kubernetes' own, and %q is; write the resources out`, f.APIGroups[i])
		}
	case access.Ask:
		if f.at.has("nonResourceURLs") {
			return faultf(f.at.of("nonResourceURLs"), "nonResourceURLs: an ask is about resources; allow or deny these")
		}
		if len(f.APIGroups) == 0 {
			return faultf(f.at.begin, `apiGroups is missing: an ask names them, such as apiGroups: [""] for the core group`)
		}
		if slices.Contains(f.APIGroups, "*") {
			return faultf(f.at.of("apiGroups"), `apiGroups: an ask does not say "*", so that what nobody thought of stays denied; write the groups out`)
		}
	}
	return nil
}

// reveals checks the verb reveal: it is about Secrets, it is asked, and a yes is to one request.
func (c *checker) reveals(f ruleFile, r *Rule) *fault {
	if !slices.Contains(f.Verbs, reveal) {
		return nil
	}
	if r.Effect == access.Allow {
		return faultf(f.at.of("verbs"), "verbs: an allow does not say reveal, which shows the value of a Secret: a person says yes to that, each time; write effect: ask in a rule of its own")
	}
	if len(f.APIGroups) > 0 && !slices.Contains(f.APIGroups, "") && !slices.Contains(f.APIGroups, "*") ||
		len(f.Resources) > 0 && !slices.Contains(f.Resources, "secrets") && !slices.Contains(f.Resources, "*") {
		return faultf(f.at.of("verbs"), `verbs: reveal is a verb on Secrets, which are not named here; write verbs: [reveal], apiGroups: [""], resources: [secrets] in a rule of its own`)
	}
	if f.at.has("grant") && f.Grant.Scope != string(access.ScopeRequest) {
		return faultf(f.at.of("grant"), "grant: a yes to a reveal is for one key, once; write scope: request, or leave grant out")
	}
	return nil
}

func (c *checker) argv(f ruleFile, _ *Rule) *fault {
	if !f.at.has("argv") {
		return nil
	}
	if len(f.Verbs) != 1 || f.Verbs[0] != "exec" {
		return faultf(f.at.of("argv"), "argv: only exec has a command; write verbs: [exec] in a rule of its own")
	}
	for _, command := range f.Argv {
		if len(command) == 0 {
			return faultf(f.at.of("argv"), "argv: an empty command; write its words, such as [ls, -l]")
		}
		for _, word := range command {
			if bad := pattern(word); bad != "" {
				return faultf(f.at.of("argv"), "argv: %s", bad)
			}
		}
	}
	return nil
}

var fieldRE = regexp.MustCompile(`^[A-Za-z0-9_]([A-Za-z0-9_./-]*[A-Za-z0-9_])?$`)

func (c *checker) object(f ruleFile, r *Rule) *fault {
	if !f.at.has("object") {
		return nil
	}
	o := f.Object
	known := make([]string, 0, len(access.Traits))
	for _, t := range access.Traits {
		known = append(known, string(t))
	}
	for _, list := range []struct {
		name   string
		traits []string
	}{{"any", o.Any}, {"none", o.None}} {
		for _, t := range list.traits {
			if !slices.Contains(known, t) {
				return faultf(o.at.of(list.name), "object: %s: there is no trait %q%s", list.name, t, suggestOf("traits", t, known))
			}
		}
	}
	if bad := withBody(f.Verbs); bad != "" {
		return faultf(f.at.of("object"), "object: %s", bad)
	}
	switch {
	case r.Effect == access.Allow && len(o.Any) > 0:
		return faultf(o.at.of("any"), "object: any belongs to an ask or a deny; an allow says none: what must not be there")
	case r.Effect != access.Allow && len(o.None) > 0:
		return faultf(o.at.of("none"), "object: none belongs to an allow; an %s says any: what it is about", effectNoun(r.Effect))
	case r.Effect != access.Allow && len(o.Fields) > 0:
		return faultf(o.at.of("fields"), "object: fields belongs to an allow: the only fields a patch may touch")
	case len(o.Fields) > 0 && (len(f.Verbs) != 1 || f.Verbs[0] != "patch"):
		return faultf(o.at.of("fields"), "object: fields is about patches, the other bodies are whole objects; write verbs: [patch] in a rule of its own")
	}
	for _, p := range o.Fields {
		if !fieldRE.MatchString(p) || strings.Contains(p, "..") {
			return faultf(o.at.of("fields"), "object: fields: %q is no path of a field; write one like spec.replicas, without list indexes", p)
		}
	}
	return nil
}

func effectNoun(e access.Effect) string {
	if e == access.Deny {
		return "ask or a deny"
	}
	return "ask"
}

// withBody says what is wrong when some of the verbs carry no object.
func withBody(verbs []string) string {
	want := strings.Join(bodied, ", ")
	if len(verbs) == 0 {
		return "only some verbs carry an object; name them: verbs: [" + want + "]"
	}
	for _, v := range verbs {
		if !slices.Contains(bodied, v) {
			return fmt.Sprintf("verb %q carries no object; only %s do", v, want)
		}
	}
	return ""
}

func (c *checker) when(f ruleFile, r *Rule) *fault {
	if !f.at.has("when") {
		return nil
	}
	e, err := c.exprs.compile(f.When)
	if err != nil {
		return faultf(f.at.of("when"), "when: %w", err)
	}
	if e.needsObject {
		if bad := withBody(f.Verbs); bad != "" {
			return faultf(f.at.of("when"), "when: it looks at the object, and %s", bad)
		}
	}
	return nil
}
