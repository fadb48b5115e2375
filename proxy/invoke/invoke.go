// Package invoke calls the broker's functions: the only things the proxy may ask of AWS besides storing recordings and
// reading the policy.
package invoke

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
)

// Client invokes function exchange: sessions, fresh keys, and the redemption of approvals. It is safe for concurrent use.
type Client struct {
	Lambda   *lambda.Client
	Function string
}

// Exchange asks for a session on a cluster and its credentials.
func (c Client) Exchange(ctx context.Context, token, cluster string) (broker.Token, error) {
	a, err := c.invoke(ctx, broker.Request{Exchange: &broker.Exchange{
		GrantType: broker.GrantType, SubjectToken: token, SubjectTokenType: broker.SubjectTokenType,
		RequestedTokenType: broker.CredentialsType, Audience: cluster,
	}})
	if err != nil {
		return broker.Token{}, err
	}
	if a.Token == nil || a.Token.IssuedTokenType != broker.CredentialsType {
		return broker.Token{}, away(fmt.Errorf("exchange answered without a token"))
	}
	return *a.Token, nil
}

// Redeem asks for the credentials of an approval's tier, for one request. It is invoked once and never again by itself:
// an answer that was lost may have been a yes that is used up. An error of kind unavailable means that nothing is known.
func (c Client) Redeem(ctx context.Context, r broker.Redeem) (broker.Token, error) {
	a, err := c.invoke(ctx, broker.Request{Redeem: &r}, func(o *lambda.Options) { o.RetryMaxAttempts = 1 })
	if err != nil {
		return broker.Token{}, err
	}
	if a.Token == nil || a.Token.IssuedTokenType != broker.CredentialsType || a.Token.Approval == nil {
		return broker.Token{}, away(fmt.Errorf("exchange answered a redemption without a token and its approval"))
	}
	return *a.Token, nil
}

// Keys asks for the issuers' public keys, fetched from them a moment ago.
func (c Client) Keys(ctx context.Context) ([]identity.IssuerKeys, error) {
	a, err := c.invoke(ctx, broker.Request{Keys: &broker.Keys{Fresh: true}})
	if err != nil {
		return nil, err
	}
	if a.Keys == nil {
		return nil, away(fmt.Errorf("keys answered without keys"))
	}
	var out []identity.IssuerKeys
	for _, k := range a.Keys.Issuers {
		out = append(out, identity.IssuerKeys(k))
	}
	return out, nil
}

func (c Client) invoke(ctx context.Context, req broker.Request, opts ...func(*lambda.Options)) (broker.Answer, error) {
	var a broker.Answer
	if err := call(ctx, c.Lambda, c.Function, req, &a, opts...); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error.Err()
	}
	return a, nil
}

// maxPayload is what Lambda takes in one synchronous call, less what its envelope may need.
// https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
const maxPayload = 6<<20 - 4<<10

// call invokes a function and decodes what it returned.
func call(ctx context.Context, client *lambda.Client, function string, req, answer any, opts ...func(*lambda.Options)) error {
	payload, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encoding a request to %s: %w", function, err)
	}
	if len(payload) > maxPayload {
		return access.Errorf(access.Denied, "the request and the object it is for are too large to be shown whole, so nobody can approve it; nothing was forwarded")
	}
	out, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &function, Payload: payload}, opts...)
	if err != nil {
		return away(fmt.Errorf("invoking %s: %w", function, err))
	}
	if out.FunctionError != nil {
		// The payload may be anything the function died with, so it is not passed on.
		return away(fmt.Errorf("invoking %s: the function failed (%s)", function, *out.FunctionError))
	}
	if err := json.Unmarshal(out.Payload, answer); err != nil {
		return away(fmt.Errorf("invoking %s: the answer is not JSON of ours", function))
	}
	return nil
}

func away(cause error) error {
	return access.Errorf(access.Unavailable, "the broker does not answer; nothing was forwarded, ask again").Because(cause).After(2 * time.Second)
}
