package main

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/settings"
)

// rights are the statements of every policy in the template, as role, action and resource.
func rights(t *testing.T, tpl template) (all []right) {
	t.Helper()
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
	for _, id := range tpl.all("AWS::IAM::Policy") {
		p := tpl.Resources[id].Properties
		for _, s := range at(p, "PolicyDocument", "Statement").([]any) {
			for _, role := range list(at(p, "Roles")) {
				for _, a := range list(at(s, "Action")) {
					for _, r := range list(at(s, "Resource")) {
						all = append(all, right{role, a, r, at(s, "Condition")})
					}
				}
			}
		}
	}
	if len(all) < 50 {
		t.Fatalf("only %d rights are found", len(all))
	}
	return all
}

type right struct {
	role, action, resource string
	condition              any
}

// Rights are as separate as the functions: each that matters has one holder.
func TestOneHolder(t *testing.T) {
	all := rights(t, stack(t))
	for _, c := range []struct {
		name    string
		pick    func(r right) bool
		holders []string
	}{
		{"assumes a tier's role", func(r right) bool { return strings.HasPrefix(r.action, "sts:") }, []string{"<ExchangeRole>"}},
		{"ends a task of the workflow", func(r right) bool { return strings.HasPrefix(r.action, "states:SendTask") }, []string{"<CallbackRole>"}},
		{"starts the workflow", func(r right) bool { return r.action == "states:StartExecution" }, []string{"<ReviewRole>"}},
		{"does anything else with the workflow", func(r right) bool {
			return strings.HasPrefix(r.action, "states:") && !strings.HasPrefix(r.action, "states:SendTask") && r.action != "states:StartExecution"
		}, nil},
		{"sends mail", func(r right) bool { return strings.HasPrefix(r.action, "ses:") }, []string{"<NotifyRole>"}},
		{"invokes exchange", func(r right) bool { return r.action == "lambda:InvokeFunction" && r.resource == "<Exchange>" }, []string{"<ProxyRole>"}},
		{"invokes review", func(r right) bool { return r.action == "lambda:InvokeFunction" && r.resource == "<Review>" }, []string{"<ProxyRole>"}},
		{"invokes notify", func(r right) bool { return r.action == "lambda:InvokeFunction" && r.resource == "<Notify>" }, []string{"<WorkflowRole>"}},
		{"invokes callback", func(r right) bool { return r.action == "lambda:InvokeFunction" && r.resource == "<Callback>" }, nil},
		{"reads the pages' secret", func(r right) bool { return strings.HasPrefix(r.action, "secretsmanager:") && r.resource == "<Pages>" }, []string{"<CallbackRole>"}},
		{"reads the masks' secret", func(r right) bool { return strings.HasPrefix(r.action, "secretsmanager:") && r.resource == "<Masks>" }, []string{"<ExchangeRole>"}},
		{"reads another secret", func(r right) bool {
			return strings.HasPrefix(r.action, "secretsmanager:") && r.resource != "<Pages>" && r.resource != "<Masks>"
		}, []string{"<CallbackRole>", "<NotifyRole>"}},
		{"reads a task's token", func(r right) bool { return reads(r, "task") }, []string{"<CallbackRole>"}},
		{"leaves a task's token", func(r right) bool { return writes(r, "task") }, []string{"<NotifyRole>"}},
		{"reads a mail's link", func(r right) bool { return reads(r, "link") }, []string{"<CallbackRole>"}},
		{"opens an approval", func(r right) bool { return writes(r, "ask") }, []string{"<ReviewRole>"}},
		{"gives a scope", func(r right) bool { return writes(r, "grants") }, []string{"<CallbackRole>"}},
		{"reaches the sessions", func(r right) bool { return strings.HasPrefix(r.resource, "<Sessions>") }, []string{"<ExchangeRole>"}},
		{"reaches the approvals", func(r right) bool { return strings.HasPrefix(r.resource, "<Approvals>") }, []string{"<CallbackRole>", "<ExchangeRole>", "<NotifyRole>", "<ReviewRole>"}},
		{"reaches a table by another name", func(r right) bool {
			return strings.HasPrefix(r.action, "dynamodb:") && !strings.HasPrefix(r.resource, "<Sessions>") && !strings.HasPrefix(r.resource, "<Approvals>")
		}, nil},
		{"deletes or scans", func(r right) bool {
			return regexp.MustCompile(`Delete|Scan|PartiQL`).MatchString(r.action) && !strings.HasPrefix(r.action, "logs:") && !ends(r)
		}, nil},
		{"puts a policy", func(r right) bool { return r.action == "s3:PutObject" && strings.HasPrefix(r.resource, "<Policies>") }, []string{"<PolicyWriterRole>"}},
	} {
		var got []string
		for _, r := range all {
			if c.pick(r) && !slices.Contains(got, r.role) {
				got = append(got, r.role)
			}
		}
		slices.Sort(got)
		if d := cmp.Diff(c.holders, got); d != "" {
			t.Errorf("who %s: %s", c.name, d)
		}
	}
}

