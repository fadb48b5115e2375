package action_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	kjson "sigs.k8s.io/json"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

const web = "PATCH /apis/apps/v1/namespaces/dev/deployments/web"

const webLive = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"dev","resourceVersion":"7","uid":"u","annotations":{"a":"b"},
	"managedFields":[{"manager":"argo","operation":"Apply","apiVersion":"apps/v1","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:replicas":{},"f:paused":{},"f:template":{"f:spec":{"f:containers":{"k:{\"name\":\"app\"}":{".":{},"f:name":{},"f:image":{}},"k:{\"name\":\"guard\"}":{".":{},"f:name":{},"f:image":{}}}}}}}}]},
	"spec":{"replicas":2,"paused":false,"template":{"spec":{"containers":[{"name":"app","image":"i"},{"name":"guard","image":"g"}]}}}}`

func TestTouched(t *testing.T) {
	for _, test := range []struct {
		media, body string
		want        []string
	}{
		{asMerge, `{"spec":{"replicas":3}}`, []string{"spec.replicas"}},
		{asMerge, `{"spec":{"replicas":null,"template":{"spec":{"containers":[]}}}}`, []string{"spec.replicas", "spec.template.spec.containers"}},
		{asMerge, `{"spec":null}`, []string{"spec"}},
		{asMerge, `{"spec":{"template":{}}}`, []string{"spec.template"}},
		{asMerge, `{}`, nil},
		{asMerge, `{"metadata":{"resourceVersion":"7"},"spec":{"replicas":3}}`, []string{"spec.replicas"}},
		{asMerge, `{"spec":{"template":{"metadata":{"annotations":{"kubectl.kubernetes.io/restartedAt":"now"}}}}}`, []string{"spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"}},

		{asJSONPatch, `[{"op":"replace","path":"/spec/replicas","value":3}]`, []string{"spec.replicas"}},
		{asJSONPatch, `[{"op":"test","path":"/spec/paused","value":false},{"op":"copy","from":"/spec/replicas","path":"/spec/x"}]`, []string{"spec.paused", "spec.replicas", "spec.x"}},
		{asJSONPatch, `[{"op":"move","from":"/spec/paused","path":"/spec/x"}]`, []string{"spec.paused", "spec.x"}},
		{asJSONPatch, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"j"}]`, []string{"spec.template.spec.containers.image"}},
		{asJSONPatch, `[{"op":"replace","path":"/spec/template/spec/containers/-1/image","value":"j"}]`, []string{"spec.template.spec.containers.image"}},
		{asJSONPatch, `[{"op":"add","path":"/spec/template/spec/containers/-","value":{"name":"x"}}]`, []string{"spec.template.spec.containers"}},
		{asJSONPatch, `[{"op":"add","path":"/metadata/annotations/0","value":"x"}]`, []string{"metadata.annotations.0"}}, // a key, not an index
		{asJSONPatch, `[{"op":"add","path":"/metadata/annotations/a~1b~0c","value":"x"}]`, []string{"metadata.annotations.a/b~c"}},
		{asJSONPatch, `[]`, nil},

		{asStrategic, `{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"app"},{"name":"guard"}],"containers":[{"name":"app","image":"j"}]}}}}`, []string{"spec.template.spec.containers.image"}},
		{asStrategic, `{"spec":{"template":{"spec":{"containers":[{"name":"new","image":"j"}]}}}}`, []string{"spec.template.spec.containers"}},
		{asStrategic, `{"spec":{"template":{"spec":{"containers":[{"name":"guard","$patch":"delete"}]}}}}`, []string{"spec.template.spec.containers"}},
		{asStrategic, `{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"guard"},{"name":"app"}]}}}}`, []string{"spec.template.spec.containers"}},
		{asStrategic, `{"spec":{"$patch":"replace","replicas":3}}`, []string{"spec", "spec.replicas"}},
		{asStrategic, `{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`, []string{"spec.strategy", "spec.strategy.type"}},
		{asStrategic, `{"$patch":"replace"}`, []string{"$patch"}},
		{asStrategic, `{"metadata":{"$deleteFromPrimitiveList/finalizers":["x"]}}`, []string{"metadata.finalizers"}},
		{asStrategic, `{"spec":{"template":{"spec":{"containers":[{"name":"app","args":["x"],"env":[{"name":"A","value":"b"}]}]}}}}`, []string{"spec.template.spec.containers.args", "spec.template.spec.containers.env"}},

		// An apply takes away what it no longer names; here whatever anybody has applied before.
		{asApply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"dev"},"spec":{"replicas":3}}`, []string{"spec.paused", "spec.replicas", "spec.template"}},
		{asApply, `{"kind":"Deployment","spec":{"replicas":3,"paused":true,"template":{"spec":{"containers":[{"name":"app","image":"j"}]}}}}`, []string{"spec.paused", "spec.replicas", "spec.template.spec.containers", "spec.template.spec.containers.image", "spec.template.spec.containers.name"}},
		{asApply, `{"kind":"Deployment","spec":{"replicas":3,"paused":true,"template":{"spec":{"containers":[{"name":"app","image":"j"},{"name":"guard","image":"g"}]}}}}`, []string{"spec.paused", "spec.replicas", "spec.template.spec.containers.image", "spec.template.spec.containers.name"}},
	} {
		o := must(t, web, test.media, test.body, object(t, webLive))
		if !slices.Equal(o.Touched, test.want) {
			t.Errorf("%s %s: got %q, want %q", test.media, test.body, o.Touched, test.want)
		}
		if o.Version != "7" {
			t.Errorf("%s %s: judged on version %q", test.media, test.body, o.Version)
		}
	}
	if o := must(t, "PUT /apis/apps/v1/namespaces/dev/deployments/web", asJSON, webLive, nil); o.Touched != nil || o.Version != "" {
		t.Errorf("a whole object touches %q, version %q", o.Touched, o.Version)
	}
	last := object(t, webLive)
	meta := last["metadata"].(map[string]any)
	delete(meta, "managedFields")
	meta["annotations"] = map[string]any{"kubectl.kubernetes.io/last-applied-configuration": `{"spec":{"replicas":2,"template":{"spec":{"containers":[{"name":"app"},{"name":"guard","image":"g"}]}}}}`}
	o := must(t, web, asApply, `{"kind":"Deployment","spec":{"template":{"spec":{"containers":[{"name":"app"}]}}}}`, last)
	if want := []string{"spec.replicas", "spec.template.spec.containers", "spec.template.spec.containers.name"}; !slices.Equal(o.Touched, want) {
		t.Errorf("over a client-side apply: got %q, want %q", o.Touched, want)
	}
}

func TestPatchRefuses(t *testing.T) {
	ops := func(op string, n int) string { return "[" + strings.TrimSuffix(strings.Repeat(op+",", n), ",") + "]" }
	for _, test := range []struct {
		media, body string
		want        access.Kind
	}{
		{asMerge, `[]`, access.Invalid},
		{asMerge, `{"metadata":null}`, access.Invalid},
		{asMerge, `{"spec":{},"spec":{}}`, access.Invalid},
		{asMerge, `{"kind":"Secret"}`, access.Invalid},
		{asMerge, `{"Kind":"Secret"}`, access.Invalid},
		{asMerge, `{"metadata":{"name":"other"}}`, access.Invalid},
		{asMerge, `{"metadata":{"namespace":"prod"}}`, access.Invalid},
		{asMerge, `{"metadata":{"resourceVersion":"6"}}`, access.Conflict},
		{asMerge, `{"spec":{"template":{"spec":{"hostNetwork":"yes"}}}}`, access.Media},
		{asStrategic, `{"metadata":{"name":"other"}}`, access.Invalid},
		{asApply, `{"kind":"ReplicaSet"}`, access.Invalid},
		{asApply, `{"metadata":{"name":"other"}}`, access.Invalid},
		{asApply, "a: &a b\nc: *a", access.Invalid},
		{asJSONPatch, `{}`, access.Invalid},
		{asJSONPatch, `[1]`, access.Invalid},
		{asJSONPatch, `[{"op":["add"],"path":"/spec","value":1}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":"/spec/x"}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":"","value":{}}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":"spec","value":{}}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":1,"value":{}}]`, access.Invalid},
		{asJSONPatch, `[{"op":"copy","path":"/a","from":""}]`, access.Invalid},
		{asJSONPatch, `[{"op":"ADD","path":"/spec/x","value":1}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","Path":"/spec/x","path":"/spec/y","value":1}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":"/spec/x","path":"/spec/y","value":1}]`, access.Invalid},
		{asJSONPatch, `[{"op":"remove","path":"/spec/none"}]`, access.Invalid},
		{asJSONPatch, `[{"op":"replace","path":"/metadata/name","value":"other"}]`, access.Invalid},
		{asJSONPatch, `[{"op":"add","path":"/metadata/resourceVersion","value":"6"}]`, access.Conflict},
		{asJSONPatch, ops(`{"op":"test","path":"/spec/replicas","value":2}`, 1001), access.TooLarge},
		{asJSONPatch, ops(`{"op":"copy","from":"/spec","path":"/spec/x"}`, 51), access.TooLarge},
		{asJSONPatch, doubling(40), access.TooLarge},
	} {
		if o, err := do(t, web, test.media, test.body, object(t, webLive)); access.KindOf(err) != test.want {
			t.Errorf("%s %.100s: got %+v, %v; want it refused as %s", test.media, test.body, o, err, test.want)
		}
	}
	other := object(t, webLive)
	other["kind"] = "ReplicaSet"
	if o, err := do(t, web, asMerge, `{}`, other); access.KindOf(err) != access.Media {
		t.Errorf("a live object of another kind: got %+v, %v", o, err)
	}
}

// Threat S4: whether a guess at a value is right does not show in how a patch is judged, not even after the value was moved
// to where it might.
func TestGuesses(t *testing.T) {
	const patch = "PATCH /api/v1/namespaces/dev/secrets/db"
	live := func() map[string]any {
		return object(t, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":"dev","uid":"u","resourceVersion":"7"},"data":{"a":"c2VjcmV0"}}`)
	}
	for _, body := range []string{
		`[{"op":"test","path":"/data/a","value":"GUESS"}]`,
		`[{"op":"test","path":"/data","value":{"a":"GUESS"}}]`,
		`[{"op":"copy","from":"/data/a","path":"/metadata/uid"},{"op":"test","path":"/metadata/uid","value":"GUESS"},{"op":"replace","path":"/metadata/uid","value":"u"}]`,
		`[{"op":"test","path":"/data/a","value":"GUESS"},{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]`,
	} {
		right, err := do(t, patch, asJSONPatch, strings.ReplaceAll(body, "GUESS", "c2VjcmV0"), live())
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		wrong, err := do(t, patch, asJSONPatch, strings.ReplaceAll(body, "GUESS", "b3RoZXI="), live())
		if d := cmp.Diff(right, wrong); err != nil || d != "" {
			t.Errorf("%s: a wrong guess is told from a right one: %v %s", body, err, d)
		}
	}
}

