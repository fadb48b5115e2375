package policy

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A Report is what a policy says, and what may be wrong with it.
type Report struct {
	Problems []Problem `json:"problems"`
	OneWall  []OneWall `json:"oneWall"`
	// Unmasked is what agents see as it is, because the policy says so.
	Unmasked []Unmasked `json:"unmasked"`
	Matrix   Matrix     `json:"matrix"`
}

// A Problem is a rule that does not do what it seems to. None keeps a policy from being used.
type Problem struct {
	Rule string `json:"rule,omitempty"` // empty for the policy as a whole
	Line int    `json:"line,omitempty"`
	// Kind is "shadowed", by a stricter rule that always matches too; "unreachable", because nobody can be in its groups;
	// "no-tier", because its groups alone let nobody in; or "observed", because it is not enforced.
	Kind string `json:"kind"`
	Says string `json:"says"` // a sentence, with what to do
}

// A OneWall is a rule the cluster's RBAC cannot hold, because it cannot tell apart what the rule does: only the gate
// stands between.
type OneWall struct {
	Rule   string        `json:"rule"`
	Line   int           `json:"line"`
	Effect access.Effect `json:"effect"`
	// By are the fields that narrow it: resourceNames, argv, dryRun, object, when; groups that share a tier; verbs where
	// reveal is among them, which is a get to RBAC.
	By []string `json:"by"`
}

// An Unmasked is a rule with mask: off, or an exemption.
type Unmasked struct {
	Rule string `json:"rule,omitempty"` // empty for an exemption
	Line int    `json:"line"`
	Says string `json:"says"` // what is seen, and by whom
}

// Check reports on the policy as a whole. Equal policies have equal reports.
func (p *Policy) Check() Report {
	r := Report{Problems: []Problem{}, OneWall: []OneWall{}, Unmasked: p.unmasked(), Matrix: Matrix{Groups: []Column{}, Rows: []Row{}}}
	if p.Observe {
		r.Problems = append(r.Problems, Problem{Kind: "observed", Says: "the whole policy is in observe mode: nothing is asked or denied, and the tiers' RBAC alone decides; write mode: enforce to enforce it"})
	}
	for i := range p.Rules {
		x := &p.Rules[i]
		for _, found := range []struct{ kind, says string }{{"shadowed", p.shadow(x)}, p.reach(x), {"observed", watched(x)}} {
			if found.says != "" {
				r.Problems = append(r.Problems, Problem{x.Name, x.Line, found.kind, found.says})
			}
		}
		if by := p.oneWall(x); len(by) > 0 {
			r.OneWall = append(r.OneWall, OneWall{x.Name, x.Line, x.Effect, by})
		}
	}
	if p.c != nil {
		r.Matrix = p.matrix()
	}
	return r
}

// unmasked lists the rules that show answers as they are, and then the exemptions.
func (p *Policy) unmasked() []Unmasked {
	out := []Unmasked{}
	for i := range p.Rules {
		if x := &p.Rules[i]; x.Obligations.Mask == "off" && !x.Observe {
			out = append(out, Unmasked{x.Name, x.Line, "answers to " + x.about()})
		}
	}
	for _, x := range p.Masking.Exempt {
		out = append(out, Unmasked{Line: x.Line, Says: fmt.Sprintf("%s of %s, for %s", x.Path, some(x.Resources), plural("tier", "tiers", x.Tiers))})
	}
	return out
}

// about says in words which requests a rule is about, as far as verbs and resources tell.
func (r *Rule) about() string {
	verbs, what := "every verb", "everything"
	if len(r.Verbs) > 0 && !slices.Contains(r.Verbs, "*") {
		verbs = some(r.Verbs)
	}
	switch {
	case len(r.NonResourceURLs) > 0:
		what = some(r.NonResourceURLs)
	case len(r.Resources) > 0 && !slices.Contains(r.Resources, "*"):
		what = some(r.Resources)
	}
	if len(r.Groups) > 0 {
		return fmt.Sprintf("%s on %s, for %s", verbs, what, plural("group", "groups", r.Groups))
	}
	return fmt.Sprintf("%s on %s, for everybody", verbs, what)
}

func watched(x *Rule) string {
	if !x.Observe {
		return ""
	}
	return "it is in observe mode: what it would do is recorded and not done; write mode: enforce to enforce it"
}

