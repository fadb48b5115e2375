package helm_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/proxy/mask/helm"
)

var update = flag.Bool("update", false, "write testdata/release.txt anew, with the real helm")

// tool is the real helm, or empty.
func tool() string {
	home, _ := os.UserHomeDir()
	found, _ := filepath.Glob(filepath.Join(home, ".cache/sallyport/tools/helm-v*"))
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}

// An apiserver is as much of one as Helm needs to install a chart of Secrets, ConfigMaps and Pods.
type apiserver struct {
	mu      sync.Mutex
	objects map[string]map[string]any // by path
	// read changes a Secret as it is answered.
	read func(secret map[string]any)
}

func (s *apiserver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	answer := func(code int, v any) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(v)
	}
	missing := map[string]any{"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404}
	shown := func(o map[string]any) map[string]any {
		b, _ := json.Marshal(o)
		var c map[string]any
		_ = json.Unmarshal(b, &c)
		if s.read != nil && c["kind"] == "Secret" {
			s.read(c)
		}
		return c
	}
	kinds := map[string]string{"secrets": "Secret", "configmaps": "ConfigMap", "pods": "Pod"}
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/version":
		answer(200, map[string]any{"major": "1", "minor": "36", "gitVersion": "v1.36.0"})
	case r.URL.Path == "/api":
		answer(200, map[string]any{"kind": "APIVersions", "versions": []string{"v1"}})
	case r.URL.Path == "/apis":
		answer(200, map[string]any{"kind": "APIGroupList", "apiVersion": "v1", "groups": []any{}})
	case r.URL.Path == "/api/v1":
		var list []any
		for plural, kind := range kinds {
			list = append(list, map[string]any{"name": plural, "kind": kind, "namespaced": true, "verbs": []string{"create", "get", "list", "patch", "delete", "update", "watch"}})
		}
		answer(200, map[string]any{"kind": "APIResourceList", "groupVersion": "v1", "resources": list})
	case len(parts) == 5 && parts[2] == "namespaces" && r.Method == http.MethodPost:
		o, err := read(r)
		if err != nil {
			answer(415, missing)
			return
		}
		o["kind"], o["apiVersion"] = kinds[parts[4]], "v1"
		m := o["metadata"].(map[string]any)
		m["namespace"], m["uid"], m["resourceVersion"], m["creationTimestamp"] = parts[3], "5d4f", "7", "2026-11-24T12:00:00Z"
		s.objects[r.URL.Path+"/"+m["name"].(string)] = o
		answer(201, shown(o))
	case len(parts) == 5 && r.Method == http.MethodGet:
		items := []any{}
		for path, o := range s.objects {
			labels, _ := o["metadata"].(map[string]any)["labels"].(map[string]any)
			if matches(r.URL.Query().Get("labelSelector"), labels) && strings.HasPrefix(path, r.URL.Path+"/") {
				items = append(items, shown(o))
			}
		}
		answer(200, map[string]any{"kind": kinds[parts[4]] + "List", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "7"}, "items": items})
	case len(parts) == 6 && s.objects[r.URL.Path] != nil:
		o := s.objects[r.URL.Path]
		if r.Method == http.MethodPut || r.Method == http.MethodPatch {
			in, _ := read(r)
			for k, v := range in {
				o[k] = v
			}
		}
		answer(200, shown(o))
	default:
		answer(404, missing)
	}
}

// read reads a body: Helm stores its releases with a typed client, which speaks protobuf.
func read(r *http.Request) (map[string]any, error) {
	b, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	var o map[string]any
	if json.Unmarshal(b, &o) == nil {
		return o, nil
	}
	object, _, err := scheme.Codecs.UniversalDeserializer().Decode(b, nil, nil)
	if err != nil {
		return nil, err
	}
	return runtime.DefaultUnstructuredConverter.ToUnstructured(object)
}

func matches(selector string, labels map[string]any) bool {
	for _, want := range strings.Split(selector, ",") {
		k, v, _ := strings.Cut(want, "=")
		if want != "" && labels[k] != v {
			return false
		}
	}
	return true
}

const canary = "canary-Zk3vQ9"

