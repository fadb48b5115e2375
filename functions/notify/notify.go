package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-lambda-go/lambda/messages"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/mail"
	"sallyport/shared/slack"
	"sallyport/shared/view"
)

const (
	// whole is how long one invocation works. What is left of the function's 20 s is for writing down how it went.
	whole = 19 * time.Second
	// sending is how long messages may take, all at once.
	sending = 13 * time.Second
	// secretTime is how long Secrets Manager may take.
	secretTime = 2 * time.Second
	// soon is how long a first success waits for the other channels before it is written down: a workflow whose reviewers
	// nobody seems to have reached is started again.
	soon = time.Second
)

// approvals keeps approvals and what belongs to them; store.Approvals. Reads are consistent. Update calls change again
// when somebody else was first.
type approvals interface {
	Get(ctx context.Context, id string) (access.Approval, error)
	View(ctx context.Context, id string) (access.View, error)
	Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error)
	Known(ctx context.Context, issuer, subject string) (string, bool, error)
	PutTask(ctx context.Context, id, token string) error
	PutLink(ctx context.Context, hash, approval, email string, expires time.Time) error
	PutSent(ctx context.Context, id, channel, ref string) error
	Sent(ctx context.Context, id string) (map[string]string, error)
}

// policies finds the policy in force; inforce.Keeper. The error is of kind unavailable.
type policies interface {
	InForce(ctx context.Context) (*inforce.Generation, *wire.Refusal, error)
}

// mailer sends one mail; mail.Sender.
type mailer interface {
	Send(ctx context.Context, m mail.Message) (string, error)
}

// A notifier is the function.
type notifier struct {
	approvals approvals
	policies  policies
	files     history
	bucket    string // of the policy
	pages     string // where the pages are
	chat      *chat  // nil when Slack is not configured
	post      mailer // nil when mail is not configured
	now       func() time.Time
	log       *slog.Logger
}

// handle answers the workflow, and S3.
func (n *notifier) handle(ctx context.Context, event json.RawMessage) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, whole)
	defer cancel()
	var in struct {
		wire.Notice
		Records []events.S3EventRecord `json:"Records"`
	}
	if err := json.Unmarshal(event, &in); err != nil {
		n.log.ErrorContext(ctx, "an event that cannot be read", "error", err)
		return nil, access.Errorf(access.Invalid, "the event is neither the workflow's nor S3's")
	}
	if len(in.Records) > 0 {
		return nil, n.report(ctx, "", n.policyChanged(ctx, in.Records))
	}
	step := map[string]func(context.Context, wire.Notice) error{
		wire.StepAsk:      n.ask,
		wire.StepRemind:   n.ask,
		wire.StepEscalate: n.ask,
		wire.StepExpire:   n.expire,
		wire.StepOutcome:  n.outcome,
		wire.StepFailed:   n.failed,
	}[in.Kind]
	if step == nil || in.Approval == "" {
		return nil, n.report(ctx, in.Approval, access.Errorf(access.Invalid, "there is no step %q of the workflow, or it names no approval", in.Kind))
	}
	return nil, n.report(ctx, in.Approval, step(ctx, in.Notice))
}

// errDecided ends a task whose approval is over: Step Functions sees the name of the error alone.
var errDecided = messages.InvokeResponse_Error{Type: wire.DecidedError, Message: "the approval is over already"}

// report logs an error, and keeps its cause from whoever invoked.
func (n *notifier) report(ctx context.Context, id string, err error) error {
	var decided messages.InvokeResponse_Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &decided):
		n.log.InfoContext(ctx, "the approval is over already", "approval", id)
		return decided
	}
	n.log.ErrorContext(ctx, "nothing was told, or not all", append([]any{"approval", id}, inforce.Why(err)...)...)
	e := access.AsError(err)
	return messages.InvokeResponse_Error{Type: "Notify." + string(e.Kind), Message: e.Message}
}

// clock is the time that is stored: in milliseconds, so that it is read back as it was written.
func (n *notifier) clock() time.Time { return n.now().UTC().Truncate(time.Millisecond) }

// ask puts the question to the reviewers, the first time, again, or to more of them.
//
// The token is stored before the approval is read, and who decides stores the decision before they read the token: so
// either they end the task, or this finds the approval over and ends it as Decided.
func (n *notifier) ask(ctx context.Context, in wire.Notice) error {
	if in.Token == "" {
		return access.Errorf(access.Invalid, "the workflow sent no task token")
	}
	if err := n.approvals.PutTask(ctx, in.Approval, in.Token); err != nil {
		return err
	}
	a, err := n.approvals.Get(ctx, in.Approval)
	if err != nil {
		return err
	}
	if state, _ := approval.Status(a, n.clock()); state != access.StatePending {
		return errDecided
	}
	if in.Kind == wire.StepEscalate {
		if a, err = n.approvals.Update(ctx, in.Approval, func(a *access.Approval) error {
			approval.Escalate(a, n.clock())
			return nil
		}); err != nil {
			return err
		}
	}
	jobs, err := n.jobs(ctx, a, in.Kind)
	if err != nil {
		return err
	}
	results := n.send(ctx, a, jobs)
	a, err = n.approvals.Update(ctx, in.Approval, func(a *access.Approval) error {
		n.note(a, in.Kind, results)
		return nil
	})
	if err != nil {
		return err
	}
	if state, _ := approval.Status(a, n.clock()); state != access.StatePending {
		return errDecided // decided meanwhile, or denied just now
	}
	return nil
}

