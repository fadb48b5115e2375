// Package slack asks reviewers in Slack and recognises Slack's own calls: one message per approval and channel, updated
// in place until it says who decided, with buttons for a yes to this request, a yes for a while, and a no.
//
// It promises that nothing an agent wrote becomes Slack's markup. Whatever comes from a request stands in elements that
// Slack shows letter by letter (plain_text, and the text elements of rich_text): no mention, link, emoji or format can
// be written there. Links lead to the page and, where the policy makes one, to the agent's run. What notifications
// show, which Slack does parse, is reduced to an alphabet that has no markup. Text must be safe to look at before it
// comes here (package view).
//
// It promises that a yes is only offered for what is shown whole: when anything had to be cut, the message says how much
// and leads to the page, and only a no is left.
//
// Signatures are Slack's, over the raw bytes, compared in constant time, at most five minutes old. A replay within that
// time is the caller's to refuse, and whether the person may answer too: Slack proves a workspace and a user id, no more.
//
// Whoever holds the signing secret can answer as any enrolled person; whoever holds the bot token can write to the
// channels it was invited to. Neither is ever in an error or a log.
package slack

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"sync"
	"time"

	"sallyport/shared/access"
)

// Setting is the environment variable that names the secret, for sentences that say what to set.
const Setting = "SALLYPORT_SLACK_SECRET"

// Skew is how far Slack's clock may be from ours.
const Skew = 5 * time.Minute

// Verify says whether Slack made a request, by the signature in its header over its raw body.
// https://docs.slack.dev/authentication/verifying-requests-from-slack
func Verify(signingSecret string, header http.Header, body []byte, now time.Time) error {
	refuse := func(why string) error {
		return access.Errorf(access.Unauthenticated, "this does not come from Slack: %s", why)
	}
	stamps, signatures := header.Values("X-Slack-Request-Timestamp"), header.Values("X-Slack-Signature")
	if signingSecret == "" || len(stamps) != 1 || len(signatures) != 1 {
		return refuse("it is not signed once")
	}
	seconds, err := strconv.ParseUint(stamps[0], 10, 40)
	if err != nil {
		return refuse("its timestamp is none")
	}
	mac := hmac.New(sha256.New, []byte(signingSecret))
	mac.Write([]byte("v0:" + stamps[0] + ":"))
	mac.Write(body)
	want := "v0=" + hex.EncodeToString(mac.Sum(nil))
	if !hmac.Equal([]byte(want), []byte(signatures[0])) {
		return refuse("its signature is not over these bytes by the signing secret of " + Setting)
	}
	if age := now.Sub(time.Unix(int64(seconds), 0)); age > Skew || age < -Skew {
		return refuse("it was signed more than five minutes from now")
	}
	return nil
}

// A Secret is what settings.SlackSecret holds.
type Secret struct {
	SigningSecret string `json:"signing_secret"`
	BotToken      string `json:"bot_token"`
}

// String hides the secret from logs and errors.
func (Secret) String() string { return "[secret]" }

// GoString hides the secret from %#v.
func (Secret) GoString() string { return "[secret]" }

// ParseSecret reads the secret. Its error says what is missing, never what is there.
func ParseSecret(s string) (Secret, error) {
	var out Secret
	if json.Unmarshal([]byte(s), &out) != nil || out.SigningSecret == "" || out.BotToken == "" {
		return Secret{}, access.Errorf(access.Unavailable, `the secret that %s names is not {"signing_secret": …, "bot_token": …}`, Setting)
	}
	return out, nil
}

// Secrets holds the secret, and reads it again after a failure or ten minutes, so that a new one is taken without a
// deployment. It is safe for concurrent use.
type Secrets struct {
	read func(context.Context) (string, error)
	now  func() time.Time

	mu      sync.Mutex
	held    Secret
	at      time.Time
	suspect bool
}

// keep is how long a secret is used before it is read again.
const keep = 10 * time.Minute

// NewSecrets makes Secrets that reads the secret's text with read.
func NewSecrets(read func(context.Context) (string, error), now func() time.Time) *Secrets {
	return &Secrets{read: read, now: now}
}

// Get is the secret. One that is only old is used on when no newer one can be read.
func (s *Secrets) Get(ctx context.Context) (Secret, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	// A function is frozen between invocations: the wall clock goes on, the monotonic one may not.
	now := s.now().Round(0)
	if age := now.Sub(s.at); s.held != (Secret{}) && !s.suspect && age >= 0 && age < keep {
		return s.held, nil
	}
	text, err := s.read(ctx)
	if err != nil {
		err = access.Errorf(access.Unavailable, "the secret that %s names cannot be read", Setting).Because(err)
	} else {
		var got Secret
		if got, err = ParseSecret(text); err == nil {
			s.held, s.at, s.suspect = got, now, false
			return got, nil
		}
	}
	if s.held != (Secret{}) && !s.suspect {
		return s.held, nil
	}
	return Secret{}, err
}

// Failed says that the secret was not taken: the next Get reads it again.
func (s *Secrets) Failed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.suspect = true
}
