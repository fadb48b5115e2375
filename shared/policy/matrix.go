package policy

import (
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A Matrix is who may do what, as far as lists tell: one column for each group that has a tier, one row for each kind of
// action. What no row names is denied to everybody.
type Matrix struct {
	Groups []Column `json:"groups"`
	Rows   []Row    `json:"rows"`
	// Truncated is true when the policy is so large that API groups are left out.
	Truncated bool `json:"truncated,omitempty"`
}

// A Column is a group of principals and its base tier.
type Column struct {
	Group string `json:"group"`
	Tier  string `json:"tier"`
}

// A Row is one kind of action, and what each group gets.
type Row struct {
	APIGroup  string   `json:"apiGroup"`  // "" is the core group; "-" where Resources are paths
	Resources []string `json:"resources"` // those that get the same; "*" is every one that no other row names
	Verb      string   `json:"verb"`
	Namespace string   `json:"namespace"` // some, as in "dev, stage"; "*" is every one that no other row names
	Cells     []Cell   `json:"cells"`     // one for each column
}

// A Cell is what a group gets.
type Cell struct {
	Effect string `json:"effect"`         // allow, ask, deny, or "-" where no rule speaks
	Rule   string `json:"rule,omitempty"` // the rule that decides
	// If is true when something besides lists (names, argv, bodies, expressions, clusters) may make it another answer.
	If         bool     `json:"if,omitempty"`
	Conditions []string `json:"conditions,omitempty"` // the rules that look at it
}

// mostCells bounds the matrix: past it, one policy is for no reader any more, and what made it large is left out.
const mostCells = 200_000

// matrix asks the compiled rules about one action of every kind the rules name.
func (p *Policy) matrix() Matrix {
	m := Matrix{Groups: []Column{}, Rows: []Row{}}
	for _, t := range p.Tiers {
		for _, g := range t.Groups {
			if !slices.ContainsFunc(m.Groups, func(c Column) bool { return c.Group == g }) {
				m.Groups = append(m.Groups, Column{g, t.Name})
			}
		}
	}
	for i, c := range m.Groups { // a group of several tiers has the most powerful
		for _, t := range p.Tiers {
			if slices.Contains(t.Groups, c.Group) {
				m.Groups[i].Tier = t.Name
			}
		}
	}
	kinds, namespaces := p.kinds()
	left := mostCells
	for _, group := range slices.Sorted(maps.Keys(kinds)) {
		var resources []string
		for r := range kinds[group] {
			resources = append(resources, r)
		}
		slices.Sort(resources)
		if left -= len(resources) * len(matrixVerbs) * len(namespaces) * len(m.Groups); left < 0 {
			m.Truncated = true
			break
		}
		m.Rows = append(m.Rows, p.groupRows(group, resources, namespaces, m.Groups)...)
	}
	m.Rows = append(m.Rows, p.pathRows(m.Groups)...)
	return m
}

var matrixVerbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "exec", "attach", "portforward", reveal}

// kinds are the resources the rules name, by API group, and the namespaces, with "*" for all others. A resource of a rule
// in several API groups stands in each, though some have none of that name: a rule means what it says. The groups that
// are named only with every resource stand with "*".
func (p *Policy) kinds() (kinds map[string]map[string]bool, namespaces []string) {
	kinds, named := map[string]map[string]bool{}, map[string]bool{}
	builtin := func(group, resource string) bool {
		base, _, _ := strings.Cut(resource, "/")
		known := slices.Contains(clusterScoped[group], base) || slices.Contains(namespaced[group], base)
		_, familiar := namespaced[group]
		_, global := clusterScoped[group]
		return known || !familiar && !global || !slices.Contains(knownResources(), base)
	}
	for i := range p.Rules {
		r := &p.Rules[i]
		for _, ns := range r.Namespaces {
			named[ns] = true
		}
		for _, g := range r.APIGroups {
			if g == "*" {
				continue
			}
			if kinds[g] == nil {
				kinds[g] = map[string]bool{"*": true}
			}
			for _, x := range r.Resources {
				if x != "*" && builtin(g, x) {
					kinds[g][x] = true
				}
			}
		}
	}
	return kinds, append(slices.Sorted(maps.Keys(named)), "*")
}

// placed is a row before rows are joined.
type placed struct {
	verb      string
	namespace string
	cells     []Cell
}

func (p *Policy) groupRows(group string, resources, namespaces []string, columns []Column) []Row {
	// Resources with equal answers to every verb in every namespace are one.
	var alike []string
	members, answers := map[string][]string{}, map[string][]placed{}
	for _, resource := range resources {
		var all []placed
		for _, verb := range matrixVerbs {
			if stream(verb) && (group != "" || resource != "pods") || verb == reveal && (group != "" || resource != "secrets") {
				continue
			}
			for _, ns := range namespaces {
				all = append(all, placed{verb, ns, p.cells(action(group, resource, verb, ns), columns)})
			}
		}
		k := fmt.Sprint(all)
		if members[k] == nil {
			alike = append(alike, k)
			answers[k] = all
		}
		members[k] = append(members[k], resource)
	}
	var rows []Row
	for _, k := range alike {
		for _, r := range join(answers[k]) {
			r.APIGroup, r.Resources = group, members[k]
			rows = append(rows, r)
		}
	}
	return rows
}

