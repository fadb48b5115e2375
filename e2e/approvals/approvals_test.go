// Package approvals_test asks people, on a running stack: kubectl waits, reviewers answer by page, Slack, mail and CLI, and
// everything that threats.md says of approvals is tried.
package approvals_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const within = 20 * time.Second

// configMap makes a ConfigMap that an agent may ask to delete.
func configMap(t *testing.T, s *stacktest.Stack, prefix string) (name, target string) {
	t.Helper()
	name = prefix + stacktest.Word()
	s.Create(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: blue}\n", name))
	return name, "/api/v1/namespaces/dev/configmaps/" + name
}

// there says whether the cluster still has a ConfigMap.
func there(t *testing.T, s *stacktest.Stack, name string) bool {
	t.Helper()
	return s.Admin(t, "get", "configmap", name, "-n", "dev", "--ignore-not-found", "-o", "name") != ""
}

// send sends a request to a gate, the stack's own when gate is empty.
func send(t *testing.T, agent *stacktest.Agent, gate, method, target, media, body string, header ...string) stacktest.Answer {
	t.Helper()
	s := agent.Stack()
	if gate == "" {
		gate = s.Proxy.URL
	}
	lines := append([]string{stacktest.Bearer(agent.Token)}, header...)
	if media != "" {
		lines = append(lines, "Content-Type: "+media)
	}
	return s.DoGate(t, gate, stacktest.Request{Method: method, Target: s.Path(target), Header: lines, Body: body})
}

// ahead asks before it acts, and returns the approval's id.
func ahead(t *testing.T, agent *stacktest.Agent, method, target, media, body string, header ...string) string {
	t.Helper()
	a := send(t, agent, "", method, target, media, body, append(header, "Sallyport-Ask: ahead")...)
	if id := cause(a, "Approval"); a.Code == http.StatusAccepted && id != "" {
		return id
	}
	t.Fatalf("asking ahead for %s %s: %v", method, target, a)
	return ""
}

// cause is a cause of the answer's Status.
func cause(a stacktest.Answer, kind string) string {
	var s metav1.Status
	if json.Unmarshal([]byte(a.Body), &s) != nil || s.Details == nil {
		return ""
	}
	for _, c := range s.Details.Causes {
		if string(c.Type) == kind {
			return c.Message
		}
	}
	return ""
}

// cli runs bin/sallyport as a person.
func cli(t *testing.T, r *stacktest.Reviewer, s *stacktest.Stack, args ...string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.Root, "bin", "sallyport"), args...)
	cmd.Env = append(os.Environ(), "SALLYPORT_TOKEN="+r.Token)
	cmd.Dir = s.Root
	out, _ := cmd.CombinedOutput()
	s.Show("sallyport "+strings.Join(args, " "), string(out))
	return string(out), cmd.ProcessState.ExitCode()
}

