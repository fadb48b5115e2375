package stacktest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// Agent is an agent nobody else is: it has a subject of its own, and so a session of its own.
type Agent struct {
	Subject string
	Token   string // its OIDC token

	stack *Stack
	dir   string // where its kubectl keeps its cache and finds its files
}

// Agent makes an agent that is in the groups given.
func (s *Stack) Agent(t testing.TB, groups ...string) *Agent {
	t.Helper()
	return s.agent(t, "bot-"+Word(), groups)
}

func (s *Stack) agent(t testing.TB, subject string, groups []string) *Agent {
	t.Helper()
	a := &Agent{Subject: subject, stack: s, dir: t.TempDir()}
	var args []string
	if len(groups) > 0 {
		args = []string{"--groups", strings.Join(groups, ",")}
	}
	a.Token = s.Token(t, append(args, "--subject", a.Subject)...)
	return a
}

// Word is a random word that is safe in names.
func Word() string { return strings.ToLower(rand.Text()[:10]) }

// Token prints a token with bin/local.
func (s *Stack) Token(t testing.TB, args ...string) string {
	t.Helper()
	out := finish(t, exec.Command(filepath.Join(s.Root, "bin", "local"), append([]string{"token"}, args...)...))
	if out.Code != 0 {
		t.Fatalf("bin/local token %s: %v", strings.Join(args, " "), out)
	}
	token := strings.TrimSpace(out.Stdout)
	s.seen.secret(token)
	return token
}

// Stack is where the agent is at home.
func (a *Agent) Stack() *Stack { return a.stack }

// Dir is the agent's own folder.
func (a *Agent) Dir() string { return a.dir }

// Base is the address the agent knows the cluster by.
func (a *Agent) Base() string { return a.stack.Proxy.URL + "/clusters/" + a.stack.Cluster.Name }

// Config is the agent's client-go configuration.
func (a *Agent) Config() *rest.Config {
	return &rest.Config{Host: a.Base(), BearerToken: a.Token, TLSClientConfig: rest.TLSClientConfig{CAFile: a.stack.Proxy.CA}, QPS: 1000, Burst: 1000}
}

// Command is kubectl as the agent, through the gate.
func (a *Agent) Command(ctx context.Context, args ...string) *exec.Cmd {
	return a.command(ctx, filepath.Join(a.stack.Root, "bin", "kubectl"), append([]string{"--token", a.Token}, args...)...)
}

func (a *Agent) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = a.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + a.dir, "KUBECONFIG=" + a.stack.Description.Agent.Kubeconfig, "KUBECACHEDIR=" + filepath.Join(a.dir, "cache")}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Kubectl runs kubectl as the agent and returns what it did.
func (a *Agent) Kubectl(t testing.TB, args ...string) Output {
	t.Helper()
	return a.Run(t, nil, args...)
}

// Run is Kubectl after change changed the command, to give it an environment or an input.
func (a *Agent) Run(t testing.TB, change func(*exec.Cmd), args ...string) Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	cmd := a.Command(ctx, args...)
	if change != nil {
		change(cmd)
	}
	out := finish(t, cmd)
	a.stack.seen.show(strings.Join(args, " "), out.Stdout, out.Stderr)
	if ctx.Err() != nil {
		t.Fatalf("kubectl %s does not end: %v", strings.Join(args, " "), out)
	}
	return out
}

// Terminal runs kubectl on a pseudo-terminal, with script(1). The test is skipped where there is none.
func (a *Agent) Terminal(t testing.TB, args ...string) Output {
	t.Helper()
	script, err := exec.LookPath("script")
	if err != nil {
		t.Skip("there is no script(1) to make a terminal with")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	words := append([]string{filepath.Join(a.stack.Root, "bin", "kubectl"), "--token", a.Token}, args...)
	for i, w := range words {
		words[i] = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
	}
	out := finish(t, a.command(ctx, script, "-qec", strings.Join(words, " "), os.DevNull))
	a.stack.seen.show("terminal: "+strings.Join(args, " "), out.Stdout, out.Stderr)
	return out
}

// Process is a command under way.
type Process struct {
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{}
	cmd    *exec.Cmd

	mu    sync.Mutex
	lines []string // of both streams
	next  int
	more  chan struct{}
}

// Start starts kubectl as the agent. It is ended with the test, if it did not end before.
func (a *Agent) Start(t testing.TB, args ...string) *Process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	p := &Process{t: t, cancel: cancel, done: make(chan struct{}), cmd: a.Command(ctx, args...), more: make(chan struct{}, 1)}
	r, w := io.Pipe()
	p.cmd.Stdout, p.cmd.Stderr = w, w
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
			a.stack.seen.show(strings.Join(args, " "), lines.Text())
			p.mu.Lock()
			p.lines = append(p.lines, lines.Text())
			p.mu.Unlock()
			p.wake()
		}
		_, _ = io.Copy(io.Discard, r)
	}()
	go func() {
		_ = p.cmd.Wait()
		w.Close()
		<-read // who waits for its end reads all of it
		close(p.done)
		p.wake()
	}()
	t.Cleanup(p.Stop)
	return p
}

func (p *Process) wake() {
	select {
	case p.more <- struct{}{}:
	default:
	}
}

// Await waits for a line that holds text, after the one the last Await found, and returns it.
func (p *Process) Await(text string, within time.Duration) string {
	p.t.Helper()
	timeout := time.After(within)
	for {
		ended := false
		select {
		case <-p.done:
			ended = true
		default:
		}
		p.mu.Lock()
		for p.next < len(p.lines) {
			l := p.lines[p.next]
			p.next++
			if strings.Contains(l, text) {
				p.mu.Unlock()
				return l
			}
		}
		p.mu.Unlock()
		if ended {
			p.t.Fatalf("kubectl ended (%v) before %q came:\n%s", p.cmd.ProcessState, text, p.Text())
		}
		select {
		case <-p.more:
		case <-timeout:
			p.t.Fatalf("%q did not come in %v:\n%s", text, within, p.Text())
		}
	}
}

// Text is what it printed so far.
func (p *Process) Text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.lines, "\n")
}

// Ended waits for its end and returns the exit code.
func (p *Process) Ended(within time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(within):
		p.t.Fatalf("kubectl does not end in %v:\n%s", within, p.Text())
	}
	return p.cmd.ProcessState.ExitCode()
}

// Stop ends it.
func (p *Process) Stop() {
	p.cancel()
	<-p.done
}

// Files are the contents of every file in the agent's folder.
func (a *Agent) Files(t testing.TB) map[string]string {
	t.Helper()
	files, err := contents(a.dir, "")
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// contents reads the files in a folder whose names end in suffix.
func contents(dir, suffix string) (map[string]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it went away meanwhile
		}
		if err != nil || !d.Type().IsRegular() || !strings.HasSuffix(path, suffix) {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil {
			files[path] = string(bytes.ToValidUTF8(b, []byte{'?'}))
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	return files, nil
}
