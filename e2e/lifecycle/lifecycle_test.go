// Package lifecycle_test takes a stack of its own through its life, in a second checkout beside whatever else runs: it
// is not started with nonsense, comes up, is up, loses its broker and gets it back, rotates keys, and leaves nothing.
package lifecycle_test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/e2e/stacktest"
)

const within = 20 * time.Second

// The steps are in order: each finds the stack as the one before left it.
func TestLife(t *testing.T) {
	stacktest.Need(t)
	root := checkout(t)
	var s *stacktest.Stack
	steps := []struct {
		name string
		do   func(*testing.T)
	}{
		{"a malformed policy is refused", func(t *testing.T) { malformedPolicy(t, root) }},
		{"it comes up", func(t *testing.T) { s = comesUp(t, root) }},
		{"it is up already", func(t *testing.T) { upAlready(t, root) }},
		{"beside another", func(t *testing.T) { besideAnother(t, s) }},
		{"the issuer's keys rotate", func(t *testing.T) { rotate(t, s) }},
		{"in the meantime", func(t *testing.T) {
			dropped := dropKeys(t, s)
			t.Run("dropped keys are forgotten", dropped)
			t.Run("a session outlives its credentials", func(t *testing.T) { t.Parallel(); renewal(t, s) })
		}},
		{"the broker is away", func(t *testing.T) { brokerAway(t, s) }},
		{"the cluster is away", func(t *testing.T) { clusterAway(t, s) }},
		{"AWS does not answer", func(t *testing.T) { awsAway(t, s) }},
		{"nothing was shown, logged or recorded that must not be", func(t *testing.T) {
			for _, found := range s.Sweep() {
				t.Error(found)
			}
		}},
		{"it leaves nothing", func(t *testing.T) { leavesNothing(t, s) }},
	}
	for _, step := range steps {
		began := time.Now()
		if t.Run(step.name, step.do); s == nil && step.name == "it comes up" {
			t.FailNow()
		}
		t.Logf("%5.1fs %s", time.Since(began).Seconds(), step.name)
	}
}

