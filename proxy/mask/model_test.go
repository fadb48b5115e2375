package mask_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/mask"
	"sallyport/shared/detect"
)

// What follows is the masker again, as simply as it can be said: a body is read whole by encoding/json, keeping order and
// equal keys, and masked by walking it. The streaming one must come to the same.

type member struct {
	key   string
	value any
}

type members []member

type list []any

// parse reads documents.
func parse(b []byte) ([]any, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var docs []any
	for {
		v, err := parseValue(d)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, v)
	}
}

func parseValue(d *json.Decoder) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		o := members{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, noEOF(err)
			}
			v, err := parseValue(d)
			if err != nil {
				return nil, noEOF(err)
			}
			o = append(o, member{k.(string), v})
		}
		_, err := d.Token()
		return o, noEOF(err)
	case json.Delim('['):
		l := list{}
		for d.More() {
			v, err := parseValue(d)
			if err != nil {
				return nil, noEOF(err)
			}
			l = append(l, v)
		}
		_, err := d.Token()
		return l, noEOF(err)
	}
	return t, nil
}

// parseAgain is parse by json/v2's decoder.
func parseAgain(b []byte) ([]any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	var docs []any
	for {
		v, err := parseToken(d)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return nil, err
		}
		docs = append(docs, v)
	}
}

func parseToken(d *jsontext.Decoder) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	switch t.Kind() {
	case '{':
		o := members{}
		for d.PeekKind() != '}' {
			k, err := d.ReadToken()
			if err != nil {
				return nil, noEOF(err)
			}
			name := k.String() // k is good until the next
			v, err := parseToken(d)
			if err != nil {
				return nil, noEOF(err)
			}
			o = append(o, member{name, v})
		}
		_, err := d.ReadToken()
		return o, noEOF(err)
	case '[':
		l := list{}
		for d.PeekKind() != ']' {
			v, err := parseToken(d)
			if err != nil {
				return nil, noEOF(err)
			}
			l = append(l, v)
		}
		_, err := d.ReadToken()
		return l, noEOF(err)
	case '"':
		return t.String(), nil
	case '0':
		return json.Number(t.String()), nil
	case 't', 'f':
		return t.Bool(), nil
	}
	return nil, nil
}

