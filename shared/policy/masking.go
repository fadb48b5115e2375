package policy

import (
	"fmt"
	"reflect"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"sallyport/shared/access"
	"sallyport/shared/detect"
)

// Masking is what the policy says of secrets in answers, on top of what is always masked: the values of Secrets, tokens and
// certificates, what DefaultNames names, and well-known shapes of secrets. Names, paths and detectors can only mask more.
// Exemptions mask less, each for named tiers at one path.
type Masking struct {
	Names     []string    `json:"names,omitempty"` // of environment variables and ConfigMap keys: exact, or ^patterns$
	Paths     []MaskPath  `json:"paths,omitempty"`
	Detectors []Detector  `json:"detectors,omitempty"`
	Exempt    []Exemption `json:"exempt,omitempty"`
}

// A MaskPath is a place in objects whose value is a secret.
type MaskPath struct {
	APIGroups []string `json:"apiGroups"`
	Resources []string `json:"resources"`
	Path      string   `json:"path"` // as written
	// Steps lead to the value: keys, EveryKey and EveryElement.
	Steps []string `json:"-"`
}

// The steps of a path that are no key. No key can be written so.
const (
	EveryKey     = "*"  // the value of every key of an object
	EveryElement = "[]" // every element of a list
)

// A Detector finds secrets by their shape, in any text: strings, logs, the output of commands.
type Detector struct {
	Name string `json:"name"`
	// Pattern is RE2, found anywhere. Where it has a group, the group is the secret, and else all of it is.
	Pattern string `json:"pattern"`
	// Keywords are words in lower case, one of which is in every match or stands shortly before it, in whatever case. Text
	// that has none is not looked at more closely. Empty: what every match has is taken from the pattern.
	Keywords []string `json:"keywords,omitempty"`
}

// An Exemption is a place that requests forwarded as one of some tiers are answered as it is: no name, path or detector
// masks it, nor what is below it.
type Exemption struct {
	Line  int      `json:"line"`
	Tiers []string `json:"tiers"`
	MaskPath
}

// DefaultNames match the names whose values are masked whatever the policy says: of environment variables and of keys in
// a ConfigMap. It is about how a name ends, so that PASSWORD_FILE, TOKEN_TTL and MAX_TOKENS are shown.
const DefaultNames = `(?i:passwords?|passwd|passphrase|secrets?|token|credentials?|dsn|dockercfg|dockerconfigjson` +
	`|(?:^|[_.-])(?:pass|auth)|[_.-]pwd` +
	`|(?:api|access|secret|private|signing|encryption|master|account|service|auth|ssh)[_.-]?keys?` +
	`|connection[_.-]?strings?)$`

// NamesRE matches the names whose values are masked: DefaultNames, and what the policy adds.
func (m Masking) NamesRE() *regexp.Regexp {
	re, err := names(m.Names)
	if err != nil { // of a Masking that was not loaded
		return regexp.MustCompile("")
	}
	return re
}

// Same says whether two policies mask alike.
func (m Masking) Same(as Masking) bool {
	for _, x := range []*Masking{&m, &as} {
		x.Exempt = slices.Clone(x.Exempt)
		for i := range x.Exempt {
			x.Exempt[i].Line = 0 // moved is not changed
		}
	}
	return reflect.DeepEqual(m, as)
}

// Exempted are the places that requests forwarded as a tier are answered unmasked.
func (m Masking) Exempted(tier string) []MaskPath {
	var out []MaskPath
	for _, x := range m.Exempt {
		if slices.Contains(x.Tiers, tier) {
			out = append(out, x.MaskPath)
		}
	}
	return out
}

// Detect finds secrets by their shape: by the detectors that are always there, and the policy's own.
func (p *Policy) Detect() *detect.Set {
	if p.detect == nil {
		return detect.Default() // compiled when somebody masks by it
	}
	return p.detect
}

type maskingFile struct {
	at        marks
	Names     []string       `yaml:"names"`
	Paths     []maskPathFile `yaml:"paths"`
	Detectors []detectorFile `yaml:"detectors"`
	Exempt    []exemptFile   `yaml:"exempt"`
}

type maskPathFile struct {
	at        marks
	APIGroups []string `yaml:"apiGroups"`
	Resources []string `yaml:"resources"`
	Path      string   `yaml:"path"`
}

type detectorFile struct {
	at       marks
	Name     string   `yaml:"name"`
	Pattern  string   `yaml:"pattern"`
	Keywords []string `yaml:"keywords"`
}

