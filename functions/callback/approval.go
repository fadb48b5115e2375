package main

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
)

// seen is the approval a path is about, for somebody it concerns.
func (s *site) seen(r *http.Request, v visitor) (access.Approval, error) {
	id, err := idOf(r)
	if err != nil {
		return access.Approval{}, err
	}
	a, err := s.approvals.Get(r.Context(), id)
	if err != nil {
		return a, err
	}
	if !concerns(a, v.groups) {
		return a, access.Errorf(access.Denied, "this one is for %s to answer; by today's policy %s is of %s", anyOf(a.Reviewers), v.Email, strings.Join(v.groups, " and "))
	}
	return a, nil
}

func (s *site) approval(w http.ResponseWriter, r *http.Request, v visitor) error {
	a, err := s.seen(r, v)
	if err != nil {
		return err
	}
	return s.showApproval(w, r, v.gen, a, v.voter, shown{post: "/approvals/" + a.ID + "/decision", session: v.session})
}

// shown is how an approval is shown: where its forms go, and for which login they are.
type shown struct{ post, session string }

// An approvalPage is the page of one approval.
type approvalPage struct {
	A        access.Approval
	V        access.View
	State    access.ApprovalState
	Sentence string
	Status   string // how it stands
	Run      []pair
	RunLink  string
	Lines    []diffLine
	Added    int
	Removed  int
	Argv     []string
	Affected []string
	Facts    []pair
	Expires  moment
	Opened   moment
	Ended    moment
	Yes      int
	Quorum   int
	Votes    []ballot
	Uses     []use
	History  []event

	Post    string
	Choices []choice
	May     bool
	Not     string // why this person may not answer
	Mine    string // what this person answered
	Revoke  bool
	Longer  string // the longest that may be given
	Nothing bool   // the request says no more than its command line
}

type pair struct{ Name, Value string }

type choice struct{ Value, Words string }

type ballot struct {
	By, Channel, Grant, Reason string
	Yes                        bool
	At                         moment
}

type use struct {
	Request string
	Code    int
	At      moment
}

type event struct {
	At             moment
	What, By, Text string
}

// A diffLine is a line of a diff: its sign says what becomes of it, and Words says so to who does not see.
type diffLine struct{ Class, Sign, Words, Text string }

func diffLines(diff string) (lines []diffLine, added, removed int) {
	if diff == "" {
		return nil, 0, 0
	}
	inHunk := false
	for text := range strings.SplitSeq(strings.TrimSuffix(diff, "\n"), "\n") {
		switch {
		case strings.HasPrefix(text, "@@"):
			inHunk = true
			lines = append(lines, diffLine{"hunk", "", "", text})
		case !inHunk && (strings.HasPrefix(text, "--- ") || strings.HasPrefix(text, "+++ ")):
			lines = append(lines, diffLine{"file", "", "", text})
		case strings.HasPrefix(text, "+"):
			added++
			lines = append(lines, diffLine{"added", "+", "added:", text[1:]})
		case strings.HasPrefix(text, "-"):
			removed++
			lines = append(lines, diffLine{"removed", "−", "removed:", text[1:]})
		default:
			lines = append(lines, diffLine{"same", "", "", strings.TrimPrefix(text, " ")})
		}
	}
	return lines, added, removed
}

