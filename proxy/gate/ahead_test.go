package gate_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/shared/access"
)

func TestAskAhead(t *testing.T) {
	const more = writes + `
- {name: secrets, effect: ask, groups: [observers], verbs: [get], apiGroups: [""], resources: [secrets]}
- {name: shell, effect: ask, groups: [observers], verbs: [exec], apiGroups: [""], resources: [pods]}
`
	for _, test := range []struct {
		name, method, path, body string
		how                      func(*asked)
		code                     int
		says, state              string
		forwarded                bool
	}{
		{"asks", "DELETE", web, "", nil, 202, "people are asked: waiting for sre", "pending", false},
		{"was approved", "DELETE", web, "", approve, 202, "send the request itself and it passes", "approved", false},
		{"was denied", "DELETE", web, "", deny("no"), 403, "said no", "denied", false},
		{"was used", "DELETE", web, "", func(a *asked) { a.State, a.By, a.spent = access.StateSpent, "r7", []string{"r7"} }, 409, "r7", "spent", false},
		{"a read that asks", "GET", "/clusters/dev/api/v1/namespaces/dev/secrets/db", "", nil, 202, "people are asked", "pending", false},
		{"an exec, without an upgrade", "GET", pods + "/web/exec?command=sh", "", nil, 202, "people are asked", "pending", false},
		{"is allowed", "POST", deployments, deployment(false), nil, 200, "not needed: the policy allows it", "", false},
		{"is denied", "POST", deployments, deployment(true), nil, 403, "root", "", false},
		{"a read that is allowed", "GET", pods, "", nil, 200, "", "", true},
		{"a self-review", "POST", "/clusters/dev/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "{}", nil, 200, "", "", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, showing(live))
			r.policy(t, more)
			r.people.decide = test.how
			req, _ := http.NewRequest(test.method, r.URL+test.path, strings.NewReader(test.body))
			req.Header = good("bot", "Sallyport-Ask", "ahead", "Sallyport-Reason", "UTF-8'en'k%C3%B6nnte%20man%3F")
			res, err := r.Client().Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			b, _ := io.ReadAll(res.Body)
			if res.StatusCode != test.code || len(r.changes(t)) > 0 != test.forwarded {
				t.Fatalf("got %d %s; %d forwarded", res.StatusCode, b, len(r.changes(t)))
			}
			if test.forwarded {
				return
			}
			var s metav1.Status
			if err := json.Unmarshal(b, &s); err != nil || s.Kind != "Status" || int(s.Code) != test.code || !strings.Contains(s.Message, test.says) || causes(s)["State"] != test.state {
				t.Errorf("%s, %v", b, err)
			}
			if success := s.Status == metav1.StatusSuccess && s.Reason == ""; success != (test.code < 300) {
				t.Errorf("the Status is %s, %s", s.Status, s.Reason)
			}
			if test.state != "" && r.people.opened().Reason != "könnte man?" {
				t.Errorf("asked because %q", r.people.opened().Reason)
			}
			events, _ := r.recorder.wait(t, 1)
			if e := events[0]; e.ResponseStatus.Code != int32(test.code) || (e.Annotations["sallyport.io/approval"] != "") != (test.state != "") {
				t.Errorf("recorded %+v", e)
			}
			if _, _, redeems := r.people.count(); redeems != 0 || r.observer.waiting.Load() != 0 {
				t.Error("it waited or was redeemed")
			}
		})
	}
}

// What was asked ahead is found by the request itself.
func TestAskedAheadIsFound(t *testing.T) {
	r := asking(t)
	r.do(t, "DELETE", web, nil, good("bot", "Sallyport-Ask", "ahead"))
	r.people.answer(approve)
	res, s := r.do(t, "DELETE", web, nil, good("bot"))
	if approvals, _, _ := r.people.count(); res.StatusCode != 200 || approvals != 1 {
		t.Errorf("got %d %q; %d approvals", res.StatusCode, s.Message, approvals)
	}
}

