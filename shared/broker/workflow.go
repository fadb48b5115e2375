package broker

import (
	"slices"
	"time"

	"sallyport/shared/access"
)

// The steps of the workflow, which are the kinds of a Notice.
const (
	StepAsk      = "ask"      // the question is put to the reviewers, who have a while to answer
	StepRemind   = "remind"   // they are asked again
	StepEscalate = "escalate" // others are asked too
	StepExpire   = "expire"   // nobody answered in time
	StepOutcome  = "outcome"  // how it ended is shown where the question was
	StepFailed   = "failed"   // the workflow cannot go on
)

// DecidedError is what function notify ends with, as the type of its error, when the approval is over already: the
// workflow must not wait for an answer that will not come any more.
const DecidedError = "Decided"

// An Execution is the input of the workflow: how long each step waits for an answer, and which follows when none came.
type Execution struct {
	Approval string `json:"approval"`
	Ask      Wait   `json:"ask"`
	Remind   Wait   `json:"remind"`
	Escalate Wait   `json:"escalate"`
}

// A Wait is how long a step waits.
type Wait struct {
	Seconds int64  `json:"seconds"` // at least one, as Step Functions wants it
	Then    string `json:"then"`    // StepRemind, StepEscalate or StepExpire
}

// A Notice is the event of function notify that the workflow sends.
type Notice struct {
	Kind     string `json:"kind"` // a step
	Approval string `json:"approval"`
	// Token ends the task that waits, in the kinds that wait. It is kept for function callback and goes nowhere else.
	Token   string   `json:"token,omitempty"`
	Failure *Failure `json:"failure,omitempty"` // of StepFailed
}

// A Failure is what Step Functions says of a task that failed, in its own spelling.
type Failure struct {
	Error string `json:"Error"`
	Cause string `json:"Cause,omitempty"`
}

// NewExecution is the input of an execution that starts now, for a new approval or for one whose execution was lost: what
// a lost one did is not done again, and what it should have done by now is done at once.
//
// The waits add up to a second more than is left, so that the workflow never finds a question it comes to expire open.
func NewExecution(a access.Approval, now time.Time) Execution {
	x := Execution{Approval: a.ID, Ask: Wait{1, StepExpire}, Remind: Wait{1, StepExpire}, Escalate: Wait{1, StepExpire}}
	type step struct {
		name string
		wait *Wait // its own
		at   time.Time
	}
	o := a.Decision.Obligations
	steps := []step{{StepAsk, &x.Ask, now}}
	if o.Remind > 0 && !happened(a, "reminded") {
		steps = append(steps, step{StepRemind, &x.Remind, a.Opened.Add(o.Remind)})
	}
	if o.Escalate.After > 0 && !happened(a, "escalated") {
		steps = append(steps, step{StepEscalate, &x.Escalate, a.Opened.Add(o.Escalate.After)})
	}
	steps = slices.DeleteFunc(steps, func(s step) bool { return s.name != StepAsk && !s.at.Before(a.Expires) })
	slices.SortStableFunc(steps[1:], func(a, b step) int { return a.at.Compare(b.at) })
	steps = append(steps, step{name: StepExpire, at: a.Expires.Add(time.Second)})

	clock := now
	for i, s := range steps[:len(steps)-1] {
		next := steps[i+1]
		seconds := max(1, int64((next.at.Sub(clock)+time.Second-1)/time.Second))
		*s.wait = Wait{seconds, next.name}
		clock = clock.Add(time.Duration(seconds) * time.Second)
	}
	return x
}

func happened(a access.Approval, what string) bool {
	return slices.ContainsFunc(a.History, func(h access.History) bool { return h.What == what })
}
