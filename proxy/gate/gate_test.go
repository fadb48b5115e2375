package gate_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/proxy/gate"
	"sallyport/shared/access"
	"sallyport/shared/recording"
)

func TestForwards(t *testing.T) {
	r := newRig(t, nil)
	h := good("bot", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io", "User-Agent", "kubectl/v1.35.4", "Kubectl-Command", "kubectl get")
	res, _ := r.do(t, "GET", pods+"?limit=500&labelSelector=app%3Dweb", nil, h)
	if res.StatusCode != 200 {
		t.Fatalf("got %d", res.StatusCode)
	}
	up := r.reached()[0]
	if up.RequestURI != "/api/v1/namespaces/dev/pods?limit=500&labelSelector=app%3Dweb" {
		t.Errorf("the cluster was asked for %q", up.RequestURI)
	}
	want := map[string]string{"Accept": h.Get("Accept"), "User-Agent": "kubectl/v1.35.4", "Kubectl-Command": "kubectl get", "Accept-Encoding": "identity"}
	for name, v := range want {
		if up.Header.Get(name) != v {
			t.Errorf("%s is %q, want %q", name, up.Header.Get(name), v)
		}
	}
	if auth := up.Header.Values("Authorization"); len(auth) != 1 || !strings.HasPrefix(auth[0], "Bearer k8s-aws-v1.") {
		t.Errorf("the cluster was shown %d credentials, not one of its own", len(auth))
	}
	events, where := r.recorder.wait(t, 1)
	if len(res.Header.Values("Audit-Id")) != 1 || up.Header.Get("Audit-Id") != string(events[0].AuditID) || res.Header.Get("Audit-Id") != string(events[0].AuditID) {
		t.Error("the request has not one name at the cluster, in the record and in the answer")
	}
	if e := events[0]; e.User.Username != "bot" || e.Verb != "list" || e.ResponseStatus.Code != 200 || where[0] != (recording.Stream{Cluster: "dev", Session: "sessionbot"}) {
		t.Errorf("recorded %+v in %+v", e, where[0])
	}
}

// H1 to H6, and everything else a caller may try to slip past: nothing of it reaches the cluster.
func TestHeadersOfTheCaller(t *testing.T) {
	for _, test := range []struct {
		name string
		h    http.Header
		code int // 0: forwarded without the header
	}{
		{"H1 impersonation", good("a", "Impersonate-User", "root"), 403},
		{"H1 in any case", good("a", "impersonate-group", "system:masters"), 403},
		{"H1 extra", good("a", "Impersonate-Extra-Scopes", "x"), 403},
		{"H1 uid", good("a", "Impersonate-Uid", "x"), 403},
		{"H2 hop-by-hop", good("a", "Connection", "close, Authorization, Audit-Id"), 0},
		{"H3 front proxy", good("a", "X-Remote-User", "root", "X-Remote-Group", "system:masters"), 0},
		{"H3 load balancer", good("a", "X-Amzn-Oidc-Data", "e30.e30.e30"), 0},
		{"H4 look-alikes", good("a", "X-Forwarded-For", "1.2.3.4", "Forwarded", "for=1.2.3.4", "Cookie", "a=b", "Audit-Id", "mine", "Impersonate_User", "root"), 0},
		{"H6 two headers", http.Header{"Authorization": {"Bearer good:a", "Bearer good:b"}}, 401},
		{"H6 header and subprotocol", good("a", "Sec-Websocket-Protocol", "base64url.bearer.authorization.k8s.io."+base64.RawURLEncoding.EncodeToString([]byte("good:b"))), 401},
		{"no token", http.Header{}, 401},
		{"an empty one", http.Header{"Authorization": {"Bearer "}}, 401},
		{"another scheme", http.Header{"Authorization": {"Basic Z29vZDph"}}, 401},
		{"a bad one", http.Header{"Authorization": {"Bearer bad"}}, 401},
		{"no tier", http.Header{"Authorization": {"Bearer nobody:x"}}, 403},
		{"a compressed body", good("a", "Content-Encoding", "gzip"), 415},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, nil)
			res, _ := r.do(t, "GET", pods, nil, test.h)
			r.recorder.wait(t, 1)
			if test.code != 0 {
				if res.StatusCode != test.code || len(r.reached()) != 0 {
					t.Errorf("got %d, %d requests reached the cluster; want %d and none", res.StatusCode, len(r.reached()), test.code)
				}
				return
			}
			if res.StatusCode != 200 {
				t.Fatalf("got %d", res.StatusCode)
			}
			up := r.reached()[0]
			for name := range test.h {
				if name == "Authorization" || name == "Audit-Id" {
					continue
				}
				if v := up.Header.Get(name); v != "" {
					t.Errorf("%s: %q reached the cluster", name, v)
				}
			}
			if !strings.HasPrefix(up.Header.Get("Authorization"), "Bearer k8s-aws-v1.") || up.Header.Get("Audit-Id") == "mine" || up.Header.Get("Audit-Id") == "" {
				t.Errorf("a header of the gate's own was changed: %v", up.Header)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	r := newRig(t, nil)
	for _, test := range []struct {
		name, method, path string
		body               io.Reader
		h                  http.Header
		code               int
		reason             metav1.StatusReason
	}{
		{"unknown cluster", "GET", "/clusters/test/api", nil, good("a"), 404, metav1.StatusReasonNotFound},
		{"no cluster", "GET", "/api", nil, good("a"), 404, metav1.StatusReasonNotFound},
		{"P2 escaped slash", "GET", pods + "%2Fweb", nil, good("a"), 400, metav1.StatusReasonBadRequest},
		{"P2 empty segment", "GET", "/clusters/dev//api/v1/pods", nil, good("a"), 400, metav1.StatusReasonBadRequest},
		{"P3 escaped secrets", "GET", "/clusters/dev/api/v1/namespaces/dev/%73ecrets", nil, good("a"), 400, metav1.StatusReasonBadRequest},
		{"P4 OPTIONS", "OPTIONS", pods, nil, good("a"), 405, metav1.StatusReasonMethodNotAllowed},
		{"P4 TRACE", "TRACE", pods, nil, good("a"), 405, metav1.StatusReasonMethodNotAllowed},
		{"P5 metrics", "GET", "/clusters/dev/metrics", nil, good("a"), 403, metav1.StatusReasonForbidden},
		{"P8 repeated", "GET", pods + "?limit=1&limit=2", nil, good("a"), 400, metav1.StatusReasonBadRequest},
		{"P10 deletecollection", "DELETE", pods + "?labelSelector=a", nil, good("a"), 403, metav1.StatusReasonForbidden},
		{"P11 upgrade of a list", "GET", pods, nil, good("a", "Connection", "Upgrade", "Upgrade", "websocket"), 400, metav1.StatusReasonBadRequest},
		{"R1 nodes/proxy", "GET", "/clusters/dev/api/v1/nodes/n/proxy/run", nil, good("a"), 403, metav1.StatusReasonForbidden},
		{"U2 h2c", "GET", pods, nil, good("a", "Connection", "Upgrade, HTTP2-Settings", "Upgrade", "h2c"), 400, metav1.StatusReasonBadRequest},
		{"U2 SPDY", "POST", pods + "/web/exec?command=sh", nil, good("a", "Connection", "Upgrade", "Upgrade", "SPDY/3.1"), 400, metav1.StatusReasonBadRequest},
		{"exec that does not upgrade", "GET", pods + "/web/exec?command=sh", nil, good("a"), 400, metav1.StatusReasonBadRequest},
		{"a write", "POST", pods, strings.NewReader(`{}`), good("a"), 403, metav1.StatusReasonForbidden},
		{"U6 a large body", "POST", "/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", bytes.NewReader(make([]byte, gate.MaxBody+1)), good("a"), 413, metav1.StatusReasonRequestEntityTooLarge},
		{"U6 a large body of unknown length", "POST", "/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", io.MultiReader(bytes.NewReader(make([]byte, gate.MaxBody+1))), good("a"), 413, metav1.StatusReasonRequestEntityTooLarge},
	} {
		t.Run(test.name, func(t *testing.T) {
			res, s := r.do(t, test.method, test.path, test.body, test.h)
			if res.StatusCode != test.code || s.Reason != test.reason {
				t.Errorf("got %d %s (%s), want %d %s", res.StatusCode, s.Reason, s.Message, test.code, test.reason)
			}
			if res.Header.Get("Content-Type") != "application/json" {
				t.Errorf("content type %q", res.Header.Get("Content-Type"))
			}
		})
	}
	for _, q := range r.reached() {
		if q.URL.Path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" { // the gate's own question about SPDY
			t.Errorf("a refused request reached the cluster: %s", q.URL.Path)
		}
	}
}

// Refusals are recorded too, and nothing that is secret is in a record.
func TestRefusalsAreRecorded(t *testing.T) {
	r := newRig(t, nil)
	r.do(t, "GET", pods, nil, http.Header{"Authorization": {"Bearer badsecrettoken"}})
	r.do(t, "DELETE", pods+"/web", nil, good("bot"))
	r.do(t, "GET", "/nowhere", nil, good("bot"))
	events, where := r.recorder.wait(t, 3)
	for i, want := range []struct {
		code   int32
		user   string
		stream recording.Stream
	}{
		{401, "system:anonymous", recording.Stream{Cluster: "dev"}},
		{403, "bot", recording.Stream{Cluster: "dev", Session: "sessionbot"}},
		{404, "system:anonymous", recording.Stream{}},
	} {
		e := events[i]
		if e.ResponseStatus.Code != want.code || e.User.Username != want.user || where[i] != want.stream || e.ResponseStatus.Message == "" {
			t.Errorf("event %d is %+v in %+v, want %+v", i, e, where[i], want)
		}
		if b, _ := json.Marshal(e); bytes.Contains(b, []byte("badsecret")) || bytes.Contains(b, []byte("good:")) {
			t.Errorf("a token is in the record: %s", b)
		}
	}
}

func TestNothingIsForwardedThatCannotBeRecorded(t *testing.T) {
	r := newRig(t, nil)
	r.recorder.sick = access.Errorf(access.Unavailable, "the gate cannot record").After(time.Second)
	for _, h := range []http.Header{good("a"), good("a", "Connection", "Upgrade", "Upgrade", "websocket")} {
		path := pods
		if h.Get("Upgrade") != "" {
			path += "/web/exec?command=sh"
		}
		req, _ := http.NewRequest("GET", r.URL+path, nil)
		req.Header = h
		res, err := http1(r).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("%s: got %d, Retry-After %q", path, res.StatusCode, res.Header.Get("Retry-After"))
		}
	}
	if len(r.reached()) != 0 {
		t.Error("a request was forwarded without a record")
	}
}

