package stack

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	runtime "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/google/go-cmp/cmp"

	localaws "sallyport/local/aws"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

// TestMain lets this binary be function notify: it writes down what it was told, and answers for the reviewers.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_FUNCTION_NAME") == "" {
		os.Exit(m.Run())
	}
	runtime.Start(func(ctx context.Context, in map[string]any) error {
		set, err := settings.From[settings.Notify](os.Getenv)
		if err != nil {
			return err
		}
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return err
		}
		kind, _ := in["kind"].(string)
		told, _ := json.Marshal(in)
		if _, err := dynamodb.NewFromConfig(cfg).PutItem(ctx, &dynamodb.PutItemInput{TableName: &set.Approvals, Item: map[string]ddb.AttributeValue{
			"pk": &ddb.AttributeValueMemberS{Value: "told"}, "sk": &ddb.AttributeValueMemberS{Value: kind}, "text": &ddb.AttributeValueMemberS{Value: string(told)},
			"list": &ddb.AttributeValueMemberS{Value: "told"}, "opened": &ddb.AttributeValueMemberS{Value: kind}}}); err != nil {
			return err
		}
		if token, ok := in["token"].(string); ok {
			_, err = sfn.NewFromConfig(cfg).SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{TaskToken: &token, Output: aws.String("{}")})
		}
		return err
	})
}

// The deployed definitions are taken by what plays AWS here: table, index, secrets, workflow, and the functions' settings.
func TestProvision(t *testing.T) {
	python := os.Getenv("SALLYPORT_MOTO_PYTHON")
	if testing.Short() || python == "" {
		t.Skip("needs moto: set SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh), and leave out -short")
	}
	dist := t.TempDir()
	for _, name := range []string{"exchange", "review", "notify", "callback"} {
		if err := os.MkdirAll(filepath.Join(dist, name), 0o700); err != nil {
			t.Fatal(err)
		}
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(self, filepath.Join(dist, name, "bootstrap")); err != nil {
			t.Fatal(err)
		}
	}
	functions := Functions(dist, "http://localhost:1", "http://127.0.0.1:2/api/")
	for n, f := range functions {
		if want := []string{settings.ExchangeFunction, settings.ReviewFunction, settings.NotifyFunction, settings.CallbackFunction}[n]; f.Name != want || f.Role != rolePrefix+want {
			t.Errorf("function %s has role %s", f.Name, f.Role)
		}
	}
	s, err := localaws.Start(t.Context(), localaws.Config{Dir: t.TempDir(), Python: python, Region: Region, AccountID: Account, Principals: Principals(), Functions: functions, Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	u := &start{Stack: &Stack{Root: root}, slack: Slack{SigningSecret: "sign", BotToken: "xoxb-1"}}
	u.d.AWS.Endpoint, u.d.Policy.File = s.URL, filepath.Join(t.TempDir(), "policy.yaml")
	adopted, err := adopt(deployed(t), own, Cluster)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFile(u.d.Policy.File, adopted); err != nil {
		t.Fatal(err)
	}
	if err := u.provision(t.Context()); err != nil {
		t.Fatal(err)
	}

	cfg := DeployerConfig(s.URL)
	for name, fields := range map[string][]string{settings.SlackSecret: {"signing_secret", "bot_token"}, settings.PagesSecret: {"key"}, settings.MaskSecret: {"key"}} {
		out, err := secretsmanager.NewFromConfig(cfg).GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: &name})
		if err != nil {
			t.Fatal(err)
		}
		var got map[string]string
		if err := json.Unmarshal([]byte(aws.ToString(out.SecretString)), &got); err != nil || len(got) != len(fields) {
			t.Errorf("secret %s: %v", name, err)
		}
		for _, f := range fields {
			if got[f] == "" || f == "key" && len(got[f]) < 32 {
				t.Errorf("secret %s has no %s", name, f)
			}
		}
	}
	if _, err := sesv2.NewFromConfig(cfg).GetEmailIdentity(t.Context(), &sesv2.GetEmailIdentityInput{EmailIdentity: aws.String(mailFrom)}); err != nil {
		t.Error(err)
	}
	var inForce []byte
	if _, err := policystore.Follow(policystore.Store{Client: s3.NewFromConfig(cfg, policystore.PathStyle), Bucket: PolicyBucket}, func(_ string, b []byte) error {
		inForce = b
		return nil
	}).Look(t.Context()); err != nil || string(inForce) != string(adopted) {
		t.Errorf("the policy in force: %v", err)
	}

	steps := sfn.NewFromConfig(cfg)
	x, err := steps.StartExecution(t.Context(), &sfn.StartExecutionInput{StateMachineArn: aws.String(workflowARN), Name: aws.String("abc"), Input: aws.String(
		`{"approval":"abc","ask":{"seconds":60,"then":"expire"},"remind":{"seconds":1,"then":"expire"},"escalate":{"seconds":1,"then":"expire"}}`)})
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		d, err := steps.DescribeExecution(t.Context(), &sfn.DescribeExecutionInput{ExecutionArn: x.ExecutionArn})
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v: %+v", err, d)
		}
		if d.Status != "RUNNING" {
			if d.Status != "SUCCEEDED" {
				t.Errorf("the workflow ended as %s: %s %s", d.Status, aws.ToString(d.Error), aws.ToString(d.Cause))
			}
			break
		}
	}
	// What notify was told, by the index.
	i := settings.Approvals.Index
	out, err := dynamodb.NewFromConfig(cfg).Query(t.Context(), &dynamodb.QueryInput{TableName: &settings.Approvals.Name, IndexName: &i.Name, KeyConditionExpression: aws.String("#p = :p"),
		ExpressionAttributeNames: map[string]string{"#p": i.PartitionKey}, ExpressionAttributeValues: map[string]ddb.AttributeValue{":p": &ddb.AttributeValueMemberS{Value: "told"}}})
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, item := range out.Items {
		kinds = append(kinds, item["opened"].(*ddb.AttributeValueMemberS).Value)
	}
	if d := cmp.Diff([]string{"ask", "outcome"}, kinds); d != "" {
		t.Error(d)
	}
	if err := CreateWorkflow(t.Context(), steps, []byte(`{"StartAt":"${Elsewhere}"}`)); err == nil {
		t.Error("a placeholder that nobody knows is left")
	}
}

// Another task needs a stack.
func TestAddProxyWithoutStack(t *testing.T) {
	s := &Stack{Root: t.TempDir()}
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := s.AddProxy(t.Context()); err == nil {
		t.Error("a task of a proxy without a stack")
	}
}

// The stack is up without the tasks that were added, and not without its own processes.
func TestRunning(t *testing.T) {
	s := &Stack{Root: t.TempDir()}
	if err := os.MkdirAll(s.path(), 0o700); err != nil {
		t.Fatal(err)
	}
	here := process{Name: "here", PID: os.Getpid(), Start: started(os.Getpid())}
	gone := process{Name: "gone", PID: os.Getpid(), Start: "0"}
	extra := gone
	extra.Extra = true
	for _, test := range []struct {
		all  []process
		want bool
	}{{nil, false}, {[]process{here}, true}, {[]process{here, gone}, false}, {[]process{here, extra}, true}} {
		if err := writeJSON(s.path("stack.json"), Description{}); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(s.path("processes.json"), test.all); err != nil {
			t.Fatal(err)
		}
		if got := s.Running(); got != test.want {
			t.Errorf("%+v: %v", test.all, got)
		}
	}
}
