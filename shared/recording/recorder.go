package recording

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
)

// Config is what a Recorder is made of. Zero fields take the defaults given.
type Config struct {
	Store Store
	// Task names this process in keys: letters, digits and -, at most 64, and never the same for two processes.
	Task string
	// Now is the clock of the keys; time.Now by default.
	Now func() time.Time
	// MaxAge is how long an event waits for company before its segment is stored; 1 s.
	MaxAge time.Duration
	// Linger is the same for events of AppendDurable, whose callers wait; 5 ms.
	Linger time.Duration
	// MaxSegment is how many bytes, before compression, fill a segment; 1 MiB.
	MaxSegment int
	// MaxBuffered is how many bytes of events not yet stored are held before Append waits; 64 MiB.
	MaxBuffered int
	// Uploads is how many segments are stored at once; 64.
	Uploads int
	// Timeout bounds one attempt to store a segment; 10 s.
	Timeout time.Duration
	// MaxFailing is how long a segment may fail to be stored before the recorder refuses events; 30 s.
	MaxFailing time.Duration
	// Log hears when storing begins to fail and when it is well again; nothing by default.
	Log *slog.Logger
}

// Attempts to store a segment are apart by a delay that doubles from minBackoff to maxBackoff.
const (
	minBackoff = 100 * time.Millisecond
	maxBackoff = 2 * time.Second
)

// A Recorder batches events into segments, one open segment a stream, and stores them. It is for many goroutines at
// once. A stream costs nothing while it has no event to store; segments share the few goroutines that store them.
type Recorder struct {
	cfg     Config
	encoder *zstd.Encoder // EncodeAll only: it pools encoders itself
	lines   sync.Pool     // *bytes.Buffer
	buffers sync.Pool     // *[]byte
	ctx     context.Context
	cancel  context.CancelFunc // ends what stores segments

	mu       sync.Mutex
	open     map[Stream]*segment
	sealed   []*segment // waiting to be stored, oldest first
	urgent   []*segment // the same, for those that somebody waits for: they go first
	storing  int        // goroutines that store
	failing  map[*segment]time.Time
	lastErr  error         // why the last failed attempt failed
	tripped  chan struct{} // closed while the store has been failing for too long
	trip     *time.Timer
	changed  chan struct{} // closed, and made anew, when room was made or the recorder was closed
	waiting  int           // goroutines that look at changed
	buffered int           // bytes held
	events   int           // events held
	seq      uint64
	last     time.Time // the time in the last key
	closed   bool
}

type segment struct {
	stream  Stream
	prefix  string
	opened  time.Time // in the key
	lines   []byte
	events  int
	timer   *time.Timer
	urgent  bool
	sealed  bool
	durable chan struct{} // closed when stored; nil when nobody waits
}