func http1(r *rig) *http.Client {
	tr := r.Client().Transport.(*http.Transport).Clone()
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(true)
	tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	return &http.Client{Transport: tr}
}

func TestBrokerAway(t *testing.T) {
	r := newRig(t, nil)
	r.broker.err = access.Errorf(access.Unavailable, "the broker does not answer").After(2 * time.Second)
	res, s := r.do(t, "GET", pods, nil, good("a"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || s.Details.RetryAfterSeconds != 2 || len(r.reached()) != 0 {
		t.Errorf("got %d, Retry-After %q, %+v", res.StatusCode, res.Header.Get("Retry-After"), s)
	}
}

// What the cluster answers is not passed on blindly.
func TestAnswersOfTheCluster(t *testing.T) {
	for _, test := range []struct {
		name    string
		method  string
		path    string
		cluster http.HandlerFunc
		code    int
		retry   string
	}{
		{"U3 a redirect", "GET", pods, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "http://169.254.169.254/", 307) }, 502, ""},
		{"its 401 is not the caller's", "GET", pods, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, 503, "2"},
		{"forbidden is passed on", "GET", pods, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(403)
			fmt.Fprint(w, `{"kind":"Status","message":"forbidden","code":403}`)
		}, 403, ""},
		{"U10 Retry-After of a read", "GET", pods, func(w http.ResponseWriter, _ *http.Request) { tooMany(w) }, 429, "7"},
		{"U10 Retry-After of a write", "POST", "/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", func(w http.ResponseWriter, _ *http.Request) { tooMany(w) }, 429, ""},
		{"U1 a switch nobody asked for", "GET", pods, func(w http.ResponseWriter, _ *http.Request) {
			c, _, _ := http.NewResponseController(w).Hijack()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			c.Close()
		}, 502, ""},
		{"a SelfSubjectReview in another form", "POST", "/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
			fmt.Fprint(w, "k8s\x00ASIAX")
		}, 502, ""},
		{"gone without an answer", "GET", pods, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, "2"},
		{"gone without an answer to a write", "POST", "/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 503, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, test.cluster)
			var body io.Reader
			if test.method == "POST" {
				body = strings.NewReader("{}")
			}
			res, s := r.do(t, test.method, test.path, body, good("a"))
			if res.StatusCode != test.code || res.Header.Get("Retry-After") != test.retry {
				t.Errorf("got %d (%s), Retry-After %q; want %d and %q", res.StatusCode, s.Message, res.Header.Get("Retry-After"), test.code, test.retry)
			}
			if n := len(r.reached()); n != 1 {
				t.Errorf("it reached the cluster %d times", n)
			}
			if res.Header.Get("Location") != "" {
				t.Error("a Location was passed on")
			}
		})
	}
}

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Retry-After", "7")
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(429)
	fmt.Fprint(w, `{"kind":"Status","message":"slow down","code":429}`)
}

