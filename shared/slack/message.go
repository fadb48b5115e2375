package slack

import (
	"fmt"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"

	api "github.com/slack-go/slack"

	"sallyport/shared/access"
)

// What a person presses: action ids of the message's buttons, and the dialog that asks for the reason of a no.
const (
	Approve    = "approve"     // button; its value is the approval's id
	ApproveFor = "approve-for" // static select; the value of the selected option is Value's
	Deny       = "deny"        // button; its value is the approval's id. Also the callback id of the dialog
	Reason     = "reason"      // block id and action id of the dialog's text
)

// A Message is what stands in a channel.
type Message struct {
	Text   string // what notifications show
	Blocks []api.Block
}

// A Question is what a message about an approval is made from.
type Question struct {
	Approval access.Approval
	View     access.View
	Choices  []access.Grant // what a reviewer may give, of approval.Choices
	Page     string         // the address of the approval's page
	Now      time.Time
}

// What one message shows at most. Slack refuses a text element of more than 3000 characters and a message of more than
// some 13000 in all.
const (
	mostKubectl  = 1500
	mostArgv     = 1500
	mostDiff     = 2400
	mostReason   = 1000
	mostSentence = 600
	mostNote     = 300
	mostNotes    = 6
	mostAffected = 12
	mostFact     = 200
)

// Message makes the message of the approval as it is.
func (q Question) Message() Message {
	a := q.Approval
	if a.State == access.StatePending && !q.Now.Before(a.Expires) {
		q.Approval.State = access.StateExpired // nobody wrote it down yet
	}
	if q.Approval.State != access.StatePending {
		return q.over()
	}
	m := &maker{}
	m.header("Approval wanted: " + what(a))
	m.facts(q)
	m.request(a)
	if a.Reason != "" {
		m.rich(section(bold("Reason, the agent's own words:\n")), quote(m.fit(a.Reason, mostReason, "reason")))
	}
	m.effect(q.View)
	m.rich(section(append([]api.RichTextSectionElement{plain(expiry(a, q.Now)), plain(so(a))}, q.link("\nSee it on the page")...)...))
	m.cutNotice(q)
	m.buttons(q)
	return Message{Text: "Approval wanted: " + harmless(what(a)), Blocks: m.blocks}
}

// over is the message once there is nothing left to answer.
func (q Question) over() Message {
	a, m := q.Approval, &maker{}
	title := Ended(a)
	m.header(title + ": " + what(a))
	m.facts(q)
	m.request(a)
	var told []api.RichTextSectionElement
	for _, v := range a.Votes {
		answer := "said no"
		if v.Yes {
			answer = "said yes, " + GrantWords(v.Grant)
		}
		told = append(told, bold(clip(v.By.Email, mostFact)), plain(fmt.Sprintf(" %s at %s", answer, clock(v.At))))
		if v.Reason != "" {
			told = append(told, plain(": "+clip(v.Reason, mostReason)))
		}
		told = append(told, plain("\n"))
	}
	if a.Message != "" && a.State != access.StateDenied || a.Message != "" && len(a.Votes) == 0 {
		told = append(told, plain(clip(a.Message, mostSentence)+"\n"))
	}
	for _, u := range a.Uses[max(0, len(a.Uses)-1):] {
		used := "Last used at " + clock(u.At)
		if u.Code != 0 {
			used += fmt.Sprintf(", answered %d", u.Code)
		}
		told = append(told, plain(used+"\n"))
	}
	m.rich(section(append(told, q.link("See it on the page")...)...))
	return Message{Text: harmless(title) + ": " + harmless(what(a)), Blocks: m.blocks}
}

// Announce makes a message that asks nothing: a title, and paragraphs in words of anybody.
func Announce(title string, paragraphs ...string) Message {
	m := &maker{}
	m.header(title)
	for _, p := range paragraphs {
		m.rich(section(plain(clip(p, mostDiff))))
	}
	return Message{Text: or(harmless(title), "-"), Blocks: m.blocks}
}

