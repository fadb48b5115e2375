package identity_test

import (
	"context"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// provider is an OIDC provider over TLS on loopback.
type provider struct {
	*httptest.Server
	mu       sync.Mutex
	document map[string]any
	jwks     any
	broken   func(w http.ResponseWriter, r *http.Request) bool // answers instead when it returns true
	requests atomic.Int64                                      // for keys
}

func newProvider(t testing.TB, signers ...signer) *provider {
	p := &provider{}
	p.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if r.URL.Path == "/jwks" {
			p.requests.Add(1)
		}
		if p.broken != nil && p.broken(w, r) {
			return
		}
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			json.NewEncoder(w).Encode(p.document)
		case "/jwks":
			json.NewEncoder(w).Encode(p.jwks)
		default:
			http.NotFound(w, r)
		}
	}))
	t.Cleanup(p.Close)
	p.document = map[string]any{"issuer": p.URL, "jwks_uri": p.URL + "/jwks"}
	p.publish(signers...)
	return p
}

func (p *provider) publish(signers ...signer) {
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, s := range signers {
		set.Keys = append(set.Keys, s.public())
	}
	p.set(func() { p.jwks = set })
}

func (p *provider) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
}

// breakDown makes the provider answer everything with a status, or go back to work when it is 0.
func (p *provider) breakDown(status int) {
	p.set(func() {
		p.broken = nil
		if status != 0 {
			p.broken = func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(status); return true }
		}
	})
}

func (p *provider) issuer() access.Issuer {
	i := trustedIssuer()
	i.URL, i.Private = p.URL, true
	return i
}

func (p *provider) roots() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(p.Certificate())
	return pool
}

func (p *provider) token(s signer, set map[string]any) string {
	all := map[string]any{"iss": p.URL}
	for k, v := range set {
		all[k] = v
	}
	return s.sign(s.header(), with(all))
}

// gate is a Verifier with a Fetcher on a clock, its tokens good for long.
func (p *provider) gate(t testing.TB) (*identity.Verifier, *identity.Fetcher, *clock) {
	t.Helper()
	c := &clock{now: at}
	f, err := identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{p.issuer()}, Now: c.Now, Roots: p.roots()})
	if err != nil {
		t.Fatal(err)
	}
	v, err := identity.New(identity.Config{Issuers: []access.Issuer{p.issuer()}, Keys: f, Now: c.Now})
	if err != nil {
		t.Fatal(err)
	}
	return v, f, c
}

// forever are claims of a token that outlives these tests' clocks.
func forever(n int) map[string]any {
	return map[string]any{"exp": at.Add(1000 * time.Hour).Unix(), "jti": n, "iat": nil, "nbf": nil}
}

func (p *provider) asked(t *testing.T, want int64) {
	t.Helper()
	if n := p.requests.Load(); n != want {
		t.Errorf("the issuer was asked for its keys %d times, want %d", n, want)
	}
}

func TestFetcher(t *testing.T) {
	p := newProvider(t, es256, rs256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	accepted(t, v, p.token(rs256, forever(0)))
	p.asked(t, 1)
	c.Advance(identity.Fresh - 1)
	accepted(t, v, p.token(es256, forever(1)))
	p.asked(t, 1)
	c.Advance(1)
	accepted(t, v, p.token(es256, forever(2)))
	p.asked(t, 2)
}

func TestFetcherJWKS(t *testing.T) {
	p := newProvider(t, es256)
	p.set(func() { p.document = nil })
	i := p.issuer()
	i.JWKS = p.URL + "/jwks"
	f := must(identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{i}, Roots: p.roots()}))
	set, err := f.Keys(t.Context(), i, "es")
	if err != nil || len(set.Keys) != 1 {
		t.Errorf("%v, %v", set, err)
	}
}

