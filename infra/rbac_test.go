package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbac "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"
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
	_, cluster, namespaced := manifests(t)
	var got []string
	for _, b := range cluster {
		for _, s := range b.Subjects {
			got = append(got, s.Kind+" "+s.Name+" has "+b.RoleRef.Name)
		}
	}
	for _, b := range namespaced {
		for _, s := range b.Subjects {
			got = append(got, s.Kind+" "+s.Name+" has "+b.RoleRef.Name+" in "+b.Namespace)
		}
	}
	slices.Sort(got)
	if d := cmp.Diff([]string{
		"Group sallyport:develop has sallyport:connect in dev",
		"Group sallyport:develop has sallyport:observe",
		"Group sallyport:develop has view",
		"Group sallyport:observe has sallyport:observe",
		"Group sallyport:observe has view",
		"Group sallyport:operate has sallyport:connect",
		"Group sallyport:operate has sallyport:observe",
		"Group sallyport:operate has view",
	}, got); d != "" {
		t.Error(d)
	}
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, tier := range c.Rules.Tiers {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.HasPrefix(s, "Group "+tier.Group+" ") }) {
			t.Errorf("tier %q of the example policy is bound to nothing", tier.Name)
		}
	}
}

// Beside the built-in view, which has no Secrets, a tier reads what is listed and enters containers, and no more.
func TestRBACRules(t *testing.T) {
	roles, _, _ := manifests(t)
	if len(roles) != 2 {
		t.Errorf("%d roles", len(roles))
	}
	for name, r := range roles {
		if r.AggregationRule != nil {
			t.Errorf("%s takes in rules of others", name)
		}
		for k := range r.Labels {
			if strings.HasPrefix(k, "rbac.authorization.k8s.io/") {
				t.Errorf("%s is aggregated into another role by label %s", name, k)
			}
		}
		for _, rule := range r.Rules {
			if len(rule.NonResourceURLs) > 0 {
				t.Errorf("%s: paths %v", name, rule.NonResourceURLs)
			}
			for _, res := range rule.Resources {
				sub := strings.Contains(res, "/")
				if res == "secrets" || strings.Contains(res, "*") || sub && !slices.Contains([]string{"pods/attach", "pods/exec", "pods/portforward"}, res) {
					t.Errorf("%s: resource %s", name, res)
				}
				for _, v := range rule.Verbs {
					if v == "create" && sub {
						continue
					}
					if !slices.Contains([]string{"get", "list", "watch"}, v) {
						t.Errorf("%s: verb %s on %s", name, v, res)
					}
				}
			}
			if slices.Contains(rule.APIGroups, "*") {
				t.Errorf("%s: every group", name)
			}
		}
	}
}
