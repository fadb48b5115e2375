package view

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Visible makes text safe to show: control characters, bytes that are no UTF-8, and characters that show as nothing, as a
// blank other than the space, or that turn the text around them, are written as escapes such as \u{202e}. Line ends stay.
// Text that is safe is returned as it is, so it does no harm to call it twice; a backslash is not escaped.
func Visible(s string) string { return visible(s, false) }

// VisibleLine is Visible for one line: line ends are written as \n.
func VisibleLine(s string) string { return visible(s, true) }

// maxMarks is how many combining marks may stand on one character. More of them write over the lines around.
const maxMarks = 4

func visible(s string, line bool) string {
	var b strings.Builder
	marks, from := 0, 0
	for i, r := range s {
		if unicode.In(r, unicode.Mn, unicode.Me) {
			marks++
		} else {
			marks = 0
		}
		bad := hides(r, s[i:]) || marks > maxMarks
		if r == '\n' {
			bad = line
		}
		if !bad {
			continue
		}
		b.WriteString(s[from:i])
		from = i + utf8.RuneLen(r)
		switch r {
		case '\n':
			b.WriteString(`\n`)
		case '\r':
			b.WriteString(`\r`)
		case '\t':
			b.WriteString(`\t`)
		case utf8.RuneError: // hides takes it for bad only where it stands for a byte
			fmt.Fprintf(&b, `\x%02x`, s[i])
			from = i + 1
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
	}
	if from == 0 {
		return s
	}
	b.WriteString(s[from:])
	return b.String()
}

// hides says whether r, at the start of rest, must not be shown as it is.
func hides(r rune, rest string) bool {
	if r == utf8.RuneError {
		_, n := utf8.DecodeRuneInString(rest)
		return n == 1
	}
	switch {
	case !unicode.IsPrint(r): // controls, bidirectional and other formats, blanks, private use, what is not assigned
		return true
	case r == 0x034f, r == 0x115f, r == 0x1160, r == 0x17b4, r == 0x17b5, r == 0x2800, r == 0x3164, r == 0xffa0: // fillers and joiners
		return true
	}
	return unicode.Is(unicode.Variation_Selector, r)
}

// turns says whether r is a letter that is written from right to left.
func turns(r rune) bool {
	return r >= 0x0590 && r <= 0x08ff || r >= 0xfb1d && r <= 0xfdff || r >= 0xfe70 && r <= 0xfeff || r >= 0x10800 && r <= 0x10fff || r >= 0x1e800 && r <= 0x1efff
}
