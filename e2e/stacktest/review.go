package stacktest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// People are the reviewers of group sre.
var People = []string{"ana@example.com", "ben@example.com", "chi@example.com"}

// Reviewer is a person who may answer, with a token of their own.
type Reviewer struct {
	Email string
	Token string

	stack *Stack
}

// Reviewer gives the token of a person.
func (s *Stack) Reviewer(t testing.TB, email string) *Reviewer {
	t.Helper()
	return &Reviewer{Email: email, Token: s.Token(t, "--reviewer", email), stack: s}
}

// Approval is an approval as the reviewers' API tells it.
type Approval struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	Principal struct {
		Subject string `json:"subject"`
		Agent   string `json:"agent"`
		Owner   string `json:"owner"`
	} `json:"principal"`
	Decision struct {
		Rule   string `json:"rule"`
		Tier   string `json:"tier"`
		Policy string `json:"policy"`
	} `json:"decision"`
	Kubectl  string    `json:"kubectl"`
	Sentence string    `json:"sentence"`
	Reason   string    `json:"reason"`
	Message  string    `json:"message"`
	Request  string    `json:"request"`
	Opened   time.Time `json:"opened"`
	Expires  time.Time `json:"expires"`
	Until    time.Time `json:"until"`
	Notified time.Time `json:"notified"`
	Votes    []struct {
		By struct {
			Email   string `json:"email"`
			Channel string `json:"channel"`
		} `json:"by"`
		Yes    bool   `json:"yes"`
		Reason string `json:"reason"`
	} `json:"votes"`
	Uses []struct {
		Request string    `json:"request"`
		At      time.Time `json:"at"`
		Code    int       `json:"code"`
	} `json:"uses"`
	History []struct {
		What string    `json:"what"`
		By   string    `json:"by"`
		Text string    `json:"text"`
		At   time.Time `json:"at"`
	} `json:"history"`
}

// Happened is how often something is in the approval's history.
func (a Approval) Happened(what string) (n int) {
	for _, h := range a.History {
		if h.What == what {
			n++
		}
	}
	return n
}

// View is what a reviewer is shown.
type View struct {
	Argv        []string `json:"argv"`
	Diff        string   `json:"diff"`
	Approximate string   `json:"approximate"`
	Affected    []struct {
		Kind, Namespace, Name, Owner string
	} `json:"affected"`
	More  int      `json:"more"`
	Notes []string `json:"notes"`
	Live  bool     `json:"live"`
}