// Unmodified kubectl waits for a person, and the same process finishes.
func TestKubectlWaits(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, _ := configMap(t, s, "wait-")
	p := agent.Start(t, "delete", "configmap", name, "-n", "dev")
	a := ana.Await(t, agent)
	if a.Decision.Rule != "delete" || a.Decision.Tier != "maintain" || !strings.Contains(a.Kubectl, name) || !strings.Contains(a.Sentence, "delete") {
		t.Errorf("the approval is %+v", a)
	}
	select {
	case <-p.Done():
		t.Fatalf("kubectl did not wait: %s", p.Text())
	case <-time.After(3 * time.Second):
	}
	if !there(t, s, name) {
		t.Fatal("it was deleted before anybody said yes")
	}
	out, code := cli(t, ana, s, "approvals", "show", a.ID)
	if code != 0 || !strings.Contains(out, name) || !strings.Contains(out, agent.Subject) {
		t.Errorf("sallyport approvals show: %d\n%s", code, out)
	}
	if out, code = cli(t, ana, s, "approvals", "approve", a.ID); code != 0 {
		t.Fatalf("sallyport approvals approve: %d\n%s", code, out)
	}
	if code := p.Ended(within); code != 0 || !strings.Contains(p.Text(), "deleted") {
		t.Errorf("kubectl ended with %d: %s", code, p.Text())
	}
	if there(t, s, name) {
		t.Error("it is still there")
	}
	a = ana.Reached(t, a.ID, "spent")
	var audit string
	stacktest.Eventually(t, within, func() string {
		a, _ = ana.Show(t, a.ID)
		if len(a.Uses) == 1 && a.Uses[0].Code == http.StatusOK {
			audit = a.Uses[0].Request
			return ""
		}
		return fmt.Sprintf("the outcome is not told: %+v", a.Uses)
	})
	end, ok := agent.Recorded(t, audit).End(audit)
	if !ok || end.Annotations["sallyport.io/approval"] != a.ID || !strings.Contains(end.Annotations["sallyport.io/approved-by"], "ana@example.com") || end.Annotations["sallyport.io/tier"] != "maintain" {
		t.Errorf("the record says %v", end.Annotations)
	}
	if e := s.Reached(t, audit); !strings.Contains(e.User.Username, "assumed-role/maintain/") {
		t.Errorf("the cluster saw %s", e.User.Username)
	}
	minted := 0
	for _, r := range agent.Assumed(t) {
		if strings.HasSuffix(r.RoleARN, "/maintain") {
			minted++
			if r.Tags["sallyport:approval"] != a.ID {
				t.Errorf("the credential was minted for %v", r.Tags)
			}
		}
	}
	if minted != 1 {
		t.Errorf("%d credentials of tier maintain were minted, want 1", minted)
	}
}

// A no reaches the agent in the reviewer's words, and holds for the same ask.
func TestDenied(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ben := s.Agent(t, "agents"), s.Reviewer(t, "ben@example.com")
	name, _ := configMap(t, s, "deny-")
	p := agent.Start(t, "delete", "configmap", name, "-n", "dev")
	a := ben.Await(t, agent)
	if out, code := cli(t, ben, s, "approvals", "deny", a.ID, "--reason", "billing still reads it"); code != 0 {
		t.Fatalf("sallyport approvals deny: %d\n%s", code, out)
	}
	for range 2 {
		if code := p.Ended(within); code == 0 || !strings.Contains(p.Text(), "billing still reads it") || !strings.Contains(p.Text(), "Forbidden") || !strings.Contains(p.Text(), "ben@example.com") {
			t.Errorf("kubectl ended with %d: %s", code, p.Text())
		}
		p = agent.Start(t, "delete", "configmap", name, "-n", "dev")
	}
	p.Ended(within)
	if !there(t, s, name) {
		t.Error("it was deleted")
	}
	for _, other := range append(ben.List(t, "pending"), ben.List(t, "ended")...) {
		if other.Principal.Subject == agent.Subject && other.ID != a.ID {
			t.Errorf("the same ask opened another approval: %+v", other)
		}
	}
	if minted := elevated(t, agent); minted != 0 {
		t.Errorf("%d credentials of tier maintain were minted", minted)
	}
}

// elevated is how many credentials of the privileged tier were minted for an agent.
func elevated(t *testing.T, agent *stacktest.Agent) (n int) {
	t.Helper()
	for _, r := range agent.Assumed(t) {
		if strings.HasSuffix(r.RoleARN, "/maintain") {
			n++
		}
	}
	return n
}

