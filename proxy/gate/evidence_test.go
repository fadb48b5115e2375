package gate_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
)

// object is what a cluster shows of one.
func object(kind, name, spec, status string) string {
	return fmt.Sprintf(`{"kind":%q,"metadata":{"name":%q,"namespace":"dev","uid":"u1","ownerReferences":[{"kind":"ReplicaSet","name":"web-1","uid":"rs","controller":true}]},"spec":%s,"status":%s}`, kind, name, spec, status)
}

// page is a list of n objects, the first of them controlled by u1, the others by u2.
func page(n int, more string) string {
	var items []string
	for i := range n {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":"p%d","namespace":"dev","ownerReferences":[{"kind":"ReplicaSet","name":"web-%d","uid":"u%d","controller":true}]}}`, i, min(i+1, 2), min(i+1, 2)))
	}
	return `{"kind":"PartialObjectMetadataList","metadata":{` + more + `},"items":[` + strings.Join(items, ",") + `]}`
}

func affected(kind string, n int) []access.Affected {
	var all []access.Affected
	for i := range n {
		all = append(all, access.Affected{Kind: kind, Namespace: "dev", Name: fmt.Sprintf("p%d", i), Owner: fmt.Sprintf("ReplicaSet/web-%d", min(i+1, 2))})
	}
	return all
}

// People see the object as the session's tier sees it, and what goes with it.
func TestEvidence(t *testing.T) {
	const (
		core     = "/api/v1/namespaces/dev/pods"
		apps     = "/apis/apps/v1/namespaces/dev/"
		selector = `{"selector":{"matchLabels":{"a":"b"},"matchExpressions":[{"key":"c","operator":"Exists"}]},"replicas":2}`
		labels   = core + "?labelSelector=a=b,c"
		merge    = "application/merge-patch+json"
	)
	for _, test := range []struct {
		name, method, path, media, body string
		live                            string // what the object is; empty: it may not be read
		page                            string
		reads                           []string
		affected                        []access.Affected
		more                            int
	}{
		{"delete a deployment", "DELETE", apps + "deployments/web", "", "", object("Deployment", "web", selector, "{}"), page(3, ""),
			[]string{apps + "deployments/web", labels}, affected("Pod", 3), 0},
		{"and keep its pods", "DELETE", apps + "deployments/web?propagationPolicy=Orphan", "", "", object("Deployment", "web", selector, "{}"), page(3, ""),
			[]string{apps + "deployments/web"}, nil, 0},
		{"a replica set, which owns one of the pods it selects", "DELETE", apps + "replicasets/web/", "", "", object("ReplicaSet", "web", selector, "{}"), page(3, ""),
			[]string{apps + "replicasets/web", labels}, affected("Pod", 1), 0},
		{"a job", "DELETE", "/apis/batch/v1/namespaces/dev/jobs/web", "", "", object("Job", "web", selector, "{}"), page(1, ""),
			[]string{"/apis/batch/v1/namespaces/dev/jobs/web", labels}, affected("Pod", 1), 0},
		{"many", "DELETE", apps + "deployments/web", "", "", object("Deployment", "web", selector, "{}"), page(60, `"continue":"x","remainingItemCount":440`),
			[]string{apps + "deployments/web", labels}, affected("Pod", 50), 450},
		{"many that the cluster does not count", "DELETE", apps + "deployments/web", "", "", object("Deployment", "web", selector, "{}"), page(51, `"continue":"x"`),
			[]string{apps + "deployments/web", labels}, affected("Pod", 50), 2},
		{"scale", "PATCH", apps + "deployments/web/scale", merge, `{"spec":{"replicas":0}}`, object("Scale", "web", `{"replicas":2}`, `{"selector":"a=b,c"}`), page(2, ""),
			[]string{apps + "deployments/web/scale", labels}, affected("Pod", 2), 0},
		{"scale by patch", "PATCH", apps + "deployments/web", merge, `{"spec":{"replicas":0}}`, object("Deployment", "web", selector, "{}"), page(2, ""),
			[]string{apps + "deployments/web", labels}, affected("Pod", 2), 0},
		{"patch something else", "PATCH", apps + "deployments/web", merge, `{"metadata":{"labels":{"x":"y"}}}`, object("Deployment", "web", selector, "{}"), page(2, ""),
			[]string{apps + "deployments/web"}, nil, 0},
		{"delete a pod", "DELETE", core + "/web", "", "", object("Pod", "web", "{}", "{}"), "",
			[]string{core + "/web"}, []access.Affected{{Kind: "Pod", Namespace: "dev", Name: "web", Owner: "ReplicaSet/web-1"}}, 0},
		{"evict a pod", "POST", core + "/web/eviction", "", `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"web","namespace":"dev"}}`, object("Pod", "web", "{}", "{}"), "",
			[]string{core + "/web"}, []access.Affected{{Kind: "Pod", Namespace: "dev", Name: "web", Owner: "ReplicaSet/web-1"}}, 0},
		{"cordon a node", "PATCH", "/api/v1/nodes/n1", merge, `{"spec":{"unschedulable":true}}`, object("Node", "n1", "{}", "{}"), page(2, ""),
			[]string{"/api/v1/nodes/n1", "/api/v1/pods?fieldSelector=spec.nodeName=n1"}, affected("Pod", 2), 0},
		{"delete a namespace", "DELETE", "/api/v1/namespaces/dev", "", "", object("Namespace", "dev", "{}", "{}"), page(2, ""),
			[]string{"/api/v1/namespaces/dev", core}, affected("Pod", 2), 0},
		{"a collection", "DELETE", apps + "deployments?labelSelector=a%3Db&fieldSelector=metadata.name%21%3Dx", "", "", "", page(2, ""),
			[]string{apps + "deployments?fieldSelector=metadata.name!=x&labelSelector=a=b"}, affected("Deployment", 2), 0},
		{"a collection of what is not Kubernetes' own", "DELETE", "/apis/example.com/v1/namespaces/dev/things", "", "", "", page(1, ""),
			[]string{"/apis/example.com/v1/namespaces/dev/things"}, affected("things", 1), 0},
		{"what the tier may not read", "DELETE", apps + "deployments/web", "", "", "", "", []string{apps + "deployments/web"}, nil, 0},
		{"a selector of everything is none", "DELETE", apps + "deployments/web", "", "", object("Deployment", "web", `{"selector":{}}`, "{}"), "", []string{apps + "deployments/web"}, nil, 0},
		{"create", "POST", apps + "deployments", "", deployment(false), "", "", nil, nil, 0},
		{"exec", "GET", core + "/web/exec?command=sh", "", "", object("Pod", "web", "{}", "{}"), "", []string{core + "/web"}, nil, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			var reads []string
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				values := q.URL.Query()
				values.Del("limit")
				seen := q.URL.Path
				if text, _ := url.QueryUnescape(values.Encode()); text != "" {
					seen += "?" + text
				}
				reads = append(reads, seen)
				answer := test.live
				if q.URL.Query().Has("limit") {
					answer = test.page
				}
				if answer == "" {
					w.WriteHeader(http.StatusForbidden)
				}
				fmt.Fprint(w, answer)
			})
			r.policy(t, `- {name: ask, effect: ask, groups: [observers], verbs: [create, patch, delete, deletecollection, exec], apiGroups: ["", apps, batch, example.com],
  resources: [pods, pods/eviction, deployments, deployments/scale, replicasets, jobs, nodes, namespaces, things]}`)
			h := good("bot", "Sallyport-Ask", "ahead")
			if test.media != "" {
				h.Set("Content-Type", test.media)
			}
			if res, s := r.do(t, test.method, "/clusters/dev"+test.path, strings.NewReader(test.body), h); res.StatusCode != 202 {
				t.Fatalf("got %d %q", res.StatusCode, s.Message)
			}
			if d := cmp.Diff(test.reads, reads); d != "" {
				t.Error(d)
			}
			if n := len(r.changes(t)); n != 0 { // which looks at who read
				t.Errorf("%d forwarded", n)
			}
			ev := r.people.opened().Evidence
			if d := cmp.Diff(test.affected, ev.Affected); d != "" || ev.More != test.more {
				t.Errorf("%d more; %s", ev.More, d)
			}
			var want, got any
			_ = json.Unmarshal([]byte(test.live), &want)
			_ = json.Unmarshal(ev.Live, &got)
			if d := cmp.Diff(want, got); d != "" || ev.Missing {
				t.Errorf("missing %v; %s", ev.Missing, d)
			}
		})
	}
}

