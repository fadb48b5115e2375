package action_test

import (
	"bufio"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

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
		{"DELETE", "/api/v1/namespaces/dev/pods?labelSelector=a%3Db", access.Action{Verb: "deletecollection", Version: "v1", Resource: "pods", Namespace: "dev", Path: "/api/v1/namespaces/dev/pods", LabelSelector: "a=b"}},
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

// P9, P10: a selector is kept in the caller's words and makes no name; only the path does.
func TestSelectors(t *testing.T) {
	for target, want := range map[string]access.Action{
		"/api/v1/namespaces/p/secrets?fieldSelector=metadata.name%3Ddb":                      {Verb: "list", FieldSelector: "metadata.name=db"},
		"/api/v1/namespaces/p/secrets?fieldSelector=metadata.name%3Ddb&labelSelector=a%3Db":  {Verb: "list", FieldSelector: "metadata.name=db", LabelSelector: "a=b"},
		"/api/v1/namespaces/p/secrets?fieldSelector=metadata.name%3Ddb&watch=1":              {Verb: "watch", FieldSelector: "metadata.name=db"},
		"/api/v1/watch/namespaces/p/secrets?fieldSelector=metadata.name%3Ddb":                {Verb: "watch", FieldSelector: "metadata.name=db"},
		"/api/v1/secrets?fieldSelector=metadata.name%3D%3Ddb,metadata.namespace%3Dp":         {Verb: "list", FieldSelector: "metadata.name==db,metadata.namespace=p"},
		"/api/v1/namespaces/p/secrets/db?fieldSelector=metadata.name%3Dother":                {Verb: "get", Name: "db"},
		"/api/v1/watch/namespaces/p/secrets/db?labelSelector=a%3Db":                          {Verb: "watch", Name: "db"},
		"/apis/example.com/v1/namespaces/p/widgets?fieldSelector=metadata.name%3Ddb&limit=1": {Verb: "list", FieldSelector: "metadata.name=db"},
	} {
		got, err := action.Parse("GET", target)
		got = access.Action{Verb: got.Verb, Name: got.Name, LabelSelector: got.LabelSelector, FieldSelector: got.FieldSelector}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", target, err, d)
		}
	}
	got, err := action.Parse("DELETE", "/api/v1/namespaces/p/secrets?fieldSelector=metadata.name%3Ddb")
	if err != nil || got.Verb != "deletecollection" || got.Name != "" || got.FieldSelector != "metadata.name=db" {
		t.Errorf("got %+v, %v", got, err)
	}
}

// What an exec asks for besides its command is read as the API server reads it.
func TestExecOptions(t *testing.T) {
	const exec = "/api/v1/namespaces/dev/pods/web/"
	for target, want := range map[string]access.Action{
		exec + "exec?command=sh&container=app&stdin=true&tty=1": {Verb: "exec", Container: "app", Stdin: true, TTY: true},
		exec + "exec?command=sh&stdin&tty=false":                {Verb: "exec", Stdin: true},
		exec + "attach?container=app&stdin=0&tty=TRUE":          {Verb: "attach", Container: "app", TTY: true},
		exec + "portforward?container=app&stdin=1":              {Verb: "portforward"},
		exec + "exec?command=sh&dryRun=All":                     {Verb: "exec"}, // it runs all the same
	} {
		got, err := action.Parse("GET", target)
		got = access.Action{Verb: got.Verb, Container: got.Container, Stdin: got.Stdin, TTY: got.TTY, DryRun: got.DryRun}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", target, err, d)
		}
	}
}

