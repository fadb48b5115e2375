// Package faults_test breaks the broker while people are asked: its functions die at every step that leaves a trace, Step
// Functions forgets, Slack and mail fail or are slow, tasks of the gate die, the clock passes the expiry. Whatever happens,
// no approval is lost, doubled or applied late, and the agent gets an answer.
package faults_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

const within = 40 * time.Second // on a machine that does much else

// A function dies with everything it does at the time, and at the first call that is as a test wants it, whoever's that is.
// Most get over that by themselves; the rest takes turns.
var (
	dying = map[string]*sync.Mutex{stacktest.ReviewFunction: {}, stacktest.NotifyFunction: {}, stacktest.CallbackFunction: {}, stacktest.ExchangeFunction: {}}
	// Held for writing by whoever has function callback die at a call that any answer leads to.
	answering sync.RWMutex
	// Held for writing by whoever has function exchange die: what it has spent then is asked about again.
	redeeming sync.RWMutex
)

// A story is one kubectl delete, from the question to its end.
type story struct {
	stack *stacktest.Stack
	agent *stacktest.Agent
	ana   *stacktest.Reviewer
	name  string // of the ConfigMap
	p     *stacktest.Process
	ids   []string // of the approvals it had, oldest first
	mute  bool     // its questions do not stand in Slack, or nothing is left that would change them there
	twice int      // how many may stand there a second time, left behind: function notify died, maybe before it noted one
}

type approval struct {
	stacktest.Approval
	Started int `json:"started"`
}

// tell begins a story, with a session and before any question.
func tell(t *testing.T, s *stacktest.Stack, prefix string) *story {
	t.Helper()
	y := &story{stack: s, agent: s.Agent(t, "agents"), ana: s.Reviewer(t, "ana@example.com"), name: prefix + stacktest.Word()}
	s.Create(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: blue}\n", y.name))
	y.session(t, s.Proxy.URL)
	return y
}

// session gives the agent a session at a gate.
func (y *story) session(t *testing.T, gate string) {
	t.Helper()
	redeeming.RLock()
	defer redeeming.RUnlock()
	r := stacktest.Request{Target: y.stack.Path("/api/v1/namespaces/dev/configmaps/" + y.name), Header: []string{stacktest.Bearer(y.agent.Token)}}
	stacktest.Eventually(t, within, func() string {
		if a := y.stack.DoGate(t, gate, r); a.Code != http.StatusOK {
			return fmt.Sprintf("reading it: %v", a)
		}
		return ""
	})
}

// kubectl starts the command, at another gate than the stack's own when args say so.
func (y *story) kubectl(t *testing.T, args ...string) *stacktest.Process {
	t.Helper()
	return y.agent.Start(t, append(args, "delete", "configmap", y.name, "-n", "dev")...)
}

// begin starts the command and waits until somebody was reached.
func (y *story) begin(t *testing.T) {
	t.Helper()
	y.p = y.kubectl(t)
	y.asked(t)
}

// ours says whether a kill is at a call that one story alone leads to.
func ours(k stacktest.Kill) bool {
	return strings.Contains(k.With, "NAME") || strings.Contains(k.With, "SUBJECT") || strings.Contains(k.With, "ID")
}

// dies does something and waits until it had the functions die.
func (y *story) dies(t *testing.T, dies []stacktest.Kill, do func()) {
	t.Helper()
	id := "none"
	if len(y.ids) > 0 {
		id = y.ids[len(y.ids)-1]
	}
	for _, k := range dies {
		if k.Function == stacktest.NotifyFunction {
			y.twice++
		}
		k.With = strings.NewReplacer("NAME", y.name, "SUBJECT", y.agent.Subject, "ID", id).Replace(k.With)
		dying[k.Function].Lock()
		defer dying[k.Function].Unlock()
		y.stack.Arm(t, k)
		defer stacktest.Eventually(t, within, func() string {
			if y.stack.Armed(t, k) {
				return fmt.Sprintf("the function never came to %v", k)
			}
			return ""
		})
	}
	do()
}

// read asks the reviewers' API, again while function callback dies under others.
func (y *story) read(t *testing.T, path string, into any) {
	t.Helper()
	stacktest.Eventually(t, within, func() string {
		if r := y.ana.Do(t, "GET", path, nil); r.Code >= 500 {
			return r.String()
		} else if err := json.Unmarshal([]byte(r.Body), into); r.Code != http.StatusOK || err != nil {
			t.Fatalf("%s: %v", path, r)
		}
		return ""
	})
}

