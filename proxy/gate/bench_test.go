package gate_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"sallyport/proxy/mask/masktest"
)

// The benchmarks measure the whole way of an answer, with TLS on both sides, beside three others of the same run: straight
// from the cluster, through net/http's reverse proxy with connections and buffers tuned, and through the gate where a rule says
// not to mask. They take turns. Cluster, reverse proxy and gate are processes of their own, so that processor time and memory
// are one's own too; the processors they share, so a ratio says more than a speed.
const (
	direct = iota
	reverse
	unmasked
	masked
	ways
)

// bare is what a rule lets observers see as it is.
const bare = `- {name: secrets, effect: allow, groups: [observers], verbs: [list, watch], apiGroups: [""], resources: [secrets]}
- {name: bare, effect: allow, mask: "off", groups: [observers], verbs: [get, list, watch], apiGroups: [""], resources: [nodes]}
`

// role says which process of a benchmark this is, and what it is given.
const role = "SALLYPORT_BENCH"

// TestProcess is a process of a benchmark, and nothing else. It says where it listens, then what it has used for each line it
// is sent, and it ends with its input.
func TestProcess(t *testing.T) {
	name, given, _ := strings.Cut(os.Getenv(role), " ")
	listen := map[string]func(*testing.T, string) string{"cluster": fakeCluster, "reverse": reverseProxy, "gate": benchGate}[name]
	if listen == nil {
		return
	}
	fmt.Println("listening " + listen(t, given))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		if in.Text() == "again" { // the peak of memory begins anew
			_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)
		}
		var u syscall.Rusage
		_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
		fmt.Println("used", u.Utime.Nano()+u.Stime.Nano(), kilobytes("VmHWM"), kilobytes("VmRSS"))
	}
}

// kilobytes is a line of this process's memory.
func kilobytes(name string) string {
	b, _ := os.ReadFile("/proc/self/status")
	_, rest, _ := bytes.Cut(b, []byte("\n"+name+":"))
	if f := bytes.Fields(rest); len(f) > 0 {
		return string(f[0])
	}
	return "0"
}

var pod = fmt.Sprintf(`{"kind":"Pod","apiVersion":"v1","metadata":{"name":"web","namespace":"dev","annotations":{"note":%q}}}`, strings.Repeat("x", 629))

