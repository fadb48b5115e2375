package action

import (
	"bytes"
	"encoding/json"
	"slices"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
)

// What a JSON patch may do. The API server takes 10,000 operations; every copy may double the object.
const (
	maxOperations = 1000
	maxCopies     = 50
	maxResult     = 4 << 20
)

// needed says what each operation of a JSON patch cannot do without.
var needed = map[string]string{"add": "value", "replace": "value", "test": "value", "copy": "from", "move": "from", "remove": "path"}

// operations checks a JSON patch as RFC 6902 writes it.
func operations(v any) ([]any, error) {
	ops, ok := v.([]any)
	if !ok {
		return nil, access.Errorf(access.Invalid, "a JSON patch is a list of operations")
	}
	if len(ops) > maxOperations {
		return nil, access.Errorf(access.TooLarge, "the JSON patch has %d operations; %d is the limit", len(ops), maxOperations)
	}
	copies := 0
	for i, v := range ops {
		op, ok := v.(map[string]any)
		if !ok {
			return nil, access.Errorf(access.Invalid, "operation %d of the JSON patch is not an object", i)
		}
		for k := range op {
			if !slices.Contains([]string{"op", "path", "from", "value"}, k) {
				return nil, access.Errorf(access.Invalid, "operation %d of the JSON patch has the key %s; op, path, from and value are all there are", i, quoted(clip(k)))
			}
		}
		needs := needed[word(op["op"])]
		if needs == "" {
			return nil, access.Errorf(access.Invalid, "operation %d of the JSON patch must be one of add, remove, replace, move, copy, test", i)
		}
		if _, ok := op[needs]; !ok {
			return nil, access.Errorf(access.Invalid, "operation %d of the JSON patch has no %s", i, needs)
		}
		for _, k := range []string{"path", "from"} {
			pointer, ok := op[k].(string)
			if k == "from" && needs != "from" && op[k] == nil {
				continue
			}
			if !ok || len(pointer) < 2 || pointer[0] != '/' {
				return nil, access.Errorf(access.Invalid, "operation %d of the JSON patch must name a field in %s, such as /spec/replicas", i, k)
			}
		}
		if op["op"] == "copy" {
			copies++
		}
	}
	if copies > maxCopies {
		return nil, access.Errorf(access.TooLarge, "the JSON patch copies %d times; %d is the limit", copies, maxCopies)
	}
	return ops, nil
}

// judge says what a patch makes of the live object.
func (b *Body) judge(live map[string]any) (*access.Object, error) {
	form := b.action.Patch
	if live == nil {
		if form == access.ApplyPatch {
			return b.whole(b.value)
		}
		return &access.Object{Value: b.value, Partial: true, Unsure: slices.Clone(access.Traits), Touched: b.touched(nil)}, nil
	}
	doc, err := json.Marshal(live)
	if err != nil {
		return nil, unjudged(err)
	}
	fresh, err := readJSON(doc) // whole numbers become int64, and the caller's map stays as it is
	if err != nil {
		return nil, unjudged(err)
	}
	live = fresh.(map[string]any)
	if err := fits(b.action, live); err != nil {
		return nil, unjudged(err)
	}
	object, err := b.judged(live, doc)
	if err != nil {
		return nil, err
	}
	if err := b.lent(object, live); err != nil {
		return nil, err
	}
	object.Version, _ = dig(live, "metadata", "resourceVersion").(string)
	return object, nil
}

func unjudged(err error) error {
	return access.Errorf(access.Media, "the live object cannot be read, or is not what the URL says, so the patch cannot be judged").Because(err)
}

func (b *Body) judged(live map[string]any, doc []byte) (*access.Object, error) {
	touched := b.touched(live)
	switch b.action.Patch {
	case access.JSONPatch, access.MergePatch:
		result, err := b.apply(doc)
		if err != nil {
			return nil, err
		}
		version, _ := dig(live, "metadata", "resourceVersion").(string)
		if v := dig(result, "metadata", "resourceVersion"); v != nil && v != "" && v != version {
			return nil, access.Errorf(access.Conflict, "the patch is for another version of the object than the live one; read it again and make the patch anew")
		}
		object, err := b.whole(result)
		if err != nil {
			return nil, err
		}
		object.Touched = touched
		return object, nil
	case access.StrategicPatch:
		result, err := strategic(live, b.value, doc)
		if err != nil {
			return &access.Object{Value: b.value, Partial: true, Unsure: slices.Clone(access.Traits), Touched: touched}, nil
		}
		if fits(b.action, result) != nil {
			return nil, misfit()
		}
		object, err := b.whole(result)
		if err != nil {
			return nil, err
		}
		// The object may be another by the time the patch lands: its own guarded fields stay a question.
		object.Unsure, object.Touched = without(guarded(b.action, b.value), object.Traits), touched
		return object, nil
	}
	// What is applied is merged by who owns which field; what comes of it can only be bounded.
	object, err := b.whole(b.value)
	if err != nil {
		return nil, err
	}
	had, err := look(b.action, live)
	if err != nil {
		return nil, err
	}
	maybe := guarded(b.action, b.value)
	for _, t := range had.list() {
		maybe[t] = true
	}
	object.Partial, object.Unsure, object.Touched = true, without(maybe, object.Traits), touched
	return object, nil
}

