package aws_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	runtime "github.com/aws/aws-lambda-go/lambda"
	sdk "github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	eksapi "github.com/aws/aws-sdk-go-v2/service/eks"
	lambdaapi "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	s3types "github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	stsapi "github.com/aws/aws-sdk-go-v2/service/sts"
	ststypes "github.com/aws/aws-sdk-go-v2/service/sts/types"
	"github.com/aws/smithy-go"
	authv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"

	"sallyport/local/aws"
	"sallyport/local/aws/eks"
	"sallyport/local/aws/lambda"
	"sallyport/local/aws/sts"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

const (
	account  = aws.DefaultAccountID
	region   = "eu-west-1"
	iam      = "arn:aws:iam::" + account + ":role/sallyport/"
	exchange = iam + "exchange"
	operate  = iam + "operate"
)

// TestMain lets this binary be the functions too, each an ordinary bootstrap that finds AWS by its environment alone.
func TestMain(m *testing.M) {
	switch os.Getenv("AWS_LAMBDA_FUNCTION_NAME") {
	case "notify":
		runtime.Start(notify)
	case "remember":
		runtime.Start(remember)
	case "exchange":
		runtime.Start(whoami)
	default:
		os.Exit(m.Run())
	}
}

// notify ends the task it is told of, in the background of the workflow as a person's answer would.
func notify(ctx context.Context, in struct{ Token, Approve string }) (any, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	out, _ := json.Marshal(map[string]string{"answer": in.Approve})
	_, err = sfn.NewFromConfig(cfg).SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{TaskToken: &in.Token, Output: sdk.String(string(out))})
	return nil, err
}

// whoami assumes the tier's role with the function's own credentials and says whom both make it.
func whoami(ctx context.Context, in struct{ Subject string }) (any, error) {
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	c := stsapi.NewFromConfig(cfg)
	me, err := c.GetCallerIdentity(ctx, &stsapi.GetCallerIdentityInput{})
	if err != nil {
		return nil, err
	}
	out, err := c.AssumeRole(ctx, &stsapi.AssumeRoleInput{RoleArn: sdk.String(operate), RoleSessionName: &in.Subject, SourceIdentity: &in.Subject,
		Tags: []ststypes.Tag{{Key: sdk.String("session"), Value: sdk.String("s-1")}}})
	if err != nil {
		return nil, err
	}
	return map[string]string{"Me": *me.Arn, "Tier": *out.AssumedRoleUser.Arn, "Key": *out.Credentials.AccessKeyId, "Secret": *out.Credentials.SecretAccessKey, "Token": *out.Credentials.SessionToken}, nil
}

func python(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("needs moto, which -short leaves out")
	}
	p := os.Getenv("SALLYPORT_MOTO_PYTHON")
	if p == "" {
		t.Skip("needs moto: set SALLYPORT_MOTO_PYTHON=$(local/aws/moto/venv.sh)")
	}
	return p
}

func configure(t testing.TB) aws.Config {
	return aws.Config{
		Dir: t.TempDir(), Python: python(t), Region: region,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Functions: []aws.Function{
			{Role: iam + "notify", Function: lambda.Function{Name: "notify", Binary: os.Args[0], Timeout: 10 * time.Second}},
			{Role: exchange, Function: lambda.Function{Name: "exchange", Binary: os.Args[0], Timeout: 10 * time.Second}},
		},
		Principals: []sts.Principal{{ARN: iam + "proxy", Session: "proxy", Credentials: sts.Credentials{AccessKeyID: "ASIAPROXY", SecretAccessKey: "s", SessionToken: "t"}}},
		Roles:      []sts.Role{{ARN: operate, Trust: []sts.Trust{{Callers: []string{exchange}, RequireTags: []string{"session"}, RequireSourceIdentity: true}}}},
		Clusters:   []eks.Cluster{{Name: "dev"}, {Name: "prod"}},
		AccessEntries: []eks.AccessEntry{
			{Cluster: "dev", PrincipalARN: operate, Groups: []string{"sallyport:operate"}},
			{Cluster: "prod", PrincipalARN: operate, Groups: []string{"sallyport:operate"}},
		},
	}
}

