package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// decision puts an outcome into words.
func (m *Match) decision(o outcome, obj *access.Object) access.Decision {
	d := access.Decision{Effect: o.effect, Rule: o.name, Tier: m.r.Tier, Policy: m.p.Digest, Obligations: o.obligations}
	who, what := m.r.Principal.Agent, sentence(&m.r.Action)
	switch o.effect {
	case access.Allow:
		return d
	case access.Ask:
		d.Tier = cmp.Or(o.tier, m.r.Tier)
		if m.r.Action.Verb == reveal { // whatever asks gives: a grant on an object would be one on all its keys
			d.Obligations.Grant = access.Grant{Scope: access.ScopeRequest}
		}
		d.Message = fmt.Sprintf("rule %q asks a person before %s may %s", o.name, who, what)
		d.Near = m.near(obj, false)
	default:
		if o.rule == nil {
			d.Near = m.near(obj, true)
			d.Message = fmt.Sprintf("no rule allows %s to %s", who, what)
			if len(d.Near) > 0 {
				d.Message += "; the nearest: " + d.Near[0]
			}
			return d
		}
		if o.blocked {
			d.Message = fmt.Sprintf("rule %q lets nothing out that is not looked at (binary: block), and what a forwarded port carries is not, so %s may not %s", o.name, who, what)
			return d
		}
		d.Message = fmt.Sprintf("rule %q denies %s to %s", o.name, who, what)
	}
	if o.rule.Reason != "" {
		d.Message += ": " + o.rule.Reason
	}
	if o.doubt {
		d.Message += " (whether this request does cannot be told from it)"
	}
	return d
}

// sentence says what an action would do, for the one who asked.
func sentence(a *access.Action) string {
	if a.Resourceless {
		return a.Verb + " " + a.Path
	}
	verb := a.Verb
	switch verb {
	case "exec":
		verb = "exec into"
	case "attach":
		verb = "attach to"
	case "portforward":
		verb = "port-forward to"
	case reveal:
		verb = fmt.Sprintf("see the value of key %q of", a.Reveal)
	}
	s := verb + " " + a.Resource
	if a.Subresource != "" && !stream(a.Verb) {
		s += "/" + a.Subresource
	}
	if a.Name != "" {
		s += fmt.Sprintf(" %q", a.Name)
	}
	if a.Group != "" && !own(a.Group) {
		s += fmt.Sprintf(" of API group %q", a.Group)
	}
	switch {
	case a.Namespace != "" && (a.Group != "" || a.Resource != "namespaces"):
		s += fmt.Sprintf(" in namespace %q", a.Namespace)
	case a.Namespace == "" && collective(a.Verb) && !global(a.Group, a.Resource):
		s += " in all namespaces"
	}
	if a.DryRun {
		s += ", as a dry run"
	}
	return s
}

const mostNear = 3

// near says which rules nearly let the request through: those that lack one thing. The nearest lack what is easiest to
// change about a request.
func (m *Match) near(obj *access.Object, asks bool) []string {
	if m.p.c == nil {
		return nil
	}
	type miss struct {
		r    *compiledRule
		lack lack
	}
	var misses []miss
	for i := range m.p.c.rules {
		r := &m.p.c.rules[i]
		aboutPaths := len(r.NonResourceURLs) > 0
		if r.Effect == access.Deny || r.Effect == access.Ask && !asks || r.Observe || aboutPaths != m.r.Action.Resourceless {
			continue
		}
		if lacks := m.lacks(r, obj, 2); len(lacks) == 1 {
			misses = append(misses, miss{r, lacks[0]})
		}
	}
	slices.SortFunc(misses, func(a, b miss) int {
		return cmp.Or(cmp.Compare(a.lack, b.lack), strings.Compare(string(a.r.Effect), string(b.r.Effect)), strings.Compare(a.r.Name, b.r.Name))
	})
	var out []string
	for _, x := range misses[:min(len(misses), mostNear)] {
		would := "would match"
		if x.r.Effect == access.Ask {
			would = "would ask a person"
		}
		out = append(out, fmt.Sprintf("rule %q %s, but only %s", x.r.Name, would, x.r.wants(x.lack)))
	}
	return out
}

// A lack is a list or condition of a rule that a request does not meet, from what is easiest to change to what is not.
type lack int

const (
	lackDryRun lack = iota
	lackNamespaces
	lackResourceNames
	lackArgv
	lackObject
	lackFields
	lackWhen
	lackClusters
	lackResources
	lackVerbs
	lackAPIGroups
	lackNonResourceURLs
	lackGroups
)

var lackFieldNames = [...]string{
	"dryRun", "namespaces", "resourceNames", "argv", "object", "object", "when", "clusters", "resources", "verbs", "apiGroups", "nonResourceURLs", "groups",
}

// field is the rule's field that is lacked.
func (l lack) field() string { return lackFieldNames[l] }

