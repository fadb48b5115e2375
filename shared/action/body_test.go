package action_test

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

const (
	asJSON      = "application/json"
	asYAML      = "application/yaml"
	asProtobuf  = "application/vnd.kubernetes.protobuf"
	asJSONPatch = "application/json-patch+json"
	asMerge     = "application/merge-patch+json"
	asStrategic = "application/strategic-merge-patch+json"
	asApply     = "application/apply-patch+yaml"
)

func parse(t testing.TB, line string) access.Action {
	t.Helper()
	method, target, _ := strings.Cut(line, " ")
	a, err := action.Parse(method, target)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// do takes a request all the way to its object.
func do(t testing.TB, line, media, body string, live map[string]any) (*access.Object, error) {
	t.Helper()
	a, err := action.Refine(parse(t, line), media, []byte(body))
	if err != nil {
		return nil, err
	}
	b, err := action.Decode(a, media, []byte(body))
	if err != nil {
		return nil, err
	}
	return b.Judge(live)
}

func must(t testing.TB, line, media, body string, live map[string]any) *access.Object {
	t.Helper()
	o, err := do(t, line, media, body, live)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", line, media, err, body)
	}
	return o
}

func marshal(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func object(t testing.TB, s string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(s), &m); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return m
}

// encode writes a typed object as typed client-go does.
func encode(t testing.TB, o runtime.Object) string {
	t.Helper()
	var out bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// typed makes the scheme's type of an object, and nil when there is none.
func typed(t testing.TB, m map[string]any) runtime.Object {
	t.Helper()
	o, err := scheme.Scheme.New(schema.FromAPIVersionAndKind(m["apiVersion"].(string), m["kind"].(string)))
	if err != nil {
		return nil
	}
	b := marshal(t, m)
	if err := json.Unmarshal([]byte(b), o); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRefine(t *testing.T) {
	const (
		pod = "/api/v1/namespaces/dev/pods/web"
		bad = access.Invalid
	)
	for _, test := range []struct {
		line, media, body string
		patch             access.Patch
		dry               bool
		kind              access.Kind
	}{
		{"POST /api/v1/namespaces/dev/pods", "", "{}", "", false, ""}, // the API server's default is JSON
		{"POST /api/v1/namespaces/dev/pods", "Application/JSON; charset=UTF-8", "{}", "", false, ""},
		{"POST /api/v1/namespaces/dev/pods", asYAML, "{}", "", false, ""},
		{"PUT " + pod + "?dryRun=All", asProtobuf, "x", "", true, ""},
		{"POST /api/v1/namespaces/dev/pods", "application/vnd.kubernetes.protobuf;stream=watch", "x", "", false, ""},
		{"POST /api/v1/namespaces/dev/pods", "application/cbor", "x", "", false, access.Media},
		{"POST /api/v1/namespaces/dev/pods", "text/plain", "x", "", false, access.Media},
		{"POST /api/v1/namespaces/dev/pods", "application/json, application/yaml", "{}", "", false, access.Media},
		{"POST /api/v1/namespaces/dev/pods", asMerge, "{}", "", false, access.Media},
		{"POST /api/v1/namespaces/dev/pods", "application/json; a", "{}", "", false, access.Media},
		{"POST /api/v1/namespaces/dev/pods", ";", "{}", "", false, access.Media},

		{"PATCH " + pod, asJSONPatch, "[]", access.JSONPatch, false, ""},
		{"PATCH " + pod, asMerge + ";charset=utf-8", "{}", access.MergePatch, false, ""},
		{"PATCH " + pod, asStrategic, "{}", access.StrategicPatch, false, ""},
		{"PATCH " + pod + "?dryRun=All", asApply, "{}", access.ApplyPatch, true, ""},
		{"PATCH " + pod, "", "{}", "", false, access.Media},
		{"PATCH " + pod, asJSON, "{}", "", false, access.Media},
		{"PATCH " + pod, "application/apply-patch+cbor", "{}", "", false, access.Media},
		{"PATCH " + pod, asMerge, "", "", false, bad},

		{"GET " + pod, asJSON, "{}", "", false, bad},
		{"GET /api/v1/pods", "", "{}", "", false, bad},
		{"GET /api/v1/pods?watch=1", "", "{}", "", false, bad},
		{"GET /version", "", "{}", "", false, bad},
		{"POST " + pod + "/exec?command=sh", "", "{}", "", false, bad},
		{"POST " + pod + "/portforward", asJSON, "{}", "", false, bad},

		// A body replaces the query's options: the dry run of the query is none.
		{"DELETE " + pod + "?dryRun=All", "", "", "", true, ""},
		{"DELETE " + pod + "?dryRun=All", asJSON, "{}", "", false, ""},
		{"DELETE " + pod + "?dryRun=All", asJSON, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`, "", false, ""},
		{"DELETE " + pod, asJSON, `{"dryRun":["All"]}`, "", true, ""},
		{"DELETE " + pod, asYAML, "dryRun: [All]", "", true, ""},
		{"DELETE " + pod, asProtobuf, encode(t, &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"}, DryRun: []string{"All"}}), "", true, ""},
		{"DELETE /apis/example.com/v1/widgets/w?dryRun=All", asProtobuf, encode(t, &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "example.com/v1"}}), "", false, ""},
		{"DELETE /api/v1/namespaces/dev/pods", asJSON, `{"dryRun":[]}`, "", false, ""},
		{"DELETE " + pod, asJSON, `{"dryRun":["all"]}`, "", false, bad},
		{"DELETE " + pod, asJSON, `{"dryRun":"All"}`, "", false, bad},
		{"DELETE " + pod, asJSON, `{"dryRun":["All"],"dryRun":[]}`, "", false, bad},
		{"DELETE " + pod, asJSON, `{"kind":"Pod","apiVersion":"v1"}`, "", false, bad},
		{"DELETE " + pod, asJSON, `{"Kind":"Pod"}`, "", false, bad},
		{"DELETE " + pod, asJSON, `null`, "", false, bad},
		{"DELETE " + pod, asJSON, `{} {}`, "", false, bad},
		{"DELETE " + pod, asProtobuf, "k8s\x00\xff", "", false, bad},
		{"DELETE " + pod, asProtobuf, encode(t, &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}}), "", false, bad},
		{"DELETE " + pod, "text/plain", "{}", "", false, access.Media},
	} {
		got, err := action.Refine(parse(t, test.line), test.media, []byte(test.body))
		if access.KindOf(err) != test.kind || err == nil && (got.Patch != test.patch || got.DryRun != test.dry) {
			t.Errorf("%s as %q %q: patch %q, dry run %v, %v; want %q, %v, kind %q", test.line, test.media, test.body, got.Patch, got.DryRun, err, test.patch, test.dry, test.kind)
		}
	}
}

// S8: bytes that two readers could read differently are refused, and never as something that is merely not understood.
func TestDecodeRefuses(t *testing.T) {
	deep := func(n int) string { return strings.Repeat(`{"a":`, n) + "1" + strings.Repeat("}", n) }
	const head = `"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}`
	for name, test := range map[string][2]string{
		"duplicate":             {asJSON, `{` + head + `,"spec":{"hostNetwork":false,"hostNetwork":true}}`},
		"duplicate, escaped":    {asJSON, `{` + head + `,"spec":{"hostNetwork":false,"host\u004eetwork":true}}`},
		"duplicate at the top":  {asJSON, `{` + head + `,"kind":"Pod"}`},
		"Kind":                  {asJSON, `{` + head + `,"Kind":"Secret"}`},
		"KIND with Kelvin sign": {asJSON, `{"apiVersion":"v1","` + "\u212a" + `ind":"Secret"}`},
		"APIVERSION":            {asJSON, `{"kind":"Pod","APIVERSION":"v1"}`},
		"BOM":                   {asJSON, "\ufeff{" + head + "}"},
		"UTF-16":                {asJSON, "\xff\xfe{\x00}\x00"},
		"invalid UTF-8":         {asJSON, "{" + head + ",\"x\":\"\xff\"}"},
		"trailing":              {asJSON, "{" + head + "}{}"},
		"trailing comma":        {asJSON, "{" + head + ",}"},
		"comment":               {asJSON, "{" + head + "/**/}"},
		"list":                  {asJSON, "[]"},
		"null":                  {asJSON, "null"},
		"empty":                 {asJSON, ""},
		"YAML as JSON":          {asJSON, "kind: Pod"},
		"huge number":           {asJSON, `{` + head + `,"x":1e999}`},
		"deep":                  {asJSON, deep(300)},
		"deeper":                {asJSON, strings.Repeat("[", 1<<20)},
		"YAML duplicate":        {asYAML, "kind: Pod\nspec: {hostNetwork: true, hostNetwork: false}"},
		"YAML two documents":    {asYAML, "kind: Pod\n---\nkind: Secret"},
		"YAML end and more":     {asYAML, "kind: Pod\n...\nkind: Secret"},
		"YAML alias":            {asYAML, "kind: Pod\na: &a {hostNetwork: true}\nspec: *a"},
		"YAML anchor":           {asYAML, "kind: &k Pod"},
		"YAML merge":            {asYAML, "kind: Pod\nspec:\n  <<: {hostNetwork: true}"},
		"YAML tag":              {asYAML, "kind: !!binary UG9k"},
		"YAML integer key":      {asYAML, "kind: Pod\nx: {1: a, \"1\": b}"},
		"YAML boolean key":      {asYAML, "kind: Pod\nx: {on: a, \"true\": b}"},
		"YAML BOM":              {asYAML, "\ufeffkind: Pod"},
		"YAML deep":             {asYAML, deep(300)},
		"YAML list":             {asYAML, "- kind: Pod"},
		"no protobuf":           {asProtobuf, "{}"},
		"broken protobuf":       {asProtobuf, "k8s\x00\x0a\xff\xff"},
		"other kind":            {asJSON, `{"apiVersion":"v1","kind":"Secret"}`},
		"other group":           {asJSON, `{"apiVersion":"apps/v1","kind":"Pod"}`},
		"other version":         {asJSON, `{"apiVersion":"v2","kind":"Pod"}`},
		"no version":            {asJSON, `{"apiVersion":"a/b/c","kind":"Pod"}`},
		"List":                  {asJSON, `{"apiVersion":"v1","kind":"List","items":[]}`},
		"PodList":               {asJSON, `{"apiVersion":"v1","kind":"PodList","items":[]}`},
		"kind a number":         {asJSON, `{"apiVersion":"v1","kind":1}`},
		"metadata a list":       {asJSON, `{"apiVersion":"v1","kind":"Pod","metadata":[]}`},
		"name a number":         {asJSON, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":1}}`},
		"other namespace":       {asJSON, `{"apiVersion":"v1","kind":"Pod","metadata":{"namespace":"prod"}}`},
		"protobuf other kind":   {asProtobuf, encode(t, &corev1.Secret{TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}})},
		"protobuf no UTF-8":     {asProtobuf, encode(t, &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}, Spec: corev1.PodSpec{NodeName: "\xff"}})},
	} {
		if o, err := do(t, "POST /api/v1/namespaces/dev/pods", test[0], test[1], nil); access.KindOf(err) != access.Invalid {
			t.Errorf("%s: got %+v, %v; want it refused as invalid", name, o, err)
		}
	}
	for line, body := range map[string]string{
		"PUT /api/v1/namespaces/dev/pods/web":                                   `{"metadata":{"name":"other"}}`,
		"POST /api/v1/namespaces/dev/pods/web/eviction":                         `{"metadata":{"name":"other"}}`,
		"POST /api/v1/namespaces/dev/pods/web/binding":                          `{"kind":"Pod"}`,
		"POST /api/v1/namespaces/dev/serviceaccounts/sa/token":                  `{"apiVersion":"v1","kind":"ServiceAccount"}`,
		"PUT /apis/apps/v1/namespaces/dev/deployments/web/scale":                `{"apiVersion":"apps/v1","kind":"Deployment"}`,
		"POST /apis/example.com/v1/namespaces/dev/widgets":                      `{"metadata":{"name":"w"}}`,
		"POST /apis/example.com/v1/namespaces/dev/gadgets":                      `{"apiVersion":"v1","kind":"Secret"}`,
		"POST /apis/example.com/v1/namespaces/dev/sprockets":                    `{"apiVersion":"example.com/v1","kind":"List","items":[]}`,
		"POST /apis/example.com/v1/widgets":                                     `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"namespace":"prod"}}`,
		"POST /apis/rbac.authorization.k8s.io/v1/clusterroles":                  `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding"}`,
		"POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions":          `{"apiVersion":"apiextensions.k8s.io/v1","kind":"Other"}`,
		"POST /apis/apiregistration.k8s.io/v1/apiservices":                      `{"apiVersion":"apiregistration.k8s.io/v1","kind":"List"}`,
		"POST /apis/apps/v1/namespaces/dev/deployments":                         `{"apiVersion":"apps/v1","kind":"ReplicaSet"}`,
		"POST /apis/apps/v1/namespaces/dev/statefulsets?fieldValidation=Ignore": `{"apiVersion":"extensions/v1beta1","kind":"StatefulSet"}`,
	} {
		if o, err := do(t, line, asJSON, body, nil); access.KindOf(err) != access.Invalid {
			t.Errorf("%s %s: got %+v, %v; want it refused as invalid", line, body, o, err)
		}
	}
}

// What the cluster may read and we cannot is of a kind of its own: a gate must treat it as the worst.
func TestDecodeCannot(t *testing.T) {
	pod := encode(t, &corev1.Pod{TypeMeta: metav1.TypeMeta{Kind: "Pod", APIVersion: "v1"}})
	var envelope runtime.Unknown
	if err := envelope.Unmarshal([]byte(pod[4:])); err != nil {
		t.Fatal(err)
	}
	again := func(change func(*runtime.Unknown)) string {
		u := envelope
		u.Raw = bytes.Clone(u.Raw)
		change(&u)
		b, err := u.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return "k8s\x00" + string(b)
	}
	if again(func(*runtime.Unknown) {}) != pod {
		t.Fatal("the envelope is not written as it was read")
	}
	for name, body := range map[string]string{
		"unknown kind":     again(func(u *runtime.Unknown) { u.Kind = "Widget" }),
		"no kind":          again(func(u *runtime.Unknown) { u.Kind = "" }),
		"unknown version":  again(func(u *runtime.Unknown) { u.APIVersion = "v9" }),
		"unknown field":    again(func(u *runtime.Unknown) { u.Raw = append(u.Raw, 0xc2, 0x3e, 1, 'x') }),
		"field twice":      again(func(u *runtime.Unknown) { u.Raw = append(u.Raw, 0x1a, 0) }),
		"content type":     again(func(u *runtime.Unknown) { u.ContentType = asJSON }),
		"content encoding": again(func(u *runtime.Unknown) { u.ContentEncoding = "gzip" }),
		"trailing":         pod + "\x2a\x00",
		"long varint":      again(func(u *runtime.Unknown) { u.Raw = append([]byte{0x9a, 0x80, 0}, u.Raw[1:]...) }),
	} {
		if o, err := do(t, "POST /api/v1/namespaces/dev/pods", asProtobuf, body, nil); access.KindOf(err) != access.Media {
			t.Errorf("%s: got %+v, %v; want it to be undecodable", name, o, err)
		}
	}
	for _, line := range []string{"POST /api/v1/namespaces/dev/pods/web/proxy/x", "PUT /api/v1/nodes/n/proxy", "PUT /api/v1/namespaces/dev/pods/web/exec"} {
		if o, err := do(t, line, asJSON, "{}", nil); access.KindOf(err) != access.Media {
			t.Errorf("%s: got %+v, %v; want it to be undecodable", line, o, err)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	for line, body := range map[string]string{
		"POST /api/v1/namespaces/dev/pods":                                  `{"spec":{}}`, // kind and version are the URL's
		"PUT /api/v1/namespaces/dev/pods/web":                               `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web","namespace":"dev"}}`,
		"PUT /api/v1/namespaces/dev/pods/web/status":                        `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"}}`,
		"POST /api/v1/namespaces":                                           `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"new"}}`,
		"PUT /api/v1/namespaces/dev":                                        `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"dev"}}`,
		"PUT /api/v1/namespaces/dev/finalize":                               `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"dev"}}`,
		"POST /api/v1/namespaces/dev/pods/web/eviction":                     `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web"}}`,
		"POST /api/v1/namespaces/dev/pods/web/binding":                      `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"web"}}`,
		"PUT /apis/apps/v1/namespaces/dev/deployments/web/scale":            `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"web"},"spec":{"replicas":3}}`,
		"PUT /apis/example.com/v1/namespaces/dev/widgets/w/scale":           `{"apiVersion":"autoscaling/v1","kind":"Scale","metadata":{"name":"w"}}`,
		"POST /apis/example.com/v1/namespaces/dev/widgets":                  `{"apiVersion":"example.com/v1","kind":"Widget","metadata":{"generateName":"w-"}}`,
		"POST /apis/networking.k8s.io/v1/namespaces/dev/ingresses":          `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress"}`,
		"POST /apis/networking.k8s.io/v1/namespaces/dev/networkpolicies":    `{"apiVersion":"networking.k8s.io/v1","kind":"NetworkPolicy"}`,
		"PUT /api/v1/namespaces/dev/endpoints/web":                          `{"apiVersion":"v1","kind":"Endpoints"}`,
		"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews":       `{"apiVersion":"authorization.k8s.io/v1","kind":"SelfSubjectAccessReview","spec":{}}`,
		"DELETE /api/v1/namespaces/dev/pods/web":                            "",
		"GET /api/v1/namespaces/dev/pods/web":                               "",
		"GET /api/v1/namespaces/dev/pods/web/exec?command=sh":               "",
		"DELETE /api/v1/namespaces/dev/pods":                                `{"gracePeriodSeconds":0}`,
		"PUT /apis/subresources.kubevirt.io/v1/namespaces/dev/vms/vm/start": `{}`,
	} {
		o, err := do(t, line, asJSON, body, nil)
		if err != nil || o.Value == nil || o.Partial || len(o.Traits)+len(o.Unsure) > 0 {
			t.Errorf("%s %s: got %+v, %v", line, body, o, err)
		}
	}
	o := must(t, "POST /api/v1/namespaces/dev/pods", asJSON, `{"spec":{}}`, nil)
	if o.Value["kind"] != "Pod" || o.Value["apiVersion"] != "v1" {
		t.Errorf("the URL's kind was not filled in: %v", o.Value)
	}
}

// The three forms of one object are one object.
func TestFormsAgree(t *testing.T) {
	d := deployment()
	b, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	const line = "POST /apis/apps/v1/namespaces/dev/deployments"
	j := must(t, line, asJSON, string(b), nil)
	y := must(t, line, asYAML, string(b), nil)
	p := must(t, line, asProtobuf, encode(t, d), nil)
	for name, o := range map[string]*access.Object{"YAML": y, "protobuf": p} {
		if diff := cmp.Diff(j, o); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func deployment() *appsv1.Deployment {
	replicas := int32(3)
	return &appsv1.Deployment{
		TypeMeta:   metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"},
		ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "dev", Labels: map[string]string{"app": "web", "tier": "front"}},
		Spec: appsv1.DeploymentSpec{
			Replicas: &replicas, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}, Annotations: map[string]string{"note": "x"}},
				Spec: corev1.PodSpec{
					Volumes: []corev1.Volume{{Name: "tmp", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}},
					Containers: []corev1.Container{
						{Name: "app", Image: "registry.example.com/app:1", Args: []string{"serve"}, Ports: []corev1.ContainerPort{{ContainerPort: 8080}}, Env: []corev1.EnvVar{{Name: "A", Value: "b"}}, VolumeMounts: []corev1.VolumeMount{{Name: "tmp", MountPath: "/tmp"}}},
						{Name: "sidecar", Image: "registry.example.com/proxy:2"},
					},
				},
			},
		},
	}
}

// JSON that is accepted is accepted again when it is written again, as the same object; and nothing makes the reader panic.
func FuzzDecode(f *testing.F) {
	b, _ := json.Marshal(deployment())
	for _, media := range []string{asJSON, asYAML, asProtobuf, asJSONPatch, asMerge, asStrategic, asApply} {
		f.Add(media, string(b))
		f.Add(media, `[{"op":"move","from":"/spec/a~1b","path":"/spec/template/spec/containers/-"}]`)
	}
	f.Add(asProtobuf, encode(f, deployment()))
	f.Add(asStrategic, `{"$patch":"replace","spec":{"$retainKeys":["a"],"template":{"spec":{"containers":[{"name":"app","$patch":"delete"}],"$setElementOrder/containers":[{"name":"app"}]}}}}`)
	f.Add(asYAML, "a: &a [b]\n<<: *a\n---\n? {x}")
	live := object(f, string(b))
	f.Fuzz(func(t *testing.T, media, body string) {
		verb := "POST /apis/apps/v1/namespaces/dev/deployments"
		if strings.Contains(media, "patch") {
			verb = "PATCH /apis/apps/v1/namespaces/dev/deployments/web"
		}
		o, err := do(t, verb, media, body, nil)
		if err != nil {
			if k := access.KindOf(err); k != access.Invalid && k != access.Media && k != access.TooLarge {
				t.Errorf("%v is of kind %s", err, k)
			}
			return
		}
		if strings.Contains(media, "patch") {
			if o, err := do(t, verb, media, body, live); err != nil && access.KindOf(err) == access.Internal {
				t.Errorf("%+v: %v", o, err)
			}
			return
		}
		again, err := do(t, verb, asJSON, marshal(t, o.Value), nil)
		if err != nil {
			t.Fatalf("written again, %q is refused: %v", body, err)
		}
		if a, b := marshal(t, o), marshal(t, again); a != b {
			t.Errorf("written again, %q is another object:\n%s\n%s", body, a, b)
		}
	})
}

func BenchmarkDecode(b *testing.B) {
	d := deployment()
	j, _ := json.Marshal(d)
	p := []byte(encode(b, d))
	a := parse(b, "POST /apis/apps/v1/namespaces/dev/deployments")
	b.Run("baseline json.Unmarshal", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var m map[string]any
			if err := json.Unmarshal(j, &m); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, media := range slices.Sorted(maps.Keys(map[string]bool{asJSON: true, asProtobuf: true, asYAML: true})) {
		body := j
		if media == asProtobuf {
			body = p
		}
		b.Run(strings.TrimPrefix(media, "application/"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				body, err := action.Decode(a, media, body)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := body.Judge(nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
