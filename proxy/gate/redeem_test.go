package gate_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// The approval's credential is for the one request: what the gate looks at is seen by the base tier, and so is every request
// after it.
func TestTheCredentialIsForOneRequest(t *testing.T) {
	r := asking(t)
	r.people.decide = approve
	if res, s := r.do(t, "DELETE", web, nil, good("bot", "Sallyport-Reason", "it is broken")); res.StatusCode != 200 {
		t.Fatalf("got %d %q", res.StatusCode, s.Message)
	}
	r.do(t, "GET", pods, nil, good("bot"))
	r.do(t, "POST", deployments, strings.NewReader(deployment(false)), good("bot"))
	var used []string
	for _, q := range r.changes(t) {
		used = append(used, q.Method+" "+key(t, q))
	}
	if d := cmp.Diff([]string{"DELETE " + elevated, "GET " + base, "POST " + base}, used); d != "" {
		t.Error(d)
	}
	q := r.people.redeem[0]
	if o := r.people.opened(); !bytes.Equal(q.Raw.Body, o.Raw.Body) || q.Raw.Target != "/apis/apps/v1/namespaces/dev/deployments/web" || q.Request != o.Request || o.Reason != "it is broken" || q.Request != r.changes(t)[0].Header.Get("Audit-Id") {
		t.Errorf("asked %+v, redeemed %+v", o, q)
	}
	r.told(t, broker.Outcome{Approval: "approval1", Code: 200})
}

// A2: the object is another one than people were asked about.
func TestDrift(t *testing.T) {
	for _, test := range []struct {
		name, before, after string
		code                int
	}{
		{"recreated", live, strings.Replace(live, "u1", "u2", 1), 409},
		{"changed", live, strings.Replace(live, `"generation":3`, `"generation":4`, 1), 409},
		{"gone", live, "", 409},
		{"another status", live, strings.Replace(live, `"resourceVersion":"7"`, `"resourceVersion":"8"`, 1), 200},
	} {
		t.Run(test.name, func(t *testing.T) {
			var object atomic.Value
			object.Store(test.before)
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method == http.MethodGet && object.Load() == "" {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				showing(object.Load().(string))(w, q)
			})
			r.policy(t, writes)
			go r.people.answer(func(a *asked) { object.Store(test.after); approve(a) })
			res, s := r.do(t, "DELETE", web, nil, good("bot"))
			if res.StatusCode != test.code || (len(r.changes(t)) == 1) != (test.code == 200) {
				t.Errorf("got %d %q; %d passed", res.StatusCode, s.Message, len(r.changes(t)))
			}
			if test.code == 409 && (causes(s)["Approval"] == "" || causes(s)["State"] != "") {
				t.Errorf("a withdrawn approval is told with %v", causes(s))
			}
		})
	}
}

