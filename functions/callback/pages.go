package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/view"
)

//go:embed pages
var files embed.FS

// A style is the stylesheet. Its address changes with it, so it may be kept.
type style struct {
	path string
	text []byte
}

func (s style) serve(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/css; charset=utf-8")
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(s.text) // an error is the client gone
}

// load reads the templates, each page with the frame around it.
func load() (map[string]*template.Template, style, error) {
	text, err := files.ReadFile("pages/style.css")
	if err != nil {
		return nil, style{}, err
	}
	sum := sha256.Sum256(text)
	css := style{path: "/style-" + hex.EncodeToString(sum[:6]) + ".css", text: text}
	all := map[string]*template.Template{}
	for _, name := range []string{"pending", "approval", "history", "grants", "said", "choose"} {
		t, err := template.New("frame.html").Funcs(template.FuncMap{
			"line": view.VisibleLine, "text": view.Visible, "label": label, "short": digest,
		}).ParseFS(files, "pages/frame.html", "pages/"+name+".html")
		if err != nil {
			return nil, css, err
		}
		all[name] = t
	}
	return all, css, nil
}

// A page is what every page has.
type page struct {
	Title   string
	Style   string
	Nav     string // which of the lists this is
	Who     string // who is logged in
	Form    string // what the forms of this login carry
	Refresh int    // seconds
	Now     moment

	Said   string // what happened, in a sentence
	Detail string
	Bad    bool
	Links  []link
	Data   any
}

type link struct{ Text, Href string }

// A moment is a time as it is shown: for programs, for people, and from now.
type moment struct{ ISO, Abs, Rel string }

func (s *site) at(t time.Time) moment {
	if t.IsZero() {
		return moment{}
	}
	return moment{t.UTC().Format(time.RFC3339), clock(t), relative(t.Sub(s.now()))}
}

