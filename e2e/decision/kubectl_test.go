package decision_test

import (
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// What developers do all day in their namespace, kubectl does through the gate as it does without.
func TestKubectlInDev(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	developer := s.Agent(t, "developers")
	name := "test-" + stacktest.Word()
	manifest := func(image string, replicas int) string {
		return fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s, namespace: dev, labels: {app: %[1]s}}
spec:
  replicas: %[3]d
  selector: {matchLabels: {app: %[1]s}}
  template:
    metadata: {labels: {app: %[1]s}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: web, image: %[2]q, ports: [{containerPort: 8080}]}
`, name, image, replicas)
	}
	settings := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: %%s}\n", name)
	t.Cleanup(func() {
		s.Admin(t, "delete", "deployment,configmap,service,job,pod", "-n", "dev", "-l", "app="+name, "--ignore-not-found", "--wait=false")
		s.Admin(t, "delete", "configmap", name, "-n", "dev", "--ignore-not-found")
	})
	// In order: each finds what the one before left.
	for _, step := range []struct {
		stdin string
		args  []string
		want  string // a regular expression that stdout matches
	}{
		{"", []string{"auth", "can-i", "create", "deployments"}, `^yes\n`},
		{"", []string{"auth", "can-i", "create", "roles"}, `^no\n`},
		{fmt.Sprintf(settings, "blue"), []string{"apply", "-f", "-"}, `created`},
		{fmt.Sprintf(settings, "red"), []string{"apply", "-f", "-"}, `configured`},
		{fmt.Sprintf(settings, "red"), []string{"apply", "-f", "-"}, `unchanged`},
		{fmt.Sprintf(settings, "green"), []string{"apply", "--server-side", "--force-conflicts", "-f", "-"}, `serverside-applied`},
		{fmt.Sprintf(settings, "pink"), []string{"diff", "-f", "-"}, `(?s)-  color: green.*\+  color: pink`},
		{fmt.Sprintf(settings, "gray"), []string{"replace", "-f", "-"}, `replaced`},
		{"", []string{"get", "configmap", name, "-o", "jsonpath={.data.color}"}, `^gray$`},
		{manifest("localhost/web:1", 1), []string{"apply", "-f", "-"}, `created`},
		{"", []string{"rollout", "status", "deployment/" + name, "--timeout=40s"}, `successfully rolled out`},
		{manifest("localhost/web:1", 2), []string{"apply", "-f", "-"}, `configured`},
		{manifest("localhost/web:1", 2), []string{"apply", "--server-side", "--force-conflicts", "-f", "-"}, `serverside-applied`},
		{"", []string{"scale", "deployment", name, "--replicas=1"}, `scaled`},
		{"", []string{"set", "image", "deployment/" + name, "web=localhost/web:2"}, `image updated`},
		{"", []string{"rollout", "restart", "deployment/" + name}, `restarted`},
		{"", []string{"rollout", "undo", "deployment/" + name}, `rolled back`},
		{"", []string{"rollout", "history", "deployment/" + name}, `REVISION`},
		{"", []string{"label", "deployment", name, "seen=yes"}, `labeled`},
		{"", []string{"annotate", "deployment", name, "seen=yes"}, `annotated`},
		{"", []string{"patch", "deployment", name, "-p", `{"spec":{"revisionHistoryLimit":3}}`}, `patched`},
		{"", []string{"patch", "deployment", name, "--type=json", "-p", `[{"op":"replace","path":"/spec/revisionHistoryLimit","value":4}]`}, `patched`},
		{"", []string{"patch", "deployment", name, "--type=merge", "-p", `{"spec":{"revisionHistoryLimit":5}}`}, `patched`},
		{"", []string{"set", "env", "deployment/" + name, "A=b"}, `env updated`},
		{"", []string{"set", "resources", "deployment/" + name, "--limits=memory=64Mi"}, `resource requirements updated`},
		{"", []string{"expose", "deployment", name, "--port=80"}, `exposed`},
		{"", []string{"autoscale", "deployment", name, "--max=2"}, `autoscaled`},
		{"", []string{"rollout", "status", "deployment/" + name, "--timeout=40s"}, `successfully rolled out`},
		{"", []string{"logs", "deployment/" + name, "--tail=1"}, `.`},
		{"", []string{"exec", "deployment/" + name, "--", "echo", "hello"}, `^hello\n`},
		{"", []string{"create", "job", name, "--image=localhost/web:1", "--dry-run=server"}, `created \(server dry run\)`},
		{"", []string{"delete", "hpa", name}, `deleted`},
		{"", []string{"delete", "service", name, "--dry-run=server"}, `deleted`},
		{"", []string{"get", "service", name, "-o", "name"}, `^service/` + name},
		{"", []string{"delete", "service", name}, `deleted`},
		{manifest("localhost/web:1", 1), []string{"delete", "-f", "-"}, `deleted`},
		{"", []string{"delete", "configmap", name}, `deleted`},
		{"", []string{"wait", "--for=delete", "pod", "-l", "app=" + name, "--timeout=40s"}, ``},
	} {
		out := developer.Run(t, func(c *exec.Cmd) {
			if step.stdin != "" {
				c.Stdin = strings.NewReader(step.stdin)
			}
		}, append([]string{"-n", "dev"}, step.args...)...)
		// can-i says no, and diff that there is a difference, with an exit code.
		if out.Code != 0 && step.args[0] != "diff" && !strings.Contains(step.want, "no") || !regexp.MustCompile(step.want).MatchString(out.Stdout) {
			t.Fatalf("kubectl %s: want %s, got %v", strings.Join(step.args, " "), step.want, out)
		}
	}
}

// kubectl shows the sentence of a refusal, whichever of its ways it goes.
func TestKubectlShowsTheSentence(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	root := "apiVersion: v1\nkind: Pod\nmetadata: {name: root, namespace: dev}\nspec: {hostPID: true, containers: [{name: c, image: x}]}\n"
	for _, test := range []struct {
		group string
		stdin string
		args  []string
		want  []string
	}{
		{"agents", "", []string{"create", "role", "x", "--verb=get", "--resource=pods", "-n", "dev"}, []string{`rule "no-rbac" denies`, "that is not an agent's work"}},
		{"agents", "", []string{"create", "configmap", "x", "-n", "dev"}, []string{"no rule allows", "create configmaps"}},
		{"developers", "", []string{"create", "configmap", "x", "-n", "prod"}, []string{"no rule allows", `"develop"`, "dev"}},
		{"developers", root, []string{"apply", "-f", "-"}, []string{`rule "no-privileged-pods" denies`, "root on its node"}},
		{"developers", root, []string{"apply", "--server-side", "-f", "-"}, []string{`rule "no-privileged-pods"`}},
		{"developers", root, []string{"create", "-f", "-"}, []string{`rule "no-privileged-pods" denies`}},
		{"observers", "", []string{"scale", "deploy", "web", "--replicas=1", "-n", "dev"}, []string{"no rule allows"}},
	} {
		t.Run(test.group+" "+strings.Join(test.args[:2], " "), func(t *testing.T) {
			t.Parallel()
			out := s.Agent(t, test.group).Run(t, func(c *exec.Cmd) {
				if test.stdin != "" {
					c.Stdin = strings.NewReader(test.stdin)
				}
			}, test.args...)
			for _, w := range test.want {
				if out.Code == 0 || !strings.Contains(out.Stderr, w) {
					t.Errorf("want %q, got %v", w, out)
				}
			}
		})
	}
}

// Threat U10: an answer that a client would send a write again for is never passed on for one.
func TestWritesAreNotSentAgain(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	name := s.ConfigMap(t)
	for _, a := range []ask{
		allow("develop", "a conflict", "POST", "/api/v1/namespaces/dev/configmaps").with(asJSON, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q}}`, name)).answered(409),
		allow("develop", "a generated name", "POST", "/api/v1/namespaces/dev/configmaps?dryRun=All").with(asJSON, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"x-"}}`).answered(201),
		allow("develop", "what the cluster does not take", "PUT", "/api/v1/namespaces/dev/configmaps/"+name).with(asJSON, fmt.Sprintf(`{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":%q},"data":{"a/b":"c"}}`, name)).answered(422),
		allow("develop", "another name", "PUT", "/api/v1/namespaces/dev/configmaps/"+name).with(asJSON, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"other"}}`).answered(400),
		allow("develop", "what is not there", "DELETE", "/api/v1/namespaces/dev/configmaps/not-there").answered(404),
	} {
		r := stacktest.Request{Method: a.method, Target: s.Path(a.target), Header: lines(agent, a.media), Body: a.body}
		got := s.Do(t, r)
		if got.Code != a.code || got.Header.Get("Retry-After") != "" {
			t.Errorf("%v: want %d, got %v", a, a.code, got)
		}
	}
}

// What the gate cannot classify it does not repeat into its log: a query holds whatever a caller put there.
func TestLogsHoldNoQueries(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	word := "word-in-a-query-" + stacktest.Word()
	for _, query := range []string{"limit=x", "fieldSelector=a", "resourceVersionMatch=x&watch=maybe", "labelSelector=%3D%3D", "timeoutSeconds=soon", "%zz", "a;b"} {
		a := agent.Get(t, "/api/v1/namespaces/dev/pods?"+query+"&access_token="+word)
		if a.Code == http.StatusInternalServerError {
			t.Errorf("%s: %v", query, a)
		}
	}
	logs, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range logs {
		if strings.Contains(text, word) && !strings.Contains(name, "/cluster/") {
			i := strings.Index(text, word)
			t.Errorf("%s holds the query of a request: %s", name, text[max(0, i-300):i+len(word)])
		}
	}
}
