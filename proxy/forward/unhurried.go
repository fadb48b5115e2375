package forward

import (
	"net/http"
	"sync"
	"time"
)

// late is how long what was written waits for more, before it is flushed. A small answer is over sooner.
const late = 250 * time.Microsecond

// unhurried is the caller of an answer that has an end. It is flushed when late, and not after every write: an answer that is
// over by then goes out in one piece, and a large one without a record of TLS for the last bytes of each piece. Where the
// cluster pauses in the middle, nothing that it said is kept back.
type unhurried struct {
	http.ResponseWriter
	mu    sync.Mutex
	timer *time.Timer
	armed bool // the timer runs
	ended bool
}

// Unwrap lets http.ResponseController set deadlines.
func (u *unhurried) Unwrap() http.ResponseWriter { return u.ResponseWriter }

func (u *unhurried) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.ResponseWriter.Write(p)
}

// FlushError is called after every Write, and for a header alone. What it asks for comes in time.
func (u *unhurried) FlushError() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.armed || u.ended:
		return nil
	case u.timer == nil:
		u.timer = time.AfterFunc(late, u.flush)
	default:
		u.timer.Reset(late)
	}
	u.armed = true
	return nil
}

func (u *unhurried) flush() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.armed = false
	if !u.ended {
		_ = http.NewResponseController(u.ResponseWriter).Flush() // the next Write says why not
	}
}

// end is called before the handler returns; nothing may be flushed after that.
func (u *unhurried) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	if u.timer != nil {
		u.timer.Stop()
	}
}
