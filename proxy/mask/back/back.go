// Package back keeps masks from coming back: a write that carries one is refused before it is forwarded, so that no mask
// ever takes the place of the value it stands for.
//
// It promises, to whoever owns the secret and against an agent that reads a masked object and writes it back, knowingly or
// not: a body with a mask in it, as package mask spells it, is refused, whatever it is written in (JSON, YAML, protobuf,
// every form of patch), wherever the mask is (a value, a key, in the middle of a longer text) and however the formats that
// Kubernetes' clients nest have wrapped it: base64 at any alignment, with broken lines, in base64 again (a registry's
// login, a Helm release), gzip, and JSON inside strings with its escapes. The refusal names the field and what to do.
//
// When it fails, a secret in the cluster is overwritten with a mask, which whoever uses it notices, and nothing is shown to
// anybody.
//
// It does not promise to know a mask that somebody took care to change: cut, encrypted, in another compression, beyond
// eight layers, or behind 48 MiB of what inflates before it. Whoever can do that can write any wrong value. And it cannot
// tell a mask from somebody's own text that is spelled like one: such text is refused too.
package back

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

// maxFields is how many fields a refusal names.
const maxFields = 8

// Check looks for masks in a decoded value: map[string]any, []any, string and what else JSON has. The error is of kind
// access.Unprocessable and names the fields.
func Check(value any) error {
	w := &walk{find: newFinder()}
	w.value(value, nil)
	return w.refuse(access.Action{}, nil)
}

// Body looks for masks in a request's body, whatever its media type. A body that cannot be decoded is searched as it is:
// that it cannot be decoded is for others to say. The error is of kind access.Unprocessable and says what to do.
func Body(a access.Action, media string, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	w := &walk{find: newFinder()}
	value, ok := decode(a, media, body)
	switch ops, isPatch := value.([]any); {
	case !ok:
		if w.find.in(body, 0) {
			w.add(nil)
		}
	case isPatch:
		w.operations(ops)
	default:
		w.value(value, nil)
	}
	object, _ := value.(map[string]any)
	return w.refuse(a, object)
}

// decode reads a body as the gate's rules do. Of a JSON patch it is the list of operations.
func decode(a access.Action, media string, body []byte) (any, bool) {
	b, err := action.Decode(a, media, body)
	if err != nil {
		return nil, false
	}
	if bytes.HasPrefix(bytes.TrimLeft(body, " \t\r\n"), []byte("[")) { // what else is decoded is an object
		var ops []any
		err := json.Unmarshal(body, &ops)
		return ops, err == nil
	}
	object, err := b.Judge(nil)
	if err != nil {
		return nil, false
	}
	return object.Value, true
}

// A walk finds the fields that carry masks.
type walk struct {
	find  *finder
	at    []field // of those that do, the first few
	count int
}

// A field is the way to a value: keys, and "[0]" for an element of a list. A JSON patch's is the operation's pointer first.
type field []string

func (w *walk) add(at field) {
	if w.count++; len(w.at) < maxFields {
		w.at = append(w.at, slices.Clone(at))
	}
}

func (w *walk) value(v any, at field) {
	switch v := v.(type) {
	case string:
		if w.find.in([]byte(v), 0) {
			w.add(at)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			inside := append(slices.Clip(at), k)
			if w.find.in([]byte(k), 0) {
				w.add(inside)
			}
			w.value(v[k], inside)
		}
	case []any:
		for i, c := range v {
			w.value(c, append(slices.Clip(at), "["+strconv.Itoa(i)+"]"))
		}
	}
}

// operations walks a JSON patch. Its fields are named by what the operations name.
func (w *walk) operations(ops []any) {
	for i, v := range ops {
		op, _ := v.(map[string]any)
		path, _ := op["path"].(string)
		at := pointer(path)
		for _, k := range slices.Sorted(maps.Keys(op)) {
			if k == "value" {
				w.value(op[k], at)
				continue
			}
			w.value(op[k], field{"[" + strconv.Itoa(i) + "]", k})
		}
	}
}

