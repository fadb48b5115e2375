package hostnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/creack/pty"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"

	"sallyport/local/cluster/process"
	"sallyport/local/cluster/sandbox"
)

// sleeper is what an image without a command runs.
var sleeper = []string{"/bin/sh", "-c", "while :; do sleep 3600; done"}

// Restarts wait this long at first, twice as long every time, and this long at
// most. A run that lasted longer than the longest wait starts over.
const firstBackoff, longestBackoff = time.Second, 5 * time.Minute

// A container is one container of a pod, through all its restarts.
//
// Its directory holds home (its work directory), tmp (its /tmp), root (mount
// point of its view of the host) and log.<n>, where n counts restarts.
type container struct {
	pod  *pod
	name string
	dir  string

	mu       sync.Mutex
	env      []string // of the current run; exec uses it too
	current  *run     // the last one started, running or not
	restarts int32
	state    corev1.ContainerState
	last     corev1.ContainerState
	sessions int // of exec, ever
}

// A run is one life of a container's process.
type run struct {
	proc  *process.Process
	log   string
	out   fanout
	stdin io.WriteCloser // nil unless the container asks for it
	tty   *os.File       // nil unless the container asks for it
	done  chan struct{}  // closed when it is over and its log complete
}

func newContainer(p *pod, name string) (*container, error) {
	c := &container{pod: p, name: name, dir: filepath.Join(p.dir, name)}
	c.state.Waiting = &corev1.ContainerStateWaiting{Reason: "PodInitializing"}
	for _, sub := range []string{"home", "tmp", "root"} {
		if err := os.MkdirAll(filepath.Join(c.dir, sub), 0o700); err != nil {
			return nil, err
		}
	}
	return c, os.Chmod(filepath.Join(c.dir, "tmp"), 0o777|os.ModeSticky)
}

// live runs the container until it is over for good: by policy, or because ctx
// ended. It returns the last exit code.
func (c *container) live(ctx context.Context, policy corev1.RestartPolicy) int {
	backoff := firstBackoff
	for {
		began := time.Now()
		code, err := c.once(ctx)
		switch {
		case ctx.Err() != nil:
			return code
		case err != nil:
			c.pod.event(corev1.EventTypeWarning, "Failed", "container %s: %v", c.name, err)
		case policy == corev1.RestartPolicyNever, policy == corev1.RestartPolicyOnFailure && code == 0:
			return code
		}
		if time.Since(began) > longestBackoff {
			backoff = firstBackoff
		}
		c.wait(err, backoff)
		select {
		case <-ctx.Done():
			return code
		case <-time.After(backoff):
		}
		backoff = min(2*backoff, longestBackoff)
	}
}

// wait notes why the container is not running.
func (c *container) wait(err error, backoff time.Duration) {
	reason, message := "CrashLoopBackOff", fmt.Sprintf("back-off %s restarting container %s", backoff, c.name)
	if err != nil {
		reason, message = "CreateContainerError", err.Error()
	}
	c.mu.Lock()
	if c.state.Terminated != nil {
		c.last = c.state
		c.restarts++
	}
	c.state = corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
	c.mu.Unlock()
	c.pod.changed()
}

// once starts the process and waits for its end.
func (c *container) once(ctx context.Context) (int, error) {
	r, err := c.start(ctx)
	if err != nil {
		return 128, err
	}
	c.pod.changed()
	<-r.done
	code := r.proc.ExitCode()
	c.mu.Lock()
	ended := &corev1.ContainerStateTerminated{
		ExitCode: int32(code), Reason: "Completed", ContainerID: c.id(),
		StartedAt: c.state.Running.StartedAt, FinishedAt: metav1.Now(),
	}
	if code != 0 {
		ended.Reason = "Error"
	}
	c.state = corev1.ContainerState{Terminated: ended}
	c.mu.Unlock()
	c.pod.changed()
	return code, nil
}

