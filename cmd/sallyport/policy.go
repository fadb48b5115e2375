package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// policyInRepository is where the policy stands in a checkout.
const policyInRepository = "infra/policy.yaml"

// whichPolicy is what help says of the policy that is meant when none is named.
const whichPolicy = "Without a file it is the policy of the local stack, while that is up, and else " + policyInRepository + "."

func policyCommand() *command {
	return &command{
		name:    "policy",
		summary: "what a policy allows, asks and denies",
		group: []*command{
			{
				name:    "check",
				args:    "[FILE]",
				summary: "check a policy and show who may do what",
				help: whichPolicy + "\n" +
					"It shows who may do what, rules that only the gate holds and the cluster's RBAC cannot, what agents see unmasked, rules\n" +
					"in observe mode, and rules that do not do what they seem to. Exit code 1: the gate would refuse the file.",
				setup: setupCheck,
			},
			{
				name:    "test",
				args:    "VECTORS...",
				summary: "test a policy with vectors: request, principal, expected decision",
				help: "Each file names its policy, relative to itself. " + whichPolicy + "\n" +
					"Exit code 1: a vector failed. docs/policy.md has the format.",
				setup: setupTest,
			},
			{
				name:    "explain",
				args:    "'METHOD /path'",
				summary: "say why a request is allowed, asked or denied",
				help: whichPolicy + "\n" +
					"The request is a request line, as kubectl -v=8 shows it. Nothing is sent anywhere. A patch is judged on what it makes\n" +
					"of the object in --live; without one it is judged as one whose object cannot be read.",
				setup: setupExplain,
			},
		},
	}
}

// policyFile is the file that is meant when none is named: the one the local stack runs by, or the checkout's.
func policyFile(env environment) (string, error) {
	if exe, err := env.executable(); err == nil {
		text, err := os.ReadFile(filepath.Join(filepath.Dir(filepath.Dir(exe)), ".local", "stack.json"))
		var stack struct {
			Policy struct {
				File string `json:"file"`
			} `json:"policy"`
		}
		if err == nil && json.Unmarshal(text, &stack) == nil && stack.Policy.File != "" {
			return stack.Policy.File, nil
		}
	}
	if _, err := os.Stat(policyInRepository); err == nil {
		return policyInRepository, nil
	}
	return "", hint(errors.New("no policy is named"), "name its file; without one it is the running local stack's, or %s in this directory", policyInRepository)
}

// loadPolicy loads the file, or the one that is meant when it is "", and says which it was.
func loadPolicy(env environment, file string) (*policy.Policy, string, error) {
	if file == "" {
		var err error
		if file, err = policyFile(env); err != nil {
			return nil, "", err
		}
	}
	text, err := readFile("policy", file)
	if err != nil {
		return nil, file, err
	}
	p, err := policy.Load(file, text)
	return p, file, err
}

// readFile reads a file of the command line; the error says what it was to be.
func readFile(what, file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		var reason *fs.PathError
		if errors.As(err, &reason) {
			err = reason.Err
		}
		return nil, hint(fmt.Errorf("reading %s %s: %w", what, file, err), "name a file that is there and may be read")
	}
	return text, nil
}

func setupCheck(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	asJSON := fs.Bool("json", false, `print JSON: {"file", "digest", "error", "observe", "problems", "oneWall", "unmasked", "observed", "matrix"}`)
	strict := fs.Bool("strict", false, "a warning is an error too")
	return func(_ context.Context, args []string) error {
		if len(args) > 1 {
			return usageError("check one after the other", "sallyport policy check takes one FILE, got %d", len(args))
		}
		return check(env, strings.Join(args, ""), *strict, *asJSON)
	}
}

// A checked is what policy check prints.
type checked struct {
	File    string `json:"file"`
	Digest  string `json:"digest,omitempty"`
	Error   string `json:"error,omitempty"` // why the gate would refuse it
	Observe bool   `json:"observe"`         // the whole policy is in observe mode
	policy.Report
	Observed []policy.Rule `json:"observed"` // the rules that are in observe mode
}

func check(env environment, file string, strict, asJSON bool) error {
	p, file, err := loadPolicy(env, file)
	if err != nil {
		if asJSON && access.KindOf(err) == access.Invalid {
			return errors.Join(printJSON(env.stdout, map[string]string{"file": file, "error": err.Error()}), err)
		}
		return err
	}
	c := checked{File: file, Digest: p.Digest, Observe: p.Observe, Report: p.Check(), Observed: []policy.Rule{}}
	for _, r := range p.Rules {
		if r.Observe {
			c.Observed = append(c.Observed, r)
		}
	}
	if asJSON {
		err = printJSON(env.stdout, c)
	} else {
		printCheck(env.stdout, c, len(p.Rules))
	}
	if n := len(c.warnings()); err == nil && strict && n > 0 {
		err = hint(fmt.Errorf("policy %s: %s, and --strict takes each for an error", file, plural(n, "warning")), "do what the warning says, or leave out --strict")
	}
	return err
}

// warnings are the problems but observe mode, which is meant.
func (c checked) warnings() []policy.Problem {
	return slices.DeleteFunc(slices.Clone(c.Problems), func(p policy.Problem) bool { return p.Kind == "observed" })
}