// checkout makes a second checkout: what is built is copied or linked, the rest is as in the first.
func checkout(t *testing.T) string {
	t.Helper()
	first, err := stacktest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(t.TempDir(), "checkout")
	for _, dir := range []string{"local/stack", "infra/rbac"} {
		if err := os.CopyFS(filepath.Join(root, dir), os.DirFS(filepath.Join(first, dir))); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"bin/local", "bin/proxy", "bin/sallyport", "bin/.moto-python", "dist/local/exchange/bootstrap", "dist/local/review/bootstrap", "dist/local/notify/bootstrap", "dist/local/callback/bootstrap", "infra/policy.yaml", "infra/workflow.asl.json"} {
		b, err := os.ReadFile(filepath.Join(first, file))
		if err != nil {
			t.Fatalf("%v; run make build", err)
		}
		to := filepath.Join(root, file)
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(to, b, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, link := range []string{"bin/cluster", "bin/kubectl"} {
		to, err := filepath.EvalSymlinks(filepath.Join(first, link))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if out, err := stacktest.Local(root, "down"); err != nil {
			t.Errorf("down: %v: %s", err, out)
		}
	})
	return root
}

func malformedPolicy(t *testing.T, root string) {
	good, err := os.ReadFile(filepath.Join(root, "infra", "policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, from, to string
		at             string // what is wrong: the error names its line
		want           []string
	}{
		{"a misspelt field", "audience: sallyport", "audiense: sallyport", "audiense", []string{"audiense", "audience"}},
		{"an unknown field of a tier", "group: sallyport:observe", "group: sallyport:observe\n  grups: [x]", "grups", []string{"grups"}},
		{"no duration", "idle: 2h", "idle: soon", "soon", []string{"idle", "soon"}},
		{"a group of the cluster's own", "group: sallyport:operate", "group: system:masters", "system:masters", []string{"group", "system:masters"}},
		{"no YAML", "audience: sallyport", "audience: [", "", []string{"line"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			bad := strings.Replace(string(good), test.from, test.to, 1)
			if bad == string(good) {
				t.Fatalf("the default policy has no %q to spoil", test.from)
			}
			file := filepath.Join(t.TempDir(), "spoilt.yaml")
			if err := os.WriteFile(file, []byte(bad), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(filepath.Join(root, "bin", "local"), "up")
			cmd.Env = append(os.Environ(), "POLICY="+file)
			out, err := cmd.CombinedOutput()
			if err == nil || cmd.ProcessState.ExitCode() != 1 {
				t.Errorf("want exit code 1, got %v: %s", err, out)
			}
			want := append(test.want, "spoilt.yaml")
			if before, _, ok := strings.Cut(bad, test.at); ok && test.at != "" {
				want = append(want, fmt.Sprintf("line %d:", 1+strings.Count(before, "\n")))
			}
			for _, w := range want {
				if !strings.Contains(string(out), w) {
					t.Errorf("want %q in: %s", w, out)
				}
			}
			if left := processes(root); len(left) > 0 {
				t.Errorf("it left %v", left)
			}
		})
	}
}

func comesUp(t *testing.T, root string) *stacktest.Stack {
	began := time.Now()
	out, err := stacktest.Local(root, "up")
	if err != nil {
		t.Fatalf("up: %v: %s", err, out)
	}
	t.Logf("up in %.1f s", time.Since(began).Seconds())
	s, err := stacktest.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	d := s.Description
	for name, value := range map[string]string{
		"proxy.url": d.Proxy.URL, "proxy.ca": d.Proxy.CA, "proxy.metrics": d.Proxy.Metrics, "cluster.name": d.Cluster.Name, "cluster.server": d.Cluster.Server,
		"cluster.admin_kubeconfig": d.Cluster.AdminKubeconfig, "agent.kubeconfig": d.Agent.Kubeconfig, "issuer.url": d.Issuer.URL, "issuer.audience": d.Issuer.Audience,
		"aws.endpoint": d.AWS.Endpoint, "aws.region": d.AWS.Region, "recordings.bucket": d.Recordings.Bucket, "policy.file": d.Policy.File,
	} {
		if value == "" {
			t.Errorf("stack.json has no %s", name)
		}
	}
	for _, file := range []string{d.Proxy.CA, d.Cluster.AdminKubeconfig, d.Agent.Kubeconfig, d.Policy.File} {
		info, err := os.Stat(file)
		if err != nil {
			t.Error(err)
		} else if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s is for everybody: %v", file, info.Mode())
		}
	}
	for _, name := range []string{"proxy", "issuer", "aws", "moto", "etcd", "kube-apiserver"} {
		if !stacktest.Alive(d.PIDs[name]) {
			t.Errorf("%s (%d) does not run", name, d.PIDs[name])
		}
	}
	return s
}

func upAlready(t *testing.T, root string) {
	before, err := stacktest.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	out, err := stacktest.Local(root, "up")
	if took := time.Since(began); err != nil || took > 3*time.Second || !strings.Contains(out, "up already") {
		t.Errorf("up again: %v in %v: %s", err, took, out)
	}
	after, err := stacktest.Open(root)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before.Description, after.Description); diff != "" {
		t.Errorf("it is another stack (-before +after):\n%s", diff)
	}
}

// besideAnother looks at the stack of the checkout that the tests are part of, if it is up now.
func besideAnother(t *testing.T, s *stacktest.Stack) {
	first, err := stacktest.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	other, err := stacktest.Open(first)
	if err != nil || !stacktest.Alive(other.PIDs["proxy"]) {
		t.Skip("no other stack is up")
	}
	for _, x := range [][2]*stacktest.Stack{{s, other}, {other, s}} {
		own, foreign := x[0].Agent(t, "agents"), x[1].Agent(t, "agents")
		if a := own.Get(t, pods); a.Code != http.StatusOK {
			t.Errorf("%s: %v", x[0].Proxy.URL, a)
		}
		a := x[0].Do(t, stacktest.Request{Target: x[0].Path(pods), Header: []string{stacktest.Bearer(foreign.Token)}})
		if a.Code != http.StatusUnauthorized {
			t.Errorf("%s takes a token of the other stack's issuer: %v", x[0].Proxy.URL, a)
		}
	}
}

// leavesNothing takes the stack down and looks for what is left of it.
func leavesNothing(t *testing.T, s *stacktest.Stack) {
	agent := s.Agent(t, "agents")
	open := agent.Start(t, "logs", "-f", s.Pod(t, "dev"), "-n", "dev")
	open.Await("line", within)
	began := time.Now()
	if out, err := stacktest.Local(s.Root, "down"); err != nil {
		t.Fatalf("down: %v: %s", err, out)
	}
	t.Logf("down in %.1f s", time.Since(began).Seconds())
	for name, pid := range s.PIDs {
		if stacktest.Alive(pid) {
			t.Errorf("%s (%d) still runs", name, pid)
		}
	}
	if left := processes(s.Root); len(left) > 0 {
		t.Errorf("these still run: %v", left)
	}
	if _, err := stacktest.Open(s.Root); err == nil {
		t.Error("stack.json is still there")
	}
	entries, err := os.ReadDir(filepath.Join(s.Root, ".local"))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		switch e.Name() {
		case "logs", "lock": // what was said is kept until the next start
		case "policy.yaml":
		default:
			t.Errorf(".local/%s is still there", e.Name())
		}
	}
	if out, err := stacktest.Local(s.Root, "down"); err != nil {
		t.Errorf("down again: %v: %s", err, out)
	}
	if out, err := stacktest.Local(s.Root, "token", "--subject", "x"); err == nil {
		t.Errorf("the issuer still gives tokens: %s", out)
	}
}

// processes are those that have to do with a checkout: by their program, their arguments or where they work.
func processes(root string) []string {
	var found []string
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range all {
		pid, err := strconv.Atoi(filepath.Base(p))
		if err != nil || pid == os.Getpid() || !stacktest.Alive(pid) {
			continue
		}
		exe, _ := os.Readlink(p + "/exe")
		cwd, _ := os.Readlink(p + "/cwd")
		args, _ := os.ReadFile(p + "/cmdline")
		if strings.Contains(exe+" "+cwd+" "+string(args), root) {
			found = append(found, fmt.Sprintf("%d %s", pid, strings.ReplaceAll(string(args), "\x00", " ")))
		}
	}
	return found
}
