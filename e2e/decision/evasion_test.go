package decision_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/remotecommand"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/e2e/stacktest"
)

// A decided is what the gate's record says of a request that was not just allowed to read.
type decided struct{ Verb, Resource, Namespace, Name, Decision, Rule string }

func (d decided) String() string {
	return fmt.Sprintf("%s %s %s/%s: %s by %s", d.Verb, d.Resource, d.Namespace, d.Name, d.Decision, d.Rule)
}

// decisions are what the record has of an agent's requests, without reads that were allowed, each once.
func decisions(t *testing.T, agent *stacktest.Agent) []decided {
	t.Helper()
	last := agent.Get(t, "/version").AuditID()
	var found []decided
	seen := map[decided]bool{}
	for _, e := range agent.Recorded(t, last).Events {
		d := decided{Verb: e.Verb, Decision: e.Annotations["sallyport.io/decision"], Rule: e.Annotations["sallyport.io/rule"]}
		if o := e.ObjectRef; o != nil {
			d.Resource, d.Namespace, d.Name = o.Resource, o.Namespace, o.Name
			if o.Subresource != "" {
				d.Resource += "/" + o.Subresource
			}
		}
		if d.Decision == "allow" && (d.Verb == "get" || d.Verb == "list" || d.Verb == "watch") || d.Rule == "self-reviews" || seen[d] {
			continue
		}
		seen[d] = true
		found = append(found, d)
	}
	return found
}

// way is one way to spell a request: kubectl with words, raw bytes, or a program. It returns what the caller was told.
type way struct {
	name string
	do   func(*testing.T, *stacktest.Agent) string
}

func kubectl(words ...string) way {
	return way{"kubectl " + strings.Join(words, " "), func(t *testing.T, a *stacktest.Agent) string {
		out := a.Kubectl(t, words...)
		return out.Stderr
	}}
}

func kubectlFile(manifest string, words ...string) way {
	return way{"kubectl " + strings.Join(words, " "), func(t *testing.T, a *stacktest.Agent) string {
		out := a.Run(t, func(c *exec.Cmd) { c.Stdin = strings.NewReader(manifest) }, words...)
		return out.Stderr
	}}
}

func kubectlEnv(env string, words ...string) way {
	return way{env + " kubectl " + strings.Join(words, " "), func(t *testing.T, a *stacktest.Agent) string {
		out := a.Run(t, func(c *exec.Cmd) { c.Env = append(c.Env, env) }, words...)
		return out.Stderr
	}}
}

func raw(method, target string, more ...string) way {
	return way{method + " " + target, func(t *testing.T, a *stacktest.Agent) string {
		r := stacktest.Request{Method: method, Target: a.Stack().Path(target), Header: []string{stacktest.Bearer(a.Token)}}
		for _, m := range more {
			if strings.HasPrefix(m, "{") {
				r.Body = m
			} else {
				r.Header = append(r.Header, m)
			}
		}
		return a.Stack().Do(t, r).Body
	}}
}

func program(name string, do func(*testing.T, *stacktest.Agent, *kubernetes.Clientset) error) way {
	return way{"client-go " + name, func(t *testing.T, a *stacktest.Agent) string {
		c, err := kubernetes.NewForConfig(a.Config())
		if err != nil {
			t.Fatal(err)
		}
		if err = do(t, a, c); err == nil {
			return ""
		}
		return err.Error()
	}}
}

