package approvals_test

import (
	"net/http"
	"slices"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// BenchmarkApproval measures a question from end to end, one at a time, on the whole stack: from the agent's request until
// reviewers were told, and from the decision until the request that waited has its answer; beside them, from the same run, the
// same deletion by somebody who need not ask.
func BenchmarkApproval(b *testing.B) {
	s := stacktest.Get(b)
	ana := s.Reviewer(b, "ana@example.com")
	developer := s.Agent(b, "developers")
	var told, done, plain []time.Duration
	for b.Loop() {
		agent := s.Agent(b, "agents") // each is limited
		name := "bench-" + stacktest.Word()
		create := func() {
			s.Create(b, "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: "+name+", namespace: dev}\n")
		}
		target := s.Path("/api/v1/namespaces/dev/configmaps/" + name)
		create()
		began := time.Now()
		if a := s.Do(b, stacktest.Request{Method: "DELETE", Target: target, Header: []string{stacktest.Bearer(developer.Token)}}); a.Code != http.StatusOK {
			b.Fatal(a)
		}
		plain = append(plain, time.Since(began))
		create()
		answer := waiting(b, s, agent, target)
		a := ana.Await(b, agent)
		stacktest.Eventually(b, within, func() string {
			if a, _ = ana.Show(b, a.ID); a.Notified.IsZero() {
				return "nobody was told"
			}
			return ""
		})
		told = append(told, a.Notified.Sub(a.Opened))
		began = time.Now()
		ana.Approve(b, a.ID)
		if got := <-answer; got.Code != http.StatusOK {
			b.Fatal(got)
		}
		done = append(done, time.Since(began))
	}
	for name, all := range map[string][]time.Duration{"ask-to-told-p50-ms": told, "decision-to-answer-p50-ms": done, "without-asking-p50-ms": plain} {
		slices.Sort(all)
		b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}

// waiting sends the request that waits.
func waiting(b *testing.B, s *stacktest.Stack, agent *stacktest.Agent, target string) <-chan stacktest.Answer {
	answer := make(chan stacktest.Answer, 1)
	go func() {
		answer <- s.Do(b, stacktest.Request{Method: "DELETE", Target: target, Header: []string{stacktest.Bearer(agent.Token)}})
	}()
	return answer
}
