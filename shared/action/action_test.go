package action_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

func TestParse(t *testing.T) {
	pod := access.Action{Version: "v1", Resource: "pods", Namespace: "dev", Name: "web", Path: "/api/v1/namespaces/dev/pods/web"}
	with := func(change func(*access.Action)) access.Action { a := pod; change(&a); return a }
	sub := func(verb, s string, argv ...string) access.Action {
		return with(func(a *access.Action) {
			a.Verb, a.Subresource, a.Stream, a.Upgrade, a.Argv = verb, s, true, true, argv
			a.Path += "/" + s
		})
	}
	for _, test := range []struct {
		method, target string
		want           access.Action
	}{
		{"GET", "/api/v1/namespaces/dev/pods/web", with(func(a *access.Action) { a.Verb = "get" })},
		{"DELETE", "/api/v1/namespaces/dev/pods/web", with(func(a *access.Action) { a.Verb = "delete" })},
		{"PUT", "/api/v1/namespaces/dev/pods/web", with(func(a *access.Action) { a.Verb = "update" })},
		{"PATCH", "/api/v1/namespaces/dev/pods/web", with(func(a *access.Action) { a.Verb = "patch" })},
		{"GET", "/api/v1/namespaces/dev/pods", access.Action{Verb: "list", Version: "v1", Resource: "pods", Namespace: "dev", Path: "/api/v1/namespaces/dev/pods"}},
		{"DELETE", "/api/v1/namespaces/dev/pods?labelSelector=a%3Db", access.Action{Verb: "deletecollection", Version: "v1", Resource: "pods", Namespace: "dev", Path: "/api/v1/namespaces/dev/pods"}},
		{"GET", "/apis/apps/v1/deployments", access.Action{Verb: "list", Group: "apps", Version: "v1", Resource: "deployments", Path: "/apis/apps/v1/deployments"}},
		{"GET", "/api/v1/nodes/n/proxy/configz", access.Action{Verb: "get", Version: "v1", Resource: "nodes", Subresource: "proxy", Name: "n", Path: "/api/v1/nodes/n/proxy/configz"}},
		{"GET", "/version", access.Action{Verb: "get", Path: "/version", Resourceless: true}},
		{"GET", "/apis/apps/v1", access.Action{Verb: "get", Path: "/apis/apps/v1", Resourceless: true}},
		{"POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", access.Action{Verb: "create", Group: "authentication.k8s.io", Version: "v1", Resource: "selfsubjectreviews", Path: "/apis/authentication.k8s.io/v1/selfsubjectreviews"}},

		{"GET", "/api/v1/namespaces/dev/pods/web/exec?command=sh&command=-c&command=exit+7&stdout=true", sub("exec", "exec", "sh", "-c", "exit 7")},
		{"POST", "/api/v1/namespaces/dev/pods/web/exec?command=sh", sub("exec", "exec", "sh")},
		{"GET", "/api/v1/namespaces/dev/pods/web/attach", sub("attach", "attach")},
		{"GET", "/api/v1/namespaces/dev/pods/web/portforward?ports=1&ports=2", sub("portforward", "portforward")},
		// P1: a trailing slash reaches exec at the API server, and is exec here.
		{"GET", "/api/v1/namespaces/dev/pods/web/exec/?command=sh", with(func(a *access.Action) {
			a.Verb, a.Subresource, a.Stream, a.Upgrade, a.Argv = "exec", "exec", true, true, []string{"sh"}
			a.Path += "/exec/"
		})},
		// Only GET and POST upgrade; the rest keeps the API server's verb, which no rule allows.
		{"PUT", "/api/v1/namespaces/dev/pods/web/exec", with(func(a *access.Action) { a.Verb, a.Subresource, a.Path = "update", "exec", a.Path+"/exec" })},
		// P6: the same resource name in another group is not pods/exec.
		{"POST", "/apis/evil.io/v1/namespaces/dev/pods/web/exec", access.Action{Verb: "create", Group: "evil.io", Version: "v1", Resource: "pods", Subresource: "exec", Namespace: "dev", Name: "web", Path: "/apis/evil.io/v1/namespaces/dev/pods/web/exec"}},

		{"GET", "/api/v1/namespaces/dev/pods/web/log", with(func(a *access.Action) { a.Verb, a.Subresource, a.Path = "get", "log", a.Path+"/log" })},
		{"GET", "/api/v1/namespaces/dev/pods/web/log?follow=true", with(func(a *access.Action) { a.Verb, a.Subresource, a.Stream, a.Path = "get", "log", true, a.Path+"/log" })},
		{"GET", "/api/v1/namespaces/dev/pods/web/log?follow=false", with(func(a *access.Action) { a.Verb, a.Subresource, a.Path = "get", "log", a.Path+"/log" })},
	} {
		t.Run(test.method+" "+test.target, func(t *testing.T) {
			got, err := action.Parse(test.method, test.target)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

// P7: whatever the API server takes for a watch is a watch.
func TestWatch(t *testing.T) {
	for target, want := range map[string]string{
		"/api/v1/pods?watch=1": "watch", "/api/v1/pods?watch=true": "watch", "/api/v1/pods?watch": "watch", "/api/v1/pods?watch=": "watch",
		"/api/v1/pods?watch=TRUE": "watch", "/api/v1/pods?watch=yes": "watch", "/api/v1/watch/pods": "watch", "/api/v1/watch/namespaces/dev/pods/web": "watch",
		"/api/v1/pods?watch=0": "list", "/api/v1/pods?watch=false": "list", "/api/v1/pods": "list",
		"/api/v1/pods?Watch=true": "list", // parameters are case-sensitive
	} {
		a, err := action.Parse("GET", target)
		if err != nil || a.Verb != want || a.Stream != (want == "watch") {
			t.Errorf("%s: got %q (stream %v), %v; want %q", target, a.Verb, a.Stream, err, want)
		}
	}
}

// P7: the path prefix /watch/ makes a verb out of any method in the API server's parser; only GET reads.
func TestWatchIsAskedForWithGet(t *testing.T) {
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE"} {
		for _, target := range []string{"/api/v1/watch/pods", "/api/v1/watch/namespaces/dev/secrets/db", "/apis/apps/v1/watch/deployments"} {
			if a, err := action.Parse(method, target); access.KindOf(err) != access.Method {
				t.Errorf("%s %s: got %+v, %v; want it refused as a method", method, target, a, err)
			}
		}
		if a, err := action.Parse(method, "/api/v1/namespaces/dev/pods/web?watch=true"); err == nil && (a.Verb == "watch" || a.Verb == "get" || a.Verb == "list") {
			t.Errorf("%s with watch=true is a %s", method, a.Verb)
		}
	}
}

// P2, P3, P4, P8: what could be read in two ways is refused, not cleaned.
func TestParseRefuses(t *testing.T) {
	for _, target := range []string{
		"/api/v1/namespaces/dev/pods%2Fweb", "/api/v1/namespaces/dev%2fpods", "/api/v1/namespaces/dev/pods/%5C", "/api/v1/%00", "/api/v1/%25",
		"/api/v1/namespaces/p/%73ecrets/db", "/api/v1/namespaces/p/%2e%2e/pods",
		"/api/v1/namespaces//pods", "//api/v1/pods", "/api//v1/pods", "/api/v1/pods//", "/api/v1/./pods", "/api/v1/../pods", "/..", "/api/v1/pods/..",
		"/api/v1/pods;a=b", `/api/v1\pods`, "/api/v1/pods#x", "/api/v1/pods\x00", "/api/v1/pöds", "/api/v1/pods\r\n", "/api/v1/po ds", "/api/v1/pods\xff",
		"/api/v1/pods?a;b", "/api/v1/pods?a=%zz", "/api/v1/pods?dryRun=All&dryRun=", "/api/v1/pods?limit=1&limit=2", "/api/v1/pods?watch=0&watch=1",
		"/api/v1/namespaces/dev/pods/web/exec?container=a&container=b", "/api/v1/pods?%77atch=0&watch=1",
		"", "*", "api/v1/pods", "http://elsewhere/api/v1/pods", "example.com:443",
		"/api/v1/pods?x=" + strings.Repeat("a", 64<<10),
		"/api/v1/namespaces/dev/pods/web/exec?" + strings.Repeat("command=a&", 1025),
	} {
		if a, err := action.Parse("GET", target); access.KindOf(err) != access.Invalid {
			t.Errorf("%.100q: got %+v, %v; want it refused as invalid", target, a, err)
		}
	}
	for _, method := range []string{"HEAD", "OPTIONS", "TRACE", "CONNECT", "", "get", "PROPFIND", "DELETE "} {
		if _, err := action.Parse(method, "/api/v1/pods"); access.KindOf(err) != access.Method {
			t.Errorf("method %q: got %v, want it refused as a method", method, err)
		}
	}
}

// What was accepted once is read the same again, and a resource request always has a verb and a resource.
func FuzzParse(f *testing.F) {
	f.Add("GET", "/api/v1/namespaces/dev/pods/web/exec?command=sh")
	f.Add("DELETE", "/apis/apps/v1/namespaces/dev/deployments?fieldSelector=metadata.name%3Dx")
	f.Fuzz(func(t *testing.T, method, target string) {
		a, err := action.Parse(method, target)
		if err != nil {
			if k := access.KindOf(err); k != access.Invalid && k != access.Method {
				t.Errorf("%q %q: %v is of kind %s", method, target, err, k)
			}
			return
		}
		if a.Verb == "" || !a.Resourceless && a.Resource == "" {
			t.Errorf("%q %q: %+v has no verb or resource", method, target, a)
		}
		if strings.ContainsAny(a.Path, "%;\\") || strings.Contains(a.Path, "//") {
			t.Errorf("%q is not canonical", a.Path)
		}
		if again, err := action.Parse(method, target); err != nil || !cmp.Equal(a, again) {
			t.Errorf("read twice, read differently: %+v, %+v, %v", a, again, err)
		}
	})
}
