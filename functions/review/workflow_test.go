package main

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sfn"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
)

func TestWorkflow(t *testing.T) {
	var asked map[string]string
	answer := ""
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := json.NewDecoder(r.Body).Decode(&asked); err != nil || r.Header.Get("X-Amz-Target") != "AWSStepFunctions.StartExecution" {
			t.Errorf("%v, asked for %s", err, r.Header.Get("X-Amz-Target"))
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.0")
		if answer != "" {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"__type":"` + answer + `","message":"no"}`))
			return
		}
		_, _ = w.Write([]byte(`{"executionArn":"arn:x","startDate":1}`))
	}))
	defer server.Close()
	w := workflow{arn: "arn:machine", client: sfn.New(sfn.Options{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})}
	in := wire.Execution{Approval: "a1", Ask: wire.Wait{Seconds: 900, Then: wire.StepExpire}}
	if err := w.Start(t.Context(), "a1-2", in); err != nil {
		t.Fatal(err)
	}
	var got wire.Execution
	if err := json.Unmarshal([]byte(asked["input"]), &got); err != nil || got != in || asked["name"] != "a1-2" || asked["stateMachineArn"] != "arn:machine" {
		t.Errorf("asked %v, %v", asked, err)
	}
	answer = "ExecutionAlreadyExists" // started before, and over since
	if err := w.Start(t.Context(), "a1-2", in); err != nil {
		t.Error(err)
	}
	answer = "StateMachineDoesNotExist"
	if err := w.Start(t.Context(), "a1-2", in); err == nil || !strings.Contains(err.Error(), "a1-2") {
		t.Errorf("got %v", err)
	}
}

func TestDue(t *testing.T) {
	for _, test := range []struct {
		state    access.ApprovalState
		started  int
		notified bool
		after    time.Duration
		want     string
	}{
		{access.StatePending, 0, false, 0, "a1"},
		{access.StatePending, 0, false, time.Hour, "a1"},
		{access.StatePending, 1, false, 10*time.Second - 1, ""},
		{access.StatePending, 1, false, 10 * time.Second, "a1-2"},
		{access.StatePending, 2, false, 29 * time.Second, ""},
		{access.StatePending, 2, false, 30 * time.Second, "a1-3"},
		{access.StatePending, 3, false, 70 * time.Second, "a1-4"},
		{access.StatePending, 100, false, 24 * time.Hour, ""},
		{access.StatePending, 1, true, time.Hour, ""},
		{access.StateApproved, 0, false, time.Hour, ""},
		{access.StateExpired, 1, false, time.Hour, ""},
	} {
		a := access.Approval{ID: "a1", State: access.StatePending, Opened: now, Started: test.started}
		if test.notified {
			a.Notified = now
		}
		name, is := due(a, test.state, now.Add(test.after))
		if is != (test.want != "") || is && name != test.want {
			t.Errorf("%+v: got %q, %v", test, name, is)
		}
	}
}