// P8: a dry run is one only when the cluster will store nothing.
func TestDryRun(t *testing.T) {
	for _, test := range []struct {
		method, target string
		want           bool
	}{
		{"POST", "/api/v1/namespaces/dev/pods?dryRun=All", true},
		{"PUT", "/api/v1/namespaces/dev/pods/web?dryRun=All", true},
		{"PATCH", "/apis/apps/v1/namespaces/dev/deployments/web/scale?dryRun=All", true},
		{"DELETE", "/api/v1/namespaces/dev/pods/web?dryRun=All", true},
		{"DELETE", "/api/v1/namespaces/dev/pods?dryRun=All", true},
		{"POST", "/api/v1/namespaces/dev/pods/web/eviction?dryRun=All", true},
		{"PATCH", "/apis/example.com/v1/namespaces/dev/widgets/w?dryRun=All", true},
		{"POST", "/api/v1/namespaces/dev/pods", false},
		{"GET", "/api/v1/namespaces/dev/pods?dryRun=All", false},
		{"POST", "/api/v1/namespaces/dev/pods/web/exec?command=rm&dryRun=All", false},
		{"POST", "/api/v1/namespaces/dev/pods/web/proxy/x?dryRun=All", false},
		{"PUT", "/api/v1/nodes/n/proxy?dryRun=All", false},
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/sa/token?dryRun=All", false},
		{"PUT", "/apis/subresources.kubevirt.io/v1/namespaces/dev/virtualmachines/vm/restart?dryRun=All", false},
		{"POST", "/api/v1/namespaces/dev/pods?dryrun=All", false}, // parameters are case-sensitive
	} {
		if a, err := action.Parse(test.method, test.target); err != nil || a.DryRun != test.want {
			t.Errorf("%s %s: dry run %v, %v; want %v", test.method, test.target, a.DryRun, err, test.want)
		}
	}
	for _, v := range []string{"", "all", "ALL", "true", "None", "All,All", "All%20", "%00"} {
		if a, err := action.Parse("POST", "/api/v1/namespaces/dev/pods?dryRun="+v); access.KindOf(err) != access.Invalid {
			t.Errorf("dryRun=%s: got %+v, %v; want it refused", v, a, err)
		}
	}
}

// Whatever way a command line is written, what reaches the gate is the request; these are the ones that have slipped past
// filters on command lines and URLs. Each must be the same action as its plain form.
func TestEvasions(t *testing.T) {
	for plain, others := range map[string][]string{
		"DELETE /api/v1/namespaces/prod":                          {"DELETE /api/v1/namespaces/prod/", "DELETE /api/v1/namespaces/prod?propagationPolicy=Background", "DELETE /api/v1/namespaces/prod?pretty=true&gracePeriodSeconds=0"},
		"GET /api/v1/namespaces/p/secrets/db":                     {"GET /api/v1/namespaces/p/secrets/db/", "GET /api/v1/namespaces/p/secrets/db?pretty=1", "GET /api/v1/namespaces/p/secrets/db?watch=true"},
		"GET /api/v1/namespaces/p/secrets":                        {"GET /api/v1/namespaces/p/secrets/", "GET /api/v1/namespaces/p/secrets?limit=500", "GET /api/v1/namespaces/p/secrets?watch=0"},
		"POST /api/v1/namespaces/p/pods/web/exec?command=/bin/sh": {"GET /api/v1/namespaces/p/pods/web/exec?command=/bin/sh", "GET /api/v1/namespaces/p/pods/web/exec/?command=%2Fbin%2Fsh", "POST /api/v1/namespaces/p/pods/web/exec?stdout=1&command=%2f%62in/sh&stderr=1", "POST /api/v1/namespaces/p/pods/web/exec?%63ommand=/bin/sh"},
		"DELETE /apis/apps/v1/namespaces/p/deployments/web":       {"DELETE /apis/apps/v1/namespaces/p/deployments/web/"},
	} {
		parse := func(line string) access.Action {
			method, target, _ := strings.Cut(line, " ")
			a, err := action.Parse(method, target)
			if err != nil {
				t.Errorf("%s: %v", line, err)
			}
			a.Path = strings.TrimSuffix(a.Path, "/")
			return a
		}
		want := parse(plain)
		for _, line := range others {
			if d := cmp.Diff(want, parse(line)); d != "" {
				t.Errorf("%s is not %s:\n%s", line, plain, d)
			}
		}
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

// What was accepted once is read the same again, a resource request always has a verb and a resource, and all of it is
// what the API server's own parser, with its own settings, makes of the bytes as Go's HTTP server reads them.
func FuzzParse(f *testing.F) {
	f.Add("GET", "/api/v1/namespaces/dev/pods/web/exec?command=sh")
	f.Add("DELETE", "/apis/apps/v1/namespaces/dev/deployments?fieldSelector=metadata.name%3Dx")
	f.Add("GET", "/api/v1/watch/namespaces/dev/pods?fieldSelector=metadata.name%3Dx&labelSelector=a")
	f.Add("POST", "/api/v1/namespaces/dev/pods/web/attach/?stdin=1&tty=&container=a&dryRun=All")
	f.Add("GET", "/api/v1/namespaces/dev/finalize/status/x")
	f.Add("GET", "/api/v1/namespaces/dev/secrets/db?reveal=password")
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
		agrees(t, method, target, a)
		if again, err := action.Parse(method, target); err != nil || !cmp.Equal(a, again) {
			t.Errorf("read twice, read differently: %+v, %+v, %v", a, again, err)
		}
	})
}

