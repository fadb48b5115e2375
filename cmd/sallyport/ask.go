package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	maxReason = 1000 // characters, as the gate takes it
	pollFirst = 250 * time.Millisecond
	pollLast  = 2 * time.Second
	pollTries = 10 // answers in a row that say nothing
)

func askCommand() *command {
	return &command{
		name:    "ask",
		args:    "-- COMMAND...",
		summary: "ask people before you act, with a reason, and find the answer waiting",
		help: "It runs COMMAND, such as kubectl delete configmap old, with a kubeconfig that leads to the gate through this program,\n" +
			"which marks every request as asked ahead: the gate has people asked and does nothing. COMMAND is told that it may not,\n" +
			"so it fails, and requests it would have sent after are not asked about. Run it again by itself: it passes once it is\n" +
			"approved, and waits for that. helm and other programs that honour KUBECONFIG work too.\n" +
			"A yes to one request is for exactly its bytes: of a command that sends others every time (rollout restart, edit)\n" +
			"a yes helps only when the reviewer gives a scope for a time.\n" +
			"The exit code is 0 when every request that needs a yes waits for one; with --wait, when each is approved.",
		setup: setupAsk,
	}
}

func setupAsk(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	reason := fs.String("reason", "", "`TEXT` for the people who are asked: why you want this")
	wait := fs.Bool("wait", false, "wait until people answered")
	asJSON := fs.Bool("json", false, `print JSON: {"requests": [...]}`)
	show := fs.Bool("show", false, "show what COMMAND prints, on stderr")
	timeout := fs.Duration("timeout", 2*time.Minute, "end COMMAND after this `TIME`: it may wait for what it could not do")
	return func(ctx context.Context, args []string) error {
		if err := checkReason(*reason); err != nil {
			return err
		}
		switch {
		case len(args) == 0:
			return usageError(`such as sallyport ask --reason "…" -- kubectl delete configmap old`, "sallyport ask needs a command after --")
		case *timeout <= 0:
			return usageError("write it as 2m", "--timeout %v is no length of time", *timeout)
		}
		e := &errand{env: env, args: args, timeout: *timeout, show: *show}
		if err := e.open(*reason); err != nil {
			return err
		}
		defer e.close()
		if err := e.run(ctx); err != nil {
			return err
		}
		if *wait {
			if err := e.wait(ctx); err != nil {
				return err
			}
		}
		return e.report(*wait, *asJSON)
	}
}

func checkReason(reason string) error {
	const how = "write for the people who decide: what you do, and why now"
	switch n := utf8.RuneCountInString(reason); {
	case strings.TrimSpace(reason) == "":
		return usageError(how, "sallyport ask needs --reason")
	case n > maxReason:
		return usageError(how, "--reason has %d characters; %d is the limit", n, maxReason)
	case !utf8.ValidString(reason) || strings.ContainsFunc(reason, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }):
		return usageError(how, "--reason has characters that are no text")
	}
	return nil
}

// An errand is one command that people are asked about.
type errand struct {
	env     environment
	args    []string // the command
	timeout time.Duration
	show    bool

	dir   string // temporary: the kubeconfig, and kubectl's cache
	relay *relay
	code  int    // the command's exit code; -1 when it was ended
	said  string // what it printed
}

// open finds out which server the command would speak with, and puts the relay in front of it.
func (e *errand) open(reason string) error {
	t, err := aim(e.args, e.env)
	if err != nil {
		return err
	}
	if e.relay, err = newRelay(t, reason); err != nil {
		return err
	}
	if e.dir, err = os.MkdirTemp("", "sallyport-ask-"); err == nil {
		err = clientcmd.WriteToFile(t.through(e.relay), e.kubeconfig())
	}
	if err != nil {
		e.close()
		return fmt.Errorf("writing a kubeconfig for the command: %w", err)
	}
	return nil
}

func (e *errand) kubeconfig() string { return filepath.Join(e.dir, "kubeconfig") }

func (e *errand) close() {
	e.relay.close()
	if e.dir != "" {
		_ = os.RemoveAll(e.dir)
	}
}

// A target is the server that a command would speak with, and as whom.
type target struct {
	context, cluster, user string
	raw                    *clientcmdapi.Config
}

