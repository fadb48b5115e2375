package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/cost"
	"cel.dev/cel-go/common/types"

	"sallyport/shared/access"
)

// Bounds of an expression. The first is of the worst case, held at load against objects with lists of 1,000 items: it
// refuses loops in loops in loops. The second is what one evaluation may really cost, some ten milliseconds; one that
// costs more is an error, which never lets anything through.
const (
	mostLoadCost = 20_000_000
	mostRunCost  = 200_000
	mostChars    = 4096
	mostRegexp   = 1000
)

// What an expression may look at. The fields' names are the policy's words.
type celPrincipal struct {
	Issuer  string            `cel:"issuer"`
	Subject string            `cel:"subject"`
	Agent   string            `cel:"agent"`
	Owner   string            `cel:"owner"`
	Groups  []string          `cel:"groups"`
	Run     map[string]string `cel:"run"`
}

type celAction struct {
	Verb          string   `cel:"verb"`
	APIGroup      string   `cel:"apiGroup"`
	Version       string   `cel:"version"`
	Resource      string   `cel:"resource"`
	Subresource   string   `cel:"subresource"`
	Namespace     string   `cel:"namespace"`
	Name          string   `cel:"name"`
	LabelSelector string   `cel:"labelSelector"`
	FieldSelector string   `cel:"fieldSelector"`
	DryRun        bool     `cel:"dryRun"`
	Argv          []string `cel:"argv"`
	Path          string   `cel:"path"`
	Container     string   `cel:"container"`
	Stdin         bool     `cel:"stdin"`
	TTY           bool     `cel:"tty"`
	Reveal        string   `cel:"reveal"`
}

type celFound struct {
	Images          []string `cel:"images"`
	ServiceAccounts []string `cel:"serviceAccounts"`
	Secrets         []string `cel:"secrets"`
	HostPaths       []string `cel:"hostPaths"`
}

var celVariables = []string{"principal", "action", "object", "found", "now", "cluster"}

// An expression is a compiled one.
type expression struct {
	program     cel.Program
	needsObject bool // it names object or found
}

// expressions compiles the expressions of one policy; the environment is made for the first.
type expressions struct {
	env *cel.Env
	all map[string]*expression
}

func (x *expressions) compile(text string) (*expression, error) {
	if e, ok := x.all[text]; ok {
		return e, nil
	}
	if x.env == nil {
		var err error
		x.env, err = cel.NewEnv(
			cel.Types(
				cel.NativeTypeFor[celPrincipal](types.ParseStructTag("cel"), cel.NativeTypeAlias("sallyport.Principal")),
				cel.NativeTypeFor[celAction](types.ParseStructTag("cel"), cel.NativeTypeAlias("sallyport.Action")),
				cel.NativeTypeFor[celFound](types.ParseStructTag("cel"), cel.NativeTypeAlias("sallyport.Found")),
			),
			cel.Variable("principal", cel.ObjectType("sallyport.Principal")),
			cel.Variable("action", cel.ObjectType("sallyport.Action")),
			cel.Variable("object", cel.DynType),
			cel.Variable("found", cel.ObjectType("sallyport.Found")),
			cel.Variable("now", cel.TimestampType),
			cel.Variable("cluster", cel.StringType),
			cel.ParserExpressionSizeLimit(mostChars),
			cel.RegexProgramSizeLimit(mostRegexp),
			cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateDurationLiterals()),
		)
		if err != nil {
			return nil, fmt.Errorf("making the environment of expressions: %w", err)
		}
		x.all = map[string]*expression{}
	}
	ast, issues := x.env.Compile(text)
	if issues.Err() != nil {
		return nil, firstIssue(text, issues)
	}
	if t := ast.OutputType(); t.Kind() != types.BoolKind {
		return nil, fmt.Errorf("it gives %s, and a condition gives bool; compare it with something", t)
	}
	estimate, err := x.env.EstimateCost(ast, sizes{})
	if err != nil {
		return nil, fmt.Errorf("its cost cannot be estimated: %w", err)
	}
	if estimate.Max > mostLoadCost {
		return nil, fmt.Errorf("it may cost %d, %d times the limit; take out loops inside loops, or ask one field instead of all", estimate.Max, estimate.Max/mostLoadCost)
	}
	program, err := x.env.Program(ast, cel.CostLimit(mostRunCost), cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	e := &expression{program: program}
	for _, ref := range ast.NativeRep().ReferenceMap() {
		if ref.Name == "object" || ref.Name == "found" {
			e.needsObject = true
		}
	}
	x.all[text] = e
	return e, nil
}

