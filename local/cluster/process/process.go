// Package process starts child processes that cannot outlive their parent, and
// finds and kills those that try.
//
// A child started here gets a parent death signal. The kernel ties that signal
// to the thread that forked, not to the process, so every child is started and
// awaited on a goroutine that holds its thread until the child is gone.
//
// A container's process may fork children of its own, and those may leave its
// session. They are found by a mark in their environment (see Marked). A
// process that wipes its own environment escapes; this is bookkeeping, not a
// security boundary.
package process

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MarkEnv is the environment variable that tells which container a process
// belongs to. Its value is a path: <state dir>/pods/<pod UID>/<container>,
// with one more element for processes started by exec.
const MarkEnv = "SALLYPORT_CONTAINER"

// A Process is a started child.
type Process struct {
	Pid  int
	cmd  *exec.Cmd
	err  error
	done chan struct{}
}

// Start starts cmd with the given parent death signal.
func Start(cmd *exec.Cmd, deathsig syscall.Signal) (*Process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = deathsig
	p := &Process{cmd: cmd, done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			p.Pid = cmd.Process.Pid
		}
		started <- err
		if err != nil {
			return
		}
		p.err = cmd.Wait()
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// Done is closed when the process has ended and its output is copied.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err is what exec.Cmd.Wait returned. It is valid once Done is closed.
func (p *Process) Err() error { return p.err }

// ExitCode is the exit code, or 128 plus the signal that ended the process, as
// a shell would say. It is valid once Done is closed.
func (p *Process) ExitCode() int {
	ws, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return p.cmd.ProcessState.ExitCode()
}

// SignalGroup sends sig to the process group the process leads.
func (p *Process) SignalGroup(sig syscall.Signal) {
	select {
	case <-p.done:
	default:
		syscall.Kill(-p.Pid, sig) //nolint:errcheck // it may have ended just now
	}
}

// Terminate sends SIGTERM and waits for the end, for grace at most or until
// hurry is closed.
func (p *Process) Terminate(grace time.Duration, hurry <-chan struct{}) {
	p.SignalGroup(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-hurry:
	case <-time.After(grace):
	}
}

// Stop ends the process: SIGTERM, then after grace SIGKILL. It returns when the
// process is gone.
func (p *Process) Stop(grace time.Duration) {
	p.Terminate(grace, nil)
	p.SignalGroup(syscall.SIGKILL)
	<-p.done
}

// Marked lists the processes whose mark is path or lies below it.
func Marked(path string) []int {
	environs, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil {
		return nil
	}
	var pids []int
	for _, name := range environs {
		env, err := os.ReadFile(name)
		if err != nil {
			continue // ended meanwhile, or not ours
		}
		if !carries(env, path) {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(name, "/")[2])
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}

func carries(environ []byte, path string) bool {
	for _, kv := range bytes.Split(environ, []byte{0}) {
		value, ok := bytes.CutPrefix(kv, []byte(MarkEnv+"="))
		if !ok {
			continue
		}
		rest, ok := bytes.CutPrefix(value, []byte(strings.TrimSuffix(path, "/")))
		return ok && (len(rest) == 0 || rest[0] == '/')
	}
	return false
}

// KillMarked sends SIGKILL to every marked process until none is left, or
// until the deadline: a process in uninterruptible sleep cannot be killed.
func KillMarked(path string, deadline time.Duration) {
	for end := time.Now().Add(deadline); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		pids := Marked(path)
		if len(pids) == 0 {
			return
		}
		for _, pid := range pids {
			syscall.Kill(pid, syscall.SIGKILL) //nolint:errcheck // it may have ended just now
		}
	}
}
