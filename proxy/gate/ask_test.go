package gate_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

const web = deployments + "/web"

// showing is a cluster that shows one object and does what it is told.
func showing(object string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		switch {
		case q.URL.Query().Get("limit") != "":
			fmt.Fprint(w, `{"kind":"PartialObjectMetadataList","items":[]}`)
		case q.Method == http.MethodGet:
			fmt.Fprint(w, object)
		default:
			fmt.Fprint(w, `{"kind":"Status","status":"Success"}`)
		}
	}
}

const live = `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"dev","uid":"u1","generation":3,"resourceVersion":"7"},"spec":{"replicas":2,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i"}]}}}}`

// asking is a gate whose policy asks about deletes of deployments.
func asking(t *testing.T) *rig {
	r := newRig(t, showing(live))
	r.policy(t, writes)
	return r
}

func causes(s metav1.Status) map[string]string {
	all := map[string]string{}
	for _, c := range s.Details.Causes {
		all[string(c.Type)] = c.Message
	}
	return all
}

func TestStates(t *testing.T) {
	for _, test := range []struct {
		name   string
		how    func(*asked)
		code   int
		says   string
		passes bool
	}{
		{"approved", approve, 200, "", true},
		{"granted", grant(time.Hour), 200, "", true},
		{"denied", deny("not on a Friday"), 403, "ana@example.com said no: not on a Friday", false},
		{"expired", func(a *asked) { a.State, a.Message = access.StateExpired, "" }, 403, "expired", false},
		{"revoked", func(a *asked) { a.State, a.Message = access.StateRevoked, "ben@example.com took it back" }, 403, "took it back", false},
		{"withdrawn", func(a *asked) { a.State, a.Message = access.StateWithdrawn, "" }, 409, "changed", false},
		{"spent", func(a *asked) { a.State, a.By, a.spent = access.StateSpent, "request7", []string{"request7"} }, 409, "request7", false},
		{"unknown", func(a *asked) { a.State = "undecided" }, 500, "does not know", false},
	} {
		for when, decide := range map[string]bool{"at once": true, "later": false} {
			t.Run(test.name+" "+when, func(t *testing.T) {
				r := asking(t)
				if decide {
					r.people.decide = test.how
				} else {
					go r.people.answer(test.how)
				}
				res, s := r.do(t, "DELETE", web, nil, good("bot"))
				if res.StatusCode != test.code || !strings.Contains(s.Message, test.says) || res.Header.Get("Retry-After") != "" {
					t.Fatalf("got %d %q, Retry-After %q", res.StatusCode, s.Message, res.Header.Get("Retry-After"))
				}
				if passed := len(r.changes(t)) == 1; passed != test.passes {
					t.Errorf("passed: %v", passed)
				}
				events, _ := r.recorder.wait(t, 1)
				end := events[len(events)-1]
				if a := end.Annotations; a["sallyport.io/approval"] != "approval1" || a["sallyport.io/decision"] != "ask" || a["sallyport.io/rule"] != "remove" {
					t.Errorf("recorded %v", a)
				}
				if !test.passes {
					if c := causes(s); test.code != 500 && (c["Approval"] != "approval1" || c["Rule"] != "remove" || c["State"] == "" || c["Expires"] == "") {
						t.Errorf("causes are %v", c)
					}
					if by := end.Annotations["sallyport.io/approved-by"]; len(events) != 1 || by != "" {
						t.Errorf("%d events, approved by %q", len(events), by)
					}
					return
				}
				if events, _ = r.recorder.wait(t, 2); events[0].Stage != auditv1.StageRequestReceived || events[1].Stage != auditv1.StageResponseComplete {
					t.Errorf("recorded %s and %s", events[0].Stage, events[1].Stage)
				}
				for _, e := range events {
					if a := e.Annotations; a["sallyport.io/approval"] != "approval1" || a["sallyport.io/approved-by"] != "ana@example.com" || a["sallyport.io/tier"] != "maintain" {
						t.Errorf("recorded %v", a)
					}
				}
			})
		}
	}
}