// on says whether a right reaches the items of a kind: a right without leading keys reaches all of the table.
func on(r right, kind string) bool {
	if r.resource != "<Approvals>" {
		return false
	}
	keys, _ := at(r.condition, "ForAllValues:StringLike", "dynamodb:LeadingKeys").([]any)
	return len(keys) == 0 || slices.Contains(keys, any(kind+"#*"))
}

func reads(r right, kind string) bool {
	return on(r, kind) && !slices.Contains([]string{"dynamodb:DeleteItem", "dynamodb:PutItem", "dynamodb:UpdateItem"}, r.action)
}

func writes(r right, kind string) bool {
	return on(r, kind) && slices.Contains([]string{"dynamodb:PutItem", "dynamodb:UpdateItem"}, r.action)
}

// ends says whether a right is to take away what points at grants, which only ever takes power away.
func ends(r right) bool {
	keys, _ := at(r.condition, "ForAllValues:StringLike", "dynamodb:LeadingKeys").([]any)
	return r.action == "dynamodb:DeleteItem" && slices.Equal(keys, []any{"grants#*"})
}

// Every right on the table of approvals is for kinds of items that its layout has.
func TestLeadingKeys(t *testing.T) {
	kinds := []string{"approval", "ask", "grants", "task", "link", "sent", "limit", "once", "known"}
	seen := map[string]bool{}
	for _, r := range rights(t, stack(t)) {
		if r.resource != "<Approvals>" {
			continue
		}
		keys, _ := at(r.condition, "ForAllValues:StringLike", "dynamodb:LeadingKeys").([]any)
		if len(keys) == 0 || len(r.condition.(map[string]any)) != 1 {
			t.Errorf("%s may %s on all of the table: %v", r.role, r.action, r.condition)
		}
		for _, k := range keys {
			kind, ok := strings.CutSuffix(k.(string), "#*")
			if !ok || !slices.Contains(kinds, kind) {
				t.Errorf("%s may %s on %q, which is no kind of item", r.role, r.action, k)
			}
			seen[kind] = true
		}
	}
	for _, k := range kinds {
		if !seen[k] {
			t.Errorf("nobody may touch %q", k)
		}
	}
}

