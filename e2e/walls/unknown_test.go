package walls_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	authorization "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/e2e/stacktest"
)

// operatorsKind is what a third-party controller installs: a kind of its own, added to the roles that everybody uses.
const operatorsKind = `apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: vaults.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: vaults, singular: vault, kind: Vault}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}}
    schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata:
  name: GROUP:view
  labels: {rbac.authorization.k8s.io/aggregate-to-view: "true", rbac.authorization.k8s.io/aggregate-to-edit: "true", rbac.authorization.k8s.io/aggregate-to-admin: "true"}
rules:
- {apiGroups: [GROUP], resources: ["*"], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: GROUP, namespace: dev}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: view}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: GROUP}]
`

// unknownKind installs a kind that no rule names, readable with the built-in role view, and returns its API group. It
// goes with the test.
func unknownKind(t *testing.T, s *stacktest.Stack) string {
	t.Helper()
	group := stacktest.Word() + ".example.com"
	file := filepath.Join(t.TempDir(), "kind.yaml")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(operatorsKind, "GROUP", group)), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Admin(t, "delete", "-f", file, "--wait=false") })
	s.Admin(t, "apply", "-f", file)
	s.Admin(t, "wait", "--for=condition=Established", "crd/vaults."+group, "--timeout=30s")
	// The control: whoever has view has the new kind, as soon as the controller has added it.
	c := client(t, operator(t, s))
	stacktest.Eventually(t, 30*time.Second, func() string {
		review, err := c.AuthorizationV1().SubjectAccessReviews().Create(t.Context(), &authorization.SubjectAccessReview{Spec: authorization.SubjectAccessReviewSpec{
			User: "somebody", Groups: []string{group},
			ResourceAttributes: &authorization.ResourceAttributes{Verb: "list", Group: group, Resource: "vaults", Namespace: "dev"},
		}}, metav1.CreateOptions{})
		switch {
		case err != nil:
			return err.Error()
		case !review.Status.Allowed:
			return "the new kind is not in the built-in role view: " + review.Status.Reason
		}
		return ""
	})
	return group
}
