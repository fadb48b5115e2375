// Package mask_test looks for secrets in everything an agent can get out of a running stack: planted ones, in every carrier
// that threats.md knows, by every read and encoding that a client can ask for.
package mask_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const within = 30 * time.Second

// Every encoding and form that a client can ask the API server for, in some of their spellings.
var accepts = []string{
	"", "*/*", "application/json", "application/json;pretty=1",
	"application/json;as=Table;v=v1;g=meta.k8s.io", "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
	"application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
	"application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf,application/json", "Application/Vnd.Kubernetes.Protobuf;q=1, */*;q=0.1",
	"application/vnd.kubernetes.protobuf;stream=watch", "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
	"application/yaml", "application/yaml,application/json;q=0.5", "application/cbor", "application/cbor-seq, application/json", "text/plain",
}

// planted is a secret in every spelling in which it could be read back.
func spellings(secret string) []string {
	all := []string{secret}
	for shift := range 3 { // base64 of a text that holds it, wherever it begins
		b := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", shift) + secret))
		from := (shift*8 + 5) / 6
		all = append(all, b[from+1:len(b)-4])
	}
	return all
}

// canaries are planted secrets by what carries them.
type canaries struct {
	mu  sync.Mutex
	all map[string]string // secret to carrier
}

func (c *canaries) make(carrier, format string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := fmt.Sprintf(format, strings.ReplaceAll(stacktest.Word()+stacktest.Word()+stacktest.Word(), "-", "")[:20])
	c.all[s] = carrier
	return s
}

// found are the planted secrets that are in a text, each with its carrier.
func (c *canaries) found(text string) []string {
	var out []string
	for s, carrier := range c.all {
		for i, spelt := range spellings(s) {
			if strings.Contains(text, spelt) {
				out = append(out, fmt.Sprintf("%s of %s (spelling %d)", s, carrier, i))
				break
			}
		}
	}
	return out
}

// Formats of secrets whose shape is known: what detectors find wherever it stands. %s is 20 letters and digits.
const (
	github   = "ghp_%s0123456789abcdef"
	slackBot = "xoxb-123456789012-123456789012-%s0123"
	database = "postgres://app:%s@db.dev.svc:5432/app"
)