// DenyView is the dialog that asks for the reason of a no. Whose message it was pressed on is in its private metadata,
// as approval|channel|ts.
func DenyView(approval, channel, ts string) api.ModalViewRequest {
	text := func(s string) *api.TextBlockObject { return api.NewTextBlockObject(api.PlainTextType, s, false, false) }
	input := api.NewPlainTextInputBlockElement(text("The agent reads this"), Reason).WithMultiline(true).WithMaxLength(mostReason)
	return api.ModalViewRequest{
		Type: api.VTModal, CallbackID: Deny, PrivateMetadata: approval + "|" + channel + "|" + ts,
		Title: text("Deny the request"), Submit: text("Deny"), Close: text("Cancel"),
		Blocks: api.Blocks{BlockSet: []api.Block{api.NewInputBlock(Reason, text("Why not?"), nil, input)}},
	}
}

// Value is the value of a choice; Chosen reads it back.
func Value(approval string, g access.Grant) string {
	return fmt.Sprintf("%s|%s:%s", approval, g.Scope, g.Length)
}

// Chosen reads what Value wrote. Whether the policy lets that be given is for package approval to say.
func Chosen(value string) (approval string, g access.Grant, err error) {
	id, rest, _ := strings.Cut(value, "|")
	scope, length, _ := strings.Cut(rest, ":")
	d, bad := time.ParseDuration(length)
	if g = (access.Grant{Scope: access.Scope(scope), Length: d}); bad != nil || d <= 0 || (g.Scope != access.ScopeObject && g.Scope != access.ScopeNamespace) {
		return "", access.Grant{}, access.Errorf(access.Invalid, "Slack sent a choice that was not offered")
	}
	return id, g, nil
}

// maker puts a message together, and remembers what had to be cut.
type maker struct {
	blocks []api.Block
	cut    []string
}

func (m *maker) header(s string) {
	s = or(clip(line(s), 150), "-") // Slack refuses an empty text
	m.blocks = append(m.blocks, api.NewHeaderBlock(api.NewTextBlockObject(api.PlainTextType, s, false, false)))
}

func (m *maker) rich(elements ...api.RichTextElement) {
	m.blocks = append(m.blocks, api.NewRichTextBlock("", elements...))
}

func (m *maker) facts(q Question) {
	a := q.Approval
	var out []api.RichTextSectionElement
	add := func(name, value string, more ...api.RichTextSectionElement) {
		if value == "" && len(more) == 0 {
			return
		}
		if len(out) > 0 {
			out = append(out, plain("\n"))
		}
		out = append(out, bold(name+" "))
		if value != "" {
			out = append(out, plain(m.fit(line(value), mostFact, strings.ToLower(name))))
		}
		out = append(out, more...)
	}
	add("Agent", a.Principal.Agent)
	add("Subject", a.Principal.Subject)
	if u, err := url.Parse(a.Principal.RunLink); err == nil && u.Scheme == "https" && u.Host != "" {
		add("Run", "", api.NewRichTextSectionLinkElement(u.String(), "look at the run", nil))
	}
	add("Owner", or(a.Principal.Owner, "nobody is named"))
	add("Cluster", a.Cluster)
	add("Rule", a.Decision.Rule)
	add("Tier", a.Decision.Tier)
	m.rich(section(out...))
}

func (m *maker) request(a access.Approval) {
	m.rich(pre(m.fit(a.Kubectl, mostKubectl, "command line")), section(plain(m.fit(a.Sentence, mostSentence, "sentence"))))
}

// effect shows what the request does, as much as fits.
func (m *maker) effect(v access.View) {
	if len(v.Argv) > 0 {
		lines := make([]string, len(v.Argv))
		for i, arg := range v.Argv {
			lines[i] = fmt.Sprintf(`%d: "%s"`, i, strings.ReplaceAll(arg, "\n", `\n`)) // escaped already (package view): not once more
		}
		m.rich(section(bold("Runs, one argument a line:")), pre(m.lines(lines, len(lines), mostArgv, "argument")))
	}
	if v.Diff != "" {
		title := "Changes:"
		if v.Approximate != "" {
			title = "Changes, approximately:"
		}
		lines := strings.Split(strings.TrimSuffix(v.Diff, "\n"), "\n")
		m.rich(section(bold(title)), pre(m.lines(lines, len(lines), mostDiff, "line")))
	}
	if v.Approximate != "" {
		m.rich(section(plain("Approximate: " + m.fit(v.Approximate, mostNote, "note"))))
	}
	if n := len(v.Affected) + v.More; n > 0 {
		lines := make([]string, 0, len(v.Affected))
		for _, o := range v.Affected {
			s := o.Kind + " "
			if o.Namespace != "" {
				s += o.Namespace + "/"
			}
			s += o.Name
			if o.Owner != "" {
				s += " (" + o.Owner + ")"
			}
			lines = append(lines, line(s))
		}
		shown := lines[:min(len(lines), mostAffected)]
		m.rich(section(bold(fmt.Sprintf("Takes along %d:", n))), pre(m.lines(shown, n, mostArgv, "object")))
	}
	for i, note := range v.Notes {
		if i == mostNotes {
			m.cut = append(m.cut, fmt.Sprintf("%d more notes", len(v.Notes)-i))
			break
		}
		m.rich(section(plain("Note: " + m.fit(note, mostNote, "note"))))
	}
}

