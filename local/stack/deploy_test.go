package stack

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/events"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

// What the policy file holds is put whenever it changes: filled in where it can be, and as it is where it cannot.
func TestWatcher(t *testing.T) {
	var mu sync.Mutex
	var puts, told []string
	down := true
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/2015-03-31/functions/"+settings.NotifyFunction+"/invocations" {
			var e events.S3Event
			if err := json.Unmarshal(b, &e); err != nil || len(e.Records) != 1 || r.Header.Get("X-Amz-Invocation-Type") != "Event" || !strings.Contains(r.Header.Get("Authorization"), deployerKey) {
				t.Errorf("told notify %s %v", b, err)
				return
			}
			o := e.Records[0].S3
			if o.Bucket.Name != PolicyBucket || o.Object.Key != settings.PolicyCurrent || o.Object.VersionID != "v"+strconv.Itoa(len(puts)) || e.Records[0].EventSource != "aws:s3" {
				t.Errorf("told notify %s", b)
			}
			told = append(told, o.Object.VersionID)
			w.WriteHeader(http.StatusAccepted)
			return
		}
		key, ok := strings.CutPrefix(r.URL.Path, "/"+PolicyBucket+"/")
		if !ok || r.Method != http.MethodPut || !strings.Contains(r.Header.Get("Authorization"), deployerKey) {
			t.Errorf("asked %s %s", r.Method, r.URL)
		}
		if down {
			down = false
			w.WriteHeader(http.StatusForbidden)
			return
		}
		if key == "policy/current.yaml" {
			puts = append(puts, string(b))
		}
		w.Header().Set("X-Amz-Version-Id", "v"+strconv.Itoa(len(puts)))
	}))
	defer server.Close()
	file := filepath.Join(t.TempDir(), "policy.yaml")
	write := func(text string) {
		t.Helper()
		if err := writeFile(file, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	good, err := adopt(deployed(t), own, Cluster)
	if err != nil {
		t.Fatal(err)
	}
	write(string(good))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	var before []string
	go func() {
		defer close(ended)
		Watcher{File: file, Endpoint: server.URL, Issuer: own, Log: slog.New(slog.DiscardHandler), Before: func(p *policy.Policy) error {
			if before = append(before, p.Digest); len(before) == 1 {
				return errors.New("not yet") // it is tried again
			}
			return nil
		}}.Run(ctx)
	}()
	defer func() { cancel(); <-ended }()
	want := []string{}
	await := func(text string) {
		t.Helper()
		want = append(want, text)
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			mu.Lock()
			got := append([]string{}, puts...)
			mu.Unlock()
			if len(got) >= len(want) || time.Now().After(deadline) {
				if d := cmp.Diff(want, got); d != "" {
					t.Fatal(d)
				}
				return
			}
		}
	}
	time.Sleep(100 * time.Millisecond) // what it begins with was put by others
	edited := string(good) + "# edited\n"
	write(edited)
	await(edited)
	write("audience: [")
	await("audience: [")
	write("kind: Policy\n")
	filled, err := fill([]byte("kind: Policy\n"), own, Cluster)
	if err != nil {
		t.Fatal(err)
	}
	await(string(filled))
	if err := os.Remove(file); err != nil { // as an editor does for a moment
		t.Fatal(err)
	}
	time.Sleep(1200 * time.Millisecond)
	write(edited)
	await(edited)
	// Of every put the reviewers are told, once.
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		mu.Lock()
		got := slices.Clone(told)
		mu.Unlock()
		if len(got) >= 4 || time.Now().After(deadline) {
			if d := cmp.Diff([]string{"v1", "v2", "v3", "v4"}, got); d != "" {
				t.Error(d)
			}
			return
		}
	}
}
