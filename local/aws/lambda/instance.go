package lambda

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"sallyport/local/aws/child"
)

// invocation is one piece of work.
type invocation struct {
	id            string
	payload       []byte
	clientContext string
	trace         string
	deadline      time.Time
}

// function is a deployed function and its instances.
type function struct {
	Function
	server *Server
	arn    string
	slots  chan struct{} // one token per instance that exists or starts

	mu      sync.Mutex
	idle    []*instance // most recently used last
	all     map[*instance]bool
	waiters []chan struct{} // each closed once, when an instance or a slot may be free
	retired bool
}

// errRetired says that the function was replaced between finding and running it.
var errRetired = &Error{"ResourceConflictException", http.StatusConflict, "The function is being updated or taken down."}

// invoke runs one invocation on an instance of its own.
func (f *function) invoke(ctx context.Context, in invocation) (Result, error) {
	out := Result{RequestID: in.id}
	for {
		i, failed, err := f.acquire(ctx)
		switch {
		case err != nil:
			return Result{}, err
		case failed != nil:
			out.Payload, out.FunctionError = failed, "Unhandled"
			return out, nil
		}
		payload, end := i.run(in)
		if i.usable() {
			f.release(i)
		} else {
			f.discard(i)
		}
		switch end {
		case notTaken:
			continue // the process died while it was idle: not this invocation's doing
		case failure:
			out.FunctionError = "Unhandled"
		}
		out.Payload = payload
		return out, nil
	}
}

// acquire takes an idle instance or starts one; when all are busy it waits, for a while. An instance that does not come
// up is the function's failure, returned as such.
func (f *function) acquire(ctx context.Context) (i *instance, failed []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, f.server.cfg.Wait)
	defer cancel()
	for {
		i, start, wake, err := f.take()
		switch {
		case err != nil:
			return nil, nil, err
		case i != nil:
			return i, nil, nil
		case start:
			i, failed, err := f.start()
			if i == nil {
				<-f.slots
				f.wake()
			}
			return i, failed, err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil, nil, &Error{"TooManyRequestsException", http.StatusTooManyRequests, "Rate Exceeded."}
		}
	}
}

// take returns an idle instance, or the right to start one, or what to wait for.
func (f *function) take() (i *instance, start bool, wake <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.retired {
		return nil, false, nil, errRetired
	}
	for len(f.idle) > 0 {
		i := f.idle[len(f.idle)-1]
		f.idle = f.idle[:len(f.idle)-1]
		if i.reap.Stop() && i.usable() && i.current() {
			return i, false, nil, nil
		}
		go f.discard(i)
	}
	select {
	case f.slots <- struct{}{}:
		return nil, true, nil, nil
	default:
		w := make(chan struct{})
		f.waiters = append(f.waiters, w)
		return nil, false, w, nil
	}
}

func (f *function) wake() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range f.waiters {
		close(w)
	}
	f.waiters = nil
}

func (f *function) release(i *instance) {
	f.mu.Lock()
	if f.retired {
		f.mu.Unlock()
		f.discard(i)
		return
	}
	i.reap = time.AfterFunc(f.server.cfg.Idle, func() { f.expire(i) })
	f.idle = append(f.idle, i)
	f.mu.Unlock()
	f.wake()
}

func (f *function) expire(i *instance) {
	f.mu.Lock()
	found := false
	for k, other := range f.idle {
		if other == i {
			f.idle = append(f.idle[:k], f.idle[k+1:]...)
			found = true
			break
		}
	}
	f.mu.Unlock()
	if found {
		f.discard(i)
	}
}

// discard ends an instance and frees its slot. It is called once per instance.
func (f *function) discard(i *instance) {
	f.forget(i)
	<-f.slots
	f.wake()
}

func (f *function) forget(i *instance) {
	i.close()
	f.mu.Lock()
	delete(f.all, i)
	f.mu.Unlock()
}

// retire ends the idle instances and lets no new invocation begin; busy instances end with their invocation, or at once
// when the server is closed.
func (f *function) retire() {
	f.mu.Lock()
	f.retired = true
	idle := f.idle
	f.idle = nil
	var busy []*instance
	if f.server.ctx.Err() != nil {
		for i := range f.all {
			busy = append(busy, i)
		}
	}
	f.mu.Unlock()
	for _, i := range busy {
		i.close()
	}
	for _, i := range idle {
		i.reap.Stop()
		f.discard(i)
	}
	f.wake()
}

