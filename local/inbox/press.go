package inbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Person is somebody who can press.
type Person struct {
	Key      string // in the page's forms
	Email    string
	ID       string // Slack's
	Enrolled bool   // in the policy
}

// Name is how Slack calls them.
func (p Person) Name() string { return strings.ToUpper(p.Key[:1]) + p.Key[1:] }

// people are the reviewers of the default policy, somebody who is none, and whoever else is enrolled; i.mu is held.
func (i *Inbox) people() []Person {
	var all []Person
	add := func(email string) {
		key, _, _ := strings.Cut(strings.ToLower(email), "@")
		p := Person{Key: key, Email: email, ID: "U0LOCAL" + strings.ToUpper(key)}
		for id, e := range i.workspace.Users {
			if strings.EqualFold(e, email) {
				p.ID, p.Enrolled = id, true
			}
		}
		if key != "" && !slices.ContainsFunc(all, func(o Person) bool { return o.Key == p.Key }) {
			all = append(all, p)
		}
	}
	for _, name := range []string{"ana", "ben", "chi", "dee"} {
		add(name + "@example.com")
	}
	for _, email := range slices.Sorted(maps.Values(i.workspace.Users)) {
		add(email)
	}
	return all
}

// who is the person with a key, the first when there is none; i.mu is held.
func (i *Inbox) who(key string) Person {
	all := i.people()
	for _, p := range all {
		if p.Key == key {
			return p
		}
	}
	return all[0]
}

// person is the key of the person with a Slack id; i.mu is held.
func (i *Inbox) person(id string) string {
	for _, p := range i.people() {
		if p.ID == id {
			return p.Key
		}
	}
	return ""
}

// newTrigger lets an app open a dialog for somebody; i.mu is held.
func (i *Inbox) newTrigger(user, team string) string {
	now := i.cfg.Now()
	maps.DeleteFunc(i.triggers, func(_ string, t trigger) bool { return now.Sub(t.at) > time.Minute })
	id := strconv.FormatInt(now.UnixMilli(), 10) + "." + strconv.Itoa(len(i.triggers)) + "." + strings.ToLower(rand.Text())
	i.triggers[id] = trigger{user: user, team: team, at: now}
	return id
}

func (p Person) wire(team string) map[string]string {
	return map[string]string{"id": p.ID, "username": p.Key, "name": p.Key, "team_id": team}
}

// press is somebody pressing a button, or choosing value of a menu, of a message. It returns the dialog that the app opened
// in answer, if it did.
func (i *Inbox) press(ctx context.Context, key, channel, ts, block, action, value string) (dialog string, err error) {
	i.mu.Lock()
	p := i.who(key)
	m := i.find(channel, ts)
	if m == nil {
		i.mu.Unlock()
		return "", fmt.Errorf("there is no message %s in %s any more", ts, channel)
	}
	e := element(m.blocks, block, action)
	if e == nil || m.user != "" && m.user != p.ID {
		i.mu.Unlock()
		return "", fmt.Errorf("the message has no %s any more", action)
	}
	c := i.workspace.Channels[channel]
	now := i.cfg.Now()
	pressed := map[string]any{"type": e["type"], "action_id": action, "block_id": block, "action_ts": stampOf(now)}
	values := map[string]any{}
	switch e["type"] {
	case "button":
		pressed["text"] = e["text"]
		for _, name := range []string{"value", "style"} {
			if v, ok := e[name]; ok {
				pressed[name] = v
			}
		}
	default: // a menu
		o := option(e, value)
		if o == nil {
			i.mu.Unlock()
			return "", fmt.Errorf("%s has no option %q", action, value)
		}
		pressed["selected_option"] = o
		if ph, ok := e["placeholder"]; ok {
			pressed["placeholder"] = ph
		}
		if e["type"] == "static_select" {
			values[block] = map[string]any{action: map[string]any{"type": "static_select", "selected_option": o}}
		}
	}
	trigger := i.newTrigger(p.ID, c.Team)
	id := c.Team + "/" + strconv.FormatInt(now.UnixNano(), 10) + "/" + rand.Text()
	maps.DeleteFunc(i.responses, func(_ string, r *response) bool { return now.Sub(r.at) > responseLife })
	i.responses[id] = &response{channel: channel, ts: ts, user: p.ID, at: now}
	message := m.wire(c.Team)
	payload := map[string]any{
		"type": "block_actions", "user": p.wire(c.Team), "api_app_id": appID, "token": "", "team": map[string]string{"id": c.Team, "domain": "local"},
		"enterprise": nil, "is_enterprise_install": false, "channel": map[string]string{"id": channel, "name": c.Name},
		"container":  map[string]any{"type": "message", "message_ts": ts, "channel_id": channel, "is_ephemeral": m.user != ""},
		"trigger_id": trigger, "response_url": i.cfg.URL + "/actions/" + id, "message": message,
		"state": map[string]any{"values": values}, "actions": []any{pressed},
	}
	body, err := json.Marshal(payload) // while nothing in it changes
	i.mu.Unlock()
	if err != nil {
		return "", err
	}

	status, _, err := i.send(ctx, body)
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case err != nil:
		i.notify(p.ID, "The app did not answer in three seconds, or not at all: "+err.Error())
	case status != http.StatusOK:
		i.notify(p.ID, fmt.Sprintf("The app answered %d. Slack shows: there was a problem, try again.", status))
	}
	for id, d := range i.modals {
		if d.trigger == trigger {
			return id, nil
		}
	}
	return "", nil
}

