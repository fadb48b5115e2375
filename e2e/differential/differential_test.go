// Package differential_test asks two readers about the same bytes: package action, on whose word the gate decides, and the
// API server itself, whose audit log tells what it made of them. Where action accepts a request, both must agree.
//
// Requests are generated and mutated from a seed, and sent past the gate, byte by byte. They are made as a user who may read
// a few kinds everywhere and change a few kinds in one namespace that is made for it, so that whatever the API server
// takes a request for, it can do no harm; where it may not, it still says what it was asked.
//
// DIFFERENTIAL_TIME is how long to go on (15s), DIFFERENTIAL_SEED the seed of an earlier run. DIFFERENTIAL_CLUSTER names
// the ready file of a cluster started with local/cluster, to fuzz for hours without the stack.
package differential_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/klog/v2"

	"sallyport/e2e/stacktest"
	"sallyport/shared/access"
	"sallyport/shared/action"
)

func TestMain(m *testing.M) {
	klog.SetSlogLogger(slog.New(slog.DiscardHandler)) // Kubernetes' parser tells of every query that it cannot read
	if os.Getenv("DIFFERENTIAL_CLUSTER") != "" {
		os.Exit(m.Run())
	}
	stacktest.Main(m)
}

// clusterOf is the cluster to ask: its administrator's kubeconfig and its audit log.
func clusterOf(t *testing.T) (kubeconfig, auditLog string) {
	t.Helper()
	file := os.Getenv("DIFFERENTIAL_CLUSTER")
	if file == "" {
		s := stacktest.Get(t)
		return s.Cluster.AdminKubeconfig, s.Cluster.AuditLog
	}
	var ready struct {
		Kubeconfig string `json:"admin_kubeconfig"`
		AuditLog   string `json:"audit_log"`
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &ready)
	}
	if err != nil {
		t.Fatal(err)
	}
	return ready.Kubeconfig, ready.AuditLog
}

// TestDifferential replays the corpus, one request after the other, and then makes up requests until time is up.
func TestDifferential(t *testing.T) {
	c := open(t)
	known := corpus(t)
	t.Run("corpus", func(t *testing.T) { replay(t, c, known) })
	t.Run("generated", func(t *testing.T) { generated(t, c, known) })
}

// reading is what package action makes of a request.
type reading struct {
	access.Action
	refused error
}

func read(r request) reading {
	a, err := action.Parse(r.Method, r.Target)
	if err == nil {
		a, err = action.Refine(a, r.ContentType, r.Body)
	}
	return reading{a, err}
}

// calm says whether nothing may change when the API server serves the request.
func (r reading) calm() bool { return !r.Changes() || r.DryRun }

// replay sends each request of the corpus alone, so that what changed is known to be its doing.
func replay(t *testing.T, c *cluster, known map[string]request) {
	names := make([]string, 0, len(known))
	for name := range known {
		names = append(names, name)
	}
	slices.Sort(names)
	accepted, compared := 0, 0
	for _, name := range names {
		r := known[name]
		own := read(r)
		if own.refused != nil {
			continue
		}
		accepted++
		c.prepare(t)
		before := c.settled(t)
		id, heard := c.send(c.conn(0), r, own.Stream)
		after := c.settled(t)
		e := c.log.await(t, c, id)[id]
		if e == nil {
			if (heard == nil || heard.code < 400 || heard.code >= 500) && !unaudited(own) {
				t.Errorf("%s: %v is not in the audit log; the answer was %v", name, r, heard)
			}
			continue
		}
		compared++
		for _, why := range disagreements(r, own, e) {
			t.Errorf("%s: %v: %s", name, r, why)
		}
		for _, why := range overreach(own, before, after) {
			t.Errorf("%s: %v: %s", name, r, why)
		}
	}
	t.Logf("corpus: %d requests, %d accepted, %d compared", len(names), accepted, compared)
	if accepted < len(names)/4 {
		t.Error("the corpus proves little: action accepts hardly any of it")
	}
}

// generated makes up requests until time is up.
func generated(t *testing.T, c *cluster, known map[string]request) {
	length := 15 * time.Second
	if v := os.Getenv("DIFFERENTIAL_TIME"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatalf("DIFFERENTIAL_TIME: %v", err)
		}
	}
	seed := uint64(time.Now().UnixNano())
	if v := os.Getenv("DIFFERENTIAL_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("DIFFERENTIAL_SEED: %v", err)
		}
	}
	g := newGenerator(rand.New(rand.NewPCG(seed, 0)), c.kinds, known)
	var n counts
	// A slow machine, with other tests on it, needs some batches all the same for this to mean anything.
	for end := time.Now().Add(length); time.Now().Before(end); {
		batch(t, c, g, known, &n)
		if t.Failed() {
			break
		}
	}
	fmt.Printf("differential: seed %d: %d requests tried, %d accepted, %d compared (%d answered with success, %d of them writes)\n", seed, n.tried, n.accepted, n.compared, n.good, n.written)
	if n.accepted < n.tried/10 || n.compared < n.accepted*8/10 || n.good == 0 || n.written == 0 {
		t.Errorf("that proves little")
	}
}

type counts struct{ tried, accepted, compared, good, written int }

