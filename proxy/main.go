// Command proxy is the gate's data path: it runs on Fargate behind a load balancer, and on one machine as it is.
//
// It holds nothing that lasts. It may invoke functions exchange and review, read policies, and add recordings; it may assume
// no role. It decides by the policy that the broker says is in force, from a few seconds after that changed, and hears
// within a second or two what people answered: one call a second asks about everything.
package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/uuid"
	"k8s.io/klog/v2"

	"sallyport/proxy/desk"
	"sallyport/proxy/gate"
	"sallyport/proxy/invoke"
	"sallyport/proxy/metrics"
	"sallyport/proxy/rules"
	"sallyport/proxy/session"
	"sallyport/shared/access"
	"sallyport/shared/policystore"
	"sallyport/shared/recording"
	"sallyport/shared/settings"
)

// Unknown tokens one address may send: more than any fleet behind one address renews, less than worth a flood.
const (
	unknownTokens = 20 // a second
	unknownBurst  = 200
)

// recheckEvery is how often open streams are decided again while the policy stays; recheckTime is how long that may take.
const (
	recheckEvery = 3 * time.Second
	recheckTime  = 5 * time.Second
)

// voice is the broker as rules.Keeper hears it: what is in force comes with the one call a second, keys nobody knows yet are
// asked for apart.
type voice struct {
	*desk.Desk
	invoke.Client
}

func main() {
	log := slog.New(slog.NewJSONHandler(os.Stderr, nil))
	// Kubernetes' parser logs the whole query of a request it cannot read, and with it whatever a caller put there.
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	if err := run(log); err != nil {
		log.Error("the proxy ends", "error", err.Error())
		os.Exit(1)
	}
}

