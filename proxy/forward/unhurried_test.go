package forward

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"
)

// flushes counts them.
type flushes struct {
	http.ResponseWriter
	n int
}

func (f *flushes) FlushError() error { f.n++; return nil }

// Many writes are one flush, when what they brought is late.
func TestUnhurried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &flushes{ResponseWriter: httptest.NewRecorder()}
		u := &unhurried{ResponseWriter: f}
		flush := http.NewResponseController(u).Flush
		say := func() {
			t.Helper()
			if _, err := u.Write([]byte("x")); err != nil || flush() != nil {
				t.Fatal(err)
			}
		}
		after := func(d time.Duration, want int) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if f.n != want {
				t.Fatalf("%d flushes, want %d", f.n, want)
			}
		}
		for range 10 {
			say()
		}
		after(late-1, 0)
		say()
		after(1, 1)
		after(time.Hour, 1)
		say()
		after(late, 2)
		say()
		u.end() // and what is left goes with the handler
		after(time.Hour, 2)
		_ = flush()
		after(time.Hour, 2)
		u.flush() // the timer fired while the handler ended
		after(0, 2)
	})
}
