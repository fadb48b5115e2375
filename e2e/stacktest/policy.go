package stacktest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// InForce is how long a changed policy may take until running sessions are decided by it.
const InForce = 30 * time.Second

// firstRule is where the list of rules begins in a policy file, with its indentation.
var firstRule = regexp.MustCompile(`(?m)^rules:[^\n]*\n(?:[ \t]*#[^\n]*\n)*([ ]*)- `)

// AddRules adds rules, in YAML's flow style, to a policy file.
func AddRules(t testing.TB, policy string, rules ...string) string {
	t.Helper()
	at := firstRule.FindStringSubmatchIndex(policy)
	if at == nil {
		t.Fatal("the policy file has no list of rules")
	}
	indent := policy[at[2]:at[3]]
	var added strings.Builder
	for _, r := range rules {
		added.WriteString(indent + "- " + r + "\n")
	}
	return policy[:at[2]] + added.String() + policy[at[2]:]
}

// Policy is the stack's policy, to be changed under way. Tests that change it must not run beside others.
type Policy struct {
	// Text is the policy file as the stack has it without changes.
	Text string

	t     testing.TB
	stack *Stack
	agent *Agent
	mark  string // the rule that tells that the last change is in force
}

// Policy gives the policy to a test. With the end of the test it is as it was before.
func (s *Stack) Policy(t testing.TB) *Policy {
	t.Helper()
	b, err := os.ReadFile(s.Description.Policy.File)
	if err != nil {
		t.Fatal(err)
	}
	p := &Policy{Text: string(b), t: t, stack: s, agent: s.Agent(t, "observers")}
	t.Cleanup(func() {
		if p.Write(p.Text); p.mark != "" {
			t.Logf("the old policy was in force again after %v", p.await(s.Proxy.URL, by("default")))
		}
	})
	return p
}

// Write replaces the policy file whole, as an editor does, and waits for nothing.
func (p *Policy) Write(text string) {
	p.t.Helper()
	file := p.stack.Description.Policy.File
	f, err := os.CreateTemp(filepath.Dir(file), ".policy-*")
	if err != nil {
		p.t.Fatal(err)
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), file)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// Change changes the policy and waits until the gates decide by it: the stack's own, and those whose addresses are given.
// It returns how long the slowest took.
func (p *Policy) Change(change func(string) string, gates ...string) time.Duration {
	p.t.Helper()
	p.mark = "mark-" + Word()
	p.Write(AddRules(p.t, change(p.Text), fmt.Sprintf("{name: %s, effect: deny, verbs: [get], apiGroups: [mark.example.com], resources: [things]}", p.mark)))
	took := p.await(p.stack.Proxy.URL, by(p.mark))
	for _, gate := range gates {
		took += p.await(gate, by(p.mark))
	}
	return took
}

// Observe puts the whole policy into observe mode and waits until it is: until the cluster itself refuses what no rule
// allows.
func (p *Policy) Observe() time.Duration {
	p.t.Helper()
	p.mark = "observe"
	p.Write("mode: observe\n" + p.Text)
	return p.await(p.stack.Proxy.URL, func(a Answer) bool { return a.Rule() == "" && strings.Contains(a.Body, "cannot get resource") })
}

// by is true of a refusal by a rule.
func by(rule string) func(Answer) bool { return func(a Answer) bool { return a.Rule() == rule } }

// Add is Change by rules that come to those there are.
func (p *Policy) Add(rules ...string) time.Duration {
	p.t.Helper()
	return p.Change(func(text string) string { return AddRules(p.t, text, rules...) })
}

// await waits until a gate refuses what no rule allows in the way that is wanted.
func (p *Policy) await(gate string, wanted func(Answer) bool) time.Duration {
	p.t.Helper()
	began := time.Now()
	// A client of its own: when the old policy is put back, the test's context is over.
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.stack.TLS(p.t), DisableKeepAlives: true}, Timeout: 10 * time.Second}
	Eventually(p.t, InForce, func() string {
		r, err := http.NewRequest(http.MethodGet, gate+p.stack.Path("/apis/mark.example.com/v1/things/x"), nil)
		if err != nil {
			p.t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+p.agent.Token)
		res, err := client.Do(r)
		if err != nil {
			return err.Error()
		}
		defer res.Body.Close()
		a := Answer{Code: res.StatusCode, Header: res.Header, Body: readAll(res.Body)}
		if a.Code == http.StatusForbidden && wanted(a) {
			return ""
		}
		return fmt.Sprintf("the gate does not decide by the policy yet: %v", a)
	})
	return time.Since(began).Round(100 * time.Millisecond)
}

// Rule is the rule that decided, as the causes of the answer's Status name it.
func (a Answer) Rule() string { return a.Cause("Rule") }

// Cause is one of the causes of the answer's Status, a failure or not; empty when there is none of that kind.
func (a Answer) Cause(kind string) string {
	var s metav1.Status
	if json.Unmarshal([]byte(a.Body), &s) != nil || s.Kind != "Status" || s.Details == nil {
		return ""
	}
	for _, c := range s.Details.Causes {
		if c.Type == metav1.CauseType(kind) {
			return c.Message
		}
	}
	return ""
}
