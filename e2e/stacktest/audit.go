package stacktest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Audit is the cluster's own audit log: what reached the API server, whatever the gate says.
func (s *Stack) Audit(t testing.TB) []auditv1.Event {
	t.Helper()
	events, err := s.audit()
	if err != nil {
		t.Fatal(err)
	}
	return events
}

func (s *Stack) audit() ([]auditv1.Event, error) {
	b, err := os.ReadFile(s.Cluster.AuditLog)
	if err != nil {
		return nil, err
	}
	var events []auditv1.Event
	for line := range bytes.Lines(b) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			break // it is being written
		}
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("the cluster's audit log: %w", err)
		}
		events = append(events, e)
	}
	return events, nil
}

// Reached waits until the cluster's audit log has the end of the request with that id, and returns that.
func (s *Stack) Reached(t testing.TB, auditID string) auditv1.Event {
	t.Helper()
	var found auditv1.Event
	Eventually(t, 10*time.Second, func() string {
		for _, e := range s.Audit(t) {
			if string(e.AuditID) == auditID && e.Stage == auditv1.StageResponseComplete {
				found = e
				return ""
			}
		}
		return "request " + auditID + " is not in the cluster's audit log"
	})
	return found
}

// A Session is what sallyport sessions says of one.
type Session struct {
	ID          string   `json:"id"`
	Cluster     string   `json:"cluster"`
	Agent       string   `json:"agent"`
	Subject     string   `json:"subject"`
	Groups      []string `json:"groups"`
	Tier        string   `json:"tier"`
	RoleSession string   `json:"role_session"`
	Requests    int      `json:"requests"`
	Refused     int      `json:"refused"`
}

// Sessions are the recorded sessions of an agent.
func (a *Agent) Sessions(t testing.TB) []Session {
	t.Helper()
	out := a.stack.Sallyport(t, "sessions", "list", "--json", "--limit", "0")
	var listed struct{ Sessions []Session }
	if err := json.Unmarshal([]byte(out.Stdout), &listed); err != nil || out.Code != 0 {
		t.Fatalf("sessions list: %v: %v", err, out)
	}
	var own []Session
	for _, s := range listed.Sessions {
		if s.Subject == a.Subject {
			own = append(own, s)
		}
	}
	return own
}

// Recording is what was recorded of a session, or of requests that never had one.
type Recording struct {
	Session Session         `json:"session"`
	Events  []auditv1.Event `json:"events"`
	Raw     string          `json:"-"`
}

// Of are the events of one request, in the order of its stages.
func (r Recording) Of(auditID string) []auditv1.Event {
	var of []auditv1.Event
	for _, e := range r.Events {
		if string(e.AuditID) == auditID {
			of = append(of, e)
		}
	}
	return of
}

// End is the event of a request's end.
func (r Recording) End(auditID string) (auditv1.Event, bool) {
	for _, e := range r.Of(auditID) {
		if e.Stage == auditv1.StageResponseComplete {
			return e, true
		}
	}
	return auditv1.Event{}, false
}

// Recorded waits until the recording of the agent's one session holds the end of every request named, and returns it.
func (a *Agent) Recorded(t testing.TB, auditIDs ...string) Recording {
	t.Helper()
	id := a.Session(t)
	var r Recording
	Eventually(t, 20*time.Second, func() string {
		out := a.stack.Sallyport(t, "sessions", "show", "--json", id)
		if out.Code != 0 {
			return out.String() // nothing of it is stored yet
		}
		r = decode(t, out)
		return missing(r, auditIDs)
	})
	return r
}

// Session is the id of the agent's session, which the broker wrote into the tags of every role it assumed for it.
func (a *Agent) Session(t testing.TB) string {
	t.Helper()
	id := ""
	for _, x := range a.Assumed(t) {
		if tag := x.Tags["sallyport:session"]; id == "" {
			id = tag
		} else if id != tag {
			t.Fatalf("%s has had the sessions %s and %s", a.Subject, id, tag)
		}
	}
	if id == "" {
		t.Fatalf("%s has no session", a.Subject)
	}
	return id
}

// Refused waits until the recording of requests without a session holds the ones named, and returns it.
func (s *Stack) Refused(t testing.TB, auditIDs ...string) Recording {
	t.Helper()
	var r Recording
	Eventually(t, 20*time.Second, func() string {
		r = decode(t, s.Sallyport(t, "sessions", "show", "--json", "--refused", "--since", "5m"))
		return missing(r, auditIDs)
	})
	return r
}

func missing(r Recording, auditIDs []string) string {
	for _, id := range auditIDs {
		if _, ok := r.End(id); !ok {
			return "request " + id + " is not in the record"
		}
	}
	return ""
}

func decode(t testing.TB, out Output) Recording {
	t.Helper()
	r := Recording{Raw: out.Stdout}
	if err := json.Unmarshal([]byte(out.Stdout), &r); err != nil || out.Code != 0 {
		t.Fatalf("sessions show: %v: %v", err, out)
	}
	return r
}

// Assumed is one call of AssumeRole that the local STS saw.
type Assumed struct {
	RoleARN         string            `json:"roleArn"`
	RoleSessionName string            `json:"roleSessionName"`
	SourceIdentity  string            `json:"sourceIdentity"`
	Tags            map[string]string `json:"tags"`
	AccessKeyID     string            `json:"accessKeyId"`
	Error           string            `json:"error"`
	Time            time.Time         `json:"time"`
}

// Assumed are the calls of AssumeRole for an agent: one an exchange.
func (a *Agent) Assumed(t testing.TB) []Assumed {
	t.Helper()
	all, err := a.stack.assumed()
	if err != nil {
		t.Fatal(err)
	}
	var own []Assumed
	for _, x := range all {
		if strings.HasPrefix(x.RoleSessionName, a.Subject+"-") {
			own = append(own, x)
		}
	}
	return own
}

func (s *Stack) assumed() ([]Assumed, error) {
	res, err := http.Get(s.AWS.Endpoint + "/_local/sts/assumed")
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var log struct{ Assumed []Assumed }
	return log.Assumed, json.NewDecoder(bufio.NewReader(res.Body)).Decode(&log)
}

// Lifetime makes credentials live no longer than d from now on, until the test ends.
func (s *Stack) Lifetime(t testing.TB, d time.Duration) {
	t.Helper()
	set := func(d time.Duration) error {
		r, err := http.NewRequest(http.MethodPut, s.AWS.Endpoint+"/_local/sts/lifetime", strings.NewReader(fmt.Sprintf(`{"lifetime":%q}`, d)))
		if err != nil {
			return err
		}
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if res.StatusCode != http.StatusOK {
			return errors.New(res.Status)
		}
		return nil
	}
	if err := set(d); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := set(0); err != nil {
			t.Errorf("giving credentials their full life again: %v", err)
		}
	})
}

// Logs are the stack's logs, by file: of its processes and of what they run.
func (s *Stack) Logs() (map[string]string, error) {
	files, err := contents(filepath.Join(s.Root, ".local"), ".log")
	if err == nil && len(files) < 4 {
		err = fmt.Errorf("%d logs are kept; where are the others?", len(files))
	}
	return files, err
}
