package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// The gate's headers.
const (
	headerAsk    = "Sallyport-Ask"
	headerReason = "Sallyport-Reason"
)

const (
	maxBody   = 8 << 20 // of a request
	maxStatus = 1 << 20 // of an answer that is looked at
)

// A relay stands between a command and the gate, on this machine. It marks every request as asked ahead, so that nothing is
// done, and remembers what the gate answers. Before anything goes through it makes sure that the server is a gate: any other
// would not know the mark, and do what is asked.
type relay struct {
	url         string // for the command: with a path nobody else on this machine knows
	certificate []byte // PEM, of the command's side

	upstream  *url.URL
	secret    string // first segment of the path
	reason    string // encoded
	transport http.RoundTripper
	proxy     *httputil.ReverseProxy
	server    *http.Server

	mu   sync.Mutex
	gate bool // the server is one
	seen []*reply
}

// A reply is what the gate said to one request.
type reply struct {
	Method   string `json:"method"`
	Target   string `json:"target"`
	Answer   string `json:"answer"`
	Code     int    `json:"code"`
	Approval string `json:"approval,omitempty"`
	State    string `json:"state,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Expires  string `json:"expires,omitempty"`
	Until    string `json:"until,omitempty"`
	Message  string `json:"message,omitempty"`

	id     string // of the request
	header http.Header
	body   []byte
	silent int // answers in a row that said nothing
}

// What the gate's answers come to.
const (
	answerWaiting   = "waiting"
	answerApproved  = "approved"
	answerNotNeeded = "not needed"
	answerDenied    = "denied"
	answerFailed    = "failed"
)

// advice is what to do about an answer that is no approval.
func (a *reply) advice() string {
	switch {
	case a.Code == http.StatusUnauthorized:
		return "get a token of the issuer that the gate trusts, and run it again"
	case a.Answer == answerDenied && a.State != "":
		return "the words of whoever answered are above; the same request is not asked about again while that answer stands"
	case a.Answer == answerDenied:
		return "the policy denies it, whoever is asked; sallyport policy explain says which rule"
	}
	return "nothing was done; run it again when what it says is mended"
}

func newRelay(t *target, reason string) (*relay, error) {
	config, err := clientcmd.NewNonInteractiveClientConfig(*t.raw, t.context, &clientcmd.ConfigOverrides{
		CurrentContext: t.context, Context: clientcmdapi.Context{Cluster: t.cluster, AuthInfo: t.user},
	}, nil).ClientConfig()
	if err != nil {
		return nil, hint(fmt.Errorf("reading the kubeconfig: %w", err), "see that the command works without sallyport ask")
	}
	upstream, err := url.Parse(config.Host)
	if err != nil || upstream.Scheme != "https" || upstream.Host == "" {
		return nil, hint(fmt.Errorf("the server of cluster %q is no https URL", t.cluster), "a gate is spoken to over TLS")
	}
	tlsConfig, err := rest.TLSConfigFor(&rest.Config{TLSClientConfig: config.TLSClientConfig})
	if err != nil {
		return nil, hint(fmt.Errorf("reading the certificates of the kubeconfig: %w", err), "see that the command works without sallyport ask")
	}
	proxy := config.Proxy
	if proxy == nil {
		proxy = http.ProxyFromEnvironment
	}
	r := &relay{
		upstream: upstream, reason: extended(reason), secret: rand.Text(),
		// HTTP/1.1 alone: upgrades need it. Nothing is asked for compressed, since answers are read here.
		transport: &http.Transport{TLSClientConfig: tlsConfig, Proxy: proxy, DisableCompression: true, ResponseHeaderTimeout: 2 * time.Minute, IdleConnTimeout: time.Minute},
	}
	r.proxy = &httputil.ReverseProxy{
		Transport: r.transport, Rewrite: r.rewrite, ModifyResponse: r.modify, FlushInterval: -1,
		ErrorHandler: r.unreachable, ErrorLog: log.New(io.Discard, "", 0),
	}
	if err := r.listen(); err != nil {
		return nil, fmt.Errorf("listening on this machine: %w", err)
	}
	return r, nil
}

// listen starts the command's side: TLS, since clients send no credentials without.
func (r *relay) listen() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sallyport ask"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	r.certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r.url = "https://" + l.Addr().String() + "/" + r.secret + strings.TrimSuffix(r.upstream.Path, "/")
	r.server = &http.Server{
		Handler: http.HandlerFunc(r.serve), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(io.Discard, "", 0),
		TLSConfig:    &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}},
		TLSNextProto: map[string]func(*http.Server, *tls.Conn, http.Handler){}, // HTTP/1.1, as above
	}
	go func() { _ = r.server.ServeTLS(l, "", "") }()
	return nil
}

func (r *relay) close() { _ = r.server.Close() }

// extended is an ext-value of RFC 8187 §3.2.1.
func extended(s string) string {
	var b strings.Builder
	b.WriteString("UTF-8''")
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', strings.IndexByte("!#$&+-.^_`|~", c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

type replyKey struct{}

func (r *relay) serve(w http.ResponseWriter, req *http.Request) {
	path, ok := strings.CutPrefix(req.URL.EscapedPath(), "/"+r.secret+"/")
	if !ok {
		http.NotFound(w, req)
		return
	}
	path = "/" + path
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	if err != nil {
		say(w, http.StatusRequestEntityTooLarge, "the request is larger than sallyport ask takes; nothing was asked")
		return
	}
	a := &reply{Method: req.Method, Target: path, header: req.Header.Clone(), body: body}
	if req.URL.RawQuery != "" {
		a.Target += "?" + req.URL.RawQuery
	}
	sum := sha256.Sum256(body)
	method := a.Method
	if a.upgrades() {
		method = "upgrade" // one that fails with GET, over WebSocket, is tried again with POST
	}
	a.id = strings.Join([]string{method, a.Target, a.header.Get("Content-Type"), string(sum[:])}, "\x00")
	for name := range a.header {
		if strings.HasPrefix(name, "Sallyport-") {
			a.header.Del(name)
		}
	}
	if code, message := r.probe(req.Context(), a.header); code != 0 {
		a.Code, a.Message, a.Answer = code, message, answerFailed
		r.keep(a)
		say(w, code, message)
		return
	}
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	if len(body) == 0 {
		req.Body = http.NoBody
	}
	r.proxy.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), replyKey{}, a)))
}