type stack struct {
	*aws.Stack
	t testing.TB
}

func start(t testing.TB, cfg aws.Config) stack {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	s, err := aws.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	t.Logf("ready after %v", s.Startup)
	return stack{s, t}
}

func (s stack) config() sdk.Config {
	return sdk.Config{Region: region, BaseEndpoint: &s.URL, Credentials: credentials.NewStaticCredentialsProvider("test", "test", ""),
		RetryMaxAttempts: 1}
}

func code(err error) string {
	var e smithy.APIError
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.ErrorCode()
	}
	return err.Error()
}

func (s stack) invoke(name string, in any, out any) {
	s.t.Helper()
	b, _ := json.Marshal(in)
	res, err := lambdaapi.NewFromConfig(s.config()).Invoke(s.t.Context(), &lambdaapi.InvokeInput{FunctionName: &name, Payload: b})
	if err != nil {
		s.t.Fatal(err)
	}
	if res.FunctionError != nil {
		s.t.Fatalf("%s: %s", name, res.Payload)
	}
	if err := json.Unmarshal(res.Payload, out); err != nil {
		s.t.Fatal(err)
	}
}

// review asks the webhook as an API server does: by the kubeconfig, over TLS.
func (s stack) review(cluster, tok string) authv1.TokenReviewStatus {
	s.t.Helper()
	var kubeconfig struct {
		Clusters []struct {
			Cluster struct {
				Server string
				CA     []byte `json:"certificate-authority-data"`
			}
		}
	}
	b, err := os.ReadFile(s.WebhookKubeconfig(cluster))
	if err == nil {
		err = json.Unmarshal(b, &kubeconfig)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(kubeconfig.Clusters[0].Cluster.CA)
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
	body, _ := json.Marshal(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": map[string]any{"token": tok}})
	resp, err := c.Post(kubeconfig.Clusters[0].Cluster.Server, "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	var out authv1.TokenReview
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		s.t.Fatal(err)
	}
	return out.Status
}

func eksToken(t testing.TB, cluster string, c sdk.CredentialsProvider) string {
	t.Helper()
	g, err := token.NewGenerator(false, false)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := g.GetWithSTS(cluster, stsapi.New(stsapi.Options{Region: region, Credentials: c}))
	if err != nil {
		t.Fatal(err)
	}
	return tok.Token
}

func TestEndToEnd(t *testing.T) {
	s := start(t, configure(t))
	t.Run("dynamodb", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.dynamodb(t) })
	t.Run("s3", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.s3(t) })
	t.Run("policies", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.policies(t) })
	t.Run("states", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.states(t) })
	t.Run("identity", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.identity(t) })
	t.Run("local", func(t *testing.T) { t.Parallel(); stack{s.Stack, t}.localAPI(t) })
}

