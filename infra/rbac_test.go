package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// manifests are the documents that kubectl apply -k infra/rbac applies, by kind and name.
func manifests(t *testing.T) (roles map[string]rbac.ClusterRole, cluster []rbac.ClusterRoleBinding, namespaced []rbac.RoleBinding) {
	t.Helper()
	b, err := os.ReadFile("rbac/kustomization.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var k struct {
		APIVersion, Kind string
		Resources        []string
	}
	if err := yaml.UnmarshalStrict(b, &k); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob("rbac/*.yaml")
	for i := range files {
		files[i] = filepath.Base(files[i])
	}
	want := slices.Sorted(slices.Values(append(k.Resources, "kustomization.yaml")))
	if d := cmp.Diff(want, slices.Sorted(slices.Values(files))); d != "" {
		t.Error("kustomization.yaml does not list what lies beside it:", d)
	}
	roles = map[string]rbac.ClusterRole{}
	for _, f := range k.Resources {
		b, err := os.ReadFile(filepath.Join("rbac", f))
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(b, []byte("\n---\n")) {
			var kind struct{ Kind string }
			if err := yaml.Unmarshal(doc, &kind); err != nil {
				t.Fatal(err)
			}
			read := func(into any) {
				if err := yaml.UnmarshalStrict(doc, into); err != nil {
					t.Errorf("%s: %v", f, err)
				}
			}
			switch kind.Kind {
			case "ClusterRole":
				var r rbac.ClusterRole
				read(&r)
				roles[r.Name] = r
			case "ClusterRoleBinding":
				var r rbac.ClusterRoleBinding
				read(&r)
				cluster = append(cluster, r)
			case "RoleBinding":
				var r rbac.RoleBinding
				read(&r)
				namespaced = append(namespaced, r)
			default:
				t.Errorf("%s: a %s is not expected", f, kind.Kind)
			}
		}
	}
	return roles, cluster, namespaced
}

func TestRBACBindings(t *testing.T) {
	roles, cluster, namespaced := manifests(t)
	var got []string
	bound := func(kind, name string, ref rbac.RoleRef, subjects []rbac.Subject, where string, labels map[string]string) {
		if _, ours := roles[ref.Name]; ref.Kind != "ClusterRole" || !ours {
			t.Errorf("%s %s gives %s %s, which is not of these files: others may add to it, as every CRD does to view", kind, name, ref.Kind, ref.Name)
		}
		if labels["app.kubernetes.io/part-of"] != "sallyport" {
			t.Errorf("%s %s is not labelled: --prune would not see it", kind, name)
		}
		for _, s := range subjects {
			got = append(got, s.Kind+" "+s.Name+" has "+ref.Name+where)
		}
	}
	for _, b := range cluster {
		bound(b.Kind, b.Name, b.RoleRef, b.Subjects, "", b.Labels)
	}
	for _, b := range namespaced {
		bound(b.Kind, b.Name, b.RoleRef, b.Subjects, " in "+b.Namespace, b.Labels)
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{
		"Group sallyport:develop has sallyport:connect in dev",
		"Group sallyport:develop has sallyport:develop in dev",
		"Group sallyport:develop has sallyport:read",
		"Group sallyport:develop has sallyport:read-secrets",
		"Group sallyport:maintain has sallyport:borrowed-identity in dev",
		"Group sallyport:maintain has sallyport:connect",
		"Group sallyport:maintain has sallyport:maintain",
		"Group sallyport:maintain has sallyport:read",
		"Group sallyport:maintain has sallyport:write-secrets in dev",
		"Group sallyport:observe has sallyport:read",
		"Group sallyport:operate has sallyport:operate",
		"Group sallyport:operate has sallyport:read",
	}, got); d != "" {
		t.Error(d)
	}
	for _, tier := range examplePolicy(t).Tiers {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "Group "+tier.Group+" ") }) {
			t.Errorf("tier %q of the example policy is bound to nothing", tier.Name)
		}
	}
}

// ofSecrets are the roles that may do anything to Secrets, and what.
var ofSecrets = map[string][]string{
	"sallyport:read-secrets":  {"get", "list", "watch"},
	"sallyport:write-secrets": {"create", "delete", "deletecollection", "get", "patch", "update"},
}

