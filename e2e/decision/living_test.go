package decision_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// The tests in this file change the policy of the running stack, so none of them is parallel to another.

func escape(s string) string { return url.QueryEscape(s) }

const things = "things.example.com"

// crd makes a kind of group things.example.com, and gives tier operate all of it: what is decided about it is the gate's
// decision alone.
func crds(t *testing.T, s *stacktest.Stack, kinds ...string) {
	t.Helper()
	for _, kind := range kinds {
		plural := strings.ToLower(kind) + "s"
		s.Create(t, fmt.Sprintf(`{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition","metadata":{"name":"%[2]s.%[3]s"},"spec":{"group":%[3]q,"scope":"Namespaced","names":{"kind":%[1]q,"plural":%[2]q,"singular":%[4]q},
			"versions":[{"name":"v1","served":true,"storage":true,"schema":{"openAPIV3Schema":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}]}}`, kind, plural, things, strings.ToLower(kind)))
	}
	s.Create(t, fmt.Sprintf(`{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"test-things"},"rules":[{"apiGroups":[%q],"resources":["*"],"verbs":["*"]}]}`, things))
	s.Create(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"test-things"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"test-things"},"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"sallyport:operate"}]}`)
	for _, kind := range kinds {
		plural := strings.ToLower(kind) + "s"
		stacktest.Eventually(t, within, func() string {
			if out := s.Admin(t, "get", "--raw", "/apis/"+things); !strings.Contains(out, `"v1"`) {
				return out
			}
			if out := s.Admin(t, "get", "--raw", "/apis/"+things+"/v1"); !strings.Contains(out, `"`+plural+`"`) {
				return out
			}
			return ""
		})
		for _, ns := range []string{"dev", "prod"} {
			for _, name := range []string{"one", "two"} {
				manifest := fmt.Sprintf(`{"apiVersion":"%s/v1","kind":%q,"metadata":{"name":%q,"namespace":%q}}`, things, kind, name, ns)
				s.Create(t, manifest)
			}
		}
	}
}

