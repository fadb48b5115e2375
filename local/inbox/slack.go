package inbox

import (
	"cmp"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxCall is the most bytes of a call.
const maxCall = 1 << 20

// refusal is an answer of Slack's that is no: {"ok":false,"error":code}, with status 200.
type refusal struct {
	code     string
	problems []string
}

func no(code string, problems ...string) *refusal { return &refusal{code, problems} }

// arguments are a call's, however they came: as a form, whose values are text, or as JSON.
type arguments map[string]json.RawMessage

// text is an argument that is text, or a number or a boolean as text.
func (a arguments) text(name string) string {
	var s string
	if json.Unmarshal(a[name], &s) != nil {
		s = string(a[name])
	}
	if s == "null" {
		return ""
	}
	return s
}

// object is an argument that is JSON, given as such or, in a form, as text.
func (a arguments) object(name string) json.RawMessage {
	var s string
	if json.Unmarshal(a[name], &s) == nil {
		return json.RawMessage(s)
	}
	if string(a[name]) == "null" {
		return nil
	}
	return a[name]
}

// serveSlack is Slack's Web API.
func (i *Inbox) serveSlack(w http.ResponseWriter, r *http.Request) {
	method := r.PathValue("method")
	args, bad := readCall(w, r)
	if i.faulty(w, r, "slack", method, true) {
		return
	}
	var out map[string]any
	if bad == nil {
		out, bad = i.call(r, method, args)
	}
	if i.faulty(w, r, "slack", method, false) {
		return
	}
	if bad != nil {
		out = map[string]any{"ok": false, "error": bad.code}
		if len(bad.problems) > 0 {
			out["errors"] = bad.problems
			out["response_metadata"] = map[string]any{"messages": bad.problems}
		}
		i.log.Info("Slack refuses", "method", method, "error", bad.code, "problems", bad.problems)
	} else {
		out["ok"] = true
	}
	reply(w, http.StatusOK, out)
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func readCall(w http.ResponseWriter, r *http.Request) (arguments, *refusal) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		return nil, no("invalid_arguments")
	}
	if r.Method != http.MethodPost {
		return nil, no("invalid_post_type")
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil && len(body) > 0 {
		return nil, no("missing_post_type")
	}
	args := arguments{}
	switch kind {
	case "application/json":
		if json.Unmarshal(body, &args) != nil {
			return nil, no("invalid_json")
		}
	case "application/x-www-form-urlencoded", "":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return nil, no("invalid_form_data")
		}
		for name, v := range form {
			args[name], _ = json.Marshal(v[0])
		}
	default:
		return nil, no("invalid_post_type")
	}
	return args, nil
}