// Reply is an answer of the reviewers' API.
type Reply struct {
	Code    int
	Body    string
	Error   string `json:"error"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

func (r Reply) String() string { return fmt.Sprintf("%d %s", r.Code, clip(r.Body)) }

// Do asks the reviewers' API. body is sent as JSON unless it is nil.
func (r *Reviewer) Do(t testing.TB, method, path string, body any) Reply {
	t.Helper()
	out, err := r.do(method, path, body)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *Reviewer) do(method, path string, body any) (out Reply, err error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return out, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequest(method, r.stack.Reviews.URL+path, in)
	if err != nil {
		return out, err
	}
	req.Header.Set("Authorization", "Bearer "+r.Token)
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return out, err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return out, err
	}
	_ = json.Unmarshal(b, &out) // not every answer is an error
	out.Code, out.Body = res.StatusCode, string(b)
	r.stack.seen.show(method+" "+path, out.Body)
	return out, nil
}

// Refusing is a person who says no to everything that agents of tests ask, for tests that are about what is decided and not
// about what people answer. It is for Main.
func Refusing(s *Stack) (stop func()) {
	token, err := Local(s.Root, "token", "--reviewer", "ben@example.com", "--expires", "2h")
	if err != nil {
		panic("a reviewer's token: " + token)
	}
	ben := &Reviewer{Email: "ben@example.com", Token: strings.TrimSpace(token), stack: s}
	s.seen.secret(ben.Token)
	done := make(chan struct{})
	go func() {
		for tick := time.Tick(100 * time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick:
			}
			list, err := ben.do("GET", "/api/approvals?state=pending", nil)
			var all struct {
				Approvals []Approval `json:"approvals"`
			}
			if err != nil || json.Unmarshal([]byte(list.Body), &all) != nil {
				continue // the next time
			}
			for _, a := range all.Approvals {
				if strings.HasPrefix(a.Principal.Subject, "bot-") {
					_, _ = ben.do("POST", "/api/approvals/"+a.ID+"/deny", map[string]any{"reason": fmt.Sprintf("rule %q asks, and nobody says yes in this test", a.Decision.Rule)})
				}
			}
		}
	}()
	return func() { close(done) }
}

// List are the approvals that wait, or that are over.
func (r *Reviewer) List(t testing.TB, state string) []Approval {
	t.Helper()
	a := r.Do(t, "GET", "/api/approvals?state="+state, nil)
	var out struct {
		Approvals []Approval `json:"approvals"`
	}
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || a.Code != http.StatusOK {
		t.Fatalf("listing approvals: %v", a)
	}
	return out.Approvals
}

// Show is one approval, and what a reviewer is shown of it.
func (r *Reviewer) Show(t testing.TB, id string) (Approval, View) {
	t.Helper()
	a := r.Do(t, "GET", "/api/approvals/"+id, nil)
	var out struct {
		Approval Approval `json:"approval"`
		View     View     `json:"view"`
	}
	if err := json.Unmarshal([]byte(a.Body), &out); err != nil || a.Code != http.StatusOK {
		t.Fatalf("approval %s: %v", id, a)
	}
	return out.Approval, out.View
}

// Await waits until an approval of an agent is pending that is none of those known, and returns it.
func (r *Reviewer) Await(t testing.TB, agent *Agent, known ...string) Approval {
	t.Helper()
	var found Approval
	Eventually(t, 15*time.Second, func() string {
		for _, a := range r.List(t, "pending") {
			if a.Principal.Subject == agent.Subject && !slices.Contains(known, a.ID) {
				found = a
				return ""
			}
		}
		return "no approval of " + agent.Subject + " is pending"
	})
	return found
}

// Approve says yes to one request, and fails the test when that is not taken.
func (r *Reviewer) Approve(t testing.TB, id string) {
	t.Helper()
	if a := r.Do(t, "POST", "/api/approvals/"+id+"/approve", map[string]any{}); a.Code != http.StatusOK {
		t.Fatalf("approving %s: %v", id, a)
	}
}

// Deny says no, and why.
func (r *Reviewer) Deny(t testing.TB, id, reason string) {
	t.Helper()
	if a := r.Do(t, "POST", "/api/approvals/"+id+"/deny", map[string]any{"reason": reason}); a.Code != http.StatusOK {
		t.Fatalf("denying %s: %v", id, a)
	}
}

// Reached waits until an approval has a state.
func (r *Reviewer) Reached(t testing.TB, id, state string) Approval {
	t.Helper()
	var a Approval
	Eventually(t, 15*time.Second, func() string {
		a, _ = r.Show(t, id)
		if a.State == state {
			return ""
		}
		return "it is " + a.State + ", not " + state
	})
	return a
}

// Message is something that reviewers were sent.
type Message struct {
	Channel string   `json:"channel"` // slack or mail
	To      string   `json:"to"`
	Subject string   `json:"subject"`
	Text    string   `json:"text"`
	Links   []string `json:"links"`
	// Blocks are a Slack message's Block Kit.
	Blocks json.RawMessage `json:"blocks"`
}

// Inbox is everything that was sent so far.
func (s *Stack) Inbox(t testing.TB) []Message {
	t.Helper()
	out := finish(t, exec.Command(filepath.Join(s.Root, "bin", "local"), "inbox", "--json"))
	var all []Message
	if err := json.Unmarshal([]byte(out.Stdout), &all); err != nil || out.Code != 0 {
		t.Fatalf("bin/local inbox --json: %v", out)
	}
	return all
}
