// Package stacktest drives the one-machine stack as a stranger would: by the files it writes down, the commands in bin/ and the
// ports it opens. It knows nothing of the product's packages, so that what it finds is what anybody would find.
//
// Everything that an agent of a test is shown, and every token that was used, is kept in a transcript. When the tests of a
// package are over, the transcript, the logs, the recordings and the cluster's audit log are swept for what must never be
// in them; a finding fails the package.
package stacktest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Variable is the environment variable that says that tests may use the stack.
const Variable = "SALLYPORT_STACK"

// Description is .local/stack.json, whose names are fixed: scripts from outside read it.
type Description struct {
	Proxy struct {
		URL     string `json:"url"`
		CA      string `json:"ca"`
		Metrics string `json:"metrics"`
	} `json:"proxy"`
	Cluster struct {
		Name            string `json:"name"`
		Server          string `json:"server"`
		AdminKubeconfig string `json:"admin_kubeconfig"`
		AuditLog        string `json:"audit_log"`
	} `json:"cluster"`
	Agent struct {
		Kubeconfig string `json:"kubeconfig"`
	} `json:"agent"`
	Issuer struct {
		URL      string `json:"url"`
		Audience string `json:"audience"`
	} `json:"issuer"`
	AWS struct {
		Endpoint string `json:"endpoint"`
		Region   string `json:"region"`
	} `json:"aws"`
	Recordings struct {
		Bucket string `json:"bucket"`
	} `json:"recordings"`
	Policy struct {
		File string `json:"file"`
	} `json:"policy"`
	Reviews struct {
		URL   string `json:"url"`
		Inbox string `json:"inbox"`
	} `json:"reviews"`
	PIDs map[string]int `json:"pids"` // by name
}

// Stack is a stack that is up.
type Stack struct {
	Description
	Root string // the checkout

	seen  *transcript
	ready sync.Once
	pods  map[string][]string
	fault error
}

// Open reads what a stack that is up in a checkout wrote down. The error is fs.ErrNotExist when none is up.
func Open(root string) (*Stack, error) {
	b, err := os.ReadFile(filepath.Join(root, ".local", "stack.json"))
	if err != nil {
		return nil, err
	}
	s := &Stack{Root: root, seen: newTranscript()}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&s.Description); err != nil {
		return nil, fmt.Errorf("stack.json is not as the contract has it: %w", err)
	}
	return s, nil
}

// shared is the stack of this checkout, as Main found or started it.
var shared *Stack

// Main is the body of a package's TestMain: it makes the checkout's stack be up, runs the tests, sweeps, and takes the
// stack down again if it was not up before. Without Variable it runs the tests, which skip. What is given beside runs while
// the tests do.
func Main(m *testing.M, beside ...func(*Stack) (stop func())) {
	flag.Parse()
	if why := off(); why != "" {
		os.Exit(m.Run())
	}
	// The tests wait more than they work.
	if f := flag.Lookup("test.parallel"); f != nil {
		_ = f.Value.Set("8")
	}
	os.Exit(run(m, beside))
}

func run(m *testing.M, beside []func(*Stack) (stop func())) (code int) {
	root, err := Checkout()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	began := time.Now()
	shared, err = Open(root)
	ours := err != nil || !alive(shared.PIDs["proxy"])
	if out, err := Local(root, "up"); err != nil {
		fmt.Fprintf(os.Stderr, "bringing the stack up: %v\n%s", err, out)
		return 1
	}
	if ours {
		fmt.Fprintf(os.Stderr, "the stack came up in %.0f s\n", time.Since(began).Seconds())
		defer func() {
			if out, err := Local(root, "down"); err != nil {
				fmt.Fprintf(os.Stderr, "taking the stack down: %v\n%s", err, out)
				code = 1
			}
		}()
	}
	if shared, err = Open(root); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	for _, start := range beside {
		defer start(shared)()
	}
	code = m.Run()
	if flag.Lookup("test.list").Value.String() != "" {
		return code
	}
	findings := shared.Sweep()
	for _, f := range findings {
		fmt.Printf("--- FAIL: sweep: %s\n", f)
	}
	if len(findings) > 0 {
		code = 1
	}
	return code
}

// off says why tests of the stack are not to run, and "" when they are.
func off() string {
	switch {
	case testing.Short():
		return "it drives the whole stack; leave out -short"
	case os.Getenv(Variable) != "1":
		return "it drives the whole stack: make build, then set " + Variable + "=1"
	}
	return ""
}

