package policy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/access"
)

// The file, as YAML. Unknown fields and duplicate keys are refused by the decoder; at carries lines to our own checks.
type document struct {
	name string
	at   marks

	APIVersion string         `yaml:"apiVersion"`
	Kind       string         `yaml:"kind"`
	Audience   string         `yaml:"audience"`
	Issuers    []issuerFile   `yaml:"issuers"`
	Clusters   []clusterFile  `yaml:"clusters"`
	Tiers      []tierFile     `yaml:"tiers"`
	Sessions   sessionsFile   `yaml:"sessions"`
	Mode       string         `yaml:"mode"`
	Reviewers  []reviewerFile `yaml:"reviewers"`
	Asks       asksFile       `yaml:"asks"`
	Rules      []ruleFile     `yaml:"rules"`
	Masking    maskingFile    `yaml:"masking"`
}

type issuerFile struct {
	at          marks
	URL         string          `yaml:"url"`
	Algorithms  []string        `yaml:"algorithms"`
	JWKS        string          `yaml:"jwks"`
	Private     bool            `yaml:"private"`
	Agent       string          `yaml:"agent"`
	Owner       string          `yaml:"owner"`
	Run         []string        `yaml:"run"`
	RunLink     string          `yaml:"runLink"`
	Require     []conditionFile `yaml:"require"`
	GroupsClaim string          `yaml:"groupsClaim"`
	Groups      []groupFile     `yaml:"groups"`
}

type conditionFile struct {
	at      marks
	Claim   string   `yaml:"claim"`
	Equals  []string `yaml:"equals"`
	Matches string   `yaml:"matches"`
}

type groupFile struct {
	at    marks
	Group string          `yaml:"group"`
	When  []conditionFile `yaml:"when"`
}

type clusterFile struct {
	at     marks
	Name   string   `yaml:"name"`
	Region string   `yaml:"region"`
	Hosts  []string `yaml:"hosts"`
}

type tierFile struct {
	at     marks
	Name   string   `yaml:"name"`
	Role   string   `yaml:"role"`
	Group  string   `yaml:"group"`
	Groups []string `yaml:"groups"`
}

type sessionsFile struct {
	at         marks
	Idle       yaml.Node `yaml:"idle"`
	Longest    yaml.Node `yaml:"longest"`
	Credential yaml.Node `yaml:"credential"`
}

type line int

// marks are the lines of a mapping: where it begins, and where each of its fields stands.
type marks struct {
	begin line
	field map[string]line
}

// of is the line of a field, and where the mapping begins when the field is not there.
func (m marks) of(field string) line {
	if l, ok := m.field[field]; ok {
		return l
	}
	return m.begin
}

// has says whether a field is there, even if nothing is in it.
func (m marks) has(field string) bool {
	_, there := m.field[field]
	return there
}

// Each list element remembers the line it began on. The alias type keeps the decoder strict: a plain node.Decode would
// forget KnownFields, so unknown fields are looked for by hand in strictDecode.
func (x *issuerFile) UnmarshalYAML(n *yaml.Node) error {
	type plain issuerFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *conditionFile) UnmarshalYAML(n *yaml.Node) error {
	type plain conditionFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *groupFile) UnmarshalYAML(n *yaml.Node) error {
	type plain groupFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *clusterFile) UnmarshalYAML(n *yaml.Node) error {
	type plain clusterFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *tierFile) UnmarshalYAML(n *yaml.Node) error {
	type plain tierFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *sessionsFile) UnmarshalYAML(n *yaml.Node) error {
	type plain sessionsFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *ruleFile) UnmarshalYAML(n *yaml.Node) error {
	type plain ruleFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *objectFile) UnmarshalYAML(n *yaml.Node) error {
	type plain objectFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *grantFile) UnmarshalYAML(n *yaml.Node) error {
	type plain grantFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *asksFile) UnmarshalYAML(n *yaml.Node) error {
	type plain asksFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *escalateFile) UnmarshalYAML(n *yaml.Node) error {
	type plain escalateFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *slackFile) UnmarshalYAML(n *yaml.Node) error {
	type plain slackFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *reviewerFile) UnmarshalYAML(n *yaml.Node) error {
	type plain reviewerFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *maskingFile) UnmarshalYAML(n *yaml.Node) error {
	type plain maskingFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *maskPathFile) UnmarshalYAML(n *yaml.Node) error {
	type plain maskPathFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *detectorFile) UnmarshalYAML(n *yaml.Node) error {
	type plain detectorFile
	return strictDecode(n, (*plain)(x), &x.at)
}
func (x *exemptFile) UnmarshalYAML(n *yaml.Node) error {
	type plain exemptFile
	return strictDecode(n, (*plain)(x), &x.at)
}