// Threats P6, P9, P10, and what rules say of names, namespaces, dry runs and commands.
func TestRules(t *testing.T) {
	s := stacktest.Get(t)
	crds(t, s, "Widget", "Gadget", "Gizmo", "Gear")
	agent, developer := s.Agent(t, "agents"), s.Agent(t, "developers")
	path := func(namespace, rest string) string {
		return "/apis/" + things + "/v1/namespaces/" + namespace + "/" + rest
	}
	all := func(resource string) string { return "/apis/" + things + "/v1/" + resource }
	none := func(method, target string) ask {
		return refuse("deny", "default", "no rule", method, target).saying("no rule allows")
	}

	// P6: a kind nobody has written a rule for, new as it is, and kinds of other groups that are only called like known ones.
	decide(t, agent,
		none("GET", path("dev", "widgets")), none("GET", path("dev", "widgets/one")), none("GET", all("widgets")), none("GET", path("dev", "widgets?watch=1")), none("DELETE", path("dev", "widgets/one")),
		none("GET", path("dev", "pods")), none("GET", path("dev", "configmaps/settings")), none("GET", "/apis/apps.example.com/v1/namespaces/dev/deployments"), none("GET", "/apis/app/v1/namespaces/dev/deployments"),
		none("GET", "/apis/apps/v1/namespaces/dev/pods"), none("GET", "/apis/core/v1/namespaces/dev/pods"), none("GET", "/apis/v1/v1/namespaces/dev/pods"), none("PATCH", path("dev", "deployments/web/scale")).with(merge, "{}"),
		allow("discovery", "what there is, it may know", "GET", "/apis/"+things+"/v1"),
		allow("read", "another version of a known group", "GET", "/api/v2/namespaces/dev/pods").answered(404),
	)
	if out := agent.Kubectl(t, "get", "widgets", "-n", "dev"); out.Code == 0 || !strings.Contains(out.Stderr, "no rule allows") {
		t.Errorf("kubectl get widgets: %v", out)
	}

	took := s.Policy(t).Add(
		`{name: widgets, effect: allow, groups: [agents], verbs: [get, list, watch], apiGroups: [things.example.com], resources: ["*"], when: 'action.resource == "widgets"'}`,
		`{name: widgets-pretend, effect: allow, groups: [agents], verbs: [delete], apiGroups: [things.example.com], resources: [widgets], dryRun: true}`,
		`{name: gadget-one, effect: allow, groups: [agents], verbs: [get, list, watch, delete, patch, create], apiGroups: [things.example.com], resources: [gadgets], resourceNames: [one, "^made-[a-z]+$"]}`,
		`{name: gizmos, effect: allow, groups: [agents], verbs: [get, list, watch], apiGroups: [things.example.com], resources: [gizmos]}`,
		`{name: gizmos-not-prod, effect: deny, verbs: ["*"], apiGroups: [things.example.com], resources: [gizmos], namespaces: [prod]}`,
		`{name: gears, effect: allow, groups: [agents], verbs: [get, list, watch, delete, create], apiGroups: [things.example.com], resources: [gears]}`,
		`{name: gear-two, effect: ask, groups: [agents], verbs: [get, list, watch, delete, deletecollection, create], apiGroups: [things.example.com], resources: [gears], resourceNames: [two]}`,
		`{name: nobody-reaches-nodes, effect: allow, groups: [agents, developers], verbs: [get, create], apiGroups: [""], resources: [nodes/proxy, serviceaccounts/token]}`,
		`{name: no-shells, effect: ask, groups: [developers], verbs: [exec], apiGroups: [""], resources: [pods], when: 'action.argv.size() == 0 || action.argv[0].matches("^(.*/)?(ba|da|a|z|k)?sh$")'}`,
		`{name: no-rm, effect: deny, groups: [developers], verbs: [exec], apiGroups: [""], resources: [pods], argv: [[rm, "-rf", /], [rm, "^-(rf|fr)$", "^/.*$"]]}`,
	)
	t.Logf("the new policy was in force after %v", took)

	widget := func(method, target string) ask { return refuse("deny", "default", "no rule", method, target) }
	options := func(a ask, body string) ask { return a.with(asJSON, body) }
	pretend := func(name, target string) ask { return allow("widgets-pretend", name, "DELETE", target) }
	one := path("dev", "widgets/one")
	gadget := func(name string) string {
		return fmt.Sprintf(`{"apiVersion":"%s/v1","kind":"Gadget","metadata":{%s}}`, things, name)
	}
	decide(t, agent,
		// P6: a rule that names the group.
		allow("widgets", "P6", "GET", path("dev", "widgets")), allow("widgets", "P6", "GET", path("prod", "widgets/one")), allow("widgets", "P6", "GET", all("widgets")),
		widget("POST", path("dev", "widgets")).with(asJSON, "{}"), widget("GET", path("dev", "unicorns")), widget("GET", "/apis/other.example.com/v1/namespaces/dev/widgets"), widget("GET", "/api/v1/namespaces/dev/widgets"),
		widget("GET", "/apis/things.example.com.evil.org/v1/namespaces/dev/widgets"), widget("GET", "/apis/xthings.example.com/v1/namespaces/dev/widgets"),

		// A dry run is one only when the cluster takes it for one.
		pretend("in the query", one+"?dryRun=All"), pretend("in the query, with a slash", one+"/?dryRun=All"), pretend("in the query, escaped", one+"?dry%52un=%41ll"),
		options(pretend("in the body", one), `{"dryRun":["All"]}`), options(pretend("in the body", one), `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`),
		widget("DELETE", one), options(widget("DELETE", one+"?dryRun=All"), `{}`), options(widget("DELETE", one+"?dryRun=All"), `{"kind":"DeleteOptions","apiVersion":"v1"}`),
		options(widget("DELETE", one+"?dryRun=All"), `{"dryRun":[]}`), options(widget("DELETE", one+"?dryRun=All"), `{"propagationPolicy":"Background"}`),
		widget("DELETE", path("dev", "widgets?dryRun=All")), widget("DELETE", path("dev", "widgets?fieldSelector=metadata.name%3Done&dryRun=All")),

		// P9: a name that the caller selects is no name.
		allow("gadget-one", "P9", "GET", path("dev", "gadgets/one")), widget("GET", path("dev", "gadgets/two")), widget("GET", path("dev", "gadgets")),
		widget("GET", path("dev", "gadgets?fieldSelector=metadata.name%3Done")), widget("GET", path("dev", "gadgets?fieldSelector=metadata.name=one")), widget("GET", path("dev", "gadgets?watch=1&fieldSelector=metadata.name%3Done")),
		widget("GET", path("dev", "gadgets/?fieldSelector=metadata.name%3D%3Done&limit=1")), widget("GET", all("gadgets?fieldSelector=metadata.name%3Done")), widget("GET", "/apis/"+things+"/v1/watch/namespaces/dev/gadgets"),
		allow("gadget-one", "P9, it has no effect there", "GET", path("dev", "gadgets/one?fieldSelector=metadata.name%3Dtwo")), widget("GET", path("dev", "gadgets/two?fieldSelector=metadata.name%3Done")),
		widget("DELETE", path("dev", "gadgets?fieldSelector=metadata.name%3Done")), widget("GET", path("dev", "gadgets/One")), widget("GET", path("dev", "gadgets/one:x")),
		// On create the name is what the body says.
		allow("gadget-one", "a name that may be made", "POST", path("dev", "gadgets?dryRun=All")).with(asJSON, gadget(`"name":"made-here"`)),
		widget("POST", path("dev", "gadgets?dryRun=All")).with(asJSON, gadget(`"name":"other"`)), widget("POST", path("dev", "gadgets?dryRun=All")).with(asJSON, gadget(`"generateName":"made-"`)),
		widget("POST", path("dev", "gadgets?dryRun=All")).with(asJSON, gadget(`"name":"made-here-not"`)),

		// A rule that denies or asks about some namespaces or names is about every collection that holds them.
		allow("gizmos", "namespace", "GET", path("dev", "gizmos")), refuse("deny", "gizmos-not-prod", "namespace", "GET", path("prod", "gizmos/one")), refuse("deny", "gizmos-not-prod", "namespace", "GET", all("gizmos")),
		refuse("deny", "gizmos-not-prod", "namespace", "GET", all("gizmos?watch=1")), refuse("deny", "gizmos-not-prod", "namespace", "GET", all("gizmos?fieldSelector=metadata.namespace%3Ddev")),
		allow("gears", "name", "GET", path("dev", "gears/one")), refuse("ask", "gear-two", "name", "GET", path("dev", "gears/two")), refuse("ask", "gear-two", "name", "GET", path("dev", "gears")),
		refuse("ask", "gear-two", "name", "GET", path("dev", "gears?fieldSelector=metadata.name%3Done")), refuse("ask", "gear-two", "name", "DELETE", path("dev", "gears")),

		// A deny beats what allows, wherever it stands.
		refuse("deny", "no-proxy", "R1", "GET", "/api/v1/nodes/dev-node/proxy/pods"),
		refuse("deny", "no-token-minting", "R2", "POST", "/api/v1/namespaces/dev/serviceaccounts/app/token").with(asJSON, "{}"),
	)
	for _, name := range []string{"one", "two"} {
		s.Admin(t, "get", "widget", name, "-n", "dev") // every dry run was one
	}

	// R5, and each command exactly.
	pod := s.Pod(t, "dev")
	for _, test := range []struct {
		argv []string
		rule string // empty when it is allowed
	}{
		{[]string{"echo", "x"}, ""},
		{[]string{"echo", "sh"}, ""},
		{[]string{"sh"}, "no-shells"},
		{[]string{"/bin/sh"}, "no-shells"},
		{[]string{"/bin/../bin/bash", "-c", "id"}, "no-shells"},
		{[]string{"sh", "-c", "echo x"}, "no-shells"},
		{nil, "no-shells"},
		{[]string{"rm", "-rf", "/"}, "no-rm"},
		{[]string{"rm", "-fr", "/home"}, "no-rm"},
		{[]string{"rm", "-rf", "x"}, ""},
		{[]string{"rm -rf /"}, ""}, // one word is one word
	} {
		a := sendExec(t, developer, pod, test.argv...)
		switch {
		case test.rule == "" && a.Code != http.StatusSwitchingProtocols:
			t.Errorf("exec of %q: %v", test.argv, a)
		case test.rule != "" && (a.Code != http.StatusForbidden || a.Rule() != test.rule):
			t.Errorf("exec of %q: want rule %s, got %v", test.argv, test.rule, a)
		}
	}
	if a := agent.Get(t, path("dev", "widgets")); a.Code != http.StatusOK {
		t.Error(a)
	}
	if out := agent.Kubectl(t, "get", "widgets", "-A"); out.Code != 0 || strings.Count(out.Stdout, "one") != 2 {
		t.Errorf("kubectl get widgets: %v", out)
	}
}