func clock(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") }

// relative says how far away a time is, as somebody would.
func relative(d time.Duration) string {
	in, n := d > 0, d.Abs()
	var words string
	switch {
	case n < 5*time.Second:
		return "now"
	case n < 2*time.Minute:
		words = fmt.Sprintf("%d seconds", n/time.Second)
	case n < 2*time.Hour:
		words = fmt.Sprintf("%d minutes", n/time.Minute)
	case n < 48*time.Hour:
		words = fmt.Sprintf("%d hours", n/time.Hour)
	default:
		words = fmt.Sprintf("%d days", n/(24*time.Hour))
	}
	if in {
		return "in " + words
	}
	return words + " ago"
}

// length says a duration as somebody would.
func length(d time.Duration) string {
	part := func(n time.Duration, unit string) string {
		if n == 1 {
			return "1 " + unit
		}
		return fmt.Sprintf("%d %ss", n, unit)
	}
	var parts []string
	for _, p := range []struct {
		n    time.Duration
		unit string
	}{{d / time.Hour, "hour"}, {d % time.Hour / time.Minute, "minute"}, {d % time.Minute / time.Second, "second"}} {
		if p.n > 0 {
			parts = append(parts, part(p.n, p.unit))
		}
	}
	return cmp.Or(strings.Join(parts, " "), "no time")
}

func digest(s string) string { return s[:min(len(s), 12)] }

// render writes a page, whole or not at all.
func (s *site) render(w http.ResponseWriter, code int, name string, p page) error {
	p.Style, p.Now = s.style.path, s.at(s.now())
	var b bytes.Buffer
	if err := s.pages[name].Execute(&b, p); err != nil {
		return fmt.Errorf("page %s: %w", name, err)
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = w.Write(b.Bytes()) // an error is the client gone
	return nil
}

// of is the page of a visitor.
func (s *site) of(r *http.Request, v visitor, title string) (page, error) {
	form, err := s.keys.form(r.Context(), v.session)
	return page{Title: title, Who: v.Email, Form: form}, err
}

// A problem is an error that has a page of its own.
type problem struct {
	title    string
	code     int
	approval string // that it is about
	visitor  *visitor
	err      error
}

func (p *problem) Error() string { return p.err.Error() }
func (p *problem) Unwrap() error { return p.err }

// failPage answers a person with an error.
func (s *site) failPage(w http.ResponseWriter, r *http.Request, e *access.Error, err error) {
	p := page{Bad: true, Said: sentence(e.Message), Title: map[access.Kind]string{
		access.Invalid:         "That cannot be done",
		access.Method:          "That cannot be done",
		access.TooLarge:        "That is too much",
		access.Media:           "That cannot be read",
		access.Unauthenticated: "Log in first",
		access.Denied:          "You may not do that",
		access.NotFound:        "There is nothing here",
		access.Conflict:        "Already decided",
		access.Limited:         "Too often",
		access.Unavailable:     "Not now",
	}[e.Kind]}
	p.Title = cmp.Or(p.Title, "Our mistake")
	code := codeOf(e)
	var special *problem
	if errors.As(err, &special) {
		p.Title, code = special.title, special.code
		if special.approval != "" {
			p.Links = append(p.Links, link{"Look at the approval", "/approvals/" + special.approval})
		}
	} else if id := r.PathValue("id"); idRE.MatchString(id) && e.Kind != access.NotFound {
		p.Links = append(p.Links, link{"Back to the approval", "/approvals/" + id})
	}
	// After a mistake of ours nothing more is tried than to say so: what panicked would again.
	if e.Kind == access.Internal {
		p.Links = append(p.Links, link{"What waits for an answer", "/approvals"})
	} else if v, err := s.visitor(r); err == nil || access.KindOf(err) == access.Denied {
		p.Who = v.Email
		p.Form, _ = s.keys.form(r.Context(), v.session) // without it nobody can log out here, and can elsewhere
		p.Links = append(p.Links, link{"What waits for an answer", "/approvals"})
	} else {
		p.Links = append(p.Links, link{"Log in", "/login"})
	}
	if err := s.render(w, code, "said", p); err != nil {
		s.log.ErrorContext(r.Context(), "a page for an error", "error", err.Error())
		http.Error(w, "this page made a mistake; look at the approval before you try again", http.StatusInternalServerError)
	}
}

// sentence begins with a capital and ends with a full stop.
func sentence(s string) string {
	if s == "" {
		return s
	}
	s = strings.ToUpper(s[:1]) + s[1:]
	if !strings.HasSuffix(s, ".") && !strings.HasSuffix(s, "!") && !strings.HasSuffix(s, "?") {
		s += "."
	}
	return s
}

// label says a state in a few words.
func label(state access.ApprovalState) string {
	return map[access.ApprovalState]string{
		access.StatePending:   "Waiting for an answer",
		access.StateApproved:  "Approved, not used yet",
		access.StateGranted:   "Approved for a while",
		access.StateDenied:    "Denied",
		access.StateExpired:   "Expired",
		access.StateSpent:     "Approved and used",
		access.StateWithdrawn: "Withdrawn",
		access.StateRevoked:   "Taken back",
	}[state]
}

// A row is an approval in a list.
type row struct {
	ID, Sentence, Agent, Cluster string
	State                        access.ApprovalState
	Opened, Expires, Ended       moment
	By                           string // who answered
	Grant                        string
	Until                        moment
	Uses                         int
	Yes, Quorum                  int
	Mine                         bool // the visitor's answer is wanted
}

func (s *site) row(a access.Approval) row {
	state, _ := approval.Status(a, s.now())
	r := row{
		ID: a.ID, Sentence: titleOf(a), Agent: a.Principal.Agent, Cluster: a.Cluster, State: state, Opened: s.at(a.Opened),
		Expires: s.at(a.Expires), Ended: s.at(endOf(a)), By: by(a), Uses: len(a.Uses), Quorum: max(1, a.Decision.Obligations.Quorum),
	}
	for _, v := range a.Votes {
		if v.Yes {
			r.Yes++
		}
	}
	if a.Grant.Scope != "" {
		r.Grant = grantWords(a, a.Grant)
	}
	if !a.Until.IsZero() {
		r.Until = s.at(a.Until)
	}
	return r
}

// endOf is when an approval was answered, or was over.
func endOf(a access.Approval) time.Time {
	if len(a.Votes) > 0 {
		return a.Votes[len(a.Votes)-1].At
	}
	if !a.Ended.IsZero() {
		return a.Ended
	}
	return a.Expires
}

// by is who decided: who said no, or else all who said yes.
func by(a access.Approval) string {
	var yes []string
	for _, v := range a.Votes {
		if !v.Yes {
			return v.By.Email
		}
		yes = append(yes, v.By.Email)
	}
	return strings.Join(yes, ", ")
}

func titleOf(a access.Approval) string {
	return cmp.Or(a.Sentence, a.Kubectl, a.Action.Verb+" "+a.Action.Path)
}

// lately is how many of those that are over the first page lists, listed is how many a list has.
const (
	lately = 8
	listed = 50
)

func (s *site) pending(w http.ResponseWriter, r *http.Request, v visitor) error {
	ctx, now := r.Context(), s.now()
	waiting, err := s.approvals.List(ctx, true, 200, now.Add(time.Minute))
	if err != nil {
		return err
	}
	recent, err := s.approvals.List(ctx, false, listed, now.Add(time.Minute))
	if err != nil {
		return err
	}
	var data struct{ Mine, Others, Recent []row }
	for _, a := range waiting {
		state, _ := approval.Status(a, now)
		if !concerns(a, v.groups) {
			continue
		}
		one := s.row(a)
		switch {
		case state != access.StatePending: // it is over, and nobody wrote that down yet
			data.Recent = append(data.Recent, one)
		case slices.Contains(v.gen.Roster().Eligible(a), v.Email):
			data.Mine = append(data.Mine, one)
		default:
			data.Others = append(data.Others, one)
		}
	}
	for _, a := range recent {
		if concerns(a, v.groups) && len(data.Recent) < lately {
			data.Recent = append(data.Recent, s.row(a))
		}
	}
	p, err := s.of(r, v, "Waiting for an answer")
	if err != nil {
		return err
	}
	if n := len(data.Mine); n > 0 {
		p.Title = fmt.Sprintf("%d waiting for you", n)
	}
	p.Nav, p.Refresh, p.Data = "pending", 15, data
	return s.render(w, http.StatusOK, "pending", p)
}

func (s *site) history(w http.ResponseWriter, r *http.Request, v visitor) error {
	before := s.now().Add(time.Minute)
	if text := r.URL.Query().Get("before"); text != "" {
		var err error
		if before, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return access.Errorf(access.Invalid, "the address of this page names a time that cannot be read")
		}
	}
	all, err := s.approvals.List(r.Context(), false, listed, before)
	if err != nil {
		return err
	}
	var data struct {
		Rows  []row
		Older string
	}
	for _, a := range all {
		if concerns(a, v.groups) {
			data.Rows = append(data.Rows, s.row(a))
		}
	}
	if len(all) == listed {
		data.Older = "/history?before=" + url.QueryEscape(all[len(all)-1].Opened.UTC().Format(time.RFC3339Nano))
	}
	p, err := s.of(r, v, "History")
	if err != nil {
		return err
	}
	p.Nav, p.Data = "history", data
	return s.render(w, http.StatusOK, "history", p)
}

// longestAsk is the longest that a question stands (package policy): what was opened longer ago than that and the longest
// session is over.
const longestAsk = 24 * time.Hour

func (s *site) grants(w http.ResponseWriter, r *http.Request, v visitor) error {
	now := s.now()
	oldest := now.Add(-longestAsk - max(24*time.Hour, v.gen.Policy.Sessions.Longest))
	before := now.Add(time.Minute)
	var rows []row
	for {
		all, err := s.approvals.List(r.Context(), false, 200, before)
		if err != nil {
			return err
		}
		for _, a := range all {
			if state, _ := approval.Status(a, now); state == access.StateGranted && concerns(a, v.groups) {
				rows = append(rows, s.row(a))
			}
		}
		if len(all) < 200 || !all[len(all)-1].Opened.Before(before) || all[len(all)-1].Opened.Before(oldest) {
			break
		}
		before = all[len(all)-1].Opened
	}
	p, err := s.of(r, v, "Grants")
	if err != nil {
		return err
	}
	p.Nav, p.Data = "grants", rows
	return s.render(w, http.StatusOK, "grants", p)
}

func (s *site) choose(w http.ResponseWriter, all []way, next string) error {
	var links []link
	for _, one := range all {
		q := url.Values{"issuer": {one.Issuer}, "audience": {one.Audience}, "next": {next}}
		links = append(links, link{one.Issuer + " (" + one.Audience + ")", "/login?" + q.Encode()})
	}
	return s.render(w, http.StatusOK, "choose", page{Title: "Log in", Links: links})
}
