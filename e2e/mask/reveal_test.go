package mask_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// Reveal: one key, once, when a person said so.
func TestReveal(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer, ana := s.Agent(t, "developers"), s.Reviewer(t, "ana@example.com")
	p := developer.Start(t, "get", "--raw", "/api/v1/namespaces/dev/secrets/db?reveal=password")
	a := ana.Await(t, developer)
	if a.Decision.Rule != "reveal" || !strings.Contains(a.Kubectl+a.Sentence, "password") {
		t.Errorf("people are asked: %q, %q, by %s", a.Kubectl, a.Sentence, a.Decision.Rule)
	}
	ana.Approve(t, a.ID)
	code := p.Ended(within)
	var got struct{ Data map[string][]byte }
	if err := json.Unmarshal([]byte(p.Text()), &got); err != nil || code != 0 || string(got.Data["password"]) != "correct-horse-dev" || !strings.HasPrefix(string(got.Data["url"]), "[masked:") {
		t.Errorf("exit %d, %v: %s", code, err, p.Text())
	}
	if out := developer.Kubectl(t, "get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data.password}"); out.Code != 0 || strings.Contains(out.Stdout, base64.StdEncoding.EncodeToString([]byte("correct"))[:8]) {
		t.Errorf("after that: %v", out)
	}
	ana.Reached(t, a.ID, "spent")
}
