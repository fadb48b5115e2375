// Package e2e drives the cluster binary as a stranger would: it brings a
// cluster up, uses it with kubectl and ends it. It imports nothing of the
// cluster, so that compiling it takes no time.
//
//	SALLYPORT_CLUSTER_BIN=$(./build.sh) go test ./e2e
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/creack/pty"
)

type cluster struct {
	t       *testing.T
	dir     string
	kubectl string
	up      *exec.Cmd
	pids    map[string]int
}

// binary is the binary under test, or the test is skipped.
func binary(t *testing.T) string {
	bin := os.Getenv("SALLYPORT_CLUSTER_BIN")
	if bin == "" {
		t.Skip("SALLYPORT_CLUSTER_BIN is not set; run: SALLYPORT_CLUSTER_BIN=$(./build.sh) go test ./e2e")
	}
	return bin
}

// start starts a cluster in dir and waits for its ready file.
func start(t *testing.T, bin, dir string) *cluster {
	t.Helper()
	ready := filepath.Join(dir, "ready.json")
	os.Remove(ready)
	c := &cluster{t: t, dir: dir, kubectl: filepath.Join(dir, "kubectl")}
	os.Symlink(bin, c.kubectl)
	c.up = exec.Command(bin, "up", "--dir", filepath.Join(dir, "state"), "--ready-file", ready)
	var out bytes.Buffer
	c.up.Stdout, c.up.Stderr = &out, &out
	c.up.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	began := time.Now()
	if err := c.up.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.up.Process.Kill()
		c.up.Wait()
	})
	eventually(t, 3*time.Minute, func() error {
		data, err := os.ReadFile(ready)
		if err != nil {
			return fmt.Errorf("%w; output:\n%s", err, out.String())
		}
		var info struct{ PIDs map[string]int }
		err = json.Unmarshal(data, &info)
		c.pids = info.PIDs
		return err
	})
	t.Logf("ready after %.1f s", time.Since(began).Seconds())
	return c
}

// command is kubectl with the admin's kubeconfig and a deadline.
func (c *cluster) command(args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, c.kubectl, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(c.dir, "state", "admin.kubeconfig"))
	return cmd
}

func (c *cluster) run(args ...string) string {
	c.t.Helper()
	cmd := c.command(args...)
	var errOut bytes.Buffer
	cmd.Stderr = &errOut
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, out, errOut.String())
	}
	return string(out)
}

func (c *cluster) apply(manifest string) {
	c.t.Helper()
	cmd := c.command("apply", "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("apply: %v\n%s", err, out)
	}
}

func (c *cluster) pods() []string {
	c.t.Helper()
	return strings.Fields(c.run("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].metadata.name}"))
}