// New returns a Recorder. The caller ends it with Close.
func New(cfg Config) (*Recorder, error) {
	if cfg.Store == nil {
		return nil, access.Errorf(access.Invalid, "recording: a recorder needs a store")
	}
	if !validTask(cfg.Task) {
		return nil, access.Errorf(access.Invalid, "recording: %q cannot name a task: letters, digits and -, at most 64", cfg.Task)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&cfg.MaxAge, time.Second)
	orDefault(&cfg.Linger, 5*time.Millisecond)
	orDefault(&cfg.MaxSegment, 1<<20)
	orDefault(&cfg.MaxBuffered, 64<<20)
	orDefault(&cfg.Uploads, 64)
	orDefault(&cfg.Timeout, 10*time.Second)
	orDefault(&cfg.MaxFailing, 30*time.Second)
	if cfg.MaxSegment > maxSegment-maxEvent || cfg.MaxBuffered < maxEvent {
		return nil, access.Errorf(access.Invalid, "recording: a segment has at most %d bytes and a buffer at least %d", maxSegment-maxEvent, maxEvent)
	}
	encoder, err := zstd.NewWriter(nil, zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("making a zstd encoder: %w", err)
	}
	r := &Recorder{
		cfg:     cfg,
		encoder: encoder,
		lines:   sync.Pool{New: func() any { return new(bytes.Buffer) }},
		buffers: sync.Pool{New: func() any { b := make([]byte, 0, 4<<10); return &b }},
		open:    map[Stream]*segment{},
		failing: map[*segment]time.Time{},
		tripped: make(chan struct{}),
		changed: make(chan struct{}),
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r, nil
}

func orDefault[N int | time.Duration](n *N, value N) {
	if *n <= 0 {
		*n = value
	}
}

// Append accepts ev for the stream and returns; it is stored within about Config.MaxAge. ev may be used again.
//
// While Config.MaxBuffered is full Append waits for room until ctx ends; ctx does not matter when there is room, so an
// event can be appended after its request was cancelled. An error of kind [access.Unavailable] means that the event was
// not accepted and that nothing else should happen either.
func (r *Recorder) Append(ctx context.Context, stream Stream, ev *auditv1.Event) error {
	_, err := r.append(ctx, stream, ev, false)
	return err
}

// AppendDurable is Append that returns when the event is stored. Events appended within Config.Linger share a segment.
// After an error the event may be stored all the same, now or later: it is then the record of something that the caller
// did not go on to do.
func (r *Recorder) AppendDurable(ctx context.Context, stream Stream, ev *auditv1.Event) error {
	seg, err := r.append(ctx, stream, ev, true)
	if err != nil {
		return err
	}
	r.mu.Lock()
	tripped := r.tripped
	r.mu.Unlock()
	select {
	case <-seg.durable:
		return nil
	case <-tripped:
		err = errCannotRecord(nil)
	case <-r.ctx.Done():
		err = errClosed()
	case <-ctx.Done():
		err = unavailable("the record of this request could not be stored in time; nothing was forwarded", ctx.Err())
	}
	select {
	case <-seg.durable: // both were so
		return nil
	default:
		return err
	}
}

func (r *Recorder) append(ctx context.Context, stream Stream, ev *auditv1.Event, durable bool) (*segment, error) {
	line := r.lines.Get().(*bytes.Buffer)
	defer r.lines.Put(line)
	line.Reset()
	if err := json.NewEncoder(line).Encode(ev); err != nil { // one line: JSON has no newline of its own here
		return nil, access.Errorf(access.Internal, "recording: the event cannot be encoded").Because(err)
	}
	if line.Len() > maxEvent {
		return nil, access.Errorf(access.Invalid, "recording: an event of %d bytes is more than can be recorded (%d)", line.Len(), maxEvent)
	}

	if stream.Session == "" && !validCluster(stream.Cluster) {
		stream.Cluster = "" // one stream for all of them
	}

	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		if r.closed {
			return nil, errClosed()
		}
		if err := r.healthy(); err != nil {
			return nil, err
		}
		if r.buffered+line.Len() <= r.cfg.MaxBuffered {
			break
		}
		if err := r.wait(ctx); err != nil {
			return nil, unavailable("the gate records more slowly than requests arrive; nothing was forwarded", err)
		}
	}
	seg := r.open[stream]
	if seg != nil && len(seg.lines)+line.Len() > r.cfg.MaxSegment {
		r.seal(seg)
		seg = nil
	}
	if seg == nil {
		var err error
		if seg, err = r.begin(stream); err != nil {
			return nil, err
		}
	}
	seg.lines = append(seg.lines, line.Bytes()...)
	seg.events++
	r.events++
	r.buffered += line.Len()
	if durable && seg.durable == nil {
		seg.durable = make(chan struct{})
	}
	switch {
	case len(seg.lines) >= r.cfg.MaxSegment:
		r.seal(seg)
	case durable && !seg.urgent:
		seg.urgent = true
		if seg.timer.Stop() { // else it fires already
			seg.timer.Reset(min(r.cfg.Linger, r.cfg.MaxAge))
		}
	}
	return seg, nil
}