var (
	undeclaredRE = regexp.MustCompile(`^undeclared reference to '([^']+)'`)
	undefinedRE  = regexp.MustCompile(`^undefined field '([^']+)'`)
)

// firstIssue is the first thing the type checker has to say, in one line, with what may have been meant.
func firstIssue(text string, issues *cel.Issues) error {
	all := issues.Errors()
	if len(all) == 0 {
		return issues.Err()
	}
	first := all[0]
	said, _, _ := strings.Cut(first.Message, "\n")
	hint := ""
	if strings.Contains(said, "did you mean") { // it knows better
	} else if m := undeclaredRE.FindStringSubmatch(said); m != nil {
		hint = suggestOf("variables", m[1], celVariables)
	} else if m := undefinedRE.FindStringSubmatch(said); m != nil {
		hint = suggestOf("fields of principal, action and found", m[1], celFields)
	}
	where := fmt.Sprintf("character %d", first.Location.Column()+1)
	if strings.Contains(text, "\n") {
		where = fmt.Sprintf("its line %d, %s", first.Location.Line(), where)
	}
	return fmt.Errorf("%s: %s%s", where, said, hint)
}

var celFields = []string{
	"issuer", "subject", "agent", "owner", "groups", "run",
	"verb", "apiGroup", "version", "resource", "subresource", "namespace", "name", "labelSelector", "fieldSelector", "dryRun", "argv", "path", "container", "stdin", "tty", "reveal",
	"images", "serviceAccounts", "secrets", "hostPaths",
}

// sizes bounds what is not known at load, for the estimate.
type sizes struct{}

func (sizes) EstimateSize(n cost.AstNode) *cost.SizeEstimate {
	t := n.Type()
	if t == nil {
		return nil
	}
	most := uint64(0)
	switch t.Kind() {
	case types.ListKind, types.MapKind, types.DynKind, types.AnyKind:
		most = 1000
	case types.StringKind, types.BytesKind:
		most = 2000
	default:
		return nil
	}
	if path := n.Path(); len(path) > 0 && (path[0] == "principal" || path[0] == "action") && most == 1000 {
		most = 100
	}
	e := cost.RangedSizeEstimate(0, most)
	return &e
}

func (sizes) EstimateCallCost(string, string, *cost.AstNode, []cost.AstNode) *cost.CallEstimate {
	return nil
}

var errNoObject = errors.New("there is no whole object to look at")

// holds evaluates the expression. An error is the caller's to weigh: it never lets anything through.
func (e *expression) holds(r *Request, obj *access.Object) (bool, error) {
	if e.needsObject && (obj == nil || obj.Partial) {
		return false, errNoObject
	}
	v, _, err := e.program.Eval(&activation{r, obj})
	if err != nil {
		return false, err
	}
	b, ok := v.Value().(bool)
	if !ok {
		return false, errors.New("it gave no bool")
	}
	return b, nil
}

// activation makes the variables an expression asks for, when it asks.
type activation struct {
	r   *Request
	obj *access.Object
}

func (a *activation) Parent() cel.Activation { return nil }

func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case "principal":
		p := a.r.Principal
		return &celPrincipal{p.Issuer, p.Subject, p.Agent, p.Owner, slices.Clip(p.Groups), p.Run}, true
	case "action":
		x := a.r.Action
		return &celAction{
			Verb: x.Verb, APIGroup: x.Group, Version: x.Version, Resource: x.Resource, Subresource: x.Subresource, Namespace: x.Namespace, Name: x.Name,
			LabelSelector: x.LabelSelector, FieldSelector: x.FieldSelector, DryRun: x.DryRun, Argv: x.Argv, Path: x.Path, Container: x.Container, Stdin: x.Stdin, TTY: x.TTY, Reveal: x.Reveal,
		}, true
	case "now":
		return a.r.Now.UTC().Truncate(time.Second), true
	case "cluster":
		return a.r.Cluster, true
	}
	if a.obj == nil {
		return nil, false
	}
	switch name {
	case "object":
		return a.obj.Value, true
	case "found":
		f := a.obj.Found
		return &celFound{f.Images, f.ServiceAccounts, f.Secrets, f.HostPaths}, true
	}
	return nil, false
}