// What no tier may have, whatever the policy says.
func TestRBACRules(t *testing.T) {
	roles, _, _ := manifests(t)
	for name, r := range roles {
		if r.AggregationRule != nil {
			t.Errorf("%s takes in rules of others", name)
		}
		for k := range r.Labels {
			if strings.HasPrefix(k, "rbac.authorization.k8s.io/") {
				t.Errorf("%s is aggregated into another role by label %s", name, k)
			}
		}
		if r.Labels["app.kubernetes.io/part-of"] != "sallyport" {
			t.Errorf("%s is not labelled: --prune would not see it", name)
		}
		for _, rule := range r.Rules {
			if len(rule.NonResourceURLs) > 0 || len(rule.ResourceNames) > 0 {
				t.Errorf("%s: paths %v, names %v; every rule is to be plain lists", name, rule.NonResourceURLs, rule.ResourceNames)
			}
			for _, word := range slices.Concat(rule.APIGroups, rule.Resources, rule.Verbs) {
				if strings.Contains(word, "*") {
					t.Errorf("%s: wildcard %q", name, word)
				}
			}
			for _, v := range rule.Verbs {
				if !slices.Contains([]string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}, v) {
					t.Errorf("%s: verb %s", name, v)
				}
			}
			for _, res := range rule.Resources {
				base, sub, _ := strings.Cut(res, "/")
				if base == "secrets" && (sub != "" || len(rule.Resources) > 1 || !slices.Equal(rule.Verbs, ofSecrets[name])) {
					t.Errorf("%s: verbs %v on %v", name, rule.Verbs, rule.Resources)
				}
				if slices.Contains([]string{"proxy", "token", "approval", "finalize", "binding", "ephemeralcontainers", "resize"}, sub) {
					t.Errorf("%s: resource %s", name, res)
				}
				reads := !slices.ContainsFunc(rule.Verbs, func(v string) bool { return !slices.Contains([]string{"get", "list", "watch"}, v) })
				for _, g := range rule.APIGroups {
					if !reads && slices.Contains([]string{"rbac.authorization.k8s.io", "certificates.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io", "apiextensions.k8s.io"}, g) {
						t.Errorf("%s: %v on %s of %s", name, rule.Verbs, res, g)
					}
				}
			}
		}
	}
}