// probe makes sure that the server is a gate, with a mark that no gate takes and no other server knows. It returns the code and
// message of what is wrong, and 0 when it is one.
func (r *relay) probe(ctx context.Context, header http.Header) (int, string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate {
		return 0, ""
	}
	u := *r.upstream
	u.Path = strings.TrimSuffix(u.Path, "/") + "/version"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), http.NoBody)
	if err != nil {
		return http.StatusBadGateway, "the server's URL cannot be asked"
	}
	if v := header.Values("Authorization"); len(v) > 0 {
		req.Header["Authorization"] = v
	}
	req.Header.Set(headerAsk, "are-you-a-gate")
	res, err := r.transport.RoundTrip(req)
	if err != nil {
		return http.StatusBadGateway, "the gate cannot be reached: " + err.Error()
	}
	defer res.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	var s metav1.Status
	_ = json.Unmarshal(text, &s)
	switch {
	case res.StatusCode == http.StatusBadRequest && strings.Contains(s.Message, headerAsk):
		r.gate = true
		return 0, ""
	case res.StatusCode == http.StatusUnauthorized:
		return res.StatusCode, orElse(s.Message, "the server does not know who you are")
	case res.StatusCode >= 500 || res.StatusCode == http.StatusTooManyRequests:
		return http.StatusBadGateway, orElse(s.Message, "the server answered "+strconv.Itoa(res.StatusCode))
	}
	return http.StatusForbidden, "the server of the kubeconfig is no Sallyport gate: it would do what you ask about. Nothing was sent to it"
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// rewrite sends the request on as it came, with the marks.
func (r *relay) rewrite(pr *httputil.ProxyRequest) {
	a := pr.In.Context().Value(replyKey{}).(*reply)
	r.address(pr.Out, a)
	for name := range pr.Out.Header {
		if strings.HasPrefix(name, "Sallyport-") {
			pr.Out.Header.Del(name)
		}
	}
	pr.Out.Header.Set(headerAsk, "ahead")
	pr.Out.Header.Set(headerReason, r.reason)
}

// address puts the answer's target into a request exactly as the command wrote it: an approval is bound to it.
func (r *relay) address(req *http.Request, a *reply) {
	path, query, _ := strings.Cut(a.Target, "?")
	plain, err := url.PathUnescape(path)
	if err != nil {
		plain = path
	}
	req.URL = &url.URL{Scheme: r.upstream.Scheme, Host: r.upstream.Host, Path: plain, RawPath: path, RawQuery: query}
	req.Host = r.upstream.Host
}

// modify looks at an answer, and tells the command that it may not when people are asked: nothing was done.
func (r *relay) modify(res *http.Response) error {
	a := res.Request.Context().Value(replyKey{}).(*reply)
	if res.StatusCode == http.StatusSwitchingProtocols || a.reads() && res.StatusCode < 300 && res.StatusCode != http.StatusAccepted {
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(res.Body, maxStatus))
	if err != nil {
		return err
	}
	rest := res.Body
	res.Body = struct {
		io.Reader
		io.Closer
	}{io.MultiReader(bytes.NewReader(text), rest), rest}
	if !a.read(res.StatusCode, text) {
		return nil
	}
	r.keep(a)
	if a.Answer == answerWaiting || a.Answer == answerApproved {
		_ = rest.Close()
		s := status(http.StatusForbidden, a.Message)
		res.StatusCode, res.Status = http.StatusForbidden, "403 Forbidden"
		res.Body, res.ContentLength = io.NopCloser(bytes.NewReader(s)), int64(len(s))
		res.Header.Set("Content-Length", strconv.Itoa(len(s)))
		res.Header.Set("Content-Type", "application/json")
		res.Header.Del("Content-Encoding")
	}
	return nil
}

