// Package session keeps the proxy's live sessions: it asks the broker once per session and cluster, renews the tier's
// credential before it ends, and mints the EKS tokens that requests are forwarded with.
//
// Everything in here is in memory only and can be asked for again, so any proxy task can serve any request. What a
// stolen process image is worth is what these credentials are worth: the base tiers of the sessions in it, for an hour at
// the most, and the tiers of approvals whose requests are in flight. No credential and no token leaves this package but into the header of a request to the cluster.
package session

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"sync"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/credential"
)

// Broker exchanges an agent's token for a session and credentials on a cluster. It is called from many goroutines.
// Errors are *access.Error; on an error nothing was issued that the caller would have to give back.
type Broker interface {
	Exchange(ctx context.Context, token, cluster string) (broker.Token, error)
}

// Config is what a Manager is made of.
type Config struct {
	Broker Broker
	Now    func() time.Time
	// Timeout is how long one exchange may take; the requests that wait for it wait no longer. 10 s by default.
	Timeout time.Duration
	// Retry is how long a failed exchange is answered from memory before the broker is asked again. 1 s by default.
	Retry time.Duration
	// Observe is told of every exchange that ended; nil for nobody.
	Observe func(err error)
}

// A Manager holds the live sessions of one proxy. It is safe for concurrent use.
type Manager struct {
	cfg Config

	mu         sync.Mutex
	entries    map[string]*entry
	transports map[[32]byte]*Transports
}

// entry is one principal's run on one cluster.
type entry struct {
	mu      sync.Mutex
	live    *Live
	refresh time.Time // when to renew live, ahead of its end
	pending chan struct{}
	failed  error // the last exchange's error, while it is remembered
	until   time.Time
	used    time.Time
}

// New returns a Manager that asks that broker.
func New(cfg Config) *Manager {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Retry == 0 {
		cfg.Retry = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Observe == nil {
		cfg.Observe = func(error) {}
	}
	return &Manager{cfg: cfg, entries: map[string]*entry{}, transports: map[[32]byte]*Transports{}}
}

// Who asks for a session: a verified caller, the token that proves it, and the tier the policy gives it today.
type Who struct {
	Principal access.Principal
	Bearer    string
	Tier      string
}

// margin is how long before its end a credential is no longer used for a new request.
const margin = 2 * time.Second

// Get returns the caller's live session on a cluster, opening or renewing it at the broker when that is needed. Callers
// of one session wait for one exchange; one that goes away disturbs none of the others.
func (m *Manager) Get(ctx context.Context, who Who, cluster access.Cluster) (*Live, error) {
	e := m.entry(who.Principal.Key()+"#"+cluster.Name, m.cfg.Now())
	for {
		e.mu.Lock()
		now := m.cfg.Now()
		e.used = now
		usable := e.live.usable(who.Tier, now)
		failing := e.failed != nil && now.Before(e.until)
		if e.pending == nil && !failing && (!usable || !now.Before(e.refresh)) {
			e.pending = make(chan struct{})
			go m.exchange(e, who, cluster) //nolint:gosec // for everybody who waits, so it must not end with one caller
		}
		live, failed, pending := e.live, e.failed, e.pending
		e.mu.Unlock()
		switch {
		case usable:
			return live, nil
		case failing:
			return nil, failed
		}
		select {
		case <-pending:
		case <-ctx.Done():
			return nil, access.Errorf(access.Unavailable, "the request ended before its session was open").Because(context.Cause(ctx))
		}
	}
}

// exchange asks the broker for e, apart from any caller's context.
func (m *Manager) exchange(e *entry, who Who, cluster access.Cluster) {
	ctx, cancel := context.WithTimeout(context.Background(), m.cfg.Timeout)
	defer cancel()
	live, err := m.open(ctx, who, cluster)
	m.cfg.Observe(err)
	e.mu.Lock()
	defer e.mu.Unlock()
	now := m.cfg.Now()
	if err == nil {
		e.live, e.failed = live, nil
		life := live.credential.Expires.Sub(now)
		jitter := 0.70 + 0.15*rand.Float64() //nolint:gosec // nobody gains by guessing it
		e.refresh = now.Add(time.Duration(float64(life) * jitter))
	} else {
		// The session is kept: until its credential ends it is as good as before.
		e.failed, e.until = err, now.Add(m.cfg.Retry)
	}
	close(e.pending)
	e.pending = nil
}

func (m *Manager) open(ctx context.Context, who Who, cluster access.Cluster) (*Live, error) {
	t, err := m.cfg.Broker.Exchange(ctx, who.Bearer, cluster.Name)
	if err != nil {
		return nil, err
	}
	base, err := url.Parse(t.Cluster.Endpoint)
	if err != nil || base.Scheme != "https" || t.Cluster.Name != cluster.Name || t.Session.Cluster != cluster.Name {
		return nil, access.Errorf(access.Internal, "the broker answered for another cluster; nothing was forwarded")
	}
	if t.Session.Principal.Key() != who.Principal.Key() {
		return nil, access.Errorf(access.Internal, "the broker answered for another principal; nothing was forwarded")
	}
	if t.Session.Tier != who.Tier {
		return nil, access.Errorf(access.Unavailable, "the policy changed a moment ago, and this task of the gate has not heard of it yet; nothing was forwarded, ask again").After(2 * time.Second)
	}
	transports, err := m.transport(t.Cluster.CA, base.Host)
	if err != nil {
		return nil, err
	}
	c := t.Credentials
	return &Live{
		Session: t.Session, Base: base, Transports: transports, MaskKey: t.MaskKey, now: m.cfg.Now, cluster: cluster,
		credential: access.Credential{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expires: c.Expiration},
	}, nil
}

func (m *Manager) entry(key string, now time.Time) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		e = &entry{used: now}
		m.entries[key] = e
	}
	return e
}

