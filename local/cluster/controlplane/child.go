package controlplane

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"sallyport/local/cluster/process"
)

// A child is one component: this binary run again as another applet.
type child struct {
	*process.Process
	name, log string
}

// startChild starts an applet with its output in <dir>/<name>.log. The child
// gets deathsig when the supervisor dies, however it dies.
func startChild(dir, name string, deathsig syscall.Signal, args ...string) (*child, error) {
	path := filepath.Join(dir, name+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = name
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = log, log
	// A group of its own, so that Ctrl-C reaches the supervisor alone and the
	// order of ending is ours.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p, err := process.Start(cmd, deathsig)
	if err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	return &child{p, name, path}, nil
}

// died describes a child that ended by itself.
func (c *child) died() error {
	return fmt.Errorf("%s ended unexpectedly (exit code %d); last lines of %s:\n%s", c.name, c.ExitCode(), c.log, tail(c.log, 15))
}

// stop ends the children together, each within grace.
func stop(grace time.Duration, children ...*child) {
	done := make(chan struct{})
	for _, c := range children {
		go func() {
			c.Stop(grace)
			done <- struct{}{}
		}()
	}
	for range children {
		<-done
	}
}

// tail returns the last n lines of a file, or why it cannot.
func tail(path string, n int) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const window = 16 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > window {
		if _, err := f.Seek(-window, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	lines := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
