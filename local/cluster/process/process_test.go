package process

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestCarries(t *testing.T) {
	environ := []byte("PATH=/bin\x00" + MarkEnv + "=/d/pods/1/web/exec-12\x00X=1\x00")
	for path, want := range map[string]bool{
		"/d/pods": true, "/d/pods/": true, "/d/pods/1/web/exec-12": true,
		"/d/pods/1/web/exec-1": false, "/d/pod": false, "/other": false,
	} {
		if got := carries(environ, path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestKillMarkedFindsWhatLeftItsSession(t *testing.T) {
	mark := t.TempDir()
	cmd := exec.Command("sh", "-c", "setsid sleep 300 & exit 3")
	cmd.Env = []string{"PATH=/usr/bin:/bin", MarkEnv + "=" + mark + "/c"}
	p, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if p.ExitCode() != 3 {
		t.Errorf("exit code %d", p.ExitCode())
	}
	end := time.Now().Add(5 * time.Second)
	for len(Marked(mark)) == 0 {
		if time.Now().After(end) {
			t.Fatal("the straggler was not found")
		}
	}
	KillMarked(mark, 5*time.Second)
	if left := Marked(mark); len(left) > 0 {
		t.Errorf("still there: %v", left)
	}
}

func TestStopKillsWhatIgnoresSIGTERM(t *testing.T) {
	cmd := exec.Command("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd.Stdout = w
	p, err := Start(cmd, syscall.SIGKILL)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	if _, err := r.Read(make([]byte, 5)); err != nil { // the trap is set
		t.Fatal(err)
	}
	p.Stop(200 * time.Millisecond)
	if p.ExitCode() != 128+int(syscall.SIGKILL) {
		t.Errorf("exit code %d", p.ExitCode())
	}
}
