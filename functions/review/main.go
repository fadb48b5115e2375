// Command review is the Lambda function that puts an agent's request before people, and the one that every proxy task asks
// once a second what became of what waits there.
//
// It trusts the proxy with little: the agent's own token is verified here, and what the request would do, which rule asks,
// whom it asks and what exactly a yes is bound to are computed here from the request's bytes, by today's policy. What a
// reviewer sees of the live object is the proxy's word, and the page says so.
//
// It promises that identical asks of one principal are one approval, on however many proxies they arrive; that an approval
// that was opened is put to people even when this function died right after, by whoever asks or polls next; that an agent
// cannot drown its reviewers; and that nothing is opened which nobody could answer or could see whole. Whoever may invoke it
// can ask in the name of agents whose tokens they hold, and learn the state of approvals whose ids they know. Nothing here
// decides anything, and nothing here can mint a credential.
package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/sfn"

	"sallyport/functions/inforce"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/store"
)

// lookEvery is how old a look at the policy may be when the function answers: a little less than the proxies wait between
// two polls, so that each poll finds what is new.
const lookEvery = 900 * time.Millisecond

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	d, err := start(context.Background(), log)
	if err != nil {
		log.Error("review cannot start", "error", err)
		os.Exit(1)
	}
	lambda.Start(d.handle)
}

func start(ctx context.Context, log *slog.Logger) (*desk, error) {
	set, err := settings.From[settings.Review](os.Getenv)
	if err != nil {
		return nil, err
	}
	aws, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	d := &desk{
		keeper: inforce.New(inforce.Config{
			Policies: inforce.In(policystore.Store{Client: s3.NewFromConfig(aws, policystore.PathStyle), Bucket: set.PolicyBucket}),
			Every:    lookEvery,
			Log:      log,
		}),
		approvals: store.NewApprovals(dynamodb.NewFromConfig(aws), set.Approvals),
		workflow:  workflow{client: sfn.NewFromConfig(aws), arn: set.Workflow},
		pages:     set.ReviewsURL,
		now:       time.Now,
		log:       log,
	}
	// Found out now, while nobody waits for it, and again with every answer.
	_, _, _ = d.keeper.InForce(ctx)
	return d, nil
}
