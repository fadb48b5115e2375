// Command exchange is the Lambda function that turns an agent's OIDC token into a session on a cluster and the
// credentials of the session's base tier, and an approval into those of the approval's tier.
//
// It trusts nobody but the issuers in the policy: the proxy that calls it passes the agent's own token on, and this
// function verifies it itself. What whoever may invoke it gains is no more than what the tokens it holds are worth.
// It is the only thing that may assume the tiers' roles.
//
// An approval is redeemed for the request people said yes to: who asks, what the bytes would do and whether the policy
// still asks for it are found out here, again, and one conditional write spends the yes before any credential is there. That
// write is the durable intent. Whatever fails after it and cannot be taken back is an outcome nobody knows, never a second
// try.
//
// It decides by the policy in force, the newest version that loads, which it looks for every few seconds while it is
// called; and it tells the proxies which one that is. No policy that loads, no answer.
package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"sallyport/functions/inforce"
	"sallyport/shared/cluster"
	"sallyport/shared/credential"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/store"
)

// lookEvery is how old a look at the policy may be when the function answers.
const lookEvery = 4 * time.Second

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	b, err := start(context.Background(), log)
	if err != nil {
		log.Error("exchange cannot start", "error", err)
		os.Exit(1)
	}
	lambda.Start(b.handle)
}

func start(ctx context.Context, log *slog.Logger) (*broker, error) {
	set, err := settings.From[settings.Exchange](os.Getenv)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	db := dynamodb.NewFromConfig(cfg)
	secrets := secretsmanager.NewFromConfig(cfg)
	b := &broker{
		masks: &maskKeys{read: func(ctx context.Context) (string, error) {
			out, err := secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &set.MaskSecret})
			if err != nil {
				return "", err
			}
			return aws.ToString(out.SecretString), nil
		}},
		keeper: inforce.New(inforce.Config{
			Policies: inforce.In(policystore.Store{Client: s3.NewFromConfig(cfg, policystore.PathStyle), Bucket: set.PolicyBucket}),
			Every:    lookEvery,
			Log:      log,
		}),
		sessions:  store.NewSessions(db, set.Table),
		approvals: store.NewApprovals(db, set.Approvals),
		roles:     credential.Roles{STS: sts.NewFromConfig(cfg)},
		clusters:  cluster.New(eks.NewFromConfig(cfg), time.Now),
		now:       time.Now,
		log:       log,
	}
	// Whether a policy is in force is found out now, while nobody waits for it, and again with every answer: a function
	// that starts while there is none refuses everything until there is.
	_, _, _ = b.keeper.InForce(ctx)
	return b, nil
}
