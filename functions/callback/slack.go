package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"sallyport/functions/inforce"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/slack"
)

// slackTime is how long an interaction may take: Slack tells the person that it went wrong after three seconds, and the
// button's trigger is dead by then.
const slackTime = 2600 * time.Millisecond

// An interaction is what is read of Slack's payload, and nothing else is: not response_url, which is an address in a body.
// https://docs.slack.dev/reference/interaction-payloads
type interaction struct {
	Type string `json:"type"`
	Team *struct {
		ID string `json:"id"`
	} `json:"team"`
	User struct {
		ID   string `json:"id"`
		Team string `json:"team_id"`
	} `json:"user"`
	Trigger string `json:"trigger_id"`
	Channel struct {
		ID string `json:"id"`
	} `json:"channel"`
	Message struct {
		TS string `json:"ts"`
	} `json:"message"`
	Actions []struct {
		ID       string `json:"action_id"`
		Value    string `json:"value"`
		Selected struct {
			Value string `json:"value"`
		} `json:"selected_option"`
	} `json:"actions"`
	View struct {
		CallbackID string `json:"callback_id"`
		Private    string `json:"private_metadata"`
		State      struct {
			Values map[string]map[string]struct {
				Value string `json:"value"`
			} `json:"values"`
		} `json:"state"`
	} `json:"view"`
}

// A press is an interaction that is about an approval.
type press struct {
	what     string // slack.Approve, slack.ApproveFor, slack.Deny (the button), or sayNo (the dialog)
	approval string
	grant    access.Grant
	reason   string
	who      string // team/user
	user     string
	channel  string
	message  string // its timestamp
	trigger  string
}

const sayNo = "say-no"

// pressOf reads the body of an interaction that Slack signed. ok is false for what asks nothing of us, such as a link that
// was clicked.
func pressOf(body []byte) (p press, ok bool, err error) {
	bad := func(why string) (press, bool, error) {
		return press{}, false, access.Errorf(access.Invalid, "Slack sent an interaction that cannot be read: %s", why)
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || len(form["payload"]) != 1 {
		return bad("it is not one payload in a form")
	}
	var in interaction
	if err := json.Unmarshal([]byte(form.Get("payload")), &in); err != nil {
		return bad("its payload is no JSON of that kind")
	}
	team := in.User.Team
	if in.Team != nil && in.Team.ID != "" {
		// In a shared channel people of other workspaces press the same buttons.
		if team != "" && team != in.Team.ID {
			return bad("the person is of another workspace")
		}
		team = in.Team.ID
	}
	if team == "" || in.User.ID == "" || strings.Contains(team+in.User.ID, "/") {
		return bad("it does not say who pressed")
	}
	p = press{who: team + "/" + in.User.ID, user: in.User.ID, channel: in.Channel.ID, message: in.Message.TS, trigger: in.Trigger}
	switch in.Type {
	case "block_actions":
		if len(in.Actions) != 1 {
			return bad("it holds more than one action, or none")
		}
		action := in.Actions[0]
		p.what, p.approval = action.ID, action.Value
		switch action.ID {
		case slack.Approve, slack.Deny:
			p.grant = access.Grant{Scope: access.ScopeRequest}
		case slack.ApproveFor:
			if p.approval, p.grant, err = slack.Chosen(action.Selected.Value); err != nil {
				return press{}, false, err
			}
		default:
			return press{}, false, nil
		}
	case "view_submission":
		if in.View.CallbackID != slack.Deny {
			return press{}, false, nil
		}
		parts := strings.Split(in.View.Private, "|")
		if len(parts) != 3 {
			return bad("its dialog is none of ours")
		}
		p.what, p.approval, p.channel, p.message = sayNo, parts[0], parts[1], parts[2]
		p.reason = in.View.State.Values[slack.Reason][slack.Reason].Value
	default:
		return press{}, false, nil
	}
	if !idRE.MatchString(p.approval) {
		return bad("it names no approval")
	}
	return p, true, nil
}

// interaction takes what was pressed in Slack. It is Slack's when the signature over the raw bytes is; it is new when nothing
// with those bytes was taken before; and the person may answer when the group of that approval enrolled them, today.
func (s *site) interaction(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), slackTime)
	defer cancel()
	fail := func(err error) { s.fail(w, r, err) }
	if s.chat == nil {
		fail(access.Errorf(access.NotFound, "Slack is not configured here: %s names no secret", slack.Setting))
		return
	}
	raw, err := body(w, r, maxSlack)
	if err != nil {
		fail(err)
		return
	}
	secret, err := s.chat.Secret(ctx)
	if err != nil {
		fail(err)
		return
	}
	now := s.now()
	if err := slack.Verify(secret.SigningSecret, r.Header, raw, now); err != nil {
		s.log.WarnContext(ctx, "an interaction was refused", "message", err.Error())
		fail(err)
		return
	}
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != "application/x-www-form-urlencoded" {
		fail(access.Errorf(access.Media, "Slack sends its interactions as a form"))
		return
	}
	// What was signed, not the signature, names it.
	sum := sha256.Sum256([]byte(r.Header.Get("X-Slack-Request-Timestamp") + ":" + string(raw)))
	first, err := s.kept.Once(ctx, "slack#"+hex.EncodeToString(sum[:]), now.Add(2*slack.Skew+time.Minute))
	if err != nil {
		fail(err)
		return
	}
	p, ours, err := pressOf(raw)
	if err != nil {
		s.log.WarnContext(ctx, "an interaction was refused", "message", err.Error())
		fail(err)
		return
	}
	if !ours {
		w.WriteHeader(http.StatusOK)
		return
	}
	if !first {
		err := access.Errorf(access.Conflict, "this interaction was taken before; the second time it does nothing")
		s.refused(ctx, p.approval, voter{Reviewer: access.Reviewer{Slack: p.who, Channel: "slack"}}, err)
		fail(err)
		return
	}
	reply, err := s.pressed(ctx, p)
	if err != nil {
		e := errorOf(err)
		s.log.WarnContext(ctx, "an interaction came to nothing", "approval", p.approval, "slack", p.who, "kind", e.Kind, "message", e.Message)
		said := "Your answer was not taken: "
		if e.Kind == access.Unavailable || e.Kind == access.Internal {
			said = "Look at the page before you try again: "
		}
		s.tell(ctx, p, said+e.Message+".")
	}
	if reply != nil {
		s.json(w, http.StatusOK, reply)
		return
	}
	w.WriteHeader(http.StatusOK) // Slack shows an error of its own otherwise, which says nothing
}