// Len is how many sessions are held.
func (m *Manager) Len() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.entries)
}

// Sweep forgets sessions that nobody used for idle. It is called now and then.
func (m *Manager) Sweep(idle time.Duration) {
	cutoff := m.cfg.Now().Add(-idle)
	m.mu.Lock()
	defer m.mu.Unlock()
	for k, e := range m.entries {
		e.mu.Lock()
		if e.pending == nil && e.used.Before(cutoff) {
			delete(m.entries, k)
		}
		e.mu.Unlock()
	}
}

// Live is a session that requests can be forwarded in.
type Live struct {
	Session    access.Session
	Base       *url.URL // the cluster's endpoint, https, without a path
	Transports *Transports

	// MaskKey is what equal values are masked alike with, in this session.
	MaskKey []byte

	now        func() time.Time
	cluster    access.Cluster
	credential access.Credential

	mu     sync.Mutex
	token  string
	minted time.Time
}

func (l *Live) usable(tier string, now time.Time) bool {
	return l != nil && l.Session.Tier == tier && now.Before(l.Session.Ends) && now.Add(margin).Before(l.credential.Expires)
}

// tokenUse is how long a minted token is used: its 15 minutes less what clocks and long requests may take.
const tokenUse = credential.TokenLife - 4*time.Minute

// Token is an EKS token of the session's tier for its cluster.
func (l *Live) Token(ctx context.Context) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if l.token != "" && now.Before(l.minted.Add(tokenUse)) {
		return l.token, nil
	}
	t, err := credential.Token(ctx, l.credential, l.cluster, now)
	if err != nil {
		return "", err
	}
	l.token, l.minted = t, now
	return t, nil
}

// Elevate is what one request is forwarded as once people let it through: the credential of the approval's tier, on l's own
// cluster. Only the request holds it; it is in no cache, so it is gone when the request is over.
func (l *Live) Elevate(t broker.Token, tier string) (*Live, error) {
	c := t.Credentials
	switch {
	case t.Tier != tier:
		return nil, access.Errorf(access.Unavailable, "the broker redeemed the approval for tier %q and this task of the gate decided on %q; nothing was forwarded, ask again", t.Tier, tier)
	case t.Session.Principal.Key() != l.Session.Principal.Key() || t.Session.Cluster != l.Session.Cluster:
		return nil, access.Errorf(access.Internal, "the broker redeemed the approval for somebody else, or another cluster; nothing was forwarded")
	case c.AccessKeyID == "" || c.SecretAccessKey == "":
		return nil, access.Errorf(access.Internal, "the broker redeemed the approval and sent no credential; nothing was forwarded")
	}
	s := l.Session
	s.Tier = tier
	return &Live{
		Session: s, Base: l.Base, Transports: l.Transports, MaskKey: l.MaskKey, now: l.now, cluster: l.cluster,
		credential: access.Credential{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expires: c.Expiration},
	}, nil
}

// Rejected says that the cluster did not accept the session's token: the next request asks the broker anew.
func (m *Manager) Rejected(who Who, cluster access.Cluster, l *Live) {
	e := m.entry(who.Principal.Key()+"#"+cluster.Name, m.cfg.Now())
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.live == l {
		e.live = nil
	}
}

// Transports are the connections to one cluster, shared by all its sessions.
type Transports struct {
	// Requests keeps connections alive between requests.
	Requests *http.Transport
	// Upgrades uses a connection for one request and never again, so that whatever is left on it after an upgrade,
	// or after an upgrade that failed, reaches nobody (CVE-2018-1002105).
	Upgrades *http.Transport
}

func (m *Manager) transport(ca []byte, host string) (*Transports, error) {
	key := sha256.Sum256(append(append([]byte{}, ca...), "#"+host...))
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.transports[key]; ok {
		return t, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, access.Errorf(access.Internal, "the cluster's certificate authority cannot be read; nothing was forwarded")
	}
	base := http.Transport{
		Proxy:               nil, // no environment variable leads the gate's traffic elsewhere
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(1024)},
		TLSHandshakeTimeout: 5 * time.Second,
		// Answers are passed on as they are; nothing in between may unpack them.
		DisableCompression:     true,
		MaxResponseHeaderBytes: 256 << 10,
		ReadBufferSize:         4 << 10,
		Protocols:              new(http.Protocols),
	}
	base.Protocols.SetHTTP1(true)
	t := &Transports{Requests: base.Clone(), Upgrades: base.Clone()}
	t.Requests.MaxIdleConns = 4096
	t.Requests.MaxIdleConnsPerHost = 4096
	t.Requests.IdleConnTimeout = 90 * time.Second
	t.Upgrades.DisableKeepAlives = true
	m.transports[key] = t
	return t, nil
}
