package main

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/slack"
)

func base64Decode(s string) ([]byte, error) { return base64.RawURLEncoding.DecodeString(s) }

// pressed is the body of a button that was pressed.
func (f *fixture) pressed(user, team, action, id string) string {
	return f.payload(map[string]any{
		"type": "block_actions", "team": map[string]any{"id": team}, "user": map[string]any{"id": user, "team_id": team, "username": "ana@example.com"},
		"trigger_id": "1.2.abc", "response_url": f.idpURL + "/collect", "channel": map[string]any{"id": "C1"}, "message": map[string]any{"ts": "1.1"},
		"actions": []any{map[string]any{"action_id": action, "value": id, "type": "button"}},
	})
}

// dialog is the body of the dialog that was sent.
func (f *fixture) dialog(user, team, id, reason string) string {
	return f.payload(map[string]any{
		"type": "view_submission", "team": map[string]any{"id": team}, "user": map[string]any{"id": user, "team_id": team},
		"view": map[string]any{"callback_id": slack.Deny, "private_metadata": id + "|C1|1.1",
			"state": map[string]any{"values": map[string]any{slack.Reason: map[string]any{slack.Reason: map[string]any{"value": reason}}}}},
	})
}

var serial int

func (f *fixture) payload(v map[string]any) string {
	f.t.Helper()
	serial++ // no two presses are one
	v["action_ts"] = fmt.Sprint(serial)
	b, err := json.Marshal(v)
	if err != nil {
		f.t.Fatal(err)
	}
	return url.Values{"payload": {string(b)}}.Encode()
}

func sign(secret, body string, at time.Time) (stamp, signature string) {
	stamp = strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte("v0:" + stamp + ":" + body))
	return stamp, "v0=" + hex.EncodeToString(mac.Sum(nil))
}

// slack sends what Slack would.
func (f *fixture) slack(body string) reply {
	f.t.Helper()
	stamp, signature := sign(signing, body, f.clock())
	return f.slackWith(body, "X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", signature)
}

func (f *fixture) slackWith(body string, header ...string) reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), http.MethodPost, f.url+"/slack/interactions", strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	for i := 0; i < len(header); i += 2 {
		req.Header.Add(header[i], header[i+1])
	}
	return f.browser().do(req)
}

// reviewer is a reviewer's own token.
func (f *fixture) reviewer(email string) string {
	f.t.Helper()
	token, err := f.idp.Mint(claims(email))
	if err != nil {
		f.t.Fatal(err)
	}
	return token
}

func (f *fixture) api(method, path, token, body string, header ...string) reply {
	f.t.Helper()
	req, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, strings.NewReader(body))
	if err != nil {
		f.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return f.browser().do(req)
}

