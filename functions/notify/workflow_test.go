package main

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	wire "sallyport/shared/broker"

	"sallyport/shared/settings"
)

// definition is the workflow as it is deployed, less the function's ARN.
func definition(t testing.TB) []byte {
	b, err := os.ReadFile("../../infra/" + settings.WorkflowFile)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type state struct {
	Type, Next, TimeoutSecondsPath string
	TimeoutSeconds                 int
	End                            bool
	Parameters                     struct{ Payload map[string]string }
	Retry                          []struct{ ErrorEquals []string }
	Catch                          []struct {
		ErrorEquals []string
		Next        string
	}
}

// Whatever goes wrong is written down, or at least ends in what an alarm is about; and the workflow says and waits what this
// function and broker.NewExecution understand by it.
func TestWorkflowRecordsEveryFailure(t *testing.T) {
	var m struct{ States map[string]state }
	if err := json.Unmarshal(definition(t), &m); err != nil {
		t.Fatal(err)
	}
	waits := map[string]string{wire.StepAsk: "$.ask.seconds", wire.StepRemind: "$.remind.seconds", wire.StepEscalate: "$.escalate.seconds"}
	for _, name := range slices.Sorted(maps.Keys(m.States)) {
		s := m.States[name]
		if s.Type != "Task" {
			continue
		}
		kind := s.Parameters.Payload["kind"]
		if !strings.EqualFold(kind, name) {
			t.Errorf("%s sends %q", name, kind)
		}
		if path, is := waits[kind]; is != (s.Parameters.Payload["token.$"] != "") || s.TimeoutSecondsPath != path || is == (s.TimeoutSeconds > 0) {
			t.Errorf("%s waits %q, %d", name, s.TimeoutSecondsPath, s.TimeoutSeconds)
		}
		if s.TimeoutSecondsPath == "" && s.TimeoutSeconds <= int(whole.Seconds()) {
			t.Errorf("%s gives up before the function does", name)
		}
		last := s.Catch[len(s.Catch)-1]
		want := "Failed"
		if name == "Failed" {
			want = "Broken"
		}
		if !slices.Equal(last.ErrorEquals, []string{"States.ALL"}) || last.Next != want {
			t.Errorf("%s: what fails goes to %s", name, last.Next)
		}
		decided := slices.ContainsFunc(s.Catch, func(c struct {
			ErrorEquals []string
			Next        string
		}) bool {
			return slices.Contains(c.ErrorEquals, wire.DecidedError) && c.Next == "Outcome"
		})
		if _, is := waits[kind]; is && (!decided || s.Next != "Outcome") {
			t.Errorf("%s: a decision does not lead to its outcome", name)
		}
	}
	if m.States["Broken"].Type != "Fail" {
		t.Error("an execution that failed does not look so")
	}
	if n := strings.Count(string(definition(t)), "$$.Task.Token"); n != len(waits) {
		t.Errorf("the task token is taken %d times", n)
	}
}
