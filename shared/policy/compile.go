package policy

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
	"sync"

	"sallyport/shared/access"
)

// A bitset is a set of rules, by their place in compiled.rules.
type bitset []uint64

func (b bitset) set(i int)   { b[i/64] |= 1 << (i % 64) }
func (b bitset) clear(i int) { b[i/64] &^= 1 << (i % 64) }

func (b bitset) without(other bitset) {
	for i, w := range other {
		b[i] &^= w
	}
}

// A dimension is one list of all rules: the rules whose list matches whatever there is, and by value those that name it.
type dimension struct {
	any bitset
	by  map[string]bitset
}

// A pair is a resource and its subresource, "" for none. In an index, "*" stands for every one.
type pair struct{ resource, sub string }

// compiled is the rules in the shape a decision wants them in. It does not change, but for the cache.
type compiled struct {
	// rules are in the order of their strictness: denies, asks, allows, and the stricter first among equals. So the
	// first that matches decides, and the file's order cannot matter.
	rules []compiledRule
	words int
	none  bitset // no rule

	verbs, apiGroups, namespaces, clusters, groups, names dimension
	resources                                             map[pair]bitset // with "*" in place of what is any, but not both
	anyResource                                           bitset

	strict    bitset // asks and denies: what cannot be told counts against the request
	observing bitset
	wholly    bitset // rules that are about resources and other requests alike
	paths     map[string]bitset
	prefixes  []prefix
	urls      bitset // rules that name nonResourceURLs
	patterned bitset // rules with a pattern among resourceNames
	argv      bitset
	dry       bitset // rules with dryRun: true
	wet       bitset // rules with dryRun: false

	order   func(a, b *compiledRule) int // less is stricter
	doubted compiledRule                 // what a deny that cannot tell asks: the policy's asks, with reviewers if it has any

	matchers matchers
}

type prefix struct {
	path  string
	rules bitset
}

type compiledRule struct {
	*Rule
	names []*regexp.Regexp // patterns among resourceNames
	exact map[string]bool
	argv  [][]word
	expr  *expression
	looks bool // at the body, by object or when

	blocked bool // in the matrix: an allow that comes to a deny
}

// A word of a command: exact, or a pattern.
type word struct {
	exact   string
	pattern *regexp.Regexp
}

func (c *compiled) newSet() bitset { return make(bitset, c.words) }

func compile(p *Policy, exprs *expressions, tier string, asks access.Obligations) *compiled {
	c := &compiled{rules: make([]compiledRule, 0, len(p.Rules)), words: (len(p.Rules) + 63) / 64}
	c.matchers.patterns = map[string]*regexp.Regexp{}
	for i := range p.Rules {
		c.rules = append(c.rules, c.rule(&p.Rules[i], exprs))
	}
	c.order = strictness(p)
	c.doubted.Rule = &Rule{Effect: access.Ask, Tier: tier, Obligations: asks}
	slices.SortFunc(c.rules, func(a, b compiledRule) int { return c.order(&a, &b) })

	c.none = c.newSet()
	for _, b := range []*bitset{&c.anyResource, &c.strict, &c.observing, &c.wholly, &c.urls, &c.patterned, &c.argv, &c.dry, &c.wet} {
		*b = c.newSet()
	}
	c.resources, c.paths = map[pair]bitset{}, map[string]bitset{}
	for _, d := range []*dimension{&c.verbs, &c.apiGroups, &c.namespaces, &c.clusters, &c.groups, &c.names} {
		d.any, d.by = c.newSet(), map[string]bitset{}
	}
	for i := range c.rules {
		r := &c.rules[i]
		c.index(&c.verbs, i, r.Verbs, "*")
		c.index(&c.apiGroups, i, r.APIGroups, "*")
		c.index(&c.namespaces, i, r.Namespaces, "")
		c.index(&c.clusters, i, r.Clusters, "")
		c.index(&c.groups, i, r.Groups, "")
		c.indexNames(i, r)
		c.indexResources(i, r.Resources)
		c.indexPaths(i, r)
		if r.Effect != access.Allow {
			c.strict.set(i)
		}
		if r.Observe {
			c.observing.set(i)
		}
		if len(r.names) > 0 {
			c.patterned.set(i)
		}
		if len(r.argv) > 0 {
			c.argv.set(i)
		}
		if r.DryRun != nil && *r.DryRun {
			c.dry.set(i)
		} else if r.DryRun != nil {
			c.wet.set(i)
		}
	}
	return c
}