// O4: keys that change.
func TestO4Rotation(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	old := p.token(es256, forever(0))
	accepted(t, v, old)
	c.Advance(identity.RefreshEvery)

	// A new key is known with the first token signed with it.
	p.publish(rs256, es256)
	accepted(t, v, p.token(rs256, forever(1)))
	p.asked(t, 2)
	accepted(t, v, p.token(es256, forever(2)))

	// A key withdrawn is out when the keys are no longer fresh, even for a token that was remembered.
	p.publish(rs256)
	c.Advance(identity.Fresh - time.Second)
	accepted(t, v, old)
	c.Advance(identity.Reverify + 1)
	refused(t, v, old, access.Unauthenticated, "not among")
	refused(t, v, p.token(es256, forever(3)), access.Unauthenticated, "not among")
	accepted(t, v, p.token(rs256, forever(4)))

	// All of them can be withdrawn.
	p.publish()
	c.Advance(identity.Fresh + identity.Reverify)
	refused(t, v, p.token(rs256, forever(5)), access.Unauthenticated, "not among")
}

// O4: an issuer that is away. Old keys serve for a bounded time, then nothing does.
func TestO4Outage(t *testing.T) {
	for name, fault := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"500": func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(500); return true },
		"500 with keys": func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/jwks" {
				w.WriteHeader(500)
			}
			return jwksOnly(w, r, `{"keys":[]}`)
		},
		"padded endlessly": func(w http.ResponseWriter, r *http.Request) bool {
			return jwksOnly(w, r, `{"keys":[]}`+strings.Repeat(" ", 2<<20))
		},
		"404":             func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(404); return true },
		"204":             func(w http.ResponseWriter, r *http.Request) bool { w.WriteHeader(204); return true },
		"connection cut":  func(w http.ResponseWriter, r *http.Request) bool { panic(http.ErrAbortHandler) },
		"an HTML page":    func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, "<html>"); return true },
		"an empty object": func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, "{}"); return true },
		"null":            func(w http.ResponseWriter, r *http.Request) bool { fmt.Fprint(w, "null"); return true },
		"keys null":       func(w http.ResponseWriter, r *http.Request) bool { return jwksOnly(w, r, `{"keys":null}`) },
		"keys an object":  func(w http.ResponseWriter, r *http.Request) bool { return jwksOnly(w, r, `{"keys":{}}`) },
		"keys twice":      func(w http.ResponseWriter, r *http.Request) bool { return jwksOnly(w, r, `{"keys":[],"keys":[]}`) },
		"KEYS":            func(w http.ResponseWriter, r *http.Request) bool { return jwksOnly(w, r, `{"KEYS":[]}`) },
		"too many keys": func(w http.ResponseWriter, r *http.Request) bool {
			return jwksOnly(w, r, `{"keys":[`+strings.Repeat("{},", 100)+`{}]}`)
		},
		"endless": func(w http.ResponseWriter, r *http.Request) bool {
			return jwksOnly(w, r, `{"keys":[`+strings.Repeat(" ", 2<<20)+`]}`)
		},
		"cut in the middle": func(w http.ResponseWriter, r *http.Request) bool { return jwksOnly(w, r, `{"keys":[`) },
		"redirect elsewhere": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://issuer.example/jwks", 302)
			return true
		},
		"redirect to http": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://"+r.Host+"/x", 302)
			return true
		},
		"redirect in circles": func(w http.ResponseWriter, r *http.Request) bool { http.Redirect(w, r, r.URL.Path, 307); return true },
		"moved to metadata": func(w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "http://169.254.169.254/latest", 302)
			return true
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, es256)
			v, f, c := p.gate(t)
			p.set(func() { p.broken = fault })
			refused(t, v, p.token(es256, forever(0)), access.Unavailable, "try again")
			c.Advance(identity.RefreshEvery)
			p.breakDown(0)
			accepted(t, v, p.token(es256, forever(1)))

			p.set(func() { p.broken = fault })
			c.Advance(identity.Stale)
			accepted(t, v, p.token(es256, forever(2)))
			if all, err := f.All(t.Context()); len(all) != 1 || err == nil {
				t.Errorf("All: %d sets, error %v", len(all), err)
			}
			// Whether there is such a key by now nobody knows.
			refused(t, v, p.token(rs256, forever(3)), access.Unavailable, "try again")
			c.Advance(1)
			refused(t, v, p.token(es256, forever(2)), access.Unavailable, "try again")
			refused(t, v, p.token(es256, forever(4)), access.Unavailable, "try again")
			if all, err := f.All(t.Context()); len(all) != 0 || err == nil {
				t.Errorf("All: %d sets, error %v", len(all), err)
			}

			p.breakDown(0)
			c.Advance(identity.RefreshEvery)
			accepted(t, v, p.token(es256, forever(5)))
			refused(t, v, p.token(rs256, forever(6)), access.Unauthenticated, "not among")
		})
	}
}

