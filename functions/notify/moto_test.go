package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	lambdaruntime "github.com/aws/aws-lambda-go/lambda"
	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	sfntypes "github.com/aws/aws-sdk-go-v2/service/sfn/types"

	wire "sallyport/shared/broker"

	"sallyport/local/aws"
	"sallyport/local/aws/lambda"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/slack/slacktest"
	"sallyport/shared/store"
)

const (
	region = "eu-west-1"
	flaky  = "notify-that-fails" // at asking; it can write down that it did
	dead   = "notify-without-a-table"
)

// TestMain lets this binary be the function, as it is deployed, and two that are in trouble.
func TestMain(m *testing.M) {
	switch os.Getenv("AWS_LAMBDA_FUNCTION_NAME") {
	case settings.NotifyFunction, dead:
		main()
	case flaky:
		n, err := start(context.Background(), slog.New(slog.NewJSONHandler(os.Stderr, nil)))
		if err != nil {
			panic(err)
		}
		lambdaruntime.Start(func(ctx context.Context, event json.RawMessage) (any, error) {
			if strings.Contains(string(event), `"ask"`) {
				return nil, fmt.Errorf("out of order")
			}
			return n.handle(ctx, event)
		})
	default:
		os.Exit(m.Run())
	}
}

type account struct {
	t         *testing.T
	sdk       sdk.Config
	sfn       *sfn.Client
	approvals *store.Approvals
	slack     *slacktest.Server
	machines  map[string]string // by function
}

func newAccount(t *testing.T) *account {
	python := os.Getenv("SALLYPORT_MOTO_PYTHON")
	if python == "" || testing.Short() {
		t.Skip("needs moto: set SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh)")
	}
	a := &account{t: t, slack: slacktest.New(), machines: map[string]string{}}
	t.Cleanup(a.slack.Close)
	const bucket = "sallyport-policy"
	function := func(name, table string) aws.Function {
		return aws.Function{Role: "arn:aws:iam::" + aws.DefaultAccountID + ":role/notify", Function: lambda.Function{Name: name, Binary: os.Args[0], Timeout: 30 * time.Second,
			Env: settings.Environment(settings.Notify{Approvals: table, PolicyBucket: bucket, ReviewsURL: "https://reviews.example.com",
				SlackSecret: settings.SlackSecret, SlackURL: a.slack.URL, MailFrom: "approvals@example.com"})}}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := aws.Start(ctx, aws.Config{Dir: t.TempDir(), Python: python, Region: region, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Functions: []aws.Function{function(settings.NotifyFunction, settings.Approvals.Name), function(flaky, settings.Approvals.Name), function(dead, "no-table")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	a.sdk = sdk.Config{Region: region, BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""), RetryMaxAttempts: 1}
	a.sfn = sfn.NewFromConfig(a.sdk)
	a.tables()
	a.approvals = store.NewApprovals(dynamodb.NewFromConfig(a.sdk), settings.Approvals.Name)
	a.policy(bucket)
	if _, err := secretsmanager.NewFromConfig(a.sdk).CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: sdk.String(settings.SlackSecret),
		SecretString: sdk.String(fmt.Sprintf(`{"signing_secret": "s", "bot_token": %q}`, slacktest.Token))}); err != nil {
		t.Fatal(err)
	}
	if _, err := sesv2.NewFromConfig(a.sdk).CreateEmailIdentity(t.Context(), &sesv2.CreateEmailIdentityInput{EmailIdentity: sdk.String("approvals@example.com")}); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]*strings.Replacer{
		settings.NotifyFunction: strings.NewReplacer(),
		flaky:                   strings.NewReplacer(`"MaxAttempts": 6`, `"MaxAttempts": 2`, `"MaxDelaySeconds": 20`, `"MaxDelaySeconds": 1`),
		dead:                    strings.NewReplacer(`"MaxAttempts": 6`, `"MaxAttempts": 1`, `"IntervalSeconds": 5`, `"IntervalSeconds": 1`),
	} {
		arn := "arn:aws:lambda:" + region + ":" + aws.DefaultAccountID + ":function:" + name
		text := change.Replace(strings.ReplaceAll(string(definition(t)), "${NotifyFunction}", arn))
		out, err := a.sfn.CreateStateMachine(t.Context(), &sfn.CreateStateMachineInput{Name: sdk.String("review-" + name), RoleArn: sdk.String("arn:aws:iam::" + aws.DefaultAccountID + ":role/review"), Definition: &text})
		if err != nil {
			t.Fatal(err)
		}
		a.machines[name] = *out.StateMachineArn
	}
	return a
}

