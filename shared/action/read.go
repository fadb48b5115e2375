package action

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"unicode/utf8"

	yaml3 "go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
	yaml2 "sigs.k8s.io/yaml/goyaml.v2"

	"sallyport/shared/access"
)

// maxDepth is how deep a body may nest. The deepest that is known, OpenAPI schemas in custom resource definitions, stay
// well below it.
const maxDepth = 200

// magic begins every protobuf body (k8s.io/apimachinery/pkg/runtime/serializer/protobuf).
const magic = "k8s\x00"

var proto = protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)

// readJSON reads one JSON value as the API server does, whole numbers as int64, and refuses what another reader could
// read otherwise.
func readJSON(b []byte) (any, error) {
	if err := plain(b); err != nil {
		return nil, err
	}
	if depth(b) > maxDepth {
		return nil, access.Errorf(access.Invalid, "the body is nested deeper than %d levels", maxDepth)
	}
	var v any
	strict, err := kjson.UnmarshalStrict(b, &v, kjson.DisallowDuplicateFields)
	if err != nil {
		return nil, access.Errorf(access.Invalid, "the body is not one JSON value; check it with a JSON parser").Because(err)
	}
	if len(strict) > 0 {
		return nil, access.Errorf(access.Invalid, "the body has a key twice in one object; give every key once").Because(errors.Join(strict...))
	}
	return v, nil
}

// plain refuses bytes whose reading depends on who reads: a byte order mark, and what is no UTF-8.
func plain(b []byte) error {
	if bytes.HasPrefix(b, []byte("\xef\xbb\xbf")) {
		return access.Errorf(access.Invalid, "the body begins with a byte order mark; leave it out")
	}
	if !utf8.Valid(b) {
		return access.Errorf(access.Invalid, "the body is not UTF-8")
	}
	return nil
}

// depth is how deep JSON nests. It may be wrong about what is no JSON, which is refused afterwards.
func depth(b []byte) int {
	deepest, now, quoted := 0, 0, false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '{' || c == '[':
			now++
			deepest = max(deepest, now)
		case c == '}' || c == ']':
			now--
		}
	}
	return deepest
}

// readYAML reads one YAML document through the API server's library, which makes JSON of it, and refuses what that
// library resolves silently: aliases, merge keys, tags, keys that are no strings, and whatever follows the first document.
func readYAML(b []byte) (any, error) {
	if err := plain(b); err != nil {
		return nil, err
	}
	bad := func(err error) error {
		return access.Errorf(access.Invalid, "the body is not one YAML document; check it with a YAML parser").Because(err)
	}
	// The library does not show its syntax tree. This one has the same scanner, and shows aliases and tags.
	var node yaml3.Node
	d := yaml3.NewDecoder(bytes.NewReader(b))
	if err := d.Decode(&node); err != nil {
		return nil, bad(err)
	}
	if err := simple(&node, 0); err != nil {
		return nil, err
	}
	second := access.Errorf(access.Invalid, "the body has more than one YAML document; send them one by one")
	if err := d.Decode(new(yaml3.Node)); !errors.Is(err, io.EOF) {
		return nil, second
	}
	var v any
	d2 := yaml2.NewDecoder(bytes.NewReader(b))
	if err := d2.Decode(&v); err != nil {
		return nil, bad(err)
	}
	if err := d2.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, second
	}
	if !stringKeys(v) {
		return nil, access.Errorf(access.Invalid, "the body has a YAML key that is not a string; put it in quotes")
	}
	j, err := yaml.YAMLToJSONStrict(b)
	if err != nil {
		return nil, bad(err)
	}
	return readJSON(j)
}

