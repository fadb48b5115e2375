package back

import (
	"bytes"
	"encoding/base64"
	"io"

	"github.com/klauspost/compress/gzip"
)

// How masks are spelled (package mask): begin, then either end, or a colon, letters of base32 and end.
const (
	begin   = "[masked"
	end     = ']'
	letters = 12
)

// length is of the longest mask.
const length = len(begin) + 1 + letters + 1

// What is unwrapped.
const (
	maxLevel   = 8
	maxBudget  = 48 << 20 // bytes that unwrapping may make of one body; what is masked of a Helm release is half of that at most
	maxEscape  = 4 << 20  // bytes of text whose escapes are resolved
	maxSlashes = 32       // of an escape: five texts in one another
	minRun     = 16       // the shortest base64 that can hold a mask in base64
)

// mark says whether a mask begins at the first byte.
func mark(b []byte) bool {
	if !bytes.HasPrefix(b, []byte(begin)) {
		return false
	}
	b = b[len(begin):]
	if len(b) > 0 && b[0] == end {
		return true
	}
	if len(b) < 1+letters+1 || b[0] != ':' || b[1+letters] != end {
		return false
	}
	for _, c := range b[1 : 1+letters] {
		if bytes.IndexByte([]byte("abcdefghijklmnopqrstuvwxyz234567"), c) < 0 {
			return false
		}
	}
	return true
}

// marked says whether a mask is anywhere in b.
func marked(b []byte) bool {
	for {
		i := bytes.Index(b, []byte(begin))
		if i < 0 {
			return false
		}
		if b = b[i:]; mark(b) {
			return true
		}
		b = b[1:]
	}
}

// A stem is what base64 makes of begin at one of the three places that it can have in a group of three bytes: those of its
// characters that do not depend on what is before and after it.
type stem struct {
	text  []byte
	bytes int // before begin, in its first group
	chars int // before text, in that group
}

var stems = func() []stem {
	var all []stem
	for n := range 3 {
		s := base64.StdEncoding.EncodeToString(append(make([]byte, n), begin...))
		from, to := (8*n+5)/6, 8*(n+len(begin))/6
		all = append(all, stem{[]byte(s[from:to]), n, from})
	}
	return all
}()

// encoded says whether a mask is anywhere in b in base64, wherever the base64 begins.
func encoded(b []byte) bool {
	for _, s := range stems {
		for rest, at := b, 0; ; {
			i := bytes.Index(rest, s.text)
			if i < 0 {
				break
			}
			at += i
			if group := at - s.chars; group >= 0 {
				window := b[group:min(len(b), group+base64.RawStdEncoding.EncodedLen(2+length+2))]
				if out := unbase(window[:run(window)]); len(out) > s.bytes && mark(out[s.bytes:]) {
					return true
				}
			}
			at++
			rest = b[at:]
		}
	}
	return false
}

// alphabet are the characters of both of base64's alphabets.
var alphabet = func() (set [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_") {
		set[c] = true
	}
	return set
}()

// squeezed is how gzip begins in base64.
var squeezed = []byte("H4sI")

// run is how much of b, from its beginning, is base64.
func run(b []byte) int {
	for i, c := range b {
		if !alphabet[c] {
			return i
		}
	}
	return len(b)
}

// unbase decodes base64 without padding, of either alphabet, and leaves out what is not whole at its end.
func unbase(b []byte) []byte {
	if len(b)%4 == 1 {
		b = b[:len(b)-1]
	}
	standard := make([]byte, len(b))
	for i, c := range b {
		switch c {
		case '-':
			c = '+'
		case '_':
			c = '/'
		}
		standard[i] = c
	}
	n, err := base64.RawStdEncoding.Decode(standard, standard)
	if err != nil {
		return nil
	}
	return standard[:n]
}

// A finder finds masks in the text of one body.
type finder struct{ budget int }

func newFinder() *finder { return &finder{maxBudget} }

// spend says whether n more bytes may be made.
func (f *finder) spend(n int) bool {
	f.budget -= n
	return f.budget >= 0
}

// in says whether a mask is in b, or in what b wraps.
func (f *finder) in(b []byte, level int) bool {
	switch {
	case len(b) < len(begin)+1:
		return false
	case marked(b) || encoded(b):
		return true
	case level == maxLevel:
		return false
	}
	if b[0] == 0x1f && b[1] == 0x8b {
		return f.in(f.inflate(b), level+1)
	}
	if plain, changed := f.unescape(b); changed && f.in(plain, level+1) {
		return true
	}
	return f.runs(b, level)
}

