package stacktest

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// The broker's functions.
const (
	ExchangeFunction = "sallyport-exchange"
	ReviewFunction   = "sallyport-review"
	NotifyFunction   = "sallyport-notify"
	CallbackFunction = "sallyport-callback"
)

// A Kill is where a function of the broker dies, all its processes: at a call of AWS.
type Kill struct {
	Function string `json:"-"`
	At       string `json:"at"`              // the operation, such as PutItem; or method and path, such as "POST /v2/email"
	With     string `json:"with,omitempty"`  // in the call's body; any call when empty
	Count    int    `json:"count,omitempty"` // the how many-th such call; zero is the first
	After    bool   `json:"after,omitempty"` // once the call has had its effect
}

func (k Kill) String() string {
	words := []string{strings.TrimPrefix(k.Function, "sallyport-"), "before", k.At}
	if k.After {
		words[1] = "after"
	}
	if k.With != "" {
		words = append(words, "with", k.With)
	}
	if k.Count > 1 {
		words = append(words, "no.", strconv.Itoa(k.Count))
	}
	return strings.Join(words, " ")
}

func (s *Stack) local(t testing.TB, method, path string, in, out any) {
	t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = strings.NewReader(string(b))
	}
	r, err := http.NewRequest(method, s.AWS.Endpoint+"/_local/"+path, body) // the test's context may be over
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err == nil && out != nil {
		err = json.Unmarshal(b, out)
	}
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s /_local/%s: %s %s %v", method, path, res.Status, b, err)
	}
}

// Arm has a function die, once, by the end of the test. A function has one such call at a time, whoever makes it.
func (s *Stack) Arm(t testing.TB, k Kill) {
	t.Helper()
	s.local(t, http.MethodPost, "lambda/"+k.Function+"/kill", k, nil)
	t.Cleanup(func() {
		if s.Armed(t, k) {
			s.Disarm(t, k)
		}
	})
}

// Disarm lets a function live.
func (s *Stack) Disarm(t testing.TB, k Kill) {
	t.Helper()
	s.local(t, http.MethodDelete, "lambda/"+k.Function+"/kill", nil, nil)
}

// Armed says whether the function has not died yet.
func (s *Stack) Armed(t testing.TB, k Kill) bool {
	t.Helper()
	var left struct{ Trap *Kill }
	s.local(t, http.MethodGet, "lambda/"+k.Function+"/kill", nil, &left)
	return left.Trap != nil && *left.Trap == Kill{At: k.At, With: k.With, Count: left.Trap.Count, After: k.After}
}

// RestartStepFunctions loses every execution, and says how many there were.
func (s *Stack) RestartStepFunctions(t testing.TB) int {
	t.Helper()
	var out struct{ Lost int }
	s.local(t, http.MethodPost, "stepfunctions/restart", nil, &out)
	return out.Lost
}

// Forwarded are the requests about an object that reached the cluster from the gate, as the cluster saw them, each once.
func (s *Stack) Forwarded(t testing.TB, verb, name string) []auditv1.Event {
	t.Helper()
	b, err := os.ReadFile(s.Cluster.AuditLog)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[types.UID]auditv1.Event{}
	for line := range bytes.Lines(b) {
		if !bytes.Contains(line, []byte(name)) || !bytes.HasSuffix(line, []byte("\n")) {
			continue
		}
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatalf("the cluster's audit log: %v", err)
		}
		if e.Verb == verb && e.ObjectRef != nil && e.ObjectRef.Name == name && strings.Contains(e.User.Username, ":assumed-role/") {
			seen[e.AuditID] = e
		}
	}
	return slices.Collect(maps.Values(seen))
}

// Kill ends a task of the gate as AWS does when its host is lost.
func (p *Proxy) Kill() {
	p.t.Helper()
	if err := p.cmd.Process.Kill(); err != nil {
		p.t.Fatal(err)
	}
	<-p.done
}

// A Fault is how a channel to reviewers fails.
type Fault struct {
	Status int    `json:"status,omitempty"` // what it answers
	Delay  string `json:"delay,omitempty"`  // how long that takes
	Method string `json:"method,omitempty"` // of Slack, alone; all when empty
	Times  int    `json:"times,omitempty"`  // until it is mended when zero
	After  bool   `json:"after,omitempty"`  // the call has its effect all the same
}

// Break makes a channel, slack or mail, fail until it is mended, or the test ends.
func (s *Stack) Break(t testing.TB, channel string, f Fault) {
	t.Helper()
	s.local(t, http.MethodPut, channel+"/fault", f, nil)
	t.Cleanup(func() { s.Mend(t, channel) })
}

// Mend makes a channel work again.
func (s *Stack) Mend(t testing.TB, channel string) {
	t.Helper()
	s.local(t, http.MethodDelete, channel+"/fault", nil, nil)
}