func (a *account) tables() {
	x := settings.Approvals
	name := func(keys ...string) (schema []ddb.KeySchemaElement) {
		for i, k := range keys {
			schema = append(schema, ddb.KeySchemaElement{AttributeName: &k, KeyType: []ddb.KeyType{ddb.KeyTypeHash, ddb.KeyTypeRange}[i]})
		}
		return schema
	}
	var attributes []ddb.AttributeDefinition
	for _, k := range []string{x.PartitionKey, x.SortKey, x.Index.PartitionKey, x.Index.SortKey} {
		attributes = append(attributes, ddb.AttributeDefinition{AttributeName: &k, AttributeType: ddb.ScalarAttributeTypeS})
	}
	if _, err := dynamodb.NewFromConfig(a.sdk).CreateTable(a.t.Context(), &dynamodb.CreateTableInput{TableName: &x.Name, BillingMode: ddb.BillingModePayPerRequest,
		KeySchema: name(x.PartitionKey, x.SortKey), AttributeDefinitions: attributes,
		GlobalSecondaryIndexes: []ddb.GlobalSecondaryIndex{{IndexName: &x.Index.Name, KeySchema: name(x.Index.PartitionKey, x.Index.SortKey), Projection: &ddb.Projection{ProjectionType: ddb.ProjectionTypeAll}}},
	}); err != nil {
		a.t.Fatal(err)
	}
}

func (a *account) policy(bucket string) {
	c := s3.NewFromConfig(a.sdk, policystore.PathStyle)
	if _, err := c.CreateBucket(a.t.Context(), &s3.CreateBucketInput{Bucket: &bucket, CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region}}); err != nil {
		a.t.Fatal(err)
	}
	if _, err := c.PutBucketVersioning(a.t.Context(), &s3.PutBucketVersioningInput{Bucket: &bucket, VersioningConfiguration: &s3types.VersioningConfiguration{Status: s3types.BucketVersioningStatusEnabled}}); err != nil {
		a.t.Fatal(err)
	}
	for _, text := range []string{policyText, strings.Replace(policyText, "name: deletes", "name: all-deletes", 1)} {
		if _, err := c.PutObject(a.t.Context(), &s3.PutObjectInput{Bucket: &bucket, Key: sdk.String(settings.PolicyCurrent), Body: strings.NewReader(text)}); err != nil {
			a.t.Fatal(err)
		}
	}
}

