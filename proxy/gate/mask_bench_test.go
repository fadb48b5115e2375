package gate_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/masktest"
)

// The same answers at four addresses: as they are at the cluster, through net/http's reverse proxy with the gate's tuning, and
// through the gate, masked or, by a rule, as they are.
type ways struct {
	rig    *rig
	client *http.Client
	urls   map[string]string
}

const (
	direct  = "direct"
	reverse = "ReverseProxy"
	unmask  = "gate, unmasked"
	masks   = "gate"
)

// newWays serves answers by the last part of the path.
func newWays(b testing.TB, cluster http.HandlerFunc) *ways {
	b.Helper()
	r := newRig(b, cluster)
	r.recorder.discard = true
	r.policy(b, `- {name: secrets, effect: allow, groups: [observers], verbs: [get, list, watch], apiGroups: [""], resources: [secrets], namespaces: [masked]}
- {name: bare, effect: allow, mask: "off", groups: [observers], verbs: [get, list, watch], apiGroups: [""], resources: [secrets], namespaces: [bare]}
`)
	u, err := url.Parse(r.cluster.URL)
	if err != nil {
		b.Fatal(err)
	}
	tr := r.cluster.Client().Transport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost, tr.DisableCompression, tr.ForceAttemptHTTP2 = 1024, true, false
	pool := &buffers{sync.Pool{New: func() any { return make([]byte, 32<<10) }}}
	plain := httptest.NewUnstartedServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(u) }, Transport: tr, FlushInterval: -1, BufferPool: pool})
	plain.StartTLS()
	b.Cleanup(plain.Close)
	client := http1(r)
	client.Transport.(*http.Transport).TLSClientConfig.InsecureSkipVerify = true
	client.Transport.(*http.Transport).DisableCompression = true
	return &ways{r, client, map[string]string{
		direct: r.cluster.URL + "/api/v1/namespaces/masked/secrets", reverse: plain.URL + "/api/v1/namespaces/masked/secrets",
		unmask: r.URL + "/clusters/dev/api/v1/namespaces/bare/secrets", masks: r.URL + "/clusters/dev/api/v1/namespaces/masked/secrets",
	}}
}

type buffers struct{ sync.Pool }

func (b *buffers) Get() []byte  { return b.Pool.Get().([]byte) }
func (b *buffers) Put(p []byte) { b.Pool.Put(p) } //nolint:staticcheck // SA6002: as httputil's interface has it

