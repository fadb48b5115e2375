// Package demo is the guided tour: it does the main job step by step against a running stack, the way an agent, an attacker and
// an auditor would, and asserts every promise it shows.
package demo

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"sallyport/local/stack"
)

// Tour walks through the stack described by d and returns an error when a promise was not kept.
func Tour(ctx context.Context, out io.Writer, s *stack.Stack, d stack.Description) error {
	dir, err := os.MkdirTemp(filepath.Join(s.Root, ".local"), "demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &tour{ctx: ctx, out: out, stack: s, d: d, dir: dir, color: os.Getenv("NO_COLOR") == "" && isTerminal(out)}
	for _, step := range []struct {
		title string
		do    func() error
	}{
		{"An agent holds nothing but a token of its own", t.token},
		{"It points plain kubectl at the gate, and the cluster knows it by name", t.whoami},
		{"It reads", t.table},
		{"It watches", t.watch},
		{"It follows logs", t.logs},
		{"What it is for is allowed", t.allow},
		{"What is privileged asks a person, and kubectl simply waits", t.ask},
		{"What is dangerous is denied, to everybody", t.deny},
		{"A developer goes into a container in dev, and gets its exit code", t.exec},
		{"It copies files both ways", t.copy},
		{"It reads Secrets, and sees none", t.mask},
		{"The cluster's own RBAC refuses the same: the second wall", t.wall},
		{"The policy is a file; a change holds for what is under way", t.living},
		{"A forged token is nobody's", t.forged},
		{"The cluster's own audit log names the agent", t.audit},
		{"Everything is in the record", t.record},
		{"Nothing the agents saw holds a credential", t.clean},
	} {
		t.n++
		t.title(step.title)
		if err := step.do(); err != nil {
			return fmt.Errorf("step %d, %s: %w", t.n, strings.ToLower(step.title[:1])+step.title[1:], err)
		}
	}
	fmt.Fprintf(out, "\n%s\n", t.paint("32;1", fmt.Sprintf("%d promises kept.", t.kept)))
	return nil
}

type tour struct {
	ctx   context.Context
	out   io.Writer
	stack *stack.Stack
	d     stack.Description
	dir   string
	color bool
	n     int
	kept  int

	mu        sync.Mutex
	saw       bytes.Buffer // everything the agents were shown
	jwt       string
	developer string // another's token
	pod       string
	name      string // the agent's at the cluster
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func (t *tour) paint(code, s string) string {
	if !t.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (t *tour) title(s string) {
	fmt.Fprintf(t.out, "\n%s\n", t.paint("1", fmt.Sprintf("%d. %s", t.n, s)))
}

func (t *tour) promise(format string, a ...any) {
	t.kept++
	fmt.Fprintf(t.out, "   %s %s\n", t.paint("32", "✓"), fmt.Sprintf(format, a...))
}

// show prints what a command printed, shortened.
func (t *tour) show(s string, lines int) {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	for i, l := range all {
		if i == lines {
			fmt.Fprintf(t.out, "     … %d more lines\n", len(all)-lines)
			break
		}
		if len(l) > 260 {
			l = l[:260] + "…"
		}
		fmt.Fprintf(t.out, "     %s\n", l)
	}
}

func (t *tour) command(words ...string) {
	for i, w := range words {
		if w != "" && w == t.developer {
			words[i] = "$DEVELOPER"
			continue
		}
		if strings.ContainsAny(w, " ;|&$'\"") && !strings.HasPrefix(w, "$") {
			words[i] = "'" + w + "'"
		}
	}
	fmt.Fprintf(t.out, "   %s %s\n", t.paint("36", "$"), strings.Join(words, " "))
}

// kubectl runs kubectl as the agent, through the gate.
func (t *tour) kubectl(args ...string) (string, int, error) {
	t.command(append([]string{"kubectl"}, args...)...)
	return t.quietly("", args...)
}

// develop runs kubectl as the developer, through the gate.
func (t *tour) develop(args ...string) (string, int, error) {
	t.command(append([]string{"kubectl", "--token", "$DEVELOPER"}, args...)...)
	return t.quietly("", append([]string{"--token", t.developer}, args...)...)
}

func (t *tour) quietly(stdin string, args ...string) (string, int, error) {
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), args...)
	cmd.Env = t.env()
	cmd.Dir = t.dir
	if stdin != "" {
		cmd.Stdin = strings.NewReader(stdin)
	}
	return t.run(cmd)
}

// admin runs kubectl as the cluster's administrator, past the gate.
func (t *tour) admin(args ...string) (string, int, error) {
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), append([]string{"--kubeconfig", t.d.Cluster.AdminKubeconfig}, args...)...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

// refused makes sure that a command was refused with a sentence that says all of that, and shows it.
func (t *tour) refused(out string, code int, err error, says ...string) error {
	if err != nil || code == 0 {
		return fmt.Errorf("it was not refused (exit %d, %w): %s", code, err, out)
	}
	for _, w := range says {
		if !strings.Contains(out, w) {
			return fmt.Errorf("no %q in: %s", w, out)
		}
	}
	t.show(out, 2)
	return nil
}

// done makes sure that a command did what it was to do, and shows what it printed.
func (t *tour) done(out string, code int, err error, says string) error {
	if err != nil || code != 0 || !strings.Contains(out, says) {
		return fmt.Errorf("exit %d, %w, no %q in: %s", code, err, says, out)
	}
	t.show(out, 3)
	return nil
}

func (t *tour) env() []string {
	return append(os.Environ(), "KUBECONFIG="+t.d.Agent.Kubeconfig, "KUBECACHEDIR="+filepath.Join(t.dir, "cache"))
}

func (t *tour) run(cmd *exec.Cmd) (string, int, error) {
	out, err := cmd.CombinedOutput()
	t.mu.Lock()
	t.saw.Write(out)
	t.mu.Unlock()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out), exit.ExitCode(), nil
	}
	return string(out), 0, err
}

