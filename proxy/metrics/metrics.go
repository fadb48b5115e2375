// Package metrics counts what the gate does, for Prometheus. Labels come from closed sets, so no caller can make the
// number of series grow, and none holds a name from a request.
package metrics

import (
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"sallyport/shared/access"
)

// Metrics implements gate.Observer and rules.Observer.
type Metrics struct {
	registry  *prometheus.Registry
	requests  *prometheus.CounterVec
	seconds   *prometheus.HistogramVec
	streams   prometheus.Gauge
	exchanges *prometheus.CounterVec
	policy    *prometheus.GaugeVec
	polled    prometheus.Gauge
	refused   *prometheus.CounterVec
	behind    prometheus.Gauge
	waiting   prometheus.Gauge
	approvals *prometheus.CounterVec
	redeemed  *prometheus.HistogramVec
	released  prometheus.Histogram
}

// New returns metrics; sessions says how many sessions are held.
func New(sessions func() int) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_requests_total",
			Help: "Requests that ended, by verb, what was decided (allow, ask, deny, refused) and HTTP status."}, []string{"verb", "decision", "code"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_request_duration_seconds",
			Help: "Time from a request's arrival to the end of its answer. Streams last as long as they are open.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 9)}, []string{"verb"}),
		streams:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_streams", Help: "Streams that are open: watches, followed logs, exec, attach, port-forward."}),
		exchanges: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_exchanges_total", Help: "Exchanges asked of the broker, by outcome."}, []string{"outcome"}),
		policy:    prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "sallyport_policy_info", Help: "1 for the digest of the policy that this task decides by."}, []string{"digest"}),
		polled:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_policy_poll_timestamp_seconds", Help: "When the broker last said which policy is in force."}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_policies_refused_total",
			Help: "Versions of the policy that did not take effect, by who could not load them (broker, proxy)."}, []string{"by"}),
		behind:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_policy_refused", Help: "1 while the newest version of the policy is not the one in force."}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{Name: "sallyport_approvals_waiting", Help: "Requests that wait for people."}),
		approvals: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "sallyport_approvals_total",
			Help: "Requests that asked people, by the state of their approval when they ceased to wait; pending: to be sent again."}, []string{"state"}),
		redeemed: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "sallyport_redeem_duration_seconds",
			Help: "Time that redeeming an approval took, by outcome.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 11)}, []string{"outcome"}),
		released: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "sallyport_release_duration_seconds",
			Help: "Time from when this task heard that people let a request through to when it was forwarded.", Buckets: prometheus.ExponentialBuckets(0.01, 2, 11)}),
	}
	for _, by := range []string{"broker", "proxy"} {
		m.refused.WithLabelValues(by)
	}
	for _, state := range states {
		m.approvals.WithLabelValues(string(state))
	}
	m.registry.MustRegister(m.waiting, m.approvals, m.redeemed, m.released, m.requests, m.seconds, m.streams, m.exchanges, m.policy, m.polled, m.refused, m.behind, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "sallyport_sessions", Help: "Sessions this task holds."}, func() float64 { return float64(sessions()) }))
	return m
}

var verbs = map[string]bool{"get": true, "list": true, "watch": true, "create": true, "update": true, "patch": true, "delete": true,
	"deletecollection": true, "exec": true, "attach": true, "portforward": true, "reveal": true}

// Request counts a request that ended.
func (m *Metrics) Request(verb, effect string, code int, took time.Duration) {
	if !verbs[verb] {
		verb = "other"
	}
	m.requests.WithLabelValues(verb, effect, strconv.Itoa(code)).Inc()
	m.seconds.WithLabelValues(verb).Observe(took.Seconds())
}

// Stream counts streams that open and close.
func (m *Metrics) Stream(delta int) { m.streams.Add(float64(delta)) }

// Exchange counts an exchange that ended.
func (m *Metrics) Exchange(err error) { m.exchanges.WithLabelValues(outcome(err)).Inc() }

func outcome(err error) string {
	if err == nil {
		return "issued"
	}
	return string(access.KindOf(err))
}

// Waiting counts requests that begin and cease to wait for people.
func (m *Metrics) Waiting(delta int) { m.waiting.Add(float64(delta)) }

var states = []access.ApprovalState{access.StatePending, access.StateApproved, access.StateGranted, access.StateDenied, access.StateExpired,
	access.StateSpent, access.StateWithdrawn, access.StateRevoked}

// Approval counts a request that ceased to wait, by what its approval was then.
func (m *Metrics) Approval(state access.ApprovalState) {
	if slices.Contains(states, state) {
		m.approvals.WithLabelValues(string(state)).Inc()
	}
}

// Redeemed counts a redemption that ended.
func (m *Metrics) Redeemed(took time.Duration, err error) {
	m.redeemed.WithLabelValues(outcome(err)).Observe(took.Seconds())
}

// Released counts a request that is forwarded because people let it through.
func (m *Metrics) Released(took time.Duration) { m.released.Observe(took.Seconds()) }

// Policy says which policy this task decides by. There is one at a time, so there is one series.
func (m *Metrics) Policy(digest string) {
	m.policy.Reset()
	m.policy.WithLabelValues(digest).Set(1)
}

// Polled says that the broker told which policy is in force, and whether a newer one is refused.
func (m *Metrics) Polled(at time.Time, refused bool) {
	m.polled.Set(float64(at.Unix()))
	behind := 0.0
	if refused {
		behind = 1
	}
	m.behind.Set(behind)
}

// PolicyRefused counts a version of the policy that by, broker or proxy, could not load.
func (m *Metrics) PolicyRefused(by string) { m.refused.WithLabelValues(by).Inc() }

// Handler serves the metrics.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}