// fakeCluster answers all requests with a list, a Pod, or the events of a watch.
func fakeCluster(t *testing.T, given string) string {
	var list masktest.List
	switch given {
	case "secrets":
		list = masktest.SecretList(5300)
	case "pods":
		list = masktest.PodList(22000)
	}
	secrets := masktest.SecretList(50)
	var say [ways]chan struct{}
	for way := range say {
		say[way] = make(chan struct{})
	}
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		way, _ := strconv.Atoi(q.UserAgent())
		switch {
		case q.URL.Path == "/say":
			say[way] <- struct{}{}
		case q.URL.Query().Has("labelSelector"): // a list that pauses
			for _, piece := range secrets[:20] {
				_, _ = w.Write(piece)
			}
			_ = http.NewResponseController(w).Flush()
			<-say[way]
			_, _ = secrets[20:].WriteTo(w)
		case q.URL.Query().Has("watch"):
			flush := http.NewResponseController(w).Flush
			_ = flush()
			for {
				select {
				case <-say[way]:
				case <-q.Context().Done():
					return
				}
				_, _ = fmt.Fprintf(w, `{"type":"MODIFIED","at":%d,"object":%s}`+"\n", time.Now().UnixNano(), secrets[1])
				_ = flush()
			}
		case list != nil:
			_, _ = list.WriteTo(w)
		default:
			_, _ = io.WriteString(w, pod)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func reverseProxy(t *testing.T, cluster string) string {
	u, err := url.Parse(cluster)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(nil)
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	tr := s.Client().Transport.(*http.Transport).Clone()
	tr.TLSClientConfig.NextProtos, tr.ForceAttemptHTTP2 = nil, false
	tr.MaxIdleConns, tr.MaxIdleConnsPerHost = 4096, 4096 // with two, which is the default, most requests were a handshake
	tr.DisableCompression = true
	s.Config.Handler = &httputil.ReverseProxy{
		Rewrite:    func(p *httputil.ProxyRequest) { p.SetURL(u) },
		Transport:  tr,
		BufferPool: &buffers{sync.Pool{New: func() any { return new([64 << 10]byte) }}},
	}
	return s.URL
}

type buffers struct{ sync.Pool }

func (p *buffers) Get() []byte  { return p.Pool.Get().(*[64 << 10]byte)[:] }
func (p *buffers) Put(b []byte) { p.Pool.Put((*[64 << 10]byte)(b)) }

func benchGate(t *testing.T, cluster string) string {
	r := newRig(t, nil)
	r.recorder.discard = true
	r.broker.endpoint = cluster
	r.policy(t, bare)
	return r.URL
}

// course is the ways to one cluster.
type course struct {
	client   *http.Client
	protocol string
	urls     [ways]string
	by       [ways]*process
}

// newCourse leads to what a cluster that was given something answers for a path.
func newCourse(b *testing.B, protocol, given, path string) *course {
	b.Helper()
	some := httptest.NewTLSServer(nil) // every one has the same certificate
	defer some.Close()
	tr := some.Client().Transport.(*http.Transport).Clone()
	tr.MaxIdleConnsPerHost, tr.DisableCompression, tr.Protocols = 16, true, new(http.Protocols)
	tr.Protocols.SetHTTP1(true) // as the cluster is spoken to
	tr.Protocols.SetHTTP2(protocol == "h2")
	tr.TLSClientConfig.NextProtos = nil
	c := &course{client: &http.Client{Transport: tr}, protocol: protocol}
	cluster := start(b, "cluster", given)
	rev, gate := start(b, "reverse", cluster.url), start(b, "gate", cluster.url)
	b.Cleanup(tr.CloseIdleConnections)
	_, query, _ := strings.Cut(path, "?")
	c.urls = [ways]string{cluster.url + path, rev.url + path, gate.url + "/clusters/dev/api/v1/nodes?" + query, gate.url + "/clusters/dev" + path}
	c.by = [ways]*process{cluster, rev, gate, gate}
	return c
}

// get is the answer by one of the ways.
func (c *course) get(b *testing.B, way int) *http.Response {
	return c.ask(b, way, c.urls[way])
}

func (c *course) ask(b *testing.B, way int, url string) *http.Response {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		b.Fatal(err)
	}
	req.Header = http.Header{"Authorization": {"Bearer good:bench"}, "User-Agent": {strconv.Itoa(way)}}
	res, err := c.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	if res.StatusCode != http.StatusOK || way != direct && (res.ProtoMajor == 2) != (c.protocol == "h2") && !strings.HasSuffix(url, "/say") {
		b.Fatalf("%s: %s %s", url, res.Proto, res.Status)
	}
	return res
}

// say lets the cluster go on with the answer that takes one of the ways.
func (c *course) say(b *testing.B, way int) { c.ask(b, way, c.by[direct].url+"/say").Body.Close() }

// process is one that a benchmark started.
type process struct {
	url string
	in  io.Writer
	out *bufio.Reader
}

func start(b *testing.B, name, given string) *process {
	b.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestProcess$", "-test.timeout=0")
	cmd.Env = append(os.Environ(), role+"="+name+" "+given)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
	})
	p := &process{in: in, out: bufio.NewReader(out)}
	if _, err := fmt.Fscanf(p.out, "listening %s\n", &p.url); err != nil {
		b.Fatal(err)
	}
	return p
}

// used is what the process has used: processor time, and memory at most and now, in MiB.
func (p *process) used(b *testing.B, ask string) (cpu time.Duration, peak, now float64) {
	b.Helper()
	if _, err := fmt.Fprintln(p.in, ask); err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Fscanf(p.out, "used %d %f %f\n", &cpu, &peak, &now); err != nil {
		b.Fatal(err)
	}
	return cpu, peak / 1024, now / 1024
}

