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

// Client invokes function exchange. It is safe for concurrent use.
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

// Poll asks which policy is in force, and for the issuers' public keys as the broker has them.
func (c Client) Poll(ctx context.Context) (broker.Policy, []identity.IssuerKeys, error) {
	set, err := c.keys(ctx, broker.Keys{})
	if err != nil {
		return broker.Policy{}, nil, err
	}
	if set.Policy.Digest == "" {
		return broker.Policy{}, nil, away(fmt.Errorf("the broker does not say which policy is in force"))
	}
	return set.Policy, issuers(set), nil
}

// Keys asks for the issuers' public keys, fetched from them a moment ago.
func (c Client) Keys(ctx context.Context) ([]identity.IssuerKeys, error) {
	set, err := c.keys(ctx, broker.Keys{Fresh: true})
	if err != nil {
		return nil, err
	}
	return issuers(set), nil
}

func (c Client) keys(ctx context.Context, req broker.Keys) (broker.KeySet, error) {
	a, err := c.invoke(ctx, broker.Request{Keys: &req})
	if err != nil {
		return broker.KeySet{}, err
	}
	if a.Keys == nil {
		return broker.KeySet{}, away(fmt.Errorf("keys answered without keys"))
	}
	return *a.Keys, nil
}

func issuers(set broker.KeySet) []identity.IssuerKeys {
	var out []identity.IssuerKeys
	for _, k := range set.Issuers {
		out = append(out, identity.IssuerKeys{Issuer: k.Issuer, JWKS: k.JWKS, Fetched: k.Fetched})
	}
	return out
}

func (c Client) invoke(ctx context.Context, req broker.Request) (broker.Answer, error) {
	var a broker.Answer
	payload, err := json.Marshal(req)
	if err != nil {
		return a, fmt.Errorf("encoding a request to the broker: %w", err)
	}
	out, err := c.Lambda.Invoke(ctx, &lambda.InvokeInput{FunctionName: &c.Function, Payload: payload})
	if err != nil {
		return a, away(fmt.Errorf("invoking %s: %w", c.Function, err))
	}
	if out.FunctionError != nil {
		// The payload may be anything the function died with, so it is not passed on.
		return a, away(fmt.Errorf("invoking %s: the function failed (%s)", c.Function, *out.FunctionError))
	}
	if err := json.Unmarshal(out.Payload, &a); err != nil {
		return a, away(fmt.Errorf("invoking %s: the answer is not JSON of ours", c.Function))
	}
	if a.Error != nil {
		return a, a.Error.Err()
	}
	return a, nil
}

func away(cause error) error {
	return access.Errorf(access.Unavailable, "the broker does not answer; nothing was forwarded, ask again").Because(cause).After(2 * time.Second)
}