func (s stack) dynamodb(t *testing.T) {
	db := dynamodb.NewFromConfig(s.config())
	table := sdk.String("race")
	if _, err := db.CreateTable(t.Context(), &dynamodb.CreateTableInput{TableName: table, BillingMode: ddb.BillingModePayPerRequest,
		KeySchema:            []ddb.KeySchemaElement{{AttributeName: sdk.String("pk"), KeyType: ddb.KeyTypeHash}},
		AttributeDefinitions: []ddb.AttributeDefinition{{AttributeName: sdk.String("pk"), AttributeType: ddb.ScalarAttributeTypeS}}}); err != nil {
		t.Fatal(err)
	}
	key := func(k string) map[string]ddb.AttributeValue {
		return map[string]ddb.AttributeValue{"pk": &ddb.AttributeValueMemberS{Value: k}}
	}
	began := time.Now()
	for k := range 50 {
		var puts, transactions atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := db.PutItem(t.Context(), &dynamodb.PutItemInput{TableName: table, Item: key(fmt.Sprint("put", k)), ConditionExpression: sdk.String("attribute_not_exists(pk)")})
				switch code(err) {
				case "":
					puts.Add(1)
				case "ConditionalCheckFailedException":
				default:
					t.Error(err)
				}
				_, err = db.TransactWriteItems(t.Context(), &dynamodb.TransactWriteItemsInput{TransactItems: []ddb.TransactWriteItem{{Put: &ddb.Put{
					TableName: table, Item: key(fmt.Sprint("transaction", k)), ConditionExpression: sdk.String("attribute_not_exists(pk)")}}}})
				switch code(err) {
				case "":
					transactions.Add(1)
				case "TransactionCanceledException":
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if puts.Load() != 1 || transactions.Load() != 1 {
			t.Errorf("key %d: %d puts and %d transactions won", k, puts.Load(), transactions.Load())
		}
	}
	t.Logf("800 conditional writes, %v each", time.Since(began)/800)
	var wg sync.WaitGroup
	gate := make(chan struct{}, 32)
	for range 200 {
		wg.Go(func() {
			gate <- struct{}{}
			defer func() { <-gate }()
			if _, err := db.UpdateItem(t.Context(), &dynamodb.UpdateItemInput{TableName: table, Key: key("counter"), UpdateExpression: sdk.String("ADD n :one"),
				ExpressionAttributeValues: map[string]ddb.AttributeValue{":one": &ddb.AttributeValueMemberN{Value: "1"}}}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	out, err := db.GetItem(t.Context(), &dynamodb.GetItemInput{TableName: table, Key: key("counter")})
	if err != nil {
		t.Fatal(err)
	}
	if n := out.Item["n"].(*ddb.AttributeValueMemberN).Value; n != "200" {
		t.Errorf("200 times one is %s", n)
	}
}

func (s stack) s3(t *testing.T) {
	c := s3.NewFromConfig(s.config(), func(o *s3.Options) { o.UsePathStyle = true })
	bucket := sdk.String("recordings")
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket,
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region}}); err != nil {
		t.Fatal(err)
	}
	for k := range 20 {
		var won atomic.Int32
		var wg sync.WaitGroup
		for w := range 8 {
			wg.Go(func() {
				_, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: sdk.String(fmt.Sprint("intent/", k)), IfNoneMatch: sdk.String("*"), Body: strings.NewReader(fmt.Sprint("writer ", w))})
				switch code(err) {
				case "":
					won.Add(1)
				case "PreconditionFailed", "ConditionalRequestConflict":
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			t.Errorf("intent %d was written %d times", k, won.Load())
		}
	}
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<18) // 4 MB: the SDK sends it in chunks, after a 100 Continue
	if _, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: sdk.String("big"), Body: bytes.NewReader(big), IfNoneMatch: sdk.String("*")}); err != nil {
		t.Fatal(err)
	}
	out, err := c.GetObject(t.Context(), &s3.GetObjectInput{Bucket: bucket, Key: sdk.String("big")})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Body.Close()
	if got, err := io.ReadAll(out.Body); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes came back: %v", len(got), err)
	}
}

