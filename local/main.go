// Command local runs Sallyport on one machine: see `make up`, `make demo` and docs/limits.md.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unicode"

	"sallyport/local/demo"
	"sallyport/local/inbox"
	"sallyport/local/issuer"
	"sallyport/local/stack"
)

const usage = `usage: local up | down | demo | policy [FILE] | token ... | inbox [--json] | proxy [--json] | rotate [--drop]
  up      start everything in the background and wait until it serves; POLICY=file starts with that policy
  down    end every process that up started
  demo    the guided tour
  policy  make FILE the running stack's policy, without FILE the default one; it takes effect without a restart
  token   print a token of the local issuer: --subject S [--groups a,b] [--claim k=v]... [--audience A] [--expires 10m],
          or a reviewer's: --reviewer ana@example.com
  inbox   print what Slack and mail would have got
  proxy   start one more task of the proxy, which ends with the stack
  rotate  make the issuer sign with new keys; with --drop, forget the old ones at once
`

func main() {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if len(os.Args) < 2 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	root, err := checkout()
	if err == nil {
		err = run(ctx, root, os.Args[1], os.Args[2:])
	}
	var code exitCode
	switch {
	case errors.As(err, &code):
		os.Exit(int(code))
	case err != nil:
		fmt.Fprintf(os.Stderr, "local: %v\n", err)
		os.Exit(1)
	}
}

// exitCode ends the process; what there was to say was said.
type exitCode int

func (c exitCode) Error() string { return fmt.Sprint("exit code ", int(c)) }

// checkout is the folder above the one this program was built into.
func checkout() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return "", err
	}
	return filepath.Dir(filepath.Dir(self)), nil
}

func run(ctx context.Context, root, command string, args []string) error {
	s := &stack.Stack{Root: root, Out: os.Stdout}
	dir := filepath.Join(root, ".local", "issuer")
	switch command {
	case "up":
		o, err := options()
		if err != nil {
			return err
		}
		d, err := s.Up(ctx, o)
		if err != nil {
			return err
		}
		s.Print(d)
		return nil
	case "down":
		return s.Down()
	case "demo":
		return tour(ctx, s)
	case "policy":
		if len(args) > 1 {
			fmt.Fprint(os.Stderr, usage)
			return exitCode(2)
		}
		return s.SetPolicy(strings.Join(args, ""))
	case "token":
		if code := issuer.Command(dir, args, os.Stdout, os.Stderr); code != 0 {
			return exitCode(code)
		}
		return nil
	case "inbox":
		asJSON, err := jsonFlag(command, args)
		if err != nil {
			return err
		}
		return printInbox(ctx, s, asJSON)
	case "proxy":
		asJSON, err := jsonFlag(command, args)
		if err != nil {
			return err
		}
		t, err := s.AddProxy(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(os.Stdout).Encode(t)
		}
		fmt.Printf("  %-10s %s\n  %-10s %s\n", t.Name, t.URL, "metrics", t.Metrics)
		return nil
	case "rotate":
		flags := flag.NewFlagSet("rotate", flag.ExitOnError)
		drop := flags.Bool("drop", false, "forget the old keys at once")
		_ = flags.Parse(args)
		i, err := issuer.Open(dir)
		if err != nil {
			return err
		}
		return i.Rotate(*drop)
	case "serve-issuer":
		return serveIssuer(ctx, args)
	case "serve-aws":
		return serveAWS(ctx, args)
	}
	fmt.Fprint(os.Stderr, usage)
	return exitCode(2)
}

// jsonFlag reads the arguments of a command that has but one, --json.
func jsonFlag(command string, args []string) (bool, error) {
	flags := flag.NewFlagSet(command, flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print JSON")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return false, exitCode(0)
	case err != nil:
		return false, exitCode(2)
	case flags.NArg() > 0:
		fmt.Fprint(os.Stderr, usage)
		return false, exitCode(2)
	}
	return *asJSON, nil
}

// printInbox prints what was sent, oldest first.
func printInbox(ctx context.Context, s *stack.Stack, asJSON bool) error {
	d, err := s.Describe()
	if err != nil {
		return errors.Join(errors.New("the stack is not up; make up starts it"), err)
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, d.Reviews.Inbox+"/messages.json", nil)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("asking the inbox: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("asking the inbox: %s", res.Status)
	}
	if asJSON {
		_, err := io.Copy(os.Stdout, res.Body)
		return err
	}
	var all []inbox.Message
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		return fmt.Errorf("asking the inbox: %w", err)
	}
	for _, m := range all {
		fmt.Printf("%s  %s to %s: %s\n", m.At.Local().Format(time.TimeOnly), m.Channel, m.To, printable(m.Subject))
		for line := range strings.Lines(strings.TrimSpace(m.Text)) {
			fmt.Printf("    %s\n", printable(strings.TrimRight(line, "\n")))
		}
		for _, l := range m.Links {
			fmt.Printf("    -> %s\n", printable(l))
		}
	}
	if len(all) == 0 {
		fmt.Println("Nothing was sent yet.")
	}
	return nil
}

// printable keeps what was sent from steering the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && r != '\t' {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}

func options() (stack.Options, error) {
	var o stack.Options
	if name := os.Getenv("POLICY"); name != "" {
		b, err := os.ReadFile(name)
		if err != nil {
			return o, fmt.Errorf("POLICY: %w", err)
		}
		o.Policy, o.PolicyName = b, name
	}
	if v := os.Getenv("CREDENTIAL_LIFETIME"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			return o, fmt.Errorf("CREDENTIAL_LIFETIME: %w", err)
		}
		o.CredentialLifetime = d
	}
	return o, nil
}

// tour brings the stack up unless it is, walks through it, and takes it down if it brought it up.
func tour(ctx context.Context, s *stack.Stack) error {
	ours := !s.Running()
	o, err := options()
	if err != nil {
		return err
	}
	d, err := s.Up(ctx, o)
	if err != nil {
		return err
	}
	began := time.Now()
	err = demo.Tour(ctx, os.Stdout, s, d)
	if err == nil {
		fmt.Printf("The tour took %.0f s.\n", time.Since(began).Seconds())
	}
	if ours {
		err = errors.Join(err, s.Down())
	}
	return err
}

func serveIssuer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve-issuer", flag.ExitOnError)
	dir := flags.String("dir", "", "where its state is kept")
	ready := flags.String("ready", "", "file that is written when it serves")
	_ = flags.Parse(args)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	i, err := issuer.New(issuer.Config{Dir: *dir, URL: "http://" + l.Addr().String(), Audience: "sallyport"})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: i.Handler(), ReadHeaderTimeout: 5 * time.Second}
	go func() { <-ctx.Done(); server.Close() }()
	if err := announce(*ready, map[string]string{"url": i.URL, "audience": "sallyport"}); err != nil {
		return err
	}
	return closed(server.Serve(l))
}

func closed(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// announce writes the file a starter waits for, whole.
func announce(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := os.WriteFile(file+".new", b, fs.FileMode(0o600)); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}
