package policy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

// many is a policy of n rules of which matching match agents who get the pod web in namespace dev: one allows, and so
// do the others, under a condition if there is one. The rest are about other resources, namespaces and groups.
func many(t testing.TB, n, matching int, when string) *policy.Policy {
	t.Helper()
	condition := ""
	if when != "" {
		condition = ", when: '" + when + "'"
	}
	var b strings.Builder
	for i := range matching {
		fmt.Fprintf(&b, "- {name: match-%d, effect: allow, groups: [agents], verbs: [get, list, watch], apiGroups: [\"\"], resources: [pods, pods/log], namespaces: [dev, stage]%s}\n", i, condition)
	}
	for i := range n - matching {
		switch i % 4 {
		case 0:
			fmt.Fprintf(&b, "- {name: r%d, effect: deny, verbs: [get, create], apiGroups: [\"\", apps], resources: [things%d]%s}\n", i, i, condition)
		case 1:
			fmt.Fprintf(&b, "- {name: r%d, effect: deny, verbs: [get, delete], apiGroups: [\"\"], resources: [pods], namespaces: [team-%d]%s}\n", i, i, condition)
		case 2:
			fmt.Fprintf(&b, "- {name: r%d, effect: ask, groups: [team-%d], verbs: [get, delete], apiGroups: [\"\"], resources: [pods]%s}\n", i, i, condition)
		default:
			fmt.Fprintf(&b, "- {name: r%d, effect: deny, verbs: [get], apiGroups: [\"\"], resources: [pods], resourceNames: [db-%d, '^cache-%d-[0-9]+$']%s}\n", i, i, i, condition)
		}
	}
	return load(t, b.String())
}

func benchmarked() policy.Request {
	return request("agents", act("get", ":pods", "dev/web"))
}

// BenchmarkDecide is a decision; x-loop is how many times as fast it is as a plain loop over the rules' lists, taken in
// the same run.
func BenchmarkDecide(b *testing.B) {
	for _, bench := range []struct {
		name        string
		n, matching int
		when        string
	}{
		{"50 rules", 50, 1, ""},
		{"50 rules, CEL", 50, 1, `now.getHours() < 18`},
		{"1000 rules", 1000, 1, ""},
		{"1000 rules, CEL", 1000, 1, `now.getHours() < 18`},
		{"1000 rules, 20 match, CEL", 1000, 20, `now.getHours() < 18`},
	} {
		b.Run(bench.name, func(b *testing.B) {
			p, r := many(b, bench.n, bench.matching, bench.when), benchmarked()
			if d := p.Decide(r, nil); d.Effect != access.Allow || linear(p, r) != access.Allow {
				b.Fatalf("got %+v", d)
			}
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(r, nil)
			}
			mine := float64(b.Elapsed()) / float64(b.N)
			const rounds = 300
			began := time.Now()
			for range rounds {
				linear(p, r)
			}
			b.ReportMetric(float64(time.Since(began))/rounds/mine, "x-loop")
		})
	}
}

// BenchmarkOneMatches is the same one rule that matches, among few and among many; x-50 is what a decision costs in
// times of one among 50.
func BenchmarkOneMatches(b *testing.B) {
	few, r := many(b, 50, 1, ""), benchmarked()
	for _, n := range []int{50, 1000} {
		b.Run(fmt.Sprintf("of %d", n), func(b *testing.B) {
			p := many(b, n, 1, "")
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(r, nil)
			}
			mine := float64(b.Elapsed()) / float64(b.N)
			const rounds = 20_000
			began := time.Now()
			for range rounds {
				few.Decide(r, nil)
			}
			b.ReportMetric(mine/(float64(time.Since(began))/rounds), "x-50")
		})
	}
}

// BenchmarkDeny is a denial with its sentence and near misses, which look at every rule.
func BenchmarkDeny(b *testing.B) {
	for _, n := range []int{50, 1000} {
		b.Run(fmt.Sprintf("%d rules", n), func(b *testing.B) {
			p, r := many(b, n, 1, ""), request("agents", act("get", ":secrets", "dev/db"))
			b.ReportAllocs()
			for b.Loop() {
				p.Decide(r, nil)
			}
		})
	}
}

func BenchmarkLoad(b *testing.B) {
	text := []byte(head + allRules)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := policy.Load("policy.yaml", text); err != nil {
			b.Fatal(err)
		}
	}
}

// A plain allow costs no memory.
func TestAllowDoesNotAllocate(t *testing.T) {
	p, r := many(t, 1000, 3, ""), benchmarked()
	if n := testing.AllocsPerRun(100, func() { p.Decide(r, nil) }); n != 0 {
		t.Errorf("%v allocations in a plain allow", n)
	}
}
