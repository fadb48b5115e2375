// Package mail asks reviewers by mail, through SES: one mail and one link for each person.
//
// It promises that nothing an agent wrote becomes markup, a link or a header. HTML is escaped by html/template, a text
// that looks like an address is broken ("https[:]//") so that no mail program makes a link of it, and subjects are one
// line of a few fixed words and names, with nothing of a command, an object or a reason in them. Text must be safe to look
// at before it comes here (package view).
//
// A link is as secret as the mailbox, and agents can often read their owner's: by default it leads to a login and counts
// as nothing. A mail is never the place to decide, so it may show less than everything, and says how much less.
package mail

import (
	"context"
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"
	"github.com/aws/aws-sdk-go-v2/service/sesv2/types"
	"github.com/aws/smithy-go"

	"sallyport/shared/access"
)

// Setting is the environment variable that names the sender, for sentences that say what to set.
const Setting = "SALLYPORT_MAIL_FROM"

// A Message is one mail to one person.
type Message struct {
	To      string
	Subject string
	HTML    string
	Text    string
}

// A Sender sends mails. It needs ses:SendEmail on the identity of its address. It is safe for concurrent use.
type Sender struct {
	client *sesv2.Client
	from   string
}

// New makes a sender. from is a bare address that SES may send as.
func New(client *sesv2.Client, from string) (*Sender, error) {
	if !bare(from) {
		return nil, access.Errorf(access.Unavailable, "%s is %q, which is no address to send as; set it to one like approvals@example.com", Setting, from)
	}
	return &Sender{client, from}, nil
}

// Send sends one mail and returns SES's id of it.
func (s *Sender) Send(ctx context.Context, m Message) (string, error) {
	if !bare(m.To) {
		return "", access.Errorf(access.Invalid, "%q is no address to send to; write it in the policy as user@host", m.To)
	}
	text := func(s string) *types.Content { return &types.Content{Data: &s, Charset: aws.String("UTF-8")} }
	out, err := s.client.SendEmail(ctx, &sesv2.SendEmailInput{
		FromEmailAddress: &s.from,
		Destination:      &types.Destination{ToAddresses: []string{m.To}},
		Content: &types.EmailContent{Simple: &types.Message{
			Subject: text(subject(m.Subject)),
			Body:    &types.Body{Html: text(m.HTML), Text: text(m.Text)},
			Headers: []types.MessageHeader{{Name: aws.String("Auto-Submitted"), Value: aws.String("auto-generated")}}, // RFC 3834: no out-of-office answers
		}},
	})
	if err != nil {
		why := "did not answer"
		var e smithy.APIError
		if errors.As(err, &e) {
			why = fmt.Sprintf("refused the mail (%s)", e.ErrorCode())
		}
		return "", access.Errorf(access.Unavailable, "SES %s; %s must be an address that SES has verified, of an account that may send", why, Setting).Because(err)
	}
	return aws.ToString(out.MessageId), nil
}

// bare says whether s is one address, without a name, and nothing else.
func bare(s string) bool {
	a, err := mail.ParseAddress(s)
	return err == nil && a.Address == s && strings.IndexFunc(s, func(r rune) bool { return unicode.IsControl(r) || unicode.IsSpace(r) }) < 0
}

// subject is one line, whatever it was made from.
func subject(s string) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return ' '
		}
		return r
	}, s)
	return clip(strings.Join(strings.Fields(s), " "), 150)
}
