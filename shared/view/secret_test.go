package view_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/view"
)

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

const mark = "Values of secrets are masked; whether they change is shown."

func TestSecretsAreMasked(t *testing.T) {
	secret := func(verb string) access.Action {
		return access.Action{Verb: verb, Version: "v1", Resource: "secrets", Namespace: "dev", Name: "db"}
	}
	patch := func(p access.Patch) access.Action { a := secret("patch"); a.Patch = p; return a }
	live := parse(t, `{apiVersion: v1, kind: Secret, metadata: {name: db}, type: Opaque, data: {keep: `+b64("topsecret-1")+`, turn: `+b64("topsecret-2")+`, gone: `+b64("topsecret-3")+`}}`)
	for _, test := range []struct {
		name string
		in   view.Input
		diff string
	}{
		{
			name: "update, with stringData as the cluster takes it",
			in: view.Input{
				Action: secret("update"), Live: live,
				Object: &access.Object{Value: parse(t, `{apiVersion: v1, kind: Secret, metadata: {name: db}, type: Opaque, data: {turn: `+b64("topsecret-4")+`, add: `+b64("topsecret-5")+`}, stringData: {keep: topsecret-1}}`)},
			},
			diff: `--- live
+++ request
@@ -1,8 +1,8 @@
 apiVersion: v1
 data:
-  gone: (masked)
+  add: (masked, new)
   keep: (masked, unchanged)
-  turn: (masked)
+  turn: (masked, changed)
 kind: Secret
 metadata:
   name: db
`,
		},
		{
			name: "a patch without a kind, that could not be computed",
			in: view.Input{
				Action: patch(access.StrategicPatch), Missing: true,
				Object: &access.Object{Partial: true, Value: parse(t, `{data: {a: dG9wc2VjcmV0}, stringData: {b: topsecret-1, c: [topsecret-2], d: null}, metadata: {labels: {x: "1"}}}`)},
			},
			diff: `--- /dev/null
+++ patch
@@ -0,0 +1,9 @@
+data:
+  a: (masked, new)
+metadata:
+  labels:
+    x: "1"
+stringData:
+  b: (masked, new)
+  c: (masked, new)
+  d: (masked, new)
`,
		},
		{
			name: "a JSON patch",
			in: view.Input{
				Action: patch(access.JSONPatch), Missing: true, Object: &access.Object{Partial: true},
				Body: []byte(`[{"op":"add","path":"/data","value":{"a":"dG9wc2VjcmV0"}},{"op":"test","path":"/data/b","value":"topsecret-1"},{"op":"add","path":"/metadata/labels/x","value":"1"},` +
					`{"op":"add","path":"/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration","value":"topsecret-2"}]`),
			},
			diff: `--- /dev/null
+++ patch
@@ -0,0 +1,12 @@
+- op: add
+  path: /data
+  value: (masked)
+- op: test
+  path: /data/b
+  value: (masked)
+- op: add
+  path: /metadata/labels/x
+  value: "1"
+- op: add
+  path: /metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration
+  value: (not shown, new)
`,
		},
		{
			name: "data that is no map, and a Secret inside another object",
			in: view.Input{
				Action: access.Action{Verb: "create", Group: "x.io", Version: "v1", Resource: "bundles"},
				Object: &access.Object{Value: parse(t, `{kind: Bundle, items: [{kind: secret, data: topsecret-1}, {kind: Secret, stringData: {a: {b: topsecret-2}}}]}`)},
			},
			diff: `--- /dev/null
+++ request
@@ -0,0 +1,7 @@
+items:
+- data: (masked, new)
+  kind: secret
+- kind: Secret
+  stringData:
+    a: (masked, new)
+kind: Bundle
`,
		},
		{
			name: "well-known shapes elsewhere",
			in: view.Input{
				Action: access.Action{Verb: "update", Version: "v1", Resource: "configmaps", Name: "a"},
				Live: parse(t, `
kind: ConfigMap
data:
  url: "postgres://app:topsecret-1@db:5432/x"
  other: "mysql://app:topsecret-2@db/x"
  free: "no secret"
env:
- {name: B, value: "x"}
- {name: A, value: "Authorization: Bearer topsecret-123456789"}
`),
				Object: &access.Object{Value: parse(t, `
kind: ConfigMap
data:
  url: "postgres://app:topsecret-1@db:5432/y"
  other: "mysql://app:topsecret-3@db/x"
  free: "redis://:topsecret-4@cache"
  key: |
    a
    -----BEGIN RSA PRIVATE KEY-----
    topsecret
    -----END RSA PRIVATE KEY-----
    b
  AKIAABCDEFGHIJKLMNOP: "name"
env:
- {name: A, value: "Authorization: Bearer topsecret-123456789"}
- {name: DB_PASSWORD, value: "topsecret-6"}
- {name: WHERE, value: "$(PASSWORD) password=$(X)"}
`)},
			},
			diff: `--- live
+++ request
@@ -1,10 +1,17 @@
 data:
-  free: no secret
-  other: mysql://app:(masked)@db/x
-  url: postgres://app:(masked, unchanged)@db:5432/x
+  (masked, name 0): name
+  free: redis://:(masked, new)@cache
+  key: |
+    a
+    (masked, new)
+    b
+  other: mysql://app:(masked, changed)@db/x
+  url: postgres://app:(masked, unchanged)@db:5432/y
 env:
-- name: B
-  value: x
 - name: A
   value: 'Authorization: Bearer (masked, unchanged)'
+- name: DB_PASSWORD
+  value: (masked, new)
+- name: WHERE
+  value: $(PASSWORD) password=$(X)
 kind: ConfigMap
`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := view.Build(test.in)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.diff, got.Diff); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(got.Notes) != 1 || got.Notes[0] != mark {
				t.Errorf("notes %q, want that secrets are masked", got.Notes)
			}
			text, err := json.Marshal(got)
			if err != nil {
				t.Fatal(err)
			}
			for _, leak := range []string{"topsecret", b64("topsecret")} {
				if strings.Contains(string(text), leak) {
					t.Errorf("%q is shown:\n%s", leak, text)
				}
			}
		})
	}
}

