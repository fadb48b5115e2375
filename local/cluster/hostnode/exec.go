package hostnode

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/creack/pty"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/remotecommand"
	utilexec "k8s.io/utils/exec"

	"sallyport/local/cluster/process"
)

// ExecInContainer runs a command in a container. When the API server ends the
// connection the command is killed with all it started, unlike on a real node,
// so that nothing is left on the host. The API server notices that a client has
// gone only when the command writes; a silent one goes on until then, or until
// its pod ends.
func (p *pod) ExecInContainer(ctx context.Context, _ string, _ types.UID, name string, argv []string, in io.Reader, out, errOut io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	c := p.container(name)
	if c == nil || c.running() == nil {
		return fmt.Errorf("container %s is not running", name)
	}
	spec := c.spec()
	c.mu.Lock()
	c.sessions++
	session := fmt.Sprintf("exec-%d", c.sessions)
	cmd := c.command(spec, argv, session)
	c.mu.Unlock()
	if tty {
		cmd.Env = append(cmd.Env, "TERM=xterm")
	}

	// A client that has gone shows in one of two ways: the connection ends, or
	// a stream refuses what is written to it.
	ctx, gone := context.WithCancel(ctx)
	defer gone()
	over := make(chan struct{})
	defer close(over) // before gone
	go func() {
		<-ctx.Done()
		select {
		case <-over: // it ended by itself; what it left in the background may stay
		default:
			process.KillMarked(filepath.Join(c.dir, session), 5*time.Second)
		}
	}()
	var stdout, stderr io.Writer
	if out != nil {
		stdout = watchedWriter{out, gone}
	}
	if errOut != nil {
		stderr = watchedWriter{errOut, gone}
	}
	if tty {
		return execTTY(cmd, in, stdout, resize)
	}
	return execPipes(cmd, in, stdout, stderr)
}

// A watchedWriter tells when nobody takes its output any more.
type watchedWriter struct {
	io.Writer
	gone context.CancelFunc
}

func (w watchedWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		w.gone()
	}
	return n, err
}

func execPipes(cmd *exec.Cmd, in io.Reader, out, errOut io.Writer) error {
	if out != nil {
		cmd.Stdout = out
	}
	if errOut != nil {
		cmd.Stderr = errOut
	}
	if in != nil {
		// Not cmd.Stdin: Wait would wait for a client that never closes it.
		w, err := cmd.StdinPipe()
		if err != nil {
			return err
		}
		go func() {
			io.Copy(w, in) //nolint:errcheck // the command may not read all
			w.Close()
		}()
	}
	proc, err := process.Start(cmd, syscall.SIGKILL)
	if err != nil {
		return cannotRun(err)
	}
	<-proc.Done()
	return exitStatus(proc)
}

func execTTY(cmd *exec.Cmd, in io.Reader, out io.Writer, resize <-chan remotecommand.TerminalSize) error {
	ptmx, slave, err := pty.Open()
	if err != nil {
		return err
	}
	defer ptmx.Close()
	// Clients that have a size send it at once; a command that asks for it
	// first thing should get it.
	select {
	case size := <-resize:
		setSize(ptmx, size)
	case <-time.After(100 * time.Millisecond):
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr.Setctty = true
	proc, err := process.Start(cmd, syscall.SIGKILL)
	slave.Close()
	if err != nil {
		return cannotRun(err)
	}
	go resizeTTY(ptmx, resize, proc.Done())
	if in != nil {
		go io.Copy(ptmx, in) //nolint:errcheck // ends with the terminal
	}
	if out != nil {
		io.Copy(out, ptmx) //nolint:errcheck // a pty ends with EIO
	}
	<-proc.Done()
	return exitStatus(proc)
}

// cannotRun gives the exit codes of a shell.
func cannotRun(err error) error {
	return utilexec.CodeExitError{Err: err, Code: 127}
}

func exitStatus(proc *process.Process) error {
	code := proc.ExitCode()
	if code == 0 {
		return nil // even if the client did not take all output
	}
	return utilexec.CodeExitError{Err: fmt.Errorf("exit code %d", code), Code: code}
}
