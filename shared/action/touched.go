package action

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
)

// paths collects touched fields.
type paths map[string]bool

func (p paths) add(path string) { p[path] = true }

// list is nil only when nothing was touched. A version that is stated is no change.
func (p paths) list() []string {
	delete(p, "metadata.resourceVersion")
	return slices.Sorted(maps.Keys(p))
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// touched are the fields the patch sets or removes, and of a JSON patch those it tests or copies: who may set one field is
// not to learn what is in another, nor to put it where it is shown.
func (b *Body) touched(live map[string]any) []string {
	p := paths{}
	switch b.action.Patch {
	case access.JSONPatch:
		for _, v := range b.ops {
			op := v.(map[string]any)
			p.pointer(word(op["path"]), live)
			if op["op"] == "move" || op["op"] == "copy" {
				p.pointer(word(op["from"]), live)
			}
		}
	case access.MergePatch:
		p.merge(b.value, "")
	case access.StrategicPatch:
		var types strategicpatch.LookupPatchMeta
		if object, err := scheme.Scheme.New(schema.FromAPIVersionAndKind(word(live["apiVersion"]), word(live["kind"]))); err == nil {
			if s, err := strategicpatch.NewPatchMetaFromStruct(object); err == nil {
				types = s
			}
		}
		p.strategic(b.value, live, types, "")
	case access.ApplyPatch:
		p.leaves(b.value, "")
		p.released(b.value, live)
		delete(p, "apiVersion")
		delete(p, "kind")
		delete(p, "metadata.name")
		delete(p, "metadata.namespace")
	}
	return p.list()
}

// pointer adds an RFC 6901 pointer. Indexes are left out where the live object has a list; where it has nothing an earlier
// operation must have put something there, and its path is reported.
func (p paths) pointer(pointer string, live any) {
	path := ""
	for _, s := range strings.Split(pointer[1:], "/") {
		s = strings.ReplaceAll(strings.ReplaceAll(s, "~1", "/"), "~0", "~")
		n, err := strconv.Atoi(s)
		index := err == nil || s == "-"
		switch v := live.(type) {
		case map[string]any:
			live = v[s]
			path = join(path, s)
		case []any:
			live = nil
			if n < 0 {
				n += len(v)
			}
			if err == nil && n >= 0 && n < len(v) {
				live = v[n]
			}
			if !index {
				path = join(path, s)
			}
		default:
			live = nil
			if !index {
				path = join(path, s)
			}
		}
	}
	p.add(path)
}

// merge adds the fields of an RFC 7386 merge patch, in which lists are values.
func (p paths) merge(patch map[string]any, path string) {
	for k, v := range patch {
		if m, ok := v.(map[string]any); ok && len(m) > 0 {
			p.merge(m, join(path, k))
		} else {
			p.add(join(path, k))
		}
	}
}

// strategic adds the fields of a strategic merge patch. The key by which an element of a list is found is no change when
// it is found, and neither is an order that is the live one already; kubectl sends both with every patch.
func (p paths) strategic(patch, live map[string]any, types strategicpatch.LookupPatchMeta, path string) {
	for k, v := range patch {
		directive, field, _ := strings.Cut(k, "/")
		at := join(path, k)
		switch {
		case directive == "$setElementOrder" && ordered(v, live[field]):
			continue
		case directive == "$setElementOrder" || directive == "$deleteFromPrimitiveList":
			p.add(join(path, field))
			continue
		case strings.HasPrefix(k, "$"): // the whole of what it stands in
			p.add(cmp.Or(path, k))
			continue
		}
		switch v := v.(type) {
		case map[string]any:
			sub, meta := structure(types, k, false)
			if len(v) == 0 || slices.Contains(meta.GetPatchStrategies(), "replace") {
				p.add(at)
				continue
			}
			l, _ := live[k].(map[string]any)
			p.strategic(v, l, sub, at)
		case []any:
			sub, meta := structure(types, k, true)
			if meta.GetPatchMergeKey() == "" || !slices.Contains(meta.GetPatchStrategies(), "merge") {
				p.add(at)
				continue
			}
			p.elements(v, live[k], sub, meta.GetPatchMergeKey(), at)
		default:
			p.add(at)
		}
	}
}

func (p paths) elements(patch []any, live any, types strategicpatch.LookupPatchMeta, key, at string) {
	list, _ := live.([]any)
	for _, e := range patch {
		m, _ := e.(map[string]any)
		i := slices.IndexFunc(list, func(l any) bool { return m[key] != nil && reflect.DeepEqual(dig(l, key), m[key]) })
		if _, directive := m["$patch"]; m == nil || directive || i < 0 {
			p.add(at)
			continue
		}
		rest := maps.Clone(m)
		delete(rest, key)
		p.strategic(rest, list[i].(map[string]any), types, at)
	}
}

// structure looks up how a field merges. The zero value is that nothing is known.
func structure(types strategicpatch.LookupPatchMeta, key string, list bool) (strategicpatch.LookupPatchMeta, strategicpatch.PatchMeta) {
	if types == nil {
		return nil, strategicpatch.PatchMeta{}
	}
	lookup := types.LookupPatchMetadataForStruct
	if list {
		lookup = types.LookupPatchMetadataForSlice
	}
	sub, meta, err := lookup(key)
	if err != nil {
		return nil, strategicpatch.PatchMeta{}
	}
	return sub, meta
}

// ordered says whether a $setElementOrder directive names the live elements in their order.
func ordered(order, live any) bool {
	want, ok := order.([]any)
	have, ok2 := live.([]any)
	if !ok || !ok2 || len(want) != len(have) {
		return false
	}
	for i, w := range want {
		m, ok := w.(map[string]any)
		if !ok {
			if !reflect.DeepEqual(w, have[i]) {
				return false
			}
			continue
		}
		for k, v := range m {
			if !reflect.DeepEqual(dig(have[i], k), v) {
				return false
			}
		}
	}
	return true
}

// leaves adds every leaf of an object.
func (p paths) leaves(v any, path string) {
	switch v := v.(type) {
	case map[string]any:
		for k, c := range v {
			p.leaves(c, join(path, k))
		}
		if len(v) > 0 {
			return
		}
	case []any:
		scalar := len(v) == 0
		for _, c := range v {
			if m, ok := c.(map[string]any); ok && len(m) > 0 {
				p.leaves(c, path)
			} else {
				scalar = true
			}
		}
		if !scalar {
			return
		}
	}
	if path != "" {
		p.add(path)
	}
}

// released adds the fields an apply would remove by no longer naming them: those that somebody applied before. Whose
// apply it is is in the query, which is not looked at here, so all of them count.
func (p paths) released(applied, live map[string]any) {
	entries, _ := dig(live, "metadata", "managedFields").([]any)
	for _, e := range entries {
		if dig(e, "operation") == "Apply" {
			p.owned(dig(e, "fieldsV1"), applied, "")
		}
	}
	// kubectl's client-side apply leaves its last object in an annotation, and the server lets an apply take over from it.
	last, _ := dig(live, "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration").(string)
	if last == "" {
		return
	}
	v, err := readJSON([]byte(last))
	if err != nil {
		p.leaves(live, "")
		return
	}
	p.missing(v, applied, "")
}

// owned walks a set of fields as managedFields writes it (sigs.k8s.io/structured-merge-diff, FieldsV1).
func (p paths) owned(fields, applied any, path string) {
	m, _ := fields.(map[string]any)
	for k, sub := range m {
		kind, name, _ := strings.Cut(k, ":")
		switch kind {
		case ".":
		case "f":
			a, _ := applied.(map[string]any)
			if v, ok := a[name]; ok {
				p.owned(sub, v, join(path, name))
			} else {
				p.add(join(path, name))
			}
		case "k", "v":
			key, err := readJSON([]byte(name))
			list, _ := applied.([]any)
			i := slices.IndexFunc(list, func(e any) bool { return err == nil && within(key, e) })
			if i < 0 {
				p.add(path)
			} else {
				p.owned(sub, list[i], path)
			}
		default:
			p.add(path)
		}
	}
}

// within says whether an element is the one that key names: a value, or an object that has all of key's fields.
func within(key, element any) bool {
	k, ok := key.(map[string]any)
	if !ok {
		return reflect.DeepEqual(key, element)
	}
	for f, v := range k {
		if !reflect.DeepEqual(dig(element, f), v) {
			return false
		}
	}
	return true
}

// missing adds what is in last and not in applied.
func (p paths) missing(last, applied any, path string) {
	switch last := last.(type) {
	case map[string]any:
		a, _ := applied.(map[string]any)
		for k, v := range last {
			if c, ok := a[k]; ok {
				p.missing(v, c, join(path, k))
			} else {
				p.leaves(v, join(path, k))
				if m, ok := v.(map[string]any); ok && len(m) > 0 {
					continue
				}
				p.add(join(path, k))
			}
		}
	case []any:
		list, _ := applied.([]any)
		for _, v := range last {
			i := slices.IndexFunc(list, func(e any) bool {
				if name := dig(v, "name"); name != nil {
					return reflect.DeepEqual(dig(e, "name"), name)
				}
				return reflect.DeepEqual(e, v)
			})
			if i < 0 {
				p.add(path)
			} else {
				p.missing(v, list[i], path)
			}
		}
	}
}