func strictDecode(n *yaml.Node, into any, at *marks) error {
	if n.Kind != yaml.MappingNode {
		return fmt.Errorf("line %d: a mapping is wanted here, fields and their values", n.Line)
	}
	known := fieldsOf(into)
	m := marks{line(n.Line), map[string]line{}}
	for i := 0; i < len(n.Content); i += 2 {
		if k := n.Content[i]; !slices.Contains(known, k.Value) {
			return fmt.Errorf("line %d: unknown field %q%s", k.Line, k.Value, suggest(k.Value, known))
		}
		m.field[n.Content[i].Value] = line(n.Content[i].Line)
	}
	if err := n.Decode(into); err != nil {
		return err
	}
	*at = m
	return nil
}

func parse(name string, b []byte) (*document, error) {
	refuse := func(err error) (*document, error) {
		return nil, &access.Error{Kind: access.Invalid, Message: fmt.Sprintf("policy %s: %s", name, strings.TrimPrefix(plainly(err).Error(), "yaml: "))}
	}
	if len(b) > 1<<20 {
		return refuse(errors.New("larger than 1 MiB"))
	}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	var root yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return refuse(errors.New("line 1: empty; begin with apiVersion: sallyport/v1"))
	} else if err != nil {
		return refuse(err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return refuse(errors.New("more than one document; a policy is one"))
	}
	if err := written(&root); err != nil {
		return refuse(err)
	}
	doc := &document{name: name}
	type plain document
	if err := strictDecode(root.Content[0], (*plain)(doc), &doc.at); err != nil {
		return refuse(err)
	}
	return doc, nil
}

// written refuses anchors and aliases: what a reviewer reads in one place must not act in another. And it refuses items
// of a list that are nothing: nothing would be read as "", which is the core API group.
func written(n *yaml.Node) error {
	if n.Kind == yaml.AliasNode || n.Anchor != "" {
		return fmt.Errorf("line %d: anchors and aliases are not read; write the value out", n.Line)
	}
	for _, c := range n.Content {
		if n.Kind == yaml.SequenceNode && c.Kind == yaml.ScalarNode && c.Tag == "!!null" {
			return fmt.Errorf(`line %d: an item of this list is nothing; write "" if you mean the core API group, or take it out`, c.Line)
		}
		if err := written(c); err != nil {
			return err
		}
	}
	return nil
}

var mismatchRE = regexp.MustCompile("(?s)^line (\\d+): cannot unmarshal !!(\\w+)(?: `(.*)`)? into (.+)$")

// plainly says in a policy author's words what the decoder says in Go's.
func plainly(err error) error {
	var t *yaml.TypeError
	if !errors.As(err, &t) || len(t.Errors) == 0 {
		return err
	}
	m := mismatchRE.FindStringSubmatch(t.Errors[0])
	if m == nil {
		return errors.New(t.Errors[0])
	}
	at, kind, value, into := m[1], m[2], m[3], m[4]
	what := map[string]string{"str": "a word", "int": "a number", "float": "a number", "bool": "a yes or no", "seq": "a list", "map": "a mapping", "null": "nothing"}[kind]
	if what == "" {
		what = kind
	}
	if value != "" {
		what += fmt.Sprintf(" (%s)", value)
	}
	switch {
	case strings.HasPrefix(into, "[][]"):
		return fmt.Errorf("line %s: a list of commands is wanted here, each a list of words such as [[ls, -l]], not %s", at, what)
	case strings.HasPrefix(into, "[]") && value != "":
		return fmt.Errorf("line %s: a list is wanted here, not %s; write [%s]", at, what, value)
	case strings.HasPrefix(into, "[]"):
		return fmt.Errorf("line %s: a list is wanted here, not %s", at, what)
	case into == "bool":
		return fmt.Errorf("line %s: true or false is wanted here, not %s", at, what)
	case strings.HasPrefix(into, "int"):
		return fmt.Errorf("line %s: a whole number is wanted here, not %s", at, what)
	case into == "string":
		return fmt.Errorf("line %s: one word or sentence is wanted here, not %s", at, what)
	}
	return fmt.Errorf("line %s: %s is out of place here", at, what)
}

