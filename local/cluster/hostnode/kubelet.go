package hostnode

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	remotecommandconsts "k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/kubelet/pkg/cri/streaming/portforward"
	"k8s.io/kubelet/pkg/cri/streaming/remotecommand"
)

// Streams may be silent for as long as a person thinks.
const idleTimeout, streamTimeout = 4 * time.Hour, 30 * time.Second

// routes are the part of the kubelet's API that the API server uses.
func (p *Provider) routes() http.Handler {
	mux := http.NewServeMux()
	for _, path := range []string{"/{namespace}/{pod}/{container}", "/{namespace}/{pod}/{uid}/{container}"} {
		mux.HandleFunc("/exec"+path, p.serveExec)
		mux.HandleFunc("/attach"+path, p.serveAttach)
	}
	mux.HandleFunc("/portForward/{namespace}/{pod}", p.servePortForward)
	mux.HandleFunc("/portForward/{namespace}/{pod}/{uid}", p.servePortForward)
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", p.serveLogs)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	return mux
}

// target finds the pod and container of a request, or answers for it.
func (p *Provider) target(w http.ResponseWriter, r *http.Request) (*pod, *container) {
	pod := p.find(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); pod == nil || uid != "" && uid != pod.uid {
		http.Error(w, fmt.Sprintf("pod %q is not on this node", r.PathValue("pod")), http.StatusNotFound)
		return nil, nil
	}
	c := pod.container(r.PathValue("container"))
	if c == nil {
		http.Error(w, fmt.Sprintf("pod %q has no container %q", r.PathValue("pod"), r.PathValue("container")), http.StatusNotFound)
		return nil, nil
	}
	return pod, c
}

func (p *Provider) serveExec(w http.ResponseWriter, r *http.Request) {
	pod, c := p.target(w, r)
	if c == nil {
		return
	}
	if c.running() == nil {
		http.Error(w, fmt.Sprintf("container %q is not running", c.name), http.StatusBadRequest)
		return
	}
	argv := r.URL.Query()["command"]
	opts, err := remotecommand.NewOptions(r)
	if err == nil && len(argv) == 0 {
		err = errors.New("no command")
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w, r, cancel := watchClient(w, r)
	defer cancel()
	remotecommand.ServeExec(w, r, pod, "", "", c.name, argv, opts, idleTimeout, streamTimeout, remotecommandconsts.SupportedStreamingProtocols)
}

func (p *Provider) serveAttach(w http.ResponseWriter, r *http.Request) {
	pod, c := p.target(w, r)
	if c == nil {
		return
	}
	opts, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w, r, cancel := watchClient(w, r)
	defer cancel()
	remotecommand.ServeAttach(w, r, pod, "", "", c.name, opts, idleTimeout, streamTimeout, remotecommandconsts.SupportedStreamingProtocols)
}

func (p *Provider) servePortForward(w http.ResponseWriter, r *http.Request) {
	pod := p.find(r.PathValue("namespace"), r.PathValue("pod"))
	if uid := r.PathValue("uid"); pod == nil || uid != "" && uid != pod.uid {
		http.Error(w, fmt.Sprintf("pod %q is not on this node", r.PathValue("pod")), http.StatusNotFound)
		return
	}
	opts, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	portforward.ServePortForward(w, r, pod, pod.spec().Name, types.UID(pod.uid), opts, idleTimeout, streamTimeout, portforward.SupportedProtocols)
}

// PortForward connects a stream with a port on the pod's address. What listens
// on 127.0.0.1 only is not found there: all pods share that.
func (p *pod) PortForward(ctx context.Context, _ string, _ types.UID, port int32, stream io.ReadWriteCloser) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", net.JoinHostPort(p.address.addr.String(), strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer conn.Close()
	// Each direction ends by itself; the stream is closed when the pod has
	// nothing more to say, which also ends a client that never closes.
	go func() {
		io.Copy(conn, stream)            //nolint:errcheck // the client or the pod has gone
		conn.(*net.TCPConn).CloseWrite() //nolint:errcheck // as above
	}()
	_, err = io.Copy(stream, conn)
	return errors.Join(err, stream.Close())
}

