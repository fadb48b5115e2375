package front_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/local/aws/front"
)

func named(name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) })
}

func start(t *testing.T, moto http.Handler) string {
	t.Helper()
	back := httptest.NewServer(moto)
	t.Cleanup(back.Close)
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front.New(front.Config{Moto: u, Lambda: named("lambda"), STS: named("sts"), EKS: named("eks"), Local: named("local"), Log: slog.New(slog.DiscardHandler)}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func signed(service string) string {
	return "AWS4-HMAC-SHA256 Credential=AKIA/20260101/eu-west-1/" + service + "/aws4_request, SignedHeaders=host, Signature=00"
}

func request(t *testing.T, method, url, auth, body string, headers ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if auth != "" {
		r.Header.Set("Authorization", auth)
	}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

func do(t *testing.T, r *http.Request) (int, string) {
	t.Helper()
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Error(err)
		return 0, ""
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Error(err)
	}
	return resp.StatusCode, string(b)
}

func TestRoutes(t *testing.T) {
	base := start(t, named("moto"))
	const query = "?Action=GetCallerIdentity&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2F20260101%2Feu-west-1%2F"
	for _, tt := range []struct {
		method, path, auth, host string
		status                   int
		want                     string
	}{
		{"POST", "/", signed("sts"), "", 200, "sts"},
		{"GET", "/" + query + "sts%2Faws4_request", "", "", 200, "sts"},
		{"GET", "/bucket/key" + query + "s3%2Faws4_request", "", "", 200, "moto"},
		{"GET", "/clusters/dev", signed("eks"), "", 200, "eks"},
		{"GET", "/clusters/dev", signed("s3"), "", 200, "moto"}, // a bucket of that name
		{"POST", "/2015-03-31/functions/f/invocations", signed("lambda"), "", 200, "lambda"},
		{"POST", "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-west-1%3A111122223333%3Afunction%3Af/invocations", signed("lambda"), "", 200, "lambda"},
		{"GET", "/2015-03-31/functions/", signed("lambda"), "", 200, "moto"},
		{"POST", "/2015-03-31/functions/f/invocations", signed("s3"), "", 200, "moto"},
		{"POST", "/", signed("dynamodb"), "", 200, "moto"},
		{"POST", "/", signed("states"), "", 200, "moto"},
		{"GET", "/k", signed("s3"), "bucket.localhost:80", 200, "moto"},
		{"GET", "/moto-api/data.json", "", "", 200, "moto"},
		{"GET", "/_local/health", "", "", 200, "local"},
		{"GET", "/_local/health", signed("s3"), "", 200, "local"},
		{"GET", "/", "", "", 403, "credential scope"},
		{"GET", "/", "Bearer abc", "", 403, "credential scope"},
		{"POST", "/2015-03-31/functions/f/invocations", "", "", 403, "credential scope"},
		{"GET", "/", "AWS4-HMAC-SHA256 Credential=a/b, SignedHeaders=h, Signature=0", "", 403, "credential scope"},
		{"GET", "/_local/health", "", "evil.example.com", 421, "localhost"},
		{"POST", "/", signed("sts"), "localhost.evil.example.com", 421, "localhost"},
		{"POST", "/", signed("sts"), "192.168.1.1", 421, "localhost"},
		{"POST", "/", signed("sts"), "[::1]:80", 200, "sts"},
	} {
		r := request(t, tt.method, base+tt.path, tt.auth, "")
		if tt.host != "" {
			r.Host = tt.host
		}
		if status, body := do(t, r); status != tt.status || !strings.Contains(body, tt.want) {
			t.Errorf("%s %s %s %s: %d %s, want %d %s", tt.method, tt.path, tt.auth, tt.host, status, body, tt.status, tt.want)
		}
	}
}

// gate counts who is inside at the same time.
type gate struct {
	inside, most atomic.Int64
	served       atomic.Int64
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := g.inside.Add(1)
	for m := g.most.Load(); n > m && !g.most.CompareAndSwap(m, n); m = g.most.Load() {
	}
	time.Sleep(5 * time.Millisecond)
	g.inside.Add(-1)
	g.served.Add(1)
}

func TestWhatIsSerialised(t *testing.T) {
	ddb := func(op string) func(*testing.T, string, int) *http.Request {
		return func(t *testing.T, base string, _ int) *http.Request {
			return request(t, "POST", base+"/", signed("dynamodb"), "{}", "X-Amz-Target", "DynamoDB_20120810."+op)
		}
	}
	for _, tt := range []struct {
		name  string
		alone bool
		make  func(t *testing.T, base string, i int) *http.Request
	}{
		{"PutItem", true, ddb("PutItem")},
		{"UpdateItem", true, ddb("UpdateItem")},
		{"TransactWriteItems", true, ddb("TransactWriteItems")},
		{"an operation not heard of", true, ddb("Frobnicate")},
		{"GetItem", false, ddb("GetItem")},
		{"Query", false, ddb("Query")},
		{"PUT of a key", false, func(t *testing.T, base string, _ int) *http.Request {
			return request(t, "PUT", base+"/b/k", signed("s3"), "x")
		}},
		{"PUT of a key, once only", true, func(t *testing.T, base string, _ int) *http.Request {
			return request(t, "PUT", base+"/b/k", signed("s3"), "x", "If-None-Match", "*")
		}},
		{"PUT of other keys, once only", false, func(t *testing.T, base string, i int) *http.Request {
			return request(t, "PUT", base+fmt.Sprint("/b/k", i), signed("s3"), "x", "If-None-Match", "*")
		}},
		{"Step Functions", false, func(t *testing.T, base string, _ int) *http.Request {
			return request(t, "POST", base+"/", signed("states"), "{}")
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &gate{}
			base := start(t, g)
			var wg sync.WaitGroup
			for i := range 12 {
				r := tt.make(t, base, i)
				wg.Go(func() { do(t, r) })
			}
			wg.Wait()
			if most := g.most.Load(); (most == 1) != tt.alone || g.served.Load() != 12 {
				t.Errorf("%d at the same time, %d served", most, g.served.Load())
			}
		})
	}
}

func TestReadsWaitForWrites(t *testing.T) {
	var writing atomic.Bool
	base := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.Header.Get("X-Amz-Target"), "GetItem") {
			if writing.Load() {
				t.Error("a read saw a write half done")
			}
			return
		}
		writing.Store(true)
		time.Sleep(10 * time.Millisecond)
		writing.Store(false)
	}))
	var wg sync.WaitGroup
	for i := range 20 {
		op := []string{"GetItem", "TransactWriteItems"}[i%2]
		r := request(t, "POST", base+"/", signed("dynamodb"), "{}", "X-Amz-Target", "DynamoDB_20120810."+op)
		wg.Go(func() { do(t, r) })
	}
	wg.Wait()
}

