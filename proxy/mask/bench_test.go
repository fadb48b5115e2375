package mask_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/masktest"
)

// only hides the other methods of a reader.
type only struct{ io.Reader }

func BenchmarkReader(b *testing.B) {
	secrets, pods := masktest.SecretList(1000).Bytes(), masktest.PodList(2000).Bytes()
	run := func(name string, in []byte, f func(io.Reader) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			began, n := cpu(), 0
			for b.Loop() {
				n++
				if err := f(only{bytes.NewReader(in)}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n*len(in))/1e6/(cpu()-began).Seconds(), "MB/cpu-s")
		})
	}
	for _, bb := range []struct {
		name string
		in   []byte
		req  mask.Request
		c    mask.Config
		key  []byte
	}{
		{"secrets", secrets, mask.Request{Resource: "secrets", Verb: "list", Namespace: "prod"}, config, session},
		{"secrets,constant", secrets, mask.Request{Resource: "secrets", Verb: "list"}, config, nil},
		{"pods", pods, mask.Request{Resource: "pods", Verb: "list"}, config, session},
		{"pods,nodetectors", pods, mask.Request{Resource: "pods", Verb: "list"}, mask.Config{Names: secretly}, session},
	} {
		m, err := mask.New(bb.c)
		if err != nil {
			b.Fatal(err)
		}
		run(bb.name, bb.in, func(r io.Reader) error {
			_, err := io.Copy(sink{}, only{m.Rules(bb.req).Reader(r, bb.key)})
			return err
		})
	}
	for name, in := range map[string][]byte{"secrets": secrets, "pods": pods} {
		run(name+",baseline=io.Copy", in, func(r io.Reader) error {
			_, err := io.Copy(sink{}, r)
			return err
		})
		run(name+",baseline=jsontext", in, func(r io.Reader) error {
			for d := jsontext.NewDecoder(r, jsontext.AllowDuplicateNames(true)); ; {
				if _, err := d.ReadToken(); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
			}
		})
		run(name+",baseline=encoding-json", in, func(r io.Reader) error {
			var v any
			return json.NewDecoder(r).Decode(&v)
		})
	}
}

// cpu is the processor time of this process: on a busy machine it says more than the clock.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// A small answer, as most are.
func BenchmarkSmall(b *testing.B) {
	m, err := mask.New(config)
	if err != nil {
		b.Fatal(err)
	}
	in := []byte(shapes[8].in)
	buf := make([]byte, 32<<10)
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		r := m.Rules(shapes[8].req).Reader(bytes.NewReader(in), session)
		for {
			if _, err := r.Read(buf); err != nil {
				break
			}
		}
	}
}

// sink takes bytes, and no shortcuts.
type sink struct{}

func (sink) Write(p []byte) (int, error) { return len(p), nil }
