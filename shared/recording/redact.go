package recording

import (
	"fmt"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

// redacted stands where a value was.
const redacted = "REDACTED"

// secretWords mark a query parameter whose value is nobody's business. They are matched anywhere in the lower-cased
// name, with - and _ taken out.
var secretWords = []string{
	"token", "secret", "password", "passwd", "bearer", "auth", "credential", "signature", "assertion", "apikey", "jwt",
}

// RedactURI is a request target that can be recorded: the value of every query parameter that is an exec's argv
// (command) or may be a credential is replaced by REDACTED, in place, so that how many there were and where is kept.
// What looks like a token anywhere else is replaced too. The result is printable ASCII: other bytes are percent-encoded.
//
// It does not assume that the target is well formed: refused requests are recorded too. What some server may take for
// the beginning of a parameter (after &, ; or a second ?) is taken for one; only & ends a value that is replaced.
func RedactURI(uri string) string {
	target, query, found := strings.Cut(withoutUserinfo(uri), "?")
	var b strings.Builder
	b.Grow(len(uri) + 16)
	writeASCII(&b, withoutTokens(target))
	if !found {
		return b.String()
	}
	separator := byte('?')
	for param := range strings.SplitSeq(query, "&") {
		b.WriteByte(separator)
		redactParam(&b, param)
		separator = '&'
	}
	return b.String()
}

func redactParam(b *strings.Builder, param string) {
	for {
		end := strings.IndexAny(param, "=;?")
		if end < 0 {
			writeASCII(b, withoutTokens(param))
			return
		}
		writeASCII(b, withoutTokens(param[:end]))
		b.WriteByte(param[end])
		rest := param[end+1:]
		if param[end] == '=' {
			if secretName(param[:end]) && rest != "" {
				b.WriteString(redacted)
				return
			}
			// What is left of the value is no name.
			end := strings.IndexAny(rest, ";?")
			if end < 0 {
				end = len(rest) - 1
			}
			writeASCII(b, withoutTokens(rest[:end+1]))
			rest = rest[end+1:]
		}
		if rest == "" {
			return
		}
		param = rest
	}
}

// secretName reports whether the parameter's value is to be replaced. The name is read as a server reads it, and when
// it cannot be read, as it stands.
func secretName(name string) bool {
	if plain, err := url.QueryUnescape(name); err == nil {
		name = plain
	}
	name = strings.ToLower(strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || unicode.IsSpace(r) || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, name))
	if name == "command" {
		return true
	}
	for _, w := range secretWords {
		if strings.Contains(name, w) {
			return true
		}
	}
	return false
}

// withoutUserinfo takes user:password@ out of a target in absolute form (RFC 9112 §3.2.2).
func withoutUserinfo(uri string) string {
	scheme, rest, found := strings.Cut(uri, "//")
	if !found || strings.ContainsAny(scheme, "?") {
		return uri
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	at := strings.LastIndexByte(rest[:end], '@')
	if at < 0 {
		return uri
	}
	return scheme + "//" + redacted + rest[at:]
}

// minToken is the length from which something that begins like a token is taken for one.
const minToken = 24

// withoutTokens replaces what looks like a token. It is a second line: nothing on the way here has a place for one.
func withoutTokens(s string) string {
	var b strings.Builder
	kept := 0 // s before kept is in b
	for i := 0; i < len(s); i++ {
		if !tokenStart(s[i:]) {
			continue
		}
		begin := i
		for i < len(s) && tokenByte(s[i]) {
			i++
		}
		if i-begin >= minToken {
			b.WriteString(s[kept:begin])
			b.WriteString(redacted)
			kept = i
		}
	}
	if kept == 0 {
		return s
	}
	b.WriteString(s[kept:])
	return b.String()
}

// tokenStart reports whether s begins as the tokens do that travel here: with a JOSE header ({" in base64url) or as a
// token for EKS.
func tokenStart(s string) bool {
	return strings.HasPrefix(s, "eyJ") || strings.HasPrefix(s, "k8s-aws-v1.")
}

func tokenByte(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_' || c == '.' || c == '='
}

func writeASCII(b *strings.Builder, s string) {
	const hex = "0123456789ABCDEF"
	for i := 0; i < len(s); i++ {
		if c := s[i]; c > ' ' && c < 0x7f {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
}

// clean makes a string from outside safe to keep: short, no tokens, and control, invisible and invalid characters spelt
// out.
func clean(s string) string {
	whole := len(s)
	s = withoutTokens(s[:min(whole, maxText)])
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c >= 0x7f {
			s = spell(s)
			break
		}
	}
	return cut(s, maxText, whole)
}

func spell(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteString(s[:n])
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// cut keeps at most limit bytes of s, in whole characters, and says how long it was when it was whole.
func cut(s string, limit, whole int) string {
	if len(s) <= limit && whole <= limit {
		return s
	}
	keep := min(len(s), limit)
	for keep > 0 && keep < len(s) && !utf8.RuneStart(s[keep]) {
		keep--
	}
	return fmt.Sprintf("%s[cut: %d bytes]", s[:keep], whole)
}
