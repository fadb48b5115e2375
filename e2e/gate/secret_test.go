package gate_test

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// What an agent is shown, however closely it looks and whatever goes wrong, holds no credential but its own token.
func TestNothingShownHoldsACredential(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	kubeconfig, err := os.ReadFile(s.Description.Agent.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	shown := map[string]string{"the kubeconfig": string(kubeconfig)}
	for _, word := range []string{"client-key", "client-certificate", "AWS_", s.AWS.Endpoint, s.Cluster.Server} {
		if strings.Contains(string(kubeconfig), word) {
			t.Errorf("the agent's kubeconfig holds %q", word)
		}
	}
	for _, args := range [][]string{
		{"get", "pods", "-n", "dev", "-o", "yaml"},
		{"get", "pods", "-n", "nowhere"},
		{"get", "secrets", "-n", "dev"},
		{"get", "secrets", "-A", "-o", "yaml", "--show-managed-fields"},
		{"describe", "secret", "db", "-n", "dev"},
		{"get", "secret", "db", "-n", "dev", "-o", "jsonpath={.data.password}"},
		{"get", "--raw", "/api/v1/namespaces/dev/secrets/db"},
		{"get", "--raw", "/api/v1/namespaces/prod/secrets/db?reveal=password"},
		{"patch", "secret", "db", "-n", "prod", "-p", `{"metadata":{"labels":{"a":"b"}}}`, "--dry-run=server", "-o", "yaml"},
		{"auth", "whoami", "-o", "yaml"},
		{"auth", "can-i", "--list"},
		{"get", "--raw", "/metrics"},
		{"delete", "pod", s.Pod(t, "prod"), "-n", "prod"},
		{"delete", "pod", "nothing", "-n", "dev"},
		{"create", "configmap", "x", "-n", "dev", "--dry-run=server", "-o", "yaml"},
		{"exec", "-n", "dev", pod, "--", "env"},
		{"exec", "-n", "dev", "nothing", "--", "env"},
		{"cluster-info", "dump", "-n", "dev", "--namespaces", "dev"},
		{"config", "view", "--raw"},
	} {
		out := agent.Kubectl(t, append([]string{"-v=9"}, args...)...)
		shown["kubectl "+strings.Join(args, " ")] = out.Stdout + out.Stderr
	}
	for name, a := range map[string]stacktest.Answer{
		"whoami":             agent.Post(t, stacktest.ReviewPath, stacktest.Review),
		"whoami, old":        agent.Post(t, "/apis/authentication.k8s.io/v1beta1/selfsubjectreviews", strings.Replace(stacktest.Review, "v1", "v1beta1", 1)),
		"whoami as protobuf": agent.Post(t, stacktest.ReviewPath, stacktest.Review, "Accept: application/vnd.kubernetes.protobuf"),
		"whoami as YAML":     agent.Post(t, stacktest.ReviewPath, stacktest.Review, "Accept: application/yaml"),
		"whoami as CBOR":     agent.Post(t, stacktest.ReviewPath, stacktest.Review, "Accept: application/cbor"),
		"whoami as a table":  agent.Post(t, stacktest.ReviewPath, stacktest.Review, "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"),
		"whoami, packed":     agent.Post(t, stacktest.ReviewPath, stacktest.Review, "Accept-Encoding: gzip"),
		"whoami, a slash":    agent.Post(t, stacktest.ReviewPath+"/", stacktest.Review),
		"whoami, a dry run":  agent.Post(t, stacktest.ReviewPath+"?dryRun=All&pretty=true", stacktest.Review),
		"whoami, broken":     agent.Post(t, stacktest.ReviewPath, "{"),
		"a 404":              agent.Get(t, "/api/v1/namespaces/dev/pods/nothing"),
		"a 403":              agent.Get(t, "/api/v1/nodes/dev-node/proxy/pods"),
		"Secrets":            agent.Get(t, "/api/v1/secrets"),
		"Secrets as a table": agent.Get(t, "/api/v1/secrets?includeObject=Object", "Accept: application/json;as=Table;v=v1;g=meta.k8s.io"),
		"a 406":              agent.Get(t, "/api/v1/namespaces/dev/pods", "Accept: image/png"),
		"a 400":              agent.Get(t, "/api/v1/namespaces/dev/pods?limit=x"),
	} {
		shown[name] = a.Body
		for k, v := range a.Header {
			shown[name] += "\n" + k + ": " + strings.Join(v, ",")
		}
		// The agent is to know by one id what the record and the cluster's audit log call its request.
		if ids := a.Header.Values("Audit-Id"); len(ids) != 1 {
			t.Errorf("%s: %d audit ids: %v", name, len(ids), ids)
		}
	}
	for path, text := range agent.Files(t) {
		shown["file "+path] = text
	}
	for _, url := range []string{s.Proxy.Metrics, strings.Replace(s.Proxy.Metrics, "/metrics", "/readyz", 1), strings.Replace(s.Proxy.Metrics, "/metrics", "/healthz", 1)} {
		res, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		b, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", url, res.Status)
		}
		shown[url] = string(b)
	}
	mine := map[string]bool{}
	for _, x := range agent.Assumed(t) {
		mine[x.AccessKeyID] = true
	}
	if len(mine) == 0 {
		t.Error("no role was assumed for the agent; what could it have been shown?")
	}
	for what, text := range shown {
		s.Show(what, text)
		if m := stacktest.Credentials.FindString(text); m != "" {
			t.Errorf("%s holds %q", what, m)
		}
		hidden(t, what, text)
		for id := range mine {
			if strings.Contains(text, id) {
				t.Errorf("%s holds the id of the access key that the gate uses for the agent", what)
			}
		}
	}
	if len(shown) < 40 {
		t.Errorf("only %d things were looked at", len(shown))
	}
}

// The search must be able to find something.
func TestCredentialsAreRecognised(t *testing.T) {
	for _, secret := range []string{
		"k8s-aws-v1.aHR0cHM6Ly9zdHM", "?t=k8s-aws-v1.aHR0cHM6", "ASIAO4T5EYK6NGDFZ3FS", `"AKIAIOSFODNN7EXAMPLE"`, "x-amz-security-token=", "X-Amz-Credential", "IQoJb3JpZ2luX2VjEJr//////////wEaCXVzLWVhc3QtMSJH",
		"-----BEGIN EC PRIVATE KEY-----",
	} {
		if !stacktest.Credentials.MatchString(secret) {
			t.Errorf("%q is taken for nothing", secret)
		}
	}
	for _, word := range []string{"EURASIA", "fantasia", "X-Amzn-Requestid", "AROAZVZUKWVL62PQJVA7Z", "BEGIN CERTIFICATE", `missing expected "k8s-aws-v1." prefix`} {
		if m := stacktest.Credentials.FindString(word); m != "" {
			t.Errorf("%q is taken for a credential", word)
		}
	}
}

// A process of the stack shows no secret on its command line, where every account of the machine can read it.
func TestCommandLines(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for name, pid := range s.PIDs {
		b, err := exec.Command("ps", "-ww", "-o", "args=", "-p", strconv.Itoa(pid)).Output()
		if err != nil {
			t.Errorf("%s (%d): %v", name, pid, err)
		}
		if m := stacktest.Credentials.Find(b); m != nil {
			t.Errorf("%s shows %q", name, m)
		}
		for _, v := range []string{"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"} {
			if secret := stacktest.Lookup(stacktest.Environ(t, pid), v); len(secret) >= 16 && bytes.Contains(b, []byte(secret)) {
				t.Errorf("%s shows %s", name, v)
			}
		}
	}
}