func (doc *document) policy() (*Policy, error) {
	p := &Policy{Audience: doc.Audience}
	bad := func(at line, format string, a ...any) error {
		where := fmt.Sprintf("policy %s: ", doc.name)
		if at > 0 {
			where += fmt.Sprintf("line %d: ", at)
		}
		return &access.Error{Kind: access.Invalid, Message: where + fmt.Sprintf(format, a...)}
	}
	switch {
	case doc.APIVersion != "sallyport/v1" || doc.Kind != "Policy":
		return nil, bad(1, "apiVersion and kind must be sallyport/v1 and Policy, not %q and %q", doc.APIVersion, doc.Kind)
	case doc.Audience == "":
		return nil, bad(0, "audience is missing: name what tokens for this gate carry as aud, such as audience: sallyport")
	case len(doc.Issuers) == 0:
		return nil, bad(0, "issuers is empty: nobody could ever come in")
	case len(doc.Clusters) == 0:
		return nil, bad(0, "clusters is empty: name at least one EKS cluster")
	case len(doc.Tiers) == 0:
		return nil, bad(0, "tiers is empty: name at least one")
	}
	urls := map[string]line{}
	for _, f := range doc.Issuers {
		if at, twice := urls[f.URL]; twice {
			return nil, bad(f.at.of("url"), "issuer %s stands at line %d already", f.URL, at)
		}
		urls[f.URL] = f.at.of("url")
		i, at, err := f.issuer(doc.Audience)
		if err != nil {
			return nil, bad(at, "issuer %s: %v", f.URL, err)
		}
		p.Issuers = append(p.Issuers, i)
	}
	hosts, names := map[string]string{}, map[string]bool{}
	for _, f := range doc.Clusters {
		if !nameRE.MatchString(f.Name) {
			return nil, bad(f.at.of("name"), "cluster name %q: lower-case letters, digits and hyphens are wanted", f.Name)
		}
		if names[f.Name] {
			return nil, bad(f.at.of("name"), "cluster %q is named twice", f.Name)
		}
		names[f.Name] = true
		if f.Region == "" {
			return nil, bad(f.at.of("region"), "cluster %q: region is missing, such as region: eu-west-1", f.Name)
		}
		for _, h := range f.Hosts {
			if !hostRE.MatchString(h) {
				return nil, bad(f.at.of("hosts"), "cluster %q: host %q must be a lower-case host name without port", f.Name, h)
			}
			if other, taken := hosts[h]; taken {
				return nil, bad(f.at.of("hosts"), "host %q is both %q's and %q's", h, other, f.Name)
			}
			hosts[h] = f.Name
		}
		p.Clusters = append(p.Clusters, access.Cluster{Name: f.Name, Region: f.Region, Hosts: f.Hosts})
	}
	tiers, kubeGroups := map[string]bool{}, map[string]string{}
	for _, f := range doc.Tiers {
		role := roleRE.FindStringSubmatch(f.Role)
		switch {
		case !nameRE.MatchString(f.Name):
			return nil, bad(f.at.of("name"), "tier name %q: lower-case letters, digits and hyphens are wanted", f.Name)
		case tiers[f.Name]:
			return nil, bad(f.at.of("name"), "tier %q is named twice", f.Name)
		case f.Role == "":
			return nil, bad(f.at.of("role"), "tier %q: role is missing, such as role: arn:aws:iam::111122223333:role/sallyport/%s", f.Name, f.Name)
		case role == nil:
			return nil, bad(f.at.of("role"), "tier %q: %q is no IAM role ARN", f.Name, f.Role)
		case role[1] != f.Name:
			return nil, bad(f.at.of("role"), "tier %q: its role must be named like the tier, so that the cluster's audit log reads assumed-role/%s; it is named %q", f.Name, f.Name, role[1])
		case !groupRE.MatchString(f.Group) || reserved(f.Group):
			return nil, bad(f.at.of("group"), "tier %q: group %q must be a Kubernetes group that does not begin with system:, eks:, aws:, amazon: or iam:", f.Name, f.Group)
		case kubeGroups[f.Group] != "":
			return nil, bad(f.at.of("group"), "tier %q: group %q is tier %q's already", f.Name, f.Group, kubeGroups[f.Group])
		}
		tiers[f.Name], kubeGroups[f.Group] = true, f.Name
		p.Tiers = append(p.Tiers, access.Tier{Name: f.Name, Role: f.Role, Group: f.Group, Groups: f.Groups})
	}
	var at line
	var err error
	if p.Sessions, at, err = doc.Sessions.lengths(); err != nil {
		return nil, bad(at, "sessions: %v", err)
	}
	if f := doc.fillRules(p); f != nil {
		return nil, bad(f.line, "%v", f.err)
	}
	var wrong *fault
	if p.Masking, wrong = doc.Masking.masking(p.Tiers); wrong != nil {
		return nil, bad(wrong.line, "masking: %v", wrong.err)
	}
	if p.detect, wrong = doc.Masking.detectors(p.Masking); wrong != nil {
		return nil, bad(wrong.line, "masking: %v", wrong.err)
	}
	return p, nil
}

