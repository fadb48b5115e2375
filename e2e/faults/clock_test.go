package faults_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// expired holds that nothing passed on a question, or a yes, that is over.
func (y *story) expired(t *testing.T) {
	t.Helper()
	answering.RLock()
	defer answering.RUnlock()
	var r stacktest.Reply
	for range 5 { // others have the function die
		if r = y.ana.Do(t, "POST", "/api/approvals/"+y.ids[0]+"/approve", map[string]any{}); r.Code < 500 {
			break
		}
	}
	if r.Code != http.StatusConflict || !strings.Contains(r.Message, "expired") {
		t.Errorf("a yes that came late: %v", r)
	}
	stacktest.Eventually(t, within, func() string {
		if a := y.show(t, y.ids[0]); a.State != "expired" || a.Happened("refused") == 0 || len(a.Uses) != 0 {
			return fmt.Sprintf("it is %+v", a)
		}
		return ""
	})
	y.holds(t)
	if !y.there(t) {
		t.Error("it was deleted")
	}
}

// Nobody can be reached: the agent is told at once, and why; a minute after that it may ask again.
func TestNobodyReachable(t *testing.T) {
	s := stacktest.Get(t)
	y := tell(t, s, "nobody-")
	began := time.Now()
	s.Break(t, "slack", stacktest.Fault{Status: http.StatusInternalServerError})
	s.Break(t, "mail", stacktest.Fault{Status: http.StatusInternalServerError})
	for range 2 { // and at once for the same ask again
		p := y.kubectl(t)
		if code := p.Ended(30 * time.Second); code == 0 || !strings.Contains(p.Text(), "nobody can be asked") || !strings.Contains(p.Text(), "mail: ") || !strings.Contains(p.Text(), "Slack answered HTTP status 500") {
			t.Errorf("kubectl ended with %d: %s", code, p.Text())
		}
		t.Logf("after %v: %s", time.Since(began), p.Text())
	}
	s.Mend(t, "slack")
	s.Mend(t, "mail")
	all := y.own(t, "ended")
	if len(all) != 1 || all[0].State != "denied" || all[0].Happened("unreached") != 2 || len(y.sent(t, "mail"))+len(y.sent(t, "slack")) != 0 {
		t.Fatalf("there are %+v", all)
	}
	y.ids = []string{all[0].ID}
	y.holds(t)
	t.Parallel()
	time.Sleep(time.Until(all[0].Opened.Add(time.Minute + 10*time.Second)))
	y.begin(t)
	y.mute = true // of the first question there is nothing in Slack
	y.passes(t)
}

// Questions that stand for a minute, while Step Functions forgets every execution.
func TestClockAndStepFunctions(t *testing.T) {
	s := stacktest.Get(t)
	s.Policy(t).Add(`{name: short, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: ["^short-.*$"], expires: 1m}`)
	forgotten, decided, early, unused, late := tell(t, s, "short-"), tell(t, s, "short-"), tell(t, s, "restart-"), tell(t, s, "short-"), tell(t, s, "short-")
	for _, y := range []*story{forgotten, decided, unused} {
		y.p = y.kubectl(t)
	}
	for _, y := range []*story{forgotten, decided, unused} {
		y.asked(t)
	}
	unused.p.Stop() // its agent goes away, and comes back too late
	unused.answer(t, true)

	// One execution is lost before it reached anybody: the function dies with what it was to send, and again when that is tried again.
	k := stacktest.Kill{Function: stacktest.NotifyFunction, At: "PutItem", With: "task#"}
	early.dies(t, []stacktest.Kill{k}, func() { early.p = early.kubectl(t) })
	s.Arm(t, k)
	if lost := s.RestartStepFunctions(t); lost < 3 {
		t.Errorf("%d executions were lost", lost)
	}
	s.Disarm(t, k)

	late.p = late.kubectl(t)
	late.asked(t)

	// What was asked can be answered, and passes.
	decided.mute = true
	decided.passes(t)

	t.Parallel()
	const nobody = "nobody of sre answered by"
	// Its execution writes down that it expired, and the function dies over that.
	expires := late.last(t).Expires
	time.Sleep(time.Until(expires.Add(-5 * time.Second)))
	kills := []stacktest.Kill{{Function: stacktest.NotifyFunction, At: "PutItem", With: "NAME"}}
	if time.Until(expires) < time.Second {
		t.Log("the tests before this one took so long that the function was not killed")
		kills = nil
	}
	late.dies(t, kills, func() {
		if code := late.p.Ended(90 * time.Second); code == 0 || !strings.Contains(late.p.Text(), nobody) {
			t.Errorf("kubectl ended with %d: %s", code, late.p.Text())
		}
	})
	late.told(t, "Expired")
	late.expired(t)
	if n := late.last(t).Happened("expired"); n != 1 {
		t.Errorf("it expired %d times", n)
	}

	early.mute = true // delivery_test.go breaks Slack meanwhile
	early.asked(t)
	if a := early.last(t); a.Started < 2 {
		t.Errorf("%d executions were started", a.Started)
	}
	early.passes(t)

	if code := forgotten.p.Ended(90 * time.Second); code == 0 || !strings.Contains(forgotten.p.Text(), nobody) {
		t.Errorf("kubectl ended with %d: %s", code, forgotten.p.Text())
	}
	forgotten.expired(t)

	unused.begin(t) // it has to ask again
	unused.expired(t)
	unused.mute = true // the first question says when it expired, or that it was approved
	unused.passes(t)
}
