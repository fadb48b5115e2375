package inbox_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/slack-go/slack"

	"sallyport/local/inbox"
)

const (
	token   = "xoxb-local"
	secret  = "8f742231b10e8888abcd99yyyzzz85a5"
	team    = "T0123456789"
	channel = "C0123456789"
	ana     = "U0000000ANA"
)

// world is an inbox, its clock, and the app that its interactions go to.
type world struct {
	*inbox.Inbox
	t   *testing.T
	url string
	api *slack.Client

	mu     sync.Mutex
	ahead  time.Duration
	answer func(slack.InteractionCallback) (int, string) // the app's, nil for an empty 200
	seen   []slack.InteractionCallback
}

func start(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	app := httptest.NewServer(http.HandlerFunc(w.serve))
	t.Cleanup(app.Close)
	var h http.Handler
	srv := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { h.ServeHTTP(rw, r) }))
	t.Cleanup(srv.Close)
	w.url = srv.URL
	w.Inbox = inbox.New(inbox.Config{URL: srv.URL, ReviewsURL: app.URL, SigningSecret: secret, BotToken: token, Now: w.now})
	w.SetWorkspace(inbox.Workspace{Channels: map[string]inbox.Channel{channel: {Name: "sre", Team: team}}, Users: map[string]string{ana: "ana@example.com"}})
	h = w.Handler()
	w.api = slack.New(token, slack.OptionAPIURL(srv.URL+"/api/"))
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Now().Add(w.ahead)
}

func (w *world) later(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ahead += d
}

// serve is the app: it verifies with Slack's own library.
func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	if r.URL.Path != "/slack/interactions" || r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-www-form-urlencoded" {
		w.t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	v, err := slack.NewSecretsVerifier(r.Header, secret)
	if err == nil {
		_, _ = v.Write(body)
		err = v.Ensure()
	}
	form, _ := url.ParseQuery(string(body))
	var in slack.InteractionCallback
	if err == nil {
		err = json.Unmarshal([]byte(form.Get("payload")), &in)
	}
	if err != nil {
		w.t.Errorf("%v: %s", err, body)
	}
	w.mu.Lock()
	w.seen = append(w.seen, in)
	answer := w.answer
	w.mu.Unlock()
	if answer != nil {
		status, text := answer(in)
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, text)
	}
}

