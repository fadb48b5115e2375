// Package front is the one endpoint of the local AWS, http://localhost:PORT: what the SDKs find by AWS_ENDPOINT_URL.
//
// It tells services apart as AWS's own edges could not: by the service in the credential scope that every signed request
// names. Lambda's Invoke, STS and EKS go to the stand-ins of this module, everything else to moto. What is neither
// signed for a service nor meant for this endpoint itself is refused with a sentence that says so.
//
// It also lends moto what it lacks: moto's DynamoDB is not atomic over its threads, so writes pass one at a time and
// reads see either all of a write or nothing; conditional writes to one S3 key pass one at a time too; and an execution
// that was given no name gets one, for moto's interpreter would call every such execution None, and refuse the second.
//
// And it is where tests reach in: it can put somebody before the mail that is sent, and end a call before or after it has
// its effect, without an answer.
//
// It checks no signature but leaves that to the stand-ins: moto believes everybody. It must listen on loopback only, and
// it refuses requests for a Host that is not this machine, so that a web page a developer happens to open cannot rename
// itself into it. Whoever has an account on the machine can do anything to the local AWS, and nothing with it elsewhere.
package front

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"hash/maphash"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"time"

	"sallyport/local/aws/lambda"
	"sallyport/local/aws/sigv4"
)

// Config of a Handler.
type Config struct {
	Moto   *url.URL     // where moto listens
	Lambda http.Handler // Invoke
	STS    http.Handler
	EKS    http.Handler
	Local  http.Handler // what is under /_local/
	// Mail, when not nil, is put before moto's SendEmail of SES v2.
	Mail func(http.Handler) http.Handler
	// Trap, when not nil, is asked about every call that is signed: what to do in its place, and what once it has had its
	// effect. Either ends the call without an answer.
	Trap func(call Call) (instead, after func())
	Log  *slog.Logger
}

// A Call is one call of AWS, as far as it is told apart here.
type Call struct {
	AccessKeyID string
	Service     string // of the credential scope
	Operation   string // such as UpdateItem; of what is no JSON service, method and path
	// Body reads the request's body. It is for Trap alone, and may take as long as the client takes to send it.
	Body func() []byte
}

type handler struct {
	cfg  Config
	moto *httputil.ReverseProxy
	mail http.Handler
	ddb  sync.RWMutex
	seed maphash.Seed
	s3   [64]sync.Mutex // by bucket and key
}

const (
	maxItem   = 17 << 20
	maxForm   = 1 << 20
	maxObject = 256 << 20
)

// New makes the handler.
func New(cfg Config) http.Handler {
	h := &handler{cfg: cfg, seed: maphash.MakeSeed()}
	h.moto = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.Out.URL.Scheme, r.Out.URL.Host = cfg.Moto.Scheme, cfg.Moto.Host
			r.Out.URL.RawQuery = r.In.URL.RawQuery // as it came: ReverseProxy would drop what it cannot parse
			r.Out.Host = r.In.Host                 // S3 buckets may be in it
		},
		Transport: &http.Transport{
			DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			MaxIdleConnsPerHost: 64,
			IdleConnTimeout:     30 * time.Second,
			DisableCompression:  true, // pass on what the client asked for
		},
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			cfg.Log.Warn("moto does not answer", "method", r.Method, "path", r.URL.Path, "error", err)
			refuse(w, http.StatusServiceUnavailable, "ServiceUnavailable", "moto does not answer: "+err.Error())
		},
	}
	h.mail = h.moto
	if cfg.Mail != nil {
		h.mail = cfg.Mail(h.moto)
	}
	return h
}

// sendEmail is the path of SES v2's SendEmail.
const sendEmail = "/v2/email/outbound-emails"

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !here(r.Host) {
		refuse(w, http.StatusMisdirectedRequest, "InvalidHost", "this endpoint is localhost, not "+r.Host)
		return
	}
	if strings.HasPrefix(r.URL.Path, "/_local/") {
		h.cfg.Local.ServeHTTP(w, r)
		return
	}
	scope, ok := sigv4.ScopeOf(r)
	if ok && h.cfg.Trap != nil {
		op, read := operation(w, r, scope.Service)
		if !read {
			return
		}
		instead, after := h.cfg.Trap(Call{AccessKeyID: scope.AccessKeyID, Service: scope.Service, Operation: op, Body: func() []byte {
			if whole(&kept{header: http.Header{}}, r, maxObject) {
				b, _ := io.ReadAll(r.Body) // from memory
				replace(r, b)
				return b
			}
			return nil
		}})
		switch {
		case instead != nil:
			instead()
			panic(http.ErrAbortHandler)
		case after != nil:
			h.route(&kept{header: http.Header{}}, r.WithContext(context.WithoutCancel(r.Context())), scope, ok)
			after()
			panic(http.ErrAbortHandler)
		}
	}
	h.route(w, r, scope, ok)
}

// operation is what a signed request asks of its service; read is false when it was answered, for it cannot be read.
func operation(w http.ResponseWriter, r *http.Request, service string) (op string, read bool) {
	if _, op, ok := strings.Cut(r.Header.Get("X-Amz-Target"), "."); ok {
		return op, true
	}
	if service == "sts" && r.Method == http.MethodPost { // the query protocol, its query in the body
		if !whole(w, r, maxForm) {
			return "", false
		}
		body, _ := io.ReadAll(r.Body) // from memory
		replace(r, body)
		if form, err := url.ParseQuery(string(body)); err == nil && form.Has("Action") {
			return form.Get("Action"), true
		}
	}
	return r.Method + " " + r.URL.Path, true
}