func (s *site) showApproval(w http.ResponseWriter, r *http.Request, g *inforce.Generation, a access.Approval, who voter, how shown) error {
	ctx, now := r.Context(), s.now()
	// What cannot be shown whole cannot be approved: no view, no page, no form.
	v, err := s.approvals.View(ctx, a.ID)
	if err != nil {
		return err
	}
	known, err := s.provenOf(ctx, a)
	if err != nil {
		return err
	}
	state, _ := approval.Status(a, now)
	d := approvalPage{
		A: a, V: v, State: state, Sentence: titleOf(a), Status: statusOf(a, state), RunLink: runLink(a.Principal.RunLink), Argv: v.Argv,
		Expires: s.at(a.Expires), Opened: s.at(a.Opened), Quorum: max(1, a.Decision.Obligations.Quorum), Post: how.post,
	}
	if state != access.StatePending {
		d.Ended = s.at(endOf(a))
	}
	if state == access.StateGranted {
		d.Expires = s.at(a.Until)
	}
	for name, value := range a.Principal.Run {
		d.Run = append(d.Run, pair{name, value})
	}
	slices.SortFunc(d.Run, func(a, b pair) int { return strings.Compare(a.Name, b.Name) })
	d.Lines, d.Added, d.Removed = diffLines(v.Diff)
	for _, o := range v.Affected {
		text := o.Kind + " " + o.Name
		if o.Namespace != "" {
			text += " in " + o.Namespace
		}
		if o.Owner != "" {
			text += ", of " + o.Owner
		}
		d.Affected = append(d.Affected, text)
	}
	d.Nothing = len(d.Lines)+len(d.Argv)+len(d.Affected)+v.More == 0
	d.Facts = factsOf(a)
	for _, b := range a.Votes {
		one := ballot{By: b.By.Email, Channel: channelWords(b.By), Yes: b.Yes, Reason: b.Reason, At: s.at(b.At)}
		if b.Yes {
			d.Yes++
			one.Grant = grantWords(a, b.Grant)
		}
		d.Votes = append(d.Votes, one)
		if strings.EqualFold(b.By.Email, who.Email) {
			d.Mine = "You said no"
			if b.Yes {
				d.Mine = "You said yes"
			}
		}
	}
	for _, u := range a.Uses {
		d.Uses = append(d.Uses, use{u.Request, u.Code, s.at(u.At)})
	}
	for _, h := range a.History {
		d.History = append(d.History, event{s.at(h.At), h.What, h.By, h.Text})
	}
	if state == access.StatePending {
		err := tryVote(a, g, who, access.Vote{Yes: true}, now, known)
		if d.May = err == nil; !d.May {
			d.Not = sentence(access.AsError(err).Message)
		}
	}
	for _, c := range approval.Choices(a) {
		if c.Scope != access.ScopeRequest {
			d.Choices = append(d.Choices, choice{string(c.Scope) + ":" + c.Length.String(), grantWords(a, c)})
		}
	}
	d.Revoke = how.session != "" && (state == access.StateGranted || state == access.StateApproved)
	p := page{Title: d.Sentence, Data: d}
	if how.session != "" {
		p.Who = who.Email
		if p.Form, err = s.keys.form(ctx, how.session); err != nil {
			return err
		}
	}
	return s.render(w, http.StatusOK, "approval", p)
}

// runLink is an address that may be followed: https, and nothing else.
func runLink(address string) string {
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
		return ""
	}
	return address
}

func channelWords(by access.Reviewer) string {
	return map[string]string{"page": "on the page", "cli": "by the command line", "slack": "in Slack", "mail": "by the link in a mail"}[by.Channel]
}

func factsOf(a access.Approval) []pair {
	act := a.Action
	what := act.Resource
	if act.Group != "" {
		what += "." + act.Group
	}
	if act.Subresource != "" {
		what += "/" + act.Subresource
	}
	facts := []pair{{"Cluster", a.Cluster}, {"Verb", act.Verb}}
	for _, f := range []pair{{"Resource", what}, {"Namespace", act.Namespace}, {"Name", act.Name}, {"Container", act.Container}, {"Label selector", act.LabelSelector}, {"Field selector", act.FieldSelector}} {
		if f.Value != "" {
			facts = append(facts, f)
		}
	}
	if act.Resourceless {
		facts = append(facts, pair{"Path", act.Path})
	}
	if act.DryRun {
		facts = append(facts, pair{"Dry run", "nothing is stored"})
	}
	return facts
}

// grantWords says what a grant gives, in the approval's own terms.
func grantWords(a access.Approval, g access.Grant) string {
	act := a.Action
	what := act.Verb + " " + act.Resource
	if act.Subresource != "" {
		what += "/" + act.Subresource
	}
	where := ""
	if act.Namespace != "" {
		where = " in " + act.Namespace
	}
	switch g.Scope {
	case access.ScopeObject:
		return fmt.Sprintf("%s %s%s, any number of times, for %s", what, act.Name, where, length(g.Length))
	case access.ScopeNamespace:
		return fmt.Sprintf("%s, any of them%s, any number of times, for %s", what, where, length(g.Length))
	}
	return "exactly this request, once"
}

// statusOf says how an approval stands, to reviewers.
func statusOf(a access.Approval, state access.ApprovalState) string {
	who := cmp.Or(by(a), "nobody")
	switch state {
	case access.StatePending:
		if n := max(1, a.Decision.Obligations.Quorum); n > 1 {
			return fmt.Sprintf("%d people of %s must say yes; one no is enough to deny it.", n, anyOf(a.Reviewers))
		}
		return fmt.Sprintf("One person of %s answers.", anyOf(a.Reviewers))
	case access.StateApproved:
		return fmt.Sprintf("%s said yes to this request, once. It has not passed yet.", who)
	case access.StateGranted:
		return fmt.Sprintf("%s said yes to: %s.", who, grantWords(a, a.Grant))
	case access.StateSpent:
		return fmt.Sprintf("%s said yes, and the request passed.", who)
	case access.StateExpired:
		if len(a.Votes) == 0 {
			return "Nobody answered in time."
		}
		if a.Grant.Scope != "" && a.Grant.Scope != access.ScopeRequest {
			return fmt.Sprintf("%s said yes to: %s. That time is over.", who, grantWords(a, a.Grant))
		}
		if a.Grant.Scope == access.ScopeRequest {
			return fmt.Sprintf("%s said yes, and the request did not come in time.", who)
		}
		return "Not enough people answered in time."
	}
	return sentence(a.Message)
}