// batch makes up some requests, sends first those that may change nothing and looks whether something changed, then the
// others, and compares.
func batch(t *testing.T, c *cluster, g *generator, known map[string]request, n *counts) {
	const size = 192
	type sent struct {
		request
		own   reading
		heard *answer
	}
	var calm, other []request
	owns := map[string]reading{}
	for range size {
		r := g.next()
		n.tried++
		own := read(r)
		if own.refused != nil {
			continue
		}
		n.accepted++
		owns[r.String()] = own
		if own.calm() {
			calm = append(calm, r)
		} else {
			other = append(other, r)
		}
	}
	all := map[string]*sent{}
	var mu sync.Mutex
	run := func(requests []request) {
		next := make(chan request)
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				for r := range next {
					own := owns[r.String()]
					id, heard := c.send(c.conn(i), r, own.Stream)
					mu.Lock()
					all[id] = &sent{r, own, heard}
					mu.Unlock()
				}
			})
		}
		for _, r := range requests {
			next <- r
		}
		close(next)
		wg.Wait()
	}
	c.prepare(t)
	before := c.settled(t)
	run(calm)
	if after := c.settled(t); before.differs(after) {
		for _, r := range calm { // one after the other, to know which
			before := c.settled(t)
			c.send(c.conn(0), r, owns[r.String()].Stream)
			for _, why := range overreach(owns[r.String()], before, c.settled(t)) {
				t.Errorf("%v: %s", r, why)
				keep(t, r, known)
			}
		}
	}
	run(other)

	ids := make([]string, 0, len(all))
	for id := range all {
		ids = append(ids, id)
	}
	events := c.log.await(t, c, ids...)
	for id, x := range all {
		e := events[id]
		if e == nil {
			// net/http itself answers some without asking anybody. Whatever was served is in the log.
			if x.heard != nil && (x.heard.code < 400 || x.heard.code >= 500) && !unaudited(x.own) {
				t.Errorf("%v is not in the audit log; the answer was %v", x.request, x.heard)
			}
			continue
		}
		n.compared++
		if good(e) {
			n.good++
			if x.own.Changes() {
				n.written++
			}
		}
		for _, why := range disagreements(x.request, x.own, e) {
			t.Errorf("%v: %s", x.request, why)
			keep(t, x.request, known)
		}
	}
}

// unaudited says whether the cluster's audit policy leaves a request out.
func unaudited(own reading) bool {
	return own.Resourceless && slices.ContainsFunc([]string{"/healthz", "/livez", "/readyz"}, func(p string) bool { return strings.HasPrefix(own.Path, p) })
}

func good(e *auditv1.Event) bool {
	return e.ResponseStatus != nil && e.ResponseStatus.Code >= 100 && e.ResponseStatus.Code < 300
}

// streams are subresources of pods, each of which action calls by a verb of its own.
var streams = []string{"exec", "attach", "portforward"}

// disagreements are where action, RequestInfo and the API server do not say the same of a request.
func disagreements(r request, own reading, e *auditv1.Event) []string {
	var found []string
	say := func(format string, a ...any) { found = append(found, fmt.Sprintf(format, a...)) }
	if e.RequestURI != r.Target {
		say("the API server read another target: %q", e.RequestURI)
	}
	verb := own.Verb
	if own.Upgrade {
		if own.Subresource != own.Verb || own.Resource != "pods" || own.Group != "" || !slices.Contains(streams, own.Verb) {
			say("verb %s is for subresource %s of %s", own.Verb, own.Subresource, own.Resource)
		}
		verb = map[string]string{"GET": "get", "POST": "create"}[r.Method]
	}
	if verb != e.Verb {
		say("action reads verb %s, the API server %s", own.Verb, e.Verb)
	}
	switch o := e.ObjectRef; {
	case o == nil && !own.Resourceless:
		say("action reads resource %s, the API server none", own.Resource)
	case o != nil && own.Resourceless:
		say("action reads no resource, the API server %s", o.Resource)
	case o != nil:
		made := own.Verb == "create" && own.Name == "" // then the log has what the body says
		for _, f := range []struct {
			what, own, theirs string
			free              bool
		}{
			{"group", own.Group, o.APIGroup, false},
			{"version", own.Version, o.APIVersion, false},
			{"resource", own.Resource, o.Resource, false},
			{"subresource", own.Subresource, o.Subresource, false},
			{"namespace", own.Namespace, o.Namespace, made && own.Namespace == ""},
			// RequestInfo takes the name in a field selector for the object's. For us it never is: the caller chose it.
			{"name", own.Name, o.Name, made || own.Name == "" && strings.Contains(own.FieldSelector, o.Name) && slices.Contains([]string{"list", "watch", "deletecollection"}, own.Verb)},
		} {
			if f.own != f.theirs && !f.free {
				say("action reads %s %q, the API server %q", f.what, f.own, f.theirs)
			}
		}
	}
	info, err := requestInfo(r)
	switch {
	case err != nil:
		say("RequestInfo cannot read it: %v", err)
	case info.Verb != verb || info.IsResourceRequest == own.Resourceless || info.APIGroup != own.Group || info.APIVersion != own.Version ||
		info.Resource != own.Resource || info.Subresource != own.Subresource || info.Namespace != own.Namespace || info.Path != own.Path ||
		info.Name != own.Name && own.FieldSelector == "":
		say("action reads %+v, RequestInfo %+v", own.Action, *info)
	}
	if good(e) && !own.Changes() && !slices.Contains([]string{"get", "list", "watch"}, e.Verb) && (e.Verb != "create" || access.SelfReviews[e.ObjectRef.Resource] != e.ObjectRef.APIGroup) {
		say("action takes it for a read, and the API server was asked to %s", e.Verb)
	}
	return found
}

// overreach is what changed that the action does not say.
func overreach(own reading, before, after state) []string {
	var found []string
	for _, key := range before.changed(after) {
		switch {
		case own.calm():
			found = append(found, fmt.Sprintf("%s changed, and nothing should: %+v", key, own.Action))
		case key.resource != own.Resource || key.namespace != own.Namespace || own.Name != "" && key.name != own.Name:
			found = append(found, fmt.Sprintf("%s changed, which the action does not name: %+v", key, own.Action))
		}
	}
	return found
}
