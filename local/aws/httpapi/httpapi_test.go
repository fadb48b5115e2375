package httpapi_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/aws/aws-lambda-go/events"
	runtime "github.com/aws/aws-lambda-go/lambda"
	"github.com/awslabs/aws-lambda-go-api-proxy/httpadapter"
	"github.com/google/go-cmp/cmp"

	"sallyport/local/aws/httpapi"
	"sallyport/local/aws/lambda"
)

// TestMain lets this binary be a function with pages, as function callback is one.
func TestMain(m *testing.M) {
	if os.Getenv("AWS_LAMBDA_FUNCTION_NAME") == "" {
		os.Exit(m.Run())
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /form", func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "1"})
		http.SetCookie(w, &http.Cookie{Name: "b", Value: "2"})
		c, _ := r.Cookie("seen")
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, r.PostFormValue("payload")+" "+c.String()+" "+r.URL.Query().Get("q"))
	})
	mux.HandleFunc("GET /bytes", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte{0xff, 0, 1}) })
	mux.HandleFunc("GET /crash", func(http.ResponseWriter, *http.Request) { os.Exit(3) })
	runtime.Start(httpadapter.NewV2(mux).ProxyWithContext)
}

type invoke func(ctx context.Context, id string, payload []byte) (lambda.Result, error)

func start(t *testing.T, f invoke) string {
	t.Helper()
	s := httptest.NewServer(httpapi.New(httpapi.Config{Function: "callback", Invoke: f, AccountID: "111122223333"}))
	t.Cleanup(s.Close)
	return s.URL
}