// A function, the workflow or the front is invoked by whom the template names, and a policy of a resource gives nothing else.
func TestInvokers(t *testing.T) {
	tpl := stack(t)
	var got []string
	for _, id := range tpl.all("AWS::Lambda::Permission") {
		p := tpl.Resources[id].Properties
		got = append(got, fmt.Sprint(spell(p["FunctionName"]), " by ", p["Principal"], " for ", spell(p["SourceArn"]), " ", p["Action"]))
	}
	slices.Sort(got)
	want := []string{
		"<Callback> by apigateway.amazonaws.com for arn:aws:execute-api:eu-west-1:111122223333:<Reviews>/*/* lambda:InvokeFunction",
		"<Notify> by events.amazonaws.com for <PolicyPut> lambda:InvokeFunction",
		"<Notify> by events.amazonaws.com for <PolicyTaken> lambda:InvokeFunction",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	_, role := tpl.one(t, "AWS::IAM::Role", "WorkflowRole")
	trust := []any{map[string]any{
		"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": map[string]any{"Service": "states.amazonaws.com"},
		"Condition": map[string]any{"StringEquals": map[string]any{
			"aws:SourceAccount": "111122223333", "aws:SourceArn": "arn:aws:states:eu-west-1:111122223333:stateMachine:sallyport-review",
		}},
	}}
	if d := cmp.Diff(trust, at(role.Properties, "AssumeRolePolicyDocument", "Statement")); d != "" {
		t.Error("the workflow's role:", d)
	}
}

func TestFunctions(t *testing.T) {
	tpl := stack(t)
	for id, f := range map[string]struct {
		name            string
		timeout, memory float64
	}{
		"Exchange": {"sallyport-exchange", 10, 256},
		"Review":   {"sallyport-review", 10, 512},
		"Notify":   {"sallyport-notify", 30, 256},
		"Callback": {"sallyport-callback", 10, 256},
	} {
		_, r := tpl.one(t, "AWS::Lambda::Function", id)
		for k, want := range map[string]any{
			"FunctionName": f.name, "Timeout": f.timeout, "MemorySize": f.memory,
			"Runtime": "provided.al2023", "Architectures": []any{"arm64"}, "Handler": "bootstrap",
			"TracingConfig": map[string]any{"Mode": "Active"}, "ReservedConcurrentExecutions": nil, "VpcConfig": nil, "Layers": nil,
		} {
			if d := cmp.Diff(want, r.Properties[k]); d != "" {
				t.Errorf("%s %s: %s", id, k, d)
			}
		}
		if got := spell(r.Properties["Role"]); got != "<"+id+"Role>" {
			t.Errorf("%s runs as %s", id, got)
		}
		if got := spell(at(r.Properties, "LoggingConfig", "LogGroup")); got != "<"+id+"Log>" {
			t.Errorf("%s logs to %s", id, got)
		}
	}
}

// The state machine is the file, byte for byte, and the one name it leaves open is filled in.
func TestWorkflow(t *testing.T) {
	tpl := stack(t)
	_, m := tpl.one(t, "AWS::StepFunctions::StateMachine", "Workflow")
	file, err := os.ReadFile(settings.WorkflowFile)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(file), m.Properties["DefinitionString"]); d != "" {
		t.Error(d)
	}
	filled := map[string]string{}
	for k, v := range m.Properties["DefinitionSubstitutions"].(map[string]any) {
		filled[k] = spell(v)
	}
	open := map[string]string{}
	for _, name := range regexp.MustCompile(`\$\{([^}]*)\}`).FindAllStringSubmatch(string(file), -1) {
		open[name[1]] = "<Notify>"
	}
	if d := cmp.Diff(open, filled); d != "" {
		t.Error("what the file leaves open is not what is filled in:", d)
	}
	for k, want := range map[string]any{
		"StateMachineName": settings.Workflow, "StateMachineType": "STANDARD", "TracingConfiguration": map[string]any{"Enabled": true},
	} {
		if d := cmp.Diff(want, m.Properties[k]); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
	log := m.Properties["LoggingConfiguration"]
	if at(log, "Level") != "ERROR" || at(log, "IncludeExecutionData") != false || spell(at(log, "Destinations", 0, "CloudWatchLogsLogGroup", "LogGroupArn")) != "<WorkflowLog>" {
		t.Errorf("log %v", log)
	}
	if spell(m.Properties["RoleArn"]) != "<WorkflowRole>" {
		t.Errorf("role %v", m.Properties["RoleArn"])
	}
}

func TestWorkflowElsewhere(t *testing.T) {
	if got := definition("cn-north-1"); strings.Contains(got, "arn:aws:") || !strings.Contains(got, `"arn:aws-cn:states:::lambda:invoke.waitForTaskToken"`) {
		t.Error("in China the workflow calls services of another partition")
	}
	if definition("eu-west-1") != workflow {
		t.Error("in Europe the workflow is not the file")
	}
}

// There is one way in, by the reviewers' own name over TLS, and it leads to one function.
func TestFront(t *testing.T) {
	tpl := stack(t)
	_, api := tpl.one(t, "AWS::ApiGatewayV2::Api", "Reviews")
	if api.Properties["ProtocolType"] != "HTTP" || api.Properties["DisableExecuteApiEndpoint"] != true || api.Properties["CorsConfiguration"] != nil {
		t.Errorf("api %v", api.Properties)
	}
	_, route := tpl.one(t, "AWS::ApiGatewayV2::Route", "")
	if route.Properties["RouteKey"] != "$default" {
		t.Errorf("route %v", route.Properties)
	}
	_, to := tpl.one(t, "AWS::ApiGatewayV2::Integration", "")
	if spell(to.Properties["IntegrationUri"]) != "<Callback>" || to.Properties["PayloadFormatVersion"] != "2.0" || to.Properties["IntegrationType"] != "AWS_PROXY" {
		t.Errorf("integration %v", to.Properties)
	}
	_, domain := tpl.one(t, "AWS::ApiGatewayV2::DomainName", "")
	if d := cmp.Diff(map[string]any{
		"DomainName": "reviews.example.com",
		"DomainNameConfigurations": []any{map[string]any{
			"CertificateArn": "arn:aws:acm:eu-west-1:111122223333:certificate/00000000-0000-0000-0000-000000000001",
			"EndpointType":   "REGIONAL", "SecurityPolicy": "TLS_1_2",
		}},
	}, domain.Properties); d != "" {
		t.Error(d)
	}
	_, mapped := tpl.one(t, "AWS::ApiGatewayV2::ApiMapping", "")
	if at(mapped.Properties, "Stage") != "$default" || at(mapped.Properties, "ApiMappingKey") != nil || spell(mapped.Properties["DomainName"]) != "<ReviewsDomain>" {
		t.Errorf("mapping %v", mapped.Properties)
	}
	_, stage := tpl.one(t, "AWS::ApiGatewayV2::Stage", "")
	if d := cmp.Diff(map[string]any{"ThrottlingBurstLimit": 100.0, "ThrottlingRateLimit": 50.0}, stage.Properties["DefaultRouteSettings"]); d != "" {
		t.Error(d)
	}
	log := stage.Properties["AccessLogSettings"]
	if spell(at(log, "DestinationArn")) != "<ReviewsLog>" {
		t.Errorf("access log %v", log)
	}
	format := at(log, "Format").(string)
	for _, leak := range []string{"$context.path", "$context.requestPath", "$context.routeKey", "authorizer", "header", "query"} {
		if strings.Contains(format, leak) {
			t.Errorf("the access log holds %s, in which a link may be", leak)
		}
	}
}

// Reviewers hear of a policy that is put into the bucket, or taken out, by whomever: nobody but S3 says so, and nothing of
// the stack's own that may change buckets is needed for it. What the function gets is what S3 itself would send.
func TestPolicyIsAnnounced(t *testing.T) {
	tpl := stack(t)
	bucket, r := tpl.one(t, "AWS::S3::Bucket", "Policies")
	if d := cmp.Diff(map[string]any{"EventBridgeConfiguration": map[string]any{"EventBridgeEnabled": true}}, r.Properties["NotificationConfiguration"]); d != "" {
		t.Error(d)
	}
	if ids := tpl.all("Custom::S3BucketNotifications"); ids != nil {
		t.Errorf("%v", ids)
	}
	for prefix, e := range map[string]struct{ detail, name string }{"PolicyPut": {"Object Created", "ObjectCreated"}, "PolicyTaken": {"Object Deleted", "ObjectRemoved"}} {
		id, rule := tpl.one(t, "AWS::Events::Rule", prefix)
		if d := cmp.Diff(map[string]any{
			"source": []any{"aws.s3"}, "detail-type": []any{e.detail},
			"detail": map[string]any{
				"bucket": map[string]any{"name": []any{map[string]any{"Ref": bucket}}},
				"object": map[string]any{"key": []any{settings.PolicyCurrent}},
			},
		}, rule.Properties["EventPattern"]); d != "" {
			t.Errorf("%s: %s", prefix, d)
		}
		targets := rule.Properties["Targets"].([]any)
		if len(targets) != 1 || spell(at(targets[0], "Arn")) != "<Notify>" || rule.Properties["State"] != "ENABLED" {
			t.Fatalf("%s: targets %v", prefix, targets)
		}
		// https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html
		var event any
		if err := json.Unmarshal([]byte(`{
			"version": "0", "id": "17793124-05d4-b198-2fde-7ededc63b103", "detail-type": "`+e.detail+`", "source": "aws.s3",
			"account": "111122223333", "time": "2021-11-12T00:00:00Z", "region": "eu-west-1", "resources": ["arn:aws:s3:::policies"],
			"detail": {
				"version": "0", "bucket": {"name": "policies"}, "request-id": "N4N7GDK58NMKJ12R", "requester": "123456789012",
				"object": {"key": "policy/current.yaml", "size": 5, "etag": "b1946ac92492d2347c6235b4d2611184", "version-id": "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", "sequencer": "617f08299329d189"},
				"source-ip-address": "1.2.3.4", "reason": "PutObject"
			}
		}`), &event); err != nil {
			t.Fatal(err)
		}
		text := at(targets[0], "InputTransformer", "InputTemplate").(string)
		for k, path := range at(targets[0], "InputTransformer", "InputPathsMap").(map[string]any) {
			v := event
			for _, p := range strings.Split(strings.TrimPrefix(path.(string), "$."), ".") {
				v = at(v, p)
			}
			b, err := json.Marshal(v)
			if err != nil || v == nil {
				t.Fatalf("%s: the event has no %s", prefix, path)
			}
			text = strings.ReplaceAll(text, "<"+k+">", string(b))
		}
		var got events.S3Event
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Fatalf("%s: %v in %s", prefix, err, text)
		}
		want := events.S3EventRecord{
			EventSource: "aws:s3", EventName: e.name, EventTime: time.Date(2021, 11, 12, 0, 0, 0, 0, time.UTC),
			PrincipalID: events.S3UserIdentity{PrincipalID: "123456789012"},
			S3: events.S3Entity{
				Bucket: events.S3Bucket{Name: "policies"},
				Object: events.S3Object{
					Key: settings.PolicyCurrent, URLDecodedKey: settings.PolicyCurrent, VersionID: "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e", Sequencer: "617f08299329d189",
				},
			},
		}
		if d := cmp.Diff([]events.S3EventRecord{want}, got.Records); d != "" {
			t.Errorf("%s: %s", prefix, d)
		}
		// Also of the one that is deployed first.
		if _, current := tpl.one(t, "Custom::SallyportPolicy", "PolicyCurrent"); !slices.Contains(current.DependsOn, id) {
			t.Errorf("%s: the first policy is put before anybody would be told", prefix)
		}
	}
}