// stream is a watch or a log that is open.
type stream struct {
	name string
	id   string
	over chan error
}

func (x *stream) ended(within time.Duration) (error, bool) {
	select {
	case err := <-x.over:
		return err, true
	case <-time.After(within):
		return nil, false
	}
}

func follow(t *testing.T, agent *stacktest.Agent, target string) *stream {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	t.Cleanup(cancel)
	res, err := agent.Client(t, true).Do(agent.Request(ctx, t, target))
	if err != nil {
		t.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s", target, res.Status)
	}
	x := &stream{name: target, id: res.Header.Get("Audit-Id"), over: make(chan error, 1)}
	go func() {
		defer res.Body.Close()
		lines := bufio.NewScanner(res.Body)
		lines.Buffer(nil, 4<<20)
		for lines.Scan() {
		}
		x.over <- lines.Err()
	}()
	return x
}

// A new policy holds for sessions that are under way, on every gate, and for what is open: what it forbids ends, and what it
// allows goes on.
func TestChangedPolicyHoldsForWhatIsOpen(t *testing.T) {
	s := stacktest.Get(t)
	second := s.StartProxy(t)
	agent, developer := s.Agent(t, "agents"), s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	p := s.Policy(t)

	gone := follow(t, agent, "/api/v1/namespaces/dev/configmaps?watch=1")
	stays := follow(t, agent, "/api/v1/namespaces/dev/services?watch=1")
	log := follow(t, agent, "/api/v1/namespaces/dev/pods/"+pod+"/log?follow=true&tailLines=1")
	other := follow(t, developer, "/api/v1/namespaces/dev/configmaps?watch=1")
	shell := developer.Start(t, "exec", "-n", "dev", pod, "--", "sh", "-c", "echo open; sleep 120")
	shell.Await("open", within)
	shellStays := developer.Start(t, "exec", "-n", "dev", pod, "--", "env", "sh", "-c", "echo open; sleep 120")
	shellStays.Await("open", within)
	before := agent.Session(t)

	began := time.Now()
	took := p.Change(func(text string) string {
		return stacktest.AddRules(t, text,
			`{name: no-watching-settings, effect: deny, groups: [agents], verbs: [watch], apiGroups: [""], resources: [configmaps]}`,
			`{name: no-logs, effect: ask, groups: [agents], verbs: [get], apiGroups: [""], resources: [pods/log]}`,
			`{name: no-sh, effect: deny, groups: [developers], verbs: [exec], apiGroups: [""], resources: [pods], when: 'action.argv[0] == "sh"'}`,
		)
	}, second.URL)
	t.Logf("the new policy was in force on both gates after %v", took)
	for _, x := range []*stream{gone, log} {
		err, over := x.ended(max(time.Second, stacktest.InForce-time.Since(began)))
		switch {
		case !over:
			t.Errorf("%s goes on %v after the policy that forbids it", x.name, time.Since(began))
		case err == nil:
			t.Errorf("%s ended as if it were whole", x.name)
		}
	}
	if code := shell.Ended(max(time.Second, stacktest.InForce-time.Since(began))); code == 0 {
		t.Errorf("the shell ended as if its command had: %s", shell.Text())
	}
	for _, x := range []*stream{stays, other} {
		if err, over := x.ended(100 * time.Millisecond); over {
			t.Errorf("%s ended, and the policy allows it: %v", x.name, err)
		}
	}
	for _, x := range []*stream{gone, log} {
		end, _ := agent.Recorded(t, x.id).End(x.id)
		if why := end.Annotations["sallyport.io/error"]; !strings.Contains(why, "polic") {
			t.Errorf("the record says that %s ended with %q, not that the policy changed", x.name, why)
		}
	}
	// It is the same session, and it is decided anew about everything.
	decide(t, agent,
		refuse("deny", "no-watching-settings", "again", "GET", "/api/v1/namespaces/dev/configmaps?watch=1"), allow("read", "a list", "GET", "/api/v1/namespaces/dev/configmaps"),
		refuse("ask", "no-logs", "again", "GET", "/api/v1/namespaces/dev/pods/"+pod+"/log"),
	)
	if after := agent.Session(t); after != before {
		t.Errorf("session %s became %s", before, after)
	}
	select {
	case <-shellStays.Done():
		t.Errorf("an exec that the policy allows ended: %s", shellStays.Text())
	default:
	}
	if a := s.DoGate(t, second.URL, stacktest.Request{Target: s.Path("/api/v1/namespaces/dev/configmaps?watch=1"), Header: []string{stacktest.Bearer(agent.Token)}}); a.Code != http.StatusForbidden || a.Rule() != "no-watching-settings" {
		t.Errorf("the second gate: %v", a)
	}
}

