package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	kjson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// A vectorFile is a list of requests and what is to become of them.
type vectorFile struct {
	Policy  string   `yaml:"policy"` // relative to the file
	Vectors []vector `yaml:"vectors"`
}

type vector struct {
	Name        string    `yaml:"name"`
	As          asFile    `yaml:"as"`
	Cluster     string    `yaml:"cluster"` // the policy's first by default
	Request     string    `yaml:"request"`
	ContentType string    `yaml:"contentType"`
	Body        yaml.Node `yaml:"body"` // a string is sent as it stands; anything else in the form of contentType
	Live        yaml.Node `yaml:"live"` // the object a patch is judged on
	At          string    `yaml:"at"`
	Expect      string    `yaml:"expect"`
	Observed    string    `yaml:"observed"` // what observe mode let pass
	Rule        string    `yaml:"rule"`
	Message     string    `yaml:"message"`
	Mask        string    `yaml:"mask"`   // on or off
	Binary      string    `yaml:"binary"` // pass or block

	line int
}

type asFile struct {
	Groups  []string          `yaml:"groups"`
	Subject string            `yaml:"subject"`
	Issuer  string            `yaml:"issuer"`
	Agent   string            `yaml:"agent"`
	Owner   string            `yaml:"owner"`
	Run     map[string]string `yaml:"run"`
}

func (a asFile) principal() access.Principal {
	return access.Principal{Issuer: a.Issuer, Subject: a.Subject, Agent: cmp.Or(a.Agent, a.Subject, "agent"), Owner: a.Owner, Run: a.Run, Groups: a.Groups}
}

// invalid is what vectors call a request that is refused before any rule sees it.
const invalid = "invalid"

func setupTest(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	file := fs.String("policy", "", "the policy's `FILE`, whatever the vectors name")
	asJSON := fs.Bool("json", false, `print JSON: {"vectors", "passed", "failures": [...]}`)
	return func(_ context.Context, args []string) error {
		if len(args) == 0 {
			return usageError("such as infra/policy.vectors.yaml", "sallyport policy test needs a file of vectors")
		}
		return testVectors(env, args, *file, *asJSON)
	}
}

// A failure is a vector that did not come out as expected.
type failure struct {
	File    string  `json:"file"`
	Line    int     `json:"line"`
	Name    string  `json:"name"`
	Request string  `json:"request"`
	Want    outcome `json:"want"`
	Got     outcome `json:"got"`
	// Near is what nearly decided otherwise.
	Near []string `json:"near,omitempty"`
}

