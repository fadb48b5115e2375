package gate_test

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/e2e/stacktest"
)

const within = 20 * time.Second

func TestKubectlReads(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	pod := s.Pod(t, "dev")
	for _, test := range []struct {
		name string
		args []string
		code int
		want string // a regular expression that stdout or, after a failure, stderr matches
	}{
		{"a table", []string{"get", "pods", "-n", "dev"}, 0, `(?m)^NAME +READY +STATUS +RESTARTS +AGE\n.*` + pod + ` +1/1 +Running`},
		{"a wide table", []string{"get", "pods", "-n", "dev", "-o", "wide"}, 0, pod + ` +1/1 +Running +0 +\S+ +127\.\S+ +\S+`},
		{"YAML", []string{"get", "configmap", "settings", "-n", "dev", "-o", "yaml"}, 0, `(?m)^  greeting: hello$`},
		{"JSON path", []string{"get", "deployment", "web", "-n", "prod", "-o", "jsonpath={.spec.replicas}"}, 0, `^2$`},
		{"every namespace", []string{"get", "deployments", "-A"}, 0, `(?s)dev +web .*prod +web `},
		{"a selector", []string{"get", "pods", "-n", "dev", "-l", "app=nothing"}, 0, `^$`},
		{"chunks", []string{"get", "pods", "-n", "dev", "--chunk-size=1", "-o", "name"}, 0, `^pod/web-\S+\npod/web-\S+\n$`},
		{"the cluster's own objects", []string{"get", "nodes"}, 0, `dev-node +Ready`},
		{"describe", []string{"describe", "pod", pod, "-n", "dev"}, 0, `(?s)^Name: +` + pod + `\n.*Events:`},
		{"describe a deployment", []string{"describe", "deployment", "web", "-n", "dev"}, 0, `2 desired \| 2 updated \| 2 total \| 2 available`},
		{"events", []string{"events", "-n", "dev"}, 0, `^$|LAST SEEN`}, // the cluster forgets them after an hour
		{"rollout status", []string{"rollout", "status", "deployment/web", "-n", "dev"}, 0, `successfully rolled out`},
		{"logs, the last two lines", []string{"logs", pod, "-n", "dev", "--tail=2"}, 0, `^(line \d+|serving on \S+)\nline \d+\n$`},
		{"logs by label", []string{"logs", "-l", "app=web", "-n", "dev", "--tail=1", "--prefix"}, 0, `\[pod/web-\S+/web\] line \d+`},
		{"api-resources", []string{"api-resources"}, 0, `deployments +deploy +apps/v1 +true +Deployment`},
		{"api-versions", []string{"api-versions"}, 0, `(?m)^apps/v1$`},
		{"explain", []string{"explain", "deployment.spec.replicas"}, 0, `FIELD: replicas <integer>`},
		{"version", []string{"version"}, 0, `Server Version: v1\.35\.`},
		{"cluster-info", []string{"cluster-info"}, 0, `control plane`},
		{"raw", []string{"get", "--raw", "/api/v1/namespaces/dev/configmaps/settings"}, 0, `"greeting":"hello"`},
		{"raw version", []string{"get", "--raw", "/version"}, 0, `"gitVersion": "v1\.35`},
		{"can-i, yes", []string{"auth", "can-i", "get", "pods", "-n", "dev"}, 0, `^yes\n`},
		{"can-i, no", []string{"auth", "can-i", "delete", "pods", "-n", "dev"}, 1, `^no\n`},
		{"can-i, everything", []string{"auth", "can-i", "--list", "-n", "dev"}, 0, `deployments\.apps/scale +\[\] +\[\] +\[[a-z ]*\bpatch\b`},
		{"whoami", []string{"auth", "whoami"}, 0, `assumed-role/operate/` + agent.Subject + `-[a-z2-7]{12}\n`},
		{"no metrics here", []string{"top", "pods", "-n", "dev"}, 1, `Metrics API not available`},
		{"missing", []string{"get", "pod", "nothing", "-n", "dev"}, 1, `Error from server \(NotFound\): pods "nothing" not found`},
		{"no such kind", []string{"get", "unicorns"}, 1, `doesn't have a resource type "unicorns"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			out := agent.Kubectl(t, test.args...)
			text := out.Stdout
			if test.code != 0 && text == "" {
				text = out.Stderr
			}
			if out.Code != test.code || !regexp.MustCompile(test.want).MatchString(text) {
				t.Errorf("want exit code %d and %s, got %v", test.code, test.want, out)
			}
		})
	}
}

// The kubeconfig the stack writes is all an agent needs: its user is a command that prints a token.
func TestKubeconfigAsItIs(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	kubectl := filepath.Join(s.Root, "bin", "kubectl")
	out := agent.Run(t, func(c *exec.Cmd) { c.Args = []string{kubectl, "get", "pods", "-o", "name"} }) // its namespace is dev
	if out.Code != 0 || strings.Count(out.Stdout, "pod/web-") < 2 {
		t.Error(out)
	}
	out = agent.Run(t, func(c *exec.Cmd) { c.Args = []string{kubectl, "auth", "whoami"} })
	if out.Code != 0 || !strings.Contains(out.Stdout, "assumed-role/operate/agent-") {
		t.Error(out)
	}
}

func TestKubectlWatch(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	name := s.ConfigMap(t)
	w := agent.Start(t, "get", "configmap", name, "-n", "dev", "-w", "--output-watch-events")
	w.Await("ADDED", within)
	s.Admin(t, "label", "configmap", name, "-n", "dev", "seen=yes")
	w.Await("MODIFIED", within)
	s.Admin(t, "delete", "configmap", name, "-n", "dev")
	w.Await("DELETED", within)
}

func TestKubectlFollowsLogs(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	w := agent.Start(t, "logs", "-f", s.Pod(t, "dev"), "-n", "dev", "--tail=1")
	var first, second int
	w.Await("line ", within)
	if _, err := fmt.Sscanf(w.Await("line ", within), "line %d", &first); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscanf(w.Await("line ", within), "line %d", &second); err != nil {
		t.Fatal(err)
	}
	if second != first+1 {
		t.Errorf("line %d came after line %d", second, first)
	}
}

func TestKubectlExec(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	input := strings.Repeat("0123456789abcdef\n", 4096)
	for _, test := range []struct {
		name  string
		stdin string
		args  []string
		want  stacktest.Output
	}{
		{"output", "", []string{pod, "--", "sh", "-c", "echo out"}, stacktest.Output{Stdout: "out\n"}},
		{"exit code", "", []string{pod, "--", "sh", "-c", "echo err >&2; exit 7"},
			stacktest.Output{Stderr: "err\ncommand terminated with exit code 7\n", Code: 7}},
		{"both streams", "", []string{pod, "--", "sh", "-c", "echo out; echo err >&2"}, stacktest.Output{Stdout: "out\n", Stderr: "err\n"}},
		{"input", input, []string{"-i", pod, "--", "cat"}, stacktest.Output{Stdout: input}},
		{"the input's end", input, []string{"-i", pod, "--", "sh", "-c", "cat | wc -c"}, stacktest.Output{Stdout: fmt.Sprintln(len(input))}},
		{"argv as it is", "", []string{pod, "--", "printf", `%s|`, "a b", "c&d=e", "f;g", "ü", ""}, stacktest.Output{Stdout: "a b|c&d=e|f;g|ü||"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := agent.Run(t, func(c *exec.Cmd) {
				if test.stdin != "" {
					c.Stdin = strings.NewReader(test.stdin)
				}
			}, append([]string{"exec", "-n", "dev"}, test.args...)...)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", clip(diff))
			}
		})
	}
	t.Run("terminal", func(t *testing.T) {
		t.Parallel()
		out := agent.Terminal(t, "exec", "-it", "-n", "dev", pod, "--", "sh", "-c", "test -t 0 && test -t 1 && echo on a terminal; exit 5")
		if !strings.Contains(out.Stdout, "on a terminal\r\n") || out.Code != 5 {
			t.Error(out)
		}
	})
}

func TestKubectlAttach(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	w := agent.Start(t, "attach", s.Pod(t, "dev"), "-n", "dev")
	w.Await("line ", within)
	w.Await("line ", within)
}

func TestKubectlCopiesBothWays(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	want := make([]byte, 3<<20+17)
	_, _ = rand.Read(want)
	if err := os.WriteFile(filepath.Join(agent.Dir(), "there"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	name := "copy-" + stacktest.Word()
	if out := agent.Kubectl(t, "cp", "there", "dev/"+pod+":"+name); out.Code != 0 {
		t.Fatal(out)
	}
	t.Cleanup(func() { s.Admin(t, "exec", "-n", "dev", pod, "--", "rm", "-f", name) })
	if out := agent.Kubectl(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "wc -c < "+name); strings.TrimSpace(out.Stdout) != fmt.Sprint(len(want)) {
		t.Errorf("in the pod: want %d bytes, %v", len(want), out)
	}
	if out := agent.Kubectl(t, "cp", "dev/"+pod+":"+name, "back"); out.Code != 0 {
		t.Fatal(out)
	}
	got, err := os.ReadFile(filepath.Join(agent.Dir(), "back"))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes came back of %d, and they are not the same (%v)", len(got), len(want), err)
	}
}

func TestKubectlForwardsPorts(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	w := agent.Start(t, "port-forward", "-n", "dev", "pod/"+pod, ":8080")
	m := regexp.MustCompile(`127\.0\.0\.1:(\d+) -> 8080`).FindStringSubmatch(w.Await("Forwarding from 127.0.0.1:", within))
	if m == nil {
		t.Fatal(w.Text())
	}
	for i := range 3 {
		// A connection of its own each time: each is a stream of its own through the gate.
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: within}
		res, err := client.Get("http://127.0.0.1:" + m[1] + "/")
		if err != nil {
			t.Fatalf("GET %d: %v\n%s", i, err, w.Text())
		}
		b, err := io.ReadAll(res.Body)
		res.Body.Close()
		if want := "hello from " + pod + "\n"; err != nil || string(b) != want {
			t.Errorf("GET %d: want %q, got %q (%v)", i, want, b, err)
		}
	}
}

// SPDY is not carried, and whoever asks for it is told what to do.
func TestKubectlOverSPDY(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	for _, test := range []struct {
		variable string
		args     []string
	}{
		{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS", []string{"exec", "-n", "dev", pod, "--", "true"}},
		{"KUBECTL_REMOTE_COMMAND_WEBSOCKETS", []string{"attach", "-n", "dev", pod}},
		{"KUBECTL_PORT_FORWARD_WEBSOCKETS", []string{"port-forward", "-n", "dev", "pod/" + pod, ":8080"}},
	} {
		t.Run(test.args[0], func(t *testing.T) {
			t.Parallel()
			out := agent.Run(t, func(c *exec.Cmd) { c.Env = append(c.Env, test.variable+"=false") }, test.args...)
			if out.Code == 0 || !strings.Contains(out.Stderr, "SPDY is not carried") || !strings.Contains(out.Stderr, "kubectl 1.31") {
				t.Error(out)
			}
		})
	}
}

func clip(s string) string {
	if len(s) > 2000 {
		return s[:2000] + "…"
	}
	return s
}
