// Command exchange is the Lambda function that turns an agent's OIDC token into a session on a cluster and the
// credentials of the session's base tier.
//
// It trusts nobody but the issuers in the policy: the proxy that calls it passes the agent's own token on, and this
// function verifies it itself. What whoever may invoke it gains is no more than what the tokens it holds are worth.
// It is the only thing that may assume the tiers' roles.
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
	"sallyport/shared/identity"
	"sallyport/shared/policy"
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
	file, err := policystore.Read(ctx, s3.NewFromConfig(aws, policystore.PathStyle), set.PolicyBucket, set.PolicyDigest)
	if err != nil {
		return nil, err
	}
	p, err := policy.Load(settings.PolicyKey(set.PolicyDigest), file)
	if err != nil {
		return nil, err
	}
	keys, err := identity.NewFetcher(identity.FetcherConfig{Issuers: p.Issuers})
	if err != nil {
		return nil, err
	}
	verifier, err := identity.New(identity.Config{Issuers: p.Issuers, Keys: keys})
	if err != nil {
		return nil, err
	}
	return &broker{
		policy:   p,
		verifier: verifier,
		keys:     keys,
		sessions: store.NewSessions(dynamodb.NewFromConfig(aws), set.Table),
		roles:    credential.Roles{STS: sts.NewFromConfig(aws)},
		clusters: cluster.New(eks.NewFromConfig(aws), time.Now),
		now:      time.Now,
		log:      log,
	}, nil
}