func eventually(t *testing.T, limit time.Duration, check func() error) {
	t.Helper()
	for end := time.Now().Add(limit); ; time.Sleep(100 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// marked lists the processes that belong to the cluster's pods.
func (c *cluster) marked() []string {
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	var found []string
	for _, f := range files {
		env, err := os.ReadFile(f)
		if err == nil && bytes.Contains(env, []byte("SALLYPORT_CONTAINER="+filepath.Join(c.dir, "state"))) {
			found = append(found, f)
		}
	}
	return found
}

// gone waits until none of the cluster's processes is left.
func (c *cluster) gone() {
	c.t.Helper()
	eventually(c.t, 10*time.Second, func() error {
		for name, pid := range c.pids {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err == nil && !bytes.Contains(stat, []byte(") Z ")) {
				return fmt.Errorf("%s (%d) is still there", name, pid)
			}
		}
		if left := c.marked(); len(left) > 0 {
			return fmt.Errorf("processes of pods are still there: %v", left)
		}
		return nil
	})
}

func TestCluster(t *testing.T) {
	bin, dir := binary(t), t.TempDir()
	c := start(t, bin, dir)

	if out := c.run("version"); !strings.Contains(out, "Client Version: v1.35.4") || !strings.Contains(out, "Server Version: v1.35.4") {
		t.Errorf("version: %s", out)
	}
	c.run("create", "deployment", "web", "--image=localhost/web:1", "--replicas=2")
	c.run("wait", "--for=condition=Available", "deployment/web", "--timeout=50s")

	for name, test := range map[string]func(*testing.T, *cluster){
		"exec": testExec, "exec tty": testExecTTY, "disconnect": testDisconnect, "logs": testLogs, "cp": testCopy,
		"attach": testAttach, "port-forward": testPortForward, "spec": testSpec, "restart policy": testRestart, "roles": testRoles,
	} {
		t.Run(name, func(t *testing.T) {
			sub := *c
			sub.t = t
			test(t, &sub)
		})
	}

	t.Run("killed supervisor", func(t *testing.T) {
		c := *c
		c.t = t
		c.up.Process.Kill()
		c.gone()
	})
	t.Run("second life", func(t *testing.T) {
		c := start(t, bin, dir)
		eventually(t, 30*time.Second, func() error {
			_, err := c.command("exec", c.pods()[0], "--", "true").Output()
			return err
		})
		other := exec.Command(bin, "up", "--dir", filepath.Join(dir, "state"))
		if out, err := other.CombinedOutput(); err == nil || !bytes.Contains(out, []byte("another cluster runs")) {
			t.Errorf("a second cluster in one directory: %v\n%s", err, out)
		}
		if err := c.up.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := c.up.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
		c.gone()
	})
	t.Run("dead child", func(t *testing.T) {
		c := start(t, bin, dir)
		syscall.Kill(c.pids["kube-scheduler"], syscall.SIGKILL)
		if err := c.up.Wait(); err == nil {
			t.Error("up ended well without its scheduler")
		}
		if out := c.up.Stderr.(*bytes.Buffer).String(); !strings.Contains(out, "kube-scheduler ended unexpectedly") {
			t.Errorf("it did not say which: %s", out)
		}
		c.gone()
	})
}

func testExec(t *testing.T, c *cluster) {
	cmd := c.command("exec", "-i", c.pods()[0], "--", "sh", "-c", "cat; echo oops >&2; exit 7")
	cmd.Stdin = strings.NewReader("hello\n")
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("exit: %v, want 7", err)
	}
	if out.String() != "hello\n" || !strings.HasPrefix(errOut.String(), "oops\n") {
		t.Errorf("stdout %q, stderr %q", out.String(), errOut.String())
	}
	if err := c.command("exec", c.pods()[0], "--", "no-such-command").Run(); !errors.As(err, &exit) || exit.ExitCode() != 127 {
		t.Errorf("an unknown command: %v, want 127", err)
	}
	t.Setenv("SALLYPORT_TEST_LEAK", "1")
	if env := c.run("exec", c.pods()[0], "--", "env"); strings.Contains(env, "KUBECONFIG") || strings.Contains(env, "LEAK") {
		t.Errorf("the environment leaks: %s", env)
	}
}

func testExecTTY(t *testing.T, c *cluster) {
	cmd := c.command("exec", "-it", c.pods()[0], "--", "sh", "-c", "tty; stty size; read line; echo got $line; stty size; exit 5")
	term, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 99})
	if err != nil {
		t.Fatal(err)
	}
	defer term.Close()
	var seen strings.Builder
	until := func(want string) {
		t.Helper()
		for buf := make([]byte, 1024); !strings.Contains(seen.String(), want); {
			n, err := term.Read(buf)
			seen.Write(buf[:n])
			if err != nil {
				t.Fatalf("no %q in %q", want, seen.String())
			}
		}
	}
	until("33 99")
	if err := pty.Setsize(term, &pty.Winsize{Rows: 44, Cols: 88}); err != nil {
		t.Fatal(err)
	}
	time.Sleep(500 * time.Millisecond) // kubectl looks at its size four times a second
	io.WriteString(term, "typed\n")
	until("got typed")
	until("44 88")
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 5 {
		t.Errorf("exit: %v, want 5", err)
	}
}

// The API server notices a client that has gone when it has something to send
// to it, so the command talks; what it left behind is killed with it.
func testDisconnect(t *testing.T, c *cluster) {
	before := len(c.marked())
	cmd := c.command("exec", "-i", c.pods()[0], "--", "sh", "-c", "setsid sleep 300 & while echo up; do sleep 0.2; done")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	bufio.NewReader(out).ReadString('\n')
	if len(c.marked()) <= before {
		t.Error("the command does not show")
	}
	cmd.Process.Kill()
	cmd.Wait()
	eventually(t, 10*time.Second, func() error {
		if n := len(c.marked()); n > before {
			return fmt.Errorf("%d processes, %d before", n, before)
		}
		return nil
	})
}

func testLogs(t *testing.T, c *cluster) {
	pod := c.pods()[0]
	cmd := c.command("logs", "-f", pod, "--tail=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 3 {
		if !lines.Scan() {
			t.Fatal("the log ended")
		}
	}
	cmd.Process.Kill()
	cmd.Wait()
	if !strings.HasPrefix(lines.Text(), "line ") {
		t.Errorf("followed %q", lines.Text())
	}
	if got := c.run("logs", pod, "--limit-bytes=10"); got != "serving on" {
		t.Errorf("ten bytes: %q", got)
	}
	if got := c.run("logs", pod, "--tail=1", "--timestamps"); !regexp.MustCompile(`^\d{4}-\d\d-\d\dT[0-9:.]+Z line \d+\n$`).MatchString(got) {
		t.Errorf("with a timestamp: %q", got)
	}
	if n := strings.Count(c.run("logs", pod, "--since=2s"), "\n"); n > 3 {
		t.Errorf("%d lines in two seconds", n)
	}
	if out, err := c.command("logs", pod, "--previous").CombinedOutput(); err == nil || !bytes.Contains(out, []byte("not found")) {
		t.Errorf("previous: %v: %s", err, out)
	}
}

