package inbox

import (
	"cmp"
	_ "embed"
	"html/template"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"
)

//go:embed page.html
var pageHTML string

//go:embed style.css
var styleCSS []byte

var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"clock": func(t time.Time) string { return t.Local().Format("15:04:05") },
	"iso":   func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
}).Parse(pageHTML))

// shown is how many messages of a channel, and how many mails, the page has at most; the list has all that were kept.
const shown = 60

// Handler serves
//
//	GET    /                        the page; ?as=ben to press as ben
//	GET    /messages.json           what was sent, oldest first
//	POST   /press, /submit, /close  what the page's forms do
//	GET    /mail/{id}               a mail's HTML, to be framed
//	POST   /api/{method}            Slack's Web API
//	POST   /actions/{id...}         where response_url leads to
//	       /_local/{channel}/fault  of slack or mail: PUT {"status":500,"delay":"2s","times":1}, GET, DELETE; see Fault
func (i *Inbox) Handler() http.Handler {
	mux := http.NewServeMux()
	sameOrigin := http.NewCrossOriginProtection()
	form := func(f http.HandlerFunc) http.Handler { return sameOrigin.Handler(f) }
	mux.HandleFunc("GET /{$}", i.servePage)
	mux.HandleFunc("GET /messages.json", func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, i.Messages()) })
	mux.HandleFunc("GET /style.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(styleCSS)
	})
	mux.HandleFunc("GET /mail/{id}", i.serveMail)
	mux.Handle("POST /press", form(i.servePress))
	mux.Handle("POST /submit", form(i.serveSubmit))
	mux.Handle("POST /close", form(i.serveClose))
	mux.HandleFunc("/api/{method}", i.serveSlack)
	mux.HandleFunc("POST /actions/{id...}", i.serveResponse)
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		mux.HandleFunc(method+" /_local/{channel}/fault", i.serveFault)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if h, _, err := net.SplitHostPort(host); err == nil {
			host = h
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this is the inbox of one machine, and not "+r.Host, http.StatusMisdirectedRequest)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// What the page is made from.
type (
	pageView struct {
		As       Person
		People   []Person
		Channels []channelView
		Mails    []message
		Dialog   *dialogView
		Notices  []notice
		Sent     int
	}
	channelView struct {
		ID, Name string
		Messages []messageView
	}
	messageView struct {
		message
		Body   []blockView
		Reply  bool
		Edited bool
		Anchor string
	}
	blockView struct {
		Kind     string // header, text, context, divider, actions
		HTML     template.HTML
		Fields   []template.HTML
		ID       string
		Elements []elementView
	}
	elementView struct {
		Kind, Action, Label, Style, URL string
		Options                         []optionView
		Confirm                         *confirmView
	}
	optionView  struct{ Label, Value string }
	confirmView struct{ Title, Text, Yes string }
	dialogView  struct {
		ID, Title, Submit, Close, Problem string
		Body                              []blockView
		Inputs                            []inputView
	}
	inputView struct {
		ID, Label, Hint, Placeholder, Value, Error string
		Multiline, Optional                        bool
		Most                                       int
		Options                                    []optionView
	}
)

func (i *Inbox) servePage(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	v := pageView{People: i.people(), As: i.who(r.URL.Query().Get("as")), Sent: len(i.messages)}
	v.Notices = slices.Clone(i.notices[v.As.ID])
	slices.Reverse(v.Notices)
	at := map[string]int{}
	for _, id := range slices.Sorted(func(yield func(string) bool) {
		for id := range i.workspace.Channels {
			if !yield(id) {
				return
			}
		}
	}) {
		at[id] = len(v.Channels)
		v.Channels = append(v.Channels, channelView{ID: id, Name: i.workspace.Channels[id].Name})
	}
	// The newest first, but what answers a message under it.
	for _, m := range slices.Backward(i.messages) {
		switch {
		case m.Channel == "mail":
			if len(v.Mails) < shown {
				v.Mails = append(v.Mails, *m)
			}
			continue
		case m.gone, m.Thread != "" && i.find(m.To, m.Thread) != nil, m.user != "" && m.user != v.As.ID:
			continue
		}
		n, ok := at[m.To]
		if !ok { // a policy was put that does not name the channel any more
			n = len(v.Channels)
			at[m.To] = n
			v.Channels = append(v.Channels, channelView{ID: m.To, Name: m.To})
		}
		c := &v.Channels[n]
		if len(c.Messages) >= shown {
			continue
		}
		c.Messages = append(c.Messages, m.page(false))
		for _, reply := range i.messages {
			if reply.Thread == m.ID && reply.To == m.To && !reply.gone && (reply.user == "" || reply.user == v.As.ID) {
				c.Messages = append(c.Messages, reply.page(true))
			}
		}
	}
	if d := i.modals[r.URL.Query().Get("dialog")]; d != nil && d.user == v.As.ID {
		v.Dialog = d.page()
	}
	i.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "same-origin")
	if err := page.Execute(w, v); err != nil {
		i.log.Warn("the page breaks off", "error", err)
	}
}

func anchor(ts string) string { return "m" + strings.ReplaceAll(ts, ".", "-") }

func (m *message) page(reply bool) messageView {
	v := messageView{message: *m, Reply: reply, Edited: !m.Updated.IsZero(), Anchor: anchor(m.ID)}
	v.Body = blocksPage(m.blocks)
	if len(m.blocks) == 0 {
		v.Body = []blockView{{Kind: "text", HTML: marked(m.fallback)}}
	}
	return v
}

