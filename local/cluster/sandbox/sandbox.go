// Package sandbox runs a container's command with a private view of the file
// system: its own /tmp, its own home at /pod, its volumes at their mount
// paths, and the cluster's state directory out of sight.
//
// It is housekeeping, not containment. The command still is a process of the
// user who started the cluster: it sees the host's files (read and write, as
// far as that user may), the host's processes and the host's network.
//
// The view is a mount namespace. Root gets one directly; everybody else gets it
// inside a new user namespace that maps their own user and group to themselves.
// Where the kernel permits neither, Probe says so and commands run plainly.
//
// Exec starts the shim applet in fresh namespaces. The shim builds a new root
// out of bind mounts, pivots into it and replaces itself by the command. A
// later exec into the same container builds an equal view from the same
// sources, so both see the same files.
package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Home is where a sandboxed command finds its private work directory.
const Home = "/pod"

// Web as the command's first word means the web applet of this very binary,
// wherever it lies.
const Web = "@web"

// A Spec says what the command sees.
type Spec struct {
	Root  string   // an existing empty directory: mount point of the new root, invisible to others
	Binds []Bind   // in order; later ones may lie inside earlier ones
	Hide  []string // directories to cover
	Dir   string   // working directory, as seen from inside
	Argv  []string
}

// A Bind shows Source (as seen from outside) at Target.
type Bind struct {
	Source, Target string
	ReadOnly       bool
}

// A Mode is how namespaces can be had here.
type Mode int

// The modes, from none to best.
const (
	None   Mode = iota // not permitted
	User               // in a new user namespace
	Direct             // as root
)

func (m Mode) String() string {
	return [...]string{"none", "user and mount namespace", "mount namespace"}[m]
}

// Probe finds the mode that works here by trying it. dir is any existing empty
// directory. The error says why the last attempt failed when the mode is None.
func Probe(dir string) (Mode, error) {
	modes := []Mode{User}
	if os.Geteuid() == 0 {
		modes = []Mode{Direct, User}
	}
	var failed error
	for _, m := range modes {
		cmd := m.Command(Spec{Root: dir, Dir: "/", Argv: []string{"true"}})
		cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
		out, err := cmd.CombinedOutput()
		if err == nil {
			return m, nil
		}
		failed = fmt.Errorf("%s: %w: %s", m, err, strings.TrimSpace(string(out)))
	}
	return None, failed
}

// Command returns the command that runs spec through the shim. The caller sets
// environment and streams.
func (m Mode) Command(spec Spec) *exec.Cmd {
	arg, err := json.Marshal(spec)
	if err != nil {
		panic(err) // strings and bools always marshal
	}
	cmd := exec.Command("/proc/self/exe", "sandbox", string(arg))
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	switch m {
	case Direct:
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNS
	case User:
		// The ids map to themselves, so the shim is not root in there and
		// would lose its rights on exec: they are passed on as ambient, and
		// dropped by the shim before the command runs.
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Geteuid(), HostID: os.Geteuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getegid(), HostID: os.Getegid(), Size: 1}}
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_DAC_OVERRIDE}
	}
	return cmd
}

// Main is the shim. It returns only on failure, with the exit code a shell
// would give: 126 cannot run, 127 not found.
func Main(args []string) int {
	var spec Spec
	if len(args) != 1 || json.Unmarshal([]byte(args[0]), &spec) != nil || len(spec.Argv) == 0 {
		fmt.Fprintln(os.Stderr, "sandbox: this applet is called by hostnode, not by hand")
		return 126
	}
	if err := enter(spec); err != nil {
		fmt.Fprintf(os.Stderr, "sandbox: %v\n", err)
		return 126
	}
	err := run(spec.Argv)
	fmt.Fprintf(os.Stderr, "exec: %v\n", err)
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127
	}
	return 126
}

func run(argv []string) error {
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return fmt.Errorf("dropping capabilities: %w", err)
	}
	if argv[0] == Web {
		return syscall.Exec("/proc/self/exe", append([]string{"web"}, argv[1:]...), os.Environ())
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}
