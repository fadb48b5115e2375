package view

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/access"
)

// lastApplied is where kubectl keeps a copy of the object it applied: Secrets' data too.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// clone copies a value in JSON's terms, with numbers as Kubernetes' decoders have them, so that equal numbers are equal.
func clone(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, tooMuch("the object is nested more than %d levels deep", maxDepth)
	}
	var err error
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			if m[k], err = clone(e, depth+1); err != nil {
				return nil, err
			}
		}
		return m, nil
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			if l[i], err = clone(e, depth+1); err != nil {
				return nil, err
			}
		}
		return l, nil
	case nil, bool, string, int64:
		return v, nil
	case int:
		return int64(v), nil
	case float64:
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			return int64(v), nil
		}
		return v, nil
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n, nil
		}
		if n, err := v.Float64(); err == nil {
			return clone(n, depth)
		}
	}
	return nil, access.Errorf(access.Internal, "the view of the request cannot be made: a %T is in it", v)
}

func object(v map[string]any) (map[string]any, error) {
	if v == nil {
		return nil, nil
	}
	c, err := clone(v, 0)
	if err != nil {
		return nil, err
	}
	return c.(map[string]any), nil
}

// filled are the fields of metadata that the API server fills in.
var filled = []string{"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink"}

// clean takes out what the API server fills in. A status is that too, unless it is what the request is about.
func clean(o map[string]any, status bool) {
	unset(o)
	if meta, ok := o["metadata"].(map[string]any); ok {
		for _, f := range filled {
			delete(meta, f)
		}
	}
	if !status {
		delete(o, "status")
	}
}

// unset takes out the creationTimestamp: null that Go clients write into every template.
func unset(v any) {
	switch v := v.(type) {
	case map[string]any:
		if meta, ok := v["metadata"].(map[string]any); ok {
			if at, ok := meta["creationTimestamp"]; ok && at == nil {
				delete(meta, "creationTimestamp")
			}
		}
		for _, e := range v {
			unset(e)
		}
	case []any:
		for _, e := range v {
			unset(e)
		}
	}
}

// fold does to a Secret what the API server does: stringData goes into data.
func fold(o map[string]any) {
	add, ok := o["stringData"].(map[string]any)
	data, ok2 := o["data"].(map[string]any)
	if !ok || !ok2 && o["data"] != nil {
		return
	}
	if data == nil {
		data = map[string]any{}
	}
	for k, v := range add {
		s, ok := v.(string)
		if !ok {
			return
		}
		data[k] = base64.StdEncoding.EncodeToString([]byte(s))
	}
	o["data"] = data
	delete(o, "stringData")
}

// loses says whether b lacks a field of a.
func loses(a, b any) bool {
	switch a := a.(type) {
	case map[string]any:
		m, ok := b.(map[string]any)
		for k, v := range a {
			if e, there := m[k]; ok && (!there || loses(v, e)) {
				return true
			}
		}
	case []any:
		l, ok := b.([]any)
		for i := range a {
			if ok && i < len(l) && loses(a[i], l[i]) {
				return true
			}
		}
	}
	return false
}

// absent stands for a value that one side does not have.
type absent struct{}

// mask takes secrets out of both sides of a diff, in place where it can, and returns what is to be shown of each. Sides
// are compared before they are masked, so whether a secret changes is still to be seen. name is what the value is called.
func (b *builder) mask(old, now any, name string) (any, any) {
	m, isMap := old.(map[string]any)
	n, isMap2 := now.(map[string]any)
	if isMap || isMap2 {
		keep := func(side any, m map[string]any, is bool) any {
			if is {
				return m
			}
			side, _ = b.mask(side, absent{}, name)
			return side
		}
		// The other side is no map: it goes alone.
		o, w := keep(old, m, isMap), keep(now, n, isMap2)
		b.maps(m, n)
		return o, w
	}
	l, isList := old.([]any)
	k, isList2 := now.([]any)
	if isList || isList2 {
		if !isList {
			old, _ = b.mask(old, absent{}, name)
		}
		if !isList2 {
			now, _ = b.mask(now, absent{}, name)
		}
		b.lists(l, k, name)
		return old, now
	}
	return b.leaf(old, now, name)
}

