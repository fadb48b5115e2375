package policy_test

import (
	"os"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

func shipped(t testing.TB) *policy.Policy {
	t.Helper()
	b, err := os.ReadFile("../../infra/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load("infra/policy.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// The policy that ships with the stack is safe on day one. The rows are not taken from it: each is a request, and what
// observers, agents and developers must get for it.
func TestShippedPolicy(t *testing.T) {
	p := shipped(t)
	const (
		restartedAt = "spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"
		rbac        = "rbac.authorization.k8s.io:"
		apiext      = "apiextensions.k8s.io:"
		admission   = "admissionregistration.k8s.io:"
	)
	touching := func(paths ...string) *access.Object {
		return &access.Object{Value: map[string]any{}, Touched: paths}
	}
	unsure := func(traits ...access.Trait) *access.Object {
		return &access.Object{Value: map[string]any{}, Unsure: traits, Touched: []string{"spec"}}
	}
	plain := having()
	for _, test := range []struct {
		name string
		a    access.Action
		obj  *access.Object
		want [3]string // observers, agents, developers
	}{
		// Everybody looks around.
		{"discovery", path("get", "/apis/apps/v1"), nil, [3]string{"allow", "allow", "allow"}},
		{"whoami", act("create", "authentication.k8s.io:selfsubjectreviews", ""), plain, [3]string{"allow", "allow", "allow"}},
		{"a pod", act("get", ":pods", "prod/web"), nil, [3]string{"allow", "allow", "allow"}},
		{"pods of all namespaces", act("list", ":pods", ""), nil, [3]string{"allow", "allow", "allow"}},
		{"watch nodes", act("watch", ":nodes", ""), nil, [3]string{"allow", "allow", "allow"}},
		{"logs", act("get", ":pods/log", "prod/web"), nil, [3]string{"allow", "allow", "allow"}},
		{"deployments of all namespaces", act("list", "apps:deployments", ""), nil, [3]string{"allow", "allow", "allow"}},
		{"who may what", act("list", rbac+"clusterroles", ""), nil, [3]string{"allow", "allow", "allow"}},
		{"top", act("list", "metrics.k8s.io:pods", ""), nil, [3]string{"allow", "allow", "allow"}},
		{"metrics of the API server", path("get", "/metrics"), nil, [3]string{"deny", "deny", "deny"}},

		// Developers read Secrets, masked, and ask to change one or to see a value. Nobody else has anything of them.
		{"a Secret", act("get", ":secrets", "dev/db"), nil, [3]string{"deny", "deny", "allow"}},
		{"a Secret elsewhere", act("get", ":secrets", "prod/db"), nil, [3]string{"deny", "deny", "allow"}},
		{"Secrets", act("list", ":secrets", "dev"), nil, [3]string{"deny", "deny", "allow"}},
		{"Secrets of all namespaces", act("watch", ":secrets", ""), nil, [3]string{"deny", "deny", "allow"}},
		{"create a Secret", act("create", ":secrets", "dev"), plain, [3]string{"deny", "deny", "ask"}},
		{"create a Secret that nobody can read", act("create", ":secrets", "dev"), nil, [3]string{"deny", "deny", "deny"}},
		{"create a Secret elsewhere", act("create", ":secrets", "prod"), plain, [3]string{"deny", "deny", "deny"}},
		{"have a token put into a Secret", act("create", ":secrets", "dev"), &access.Object{Value: map[string]any{"type": "kubernetes.io/service-account-token"}}, [3]string{"deny", "deny", "deny"}},
		{"replace a Secret", act("update", ":secrets", "dev/db"), plain, [3]string{"deny", "deny", "ask"}},
		{"a patch of a Secret", act("patch", ":secrets", "dev/db"), touching("data.a"), [3]string{"deny", "deny", "ask"}},
		{"a patch of a Secret that changes nothing", act("patch", ":secrets", "dev/db"), touching(), [3]string{"deny", "deny", "ask"}},
		{"a dry run of a patch of a Secret", with(act("patch", ":secrets", "dev/db"), func(a *access.Action) { a.DryRun = true }), touching("data.a"), [3]string{"deny", "deny", "ask"}},
		{"a patch of a Secret elsewhere", act("patch", ":secrets", "prod/db"), touching("data.a"), [3]string{"deny", "deny", "deny"}},
		{"delete a Secret", act("delete", ":secrets", "dev/db"), nil, [3]string{"deny", "deny", "ask"}},
		{"delete Secrets", act("deletecollection", ":secrets", "dev"), nil, [3]string{"deny", "deny", "ask"}},
		{"delete Secrets elsewhere", act("deletecollection", ":secrets", "prod"), nil, [3]string{"deny", "deny", "deny"}},
		{"a value", with(act("reveal", ":secrets", "dev/db"), func(a *access.Action) { a.Reveal = "password" }), nil, [3]string{"deny", "deny", "ask"}},
		{"a value elsewhere", with(act("reveal", ":secrets", "prod/db"), func(a *access.Action) { a.Reveal = "password" }), nil, [3]string{"deny", "deny", "deny"}},
		{"what is below a Secret", act("get", ":secrets/status", "dev/db"), nil, [3]string{"deny", "deny", "deny"}},

		// Nobody goes around the API, or beyond their power.
		{"proxy to a node", act("get", ":nodes/proxy", "/n"), nil, [3]string{"deny", "deny", "deny"}},
		{"proxy to a pod", act("create", ":pods/proxy", "dev/web"), nil, [3]string{"deny", "deny", "deny"}},
		{"proxy to a service", act("update", ":services/proxy", "dev/web"), nil, [3]string{"deny", "deny", "deny"}},
		{"mint a token", act("create", ":serviceaccounts/token", "dev/app"), plain, [3]string{"deny", "deny", "deny"}},
		{"review a token", act("create", "authentication.k8s.io:tokenreviews", ""), plain, [3]string{"deny", "deny", "deny"}},
		{"create a role", act("create", rbac+"roles", "dev"), plain, [3]string{"deny", "deny", "deny"}},
		{"patch a binding", act("patch", rbac+"clusterrolebindings", "/admin"), touching("subjects"), [3]string{"deny", "deny", "deny"}},
		{"request a certificate", act("create", "certificates.k8s.io:certificatesigningrequests", ""), plain, [3]string{"deny", "deny", "deny"}},
		{"approve a certificate", act("update", "certificates.k8s.io:certificatesigningrequests/approval", "/c"), plain, [3]string{"deny", "deny", "deny"}},
		{"a webhook", act("create", admission+"mutatingwebhookconfigurations", ""), plain, [3]string{"deny", "deny", "deny"}},
		{"a new kind", act("create", apiext+"customresourcedefinitions", ""), plain, [3]string{"deny", "deny", "deny"}},
		{"another API server", act("create", "apiregistration.k8s.io:apiservices", ""), plain, [3]string{"deny", "deny", "deny"}},
		{"finalize a namespace", act("update", ":namespaces/finalize", "dev/dev"), plain, [3]string{"deny", "deny", "deny"}},
		{"a debug container", act("patch", ":pods/ephemeralcontainers", "dev/web"), touching("spec"), [3]string{"deny", "deny", "deny"}},
		{"bind a pod", act("create", ":pods/binding", "dev/web"), plain, [3]string{"deny", "deny", "deny"}},
		{"bind a pod, the old way", act("create", ":bindings", "dev"), plain, [3]string{"deny", "deny", "deny"}},
		{"a kind nobody named", act("list", "example.com:widgets", ""), nil, [3]string{"deny", "deny", "deny"}},
		{"a pod of another group", act("get", "evil.io:pods", "dev/x"), nil, [3]string{"deny", "deny", "deny"}},
		{"impersonate", act("impersonate", ":users", "/root"), nil, [3]string{"deny", "deny", "deny"}},
		{"a verb nobody knows", act("frob", ":pods", "dev/x"), nil, [3]string{"deny", "deny", "deny"}},

		// Agents ask for deletes and streams.
		{"delete a pod", act("delete", ":pods", "prod/web"), nil, [3]string{"deny", "ask", "deny"}},
		{"delete a pod in dev", act("delete", ":pods", "dev/web"), nil, [3]string{"deny", "ask", "allow"}},
		{"delete namespace prod", act("delete", ":namespaces", "prod/prod"), nil, [3]string{"deny", "ask", "deny"}},
		{"delete namespace dev", act("delete", ":namespaces", "dev/dev"), nil, [3]string{"deny", "ask", "deny"}},
		{"delete all pods of dev", act("deletecollection", ":pods", "dev"), nil, [3]string{"deny", "ask", "allow"}},
		{"delete all pods", act("deletecollection", ":pods", ""), nil, [3]string{"deny", "ask", "deny"}},
		{"delete a node", act("delete", ":nodes", "/n"), nil, [3]string{"deny", "deny", "deny"}},
		{"evict", act("create", ":pods/eviction", "prod/web"), plain, [3]string{"deny", "ask", "deny"}},
		{"exec in dev", act("exec", ":pods", "dev/web"), nil, [3]string{"deny", "ask", "allow"}},
		{"exec in prod", act("exec", ":pods", "prod/web"), nil, [3]string{"deny", "ask", "deny"}},
		{"attach", act("attach", ":pods", "prod/web"), nil, [3]string{"deny", "ask", "deny"}},
		{"port-forward", act("portforward", ":pods", "dev/web"), nil, [3]string{"deny", "ask", "allow"}},

		// Agents scale and restart, and change nothing else.
		{"scale", act("patch", "apps:deployments/scale", "prod/web"), touching("spec.replicas"), [3]string{"deny", "allow", "deny"}},
		{"scale by update", act("update", "apps:statefulsets/scale", "dev/db"), plain, [3]string{"deny", "allow", "allow"}},
		{"restart", act("patch", "apps:deployments", "prod/web"), touching(restartedAt), [3]string{"deny", "allow", "deny"}},
		{"restart and more", act("patch", "apps:deployments", "prod/web"), touching(restartedAt, "spec.replicas"), [3]string{"deny", "deny", "deny"}},
		{"an annotation that looks like it", act("patch", "apps:deployments", "prod/web"), touching(restartedAt + ".x"), [3]string{"deny", "deny", "deny"}},
		{"a patch nobody can read", act("patch", "apps:deployments", "dev/web"), nil, [3]string{"deny", "deny", "deny"}},
		{"restart what would be privileged", act("patch", "apps:daemonsets", "prod/web"), &access.Object{Traits: []access.Trait{access.Privileged}, Touched: []string{restartedAt}}, [3]string{"deny", "deny", "deny"}},
		{"update a deployment", act("update", "apps:deployments", "prod/web"), plain, [3]string{"deny", "deny", "deny"}},
		{"create a deployment", act("create", "apps:deployments", "dev"), plain, [3]string{"deny", "deny", "allow"}},

		// Developers work in dev, and in no other namespace.
		{"create a pod in prod", act("create", ":pods", "prod"), plain, [3]string{"deny", "deny", "deny"}},
		{"a privileged pod", act("create", ":pods", "dev"), having(access.Privileged), [3]string{"deny", "deny", "deny"}},
		{"a pod that mounts the host", act("create", "batch:cronjobs", "dev"), having(access.HostPath), [3]string{"deny", "deny", "deny"}},
		{"a pod of another service account", act("create", "apps:deployments", "dev"), having(access.ServiceAccount), [3]string{"deny", "deny", "ask"}},
		{"a pod that mounts a Secret", act("create", ":pods", "dev"), having(access.SecretRef), [3]string{"deny", "deny", "ask"}},
		{"a patch that may make it privileged", act("patch", "apps:deployments", "dev/web"), unsure(access.Privileged), [3]string{"deny", "deny", "ask"}},
		{"a body nobody can read", act("create", ":pods", "dev"), nil, [3]string{"deny", "deny", "deny"}},
		{"a role ARN", act("update", ":configmaps", "dev/x"), having(access.RoleARN), [3]string{"deny", "deny", "deny"}},
		{"a ConfigMap", act("create", ":configmaps", "dev"), plain, [3]string{"deny", "deny", "allow"}},
		{"a service account", act("create", ":serviceaccounts", "dev"), plain, [3]string{"deny", "deny", "deny"}},
		{"a network policy", act("delete", "networking.k8s.io:networkpolicies", "dev/x"), nil, [3]string{"deny", "ask", "allow"}},
		{"status by hand", act("patch", ":pods/status", "dev/web"), touching("status"), [3]string{"deny", "deny", "deny"}},
	} {
		for i, group := range []string{"observers", "agents", "developers"} {
			d := p.Decide(request(group, test.a), test.obj)
			if string(d.Effect) != test.want[i] {
				t.Errorf("%s by %s: got %s by rule %s, want %s: %s", test.name, group, d.Effect, d.Rule, test.want[i], d.Message)
			}
			if d.Effect == access.Ask && (d.Tier != "maintain" || len(d.Obligations.Reviewers) == 0) {
				t.Errorf("%s by %s: asked of %v for tier %s", test.name, group, d.Obligations.Reviewers, d.Tier)
			}
			if d.Effect != access.Ask && d.Tier != request(group, test.a).Tier {
				t.Errorf("%s by %s: tier %s without anybody's yes", test.name, group, d.Tier)
			}
		}
	}
}
