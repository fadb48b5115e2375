package stream

import (
	"bytes"
	"encoding/json"

	"sallyport/shared/detect"
)

// maxStatus is how much of the error channel is kept until it is a whole Status. Real ones are a few hundred bytes.
const maxStatus = 32 << 10

// status masks the error channel. From version 4 of the protocol it carries one Status as JSON, and what is masked in it
// must leave it one: its strings are masked each by itself, as they read and not as they are written. What is no JSON
// object, as before version 4, is text.
type status struct {
	set  *detect.Set
	emit func([]byte) error
	text scanner // once it is no Status

	plain   bool // is no Status: text from here on
	held    []byte
	depth   int
	quoted  bool
	escaped bool
}

func (s *status) Write(p []byte) (int, error) {
	for i, b := range p {
		if !s.plain && len(s.held) == 0 && b != '{' && b != ' ' && b != '\n' || len(s.held) == maxStatus {
			if err := s.give(); err != nil {
				return i, err
			}
		}
		if s.plain {
			n, err := s.text.Write(p[i:])
			return i + n, err
		}
		s.held = append(s.held, b)
		if s.next(b) {
			if err := s.whole(); err != nil {
				return i, err
			}
		}
	}
	return len(p), nil
}

// next follows the nesting, and says when an object is complete.
func (s *status) next(b byte) bool {
	switch {
	case s.escaped:
		s.escaped = false
	case s.quoted && b == '\\':
		s.escaped = true
	case b == '"':
		s.quoted = !s.quoted
	case s.quoted:
	case b == '{' || b == '[':
		s.depth++
	case b == '}' || b == ']':
		s.depth--
		return s.depth <= 0
	}
	return false
}

// whole emits an object that is complete.
func (s *status) whole() error {
	if !json.Valid(s.held) {
		return s.give()
	}
	b := s.masked(s.held)
	s.reset()
	return s.emit(b)
}

// give emits what is held as text, and takes the rest for text.
func (s *status) give() error {
	if !s.plain {
		s.plain, s.text = true, s.set.Stream(s.emit)
	}
	_, err := s.text.Write(s.held)
	s.reset()
	return err
}

func (s *status) reset() {
	s.held, s.depth, s.quoted, s.escaped = s.held[:0], 0, false, false
}

// masked is a JSON value with the secrets in its strings masked. All else of it stays byte for byte.
func (s *status) masked(b []byte) []byte {
	var out []byte
	for {
		i := bytes.IndexByte(b, '"')
		if i < 0 {
			return append(out, b...)
		}
		out, b = append(out, b[:i]...), b[i:]
		n := 1
		for ; b[n] != '"'; n++ {
			if b[n] == '\\' {
				n++
			}
		}
		out, b = append(out, s.quote(b[:n+1])...), b[n+1:]
	}
}

func (s *status) quote(literal []byte) []byte {
	var text string
	if json.Unmarshal(literal, &text) != nil {
		return literal // not reached: it is valid
	}
	masked := s.set.Mask([]byte(text))
	if string(masked) == text {
		return literal
	}
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(string(masked)) // a string always can
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

func (s *status) Flush() error {
	if len(s.held) > 0 {
		if err := s.give(); err != nil {
			return err
		}
	}
	if !s.plain {
		return nil
	}
	return s.text.Flush()
}

func (s *status) Pending() int {
	if s.plain {
		return s.text.Pending()
	}
	return len(s.held)
}