// open opens an approval that stands for a while.
func (a *account) open(t *testing.T, expires time.Duration) access.Approval {
	t.Helper()
	now := time.Now().UTC().Truncate(time.Millisecond)
	id := access.Digest(t.Name(), fmt.Sprint(rand.Int()))
	got, _, err := a.approvals.Open(t.Context(), approval.New(approval.Ask{
		ID: id, Digest: id, Principal: access.Principal{Issuer: "https://idp.example.com", Subject: "bot", Agent: "bot"}, Session: "s", Request: "r", Cluster: "dev",
		Action: access.Action{Verb: "delete", Resource: "pods", Namespace: "dev", Name: "web-0"}, Kubectl: "kubectl delete pod web-0 -n dev", Sentence: "Delete pod web-0 in dev.", Now: now,
		Decision: access.Decision{Effect: access.Ask, Rule: "deletes", Tier: "operate", Obligations: access.Obligations{Reviewers: []string{"sre"}, Quorum: 1, Expires: expires,
			Grant: access.Grant{Scope: access.ScopeRequest}, Links: "login", Remind: expires / 3, Escalate: access.Escalate{After: expires * 2 / 3, Reviewers: []string{"leads"}}}},
	}), access.View{}, func(access.Approval) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func (a *account) start(t *testing.T, function string, x wire.Execution) string {
	t.Helper()
	in, err := json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	out, err := a.sfn.StartExecution(t.Context(), &sfn.StartExecutionInput{StateMachineArn: sdk.String(a.machines[function]), Name: &x.Approval, Input: sdk.String(string(in))})
	if err != nil {
		t.Fatal(err)
	}
	return *out.ExecutionArn
}

// ended waits until an execution has.
func (a *account) ended(t *testing.T, arn string, within time.Duration) *sfn.DescribeExecutionOutput {
	t.Helper()
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		out, err := a.sfn.DescribeExecution(t.Context(), &sfn.DescribeExecutionInput{ExecutionArn: &arn})
		if err != nil {
			t.Fatal(err)
		}
		if out.Status != sfntypes.ExecutionStatusRunning {
			return out
		}
		if time.Since(began) > within {
			t.Fatalf("still running after %v", within)
		}
	}
}

// until waits until an approval is so.
func (a *account) until(t *testing.T, id string, so func(access.Approval) bool) access.Approval {
	t.Helper()
	for began := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		got, err := a.approvals.Get(t.Context(), id)
		if err != nil {
			t.Fatal(err)
		}
		if so(got) {
			return got
		}
		if time.Since(began) > 20*time.Second {
			t.Fatalf("it never became so: %+v", got)
		}
	}
}