// An entry is a key of either side and its values.
type entry struct {
	key, shown string
	old, now   any
}

// entries are the keys of both sides in order, each with a name that is safe to show and that no other has.
func (b *builder) entries(old, now map[string]any) []entry {
	union := maps.Clone(old)
	if union == nil {
		union = map[string]any{}
	}
	maps.Copy(union, now)
	var list []entry
	used := map[string]bool{}
	for i, k := range slices.Sorted(maps.Keys(union)) {
		e := entry{key: k, old: absent{}, now: absent{}}
		if v, ok := old[k]; ok {
			e.old = v
		}
		if v, ok := now[k]; ok {
			e.now = v
		}
		b.notice(k)
		if found := secrets("", k); found != nil {
			b.masked = true
			e.shown = b.show(k, found, fmt.Sprintf("(masked, name %d)", i))
		} else {
			e.shown = b.unforged(k)
		}
		for used[e.shown] {
			e.shown += " (another)"
		}
		used[e.shown] = true
		list = append(list, e)
	}
	clear(old)
	clear(now)
	return list
}

// put writes an entry back into both sides.
func (e entry) put(old, now map[string]any) {
	if e.old != (absent{}) {
		old[e.shown] = e.old
	}
	if e.now != (absent{}) {
		now[e.shown] = e.now
	}
}

func (b *builder) maps(old, now map[string]any) {
	secret := b.secret || isSecret(old) || isSecret(now)
	b.secret = false // only the outermost object is what the URL says
	name := func(k string) string { return k }
	if n := called(old, now); n != "" {
		name = func(k string) string {
			if k == "value" {
				return n
			}
			return k
		}
	}
	for _, e := range b.entries(old, now) {
		switch {
		case name(e.key) == lastApplied:
			e.old, e.now = copied(e.old, e.now)
		case secret && (e.key == "data" || e.key == "stringData"):
			e.old, e.now = b.hide(e.old, e.now)
		default:
			e.old, e.now = b.mask(e.old, e.now, name(e.key))
		}
		e.put(old, now)
	}
}

// called is what the key "value" is the value of: environment variables and operations of a JSON patch say it beside.
func called(sides ...map[string]any) string {
	for _, m := range sides {
		if name, ok := m["name"].(string); ok {
			return name
		}
		if path, ok := m["path"].(string); ok { // RFC 6901
			return strings.ReplaceAll(path[strings.LastIndexByte(path, '/')+1:], "~1", "/")
		}
	}
	return ""
}

func (b *builder) lists(old, now []any, name string) {
	byName := map[string]int{}
	for i, e := range old {
		if n := nameOf(e); n != "" {
			byName[n] = i
		}
	}
	seen := make([]bool, len(old))
	for i, e := range now {
		j, ok := i, i < len(old)
		if n := nameOf(e); n != "" {
			j, ok = byName[n]
		}
		if !ok || seen[j] {
			_, now[i] = b.mask(absent{}, e, name)
			continue
		}
		seen[j] = true
		old[j], now[i] = b.mask(old[j], e, name)
	}
	for j := range old {
		if !seen[j] {
			old[j], _ = b.mask(old[j], absent{}, name)
		}
	}
}

func nameOf(v any) string {
	m, _ := v.(map[string]any)
	s, _ := m["name"].(string)
	return s
}

// isSecret says whether m is a Secret, wherever it stands.
func isSecret(m map[string]any) bool {
	kind, _ := m["kind"].(string)
	return strings.EqualFold(kind, "Secret")
}

