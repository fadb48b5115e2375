package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

const (
	timeout     = 5 * time.Second // for one issuer's discovery document and keys together
	maxResponse = 1 << 20         // bytes
)

// FetcherConfig is what a Fetcher is made from.
type FetcherConfig struct {
	// Issuers are the issuers whose keys it fetches; it asks no other.
	Issuers []access.Issuer
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Roots are the certificate authorities that issuers' servers are verified with; nil means the system's.
	Roots *x509.CertPool
	// Resolver resolves their names; nil means the system's.
	Resolver *net.Resolver
}

// A Fetcher is the KeySource that asks the issuers themselves. It is for the side that has a way out to the internet.
//
// It connects to nothing but the issuers' addresses, their key sets' addresses, and only over TLS: whatever name or
// redirect leads there, a connection to a loopback, link-local, private or metadata address is refused when it is made,
// after the name is resolved, unless the issuer is private. It follows redirects on the same host only, reads at most
// 1 MiB, uses no proxy from the environment, and gives up after five seconds.
//
// Nothing runs in the background between calls, so it works in a function that is frozen between invocations.
type Fetcher struct {
	now     func() time.Time
	shelf   shelf
	issuers map[string]*fetched
}

// fetched is an issuer with what its keys are fetched by.
type fetched struct {
	access.Issuer
	client  *http.Client
	refresh *refresher
}

// NewFetcher returns a Fetcher. The error, of kind Invalid, names the issuer and what is wrong with it.
func NewFetcher(c FetcherConfig) (*Fetcher, error) {
	if err := checkIssuers(c.Issuers); err != nil {
		return nil, err
	}
	f := &Fetcher{now: wall(c.Now), issuers: map[string]*fetched{}}
	for _, i := range c.Issuers {
		in := &fetched{Issuer: i, client: client(c, i.Private)}
		in.refresh = &refresher{now: f.now, timeout: timeout, run: func(ctx context.Context) error { return f.fetch(ctx, in) }}
		f.issuers[i.URL] = in
	}
	return f, nil
}

// Keys implements [KeySource].
func (f *Fetcher) Keys(ctx context.Context, issuer access.Issuer, kid string) (*jose.JSONWebKeySet, error) {
	in := f.issuers[issuer.URL]
	if in == nil {
		return nil, unavailable(issuer.URL, RefreshEvery, errors.New("not one of the issuers to fetch keys of"))
	}
	return f.shelf.lookup(ctx, issuer.URL, kid, f.now, in.refresh)
}

// All returns the keys of every issuer, in the order of their URLs, for a [Ring] to hold. It asks each issuer again
// that was not asked within [RefreshEvery], so a Ring that lacks a key gets it by asking for All. An issuer whose keys
// are older than [Stale] and cannot be had is left out. The error says which could not be asked, for the log; what is
// returned with it is good. An issuer that is slow holds up the others' keys for two seconds, and only if its own are
// not held yet for the five that it is given.
func (f *Fetcher) All(ctx context.Context) ([]IssuerKeys, error) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	for url, in := range f.issuers {
		wg.Go(func() {
			flight, _ := in.refresh.start(ctx)
			err := in.refresh.last()
			if flight != nil {
				h, ok := f.shelf.get(url)
				err = flight.wait(ctx, ok && age(h, f.now) <= Stale)
			}
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed = append(failed, err)
			}
		})
	}
	wg.Wait()
	all := []IssuerKeys{}
	for url := range f.issuers {
		h, ok := f.shelf.get(url)
		if !ok || age(h, f.now) > Stale {
			continue
		}
		jwks, err := json.Marshal(h.set)
		if err != nil {
			failed = append(failed, fmt.Errorf("keys of issuer %q: %w", url, err))
			continue
		}
		all = append(all, IssuerKeys{Issuer: url, JWKS: jwks, Fetched: h.fetched})
	}
	slices.SortFunc(all, func(a, b IssuerKeys) int { return strings.Compare(a.Issuer, b.Issuer) })
	return all, errors.Join(failed...)
}

// fetch asks an issuer for its keys and puts them on the shelf.
func (f *Fetcher) fetch(ctx context.Context, in *fetched) error {
	began := f.now() // keys are as old as the question, not the answer
	address := in.JWKS
	if address == "" {
		var err error
		if address, err = discover(ctx, in); err != nil {
			return fmt.Errorf("discovery of issuer %q: %w", in.URL, err)
		}
	}
	data, err := get(ctx, in.client, address)
	if err != nil {
		return fmt.Errorf("keys of issuer %q: %w", in.URL, err)
	}
	set, err := parseKeys(data)
	if err != nil {
		return fmt.Errorf("keys of issuer %q: %w", in.URL, err)
	}
	f.shelf.put(in.URL, held{set: set, fetched: began}, f.now())
	return nil
}

// discover is the address of an issuer's keys, by its discovery document (OpenID Connect Discovery §4).
func discover(ctx context.Context, in *fetched) (string, error) {
	data, err := get(ctx, in.client, strings.TrimSuffix(in.URL, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	document, err := object(data)
	if err != nil {
		return "", fmt.Errorf("the document %w", err)
	}
	// §4.3: the document must be the issuer's own, or one issuer could speak for another.
	if issuer, _ := text(document["issuer"]); issuer != in.URL {
		return "", fmt.Errorf("the document is that of issuer %s", short(issuer))
	}
	address, _ := text(document["jwks_uri"])
	if err := checkURL(address, in.Private); err != nil {
		return "", fmt.Errorf("its jwks_uri %s: %w", short(address), err)
	}
	return address, nil
}

func get(ctx context.Context, client *http.Client, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", address, err)
	}
	if len(data) > maxResponse {
		return nil, fmt.Errorf("%s answered more than %d bytes", address, maxResponse)
	}
	return data, nil
}

// client is the HTTP client for one issuer.
func client(c FetcherConfig, private bool) *http.Client {
	dialer := &net.Dialer{Timeout: timeout, Resolver: c.Resolver, Control: func(_, address string, _ syscall.RawConn) error {
		return checkDial(address, private)
	}}
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			// Proxy is nil: through a proxy the addresses that are checked would be the proxy's.
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
			ForceAttemptHTTP2:      true,
			TLSHandshakeTimeout:    timeout,
			ResponseHeaderTimeout:  timeout,
			DisableKeepAlives:      true, // a frozen function's idle connections are dead when it wakes
			MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			switch {
			case len(via) > 3:
				return errors.New("too many redirects")
			case req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme:
				return errors.New("redirected to another host")
			}
			return nil
		},
	}
}

// checkDial refuses addresses that an issuer cannot be at. It sees the address a connection is about to be made to.
func checkDial(address string, private bool) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("refusing to connect to %q: not an address", address)
	}
	ip := ap.Addr().Unmap()
	if private && !ip.IsUnspecified() && !ip.IsMulticast() || public(ip) {
		return nil
	}
	return fmt.Errorf("refusing to connect to %s: a loopback, link-local or private address, and the issuer is not marked private", ip)
}