// An outcome is what a vector expects, or what came of it.
type outcome struct {
	Effect   string `json:"effect"`
	Observed string `json:"observed,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Message  string `json:"message,omitempty"`
	Mask     string `json:"mask,omitempty"`
	Binary   string `json:"binary,omitempty"`
}

func (o outcome) String() string {
	s := o.Effect
	if o.Observed != "" {
		s += ", observed " + o.Observed
	}
	if o.Rule != "" {
		s += fmt.Sprintf(" by %q", o.Rule)
	}
	if o.Mask != "" {
		s += ", mask " + o.Mask
	}
	if o.Binary != "" {
		s += ", binary " + o.Binary
	}
	if o.Message != "" {
		s += ": " + o.Message
	}
	return s
}

func testVectors(env environment, files []string, policyName string, asJSON bool) error {
	total, failures := 0, []failure{}
	for _, file := range files {
		text, err := readFile("vectors", file)
		if err != nil {
			return err
		}
		vectors, err := parseVectors(file, text)
		if err != nil {
			return err
		}
		name := policyName
		if name == "" && vectors.Policy != "" {
			name = filepath.Join(filepath.Dir(file), filepath.FromSlash(vectors.Policy))
			if filepath.IsAbs(vectors.Policy) {
				name = vectors.Policy
			}
		}
		p, _, err := loadPolicy(env, name)
		if err != nil {
			return err
		}
		for _, v := range vectors.Vectors {
			total++
			f, err := v.test(p, env.now())
			if err != nil {
				return fmt.Errorf("%s:%d: %q: %w", file, v.line, v.Name, err)
			}
			if f != nil {
				f.File = file
				failures = append(failures, *f)
			}
		}
	}
	if asJSON {
		if err := printJSON(env.stdout, map[string]any{"vectors": total, "passed": total - len(failures), "failures": failures}); err != nil {
			return err
		}
	} else {
		for _, f := range failures {
			fmt.Fprintf(env.stdout, "%s:%d: %s\n", safe(f.File), f.Line, safe(f.Name))
			list := [][2]string{{"  request", f.Request}, {"  want", f.Want.String()}, {"  got", f.Got.String()}}
			for _, n := range f.Near {
				list = append(list, [2]string{"  near", n})
			}
			fields(env.stdout, list...)
			fmt.Fprintln(env.stdout)
		}
		fmt.Fprintf(env.stdout, "%s, %d passed\n", plural(total, "vector"), total-len(failures))
	}
	if n := len(failures); n > 0 {
		return hint(fmt.Errorf("%s of %d failed", plural(n, "vector"), total), "sallyport policy explain says how each rule took a request")
	}
	return nil
}

// test runs the vector; the failure is nil when all is as expected.
func (v vector) test(p *policy.Policy, now time.Time) (*failure, error) {
	q := question{principal: v.As.principal(), cluster: v.Cluster, line: v.Request, contentType: v.ContentType, now: now}
	var err error
	if v.At != "" {
		if q.now, err = time.Parse(time.RFC3339, v.At); err != nil {
			return nil, fmt.Errorf("at: %q is no time; write it as 2026-01-31T09:30:00Z", v.At)
		}
	}
	if q.body, q.contentType, err = body(v.Body, v.ContentType, strings.HasPrefix(v.Request, "PATCH ")); err != nil {
		return nil, fmt.Errorf("body: %w", err)
	}
	if !v.Live.IsZero() {
		if q.live, err = object(v.Live); err != nil {
			return nil, fmt.Errorf("live: %w", err)
		}
	}
	a, err := q.ask(p)
	if err != nil {
		return nil, err
	}
	want := outcome{v.Expect, v.Observed, v.Rule, v.Message, v.Mask, v.Binary}
	got := a.outcome()
	if v.Mask == "" {
		got.Mask = "" // nobody asks
	}
	if v.Binary == "" {
		got.Binary = ""
	}
	if want.Mask == got.Mask && want.Binary == got.Binary && (v.Observed == "" || v.Observed == got.Observed) && want.Effect == got.Effect && (v.Rule == "" || v.Rule == got.Rule) && strings.Contains(got.Message, v.Message) {
		return nil, nil
	}
	return &failure{Line: v.line, Name: v.Name, Request: v.Request, Want: want, Got: got, Near: a.decision.Near}, nil
}

// outcome is what came of a question. Of a decision that was only observed, rule and message are the observed one's.
func (a answer) outcome() outcome {
	if a.refused != nil {
		return outcome{Effect: invalid, Message: a.refused.Error()}
	}
	o := outcome{Effect: string(a.decision.Effect), Rule: a.decision.Rule, Message: a.decision.Message}
	if a.decision.Effect != access.Deny {
		o.Mask, o.Binary = a.decision.Obligations.Mask, cmp.Or(a.decision.Obligations.Binary, "pass")
	}
	if seen := a.decision.Observed; seen != nil {
		o.Observed, o.Rule, o.Message = string(seen.Effect), seen.Rule, seen.Message
	}
	return o
}

// body is the bytes a vector's body stands for, and their media type.
func body(n yaml.Node, contentType string, patch bool) ([]byte, string, error) {
	switch {
	case n.IsZero():
		return nil, contentType, nil
	case contentType == "" && patch:
		return nil, "", errors.New("a patch needs a contentType, such as application/merge-patch+json")
	}
	contentType = cmp.Or(contentType, "application/json")
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" {
		return []byte(n.Value), contentType, nil
	}
	text, err := asJSON(n)
	if err != nil || contentType != "application/vnd.kubernetes.protobuf" {
		return text, contentType, err
	}
	typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(text, nil, nil)
	if err != nil {
		return nil, "", fmt.Errorf("it cannot be written in protobuf: %w", err)
	}
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(typed, &b); err != nil {
		return nil, "", fmt.Errorf("it cannot be written in protobuf: %w", err)
	}
	return b.Bytes(), contentType, nil
}

func asJSON(n yaml.Node) ([]byte, error) {
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("line %d: it cannot be written in JSON; are all its keys strings?", n.Line)
	}
	return text, nil
}

// object is an object of a cluster, in the types in which rules see objects.
func object(n yaml.Node) (map[string]any, error) {
	text, err := asJSON(n)
	if err != nil {
		return nil, err
	}
	var o map[string]any
	if err := kjson.Unmarshal(text, &o); err != nil || o == nil {
		return nil, fmt.Errorf("line %d: an object is wanted here, fields and their values", n.Line)
	}
	return o, nil
}

// parseVectors reads a file of vectors. A field it does not know is an error: a vector that expects nothing tests nothing.
func parseVectors(file string, text []byte) (*vectorFile, error) {
	refuse := func(line int, err error) (*vectorFile, error) {
		return nil, access.Errorf(access.Invalid, "%s:%d: %w", file, line, err)
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	var root yaml.Node
	if err := dec.Decode(&root); errors.Is(err, io.EOF) {
		return refuse(1, errors.New("empty; begin with vectors"))
	} else if err != nil {
		return refuse(yamlError(err))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return refuse(1, errors.New("more than one document; write all vectors in one"))
	}
	var f vectorFile
	if line, err := strict(root.Content[0], reflect.TypeOf(f)); err != nil {
		return refuse(line, err)
	}
	if err := root.Decode(&f); err != nil {
		return refuse(yamlError(err))
	}
	if len(f.Vectors) == 0 {
		return refuse(1, errors.New("no vectors; nothing would be tested"))
	}
	list := value(root.Content[0], "vectors")
	effects := []string{string(access.Allow), string(access.Ask), string(access.Deny), invalid}
	for i := range f.Vectors {
		v := &f.Vectors[i]
		v.line = list.Content[i].Line
		switch {
		case v.Request == "":
			return refuse(v.line, errors.New(`request is missing, such as request: "GET /api/v1/namespaces/dev/pods"`))
		case v.Expect == "":
			return refuse(v.line, errors.New("expect is missing: allow, ask, deny or invalid"))
		case !slices.Contains(effects, v.Expect):
			return refuse(value(list.Content[i], "expect").Line, fmt.Errorf("expect: %q is no outcome%s", v.Expect, suggest(v.Expect, effects)))
		case v.Observed != "" && v.Observed != string(access.Ask) && v.Observed != string(access.Deny):
			return refuse(value(list.Content[i], "observed").Line, fmt.Errorf("observed: %q is no outcome that can be observed; write ask or deny", v.Observed))
		case v.Mask != "" && v.Mask != "on" && v.Mask != "off":
			return refuse(value(list.Content[i], "mask").Line, fmt.Errorf("mask: %q is neither on nor off", v.Mask))
		case v.Binary != "" && v.Binary != "pass" && v.Binary != "block":
			return refuse(value(list.Content[i], "binary").Line, fmt.Errorf("binary: %q is neither pass nor block", v.Binary))
		}
		v.Name = cmp.Or(v.Name, v.Request)
	}
	return &f, nil
}

var yamlErrorRE = regexp.MustCompile(`^(?:yaml: )?line ([0-9]+): (.*)`)

// yamlError is the line and the first of what the YAML library says.
func yamlError(err error) (int, error) {
	text := err.Error()
	if t, ok := errors.AsType[*yaml.TypeError](err); ok && len(t.Errors) > 0 {
		text = t.Errors[0]
	}
	if m := yamlErrorRE.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return line, errors.New(m[2])
	}
	return 1, errors.New(text)
}

// strict looks for fields that t does not have.
func strict(n *yaml.Node, t reflect.Type) (line int, err error) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	switch {
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			if line, err := strict(c, t.Elem()); err != nil {
				return line, err
			}
		}
	case t.Kind() != reflect.Struct || t == reflect.TypeFor[yaml.Node]():
	case n.Kind != yaml.MappingNode:
		return n.Line, errors.New("a mapping is wanted here, fields and their values")
	default:
		known := map[string]reflect.Type{}
		var names []string
		for f := range t.Fields() {
			if name := f.Tag.Get("yaml"); name != "" {
				known[name], names = f.Type, append(names, name)
			}
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			if known[key.Value] == nil {
				return key.Line, fmt.Errorf("unknown field %q%s", key.Value, suggest(key.Value, names))
			}
			if line, err := strict(n.Content[i+1], known[key.Value]); err != nil {
				return line, err
			}
		}
	}
	return 0, nil
}

// value is the value of a mapping's field.
func value(mapping *yaml.Node, field string) *yaml.Node {
	if mapping.Kind == yaml.AliasNode {
		mapping = mapping.Alias
	}
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		if mapping.Content[i].Value == field {
			return mapping.Content[i+1]
		}
	}
	return &yaml.Node{}
}

// suggest names the known word that begins most like the one that was written, or lists all of them.
func suggest(word string, known []string) string {
	best, most := "", 0
	for _, k := range known {
		if n := alike(strings.ToLower(word), strings.ToLower(k)); n > most && 2*n >= max(len(word), len(k)) {
			best, most = k, n
		}
	}
	if best != "" {
		return "; did you mean " + best + "?"
	}
	return "; write one of " + strings.Join(known, ", ")
}

// alike counts the characters at the beginning and the end that two words share.
func alike(a, b string) int {
	n := 0
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	a, b = a[n:], b[n:]
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		n, a, b = n+1, a[:len(a)-1], b[:len(b)-1]
	}
	return n
}