func (m *maker) cutNotice(q Question) {
	if len(m.cut) == 0 {
		return
	}
	out := []api.RichTextSectionElement{bold(strings.Join(m.cut, ", ") + ": see the page. "),
		plain("This does not show the whole request, so it can be denied here and approved only there.")}
	m.rich(section(append(out, q.link("\nOpen the page")...)...))
}

func (m *maker) buttons(q Question) {
	id := q.Approval.ID
	text := func(s string) *api.TextBlockObject { return api.NewTextBlockObject(api.PlainTextType, s, false, false) }
	var out []api.BlockElement
	if len(m.cut) == 0 {
		out = append(out, api.NewButtonBlockElement(Approve, id, text("Approve once")).WithStyle(api.StylePrimary))
		var options []*api.OptionBlockObject
		for _, g := range q.Choices {
			if g.Scope != access.ScopeRequest && len(options) < 100 {
				options = append(options, api.NewOptionBlockObject(Value(id, g), text(GrantWords(g)), nil))
			}
		}
		if len(options) > 0 {
			s := api.NewOptionsSelectBlockElement(api.OptTypeStatic, text("Approve for …"), ApproveFor, options...)
			// To select is to answer: a slip of the hand must not give an hour.
			s.Confirm = api.NewConfirmationBlockObject(text("Approve for longer?"), text("The agent may do this again and again until the time is over or you take it back."), text("Approve"), text("Cancel"))
			out = append(out, s)
		}
	}
	out = append(out, api.NewButtonBlockElement(Deny, id, text("Deny …")).WithStyle(api.StyleDanger))
	m.blocks = append(m.blocks, api.NewActionBlock("answer", out...))
}

// fit cuts a text that is too long, and remembers that.
func (m *maker) fit(s string, most int, what string) string {
	n := utf8.RuneCountInString(s)
	if n <= most {
		return s
	}
	m.cut = append(m.cut, fmt.Sprintf("%d more characters of the %s", n-most, what))
	return string([]rune(s)[:most]) + " [cut here]"
}

