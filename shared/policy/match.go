package policy

import (
	"math/bits"
	"time"

	"sallyport/shared/access"
)

// A Request is what is decided: who asks for what, where and when.
type Request struct {
	Principal access.Principal
	Tier      string // the base tier of the principal
	Cluster   string
	Action    access.Action
	Now       time.Time
}

// A Match is a request and the rules whose lists match it.
type Match struct {
	p   *Policy
	r   Request
	few [inline]uint64
	big bitset // in place of few, when there are more rules
}

// inline is for how many words of rules a Match needs no memory of its own: 1,024 rules.
const inline = 16

func (m *Match) set() bitset {
	if m.big != nil {
		return m.big
	}
	return m.few[:m.p.c.words]
}

// Match finds the rules whose lists match a request.
func (p *Policy) Match(r Request) Match {
	m := Match{p: p, r: r}
	c := p.c
	if c == nil || c.words == 0 {
		return m
	}
	var store, spare [inline]uint64
	got, tmp := bitset(store[:]), bitset(spare[:])
	if c.words > inline {
		m.big = make(bitset, c.words)
		got, tmp = m.big, make(bitset, c.words)
	}
	got, tmp = got[:c.words], tmp[:c.words]
	c.verbs.start(got, r.Action.Verb)
	if r.Action.Resourceless {
		c.narrowPath(got, tmp, r.Action.Path)
	} else {
		c.narrowResource(got, &r.Action)
		c.narrowPlace(got, &r.Action)
		c.narrowName(got, &r.Action)
	}
	if r.Action.DryRun {
		got.without(c.wet)
	} else {
		got.without(c.dry)
	}
	c.clusters.narrow(got, r.Cluster)
	c.narrowGroups(got, tmp, r.Principal.Groups)
	if m.big == nil {
		copy(m.few[:], got)
	}
	return m
}

// start is narrow for the first dimension.
func (d *dimension) start(got bitset, key string) {
	copy(got, d.any)
	for i, w := range d.by[key] {
		got[i] |= w
	}
}

func (d *dimension) narrow(got bitset, key string) {
	by := d.by[key]
	if by == nil {
		for i, w := range d.any {
			got[i] &= w
		}
		return
	}
	for i, w := range d.any {
		got[i] &= w | by[i]
	}
}

func (c *compiled) narrowGroups(got, tmp bitset, groups []string) {
	copy(tmp, c.groups.any)
	for _, g := range groups {
		for i, w := range c.groups.by[g] {
			tmp[i] |= w
		}
	}
	for i, w := range tmp {
		got[i] &= w
	}
}

// resource is the set of rules whose resources name a resource or one of its subresources.
func (c *compiled) resource(resource, sub string) bitset {
	if b, ok := c.resources[pair{resource, sub}]; ok {
		return b
	}
	return c.none
}

func (c *compiled) narrowResource(got bitset, a *access.Action) {
	c.narrowKind(got, a)
	if a.Verb != "exec" {
		got.without(c.argv)
		return
	}
	for w := range got {
		for rest := got[w] & c.argv[w]; rest != 0; rest &= rest - 1 {
			if i := w*64 + bits.TrailingZeros64(rest); !c.commands(&c.rules[i], a.Argv) {
				got.clear(i)
			}
		}
	}
}

// narrowKind narrows by API group, resource and subresource.
func (c *compiled) narrowKind(got bitset, a *access.Action) {
	c.apiGroups.narrow(got, a.Group)
	if stream(a.Verb) {
		// The verb says it all: it is one on the resource itself. A rule that forbids the subresource means it too.
		self, exact, below, every := c.resource(a.Resource, ""), c.resource(a.Resource, a.Verb), c.resource(a.Resource, "*"), c.resource("*", a.Verb)
		for i := range got {
			got[i] &^= c.urls[i]
			got[i] &= c.anyResource[i] | self[i] | c.strict[i]&(exact[i]|below[i]|every[i])
		}
	} else {
		exact, below, every := c.resource(a.Resource, a.Subresource), c.none, c.none
		if a.Subresource != "" {
			below, every = c.resource(a.Resource, "*"), c.resource("*", a.Subresource)
		}
		for i := range got {
			got[i] &^= c.urls[i]
			got[i] &= c.anyResource[i] | exact[i] | below[i] | every[i]
		}
	}
}

// narrowPlace narrows by namespace. A collection over all namespaces is one in each of them for a rule that denies or
// asks, and in none of them for a rule that allows.
func (c *compiled) narrowPlace(got bitset, a *access.Action) {
	if a.Namespace != "" || !collective(a.Verb) || global(a.Group, a.Resource) {
		c.namespaces.narrow(got, a.Namespace)
		return
	}
	for i, w := range c.namespaces.any {
		got[i] &= w | c.strict[i]
	}
}

// narrowName narrows by the object's name. Where it is not known, a rule that denies or asks may mean the object; of a
// create, Decide looks again, because the name is in the body.
func (c *compiled) narrowName(got bitset, a *access.Action) {
	switch {
	case a.Name != "":
		by := c.names.by[a.Name]
		if by == nil {
			by = c.none
		}
		patterned := uint64(0)
		for i := range got {
			patterned |= got[i] & c.patterned[i] &^ by[i]
		}
		matched := c.none
		if patterned != 0 {
			matched = c.patternsOf(a.Name)
		}
		for i, w := range c.names.any {
			got[i] &= w | by[i] | matched[i]
		}
	case a.Verb == "create":
	default:
		for i, w := range c.names.any {
			got[i] &= w | c.strict[i]
		}
	}
}

func (c *compiled) narrowPath(got, tmp bitset, path string) {
	copy(tmp, c.wholly)
	for i, w := range c.paths[path] {
		tmp[i] |= w
	}
	for _, p := range c.prefixes {
		if len(path) >= len(p.path) && path[:len(p.path)] == p.path {
			for i, w := range p.rules {
				tmp[i] |= w
			}
		}
	}
	for i, w := range tmp {
		got[i] &= w
	}
}