func examplePolicy(t *testing.T) *policy.Policy {
	t.Helper()
	b, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load("policy.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A request as RBAC sees it: it knows no body, and calls exec create or get of pods/exec.
type request struct{ verb, group, resource, sub, namespace string }

func (r request) String() string {
	res := r.resource
	if r.sub != "" {
		res += "/" + r.sub
	}
	if r.group != "" {
		res += "." + r.group
	}
	return fmt.Sprintf("%s %s in %q", r.verb, res, r.namespace)
}

// action is the request as the gate sees it.
func (r request) action() access.Action {
	a := access.Action{Verb: r.verb, Group: r.group, Version: "v1", Resource: r.resource, Subresource: r.sub, Namespace: r.namespace, Name: "x"}
	switch {
	case slices.Contains([]string{"list", "watch", "deletecollection"}, r.verb), r.verb == "create" && r.sub == "":
		a.Name = ""
	case streams(r.resource, r.sub) && (r.verb == "create" || r.verb == "get"):
		a.Verb, a.Upgrade, a.Stream, a.Argv = r.sub, true, true, []string{"sh"}
	}
	return a
}

func streams(resource, sub string) bool {
	return resource == "pods" && slices.Contains([]string{"exec", "attach", "portforward"}, sub)
}

// real says whether an API server serves such a request, so that a policy which allows it allows something.
func (r request) real(namespaced bool) bool {
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"}
	switch {
	case r.sub == "scale" || r.sub == "status":
		verbs = []string{"get", "update", "patch"}
	case r.sub == "log":
		verbs = []string{"get"}
	case r.sub == "eviction":
		verbs = []string{"create"}
	case streams(r.resource, r.sub):
		verbs = []string{"create", "get"}
	case r.sub != "":
		return false
	}
	everywhere := r.verb == "list" || r.verb == "watch"
	return slices.Contains(verbs, r.verb) && (namespaced && (everywhere || r.namespace != "") || !namespaced && r.namespace == "")
}

// kinds are what there is to ask for: Kubernetes' own resources, by group, and somebody's. Cluster-scoped ones come after
// a bar.
var kinds = map[string]string{
	"": "bindings configmaps endpoints events limitranges persistentvolumeclaims persistentvolumeclaims/status pods pods/attach pods/binding pods/ephemeralcontainers " +
		"pods/eviction pods/exec pods/finalizers pods/log pods/portforward pods/proxy pods/resize pods/status podtemplates replicationcontrollers replicationcontrollers/scale " +
		"replicationcontrollers/status resourcequotas resourcequotas/status secrets serviceaccounts serviceaccounts/token services services/proxy services/status " +
		"| componentstatuses namespaces namespaces/finalize namespaces/status nodes nodes/proxy nodes/status persistentvolumes persistentvolumes/status users groups",
	"admissionregistration.k8s.io": "| mutatingadmissionpolicies mutatingadmissionpolicybindings mutatingwebhookconfigurations validatingadmissionpolicies validatingadmissionpolicies/status " +
		"validatingadmissionpolicybindings validatingwebhookconfigurations",
	"apiextensions.k8s.io":   "| customresourcedefinitions customresourcedefinitions/status",
	"apiregistration.k8s.io": "| apiservices apiservices/status",
	"apps": "controllerrevisions daemonsets daemonsets/finalizers daemonsets/status deployments deployments/finalizers deployments/scale deployments/status replicasets replicasets/scale replicasets/status " +
		"statefulsets statefulsets/scale statefulsets/status",
	"authentication.k8s.io":        "| selfsubjectreviews tokenreviews userextras",
	"authorization.k8s.io":         "localsubjectaccessreviews | selfsubjectaccessreviews selfsubjectrulesreviews subjectaccessreviews",
	"autoscaling":                  "horizontalpodautoscalers horizontalpodautoscalers/status",
	"batch":                        "cronjobs cronjobs/status jobs jobs/finalizers jobs/status",
	"certificates.k8s.io":          "| certificatesigningrequests certificatesigningrequests/approval certificatesigningrequests/status clustertrustbundles signers",
	"coordination.k8s.io":          "leases",
	"discovery.k8s.io":             "endpointslices",
	"events.k8s.io":                "events",
	"flowcontrol.apiserver.k8s.io": "| flowschemas flowschemas/status prioritylevelconfigurations prioritylevelconfigurations/status",
	"metrics.k8s.io":               "pods | nodes",
	"networking.k8s.io":            "ingresses ingresses/status networkpolicies | ingressclasses ipaddresses servicecidrs servicecidrs/status",
	"node.k8s.io":                  "| runtimeclasses",
	"policy":                       "poddisruptionbudgets poddisruptionbudgets/status",
	"rbac.authorization.k8s.io":    "rolebindings roles | clusterrolebindings clusterroles",
	"resource.k8s.io":              "resourceclaims resourceclaims/status resourceclaimtemplates | deviceclasses resourceslices",
	"scheduling.k8s.io":            "| priorityclasses",
	"storage.k8s.io":               "csistoragecapacities | csidrivers csinodes storageclasses volumeattachments volumeattachments/status volumeattributesclasses",
	"example.com":                  "widgets widgets/status pods secrets | deployments",
	"pods.example.com":             "pods",
	"extensions":                   "deployments ingresses",
	"custom.metrics.k8s.io":        "pods",
}

// requests are all verbs on all kinds, in the namespace of tier develop, in two others and in none; real ones are true.
func requests(roles map[string]rbac.ClusterRole) map[request]bool {
	verbs := []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "escalate", "bind", "impersonate", "approve", "sign", "attest", "proxy", "use"}
	all := map[request]bool{}
	add := func(group, res string, exists, namespaced bool) {
		base, sub, _ := strings.Cut(res, "/")
		for _, v := range verbs {
			for _, ns := range []string{"", "dev", "prod", "kube-system"} {
				r := request{v, group, base, sub, ns}
				all[r] = all[r] || exists && r.real(namespaced)
			}
		}
	}
	for group, list := range kinds {
		inside, cluster, _ := strings.Cut(list, "|")
		for _, res := range strings.Fields(inside) {
			add(group, res, true, true)
		}
		for _, res := range strings.Fields(cluster) {
			add(group, res, true, false)
		}
	}
	for _, role := range roles { // whatever is given is asked for, should the list above lack it
		for _, rule := range role.Rules {
			for _, group := range rule.APIGroups {
				for _, res := range rule.Resources {
					add(group, res, false, false)
				}
			}
		}
	}
	return all
}

// given says whether RBAC lets a group do it.
func given(t *testing.T) (may func(group string, r request) bool, roles map[string]rbac.ClusterRole) {
	roles, cluster, namespaced := manifests(t)
	has := func(subjects []rbac.Subject, group string) bool {
		return slices.ContainsFunc(subjects, func(s rbac.Subject) bool { return s.Kind == "Group" && s.Name == group })
	}
	return func(group string, r request) bool {
		var names []string
		for _, b := range cluster {
			if has(b.Subjects, group) {
				names = append(names, b.RoleRef.Name)
			}
		}
		for _, b := range namespaced {
			if r.namespace != "" && b.Namespace == r.namespace && has(b.Subjects, group) {
				names = append(names, b.RoleRef.Name)
			}
		}
		res := r.resource
		if r.sub != "" {
			res += "/" + r.sub
		}
		return slices.ContainsFunc(names, func(name string) bool {
			return slices.ContainsFunc(roles[name].Rules, func(rule rbac.PolicyRule) bool {
				return slices.Contains(rule.Verbs, r.verb) && slices.Contains(rule.APIGroups, r.group) && slices.Contains(rule.Resources, res)
			})
		})
	}, roles
}

// bodies are the objects that make the rules of the example policy which look at one allow, ask or deny.
var bodies = []*access.Object{
	nil,
	{Value: map[string]any{}},
	{Value: map[string]any{}, Touched: []string{"spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"}},
	{Value: map[string]any{}, Traits: []access.Trait{access.SecretRef}},
}

// could says whether the policy answers a request so with one body or another.
func could(m policy.Match, effects ...access.Effect) bool {
	return slices.ContainsFunc(bodies, func(obj *access.Object) bool { return slices.Contains(effects, m.Decide(obj).Effect) })
}

// oneWall are the requests whose body decides, so that RBAC gives what the gate may refuse. Everything else that the
// policy refuses a tier, RBAC refuses as well.
var oneWall = map[string][]string{
	"observe": nil,
	"operate": {
		"patch daemonsets.apps", "patch deployments.apps", "patch deployments/scale.apps", "patch replicasets/scale.apps", "patch statefulsets.apps", "patch statefulsets/scale.apps",
		"update deployments/scale.apps", "update replicasets/scale.apps", "update statefulsets/scale.apps",
	},
	"develop": {
		"create configmaps", "create cronjobs.batch", "create daemonsets.apps", "create deployments.apps", "create events", "create horizontalpodautoscalers.autoscaling",
		"create ingresses.networking.k8s.io", "create jobs.batch", "create networkpolicies.networking.k8s.io", "create persistentvolumeclaims", "create poddisruptionbudgets.policy",
		"create pods", "create pods/eviction", "create replicasets.apps", "create services", "create statefulsets.apps",
		"patch configmaps", "patch cronjobs.batch", "patch daemonsets.apps", "patch deployments.apps", "patch deployments/scale.apps", "patch events", "patch horizontalpodautoscalers.autoscaling",
		"patch ingresses.networking.k8s.io", "patch jobs.batch", "patch networkpolicies.networking.k8s.io", "patch persistentvolumeclaims", "patch poddisruptionbudgets.policy",
		"patch pods", "patch replicasets.apps", "patch replicasets/scale.apps", "patch services", "patch statefulsets.apps", "patch statefulsets/scale.apps",
		"update configmaps", "update cronjobs.batch", "update daemonsets.apps", "update deployments.apps", "update deployments/scale.apps", "update events", "update horizontalpodautoscalers.autoscaling",
		"update ingresses.networking.k8s.io", "update jobs.batch", "update networkpolicies.networking.k8s.io", "update persistentvolumeclaims", "update poddisruptionbudgets.policy",
		"update pods", "update replicasets.apps", "update replicasets/scale.apps", "update services", "update statefulsets.apps", "update statefulsets/scale.apps",
	},
}

// The two walls of the example policy are one above the other: what a base tier's rules refuse by lists, its RBAC refuses,
// and what they allow, it gives.
func TestRBACIsThePolicy(t *testing.T) {
	p := examplePolicy(t)
	may, roles := given(t)
	all := requests(roles)
	// The rules that RBAC cannot hold.
	bodily := []string{"borrowed-identity", "no-cluster-identity", "no-privileged-pods", "no-token-secrets", "restart", "reveal"}
	var named []string
	for _, w := range p.Check().OneWall {
		named = append(named, w.Rule)
	}
	slices.Sort(named)
	if d := cmp.Diff(bodily, named); d != "" {
		t.Error("rules with one wall only:", d)
	}
	for _, tier := range p.Tiers {
		if len(tier.Groups) == 0 {
			continue
		}
		t.Run(tier.Name, func(t *testing.T) {
			allowed, one := 0, map[string]bool{}
			for r, real := range all {
				m := p.Match(asked(tier, r.action()))
				d := m.Decide(nil)
				rbacSays := may(tier.Group, r)
				switch {
				case rbacSays && d.Effect == access.Allow:
					allowed++
				case rbacSays && could(m, access.Allow) && slices.Contains(bodily, d.Rule):
					what, where, _ := strings.Cut(r.String(), " in ")
					one[what] = true
					if want := `"dev"`; tier.Name == "develop" && where != want {
						t.Errorf("RBAC gives %v; only what is in namespace dev may be left to the gate alone", r)
					}
				case rbacSays:
					t.Errorf("RBAC gives %v, and rule %s of the policy says %s", r, d.Rule, d.Effect)
				case real && could(m, access.Allow) && access.SelfReviews[r.resource] != r.group:
					t.Errorf("the policy allows %v, and RBAC does not give it", r)
				}
			}
			if d := cmp.Diff(oneWall[tier.Name], slices.Sorted(maps.Keys(one))); d != "" {
				t.Error("requests with one wall only:", d)
			}
			if allowed < 100 {
				t.Errorf("only %d of %d requests are allowed; what was compared?", allowed, len(all))
			}
			t.Logf("%d requests: both walls let %d through, %d kinds of requests are left to the gate alone", len(all), allowed, len(one))
		})
	}
}

// Tier maintain is what the rules ask for, and what everybody reads.
func TestRBACOfApprovals(t *testing.T) {
	p := examplePolicy(t)
	may, roles := given(t)
	var maintain access.Tier
	for _, tier := range p.Tiers {
		if tier.Name == "maintain" {
			maintain = tier
		}
	}
	given, asks := 0, 0
	for r, real := range requests(roles) {
		ask, allow := false, false
		for _, tier := range p.Tiers {
			if len(tier.Groups) > 0 {
				m := p.Match(asked(tier, r.action()))
				ask = ask || could(m, access.Ask)
				allow = allow || could(m, access.Allow)
			}
		}
		switch rbacSays := may(maintain.Group, r); {
		case rbacSays && !ask && !allow:
			t.Errorf("RBAC gives %v, and nobody's rule asks for it", r)
		case !rbacSays && ask && real:
			t.Errorf("a rule asks for %v, and RBAC would refuse it to whoever was told yes", r)
		case rbacSays:
			given++
			if ask {
				asks++
			}
		}
	}
	if asks < 50 || given-asks < 100 {
		t.Errorf("%d requests are given, %d of them asked for; what was compared?", given, asks)
	}
	t.Logf("%d requests are given, %d of them asked for", given, asks)
}

func asked(tier access.Tier, a access.Action) policy.Request {
	who := access.Principal{Issuer: "https://idp.example.com", Subject: "bot", Agent: "bot", Groups: tier.Groups}
	return policy.Request{Principal: who, Tier: tier.Name, Cluster: "dev", Action: a, Now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}