func blocksPage(blocks []map[string]any) []blockView {
	var out []blockView
	for _, b := range blocks {
		v := blockView{Kind: "text"}
		v.ID, _ = b["block_id"].(string)
		elements, _ := b["elements"].([]any)
		switch b["type"] {
		case "header":
			v.Kind = "header"
			_, v.HTML, _ = words(b["text"])
		case "section":
			_, v.HTML, _ = words(b["text"])
			fields, _ := b["fields"].([]any)
			for _, f := range fields {
				_, h, _ := words(f)
				v.Fields = append(v.Fields, h)
			}
			if a, ok := b["accessory"]; ok {
				v.Elements = append(v.Elements, elementPage(a))
			}
		case "rich_text":
			_, v.HTML, _ = richWords(b)
		case "context":
			v.Kind = "context"
			for _, e := range elements {
				_, h, _ := words(e)
				v.Fields = append(v.Fields, h)
			}
		case "divider":
			v.Kind = "divider"
		case "actions":
			v.Kind = "actions"
			for _, e := range elements {
				v.Elements = append(v.Elements, elementPage(e))
			}
		default:
			continue
		}
		out = append(out, v)
	}
	return out
}

func elementPage(x any) elementView {
	e, _ := x.(map[string]any)
	var v elementView
	v.Kind, _ = e["type"].(string)
	v.Action, _ = e["action_id"].(string)
	v.Style, _ = e["style"].(string)
	v.URL, _ = e["url"].(string)
	v.Label, _, _ = words(e["text"])
	if v.Kind != "button" {
		v.Label, _, _ = words(e["placeholder"])
		v.Label = cmp.Or(v.Label, "Choose …")
		v.Options = optionsPage(e)
	}
	if c, ok := e["confirm"].(map[string]any); ok {
		v.Confirm = &confirmView{}
		v.Confirm.Title, _, _ = words(c["title"])
		v.Confirm.Text, _, _ = words(c["text"])
		v.Confirm.Yes, _, _ = words(c["confirm"])
	}
	return v
}

func optionsPage(e map[string]any) []optionView {
	var out []optionView
	options, _ := e["options"].([]any)
	for _, o := range options {
		o, _ := o.(map[string]any)
		label, _, _ := words(o["text"])
		value, _ := o["value"].(string)
		out = append(out, optionView{label, value})
	}
	return out
}

func (m *modal) page() *dialogView {
	v := &dialogView{ID: m.id, Problem: m.problem, Body: blocksPage(m.blocks)}
	v.Title, _, _ = words(m.view["title"])
	v.Submit, _, _ = words(m.view["submit"])
	v.Close, _, _ = words(m.view["close"])
	v.Close = cmp.Or(v.Close, "Cancel")
	for _, b := range m.blocks {
		if b["type"] != "input" {
			continue
		}
		e, _ := b["element"].(map[string]any)
		var in inputView
		in.ID, _ = b["block_id"].(string)
		in.Label, _, _ = words(b["label"])
		in.Hint, _, _ = words(b["hint"])
		in.Placeholder, _, _ = words(e["placeholder"])
		in.Multiline, _ = e["multiline"].(bool)
		in.Optional, _ = b["optional"].(bool)
		in.Options = optionsPage(e)
		in.Error = m.errors[in.ID]
		initial, _ := e["initial_value"].(string)
		in.Value = cmp.Or(m.answers[in.ID], initial)
		most, _ := e["max_length"].(float64)
		in.Most = cmp.Or(int(most), maxText)
		v.Inputs = append(v.Inputs, in)
	}
	return v
}

// serveMail is a mail's HTML, which may do nothing but look like something and lead away in a window of its own.
func (i *Inbox) serveMail(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	n := slices.IndexFunc(i.messages, func(m *message) bool {
		return m.Channel == "mail" && m.ID == r.PathValue("id") && m.HTML != ""
	})
	body := ""
	if n >= 0 {
		body = i.messages[n].HTML
	}
	i.mu.Unlock()
	if n < 0 {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "sandbox allow-popups allow-popups-to-escape-sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write([]byte(`<!doctype html><meta charset="utf-8"><base target="_blank">` + body))
}

// back leads to the page again, as the same person.
func (i *Inbox) back(w http.ResponseWriter, r *http.Request, dialog, ts string) {
	q := url.Values{"as": {r.PostFormValue("as")}}
	if dialog != "" {
		q.Set("dialog", dialog)
	}
	to := "/?" + q.Encode()
	switch {
	case dialog != "":
		to += "#dialog"
	case ts != "":
		to += "#" + anchor(ts)
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (i *Inbox) servePress(w http.ResponseWriter, r *http.Request) {
	ts := r.PostFormValue("ts")
	dialog, err := i.press(r.Context(), r.PostFormValue("as"), r.PostFormValue("channel"), ts, r.PostFormValue("block"), r.PostFormValue("action"), r.PostFormValue("value"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	i.back(w, r, dialog, ts)
}

func (i *Inbox) serveSubmit(w http.ResponseWriter, r *http.Request) {
	if err := r.ParseForm(); err != nil {
		http.Error(w, "the form cannot be read", http.StatusBadRequest)
		return
	}
	id := r.PostFormValue("dialog")
	if err := i.submit(r.Context(), id, r.PostForm); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
		return
	}
	i.mu.Lock()
	open := i.modals[id] != nil
	i.mu.Unlock()
	if !open {
		id = ""
	}
	i.back(w, r, id, "")
}

func (i *Inbox) serveClose(w http.ResponseWriter, r *http.Request) {
	i.mu.Lock()
	delete(i.modals, r.PostFormValue("dialog"))
	i.mu.Unlock()
	i.back(w, r, "", "")
}

// Use is what one element of a message needs to be pressed.
func (v pageView) Use(channel, ts, block string, e elementView) map[string]any {
	return map[string]any{"As": v.As, "Channel": channel, "TS": ts, "Block": block, "Element": e}
}