func (w *world) form(path string, v url.Values) (int, *url.URL) {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, w.url+path, strings.NewReader(v.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	to, _ := res.Location()
	return res.StatusCode, to
}

func (w *world) get(path string) (int, string) {
	w.t.Helper()
	res, err := http.Get(w.url + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return res.StatusCode, string(b)
}

// page is the page as somebody sees it.
func (w *world) page(query string) string {
	w.t.Helper()
	status, body := w.get("/?" + query)
	if status != 200 || strings.Contains(body, "<script") || strings.Contains(body, "ZgotmplZ") || !strings.HasSuffix(strings.TrimSpace(body), "</html>") {
		w.t.Errorf("the page: %d\n%s", status, body)
	}
	return body
}

func plain(s string) *slack.TextBlockObject {
	return slack.NewTextBlockObject("plain_text", s, false, false)
}

func question() []slack.Block {
	sel := slack.NewOptionsSelectBlockElement("static_select", plain("Approve for …"), "approve-for", slack.NewOptionBlockObject("id|object:15m", plain("15 min"), nil))
	sel.Confirm = slack.NewConfirmationBlockObject(plain("Longer?"), plain("Again and again."), plain("Approve"), plain("Cancel"))
	return []slack.Block{
		slack.NewHeaderBlock(plain("Approval wanted")),
		slack.NewSectionBlock(slack.NewTextBlockObject("mrkdwn", "*agent* asks &lt;b&gt; see <https://reviews.example.com/a|the page> <!channel>", false, false), nil, nil),
		slack.NewRichTextBlock("", &slack.RichTextPreformatted{Type: "rich_text_preformatted", Elements: []slack.RichTextSectionElement{slack.NewRichTextSectionTextElement("kubectl delete <b>pod</b>", nil)}},
			slack.NewRichTextSection(slack.NewRichTextSectionLinkElement("https://reviews.example.com/b", "more", nil))),
		slack.NewActionBlock("answer", slack.NewButtonBlockElement("approve", "id", plain("Approve once")).WithStyle("primary"), sel,
			slack.NewButtonBlockElement("deny", "id", plain("Deny …")).WithStyle("danger")),
	}
}

func TestMessages(t *testing.T) {
	w := start(t)
	ctx := t.Context()
	who, err := w.api.AuthTestContext(ctx)
	if err != nil || who.TeamID != team || who.BotID == "" {
		t.Fatalf("%+v %v", who, err)
	}
	_, ts, err := w.api.PostMessageContext(ctx, channel, slack.MsgOptionText("Approval wanted: &lt;x&gt;", false), slack.MsgOptionBlocks(question()...))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.api.PostMessageContext(ctx, channel, slack.MsgOptionText("a reminder", false), slack.MsgOptionTS(ts), slack.MsgOptionBroadcast()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.api.PostEphemeralContext(ctx, channel, ana, slack.MsgOptionText("only *ana*", false)); err != nil {
		t.Fatal(err)
	}
	got := w.Messages()
	if len(got) != 3 {
		t.Fatalf("%+v", got)
	}
	first := got[0]
	want := inbox.Message{ID: ts, Channel: "slack", To: channel, From: "Sallyport", Subject: "Approval wanted",
		Text:  "Approval wanted\nagent asks <b> see the page @channel\nkubectl delete <b>pod</b>\nmore",
		Links: []string{"https://reviews.example.com/a", "https://reviews.example.com/b"}}
	first.At, first.Blocks = time.Time{}, nil
	if d := cmp.Diff(want, first); d != "" {
		t.Error(d)
	}
	if got[1].Thread != ts || got[2].User != ana || got[2].Text != "only ana" {
		t.Errorf("%+v", got[1:])
	}
	page := w.page("as=ana")
	for _, want := range []string{"<strong>agent</strong> asks &lt;b&gt;", `href="https://reviews.example.com/a"`, `<span class="mention">@channel</span>`, "kubectl delete &lt;b&gt;pod&lt;/b&gt;",
		">Approve once</button>", `<option value="id|object:15m">15 min</option>`, "Again and again.", "only <strong>ana</strong>", "only visible to you", "message reply"} {
		if !strings.Contains(page, want) {
			t.Errorf("the page lacks %s\n%s", want, page)
		}
	}
	if strings.Contains(w.page("as=ben"), "only visible to you") {
		t.Error("ben sees what is for ana")
	}

	if _, _, _, err := w.api.UpdateMessageContext(ctx, channel, ts, slack.MsgOptionText("Denied", false), slack.MsgOptionBlocks(slack.NewHeaderBlock(plain("Denied")))); err != nil {
		t.Fatal(err)
	}
	if m := w.Messages()[0]; m.ID != ts || m.Text != "Denied" || m.Updated.IsZero() || len(m.Links) != 0 {
		t.Errorf("%+v", m)
	}
	if page := w.page(""); strings.Contains(page, "Approve once") || !strings.Contains(page, "edited") {
		t.Error("an update leaves what was there")
	}
	status, body := w.get("/messages.json")
	var list []map[string]any
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 || len(list) != 3 || list[0]["updated"] == nil || list[1]["updated"] != nil || list[1]["links"] == nil {
		t.Errorf("%d %v %s", status, err, body)
	}
}

// raw calls Slack's API without its library.
func (w *world) raw(method, auth, contentType, body string) (int, map[string]any) {
	w.t.Helper()
	r, err := http.NewRequest(http.MethodPost, w.url+"/api/"+method, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	r.Header.Set("Content-Type", contentType)
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	var out map[string]any
	_ = json.NewDecoder(res.Body).Decode(&out)
	return res.StatusCode, out
}

func TestRefusals(t *testing.T) {
	w := start(t)
	text := func(n int) string { return strings.Repeat("x", n) }
	block := func(format string, args ...any) string {
		return `{"channel":"` + channel + `","text":"t","blocks":[` + fmt.Sprintf(format, args...) + `]}`
	}
	button := func(more string) string {
		return block(`{"type":"actions","elements":[{"type":"button","action_id":"a","text":{"type":"plain_text","text":"b"}%s}]}`, more)
	}
	section := func(n int) string {
		return fmt.Sprintf(`{"type":"section","text":{"type":"mrkdwn","text":%q}}`, text(n))
	}
	many := func(n int) string { return strings.TrimSuffix(strings.Repeat(`{"type":"divider"},`, n), ",") }
	for name, tt := range map[string]struct {
		method, auth, body string
		want               string // error, empty for none
		says               string
	}{
		"no token":             {auth: "-", body: block("%s", section(1)), want: "not_authed"},
		"a wrong token":        {auth: "Bearer xoxb-other", body: block("%s", section(1)), want: "invalid_auth"},
		"no bearer":            {auth: "Basic " + token, body: block("%s", section(1)), want: "not_authed"},
		"no such method":       {method: "chat.delete", body: "{}", want: "unknown_method"},
		"no JSON":              {body: "{", want: "invalid_json"},
		"no such channel":      {body: `{"channel":"C0","text":"t"}`, want: "channel_not_found"},
		"nothing to say":       {body: `{"channel":"` + channel + `"}`, want: "no_text"},
		"too long":             {body: `{"channel":"` + channel + `","text":"` + text(40001) + `"}`, want: "msg_too_long"},
		"no such thread":       {body: `{"channel":"` + channel + `","text":"t","thread_ts":"1.0"}`, want: "thread_not_found"},
		"no such user":         {method: "chat.postEphemeral", body: `{"channel":"` + channel + `","text":"t","user":"U0"}`, want: "user_not_in_channel"},
		"no such message":      {method: "chat.update", body: `{"channel":"` + channel + `","text":"t","ts":"1.0"}`, want: "message_not_found"},
		"an attachment":        {body: `{"channel":"` + channel + `","text":"t","attachments":[{}]}`, want: "invalid_arguments"},
		"blocks are no list":   {body: `{"channel":"` + channel + `","blocks":{}}`, want: "invalid_blocks_format"},
		"3000 characters":      {body: block("%s", section(3000))},
		"3001 characters":      {body: block("%s", section(3001)), want: "invalid_blocks", says: "must be less than 3001 characters [json-pointer:/blocks/0/text/text]"},
		"all of it":            {body: block("%s,%s,%s,%s,%s", section(2900), section(2900), section(2900), section(2900), section(2900)), want: "msg_blocks_too_long"},
		"an empty text":        {body: block("%s", section(0)), want: "invalid_blocks", says: "more than 0"},
		"50 blocks":            {body: block("%s", many(50))},
		"51 blocks":            {body: block("%s", many(51)), want: "invalid_blocks", says: "no more than 50"},
		"a header of 151":      {body: block(`{"type":"header","text":{"type":"plain_text","text":%q}}`, text(151)), want: "invalid_blocks", says: "151"},
		"a header in markup":   {body: block(`{"type":"header","text":{"type":"mrkdwn","text":"x"}}`), want: "invalid_blocks", says: "plain_text"},
		"no text object":       {body: block(`{"type":"section","text":"x"}`), want: "invalid_blocks", says: "text object"},
		"no type of text":      {body: block(`{"type":"section","text":{"text":"x"}}`), want: "invalid_blocks", says: "plain_text, mrkdwn"},
		"emoji in markup":      {body: block(`{"type":"section","text":{"type":"mrkdwn","text":"x","emoji":true}}`), want: "invalid_blocks", says: "emoji"},
		"an empty section":     {body: block(`{"type":"section"}`), want: "invalid_blocks", says: "missing required field: text"},
		"an unknown block":     {body: block(`{"type":"video"}`), want: "invalid_blocks", says: "unsupported type: video"},
		"an unknown property":  {body: block(`{"type":"divider","x":1}`), want: "invalid_blocks", says: "additional property: x"},
		"a block id twice":     {body: block(`{"type":"divider","block_id":"a"},{"type":"divider","block_id":"a"}`), want: "invalid_blocks", says: "already exists"},
		"a button":             {body: button("")},
		"a value of 2001":      {body: button(`,"value":"` + text(2001) + `"`), want: "invalid_blocks", says: "2001"},
		"a button of 76":       {body: block(`{"type":"actions","elements":[{"type":"button","action_id":"a","text":{"type":"plain_text","text":%q}}]}`, text(76)), want: "invalid_blocks", says: "76"},
		"a button in markup":   {body: block(`{"type":"actions","elements":[{"type":"button","action_id":"a","text":{"type":"mrkdwn","text":"b"}}]}`), want: "invalid_blocks", says: "plain_text"},
		"another style":        {body: button(`,"style":"blue"`), want: "invalid_blocks", says: "primary, danger"},
		"a script to open":     {body: button(`,"url":"javascript:alert(1)"`), want: "invalid_blocks", says: "invalid url"},
		"no action id":         {body: block(`{"type":"actions","elements":[{"type":"button","text":{"type":"plain_text","text":"b"}}]}`), want: "invalid_blocks", says: "action_id"},
		"an action id twice":   {body: block(`{"type":"actions","elements":[{"type":"button","action_id":"a","text":{"type":"plain_text","text":"b"}},{"type":"button","action_id":"a","text":{"type":"plain_text","text":"b"}}]}`), want: "invalid_blocks", says: "already exists"},
		"no elements":          {body: block(`{"type":"actions","elements":[]}`), want: "invalid_blocks", says: "at least 1"},
		"an option of 151":     {body: block(`{"type":"actions","elements":[{"type":"static_select","action_id":"a","options":[{"text":{"type":"plain_text","text":"b"},"value":%q}]}]}`, text(151)), want: "invalid_blocks", says: "151"},
		"rich text that is no": {body: block(`{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":""}]}]}`), want: "invalid_blocks", says: "more than 0"},
		"a rich text of 3001":  {body: block(`{"type":"rich_text","elements":[{"type":"rich_text_section","elements":[{"type":"text","text":%q}]}]}`, text(3001)), want: "invalid_blocks", says: "3001"},
		"a modal for nobody":   {method: "views.open", body: `{"trigger_id":"1.2.3","view":{}}`, want: "invalid_trigger_id"},
	} {
		t.Run(name, func(t *testing.T) {
			auth := "Bearer " + token
			if tt.auth != "" {
				auth = strings.TrimPrefix(tt.auth, "-")
			}
			method := "chat.postMessage"
			if tt.method != "" {
				method = tt.method
			}
			before := len(w.Messages())
			status, out := w.raw(method, auth, "application/json; charset=utf-8", tt.body)
			got, _ := out["error"].(string)
			all, _ := json.Marshal(out)
			if status != 200 || got != tt.want || (out["ok"] == true) != (tt.want == "") || !strings.Contains(string(all), tt.says) {
				t.Errorf("%d %s, want %q", status, all, tt.want)
			}
			if tt.want != "" && len(w.Messages()) != before {
				t.Error("it was posted")
			}
		})
	}
	if _, out := w.raw("auth.test", "", "application/x-www-form-urlencoded", "token="+token); out["ok"] != true {
		t.Errorf("a token in the form: %v", out)
	}
	if _, out := w.raw("auth.test?token="+token, "", "application/x-www-form-urlencoded", ""); out["error"] != "not_authed" {
		t.Errorf("a token in the query: %v", out)
	}
}

func (w *world) post() string {
	w.t.Helper()
	_, ts, err := w.api.PostMessageContext(w.t.Context(), channel, slack.MsgOptionText("t", false), slack.MsgOptionBlocks(question()...))
	if err != nil {
		w.t.Fatal(err)
	}
	return ts
}

func press(as, ts, action, value string) url.Values {
	return url.Values{"as": {as}, "channel": {channel}, "ts": {ts}, "block": {"answer"}, "action": {action}, "value": {value}}
}

func TestPress(t *testing.T) {
	w := start(t)
	ts := w.post()
	if status, to := w.form("/press", press("ana", ts, "approve", "")); status != http.StatusSeeOther || to.Query().Get("as") != "ana" || to.Query().Has("dialog") {
		t.Fatalf("%d %v", status, to)
	}
	if status, _ := w.form("/press", press("ben", ts, "approve-for", "id|object:15m")); status != http.StatusSeeOther {
		t.Fatal(status)
	}
	if len(w.seen) != 2 {
		t.Fatalf("%+v", w.seen)
	}
	a, b := w.seen[0], w.seen[1]
	if a.Type != slack.InteractionTypeBlockActions || a.User.ID != ana || a.User.TeamID != team || a.Team.ID != team || a.Channel.ID != channel || a.Channel.Name != "sre" ||
		a.Message.Timestamp != ts || a.Container.MessageTs != ts || a.TriggerID == "" || !strings.HasPrefix(a.ResponseURL, w.url+"/actions/"+team+"/") || len(a.Message.Blocks.BlockSet) != 4 {
		t.Errorf("%+v", a)
	}
	if x := a.ActionCallback.BlockActions; len(x) != 1 || x[0].ActionID != "approve" || x[0].BlockID != "answer" || x[0].Value != "id" || x[0].Text.Text != "Approve once" {
		t.Errorf("%+v", x)
	}
	if b.User.ID != "U0LOCALBEN" || b.ActionCallback.BlockActions[0].SelectedOption.Value != "id|object:15m" || b.BlockActionState.Values["answer"]["approve-for"].SelectedOption.Value != "id|object:15m" {
		t.Errorf("%+v", b)
	}
	for name, v := range map[string]url.Values{
		"another message": press("ana", "1.0", "approve", ""), "another action": press("ana", ts, "approves", ""), "another option": press("ana", ts, "approve-for", "id|namespace:9h"),
	} {
		if status, _ := w.form("/press", v); status != http.StatusConflict {
			t.Errorf("%s: %d", name, status)
		}
	}
	if len(w.seen) != 2 {
		t.Error("something else was pressed")
	}
	w.answer = func(slack.InteractionCallback) (int, string) { return 500, "" }
	w.form("/press", press("ana", ts, "approve", ""))
	if page := w.page("as=ana"); !strings.Contains(page, "The app answered 500") {
		t.Error("nobody sees that the app failed")
	}
	r, err := http.NewRequest(http.MethodPost, w.url+"/press", strings.NewReader(press("ana", ts, "approve", "").Encode()))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Sec-Fetch-Site", "cross-site")
	if res, err := http.DefaultClient.Do(r); err != nil || res.StatusCode != http.StatusForbidden {
		t.Errorf("another site presses: %v %v", res, err)
	}
}

func TestResponseURL(t *testing.T) {
	w := start(t)
	ts := w.post()
	w.form("/press", press("ana", ts, "approve", ""))
	to := w.seen[0].ResponseURL
	respond := func(body string) int {
		res, err := http.Post(to, "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	for n, want := range []struct {
		body   string
		status int
	}{
		{`{"text":"you may not","response_type":"ephemeral"}`, 200},
		{`{"text":"x","blocks":[{"type":"video"}]}`, 400},
		{`{"text":"for all","response_type":"in_channel"}`, 200},
		{`{"text":"over","replace_original":true}`, 200},
		{`{"text":"4"}`, 200},
		{`{"text":"5"}`, 200},
		{`{"text":"6"}`, 404},
	} {
		if got := respond(want.body); got != want.status {
			t.Errorf("%d %s: %d", n, want.body, got)
		}
	}
	got := w.Messages()
	if len(got) != 5 || got[0].Text != "over" || got[0].Updated.IsZero() || got[1].User != ana || got[2].User != "" {
		t.Errorf("%+v", got)
	}
	w.form("/press", press("ana", w.post(), "approve", ""))
	to = w.seen[1].ResponseURL
	w.later(31 * time.Minute)
	if got := respond(`{"text":"late"}`); got != 404 {
		t.Errorf("after half an hour: %d", got)
	}
}

func denyView() slack.ModalViewRequest {
	input := slack.NewPlainTextInputBlockElement(plain("The agent reads this"), "reason").WithMultiline(true).WithMaxLength(20)
	return slack.ModalViewRequest{Type: "modal", CallbackID: "deny", PrivateMetadata: "id|" + channel, Title: plain("Deny the request"), Submit: plain("Deny"), Close: plain("Cancel"),
		Blocks: slack.Blocks{BlockSet: []slack.Block{slack.NewInputBlock("reason", plain("Why not?"), nil, input)}}}
}

func TestDialog(t *testing.T) {
	w := start(t)
	ts := w.post()
	var trigger string
	var opened error
	w.answer = func(in slack.InteractionCallback) (int, string) {
		trigger = in.TriggerID
		_, opened = w.api.OpenViewContext(t.Context(), in.TriggerID, denyView())
		return 200, ""
	}
	open := func() string {
		t.Helper()
		status, to := w.form("/press", press("ana", ts, "deny", ""))
		if opened != nil || status != http.StatusSeeOther || to.Query().Get("dialog") == "" || to.Fragment != "dialog" {
			t.Fatalf("%d %v %v", status, to, opened)
		}
		return to.Query().Get("dialog")
	}
	dialog := open()
	if page := w.page("as=ana&dialog=" + dialog); !strings.Contains(page, "Why not?") || !strings.Contains(page, `name="input.reason"`) || !strings.Contains(page, `role="dialog"`) {
		t.Errorf("the page has no dialog\n%s", page)
	}
	if strings.Contains(w.page("as=ben&dialog="+dialog), "Why not?") {
		t.Error("ben sees ana's dialog")
	}
	submit := func(id, reason string) (int, *url.URL) {
		return w.form("/submit", url.Values{"as": {"ana"}, "dialog": {id}, "input.reason": {reason}})
	}
	seen := len(w.seen)
	for reason, want := range map[string]string{"": "required field", "longer than twenty characters": "too long"} {
		if _, to := submit(dialog, reason); to.Query().Get("dialog") != dialog || !strings.Contains(w.page(to.RawQuery), want) || len(w.seen) != seen {
			t.Errorf("%q: %v", reason, to)
		}
	}
	for _, tt := range []struct {
		status       int
		answer, says string // says: what is shown while the dialog stays
	}{
		{500, "", "trouble"},
		{200, "no", "trouble"},
		{200, `{"response_action":"errors","errors":{"reason":"somebody was faster"}}`, "somebody was faster"},
		{200, `{"response_action":"errors","errors":{"other":"x"}}`, "trouble"},
		{200, `{"response_action":"jump"}`, "trouble"},
		{200, `{"response_action":"update","view":{"type":"modal","title":{"type":"plain_text","text":"Too late"},"blocks":[{"type":"section","text":{"type":"plain_text","text":"ben was faster"}}]}}`, "ben was faster"},
	} {
		w.answer = func(slack.InteractionCallback) (int, string) { return tt.status, tt.answer }
		_, to := submit(dialog, "not\r\ntoday")
		if page := w.page(to.RawQuery); to.Query().Get("dialog") != dialog || !strings.Contains(page, tt.says) {
			t.Errorf("%s: %v\n%s", tt.answer, to, page)
		}
	}
	in := w.seen[len(w.seen)-1]
	if in.Type != slack.InteractionTypeViewSubmission || in.View.CallbackID != "deny" || in.View.PrivateMetadata != "id|"+channel || in.User.ID != ana || in.Team.ID != team ||
		in.View.State.Values["reason"]["reason"].Value != "not\ntoday" {
		t.Errorf("%+v", in)
	}
	w.answer = func(in slack.InteractionCallback) (int, string) {
		if in.Type == slack.InteractionTypeBlockActions {
			_, opened = w.api.OpenViewContext(t.Context(), in.TriggerID, denyView())
		}
		return 200, ""
	}
	dialog = open()
	if _, to := submit(dialog, "no"); to.Query().Has("dialog") {
		t.Errorf("a dialog that was taken stays: %v", to)
	}
	if status, _ := submit(dialog, "no"); status != http.StatusConflict {
		t.Errorf("a closed dialog is submitted: %d", status)
	}
	if status, _ := w.form("/close", url.Values{"as": {"ana"}, "dialog": {open()}}); status != http.StatusSeeOther {
		t.Error(status)
	}

	// Triggers are good once, and for three seconds.
	if _, err := w.api.OpenViewContext(t.Context(), trigger, denyView()); err == nil || err.Error() != "exchanged_trigger_id" {
		t.Error(err)
	}
	w.answer = func(in slack.InteractionCallback) (int, string) { trigger = in.TriggerID; return 200, "" }
	w.form("/press", press("ana", ts, "deny", ""))
	bad := denyView()
	bad.Title = plain("longer than twenty-four characters")
	if _, err := w.api.OpenViewContext(t.Context(), trigger, bad); err == nil || err.Error() != "invalid_arguments" {
		t.Error(err)
	}
	bad = denyView()
	bad.Submit = nil
	if _, err := w.api.OpenViewContext(t.Context(), trigger, bad); err == nil || err.Error() != "invalid_arguments" {
		t.Error(err)
	}
	w.later(4 * time.Second)
	if _, err := w.api.OpenViewContext(t.Context(), trigger, denyView()); err == nil || err.Error() != "expired_trigger_id" {
		t.Error(err)
	}
}

func (w *world) fault(method, channel, body string) int {
	w.t.Helper()
	r, err := http.NewRequest(method, w.url+"/_local/"+channel+"/fault", strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	res.Body.Close()
	return res.StatusCode
}

func TestFaults(t *testing.T) {
	w := start(t)
	post := func() error {
		_, _, err := w.api.PostMessageContext(t.Context(), channel, slack.MsgOptionText("t", false))
		return err
	}
	for _, tt := range []struct {
		fault  string
		says   string
		posted int
	}{
		{`{"status":500,"times":1}`, "500", 0},
		{`{"status":500,"times":1,"after":true}`, "500", 1},
		{`{"status":429,"times":1}`, "rate limit", 0},
		{`{"error":"fatal_error","times":1}`, "fatal_error", 0},
	} {
		before := len(w.Messages())
		if status := w.fault(http.MethodPut, "slack", tt.fault); status != 200 {
			t.Fatal(status)
		}
		if err := post(); err == nil || !strings.Contains(err.Error(), tt.says) || len(w.Messages())-before != tt.posted {
			t.Errorf("%s: %v, %d posted", tt.fault, err, len(w.Messages())-before)
		}
		if err := post(); err != nil {
			t.Errorf("after %s: %v", tt.fault, err)
		}
	}
	w.fault(http.MethodPut, "slack", `{"delay":"200ms"}`)
	began := time.Now()
	if err := post(); err != nil || time.Since(began) < 200*time.Millisecond {
		t.Errorf("%v after %v", err, time.Since(began))
	}
	w.fault(http.MethodPut, "slack", `{"status":503,"method":"views.open"}`)
	if err := post(); err != nil {
		t.Errorf("another method: %v", err)
	}
	w.fault(http.MethodDelete, "slack", "")
	for _, bad := range []string{`{}`, `{"status":200}`, `{"delay":"soon"}`, `{"statsu":500}`} {
		if status := w.fault(http.MethodPut, "slack", bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if status := w.fault(http.MethodPut, "pager", `{"status":500}`); status != http.StatusNotFound {
		t.Error(status)
	}
}

func TestMail(t *testing.T) {
	w := start(t)
	status := 200
	tap := httptest.NewServer(w.Tap(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		rw.Header().Set("X-From", "moto")
		rw.WriteHeader(status)
		_, _ = fmt.Fprintf(rw, `{"MessageId":"m-%d"}`, len(b))
	})))
	defer tap.Close()
	send := func(v any) (int, string) {
		t.Helper()
		b, _ := json.Marshal(v)
		res, err := http.Post(tap.URL+"/v2/email/outbound-emails", "application/json", bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		out, _ := io.ReadAll(res.Body)
		if res.StatusCode == 200 && res.Header.Get("X-From") != "moto" {
			t.Error("the answer is not the one that was passed on")
		}
		return res.StatusCode, string(out)
	}
	data := func(s string) map[string]string { return map[string]string{"Data": s, "Charset": "UTF-8"} }
	simple := map[string]any{"FromEmailAddress": "Sallyport <gate@example.com>", "Destination": map[string]any{"ToAddresses": []string{"Ana <ana@example.com>", "ben@example.com"}},
		"Content": map[string]any{"Simple": map[string]any{"Subject": data("Approval wanted"), "Body": map[string]any{
			"Text": data("See http://localhost:1/l/abc. Or\nhttp://localhost:1/other"), "Html": data(`<p onclick="x()">See <a class=b href="http://localhost:1/l/abc?a=1&amp;b=2">it</a> <a href="javascript:x">no</a></p><script>x()</script>`)}}}}
	if code, out := send(simple); code != 200 || !strings.HasPrefix(out, `{"MessageId":"m-`) {
		t.Errorf("%d %s", code, out)
	}
	rawMail := "From: gate@example.com\r\nTo: chi@example.com\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\nContent-Type: multipart/alternative; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\nhello =C3=A9\r\n--x\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: base64\r\n\r\nPGI+aGVsbG88L2I+\r\n--x--\r\n"
	if code, _ := send(map[string]any{"Content": map[string]any{"Raw": map[string]any{"Data": []byte(rawMail)}}}); code != 200 {
		t.Error(code)
	}
	got := w.Messages()
	for n := range got {
		got[n].ID, got[n].At, got[n].HTML = "", time.Time{}, ""
	}
	one := inbox.Message{Channel: "mail", To: "ana@example.com", From: "Sallyport <gate@example.com>", Subject: "Approval wanted", Text: "See http://localhost:1/l/abc. Or\nhttp://localhost:1/other",
		Links: []string{"http://localhost:1/l/abc?a=1&b=2", "http://localhost:1/l/abc", "http://localhost:1/other"}}
	two := one
	two.To = "ben@example.com"
	if d := cmp.Diff([]inbox.Message{one, two, {Channel: "mail", To: "chi@example.com", From: "gate@example.com", Subject: "café", Text: "hello é", Links: []string{}}}, got); d != "" {
		t.Error(d)
	}
	page := w.page("")
	if !strings.Contains(page, `<a href="http://localhost:1/l/abc?a=1&amp;b=2"`) || !strings.Contains(page, "<iframe src=\"/mail/") || strings.Contains(page, "onclick") {
		t.Errorf("the page:\n%s", page)
	}
	id := w.Messages()[0].ID
	res, err := http.Get(w.url + "/mail/" + id)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if csp := res.Header.Get("Content-Security-Policy"); res.StatusCode != 200 || !strings.HasPrefix(csp, "sandbox ") || strings.Contains(csp, "allow-scripts") || strings.Contains(csp, "allow-same-origin") {
		t.Errorf("a mail's script would run: %s %s", res.Status, csp)
	}

	status = 400
	if code, _ := send(simple); code != 400 || len(w.Messages()) != 3 {
		t.Errorf("a mail that was refused is shown: %d", code)
	}
	status = 200
	w.fault(http.MethodPut, "mail", `{"status":500,"times":1}`)
	if code, _ := send(simple); code != 500 || len(w.Messages()) != 3 {
		t.Errorf("%d", code)
	}
	w.fault(http.MethodPut, "mail", `{"status":500,"times":1,"after":true}`)
	if code, _ := send(simple); code != 500 || len(w.Messages()) != 5 {
		t.Errorf("%d", code)
	}
}

func TestHosts(t *testing.T) {
	w := start(t)
	for host, want := range map[string]int{"localhost:1": 200, "127.0.0.1": 200, "[::1]:5": 200, "evil.example.com": 421, "10.0.0.1": 421, "localhost.evil.example.com": 421} {
		r, err := http.NewRequest(http.MethodGet, w.url+"/messages.json", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Host = host
		res, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s: %s", host, res.Status)
		}
	}
}

// What hostile text does in Slack's markup, it does here; what it does not do there, it does not do here.
func TestMarkup(t *testing.T) {
	for text, want := range map[string]struct{ read, page string }{
		"plain & <":                  {"plain & <", "plain &amp; &lt;"},
		"a *b* _c_ ~d~ `e&lt;`":      {"a b c d e<", "a <strong>b</strong> <em>c</em> <s>d</s> <code>e&lt;</code>"},
		"2*3*4 snake_case_x":         {"2*3*4 snake_case_x", "2*3*4 snake_case_x"},
		"* not bold *":               {"* not bold *", "* not bold *"},
		"```\n<b>\n&amp;amp;```":     {"<b>\n&amp;", "<pre tabindex=\"0\">&lt;b&gt;\n&amp;amp;</pre>"},
		"<http://a.b|x&lt;y>":        {"x<y", `<a href="http://a.b" target="_blank" rel="noopener noreferrer">x&lt;y</a>`},
		"<javascript:alert(1)|x>":    {"x", "x"},
		`<http://a.b"onclick="x|y>`:  {"y", `<a href="http://a.b&#34;onclick=&#34;x" target="_blank" rel="noopener noreferrer">y</a>`},
		"<!channel> <@U1> &lt;!here": {"@channel @U1 <!here", `<span class="mention">@channel</span> <span class="mention">@U1</span> &lt;!here`},
		"*<img src=x>*":              {"img src=x", "<strong>img src=x</strong>"},
		"a\nb":                       {"a\nb", "a<br>b"},
	} {
		w := start(t)
		if _, _, err := w.api.PostMessageContext(t.Context(), channel, slack.MsgOptionText("t", false), slack.MsgOptionBlocks(slack.NewSectionBlock(slack.NewTextBlockObject("mrkdwn", text, false, false), nil, nil))); err != nil {
			t.Fatal(err)
		}
		if got := w.Messages()[0].Text; got != want.read {
			t.Errorf("%q reads %q, want %q", text, got, want.read)
		}
		if page := w.page(""); !strings.Contains(page, `<div class="block text">`+want.page+"</div>") {
			t.Errorf("%q is not shown as %s\n%s", text, want.page, page)
		}
	}
}
