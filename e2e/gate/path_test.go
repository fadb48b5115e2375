package gate_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/e2e/stacktest"
)

// Threats P2, P3, P4, P5, P8, P11, H8: requests that could be read in two ways, or are for nothing that is open.
func TestBadRequests(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	bad := func(name, target string) probe {
		return probe{name: name + " " + target, Request: get(target), code: 400, reason: "BadRequest"}
	}
	probes := []probe{
		{name: "no cluster", Request: stacktest.Request{Target: "/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound", says: "no cluster is named"},
		{name: "no cluster, the root", Request: stacktest.Request{Target: "/?MARK"}, code: 404, reason: "NotFound"},
		{name: "an unknown cluster", Request: stacktest.Request{Target: "/clusters/MARK/api/v1/pods"}, code: 404, reason: "NotFound", says: "there is no cluster"},
		{name: "a cluster of another case", Request: stacktest.Request{Target: "/clusters/DEV/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "an escaped cluster", Request: stacktest.Request{Target: "/clusters/d%65v/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "a cluster behind ..", Request: stacktest.Request{Target: "/clusters/x/../dev/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "no name of a cluster", Request: stacktest.Request{Target: "/clusters//dev/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "a prefix of another case", Request: stacktest.Request{Target: "/Clusters/dev/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "the absolute form", Request: stacktest.Request{Target: "https://127.0.0.1/clusters/dev/api/v1/namespaces/MARK/pods"}, code: 404, reason: "NotFound"},
		{name: "nothing after the cluster", Request: stacktest.Request{Target: "/clusters/dev"}, code: 400, reason: "BadRequest"},

		bad("P2", "/api/v1/namespaces/MARK%2Fpods"),
		bad("P2", "/api/v1/namespaces/MARK%2fpods"),
		bad("P2", "/api/v1/namespaces/MARK/pods%5Cx"),
		bad("P2", "/api/v1/namespaces/MARK/pods%00"),
		bad("P2", "/api/v1/namespaces/MARK/pods%25"),
		bad("P2", "/api/v1/namespaces/MARK/pods%20x"),
		bad("P2", "/api/v1/namespaces/MARK/pods%0d%0aX-Remote-User:%20root"),
		bad("P2", "/api/v1/namespaces/MARK/pods;x"),
		bad("P2", "/api/v1/namespaces/MARK;/pods"),
		bad("P2", "//api/v1/namespaces/MARK/pods"),
		bad("P2", "/api//v1/namespaces/MARK/pods"),
		bad("P2", "/api/v1/namespaces/MARK//pods"),
		bad("P2", "/api/v1/namespaces/MARK/pods//"),
		bad("P2", "/api/v1/namespaces//pods?MARK"),
		bad("P2", "/api/v1/namespaces/MARK/./pods"),
		bad("P2", "/api/v1/namespaces/MARK/../dev/pods"),
		bad("P2", "/api/v1/namespaces/MARK/pods/.."),
		bad("P2", "/../api/v1/namespaces/MARK/pods"),
		bad("P2", "/api/v1/namespaces/MARK/%2e%2e/dev/pods"),
		bad("P2", "/api/v1/namespaces/MARK/.%2e/pods"),
		bad("P2", "/api/v1/namespaces/MARK/pods|x"),
		bad("P2", "/api/v1/namespaces/MARK/pods\\x"),
		bad("P2", "/api/v1/namespaces/MARK/\"pods\""),
		bad("P2", "/api/v1/namespaces/MARK/pods<>"),
		bad("P2", "/api/v1/namespaces/MARK/{pods}"),
		bad("P2", "/api/v1/namespaces/MARK/p^ds"),
		bad("P2", "/api/v1/namespaces/MARK/p`ds"),
		bad("P2", "/api/v1/namespaces/MARK/pоds"),
		bad("P2", "/api/v1/namespaces/MARK/pods\xff"),
		bad("P3", "/api/v1/namespaces/MARK/%73ecrets/db"),
		bad("P3", "/api/v1/namespaces/MARK/pods/x/%65xec"),
		bad("P3", "/%61pi/v1/namespaces/MARK/pods"),
		bad("P3", "/api/v1/n%61mespaces/MARK/secrets"),
		bad("P8", "/api/v1/namespaces/MARK/pods?limit=1&limit=2"),
		bad("P8", "/api/v1/namespaces/MARK/pods?limit=1&%6cimit=2"),
		bad("P8", "/api/v1/namespaces/MARK/pods?labelSelector=a&labelSelector=b"),
		bad("P8", "/api/v1/namespaces/MARK/pods?dryRun=All&dryRun="),
		bad("P8", "/api/v1/namespaces/MARK/pods?limit=1;watch=1"),
		bad("P8", "/api/v1/namespaces/MARK/pods?;"),
		bad("P8", "/api/v1/namespaces/MARK/pods?a=%zz"),
		bad("P8", "/api/v1/namespaces/MARK/pods?a=%"),
		bad("P8", "/api/v1/namespaces/MARK/pods/x/log?container=a&container=b"),
		bad("P8", "/api/v1/namespaces/MARK/pods?watch=0&watch=1"),
		bad("P8", "/api/v1/namespaces/MARK/pods?watch&watch"),
		bad("too long", "/api/v1/namespaces/MARK/pods?x="+strings.Repeat("x", 70<<10)),
		bad("too many words", "/api/v1/namespaces/MARK/pods/x/exec?"+strings.Repeat("command=x&", 1100)),
	}
	for _, method := range []string{"OPTIONS", "TRACE", "PROPFIND", "LINK", "CONNECT", "get", "GETS", "PATCHY", "WATCH"} {
		probes = append(probes, probe{name: "P4 " + method, Request: send(method, pods, ""), code: 405, reason: "MethodNotAllowed"})
	}
	probes = append(probes, probe{name: "P4 HEAD", Request: send("HEAD", pods, ""), code: 405})
	for _, path := range []string{"/metrics", "/metrics/", "/metrics/slis", "/debug/pprof/", "/debug/pprof/heap", "/debug/flags/v", "/logs", "/logs/", "/configz", "/flagz", "/statusz",
		"/", "/.well-known/openid-configuration", "/openid/v1/jwks", "/swagger.json", "/ui", "/api1", "/apis2/apps", "/versions", "/Version", "/API/v1/pods", "/healthzz", "/ready"} {
		probes = append(probes, probe{name: "P5 " + path, Request: get(path + "?MARK"), code: 403, reason: "Forbidden", says: "no rule allows"})
	}
	probes = append(probes, probe{name: "P5 a write to what may be read", Request: send("POST", "/version?MARK", "{}"), code: 403, reason: "Forbidden"})
	refused(t, agent, probes)
}

// Threats R1, R2, R3, R4, P1, P10: what would be more than reading.
func TestPrivilegePivots(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"containers":[{"name":"c","image":"x","securityContext":{"privileged":true}}]}}`
	binding := `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"x"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},"subjects":[{"kind":"Group","name":"sallyport:operate","apiGroup":"rbac.authorization.k8s.io"}]}`
	for _, group := range []string{"observers", "agents", "developers"} {
		agent := s.Agent(t, group)
		var probes []probe
		deny := func(class, method, target, body string, header ...string) {
			probes = append(probes, probe{name: class + " " + method + " " + target, Request: send(method, target, body, header...), code: 403, reason: "Forbidden"})
		}
		for _, target := range []string{
			"/api/v1/nodes/dev-node/proxy", "/api/v1/nodes/dev-node/proxy/", "/api/v1/nodes/dev-node/proxy/pods?MARK", "/api/v1/nodes/dev-node/proxy/run/dev/x/web?cmd=MARK",
			"/api/v1/nodes/https:dev-node:10250/proxy/exec/dev/x/web?command=MARK", "/api/v1/proxy/nodes/dev-node/pods?MARK", "/api/v1/proxy/namespaces/MARK/pods/x",
		} {
			deny("R1", "GET", target, "")
			deny("R1", "POST", target, "{}")
		}
		for _, kind := range []string{"pods", "services"} {
			for _, tail := range []string{"", "/", "/metrics", "/x/y/z?q=1"} {
				deny("R2", "GET", "/api/v1/namespaces/MARK/"+kind+"/web:8080/proxy"+tail, "")
				deny("R2", "DELETE", "/api/v1/namespaces/MARK/"+kind+"/web:8080/proxy"+tail, "")
			}
		}
		deny("R2", "PATCH", "/api/v1/namespaces/dev/pods/POD/ephemeralcontainers?MARK", `{}`, "Content-Type: application/strategic-merge-patch+json")
		deny("R2", "POST", "/api/v1/namespaces/MARK/serviceaccounts/app/token", `{}`)
		// What an agent may have people asked about is only looked at here: it is decided, and nothing of it reaches the cluster.
		ask := func(class, method, target, body string) {
			if group != "agents" {
				deny(class, method, target, body)
				return
			}
			probes = append(probes, probe{name: class + " " + method + " " + target, Request: send(method, target, body, "Sallyport-Ask: look"), code: http.StatusAccepted})
		}
		ask("R2", "POST", "/api/v1/namespaces/MARK/pods/POD/eviction", `{}`)
		deny("R2", "POST", "/api/v1/namespaces/MARK/pods/POD/binding", `{}`)
		deny("R2", "POST", "/api/v1/namespaces/MARK/bindings", `{}`)
		deny("R2", "PUT", "/api/v1/namespaces/MARK/finalize", `{}`)
		deny("R2", "PUT", "/api/v1/namespaces/dev/pods/POD/status?MARK", `{}`)
		if group == "observers" {
			deny("R2", "PATCH", "/apis/apps/v1/namespaces/dev/deployments/web/scale?MARK", `{"spec":{"replicas":0}}`, "Content-Type: application/merge-patch+json")
		}
		deny("R2", "PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/MARK/approval", `{}`)
		deny("R3", "POST", "/api/v1/namespaces/MARK/pods", pod)
		deny("R3", "POST", "/api/v1/namespaces/MARK/pods?dryRun=All", pod)
		deny("R3", "POST", "/api/v1/namespaces/MARK/pods", "k8s\x00x", "Content-Type: application/vnd.kubernetes.protobuf")
		deny("R3", "PATCH", "/api/v1/namespaces/MARK/pods/x?fieldManager=x&force=true", pod, "Content-Type: application/apply-patch+yaml")
		for _, kind := range []string{"deployments", "daemonsets", "statefulsets", "replicasets"} {
			deny("R3", "POST", "/apis/apps/v1/namespaces/MARK/"+kind, `{}`)
		}
		deny("R3", "POST", "/apis/batch/v1/namespaces/MARK/jobs", `{}`)
		deny("R3", "POST", "/apis/batch/v1/namespaces/MARK/cronjobs", `{}`)
		deny("R4", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?MARK", binding)
		deny("R4", "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/MARK/roles", `{}`)
		deny("R4", "POST", "/apis/rbac.authorization.k8s.io/v1/clusterroles?MARK", `{}`)
		deny("R4", "POST", "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?MARK", `{}`)
		deny("R4", "POST", "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies?MARK", `{}`)
		deny("R4", "POST", "/apis/apiregistration.k8s.io/v1/apiservices?MARK", `{}`)
		deny("R4", "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests?MARK", `{}`)
		deny("R4", "PATCH", "/api/v1/namespaces/kube-system/configmaps/aws-auth?MARK", `{}`, "Content-Type: application/merge-patch+json")
		deny("R4", "PATCH", "/api/v1/namespaces/MARK/serviceaccounts/app", `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"x"}}}`, "Content-Type: application/merge-patch+json")
		deny("R4", "PATCH", "/api/v1/nodes/MARK", `{}`, "Content-Type: application/merge-patch+json")
		deny("other people's reviews", "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews?MARK", `{}`)
		deny("other people's reviews", "POST", "/apis/authorization.k8s.io/v1/namespaces/MARK/localsubjectaccessreviews", `{}`)
		deny("other people's reviews", "POST", "/apis/authentication.k8s.io/v1/tokenreviews?MARK", `{}`)
		deny("other people's reviews", "POST", "/apis/example.com/v1/selfsubjectreviews?MARK", stacktest.Review)
		deny("other people's reviews", "PUT", stacktest.ReviewPath+"/MARK", stacktest.Review)
		ask("P1", "DELETE", "/api/v1/namespaces/MARK/pods/x/", "")
		ask("P10", "DELETE", "/api/v1/namespaces/MARK/pods", "")
		ask("P10", "DELETE", "/api/v1/namespaces/MARK/pods/", "")
		ask("P10", "DELETE", "/api/v1/namespaces/MARK/pods?labelSelector=app%3Dweb", "")
		deny("P10", "DELETE", "/api/v1/namespaces/MARK/secrets?dryRun=All", "")
		ask("P10", "DELETE", "/api/v1/namespaces/MARK", "")
		// The legacy paths are watches by name: the cluster's parser calls them so whatever the method is.
		for _, method := range []string{"DELETE", "POST", "PUT", "PATCH"} {
			for _, target := range []string{"/api/v1/watch/namespaces/MARK/pods", "/apis/apps/v1/watch/namespaces/MARK/deployments/web"} {
				probes = append(probes, probe{name: "P7 " + method + " " + target, Request: send(method, target, "{}"), code: 405, reason: "MethodNotAllowed"})
			}
		}
		t.Run(group, func(t *testing.T) { t.Parallel(); refused(t, agent, probes) })
	}
}

// What is allowed reaches the cluster exactly as it was sent, and the gate reads it as the cluster does.
func TestReadAsTheClusterReads(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	pod := s.Pod(t, "dev")
	var mu sync.Mutex
	var ids []string
	targets := map[string]string{}
	var wg sync.WaitGroup
	for _, target := range []string{
		"/api/v1/namespaces/dev/pods", "/api/v1/namespaces/dev/pods/", "/api/v1/namespaces/dev/pods/" + pod, "/api/v1/namespaces/dev/pods/" + pod + "/", "/api/v1/pods?limit=1",
		"/api/v1/namespaces/dev/pods/" + pod + "/status", "/api/v1/namespaces/dev/pods/" + pod + "/log?tailLines=1", "/api/v1/namespaces/dev/pods/" + pod + "/log/?tailLines=1",
		"/api/v1/namespaces", "/api/v1/namespaces/dev", "/api/v1/namespaces/dev/", "/api/v1/namespaces/dev/status", "/api/v1/nodes/dev-node", "/apis/apps/v1/namespaces/dev/deployments/web/scale",
		// P7: all of these are watches, or none.
		"/api/v1/namespaces/dev/configmaps?watch=1&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?watch=true&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?watch&timeoutSeconds=1",
		"/api/v1/namespaces/dev/configmaps?watch=&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?watch=yes&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?watch=TRUE&timeoutSeconds=1",
		"/api/v1/namespaces/dev/configmaps?watch=0&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?watch=false&timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps?Watch=1&timeoutSeconds=1",
		"/api/v1/namespaces/dev/configmaps?%77atch=1&timeoutSeconds=1", "/api/v1/watch/namespaces/dev/configmaps?timeoutSeconds=1", "/api/v1/watch/namespaces/dev/configmaps/settings?timeoutSeconds=1",
		"/api/v1/watch/configmaps?timeoutSeconds=1", "/api/v1/namespaces/dev/configmaps/settings?watch=1&timeoutSeconds=1",
		// P9: a selector may name an object.
		"/api/v1/namespaces/dev/configmaps?fieldSelector=metadata.name=settings", "/api/v1/namespaces/dev/configmaps?fieldSelector=metadata.name%3Dsettings", "/api/v1/namespaces/dev/configmaps?fieldSelector=metadata.name!=settings",
		"/api/v1/namespaces/dev/configmaps?watch=1&fieldSelector=metadata.name%3Dsettings&timeoutSeconds=1",
		// P6: the same word in another group is another resource.
		"/apis/metrics.k8s.io/v1beta1/namespaces/dev/pods", "/api/v2/namespaces/dev/pods", "/apis/events.k8s.io/v1/namespaces/dev/events",
		"/version", "/version/", "/api", "/apis", "/apis/", "/api/v1", "/apis/apps", "/apis/apps/v1", "/openapi/v2?timeout=32s", "/openapi/v3", "/api/v1?x=%C3%BC&y=a+b&empty=&bare",
		"/api/v1/namespaces/dev/pods?labelSelector=app%20in%20%28web%29&limit=500&", "/api/v1/namespaces/dev/pods?",
		"/api/v1/namespaces/d!e$v/pods", "/api/v1/namespaces/dev/pods/" + pod + "/log/x/y?tailLines=1",
	} {
		wg.Go(func() {
			a := agent.Get(t, target)
			if a.Code == http.StatusBadRequest || a.Code >= 500 {
				t.Errorf("GET %s: %v", target, a)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			targets[a.AuditID()] = target
			ids = append(ids, a.AuditID())
		})
	}
	wg.Wait()
	record := agent.Recorded(t, ids...)
	s.Reached(t, agent.Get(t, "/version").AuditID())
	log := map[string]auditv1.Event{}
	for _, e := range s.Audit(t) {
		if e.Stage == auditv1.StageResponseComplete {
			log[string(e.AuditID)] = e
		}
	}
	for _, id := range ids {
		cluster, ok := log[id]
		if !ok {
			t.Errorf("%s did not reach the cluster", targets[id])
			continue
		}
		gate, _ := record.End(id)
		if cluster.RequestURI != targets[id] {
			t.Errorf("%s reached the cluster as %s", targets[id], cluster.RequestURI)
		}
		if gate.Verb != cluster.Verb {
			t.Errorf("%s: the gate reads verb %s, the cluster %s", targets[id], gate.Verb, cluster.Verb)
		}
		c, g := cluster.ObjectRef, gate.ObjectRef
		switch {
		case c == nil && g == nil:
		case c == nil || g == nil:
			t.Errorf("%s: the gate reads %v, the cluster %v", targets[id], g, c)
		case c.APIGroup != g.APIGroup || c.Resource != g.Resource || c.Subresource != g.Subresource || c.Namespace != g.Namespace ||
			c.Name != g.Name && (g.Name != "" || !strings.Contains(targets[id], "fieldSelector")): // a name that is only selected is none for the gate
			t.Errorf("%s: the gate reads %+v, the cluster %+v", targets[id], *g, *c)
		}
		if gate.ResponseStatus == nil || gate.ResponseStatus.Code != cluster.ResponseStatus.Code {
			t.Errorf("%s: the gate records %v, the cluster %v", targets[id], gate.ResponseStatus, cluster.ResponseStatus)
		}
	}
}
