package mask_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// A helmsman runs the real helm as somebody.
type helmsman struct {
	stack *stacktest.Stack
	dir   string
	flags []string
	env   []string
}

func binary(t *testing.T) string {
	t.Helper()
	helm := os.Getenv("HELM")
	if helm == "" {
		t.Fatal("HELM does not say where helm is; make test-stack builds it")
	}
	return helm
}

// helmOf is helm as an agent.
func helmOf(t *testing.T, a *stacktest.Agent) *helmsman {
	return &helmsman{stack: a.Stack(), dir: a.Dir(), flags: []string{"--kube-apiserver", a.Base(), "--kube-token", a.Token, "--kube-ca-file", a.Stack().Proxy.CA}}
}

// helmPastTheGate is helm as the cluster's administrator.
func helmPastTheGate(t *testing.T, s *stacktest.Stack) *helmsman {
	return &helmsman{stack: s, dir: t.TempDir(), flags: []string{"--kubeconfig", s.Cluster.AdminKubeconfig}}
}

// driver is the same helm with its releases somewhere else.
func (h *helmsman) driver(name string) *helmsman {
	other := *h
	other.env = append(other.env, "HELM_DRIVER="+name)
	return &other
}

func (h *helmsman) run(t *testing.T, args ...string) stacktest.Output {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 60*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary(t), append(args, h.flags...)...)
	cmd.Dir = h.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + h.dir, "KUBECONFIG=/dev/null", "HELM_CACHE_HOME=" + h.dir, "HELM_CONFIG_HOME=" + h.dir, "HELM_DATA_HOME=" + h.dir}, h.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	_ = cmd.Run()
	out := stacktest.Output{Stdout: stdout.String(), Stderr: stderr.String(), Code: cmd.ProcessState.ExitCode()}
	if h.flags[0] != "--kubeconfig" {
		h.stack.Show("helm "+strings.Join(args, " "), out.Stdout, out.Stderr)
	}
	return out
}

func (h *helmsman) must(t *testing.T, args ...string) string {
	t.Helper()
	out := h.run(t, args...)
	if out.Code != 0 {
		t.Fatalf("helm %s: %v", strings.Join(args, " "), out)
	}
	return out.Stdout
}

