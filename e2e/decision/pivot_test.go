package decision_test

import (
	"fmt"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

var groups = []string{"observers", "agents", "developers"}

// Threats R1, R2, R4: what reaches past the API, or changes who may do what. Denied to everybody, each by the rule made
// for it, and the rule beats whatever allows.
func TestPivots(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	const dev = "/api/v1/namespaces/dev"
	pod := dev + "/pods/" + s.Pod(t, "dev")
	var asks []ask
	deny := func(rule, class, method, target, media, body string) {
		asks = append(asks, refuse("deny", rule, class, method, target).with(media, body))
	}
	for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE"} {
		media, body := asJSON, "{}"
		if method == "GET" || method == "DELETE" {
			media, body = "", ""
		}
		if method == "PATCH" {
			media = merge
		}
		for _, target := range []string{"/api/v1/nodes/dev-node/proxy", "/api/v1/nodes/dev-node/proxy/", "/api/v1/nodes/dev-node/proxy/pods", "/api/v1/nodes/dev-node/proxy/run/dev/x/web?cmd=id", "/api/v1/nodes/dev-node/proxy/exec/dev/x/web?command=id&output=1",
			"/api/v1/nodes/https:dev-node:10250/proxy/attach/dev/x/web", "/api/v1/nodes/dev-node:10250/proxy/portForward/dev/x", "/api/v1/nodes/dev-node/proxy/logs/", "/api/v1/nodes/dev-node/proxy/configz", "/api/v1/namespaces/dev/nodes/dev-node/proxy"} {
			deny("no-proxy", "R1", method, target, media, body)
		}
		for _, target := range []string{pod + "/proxy", pod + ":8080/proxy/x?y=z", dev + "/services/web/proxy", dev + "/services/https:web:443/proxy/a/b/", "/api/v1/namespaces/prod/services/web/proxy"} {
			deny("no-proxy", "R2", method, target, media, body)
		}
	}
	for _, header := range []string{"Upgrade: websocket", "Upgrade: SPDY/3.1"} {
		a := refuse("deny", "no-proxy", "R1 upgraded", "GET", "/api/v1/nodes/dev-node/proxy/exec/dev/x/web?command=id")
		a.header = append(a.header, "Connection: Upgrade", header, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
		asks = append(asks, a)
	}

	deny("no-token-minting", "R2", "POST", dev+"/serviceaccounts/app/token", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`)
	deny("no-token-minting", "R2", "POST", dev+"/serviceaccounts/app/token/", asJSON, `{}`)
	deny("no-token-minting", "R2", "POST", dev+"/serviceaccounts/default/token?dryRun=All", "", "")
	deny("no-token-minting", "R2", "POST", "/apis/authentication.k8s.io/v1/tokenreviews", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"x"}}`)
	deny("no-finalize", "R2", "PATCH", pod+"/ephemeralcontainers", strategic, `{"spec":{"ephemeralContainers":[{"name":"x","image":"x"}]}}`)
	deny("no-finalize", "R2", "PUT", pod+"/ephemeralcontainers", asJSON, `{}`)
	deny("no-finalize", "R2", "PUT", "/api/v1/namespaces/dev/finalize", asJSON, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"dev"}}`)
	deny("no-finalize", "R2", "PUT", "/api/v1/namespaces/dev/finalize/", asJSON, `{}`)
	deny("no-finalize", "R2", "PUT", "/apis/apps/v1/namespaces/dev/deployments/web/finalizers", asJSON, `{}`)
	deny("no-finalize", "R2", "PUT", "/apis/things.example.com/v1/namespaces/dev/things/x/finalize", asJSON, `{}`)
	deny("no-finalize", "R2", "POST", pod+"/binding", asJSON, `{}`)
	deny("no-finalize", "R2", "POST", dev+"/bindings", asJSON, `{}`)
	for _, sub := range []string{"", "/approval", "/status"} {
		deny("no-certificates", "R2", "PUT", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x"+sub, asJSON, `{}`)
		deny("no-certificates", "R2", "PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/x"+sub, merge, `{}`)
	}
	deny("no-certificates", "R4", "POST", "/apis/certificates.k8s.io/v1/certificatesigningrequests", asJSON, `{}`)
	deny("no-certificates", "R4", "DELETE", "/apis/certificates.k8s.io/v1/certificatesigningrequests", "", "")

	for _, kinds := range []struct {
		rule, path string
		namespaced []string
		other      []string
	}{
		{"no-rbac", "/apis/rbac.authorization.k8s.io/v1", []string{"roles", "rolebindings"}, []string{"clusterroles", "clusterrolebindings"}},
		{"no-admission", "/apis/admissionregistration.k8s.io/v1", nil, []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings"}},
		{"no-admission", "/apis/admissionregistration.k8s.io/v1beta1", nil, []string{"mutatingadmissionpolicies"}},
		{"no-admission", "/apis/apiregistration.k8s.io/v1", nil, []string{"apiservices"}},
		{"no-admission", "/apis/apiextensions.k8s.io/v1", nil, []string{"customresourcedefinitions"}},
	} {
		var collections []string
		for _, k := range kinds.namespaced {
			collections = append(collections, kinds.path+"/namespaces/dev/"+k)
		}
		for _, k := range kinds.other {
			collections = append(collections, kinds.path+"/"+k)
		}
		for _, c := range collections {
			// Whatever they hold: what is not decoded is denied as well.
			deny(kinds.rule, "R4", "POST", c, asJSON, `{"metadata":{"name":"x"}}`)
			deny(kinds.rule, "R4", "POST", c+"?dryRun=All", asYAML, "metadata: {name: x}\n")
			deny(kinds.rule, "R4", "POST", c, asProtobuf, "k8s\x00\x0a\x00")
			deny(kinds.rule, "R4", "PUT", c+"/x", asJSON, `{"metadata":{"name":"x"}}`)
			deny(kinds.rule, "R4", "PATCH", c+"/x", merge, `{}`)
			deny(kinds.rule, "R4", "PATCH", c+"/x", jsonPatch, `[]`)
			deny(kinds.rule, "R4", "PATCH", c+"/x?fieldManager=x&force=true", apply, `{}`)
			deny(kinds.rule, "R4", "DELETE", c+"/x", "", "")
			deny(kinds.rule, "R4", "DELETE", c, asJSON, `{"dryRun":["All"]}`)
		}
	}
	for _, group := range groups {
		t.Run(group, func(t *testing.T) { t.Parallel(); decide(t, s.Agent(t, group), asks...) })
	}
}

// Threats S4, P7, P9: developers read Secrets, and are asked about before they write one or see a value, by whatever way
// leads to one. Nobody else has anything of them.
func TestSecrets(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	const (
		dev, prod = "/api/v1/namespaces/dev/secrets", "/api/v1/namespaces/prod/secrets"
		reads     = "allow"
		asks      = "ask"
		nothing   = "deny"
	)
	for _, group := range groups {
		var all []ask
		add := func(developers, rule, class, method, target, media, body string) {
			decision := developers
			if group != "developers" || developers == nothing {
				decision, rule = nothing, "default"
			}
			all = append(all, refuse(decision, rule, class, method, target).with(media, body))
		}
		for _, target := range []string{
			"/api/v1/secrets", dev, dev + "/", dev + "/db", dev + "/db/", prod + "/db", dev + "?fieldSelector=metadata.name%3Ddb", dev + "/db?dryRun=All", dev + "?watch=1&timeoutSeconds=1",
			"/api/v1/watch/namespaces/dev/secrets/db?timeoutSeconds=1", "/api/v1/watch/secrets?timeoutSeconds=1",
		} {
			add(reads, "read-secrets", "S3", "GET", target, "", "")
		}
		for _, target := range []string{dev + "?dryRun=All", dev + "?fieldSelector=metadata.name%3Dnothing", dev + "/db?dryRun=All", dev + "/db/"} {
			add(asks, "write-secrets", "S4", "DELETE", target, "", "")
		}
		secret := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"}}`
		for _, query := range []string{"", "?dryRun=All"} {
			add(asks, "write-secrets", "S4", "PATCH", dev+"/db"+query, merge, `{}`)
			add(asks, "write-secrets", "S4", "PATCH", dev+"/db"+query, strategic, `{"metadata":{"labels":{"a":"b"}}}`)
			add(asks, "write-secrets", "S4", "PATCH", dev+"/db"+query, jsonPatch, `[{"op":"test","path":"/data/password","value":"YQ=="}]`)
			add(asks, "write-secrets", "S4", "PATCH", dev+"/db"+query, jsonPatch, `[{"op":"copy","from":"/data/password","path":"/data/shown"}]`)
			add(asks, "write-secrets", "S4", "PATCH", dev+"/db"+query, jsonPatch, `[{"op":"move","from":"/data/password","path":"/data/shown"}]`)
			add(asks, "write-secrets", "S4", "PUT", dev+"/db"+query, asJSON, secret)
			add(asks, "write-secrets", "S4", "POST", dev+query, asJSON, secret)
			add(nothing, "", "S4", "PATCH", prod+"/db"+query, merge, `{}`)
			add(nothing, "", "S4", "DELETE", prod+query, "", "")
			add(nothing, "", "S4", "POST", prod+query, asJSON, secret)
		}
		add(asks, "write-secrets", "S4", "PATCH", dev+"/db?fieldManager=x", apply, secret)
		add(asks, "reveal", "a value", "GET", dev+"/db?reveal=password", "", "")
		add(asks, "reveal", "a value", "GET", dev+"/db/?%72eveal=url", "", "")
		add(nothing, "", "a value", "GET", prod+"/db?reveal=password", "", "")
		if group == "developers" {
			all = append(all, refuse(nothing, "no-token-secrets", "R2", "POST", dev).with(asJSON, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"x","annotations":{"kubernetes.io/service-account.name":"app"}},"type":"kubernetes.io/service-account-token"}`))
		}
		t.Run(group, func(t *testing.T) { t.Parallel(); decide(t, s.Agent(t, group), all...) })
	}
}

// Threats R2, P10: what is another verb or a subresource of its own is no part of what it belongs to.
func TestSubresourcesAreNotTheirObjects(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	pod := s.Pod(t, "dev")
	const dev = "/api/v1/namespaces/dev"
	evict := fmt.Sprintf(`{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":%q,"namespace":"dev"}}`, pod)
	var none = func(method, target, media, body string) ask {
		return refuse("deny", "default", "no rule", method, target).with(media, body).saying("no rule allows")
	}
	t.Run("agents", func(t *testing.T) {
		t.Parallel()
		agent := s.Agent(t, "agents")
		asks := []ask{
			refuse("ask", "evict", "R2", "POST", dev+"/pods/"+pod+"/eviction").with(asJSON, evict),
			refuse("ask", "evict", "R2", "POST", dev+"/pods/"+pod+"/eviction/").with(asJSON, evict),
			refuse("ask", "evict", "R2 a dry run", "POST", dev+"/pods/"+pod+"/eviction?dryRun=All").with(asJSON, evict),
			refuse("ask", "delete", "P1", "DELETE", dev+"/pods/"+pod+"/"),
			refuse("ask", "delete", "P10", "DELETE", dev+"/pods"),
			refuse("ask", "delete", "P10", "DELETE", dev+"/pods/"),
			refuse("ask", "delete", "P10 a selector", "DELETE", dev+"/pods?labelSelector=app%3Dweb"),
			refuse("ask", "delete", "P10 a selector of one", "DELETE", dev+"/pods?fieldSelector=metadata.name%3D"+pod),
			refuse("ask", "delete", "P10 a dry run", "DELETE", dev+"/pods?dryRun=All"),
			refuse("ask", "delete", "P10 options", "DELETE", dev+"/pods").with(asJSON, `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Foreground"}`),
			refuse("ask", "delete", "the whole cluster", "DELETE", "/apis/apps/v1/namespaces/prod/deployments"),
			refuse("ask", "delete", "a namespace", "DELETE", "/api/v1/namespaces/prod"),
			refuse("ask", "delete", "a namespace", "DELETE", "/api/v1/namespaces/prod/"),
			refuse("ask", "exec", "R5", "GET", dev+"/pods/"+pod+"/exec?command=id"),
			refuse("ask", "exec", "P1 R5", "GET", dev+"/pods/"+pod+"/exec/?command=id"),
			refuse("ask", "exec", "R5 by POST", "POST", dev+"/pods/"+pod+"/exec?command=id"),
			refuse("ask", "exec", "attach", "POST", dev+"/pods/"+pod+"/attach?stdout=1"),
			refuse("ask", "exec", "port-forward", "GET", dev+"/pods/"+pod+"/portforward?ports=8080"),
			none("PUT", dev+"/pods/"+pod+"/exec", asJSON, "{}"),
			none("DELETE", dev+"/pods/"+pod+"/exec", "", ""),
			none("PATCH", dev+"/pods/"+pod+"/attach", merge, "{}"),
			none("PUT", dev+"/pods/"+pod+"/status", asJSON, "{}"),
			none("PUT", dev+"/pods/"+pod+"/resize", asJSON, "{}"),
			none("DELETE", dev+"/pods/"+pod+"/log", "", ""),
			none("DELETE", "/api/v1/nodes/dev-node", "", ""),
			none("DELETE", "/api/v1/persistentvolumes/x", "", ""),
			none("PATCH", "/apis/apps/v1/namespaces/dev/deployments/web/status", merge, "{}"),
			none("GET", "/apis/apps/v1/namespaces/dev/deployments/web/unicorn", "", ""),
			none("GET", dev+"/serviceaccounts/app/unicorn", "", ""),
		}
		decide(t, agent, asks...)
	})
	t.Run("developers", func(t *testing.T) {
		t.Parallel()
		name := s.ConfigMap(t)
		prod := strings.ReplaceAll
		asks := []ask{
			allow("develop", "P10", "DELETE", dev+"/configmaps?labelSelector=nobody%3Dhas-it"),
			allow("develop", "a dry run", "DELETE", dev+"/configmaps/"+name+"?dryRun=All"),
			allow("develop", "a dry run of an eviction", "POST", dev+"/pods/"+pod+"/eviction?dryRun=All").with(asJSON, evict).answered(201),
			none("DELETE", prod(dev, "dev", "prod")+"/configmaps?labelSelector=nobody%3Dhas-it", "", "").saying("dev"),
			none("DELETE", "/api/v1/namespaces/dev", "", ""),
			none("PATCH", "/api/v1/namespaces/dev", merge, `{"metadata":{"labels":{"x":"y"}}}`),
			none("POST", "/api/v1/namespaces", asJSON, `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"x"}}`),
			none("DELETE", dev+"/serviceaccounts/app", "", ""),
			none("PUT", dev+"/pods/"+pod+"/status", asJSON, "{}"),
			none("GET", prod(dev, "dev", "prod")+"/pods/"+s.Pod(t, "prod")+"/exec?command=id", "", "").saying("dev"),
			none("PATCH", "/apis/apps/v1/namespaces/dev/deployments/web/status", merge, "{}"),
		}
		decide(t, s.Agent(t, "developers"), asks...)
	})
}
