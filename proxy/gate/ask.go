package gate

import (
	"context"
	"net/http"
	"strings"
	"time"

	"sallyport/proxy/status"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/broker"
)

// maxAsked is the largest body people are asked about: what cannot be shown whole cannot be approved.
const maxAsked = 256 << 10

// openTime is how long the broker may take to have people asked.
const openTime = 15 * time.Second

// Reviews has people asked about requests; invoke.Review. It is called from many goroutines, and may be called again for the
// same request after any error. Errors are *access.Error.
type Reviews interface {
	Open(ctx context.Context, o broker.Open) (broker.Approval, error)
}

// ask has people asked about the request, and waits for their answer. It returns the body to forward when they let it
// through, and then p.yes is given; or when the policy has come to allow it meanwhile. Every other answer is a refusal.
func (p *pass) ask(ctx context.Context, read []byte) ([]byte, error) {
	leave, err := p.gate.waiting.take(agent(p.facts.Principal))
	if err != nil {
		return nil, because(p.facts.Decision, access.AsError(err))
	}
	defer leave()
	a, err := p.question(ctx)
	if err != nil {
		return nil, err
	}
	if a.State == access.StatePending {
		a, err = p.wait(ctx, a)
	}
	p.gate.Observer.Approval(a.State)
	if err == nil {
		err = p.answer(a)
	}
	if err != nil {
		return nil, err
	}
	p.yes = yes{Approval: a, heard: p.gate.Now()}
	return p.again(ctx, read)
}

// question has people asked, or finds that they were.
func (p *pass) question(ctx context.Context) (broker.Approval, error) {
	if n := len(p.raw.Body); n > maxAsked {
		return broker.Approval{}, because(p.facts.Decision, access.Errorf(access.Denied, "%s, and the body has %d bytes: more than %d cannot be shown whole, so nobody can approve it", p.facts.Decision.Message, n, maxAsked))
	}
	look, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	ev, err := p.evidence(look)
	if err == nil {
		ev.Affected, ev.More, err = p.affected(look)
	}
	if err != nil {
		return broker.Approval{}, because(p.facts.Decision, access.AsError(err))
	}
	return p.review(ctx, ev, false)
}

func (p *pass) review(ctx context.Context, ev broker.Evidence, peek bool) (broker.Approval, error) {
	ctx, cancel := context.WithTimeout(ctx, openTime)
	defer cancel()
	a, err := p.gate.Reviews.Open(ctx, broker.Open{
		SubjectToken: p.caller.Bearer, Cluster: p.facts.Cluster, Raw: p.raw, Evidence: ev, Session: p.live.Session.ID, Request: p.facts.ID,
		Reason: p.wishes.reason, Peek: peek,
	})
	if err != nil {
		return a, because(p.facts.Decision, access.AsError(err))
	}
	p.facts.Approval = a.ID
	return a, nil
}

// answer is an approval's state as an answer to the caller; nil when it lets the request through.
func (p *pass) answer(a broker.Approval) error {
	say := func(kind access.Kind, otherwise string) error {
		message := a.Message
		if message == "" {
			message = otherwise
		}
		if a.By != "" && !strings.Contains(message, a.By) {
			message += "; request " + a.By + " used it"
		}
		if !strings.Contains(message, a.ID) {
			message += " (approval " + a.ID + ")"
		}
		return p.about(a, access.Errorf(kind, "%s", message))
	}
	switch a.State {
	case access.StateApproved, access.StateGranted:
		return nil
	case access.StatePending:
		return p.pending(a)
	case access.StateDenied:
		return say(access.Denied, "a reviewer denied it")
	case access.StateExpired:
		return say(access.Denied, "the approval expired; run the same command again to ask anew")
	case access.StateRevoked:
		return say(access.Denied, "a reviewer took the approval back")
	case access.StateWithdrawn:
		return say(access.Conflict, "what was asked about changed, so the question is not the same any more; run the same command again to ask anew")
	case access.StateSpent:
		return say(access.Conflict, "another request used the approval")
	}
	return access.Errorf(access.Internal, "the broker answered with a state of the approval that this gate does not know; nothing was forwarded")
}

// about adds to an answer, for machines, which approval it is about.
func (p *pass) about(a broker.Approval, e *access.Error) *access.Error {
	e.Reasons = append(e.Reasons, p.causes(a)...)
	return e
}