// A request that is held too long is to be sent again, to whichever task; it joins, and passes once it is approved.
func TestRounds(t *testing.T) {
	one := asking(t)
	two := newRigWith(t, showing(live), one.people)
	two.policy(t, writes)
	for i, r := range []*rig{one, two, one} {
		r.gate.Hold = 30 * time.Millisecond
		res, s := r.do(t, "DELETE", web, nil, good("bot"))
		if res.StatusCode != 429 || res.Header.Get("Retry-After") != "1" || s.Reason != metav1.StatusReasonTooManyRequests || s.Details.RetryAfterSeconds != 1 {
			t.Fatalf("round %d got %d, Retry-After %q, %+v", i, res.StatusCode, res.Header.Get("Retry-After"), s)
		}
		for _, want := range []string{`rule "remove"`, "waiting for sre", "approval1", "kubectl goes on", "running the same command again goes on from there", "Nothing was forwarded"} {
			if !strings.Contains(s.Message, want) {
				t.Errorf("%q does not say %q", s.Message, want)
			}
		}
		if c := causes(s); c["Approval"] != "approval1" || c["State"] != "pending" || c["Rule"] != "remove" || c["Expires"] == "" {
			t.Errorf("causes are %v", c)
		}
	}
	if e := one.recorder.all(); len(e) != 2 || e[0].Annotations["sallyport.io/approval"] != "approval1" || e[0].ResponseStatus.Code != 429 {
		t.Errorf("recorded %+v", e)
	}
	one.people.answer(approve)
	if res, s := two.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 200 {
		t.Errorf("after the approval it got %d %q", res.StatusCode, s.Message)
	}
	if approvals, opens, redeems := one.people.count(); approvals != 1 || opens != 4 || redeems != 1 {
		t.Errorf("%d approvals of %d asks, %d redeemed", approvals, opens, redeems)
	}
}

// A3: of many equal requests that wait, on two tasks, one passes, and the others are told which.
func TestOneOfFiftyPasses(t *testing.T) {
	one := asking(t)
	two := newRigWith(t, showing(live), one.people)
	two.policy(t, writes)
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := map[int]int{}
	var said []string
	for i := range 50 {
		r := []*rig{one, two}[i%2]
		wg.Go(func() {
			res, s := r.do(t, "DELETE", web, nil, good("bot"))
			mu.Lock()
			defer mu.Unlock()
			codes[res.StatusCode]++
			if res.StatusCode == 409 {
				said = append(said, s.Message)
			}
		})
	}
	for one.observer.waiting.Load()+two.observer.waiting.Load() < 50 {
		time.Sleep(time.Millisecond)
	}
	one.people.answer(approve)
	wg.Wait()
	if !maps.Equal(codes, map[int]int{200: 1, 409: 49}) || len(one.changes(t))+len(two.changes(t)) != 1 {
		t.Errorf("got %v; %d passed", codes, len(one.changes(t))+len(two.changes(t)))
	}
	passed := append(one.changes(t), two.changes(t)...)[0].Header.Get("Audit-Id")
	if i := slices.IndexFunc(said, func(s string) bool { return !strings.Contains(s, passed) }); i >= 0 {
		t.Errorf("%q does not name request %s", said[i], passed)
	}
	if approvals, _, _ := one.people.count(); approvals != 1 {
		t.Errorf("%d approvals", approvals)
	}
}

// The caller goes away: its question stands, what it was is recorded, and the same request finds the answer.
func TestTheCallerGoesAway(t *testing.T) {
	r := asking(t)
	ctx, cancel := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "DELETE", r.URL+web, nil)
	req.Header = good("bot")
	go func() {
		for r.observer.waiting.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if _, err := r.Client().Do(req); err == nil {
		t.Fatal("it was answered")
	}
	events, where := r.recorder.wait(t, 1)
	if e := events[0]; e.Annotations["sallyport.io/approval"] != "approval1" || !strings.Contains(e.Annotations["sallyport.io/error"], "went away") || where[0].Session != "sessionbot" {
		t.Errorf("recorded %+v", e)
	}
	if n := r.observer.waiting.Load(); n != 0 {
		t.Errorf("%d requests wait", n)
	}
	r.people.answer(approve)
	if res, _ := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 200 || len(r.changes(t)) != 1 {
		t.Errorf("the same request got %d", res.StatusCode)
	}
}

