package main

import (
	"encoding/base64"
	"encoding/hex"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsdynamodb"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awss3"
	"github.com/aws/aws-cdk-go/awscdk/v2/customresources"
	"github.com/aws/constructs-go/constructs/v10"

	"sallyport/shared/settings"
)

// stores is where the gate keeps things. All of it stays when the stack is deleted.
type stores struct {
	sessions   awsdynamodb.Table
	approvals  awsdynamodb.Table
	policy     awss3.Bucket
	recordings awss3.Bucket
	logs       awss3.Bucket
}

func newStores(st awscdk.Stack, c *Config) stores {
	var s stores
	s.sessions = newTable(st, "Sessions", settings.Sessions)
	s.approvals = newTable(st, "Approvals", settings.Approvals)

	s.logs = newBucket(st, "Logs", awss3.BucketProps{
		LifecycleRules: &[]*awss3.LifecycleRule{{Id: str("expire"), Expiration: days(365)}},
	})
	s.policy = newBucket(st, "Policies", awss3.BucketProps{
		Versioned: yes, ServerAccessLogsBucket: s.logs, ServerAccessLogsPrefix: str("s3/policies/"),
	})
	// By the resource itself: the CDK's EventBridgeEnabled would add a function that may change every bucket's notifications.
	s.policy.Node().DefaultChild().(awss3.CfnBucket).SetNotificationConfiguration(&awss3.CfnBucket_NotificationConfigurationProperty{
		EventBridgeConfiguration: &awss3.CfnBucket_EventBridgeConfigurationProperty{EventBridgeEnabled: yes},
	})
	// Governance, not compliance: whoever holds s3:BypassGovernanceRetention can still undo a mistake. No role here does.
	s.recordings = newBucket(st, "Recordings", awss3.BucketProps{
		Versioned: yes, ServerAccessLogsBucket: s.logs, ServerAccessLogsPrefix: str("s3/recordings/"),
		ObjectLockEnabled: yes, ObjectLockDefaultRetention: awss3.ObjectLockRetention_Governance(days(c.Recordings.RetentionDays)),
	})
	// Nor is anything ever put over a recording: a put that does not demand a new key is refused, whoever puts.
	s.recordings.AddToResourcePolicy(awsiam.NewPolicyStatement(&awsiam.PolicyStatementProps{
		Sid: str("NeverOver"), Effect: awsiam.Effect_DENY, Principals: &[]awsiam.IPrincipal{awsiam.NewAnyPrincipal()},
		Actions: strs("s3:PutObject"), Resources: &[]*string{s.recordings.ArnForObjects(str("*"))},
		Conditions: &map[string]any{"Null": map[string]any{"s3:if-none-match": "true"}},
	}))
	return s
}

func newBucket(st awscdk.Stack, id string, p awss3.BucketProps) awss3.Bucket {
	p.BlockPublicAccess = awss3.BlockPublicAccess_BLOCK_ALL()
	p.EnforceSSL = yes
	p.Encryption = awss3.BucketEncryption_S3_MANAGED // access logs can be delivered to no other kind
	p.ObjectOwnership = awss3.ObjectOwnership_BUCKET_OWNER_ENFORCED
	p.RemovalPolicy = awscdk.RemovalPolicy_RETAIN
	return awss3.NewBucket(st, &id, &p)
}

func newTable(st awscdk.Stack, id string, t settings.Table) awsdynamodb.Table {
	table := awsdynamodb.NewTable(st, &id, &awsdynamodb.TableProps{
		TableName:                        &t.Name,
		PartitionKey:                     key(t.PartitionKey),
		SortKey:                          key(t.SortKey),
		TimeToLiveAttribute:              &t.TTL,
		BillingMode:                      awsdynamodb.BillingMode_PAY_PER_REQUEST,
		Encryption:                       awsdynamodb.TableEncryption_AWS_MANAGED,
		PointInTimeRecoverySpecification: &awsdynamodb.PointInTimeRecoverySpecification{PointInTimeRecoveryEnabled: yes},
		DeletionProtection:               yes,
		RemovalPolicy:                    awscdk.RemovalPolicy_RETAIN,
	})
	if i := t.Index; i != nil {
		table.AddGlobalSecondaryIndex(&awsdynamodb.GlobalSecondaryIndexProps{
			IndexName: &i.Name, PartitionKey: key(i.PartitionKey), SortKey: key(i.SortKey), ProjectionType: awsdynamodb.ProjectionType_ALL,
		})
	}
	return table
}

