package mask

import (
	"encoding/base64"

	"sallyport/shared/detect"
)

// action is what becomes of the value at a node that begins with c.
func (s *scanner) action(n *node, c byte) action {
	switch n.act {
	case look:
		return s.usual
	case value:
		top := &s.stack[len(s.stack)-1]
		switch {
		case s.rules.config.Names == nil:
		case top.env&^told != harmless:
			return plain
		default:
			top.env |= told
		}
		return s.usual
	case scalar:
		if c == '{' || c == '[' {
			return look
		}
		return plain
	case mapping:
		if c == '{' {
			return look
		}
		return plain
	case helm1:
		if c != '"' {
			return look
		}
	}
	return n.act
}

// child is the value of a key of an object.
func (s *scanner) child(n *node, key []byte, f flags) *node {
	if f&(escaped|wide) == 0 && n.lens>>(len(key)&63)&1 == 0 {
		if n.named != nil && s.alike(key) {
			return n.named
		}
		return n.other
	}
	if f&escaped != 0 {
		s.text = unescape(s.text[:0], key)
		key = s.text
	}
	return n.child(key, s.alike)
}

// Names are matched by a regular expression, and the same few names come again and again.
const (
	mostNames   = 256
	longestName = 128
)

// alike says whether a name is that of a secret.
func (s *scanner) alike(name []byte) bool {
	if yes, ok := s.names[string(name)]; ok {
		return yes
	}
	yes := s.rules.config.Names != nil && s.rules.config.Names.Match(name)
	if len(name) <= longestName {
		if s.names == nil || len(s.names) == mostNames {
			s.names = make(map[string]bool)
		}
		s.names[string(name)] = yes
	}
	return yes
}

// forget forgets the namespace of an object, where another begins or it ends.
func (s *scanner) forget() {
	if !s.fixed {
		s.known = false
	}
}

// str deals with the string p[i:j], quotes and all, when it does not stay as it is. p[from:i] was not put out yet. It returns
// from where on p is to be put out.
func (s *scanner) str(act action, p []byte, from, i, j int, f flags) int {
	text := p[i+1 : j-1]
	if f&escaped != 0 {
		s.text = unescape(s.text[:0], text)
		text = s.text
	}
	switch act {
	case scope:
		if !s.fixed {
			s.ns, s.known = append(s.ns[:0], text...), true
		}
		return from
	case name, alias:
		top := &s.stack[len(s.stack)-1]
		switch {
		case s.alike(text):
			top.env |= secret
		case act == name:
			top.env |= harmless
		}
	case sentence:
		if told := s.rules.Text(string(text)); told != string(text) {
			s.put(p[from:i])
			s.quoted([]byte(told))
			return j
		}
		return from
	case object, helm1, helm2:
		s.put(p[from:i])
		s.embedded(act, text)
		return j
	}
	if act.masks() {
		s.put(p[from:i])
		s.masked(act, text)
		return j
	}
	if s.detect == nil || len(text) == 0 {
		return from
	}
	if spans := s.detect.Find(text); len(spans) > 0 {
		s.put(p[from:i])
		s.found(text, spans)
		return j
	}
	return from
}

// found puts out a string with a mask for every span.
func (s *scanner) found(text []byte, spans []detect.Span) {
	s.out = append(s.out, '"')
	done := 0
	for _, span := range spans {
		s.out = quote(s.out, text[done:span.Start])
		s.out = append(s.out, Constant...)
		done = span.End
	}
	s.out = append(quote(s.out, text[done:]), '"')
}

func (s *scanner) quoted(text []byte) {
	s.out = append(s.out, '"')
	s.out = append(quote(s.out, text), '"')
}

