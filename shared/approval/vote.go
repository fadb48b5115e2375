package approval

import (
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/shared/access"
)

// A Roster is who may answer, by today's policy.
type Roster []Group

// A Group is a group of reviewers. Issuer, Audience and Slack are how its people prove who they are; an answer that was
// proven otherwise is nobody's of this group. Without Issuer that is not looked at: the caller alone answers for it then.
type Group struct {
	Name     string
	Issuer   string
	Audience string
	People   []string          // e-mail addresses
	Slack    map[string]string // enrolled there: team/user to e-mail address
}

// person is an e-mail address as it is compared: what follows a + in its local part is an alias of the same mailbox.
func person(email string) string {
	email = strings.ToLower(strings.TrimSpace(email))
	local, domain, ok := strings.Cut(email, "@")
	if !ok {
		return email
	}
	local, _, _ = strings.Cut(local, "+")
	return local + "@" + domain
}

// named says whether a name, of an agent, a subject or an owner, is that of the person with an e-mail address or a subject.
func named(name, email, subject string) bool {
	name, email = person(name), person(email)
	if name == "" {
		return false
	}
	local, _, _ := strings.Cut(email, "@")
	return strings.EqualFold(name, email) || strings.EqualFold(name, local) || strings.EqualFold(name, strings.TrimSpace(subject))
}

// barred says why somebody may not answer a, whatever groups they are in; empty when they may.
func barred(a access.Approval, by access.Reviewer, known []string) string {
	p := a.Principal
	switch {
	case by.Subject != "" && by.Issuer == p.Issuer && by.Subject == p.Subject,
		named(p.Subject, by.Email, by.Subject), named(p.Agent, by.Email, by.Subject),
		slices.ContainsFunc(known, func(email string) bool { return strings.EqualFold(person(email), person(by.Email)) }):
		return "asked for it, and nobody answers their own question"
	case named(p.Owner, by.Email, by.Subject):
		return "answers for the agent " + p.Agent + ", and the owner of an agent does not approve what it does"
	}
	return ""
}

// same says whether two reviewers are one person, however each came.
func same(a, b access.Reviewer) bool {
	return strings.EqualFold(person(a.Email), person(b.Email)) ||
		a.Subject != "" && a.Issuer == b.Issuer && a.Subject == b.Subject ||
		a.Slack != "" && a.Slack == b.Slack
}

// holds says whether by is of the group, proven as the group wants.
func (g Group) holds(by access.Reviewer) bool {
	is := func(email string) bool {
		return strings.EqualFold(strings.TrimSpace(email), strings.TrimSpace(by.Email))
	}
	switch {
	case by.Email == "" || !slices.ContainsFunc(g.People, is):
		return false
	case g.Issuer == "":
		return true
	case by.Slack != "":
		return is(g.Slack[by.Slack])
	case by.Issuer != "":
		return by.Issuer == g.Issuer && by.Audience == g.Audience
	}
	return by.Channel == "mail" // by the link alone; Vote says whether that is enough
}

// answers says whether by is of a group that may answer a now.
func (r Roster) answers(a access.Approval, by access.Reviewer) bool {
	return slices.ContainsFunc(r, func(g Group) bool { return slices.Contains(a.Reviewers, g.Name) && g.holds(by) })
}

// Eligible are the people who may answer a and have not: their e-mail addresses in lower case, in the roster's order. known
// are addresses that the requester is known to have.
func (r Roster) Eligible(a access.Approval, known ...string) []string {
	var people []access.Reviewer
	for _, g := range r {
		if !slices.Contains(a.Reviewers, g.Name) {
			continue
		}
		for _, email := range g.People {
			by := access.Reviewer{Email: strings.ToLower(strings.TrimSpace(email))}
			there := func(other access.Reviewer) bool { return same(by, other) }
			voted := slices.ContainsFunc(a.Votes, func(v access.Vote) bool { return same(by, v.By) })
			if by.Email != "" && !voted && barred(a, by, known) == "" && !slices.ContainsFunc(people, there) {
				people = append(people, by)
			}
		}
	}
	emails := make([]string, len(people))
	for i, p := range people {
		emails[i] = p.Email
	}
	return emails
}

