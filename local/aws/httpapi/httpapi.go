// Package httpapi stands in for an API Gateway HTTP API with one route, $default, to one Lambda function, payload format
// 2.0: what the reviewers' pages are behind.
//
// It promises a function the events API Gateway would give it, with the corners that surprise: the path is decoded
// although it is called raw, header names are lower case and repeated headers one, cookies are a list of their own, and
// every body that is not of a few text types is base64, a posted form too. It gives a client what API Gateway would make
// of an answer: one value a header, cookies from their own list, and Internal Server Error where the function failed, with
// nothing of why.
//
// It is no defence: API Gateway's throttling, its limits on headers and its web application firewall are not played, and
// it speaks HTTP where API Gateway speaks only TLS. It must listen on loopback only.
package httpapi

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/aws/aws-lambda-go/events"

	"sallyport/local/aws/lambda"
)

const (
	// maxBody is API Gateway's; an event that is then more than Lambda takes is refused with the same words.
	maxBody = 10 << 20
	// maxIntegration is how long API Gateway waits for a function, at most and by default.
	maxIntegration = 30 * time.Second
)

// Config of a Handler.
type Config struct {
	Function  string // its name or ARN
	Invoke    func(ctx context.Context, id string, payload []byte) (lambda.Result, error)
	AccountID string
	// Host is the one it answers to, as a custom domain is; any when empty.
	Host string
	Log  *slog.Logger // nil for none
}

type handler struct{ Config }

// New makes the handler.
func New(cfg Config) http.Handler {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &handler{cfg}
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if h.Host != "" && r.Host != h.Host {
		message(w, http.StatusForbidden, "Forbidden")
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			message(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		}
		return
	}
	id := rand.Text()[:16]
	event, err := json.Marshal(h.event(r, body, id))
	if err != nil {
		h.fail(w, id, "writing the event", err)
		return
	}
	if len(event) > lambda.MaxPayload {
		message(w, http.StatusRequestEntityTooLarge, "Request Entity Too Large")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxIntegration)
	defer cancel()
	out, err := h.Invoke(ctx, h.Function, event)
	switch {
	case err != nil && ctx.Err() != nil || err == nil && strings.Contains(string(out.Payload), "Sandbox.Timedout") && out.FunctionError != "":
		h.Log.Warn("the function did not answer in time", "function", h.Function, "request", id, "error", err)
		message(w, http.StatusServiceUnavailable, "Service Unavailable")
	case err != nil:
		h.fail(w, id, "invoking the function", err)
	case out.FunctionError != "":
		h.fail(w, id, "the function failed", errors.New(string(out.Payload)))
	default:
		if err := answer(w, out.Payload); err != nil {
			h.fail(w, id, "the function's answer cannot be read", err)
		}
	}
}

// fail is all a client hears when it was the function's doing.
func (h *handler) fail(w http.ResponseWriter, id, what string, err error) {
	h.Log.Warn(what, "function", h.Function, "request", id, "error", err)
	message(w, http.StatusInternalServerError, "Internal Server Error")
}

func message(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": text})
}