// server is the API server's parser as genericapiserver.NewRequestInfoResolver sets it up.
var server = &request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}

func agrees(t *testing.T, method, target string, a access.Action) {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " " + target + " HTTP/1.1\r\nHost: cluster\r\n\r\n")))
	if err != nil {
		return // it never reaches a parser
	}
	info, err := server.NewRequestInfo(r)
	if err != nil {
		t.Fatalf("%s %q: the API server refuses what is accepted here: %v", method, target, err)
	}
	verb := info.Verb
	if a.Upgrade {
		verb = a.Verb
		if info.Subresource != verb || info.APIGroup != "" || info.Resource != "pods" {
			t.Errorf("%s %q: %s, and the API server says %+v", method, target, verb, info)
		}
	}
	if a.Verb == "reveal" {
		verb = a.Verb
		if info.Verb != "get" || info.APIGroup != "" || info.Resource != "secrets" || info.Subresource != "" || info.Name == "" || info.Namespace == "" {
			t.Errorf("%s %q: a reveal, and the API server says %+v", method, target, info)
		}
	}
	name := info.Name
	if len(info.Parts) < 2 {
		name = ""
	}
	want := access.Action{
		Verb: verb, Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource, Subresource: info.Subresource, Namespace: info.Namespace,
		Name: name, Path: info.Path, Resourceless: !info.IsResourceRequest, LabelSelector: info.LabelSelector, FieldSelector: info.FieldSelector,
	}
	if strings.Contains(info.Path, "/watch/") {
		want.LabelSelector, want.FieldSelector = a.LabelSelector, a.FieldSelector // the API server obeys them here, but does not show them to authorizers
	}
	want.Stream, want.Upgrade, want.Argv, want.Container, want.Stdin, want.TTY, want.DryRun = a.Stream, a.Upgrade, a.Argv, a.Container, a.Stdin, a.TTY, a.DryRun
	want.Reveal = a.Reveal
	if d := cmp.Diff(want, a); d != "" {
		t.Errorf("%s %q is another request to the API server:\n%s", method, target, d)
	}
}

func BenchmarkParse(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := action.Parse("GET", "/apis/apps/v1/namespaces/dev/deployments?labelSelector=app%3Dweb&limit=500"); err != nil {
			b.Fatal(err)
		}
	}
}

// The API server's parser takes /watch/ for the verb even in front of exec, so that RBAC would be asked for another verb
// than policy: found by e2e/differential.
func TestNobodyWatchesExec(t *testing.T) {
	for _, target := range []string{
		"/api/v1/watch/namespaces/dev/pods/web/exec?command=sh", "/api/v1/watch/namespaces/dev/pods/web/exec/?command=sh",
		"/api/v1/watch/namespaces/dev/pods/web/attach", "/api/v1/watch/namespaces/dev/pods/web/portforward?ports=1",
	} {
		if a, err := action.Parse("GET", target); access.KindOf(err) != access.Invalid {
			t.Errorf("%s is %+v, %v", target, a, err)
		}
	}
}
