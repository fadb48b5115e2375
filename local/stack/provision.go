package stack

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	ddb "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sfn"

	localaws "sallyport/local/aws"
	"sallyport/local/aws/lambda"
	"sallyport/local/aws/sts"
	"sallyport/shared/policy"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

// The keys of whoever deploys and of whoever audits. They open nothing but this machine's stand-ins.
const (
	deployerKey    = "AKIALOCALDEPLOYER000"
	deployerSecret = "the-deployer-of-one-machine"
	auditorKey     = "AKIALOCALAUDITOR0000"
	auditorSecret  = "the-auditor-of-one-machine"
)

// Roles of the processes, as the CDK app has them; a function's is named like the function.
const (
	rolePrefix   = "arn:aws:iam::" + Account + ":role/"
	ExchangeRole = rolePrefix + settings.ExchangeFunction
	workflowRole = rolePrefix + "sallyport-workflow"
	proxyRole    = rolePrefix + "sallyport-proxy"
	proxyKey     = "ASIALOCALPROXY000000"
	proxySecret  = "the-proxy-of-one-machine"
	proxyToken   = "the-session-of-the-proxy-of-one-machine"
)

// workflowARN is the state machine's.
const workflowARN = "arn:aws:states:" + Region + ":" + Account + ":stateMachine:" + settings.Workflow

// mailFrom is who mails are from. Nobody but this machine's inbox gets any.
const mailFrom = "sallyport@example.com"

// Functions are the broker's functions as the CDK app makes them, from binaries at DIR/NAME/bootstrap. reviews is where the
// reviewers' pages are, slack Slack's API.
func Functions(dir, reviews, slack string) []localaws.Function {
	var all []localaws.Function
	for _, f := range []struct {
		name            string
		timeout, memory int // seconds, MiB
		settings        any
	}{
		{settings.ExchangeFunction, 10, 256, settings.Exchange{Table: settings.Sessions.Name, Approvals: settings.Approvals.Name, PolicyBucket: PolicyBucket, MaskSecret: settings.MaskSecret}},
		{settings.ReviewFunction, 10, 512, settings.Review{Approvals: settings.Approvals.Name, PolicyBucket: PolicyBucket, Workflow: workflowARN, ReviewsURL: reviews}},
		{settings.NotifyFunction, 30, 256, settings.Notify{Approvals: settings.Approvals.Name, PolicyBucket: PolicyBucket, ReviewsURL: reviews,
			SlackSecret: settings.SlackSecret, SlackURL: slack, MailFrom: mailFrom}},
		{settings.CallbackFunction, 10, 256, settings.Callback{Approvals: settings.Approvals.Name, PolicyBucket: PolicyBucket, ReviewsURL: reviews,
			PagesSecret: settings.PagesSecret, SlackSecret: settings.SlackSecret, SlackURL: slack}},
	} {
		all = append(all, localaws.Function{Role: rolePrefix + f.name, Function: lambda.Function{
			Name: f.name, Binary: filepath.Join(dir, strings.TrimPrefix(f.name, "sallyport-"), "bootstrap"),
			Timeout: time.Duration(f.timeout) * time.Second, MemoryMB: f.memory, Env: settings.Environment(f.settings),
		}})
	}
	return all
}

// Principals are who holds credentials from the start: whoever deploys, whoever audits, and the proxy's task.
func Principals() []sts.Principal {
	return []sts.Principal{
		{ARN: "arn:aws:iam::" + Account + ":user/deployer", Credentials: sts.Credentials{AccessKeyID: deployerKey, SecretAccessKey: deployerSecret}},
		{ARN: "arn:aws:iam::" + Account + ":user/auditor", Credentials: sts.Credentials{AccessKeyID: auditorKey, SecretAccessKey: auditorSecret}},
		{ARN: proxyRole, Session: "task", Credentials: sts.Credentials{AccessKeyID: proxyKey, SecretAccessKey: proxySecret, SessionToken: proxyToken}},
	}
}

