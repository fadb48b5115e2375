package policy

import (
	"math/bits"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A verdict is how a rule takes a request.
type verdict int

const (
	no     verdict = iota
	unsure         // it cannot be told: only of a deny, which then asks
	yes
)

// NeedsObject says whether some rule whose lists match looks at the body and could still change the outcome.
func (m Match) NeedsObject() bool {
	if m.p.c == nil || m.p.c.words == 0 || m.r.Tier == "" {
		return false
	}
	hopeful := m.hopeful()
	denies, grants, asked := false, false, false
	set := m.set()
	for w := range set {
		for rest := set[w]; rest != 0; rest &= rest - 1 {
			r := &m.p.c.rules[w*64+bits.TrailingZeros64(rest)]
			looks := r.looks || m.bodyNames(r)
			switch {
			case r.Effect == access.Deny && !looks && r.expr == nil && !r.Observe:
				return false
			case r.Effect == access.Deny || r.Effect == access.Ask:
				denies = denies || looks
				asked = asked || r.Effect == access.Ask && !looks && r.expr == nil && !r.Observe
			default:
				grants = grants || looks
			}
		}
	}
	return hopeful && (denies || grants && !asked)
}

// bodyNames says whether only the body can tell the name a rule is about.
func (m *Match) bodyNames(r *compiledRule) bool {
	return len(r.ResourceNames) > 0 && m.r.Action.Name == "" && m.r.Action.Verb == "create" && !m.r.Action.Resourceless
}

// hopeful says whether anything could come out but a denial: whether some rule that asks or allows is left. Where none
// is, what a deny would find in the body changes nothing, so nobody needs to decode it.
func (m *Match) hopeful() bool {
	if m.builtIn() != "" {
		return true
	}
	set := m.set()
	for w := range set {
		for rest := set[w]; rest != 0; rest &= rest - 1 {
			if m.p.c.rules[w*64+bits.TrailingZeros64(rest)].Effect != access.Deny {
				return true
			}
		}
	}
	return false
}

// builtIn is the name of the gate's own allow that covers the request, if one does: what every client asks before it
// does anything, and what callers ask about themselves.
func (m *Match) builtIn() string {
	a := &m.r.Action
	switch {
	case a.Resourceless:
		if a.Verb == "get" && open(a.Path) {
			return "discovery"
		}
	case a.Verb == "create" && a.Subresource == "" && a.Group != "" && access.SelfReviews[a.Resource] == a.Group:
		return "self-reviews"
	}
	return ""
}

// Decide answers a request whose object is known.
func (p *Policy) Decide(r Request, obj *access.Object) access.Decision {
	return p.Match(r).Decide(obj)
}

// Decide answers the request. A nil object means that there is none, or that it cannot be decoded.
func (m Match) Decide(obj *access.Object) access.Decision {
	if m.r.Tier == "" {
		r := m.r // a copy escapes, the request does not
		return access.Decision{Effect: access.Deny, Rule: "default", Policy: m.p.Digest, Message: "no group of " + r.Principal.Agent + " has a tier in the policy"}
	}
	o := m.outcome(obj, false)
	if o.effect == access.Allow && !m.observed() {
		return access.Decision{Effect: access.Allow, Rule: o.name, Tier: m.r.Tier, Policy: m.p.Digest, Obligations: o.obligations}
	}
	slow := m
	return slow.answer(o, obj)
}

// observed says whether a rule that only observes is among those whose lists match.
func (m *Match) observed() bool {
	if m.p.c == nil || m.p.c.words == 0 {
		return false
	}
	for w, b := range m.set() {
		if b&m.p.c.observing[w] != 0 {
			return true
		}
	}
	return false
}

// answer is Decide for everything but a plain allow.
func (m *Match) answer(o outcome, obj *access.Object) access.Decision {
	d := m.decision(o, obj)
	if m.observed() {
		if all := m.outcome(obj, true); all.effect != o.effect {
			d.Observed = new(m.decision(all, obj))
		}
	}
	if m.p.Observe && m.r.Action.Verb == reveal {
		return m.unasked(d)
	}
	if m.p.Observe && d.Effect != access.Allow {
		d = access.Decision{Effect: access.Allow, Rule: d.Rule, Tier: m.r.Tier, Policy: m.p.Digest, Obligations: access.Obligations{Mask: "on", Record: "full"}, Observed: new(d)}
		d.Observed.Observed = nil // one answer to what would have been, and that is the policy's own
	}
	return d
}

// unasked is what becomes of a reveal where the policy only observes. There RBAC alone decides, which takes a reveal for a
// get; and nobody is asked, so nobody has said yes.
func (m *Match) unasked(d access.Decision) access.Decision {
	if d.Effect != access.Deny {
		d.Effect, d.Tier, d.Near, d.Obligations = access.Deny, m.r.Tier, nil, access.Obligations{}
		d.Message = "the policy is in observe mode, in which nobody is asked, and the value of a Secret is shown to nobody who was not asked about; read it masked"
	}
	return d
}

// An outcome is what the rules say, before it is put into words.
type outcome struct {
	effect      access.Effect
	name        string
	rule        *compiledRule // nil for the gate's own decisions
	tier        string
	obligations access.Obligations
	doubt       bool // the rule denies; whether it applies cannot be told
	blocked     bool // the rule lets nothing out that is not looked at, and this is not
}

// outcome decides with the rules that are enforced, or with those in observe mode too.
func (m *Match) outcome(obj *access.Object, observing bool) outcome {
	o := outcome{effect: access.Deny, name: "default"}
	var doubt, blocks *compiledRule
	if m.p.c != nil && m.p.c.words > 0 {
		hopeful, set := m.hopeful(), m.set()
	rules:
		for w := range set {
			for rest := set[w]; rest != 0; rest &= rest - 1 {
				r := &m.p.c.rules[w*64+bits.TrailingZeros64(rest)]
				if r.Observe && !observing {
					continue
				}
				if r.Effect == access.Deny && !hopeful && (r.looks || m.bodyNames(r)) {
					continue
				}
				v := m.holds(r, obj)
				if v == yes && blocks == nil && r.Obligations.Binary == "block" {
					blocks = r
				}
				switch {
				case v == no:
				case v == unsure:
					if doubt == nil {
						doubt = r
					}
				case r.Effect == access.Deny:
					return outcome{effect: access.Deny, name: r.Name, rule: r}
				case r.Effect == access.Ask:
					o = outcome{effect: access.Ask, name: r.Name, rule: r, tier: r.Tier, obligations: r.Obligations}
					break rules // asks come before allows, the strictest first
				case o.rule == nil:
					o = outcome{effect: access.Allow, name: r.Name, rule: r, obligations: r.Obligations}
				default: // of several allows, what any of them wants masked, blocked or recorded is
					if r.Obligations.Mask == "on" {
						o.obligations.Mask = "on"
					}
					if r.Obligations.Record == "full" {
						o.obligations.Record = "full"
					}
					if r.Obligations.Binary == "block" {
						o.obligations.Binary = "block"
					}
				}
			}
		}
	}
	if o.effect == access.Deny {
		if name := m.builtIn(); name != "" {
			o = outcome{effect: access.Allow, name: name, obligations: access.Obligations{Mask: "on", Record: "full"}}
		}
	}
	if o.obligations.Binary == "block" && m.r.Action.Verb == "portforward" {
		return outcome{effect: access.Deny, name: blocks.Name, rule: blocks, blocked: true}
	}
	if doubt != nil && o.effect != access.Deny {
		// Nobody can tell whether the deny applies, so a person must look, if the policy says who. What a rule asks besides
		// is not made easier by it.
		if len(m.p.c.doubted.Obligations.Reviewers) == 0 {
			return outcome{effect: access.Deny, name: doubt.Name, rule: doubt, doubt: true}
		}
		if o.effect == access.Allow || m.p.c.order(&m.p.c.doubted, o.rule) < 0 {
			o.tier, o.obligations = m.p.c.doubted.Tier, m.p.c.doubted.Obligations // no stream has a body to doubt
		}
		return outcome{effect: access.Ask, name: doubt.Name, rule: doubt, tier: o.tier, obligations: o.obligations, doubt: true}
	}
	return o
}

// holds weighs what lists cannot tell of a rule whose lists match.
func (m *Match) holds(r *compiledRule, obj *access.Object) verdict {
	if !r.looks && r.expr == nil && !m.bodyNames(r) {
		return yes
	}
	// Called by name, not in a loop over functions: the compiler must see that the match does not escape.
	told := m.holdsName(r, obj)
	if told != no {
		told = min(told, holdsAny(r, obj))
	}
	if told == no || holdsNone(r, obj) == no || holdsFields(r, obj) == no || m.holdsWhen(r, obj) == no {
		return no
	}
	return told
}

// against is the verdict where something cannot be told at all: it counts against the request.
func against(r *compiledRule) verdict {
	if r.Effect == access.Allow {
		return no
	}
	return yes
}

func (m *Match) holdsName(r *compiledRule, obj *access.Object) verdict {
	if !m.bodyNames(r) {
		return yes
	}
	name := objectName(obj)
	switch {
	case name == "":
		return against(r)
	case m.p.c.named(r, name):
		return yes
	}
	return no
}

// objectName is the name a create gives its object; empty where the API server would make one up, or nobody can tell.
func objectName(obj *access.Object) string {
	if obj == nil {
		return ""
	}
	meta, _ := obj.Value["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	return name
}

func holdsAny(r *compiledRule, obj *access.Object) verdict {
	switch {
	case len(r.Any) == 0 || obj == nil:
		return yes
	case overlap(r.Any, obj.Traits):
		return yes
	case !overlap(r.Any, obj.Unsure):
		return no
	case r.Effect == access.Ask:
		return yes
	}
	return unsure
}

func holdsNone(r *compiledRule, obj *access.Object) verdict {
	if len(r.None) > 0 && (obj == nil || overlap(r.None, obj.Traits) || overlap(r.None, obj.Unsure)) {
		return no
	}
	return yes
}

func overlap(a, b []access.Trait) bool {
	return slices.ContainsFunc(a, func(t access.Trait) bool { return slices.Contains(b, t) })
}

func holdsFields(r *compiledRule, obj *access.Object) verdict {
	if len(r.Fields) == 0 {
		return yes
	}
	if obj == nil || len(obj.Touched) == 0 {
		return no
	}
	for _, path := range obj.Touched {
		if !slices.ContainsFunc(r.Fields, func(field string) bool { return within(path, field) }) {
			return no
		}
	}
	return yes
}

// within says whether a touched path is a field or below it. Below an annotation, a label or a key of a ConfigMap there
// is nothing: what looks like it is another key with a dot in its name.
func within(path, field string) bool {
	rest, ok := strings.CutPrefix(path, field)
	if !ok || rest == "" {
		return ok
	}
	if rest[0] != '.' {
		return false
	}
	if strings.Contains(field, "annotations.") || strings.Contains(field, "labels.") {
		return false
	}
	for _, keys := range []string{"data.", "binaryData.", "stringData."} {
		if strings.HasPrefix(field, keys) {
			return false
		}
	}
	return true
}

func (m *Match) holdsWhen(r *compiledRule, obj *access.Object) verdict {
	if r.expr == nil {
		return yes
	}
	request := m.r // a copy: what an expression looks at leaves the stack
	switch is, err := r.expr.holds(&request, obj); {
	case err != nil:
		return against(r)
	case is:
		return yes
	}
	return no
}
