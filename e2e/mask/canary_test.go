package mask_test

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sallyport/e2e/mask/canary"
	"sallyport/e2e/stacktest"
)

// What TestCanaries is known to cover. It fails when it covers less.
const (
	leastSecrets  = 530
	leastCarriers = 66
	leastReads    = 4200
	leastWays     = 52
	leastPairs    = 6600 // of a carrier and a way, form and encoding in which it was read
)

// Five hundred secrets in every carrier there is, and a client that tries every read it can: none is in what it got, in the
// recordings or in the logs. Threats S1, S3, S6, S7, S9, S10.
func TestCanaries(t *testing.T) {
	s := stacktest.Get(t)
	set := canary.New()
	widgets(t, s)
	s.Policy(t).Change(func(text string) string { return masksMore(stacktest.AddRules(t, text, readsWidgets)) })
	plant(t, s, set, 8)
	csr := certificate(t, s, set)
	accountToken(t, s, set)
	pod := talker(t, s, set)
	releases := map[string]string{"secret": helmPastTheGate(t, s).install(t, set), "configmap": helmPastTheGate(t, s).driver("configmap").install(t, set)}

	developer := s.Agent(t, "developers")
	p := &party{t: t, set: set, stack: s, agent: developer, codes: map[int]int{}, ways: map[string]bool{}, pairs: map[string]bool{}}
	var reads []read
	for i := range resources {
		r := &resources[i]
		r.first, r.second = names(t, s, *r, csr)
		reads = append(reads, r.reads()...)
	}
	there := p.control(reads)
	for _, part := range []struct {
		name string
		try  func()
	}{
		{"HTTP", func() { p.http(reads, there) }}, {"pages", p.pages}, {"logs", func() { p.logs(pod) }}, {"client-go", p.clients},
		{"kubectl", func() { p.kubectl(pod, csr) }}, {"helm", func() { p.helm(releases) }}, {"what is kept", p.kept},
	} {
		began, reads := time.Now(), p.reads
		part.try()
		t.Logf("%s: %d reads in %v", part.name, p.reads-reads, time.Since(began).Round(100*time.Millisecond))
	}
	p.done()
}

// A party is a client that tries to see secrets, and what it tried.
type party struct {
	t     *testing.T
	set   *canary.Set
	stack *stacktest.Stack
	agent *stacktest.Agent

	mu    sync.Mutex
	reads int
	codes map[int]int
	ways  map[string]bool // of reading
	pairs map[string]bool // of a carrier, and how it was read
	count int             // of secrets that were shown
}

// look looks for secrets in a text.
func (p *party) look(what, text string) {
	p.t.Helper()
	p.shown(what, p.set.In(text))
}

func (p *party) shown(what any, secrets []canary.Secret) {
	p.t.Helper()
	for _, secret := range secrets {
		if p.count++; p.count <= 20 { // one mistake shows many
			p.t.Errorf("%v shows %s of %s", what, secret.Text, secret.Carrier)
		}
	}
}

// control sees what there is to be seen, past the gate: the carriers, by what is read. What shows nothing there proves
// nothing here.
func (p *party) control(reads []read) map[string]map[string]bool {
	p.t.Helper()
	began := time.Now()
	var asked []read
	for _, one := range reads {
		if slices.Contains([]form{few[0], few[1], few[3], few[4]}, one.form) && one.gets() != nothing {
			asked = append(asked, one)
		}
	}
	there, seen := map[string]map[string]bool{}, map[canary.Secret]bool{}
	pastTheGate(p.t, p.stack, p.set).all(p.t.Context(), asked, func(one read, g got) {
		if g.err != nil || g.code != http.StatusOK {
			p.t.Errorf("past the gate, %v: %d, %v", one, g.code, g.err)
		}
		at := map[string]bool{}
		for _, secret := range g.shown {
			seen[secret], at[secret.Carrier] = true, true
		}
		there[one.target+" "+one.gets()] = at
	})
	var hidden []string
	for _, secret := range p.set.Secrets() {
		if !seen[secret] {
			hidden = append(hidden, secret.Carrier)
		}
	}
	if len(hidden) > 0 {
		p.t.Errorf("%d secrets are nowhere past the gate either: %v", len(hidden), hidden)
	}
	p.t.Logf("%d reads past the gate in %v show all %d secrets", len(asked), time.Since(began).Round(time.Second), p.set.Len())
	return there
}

