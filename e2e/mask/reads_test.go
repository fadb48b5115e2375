package mask_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// A form is what a client may ask for in Accept, and what it then gets: objects, a table, metadata of one or of many, or
// nothing, where there is no JSON in it.
type form struct{ accept, gets string }

const (
	objects = "objects"
	tables  = "tables"
	one     = "metadata of one"
	many    = "metadata of many"
	nothing = "nothing"
)

const (
	table   = ";as=Table;v=v1;g=meta.k8s.io"
	table1  = ";as=Table;v=v1beta1;g=meta.k8s.io"
	partial = ";as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
)

// Threat S3: every encoding that the API server offers, in some of its spellings, alone and beside JSON.
var forms = []form{
	{"", objects}, {"*/*", objects}, {"application/*", objects}, {"application/json", objects}, {"application/json;pretty=1", objects},
	{"application/json; charset=utf-8", objects}, {"application/json;stream=watch", objects},
	{"application/json" + table, tables}, {"application/json" + table1, tables},
	{"application/json" + table + ",application/json" + table1 + ",application/json", tables}, // kubectl get
	{"application/json" + partial, one}, {"application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io", many},
	{"application/json;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io", many},
	{"application/vnd.kubernetes.protobuf,application/json", objects}, // client-go
	{"application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io, application/json", objects},
	{"Application/Vnd.Kubernetes.Protobuf;q=1, */*;q=0.1", objects},
	{"application/vnd.kubernetes.protobuf;stream=watch;q=0.9,application/json;q=0.1", objects},
	{"application/yaml,application/json;q=0.5", objects}, {"application/cbor, application/json", objects}, {"application/cbor-seq;q=1,application/json" + table, tables},
	{"application/vnd.kubernetes.protobuf", nothing}, {"application/vnd.kubernetes.protobuf" + partial, nothing}, {"application/yaml", nothing},
	{"application/cbor", nothing}, {"application/cbor-seq", nothing}, {"text/plain", nothing}, {"APPLICATION/JSON", nothing},
}

// few are the forms that differ in what comes of them.
var few = []form{forms[0], forms[7], forms[8], forms[10], forms[11], forms[13], forms[18]}

var encodings = []string{"gzip", "identity", "deflate", "br, gzip;q=0.5", "*", ""}

// A read is one request of a client.
type read struct {
	target   string // path and query
	way      string // what kind of read it is
	watch    bool
	form     form
	encoding string
}

func (r read) String() string {
	return fmt.Sprintf("%s %s (Accept: %q, Accept-Encoding: %q)", r.way, r.target, r.form.accept, r.encoding)
}

// gets says what kind of thing is answered.
func (r read) gets() string {
	if r.form.gets == one && strings.HasPrefix(r.way, "list") || r.form.gets == many && strings.HasPrefix(r.way, "get") {
		return nothing
	}
	return r.form.gets
}

// got is what came of a read.
type got struct {
	code   int
	shown  []canary.Secret
	masked bool // there was a mask in it
	err    error
}

// A reader reads as somebody, and looks for secrets in what comes, as it comes.
type reader struct {
	client *http.Client
	base   string
	token  string // none for the administrator
	set    *canary.Set
}

// A watch is over when nothing came for a while.
const (
	first = 20 * time.Second
	quiet = 300 * time.Millisecond
)

func (r *reader) do(ctx context.Context, what read) got {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+what.target, nil)
	if err != nil {
		return got{err: err}
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	if what.form.accept != "" {
		req.Header.Set("Accept", what.form.accept)
	}
	req.Header.Set("Accept-Encoding", what.encoding) // or Go would ask for gzip by itself
	silence := time.AfterFunc(first, cancel)
	defer silence.Stop()
	res, err := r.client.Do(req)
	if err != nil {
		return got{err: err}
	}
	defer res.Body.Close()
	g := got{code: res.StatusCode}
	search := r.set.Search()
	_ = res.Header.Write(search)
	var body io.Reader = res.Body
	if res.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return got{err: err}
		}
	}
	b := make([]byte, 32<<10)
	for err == nil {
		var n int
		if n, err = body.Read(b); n > 0 {
			_, _ = search.Write(b[:n])
			g.masked = g.masked || bytes.Contains(b[:n], []byte("[masked")) || bytes.Contains(b[:n], []byte("W21hc2tlZ"))
			silence.Reset(first)
			if what.watch {
				silence.Reset(quiet)
			}
		}
	}
	g.shown = search.Found()
	if ended := what.watch && ctx.Err() != nil; !ended && !errors.Is(err, io.EOF) {
		g.err = fmt.Errorf("the answer broke off: %w", err)
	}
	return g
}

// all does reads, many at a time, and tells of each what came of it.
func (r *reader) all(ctx context.Context, reads []read, tell func(read, got)) {
	var next atomic.Int64
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(reads) {
					return
				}
				g := r.do(ctx, reads[i])
				mu.Lock()
				tell(reads[i], g)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

// as reads as an agent, over HTTP/2.
func as(t *testing.T, a *stacktest.Agent, set *canary.Set) *reader {
	t.Helper()
	return &reader{client: a.Client(t, true), base: a.Base(), token: a.Token, set: set}
}

// pastTheGate reads as the cluster's administrator, to see what there is to be seen.
func pastTheGate(t *testing.T, s *stacktest.Stack, set *canary.Set) *reader {
	t.Helper()
	cfg := adminConfig(t, s)
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return &reader{client: client, base: strings.TrimSuffix(cfg.Host, "/"), set: set}
}

func adminConfig(t *testing.T, s *stacktest.Stack) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Cluster.AdminKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cfg.QPS = -1
	return cfg
}

