package broker_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

func TestNewExecution(t *testing.T) {
	opened := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	unused := broker.Wait{Seconds: 1, Then: "expire"}
	wait := func(seconds int64, then string) broker.Wait { return broker.Wait{Seconds: seconds, Then: then} }
	for name, test := range map[string]struct {
		remind, escalate time.Duration
		happened         []string
		at               time.Duration
		want             broker.Execution
	}{
		"nothing but asking":      {0, 0, nil, 0, broker.Execution{Ask: wait(901, "expire"), Remind: unused, Escalate: unused}},
		"remind":                  {5 * time.Minute, 0, nil, 0, broker.Execution{Ask: wait(300, "remind"), Remind: wait(601, "expire"), Escalate: unused}},
		"escalate":                {0, 10 * time.Minute, nil, 0, broker.Execution{Ask: wait(600, "escalate"), Remind: unused, Escalate: wait(301, "expire")}},
		"both":                    {5 * time.Minute, 10 * time.Minute, nil, 0, broker.Execution{Ask: wait(300, "remind"), Remind: wait(300, "escalate"), Escalate: wait(301, "expire")}},
		"the other way round":     {10 * time.Minute, 5 * time.Minute, nil, 0, broker.Execution{Ask: wait(300, "escalate"), Escalate: wait(300, "remind"), Remind: wait(301, "expire")}},
		"at once":                 {5 * time.Minute, 5 * time.Minute, nil, 0, broker.Execution{Ask: wait(300, "remind"), Remind: wait(1, "escalate"), Escalate: wait(600, "expire")}},
		"never, since too late":   {15 * time.Minute, 20 * time.Minute, nil, 0, broker.Execution{Ask: wait(901, "expire"), Remind: unused, Escalate: unused}},
		"half a second is waited": {5 * time.Minute, 0, nil, 500 * time.Millisecond, broker.Execution{Ask: wait(300, "remind"), Remind: wait(601, "expire"), Escalate: unused}},
		"lost, in time":           {5 * time.Minute, 10 * time.Minute, nil, 2 * time.Minute, broker.Execution{Ask: wait(180, "remind"), Remind: wait(300, "escalate"), Escalate: wait(301, "expire")}},
		"lost before it reminded": {5 * time.Minute, 10 * time.Minute, nil, 7 * time.Minute, broker.Execution{Ask: wait(1, "remind"), Remind: wait(179, "escalate"), Escalate: wait(301, "expire")}},
		"lost after it reminded":  {5 * time.Minute, 10 * time.Minute, []string{"notified", "reminded"}, 7 * time.Minute, broker.Execution{Ask: wait(180, "escalate"), Remind: unused, Escalate: wait(301, "expire")}},
		"lost after it escalated": {5 * time.Minute, 10 * time.Minute, []string{"reminded", "escalated"}, 14 * time.Minute, broker.Execution{Ask: wait(61, "expire"), Remind: unused, Escalate: unused}},
		"lost until it was over":  {5 * time.Minute, 10 * time.Minute, []string{"reminded", "escalated"}, time.Hour, broker.Execution{Ask: wait(1, "expire"), Remind: unused, Escalate: unused}},
	} {
		a := access.Approval{ID: "id", Opened: opened, Expires: opened.Add(15 * time.Minute)}
		a.Decision.Obligations = access.Obligations{Remind: test.remind, Escalate: access.Escalate{After: test.escalate, Reviewers: []string{"leads"}}}
		for _, what := range test.happened {
			a.History = append(a.History, access.History{What: what})
		}
		test.want.Approval = "id"
		now := opened.Add(test.at)
		got := broker.NewExecution(a, now)
		if d := cmp.Diff(test.want, got); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		// However the steps follow each other, the last ends when the question has.
		end := now
		steps := map[string]broker.Wait{"ask": got.Ask, "remind": got.Remind, "escalate": got.Escalate}
		for step, n := "ask", 0; step != "expire"; step, n = steps[step].Then, n+1 {
			end = end.Add(time.Duration(steps[step].Seconds) * time.Second)
			if n > 3 {
				t.Fatalf("%s: the steps go round", name)
			}
		}
		if end.Before(a.Expires) || now.Before(a.Expires) && end.After(a.Expires.Add(3*time.Second)) {
			t.Errorf("%s: it ends at %v, and the question at %v", name, end, a.Expires)
		}
	}
}