// pressed does what was pressed. The reply, when there is one, is for the dialog.
func (s *site) pressed(ctx context.Context, p press) (reply any, err error) {
	g, _, err := s.policies.InForce(ctx)
	if err != nil {
		return nil, err
	}
	a, err := s.approvals.Get(ctx, p.approval)
	if err != nil {
		return nil, err
	}
	who, enrolled := enrolledAs(a, g, p.who)
	if !enrolled {
		err := access.Errorf(access.Denied, "you are not enrolled in %s by today's policy, so your answer is nobody's; who runs the gate can enrol %s", anyOf(a.Reviewers), p.who)
		s.refused(ctx, a.ID, who, err)
		return nil, err
	}
	switch p.what {
	case slack.Deny:
		known, err := s.provenOf(ctx, a)
		if err != nil {
			return nil, err
		}
		if err := tryVote(a, g, who, access.Vote{Reason: "-"}, s.now(), known); err != nil {
			s.refused(ctx, a.ID, who, err)
			return nil, err
		}
		return nil, s.chat.Open(ctx, p.trigger, slack.DenyView(a.ID, p.channel, p.message))
	case sayNo:
		reason, err := reasonOf(p.reason, true)
		if err != nil {
			return map[string]any{"response_action": "errors", "errors": map[string]string{slack.Reason: access.AsError(err).Message}}, nil
		}
		_, err = s.vote(ctx, g, a.ID, who, access.Vote{Reason: reason})
		return nil, err
	}
	got, err := s.vote(ctx, g, a.ID, who, access.Vote{Yes: true, Grant: p.grant})
	if err == nil && got.State == access.StatePending {
		s.tell(ctx, p, saidOf(got, who.Email))
	}
	return nil, err
}

// enrolledAs is who somebody in Slack is, to the groups that may answer a: a workspace and a user id prove a person only to
// the group that says so.
func enrolledAs(a access.Approval, g *inforce.Generation, user string) (voter, bool) {
	who := voter{Reviewer: access.Reviewer{Slack: user, Channel: "slack"}}
	for _, group := range g.Roster() {
		for _, name := range a.Reviewers {
			if email := group.Slack[user]; name == group.Name && has(group.People, email) {
				who.Email = strings.ToLower(email)
				return who, true
			}
		}
	}
	return who, false
}

// tell says something to the one who pressed. That it cannot be said changes nothing.
func (s *site) tell(ctx context.Context, p press, text string) {
	if p.channel == "" {
		return
	}
	if err := s.chat.Tell(ctx, p.channel, p.user, text); err != nil {
		s.log.WarnContext(ctx, "Slack could not be told", "approval", p.approval, "slack", p.who, "error", err.Error())
	}
}

// tryVote says whether a vote would count, on a copy.
func tryVote(a access.Approval, g *inforce.Generation, who voter, v access.Vote, now time.Time, known []string) error {
	copied := a
	copied.Votes = append([]access.Vote(nil), a.Votes...)
	copied.History = append([]access.History(nil), a.History...)
	v.By = who.Reviewer
	if v.Yes && v.Grant.Scope == "" {
		v.Grant.Scope = access.ScopeRequest
	}
	return approval.Vote(&copied, g.Roster(), v, now.UTC(), known...)
}
