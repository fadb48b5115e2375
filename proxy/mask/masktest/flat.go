package masktest

import (
	"io"
	"runtime"
	"strings"
	"testing"
)

// More is how much more memory a large body may take than a small one.
const More = 16 << 20

// Endless is a body that nobody holds: head, then part again and again until there are size bytes, then tail.
func Endless(size int64, head, part, tail string) io.Reader {
	return io.MultiReader(strings.NewReader(head), io.LimitReader(&again{part: part}, (size/int64(len(part))+1)*int64(len(part))), strings.NewReader(tail))
}

type again struct {
	part string
	at   int
}

func (a *again) Read(p []byte) (int, error) {
	n := 0
	for n < len(p) {
		m := copy(p[n:], a.part[a.at:])
		n, a.at = n+m, (a.at+m)%len(a.part)
	}
	return n, nil
}

// Flat holds that a body of most bytes takes no more memory than one of 1 KB, and More. pass passes on a body of a size
// through what is tested; what it reads from goes through watch, which looks at the memory in use now and then.
func Flat(t *testing.T, most int64, pass func(size int64, watch func(io.Reader) io.Reader) error) {
	t.Helper()
	var small int64
	for _, size := range []int64{1 << 10, 1 << 20, most} {
		w := &watched{every: max(size/8, 1)}
		if err := pass(size, func(r io.Reader) io.Reader { w.Reader = r; return w }); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		w.look()
		if w.read < size {
			t.Fatalf("%d bytes of %d were read", w.read, size)
		}
		if small == 0 {
			small = w.most
		}
		if grown := w.most - small; grown > More {
			t.Errorf("%d bytes took %d KiB more than 1 KB did", size, grown>>10)
		}
	}
}

// watched looks at the memory in use every so many bytes.
type watched struct {
	io.Reader
	every, read, looked, most int64
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if w.read += int64(n); w.read-w.looked >= w.every {
		w.look()
	}
	return n, err
}

func (w *watched) look() {
	w.looked = w.read
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.most = max(w.most, int64(m.HeapAlloc)) //nolint:gosec // it is no 8 EiB
}
