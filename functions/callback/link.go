package main

import (
	"fmt"
	"net/http"
	"regexp"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/store"
)

var linkRE = regexp.MustCompile(`^[A-Za-z0-9_-]{20,100}$`)

// linkOf finds a mail link by the secret in its address.
func (s *site) linkOf(r *http.Request) (hash string, l store.Link, err error) {
	if token := r.PathValue("token"); linkRE.MatchString(token) {
		hash = approval.LinkHash(token)
		var found bool
		if l, found, err = s.kept.Link(r.Context(), hash); found || err != nil {
			return hash, l, err
		}
	}
	return "", l, &problem{title: "This link leads nowhere", code: http.StatusNotFound,
		err: access.Errorf(access.NotFound, "it was cut short when it was copied, or it is too old. Nothing was decided. The list of what waits is one login away")}
}

// over is why a link is none any more; nil while it is one.
func (s *site) over(l store.Link) error {
	switch {
	case !l.Used.IsZero():
		return &problem{title: "This link was used already", code: http.StatusGone, approval: l.Approval,
			err: access.Errorf(access.Conflict, "it was used at %s, and works once. Nothing was decided now", clock(l.Used))}
	case !s.now().Before(l.Expires):
		return &problem{title: "This link has expired", code: http.StatusGone, approval: l.Approval,
			err: access.Errorf(access.Conflict, "it was good until %s, like the question it was about. Nothing was decided now", clock(l.Expires))}
	}
	return nil
}

// alone says whether a link decides without a login: the rule said so when it asked, and says so today.
func alone(a access.Approval, g *inforce.Generation) bool {
	if a.Decision.Obligations.Links != "alone" {
		return false
	}
	for _, r := range g.Policy.Rules {
		if r.Name == a.Decision.Rule {
			return r.Effect == access.Ask && r.Obligations.Links == "alone"
		}
	}
	return false
}

// followed shows what a mail link leads to. Scanners of mail follow links too, so it changes nothing.
func (s *site) followed(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	_, l, err := s.linkOf(r)
	if err != nil {
		return err
	}
	if err := s.over(l); err != nil {
		s.log.WarnContext(ctx, "a link that is over was followed", "approval", l.Approval, "by", l.Email, "message", errorOf(err).Message)
		return err
	}
	g, _, err := s.policies.InForce(ctx)
	if err != nil {
		return err
	}
	a, err := s.approvals.Get(ctx, l.Approval)
	if err != nil {
		return err
	}
	v, err := s.visitor(r)
	switch {
	case alone(a, g) && (err == nil && v.Email != l.Email):
		return wrongPerson(l, v)
	case alone(a, g):
		who := voter{Reviewer: access.Reviewer{Email: l.Email, Channel: "mail"}}
		return s.showApproval(w, r, g, a, who, shown{post: r.URL.Path})
	case access.KindOf(err) == access.Unauthenticated:
		http.Redirect(w, r, loginURL(r.URL.Path), http.StatusSeeOther) //nolint:gosec // to /login, whatever comes behind it
		return nil
	case err != nil:
		return err
	case v.Email != l.Email:
		s.log.WarnContext(ctx, "a link was followed by the wrong person", "approval", l.Approval, "of", l.Email, "by", v.Email)
		return wrongPerson(l, v)
	}
	http.Redirect(w, r, "/approvals/"+a.ID, http.StatusSeeOther)
	return nil
}

func wrongPerson(l store.Link, v visitor) error {
	return &problem{title: "This link is for somebody else", code: http.StatusForbidden, approval: l.Approval, visitor: &v,
		err: access.Errorf(access.Denied, "it was sent to %s, and you are logged in as %s. Nothing was decided. If you may answer too, the approval itself lets you", l.Email, v.Email)}
}

// posted decides as the one reviewer whose link it is, where the rule lets a link do that, and once.
func (s *site) posted(w http.ResponseWriter, r *http.Request) error {
	ctx := r.Context()
	form, err := formOf(w, r)
	if err != nil {
		return err
	}
	hash, l, err := s.linkOf(r)
	if err != nil {
		return err
	}
	who := voter{Reviewer: access.Reviewer{Email: l.Email, Channel: "mail"}}
	refuse := func(by voter, err error) error {
		s.refused(ctx, l.Approval, by, err)
		return err
	}
	if err := s.over(l); err != nil {
		return refuse(who, err)
	}
	g, _, err := s.policies.InForce(ctx)
	if err != nil {
		return err
	}
	a, err := s.approvals.Get(ctx, l.Approval)
	if err != nil {
		return err
	}
	if v, err := s.visitor(r); err == nil && v.Email != l.Email {
		return refuse(v.voter, wrongPerson(l, v))
	}
	if !alone(a, g) {
		return refuse(who, &problem{title: "Log in to answer", code: http.StatusForbidden, approval: a.ID,
			err: access.Errorf(access.Denied, "a link in a mail alone does not decide this. Nothing was decided; log in, and answer there")})
	}
	vote, err := voteOf(form)
	if err != nil {
		return err
	}
	// What cannot count must not use the link up.
	known, err := s.provenOf(ctx, a)
	if err != nil {
		return err
	}
	if err := tryVote(a, g, who, vote, s.now(), known); err == nil {
		switch err := s.kept.UseLink(ctx, hash, s.now()); {
		case access.KindOf(err) == access.Conflict:
			return refuse(who, &problem{title: "This link was used already", code: http.StatusGone, approval: a.ID,
				err: access.Errorf(access.Conflict, "it works once. Nothing was decided now")})
		case err != nil:
			return err
		}
	}
	got, err := s.vote(ctx, g, a.ID, who, vote)
	if err != nil {
		return s.decided(err, got, nil)
	}
	return s.render(w, http.StatusOK, "said", page{Title: "Your answer was taken", Said: saidOf(got, who.Email), Detail: fmt.Sprintf("You answered as %s, by the link in your mail. The link is used up.", l.Email)})
}
