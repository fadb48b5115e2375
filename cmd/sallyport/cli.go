package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"sallyport/shared/access"
)

// Exit codes. 0 is only for what was asked and done.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// environment is what a command touches of the world outside, except AWS.
type environment struct {
	stdout, stderr io.Writer
	terminal       bool // stderr is a person's
	colour         bool // stdout is a person's who wants colours
	stdin          io.Reader
	environ        func() []string
	getenv         func(string) string
	executable     func() (string, error)
	now            func() time.Time
}

// A command is a group of commands, or has a setup.
type command struct {
	name    string
	args    string // of the usage line
	summary string
	help    string // what the summary leaves out
	group   []*command
	// setup defines the command's flags and returns what runs it, once they are parsed, with the other arguments.
	setup func(env environment, fs *flag.FlagSet) func(ctx context.Context, args []string) error
}

// commands is the whole tree.
func commands() *command {
	return &command{
		name:    "sallyport",
		summary: "what agents may do through the gate, what they ask, and what they did",
		group:   []*command{policyCommand(), sessionsCommand(), approvalsCommand(), askCommand()},
	}
}

// A hinted error knows what to do about it.
type hinted struct {
	err   error
	hint  string
	usage bool // the command line was wrong
}

func (h *hinted) Error() string { return h.err.Error() }
func (h *hinted) Unwrap() error { return h.err }

func hint(err error, format string, a ...any) error {
	return &hinted{err: err, hint: fmt.Sprintf(format, a...)}
}

func usageError(hint, format string, a ...any) error {
	return &hinted{err: fmt.Errorf(format, a...), hint: hint, usage: true}
}

// run runs the command that args name and returns the exit code.
func run(ctx context.Context, args []string, env environment) int {
	out := bufio.NewWriter(env.stdout)
	env.stdout = out
	err := dispatch(ctx, commands(), nil, args, env)
	if e := out.Flush(); e != nil && err == nil {
		err = fmt.Errorf("writing the output: %w", e)
	}
	return exit(err, env.stderr)
}

// exit says what went wrong and is the one place where errors become exit codes.
func exit(err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "sallyport: error: %s\n", safeLines(err.Error()))
	var h *hinted
	if errors.As(err, &h) {
		fmt.Fprintf(stderr, "sallyport: hint: %s\n", safe(h.hint))
		if h.usage {
			return exitUsage
		}
		return exitFailed
	}
	switch access.KindOf(err) {
	case access.Denied, access.Unauthenticated:
		fmt.Fprintln(stderr, "sallyport: hint: your AWS identity must be allowed to list and read the recordings bucket")
	case access.Unavailable:
		fmt.Fprintln(stderr, "sallyport: hint: check the region and the endpoint of the profile, and that AWS can be reached")
	}
	return exitFailed
}

// dispatch walks from c down to the command that args name. path is what was walked.
func dispatch(ctx context.Context, c *command, path, args []string, env environment) error {
	path = append(path, c.name)
	full := strings.Join(path, " ")
	if c.setup != nil {
		return runLeaf(ctx, c, full, args, env)
	}
	if len(args) == 0 {
		return usageError(fmt.Sprintf("%s --help lists the commands", full), "%s needs a command", full)
	}
	if wantsHelp(args[0]) || args[0] == "help" {
		groupHelp(env.stdout, c, full)
		return nil
	}
	for _, sub := range c.group {
		if sub.name == args[0] {
			return dispatch(ctx, sub, path, args[1:], env)
		}
	}
	what := "command"
	if strings.HasPrefix(args[0], "-") {
		what = "flag before a command"
	}
	return usageError(fmt.Sprintf("%s --help lists the commands", full), "%s knows no %s %q", full, what, args[0])
}

func runLeaf(ctx context.Context, c *command, full string, args []string, env environment) error {
	fs := flag.NewFlagSet(full, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	runs := c.setup(env, fs)
	// Flags may stand before, between and after the other arguments; after -- there are none.
	var rest []string
	for len(args) > 0 {
		if err := fs.Parse(args); errors.Is(err, flag.ErrHelp) {
			leafHelp(env.stdout, c, full, fs)
			return nil
		} else if err != nil {
			return usageError(fmt.Sprintf("%s --help lists the flags", full), "%s: %w", full, err)
		}
		if n := len(args) - fs.NArg(); n > 0 && args[n-1] == "--" {
			rest = append(rest, fs.Args()...)
			break
		}
		if fs.NArg() == 0 {
			break
		}
		rest, args = append(rest, fs.Arg(0)), fs.Args()[1:]
	}
	return runs(ctx, rest)
}

func wantsHelp(arg string) bool { return arg == "-h" || arg == "-help" || arg == "--help" }

func groupHelp(w io.Writer, c *command, full string) {
	fmt.Fprintf(w, "%s: %s.\n\nUsage: %s COMMAND\n\nCommands:\n", full, c.summary, full)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, sub := range c.group {
		fmt.Fprintf(t, "  %s\t%s\n", sub.name, sub.summary)
	}
	t.Flush()
	fmt.Fprintf(w, "\n%s COMMAND --help says more about one.\n", full)
}

func leafHelp(w io.Writer, c *command, full string, fs *flag.FlagSet) {
	fmt.Fprintf(w, "%s: %s.\n\nUsage: %s\n", full, c.summary, strings.Join(strings.Fields(full+" "+c.args+" [flags]"), " "))
	if c.help != "" {
		fmt.Fprintf(w, "\n%s\n", c.help)
	}
	fmt.Fprintln(w, "\nFlags:")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fs.VisitAll(func(f *flag.Flag) {
		name, usage := flag.UnquoteUsage(f)
		fmt.Fprintf(t, "  --%s\t%s\n", strings.TrimSpace(f.Name+" "+name), usage)
	})
	t.Flush()
}