// A client that sends slowly, or leaves, must not hold the lock, nor let go of it too early.
func TestSlowAndGoneClients(t *testing.T) {
	g := &gate{}
	base := start(t, g)
	pr, pw := io.Pipe()
	slow, err := http.NewRequest("POST", base+"/", pr)
	if err != nil {
		t.Fatal(err)
	}
	slow.Header.Set("Authorization", signed("dynamodb"))
	slow.Header.Set("X-Amz-Target", "DynamoDB_20120810.PutItem")
	done := make(chan struct{})
	go func() { defer close(done); do(t, slow) }()
	fmt.Fprint(pw, "{")
	quick := func(ctx context.Context) *http.Request {
		return request(t, "POST", base+"/", signed("dynamodb"), "{}", "X-Amz-Target", "DynamoDB_20120810.PutItem").WithContext(ctx)
	}
	if status, _ := do(t, quick(t.Context())); status != 200 {
		t.Error("held up by a slow client")
	}
	for range 5 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		if resp, err := http.DefaultClient.Do(quick(ctx)); err == nil {
			resp.Body.Close()
		}
		cancel()
		do(t, quick(t.Context()))
	}
	fmt.Fprint(pw, "}")
	pw.Close()
	<-done
	if g.most.Load() != 1 {
		t.Errorf("%d writes at the same time", g.most.Load())
	}
}

func TestPassesOnUnchanged(t *testing.T) {
	for _, headers := range [][]string{nil, {"If-None-Match", "*"}} {
		var got *http.Request
		var body []byte
		base := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r
			body, _ = io.ReadAll(r.Body)
			w.Header().Add("X-Amz-Meta-A", "1")
			w.Header().Add("X-Amz-Meta-A", "2")
			w.WriteHeader(http.StatusConflict)
			_, _ = w.Write(body)
		}))
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
		r := request(t, "PUT", base+"/b/a%2Fb%20c?x=1;2&y=%zz", signed("s3"), string(want), append(headers, "X-Amz-Meta-B", "c")...)
		r.Host = "bucket.localhost"
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		back, _ := io.ReadAll(resp.Body)
		if !bytes.Equal(body, want) || !bytes.Equal(back, want) {
			t.Errorf("body: %d there, %d back, want %d", len(body), len(back), len(want))
		}
		if diff := cmp.Diff([]any{"bucket.localhost", "/b/a%2Fb%20c?x=1;2&y=%zz", "c", 409, []string{"1", "2"}},
			[]any{got.Host, got.RequestURI, got.Header.Get("X-Amz-Meta-B"), resp.StatusCode, resp.Header.Values("X-Amz-Meta-A")}); diff != "" {
			t.Error(diff)
		}
	}
}

func TestExecutionsHaveNames(t *testing.T) {
	base := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	names := map[string]bool{}
	for _, tt := range []struct{ target, body, want string }{
		{"StartExecution", `{"input":"{\"n\": 1.0}","stateMachineArn":"a"}`, ""},
		{"StartExecution", `{"input":"{\"n\": 1.0}","stateMachineArn":"a"}`, ""},
		{"StartExecution", `{"name":null}`, ""},
		{"StartExecution", `{"name": "given", "x": 1.50}`, `{"name": "given", "x": 1.50}`},
		{"StartExecution", `{`, `{`},
		{"StartExecution", `null`, `null`},
		{"DescribeExecution", `{}`, `{}`},
	} {
		_, got := do(t, request(t, "POST", base+"/", signed("states"), tt.body, "X-Amz-Target", "AWSStepFunctions."+tt.target))
		if tt.want != "" {
			if got != tt.want {
				t.Errorf("%s %s became %s", tt.target, tt.body, got)
			}
			continue
		}
		var out struct{ Name, Input string }
		if err := json.Unmarshal([]byte(got), &out); err != nil || out.Name == "" || names[out.Name] || strings.Contains(tt.body, "input") != (out.Input == `{"n": 1.0}`) {
			t.Errorf("%s became %s: %v", tt.body, got, err)
		}
		names[out.Name] = true
	}
}

