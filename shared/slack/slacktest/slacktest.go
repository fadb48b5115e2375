// Package slacktest stands in for Slack's Web API in tests. It takes what Slack would take, as its documentation says, and
// nothing else: of Block Kit only the blocks that package slack makes.
package slacktest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Token is the bot token that is taken.
const Token = "xoxb-of-a-test" //nolint:gosec // no credential

// A Message is what stands in a channel.
type Message struct {
	Channel string
	TS      string
	Thread  string // the message it answers
	User    string // who alone sees it
	Text    string
	Blocks  json.RawMessage
	Updates int
}

// All is everything written in the message, for looking whether something is.
func (m Message) All() string {
	var v any
	_ = json.Unmarshal(m.Blocks, &v)
	var b strings.Builder
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if s, ok := v["text"].(string); ok {
				b.WriteString(s)
			}
			if s, ok := v["url"].(string); ok {
				b.WriteString("<" + s + ">")
			}
			for _, k := range []string{"text", "elements", "options", "confirm"} {
				walk(v[k])
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return b.String()
}

// Actions are the action ids of what can be pressed.
func (m Message) Actions() []string {
	var blocks []struct {
		Type     string
		Elements []struct {
			ActionID string `json:"action_id"`
		}
	}
	_ = json.Unmarshal(m.Blocks, &blocks)
	var ids []string
	for _, b := range blocks {
		if b.Type != "actions" {
			continue
		}
		for _, e := range b.Elements {
			ids = append(ids, e.ActionID)
		}
	}
	return ids
}

// A Server is a running stand-in. Set its fields before it is called.
type Server struct {
	URL string // of the Web API
	// Answer, when not nil, is asked for every call: status 0 goes on, any other is answered, with code as the error when it
	// is 200. It may wait.
	Answer func(method, channel string) (status int, code string)
	Tokens []string // that are taken; nil means Token alone

	mu       sync.Mutex
	messages []Message
	calls    map[string]int
	wrong    []string
	views    []json.RawMessage
	server   *httptest.Server
}

// New starts one. Close it.
func New() *Server {
	s := &Server{calls: map[string]int{}}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL + "/api/"
	return s
}

// Close ends it.
func (s *Server) Close() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// Messages are those that stand, oldest first.
func (s *Server) Messages() []Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.messages)
}

// Views are the dialogs that were opened.
func (s *Server) Views() []json.RawMessage {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.views)
}

// Calls is how often a method was called.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// Wrong is what Slack would not have taken.
func (s *Server) Wrong() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.wrong)
}

// ServeHTTP answers a call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := strings.TrimPrefix(r.URL.Path, "/api/")
	var form url.Values
	body := map[string]json.RawMessage{}
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/json") {
		_ = json.NewDecoder(r.Body).Decode(&body)
	} else if r.ParseForm() == nil {
		form = r.PostForm
	}
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	if token == "" {
		token = form.Get("token")
	}
	s.mu.Lock()
	s.calls[method]++
	answer, tokens := s.Answer, s.Tokens
	s.mu.Unlock()
	if answer != nil {
		if status, code := answer(method, form.Get("channel")); status != 0 {
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(map[string]any{"ok": false, "error": code})
			return
		}
	}
	if tokens == nil {
		tokens = []string{Token}
	}
	reply := map[string]any{"ok": true}
	refuse := func(code string) { reply = map[string]any{"ok": false, "error": code} }
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method != http.MethodPost || r.URL.RawQuery != "":
		refuse("invalid_form_data")
	case !slices.Contains(tokens, token):
		refuse("invalid_auth")
	case method == "chat.postMessage" || method == "chat.postEphemeral" || method == "chat.update":
		if code := s.chat(method, form, reply); code != "" {
			refuse(code)
		}
	case method == "views.open":
		s.views = append(s.views, body["view"])
		reply["view"] = body["view"]
	default:
		refuse("unknown_method")
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(reply)
}

func (s *Server) chat(method string, form url.Values, reply map[string]any) (code string) {
	m := Message{Channel: form.Get("channel"), Thread: form.Get("thread_ts"), Text: form.Get("text"), Blocks: json.RawMessage(form.Get("blocks"))}
	if err := Check(m.Blocks); err != nil {
		s.wrong = append(s.wrong, fmt.Sprintf("%s: %v", method, err))
		return "invalid_blocks"
	}
	switch {
	case m.Channel == "":
		return "channel_not_found"
	case m.Text == "" || utf8.RuneCountInString(m.Text) > 4000:
		return "no_text"
	}
	reply["channel"] = m.Channel
	switch method {
	case "chat.update":
		i := slices.IndexFunc(s.messages, func(o Message) bool { return o.Channel == m.Channel && o.TS == form.Get("ts") })
		if i < 0 {
			return "message_not_found"
		}
		m.TS, m.Updates, m.Thread = s.messages[i].TS, s.messages[i].Updates+1, s.messages[i].Thread
		s.messages[i] = m
	case "chat.postEphemeral":
		m.User = form.Get("user")
		fallthrough
	default:
		m.TS = fmt.Sprintf("%d.%06d", time.Now().Unix(), len(s.messages)+1)
		s.messages = append(s.messages, m)
	}
	reply["ts"], reply["message_ts"] = m.TS, m.TS
	return ""
}