func (h *handler) route(w http.ResponseWriter, r *http.Request, scope sigv4.Scope, ok bool) {
	switch {
	case ok && scope.Service == "sts":
		h.cfg.STS.ServeHTTP(w, r)
	case ok && scope.Service == "eks":
		h.cfg.EKS.ServeHTTP(w, r)
	case ok && scope.Service == "lambda" && lambda.Invokes(r):
		h.cfg.Lambda.ServeHTTP(w, r)
	case ok && scope.Service == "dynamodb":
		h.dynamodb(w, r)
	case ok && scope.Service == "s3":
		h.object(w, r)
	case ok && scope.Service == "ses" && r.Method == http.MethodPost && r.URL.Path == sendEmail:
		h.mail.ServeHTTP(w, r)
	case ok && r.Header.Get("X-Amz-Target") == "AWSStepFunctions.StartExecution":
		h.startExecution(w, r)
	case ok, strings.HasPrefix(r.URL.Path, "/moto-api/"):
		h.moto.ServeHTTP(w, r)
	default:
		refuse(w, http.StatusForbidden, "MissingAuthenticationToken",
			"this is the local AWS: it knows a service by the credential scope of a SigV4 signature, which "+r.Method+" "+r.URL.Path+" does not carry")
	}
}

// here reports whether host is this machine's loopback, or a bucket of it.
func here(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.Trim(host, "[]"))
	if ip := net.ParseIP(host); ip != nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// reads are the DynamoDB operations that change nothing.
var reads = map[string]bool{
	"GetItem": true, "BatchGetItem": true, "TransactGetItems": true, "Query": true, "Scan": true,
	"DescribeTable": true, "ListTables": true, "DescribeTimeToLive": true, "DescribeContinuousBackups": true,
	"ListTagsOfResource": true, "DescribeEndpoints": true, "DescribeLimits": true,
}

func (h *handler) dynamodb(w http.ResponseWriter, r *http.Request) {
	if !whole(w, r, maxItem) {
		return
	}
	_, op, _ := strings.Cut(r.Header.Get("X-Amz-Target"), ".")
	var lock sync.Locker = &h.ddb
	if reads[op] {
		lock = h.ddb.RLocker()
	}
	h.answer(w, r, lock)
}

// object passes S3 on; a write that depends on what is there excludes the other such writes to the same key.
func (h *handler) object(w http.ResponseWriter, r *http.Request) {
	conditional := (r.Method == http.MethodPut || r.Method == http.MethodPost || r.Method == http.MethodDelete) &&
		(r.Header.Get("If-None-Match") != "" || r.Header.Get("If-Match") != "")
	if !conditional {
		h.moto.ServeHTTP(w, r)
		return
	}
	if !whole(w, r, maxObject) {
		return
	}
	h.answer(w, r, &h.s3[maphash.String(h.seed, r.Host+r.URL.Path)%uint64(len(h.s3))])
}

func (h *handler) startExecution(w http.ResponseWriter, r *http.Request) {
	if !whole(w, r, maxItem) {
		return
	}
	body, _ := io.ReadAll(r.Body) // from memory
	var in map[string]json.RawMessage
	if json.Unmarshal(body, &in) == nil && in != nil {
		if name := string(in["name"]); name == "" || name == "null" {
			in["name"], _ = json.Marshal(strings.ToLower(rand.Text()))
			body, _ = json.Marshal(in)
		}
	}
	replace(r, body)
	h.moto.ServeHTTP(w, r)
}

// whole reads the body before any lock is taken: a slow client must hold up nobody else.
func whole(w http.ResponseWriter, r *http.Request, limit int64) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, limit))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			refuse(w, http.StatusRequestEntityTooLarge, "RequestTooLarge", "the local AWS takes no more than this at once")
		}
		return false
	}
	replace(r, b)
	return true
}

func replace(r *http.Request, body []byte) {
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	r.TransferEncoding = nil
}

// answer lets moto answer r while lock is held, and passes the answer on when it is not: a client that reads slowly holds
// up nobody. That the client goes away does not cancel the request, for moto would go on with it without the lock.
func (h *handler) answer(w http.ResponseWriter, r *http.Request, lock sync.Locker) {
	k := &kept{header: http.Header{}}
	func() {
		lock.Lock()
		defer lock.Unlock()
		h.moto.ServeHTTP(k, r.WithContext(context.WithoutCancel(r.Context())))
	}()
	for name, v := range k.header {
		w.Header()[name] = v
	}
	if k.status != 0 {
		w.WriteHeader(k.status)
	}
	_, _ = w.Write(k.body.Bytes())
}

// kept is a response held in memory.
type kept struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (k *kept) Header() http.Header { return k.header }

func (k *kept) WriteHeader(status int) {
	if status >= 200 && k.status == 0 {
		k.status = status
	}
}

func (k *kept) Write(b []byte) (int, error) {
	k.WriteHeader(http.StatusOK)
	return k.body.Write(b)
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Amzn-Errortype", code)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"__type": code, "message": message})
}