func TestDeletesAreBound(t *testing.T) {
	proto := func(o metav1.DeleteOptions) string {
		s := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme)
		var b bytes.Buffer
		o.SetGroupVersionKind(schema.GroupVersionKind{Version: "v1", Kind: "DeleteOptions"})
		if err := scheme.Codecs.EncoderForVersion(s, schema.GroupVersion{Version: "v1"}).Encode(&o, &b); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	background := metav1.DeletePropagationBackground
	other := "uid-of-another"
	for _, test := range []struct {
		name, query, media, body string
		code                     int
		sent                     string
	}{
		{"no body", "", "", "", 200, `{"preconditions":{"uid":"u1"}}`},
		{"options in the query", "?propagationPolicy=Orphan&gracePeriodSeconds=0", "", "", 200, `{"gracePeriodSeconds":0,"preconditions":{"uid":"u1"},"propagationPolicy":"Orphan"}`},
		{"a dry run in the query", "?dryRun=All", "", "", 200, `{"dryRun":["All"],"preconditions":{"uid":"u1"}}`},
		{"preconditions in the query", "?resourceVersion=7", "", "", 200, `{"preconditions":{"resourceVersion":"7","uid":"u1"}}`},
		{"JSON", "", "application/json", `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`, 200, `{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u1"},"propagationPolicy":"Background"}`},
		{"JSON, and a query that it overrules", "?propagationPolicy=Orphan", "application/json", `{"gracePeriodSeconds":9007199254740993}`, 200, `{"gracePeriodSeconds":9007199254740993,"preconditions":{"uid":"u1"}}`},
		{"YAML", "", "application/yaml", "propagationPolicy: Background\n", 200, `{"preconditions":{"uid":"u1"},"propagationPolicy":"Background"}`},
		{"protobuf", "", "application/vnd.kubernetes.protobuf", proto(metav1.DeleteOptions{PropagationPolicy: &background}), 200, `{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u1"},"propagationPolicy":"Background"}`},
		{"a version of the caller's", "", "application/json", `{"preconditions":{"resourceVersion":"7"}}`, 200, `{"preconditions":{"resourceVersion":"7","uid":"u1"}}`},
		{"the same uid of the caller's", "", "application/json", `{"preconditions": {"uid": "u1"}}`, 200, `{"preconditions": {"uid": "u1"}}`},
		{"another uid of the caller's", "", "application/json", `{"preconditions":{"uid":"` + other + `"}}`, 409, ""},
		{"preconditions that are none", "", "application/json", `{"preconditions":"u1"}`, 400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sent, media string
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method == http.MethodDelete {
					b, _ := io.ReadAll(q.Body)
					sent, media = string(b), q.Header.Get("Content-Type")
				}
				showing(live)(w, q)
			})
			r.policy(t, writes)
			r.people.decide = approve
			h := good("bot")
			if test.media != "" {
				h.Set("Content-Type", test.media)
			}
			res, s := r.do(t, "DELETE", web+test.query, strings.NewReader(test.body), h)
			if res.StatusCode != test.code || sent != test.sent {
				t.Errorf("got %d %q; sent %s, want %s", res.StatusCode, s.Message, sent, test.sent)
			}
			if sent != "" && media != "application/json" {
				t.Errorf("sent as %q", media)
			}
			if _, _, redeems := r.people.count(); (redeems == 1) != (test.code == 200) {
				t.Errorf("%d redeemed", redeems)
			}
			if raw := r.people.opened().Raw; string(raw.Body) != test.body || raw.ContentType != test.media {
				t.Errorf("people were asked about %+v", raw)
			}
		})
	}
}

// What the tier may not see, nothing can be tied to; and only a delete of one object is tied.
func TestWhatIsNotBound(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet {
			w.WriteHeader(http.StatusForbidden)
		}
		if b, _ := io.ReadAll(q.Body); q.Method == http.MethodDelete && len(b) != 0 {
			t.Errorf("sent %s", b)
		}
	})
	r.policy(t, `- {name: remove, effect: ask, groups: [observers], verbs: [delete, deletecollection], apiGroups: [apps], resources: [deployments]}`)
	r.people.decide = approve
	for _, path := range []string{web, deployments + "?labelSelector=a%3Db"} {
		if res, s := r.do(t, "DELETE", path, nil, good("bot")); res.StatusCode != 200 {
			t.Errorf("got %d %q", res.StatusCode, s.Message)
		}
	}
	if len(r.people.opened().Evidence.Live) != 0 {
		t.Errorf("asked with %+v", r.people.opened().Evidence)
	}
}

// U10: a client that is sent back asks people again, so the gate tries again itself, for as long as the cluster wants within
// reason; what it cannot wait for is passed on, to be tried by nobody.
func TestTheClusterHasTooMuchToDo(t *testing.T) {
	for _, test := range []struct {
		name, retry string
		times       int64
		code, tries int
	}{
		{"for a moment", "1", 1, 200, 2},
		{"for too long", "30", 100, 429, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			var tries atomic.Int64
			var bodies []string
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method == http.MethodGet {
					showing(live)(w, q)
					return
				}
				b, _ := io.ReadAll(q.Body)
				bodies = append(bodies, string(b))
				if tries.Add(1) <= test.times {
					w.Header().Set("Retry-After", test.retry)
					w.Header().Set("Content-Type", "application/json")
					w.WriteHeader(429)
					fmt.Fprint(w, `{"kind":"Status","message":"slow down","code":429}`)
				}
			})
			r.policy(t, writes)
			r.people.decide = approve
			began := time.Now()
			res, _ := r.do(t, "DELETE", web, nil, good("bot"))
			if res.StatusCode != test.code || int(tries.Load()) != test.tries || res.Header.Get("Retry-After") != "" {
				t.Errorf("got %d after %d tries, Retry-After %q", res.StatusCode, tries.Load(), res.Header.Get("Retry-After"))
			}
			if took := time.Since(began); test.tries > 1 && took < time.Second {
				t.Errorf("it tried again after %v", took)
			}
			for _, b := range bodies {
				if b != bodies[0] || b == "" {
					t.Errorf("sent %q", bodies)
				}
			}
			if _, _, redeems := r.people.count(); redeems != 1 {
				t.Errorf("%d redeemed", redeems)
			}
			r.told(t, broker.Outcome{Approval: "approval1", Code: test.code})
		})
	}
}