// The policy bucket: versions, conditional reads, and a deletion, as the broker and the proxies read it.
func (s stack) policies(t *testing.T) {
	c := s3.NewFromConfig(s.config(), policystore.PathStyle)
	bucket, key := sdk.String("policies"), sdk.String(settings.PolicyCurrent)
	if _, err := c.CreateBucket(t.Context(), &s3.CreateBucketInput{Bucket: bucket,
		CreateBucketConfiguration: &s3types.CreateBucketConfiguration{LocationConstraint: region}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.PutBucketVersioning(t.Context(), &s3.PutBucketVersioningInput{Bucket: bucket,
		VersioningConfiguration: &s3types.VersioningConfiguration{Status: s3types.BucketVersioningStatusEnabled}}); err != nil {
		t.Fatal(err)
	}
	put := func(body string) string {
		t.Helper()
		out, err := c.PutObject(t.Context(), &s3.PutObjectInput{Bucket: bucket, Key: key, Body: strings.NewReader(body)})
		if err != nil {
			t.Fatal(err)
		}
		return sdk.ToString(out.VersionId)
	}
	store, loads := policystore.Store{Client: c, Bucket: *bucket}, 0
	follow := func() *policystore.Follower {
		return policystore.Follow(store, func(_ string, b []byte) error {
			if loads++; !bytes.HasPrefix(b, []byte("good")) {
				return errors.New("line 1: no good")
			}
			return nil
		})
	}
	look := func(f *policystore.Follower, version, refused string) policystore.Look {
		t.Helper()
		l, err := f.Look(t.Context())
		if err != nil || l.File.Version != version || (l.Refused == nil) != (refused == "-") || l.Refused != nil && l.Refused.Version != refused {
			t.Errorf("got version %q, refused %+v, %v; want %q, refused %q", l.File.Version, l.Refused, err, version, refused)
		}
		return l
	}
	f := follow()
	if _, err := f.Look(t.Context()); err == nil {
		t.Error("an empty bucket has a policy")
	}
	first := put("good 1")
	l := look(f, first, "-")
	before := loads
	if look(f, first, "-"); loads != before {
		t.Error("a read that brings nothing new loaded something")
	}
	second := put("bad")
	look(f, first, second)
	look(follow(), first, second)
	third := put("good 3")
	look(f, third, "-")
	if file, err := store.Version(t.Context(), first, l.File.Digest); err != nil || string(file.Bytes) != "good 1" {
		t.Errorf("the first version is %q, %v", file.Bytes, err)
	}
	if _, err := store.Version(t.Context(), third, l.File.Digest); err == nil {
		t.Error("another version was taken for the first")
	}
	if _, err := c.DeleteObject(t.Context(), &s3.DeleteObjectInput{Bucket: bucket, Key: key}); err != nil {
		t.Fatal(err)
	}
	look(f, third, "")
	look(follow(), third, "")
}

func (s stack) states(t *testing.T) {
	c := sfn.NewFromConfig(s.config())
	machine, err := c.CreateStateMachine(t.Context(), &sfn.CreateStateMachineInput{Name: sdk.String("review"), RoleArn: sdk.String(iam + "review"), Definition: sdk.String(`{
	  "StartAt": "Ask", "States": {"Ask": {"Type": "Task", "Resource": "arn:aws:states:::lambda:invoke.waitForTaskToken", "TimeoutSeconds": 20,
	    "Parameters": {"FunctionName": "arn:aws:lambda:eu-west-1:111122223333:function:notify", "Payload": {"Token.$": "$$.Task.Token", "Approve.$": "$.approve"}},
	    "ResultPath": "$.decision", "End": true}}}`)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 2 {
		run := func() {
			began := time.Now()
			x, err := c.StartExecution(t.Context(), &sfn.StartExecutionInput{StateMachineArn: machine.StateMachineArn, Input: sdk.String(fmt.Sprintf(`{"approve":"yes-%d"}`, i))})
			if err != nil {
				t.Error(err)
				return
			}
			for {
				d, err := c.DescribeExecution(t.Context(), &sfn.DescribeExecutionInput{ExecutionArn: x.ExecutionArn})
				if err != nil || time.Since(began) > 20*time.Second {
					t.Errorf("%v after %v", err, time.Since(began))
					return
				}
				if d.Status == "RUNNING" {
					time.Sleep(50 * time.Millisecond)
					continue
				}
				if d.Status != "SUCCEEDED" || !strings.Contains(sdk.ToString(d.Output), fmt.Sprintf(`{"answer": "yes-%d"}`, i)) {
					t.Errorf("%s %s %s", d.Status, sdk.ToString(d.Output), sdk.ToString(d.Cause))
				}
				t.Logf("execution %d took %v", i, time.Since(began))
				return
			}
		}
		if i == 0 {
			run() // getmoto/moto#10077 broke every execution after the first
			continue
		}
		wg.Go(run)
		wg.Go(run)
	}
	wg.Wait()
}

func (s stack) identity(t *testing.T) {
	var got struct{ Me, Tier, Key, Secret, Token string }
	s.invoke("exchange", map[string]string{"Subject": "mia@example.com"}, &got)
	if got.Me != "arn:aws:sts::111122223333:assumed-role/exchange/exchange" || got.Tier != "arn:aws:sts::111122223333:assumed-role/operate/mia@example.com" {
		t.Errorf("%s, %s", got.Me, got.Tier)
	}
	tier := credentials.NewStaticCredentialsProvider(got.Key, got.Secret, got.Token)
	tok := eksToken(t, "dev", tier)
	in := s.review("dev", tok)
	if !in.Authenticated || in.User.Username != "arn:aws:sts::111122223333:assumed-role/operate/mia-example.com" || len(in.User.Groups) != 1 || in.User.Groups[0] != "sallyport:operate" {
		t.Errorf("review %+v", in)
	}
	if in := s.review("prod", tok); in.Authenticated {
		t.Error("a token for dev opens prod")
	}
	for name, c := range map[string]sdk.CredentialsProvider{
		"forged": credentials.NewStaticCredentialsProvider(got.Key, "guess", got.Token), "of a stranger": credentials.NewStaticCredentialsProvider("AKIA", "x", ""),
		"without the session token": credentials.NewStaticCredentialsProvider(got.Key, got.Secret, ""), "of the proxy, which has no entry": credentials.NewStaticCredentialsProvider("ASIAPROXY", "s", "t"),
	} {
		if in := s.review("dev", eksToken(t, "dev", c)); in.Authenticated {
			t.Errorf("a token %s is %q", name, in.User.Username)
		}
	}
	proxy := s.config()
	proxy.Credentials = credentials.NewStaticCredentialsProvider("ASIAPROXY", "s", "t")
	if _, err := stsapi.NewFromConfig(proxy).AssumeRole(t.Context(), &stsapi.AssumeRoleInput{RoleArn: sdk.String(operate), RoleSessionName: sdk.String("proxy"), SourceIdentity: sdk.String("proxy"),
		Tags: []ststypes.Tag{{Key: sdk.String("session"), Value: sdk.String("x")}}}); code(err) != "AccessDenied" {
		t.Errorf("the proxy assumes a role: %v", err)
	}
	c := eksapi.NewFromConfig(s.config())
	if _, err := c.DeleteAccessEntry(t.Context(), &eksapi.DeleteAccessEntryInput{ClusterName: sdk.String("dev"), PrincipalArn: sdk.String(operate)}); err != nil {
		t.Fatal(err)
	}
	if in := s.review("dev", tok); in.Authenticated {
		t.Error("the token still works although the entry is gone")
	}
	if _, err := c.CreateAccessEntry(t.Context(), &eksapi.CreateAccessEntryInput{ClusterName: sdk.String("dev"), PrincipalArn: sdk.String(operate), KubernetesGroups: []string{"again"}}); err != nil {
		t.Fatal(err)
	}
	if in := s.review("dev", tok); !in.Authenticated || in.User.Groups[0] != "again" {
		t.Errorf("with a new entry: %+v", in)
	}
}

func (s stack) do(method, path, body string) (int, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.URL+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (s stack) localAPI(t *testing.T) {
	if status, body := s.do("GET", "/_local/health", ""); status != 200 || !strings.Contains(body, `"ready":true`) {
		t.Errorf("health %d %s", status, body)
	}
	status, body := s.do("PUT", "/_local/eks/clusters/late", `{"endpoint":"https://127.0.0.1:6443","ca":"PEM","version":"1.35"}`)
	var put struct{ WebhookKubeconfig string }
	if err := json.Unmarshal([]byte(body), &put); err != nil || status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	if b, err := os.ReadFile(put.WebhookKubeconfig); err != nil || !bytes.Contains(b, []byte("/authenticate/late")) {
		t.Errorf("%s %v", b, err)
	}
	out, err := eksapi.NewFromConfig(s.config()).DescribeCluster(t.Context(), &eksapi.DescribeClusterInput{Name: sdk.String("late")})
	if err != nil || *out.Cluster.Endpoint != "https://127.0.0.1:6443" {
		t.Errorf("%+v %v", out, err)
	}
	for path, body := range map[string]string{"/_local/eks/clusters/late": `{"endpoint":"http://x"}`, "/_local/eks/clusters/a%2Fb": `{}`, "/_local/sts/lifetime": `{"lifetime":"-5s"}`, "/_local/eks/clusters/x": `{"unknown":1}`} {
		if status, body := s.do("PUT", path, body); status != 400 {
			t.Errorf("%s: %d %s", path, status, body)
		}
	}
	if status, _ := s.do("GET", "/_local/sts/assumed", ""); status != 200 {
		t.Errorf("assumed: %d", status)
	}
}

func TestShortCredentials(t *testing.T) {
	cfg := configure(t)
	cfg.CredentialLifetime = 2 * time.Second
	s := start(t, cfg)
	var got struct{ Key, Secret, Token string }
	s.invoke("exchange", map[string]string{"Subject": "mia"}, &got)
	tok := eksToken(t, "dev", credentials.NewStaticCredentialsProvider(got.Key, got.Secret, got.Token))
	if in := s.review("dev", tok); !in.Authenticated {
		t.Errorf("at first: %s", in.Error)
	}
	time.Sleep(2100 * time.Millisecond)
	if in := s.review("dev", tok); in.Authenticated || !strings.Contains(in.Error, "ExpiredToken") {
		t.Errorf("after its end: %+v", in)
	}
	if status, body := s.do("GET", "/_local/sts/assumed", ""); status != 200 || !strings.Contains(body, `"sourceIdentity":"mia"`) || strings.Contains(body, got.Secret) {
		t.Errorf("%d %s", status, body)
	}
}

func TestPartsThatEnd(t *testing.T) {
	cfg := configure(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ready, ended := make(chan *aws.Stack, 1), make(chan error, 1)
	go func() { ended <- aws.Serve(ctx, cfg, func(s *aws.Stack) { ready <- s }) }()
	var s *aws.Stack
	select {
	case s = <-ready:
	case err := <-ended:
		t.Fatal(err)
	}
	if err := syscall.Kill(s.Moto.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil || !strings.Contains(err.Error(), "moto ended") {
			t.Errorf("got %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("nobody noticed")
	}
	if _, err := http.Get(s.URL + "/_local/health"); err == nil {
		t.Error("the endpoint still answers")
	}
}

func TestServeEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var pid int
	err := aws.Serve(ctx, configure(t), func(s *aws.Stack) { pid = s.Moto.PID(); cancel() })
	if err != nil {
		t.Error(err)
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("moto is still there")
	}
}

func TestStartSaysWhatIsWrong(t *testing.T) {
	broken := filepath.Join(t.TempDir(), "python")
	if err := os.WriteFile(broken, []byte("#!/bin/sh\necho no module named moto >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		change func(*aws.Config)
		want   string
	}{
		"no python":     {func(c *aws.Config) { c.Python = "" }, "venv.sh"},
		"not a python":  {func(c *aws.Config) { c.Python = "/nowhere/python" }, "/nowhere/python"},
		"broken python": {func(*aws.Config) {}, "no module named moto"},
		"no directory":  {func(c *aws.Config) { c.Dir = "" }, "no directory"},
		"function": {func(c *aws.Config) {
			c.Functions = []aws.Function{{Function: lambda.Function{Name: "x", Binary: "/nowhere"}}}
		}, "/nowhere"},
		"entry": {func(c *aws.Config) { c.AccessEntries = []eks.AccessEntry{{Cluster: "none", PrincipalARN: operate}} }, "none"},
	} {
		cfg := aws.Config{Dir: t.TempDir(), Python: broken}
		tt.change(&cfg)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		s, err := aws.Start(ctx, cfg)
		cancel()
		if err == nil {
			s.Close()
		}
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
