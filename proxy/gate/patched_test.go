package gate_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"sallyport/shared/broker"
)

// A patch that people let through lands on the object they saw, or on none. Another version of it, with the same
// generation, is that object; another generation is not.
func TestApprovedPatches(t *testing.T) {
	for _, test := range []struct {
		name, media, body string
		later             string // what the object is when the cluster has refused the first try
		code, tries       int
		bound             bool
		rooted            bool
	}{
		{"nothing changed", "application/merge-patch+json", `{"spec":{"replicas":5}}`, "", 200, 1, true, false},
		{"JSON", "application/json-patch+json", `[{"op":"replace","path":"/spec/replicas","value":5}]`, "", 200, 1, true, false},
		{"strategic", "application/strategic-merge-patch+json", `{"spec":{"replicas":5}}`, "", 200, 1, false, false},
		{"its status changed", "application/merge-patch+json", `{"spec":{"replicas":5}}`, strings.Replace(live, `"resourceVersion":"7"`, `"resourceVersion":"8"`, 1), 200, 2, true, false},
		{"it changed", "application/merge-patch+json", `{"spec":{"replicas":5}}`, strings.Replace(live, `"generation":3,"resourceVersion":"7"`, `"generation":4,"resourceVersion":"8"`, 1), 409, 1, true, false},
		{"it was recreated", "application/merge-patch+json", `{"spec":{"replicas":5}}`, strings.NewReplacer("u1", "u2", `"resourceVersion":"7"`, `"resourceVersion":"8"`).Replace(live), 409, 1, true, false},
		{"another rule asks about it", "application/merge-patch+json", `{"spec":{"replicas":5}}`, strings.NewReplacer(`"image":"i"`, `"image":"i","securityContext":{"privileged":true}`, `"resourceVersion":"7"`, `"resourceVersion":"8"`).Replace(live), 409, 1, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			var object atomic.Value
			object.Store(live)
			tries := 0
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				switch {
				case q.URL.Query().Has("limit"):
					fmt.Fprint(w, page(0, ""))
				case q.Method == http.MethodGet:
					fmt.Fprint(w, object.Load())
				default:
					b, _ := io.ReadAll(q.Body)
					if bound := strings.Contains(string(b), `"7"`) || strings.Contains(string(b), `"8"`); bound != test.bound {
						t.Errorf("sent %s", b)
					}
					if k := key(t, q); k != elevated {
						t.Errorf("sent with %s", k)
					}
					if tries++; tries == 1 && test.later != "" {
						object.Store(test.later)
						w.WriteHeader(http.StatusConflict)
						return
					}
					fmt.Fprint(w, "{}")
				}
			})
			rules := `- {name: ask, effect: ask, groups: [observers], verbs: [patch], apiGroups: [apps], resources: [deployments]}
`
			if test.rooted { // otherwise no rule looks at the body
				rules += `- {name: ask-root, effect: ask, groups: [observers], verbs: [patch], apiGroups: [apps], resources: [deployments], object: {any: [privileged]}, expires: 1m}
`
			}
			r.policy(t, rules)
			r.people.decide = approve
			res, s := r.do(t, "PATCH", web, strings.NewReader(test.body), good("bot", "Content-Type", test.media))
			if res.StatusCode != test.code || tries != test.tries || res.Header.Get("Retry-After") != "" {
				t.Errorf("got %d %q after %d tries", res.StatusCode, s.Message, tries)
			}
			if raw := r.people.redeem[0].Raw; string(raw.Body) != test.body || raw.ContentType != test.media {
				t.Errorf("redeemed for %+v", raw)
			}
			r.told(t, broker.Outcome{Approval: "approval1", Code: test.code})
		})
	}
}