// lines keeps whole lines while they fit. all is how many there are, of which lines may be the first.
func (m *maker) lines(lines []string, all, most int, what string) string {
	var b strings.Builder
	size, shown := 0, 0
	for _, l := range lines {
		if size += utf8.RuneCountInString(l) + 1; size > most {
			break
		}
		b.WriteString(l + "\n")
		shown++
	}
	if more := all - shown; more > 0 {
		if more > 1 {
			what += "s"
		}
		m.cut = append(m.cut, fmt.Sprintf("%d more %s", more, what))
		fmt.Fprintf(&b, "[%d more %s: see the page]", more, what)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (q Question) link(words string) []api.RichTextSectionElement {
	if q.Page == "" {
		return nil
	}
	lead := strings.TrimLeft(words, "\n")
	return []api.RichTextSectionElement{plain(words[:len(words)-len(lead)]), api.NewRichTextSectionLinkElement(q.Page, lead, nil)}
}

func section(e ...api.RichTextSectionElement) *api.RichTextSection {
	var out []api.RichTextSectionElement
	for _, e := range e {
		if t, ok := e.(*api.RichTextSectionTextElement); !ok || t.Text != "" { // Slack refuses an empty text
			out = append(out, e)
		}
	}
	if len(out) == 0 {
		out = append(out, plain(" "))
	}
	return api.NewRichTextSection(out...)
}

func pre(s string) *api.RichTextPreformatted {
	return &api.RichTextPreformatted{Type: api.RTEPreformatted, Elements: []api.RichTextSectionElement{plain(or(s, " "))}}
}

func quote(s string) *api.RichTextQuote {
	return &api.RichTextQuote{Type: api.RTEQuote, Elements: []api.RichTextSectionElement{plain(or(s, " "))}}
}

func plain(s string) *api.RichTextSectionTextElement {
	return api.NewRichTextSectionTextElement(s, nil)
}

func bold(s string) *api.RichTextSectionTextElement {
	return api.NewRichTextSectionTextElement(s, &api.RichTextSectionTextStyle{Bold: true})
}

// what is the request in a few words.
func what(a access.Approval) string {
	act := a.Action
	resource := act.Resource
	if act.Subresource != "" {
		resource += "/" + act.Subresource
	}
	s := fmt.Sprintf("%s wants to %s %s", a.Principal.Agent, act.Verb, or(resource, act.Path))
	if act.Name != "" {
		s += " " + act.Name
	}
	if act.Namespace != "" {
		s += " in " + act.Namespace
	}
	return line(s + " on " + a.Cluster)
}

// Ended says in a few words how an approval stands.
func Ended(a access.Approval) string {
	by := ""
	for _, v := range a.Votes {
		if v.Yes == (a.State != access.StateDenied) {
			by += ", " + v.By.Email
		}
	}
	if by != "" {
		by = " by " + strings.TrimPrefix(by, ", ")
	}
	switch a.State {
	case access.StateApproved:
		return "Approved once" + by
	case access.StateGranted:
		return "Approved" + by + ", " + GrantWords(a.Grant) + ", until " + clock(a.Until)
	case access.StateSpent:
		return "Approved once" + by + ", and used"
	case access.StateDenied:
		if by == "" {
			return "Denied: nobody could be asked"
		}
		return "Denied" + by
	case access.StateExpired:
		if by == "" {
			return "Expired without an answer"
		}
		return "Expired"
	case access.StateWithdrawn:
		return "Withdrawn"
	case access.StateRevoked:
		return "Revoked"
	}
	return "Approval wanted"
}

// GrantWords says what a grant gives.
func GrantWords(g access.Grant) string {
	switch g.Scope {
	case access.ScopeObject:
		return "this object for " + Span(g.Length)
	case access.ScopeNamespace:
		return "this namespace for " + Span(g.Length)
	}
	return "this request once"
}

// Span writes a duration without the zeros of Go's spelling.
func Span(d time.Duration) string {
	d = d.Round(time.Second)
	h, m, s := int(d.Hours()), int(d.Minutes())%60, int(d.Seconds())%60
	out := ""
	for _, p := range []struct {
		n    int
		unit string
	}{{h, "h"}, {m, "min"}, {s, "s"}} {
		if p.n > 0 {
			out += fmt.Sprintf(" %d %s", p.n, p.unit)
		}
	}
	return or(strings.TrimPrefix(out, " "), "0 s")
}

// Remaining says how long there is to answer, for a reminder.
func (q Question) Remaining() string { return expiry(q.Approval, q.Now) + so(q.Approval) }

func expiry(a access.Approval, now time.Time) string {
	left := a.Expires.Sub(now)
	if left <= 0 {
		return "Expired at " + clock(a.Expires)
	}
	if left > time.Minute {
		left = left.Round(time.Minute)
	}
	return fmt.Sprintf("Expires in %s, at %s", Span(left), clock(a.Expires))
}

// so is how far the answer has come, and who is asked.
func so(a access.Approval) string {
	s := "\nAsked: " + clip(strings.Join(a.Reviewers, ", "), mostFact)
	if q := a.Decision.Obligations.Quorum; q > 1 {
		s += fmt.Sprintf("\nNeeds %d people", q)
	}
	yes := ""
	for _, v := range a.Votes {
		if v.Yes {
			yes += ", " + v.By.Email
		}
	}
	if yes != "" {
		s += "\nYes so far: " + clip(strings.TrimPrefix(yes, ", "), mostFact)
	}
	return s
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// line makes one line of a text.
func line(s string) string { return strings.Join(strings.Fields(s), " ") }

// clip shortens what need not be shown whole.
func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}

// harmless reduces a text to what has no meaning in Slack's markup: what notifications show is parsed.
func harmless(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == ' ', r == '-':
			return r
		}
		return '·'
	}, s)
	return clip(s, mostFact)
}
