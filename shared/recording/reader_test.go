package recording_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"sallyport/shared/access"
	"sallyport/shared/recording"
	"sallyport/shared/recording/recordingtest"
)

// compressed is a segment of those lines.
func compressed(t testing.TB, lines string) []byte {
	t.Helper()
	var b bytes.Buffer
	z, err := zstd.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write([]byte(lines)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bomb is a segment of an event and a great many spaces.
func bomb(t testing.TB) []byte {
	t.Helper()
	return compressed(t, lineAt(t, "whole", started)+strings.Repeat(" ", 256<<20))
}

func lineAt(t testing.TB, id string, at time.Time) string {
	t.Helper()
	f := execFacts()
	f.ID, f.Received, f.At = id, at, at
	line, err := json.Marshal(recording.Event(f))
	if err != nil {
		t.Fatal(err)
	}
	return string(line) + "\n"
}

func auditIDs(events []recording.Recorded) []string {
	var ids []string
	for _, e := range events {
		ids = append(ids, string(e.Event.AuditID))
	}
	return ids
}

func TestReadsWhatTheRecorderWrote(t *testing.T) {
	b := &recordingtest.Bucket{}
	r := newRecorder(t, recording.Config{Store: b, MaxSegment: 1, Now: func() time.Time { return started }})
	mustAppend(t, r, prod, "1", "2", "3")
	mustAppend(t, r, recording.Stream{Cluster: "prod"}, "refused")
	mustAppend(t, r, recording.Stream{Cluster: "other", Session: session.ID}, "other")
	mustClose(t, r)

	var progress []string
	reader := recording.Reader{Archive: b, Progress: func(done, total int) { progress = append(progress, fmt.Sprintf("%d/%d", done, total)) }}
	events, err := reader.Session(t.Context(), "prod", session.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1", "2", "3"}, auditIDs(events)); diff != "" {
		t.Errorf("session (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"1/3", "2/3", "3/3"}, progress); diff != "" {
		t.Errorf("progress (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(event("1"), events[0].Event); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	refused, err := reader.Refused(t.Context(), "prod", started)
	if diff := cmp.Diff([]string{"refused"}, auditIDs(refused)); diff != "" || err != nil {
		t.Errorf("refused: %v (-want +got):\n%s", err, diff)
	}
	refused, err = reader.Refused(t.Context(), "prod", started.Add(time.Hour))
	if len(refused) != 0 || err != nil {
		t.Errorf("refused later = %v, %v, want none", auditIDs(refused), err)
	}
	_, err = reader.Session(t.Context(), "prod", "unknown")
	wantKind(t, err, access.NotFound)
	_, err = reader.Session(t.Context(), "prod", "../prod")
	wantKind(t, err, access.Invalid)
}

// Two tasks serve one session at once: their segments overlap, time decides.
func TestMergesTasksByTime(t *testing.T) {
	b := &recordingtest.Bucket{}
	at := func(s int) time.Time { return started.Add(time.Duration(s) * time.Second) }
	b.Set("sessions/prod/abc/20251124T093000.000000000Z-a-00000001.ndjson.zst", compressed(t, lineAt(t, "1", at(1))+lineAt(t, "3", at(3))))
	b.Set("sessions/prod/abc/20251124T093000.000000001Z-b-00000001.ndjson.zst", compressed(t, lineAt(t, "2", at(2))+lineAt(t, "4", at(4))))
	events, err := (&recording.Reader{Archive: b}).Session(t.Context(), "prod", "abc")
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, auditIDs(events)); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestDamagedSegmentsAreNamedAndPassed(t *testing.T) {
	whole := lineAt(t, "whole", started)
	big := compressed(t, strings.Repeat(whole, 20000))
	tests := map[string]struct {
		body []byte
		want string // in the error; empty when there is no damage
		some bool   // whether events before the damage are returned
	}{
		"empty":            {body: nil, want: "is empty"},
		"not zstd":         {body: []byte("{}"), want: "ends early"},
		"cut":              {body: big[:len(big)-len(big)/4], want: "ends early", some: true},
		"cut line":         {body: compressed(t, whole+whole[:40]), want: "line 2: the segment ends early", some: true},
		"not JSON":         {body: compressed(t, "x\n"+whole), want: "line 1: reading an event", some: true},
		"another kind":     {body: compressed(t, whole+`{"kind":"Seal","apiVersion":"sallyport.io/v9"}`+"\n"), want: `line 2: "Seal" of "sallyport.io/v9" is not known`, some: true},
		"bomb":             {body: bomb(t), want: "longer than", some: true},
		"garbage appended": {body: append(compressed(t, whole), "garbage"...), want: "ends early", some: true},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			b := &recordingtest.Bucket{}
			const key = "sessions/prod/abc/20251124T093000.000000001Z-a-00000002.ndjson.zst"
			b.Set("sessions/prod/abc/20251124T093000.000000000Z-a-00000001.ndjson.zst", compressed(t, lineAt(t, "first", started)))
			b.Set(key, test.body)
			b.Set("sessions/prod/abc/20251124T093000.000000002Z-a-00000003.ndjson.zst", compressed(t, lineAt(t, "last", started)))
			events, err := (&recording.Reader{Archive: b}).Session(t.Context(), "prod", "abc")
			got := auditIDs(events)
			if len(got) < 2 || got[0] != "first" || got[len(got)-1] != "last" || slices.Contains(got, "whole") != test.some {
				t.Errorf("%d events, first %q, last %q; want those of the segments around it, and some of its own: %v", len(got), got[:1], got[len(got)-1:], test.some)
			}
			if test.want == "" {
				if err != nil {
					t.Errorf("error %v, want none", err)
				}
				return
			}
			var damage *recording.Damage
			if !errors.As(err, &damage) || damage.Key != key || !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %v, want one of %s that says %q", err, key, test.want)
			}
		})
	}
}

func TestSessionsAndFind(t *testing.T) {
	b := &recordingtest.Bucket{}
	set := func(cluster, id, at string) {
		b.Set("sessions/"+cluster+"/"+id+"/"+at+"-a-00000001.ndjson.zst", compressed(t, lineAt(t, id, started)))
	}
	set("prod", "abca", "20251124T093000.000000000Z")
	set("prod", "abca", "20251124T113000.000000000Z")
	set("prod", "abcb", "20251124T103000.000000000Z")
	set("prod", "abc", "20251123T103000.000000000Z")
	set("prod", "xyz", "20251122T103000.000000000Z")
	set("prod2", "other", "20251124T103000.000000000Z")
	b.Set("sessions/prod/README", nil)
	b.Set("sessions/prod/abca/note.txt", nil)
	reader := &recording.Reader{Archive: b}

	list := func(since time.Time) []string {
		t.Helper()
		sessions, err := reader.Sessions(t.Context(), "prod", since)
		if err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, s := range sessions {
			ids = append(ids, s.Session)
			events, err := reader.Listed(t.Context(), s)
			if err != nil || len(events) == 0 {
				t.Errorf("Listed(%s) = %d events, %v", s.Session, len(events), err)
			}
		}
		return ids
	}
	if diff := cmp.Diff([]string{"abca", "abcb", "abc", "xyz"}, list(time.Time{})); diff != "" {
		t.Errorf("all sessions, last first (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"abca", "abcb"}, list(started.Add(time.Hour/2))); diff != "" {
		t.Errorf("sessions since (-want +got):\n%s", diff)
	}

	for prefix, want := range map[string]string{"x": "xyz", "abcb": "abcb", "abc": "abc", "xyz": "xyz"} {
		if got, err := reader.Find(t.Context(), "prod", prefix); got != want || err != nil {
			t.Errorf("Find(%s) = %q, %v, want %q", prefix, got, err, want)
		}
	}
	for prefix, kind := range map[string]access.Kind{"ab": access.Invalid, "o": access.NotFound, "A": access.Invalid, "": access.Invalid, "abc/": access.Invalid} {
		_, err := reader.Find(t.Context(), "prod", prefix)
		wantKind(t, err, kind)
	}
}

func TestReadEndsWithItsContext(t *testing.T) {
	b := &recordingtest.Bucket{}
	b.Set("sessions/prod/abc/20251124T093000.000000000Z-a-00000001.ndjson.zst", compressed(t, lineAt(t, "1", started)))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Whether one segment is still read is chance; that it returns is not.
	(&recording.Reader{Archive: b}).Session(ctx, "prod", "abc")
}

func FuzzReader(f *testing.F) {
	whole := compressed(f, lineAt(f, "1", started)+lineAt(f, "2", started))
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add([]byte("\x28\xb5\x2f\xfd"))
	f.Add(compressed(f, `{"kind":"Event","apiVersion":"audit.k8s.io/v1","stageTimestamp":null}`+"\n\n[]\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		b := &recordingtest.Bucket{}
		b.Set("sessions/prod/abc/20251124T093000.000000000Z-a-00000001.ndjson.zst", body)
		b.Set("sessions/prod/abc/20251124T093000.000000001Z-a-00000002.ndjson.zst", whole)
		events, err := (&recording.Reader{Archive: b}).Session(t.Context(), "prod", "abc")
		if len(events) < 2 {
			t.Errorf("%d events, want those of the good segment", len(events))
		}
		var damage *recording.Damage
		if err != nil && !errors.As(err, &damage) {
			t.Errorf("error %v names no object", err)
		}
		for _, e := range events {
			if !json.Valid(e.Line) || bytes.ContainsRune(e.Line, '\n') {
				t.Errorf("%q is no JSON line", e.Line)
			}
		}
	})
}