func TestClusterAway(t *testing.T) {
	r := newRig(t, nil)
	r.cluster.Close()
	res, s := r.do(t, "GET", pods, nil, good("a"))
	if res.StatusCode != 503 || res.Header.Get("Retry-After") != "2" || !strings.Contains(s.Message, "nothing was forwarded") {
		t.Errorf("got %d %q, Retry-After %q", res.StatusCode, s.Message, res.Header.Get("Retry-After"))
	}
}

// dial opens a raw connection and writes a request, for what http.Client would not send.
func dial(t *testing.T, r *rig, raw string) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", r.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	cfg := r.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
	cfg.NextProtos, cfg.ServerName = []string{"http/1.1"}, "example.com"
	s := tls.Client(c, cfg)
	if _, err := io.WriteString(s, raw); err != nil {
		t.Fatal(err)
	}
	return s, bufio.NewReader(s)
}

const execRequest = "GET " + pods + "/web/exec?command=sh&stdin=true&stdout=true HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"

// kubectl that was refused over WebSocket tries SPDY and shows the answer to that: it must be the cluster's refusal.
func TestSPDYHearsTheClustersRefusal(t *testing.T) {
	for allowed, want := range map[bool]int{true: 400, false: 403} {
		r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path != "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" {
				t.Errorf("%s reached the cluster", q.URL.Path)
			}
			w.WriteHeader(201)
			fmt.Fprintf(w, `{"kind":"SelfSubjectAccessReview","status":{"allowed":%v}}`, allowed)
		})
		res, s := r.do(t, "POST", pods+"/web/exec?command=sh", nil, good("a", "Connection", "Upgrade", "Upgrade", "SPDY/3.1"))
		if res.StatusCode != want || (want == 403) != strings.Contains(s.Message, `cannot create resource "pods/exec"`) {
			t.Errorf("allowed %v: got %d %s", allowed, res.StatusCode, s.Message)
		}
	}
}