func (i *Inbox) call(r *http.Request, method string, args arguments) (map[string]any, *refusal) {
	// A token in the query is refused by Slack for apps as young as this one.
	token, bearer := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !bearer {
		token = args.text("token")
	}
	switch {
	case token == "":
		return nil, no("not_authed")
	case subtle.ConstantTimeCompare([]byte(token), []byte(i.cfg.BotToken)) != 1:
		return nil, no("invalid_auth")
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	switch method {
	case "auth.test":
		team := ""
		for _, c := range i.workspace.Channels {
			team = max(team, c.Team)
		}
		return map[string]any{"url": i.cfg.URL + "/", "team": "Local stand-in", "user": "sallyport", "team_id": team, "user_id": botUser, "bot_id": botID, "is_enterprise_install": false}, nil
	case "chat.postMessage", "chat.postEphemeral":
		return i.post(args, method == "chat.postEphemeral")
	case "chat.update":
		return i.update(args)
	case "views.open":
		return i.open(args)
	}
	return nil, no("unknown_method")
}

// content reads what a message is to say.
func content(args arguments) (text string, blocks []map[string]any, bad *refusal) {
	text = args.text("text")
	for _, name := range []string{"attachments", "as_user", "icon_url", "icon_emoji", "username", "markdown_text"} {
		if v := args.text(name); v != "" && v != "[]" && v != "false" {
			return "", nil, no("invalid_arguments", "[ERROR] not played by this stand-in: "+name)
		}
	}
	if raw := args.object("blocks"); len(raw) > 0 && string(raw) != "[]" {
		var problems []string
		var format bool
		blocks, problems, format = parseBlocks(raw, false)
		switch {
		case !format:
			return "", nil, no("invalid_blocks_format", problems...)
		case len(problems) > 0:
			return "", nil, no("invalid_blocks", problems...)
		case all(blocks) > maxAll:
			return "", nil, no("msg_blocks_too_long")
		}
	}
	if text == "" && len(blocks) == 0 {
		return "", nil, no("no_text")
	}
	if length(text) > 40000 {
		return "", nil, no("msg_too_long")
	}
	for _, b := range blocks {
		if _, ok := b["block_id"]; !ok {
			b["block_id"] = rand.Text()[:5]
		}
	}
	return text, blocks, nil
}

func (i *Inbox) post(args arguments, ephemeral bool) (map[string]any, *refusal) {
	channel := args.text("channel")
	c, ok := i.workspace.Channels[channel]
	if !ok {
		return nil, no("channel_not_found")
	}
	text, blocks, bad := content(args)
	if bad != nil {
		return nil, bad
	}
	thread := args.text("thread_ts")
	if thread != "" && i.find(channel, thread) == nil {
		return nil, no("thread_not_found")
	}
	m := &message{Message: Message{ID: i.stamp(), Channel: "slack", To: channel, From: botName, At: i.cfg.Now().UTC(), Thread: thread}}
	if ephemeral {
		m.user = args.text("user")
		if _, ok := i.workspace.Users[m.user]; !ok && i.person(m.user) == "" {
			return nil, no("user_not_in_channel")
		}
		m.User = m.user
	}
	m.set(text, blocks)
	i.keep(m)
	if ephemeral {
		return map[string]any{"message_ts": m.ID}, nil
	}
	return map[string]any{"channel": channel, "ts": m.ID, "message": m.wire(c.Team)}, nil
}

// wire is a message as Slack tells it.
func (m *message) wire(team string) map[string]any {
	out := map[string]any{"type": "message", "user": botUser, "bot_id": botID, "app_id": appID, "team": team, "ts": m.ID, "text": m.fallback}
	if len(m.blocks) > 0 {
		out["blocks"] = m.blocks
	}
	if m.Thread != "" {
		out["thread_ts"] = m.Thread
	}
	if !m.Updated.IsZero() {
		out["edited"] = map[string]string{"user": botID, "ts": strconv.FormatInt(m.Updated.Unix(), 10) + ".000000"}
	}
	return out
}

func (i *Inbox) update(args arguments) (map[string]any, *refusal) {
	channel := args.text("channel")
	c, ok := i.workspace.Channels[channel]
	if !ok {
		return nil, no("channel_not_found")
	}
	m := i.find(channel, args.text("ts"))
	switch {
	case m == nil:
		return nil, no("message_not_found")
	case m.user != "":
		return nil, no("cant_update_message") // nobody's but the one who sees it
	}
	text, blocks, bad := content(args)
	if bad != nil {
		return nil, bad
	}
	if _, given := args["blocks"]; !given {
		blocks = m.blocks // only a new text leaves the blocks as they are
	}
	m.set(text, blocks)
	m.Updated = i.cfg.Now().UTC()
	return map[string]any{"channel": channel, "ts": m.ID, "text": text, "message": m.wire(c.Team)}, nil
}

func (i *Inbox) open(args arguments) (map[string]any, *refusal) {
	id := args.text("trigger_id")
	t, ok := i.triggers[id]
	switch {
	case !ok:
		return nil, no("invalid_trigger_id")
	case t.used:
		return nil, no("exchanged_trigger_id")
	case i.cfg.Now().Sub(t.at) > triggerLife:
		return nil, no("expired_trigger_id")
	}
	raw := args.object("view")
	if len(raw) > 250_000 {
		return nil, no("view_too_large")
	}
	view, blocks, problems := parseView(raw)
	if len(problems) > 0 {
		return nil, no("invalid_arguments", problems...)
	}
	t.used = true
	i.triggers[id] = t
	m := &modal{id: "V" + rand.Text()[:10], user: t.user, team: t.team, trigger: id, answers: map[string]string{}}
	m.show(view, blocks)
	i.modals[m.id] = m
	return map[string]any{"view": m.wire()}, nil
}

// show makes a modal show a view.
func (m *modal) show(view map[string]any, blocks []map[string]any) {
	for _, b := range blocks {
		if _, ok := b["block_id"]; !ok {
			b["block_id"] = rand.Text()[:5]
		}
	}
	m.view, m.blocks, m.hash = view, blocks, strconv.FormatInt(time.Now().Unix(), 10)+"."+rand.Text()[:8]
	m.errors, m.problem = nil, ""
}

// wire is a modal as Slack tells it.
func (m *modal) wire() map[string]any {
	out := map[string]any{"id": m.id, "team_id": m.team, "type": "modal", "hash": m.hash, "root_view_id": m.id, "previous_view_id": nil, "app_id": appID,
		"app_installed_team_id": m.team, "bot_id": botID, "external_id": "", "callback_id": "", "private_metadata": "", "close": nil, "submit": nil,
		"clear_on_close": false, "notify_on_close": false}
	for k, v := range m.view {
		out[k] = v
	}
	out["blocks"] = m.blocks
	values := map[string]any{}
	for _, b := range m.blocks {
		e, _ := b["element"].(map[string]any)
		id, _ := b["block_id"].(string)
		action, _ := e["action_id"].(string)
		if action == "" {
			continue
		}
		v := map[string]any{"type": e["type"]}
		switch e["type"] {
		case "plain_text_input":
			v["value"] = nil
			if t := m.answers[id]; t != "" {
				v["value"] = t
			}
		case "static_select":
			v["selected_option"] = option(e, m.answers[id])
		}
		values[id] = map[string]any{action: v}
	}
	out["state"] = map[string]any{"values": values}
	return out
}

// option is the option of an element that has that value, nil for none.
func option(e map[string]any, value string) any {
	options, _ := e["options"].([]any)
	for _, o := range options {
		if o, _ := o.(map[string]any); o["value"] == value {
			return o
		}
	}
	return nil
}

// A Fault makes a channel fail, for tests.
type Fault struct {
	Status int    `json:"status,omitempty"` // the answer's, such as 500 or 429
	Error  string `json:"error,omitempty"`  // of Slack, with status 200: an error code
	Delay  string `json:"delay,omitempty"`  // how long the answer takes, such as 2s; without the others it is then the right one
	// After says that the call has its effect all the same, and only the answer is not it.
	After bool `json:"after,omitempty"`
	// Method is the Slack method that fails; all, when empty.
	Method string `json:"method,omitempty"`
	// Times is how many calls fail; until it is taken away, when zero.
	Times int `json:"times,omitempty"`

	delay time.Duration
}

// check reads a fault.
func (f *Fault) check() error {
	var err error
	if f.Delay != "" {
		if f.delay, err = time.ParseDuration(f.Delay); err != nil || f.delay < 0 {
			return errors.New("delay must be a duration such as 2s")
		}
	}
	if f.Status != 0 && (f.Status < 300 || f.Status > 599) {
		return errors.New("status must be 300 to 599")
	}
	if f.Status == 0 && f.Error == "" && f.delay == 0 {
		return errors.New("a fault needs status, error or delay")
	}
	return nil
}

// faulty answers a call when its channel is to fail, and waits when it is to be slow. It is asked before a call has its
// effect and after.
func (i *Inbox) faulty(w http.ResponseWriter, r *http.Request, channel, method string, before bool) bool {
	i.mu.Lock()
	f := i.faults[channel]
	if f == nil || f.Method != "" && f.Method != method || f.After == before {
		i.mu.Unlock()
		return false
	}
	if f.Times > 0 {
		if f.Times--; f.Times == 0 {
			delete(i.faults, channel)
		}
	}
	now := *f
	i.mu.Unlock()
	select {
	case <-time.After(now.delay):
	case <-r.Context().Done():
		return true
	}
	switch {
	case now.Status != 0:
		if now.Status == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, cmp.Or(now.Error, http.StatusText(now.Status)), now.Status)
	case now.Error != "":
		reply(w, http.StatusOK, map[string]any{"ok": false, "error": now.Error})
	default:
		return false
	}
	return true
}

// serveFault is GET, PUT and DELETE of /_local/slack/fault and /_local/mail/fault.
func (i *Inbox) serveFault(w http.ResponseWriter, r *http.Request) {
	channel := r.PathValue("channel")
	if channel != "slack" && channel != "mail" {
		http.NotFound(w, r)
		return
	}
	switch r.Method {
	case http.MethodPut:
		var f Fault
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
		d.DisallowUnknownFields()
		err := d.Decode(&f)
		if err == nil {
			err = f.check()
		}
		if err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
			return
		}
		i.mu.Lock()
		i.faults[channel] = &f
		i.mu.Unlock()
	case http.MethodDelete:
		i.mu.Lock()
		delete(i.faults, channel)
		i.mu.Unlock()
	}
	i.mu.Lock()
	var now *Fault
	if f := i.faults[channel]; f != nil {
		c := *f
		now = &c
	}
	i.mu.Unlock()
	reply(w, http.StatusOK, map[string]*Fault{"fault": now})
}