// Delete takes a message away, as a person may.
func (s *Server) Delete(channel string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.messages = slices.DeleteFunc(s.messages, func(m Message) bool { return m.Channel == channel })
}

// Check says what of blocks Slack would not take, or package slack should not send: anything whose text is parsed.
func Check(blocks []byte) error {
	var all []map[string]any
	if err := json.Unmarshal(blocks, &all); err != nil {
		return fmt.Errorf("blocks are no array: %w", err)
	}
	c := &checker{}
	if len(all) == 0 || len(all) > 50 {
		c.fail("%d blocks", len(all))
	}
	for i, b := range all {
		c.at = fmt.Sprintf("block %d (%v)", i, b["type"])
		c.block(b)
	}
	if c.chars > 13000 {
		c.fail("%d characters in all", c.chars)
	}
	return c.err
}

type checker struct {
	at    string
	chars int
	err   error
}

func (c *checker) fail(format string, a ...any) {
	if c.err == nil {
		c.err = fmt.Errorf(c.at+": "+format, a...)
	}
}

// only wants these fields, and the type, and no other; those with a ? may be missing.
func (c *checker) only(o map[string]any, fields ...string) {
	left := map[string]bool{}
	for k := range o {
		left[k] = true
	}
	delete(left, "type")
	for _, f := range fields {
		name, optional := strings.CutSuffix(f, "?")
		if _, there := o[name]; !there && !optional {
			c.fail("%s is missing", name)
		}
		delete(left, name)
	}
	for k := range left {
		c.fail("%s is unknown", k)
	}
}

func (c *checker) block(b map[string]any) {
	switch b["type"] {
	case "header":
		c.only(b, "text")
		c.plain(b["text"], 150)
	case "rich_text":
		c.only(b, "elements", "block_id?")
		for _, e := range c.list(b["elements"], 50) {
			c.rich(e)
		}
	case "actions":
		c.only(b, "elements", "block_id?")
		seen := map[any]bool{}
		for _, e := range c.list(b["elements"], 25) {
			if seen[e["action_id"]] {
				c.fail("action_id %v twice", e["action_id"])
			}
			seen[e["action_id"]] = true
			c.action(e)
		}
	default:
		c.fail("no block of ours")
	}
}

func (c *checker) rich(e map[string]any) {
	switch e["type"] {
	case "rich_text_section", "rich_text_quote":
		c.only(e, "elements")
	case "rich_text_preformatted":
		c.only(e, "elements", "border?")
	default:
		c.fail("element %v", e["type"])
		return
	}
	for _, t := range c.list(e["elements"], 200) {
		switch t["type"] {
		case "text":
			c.only(t, "text", "style?")
			c.text(t["text"], 3000)
		case "link":
			c.only(t, "url", "text?", "style?")
			c.text(t["url"], 3000)
			c.text(t["text"], 200)
		default: // user, broadcast, emoji, channel
			c.fail("%v may notify or deceive", t["type"])
		}
	}
}

func (c *checker) action(e map[string]any) {
	switch e["type"] {
	case "button":
		c.only(e, "text", "action_id", "value", "style?")
		c.plain(e["text"], 75)
		c.text(e["value"], 2000)
	case "static_select":
		c.only(e, "placeholder", "action_id", "options", "confirm?")
		c.plain(e["placeholder"], 150)
		for _, o := range c.list(e["options"], 100) {
			c.only(o, "text", "value")
			c.plain(o["text"], 75)
			c.text(o["value"], 150)
		}
		if confirm, ok := e["confirm"].(map[string]any); ok {
			c.only(confirm, "title", "text", "confirm", "deny")
			c.plain(confirm["title"], 100)
			c.plain(confirm["text"], 300)
			c.plain(confirm["confirm"], 30)
			c.plain(confirm["deny"], 30)
		}
	default:
		c.fail("element %v", e["type"])
	}
}

// plain wants text that Slack does not parse.
func (c *checker) plain(v any, most int) {
	o, _ := v.(map[string]any)
	c.only(o, "text", "emoji")
	if o["type"] != "plain_text" || o["emoji"] != false {
		c.fail("a text is parsed: %v", v)
	}
	c.text(o["text"], most)
}

func (c *checker) text(v any, most int) {
	s, _ := v.(string)
	n := utf8.RuneCountInString(s)
	if n == 0 || n > most {
		c.fail("%d characters where 1 to %d are taken", n, most)
	}
	c.chars += n
}

func (c *checker) list(v any, most int) []map[string]any {
	l, _ := v.([]any)
	if len(l) == 0 || len(l) > most {
		c.fail("%d of what may be 1 to %d", len(l), most)
	}
	var out []map[string]any
	for _, e := range l {
		o, ok := e.(map[string]any)
		if !ok {
			c.fail("%v is no object", e)
			continue
		}
		out = append(out, o)
	}
	return out
}
