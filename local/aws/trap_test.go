package aws_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	ses "github.com/aws/aws-sdk-go-v2/service/sesv2/types"
	"github.com/aws/aws-sdk-go-v2/service/sfn"

	"sallyport/local/aws"
	"sallyport/local/aws/lambda"
	"sallyport/local/inbox"
)

// remember is a function that changes a secret, mails, and says what was asked.
func remember(ctx context.Context, in struct{ Value string }) (string, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return "", err
	}
	c := secretsmanager.NewFromConfig(cfg, func(o *secretsmanager.Options) { o.RetryMaxAttempts = 1 })
	if _, err := c.PutSecretValue(ctx, &secretsmanager.PutSecretValueInput{SecretId: sdk.String("word"), SecretString: &in.Value}); err != nil {
		return "", err
	}
	out, err := c.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: sdk.String("word")})
	if err != nil {
		return "", err
	}
	return sdk.ToString(out.SecretString), send(ctx, cfg, "gate@example.com")
}

func send(ctx context.Context, cfg sdk.Config, from string) error {
	_, err := sesv2.NewFromConfig(cfg).SendEmail(ctx, &sesv2.SendEmailInput{FromEmailAddress: &from, Destination: &ses.Destination{ToAddresses: []string{"ana@example.com"}},
		Content: &ses.EmailContent{Simple: &ses.Message{Subject: &ses.Content{Data: sdk.String("hello")}, Body: &ses.Body{
			Text: &ses.Content{Data: sdk.String("text")}, Html: &ses.Content{Data: sdk.String("<a href='http://localhost/x'>x</a>")}}}}})
	return err
}

