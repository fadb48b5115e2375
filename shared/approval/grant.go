package approval

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"sallyport/shared/access"
)

// scopes from the narrowest to the widest; each holds the one before.
var scopes = []access.Scope{access.ScopeRequest, access.ScopeObject, access.ScopeNamespace}

// lengths are what reviewers are offered, beside the longest that the rule allows.
var lengths = []time.Duration{15 * time.Minute, 30 * time.Minute, time.Hour, 2 * time.Hour, 4 * time.Hour, 8 * time.Hour}

// widest is the most of g that means anything for an action.
func widest(g access.Grant, act access.Action) access.Grant {
	if g.Scope == access.ScopeNamespace && (act.Resourceless || act.Namespace == "") {
		g.Scope = access.ScopeObject
	}
	if g.Scope == access.ScopeObject && (act.Resourceless || act.Name == "") || g.Length <= 0 || !slices.Contains(scopes, g.Scope) {
		return access.Grant{Scope: access.ScopeRequest}
	}
	return g
}

// within says whether g is one that a rule lets a reviewer give.
func within(g, most access.Grant) bool {
	if g.Scope == access.ScopeRequest {
		return g.Length == 0
	}
	i := slices.Index(scopes, g.Scope)
	return i > 0 && i <= slices.Index(scopes, most.Scope) && g.Length > 0 && g.Length <= most.Length
}

// narrower is what both a and b give.
func narrower(a, b access.Grant) access.Grant {
	if slices.Index(scopes, b.Scope) < slices.Index(scopes, a.Scope) {
		a.Scope = b.Scope
	}
	if a.Scope == access.ScopeRequest {
		return access.Grant{Scope: access.ScopeRequest}
	}
	a.Length = min(a.Length, b.Length)
	return a
}

// Choices are what a reviewer of a may give, the narrowest first: once, then each scope for a few lengths, up to what its
// rule allows.
func Choices(a access.Approval) []access.Grant {
	choices := []access.Grant{{Scope: access.ScopeRequest}}
	most := widest(a.Decision.Obligations.Grant, a.Action)
	for _, scope := range scopes[1:] {
		for _, d := range append(slices.DeleteFunc(slices.Clone(lengths), func(d time.Duration) bool { return d >= most.Length }), most.Length) {
			g := access.Grant{Scope: scope, Length: d}
			if within(g, most) && widest(g, a.Action) == g {
				choices = append(choices, g)
			}
		}
	}
	return choices
}

// Covers says whether a is a grant that lets an action of a principal pass now, when the policy asks for it by that rule: the
// verb, the resource and the namespace are those of the request it was given for, and of an object's scope the name is too.
func Covers(a access.Approval, principal access.Principal, cluster string, act access.Action, rule string, now time.Time) bool {
	was := a.Action
	switch state, _ := Status(a, now); {
	case state != access.StateGranted || principal.Key() != a.Principal.Key() || cluster != a.Cluster || rule != a.Decision.Rule,
		act.Resourceless || was.Resourceless,
		act.Verb != was.Verb || act.Group != was.Group || act.Resource != was.Resource || act.Subresource != was.Subresource || act.Namespace != was.Namespace,
		was.DryRun && !act.DryRun: // who let something be tried has not let it be done
		return false
	}
	switch a.Grant.Scope {
	case access.ScopeObject:
		return was.Name != "" && act.Name == was.Name
	case access.ScopeNamespace:
		return was.Namespace != ""
	}
	return false
}

// Words says what a grant of a gives: "this request, once", "delete on pods/web-0 in dev for 30m".
func Words(g access.Grant, a access.Approval) string {
	act := a.Action
	what := act.Resource
	if act.Group != "" {
		what += "." + act.Group
	}
	if act.Subresource != "" {
		what += "/" + act.Subresource
	}
	where := ""
	if act.Namespace != "" {
		where = " in " + act.Namespace
	}
	switch g.Scope {
	case access.ScopeObject:
		return fmt.Sprintf("%s on %s %s%s for %s", act.Verb, what, act.Name, where, short(g.Length))
	case access.ScopeNamespace:
		return fmt.Sprintf("%s on all %s%s for %s", act.Verb, what, where, short(g.Length))
	}
	return "this request, once"
}

// short writes 1h30m for what time.Duration writes 1h30m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
