package gate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

const deployments = "/clusters/dev/apis/apps/v1/namespaces/dev/deployments"

// Writes are allowed to observers here but for privileged pods; deletes ask.
const writes = `
- {name: write, effect: allow, groups: [observers], verbs: [create, update, patch], apiGroups: ["", apps], resources: [pods, deployments]}
- {name: no-root, effect: deny, verbs: [create, update, patch], apiGroups: ["*"], resources: ["*"], object: {any: [privileged]}, reason: it is root on its node}
- {name: remove, effect: ask, groups: [observers], verbs: [delete], apiGroups: [apps], resources: [deployments], namespaces: [dev]}
`

func deployment(privileged bool) string {
	return fmt.Sprintf(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"dev","resourceVersion":"7"},"spec":{"replicas":1,"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":{"containers":[{"name":"c","image":"i","securityContext":{"privileged":%v}}]}}}}`, privileged)
}

func TestDecides(t *testing.T) {
	r := newRig(t, nil)
	r.policy(t, writes)
	r.people.decide = deny("not today")
	json := "application/json"
	for _, test := range []struct {
		name, method, path, media, body string
		code                            int
		says                            string // part of the sentence the caller reads
		rule                            string
	}{
		{"allow", "POST", deployments, json, deployment(false), 200, "", "write"},
		{"allow without a media type", "POST", deployments, "", deployment(false), 200, "", "write"},
		{"deny by body", "POST", deployments, json, deployment(true), 403, "it is root on its node", "no-root"},
		{"deny by body, as YAML", "POST", deployments, "application/yaml", deployment(true), 403, "it is root on its node", "no-root"},
		{"deny what cannot be decoded", "POST", deployments, "application/vnd.kubernetes.protobuf", "k8s\x00\n\x0a\n\x02v9\x12\x04Thng", 403, "no-root", "no-root"},
		{"refuse what nobody can read", "POST", deployments, json, "{", 400, "", ""},
		{"refuse a key that comes twice", "POST", deployments, json, `{"apiVersion":"apps/v1","apiVersion":"apps/v1","kind":"Deployment"}`, 400, "", ""},
		{"refuse another form", "POST", deployments, "text/plain", deployment(false), 415, "", ""},
		{"ask", "DELETE", deployments + "/web", "", "", 403, "not today", "remove"},
		{"default", "DELETE", deployments, "", "", 403, "no rule allows", "default"},
		{"nearly", "DELETE", strings.Replace(deployments, "namespaces/dev", "namespaces/prod", 1) + "/web", "", "", 403, "only in namespace", "default"},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, recorded := len(r.changes(t)), len(r.recorder.all())
			h := good("bot")
			if test.media != "" {
				h.Set("Content-Type", test.media)
			}
			res, s := r.do(t, test.method, test.path, strings.NewReader(test.body), h)
			if res.StatusCode != test.code || !strings.Contains(s.Message, test.says) {
				t.Fatalf("got %d %q; want %d %q", res.StatusCode, s.Message, test.code, test.says)
			}
			if forwarded := len(r.changes(t)) > before; forwarded != (test.code == 200) {
				t.Errorf("forwarded: %v", forwarded)
			}
			if test.code == 403 && (len(s.Details.Causes) == 0 || s.Details.Causes[0] != (metav1.StatusCause{Type: "Rule", Message: test.rule})) {
				t.Errorf("the causes are %+v, want rule %s first", s.Details.Causes, test.rule)
			}
			want := 1
			if test.code == 200 {
				want = 2 // the intent, before it was forwarded, and the end
			}
			events, _ := r.recorder.wait(t, recorded+want)
			if got := events[recorded].Annotations["sallyport.io/rule"]; got != test.rule {
				t.Errorf("recorded rule %q, want %q", got, test.rule)
			}
			if test.code == 200 && events[recorded].Stage != auditv1.StageRequestReceived {
				t.Errorf("the first event of a change is %s, not its intent", events[recorded].Stage)
			}
		})
	}
}

// A patch is judged on what it would make of the live object, and lands on no other: it carries the version of the
// object it was judged on, and when the cluster says that has changed, it is judged again.
func TestPatchesAreJudgedOnTheLiveObject(t *testing.T) {
	var version atomic.Int64
	var privileged atomic.Bool
	var bodies []string
	version.Store(7)
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		if q.Method == http.MethodGet {
			fmt.Fprint(w, strings.Replace(deployment(privileged.Load()), `"7"`, fmt.Sprintf("%q", fmt.Sprint(version.Load())), 1))
			return
		}
		b, _ := io.ReadAll(q.Body)
		bodies = append(bodies, string(b))
		if !strings.Contains(string(b), fmt.Sprintf("%q", fmt.Sprint(version.Load()))) {
			w.WriteHeader(http.StatusConflict)
		}
	})
	r.policy(t, writes)
	patch := func(body string) (int, string) {
		h := good("bot", "Content-Type", "application/merge-patch+json")
		res, s := r.do(t, "PATCH", deployments+"/web", strings.NewReader(body), h)
		return res.StatusCode, s.Message
	}
	if code, said := patch(`{"spec":{"replicas":2}}`); code != 200 || len(bodies) != 1 || !strings.Contains(bodies[0], `"resourceVersion":"7"`) {
		t.Fatalf("got %d %s; sent %q", code, said, bodies)
	}
	if code, _ := patch(`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"i","securityContext":{"privileged":true}}]}}}}`); code != 403 || len(bodies) != 1 {
		t.Errorf("a patch that makes the pods privileged: %d, %d sent", code, len(bodies))
	}
	privileged.Store(true)
	if code, _ := patch(`{"spec":{"replicas":3}}`); code != 403 || len(bodies) != 1 {
		t.Errorf("a patch of what is privileged already: %d, %d sent", code, len(bodies))
	}
}

func TestAPatchIsJudgedAgainWhenItsObjectChanged(t *testing.T) {
	for _, test := range []struct {
		name  string
		later bool // what the object is when it is read again
		code  int
		sent  int
	}{{"still harmless", false, 200, 2}, {"privileged by now", true, 403, 1}} {
		t.Run(test.name, func(t *testing.T) {
			var gets, patches atomic.Int64
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				if q.Method == http.MethodGet {
					n := gets.Add(1)
					fmt.Fprint(w, strings.Replace(deployment(n > 1 && test.later), `"7"`, fmt.Sprintf(`"%d"`, 6+n), 1))
					return
				}
				if b, _ := io.ReadAll(q.Body); patches.Add(1) == 1 || !strings.Contains(string(b), `"8"`) {
					w.WriteHeader(http.StatusConflict)
				}
			})
			r.policy(t, writes)
			res, s := r.do(t, "PATCH", deployments+"/web", strings.NewReader(`{"spec":{"replicas":2}}`), good("bot", "Content-Type", "application/merge-patch+json"))
			if res.StatusCode != test.code || int(patches.Load()) != test.sent {
				t.Errorf("got %d %q after %d patches; want %d after %d", res.StatusCode, s.Message, patches.Load(), test.code, test.sent)
			}
		})
	}
}

// A live object that the tier may not read makes a patch one that nobody can judge.
func TestAPatchOfWhatCannotBeReadIsNotAllowed(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) })
	r.policy(t, writes)
	res, _ := r.do(t, "PATCH", deployments+"/web", strings.NewReader(`{"spec":{"replicas":2}}`), good("bot", "Content-Type", "application/merge-patch+json"))
	if res.StatusCode != 403 || len(r.reached()) != 1 {
		t.Errorf("got %d, %d requests reached the cluster", res.StatusCode, len(r.reached()))
	}
}

func TestObserveMode(t *testing.T) {
	r := newRig(t, nil)
	r.policy(t, strings.Replace(writes, "name: remove,", "name: remove, mode: observe,", 1)+"- {name: look, effect: allow, groups: [observers], verbs: [delete], apiGroups: [apps], resources: [deployments]}\n")
	res, _ := r.do(t, "DELETE", deployments+"/web", nil, good("bot"))
	events, _ := r.recorder.wait(t, 2)
	if got := events[0].Annotations["sallyport.io/observed"]; res.StatusCode != 200 || got != "ask remove" || len(r.reached()) != 1 {
		t.Errorf("got %d, recorded %q as observed", res.StatusCode, got)
	}
}

// A policy that forbids what is open ends it, and leaves alone what it still allows.
func TestRecheckEndsWhatIsForbiddenNow(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintln(w, "{}")
		w.(http.Flusher).Flush()
		<-q.Context().Done()
	})
	open := func(path string) chan error {
		req, _ := http.NewRequest(http.MethodGet, r.URL+path, nil)
		req.Header = good("bot")
		res, err := r.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		lines := bufio.NewReader(res.Body)
		if _, err := lines.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { _, err := io.Copy(io.Discard, lines); ended <- err }()
		return ended
	}
	watch := open(pods + "?watch=1")
	logs := open(pods + "/web/log?follow=true")
	r.gate.Recheck(context.Background())
	if r.gate.Streams() != 2 {
		t.Fatalf("%d streams are open", r.gate.Streams())
	}
	r.policy(t, `- {name: no-watch, effect: deny, verbs: [watch], apiGroups: [""], resources: [pods]}`)
	r.gate.Recheck(context.Background())
	select {
	case err := <-watch:
		if err == nil {
			t.Error("the watch ended as if it were whole")
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the watch goes on")
	}
	select {
	case <-logs:
		t.Error("the log ended too")
	case <-time.After(50 * time.Millisecond):
	}
	events, _ := r.recorder.wait(t, 3)
	if e := events[2]; !strings.Contains(e.Annotations["sallyport.io/error"], "no longer allows") {
		t.Errorf("recorded %+v", e.Annotations)
	}
}

// A policy that comes between a stream's decision and its opening finds no stream to end; the stream finds the policy.
func TestAPolicyThatChangesBeforeAStreamIsOpen(t *testing.T) {
	r := newRig(t, nil)
	r.broker.during = func() {
		r.policy(t, `- {name: no-watch, effect: deny, verbs: [watch], apiGroups: [""], resources: [pods]}`)
		r.gate.Recheck(context.Background())
	}
	if res, s := r.do(t, "GET", pods+"?watch=1", nil, good("bot")); res.StatusCode != 403 || len(r.reached()) != 0 {
		t.Errorf("got %d %q, and %d requests reached the cluster", res.StatusCode, s.Message, len(r.reached()))
	}
}

// Two readers could each take another Content-Type.
func TestOneContentType(t *testing.T) {
	r := newRig(t, nil)
	r.policy(t, writes)
	h := good("bot", "Content-Type", "application/json", "Content-Type", "application/yaml")
	if res, s := r.do(t, "POST", deployments, strings.NewReader(deployment(false)), h); res.StatusCode != 400 || len(r.reached()) != 0 {
		t.Errorf("got %d %q, and %d requests reached the cluster", res.StatusCode, s.Message, len(r.reached()))
	}
}

// U9: bodies that are held cannot take all the memory.
func TestHeldBodiesAreCapped(t *testing.T) {
	r := newRig(t, nil)
	r.policy(t, writes)
	var ends []io.Closer
	defer func() {
		for _, e := range ends {
			e.Close()
		}
	}()
	client := http1(r)
	refused := make(chan *http.Response, 12)
	for i := range 12 { // 12 times 3 MiB that never arrive, each in a run of its own: it is the agent that is limited
		body, hold := io.Pipe()
		ends = append(ends, hold)
		req, _ := http.NewRequest(http.MethodPost, r.URL+deployments, body)
		req.Header = good(fmt.Sprintf("hog#%d", i), "Content-Type", "application/json")
		go func() {
			if res, err := client.Do(req); err == nil {
				res.Body.Close()
				refused <- res
			}
		}()
	}
	select {
	case res := <-refused:
		if res.StatusCode != http.StatusTooManyRequests || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %d", res.StatusCode)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("36 MiB are held for one agent")
	}
	if res, s := r.do(t, "POST", deployments, strings.NewReader(deployment(false)), good("other", "Content-Type", "application/json")); res.StatusCode != 200 {
		t.Errorf("another agent got %d %q", res.StatusCode, s.Message)
	}
}