// An agent cannot take all connections by waiting on them, and another does not notice.
func TestWaitersAreCapped(t *testing.T) {
	r := asking(t)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			req, _ := http.NewRequestWithContext(ctx, "DELETE", r.URL+web, nil)
			req.Header = good("hog")
			if res, err := r.Client().Do(req); err == nil {
				res.Body.Close()
			}
		})
	}
	for r.observer.waiting.Load() < 64 {
		time.Sleep(time.Millisecond)
	}
	res, s := r.do(t, "DELETE", web, nil, good("hog"))
	if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" || !strings.Contains(s.Message, "64 of your requests wait") {
		t.Errorf("the 65th got %d %q", res.StatusCode, s.Message)
	}
	wg.Go(func() {
		req, _ := http.NewRequestWithContext(ctx, "DELETE", r.URL+web, nil)
		req.Header = good("other")
		if res, err := r.Client().Do(req); err == nil {
			t.Errorf("another agent got %d", res.StatusCode)
			res.Body.Close()
		}
	})
	for r.observer.waiting.Load() < 65 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	wg.Wait()
}

// An upgrade is sent once by its client, so it is held until there is an answer, before it is one.
func TestUpgradesAreHeld(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == "GET" && q.Header.Get("Upgrade") == "" {
			fmt.Fprint(w, `{"kind":"Pod","metadata":{"name":"web","namespace":"dev","uid":"p1"}}`)
			return
		}
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(c, output(strings.ToUpper(line)))
	})
	r.policy(t, `- {name: ask-exec, effect: ask, groups: [observers], verbs: [exec], apiGroups: [""], resources: [pods]}`)
	r.gate.Hold = 10 * time.Millisecond
	go func() {
		time.Sleep(100 * time.Millisecond) // ten holds of a plain request
		r.people.answer(approve)
	}()
	c, br := dial(t, r, execRequest+"Authorization: Bearer good:bot\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("got %+v, %v", res, err)
	}
	fmt.Fprint(c, "hello\n")
	if line, err := br.ReadString('\n'); err != nil || !strings.HasSuffix(line, "HELLO\n") {
		t.Errorf("got %q, %v through the stream", line, err)
	}
	r.told(t, broker.Outcome{Approval: "approval1", Code: 101}) // while it is open
	o := r.people.opened()
	if !strings.Contains(string(o.Evidence.Live), `"uid":"p1"`) || len(r.changes(t)) != 1 || key(t, r.changes(t)[0]) != elevated {
		t.Errorf("asked with %s; %d upgrades", o.Evidence.Live, len(r.changes(t)))
	}
}

// told waits until the broker was told exactly these outcomes, of whichever requests.
func (r *rig) told(t *testing.T, want ...broker.Outcome) {
	t.Helper()
	var got []broker.Outcome
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		if got = r.people.outcomes(); len(got) >= len(want) {
			break
		}
	}
	for i := range got {
		got[i].Request = ""
	}
	if !slices.Equal(got, want) {
		t.Errorf("told %+v, want %+v", got, want)
	}
}

// kubectl's second try of an upgrade comes over SPDY, and hears what became of the first. It asks nobody.
func TestSPDYHearsTheAnswer(t *testing.T) {
	for _, test := range []struct {
		name string
		how  func(*asked) // nil: nobody was asked
		code int
		says string
	}{
		{"nothing", nil, 400, "use WebSocket"},
		{"pending", func(*asked) {}, 429, "waiting for sre"},
		{"denied", deny("no shells"), 403, "no shells"},
		{"approved", approve, 400, "use WebSocket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			r.policy(t, `- {name: ask-exec, effect: ask, groups: [observers], verbs: [exec], apiGroups: [""], resources: [pods]}`)
			path := pods + "/web/exec?command=sh"
			if test.how != nil {
				r.people.decide = test.how
				if res, s := r.do(t, "POST", path, nil, good("bot", "Sallyport-Ask", "ahead")); res.StatusCode >= 400 && test.name != "denied" {
					t.Fatalf("asking ahead got %d %s", res.StatusCode, s.Message)
				}
			}
			_, before, _ := r.people.count()
			res, s := r.do(t, "POST", path, nil, good("bot", "Connection", "Upgrade", "Upgrade", "SPDY/3.1"))
			if res.StatusCode != test.code || !strings.Contains(s.Message, test.says) {
				t.Errorf("got %d %q", res.StatusCode, s.Message)
			}
			if _, after, redeems := r.people.count(); after != before || redeems != 0 || r.people.peeks != 1 {
				t.Errorf("it asked: %d, %d looks, %d redeemed", after-before, r.people.peeks, redeems)
			}
		})
	}
}

