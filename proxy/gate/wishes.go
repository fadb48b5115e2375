package gate

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"

	"sallyport/shared/access"
)

// Headers that are for the gate alone. They are never forwarded.
const (
	// HeaderReason says in the agent's own words why it asks: printable ASCII, or an ext-value of RFC 8187 §3.2.1 in UTF-8.
	HeaderReason = "Sallyport-Reason"
	// HeaderAsk is "ahead" on a request that people are to be asked about now, and that is sent to be done later; "look" on one
	// that is only to be decided: nobody is asked, and nothing is forwarded.
	HeaderAsk = "Sallyport-Ask"
)

// maxReason is how many characters a reason may have: it is read by people who have a decision to make.
const maxReason = 1000

// wishes are what a caller tells the gate beside the request.
type wishes struct {
	reason string
	ahead  bool
	look   bool
}

func wishesOf(h http.Header) (wishes, error) {
	var w wishes
	switch v := h.Values(HeaderReason); len(v) {
	case 0:
	case 1:
		var err error
		if w.reason, err = reason(v[0]); err != nil {
			return w, err
		}
	default:
		return w, access.Errorf(access.Invalid, "%s comes more than once; give it once", HeaderReason)
	}
	switch v := h.Values(HeaderAsk); {
	case len(v) == 0:
	case len(v) == 1 && v[0] == "ahead":
		w.ahead = true
	case len(v) == 1 && v[0] == "look":
		w.look = true
	default:
		return w, access.Errorf(access.Invalid, "%s takes one word, which is ahead or look", HeaderAsk)
	}
	return w, nil
}

func reason(v string) (string, error) {
	bad := func(why string) (string, error) {
		return "", access.Errorf(access.Invalid, "%s %s; write printable ASCII, or UTF-8''… percent-encoded as in RFC 8187", HeaderReason, why)
	}
	text := v
	if charset, rest, ok := strings.Cut(v, "'"); ok && strings.EqualFold(charset, "UTF-8") {
		_, value, ok := strings.Cut(rest, "'") // between them is the language, which changes nothing
		if !ok || strings.ContainsFunc(value, func(r rune) bool { return r != '%' && !attrChar(r) }) {
			return bad("is no ext-value")
		}
		var err error
		if text, err = url.PathUnescape(value); err != nil {
			return bad("is no ext-value")
		}
	} else if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) {
		return bad("has characters that are not ASCII")
	}
	switch {
	case !utf8.ValidString(text):
		return bad("is not UTF-8")
	case strings.ContainsFunc(text, func(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }):
		return bad("has control characters")
	case utf8.RuneCountInString(text) > maxReason:
		return "", access.Errorf(access.Invalid, "%s has %d characters; %d is the limit, as people have to read it", HeaderReason, utf8.RuneCountInString(text), maxReason)
	}
	return strings.TrimSpace(text), nil
}

// attrChar is RFC 8187's attr-char.
func attrChar(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$&+-.^_`|~", r)
}
