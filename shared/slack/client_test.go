package slack_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/slack"
	"sallyport/shared/slack/slacktest"
)

func server(t *testing.T) (*slacktest.Server, *slack.Client) {
	s := slacktest.New()
	t.Cleanup(s.Close)
	t.Cleanup(func() {
		for _, w := range s.Wrong() {
			t.Error(w)
		}
	})
	return s, slack.New(slacktest.Token, s.URL)
}

func TestOneMessageIsUpdated(t *testing.T) {
	s, c := server(t)
	ts, err := c.Post(t.Context(), "C1", slack.Announce("One", "text"))
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Update(t.Context(), "C1", ts, slack.Announce("Two", "text")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Reply(t.Context(), "C1", ts, slack.Announce("Three")); err != nil {
		t.Fatal(err)
	}
	if err := c.Whisper(t.Context(), "C1", "U1", slack.Announce("Four")); err != nil {
		t.Fatal(err)
	}
	m := s.Messages()
	if len(m) != 3 || m[0].Text != "Two" || m[0].Updates != 1 || m[1].Thread != ts || m[2].User != "U1" {
		t.Errorf("%+v", m)
	}
	if err := c.Open(t.Context(), "trigger", slack.DenyView("id", "C1", ts)); err != nil {
		t.Fatal(err)
	}
	var view struct {
		CallbackID      string `json:"callback_id"`
		PrivateMetadata string `json:"private_metadata"`
	}
	if err := json.Unmarshal(s.Views()[0], &view); err != nil || view.CallbackID != "deny" || view.PrivateMetadata != "id|C1|"+ts {
		t.Errorf("%+v, %v", view, err)
	}
}

func TestSlackInTrouble(t *testing.T) {
	for name, test := range map[string]struct {
		answer func(n int) (int, string)
		calls  int
		kind   access.Kind
		says   string
	}{
		"500 once":        {func(n int) (int, string) { return map[int]int{1: 500}[n], "" }, 2, "", ""},
		"500":             {func(int) (int, string) { return 500, "" }, 2, access.Unavailable, "500"},
		"no bot token":    {func(int) (int, string) { return 200, "invalid_auth" }, 1, access.Unauthenticated, slack.Setting},
		"revoked":         {func(int) (int, string) { return 200, "token_revoked" }, 1, access.Unauthenticated, slack.Setting},
		"no such channel": {func(int) (int, string) { return 200, "channel_not_found" }, 1, access.Unavailable, "C1"},
		"not invited":     {func(int) (int, string) { return 200, "not_in_channel" }, 1, access.Unavailable, "invite"},
		"gone":            {func(int) (int, string) { return 200, "message_not_found" }, 1, access.NotFound, ""},
		"hostile":         {func(int) (int, string) { return 200, "<!here> https://evil" }, 1, access.Unavailable, "(herehttpsevil)"},
		"their fault":     {func(n int) (int, string) { return map[int]int{1: 200}[n], "internal_error" }, 2, "", ""},
	} {
		s, c := server(t)
		n := 0
		s.Answer = func(string, string) (int, string) { n++; return test.answer(n) }
		_, err := c.Post(t.Context(), "C1", slack.Announce("x"))
		if access.KindOf(err) != test.kind || n != test.calls {
			t.Errorf("%s: %v after %d calls", name, err, n)
		}
		if err != nil && (!strings.Contains(err.Error(), test.says) || strings.Contains(err.Error(), slacktest.Token)) {
			t.Errorf("%s: %q", name, err)
		}
	}
}

func TestSlackIsSlow(t *testing.T) {
	var calls atomic.Int32
	stop := make(chan struct{})
	h := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		select {
		case <-stop:
		case <-r.Context().Done():
		}
	}))
	defer h.Close()
	defer close(stop)
	began := time.Now()
	_, err := slack.New("t", h.URL).Post(t.Context(), "C1", slack.Announce("x"))
	if took := time.Since(began); access.KindOf(err) != access.Unavailable || took > 7*time.Second || calls.Load() != 2 {
		t.Errorf("%v after %v and %d calls", err, took, calls.Load())
	}
}

func TestSlackLimits(t *testing.T) {
	for after, calls := range map[string]int32{"1": 2, "30": 1} {
		var n atomic.Int32
		h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if n.Add(1) == 1 {
				w.Header().Set("Retry-After", after)
				w.WriteHeader(http.StatusTooManyRequests)
				return
			}
			_, _ = w.Write([]byte(`{"ok": true, "ts": "1.2"}`))
		}))
		_, err := slack.New("t", h.URL).Post(t.Context(), "C1", slack.Announce("x"))
		if (err == nil) != (calls == 2) || n.Load() != calls {
			t.Errorf("Retry-After %s: %v after %d calls", after, err, n.Load())
		}
		h.Close()
	}
}

// A redirect would take the token along.
func TestNoRedirect(t *testing.T) {
	evil := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("followed") }))
	defer evil.Close()
	h := httptest.NewServer(http.RedirectHandler(evil.URL, http.StatusTemporaryRedirect))
	defer h.Close()
	if _, err := slack.New("t", h.URL).Post(t.Context(), "C1", slack.Announce("x")); err == nil {
		t.Error("no error")
	}
}
