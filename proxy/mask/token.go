package mask

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions here read one token of JSON (RFC 8259). They are given all that there is of it, and say when that is not
// enough to tell.

type flags uint8

const (
	ended   flags = 1 << iota // the closing quote was read
	bad                       // no string goes on like this
	escaped                   // it has escapes
	wide                      // it has letters beyond ASCII
)

const (
	ones   = 0x0101010101010101
	quotes = '"' * ones
	slants = '\\' * ones
	blanks = ' ' * ones
	highs  = 0x80 * ones
)

func load(p []byte) uint64 { return binary.LittleEndian.Uint64(p) }

// special finds what is not plain in eight bytes of a string. A byte has its high bit set when it is a quote, a backslash, a
// control character, or beyond ASCII; a borrow can only come from such a byte, so the lowest one is right.
func special(v uint64) uint64 {
	return (((v ^ quotes) - ones) | ((v ^ slants) - ones) | (v - blanks) | v) & highs
}

// first is the index of the first of eight bytes that is not plain, or 8.
func first(v uint64) int { return bits.TrailingZeros64(special(v)) >> 3 }

// scanString reads a string from p[i:], its opening quote gone. It returns where it stopped: behind the closing quote, or
// at the first byte that cannot be judged without the next ones.
func scanString(p []byte, i int) (int, flags) {
	var f flags
	for {
		for n := 0; n < 2 && i+8 <= len(p); n++ { // most strings end here
			k := first(load(p[i:]))
			if i += k; k < 8 {
				goto at
			}
		}
		for i+32 <= len(p) {
			w := (*[32]byte)(p[i:])
			if special(load(w[:8]))|special(load(w[8:16]))|special(load(w[16:24]))|special(load(w[24:])) != 0 {
				break
			}
			i += 32
		}
		for i+8 <= len(p) {
			if k := first(load(p[i:])); k < 8 {
				i += k
				break
			}
			i += 8
		}
	at:
		if i >= len(p) {
			return i, f
		}
		switch c := p[i]; {
		case c == '"':
			return i + 1, f | ended
		case c == '\\':
			n := escape(p[i:])
			if n <= 0 {
				return i, f | escaped | verdict(n)
			}
			f |= escaped
			i += n
		case c < ' ':
			return i, f | bad
		case c < utf8.RuneSelf:
			i++
		default:
			f |= wide
			for i < len(p) && p[i] >= utf8.RuneSelf {
				_, n := utf8.DecodeRune(p[i:])
				if n == 1 { // no encoding has one byte
					if utf8.FullRune(p[i:]) {
						return i, f | bad
					}
					return i, f
				}
				i += n
			}
		}
	}
}

func verdict(n int) flags {
	if n < 0 {
		return bad
	}
	return 0
}

// escape is the length of the escape that p begins with: 0 when there is too little of it, -1 when there is none such.
// Half a surrogate pair is none: readers differ in what they take it for.
func escape(p []byte) int {
	if len(p) < 2 {
		return 0
	}
	switch p[1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 2
	case 'u':
	default:
		return -1
	}
	r, n := hex(p)
	if n <= 0 || !utf16.IsSurrogate(r) {
		return n
	}
	if r >= 0xdc00 {
		return -1
	}
	rest := p[6:]
	if len(rest) > 0 && rest[0] != '\\' || len(rest) > 1 && rest[1] != 'u' {
		return -1
	}
	low, n := hex(rest)
	switch {
	case n <= 0:
		return n
	case low < 0xdc00 || low > 0xdfff:
		return -1
	}
	return 12
}

// hex reads \uXXXX; its length is 6, 0 or -1.
func hex(p []byte) (rune, int) {
	var r rune
	for i := 2; i < 6; i++ {
		if i >= len(p) {
			return 0, 0
		}
		c := p[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c|0x20 && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, -1
		}
		r = r<<4 | rune(c)
	}
	return r, 6
}

// unescape appends what a part of a string stands for. It must have been read by scanString.
func unescape(dst, p []byte) []byte {
	for i := 0; i < len(p); {
		j := bytes.IndexByte(p[i:], '\\')
		if j < 0 {
			return append(dst, p[i:]...)
		}
		j += i
		dst = append(dst, p[i:j]...)
		i = j + 2
		switch c := p[j+1]; c {
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r, _ := hex(p[j:])
			i = j + 6
			if utf16.IsSurrogate(r) {
				low, _ := hex(p[i:])
				r = utf16.DecodeRune(r, low)
				i += 6
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, c)
		}
	}
	return dst
}

// quote appends text as it is written inside a string.
func quote(dst, text []byte) []byte {
	for len(text) > 0 {
		i := plainRun(text)
		dst = append(dst, text[:i]...)
		if i == len(text) {
			break
		}
		switch c := text[i]; c {
		case '"', '\\':
			dst = append(dst, '\\', c)
		case '\n':
			dst = append(dst, '\\', 'n')
		case '\r':
			dst = append(dst, '\\', 'r')
		case '\t':
			dst = append(dst, '\\', 't')
		default:
			const digits = "0123456789abcdef"
			dst = append(dst, '\\', 'u', '0', '0', digits[c>>4], digits[c&15])
		}
		text = text[i+1:]
	}
	return dst
}

// plainRun is how many bytes of text need no escape.
func plainRun(text []byte) int {
	i := 0
	for ; i+8 <= len(text); i += 8 {
		v := load(text[i:])
		q, s := v^quotes, v^slants
		if m := (((q - ones) &^ q) | ((s - ones) &^ s) | ((v - blanks) &^ v)) & highs; m != 0 {
			return i + bits.TrailingZeros64(m)>>3
		}
	}
	for ; i < len(text); i++ {
		if c := text[i]; c == '"' || c == '\\' || c < ' ' {
			return i
		}
	}
	return i
}

// scanLiteral reads a number, true, false or null from p[i:]. ok is false when there is none. It is sure when it is whole: a
// number ends where something else begins, so at the end of p it may go on, and at the end of all it is whole when its last
// byte is a digit.
func scanLiteral(p []byte, i int, eof bool) (j int, ok, sure bool) {
	word := ""
	switch p[i] {
	case 't':
		word = "true"
	case 'f':
		word = "false"
	case 'n':
		word = "null"
	default:
		j, ok = scanNumber(p, i)
		return j, ok, j < len(p) || eof && '0' <= p[j-1] && p[j-1] <= '9'
	}
	n := min(len(word), len(p)-i)
	return i + n, string(p[i:i+n]) == word[:n], n == len(word)
}

func scanNumber(p []byte, i int) (int, bool) {
	if p[i] == '-' {
		i++
	}
	switch {
	case i == len(p):
		return i, true
	case p[i] == '0':
		i++
	case '1' <= p[i] && p[i] <= '9':
		i = digits(p, i)
	default:
		return i, false
	}
	if i < len(p) && p[i] == '.' {
		i++
		j := digits(p, i)
		if j == i && j < len(p) {
			return i, false
		}
		i = j
	}
	if i < len(p) && p[i]|0x20 == 'e' {
		i++
		if i < len(p) && (p[i] == '+' || p[i] == '-') {
			i++
		}
		j := digits(p, i)
		if j == i && j < len(p) {
			return i, false
		}
		i = j
	}
	return i, true
}

func digits(p []byte, i int) int {
	for i < len(p) && '0' <= p[i] && p[i] <= '9' {
		i++
	}
	return i
}
