package main

import (
	"context"
	"slices"
	"strings"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/identity"
	"sallyport/shared/view"
)

const (
	// maxBody bounds what people are asked to look at.
	maxBody = 256 << 10
	// maxOpened is how many questions an agent, over all its runs, may put to people within limitWindow.
	maxOpened   = 20
	limitWindow = 10 * time.Minute
	limitAfter  = time.Minute
	// sameAsk is how long asks for the same thing count as one against the limit; they wait joinEvery, joinTries times, for the
	// first of them to have opened what they join.
	sameAsk   = 10 * time.Second
	joinEvery = 100 * time.Millisecond
	joinTries = 8
)

// open answers a question about a request.
func (d *desk) open(ctx context.Context, req wire.Open) wire.ReviewAnswer {
	q := question{Open: req, now: d.clock()}
	answer, err := d.ask(ctx, &q)
	attrs := []any{"cluster", q.Cluster, "token_sha256", q.id.Token, "agent", q.id.Principal.Agent, "rule", q.ruling.Decision.Rule,
		"verb", q.ruling.Action.Verb, "resource", q.ruling.Action.Resource, "namespace", q.ruling.Action.Namespace}
	if err != nil {
		d.log.WarnContext(ctx, "ask refused", append(attrs, inforce.Why(err)...)...)
		return refuse(err)
	}
	if !q.Peek {
		d.log.InfoContext(ctx, "ask", append(attrs, "request", q.Request, "approval", answer.ID, "state", answer.State, "joined", answer.Joined)...)
	}
	return wire.ReviewAnswer{Approval: &answer}
}

// A question is what an agent asks, and what is found out about it on the way.
type question struct {
	wire.Open
	id         identity.Identity
	generation *inforce.Generation
	ruling     inforce.Ruling
	now        time.Time
}

func (d *desk) ask(ctx context.Context, q *question) (wire.Approval, error) {
	none := wire.Approval{}
	if err := d.judge(ctx, q); err != nil {
		return none, err
	}
	granted, err := d.approvals.Granted(ctx, q.id.Principal.Key(), q.Cluster)
	if err != nil {
		return none, err
	}
	for _, a := range granted {
		if approval.Covers(a, q.id.Principal, q.Cluster, q.ruling.Action, q.ruling.Decision.Rule, q.now) {
			answer := inforce.Answer(a, q.now)
			answer.Joined = true
			return answer, nil
		}
	}
	for range 3 {
		a, joined, err := d.approvals.Find(ctx, q.id.Principal.Key(), q.ruling.Digest)
		if err != nil {
			return none, err
		}
		if joined = joined && approval.Joins(a, q.now); !joined {
			if q.Peek {
				return none, nil
			}
			if a, joined, err = d.put(ctx, q); err != nil {
				return none, err
			}
		}
		answer := d.answer(a, q.now)
		answer.Joined = joined
		if q.Peek {
			return answer, nil
		}
		if err := d.run(ctx, a, answer.State, q.now); err != nil {
			return none, err
		}
		if told, err := d.tell(ctx, a, q.now); told || err != nil {
			return answer, err
		}
		// Another ask was told in the meantime that nobody knows how the last one ended, so this one is a new question.
	}
	return none, access.Errorf(access.Unavailable, "the same request is asked about over and over just now; nothing was forwarded, ask again").After(time.Second)
}

// judge finds out who asks and for what, and whether there is anything to ask people.
func (d *desk) judge(ctx context.Context, q *question) error {
	switch {
	case q.SubjectToken == "":
		return access.Errorf(access.Unauthenticated, "subject_token is missing: send the agent's own OIDC token")
	case q.Session != "" && !inforce.Label.MatchString(q.Session), !inforce.Label.MatchString(q.Request):
		return access.Errorf(access.Invalid, "session and request must be names of up to 64 letters, digits, hyphens and underscores")
	}
	g, _, err := d.keeper.InForce(ctx)
	if err != nil {
		return err
	}
	q.generation = g
	if q.id, err = g.Verify(ctx, q.SubjectToken); err != nil {
		return err
	}
	if n := len(q.Raw.Body); n > maxBody {
		return access.Errorf(access.Denied, "the request's body has %d bytes and cannot be shown whole, so nobody can approve it; %d is the most. Make it smaller, or split it", n, maxBody)
	}
	if q.ruling, err = g.Judge(q.id.Principal, q.Cluster, q.Raw, q.Evidence, q.now); err != nil {
		return err
	}
	switch q.ruling.Decision.Effect {
	case access.Ask:
		return nil
	case access.Allow:
		return access.Errorf(access.Conflict, "the policy does not ask about this request any more; send it again")
	default:
		return access.Errorf(access.Denied, "%s", q.ruling.Decision.Message)
	}
}