// rows allows what a function does to the items of its kinds: the first words of their partition keys, which the table's
// layout in package settings names. A function that is broken into reaches no others. Every action given here carries the
// keys it is about, so that ForAllValues is never asked about none.
func rows(sid string, table awsdynamodb.Table, kinds []string, actions ...string) awsiam.PolicyStatement {
	var keys []string
	for _, k := range kinds {
		keys = append(keys, k+"#*")
	}
	for i, a := range actions {
		actions[i] = "dynamodb:" + a
	}
	s := allow(sid, strs(actions...), table.TableArn())
	s.AddCondition(str("ForAllValues:StringLike"), map[string]any{"dynamodb:LeadingKeys": keys})
	return s
}

func key(name string) *awsdynamodb.Attribute {
	if name == "" {
		return nil
	}
	return &awsdynamodb.Attribute{Name: &name, Type: awsdynamodb.AttributeType_STRING}
}

// putPolicy puts the policy's exact bytes into its bucket, twice: under its digest, since recordings name policies by
// digest, and as the newest version of settings.PolicyCurrent, which is the policy in force from then on. What it returns
// is done when both lie there. The checksum is the digest again, so S3 itself refuses anything but those bytes and the
// deployment with it. Nothing is ever deleted. A BucketDeployment would do it with a role that may read, overwrite and
// delete everything in the bucket.
//
// after is what the policy speaks of: the tiers' roles, their access entries, and the function that may assume them. A
// policy that takes effect before those are there promises what nobody can keep.
func putPolicy(st awscdk.Stack, c *Config, bucket awss3.Bucket, after ...constructs.IDependable) customresources.AwsCustomResource {
	sum, err := hex.DecodeString(c.Rules.Digest)
	if err != nil {
		panic(err) // policy.Load made it
	}
	log := newLogGroup(st, "PolicyWriterLog")
	role := newFunctionRole(st, "PolicyWriterRole", "Puts the policy into its bucket while the stack is deployed", log)
	// The whole prefix and not today's key: a right that changes with every policy would not have spread yet when used.
	role.AddToPolicy(allow("PutPolicy", strs("s3:PutObject"), under(bucket.BucketArn(), settings.PolicyPrefix)))
	put := func(id, key string, after ...constructs.IDependable) customresources.AwsCustomResource {
		object := customresources.NewAwsCustomResource(st, &id, &customresources.AwsCustomResourceProps{
			ResourceType: str("Custom::SallyportPolicy"),
			// Also when updated: another policy is another call and another physical id, so every change is put, the way
			// back to an earlier policy and a deployment that is rolled back too. The old one has no OnDelete, so it stays.
			OnUpdate: &customresources.AwsSdkCall{
				Service: str("S3"), Action: str("PutObject"),
				Parameters: map[string]any{
					"Bucket":         bucket.BucketName(),
					"Key":            key,
					"Body":           string(c.PolicyText),
					"ContentType":    "application/yaml",
					"ChecksumSHA256": base64.StdEncoding.EncodeToString(sum),
				},
				PhysicalResourceId: customresources.PhysicalResourceId_Of(&c.Rules.Digest),
				OutputPaths:        strs("ETag"),
				Logging:            customresources.Logging_WithDataHidden(),
			},
			Role: role, LogGroup: log, InstallLatestAwsSdk: no, Timeout: seconds(60),
		})
		object.Node().AddDependency(append(after, role)...)
		return object
	}
	kept := put("PolicyObject", settings.PolicyKey(c.Rules.Digest))
	return put("PolicyCurrent", settings.PolicyCurrent, append(after, kept)...)
}