// What is not there is said to be missing; what cannot be looked at, or not in time, is not asked about, unless it is only what
// goes along.
func TestEvidenceThatCannotBeHad(t *testing.T) {
	for _, test := range []struct {
		name, path string
		object     int // what the cluster answers to reads of the object, and of a list; 0 for nothing in time
		list       int
		code       int
		missing    bool
	}{
		{"missing", web, 404, 200, 202, true},
		{"the cluster fails", web, 500, 200, 503, false},
		{"the cluster is slow", web, 0, 200, 503, false},
		{"a list that fails", web, 200, 500, 202, false},
		{"a list that is slow", web, 200, 0, 202, false},
		{"a collection that fails", deployments, 200, 500, 503, false},
		{"a collection that may not be read", deployments, 200, 403, 202, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
				code := test.object
				if q.URL.Query().Has("limit") {
					code = test.list
				}
				if code == 0 {
					<-q.Context().Done()
					return
				}
				w.WriteHeader(code)
				if q.URL.Query().Has("limit") {
					fmt.Fprint(w, page(1, ""))
					return
				}
				fmt.Fprint(w, live)
			})
			r.policy(t, strings.Replace(writes, "verbs: [delete]", "verbs: [delete, deletecollection]", 1))
			began := time.Now()
			res, s := r.do(t, "DELETE", test.path, nil, good("bot", "Sallyport-Ask", "ahead"))
			if res.StatusCode != test.code || (test.code == 503) != (res.Header.Get("Retry-After") != "") {
				t.Fatalf("got %d %q", res.StatusCode, s.Message)
			}
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("it took %v", took)
			}
			if test.code == 202 && r.people.opened().Evidence.Missing != test.missing {
				t.Errorf("asked with %+v", r.people.opened().Evidence)
			}
		})
	}
}

// What cannot be shown whole is not asked about.
func TestLargeBodiesAreNotAskedAbout(t *testing.T) {
	r := newRig(t, nil)
	r.policy(t, `- {name: ask, effect: ask, groups: [observers], verbs: [create], apiGroups: [""], resources: [configmaps]}`)
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"x":"` + strings.Repeat("x", 256<<10) + `"}}`
	res, s := r.do(t, "POST", "/clusters/dev/api/v1/namespaces/dev/configmaps", strings.NewReader(body), good("bot"))
	if _, opens, _ := r.people.count(); res.StatusCode != 403 || !strings.Contains(s.Message, "cannot be shown whole") || opens != 0 {
		t.Errorf("got %d %q after %d asks", res.StatusCode, s.Message, opens)
	}
}
