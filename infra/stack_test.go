package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/assertions"
	"github.com/aws/jsii-runtime-go"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/settings"
)

// outdir takes the cloud assemblies; it outlives every single test, as the shared template does.
var outdir string

var update = flag.Bool("update", false, "rewrite testdata/template.json")

func TestMain(m *testing.M) {
	flag.Parse()
	var err error
	if outdir, err = os.MkdirTemp("", "sallyport-infra-"); err != nil {
		panic(err)
	}
	code := m.Run()
	jsii.Close()
	os.RemoveAll(outdir)
	os.Exit(code)
}

// A template is what CloudFormation would get: the resources by logical id, in the JSON they are.
type template struct {
	Resources map[string]resource
	Outputs   map[string]any
	text      []byte
}

type resource struct {
	Type           string
	Properties     map[string]any
	DeletionPolicy string
	DependsOn      []string
}

// example is the template of the files in this folder; synthesising it takes a second or two, so tests share it.
var example = sync.OnceValue(func() template {
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		panic(err)
	}
	return synth(c)
})

func synth(c *Config) template {
	// A test's app does not read cdk.json by itself.
	b, err := os.ReadFile("../cdk.json")
	if err != nil {
		panic(err)
	}
	var cdk struct{ Context map[string]any }
	if err := json.Unmarshal(b, &cdk); err != nil {
		panic(err)
	}
	cdk.Context["@aws-cdk/core:validateAgainstDefaultRules"] = false // cdk synth does it, and takes its time
	out, err := os.MkdirTemp(outdir, "")
	if err != nil {
		panic(err)
	}
	app := awscdk.NewApp(&awscdk.AppProps{Context: &cdk.Context, AnalyticsReporting: no, Outdir: &out})
	tpl := assertions.Template_FromStack(NewStack(app, "Sallyport", c, "testdata/dist"), nil)
	text, err := json.MarshalIndent(tpl.ToJSON(), "", "  ")
	if err != nil {
		panic(err)
	}
	t := template{text: append(text, '\n')}
	if err := json.Unmarshal(text, &t); err != nil {
		panic(err)
	}
	return t
}

func stack(t *testing.T) template {
	t.Helper()
	if testing.Short() {
		t.Skip("needs node, and some seconds")
	}
	return example()
}