func (c *compiled) rule(r *Rule, exprs *expressions) compiledRule {
	x := compiledRule{Rule: r, exact: map[string]bool{}, looks: len(r.Any)+len(r.None)+len(r.Fields) > 0}
	for _, n := range r.ResourceNames {
		if isPattern(n) {
			x.names = append(x.names, c.matchers.compile(n))
		} else {
			x.exact[n] = true
		}
	}
	for _, command := range r.Argv {
		var words []word
		for _, w := range command {
			if isPattern(w) {
				words = append(words, word{pattern: c.matchers.compile(w)})
			} else {
				words = append(words, word{exact: w})
			}
		}
		x.argv = append(x.argv, words)
	}
	if r.When != "" {
		x.expr = exprs.all[r.When]
		x.looks = x.looks || x.expr.needsObject
	}
	return x
}

func (c *compiled) index(d *dimension, i int, values []string, star string) {
	if len(values) == 0 || star != "" && slices.Contains(values, star) {
		d.any.set(i)
		return
	}
	for _, v := range values {
		if d.by[v] == nil {
			d.by[v] = c.newSet()
		}
		d.by[v].set(i)
	}
}

func (c *compiled) indexNames(i int, r *compiledRule) {
	if len(r.ResourceNames) == 0 {
		c.names.any.set(i)
	}
	for n := range r.exact {
		if c.names.by[n] == nil {
			c.names.by[n] = c.newSet()
		}
		c.names.by[n].set(i)
	}
}

func (c *compiled) indexResources(i int, resources []string) {
	if len(resources) == 0 || slices.Contains(resources, "*") {
		c.anyResource.set(i)
		return
	}
	for _, r := range resources {
		base, sub, _ := strings.Cut(r, "/")
		k := pair{base, sub}
		if c.resources[k] == nil {
			c.resources[k] = c.newSet()
		}
		c.resources[k].set(i)
	}
}

func (c *compiled) indexPaths(i int, r *compiledRule) {
	if len(r.NonResourceURLs) == 0 {
		if len(r.APIGroups)+len(r.Resources)+len(r.Namespaces)+len(r.ResourceNames)+len(r.Argv)+len(r.Any)+len(r.None)+len(r.Fields) == 0 && !r.looks {
			c.wholly.set(i)
		}
		return
	}
	c.urls.set(i)
	for _, u := range r.NonResourceURLs {
		if path, all := strings.CutSuffix(u, "*"); all {
			c.prefixes = append(c.prefixes, prefix{path, c.newSet()})
			c.prefixes[len(c.prefixes)-1].rules.set(i)
			continue
		}
		if c.paths[u] == nil {
			c.paths[u] = c.newSet()
		}
		c.paths[u].set(i)
	}
}