func stampOf(t time.Time) string {
	s := strconv.FormatInt(t.UnixMicro(), 10)
	return s[:len(s)-6] + "." + s[len(s)-6:]
}

// element is what has that action id in that block.
func element(blocks []map[string]any, block, action string) map[string]any {
	for _, b := range blocks {
		if b["block_id"] != block {
			continue
		}
		elements, _ := b["elements"].([]any)
		if a, ok := b["accessory"]; ok {
			elements = append(slices.Clone(elements), a)
		}
		for _, e := range elements {
			if e, _ := e.(map[string]any); e["action_id"] == action {
				return e
			}
		}
	}
	return nil
}

// submit is somebody submitting a dialog. It is closed, unless the app or Slack has something to say about it.
func (i *Inbox) submit(ctx context.Context, id string, typed url.Values) error {
	i.mu.Lock()
	d := i.modals[id]
	if d == nil {
		i.mu.Unlock()
		return fmt.Errorf("the dialog is closed")
	}
	d.errors, d.problem = map[string]string{}, ""
	for _, b := range d.blocks {
		e, _ := b["element"].(map[string]any)
		block, _ := b["block_id"].(string)
		if e == nil {
			continue
		}
		text := strings.ReplaceAll(typed.Get("input."+block), "\r\n", "\n")
		d.answers[block] = text
		least, _ := e["min_length"].(float64)
		most, limited := e["max_length"].(float64)
		switch optional, _ := b["optional"].(bool); {
		case text == "" && !optional:
			d.errors[block] = "Please complete this required field."
		case text != "" && length(text) < int(least):
			d.errors[block] = fmt.Sprintf("Please enter at least %d characters.", int(least))
		case limited && length(text) > int(most), length(text) > maxText:
			d.errors[block] = "This is too long."
		case text != "" && e["type"] == "static_select" && option(e, text) == nil:
			d.errors[block] = "Please choose one of the options."
		}
	}
	if len(d.errors) > 0 {
		i.mu.Unlock()
		return nil
	}
	p := i.who(i.person(d.user))
	body, err := json.Marshal(map[string]any{
		"type": "view_submission", "team": map[string]string{"id": d.team, "domain": "local"}, "user": p.wire(d.team), "api_app_id": appID, "token": "",
		"trigger_id": i.newTrigger(d.user, d.team), "view": d.wire(), "response_urls": []any{}, "is_enterprise_install": false, "enterprise": nil,
	})
	i.mu.Unlock()
	if err != nil {
		return err
	}
	status, answer, err := i.send(ctx, body)
	i.mu.Lock()
	defer i.mu.Unlock()
	var out struct {
		Action string            `json:"response_action"`
		Errors map[string]string `json:"errors"`
		View   json.RawMessage   `json:"view"`
	}
	if err == nil && status == http.StatusOK && len(bytes.TrimSpace(answer)) > 0 {
		err = json.Unmarshal(answer, &out)
	}
	const trouble = "We had some trouble connecting. Try again?"
	switch {
	case err != nil || status != http.StatusOK:
		i.log.Warn("the app did not answer a dialog as Slack wants it", "status", status, "error", err)
		d.problem = trouble
	case out.Action == "":
		delete(i.modals, id)
	case out.Action == "clear":
		delete(i.modals, id)
	case out.Action == "errors" && len(out.Errors) > 0:
		for block, text := range out.Errors {
			if !slices.ContainsFunc(d.blocks, func(b map[string]any) bool { return b["block_id"] == block && b["type"] == "input" }) {
				i.log.Warn("the app has errors for a block that is no input", "block", block)
				d.problem = trouble
			}
			d.errors[block] = text
		}
	case out.Action == "update" || out.Action == "push":
		view, blocks, problems := parseView(out.View)
		if len(problems) > 0 {
			i.log.Warn("the app answered with a view that Slack does not take", "problems", problems)
			d.problem = trouble
			return nil
		}
		d.show(view, blocks)
	default:
		i.log.Warn("the app answered a dialog with an action that there is none of", "action", out.Action)
		d.problem = trouble
	}
	return nil
}