// long begins a string that does not stay as it is, and comes in parts.
func (s *scanner) long(act action) {
	s.act = act
	switch {
	case act == object || act == helm1 || act == helm2:
		s.mode, s.hold = held, s.hold[:0]
	case act.masks() || act == sentence:
		s.mode = hashed
		s.begin(act)
	case s.detect == nil:
		s.mode = windowed
		s.out = append(s.out, '"')
	default:
		s.mode = windowed
		s.out = append(s.out, '"')
		s.stream = s.detect.Stream(func(b []byte) error { s.out = quote(s.out, b); return nil })
	}
	switch act {
	case name, alias:
		s.stack[len(s.stack)-1].env |= secret // it is no name that could be looked at
	case scope:
		s.forget()
	}
}

// part takes the next part of a long string.
func (s *scanner) part(p []byte, f flags) {
	if f&escaped != 0 {
		s.text = unescape(s.text[:0], p)
		p = s.text
	}
	switch s.mode {
	case held:
		limit := maxObject
		if s.act != object {
			limit = maxHelm
		}
		if len(s.hold)+len(p) <= limit {
			s.hold = append(s.hold, p...)
			return
		}
		s.mode = hashed // nobody looks into it
		s.begin(s.act)
		s.add(s.hold)
		s.add(p)
	case hashed:
		s.add(p)
	case windowed:
		if s.stream == nil {
			s.out = quote(s.out, p)
			return
		}
		// The detectors get it in pieces of one size, so that what they see does not depend on how it came.
		for len(p) > 0 {
			n := min(piece-len(s.window), len(p))
			s.window = append(s.window, p[:n]...)
			p = p[n:]
			if len(s.window) == piece {
				s.look()
			}
		}
	}
}

const piece = 16 << 10

func (s *scanner) look() {
	_, _ = s.stream.Write(s.window) // its errors are those of its emit, which has none
	s.window = s.window[:0]
}

// whole ends a long string.
func (s *scanner) whole() {
	switch s.mode {
	case held:
		s.embedded(s.act, s.hold)
	case hashed:
		s.end()
	case windowed:
		if s.stream != nil {
			s.look()
			_ = s.stream.Flush()
			s.stream = nil
		}
		s.out = append(s.out, '"')
	}
}

// masked puts out the mask of a value.
func (s *scanner) masked(act action, v []byte) {
	s.out = append(s.out, '"')
	s.out = append(s.out, s.mark(act, v)...)
	s.out = append(s.out, '"')
}

// mark is the mask of a value. It is valid until the next.
func (s *scanner) mark(act action, v []byte) []byte {
	if !s.keyed(act) {
		return constant(act)
	}
	if base64ed(act) {
		v = s.words.decoded(v)
	}
	s.masking = s.words.plain(s.masking[:0], s.ns, v)
	return s.form(act)
}

// keyed says whether masks are keyed for now.
func (s *scanner) keyed(act action) bool {
	if s.key == nil || !s.known || act == sentence {
		return false
	}
	if s.words == nil {
		s.words = newWords(s.key)
		s.words.elsewhere = !s.rules.secrets()
	}
	return true
}

// begin begins a value that is masked and comes in parts, for add, until end puts out the mask.
func (s *scanner) begin(act action) {
	s.act = act
	if s.hashing = s.keyed(act); s.hashing {
		s.words.begin(s.ns)
	}
}

func (s *scanner) add(p []byte) {
	if s.hashing {
		s.words.add(p)
	}
}

func (s *scanner) end() {
	mark := constant(s.act)
	if s.hashing {
		s.masking = s.words.end(s.masking[:0], base64ed(s.act))
		mark = s.form(s.act)
	}
	s.out = append(s.out, '"')
	s.out = append(s.out, mark...)
	s.out = append(s.out, '"')
}

// base64ed says whether base64 is expected at a place.
func base64ed(act action) bool { return act == encoded || act == helm2 }

// form is the mask that was made, as base64 where that is expected.
func (s *scanner) form(act action) []byte {
	if !base64ed(act) {
		return s.masking
	}
	n := len(s.masking)
	s.masking = base64.StdEncoding.AppendEncode(s.masking, s.masking)
	return s.masking[n:]
}

var constantPlain, constantEncoded = []byte(Constant), []byte(encodedConstant)

func constant(act action) []byte {
	if base64ed(act) {
		return constantEncoded
	}
	return constantPlain
}