// reach says what keeps everybody out of a rule's groups.
func (p *Policy) reach(x *Rule) (found struct{ kind, says string }) {
	if len(x.Groups) == 0 {
		return found
	}
	given, tiered := false, false
	for _, g := range x.Groups {
		tiered = tiered || slices.ContainsFunc(p.Tiers, func(t access.Tier) bool { return slices.Contains(t.Groups, g) })
		given = given || slices.ContainsFunc(p.Issuers, func(i access.Issuer) bool {
			return i.GroupsClaim != "" || slices.ContainsFunc(i.Groups, func(r access.GroupRule) bool { return r.Group == g })
		})
	}
	switch {
	case !given:
		found.kind, found.says = "unreachable", fmt.Sprintf("no issuer puts anybody into %s; give the group under issuers, or name another", strings.Join(x.Groups, ", "))
	case !tiered:
		found.kind, found.says = "no-tier", fmt.Sprintf("no tier has %s, so it is only for who is in a group with a tier besides; give one of them a tier if it is meant for anybody else", strings.Join(x.Groups, ", "))
	}
	return found
}

// oneWall lists what the cluster's RBAC cannot tell apart. It knows verbs, API groups, resources and namespaces, and one
// binding for each tier.
func (p *Policy) oneWall(x *Rule) []string {
	var by []string
	for _, narrowed := range []struct {
		field string
		is    bool
	}{
		{"groups", p.shares(x)}, {"verbs", slices.Contains(x.Verbs, reveal)}, {"resourceNames", len(x.ResourceNames) > 0}, {"argv", len(x.Argv) > 0}, {"dryRun", x.DryRun != nil},
		{"object", len(x.Any)+len(x.None)+len(x.Fields) > 0}, {"when", x.When != ""},
	} {
		if narrowed.is {
			by = append(by, narrowed.field)
		}
	}
	return by
}

// shares says whether a rule is for some groups of a tier and not for the others.
func (p *Policy) shares(x *Rule) bool {
	return len(x.Groups) > 0 && slices.ContainsFunc(p.Tiers, func(t access.Tier) bool {
		in := 0
		for _, g := range t.Groups {
			if slices.Contains(x.Groups, g) {
				in++
			}
		}
		return in > 0 && in < len(t.Groups)
	})
}

// shadow names a stricter enforced rule without conditions that matches every request a rule matches.
func (p *Policy) shadow(x *Rule) string {
	if x.Effect == access.Deny {
		return ""
	}
	for i := range p.Rules {
		y := &p.Rules[i]
		if y.Observe || y.Effect == access.Allow || y.Effect == x.Effect || conditional(y) || !encloses(y, x) {
			continue
		}
		does := "denies"
		if y.Effect == access.Ask {
			does = "asks about"
		}
		return fmt.Sprintf("rule %q (line %d) %s everything it is about, so it never decides; take it out, or narrow %q", y.Name, y.Line, does, y.Name)
	}
	return ""
}

// conditional says whether something besides groups, clusters, verbs, API groups, resources and namespaces decides.
func conditional(r *Rule) bool {
	return len(r.ResourceNames)+len(r.Argv)+len(r.Any)+len(r.None)+len(r.Fields) > 0 || r.DryRun != nil || r.When != ""
}

// encloses says whether y, which is strict and has no conditions, matches whatever x matches.
func encloses(y, x *Rule) bool {
	if len(x.NonResourceURLs) > 0 {
		return sublist(y.Verbs, x.Verbs) && sublist(y.Groups, x.Groups) && sublist(y.Clusters, x.Clusters) && len(y.APIGroups)+len(y.Resources)+len(y.Namespaces) == 0 &&
			(len(y.NonResourceURLs) == 0 || all(x.NonResourceURLs, func(u string) bool {
				return slices.ContainsFunc(y.NonResourceURLs, func(v string) bool {
					p, below := strings.CutSuffix(v, "*")
					return u == v || below && strings.HasPrefix(u, p)
				})
			}))
	}
	return len(y.NonResourceURLs) == 0 && sublist(y.Verbs, x.Verbs) && sublist(y.Groups, x.Groups) && sublist(y.Clusters, x.Clusters) &&
		sublist(y.APIGroups, x.APIGroups) && sublist(y.Namespaces, x.Namespaces) &&
		(len(y.Resources) == 0 || len(x.Resources) > 0 && all(x.Resources, func(r string) bool {
			return slices.ContainsFunc(y.Resources, func(s string) bool { return s == "*" || s == r || wider(s, r) })
		}))
}

// wider says whether a resource with a star covers another item.
func wider(s, r string) bool {
	a, b, starred := strings.Cut(s, "/")
	x, y, divided := strings.Cut(r, "/")
	return starred && divided && (a == "*" && b == y || a == x && b == "*")
}

// sublist says whether a list of y covers one of x, where none and "*" cover everything.
func sublist(y, x []string) bool {
	return len(y) == 0 || slices.Contains(y, "*") || len(x) > 0 && all(x, func(s string) bool { return slices.Contains(y, s) })
}

func all(list []string, is func(string) bool) bool {
	return !slices.ContainsFunc(list, func(s string) bool { return !is(s) })
}
