package hostnode

import (
	"io"
	"sync"
)

// A fanout hands a container's output to everybody attached. Output that comes
// while nobody is attached is in the log only. A slow reader slows the
// container, as it does in a real one: what was attached misses nothing.
type fanout struct {
	mu     sync.Mutex
	to     map[*subscription]bool
	closed bool
}

// A chunk is output of one stream.
type chunk struct {
	stream string
	data   []byte
}

type subscription struct {
	chunks chan chunk
	gone   chan struct{} // closed by the subscriber
}

func (f *fanout) writer(stream string) io.Writer { return fanoutWriter{f, stream} }

type fanoutWriter struct {
	f      *fanout
	stream string
}

func (w fanoutWriter) Write(p []byte) (int, error) {
	w.f.mu.Lock()
	subs := make([]*subscription, 0, len(w.f.to))
	for s := range w.f.to {
		subs = append(subs, s)
	}
	w.f.mu.Unlock()
	if len(subs) > 0 {
		c := chunk{w.stream, append([]byte(nil), p...)}
		for _, s := range subs {
			select {
			case s.chunks <- c:
			case <-s.gone:
			}
		}
	}
	return len(p), nil
}

// subscribe starts to listen. The subscriber closes gone when it leaves, and
// sees chunks closed when the output ends.
func (f *fanout) subscribe() (*subscription, func()) {
	s := &subscription{chunks: make(chan chunk, 64), gone: make(chan struct{})}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		close(s.chunks)
		return s, func() {}
	}
	if f.to == nil {
		f.to = map[*subscription]bool{}
	}
	f.to[s] = true
	return s, func() {
		close(s.gone)
		f.mu.Lock()
		delete(f.to, s)
		f.mu.Unlock()
	}
}

// close ends all subscriptions. No writer may be at work any more.
func (f *fanout) close() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	for s := range f.to {
		close(s.chunks)
	}
	f.to = nil
}