// A policy that does not load changes nothing, and the log says which line is why.
func TestInvalidPolicyChangesNothing(t *testing.T) {
	s := stacktest.Get(t)
	agent := s.Agent(t, "agents")
	p := s.Policy(t)
	p.Add(`{name: kept, effect: ask, groups: [agents], verbs: [list], apiGroups: [""], resources: [services]}`)
	good := func(when string) {
		t.Helper()
		if a := agent.Get(t, "/api/v1/namespaces/dev/services"); a.Code != http.StatusForbidden || a.Rule() != "kept" {
			t.Errorf("%s: %v", when, a)
		}
		if a := agent.Get(t, "/api/v1/namespaces/dev/pods"); a.Code != http.StatusOK {
			t.Errorf("%s: %v", when, a)
		}
	}
	good("before")
	for _, test := range []struct{ name, rule, says string }{
		{"an unknown field", `{name: WORD, efect: allow, groups: [agents], verbs: [get], apiGroups: [""], resources: [secrets]}`, "efect"},
		{"a misspelt verb", `{name: WORD, effect: allow, groups: [agents], verbs: [deleet], apiGroups: [""], resources: [pods]}`, "deleet"},
		{"CEL of another type", `{name: WORD, effect: deny, verbs: [get], apiGroups: [""], resources: [pods], when: 'action.namespace + 1 == 2'}`, "when"},
		{"a pattern that is not anchored", `{name: WORD, effect: deny, verbs: [get], apiGroups: [""], resources: [pods], namespaces: ["prod.*$"]}`, "prod.*$"},
		{"no YAML", `{name: WORD, effect: `, ""},
	} {
		word := "word-" + stacktest.Word()
		text := stacktest.AddRules(t, p.Text, strings.ReplaceAll(test.rule, "WORD", word))
		before, _, _ := strings.Cut(text, word)
		line := fmt.Sprintf("line %d", 1+strings.Count(before, "\n"))
		had := logged(t, s, line, test.says)
		began := time.Now()
		p.Write(text)
		stacktest.Eventually(t, stacktest.InForce, func() string {
			good("meanwhile")
			time.Sleep(400 * time.Millisecond)
			if n := logged(t, s, line, test.says); n > had {
				return ""
			}
			return fmt.Sprintf("%s: no log says that the policy was refused because of %s and %q", test.name, line, test.says)
		})
		t.Logf("%s: said after %.1f s", test.name, time.Since(began).Seconds())
		good(test.name)
	}
}