func (t *tour) local(args ...string) (string, error) {
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "local"), args...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

func (t *tour) token() error {
	t.command("bin/local", "token", "--subject", "agent", "--groups", "agents")
	jwt, err := t.local("token", "--subject", "agent", "--groups", "agents")
	if err != nil {
		return err
	}
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return fmt.Errorf("%q is no JWT", jwt)
	}
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return err
	}
	t.jwt = jwt
	if t.developer, err = t.local("token", "--subject", "developer", "--groups", "developers"); err != nil {
		return err
	}
	t.show(jwt, 1)
	t.show("claims: "+string(claims), 1)
	fmt.Fprintf(t.out, "   %s DEVELOPER=$(bin/local token --subject developer --groups developers)\n", t.paint("36", "$"))
	kubeconfig, err := os.ReadFile(t.d.Agent.Kubeconfig)
	if err != nil {
		return err
	}
	t.saw.Write(kubeconfig)
	for _, word := range []string{"client-key", "client-certificate-data", "AKIA", "ASIA", "aws"} {
		if bytes.Contains(kubeconfig, []byte(word)) {
			return fmt.Errorf("the agent's kubeconfig holds %q", word)
		}
	}
	t.promise("its kubeconfig has the gate's address and a command that prints this token; no AWS key, no cluster certificate")
	return nil
}

var assumed = regexp.MustCompile(`assumed-role/operate/(agent-[a-z0-9]+)`)

func (t *tour) whoami() error {
	out, code, err := t.kubectl("auth", "whoami")
	if err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	t.show(out, 8)
	m := assumed.FindStringSubmatch(out)
	if m == nil || !strings.Contains(out, "sallyport:operate") {
		return fmt.Errorf("no assumed-role/operate/agent-<hash> of group sallyport:operate in:\n%s", out)
	}
	t.name = m[0]
	other, err := t.local("token", "--subject", "other", "--groups", "agents")
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), "auth", "whoami", "--token", other)
	cmd.Env = t.env()
	out, code, err = t.run(cmd)
	if err != nil || code != 0 || strings.Contains(out, m[1]) || !strings.Contains(out, "assumed-role/operate/other-") {
		return fmt.Errorf("another agent is not another name (exit %d, %w): %s", code, err, out)
	}
	t.promise("the broker assumed tier operate's role as %s; another agent has another name", m[1])
	return nil
}

func (t *tour) table() error {
	out, code, err := t.kubectl("get", "pods", "-n", "dev")
	if err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	t.show(out, 5)
	running := regexp.MustCompile(`(?m)^(web-\S+)\s+1/1\s+Running`).FindAllStringSubmatch(out, -1)
	if len(running) != 2 {
		return fmt.Errorf("want two running pods in:\n%s", out)
	}
	t.pod = running[0][1]
	t.promise("two pods, in the table the API server made")
	out, code, err = t.kubectl("get", "secrets", "-n", "dev")
	if err := t.refused(out, code, err, "(Forbidden)", "no rule allows"); err != nil {
		return err
	}
	t.promise("Secrets are not among what this agent's tier may read")
	return nil
}

