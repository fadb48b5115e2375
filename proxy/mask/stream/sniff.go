package stream

import (
	"bytes"
	"unicode/utf8"
)

// sniffed is how much of a channel is looked at to tell whether it is text.
const sniffed = 4 << 10

// A sniffer tells text from what is none: a NUL, or what is not UTF-8. A character that is cut is neither until the rest
// came.
type sniffer struct {
	seen int
	tail [utf8.UTFMax]byte // of a character that is cut
	cut  int
}

// look says how much of p is text, and whether what follows is not. It looks at the beginning of a channel, or always.
func (s *sniffer) look(p []byte, always bool) (n int, binary bool) {
	end := len(p)
	if !always {
		end = min(end, max(0, sniffed-s.seen))
	}
	s.seen += end
	b := p[:end]
	for s.cut > 0 && n < len(b) { // the character that is cut, byte by byte
		s.tail[s.cut] = b[n]
		s.cut++
		if r, size := utf8.DecodeRune(s.tail[:s.cut]); r != utf8.RuneError || size > 1 {
			n, s.cut = n+1, 0
		} else if utf8.FullRune(s.tail[:s.cut]) {
			return n, true
		} else {
			n++
		}
	}
	if rest := b[n:]; bytes.IndexByte(rest, 0) < 0 && utf8.Valid(rest) {
		return len(p), false
	}
	for n < len(b) {
		if b[n] == 0 {
			return n, true
		}
		r, size := utf8.DecodeRune(b[n:])
		if r == utf8.RuneError && size <= 1 {
			if !utf8.FullRune(b[n:]) {
				s.cut = copy(s.tail[:], b[n:])
				break
			}
			return n, true
		}
		n += size
	}
	return len(p), false
}