func TestReasons(t *testing.T) {
	for _, test := range []struct {
		name string
		h    []string
		code int
		want string
	}{
		{"plain", []string{"fix it, 100% sure; it's \"broken\""}, 429, "fix it, 100% sure; it's \"broken\""},
		{"nothing", []string{""}, 429, ""},
		{"an ext-value", []string{"UTF-8''" + url.PathEscape("löschen\nund neu")}, 429, "löschen\nund neu"},
		{"in any case, with a language", []string{"utf-8'de'l%C3%B6schen"}, 429, "löschen"},
		{"as long as may be", []string{strings.Repeat("x", 1000)}, 429, strings.Repeat("x", 1000)},
		{"as long as may be, in characters", []string{"UTF-8''" + strings.Repeat("%C3%B6", 1000)}, 429, strings.Repeat("ö", 1000)},
		{"too long", []string{strings.Repeat("x", 1001)}, 400, ""},
		{"raw UTF-8", []string{"löschen"}, 400, ""},
		{"no UTF-8", []string{"UTF-8''%FF"}, 400, ""},
		{"half an escape", []string{"UTF-8''%C"}, 400, ""},
		{"one quote", []string{"UTF-8'l%C3%B6"}, 400, ""},
		{"what must be escaped", []string{"UTF-8''a b"}, 400, ""},
		{"control characters", []string{"UTF-8''%1B%5B2J"}, 400, ""},
		{"twice", []string{"a", "b"}, 400, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := asking(t)
			r.gate.Hold = 1
			h := good("bot")
			h["Sallyport-Reason"] = test.h
			res, s := r.do(t, "DELETE", web, nil, h)
			if res.StatusCode != test.code {
				t.Fatalf("got %d %q", res.StatusCode, s.Message)
			}
			if test.code == 400 {
				if _, opens, _ := r.people.count(); opens != 0 || len(r.reached()) != 0 {
					t.Error("people were asked")
				}
				return
			}
			if got := r.people.opened().Reason; got != test.want {
				t.Errorf("people read %q", got)
			}
		})
	}
	r := asking(t)
	for _, v := range [][]string{{"yes"}, {"Ahead"}, {"ahead", "ahead"}, {""}} {
		h := good("bot")
		h["Sallyport-Ask"] = v
		if res, s := r.do(t, "GET", pods, nil, h); res.StatusCode != 400 || !strings.Contains(s.Message, "Sallyport-Ask") {
			t.Errorf("Sallyport-Ask %q got %d %q", v, res.StatusCode, s.Message)
		}
	}
}

// Nothing that is for the gate goes further, known or not.
func TestWhatIsForTheGateStaysThere(t *testing.T) {
	r := asking(t)
	r.people.decide = approve
	for _, method := range []string{"GET", "DELETE"} {
		path := pods
		if method == "DELETE" {
			path = web
		}
		res, s := r.do(t, method, path, nil, good("bot", "Sallyport-Reason", "because", "Sallyport-Anything", "x"))
		if res.StatusCode != 200 {
			t.Errorf("got %d %q", res.StatusCode, s.Message)
		}
	}
	if n := len(r.changes(t)); n != 2 { // which looks at the headers
		t.Errorf("%d were forwarded", n)
	}
}

// A look tells what is decided, and does nothing else: nobody is asked, and nothing is forwarded, reads neither.
func TestLook(t *testing.T) {
	for _, test := range []struct {
		name, method, path, body string
		code                     int
		decision                 string
	}{
		{"asks", "DELETE", web, "", 202, "ask"},
		{"is allowed", "POST", deployments, deployment(false), 200, "allow"},
		{"a read", "GET", pods, "", 200, "allow"},
		{"is denied", "POST", deployments, deployment(true), 403, ""},
	} {
		r := newRig(t, showing(live))
		r.policy(t, writes)
		req, _ := http.NewRequest(test.method, r.URL+test.path, strings.NewReader(test.body))
		req.Header = good("bot", "Sallyport-Ask", "look")
		res, err := r.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var s metav1.Status
		err = json.NewDecoder(res.Body).Decode(&s)
		res.Body.Close()
		if err != nil {
			t.Fatal(test.name, err)
		}
		opens, waits, redeems := r.people.count()
		if res.StatusCode != test.code || causes(s)["Decision"] != test.decision || len(r.changes(t)) != 0 || opens+waits+redeems != 0 {
			t.Errorf("%s: got %d %q %v; %d forwarded, asked %d, %d, %d", test.name, res.StatusCode, s.Message, causes(s), len(r.changes(t)), opens, waits, redeems)
		}
	}
}
