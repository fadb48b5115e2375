package main

import (
	"fmt"
	"path/filepath"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awseks"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslogs"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/awssecretsmanager"
	"github.com/aws/constructs-go/constructs/v10"

	"sallyport/shared/settings"
)

// A function is one of the broker's: what it is called, how long and how big it may get, and what it is told.
type function struct {
	id, name, what  string
	timeout, memory int // seconds, MiB
	role            awsiam.Role
	log             awslogs.LogGroup
	settings        any
}

// newFunction is in no VPC: a function of the broker talks to the internet, to issuers or to Slack.
func newFunction(st awscdk.Stack, dist string, f function) awslambda.Function {
	return awslambda.NewFunction(st, &f.id, &awslambda.FunctionProps{
		FunctionName: &f.name,
		Description:  &f.what,
		Runtime:      awslambda.Runtime_PROVIDED_AL2023(),
		Architecture: awslambda.Architecture_ARM_64(),
		Handler:      str("bootstrap"),
		Code:         awslambda.Code_FromAsset(str(filepath.Dir(binary(dist, f.name))), nil),
		Role:         f.role,
		Timeout:      seconds(f.timeout),
		MemorySize:   num(f.memory),
		Tracing:      awslambda.Tracing_ACTIVE,
		LogGroup:     f.log,
		Environment:  environment(f.settings),
	})
}

// newKey is a secret that is made once and that nobody needs to know: {"key": 64 random letters and digits}.
func newKey(st awscdk.Stack, id, name, what string) awssecretsmanager.Secret {
	return awssecretsmanager.NewSecret(st, &id, &awssecretsmanager.SecretProps{
		SecretName: &name, Description: &what,
		GenerateSecretString: &awssecretsmanager.SecretStringGenerator{
			SecretStringTemplate: str("{}"), GenerateStringKey: str("key"), PasswordLength: num(64), ExcludePunctuation: yes,
		},
		RemovalPolicy: awscdk.RemovalPolicy_RETAIN,
	})
}

// readPolicy lets a function find the policy in force by itself: the objects, and the versions of the newest first, which
// a function that starts walks back through when the newest does not load.
func readPolicy(role awsiam.Role, bucket awss3.Bucket) {
	role.AddToPolicy(allow("Policy", strs("s3:GetObject", "s3:GetObjectVersion"), under(bucket.BucketArn(), settings.PolicyPrefix)))
	versions := allow("PolicyVersions", strs("s3:ListBucketVersions"), bucket.BucketArn())
	versions.AddCondition(str("StringEquals"), map[string]any{"s3:prefix": settings.PolicyCurrent})
	role.AddToPolicy(versions)
}

// newExchange is the function that verifies an agent's token and answers with the credentials of its tier, or of the tier
// of an approval that it redeems. It is the only holder of the right to assume tier roles.
func newExchange(st awscdk.Stack, c *Config, s stores, dist string) awslambda.Function {
	log := newLogGroup(st, "ExchangeLog")
	role := newFunctionRole(st, "ExchangeRole", "Function exchange: opens sessions, mints tier credentials", log)
	// A transaction needs the rights of its parts. Nothing here lists or scans.
	role.AddToPolicy(allow("Sessions", strs("dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:UpdateItem"), s.sessions.TableArn()))
	role.AddToPolicy(rows("Redeem", s.approvals, []string{"approval"}, "GetItem", "PutItem"))
	role.AddToPolicy(rows("Grants", s.approvals, []string{"grants"}, "DeleteItem")) // of one that is over
	readPolicy(role, s.policy)
	// The tiers' ARNs are the policy's words, which the configuration checked; the roles' own would make a circle.
	var tiers, clusters []*string
	for _, t := range c.Rules.Tiers {
		tiers = append(tiers, str(t.Role))
	}
	for _, cl := range c.Rules.Clusters {
		clusters = append(clusters, str(fmt.Sprintf("arn:%s:eks:%s:%s:cluster/%s", partition(c.Region), cl.Region, c.Account, cl.Name)))
	}
	masks := newKey(st, "Masks", settings.MaskSecret, "What masks of secrets are made with, a key a session")
	role.AddToPolicy(allow("Masks", strs("secretsmanager:GetSecretValue"), masks.SecretArn()))
	role.AddToPolicy(allow("Tiers", strs("sts:AssumeRole", "sts:SetSourceIdentity", "sts:TagSession"), tiers...))
	role.AddToPolicy(allow("Clusters", strs("eks:DescribeCluster"), clusters...))

	return newFunction(st, dist, function{
		id: "Exchange", name: settings.ExchangeFunction,
		what:    "Turns an agent's token into a session and its tier's credentials (RFC 8693), and redeems approvals",
		timeout: 10, memory: 256, role: role, log: log,
		settings: settings.Exchange{
			Table:        *s.sessions.TableName(),
			Approvals:    *s.approvals.TableName(),
			PolicyBucket: *s.policy.BucketName(),
			MaskSecret:   settings.MaskSecret,
		},
	})
}