// apply applies a merge or JSON patch to the live object with the API server's library.
func (b *Body) apply(doc []byte) (map[string]any, error) {
	var err error
	if b.action.Patch == access.MergePatch {
		doc, err = jsonpatch.MergePatch(doc, b.raw)
	} else {
		doc, err = b.operate(doc)
	}
	if err != nil {
		if access.KindOf(err) == access.TooLarge {
			return nil, err
		}
		return nil, access.Errorf(access.Invalid, "the patch cannot be applied to the live object; read the object again and make the patch anew").Because(err)
	}
	v, err := readJSON(doc)
	if err != nil {
		return nil, err
	}
	result, ok := v.(map[string]any)
	if !ok {
		return nil, access.Errorf(access.Invalid, "the patch leaves no object")
	}
	if fits(b.action, result) != nil {
		return nil, misfit()
	}
	return result, nil
}

// misfit is what is said of a patch that makes another object of the live one. It repeats nothing of it, nor keeps it for
// the log: a JSON patch copies a value that the caller is not shown to where the name is, and nothing is decided yet.
func misfit() error {
	return access.Errorf(access.Invalid, "the patch makes the object one that the URL is not about; leave apiVersion, kind, metadata.name and metadata.namespace as they are")
}

// operate applies a JSON patch and looks at the size after every copy: the library's own limit is one for the process.
// Tests are left to the cluster: one that fails changes nothing, so what is judged is the worst that may come of the patch;
// and were it answered here, before anything is decided, whoever may do nothing at all could guess a value that is masked.
func (b *Body) operate(doc []byte) ([]byte, error) {
	ops, err := jsonpatch.DecodePatch(b.raw)
	if err != nil {
		return nil, err
	}
	ops = slices.DeleteFunc(ops, func(o jsonpatch.Operation) bool { return o.Kind() == "test" })
	for len(ops) > 0 {
		n := 1 + slices.IndexFunc(ops, func(o jsonpatch.Operation) bool { return o.Kind() == "copy" })
		if n == 0 {
			n = len(ops)
		}
		if doc, err = ops[:n].Apply(doc); err != nil {
			return nil, err
		}
		if len(doc) > maxResult {
			return nil, access.Errorf(access.TooLarge, "the JSON patch makes an object larger than %d bytes", maxResult)
		}
		ops = ops[n:]
	}
	return doc, nil
}

// strategic applies a strategic merge patch with the API server's library, if the live object's type is known. The
// library works in place, so it gets copies.
func strategic(live, patch map[string]any, doc []byte) (map[string]any, error) {
	object, err := scheme.Scheme.New(schema.FromAPIVersionAndKind(word(live["apiVersion"]), word(live["kind"])))
	if err != nil {
		return nil, err
	}
	original, err := readJSON(doc)
	if err != nil {
		return nil, err
	}
	p, err := json.Marshal(patch)
	if err != nil {
		return nil, err
	}
	again, err := readJSON(p)
	if err != nil {
		return nil, err
	}
	return strategicpatch.StrategicMergeMapPatch(original.(map[string]any), again.(map[string]any), object)
}

// word is a string, and empty for everything else.
func word(v any) string {
	s, _ := v.(string)
	return s
}

// Bytes is what is to be forwarded. A merge or JSON patch carries the version of the live object it was judged on, so
// that the cluster answers 409 when it is not that any more. Everything else goes as it came.
func (b *Body) Bytes(version string) ([]byte, error) {
	if version == "" {
		return b.raw, nil
	}
	switch b.action.Patch {
	case access.MergePatch:
		if dig(b.value, "metadata", "resourceVersion") == version {
			return b.raw, nil
		}
		return b.tied(version)
	case access.JSONPatch:
		op, err := json.Marshal(map[string]string{"op": "add", "path": "/metadata/resourceVersion", "value": version})
		if err != nil {
			return nil, err
		}
		// Appended as text, so that no number changes its spelling.
		list := bytes.Clone(b.raw[:bytes.LastIndexByte(b.raw, ']')])
		if len(b.ops) > 0 {
			list = append(list, ',')
		}
		return append(append(list, op...), ']'), nil
	}
	return b.raw, nil
}

// tied sets metadata.resourceVersion in a merge patch; all else stays as it was written.
func (b *Body) tied(version string) ([]byte, error) {
	var patch, meta map[string]json.RawMessage
	if err := json.Unmarshal(b.raw, &patch); err != nil {
		return nil, access.Errorf(access.Internal, "the patch cannot be written again").Because(err)
	}
	if m, ok := patch["metadata"]; ok {
		if err := json.Unmarshal(m, &meta); err != nil {
			return nil, access.Errorf(access.Internal, "the patch cannot be written again").Because(err)
		}
	}
	if meta == nil {
		meta = map[string]json.RawMessage{}
	}
	var err error
	if meta["resourceVersion"], err = json.Marshal(version); err != nil {
		return nil, err
	}
	if patch["metadata"], err = marshal(meta); err != nil {
		return nil, err
	}
	return marshal(patch)
}

func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSuffix(out.Bytes(), []byte("\n")), err
}

// dig is the value at a path of keys, nil when there is none.
func dig(v any, keys ...string) any {
	for _, k := range keys {
		m, _ := v.(map[string]any)
		v = m[k]
	}
	return v
}
