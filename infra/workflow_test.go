package main

import (
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/broker"
)

// Nothing in the workflow can end in nothing: every state that is named is there and can be reached, and every task has a
// time, tries again, and goes on somewhere when that does not help. It calls one function and hands it ids; a task's token
// is where a task waits for one, and is kept in no state.
func TestWorkflowHolds(t *testing.T) {
	type state struct {
		Type, Resource, Next, Default  string
		End                            bool
		TimeoutSeconds                 int
		TimeoutSecondsPath             string
		ResultPath, OutputPath, Assign json.RawMessage
		Parameters                     struct {
			FunctionName string
			Payload      map[string]any
		}
		Retry []struct {
			ErrorEquals []string
			MaxAttempts *int
		}
		Catch []struct {
			ErrorEquals []string
			Next        string
		}
		Choices []struct{ Next string }
	}
	var m struct {
		QueryLanguage  string
		TimeoutSeconds int
		StartAt        string
		States         map[string]state
	}
	if err := json.Unmarshal([]byte(workflow), &m); err != nil {
		t.Fatal(err)
	}
	if m.QueryLanguage != "" && m.QueryLanguage != "JSONPath" {
		t.Errorf("query language %s", m.QueryLanguage) // one machine reads JSONPath only
	}
	if m.TimeoutSeconds <= 24*60*60 {
		t.Errorf("an execution ends after %d s, before the longest question does", m.TimeoutSeconds)
	}

	reached, todo := map[string]bool{}, []string{m.StartAt}
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if reached[name] {
			continue
		}
		reached[name] = true
		s, there := m.States[name]
		if !there {
			t.Errorf("there is no state %q", name)
			continue
		}
		next := []string{s.Next, s.Default}
		for _, c := range s.Choices {
			next = append(next, c.Next)
		}
		for _, c := range s.Catch {
			next = append(next, c.Next)
		}
		next = slices.DeleteFunc(next, func(n string) bool { return n == "" })
		if len(next) == 0 && !s.End && s.Type != "Fail" && s.Type != "Succeed" {
			t.Errorf("%s leads nowhere", name)
		}
		if s.Type == "Choice" && s.Default == "" {
			t.Errorf("%s has no default", name)
		}
		todo = append(todo, next...)
	}

	kinds := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(m.States)) {
		s := m.States[name]
		if !reached[name] {
			t.Errorf("%s is never reached", name)
		}
		if s.Type != "Task" {
			continue
		}
		kind, _ := s.Parameters.Payload["kind"].(string)
		kinds[kind] = true
		want := map[string]any{"kind": kind, "approval.$": "$.approval"}
		switch s.Resource {
		case "arn:aws:states:::lambda:invoke":
		case "arn:aws:states:::lambda:invoke.waitForTaskToken":
			want["token.$"] = "$$.Task.Token"
		default:
			t.Errorf("%s calls %s", name, s.Resource)
		}
		if kind == broker.StepFailed {
			want["failure.$"] = "$.failure"
		}
		if d := cmp.Diff(want, s.Parameters.Payload); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if s.Parameters.FunctionName != "${NotifyFunction}" {
			t.Errorf("%s calls %s", name, s.Parameters.FunctionName)
		}
		if s.TimeoutSeconds == 0 && s.TimeoutSecondsPath == "" {
			t.Errorf("%s has no timeout", name)
		}
		if string(s.ResultPath) != "null" || s.OutputPath != nil || s.Assign != nil {
			t.Errorf("%s keeps what it is answered", name)
		}
		all := func(errs []string) bool { return slices.Contains(errs, "States.ALL") }
		if len(s.Retry) == 0 || !all(s.Retry[len(s.Retry)-1].ErrorEquals) {
			t.Errorf("%s does not try again", name)
		}
		if len(s.Catch) == 0 || !all(s.Catch[len(s.Catch)-1].ErrorEquals) {
			t.Errorf("%s catches nothing", name)
		}
		if _, waits := want["token.$"]; !waits {
			continue
		}
		// A wait that is over, or is for what was decided already, is not waited again.
		once := s.Retry[0]
		if !slices.Contains(once.ErrorEquals, broker.DecidedError) || !slices.Contains(once.ErrorEquals, "States.Timeout") || once.MaxAttempts == nil || *once.MaxAttempts != 0 {
			t.Errorf("%s waits again after its time, or after the decision", name)
		}
	}
	if d := cmp.Diff(map[string]bool{
		broker.StepAsk: true, broker.StepRemind: true, broker.StepEscalate: true, broker.StepExpire: true, broker.StepOutcome: true, broker.StepFailed: true,
	}, kinds); d != "" {
		t.Error(d)
	}
}