// pointer reads a JSON pointer (RFC 6901). A number is a key or an index, and nobody can tell which.
func pointer(s string) field {
	var at field
	for part := range strings.SplitSeq(strings.TrimPrefix(s, "/"), "/") {
		at = append(at, strings.NewReplacer("~1", "/", "~0", "~").Replace(part))
	}
	return at
}

// String is how Kubernetes writes a field's path, and safe to show.
func (f field) String() string {
	if len(f) == 0 {
		return "the body"
	}
	var b strings.Builder
	for _, k := range f {
		switch {
		case index(k):
			b.WriteString(k)
		case simple(k):
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(k)
		default:
			b.WriteString("[" + safe(k) + "]")
		}
	}
	return b.String()
}

func index(k string) bool {
	_, err := strconv.Atoi(strings.Trim(k, "[]"))
	return err == nil && strings.HasPrefix(k, "[")
}

func simple(k string) bool {
	return k != "" && len(k) <= maxKey && strings.Trim(k, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_$") == ""
}

const maxKey = 100

// safe is a key that cannot deceive whoever reads it.
func safe(k string) string {
	if len(k) > maxKey {
		n := maxKey
		for n > 0 && !utf8.RuneStart(k[n]) {
			n--
		}
		k = k[:n] + "…"
	}
	if q := strconv.QuoteToASCII(k); q != `"`+k+`"` {
		return q
	}
	return k
}

// refuse is the refusal, and nil when no field carries a mask. kubectl shows of it the fields and their messages alone
// (k8s.io/kubectl/pkg/cmd/util), and in its editor too; others show the sentence.
func (w *walk) refuse(a access.Action, object map[string]any) error {
	if w.count == 0 {
		return nil
	}
	first := w.at[0]
	what := "carries Sallyport's mask, which stands for a value that you were not shown; written back, it would take that value's place. " + advice(a, object, first)
	more := ""
	if n := w.count - 1; n > 0 {
		more = fmt.Sprintf(" (and %d more)", n)
	}
	err := access.Errorf(access.Unprocessable, "%s%s %s", first, more, what)
	for i, at := range w.at {
		r := access.Reason{Type: "FieldValueInvalid", Field: at.String(), Message: what}
		if i > 0 {
			r.Message = "carries Sallyport's mask too"
		}
		err.Reasons = append(err.Reasons, r)
	}
	return err
}

// advice says what to do about a field.
func advice(a access.Action, object map[string]any, at field) string {
	const leave = "Send only the fields that you change, each with its own value"
	kept := a.Group == "" && (a.Resource == "secrets" || a.Resource == "configmaps") && len(at) == 2
	switch {
	case kept && at[1] == "release":
		return "A Helm release that was read here cannot be rolled back to, and its values cannot be used again: give Helm all values anew, with helm upgrade --reset-values --values FILE"
	case kept && a.Resource == "secrets" && (at[0] == "data" || at[0] == "stringData"):
		if c := reveal(a, object, at[1]); c != "" {
			return leave + ", or ask people to let you see this one: " + c
		}
	case len(at) == 3 && at[1] == "annotations":
		return "Leave the annotation out, or let kubectl apply make it of your own file"
	}
	return leave
}

// reveal is the command that asks to see a key of the Secret that a request is about, if that can be asked for.
func reveal(a access.Action, object map[string]any, key string) string {
	if a.Name == "" {
		metadata, _ := object["metadata"].(map[string]any)
		name, _ := metadata["name"].(string)
		a.Path, a.Name = strings.TrimSuffix(a.Path, "/")+"/"+name, name
	}
	asks, err := action.Parse("GET", strings.TrimSuffix(a.Path, "/")+"?reveal="+key)
	if err != nil || asks.Reveal != key || asks.Name != a.Name {
		return ""
	}
	return action.Kubectl(asks, nil)
}