func jwksOnly(w http.ResponseWriter, r *http.Request, body string) bool {
	if r.URL.Path != "/jwks" {
		return false
	}
	fmt.Fprint(w, body)
	return true
}

// Keys in hand say nothing of a key that the issuer may have by now.
func TestO4UnknownKidInOutage(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	c.Advance(identity.RefreshEvery)
	p.breakDown(503)
	refused(t, v, p.token(rs256, forever(1)), access.Unavailable, "try again")
	refused(t, v, p.token(rs256, forever(2)), access.Unavailable, "try again")
	accepted(t, v, p.token(es256, forever(3)))
}

// An outage is tried for at most once every RefreshEvery, and slow answers hold nobody up for whom there are keys.
func TestO4OutageIsNotHammered(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	p.breakDown(500)
	p.requests.Store(0)
	p.set(func() {
		p.broken = func(w http.ResponseWriter, r *http.Request) bool {
			p.requests.Add(1) // the discovery document is asked for first
			w.WriteHeader(500)
			return true
		}
	})
	c.Advance(identity.Fresh)
	for n := range 60 {
		accepted(t, v, p.token(es256, forever(n+1)))
		c.Advance(time.Second)
	}
	p.asked(t, 6)
}

// O4: a flood of tokens with made-up key ids asks the issuer once.
func TestO4UnknownKid(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	p.asked(t, 1)
	c.Advance(identity.RefreshEvery)
	flood := func() {
		var wg sync.WaitGroup
		for n := range 500 {
			wg.Go(func() {
				unknown := stranger
				unknown.kid = fmt.Sprint("kid", n)
				if _, err := v.Verify(context.Background(), p.token(unknown, forever(n))); access.KindOf(err) != access.Unauthenticated {
					t.Errorf("%v", err)
				}
			})
		}
		wg.Wait()
	}
	flood()
	p.asked(t, 2)
	flood()
	p.asked(t, 2)
	// Who has a key that is held is not touched by it.
	accepted(t, v, p.token(es256, forever(1)))
	c.Advance(identity.RefreshEvery - 1)
	flood()
	p.asked(t, 2)
	c.Advance(1)
	flood()
	p.asked(t, 3)
	// A clock that is set back does not stop it for longer.
	c.Advance(-time.Hour)
	flood()
	p.asked(t, 4)
	// Nor does it keep a key that is withdrawn.
	accepted(t, v, p.token(es256, forever(2)))
	p.publish(rs256)
	c.Advance(identity.Fresh)
	refused(t, v, p.token(es256, forever(3)), access.Unauthenticated, "not among")
}

// Many at once for keys that nobody has yet are one request.
func TestFetcherSingleFlight(t *testing.T) {
	p := newProvider(t, es256)
	v, f, _ := p.gate(t)
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			if n%10 == 0 {
				f.All(context.Background())
			} else if _, err := v.Verify(context.Background(), p.token(es256, forever(n))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	p.asked(t, 1)
}

// A caller who goes away takes nobody's answer with him, and waits no longer than he wants.
func TestFetcherCallerGone(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	release := make(chan struct{})
	arrived := make(chan struct{}, 10)
	p.set(func() {
		p.broken = func(w http.ResponseWriter, r *http.Request) bool { arrived <- struct{}{}; <-release; return false }
	})
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		_, err := v.Verify(ctx, p.token(es256, forever(0)))
		gone <- err
	}()
	<-arrived // the request is his who goes
	stays := make(chan error)
	go func() {
		_, err := v.Verify(context.Background(), p.token(es256, forever(1)))
		stays <- err
	}()
	c.Advance(2 * identity.RefreshEvery)
	cancel()
	if err := <-gone; access.KindOf(err) != access.Unavailable || access.AsError(err).RetryAfter < time.Second {
		t.Errorf("who went away got %v, to ask again after %v", err, access.AsError(err).RetryAfter)
	}
	close(release)
	<-arrived
	if err := <-stays; err != nil {
		t.Errorf("who stayed got %v", err)
	}
}

