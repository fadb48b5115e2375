package main

import (
	_ "embed"
	"fmt"
	"strings"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	apigw "github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsapigatewayv2integrations"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscloudwatch"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsevents"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseventstargets"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsstepfunctions"
	"github.com/aws/constructs-go/constructs/v10"

	"sallyport/shared/settings"
)

// workflow is the state machine's definition, as it runs on one machine too.
//
//go:embed workflow.asl.json
var workflow string

// reviews is everything between a question and its answer.
type reviews struct {
	review, notify, callback awslambda.Function
	workflow                 awsstepfunctions.StateMachine
	domain                   apigw.DomainName
	announce                 []constructs.IDependable
	alarms                   []string
}

// definition is the workflow where the services have other names: in China, and for the government.
func definition(region string) string {
	return strings.ReplaceAll(workflow, "arn:aws:states:::", "arn:"+partition(region)+":states:::")
}

func reviewsURL(c *Config) string { return "https://" + c.Reviews.Host }

// newReviews makes the three functions that ask humans, the workflow between them and the pages' front. Each right goes one
// way, so that nothing here needs what needs it: review starts the workflow, the workflow calls notify, and callback, which
// nothing but the front calls, ends the workflow's task.
func newReviews(st awscdk.Stack, c *Config, s stores, dist string) reviews {
	pages := newKey(st, "Pages", settings.PagesSecret, "Seals the cookies and links of the reviewers' pages")
	var r reviews
	r.notify = newNotify(st, c, s, dist)
	r.workflow = newWorkflow(st, c, r.notify)
	r.review = newReview(st, c, s, r.workflow, dist)
	r.callback = newCallback(st, c, s, pages, r.workflow, dist)
	r.announce = announcePolicies(st, s, r.notify)
	r.domain = newFront(st, c, r.callback)
	r.alarms = newAlarms(st, r)
	return r
}

// newReview is the function that opens approvals, starts the workflow for them, and answers the proxies' polls.
func newReview(st awscdk.Stack, c *Config, s stores, machine awsstepfunctions.StateMachine, dist string) awslambda.Function {
	log := newLogGroup(st, "ReviewLog")
	role := newFunctionRole(st, "ReviewRole", "Function review: opens approvals, starts their workflow", log)
	role.AddToPolicy(rows("Approvals", s.approvals, []string{"approval"}, "BatchGetItem", "GetItem", "PutItem"))
	role.AddToPolicy(rows("Asks", s.approvals, []string{"ask", "once"}, "GetItem", "PutItem"))
	role.AddToPolicy(rows("Granted", s.approvals, []string{"grants"}, "Query"))
	role.AddToPolicy(rows("Known", s.approvals, []string{"known"}, "GetItem"))
	role.AddToPolicy(rows("Limit", s.approvals, []string{"limit"}, "UpdateItem"))
	readPolicy(role, s.policy)
	role.AddToPolicy(allow("Start", strs("states:StartExecution"), machine.StateMachineArn()))
	return newFunction(st, dist, function{
		id: "Review", name: settings.ReviewFunction,
		what:    "Opens approvals and answers the proxies' polls",
		timeout: 10, memory: 512, role: role, log: log, // it builds what reviewers see
		settings: settings.Review{
			Approvals:    *s.approvals.TableName(),
			PolicyBucket: *s.policy.BucketName(),
			Workflow:     *machine.StateMachineArn(),
			ReviewsURL:   reviewsURL(c),
		},
	})
}