func TestApplyToASecret(t *testing.T) {
	got, err := view.Build(view.Input{
		Action: access.Action{Verb: "patch", Version: "v1", Resource: "secrets", Name: "db", Patch: access.ApplyPatch}, Query: "fieldManager=ci&force=1",
		Live:   parse(t, `{apiVersion: v1, kind: Secret, metadata: {name: db}, data: {a: dG9wc2VjcmV0LTE=, b: dG9wc2VjcmV0LTI=}}`),
		Object: &access.Object{Partial: true, Value: parse(t, `{apiVersion: v1, kind: Secret, metadata: {name: db}, data: {a: dG9wc2VjcmV0LTE=}, stringData: {b: topsecret-3}}`)},
	})
	if err != nil {
		t.Fatal(err)
	}
	const want = `--- live
+++ request
@@ -1,7 +1,7 @@
 apiVersion: v1
 data:
   a: (masked, unchanged)
-  b: (masked)
+  b: (masked, changed)
 kind: Secret
 metadata:
   name: db
`
	if diff := cmp.Diff(want, got.Diff); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A reveal changes nothing, and who is asked about it does not see the value either.
func TestReveal(t *testing.T) {
	live := parse(t, `{apiVersion: v1, kind: Secret, metadata: {name: db}, data: {password: `+b64("topsecret-1")+`}}`)
	const note = "The agent sees the value of this key, once, and may keep it. It is not shown here; the values of all other keys stay masked."
	for key, want := range map[string][]string{"password": {note}, "pasword": {note, "The Secret has no key of this name."}} {
		a := access.Action{Verb: "reveal", Version: "v1", Resource: "secrets", Namespace: "dev", Name: "db", Reveal: key}
		got, err := view.Build(view.Input{Action: a, Live: live, Query: "reveal=" + key, Object: &access.Object{Value: map[string]any{}}})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got.Notes); diff != "" || got.Diff != "" || got.Approximate != "" {
			t.Errorf("%s: %+v %s", key, got, diff)
		}
	}
	got, err := view.Build(view.Input{Action: access.Action{Verb: "reveal", Version: "v1", Resource: "secrets", Namespace: "dev", Name: "db", Reveal: "a"}, Query: "reveal=a"})
	if err != nil || got.Diff != "" || len(got.Notes) != 1 {
		t.Errorf("of a Secret that was not seen: %+v, %v", got, err)
	}
}

func TestMasked(t *testing.T) {
	kubeconfig := b64("-----BEGIN EC PRIVATE KEY-----\ntopsecret\n-----END EC PRIVATE KEY-----\n")
	certificate := b64("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n")
	for in, want := range map[string]string{
		"key AKIAIOSFODNN7EXAMPLE of":                                      "key (masked) of",
		"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY": "aws_secret_access_key = (masked)",
		"jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl.":       "jwt (masked)",
		"-----BEGIN PRIVATE KEY-----\nMIIE":                                "(masked)",
		"-H 'Authorization: Basic dXNlcjpwYXNzd29yZA=='":                   "-H 'Authorization: Basic (masked)'",
		"ghp_0123456789abcdefghijABCDEFGHIJ012345 ":                        "(masked) ",
		"https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXX": "https://hooks.slack.com/services/(masked)",
		"AccountName=a;AccountKey=abcdefghijklmnopqrstuvwxyz==;Suffix":     "AccountName=a;AccountKey=(masked);Suffix",
		"mongodb+srv://u:p@ss@host/db":                                     "mongodb+srv://u:(masked)@host/db",
		"host=db user=a PGPASSWORD=hunter22 x":                             "host=db user=a PGPASSWORD=(masked) x",
		`{"password": "hunter22"}`:                                         `{"password": "(masked)"}`,
		"client-key-data: " + kubeconfig:                                   "client-key-data: (masked)",
		// And what is none.
		"caBundle: " + certificate:             "caBundle: " + certificate,
		"registry:5000/foo@sha256:abcdef":      "registry:5000/foo@sha256:abcdef",
		"https://host:8080/path/@foo":          "https://host:8080/path/@foo",
		"the bearer of this":                   "the bearer of this",
		"password=$(DB) pwd=${X} password: <y": "password=$(DB) pwd=${X} password: <y",
		"":                                     "",
	} {
		if got := view.Masked(in); got != want {
			t.Errorf("Masked(%q) = %q, want %q", in, got, want)
		}
	}
}
