package stacktest

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Create makes what a manifest says as the cluster's administrator, past the gate, and deletes it with the end of the test.
func (s *Stack) Create(t testing.TB, manifest string) {
	t.Helper()
	run := func(args ...string) Output {
		cmd := exec.Command(filepath.Join(s.Root, "bin", "kubectl"), append([]string{"--kubeconfig", s.Cluster.AdminKubeconfig}, args...)...)
		cmd.Stdin = strings.NewReader(manifest)
		return finish(t, cmd)
	}
	if out := run("create", "-f", "-"); out.Code != 0 {
		t.Fatalf("creating %s: %v", clip(manifest), out)
	}
	t.Cleanup(func() {
		if out := run("delete", "--ignore-not-found", "--wait=false", "-f", "-"); out.Code != 0 {
			t.Errorf("deleting %s: %v", clip(manifest), out)
		}
	})
}
