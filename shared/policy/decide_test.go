package policy_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// now is a Friday at noon.
var now = time.Date(2026, 5, 8, 12, 0, 0, 0, time.UTC)

func request(group string, a access.Action) policy.Request {
	tiers := map[string]string{"observers": "observe", "agents": "operate", "developers": "develop"}
	return policy.Request{
		Principal: access.Principal{Issuer: "https://idp.example.com", Subject: "s", Agent: "agent-1", Owner: "o", Groups: []string{group}, Run: map[string]string{"run_id": "7"}},
		Tier:      tiers[group], Cluster: "dev", Action: a, Now: now,
	}
}

// act is an action in one line: verb group/resource/subresource namespace/name.
func act(verb, what, where string) access.Action {
	group, resource, _ := strings.Cut(what, ":")
	resource, sub, _ := strings.Cut(resource, "/")
	ns, name, _ := strings.Cut(where, "/")
	a := access.Action{Verb: verb, Group: group, Version: "v1", Resource: resource, Subresource: sub, Namespace: ns, Name: name, Path: "/x"}
	if verb == "exec" || verb == "attach" || verb == "portforward" {
		a.Subresource, a.Upgrade, a.Stream = verb, true, true
	}
	return a
}

func path(verb, p string) access.Action {
	return access.Action{Verb: verb, Path: p, Resourceless: true}
}

func with(a access.Action, change func(*access.Action)) access.Action {
	change(&a)
	return a
}

func having(traits ...access.Trait) *access.Object {
	return &access.Object{Value: map[string]any{"metadata": map[string]any{"name": "web"}}, Traits: traits}
}

const get = `- {name: get, effect: allow, groups: [agents], verbs: [get, list, watch, create, update, patch, delete, deletecollection], apiGroups: ["", apps, example.com], resources: [pods, pods/log, nodes, deployments, deployments/scale, widgets, namespaces]}
- {name: streams, effect: allow, groups: [agents], verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods]}
`