type exemptFile struct {
	at        marks
	Tiers     []string `yaml:"tiers"`
	APIGroups []string `yaml:"apiGroups"`
	Resources []string `yaml:"resources"`
	Path      string   `yaml:"path"`
}

// Bounds of what is looked for in every answer.
const (
	mostMasked      = 500  // items of each list
	longestPath     = 1024 // bytes
	mostSteps       = 32
	longestPattern  = 1000
	shortestFinding = 4 // characters: what is shorter is in every text
	shortestKeyword = 3
)

const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

func (f maskingFile) masking(tiers []access.Tier) (Masking, *fault) {
	m := Masking{Names: f.Names}
	for _, list := range []struct {
		name string
		n    int
	}{{"names", len(f.Names)}, {"paths", len(f.Paths)}, {"detectors", len(f.Detectors)}, {"exempt", len(f.Exempt)}} {
		switch {
		case list.n == 0 && f.at.has(list.name):
			return m, faultf(f.at.of(list.name), "%s: there is nothing in it; fill it in, or leave the field out", list.name)
		case list.n > mostMasked:
			return m, faultf(f.at.of(list.name), "%s: there are %d; at most %d are read", list.name, list.n, mostMasked)
		}
	}
	if _, err := names(f.Names); err != nil {
		return m, faultf(f.at.of("names"), "names: %w", err)
	}
	for _, x := range f.Paths {
		p, bad := maskPath(x.at, x.APIGroups, x.Resources, x.Path)
		if bad != nil {
			return m, faultf(bad.line, "paths: %w", bad.err)
		}
		m.Paths = append(m.Paths, p)
	}
	for _, x := range f.Detectors {
		if bad := x.check(m.Detectors); bad != nil {
			return m, faultf(bad.line, "detectors: %w", bad.err)
		}
		d := Detector{Name: x.Name, Pattern: x.Pattern}
		for _, k := range x.Keywords {
			d.Keywords = append(d.Keywords, strings.ToLower(k))
		}
		if err := detect.Check(detector(d)); err != nil {
			return m, faultf(x.at.of("pattern"), "detectors: %q: %w", x.Name, err)
		}
		m.Detectors = append(m.Detectors, d)
	}
	for _, x := range f.Exempt {
		e, bad := x.exemption(tiers)
		if bad != nil {
			return m, faultf(bad.line, "exempt: %w", bad.err)
		}
		m.Exempt = append(m.Exempt, e)
	}
	return m, nil
}

// detectors compiles the policy's own beside those that are always there; nil when it has none.
func (f maskingFile) detectors(m Masking) (*detect.Set, *fault) {
	if len(m.Detectors) == 0 {
		return nil, nil
	}
	var more []detect.Detector
	for _, d := range m.Detectors {
		more = append(more, detector(d))
	}
	set, err := detect.Default().With(more)
	if err != nil {
		return nil, faultf(f.at.of("detectors"), "detectors: %w", err)
	}
	return set, nil
}

func detector(d Detector) detect.Detector {
	return detect.Detector{Name: d.Name, Pattern: d.Pattern, Keywords: d.Keywords}
}

// names compiles DefaultNames and what the policy adds.
func names(more []string) (*regexp.Regexp, error) {
	all := []string{DefaultNames}
	for _, n := range more {
		if bad := pattern(n); bad != "" {
			return nil, fmt.Errorf("%s", bad)
		}
		if !isPattern(n) {
			n = regexp.QuoteMeta(n)
		}
		all = append(all, `\A(?:`+n+`)\z`) // as compile does it: ^a|b$ is not any word that begins with a
	}
	return regexp.Compile(strings.Join(all, "|"))
}

