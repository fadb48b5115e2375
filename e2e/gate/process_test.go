package gate_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// A task that is replaced lets go of what it carries in its own time.
func TestDrain(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	p := s.StartProxy(t, "SALLYPORT_DRAIN=6s")
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	exec := func(script string) *stacktest.Process {
		return agent.Start(t, "--server", p.Cluster, "exec", "-n", "dev", pod, "--", "sh", "-c", script)
	}
	brief, long := exec("echo open; sleep 3; echo finished; exit 3"), exec("echo open; sleep 60; echo finished")
	brief.Await("open", within)
	long.Await("open", within)

	p.Terminate()
	stacktest.Eventually(t, 2*time.Second, func() string {
		if code, text := p.Ready(); code != http.StatusServiceUnavailable || !strings.Contains(text, "draining") {
			return fmt.Sprintf("readiness says %d %s, want 503", code, text)
		}
		return ""
	})
	if out := agent.Kubectl(t, "--server", p.Cluster, "get", "pods", "-n", "dev"); out.Code == 0 {
		t.Errorf("a new request was served by a task that drains: %v", out)
	}
	brief.Await("finished", within)
	if code := brief.Ended(within); code != 3 {
		t.Errorf("the exec that was under way ended with %d, want its own 3:\n%s", code, brief.Text())
	}
	if code := long.Ended(within); code == 0 || strings.Contains(long.Text(), "finished") {
		t.Errorf("the exec that went on for too long ended with %d:\n%s", code, long.Text())
	}
	if code := p.Ended(within); code != 0 {
		t.Errorf("the proxy ended with %d:\n%s", code, p.Log())
	}

	// The other task goes on with the same session, and everything is in the record, how the streams ended too.
	if a := agent.Get(t, "/version"); a.Code != http.StatusOK {
		t.Errorf("the other task: %v", a)
	}
	ends := map[string]string{}
	for _, e := range agent.Recorded(t).Events { // it has one session over both tasks
		if e.Verb == "exec" && e.Stage == "ResponseComplete" {
			ends[string(e.AuditID)] = e.Annotations["sallyport.io/error"]
		}
	}
	whole, cut := 0, 0
	for _, why := range ends {
		switch {
		case why == "":
			whole++
		case strings.Contains(why, "replaced"):
			cut++
		}
	}
	if whole != 1 || cut != 1 {
		t.Errorf("the record has these ends of two execs: %q", ends)
	}
}

// A proxy that was told nonsense does not start, and says what it was.
func TestProxySettings(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, test := range []struct {
		name   string
		change []string
		want   []string
	}{
		{"nothing set", []string{"SALLYPORT_LISTEN", "SALLYPORT_POLICY_BUCKET", "SALLYPORT_RECORDINGS_BUCKET"}, []string{"SALLYPORT_LISTEN", "SALLYPORT_POLICY_BUCKET", "SALLYPORT_RECORDINGS_BUCKET", "must be set"}},
		{"an empty setting", []string{"SALLYPORT_EXCHANGE_FUNCTION="}, []string{"SALLYPORT_EXCHANGE_FUNCTION"}},
		{"no duration", []string{"SALLYPORT_DRAIN=soon"}, []string{"SALLYPORT_DRAIN", "soon", "100s"}},
		{"no certificate", []string{"SALLYPORT_TLS_CERTIFICATE=/nowhere.crt"}, []string{"/nowhere.crt"}},
		{"a certificate without its key", []string{"SALLYPORT_TLS_KEY"}, []string{"SALLYPORT_TLS_KEY"}},
		{"an address that is none", []string{"SALLYPORT_LISTEN=nowhere"}, []string{"nowhere"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			free := []string{"SALLYPORT_METRICS_LISTEN=127.0.0.1:0", "SALLYPORT_LISTEN=127.0.0.1:0"}
			out := s.RunProxy(t, s.ProxyEnvironment(t, append(free, test.change...)...))
			if out.Code != 1 {
				t.Errorf("want exit code 1, got %v", out)
			}
			for _, w := range test.want {
				if !strings.Contains(out.Stderr, w) {
					t.Errorf("want %q on stderr, got %v", w, out)
				}
			}
			if m := stacktest.Credentials.FindString(out.Stderr + out.Stdout); m != "" {
				t.Errorf("it shows %q", m)
			}
		})
	}
}

// A proxy that cannot have the policy serves nobody: it is not ready, does not even listen, says why, and goes on trying.
func TestProxyWithoutPolicy(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for name, test := range map[string]struct {
		change string
		want   []string
	}{
		"no such bucket": {"SALLYPORT_POLICY_BUCKET=nowhere", []string{"policy", "nowhere"}},
		"no such broker": {"SALLYPORT_REVIEW_FUNCTION=nowhere", []string{"broker", "nowhere"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := s.LaunchProxy(t, test.change)
			stacktest.Eventually(t, within, func() string {
				for _, w := range test.want {
					if !strings.Contains(p.Log(), w) {
						return fmt.Sprintf("want %q in the log:\n%s", w, p.Log())
					}
				}
				return ""
			})
			if code, text := p.Ready(); code != http.StatusServiceUnavailable || !strings.Contains(text, "policy") {
				t.Errorf("readiness says %d %s, want 503", code, text)
			}
			if c, err := net.DialTimeout("tcp", strings.TrimPrefix(p.URL, "https://"), time.Second); err == nil {
				c.Close()
				t.Error("it listens")
			}
			p.Terminate()
			if code := p.Ended(within); code != 0 {
				t.Errorf("it ended with %d:\n%s", code, p.Log())
			}
		})
	}
}

// Tokens nobody has seen are limited by address; who is known goes on.
func TestFloodOfUnknownTokens(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	p := s.StartProxy(t)
	agent := s.Agent(t, "agents")
	c := s.DialGate(t, p.URL)
	ask := func(token string) stacktest.Answer {
		c.Send(stacktest.Request{Target: s.Path("/version"), Header: []string{stacktest.Bearer(token)}})
		a, err := c.Receive(http.MethodGet)
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := ask(agent.Token); a.Code != http.StatusOK {
		t.Fatal(a)
	}
	forge := s.Forge(t)
	codes := map[int]int{}
	for range 600 {
		token := forge.Unsigned(`{"alg":"ES256","kid":"`+stacktest.Word()+`","typ":"JWT"}`, forge.Claims(nil)) + "AAAA"
		a := ask(token)
		codes[a.Code]++
		if a.Code == http.StatusTooManyRequests {
			if status, err := a.Status(); err != nil || status.Reason != "TooManyRequests" || a.Header.Get("Retry-After") == "" {
				t.Fatalf("%v: %v", err, a)
			}
		}
	}
	if codes[http.StatusUnauthorized] < 200 || codes[http.StatusTooManyRequests] == 0 || len(codes) != 2 {
		t.Errorf("600 unknown tokens were answered %v, want 401 at first and then 429", codes)
	}
	if a := ask(agent.Token); a.Code != http.StatusOK {
		t.Errorf("who is known: %v", a)
	}
}

func TestMetrics(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	s.Agent(t, "agents").Get(t, "/version")
	res, err := http.Get(s.Proxy.Metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# TYPE sallyport_", "go_goroutines"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %q in the metrics", want)
		}
	}
	for _, line := range strings.Split(string(b), "\n") {
		if strings.Contains(line, "bot-") {
			t.Errorf("a metric names an agent: %s", line)
		}
	}
}
