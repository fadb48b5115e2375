// Package decision_test asks a running stack for decisions, over raw HTTP, with kubectl and with client-go, and holds the
// answer against three witnesses: the rule that the answer names, the gate's record, and what the cluster's own audit log
// saw.
package decision_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m, stacktest.Refusing) }

const within = 20 * time.Second

// Media types of bodies.
const (
	asJSON     = "application/json"
	asYAML     = "application/yaml"
	asProtobuf = "application/vnd.kubernetes.protobuf"
	merge      = "application/merge-patch+json"
	jsonPatch  = "application/json-patch+json"
	strategic  = "application/strategic-merge-patch+json"
	apply      = "application/apply-patch+yaml"
)

// webSocket are the lines that ask for an upgrade.
var webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: v5.channel.k8s.io"}

// either is deny or ask: a partial body may hold what is denied, and whether it does cannot always be told.
const either = "deny or ask"

// An ask is a request and what is to be decided about it.
type ask struct {
	name, method, target string
	media, body          string
	header               []string

	decision string   // allow, ask, deny, or either; empty when it is refused before there is one
	rules    []string // any of which decides; empty when the decision is empty, or any may
	code     int      // of the answer; zero for 403, when it is not allowed, and for any success, when it is
	says     string   // part of the sentence
}

func (a ask) String() string {
	body := a.body
	if strings.ContainsRune(body, 0) {
		body = fmt.Sprintf("%d bytes", len(body))
	}
	return fmt.Sprintf("%s: %s %s %s %.600s", a.name, a.method, a.target, a.media, body)
}

func allow(rule, name, method, target string) ask {
	return ask{name: name, method: method, target: target, decision: "allow", rules: []string{rule}}
}

func refuse(decision, rule, name, method, target string) ask {
	return ask{name: name, method: method, target: target, decision: decision, rules: []string{rule}}
}

func (a ask) with(media, body string) ask {
	a.media, a.body = media, body
	return a
}

func (a ask) answered(code int) ask {
	a.code = code
	return a
}

func (a ask) saying(says string) ask {
	a.says = says
	return a
}

// decide sends the requests and looks at what the agent is told, what the gate recorded, and what reached the cluster.
func decide(t *testing.T, agent *stacktest.Agent, asks ...ask) {
	t.Helper()
	s := agent.Stack()
	ids := make([]string, len(asks))
	next := make(chan int)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := range next {
				ids[i] = asks[i].send(t, agent)
			}
		})
	}
	for i := range asks {
		next <- i
	}
	close(next)
	wg.Wait()
	if t.Failed() {
		return
	}

	var early, decided []string
	for i, a := range asks {
		if a.decision == "" {
			early = append(early, ids[i])
		} else {
			decided = append(decided, ids[i])
		}
	}
	record := agent.Recorded(t, decided...)
	s.Reached(t, agent.Get(t, "/version").AuditID()) // what came before is in the audit log by now
	reached := map[string]auditv1.Event{}
	for _, e := range s.Audit(t) {
		reached[string(e.AuditID)] = e
	}
	for i, a := range asks {
		cluster, arrived := reached[ids[i]]
		if arrived != (a.decision == "allow") {
			t.Errorf("%v: reached the cluster: %v", a, arrived)
			continue
		}
		if a.decision == "" {
			continue
		}
		gate, _ := record.End(ids[i])
		if got := gate.Annotations["sallyport.io/decision"]; got == "" || !strings.Contains(a.decision, got) {
			t.Errorf("%v: recorded as %q, want %q", a, got, a.decision)
		}
		if got := gate.Annotations["sallyport.io/rule"]; !a.by(got) {
			t.Errorf("%v: recorded under rule %q, want one of %q", a, got, a.rules)
		}
		if !arrived {
			continue
		}
		if g, c := gate.ObjectRef, cluster.ObjectRef; g != nil && c != nil && (g.APIGroup != c.APIGroup || g.Resource != c.Resource || g.Subresource != c.Subresource || g.Namespace != c.Namespace || g.Name != "" && g.Name != c.Name) {
			t.Errorf("%v: the gate decided about %+v, and the cluster served %+v", a, *g, *c)
		}
	}
	if len(early) > 0 {
		t.Logf("%d of %d were refused before a decision", len(early), len(asks))
	}
}

func (a ask) by(rule string) bool {
	if len(a.rules) == 0 {
		return true
	}
	for _, r := range a.rules {
		if r == rule {
			return true
		}
	}
	return false
}

// send sends one request, holds its answer against what it should be, and returns its audit id.
func (a ask) send(t *testing.T, agent *stacktest.Agent) string {
	s := agent.Stack()
	r := stacktest.Request{Method: a.method, Target: s.Path(a.target), Body: a.body, Header: append([]string{stacktest.Bearer(agent.Token)}, a.header...)}
	if a.media != "" {
		r.Header = append(r.Header, "Content-Type: "+a.media)
	}
	if a.decision == "ask" || a.decision == either {
		r.Header = append(r.Header, "Sallyport-Ask: look") // what is decided, without asking anybody
	}
	got := s.Do(t, r)
	want := a.code
	if a.decision == "allow" {
		if want == 0 && (got.Code < 100 || got.Code >= 300) || want != 0 && got.Code != want {
			t.Errorf("%v: want it served, got %v", a, got)
		}
		return got.AuditID()
	}
	if got.Code == http.StatusAccepted && (a.decision == "ask" || a.decision == either) {
		if !a.by(got.Rule()) || got.Cause("Decision") != "ask" || !strings.Contains(got.Body, a.says) {
			t.Errorf("%v: want one of the rules %q and %q, got %v", a, a.rules, a.says, got)
		}
		return got.AuditID()
	}
	if want == 0 {
		want = http.StatusForbidden
	}
	status, err := got.Status()
	if err != nil || got.Code != want || len(status.Message) < 20 || !strings.Contains(status.Message, a.says) {
		t.Errorf("%v: want %d and a sentence with %q, got %v (%v)", a, want, a.says, got, err)
		return got.AuditID()
	}
	if a.decision != "" && !a.by(got.Rule()) {
		t.Errorf("%v: want one of the rules %q, got %v", a, a.rules, got)
	}
	if a.decision == "ask" {
		t.Errorf("%v: want people to be asked, got %s", a, status.Message)
	}
	return got.AuditID()
}