func (t template) all(typ string) []string {
	var ids []string
	for id, r := range t.Resources {
		if r.Type == typ {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// one is the only resource of a type whose logical id begins with prefix.
func (t template) one(tb testing.TB, typ, prefix string) (string, resource) {
	tb.Helper()
	ids := slices.DeleteFunc(t.all(typ), func(id string) bool { return !strings.HasPrefix(id, prefix) })
	if len(ids) != 1 {
		tb.Fatalf("%d resources of type %s begin with %q: %v", len(ids), typ, prefix, ids)
	}
	return ids[0], t.Resources[ids[0]]
}

// at follows keys and indexes into a JSON value.
func at(v any, path ...any) any {
	for _, p := range path {
		switch p := p.(type) {
		case string:
			m, _ := v.(map[string]any)
			v = m[p]
		case int:
			l, _ := v.([]any)
			if p >= len(l) {
				return nil
			}
			v = l[p]
		}
	}
	return v
}

// spell writes a template value the short way: references by logical id without its hash, joins joined.
func spell(v any) string {
	switch v := v.(type) {
	case string:
		return v
	case []any:
		var s []string
		for _, e := range v {
			s = append(s, spell(e))
		}
		return strings.Join(s, " ")
	case map[string]any:
		if r, ok := v["Ref"].(string); ok {
			return "<" + name(r) + ">"
		}
		if g, ok := v["Fn::GetAtt"].([]any); ok {
			return "<" + name(g[0].(string)) + ">"
		}
		if j, ok := v["Fn::Join"].([]any); ok {
			var s []string
			for _, e := range j[1].([]any) {
				s = append(s, spell(e))
			}
			return strings.Join(s, j[0].(string))
		}
	}
	return fmt.Sprint(v)
}

// name cuts the CDK's hash off a logical id.
func name(id string) string {
	if len(id) > 8 && strings.Trim(id[len(id)-8:], "0123456789ABCDEF") == "" {
		return id[:len(id)-8]
	}
	return id
}

func TestTemplate(t *testing.T) {
	const golden = "testdata/template.json"
	got := stack(t).text
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("the template changed; look at the difference, then run go test ./infra -update:\n%s", cmp.Diff(strings.Split(string(want), "\n"), strings.Split(string(got), "\n")))
	}
}

func TestEqualInputsGiveEqualTemplates(t *testing.T) {
	a := stack(t)
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if b := synth(c); !bytes.Equal(a.text, b.text) {
		t.Error(cmp.Diff(string(a.text), string(b.text)))
	}
}

// Every statement that allows something, of every role and policy in the template. What is not in this list is not
// allowed; whoever adds to it shows that it is meant.
func TestRights(t *testing.T) {
	tpl := stack(t)
	var got []string
	for _, id := range tpl.all("AWS::IAM::Policy") {
		p := tpl.Resources[id].Properties
		for _, s := range at(p, "PolicyDocument", "Statement").([]any) {
			if at(s, "Effect") != "Allow" {
				t.Errorf("%s: a statement that denies is not expected here", id)
			}
			right := spell(at(p, "Roles")) + ": " + spell(at(s, "Action")) + " on " + spell(at(s, "Resource"))
			if c := at(s, "Condition"); c != nil {
				right += fmt.Sprint(" if ", c)
			}
			got = append(got, right)
		}
	}
	slices.Sort(got)
	keys := func(kinds string) string {
		return " if map[ForAllValues:StringLike:map[dynamodb:LeadingKeys:[" + kinds + "]]]"
	}
	want := []string{
		"<CallbackRole>: dynamodb:DeleteItem dynamodb:PutItem on <Approvals>" + keys("grants#*"),
		"<CallbackRole>: dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("approval#*"),
		"<CallbackRole>: dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("known#* once#*"),
		"<CallbackRole>: dynamodb:GetItem dynamodb:UpdateItem on <Approvals>" + keys("link#*"),
		"<CallbackRole>: dynamodb:GetItem on <Approvals>" + keys("task#*"),
		"<CallbackRole>: dynamodb:Query on <Approvals>/index/list",
		"<CallbackRole>: logs:CreateLogStream logs:PutLogEvents on <CallbackLog>",
		"<CallbackRole>: s3:GetObject s3:GetObjectVersion on <Policies>/policy/*",
		"<CallbackRole>: s3:ListBucketVersions on <Policies> if map[StringEquals:map[s3:prefix:policy/current.yaml]]",
		"<CallbackRole>: secretsmanager:GetSecretValue on <Pages>",
		"<CallbackRole>: secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:111122223333:secret:sallyport/slack-??????",
		"<CallbackRole>: states:SendTaskSuccess on <Workflow>",
		"<CallbackRole>: xray:PutTelemetryRecords xray:PutTraceSegments on *", // AWS knows no resource for them
		"<ExchangeRole>: dynamodb:DeleteItem on <Approvals>" + keys("grants#*"),
		"<ExchangeRole>: dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("approval#*"),
		"<ExchangeRole>: dynamodb:GetItem dynamodb:PutItem dynamodb:UpdateItem on <Sessions>",
		"<ExchangeRole>: eks:DescribeCluster on arn:aws:eks:eu-west-1:111122223333:cluster/dev",
		"<ExchangeRole>: logs:CreateLogStream logs:PutLogEvents on <ExchangeLog>",
		"<ExchangeRole>: s3:GetObject s3:GetObjectVersion on <Policies>/policy/*",
		"<ExchangeRole>: s3:ListBucketVersions on <Policies> if map[StringEquals:map[s3:prefix:policy/current.yaml]]",
		"<ExchangeRole>: secretsmanager:GetSecretValue on <Masks>",
		"<ExchangeRole>: sts:AssumeRole sts:SetSourceIdentity sts:TagSession on arn:aws:iam::111122223333:role/sallyport/develop arn:aws:iam::111122223333:role/sallyport/maintain arn:aws:iam::111122223333:role/sallyport/observe arn:aws:iam::111122223333:role/sallyport/operate",
		"<ExchangeRole>: xray:PutTelemetryRecords xray:PutTraceSegments on *",
		"<NotifyRole>: dynamodb:DeleteItem on <Approvals>" + keys("grants#*"),
		"<NotifyRole>: dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("approval#*"),
		"<NotifyRole>: dynamodb:GetItem on <Approvals>" + keys("known#*"),
		"<NotifyRole>: dynamodb:PutItem dynamodb:Query on <Approvals>" + keys("sent#*"),
		"<NotifyRole>: dynamodb:PutItem on <Approvals>" + keys("link#* task#*"),
		"<NotifyRole>: logs:CreateLogStream logs:PutLogEvents on <NotifyLog>",
		"<NotifyRole>: s3:GetObject s3:GetObjectVersion on <Policies>/policy/*",
		"<NotifyRole>: s3:ListBucketVersions on <Policies> if map[StringEquals:map[s3:prefix:policy/current.yaml]]",
		"<NotifyRole>: secretsmanager:GetSecretValue on arn:aws:secretsmanager:eu-west-1:111122223333:secret:sallyport/slack-??????",
		"<NotifyRole>: ses:SendEmail on arn:aws:ses:eu-west-1:111122223333:identity/example.com arn:aws:ses:eu-west-1:111122223333:identity/sallyport@example.com if map[StringEquals:map[ses:FromAddress:sallyport@example.com]]",
		"<NotifyRole>: xray:PutTelemetryRecords xray:PutTraceSegments on *",
		"<PolicyWriterRole>: logs:CreateLogStream logs:PutLogEvents on <PolicyWriterLog>",
		"<PolicyWriterRole>: s3:PutObject on <Policies>/policy/*",
		"<ProxyRole>: lambda:InvokeFunction on <Exchange> <Review>",
		"<ProxyRole>: s3:GetObject s3:GetObjectVersion on <Policies>/policy/*",
		"<ProxyRole>: s3:PutObject on <Recordings>/refused/* <Recordings>/sessions/*",
		"<ProxyTaskExecutionRole>: ecr:BatchCheckLayerAvailability ecr:BatchGetImage ecr:GetDownloadUrlForLayer on arn:aws:ecr:eu-west-1:111122223333:repository/cdk-hnb659fds-container-assets-111122223333-eu-west-1",
		"<ProxyTaskExecutionRole>: ecr:GetAuthorizationToken on *", // AWS knows no resource for it
		"<ProxyTaskExecutionRole>: logs:CreateLogStream logs:PutLogEvents on <ProxyLog>",
		"<ReviewRole>: dynamodb:BatchGetItem dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("approval#*"),
		"<ReviewRole>: dynamodb:GetItem dynamodb:PutItem on <Approvals>" + keys("ask#* once#*"),
		"<ReviewRole>: dynamodb:GetItem on <Approvals>" + keys("known#*"),
		"<ReviewRole>: dynamodb:Query on <Approvals>" + keys("grants#*"),
		"<ReviewRole>: dynamodb:UpdateItem on <Approvals>" + keys("limit#*"),
		"<ReviewRole>: logs:CreateLogStream logs:PutLogEvents on <ReviewLog>",
		"<ReviewRole>: s3:GetObject s3:GetObjectVersion on <Policies>/policy/*",
		"<ReviewRole>: s3:ListBucketVersions on <Policies> if map[StringEquals:map[s3:prefix:policy/current.yaml]]",
		"<ReviewRole>: states:StartExecution on <Workflow>",
		"<ReviewRole>: xray:PutTelemetryRecords xray:PutTraceSegments on *",
		"<WorkflowRole>: lambda:InvokeFunction on <Notify>",
		"<WorkflowRole>: logs:CreateLogDelivery logs:DeleteLogDelivery logs:DescribeLogGroups logs:DescribeResourcePolicies logs:GetLogDelivery logs:ListLogDeliveries logs:PutResourcePolicy logs:UpdateLogDelivery xray:GetSamplingRules xray:GetSamplingTargets xray:PutTelemetryRecords xray:PutTraceSegments on *", // Step Functions wants these of a role that logs and traces
	}
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, id := range tpl.all("AWS::IAM::Role") {
		p := tpl.Resources[id].Properties
		if p["ManagedPolicyArns"] != nil || p["Policies"] != nil {
			t.Errorf("role %s has rights outside AWS::IAM::Policy", id)
		}
	}
	for _, typ := range []string{"AWS::IAM::ManagedPolicy", "AWS::IAM::RolePolicy", "AWS::IAM::User", "AWS::IAM::Group", "AWS::Lambda::Url"} {
		if ids := tpl.all(typ); ids != nil {
			t.Errorf("%s is not expected: %v", typ, ids)
		}
	}
}

// No statement anywhere that allows something does so for every action, every resource or every principal, but for the
// actions that AWS knows no resource for.
func TestNoWildcards(t *testing.T) {
	free := []string{
		"ecr:GetAuthorizationToken", "xray:PutTelemetryRecords", "xray:PutTraceSegments",
		// Of the workflow's role: how Step Functions delivers its log and its traces.
		"logs:CreateLogDelivery", "logs:DeleteLogDelivery", "logs:DescribeLogGroups", "logs:DescribeResourcePolicies", "logs:GetLogDelivery",
		"logs:ListLogDeliveries", "logs:PutResourcePolicy", "logs:UpdateLogDelivery", "xray:GetSamplingRules", "xray:GetSamplingTargets",
	}
	list := func(v any) []string {
		if l, ok := v.([]any); ok {
			var out []string
			for _, e := range l {
				out = append(out, spell(e))
			}
			return out
		}
		return []string{spell(v)}
	}
	n := 0
	var walk func(id string, v any)
	walk = func(id string, v any) {
		switch v := v.(type) {
		case []any:
			for _, e := range v {
				walk(id, e)
			}
		case map[string]any:
			for _, e := range v {
				walk(id, e)
			}
			if v["Effect"] != "Allow" {
				return
			}
			n++
			if v["NotAction"] != nil || v["NotResource"] != nil || v["NotPrincipal"] != nil {
				t.Errorf("%s allows all but something: %v", id, v)
			}
			actions := list(v["Action"])
			for _, a := range actions {
				if strings.Contains(a, "*") {
					t.Errorf("%s allows %s", id, a)
				}
			}
			for _, r := range list(v["Resource"]) {
				if r == "*" && slices.ContainsFunc(actions, func(a string) bool { return !slices.Contains(free, a) }) {
					t.Errorf("%s allows %v on everything", id, actions)
				}
			}
			if p := v["Principal"]; p == "*" || at(p, "AWS") == "*" {
				t.Errorf("%s allows everybody", id)
			}
		}
	}
	for id, r := range stack(t).Resources {
		walk(id, r.Properties)
	}
	if n < 20 {
		t.Errorf("only %d statements were looked at", n)
	}
}

func TestProcessesGetTheirSettings(t *testing.T) {
	tpl := stack(t)
	_, task := tpl.one(t, "AWS::ECS::TaskDefinition", "ProxyTask")
	proxy := map[string]string{}
	for _, e := range at(task.Properties, "ContainerDefinitions", 0, "Environment").([]any) {
		proxy[at(e, "Name").(string)] = spell(at(e, "Value"))
	}
	function := func(id string) map[string]string {
		_, f := tpl.one(t, "AWS::Lambda::Function", id)
		env := map[string]string{}
		for k, v := range at(f.Properties, "Environment", "Variables").(map[string]any) {
			env[k] = spell(v)
		}
		return env
	}
	for _, p := range []struct {
		name string
		want any
		got  map[string]string
	}{
		{"proxy", settings.Proxy{
			Listen: ":8443", MetricsListen: ":9090", ExchangeFunction: "<Exchange>", ReviewFunction: "<Review>", PolicyBucket: "<Policies>",
			RecordingsBucket: "<Recordings>", Drain: "100s", TrustForwardedFor: "true",
		}, proxy},
		{"exchange", settings.Exchange{Table: "<Sessions>", Approvals: "<Approvals>", PolicyBucket: "<Policies>", MaskSecret: settings.MaskSecret}, function("Exchange")},
		{"review", settings.Review{
			Approvals: "<Approvals>", PolicyBucket: "<Policies>", Workflow: "<Workflow>", ReviewsURL: "https://reviews.example.com",
		}, function("Review")},
		{"notify", settings.Notify{
			Approvals: "<Approvals>", PolicyBucket: "<Policies>", ReviewsURL: "https://reviews.example.com",
			SlackSecret: "sallyport/slack", MailFrom: "sallyport@example.com",
		}, function("Notify")},
		{"callback", settings.Callback{
			Approvals: "<Approvals>", PolicyBucket: "<Policies>", ReviewsURL: "https://reviews.example.com", PagesSecret: "sallyport/pages",
			SlackSecret: "sallyport/slack",
		}, function("Callback")},
	} {
		if d := cmp.Diff(settings.Environment(p.want), p.got); d != "" {
			t.Errorf("%s: %s", p.name, d)
		}
		for k, v := range p.got {
			if v == "" {
				t.Errorf("%s: %s is empty", p.name, k)
			}
		}
	}
}

// Every way in and out, and no other.
func TestOutputs(t *testing.T) {
	tpl := stack(t)
	for _, o := range []string{"LoadBalancerDNS", "GateURL", "ReviewsDNS", "ReviewsURL", "ReviewWorkflow", "Alarms", "ExchangeFunction", "SessionsTable", "ApprovalsTable", "PolicyBucket", "PolicyDigest", "RecordingsBucket", "LogsBucket"} {
		if tpl.Outputs[o] == nil {
			t.Errorf("output %s is missing", o)
		}
	}
}
