package recording_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/recording"
	"sallyport/shared/recording/recordingtest"
)

var errAway = errors.New("the store is away")

var prod = recording.Stream{Cluster: "prod", Session: session.ID}

func newRecorder(t testing.TB, cfg recording.Config) *recording.Recorder {
	t.Helper()
	if cfg.Task == "" {
		cfg.Task = "task1"
	}
	r, err := recording.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func event(id string) *auditv1.Event {
	f := execFacts()
	f.ID = id
	return recording.Event(f)
}

func mustAppend(t testing.TB, r *recording.Recorder, s recording.Stream, ids ...string) {
	t.Helper()
	for _, id := range ids {
		if err := r.Append(t.Context(), s, event(id)); err != nil {
			t.Fatalf("Append(%s): %v", id, err)
		}
	}
}

func mustClose(t testing.TB, r *recording.Recorder) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Fatalf("Close: %v", err)
	}
}

// stored are the audit ids in the bucket, by key.
func stored(t testing.TB, b *recordingtest.Bucket) map[string][]string {
	t.Helper()
	got := map[string][]string{}
	for _, key := range b.Keys() {
		body, err := b.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		z, err := zstd.NewReader(body)
		if err != nil {
			t.Fatal(err)
		}
		for lines := bufio.NewScanner(z); lines.Scan(); {
			_, after, _ := strings.Cut(lines.Text(), `"auditID":"`)
			id, _, _ := strings.Cut(after, `"`)
			got[key] = append(got[key], id)
		}
		z.Close()
	}
	return got
}

func ids(t testing.TB, b *recordingtest.Bucket) []string {
	t.Helper()
	all := stored(t, b)
	var got []string
	for _, key := range b.Keys() {
		got = append(got, all[key]...)
	}
	return got
}

func wantKind(t testing.TB, err error, kind access.Kind) {
	t.Helper()
	if got := access.KindOf(err); got != kind {
		t.Errorf("error %v is of kind %q, want %q", err, got, kind)
	}
}

// wantRefusal wants the error of a recorder that does not accept events.
func wantRefusal(t testing.TB, err error) {
	t.Helper()
	wantKind(t, err, access.Unavailable)
	if err != nil && access.AsError(err).RetryAfter <= 0 {
		t.Errorf("error %v does not say when to ask again", err)
	}
}

func TestKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{}
		r := newRecorder(t, recording.Config{Store: b})
		mustAppend(t, r, prod, "a", "b")
		mustAppend(t, r, recording.Stream{Cluster: "prod"}, "c")
		mustAppend(t, r, recording.Stream{}, "d")
		mustAppend(t, r, recording.Stream{Cluster: "../../sessions/x"}, "e") // from outside: no cluster of ours
		mustClose(t, r)

		// A bubble's clock begins at midnight UTC 2000-01-01; each segment is a nanosecond later than the last. The
		// number counts segments in the order in which they were stored, which is not fixed.
		want := map[string][]string{
			"sessions/prod/k5wq2a7m/20000101T000000.000000000Z-task1":     {"a", "b"},
			"refused/prod/2000/01/01/00/20000101T000000.000000001Z-task1": {"c"},
			"refused/-/2000/01/01/00/20000101T000000.000000002Z-task1":    {"d", "e"},
		}
		got := map[string][]string{}
		for key, ids := range stored(t, b) {
			name, found := strings.CutSuffix(key, ".ndjson.zst")
			name, seq := name[:strings.LastIndex(name, "-")], name[strings.LastIndex(name, "-")+1:]
			if n, err := strconv.Atoi(seq); !found || err != nil || len(seq) != 8 || n < 1 || n > 3 {
				t.Errorf("key %s does not end as it should", key)
			}
			got[name] = ids
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
}

func TestStreamsNotSafeInKeys(t *testing.T) {
	r := newRecorder(t, recording.Config{Store: &recordingtest.Bucket{}})
	defer mustClose(t, r)
	for _, s := range []recording.Stream{
		{Cluster: "prod", Session: "../x"},
		{Cluster: "prod", Session: "ABC"},
		{Cluster: "prod", Session: "a/b"},
		{Cluster: "prod", Session: strings.Repeat("a", 129)},
		{Cluster: "", Session: "abc"},
		{Cluster: "a/b", Session: "abc"},
		{Cluster: "-", Session: "abc"},
		{Cluster: "a\n", Session: "abc"},
	} {
		wantKind(t, r.Append(t.Context(), s, event("x")), access.Invalid)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]recording.Config{
		"no store":      {Task: "t"},
		"no task":       {Store: &recordingtest.Bucket{}},
		"task":          {Store: &recordingtest.Bucket{}, Task: "a/b"},
		"large segment": {Store: &recordingtest.Bucket{}, Task: "t", MaxSegment: 1 << 30},
		"small buffer":  {Store: &recordingtest.Bucket{}, Task: "t", MaxBuffered: 1},
	} {
		if _, err := recording.New(cfg); access.KindOf(err) != access.Invalid {
			t.Errorf("%s: New = %v, want an error of kind invalid", name, err)
		}
	}
}

func TestFlushByAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{}
		r := newRecorder(t, recording.Config{Store: b, MaxAge: time.Second})
		mustAppend(t, r, prod, "a")
		time.Sleep(900 * time.Millisecond)
		mustAppend(t, r, prod, "b")
		if got := b.Keys(); len(got) != 0 {
			t.Errorf("stored too early: %v", got)
		}
		time.Sleep(101 * time.Millisecond)
		synctest.Wait()
		if diff := cmp.Diff([]string{"a", "b"}, ids(t, b)); diff != "" {
			t.Errorf("after MaxAge (-want +got):\n%s", diff)
		}
		mustClose(t, r)
	})
}

func TestFlushBySizeKeepsOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{}
		r := newRecorder(t, recording.Config{Store: b, MaxSegment: 4 << 10})
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprintf("%03d", i))
		}
		mustAppend(t, r, prod, want...)
		synctest.Wait()
		if got := len(b.Keys()); got < 10 {
			t.Errorf("%d segments were stored before MaxAge, want those that are full", got)
		}
		mustClose(t, r)
		if diff := cmp.Diff(want, ids(t, b)); diff != "" {
			t.Errorf("events in the order of keys (-want +got):\n%s", diff)
		}
		for _, key := range b.Keys() {
			body, err := b.Get(t.Context(), key)
			if err != nil {
				t.Fatal(err)
			}
			z, err := zstd.NewReader(body)
			if err != nil {
				t.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, z); n > 4<<10 || err != nil {
				t.Errorf("%s has %d bytes, %v, want at most MaxSegment", key, n, err)
			}
			z.Close()
		}
	})
}

func TestClockSetBackKeepsOrder(t *testing.T) {
	b := &recordingtest.Bucket{}
	now := started
	r := newRecorder(t, recording.Config{Store: b, MaxSegment: 1, Now: func() time.Time { now = now.Add(-time.Hour); return now }})
	mustAppend(t, r, prod, "1", "2", "3", "4")
	mustClose(t, r)
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, ids(t, b)); diff != "" {
		t.Errorf("events in the order of keys (-want +got):\n%s", diff)
	}
}

func TestRetriesUntilTheStoreIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error {
			if away.Load() {
				return errAway
			}
			return nil
		}}
		r := newRecorder(t, recording.Config{Store: b})
		mustAppend(t, r, prod, "a")
		time.Sleep(20 * time.Second)
		mustAppend(t, r, prod, "b") // the buffer absorbs
		if err := r.Healthy(); err != nil {
			t.Errorf("Healthy after 20 s = %v, want nil", err)
		}
		away.Store(false)
		time.Sleep(3 * time.Second)
		if diff := cmp.Diff([]string{"a", "b"}, ids(t, b)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		mustClose(t, r)
	})
}

func TestRefusesWhenTheStoreIsAwayTooLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		away.Store(true)
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error {
			if away.Load() {
				return errAway
			}
			return nil
		}}
		r := newRecorder(t, recording.Config{Store: b, MaxFailing: 30 * time.Second})
		mustAppend(t, r, prod, "a")
		time.Sleep(30*time.Second + 900*time.Millisecond) // the first attempt was after 1 s
		if err := r.Healthy(); err != nil {
			t.Errorf("Healthy before MaxFailing = %v, want nil", err)
		}
		time.Sleep(200 * time.Millisecond)
		before := time.Now()
		wantRefusal(t, r.Append(t.Context(), prod, event("b")))
		wantRefusal(t, r.AppendDurable(t.Context(), prod, event("c")))
		if waited := time.Since(before); waited != 0 {
			t.Errorf("refusing took %v, want at once", waited)
		}
		err := r.Healthy()
		wantRefusal(t, err)
		if !errors.Is(err, errAway) {
			t.Errorf("Healthy = %v does not know why", err)
		}

		away.Store(false)
		time.Sleep(3 * time.Second)
		if err := r.Healthy(); err != nil {
			t.Errorf("Healthy after the store is back = %v", err)
		}
		mustAppend(t, r, prod, "d")
		mustClose(t, r)
		if diff := cmp.Diff([]string{"a", "d"}, ids(t, b)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
}