// Who goes away while his key is asked for is not told that there is none.
func TestFetcherCallerGoneEarly(t *testing.T) {
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	p.publish(es256, rs256)
	c.Advance(identity.RefreshEvery)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := v.Verify(ctx, p.token(rs256, forever(1))); access.KindOf(err) != access.Unavailable {
		t.Errorf("who went away got %v", err)
	}
	accepted(t, v, p.token(rs256, forever(2)))
}

// With keys in hand nobody waits long for newer ones.
func TestFetcherPatience(t *testing.T) {
	t.Parallel()
	p := newProvider(t, es256)
	v, f, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	release := make(chan struct{})
	defer close(release)
	p.set(func() { p.broken = func(w http.ResponseWriter, r *http.Request) bool { <-release; return false } })
	c.Advance(identity.Fresh)
	began := time.Now()
	for n := range 20 {
		accepted(t, v, p.token(es256, forever(n+1)))
	}
	if took := time.Since(began); took > 4*time.Second {
		t.Errorf("20 tokens took %v while the issuer was slow", took)
	}
	if all, err := f.All(t.Context()); len(all) != 1 || err == nil {
		t.Errorf("All: %d sets, error %v", len(all), err)
	}
	if took := time.Since(began); took > 4900*time.Millisecond {
		t.Errorf("All waited for the issuer: %v", took)
	}
}

// Without keys that may be used, everybody waits for the issuer as long as it is given.
func TestFetcherSlow(t *testing.T) {
	t.Parallel()
	p := newProvider(t, es256)
	v, _, c := p.gate(t)
	accepted(t, v, p.token(es256, forever(0)))
	c.Advance(identity.Stale + 1)
	p.set(func() {
		p.broken = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/jwks" {
				time.Sleep(2500 * time.Millisecond)
			}
			return false
		}
	})
	accepted(t, v, p.token(es256, forever(1)))
}

func TestDiscovery(t *testing.T) {
	other := newProvider(t, es256)
	for name, document := range map[string]func(p *provider) map[string]any{
		"another issuer": func(p *provider) map[string]any {
			return map[string]any{"issuer": other.URL, "jwks_uri": p.URL + "/jwks"}
		},
		"off by a slash": func(p *provider) map[string]any {
			return map[string]any{"issuer": p.URL + "/", "jwks_uri": p.URL + "/jwks"}
		},
		"no issuer": func(p *provider) map[string]any { return map[string]any{"jwks_uri": p.URL + "/jwks"} },
		"issuer a list": func(p *provider) map[string]any {
			return map[string]any{"issuer": []string{p.URL}, "jwks_uri": p.URL + "/jwks"}
		},
		"ISSUER":      func(p *provider) map[string]any { return map[string]any{"ISSUER": p.URL, "jwks_uri": p.URL + "/jwks"} },
		"no jwks_uri": func(p *provider) map[string]any { return map[string]any{"issuer": p.URL} },
		"jwks_uri over http": func(p *provider) map[string]any {
			return map[string]any{"issuer": p.URL, "jwks_uri": "http://issuer.example/jwks"}
		},
		"jwks_uri a file": func(p *provider) map[string]any {
			return map[string]any{"issuer": p.URL, "jwks_uri": "file:///etc/passwd"}
		},
		"jwks_uri with a user": func(p *provider) map[string]any {
			return map[string]any{"issuer": p.URL, "jwks_uri": "https://a:b@" + p.Listener.Addr().String() + "/jwks"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProvider(t, es256)
			p.set(func() { p.document = document(p) })
			v, _, _ := p.gate(t)
			refused(t, v, p.token(es256, nil), access.Unavailable, "cannot be had")
		})
	}
}

