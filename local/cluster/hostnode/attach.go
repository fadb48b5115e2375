package hostnode

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/remotecommand"
)

// AttachContainer connects a client to a container's own streams, from now on.
func (p *pod) AttachContainer(ctx context.Context, _ string, _ types.UID, name string, in io.Reader, out, errOut io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	c := p.container(name)
	if c == nil {
		return fmt.Errorf("no container %s", name)
	}
	r, spec := c.running(), c.spec()
	if r == nil || spec == nil {
		return fmt.Errorf("container %s is not running", name)
	}
	sub, leave := r.out.subscribe()
	defer leave()
	if r.tty != nil {
		go resizeTTY(r.tty, resize, r.done)
	}
	if in != nil && r.stdin != nil {
		go func() {
			io.Copy(r.stdin, in) //nolint:errcheck // the client or the container has gone
			if spec.StdinOnce && ctx.Err() == nil {
				r.stdin.Close()
			}
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case c, ok := <-sub.chunks:
			if !ok {
				return nil
			}
			to := out
			if c.stream == "stderr" {
				to = errOut
			}
			if to == nil {
				continue
			}
			if _, err := to.Write(c.data); err != nil {
				return err
			}
		}
	}
}

// resizeTTY follows the client's terminal until done.
func resizeTTY(tty *os.File, resize <-chan remotecommand.TerminalSize, done <-chan struct{}) {
	for {
		select {
		case size, ok := <-resize:
			if !ok {
				return
			}
			setSize(tty, size)
		case <-done:
			return
		}
	}
}

func setSize(tty *os.File, size remotecommand.TerminalSize) {
	if size.Width == 0 || size.Height == 0 {
		return
	}
	conn, err := tty.SyscallConn()
	if err != nil {
		return // closed
	}
	conn.Control(func(fd uintptr) { //nolint:errcheck // closed
		unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width}) //nolint:errcheck // a size is a courtesy
	})
}