func (y *story) show(t *testing.T, id string) approval {
	t.Helper()
	var out struct{ Approval approval }
	y.read(t, "/api/approvals/"+id, &out)
	return out.Approval
}

// own are the agent's approvals that wait, or that are over.
func (y *story) own(t *testing.T, state string) (all []approval) {
	t.Helper()
	var out struct{ Approvals []approval }
	y.read(t, "/api/approvals?state="+state, &out)
	for _, a := range out.Approvals {
		if a.Principal.Subject == y.agent.Subject {
			all = append(all, a)
		}
	}
	return all
}

// last is the approval of the last question.
func (y *story) last(t *testing.T) approval {
	t.Helper()
	return y.show(t, y.ids[len(y.ids)-1])
}

// asked waits until somebody was reached about a question that there was not before. The broker then has nothing to do about
// it any more but wait; it may not have counted that it started the workflow, when it died.
func (y *story) asked(t *testing.T) approval {
	t.Helper()
	var found approval
	stacktest.Eventually(t, within, func() string {
		for _, a := range y.pending(t) {
			if a.Principal.Subject == y.agent.Subject && !slices.Contains(y.ids, a.ID) {
				if found = a; !a.Notified.IsZero() && (a.Started > 0 || time.Since(a.Notified) > 3*time.Second) {
					return ""
				}
			}
		}
		return fmt.Sprintf("nobody was reached: %+v; kubectl: %s", found, y.p.Text())
	})
	y.ids = append(y.ids, found.ID)
	return found
}

// answer says yes or no.
func (y *story) answer(t *testing.T, yes bool, dies ...stacktest.Kill) {
	t.Helper()
	lock := answering.RLocker()
	if len(dies) > 0 && !ours(dies[0]) {
		lock = &answering
	}
	lock.Lock()
	defer lock.Unlock()
	y.dies(t, dies, func() {
		if yes {
			y.press(t, "approve", map[string]any{})
		} else {
			y.press(t, "deny", map[string]any{"reason": "billing still reads it"})
		}
	})
}

// press is a button of the last question: when the page breaks it is pressed again, until somebody says that it is done.
func (y *story) press(t *testing.T, verb string, body map[string]any) {
	t.Helper()
	for try := 1; ; try++ {
		r := y.ana.Do(t, "POST", "/api/approvals/"+y.ids[len(y.ids)-1]+"/"+verb, body)
		switch {
		case r.Code == http.StatusOK || r.Code == http.StatusConflict && try > 1:
			return
		case r.Code < 500 || try == 5:
			t.Fatalf("%s, try %d: %v", verb, try, r)
		}
	}
}

// passes says yes to what was asked, and holds that it then is done.
func (y *story) passes(t *testing.T, dies ...stacktest.Kill) {
	t.Helper()
	redeeming.RLock()
	defer redeeming.RUnlock()
	y.answer(t, true, dies...)
	y.done(t)
}

// done holds that the last question was answered yes, once, that the request passed on that, once, and that everybody is
// told so.
func (y *story) done(t *testing.T) {
	t.Helper()
	if code := y.p.Ended(within); code != 0 || !strings.Contains(y.p.Text(), "deleted") {
		t.Errorf("kubectl ended with %d: %s", code, y.p.Text())
	}
	var a approval
	stacktest.Eventually(t, within, func() string {
		if a = y.last(t); a.State != "spent" || len(a.Uses) != 1 || a.Uses[0].Code != http.StatusOK {
			return fmt.Sprintf("it is %s, with uses %+v", a.State, a.Uses)
		}
		return ""
	})
	for _, what := range []string{"opened", "vote", "approved", "spent", "outcome"} {
		if n := a.Happened(what); n != 1 {
			t.Errorf("%s is %d times in its history: %+v", what, n, a.History)
		}
	}
	if len(a.Votes) != 1 {
		t.Errorf("votes %+v", a.Votes)
	}
	y.told(t, "Approved")
	y.holds(t)
	if n := len(y.stack.Forwarded(t, "delete", y.name)); n != 1 {
		t.Errorf("the cluster was asked %d times to delete it, want once", n)
	}
}

// told waits until every question of the story stands in Slack once, and says how it ended.
func (y *story) told(t *testing.T, how string) {
	t.Helper()
	if y.mute {
		return
	}
	stacktest.Eventually(t, within, func() string {
		told := 0
		all := y.sent(t, "slack")
		var subjects []string
		for _, m := range all {
			subjects = append(subjects, m.Subject)
			if strings.Contains(m.Text, how) {
				told++
			}
		}
		if told != len(y.ids) || len(all) < told || len(all) > told+y.twice {
			return fmt.Sprintf("%d messages in Slack say %q, want %d, and at most %d left behind: %q", told, how, len(y.ids), y.twice, subjects)
		}
		return ""
	})
}

