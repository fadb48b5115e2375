package inbox

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"errors"
	"html"
	"io"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/mail"
	"regexp"
	"strings"
)

// maxMail is the most bytes of a call of SES: 40 MB, encoded.
const maxMail = 56 << 20

// Tap passes SES v2's SendEmail on to whoever answers it, and keeps a copy of what was taken.
func (i *Inbox) Tap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxMail))
		if err != nil {
			http.Error(w, "the mail cannot be read", http.StatusRequestEntityTooLarge)
			return
		}
		if i.faulty(w, r, "mail", "", true) {
			return
		}
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		answer := &taken{header: http.Header{}}
		next.ServeHTTP(answer, r)
		if answer.status == 0 {
			answer.status = http.StatusOK
		}
		if answer.status/100 == 2 {
			var out struct{ MessageId string }
			_ = json.Unmarshal(answer.body.Bytes(), &out)
			if err := i.mail(body, out.MessageId); err != nil {
				i.log.Warn("a mail was sent that cannot be shown", "error", err)
			}
		}
		if i.faulty(w, r, "mail", "", false) {
			return
		}
		for name, v := range answer.header {
			w.Header()[name] = v
		}
		w.WriteHeader(answer.status)
		_, _ = w.Write(answer.body.Bytes())
	})
}

// taken is an answer held back until the copy is kept: whoever was told that a mail went out finds it.
type taken struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (t *taken) Header() http.Header { return t.header }

func (t *taken) WriteHeader(status int) {
	if t.status == 0 && status >= 200 {
		t.status = status
	}
}

func (t *taken) Write(b []byte) (int, error) {
	t.WriteHeader(http.StatusOK)
	return t.body.Write(b)
}

// mail keeps what SendEmail was asked; id is what it was answered.
func (i *Inbox) mail(body []byte, id string) error {
	type data struct{ Data string }
	var in struct {
		FromEmailAddress string
		Destination      struct{ ToAddresses, CcAddresses, BccAddresses []string }
		Content          struct {
			Simple *struct {
				Subject data
				Body    struct{ Text, Html data }
			}
			Raw *struct{ Data []byte }
		}
	}
	if err := json.Unmarshal(body, &in); err != nil {
		return err
	}
	m := Message{Channel: "mail", From: in.FromEmailAddress}
	switch c := in.Content; {
	case c.Simple != nil:
		m.Subject, m.Text, m.HTML = c.Simple.Subject.Data, c.Simple.Body.Text.Data, c.Simple.Body.Html.Data
	case c.Raw != nil:
		to, err := raw(c.Raw.Data, &m)
		if err != nil {
			return err
		}
		if len(in.Destination.ToAddresses) == 0 {
			in.Destination.ToAddresses = to
		}
	default:
		return errors.New("it is neither simple nor raw")
	}
	links := linksOf(m.HTML, m.Text)
	if m.Text == "" {
		m.Text = strings.TrimSpace(html.UnescapeString(tagRE.ReplaceAllString(m.HTML, " ")))
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	m.At = i.cfg.Now().UTC()
	// Everybody has a mailbox of their own.
	for n, to := range append(append(in.Destination.ToAddresses, in.Destination.CcAddresses...), in.Destination.BccAddresses...) {
		one := message{Message: m}
		one.To, one.Links = to, append([]string{}, links...)
		if a, err := mail.ParseAddress(to); err == nil {
			one.To = a.Address
		}
		if one.ID = cmp.Or(id, i.stamp()); n > 0 {
			one.ID = i.stamp()
		}
		i.keep(&one)
	}
	return nil
}

var (
	tagRE  = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`)
	hrefRE = regexp.MustCompile(`(?i)\shref\s*=\s*(?:"([^"]*)"|'([^']*)')`)
	urlRE  = regexp.MustCompile(`https?://[^\s<>"'\\)\]]+`)
)

// linksOf are a mail's links: those of its HTML, then those that are only in its text.
func linksOf(htmlBody, text string) []string {
	var m message
	for _, h := range hrefRE.FindAllStringSubmatch(htmlBody, -1) {
		if u := html.UnescapeString(cmp.Or(h[1], h[2])); web(u) {
			m.link(u)
		}
	}
	for _, u := range urlRE.FindAllString(text, -1) {
		m.link(strings.TrimRight(u, ".,;:!?"))
	}
	return m.Links
}

// raw reads a mail in its own format (RFC 5322) as far as programs write it: text, HTML, or both.
func raw(b []byte, m *Message) (to []string, err error) {
	in, err := mail.ReadMessage(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	words := new(mime.WordDecoder)
	if m.Subject, err = words.DecodeHeader(in.Header.Get("Subject")); err != nil {
		return nil, err
	}
	m.From = cmp.Or(m.From, in.Header.Get("From"))
	for _, name := range []string{"To", "Cc"} {
		addresses, _ := in.Header.AddressList(name)
		for _, a := range addresses {
			to = append(to, a.Address)
		}
	}
	return to, part(in.Header.Get("Content-Type"), in.Header.Get("Content-Transfer-Encoding"), in.Body, m)
}

func part(contentType, encoding string, body io.Reader, m *Message) error {
	kind, params, err := mime.ParseMediaType(cmp.Or(contentType, "text/plain"))
	if err != nil {
		return err
	}
	if strings.HasPrefix(kind, "multipart/") {
		r := multipart.NewReader(body, params["boundary"])
		for {
			p, err := r.NextRawPart()
			if errors.Is(err, io.EOF) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := part(p.Header.Get("Content-Type"), p.Header.Get("Content-Transfer-Encoding"), p, m); err != nil {
				return err
			}
		}
	}
	switch strings.ToLower(encoding) {
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	}
	b, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	switch kind {
	case "text/plain":
		m.Text = string(b)
	case "text/html":
		m.HTML = string(b)
	}
	return nil
}