// However a request is spelt, the same is decided about it as about its plain form. The ways are those by which products
// that match command lines are talked past.
func TestEvasions(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod, podProd := s.Pod(t, "dev"), s.Pod(t, "prod")
	const web = "/apis/apps/v1/namespaces/prod/deployments/web"
	one := "/api/v1/namespaces/dev/pods/" + pod
	namespace := "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod}\n"
	deployment := "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: prod}\nspec: {replicas: 0, selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: web, image: x}]}}}\n"
	grace := int64(0)
	evict := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":"dev"}}`, pod)
	stream := func(spdy bool, command ...string) func(*testing.T, *stacktest.Agent, *kubernetes.Clientset) error {
		return func(t *testing.T, a *stacktest.Agent, c *kubernetes.Clientset) error {
			u := c.CoreV1().RESTClient().Post().Resource("pods").Namespace("dev").Name(pod).SubResource("exec").VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true}, scheme.ParameterCodec).URL()
			x, err := remotecommand.NewWebSocketExecutor(a.Config(), "GET", u.String())
			if spdy {
				x, err = remotecommand.NewSPDYExecutor(a.Config(), "POST", u)
			}
			if err != nil {
				t.Fatal(err)
			}
			return x.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: &strings.Builder{}})
		}
	}
	tests := []struct {
		name, group string
		want        decided
		ways        []way
		besides     string // a rule that decides about what else a way does
	}{
		{"deleting a namespace", "agents", decided{"delete", "namespaces", "prod", "prod", "ask", "delete"}, []way{
			raw("DELETE", "/api/v1/namespaces/prod"), // the plain form
			raw("DELETE", "/api/v1/namespaces/prod/"),
			raw("DELETE", "/api/v1/namespaces/prod?propagationPolicy=Background&gracePeriodSeconds=0"),
			raw("DELETE", "/api/v1/namespaces/prod?dryRun=All"),
			raw("DELETE", "/api/v1/namespaces/prod?dryRun=All", "{}", "Content-Type: application/json"),
			raw("DELETE", "/api/v1/namespaces/prod", `{"kind":"DeleteOptions","apiVersion":"v1"}`, "Content-Type: application/json"),
			raw("DELETE", "/api/v1/namespaces/prod", "User-Agent: kubectl/v1.35.4", "Kubectl-Command: kubectl get", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"),
			kubectl("delete", "ns", "prod"),
			kubectl("delete", "namespace", "prod"),
			kubectl("delete", "namespaces", "prod"),
			kubectl("delete", "Namespace", "prod"),
			kubectl("delete", "namespaces.v1.", "prod"),
			kubectl("delete", "ns/prod"),
			kubectl("-n", "x", "delete", "ns", "prod"),
			kubectl("--namespace=x", "delete", "ns", "prod"),
			kubectl("--request-timeout=10s", "--v=0", "delete", "ns", "prod"),
			kubectl("delete", "-o", "name", "ns", "prod"),
			kubectl("delete", "ns", "-o", "name", "prod"),
			kubectl("delete", "--wait=false", "--now", "ns", "prod"),
			kubectl("delete", "ns", "prod", "--grace-period=0", "--force"),
			kubectl("delete", "ns", "prod", "--cascade=orphan"),
			kubectl("delete", "ns", "prod", "--dry-run=server"),
			kubectl("delete", "--raw", "/api/v1/namespaces/prod"),
			kubectl("delete", "--raw", "/api/v1/namespaces/prod/"),
			kubectlFile(namespace, "delete", "-f", "-"),
			kubectlFile(namespace, "delete", "--ignore-not-found", "-f", "-"),
			program("typed", func(t *testing.T, _ *stacktest.Agent, c *kubernetes.Clientset) error {
				return c.CoreV1().Namespaces().Delete(t.Context(), "prod", metav1.DeleteOptions{GracePeriodSeconds: &grace})
			}),
			program("dynamic", func(t *testing.T, a *stacktest.Agent, _ *kubernetes.Clientset) error {
				d, err := dynamic.NewForConfig(a.Config())
				if err != nil {
					t.Fatal(err)
				}
				return d.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}).Delete(t.Context(), "prod", metav1.DeleteOptions{})
			}),
			program("with a path of its own", func(t *testing.T, _ *stacktest.Agent, c *kubernetes.Clientset) error {
				return c.CoreV1().RESTClient().Delete().AbsPath("/api/v1/namespaces/prod/").Do(t.Context()).Error()
			}),
		}, ""},
		{"deleting a deployment", "agents", decided{"delete", "deployments", "prod", "web", "ask", "delete"}, []way{
			raw("DELETE", web),
			kubectl("delete", "deployment", "web", "-n", "prod"),
			kubectl("delete", "deploy", "web", "--namespace", "prod"),
			kubectl("-n", "prod", "delete", "deploy/web"),
			kubectl("-n=prod", "delete", "deployments.apps/web"),
			kubectl("delete", "deployments.v1.apps", "web", "-n", "prod"),
			kubectl("delete", "deploy", "-o", "name", "web", "-n", "prod"),
			kubectl("delete", "-n", "prod", "deploy", "-l", "app=web"),
			kubectl("delete", "-n", "prod", "deploy", "--field-selector", "metadata.name=web"),
			kubectl("delete", "-n", "prod", "deploy", "--all"),
			kubectlFile(deployment, "delete", "-f", "-"),
			kubectlFile(deployment, "replace", "--force", "-f", "-"),
			kubectlFile(deployment, "replace", "--force", "--grace-period=0", "-f", "-"),
			program("typed", func(t *testing.T, _ *stacktest.Agent, c *kubernetes.Clientset) error {
				return c.AppsV1().Deployments("prod").Delete(t.Context(), "web", metav1.DeleteOptions{})
			}),
			program("typed, protobuf", func(t *testing.T, a *stacktest.Agent, _ *kubernetes.Clientset) error {
				cfg := a.Config()
				cfg.ContentType = asProtobuf
				c, err := kubernetes.NewForConfig(cfg)
				if err != nil {
					t.Fatal(err)
				}
				return c.AppsV1().Deployments("prod").Delete(t.Context(), "web", metav1.DeleteOptions{GracePeriodSeconds: &grace})
			}),
		}, ""},
		{"deleting many", "agents", decided{"deletecollection", "pods", "prod", "", "ask", "delete"}, []way{
			raw("DELETE", "/api/v1/namespaces/prod/pods"),
			raw("DELETE", "/api/v1/namespaces/prod/pods/"),
			raw("DELETE", "/api/v1/namespaces/prod/pods?fieldSelector=metadata.name%3D"+podProd),
			raw("DELETE", "/api/v1/namespaces/prod/pods?limit=1&watch=0"),
			kubectl("delete", "--raw", "/api/v1/namespaces/prod/pods?labelSelector=app%3Dweb"),
			program("typed", func(t *testing.T, _ *stacktest.Agent, c *kubernetes.Clientset) error {
				return c.CoreV1().Pods("prod").DeleteCollection(t.Context(), metav1.DeleteOptions{}, metav1.ListOptions{})
			}),
		}, ""},
		{"evicting", "agents", decided{"create", "pods/eviction", "dev", pod, "ask", "evict"}, []way{
			raw("POST", one+"/eviction", evict, "Content-Type: application/json"),
			program("typed", func(t *testing.T, _ *stacktest.Agent, c *kubernetes.Clientset) error {
				return c.PolicyV1().Evictions("dev").Evict(t.Context(), &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: pod, Namespace: "dev"}})
			}),
			kubectlFile(evict, "create", "--raw", one+"/eviction", "-f", "-"),
		}, ""},
		{"draining", "agents", decided{"create", "pods/eviction", "dev", pod, "ask", "evict"}, []way{
			kubectl("drain", "dev-node", "--ignore-daemonsets", "--force"),
			kubectl("--context=gate", "drain", "node/dev-node", "--force"),
			kubectl("drain", "--pod-selector", "app=web", "dev-node"),
		}, "default"},
		{"draining without evicting", "agents", decided{"delete", "pods", "dev", pod, "ask", "delete"}, []way{
			kubectl("drain", "dev-node", "--disable-eviction", "--force"),
		}, "default"},
		{"cordoning", "agents", decided{"patch", "nodes", "", "dev-node", "deny", "default"}, []way{
			raw("PATCH", "/api/v1/nodes/dev-node", `{"spec":{"unschedulable":true}}`, "Content-Type: "+strategic),
			kubectl("cordon", "dev-node"),
			kubectl("taint", "nodes", "dev-node", "a=b:NoSchedule"),
		}, ""},
		{"a shell", "agents", decided{"exec", "pods/exec", "dev", pod, "ask", "exec"}, []way{
			raw("GET", one+"/exec?command=sh&stdin=true&stdout=true&tty=true", webSocket...),
			raw("GET", one+"/exec?command=sh"),
			raw("GET", one+"/exec/?command=sh", webSocket...),
			raw("POST", one+"/exec?command=sh", "Connection: Upgrade", "Upgrade: SPDY/3.1"),
			raw("GET", one+"/exec", webSocket...),
			kubectl("exec", "-n", "dev", pod, "--", "sh"),
			kubectl("exec", "-n", "dev", pod, "--", "/bin/sh"),
			kubectl("exec", "-n", "dev", pod, "--", "/bin/../bin/sh", "-c", "id"),
			kubectl("exec", "-n", "dev", pod, "--", "env", "sh"),
			kubectl("exec", "-n", "dev", pod, "--", "busybox", "ash"),
			kubectl("exec", "-n", "dev", "pod/"+pod, "--", "sh"),
			kubectl("exec", "-i", "-t", "-n", "dev", pod, "-c", "web", "--", "sh"),
			kubectl("-n", "dev", "exec", "--stdin", "--container=web", pod, "--", "sh"),
			kubectl("exec", "--pod-running-timeout=5s", "-q", "-n", "dev", pod, "--", "sh"),
			kubectlEnv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false", "exec", "-n", "dev", pod, "--", "sh"),
			kubectl("cp", "dev/"+pod+":/etc/hostname", "there"),
			program("WebSocket", stream(false, "sh")),
			program("SPDY", stream(true, "/bin/sh", "-i")),
		}, ""},
		{"attaching", "agents", decided{"attach", "pods/attach", "dev", pod, "ask", "exec"}, []way{
			raw("GET", one+"/attach?stdout=true", webSocket...),
			raw("POST", one+"/attach?stdin=true", "Connection: Upgrade", "Upgrade: SPDY/3.1"),
			kubectl("attach", "-n", "dev", pod),
			kubectl("attach", "-it", "-n", "dev", "pod/"+pod, "-c", "web"),
			kubectlEnv("KUBECTL_REMOTE_COMMAND_WEBSOCKETS=false", "attach", "-n", "dev", pod),
		}, ""},
		{"forwarding a port", "agents", decided{"portforward", "pods/portforward", "dev", pod, "ask", "exec"}, []way{
			raw("GET", one+"/portforward?ports=8080", webSocket...),
			raw("POST", one+"/portforward", "Connection: Upgrade", "Upgrade: SPDY/3.1"),
		}, ""},
		{"debugging a pod", "agents", decided{"patch", "pods/ephemeralcontainers", "dev", pod, "deny", "no-finalize"}, []way{
			raw("PATCH", one+"/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"x","image":"x"}]}}`, "Content-Type: "+strategic),
			kubectl("debug", "-n", "dev", pod, "--image=x", "--attach=false"),
			kubectl("debug", "-n", "dev", "pod/"+pod, "--image=x", "--target=web", "--profile=sysadmin", "--attach=false"),
		}, ""},
		{"debugging a pod, as a developer", "developers", decided{"patch", "pods/ephemeralcontainers", "dev", pod, "deny", "no-finalize"}, []way{
			raw("PATCH", one+"/ephemeralcontainers", `{"spec":{"ephemeralContainers":[{"name":"x","image":"x"}]}}`, "Content-Type: "+strategic),
			kubectl("debug", "-n", "dev", pod, "--image=x", "--attach=false"),
		}, ""},
		{"debugging a node", "developers", decided{"create", "pods", "dev", "", "deny", "no-privileged-pods"}, []way{
			raw("POST", "/api/v1/namespaces/dev/pods", `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"node-debugger-"},"spec":{"nodeName":"dev-node","hostPID":true,"containers":[{"name":"debugger","image":"x"}]}}`, "Content-Type: application/json"),
			kubectl("debug", "node/dev-node", "-n", "dev", "--image=x", "--attach=false"),
			kubectl("debug", "node/dev-node", "-n", "dev", "--image=x", "--profile=sysadmin", "--attach=false"),
			kubectl("run", "root", "-n", "dev", "--image=x", "--privileged"),
			kubectl("run", "root", "-n", "dev", "--image=x", `--overrides={"spec":{"hostPID":true}}`),
		}, ""},
		{"scaling", "agents", decided{"patch", "deployments/scale", "prod", "web", "allow", "scale"}, []way{
			raw("PATCH", web+"/scale", `{"spec":{"replicas":2}}`, "Content-Type: "+merge),
			kubectl("scale", "deployment", "web", "--replicas=2", "-n", "prod"),
			kubectl("-n", "prod", "scale", "--replicas", "2", "deploy/web"),
			kubectl("scale", "--replicas=2", "-n", "prod", "deployments.apps", "web"),
			kubectl("patch", "deploy", "web", "-n", "prod", "--subresource=scale", "--type=merge", "-p", `{"spec":{"replicas":2}}`),
		}, ""},
		{"rolling back", "agents", decided{"patch", "deployments", "prod", "web", "deny", "default"}, []way{
			raw("PATCH", web, `{"spec":{"paused":true}}`, "Content-Type: "+merge),
			kubectl("rollout", "pause", "deployment/web", "-n", "prod"),
			kubectl("set", "image", "deployment/web", "web=evil", "-n", "prod"),
			kubectl("set", "env", "deployment/web", "A=b", "-n", "prod"),
			kubectl("label", "deployment", "web", "a=b", "-n", "prod"),
			kubectl("annotate", "deploy", "web", "a=b", "-n", "prod"),
			kubectl("patch", "deploy", "web", "-n", "prod", "--type=json", "-p", `[{"op":"replace","path":"/spec/replicas","value":0}]`),
			kubectlFile(deployment, "apply", "-f", "-"),
			kubectlFile(deployment, "apply", "--server-side", "--force-conflicts", "-f", "-"),
		}, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for _, w := range test.ways {
				t.Run(w.name, func(t *testing.T) {
					t.Parallel()
					agent := s.Agent(t, test.group)
					said := w.do(t, agent)
					got := decisions(t, agent)
					found := false
					for _, d := range got {
						switch {
						case d == test.want || d.Name == "" && d.Resource == test.want.Resource && d.Verb == test.want.Verb && d.Rule == test.want.Rule:
							found = true
						case d.Rule == test.want.Rule && test.want.Decision != "allow", d.Decision == "deny" && d.Rule == test.besides: // one of many of its kind, or what comes with it
						default:
							t.Errorf("decided besides: %v", d)
						}
					}
					if !found {
						t.Errorf("want %v, got %v; it was told: %s", test.want, got, said)
					}
					if strings.Contains(said, "use WebSocket") || strings.Contains(said, "needs a WebSocket") {
						return // decided like any other, and told what it lacks before anybody is asked
					}
					if test.want.Rule != "default" && test.want.Decision != "allow" && !strings.Contains(said, fmt.Sprintf("rule %q", test.want.Rule)) && !strings.Contains(said, fmt.Sprintf(`rule \"%s\"`, test.want.Rule)) {
						t.Errorf("it was not told which rule it was: %s", said)
					}
				})
			}
		})
	}
	// kubectl itself refuses a command without --, in any case nothing of it reaches the cluster.
	t.Run("exec without --", func(t *testing.T) {
		t.Parallel()
		agent := s.Agent(t, "agents")
		out := agent.Kubectl(t, "exec", "-n", "dev", pod, "sh")
		for _, d := range decisions(t, agent) {
			if d.Verb != "exec" || d.Rule != "exec" {
				t.Errorf("decided: %v", d)
			}
		}
		if out.Code == 0 {
			t.Error(out)
		}
	})
	t.Cleanup(func() {
		for _, what := range []string{"namespace/prod", "deployment/web", "pod/" + podProd} {
			s.Admin(t, "get", what, "-n", "prod")
		}
	})
}

// Threat R5: what a shell could do is not what a fixed command does, and rules can tell the two by the exact argv.
func sendExec(t *testing.T, agent *stacktest.Agent, pod string, argv ...string) stacktest.Answer {
	t.Helper()
	c := agent.Stack().Dial(t)
	target := "/api/v1/namespaces/dev/pods/" + pod + "/exec?stdout=true"
	for _, w := range argv {
		target += "&command=" + escape(w)
	}
	c.Send(stacktest.Request{Target: agent.Stack().Path(target), Header: append([]string{stacktest.Bearer(agent.Token)}, webSocket...)})
	a, err := c.Receive(http.MethodGet)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	return a
}
