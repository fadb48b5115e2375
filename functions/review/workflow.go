package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sfn"
	"github.com/aws/aws-sdk-go-v2/service/sfn/types"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
)

// starting is how long a start may take: an agent, or a poll, waits for it.
const starting = 3 * time.Second

// lost is how long after an execution was started somebody should have been reached; past it, another is started. It doubles
// with every one, so that a workflow that cannot work is not started for ever.
const lost = 10 * time.Second

// workflow starts executions of the state machine that puts an approval to people.
type workflow struct {
	client *sfn.Client
	arn    string
}

// Start starts the execution of that name, once, however often it is called.
func (w workflow) Start(ctx context.Context, name string, in wire.Execution) error {
	input, err := json.Marshal(in)
	if err != nil {
		return fmt.Errorf("starting execution %s: %w", name, err)
	}
	text := string(input)
	_, err = w.client.StartExecution(ctx, &sfn.StartExecutionInput{StateMachineArn: &w.arn, Name: &name, Input: &text})
	var exists *types.ExecutionAlreadyExists
	if err != nil && !errors.As(err, &exists) {
		return fmt.Errorf("starting execution %s: %w", name, err)
	}
	return nil
}

// due says whether an execution has to be started for an approval, and what it is called. The name follows from how many
// were started before, so that two who find the same one missing start one.
func due(a access.Approval, state access.ApprovalState, now time.Time) (name string, is bool) {
	switch {
	case state != access.StatePending || !a.Notified.IsZero():
		return "", false
	case a.Started == 0:
		return a.ID, true
	}
	// 10 s after it was opened, 30 s, 70 s, …
	wait := lost * (1<<min(a.Started, 16) - 1)
	return fmt.Sprintf("%s-%d", a.ID, a.Started+1), now.Sub(a.Opened) >= wait
}

// run starts the workflow of an approval, if it has to be started. An error is of kind unavailable: the approval stands, and
// whoever asks or polls next starts it.
func (d *desk) run(ctx context.Context, a access.Approval, state access.ApprovalState, now time.Time) error {
	name, is := due(a, state, now)
	if !is {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, starting)
	defer cancel()
	if err := d.workflow.Start(ctx, name, wire.NewExecution(a, now)); err != nil {
		d.log.ErrorContext(ctx, "the workflow cannot be started", "approval", a.ID, "execution", name, "cause", err.Error())
		return access.Errorf(access.Unavailable, "your request is on its way to its reviewers, but they cannot be told just now; nothing was forwarded, ask again").Because(err).After(2 * time.Second)
	}
	d.log.InfoContext(ctx, "workflow started", "approval", a.ID, "execution", name)
	started := a.Started + 1
	if _, err := d.approvals.Update(ctx, a.ID, func(a *access.Approval) error {
		a.Started = max(a.Started, started)
		return nil
	}); err != nil {
		// It runs. Who finds it uncounted starts it once more under the same name, which starts nothing.
		d.log.WarnContext(ctx, "the start of a workflow was not counted", append([]any{"approval", a.ID}, inforce.Why(err)...)...)
	}
	return nil
}