// start starts the process unless the pod is ending.
func (c *container) start(ctx context.Context) (*run, error) {
	spec := c.spec()
	if spec == nil {
		return nil, errors.New("not in the pod's spec")
	}
	pod := c.pod.snapshot()
	env, err := environment(ctx, apiSource{c.pod.node.client, pod.Namespace}, pod, spec, c.baseEnv(pod, spec))
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c.env = nil
	for k, v := range env {
		c.env = append(c.env, k+"="+v)
	}
	cmd := c.command(spec, argv(spec, env), "")
	r := &run{log: filepath.Join(c.dir, fmt.Sprintf("log.%d", c.restarts)), done: make(chan struct{})}
	if err := r.start(cmd, spec.Stdin, spec.TTY); err != nil {
		return nil, err
	}
	os.Remove(filepath.Join(c.dir, fmt.Sprintf("log.%d", c.restarts-2)))
	c.current = r
	c.state = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Now()}}
	go func() {
		<-r.proc.Done()
		// A container ends with its first process, whatever else it started.
		process.KillMarked(c.dir, 5*time.Second)
	}()
	return r, nil
}

// argv is the command line of a container; $(NAME) stands for its environment.
func argv(spec *corev1.Container, env map[string]string) []string {
	words := append(append([]string{}, spec.Command...), spec.Args...)
	for i := range words {
		words[i] = expansion.Expand(words[i], expansion.MappingFuncFor(env))
	}
	switch {
	case len(spec.Command) > 0:
		return words
	case isWeb(spec.Image):
		return append([]string{sandbox.Web}, words...)
	case len(words) > 0:
		return words
	}
	return sleeper
}

func isWeb(image string) bool {
	image, _, _ = strings.Cut(image, "@")
	return image == "localhost/web" || strings.HasPrefix(image, "localhost/web:")
}

// baseEnv is what every container gets. Of the node's own environment only
// PATH is passed on.
func (c *container) baseEnv(pod *corev1.Pod, spec *corev1.Container) map[string]string {
	env := map[string]string{
		"PATH":                    os.Getenv("PATH"),
		"HOME":                    sandbox.Home,
		"TMPDIR":                  "/tmp",
		"HOSTNAME":                pod.Name,
		"POD_IP":                  pod.Status.PodIP,
		"KUBERNETES_SERVICE_HOST": c.pod.node.api.Hostname(),
		"KUBERNETES_SERVICE_PORT": c.pod.node.api.Port(),
	}
	if c.pod.node.mode == sandbox.None {
		env["HOME"], env["TMPDIR"] = filepath.Join(c.dir, "home"), filepath.Join(c.dir, "tmp")
	}
	if spec.TTY {
		env["TERM"] = "xterm"
	}
	return env
}

