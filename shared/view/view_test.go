package view_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"sallyport/shared/access"
	"sallyport/shared/view"
)

// parse reads YAML as JSON is read.
func parse(t testing.TB, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var out map[string]any
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

const web = `
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  namespace: prod
  uid: 7d1c
  resourceVersion: "41"
  generation: 3
  creationTimestamp: "2026-01-01T00:00:00Z"
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: '{"old":true}'
  managedFields:
  - manager: kubectl-client-side-apply
    operation: Update
    apiVersion: apps/v1
    fieldsType: FieldsV1
    fieldsV1: {"f:spec": {"f:replicas": {}}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: app
        image: web:1
        env:
        - name: MODE
          value: fast
      - name: log
        image: log:1
status:
  replicas: 2
`

func deployment(verb string) access.Action {
	return access.Action{Verb: verb, Group: "apps", Version: "v1", Resource: "deployments", Namespace: "prod", Name: "web"}
}

func restarted(t *testing.T, change func(spec map[string]any)) map[string]any {
	o := parse(t, web)
	change(o["spec"].(map[string]any))
	return o
}

func TestDiff(t *testing.T) {
	scale := func(spec map[string]any) { spec["replicas"] = 5 }
	for _, test := range []struct {
		name        string
		in          view.Input
		diff        string
		approximate string
		notes       []string
	}{
		{
			name: "create",
			in: view.Input{
				Action: access.Action{Verb: "create", Version: "v1", Resource: "configmaps", Namespace: "dev"},
				Object: &access.Object{Value: parse(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: settings, creationTimestamp: null}, data: {b: '1', a: 'yes'}}")},
			},
			diff: `--- /dev/null
+++ request
@@ -0,0 +1,7 @@
+apiVersion: v1
+data:
+  a: "yes"
+  b: "1"
+kind: ConfigMap
+metadata:
+  name: settings
`,
		},
		{
			name: "update: what the server fills in is left out on both sides",
			in: view.Input{
				Action: deployment("update"), Live: parse(t, web),
				Object: &access.Object{Value: restarted(t, scale)},
			},
			diff: `--- live
+++ request
@@ -6,7 +6,7 @@
   name: web
   namespace: prod
 spec:
-  replicas: 2
+  replicas: 5
   selector:
     matchLabels:
       app: web
`,
		},
		{
			name: "update that leaves out fields, and changes kubectl's copy",
			in: view.Input{
				Action: access.Action{Verb: "update", Version: "v1", Resource: "services", Name: "web"},
				Live:   parse(t, `{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {kubectl.kubernetes.io/last-applied-configuration: a}}, spec: {clusterIP: 10.0.0.1}}`),
				Object: &access.Object{Value: parse(t, `{apiVersion: v1, kind: Service, metadata: {name: web, annotations: {kubectl.kubernetes.io/last-applied-configuration: b}}, spec: {}}`)},
			},
			diff: `--- live
+++ request
@@ -2,7 +2,6 @@
 kind: Service
 metadata:
   annotations:
-    kubectl.kubernetes.io/last-applied-configuration: (not shown)
+    kubectl.kubernetes.io/last-applied-configuration: (not shown, changed)
   name: web
-spec:
-  clusterIP: 10.0.0.1
+spec: {}
`,
			approximate: "fields that are shown as removed may come back with the cluster's defaults",
		},
		{
			name: "update of what could not be read",
			in: view.Input{
				Action: access.Action{Verb: "update", Version: "v1", Resource: "configmaps", Name: "a"},
				Object: &access.Object{Value: parse(t, `{kind: ConfigMap}`)},
			},
			diff:        "--- /dev/null\n+++ request\n@@ -0,0 +1 @@\n+kind: ConfigMap\n",
			approximate: "the live object could not be read, so all of the object is shown as new",
		},
		{
			name: "nothing changes",
			in: view.Input{
				Action: deployment("patch"), Live: parse(t, web), Object: &access.Object{Value: parse(t, web), Touched: []string{"metadata.labels"}},
			},
			notes: []string{"It changes nothing of the object but what the cluster fills in itself."},
		},
		{
			name: "a status is shown when it is what the request is about",
			in: view.Input{
				Action: func() access.Action { a := deployment("update"); a.Subresource = "status"; return a }(), Live: parse(t, web),
				Object: &access.Object{Value: func() map[string]any {
					o := parse(t, web)
					o["status"] = map[string]any{"replicas": 9}
					return o
				}()},
			},
			diff: `--- live
+++ request
@@ -24,4 +24,4 @@
       - image: log:1
         name: log
 status:
-  replicas: 2
+  replicas: 9
`,
			notes: []string{"The cluster takes only the status of it."},
		},
		{
			name: "a custom resource may have a status that anybody writes",
			in: view.Input{
				Action: access.Action{Verb: "update", Group: "x.io", Version: "v1", Resource: "things", Name: "a"},
				Live:   parse(t, `{apiVersion: x.io/v1, kind: Thing, status: {ok: false}}`),
				Object: &access.Object{Value: parse(t, `{apiVersion: x.io/v1, kind: Thing, status: {ok: true}}`)},
			},
			diff: `--- live
+++ request
@@ -1,4 +1,4 @@
 apiVersion: x.io/v1
 kind: Thing
 status:
-  ok: false
+  ok: true
`,
		},
		{
			name: "scale",
			in: view.Input{
				Action: func() access.Action {
					a := deployment("patch")
					a.Subresource, a.Patch = "scale", access.MergePatch
					return a
				}(),
				Live:   parse(t, `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: web}, spec: {replicas: 3}, status: {replicas: 3}}`),
				Object: &access.Object{Value: parse(t, `{apiVersion: autoscaling/v1, kind: Scale, metadata: {name: web}, spec: {replicas: 0}, status: {replicas: 3}}`)},
			},
			diff: `--- live
+++ request
@@ -3,4 +3,4 @@
 metadata:
   name: web
 spec:
-  replicas: 3
+  replicas: 0
`,
			notes: []string{"Replicas: 3 → 0."},
		},
		{
			name: "a strategic patch that cannot be computed",
			in: view.Input{
				Action: func() access.Action { a := deployment("patch"); a.Patch = access.StrategicPatch; return a }(),
				Object: &access.Object{Partial: true, Value: parse(t, `{spec: {replicas: 9}, metadata: {resourceVersion: "7"}}`)},
			},
			diff: `--- /dev/null
+++ patch
@@ -0,0 +1,4 @@
+metadata:
+  resourceVersion: "7"
+spec:
+  replicas: 9
`,
			approximate: "the live object could not be read, so the patch is shown as it is, and not what it makes",
		},
		{
			name: "a JSON patch of what is not there",
			in: view.Input{
				Action: func() access.Action { a := deployment("patch"); a.Patch = access.JSONPatch; return a }(), Missing: true,
				Body:   []byte(`[{"op":"replace","path":"/spec/replicas","value":1000000}]`),
				Object: &access.Object{Partial: true, Value: map[string]any{}},
			},
			diff: `--- /dev/null
+++ patch
@@ -0,0 +1,3 @@
+- op: replace
+  path: /spec/replicas
+  value: 1000000
`,
			approximate: "there is no such object, so the patch is shown as it is",
		},
		{
			name: "a JSON patch whose keys come twice is shown to the letter",
			in: view.Input{
				Action: func() access.Action { a := deployment("patch"); a.Patch = access.JSONPatch; return a }(), Live: parse(t, web),
				Body: []byte(`[{"op":"remove","op":"test","path":"/spec/replicas"}]`),
			},
			diff: `--- /dev/null
+++ body
@@ -0,0 +1 @@
+[{"op":"remove","op":"test","path":"/spec/replicas"}]
\ No newline at end of file
`,
			approximate: "the patch cannot be computed here, so it is shown as it is, and not what it makes",
		},
		{
			name: "a body for a program in the cluster",
			in: view.Input{
				Action: access.Action{Verb: "create", Version: "v1", Resource: "services", Subresource: "proxy", Name: "web"},
				Body:   []byte("drop\x1b[2J"),
			},
			diff:        "--- /dev/null\n+++ body\n@@ -0,0 +1 @@\n+drop\\u{1b}[2J\n\\ No newline at end of file\n",
			approximate: "the body was not understood, so it is shown as it is",
			notes: []string{
				"The request goes to a program in the cluster; what that makes of it is not known here.",
				`Characters that do not show, or that turn the text around them, are written as escapes such as \u{202e}.`,
			},
		},
		{
			name: "eviction",
			in: view.Input{
				Action: access.Action{Verb: "create", Version: "v1", Resource: "pods", Subresource: "eviction", Namespace: "dev", Name: "web-0"},
				Live:   parse(t, `{kind: Pod}`),
				Object: &access.Object{Value: parse(t, `{kind: Eviction, metadata: {name: web-0}, deleteOptions: {gracePeriodSeconds: 0}}`)},
			},
			diff: `--- /dev/null
+++ request
@@ -0,0 +1,5 @@
+deleteOptions:
+  gracePeriodSeconds: 0
+kind: Eviction
+metadata:
+  name: web-0
`,
			notes: []string{
				"It evicts the pod: the pod is deleted once its disruption budget allows it, and what controls it may start another.",
				"It is deleted at once, with no time to end (grace period 0).",
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := view.Build(test.in)
			if err != nil {
				t.Fatal(err)
			}
			want := access.View{Diff: test.diff, Approximate: test.approximate, Notes: test.notes, Live: test.in.Live != nil}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestApply(t *testing.T) {
	applied := func(text string) *access.Object { return &access.Object{Value: parse(t, text), Partial: true} }
	a := deployment("patch")
	a.Patch = access.ApplyPatch
	const two = `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {replicas: 5, template: {spec: {containers: [{name: log, image: "log:2"}]}}}}`
	const change = `--- live
+++ request
@@ -6,7 +6,7 @@
   name: web
   namespace: prod
 spec:
-  replicas: 2
+  replicas: 5
   selector:
     matchLabels:
       app: web
@@ -21,5 +21,5 @@
           value: fast
         image: web:1
         name: app
-      - image: log:1
+      - image: log:2
         name: log
`
	thing := access.Action{Verb: "patch", Group: "x.io", Version: "v1", Resource: "things", Name: "a", Patch: access.ApplyPatch}
	for _, test := range []struct {
		name        string
		in          view.Input
		diff        string
		approximate string
		notes       []string
	}{
		{
			name: "lists are merged by their keys; what others manage is taken over",
			in:   view.Input{Action: a, Live: parse(t, web), Object: applied(two), Query: "fieldManager=ci&force=true"},
			diff: change, approximate: "the change was merged here; the cluster's defaults and admission may add to it",
			notes: []string{`It takes .spec.replicas over: conflict with "kubectl-client-side-apply" using apps/v1.`},
		},
		{
			name: "a conflict",
			in:   view.Input{Action: a, Live: parse(t, web), Object: applied(two), Query: "fieldManager=ci"},
			diff: change, approximate: "as things are the cluster refuses it, for others manage fields it changes, and shown is what it would make; the change was merged here; the cluster's defaults and admission may add to it",
			notes: []string{`It may not change .spec.replicas: conflict with "kubectl-client-side-apply" using apps/v1.`},
		},
		{
			name: "what a manager applied before and leaves out now is removed",
			in: view.Input{
				Action: access.Action{Verb: "patch", Version: "v1", Resource: "configmaps", Name: "a", Patch: access.ApplyPatch},
				Live: parse(t, `
apiVersion: v1
kind: ConfigMap
metadata:
  name: a
  managedFields:
  - {manager: ci, operation: Apply, apiVersion: v1, fieldsType: FieldsV1, fieldsV1: {"f:data": {"f:x": {}, "f:y": {}}}}
  - {manager: old, operation: Update, apiVersion: v0, fieldsType: FieldsV1, fieldsV1: {"f:data": {"f:z": {}}}}
data: {x: "1", y: "2", z: "3"}`),
				Object: applied(`{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {x: "1"}}`), Query: "fieldManager=ci",
			},
			diff: `--- live
+++ request
@@ -1,7 +1,6 @@
 apiVersion: v1
 data:
   x: "1"
-  "y": "2"
   z: "3"
 kind: ConfigMap
 metadata:
`,
			approximate: "the change was merged here; the cluster's defaults and admission may add to it",
		},
		{
			name: "an unknown kind",
			in: view.Input{
				Action: thing, Query: "fieldManager=ci",
				Live:   parse(t, `{apiVersion: x.io/v1, kind: Thing, metadata: {name: a}, spec: {a: 1, list: [{name: x}]}}`),
				Object: applied(`{apiVersion: x.io/v1, kind: Thing, metadata: {name: a}, spec: {list: [{name: "y"}]}}`),
			},
			diff: `--- live
+++ request
@@ -5,4 +5,4 @@
 spec:
   a: 1
   list:
-  - name: x
+  - name: "y"
`,
			approximate: "as things are the cluster refuses it, for others manage fields it changes, and shown is what it would make; the kind's schema is not known here, so its lists are shown as replaced; the cluster may merge them, and its defaults and admission may add to it",
			notes:       []string{`It may not change .spec.list: conflict with "before-first-apply" using x.io/v1.`},
		},
		{
			name: "what is no object of its kind is shown as it is",
			in: view.Input{
				Action: a, Live: parse(t, `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, managedFields: [{manager: x, operation: Apply, fieldsV1: {"f:a": 1}, apiVersion: apps/v1, fieldsType: FieldsV1}]}}`),
				Object: applied(`{apiVersion: apps/v2, kind: Deployment, metadata: {name: web}}`),
			},
			diff: `--- /dev/null
+++ applied
@@ -0,0 +1,4 @@
+apiVersion: apps/v2
+kind: Deployment
+metadata:
+  name: web
`,
			approximate: "what is applied could not be merged with the live object, so it is shown as it is, and not what it makes",
		},
		{
			name: "a new object",
			in:   view.Input{Action: thing, Missing: true, Object: applied(`{kind: Thing}`)},
			diff: "--- /dev/null\n+++ request\n@@ -0,0 +1 @@\n+kind: Thing\n",
		},
		{
			name: "unread",
			in:   view.Input{Action: thing, Object: applied(`{kind: Thing}`)},
			diff: "--- /dev/null\n+++ request\n@@ -0,0 +1 @@\n+kind: Thing\n", approximate: "the live object could not be read, so all of what is applied is shown as new",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, err := json.Marshal(test.in)
			if err != nil {
				t.Fatal(err)
			}
			got, err := view.Build(test.in)
			if err != nil {
				t.Fatal(err)
			}
			want := access.View{Diff: test.diff, Approximate: test.approximate, Notes: test.notes, Live: test.in.Live != nil}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			after, err := json.Marshal(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if string(before) != string(after) {
				t.Errorf("the input was changed:\n%s\n%s", before, after)
			}
		})
	}
}

func TestCommand(t *testing.T) {
	exec := func(stdin bool, argv ...string) access.Action {
		return access.Action{Verb: "exec", Version: "v1", Resource: "pods", Subresource: "exec", Namespace: "dev", Name: "web-0", Argv: argv, Stdin: stdin}
	}
	const shell, typed = "It runs a shell: its words are a program, and may do more than one thing.", "What is typed into it (stdin) is not shown here, and not approved."
	for _, test := range []struct {
		name  string
		a     access.Action
		argv  []string
		notes []string
	}{
		{name: "words", a: exec(false, "rm", "-rf", "/a b", ""), argv: []string{"rm", "-rf", "/a b", ""}},
		{name: "a shell", a: exec(false, "/bin/sh", "-c", "a\nb"), argv: []string{"/bin/sh", "-c", `a\nb`}, notes: []string{shell}},
		{name: "a shell's shell", a: exec(true, "env", "-i", "busybox", "ash"), argv: []string{"env", "-i", "busybox", "ash"}, notes: []string{"It opens a shell that runs whatever is typed into it.", typed}},
		{name: "stdin", a: exec(true, "cat"), argv: []string{"cat"}, notes: []string{typed}},
		{
			name: "hostile", a: exec(false, "r\u043c", "\u202e", "(masked)", "\u05d0"), argv: []string{"r\u043c", `\u{202e}`, `\u{28}masked)`, "\u05d0"},
			notes: []string{
				"The command has characters that are not ASCII; they may look like others.",
				`Characters that do not show, or that turn the text around them, are written as escapes such as \u{202e}.`,
				"There are letters in it that are written from right to left; what stands beside them may show in another order.",
				`Text in the request imitates the marks of this page; such text is written with \u{28} for its bracket.`,
			},
		},
		{
			name: "secrets", a: exec(false, "psql", "postgres://u:hunter2@db", "--password", "x1", "--password=y", "z"),
			argv: []string{"psql", "postgres://u:(masked)@db", "--password", "(masked)", "--password=y", "z"},
			notes: []string{
				"Word 2 of the command holds a secret of 7 characters, which is masked.",
				"Word 4 of the command holds a secret of 2 characters, which is masked.", mark,
			},
		},
		{name: "attach", a: access.Action{Verb: "attach", Stdin: true}, notes: []string{typed}},
		{name: "portforward", a: access.Action{Verb: "portforward"}, notes: []string{"What passes through the forwarded ports is neither approved nor looked at."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := view.Build(view.Input{Action: test.a})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(access.View{Argv: test.argv, Notes: test.notes}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDelete(t *testing.T) {
	pod := access.Action{Verb: "delete", Version: "v1", Resource: "pods", Namespace: "dev", Name: "web-0"}
	all := access.Action{Verb: "deletecollection", Version: "v1", Resource: "pods", Namespace: "dev"}
	some := all
	some.LabelSelector, some.DryRun = "app=web", true
	const now = "It is deleted at once, with no time to end (grace period 0)."
	const more = "It deletes what matches when it runs, which may be more than matches now."
	for _, test := range []struct {
		name  string
		in    view.Input
		notes []string
	}{
		{name: "plain", in: view.Input{Action: pod}},
		{name: "query", in: view.Input{Action: pod, Query: "gracePeriodSeconds=0&propagationPolicy=Orphan"}, notes: []string{"What it controls is left behind, controlled by nothing (propagation policy Orphan).", now}},
		{
			name:  "a body replaces the query's options",
			in:    view.Input{Action: pod, Query: "gracePeriodSeconds=0", Object: &access.Object{Value: map[string]any{"propagationPolicy": "Foreground", "gracePeriodSeconds": int64(30)}}},
			notes: []string{"What it controls is deleted first, and it last (propagation policy Foreground).", "It gets 30 seconds to end (grace period)."},
		},
		{name: "floats", in: view.Input{Action: pod, Object: &access.Object{Value: map[string]any{"propagationPolicy": "Background", "gracePeriodSeconds": 0.0}}}, notes: []string{"What it controls is deleted after it (propagation policy Background).", now}},
		{name: "all", in: view.Input{Action: all, Object: &access.Object{Value: map[string]any{}}}, notes: []string{"It has no selector: it deletes all there are.", more}},
		{name: "some", in: view.Input{Action: some}, notes: []string{more, "It is a dry run: the cluster stores nothing."}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := view.Build(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(access.View{Notes: test.notes}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestAffected(t *testing.T) {
	got, err := view.Build(view.Input{
		Action: access.Action{Verb: "delete", Resource: "pods"}, Live: map[string]any{}, More: 7,
		Affected: []access.Affected{{Kind: "Pod", Namespace: "dev", Name: "web-0\n", Owner: "ReplicaSet/\u202eweb"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := access.View{
		Affected: []access.Affected{{Kind: "Pod", Namespace: "dev", Name: `web-0\n`, Owner: `ReplicaSet/\u{202e}web`}}, More: 7, Live: true,
		Notes: []string{`Characters that do not show, or that turn the text around them, are written as escapes such as \u{202e}.`},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Nothing is cut: a long line goes on in the next, and what could pass for that is made different.
func TestLongLines(t *testing.T) {
	long := strings.Repeat("word ", 100) + "tail"
	got, err := view.Build(view.Input{
		Action: access.Action{Verb: "create", Version: "v1", Resource: "configmaps"},
		Object: &access.Object{Value: map[string]any{"a": long, "↪ b": "x", "c": "1\n2 \n3"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	var joined strings.Builder
	for line := range strings.Lines(got.Diff) {
		if n := len([]rune(line)); n > 162 {
			t.Errorf("a line has %d characters", n)
		}
		line = strings.TrimSuffix(line, "\n")
		if rest, ok := strings.CutPrefix(line, "+↪ "); ok {
			joined.WriteString(rest)
		} else {
			joined.WriteString("\n" + line)
		}
	}
	const head = "\n--- /dev/null\n+++ request\n@@ -0,0 +1,6 @@\n"
	want := head + "+\\u{21aa} b: x\n+a: " + long + "\n+c: \"1\\n2 \\n3\""
	if diff := cmp.Diff(want, joined.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestWhatCannotBeShownWholeIsDenied(t *testing.T) {
	deep := any("x")
	for range 200 {
		deep = map[string]any{"a": deep}
	}
	patch := func(p access.Patch, resource string) access.Action {
		return access.Action{Verb: "patch", Version: "v1", Resource: resource, Name: "a", Patch: p}
	}
	big := strings.Repeat("0123456789abcdef\n", 20<<10)
	for _, test := range []struct {
		name, says string
		in         view.Input
	}{
		{"a large object", "420 KiB", view.Input{Action: access.Action{Verb: "create", Resource: "configmaps"}, Object: &access.Object{Value: map[string]any{"data": big}}}},
		{"a deep object", "128 levels", view.Input{Action: access.Action{Verb: "create", Resource: "configmaps"}, Object: &access.Object{Value: map[string]any{"data": deep}}}},
		{"a deep live object", "128 levels", view.Input{Action: patch(access.ApplyPatch, "configmaps"), Live: map[string]any{"data": deep}, Object: &access.Object{Value: map[string]any{}}}},
		{"a long command", "40 KiB", view.Input{Action: access.Action{Verb: "exec", Argv: []string{strings.Repeat("a", 40<<10)}}}},
		{"no text", "not text", view.Input{Action: access.Action{Verb: "create", Subresource: "proxy"}, Body: []byte("k8s\x00\xff")}},
		{"a patch that is not there", "not there", view.Input{Action: patch(access.JSONPatch, "configmaps"), Object: &access.Object{Partial: true}}},
		{"a Secret that was not understood", "for a Secret", view.Input{Action: access.Action{Verb: "create", Resource: "secrets"}, Body: []byte("data")}},
		{"a delete that was not understood", "not text", view.Input{Action: access.Action{Verb: "delete", Resource: "pods"}, Body: []byte("\xff")}},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := view.Build(test.in)
			if access.KindOf(err) != access.Denied || !strings.Contains(err.Error(), "cannot be shown whole, so nobody can approve it: ") || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v, want a denial that says %q", err, test.says)
			}
			if diff := cmp.Diff(access.View{}, got); diff != "" {
				t.Errorf("a view nevertheless:\n%s", diff)
			}
		})
	}
}

// texts are all strings of a view.
func texts(v access.View) []string {
	all := append([]string{v.Diff, v.Approximate}, v.Argv...)
	all = append(all, v.Notes...)
	for _, a := range v.Affected {
		all = append(all, a.Kind, a.Namespace, a.Name, a.Owner)
	}
	return all
}

func FuzzBuild(f *testing.F) {
	f.Add(`{"apiVersion":"apps/v1","kind":"Deployment","spec":{"a":[{"name":"x"}]}}`, `{"apiVersion":"apps/v1","kind":"Deployment","spec":{"a":[{"name":"x","value":"\u202e"}]}}`, "deployments", "ab", byte(0))
	f.Add(`{"kind":"Secret","apiVersion":"v1","data":{"a":"b"}}`, `{"kind":"Secret","apiVersion":"v1","stringData":{"a":{"b":1}}}`, "secrets", "\x1b", byte(3))
	f.Add(`{"metadata":{"managedFields":[{"fieldsV1":{"f:a":{}}}]}}`, `[{"op":"add","path":"/a","value":{}}]`, "pods", "", byte(4))
	f.Fuzz(func(t *testing.T, live, value, resource, word string, which byte) {
		var l, v map[string]any
		_ = json.Unmarshal([]byte(live), &l)
		_ = json.Unmarshal([]byte(value), &v)
		// A Secret of the fuzzer's making, with values no escape touches.
		const leak = "Zq7leakZq7"
		secret := map[string]any{"kind": "Secret", "data": map[string]any{word: leak, "x": []any{leak}}, "stringData": map[string]any{word: leak}, "more": map[string]any{"password": leak}}
		if v != nil {
			v["zz"] = []any{secret}
		}
		if l != nil && which&1 == 0 {
			l["zz"] = []any{map[string]any{"kind": "Secret", "data": leak}}
		}
		verbs := []string{"create", "update", "patch", "patch", "patch", "patch", "delete", "exec"}
		forms := []access.Patch{"", "", access.JSONPatch, access.MergePatch, access.StrategicPatch, access.ApplyPatch, "", ""}
		n := int(which>>1) % len(verbs)
		in := view.Input{
			Action: access.Action{Verb: verbs[n], Patch: forms[n], Version: "v1", Resource: resource, Argv: []string{word, "--password", leak}},
			Object: &access.Object{Value: v, Partial: which&16 != 0}, Live: l, Body: []byte(value), Missing: which&32 != 0, Query: "force=true",
			Affected: []access.Affected{{Kind: word, Name: word}},
		}
		if which&64 != 0 {
			in.Object = nil
		}
		got, err := view.Build(in)
		if err != nil {
			if k := access.KindOf(err); k != access.Denied {
				t.Errorf("%s: %v", k, err)
			}
			return
		}
		for _, s := range texts(got) {
			if r, bad := unsafe(s); bad {
				t.Errorf("%q holds %U", s, r)
			}
			if strings.Contains(s, leak) && !strings.Contains(value+live+word+resource, "leak") {
				t.Errorf("a secret is shown:\n%s", s)
			}
		}
	})
}

// A command in a container is no change of the pod, whatever object comes along with it.
func TestAStreamHasNoDiff(t *testing.T) {
	for _, verb := range []string{"exec", "attach", "portforward"} {
		v, err := view.Build(view.Input{
			Action: access.Action{Verb: verb, Version: "v1", Resource: "pods", Subresource: verb, Namespace: "dev", Name: "web-0", Upgrade: true, Stream: true, Argv: []string{"true"}},
			Object: &access.Object{Value: map[string]any{}}, Live: map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": map[string]any{"name": "web-0"}},
		})
		if err != nil || v.Diff != "" || v.Approximate != "" {
			t.Errorf("%s: %v\n%s", verb, err, v.Diff)
		}
	}
}