// newNotify is the function that the workflow calls: it keeps the task's token and tells reviewers. It is the only one
// that sends mail. It may leave a token and a link, and read neither back.
func newNotify(st awscdk.Stack, c *Config, s stores, dist string) awslambda.Function {
	log := newLogGroup(st, "NotifyLog")
	role := newFunctionRole(st, "NotifyRole", "Function notify: tells reviewers", log)
	role.AddToPolicy(rows("Approvals", s.approvals, []string{"approval"}, "GetItem", "PutItem"))
	role.AddToPolicy(rows("Grants", s.approvals, []string{"grants"}, "DeleteItem")) // of one that is over
	role.AddToPolicy(rows("Left", s.approvals, []string{"link", "task"}, "PutItem"))
	role.AddToPolicy(rows("Sent", s.approvals, []string{"sent"}, "PutItem", "Query"))
	role.AddToPolicy(rows("Known", s.approvals, []string{"known"}, "GetItem"))
	readPolicy(role, s.policy)
	readSlack(role, c)
	if from := c.Reviews.Mail.From; from != "" {
		// Whichever of the two is verified in SES, and what it sends as either way.
		_, domain, _ := strings.Cut(from, "@")
		identity := func(name string) *string {
			return str(fmt.Sprintf("arn:%s:ses:%s:%s:identity/%s", partition(c.Region), c.Region, c.Account, name))
		}
		mail := allow("Mail", strs("ses:SendEmail"), identity(from), identity(domain))
		mail.AddCondition(str("StringEquals"), map[string]any{"ses:FromAddress": from})
		role.AddToPolicy(mail)
	}
	return newFunction(st, dist, function{
		id: "Notify", name: settings.NotifyFunction,
		what:    "Tells reviewers, called by the workflow",
		timeout: 30, memory: 256, role: role, log: log, // Slack and mail servers take their time
		settings: settings.Notify{
			Approvals:    *s.approvals.TableName(),
			PolicyBucket: *s.policy.BucketName(),
			ReviewsURL:   reviewsURL(c),
			SlackSecret:  c.Reviews.Slack.Secret,
			MailFrom:     c.Reviews.Mail.From,
		},
	})
}

// newCallback is the function behind the reviewers' pages, Slack's buttons and the links in mails. It is the only one that
// may end a task of the workflow, and the only one that the internet reaches.
func newCallback(st awscdk.Stack, c *Config, s stores, pages awssecretsmanager.Secret, machine awsstepfunctions.StateMachine, dist string) awslambda.Function {
	log := newLogGroup(st, "CallbackLog")
	role := newFunctionRole(st, "CallbackRole", "Function callback: verifies reviewers' answers", log)
	role.AddToPolicy(rows("Approvals", s.approvals, []string{"approval"}, "GetItem", "PutItem"))
	role.AddToPolicy(rows("Grants", s.approvals, []string{"grants"}, "DeleteItem", "PutItem"))
	role.AddToPolicy(rows("Links", s.approvals, []string{"link"}, "GetItem", "UpdateItem"))
	role.AddToPolicy(rows("People", s.approvals, []string{"known", "once"}, "GetItem", "PutItem"))
	role.AddToPolicy(rows("Task", s.approvals, []string{"task"}, "GetItem"))
	role.AddToPolicy(allow("List", strs("dynamodb:Query"), str(*s.approvals.TableArn()+"/index/"+settings.Approvals.Index.Name)))
	readPolicy(role, s.policy)
	role.AddToPolicy(allow("Pages", strs("secretsmanager:GetSecretValue"), pages.SecretArn()))
	readSlack(role, c)
	role.AddToPolicy(allow("Answer", strs("states:SendTaskSuccess"), machine.StateMachineArn()))
	return newFunction(st, dist, function{
		id: "Callback", name: settings.CallbackFunction,
		what:    "The reviewers' pages and API, Slack buttons and mail links",
		timeout: 10, memory: 256, role: role, log: log,
		settings: settings.Callback{
			Approvals:    *s.approvals.TableName(),
			PolicyBucket: *s.policy.BucketName(),
			ReviewsURL:   reviewsURL(c),
			PagesSecret:  settings.PagesSecret,
			SlackSecret:  c.Reviews.Slack.Secret,
		},
	})
}

// readSlack lets a function read Slack's secret, where there is one. It is not this stack's: its ARN ends in six characters
// that nobody knows before it is there.
func readSlack(role awsiam.Role, c *Config) {
	if name := c.Reviews.Slack.Secret; name != "" {
		arn := fmt.Sprintf("arn:%s:secretsmanager:%s:%s:secret:%s-??????", partition(c.Region), c.Region, c.Account, name)
		role.AddToPolicy(allow("Slack", strs("secretsmanager:GetSecretValue"), &arn))
	}
}

