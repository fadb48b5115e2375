package slack

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	api "github.com/slack-go/slack"

	"sallyport/shared/access"
)

const (
	// callTime is how long Slack may take to answer one try: reviewers who can be reached otherwise must not wait for it.
	callTime = 3 * time.Second
	// pause is the wait between the two tries, and the longest that Slack may ask for itself.
	pause    = 300 * time.Millisecond
	maxPause = 3 * time.Second
)

// A Client calls Slack's Web API as a bot. Every call is tried twice, and takes at most about nine seconds. Slack has no
// way to say which message was meant, so a first try that was carried out but never answered leaves a second message
// behind; its buttons decide nothing twice. A Client is safe for concurrent use.
type Client struct{ api *api.Client }

// New makes a client. url is the address of the Web API, Slack's own when empty.
func New(token, url string) *Client {
	options := []api.Option{api.OptionHTTPClient(&http.Client{
		Timeout: callTime,
		// A redirect would carry the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	})}
	if url != "" {
		options = append(options, api.OptionAPIURL(strings.TrimSuffix(url, "/")+"/"))
	}
	return &Client{api.New(token, options...)}
}

// Post puts a message into a channel and returns its timestamp, by which it is updated.
func (c *Client) Post(ctx context.Context, channel string, m Message) (ts string, err error) {
	err = c.twice(ctx, channel, func() error {
		_, ts, err = c.api.PostMessageContext(ctx, channel, m.options()...)
		return err
	})
	return ts, err
}

// Update puts a message in the place of another.
func (c *Client) Update(ctx context.Context, channel, ts string, m Message) error {
	return c.twice(ctx, channel, func() error {
		_, _, _, err := c.api.UpdateMessageContext(ctx, channel, ts, m.options()...)
		return err
	})
}

// Reply answers a message, for everybody in the channel to see: an update notifies nobody.
func (c *Client) Reply(ctx context.Context, channel, ts string, m Message) (reply string, err error) {
	options := append(m.options(), api.MsgOptionTS(ts), api.MsgOptionBroadcast())
	err = c.twice(ctx, channel, func() error {
		_, reply, err = c.api.PostMessageContext(ctx, channel, options...)
		return err
	})
	return reply, err
}

// Open shows a dialog to whoever pressed a button. The trigger of the button is good for three seconds and once.
func (c *Client) Open(ctx context.Context, trigger string, view api.ModalViewRequest) error {
	_, err := c.api.OpenViewContext(ctx, trigger, view)
	return refusal("", err)
}

// Whisper tells one person in a channel something the others do not see.
func (c *Client) Whisper(ctx context.Context, channel, user string, m Message) error {
	return c.twice(ctx, channel, func() error {
		_, err := c.api.PostEphemeralContext(ctx, channel, user, m.options()...)
		return err
	})
}

func (m Message) options() []api.MsgOption {
	return []api.MsgOption{
		api.MsgOptionText(m.Text, false), api.MsgOptionBlocks(m.Blocks...),
		api.MsgOptionParse(false), api.MsgOptionLinkNames(false),
		api.MsgOptionDisableLinkUnfurl(), api.MsgOptionDisableMediaUnfurl(),
	}
}

// twice calls Slack, and calls again when another try may help.
func (c *Client) twice(ctx context.Context, channel string, call func() error) error {
	err := call()
	wait, again := worth(err)
	if !again || ctx.Err() != nil {
		return refusal(channel, err)
	}
	select {
	case <-ctx.Done():
		return refusal(channel, err)
	case <-time.After(wait):
	}
	return refusal(channel, call())
}

// worth says whether another try may help, and when.
func worth(err error) (time.Duration, bool) {
	var refused api.SlackErrorResponse
	var limited *api.RateLimitedError
	var status api.StatusCodeError
	switch {
	case err == nil:
		return 0, false
	case errors.As(err, &limited):
		return max(pause, limited.RetryAfter), limited.RetryAfter <= maxPause
	case errors.As(err, &status):
		return pause, status.Code >= 500
	case errors.As(err, &refused):
		return pause, refused.Err == "internal_error" || refused.Err == "fatal_error" || refused.Err == "service_unavailable"
	}
	return pause, true // not answered at all, or not in time
}

// refusal says in our words why Slack did not do what was asked. Its kind is unauthenticated when the bot token was not
// taken, not found when the message to update is gone, and unavailable otherwise.
func refusal(channel string, err error) error {
	if err == nil {
		return nil
	}
	var refused api.SlackErrorResponse
	var limited *api.RateLimitedError
	var status api.StatusCodeError
	switch {
	case errors.As(err, &limited):
		return access.Errorf(access.Unavailable, "Slack wants fewer messages, and to be asked again in %v", limited.RetryAfter).Because(err)
	case errors.As(err, &status):
		return access.Errorf(access.Unavailable, "Slack answered HTTP status %d twice", status.Code).Because(err)
	case !errors.As(err, &refused):
		return access.Errorf(access.Unavailable, "Slack did not answer within %v, twice", callTime).Because(err)
	}
	switch code := word(refused.Err); code {
	case "invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "no_permission", "missing_scope", "not_allowed_token_type":
		return access.Errorf(access.Unauthenticated, "Slack does not take the bot token (%s); put a good one into the secret that %s names", code, Setting).Because(err)
	case "channel_not_found", "not_in_channel", "is_archived":
		return access.Errorf(access.Unavailable, "Slack refuses channel %s (%s); invite the bot to it, or name another as the group's slack channel in the policy", channel, code).Because(err)
	case "message_not_found", "thread_not_found", "edit_window_closed", "cant_update_message":
		return access.Errorf(access.NotFound, "the message is not there any more (%s)", code).Because(err)
	default:
		return access.Errorf(access.Unavailable, "Slack refused the message (%s)", code).Because(err)
	}
}

// word keeps what Slack's error codes are made of.
func word(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == '_' || 'a' <= r && r <= 'z' {
			return r
		}
		return -1
	}, s)
	return s[:min(len(s), 60)]
}
