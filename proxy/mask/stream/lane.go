package stream

import (
	"time"

	"sallyport/shared/access"
	"sallyport/shared/detect"
)

// A scanner takes text in pieces and emits it with the secrets masked.
type scanner interface {
	Write(p []byte) (int, error)
	// Flush emits what is held back.
	Flush() error
	// Pending is how many bytes of what was written are held back: what was emitted stands for all before them.
	Pending() int
}

// A lane is one channel of a stream.
type lane struct {
	id     byte
	op     byte // of what came last
	open   func() scanner
	scan   scanner // nil until something came: most commands write nothing to stderr
	out    []byte  // emitted, and not yet put where it belongs
	in     int     // bytes written
	done   int     // bytes of them that are no longer held back
	forced int     // bytes of them that were flushed

	silent, age time.Duration // waited since something came, and since something went

	raw   bool // turned out not to be text
	block bool // is refused then
	sniff sniffer
}

func newLane(set *detect.Set) *lane {
	l := &lane{}
	l.open = func() scanner { return set.Stream(l.emit) }
	return l
}

func (l *lane) emit(p []byte) error {
	l.out = append(l.out, p...)
	return nil
}

func (l *lane) held() bool { return l.done < l.in }

// write takes what came on the channel.
func (l *lane) write(p []byte) error {
	l.in += len(p)
	l.silent = 0
	if l.raw {
		return l.emit(p)
	}
	if l.scan == nil {
		l.scan = l.open()
	}
	_, err := l.scan.Write(p)
	return err
}

// pass takes what came on a channel that may carry something else than text.
func (l *lane) pass(p []byte) error {
	if l.raw {
		return l.write(p)
	}
	n, binary := l.sniff.look(p, l.block)
	if err := l.write(p[:n]); err != nil || !binary {
		return err
	}
	if l.block {
		return errBinary()
	}
	if err := l.flush(); err != nil {
		return err
	}
	l.raw = true
	return l.write(p[n:])
}

// flush emits what is held back.
func (l *lane) flush() error {
	l.forced = l.in
	if l.scan == nil {
		return nil
	}
	return l.scan.Flush()
}

// consumed says how far the input is no longer held back.
func (l *lane) consumed() int {
	if l.raw || l.scan == nil {
		return l.in
	}
	return max(l.forced, l.in-l.scan.Pending())
}

// settled is called when out was put where it belongs.
func (l *lane) settled() {
	if now := l.consumed(); now != l.done {
		l.done, l.age = now, 0
	}
	l.out = l.out[:0]
}

func errBinary() error {
	return access.Errorf(access.Denied, "the output is not text, so secrets in it cannot be masked, and the policy refuses that here")
}
