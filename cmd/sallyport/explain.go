package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"strings"
	"time"

	kjson "k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/policy"
)

// A question is a request that is not sent: it is decided as the gate would decide it.
type question struct {
	principal   access.Principal
	cluster     string // the policy's first when empty
	line        string // METHOD /path?query
	contentType string
	body        []byte
	live        map[string]any // what a patch is judged on; nil cannot be read, and to server-side apply does not exist
	now         time.Time
}

// An answer is what the gate would have done.
type answer struct {
	refused  error // why no rule was asked; the rest may be empty then
	action   access.Action
	object   *access.Object
	tier     string
	cluster  string
	decision access.Decision
	reasons  []policy.Reason
}

// ask decides the question in the steps of package proxy/gate. The error is of the question itself.
func (q question) ask(p *policy.Policy) (answer, error) {
	var a answer
	method, target, ok := strings.Cut(q.line, " ")
	if !ok {
		return a, fmt.Errorf(`%q is no request line; write it as "GET /api/v1/namespaces/dev/pods"`, q.line)
	}
	a.cluster = q.cluster
	if a.cluster == "" {
		a.cluster = p.Clusters[0].Name
	} else if _, err := p.Cluster(a.cluster); err != nil {
		return a, err
	}
	if a.action, a.refused = action.Parse(method, target); a.refused != nil {
		return a, nil
	}
	tier, err := p.Tier(q.principal)
	if err != nil {
		a.decision = access.Decision{Effect: access.Deny, Rule: "default", Policy: p.Digest, Message: err.Error()}
		return a, nil
	}
	a.tier = tier.Name
	if a.action, a.refused = action.Refine(a.action, q.contentType, q.body); a.refused != nil {
		return a, nil
	}
	match := p.Match(policy.Request{Principal: q.principal, Tier: tier.Name, Cluster: a.cluster, Action: a.action, Now: q.now})
	if needs := match.NeedsObject(); needs || len(q.body) > 0 {
		a.object, err = q.object(a.action)
		if err != nil && needs { // else the gate does not look at it, and we only did to explain
			a.refused = err
			return a, nil
		}
	}
	a.decision = match.Decide(a.object)
	a.reasons = match.Explain(a.object)
	return a, nil
}

// object is what the body would make. It is nil when that cannot be told, which rules take for the worst.
func (q question) object(a access.Action) (*access.Object, error) {
	b, err := action.Decode(a, q.contentType, q.body)
	if err == nil {
		if b.NeedsLive() && q.live == nil && a.Patch != access.ApplyPatch {
			return nil, nil
		}
		var o *access.Object
		if o, err = b.Judge(q.live); err == nil {
			return o, nil
		}
	}
	if access.KindOf(err) == access.Media {
		return nil, nil
	}
	return nil, err
}

