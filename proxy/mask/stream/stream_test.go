package stream_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/mask/stream"
)

func logOf(t testing.TB, s string, end error, sizes ...int) (string, error) {
	t.Helper()
	l := stream.Log(io.NopCloser(&pieces{b: []byte(s), sizes: sizes, end: end}), canaries(t))
	defer l.Close()
	b, err := io.ReadAll(l)
	return string(b), err
}

// A secret in a log is found wherever the log is cut.
func TestLog(t *testing.T) {
	line := "2026-11-24T10:00:00Z connecting with " + canary + " to db\n" + canary[:30] + "\nend " + canary[:20]
	want := strings.Replace(line, canary, mark, 1)
	for cut := 0; cut <= len(line); cut++ {
		for _, sizes := range [][]int{{cut, 999}, {cut, 1, 2, 999}, {1}} {
			if got, err := logOf(t, line, nil, sizes...); err != nil || got != want {
				t.Fatalf("cut at %d: %q, %v", cut, got, err)
			}
		}
	}
}

// A log without a secret is what the cluster sent, byte for byte, whether it is text or not.
func TestLogUntouched(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 3))
		s := text(rnd, rnd.IntN(1+rnd.IntN(40000)))
		if seed%2 == 0 {
			s += "\x00\xff\xfe" + text(rnd, 100)
		}
		if got, err := logOf(t, s, nil, sizes(rnd)...); err != nil || got != s {
			t.Fatalf("seed %d: %d bytes, want %d; %v", seed, len(got), len(s), err)
		}
	}
}

// Threat S10: who says how many bytes of a log come says where a secret is cut, and gets no part of it that way.
func TestLogPart(t *testing.T) {
	part := func(s string, sizes ...int) string {
		l := stream.LogPart(io.NopCloser(&pieces{b: []byte(s), sizes: sizes}), canaries(t))
		defer l.Close()
		b, err := io.ReadAll(l)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	const before, after = "2026-11-24T10:00:00Z connecting with ", " to db\nanother line\n"
	line := before + canary + after
	for n := range len(line) + 1 {
		for _, sizes := range [][]int{{999}, {1}} {
			got := part(line[:n], sizes...)
			shown := strings.TrimSuffix(strings.Replace(got, mark, "", 1), mark)
			switch {
			case n <= len(before) && shown != line[:n] && got != shown+mark,
				n > len(before) && !strings.HasPrefix(got, before),
				n > len(before)+1 && strings.Contains(shown[len(before):], canary[:2]),
				n == len(line) && got != before+mark+after:
				t.Fatalf("of %q there came %q", line[:n], got)
			}
		}
	}
	synctest.Test(t, func(t *testing.T) { // nor by waiting
		r, w := io.Pipe()
		l := stream.LogPart(r, only(t))
		go func() {
			_, _ = io.WriteString(w, "key "+canary[:20])
			time.Sleep(time.Hour)
			w.Close()
		}()
		if b, err := io.ReadAll(l); err != nil || string(b) != "key "+mark {
			t.Errorf("%q, %v", b, err)
		}
	})
}

// A log that breaks off is an error, after everything that came.
func TestLogBrokenOff(t *testing.T) {
	gone := errors.New("reset by peer")
	if got, err := logOf(t, "line\n"+canary[:20], gone, 3); !errors.Is(err, gone) || got != "line\n"+canary[:20] {
		t.Errorf("%q, %v", got, err)
	}
}

// A line that waits for its end is shown after a tenth of a second, and Close ends a Read that waits.
func TestLogFollow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		l := stream.Log(r, only(t))
		began := time.Now()
		go func() { _, _ = io.WriteString(w, "key "+canary[:20]) }()
		b := make([]byte, 99)
		if n, err := l.Read(b); err != nil || string(b[:n]) != "key " || time.Since(began) != 0 {
			t.Errorf("at once: %q, %v", b[:n], err)
		}
		if n, err := l.Read(b); err != nil || string(b[:n]) != canary[:20] || time.Since(began) != stream.Delay {
			t.Errorf("after %v: %q, %v", time.Since(began), b[:n], err)
		}
		ended := make(chan error)
		go func() { _, err := l.Read(b); ended <- err }()
		synctest.Wait()
		l.Close()
		if err := <-ended; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("closed: %v, want an error", err)
		}
		if n, err := l.Read(nil); n != 0 || err != nil {
			t.Errorf("a Read of nothing: %d, %v", n, err)
		}
	})
}