func (t *tour) watch() error {
	t.command("kubectl", "get", "pods", "-n", "dev", "-w", "--output-watch-events")
	ctx, cancel := context.WithTimeout(t.ctx, 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), "get", "pods", "-n", "dev", "-w", "--output-watch-events")
	cmd.Env = t.env()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	var got strings.Builder
	buf := make([]byte, 4096)
	changed := false
	for ctx.Err() == nil {
		n, err := stdout.Read(buf)
		got.Write(buf[:n])
		t.saw.Write(buf[:n])
		if !changed && strings.Count(got.String(), "ADDED") >= 2 {
			changed = true
			admin := exec.CommandContext(ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), "--kubeconfig", t.d.Cluster.AdminKubeconfig, "label", "pod", "-n", "dev", t.pod, "seen="+fmt.Sprint(time.Now().Unix()), "--overwrite")
			if out, err := admin.CombinedOutput(); err != nil {
				return fmt.Errorf("labelling the pod: %w: %s", err, out)
			}
		}
		if strings.Contains(got.String(), "MODIFIED") {
			t.show(got.String(), 5)
			t.promise("somebody else's change arrived while the watch was open")
			return nil
		}
		if err != nil {
			return fmt.Errorf("the watch ended: %w: %s", err, got.String())
		}
	}
	return fmt.Errorf("the change did not arrive in 20 s: %s", got.String())
}

func (t *tour) exec() error {
	out, code, err := t.develop("exec", "-n", "dev", t.pod, "--", "sh", "-c", "echo hello from $HOSTNAME; exit 7")
	if err != nil {
		return err
	}
	t.show(out, 3)
	if code != 7 || !strings.Contains(out, "hello from "+t.pod) {
		return fmt.Errorf("exit code %d, want 7: %s", code, out)
	}
	t.promise("rule develop-exec allows it, in this namespace; over WebSocket, exit code 7")
	return nil
}

func (t *tour) logs() error {
	out, code, err := t.kubectl("logs", "-n", "dev", t.pod, "--tail=3")
	if err != nil || code != 0 || strings.TrimSpace(out) == "" {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	t.show(out, 3)
	t.promise("logs, as the pod wrote them")
	return nil
}

func (t *tour) copy() error {
	b := make([]byte, 3<<20)
	if _, err := rand.Read(b); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(t.dir, "there"), b, 0o600); err != nil {
		return err
	}
	if out, code, err := t.develop("cp", "there", "dev/"+t.pod+":there"); err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	if out, code, err := t.develop("cp", "dev/"+t.pod+":there", "back"); err != nil || code != 0 {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	back, err := os.ReadFile(filepath.Join(t.dir, "back"))
	if err != nil || !bytes.Equal(b, back) {
		return fmt.Errorf("%d bytes came back of %d, %w", len(back), len(b), err)
	}
	t.promise("3 MiB went in and came back identical")
	return nil
}

func (t *tour) allow() error {
	for _, replicas := range []string{"3", "2"} {
		out, code, err := t.kubectl("scale", "deployment", "web", "--replicas="+replicas, "-n", "dev")
		if err := t.done(out, code, err, "scaled"); err != nil {
			return err
		}
		if out, code, err = t.admin("get", "deployment", "web", "-n", "dev", "-o", "jsonpath={.spec.replicas}"); err != nil || code != 0 || out != replicas {
			return fmt.Errorf("the cluster has %s replicas, want %s (exit %d, %w)", out, replicas, code, err)
		}
	}
	out, code, err := t.kubectl("rollout", "restart", "deployment/web", "-n", "prod")
	if err := t.done(out, code, err, "restarted"); err != nil {
		return err
	}
	t.promise("scaling and restarting, by rules scale and restart")
	out, code, err = t.kubectl("set", "image", "deployment/web", "web=localhost/other:1", "-n", "prod")
	if err := t.refused(out, code, err, "no rule allows agent to patch deployments"); err != nil {
		return err
	}
	t.promise("a restart is a patch too, and is told from any other by what it touches")
	return nil
}

func (t *tour) deny() error {
	out, code, err := t.kubectl("create", "role", "peek", "--verb=get", "--resource=secrets", "-n", "dev")
	if err := t.refused(out, code, err, "(Forbidden)", `rule "no-rbac" denies`, "that is not an agent's work"); err != nil {
		return err
	}
	out, code, err = t.kubectl("get", "--raw", "/api/v1/nodes/dev-node/proxy/pods")
	if err := t.refused(out, code, err, `rule "no-proxy" denies`, "use port-forward"); err != nil {
		return err
	}
	const pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: root, namespace: dev}\nspec: {hostPID: true, containers: [{name: c, image: localhost/web:1}]}\n"
	t.command("kubectl", "--token", "$DEVELOPER", "apply", "-f", "-")
	t.show(strings.TrimSuffix(pod, "\n"), 4)
	out, code, err = t.quietly(pod, "--token", t.developer, "apply", "-f", "-")
	if err := t.refused(out, code, err, `rule "no-privileged-pods" denies`, "root on its node"); err != nil {
		return err
	}
	t.promise("by verb and resource, by path, and by what is in the body; each refusal names its rule")
	return nil
}

