package walls_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	authentication "k8s.io/api/authentication/v1"

	"sallyport/e2e/stacktest"
)

const (
	jsonMedia      = "application/json"
	mergeMedia     = "application/merge-patch+json"
	strategicMedia = "application/strategic-merge-patch+json"
	jsonPatchMedia = "application/json-patch+json"
	applyMedia     = "application/apply-patch+yaml"
	protoMedia     = "application/vnd.kubernetes.protobuf"
)

const (
	rootPod = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"walls-raw"},"spec":{"hostPID":true,"serviceAccountName":"app","containers":[{"name":"c","image":"x","securityContext":{"privileged":true},` +
		`"volumeMounts":[{"name":"h","mountPath":"/h"}]}],"volumes":[{"name":"h","hostPath":{"path":"/"}},{"name":"s","secret":{"secretName":"db"}}]}}`
	adminBinding = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRoleBinding","metadata":{"name":"walls-raw"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"ClusterRole","name":"cluster-admin"},` +
		`"subjects":[{"kind":"Group","name":"system:authenticated","apiGroup":"rbac.authorization.k8s.io"}]}`
	allPower = `{"apiVersion":"rbac.authorization.k8s.io/v1","kind":"ClusterRole","metadata":{"name":"walls-raw"},"rules":[{"apiGroups":["*"],"resources":["*"],"verbs":["*","escalate","bind","impersonate"]}]}`
	webhook  = `{"apiVersion":"admissionregistration.k8s.io/v1","kind":"MutatingWebhookConfiguration","metadata":{"name":"walls-raw"},"webhooks":[]}`
	eviction = `{"apiVersion":"policy/v1","kind":"Eviction","metadata":{"name":"walls-none"}}`
)