// A segment that is never stored must stop the traffic even when others are.
func TestOneSegmentThatFailsIsEnough(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(_ context.Context, key string) error {
			if strings.Contains(key, "/bad/") {
				return errAway
			}
			return nil
		}}
		r := newRecorder(t, recording.Config{Store: b})
		mustAppend(t, r, recording.Stream{Cluster: "prod", Session: "bad"}, "lost")
		for range 25 {
			mustAppend(t, r, prod, "x")
			time.Sleep(time.Second)
		}
		time.Sleep(7 * time.Second)
		wantRefusal(t, r.Healthy())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		err := r.Close(ctx)
		wantRefusal(t, err)
		if err == nil || !strings.Contains(err.Error(), "1 events may not be stored") {
			t.Errorf("Close = %v, want it to say that 1 event may not be stored", err)
		}
	})
}

func TestStoreThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(ctx context.Context, _ string) error {
			<-ctx.Done()
			return ctx.Err()
		}}
		r := newRecorder(t, recording.Config{Store: b, Timeout: 10 * time.Second})
		mustAppend(t, r, prod, "a", "b")
		time.Sleep(32 * time.Second)
		wantRefusal(t, r.Healthy())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := r.Close(ctx); err == nil || !strings.Contains(err.Error(), "2 events may not be stored") {
			t.Errorf("Close = %v, want it to count 2 events", err)
		}
	})
}

func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		b := &recordingtest.Bucket{BeforePut: func(ctx context.Context, _ string) error {
			select {
			case <-release:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}}
		// Segments are counted compressed while they are stored, so the events must be in open ones to fill the buffer.
		r := newRecorder(t, recording.Config{Store: b, MaxBuffered: 1 << 20, MaxAge: time.Minute, Timeout: time.Hour})
		accepted := 0
		for {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			before := time.Now()
			err := r.Append(ctx, prod, event(strconv.Itoa(accepted)))
			cancel()
			if err != nil {
				wantRefusal(t, err)
				if waited := time.Since(before); waited != time.Second {
					t.Errorf("Append waited %v, want until its context ended", waited)
				}
				break
			}
			accepted++
		}
		if accepted < 500 || accepted > 2000 {
			t.Errorf("%d events were accepted into 1 MiB", accepted)
		}

		done := make(chan error)
		go func() { done <- r.Append(t.Context(), prod, event(strconv.Itoa(accepted))) }()
		synctest.Wait()
		select {
		case err := <-done:
			t.Fatalf("Append into a full buffer = %v, want it to wait", err)
		default:
		}
		close(release)
		if err := <-done; err != nil { // when the minute is over
			t.Errorf("Append after there was room: %v", err)
		}
		accepted++
		mustClose(t, r)
		got := ids(t, b)
		if len(got) != accepted {
			t.Errorf("%d events stored, %d accepted", len(got), accepted)
		}
	})
}

// What waits for room must not wait for a store that is away: U4.
func TestBackPressureEndsWhenTripped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error { return errAway }}
		r := newRecorder(t, recording.Config{Store: b, MaxBuffered: 1 << 20, MaxAge: time.Hour, Linger: time.Second})
		go r.AppendDurable(t.Context(), recording.Stream{Cluster: "prod", Session: "other"}, event("x"))
		for i := 0; ; i++ {
			before := time.Now()
			if err := r.Append(t.Context(), prod, event(strconv.Itoa(i))); err != nil {
				wantRefusal(t, err)
				if waited := time.Since(before); waited > 32*time.Second {
					t.Errorf("refused after %v, want about 30 s", waited)
				}
				break
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Close(ctx); err == nil {
			t.Error("Close said nothing of the events it gave up")
		}
	})
}

func TestAppendHeedsNoContextWhenThereIsRoom(t *testing.T) {
	r := newRecorder(t, recording.Config{Store: &recordingtest.Bucket{}})
	defer mustClose(t, r)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Append(ctx, prod, event("end of a request its caller left")); err != nil {
		t.Errorf("Append = %v", err)
	}
}

func TestDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error {
			time.Sleep(30 * time.Millisecond)
			return nil
		}}
		r := newRecorder(t, recording.Config{Store: b, Linger: 5 * time.Millisecond})
		mustAppend(t, r, prod, "before")
		var group sync.WaitGroup
		begin := time.Now()
		for i := range 50 {
			group.Go(func() {
				id := "durable" + strconv.Itoa(i)
				if err := r.AppendDurable(t.Context(), prod, event(id)); err != nil {
					t.Errorf("AppendDurable: %v", err)
				}
				if !slices.Contains(ids(t, b), id) {
					t.Errorf("AppendDurable returned before %s was stored", id)
				}
			})
		}
		group.Wait()
		if took := time.Since(begin); took != 35*time.Millisecond {
			t.Errorf("took %v, want one linger and one put", took)
		}
		if got := b.Puts(); got != 1 {
			t.Errorf("%d puts for 50 events at once, want 1", got)
		}
		mustClose(t, r)
	})
}

