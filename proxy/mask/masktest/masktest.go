// Package masktest has lists to measure masking with.
package masktest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
)

// A List is what the API answers for a list, in the pieces that it writes: the beginning, the objects with their commas, and
// the end.
type List [][]byte

// Len is how many bytes it has.
func (l List) Len() int {
	n := 0
	for _, p := range l {
		n += len(p)
	}
	return n
}

// Bytes is all of it.
func (l List) Bytes() []byte { return bytes.Join(l, nil) }

// WriteTo writes an object at a time, as the API server does.
func (l List) WriteTo(w io.Writer) (int64, error) {
	var n int64
	for _, p := range l {
		m, err := w.Write(p)
		if n += int64(m); err != nil {
			return n, err
		}
	}
	return n, nil
}

// SecretList is what the API answers for many Secrets that were applied with kubectl and then by a controller: half of the
// bytes are data, the other half the same in an annotation.
func SecretList(n int) List {
	r := rand.New(rand.NewSource(42)) //nolint:gosec // it keeps nothing secret
	value := func(n int) string {
		b := make([]byte, n)
		r.Read(b)
		return base64.StdEncoding.EncodeToString(b)
	}
	return list("SecretList", n, func(i int) any {
		data := map[string]string{"tls.crt": value(1800), "tls.key": value(1300), "password": value(24), "token": value(40)}
		meta := map[string]any{"name": fmt.Sprintf("app-credentials-%05d", i), "namespace": fmt.Sprintf("team-%03d", i%200), "labels": map[string]any{"app": "x", "tier": "backend"}}
		applied := encode(map[string]any{"apiVersion": "v1", "kind": "Secret", "data": data, "type": "Opaque", "metadata": meta})
		fields := map[string]any{"f:type": map[string]any{}, "f:data": map[string]any{".": map[string]any{}, "f:tls.crt": map[string]any{}, "f:tls.key": map[string]any{}, "f:password": map[string]any{}, "f:token": map[string]any{}}}
		return map[string]any{"data": data, "type": "Opaque", "metadata": map[string]any{
			"name": meta["name"], "namespace": meta["namespace"], "uid": fmt.Sprintf("%08x-1111-4222-8333-%012x", r.Uint32(), r.Int63()&0xffffffffffff),
			"resourceVersion": fmt.Sprint(1000000 + i), "creationTimestamp": "2026-05-01T10:00:00Z", "labels": meta["labels"],
			"annotations": map[string]any{"kubectl.kubernetes.io/last-applied-configuration": string(applied) + "\n"},
			"managedFields": []any{
				map[string]any{"manager": "kubectl-client-side-apply", "operation": "Update", "apiVersion": "v1", "time": "2026-05-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
				map[string]any{"manager": "argocd-controller", "operation": "Apply", "apiVersion": "v1", "time": "2026-06-01T10:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields},
			},
		}}
	})
}

// PodList is the hard case: nothing but structure and short strings.
func PodList(n int) List {
	fields := map[string]any{}
	for i := range 12 {
		fields[fmt.Sprintf("f:field%02d", i)] = map[string]any{".": map[string]any{}, "f:name": map[string]any{}, "f:value": map[string]any{"f:x": map[string]any{}}}
	}
	return list("PodList", n, func(i int) any {
		var env []any
		for j := range 12 {
			env = append(env, map[string]any{"name": fmt.Sprintf("VAR_%d", j), "value": fmt.Sprintf("v-%d-%d", i, j)})
		}
		return map[string]any{
			"metadata": map[string]any{"name": fmt.Sprintf("web-%d", i), "namespace": "ns", "uid": "5a1b0b4a-1111-4222-8333-0123456789ab", "labels": map[string]any{"app": "web", "pod-template-hash": "abc"},
				"managedFields": []any{map[string]any{"manager": "kube-controller-manager", "fieldsV1": fields}, map[string]any{"manager": "kubelet", "fieldsV1": fields}}},
			"spec":   map[string]any{"nodeName": "ip-10-0-0-1", "containers": []any{map[string]any{"name": "c", "image": "img:1", "env": env, "resources": map[string]any{"limits": map[string]any{"cpu": "1"}}}}},
			"status": map[string]any{"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True", "lastTransitionTime": "2026-05-01T10:00:00Z"}, map[string]any{"type": "Initialized", "status": "True"}}},
		}
	})
}

func list(kind string, n int, item func(i int) any) List {
	l := List{[]byte(`{"kind":"` + kind + `","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`)}
	for i := range n {
		b := encode(item(i))
		if i > 0 {
			b = append([]byte(","), b...)
		}
		l = append(l, b)
	}
	return append(l, []byte("]}"))
}

func encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // of literals above
	}
	return b
}