// wait gives up mu until something changed, the recorder tripped, or ctx ended.
func (r *Recorder) wait(ctx context.Context) error {
	changed, tripped := r.changed, r.tripped
	r.waiting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiting--
	}()
	select {
	case <-changed:
		return nil
	case <-tripped:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wake tells those who wait to look again. mu is held.
func (r *Recorder) wake() {
	if r.waiting > 0 {
		close(r.changed)
		r.changed = make(chan struct{})
	}
}

// begin opens a segment. mu is held.
func (r *Recorder) begin(stream Stream) (*segment, error) {
	// Names of one recorder are in the order of its segments even when the clock is set back.
	now := r.cfg.Now()
	if !now.After(r.last) {
		now = r.last.Add(time.Nanosecond)
	}
	prefix, err := stream.prefix(now)
	if err != nil {
		return nil, err
	}
	r.last = now
	seg := &segment{stream: stream, prefix: prefix, opened: now, lines: *r.buffers.Get().(*[]byte)}
	seg.timer = time.AfterFunc(r.cfg.MaxAge, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.seal(seg)
	})
	r.open[stream] = seg
	return seg, nil
}

// seal ends a segment and has it stored. mu is held.
func (r *Recorder) seal(seg *segment) {
	if seg.sealed {
		return
	}
	seg.sealed = true
	seg.timer.Stop()
	delete(r.open, seg.stream)
	if seg.durable != nil {
		r.urgent = append(r.urgent, seg)
	} else {
		r.sealed = append(r.sealed, seg)
	}
	if r.storing < r.cfg.Uploads {
		r.storing++
		go r.storeSealed()
	}
}

// storeSealed stores segments until none is left.
func (r *Recorder) storeSealed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.urgent)+len(r.sealed) > 0 && r.ctx.Err() == nil {
		queue := &r.urgent
		if len(*queue) == 0 {
			queue = &r.sealed
		}
		seg := (*queue)[0]
		(*queue)[0] = nil
		*queue = (*queue)[1:]
		r.mu.Unlock()
		r.store(seg)
		r.mu.Lock()
	}
	r.storing--
}

// store stores one segment, however long that takes; it gives up only when the recorder's context ends.
func (r *Recorder) store(seg *segment) {
	body := r.encoder.EncodeAll(seg.lines, nil)
	r.mu.Lock()
	r.buffered += len(body) - len(seg.lines)
	r.wake()
	r.mu.Unlock()
	if lines := seg.lines[:0]; cap(lines) <= 16<<10 { // large ones would gather in streams that need little
		r.buffers.Put(&lines)
	}
	seg.lines = nil

	key := r.key(seg)
	attempted := false // whether this key may be ours already
	first := time.Now()
	for delay := minBackoff; ; delay = min(2*delay, maxBackoff) {
		ctx, cancel := context.WithTimeout(r.ctx, r.cfg.Timeout)
		err := r.cfg.Store.Put(ctx, key, body)
		cancel()
		switch {
		case err == nil:
		case access.KindOf(err) == access.Conflict && attempted:
			// The key holds our task and number: an attempt that seemed to fail had stored it.
			err = nil
		case access.KindOf(err) == access.Conflict:
			// Somebody else writes with our task's name. The events are stored beside theirs.
			r.cfg.Log.Error("recording: a key that should be ours exists; is the task's name used twice?", "key", key)
			key = r.key(seg)
		default:
			attempted = true
		}
		if err == nil {
			r.stored(seg, len(body))
			return
		}
		if r.ctx.Err() != nil {
			return
		}
		r.failed(seg, first, err)
		pause := time.NewTimer(delay/2 + rand.N(delay/2)) //nolint:gosec // spreads retries, keeps no secret
		select {
		case <-pause.C:
		case <-r.ctx.Done():
			pause.Stop()
			return
		}
	}
}