// A redirect to another host is not followed, though the keys there are good, and one in circles not for long.
func TestFetcherRedirects(t *testing.T) {
	other := newProvider(t, es256)
	p := newProvider(t, es256)
	to, hops := other.URL+"/jwks", 0
	p.set(func() {
		p.broken = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/jwks" {
				hops++
				http.Redirect(w, r, to, http.StatusFound)
				return true
			}
			return false
		}
	})
	v, _, c := p.gate(t)
	refused(t, v, p.token(es256, forever(0)), access.Unavailable, "try again")
	other.asked(t, 0)
	p.set(func() { to, hops = "/jwks", 0 })
	c.Advance(identity.RefreshEvery)
	refused(t, v, p.token(es256, forever(0)), access.Unavailable, "try again")
	if hops > 4 {
		t.Errorf("followed %d redirects", hops)
	}
}

// A redirect on the same host is followed; TLS is checked.
func TestFetcherTransport(t *testing.T) {
	p := newProvider(t, es256)
	p.set(func() {
		p.document["jwks_uri"] = p.URL + "/old"
		p.broken = func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/old" {
				http.Redirect(w, r, "/jwks", http.StatusMovedPermanently)
				return true
			}
			return false
		}
	})
	v, _, _ := p.gate(t)
	accepted(t, v, p.token(es256, nil))

	f := must(identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{p.issuer()}})) // the system's roots
	if _, err := f.Keys(t.Context(), p.issuer(), "es"); access.KindOf(err) != access.Unavailable || !strings.Contains(fmt.Sprint(access.AsError(err).Cause), "certificate") {
		t.Errorf("a stranger's certificate: %v (%v)", err, access.AsError(err).Cause)
	}
	stray := p.issuer()
	stray.URL = "https://stray.example"
	if _, err := f.Keys(t.Context(), stray, ""); access.KindOf(err) != access.Unavailable {
		t.Errorf("an issuer it was not made for: %v", err)
	}
}

// E3: a name that resolves to where no issuer may be is refused when the connection is made.
func TestE3AfterResolution(t *testing.T) {
	p := newProvider(t, es256)
	port := p.Listener.Addr().(*net.TCPAddr).Port
	for _, ip := range []string{"127.0.0.1", "169.254.169.254", "169.254.170.2", "10.0.0.1", "172.31.255.255", "192.168.0.1", "100.64.1.1", "0.0.0.0"} {
		t.Run(ip, func(t *testing.T) {
			i := trustedIssuer()
			i.URL = fmt.Sprintf("https://issuer.example:%d", port)
			f := must(identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{i}, Roots: p.roots(), Resolver: resolver(t, ip)}))
			_, err := f.Keys(t.Context(), i, "es")
			cause := fmt.Sprint(access.AsError(err).Cause)
			if access.KindOf(err) != access.Unavailable || !strings.Contains(cause, "refusing to connect to "+ip) {
				t.Errorf("%v (%s)", err, cause)
			}
		})
	}
	p.asked(t, 0)
	// Marked private, the same name may: the server is reached and its document is found to be another's.
	i := trustedIssuer()
	i.URL, i.Private = fmt.Sprintf("https://example.com:%d", port), true // the test server's certificate names example.com
	f := must(identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{i}, Roots: p.roots(), Resolver: resolver(t, "127.0.0.1")}))
	_, err := f.Keys(t.Context(), i, "es")
	if cause := fmt.Sprint(access.AsError(err).Cause); !strings.Contains(cause, "the document is that of") {
		t.Errorf("private: %v (%s)", err, cause)
	}
}