// lacks lists what a rule lacks, at most so many; for explanations, so it takes its time. Match and holds are the same
// in bit sets, and a test holds the two together.
func (m *Match) lacks(r *compiledRule, obj *access.Object, most int) []lack {
	a, c := &m.r.Action, m.p.c
	strict := r.Effect != access.Allow
	var out []lack
	lacks := func(l lack, is bool) {
		if is && len(out) < most {
			out = append(out, l)
		}
	}
	names := func(list []string, s string) bool { return len(list) == 0 || slices.Contains(list, s) }
	lacks(lackGroups, len(r.Groups) > 0 && !slices.ContainsFunc(r.Groups, func(g string) bool { return slices.Contains(m.r.Principal.Groups, g) }))
	lacks(lackVerbs, !names(r.Verbs, a.Verb) && !slices.Contains(r.Verbs, "*"))
	lacks(lackClusters, !names(r.Clusters, m.r.Cluster))
	lacks(lackDryRun, r.DryRun != nil && *r.DryRun != a.DryRun)
	if a.Resourceless {
		lacks(lackNonResourceURLs, !slices.ContainsFunc(r.NonResourceURLs, func(u string) bool {
			p, all := strings.CutSuffix(u, "*")
			return u == a.Path || all && strings.HasPrefix(a.Path, p)
		}) && (len(r.NonResourceURLs) > 0 || len(r.APIGroups)+len(r.Resources)+len(r.Namespaces)+len(r.ResourceNames)+len(r.Argv) > 0 || r.looks))
	} else {
		lacks(lackNonResourceURLs, len(r.NonResourceURLs) > 0)
		lacks(lackAPIGroups, !names(r.APIGroups, a.Group) && !slices.Contains(r.APIGroups, "*"))
		lacks(lackResources, len(r.Resources) > 0 && !slices.ContainsFunc(r.Resources, func(s string) bool { return covers(s, a, strict) }))
		everywhere := strict && a.Namespace == "" && collective(a.Verb) && !global(a.Group, a.Resource)
		lacks(lackNamespaces, !names(r.Namespaces, a.Namespace) && !everywhere)
		if len(r.ResourceNames) > 0 {
			switch {
			case m.bodyNames(r):
				lacks(lackResourceNames, m.holdsName(r, obj) == no)
			case a.Name == "":
				lacks(lackResourceNames, !strict)
			default:
				lacks(lackResourceNames, !c.named(r, a.Name))
			}
		}
		lacks(lackArgv, len(r.argv) > 0 && (a.Verb != "exec" || !c.commands(r, a.Argv)))
	}
	if len(out) == most {
		return out
	}
	lacks(lackObject, holdsAny(r, obj) == no || holdsNone(r, obj) == no)
	lacks(lackFields, holdsFields(r, obj) == no)
	// An expression is run only when it is the question: what it says of a request that lacks more is no help.
	lacks(lackWhen, r.expr != nil && len(out) < most && m.holdsWhen(r, obj) == no)
	return out
}

// covers says whether an item of a rule's resources means an action's.
func covers(item string, a *access.Action, strict bool) bool {
	base, sub, divided := strings.Cut(item, "/")
	switch {
	case item == "*":
		return true
	case stream(a.Verb):
		return item == a.Resource || strict && divided && (base == a.Resource && (sub == "*" || sub == a.Verb) || base == "*" && sub == a.Verb)
	case !divided:
		return item == a.Resource && a.Subresource == ""
	case a.Subresource == "":
		return false
	}
	return (base == "*" || base == a.Resource) && (sub == "*" || sub == a.Subresource)
}

const mostListed = 6

// some lists words for a sentence, and no more than a reader takes in.
func some(words []string) string {
	if len(words) > mostListed {
		return fmt.Sprintf("%s and %d more", strings.Join(words[:mostListed], ", "), len(words)-mostListed)
	}
	return strings.Join(words, ", ")
}

func plural(one, many string, words []string) string {
	if len(words) == 1 {
		return one + " " + words[0]
	}
	return many + " " + some(words)
}

// wants says, after "only", what a list or condition of a rule wants.
func (r *compiledRule) wants(l lack) string {
	switch l {
	case lackDryRun:
		if *r.DryRun {
			return "as a dry run"
		}
		return "for real, not as a dry run"
	case lackNamespaces:
		return "in " + plural("namespace", "namespaces", r.Namespaces)
	case lackResourceNames:
		return "for objects named " + some(r.ResourceNames)
	case lackArgv:
		var commands []string
		for _, argv := range r.Argv {
			commands = append(commands, strings.Join(argv, " "))
		}
		return "for " + plural("the command", "the commands", commands)
	case lackObject:
		var out []string
		if len(r.Any) > 0 {
			out = append(out, "of objects with "+listTraits(r.Any, " or "))
		}
		if len(r.None) > 0 {
			out = append(out, "of objects that can be read and have no "+listTraits(r.None, ", no "))
		}
		return strings.Join(out, " and ")
	case lackFields:
		return "for patches of nothing but " + some(r.Fields)
	case lackWhen:
		return "when " + r.When
	case lackClusters:
		return "on " + plural("cluster", "clusters", r.Clusters)
	case lackResources:
		return "for " + plural("the resource", "the resources", r.Resources)
	case lackVerbs:
		return "for " + plural("the verb", "the verbs", r.Verbs)
	case lackAPIGroups:
		var groups []string
		for _, g := range r.APIGroups {
			groups = append(groups, cmp.Or(g, "the core group"))
		}
		return "in " + plural("API group", "API groups", groups)
	case lackNonResourceURLs:
		if len(r.NonResourceURLs) == 0 {
			return "for resources"
		}
		return "for " + plural("the path", "the paths", r.NonResourceURLs)
	}
	return "for " + plural("group", "groups", r.Groups)
}

func listTraits(traits []access.Trait, separator string) string {
	words := make([]string, 0, len(traits))
	for _, t := range traits {
		words = append(words, string(t))
	}
	return strings.Join(words, separator)
}
