package detect

// piece is how much of what is written is looked at at once.
const piece = 32 << 10

// A Stream masks text that comes in pieces. What it lets out does not depend on how the text was cut, as long as nothing
// is flushed. Not for concurrent use.
type Stream struct {
	emit func([]byte) error
	scan *scan
	buf  []byte // the text from base on, as far as it is needed
	base int
	out  int // what is before went out
	mark int // the end of the last mask that went out
	text []byte
	err  error
}

// Stream gives what is written to it to emit, masked. The slice is only valid during the call. An error of emit is returned
// by the call that ran into it and by all that follow.
func (s *Set) Stream(emit func([]byte) error) *Stream {
	return &Stream{emit: emit, scan: newScan(s), mark: -1}
}

// Write takes the next piece of text. What may be the beginning of a secret is held back, never more than 8 KiB.
func (s *Stream) Write(p []byte) (int, error) {
	n := 0
	for s.err == nil && n < len(p) {
		next := p[n:min(len(p), n+piece)]
		n += len(next)
		s.buf = append(s.buf, next...)
		safe := s.scan.advance(window{b: s.buf, base: s.base})
		s.scan.spans = merge(s.scan.spans)
		s.release(safe)
		s.trim()
	}
	return n, s.err
}

// Pending is how many bytes are held back. Who must not wait longer calls Flush.
func (s *Stream) Pending() int { return s.base + len(s.buf) - s.out }

// Flush lets out what is held back as if the text ended here: what would be a secret then is masked, what is only the
// beginning of one goes out. More may be written. When a secret goes on behind what was let out the rest of it is masked.
func (s *Stream) Flush() error {
	if s.err != nil || s.Pending() == 0 {
		return s.err
	}
	// The end is only tried: the scan itself goes on from where it was.
	end := s.scan.set.scans.Get().(*scan)
	end.follows(s.scan)
	end.advance(window{b: s.buf, base: s.base, last: true})
	s.scan.spans = merge(append(s.scan.spans, end.spans...))
	end.reset()
	s.scan.set.scans.Put(end)
	s.release(s.base + len(s.buf))
	s.trim()
	return s.err
}

// follows makes s, which is new, go on where other is.
func (s *scan) follows(other *scan) {
	s.looked = other.looked
	for _, i := range other.active {
		r, from := &s.runs[i], &other.runs[i]
		r.threads = append(r.threads[:0], from.threads...)
		r.matches = append(r.matches[:0], from.matches...)
		r.starts = append(r.starts[:0], from.starts[from.first:]...)
		r.pos, r.first = from.pos, 0
		s.active = append(s.active, i)
	}
}

// release lets out what is before safe, and what is masked already.
func (s *Stream) release(safe int) {
	spans := s.scan.spans
	for _, n := range spans {
		if n.Start <= safe {
			safe = max(safe, n.End)
		}
	}
	if safe <= s.out {
		return
	}
	text := s.buf[s.out-s.base : safe-s.base]
	if len(spans) > 0 && spans[0].Start < safe {
		text = s.text[:0]
		for len(spans) > 0 && spans[0].Start < safe {
			n := spans[0]
			spans = spans[1:]
			if n.End <= s.out {
				continue
			}
			if n.Start > s.out {
				text = append(text, s.buf[s.out-s.base:n.Start-s.base]...)
				s.out = n.Start
			}
			if s.mark != s.out {
				text = append(text, Mark...)
			}
			s.mark, s.out = n.End, n.End
		}
		text = append(text, s.buf[s.out-s.base:safe-s.base]...)
		s.text = text
		s.scan.spans = append(s.scan.spans[:0], spans...)
	}
	s.out = safe
	if len(text) > 0 {
		s.err = s.emit(text)
	}
}

// trim forgets what is not needed again.
func (s *Stream) trim() {
	if n := min(s.out, s.scan.keep()) - s.base; n > 0 {
		s.buf = append(s.buf[:0], s.buf[n:]...)
		s.base += n
	}
}