// Vote adds a reviewer's answer. One no denies; the quorum's last yes approves, and gives the narrowest of what was given.
// An error says exactly why the vote counts for nothing: of kind access.Denied when this person may not answer, of kind
// access.Conflict when it is too late or they did already. It changes nothing but the history, where it is kept as refused.
// known are e-mail addresses that the requester is known to have.
func Vote(a *access.Approval, r Roster, v access.Vote, now time.Time, known ...string) error {
	v.By.Email = strings.ToLower(strings.TrimSpace(v.By.Email))
	v.At = now.UTC()
	if err := vote(a, r, &v, now, known); err != nil {
		Refused(a, v.By.Email, err.Message, now)
		return err
	}
	a.Votes = append(a.Votes, v)
	Note(a, "vote", v.By.Email, ballot(*a, v), now)
	if !v.Yes {
		a.State, a.Message, a.Ended = access.StateDenied, words(v.By.Email+" said no", v.Reason), now.UTC()
		Note(a, "denied", v.By.Email, v.Reason, now)
		return nil
	}
	// Who was a reviewer when they said yes and is none any more does not count toward the quorum.
	yes := slices.DeleteFunc(slices.Clone(a.Votes), func(v access.Vote) bool {
		return !v.Yes || !r.answers(*a, v.By) || barred(*a, v.By, known) != ""
	})
	if len(yes) < quorum(*a) {
		return nil
	}
	a.Grant = yes[0].Grant
	for _, v := range yes[1:] {
		a.Grant = narrower(a.Grant, v.Grant)
	}
	a.State = access.StateApproved
	if a.Grant.Scope != access.ScopeRequest {
		a.State, a.Until = access.StateGranted, now.UTC().Add(a.Grant.Length)
	}
	Note(a, "approved", voters(*a), Words(a.Grant, *a), now)
	return nil
}

func vote(a *access.Approval, r Roster, v *access.Vote, now time.Time, known []string) *access.Error {
	if state, why := Status(*a, now); state != access.StatePending {
		return access.Errorf(access.Conflict, "the approval is %s: %s", state, why)
	}
	if utf8.RuneCountInString(v.Reason) > MaxReason {
		return access.Errorf(access.Invalid, "the reason is longer than %d characters", MaxReason)
	}
	// What comes by the link of a mail proves that somebody reads that mailbox, and an agent may read its owner's.
	if v.By.Channel == "mail" && v.By.Issuer == "" && a.Decision.Obligations.Links != "alone" {
		return access.Errorf(access.Denied, "a link in a mail alone does not decide this: log in")
	}
	if why := barred(*a, v.By, known); why != "" {
		return access.Errorf(access.Denied, "%s %s", v.By.Email, why)
	}
	if !r.answers(*a, v.By) {
		return access.Errorf(access.Denied, "%s is not a reviewer of %s by the policy in force, or has not proven it as that wants", v.By.Email, list(a.Reviewers))
	}
	for _, old := range a.Votes {
		if same(old.By, v.By) {
			return access.Errorf(access.Conflict, "%s has answered already, at %s; each person answers once", old.By.Email, clock(old.At))
		}
	}
	if !v.Yes {
		v.Grant = access.Grant{}
		return nil
	}
	if v.Grant.Scope == "" {
		v.Grant = access.Grant{Scope: access.ScopeRequest}
	}
	if !within(v.Grant, a.Decision.Obligations.Grant) {
		return access.Errorf(access.Invalid, "rule %s lets a yes give %s at most", a.Decision.Rule, Words(widest(a.Decision.Obligations.Grant, a.Action), *a))
	}
	return nil
}

// Revoke takes back what was given and is not used up. Whoever may answer by today's policy may take back, the agent's owner
// among them: that gives nobody anything.
func Revoke(a *access.Approval, r Roster, by access.Reviewer, why string, now time.Time) error {
	by.Email = strings.ToLower(strings.TrimSpace(by.Email))
	err := func() *access.Error {
		switch state, status := Status(*a, now); {
		case state != access.StateGranted && state != access.StateApproved:
			return access.Errorf(access.Conflict, "there is nothing to take back, the approval is %s: %s", state, status)
		case utf8.RuneCountInString(why) > MaxReason:
			return access.Errorf(access.Invalid, "the reason is longer than %d characters", MaxReason)
		case !r.answers(*a, by):
			return access.Errorf(access.Denied, "%s is not a reviewer of %s by the policy in force, or has not proven it as that wants", by.Email, list(a.Reviewers))
		}
		return nil
	}()
	if err != nil {
		Refused(a, by.Email, err.Message, now)
		return err
	}
	a.State, a.Message, a.Ended = access.StateRevoked, words(by.Email+" took it back", why), now.UTC()
	Note(a, "revoked", by.Email, why, now)
	return nil
}

func quorum(a access.Approval) int { return max(1, a.Decision.Obligations.Quorum) }

// yeses is how many people have said yes.
func yeses(a access.Approval) (n int) {
	for _, v := range a.Votes {
		if v.Yes {
			n++
		}
	}
	return n
}

func voters(a access.Approval) string {
	var who []string
	for _, v := range a.Votes {
		if v.Yes {
			who = append(who, v.By.Email)
		}
	}
	return list(who)
}

func ballot(a access.Approval, v access.Vote) string {
	if !v.Yes {
		return words("no", v.Reason)
	}
	return words("yes, "+Words(v.Grant, a), v.Reason)
}

func words(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}