func TestSlack(t *testing.T) {
	f := newFixture(t)
	// A yes to the request.
	a := f.ask(0, nil)
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)); r.code != 200 || r.body != "" {
		t.Error(r)
	}
	got := f.get(a.ID)
	if got.State != access.StateApproved || got.Votes[0].By != (access.Reviewer{Email: "ana@example.com", Slack: "T00000001/U00000ANA", Channel: "slack"}) || len(f.flow.ended) != 1 {
		t.Errorf("%s %+v", got.State, got.Votes)
	}
	// For a while.
	a = f.ask(1, nil)
	body := f.payload(map[string]any{
		"type": "block_actions", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}, "channel": map[string]any{"id": "C1"},
		"actions": []any{map[string]any{"action_id": slack.ApproveFor, "selected_option": map[string]any{"value": slack.Value(a.ID, access.Grant{Scope: access.ScopeObject, Length: 15 * time.Minute})}}},
	})
	if r := f.slack(body); r.code != 200 {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StateGranted || got.Grant.Length != 15*time.Minute {
		t.Errorf("%s %+v, told %q", got.State, got.Grant, f.chat.told)
	}
	// A no asks why first.
	a = f.ask(2, nil)
	if r := f.slack(f.pressed("U00000BEN", "T00000001", slack.Deny, a.ID)); r.code != 200 {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StatePending || len(f.chat.views) != 1 || f.chat.views[0].PrivateMetadata != a.ID+"|C1|1.1" {
		t.Fatalf("%s, dialogs %+v", got.State, f.chat.views)
	}
	for _, empty := range []string{"", "  "} {
		r := f.slack(f.dialog("U00000BEN", "T00000001", a.ID, empty))
		var out struct {
			Action string            `json:"response_action"`
			Errors map[string]string `json:"errors"`
		}
		if err := json.Unmarshal([]byte(r.body), &out); err != nil || r.code != 200 || out.Action != "errors" || out.Errors[slack.Reason] == "" {
			t.Errorf("no reason: %v", r)
		}
	}
	if r := f.slack(f.dialog("U00000BEN", "T00000001", a.ID, "not <now>")); r.code != 200 || r.body != "" {
		t.Error(r)
	}
	if got := f.get(a.ID); got.State != access.StateDenied || got.Votes[0].Reason != "not <now>" {
		t.Errorf("%s %+v", got.State, got.Votes)
	}
	// Too late is told to the one who pressed.
	f.chat.told = nil
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)); r.code != 200 {
		t.Error(r)
	}
	if len(f.chat.told) != 1 || !strings.HasPrefix(f.chat.told[0], "C1 U00000ANA Your answer was not taken: the approval is denied: ben@example.com said no") {
		t.Errorf("told %q", f.chat.told)
	}
	// Slack being away changes nothing of what was decided.
	f.chat.err = fmt.Errorf("no")
	a = f.ask(3, nil)
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)); r.code != 200 || f.get(a.ID).State != access.StateApproved {
		t.Error(r)
	}
	a = f.ask(4, nil)
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Deny, a.ID)); r.code != 200 || f.get(a.ID).State != access.StatePending {
		t.Error(r)
	}
	// A link that was clicked, and a dialog that was closed, ask nothing.
	for _, body := range []string{
		f.pressed("U00000ANA", "T00000001", "open-page", "x"),
		f.payload(map[string]any{"type": "view_closed", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}}),
		f.payload(map[string]any{"type": "view_submission", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}, "view": map[string]any{"callback_id": "other"}}),
	} {
		if r := f.slack(body); r.code != 200 || r.body != "" {
			t.Error(r)
		}
	}
	f.site.chat = nil
	h, err := newSite(f.site)
	if err != nil {
		t.Fatal(err)
	}
	f.handler = h
	if r := f.slack(f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)); r.code != 404 || !strings.Contains(r.body, "SALLYPORT_SLACK_SECRET") {
		t.Error(r)
	}
}