// maskPath checks a place. That it names its API groups and resources lets a misspelt one be told.
func maskPath(at marks, groups, resources []string, path string) (MaskPath, *fault) {
	p := MaskPath{APIGroups: groups, Resources: resources, Path: path}
	switch {
	case len(groups) == 0:
		return p, faultf(at.of("apiGroups"), `apiGroups is missing: name them, such as apiGroups: [""] for the core group`)
	case len(resources) == 0:
		return p, faultf(at.of("resources"), "resources is missing: name them, such as resources: [configmaps]")
	}
	for _, g := range groups {
		if bad := apiGroup(g); bad != "" {
			return p, faultf(at.of("apiGroups"), "apiGroups: %s", bad)
		}
	}
	for _, r := range resources {
		if bad := resource(r, groups); bad != "" {
			return p, faultf(at.of("resources"), "resources: %s", bad)
		}
		if base, all := strings.CutSuffix(r, "/*"); all {
			return p, faultf(at.of("resources"), "resources: %q: a resource means its subresources too; write %s", r, base)
		}
	}
	var err error
	if p.Steps, err = steps(path); err != nil {
		return p, faultf(at.of("path"), "path: %w", err)
	}
	// What tells objects apart must stay: without it no client knows what it was sent.
	switch first := p.Steps[0]; {
	case first == EveryKey || first == EveryElement:
		return p, faultf(at.of("path"), "path: %q begins with what may be anything; begin with a field of the object, such as spec", path)
	case first == "apiVersion" || first == "kind" || first == "metadata" && (len(p.Steps) < 3 || p.Steps[1] != "annotations"):
		return p, faultf(at.of("path"), "path: %q is how clients tell objects apart; of metadata only metadata.annotations.KEY can be named", path)
	}
	return p, nil
}

// steps reads a path: keys with dots between them, * for every key, [] behind a key for every element of the list there, and
// a backslash before a dot that belongs to a key.
func steps(path string) ([]string, error) {
	switch {
	case path == "":
		return nil, fmt.Errorf("it is missing: name a field, such as spec.password")
	case len(path) > longestPath:
		return nil, fmt.Errorf("it is longer than %d characters", longestPath)
	}
	bad := func(why string) ([]string, error) {
		return nil, fmt.Errorf(`%q %s; write it like spec.users[].password, data.*, or metadata.annotations.example\.com/key`, path, why)
	}
	var out []string
	var key strings.Builder
	listed := false // the step that is being read had its []
	end := func() bool {
		s := key.String()
		if s == "" {
			return false
		}
		if !listed {
			out = append(out, s)
		}
		key.Reset()
		listed = false
		return true
	}
	for i := 0; i < len(path); i++ {
		switch c := path[i]; {
		case c == '\\':
			if i++; i == len(path) || path[i] != '.' && path[i] != '\\' {
				return bad("has a backslash that is before no dot")
			}
			if listed {
				return bad("goes on behind a [] without a dot")
			}
			key.WriteByte(path[i])
		case c == '.':
			if !end() {
				return bad("has an empty step")
			}
		case c == '[':
			if i+1 == len(path) || path[i+1] != ']' || key.Len() == 0 {
				return bad("has a bracket that is no [] behind a key")
			}
			if !listed {
				out = append(out, key.String())
			}
			out = append(out, EveryElement)
			listed = true
			i++
		case c < ' ' || c == 0x7f || c == ']':
			return bad("has a character that no path has")
		case listed:
			return bad("goes on behind a [] without a dot")
		default:
			key.WriteByte(c)
		}
	}
	if !end() {
		return bad("has an empty step")
	}
	for _, s := range out {
		if s != EveryKey && strings.Contains(s, "*") {
			return bad("has a * that is not the whole step")
		}
	}
	if len(out) > mostSteps {
		return nil, fmt.Errorf("it has %d steps; at most %d are read", len(out), mostSteps)
	}
	return out, nil
}

