package stream_test

import (
	"io"
	"strings"
	"testing"

	"sallyport/proxy/mask/stream"
	"sallyport/shared/detect"
)

// logLines is a megabyte of a log as web servers write it.
var logLines = strings.Repeat("2026-11-24T10:00:00.123456Z INFO http: GET /api/v1/things/4711 200 12.7ms user=alice@example.com ip=10.1.2.3\n", 9600)

func BenchmarkLog(b *testing.B) {
	set := detect.Default()
	bench(b, "masked", len(logLines), func() io.Reader { return stream.Log(io.NopCloser(strings.NewReader(logLines)), set) })
	bench(b, "copied", len(logLines), func() io.Reader { return struct{ io.Reader }{strings.NewReader(logLines)} })
}

func BenchmarkWebSocket(b *testing.B) {
	set := detect.Default()
	for name, size := range map[string]int{"32KiB": 32 << 10, "line": 100} {
		var wire strings.Builder
		for rest := logLines; rest != ""; {
			n := min(size, len(rest))
			wire.WriteString(codecs[0].write(1, rest[:n]))
			rest = rest[n:]
		}
		s := wire.String()
		for option, opt := range map[string]stream.Options{"masked": {Set: set}, "binary": {Set: set, Binary: true}} {
			bench(b, name+"/"+option, len(s), func() io.Reader {
				return stream.WebSocket(&server{Reader: strings.NewReader(s)}, codecs[0].protocol, opt)
			})
		}
	}
}

// bench copies through buffers as the proxy's, and in one run beside what is not masked.
func bench(b *testing.B, name string, size int, open func() io.Reader) {
	b.Run(name, func(b *testing.B) {
		b.SetBytes(int64(size))
		b.ReportAllocs()
		buf := make([]byte, 32<<10)
		for b.Loop() {
			if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{open()}, buf); err != nil || n == 0 {
				b.Fatal(n, err)
			}
		}
	})
}