func (p *pass) causes(a broker.Approval) []access.Reason {
	all := []access.Reason{{Type: "Rule", Message: p.facts.Decision.Rule}, {Type: "Approval", Message: a.ID}, {Type: "Expires", Message: a.Expires.UTC().Format(time.RFC3339)}}
	if a.State != "" {
		all = append(all, access.Reason{Type: "State", Message: string(a.State)})
	}
	if !a.Until.IsZero() {
		all = append(all, access.Reason{Type: "Until", Message: a.Until.UTC().Format(time.RFC3339)})
	}
	return all
}

// again decides once more about a request that people let through, after however long that took: by the policy in force now,
// in the session as it is now, about the object as it is now.
func (p *pass) again(ctx context.Context, read []byte) ([]byte, error) {
	if !p.gate.Now().Before(p.caller.Expires) {
		return nil, access.Errorf(access.Unauthenticated, "your token expired while the request waited for people; run the same command again")
	}
	before, now := p.facts.Decision, p.gate.Rules()
	who, tier, err := p.standing(ctx, now)
	if err != nil {
		return nil, err
	}
	p.rules, p.facts.Principal = now, who
	if err := p.enter(ctx, tier); err != nil {
		return nil, err
	}
	body, err := p.judge(ctx, read)
	if err != nil {
		return nil, err
	}
	switch d := p.facts.Decision; {
	case d.Effect == access.Allow: // the policy came to allow it, so no yes is used up
		p.yes = yes{}
		return body, nil
	case !same(before, d):
		return nil, because(d, access.Errorf(access.Conflict, "while the request waited, what it asks for came to be decided by another rule, %q, than people were asked by; run the same command again to ask anew", d.Rule))
	}
	look, cancel := context.WithTimeout(ctx, evidenceTime)
	defer cancel()
	if p.yes.evidence, err = p.evidence(look); err != nil {
		return nil, because(p.facts.Decision, access.AsError(err))
	}
	p.yes.target, p.facts.Approvers = approval.Target(p.seen.object), p.yes.Approvers
	return p.bind(body)
}

// tell answers what was decided about a request that is only looked at: nobody is asked and nothing is forwarded. A denial was
// answered before.
func (p *pass) tell(w http.ResponseWriter) {
	code, message := http.StatusOK, "the policy allows it; nothing was forwarded"
	if p.facts.Decision.Effect == access.Ask {
		code, message = http.StatusAccepted, p.facts.Decision.Message+". Nobody was asked and nothing was forwarded; send the request itself, or with "+HeaderAsk+": ahead, to have people asked"
	}
	s := status.Done(w, code, message, []access.Reason{{Type: "Rule", Message: p.facts.Decision.Rule}, {Type: "Decision", Message: string(p.facts.Decision.Effect)}})
	p.facts.Message = s.Message
}

// askAhead has people asked about a request that is not to be forwarded now. The same request, sent to be done, joins the
// approval, or finds it given.
func (p *pass) askAhead(ctx context.Context, w http.ResponseWriter) error {
	if p.facts.Decision.Effect != access.Ask {
		s := status.Done(w, http.StatusOK, "not needed: the policy allows it; nothing was forwarded", []access.Reason{{Type: "Rule", Message: p.facts.Decision.Rule}})
		p.facts.Message = s.Message
		return nil
	}
	a, err := p.question(ctx)
	if err != nil {
		return err
	}
	p.gate.Observer.Approval(a.State)
	var message string
	switch a.State {
	case access.StatePending:
		message = "people are asked: " + a.Message + ". Nothing was forwarded; send the request itself to wait for the answer"
	case access.StateApproved, access.StateGranted:
		message = "approved" + colon(a.Message) + ". Nothing was forwarded; send the request itself and it passes"
	default:
		return p.answer(a)
	}
	p.facts.Message = status.Done(w, http.StatusAccepted, message, p.causes(a)).Message
	return nil
}

// fallback answers kubectl's second try of an exec, attach or port-forward that was refused over WebSocket: it comes over
// SPDY, and kubectl shows the answer to it, so that must be what became of the first. It asks nobody anything.
func (p *pass) fallback(ctx context.Context) error {
	if p.facts.Decision.Effect != access.Ask {
		return p.gate.forward.May(ctx, p.own("-may"))
	}
	a, err := p.review(ctx, broker.Evidence{}, true)
	if err != nil {
		return err
	}
	if a.State == "" || a.State == access.StateApproved || a.State == access.StateGranted {
		return nil // then what SPDY lacks is the answer
	}
	return p.answer(a)
}

// colon is what follows a sentence, when there is more to say.
func colon(more string) string {
	if more == "" {
		return ""
	}
	return ": " + more
}