// copied is what is shown of kubectl's copy of the object.
func copied(old, now any) (any, any) {
	switch {
	case old == (absent{}):
		return old, "(not shown, new)"
	case now == (absent{}):
		return "(not shown)", now
	case reflect.DeepEqual(old, now):
		return "(not shown, unchanged)", "(not shown, unchanged)"
	}
	return "(not shown)", "(not shown, changed)"
}

// hide shows nothing of a Secret's data but its keys.
func (b *builder) hide(old, now any) (any, any) {
	m, isMap := old.(map[string]any)
	n, isMap2 := now.(map[string]any)
	if !isMap && !isMap2 {
		b.masked = true
		switch {
		case old == (absent{}):
			return old, maskedNew
		case now == (absent{}):
			return masked, now
		case same(old, now):
			return maskedUnchanged, maskedUnchanged
		}
		return masked, maskedChanged
	}
	if !isMap && old != (absent{}) {
		old = masked
	}
	if !isMap2 && now != (absent{}) {
		now = maskedChanged
	}
	for _, e := range b.entries(m, n) {
		e.old, e.now = b.hideLeaf(e.old, e.now)
		e.put(m, n)
	}
	return old, now
}

// hideLeaf hides a value of any kind: what is nested in it is not data of a Secret, and not shown either.
func (b *builder) hideLeaf(old, now any) (any, any) {
	flat := func(v any) any {
		if v == (absent{}) {
			return v
		}
		if s, ok := v.(string); ok {
			return s
		}
		text, _ := json.Marshal(v)
		return "\x00" + string(text) // equal to no string of a Secret
	}
	return b.hide(flat(old), flat(now))
}

// same compares data of Secrets: as bytes where it is base64.
func same(old, now any) bool {
	if old == now {
		return true
	}
	o, ok := old.(string)
	n, ok2 := now.(string)
	if !ok || !ok2 {
		return false
	}
	a, err := base64.StdEncoding.DecodeString(o)
	c, err2 := base64.StdEncoding.DecodeString(n)
	return err == nil && err2 == nil && bytes.Equal(a, c)
}

// leaf masks what is a secret in a string.
func (b *builder) leaf(old, now any, name string) (any, any) {
	o, isString := old.(string)
	n, isString2 := now.(string)
	var was, is [][2]int
	if isString {
		b.notice(o)
		was = secrets(name, o)
	}
	if isString2 {
		b.notice(n)
		is = secrets(name, n)
	}
	before, after := masked, maskedNew
	switch {
	case was == nil:
	case slices.Equal(held(o, was), held(n, is)):
		before, after = maskedUnchanged, maskedUnchanged
	default:
		after = maskedChanged
	}
	b.masked = b.masked || was != nil || is != nil
	if isString {
		old = b.show(o, was, before)
	}
	if isString2 {
		now = b.show(n, is, after)
	}
	return old, now
}

// show is s with its secrets masked and everything else as it is.
func (b *builder) show(s string, ranges [][2]int, mark string) string {
	var out strings.Builder
	from := 0
	for _, r := range ranges {
		out.WriteString(b.unforged(s[from:r[0]]))
		out.WriteString(mark)
		from = r[1]
	}
	out.WriteString(b.unforged(s[from:]))
	return out.String()
}

// document writes a value as YAML with sorted keys. Long strings are not folded: YAML's way of doing so cannot be told from
// what is in them.
func document(v any) (string, error) {
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	e.CompactSeqIndent()
	if err := e.Encode(valid(v)); err != nil {
		return "", access.Errorf(access.Internal, "the object cannot be written as YAML").Because(err)
	}
	return out.String(), nil
}

// valid writes strings that are no UTF-8 with escapes: YAML would make base64 of them.
func valid(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for k, e := range v {
			if !utf8.ValidString(k) {
				k = Visible(k)
			}
			m[k] = valid(e)
		}
		return m
	case []any:
		for i := range v {
			v[i] = valid(v[i])
		}
	case string:
		if !utf8.ValidString(v) {
			return Visible(v)
		}
	}
	return v
}
