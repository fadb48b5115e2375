// Package child starts processes that end when this one does.
//
// A stand-in that outlives its parent keeps a port, a log file and half a gigabyte, and the next start fails in a way
// nobody understands. Where the kernel can promise it (Linux), a child is killed when its parent dies, even by SIGKILL.
// Elsewhere only an orderly end takes the children along.
//
// Every child leads a process group of its own, so that stopping it stops what it started, and a Ctrl-C in the
// terminal reaches only the parent, which then ends its children in order.
package child

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// Process is a started child. Its methods may be called by several goroutines.
type Process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

// Start starts cmd, which must not have been started. It sets cmd.SysProcAttr.
func Start(cmd *exec.Cmd) (*Process, error) {
	if err := start(cmd); err != nil {
		return nil, err
	}
	p := &Process{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// PID is the child's process id, and the id of the group it leads.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the child has ended and has been waited for.
func (p *Process) Done() <-chan struct{} { return p.done }

// Err says how the child ended: nil for exit code 0. It may be read once Done is closed.
func (p *Process) Err() error { return p.err }

// Kill ends the child and its group at once and waits for the child.
func (p *Process) Kill() {
	p.signal(syscall.SIGKILL)
	<-p.done
}

// Stop asks the child's group to end, and kills it when it has not ended after grace.
func (p *Process) Stop(grace time.Duration) {
	p.signal(syscall.SIGTERM)
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-p.done:
	case <-t.C:
	}
	p.Kill() // also takes what the child started and left behind
}

// Signal sends s to the child's group.
func (p *Process) signal(s syscall.Signal) {
	// The group may outlive its leader; when it is empty the kernel says ESRCH, which is what we want.
	_ = syscall.Kill(-p.PID(), s)
}

// launcher is the one thread that forks. Linux delivers the parent-death signal when the *thread* that forked ends,
// not the process, so a fork from an ordinary goroutine can kill its child whenever the runtime retires that thread.
var launcher = sync.OnceValue(func() chan<- func() {
	c := make(chan func())
	go launch(c)
	return c
})

func start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr != nil {
		return errors.New("starting a child: SysProcAttr is already set")
	}
	cmd.SysProcAttr = attributes()
	cmd.WaitDelay = 5 * time.Second // a grandchild that holds the pipes must not hang Wait for ever
	errc := make(chan error)
	launcher() <- func() { errc <- cmd.Start() }
	if err := <-errc; err != nil {
		return fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return nil
}

// Log opens a child's log file for appending, readable by its owner only: functions may print what they should not.
func Log(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
}
