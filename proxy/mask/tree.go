package mask

import (
	"cmp"
	"encoding/binary"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// action says what becomes of the value at a place.
type action uint8

// The actions, by rank: where several rules meet, the highest counts.
const (
	look     action = iota // strings go through the detectors; what is in objects and lists is looked at further
	keep                   // strings stay as they are: what tells objects apart
	scope                  // like keep, and it is the namespace of the object
	alias                  // of an environment variable, for who folds the case of keys
	name                   // of an environment variable
	sentence               // of an error
	value                  // of an environment variable: masked, unless its name came before and is harmless
	scalar                 // masked unless it is an object or a list
	mapping                // masked unless it is an object
	object                 // a string that holds an object, masked inside
	plain                  // masked
	encoded                // masked as base64
	helm2                  // a Helm release, in base64 in base64
	helm1                  // a Helm release, in base64
	ordered                // masked because policy says so
	reveal                 // let through once
	skip                   // let through with all that is below it
	restart                // here is another object: its rules begin anew
)

// masks says whether an action replaces whatever value there is.
func (a action) masks() bool { return a >= object && a <= ordered }

// copies says whether a string stays as it is.
func (a action) copies() bool { return a == keep || a == reveal || a == skip }

// The steps that are no key. Keys that look like them are written in rules by policy alone, which cannot.
const (
	everyKey = "*"
	every    = "[]"
	rest     = "[1:]" // every element but the first
	named    = "*?"   // every key that Config.Names matches
	deep     = "**"   // any number of keys and elements
)

// A rule is a place and what to do there. One that masks counts for keys of any case; others count exactly.
type rule struct {
	act   action
	steps []string
}

func at(act action, steps ...string) rule { return rule{act, steps} }

func (r rule) exact() bool {
	switch r.act {
	case keep, scope, name, reveal, skip, helm1, helm2:
		return true
	}
	return false
}

// A node is a place in a body: what is true of all values whose paths lead to it.
type node struct {
	act    action
	object bool   // an object of the API begins here
	lens   uint64 // which lengths, mod 64, the keys of kids have
	kids   []kid
	other  *node // the value of any other key
	named  *node // the value of any other key that is named like a secret; nil when that makes no difference
	elem   *node
	first  *node // the first element; nil when it is like any other
}

type kid struct {
	key   string
	lower string
	exact *node
	fold  *node // of a key that is the same but for its case; nil when it is like any other key
}

// child is the value of a key, unescaped. alike says whether a key's name is that of a secret.
func (n *node) child(key []byte, alike func([]byte) bool) *node {
	for i := range n.kids {
		k := &n.kids[i]
		if string(key) == k.key {
			return k.exact
		}
	}
	for i := range n.kids {
		if k := &n.kids[i]; k.fold != nil && folds(key, k.lower) {
			return k.fold
		}
	}
	if n.named != nil && alike(key) {
		return n.named
	}
	return n.other
}

// sealed is the place of a value that is let through, or masked as a whole: nothing below it has a rule.
var sealed = func() *node {
	n := &node{act: skip}
	n.other, n.elem = n, n
	return n
}()

// A tree is a set of rules, compiled into places. The rules run as one automaton: a place is the set of positions in them
// that a path can have led to.
type tree struct {
	root  *node
	inner *node // of an object in a string
}

// newTree compiles rules. What is let through once is let through in the one object that was asked for, and nowhere inside.
func newTree(rules []rule, names *regexp.Regexp) *tree {
	inner := slices.DeleteFunc(slices.Clone(rules), func(r rule) bool { return r.act == reveal })
	b := &builder{rules: inner, names: names, nodes: map[string]*node{}}
	t := &tree{inner: b.root()}
	t.root = t.inner
	if len(inner) < len(rules) {
		b = &builder{rules: rules, names: names, nodes: map[string]*node{}, again: t.inner}
		t.root = b.root()
	}
	return t
}

type position struct{ rule, step int }

type builder struct {
	rules []rule
	names *regexp.Regexp
	nodes map[string]*node
	again *node // where another object begins; nil for the root
}

func (b *builder) root() *node {
	n := b.node(b.start(nil))
	n.object = true
	return n
}

// start adds the beginnings of all rules.
func (b *builder) start(set []position) []position {
	for i := range b.rules {
		set = b.add(set, position{i, 0})
	}
	return set
}

// add adds a position and what follows from it without a step.
func (b *builder) add(set []position, p position) []position {
	if slices.Contains(set, p) {
		return set
	}
	set = append(set, p)
	if steps := b.rules[p.rule].steps; p.step < len(steps) && steps[p.step] == deep {
		set = b.add(set, position{p.rule, p.step + 1})
	}
	return set
}

// node is the place that a set of positions is.
func (b *builder) node(set []position) *node {
	slices.SortFunc(set, func(x, y position) int { return cmp.Or(x.rule-y.rule, x.step-y.step) })
	var id []byte
	for _, p := range set {
		id = binary.AppendUvarint(binary.AppendUvarint(id, uint64(p.rule)), uint64(p.step)) //nolint:gosec // small
	}
	if n := b.nodes[string(id)]; n != nil {
		return n
	}
	n := &node{act: b.act(set)}
	switch {
	case n.act == skip:
		n = sealed
	case n.act == restart && b.again != nil:
		n = b.again
	}
	b.nodes[string(id)] = n
	switch n.act {
	case skip:
		return n
	case restart:
		n.act, n.object = look, true
		set = b.start(set)
	}
	if n != b.again {
		b.lead(n, set)
	}
	return n
}

// act is the action of the highest rank among the rules that end here.
func (b *builder) act(set []position) action {
	act, base64 := look, false
	for _, p := range set {
		if r := b.rules[p.rule]; p.step == len(r.steps) {
			act = max(act, r.act)
			base64 = base64 || r.act == encoded
		}
	}
	if act == ordered && base64 {
		return encoded // what policy masks stays what it is for clients
	}
	return act
}

// lead fills in where a node leads.
func (b *builder) lead(n *node, set []position) {
	n.elem = b.node(b.step(set, move{elem: true}))
	if first := b.node(b.step(set, move{elem: true, first: true})); first != n.elem {
		n.first = first
	}
	n.other = b.node(b.step(set, move{}))
	if alike := b.node(b.step(set, move{named: true})); alike != n.other {
		n.named = alike
	}
	for _, p := range set {
		if p.step == len(b.rules[p.rule].steps) {
			continue
		}
		key := b.rules[p.rule].steps[p.step]
		if !literal(key) || slices.ContainsFunc(n.kids, func(k kid) bool { return k.key == key }) {
			continue
		}
		m := move{key: key, named: b.names != nil && b.names.MatchString(key)}
		k := kid{key: key, lower: strings.ToLower(key), exact: b.node(b.step(set, m))}
		m.cased = true
		if cased := b.node(b.step(set, m)); cased != n.other {
			k.fold = cased
		}
		n.kids = append(n.kids, k)
		n.lens |= 1 << (len(key) & 63)
		if strings.ContainsFunc(key, func(r rune) bool { return r >= utf8.RuneSelf }) {
			n.lens = ^uint64(0) // it may be of another length in another case
		}
	}
}

func literal(step string) bool {
	return step != everyKey && step != every && step != rest && step != named && step != deep
}

// A move is one step of a path: to an element, or to a key.
type move struct {
	elem, first bool
	key         string // empty for a key that no rule has here
	cased       bool   // as key, but in another case
	named       bool   // a key that is named like a secret
}

// step is where the positions lead with a move.
func (b *builder) step(set []position, m move) []position {
	var out []position
	for _, p := range set {
		r := b.rules[p.rule]
		switch {
		case p.step == len(r.steps):
		case r.steps[p.step] == deep:
			out = b.add(out, p)
		case r.takes(r.steps[p.step], m):
			out = b.add(out, position{p.rule, p.step + 1})
		}
	}
	return out
}

func (r rule) takes(step string, m move) bool {
	switch {
	case m.elem:
		return step == every || step == rest && !m.first
	case !literal(step):
		return step == everyKey || step == named && m.named
	case m.key == step && !m.cased:
		return true
	}
	return m.key != "" && !r.exact() && strings.EqualFold(m.key, step)
}
