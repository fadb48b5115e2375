// Package stream masks secrets in what runs rather than stands: pod logs, and the output of exec and attach as the
// WebSocket frames that carry it.
//
// It promises, of output that the detectors of package detect know: a secret is found however it is cut, over reads,
// frames, fragments of a message and messages, and is replaced by the constant [masked], which tells nothing about it and
// cannot be compared with a guess. Output that holds no secret reaches the caller byte for byte on the channel it was sent
// on. What may be the beginning of a secret is held back, a few KiB at most, and goes out when its channel was silent
// for a tenth of a second, so a prompt appears and a caller waits for nothing; when it was one, the rest of it is masked
// still. All memory is bounded, whatever is sent.
//
// It promises that to people whose agent prints what it should not see: a config file, its environment, a log with a
// connection string. It does not promise it against an agent that means to see: who may run a command in a container may
// encode what it prints, print it slower than anyone waits, or print a NUL first, and no reading of the output changes
// that. What such an agent reaches is the container's own secrets, so who may exec where is the policy's to say, and
// policy may refuse output that is not text. Nor does it promise anything about input, which is not looked at, and about
// streams that are left alone: copies with tar, and port-forward.
//
// The frames come from the cluster, and are not trusted for that: whatever is not the protocol ends the stream with an
// error, because a reader that guesses and a client that guesses may guess differently.
package stream

import (
	"io"
	"sync"
	"time"

	"sallyport/shared/detect"
)

// Delay is how long a channel is silent before what is held back of it goes out.
const Delay = 100 * time.Millisecond

// patience times the delay is the longest that bytes are held back on a channel that is not silent: one that brings a
// byte now and then, and each may still belong to a secret.
const patience = 10

// chunkSize is how much is read at once: a TLS record's worth.
const chunkSize = 16 << 10

// Log masks the text of a pod's log. What is held back goes out after Delay of silence, at the end, and before an error.
// A log has one reader at a time; Close may be called at any time, and ends a Read that waits. The result has another
// length than src, so a Content-Length must not be passed on.
func Log(src io.ReadCloser, set *detect.Set) io.ReadCloser {
	l := &text{lane: newLane(set)}
	return newFlow(src, l, []*lane{l.lane}, Delay)
}

// LogPart is Log for the beginning of a log, as long as the caller wants it: it is the caller who says where a secret is cut
// off, and so what no detector knows any more. What is held back never goes out then, and a mask stands for it.
func LogPart(src io.ReadCloser, set *detect.Set) io.ReadCloser {
	l := &text{lane: newLane(set), part: true}
	return newFlow(src, l, []*lane{l.lane}, never)
}

// never is longer than any log is read.
const never = 1000 * time.Hour

// text is a stream of one channel, without frames.
type text struct {
	lane *lane
	out  *[]byte
	part bool // the caller chose where it ends
}

func (t *text) into(out *[]byte) { t.out = out }

func (t *text) feed(p []byte) error {
	err := t.lane.write(p)
	t.settle()
	return err
}

func (t *text) flush(l *lane) error {
	err := l.flush()
	t.settle()
	return err
}

func (t *text) settle() {
	*t.out = append(*t.out, t.lane.out...)
	t.lane.settled()
}

func (t *text) end(err error) error {
	if t.part {
		if t.lane.held() {
			*t.out = append(*t.out, detect.Mark...)
		}
		return err
	}
	if e := t.flush(t.lane); e != nil {
		return e
	}
	return err
}

func (t *text) full() bool { return false }

// A machine is what a flow runs: it takes what came and says what may go out.
type machine interface {
	// into says where output is appended.
	into(out *[]byte)
	// feed takes what was read. An error is the end: what was appended with it still goes out.
	feed(p []byte) error
	// flush lets go what a lane holds back.
	flush(l *lane) error
	// end takes the end of the source, and returns what the reader is told.
	end(err error) error
	// full says that as much waits for a lane to let go as is kept: nothing is read until it does.
	full() bool
}

