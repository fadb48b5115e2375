package policy

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

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

// A ReviewerGroup is a list of people, known by one issuer, who may answer what a rule asks.
type ReviewerGroup struct {
	Name     string   `json:"name"`
	Issuer   string   `json:"issuer"`   // whose tokens prove who they are
	Audience string   `json:"audience"` // what those tokens carry as aud
	People   []string `json:"people"`   // their verified e-mail addresses
}

// ruleFile is a rule in the file. Whether a field is there at all is asked of at.
type ruleFile struct {
	at              marks
	Name            string     `yaml:"name"`
	Effect          string     `yaml:"effect"`
	Mode            string     `yaml:"mode"`
	Reason          string     `yaml:"reason"`
	Groups          []string   `yaml:"groups"`
	Clusters        []string   `yaml:"clusters"`
	Verbs           []string   `yaml:"verbs"`
	APIGroups       []string   `yaml:"apiGroups"`
	Resources       []string   `yaml:"resources"`
	Namespaces      []string   `yaml:"namespaces"`
	ResourceNames   []string   `yaml:"resourceNames"`
	NonResourceURLs []string   `yaml:"nonResourceURLs"`
	Argv            [][]string `yaml:"argv"`
	DryRun          *bool      `yaml:"dryRun"`
	Object          objectFile `yaml:"object"`
	When            string     `yaml:"when"`
	Tier            string     `yaml:"tier"`
	Reviewers       []string   `yaml:"reviewers"`
	Quorum          int        `yaml:"quorum"`
	Expires         string     `yaml:"expires"`
	Grant           grantFile  `yaml:"grant"`
	Mask            string     `yaml:"mask"`
	Record          string     `yaml:"record"`
}

type objectFile struct {
	at     marks
	Any    []string `yaml:"any"`
	None   []string `yaml:"none"`
	Fields []string `yaml:"fields"`
}

type grantFile struct {
	at     marks
	Scope  string `yaml:"scope"`
	Length string `yaml:"length"`
}

type asksFile struct {
	at        marks
	Tier      string    `yaml:"tier"`
	Reviewers []string  `yaml:"reviewers"`
	Quorum    int       `yaml:"quorum"`
	Expires   string    `yaml:"expires"`
	Grant     grantFile `yaml:"grant"`
}