// alike holds that both decoders read the same.
func alike(t *testing.T, b []byte) {
	t.Helper()
	one, err := parse(b)
	other, again := parseAgain(b)
	if err != nil || again != nil || !reflect.DeepEqual(one, other) {
		t.Fatalf("encoding/json reads %.2000q as %.2000v, %v; json/v2 as %.2000v, %v", b, one, err, other, again)
	}
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// masked stands in the expected value for a mask: the form, and what is masked, where it is a string or a number.
type masked struct {
	encoded bool
	value   any
	ns      string
	known   bool
}

type model struct {
	req    mask.Request
	names  *regexp.Regexp
	detect *detect.Set
	key    []byte
	level  int
	ns     string
	known  bool
	fixed  bool
}

func (m *model) mask(v any, encoded bool) any {
	if v == nil {
		return nil
	}
	return masked{encoded, v, m.ns, m.known}
}

// object walks a body or an object of the API. As the masker has it, the places that hold objects are looked for in objects.
func (m *model) object(v any) any {
	if _, ok := v.(members); ok && !m.fixed {
		m.known = false
		defer func() { m.known = false }()
	}
	return m.walk(v, nil)
}

func fold(s, t string) bool { return strings.EqualFold(s, t) }

func is(path []string, want ...string) bool {
	if len(path) != len(want) {
		return false
	}
	for i, p := range path {
		if want[i] != "*" && want[i] != p && (want[i] == "[]" || !fold(p, want[i])) || want[i] == "*" && p == "[]" {
			return false
		}
	}
	return true
}

func (m *model) walk(v any, path []string) any {
	if is(path, "items", "[]") || is(path, "object") || is(path, "rows", "[]", "object") {
		if o := m.object(v); len(path) > 0 {
			return o
		}
	}
	at := func(steps ...string) bool { return is(path, steps...) }
	_, isObject := v.(members)
	_, isList := v.(list)
	last := ""
	if len(path) > 0 {
		last = path[len(path)-1]
	}
	switch {
	case len(path) >= 4 && path[len(path)-1] == "fieldsV1" && len(path) == 4 && path[0] == "metadata" && path[1] == "managedFields" && path[2] == "[]":
		return v
	case fold(last, "kubectl.kubernetes.io/last-applied-configuration"), fold(last, "kapp.k14s.io/original"):
		if m.req.Resource == "secrets" && (at("data", "*") || at("stringData", "*")) {
			break
		}
		return m.embedded(v)
	}
	if m.req.Resource == "secrets" && m.req.Group == "" {
		switch {
		case at("data") || at("stringData"):
			if !isObject {
				return m.mask(v, false)
			}
		case at("data", "*"):
			if len(path) == 2 && path[1] == m.req.Reveal && path[0] == "data" && m.level == 0 && m.req.Reveal != "" {
				return v
			}
			return m.mask(v, true)
		case at("stringData", "*"):
			return m.mask(v, false)
		}
	}
	switch {
	case fold(last, "objectset.rio.cattle.io/applied"):
		return m.mask(v, false)
	case m.req.Resource == "serviceaccounts" && (at("status", "token") || at("spec", "token")):
		return m.mask(v, false)
	case m.req.Resource == "certificatesigningrequests" && (at("status", "certificate") || at("spec", "request")):
		return m.mask(v, true)
	case m.req.Resource == "configmaps" && at("binaryData", "*") && m.names.MatchString(last):
		return m.mask(v, true)
	case m.req.Resource == "configmaps" && at("data", "*") && m.names.MatchString(last) && !isObject && !isList,
		len(path) > 1 && fold(path[len(path)-2], "env") && last != "[]" && m.names.MatchString(last) && !isObject && !isList:
		return m.mask(v, false)
	}
	switch v := v.(type) {
	case members:
		env := len(path) > 1 && last == "[]" && fold(path[len(path)-2], "env")
		harmless, bad := false, false
		out := members{}
		for _, e := range v {
			p := append(append([]string{}, path...), e.key)
			switch {
			case env && fold(e.key, "value") && (!harmless || bad):
				out = append(out, member{e.key, m.mask(e.value, false)})
				continue
			case env && fold(e.key, "name"):
				if s, ok := e.value.(string); ok {
					bad = bad || m.names.MatchString(s)
					harmless = harmless || e.key == "name"
				}
			}
			out = append(out, member{e.key, m.walk(e.value, p)})
		}
		return out
	case list:
		out := list{}
		for _, e := range v {
			out = append(out, m.walk(e, append(append([]string{}, path...), "[]")))
		}
		return out
	case string:
		if len(path) == 1 && (last == "kind" || last == "apiVersion") {
			return v
		}
		if len(path) == 2 && path[0] == "metadata" {
			switch last {
			case "namespace":
				if !m.fixed {
					m.ns, m.known = v, true
				}
				return v
			case "name", "generateName", "uid", "resourceVersion", "continue", "selfLink", "creationTimestamp", "deletionTimestamp":
				return v
			}
		}
		if m.detect != nil {
			return string(m.detect.Mask([]byte(v)))
		}
	}
	return v
}

// inside is the expected value of a string that holds an object.
type inside struct{ value any }

func (m *model) embedded(v any) any {
	s, ok := v.(string)
	if !ok || m.level == 2 || !strings.HasPrefix(strings.TrimLeft(s, " \t\r\n"), "{") || !strict([]byte(s), false) {
		return m.mask(v, false)
	}
	docs, err := parse([]byte(s))
	if err != nil || len(docs) != 1 {
		return m.mask(v, false)
	}
	inner := *m
	inner.level, inner.fixed = m.level+1, true
	return inside{inner.object(docs[0])}
}

// same compares what came out with what is expected.
func (m *model) same(got, want any) error {
	switch want := want.(type) {
	case inside:
		s, ok := got.(string)
		if !ok {
			return fmt.Errorf("%v is no string", got)
		}
		docs, err := parse([]byte(s))
		if err != nil || len(docs) != 1 {
			return fmt.Errorf("%q holds no object: %w", s, err)
		}
		return m.same(docs[0], want.value)
	case masked:
		s, ok := got.(string)
		if !ok {
			return fmt.Errorf("%v is no mask", got)
		}
		key := m.key
		if !want.known {
			key = nil
		}
		form := mask.Plain
		if want.encoded {
			form = mask.Encoded
			if b, err := base64.StdEncoding.DecodeString(s); err != nil || !strings.HasPrefix(string(b), "[masked") {
				return fmt.Errorf("%q is no base64 of a mask", s)
			}
		}
		ns := of(m.req, want.ns)
		switch v := want.value.(type) {
		case string:
			if exp := form(key, ns, []byte(v)); s != exp {
				return fmt.Errorf("%q: got the mask %q, want %q (namespace %q, known %v)", v, s, exp, want.ns, want.known)
			}
		case json.Number:
			if exp := form(key, ns, []byte(v)); s != exp {
				return fmt.Errorf("%q: got the mask %q, want %q", v, s, exp)
			}
		default:
			if exp := form(key, "", nil); len(s) != len(exp) {
				return fmt.Errorf("%q is no mask", s)
			}
		}
		return nil
	case members:
		got, ok := got.(members)
		if !ok || len(got) != len(want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		for i := range want {
			if got[i].key != want[i].key {
				return fmt.Errorf("got the key %q, want %q", got[i].key, want[i].key)
			}
			if err := m.same(got[i].value, want[i].value); err != nil {
				return fmt.Errorf("%s: %w", want[i].key, err)
			}
		}
		return nil
	case list:
		got, ok := got.(list)
		if !ok || len(got) != len(want) {
			return fmt.Errorf("got %v, want %v", got, want)
		}
		for i := range want {
			if err := m.same(got[i], want[i]); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
		}
		return nil
	}
	if got != want {
		return fmt.Errorf("got %#v, want %#v", got, want)
	}
	return nil
}

// of is the namespace that the masks of a request are made with: those of what is in no Secret are others.
func of(req mask.Request, ns string) string {
	if req.Resource == "secrets" && req.Group == "" {
		return ns
	}
	return "\xfe" + ns
}

// agree masks a body and compares with the model.
func agree(t *testing.T, m model, c mask.Config, in []byte) []byte {
	t.Helper()
	rules, err := mask.Compile(c, m.req)
	if err != nil {
		t.Fatal(err)
	}
	out, err := rules.Bytes(in, m.key)
	if err != nil {
		t.Fatalf("%.300q: %v", in, err)
	}
	m.names, m.detect = c.Names, c.Detect
	m.compare(t, in, out)
	return out
}

func (m model) compare(t *testing.T, in, out []byte) {
	t.Helper()
	m.fixed = m.req.Namespace != "" || m.req.Resource == "certificatesigningrequests"
	m.ns, m.known = m.req.Namespace, m.fixed
	ins, err := parse(in)
	if err != nil {
		t.Fatalf("%.300q: %v", in, err)
	}
	outs, err := parse(out)
	if err != nil || len(outs) != len(ins) {
		t.Fatalf("%.300q became %.300q: %v", in, out, err)
	}
	for i := range ins {
		if err := m.same(outs[i], m.object(ins[i])); err != nil {
			t.Fatalf("%.2000q became %.2000q: %v", in, out, err)
		}
	}
}