// A flow runs a machine over a source: it reads, and watches the clock for what is held back.
//
// Silence is time spent waiting for the source. Time that a slow caller spends elsewhere is none: the rest of a secret
// may have come meanwhile, and the half of it must not go out for want of a look.
type flow struct {
	src     io.ReadCloser
	machine machine
	lanes   []*lane
	delay   time.Duration

	start, stop sync.Once
	chunks      chan chunk
	done        chan struct{}
	timer       *time.Timer

	out []byte // what may go out
	at  int    // how much of it went
	err error  // what follows it
}

type chunk struct {
	b   []byte
	err error
}

func newFlow(src io.ReadCloser, m machine, lanes []*lane, delay time.Duration) *flow {
	f := &flow{src: src, machine: m, lanes: lanes, delay: delay, chunks: make(chan chunk), done: make(chan struct{})}
	m.into(&f.out)
	return f
}

// pump reads ahead by one chunk. A chunk is taken only when the one before is done with, so two buffers are enough.
func (f *flow) pump() {
	var buffers [2][chunkSize]byte
	for i := 0; ; i ^= 1 {
		n, err := f.src.Read(buffers[i][:])
		if n == 0 && err == nil {
			continue
		}
		select {
		case f.chunks <- chunk{buffers[i][:n], err}:
		case <-f.done:
			return
		}
		if err != nil {
			return
		}
	}
}

func (f *flow) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for f.at == len(f.out) {
		if f.err != nil {
			return 0, f.err
		}
		f.out, f.at = f.out[:0], 0
		f.step()
	}
	n := copy(p, f.out[f.at:])
	f.at += n
	return n, nil
}

// Close ends the stream and the source.
func (f *flow) Close() error {
	f.stop.Do(func() { close(f.done) })
	return f.src.Close()
}

// step waits for whatever comes first: something read, or a lane that was silent for long enough.
func (f *flow) step() {
	f.start.Do(func() { go f.pump() })
	ready := f.chunks
	if f.machine.full() {
		ready = nil
	}
	select { // what is there comes before what is late
	case c := <-ready:
		f.take(c)
		return
	case <-f.done:
		f.err = io.ErrClosedPipe
		return
	default:
	}
	var late <-chan time.Time
	var began time.Time
	if wait, held := f.wait(); held {
		if f.timer == nil {
			f.timer = time.NewTimer(wait)
		} else {
			f.timer.Reset(wait)
		}
		defer f.timer.Stop()
		late, began = f.timer.C, time.Now()
	}
	select {
	case c := <-ready:
		f.waited(time.Since(began))
		f.take(c)
	case <-late:
		f.waited(time.Since(began))
		f.release()
	case <-f.done:
		f.err = io.ErrClosedPipe
	}
}

func (f *flow) take(c chunk) {
	if len(c.b) > 0 {
		f.err = f.machine.feed(c.b)
	}
	if f.err == nil && c.err != nil {
		f.err = f.machine.end(c.err)
	}
	if f.err == nil {
		f.release() // what was late already, when something came on another channel
	}
}

// wait says how long until the first lane is late.
func (f *flow) wait() (d time.Duration, held bool) {
	for _, l := range f.lanes {
		if l.held() {
			if left := min(f.delay-l.silent, patience*f.delay-l.age); !held || left < d {
				d, held = left, true
			}
		}
	}
	return max(d, 0), held
}

func (f *flow) waited(d time.Duration) {
	for _, l := range f.lanes {
		if l.held() {
			l.silent += d
			l.age += d
		}
	}
}

// release lets the lanes that are late go.
func (f *flow) release() {
	for _, l := range f.lanes {
		if l.held() && (l.silent >= f.delay || l.age >= patience*f.delay) {
			if err := f.machine.flush(l); err != nil {
				f.err = err
				return
			}
		}
	}
}