func TestStreams(t *testing.T) {
	base := start(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "first")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	resp, err := http.DefaultClient.Do(request(t, "GET", base+"/b/k", signed("s3"), "").WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, 6)
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "first\n" {
		t.Errorf("%q %v", b, err)
	}
}

func TestMotoGone(t *testing.T) {
	u, _ := url.Parse("http://127.0.0.1:1")
	h := front.New(front.Config{Moto: u, Log: slog.New(slog.DiscardHandler)})
	for _, service := range []string{"states", "dynamodb"} {
		r := httptest.NewRequest("POST", "http://localhost/", strings.NewReader("{}"))
		r.Header.Set("Authorization", signed(service))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 503 || !strings.Contains(w.Body.String(), "moto does not answer") {
			t.Errorf("%s: %d %s", service, w.Code, w.Body)
		}
	}
}

// A trap ends a call in its place or after it had its effect, and the caller never hears how it ended.
func TestTrap(t *testing.T) {
	var served atomic.Int64
	back := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { served.Add(1) }))
	t.Cleanup(back.Close)
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	var calls []string
	var instead, after func()
	srv := httptest.NewServer(front.New(front.Config{Moto: u, STS: named("sts"), Log: slog.New(slog.DiscardHandler), Trap: func(c front.Call) (func(), func()) {
		calls = append(calls, strings.Join([]string{c.AccessKeyID, c.Service, c.Operation, string(c.Body())}, " "))
		return instead, after
	}}))
	t.Cleanup(srv.Close)
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // which would send what failed once more
	sprung := 0
	for _, tt := range []struct {
		instead, after   bool
		served           int64
		answered, sprung int
	}{{false, false, 1, 1, 0}, {true, false, 1, 0, 1}, {false, true, 2, 0, 2}} {
		instead, after = nil, nil
		if tt.instead {
			instead = func() { sprung++ }
		}
		if tt.after {
			after = func() { sprung++ }
		}
		answered := 0
		if resp, err := client.Do(request(t, "POST", srv.URL+"/", signed("dynamodb"), "{}", "X-Amz-Target", "DynamoDB_20120810.UpdateItem")); err == nil {
			resp.Body.Close()
			answered++
		}
		if served.Load() != tt.served || answered != tt.answered || sprung != tt.sprung {
			t.Errorf("%+v: served %d, answered %d, sprung %d", tt, served.Load(), answered, sprung)
		}
	}
	instead, after = nil, nil
	if _, body := do(t, request(t, "POST", srv.URL+"/", signed("sts"), "Action=AssumeRole&Version=2011-06-15", "Content-Type", "application/x-www-form-urlencoded")); body != "sts" {
		t.Error(body)
	}
	do(t, request(t, "POST", srv.URL+"/v2/email/outbound-emails", signed("ses"), "{}"))
	do(t, request(t, "POST", srv.URL+"/", "", "Action=AssumeRole"))
	want := []string{"AKIA dynamodb UpdateItem {}", "AKIA dynamodb UpdateItem {}", "AKIA dynamodb UpdateItem {}", "AKIA sts AssumeRole Action=AssumeRole&Version=2011-06-15",
		"AKIA ses POST /v2/email/outbound-emails {}"}
	if d := cmp.Diff(want, calls); d != "" {
		t.Error(d)
	}
}

// Mail goes by whoever taps it, and nothing else does.
func TestMailIsTapped(t *testing.T) {
	back := httptest.NewServer(named("moto"))
	t.Cleanup(back.Close)
	u, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(front.New(front.Config{Moto: u, Log: slog.New(slog.DiscardHandler), Mail: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, "tap and ")
			next.ServeHTTP(w, r)
		})
	}}))
	t.Cleanup(srv.Close)
	for _, tt := range []struct{ method, path, auth, want string }{
		{"POST", "/v2/email/outbound-emails", signed("ses"), "tap and moto"},
		{"GET", "/v2/email/outbound-emails", signed("ses"), "moto"},
		{"POST", "/v2/email/identities", signed("ses"), "moto"},
		{"POST", "/v2/email/outbound-emails", signed("s3"), "moto"},
		{"POST", "/v2/email/outbound-emails", "", `{"__type":"MissingAuthenticationToken"`},
	} {
		if _, body := do(t, request(t, tt.method, srv.URL+tt.path, tt.auth, "")); !strings.HasPrefix(body, tt.want) {
			t.Errorf("%s %s %s: %s", tt.method, tt.path, tt.auth, body)
		}
	}
}
