package gate_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/e2e/stacktest"
)

// A probe is a hostile or a malformed request and what it is to get. MARK in its target and lines stands for a word that
// no other request has, POD for a pod's name.
type probe struct {
	name string
	stacktest.Request
	// token is the agent's unless it is set; "none" sends none.
	token  string
	code   int
	reason metav1.StatusReason // of the Status; empty when there can be none, as net/http itself refused
	says   string              // what the sentence has
}

// refused sends probes and then looks into the cluster's own audit log: none of them may have arrived there, neither
// under its audit id nor under the word it carried.
func refused(t *testing.T, agent *stacktest.Agent, probes []probe) {
	t.Helper()
	s := agent.Stack()
	marks := map[string]string{} // of a probe, by what names it in the audit log
	for _, p := range probes {
		t.Run(p.name, func(t *testing.T) {
			mark := "mark" + stacktest.Word()
			fill := strings.NewReplacer("MARK", mark, "POD", s.Pod(t, "dev")).Replace
			r := p.Request
			r.Target = fill(r.Target)
			r.Header = append([]string{"User-Agent: " + mark}, p.Header...)
			for i := range r.Header {
				r.Header[i] = fill(r.Header[i])
			}
			switch p.token {
			case "none":
			case "":
				r.Header = append(r.Header, stacktest.Bearer(agent.Token))
			default:
				r.Header = append(r.Header, stacktest.Bearer(p.token))
			}
			marks[mark] = p.name
			a := s.Do(t, r)
			if id := a.AuditID(); id != "" {
				marks[id] = p.name
			} else if p.reason != "" {
				t.Error("the answer names no audit id")
			}
			if a.Code != p.code {
				t.Errorf("want %d, got %v", p.code, a)
			}
			if p.reason == "" {
				return
			}
			status, err := a.Status()
			if err != nil {
				t.Fatalf("%v: %v", err, a)
			}
			if status.Reason != p.reason || !strings.Contains(status.Message, p.says) || len(status.Message) < 20 {
				t.Errorf("want %s and a sentence with %q, got %s: %s", p.reason, p.says, status.Reason, status.Message)
			}
			if a.Code < 500 && a.Code != http.StatusTooManyRequests && a.Header.Get("Retry-After") != "" {
				t.Errorf("asking again cannot help, and Retry-After says %s", a.Header.Get("Retry-After"))
			}
			if a.Code == http.StatusUnauthorized && a.Header.Get("Www-Authenticate") == "" {
				t.Error("a 401 names no way to authenticate (RFC 9110 §15.5.2)")
			}
		})
	}
	// The audit log is written in order enough: what came before this request is there when this request is.
	mark := "mark" + stacktest.Word()
	s.Reached(t, agent.Get(t, "/version", "User-Agent: "+mark).AuditID())
	time.Sleep(200 * time.Millisecond)
	control, arrived := false, map[string]bool{}
	for _, e := range s.Audit(t) {
		control = control || e.UserAgent == mark
		if e.UserAgent == "sallyport" && (strings.HasSuffix(string(e.AuditID), "-may") || strings.HasSuffix(string(e.AuditID), "-live") && e.Verb == "get") {
			continue // the gate's own questions: what the tier may do, whose answer SPDY is refused with, and what a patch is for
		}
		all := fmt.Sprintln(e.AuditID, e.UserAgent, e.RequestURI, e.User, e.ImpersonatedUser)
		for mark, name := range marks {
			if strings.Contains(all, mark) && !arrived[name] {
				arrived[name] = true
				t.Errorf("%q reached the cluster, as %s %s by %s", name, e.Verb, e.RequestURI, e.User.Username)
			}
		}
	}
	if !control {
		t.Error("a request that was allowed is not in the audit log under its word: nothing would have been found")
	}
}

func get(target string, header ...string) stacktest.Request {
	return stacktest.Request{Target: "/clusters/dev" + target, Header: header}
}

func send(method, target, body string, header ...string) stacktest.Request {
	if body != "" && len(header) == 0 {
		header = []string{"Content-Type: application/json"}
	}
	return stacktest.Request{Method: method, Target: "/clusters/dev" + target, Header: header, Body: body}
}
