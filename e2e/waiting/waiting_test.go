// Package waiting_test holds every line of docs/waiting.md: what kubectl, helm and client-go do while a person is asked.
//
// The gate it uses holds a request for one second and then answers 429, so that every command goes through several rounds of
// asking again in the few seconds until somebody answers, on whichever of two tasks its next request lands.
package waiting_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// documented are the lines of docs/waiting.md: by command, how many questions it asks.
func documented(t *testing.T) map[string]string {
	t.Helper()
	root, err := stacktest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(root, "docs", "waiting.md"))
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([^|]+) \\|").FindAllStringSubmatch(string(b), -1) {
		lines[m[1]] = strings.TrimSpace(m[2])
	}
	return lines
}

// tasks is one address in front of two tasks of the gate, which takes turns: a load balancer.
func tasks(t *testing.T, s *stacktest.Stack) string {
	t.Helper()
	var urls []*url.URL
	for range 2 {
		p := s.StartProxy(t, "SALLYPORT_HOLD=1s")
		u, err := url.Parse(p.URL)
		if err != nil {
			t.Fatal(err)
		}
		urls = append(urls, u)
	}
	var turn atomic.Uint64
	front := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(urls[turn.Add(1)%2]) },
		Transport:     &http.Transport{TLSClientConfig: s.TLS(t)},
		FlushInterval: -1,
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	env := s.ProxyEnvironment(t)
	server := &http.Server{Handler: front, ReadHeaderTimeout: 10 * time.Second}
	go func() { // with the gate's own certificate: kubectl gives its token to nobody else
		_ = server.ServeTLS(l, stacktest.Lookup(env, "SALLYPORT_TLS_CERTIFICATE"), stacktest.Lookup(env, "SALLYPORT_TLS_KEY"))
	}()
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}

