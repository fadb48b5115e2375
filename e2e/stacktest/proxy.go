package stacktest

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Proxy is another process of the gate beside the stack's own, as a second task is in AWS.
type Proxy struct {
	URL     string // of the gate
	Health  string // the address of health, readiness and metrics
	Cluster string // of the cluster behind it

	t    testing.TB
	cmd  *exec.Cmd
	done chan struct{}
	mu   sync.Mutex
	log  bytes.Buffer
}

// ProxyEnvironment is the environment of the stack's own proxy, with changes: NAME=value sets, NAME alone takes away.
func (s *Stack) ProxyEnvironment(t testing.TB, change ...string) []string {
	t.Helper()
	env := Environ(t, s.PIDs["proxy"])
	for _, c := range change {
		name, _, set := strings.Cut(c, "=")
		env = slices.DeleteFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") })
		if set {
			env = append(env, c)
		}
	}
	return env
}

// RunProxy runs bin/proxy with an environment and expects it to end by itself.
func (s *Stack) RunProxy(t testing.TB, env []string) Output {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.Root, "bin", "proxy"))
	cmd.Env = env
	stop := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
	defer stop.Stop()
	return finish(t, cmd)
}

// StartProxy starts another process of the gate and waits until it is ready. It is ended with the test.
func (s *Stack) StartProxy(t testing.TB, change ...string) *Proxy {
	t.Helper()
	p := s.LaunchProxy(t, change...)
	Eventually(t, 20*time.Second, func() string {
		if code, text := p.Ready(); code != http.StatusOK {
			return fmt.Sprintf("the proxy is not ready: %d %s\n%s", code, text, p.Log())
		}
		return ""
	})
	return p
}

// LaunchProxy starts another process of the gate and waits for nothing. It is ended with the test.
func (s *Stack) LaunchProxy(t testing.TB, change ...string) *Proxy {
	t.Helper()
	listen, health := freePort(t), freePort(t)
	p := &Proxy{t: t, URL: "https://" + listen, Health: "http://" + health, Cluster: "https://" + listen + "/clusters/" + s.Cluster.Name, done: make(chan struct{})}
	p.cmd = exec.Command(filepath.Join(s.Root, "bin", "proxy"))
	p.cmd.Env = s.ProxyEnvironment(t, append([]string{"SALLYPORT_LISTEN=" + listen, "SALLYPORT_METRICS_LISTEN=" + health}, change...)...)
	p.cmd.Stdout, p.cmd.Stderr = p, p
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.done
	})
	return p
}

// Write keeps what the proxy logs.
func (p *Proxy) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

// Log is what it logged.
func (p *Proxy) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}

// Ready asks whether it is ready. The code is 0 when nobody answers.
func (p *Proxy) Ready() (int, string) {
	client := http.Client{Timeout: 2 * time.Second}
	res, err := client.Get(p.Health + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	return res.StatusCode, readAll(res.Body)
}

// Terminate asks it to end.
func (p *Proxy) Terminate() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
}

// Ended waits for its end and returns its exit code.
func (p *Proxy) Ended(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("the proxy does not end in %v:\n%s", within, p.Log())
	}
	return p.cmd.ProcessState.ExitCode()
}

func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