// send posts an interaction to the app, signed as Slack signs (https://docs.slack.dev/authentication/verifying-requests-from-slack).
func (i *Inbox) send(ctx context.Context, payload []byte) (status int, answer []byte, err error) {
	body := "payload=" + url.QueryEscape(string(payload))
	now := strconv.FormatInt(i.cfg.Now().Unix(), 10)
	mac := hmac.New(sha256.New, []byte(i.cfg.SigningSecret))
	mac.Write([]byte("v0:" + now + ":" + body))
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, i.cfg.ReviewsURL+"/slack/interactions", strings.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("User-Agent", "Slackbot 1.0 (+https://api.slack.com/robots)")
	r.Header.Set("Accept", "application/json,*/*")
	r.Header.Set("X-Slack-Request-Timestamp", now)
	r.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	res, err := i.client.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer res.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(res.Body, maxCall))
	return res.StatusCode, answer, err
}

// serveResponse is what a response_url leads to: a message to whoever pressed, or something else in place of what they
// pressed.
func (i *Inbox) serveResponse(w http.ResponseWriter, r *http.Request) {
	refuse := func(code string) { reply(w, http.StatusNotFound, map[string]any{"ok": false, "error": code}) }
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCall))
	if err != nil {
		return
	}
	var in struct {
		Type      string          `json:"response_type"`
		Replace   bool            `json:"replace_original"`
		Delete    bool            `json:"delete_original"`
		Text      string          `json:"text"`
		Blocks    json.RawMessage `json:"blocks"`
		ThreadTS  string          `json:"thread_ts"`
		Arguments arguments       `json:"-"`
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" || json.Unmarshal(body, &in) != nil || json.Unmarshal(body, &in.Arguments) != nil {
		reply(w, http.StatusBadRequest, map[string]any{"ok": false, "error": "invalid_payload"})
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	to := i.responses[r.PathValue("id")]
	switch {
	case to == nil:
		refuse("invalid_url")
		return
	case i.cfg.Now().Sub(to.at) > responseLife:
		refuse("expired_url")
		return
	case to.uses >= responseUses:
		refuse("used_url")
		return
	}
	original := i.find(to.channel, to.ts)
	if in.Delete {
		if original != nil {
			original.gone = true
		}
		to.uses++
		reply(w, http.StatusOK, map[string]any{"ok": true})
		return
	}
	text, blocks, bad := content(in.Arguments)
	if bad != nil {
		i.log.Info("Slack refuses a response", "error", bad.code, "problems", bad.problems)
		reply(w, http.StatusBadRequest, map[string]any{"ok": false, "error": bad.code, "errors": bad.problems})
		return
	}
	to.uses++
	if in.Replace && original != nil {
		original.set(text, blocks)
		original.Updated = i.cfg.Now().UTC()
	} else {
		m := &message{Message: Message{ID: i.stamp(), Channel: "slack", To: to.channel, From: botName, At: i.cfg.Now().UTC(), Thread: in.ThreadTS}}
		if in.Type != "in_channel" {
			m.user, m.User = to.user, to.user
		}
		m.set(text, blocks)
		i.keep(m)
	}
	reply(w, http.StatusOK, map[string]any{"ok": true})
}
