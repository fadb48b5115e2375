package action_test

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

func TestRender(t *testing.T) {
	const dev = "/api/v1/namespaces/dev/"
	const web = "/apis/apps/v1/namespaces/dev/deployments/web"
	scale := &access.Object{Value: map[string]any{"spec": map[string]any{"replicas": int64(3)}}}
	restart := &access.Object{Touched: []string{"spec.template.metadata.annotations.kubectl.kubernetes.io/restartedAt"}}
	named := &access.Object{Value: map[string]any{"metadata": map[string]any{"generateName": "web-"}}}
	canI := &access.Object{Value: map[string]any{"spec": map[string]any{"resourceAttributes": map[string]any{"verb": "delete", "resource": "pods", "namespace": "dev"}}}}
	for _, test := range []struct {
		line              string
		patch             access.Patch
		obj               *access.Object
		kubectl, sentence string
	}{
		{"GET " + dev + "pods/web", "", nil, "kubectl -n dev get pods web", "get pod web in namespace dev"},
		{"GET " + dev + "pods/web/status", "", nil, "kubectl -n dev get pods web --subresource=status", "get the status of pod web in namespace dev"},
		{"GET " + dev + "pods?labelSelector=app%3Dx", "", nil, "kubectl -n dev get pods -l app=x", "list every pod in namespace dev that matches app=x"},
		{"GET /api/v1/pods", "", nil, "kubectl get pods -A", "list every pod in all namespaces"},
		{"GET /api/v1/nodes?watch=1", "", nil, "kubectl get nodes --watch", "watch every node"},
		{"GET /api/v1/namespaces/dev", "", nil, "kubectl get namespaces dev", "get namespace dev"},
		{"GET /apis/example.com/v1/namespaces/dev/widgets", "", nil, "kubectl -n dev get widgets.example.com", "list every widgets.example.com in namespace dev"},
		{"GET " + dev + "pods/web/log?follow=1", "", nil, "kubectl -n dev logs web -f", "follow the log of pod web in namespace dev"},
		{"GET " + dev + "secrets/db", "", nil, "kubectl -n dev get secrets db", "get secret db in namespace dev"},
		{"GET " + dev + "secrets/db?reveal=password", "", nil, "kubectl get --raw '/api/v1/namespaces/dev/secrets/db?reveal=password'", `see the value of key "password" of secret db in namespace dev, unmasked`},
		{"GET " + dev + "secrets/-o?reveal=A", "", nil, "kubectl get --raw '/api/v1/namespaces/dev/secrets/-o?reveal=A'", `see the value of key "A" of secret -o in namespace dev, unmasked`},
		{"GET /version", "", nil, "kubectl get --raw /version", "get /version"},
		{"GET /api/v1/nodes/n/proxy/run/x", "", nil, "kubectl get --raw /api/v1/nodes/n/proxy/run/x", "get the proxy of node n"},
		{"POST " + dev + "pods/web/exec?command=sh&command=-c&command=rm+-rf+/&container=app&stdin=1&tty=1", "", nil, "kubectl -n dev exec web -c app -it -- sh -c 'rm -rf /'", `run ["sh","-c","rm -rf /"] in container app of pod web in namespace dev, with whatever is typed into it`},
		{"POST " + dev + "pods/web/exec?command=echo&command=it%27s&command=", "", nil, `kubectl -n dev exec web -- echo 'it'\''s' ''`, `run ["echo","it's",""] in pod web in namespace dev`},
		{"POST " + dev + "pods/web/exec?command=a%E2%80%AEb%0A%1B%5B", "", nil, `kubectl -n dev exec web -- $'a\u202eb\u000a\u001b['`, `run ["a\u202eb\u000a\u001b["] in pod web in namespace dev`},
		{"POST " + dev + "pods/web/attach?container=app&stdin=1", "", nil, "kubectl -n dev attach web -c app -i", "attach to container app of pod web in namespace dev, typing into it"},
		{"POST " + dev + "pods/web/portforward?ports=80", "", nil, "kubectl -n dev port-forward pod/web", "forward ports to pod web in namespace dev"},
		{"DELETE " + dev + "pods?labelSelector=app%3Dx&dryRun=All", "", nil, "kubectl -n dev delete pods -l app=x --dry-run=server", "try, storing nothing, to delete every pod in namespace dev that matches app=x"},
		{"DELETE /api/v1/namespaces/prod/pods?labelSelector=app%3Dx", "", nil, "kubectl -n prod delete pods -l app=x", "delete every pod in namespace prod that matches app=x"},
		{"DELETE " + dev + "pods?fieldSelector=a%3Db", "", nil, "kubectl -n dev delete pods --field-selector=a=b", "delete every pod in namespace dev that matches a=b"},
		{"DELETE " + dev + "pods", "", nil, "kubectl -n dev delete pods --all", "delete every pod in namespace dev"},
		{"DELETE " + dev + "pods?labelSelector=x+and+is+harmless%22", "", nil, `kubectl -n dev delete pods -l 'x and is harmless"'`, `delete every pod in namespace dev that matches "x and is harmless\""`},
		{"DELETE /api/v1/namespaces/prod", "", nil, "kubectl delete namespaces prod", "delete namespace prod"},
		{"DELETE " + dev + "pods/--all", "", nil, "kubectl delete --raw /api/v1/namespaces/dev/pods/--all", "delete pod --all in namespace dev"},
		{"PATCH " + web + "/scale", access.MergePatch, scale, "kubectl -n dev scale deployments web --replicas=3", "change the scale of deployment web in namespace dev"},
		{"PUT " + web + "/scale?dryRun=All", "", scale, "kubectl -n dev scale deployments web --replicas=3 --dry-run=server", "try, storing nothing, to replace the scale of deployment web in namespace dev"},
		{"PATCH " + web, access.StrategicPatch, restart, "kubectl -n dev rollout restart deployments web", "change deployment web in namespace dev"},
		{"PATCH " + web, access.MergePatch, nil, "kubectl -n dev patch deployments web --type=merge -p '…'", "change deployment web in namespace dev"},
		{"PATCH " + web + "/status", access.JSONPatch, nil, "kubectl -n dev patch deployments web --type=json -p '…' --subresource=status", "change the status of deployment web in namespace dev"},
		{"PATCH " + web, access.ApplyPatch, nil, "kubectl -n dev apply --server-side -f - # deployments web", "apply a change to deployment web in namespace dev"},
		{"POST " + dev + "pods?dryRun=All", "", named, "kubectl -n dev create -f - --dry-run=server # pods web-…", "try, storing nothing, to create a pod in namespace dev"},
		{"POST /apis/networking.k8s.io/v1/namespaces/dev/ingresses", "", nil, "kubectl -n dev create -f - # ingresses", "create an ingress in namespace dev"},
		{"PUT " + web, "", nil, "kubectl -n dev replace -f - # deployments web", "replace deployment web in namespace dev"},
		{"POST " + dev + "pods/web/eviction", "", nil, "kubectl create --raw /api/v1/namespaces/dev/pods/web/eviction -f -", "create the eviction of pod web in namespace dev"},
		{"POST " + dev + "serviceaccounts/sa/token", "", nil, "kubectl -n dev create token sa", "create the token of serviceaccount sa in namespace dev"},
		{"POST /apis/authentication.k8s.io/v1/selfsubjectreviews", "", nil, "kubectl auth whoami", "create a selfsubjectreview"},
		{"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews", "", canI, "kubectl -n dev auth can-i delete pods", "create a selfsubjectaccessreview"},
	} {
		a := parse(t, test.line)
		a.Patch = test.patch
		if got := action.Kubectl(a, test.obj); got != test.kubectl {
			t.Errorf("%s:\n%s\nwant\n%s", test.line, got, test.kubectl)
		}
		if got := action.Sentence(a); got != test.sentence {
			t.Errorf("%s:\n%s\nwant\n%s", test.line, got, test.sentence)
		}
	}
}