func (s stack) call(t *testing.T, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// Everything the reviews add: secrets and mail by moto, functions that die at a certain call, Step Functions that forget.
func TestReviews(t *testing.T) {
	box := inbox.New(inbox.Config{})
	cfg := configure(t)
	cfg.Mail, cfg.Local = box.Tap, map[string]http.Handler{"/_local/{channel}/fault": box.Handler()}
	cfg.Functions = append(cfg.Functions, aws.Function{Role: iam + "remember", Function: lambda.Function{Name: "remember", Binary: cfg.Functions[0].Binary, Timeout: 10 * time.Second}})
	s := start(t, cfg)
	secrets := secretsmanager.NewFromConfig(s.config())
	if _, err := secrets.CreateSecret(t.Context(), &secretsmanager.CreateSecretInput{Name: sdk.String("word"), SecretString: sdk.String("first")}); err != nil {
		t.Fatal(err)
	}
	word := func() string {
		t.Helper()
		out, err := secrets.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: sdk.String("word")})
		if err != nil {
			t.Fatal(err)
		}
		return sdk.ToString(out.SecretString)
	}
	if _, err := sesv2.NewFromConfig(s.config()).CreateEmailIdentity(t.Context(), &sesv2.CreateEmailIdentityInput{EmailIdentity: sdk.String("gate@example.com")}); err != nil {
		t.Fatal(err)
	}
	if err := send(t.Context(), s.config(), "other@example.com"); err == nil || len(box.Messages()) != 0 {
		t.Error("a mail of somebody unknown was sent")
	}
	invoke := func(value string) (string, bool) {
		t.Helper()
		b, _ := json.Marshal(map[string]string{"Value": value})
		out, err := lambdaapi.NewFromConfig(s.config()).Invoke(t.Context(), &lambdaapi.InvokeInput{FunctionName: sdk.String("remember"), Payload: b})
		if err != nil {
			t.Fatal(err)
		}
		return string(out.Payload), out.FunctionError == nil
	}
	if got, ok := invoke("second"); !ok || got != `"second"` {
		t.Fatal(got)
	}
	if m := box.Messages(); len(m) != 1 || m[0].To != "ana@example.com" || m[0].Subject != "hello" || len(m[0].Links) != 1 || m[0].ID == "" {
		t.Errorf("%+v", m)
	}
	for _, tt := range []struct{ trap, value, word string }{
		{`{"at":"PutSecretValue"}`, "third", "second"},
		{`{"at":"PutSecretValue","after":true}`, "fourth", "fourth"},
		{`{"at":"*","count":2}`, "fifth", "fifth"},
		{`{"at":"POST /v2/email","after":true}`, "sixth", "sixth"},
		{`{"at":"PutSecretValue","with":"sixth and a half"}`, "sixth and a half", "sixth"},
	} {
		if status, body := s.call(t, http.MethodPost, "/_local/lambda/remember/kill", tt.trap); status != 200 {
			t.Fatal(body)
		}
		if got, ok := invoke(tt.value); ok || !strings.Contains(got, "signal: killed") || word() != tt.word {
			t.Errorf("%s: %s, and the word is %s", tt.trap, got, word())
		}
	}
	if n := len(box.Messages()); n != 2 {
		t.Errorf("%d mails", n)
	}
	if got, ok := invoke("seventh"); !ok {
		t.Errorf("a trap that sprang is still set: %s", got)
	}
	left := func(want string) {
		t.Helper()
		if _, body := s.call(t, http.MethodGet, "/_local/lambda/remember/kill", ""); body != `{"trap":`+want+"}\n" {
			t.Errorf("left is %s, want %s", body, want)
		}
	}
	left("null")
	s.call(t, http.MethodPost, "/_local/lambda/remember/kill", `{"at":"*","with":"another"}`)
	if got, ok := invoke("seventh"); !ok {
		t.Errorf("a trap for other calls springs: %s", got)
	}
	left(`{"at":"*","with":"another"}`)
	if status, _ := s.call(t, http.MethodDelete, "/_local/lambda/remember/kill", ""); status != 200 {
		t.Error(status)
	}
	left("null")
	if got, ok := invoke("eighth"); !ok {
		t.Errorf("a trap that was taken away springs: %s", got)
	}
	if _, body := s.call(t, http.MethodPost, "/_local/lambda/remember/kill", ""); body != "{\"killed\":1}\n" {
		t.Error(body)
	}
	for _, bad := range []string{`{}`, `{"att":"x"}`, `x`} {
		if status, _ := s.call(t, http.MethodPost, "/_local/lambda/remember/kill", bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if status, _ := s.call(t, http.MethodPost, "/_local/lambda/nobody/kill", ""); status != http.StatusNotFound {
		t.Error(status)
	}
	if status, body := s.call(t, http.MethodPut, "/_local/slack/fault", `{"status":500}`); status != 200 || !strings.Contains(body, "500") {
		t.Errorf("%d %s", status, body)
	}

	c := sfn.NewFromConfig(s.config())
	machine, err := c.CreateStateMachine(t.Context(), &sfn.CreateStateMachineInput{Name: sdk.String("wait"), RoleArn: sdk.String(iam + "wait"), Definition: sdk.String(
		`{"StartAt": "Wait", "States": {"Wait": {"Type": "Wait", "Seconds": 2, "Next": "Tell"}, "Tell": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke",
		  "Parameters": {"FunctionName": "arn:aws:lambda:eu-west-1:111122223333:function:remember", "Payload": {"Value": "from a lost execution"}}, "End": true}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	x, err := c.StartExecution(t.Context(), &sfn.StartExecutionInput{StateMachineArn: machine.StateMachineArn, Name: sdk.String("one"), Input: sdk.String("{}")})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if status, body := s.call(t, http.MethodPost, "/_local/stepfunctions/restart", ""); status != 200 || body != `{"lost": 1}` {
		t.Errorf("%d %s", status, body)
	}
	if _, err := c.DescribeExecution(t.Context(), &sfn.DescribeExecutionInput{ExecutionArn: x.ExecutionArn}); code(err) != "ExecutionDoesNotExist" {
		t.Errorf("the execution is still known: %v", err)
	}
	time.Sleep(2500 * time.Millisecond)
	if word() != "eighth" {
		t.Error("a lost execution went on")
	}
	if _, err := c.StartExecution(t.Context(), &sfn.StartExecutionInput{StateMachineArn: machine.StateMachineArn, Name: sdk.String("one"), Input: sdk.String("{}")}); err != nil {
		t.Errorf("the state machine is gone: %v", err)
	}
}
