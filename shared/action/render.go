package action

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/shared/access"
)

// clusterWide are Kubernetes' own resources that are in no namespace.
var clusterWide = []string{
	"namespaces", "nodes", "persistentvolumes", "componentstatuses", "clusterroles", "clusterrolebindings", "storageclasses", "csidrivers", "csinodes",
	"volumeattachments", "volumeattributesclasses", "ingressclasses", "runtimeclasses", "priorityclasses", "customresourcedefinitions", "apiservices",
	"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings",
	"mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "certificatesigningrequests", "clustertrustbundles", "flowschemas",
	"prioritylevelconfigurations", "servicecidrs", "ipaddresses", "deviceclasses", "resourceslices", "tokenreviews", "subjectaccessreviews",
	"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews", "storageversions", "storageversionmigrations",
}

const restartedAt = "spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"

// Kubectl is the line a person would have typed to have the action done, safe to show and to paste: every word is quoted
// for a POSIX shell, and what does not show is written as an escape. Bodies are named, not shown. The object may be nil.
func Kubectl(a access.Action, obj *access.Object) string {
	var c line
	c.add("kubectl")
	switch {
	case a.Verb == "reveal":
		c.add("get", "--raw", a.Path+"?"+reveal+"="+a.Reveal)
		return c.String()
	case a.Resourceless || a.Verb == "proxy" || slices.Contains([]string{"proxy", "eviction", "binding", "finalize", "approval"}, a.Subresource):
		return c.raw(a)
	case strings.HasPrefix(a.Name, "-"), strings.HasPrefix(a.Resource, "-"): // kubectl would take it for a flag
		return c.raw(a)
	case selfReview(a):
		return c.selfReview(a, obj)
	}
	if a.Namespace != "" && a.Resource != "namespaces" {
		c.add("-n", a.Namespace)
	}
	switch a.Verb {
	case "exec", "attach":
		c.add(a.Verb, a.Name)
		if a.Container != "" {
			c.add("-c", a.Container)
		}
		if flags := map[[2]bool]string{{true, false}: "-i", {false, true}: "-t", {true, true}: "-it"}[[2]bool{a.Stdin, a.TTY}]; flags != "" {
			c.add(flags)
		}
		if a.Verb == "exec" {
			c.add("--")
			c.add(a.Argv...)
		}
		return c.String()
	case "portforward":
		c.add("port-forward", "pod/"+a.Name)
		return c.String()
	case "get", "list", "watch":
		return c.get(a)
	case "delete", "deletecollection":
		c.add("delete", typed(a))
		c.narrow(a)
		if a.Verb == "deletecollection" && a.LabelSelector == "" && a.FieldSelector == "" {
			c.add("--all")
		}
	case "create":
		switch a.Subresource {
		case "":
			c.add("create", "-f", "-")
		case "token":
			c.add("create", "token", a.Name)
		default:
			return c.raw(a)
		}
	case "update", "patch":
		c.change(a, obj)
	default:
		return c.raw(a)
	}
	body := slices.Equal(c.words[max(0, len(c.words)-2):], []string{"-f", "-"})
	if a.DryRun {
		c.add("--dry-run=server")
	}
	if body {
		return c.String() + " # " + visible(typed(a)) + named(a, obj)
	}
	return c.String()
}

// A line is a shell's command line.
type line struct{ words []string }

func (c *line) add(words ...string) {
	for _, w := range words {
		c.words = append(c.words, shell(w))
	}
}

func (c *line) String() string { return strings.Join(c.words, " ") }

// raw is for what kubectl has no words for.
func (c *line) raw(a access.Action) string {
	verb := map[string]string{"get": "get", "list": "get", "watch": "get", "create": "create", "post": "create", "update": "replace", "put": "replace", "delete": "delete", "deletecollection": "delete"}[a.Verb]
	if verb == "" {
		return "# " + visible(a.Verb) + " " + visible(a.Path) + ", for which kubectl has no command"
	}
	c.add(verb, "--raw", a.Path)
	if verb == "create" || verb == "replace" {
		c.add("-f", "-")
	}
	return c.String()
}

func selfReview(a access.Action) bool {
	return a.Verb == "create" && a.Group != "" && a.Subresource == "" && access.SelfReviews[a.Resource] == a.Group
}