// Nobody is asked about what the policy allows or denies, what callers ask about themselves, or what no one may send.
func TestWhatNobodyIsAskedAbout(t *testing.T) {
	r := asking(t)
	review := "/clusters/dev/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
	for _, q := range [][3]string{
		{"GET", pods, ""}, {"GET", "/clusters/dev/version", ""}, {"GET", "/clusters/dev/api", ""}, {"POST", review, "{}"},
		{"POST", deployments, deployment(false)}, {"POST", deployments, deployment(true)}, {"DELETE", pods + "/web", ""},
		{"GET", pods + "/web/exec?command=sh", ""},
	} {
		r.do(t, q[0], q[1], strings.NewReader(q[2]), good("bot"))
	}
	if _, opens, _ := r.people.count(); opens != 0 || r.people.peeks != 0 {
		t.Errorf("%d asks, %d looks", opens, r.people.peeks)
	}
}

// The broker goes away while requests wait: they wait on, and end as they would; the answer is found when it is back.
func TestTheBrokerGoesAway(t *testing.T) {
	r := asking(t)
	away := func(err error) {
		r.people.mu.Lock()
		defer r.people.mu.Unlock()
		r.people.away = err
	}
	r.gate.Hold = 500 * time.Millisecond
	go func() {
		for r.observer.waiting.Load() == 0 {
			time.Sleep(time.Millisecond)
		}
		away(access.Errorf(access.Unavailable, "the broker does not answer").After(2 * time.Second))
	}()
	if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 429 || res.Header.Get("Retry-After") != "1" || causes(s)["Approval"] != "approval1" {
		t.Errorf("got %d %q", res.StatusCode, s.Message)
	}
	if res, _ := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" {
		t.Errorf("an ask while it is away got %d, Retry-After %q", res.StatusCode, res.Header.Get("Retry-After"))
	}
	away(nil)
	go r.people.answer(approve)
	if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 200 {
		t.Errorf("when it is back it got %d %q", res.StatusCode, s.Message)
	}
}

// What changes while a request waits is decided again.
func TestThePolicyChangesWhileARequestWaits(t *testing.T) {
	for _, test := range []struct {
		name, rules string
		code        int
		says        string
		key         string // what it is forwarded with
	}{
		{"it allows", "- {name: go, effect: allow, groups: [observers], verbs: [delete], apiGroups: [apps], resources: [deployments]}", 200, "", base},
		{"it denies", "- {name: stop, effect: deny, verbs: [delete], apiGroups: [apps], resources: [deployments]}", 403, "stop", ""},
		{"another rule asks", strings.Replace(writes, "name: remove", "name: other", 1), 409, "another rule", ""},
		{"the same rule asks for another tier", strings.Replace(writes, "name: remove,", "name: remove, tier: observe,", 1), 409, "another rule", ""},
		{"something else changed", writes + "- {name: more, effect: allow, groups: [observers], verbs: [get], apiGroups: [apps], resources: [deployments]}\n", 200, "", elevated},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := asking(t)
			go r.people.answer(func(a *asked) {
				r.policy(t, test.rules)
				approve(a)
			})
			res, s := r.do(t, "DELETE", web, nil, good("bot"))
			if res.StatusCode != test.code || !strings.Contains(s.Message, test.says) {
				t.Fatalf("got %d %q", res.StatusCode, s.Message)
			}
			if passed := r.changes(t); (len(passed) == 1) != (test.key != "") || len(passed) == 1 && key(t, passed[0]) != test.key {
				t.Errorf("%d passed", len(passed))
			}
			if _, _, redeems := r.people.count(); (redeems == 1) != (test.key == elevated) {
				t.Errorf("%d redeemed", redeems)
			}
		})
	}
}