// ProxyEnvironment is what AWS gives the proxy's task: an endpoint, a region, and its role's credentials.
func ProxyEnvironment(endpoint string) map[string]string {
	return map[string]string{"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": Region,
		"AWS_ACCESS_KEY_ID": proxyKey, "AWS_SECRET_ACCESS_KEY": proxySecret, "AWS_SESSION_TOKEN": proxyToken}
}

// DeployerConfig is an SDK configuration of whoever deploys.
func DeployerConfig(endpoint string) aws.Config {
	return aws.Config{Region: Region, BaseEndpoint: aws.String(endpoint), Credentials: credentials.NewStaticCredentialsProvider(deployerKey, deployerSecret, "")}
}

// provision makes in the local AWS what the CDK app makes in AWS, from the same definitions.
func (u *start) provision(ctx context.Context) error {
	cfg := DeployerConfig(u.d.AWS.Endpoint)
	for _, t := range []settings.Table{settings.Sessions, settings.Approvals} {
		if err := CreateTable(ctx, dynamodb.NewFromConfig(cfg), t); err != nil {
			return err
		}
	}
	if err := u.reviews(ctx, cfg); err != nil {
		return err
	}
	files := s3.NewFromConfig(cfg, policystore.PathStyle)
	for _, bucket := range []string{PolicyBucket, RecordingsBucket} {
		if _, err := files.CreateBucket(ctx, &s3.CreateBucketInput{Bucket: aws.String(bucket), ObjectLockEnabledForBucket: aws.Bool(bucket == RecordingsBucket),
			CreateBucketConfiguration: &types.CreateBucketConfiguration{LocationConstraint: types.BucketLocationConstraint(Region)}}); err != nil {
			return fmt.Errorf("creating bucket %s: %w", bucket, err)
		}
	}
	if _, err := files.PutBucketVersioning(ctx, &s3.PutBucketVersioningInput{Bucket: aws.String(PolicyBucket),
		VersioningConfiguration: &types.VersioningConfiguration{Status: types.BucketVersioningStatusEnabled}}); err != nil {
		return fmt.Errorf("versioning bucket %s: %w", PolicyBucket, err)
	}
	b, err := os.ReadFile(u.d.Policy.File)
	if err != nil {
		return err
	}
	_, _, err = putPolicy(ctx, u.d.AWS.Endpoint, b)
	return err
}

// reviews makes what the reviews need beside the table: the secrets, who mails are from, and the workflow.
func (u *start) reviews(ctx context.Context, cfg aws.Config) error {
	slack, err := json.Marshal(u.slack)
	if err != nil {
		return err
	}
	pages, err := json.Marshal(map[string]string{"key": rand.Text() + rand.Text()})
	if err != nil {
		return err
	}
	masks, err := json.Marshal(map[string]string{"key": rand.Text() + rand.Text()})
	if err != nil {
		return err
	}
	secrets := secretsmanager.NewFromConfig(cfg)
	for name, value := range map[string]string{settings.SlackSecret: string(slack), settings.PagesSecret: string(pages), settings.MaskSecret: string(masks)} {
		if _, err := secrets.CreateSecret(ctx, &secretsmanager.CreateSecretInput{Name: &name, SecretString: &value}); err != nil {
			return fmt.Errorf("creating secret %s: %w", name, err)
		}
	}
	if _, err := sesv2.NewFromConfig(cfg).CreateEmailIdentity(ctx, &sesv2.CreateEmailIdentityInput{EmailIdentity: aws.String(mailFrom)}); err != nil {
		return fmt.Errorf("creating the mail identity: %w", err)
	}
	file, err := os.ReadFile(filepath.Join(u.Root, "infra", settings.WorkflowFile))
	if err != nil {
		return err
	}
	return CreateWorkflow(ctx, sfn.NewFromConfig(cfg), file)
}