func testCopy(t *testing.T, c *cluster) {
	pod, want := c.pods()[0], make([]byte, 3_000_000)
	rand.Read(want)
	from, to := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "to")
	if err := os.WriteFile(from, want, 0o600); err != nil {
		t.Fatal(err)
	}
	inside := "/tmp/" + filepath.Base(filepath.Dir(filepath.Dir(from)))
	c.run("cp", from, pod+":"+inside)
	c.run("cp", pod+":"+inside, to)
	got, err := os.ReadFile(to)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("came back different (%v)", err)
	}
	log, err := os.ReadFile(filepath.Join(c.dir, "state", "hostnode.log"))
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(log, []byte("no private /tmp")) {
		t.Log("no namespaces here: /tmp is shared")
		os.Remove(inside)
		return
	}
	if fi, err := os.Stat(inside); err == nil && !fi.IsDir() {
		t.Errorf("%s was written on the host", inside)
	}
	if out, err := c.command("exec", c.pods()[1], "--", "ls", inside).CombinedOutput(); err == nil {
		t.Errorf("another pod sees the file: %s", out)
	}
	if out, err := c.command("exec", pod, "--", "cat", filepath.Join(c.dir, "state", "admin.kubeconfig")).Output(); err == nil {
		t.Errorf("a pod sees the cluster's keys: %d bytes", len(out))
	}
}

func testAttach(t *testing.T, c *cluster) {
	cmd := c.command("run", "talk", "--image=localhost/shell:1", "--restart=Never", "-i", "--rm", "--quiet",
		"--", "sh", "-c", "while read line; do echo got $line; done; echo bye")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	io.WriteString(in, "one\ntwo\n")
	in.Close()
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), "got two\nbye\n") {
		t.Errorf("attached to stdin: %v, %q", err, out.String())
	}

	watch := c.command("attach", c.pods()[0])
	pipe, err := watch.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := watch.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(pipe).ReadString('\n')
	watch.Process.Kill()
	watch.Wait()
	if !strings.HasPrefix(line, "line ") {
		t.Errorf("attached to output: %q", line)
	}
}

func testPortForward(t *testing.T, c *cluster) {
	for _, pod := range c.pods() {
		cmd := c.command("port-forward", "pod/"+pod, ":8080")
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line, _ := bufio.NewReader(out).ReadString('\n')
		addr := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
		for range 2 {
			resp, err := http.Get("http://" + addr + "/")
			if err != nil {
				t.Fatal(err)
			}
			body, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(body) != "hello from "+pod+"\n" {
				t.Errorf("%s answered %q", pod, body)
			}
		}
		cmd.Process.Kill()
		cmd.Wait()
	}
}

func testSpec(t *testing.T, c *cluster) {
	c.apply(`
apiVersion: v1
kind: Secret
metadata: {name: db}
stringData: {password: s3cret}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {color: blue}
---
apiVersion: v1
kind: Pod
metadata: {name: full}
spec:
  restartPolicy: Never
  initContainers:
  - name: init
    image: localhost/shell:1
    command: [sh, -c, "sleep 1; echo made > /data/made"]
    volumeMounts: [{name: data, mountPath: /data}]
  containers:
  - name: main
    image: localhost/shell:1
    command: [sh, -c, 'echo $(PASSWORD) $NAME $NAMESPACE $X_color; cat /data/made /etc/app/deep/color; echo; cat /secrets/password; echo; touch /secrets/new || echo read-only']
    env:
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: db, key: password}}}
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    envFrom: [{prefix: X_, configMapRef: {name: settings}}]
    volumeMounts:
    - {name: data, mountPath: /data}
    - {name: config, mountPath: /etc/app/deep}
    - {name: secret, mountPath: /secrets, readOnly: true}
  volumes:
  - {name: data, emptyDir: {}}
  - {name: config, configMap: {name: settings}}
  - {name: secret, secret: {secretName: db}}
`)
	c.run("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/full", "--timeout=30s")
	want := "s3cret full default blue\nmade\nblue\ns3cret\n"
	if got := c.run("logs", "full"); !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "read-only\n") {
		t.Errorf("got %q, want %q and read-only", got, want)
	}
	if _, err := os.Stat("/etc/app"); err == nil {
		t.Error("a mount point was made on the host")
	}
}

func testRestart(t *testing.T, c *cluster) {
	c.run("create", "deployment", "crash", "--image=localhost/shell:1", "--", "sh", "-c", "echo alive; sleep 1; exit 3")
	eventually(t, 30*time.Second, func() error {
		out := c.run("get", "pods", "-l", "app=crash", "-o", "jsonpath={.items[0].status.containerStatuses[0].restartCount} {.items[0].status.containerStatuses[0].lastState.terminated.exitCode}")
		if out != "2 3" {
			return fmt.Errorf("restarts and exit code: %q", out)
		}
		return nil
	})
	if got := c.run("logs", "--previous", "deployment/crash"); got != "alive\n" {
		t.Errorf("previous log: %q", got)
	}
	c.run("delete", "deployment", "crash")
}

func testRoles(t *testing.T, c *cluster) {
	c.run("create", "rolebinding", "viewer", "--clusterrole=view", "--user=vera")
	if got := c.run("auth", "can-i", "list", "pods", "--as=vera"); got != "yes\n" {
		t.Errorf("view does not view: %q", got)
	}
	if out, err := c.command("auth", "can-i", "get", "secrets", "--as=vera").Output(); err == nil {
		t.Errorf("view reads Secrets: %q", out)
	}
}
