package mask_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

const protobuf = "application/vnd.kubernetes.protobuf, application/json"

// stored is a Secret of the test's own, with something in every place that an answer may repeat: kubectl puts all of it into
// the annotation, as there is one.
func stored(t *testing.T, s *stacktest.Stack, set *canary.Set) (name string) {
	t.Helper()
	name = "stored-" + stacktest.Word()
	s.Create(t, planted(t, set, fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":%[1]q,"namespace":"dev","labels":{"app":%[1]q},"annotations":{"note":"<<annotation|slack>>","kubectl.kubernetes.io/last-applied-configuration":"{}"}},
		"data":{"password":"<<data|word|base64>>","url":"<<data|url|base64>>"}}`, name)))
	return name
}

// Threat S4: every write that returns what is stored is one that people are asked about, and is answered masked: in every
// form, dry or not. What it would show past the gate is looked at first.
func TestWritesAnswerMasked(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	set := canary.New()
	name := stored(t, s, set)
	const all = "/api/v1/namespaces/dev/secrets"
	one := all + "/" + name
	ssa := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `","labels":{"a":"b"}}}`
	dry := []write{
		{"PATCH", one + "?dryRun=All", merge, `{}`, ""},
		{"PATCH", one + "?dryRun=All&pretty=true", merge, `{}`, protobuf},
		{"PATCH", one + "?dryRun=All&includeObject=Object", merge, `{}`, "application/json" + table},
		{"PATCH", one + "?dryRun=All&includeObject=Metadata&fieldManager=z", merge, `{}`, "application/json" + table1},
		{"PATCH", one + "?dryRun=All&fieldManager=y", merge, `{}`, "application/json" + partial},
		{"PATCH", one + "?dryRun=All", strategic, `{"metadata":{"labels":{"a":"b"}}}`, ""},
		{"PATCH", one + "?dryRun=All", jsonPatch, `[]`, ""},
		{"PATCH", one + "?dryRun=All", jsonPatch, `[{"op":"copy","from":"/data/password","path":"/data/copied"}]`, ""},
		{"PATCH", one + "?dryRun=All", jsonPatch, `[{"op":"move","from":"/data/password","path":"/data/moved"}]`, protobuf},
		{"PATCH", one + "?dryRun=All", jsonPatch, `[{"op":"test","path":"/metadata/name","value":"` + name + `"}]`, ""},
		{"PATCH", one + "?dryRun=All&fieldManager=x", apply, ssa, ""},
		{"DELETE", all + "?dryRun=All&labelSelector=app%3D" + name, "", "", ""},
		{"DELETE", all + "?includeObject=Object&labelSelector=app%3D" + name, asJSON, `{"dryRun":["All"]}`, "application/json" + table},
		{"DELETE", all + "?fieldSelector=metadata.name%3D" + name, "application/yaml", "dryRun: [All]\n", protobuf},
	}
	wet := []write{
		{"PATCH", one, merge, `{"metadata":{"labels":{"a":"c"}}}`, ""},
		{"PATCH", one + "?fieldManager=x&force=true", apply, ssa, protobuf},
		{"DELETE", all + "?labelSelector=app%3D" + name, "", "", ""},
	}
	shown := 0
	for _, w := range dry {
		if len(set.In(w.past(t, s))) > 0 {
			shown++
		}
	}
	if shown != len(dry) {
		t.Errorf("%d of %d dry runs show what is stored, past the gate", shown, len(dry))
	}
	agent := s.Agent(t, "developers")
	asked := consenting(t, s, agent)
	for _, w := range append(dry, wet...) {
		a := w.by(t, agent)
		for _, secret := range set.In(text(a)) {
			t.Errorf("%v shows %s", w, secret.Carrier)
		}
		if a.Code != http.StatusOK || !strings.Contains(a.Body, "[masked") && !strings.Contains(a.Body, "W21hc2tlZ") {
			t.Errorf("%v is answered %v", w, a)
		}
	}
	if n := len(asked.all()); n != len(dry)+len(wet) {
		t.Errorf("people were asked about %d of %d writes", n, len(dry)+len(wet))
	}
	record := agent.Recorded(t)
	for _, secret := range set.In(record.Raw) {
		t.Errorf("the recording shows %s", secret.Carrier)
	}
	ana := s.Reviewer(t, "ana@example.com")
	for _, a := range asked.all() {
		if found := set.In(ana.Do(t, "GET", "/api/approvals/"+a.ID, nil).Body); len(found) > 0 {
			t.Errorf("who is asked about %s is shown %v", a.Kubectl, found)
		}
	}
}

// Threat S2: a json-patch copies what is stored to where validation quotes it. People said yes, and yet it is not shown.
func TestErrorsAboutSecrets(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	set := canary.New()
	name := stored(t, s, set)
	one := "/api/v1/namespaces/dev/secrets/" + name + "?dryRun=All"
	var writes []write
	for _, path := range []string{"/metadata/labels", "/metadata/labels/x", "/metadata/annotations", "/metadata/name", "/metadata/uid", "/metadata/generateName", "/metadata/resourceVersion",
		"/metadata/finalizers", "/metadata/ownerReferences", "/metadata/creationTimestamp", "/type", "/immutable", "/data", "/kind", "/apiVersion"} {
		writes = append(writes, write{"PATCH", one, jsonPatch, `[{"op":"copy","from":"/data/password","path":"` + path + `"}]`, ""})
	}
	writes = append(writes, write{"PATCH", one, jsonPatch, `[{"op":"test","path":"/data/password","value":"Z3Vlc3M="}]`, ""},
		write{"PATCH", one, merge, `{"data":"x"}`, ""}, write{"PATCH", one, strategic, `{"metadata":{"labels":{"a":{"b":"c"}}}}`, ""})
	shown := 0
	for _, w := range writes {
		if len(set.In(w.past(t, s))) > 0 {
			shown++
		}
	}
	agent := s.Agent(t, "developers")
	asked := consenting(t, s, agent)
	for _, w := range writes {
		a := w.by(t, agent)
		for _, secret := range set.In(text(a)) {
			t.Errorf("%v shows %s: %s", w, secret.Carrier, a.Body)
		}
		if a.Code < 400 {
			t.Errorf("%v is answered %v", w, a)
		}
	}
	if shown < 12 {
		t.Errorf("only %d of %d errors show what is stored, past the gate", shown, len(writes))
	}
	t.Logf("%d of %d errors show what is stored, past the gate; people were asked %d times", shown, len(writes), len(asked.all()))
}

// Threats S4, S5: a write to a Secret is one whatever it is wrapped in, and reaches the cluster only when people said yes. What
// a body says it is does not matter: the address does, and a body that says something else is refused.
func TestKindsOfWrites(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	name := "kinds-" + stacktest.Word()
	value := base64.StdEncoding.EncodeToString([]byte("value"))
	secret := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `"},"data":{"password":"` + value + `"}}`
	configmap := strings.Replace(secret, "Secret", "ConfigMap", 1)
	for _, w := range []write{
		{"POST", "/api/v1/namespaces/dev/secrets", asJSON, configmap, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, secret, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps?dryRun=All", asJSON, secret, "application/json" + table},
		{"POST", "/api/v1/namespaces/dev/configmaps", "application/yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData: {password: value}\n", ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, `{"apiVersion":"v1","kind":"List","items":[` + secret + `]}`, ""},
		{"POST", "/api/v1/namespaces/dev/secrets", asJSON, `{"apiVersion":"v1","kind":"SecretList","items":[` + secret + `]}`, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, strings.Replace(configmap, `"v1"`, `"v2"`, 1), ""},
		{"PUT", "/api/v1/namespaces/dev/configmaps/settings", asJSON, strings.Replace(secret, name, "settings", 1), ""},
		{"PATCH", "/api/v1/namespaces/dev/configmaps/settings?fieldManager=x", apply, strings.Replace(secret, name, "settings", 1), ""},
		{"PATCH", "/api/v1/namespaces/dev/configmaps/settings", merge, `{"kind":"Secret"}`, ""},
		{"PATCH", "/api/v1/namespaces/dev/configmaps/settings", jsonPatch, `[{"op":"replace","path":"/kind","value":"Secret"}]`, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", "application/vnd.kubernetes.protobuf", "k8s\x00\x0a\x0c\x0a\x02v1\x12\x06Secret\x12\x00", ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", "application/cbor", "\xd9\xd9\xf7\xa0", ""},
	} {
		a := w.by(t, agent)
		if a.Code < 400 || a.Code >= 500 || strings.Contains(a.Body, value) {
			t.Errorf("%v is answered %v", w, a)
		}
	}
	if out := agent.Kubectl(t, "get", "secret,configmap", name, "-n", "dev"); out.Code == 0 {
		t.Errorf("something was made: %v", out)
	}
	for _, e := range s.Forwarded(t, "create", name) {
		if e.ObjectRef.Resource == "secrets" {
			t.Errorf("a Secret reached the cluster: %s", e.RequestURI)
		}
	}
}

// Threat S8: a body that two readers could take for two things is read once, and refused; what is a key to somebody is
// masked.
func TestAmbiguousBodies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	set := canary.New()
	word := set.Plant("a value that was sent")
	encoded := base64.StdEncoding.EncodeToString([]byte(word))
	const head = `"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"ambiguous"}`
	target := "/api/v1/namespaces/dev/configmaps?dryRun=All"
	for what, w := range map[string]write{
		"a key twice":               {"POST", target, asJSON, `{` + head + `,"data":{"a":"b"},"data":{"PASSWORD":"` + word + `"}}`, ""},
		"a key twice, escaped":      {"POST", target, asJSON, `{` + head + `,"data":{"a":"b"},"d\u0061ta":{"PASSWORD":"` + word + `"}}`, ""},
		"a key twice, inside":       {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"x","PASS\u0057ORD":"` + word + `"}}`, ""},
		"a byte order mark":         {"POST", target, asJSON, "\ufeff{" + head + `,"data":{"PASSWORD":"` + word + `"}}`, ""},
		"no UTF-8":                  {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"` + word + "\xff" + `"}}`, ""},
		"a huge number":             {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"` + word + `"},"x":1e999999}`, ""},
		"something behind it":       {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"` + word + `"}}{}`, ""},
		"a comment":                 {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"` + word + `"}/**/}`, ""},
		"YAML, a key twice":         {"POST", target, "application/yaml", "{" + head + ", data: {PASSWORD: x}, data: {PASSWORD: " + word + "}}", ""},
		"YAML, an alias":            {"POST", target, "application/yaml", "{" + head + ", data: &a {PASSWORD: " + word + "}, binaryData: *a}", ""},
		"YAML, two documents":       {"POST", target, "application/yaml", "{" + head + ", data: {PASSWORD: " + word + "}}\n---\n{}", ""},
		"YAML, a merge key":         {"POST", target, "application/yaml", "{" + head + ", data: {<<: {PASSWORD: " + word + "}}}", ""},
		"a patch, a key twice":      {"PATCH", "/api/v1/namespaces/dev/configmaps/settings?dryRun=All", merge, `{"data":{"PASSWORD":"x"},"data":{"PASSWORD":"` + word + `"}}`, ""},
		"a JSON patch, a key twice": {"PATCH", "/api/v1/namespaces/dev/configmaps/settings?dryRun=All", jsonPatch, `[{"op":"add","path":"/data/a","path":"/data/PASSWORD","value":"` + word + `"}]`, ""},
	} {
		a := w.by(t, agent)
		if a.Code != http.StatusBadRequest && a.Code != http.StatusUnprocessableEntity || len(set.In(a.Body)) > 0 {
			t.Errorf("%s: %v is answered %v", what, w, a)
		}
	}
	for what, w := range map[string]write{
		"escaped":              {"POST", target, asJSON, `{` + head + `,"d\u0061ta":{"PASS\u0057ORD":"` + word + `"}}`, ""},
		"a value, escaped":     {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"\u00` + fmt.Sprintf("%x", word[0]) + word[1:] + `"}}`, ""},
		"binary":               {"POST", target, asJSON, `{` + head + `,"binaryData":{"PASSWORD":"` + encoded + `"}}`, ""},
		"YAML, folded":         {"POST", target, "application/yaml", "{" + head + ", \"d\\x61ta\": {PASSWORD: \"" + word[:5] + "\\\n  " + word[5:] + "\"}}", ""},
		"YAML, another client": {"POST", target, "application/yaml", "{" + head + ", data: {PASSWORD: '" + word + "'}}", protobuf},
		"half a surrogate":     {"POST", target, asJSON, `{` + head + `,"data":{"PASSWORD":"` + word + `\ud800"}}`, ""},
		"a patch":              {"PATCH", "/api/v1/namespaces/dev/configmaps/settings?dryRun=All", merge, `{"data":{"PASSWORD":"` + word + `"}}`, ""},
		"a table":              {"PATCH", "/api/v1/namespaces/dev/configmaps/settings?dryRun=All&includeObject=Object", merge, `{"data":{"PASSWORD":"` + word + `"}}`, "application/json" + table},
	} {
		a := w.by(t, agent)
		if a.Code/100 != 2 || len(set.In(a.Body)) > 0 || !strings.Contains(a.Body, "[masked") && !strings.Contains(a.Body, "W21hc2tlZ") {
			t.Errorf("%s: %v is answered %v", what, w, a)
		}
	}
	// Another case is another field for the API server, which drops it, and says so.
	a := write{"POST", target, asJSON, `{` + head + `,"Data":{"PASSWORD":"` + word + `"},"data":{"a":"b"}}`, ""}.by(t, agent)
	if len(set.In(text(a))) > 0 || a.Code < 400 && !strings.Contains(a.Header.Get("Warning"), "unknown field") {
		t.Errorf("Data is answered %v", a)
	}
}
