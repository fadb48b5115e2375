package mask_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// Threat S11: what was read masked is not written back over what it stands for, by no way there is to write, and the refusal
// says so. Nobody is asked about it.
func TestMasksAreNotWrittenBack(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	set := canary.New()
	name := stored(t, s, set)
	before := s.Admin(t, "get", "secret", name, "-n", "dev", "-o", "json")
	developer := s.Agent(t, "developers")
	path := "/api/v1/namespaces/dev/secrets/" + name
	read := developer.Get(t, path)
	if read.Code != http.StatusOK || len(set.In(read.Body)) > 0 || len(masksIn(t, developer, path)) != 2 {
		t.Fatalf("reading it: %v", read)
	}
	yaml := developer.Kubectl(t, "get", "secret", name, "-n", "dev", "-o", "yaml").Stdout
	mask := developer.Kubectl(t, "get", "secret", name, "-n", "dev", "-o", "jsonpath={.data.password}").Stdout
	plain := masksIn(t, developer, path)["password"]

	refused := func(what string, code int, body string) {
		t.Helper()
		if code != http.StatusUnprocessableEntity || !strings.Contains(body, "Sallyport's mask") {
			t.Errorf("%s: %d %s", what, code, body)
		}
	}
	ssa := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"` + name + `"},"data":{"password":"` + mask + `"}}`
	for _, w := range []write{
		{"PUT", path, asJSON, read.Body, ""},
		{"PUT", path, "application/yaml", yaml, ""},
		{"PUT", path + "?dryRun=All", asJSON, strings.ReplaceAll(read.Body, `"data":{"password":"`, `"data":{"pass\u0077ord":"`), ""},
		{"POST", "/api/v1/namespaces/dev/secrets", asJSON, strings.ReplaceAll(read.Body, name, name+"-copy"), ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"before ` + plain + ` after"}}`, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"{\"b\":\"` + mask + `\"}"}}`, ""},
		{"POST", "/api/v1/namespaces/dev/configmaps", asJSON, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x"},"data":{"a":"[mask\u0065d]"}}`, ""},
		{"PATCH", path, merge, `{"data":{"password":"` + mask + `"}}`, ""},
		{"PATCH", path, merge, `{"stringData":{"password":"` + plain + `"}}`, ""},
		{"PATCH", path, strategic, `{"stringData":{"url":"postgres://app:` + plain + `@db/app"}}`, ""},
		{"PATCH", path, strategic, `{"data":{"password":"` + mask + `"}}`, ""},
		{"PATCH", path, jsonPatch, `[{"op":"replace","path":"/data/password","value":"` + mask + `"}]`, ""},
		{"PATCH", path, jsonPatch, `[{"op":"test","path":"/data/password","value":"` + mask + `"},{"op":"add","path":"/data/x","value":"eA=="}]`, ""},
		{"PATCH", path + "?fieldManager=x&force=true", apply, ssa, ""},
		{"PATCH", path + "?fieldManager=x&force=true&dryRun=All", apply, "apiVersion: v1\nkind: Secret\nmetadata: {name: " + name + "}\nstringData: {password: \"" + strings.Replace(plain, "[", `\x5b`, 1) + "\"}\n", ""},
		{"PATCH", "/apis/apps/v1/namespaces/dev/deployments/web?dryRun=All", strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"PASSWORD","value":"` + plain + `"}]}]}}}}`, ""},
	} {
		a := w.by(t, developer)
		refused(w.String(), a.Code, a.Body)
	}

	for _, media := range []string{"", "application/vnd.kubernetes.protobuf"} {
		cfg := developer.Config()
		cfg.ContentType, cfg.AcceptContentTypes = media, protobuf
		typed, err := kubernetes.NewForConfig(cfg)
		if err != nil {
			t.Fatal(err)
		}
		secrets := typed.CoreV1().Secrets("dev")
		one, err := secrets.Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		one.Labels["edited"] = "y"
		_, update := secrets.Update(t.Context(), one, metav1.UpdateOptions{})
		_, create := secrets.Create(t.Context(), &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name + "-copy"}, Data: one.Data}, metav1.CreateOptions{})
		_, patch := secrets.Patch(t.Context(), name, types.MergePatchType, fmt.Appendf(nil, `{"data":{"password":%q}}`, mask), metav1.PatchOptions{})
		for what, err := range map[string]error{"update": update, "create": create, "patch": patch} {
			if !apierrors.IsInvalid(err) || !strings.Contains(err.Error(), "Sallyport's mask") {
				t.Errorf("client-go %s as %q: %v", what, media, err)
			}
		}
	}

	file := filepath.Join(developer.Dir(), "read.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"replace -f " + file, "apply -f " + file, "apply --server-side --force-conflicts -f " + file, "apply --dry-run=server -f " + file,
		"patch secret " + name + " -n dev -p {\"stringData\":{\"password\":\"" + plain + "\"}}", "create secret generic copy -n dev --from-literal=password=" + plain, "create configmap copy -n dev --from-literal=password=" + plain,
		"set env deployment/web -n dev PASSWORD=" + plain + " --dry-run=server",
	} {
		if out := developer.Kubectl(t, strings.Fields(args)...); out.Code == 0 || !strings.Contains(out.Stderr, "Sallyport's mask") {
			t.Errorf("kubectl %s: %v", args, out)
		}
	}
	if out, told := edit(t, developer, name, `s/^  password: .*/  password: `+mask[:len(mask)-4]+`AAA=/; s/^  url: \(.*\)/  url: \1\n  again: \1/`); out.Code == 0 || !strings.Contains(told, "Sallyport's mask") {
		t.Errorf("kubectl edit that copies a mask: %v, and the editor was told %s", out, told)
	}
	if pending := s.Reviewer(t, "ana@example.com").List(t, "pending"); len(pending) > 0 {
		for _, a := range pending {
			if a.Principal.Subject == developer.Subject {
				t.Errorf("people are asked about %s", a.Kubectl)
			}
		}
	}
	if after := s.Admin(t, "get", "secret", name, "-n", "dev", "-o", "json"); after != before {
		t.Errorf("the Secret was\n%s\nand is\n%s", before, after)
	}

	// What changes something else passes, with a yes, and leaves the values as they are.
	consenting(t, s, developer)
	if out, _ := edit(t, developer, name, `s/^    app: .*/&\n    edited: done/`); out.Code != 0 {
		t.Errorf("kubectl edit of a label: %v", out)
	}
	if out := developer.Kubectl(t, "label", "secret", name, "-n", "dev", "labelled=y"); out.Code != 0 {
		t.Errorf("kubectl label: %v", out)
	}
	if out := developer.Kubectl(t, "patch", "secret", name, "-n", "dev", "-p", `{"stringData":{"new":"value"}}`); out.Code != 0 {
		t.Errorf("kubectl patch: %v", out)
	}
	after := s.Admin(t, "get", "secret", name, "-n", "dev", "-o", "json")
	if !strings.Contains(after, `"edited": "done"`) || !strings.Contains(after, `"labelled": "y"`) || !strings.Contains(after, `"new": "dmFsdWU="`) || len(set.In(after)) != len(set.In(before)) {
		t.Errorf("the Secret is %s", after)
	}
}

// edit runs kubectl edit with an editor that runs a script of sed's, and returns what the editor was given too.
func edit(t *testing.T, a *stacktest.Agent, name, script string) (out stacktest.Output, told string) {
	t.Helper()
	dir := t.TempDir()
	editor, copied := filepath.Join(dir, "editor"), filepath.Join(dir, "told")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\ncat \"$1\" >>"+copied+"\nsed -i '"+script+"' \"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	out = a.Run(t, func(c *exec.Cmd) { c.Env = append(c.Env, "KUBE_EDITOR="+editor, "TMPDIR="+dir) }, "edit", "secret", name, "-n", "dev")
	b, err := os.ReadFile(copied)
	if err != nil {
		t.Fatal(err)
	}
	return out, string(b)
}
