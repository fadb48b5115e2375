package mask_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"strings"
	"testing"

	"sallyport/proxy/mask"
)

var requests = []mask.Request{
	{Resource: "secrets", Verb: "get", Namespace: "prod", Name: "db"},
	{Resource: "secrets", Verb: "list"},
	{Resource: "secrets", Verb: "watch"},
	{Resource: "secrets", Verb: "reveal", Namespace: "prod", Name: "db", Reveal: "password"},
	{Resource: "configmaps", Verb: "get", Namespace: "prod"},
	{Group: "apps", Resource: "deployments", Verb: "list", Namespace: "prod"},
	{Resource: "serviceaccounts", Subresource: "token", Verb: "create", Namespace: "prod"},
	{Group: "certificates.k8s.io", Resource: "certificatesigningrequests", Verb: "watch"},
	{Group: "example.com", Resource: "widgets", Verb: "list"},
}

// sieve says what the masker must make of any bytes: what is strict JSON comes out as the model has it, in whatever pieces it
// came, for encoding/json and for json/v2; what is not is refused.
func sieve(t *testing.T, req mask.Request, key, in []byte, seed int64) {
	t.Helper()
	rules, err := mask.Compile(config, req)
	if err != nil {
		t.Fatal(err)
	}
	out, err := rules.Bytes(in, key)
	r := rand.New(rand.NewSource(seed))
	got, split := io.ReadAll(rules.Reader(&random{in, r}, key))
	if (err == nil) != (split == nil) || err == nil && !bytes.Equal(out, got) {
		t.Fatalf("%.2000q: whole:\n%.2000q %v\nin pieces:\n%.2000q %v", in, out, err, got, split)
	}
	if err != nil && !errors.Is(err, mask.ErrSyntax) {
		t.Fatal(err)
	}
	if ok := strict(in, req.Verb == "watch"); ok != (err == nil) {
		if ok && (strings.Contains(err.Error(), "named twice") || strings.Contains(err.Error(), "too")) {
			return // refused, and JSON
		}
		t.Fatalf("%.2000q: strict is %v, and the masker says %v", in, ok, err)
	}
	if err != nil {
		return
	}
	if !strict(out, req.Verb == "watch") {
		t.Fatalf("%.2000q became %.2000q, which is no JSON", in, out)
	}
	alike(t, in)
	alike(t, out)
	model{req: req, key: key, names: config.Names, detect: config.Detect}.compare(t, in, out)
}

// random reads a little at a time.
type random struct {
	rest []byte
	r    *rand.Rand
}