// E3: so is an address that a public issuer's discovery document leads to.
func TestE3Addresses(t *testing.T) {
	for _, test := range []struct {
		address string
		private bool
		ok      bool
	}{
		{"1.1.1.1:443", false, true},
		{"[2606:4700:4700::1111]:443", false, true},
		{"127.0.0.1:443", false, false},
		{"127.0.0.1:443", true, true},
		{"127.0.0.1:80", true, true},
		{"[::1]:80", true, true},
		{"[::1]:443", false, false},
		{"[::ffff:127.0.0.1]:443", false, false},
		{"[::ffff:169.254.169.254]:443", false, false},
		{"[::127.0.0.1]:443", false, false},
		{"169.254.169.254:80", false, false},
		{"[fd00:ec2::254]:80", false, false},
		{"[fe80::1%eth0]:443", false, false},
		{"[64:ff9b::a00:1]:443", false, false},
		{"[2002:a00:1::]:443", false, false},
		{"[2001:0:a00:1::]:443", false, false},
		{"[ff02::1]:443", true, false},
		{"224.0.0.1:443", true, false},
		{"0.0.0.0:443", true, false},
		{"[::ffff:0.0.0.0]:443", true, false},
		{"[::ffff:1.1.1.1]:443", false, true},
		{"[::]:443", true, false},
		{"255.255.255.255:443", false, false},
		{"100.100.100.100:443", false, false},
		{"10.0.0.1:443", true, true},
		{"192.168.1.1:443", false, false},
		{"198.18.0.1:443", false, false},
		{"192.0.2.1:443", false, false},
		{"not an address", true, false},
		{"/run/socket", true, false},
	} {
		if err := identity.CheckDial(test.address, test.private); (err == nil) != test.ok {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

// resolver answers every name with one IPv4 address.
func resolver(t *testing.T, ip string) *net.Resolver {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		buf := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			// RFC 1035 §4.1: header, one question; the answer points back to the question's name.
			end := 12
			for buf[end] != 0 {
				end += int(buf[end]) + 1
			}
			end += 5
			if end > n {
				continue
			}
			a := binary.BigEndian.Uint16(buf[end-4:]) == 1
			reply := append([]byte{buf[0], buf[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, buf[12:end]...)
			if a {
				reply[7] = 1
				reply = append(reply, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
				reply = append(reply, net.ParseIP(ip).To4()...)
			}
			conn.WriteTo(reply, from)
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
}

func TestFetcherAll(t *testing.T) {
	a, b := newProvider(t, es256, rs256), newProvider(t, ed)
	a.set(func() {
		set := a.jwks.(jose.JSONWebKeySet)
		a.jwks = jose.JSONWebKeySet{Keys: append(set.Keys, jose.JSONWebKey{Key: []byte("a secret of sixteen bytes or more"), KeyID: "oct", Algorithm: "HS256"}, jose.JSONWebKey{Key: stranger.key, KeyID: "private", Algorithm: "ES256"})}
	})
	roots := a.roots()
	roots.AddCert(b.Certificate())
	c := &clock{now: at}
	f := must(identity.NewFetcher(identity.FetcherConfig{Issuers: []access.Issuer{a.issuer(), b.issuer()}, Now: c.Now, Roots: roots}))
	all, err := f.All(t.Context())
	if err != nil || len(all) != 2 {
		t.Fatalf("%v, %v", all, err)
	}
	for _, k := range all {
		if !k.Fetched.Equal(at) {
			t.Errorf("fetched %v", k.Fetched)
		}
		for _, secret := range []string{`"oct"`, `"d"`, `"k"`, "private"} {
			if strings.Contains(string(k.JWKS), secret) {
				t.Errorf("%s is in %s", secret, k.JWKS)
			}
		}
	}
	f.All(t.Context())
	a.asked(t, 1)

	// A key that is new is in the next answer, since that is what a ring asks for it with.
	c.Advance(identity.RefreshEvery)
	b.publish(stranger)
	if all, err = f.All(t.Context()); err != nil || !strings.Contains(fmt.Sprintf("%s %s", all[0].JWKS, all[1].JWKS), `"EC"`) {
		t.Errorf("%s, %v", all, err)
	}

	// One that is away takes nothing from the others.
	b.breakDown(500)
	c.Advance(identity.RefreshEvery)
	all, err = f.All(t.Context())
	if len(all) != 2 || err == nil || !strings.Contains(err.Error(), b.URL) {
		t.Errorf("%v, %v", all, err)
	}
	c.Advance(identity.Stale)
	all, err = f.All(t.Context())
	if len(all) != 1 || all[0].Issuer != a.URL || err == nil {
		t.Errorf("%v, %v", all, err)
	}
}