// flagOf finds a flag of the command and its value. What follows -- is another program's.
func flagOf(args []string, names ...string) (string, bool) {
	for i, arg := range args {
		if arg == "--" {
			break
		}
		name, v, joined := strings.Cut(arg, "=")
		if !slices.Contains(names, name) {
			continue
		}
		if !joined && i+1 < len(args) {
			v = args[i+1]
		}
		return v, true
	}
	return "", false
}

// aim reads the kubeconfig that the command would read.
func aim(args []string, env environment) (*target, error) {
	program := strings.TrimSuffix(filepath.Base(args[0]), ".exe")
	past := []string{"--server", "--kube-apiserver"}
	if program == "kubectl" {
		past = append(past, "-s")
	}
	// Past the relay a request is not asked about: it is done.
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if name, _, _ := strings.Cut(arg, "="); i > 0 && (slices.Contains(past, name) || program == "kubectl" && strings.HasPrefix(arg, "-shttp")) {
			return nil, usageError("leave it out: name the gate in the kubeconfig", "the command has %s, which would lead it past this program", name)
		}
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.WarnIfAllMissing = false
	if file, ok := flagOf(args, "--kubeconfig"); ok {
		rules.ExplicitPath = file
	}
	const how = "sallyport ask takes the gate's address from the kubeconfig of the command: --kubeconfig, or KUBECONFIG"
	raw, err := rules.Load()
	if err != nil {
		return nil, hint(fmt.Errorf("reading the kubeconfig: %w", err), how)
	}
	t := &target{raw: raw, context: raw.CurrentContext}
	if name := env.getenv("HELM_KUBECONTEXT"); name != "" && program == "helm" {
		t.context = name
	}
	if name, ok := flagOf(args, "--context", "--kube-context"); ok {
		t.context = name
	}
	c := raw.Contexts[t.context]
	if c == nil {
		return nil, hint(fmt.Errorf("the kubeconfig has no context %q", t.context), how)
	}
	t.cluster, t.user = c.Cluster, c.AuthInfo
	if name, ok := flagOf(args, "--cluster"); ok {
		t.cluster = name
	}
	if name, ok := flagOf(args, "--user"); ok {
		t.user = name
	}
	if raw.Clusters[t.cluster] == nil {
		return nil, hint(fmt.Errorf("the kubeconfig has no cluster %q", t.cluster), how)
	}
	return t, nil
}

// through is the kubeconfig that leads through the relay, and nowhere else.
func (t *target) through(r *relay) clientcmdapi.Config {
	out := clientcmdapi.NewConfig()
	cluster := t.raw.Clusters[t.cluster]
	out.Clusters[t.cluster] = &clientcmdapi.Cluster{Server: r.url, CertificateAuthorityData: r.certificate, Extensions: cluster.Extensions}
	c := t.raw.Contexts[t.context].DeepCopy()
	c.Cluster, c.AuthInfo = t.cluster, t.user
	out.Contexts[t.context] = c
	if user := t.raw.AuthInfos[t.user]; user != nil {
		out.AuthInfos[t.user] = user
	}
	out.CurrentContext = t.context
	return *out
}

// run runs the command through the relay.
func (e *errand) run(ctx context.Context) error {
	limited, cancel := context.WithTimeout(ctx, e.timeout)
	defer cancel()
	args := slices.Clone(e.args[1:])
	for i, arg := range args {
		if arg == "--" {
			break
		}
		if arg == "--kubeconfig" && i+1 < len(args) {
			args[i+1] = e.kubeconfig()
		} else if strings.HasPrefix(arg, "--kubeconfig=") {
			args[i] = "--kubeconfig=" + e.kubeconfig()
		}
	}
	cmd := exec.CommandContext(limited, e.args[0], args...) //nolint:gosec // running it is what was asked
	for _, v := range e.env.environ() {
		name, _, _ := strings.Cut(v, "=")
		// Helm's variables would lead it past the relay.
		if !slices.Contains([]string{"KUBECONFIG", "KUBECACHEDIR", "HELM_KUBEAPISERVER", "HELM_KUBECAFILE", "HELM_KUBETLS_SERVER_NAME", "HELM_KUBEINSECURE_SKIP_TLS_VERIFY"}, name) {
			cmd.Env = append(cmd.Env, v)
		}
	}
	// The cache is by server, and this server is gone in a moment.
	cmd.Env = append(cmd.Env, "KUBECONFIG="+e.kubeconfig(), "KUBECACHEDIR="+filepath.Join(e.dir, "cache"))
	cmd.Stdin = e.env.stdin
	said := &tail{}
	cmd.Stdout, cmd.Stderr = said, said
	if e.show {
		cmd.Stdout, cmd.Stderr = e.env.stderr, e.env.stderr
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 3 * time.Second
	err := cmd.Run()
	e.code, e.said = 0, said.String()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return hint(errors.New("interrupted"), "what was asked so far stays asked: run it again to see")
	case limited.Err() != nil:
		e.code = -1
	case errors.As(err, &exit):
		e.code = exit.ExitCode()
	case err != nil:
		return hint(fmt.Errorf("running %s: %w", e.args[0], err), "name a program after --")
	}
	return nil
}