// command makes a command of the container. session is empty for its main
// process and tells sessions of exec apart. c.mu is held.
func (c *container) command(spec *corev1.Container, argv []string, session string) *exec.Cmd {
	home := filepath.Join(c.dir, "home")
	var cmd *exec.Cmd
	if mode := c.pod.node.mode; mode == sandbox.None {
		if argv[0] == sandbox.Web {
			cmd = exec.Command("/proc/self/exe")
			cmd.Args = append([]string{"web"}, argv[1:]...)
		} else {
			cmd = exec.Command(argv[0], argv[1:]...)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		cmd.Dir = home
		if fi, err := os.Stat(spec.WorkingDir); err == nil && fi.IsDir() {
			cmd.Dir = spec.WorkingDir
		}
	} else {
		view := sandbox.Spec{
			Root: filepath.Join(c.dir, "root"),
			Binds: []sandbox.Bind{
				{Source: filepath.Join(c.dir, "tmp"), Target: "/tmp"},
				{Source: home, Target: sandbox.Home},
			},
			Hide: []string{c.pod.node.dir},
			Dir:  sandbox.Home,
			Argv: argv,
		}
		for _, m := range spec.VolumeMounts {
			view.Binds = append(view.Binds, sandbox.Bind{
				Source: filepath.Join(c.pod.volumes[m.Name], m.SubPath), Target: m.MountPath, ReadOnly: m.ReadOnly,
			})
		}
		if spec.WorkingDir != "" {
			view.Dir = spec.WorkingDir
		}
		cmd = mode.Command(view)
	}
	cmd.Env = append(append([]string{}, c.env...), process.MarkEnv+"="+filepath.Join(c.dir, session))
	cmd.SysProcAttr.Setsid = true
	return cmd
}

// start connects the streams and starts the process.
func (r *run) start(cmd *exec.Cmd, stdin, tty bool) error {
	file, err := os.Create(r.log)
	if err != nil {
		return err
	}
	log := &logFile{out: file, now: time.Now}
	var ours, theirs []*os.File // ends of pipes
	fail := func(err error) error {
		for _, f := range append(append(ours, theirs...), file) {
			f.Close()
		}
		return err
	}
	var readers []io.Reader
	streams := []string{"stdout", "stderr"}
	if tty {
		ptmx, slave, err := pty.Open()
		if err != nil {
			return fail(err)
		}
		ours, theirs = append(ours, ptmx), append(theirs, slave)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
		cmd.SysProcAttr.Setctty = true
		r.tty, readers, streams = ptmx, []io.Reader{ptmx}, streams[:1]
		if stdin {
			r.stdin = keepOpen{ptmx}
		}
	} else {
		for _, to := range []*io.Writer{&cmd.Stdout, &cmd.Stderr} {
			pr, pw, err := os.Pipe()
			if err != nil {
				return fail(err)
			}
			ours, theirs = append(ours, pr), append(theirs, pw)
			readers, *to = append(readers, pr), pw
		}
		if stdin {
			pr, pw, err := os.Pipe()
			if err != nil {
				return fail(err)
			}
			ours, theirs = append(ours, pw), append(theirs, pr)
			cmd.Stdin, r.stdin = pr, pw
		}
	}
	if r.proc, err = process.Start(cmd, syscall.SIGKILL); err != nil {
		return fail(err)
	}
	for _, f := range theirs {
		f.Close()
	}
	go func() {
		var wg sync.WaitGroup
		for i, reader := range readers {
			wg.Go(func() {
				stream := log.stream(streams[i])
				io.Copy(io.MultiWriter(stream, r.out.writer(streams[i])), reader) //nolint:errcheck // a pty ends with EIO
				stream.Close()
			})
		}
		wg.Wait()
		<-r.proc.Done()
		r.out.close()
		for _, f := range append(ours, file) {
			f.Close()
		}
		close(r.done)
	}()
	return nil
}

// keepOpen is the input of a terminal, which outlives a client that detaches.
type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }

// spec is the container's spec as of now.
func (c *container) spec() *corev1.Container {
	pod := c.pod.spec()
	for _, list := range [][]corev1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range list {
			if list[i].Name == c.name {
				return &list[i]
			}
		}
	}
	return nil
}

// id names the present run. c.mu is held.
func (c *container) id() string {
	return fmt.Sprintf("hostnode://%s/%s/%d", c.pod.uid, c.name, c.restarts)
}

// running returns the present run while its process lives.
func (c *container) running() *run {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.current == nil || c.state.Running == nil {
		return nil
	}
	return c.current
}

// status is what the API shows.
func (c *container) status() corev1.ContainerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := c.state.Running != nil
	s := corev1.ContainerStatus{
		Name: c.name, State: *c.state.DeepCopy(), LastTerminationState: *c.last.DeepCopy(),
		Ready: up, Started: &up, RestartCount: c.restarts,
	}
	if spec := c.spec(); spec != nil {
		s.Image, s.ImageID = spec.Image, spec.Image
	}
	if c.current != nil {
		s.ContainerID = c.id()
	}
	return s
}