// key is a name for the segment that was never used before.
func (r *Recorder) key(seg *segment) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.seq++
	return seg.prefix + segmentName(seg.opened, r.cfg.Task, r.seq)
}

func (r *Recorder) stored(seg *segment, size int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if seg.durable != nil {
		close(seg.durable)
	}
	r.buffered -= size
	r.events -= seg.events
	if _, ok := r.failing[seg]; ok {
		delete(r.failing, seg)
		r.judge()
		if len(r.failing) == 0 {
			r.cfg.Log.Info("recording: segments are stored again")
		}
	}
	r.wake()
}

func (r *Recorder) failed(seg *segment, first time.Time, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.failing) == 0 {
		r.cfg.Log.Warn("recording: a segment could not be stored and is tried again", "error", detail(err))
	}
	r.lastErr = err
	if _, ok := r.failing[seg]; !ok {
		r.failing[seg] = first
	}
	r.judge()
}

// judge trips the recorder when a segment has been failing for too long, and lets it go when none has. mu is held.
func (r *Recorder) judge() {
	var oldest time.Time
	for _, first := range r.failing {
		if oldest.IsZero() || first.Before(oldest) {
			oldest = first
		}
	}
	if r.trip != nil {
		r.trip.Stop()
		r.trip = nil
	}
	left := r.cfg.MaxFailing - time.Since(oldest)
	switch tripped := r.isTripped(); {
	case oldest.IsZero() || left > 0:
		if tripped {
			r.tripped = make(chan struct{})
		}
		if !oldest.IsZero() {
			r.trip = time.AfterFunc(left, func() {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.judge()
			})
		}
	case !tripped:
		close(r.tripped)
		r.cfg.Log.Error("recording: storing has failed for too long; events are refused", "since", oldest.UTC(), "error", detail(r.lastErr))
	}
}

func (r *Recorder) isTripped() bool {
	select {
	case <-r.tripped:
		return true
	default:
		return false
	}
}

// Healthy is nil when Append may accept events, and otherwise the error that it returns.
func (r *Recorder) Healthy() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errClosed()
	}
	return r.healthy()
}

func (r *Recorder) healthy() error {
	if !r.isTripped() {
		return nil
	}
	return errCannotRecord(r.lastErr)
}

// Close refuses further events and stores the ones it has. When ctx ends first, its error says how many events may not
// be stored, and why; they are given up.
func (r *Recorder) Close(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, seg := range r.open {
		r.seal(seg)
	}
	r.wake()
	for r.events > 0 && r.ctx.Err() == nil {
		if err := r.waitStored(ctx); err != nil {
			break
		}
	}
	r.cancel()
	if r.trip != nil {
		r.trip.Stop()
	}
	if r.events > 0 {
		return unavailable(fmt.Sprintf("recording: %d events may not be stored", r.events), errors.Join(context.Cause(ctx), r.lastErr))
	}
	return nil
}

// waitStored is wait for Close, which a tripped recorder does not hurry.
func (r *Recorder) waitStored(ctx context.Context) error {
	changed := r.changed
	r.waiting++
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		r.waiting--
	}()
	select {
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func unavailable(message string, cause error) error {
	return access.Errorf(access.Unavailable, "%s", message).After(time.Second).Because(cause)
}

func errCannotRecord(cause error) error {
	return unavailable("the gate cannot record, and what cannot be recorded does not pass; nothing was forwarded", cause)
}

func errClosed() error {
	return unavailable("this task of the gate is going away; nothing was forwarded", errors.New("the recorder is closed"))
}

// detail is an error with its cause, which access.Error keeps for the log.
func detail(err error) string {
	if cause := errors.Unwrap(err); cause != nil {
		return err.Error() + ": " + cause.Error()
	}
	return err.Error()
}