func run(log *slog.Logger) error {
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	set, err := settings.From[settings.Proxy](os.Getenv)
	if err != nil {
		return err
	}
	drain, err := time.ParseDuration(set.Drain)
	if err != nil {
		return access.Errorf(access.Invalid, "settings: SALLYPORT_DRAIN: %q is no duration; write one like 100s", set.Drain)
	}
	hold := gate.Hold
	if set.Hold != "" {
		if hold, err = time.ParseDuration(set.Hold); err != nil || hold <= 0 {
			return access.Errorf(access.Invalid, "settings: SALLYPORT_HOLD: %q is no duration; write one like 50s", set.Hold)
		}
	}
	// Segments are stored, and the broker is asked, many at a time; the SDK's own client would keep ten connections.
	connections := awshttp.NewBuildableClient().WithTransportOptions(func(t *http.Transport) { t.MaxIdleConnsPerHost = 128 })
	aws, err := config.LoadDefaultConfig(stop, config.WithHTTPClient(connections))
	if err != nil {
		return err
	}
	files := s3.NewFromConfig(aws, policystore.PathStyle)
	certificate, err := serverCertificate(set.TLSCertificate, set.TLSKey)
	if err != nil {
		return err
	}
	functions := lambda.NewFromConfig(aws)
	client := invoke.Client{Lambda: functions, Function: set.ExchangeFunction}
	reviews := invoke.Review{Lambda: functions, Function: set.ReviewFunction}
	waiting := desk.New(reviews, time.Now)
	recorder, err := recording.New(recording.Config{Store: recording.S3{Client: files, Bucket: set.RecordingsBucket}, Task: strings.ReplaceAll(uuid.NewString(), "-", "")[:12], Log: log})
	if err != nil {
		return err
	}
	var meters *metrics.Metrics
	sessions := session.New(session.Config{Broker: client, Observe: func(err error) { meters.Exchange(err) }})
	meters = metrics.New(sessions.Len)
	keeper := rules.New(rules.Config{
		Broker: voice{waiting, client}, Policies: policystore.Store{Client: files, Bucket: set.PolicyBucket}, Observer: meters,
		UnknownRate: unknownTokens, UnknownBurst: unknownBurst, Now: time.Now, Log: log,
	})
	g := gate.New(gate.Config{
		Rules: keeper.Current, Sessions: sessions, Reviews: reviews, Redeemer: client, Desk: waiting, Recorder: recorder, Observer: meters, Now: time.Now, Log: log, Hold: hold,
		TrustForwardedFor: set.TrustForwardedFor == "true",
	})

	streams, cut := context.WithCancelCause(context.Background())
	defer cut(nil)
	server := &http.Server{
		Handler:           g,
		TLSConfig:         &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS12},
		ReadHeaderTimeout: 10 * time.Second, // slow headers; there is no write timeout, as watches and streams stay open
		IdleTimeout:       4 * time.Hour,    // the load balancer's is shorter and closes first
		MaxHeaderBytes:    128 << 10,
		BaseContext:       func(net.Listener) context.Context { return streams },
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	var unready atomic.Pointer[string] // why the load balancer must not send anybody here
	starting, draining := "the gate is not open yet: the broker has not told which policy is in force", "draining"
	unready.Store(&starting)
	health := &http.Server{
		Addr:              set.MetricsListen,
		Handler:           healthHandler(meters, recorder, &unready, keeper),
		ReadHeaderTimeout: 10 * time.Second,
	}
	failed := make(chan error, 2)
	go func() { failed <- fmt.Errorf("serving health and metrics: %w", health.ListenAndServe()) }()
	opened := make(chan struct{})
	open := sync.OnceFunc(func() { close(opened) })
	var by *rules.Generation // what open streams were last held against, and when
	var checked time.Time
	var checking atomic.Bool
	go keeper.Run(streams, func() { // for as long as streams are open, while draining too
		now := keeper.Current()
		if now == nil {
			return
		}
		open()
		// Whether the policy changed or not: a rule may look at the time, and a stream must not outlive what let it open.
		if now == by && time.Since(checked) < recheckEvery {
			return
		}
		if !checking.CompareAndSwap(false, true) {
			return
		}
		by, checked = now, time.Now()
		go func() { // apart from the polls, which must not wait for it
			defer checking.Store(false)
			check, done := context.WithTimeout(streams, recheckTime)
			defer done()
			g.Recheck(check)
		}()
	})
	// Without a policy nothing can be decided, so there is nobody to answer yet; the task is not ready meanwhile.
	select {
	case <-opened:
	case err := <-failed:
		return err
	case <-stop.Done():
		return nil
	}
	go func() {
		for range time.Tick(time.Minute) {
			sessions.Sweep(keeper.Current().Policy.Sessions.Idle)
		}
	}()
	listener, err := net.Listen("tcp", set.Listen)
	if err != nil {
		return fmt.Errorf("listening for agents: %w", err)
	}
	go func() { failed <- fmt.Errorf("serving agents: %w", server.ServeTLS(listener, "", "")) }()
	unready.Store(nil)
	p := keeper.Current().Policy
	log.Info("the gate is open", "listen", listener.Addr().String(), "policy", p.Digest, "clusters", len(p.Clusters))

	select {
	case err := <-failed:
		return err
	case <-stop.Done():
	}
	// Drain: the load balancer sees that this task is not ready, requests finish, streams have until the deadline.
	unready.Store(&draining)
	log.Info("draining", "streams", g.Streams(), "deadline", drain.String())
	deadline, done := context.WithTimeout(context.Background(), drain)
	defer done()
	err = server.Shutdown(deadline)
	for g.Streams() > 0 && deadline.Err() == nil {
		time.Sleep(50 * time.Millisecond)
	}
	cut(access.Errorf(access.Unavailable, "this task of the gate was replaced; ask again"))
	flush, done := context.WithTimeout(context.Background(), 15*time.Second)
	defer done()
	for g.Streams() > 0 && flush.Err() == nil {
		time.Sleep(10 * time.Millisecond)
	}
	_ = server.Close()
	for waiting.Untold() > 0 && flush.Err() == nil && keeper.Poll(flush) == nil { // how the last requests ended
	}
	if e := recorder.Close(flush); e != nil {
		return e
	}
	if err != nil && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	log.Info("drained")
	return nil
}

// healthHandler answers liveness, readiness and metrics. A task is ready when it can decide, verify tokens and record.
func healthHandler(m *metrics.Metrics, r *recording.Recorder, unready *atomic.Pointer[string], keeper *rules.Keeper) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		switch why, err := unready.Load(), r.Healthy(); {
		case why != nil:
			http.Error(w, *why, http.StatusServiceUnavailable)
		case err != nil:
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		case !keeper.Ready():
			http.Error(w, "the broker has not given the issuers' keys yet", http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte("ok\n"))
		}
	})
	return mux
}