// Segments that somebody waits for do not queue behind those that nobody does.
func TestDurableGoesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error {
			time.Sleep(100 * time.Millisecond)
			return nil
		}}
		r := newRecorder(t, recording.Config{Store: b, Uploads: 1, MaxSegment: 1 << 10})
		for i := range 100 {
			mustAppend(t, r, prod, strconv.Itoa(i))
		}
		begin := time.Now()
		if err := r.AppendDurable(t.Context(), recording.Stream{Cluster: "prod", Session: "other"}, event("change")); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 250*time.Millisecond {
			t.Errorf("took %v, want the rest of one put and its own", took)
		}
		mustClose(t, r)
	})
}

// Streams with nothing to store, and streams with something, cost no goroutine each.
func TestManyStreamsFewGoroutines(t *testing.T) {
	var most atomic.Int64
	b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error {
		if n := int64(runtime.NumGoroutine()); n > most.Load() {
			most.Store(n)
		}
		return nil
	}}
	before := runtime.NumGoroutine()
	r := newRecorder(t, recording.Config{Store: b, MaxAge: time.Hour, Uploads: 8})
	for i := range 5000 {
		mustAppend(t, r, recording.Stream{Cluster: "prod", Session: access.Digest(strconv.Itoa(i))}, "x")
	}
	if n := runtime.NumGoroutine(); n > before+1 {
		t.Errorf("%d goroutines more for 5000 open segments", n-before)
	}
	mustClose(t, r)
	if n := int(most.Load()); n > before+9 {
		t.Errorf("%d goroutines more while 8 segments were stored at once", n-before)
	}
	if got := len(b.Keys()); got != 5000 {
		t.Errorf("%d segments, want 5000", got)
	}
}

func TestDurableGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error { return errAway }}
		r := newRecorder(t, recording.Config{Store: b})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		wantRefusal(t, r.AppendDurable(ctx, prod, event("a")))

		// Without a deadline of its own it ends when the recorder trips, or closes.
		before := time.Now()
		wantRefusal(t, r.AppendDurable(t.Context(), prod, event("b")))
		if waited := time.Since(before); waited > 30*time.Second {
			t.Errorf("AppendDurable waited %v for a store that is away", waited)
		}
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Close(ended); err == nil || !strings.Contains(err.Error(), "2 events") {
			t.Errorf("Close = %v, want it to count 2 events", err)
		}
	})
}

func TestDurableEndsWithTheRecorder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{BeforePut: func(context.Context, string) error { return errAway }}
		r := newRecorder(t, recording.Config{Store: b})
		done := make(chan error)
		go func() { done <- r.AppendDurable(t.Context(), prod, event("a")) }()
		time.Sleep(time.Second)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if err := r.Close(ended); err == nil {
			t.Error("Close said nothing of the event it gave up")
		}
		before := time.Now()
		wantRefusal(t, <-done)
		if waited := time.Since(before); waited != 0 {
			t.Errorf("AppendDurable waited %v for a recorder that is closed", waited)
		}
	})
}

// An attempt whose answer was lost is tried again under the same key, and finds its own object.
func TestLostAnswerIsNotStoredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost := false
		b := &recordingtest.Bucket{}
		b.AfterPut = func(context.Context, string) error {
			if !lost {
				lost = true
				return errAway
			}
			return nil
		}
		r := newRecorder(t, recording.Config{Store: b})
		if err := r.AppendDurable(t.Context(), prod, event("a")); err != nil {
			t.Errorf("AppendDurable = %v", err)
		}
		if diff := cmp.Diff([]string{"a"}, ids(t, b)); diff != "" || b.Puts() != 2 {
			t.Errorf("%d puts, want 2; stored (-want +got):\n%s", b.Puts(), diff)
		}
		mustClose(t, r)
	})
}