// newWorkflow is the state machine that one approval is one execution of. It may call notify and nothing else. Its log
// holds no inputs: ids only, but a task's token is in what it passes on.
func newWorkflow(st awscdk.Stack, c *Config, notify awslambda.Function) awsstepfunctions.StateMachine {
	arn := fmt.Sprintf("arn:%s:states:%s:%s:stateMachine:%s", partition(c.Region), c.Region, c.Account, settings.Workflow)
	role := awsiam.NewRole(st, str("WorkflowRole"), &awsiam.RoleProps{
		Description: str("The review workflow: calls function notify"),
		AssumedBy: awsiam.NewServicePrincipal(service("states"), &awsiam.ServicePrincipalOpts{
			Conditions: &map[string]any{"StringEquals": map[string]any{"aws:SourceAccount": c.Account, "aws:SourceArn": arn}},
		}),
	})
	role.AddToPolicy(allow("Notify", strs("lambda:InvokeFunction"), notify.FunctionArn()))
	return awsstepfunctions.NewStateMachine(st, str("Workflow"), &awsstepfunctions.StateMachineProps{
		StateMachineName: str(settings.Workflow),
		StateMachineType: awsstepfunctions.StateMachineType_STANDARD,
		// From a string, since from a file it would travel as an asset and not be seen in the template.
		DefinitionBody:          awsstepfunctions.DefinitionBody_FromString(str(definition(c.Region))),
		DefinitionSubstitutions: &map[string]*string{"NotifyFunction": notify.FunctionArn()},
		Role:                    role,
		TracingEnabled:          yes,
		Logs: &awsstepfunctions.LogOptions{
			Destination: newLogGroup(st, "WorkflowLog"), Level: awsstepfunctions.LogLevel_ERROR, IncludeExecutionData: no,
		},
	})
}

// announcePolicies tells function notify of every policy that is put into its bucket as the one in force, or taken out, by
// whomever. It goes by EventBridge, in the words of S3's own notifications: those would have the bucket wait for the function
// that waits for the bucket.
func announcePolicies(st awscdk.Stack, s stores, notify awslambda.Function) (rules []constructs.IDependable) {
	field := func(path string) *string { return awsevents.EventField_FromPath(str("$.detail." + path)) }
	for _, e := range []struct{ id, detail, name, what string }{
		{"PolicyPut", "Object Created", "ObjectCreated", "A policy was put: reviewers are told"},
		{"PolicyTaken", "Object Deleted", "ObjectRemoved", "The policy was deleted: reviewers are told"},
	} {
		record := map[string]any{
			"eventSource": "aws:s3", "eventName": e.name, "eventTime": awsevents.EventField_Time(),
			"userIdentity": map[string]any{"principalId": field("requester")}, // the account; CloudTrail knows who
			"s3": map[string]any{
				"bucket": map[string]any{"name": field("bucket.name")},
				"object": map[string]any{"key": field("object.key"), "versionId": field("object.version-id"), "sequencer": field("object.sequencer")},
			},
		}
		rules = append(rules, awsevents.NewRule(st, &e.id, &awsevents.RuleProps{
			Description: &e.what,
			EventPattern: &awsevents.EventPattern{
				Source: strs("aws.s3"), DetailType: strs(e.detail),
				Detail: &map[string]any{
					"bucket": map[string]any{"name": []*string{s.policy.BucketName()}},
					"object": map[string]any{"key": []string{settings.PolicyCurrent}},
				},
			},
			Targets: &[]awsevents.IRuleTarget{awseventstargets.NewLambdaFunction(notify, &awseventstargets.LambdaFunctionProps{
				Event: awsevents.RuleTargetInput_FromObject(map[string]any{"Records": []any{record}}),
			})},
		}))
	}
	return rules
}

// What the front lets through in a second, and at once: people, their command lines and Slack, and no flood that would take
// the account's functions from the proxy.
const (
	frontRate  = 50
	frontBurst = 100
)