// What all stories look at all the time is dear to make, so they look at one copy that is of a moment ago.
var (
	inbox   copied[[]stacktest.Message]
	waiting copied[[]approval]
)

type copied[T any] struct {
	mu  sync.Mutex
	at  time.Time
	now T
}

func (c *copied[T]) get(fresh func() T) T {
	c.mu.Lock()
	defer c.mu.Unlock()
	if time.Since(c.at) > 400*time.Millisecond {
		c.now, c.at = fresh(), time.Now()
	}
	return c.now
}

// pending are all approvals that wait.
func (y *story) pending(t *testing.T) []approval {
	t.Helper()
	return waiting.get(func() []approval {
		var out struct{ Approvals []approval }
		y.read(t, "/api/approvals?state=pending", &out)
		return out.Approvals
	})
}

// sent are the messages about the story.
func (y *story) sent(t *testing.T, channel string) (all []stacktest.Message) {
	t.Helper()
	for _, m := range inbox.get(func() []stacktest.Message { return y.stack.Inbox(t) }) {
		if m.Channel == channel && strings.Contains(m.Text, y.name) {
			all = append(all, m)
		}
	}
	return all
}

// holds is true at any time: there are no approvals but those that are known, the cluster was asked at most once, the object
// is gone if it was, and no credential of the privileged tier was minted but on a yes, after it.
func (y *story) holds(t *testing.T) {
	t.Helper()
	yes := map[string]time.Time{}
	for _, a := range append(y.own(t, "pending"), y.own(t, "ended")...) {
		if !slices.Contains(y.ids, a.ID) {
			t.Errorf("there is an approval that nobody asked for: %+v", a)
		}
		for _, h := range a.History {
			if h.What == "approved" {
				yes[a.ID] = h.At
			}
		}
	}
	forwarded := y.stack.Forwarded(t, "delete", y.name)
	if len(forwarded) > 1 {
		t.Errorf("the cluster was asked %d times to delete it: %+v", len(forwarded), forwarded)
	}
	if there := y.there(t); there == (len(forwarded) > 0) {
		t.Errorf("%d requests reached the cluster, and is it still there: %v", len(forwarded), there)
	}
	for _, r := range y.agent.Assumed(t) {
		at, ok := yes[r.Tags["sallyport:approval"]]
		if strings.HasSuffix(r.RoleARN, "/maintain") && (!ok || r.Time.Before(at)) {
			t.Errorf("a credential was minted without a yes, or before it: %+v; what was approved: %v", r, yes)
		}
	}
}

func (y *story) there(t *testing.T) bool {
	t.Helper()
	return y.stack.Admin(t, "get", "configmap", y.name, "-n", "dev", "--ignore-not-found", "-o", "name") != ""
}

// The function that opens questions, or the one that sends them, dies at each step on the way to the reviewers. kubectl and
// the workflow try again by themselves.
func TestAskingDies(t *testing.T) {
	s := stacktest.Get(t)
	const review, notify = stacktest.ReviewFunction, stacktest.NotifyFunction
	for _, k := range []stacktest.Kill{
		{Function: review, At: "PutItem", With: "once#"}, // the ask is not counted yet
		{Function: review, At: "PutItem", With: "once#", After: true},
		{Function: review, At: "UpdateItem", After: true},          // it is counted against the limit
		{Function: review, At: "TransactWriteItems", With: "NAME"}, // nothing is opened yet
		{Function: review, At: "TransactWriteItems", With: "NAME", After: true},
		{Function: review, At: "StartExecution"},
		{Function: review, At: "StartExecution", After: true},
		{Function: review, At: "PutItem", With: "NAME"}, // the start is not counted yet
		{Function: review, At: "PutItem", With: "NAME", After: true},

		{Function: notify, At: "PutItem", With: "task#"}, // the task token is not stored yet
		{Function: notify, At: "PutItem", With: "task#", After: true},
		{Function: notify, At: "POST /v2/email", With: "NAME"},
		{Function: notify, At: "POST /v2/email", With: "NAME", After: true},
		{Function: notify, At: "PutItem", With: "NAME"}, // who was reached is not noted yet
		{Function: notify, At: "PutItem", With: "NAME", After: true},
	} {
		t.Run(k.String(), func(t *testing.T) {
			y := tell(t, s, "asking-")
			y.dies(t, []stacktest.Kill{k}, func() { y.p = y.kubectl(t) })
			if !ours(k) {
				y.asked(t) // before the next row, whose call it might make
			}
			t.Parallel()
			if ours(k) {
				y.asked(t)
			}
			y.passes(t)
			// What was sent and not noted is sent again.
			if n := len(y.sent(t, "mail")); n < len(stacktest.People) || n > 2*len(stacktest.People) {
				t.Errorf("%d mails were sent", n)
			}
		})
	}
}