// wait asks again until everything is answered. A command is run again when its token ended meanwhile.
func (e *errand) wait(ctx context.Context) error {
	pause, again := pollFirst, false
	for {
		open := false
		for _, a := range e.relay.answers() {
			if a.Answer != answerWaiting {
				continue
			}
			open = true
			switch err := e.relay.again(ctx, a); {
			case ctx.Err() != nil:
			case errors.Is(err, errToken) && !again:
				again = true
				if err := e.run(ctx); err != nil {
					return err
				}
			case err != nil:
				return hint(err, "the approval stands: run it again to go on waiting")
			default:
				again = false
			}
		}
		if !open {
			return nil
		}
		select {
		case <-ctx.Done():
			return hint(errors.New("interrupted"), "the approvals stand: run it again to go on waiting")
		case <-time.After(pause):
		}
		pause = min(2*pause, pollLast)
	}
}

// report prints what the gate answered. It is an error when a request has no approval, or, when it was waited for, no yes.
func (e *errand) report(waited, asJSON bool) error {
	all := e.relay.answers()
	if asJSON {
		if err := printJSON(e.env.stdout, map[string]any{"requests": all}); err != nil {
			return err
		}
	}
	bad, waiting := 0, 0
	var first *reply
	for _, a := range all {
		if !asJSON {
			fmt.Fprintf(e.env.stdout, "%s  %s%s %s\n", a.Answer, safe(spaced(a.Approval)), safe(a.Method), safe(a.Target))
			if a.Message != "" {
				fmt.Fprintf(e.env.stdout, "  %s\n", safeLines(a.Message))
			}
		}
		switch a.Answer {
		case answerWaiting:
			waiting++
		case answerApproved, answerNotNeeded:
			continue
		default:
			bad++
			if first == nil {
				first = a
			}
			continue
		}
		if waited {
			bad++
		}
	}
	name := filepath.Base(e.args[0])
	switch {
	case bad > 0 && first != nil && len(all) == 1:
		return hint(fmt.Errorf("%s: nobody is asked", first.Answer), "%s", first.advice())
	case bad > 0:
		return hint(fmt.Errorf("%d of %d requests are not asked about, or not approved", bad, len(all)), "each line says what the gate answered")
	case len(all) == 0 && e.code != 0:
		fmt.Fprintf(e.env.stderr, "%s", safeBlock(e.said))
		return hint(fmt.Errorf("%s sent no request that people could be asked about, and ended with %s", name, ending(e.code)), "see that it works without sallyport ask; nothing was asked")
	case len(all) == 0:
		fmt.Fprintf(e.env.stderr, "sallyport: nothing of it needs an approval\n")
		return nil
	}
	if waiting > 0 {
		fmt.Fprintf(e.env.stderr, "sallyport: people are asked; run the command itself: it waits for their answer\n")
	}
	if e.code == -1 {
		fmt.Fprintf(e.env.stderr, "sallyport: %s was ended after %v; what it would have sent after is not asked about\n", safe(name), e.timeout)
	}
	return nil
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return s + "  "
}

func ending(code int) string {
	if code < 0 {
		return "no answer in time"
	}
	return fmt.Sprintf("exit code %d", code)
}

// safeBlock is text of another program, safe on a terminal.
func safeBlock(s string) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	if len(lines) == 1 && lines[0] == "" {
		return ""
	}
	for i := range lines {
		lines[i] = safe(lines[i])
	}
	return strings.Join(lines, "\n") + "\n"
}

// A tail keeps the end of what is written to it. It is written to by one goroutine at a time: os/exec has one pipe for a
// writer that is both stdout and stderr.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if n := len(t.b) - 16<<10; n > 0 {
		t.b = slices.Clone(t.b[n:])
	}
	return len(p), nil
}

func (t *tail) String() string { return string(t.b) }
