package inbox

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"unicode/utf16"
)

// Limits of Block Kit, by https://docs.slack.dev/reference/block-kit.
const (
	maxMessageBlocks = 50
	maxModalBlocks   = 100
	maxText          = 3000
	maxField         = 2000
	maxHeader        = 150
	maxID            = 255
	maxButton        = 75
	maxValue         = 2000
	maxOption        = 150
	maxAll           = 13200 // characters that are read, of a message's blocks together
)

// checker finds what Slack would not take in blocks, and says it as Slack does.
type checker struct{ problems []string }

func (c *checker) bad(at, format string, args ...any) {
	c.problems = append(c.problems, "[ERROR] "+fmt.Sprintf(format, args...)+" [json-pointer:"+at+"]")
}

// parseBlocks reads blocks as a message or a modal carries them. format is false when they are no list of objects at all.
func parseBlocks(raw json.RawMessage, modal bool) (blocks []map[string]any, problems []string, format bool) {
	if err := json.Unmarshal(raw, &blocks); err != nil {
		return nil, []string{"[ERROR] must be an array of objects [json-pointer:/blocks]"}, false
	}
	c := &checker{}
	c.blocks(blocks, modal)
	return blocks, c.problems, true
}

func (c *checker) blocks(blocks []map[string]any, modal bool) {
	limit := maxMessageBlocks
	if modal {
		limit = maxModalBlocks
	}
	if len(blocks) > limit {
		c.bad("/blocks", "no more than %d items allowed", limit)
	}
	seen := map[string]bool{}
	for i, b := range blocks {
		at := fmt.Sprintf("/blocks/%d", i)
		id := c.str(b, "block_id", at, false, maxID)
		if id != "" && seen[id] {
			c.bad(at+"/block_id", "`block_id` already exists: %q", id)
		}
		seen[id] = true
		c.block(b, at, modal)
	}
}

func (c *checker) block(b map[string]any, at string, modal bool) {
	switch kind := b["type"]; kind {
	case "section":
		c.keys(b, at, "type", "block_id", "text", "fields", "accessory", "expand")
		_, text := b["text"]
		fields := c.list(b, "fields", at, 0, 10)
		if !text && len(fields) == 0 {
			c.bad(at, "missing required field: text")
		}
		if text {
			c.text(b["text"], at+"/text", false, maxText)
		}
		for i, f := range fields {
			c.text(f, fmt.Sprintf("%s/fields/%d", at, i), false, maxField)
		}
		if a, ok := b["accessory"]; ok {
			c.element(a, at+"/accessory", map[string]bool{})
		}
	case "actions":
		c.keys(b, at, "type", "block_id", "elements")
		ids := map[string]bool{}
		for i, e := range c.list(b, "elements", at, 1, 25) {
			c.element(e, fmt.Sprintf("%s/elements/%d", at, i), ids)
		}
	case "context":
		c.keys(b, at, "type", "block_id", "elements")
		for i, e := range c.list(b, "elements", at, 1, 10) {
			c.text(e, fmt.Sprintf("%s/elements/%d", at, i), false, maxText)
		}
	case "header":
		c.keys(b, at, "type", "block_id", "text")
		c.text(b["text"], at+"/text", true, maxHeader)
	case "rich_text":
		c.rich(b, at)
	case "divider":
		c.keys(b, at, "type", "block_id")
	case "input":
		c.keys(b, at, "type", "block_id", "label", "element", "hint", "optional", "dispatch_action")
		c.text(b["label"], at+"/label", true, maxField)
		if h, ok := b["hint"]; ok {
			c.text(h, at+"/hint", true, maxField)
		}
		c.boolean(b, "optional", at)
		c.boolean(b, "dispatch_action", at)
		c.input(b["element"], at+"/element")
		if !modal {
			c.bad(at, "input blocks in messages are not played by this stand-in")
		}
	default:
		c.bad(at+"/type", "unsupported type: %v", kind)
	}
}

