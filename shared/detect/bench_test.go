package detect

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

// plain is text without keywords; objects is what kubectl prints; hostile is made to be slow.
func texts(b *testing.B) map[string][]byte {
	b.Helper()
	objects, err := os.ReadFile("testdata/objects.yaml")
	if err != nil {
		b.Fatal(err)
	}
	plain := []byte(strings.Repeat(`2026-11-24T10:00:00.123Z INFO controller reconciled {"namespace": "team-a", "name": "web-7d4b9c8f6d", "took": "12ms"}`+"\n", 9000))
	return map[string][]byte{
		"plain":   plain,
		"objects": bytes.Repeat(objects, 1<<20/len(objects)),
		"hostile": bytes.Repeat([]byte("glpat-"), 15000),
	}
}

// cpu reports the processor time that was used, which a busy machine does not change as it does the clock's.
func cpu(b *testing.B, size int) (done func()) {
	b.Helper()
	used := func() float64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return float64(u.Utime.Nano() + u.Stime.Nano())
	}
	b.SetBytes(int64(size))
	b.ReportAllocs()
	from := used()
	return func() { b.ReportMetric(float64(b.N)*float64(size)/(used()-from)*1000, "MB/cpu-s") }
}

func BenchmarkFind(b *testing.B) {
	set := Default()
	for name, text := range texts(b) {
		b.Run(name, func(b *testing.B) {
			defer cpu(b, len(text))()
			for b.Loop() {
				set.Find(text)
			}
		})
	}
}

// The same text looked over with bytes.Index once for each keyword, as gitleaks' prefilter would without its automaton.
func BenchmarkKeywordsByIndex(b *testing.B) {
	set := Default()
	text := texts(b)["plain"]
	defer cpu(b, len(text))()
	for b.Loop() {
		low := bytes.ToLower(text)
		for _, w := range set.keywords.words {
			if bytes.Contains(low, []byte(w.text)) {
				b.Fatal(w.text)
			}
		}
	}
}

// The same rules as package regexp runs them over a twentieth of the text, without a prefilter.
func BenchmarkByRegexp(b *testing.B) {
	var all []*regexp.Regexp
	for _, p := range patterns(b) {
		all = append(all, regexp.MustCompile(p.text))
	}
	text := texts(b)["plain"]
	text = text[:len(text)/20]
	defer cpu(b, len(text))()
	for b.Loop() {
		for _, re := range all {
			re.FindAllSubmatchIndex(text, -1)
		}
	}
}

func BenchmarkFindString(b *testing.B) {
	set := Default()
	text := []byte("ip-10-0-12-34.eu-west-1.compute.internal")
	defer cpu(b, len(text))()
	for b.Loop() {
		set.Find(text)
	}
}

func BenchmarkMaybe(b *testing.B) {
	set := Default()
	text := texts(b)["plain"]
	defer cpu(b, len(text))()
	for b.Loop() {
		if set.Maybe(text) {
			b.Fatal("there is a keyword")
		}
	}
}

func BenchmarkStream(b *testing.B) {
	set := Default()
	for name, text := range texts(b) {
		for size, label := range map[int]string{120: "lines", 32 << 10: "blocks"} {
			b.Run(name+"/"+label, func(b *testing.B) {
				defer cpu(b, len(text))()
				s := set.Stream(func([]byte) error { return nil })
				for b.Loop() {
					for rest := text; len(rest) > 0; {
						n := min(size, len(rest))
						if _, err := s.Write(rest[:n]); err != nil {
							b.Fatal(err)
						}
						rest = rest[n:]
					}
				}
			})
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	for b.Loop() {
		if _, err := load(gitleaks); err != nil {
			b.Fatal(err)
		}
	}
}
