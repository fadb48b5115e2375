package policy

import (
	"fmt"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A Reason says how one rule took a request.
type Reason struct {
	Rule    string        `json:"rule"`
	Line    int           `json:"line,omitempty"` // zero for the gate's own: discovery, self-reviews
	Effect  access.Effect `json:"effect"`
	Observe bool          `json:"observe,omitempty"`
	Matches bool          `json:"matches"`
	// Failed are the fields of the rule that the request does not meet, as in "verbs, namespaces"; empty when it matches.
	Failed string `json:"failed,omitempty"`
	// Says is a sentence: what the fields want that the request does not have, or that the rule matches.
	Says string `json:"says"`
}

// Explain says of every rule, in the file's order, whether it matches, and if not, what of it does not.
func (m Match) Explain(obj *access.Object) []Reason {
	var out []Reason
	if name := m.builtIn(); name != "" {
		out = append(out, Reason{Rule: name, Effect: access.Allow, Matches: true, Says: "the gate's own: it is open to everybody who has a tier"})
	}
	if m.p.c == nil {
		return out
	}
	own := len(out)
	for i := range m.p.c.rules {
		r := &m.p.c.rules[i]
		x := Reason{Rule: r.Name, Line: r.Line, Effect: r.Effect, Observe: r.Observe}
		lacks := m.lacks(r, obj, len(lackFieldNames))
		var failed, wants []string
		for _, l := range lacks {
			failed = append(failed, l.field())
			wants = append(wants, r.wants(l))
		}
		switch m.told(r, obj, lacks) {
		case no:
			x.Failed = strings.Join(slices.Compact(failed), ", ")
			x.Says = "it matches only " + strings.Join(wants, ", and only ")
		case unsure:
			x.Matches, x.Says = true, "whether the object has what it is about cannot be told, so a person is asked"
		default:
			x.Matches, x.Says = true, m.because(r, obj)
		}
		out = append(out, x)
	}
	slices.SortStableFunc(out[own:], func(a, b Reason) int { return a.Line - b.Line })
	return out
}

func (m *Match) told(r *compiledRule, obj *access.Object, lacks []lack) verdict {
	if len(lacks) > 0 {
		return no
	}
	return m.holds(r, obj)
}

// because says why a rule matches, where that is not plain from its lists.
func (m *Match) because(r *compiledRule, obj *access.Object) string {
	switch {
	case refuses(r.Rule, m.r.Action.Verb):
		return "it matches, and says binary: block, which leaves nothing of a port-forward"
	case obj == nil && (len(r.Any) > 0 || m.bodyNames(r)):
		return "it matches, because there is no object to look at, or it cannot be decoded"
	case len(r.Any) > 0:
		var found []access.Trait
		for _, t := range r.Any {
			if slices.Contains(obj.Traits, t) || slices.Contains(obj.Unsure, t) {
				found = append(found, t)
			}
		}
		return fmt.Sprintf("it matches: the object has, or may have, %s", listTraits(found, ", "))
	case r.expr != nil:
		request := m.r
		if _, err := r.expr.holds(&request, obj); err != nil {
			return fmt.Sprintf("it matches, because its expression errs: %v", err)
		}
	}
	return "it matches"
}