func (w *ways) get(b testing.TB, way, query string) *http.Response {
	b.Helper()
	req, err := http.NewRequest(http.MethodGet, w.urls[way]+query, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer good:bench")
	res, err := w.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	if res.StatusCode != http.StatusOK {
		b.Fatalf("%s answered %d", way, res.StatusCode)
	}
	return res
}

// took is how long the first byte of an answer took, and all of it.
func (w *ways) took(b testing.TB, way string, least int64) (first, whole time.Duration) {
	b.Helper()
	began := time.Now()
	res := w.get(b, way, "")
	defer res.Body.Close()
	if _, err := io.ReadFull(res.Body, make([]byte, 1)); err != nil {
		b.Fatal(err)
	}
	first = time.Since(began)
	n, err := io.Copy(io.Discard, res.Body)
	if err != nil || n+1 < least {
		b.Fatalf("%s: %d bytes, %v", way, n+1, err)
	}
	return first, time.Since(began)
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// BenchmarkList sends a list of 50 MB every way in turn. x/ReverseProxy is the reverse proxy's time over the gate's: the share
// of its throughput that is left, masked. first-ms is how much later the first byte comes than unmasked.
func BenchmarkList(b *testing.B) {
	const size = 50 << 20
	for name, list := range map[string][]byte{"secrets": masktest.SecretList(5300), "pods": masktest.PodList(23000)} {
		b.Run(name, func(b *testing.B) {
			w := newWays(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(list) })
			first, whole := map[string][]time.Duration{}, map[string][]time.Duration{}
			all := []string{direct, reverse, unmask, masks}
			for _, way := range all {
				w.took(b, way, size/10) // connections, session
			}
			for b.Loop() {
				for _, way := range all {
					f, t := w.took(b, way, size/10)
					first[way], whole[way] = append(first[way], f), append(whole[way], t)
				}
			}
			b.ReportMetric(float64(len(list))/1e6/median(whole[masks]).Seconds(), "MB/s")
			for _, way := range all[:3] {
				b.ReportMetric(float64(median(whole[way]))/float64(median(whole[masks])), "x/"+strings.ReplaceAll(way, ", ", "-"))
			}
			b.ReportMetric(ms(median(first[masks])), "first-ms")
			b.ReportMetric(ms(median(first[masks])-median(first[unmask])), "first-ms-more")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkSmallGet sends one Secret every way in turn.
func BenchmarkSmallGet(b *testing.B) {
	w := newWays(b, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, db) })
	whole := map[string][]time.Duration{}
	all := []string{direct, reverse, unmask, masks}
	for _, way := range all {
		w.took(b, way, 10)
	}
	for b.Loop() {
		for _, way := range all {
			_, t := w.took(b, way, 10)
			whole[way] = append(whole[way], t)
		}
	}
	for _, way := range all {
		b.ReportMetric(1000*ms(median(whole[way])), "µs-"+strings.ReplaceAll(way, ", ", "-"))
	}
	b.ReportMetric(float64(median(whole[masks]))/float64(median(whole[reverse])), "x/ReverseProxy")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkWatchEvent is how long an event takes from the cluster to the caller, masked and not.
func BenchmarkWatchEvent(b *testing.B) {
	event := []byte(`{"type":"MODIFIED","object":` + db + "}\n")
	next := map[string]chan time.Time{"masked": make(chan time.Time), "bare": make(chan time.Time)}
	w := newWays(b, func(w http.ResponseWriter, q *http.Request) {
		_ = http.NewResponseController(w).Flush()
		for sent := range next[strings.Split(q.URL.Path, "/")[4]] {
			_ = sent
			_, _ = w.Write(event)
			_ = http.NewResponseController(w).Flush()
		}
	})
	took := map[string][]time.Duration{}
	open := map[string]*http.Response{}
	for _, way := range []string{unmask, masks} {
		res := w.get(b, way, "?watch=1")
		defer res.Body.Close()
		open[way] = res
	}
	buf := make([]byte, 4096)
	for b.Loop() {
		for way, of := range map[string]string{unmask: "bare", masks: "masked"} {
			began := time.Now()
			next[of] <- began
			for n := 0; ; {
				k, err := open[way].Body.Read(buf[n:])
				if err != nil {
					b.Fatal(err)
				}
				if n += k; bytes.HasSuffix(buf[:n], []byte("\n")) {
					break
				}
			}
			took[way] = append(took[way], time.Since(began))
		}
	}
	for _, c := range next {
		close(c)
	}
	b.ReportMetric(1000*ms(median(took[masks])), "µs-masked")
	b.ReportMetric(1000*ms(median(took[masks])-median(took[unmask])), "µs-more")
	b.ReportMetric(0, "ns/op")
}

// What the gate holds does not grow with the answer.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("it sends 500 MB; leave out -short")
	}
	var size int64
	w := newWays(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, masktest.Long(size)) })
	holds := func(n int64) int64 {
		size = n
		res := w.get(t, masks, "")
		defer res.Body.Close()
		var most uint64
		seen, next := int64(0), int64(0)
		for buf := make([]byte, 32<<10); ; {
			k, err := res.Body.Read(buf)
			if bytes.Contains(buf[:k], []byte(masktest.Value)) {
				t.Fatal("it is not masked")
			}
			if seen += int64(k); seen >= next {
				next = seen + 50<<20
				var s runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&s)
				most = max(most, s.HeapAlloc)
			}
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if seen < n/2 {
			t.Fatalf("%d bytes came of %d", seen, n)
		}
		return int64(most)
	}
	few := holds(1 << 10)
	for _, n := range []int64{1 << 20, 500 << 20} {
		if many := holds(n); many > few+4<<20 {
			t.Errorf("%d MiB live in the heap while %d MiB pass, and %d MiB while a KiB does", many>>20, n>>20, few>>20)
		}
	}
}

// What is masked goes out before the rest came: the beginning of a list, and an event of a watch before the next.
func TestAnswersAreNotHeldBack(t *testing.T) {
	for query, parts := range map[string][2]string{
		"":         {`{"kind":"SecretList","items":[` + strings.Repeat(db+",", 20), db + "]}"},
		"?watch=1": {`{"type":"ADDED","object":` + db + "}\n", `{"type":"DELETED","object":` + db + "}\n"},
	} {
		more := make(chan struct{})
		w := newWays(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, parts[0])
			_ = http.NewResponseController(w).Flush()
			<-more
			_, _ = io.WriteString(w, parts[1])
		})
		res := w.get(t, masks, query)
		want := strings.LastIndex(parts[0], `"type":"Opaque"`) // nothing behind it decides anything about it
		got := ""
		for buf := make([]byte, 4096); !strings.Contains(got, mask.Encoded([]byte(strings.Repeat("bench", 32)[:32]), "masked", []byte(hunter2))) || strings.Count(got, "Opaque") < strings.Count(parts[0][:want+15], "Opaque"); {
			n, err := res.Body.Read(buf)
			if got += string(buf[:n]); err != nil {
				t.Fatalf("%q: it ended with %v after %q", query, err, got)
			}
		}
		close(more)
		rest, err := io.ReadAll(res.Body)
		if err != nil || !strings.Contains(string(rest), "Opaque") || strings.Contains(fmt.Sprint(got, string(rest)), hunter2) {
			t.Errorf("%q: the rest is %q, %v", query, rest, err)
		}
		res.Body.Close()
	}
}