// inflate is what gzip holds, as far as it can be read.
func (f *finder) inflate(b []byte) []byte {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil
	}
	out, _ := io.ReadAll(io.LimitReader(r, int64(max(f.budget, 0)))) // what comes before an error counts
	f.spend(len(out))
	return out
}

// runs looks into all that may be base64: every run of it, and what lines make that somebody broke, all of one length but
// the last.
func (f *finder) runs(b []byte, level int) bool {
	var block []byte    // of lines
	line, lines := 0, 0 // how long the block's lines are, and how many
	broken := func() bool { return lines > 1 && (encoded(block) || f.look(block, level)) }
	near := false // nothing but a line's end, and what indents the next, is between the block and here
	for i := 0; i < len(b); {
		n := run(b[i:])
		if n == 0 {
			n = gap(b[i:])
			near = near && (n > 1 || b[i] == ' ' || b[i] == '\t' || b[i] == '\n' || b[i] == '\r')
			i += n
			continue
		}
		piece := b[i : i+n : i+n]
		i += n
		if f.look(piece, level) {
			return true
		}
		goesOn := near && line >= minRun && n <= line
		if goesOn {
			block, lines = append(block, piece...), lines+1
		}
		if !goesOn || n < line { // which was the last, or the first of others
			if broken() {
				return true
			}
			block, line, lines = piece, n, 1
		}
		near = true
	}
	return broken()
}

// look looks into base64. What is in it begins where it does, but for gzip, which is known by how it begins.
func (f *finder) look(text []byte, level int) bool {
	if len(text) < minRun || !f.spend(len(text)) {
		return false
	}
	if f.in(unbase(text), level+1) {
		return true
	}
	for at := 0; ; {
		i := bytes.Index(text[at:], squeezed)
		if i < 0 {
			return false
		}
		if at += i; at%4 != 0 && f.spend(len(text)-at) && f.in(unbase(text[at:]), level+1) {
			return true
		}
		at++
	}
}

// gap is how long what is no base64 is at the beginning of b: the escape of a line's end has a letter that looks like base64.
// Text in text in text has more backslashes before it.
func gap(b []byte) int {
	if n := slashes(b); n > 0 && n < len(b) && (b[n] == 'n' || b[n] == 'r' || b[n] == 't') {
		return n + 1
	}
	return 1
}

// slashes is how many backslashes b begins with, of which there are twice as many in every text around a text.
func slashes(b []byte) int {
	n := 0
	for n < len(b) && n < maxSlashes && b[n] == '\\' {
		n++
	}
	return n
}

// unescape resolves the escapes by number that JSON, YAML and URLs have for ASCII, which masks and their base64 are made of.
// It is no parser: what stands for a character in any of them counts.
func (f *finder) unescape(b []byte) (plain []byte, changed bool) {
	if len(b) > maxEscape || bytes.IndexByte(b, '\\') < 0 && bytes.IndexByte(b, '%') < 0 {
		return nil, false
	}
	for i := 0; i < len(b); {
		c, n := escape(b[i:])
		if n == 0 {
			if changed {
				plain = append(plain, b[i])
			}
			i++
			continue
		}
		if !changed {
			if !f.spend(len(b)) {
				return nil, false
			}
			plain, changed = append(make([]byte, 0, len(b)), b[:i]...), true
		}
		plain = append(plain, c)
		i += n
	}
	return plain, changed
}

// escape is the character that an escape at the beginning of b stands for, and the escape's length; 0 for none.
func escape(b []byte) (c byte, n int) {
	digits := 0
	if b[0] == '%' {
		n, digits = 1, 2
	} else if n = slashes(b); n > 0 && n < len(b) {
		n++
		switch b[n-1] {
		case '/':
			return '/', n
		case 'x':
			digits = 2
		case 'u':
			digits = 4
		case 'U':
			digits = 8
		}
	}
	if digits == 0 || len(b) < n+digits {
		return 0, 0
	}
	value := 0
	for _, d := range b[n : n+digits] {
		switch {
		case '0' <= d && d <= '9':
			d -= '0'
		case 'a' <= d|0x20 && d|0x20 <= 'f':
			d = d | 0x20 - 'a' + 10
		default:
			return 0, 0
		}
		if value = value<<4 | int(d); value > 0x7f {
			return 0, 0
		}
	}
	return byte(value), n + digits
}