// http reads everything in every form.
func (p *party) http(reads []read, there map[string]map[string]bool) {
	p.t.Helper()
	as(p.t, p.agent, p.set).all(p.t.Context(), reads, func(one read, g got) {
		p.told(one, g)
		carriers := there[one.target+" "+one.gets()]
		if len(carriers) > 0 && !g.masked {
			p.t.Errorf("%v has no mask, and holds %v", one, slices.Sorted(maps.Keys(carriers)))
		}
		for carrier := range carriers {
			p.pairs[strings.Join([]string{carrier, one.way, one.form.accept, one.encoding}, "|")] = true
		}
	})
}

func (p *party) told(one read, g got) {
	p.t.Helper()
	p.reads++
	p.codes[g.code]++
	p.ways[one.way] = true
	if ok := g.code == http.StatusOK; g.err != nil || ok != (one.gets() != nothing) {
		p.t.Errorf("%v: %d, %v", one, g.code, g.err)
	}
	p.shown(one, g.shown)
}

func (p *party) pages() {
	p.t.Helper()
	agent := as(p.t, p.agent, p.set)
	for _, r := range resources {
		for _, f := range []form{few[0], few[1], few[4]} {
			if err := agent.pages(p.t.Context(), r, f, p.told); err != nil {
				p.t.Error(err)
			}
		}
	}
}

// kept looks into what the stack keeps: recordings, logs, what reviewers were sent, metrics.
func (p *party) kept() {
	p.t.Helper()
	p.agent.Recorded(p.t, p.agent.Get(p.t, "/version").AuditID()) // and so all that came before
	kept, err := p.stack.Logs()
	if err != nil {
		p.t.Fatal(err)
	}
	record := p.stack.Sallyport(p.t, "sessions", "show", "--json", p.agent.Session(p.t))
	kept["the recording"] = record.Stdout
	if n := strings.Count(record.Stdout, `"ResponseComplete"`); n < p.reads {
		p.t.Errorf("the recording has %d requests of %d", n, p.reads)
	}
	for what, text := range kept {
		if !strings.Contains(what, "/cluster/") { // the cluster's own logs are the cluster's
			p.look(what, text)
		}
	}
}

func (p *party) done() {
	p.t.Helper()
	p.t.Logf("%d secrets in %d carriers; %d reads, answered %v, in %d ways, with %d forms and %d encodings: %d carriers × ways × encodings, and none was shown",
		p.set.Len(), len(p.set.Carriers()), p.reads, p.codes, len(p.ways), len(forms), len(encodings), len(p.pairs))
	for _, n := range []struct {
		what        string
		have, least int
	}{{"secrets", p.set.Len(), leastSecrets}, {"carriers", len(p.set.Carriers()), leastCarriers}, {"reads", p.reads, leastReads}, {"ways", len(p.ways), leastWays}, {"carriers × ways × encodings", len(p.pairs), leastPairs}} {
		if n.have < n.least {
			p.t.Errorf("%d %s; %d are known", n.have, n.what, n.least)
		}
	}
}

// names are two planted objects in namespace dev, and twice the certificate request where there is no other.
func names(t *testing.T, s *stacktest.Stack, r resource, csr string) (first, second string) {
	t.Helper()
	if r.name == "certificatesigningrequests" {
		return csr, csr
	}
	kind := r.name
	if group, ok := strings.CutPrefix(r.path, "/apis/"); ok {
		kind += "." + strings.TrimSuffix(group, "/v1")
	}
	all := strings.Fields(s.Admin(t, "get", kind, "-n", "dev", "-o", "jsonpath={.items[*].metadata.name}"))
	all = slices.DeleteFunc(all, func(n string) bool { return !strings.HasPrefix(n, "canary-") || strings.HasPrefix(n, "canary-talker") })
	if len(all) < 2 {
		t.Fatalf("there are no canaries among %s", kind)
	}
	return all[0], all[1]
}