// chart is a chart that says its values everywhere.
func chart(t *testing.T, c *canary.Set) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{
		"Chart.yaml":  "apiVersion: v2\nname: canary\nversion: 1.0.0\n",
		"values.yaml": "password: \"<<Helm, the chart's values|word>>\"\nplain: shown\n",
		"templates/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: {{ .Release.Name }}, labels: {from: helm}}\nstringData: {password: {{ .Values.password | quote }}, url: {{ .Values.url | quote }}, fixed: \"<<Helm, a Secret's template|github>>\"}\n" +
			"data: {stored: {{ .Values.stored | b64enc }}}\n",
		"templates/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-config}\ndata: {api-key: {{ .Values.key | quote }}, text: {{ printf \"dsn=%s\" .Values.url | quote }}, plain: shown}\n",
		"templates/job.yaml": "apiVersion: batch/v1\nkind: CronJob\nmetadata: {name: {{ .Release.Name }}}\nspec: {schedule: '0 0 1 1 *', suspend: true, jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: x, " +
			"args: [{{ .Values.url | quote }}], env: [{name: CLIENT_SECRET, value: {{ .Values.env | quote }}}]}]}}}}}\n",
		"templates/hook.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: {{ .Release.Name }}-hook, annotations: {helm.sh/hook: pre-install, helm.sh/hook-delete-policy: hook-succeeded}}\nstringData: {password: {{ .Values.hook | quote }}}\n",
		"templates/NOTES.txt": "The password is {{ .Values.password }}, and {{ .Values.url }}.\n",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(planted(t, c, text)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// values is a file of values for a chart.
func values(t *testing.T, c *canary.Set) (file string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "values.yaml")
	text := planted(t, c, `password: "<<Helm, values|word>>"
url: "<<Helm, values|url>>"
stored: "<<Helm, values|word>>"
key: "<<Helm, values|word>>"
env: "<<Helm, values|word>>"
hook: "<<Helm, values|word>>"
deep: {list: [{unused: "<<Helm, values nobody uses|word>>"}]}
`)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// install installs a release of two revisions.
func (h *helmsman) install(t *testing.T, c *canary.Set) (name string) {
	t.Helper()
	name = "canary-" + stacktest.Word()
	dir := chart(t, c)
	t.Cleanup(func() {
		if out := h.run(t, "uninstall", name, "-n", "dev", "--wait=false"); out.Code != 0 {
			t.Errorf("%v", out)
		}
	})
	h.must(t, "install", name, dir, "-n", "dev", "-f", values(t, c))
	h.must(t, "upgrade", name, dir, "-n", "dev", "-f", values(t, c))
	return name
}

// Threats S9, S11, S12: Helm works on releases that come masked, and writes none back.
func TestHelm(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, driver := range []string{"secret", "configmap"} {
		t.Run(driver, func(t *testing.T) {
			set := canary.New()
			admin := helmPastTheGate(t, s).driver(driver)
			name := admin.install(t, set)
			there := admin.must(t, "get", "all", name, "-n", "dev")
			if n := len(set.In(there)); n < 8 {
				t.Errorf("helm get all shows %d secrets past the gate", n)
			}
			developer := s.Agent(t, "developers")
			h := helmOf(t, developer).driver(driver)
			for args, wants := range map[string][]string{
				"list":                                 {name, "deployed", "canary-1.0.0"},
				"status " + name:                       {"STATUS: deployed", "REVISION: 2", "The password is [masked"},
				"history " + name:                      {"superseded", "deployed", "Upgrade complete"},
				"get values " + name:                   {"password: '[masked:", "stored: '[masked:", "unused: '[masked:"},
				"get values --all " + name:             {"plain: '[masked:", "password: '[masked:"},
				"get manifest " + name:                 {"kind: Secret", "kind: ConfigMap", "plain: shown", "password:", "W21hc2tlZD"},
				"get values " + name + " --revision 1": {"password: '[masked:"},
				"get notes " + name:                    {"The password is [masked"},
			} {
				out := h.run(t, append(strings.Fields(args), "-n", "dev")...)
				for _, want := range wants {
					if !strings.Contains(out.Stdout, want) {
						t.Errorf("helm %s does not say %q: %v", args, want, out)
					}
				}
				if found := set.In(out.Stdout + out.Stderr); out.Code != 0 || len(found) > 0 {
					t.Errorf("helm %s shows %v: %v", args, found, out)
				}
			}
			before := s.Admin(t, "get", "secrets,configmaps", "-n", "dev", "-l", "owner=helm,name="+name, "-o", "yaml")
			for _, args := range []string{"rollback " + name + " 1", "upgrade --reuse-values " + name + " " + chart(t, set)} {
				out := h.run(t, append(strings.Fields(args), "-n", "dev")...)
				if out.Code == 0 || !strings.Contains(out.Stderr, "Sallyport's mask") || !strings.Contains(out.Stderr, "--reset-values") {
					t.Errorf("helm %s: %v", args, out)
				}
			}
			if after := s.Admin(t, "get", "secrets,configmaps", "-n", "dev", "-l", "owner=helm,name="+name, "-o", "yaml"); after != before {
				t.Error("helm changed a release")
			}
			// With all values anew it goes on, and cannot mark what was there before as superseded.
			consenting(t, s, developer)
			h.must(t, "upgrade", name, chart(t, set), "-n", "dev", "--reset-values", "-f", values(t, set))
			if out := admin.must(t, "history", name, "-n", "dev"); strings.Count(out, "deployed") != 2 || strings.Count(out, "superseded") != 1 {
				t.Errorf("after an upgrade with all values: %s", out)
			}
			if out := h.must(t, "list", "-n", "dev", "--filter", name); !strings.Contains(out, "deployed") || strings.Count(out, name) != 1 {
				t.Errorf("helm list: %s", out)
			}
		})
	}
}