// Threat A8: nothing but what Slack signed, as it signed it, now, once, by somebody enrolled, decides.
func TestSlackRefused(t *testing.T) {
	f := newFixture(t)
	a := f.ask(0, nil)
	body := f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID)
	now := f.clock()
	headers := func(secret, body string, at time.Time) []string {
		stamp, signature := sign(secret, body, at)
		return []string{"X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", signature}
	}
	decoded, err := url.QueryUnescape(strings.TrimPrefix(body, "payload="))
	if err != nil {
		t.Fatal(err)
	}
	var payload any
	if err := json.Unmarshal([]byte(decoded), &payload); err != nil {
		t.Fatal(err)
	}
	again, err := json.MarshalIndent(payload, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	good := headers(signing, body, now)
	for name, test := range map[string]struct {
		body   string
		header []string
	}{
		"no signature":      {body, nil},
		"no timestamp":      {body, good[2:]},
		"another secret":    {body, headers("another", body, now)},
		"no secret":         {body, headers("", body, now)},
		"old":               {body, headers(signing, body, now.Add(-5*time.Minute-time.Second))},
		"from the future":   {body, headers(signing, body, now.Add(5*time.Minute+time.Second))},
		"another timestamp": {body, []string{good[0], strconv.FormatInt(now.Unix()+1, 10), good[2], good[3]}},
		"encoded again":     {url.Values{"payload": {string(again)}}.Encode(), good},
		"escaped otherwise": {strings.ReplaceAll(body, "%7B", "%7b"), good},
		"plus for %20":      {body + "+", good},
		"more of it":        {body + "&payload=x", good},
		"of another body":   {f.pressed("U00000ANA", "T00000001", slack.Approve, a.ID), good},
		"v1":                {body, []string{good[0], good[1], good[2], "v1" + good[3][2:]}},
		"upper case":        {body, []string{good[0], good[1], good[2], "v0=" + strings.ToUpper(good[3][3:])}},
		"cut short":         {body, []string{good[0], good[1], good[2], good[3][:20]}},
		"two signatures":    {body, append(append([]string{}, good...), good[2], good[3])},
		"two timestamps":    {body, append(append([]string{}, good...), good[0], good[1])},
		"too much":          {body + "&x=" + strings.Repeat("x", maxSlack), good},
	} {
		if r := f.slackWith(test.body, test.header...); r.code < 400 || r.code >= 500 || !strings.Contains(r.body, `"error"`) {
			t.Errorf("%s: %v", name, r)
		}
	}
	if len(f.store.writes) != 0 {
		t.Fatalf("it wrote %q", f.store.writes)
	}
	// Signed, and yet nobody's answer.
	for name, body := range map[string]string{
		"not enrolled":            f.pressed("U00000CHI", "T00000001", slack.Approve, a.ID),
		"another workspace":       f.pressed("U00000ANA", "T00000002", slack.Approve, a.ID),
		"nobody":                  f.pressed("", "T00000001", slack.Approve, a.ID),
		"no workspace":            f.pressed("U00000ANA", "", slack.Approve, a.ID),
		"a name made of two":      f.pressed("1/U00000ANA", "T", slack.Approve, a.ID),
		"no approval":             f.pressed("U00000ANA", "T00000001", slack.Approve, "x"),
		"another approval":        f.pressed("U00000ANA", "T00000001", slack.Approve, idN(17)),
		"a grant too long":        f.payload(map[string]any{"type": "block_actions", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}, "actions": []any{map[string]any{"action_id": slack.ApproveFor, "selected_option": map[string]any{"value": a.ID + "|namespace:9h0m0s"}}}}),
		"a grant that is none":    f.payload(map[string]any{"type": "block_actions", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}, "actions": []any{map[string]any{"action_id": slack.ApproveFor, "selected_option": map[string]any{"value": a.ID + "|cluster:1h"}}}}),
		"two actions":             f.payload(map[string]any{"type": "block_actions", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA"}, "actions": []any{map[string]any{"action_id": slack.Approve, "value": a.ID}, map[string]any{"action_id": slack.Approve, "value": a.ID}}}),
		"a guest of another team": f.payload(map[string]any{"type": "block_actions", "team": map[string]any{"id": "T00000001"}, "user": map[string]any{"id": "U00000ANA", "team_id": "T00000009"}, "actions": []any{map[string]any{"action_id": slack.Approve, "value": a.ID}}}),
		"a dialog of a stranger":  f.dialog("U00000EVE", "T00000001", a.ID, "no"),
		"no payload":              "x=y",
		"no JSON":                 "payload=%7B",
		"two payloads":            body + "&" + body,
		"JSON, not a form":        decoded,
	} {
		f.slack(body)
		if got := f.get(a.ID); got.State != access.StatePending || len(got.Votes) != 0 {
			t.Fatalf("%s decided: %s %+v", name, got.State, got.Votes)
		}
	}
	if got := f.get(a.ID); happened(got, "refused") != 4 {
		t.Errorf("the history is %+v", got.History)
	}
	if r := f.slackWith(body, append(append([]string{}, good...), "Content-Type", "application/json")...); r.code != http.StatusUnsupportedMediaType && r.code != 400 {
		t.Errorf("as JSON: %v", r)
	}
	// The same press, many times at once: one counts. What response_url says is never called.
	b := f.ask(1, func(a *access.Approval, _ *access.View) { a.Decision.Obligations.Quorum = 2 })
	body = f.pressed("U00000ANA", "T00000001", slack.Approve, b.ID)
	header := headers(signing, body, f.clock())
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]int{}
	for range 10 {
		wg.Go(func() {
			r := f.slackWith(body, header...)
			mu.Lock()
			defer mu.Unlock()
			seen[r.code]++
		})
	}
	wg.Wait()
	if seen[200] != 1 || seen[409] != 9 {
		t.Errorf("ten times the same: %v", seen)
	}
	if got := f.get(b.ID); len(got.Votes) != 1 || happened(got, "refused") != 9 {
		t.Errorf("votes %+v, history %+v", got.Votes, got.History)
	}
}