// Whatever the cluster answers to what people let through, nobody is told to send it again.
func TestNobodyIsSentBack(t *testing.T) {
	for name, cluster := range map[string]http.HandlerFunc{
		"500 with Retry-After": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "1")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(500)
			fmt.Fprint(w, `{"kind":"Status","message":"etcd","code":500}`)
		},
		"401":           func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) },
		"no answer":     func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a redirect":    func(w http.ResponseWriter, q *http.Request) { http.Redirect(w, q, "/", 307) },
		"429 of a read": nil,
	} {
		t.Run(name, func(t *testing.T) {
			path, method := web, "DELETE"
			if cluster == nil { // a read, which people let through
				path, method = "/clusters/dev/api/v1/namespaces/dev/secrets/db", "GET"
				cluster = func(w http.ResponseWriter, _ *http.Request) {
					w.Header().Set("Retry-After", "30")
					w.WriteHeader(429)
					fmt.Fprint(w, `{"kind":"Status","message":"slow down","code":429}`)
				}
			}
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Header.Get("User-Agent") == "sallyport" {
					w.WriteHeader(http.StatusForbidden)
					return
				}
				cluster(w, q)
			})
			r.policy(t, `- {name: ask, effect: ask, groups: [observers], verbs: ["*"], apiGroups: ["", apps], resources: [deployments, secrets]}`)
			r.people.decide = approve
			res, s := r.do(t, method, path, nil, good("bot"))
			if res.StatusCode < 400 || res.Header.Get("Retry-After") != "" || s.Details != nil && s.Details.RetryAfterSeconds != 0 {
				t.Errorf("got %d %q, Retry-After %q", res.StatusCode, s.Message, res.Header.Get("Retry-After"))
			}
			if len(r.changes(t)) != 1 {
				t.Errorf("%d tries", len(r.changes(t)))
			}
			r.told(t, broker.Outcome{Approval: "approval1", Code: res.StatusCode})
		})
	}
}

// An outcome is told until that was heard, and once.
func TestOutcomesAreToldAgain(t *testing.T) {
	r := asking(t)
	r.people.decide = func(a *asked) { approve(a); r.people.lose = false }
	r.people.during = func(broker.Redeem) { r.people.lose = true }
	if res, _ := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 200 {
		t.Fatal(res.StatusCode)
	}
	for r.desk.Untold() > 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(30 * time.Millisecond)
	if o := r.people.outcomes(); len(o) == 0 || len(o) > 2 {
		t.Errorf("told %+v", o)
	}
}

// The caller goes away when the cluster has the request and has not answered: nobody knows how it ended, and nobody says so.
func TestAnOutcomeThatNobodyKnows(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet {
			showing(live)(w, q)
			return
		}
		_, _ = io.Copy(io.Discard, q.Body) // or the server does not notice that the gate hangs up
		cancel()
		<-q.Context().Done()
	})
	r.policy(t, writes)
	r.people.decide = approve
	req, _ := http.NewRequestWithContext(ctx, "DELETE", r.URL+web, nil)
	req.Header = good("bot")
	if _, err := r.Client().Do(req); err == nil {
		t.Fatal("it was answered")
	}
	r.recorder.wait(t, 2)
	time.Sleep(30 * time.Millisecond)
	if o := r.people.outcomes(); len(o) != 0 {
		t.Errorf("told %+v", o)
	}
	if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode != 409 || !strings.Contains(s.Message, string(r.recorder.all()[0].AuditID)) {
		t.Errorf("the same request got %d %q", res.StatusCode, s.Message)
	}
}

