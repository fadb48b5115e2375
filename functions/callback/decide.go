package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/store"
	"sallyport/shared/view"
)

// vote puts a reviewer's answer to an approval: a conditional write first, and only then the workflow is woken. Whatever
// is refused is written into the approval's history, and decides nothing.
func (s *site) vote(ctx context.Context, g *inforce.Generation, id string, who voter, v access.Vote) (access.Approval, error) {
	v.By = who.Reviewer
	known, err := s.proven(ctx, id)
	if err != nil {
		return access.Approval{}, err
	}
	return s.change(ctx, id, "vote", who, func(a *access.Approval, now time.Time) error {
		return approval.Vote(a, g.Roster(), v, now, known...)
	})
}

// revoke takes back what was given.
func (s *site) revoke(ctx context.Context, g *inforce.Generation, id string, who voter, why string) (access.Approval, error) {
	return s.change(ctx, id, "revoke", who, func(a *access.Approval, now time.Time) error {
		return approval.Revoke(a, g.Roster(), who.Reviewer, why, now)
	})
}

// change runs a transition. What it refuses is kept too: package approval wrote it into the history.
func (s *site) change(ctx context.Context, id, what string, who voter, transition func(*access.Approval, time.Time) error) (access.Approval, error) {
	got, err := s.approvals.Update(ctx, id, func(a *access.Approval) error {
		return store.Keep(transition(a, s.now().UTC()))
	})
	attrs := []any{"approval", id, "by", who.Email, "slack", who.Slack, "channel", who.Channel}
	if err != nil {
		e := errorOf(err)
		s.log.WarnContext(ctx, what+" refused", append(attrs, "kind", e.Kind, "message", e.Message)...)
	} else {
		s.log.InfoContext(ctx, what, append(attrs, "state", got.State)...)
	}
	// Also when this came too late: whoever decided may have been gone before the workflow heard of it.
	if got.ID != "" && got.State != access.StatePending {
		s.wake(ctx, got)
	}
	return got, err
}

// wake ends the task that waits for the answer. The decision is written, so it stands whatever becomes of this: the
// workflow looks at the approval when its wait is over, and the agent hears of it from the table.
func (s *site) wake(ctx context.Context, a access.Approval) {
	token, found, err := s.kept.Task(ctx, a.ID)
	if err == nil && found {
		var output []byte
		output, err = json.Marshal(map[string]any{"approval": a.ID, "state": a.State})
		if err == nil {
			err = s.workflow.Succeed(ctx, token, string(output))
		}
	}
	switch {
	case errors.Is(err, errLate):
		s.log.InfoContext(ctx, "the workflow did not wait any more", "approval", a.ID, "state", a.State)
	case err != nil:
		s.log.WarnContext(ctx, "the workflow could not be told of a decision; it finds out by itself", "approval", a.ID, "state", a.State, "error", err.Error())
	}
}

// proven are the e-mail addresses that the one who asks has proven to have, as a reviewer: under none of them may an answer
// come.
func (s *site) proven(ctx context.Context, id string) ([]string, error) {
	a, err := s.approvals.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	return s.provenOf(ctx, a)
}

func (s *site) provenOf(ctx context.Context, a access.Approval) ([]string, error) {
	email, found, err := s.people.Known(ctx, a.Principal.Issuer, a.Principal.Subject)
	if err != nil || !found {
		return nil, err
	}
	return []string{email}, nil
}

// refused writes into an approval's history what was not done.
func (s *site) refused(ctx context.Context, id string, who voter, why error) {
	e := errorOf(why)
	s.log.WarnContext(ctx, "refused", "approval", id, "by", who.Email, "slack", who.Slack, "channel", who.Channel, "kind", e.Kind, "message", e.Message)
	if id == "" {
		return
	}
	if _, err := s.approvals.Update(ctx, id, func(a *access.Approval) error {
		approval.Refused(a, nameOf(who), e.Message, s.now().UTC())
		return nil
	}); err != nil {
		s.log.WarnContext(ctx, "a refusal could not be written down", "approval", id, "error", err.Error())
	}
}

// nameOf is what the history calls somebody.
func nameOf(who voter) string {
	switch {
	case who.Email != "":
		return view.VisibleLine(who.Email)
	case who.Slack != "":
		return "Slack " + view.VisibleLine(who.Slack)
	}
	return "somebody"
}

// reasonOf makes words safe to keep and to show.
func reasonOf(text string, wanted bool) (string, error) {
	text = strings.TrimSpace(strings.ReplaceAll(text, "\r\n", "\n")) // forms end lines so
	switch {
	case !utf8.ValidString(text):
		return "", access.Errorf(access.Invalid, "the reason is no text that can be read")
	case wanted && text == "":
		return "", access.Errorf(access.Invalid, "say why: the agent is told, and so is who looks back. Nothing was decided yet")
	}
	text = view.Visible(text)
	if n := utf8.RuneCountInString(text); n > approval.MaxReason {
		return "", access.Errorf(access.Invalid, "the reason has %d characters; at most %d are kept. Nothing was decided yet", n, approval.MaxReason)
	}
	return text, nil
}