// doubling is a patch whose every operation doubles the object.
func doubling(n int) string {
	var ops []string
	for i := range n {
		ops = append(ops, fmt.Sprintf(`{"op":"copy","from":"/spec","path":"/spec/x%d"}`, i))
	}
	return "[" + strings.Join(ops, ",") + "]"
}

// What is forwarded is the same patch, and one the cluster refuses when the live object is another by then.
// What a patch makes of what is stored is in no refusal, nor in what is logged of one.
func TestPatchRepeatsNothing(t *testing.T) {
	a := parse(t, "PATCH /api/v1/namespaces/dev/secrets/db")
	var live map[string]any
	if err := json.Unmarshal([]byte(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":"dev","resourceVersion":"7"},"data":{"password":"aHVudGVyMg=="},"type":"Opaque"}`), &live); err != nil {
		t.Fatal(err)
	}
	refused := 0
	for _, op := range []string{"copy", "move"} {
		for _, path := range []string{"/apiVersion", "/kind", "/Kind", "/items", "/metadata", "/metadata/name", "/metadata/namespace", "/metadata/generateName", "/metadata/resourceVersion", "/metadata/labels", "/type", "/spec", "/data/x/y"} {
			b, err := action.Decode(a, asJSONPatch, []byte(`[{"op":"`+op+`","from":"/data/password","path":"`+path+`"}]`))
			if err != nil {
				t.Fatalf("%s to %s: %v", op, path, err)
			}
			if _, err = b.Judge(live); err == nil {
				continue
			}
			refused++
			said := err.Error() + access.AsError(err).Message
			for cause := err; cause != nil; cause = errors.Unwrap(cause) {
				said += cause.Error()
			}
			if strings.Contains(said, "aHVudGVyMg") {
				t.Errorf("%s to %s: %s", op, path, said)
			}
		}
	}
	if refused < 12 {
		t.Errorf("%d were refused", refused)
	}
}

func TestBytes(t *testing.T) {
	for _, test := range []struct{ media, body, want string }{
		{asMerge, `{"spec":{"replicas":3,"x":1.0,"y":"<&>","z":12345678901234567890}}`, `{"metadata":{"resourceVersion":"7"},"spec":{"replicas":3,"x":1.0,"y":"<&>","z":12345678901234567890}}`},
		{asMerge, ` {"metadata":{"labels":{"a":"b"}}} `, `{"metadata":{"labels":{"a":"b"},"resourceVersion":"7"}}`},
		{asMerge, `{"metadata":{"resourceVersion":null}}`, `{"metadata":{"resourceVersion":"7"}}`},
		{asMerge, `{"metadata": {"resourceVersion":"7"}}`, `{"metadata": {"resourceVersion":"7"}}`},
		{asMerge, `{}`, `{"metadata":{"resourceVersion":"7"}}`},
		{asJSONPatch, `[]`, `[{"op":"add","path":"/metadata/resourceVersion","value":"7"}]`},
		{asJSONPatch, "[ {\"op\":\"add\",\"path\":\"/spec/x\",\"value\":[1.0]} ]\n", `[ {"op":"add","path":"/spec/x","value":[1.0]} ,{"op":"add","path":"/metadata/resourceVersion","value":"7"}]`},
		{asStrategic, `{"spec":{"replicas": 3}}`, `{"spec":{"replicas": 3}}`},
		{asApply, `{"kind":"Deployment","spec":{"replicas": 3}}`, `{"kind":"Deployment","spec":{"replicas": 3}}`},
	} {
		a := parse(t, web)
		a, err := action.Refine(a, test.media, []byte(test.body))
		if err != nil {
			t.Fatal(err)
		}
		b, err := action.Decode(a, test.media, []byte(test.body))
		if err != nil {
			t.Fatal(err)
		}
		before, err := b.Judge(object(t, webLive))
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Bytes(before.Version)
		if err != nil || string(got) != test.want {
			t.Errorf("%s %s: got %s, %v; want %s", test.media, test.body, got, err, test.want)
			continue
		}
		again, err := action.Decode(a, test.media, got)
		if err != nil {
			t.Errorf("%s: what is forwarded cannot be read: %v", test.media, err)
			continue
		}
		after, err := again.Judge(object(t, webLive))
		if d := cmp.Diff(before, after); err != nil || d != "" && test.media != asMerge {
			t.Errorf("%s %s: what is forwarded is another patch: %v %s", test.media, test.body, err, d)
		}
		if test.media == asMerge || test.media == asJSONPatch {
			moved := object(t, webLive)
			moved["metadata"].(map[string]any)["resourceVersion"] = "8"
			if _, err := again.Judge(moved); access.KindOf(err) != access.Conflict {
				t.Errorf("%s %s lands on another version: %v", test.media, test.body, err)
			}
		}
		if same, err := b.Bytes(""); err != nil || string(same) != test.body {
			t.Errorf("%s without a version: %s, %v", test.media, same, err)
		}
	}
}

// Judging does not change the object it was given.
func TestJudgeLeavesLive(t *testing.T) {
	for media, body := range map[string]string{
		asMerge: `{"spec":{"replicas":9}}`, asStrategic: `{"spec":{"template":{"spec":{"containers":[{"name":"app","image":"j"}]}}}}`,
		asJSONPatch: `[{"op":"remove","path":"/spec"}]`, asApply: `{"kind":"Deployment","spec":{"replicas":9}}`,
	} {
		live := object(t, webLive)
		must(t, web, media, body, live)
		if d := cmp.Diff(object(t, webLive), live); d != "" {
			t.Errorf("%s: %s", media, d)
		}
	}
}

// A merge or JSON patch makes here what the API server's library makes of it, and the traits are those of the result. What
// is forwarded makes the same.
func FuzzPatch(f *testing.F) {
	f.Add(true, `{"spec":{"template":{"spec":{"hostNetwork":true,"volumes":[{"name":"x","hostPath":{"path":"/"}}]}}}}`)
	f.Add(true, `{"metadata":{"annotations":{"a":null}},"spec":{"template":{"spec":{"containers":[null,{"name":null}]}}}}`)
	f.Add(false, `[{"op":"copy","from":"/spec","path":"/spec/x"},{"op":"move","from":"/spec/x/template","path":"/spec/y"}]`)
	f.Add(false, `[{"op":"add","path":"/spec/template/spec/containers/-","value":{"securityContext":{"privileged":true}}},{"op":"test","path":"/spec/replicas","value":2}]`)
	f.Fuzz(func(t *testing.T, merge bool, body string) {
		media, apply := asJSONPatch, func(b []byte) ([]byte, error) {
			p, err := jsonpatch.DecodePatch([]byte(body))
			if err != nil {
				return nil, err
			}
			return slices.DeleteFunc(p, func(o jsonpatch.Operation) bool { return o.Kind() == "test" }).Apply(b)
		}
		if merge {
			media, apply = asMerge, func(b []byte) ([]byte, error) { return jsonpatch.MergePatch(b, []byte(body)) }
		}
		a, err := action.Refine(parse(t, web), media, []byte(body))
		if err != nil {
			return
		}
		b, err := action.Decode(a, media, []byte(body))
		if err != nil {
			return
		}
		o, err := b.Judge(object(t, webLive))
		if err != nil {
			return
		}
		theirs, err := apply([]byte(marshal(t, object(t, webLive))))
		if err != nil {
			t.Fatalf("%s: the library refuses it: %v", body, err)
		}
		var want map[string]any
		if err := kjson.UnmarshalCaseSensitivePreserveInts(theirs, &want); err != nil {
			t.Fatal(err)
		}
		if want["kind"] == nil {
			want["kind"] = "Deployment"
		}
		if want["apiVersion"] == nil {
			want["apiVersion"] = "apps/v1"
		}
		if d := cmp.Diff(fmt.Sprint(want), fmt.Sprint(o.Value)); d != "" {
			t.Fatalf("%s: %s", body, d)
		}
		if whole, err := do(t, "PUT /apis/apps/v1/namespaces/dev/deployments/web", asJSON, marshal(t, o.Value), nil); err == nil && !slices.Equal(whole.Traits, o.Traits) {
			t.Errorf("%s: traits %v, and of the result %v", body, o.Traits, whole.Traits)
		}
		sent, err := b.Bytes(o.Version)
		if err != nil {
			t.Fatal(err)
		}
		again, err := do(t, web, media, string(sent), object(t, webLive))
		if err != nil {
			if media == asJSONPatch && json.Valid(sent) {
				return // it left no metadata to tie; the cluster refuses it too
			}
			t.Fatalf("%s: what is forwarded, %s, is refused: %v", body, sent, err)
		}
		want["metadata"], _ = again.Value["metadata"].(map[string]any)
		if !slices.Equal(again.Traits, o.Traits) || fmt.Sprint(again.Value["spec"]) != fmt.Sprint(o.Value["spec"]) {
			t.Errorf("%s: what is forwarded, %s, makes another object", body, sent)
		}
	})
}
