package helm

import (
	"encoding/base64"
	"errors"
	"io"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// What is parsed of one document, which takes some hundred bytes of memory a node. The API server takes no object that
// reaches either bound.
const (
	maxDocument = 2 << 20
	maxNodes    = 200_000
)

// lastApplied is the annotation in which kubectl keeps an object as it was applied.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

var errUnclear = errors.New("the document says more than JSON can")

// manifest masks a stream of YAML documents. Every document is masked by itself: one that is not understood is left out
// whole, as a comment, so that Helm sees a stream that parses.
func (m *masker) manifest(s string) (string, error) {
	var out strings.Builder
	for s != "" {
		var doc string
		doc, s = cut(s)
		if strings.TrimSpace(doc) == "" {
			continue
		}
		masked, err := m.documents(doc)
		if err != nil {
			masked = "---\n# " + m.Plain([]byte(doc)) + " stands for a document that could not be masked in parts\n"
		}
		out.WriteString(masked)
		if out.Len() > maxMasked {
			return "", ErrBounds
		}
	}
	return out.String(), nil
}

// cut takes the first document off a stream. Three dashes begin a line only where a document begins: YAML forbids them
// inside one.
func cut(s string) (doc, rest string) {
	for at := 0; ; {
		i := strings.Index(s[at:], "\n---")
		if i < 0 {
			return s, ""
		}
		at += i + 1
		after := s[at+3:]
		if after == "" || strings.ContainsRune(" \t\r\n", rune(after[0])) {
			return s[:at], s[at:]
		}
	}
}

// documents masks what cut takes for one document, and what may be several.
func (m *masker) documents(s string) (masked string, err error) {
	if len(s) > maxDocument || nodes(s) > maxNodes {
		return "", ErrBounds
	}
	defer func() {
		if r := recover(); r != nil {
			masked, err = "", errUnclear
		}
	}()
	var out strings.Builder
	d := yaml.NewDecoder(strings.NewReader(s))
	for {
		var doc yaml.Node
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return out.String(), nil
		} else if err != nil {
			return "", err
		}
		if err := plain(&doc, 0); err != nil {
			return "", err
		}
		known := len(m.known)
		m.node(&doc, place{})
		out.WriteString("---\n")
		e := yaml.NewEncoder(&out)
		e.SetIndent(2)
		if err := errors.Join(e.Encode(&doc), e.Close()); err != nil {
			m.known = m.known[:known]
			return "", err
		}
	}
}

// nodes is at least how many nodes YAML has: each needs one of these to be told from the one before.
func nodes(s string) int {
	n := 0
	for i := range len(s) {
		switch s[i] {
		case '\n', '\r', ',', ':', '[', '{', '-', '?', '"', '\'':
			n++
		}
	}
	return n
}

// plain refuses YAML that says more than JSON can: a value's place and type would depend on who reads.
func plain(n *yaml.Node, level int) error {
	if level > maxLevel || n.Kind == yaml.AliasNode || n.Anchor != "" || n.Style&yaml.TaggedStyle != 0 {
		return errUnclear
	}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 && (c.Kind != yaml.ScalarNode || c.Tag == "!!merge" || c.Value == "<<") {
			return errUnclear
		}
		if err := plain(c, level+1); err != nil {
			return err
		}
	}
	return nil
}

// A place is where a node is.
type place struct {
	kind string // of objects in a list whose own kind says so, as in SecretList
	env  bool   // an element of a list of environment variables
	// paths are what is left of the paths that lead through here; an empty one ends here.
	paths [][]string
}

// node masks a node and what is in it.
func (m *masker) node(n *yaml.Node, p place) {
	m.comments(n)
	if slices.ContainsFunc(p.paths, func(path []string) bool { return len(path) == 0 }) {
		m.hide(n, false)
		return
	}
	switch n.Kind {
	case yaml.DocumentNode:
		for _, c := range n.Content {
			m.node(c, p)
		}
	case yaml.SequenceNode:
		p.paths = step(p.paths, func(name string) bool { return name == "[]" })
		for _, c := range n.Content {
			m.node(c, p)
		}
	case yaml.MappingNode:
		m.mapping(n, p)
	case yaml.ScalarNode:
		if text := m.Text(n.Value); text != n.Value {
			set(n, text)
		}
	}
}

