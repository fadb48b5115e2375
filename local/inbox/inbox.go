// Package inbox is what the reviewers' Slack and mail would have got, on one machine: a stand-in for Slack's Web API, a tap
// on what SES was given to send, and a page that shows both with buttons and links that work.
//
// It is as strict as Slack where a mistake would otherwise be found in somebody's workspace: the bot token is checked,
// Block Kit's limits and types hold, trigger ids are good for three seconds and once, a message that is not there cannot
// be updated, and what is not played is refused and not ignored. What somebody presses reaches the gate exactly as from
// Slack: a form with a payload, signed over its bytes, that must be answered within three seconds.
//
// It is nobody's security boundary. Whoever can open the page can press as anybody and read every mail, its links
// included; so it listens on loopback only, refuses other hosts' names and other sites' forms, and shows hostile text as
// Slack and a mail reader would: markup that was not escaped works, script never does.
package inbox

import (
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	kept         = 1000 // messages
	triggerLife  = 3 * time.Second
	answerWithin = 3 * time.Second // what Slack gives an app
	responseLife = 30 * time.Minute
	responseUses = 5
)

// The app and its bot, as Slack names them.
const (
	appID   = "A0LOCALSALLY"
	botID   = "B0LOCALSALLY"
	botUser = "U0LOCALSALLY"
	botName = "Sallyport"
)

// Config of an Inbox.
type Config struct {
	URL           string // its own, without a slash at the end
	ReviewsURL    string // interactions are posted to ReviewsURL/slack/interactions
	SigningSecret string
	BotToken      string
	Now           func() time.Time // nil for time.Now
	Log           *slog.Logger     // nil for none
}

// A Workspace is what there is in Slack.
type Workspace struct {
	Channels map[string]Channel // by id
	Users    map[string]string  // id to e-mail address
}

// A Channel is one that the bot is in.
type Channel struct {
	Name string
	Team string // the workspace's id
}

// An Inbox is what Slack and mail would have got. Its methods may be called by several goroutines.
type Inbox struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client

	mu        sync.Mutex
	workspace Workspace
	messages  []*message // oldest first
	modals    map[string]*modal
	triggers  map[string]trigger
	responses map[string]*response
	notices   map[string][]notice // by user, newest last
	faults    map[string]*Fault   // by channel
	last      int64               // the last timestamp given, in microseconds
}

// message is one that was sent.
type message struct {
	Message
	fallback string           // Slack: what notifications show
	blocks   []map[string]any // Slack
	user     string           // Slack: the only one who sees it
	gone     bool             // Slack: deleted
}

// A Message is something that was sent.
type Message struct {
	ID      string    `json:"id"`      // Slack's ts, SES's message id
	Channel string    `json:"channel"` // slack or mail
	To      string    `json:"to"`      // the Slack channel's id, or the address
	From    string    `json:"from,omitempty"`
	Subject string    `json:"subject"` // of Slack: its header, or else its first line
	Text    string    `json:"text"`    // as it is read
	Links   []string  `json:"links"`
	At      time.Time `json:"at"`
	Updated time.Time `json:"updated,omitzero"`
	// Thread is the id of the message that a Slack message answers; User who alone sees it.
	Thread string `json:"thread,omitempty"`
	User   string `json:"user,omitempty"`
	Blocks any    `json:"blocks,omitempty"` // of Slack, as they were sent
	HTML   string `json:"html,omitempty"`   // of a mail
}

// modal is a dialog that somebody has open.
type modal struct {
	id, hash string
	view     map[string]any
	blocks   []map[string]any
	user     string
	team     string
	trigger  string // that it was opened with
	errors   map[string]string
	problem  string
	answers  map[string]string // what was typed, by block id
}

type trigger struct {
	user, team string
	at         time.Time
	used       bool
}

// response is what a response_url leads to.
type response struct {
	channel, ts, user string
	at                time.Time
	uses              int
}

// notice is something that one user alone sees, beside messages.
type notice struct {
	At   time.Time
	Text string
}