// join makes one row of namespaces where a verb gets the same, and leaves out what no rule speaks about.
func join(all []placed) []Row {
	var rows []Row
	at := map[string]int{}
	for _, x := range all {
		if !slices.ContainsFunc(x.cells, func(c Cell) bool { return c.Effect != "-" }) {
			continue
		}
		k := fmt.Sprint(x.verb, x.cells)
		switch i, joins := at[k]; {
		case !joins:
			at[k] = len(rows)
			rows = append(rows, Row{Verb: x.verb, Namespace: x.namespace, Cells: x.cells})
		case x.namespace == "*": // the last, and all others with it
			rows[i].Namespace = "*"
		default:
			rows[i].Namespace += ", " + x.namespace
		}
	}
	return rows
}

// unnamed stands for what no rule names. It is no name Kubernetes would take, so no rule can.
const unnamed = "\x00"

func action(group, resource, verb, ns string) access.Action {
	base, sub, _ := strings.Cut(resource, "/")
	a := access.Action{Verb: verb, Group: group, Resource: base, Subresource: sub, Namespace: ns}
	if base == "*" {
		a.Resource = unnamed
	}
	if sub == "*" {
		a.Subresource = unnamed
	}
	if stream(verb) {
		a.Subresource = verb
	}
	if ns == "*" {
		a.Namespace = unnamed
	}
	return a
}

func (p *Policy) pathRows(columns []Column) []Row {
	var urls []string
	for i := range p.Rules {
		urls = append(urls, p.Rules[i].NonResourceURLs...)
	}
	slices.Sort(urls)
	var rows []Row
	for _, u := range slices.Compact(urls) {
		cells := p.cells(access.Action{Verb: "get", Resourceless: true, Path: strings.Replace(u, "*", unnamed, 1)}, columns)
		rows = append(rows, Row{APIGroup: "-", Resources: []string{u}, Verb: "get", Namespace: "*", Cells: cells})
	}
	return rows
}

// cells is what the lists of the rules say of an action for each group; names, commands and clusters are conditions here.
func (p *Policy) cells(a access.Action, columns []Column) []Cell {
	cells := make([]Cell, 0, len(columns))
	for _, column := range columns {
		cells = append(cells, p.cell(a, column))
	}
	return cells
}

func (p *Policy) cell(a access.Action, column Column) Cell {
	m := Match{p: p, r: Request{Principal: access.Principal{Groups: []string{column.Group}}, Tier: column.Tier, Action: a}}
	got, tmp := p.c.newSet(), p.c.newSet()
	p.c.verbs.start(got, a.Verb)
	if a.Resourceless {
		p.c.narrowPath(got, tmp, a.Path)
	} else {
		p.c.narrowKind(got, &a)
		p.c.narrowPlace(got, &a)
	}
	p.c.narrowGroups(got, tmp, m.r.Principal.Groups)
	var sure, maybe []*compiledRule
	for w := range got {
		for rest := got[w]; rest != 0; rest &= rest - 1 {
			r := &p.c.rules[w*64+bits.TrailingZeros64(rest)]
			if refuses(r.Rule, a.Verb) {
				r = denying(r)
			}
			switch {
			case r.Observe:
			case conditional(r.Rule) || len(r.Clusters) > 0 && !all(p.clusterNames(), func(s string) bool { return slices.Contains(r.Clusters, s) }):
				maybe = append(maybe, r)
			case r.Effect == access.Deny && len(sure) > 0 && sure[0].Effect == access.Allow: // it was an allow
				sure = slices.Insert(sure, 0, r)
			default:
				sure = append(sure, r)
			}
		}
	}
	c := decided(sure, maybe, m.builtIn())
	for _, r := range maybe {
		if c.Effect == string(access.Deny) && sure[0].blocked && r.Effect == access.Ask { // an ask beats the allow that blocks
			c.If, c.Conditions = true, append(c.Conditions, r.Name)
		}
	}
	slices.Sort(c.Conditions)
	return c
}

// refuses says whether an allow or ask that matches a request refuses it: nothing of a port-forward is looked at.
func refuses(r *Rule, verb string) bool {
	return verb == "portforward" && r.Obligations.Binary == "block"
}

// denying is a rule as the deny that it comes to.
func denying(r *compiledRule) *compiledRule {
	x := *r.Rule
	x.Effect = access.Deny
	return &compiledRule{Rule: &x, blocked: r.Effect == access.Allow}
}

func (p *Policy) clusterNames() []string {
	var names []string
	for _, c := range p.Clusters {
		names = append(names, c.Name)
	}
	return names
}

// decided is the cell of the rules that match and of those that may. Both are in the order of strictness.
func decided(sure, maybe []*compiledRule, builtIn string) Cell {
	c := Cell{Effect: "-"}
	switch {
	case len(sure) > 0:
		c.Effect, c.Rule = string(sure[0].Effect), sure[0].Name
	case builtIn != "":
		c.Effect, c.Rule = string(access.Allow), builtIn
	}
	if c.Effect == string(access.Deny) {
		return c
	}
	// The best that may come out is shown, and what may stand in its way next to it.
	for i := len(maybe) - 1; i >= 0 && c.Effect == "-"; i-- {
		if r := maybe[i]; r.Effect == access.Allow || r.Effect == access.Ask {
			c.Effect, c.Rule = string(r.Effect), r.Name
		}
	}
	if c.Effect == "-" {
		return c
	}
	for _, r := range maybe {
		if r.Effect != access.Allow || c.Rule == r.Name || conditionalOnly(sure, builtIn) {
			c.If, c.Conditions = true, append(c.Conditions, r.Name)
		}
	}
	slices.Sort(c.Conditions)
	return c
}

// conditionalOnly says whether nothing is certain, so that every rule that may allow matters.
func conditionalOnly(sure []*compiledRule, builtIn string) bool {
	return len(sure) == 0 && builtIn == ""
}