// element checks what somebody can press or choose.
func (c *checker) element(v any, at string, ids map[string]bool) {
	e, ok := v.(map[string]any)
	if !ok {
		c.bad(at, "must be an object")
		return
	}
	// Slack fills in an action id where there is none; nothing here could then tell what was pressed.
	id := c.str(e, "action_id", at, true, maxID)
	if ids[id] {
		c.bad(at+"/action_id", "`action_id` already exists: %q", id)
	}
	ids[id] = true
	if v, ok := e["confirm"]; ok {
		c.confirm(v, at+"/confirm")
	}
	switch e["type"] {
	case "button":
		c.keys(e, at, "type", "text", "action_id", "value", "url", "style", "confirm", "accessibility_label")
		c.text(e["text"], at+"/text", true, maxButton)
		c.str(e, "value", at, false, maxValue)
		c.str(e, "accessibility_label", at, false, maxButton)
		if u := c.str(e, "url", at, false, maxText); u != "" && !web(u) {
			c.bad(at+"/url", "invalid url")
		}
		if s, ok := e["style"]; ok && s != "primary" && s != "danger" {
			c.bad(at+"/style", "must be one of: primary, danger")
		}
	case "static_select":
		c.keys(e, at, "type", "placeholder", "action_id", "options", "initial_option", "confirm", "focus_on_load")
		if p, ok := e["placeholder"]; ok {
			c.text(p, at+"/placeholder", true, maxOption)
		}
		c.options(e, at, 1, 100)
	case "overflow":
		c.keys(e, at, "type", "action_id", "options", "confirm")
		c.options(e, at, 1, 5)
	default:
		c.bad(at+"/type", "unsupported type: %v", e["type"])
	}
}

// input checks the element of an input block.
func (c *checker) input(v any, at string) {
	e, ok := v.(map[string]any)
	if !ok {
		c.bad(at, "must be an object")
		return
	}
	switch e["type"] {
	case "plain_text_input":
		c.str(e, "action_id", at, true, maxID)
		c.keys(e, at, "type", "action_id", "placeholder", "initial_value", "multiline", "min_length", "max_length", "focus_on_load")
		if p, ok := e["placeholder"]; ok {
			c.text(p, at+"/placeholder", true, maxOption)
		}
		c.str(e, "initial_value", at, false, maxText)
		c.boolean(e, "multiline", at)
		c.boolean(e, "focus_on_load", at)
		for _, name := range []string{"min_length", "max_length"} {
			if n, ok := e[name]; ok {
				if n, ok := n.(float64); !ok || n < 0 || n > maxText {
					c.bad(at+"/"+name, "must be a number, at most %d", maxText)
				}
			}
		}
	case "static_select":
		c.element(v, at, map[string]bool{})
	default:
		c.bad(at+"/type", "unsupported type: %v", e["type"])
	}
}

func (c *checker) options(e map[string]any, at string, least, most int) {
	option := func(v any, at string) {
		o, ok := v.(map[string]any)
		if !ok {
			c.bad(at, "must be an object")
			return
		}
		c.keys(o, at, "text", "value", "description", "url")
		c.text(o["text"], at+"/text", true, maxButton)
		c.str(o, "value", at, true, maxOption)
		if d, ok := o["description"]; ok {
			c.text(d, at+"/description", true, maxButton)
		}
	}
	for i, o := range c.list(e, "options", at, least, most) {
		option(o, fmt.Sprintf("%s/options/%d", at, i))
	}
	if o, ok := e["initial_option"]; ok {
		option(o, at+"/initial_option")
	}
}

func (c *checker) confirm(v any, at string) {
	o, ok := v.(map[string]any)
	if !ok {
		c.bad(at, "must be an object")
		return
	}
	c.keys(o, at, "title", "text", "confirm", "deny", "style")
	c.text(o["title"], at+"/title", true, 100)
	c.text(o["text"], at+"/text", false, 300)
	c.text(o["confirm"], at+"/confirm", true, 30)
	c.text(o["deny"], at+"/deny", true, 30)
}