func (h *handler) event(r *http.Request, body []byte, id string) events.APIGatewayV2HTTPRequest {
	const route, stage = "$default", "$default"
	now := time.Now().UTC()
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	e := events.APIGatewayV2HTTPRequest{
		Version: "2.0", RouteKey: route, RawPath: r.URL.Path, RawQueryString: r.URL.RawQuery, Headers: map[string]string{},
		RequestContext: events.APIGatewayV2HTTPRequestContext{
			RouteKey: route, Stage: stage, AccountID: h.AccountID, RequestID: id, APIID: "local", DomainName: r.Host,
			Time: now.Format("02/Jan/2006:15:04:05 -0700"), TimeEpoch: now.UnixMilli(),
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{
				Method: r.Method, Path: r.URL.Path, Protocol: r.Proto, SourceIP: host, UserAgent: r.UserAgent(),
			},
		},
	}
	e.RequestContext.DomainPrefix, _, _ = strings.Cut(r.Host, ".")
	for name, values := range r.Header {
		name = strings.ToLower(name)
		switch {
		case name == "cookie":
			for _, v := range values {
				for c := range strings.SplitSeq(v, ";") {
					if c = strings.TrimSpace(c); c != "" {
						e.Cookies = append(e.Cookies, c)
					}
				}
			}
		case !slices.Contains(hopByHop, name):
			e.Headers[name] = strings.Join(values, ",")
		}
	}
	e.Headers["host"] = r.Host
	e.Headers["content-length"] = strconv.Itoa(len(body))
	e.Headers["x-amzn-trace-id"] = "Root=1-" + strconv.FormatInt(now.Unix(), 16) + "-" + strings.ToLower(rand.Text()[:24])
	e.Headers["x-forwarded-for"] = strings.TrimPrefix(e.Headers["x-forwarded-for"]+", "+host, ", ")
	e.Headers["x-forwarded-proto"] = "http"
	if _, port, err := net.SplitHostPort(r.Host); err == nil {
		e.Headers["x-forwarded-port"] = port
	}
	// Of a parameter given more than once all values, joined, as of a header.
	if q, err := url.ParseQuery(r.URL.RawQuery); err == nil && len(q) > 0 {
		e.QueryStringParameters = map[string]string{}
		for name, values := range q {
			e.QueryStringParameters[name] = strings.Join(values, ",")
		}
	}
	switch {
	case len(body) == 0:
	case text(r.Header.Get("Content-Type")) && utf8.Valid(body):
		e.Body = string(body)
	default:
		e.Body, e.IsBase64Encoded = base64.StdEncoding.EncodeToString(body), true
	}
	return e
}

var hopByHop = []string{"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade"}

// text says whether a body of that type is passed on as it is. AWS does not document the list; this is what it does: of
// these types alone, so a form that a browser or Slack posts is base64.
func text(contentType string) bool {
	t, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return false
	}
	return strings.HasPrefix(t, "text/") || t == "application/json" || t == "application/xml" || t == "application/javascript"
}

// answer is what API Gateway makes of the function's answer. One that has no status code is not an answer but a value,
// which is sent as JSON.
func answer(w http.ResponseWriter, payload []byte) error {
	var out struct {
		StatusCode      *int           `json:"statusCode"`
		Headers         map[string]any `json:"headers"`
		Body            *string        `json:"body"`
		IsBase64Encoded bool           `json:"isBase64Encoded"`
		Cookies         []string       `json:"cookies"`
	}
	var object map[string]json.RawMessage
	if err := json.Unmarshal(payload, &object); err != nil || object["statusCode"] == nil {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(payload)
		return nil
	}
	if err := json.Unmarshal(payload, &out); err != nil {
		return err
	}
	if out.StatusCode == nil || *out.StatusCode < 200 || *out.StatusCode > 599 {
		return errors.New("statusCode is none")
	}
	var body []byte
	if out.Body != nil {
		body = []byte(*out.Body)
		if out.IsBase64Encoded {
			var err error
			if body, err = base64.StdEncoding.DecodeString(*out.Body); err != nil {
				return err
			}
		}
	}
	header := w.Header()
	for name, v := range out.Headers {
		switch v := v.(type) {
		case string:
			header.Set(name, v)
		case bool, float64:
			header.Set(name, strings.Trim(string(mustJSON(v)), `"`))
		default:
			return errors.New("header " + name + " is no string; this payload format has one value a header")
		}
	}
	for _, name := range hopByHop {
		header.Del(name)
	}
	header.Del("Content-Length") // of what is sent
	for _, c := range out.Cookies {
		header.Add("Set-Cookie", c)
	}
	if header.Get("Content-Type") == "" && len(body) > 0 {
		header.Set("Content-Type", "text/plain;charset=UTF-8")
	}
	header.Set("Apigw-Requestid", rand.Text()[:16])
	w.WriteHeader(*out.StatusCode)
	_, _ = w.Write(body)
	return nil
}

func mustJSON(v any) []byte {
	b, _ := json.Marshal(v) // of a boolean or a number
	return b
}