var installed = map[string]string{
	"Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.2.3\nappVersion: 4.5.6\ndescription: sells things\n",
	"values.yaml": `db:
  user: shop
  password: ` + canary + `-default
  port: 5432
replicas: 2
enabled: true
nothing: null
list: [` + canary + `-element, 7]
`,
	"templates/all.yaml": `apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-db
  labels: {app: shop}
stringData:
  password: {{ .Values.db.password | quote }}
data:
  token: {{ .Values.token | b64enc }} # was ` + canary + `-comment
---
# what the shop reads
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ .Release.Name }}
data:
  DB_HOST: db.example.com
  DB_PASSWORD: {{ .Values.db.password | quote }}
---
apiVersion: v1
kind: Pod
metadata:
  name: {{ .Release.Name }}
spec:
  containers:
  - name: shop
    image: shop:{{ .Chart.AppVersion }}
    env:
    - {name: REGION, value: eu-west-1}
    - name: DB_PASSWORD
      value: {{ .Values.db.password | quote }}
`,
	"templates/hook.yaml": `apiVersion: v1
kind: Secret
metadata:
  name: {{ .Release.Name }}-hook
  annotations: {"helm.sh/hook": pre-install}
stringData:
  hooked: {{ .Values.token | quote }}
`,
	"templates/NOTES.txt": "Log in to {{ .Release.Name }} with {{ .Values.db.password }}.\nThe token is {{ .Values.token }}.\n",
	"files/readme.txt":    "AKIAIOSFODNN7EXAMPLE is in a file\n",
}

// run runs the real helm against the server.
func run(t *testing.T, server string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	home := t.TempDir()
	cmd := exec.CommandContext(ctx, tool(), append(args, "--kube-apiserver", server, "--kube-token", "t", "--namespace", "shop")...)
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "KUBECONFIG=" + filepath.Join(home, "none")}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("helm %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String() + stderr.String()
}

func install(t *testing.T, s *apiserver, url string) (payload string) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range installed {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, url, "install", "web", dir, "--disable-openapi-validation", "--no-hooks", "--set", "token="+canary+"-token,db.password="+canary+"-set")
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.objects["/api/v1/namespaces/shop/secrets/sh.helm.release.v1.web.v1"]
	if o == nil {
		t.Fatal("helm stored no release")
	}
	return o["data"].(map[string]any)["release"].(string)
}

// The real helm reads what was masked.
func TestHelmReadsAMaskedRelease(t *testing.T) {
	if tool() == "" {
		t.Skip("the helm of `make tools` is not here")
	}
	s := &apiserver{objects: map[string]map[string]any{}}
	server := httptest.NewServer(s)
	defer server.Close()
	payload := install(t, s, server.URL)
	if *update {
		if err := os.WriteFile("testdata/release.txt", []byte(payload+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	before := run(t, server.URL, "get", "all", "web")
	if !strings.Contains(before, canary) {
		t.Fatal("there is nothing to mask")
	}
	s.mu.Lock()
	s.read = func(secret map[string]any) {
		data, _ := secret["data"].(map[string]any)
		for k, v := range data {
			out, ok, err := helm.Mask([]byte(v.(string)), helm.SecretLayers, options())
			if err != nil || ok != (secret["type"] == "helm.sh/release.v1") {
				t.Errorf("%v: release %v, %v", secret["metadata"], ok, err)
			}
			data[k] = string(out)
		}
	}
	s.mu.Unlock()
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"list"}, []string{"web", "shop", "deployed", "shop-1.2.3", "4.5.6"}},
		{[]string{"status", "web"}, []string{"NAME: web", "STATUS: deployed", "REVISION: 1", "Log in to web with [masked].\nThe token is [masked]."}},
		{[]string{"status", "web", "--show-resources"}, []string{"STATUS: deployed"}},
		{[]string{"history", "web"}, []string{"Install complete", "shop-1.2.3"}},
		{[]string{"get", "values", "web"}, []string{"password: '[plain]'", "token: '[plain]'"}},
		{[]string{"get", "values", "web", "--all"}, []string{"enabled: true", "port: '[plain]'", "- '[plain]'"}},
		{[]string{"get", "manifest", "web"}, []string{
			"# Source: shop/templates/all.yaml", "# what the shop reads", "kind: Secret", "token: \"W3BsYWluXQ==\"", "password: \"[plain]\"",
			"DB_HOST: db.example.com", "DB_PASSWORD: \"[plain]\"", "image: shop:4.5.6", "{name: REGION, value: eu-west-1}", "value: \"[plain]\"",
		}},
		{[]string{"get", "hooks", "web"}, []string{"name: web-hook", "hooked: \"[plain]\""}},
		{[]string{"get", "notes", "web"}, []string{"[masked]"}},
		{[]string{"get", "metadata", "web"}, []string{"CHART: shop", "APP_VERSION: 4.5.6"}},
		{[]string{"get", "all", "web"}, []string{"USER-SUPPLIED VALUES"}},
	} {
		got := run(t, server.URL, test.args...)
		if strings.Contains(got, canary) || strings.Contains(got, base64.StdEncoding.EncodeToString([]byte(canary))[:16]) {
			t.Errorf("helm %v shows a secret:\n%s", test.args, got)
		}
		for _, want := range test.want {
			if !strings.Contains(got, want) {
				t.Errorf("helm %v does not say %q:\n%s", test.args, want, got)
			}
		}
	}
}