// A resource is one that holds secrets somewhere.
type resource struct {
	path          string // of the group and version
	name          string
	namespaced    bool
	subresources  []string
	first, second string // names of planted ones in namespace dev
}

// Where the carriers are read.
var resources = []resource{
	{path: "/api/v1", name: "secrets", namespaced: true},
	{path: "/api/v1", name: "configmaps", namespaced: true},
	{path: "/api/v1", name: "events", namespaced: true},
	{path: "/api/v1", name: "pods", namespaced: true, subresources: []string{"status"}},
	{path: "/api/v1", name: "podtemplates", namespaced: true},
	{path: "/api/v1", name: "replicationcontrollers", namespaced: true, subresources: []string{"status"}},
	{path: "/api/v1", name: "services", namespaced: true, subresources: []string{"status"}},
	{path: "/api/v1", name: "serviceaccounts", namespaced: true},
	{path: "/api/v1", name: "persistentvolumes", subresources: []string{"status"}},
	{path: "/apis/apps/v1", name: "deployments", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/apps/v1", name: "replicasets", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/apps/v1", name: "statefulsets", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/apps/v1", name: "daemonsets", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/apps/v1", name: "controllerrevisions", namespaced: true},
	{path: "/apis/batch/v1", name: "cronjobs", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/batch/v1", name: "jobs", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/events.k8s.io/v1", name: "events", namespaced: true},
	{path: "/apis/networking.k8s.io/v1", name: "ingresses", namespaced: true, subresources: []string{"status"}},
	{path: "/apis/certificates.k8s.io/v1", name: "certificatesigningrequests"},
	{path: "/apis/" + things + "/v1", name: "widgets", namespaced: true},
}

func (r resource) in(namespace string) string {
	if !r.namespaced || namespace == "" {
		return r.path + "/" + r.name
	}
	return r.path + "/namespaces/" + namespace + "/" + r.name
}

// reads are the ways to read a resource: with every form and encoding where that is worth it, with few where one answer is
// like another.
func (r resource) reads() []read {
	var all []read
	n := 0
	add := func(way, target string, forms []form) {
		for _, f := range forms {
			n++ // the gate asks for identity, whatever the client does: not every form needs each encoding
			all = append(all, read{target: target, way: way, form: f, encoding: encodings[n%len(encodings)], watch: strings.HasPrefix(way, "watch")})
		}
	}
	dev := r.in("dev")
	add("list", dev+"?limit=500", forms)
	add("list, whole", dev+"?resourceVersion=0", few)
	add("list, pretty", dev+"?pretty=true", few)
	add("list of all namespaces", r.in(""), few)
	add("list by field", dev+"?fieldSelector=metadata.name%3D"+r.first, few)
	for _, include := range []string{"None", "Metadata", "Object"} {
		add("list, includeObject="+include, dev+"?includeObject="+include, few)
	}
	add("get", dev+"/"+r.first, forms)
	add("get, the whole object in the table", dev+"/"+r.second+"?includeObject=Object", few)
	for _, sub := range r.subresources {
		add("get "+sub, dev+"/"+r.first+"/"+sub, few)
	}
	add("watch", dev+"?watch=1&timeoutSeconds=20", few)
	add("watch of tables with objects", dev+"?watch=true&timeoutSeconds=20&includeObject=Object", few)
	add("watch that begins with a list", dev+"?watch=1&timeoutSeconds=20&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", few)
	add("watch of one", r.in("")+"?watch=1&timeoutSeconds=20&fieldSelector=metadata.name%3D"+r.first, few)
	add("watch by the old path", strings.Replace(dev, "/v1/", "/v1/watch/", 1)+"?timeoutSeconds=20", few)
	return all
}

// pages reads a resource page by page.
func (r *reader) pages(ctx context.Context, what resource, f form, tell func(read, got)) error {
	next := ""
	for page := 0; page == 0 || next != ""; page++ {
		one := read{target: what.in("dev") + "?limit=3&continue=" + url.QueryEscape(next), way: "list by pages", form: f, encoding: "gzip"}
		tell(one, r.do(ctx, one))
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.base+one.target, nil)
		if err != nil {
			return err
		}
		if r.token != "" {
			req.Header.Set("Authorization", "Bearer "+r.token)
		}
		req.Header.Set("Accept", f.accept)
		res, err := r.client.Do(req)
		if err != nil {
			return err
		}
		var list struct{ Metadata struct{ Continue string } }
		err = json.NewDecoder(res.Body).Decode(&list)
		res.Body.Close()
		next = list.Metadata.Continue
		if err == nil && page > 100 {
			err = errors.New("there is no end")
		}
		if err != nil {
			return fmt.Errorf("page %d of %s: %w", page, one.target, err)
		}
	}
	return nil
}