// Keys are made once, by nobody, and outlive the stack.
func TestKeys(t *testing.T) {
	tpl := stack(t)
	for id, want := range map[string][2]string{
		"Pages": {settings.PagesSecret, "Seals the cookies and links of the reviewers' pages"},
		"Masks": {settings.MaskSecret, "What masks of secrets are made with, a key a session"},
	} {
		_, s := tpl.one(t, "AWS::SecretsManager::Secret", id)
		if d := cmp.Diff(map[string]any{
			"Name": want[0], "Description": want[1],
			"GenerateSecretString": map[string]any{"SecretStringTemplate": "{}", "GenerateStringKey": "key", "PasswordLength": 64.0, "ExcludePunctuation": true},
		}, s.Properties); d != "" {
			t.Error(d)
		}
		if s.DeletionPolicy != "Retain" {
			t.Errorf("secret %s goes with the stack", id)
		}
	}
}

func TestAlarms(t *testing.T) {
	tpl := stack(t)
	var got, names []string
	for _, id := range tpl.all("AWS::CloudWatch::Alarm") {
		p := tpl.Resources[id].Properties
		got = append(got, fmt.Sprint(p["Namespace"], " ", p["MetricName"], " ", spell(at(p, "Dimensions", 0, "Value")), " ", p["Statistic"], " ", p["Threshold"], " ", p["TreatMissingData"]))
		names = append(names, p["AlarmName"].(string))
	}
	slices.Sort(got)
	want := []string{
		"AWS/Lambda Errors <Callback> Sum 1 notBreaching",
		"AWS/Lambda Errors <Notify> Sum 3 notBreaching",
		"AWS/Lambda Throttles <Callback> Sum 1 notBreaching",
		"AWS/Lambda Throttles <Notify> Sum 1 notBreaching",
		"AWS/States ExecutionsFailed <Workflow> Sum 1 notBreaching",
		"AWS/States ExecutionsTimedOut <Workflow> Sum 1 notBreaching",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	out := strings.Fields(at(tpl.Outputs["Alarms"], "Value").(string))
	slices.Sort(out)
	slices.Sort(names)
	if d := cmp.Diff(names, out); d != "" {
		t.Error(d)
	}
}

// A channel that the deployment leaves out is one that no right and no setting is there for.
func TestChannelsLeftOut(t *testing.T) {
	stack(t)
	load := func(change func(*Config)) template {
		c, err := LoadConfig("deployment.yaml")
		if err != nil {
			t.Fatal(err)
		}
		change(c)
		return synth(c)
	}
	env := func(tpl template, id, name string) any {
		_, f := tpl.one(t, "AWS::Lambda::Function", id)
		return at(f.Properties, "Environment", "Variables", name)
	}
	tpl := load(func(c *Config) { c.Reviews.Mail.From = "" })
	for _, r := range rights(t, tpl) {
		if strings.HasPrefix(r.action, "ses:") {
			t.Errorf("without mail %s may %s", r.role, r.action)
		}
	}
	if v := env(tpl, "Notify", "SALLYPORT_MAIL_FROM"); v != nil {
		t.Errorf("without mail notify sends as %v", v)
	}
	tpl = load(func(c *Config) { c.Reviews.Slack.Secret = "" })
	for _, r := range rights(t, tpl) {
		if strings.HasPrefix(r.action, "secretsmanager:") && r.resource != "<Pages>" && r.resource != "<Masks>" {
			t.Errorf("without Slack %s may %s of %s", r.role, r.action, r.resource)
		}
	}
	for _, id := range []string{"Notify", "Callback"} {
		if v := env(tpl, id, "SALLYPORT_SLACK_SECRET"); v != nil {
			t.Errorf("without Slack %s reads %v", id, v)
		}
	}
}