func setupExplain(env environment, fs *flag.FlagSet) func(context.Context, []string) error {
	file := fs.String("policy", "", "the policy's `FILE`")
	var as access.Principal
	groups := fs.String("groups", "", "the principal's groups, `NAME,NAME`")
	fs.StringVar(&as.Subject, "subject", "", "the principal's `SUBJECT`, the token's sub")
	fs.StringVar(&as.Issuer, "issuer", "", "the principal's issuer, a `URL`")
	fs.StringVar(&as.Agent, "agent", "", "the agent's `NAME`; by default the subject")
	fs.StringVar(&as.Owner, "owner", "", "`WHO` answers for the agent")
	run := fs.String("run", "", "the claims of its run, `CLAIM=VALUE,CLAIM=VALUE`")
	cluster := fs.String("cluster", "", "the cluster's `NAME`; by default the policy's first")
	bodyFile := fs.String("body", "", "the request's body, a `FILE`")
	contentType := fs.String("content-type", "", "the body's media `TYPE`; by default application/json, or application/yaml for a .yaml file")
	liveFile := fs.String("live", "", "the object a patch is judged on, a `FILE` of YAML or JSON")
	at := fs.String("at", "", "the `TIME` at which it is asked, such as 2026-01-31T09:30:00Z; now by default")
	asJSON := fs.Bool("json", false, `print JSON: {"request", "kubectl", "sentence", "action", "decision", "rules": [...]}`)
	return func(_ context.Context, args []string) error {
		const such = "such as 'DELETE /api/v1/namespaces/prod'"
		q := question{principal: as, cluster: *cluster, contentType: *contentType, now: env.now()}
		switch {
		case len(args) == 2 && strings.HasPrefix(args[1], "/"):
			q.line = args[0] + " " + args[1]
		case len(args) == 1:
			q.line = args[0]
		default:
			return usageError(such, "sallyport policy explain needs one request line, got %s", plural(len(args), "argument"))
		}
		if !strings.Contains(q.line, " /") {
			return usageError(such, "%q is no request line: a method, a space and a path", q.line)
		}
		if *groups == "" {
			return usageError("name the groups that the principal has, such as --groups agents", "sallyport policy explain needs --groups")
		}
		q.principal.Groups = strings.Split(*groups, ",")
		q.principal.Agent = cmp.Or(as.Agent, as.Subject, "agent")
		for claim := range strings.SplitSeq(*run, ",") {
			name, value, ok := strings.Cut(claim, "=")
			switch {
			case *run == "":
			case !ok:
				return usageError("write it as --run run_id=4711", "--run %q is no claim and value", claim)
			case q.principal.Run == nil:
				q.principal.Run = map[string]string{name: value}
			default:
				q.principal.Run[name] = value
			}
		}
		if *at != "" {
			var err error
			if q.now, err = time.Parse(time.RFC3339, *at); err != nil {
				return usageError("write it as 2026-01-31T09:30:00Z", "--at %q is no time", *at)
			}
		}
		if *bodyFile != "" {
			var err error
			if q.body, err = readFile("body", *bodyFile); err != nil {
				return err
			}
			yaml := strings.HasSuffix(*bodyFile, ".yaml") || strings.HasSuffix(*bodyFile, ".yml")
			switch {
			case q.contentType == "" && strings.HasPrefix(q.line, "PATCH "):
				return usageError("such as --content-type application/merge-patch+json", "a patch needs --content-type")
			case q.contentType == "" && yaml:
				q.contentType = "application/yaml"
			case q.contentType == "":
				q.contentType = "application/json"
			}
		}
		if *liveFile != "" {
			text, err := readFile("live object", *liveFile)
			if err != nil {
				return err
			}
			if text, err = yaml.YAMLToJSONStrict(text); err == nil {
				err = kjson.Unmarshal(text, &q.live)
			}
			if err == nil && q.live == nil {
				err = errors.New("it is empty")
			}
			if err != nil {
				return hint(fmt.Errorf("reading live object %s: %w", *liveFile, err), "it is an object as kubectl get -o yaml shows it")
			}
		}
		p, _, err := loadPolicy(env, *file)
		if err != nil {
			return err
		}
		return explain(env, p, q, *asJSON)
	}
}

func explain(env environment, p *policy.Policy, q question, asJSON bool) error {
	a, err := q.ask(p)
	if err != nil {
		return hint(err, "the policy's clusters are %s", strings.Join(clusterNames(p), ", "))
	}
	if a.refused != nil {
		return hint(fmt.Errorf("the gate refuses this request before any rule: %w", a.refused), "send it in the form that kubectl sends; no rule can allow this one")
	}
	kubectl, sentence := action.Kubectl(a.action, a.object), action.Sentence(a.action)
	// What decided comes first.
	order := map[access.Effect]int{access.Deny: 0, access.Ask: 1, access.Allow: 2}
	slices.SortStableFunc(a.reasons, func(x, y policy.Reason) int {
		if x.Matches != y.Matches {
			return map[bool]int{true: -1, false: 1}[x.Matches]
		}
		if x.Matches {
			return cmp.Compare(order[x.Effect], order[y.Effect])
		}
		return 0
	})
	if asJSON {
		return printJSON(env.stdout, struct {
			Request  string           `json:"request"`
			Kubectl  string           `json:"kubectl"`
			Sentence string           `json:"sentence"`
			Who      access.Principal `json:"principal"`
			Cluster  string           `json:"cluster"`
			Action   access.Action    `json:"action"`
			Traits   []access.Trait   `json:"traits,omitempty"`
			Unsure   []access.Trait   `json:"unsure,omitempty"`
			Touched  []string         `json:"touched,omitempty"`
			Decision access.Decision  `json:"decision"`
			Rules    []policy.Reason  `json:"rules"`
		}{q.line, kubectl, sentence, q.principal, a.cluster, a.action, a.traits(), a.unsure(), a.touched(), a.decision, a.reasons})
	}
	d := a.decision
	list := [][2]string{
		{"request", q.line},
		{"kubectl", kubectl},
		{"meaning", sentence},
		{"action", words(a.action)},
		{"principal", fmt.Sprintf("%s, groups %s, base tier %s", q.principal.Agent, strings.Join(q.principal.Groups, " "), cmp.Or(a.tier, "none"))},
		{"cluster", a.cluster},
		{"traits", join(a.traits())},
		{"unsure", join(a.unsure())},
		{"touched", strings.Join(a.touched(), " ")},
		{"decision", decided(d)},
		{"message", d.Message},
	}
	list = append(list, [2]string{"answer", shown(d)})
	if d.Effect == access.Ask {
		list = append(list, [2]string{"yes would give", given(d)})
	}
	for _, n := range d.Near {
		list = append(list, [2]string{"near", n})
	}
	if d.Observed != nil {
		list = append(list, [2]string{"observed", fmt.Sprintf("%s; %s", decided(*d.Observed), d.Observed.Message)})
	}
	fields(env.stdout, list...)
	if len(a.reasons) == 0 {
		return nil
	}
	fmt.Fprintln(env.stdout)
	table(env.stdout, []string{"RULE", "LINE", "EFFECT", "MATCHES", "WHY"}, func(row func(...string)) {
		for _, r := range a.reasons {
			effect, matches, line := string(r.Effect), "no: "+r.Failed, fmt.Sprint(r.Line)
			if r.Observe {
				effect += ", observed"
			}
			if r.Matches {
				matches = "yes"
			}
			if r.Line == 0 {
				line = "built in"
			}
			row(r.Rule, line, effect, matches, r.Says)
		}
	})
	return nil
}