func (c *line) selfReview(a access.Action, obj *access.Object) string {
	switch {
	case a.Resource == "selfsubjectreviews":
		c.add("auth", "whoami")
	case a.Resource == "selfsubjectrulesreviews":
		c.add("auth", "can-i", "--list")
	case obj != nil && dig(obj.Value, "spec", "resourceAttributes", "verb") != nil:
		at, _ := dig(obj.Value, "spec", "resourceAttributes").(map[string]any)
		if ns := word(at["namespace"]); ns != "" {
			c.add("-n", ns)
		}
		c.add("auth", "can-i", word(at["verb"]))
		if r := word(at["resource"]); r != "" {
			c.add(r)
		}
	default:
		c.add("auth", "can-i")
	}
	return c.String()
}

func (c *line) get(a access.Action) string {
	if a.Verb == "get" && a.Subresource == "log" {
		c.add("logs", a.Name)
		if a.Stream {
			c.add("-f")
		}
		return c.String()
	}
	if a.Subresource != "" && a.Subresource != "status" && a.Subresource != "scale" {
		return (&line{words: []string{"kubectl"}}).raw(a)
	}
	c.add("get", typed(a))
	c.narrow(a)
	if a.Subresource != "" {
		c.add("--subresource=" + a.Subresource)
	}
	if a.Verb == "watch" {
		c.add("--watch")
	}
	return c.String()
}

// narrow adds which objects are meant.
func (c *line) narrow(a access.Action) {
	if a.Name != "" {
		c.add(a.Name)
	}
	if a.Name == "" && a.Namespace == "" && !slices.Contains(clusterWide, a.Resource) {
		c.add("-A")
	}
	if a.LabelSelector != "" {
		c.add("-l", a.LabelSelector)
	}
	if a.FieldSelector != "" {
		c.add("--field-selector=" + a.FieldSelector)
	}
}

// change adds an update or a patch.
func (c *line) change(a access.Action, obj *access.Object) {
	switch {
	case a.Subresource == "scale" && obj != nil && dig(obj.Value, "spec", "replicas") != nil:
		c.add("scale", typed(a), a.Name, fmt.Sprintf("--replicas=%v", dig(obj.Value, "spec", "replicas")))
		return
	case a.Verb == "patch" && a.Subresource == "" && obj != nil && slices.Equal(obj.Touched, []string{restartedAt}):
		c.add("rollout", "restart", typed(a), a.Name)
		return
	case a.Verb == "update":
		c.add("replace")
	case a.Patch == access.ApplyPatch:
		c.add("apply", "--server-side")
	default:
		c.add("patch", typed(a), a.Name, "--type="+string(a.Patch), "-p")
		c.words = append(c.words, "'…'")
	}
	if a.Subresource != "" {
		c.add("--subresource=" + a.Subresource)
	}
	if a.Verb == "update" || a.Patch == access.ApplyPatch {
		c.add("-f", "-")
	}
}

// typed is the resource as kubectl's argument.
func typed(a access.Action) string {
	if a.Group == "" || groups[a.Group] && kinds[gr(a)] != "" && a.Group != "events.k8s.io" {
		return a.Resource
	}
	return a.Resource + "." + a.Group
}

// named is the object's name, from the URL or the body.
func named(a access.Action, obj *access.Object) string {
	name := a.Name
	if name == "" && obj != nil {
		name = word(dig(obj.Value, "metadata", "name"))
		if g := word(dig(obj.Value, "metadata", "generateName")); name == "" && g != "" {
			name = g + "…"
		}
	}
	if name == "" {
		return ""
	}
	return " " + visible(name)
}