func (a *reply) upgrades() bool { return a.header.Get("Upgrade") != "" }

// reads says whether the request plainly reads. Where it reads what needs an approval, the gate's answer says so.
func (a *reply) reads() bool {
	return (a.Method == http.MethodGet || a.Method == http.MethodHead) && !a.upgrades()
}

// read takes in an answer, and says whether it is one to the question: reads that need no approval pass by.
func (a *reply) read(code int, text []byte) bool {
	var s metav1.Status
	if json.Unmarshal(text, &s) != nil || s.Kind != "Status" {
		s = metav1.Status{}
	}
	causes := map[string]string{}
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			causes[string(c.Type)] = c.Message
		}
	}
	rule, state := causes["Rule"], causes["State"]
	switch {
	case code == http.StatusAccepted && causes["Approval"] != "":
		a.Answer = answerWaiting
		if state == "approved" || state == "granted" {
			a.Answer = answerApproved
		}
	case code == http.StatusOK && s.Status == metav1.StatusSuccess && rule != "":
		a.Answer = answerNotNeeded
	case code < 400:
		return false
	case rule != "" && (code == http.StatusForbidden || state != ""):
		a.Answer = answerDenied
	case a.reads() && code != http.StatusUnauthorized:
		return false
	default:
		a.Answer = answerFailed
	}
	a.Code, a.Message, a.Approval, a.State, a.Rule, a.Expires, a.Until = code, s.Message, causes["Approval"], state, rule, causes["Expires"], causes["Until"]
	if a.Message == "" {
		a.Message = "the gate answered " + strconv.Itoa(code) + " " + http.StatusText(code)
	}
	return true
}

// unreachable answers for a gate that does not.
func (r *relay) unreachable(w http.ResponseWriter, req *http.Request, err error) {
	a := req.Context().Value(replyKey{}).(*reply)
	a.Answer, a.Code, a.Message = answerFailed, http.StatusBadGateway, "the gate cannot be reached: "+err.Error()
	r.keep(a)
	say(w, a.Code, a.Message)
}

// keep remembers the last answer to a request. An exec over WebSocket and its second try are one.
func (r *relay) keep(a *reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i := slices.IndexFunc(r.seen, func(b *reply) bool {
		return b.id == a.id || a.Approval != "" && b.Approval == a.Approval && a.upgrades() && b.upgrades()
	})
	if i < 0 {
		r.seen = append(r.seen, a)
		return
	}
	r.seen[i] = a
}

func (r *relay) answers() []*reply {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := slices.Clone(r.seen)
	if all == nil {
		all = []*reply{}
	}
	return all
}

// errToken says that the command's token ended.
var errToken = errors.New("the token is not taken any more")

// again asks the gate the same once more.
func (r *relay) again(ctx context.Context, a *reply) error {
	req, err := http.NewRequestWithContext(ctx, a.Method, "", bytes.NewReader(a.body))
	if err != nil {
		return err
	}
	r.address(req, a)
	for _, name := range []string{"Authorization", "Content-Type", "Accept", "User-Agent"} {
		if v := a.header.Values(name); len(v) > 0 {
			req.Header[name] = v
		}
	}
	req.Header.Set(headerAsk, "ahead")
	req.Header.Set(headerReason, r.reason)
	next := *a
	known := false
	res, err := r.transport.RoundTrip(req)
	if err == nil {
		var text []byte
		text, err = io.ReadAll(io.LimitReader(res.Body, maxStatus))
		_ = res.Body.Close()
		known = err == nil && res.StatusCode < 500 && res.StatusCode != http.StatusTooManyRequests && next.read(res.StatusCode, text)
	}
	switch {
	case known && next.Code == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", errToken, next.Message)
	case known:
		next.silent = 0
	case a.silent+1 >= pollTries:
		return fmt.Errorf("the gate does not say what became of approval %s", a.Approval)
	default:
		next = *a
		next.silent++
	}
	r.keep(&next)
	return nil
}

func status(code int, message string) []byte {
	reasons := map[int]metav1.StatusReason{
		http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusUnauthorized: metav1.StatusReasonUnauthorized,
		http.StatusRequestEntityTooLarge: metav1.StatusReasonRequestEntityTooLarge,
	}
	b, _ := json.Marshal(metav1.Status{ // a Status always marshals
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusFailure, Code: int32(code), //nolint:gosec // an HTTP status
		Reason: reasons[code], Message: message,
	})
	return append(b, '\n')
}

func say(w http.ResponseWriter, code int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_, _ = w.Write(status(code, message)) //nolint:gosec // JSON, and for a program
}