// spent is the processor time that f costs one of the ways' process.
func (c *course) spent(b *testing.B, way int, f func()) time.Duration {
	before, _, _ := c.by[way].used(b, "")
	f()
	after, _, _ := c.by[way].used(b, "")
	return after - before
}

// rounds calls f for each way in turn, n times, every other time in the other order.
func rounds(n int, f func(way int)) {
	for i := range n {
		for j := range ways {
			if i%2 == 1 {
				j = ways - 1 - j
			}
			f(j)
		}
	}
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkList reads lists of 50 MB.
func BenchmarkList(b *testing.B) {
	for _, resource := range []string{"secrets", "pods"} { // Pods are the hard case
		for _, protocol := range []string{"h1", "h2"} {
			b.Run(resource+"/"+protocol, func(b *testing.B) { benchmarkList(b, resource, protocol) })
		}
	}
}

func benchmarkList(b *testing.B, resource, protocol string) {
	c := newCourse(b, protocol, resource, "/api/v1/"+resource)
	var size int64
	var took, first, used [ways][]time.Duration
	var peak, before [ways]float64
	buf := make([]byte, 64<<10)
	read := func(way int) {
		began := time.Now()
		res := c.get(b, way)
		n, err := io.ReadFull(res.Body, buf[:1])
		first[way] = append(first[way], time.Since(began))
		if err != nil {
			b.Fatal(err)
		}
		more, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{res.Body}, buf)
		took[way] = append(took[way], time.Since(began))
		res.Body.Close()
		if size = max(size, int64(n)+more); err != nil || int64(n)+more < size/20 {
			b.Fatalf("%d bytes of %d: %v", int64(n)+more, size, err)
		}
	}
	for way := range ways {
		_, _, before[way] = c.by[way].used(b, "again")
	}
	rounds(1, read) // connections, and a session
	took, first = [ways][]time.Duration{}, [ways][]time.Duration{}
	for b.Loop() {
		rounds(9, func(way int) { used[way] = append(used[way], c.spent(b, way, func() { read(way) })) })
	}
	mb := float64(size) / 1e6
	speed := func(way int) float64 { return mb / median(took[way]).Seconds() }
	b.ReportMetric(speed(masked), "MB/s")
	b.ReportMetric(speed(unmasked), "unmasked-MB/s")
	b.ReportMetric(speed(reverse), "reverseproxy-MB/s")
	b.ReportMetric(speed(direct), "direct-MB/s")
	b.ReportMetric(speed(masked)/speed(reverse), "x-reverseproxy")
	b.ReportMetric(ms(median(used[masked]))/mb, "cpu-ms/MB")
	b.ReportMetric(ms(median(used[unmasked]))/mb, "unmasked-cpu-ms/MB")
	b.ReportMetric(ms(median(used[reverse]))/mb, "reverseproxy-cpu-ms/MB")
	b.ReportMetric(ms(median(first[masked])-median(first[unmasked])), "first-byte-masking-added-p50-ms")
	for way := range ways {
		_, peak[way], _ = c.by[way].used(b, "")
	}
	b.ReportMetric(peak[masked], "rss-MiB")
	b.ReportMetric(peak[masked]-before[masked], "rss-grown-MiB") // since it started
	b.ReportMetric(peak[reverse], "reverseproxy-rss-MiB")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSmallGet reads a Pod of 728 bytes.
func BenchmarkSmallGet(b *testing.B) {
	for _, protocol := range []string{"h1", "h2"} {
		b.Run(protocol, func(b *testing.B) { benchmarkSmallGet(b, protocol) })
	}
}

func benchmarkSmallGet(b *testing.B, protocol string) {
	c := newCourse(b, protocol, "", "/api/v1/namespaces/dev/pods/web")
	var took, used [ways][]time.Duration
	const batch = 50
	read := func(way int) {
		used[way] = append(used[way], c.spent(b, way, func() {
			for range batch {
				began := time.Now()
				res := c.get(b, way)
				if n, err := io.Copy(io.Discard, res.Body); err != nil || n != int64(len(pod)) {
					b.Fatalf("%d bytes of %d: %v", n, len(pod), err)
				}
				res.Body.Close()
				took[way] = append(took[way], time.Since(began))
			}
		}))
	}
	rounds(1, read)
	took, used = [ways][]time.Duration{}, [ways][]time.Duration{}
	for b.Loop() {
		rounds(5, read)
	}
	b.ReportMetric(us(median(took[masked])), "p50-µs")
	b.ReportMetric(us(median(took[unmasked])), "unmasked-p50-µs")
	b.ReportMetric(us(median(took[reverse])), "reverseproxy-p50-µs")
	b.ReportMetric(us(median(took[direct])), "direct-p50-µs")
	b.ReportMetric(float64(median(took[reverse]))/float64(median(took[masked])), "x-reverseproxy")
	b.ReportMetric(us(median(used[masked]))/batch, "cpu-µs")
	b.ReportMetric(us(median(used[unmasked]))/batch, "unmasked-cpu-µs")
	b.ReportMetric(us(median(used[reverse]))/batch, "reverseproxy-cpu-µs")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkFirstByte measures how long the first byte of a list takes while nothing else is under way: the cluster sends the
// first 180 KB, and the rest when the byte was there.
func BenchmarkFirstByte(b *testing.B) {
	for _, protocol := range []string{"h1", "h2"} {
		b.Run(protocol, func(b *testing.B) {
			c := newCourse(b, protocol, "", "/api/v1/secrets?labelSelector=a")
			var took [ways][]time.Duration
			buf := make([]byte, 1)
			read := func(way int) {
				began := time.Now()
				res := c.get(b, way)
				if _, err := io.ReadFull(res.Body, buf); err != nil {
					b.Fatal(err)
				}
				took[way] = append(took[way], time.Since(began))
				c.say(b, way)
				if _, err := io.Copy(io.Discard, res.Body); err != nil {
					b.Fatal(err)
				}
				res.Body.Close()
			}
			rounds(5, read)
			took = [ways][]time.Duration{}
			for b.Loop() {
				rounds(1, read)
			}
			b.ReportMetric(us(median(took[masked])), "p50-µs")
			b.ReportMetric(us(median(took[masked])-median(took[unmasked])), "masking-added-p50-µs")
			b.ReportMetric(us(median(took[masked])-median(took[direct])), "added-p50-µs")
			b.ReportMetric(us(median(took[reverse])-median(took[direct])), "reverseproxy-added-p50-µs")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkWatch measures how long an event of a Secret takes that is watched in all ways at once, one event at a time.
func BenchmarkWatch(b *testing.B) {
	c := newCourse(b, "h1", "", "/api/v1/secrets?watch=true")
	var events [ways]*bufio.Reader
	for way := range events {
		res := c.get(b, way)
		defer res.Body.Close()
		events[way] = bufio.NewReaderSize(res.Body, 64<<10)
	}
	var took [ways][]time.Duration
	event := func(way int) {
		c.say(b, way)
		line, err := events[way].ReadSlice('\n')
		now := time.Now().UnixNano()
		var at int64
		if _, e := fmt.Sscanf(string(line), `{"type":"MODIFIED","at":%d,`, &at); e != nil || err != nil {
			b.Fatalf("%s: %v", line, err)
		}
		took[way] = append(took[way], time.Duration(now-at))
	}
	rounds(100, event)
	took = [ways][]time.Duration{}
	for b.Loop() {
		rounds(1, event)
	}
	b.ReportMetric(us(median(took[masked])), "p50-µs")
	b.ReportMetric(us(median(took[masked])-median(took[unmasked])), "masking-added-p50-µs")
	b.ReportMetric(us(median(took[masked])-median(took[direct])), "added-p50-µs")
	b.ReportMetric(us(median(took[reverse])-median(took[direct])), "reverseproxy-added-p50-µs")
	b.ReportMetric(0, "ns/op")
}
