package gate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// asksLogs is stricter than the allow of the rig's policy.
const asksLogs = `- {name: look, effect: ask, groups: [observers], verbs: [get], apiGroups: [""], resources: [pods/log]}
`

// following is a gate with a log open under an approval.
func following(t *testing.T, how func(*asked)) (r *rig, ended chan error) {
	r = newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Header.Get("User-Agent") == "sallyport" {
			fmt.Fprint(w, `{"kind":"Pod","metadata":{"name":"web","namespace":"dev","uid":"p1"}}`)
			return
		}
		fmt.Fprintln(w, "a line")
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	})
	r.policy(t, asksLogs)
	r.people.decide = how
	req, _ := http.NewRequest(http.MethodGet, r.URL+logs, nil)
	req.Header = good("bot")
	res, err := r.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	lines := bufio.NewReader(res.Body)
	if line, err := lines.ReadString('\n'); err != nil || res.StatusCode != 200 {
		t.Fatalf("got %d %q, %v", res.StatusCode, line, err)
	}
	ended = make(chan error, 1)
	go func() { _, err := io.Copy(io.Discard, lines); ended <- err }()
	return r, ended
}

const logs = pods + "/web/log?follow=true"

func cut(t *testing.T, r *rig, ended chan error, says string) {
	t.Helper()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the log ended as if it were whole")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the log goes on")
	}
	events, _ := r.recorder.wait(t, 2)
	if s := events[0].Stage; s != auditv1.StageRequestReceived {
		t.Errorf("a read that people let through has no intent before it, but %s", s)
	}
	if a := events[1].Annotations; !strings.Contains(a["sallyport.io/error"], says) || a["sallyport.io/approval"] != "approval1" || a["sallyport.io/approved-by"] != "ana@example.com" {
		t.Errorf("recorded %v", a)
	}
	if n := r.gate.Streams(); n != 0 {
		t.Errorf("%d streams are open", n)
	}
}

func goesOn(t *testing.T, ended chan error) {
	t.Helper()
	select {
	case err := <-ended:
		t.Errorf("the log ended: %v", err)
	case <-time.After(50 * time.Millisecond): // ten polls
	}
}

func TestARevokedGrantEndsWhatIsOpen(t *testing.T) {
	r, ended := following(t, grant(time.Hour))
	goesOn(t, ended)
	r.told(t, broker.Outcome{Approval: "approval1", Code: 200}) // while it is open
	r.people.change("approval1", func(a *asked) {
		a.State, a.Message = access.StateRevoked, "ben@example.com took it back"
	})
	cut(t, r, ended, "ben@example.com took it back")
}

// The end of a grant needs no broker.
func TestAGrantEnds(t *testing.T) {
	r, ended := following(t, grant(300*time.Millisecond))
	r.people.mu.Lock()
	r.people.away = access.Errorf(access.Unavailable, "away")
	r.people.mu.Unlock()
	cut(t, r, ended, "the grant of approval approval1 ended")
}

// A yes to one request is used up by what it opened, which goes on; and so does whatever the policy still asks about by the
// same rule. What it asks about by another rule, or denies, ends.
func TestWhatIsOpenUnderAnApproval(t *testing.T) {
	r, ended := following(t, approve)
	goesOn(t, ended)
	r.gate.Recheck(context.Background())
	r.policy(t, asksLogs+`- {name: more, effect: allow, groups: [observers], verbs: [get], apiGroups: [""], resources: [configmaps]}`)
	r.gate.Recheck(context.Background())
	goesOn(t, ended)
	r.policy(t, strings.Replace(asksLogs, "name: look", "name: glance", 1))
	r.gate.Recheck(context.Background())
	cut(t, r, ended, "no longer allows")
}

// A grant lets several requests through, each with a credential of its own, and tells how each ended.
func TestAGrantIsUsedAgain(t *testing.T) {
	r := asking(t)
	r.people.decide = grant(time.Hour)
	for range 3 {
		if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 200 {
			t.Fatalf("got %d %q", res.StatusCode, s.Message)
		}
	}
	o := broker.Outcome{Approval: "approval1", Code: 200}
	r.told(t, o, o, o)
	if _, _, redeems := r.people.count(); redeems != 3 {
		t.Errorf("%d redeemed", redeems)
	}
	r.people.change("approval1", func(a *asked) { a.State = access.StateRevoked })
	r.people.decide = deny("not any more")
	if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 403 || !strings.Contains(s.Message, "not any more") {
		t.Errorf("once it was taken back it got %d %q", res.StatusCode, s.Message)
	}
}