// logged counts the lines of the gate's log that hold all the words. What the stack's own deployer says does not count.
func logged(t *testing.T, s *stacktest.Stack, words ...string) int {
	t.Helper()
	logs, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for name, text := range logs {
		if filepath.Base(name) != "proxy.log" {
			continue
		}
		for line := range strings.Lines(text) {
			all := true
			for _, w := range words {
				all = all && strings.Contains(line, w)
			}
			if all {
				n++
			}
		}
	}
	return n
}

// Observe mode decides and records, and the base tier's RBAC alone enforces; nothing is lent to anybody.
func TestObserveMode(t *testing.T) {
	s := stacktest.Get(t)
	agent, developer := s.Observed(t, "agents"), s.Agent(t, "developers")
	name := s.ConfigMap(t)
	pod := s.Pod(t, "dev")
	p := s.Policy(t)
	observed := func(agent *stacktest.Agent, a stacktest.Answer) string {
		t.Helper()
		end, _ := agent.Recorded(t, a.AuditID()).End(a.AuditID())
		if d := end.Annotations["sallyport.io/decision"]; d != "allow" {
			t.Errorf("it was recorded as %q", d)
		}
		if tier := end.Annotations["sallyport.io/tier"]; tier != "operate" && tier != "develop" {
			t.Errorf("it was forwarded as tier %q", tier)
		}
		return end.Annotations["sallyport.io/observed"]
	}
	do := func(agent *stacktest.Agent, method, target, media, body string) stacktest.Answer {
		t.Helper()
		return s.Do(t, stacktest.Request{Method: method, Target: s.Path(target), Header: lines(agent, media), Body: body})
	}
	one := "/api/v1/namespaces/dev/configmaps/" + name

	p.Add(
		`{name: no-deleting, effect: deny, mode: observe, groups: [developers], verbs: [delete], apiGroups: [""], resources: [configmaps]}`,
		`{name: secrets-some-day, effect: allow, mode: observe, groups: [agents], verbs: [list], apiGroups: [policy], resources: [podsecuritypolicies]}`,
	)
	if a := do(developer, "DELETE", one+"?dryRun=All", "", ""); a.Code != http.StatusOK || observed(developer, a) != "deny no-deleting" {
		t.Errorf("a rule in observe mode: %v", a)
	}
	if a := do(developer, "PATCH", one, merge, `{"data":{"color":"red"}}`); a.Code != http.StatusOK || observed(developer, a) != "" {
		t.Errorf("what it is not about: %v", a)
	}
	if a := do(agent, "GET", "/apis/policy/v1/namespaces/dev/podsecuritypolicies", "", ""); a.Code != http.StatusForbidden {
		t.Errorf("an allow that only observes: %v", a)
	}
	// What is enforced stays so beside it.
	decide(t, agent, refuse("ask", "delete", "enforced", "DELETE", one), refuse("deny", "default", "enforced", "GET", "/api/v1/namespaces/dev/secrets"))

	p.Observe()
	for _, test := range []struct {
		name, method, target, media, body string
		observed                          string
	}{
		{"an ask", "DELETE", one, "", "", "ask delete"},
		{"a deny", "GET", "/api/v1/namespaces/dev/secrets/db", "", "", "deny default"},
		{"a deny", "POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/roles", asJSON, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"Role","metadata":{"name":"x"}}`, "deny no-rbac"},
		{"no rule", "POST", "/api/v1/namespaces", asJSON, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}`, "deny default"},
		{"nodes/proxy", "GET", "/api/v1/nodes/dev-node/proxy/pods", "", "", "deny no-proxy"},
		{"an exec", "GET", "/api/v1/namespaces/dev/pods/" + pod + "/exec?command=id", "", "", "ask exec"},
	} {
		var a stacktest.Answer
		if strings.HasPrefix(test.observed, "ask exec") {
			c := s.Dial(t)
			c.Send(stacktest.Request{Target: s.Path(test.target), Header: append(lines(agent, ""), webSocket...)})
			var err error
			if a, err = c.Receive(http.MethodGet); err != nil {
				t.Fatal(err)
			}
		} else {
			a = do(agent, test.method, test.target, test.media, test.body)
		}
		status, err := a.Status()
		// The cluster's own words: the second wall.
		if err != nil || a.Code != http.StatusForbidden || !strings.Contains(status.Message, "is forbidden: User ") {
			t.Errorf("%s: want the cluster's own refusal, got %v (%v)", test.name, a, err)
			continue
		}
		if got := observed(agent, a); got != test.observed {
			t.Errorf("%s: observed %q, want %q", test.name, got, test.observed)
		}
		s.Reached(t, a.AuditID())
	}
	if a := agent.Get(t, "/api/v1/namespaces/dev/pods"); a.Code != http.StatusOK || observed(agent, a) != "" {
		t.Errorf("what is allowed anyway: %v", a)
	}

	p.Change(func(text string) string { return text })
	decide(t, agent, refuse("ask", "delete", "enforced again", "DELETE", one), refuse("deny", "default", "enforced again", "POST", "/api/v1/namespaces").with(asJSON, `{}`))
	s.Admin(t, "get", "configmap", name, "-n", "dev")
}

