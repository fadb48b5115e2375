package stacktest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Request is a request byte by byte: net/http would put right what a test wants wrong.
type Request struct {
	Method string // GET when empty
	Target string // as it stands in the request line
	// Header are whole lines, in order. Host is added when there is none.
	Header []string
	// Body is sent with its Content-Length, unless a line of Header says how it is framed.
	Body string
}

// Answer is what came back.
type Answer struct {
	Code   int
	Header http.Header
	Body   string
}

// AuditID is the id the answer was given, in the gate's record and in the cluster's audit log.
func (a Answer) AuditID() string { return a.Header.Get("Audit-Id") }

// Status is the answer's Kubernetes Status.
func (a Answer) Status() (metav1.Status, error) {
	var s metav1.Status
	if media := a.Header.Get("Content-Type"); media != "application/json" {
		return s, fmt.Errorf("its Content-Type is %q", media)
	}
	d := json.NewDecoder(strings.NewReader(a.Body))
	if err := d.Decode(&s); err != nil {
		return s, fmt.Errorf("it is no JSON: %w", err)
	}
	if s.Kind != "Status" || s.APIVersion != "v1" || s.Status != metav1.StatusFailure {
		return s, fmt.Errorf("it is no failed Status: %s", a.Body)
	}
	if int(s.Code) != a.Code {
		return s, fmt.Errorf("the Status says %d, the answer %d", s.Code, a.Code)
	}
	return s, nil
}

func (a Answer) String() string { return fmt.Sprintf("%d %v\n%s", a.Code, a.Header, clip(a.Body)) }

// bytes are the request as it goes over the wire.
func (r Request) bytes(host string) []byte {
	method := r.Method
	if method == "" {
		method = http.MethodGet
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", method, r.Target)
	has := func(names ...string) bool {
		for _, line := range r.Header {
			for _, n := range names {
				if strings.HasPrefix(strings.ToLower(line), n+":") {
					return true
				}
			}
		}
		return false
	}
	if !has("host") {
		fmt.Fprintf(&b, "Host: %s\r\n", host)
	}
	for _, line := range r.Header {
		fmt.Fprintf(&b, "%s\r\n", line)
	}
	if r.Body != "" && !has("content-length", "transfer-encoding") {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	b.WriteString("\r\n" + r.Body)
	return b.Bytes()
}

// Conn is one connection to a gate, HTTP/1.1.
type Conn struct {
	net.Conn
	host string
	seen *transcript
	r    *bufio.Reader
}

// Dial opens a connection to the gate.
func (s *Stack) Dial(t testing.TB) *Conn { return s.DialGate(t, s.Proxy.URL) }

// DialGate opens a connection to the gate at an address of its own.
func (s *Stack) DialGate(t testing.TB, gate string) *Conn {
	t.Helper()
	u, err := url.Parse(gate)
	if err != nil {
		t.Fatal(err)
	}
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: s.TLS(t)}
	c, err := d.DialContext(t.Context(), "tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &Conn{Conn: c, host: u.Host, seen: s.seen, r: bufio.NewReader(c)}
}

// TLS trusts the gate's certificate authority, and nobody else.
func (s *Stack) TLS(t testing.TB) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(s.Proxy.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		t.Fatalf("%s holds no certificate", s.Proxy.CA)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// Send sends a request. What the gate does with it shows in Receive: it may well close the connection before it read
// all of it.
func (c *Conn) Send(r Request) {
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	_, _ = c.Write(r.bytes(c.host))
}

// Receive reads one answer.
func (c *Conn) Receive(method string) (Answer, error) {
	res, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	a := Answer{Code: res.StatusCode, Header: res.Header}
	if res.StatusCode != http.StatusSwitchingProtocols {
		a.Body = readAll(res.Body)
	}
	var head strings.Builder
	_ = res.Header.Write(&head)
	c.seen.show("raw answer", head.String(), a.Body)
	return a, nil
}

// Do sends one request to the gate on a connection of its own.
func (s *Stack) Do(t testing.TB, r Request) Answer {
	t.Helper()
	return s.DoGate(t, s.Proxy.URL, r)
}

// DoGate is Do at the gate with an address of its own.
func (s *Stack) DoGate(t testing.TB, gate string, r Request) Answer {
	t.Helper()
	c := s.DialGate(t, gate)
	defer c.Close()
	c.Send(r)
	a, err := c.Receive(r.Method)
	if err != nil {
		t.Fatalf("%s %s: no answer: %v", r.Method, clip(r.Target), err)
	}
	return a
}

// Bearer is the header line that carries a token.
func Bearer(token string) string { return "Authorization: Bearer " + token }

// Path is a path of the cluster as the gate has it.
func (s *Stack) Path(p string) string { return "/clusters/" + s.Cluster.Name + p }

// Get is a plain GET of the agent's.
func (a *Agent) Get(t testing.TB, path string, header ...string) Answer {
	t.Helper()
	return a.stack.Do(t, Request{Target: a.stack.Path(path), Header: append([]string{Bearer(a.Token)}, header...)})
}

// Post is a POST of the agent's, of JSON.
func (a *Agent) Post(t testing.TB, path, body string, header ...string) Answer {
	t.Helper()
	return a.stack.Do(t, Request{Method: http.MethodPost, Target: a.stack.Path(path), Body: body,
		Header: append([]string{Bearer(a.Token), "Content-Type: application/json"}, header...)})
}

// Review is the body that asks the cluster who it takes the caller for, and ReviewPath where it is posted.
const (
	Review     = `{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`
	ReviewPath = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
)

// Username reads who the cluster takes the caller for out of the answer to a Review.
func (a Answer) Username() (string, error) {
	var review struct {
		Status struct {
			UserInfo struct {
				Username string
				Groups   []string
			}
		}
	}
	if a.Code != http.StatusCreated {
		return "", fmt.Errorf("the review was answered %v", a)
	}
	if err := json.Unmarshal([]byte(a.Body), &review); err != nil {
		return "", err
	}
	return review.Status.UserInfo.Username, nil
}

// Whoami is the name the cluster knows the agent by.
func (a *Agent) Whoami(t testing.TB) string {
	t.Helper()
	name, err := a.Post(t, ReviewPath, Review).Username()
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Client is an HTTP client of the agent's with connections of its own, over HTTP/2 when wanted.
func (a *Agent) Client(t testing.TB, http2 bool) *http.Client {
	t.Helper()
	tr := &http.Transport{TLSClientConfig: a.stack.TLS(t), ForceAttemptHTTP2: http2, MaxIdleConnsPerHost: 64}
	if !http2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// Request is a request of the agent's for Client.
func (a *Agent) Request(ctx context.Context, t testing.TB, path string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.Base()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+a.Token)
	return r
}
