package mail

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"net/url"
	"regexp"
	"strings"
	texts "text/template"
	"time"
	"unicode/utf8"

	"sallyport/shared/access"
)

// A Question is what a mail about an approval is made from.
type Question struct {
	Approval access.Approval
	View     access.View
	To       string
	Link     string // this person's own
	Again    bool   // a reminder
	Others   bool   // nobody answered who was asked before
	Now      time.Time
}

//go:embed question.html
var questionHTML string

//go:embed question.txt
var questionText string

//go:embed announce.html
var announceHTML string

var (
	questionPage  = template.Must(template.New("question.html").Parse(questionHTML))
	questionPlain = texts.Must(texts.New("question.txt").Funcs(texts.FuncMap{"indent": indent}).Parse(questionText))
	announcePage  = template.Must(template.New("announce.html").Parse(announceHTML))
)

// What one mail shows at most.
const (
	mostLines    = 200
	mostDiff     = 20000
	mostAffected = 50
	mostText     = 4000
)

// shown is what the templates are given: every text in it is broken where a mail program would make a link of it, but for
// Link and RunLink.
type shown struct {
	Title, Lead                               string
	Agent, Subject, Owner, Cluster, Rule      string
	Tier, Kubectl, Sentence, Reason, Expires  string
	Asked, Quorum, Diff, Approximate, RunLink string
	Argv, Affected, Notes                     []string
	MoreDiff, MoreAffected                    int
	Link                                      string
	Alone                                     bool
}

// Message makes the mail.
func (q Question) Message() Message {
	a, o := q.Approval, q.Approval.Decision.Obligations
	s := shown{
		Title: "An agent asks for your approval", Lead: "",
		Agent: one(a.Principal.Agent), Subject: one(a.Principal.Subject), Owner: one(a.Principal.Owner), Cluster: one(a.Cluster),
		Rule: one(a.Decision.Rule), Tier: one(a.Decision.Tier), Kubectl: safe(a.Kubectl), Sentence: one(a.Sentence), Reason: safe(a.Reason),
		Expires: expiry(a, q.Now), Asked: one(strings.Join(a.Reviewers, ", ")), Approximate: one(q.View.Approximate),
		Link: q.Link, Alone: o.Links == "alone",
	}
	if o.Quorum > 1 {
		s.Quorum = fmt.Sprintf("%d people must say yes", o.Quorum)
	}
	if u, err := url.Parse(a.Principal.RunLink); err == nil && u.Scheme == "https" && u.Host != "" {
		s.RunLink = u.String()
	}
	switch {
	case q.Others:
		s.Lead = "Nobody answered who was asked first, so you are asked too."
	case q.Again:
		s.Lead = "This was asked before, and nobody answered yet."
	}
	for _, arg := range q.View.Argv {
		s.Argv = append(s.Argv, safe(strings.ReplaceAll(arg, "\n", `\n`)))
	}
	s.Diff, s.MoreDiff = cut(q.View.Diff)
	for i, o := range q.View.Affected {
		if i == mostAffected {
			break
		}
		t := o.Kind + " "
		if o.Namespace != "" {
			t += o.Namespace + "/"
		}
		if t += o.Name; o.Owner != "" {
			t += " (" + o.Owner + ")"
		}
		s.Affected = append(s.Affected, one(t))
	}
	s.MoreAffected = len(q.View.Affected) + q.View.More - len(s.Affected)
	for _, n := range q.View.Notes {
		s.Notes = append(s.Notes, one(n))
	}
	m := Message{To: q.To, Subject: subject(q.subject())}
	m.HTML, m.Text = render(questionPage, s), render(questionPlain, s)
	return m
}

// subject names who, what kind of thing and where: lists of mails are read over shoulders and kept in logs.
func (q Question) subject() string {
	a := q.Approval
	resource := a.Action.Resource
	if a.Action.Subresource != "" {
		resource += "/" + a.Action.Subresource
	}
	if resource == "" {
		resource = "a request"
	}
	s := fmt.Sprintf("Approval wanted: %s, %s %s", a.Principal.Agent, a.Action.Verb, resource)
	if a.Action.Namespace != "" {
		s += " in " + a.Action.Namespace
	}
	s += " on " + a.Cluster
	if q.Again {
		s = "Reminder: " + s
	}
	return safe(s)
}

// Announce makes a mail that asks nothing: a title, and paragraphs in words of anybody.
func Announce(to, title string, paragraphs ...string) Message {
	in := struct {
		Title      string
		Paragraphs []string
	}{Title: safe(title)}
	for _, p := range paragraphs {
		in.Paragraphs = append(in.Paragraphs, safe(clip(p, mostText)))
	}
	return Message{To: to, Subject: subject(in.Title), HTML: render(announcePage, in), Text: in.Title + "\n\n" + strings.Join(in.Paragraphs, "\n\n") + "\n"}
}

func render(t interface {
	Execute(w io.Writer, data any) error
}, in any) string {
	var b strings.Builder
	if err := t.Execute(&b, in); err != nil {
		panic(err) // into memory, from templates that tests run
	}
	return b.String()
}

// cut keeps the first lines of a diff, whole, and says how many it left out.
func cut(diff string) (string, int) {
	if diff == "" {
		return "", 0
	}
	lines := strings.Split(strings.TrimSuffix(diff, "\n"), "\n")
	size := 0
	for i, l := range lines {
		if size += len(l) + 1; i == mostLines || size > mostDiff {
			return safe(strings.Join(lines[:i], "\n")), len(lines) - i
		}
	}
	return safe(strings.Join(lines, "\n")), 0
}

// address is what mail programs make a link of by themselves.
var address = regexp.MustCompile(`(?i)(://|www\.|mailto:)`)

// safe breaks what a mail program would make a link of.
func safe(s string) string {
	return address.ReplaceAllStringFunc(s, func(a string) string {
		if a == "://" {
			return "[:]//"
		}
		return a[:len(a)-1] + "[" + a[len(a)-1:] + "]"
	})
}

// one is safe, and one line: in a text, another line could be read as ours.
func one(s string) string { return safe(strings.Join(strings.Fields(s), " ")) }

func indent(s string) string { return "    " + strings.ReplaceAll(s, "\n", "\n    ") }

func expiry(a access.Approval, now time.Time) string {
	left := a.Expires.Sub(now).Round(time.Second)
	if left > time.Minute {
		left = left.Round(time.Minute)
	}
	return fmt.Sprintf("in %s, at %s", strings.TrimSuffix(left.String(), "0s"), a.Expires.UTC().Format("2006-01-02 15:04 UTC"))
}

func clip(s string, most int) string {
	if utf8.RuneCountInString(s) <= most {
		return s
	}
	return string([]rune(s)[:most-1]) + "…"
}