// The function that takes answers dies at each step of one. Who answers presses again.
func TestAnsweringDies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, k := range []stacktest.Kill{
		{At: "PutItem", With: "known#"}, // who answers is not known yet
		{At: "PutItem", With: "NAME"},   // the vote
		{At: "PutItem", With: "NAME", After: true},
		{At: "SendTaskSuccess"},
		{At: "SendTaskSuccess", After: true},
	} {
		k.Function = stacktest.CallbackFunction
		t.Run("yes, "+k.String(), func(t *testing.T) {
			t.Parallel()
			y := tell(t, s, "answering-")
			y.begin(t)
			y.passes(t, k)
		})
		if k.With == "known#" || k.At == "SendTaskSuccess" && k.After {
			continue // a no is no different there
		}
		t.Run("no, "+k.String(), func(t *testing.T) {
			t.Parallel()
			y := tell(t, s, "answering-")
			y.begin(t)
			y.answer(t, false, k)
			if code := y.p.Ended(within); code == 0 || !strings.Contains(y.p.Text(), "billing still reads it") {
				t.Errorf("kubectl ended with %d: %s", code, y.p.Text())
			}
			if a := y.last(t); a.State != "denied" || a.Happened("denied") != 1 || a.Happened("vote") != 1 || len(a.Uses) != 0 {
				t.Errorf("it is %+v", a)
			}
			y.told(t, "Denied")
			y.holds(t)
			if !y.there(t) {
				t.Error("it was deleted")
			}
		})
	}
}

// It dies as a grant is given, and taken back: there is one or there is none, and what is open under it ends.
func TestGrantingDies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod := s.Pod(t, "dev")
	for _, k := range []stacktest.Kill{
		{At: "TransactWriteItems", With: "SUBJECT"},
		{At: "TransactWriteItems", With: "SUBJECT", After: true},
	} {
		k.Function = stacktest.CallbackFunction
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			y := tell(t, s, "granting-")
			redeeming.RLock()
			defer redeeming.RUnlock()
			func() {
				dying[stacktest.ReviewFunction].Lock() // kubectl sends an upgrade once
				defer dying[stacktest.ReviewFunction].Unlock()
				y.p = y.agent.Start(t, "exec", "-n", "dev", pod, "--", "echo", "inside")
				y.asked(t)
			}()
			press := func(verb string, body map[string]any) {
				answering.RLock()
				defer answering.RUnlock()
				y.dies(t, []stacktest.Kill{k}, func() { y.press(t, verb, body) })
			}
			press("approve", map[string]any{"scope": "object", "length": "15m"})
			if code := y.p.Ended(within); code != 0 || !strings.Contains(y.p.Text(), "inside") {
				t.Errorf("kubectl ended with %d: %s", code, y.p.Text())
			}
			var stream *stacktest.Process
			func() {
				dying[stacktest.ReviewFunction].Lock()
				defer dying[stacktest.ReviewFunction].Unlock()
				stream = y.agent.Start(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo open; sleep 60")
				stream.Await("open", within)
			}()
			press("revoke", map[string]any{"reason": "enough"})
			if code := stream.Ended(5 * time.Second); code == 0 {
				t.Errorf("the stream ended as if it were whole: %s", stream.Text())
			}
			a := y.last(t)
			for _, what := range []string{"vote", "approved", "revoked"} {
				if n := a.Happened(what); n != 1 {
					t.Errorf("%s is %d times in its history: %+v", what, n, a.History)
				}
			}
			if a.State != "revoked" || len(a.Uses) != 2 {
				t.Errorf("it is %s, with uses %+v", a.State, a.Uses)
			}
			y.holds(t)
		})
	}
}

