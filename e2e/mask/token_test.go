package mask_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// Threat S9: where a policy lets people say yes to a service account's token, what the agent gets is masked; and so is a token
// that it asks about. The test changes the policy, so that it is not parallel to others.
func TestTokensAreMasked(t *testing.T) {
	s := stacktest.Get(t)
	const group = `"subjects":[{"kind":"Group","apiGroup":"rbac.authorization.k8s.io","name":"sallyport:maintain"}]`
	s.Create(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"test-tokens"},"rules":[{"apiGroups":[""],"resources":["serviceaccounts/token"],"verbs":["create"]},{"apiGroups":["authentication.k8s.io"],"resources":["tokenreviews"],"verbs":["create"]}]}`)
	s.Create(t, `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"test-tokens"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"test-tokens"},`+group+`}`)
	s.Policy(t).Change(func(text string) string {
		at := strings.Index(text, "name: no-token-minting")
		return text[:at] + strings.Replace(text[at:], "effect: deny", "effect: ask", 1)
	})
	agent := s.Agent(t, "developers")
	asked := consenting(t, s, agent)
	set := canary.New()
	word := set.Plant("a token that was sent")
	tokens := 0
	for _, w := range []write{
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/app/token", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`, ""},
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/app/token?pretty=true", "application/yaml", "apiVersion: authentication.k8s.io/v1\nkind: TokenRequest\nspec: {expirationSeconds: 600}\n", protobuf},
		{"POST", "/api/v1/namespaces/dev/serviceaccounts/app/token?dryRun=All", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`, "application/cbor, */*"},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"` + word + `"}}`, ""},
		{"POST", "/apis/authentication.k8s.io/v1/tokenreviews?pretty=true", asJSON, `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"` + word + `"}}`, protobuf},
	} {
		a := w.by(t, agent)
		var o struct{ Spec, Status struct{ Token string } }
		if err := json.Unmarshal([]byte(a.Body), &o); err != nil || a.Code != http.StatusCreated || strings.Contains(a.Body, "eyJ") || len(set.In(text(a))) > 0 {
			t.Errorf("%v is answered %v, %v", w, a, err)
		}
		if masks.MatchString(o.Status.Token) || masks.MatchString(o.Spec.Token) {
			tokens++
		}
	}
	if out := agent.Kubectl(t, "create", "token", "app", "-n", "dev"); out.Code != 0 || !masks.MatchString(out.Stdout) {
		t.Errorf("kubectl create token: %v", out)
	}
	if tokens != 5 || len(asked.all()) < 5 {
		t.Errorf("%d tokens were masked, and people asked %d times", tokens, len(asked.all()))
	}
}