// H5: a browser's token in the subprotocol is good, and goes no further.
func TestUpgrade(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: %s\r\n\r\n", q.Header.Get("Sec-Websocket-Protocol"))
		line, _ := rw.ReadString('\n')
		_, _ = io.WriteString(c, output(strings.ToUpper(line)))
	})
	secret := "base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte("good:browser"))
	c, br := dial(t, r, execRequest+"Sec-WebSocket-Protocol: v5.channel.k8s.io, "+secret+"\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Sec-Websocket-Protocol") != "v5.channel.k8s.io" {
		t.Fatalf("got %+v, %v", res, err)
	}
	fmt.Fprint(c, "hello\n")
	if line, err := br.ReadString('\n'); err != nil || !strings.HasSuffix(line, "HELLO\n") {
		t.Errorf("got %q, %v through the stream", line, err)
	}
	c.Close()
	events, _ := r.recorder.wait(t, 2)
	if events[0].Stage != auditv1.StageRequestReceived || events[1].Stage != auditv1.StageResponseComplete || events[0].AuditID != events[1].AuditID || events[1].ResponseStatus.Code != 101 {
		t.Errorf("recorded %s and %s", events[0].Stage, events[1].Stage)
	}
	for _, e := range events {
		if strings.Contains(e.RequestURI, "command=sh") {
			t.Errorf("argv is in the record: %s", e.RequestURI)
		}
	}
}

