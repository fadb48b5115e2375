package mask_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/mask"
)

// secretList is what the API answers for many Secrets that were applied with kubectl and then by a controller: half of the
// bytes are data, the other half the same in an annotation.
func secretList(n int) []byte {
	r := rand.New(rand.NewSource(42))
	value := func(n int) string {
		b := make([]byte, n)
		r.Read(b)
		return base64.StdEncoding.EncodeToString(b)
	}
	var items []any
	for i := range n {
		data := map[string]string{"tls.crt": value(1800), "tls.key": value(1300), "password": value(24), "token": value(40)}
		meta := map[string]any{"name": fmt.Sprintf("app-credentials-%05d", i), "namespace": fmt.Sprintf("team-%03d", i%200), "labels": map[string]any{"app": "x", "tier": "backend"}}
		applied, _ := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Secret", "data": data, "type": "Opaque", "metadata": meta})
		fields := map[string]any{"f:type": map[string]any{}, "f:data": map[string]any{".": map[string]any{}, "f:tls.crt": map[string]any{}, "f:tls.key": map[string]any{}, "f:password": map[string]any{}, "f:token": map[string]any{}}}
		items = append(items, map[string]any{"data": data, "type": "Opaque", "metadata": map[string]any{
			"name": meta["name"], "namespace": meta["namespace"], "uid": fmt.Sprintf("%08x-1111-4222-8333-%012x", r.Uint32(), r.Int63()&0xffffffffffff),
			"resourceVersion": fmt.Sprint(1000000 + i), "creationTimestamp": "2026-05-01T10:00:00Z", "labels": meta["labels"],
			"annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": string(applied) + "\n"},
			"managedFields": []any{
				map[string]any{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1", "time": "2026-05-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
				map[string]any{"manager": "argocd-controller", "operation": "Apply", "apiVersion": "v1", "time": "2026-06-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
			},
		}})
	}
	b, _ := json.Marshal(map[string]any{"kind": "SecretList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
	return b
}

// podList is the hard case: nothing but structure and short strings.
func podList(n int) []byte {
	fields := map[string]any{}
	for i := range 12 {
		fields[fmt.Sprintf("f:field%02d", i)] = map[string]any{".": map[string]any{}, "f:name": map[string]any{}, "f:value": map[string]any{"f:x": map[string]any{}}}
	}
	var items []any
	for i := range n {
		var env []any
		for j := range 12 {
			env = append(env, map[string]any{"name": fmt.Sprintf("VAR_%d", j), "value": fmt.Sprintf("v-%d-%d", i, j)})
		}
		items = append(items, map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("web-%d", i), "namespace": "ns", "uid": "5a1b0b4a-1111-4222-8333-0123456789ab", "labels": map[string]any{"app": "web", "pod-template-hash": "abc"},
				"managedFields": []any{map[string]any{"manager": "kube-controller-manager", "fieldsV1": fields}, map[string]any{"manager": "kubelet", "fieldsV1": fields}}},
			"spec":   map[string]any{"nodeName": "ip-10-0-0-1", "containers": []any{map[string]any{"name": "c", "image": "img:1", "env": env, "resources": map[string]any{"limits": map[string]any{"cpu": "1"}}}}},
			"status": map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True", "lastTransitionTime": "2026-05-01T10:00:00Z"}, map[string]any{"type": "Initialized", "status": "True"}}},
		})
	}
	b, _ := json.Marshal(map[string]any{"kind": "PodList", "apiVersion": "v1", "metadata": map[string]any{"resourceVersion": "1"}, "items": items})
	return b
}

// only hides the other methods of a reader.
type only struct{ io.Reader }

func BenchmarkReader(b *testing.B) {
	secrets, pods := secretList(1000), podList(2000)
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