// text checks a text object.
func (c *checker) text(v any, at string, plain bool, limit int) {
	o, ok := v.(map[string]any)
	if !ok {
		c.bad(at, "must be a text object")
		return
	}
	switch o["type"] {
	case "plain_text":
		c.keys(o, at, "type", "text", "emoji")
		c.boolean(o, "emoji", at)
	case "mrkdwn":
		c.keys(o, at, "type", "text", "verbatim")
		c.boolean(o, "verbatim", at)
		if plain {
			c.bad(at+"/type", "must be one of: plain_text")
		}
	default:
		c.bad(at+"/type", "must be one of: plain_text, mrkdwn")
	}
	c.str(o, "text", at, true, limit)
}

func (c *checker) keys(m map[string]any, at string, allowed ...string) {
	for k := range m {
		found := false
		for _, a := range allowed {
			found = found || a == k
		}
		if !found {
			c.bad(at, "invalid additional property: %s", k)
		}
	}
}

// str checks a text that is not empty when it is there.
func (c *checker) str(m map[string]any, key, at string, required bool, limit int) string {
	v, ok := m[key]
	if !ok {
		if required {
			c.bad(at, "missing required field: %s", key)
		}
		return ""
	}
	s, ok := v.(string)
	switch {
	case !ok:
		c.bad(at+"/"+key, "must provide a string")
	case s == "":
		c.bad(at+"/"+key, "must be more than 0 characters")
	case length(s) > limit:
		c.bad(at+"/"+key, "must be less than %d characters", limit+1)
	}
	return s
}

func (c *checker) boolean(m map[string]any, key, at string) {
	if v, ok := m[key]; ok {
		if _, ok := v.(bool); !ok {
			c.bad(at+"/"+key, "must be a boolean")
		}
	}
}

func (c *checker) list(m map[string]any, key, at string, least, most int) []any {
	v, ok := m[key]
	if !ok {
		if least > 0 {
			c.bad(at, "missing required field: %s", key)
		}
		return nil
	}
	l, ok := v.([]any)
	switch {
	case !ok:
		c.bad(at+"/"+key, "must be an array")
	case len(l) < max(least, 1):
		c.bad(at+"/"+key, "must have at least 1 item")
	case len(l) > most:
		c.bad(at+"/"+key, "no more than %d items allowed", most)
	}
	return l
}

// length is how Slack counts characters: as JavaScript does.
func length(s string) int { return len(utf16.Encode([]rune(s))) }

func web(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}

// parseView reads a modal.
func parseView(raw json.RawMessage) (view map[string]any, blocks []map[string]any, problems []string) {
	if err := json.Unmarshal(raw, &view); err != nil || view == nil {
		return nil, nil, []string{"[ERROR] must be an object [json-pointer:/view]"}
	}
	c := &checker{}
	c.keys(view, "/view", "type", "title", "submit", "close", "blocks", "private_metadata", "callback_id", "clear_on_close", "notify_on_close", "external_id", "submit_disabled")
	if view["type"] != "modal" {
		c.bad("/view/type", "must be one of: modal")
	}
	c.text(view["title"], "/view/title", true, 24)
	for _, name := range []string{"submit", "close"} {
		if v, ok := view[name]; ok {
			c.text(v, "/view/"+name, true, 24)
		}
	}
	for name, limit := range map[string]int{"private_metadata": maxText, "callback_id": maxID, "external_id": maxID} {
		if s, ok := view[name].(string); ok && s == "" {
			delete(view, name) // an empty one is none
		}
		c.str(view, name, "/view", false, limit)
	}
	c.boolean(view, "clear_on_close", "/view")
	c.boolean(view, "notify_on_close", "/view")
	b, _ := json.Marshal(view["blocks"])
	blocks, bad, _ := parseBlocks(b, true)
	if len(blocks) == 0 {
		c.bad("/view", "missing required field: blocks")
	}
	for _, p := range bad {
		c.problems = append(c.problems, strings.Replace(p, "[json-pointer:", "[json-pointer:/view", 1))
	}
	for _, b := range blocks {
		if b["type"] == "input" && view["submit"] == nil {
			c.bad("/view", "missing required field: submit")
			break
		}
	}
	return view, blocks, c.problems
}