func (r *random) Read(p []byte) (int, error) {
	n := min(len(r.rest), len(p), 1+r.r.Intn(20))
	copy(p, r.rest[:n])
	r.rest = r.rest[n:]
	if len(r.rest) == 0 && r.r.Intn(2) == 0 {
		return n, io.EOF
	}
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func FuzzMask(f *testing.F) {
	for _, s := range shapes {
		f.Add(uint8(0), true, []byte(s.in), int64(1))
		f.Add(uint8(5), false, []byte(s.in), int64(2))
	}
	for i := range 200 {
		f.Add(uint8(i), i%3 != 0, generate(rand.New(rand.NewSource(int64(i)))), int64(i))
	}
	f.Fuzz(func(t *testing.T, req uint8, keyed bool, in []byte, seed int64) {
		if len(in) > 20000 || bytes.Contains(in, []byte("essage")) || bytes.Contains(bytes.ToLower(in), []byte("e\\u")) {
			return // details and message are sentences, tested elsewhere; long strings too
		}
		key := session
		if !keyed {
			key = nil
		}
		sieve(t, requests[int(req)%len(requests)], key, in, seed)
	})
}

// TestGenerated is the fuzz test on bodies that look like the API's.
func TestGenerated(t *testing.T) {
	for i := range 1500 {
		r := rand.New(rand.NewSource(int64(i)))
		in := generate(r)
		if r.Intn(4) == 0 && len(in) > 0 { // broken
			in[r.Intn(len(in))] ^= byte(1 << r.Intn(8))
			if bytes.Contains(in, []byte("essage")) {
				continue
			}
		}
		key := session
		if r.Intn(4) == 0 {
			key = nil
		}
		sieve(t, requests[r.Intn(len(requests))], key, in, int64(i))
	}
}

// generate makes a body out of the words that mean something to the masker, in places where they do and where they do not.
func generate(r *rand.Rand) []byte {
	g := generator{r}
	var b []byte
	for n := 1; n > 0; n-- {
		b = append(b, g.value(4)...)
		if r.Intn(10) == 0 {
			b = append(b, '\n')
			n = 2
		}
	}
	return b
}

type generator struct{ *rand.Rand }

var words = []string{
	"data", "stringData", "Data", "d\\u0061ta", "\u017ftringData", "metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration", "kapp.k14s.io/original",
	"objectset.rio.cattle.io/applied", "namespace", "name", "Name", "value", "env", "ENV", "items", "object", "rows", "cells", "spec", "status", "token", "request", "certificate",
	"password", "release", "binaryData", "kind", "apiVersion", "managedFields", "fieldsV1", "f:data", "containers", "template", "a", "", "é", "😀", "a\\nb", "labels", "uid",
}

func (g generator) pick() string { return words[g.Intn(len(words))] }

func (g generator) space() string { return []string{"", "", "", "", " ", "\n", "\t \r"}[g.Intn(7)] }

func (g generator) value(depth int) string {
	kind := g.Intn(9)
	if depth == 0 {
		kind = 4 + g.Intn(5)
	}
	s := g.space()
	switch {
	case kind < 3:
		s += "{" + g.space()
		n := g.Intn(5)
		for i := range n {
			if i > 0 {
				s += "," + g.space()
			}
			s += `"` + g.pick() + `"` + g.space() + ":" + g.value(depth-1)
		}
		s += "}"
	case kind == 3:
		s += "[" + g.space()
		n := g.Intn(4)
		for i := range n {
			if i > 0 {
				s += ","
			}
			s += g.value(depth - 1)
		}
		s += "]"
	case kind == 4:
		s += []string{"null", "true", "false", "0", "-1.5e+10", "12345678901234567890", `""`, "{}", "[]"}[g.Intn(9)]
	case kind == 5:
		if depth > 0 || g.Intn(3) == 0 {
			b, _ := json.Marshal(g.value(max(0, depth-1)) + "\n")
			s += string(b)
			break
		}
		fallthrough
	case kind == 6:
		s += `"` + []string{"czNjcjN0", "postgres://u:s3cr3tpassw0rd@db/x", "DB_PASSWORD", "LOG", "prod", "a\\\"b\\\\\\u0041\\ud83d\\ude00", "\u2028é"}[g.Intn(7)] + `"`
	default:
		s += `"` + g.pick() + `"`
	}
	return s + g.space()
}

// FuzzKey holds the masker to Go's own decoder: whatever key that takes for the field, ours masks.
func FuzzKey(f *testing.F) {
	for _, k := range []string{"data", "DATA", "Data", "d\\u0061ta", "stringData", "\u017ftringdata", "\\u017fTRINGDATA", "stringdat", "data\u0000", " data", "da\u00adta"} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		in := fmt.Appendf(nil, `{"%s":{"a":"czNjcjN0"}}`, key)
		if !strict(in, false) {
			return
		}
		var o struct {
			Data       map[string]string `json:"data"`
			StringData map[string]string `json:"stringData"`
		}
		taken := json.Unmarshal(in, &o) == nil && (len(o.Data) > 0 || len(o.StringData) > 0)
		rules, err := mask.Compile(mask.Config{}, requests[0])
		if err != nil {
			t.Fatal(err)
		}
		out, err := rules.Bytes(in, session)
		if err != nil {
			if strings.Contains(err.Error(), "too") {
				return
			}
			t.Fatal(err)
		}
		if shown := bytes.Contains(out, []byte("czNjcjN0")) && !strings.Contains(key, "czNjcjN0"); shown == taken {
			t.Fatalf("%q: Go takes it for a Secret's field: %v; it is shown: %v", in, taken, shown)
		}
	})
}
