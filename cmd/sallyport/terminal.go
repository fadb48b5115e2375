package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// safe spells out what a terminal would act on or a reader would not see: control characters, escape sequences,
// invisible and direction-changing characters, invalid UTF-8. What agents named things ends up here.
func safe(s string) string {
	if !strings.ContainsFunc(s, func(r rune) bool { return r == utf8.RuneError || !unicode.IsPrint(r) }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteString(s[:n])
		case r < 0x80:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u{%x}`, r)
		}
		s = s[n:]
	}
	return b.String()
}

// safeLines is safe that keeps line ends; further lines are indented.
func safeLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = safe(lines[i])
	}
	return strings.Join(lines, "\n  ")
}

// printJSON prints v, indented, as JSON that is safe on a terminal: what JSON itself lets pass is escaped too. Outside
// strings JSON has only ASCII, so this changes no meaning.
func printJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encoding JSON: %w", err)
	}
	var b strings.Builder
	for len(text) > 0 {
		r, n := utf8.DecodeRune(text)
		switch {
		case r < 0x7f || unicode.IsPrint(r) && n > 1:
			b.Write(text[:n])
		case r <= 0xffff:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			r -= 0x10000
			fmt.Fprintf(&b, `\u%04x\u%04x`, 0xd800+r>>10, 0xdc00+r&0x3ff)
		}
		text = text[n:]
	}
	b.WriteByte('\n')
	_, err = io.WriteString(w, b.String())
	return err
}

// A progress says on a terminal how far a long read is, once it has taken a second.
type progress struct {
	w       io.Writer // nil says nothing
	what    string
	next    time.Time
	started bool
}

func newProgress(env environment, what string) *progress {
	p := &progress{what: what, next: time.Now().Add(time.Second)}
	if env.terminal {
		p.w = env.stderr
	}
	return p
}

func (p *progress) at(done, total int) {
	if p.w == nil || time.Now().Before(p.next) {
		return
	}
	p.next = time.Now().Add(100 * time.Millisecond)
	p.started = true
	fmt.Fprintf(p.w, "\rreading %s: %d of %d", p.what, done, total)
}

// end wipes the line.
func (p *progress) end() {
	if p.started {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