// note writes down how each channel went, and denies what nobody could be asked.
func (n *notifier) note(a *access.Approval, kind string, results []result) {
	now := n.clock()
	what := "notified"
	if kind == wire.StepRemind {
		what = "reminded"
	}
	reached := false
	var lacks []string
	for _, r := range results {
		if r.err != nil {
			lacks = append(lacks, r.by+": "+sentence(r.err))
			if !r.absent {
				approval.Note(a, "unreached", r.by, strings.TrimPrefix(r.text+": ", ": ")+sentence(r.err), now)
			}
			continue
		}
		reached = true
		if !r.before {
			approval.Note(a, what, r.by, r.text, now)
		}
	}
	switch {
	case reached && a.Notified.IsZero():
		a.Notified = now
	case !reached && a.Notified.IsZero():
		approval.Deny(a, "nobody can be asked, so the answer is no. "+strings.Join(lacks, ". ")+". Tell who runs the gate", now)
	case kind == wire.StepRemind && !slices.ContainsFunc(a.History, func(h access.History) bool { return h.What == what }):
		approval.Note(a, what, "", "nobody", now) // so that another execution does not do it again
	}
}

func sentence(err error) string { return strings.TrimSuffix(access.AsError(err).Message, ".") }

// expire writes down that nobody answered in time.
func (n *notifier) expire(ctx context.Context, in wire.Notice) error {
	now := n.clock()
	a, err := n.approvals.Update(ctx, in.Approval, func(a *access.Approval) error {
		approval.Expire(a, now)
		return nil
	})
	if err != nil {
		return err
	}
	if a.State == access.StatePending {
		return access.Errorf(access.Unavailable, "it expires at %s only, and it is %s; whose clock is wrong?", a.Expires.UTC().Format(time.RFC3339), now.Format(time.RFC3339))
	}
	return nil
}

// outcome shows how it ended where the question stands. An error has the workflow try again: buttons that decide nothing
// are worth a while of trying to take away.
func (n *notifier) outcome(ctx context.Context, in wire.Notice) error {
	a, err := n.approvals.Get(ctx, in.Approval)
	if err != nil {
		return err
	}
	if state, _ := approval.Status(a, n.clock()); state == access.StateExpired && a.State != state {
		if a, err = n.approvals.Update(ctx, in.Approval, func(a *access.Approval) error {
			approval.Expire(a, n.clock())
			return nil
		}); err != nil {
			return err
		}
	}
	sent, err := n.approvals.Sent(ctx, in.Approval)
	if err != nil || n.chat == nil {
		return err
	}
	message := n.question(a, access.View{}).Message()
	var jobs []job
	for key, ts := range sent {
		channel, is := strings.CutPrefix(key, "slack:")
		if !is {
			continue
		}
		jobs = append(jobs, job{by: "slack " + channel, run: func(ctx context.Context) (string, error) {
			err := n.chat.call(ctx, func(c *slack.Client) error { return c.Update(ctx, channel, ts, message) })
			if access.KindOf(err) == access.NotFound {
				return "", nil // somebody took it away
			}
			return "", err
		}})
	}
	var failed []error
	for _, r := range n.send(ctx, access.Approval{Notified: n.now()}, jobs) {
		if r.err != nil {
			failed = append(failed, fmt.Errorf("%s: %s", r.by, sentence(r.err)))
		}
	}
	if len(failed) > 0 {
		return access.Errorf(access.Unavailable, "how it ended could not be shown everywhere: %v", errors.Join(failed...))
	}
	return nil
}

// failed writes down that the workflow cannot go on. An agent must not wait for people whom nobody told.
func (n *notifier) failed(ctx context.Context, in wire.Notice) error {
	name := "unknown"
	if f := in.Failure; f != nil {
		name = view.VisibleLine(f.Error)
		n.log.ErrorContext(ctx, "the workflow cannot go on", "approval", in.Approval, "error", f.Error, "cause", f.Cause)
	}
	_, err := n.approvals.Update(ctx, in.Approval, func(a *access.Approval) error {
		now := n.clock()
		approval.Note(a, "failed", "", "the workflow could not go on: "+name, now)
		if a.Notified.IsZero() {
			approval.Deny(a, "your reviewers could not be told: function notify failed again and again. Nothing was forwarded; tell who runs the gate, and ask again", now)
		}
		return nil
	})
	return err
}

// question is what messages are made from. What is stored is the request's own words, in tokens and paths: they are made
// safe to show here; what was safe already stays as it is.
func (n *notifier) question(a access.Approval, v access.View) slack.Question {
	return slack.Question{Approval: shown(a), View: v, Choices: approval.Choices(a), Page: n.pages + "/approvals/" + a.ID, Now: n.now()}
}

func shown(a access.Approval) access.Approval {
	a.Votes = slices.Clone(a.Votes)
	for i := range a.Votes {
		a.Votes[i].Reason = view.Visible(a.Votes[i].Reason)
		a.Votes[i].By.Email = view.VisibleLine(a.Votes[i].By.Email)
	}
	a.Reason, a.Message = view.Visible(a.Reason), view.Visible(a.Message)
	for _, s := range []*string{
		&a.Kubectl, &a.Sentence, &a.Principal.Agent, &a.Principal.Subject, &a.Principal.Owner, &a.Cluster, &a.Decision.Rule, &a.Decision.Tier,
		&a.Action.Verb, &a.Action.Group, &a.Action.Resource, &a.Action.Subresource, &a.Action.Namespace, &a.Action.Name, &a.Action.Path,
	} {
		*s = view.VisibleLine(*s)
	}
	return a
}