// CreateWorkflow makes the state machine from its definition, as the CDK app does.
func CreateWorkflow(ctx context.Context, c *sfn.Client, definition []byte) error {
	filled := strings.ReplaceAll(string(definition), "${NotifyFunction}", "arn:aws:lambda:"+Region+":"+Account+":function:"+settings.NotifyFunction)
	if i := strings.Index(filled, "${"); i >= 0 {
		return fmt.Errorf("creating the workflow: nobody fills in %.30s", filled[i:])
	}
	out, err := c.CreateStateMachine(ctx, &sfn.CreateStateMachineInput{Name: aws.String(settings.Workflow), Definition: &filled, RoleArn: aws.String(workflowRole)})
	if err != nil {
		return fmt.Errorf("creating the workflow: %w", err)
	}
	if arn := aws.ToString(out.StateMachineArn); arn != workflowARN {
		return fmt.Errorf("creating the workflow: it is %s, not %s", arn, workflowARN)
	}
	return nil
}

// CreateTable makes a table as the CDK app does.
func CreateTable(ctx context.Context, db *dynamodb.Client, t settings.Table) error {
	in := &dynamodb.CreateTableInput{TableName: &t.Name, BillingMode: ddb.BillingModePayPerRequest, KeySchema: []ddb.KeySchemaElement{
		{AttributeName: &t.PartitionKey, KeyType: ddb.KeyTypeHash}, {AttributeName: &t.SortKey, KeyType: ddb.KeyTypeRange}}}
	names := []string{t.PartitionKey, t.SortKey}
	if i := t.Index; i != nil {
		names = append(names, i.PartitionKey, i.SortKey)
		in.GlobalSecondaryIndexes = []ddb.GlobalSecondaryIndex{{IndexName: &i.Name, Projection: &ddb.Projection{ProjectionType: ddb.ProjectionTypeAll},
			KeySchema: []ddb.KeySchemaElement{{AttributeName: &i.PartitionKey, KeyType: ddb.KeyTypeHash}, {AttributeName: &i.SortKey, KeyType: ddb.KeyTypeRange}}}}
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		in.AttributeDefinitions = append(in.AttributeDefinitions, ddb.AttributeDefinition{AttributeName: aws.String(name), AttributeType: ddb.ScalarAttributeTypeS})
	}
	if _, err := db.CreateTable(ctx, in); err != nil {
		return fmt.Errorf("creating table %s: %w", t.Name, err)
	}
	if _, err := db.UpdateTimeToLive(ctx, &dynamodb.UpdateTimeToLiveInput{TableName: &t.Name,
		TimeToLiveSpecification: &ddb.TimeToLiveSpecification{AttributeName: &t.TTL, Enabled: aws.Bool(true)}}); err != nil {
		return fmt.Errorf("setting the time to live of table %s: %w", t.Name, err)
	}
	return nil
}

// register tells EKS where the cluster is, and gives every tier its access entry.
func (u *start) register(ctx context.Context, server, caFile string) error {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return err
	}
	if err := RegisterCluster(ctx, u.d.AWS.Endpoint, Cluster, server, ca); err != nil {
		return err
	}
	file, err := os.ReadFile(u.d.Policy.File)
	if err != nil {
		return err
	}
	p, err := policy.Load(u.d.Policy.File, file)
	if err != nil {
		return err
	}
	client := eks.NewFromConfig(DeployerConfig(u.d.AWS.Endpoint))
	for _, t := range p.Tiers {
		if _, err := client.CreateAccessEntry(ctx, &eks.CreateAccessEntryInput{ClusterName: aws.String(Cluster), PrincipalArn: aws.String(t.Role), KubernetesGroups: []string{t.Group}}); err != nil {
			return fmt.Errorf("access entry of tier %q: %w", t.Name, err)
		}
	}
	return nil
}

// RegisterCluster tells the EKS stand-in of a cluster.
func RegisterCluster(ctx context.Context, endpoint, name, server string, ca []byte) error {
	body, err := json.Marshal(map[string]string{"endpoint": server, "ca": string(ca)})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, endpoint+"/_local/eks/clusters/"+name, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode/100 != 2 {
		return errors.New(res.Status)
	}
	return nil
}
