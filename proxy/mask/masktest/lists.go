// Package masktest makes what the API answers, large, for tests and benchmarks of masking.
package masktest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand"
)

// SecretList is what the API answers for many Secrets that were applied with kubectl and then by a controller: half of the
// bytes are data, the other half the same in an annotation.
func SecretList(n int) []byte {
	r := rand.New(rand.NewSource(42)) //nolint:gosec // G404: the same each time
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

// PodList is the hard case: nothing but structure and short strings.
func PodList(n int) []byte {
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

// Long is a SecretList of about n bytes that is made while it is read, so that nobody holds it. Its values are all Value.
func Long(n int64) io.Reader { return &long{left: n} }

// Value is each value of Long, as it is written.
const Value = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ=="

const (
	begin = `{"kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`
	item  = `{"metadata":{"name":"db","namespace":"dev","uid":"5a1b0b4a-1111-4222-8333-0123456789ab","labels":{"app":"web"}},"data":{"password":"` + Value + `","url":"` + Value + `"},"type":"Opaque"}`
	end   = `]}`
)

type long struct {
	left int64
	rest string
	step int
}

func (l *long) Read(p []byte) (int, error) {
	if l.rest == "" {
		switch l.step {
		case 0:
			l.rest, l.step = begin+item, 1
		case 1:
			if l.rest = "," + item; l.left <= 0 {
				l.rest, l.step = end, 2
			}
		default:
			return 0, io.EOF
		}
		l.left -= int64(len(l.rest))
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