func do(t *testing.T, r *http.Request, err error) (*http.Response, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

func TestEvent(t *testing.T) {
	var got events.APIGatewayV2HTTPRequest
	url := start(t, func(_ context.Context, id string, payload []byte) (lambda.Result, error) {
		if id != "callback" {
			t.Errorf("invokes %s", id)
		}
		return lambda.Result{Payload: []byte(`{"statusCode":204}`)}, json.Unmarshal(payload, &got)
	})
	r, err := http.NewRequest(http.MethodPut, url+"/a%20b/%2e/c?x=1&x=2&y=%20", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	r.Header = http.Header{"Content-Type": {"text/plain"}, "Accept": {"a", "b"}, "Cookie": {"one=1; two=2", "three=3"}, "X-Forwarded-For": {"9.9.9.9"}, "Te": {"trailers"}, "User-Agent": {"ua"}}
	r.Host = "reviews.localhost:80"
	if resp, body := do(t, r, nil); resp.StatusCode != 204 || body != "" {
		t.Errorf("%s %q", resp.Status, body)
	}
	if got.Headers["x-amzn-trace-id"] == "" || got.RequestContext.RequestID == "" || got.RequestContext.TimeEpoch == 0 || got.RequestContext.Time == "" {
		t.Errorf("%+v", got)
	}
	delete(got.Headers, "x-amzn-trace-id")
	got.RequestContext.RequestID, got.RequestContext.TimeEpoch, got.RequestContext.Time = "", 0, ""
	want := events.APIGatewayV2HTTPRequest{Version: "2.0", RouteKey: "$default", RawPath: "/a b/./c", RawQueryString: "x=1&x=2&y=%20",
		Cookies: []string{"one=1", "two=2", "three=3"},
		Headers: map[string]string{"accept": "a,b", "content-type": "text/plain", "content-length": "5", "host": "reviews.localhost:80", "user-agent": "ua",
			"accept-encoding": "gzip", "x-forwarded-for": "9.9.9.9, 127.0.0.1", "x-forwarded-proto": "http", "x-forwarded-port": "80"},
		QueryStringParameters: map[string]string{"x": "1,2", "y": " "}, Body: "hello",
		RequestContext: events.APIGatewayV2HTTPRequestContext{RouteKey: "$default", Stage: "$default", AccountID: "111122223333", APIID: "local",
			DomainName: "reviews.localhost:80", DomainPrefix: "reviews",
			HTTP: events.APIGatewayV2HTTPRequestContextHTTPDescription{Method: "PUT", Path: "/a b/./c", Protocol: "HTTP/1.1", SourceIP: "127.0.0.1", UserAgent: "ua"}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestBodies(t *testing.T) {
	for contentType, plain := range map[string]bool{
		"text/html; charset=utf-8": true, "application/json": true, "application/xml": true, "application/javascript": true,
		"application/x-www-form-urlencoded": false, "application/octet-stream": false, "": false, "application/problem+json": false, ";": false,
	} {
		var got events.APIGatewayV2HTTPRequest
		url := start(t, func(_ context.Context, _ string, payload []byte) (lambda.Result, error) {
			return lambda.Result{Payload: []byte(`{"statusCode":200}`)}, json.Unmarshal(payload, &got)
		})
		r, err := http.NewRequest(http.MethodPost, url, strings.NewReader("a=b"))
		if err == nil && contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		do(t, r, err)
		want := "a=b"
		if !plain {
			want = base64.StdEncoding.EncodeToString([]byte(want))
		}
		if got.Body != want || got.IsBase64Encoded == plain {
			t.Errorf("%q: %q, base64 %v", contentType, got.Body, got.IsBase64Encoded)
		}
	}
}

func TestAnswers(t *testing.T) {
	failed := errors.New("no such function")
	for name, tt := range map[string]struct {
		result lambda.Result
		err    error
		status int
		header http.Header
		body   string
	}{
		"an answer":          {result: lambda.Result{Payload: []byte(`{"statusCode":201,"headers":{"x-a":"1"},"cookies":["a=1","b=2"],"body":"hi","multiValueHeaders":{"X-Not":["here"]}}`)}, status: 201, header: http.Header{"X-A": {"1"}, "Set-Cookie": {"a=1", "b=2"}, "Content-Type": {"text/plain;charset=UTF-8"}, "X-Not": nil}, body: "hi"},
		"base64":             {result: lambda.Result{Payload: []byte(`{"statusCode":200,"headers":{"content-type":"image/png"},"body":"/wA=","isBase64Encoded":true}`)}, status: 200, header: http.Header{"Content-Type": {"image/png"}}, body: "\xff\x00"},
		"a redirect":         {result: lambda.Result{Payload: []byte(`{"statusCode":303,"headers":{"location":"/x"}}`)}, status: 303, header: http.Header{"Location": {"/x"}}},
		"a value":            {result: lambda.Result{Payload: []byte(`{"a":1}`)}, status: 200, header: http.Header{"Content-Type": {"application/json"}}, body: `{"a":1}`},
		"base64 that is not": {result: lambda.Result{Payload: []byte(`{"statusCode":200,"body":"?","isBase64Encoded":true}`)}, status: 500, body: `{"message":"Internal Server Error"}` + "\n"},
		"no status":          {result: lambda.Result{Payload: []byte(`{"statusCode":1}`)}, status: 500, body: `{"message":"Internal Server Error"}` + "\n"},
		"a list of headers":  {result: lambda.Result{Payload: []byte(`{"statusCode":200,"headers":{"a":["b"]}}`)}, status: 500, body: `{"message":"Internal Server Error"}` + "\n"},
		"the function fails": {result: lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorMessage":"secret"}`)}, status: 500, body: `{"message":"Internal Server Error"}` + "\n"},
		"it takes too long":  {result: lambda.Result{FunctionError: "Unhandled", Payload: []byte(`{"errorType":"Sandbox.Timedout"}`)}, status: 503, body: `{"message":"Service Unavailable"}` + "\n"},
		"Lambda refuses":     {err: failed, status: 500, body: `{"message":"Internal Server Error"}` + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			url := start(t, func(context.Context, string, []byte) (lambda.Result, error) { return tt.result, tt.err })
			r, err := http.NewRequest(http.MethodGet, url, nil)
			resp, body := do(t, r, err)
			if resp.StatusCode != tt.status || body != tt.body {
				t.Errorf("%d %q, want %d %q", resp.StatusCode, body, tt.status, tt.body)
			}
			for name, want := range tt.header {
				if d := cmp.Diff(want, resp.Header[name]); d != "" {
					t.Errorf("%s: %s", name, d)
				}
			}
		})
	}
	url := start(t, func(context.Context, string, []byte) (lambda.Result, error) {
		return lambda.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	})
	for size, want := range map[int]int{1 << 20: 200, 8 << 20: 413, 11 << 20: 413} {
		r, err := http.NewRequest(http.MethodPost, url, strings.NewReader(strings.Repeat("x", size)))
		if resp, _ := do(t, r, err); resp.StatusCode != want {
			t.Errorf("%d bytes: %s", size, resp.Status)
		}
	}
}

// It answers to one name, as behind a custom domain: a page of another site cannot rename itself into it.
func TestHost(t *testing.T) {
	s := httptest.NewServer(httpapi.New(httpapi.Config{Host: "localhost:7", Invoke: func(context.Context, string, []byte) (lambda.Result, error) {
		return lambda.Result{Payload: []byte(`{"statusCode":200}`)}, nil
	}}))
	t.Cleanup(s.Close)
	for host, want := range map[string]int{"localhost:7": 200, "localhost": 403, "127.0.0.1:7": 403, "evil.example.com:7": 403} {
		r, err := http.NewRequest(http.MethodGet, s.URL, nil)
		r.Host = host
		if resp, _ := do(t, r, err); resp.StatusCode != want {
			t.Errorf("%s: %s", host, resp.Status)
		}
	}
}

// A real function behind the adapter that the deployed one uses.
func TestFunction(t *testing.T) {
	s, err := lambda.New(lambda.Config{Region: "eu-west-1", AccountID: "111122223333", Dir: t.TempDir(), Functions: []lambda.Function{{Name: "callback", Binary: os.Args[0]}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	url := start(t, s.Invoke)
	r, err := http.NewRequest(http.MethodPost, url+"/form?q=%C3%A9", strings.NewReader("payload=%7B%22a%22%3A%22%2B+b%22%7D"))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Cookie", "seen=yes")
	resp, body := do(t, r, err)
	if body != `{"a":"+ b"} seen=yes é` || len(resp.Cookies()) != 2 || resp.Header.Get("Content-Type") != "text/html; charset=utf-8" {
		t.Errorf("%v %q", resp.Header, body)
	}
	r, err = http.NewRequest(http.MethodGet, url+"/bytes", nil)
	if _, body := do(t, r, err); body != "\xff\x00\x01" {
		t.Errorf("%q", body)
	}
	r, err = http.NewRequest(http.MethodGet, url+"/crash", nil)
	if resp, body := do(t, r, err); resp.StatusCode != 500 || strings.Contains(body, "exit") {
		t.Errorf("%s %q", resp.Status, body)
	}
}