func (a answer) traits() []access.Trait {
	if a.object == nil {
		return nil
	}
	return a.object.Traits
}

func (a answer) unsure() []access.Trait {
	if a.object == nil {
		return nil
	}
	return a.object.Unsure
}

func (a answer) touched() []string {
	if a.object == nil {
		return nil
	}
	return a.object.Touched
}

func decided(d access.Decision) string {
	if d.Rule == "default" {
		return string(d.Effect) + ", because no rule allows it"
	}
	return fmt.Sprintf("%s, by rule %q", d.Effect, d.Rule)
}

// shown says what is seen of the answer, where that is not what it is by default.
func shown(d access.Decision) string {
	switch {
	case d.Obligations.Mask == "off":
		return "as the cluster gives it, not masked"
	case d.Obligations.Binary == "block":
		return "masked; what is not text is blocked"
	}
	return ""
}

// given says what a yes to an ask would give, and who could say it.
func given(d access.Decision) string {
	o := d.Obligations
	s := "tier " + d.Tier
	if o.Grant.Scope != "" {
		s += ", for the " + string(o.Grant.Scope)
	}
	if o.Grant.Length > 0 {
		s += fmt.Sprintf(", %v long", o.Grant.Length)
	}
	if len(o.Reviewers) > 0 {
		s += fmt.Sprintf("; %d of %s", o.Quorum, strings.Join(o.Reviewers, ", "))
	}
	if o.Expires > 0 {
		s += fmt.Sprintf("; the question stands %v", o.Expires)
	}
	return s
}

// words spells an action out, field by field, as rules see it.
func words(a access.Action) string {
	if a.Resourceless {
		return fmt.Sprintf("verb %s, path %s", a.Verb, a.Path)
	}
	resource := a.Resource
	if a.Subresource != "" {
		resource += "/" + a.Subresource
	}
	s := fmt.Sprintf("verb %s, apiGroup %q, resource %s", a.Verb, a.Group, resource)
	for _, f := range [][2]string{
		{"namespace", a.Namespace}, {"name", a.Name}, {"labelSelector", a.LabelSelector}, {"fieldSelector", a.FieldSelector}, {"patch", string(a.Patch)},
		{"container", a.Container},
	} {
		if f[1] != "" {
			s += ", " + f[0] + " " + f[1]
		}
	}
	if len(a.Argv) > 0 {
		s += fmt.Sprintf(", argv %q", a.Argv)
	}
	if a.DryRun {
		s += ", dry run"
	}
	return s
}

func join[T ~string](list []T) string {
	s := make([]string, len(list))
	for i, x := range list {
		s[i] = string(x)
	}
	return strings.Join(s, " ")
}

func clusterNames(p *policy.Policy) []string {
	var names []string
	for _, c := range p.Clusters {
		names = append(names, c.Name)
	}
	return names
}
