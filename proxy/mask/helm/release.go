package helm

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A rule says what becomes of a value and of what is inside it. Elements of a list have the list's rule.
type rule struct {
	// leaf makes what is shown of a string, or of a number where numbers is set. Truths and null always stay.
	leaf    func(m *masker, s string) (string, error)
	numbers bool
	fields  map[string]*rule // by the exact key
	other   *rule            // of keys that are not in fields; nil for the rule itself
	known   bool             // leaves whose key is named like a secret are looked for in the notes
}

// The rules of a release, by the types of Helm 3 and 4 (pkg/release, pkg/chart). Helm's decoder folds the case of keys, and
// takes the last of a key that comes twice: here a key that is spelled otherwise is an unknown one, and every occurrence
// is rewritten.
var (
	text   = &rule{leaf: func(m *masker, s string) (string, error) { return m.Text(s), nil }}
	secret = &rule{leaf: func(m *masker, s string) (string, error) { return m.Plain([]byte(s)), nil }, numbers: true}
	values = &rule{leaf: secret.leaf, numbers: true, known: true}
	blob   = &rule{leaf: (*masker).blob}
	docs   = &rule{leaf: (*masker).manifest}
	prose  = &rule{} // rewritten when all is known; see masker.late

	files = &rule{leaf: secret.leaf, fields: map[string]*rule{"name": text, "data": blob, "modtime": text}, other: secret}
	chart = &rule{leaf: secret.leaf, fields: map[string]*rule{
		"metadata": text, "lock": text, "templates": files, "values": values, "schema": blob, "files": files, "modtime": text, "schemamodtime": text,
	}, other: secret}
	info = &rule{leaf: secret.leaf, fields: map[string]*rule{
		"first_deployed": text, "last_deployed": text, "deleted": text, "description": prose, "status": text, "notes": prose,
		"rollback_revision": text,
	}, other: secret}
	hooks = &rule{leaf: secret.leaf, fields: map[string]*rule{
		"name": text, "kind": text, "path": text, "manifest": docs, "events": text, "last_run": text, "weight": text,
		"delete_policies": text, "output_log_policies": text,
	}, other: secret}
	top = &rule{leaf: secret.leaf, fields: map[string]*rule{
		"name": text, "version": text, "namespace": text, "apply_method": text,
		"info": info, "chart": chart, "config": values, "manifest": docs, "hooks": hooks,
	}, other: secret}
)

// A masker rewrites one release.
type masker struct {
	Options
	out   bytes.Buffer
	late  []late
	known []string // secrets in clear that prose may repeat
}

// late is prose, and where it goes: what a release's notes say comes before the manifests that tell what is secret in it.
type late struct {
	at   int
	text string
}

// rewrite writes the JSON anew, masked. It was seen to be one JSON value: the decoder's tokens are laxer.
func (m *masker) rewrite(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return m.value(d, top, false, 0)
}

// value rewrites the next value. named is true where a key on the way is named like a secret.
func (m *masker) value(d *json.Decoder, r *rule, named bool, level int) error {
	switch {
	case level > maxLevel:
		return fmt.Errorf("the release is nested deeper than %d levels", maxLevel)
	case m.out.Len() > maxMasked:
		return ErrBounds
	}
	t, err := d.Token()
	if err != nil {
		return err
	}
	switch t := t.(type) {
	case json.Delim:
		if t == '[' {
			return m.list(d, r, named, level)
		}
		return m.object(d, r, named, level)
	case string:
		if r == prose {
			m.late = append(m.late, late{m.out.Len(), t})
			return nil
		}
		if named && r.known {
			m.know(t)
		}
		return m.leaf(r, t)
	case json.Number:
		if !r.numbers {
			m.out.WriteString(t.String())
			return nil
		}
		if named && r.known {
			m.know(t.String())
		}
		return m.leaf(r, t.String())
	case bool:
		fmt.Fprint(&m.out, t)
	default:
		m.out.WriteString("null")
	}
	return nil
}

func (m *masker) leaf(r *rule, s string) error {
	s, err := r.leaf(m, s)
	if err != nil {
		return err
	}
	m.quote(s)
	return nil
}

func (m *masker) quote(s string) { m.out.Write(quoted(s)) }

func quoted(s string) []byte {
	b, _ := json.Marshal(s) // a string always marshals
	return b
}

func (m *masker) list(d *json.Decoder, r *rule, named bool, level int) error {
	m.out.WriteByte('[')
	for first := true; d.More(); first = false {
		if !first {
			m.out.WriteByte(',')
		}
		if err := m.value(d, r, named, level+1); err != nil {
			return err
		}
	}
	m.out.WriteByte(']')
	_, err := d.Token()
	return err
}

func (m *masker) object(d *json.Decoder, r *rule, named bool, level int) error {
	m.out.WriteByte('{')
	for first := true; d.More(); first = false {
		t, err := d.Token()
		if err != nil {
			return err
		}
		key, _ := t.(string)
		if !first {
			m.out.WriteByte(',')
		}
		m.quote(key)
		m.out.WriteByte(':')
		inside := r
		if f := r.fields[key]; f != nil {
			inside = f
		} else if r.other != nil {
			inside = r.other
		}
		if err := m.value(d, inside, named || r.known && m.Secret(key), level+1); err != nil {
			return err
		}
	}
	m.out.WriteByte('}')
	_, err := d.Token()
	return err
}

// blob is a file's text, which Helm keeps as bytes.
func (m *masker) blob(s string) (string, error) {
	b, err := base64.StdEncoding.DecodeString(s)
	if err != nil {
		return base64.StdEncoding.EncodeToString([]byte(m.Plain([]byte(s)))), nil
	}
	return base64.StdEncoding.EncodeToString([]byte(m.Text(string(b)))), nil
}

// What prose is searched for: what is shorter is a word that other things have too.
const (
	minKnown = 6
	maxKnown = 1000
)

// know remembers a secret for the prose.
func (m *masker) know(s string) {
	s = strings.TrimSpace(s)
	if len(s) >= minKnown && len(m.known) < maxKnown {
		m.known = append(m.known, s)
	}
}

// assemble is the release with its prose.
func (m *masker) assemble() []byte {
	slices.SortStableFunc(m.known, func(a, b string) int { return len(b) - len(a) }) // the longest first, or half of it stays
	var pairs []string
	for _, s := range m.known {
		pairs = append(pairs, s, Constant)
	}
	replacer := strings.NewReplacer(pairs...)
	b := m.out.Bytes()
	var out []byte
	from := 0
	for _, l := range m.late {
		out = append(append(out, b[from:l.at]...), quoted(m.Text(replacer.Replace(l.text)))...)
		from = l.at
	}
	return append(out, b[from:]...)
}