// answering says yes to everything that agents ask, a few seconds after they did, and counts.
func answering(t *testing.T, s *stacktest.Stack, agents map[string]*atomic.Int64) {
	t.Helper()
	ana := s.Reviewer(t, "ana@example.com")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			for _, a := range ana.List(t, "pending") {
				if n := agents[a.Principal.Subject]; n != nil && time.Since(a.Opened) > 2500*time.Millisecond {
					if r := ana.Do(t, "POST", "/api/approvals/"+a.ID+"/approve", map[string]any{}); r.Code == http.StatusOK {
						n.Add(1)
					}
				}
			}
			time.Sleep(200 * time.Millisecond)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

// waits asks about everything that is written under a test's names.
const waits = `{name: waits, effect: ask, tier: develop, groups: [developers], namespaces: [dev], verbs: [create, update, patch, delete, deletecollection, exec, attach, portforward], apiGroups: ["", apps, autoscaling, batch], resources: [configmaps, pods, pods/eviction, services, deployments, deployments/scale, jobs, horizontalpodautoscalers], resourceNames: ["^(web-|asks-).*$"]}`

func TestWaiting(t *testing.T) {
	s := stacktest.Get(t)
	doc := documented(t)
	s.Policy(t).Add(waits)
	gate := tasks(t, s)
	counts := map[string]*atomic.Int64{}
	type row struct {
		command string // as in the document
		stdin   string
		args    []string // of kubectl
		want    string   // in its output
		fails   bool
		env     []string
		prepare func(name string)
		helm    bool
	}
	deployment := func(name string) string {
		return strings.ReplaceAll(`apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: dev, labels: {app: NAME}}
spec:
  replicas: 1
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: "localhost/web:1"}]}
`, "NAME", name)
	}
	configMap := func(name, color string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: %s}\n", name, color)
	}
	withMap := func(name string) { s.Create(t, configMap(name, "blue")) }
	withDeployment := func(name string) {
		s.Create(t, deployment(name))
		s.Admin(t, "rollout", "status", "deployment/"+name, "-n", "dev", "--timeout=40s")
	}
	editor := filepath.Join(t.TempDir(), "editor")
	if err := os.WriteFile(editor, []byte("#!/bin/sh\nsed -i s/blue/green/ \"$1\"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	rows := []row{
		{command: "kubectl get", args: []string{"get", "configmaps"}, want: "settings"},
		{command: "kubectl create -f", stdin: configMap("NAME", "blue"), args: []string{"create", "-f", "-"}, want: "created"},
		{command: "kubectl create configmap", args: []string{"create", "configmap", "NAME", "--from-literal=a=b"}, want: "created"},
		{command: "kubectl create deployment", args: []string{"create", "deployment", "NAME", "--image=localhost/web:1"}, want: "created"},
		{command: "kubectl run", args: []string{"run", "NAME", "--image=localhost/web:1"}, want: "created"},
		{command: "kubectl apply", stdin: configMap("NAME", "red"), args: []string{"apply", "-f", "-"}, want: "configured", prepare: withMap},
		{command: "kubectl apply --server-side", stdin: configMap("NAME", "red"), args: []string{"apply", "--server-side", "--force-conflicts", "-f", "-"}, want: "serverside-applied", prepare: withMap},
		{command: "kubectl replace", stdin: configMap("NAME", "red"), args: []string{"replace", "-f", "-"}, want: "replaced", prepare: withMap},
		{command: "kubectl patch", args: []string{"patch", "configmap", "NAME", "-p", `{"data":{"color":"red"}}`}, want: "patched", prepare: withMap},
		{command: "kubectl edit", args: []string{"edit", "configmap", "NAME"}, want: "edited", prepare: withMap, env: []string{"KUBE_EDITOR=" + editor}},
		{command: "kubectl label", args: []string{"label", "configmap", "NAME", "a=b"}, want: "labeled", prepare: withMap},
		{command: "kubectl annotate", args: []string{"annotate", "configmap", "NAME", "a=b"}, want: "annotated", prepare: withMap},
		{command: "kubectl delete", args: []string{"delete", "configmap", "NAME"}, want: "deleted", prepare: withMap},
		{command: "kubectl delete -l", args: []string{"delete", "configmap", "-l", "of=NAME"}, want: "deleted", prepare: func(name string) {
			for _, n := range []string{name, name + "-b"} {
				s.Create(t, strings.Replace(configMap(n, "blue"), "namespace: dev", "namespace: dev, labels: {of: "+name+"}", 1))
			}
		}},
		{command: "kubectl scale", args: []string{"scale", "deployment", "NAME", "--replicas=2"}, want: "scaled", prepare: withDeployment},
		{command: "kubectl set image", args: []string{"set", "image", "deployment/NAME", "web=localhost/web:2"}, want: "image updated", prepare: withDeployment},
		{command: "kubectl rollout restart", args: []string{"rollout", "restart", "deployment/NAME"}, want: "restarted", prepare: withDeployment},
		{command: "kubectl rollout status", args: []string{"rollout", "status", "deployment/NAME", "--timeout=30s"}, want: "successfully rolled out", prepare: withDeployment},
		{command: "kubectl expose", args: []string{"expose", "deployment", "NAME", "--port=80"}, want: "exposed", prepare: withDeployment},
		{command: "kubectl autoscale", args: []string{"autoscale", "deployment", "NAME", "--max=2"}, want: "autoscaled", prepare: withDeployment},
		{command: "kubectl exec", args: []string{"exec", "deployment/NAME", "--", "echo", "inside"}, want: "inside", prepare: withDeployment},
		{command: "kubectl cp", args: []string{"cp", "here.txt", "POD:/tmp/there.txt"}, prepare: withDeployment},
		{command: "kubectl delete --raw", args: []string{"delete", "--raw", "/api/v1/namespaces/dev/configmaps/NAME"}, fails: true, want: "waiting for", prepare: withMap},
		{command: "kubectl create --raw", stdin: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME"}}`, args: []string{"create", "--raw", "/api/v1/namespaces/dev/configmaps", "-f", "-"}, fails: true, want: "waiting for"},
		{command: "helm install", args: []string{"install", "NAME", "CHART"}, want: "STATUS: deployed", helm: true},
		{command: "kubectl --request-timeout", args: []string{"delete", "configmap", "NAME", "--request-timeout=2s"}, fails: true, prepare: withMap},
	}
	for i := range rows {
		counts["bot-waits-"+fmt.Sprint(i)+"-"+run] = &atomic.Int64{}
	}
	answering(t, s, counts)
	tested := map[string]bool{"kubectl drain": true} // by TestDrain
	for i, r := range rows {
		tested[r.command] = true
		asks, ok := doc[r.command]
		if !ok {
			t.Errorf("docs/waiting.md does not say what %s does", r.command)
			continue
		}
		t.Run(r.command, func(t *testing.T) {
			t.Parallel()
			subject := "bot-waits-" + fmt.Sprint(i) + "-" + run
			agent := s.Agent(t, "developers")
			agent.Token = s.Token(t, "--subject", subject, "--groups", "developers")
			name := "asks-" + stacktest.Word()
			t.Cleanup(func() {
				s.Admin(t, "delete", "deployment,configmap,service,hpa,pod", name, name+"-b", "-n", "dev", "--ignore-not-found", "--wait=false")
			})
			if r.prepare != nil {
				r.prepare(name)
			}
			if err := os.WriteFile(filepath.Join(agent.Dir(), "here.txt"), []byte("here"), 0o644); err != nil {
				t.Fatal(err)
			}
			args := []string{"--server", gate + "/clusters/" + s.Cluster.Name, "-n", "dev"}
			for _, a := range r.args {
				if strings.Contains(a, "POD") {
					a = strings.ReplaceAll(a, "POD", strings.TrimSpace(s.Admin(t, "get", "pods", "-n", "dev", "-l", "app="+name, "-o", "jsonpath={.items[0].metadata.name}")))
				}
				a = strings.NewReplacer("NAME", name, "CHART", filepath.Join(agent.Dir(), "chart")).Replace(a)
				args = append(args, a)
			}
			out := agent.Run(t, func(c *exec.Cmd) {
				if r.helm {
					helm := os.Getenv("HELM")
					if helm == "" {
						t.Skip("HELM does not say where helm is; make test-stack builds it")
					}
					chart(t, filepath.Join(agent.Dir(), "chart"), name)
					c.Path, c.Args = helm, append([]string{helm, "--kube-apiserver", gate + "/clusters/" + s.Cluster.Name, "--kube-token", agent.Token, "--kube-ca-file", s.Proxy.CA}, c.Args[5:]...)
					c.Env = append(c.Env, "HELM_DRIVER=configmap", "HELM_CACHE_HOME="+agent.Dir(), "HELM_CONFIG_HOME="+agent.Dir(), "HELM_DATA_HOME="+agent.Dir())
				}
				c.Env = append(c.Env, r.env...)
				if r.stdin != "" {
					c.Stdin = strings.NewReader(strings.ReplaceAll(r.stdin, "NAME", name))
				}
			}, args...)
			if (out.Code != 0) != r.fails || !strings.Contains(out.Stdout+out.Stderr, r.want) {
				t.Fatalf("%v", out)
			}
			if got := fmt.Sprint(counts[subject].Load()); got != strings.Fields(asks)[0] && !r.fails {
				t.Errorf("it asked %s times; docs/waiting.md says %s", got, asks)
			}
		})
	}
	for command := range doc {
		if !tested[command] {
			t.Errorf("docs/waiting.md speaks of %s, and no test holds it", command)
		}
	}
}

// run keeps two runs on one stack apart.
var run = stacktest.Word()

// chart writes a chart with one ConfigMap in it.
func chart(t *testing.T, dir, name string) {
	t.Helper()
	for file, text := range map[string]string{
		"Chart.yaml":        "apiVersion: v2\nname: waits\nversion: 0.1.0\n",
		"templates/cm.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\ndata: {color: blue}\n",
	} {
		file = filepath.Join(dir, file)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// drain evicts pods, each by a question of its own. The node is cordoned already: that is no work of an agent.
func TestDrain(t *testing.T) {
	s := stacktest.Get(t)
	s.Policy(t).Add(waits)
	gate := tasks(t, s)
	subject, name := "bot-waits-drain-"+run, "asks-"+stacktest.Word()
	asked := &atomic.Int64{}
	answering(t, s, map[string]*atomic.Int64{subject: asked})
	s.Create(t, strings.ReplaceAll(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: NAME, namespace: dev}, spec: {replicas: 2, selector: {matchLabels: {app: NAME}}, template: {metadata: {labels: {app: NAME}}, spec: {terminationGracePeriodSeconds: 1, containers: [{name: web, image: "localhost/web:1"}]}}}}`, "NAME", name))
	s.Admin(t, "rollout", "status", "deployment/"+name, "-n", "dev", "--timeout=40s")
	node := strings.TrimSpace(s.Admin(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}"))
	s.Admin(t, "cordon", node)
	t.Cleanup(func() {
		s.Admin(t, "uncordon", node)
		s.Admin(t, "delete", "deployment", name, "-n", "dev", "--wait=false")
	})
	agent := s.Agent(t, "developers")
	agent.Token = s.Token(t, "--subject", subject, "--groups", "developers")
	out := agent.Kubectl(t, "--server", gate+"/clusters/"+s.Cluster.Name, "drain", node, "--pod-selector=app="+name, "--ignore-daemonsets", "--force", "--timeout=50s")
	if out.Code != 0 || !strings.Contains(out.Stdout, "evicted") || asked.Load() != 2 {
		t.Errorf("it asked %d times: %v", asked.Load(), out)
	}
}