// U1: an upgrade that the cluster refuses leaves no connection that can be used again.
func TestFailedUpgradeClosesTheConnection(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(403)
		fmt.Fprint(w, `{"kind":"Status","message":"forbidden","code":403}`)
	})
	second := "GET /clusters/dev/api/v1/secrets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer good:a\r\n\r\n"
	_, br := dial(t, r, execRequest+"Authorization: Bearer good:a\r\n\r\n"+second)
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 403 || !res.Close {
		t.Fatalf("got %+v, %v; want a 403 that closes the connection", res, err)
	}
	_, _ = io.Copy(io.Discard, res.Body)
	if _, err := http.ReadResponse(br, nil); err == nil {
		t.Error("a second request was answered on the connection")
	}
	if n := len(r.reached()); n != 1 {
		t.Errorf("%d requests reached the cluster, want 1", n)
	}
}

// U5: what was opened with a token ends when the token does.
func TestStreamsEndWithTheToken(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintln(w, `{"type":"ADDED"}`)
		_ = http.NewResponseController(w).Flush()
		<-q.Context().Done()
	})
	req, _ := http.NewRequest("GET", r.URL+pods+"?watch=1", nil)
	req.Header.Set("Authorization", "Bearer brief:bot")
	start := time.Now()
	res, err := r.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, err = io.ReadAll(res.Body)
	if took := time.Since(start); err == nil || took > 5*time.Second {
		t.Errorf("the watch ended with %v after %v; want it cut within 5 s of the token's end", err, took)
	}
	events, _ := r.recorder.wait(t, 2)
	if e := events[1]; !strings.Contains(fmt.Sprint(e.Annotations), "token expired") {
		t.Errorf("the record does not say why: %v", e.Annotations)
	}
}