// Need skips a test that may not use the stack.
func Need(t testing.TB) {
	t.Helper()
	if why := off(); why != "" {
		t.Skip(why)
	}
}

// Get is the checkout's stack. Without it the test is skipped.
func Get(t testing.TB) *Stack {
	t.Helper()
	Need(t)
	if shared == nil {
		t.Fatal("no stack: the package's TestMain must call stacktest.Main")
	}
	return shared
}

// Checkout is the checkout the tests are part of.
func Checkout() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("no go.mod above the test's folder")
		}
	}
}

// Local runs bin/local in a checkout and returns what it printed, both streams.
func Local(root string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(root, "bin", "local"), args...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Admin runs kubectl as the cluster's administrator, past the gate.
func (s *Stack) Admin(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.admin(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *Stack) admin(args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(s.Root, "bin", "kubectl"), append([]string{"--kubeconfig", s.Cluster.AdminKubeconfig}, args...)...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return strings.TrimSpace(string(out)), err
}

// Pod is the name of a running pod of Deployment web in a namespace.
func (s *Stack) Pod(t testing.TB, namespace string) string {
	t.Helper()
	s.ready.Do(func() {
		s.pods = map[string][]string{}
		for _, ns := range []string{"dev", "prod"} {
			out, err := s.admin("get", "pods", "-n", ns, "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}")
			if s.pods[ns] = strings.Fields(out); err != nil || len(s.pods[ns]) == 0 {
				s.fault = fmt.Errorf("no pods in namespace %s: %w", ns, err)
			}
		}
	})
	if s.fault != nil {
		t.Fatal(s.fault)
	}
	return s.pods[namespace][0]
}

// ConfigMap makes a ConfigMap in namespace dev that is the test's own, and returns its name.
func (s *Stack) ConfigMap(t testing.TB) string {
	t.Helper()
	name := "test-" + Word()
	s.Admin(t, "create", "configmap", name, "-n", "dev", "--from-literal=color=blue")
	t.Cleanup(func() { _, _ = s.admin("delete", "configmap", name, "-n", "dev", "--ignore-not-found") })
	return name
}

// Sallyport runs bin/sallyport.
func (s *Stack) Sallyport(t testing.TB, args ...string) Output {
	t.Helper()
	cmd := exec.Command(filepath.Join(s.Root, "bin", "sallyport"), args...)
	cmd.Env = append(os.Environ(), "SALLYPORT_PROFILE="+filepath.Join(s.Root, ".local", "profile.json"))
	return finish(t, cmd)
}

// Output is what a command did.
type Output struct {
	Stdout, Stderr string
	Code           int
}

func (o Output) String() string {
	return fmt.Sprintf("exit code %d\nstdout: %s\nstderr: %s", o.Code, clip(o.Stdout), clip(o.Stderr))
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:3000] + fmt.Sprintf("… (%d bytes)", len(s))
	}
	return s
}

// finish runs a command to its end, however it ends.
func finish(t testing.TB, cmd *exec.Cmd) Output {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && !errors.Is(err, exec.ErrWaitDelay) {
		t.Fatalf("%s: %v", cmd.Path, err)
	}
	return Output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// Eventually polls until done says "", and fails the test with what it said last when time is up.
func Eventually(t testing.TB, within time.Duration, done func() string) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(100 * time.Millisecond) {
		why := done()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", within, why)
		}
	}
}

// alive says whether a process runs; one that ended and was not yet collected does not.
func alive(pid int) bool {
	if pid <= 0 {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, state, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')')+1:]), " ")
	return !strings.HasPrefix(state, "Z") && !strings.HasPrefix(state, "X")
}

// Alive says whether a process runs.
func Alive(pid int) bool { return alive(pid) }

// Environ is the environment a process of the stack was started with.
func Environ(t testing.TB, pid int) []string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimRight(string(b), "\x00"), "\x00")
}

// Lookup finds a variable in an environment.
func Lookup(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// readAll reads a body to its end, and says how it broke off when it did.
func readAll(r io.Reader) string {
	b, err := io.ReadAll(r)
	if err != nil {
		return string(b) + "\n[broke off: " + err.Error() + "]"
	}
	return string(b)
}
