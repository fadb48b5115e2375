// Command notify is the Lambda function that tells people: it puts an approval's question to its reviewers in Slack and
// by mail, reminds them, asks others, and shows in place how it ended. The workflow calls it, and waits; S3 calls it when
// somebody puts another policy, so that every reviewer learns of that.
//
// It promises that one channel that is slow or away keeps nobody from being reached by another, and that an agent whose
// reviewers nobody can reach is told so at once, with what has to be set. A step that is done again, because a try was
// lost, sends nothing to whom it reached before.
//
// It decides nothing. It holds the task token of the workflow for as long as it takes to store it, and mail links for as
// long as it takes to send them; neither is in a log, and the token is in no message. Who can invoke it can make reviewers
// read about approvals there are; who controls it can read mail links, and so answer in the reviewers' names where a rule
// lets a link alone decide.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"

	"sallyport/functions/inforce"
	"sallyport/shared/mail"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/slack"
	"sallyport/shared/store"
)

// lookEvery is how old a look at the policy may be: whom to ask is not asked often.
const lookEvery = time.Second

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	n, err := start(context.Background(), log)
	if err != nil {
		log.Error("notify cannot start", "error", err)
		os.Exit(1)
	}
	lambda.Start(n.handle)
}

// start wires the function. A channel whose setting is wrong is no reason not to start: the others still work, and the
// approvals say what is wrong.
func start(ctx context.Context, log *slog.Logger) (*notifier, error) {
	set, err := settings.From[settings.Notify](os.Getenv)
	if err != nil {
		return nil, err
	}
	cfg, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	bucket := s3.NewFromConfig(cfg, policystore.PathStyle)
	n := &notifier{
		approvals: store.NewApprovals(dynamodb.NewFromConfig(cfg), set.Approvals),
		policies: inforce.New(inforce.Config{
			Policies: inforce.In(policystore.Store{Client: bucket, Bucket: set.PolicyBucket}),
			Every:    lookEvery,
			Log:      log,
		}),
		files:  files{client: bucket, bucket: set.PolicyBucket},
		bucket: set.PolicyBucket,
		pages:  set.ReviewsURL,
		now:    time.Now,
		log:    log,
	}
	if set.SlackSecret != "" {
		secrets := secretsmanager.NewFromConfig(cfg)
		n.chat = &chat{url: set.SlackURL, secrets: slack.NewSecrets(func(ctx context.Context) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, secretTime)
			defer cancel()
			out, err := secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &set.SlackSecret})
			if err != nil {
				return "", fmt.Errorf("reading secret %s: %w", set.SlackSecret, err)
			}
			return aws.ToString(out.SecretString), nil
		}, time.Now)}
		if _, err := n.chat.secrets.Get(ctx); err != nil {
			log.Error("Slack cannot be used", inforce.Why(err)...)
		}
	}
	if set.MailFrom != "" {
		sender, err := mail.New(sesv2.NewFromConfig(cfg), set.MailFrom)
		if err != nil {
			log.Error("mail cannot be used", inforce.Why(err)...)
			n.post = broken{err}
		} else {
			n.post = sender
		}
	}
	_, _, _ = n.policies.InForce(ctx)
	return n, nil
}

// broken is mail that cannot be sent, and why.
type broken struct{ err error }

func (b broken) Send(context.Context, mail.Message) (string, error) { return "", b.err }