func printCheck(w io.Writer, c checked, rules int) {
	printMatrix(w, c.Matrix)
	section := func(title string, n int, rows func(row func(...string))) {
		if n == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s\n", title)
		table(w, nil, rows)
	}
	section("Rules that only the gate holds: the cluster's RBAC knows nothing of what they look at.", len(c.OneWall), func(row func(...string)) {
		for _, o := range c.OneWall {
			row("  "+o.Rule, fmt.Sprintf("line %d", o.Line), string(o.Effect), "by "+strings.Join(o.By, ", "))
		}
	})
	section("What agents see unmasked. A rule shows it where no other rule that allows the request says mask: on.", len(c.Unmasked), func(row func(...string)) {
		for _, u := range c.Unmasked {
			name := u.Rule
			if name == "" {
				name = "(exempt)"
			}
			row("  "+name, fmt.Sprintf("line %d", u.Line), u.Says)
		}
	})
	section("Rules in observe mode: recorded, not enforced.", len(c.Observed), func(row func(...string)) {
		for _, r := range c.Observed {
			row("  "+r.Name, fmt.Sprintf("line %d", r.Line), string(r.Effect), r.Reason)
		}
	})
	warnings := c.warnings()
	section("Warnings:", len(warnings), func(row func(...string)) {
		for _, problem := range warnings {
			row("  "+problem.Rule, fmt.Sprintf("line %d", problem.Line), problem.Kind, problem.Says)
		}
	})
	if c.Observe {
		fmt.Fprintln(w, "\nThe whole policy is in observe mode: the gate enforces none of this, the tiers' RBAC alone does.")
	}
	fmt.Fprintf(w, "\n%s: %s, %s, digest sha256:%s\n", safe(c.File), plural(rules, "rule"), plural(len(warnings), "warning"), c.Digest)
}

// printMatrix prints who may do what. Verbs with the same cells share a line.
func printMatrix(w io.Writer, m policy.Matrix) {
	type line struct {
		row   policy.Row
		verbs []string
	}
	var lines []line
	for _, r := range m.Rows {
		same := func(l line) bool {
			return l.row.APIGroup == r.APIGroup && l.row.Namespace == r.Namespace && slices.Equal(l.row.Resources, r.Resources) &&
				slices.EqualFunc(l.row.Cells, r.Cells, func(a, b policy.Cell) bool { return a.Effect == b.Effect && a.If == b.If })
		}
		if i := slices.IndexFunc(lines, same); i >= 0 {
			lines[i].verbs = append(lines[i].verbs, r.Verb)
			continue
		}
		lines = append(lines, line{r, []string{r.Verb}})
	}
	head := []string{"API GROUP, RESOURCES", "VERBS", "NAMESPACE"}
	for _, c := range m.Groups {
		head = append(head, strings.ToUpper(c.Group))
	}
	sometimes := false
	table(w, head, func(row func(...string)) {
		var last policy.Row
		for i, l := range lines {
			resources, verbs := wrap(l.row.Resources, 44), wrap(l.verbs, 34)
			switch {
			case i == 0 || l.row.APIGroup != last.APIGroup:
				row(append([]string{groupTitle(l.row.APIGroup)}, slices.Repeat([]string{" "}, len(head)-1)...)...)
			case slices.Equal(l.row.Resources, last.Resources):
				resources = nil
			}
			last = l.row
			for i := range max(len(resources), len(verbs)) {
				cells := []string{"  " + at(resources, i), at(verbs, i), l.row.Namespace}
				if i > 0 {
					cells[2] = " "
				}
				for _, c := range l.row.Cells {
					switch {
					case i > 0:
						cells = append(cells, " ")
					case c.Effect == "-" || c.Effect == "":
						cells = append(cells, "·")
					case c.If:
						sometimes = true
						cells = append(cells, c.Effect+" *")
					default:
						cells = append(cells, c.Effect)
					}
				}
				row(cells...)
			}
		}
	})
	fmt.Fprint(w, "\n· is denied because no rule names it, as is all that is not here.")
	if sometimes {
		fmt.Fprint(w, " * also depends on names, bodies, commands or expressions.")
	}
	fmt.Fprintln(w, "\nResource or namespace * is every one that no other line names.")
}

func groupTitle(apiGroup string) string {
	switch apiGroup {
	case "":
		return `"" (core)`
	case "-":
		return "paths"
	}
	return apiGroup
}

func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return " "
}

// wrap puts words into lines of about width characters.
func wrap(words []string, width int) []string {
	lines := []string{""}
	for _, w := range words {
		last := &lines[len(lines)-1]
		switch {
		case *last == "":
			*last = w
		case len(*last)+1+len(w) > width:
			lines = append(lines, w)
		default:
			*last += " " + w
		}
	}
	return lines
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// fields prints names and values; a value that is empty is left out.
func fields(w io.Writer, list ...[2]string) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, f := range list {
		if f[1] != "" {
			fmt.Fprintf(t, "%s:\t%s\n", f[0], safe(f[1]))
		}
	}
	t.Flush()
}
