package gate_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"
)

// BenchmarkSmallGet sends a small GET through the gate and, in turn, through net/http's reverse proxy with the same
// tuning. x/ReverseProxy is the gate's time over the other's: both share the machine, so the ratio says more than either.
func BenchmarkSmallGet(b *testing.B) {
	r := newRig(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, strings.Repeat("x", 728)) })
	r.recorder.discard = true
	u, _ := url.Parse(r.cluster.URL)
	tr := r.cluster.Client().Transport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost, tr.DisableCompression, tr.ForceAttemptHTTP2 = 1024, true, false
	plain := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u) }, Transport: tr, FlushInterval: -1})
	plain.StartTLS()
	b.Cleanup(plain.Close)
	client := http1(r)
	client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	get := func(url string) time.Duration {
		began := time.Now()
		req, _ := http.NewRequest(http.MethodGet, url, nil)
		req.Header.Set("Authorization", "Bearer good:bench")
		res, err := client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if n, _ := io.Copy(io.Discard, res.Body); n != 728 {
			b.Fatalf("%d bytes, status %d", n, res.StatusCode)
		}
		res.Body.Close()
		return time.Since(began)
	}
	get(r.URL + pods)
	get(plain.URL)
	var gate, other time.Duration
	for b.Loop() {
		gate += get(r.URL + pods)
		other += get(plain.URL)
	}
	b.ReportMetric(float64(gate.Microseconds())/float64(b.N), "gate-µs/op")
	b.ReportMetric(float64(gate)/float64(other), "x/ReverseProxy")
	b.ReportMetric(0, "ns/op")
}