// instance is one process and the Runtime API it talks to.
type instance struct {
	f       *function
	proc    *child.Process
	log     *os.File
	http    *http.Server
	binary  os.FileInfo
	reap    *time.Timer
	closing sync.Once

	next chan invocation // taken by GET next
	up   chan struct{}   // closed by the first GET next
	init chan []byte     // what POST init/error said

	mu     sync.Mutex
	work   *running
	broken bool
}

type running struct {
	id   string
	done chan answer
}

type answer struct {
	payload []byte
	ending  ending
}

func (f *function) start() (*instance, []byte, error) {
	info, err := os.Stat(f.Binary)
	if err != nil {
		return nil, problem("Runtime.InvalidEntrypoint", "Couldn't find valid bootstrap(s): %v", err), nil
	}
	log, err := child.Log(filepath.Join(f.server.cfg.Dir, f.Name+".log"))
	if err != nil {
		return nil, nil, fmt.Errorf("lambda: opening the log of %s: %w", f.Name, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Close()
		return nil, nil, fmt.Errorf("lambda: opening the runtime API of %s: %w", f.Name, err)
	}
	i := &instance{f: f, log: log, binary: info, next: make(chan invocation), up: make(chan struct{}), init: make(chan []byte, 1)}
	i.http = &http.Server{Handler: i.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = i.http.Serve(l) }()

	cmd := exec.Command(f.Binary)
	cmd.Dir = filepath.Dir(f.Binary)
	cmd.Env = f.environ(l.Addr().String(), stream(time.Now()))
	cmd.Stdout, cmd.Stderr = log, log
	began := time.Now()
	if i.proc, err = child.Start(cmd); err != nil {
		i.http.Close()
		log.Close()
		return nil, problem("Runtime.InvalidEntrypoint", "%v", err), nil
	}
	f.mu.Lock()
	if f.all == nil {
		f.all = map[*instance]bool{}
	}
	f.all[i] = true
	retired := f.retired
	f.mu.Unlock()
	if retired {
		f.forget(i)
		return nil, nil, errRetired
	}

	t := time.NewTimer(initTimeout)
	defer t.Stop()
	var failed []byte
	select {
	case <-i.up:
		f.server.log.Debug("instance started", "function", f.Name, "pid", i.proc.PID(), "init", time.Since(began))
		return i, nil, nil
	case failed = <-i.init:
	case <-i.proc.Done():
		select {
		case failed = <-i.init: // said why before it went
		default:
			failed = i.exit("")
		}
	case <-t.C:
		failed = problem("Sandbox.Timedout", "Error: Initialization timed out after %.2f seconds", initTimeout.Seconds())
	}
	f.forget(i)
	return nil, failed, nil
}

// ending is how an invocation ended.
type ending int

const (
	success ending = iota
	failure
	notTaken // the process never saw it
)

// run gives the instance one invocation and waits for its end, whatever it is.
func (i *instance) run(in invocation) ([]byte, ending) {
	r := &running{id: in.id, done: make(chan answer, 1)}
	in.deadline = time.Now().Add(i.f.Timeout)
	i.mu.Lock()
	i.work = r
	i.mu.Unlock()
	defer func() {
		i.mu.Lock()
		i.work = nil
		i.mu.Unlock()
	}()
	t := time.NewTimer(i.f.Timeout)
	defer t.Stop()
	next := i.next
	for {
		select {
		case next <- in:
			next = nil
		case a := <-r.done:
			return a.payload, a.ending
		case <-i.proc.Done():
			i.breakDown()
			select {
			case a := <-r.done: // a panic is reported first, then the process ends
				return a.payload, a.ending
			default:
			}
			if next != nil {
				return nil, notTaken
			}
			return i.exit(in.id), failure
		case <-t.C:
			i.breakDown()
			i.proc.Kill()
			return problem("Sandbox.Timedout", "RequestId: %s Error: Task timed out after %.2f seconds", in.id, i.f.Timeout.Seconds()), failure
		}
	}
}

// exit says how the process ended, as Lambda does.
func (i *instance) exit(id string) []byte {
	prefix := ""
	if id != "" {
		prefix = "RequestId: " + id + " "
	}
	var e *exec.ExitError
	if !errors.As(i.proc.Err(), &e) {
		return problem("Runtime.ExitError", "%sError: Runtime exited without providing a reason", prefix)
	}
	if s, ok := e.Sys().(syscall.WaitStatus); ok && s.Signaled() {
		return problem("Runtime.ExitError", "%sError: Runtime exited with error: signal: %v", prefix, s.Signal())
	}
	return problem("Runtime.ExitError", "%sError: Runtime exited with error: exit status %d", prefix, e.ExitCode())
}

func (i *instance) breakDown() {
	i.mu.Lock()
	i.broken = true
	i.mu.Unlock()
}

func (i *instance) usable() bool {
	select {
	case <-i.proc.Done():
		return false
	default:
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	return !i.broken
}

// current reports whether the binary on disk is the one this instance runs.
func (i *instance) current() bool {
	now, err := os.Stat(i.f.Binary)
	return err == nil && os.SameFile(now, i.binary) && now.ModTime().Equal(i.binary.ModTime()) && now.Size() == i.binary.Size()
}

func (i *instance) close() {
	i.closing.Do(func() {
		i.breakDown()
		i.proc.Kill()
		i.http.Close()
		i.log.Close()
	})
}

// routes is the Runtime API. Each instance has a port of its own, so what arrives here comes from its process.
func (i *instance) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /2018-06-01/runtime/invocation/next", i.serveNext)
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/response", func(w http.ResponseWriter, r *http.Request) { i.serveEnd(w, r, success) })
	mux.HandleFunc("POST /2018-06-01/runtime/invocation/{id}/error", func(w http.ResponseWriter, r *http.Request) { i.serveEnd(w, r, failure) })
	mux.HandleFunc("POST /2018-06-01/runtime/init/error", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPayload))
		if err != nil {
			status(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge")
			return
		}
		select {
		case i.init <- body:
		default:
		}
		status(w, http.StatusAccepted, "")
	})
	return mux
}

