// Command callback is the Lambda function that reviewers answer through: the pages, the reviewers' API, Slack's buttons and
// the links in mails. It turns an answer into one conditional write on the approval, and only then wakes the workflow that
// waits for it.
//
// # What it promises
//
// Nothing a GET or a HEAD does decides anything, so that scanners of mail and previews of links can follow what they like.
// Who answers has proven who they are, in this very request or within the hour, in the way that their reviewer group's entry
// in today's policy says: a login at the group's issuer for the group's audience (pages), a token of the same (API), a
// workspace and user id that the group enrolled, in an interaction that Slack signed and that was not taken before (Slack), or,
// only where the rule says that a link alone is enough, a link that was mailed to that one person, once. Whether that person
// may answer this question is said by package approval, again at the moment of the write.
//
// # Against whom
//
// Against anybody on the internet, whom it is open to; against another site in a reviewer's browser (Fetch metadata, and a
// token in every form that is bound to the login); against text in requests, which agents choose (templates escape it, and no
// script runs on these pages, whatever finds its way into them); against an agent that reads its owner's mail; and against
// Slack payloads that were changed, kept, or sent twice.
//
// # Blast radius
//
// It may write approvals and end tasks of the workflow. It cannot mint a credential, read a cluster, or redeem what it
// approved: function exchange computes everything again from the agent's own token and bytes. Whoever controls this function
// can say yes to what agents ask, within what the policy asks about. Whoever has the pages' secret can be any reviewer on the
// pages; whoever has Slack's signing secret can be any reviewer who is enrolled there.
//
// # What it does not promise
//
// Logging out forgets the login in one browser: a copy of its cookie is good until it expires, within the hour. The token of
// a link is in its address, and so in the history of a browser. Logins are those of a public client with PKCE: an issuer that
// wants a client secret as well cannot be used.
package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"
	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/aws/aws-sdk-go-v2/service/sfn/types"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"
	api "github.com/slack-go/slack"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/identity"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/slack"
	"sallyport/shared/store"
)

// lookEvery is how old a look at the policy may be when somebody answers.
const lookEvery = 2 * time.Second

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	h, err := start(context.Background(), log)
	if err != nil {
		log.Error("callback cannot start", "error", err)
		os.Exit(1)
	}
	lambda.Start(proxied(h))
}

// proxied serves an API Gateway HTTP API (payload 2.0). The adapter decodes base64 bodies to the bytes that were sent, takes
// cookies as the list they come as, and splits every other header at its commas, so that two signatures stay two.
func proxied(h http.Handler) func(context.Context, events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
	adapter := httpadapter.NewV2(h)
	return func(ctx context.Context, e events.APIGatewayV2HTTPRequest) (events.APIGatewayV2HTTPResponse, error) {
		unreadable := events.APIGatewayV2HTTPResponse{StatusCode: http.StatusBadRequest, Headers: map[string]string{"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store"}, Body: "the request cannot be read\n"}
		// The adapter prints an address that it cannot read, and that of a link is a secret.
		if _, err := url.Parse("https://host" + e.RawPath + "?" + e.RawQueryString); err != nil {
			return unreadable, nil
		}
		answer, err := adapter.ProxyWithContext(ctx, e)
		if err != nil {
			return unreadable, nil //nolint:nilerr // the caller's mistake is no fault of the function
		}
		return answer, nil
	}
}

func start(ctx context.Context, log *slog.Logger) (http.Handler, error) {
	set, err := settings.From[settings.Callback](os.Getenv)
	if err != nil {
		return nil, err
	}
	conf, err := config.LoadDefaultConfig(ctx)
	if err != nil {
		return nil, err
	}
	table := store.NewApprovals(dynamodb.NewFromConfig(conf), set.Approvals)
	keeper := inforce.New(inforce.Config{
		Policies: inforce.In(policystore.Store{Client: s3.NewFromConfig(conf, policystore.PathStyle), Bucket: set.PolicyBucket}),
		Every:    lookEvery,
		Log:      log,
	})
	secrets := secretsmanager.NewFromConfig(conf)
	read := func(name string) func(context.Context) (string, error) {
		return func(ctx context.Context) (string, error) {
			out, err := secrets.GetSecretValue(ctx, &secretsmanager.GetSecretValueInput{SecretId: &name})
			if err != nil {
				return "", err
			}
			return aws.ToString(out.SecretString), nil
		}
	}
	c := siteConfig{
		policies: keeper, approvals: table, kept: table, people: table,
		workflow: stepFunctions{sfn.NewFromConfig(conf)},
		providers: &discovered{now: time.Now, discover: func(ctx context.Context, i access.Issuer) (identity.Provider, error) {
			return identity.Discover(ctx, i, nil)
		}},
		secret: read(set.PagesSecret), url: set.ReviewsURL, now: time.Now, log: log,
	}
	if set.SlackSecret != "" {
		c.chat = &bot{secrets: slack.NewSecrets(read(set.SlackSecret), time.Now), url: set.SlackURL}
	}
	_, _, _ = keeper.InForce(ctx) // now, while nobody waits for it, and again with every answer
	return newSite(c)
}

// stepFunctions is the workflow.
type stepFunctions struct{ client *sfn.Client }

// Succeed implements workflow.
func (f stepFunctions) Succeed(ctx context.Context, token, output string) error {
	_, err := f.client.SendTaskSuccess(ctx, &sfn.SendTaskSuccessInput{TaskToken: &token, Output: &output})
	var timedOut *types.TaskTimedOut
	var gone *types.TaskDoesNotExist
	var invalid *types.InvalidToken
	if errors.As(err, &timedOut) || errors.As(err, &gone) || errors.As(err, &invalid) {
		return errLate
	}
	return err
}

// bot is Slack.
type bot struct {
	secrets *slack.Secrets
	url     string
}

// Secret implements chat.
func (b *bot) Secret(ctx context.Context) (slack.Secret, error) { return b.secrets.Get(ctx) }

// Open implements chat.
func (b *bot) Open(ctx context.Context, trigger string, view api.ModalViewRequest) error {
	return b.call(ctx, func(c *slack.Client) error { return c.Open(ctx, trigger, view) })
}

// Tell implements chat.
func (b *bot) Tell(ctx context.Context, channel, user, text string) error {
	return b.call(ctx, func(c *slack.Client) error { return c.Whisper(ctx, channel, user, slack.Announce("Sallyport", text)) })
}

func (b *bot) call(ctx context.Context, f func(*slack.Client) error) error {
	secret, err := b.secrets.Get(ctx)
	if err != nil {
		return err
	}
	err = f(slack.New(secret.BotToken, b.url))
	if access.KindOf(err) == access.Unauthenticated {
		b.secrets.Failed()
	}
	return err
}
