package faults_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// history are the entries of one kind, by whom and what they say.
func (a approval) history(what string) (all []string) {
	for _, h := range a.History {
		if h.What == what {
			all = append(all, h.By+": "+h.Text)
		}
	}
	return all
}

// broken begins a story while a channel fails, and mends it when until says "".
func (y *story) broken(t *testing.T, channel string, f stacktest.Fault, until func(a approval) string) approval {
	t.Helper()
	y.stack.Break(t, channel, f)
	defer y.stack.Mend(t, channel)
	y.begin(t)
	var a approval
	stacktest.Eventually(t, within, func() string {
		a = y.last(t)
		return until(a)
	})
	return a
}

// The tests of this file run before those that are parallel: for those the channels are to work.

// Slack answers 500: mail goes out, the history says so, and the answer counts.
func TestSlackFails(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "slack-")
	a := y.broken(t, "slack", stacktest.Fault{Status: http.StatusInternalServerError, Method: "chat.postMessage"}, func(a approval) string {
		if a.Happened("unreached") == 0 {
			return fmt.Sprintf("nobody noted it: %+v", a.History)
		}
		return ""
	})
	if got := a.history("unreached"); len(got) != 1 || !strings.HasPrefix(got[0], "slack ") || !strings.Contains(got[0], "500") {
		t.Errorf("unreached %q", got)
	}
	if got := a.history("notified"); len(got) != 1 || !strings.HasPrefix(got[0], "mail: ") {
		t.Errorf("notified %q", got)
	}
	if n := len(y.sent(t, "mail")); n != len(stacktest.People) {
		t.Errorf("%d mails were sent", n)
	}
	t.Parallel()
	y.mute = true
	y.passes(t)
	if n := len(y.sent(t, "slack")); n != 0 {
		t.Errorf("%d messages in Slack", n)
	}
}

// Mail cannot be sent: Slack has the question, the history says so, and the answer counts.
func TestMailFails(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "mail-")
	a := y.broken(t, "mail", stacktest.Fault{Status: http.StatusInternalServerError}, func(a approval) string {
		if a.Happened("unreached") == 0 {
			return fmt.Sprintf("nobody noted it: %+v", a.History)
		}
		return ""
	})
	if got := a.history("unreached"); len(got) != 1 || !strings.HasPrefix(got[0], "mail: ana@example.com, ") {
		t.Errorf("unreached %q", got)
	}
	if got := a.history("notified"); len(got) != 1 || !strings.HasPrefix(got[0], "slack ") {
		t.Errorf("notified %q", got)
	}
	if n := len(y.sent(t, "mail")); n != 0 {
		t.Errorf("%d mails were sent", n)
	}
	t.Parallel()
	y.passes(t)
}

// Slack is slow: mail does not wait for it, and what it takes in the end stands there.
func TestSlackIsSlow(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "slow-")
	a := y.broken(t, "slack", stacktest.Fault{Delay: "2500ms", Method: "chat.postMessage"}, func(a approval) string {
		if time.Since(a.Opened) < 5*time.Second && len(y.sent(t, "mail")) < len(stacktest.People) {
			return "not everybody has a mail"
		}
		if a.Happened("notified") < 2 {
			return fmt.Sprintf("Slack was not noted: %+v", a.History)
		}
		return ""
	})
	if took := a.Notified.Sub(a.Opened); took > 4*time.Second {
		t.Errorf("it took %v until somebody was reached", took)
	}
	t.Parallel()
	y.passes(t)
}

// Slack does not answer at all: mail is out within seconds, and neither the reviewer nor the agent waits for Slack.
func TestSlackHangs(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "hang-")
	y.mute = true
	answered := false
	a := y.broken(t, "slack", stacktest.Fault{Delay: "15s", Method: "chat.postMessage"}, func(a approval) string {
		switch {
		case !answered:
			if n := len(y.sent(t, "mail")); n < len(stacktest.People) {
				if time.Since(a.Opened) > 5*time.Second {
					t.Fatalf("after 5 s there are %d mails", n)
				}
				return "not everybody has a mail"
			}
			if a.Happened("unreached") > 0 {
				t.Fatalf("mail waited for Slack: %+v", a.History)
			}
			y.passes(t)
			answered = true
		case a.Happened("unreached") == 0:
			return fmt.Sprintf("nobody noted it: %+v", a.History)
		}
		return ""
	})
	for _, h := range a.History {
		if h.What == "unreached" && !a.Uses[0].At.Before(h.At) {
			t.Errorf("the agent waited until Slack was given up: %+v", a.History)
		}
	}
	y.holds(t)
}

// Slack answers 500 when it is to show how it ended: that is tried again, until it does.
func TestSlackFailsAtTheEnd(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "end-")
	y.begin(t)
	s.Break(t, "slack", stacktest.Fault{Status: http.StatusInternalServerError, Method: "chat.update"})
	y.mute = true
	y.passes(t)
	if m := y.sent(t, "slack"); len(m) != 1 || strings.Contains(m[0].Text, "Approved") {
		t.Errorf("Slack answers 500 and has %+v", m)
	}
	s.Mend(t, "slack")
	y.mute = false
	y.told(t, "Approved")
}
