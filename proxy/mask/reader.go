package mask

import (
	"io"
	"sync"
)

const inSize = 64 << 10 // twice what can be left of a read

// buffers are what one body needs, for the next.
type buffers struct {
	in [inSize]byte
	scanner
}

var pool = sync.Pool{New: func() any { return new(buffers) }}

type reader struct {
	src io.Reader
	*buffers
	start, end int   // of what is in in
	given      int   // of out
	full       bool  // out was full before all of in was scanned
	err        error // of src
	failed     error // what this reader ended with
}

func newReader(r *Rules, src io.Reader, key []byte) *reader {
	b := pool.Get().(*buffers)
	b.reset(r, key)
	return &reader{src: src, buffers: b}
}

// Read gives what is known to be safe of one read of the source, as soon as there is any.
func (r *reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for r.failed == nil {
		if r.given < len(r.out) {
			n := copy(p, r.out[r.given:])
			r.given += n
			return n, nil
		}
		r.out, r.given = r.out[:0], 0
		if err := r.next(); err != nil {
			r.close(err)
		}
	}
	return 0, r.failed
}

// next scans what is there, and reads more where that is all used.
func (r *reader) next() error {
	if !r.full {
		if r.err != nil {
			return r.err // io.EOF: a whole body was read
		}
		if err := r.fetch(); err != nil {
			return err
		}
	}
	n, err := r.scan(r.in[r.start:r.end], r.err == io.EOF) //nolint:errorlint // a wrapped io.EOF is no end of a body
	r.start += n
	r.full = r.start < r.end && len(r.out) >= r.limit
	return err
}

// fetch reads the source once.
func (r *reader) fetch() error {
	// What is left is at most half of in. It is moved when there is little room behind it, not at every read: a string may
	// come byte by byte.
	if r.start == r.end || len(r.in)-r.end < inSize/4 {
		r.end, r.start = copy(r.in[:], r.in[r.start:r.end]), 0
	}
	for range 100 {
		var n int
		n, r.err = r.src.Read(r.in[r.end:])
		if r.end += n; n > 0 || r.err != nil {
			return nil
		}
	}
	return io.ErrNoProgress
}

// close ends the reader and gives its buffers back.
func (r *reader) close(err error) {
	b := r.buffers
	r.failed, r.buffers, r.src = err, nil, nil
	b.shrink()
	b.scanner = scanner{out: b.out, stack: b.stack, text: b.text, window: b.window, hold: b.hold, names: b.names, namesOf: b.namesOf, nested: b.nested}
	pool.Put(b)
}

// shrink lets go of what one large object took.
func (s *scanner) shrink() {
	if cap(s.out) > 4*outLimit {
		s.out = nil
	}
	if cap(s.hold) > 2*outLimit || cap(s.text) > 2*outLimit {
		s.hold, s.text = nil, nil
	}
	if s.nested != nil {
		s.nested.shrink()
		s.nested.rules, s.nested.key, s.nested.words, s.nested.detect = nil, nil, nil, nil
	}
}
