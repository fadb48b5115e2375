package main

import (
	"context"
	"log/slog"
	"sync"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
)

// approvals keeps approvals; store.Approvals. Errors are *access.Error.
type approvals interface {
	Open(ctx context.Context, want access.Approval, view access.View, joins func(access.Approval) bool) (got access.Approval, opened bool, err error)
	GetAll(ctx context.Context, ids []string) (map[string]access.Approval, error)
	Find(ctx context.Context, principalKey, digest string) (access.Approval, bool, error)
	Granted(ctx context.Context, principalKey, cluster string) ([]access.Approval, error)
	Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error)
	Known(ctx context.Context, issuer, subject string) (string, bool, error)
	Limit(ctx context.Context, key string, window time.Time, max int) error
	Once(ctx context.Context, key string, until time.Time) (first bool, err error)
}

// executions starts executions of the workflow. One whose name was started before is not started again, and that is no
// error.
type executions interface {
	Start(ctx context.Context, name string, in wire.Execution) error
}

// A desk takes questions in and says what became of them.
type desk struct {
	keeper    *inforce.Keeper
	approvals approvals
	workflow  executions
	pages     string // where reviewers look, without a slash at the end
	now       func() time.Time
	log       *slog.Logger

	mu     sync.Mutex
	failed time.Time // when a poll could not start a workflow
}

// handle answers one invocation. A refusal is an answer, not a fault of the function: Lambda's own error is left for
// what nobody foresaw.
func (d *desk) handle(ctx context.Context, req wire.ReviewRequest) (wire.ReviewAnswer, error) {
	switch {
	case req.Open != nil && req.Poll == nil:
		return d.open(ctx, *req.Open), nil
	case req.Poll != nil && req.Open == nil:
		return d.poll(ctx, *req.Poll), nil
	}
	return refuse(access.Errorf(access.Invalid, "exactly one of open and poll is wanted")), nil
}

func refuse(err error) wire.ReviewAnswer { return wire.ReviewAnswer{Error: wire.Refuse(err).Error} }

// clock is the time that is stored: in milliseconds, so that it is read back as it was written.
func (d *desk) clock() time.Time { return d.now().UTC().Truncate(time.Millisecond) }