type reviewerFile struct {
	at       marks
	Name     string   `yaml:"name"`
	Issuer   string   `yaml:"issuer"`
	Audience string   `yaml:"audience"`
	People   []string `yaml:"people"`
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

// Bounds of what an ask may say. A question that stands for more than a day is about another cluster than the one that
// was asked about.
const (
	defaultExpires  = 15 * time.Minute
	shortestExpires = time.Minute
	longestExpires  = 24 * time.Hour
	longestReason   = 300
	mostRules       = 5000
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
		if bad := c.ask(a.at, askFields{a.Tier, a.Reviewers, a.Quorum, a.Expires, a.Grant}, &c.given); bad != nil {
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

var mailRE = regexp.MustCompile(`^[^@\s<>,;"]+@[^@\s<>,;"]+$`)

func (f reviewerFile) group(c *checker) (ReviewerGroup, *fault) {
	g := ReviewerGroup{f.Name, f.Issuer, f.Audience, f.People}
	_, twice := c.people[f.Name]
	switch {
	case !nameRE.MatchString(f.Name):
		return g, faultf(f.at.of("name"), "reviewers: name %q: lower-case letters, digits and hyphens are wanted", f.Name)
	case twice:
		return g, faultf(f.at.of("name"), "reviewers %q: named twice", f.Name)
	case f.Audience == "":
		return g, faultf(f.at.of("audience"), "reviewers %q: audience is missing: name what their tokens carry as aud, such as audience: sallyport-reviews", f.Name)
	case f.Audience == c.p.Audience:
		return g, faultf(f.at.of("audience"), "reviewers %q: audience %q is the gate's, so a token that an agent uses could answer; write another, such as %s-reviews", f.Name, f.Audience, f.Audience)
	case len(f.People) == 0:
		return g, faultf(f.at.of("people"), "reviewers %q: people is empty, so nobody could answer; name at least one e-mail address", f.Name)
	}
	if err := checkURL(f.Issuer); err != nil {
		return g, faultf(f.at.of("issuer"), "reviewers %q: issuer: %w", f.Name, err)
	}
	for i, who := range f.People {
		if !mailRE.MatchString(who) {
			return g, faultf(f.at.of("people"), "reviewers %q: people: %q is no e-mail address; write one as their token's email has it", f.Name, who)
		}
		if slices.ContainsFunc(f.People[:i], func(other string) bool { return strings.EqualFold(who, other) }) {
			return g, faultf(f.at.of("people"), "reviewers %q: people: %q is named twice, and would not count twice", f.Name, who)
		}
	}
	return g, nil
}

type askFields struct {
	tier      string
	reviewers []string
	quorum    int
	expires   string
	grant     grantFile
}

// ask checks what an ask says and puts it over what o holds.
func (c *checker) ask(at marks, f askFields, o *access.Obligations) *fault {
	if at.has("tier") {
		if !slices.Contains(c.tiers, f.tier) {
			return faultf(at.of("tier"), "tier: there is no tier %q%s", f.tier, suggestOf("tiers", f.tier, c.tiers))
		}
		c.reached[f.tier] = true
	}
	if at.has("reviewers") {
		if len(f.reviewers) == 0 {
			return faultf(at.of("reviewers"), "reviewers: empty, so nobody could answer; name a group of reviewers")
		}
		for _, g := range f.reviewers {
			if _, there := c.people[g]; !there {
				return faultf(at.of("reviewers"), "reviewers: there is no group %q under reviewers%s", g, suggestOf("groups", g, c.groups))
			}
		}
		o.Reviewers = f.reviewers
	}
	if at.has("quorum") {
		if f.quorum < 1 {
			return faultf(at.of("quorum"), "quorum: %d; at least one person must say yes", f.quorum)
		}
		o.Quorum = f.quorum
	}
	if n := c.headcount(o.Reviewers); len(o.Reviewers) > 0 && o.Quorum > n {
		return faultf(at.of("quorum"), "quorum: %d, but %s has %d people; nobody could ever be let through", o.Quorum, strings.Join(o.Reviewers, " and "), n)
	}
	if at.has("expires") {
		d, err := length(f.expires, shortestExpires, longestExpires)
		if err != nil {
			return faultf(at.of("expires"), "expires: %w", err)
		}
		o.Expires = d
	}
	if at.has("grant") {
		g, bad := c.grant(f.grant)
		if bad != nil {
			return bad
		}
		o.Grant = g
	}
	return nil
}

// headcount is how many distinct people the groups have.
func (c *checker) headcount(groups []string) int {
	seen := map[string]bool{}
	for _, g := range groups {
		for _, who := range c.people[g] {
			seen[strings.ToLower(who)] = true
		}
	}
	return len(seen)
}

func (c *checker) grant(f grantFile) (access.Grant, *fault) {
	g := access.Grant{Scope: access.Scope(f.Scope)}
	switch g.Scope {
	case access.ScopeRequest:
		if f.at.has("length") {
			return g, faultf(f.at.of("length"), "grant: length: scope request is one request, once, and has no length; leave it out, or write scope: object")
		}
		return g, nil
	case access.ScopeObject, access.ScopeNamespace:
		if !f.at.has("length") {
			return g, faultf(f.at.begin, "grant: scope %s needs a length, such as length: 30m", g.Scope)
		}
		d, err := length(f.Length, shortestExpires, c.p.Sessions.Longest)
		if err != nil {
			return g, faultf(f.at.of("length"), "grant: length: %w", err)
		}
		g.Length = d
		return g, nil
	}
	return g, faultf(f.at.of("scope"), "grant: scope %q is not one of request, object, namespace%s", f.Scope, meant(f.Scope, []string{"request", "object", "namespace"}))
}

func length(s string, shortest, longest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no duration; write one like 15m or 2h", s)
	case d < shortest || d > longest:
		return 0, fmt.Errorf("%s is not within %v and %v", s, shortest, longest)
	}
	return d, nil
}

// rule checks a rule and fills in what it leaves to the policy.
func (c *checker) rule(f ruleFile) (Rule, *fault) {
	r := Rule{
		Name: f.Name, Effect: access.Effect(f.Effect), Reason: f.Reason, Line: int(f.at.begin), Groups: f.Groups, Clusters: f.Clusters, Verbs: f.Verbs,
		APIGroups: f.APIGroups, Resources: f.Resources, Namespaces: f.Namespaces, ResourceNames: f.ResourceNames, NonResourceURLs: f.NonResourceURLs,
		Argv: f.Argv, DryRun: f.DryRun, Any: traits(f.Object.Any), None: traits(f.Object.None), Fields: f.Object.Fields, When: f.When,
	}
	for _, check := range []func(ruleFile, *Rule) *fault{c.named, c.full, c.who, c.what, c.where, c.effects, c.argv, c.object, c.when, c.obliged} {
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
		{"mask", f.Mask == ""}, {"record", f.Record == ""},
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

var (
	apiGroupRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	resourceRE = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\*)(/([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\*))?$`)
)

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

func apiGroup(g string) string {
	known := knownGroups()
	switch {
	case g == "" || g == "*" || slices.Contains(known, g):
		return ""
	case g == "core" || g == "v1":
		return fmt.Sprintf(`%q is no API group; did you mean ""? That is the core group's name`, g)
	case strings.Contains(g, "/"):
		group, _, _ := strings.Cut(g, "/")
		return fmt.Sprintf("%q names a version; did you mean %s? A rule is about all versions", g, group)
	case !apiGroupRE.MatchString(g):
		return fmt.Sprintf("%q is no API group; name it in lower case, such as apps or example.com", g)
	}
	if own(g) { // somebody's CRD may be called whatever it likes
		if near := meant(g, known); near != "" {
			return fmt.Sprintf("there is no API group %q%s", g, near)
		}
	}
	return ""
}

func resource(r string, groups []string) string {
	base, sub, _ := strings.Cut(r, "/")
	known := knownResources()
	switch {
	case r == "*/*":
		return `"*/*" is not how RBAC writes every subresource; did you mean "*"?`
	case !resourceRE.MatchString(r) && resourceRE.MatchString(strings.ToLower(r)):
		return fmt.Sprintf("%q: resources are written in lower case; did you mean %s?", r, strings.ToLower(r))
	case !resourceRE.MatchString(r):
		return fmt.Sprintf(`%q is no resource; write it as RBAC does: pods, pods/log, */scale, pods/* or *`, r)
	case stream(sub) && (base == "pods" || base == "*") && (len(groups) == 0 || slices.Contains(groups, "") || slices.Contains(groups, "*")):
		return fmt.Sprintf("%s is a verb of its own here, however it is asked; write verbs: [%s], resources: [pods]", sub, sub)
	case base == "*" || slices.Contains(known, base):
		return ""
	}
	if slices.ContainsFunc(groups, func(g string) bool { return g == "*" || !own(g) }) || len(groups) == 0 {
		return "" // it may be anybody's
	}
	for _, plural := range []string{base + "s", base + "es", strings.TrimSuffix(base, "y") + "ies"} {
		if slices.Contains(known, plural) {
			return fmt.Sprintf("%q: resources are written in the plural; did you mean %s?", r, plural)
		}
	}
	if near := meant(base, known); near != "" {
		return fmt.Sprintf("there is no resource %q%s", base, near)
	}
	return ""
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

// isPattern says whether a word is a pattern. Whatever looks like one and is not anchored does not load.
func isPattern(s string) bool {
	return len(s) >= 2 && strings.HasPrefix(s, "^") && strings.HasSuffix(s, "$")
}

func pattern(s string) string {
	switch {
	case s == "":
		return "an empty word matches nothing; leave it out"
	case isPattern(s):
		if _, err := regexp.Compile(s); err != nil {
			return fmt.Sprintf("pattern %q: %v", s, err)
		}
	case strings.ContainsAny(s, `*?+[](){}|\^$`):
		exactly := "'^" + regexp.QuoteMeta(s) + "$'"
		body := strings.TrimSuffix(strings.TrimPrefix(s, "^"), "$")
		body = "^" + strings.ReplaceAll(strings.ReplaceAll(body, ".*", "*"), "*", ".*") + "$" // many mean the shell's star
		if _, err := regexp.Compile(body); err != nil {
			return fmt.Sprintf("pattern %q is not anchored; write %s for exactly these characters", s, exactly)
		}
		return fmt.Sprintf("pattern %q is not anchored; write '%s', or %s for exactly these characters", s, body, exactly)
	}
	return ""
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

func (c *checker) obliged(f ruleFile, r *Rule) *fault {
	if r.Effect != access.Ask {
		for _, field := range []string{"tier", "reviewers", "quorum", "expires", "grant"} {
			if f.at.has(field) {
				return faultf(f.at.of(field), "%s: only a rule that asks has it; this one says effect: %s", field, r.Effect)
			}
		}
	}
	if r.Effect == access.Deny {
		for _, field := range []string{"mask", "record"} {
			if f.at.has(field) {
				return faultf(f.at.of(field), "%s: what is denied has no answer to mask or record; it belongs to an allow or an ask", field)
			}
		}
		return nil
	}
	if f.at.has("mask") && f.Mask != "on" && f.Mask != "off" {
		return faultf(f.at.of("mask"), "mask: %q is neither on nor off", f.Mask)
	}
	if f.at.has("record") && f.Record != "full" && f.Record != "metadata" {
		return faultf(f.at.of("record"), "record: %q is neither full nor metadata%s", f.Record, meant(f.Record, []string{"full", "metadata"}))
	}
	o := access.Obligations{}
	if r.Effect == access.Ask {
		o = c.given
		if bad := c.ask(f.at, askFields{f.Tier, f.Reviewers, f.Quorum, f.Expires, f.Grant}, &o); bad != nil {
			return bad
		}
		if len(o.Reviewers) == 0 {
			return faultf(f.at.begin, "reviewers is missing: it asks nobody; name a group of reviewers here or under asks")
		}
		r.Tier = cmp.Or(f.Tier, c.asks.Tier)
	}
	o.Mask, o.Record = cmp.Or(f.Mask, "on"), cmp.Or(f.Record, "full")
	r.Obligations = o
	return nil
}
