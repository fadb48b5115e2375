package mask_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// Where a rule says binary: block, kubectl is told why nothing but text comes out, and text comes out as ever. It does not run
// beside other tests: it changes the policy.
func TestBinaryIsBlocked(t *testing.T) {
	s := stacktest.Get(t)
	developer, pod := s.Agent(t, "developers"), s.Pod(t, "dev")
	if err := os.WriteFile(filepath.Join(developer.Dir(), "file"), []byte("text\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	binary := []string{"exec", "-n", "dev", pod, "--", "sh", "-c", `echo before; printf 'a\000b\n'; echo after`}
	copies := []string{"cp", "-n", "dev", "file", pod + ":/tmp/blocked-copy"}
	for _, args := range [][]string{binary, copies} {
		if out := developer.Kubectl(t, args...); out.Code != 0 {
			t.Fatalf("before, kubectl %s: %v", strings.Join(args, " "), out)
		}
	}
	took := s.Policy(t).Add(`{name: text-only, effect: allow, groups: [developers], namespaces: [dev], verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods], binary: block}`)
	t.Logf("the new policy was in force after %v", took)

	if out := developer.Kubectl(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo text"); out.Code != 0 || out.Stdout != "text\n" {
		t.Errorf("text: %v", out)
	}
	if out := developer.Kubectl(t, binary...); out.Code == 0 || !strings.Contains(out.Stderr, "the output is not text") || strings.Contains(out.Stdout, "\x00") || strings.Contains(out.Stdout, "after") {
		t.Errorf("what is not text: %v", out)
	}
	for _, refused := range []struct {
		args []string
		says string
	}{
		{copies, "carries an archive"},
		{[]string{"cp", "-n", "dev", pod + ":/tmp/blocked-copy", "back"}, "carries an archive"},
		{[]string{"port-forward", "-n", "dev", "pod/" + pod, ":8080"}, "lets nothing out that is not looked at (binary: block)"},
	} {
		if out := developer.Kubectl(t, refused.args...); out.Code == 0 || !strings.Contains(out.Stderr, refused.says) {
			t.Errorf("kubectl %s: %v", strings.Join(refused.args, " "), out)
		}
	}
	if _, err := os.Stat(filepath.Join(developer.Dir(), "back")); err == nil {
		t.Error("a copy came back")
	}
}

// A policy that cannot be masked by is refused, and answers are masked by the last good one meanwhile.
func TestAPolicyThatCannotBeMaskedBy(t *testing.T) {
	s := stacktest.Get(t)
	developer := s.Agent(t, "developers")
	p := s.Policy(t)
	const masking = "masking: {detectors: [{name: acme, pattern: 'PATTERN'}], exempt: [{tiers: [develop], apiGroups: [\"\"], resources: [secrets], path: data.url}]}\n"
	with := func(text, pattern string) string {
		return strings.TrimSuffix(text, "\n") + "\n" + strings.Replace(masking, "PATTERN", pattern, 1)
	}
	p.Change(func(text string) string { return with(text, "acme-[0-9]{8}") })
	shown := func(when string) {
		t.Helper()
		out := developer.Kubectl(t, "get", "secret", "db", "-n", "dev", "-o", "json")
		var got struct{ Data map[string][]byte }
		if err := json.Unmarshal([]byte(out.Stdout), &got); err != nil {
			t.Fatalf("%s: %v: %v", when, err, out)
		}
		if url, password := string(got.Data["url"]), string(got.Data["password"]); !strings.HasPrefix(password, "[masked:") || url == "" || strings.HasPrefix(url, "[masked") {
			t.Errorf("%s: %q", when, got.Data)
		}
		if out := developer.Kubectl(t, "exec", "-n", "dev", s.Pod(t, "dev"), "--", "echo", "acme-12345678"); !strings.Contains(out.Stdout, "[masked]") {
			t.Errorf("%s: %v", when, out)
		}
	}
	shown("before")
	p.Write(with(p.Text, "[0-9a-f]{32}"))
	stacktest.Eventually(t, stacktest.InForce, func() string {
		logs, err := s.Logs()
		if err != nil {
			t.Fatal(err)
		}
		for name, text := range logs {
			if filepath.Base(name) == "proxy.log" && strings.Contains(text, "its pattern has no fixed text") {
				return ""
			}
		}
		return "the gate does not say that the policy was refused"
	})
	shown("after")
}