func (p *Provider) serveLogs(w http.ResponseWriter, r *http.Request) {
	_, c := p.target(w, r)
	if c == nil {
		return
	}
	opts, previous, err := parseLogOptions(r.URL.Query(), time.Now())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	path, done := c.logOf(previous)
	if path == "" {
		what := "container %q in pod %q is waiting to start"
		if previous {
			what = "previous terminated container %q in pod %q not found"
		}
		// Not 404: the API server drops the text of that one. A real kubelet
		// answers as we do.
		http.Error(w, fmt.Sprintf(what, c.name, r.PathValue("pod")), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.WriteHeader(http.StatusOK)
	out := flusher{w, http.NewResponseController(w)}
	out.Flush()
	if err := copyLog(r.Context(), path, opts, out, done); err != nil && !errors.Is(err, os.ErrClosed) {
		panic(http.ErrAbortHandler) // the only way left to tell that this is not all
	}
}

// logOf is the log of the present or the previous run, and what ends it.
func (c *container) logOf(previous bool) (path string, done <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	over := make(chan struct{})
	close(over)
	switch {
	case c.current == nil:
		return "", nil
	case !previous:
		return c.current.log, c.current.done
	case c.state.Running != nil && c.restarts > 0:
		return c.dir + fmt.Sprintf("/log.%d", c.restarts-1), over
	case c.state.Waiting != nil && c.restarts > 0:
		return c.current.log, over
	}
	return "", nil
}

// parseLogOptions reads the parameters the API server passes on, which it has
// checked against corev1.PodLogOptions.
func parseLogOptions(q url.Values, now time.Time) (o logOptions, previous bool, err error) {
	o.tail = -1
	number := func(name string, to *int64) {
		if v := q.Get(name); v != "" && err == nil {
			if *to, err = strconv.ParseInt(v, 10, 64); err == nil && *to < 0 {
				err = fmt.Errorf("%s must not be negative", name)
			}
		}
	}
	boolean := func(name string, to *bool) {
		if v := q.Get(name); v != "" && err == nil {
			*to, err = strconv.ParseBool(v)
		}
	}
	var seconds int64
	number("tailLines", &o.tail)
	number("limitBytes", &o.limit)
	number("sinceSeconds", &seconds)
	boolean("follow", &o.follow)
	boolean("timestamps", &o.timestamps)
	boolean("previous", &previous)
	if seconds > 0 {
		o.since = now.Add(-time.Duration(seconds) * time.Second)
	}
	if v := q.Get("sinceTime"); v != "" && err == nil {
		o.since, err = time.Parse(time.RFC3339, v)
	}
	switch v := q.Get("stream"); v {
	case "", corev1.LogStreamAll:
	case corev1.LogStreamStdout:
		o.stream = "stdout"
	case corev1.LogStreamStderr:
		o.stream = "stderr"
	default:
		err = fmt.Errorf("stream %q is neither All, Stdout nor Stderr", v)
	}
	return o, previous, err
}

// A flusher sends every write at once.
type flusher struct {
	w  io.Writer
	rc *http.ResponseController
}

func (f flusher) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	return n, errors.Join(err, f.rc.Flush())
}

func (f flusher) Flush() error { return f.rc.Flush() }

// watchClient returns a request whose context ends when the client's connection
// does. The server stops to watch a connection once it is hijacked, and the
// streaming code has no way to ask.
func watchClient(w http.ResponseWriter, r *http.Request) (http.ResponseWriter, *http.Request, context.CancelFunc) {
	ctx, cancel := context.WithCancel(r.Context())
	return &hijackWatcher{w, cancel}, r.WithContext(ctx), cancel
}

type hijackWatcher struct {
	http.ResponseWriter
	gone context.CancelFunc
}

// Hijack hands out a connection that reports its end.
func (h *hijackWatcher) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	return &watchedConn{Conn: conn, gone: h.gone}, buf, nil
}

type watchedConn struct {
	net.Conn
	gone context.CancelFunc
}

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	var timeout net.Error
	if err != nil && (!errors.As(err, &timeout) || !timeout.Timeout()) {
		c.gone()
	}
	return n, err
}
