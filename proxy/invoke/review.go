package invoke

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"sallyport/shared/broker"
)

// Review invokes function review. It is safe for concurrent use.
type Review struct {
	Lambda   *lambda.Client
	Function string
}

// Open asks people about a request, or joins the question that was asked before. With Peek, the answer's state is empty
// when there is none. It may be asked again after any error: one request is one approval, however often it is asked.
func (r Review) Open(ctx context.Context, o broker.Open) (broker.Approval, error) {
	a, err := r.invoke(ctx, broker.ReviewRequest{Open: &o})
	switch {
	case err != nil:
		return broker.Approval{}, err
	case a.Approval == nil || !o.Peek && (a.Approval.ID == "" || a.Approval.State == ""):
		return broker.Approval{}, away(fmt.Errorf("review opened nothing and does not say why"))
	}
	return *a.Approval, nil
}

// Poll tells outcomes and asks for the state of approvals, the policy in force and the issuers' keys.
func (r Review) Poll(ctx context.Context, p broker.Poll) (broker.State, error) {
	a, err := r.invoke(ctx, broker.ReviewRequest{Poll: &p})
	switch {
	case err != nil:
		return broker.State{}, err
	case a.State == nil:
		return broker.State{}, away(fmt.Errorf("review answered a poll without the state of anything"))
	case a.State.Policy.Digest == "":
		return broker.State{}, away(fmt.Errorf("the broker does not say which policy is in force"))
	}
	return *a.State, nil
}

func (r Review) invoke(ctx context.Context, req broker.ReviewRequest) (broker.ReviewAnswer, error) {
	var a broker.ReviewAnswer
	if err := call(ctx, r.Lambda, r.Function, req, &a); err != nil {
		return a, err
	}
	if a.Error != nil {
		return a, a.Error.Err()
	}
	return a, nil
}