// put opens an approval for the question, unless there is one to join by then.
func (d *desk) put(ctx context.Context, q *question) (a access.Approval, joined bool, err error) {
	want := approval.New(approval.Ask{
		ID: inforce.NewID(), Digest: q.ruling.Digest, Principal: q.id.Principal,
		Session: q.Session, Request: q.Request, Cluster: q.Cluster, Reason: reason(q.Reason),
		Action: q.ruling.Action, Decision: q.ruling.Decision, Kubectl: safe(q.ruling.Kubectl), Sentence: safe(q.ruling.Sentence),
		Target: approval.Target(q.ruling.Live), Now: q.now,
	})
	if err := d.answerable(ctx, q, want); err != nil {
		return a, false, err
	}
	shown, err := show(q)
	if err != nil {
		return a, false, err
	}
	if a, joined, err = d.count(ctx, q); joined || err != nil {
		return a, joined, err
	}
	a, opened, err := d.approvals.Open(ctx, want, shown, func(a access.Approval) bool { return approval.Joins(a, q.now) })
	return a, !opened, err
}

// answerable refuses at once what too few people could answer.
func (d *desk) answerable(ctx context.Context, q *question, a access.Approval) error {
	var known []string
	if mail, found, err := d.approvals.Known(ctx, a.Principal.Issuer, a.Principal.Subject); err != nil {
		return err
	} else if found {
		known = append(known, mail)
	}
	quorum := max(1, a.Decision.Obligations.Quorum)
	if n := len(q.generation.Roster().Eligible(a, known...)); n < quorum {
		return access.Errorf(access.Denied, "rule %s needs the yes of %d of %s, and %d of them may answer: not who asks, and not who answers for the agent. Nobody was asked; ask who runs the gate to add reviewers to the policy",
			a.Decision.Rule, quorum, strings.Join(a.Reviewers, ", "), n)
	}
	return nil
}

// show makes what reviewers are shown, and refuses what they could not be shown whole.
func show(q *question) (access.View, error) {
	_, query, _ := strings.Cut(q.Raw.Target, "?")
	return view.Build(view.Input{
		Action: q.ruling.Action, Object: q.ruling.Object, Query: query, Body: q.Raw.Body,
		Live: q.ruling.Live, Missing: q.Evidence.Missing, Affected: q.Evidence.Affected, More: q.Evidence.More,
	})
}

// count counts the question against what its agent may ask. Asks for the same thing that arrive together are one question:
// the first is counted, and the others wait for what it opens.
func (d *desk) count(ctx context.Context, q *question) (a access.Approval, joined bool, err error) {
	who := "open#" + access.Digest(q.id.Principal.Issuer, q.id.Principal.Subject)
	same := "open#" + access.Digest(q.id.Principal.Key(), q.ruling.Digest, q.now.Truncate(sameAsk).Format(time.RFC3339))
	first, err := d.approvals.Once(ctx, same, q.now.Add(2*sameAsk))
	if err != nil {
		return a, false, err
	}
	for range joinTries {
		if first {
			break
		}
		select {
		case <-ctx.Done():
			return a, false, access.Errorf(access.Unavailable, "the question was not put in time; nothing was forwarded, ask again").Because(ctx.Err()).After(time.Second)
		case <-time.After(joinEvery):
		}
		a, found, err := d.approvals.Find(ctx, q.id.Principal.Key(), q.ruling.Digest)
		if err != nil || found && approval.Joins(a, q.now) {
			return a, err == nil, err
		}
	}
	err = d.approvals.Limit(ctx, who, q.now.Truncate(limitWindow), maxOpened)
	if access.KindOf(err) == access.Limited {
		return a, false, access.Errorf(access.Limited, "%s asked people %d times within %v; what it asked before can still be answered. Ask again later, or ask for less", q.id.Principal.Agent, maxOpened, limitWindow).Because(err).After(limitAfter)
	}
	return a, false, err
}

// tell says whether a is the approval to answer with. It is not when the last request it let through ended in a way nobody
// knows, and another ask was told so; who is told first is told here.
func (d *desk) tell(ctx context.Context, a access.Approval, now time.Time) (bool, error) {
	try := a
	try.History = slices.Clone(a.History)
	if !approval.Tell(&try, now) {
		return true, nil // there is nothing to tell
	}
	first := false
	_, err := d.approvals.Update(ctx, a.ID, func(a *access.Approval) error {
		first = approval.Tell(a, now)
		return nil
	})
	return first, err
}

// answer is Answer with where people look, which is no secret: the page wants a login, and the id opens nothing.
func (d *desk) answer(a access.Approval, now time.Time) wire.Approval {
	out := inforce.Answer(a, now)
	if out.State == access.StatePending && d.pages != "" {
		out.Message += "; reviewers find it at " + d.pages + "/approvals/" + a.ID
	}
	return out
}

// safe is text of one line that may be shown: a secret in an argv is masked here as it is in the view.
func safe(s string) string { return view.Masked(view.VisibleLine(s)) }

// reason is the agent's own words, made safe to show.
func reason(s string) string {
	cut := ""
	if r := []rune(s); len(r) > approval.MaxReason {
		s, cut = string(r[:approval.MaxReason]), "… (cut: it was longer)"
	}
	return view.Masked(view.Visible(s)) + cut
}