// The bytes that are verified are those that were sent, whatever they are.
func TestRawBytes(t *testing.T) {
	f := newFixture(t)
	body := "payload=\xff\xfe\x00%00&\r\n+%2B"
	stamp, signature := sign(signing, body, f.clock())
	if r := f.slackWith(body, "X-Slack-Request-Timestamp", stamp, "X-Slack-Signature", signature); r.code != 400 { // verified, and then no payload
		t.Error(r)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/slack/interactions", io.NopCloser(bytes.NewReader([]byte(body))))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/plain")
	req.Header.Set("X-Slack-Request-Timestamp", stamp)
	req.Header.Set("X-Slack-Signature", signature)
	if r := f.browser().do(req); r.code != http.StatusUnsupportedMediaType && r.code != http.StatusUnauthorized {
		t.Error(r)
	}
}

func TestPressOf(t *testing.T) {
	id := strings.Repeat("a", 26)
	form := func(payload string) []byte { return []byte(url.Values{"payload": {payload}}.Encode()) }
	got, ok, err := pressOf(form(`{"type":"block_actions","user":{"id":"U1","team_id":"T00000001"},"trigger_id":"t","channel":{"id":"C"},"message":{"ts":"1"},"actions":[{"action_id":"deny","value":"` + id + `"}]}`))
	want := press{what: slack.Deny, approval: id, grant: access.Grant{Scope: access.ScopeRequest}, who: "T00000001/U1", user: "U1", channel: "C", message: "1", trigger: "t"}
	if d := cmp.Diff(want, got, cmp.AllowUnexported(press{})); !ok || err != nil || d != "" {
		t.Error(ok, err, d)
	}
}

func FuzzPressOf(f *testing.F) {
	id := strings.Repeat("a", 26)
	for _, payload := range []string{
		`{"type":"block_actions","team":{"id":"T00000001"},"user":{"id":"U1"},"actions":[{"action_id":"approve","value":"` + id + `"}]}`,
		`{"type":"block_actions","user":{"id":"U1","team_id":"T00000001"},"actions":[{"action_id":"approve-for","selected_option":{"value":"` + id + `|object:15m0s"}}]}`,
		`{"type":"view_submission","team":null,"user":{"id":"U1","team_id":"T00000001"},"view":{"callback_id":"deny","private_metadata":"` + id + `|C|1","state":{"values":{"reason":{"reason":{"value":"no"}}}}}}`,
		`{`, `[]`, `null`, ``,
	} {
		f.Add([]byte(url.Values{"payload": {payload}}.Encode()))
	}
	f.Add([]byte("payload=%zz"))
	f.Fuzz(func(t *testing.T, body []byte) {
		p, ok, err := pressOf(body)
		if err != nil || !ok {
			return
		}
		team, user, _ := strings.Cut(p.who, "/")
		if !idRE.MatchString(p.approval) || team == "" || user != p.user || user == "" || strings.Contains(user, "/") {
			t.Errorf("%+v", p)
		}
		switch p.what {
		case slack.Approve, slack.Deny:
			if p.grant != (access.Grant{Scope: access.ScopeRequest}) {
				t.Errorf("%+v", p)
			}
		case slack.ApproveFor:
			if p.grant.Length <= 0 || p.grant.Scope != access.ScopeObject && p.grant.Scope != access.ScopeNamespace {
				t.Errorf("%+v", p)
			}
		case sayNo:
			if p.grant != (access.Grant{}) {
				t.Errorf("%+v", p)
			}
		default:
			t.Errorf("%+v", p)
		}
	})
}