// Threat R4: identities in the cluster and in AWS, wherever a body holds them.
func TestIdentities(t *testing.T) {
	s := stacktest.Get(t)
	s.Admin(t, "create", "configmap", "aws-auth", "-n", "kube-system")
	t.Cleanup(func() { s.Admin(t, "delete", "configmap", "aws-auth", "-n", "kube-system") })
	// In the default policy nothing that allows comes near; where something does, the deny beats it.
	s.Policy(t).Add(`{name: configure, effect: allow, groups: [observers, agents, developers], verbs: [create, update, patch], apiGroups: [""], resources: [configmaps, serviceaccounts]}`)
	const system = "/api/v1/namespaces/kube-system/configmaps"
	auth := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"aws-auth","namespace":"kube-system"},"data":{"mapRoles":"- rolearn: x"}}`
	arn := `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"%s","namespace":"dev","annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::1:role/x"}}}`
	deny := func(name, method, target, media, body string) ask {
		return refuse("deny", "no-cluster-identity", name, method, target).with(media, body)
	}
	perhaps := func(name, method, target, media, body string) ask {
		return refuse(either, "no-cluster-identity", name, method, target).with(media, body)
	}
	for _, group := range groups {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			decide(t, s.Agent(t, group),
				deny("aws-auth", "POST", system, asJSON, auth),
				deny("aws-auth as YAML", "POST", system, asYAML, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: aws-auth\ndata: {mapRoles: x}\n"),
				deny("aws-auth without its namespace", "POST", system, asJSON, strings.Replace(auth, `,"namespace":"kube-system"`, "", 1)),
				deny("aws-auth", "PUT", system+"/aws-auth", asJSON, auth),
				deny("aws-auth", "PATCH", system+"/aws-auth", merge, `{"data":{"mapUsers":"x"}}`),
				deny("aws-auth", "PATCH", system+"/aws-auth", jsonPatch, `[{"op":"add","path":"/data","value":{"mapUsers":"x"}}]`),
				perhaps("aws-auth", "PATCH", system+"/aws-auth/", strategic, `{"data":{"mapUsers":"x"}}`),
				perhaps("aws-auth", "PATCH", system+"/aws-auth?fieldManager=x&force=true", apply, auth),
				deny("role-arn", "POST", "/api/v1/namespaces/dev/serviceaccounts", asJSON, fmt.Sprintf(arn, "x")),
				deny("role-arn", "PATCH", "/api/v1/namespaces/dev/serviceaccounts/app", merge, `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"x"}}}`),
				deny("role-arn", "PATCH", "/api/v1/namespaces/dev/serviceaccounts/app", jsonPatch, `[{"op":"add","path":"/metadata/annotations","value":{"eks.amazonaws.com/role-arn":"x"}}]`),
				deny("role-arn", "PATCH", "/api/v1/namespaces/dev/serviceaccounts/app", jsonPatch, `[{"op":"add","path":"/metadata/annotations","value":{}},{"op":"add","path":"/metadata/annotations/eks.amazonaws.com~1role-arn","value":"x"}]`),
				perhaps("role-arn", "PATCH", "/api/v1/namespaces/dev/serviceaccounts/app", strategic, `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"x"}}}`),
				perhaps("role-arn", "PATCH", "/api/v1/namespaces/dev/serviceaccounts/app?fieldManager=x", apply, fmt.Sprintf(arn, "app")),
			)
		})
	}
}