// attacks are requests no base tier may have answered, written by hand from the threats. Should a wall have a hole, they
// change as little as they can: names that do not exist, and dry runs. may are the tiers that the policy lets do it, after
// somebody said yes or at once, and whose cluster role therefore does not refuse it.
var attacks = []struct {
	threat, method, target, media, body, may string
	header                                   string
}{
	// R1: the kubelet, which runs commands and asks nobody.
	{threat: "R1", method: "GET", target: "/api/v1/nodes/NODE/proxy/pods"},
	{threat: "R1", method: "GET", target: "/api/v1/nodes/NODE/proxy/exec/dev/POD/web?command=id&output=1"},
	{threat: "R1", method: "POST", target: "/api/v1/nodes/NODE/proxy/run/dev/POD/web?cmd=id"},
	{threat: "R1", method: "GET", target: "/api/v1/nodes/https:NODE:10250/proxy/logs/"},
	{threat: "R1", method: "GET", target: "/api/v1/nodes/NODE/proxy/"},
	{threat: "R1", method: "GET", target: "/api/v1/proxy/nodes/NODE/pods"},

	// R2: subresources that are more than they look.
	{threat: "R2", method: "GET", target: "/api/v1/namespaces/dev/pods/POD:8080/proxy/"},
	{threat: "R2", method: "POST", target: "/api/v1/namespaces/dev/pods/POD/proxy"},
	{threat: "R2", method: "GET", target: "/api/v1/namespaces/default/services/https:kubernetes:443/proxy/api/v1/secrets"},
	{threat: "R2", method: "PATCH", target: "/api/v1/namespaces/dev/pods/POD/ephemeralcontainers?dryRun=All", media: strategicMedia, body: `{"spec":{"ephemeralContainers":[{"name":"x","image":"x"}]}}`},
	{threat: "R2", method: "PUT", target: "/api/v1/namespaces/prod/pods/POD/ephemeralcontainers?dryRun=All", media: jsonMedia, body: rootPod},
	{threat: "R2", method: "POST", target: "/api/v1/namespaces/dev/serviceaccounts/app/token", media: jsonMedia, body: `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`},
	{threat: "R2", method: "POST", target: "/api/v1/namespaces/kube-system/serviceaccounts/clusterrole-aggregation-controller/token", media: jsonMedia, body: `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{}}`},
	{threat: "R2", method: "POST", target: "/apis/authentication.k8s.io/v1/tokenreviews", media: jsonMedia, body: `{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview","spec":{"token":"x"}}`},
	{threat: "R2", method: "PUT", target: "/api/v1/namespaces/walls-none/finalize", media: jsonMedia, body: `{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"walls-none"},"spec":{"finalizers":[]}}`},
	{threat: "R2", method: "PUT", target: "/apis/certificates.k8s.io/v1/certificatesigningrequests/walls-none/approval", media: jsonMedia, body: `{}`},
	{threat: "R2", method: "PATCH", target: "/apis/certificates.k8s.io/v1/certificatesigningrequests/walls-none/status", media: mergeMedia, body: `{"status":{"certificate":"eA=="}}`},
	{threat: "R2", method: "POST", target: "/api/v1/namespaces/dev/pods/walls-none/binding?dryRun=All", media: jsonMedia, body: `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"walls-none"},"target":{"kind":"Node","name":"NODE"}}`},
	{threat: "R2", method: "POST", target: "/api/v1/namespaces/dev/bindings?dryRun=All", media: jsonMedia, body: `{"apiVersion":"v1","kind":"Binding","metadata":{"name":"walls-none"},"target":{"kind":"Node","name":"NODE"}}`},
	{threat: "R2", method: "PATCH", target: "/api/v1/namespaces/dev/pods/POD/resize?dryRun=All", media: strategicMedia, body: `{}`},
	{threat: "R2", method: "PATCH", target: "/api/v1/namespaces/dev/pods/POD/status?dryRun=All", media: mergeMedia, body: `{"status":{"podIP":"169.254.169.254"}}`},
	{threat: "R2", method: "PATCH", target: "/api/v1/nodes/NODE/status?dryRun=All", media: mergeMedia, body: `{"status":{"addresses":[]}}`},

	// R3: pods that are more than pods, where the tier develops nothing.
	{threat: "R3", method: "POST", target: "/api/v1/namespaces/prod/pods?dryRun=All", media: jsonMedia, body: rootPod},
	{threat: "R3", method: "POST", target: "/api/v1/namespaces/kube-system/pods?dryRun=All", media: jsonMedia, body: rootPod},
	{threat: "R3", method: "POST", target: "/api/v1/namespaces/prod/pods?dryRun=All", media: protoMedia, body: "k8s\x00\n\x09\n\x02v1\x12\x03Pod"},
	{threat: "R3", method: "POST", target: "/api/v1/namespaces/dev/pods?dryRun=All", media: jsonMedia, body: rootPod, may: "develop maintain"},
	{threat: "R3", method: "POST", target: "/api/v1/namespaces/dev/replicationcontrollers?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R3", method: "PATCH", target: "/api/v1/namespaces/prod/pods/walls-raw?fieldManager=x&dryRun=All", media: applyMedia, body: rootPod},
	{threat: "R3", method: "POST", target: "/apis/batch/v1/namespaces/prod/cronjobs?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R3", method: "PATCH", target: "/apis/apps/v1/namespaces/prod/deployments/web?dryRun=All", media: jsonPatchMedia, body: `[]`, may: "operate"},
	{threat: "R3", method: "PUT", target: "/apis/apps/v1/namespaces/prod/deployments/walls-none?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R3", method: "PATCH", target: "/apis/apps/v1/namespaces/prod/replicasets/walls-none?dryRun=All", media: mergeMedia, body: `{}`},
	{threat: "R3", method: "PATCH", target: "/apis/apps/v1/namespaces/prod/deployments/web/scale?dryRun=All", media: mergeMedia, body: `{"spec":{"replicas":0}}`, may: "operate"},

	// R4: who may do what, and what is done with everybody's requests.
	{threat: "R4", method: "POST", target: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings?dryRun=All", media: jsonMedia, body: adminBinding},
	{threat: "R4", method: "POST", target: "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/rolebindings?dryRun=All", media: jsonMedia, body: strings.Replace(adminBinding, "ClusterRoleBinding", "RoleBinding", 1)},
	{threat: "R4 escalate", method: "POST", target: "/apis/rbac.authorization.k8s.io/v1/clusterroles?dryRun=All", media: jsonMedia, body: allPower},
	{threat: "R4 escalate", method: "PATCH", target: "/apis/rbac.authorization.k8s.io/v1/clusterroles/sallyport:read?dryRun=All", media: jsonPatchMedia, body: `[{"op":"add","path":"/rules/-","value":{"apiGroups":[""],"resources":["secrets"],"verbs":["get"]}}]`},
	{threat: "R4", method: "PUT", target: "/apis/rbac.authorization.k8s.io/v1/clusterroles/view?dryRun=All", media: jsonMedia, body: allPower},
	{threat: "R4", method: "POST", target: "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/roles?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "DELETE", target: "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/walls-none"},
	{threat: "R4", method: "DELETE", target: "/apis/rbac.authorization.k8s.io/v1/namespaces/dev/rolebindings?dryRun=All&labelSelector=walls%3Dnone"},
	{threat: "R4", method: "POST", target: "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations?dryRun=All", media: jsonMedia, body: webhook},
	{threat: "R4", method: "DELETE", target: "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/walls-none"},
	{threat: "R4", method: "PATCH", target: "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/walls-none", media: mergeMedia, body: `{}`},
	{threat: "R4", method: "PUT", target: "/apis/apiregistration.k8s.io/v1/apiservices/v1.apps?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "POST", target: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "POST", target: "/apis/certificates.k8s.io/v1/certificatesigningrequests?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "PATCH", target: "/api/v1/namespaces/kube-system/configmaps/aws-auth?dryRun=All", media: mergeMedia, body: `{"data":{"mapUsers":"x"}}`},
	{threat: "R4", method: "PATCH", target: "/api/v1/namespaces/dev/serviceaccounts/app?dryRun=All", media: mergeMedia, body: `{"metadata":{"annotations":{"eks.amazonaws.com/role-arn":"arn:aws:iam::111122223333:role/admin"}}}`},
	{threat: "R4", method: "POST", target: "/api/v1/namespaces/dev/serviceaccounts?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "PATCH", target: "/api/v1/namespaces/dev?dryRun=All", media: mergeMedia, body: `{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}`},
	{threat: "R4", method: "POST", target: "/api/v1/namespaces?dryRun=All", media: jsonMedia, body: `{"metadata":{"name":"walls-raw"}}`},
	{threat: "R4", method: "PATCH", target: "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt?dryRun=All", media: mergeMedia, body: `{}`},
	{threat: "R4", method: "POST", target: "/apis/authorization.k8s.io/v1/subjectaccessreviews", media: jsonMedia, body: `{}`},
	{threat: "R4", method: "POST", target: "/apis/authorization.k8s.io/v1/namespaces/dev/localsubjectaccessreviews", media: jsonMedia, body: `{}`},

	// H1: as somebody else. The administrator who plays a tier cannot play twice.
	{threat: "H1", method: "GET", target: "/api/v1/namespaces/dev/pods", header: "Impersonate-User: kubernetes-admin", may: "borrowed"},
	{threat: "H1", method: "GET", target: "/api/v1/namespaces/dev/pods", header: "Impersonate-User: system:serviceaccount:kube-system:default", may: "borrowed"},

	// What the profiles ask about: deletes, evictions, containers.
	{threat: "delete", method: "DELETE", target: "/api/v1/namespaces/dev/pods/walls-none", may: "develop maintain"},
	{threat: "delete", method: "DELETE", target: "/api/v1/namespaces/prod/pods/walls-none", may: "maintain"},
	{threat: "delete", method: "DELETE", target: "/apis/apps/v1/namespaces/prod/deployments/walls-none?dryRun=All", may: "maintain"},
	{threat: "delete", method: "DELETE", target: "/api/v1/namespaces/walls-none", may: "maintain"},
	{threat: "delete", method: "DELETE", target: "/api/v1/namespaces/prod/pods?dryRun=All&labelSelector=walls%3Dnone", may: "maintain"},
	{threat: "delete", method: "DELETE", target: "/apis/batch/v1/namespaces/kube-system/jobs?dryRun=All&labelSelector=walls%3Dnone", may: "maintain"},
	{threat: "delete", method: "DELETE", target: "/api/v1/nodes/walls-none"},
	{threat: "delete", method: "DELETE", target: "/api/v1/persistentvolumes/walls-none"},
	{threat: "delete", method: "DELETE", target: "/apis/storage.k8s.io/v1/storageclasses/walls-none"},
	{threat: "delete", method: "DELETE", target: "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/walls.example.com"},
	{threat: "evict", method: "POST", target: "/api/v1/namespaces/dev/pods/walls-none/eviction?dryRun=All", media: jsonMedia, body: eviction, may: "develop maintain"},
	{threat: "evict", method: "POST", target: "/api/v1/namespaces/prod/pods/walls-none/eviction?dryRun=All", media: jsonMedia, body: eviction, may: "maintain"},
	{threat: "drain", method: "PATCH", target: "/api/v1/nodes/NODE?dryRun=All", media: strategicMedia, body: `{"spec":{"unschedulable":true}}`},
	{threat: "exec", method: "POST", target: "/api/v1/namespaces/dev/pods/POD/exec?command=id&stdout=true", may: "develop maintain"},
	{threat: "exec", method: "GET", target: "/api/v1/namespaces/prod/pods/walls-none/exec?command=id&stdout=true", may: "maintain"},
	{threat: "exec", method: "GET", target: "/api/v1/namespaces/prod/pods/walls-none/exec/?command=id&stdout=true", may: "maintain"},
	{threat: "attach", method: "POST", target: "/api/v1/namespaces/prod/pods/walls-none/attach?stdout=true", may: "maintain"},
	{threat: "portforward", method: "GET", target: "/api/v1/namespaces/prod/pods/walls-none/portforward?ports=8080", may: "maintain"},

	// Secrets, every way there is. That tier develop reads them masked is the gate's wall alone.
	{threat: "secrets", method: "GET", target: "/api/v1/secrets", may: "develop"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/dev/secrets", may: "develop"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/dev/secrets/db", may: "develop maintain"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/dev/%73ecrets/db", may: "develop maintain"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/dev/secrets?fieldSelector=metadata.name%3Ddb", may: "develop"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/prod/secrets?watch=1&timeoutSeconds=1", may: "develop"},
	{threat: "secrets", method: "GET", target: "/api/v1/watch/namespaces/prod/secrets?timeoutSeconds=1", may: "develop"},
	{threat: "secrets", method: "GET", target: "/api/v1/namespaces/prod/secrets/db", header: "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", may: "develop"},
	{threat: "secrets S4", method: "PATCH", target: "/api/v1/namespaces/prod/secrets/db?dryRun=All", media: mergeMedia, body: `{}`},
	{threat: "secrets S4", method: "PATCH", target: "/api/v1/namespaces/dev/secrets/db?fieldManager=x&dryRun=All", media: applyMedia, body: `{"apiVersion":"v1","kind":"Secret"}`, may: "maintain"},
	{threat: "secrets S4", method: "DELETE", target: "/api/v1/namespaces/prod/secrets?dryRun=All"},
	{threat: "secrets S4", method: "PATCH", target: "/api/v1/namespaces/dev/secrets/db?dryRun=All", media: mergeMedia, body: `{}`, may: "maintain"},
	{threat: "secrets S4", method: "PATCH", target: "/api/v1/namespaces/dev/secrets/db?dryRun=All", media: jsonPatchMedia, body: `[{"op":"copy","from":"/data/password","path":"/metadata/annotations"}]`, may: "maintain"},
	{threat: "secrets S4", method: "DELETE", target: "/api/v1/namespaces/dev/secrets?dryRun=All", may: "maintain"},
	{threat: "secrets S4", method: "PUT", target: "/api/v1/namespaces/prod/secrets/db?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "secrets", method: "POST", target: "/api/v1/namespaces/prod/secrets?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "secrets", method: "POST", target: "/api/v1/namespaces/kube-system/secrets?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "secrets reveal", method: "GET", target: "/api/v1/namespaces/prod/secrets/db?reveal=password", may: "develop"},
	{threat: "secrets", method: "POST", target: "/api/v1/namespaces/dev/secrets?dryRun=All", media: jsonMedia, body: `{"metadata":{"name":"walls-raw","annotations":{"kubernetes.io/service-account.name":"app"}},"type":"kubernetes.io/service-account-token"}`, may: "maintain"},

	// Kinds that no rule names, and their looks.
	{threat: "P6", method: "GET", target: "/apis/GROUP/v1/namespaces/dev/vaults"},
	{threat: "P6", method: "GET", target: "/apis/GROUP/v1/vaults?watch=true&timeoutSeconds=1"},
	{threat: "P6", method: "POST", target: "/apis/GROUP/v1/namespaces/dev/vaults?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "P6", method: "PATCH", target: "/apis/GROUP/v1/namespaces/dev/vaults/x/scale?dryRun=All", media: mergeMedia, body: `{}`},
	{threat: "P6", method: "GET", target: "/apis/nobody.example.com/v1/namespaces/dev/pods"},

	// P5: paths that are no resources.
	{threat: "P5", method: "GET", target: "/metrics"},
	{threat: "P5", method: "GET", target: "/debug/pprof/goroutine?debug=2"},
	{threat: "P5", method: "GET", target: "/logs/kube-apiserver.log"},
	{threat: "P5", method: "GET", target: "/configz"},
	{threat: "P5", method: "PUT", target: "/debug/flags/v", media: "text/plain", body: "9"},

	// What else would serve to get further.
	{threat: "W", method: "POST", target: "/api/v1/namespaces/dev/endpoints?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "W", method: "PATCH", target: "/apis/discovery.k8s.io/v1/namespaces/dev/endpointslices/walls-none", media: mergeMedia, body: `{}`},
	{threat: "W", method: "POST", target: "/api/v1/persistentvolumes?dryRun=All", media: jsonMedia, body: `{"metadata":{"name":"walls-raw"},"spec":{"hostPath":{"path":"/"}}}`},
	{threat: "W", method: "DELETE", target: "/apis/networking.k8s.io/v1/namespaces/prod/networkpolicies?dryRun=All&labelSelector=walls%3Dnone", may: "maintain"},
	{threat: "W", method: "PUT", target: "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/walls-none?dryRun=All", media: jsonMedia, body: `{}`},
	{threat: "W", method: "POST", target: "/api/v1/namespaces/kube-system/configmaps?dryRun=All", media: jsonMedia, body: `{}`},
}

// Whoever has a tier's credential and speaks to the cluster past the gate is refused by the cluster itself.
func TestPastTheGate(t *testing.T) {
	s := stacktest.Get(t)
	group := unknownKind(t, s)
	node := s.Admin(t, "get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
	fill := strings.NewReplacer("NODE", node, "POD", s.Pod(t, "dev"), "GROUP", group).Replace
	sent := 0
	for _, in := range tiers(t, s) {
		t.Run(in.tier.Name, func(t *testing.T) {
			// The credential is good: what follows is refused for what it asks, not for who asks.
			if code, body, err := in.send(t.Context(), http.MethodGet, "/api/v1/namespaces/prod/pods?limit=1", "", ""); code != http.StatusOK {
				t.Fatalf("the tier cannot read pods: %d %.200s %v", code, body, err)
			}
			if got := in.groups(t); !slices.Equal(got, []string{in.tier.Group, "system:authenticated"}) {
				t.Errorf("the cluster puts it into the groups %q", got)
			}
			for _, a := range attacks {
				may := strings.Fields(a.may)
				if slices.Contains(may, in.tier.Name) || in.borrowed && slices.Contains(may, "borrowed") {
					continue
				}
				var lines []string
				if a.header != "" {
					lines = []string{a.header}
				}
				sent++
				if why := in.refused(t.Context(), a.method, fill(a.target), a.media, fill(a.body), lines...); why != "" {
					t.Errorf("%s: %s %s: %s", a.threat, a.method, a.target, why)
				}
			}
		})
	}
	t.Logf("%d attacks, sent %d times", len(attacks), sent)
}

// groups are the groups the cluster finds the credential in.
func (in *intruder) groups(t *testing.T) []string {
	t.Helper()
	code, body, err := in.send(t.Context(), http.MethodPost, "/apis/authentication.k8s.io/v1/selfsubjectreviews", jsonMedia, `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`)
	var review authentication.SelfSubjectReview
	if err == nil {
		err = json.Unmarshal([]byte(body), &review)
	}
	if err != nil || code != http.StatusCreated {
		t.Fatalf("asking who it is: %d %v", code, err)
	}
	return slices.Sorted(slices.Values(review.Status.UserInfo.Groups))
}