// Reads never ask, nor does what a client asks about itself.
func TestReadsNeverAsk(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	for _, args := range [][]string{{"get", "events", "-A"}, {"get", "pods", "-A", "-o", "wide"}, {"describe", "deployment", "web", "-n", "dev"}, {"auth", "can-i", "delete", "pods", "-n", "dev"}, {"auth", "whoami"}, {"get", "configmap", "settings", "-n", "dev", "-o", "yaml"}, {"logs", "deployment/web", "-n", "dev", "--tail=1"}, {"api-resources"}} {
		out := agent.Kubectl(t, args...)
		if out.Code != 0 && args[0] != "auth" {
			t.Errorf("kubectl %s: %v", strings.Join(args, " "), out)
		}
	}
	for _, a := range append(ana.List(t, "pending"), ana.List(t, "ended")...) {
		if a.Principal.Subject == agent.Subject {
			t.Errorf("it asked: %+v", a)
		}
	}
}

// Whoever goes away leaves the question; the same command again goes on from there.
func TestTheQuestionOutlivesTheCommand(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, _ := configMap(t, s, "gone-")
	p := agent.Start(t, "delete", "configmap", name, "-n", "dev")
	a := ana.Await(t, agent)
	p.Stop()
	ana.Approve(t, a.ID)
	if again, _ := ana.Show(t, a.ID); again.State != "approved" {
		t.Fatalf("it is %s after a yes that nobody waits for", again.State)
	}
	second := s.StartProxy(t) // any task serves it
	cmd := agent.Command(t.Context(), "--server", second.Cluster, "delete", "configmap", name, "-n", "dev")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "deleted") {
		t.Errorf("the same command again, at another task: %v %s", err, out)
	}
	ana.Reached(t, a.ID, "spent")
}