// newFront is the HTTP API before function callback, under the reviewers' own name and no other. It knows no routes: what
// is answered is the function's, and the same on one machine.
func newFront(st awscdk.Stack, c *Config, callback awslambda.Function) apigw.DomainName {
	domain := apigw.NewDomainName(st, str("ReviewsDomain"), &apigw.DomainNameProps{
		DomainName:     &c.Reviews.Host,
		Certificate:    awscertificatemanager.Certificate_FromCertificateArn(st, str("ReviewsCertificate"), &c.Reviews.Certificate),
		EndpointType:   apigw.EndpointType_REGIONAL,
		SecurityPolicy: apigw.SecurityPolicy_TLS_1_2,
	})
	api := apigw.NewHttpApi(st, str("Reviews"), &apigw.HttpApiProps{
		ApiName: str("sallyport-reviews"), Description: str("The reviewers' pages and API"),
		CreateDefaultStage: no, DisableExecuteApiEndpoint: yes,
		DefaultIntegration: awsapigatewayv2integrations.NewHttpLambdaIntegration(str("Callback"), callback, &awsapigatewayv2integrations.HttpLambdaIntegrationProps{
			PayloadFormatVersion: apigw.PayloadFormatVersion_VERSION_2_0(),
		}),
	})
	stage := apigw.NewHttpStage(st, str("ReviewsStage"), &apigw.HttpStageProps{
		HttpApi: api, StageName: str("$default"), AutoDeploy: yes,
		DomainMapping: &apigw.DomainMappingOptions{DomainName: domain},
		Throttle:      &apigw.ThrottleSettings{RateLimit: num(frontRate), BurstLimit: num(frontBurst)},
	})
	// No path: a link in a mail is one, and whoever reads logs could follow it.
	stage.Node().DefaultChild().(apigw.CfnStage).SetAccessLogSettings(&apigw.CfnStage_AccessLogSettingsProperty{
		DestinationArn: newLogGroup(st, "ReviewsLog").LogGroupArn(),
		Format: str(`{"time":"$context.requestTime","request":"$context.requestId","ip":"$context.identity.sourceIp",` +
			`"method":"$context.httpMethod","status":"$context.status","bytes":"$context.responseLength",` +
			`"milliseconds":"$context.responseLatency","error":"$context.integrationErrorMessage"}`),
	})
	return domain
}

// newAlarms is what somebody should look at. Nothing is told of them: whom to tell, and how, is the account's.
func newAlarms(st awscdk.Stack, r reviews) (names []string) {
	sum := &awscloudwatch.MetricOptions{Period: seconds(300), Statistic: str("Sum")}
	for _, a := range []struct {
		name, what string
		metric     awscloudwatch.Metric
		threshold  int
	}{
		{"workflow-failed", "An execution of the review workflow failed: an approval may wait for nobody", r.workflow.MetricFailed(sum), 1},
		{"workflow-timed-out", "An execution of the review workflow ran out of time", r.workflow.MetricTimedOut(sum), 1},
		// One is tried again by the workflow, or says that the approval was decided meanwhile.
		{"notify-errors", "Function notify fails: reviewers may not be told", r.notify.MetricErrors(sum), 3},
		{"notify-throttles", "Function notify is throttled: reviewers are told late", r.notify.MetricThrottles(sum), 1},
		{"callback-errors", "Function callback fails: reviewers may not be able to answer", r.callback.MetricErrors(sum), 1},
		{"callback-throttles", "Function callback is throttled: reviewers may not be able to answer", r.callback.MetricThrottles(sum), 1},
	} {
		name := "sallyport-" + a.name
		awscloudwatch.NewAlarm(st, construct("Alarm", a.name), &awscloudwatch.AlarmProps{
			AlarmName: &name, AlarmDescription: &a.what, Metric: a.metric,
			Threshold: num(a.threshold), EvaluationPeriods: num(1),
			ComparisonOperator: awscloudwatch.ComparisonOperator_GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
			TreatMissingData:   awscloudwatch.TreatMissingData_NOT_BREACHING,
		})
		names = append(names, name)
	}
	return names
}
