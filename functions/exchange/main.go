// Command exchange is the Lambda function that turns an agent's OIDC token into a session on a cluster and the
// credentials of the session's base tier.
//
// It trusts nobody but the issuers in the policy: the proxy that calls it passes the agent's own token on, and this
// function verifies it itself. What whoever may invoke it gains is no more than what the tokens it holds are worth.
// It is the only thing that may assume the tiers' roles.
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
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"sallyport/shared/cluster"
	"sallyport/shared/credential"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/store"
)

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
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	b := &broker{
		build:    build,
		sessions: store.NewSessions(dynamodb.NewFromConfig(aws), set.Table),
		roles:    credential.Roles{STS: sts.NewFromConfig(aws)},
		clusters: cluster.New(eks.NewFromConfig(aws), time.Now),
		now:      time.Now,
		log:      log,
	}
	b.policies = policystore.Follow(policystore.Store{Client: s3.NewFromConfig(aws, policystore.PathStyle), Bucket: set.PolicyBucket}, b.load)
	// Whether a policy is in force is found out now, while nobody waits for it, and again with every answer: a function
	// that starts while there is none refuses everything until there is.
	_, _, _ = b.inForce(ctx)
	return b, nil
}