// An exec waits before it is upgraded, and goes on as if nothing had been.
func TestExecWaits(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, chi := s.Agent(t, "agents"), s.Reviewer(t, "chi@example.com")
	pod := s.Pod(t, "dev")
	p := agent.Start(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo went in; exit 7")
	a := chi.Await(t, agent)
	_, view := chi.Show(t, a.ID)
	if len(view.Argv) != 3 || view.Argv[2] != "echo went in; exit 7" {
		t.Errorf("the reviewer sees argv %q", view.Argv)
	}
	chi.Approve(t, a.ID)
	if code := p.Ended(within); code != 7 || !strings.Contains(p.Text(), "went in") {
		t.Errorf("kubectl ended with %d: %s", code, p.Text())
	}
	// Denied, both ways of kubectl show the decision: WebSocket first, then the SPDY it falls back to.
	p = agent.Start(t, "exec", "-n", "dev", pod, "--", "rm", "-rf", "/")
	a = chi.Await(t, agent)
	chi.Deny(t, a.ID, "not on my watch")
	if code := p.Ended(within); code == 0 || !strings.Contains(p.Text(), "not on my watch") {
		t.Errorf("kubectl ended with %d: %s", code, p.Text())
	}
}

// A grant covers its scope for its time, and its end, by revocation, ends what is open within five seconds.
func TestGrant(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	pod := s.Pod(t, "dev")
	p := agent.Start(t, "exec", "-n", "dev", pod, "--", "true")
	a := ana.Await(t, agent)
	if r := ana.Do(t, "POST", "/api/approvals/"+a.ID+"/approve", map[string]any{"scope": "namespace", "length": "30m"}); r.Code == http.StatusOK {
		t.Errorf("the reviewer could give more than the rule allows: %v", r)
	}
	if r := ana.Do(t, "POST", "/api/approvals/"+a.ID+"/approve", map[string]any{"scope": "object", "length": "15m"}); r.Code != http.StatusOK {
		t.Fatalf("granting: %v", r)
	}
	if code := p.Ended(within); code != 0 {
		t.Fatalf("kubectl ended with %d: %s", code, p.Text())
	}
	if out := agent.Kubectl(t, "exec", "-n", "dev", pod, "--", "echo", "another argv"); out.Code != 0 || !strings.Contains(out.Stdout, "another argv") {
		t.Errorf("the grant does not cover another argv: %v", out)
	}
	stream := agent.Start(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo open; sleep 60")
	stream.Await("open", within)
	if out, code := cli(t, ana, s, "approvals", "revoke", a.ID, "--reason", "enough"); code != 0 {
		t.Fatalf("sallyport approvals revoke: %d\n%s", code, out)
	}
	began := time.Now()
	if code := stream.Ended(within); code == 0 {
		t.Errorf("the stream ended as if it were whole: %s", stream.Text())
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the stream ended %v after the revocation", took)
	}
	again := agent.Start(t, "exec", "-n", "dev", pod, "--", "true")
	b := ana.Await(t, agent)
	if b.ID == a.ID {
		t.Error("a revoked grant was asked about again")
	}
	ana.Deny(t, b.ID, "no")
	again.Ended(within)
}

// An agent asks before it acts, with a reason, and finds the answer waiting.
func TestAskAhead(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, _ := configMap(t, s, "ahead-")
	cmd := agent.Command(t.Context(), "delete", "configmap", name, "-n", "dev")
	ask := exec.CommandContext(t.Context(), filepath.Join(s.Root, "bin", "sallyport"), append([]string{"ask", "--reason", "the migration is over", "--"}, cmd.Args...)...)
	ask.Env, ask.Dir = cmd.Env, cmd.Dir
	out, err := ask.CombinedOutput()
	s.Show("sallyport ask", string(out))
	if err != nil {
		t.Fatalf("sallyport ask: %v\n%s", err, out)
	}
	a := ana.Await(t, agent)
	if a.Reason != "the migration is over" || !strings.Contains(string(out), a.ID) {
		t.Errorf("reason %q; sallyport ask printed\n%s", a.Reason, out)
	}
	if !there(t, s, name) {
		t.Fatal("asking did it")
	}
	ana.Approve(t, a.ID)
	if out := agent.Kubectl(t, "delete", "configmap", name, "-n", "dev"); out.Code != 0 {
		t.Errorf("kubectl after the yes: %v", out)
	}
	ana.Reached(t, a.ID, "spent")
}

// Whichever way kubectl goes, it shows what people answered.
func TestKubectlShowsTheAnswer(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod := s.Pod(t, "dev")
	borrowed := filepath.Join(t.TempDir(), "pod.yaml")
	if err := os.WriteFile(borrowed, []byte("apiVersion: v1\nkind: Pod\nmetadata: {name: borrows, namespace: dev}\nspec: {serviceAccountName: app, containers: [{name: c, image: x}]}\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		group string
		args  []string
		rule  string
	}{
		{"agents", []string{"delete", "pod", pod, "-n", "dev"}, "delete"},
		{"agents", []string{"delete", "pods", "-n", "prod", "-l", "app=web"}, "delete"},
		{"agents", []string{"exec", "-n", "dev", pod, "--", "sh"}, "exec"},
		{"agents", []string{"port-forward", "-n", "dev", pod, ":8080"}, "exec"},
		{"developers", []string{"create", "-f", borrowed}, "borrowed-identity"},
		{"developers", []string{"apply", "--server-side", "-f", borrowed}, "borrowed-identity"},
	} {
		t.Run(strings.Join(test.args[:2], " "), func(t *testing.T) {
			t.Parallel()
			agent, chi := s.Agent(t, test.group), s.Reviewer(t, "chi@example.com")
			p := agent.Start(t, test.args...)
			a := chi.Await(t, agent)
			if a.Decision.Rule != test.rule {
				t.Errorf("rule %s asks, want %s", a.Decision.Rule, test.rule)
			}
			chi.Deny(t, a.ID, "not on a Tuesday")
			if test.args[1] == "pods" { // two of them, one question after the other
				chi.Deny(t, chi.Await(t, agent, a.ID).ID, "not on a Tuesday")
			}
			if code := p.Ended(within); code == 0 || !strings.Contains(p.Text(), "chi@example.com said no: not on a Tuesday") {
				t.Errorf("kubectl ended with %d: %s", code, p.Text())
			}
		})
	}
}