func (i *instance) serveNext(w http.ResponseWriter, r *http.Request) {
	select {
	case <-i.up:
	default:
		i.mu.Lock()
		select {
		case <-i.up:
		default:
			close(i.up)
		}
		i.mu.Unlock()
	}
	select {
	case in := <-i.next:
		h := w.Header()
		h.Set("Lambda-Runtime-Aws-Request-Id", in.id)
		h.Set("Lambda-Runtime-Deadline-Ms", strconv.FormatInt(in.deadline.UnixMilli(), 10))
		h.Set("Lambda-Runtime-Invoked-Function-Arn", i.f.arn)
		if in.trace != "" {
			h.Set("Lambda-Runtime-Trace-Id", in.trace)
		}
		if in.clientContext != "" {
			h.Set("Lambda-Runtime-Client-Context", in.clientContext)
		}
		h.Set("Content-Type", "application/json")
		_, _ = w.Write(in.payload)
	case <-r.Context().Done():
	}
}

func (i *instance) serveEnd(w http.ResponseWriter, r *http.Request, how ending) {
	i.mu.Lock()
	cur := i.work
	i.mu.Unlock()
	if cur == nil || cur.id != r.PathValue("id") {
		status(w, http.StatusBadRequest, "InvalidRequestID")
		return
	}
	a := answer{ending: how}
	var err error
	a.payload, err = io.ReadAll(http.MaxBytesReader(w, r.Body, MaxPayload))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		status(w, http.StatusRequestEntityTooLarge, "RequestEntityTooLarge")
		a = answer{ending: failure, payload: problem("Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (%d bytes).", MaxPayload)}
	case err != nil:
		status(w, http.StatusBadRequest, "InvalidRequest")
		return
	default:
		status(w, http.StatusAccepted, "")
	}
	select {
	case cur.done <- a:
	default: // answered twice; the first counts
	}
}

func status(w http.ResponseWriter, code int, kind string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	v := map[string]string{"status": "OK"}
	if kind != "" {
		v = map[string]string{"errorType": kind, "errorMessage": kind}
	}
	_ = json.NewEncoder(w).Encode(v)
}

func uuid() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never returns an error
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
