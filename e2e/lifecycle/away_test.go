package lifecycle_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

const pods = "/api/v1/namespaces/dev/pods"

// unavailable asks as an agent that has no session yet and wants to be told to come back.
func unavailable(t *testing.T, s *stacktest.Stack, says string) {
	t.Helper()
	agent := s.Agent(t, "agents")
	a := agent.Get(t, pods, "User-Agent: "+agent.Subject)
	status, err := a.Status()
	if err != nil || a.Code != http.StatusServiceUnavailable || status.Reason != "ServiceUnavailable" || !strings.Contains(status.Message, says) || !strings.Contains(status.Message, "nothing was forwarded") {
		t.Fatalf("want a 503 that says %q, got %v (%v)", says, a, err)
	}
	if a.Header.Get("Retry-After") == "" || status.Details == nil || status.Details.RetryAfterSeconds == 0 {
		t.Errorf("it does not say when to ask again: %v", a)
	}
	for _, e := range s.Audit(t) {
		if e.UserAgent == agent.Subject || string(e.AuditID) == a.AuditID() {
			t.Errorf("it reached the cluster as %s", e.User.Username)
		}
	}
}

// recovered asks as an agent that has no session yet, until it is served.
func recovered(t *testing.T, s *stacktest.Stack) {
	t.Helper()
	agent := s.Agent(t, "agents")
	stacktest.Eventually(t, within, func() string {
		if a := agent.Get(t, pods); a.Code != http.StatusOK {
			return a.String()
		}
		return ""
	})
}

// brokerAway has the function fail whenever it is started, as it does when AWS cannot place it.
func brokerAway(t *testing.T, s *stacktest.Stack) {
	old := s.Agent(t, "developers")
	if a := old.Get(t, pods); a.Code != http.StatusOK {
		t.Fatal(a)
	}
	function := filepath.Join(s.Root, "dist", "local", "exchange", "bootstrap")
	if err := os.Rename(function, function+".away"); err != nil {
		t.Fatal(err)
	}
	back := func() {
		if err := os.Rename(function+".away", function); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	defer back()
	if err := os.WriteFile(function, []byte("#!/bin/sh\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	unavailable(t, s, "the broker does not answer")
	// Who has a session notices nothing.
	for range 5 {
		if a := old.Get(t, pods); a.Code != http.StatusOK {
			t.Errorf("a session that was open: %v", a)
		}
		time.Sleep(200 * time.Millisecond)
	}
	if out := old.Kubectl(t, "exec", "-n", "dev", s.Pod(t, "dev"), "--", "echo", "still here"); out.Code != 0 || out.Stdout != "still here\n" {
		t.Errorf("exec in a session that was open: %v", out)
	}
	back()
	recovered(t, s)
	if n := len(old.Assumed(t)); n != 1 {
		t.Errorf("the session that was open had %d exchanges, want the one it began with", n)
	}
}

// clusterAway has EKS name an address where nobody listens.
func clusterAway(t *testing.T, s *stacktest.Stack) {
	restart := func() { // so that the function asks EKS again
		function := filepath.Join(s.Root, "dist", "local", "exchange", "bootstrap")
		now := time.Now()
		if err := os.Chtimes(function, now, now); err != nil {
			t.Fatal(err)
		}
	}
	ca := authority(t, s)
	describe(t, s, "https://127.0.0.1:1", ca)
	restart()
	defer func() {
		describe(t, s, s.Cluster.Server, ca)
		restart()
		recovered(t, s)
	}()
	unavailable(t, s, `cluster "dev" cannot be reached`)
	agent := s.Agent(t, "agents")
	a := agent.Post(t, stacktest.ReviewPath, stacktest.Review)
	if a.Code != http.StatusServiceUnavailable || a.Header.Get("Retry-After") == "" {
		t.Errorf("a POST that never left: %v", a)
	}
}

func authority(t *testing.T, s *stacktest.Stack) string {
	t.Helper()
	out := s.Admin(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority-data}")
	if out != "" {
		var b []byte
		if err := json.Unmarshal([]byte(`"`+out+`"`), &b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	b, err := os.ReadFile(s.Admin(t, "config", "view", "--raw", "-o", "jsonpath={.clusters[0].cluster.certificate-authority}"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func describe(t *testing.T, s *stacktest.Stack, endpoint, ca string) {
	t.Helper()
	body, err := json.Marshal(map[string]string{"endpoint": endpoint, "ca": ca})
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequest(http.MethodPut, s.AWS.Endpoint+"/_local/eks/clusters/"+s.Cluster.Name, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
}

// awsAway stops the process that answers for AWS: connections are taken and nothing is said.
func awsAway(t *testing.T, s *stacktest.Stack) {
	pid := s.PIDs["aws"]
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	running := false
	resume := func() {
		if !running {
			running = true
			_ = syscall.Kill(pid, syscall.SIGCONT)
		}
	}
	defer resume()
	began := time.Now()
	unavailable(t, s, "the broker does not answer")
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v to say so", took)
	}
	resume()
	recovered(t, s)
}

// rotate has the issuer sign with new keys: nobody notices.
func rotate(t *testing.T, s *stacktest.Stack) {
	before := s.Agent(t, "agents")
	if a := before.Get(t, "/version"); a.Code != http.StatusOK {
		t.Fatal(a)
	}
	unseen := s.Agent(t, "agents") // signed with the old key, and not sent before the rotation
	if out, err := stacktest.Local(s.Root, "rotate"); err != nil {
		t.Fatalf("rotate: %v: %s", err, out)
	}
	began := time.Now()
	after := s.Agent(t, "agents")
	stacktest.Eventually(t, 15*time.Second, func() string {
		if a := after.Get(t, "/version"); a.Code != http.StatusOK {
			return fmt.Sprintf("a token of the new key: %v", a)
		}
		return ""
	})
	t.Logf("a token of the new key was good after %.1f s", time.Since(began).Seconds())
	for name, a := range map[string]*stacktest.Agent{"one that was seen": before, "one that was not": unseen} {
		if got := a.Get(t, "/version"); got.Code != http.StatusOK {
			t.Errorf("a token of the old key, %s: %v", name, got)
		}
	}
}

// dropKeys has the issuer forget its old keys, and returns the test that they are forgotten here too.
func dropKeys(t *testing.T, s *stacktest.Stack) func(*testing.T) {
	old := s.Agent(t, "agents")
	if a := old.Get(t, "/version"); a.Code != http.StatusOK {
		t.Fatal(a)
	}
	if out, err := stacktest.Local(s.Root, "rotate", "--drop"); err != nil {
		t.Fatalf("rotate --drop: %v: %s", err, out)
	}
	began := time.Now()
	return func(t *testing.T) {
		t.Parallel()
		stacktest.Eventually(t, 75*time.Second, func() string {
			time.Sleep(400 * time.Millisecond)
			a := old.Get(t, "/version")
			if a.Code != http.StatusUnauthorized {
				return fmt.Sprintf("a token whose key was dropped is answered %d", a.Code)
			}
			return ""
		})
		t.Logf("a token whose key was dropped was refused after %.1f s", time.Since(began).Seconds())
		if a := s.Agent(t, "agents").Get(t, "/version"); a.Code != http.StatusOK {
			t.Errorf("a token of the key there is: %v", a)
		}
	}
}