// The function that gives credentials dies at each step of a redemption. What was not spent passes by itself; what was is
// asked about again, for nobody knows what became of it.
func TestRedeemingDies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, k := range []stacktest.Kill{
		{At: "PutItem", With: "NAME"}, // the approval is not spent yet
		{At: "PutItem", With: "NAME", After: true},
		{At: "AssumeRole", With: "SUBJECT"},
		{At: "AssumeRole", With: "SUBJECT", After: true},
	} {
		k.Function = stacktest.ExchangeFunction
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			y := tell(t, s, "redeeming-")
			y.begin(t)
			func() {
				redeeming.Lock()
				defer redeeming.Unlock()
				y.dies(t, []stacktest.Kill{k}, func() { y.answer(t, true) })
			}()
			if k.At == "PutItem" && !k.After {
				y.done(t)
				return
			}
			stacktest.Eventually(t, within, func() string {
				if a := y.last(t); a.State != "spent" || len(a.Uses) != 1 || a.Uses[0].Code != http.StatusServiceUnavailable {
					return fmt.Sprintf("it is %s, with uses %+v", a.State, a.Uses)
				}
				return ""
			})
			if !y.there(t) {
				t.Fatal("it was deleted with a credential that nobody has")
			}
			// kubectl asked again by itself; or it did so before that outcome was known, and was told so.
			stacktest.Eventually(t, within, func() string {
				select {
				case <-y.p.Done():
					if !strings.Contains(y.p.Text(), "is being used by request") {
						t.Fatalf("kubectl ended: %s", y.p.Text())
					}
					y.p = y.kubectl(t)
					return ""
				default:
				}
				if len(y.own(t, "pending")) == 0 {
					return "it neither ends nor asks again"
				}
				return ""
			})
			y.asked(t)
			y.passes(t)
		})
	}
}

// The function dies that tells the gate's tasks what became of their questions, and stores how requests ended; and the one
// that shows it to the reviewers.
func TestEndingDies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, k := range []stacktest.Kill{
		{Function: stacktest.ReviewFunction, At: "BatchGetItem", With: "ID"},
		{Function: stacktest.ReviewFunction, At: "PutItem", With: "NAME"}, // the outcome
		{Function: stacktest.ReviewFunction, At: "PutItem", With: "NAME", After: true},
		{Function: stacktest.NotifyFunction, At: "Query", With: "sent#ID", After: true}, // where the message stands that is to be changed
	} {
		t.Run(k.String(), func(t *testing.T) {
			t.Parallel()
			y := tell(t, s, "ending-")
			y.begin(t)
			redeeming.RLock()
			defer redeeming.RUnlock()
			y.dies(t, []stacktest.Kill{k}, func() { y.answer(t, true) })
			y.done(t)
		})
	}
}

// Two tasks of the gate share everything: what was asked at one is joined, and passes, at the other, also when the one is gone.
func TestTasks(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	second := s.StartProxy(t)
	waits := regexp.MustCompile(`(?m)^sallyport_approvals_waiting ([0-9]+)`)
	held := func(n string) {
		t.Helper()
		stacktest.Eventually(t, within, func() string {
			res, err := http.Get(second.Health + "/metrics")
			if err != nil {
				return err.Error()
			}
			defer res.Body.Close()
			b, err := io.ReadAll(res.Body)
			if m := waits.FindSubmatch(b); err != nil || m == nil || string(m[1]) != n {
				return fmt.Sprintf("%s wait at the second task, want %s (%v)", m, n, err)
			}
			return ""
		})
	}

	y := tell(t, s, "tasks-")
	y.session(t, second.URL)
	y.begin(t)
	other := y.kubectl(t, "--server", second.Cluster)
	held("1")
	func() {
		redeeming.RLock()
		defer redeeming.RUnlock()
		y.answer(t, true)
		code, joined := y.p.Ended(within), other.Ended(within)
		if code != 0 {
			code, joined, y.p, other = joined, code, other, y.p
		}
		if joined == 0 || !strings.Contains(other.Text(), "used by request") && !strings.Contains(other.Text(), "NotFound") {
			t.Errorf("one ended with %d: %s\nthe other with %d: %s", code, y.p.Text(), joined, other.Text())
		}
		y.done(t)
	}()

	y = tell(t, s, "tasks-")
	y.session(t, second.URL)
	y.p = y.kubectl(t, "--server", second.Cluster)
	y.asked(t)
	second.Kill()
	if code := y.p.Ended(within); code == 0 {
		t.Errorf("kubectl at a task that died: %s", y.p.Text())
	}
	y.p = y.kubectl(t) // as it goes on behind a load balancer, or a person runs it again
	y.passes(t)
}