// A key that exists before our first attempt is somebody else's: theirs stays, ours is stored beside it.
func TestNeverOverwrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := &recordingtest.Bucket{}
		const theirs = "sessions/prod/k5wq2a7m/20000101T000000.000000000Z-task1-00000001.ndjson.zst"
		b.Set(theirs, []byte("theirs"))
		r := newRecorder(t, recording.Config{Store: b})
		if err := r.AppendDurable(t.Context(), prod, event("a")); err != nil {
			t.Errorf("AppendDurable = %v", err)
		}
		mustClose(t, r)
		body, err := b.Get(t.Context(), theirs)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := io.ReadAll(body); string(got) != "theirs" {
			t.Errorf("the object was overwritten")
		}
		if got := b.Keys(); len(got) != 2 || path.Base(got[1]) != "20000101T000000.000000000Z-task1-00000002.ndjson.zst" {
			t.Errorf("keys = %v, want a second one", got)
		}
	})
}

func TestCloseStoresEverythingAndRefusesMore(t *testing.T) {
	b := &recordingtest.Bucket{}
	r := newRecorder(t, recording.Config{Store: b, MaxAge: time.Hour})
	for i := range 500 {
		mustAppend(t, r, recording.Stream{Cluster: "prod", Session: "s" + strings.Repeat("a", i%100)}, strconv.Itoa(i))
	}
	mustClose(t, r)
	if got := len(ids(t, b)); got != 500 {
		t.Errorf("%d events stored, want 500", got)
	}
	wantRefusal(t, r.Append(t.Context(), prod, event("late")))
	wantRefusal(t, r.Healthy())
	mustClose(t, r)
}

func TestTooLargeEvent(t *testing.T) {
	r := newRecorder(t, recording.Config{Store: &recordingtest.Bucket{}})
	defer mustClose(t, r)
	ev := event("a")
	ev.RequestURI = strings.Repeat("x", 1<<20)
	wantKind(t, r.Append(t.Context(), prod, ev), access.Invalid)
}

// Whatever happens at once, every event that was accepted is stored, in its stream's order, once.
func TestConcurrentAppendsOverAFlakyStore(t *testing.T) {
	const streams, each = 60, 50
	var n atomic.Int64
	flaky := func(context.Context, string) error {
		if n.Add(1)%7 == 0 {
			return errAway
		}
		return nil
	}
	b := &recordingtest.Bucket{BeforePut: flaky, AfterPut: flaky}
	r := newRecorder(t, recording.Config{Store: b, MaxAge: 5 * time.Millisecond, MaxSegment: 8 << 10, MaxBuffered: 1 << 20})
	name := func(i int) string {
		return "s" + string(rune('a'+i/26)) + string(rune('a'+i%26))
	}
	var group sync.WaitGroup
	for i := range streams {
		group.Go(func() {
			for k := range each {
				put := r.Append
				if k%25 == 24 {
					put = r.AppendDurable
				}
				if err := put(t.Context(), recording.Stream{Cluster: "prod", Session: name(i)}, event(strconv.Itoa(k))); err != nil {
					t.Errorf("Append: %v", err)
				}
			}
		})
	}
	group.Wait()
	mustClose(t, r)
	got := map[string][]string{}
	all := stored(t, b)
	for _, key := range b.Keys() {
		id := strings.Split(key, "/")[2]
		got[id] = append(got[id], all[key]...)
	}
	var want []string
	for k := range each {
		want = append(want, strconv.Itoa(k))
	}
	for i := range streams {
		if diff := cmp.Diff(want, got[name(i)]); diff != "" {
			t.Fatalf("stream %d (-want +got):\n%s", i, diff)
		}
	}
}

type nowhere struct{ bytes atomic.Int64 }

func (n *nowhere) Put(_ context.Context, _ string, body []byte) error {
	n.bytes.Add(int64(len(body)))
	return nil
}

func BenchmarkAppend(b *testing.B) {
	for _, streams := range []int{1, 5000} {
		b.Run(fmt.Sprintf("streams=%d", streams), func(b *testing.B) {
			store := &nowhere{}
			r := newRecorder(b, recording.Config{Store: store})
			names := make([]recording.Stream, streams)
			for i := range names {
				names[i] = recording.Stream{Cluster: "prod", Session: access.Digest(strconv.Itoa(i))}
			}
			ev := event("8b1f6a52-3f0e-4d43-9a80-0d1f8f0e6d11")
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if err := r.Append(b.Context(), names[i%streams], ev); err != nil {
					b.Fatal(err)
				}
				i++
			}
			b.StopTimer()
			mustCloseBackground(b, r)
			b.ReportMetric(float64(store.bytes.Load())/float64(i), "stored-B/event")
		})
	}
}

func BenchmarkEvent(b *testing.B) {
	b.ReportAllocs()
	f := execFacts()
	for b.Loop() {
		recording.Event(f)
	}
}

func mustCloseBackground(b *testing.B, r *recording.Recorder) {
	b.Helper()
	if err := r.Close(context.Background()); err != nil {
		b.Fatal(err)
	}
}