// strictness orders rules: denies before asks before allows; among denies those that need no body first, because they
// spare decoding it; among asks the one that is hardest to pass; then by name, which is unique.
func strictness(p *Policy) func(a, b *compiledRule) int {
	rank := map[access.Effect]int{access.Deny: 0, access.Ask: 1, access.Allow: 2}
	scope := map[access.Scope]int{access.ScopeRequest: 0, access.ScopeObject: 1, access.ScopeNamespace: 2}
	tier := map[string]int{}
	for i, t := range p.Tiers {
		tier[t.Name] = i + 1
	}
	people := map[string]int{}
	for _, g := range p.Reviewers {
		people[g.Name] = len(g.People)
	}
	headcount := func(r *compiledRule) (n int) {
		for _, g := range r.Obligations.Reviewers {
			n += people[g]
		}
		return n
	}
	later := func(o access.Obligations) (n int) {
		for _, g := range o.Escalate.Reviewers {
			n += people[g]
		}
		return n
	}
	link := map[string]int{"alone": 1}
	weight := func(r *compiledRule) int {
		switch {
		case r.looks:
			return 2
		case r.expr != nil:
			return 1
		}
		return 0
	}
	return func(a, b *compiledRule) int {
		x, y := a.Obligations, b.Obligations
		return cmp.Or(
			cmp.Compare(rank[a.Effect], rank[b.Effect]),
			ifDeny(a, cmp.Compare(weight(a), weight(b))),
			-cmp.Compare(x.Quorum, y.Quorum),
			cmp.Compare(headcount(a), headcount(b)),
			cmp.Compare(scope[x.Grant.Scope], scope[y.Grant.Scope]),
			cmp.Compare(x.Grant.Length, y.Grant.Length),
			cmp.Compare(tier[a.Tier], tier[b.Tier]),
			cmp.Compare(link[x.Links], link[y.Links]),
			cmp.Compare(later(x), later(y)),
			cmp.Compare(x.Expires, y.Expires),
			cmp.Compare(a.Name, b.Name),
		)
	}
}

func ifDeny(r *compiledRule, n int) int {
	if r.Effect == access.Deny {
		return n
	}
	return 0
}

// matchers holds the compiled patterns, and remembers what they said of the names and words that were asked about. Those
// are the callers' to choose, so what is remembered is bounded.
type matchers struct {
	patterns map[string]*regexp.Regexp

	mu    sync.RWMutex
	names map[string]bitset // the rules with a pattern that means the name
	words map[asked]bool
}

type asked struct {
	pattern *regexp.Regexp
	word    string
}

const (
	mostNames  = 4096
	mostWords  = 8192
	mostLength = 256 // bytes of a name or word that is remembered
)

// compile makes a pattern match whole words. The anchors the author wrote do not: ^a|b$ is any word that begins with a.
func (m *matchers) compile(p string) *regexp.Regexp {
	if re, ok := m.patterns[p]; ok {
		return re
	}
	re := regexp.MustCompile(`\A(?:` + p + `)\z`) // the checks compiled p already
	m.patterns[p] = re
	return re
}

// match is for words, which may be anything.
func (m *matchers) match(re *regexp.Regexp, word string) bool {
	if len(word) > mostLength {
		return re.MatchString(word)
	}
	k := asked{re, word}
	m.mu.RLock()
	is, known := m.words[k]
	m.mu.RUnlock()
	if known {
		return is
	}
	is = re.MatchString(word)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.words == nil || len(m.words) >= mostWords {
		m.words = map[asked]bool{}
	}
	m.words[k] = is
	return is
}

// patternsOf is the set of rules with a pattern that means a name. The same few names are asked about again and again,
// so it is worked out once for all rules.
func (c *compiled) patternsOf(name string) bitset {
	m := &c.matchers
	m.mu.RLock()
	got, known := m.names[name]
	m.mu.RUnlock()
	if known {
		return got
	}
	got = c.newSet()
	for i := range c.rules {
		if slices.ContainsFunc(c.rules[i].names, func(re *regexp.Regexp) bool { return re.MatchString(name) }) {
			got.set(i)
		}
	}
	if len(name) > mostLength {
		return got
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.names == nil || len(m.names) >= mostNames {
		m.names = map[string]bitset{}
	}
	m.names[name] = got
	return got
}

// named says whether a rule that names objects means this one.
func (c *compiled) named(r *compiledRule, name string) bool {
	if r.exact[name] {
		return true
	}
	return slices.ContainsFunc(r.names, func(re *regexp.Regexp) bool { return re.MatchString(name) })
}

// commands says whether a rule that lists commands means this one: word by word, and no word more.
func (c *compiled) commands(r *compiledRule, argv []string) bool {
	for _, command := range r.argv {
		if len(command) == len(argv) && c.allWords(command, argv) {
			return true
		}
	}
	return false
}

func (c *compiled) allWords(command []word, argv []string) bool {
	for i, w := range command {
		if w.pattern == nil && w.exact != argv[i] || w.pattern != nil && !c.matchers.match(w.pattern, argv[i]) {
			return false
		}
	}
	return true
}