func (f issuerFile) issuer(audience string) (access.Issuer, line, error) {
	i := access.Issuer{URL: f.URL, Audience: audience, Algorithms: f.Algorithms, JWKS: f.JWKS, Private: f.Private,
		Agent: f.Agent, Owner: f.Owner, Run: f.Run, RunLink: f.RunLink, GroupsClaim: f.GroupsClaim}
	if err := checkURL(f.URL); err != nil {
		return i, f.at.of("url"), err
	}
	if len(f.Algorithms) == 0 {
		return i, f.at.of("algorithms"), errors.New("algorithms is missing, such as algorithms: [RS256]")
	}
	for _, a := range f.Algorithms {
		if !slices.Contains(algorithms, a) {
			return i, f.at.of("algorithms"), fmt.Errorf("algorithm %q is not one of %s", a, strings.Join(algorithms, ", "))
		}
	}
	for _, r := range f.Run {
		if r == "jti" || r == "iat" || r == "exp" || r == "nbf" {
			return i, f.at.of("run"), fmt.Errorf("run names %s, which differs in every token: a renewed token would be a new run", r)
		}
	}
	if f.RunLink != "" && !runLinkRE.MatchString(f.RunLink) {
		return i, f.at.of("runLink"), fmt.Errorf("runLink %q must be https, with claims in braces in its path, such as https://github.com/{repository}/actions/runs/{run_id}", f.RunLink)
	}
	if f.GroupsClaim == "" && len(f.Groups) == 0 {
		return i, f.at.begin, errors.New("neither groupsClaim nor groups is given, so its tokens would be allowed nothing")
	}
	var at line
	var err error
	if i.Require, at, err = conditions(f.Require); err != nil {
		return i, at, err
	}
	for _, g := range f.Groups {
		if !groupRE.MatchString(g.Group) || reserved(g.Group) {
			return i, g.at.of("group"), fmt.Errorf("group %q is no usable group name", g.Group)
		}
		if len(g.When) == 0 {
			return i, g.at.of("when"), fmt.Errorf("group %q: when is empty; to give it to every token of this issuer, name a condition every token meets", g.Group)
		}
		when, at, err := conditions(g.When)
		if err != nil {
			return i, at, err
		}
		i.Groups = append(i.Groups, access.GroupRule{Group: g.Group, When: when})
	}
	return i, f.at.begin, nil
}

var algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

func conditions(in []conditionFile) ([]access.Condition, line, error) {
	var out []access.Condition
	for _, f := range in {
		switch {
		case f.Claim == "":
			return nil, f.at.begin, errors.New("a condition names no claim")
		case (len(f.Equals) == 0) == (f.Matches == ""):
			return nil, f.at.begin, fmt.Errorf("condition on %q: exactly one of equals and matches is wanted", f.Claim)
		case f.Matches != "" && (!strings.HasPrefix(f.Matches, "^") || !strings.HasSuffix(f.Matches, "$")):
			return nil, f.at.of("matches"), fmt.Errorf("condition on %q: pattern %q is not anchored; write ^%s$", f.Claim, f.Matches, strings.Trim(f.Matches, "^$"))
		}
		if _, err := regexp.Compile(f.Matches); err != nil {
			return nil, f.at.of("matches"), fmt.Errorf("condition on %q: %w", f.Claim, err)
		}
		out = append(out, access.Condition{Claim: f.Claim, Equals: f.Equals, Matches: f.Matches})
	}
	return out, 0, nil
}

func (f sessionsFile) lengths() (Sessions, line, error) {
	s := Sessions{Idle: 2 * time.Hour, Longest: 12 * time.Hour, Credential: longestCredential}
	for _, field := range []struct {
		name string
		node yaml.Node
		into *time.Duration
	}{{"idle", f.Idle, &s.Idle}, {"longest", f.Longest, &s.Longest}, {"credential", f.Credential, &s.Credential}} {
		if field.node.IsZero() {
			continue
		}
		d, err := time.ParseDuration(field.node.Value)
		if err != nil {
			return s, f.at.of(field.name), fmt.Errorf("%s: %q is no duration; write one like 45m or 2h", field.name, field.node.Value)
		}
		*field.into = d
	}
	switch {
	case s.Credential < shortestCredential || s.Credential > longestCredential:
		return s, f.at.of("credential"), fmt.Errorf("credential is %v; AWS allows %v to %v where one role assumes another", s.Credential, shortestCredential, longestCredential)
	case s.Idle < s.Credential:
		return s, f.at.of("idle"), fmt.Errorf("idle is %v, shorter than a credential's %v: a session would end before it is renewed", s.Idle, s.Credential)
	case s.Longest < s.Idle:
		return s, f.at.of("longest"), fmt.Errorf("longest is %v, shorter than idle's %v", s.Longest, s.Idle)
	}
	return s, 0, nil
}