// Each row is rules besides get, a request, and what comes out.
func TestDecide(t *testing.T) {
	exec := func(argv ...string) access.Action {
		return with(act("exec", ":pods", "dev/web"), func(a *access.Action) { a.Argv = argv })
	}
	dry := func(a access.Action) access.Action { return with(a, func(a *access.Action) { a.DryRun = true }) }
	for _, test := range []struct {
		name, rules string
		a           access.Action
		obj         *access.Object
		want        string // effect rule
	}{
		// Precedence.
		{"what no rule names", "", act("get", ":secrets", "dev/db"), nil, "deny default"},
		{"an allow", "", act("get", ":pods", "dev/web"), nil, "allow get"},
		{"a deny beats an allow", `- {name: a, effect: deny, resources: [pods]}`, act("get", ":pods", "dev/web"), nil, "deny a"},
		{"an ask beats an allow", `- {name: a, effect: ask, apiGroups: [""], resources: [pods]}`, act("get", ":pods", "dev/web"), nil, "ask a"},
		{"a deny beats an ask", "- {name: a, effect: ask, apiGroups: [\"\"], resources: [pods]}\n- {name: b, effect: deny, resources: [pods]}", act("get", ":pods", "dev/web"), nil, "deny b"},
		{"an ask needs no allow", `- {name: a, effect: ask, apiGroups: [""], resources: [configmaps]}`, act("get", ":configmaps", "dev/web"), nil, "ask a"},
		{"somebody else's allow", `- {name: a, effect: allow, groups: [observers], verbs: [get], apiGroups: [""], resources: [secrets]}`, act("get", ":secrets", "dev/db"), nil, "deny default"},
		{"another cluster's allow", `- {name: a, effect: allow, groups: [agents], clusters: [prod], verbs: [get], apiGroups: [""], resources: [secrets]}`, act("get", ":secrets", "dev/db"), nil, "deny default"},
		{"this cluster's deny", `- {name: a, effect: deny, clusters: [dev]}`, act("get", ":pods", "dev/web"), nil, "deny a"},
		{"of two asks the harder", "- {name: a, effect: ask, apiGroups: [\"\"]}\n- {name: b, effect: ask, apiGroups: [\"\"], quorum: 2}", act("get", ":pods", "dev/web"), nil, "ask b"},
		{"of two asks of fewer people", "- {name: a, effect: ask, apiGroups: [\"\"]}\n- {name: b, effect: ask, apiGroups: [\"\"], reviewers: [leads]}", act("get", ":pods", "dev/web"), nil, "ask b"},

		// Resources as in RBAC.
		{"a resource is not its subresources", "", act("get", ":pods/status", "dev/web"), nil, "deny default"},
		{"a subresource is not its resource", `- {name: a, effect: deny, resources: [pods/log]}`, act("get", ":pods", "dev/web"), nil, "allow get"},
		{"a subresource", `- {name: a, effect: deny, resources: [pods/log]}`, act("get", ":pods/log", "dev/web"), nil, "deny a"},
		{"every subresource of pods", `- {name: a, effect: deny, resources: [pods/*]}`, act("get", ":pods/log", "dev/web"), nil, "deny a"},
		{"every subresource of pods is not pods", `- {name: a, effect: deny, resources: [pods/*]}`, act("get", ":pods", "dev/web"), nil, "allow get"},
		{"scale of everything", `- {name: a, effect: deny, resources: ["*/scale"]}`, act("patch", "apps:deployments/scale", "dev/web"), nil, "deny a"},
		{"everything is every subresource", `- {name: a, effect: deny, resources: ["*"]}`, act("get", ":pods/log", "dev/web"), nil, "deny a"},
		{"the same resource in another group", `- {name: a, effect: deny, apiGroups: [metrics.k8s.io], resources: [pods]}`, act("get", ":pods", "dev/web"), nil, "allow get"},
		{"a group that no allow names", "", act("get", "evil.io:pods", "dev/web"), nil, "deny default"},
		{"everything in a group of one's own", `- {name: a, effect: allow, groups: [agents], verbs: [get], apiGroups: [acme.com], resources: ["*"]}`, act("get", "acme.com:things/status", "dev/x"), nil, "allow a"},

		// Streams.
		{"exec", "", exec("sh"), nil, "allow streams"},
		{"exec is no get", strings.Replace(get, "streams", "others", 1) + `- {name: a, effect: deny, verbs: [get, create], resources: [pods]}`, exec("sh"), nil, "allow streams"},
		{"deny exec", `- {name: a, effect: deny, verbs: [exec], resources: [pods]}`, exec("sh"), nil, "deny a"},
		{"deny exec spares attach", `- {name: a, effect: deny, verbs: [exec], resources: [pods]}`, act("attach", ":pods", "dev/web"), nil, "allow streams"},
		{"a deny of everything below pods is one of exec", `- {name: a, effect: deny, verbs: ["*"], resources: [pods/*]}`, exec("sh"), nil, "deny a"},
		{"a deny of everything is one of exec", `- {name: a, effect: deny, verbs: ["*"], apiGroups: ["*"], resources: ["*"]}`, exec("sh"), nil, "deny a"},
		{"a deny without resources is one of exec", `- {name: a, effect: deny, verbs: ["*"]}`, exec("sh"), nil, "deny a"},
		{"exec of a resource of one's own", "", act("exec", "example.com:widgets", "dev/x"), nil, "deny default"},

		// Commands.
		{"a command", `- {name: a, effect: deny, verbs: [exec], argv: [[ls, -l]]}`, exec("ls", "-l"), nil, "deny a"},
		{"a shorter command", `- {name: a, effect: deny, verbs: [exec], argv: [[ls, -l]]}`, exec("ls"), nil, "allow streams"},
		{"a longer command", `- {name: a, effect: deny, verbs: [exec], argv: [[ls, -l]]}`, exec("ls", "-l", "/"), nil, "allow streams"},
		{"one of two commands", `- {name: a, effect: deny, verbs: [exec], argv: [[id], [ls, '^-[al]$']]}`, exec("ls", "-a"), nil, "deny a"},
		{"a pattern means the whole word", `- {name: a, effect: deny, verbs: [exec], argv: [['^cat|ls$']]}`, exec("cats"), nil, "allow streams"},
		{"no command", `- {name: a, effect: deny, verbs: [exec], argv: [['^.*$']]}`, exec(), nil, "allow streams"},

		// Namespaces.
		{"a namespace", `- {name: a, effect: deny, namespaces: [prod]}`, act("get", ":pods", "prod/web"), nil, "deny a"},
		{"another namespace", `- {name: a, effect: deny, namespaces: [prod]}`, act("get", ":pods", "dev/web"), nil, "allow get"},
		{"a list over all namespaces reaches into it", `- {name: a, effect: deny, namespaces: [prod]}`, act("list", ":pods", ""), nil, "deny a"},
		{"a watch over all namespaces asks", `- {name: a, effect: ask, apiGroups: [""], namespaces: [prod]}`, act("watch", ":pods", ""), nil, "ask a"},
		{"a deletecollection over all namespaces", `- {name: a, effect: deny, namespaces: [prod]}`, act("deletecollection", ":pods", ""), nil, "deny a"},
		{"all namespaces of a resource nobody knows", `- {name: a, effect: deny, namespaces: [prod]}`, act("list", "example.com:widgets", ""), nil, "deny a"},
		{"a list of nodes reaches into none", `- {name: a, effect: deny, namespaces: [prod]}`, act("list", ":nodes", ""), nil, "allow get"},
		{"an allow in a namespace is not for all", `- {name: a, effect: allow, groups: [agents], namespaces: [dev], verbs: [list], apiGroups: [""], resources: [secrets]}`, act("list", ":secrets", ""), nil, "deny default"},
		{"a namespace is in itself", `- {name: a, effect: deny, verbs: [delete], namespaces: [prod]}`, act("delete", ":namespaces", "prod/prod"), nil, "deny a"},

		// Names.
		{"a name", `- {name: a, effect: deny, resourceNames: [web]}`, act("get", ":pods", "dev/web"), nil, "deny a"},
		{"another name", `- {name: a, effect: deny, resourceNames: [web]}`, act("get", ":pods", "dev/web-2"), nil, "allow get"},
		{"a pattern", `- {name: a, effect: deny, resourceNames: ['^web-[0-9]+$']}`, act("get", ":pods", "dev/web-2"), nil, "deny a"},
		{"a pattern means the whole name", `- {name: a, effect: deny, resourceNames: ['^web|db$']}`, act("get", ":pods", "dev/web-2"), nil, "allow get"},
		{"a pattern with flags", `- {name: a, effect: deny, resourceNames: ['^(?i)WEB$']}`, act("get", ":pods", "dev/web"), nil, "deny a"},
		{"a collection may have it", `- {name: a, effect: deny, resourceNames: [web]}`, act("list", ":pods", "dev"), nil, "deny a"},
		{"a deletecollection may have it", `- {name: a, effect: ask, apiGroups: [""], resourceNames: [web]}`, act("deletecollection", ":pods", "dev"), nil, "ask a"},
		{"a field selector is no name", `- {name: a, effect: allow, groups: [agents], verbs: [list], apiGroups: [""], resources: [secrets], resourceNames: [web]}`,
			with(act("list", ":secrets", "dev"), func(a *access.Action) { a.FieldSelector = "metadata.name=web" }), nil, "deny default"},
		{"the name of a create is in the object", `- {name: a, effect: deny, resourceNames: [web]}`, act("create", ":pods", "dev"), having(), "deny a"},
		{"a create of another name", `- {name: a, effect: deny, resourceNames: [db]}`, act("create", ":pods", "dev"), having(), "allow get"},
		{"a create that cannot be decoded", `- {name: a, effect: deny, resourceNames: [db]}`, act("create", ":pods", "dev"), nil, "deny a"},
		{"a create whose name will be made up", `- {name: a, effect: deny, resourceNames: [db]}`, act("create", ":pods", "dev"), &access.Object{Value: map[string]any{"metadata": map[string]any{"generateName": "db"}}}, "deny a"},
		{"an allow of a create by name", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], resourceNames: [web]}`, act("create", ":configmaps", "dev"), having(), "allow a"},
		{"an allow of a create of another name", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], resourceNames: [db]}`, act("create", ":configmaps", "dev"), having(), "deny default"},
		{"an allow of a create by a name nobody knows", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], resourceNames: ['^.*$']}`, act("create", ":configmaps", "dev"), nil, "deny default"},

		// Dry runs.
		{"only for real", `- {name: a, effect: deny, dryRun: false}`, act("delete", ":pods", "dev/web"), nil, "deny a"},
		{"not a dry run", `- {name: a, effect: deny, dryRun: false}`, dry(act("delete", ":pods", "dev/web")), nil, "allow get"},
		{"only a dry run", `- {name: a, effect: allow, groups: [agents], verbs: [delete], apiGroups: [""], resources: [secrets], dryRun: true}`, dry(act("delete", ":secrets", "dev/web")), nil, "allow a"},
		{"not for real", `- {name: a, effect: allow, groups: [agents], verbs: [delete], apiGroups: [""], resources: [secrets], dryRun: true}`, act("delete", ":secrets", "dev/web"), nil, "deny default"},

		// Paths.
		{"discovery", "", path("get", "/apis"), nil, "allow discovery"},
		{"an OpenAPI schema", "", path("get", "/openapi/v3/apis/apps/v1"), nil, "allow discovery"},
		{"metrics", "", path("get", "/metrics"), nil, "deny default"},
		{"profiles", "", path("get", "/debug/pprof"), nil, "deny default"},
		{"node logs", "", path("get", "/logs/"), nil, "deny default"},
		{"what begins like version", "", path("get", "/versions"), nil, "deny default"},
		{"the root", "", path("get", "/"), nil, "deny default"},
		{"post to health", "", path("post", "/healthz"), nil, "deny default"},
		{"a deny beats discovery", `- {name: a, effect: deny, nonResourceURLs: [/openapi/*]}`, path("get", "/openapi/v2"), nil, "deny a"},
		{"a deny of everything beats discovery", `- {name: a, effect: deny, groups: [agents]}`, path("get", "/version"), nil, "deny a"},
		{"a deny of every resource does not", `- {name: a, effect: deny, apiGroups: ["*"], resources: ["*"]}`, path("get", "/version"), nil, "allow discovery"},
		{"a deny of paths is none of resources", `- {name: a, effect: deny, nonResourceURLs: ["*"]}`, act("get", ":pods", "dev/web"), nil, "allow get"},

		// What callers ask about themselves.
		{"whoami", "", act("create", "authentication.k8s.io:selfsubjectreviews", ""), nil, "allow self-reviews"},
		{"can-i", "", act("create", "authorization.k8s.io:selfsubjectaccessreviews", ""), nil, "allow self-reviews"},
		{"a look-alike review", "", act("create", "evil.io:selfsubjectreviews", ""), nil, "deny default"},
		{"a review's subresource", "", act("create", "authentication.k8s.io:selfsubjectreviews/x", ""), nil, "deny default"},
		{"somebody else's review", "", act("create", "authorization.k8s.io:subjectaccessreviews", ""), nil, "deny default"},
		{"a deny beats whoami", `- {name: a, effect: deny, apiGroups: [authentication.k8s.io]}`, act("create", "authentication.k8s.io:selfsubjectreviews", ""), nil, "deny a"},

		// Bodies.
		{"a trait", `- {name: a, effect: deny, verbs: [create], object: {any: [privileged, secret]}}`, act("create", ":pods", "dev"), having(access.Privileged), "deny a"},
		{"another trait", `- {name: a, effect: deny, verbs: [create], object: {any: [secret]}}`, act("create", ":pods", "dev"), having(access.Privileged), "allow get"},
		{"no object", `- {name: a, effect: deny, verbs: [create], object: {any: [secret]}}`, act("create", ":pods", "dev"), nil, "deny a"},
		{"an ask without object", `- {name: a, effect: ask, apiGroups: [""], verbs: [create], object: {any: [secret]}}`, act("create", ":pods", "dev"), nil, "ask a"},
		{"an ask that is unsure", `- {name: a, effect: ask, apiGroups: [""], verbs: [patch], object: {any: [secret]}}`, act("patch", ":pods", "dev/web"), &access.Object{Unsure: []access.Trait{access.SecretRef}}, "ask a"},
		{"a deny that is unsure asks", `- {name: a, effect: deny, verbs: [patch], object: {any: [secret]}}`, act("patch", ":pods", "dev/web"), &access.Object{Unsure: []access.Trait{access.SecretRef}}, "ask a"},
		{"another deny is sure", "- {name: a, effect: deny, verbs: [patch], object: {any: [secret]}}\n- {name: b, effect: deny, verbs: [patch], object: {any: [secret, privileged]}}", act("patch", ":pods", "dev/web"), &access.Object{Unsure: []access.Trait{access.SecretRef}, Traits: []access.Trait{access.Privileged}}, "deny b"},
		{"a deny that is unsure of what nobody allows", `- {name: a, effect: deny, verbs: [patch], object: {any: [secret]}}`, act("patch", ":configmaps", "dev/web"), &access.Object{Unsure: []access.Trait{access.SecretRef}}, "deny default"},
		{"none of them", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], object: {none: [secret]}}`, act("create", ":configmaps", "dev"), having(access.Privileged), "allow a"},
		{"one of them", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], object: {none: [secret]}}`, act("create", ":configmaps", "dev"), having(access.SecretRef), "deny default"},
		{"maybe one of them", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], object: {none: [secret]}}`, act("create", ":configmaps", "dev"), &access.Object{Unsure: []access.Trait{access.SecretRef}}, "deny default"},
		{"none of nobody knows what", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps], object: {none: [secret]}}`, act("create", ":configmaps", "dev"), nil, "deny default"},
	} {
		t.Run(test.name, func(t *testing.T) {
			rules := get + test.rules
			if strings.HasPrefix(test.rules, get[:12]) {
				rules = test.rules
			}
			p := load(t, strings.Replace(rules, "name: others", "name: streams", 1))
			d := p.Decide(request("agents", test.a), test.obj)
			if got := string(d.Effect) + " " + d.Rule; got != test.want {
				t.Fatalf("got %s, want %s: %s", got, test.want, d.Message)
			}
			if d.Policy != p.Digest {
				t.Error("the decision does not say by which policy")
			}
			if (d.Effect == access.Allow) != (d.Message == "") {
				t.Errorf("what is not allowed, and only that, says why: %q", d.Message)
			}
			if want := map[access.Effect]string{access.Allow: "operate", access.Deny: "operate", access.Ask: "maintain"}[d.Effect]; d.Tier != want {
				t.Errorf("tier %s, want %s", d.Tier, want)
			}
		})
	}
}

// The fields a patch may touch are whole paths: a dot inside a key makes nothing deeper.
func TestFields(t *testing.T) {
	for _, test := range []struct {
		fields, touched string
		want            access.Effect
	}{
		{"spec.replicas", "spec.replicas", access.Allow},
		{"spec.template", "spec.template.spec.containers.image", access.Allow},
		{"spec.replicas", "spec.replicas metadata.labels.a", access.Deny},
		{"spec.replicas, metadata.labels.a", "spec.replicas metadata.labels.a", access.Allow},
		{"spec.rep", "spec.replicas", access.Deny},
		{"spec.replicas", "spec", access.Deny},
		{"spec.replicas", "", access.Deny},
		{"metadata.annotations.example.com/a", "metadata.annotations.example.com/a", access.Allow},
		{"metadata.annotations.example.com/a", "metadata.annotations.example.com/a.b", access.Deny},
		{"metadata.annotations.example.com/a", "metadata.annotations", access.Deny},
		{"metadata.annotations", "metadata.annotations.example.com/a", access.Allow},
		{"data.settings", "data.settings.yaml", access.Deny},
	} {
		p := load(t, fmt.Sprintf(`- {name: a, effect: allow, groups: [agents], verbs: [patch], apiGroups: [apps], resources: [deployments], object: {fields: [%s]}}`, test.fields))
		r := request("agents", act("patch", "apps:deployments", "dev/web"))
		if d := p.Decide(r, &access.Object{Touched: strings.Fields(test.touched)}); d.Effect != test.want {
			t.Errorf("fields [%s], touched %q: got %s, want %s", test.fields, test.touched, d.Effect, test.want)
		}
		if d := p.Decide(r, nil); d.Effect != access.Deny {
			t.Errorf("fields [%s] allow a patch nobody can read", test.fields)
		}
	}
}

// Expressions see the request and the object, and can only narrow: an error counts against the request.
func TestWhen(t *testing.T) {
	whole := having()
	whole.Found = access.Found{Images: []string{"evil/a"}, ServiceAccounts: []string{"app"}, Secrets: []string{"db"}, HostPaths: []string{"/"}}
	whole.Value["spec"] = map[string]any{"replicas": int64(3), "paused": true, "ratio": 0.5, "list": []any{"a", nil}}
	partial := &access.Object{Value: whole.Value, Found: whole.Found, Partial: true}
	const errs = "error"
	for _, test := range []struct {
		when string
		obj  *access.Object
		want string
	}{
		{`action.verb == "create" && action.apiGroup == "" && action.resource == "configmaps" && action.namespace == "dev"`, nil, "true"},
		{`principal.agent == "agent-1" && "agents" in principal.groups && principal.run["run_id"] == "7" && principal.owner == "o"`, nil, "true"},
		{`principal.run["nope"] == "7"`, nil, errs},
		{`now.getHours() < 18 && now.getDayOfWeek() == 5`, nil, "true"},
		{`now > timestamp("2026-06-01T00:00:00Z")`, nil, "false"},
		{`cluster == "dev"`, nil, "true"},
		{`action.argv.size() > 0`, nil, "false"},
		{`1 / int(action.argv.size()) == 1`, nil, errs},
		{`object.metadata.name == "web"`, whole, "true"},
		{`object.spec.replicas > 2 && object.spec.paused == true && object.spec.ratio < 1.0 && "a" in object.spec.list`, whole, "true"},
		{`object.spec.nope == 1`, whole, errs},
		{`has(object.spec.nope)`, whole, "false"},
		{`found.images.all(i, i.startsWith("good/"))`, whole, "false"},
		{`"app" in found.serviceAccounts && "db" in found.secrets && "/" in found.hostPaths`, whole, "true"},
		{`object.metadata.name == "web"`, nil, errs},
		{`has(object.spec)`, partial, errs},
		{`action.verb == "create" || found.images.size() > 0`, partial, errs},
		{`object.spec.list.map(x, object.spec.list.map(y, x)).size() > 0`, &access.Object{Value: map[string]any{"spec": map[string]any{"list": slices.Repeat([]any{"a"}, 2000)}}}, errs}, // too costly
	} {
		a := act("create", ":configmaps", "dev")
		for _, rule := range []struct {
			effect, fields string
			on             map[string]string
		}{
			{"allow", `groups: [agents], `, map[string]string{"true": "allow a", "false": "deny default", errs: "deny default"}},
			{"ask", ``, map[string]string{"true": "ask a", "false": "deny default", errs: "ask a"}},
			{"deny", ``, map[string]string{"true": "deny a", "false": "allow b", errs: "deny a"}},
		} {
			rules := fmt.Sprintf("- {name: a, effect: %s, %sverbs: [create], apiGroups: [\"\"], resources: [configmaps], when: '%s'}\n", rule.effect, rule.fields, test.when)
			if rule.effect == "deny" {
				rules += `- {name: b, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [configmaps]}`
			}
			d := load(t, rules).Decide(request("agents", a), test.obj)
			if got := string(d.Effect) + " " + d.Rule; got != rule.on[test.want] {
				t.Errorf("%s when %s: got %s, want %s", rule.effect, test.when, got, rule.on[test.want])
			}
		}
	}
}

func TestNeedsObject(t *testing.T) {
	const body = `- {name: body, effect: deny, verbs: [create, update, patch], object: {any: [privileged]}}
`
	for _, test := range []struct {
		name, rules string
		a           access.Action
		want        bool
	}{
		{"no rule looks", get, act("create", ":pods", "dev"), false},
		{"a deny looks", get + body, act("create", ":pods", "dev"), true},
		{"of another verb", get + body, act("delete", ":pods", "dev/web"), false},
		{"nobody would let it through", body, act("create", ":pods", "dev"), false},
		{"denied anyway", get + body + `- {name: a, effect: deny, resources: [pods]}`, act("create", ":pods", "dev"), false},
		{"denied anyway, but only observed", get + body + `- {name: a, effect: deny, mode: observe, resources: [pods]}`, act("create", ":pods", "dev"), true},
		{"denied anyway, by the clock", get + body + `- {name: a, effect: deny, resources: [pods], when: now.getHours() > 1}`, act("create", ":pods", "dev"), true},
		{"an allow looks, an ask comes first", `- {name: a, effect: allow, groups: [agents], verbs: [create], apiGroups: [""], resources: [pods], object: {none: [secret]}}` + "\n" + `- {name: b, effect: ask, apiGroups: [""]}`, act("create", ":pods", "dev"), false},
		{"an expression looks", get + `- {name: a, effect: deny, verbs: [create], when: has(object.spec)}`, act("create", ":pods", "dev"), true},
		{"an expression looks elsewhere", get + `- {name: a, effect: deny, verbs: [create], when: action.name == "x"}`, act("create", ":pods", "dev"), false},
		{"a name of a create", get + `- {name: a, effect: deny, resourceNames: [x]}`, act("create", ":pods", "dev"), true},
		{"a name of an update", get + `- {name: a, effect: deny, resourceNames: [x]}`, act("update", ":pods", "dev/x"), false},
		{"no tier", get + body, act("create", ":pods", "dev"), true},
	} {
		p := load(t, test.rules)
		m := p.Match(request("agents", test.a))
		if got := m.NeedsObject(); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
		if !m.NeedsObject() {
			for _, obj := range []*access.Object{having(), having(access.Privileged), having(access.SecretRef)} {
				if d := cmp.Diff(m.Decide(nil).Effect, m.Decide(obj).Effect); d != "" {
					t.Errorf("%s: the object is not needed, and changes the outcome: %s", test.name, d)
				}
			}
		}
	}
}

func TestWithoutTier(t *testing.T) {
	p := load(t, "- {name: a, effect: ask, apiGroups: [\"\"]}\n"+get)
	r := request("strangers", path("get", "/version"))
	if d := p.Decide(r, nil); d.Effect != access.Deny || d.Message == "" || p.Match(r).NeedsObject() {
		t.Errorf("got %+v for somebody without a tier", d)
	}
}

// Rules are optional: then everybody may look around, and nothing else.
func TestNoRules(t *testing.T) {
	for _, rules := range []string{"", "  []"} {
		p := load(t, rules)
		for _, test := range []struct {
			a    access.Action
			want string
		}{
			{path("get", "/api"), "allow discovery"},
			{act("create", "authentication.k8s.io:selfsubjectreviews", ""), "allow self-reviews"},
			{act("get", ":pods", "dev/web"), "deny default"},
			{act("exec", ":pods", "dev/web"), "deny default"},
			{access.Action{}, "deny default"},
		} {
			if d := p.Decide(request("agents", test.a), nil); string(d.Effect)+" "+d.Rule != test.want {
				t.Errorf("%+v: got %s by %s, want %s", test.a, d.Effect, d.Rule, test.want)
			}
		}
	}
}

func TestObligations(t *testing.T) {
	p := load(t, `
- {name: plain, effect: allow, groups: [agents], verbs: [get], apiGroups: [""], resources: [pods, configmaps], record: metadata}
- {name: bare, effect: allow, groups: [agents], verbs: [get], apiGroups: [""], resources: [pods, events], mask: off}
- {name: easy, effect: ask, verbs: [delete], apiGroups: [""], resources: [pods]}
- {name: hard, effect: ask, verbs: [delete], apiGroups: [""], resources: [pods], quorum: 2, reviewers: [leads], tier: operate, expires: 1h, grant: {scope: object, length: 10m}, record: metadata}
- {name: doubt, effect: deny, verbs: [patch], object: {any: [secret]}}
- {name: patches, effect: allow, groups: [agents], verbs: [patch], apiGroups: [""], resources: [pods]}
- {name: two, effect: ask, verbs: [patch], apiGroups: [""], resources: [services], quorum: 2}
`)
	unsure := &access.Object{Unsure: []access.Trait{access.SecretRef}}
	asks := access.Obligations{Reviewers: []string{"sre"}, Quorum: 1, Expires: 15 * time.Minute, Grant: access.Grant{Scope: access.ScopeRequest}, Mask: "on", Record: "full"}
	two := asks
	two.Quorum = 2
	for _, test := range []struct {
		name string
		a    access.Action
		obj  *access.Object
		tier string
		want access.Obligations
	}{
		{"an allow", act("get", ":configmaps", "dev/a"), nil, "operate", access.Obligations{Mask: "on", Record: "metadata"}},
		{"an allow without masks", act("get", ":events", "dev/a"), nil, "operate", access.Obligations{Mask: "off", Record: "full"}},
		{"of two allows the stricter of each", act("get", ":pods", "dev/a"), nil, "operate", access.Obligations{Mask: "on", Record: "full"}},
		{"of two asks the stricter", act("delete", ":pods", "dev/a"), nil, "operate",
			access.Obligations{Reviewers: []string{"leads"}, Quorum: 2, Expires: time.Hour, Grant: access.Grant{Scope: access.ScopeObject, Length: 10 * time.Minute}, Mask: "on", Record: "metadata"}},
		{"a deny in doubt asks as the policy does", act("patch", ":pods", "dev/a"), unsure, "maintain", asks},
		{"a deny in doubt makes no ask easier", act("patch", ":services", "dev/a"), unsure, "maintain", two},
	} {
		d := p.Decide(request("agents", test.a), test.obj)
		if diff := cmp.Diff(test.want, d.Obligations); diff != "" || d.Tier != test.tier {
			t.Errorf("%s: tier %s, want %s: %s", test.name, d.Tier, test.tier, diff)
		}
	}
	// Nobody to ask: what is in doubt is denied.
	alone := strings.Replace(strings.Replace(head, "asks:\n  {tier: maintain, reviewers: [sre], quorum: 1, expires: 15m}\n", "", 1), "- {name: maintain, role: \"arn:aws:iam::111122223333:role/sallyport/maintain\", group: \"sallyport:maintain\"}\n", "", 1)
	q, err := policy.Load("policy.yaml", []byte(alone+get+"- {name: doubt, effect: deny, verbs: [patch], object: {any: [secret]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if d := q.Decide(request("agents", act("patch", ":pods", "dev/a")), unsure); d.Effect != access.Deny || d.Rule != "doubt" {
		t.Errorf("got %s by %s", d.Effect, d.Rule)
	}
}

func TestObserve(t *testing.T) {
	for _, test := range []struct {
		name, rules string
		a           access.Action
		want        string
		observed    string
	}{
		{"a deny", get + `- {name: a, effect: deny, mode: observe, resources: [pods]}`, act("get", ":pods", "dev/a"), "allow get", "deny a"},
		{"an ask", get + `- {name: a, effect: ask, mode: observe, apiGroups: [""], resources: [pods]}`, act("get", ":pods", "dev/a"), "allow get", "ask a"},
		{"a deny of what an enforced ask asks about", "- {name: b, effect: ask, apiGroups: [\"\"]}\n- {name: a, effect: deny, mode: observe, resources: [pods]}", act("get", ":pods", "dev/a"), "ask b", "deny a"},
		{"what loses to an enforced deny", get + "- {name: b, effect: deny, resources: [pods]}\n- {name: a, effect: ask, mode: observe, apiGroups: [\"\"]}", act("get", ":pods", "dev/a"), "deny b", ""},
		{"an enforced deny and an observed one", get + "- {name: b, effect: deny, resources: [pods]}\n- {name: a, effect: deny, mode: observe, resources: [pods]}", act("get", ":pods", "dev/a"), "deny b", ""},
		{"an allow does not allow", `- {name: a, effect: allow, mode: observe, groups: [agents], verbs: [get], apiGroups: [""], resources: [secrets]}`, act("get", ":secrets", "dev/a"), "deny default", "allow a"},
		{"an ask does not ask", `- {name: a, effect: ask, mode: observe, apiGroups: [""]}`, act("get", ":secrets", "dev/a"), "deny default", "ask a"},
		{"another resource", get + `- {name: a, effect: deny, mode: observe, resources: [secrets]}`, act("get", ":pods", "dev/a"), "allow get", ""},
	} {
		d := load(t, test.rules).Decide(request("agents", test.a), nil)
		observed := ""
		if d.Observed != nil {
			observed = string(d.Observed.Effect) + " " + d.Observed.Rule
			if d.Observed.Effect != access.Allow && d.Observed.Message == "" {
				t.Errorf("%s: what would have been has no sentence", test.name)
			}
		}
		if got := string(d.Effect) + " " + d.Rule; got != test.want || observed != test.observed {
			t.Errorf("%s: got %s, observed %q; want %s, %q", test.name, got, observed, test.want, test.observed)
		}
		if d.Effect == access.Allow && d.Tier != "operate" {
			t.Errorf("%s: what is only observed gives tier %s", test.name, d.Tier)
		}
	}

	p, err := policy.Load("policy.yaml", []byte("mode: observe\n"+head+get+"- {name: a, effect: ask, apiGroups: [\"\"], resources: [pods], verbs: [delete]}\n- {name: b, effect: deny, resources: [nodes]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		a        access.Action
		observed string
	}{
		{act("get", ":pods", "dev/a"), ""}, {act("delete", ":pods", "dev/a"), "ask a"}, {act("get", ":nodes", "/a"), "deny b"},
		{act("get", ":secrets", "dev/a"), "deny default"}, {path("get", "/metrics"), "deny default"},
	} {
		d := p.Decide(request("agents", test.a), nil)
		observed := ""
		if d.Observed != nil {
			observed = string(d.Observed.Effect) + " " + d.Observed.Rule
		}
		if d.Effect != access.Allow || d.Tier != "operate" || observed != test.observed {
			t.Errorf("%+v: got %s as %s, observed %q; want allow as operate, %q", test.a, d.Effect, d.Tier, observed, test.observed)
		}
	}
	if d := p.Decide(request("strangers", act("get", ":pods", "dev/a")), nil); d.Effect != access.Deny {
		t.Error("observe mode lets somebody without a tier in")
	}
}

// A value of a Secret is shown to whom a person said yes, each time, and in no other way.
func TestReveal(t *testing.T) {
	reveal := with(act("reveal", ":secrets", "dev/db"), func(a *access.Action) { a.Reveal = "password" })
	const (
		read = `- {name: read, effect: allow, groups: [agents], verbs: [get, list, watch, create, update, patch, delete], apiGroups: [""], resources: [secrets]}` + "\n"
		ask  = `- {name: reveal, effect: ask, groups: [agents], namespaces: [dev], verbs: [reveal], apiGroups: [""], resources: [secrets]`
	)
	for _, test := range []struct{ name, rules, want string }{
		{"who may read", read, "deny default"},
		{"who may ask", read + ask + "}", "ask reveal"},
		{"this key", read + ask + `, when: action.reveal == "password"}`, "ask reveal"},
		{"another key", read + ask + `, when: action.reveal == "url"}`, "deny default"},
		{"another Secret", read + ask + `, resourceNames: [web]}`, "deny default"},
		{"another namespace", read + strings.Replace(ask, "[dev]", "[prod]", 1) + "}", "deny default"},
		{"what is asked of everything", read + `- {name: all, effect: ask, apiGroups: [""], verbs: ["*"]}`, "ask all"},
		{"a deny of every verb", read + ask + "}\n" + `- {name: no, effect: deny, verbs: ["*"], apiGroups: [""], resources: [secrets]}`, "deny no"},
		{"a deny of gets alone", read + ask + "}\n" + `- {name: no, effect: deny, verbs: [get], apiGroups: [""], resources: [secrets]}`, "ask reveal"},
		{"an ask that is only observed", read + ask + ", mode: observe}", "deny default"},
	} {
		d := load(t, test.rules).Decide(request("agents", reveal), nil)
		if got := string(d.Effect) + " " + d.Rule; got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
		if !strings.Contains(d.Message, `see the value of key "password" of secrets "db" in namespace "dev"`) && test.name != "a deny of every verb" {
			t.Errorf("%s: %q does not say what was asked for", test.name, d.Message)
		}
	}

	// An ask about everything may give a grant for a time; of a reveal it would be one for every key.
	wide := strings.Replace(head, "expires: 15m}", "expires: 15m, grant: {scope: namespace, length: 30m}}", 1)
	for _, rules := range []string{ask + "}\n", `- {name: reveal, effect: ask, apiGroups: [""]}` + "\n"} {
		p, err := policy.Load("policy.yaml", []byte(wide+rules))
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(request("agents", reveal), nil); d.Effect != access.Ask || d.Obligations.Grant != (access.Grant{Scope: access.ScopeRequest}) {
			t.Errorf("%s: a yes gives %+v", d.Effect, d.Obligations.Grant)
		}
	}

	// Where nothing is enforced, nobody is asked either.
	p, err := policy.Load("policy.yaml", []byte("mode: observe\n"+head+read+ask+"}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range []string{"agents", "observers"} {
		d := p.Decide(request(group, reveal), nil)
		if d.Effect != access.Deny || d.Message == "" || d.Tier != request(group, reveal).Tier {
			t.Errorf("observe mode, %s: %+v", group, d)
		}
	}
	if d := p.Decide(request("observers", act("get", ":secrets", "dev/db")), nil); d.Effect != access.Allow || d.Obligations.Mask != "on" {
		t.Errorf("observe mode: a get is %+v", d)
	}
}

// What agents read.
func TestMessages(t *testing.T) {
	p := load(t, `
- {name: no-rbac, effect: deny, verbs: [create], apiGroups: [rbac.authorization.k8s.io], resources: ["*"], reason: it changes who may do what in the cluster; that is not an agent's work}
- {name: delete, effect: ask, groups: [agents], verbs: [delete], apiGroups: [apps], resources: [deployments]}
- {name: scale, effect: allow, groups: [agents], verbs: [patch], apiGroups: [apps], resources: [deployments/scale], namespaces: [dev, stage]}
- {name: widgets, effect: allow, groups: [agents], verbs: [get], apiGroups: [example.com], resources: [widgets]}
- {name: remove, effect: allow, groups: [agents], verbs: [delete], apiGroups: [apps], resources: [deployments], dryRun: true}
- {name: commands, effect: allow, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods], argv: [[ls, -l]]}
- {name: doubt, effect: deny, verbs: [update], apiGroups: [apps], resources: [deployments/scale], object: {any: [secret]}, reason: it may read a Secret}
- {name: scales, effect: allow, groups: [agents], verbs: [update], apiGroups: [apps], resources: [deployments/scale]}
- {name: others, effect: allow, groups: [observers], verbs: [get], apiGroups: [""], resources: [configmaps]}
`)
	for _, test := range []struct {
		a    access.Action
		obj  *access.Object
		want string
		near []string
	}{
		{act("create", "rbac.authorization.k8s.io:roles", "dev"), nil, `rule "no-rbac" denies agent-1 to create roles in namespace "dev": it changes who may do what in the cluster; that is not an agent's work`, nil},
		{act("delete", "apps:deployments", "prod/web"), nil, `rule "delete" asks a person before agent-1 may delete deployments "web" in namespace "prod"`,
			[]string{`rule "remove" would match, but only as a dry run`}},
		{act("patch", "apps:deployments/scale", "prod/web"), nil, `no rule allows agent-1 to patch deployments/scale "web" in namespace "prod"; the nearest: rule "scale" would match, but only in namespaces dev, stage`,
			[]string{`rule "scale" would match, but only in namespaces dev, stage`, `rule "scales" would match, but only for the verb update`}},
		{act("list", "example.com:widgets", ""), nil, `no rule allows agent-1 to list widgets of API group "example.com" in all namespaces; the nearest: rule "widgets" would match, but only for the verb get`,
			[]string{`rule "widgets" would match, but only for the verb get`}},
		{act("list", ":nodes", ""), nil, `no rule allows agent-1 to list nodes`, nil},
		{act("get", ":configmaps", "dev/a"), nil, `no rule allows agent-1 to get configmaps "a" in namespace "dev"; the nearest: rule "others" would match, but only for group observers`, []string{`rule "others" would match, but only for group observers`}},
		{with(act("exec", ":pods", "dev/web"), func(a *access.Action) { a.Argv = []string{"sh"} }), nil, `no rule allows agent-1 to exec into pods "web" in namespace "dev"; the nearest: rule "commands" would match, but only for the command ls -l`,
			[]string{`rule "commands" would match, but only for the command ls -l`}},
		{act("update", "apps:deployments/scale", "dev/web"), &access.Object{Unsure: []access.Trait{access.SecretRef}},
			`rule "doubt" asks a person before agent-1 may update deployments/scale "web" in namespace "dev": it may read a Secret (whether this request does cannot be told from it)`,
			[]string{`rule "scale" would match, but only for the verb patch`}},
		{act("delete", ":namespaces", "prod/prod"), nil, `no rule allows agent-1 to delete namespaces "prod"`, nil},
		{path("get", "/metrics"), nil, `no rule allows agent-1 to get /metrics`, nil},
	} {
		d := p.Decide(request("agents", test.a), test.obj)
		if d.Message != test.want {
			t.Errorf("got  %s\nwant %s", d.Message, test.want)
		}
		if test.near != nil && !slices.Equal(d.Near, test.near) {
			t.Errorf("%s: near %q, want %q", test.want, d.Near, test.near)
		}
		if len(d.Near) > 3 {
			t.Errorf("%d near misses", len(d.Near))
		}
	}
}

// What is not text may come out where no rule says otherwise. Of several allows the stricter counts, and nothing of a
// port-forward is looked at.
func TestBinary(t *testing.T) {
	p := load(t, `
- {name: streams, effect: allow, groups: [agents], verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods]}
- {name: text, effect: allow, groups: [agents], verbs: [exec, portforward], apiGroups: [""], resources: [pods], namespaces: [dev], binary: block, reason: secrets}
- {name: bytes, effect: allow, groups: [agents], verbs: [attach], apiGroups: [""], resources: [pods], namespaces: [dev], binary: pass}
- {name: asked, effect: ask, groups: [agents], verbs: [exec, portforward], apiGroups: [""], resources: [pods], namespaces: [prod], binary: block}
- {name: bare, effect: allow, groups: [agents], verbs: [exec], apiGroups: [""], resources: [pods], namespaces: [test], mask: off}
- {name: kept, effect: ask, groups: [agents], verbs: [exec, portforward], apiGroups: [""], resources: [pods], namespaces: [dev], resourceNames: [db]}
- {name: watched, effect: deny, mode: observe, verbs: [portforward], apiGroups: [""], resources: [pods], namespaces: [stage]}
`)
	for _, test := range []struct {
		name   string
		a      access.Action
		effect access.Effect
		rule   string
		binary string
	}{
		{"nothing is said", act("exec", ":pods", "stage/a"), access.Allow, "streams", ""},
		{"of two allows the stricter", act("exec", ":pods", "dev/a"), access.Allow, "streams", "block"},
		{"pass is what is there anyway", act("attach", ":pods", "dev/a"), access.Allow, "bytes", "pass"},
		{"what is asked", act("exec", ":pods", "prod/a"), access.Ask, "asked", "block"},
		{"a port-forward", act("portforward", ":pods", "stage/a"), access.Allow, "streams", ""},
		{"a port-forward that one rule allows and another blocks", act("portforward", ":pods", "dev/a"), access.Deny, "text", ""},
		{"a port-forward that would be asked", act("portforward", ":pods", "prod/a"), access.Deny, "asked", ""},
		{"a port-forward that people are asked about, past an allow", act("portforward", ":pods", "dev/db"), access.Ask, "kept", ""},
	} {
		d := p.Decide(request("agents", test.a), nil)
		if d.Effect != test.effect || d.Rule != test.rule || d.Obligations.Binary != test.binary {
			t.Errorf("%s: %s by %s, binary %q; want %s by %s, %q", test.name, d.Effect, d.Rule, d.Obligations.Binary, test.effect, test.rule, test.binary)
		}
		if (d.Effect == access.Deny) != strings.Contains(d.Message, "lets nothing out that is not looked at (binary: block)") || strings.Contains(d.Message, "secrets") {
			t.Errorf("%s: it says %q", test.name, d.Message)
		}
	}
	for _, x := range p.Match(request("agents", act("portforward", ":pods", "dev/a"))).Explain(nil) {
		if want := "leaves nothing of a port-forward"; strings.Contains(x.Says, want) != (x.Rule == "text") {
			t.Errorf("rule %s: %q", x.Rule, x.Says)
		}
	}
	var got []string
	for _, r := range p.Check().Matrix.Rows {
		if r.Verb == "portforward" {
			c := r.Cells[len(r.Cells)-1]
			got = append(got, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", r.Namespace, c.Effect, c.Rule, strings.Join(c.Conditions, ","))))
		}
	}
	slices.Sort(got)
	want := []string{"* allow streams", "dev deny text kept", "prod deny asked"}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// In observe mode nothing is enforced; what would have been is recorded.
	observed, err := policy.Load("policy.yaml", []byte("mode: observe\n"+head+`- {name: text, effect: allow, groups: [agents], verbs: [exec, portforward], apiGroups: [""], resources: [pods], binary: block}`))
	if err != nil {
		t.Fatal(err)
	}
	if d := observed.Decide(request("agents", act("portforward", ":pods", "dev/a")), nil); d.Effect != access.Allow || d.Observed == nil || d.Observed.Effect != access.Deny {
		t.Errorf("observed: %+v", d)
	}
}

func TestExplain(t *testing.T) {
	p := load(t, get+`- {name: a, effect: deny, verbs: [create], object: {any: [privileged]}}
- {name: b, effect: ask, mode: observe, groups: [observers], apiGroups: [apps], resources: [pods], when: action.name == "x"}
- {name: c, effect: deny, verbs: [create], when: object.a == 1}
`)
	m := p.Match(request("agents", act("create", ":pods", "dev")))
	want := []policy.Reason{
		{Rule: "get", Line: 22, Effect: access.Allow, Matches: true, Says: "it matches"},
		{Rule: "streams", Line: 23, Effect: access.Allow, Failed: "verbs", Says: "it matches only for the verbs exec, attach, portforward"},
		{Rule: "a", Line: 24, Effect: access.Deny, Matches: true, Says: "it matches: the object has, or may have, privileged"},
		{Rule: "b", Line: 25, Effect: access.Ask, Observe: true, Failed: "groups, apiGroups, when", Says: "it matches only for group observers, and only in API group apps, and only when action.name == \"x\""},
		{Rule: "c", Line: 26, Effect: access.Deny, Matches: true, Says: "it matches, because its expression errs: no such key: a"},
	}
	if d := cmp.Diff(want, m.Explain(having(access.Privileged))); d != "" {
		t.Error(d)
	}
	discovery := p.Match(request("agents", path("get", "/version"))).Explain(nil)
	if len(discovery) != len(want)+1 || discovery[0].Rule != "discovery" || !discovery[0].Matches || discovery[0].Line != 0 {
		t.Errorf("got %+v", discovery[0])
	}
}