// wall asks the cluster itself, past the gate, as somebody in the tier's group.
func (t *tour) wall() error {
	for _, args := range [][]string{
		{"delete", "pod", t.pod, "-n", "dev"},
		{"exec", "-n", "dev", t.pod, "--", "true"},
		{"create", "role", "peek", "--verb=get", "--resource=pods", "-n", "dev"},
		{"get", "--raw", "/api/v1/nodes/dev-node/proxy/pods"},
		{"get", "secrets", "-n", "dev"},
	} {
		as := append([]string{"--as=somebody", "--as-group=sallyport:operate"}, args...)
		t.command(append([]string{"kubectl", "--kubeconfig", "$ADMIN"}, as...)...)
		out, code, err := t.admin(as...)
		if err := t.refused(out, code, err, `User "somebody" cannot`); err != nil {
			return err
		}
	}
	t.promise("were the gate to misread a request, this is where it would end")
	return nil
}

// living adds a rule to the policy file and takes it away again, while the agent's session goes on.
func (t *tour) living() error {
	before, err := os.ReadFile(t.d.Policy.File)
	if err != nil {
		return err
	}
	at := regexp.MustCompile(`(?m)^rules:.*\n(?:\s*#.*\n)*(\s*)- `).FindSubmatchIndex(before)
	if at == nil {
		return fmt.Errorf("%s has no rules", t.d.Policy.File)
	}
	const rule = `{name: freeze, effect: deny, verbs: [update, patch], apiGroups: [apps], resources: ["*/scale"], namespaces: [dev], reason: this is a demo}`
	changed := string(before[:at[2]]) + string(before[at[2]:at[3]]) + "- " + rule + "\n" + string(before[at[2]:])
	defer func() { _ = os.WriteFile(t.d.Policy.File, before, 0o600) }() // whatever happens
	name := strings.TrimPrefix(t.d.Policy.File, t.stack.Root+"/")
	for _, step := range []struct{ file, does, until string }{
		{changed, t.paint("32", "+ "+rule), `rule "freeze" denies`},
		{string(before), t.paint("31", "- "+rule), "deployment.apps/web scaled"},
	} {
		t.command("$EDITOR", name)
		fmt.Fprintf(t.out, "     %s\n", step.does)
		if err := os.WriteFile(t.d.Policy.File, []byte(step.file), 0o600); err != nil {
			return err
		}
		began := time.Now()
		scale := []string{"scale", "deployment", "web", "--replicas=2", "-n", "dev"}
		for {
			out, _, err := t.quietly("", scale...)
			if err != nil {
				return err
			}
			if strings.Contains(out, step.until) {
				t.command(append([]string{"kubectl"}, scale...)...)
				t.show(out, 2)
				break
			}
			if time.Since(began) > 30*time.Second {
				return fmt.Errorf("the changed policy does not hold after 30 s: %s", out)
			}
			time.Sleep(300 * time.Millisecond)
		}
		t.promise("in force after %.0f s, in the same session, without a restart", time.Since(began).Seconds())
	}
	return nil
}

func (t *tour) forged() error {
	parts := strings.Split(t.jwt, ".")
	claims, _ := base64.RawURLEncoding.DecodeString(parts[1])
	forged := parts[0] + "." + base64.RawURLEncoding.EncodeToString(bytes.Replace(claims, []byte(`"agents"`), []byte(`"admins"`), 1)) + "." + parts[2]
	t.command("kubectl", "get", "pods", "--token", "$FORGED")
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), "get", "--raw", "/api/v1/namespaces/dev/pods", "--token", forged)
	cmd.Env = t.env()
	out, code, err := t.run(cmd)
	if err != nil || code == 0 || !strings.Contains(out, "nauthorized") && !strings.Contains(out, "signature") {
		return fmt.Errorf("exit %d, %w: %s", code, err, out)
	}
	t.show(out, 2)
	t.promise("401, and nothing reached the cluster")
	return nil
}