// New makes an inbox.
func New(cfg Config) *Inbox {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Inbox{cfg: cfg, log: cfg.Log, modals: map[string]*modal{}, triggers: map[string]trigger{}, responses: map[string]*response{},
		notices: map[string][]notice{}, faults: map[string]*Fault{},
		// Slack follows no redirect.
		client: &http.Client{Timeout: answerWithin, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// SlackURL is where Slack's Web API is.
func (i *Inbox) SlackURL() string { return i.cfg.URL + "/api/" }

// SetWorkspace tells who and what there is in Slack from now on.
func (i *Inbox) SetWorkspace(w Workspace) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.workspace = w
}

// Messages are those that were sent, oldest first.
func (i *Inbox) Messages() []Message {
	i.mu.Lock()
	defer i.mu.Unlock()
	all := []Message{}
	for _, m := range i.messages {
		if !m.gone {
			all = append(all, m.Message)
		}
	}
	return all
}

// keep adds a message; i.mu is held.
func (i *Inbox) keep(m *message) {
	if m.Links == nil {
		m.Links = []string{}
	}
	i.messages = append(i.messages, m)
	if over := len(i.messages) - kept; over > 0 {
		i.messages = slices.Delete(i.messages, 0, over)
	}
}

// find is a Slack message; i.mu is held.
func (i *Inbox) find(channel, ts string) *message {
	for _, m := range i.messages {
		if m.Channel == "slack" && m.To == channel && m.ID == ts && !m.gone {
			return m
		}
	}
	return nil
}

// stamp is a timestamp as Slack names messages by: never the same twice. i.mu is held.
func (i *Inbox) stamp() string {
	i.last = max(i.last+1, i.cfg.Now().UnixMicro())
	s := strconv.FormatInt(i.last, 10)
	return s[:len(s)-6] + "." + s[len(s)-6:]
}

// notify tells one user something; i.mu is held.
func (i *Inbox) notify(user, text string) {
	n := append(i.notices[user], notice{At: i.cfg.Now(), Text: text})
	i.notices[user] = n[max(0, len(n)-10):]
}

// set fills in what a message says; i.mu is held.
func (m *message) set(fallback string, blocks []map[string]any) {
	m.fallback, m.blocks = fallback, blocks
	m.Subject, m.Links, m.Blocks = "", []string{}, nil
	if len(blocks) > 0 {
		m.Blocks = blocks
	}
	var lines []string
	add := func(v any) {
		text, _, links := words(v)
		if text != "" {
			lines = append(lines, text)
		}
		m.link(links...)
	}
	for _, b := range blocks {
		if b["type"] == "rich_text" {
			text, _, links := richWords(b)
			lines = append(lines, text)
			m.link(links...)
			continue
		}
		if b["type"] == "header" && m.Subject == "" {
			m.Subject, _, _ = words(b["text"])
		}
		if t, ok := b["text"]; ok {
			add(t)
		}
		fields, _ := b["fields"].([]any)
		elements, _ := b["elements"].([]any)
		if a, ok := b["accessory"]; ok {
			elements = append(slices.Clone(elements), a)
		}
		for _, f := range fields {
			add(f)
		}
		for _, e := range elements {
			e, _ := e.(map[string]any)
			switch e["type"] {
			case "plain_text", "mrkdwn":
				add(e)
			case "button":
				if u, ok := e["url"].(string); ok {
					m.link(u)
				}
			}
		}
	}
	first, _ := read(fallback)
	if m.Text = strings.Join(lines, "\n"); m.Text == "" {
		m.Text = first
	}
	if m.Subject == "" {
		m.Subject, _, _ = strings.Cut(first, "\n")
	}
	if m.Subject == "" {
		m.Subject, _, _ = strings.Cut(m.Text, "\n")
	}
}

// all is how much of a message is to be read.
func all(blocks []map[string]any) int {
	var m message
	m.set("", blocks)
	return length(m.Text)
}

// link adds links that the message does not have yet.
func (m *message) link(links ...string) {
	for _, l := range links {
		if !slices.Contains(m.Links, l) {
			m.Links = append(m.Links, l)
		}
	}
}