func (f detectorFile) check(others []Detector) *fault {
	switch {
	case !nameRE.MatchString(f.Name):
		return faultf(f.at.of("name"), "name %q: lower-case letters, digits and hyphens are wanted", f.Name)
	case slices.ContainsFunc(others, func(d Detector) bool { return d.Name == f.Name }):
		return faultf(f.at.of("name"), "%q is named twice", f.Name)
	case slices.Contains(detect.Default().Names(), f.Name):
		return faultf(f.at.of("name"), "name %q: a detector that is always there is called so; write another, such as my-%s", f.Name, f.Name)
	case f.Pattern == "":
		return faultf(f.at.of("pattern"), "%q: pattern is missing, such as pattern: acme-[0-9a-f]{32}", f.Name)
	case len(f.Pattern) > longestPattern:
		return faultf(f.at.of("pattern"), "%q: pattern is longer than %d characters", f.Name, longestPattern)
	case f.at.has("keywords") && len(f.Keywords) == 0:
		return faultf(f.at.of("keywords"), "%q: keywords: there is nothing in it; fill it in, or leave the field out", f.Name)
	}
	if _, err := regexp.Compile(f.Pattern); err != nil {
		return faultf(f.at.of("pattern"), "%q: pattern: %w", f.Name, err)
	}
	tree, err := syntax.Parse(f.Pattern, syntax.Perl)
	if err != nil {
		return faultf(f.at.of("pattern"), "%q: pattern: %w", f.Name, err)
	}
	switch group := captured(tree); {
	case strings.HasPrefix(f.Pattern, "^") || strings.HasSuffix(f.Pattern, "$") && !strings.HasSuffix(f.Pattern, `\$`):
		return faultf(f.at.of("pattern"), "%q: pattern %q is looked for anywhere in a text; leave out ^ and $", f.Name, f.Pattern)
	case tree.MaxCap() > 1:
		return faultf(f.at.of("pattern"), "%q: pattern has %d groups; the one group is the secret, so write (?:…) for the others", f.Name, tree.MaxCap())
	case least(tree) < shortestFinding || group != nil && least(group) == 0:
		return faultf(f.at.of("pattern"), "%q: pattern %q is met by fewer than %d characters, or by none in its group, so it would be found everywhere; make it longer", f.Name, f.Pattern, shortestFinding)
	}
	for _, k := range f.Keywords {
		if len(k) < shortestKeyword || strings.ContainsFunc(k, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return faultf(f.at.of("keywords"), "%q: keywords: %q: a word of at least %d letters, digits and signs is wanted", f.Name, k, shortestKeyword)
		}
	}
	return nil
}

// captured is the first group of a pattern; nil when it has none.
func captured(r *syntax.Regexp) *syntax.Regexp {
	if r.Op == syntax.OpCapture {
		return r.Sub[0]
	}
	for _, s := range r.Sub {
		if c := captured(s); c != nil {
			return c
		}
	}
	return nil
}

// least is how few characters can match.
func least(r *syntax.Regexp) int {
	switch r.Op {
	case syntax.OpLiteral:
		return len(r.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return least(r.Sub[0])
	case syntax.OpRepeat:
		return r.Min * least(r.Sub[0])
	case syntax.OpConcat:
		n := 0
		for _, s := range r.Sub {
			n += least(s)
		}
		return n
	case syntax.OpAlternate:
		n := least(r.Sub[0])
		for _, s := range r.Sub[1:] {
			n = min(n, least(s))
		}
		return n
	}
	return 0
}

func (f exemptFile) exemption(tiers []access.Tier) (Exemption, *fault) {
	x := Exemption{Line: int(f.at.begin), Tiers: f.Tiers}
	var known []string
	for _, t := range tiers {
		known = append(known, t.Name)
	}
	if len(f.Tiers) == 0 {
		return x, faultf(f.at.of("tiers"), "tiers is missing: name the tiers that see it, such as tiers: [%s]", known[0])
	}
	for _, t := range f.Tiers {
		if !slices.Contains(known, t) {
			return x, faultf(f.at.of("tiers"), "tiers: there is no tier %q%s", t, suggestOf("tiers", t, known))
		}
	}
	var bad *fault
	if x.MaskPath, bad = maskPath(f.at, f.APIGroups, f.Resources, f.Path); bad != nil {
		return x, bad
	}
	if slices.Contains(f.APIGroups, "*") {
		return x, faultf(f.at.of("apiGroups"), `apiGroups: what is shown does not say "*", so that what nobody thought of stays masked; write the groups out`)
	}
	if slices.ContainsFunc(f.Resources, func(r string) bool { return strings.HasPrefix(r, "*") }) {
		return x, faultf(f.at.of("resources"), `resources: what is shown does not say "*", so that what nobody thought of stays masked; write the resources out`)
	}
	switch {
	case x.Steps[0] == "metadata" && (x.Steps[2] == EveryKey || x.Steps[2] == lastApplied):
		return x, faultf(f.at.of("path"), "path: %q holds whole objects as well (%s), in which paths and exemptions count again; name another annotation", f.Path, lastApplied)
	case slices.Contains(f.APIGroups, "") && slices.ContainsFunc(f.Resources, func(r string) bool { return r == "secrets" || strings.HasPrefix(r, "secrets/") }) &&
		(len(x.Steps) != 2 || x.Steps[0] != "data" || x.Steps[1] == EveryKey):
		return x, faultf(f.at.of("path"), `path: %q: of Secrets only one key at a time can be shown; write it like data.ca\.crt`, f.Path)
	}
	return x, nil
}