// Words come through a shell as they were, whatever is in them, and nothing that hides is left in the line.
func TestKubectlIsSafe(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	words := []string{"$(id)", "`id`", `a'b"c\d`, "a;b|c&d", "*?[x]{a,b}~", "#x", "!!", "-n", "ä ü", "a\\u0041", "\t\n\r\x1b[31m", "x\u202ey'\\z", "\u200b\u2060\ufeff", "\U000e0041", "\u3164\u2800\u00a0", "e\ufe0f", "\xff\xfe", "\u00ad", "%s", "$'x'"}
	a := access.Action{Verb: "exec", Resource: "pods", Subresource: "exec", Namespace: "dev", Name: "web", Upgrade: true, Argv: words}
	line := action.Kubectl(a, nil)
	for _, text := range []string{line, action.Sentence(a)} {
		for _, r := range text {
			if r < ' ' || strings.ContainsRune("\u007f\u00a0\u00ad\u200b\u202e\u2060\ufeff\u3164\u2800\ufe0f\ufffd\U000e0041", r) {
				t.Errorf("%q shows %U, which nobody sees", text, r)
			}
		}
	}
	out, err := exec.Command(bash, "-c", "export LC_ALL=C.UTF-8; kubectl() { printf '%s\\0' \"$@\"; }; "+line).Output()
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	if want := append([]string{"-n", "dev", "exec", "web", "--"}, words...); !slices.Equal(got, want) {
		t.Errorf("through a shell: got\n%q, want\n%q\nline %s", got, want, line)
	}
}