// A redemption whose answer is lost forwards nothing, and the broker is told that.
func TestARedemptionThatIsLost(t *testing.T) {
	r := asking(t)
	r.people.decide = approve
	r.people.broken = access.Errorf(access.Unavailable, "the broker does not answer; nothing was forwarded, ask again").After(2 * time.Second)
	res, s := r.do(t, "DELETE", web, nil, good("bot"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || causes(s)["Approval"] != "approval1" || len(r.changes(t)) != 0 {
		t.Errorf("got %d %q; %d passed", res.StatusCode, s.Message, len(r.changes(t)))
	}
	if events, _ := r.recorder.wait(t, 2); events[1].Annotations["sallyport.io/approved-by"] != "" {
		t.Errorf("recorded %v", events[1].Annotations)
	}
	for r.desk.Untold() > 0 {
		time.Sleep(time.Millisecond)
	}
	r.people.mu.Lock()
	defer r.people.mu.Unlock()
	if o := r.people.vain; len(o) != 1 || o[0].Code != 503 || o[0].Request != r.people.redeem[0].Request {
		t.Errorf("told %+v", o)
	}
}

// A token that expires while its request waits lets nothing pass, however it was answered.
func TestTheTokenExpiresWhileARequestWaits(t *testing.T) {
	for name, raw := range map[string]string{
		"a plain request": "DELETE " + web + " HTTP/1.1\r\nHost: localhost\r\n",
		"an upgrade":      execRequest,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := asking(t)
			r.policy(t, writes+`- {name: ask-exec, effect: ask, groups: [observers], verbs: [exec], apiGroups: [""], resources: [pods]}`)
			if name == "a plain request" {
				go func() {
					time.Sleep(1100 * time.Millisecond)
					r.people.answer(approve)
				}()
			}
			_, br := dial(t, r, raw+"Authorization: Bearer brief:bot\r\n\r\n")
			res, err := http.ReadResponse(br, nil)
			if err != nil || res.StatusCode != 401 {
				t.Fatalf("got %+v, %v", res, err)
			}
			if b, _ := io.ReadAll(res.Body); !strings.Contains(string(b), "expired while the request waited") {
				t.Errorf("got %s", b)
			}
			if _, _, redeems := r.people.count(); redeems != 0 || len(r.changes(t)) != 0 {
				t.Errorf("%d redeemed", redeems)
			}
		})
	}
}

// What cannot be recorded is not redeemed: the yes is not lost to a recorder that is away.
func TestNothingIsRedeemedThatCannotBeRecorded(t *testing.T) {
	r := asking(t)
	r.people.decide = func(a *asked) {
		approve(a)
		r.recorder.mu.Lock()
		defer r.recorder.mu.Unlock()
		r.recorder.sick = access.Errorf(access.Unavailable, "the gate cannot record").After(time.Second)
	}
	res, _ := r.do(t, "DELETE", web, nil, good("bot"))
	if _, _, redeems := r.people.count(); res.StatusCode != 503 || redeems != 0 || len(r.changes(t)) != 0 {
		t.Errorf("got %d; %d redeemed", res.StatusCode, redeems)
	}
}

// A yes that nobody waits for any more is not used up.
func TestTheCallerGoesAwayBeforeTheRedemption(t *testing.T) {
	r := asking(t)
	ctx, cancel := context.WithCancel(t.Context())
	r.people.decide = approve
	r.recorder.durable = func(ctx context.Context) { cancel(); <-ctx.Done() }
	req, _ := http.NewRequestWithContext(ctx, "DELETE", r.URL+web, nil)
	req.Header = good("bot")
	if _, err := r.Client().Do(req); err == nil {
		t.Fatal("it was answered")
	}
	events, _ := r.recorder.wait(t, 2)
	if _, _, redeems := r.people.count(); redeems != 0 || len(r.changes(t)) != 0 || !strings.Contains(events[1].Annotations["sallyport.io/error"], "the approval stands") {
		t.Errorf("%d redeemed; recorded %v", redeems, events[1].Annotations)
	}
}

// The broker answers with another tier, for somebody else, or about another approval than the request is for.
func TestWhatTheBrokerMustNotAnswer(t *testing.T) {
	for name, spoil := range map[string]func(*broker.Token){
		"another tier":     func(k *broker.Token) { k.Tier = "admin" },
		"another agent":    func(k *broker.Token) { k.Session.Principal.Subject = "root" },
		"another cluster":  func(k *broker.Token) { k.Session.Cluster = "prod" },
		"another approval": func(k *broker.Token) { k.Approval = &broker.Approval{ID: "approval9", State: access.StateSpent} },
		"no approval":      func(k *broker.Token) { k.Approval = nil },
		"no credential":    func(k *broker.Token) { k.Credentials = broker.Credentials{} },
	} {
		t.Run(name, func(t *testing.T) {
			r := asking(t)
			r.people.decide = approve
			r.people.spoil = spoil
			if res, s := r.do(t, "DELETE", web, nil, good("bot")); res.StatusCode < 500 || res.Header.Get("Retry-After") != "" || len(r.changes(t)) != 0 {
				t.Errorf("got %d %q; %d passed", res.StatusCode, s.Message, len(r.changes(t)))
			}
		})
	}
}