func (t *tour) audit() error {
	t.command("grep", t.name, strings.TrimPrefix(t.d.Cluster.AuditLog, t.stack.Root+"/"))
	log, err := os.ReadFile(t.d.Cluster.AuditLog)
	if err != nil {
		return err
	}
	n, scaled := 0, 0
	for line := range bytes.Lines(log) {
		var e struct {
			Verb string
			User struct {
				Username string
				Groups   []string
			}
			ObjectRef struct{ Resource, Subresource, Name string }
		}
		if json.Unmarshal(line, &e) != nil || !strings.Contains(e.User.Username, t.name) {
			continue
		}
		n++
		o := e.ObjectRef
		switch {
		case e.Verb == "delete" || o.Subresource == "exec" || o.Subresource == "proxy" || o.Resource == "roles" || o.Resource == "secrets":
			return fmt.Errorf("a request that was refused reached the cluster: %s %s/%s", e.Verb, o.Resource, o.Subresource)
		case o.Subresource == "scale" && e.Verb == "patch":
			if scaled++; scaled == 1 {
				t.show(fmt.Sprintf("%s %s/%s/%s by %s", e.Verb, o.Resource, o.Name, o.Subresource, e.User.Username), 1)
			}
		}
	}
	if n == 0 || scaled == 0 {
		return fmt.Errorf("%d entries of %s, %d of them scale", n, t.name, scaled)
	}
	t.promise("%d requests of %s, and the refused ones are not among them", n, strings.TrimPrefix(t.name, "assumed-role/operate/"))
	return nil
}

func (t *tour) record() error {
	sallyport := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "sallyport"), args...)
		out, err := cmd.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%w: %s", err, exit.Stderr)
		}
		return string(out), err
	}
	ids := map[string]string{"agent": "", "developer": ""}
	var out string
	for deadline := time.Now().Add(10 * time.Second); ids["agent"] == "" || ids["developer"] == ""; time.Sleep(200 * time.Millisecond) { // segments are stored once a second
		var err error
		if out, err = sallyport("sessions", "list", "--json"); err != nil {
			return err
		}
		for agent := range ids {
			ids[agent] = sessionOf(out, agent)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no session of the agent, or none of the developer, in: %s", out)
		}
	}
	t.command("sallyport", "sessions", "list")
	out, err := sallyport("sessions", "list")
	if err != nil {
		return err
	}
	t.show(out, 4)
	var shown string
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) {
		if shown, err = sallyport("sessions", "show", ids["agent"]); err != nil {
			return err
		}
		missing := ""
		for _, w := range []string{"allow", "ask", "deny", "exec", "scale", "proxy"} {
			if !strings.Contains(shown, w) {
				missing = w
			}
		}
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no %q in: %s", missing, shown)
		}
	}
	t.command("sallyport", "sessions", "show", ids["agent"])
	t.show(shown, 40)
	if shown, err = sallyport("sessions", "show", ids["developer"]); err != nil {
		return err
	}
	if !strings.Contains(shown, "exec") || strings.Contains(shown, "exit 7") {
		return errors.New("the exec is not in the record, or its argv is, before it can be masked")
	}
	t.promise("the session, every request with its decision and result, the refused ones too")
	return nil
}

// sessionOf finds the latest session of an agent in what sessions list --json printed, whatever its exact shape.
func sessionOf(list, agent string) string {
	var listed any
	if json.Unmarshal([]byte(list), &listed) != nil {
		return ""
	}
	var found string
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case []any:
			for _, x := range v {
				walk(x)
			}
		case map[string]any:
			if v["agent"] == agent {
				if id, ok := v["id"].(string); ok {
					found = id
				}
			}
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(listed)
	return found
}

var secrets = regexp.MustCompile(`k8s-aws-v1\.|\bA[SK]IA[A-Z0-9]{8,}|X-Amz-|aws_secret|BEGIN [A-Z ]*PRIVATE KEY`)

func (t *tour) clean() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := secrets.Find(t.saw.Bytes()); m != nil {
		return fmt.Errorf("%q was shown to the agent", m)
	}
	if err := t.masked(); err != nil {
		return err
	}
	t.promise("%d KiB of what they were shown, searched for AWS keys, EKS tokens, private keys and the password: none but what was revealed", t.saw.Len()>>10)
	return nil
}
