package slack_test

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/slack"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func sign(secret, ts string, body []byte) string {
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "v0:%s:%s", ts, body)
	return "v0=" + hex.EncodeToString(mac.Sum(nil))
}

// The example of Slack's documentation.
func TestVerifyTheirExample(t *testing.T) {
	body := []byte("token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c")
	h := http.Header{"X-Slack-Request-Timestamp": {"1531420618"}, "X-Slack-Signature": {"v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"}}
	if err := slack.Verify("8f742231b10e8888abcd99yyyzzz85a5", h, body, time.Unix(1531420618, 0)); err != nil {
		t.Error(err)
	}
}

func TestVerify(t *testing.T) {
	const secret = "s3cret"
	body := []byte(`payload=%7B%22type%22%3A%22block_actions%22%7D`)
	ts := fmt.Sprint(now.Unix())
	good := func() http.Header {
		return http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {sign(secret, ts, body)}}
	}
	at := func(d time.Duration) http.Header {
		ts := fmt.Sprint(now.Add(d).Unix())
		return http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {sign(secret, ts, body)}}
	}
	for name, test := range map[string]struct {
		header http.Header
		body   []byte
		secret string
		ok     bool
	}{
		"good":                  {good(), body, secret, true},
		"as old as may be":      {at(-slack.Skew), body, secret, true},
		"too old":               {at(-slack.Skew - time.Second), body, secret, false},
		"from the future":       {at(slack.Skew + time.Second), body, secret, false},
		"other bytes":           {good(), append([]byte("x"), body...), secret, false},
		"encoded again":         {good(), []byte(strings.ToLower(string(body))), secret, false},
		"other secret":          {good(), body, "s3cret2", false},
		"no secret":             {http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {sign("", ts, body)}}, body, "", false},
		"no signature":          {http.Header{"X-Slack-Request-Timestamp": {ts}}, body, secret, false},
		"no timestamp":          {http.Header{"X-Slack-Signature": {sign(secret, ts, body)}}, body, secret, false},
		"two signatures":        {http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {"v0=00", sign(secret, ts, body)}}, body, secret, false},
		"two timestamps":        {http.Header{"X-Slack-Request-Timestamp": {ts, ts}, "X-Slack-Signature": {sign(secret, ts, body)}}, body, secret, false},
		"a timestamp with more": {http.Header{"X-Slack-Request-Timestamp": {ts + " "}, "X-Slack-Signature": {sign(secret, ts+" ", body)}}, body, secret, false},
		"a negative timestamp":  {http.Header{"X-Slack-Request-Timestamp": {"-1"}, "X-Slack-Signature": {sign(secret, "-1", body)}}, body, secret, false},
		"an endless timestamp":  {http.Header{"X-Slack-Request-Timestamp": {"99999999999999999999"}, "X-Slack-Signature": {sign(secret, "99999999999999999999", body)}}, body, secret, false},
		"another version":       {http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {"v1" + sign(secret, ts, body)[2:]}}, body, secret, false},
		"upper case":            {http.Header{"X-Slack-Request-Timestamp": {ts}, "X-Slack-Signature": {strings.ToUpper(sign(secret, ts, body))}}, body, secret, false},
	} {
		err := slack.Verify(test.secret, test.header, test.body, now)
		if (err == nil) != test.ok {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && access.KindOf(err) != access.Unauthenticated {
			t.Errorf("%s: kind %s", name, access.KindOf(err))
		}
	}
}

func TestParseSecret(t *testing.T) {
	for text, ok := range map[string]bool{
		`{"signing_secret": "a", "bot_token": "hush"}`: true,
		`{"signing_secret": "a"}`:                      false,
		`{"bot_token": "hush"}`:                        false,
		`hush`:                                         false,
		``:                                             false,
	} {
		got, err := slack.ParseSecret(text)
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if err != nil && (!strings.Contains(err.Error(), slack.Setting) || strings.Contains(err.Error(), "hush")) {
			t.Errorf("%s: %q must name the setting, and nothing of the secret", text, err)
		}
		if s := fmt.Sprintf("%v %+v %#v", got, got, got); strings.Contains(s, "hush") {
			t.Errorf("it prints: %s", s)
		}
	}
}

func TestSecretsAreReadAgain(t *testing.T) {
	clock, reads, token := now, 0, "one"
	var away error
	s := slack.NewSecrets(func(context.Context) (string, error) {
		reads++
		return fmt.Sprintf(`{"signing_secret": "a", "bot_token": %q}`, token), away
	}, func() time.Time { return clock })
	get := func(want string, wantReads int) {
		t.Helper()
		got, err := s.Get(t.Context())
		if want == "" != (err != nil) || got.BotToken != want || reads != wantReads {
			t.Errorf("got %q after %d reads, %v; want %q after %d", got.BotToken, reads, err, want, wantReads)
		}
	}
	get("one", 1)
	token = "two"
	get("one", 1)
	s.Failed()
	get("two", 2)
	get("two", 2)
	token, clock = "three", clock.Add(11*time.Minute)
	get("three", 3)
	away, clock = errors.New("away"), clock.Add(11*time.Minute)
	get("three", 4) // old is better than none
	s.Failed()
	get("", 5) // but not when it is known to be wrong
	away = nil
	get("three", 6)
	clock = clock.Add(-time.Hour) // a clock that was set back makes nothing young
	get("three", 7)
}