// decide does what function callback does: the decision first, then the token, and then the task, as well as may be.
func (a *account) decide(t *testing.T, id string) {
	t.Helper()
	if _, err := a.approvals.Update(t.Context(), id, func(a *access.Approval) error {
		return approval.Vote(a, approval.Roster{{Name: "sre", People: []string{"ana@example.com"}}},
			access.Vote{By: access.Reviewer{Email: "ana@example.com", Channel: "page"}, Yes: true, Grant: access.Grant{Scope: access.ScopeRequest}}, time.Now().UTC().Truncate(time.Millisecond))
	}); err != nil {
		t.Fatal(err)
	}
	token, found, err := a.approvals.Task(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if found {
		_, err := a.sfn.SendTaskSuccess(t.Context(), &sfn.SendTaskSuccessInput{TaskToken: &token, Output: sdk.String("{}")})
		t.Logf("the task of %s ended: %v", id, err)
	}
}

func (a *account) message(id string) slacktest.Message {
	all := a.slack.Messages()
	i := slices.IndexFunc(all, func(m slacktest.Message) bool { return strings.Contains(m.All(), "/approvals/"+id+">") })
	if i < 0 {
		return slacktest.Message{}
	}
	return all[i]
}

func what(a access.Approval) (out []string) {
	for _, h := range a.History {
		if len(out) == 0 || out[len(out)-1] != h.What {
			out = append(out, h.What)
		}
	}
	return out
}

// The workflow, the function and their services, as they are deployed, on moto.
func TestWorkflowRuns(t *testing.T) {
	a := newAccount(t)
	t.Cleanup(func() {
		for _, wrong := range a.slack.Wrong() {
			t.Error(wrong)
		}
	})
	t.Run("decided", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 5*time.Minute)
		arn := a.start(t, settings.NotifyFunction, wire.NewExecution(x, time.Now()))
		x = a.until(t, x.ID, func(a access.Approval) bool { return !a.Notified.IsZero() })
		t.Logf("from the start to the first who was reached: %v", x.Notified.Sub(x.Opened))
		a.decide(t, x.ID)
		if out := a.ended(t, arn, 5*time.Second); out.Status != sfntypes.ExecutionStatusSucceeded {
			t.Fatalf("%s: %s", out.Status, sdk.ToString(out.Cause))
		}
		if m := a.message(x.ID); m.Updates != 1 || len(m.Actions()) > 0 || !strings.Contains(m.All(), "Approved once by ana@example.com") {
			t.Errorf("%+v", m)
		}
		sent, err := a.approvals.Sent(t.Context(), x.ID)
		if err != nil || len(sent) != 4 {
			t.Errorf("%v, %v", sent, err) // Slack, and three mails that SES took
		}
		history, err := a.sfn.GetExecutionHistory(t.Context(), &sfn.GetExecutionHistoryInput{ExecutionArn: &arn})
		if err != nil {
			t.Fatal(err)
		}
		token, _, _ := a.approvals.Task(t.Context(), x.ID)
		for _, e := range history.Events {
			if d := e.StateExitedEventDetails; d != nil && (strings.Contains(sdk.ToString(d.Output), token) || token == "") {
				t.Errorf("the token is in the output of %s", *d.Name)
			}
		}
	})
	t.Run("decided before it started", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 5*time.Minute)
		a.decide(t, x.ID)
		arn := a.start(t, settings.NotifyFunction, wire.NewExecution(x, time.Now()))
		if out := a.ended(t, arn, 10*time.Second); out.Status != sfntypes.ExecutionStatusSucceeded {
			t.Fatalf("%s: %s", out.Status, sdk.ToString(out.Cause))
		}
		if m := a.message(x.ID); m.TS != "" {
			t.Errorf("asked what was decided: %+v", m)
		}
	})
	// Whenever the decision falls, between the start, the token, the messages and their end: the execution ends soon.
	t.Run("decided in between", func(t *testing.T) {
		t.Parallel()
		var wg sync.WaitGroup
		for i := range 12 {
			x := a.open(t, 5*time.Minute)
			arn := a.start(t, settings.NotifyFunction, wire.NewExecution(x, time.Now()))
			wg.Go(func() {
				if i%3 == 0 { // the moment the token is there
					for found := false; !found && t.Context().Err() == nil; {
						_, found, _ = a.approvals.Task(t.Context(), x.ID)
					}
				} else {
					time.Sleep(time.Duration(i) * 25 * time.Millisecond)
				}
				a.decide(t, x.ID)
				if out := a.ended(t, arn, 20*time.Second); out.Status != sfntypes.ExecutionStatusSucceeded {
					t.Errorf("%s: %s", out.Status, sdk.ToString(out.Cause))
				}
				if got := a.until(t, x.ID, func(access.Approval) bool { return true }); got.State != access.StateApproved {
					t.Error(got.State)
				}
				if m := a.message(x.ID); len(m.Actions()) > 0 {
					t.Errorf("buttons are left: %+v", m)
				}
			})
		}
		wg.Wait()
	})
	t.Run("nobody answers", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 9*time.Second)
		input := wire.NewExecution(x, time.Now())
		arn := a.start(t, settings.NotifyFunction, input)
		if out := a.ended(t, arn, 30*time.Second); out.Status != sfntypes.ExecutionStatusSucceeded {
			t.Fatalf("%s: %s", out.Status, sdk.ToString(out.Cause))
		}
		got := a.until(t, x.ID, func(access.Approval) bool { return true })
		diff(t, []string{"opened", "notified", "reminded", "escalated", "notified", "expired"}, what(got))
		if got.State != access.StateExpired || !slices.Equal(got.Reviewers, []string{"sre", "leads"}) {
			t.Errorf("%s, %q", got.State, got.Reviewers)
		}
		for _, m := range a.slack.Messages() {
			if strings.Contains(m.All(), x.ID) && (len(m.Actions()) > 0 || !strings.Contains(m.All(), "Expired without an answer")) {
				t.Errorf("%+v", m)
			}
		}
	})
	t.Run("answered after the reminder", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 6*time.Second)
		arn := a.start(t, settings.NotifyFunction, wire.Execution{Approval: x.ID, Ask: wire.Wait{Seconds: 1, Then: wire.StepRemind}, Remind: wire.Wait{Seconds: 300, Then: wire.StepExpire}, Escalate: wire.Wait{Seconds: 1, Then: wire.StepExpire}})
		a.until(t, x.ID, func(a access.Approval) bool { return slices.Contains(what(a), "reminded") })
		a.decide(t, x.ID)
		if out := a.ended(t, arn, 10*time.Second); out.Status != sfntypes.ExecutionStatusSucceeded {
			t.Fatalf("%s: %s", out.Status, sdk.ToString(out.Cause))
		}
	})
	t.Run("notify fails", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 5*time.Minute)
		arn := a.start(t, flaky, wire.NewExecution(x, time.Now()))
		if out := a.ended(t, arn, 30*time.Second); out.Status != sfntypes.ExecutionStatusFailed || sdk.ToString(out.Error) != "NotifyFailed" {
			t.Fatalf("%s: %s %s", out.Status, sdk.ToString(out.Error), sdk.ToString(out.Cause))
		}
		got := a.until(t, x.ID, func(access.Approval) bool { return true })
		if got.State != access.StateDenied || !strings.Contains(got.Message, "function notify failed") {
			t.Errorf("%s: %s", got.State, got.Message)
		}
		diff(t, []string{"opened", "failed", "denied"}, what(got))
		history, err := a.sfn.GetExecutionHistory(t.Context(), &sfn.GetExecutionHistoryInput{ExecutionArn: &arn})
		if err != nil {
			t.Fatal(err)
		}
		tries := 0
		for _, e := range history.Events {
			if e.Type == sfntypes.HistoryEventTypeTaskFailed {
				tries++
			}
		}
		if tries != 3 {
			t.Errorf("it was tried %d times", tries)
		}
	})
	t.Run("nothing works", func(t *testing.T) {
		t.Parallel()
		x := a.open(t, 5*time.Minute)
		arn := a.start(t, dead, wire.NewExecution(x, time.Now()))
		if out := a.ended(t, arn, 40*time.Second); out.Status != sfntypes.ExecutionStatusFailed || sdk.ToString(out.Error) != "NotifyFailed" {
			t.Fatalf("%s: %s %s", out.Status, sdk.ToString(out.Error), sdk.ToString(out.Cause))
		}
	})
	t.Run("policy", func(t *testing.T) {
		t.Parallel()
		ids, err := files{client: s3.NewFromConfig(a.sdk, policystore.PathStyle), bucket: "sallyport-policy"}.Versions(t.Context())
		if err != nil || len(ids) != 2 {
			t.Fatal(ids, err)
		}
		event, err := os.ReadFile("../../events/notify/policy.json")
		if err != nil {
			t.Fatal(err)
		}
		event = []byte(strings.Replace(string(event), `"v2"`, fmt.Sprintf("%q", ids[0]), 1))
		out, err := lambdaapi.NewFromConfig(a.sdk).Invoke(t.Context(), &lambdaapi.InvokeInput{FunctionName: sdk.String(settings.NotifyFunction), Payload: event})
		if err != nil || out.FunctionError != nil {
			t.Fatalf("%v %s", err, out.Payload)
		}
		told := 0
		for _, m := range a.slack.Messages() {
			if strings.Contains(m.All(), "+ rule all-deletes, which says ask\n- rule deletes, which said ask") && strings.Contains(m.All(), ids[0]) {
				told++
			}
		}
		if told != 2 {
			t.Errorf("%d channels were told: %+v", told, a.slack.Messages())
		}
	})
}