// newTiers makes one role per tier, and its access entry on every cluster, and returns them all. The role of a tier that is
// nobody's base tier, since only an approval leads to it, is assumed by nobody who does not name the approval.
//
// The roles have no permissions in AWS at all: what a tier may do is what RBAC gives its Kubernetes group. Only
// function exchange may assume them, and only when it says who for: CloudTrail and the cluster's audit log name the
// agent, or there is no credential.
func newTiers(st awscdk.Stack, c *Config, exchange awslambda.Function) (made []constructs.IDependable) {
	who := awsiam.NewArnPrincipal(exchange.Role().RoleArn())
	trust := func(sid, action string, conditions map[string]any) awsiam.PolicyStatement {
		return awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
			Sid: &sid, Principals: &[]awsiam.IPrincipal{who}, Actions: strs(action), Conditions: &conditions,
		})
	}
	for _, t := range c.Rules.Tiers {
		// AWS asks each action of the trust policy by itself, and each with its own condition keys: SetSourceIdentity
		// knows no tags and TagSession no source identity. AssumeRole, without which the others are nothing, knows both.
		tags := func(identity bool) map[string]any {
			present := map[string]any{
				"aws:RequestTag/" + settings.TagPrincipal: "?*",
				"aws:RequestTag/" + settings.TagSession:   "?*",
			}
			if identity {
				present["sts:SourceIdentity"] = "?*"
			}
			if len(t.Groups) == 0 {
				present["aws:RequestTag/"+settings.TagApproval] = "?*"
			}
			return map[string]any{
				"StringEquals":              map[string]any{"aws:RequestTag/" + settings.TagTier: t.Name},
				"StringLike":                present,
				"ForAllValues:StringEquals": map[string]any{"aws:TagKeys": []string{settings.TagApproval, settings.TagPrincipal, settings.TagSession, settings.TagTier}},
			}
		}
		role := awsiam.NewRole(st, construct("Tier", t.Name), &awsiam.RoleProps{
			RoleName:           str(t.Name),
			Path:               str(settings.RolePath),
			Description:        str(fmt.Sprintf("Tier %s: Kubernetes group %s, and nothing in AWS", t.Name, t.Group)),
			AssumedBy:          who,
			MaxSessionDuration: awscdk.Duration_Hours(num(1)), // a chained role gets no more
		})
		doc := awsiam.NewPolicyDocument(&awsiam.PolicyDocumentProps{Statements: &[]awsiam.PolicyStatement{
			trust("Assume", "sts:AssumeRole", tags(true)),
			trust("Tag", "sts:TagSession", tags(false)),
			trust("Name", "sts:SetSourceIdentity", map[string]any{"StringLike": map[string]any{"sts:SourceIdentity": "?*"}}),
		}})
		// AssumedBy would leave an AssumeRole without conditions.
		role.Node().DefaultChild().(awsiam.CfnRole).SetAssumeRolePolicyDocument(doc)
		made = append(made, role)

		for _, cl := range c.Rules.Clusters {
			// CfnAccessEntry, because the CDK's AccessEntry has no groups. No user name: EKS's own,
			// arn:...:assumed-role/<tier>/{{SessionName}}, is the one that names the agent.
			made = append(made, awseks.NewCfnAccessEntry(st, construct("Entry", cl.Name, t.Name), &awseks.CfnAccessEntryProps{
				ClusterName: str(cl.Name), PrincipalArn: role.RoleArn(), Type: str("STANDARD"), KubernetesGroups: strs(t.Group),
			}))
		}
	}
	return made
}