// U8: of twelve slow requests one is given up; the cluster hears of that one only.
func TestCancellation(t *testing.T) {
	release, arrived := make(chan struct{}), make(chan string, 12)
	gone := make(chan string, 12)
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		n := q.URL.Query().Get("n")
		arrived <- n
		select {
		case <-release:
			fmt.Fprint(w, n)
		case <-q.Context().Done():
			gone <- n
		}
	})
	var wg sync.WaitGroup
	first, giveUp := context.WithCancel(context.Background())
	for i := range 12 {
		wg.Go(func() {
			ctx := context.Background()
			if i == 0 {
				ctx = first
			}
			req, _ := http.NewRequestWithContext(ctx, "GET", fmt.Sprintf("%s%s?n=%d", r.URL, pods, i), nil)
			req.Header.Set("Authorization", "Bearer good:bot")
			res, err := r.Client().Do(req)
			if i == 0 {
				if err == nil {
					t.Error("the request that was given up was answered")
				}
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); err != nil || string(b) != fmt.Sprint(i) {
				t.Errorf("request %d: %q, %v", i, b, err)
			}
		})
	}
	for range 12 {
		<-arrived
	}
	giveUp()
	if n := <-gone; n != "0" {
		t.Errorf("the cluster lost request %s, not 0", n)
	}
	close(release)
	wg.Wait()
	if len(gone) != 0 {
		t.Errorf("the cluster lost another request: %s", <-gone)
	}
}

// Half an answer never looks like a whole one.
func TestBrokenAnswerBreaksOff(t *testing.T) {
	r := newRig(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	})
	req, _ := http.NewRequest("GET", r.URL+pods, nil)
	req.Header.Set("Authorization", "Bearer good:bot")
	res, err := r.Client().Do(req)
	if err == nil {
		defer res.Body.Close()
		_, err = io.ReadAll(res.Body)
	}
	if err == nil {
		t.Error("half an answer was passed on as a whole one")
	}
	if events, _ := r.recorder.wait(t, 1); !strings.Contains(fmt.Sprint(events[0].Annotations), "broke off") {
		t.Errorf("the record does not say so: %v", events[0].Annotations)
	}
}

// Unknown tokens are counted against their address; known ones are not.
func TestUnknownTokensAreLimited(t *testing.T) {
	r := newRig(t, nil)
	codes := map[int]int{}
	for range 30 {
		res, _ := r.do(t, "GET", pods, nil, http.Header{"Authorization": {"Bearer bad"}})
		codes[res.StatusCode]++
	}
	if codes[401] < 10 || codes[429] < 10 {
		t.Errorf("got %v; want the first ten refused as 401 and most of the rest as 429", codes)
	}
	if res, _ := r.do(t, "GET", pods, nil, good("bot")); res.StatusCode != 200 {
		t.Errorf("a known token got %d", res.StatusCode)
	}
}

// EKS tells the access key id among the user's extra values; the agent does not hear it, in whatever form it asks.
func TestWhoamiKeepsTheKeyID(t *testing.T) {
	var accept string
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		accept = q.Header.Get("Accept")
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(201)
		fmt.Fprint(w, `{"kind":"SelfSubjectReview","status":{"userInfo":{"username":"u","extra":{"accessKeyId":["ASIAX"],"arn":["a"]}}}}`)
	})
	req, _ := http.NewRequest("POST", r.URL+"/clusters/dev/apis/authentication.k8s.io/v1/selfsubjectreviews", strings.NewReader("{}"))
	req.Header = good("bot", "Accept", "application/vnd.kubernetes.protobuf, application/json")
	res, err := r.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	if res.StatusCode != 201 || accept != "application/json" || bytes.Contains(b, []byte("ASIAX")) || !bytes.Contains(b, []byte(`"arn":["a"]`)) {
		t.Errorf("asked as %q, got %d %s", accept, res.StatusCode, b)
	}
}

func TestSecretsStayInside(t *testing.T) {
	r := newRig(t, nil)
	res, _ := r.do(t, "GET", pods, nil, good("bot"))
	events, _ := r.recorder.wait(t, 1)
	record, _ := json.Marshal(events)
	for _, s := range []string{fmt.Sprint(res.Header), string(record)} {
		for _, secret := range []string{"k8s-aws-v1.", "hush", "ASIAX", "good:bot"} {
			if strings.Contains(s, secret) {
				t.Errorf("%q is in %s", secret, s)
			}
		}
	}
}