// plant puts secrets into every carrier, one of each kind a round.
func plant(t *testing.T, s *stacktest.Stack, c *canaries, rounds int) (namespace string) {
	t.Helper()
	namespace = "dev"
	var manifests []string
	add := func(format string, a ...any) { manifests = append(manifests, fmt.Sprintf(format, a...)) }
	for i := range rounds {
		name := fmt.Sprintf("canary-%d-%s", i, stacktest.Word())
		add("apiVersion: v1\nkind: Secret\nmetadata: {name: %s, namespace: dev, labels: {canary: planted}}\nstringData: {password: %q, url: %q}\n", name, c.make("Secret stringData", "pw%s"), c.make("Secret url", database))
		add("apiVersion: v1\nkind: Secret\nmetadata: {name: %s-d, namespace: dev, labels: {canary: planted}}\ntype: kubernetes.io/dockerconfigjson\nstringData: {.dockerconfigjson: %q}\n", name, `{"auths":{"r.example.com":{"username":"u","password":"`+c.make("dockerconfigjson", "dk%s")+`"}}}`)
		add("apiVersion: v1\nkind: Secret\nmetadata: {name: %s-b, namespace: dev, labels: {canary: planted}}\ntype: kubernetes.io/basic-auth\nstringData: {username: u, password: %q}\n", name, c.make("basic-auth", "ba%s"))
		add("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev, labels: {canary: planted}}\ndata: {DB_PASSWORD: %q, api-key: %q, app.conf: %q, plain: shown}\n", name, c.make("ConfigMap key by name", "cm%s"), c.make("ConfigMap key by name", "ck%s"), "listen: 80\ntoken: "+c.make("ConfigMap text", github)+"\n")
		add(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: dev, labels: {canary: planted}, annotations: {note: %[2]q}}
spec:
  replicas: 0
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      containers:
      - {name: c, image: "localhost/web:1", args: ["--dsn", %[3]q], env: [{name: API_TOKEN, value: %[4]q}, {name: LOG, value: %[5]q}, {name: MODE, value: shown}]}
`, name, c.make("annotation", slackBot), c.make("container args", database), c.make("env by name", "ev%s"), c.make("env value", github))
		add("apiVersion: v1\nkind: Event\nmetadata: {name: %s, namespace: dev, labels: {canary: planted}}\ninvolvedObject: {kind: Pod, name: x, namespace: dev}\nreason: Failed\ntype: Warning\nmessage: %q\n", name, "failed with "+c.make("event message", github))
		add("apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: %[1]s, namespace: dev, labels: {canary: planted}}\nspec: {schedule: '0 0 1 1 *', suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x, env: [{name: CLIENT_SECRET, value: %[2]q}]}]}}}}}\n", name, c.make("CronJob env", "cj%s"))
	}
	// kubectl apply writes what it applied into an annotation: every carrier has it twice.
	file := filepath.Join(t.TempDir(), "canaries.yaml")
	if err := os.WriteFile(file, []byte(strings.Join(manifests, "---\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s.Admin(t, "apply", "-f", file)
	t.Cleanup(func() {
		s.Admin(t, "delete", "secret,configmap,deployment,event,cronjob", "-n", "dev", "-l", "canary=planted", "--wait=false", "--ignore-not-found")
	})
	return namespace
}

// Five hundred secrets, and a client that tries every read it can: none is in what it got, in the recordings or in the logs.
func TestCanaries(t *testing.T) {
	s := stacktest.Get(t)
	c := &canaries{all: map[string]string{}}
	plant(t, s, c, 40)
	developer := s.Agent(t, "developers")
	objects := strings.Fields(s.Admin(t, "get", "secrets,configmaps,deployments,events,cronjobs", "-n", "dev", "-l", "canary=planted", "-o", "name"))
	base := map[string]string{"secret": "/api/v1/namespaces/dev/secrets", "configmap": "/api/v1/namespaces/dev/configmaps", "event": "/api/v1/namespaces/dev/events", "deployment.apps": "/apis/apps/v1/namespaces/dev/deployments", "cronjob.batch": "/apis/batch/v1/namespaces/dev/cronjobs"}
	var targets []string
	for _, b := range base {
		targets = append(targets, b, b+"?limit=7", b+"?labelSelector=canary%3Dplanted", b+"?includeObject=Object", b+"?watch=1&timeoutSeconds=1", b+"?watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", b+"?watch=1&timeoutSeconds=1&includeObject=Object",
			strings.Replace(b, "/namespaces/dev", "", 1), strings.Replace(strings.Replace(b, "/v1/", "/v1/watch/", 1), "namespaces", "namespaces", 1)+"?timeoutSeconds=1")
	}
	kinds := map[string]int{}
	for _, o := range objects {
		kind, name, _ := strings.Cut(o, "/")
		if kinds[kind]++; kinds[kind] <= 3 {
			targets = append(targets, base[kind]+"/"+name, base[kind]+"/"+name+"?includeObject=Object")
		}
	}
	var got strings.Builder
	var mu sync.Mutex
	reads, served := 0, 0
	next := make(chan [2]string)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for job := range next {
				header := []string{"Accept-Encoding: gzip"}
				if job[1] != "" {
					header = append(header, "Accept: "+job[1])
				}
				a := developer.Get(t, job[0], header...)
				mu.Lock()
				reads++
				if a.Code == http.StatusOK {
					served++
				}
				fmt.Fprintf(&got, "%s as %q: %d\n%s\n", job[0], job[1], a.Code, a.Body)
				mu.Unlock()
			}
		})
	}
	for _, target := range targets {
		for _, accept := range accepts {
			next <- [2]string{target, accept}
		}
	}
	close(next)
	wg.Wait()
	for _, args := range [][]string{
		{"get", "secrets", "-n", "dev", "-o", "yaml"}, {"get", "secrets", "-n", "dev", "-o", "jsonpath={.items[*].data}"}, {"describe", "secrets", "-n", "dev"}, {"get", "secrets", "-A", "--show-labels", "-o", "wide"},
		{"get", "all,configmaps,events,secrets", "-n", "dev", "-o", "json"}, {"describe", "deployments,configmaps,events,cronjobs", "-n", "dev", "-l", "canary=planted"}, {"events", "-n", "dev"},
		{"get", "deployments", "-n", "dev", "-o", "custom-columns=ENV:.spec.template.spec.containers[*].env"}, {"get", "secrets", "-n", "dev", "-o", "go-template={{range .items}}{{range $k,$v := .data}}{{$v|base64decode}} {{end}}{{end}}"},
		{"set", "env", "deployment", "--all", "--list", "-n", "dev"}, {"get", "secrets", "-n", "dev", "--watch", "--output-watch-events", "-o", "yaml", "--request-timeout=2s"}, {"cluster-info", "dump", "--namespaces", "dev"},
		{"create", "secret", "generic", "x", "-n", "dev", "--from-literal=a=b", "--dry-run=client", "-o", "yaml"},
	} {
		out := developer.Kubectl(t, args...)
		reads++
		fmt.Fprintf(&got, "kubectl %s\n%s\n%s\n", strings.Join(args, " "), out.Stdout, out.Stderr)
	}
	if found := c.found(got.String()); len(found) > 0 {
		t.Errorf("%d of %d planted secrets were shown: %.3000v", len(found), len(c.all), found)
	}
	if len(c.all) < 500 || reads < 800 || served < 400 || !strings.Contains(got.String(), "[masked:") && !strings.Contains(got.String(), base64.StdEncoding.EncodeToString([]byte("[masked:"))[:8]) || !strings.Contains(got.String(), "shown") {
		t.Errorf("%d secrets in %d carriers, %d reads, %d served: too few to mean anything", len(c.all), len(kinds), reads, served)
	}
	logs, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	logs["sessions show"] = s.Sallyport(t, "sessions", "show", "--json", developer.Session(t)).Stdout
	for name, text := range logs {
		if strings.Contains(name, "/cluster/") { // the cluster's own audit log is the cluster's
			continue
		}
		if found := c.found(text); len(found) > 0 {
			t.Errorf("%s holds %v", name, found)
		}
	}
	carriers := map[string]bool{}
	for _, carrier := range c.all {
		carriers[carrier] = true
	}
	t.Logf("%d secrets in %d carriers, %d targets × %d encodings: %d reads, %d served, none shown", len(c.all), len(carriers), len(targets), len(accepts), reads, served)
}

// Clients work on masked objects as on others: typed, dynamic, metadata, informers.
func TestClientsDecodeMaskedObjects(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	cfg := s.Agent(t, "developers").Config()
	typed, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	check := func(how string, data map[string][]byte) {
		t.Helper()
		if len(data) != 2 || !strings.HasPrefix(string(data["password"]), "[masked:") || string(data["password"]) == string(data["url"]) {
			t.Errorf("%s: %q", how, data)
		}
	}
	one, err := typed.CoreV1().Secrets("dev").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check("typed get", one.Data)
	list, err := typed.CoreV1().Secrets("dev").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range list.Items {
		if i.Name == "db" {
			check("typed list", i.Data)
			if string(i.Data["password"]) != string(one.Data["password"]) {
				t.Error("the same value has two masks in one session")
			}
		}
	}
	other, err := typed.CoreV1().Secrets("prod").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	check("typed get in prod", other.Data)
	dyn, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	u, err := dyn.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace("dev").Get(t.Context(), "db", metav1.GetOptions{})
	if err != nil || strings.Contains(fmt.Sprint(u.Object), "correct-horse") {
		t.Errorf("dynamic: %v %v", u, err)
	}
	meta, err := metadata.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if m, err := meta.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}).Namespace("dev").List(t.Context(), metav1.ListOptions{}); err != nil || len(m.Items) == 0 {
		t.Errorf("metadata: %v", err)
	}
	factory := informers.NewSharedInformerFactoryWithOptions(typed, 0, informers.WithNamespace("dev"))
	secrets := factory.Core().V1().Secrets()
	seen := make(chan *corev1.Secret, 100)
	_ = secrets.Informer().SetTransform(func(o any) (any, error) {
		if sec, ok := o.(*corev1.Secret); ok && sec.Name == "db" {
			seen <- sec
		}
		return o, nil
	})
	factory.Start(t.Context().Done())
	factory.WaitForCacheSync(t.Context().Done())
	select {
	case sec := <-seen:
		check("informer", sec.Data)
	case <-time.After(within):
		t.Error("the informer saw no Secret")
	}
}

// Threat S11: what was read masked is not written back over what it stands for, and the refusal says so.
func TestMasksAreNotWrittenBack(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer := s.Agent(t, "developers")
	before := s.Admin(t, "get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data}")
	read := developer.Kubectl(t, "get", "secret", "db", "-n", "dev", "-o", "yaml")
	if read.Code != 0 || strings.Contains(read.Stdout, "Y29ycmVjdC1ob3JzZ") {
		t.Fatalf("reading it: %v", read)
	}
	editor := filepath.Join(t.TempDir(), "editor")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\nsed -i 's/^metadata:/metadata:\\n  labels: {edited: y}/' \"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"replace", "-f", "-"}, {"apply", "-f", "-"}, {"apply", "--server-side", "--force-conflicts", "-f", "-"}, {"create", "-f", "-"},
	} {
		manifest := read.Stdout
		if args[0] == "create" {
			manifest = strings.NewReplacer("name: db", "name: db-copy").Replace(manifest)
		}
		out := developer.Run(t, func(c *exec.Cmd) { c.Stdin = strings.NewReader(manifest) }, args...)
		if out.Code == 0 || !strings.Contains(out.Stderr, "mask") {
			t.Errorf("kubectl %s: %v", strings.Join(args, " "), out)
		}
	}
	if after := s.Admin(t, "get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data}"); after != before {
		t.Errorf("the Secret is %s now", after)
	}
}

// Reveal: one key, once, when a person said so.
func TestReveal(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer, ana := s.Agent(t, "developers"), s.Reviewer(t, "ana@example.com")
	p := developer.Start(t, "get", "--raw", "/api/v1/namespaces/dev/secrets/db?reveal=password")
	a := ana.Await(t, developer)
	if a.Decision.Rule != "reveal" || !strings.Contains(a.Kubectl+a.Sentence, "password") {
		t.Errorf("people are asked: %q, %q, by %s", a.Kubectl, a.Sentence, a.Decision.Rule)
	}
	ana.Approve(t, a.ID)
	code := p.Ended(within)
	var got struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(p.Text()), &got); err != nil || code != 0 || string(got.Data["password"]) != "correct-horse-dev" || !strings.HasPrefix(string(got.Data["url"]), "[masked:") {
		t.Errorf("exit %d, %v: %s", code, err, p.Text())
	}
	if out := developer.Kubectl(t, "get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data.password}"); out.Code != 0 || strings.Contains(out.Stdout, base64.StdEncoding.EncodeToString([]byte("correct"))[:8]) {
		t.Errorf("after that: %v", out)
	}
	ana.Reached(t, a.ID, "spent")
}

// Logs and what commands print go through the detectors; copies of files come out byte for byte.
func TestStreams(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	token := "ghp_" + strings.Repeat("a1B2c3D4e5", 4)[:36]
	out := developer.Kubectl(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "printf 'it is "+token[:15]+"'; sleep 0.02; printf '"+token[15:]+"\\n'; echo plain")
	if out.Code != 0 || strings.Contains(out.Stdout, token[8:15]) || strings.Contains(out.Stdout, token[15:]) || !strings.Contains(out.Stdout, "it is [masked]\nplain\n") {
		t.Errorf("exec: %v", out)
	}
	file := filepath.Join(developer.Dir(), "file")
	content := strings.Repeat("binary \x00\xff "+token+"\n", 1000)
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"cp", "-n", "dev", "file", pod + ":/tmp/masked-copy"}, {"cp", "-n", "dev", pod + ":/tmp/masked-copy", "back"}} {
		if out := developer.Kubectl(t, args...); out.Code != 0 {
			t.Fatalf("kubectl %s: %v", strings.Join(args, " "), out)
		}
	}
	if b, err := os.ReadFile(filepath.Join(developer.Dir(), "back")); err != nil || string(b) != content {
		t.Errorf("the copy came back as %d bytes of %d, %v", len(b), len(content), err)
	}
}