// mapping masks a mapping, which may be an object. All that is said twice is taken at its worst.
func (m *masker) mapping(n *yaml.Node, p place) {
	secret, configMap, env := strings.EqualFold(p.kind, "Secret"), strings.EqualFold(p.kind, "ConfigMap"), false
	var apiVersions, kinds []string
	for k, v := range pairs(n) {
		switch {
		case strings.EqualFold(k.Value, "kind"):
			kinds = append(kinds, v.Value)
			secret = secret || strings.EqualFold(v.Value, "Secret")
			configMap = configMap || strings.EqualFold(v.Value, "ConfigMap")
		case strings.EqualFold(k.Value, "apiVersion"):
			apiVersions = append(apiVersions, v.Value)
		case strings.EqualFold(k.Value, "name"):
			env = env || p.env && m.Secret(v.Value)
		}
	}
	paths := p.paths
	for _, kind := range kinds {
		for _, v := range append(apiVersions, "")[:max(1, len(apiVersions))] {
			paths = append(slices.Clip(paths), m.Paths(v, kind)...)
		}
	}
	for k, v := range pairs(n) {
		is := func(name string) bool { return strings.EqualFold(k.Value, name) }
		inside := place{env: is("env"), paths: step(paths, func(name string) bool { return name == "*" || is(name) })}
		switch {
		case is("stringData"), secret && is("data"):
			m.secret(v, is("data"))
			k.HeadComment, k.LineComment, k.FootComment = "", "", ""
		case configMap && (is("data") || is("binaryData")):
			m.comments(k)
			m.configMap(v, inside, is("binaryData"))
		case env && is("value"), k.Value == lastApplied:
			m.hide(v, false)
			k.HeadComment, k.LineComment, k.FootComment = "", "", ""
		default:
			m.comments(k)
			if is("items") {
				for _, kind := range append(kinds, p.kind) {
					if of, ok := strings.CutSuffix(strings.ToLower(kind), "list"); ok && of != "" && !strings.EqualFold(inside.kind, "Secret") {
						inside.kind = of
					}
				}
			}
			m.node(v, inside)
		}
	}
}

// secret masks a Secret's data or stringData.
func (m *masker) secret(n *yaml.Node, encoded bool) {
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	if n.Kind != yaml.MappingNode {
		m.hide(n, encoded)
		return
	}
	for k, v := range pairs(n) {
		k.HeadComment, k.LineComment, k.FootComment = "", "", ""
		m.hide(v, encoded)
	}
}

// configMap masks of a ConfigMap's values those that are named like secrets, and of the others what detectors find.
func (m *masker) configMap(n *yaml.Node, p place, encoded bool) {
	if n.Kind != yaml.MappingNode {
		m.node(n, p)
		return
	}
	m.comments(n)
	for k, v := range pairs(n) {
		if m.Secret(k.Value) {
			k.HeadComment, k.LineComment, k.FootComment = "", "", ""
			m.hide(v, encoded)
			continue
		}
		m.comments(k)
		m.node(v, place{paths: step(p.paths, func(name string) bool { return name == "*" || strings.EqualFold(name, k.Value) })})
	}
}

// hide puts the mask in a value's place, whatever it is: inside a mapping, keys could be what is secret. Null stays null.
func (m *masker) hide(n *yaml.Node, encoded bool) {
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		n.HeadComment, n.LineComment, n.FootComment = "", "", ""
		return
	}
	var value string
	if n.Kind == yaml.ScalarNode {
		value = n.Value
	} else if b, err := yaml.Marshal(n); err == nil {
		value = string(b)
	}
	m.know(value)
	mask := m.Plain
	if encoded {
		mask = m.Encoded
		if b, err := base64.StdEncoding.DecodeString(value); err == nil {
			m.know(string(b))
		}
	}
	*n = yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: mask([]byte(value)), Style: yaml.DoubleQuotedStyle}
}

// set changes a scalar's text. A mask begins like a list: one line is put in quotes.
func set(n *yaml.Node, text string) {
	n.Value, n.Tag = text, "!!str"
	if !strings.Contains(text, "\n") {
		n.Style = yaml.DoubleQuotedStyle
	}
}

func (m *masker) comments(n *yaml.Node) {
	for _, c := range []*string{&n.HeadComment, &n.LineComment, &n.FootComment} {
		if *c != "" {
			*c = m.Text(*c)
		}
	}
}

// pairs are a mapping's keys and values.
func pairs(n *yaml.Node) func(yield func(k, v *yaml.Node) bool) {
	return func(yield func(k, v *yaml.Node) bool) {
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i], n.Content[i+1]) {
				return
			}
		}
	}
}

// step is what is left of those paths that go on with a name.
func step(paths [][]string, with func(name string) bool) [][]string {
	var left [][]string
	for _, p := range paths {
		if len(p) > 0 && with(p[0]) {
			left = append(left, p[1:])
		}
	}
	return left
}