// shell quotes a word for a POSIX shell. A word that has what does not show is written in the $'…' of bash and zsh (and
// POSIX.1-2024), so that it shows and still is the same word.
func shell(s string) string {
	if s == "" {
		return "''"
	}
	plain, hidden := true, !utf8.ValidString(s)
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("_@%+=:,./-", r):
		case invisible(r):
			hidden = true
			plain = false
		default:
			plain = false
		}
	}
	switch {
	case hidden:
		return "$'" + strings.NewReplacer("'", `\'`).Replace(visible(s)) + "'"
	case plain:
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// visible writes what does not show as \u escapes, and so the backslash too.
func visible(s string) string {
	var b strings.Builder
	for i, r := range s {
		switch {
		case r == utf8.RuneError:
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				fmt.Fprintf(&b, `\x%02x`, s[i])
				continue
			}
			b.WriteRune(r)
		case r == '\\':
			b.WriteString(`\\`)
		case invisible(r) && r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
		case invisible(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// invisible says whether a character shows as nothing, as a blank other than the space, or turns the text around it.
func invisible(r rune) bool {
	switch {
	case !unicode.IsPrint(r) && r != utf8.RuneError: // controls, bidi and other formats, blanks, what is not assigned
		return true
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5, r == 0x2800, r == 0x3164, r == 0xffa0: // fillers and joiners
		return true
	}
	return unicode.Is(unicode.Variation_Selector, r)
}

// quoted is s in double quotes with what does not show made visible.
func quoted(s string) string {
	return `"` + strings.ReplaceAll(visible(s), `"`, `\"`) + `"`
}

// plainly is s as it is when it is one plain word, and quoted otherwise: a selector or a container is any text the caller
// likes, and must not read like ours.
func plainly(s string) string {
	for _, r := range s {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', strings.ContainsRune("_./=!,()-", r):
		default:
			return quoted(s)
		}
	}
	return s
}

// Sentence says in plain words what the action would do. It names what the request names, and nothing that is in a body.
func Sentence(a access.Action) string {
	s := sentence(a)
	if a.DryRun {
		return "try, storing nothing, to " + s
	}
	return s
}

func sentence(a access.Action) string {
	if a.Resourceless {
		return visible(a.Verb) + " " + visible(a.Path)
	}
	where := ""
	switch {
	case a.Namespace != "" && a.Resource != "namespaces":
		where = " in namespace " + visible(a.Namespace)
	case a.Name == "" && a.Verb != "create" && !slices.Contains(clusterWide, a.Resource):
		where = " in all namespaces"
	}
	thing := one(a)
	if a.Name != "" {
		thing += " " + visible(a.Name)
	}
	if a.Subresource != "" && !a.Upgrade && a.Subresource != "log" {
		thing = visible(a.Subresource) + " of " + thing
	}
	inside := ""
	if a.Container != "" {
		inside = "container " + plainly(a.Container) + " of "
	}
	switch a.Verb {
	case "exec":
		words := make([]string, len(a.Argv))
		for i, w := range a.Argv {
			words[i] = quoted(w)
		}
		s := "run [" + strings.Join(words, ",") + "] in " + inside + thing + where
		if a.Stdin {
			s += ", with whatever is typed into it"
		}
		return s
	case "attach":
		s := "attach to " + inside + thing + where
		if a.Stdin {
			s += ", typing into it"
		}
		return s
	case "portforward":
		return "forward ports to " + thing + where
	case "reveal":
		return "see the value of key " + quoted(a.Reveal) + " of " + thing + where + ", unmasked"
	case "list", "watch", "deletecollection":
		if a.Name != "" {
			return a.Verb + " " + thing + where
		}
		return strings.TrimSuffix(a.Verb, "collection") + " every " + thing + where + matching(a)
	case "get":
		if a.Subresource == "log" {
			verb := "read"
			if a.Stream {
				verb = "follow"
			}
			return verb + " the log of " + thing + where
		}
		return "get " + the(a) + thing + where
	case "patch":
		if a.Patch == access.ApplyPatch {
			return "apply a change to " + the(a) + thing + where
		}
		return "change " + the(a) + thing + where
	case "update":
		return "replace " + the(a) + thing + where
	case "create":
		if a.Name == "" && a.Subresource == "" {
			return "create " + article(thing) + thing + where
		}
		return "create " + the(a) + thing + where
	case "delete":
		return "delete " + the(a) + thing + where
	}
	return visible(a.Verb) + " " + the(a) + thing + where
}

func the(a access.Action) string {
	if a.Subresource != "" && a.Subresource != "log" {
		return "the "
	}
	return ""
}

func article(thing string) string {
	if thing != "" && strings.ContainsRune("aeioAEIO", rune(thing[0])) {
		return "an "
	}
	return "a "
}

func matching(a access.Action) string {
	var by []string
	if a.LabelSelector != "" {
		by = append(by, plainly(a.LabelSelector))
	}
	if a.FieldSelector != "" {
		by = append(by, plainly(a.FieldSelector))
	}
	if len(by) == 0 {
		return ""
	}
	return " that matches " + strings.Join(by, " and ")
}

// one is the resource in the singular: Kubernetes' own kinds in lower case, others by their plural and group.
func one(a access.Action) string {
	if kind := kinds[gr(a)]; kind != "" {
		return strings.ToLower(kind)
	}
	if a.Group == "" {
		return visible(a.Resource)
	}
	return visible(a.Resource + "." + a.Group)
}