// simple refuses YAML that says more than JSON can.
func simple(n *yaml3.Node, level int) error {
	switch {
	case level > maxDepth:
		return access.Errorf(access.Invalid, "the body is nested deeper than %d levels", maxDepth)
	case n.Kind == yaml3.AliasNode || n.Anchor != "":
		return access.Errorf(access.Invalid, "the body has a YAML anchor or alias in line %d; write the value out", n.Line)
	case n.Style&yaml3.TaggedStyle != 0:
		return access.Errorf(access.Invalid, "the body has a YAML tag in line %d; leave it out", n.Line)
	}
	for i, c := range n.Content {
		if n.Kind == yaml3.MappingNode && i%2 == 0 && c.Value == "<<" {
			return access.Errorf(access.Invalid, "the body has a YAML merge key in line %d; write the keys out", c.Line)
		}
		if err := simple(c, level+1); err != nil {
			return err
		}
	}
	return nil
}

// stringKeys says whether all keys are strings. Others, such as 1 and "1", become one key when JSON is made of them, and
// chance decides which value stays.
func stringKeys(v any) bool {
	switch v := v.(type) {
	case map[any]any:
		for k, c := range v {
			if _, ok := k.(string); !ok || !stringKeys(c) {
				return false
			}
		}
	case []any:
		for _, c := range v {
			if !stringKeys(c) {
				return false
			}
		}
	}
	return true
}

// readProtobuf reads a body in the API server's protobuf envelope, of a kind the scheme knows.
func readProtobuf(b []byte) (any, error) {
	if !bytes.HasPrefix(b, []byte(magic)) {
		return nil, access.Errorf(access.Invalid, "the body is not the protobuf that its Content-Type says")
	}
	var envelope runtime.Unknown
	if err := envelope.Unmarshal(b[len(magic):]); err != nil {
		return nil, access.Errorf(access.Invalid, "the body is not the protobuf that its Content-Type says").Because(err)
	}
	unreadable := func(err error) error {
		return access.Errorf(access.Media, "the body's protobuf cannot be read in full; send JSON").Because(err)
	}
	var object runtime.Object
	var again bytes.Buffer
	var err error
	if envelope.Kind == "DeleteOptions" { // known in every API group, also those the scheme does not know
		o := &metav1.DeleteOptions{}
		object, err = o, o.Unmarshal(envelope.Raw)
		o.SetGroupVersionKind(envelope.GroupVersionKind())
	} else {
		object, _, err = proto.Decode(b, nil, nil)
	}
	if err != nil {
		return nil, unreadable(err)
	}
	// Fields that this release's types do not have, and fields sent twice, are dropped in silence. The same bytes must come
	// out, or the cluster could see what we do not.
	if err := proto.Encode(object, &again); err != nil {
		return nil, unreadable(err)
	}
	if !bytes.Equal(again.Bytes(), b) {
		return nil, unreadable(errors.New("it has unknown fields or is not in canonical form"))
	}
	if raw(envelope) {
		j, err := json.Marshal(object)
		if err != nil {
			return nil, unreadable(err)
		}
		return readJSON(j)
	}
	m, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, unreadable(err)
	}
	if !sound(m, 0) {
		return nil, access.Errorf(access.Invalid, "the body has text that is not UTF-8, or is nested deeper than %d levels", maxDepth)
	}
	return m, nil
}

// raw says whether the kind carries JSON inside its protobuf, which must be read as strictly as any.
func raw(envelope runtime.Unknown) bool {
	return envelope.Kind == "ControllerRevision" || envelope.GroupVersionKind().Group == "resource.k8s.io"
}

// sound says whether all text is UTF-8: protobuf does not see to it, and JSON made of it would differ.
func sound(v any, level int) bool {
	if level > maxDepth {
		return false
	}
	switch v := v.(type) {
	case string:
		return utf8.ValidString(v)
	case map[string]any:
		for k, c := range v {
			if !utf8.ValidString(k) || !sound(c, level+1) {
				return false
			}
		}
	case []any:
		for _, c := range v {
			if !sound(c, level+1) {
				return false
			}
		}
	}
	return true
}