// saidOf says what an answer came to, to the one who gave it.
func saidOf(a access.Approval, email string) string {
	switch a.State {
	case access.StatePending:
		yes := 0
		for _, v := range a.Votes {
			if v.Yes {
				yes++
			}
		}
		return fmt.Sprintf("Your yes counts: %d of %d. It is not decided yet.", yes, max(1, a.Decision.Obligations.Quorum))
	case access.StateApproved:
		return fmt.Sprintf("You approved it: exactly this request may pass, once, until %s.", clock(a.Expires))
	case access.StateGranted:
		return fmt.Sprintf("You approved it: %s, until %s.", grantWords(a, a.Grant), clock(a.Until))
	case access.StateDenied:
		if strings.EqualFold(by(a), email) {
			return "You denied it. The agent is told your words."
		}
	}
	return "Your answer was taken."
}

// decided is the page for an answer that came too late: who decided, and what.
func (s *site) decided(err error, a access.Approval, v *visitor) error {
	if access.KindOf(err) != access.Conflict || a.ID == "" {
		return err
	}
	state, _ := approval.Status(a, s.now())
	title := "Already decided"
	switch {
	case state == access.StatePending:
		title = "You answered already"
	case state == access.StateExpired && len(a.Votes) == 0:
		title = "Too late"
	case by(a) != "":
		title = "Already decided by " + by(a)
	}
	return &problem{title: title, code: http.StatusConflict, approval: a.ID, visitor: v, err: access.Errorf(access.Conflict, "%s. Your answer decided nothing", strings.TrimSuffix(access.AsError(err).Message, "."))}
}

// voteOf reads the answer in a form.
func voteOf(form url.Values) (access.Vote, error) {
	switch form.Get("verdict") {
	case "approve":
		return access.Vote{Yes: true, Grant: access.Grant{Scope: access.ScopeRequest}}, nil
	case "approve-for":
		scope, length, _ := strings.Cut(form.Get("grant"), ":")
		if scope == "" || scope == string(access.ScopeRequest) {
			return access.Vote{}, access.Errorf(access.Invalid, "choose what to approve, and for how long. Nothing was decided yet")
		}
		g, err := grantOf(access.Scope(scope), length)
		return access.Vote{Yes: true, Grant: g}, err
	case "deny":
		reason, err := reasonOf(form.Get("reason"), true)
		return access.Vote{Reason: reason}, err
	}
	return access.Vote{}, access.Errorf(access.Invalid, "the form says neither yes nor no. Nothing was decided")
}

func (s *site) decision(w http.ResponseWriter, r *http.Request, v visitor) error {
	id, form, err := s.sent(w, r, v)
	if err != nil {
		return err
	}
	vote, err := voteOf(form)
	if err != nil {
		return err
	}
	got, err := s.vote(r.Context(), v.gen, id, v.voter, vote)
	if err != nil {
		return s.decided(err, got, &v)
	}
	return s.done(w, r, v, "Your answer was taken", saidOf(got, v.Email), got)
}

func (s *site) revocation(w http.ResponseWriter, r *http.Request, v visitor) error {
	id, form, err := s.sent(w, r, v)
	if err != nil {
		return err
	}
	reason, err := reasonOf(form.Get("reason"), true)
	if err != nil {
		return err
	}
	got, err := s.revoke(r.Context(), v.gen, id, v.voter, reason)
	if err != nil {
		if access.KindOf(err) == access.Conflict && got.ID != "" {
			return &problem{title: "Nothing to take back", code: http.StatusConflict, approval: got.ID, err: err}
		}
		return err
	}
	return s.done(w, r, v, "Taken back", "You took it back. Nothing more passes under it, and what is open under it ends within seconds.", got)
}

// sent reads a form that a page of this login sent.
func (s *site) sent(w http.ResponseWriter, r *http.Request, v visitor) (id string, form url.Values, err error) {
	if id, err = idOf(r); err != nil {
		return "", nil, err
	}
	if form, err = formOf(w, r); err != nil {
		return "", nil, err
	}
	return id, form, s.keys.checkForm(r.Context(), v.session, form.Get("form"))
}

// done says what happened.
func (s *site) done(w http.ResponseWriter, r *http.Request, v visitor, title, said string, a access.Approval) error {
	p, err := s.of(r, v, title)
	if err != nil {
		return err
	}
	p.Said, p.Detail = said, titleOf(a)
	p.Links = []link{{"Look at the approval", "/approvals/" + a.ID}, {"What waits for an answer", "/approvals"}}
	return s.render(w, http.StatusOK, "said", p)
}
