package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsecs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/constructs-go/constructs/v10"
	"github.com/aws/jsii-runtime-go"

	"sallyport/shared/settings"
)

// functions are the broker's.
var functions = []string{settings.ExchangeFunction, settings.ReviewFunction, settings.NotifyFunction, settings.CallbackFunction}

// What infra/build leaves in dist.
func binary(dist, function string) string {
	return filepath.Join(dist, "lambda", strings.TrimPrefix(function, "sallyport-"), "bootstrap")
}
func proxyImage(dist string) string { return filepath.Join(dist, "proxy.tar") }

// NewStack builds the whole gate from a checked configuration and from what infra/build left in dist. The account and
// the region are literal, nothing is looked up and no map is ranged over, so equal inputs give equal templates.
func NewStack(scope constructs.Construct, id string, c *Config, dist string) awscdk.Stack {
	st := awscdk.NewStack(scope, &id, &awscdk.StackProps{
		Description:           str("Sallyport: the gate between agents and EKS clusters"),
		Env:                   &awscdk.Environment{Account: &c.Account, Region: &c.Region},
		TerminationProtection: yes,
	})
	s := newStores(st, c)
	exchange := newExchange(st, c, s, dist)
	r := newReviews(st, c, s, dist)
	tiers := newTiers(st, c, exchange)
	policy := putPolicy(st, c, s.policy, slices.Concat(tiers, r.announce, []constructs.IDependable{exchange, r.review, r.callback, r.notify})...)
	alb := newGate(st, c, s, exchange, r.review, policy, awsecs.ContainerImage_FromTarball(str(proxyImage(dist))))

	for _, o := range []struct{ name, what, value string }{
		{"LoadBalancerDNS", "point loadBalancer.host and the clusters' hosts here", *alb.LoadBalancerDnsName()},
		{"GateURL", "where agents connect", "https://" + c.LoadBalancer.Host},
		{"ExchangeFunction", "the function that turns tokens into sessions", *exchange.FunctionName()},
		{"ReviewsDNS", "point reviews.host here", *r.domain.RegionalDomainName()},
		{"ReviewsURL", "where reviewers answer", reviewsURL(c)},
		{"ReviewWorkflow", "the state machine that one approval is one execution of", *r.workflow.StateMachineArn()},
		{"Alarms", "alarms to act on; they tell nobody by themselves", strings.Join(r.alarms, " ")},
		{"SessionsTable", "the table of sessions", *s.sessions.TableName()},
		{"ApprovalsTable", "the table of approvals", *s.approvals.TableName()},
		{"PolicyBucket", "where policies lie; the newest version of " + settings.PolicyCurrent + " that loads is in force", *s.policy.BucketName()},
		{"PolicyDigest", "the policy this stack put", c.Rules.Digest},
		{"RecordingsBucket", "where recordings lie", *s.recordings.BucketName()},
		{"LogsBucket", "access logs of the load balancer and the buckets", *s.logs.BucketName()},
	} {
		awscdk.NewCfnOutput(st, str(o.name), &awscdk.CfnOutputProps{Description: str(o.what), Value: str(o.value)})
	}
	return st
}

var (
	str = jsii.String
	yes = jsii.Bool(true)
	no  = jsii.Bool(false)
)

func num(n int) *float64                  { return jsii.Number(float64(n)) }
func seconds(n int) awscdk.Duration       { return awscdk.Duration_Seconds(num(n)) }
func days(n int) awscdk.Duration          { return awscdk.Duration_Days(num(n)) }
func strs(v ...string) *[]*string         { return jsii.Strings(v...) }
func construct(parts ...string) *string   { return str(strings.Join(parts, "-")) }
func service(name string) *string         { return str(name + ".amazonaws.com") }
func under(arn *string, p string) *string { return str(*arn + "/" + p + "*") }

// environment is what the settings package reads back in the process.
func environment(s any) *map[string]*string {
	env := settings.Environment(s)
	out := map[string]*string{}
	for _, k := range slices.Sorted(maps.Keys(env)) {
		out[k] = str(env[k])
	}
	return &out
}

// allow is one statement: one reason, named by sid.
func allow(sid string, actions *[]*string, resources ...*string) awsiam.PolicyStatement {
	return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{Sid: &sid, Actions: actions, Resources: &resources})
}

func newLogGroup(st awscdk.Stack, id string) awslogs.LogGroup {
	return awslogs.NewLogGroup(st, &id, &awslogs.LogGroupProps{
		Retention: awslogs.RetentionDays_ONE_YEAR, RemovalPolicy: awscdk.RemovalPolicy_RETAIN,
	})
}

// newFunctionRole is a role a function of this account runs as. It may write to its own log and nothing else: the
// managed policy AWSLambdaBasicExecutionRole would let it write to every log of the account.
func newFunctionRole(st awscdk.Stack, id, what string, log awslogs.LogGroup) awsiam.Role {
	role := awsiam.NewRole(st, &id, &awsiam.RoleProps{
		AssumedBy: awsiam.NewServicePrincipal(service("lambda"), nil), Description: &what,
	})
	role.AddToPolicy(allow("OwnLog", strs("logs:CreateLogStream", "logs:PutLogEvents"), log.LogGroupArn()))
	return role
}
