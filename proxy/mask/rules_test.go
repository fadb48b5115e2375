package mask_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/masktest"
)

func masking(t *testing.T, c mask.Config, r mask.Request, in string) string {
	t.Helper()
	rules, err := mask.Compile(c, r)
	if err != nil {
		t.Fatal(err)
	}
	out, err := rules.Bytes([]byte(in), session)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	return string(out)
}

func TestWords(t *testing.T) {
	form := regexp.MustCompile(`^\[masked:[a-z2-7]{12}\]$`)
	seen := map[string]string{}
	for _, key := range [][]byte{session, bytes.Repeat([]byte{8}, 32)} {
		for _, ns := range []string{"", "prod", "pro"} {
			for _, n := range []int{0, 1, 255, 256, 257, 1000, 16 << 10, 16<<10 + 1, 40 << 10, 1 << 20} {
				v := bytes.Repeat([]byte("x"), n)
				word := mask.Plain(key, ns, v)
				if !form.MatchString(word) || mask.Plain(key, ns, v) != word {
					t.Fatalf("%d: %q", n, word)
				}
				written := base64.StdEncoding.EncodeToString(v)
				want := word
				if n > 256 { // it is not decoded
					want = mask.Plain(key, ns, []byte(written))
				}
				if b, err := base64.StdEncoding.DecodeString(mask.Encoded(key, ns, []byte(written))); err != nil || string(b) != want {
					t.Fatalf("%d: %q, %v", n, b, err)
				}
				id := fmt.Sprintf("%x/%s/%d", key[:1], ns, n)
				if other, ok := seen[word]; ok {
					t.Fatalf("%s and %s have the mask %s", id, other, word)
				}
				seen[word] = id
				if n > 0 { // the last byte counts as well
					v[n-1] = 'y'
					if mask.Plain(key, ns, v) == word {
						t.Fatalf("%s: another value has the same mask", id)
					}
				}
			}
		}
	}
	if mask.Plain(nil, "prod", []byte("x")) != mask.Constant {
		t.Fatal("a mask without a key is not the constant one")
	}
	if b, err := base64.StdEncoding.DecodeString(mask.Encoded(nil, "prod", nil)); err != nil || string(b) != mask.Constant {
		t.Fatalf("%q, %v", b, err)
	}
}

// One value looks the same wherever a Secret has it: in data, however its base64 is broken into lines, and in what was applied,
// as data or as stringData. Another value, and the same one in another namespace, looks otherwise.
func TestEqualValuesLookEqual(t *testing.T) {
	long := strings.Repeat("a line of a certificate\n", 40)
	written := func(v string) string { return base64.StdEncoding.EncodeToString([]byte(v)) }
	lines := func(v string) string { return written(v)[:8] + "\r\n" + written(v)[8:] + "\n" }
	secret := func(ns, value, apply string) string {
		applied, _ := json.Marshal(fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db","namespace":%q},%s}`, ns, apply))
		return fmt.Sprintf(`{"metadata":{"name":"db","namespace":%q,"annotations":{"kubectl.kubernetes.io/last-applied-configuration":%s}},"data":{"a":%q}}`, ns, applied, value)
	}
	type masks struct {
		Metadata struct{ Annotations map[string]string }
		Data     map[string]string
	}
	read := func(ns, body string) (data, applied []string) {
		t.Helper()
		for _, r := range []mask.Request{{Resource: "secrets", Verb: "list"}, {Resource: "secrets", Verb: "list", Namespace: ns}} {
			var list struct{ Items []masks }
			in := `{"kind":"SecretList","items":[` + body + `]}`
			rules, err := mask.Compile(config, r)
			if err != nil {
				t.Fatal(err)
			}
			out, err := io.ReadAll(rules.Reader(iotest.OneByteReader(strings.NewReader(in)), session)) // every value comes in parts
			if err != nil || masking(t, config, r, in) != string(out) {
				t.Fatalf("%s, %v", out, err)
			}
			if err := json.Unmarshal(out, &list); err != nil || len(list.Items) != 1 {
				t.Fatalf("%s: %v", out, err)
			}
			var inner struct{ Data, StringData map[string]string }
			if err := json.Unmarshal([]byte(list.Items[0].Metadata.Annotations["kubectl.kubernetes.io/last-applied-configuration"]), &inner); err != nil {
				t.Fatal(err)
			}
			for _, m := range []map[string]string{list.Items[0].Data, inner.Data} {
				if v, ok := m["a"]; ok {
					b, err := base64.StdEncoding.DecodeString(v)
					if err != nil {
						t.Fatal(err)
					}
					m["a"] = string(b)
				}
			}
			data, applied = append(data, list.Items[0].Data["a"]), append(applied, inner.Data["a"]+inner.StringData["a"])
		}
		return data, applied
	}
	for _, test := range []struct {
		name, value, apply string
		equal              bool
	}{
		{"data", written("hunter2"), `"data":{"a":"` + written("hunter2") + `"}`, true},
		{"data in lines", written("hunter2 hunter2"), fmt.Sprintf(`"data":{"a":%q}`, lines("hunter2 hunter2")), true},
		{"stringData", written("hunter2"), `"stringData":{"a":"hunter2"}`, true},
		{"stringData of 256 bytes", written(long[:256]), fmt.Sprintf(`"stringData":{"a":%q}`, long[:256]), true},
		{"nothing", "", `"stringData":{"a":""}`, true},
		{"long data", written(long), `"data":{"a":"` + written(long) + `"}`, true},
		{"long stringData, which is not compared", written(long), fmt.Sprintf(`"stringData":{"a":%q}`, long), false},
		{"another value", written("hunter2"), `"stringData":{"a":"hunter3"}`, false},
		{"the base64 of it", written("hunter2"), `"stringData":{"a":"` + written("hunter2") + `"}`, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			data, applied := read("prod", secret("prod", test.value, test.apply))
			for i := range data {
				if !strings.HasPrefix(data[i], "[masked:") || (data[i] == applied[i]) != test.equal || data[i] != data[0] {
					t.Errorf("data has %q, what was applied %q", data, applied)
				}
			}
			if other, _ := read("stage", secret("stage", test.value, test.apply)); other[0] == data[0] || other[1] == data[1] {
				t.Errorf("in another namespace it looks the same: %q", other)
			}
		})
	}
}

// Threat S13: who may write a ConfigMap, a variable or a release in a ConfigMap cannot try guesses of what a Secret holds.
func TestGuesses(t *testing.T) {
	masks := regexp.MustCompile(`\[masked:[a-z2-7]{12}\]|W21hc2tlZD[A-Za-z0-9+/]{18}`)
	found := func(req mask.Request, in string) map[string]bool {
		req.Namespace = "prod"
		all := map[string]bool{}
		for _, m := range masks.FindAllString(masking(t, config, req, in), -1) {
			all[m] = true
		}
		return all
	}
	long := strings.Repeat("s3cr3t", 100)
	object := func(keys string) string {
		return strings.NewReplacer("LONG", long, "ENCODED", base64.StdEncoding.EncodeToString([]byte(long))).Replace(`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"a-password\":\"czNjcjN0\",\"b-password\":\"ENCODED\"},\"stringData\":{\"c-password\":\"s3cr3t\",\"d-password\":\"LONG\"}}"}},` + keys + `}`)
	}
	secrets := found(mask.Request{Resource: "secrets", Verb: "get"}, object(`"data":{"a-password":"czNjcjN0","b-password":"ENCODED"},"stringData":{"c-password":"s3cr3t","d-password":"LONG"}`))
	if len(secrets) != 4 { // the annotation's are the same
		t.Fatalf("a Secret has the masks %v", secrets)
	}
	for _, guess := range []map[string]bool{
		found(mask.Request{Resource: "configmaps", Verb: "create"}, object(`"data":{"a-password":"s3cr3t","b-password":"LONG","c-password":"czNjcjN0"},"binaryData":{"a-password":"czNjcjN0","b-password":"ENCODED"}`)),
		found(mask.Request{Group: "apps", Resource: "deployments", Verb: "patch"}, object(`"env":[{"name":"PASSWORD","value":"s3cr3t"},{"name":"PASSWORD","value":"LONG"},{"name":"PASSWORD","value":"czNjcjN0"}]`)),
		found(mask.Request{Group: "secrets.example.com", Resource: "secrets", Verb: "create"}, object(`"env":[{"name":"PASSWORD","value":"s3cr3t"}]`)),
	} {
		if len(guess) < 1 {
			t.Error("a guess is not masked")
		}
		for m := range guess {
			if secrets[m] {
				t.Errorf("a guess has the mask %s of what is in a Secret", m)
			}
		}
	}
}

// Strings of every length around the sizes of the buffers, of every kind, come out right however they came in.
func TestLong(t *testing.T) {
	names := regexp.MustCompile(`password$`)
	c := mask.Config{Names: names, Detect: config.Detect}
	pem := "-----BEGIN RSA PRIVATE KEY-----\n" + strings.Repeat("c3VwZXJzZWNyZXRzdXBlcnNlY3JldHN1cGVyc2VjcmV0c3VwZXJzZWNyZXQ\n", 20) + "-----END RSA PRIVATE KEY-----\n"
	for _, n := range []int{100, 16 << 10, 32<<10 - 3, 32<<10 - 2, 32<<10 - 1, 32 << 10, 32<<10 + 1, 64 << 10, 64<<10 + 5, 200 << 10} {
		filler := strings.Repeat("lorem \"ipsum\" dolor\n", n/20) + strings.Repeat("é", n%20)
		raw, _ := json.Marshal(filler)
		applied, _ := json.Marshal(map[string]any{"data": map[string]string{"db-password": filler, "b": filler}})
		in, err := json.Marshal(map[string]any{
			"metadata": map[string]any{"name": filler, "annotations": map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(applied)}},
			"data":     map[string]string{"a": filler, "db-password": filler, "c": filler + pem + filler, "d": filler + "postgres://u:s3cr3tpassw0rd@db/x", "release": filler},
			"env":      []any{map[string]string{"name": filler, "value": "s3cr3t"}},
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, req := range []mask.Request{{Resource: "configmaps", Verb: "get", Namespace: "prod"}, {Resource: "secrets", Verb: "get", Namespace: "prod"}} {
			rules, err := mask.Compile(c, req)
			if err != nil {
				t.Fatal(err)
			}
			whole, err := rules.Bytes(in, session)
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1000, 4097, 32 << 10, 1 << 20} {
				got, err := io.ReadAll(rules.Reader(pieces(string(in), size), session))
				if err != nil || !bytes.Equal(got, whole) {
					t.Fatalf("%d in pieces of %d: %v; %d bytes, whole %d", n, size, err, len(got), len(whole))
				}
			}
			var o struct {
				Metadata struct {
					Name        string
					Annotations map[string]string
				}
				Data map[string]string
				Env  []struct{ Name, Value string }
			}
			if err := json.Unmarshal(whole, &o); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"a": filler, "db-password": mask.Plain(session, of(req, "prod"), []byte(filler)), "c": filler + "[masked]" + filler, "d": filler + "postgres://u:[masked]@db/x", "release": filler}
			if req.Resource == "secrets" {
				for k, v := range map[string]string{"a": filler, "db-password": filler, "c": filler + pem + filler, "d": filler + "postgres://u:s3cr3tpassw0rd@db/x", "release": filler} {
					want[k] = mask.Encoded(session, "prod", []byte(v))
				}
			}
			for k, v := range want {
				got := o.Data[k]
				if k == "c" && req.Resource != "secrets" {
					got = strings.Replace(got, "[masked]\n", "[masked]", 1)
				}
				if got != v {
					t.Fatalf("%s, %d: %s is %d bytes, want %d: %.100q …", req.Resource, n, k, len(got), len(v), got)
				}
			}
			if o.Metadata.Name != filler || strings.Contains(string(whole), `"s3cr3t"`) != (len(raw) <= 32<<10) {
				t.Fatalf("%d: a long name is not what it was, or a variable with it is shown", n)
			}
			if a := o.Metadata.Annotations["kubectl.kubernetes.io/last-applied-configuration"]; !strings.Contains(a, want["db-password"]) {
				t.Fatalf("%d: %.300q", n, a)
			}
		}
	}
}

// What is too long to be looked into is masked whole.
func TestTooLong(t *testing.T) {
	long := strings.Repeat(" ", 3<<20)
	for _, in := range []string{
		fmt.Sprintf(`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{%s\"a\":1}"}}}`, long),
		fmt.Sprintf(`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{%s}}"}}}`, strings.Repeat(`\"\":\"\",`, 130000)+`\"\":\"\"`),
		fmt.Sprintf(`{"data":{"release":"%s"}}`, long),
	} {
		for _, r := range []string{"secrets", "configmaps"} {
			out := masking(t, config, mask.Request{Resource: r, Verb: "get", Namespace: "prod"}, in)
			if len(out) > 200 && (r == "secrets" || strings.Contains(in, "release") || strings.Contains(in, long)) || !json.Valid([]byte(out)) {
				t.Fatalf("%.100q became %.200q, %d bytes", in, out, len(out))
			}
		}
	}
}

// Masks are longer than most values; what there is no room for yet comes later, and all of it does.
func TestGrows(t *testing.T) {
	for _, in := range []string{
		`{"data":{` + strings.Repeat(`"":"",`, 50000) + `"":""}}`,
		`{"data":{` + strings.Repeat(`"":0,`, 13000) + `"":[]}}` + strings.Repeat(" ", 9),
	} {
		rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"})
		if err != nil {
			t.Fatal(err)
		}
		whole, err := rules.Bytes([]byte(in), session)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rules.Reader(strings.NewReader(in), session))
		if err != nil || !bytes.Equal(got, whole) {
			t.Fatalf("%d bytes, not %d: %v", len(got), len(whole), err)
		}
	}
}

// Objects in strings in objects in strings are looked into so deep, and deeper they are masked whole.
func TestNested(t *testing.T) {
	in := `{"data":{"a":"czNjcjN0"},"kind":"kept"}`
	for level := range 5 {
		out := masking(t, config, mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"}, in)
		if strings.Contains(out, "czNjcjN0") || strings.Contains(out, "kept") != (level <= 2) {
			t.Errorf("%d: %s", level, out)
		}
		b, _ := json.Marshal(in)
		in = `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":` + string(b) + `}}}`
	}
}

// Which name is the variable's is not for the masker to guess, once the value went out under the first.
func TestNamedTwice(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Group: "apps", Resource: "deployments", Verb: "get", Namespace: "prod"})
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []string{"name", "Name", `\u004eame`} {
		in := `{"env":[{"name":"LOG","value":"s3cr3t","` + again + `":"PASSWORD"}]}`
		if out, err := rules.Bytes([]byte(in), session); !errors.Is(err, mask.ErrSyntax) {
			t.Errorf("%s became %s, %v", in, out, err)
		}
		in = `{"env":[{"name":"LOG","` + again + `":"PASSWORD","value":"s3cr3t"}]}`
		if out, err := rules.Bytes([]byte(in), session); err != nil || strings.Contains(string(out), "s3cr3t") {
			t.Errorf("%s became %s, %v", in, out, err)
		}
	}
}

func TestReveal(t *testing.T) {
	req := mask.Request{Resource: "secrets", Verb: "reveal", Namespace: "prod", Name: "db", Reveal: "password"}
	object := `{"data":{"password":"czNjcjN0","token":"dDBrM24"},"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"password\":\"YXBwbDFk\"}}"}}}`
	out := masking(t, config, req, object)
	if !strings.Contains(out, `"czNjcjN0"`) || strings.Contains(out, "dDBrM24") || strings.Contains(out, "YXBwbDFk") {
		t.Error(out)
	}
	hidden := func(name string, req mask.Request, in string) {
		t.Helper()
		if out := masking(t, config, req, in); strings.Contains(out, "czNjcjN0") {
			t.Errorf("%s: %s", name, out)
		}
	}
	hidden("in a list", req, `{"items":[`+object+`]}`)
	hidden("in an event", req, `{"object":`+object+`}`)
	hidden("in a table", req, `{"rows":[{"object":`+object+`}]}`)
	hidden("another case", req, `{"data":{"Password":"czNjcjN0"},"Data":{"password":"czNjcjN0"}}`)
	hidden("deeper", req, `{"data":{"data":{"password":"czNjcjN0"}},"stringData":{"password":"czNjcjN0"}}`)
	for _, key := range []string{"*", "[]", "**", "*?", "[1:]", "", "a/b", strings.Repeat("x", 300)} {
		r := req
		r.Reveal = key
		hidden("key "+key, r, object)
	}
	for name, change := range map[string]func(*mask.Request){
		"list": func(r *mask.Request) { r.Verb = "list" }, "watch": func(r *mask.Request) { r.Verb = "watch" }, "update": func(r *mask.Request) { r.Verb = "update" },
		"no name": func(r *mask.Request) { r.Name = "" }, "a subresource": func(r *mask.Request) { r.Subresource = "status" },
		"a ConfigMap": func(r *mask.Request) { r.Resource = "configmaps" },
	} {
		r := req
		change(&r)
		hidden(name, r, object)
	}
	// The next request of the same policy is masked again.
	m, err := mask.New(config)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []mask.Request{req, {Resource: "secrets", Verb: "get", Namespace: "prod", Name: "db"}} {
		out, err := m.Rules(r).Bytes([]byte(object), session)
		if err != nil || bytes.Contains(out, []byte("czNjcjN0")) != (i == 0) {
			t.Fatalf("%s, %v", out, err)
		}
	}
}

func TestPolicy(t *testing.T) {
	widgets := mask.Path{APIGroups: []string{"example.com"}, Resources: []string{"widgets"}}
	path := func(p mask.Path, steps ...string) mask.Path { p.Steps = steps; return p }
	c := mask.Config{
		Names: secretly, Detect: config.Detect,
		Paths: []mask.Path{
			path(widgets, "spec", "users", "[]", "pw"), path(widgets, "spec", "*", "deep"), path(widgets, "spec", "clé"), path(widgets, "metadata", "annotations", "example.com/key"),
			path(mask.Path{APIGroups: []string{"*"}, Resources: []string{"*"}}, "spec", "everywhere"),
			path(mask.Path{APIGroups: []string{""}, Resources: []string{"secrets"}}, "data", "policy"),
			path(mask.Path{APIGroups: []string{"apps"}, Resources: []string{"deployments/scale"}}, "spec", "replicas"),
		},
		Exempt: []mask.Path{
			path(mask.Path{APIGroups: []string{""}, Resources: []string{"secrets"}}, "data", "ca.crt"),
			path(mask.Path{APIGroups: []string{""}, Resources: []string{"configmaps"}}, "data", "no-secret"),
			path(widgets, "spec", "shown"),
		},
	}
	for _, tt := range []struct {
		name string
		req  mask.Request
		in   string
		gone []string
		kept []string
	}{
		{"paths", mask.Request{Group: "example.com", Resource: "widgets", Verb: "get"},
			`{"metadata":{"annotations":{"example.com/key":"gone1","example.com/other":"kept1"}},"spec":{"users":[{"pw":"gone2","name":"kept2"},{"PW":"gone3"}],"x":{"deep":"gone4","env":[{"name":"A","value":"kept3"},{"name":"A_TOKEN","value":"gone5"}]},"everywhere":{"a":["gone6"]},"users2":{"pw":"kept4"},"CLÉ":"gone7","clé":"gone8"}}`,
			[]string{"gone"}, []string{"kept1", "kept2", "kept3", "kept4"}},
		{"in lists", mask.Request{Group: "example.com", Resource: "widgets", Verb: "list"}, `{"items":[{"spec":{"users":[{"pw":"gone"}]}}]}`, []string{"gone"}, nil},
		{"the status", mask.Request{Group: "example.com", Resource: "widgets", Subresource: "status", Verb: "get"}, `{"spec":{"users":[{"pw":"gone"}]}}`, []string{"gone"}, nil},
		{"applied", mask.Request{Group: "example.com", Resource: "widgets", Verb: "get"}, `{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"spec\":{\"users\":[{\"pw\":\"gone\",\"n\":\"kept\"}]}}"}}}`, []string{"gone"}, []string{"kept"}},
		{"columns", mask.Request{Group: "example.com", Resource: "widgets", Verb: "list"}, `{"columnDefinitions":[{"name":"kept1"}],"rows":[{"cells":["kept2","gone",7777,null]}]}`, []string{"gone", "7777"}, []string{"kept1", "kept2", "null"}},
		{"known columns", mask.Request{Group: "apps", Resource: "deployments", Verb: "list"}, `{"rows":[{"cells":["kept1","kept2"]}]}`, nil, []string{"kept1", "kept2"}},
		{"a subresource", mask.Request{Group: "apps", Resource: "deployments", Subresource: "scale", Verb: "get"}, `{"spec":{"replicas":7777}}`, []string{"7777"}, nil},
		{"not its object", mask.Request{Group: "apps", Resource: "deployments", Verb: "get"}, `{"spec":{"replicas":7777}}`, nil, []string{"7777"}},
		{"another group", mask.Request{Group: "example.org", Resource: "widgets", Verb: "get"}, `{"spec":{"users":[{"pw":"kept"}],"everywhere":"gone"}}`, []string{"gone"}, []string{"kept"}},
		{"exempt", mask.Request{Resource: "secrets", Verb: "get"}, `{"data":{"ca.crt":"kept","CA.crt":"gone1","tls.key":"gone2"},"Data":{"ca.crt":"gone3"}}`, []string{"gone"}, []string{"kept"}},
		{"exempt by name", mask.Request{Resource: "configmaps", Verb: "get"}, `{"data":{"no-secret":"kept","a-secret":"gone"}}`, []string{"gone"}, []string{"kept"}},
		{"exempt with all below", mask.Request{Group: "example.com", Resource: "widgets", Verb: "get"}, `{"spec":{"shown":{"deep":"kept1","env":[{"name":"A_TOKEN","value":"kept2"}],"dsn":"postgres://u:s3cr3tpassw0rd@db/x"}}}`, nil, []string{"kept1", "kept2", "s3cr3tpassw0rd"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			out := masking(t, c, tt.req, tt.in)
			for _, s := range tt.gone {
				if strings.Contains(out, s) {
					t.Errorf("%s is in %s", s, out)
				}
			}
			for _, s := range tt.kept {
				if !strings.Contains(out, s) {
					t.Errorf("%s is not in %s", s, out)
				}
			}
		})
	}
	if out := masking(t, c, mask.Request{Resource: "secrets", Verb: "get", Namespace: "a"}, `{"data":{"policy":"eA=="}}`); !strings.Contains(out, mask.Encoded(session, "a", []byte("eA=="))) {
		t.Errorf("a path of the policy makes a Secret's data something else than base64: %s", out)
	}
	for _, steps := range [][]string{nil, {""}, {"a", ""}} {
		if _, err := mask.New(mask.Config{Paths: []mask.Path{path(widgets, steps...)}}); err == nil {
			t.Errorf("%q is taken for a path", steps)
		}
	}
}

// Without detectors and names nothing else changes.
func TestNothingConfigured(t *testing.T) {
	in := `{"metadata":{"annotations":{"a":"b"}},"env":[{"value":"x","name":"A_TOKEN"}],"data":{"a":"eA==","release":"x"},"s":"postgres://u:s3cr3tpassw0rd@db/x\n"}`
	if out := masking(t, mask.Config{}, mask.Request{Resource: "configmaps", Verb: "get"}, in); out != in {
		t.Error(out)
	}
	if out := masking(t, mask.Config{}, mask.Request{Resource: "secrets", Verb: "get"}, in); !strings.Contains(out, `"data":{"a":"W21h`) || strings.Contains(out, "eA==") {
		t.Error(out)
	}
}

func TestSentences(t *testing.T) {
	req := mask.Request{Version: "v1", Resource: "secrets", Verb: "patch", Namespace: "prod", Name: "db"}
	rules, err := mask.Compile(config, req)
	if err != nil {
		t.Fatal(err)
	}
	if got := rules.Text(`{"data":{"password":"czNjcjN0"}} czNjcjN0`); got != `[masked] [masked]` {
		t.Errorf("an object became %s", got)
	}
	for in, want := range map[string]string{
		`secrets "db" not found`: `secrets "db" not found`,
		`secrets "db" is forbidden: User "arn:aws:x" cannot get resource "secrets" in API group "" in the namespace "prod"`:                          `secrets "db" is forbidden: User "[masked]" cannot get resource "secrets" in API group "" in the namespace "prod"`,
		`Secret "db" is invalid: metadata.labels: Invalid value: "czNjcjN0": a valid label must be an empty string`:                                  `Secret "db" is invalid: metadata.labels: Invalid value: "[masked]": a valid label must be an empty string`,
		`Precondition failed: UID in precondition: czNjcjN0, UID in object meta: 5a1b0b4a-1111-4222-8333-0123456789ab`:                               `Precondition failed: UID in precondition: [masked], UID in object meta: [masked]`,
		`the name of the object (czNjcjN0) does not match the name on the URL (db)`:                                                                  `the name of the object ([masked]) does not match the name on the URL (db)`,
		`Operation cannot be fulfilled on secrets "db": the object has been modified; please apply your changes to the latest version and try again`: `Operation cannot be fulfilled on secrets "db": the object has been modified; please apply your changes to the latest version and try again`,
		`quoted "a\"czNjcjN0\" b" and 'czNjcjN0' and ` + "`czNjcjN0`":                                                                                `quoted "[masked]" and '[masked]' and ` + "`[masked]`",
		`never closed "czNjcjN0 czNjcjN0`:                                                              `never closed "[masked]"`,
		`it doesn't say czNjcjN0`:                                                                      `it doesn't say [masked]`,
		`metadata.uid: Invalid value: czNjcjN0/czNjcjN0==; data[czNjcjN0]`:                             `metadata.uid: Invalid value: [masked]; [masked]]`,
		`strconv.ParseUint: parsing "czNjcjN0": invalid syntax`:                                        `[masked]: parsing "[masked]": invalid syntax`,
		`no kind "czNjcjN0" is registered for version "v1" in scheme "pkg/api/legacyscheme/scheme.go"`: `no kind "[masked]" is registered for version "v1" in scheme "[masked]"`,
		``: ``,
	} {
		if got := rules.Text(in); got != want {
			t.Errorf("%s\nbecame %s\nwant   %s", in, got, want)
		}
		b, _ := json.Marshal(in)
		status := fmt.Sprintf(`{"kind":"Status","metadata":{},"status":"Failure","message":%s,"reason":"Invalid","details":{"name":"db","kind":"secrets","causes":[{"reason":"FieldValueInvalid","message":%s,"field":"metadata.labels"}]},"code":422}`, b, b)
		var got struct {
			Message, Reason string
			Details         struct {
				Name, Kind string
				Causes     []struct{ Reason, Message, Field string }
			}
			Code int
		}
		if err := json.Unmarshal([]byte(masking(t, config, req, status)), &got); err != nil {
			t.Fatal(err)
		}
		if got.Message != want || got.Details.Causes[0].Message != want || got.Details.Causes[0].Field != "metadata.labels" || got.Reason != "Invalid" || got.Code != 422 || got.Details.Name != "db" {
			t.Errorf("%+v", got)
		}
		// The words of another resource's errors are looked through by the detectors.
		other, _ := mask.Compile(config, mask.Request{Resource: "pods", Verb: "get"})
		if got := other.Text(in + " postgres://u:s3cr3tpassw0rd@db/x"); got != in+" postgres://u:[masked]@db/x" {
			t.Errorf("%s became %s", in, got)
		}
	}
}

// Threat S2: what is stored is quoted whole where a patch makes nonsense of it, of whatever kind it is.
func TestQuotedObjects(t *testing.T) {
	for _, req := range []mask.Request{{Resource: "configmaps", Verb: "patch", Namespace: "prod", Name: "a"}, {Group: "apps", Resource: "deployments", Verb: "patch", Namespace: "prod", Name: "a"}} {
		rules, err := mask.Compile(config, req)
		if err != nil {
			t.Fatal(err)
		}
		const what = `: json: cannot unmarshal string into Go struct field ObjectMeta.metadata.labels of type map[string]string`
		for in, want := range map[string]string{
			`patch: Invalid value: "{\"data\":{\"password\":\"s3cr3t\",\"b\":\"a \\\"s3cr3t\\\"\"}}"` + what:                                         `patch: Invalid value: "[masked]"` + what,
			`patch: Invalid value: "[{\"data\":\"s3cr3t\"}]"` + what:                                                                                 `patch: Invalid value: "[masked]"` + what,
			`patch: Invalid value: "map[data:map[password:s3cr3t]]"` + what:                                                                          `patch: Invalid value: "[masked]"` + what,
			`patch: Invalid value: "&{s3cr3t}"` + what:                                                                                               `patch: Invalid value: "[masked]"` + what,
			`a stray " before "{\"data\":\"s3cr3t\"}" and "{\"data\":\"s3cr3t\"}"`:                                                                   `a stray " before "[masked]" and "[masked]"`,
			`spec.template: Invalid value: {"spec":{"env":[{"name":"PASSWORD","value":"a}\"s3cr3t"}]}}: field is immutable`:                          `spec.template: Invalid value: [masked]: field is immutable`,
			`[spec.selector: Invalid value: {"a":"s3cr3t"}: no, spec.template: Invalid value: [{"b":["s3cr3t"]}]: no]`:                               `[spec.selector: Invalid value: [masked]: no, spec.template: Invalid value: [masked]: no]`,
			`Invalid value: core.PodTemplateSpec{Env:[]core.EnvVar{core.EnvVar{Value:"s3cr3t"}}}: field is immutable`:                                `Invalid value: core.PodTemplateSpec[masked]: field is immutable`,
			`.data: expected map, got &{map[a:s3cr3t]}, or map[a:[s3cr3t]]`:                                                                          `.data: expected map, got &[masked], or map[masked]`,
			`Invalid value: {"never":"closed","a":["s3cr3t"`:                                                                                         `Invalid value: [masked]`,
			"Invalid value: {\"a\":\n\"}\ns3cr3t\"}":                                                                                                 `Invalid value: [masked]`,
			"Forbidden: pod updates may not change\n@@ -1,3 +1,3 @@\n {\n-  \"Name\": \"PASSWORD\",\n+  \"Name\": \"x\",\n  \"Value\": \"s3cr3t\"\n": "Forbidden: pod updates may not change\n[masked]",
			`regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?', supported values: "Always", "Never"`:                                      `regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?', supported values: "Always", "Never"`,
			`never closed: "{\"data\":\"s3cr3t\"`:                                                                                                    `never closed: "[masked]`,
			`spec.replicas: Invalid value: "x": must be a number; at most "10"`:                                                                      `spec.replicas: Invalid value: "x": must be a number; at most "10"`,
			`deployments.apps "a" not found`:                                                                                                         `deployments.apps "a" not found`,
		} {
			if got := rules.Text(in); got != want {
				t.Errorf("%s\nbecame %s\nwant   %s", in, got, want)
			}
			b, _ := json.Marshal(in)
			status := fmt.Sprintf(`{"kind":"Status","status":"Failure","message":%[1]s,"details":{"causes":[{"message":%[1]s}]}}`, b)
			event := fmt.Sprintf(`{"type":"ERROR","object":%s}`, status)
			watch := req
			watch.Verb = "watch"
			for _, out := range []string{masking(t, config, req, status), masking(t, config, watch, event)} {
				w, _ := json.Marshal(want)
				if w := strings.ReplaceAll(string(w), `\u0026`, "&"); strings.Contains(out, "s3cr3t") || strings.Count(out, w[1:len(w)-1]) != 2 {
					t.Errorf("%s became %s", in, out)
				}
			}
		}
		long, _ := json.Marshal(`patch: Invalid value: "{\"a\":\"` + strings.Repeat("s3cr3t ", 10<<10) + `\"}"` + what)
		if out := masking(t, config, req, fmt.Sprintf(`{"kind":"Status","message":%s}`, long)); strings.Contains(out, "s3cr3t") {
			t.Errorf("of a long one there is left %.300s", out)
		}
	}
}

func release(t *testing.T, layers int) string {
	t.Helper()
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	fmt.Fprint(w, `{"name":"web","info":{"first_deployed":"2026-01-01T00:00:00Z","last_deployed":"2026-01-01T00:00:00Z","deleted":"","description":"Install complete","status":"deployed"},"chart":{"metadata":{"name":"web","version":"1.0.0"},"templates":[],"values":{}},"config":{"password":"s3cr3t"},"manifest":"","version":1,"namespace":"prod"}`)
	w.Close()
	b := z.Bytes()
	for range layers {
		b = []byte(base64.StdEncoding.EncodeToString(b))
	}
	return string(b)
}

func TestHelm(t *testing.T) {
	for resource, layers := range map[string]int{"secrets": 2, "configmaps": 1} {
		req := mask.Request{Resource: resource, Verb: "get", Namespace: "prod"}
		in := fmt.Sprintf(`{"data":{"release":"%s"},"type":"helm.sh/release.v1"}`, release(t, layers))
		out := masking(t, config, req, in)
		var o struct{ Data struct{ Release string } }
		if err := json.Unmarshal([]byte(out), &o); err != nil {
			t.Fatal(err)
		}
		b := []byte(o.Data.Release)
		for range layers {
			var err error
			if b, err = base64.StdEncoding.DecodeString(string(b)); err != nil {
				t.Fatal(err)
			}
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(z)
		if err != nil || bytes.Contains(text, []byte("s3cr3t")) || !bytes.Contains(text, []byte(`"deployed"`)) || !bytes.Contains(text, []byte(mask.Plain(session, of(req, "prod"), []byte("s3cr3t")))) {
			t.Fatalf("%s: %s, %v", resource, text, err)
		}
		// What is no release, or broken, is a value like any other, or masked whole.
		broken := strings.Replace(in, `"release":"`, `"release":"QUFB`, 1)
		if out := masking(t, config, req, broken); resource == "secrets" && strings.Contains(out, release(t, 2)[:20]) {
			t.Errorf("%s", out)
		}
		cut := fmt.Sprintf(`{"data":{"release":"%s"}}`, release(t, layers)[:200])
		if out := masking(t, config, req, cut); strings.Contains(out, release(t, layers)[:100]) {
			t.Errorf("%s: %s", resource, out)
		}
	}
}

// endless is a list of Secrets without an end, until it has been read so often.
type endless struct {
	item  []byte
	at, n int
}

func (e *endless) Read(p []byte) (int, error) {
	if e.n == 0 {
		return 0, io.EOF
	}
	n := copy(p, e.item[e.at:])
	if e.at += n; e.at == len(e.item) {
		e.at = 0
		e.n--
	}
	return n, nil
}

// Memory does not grow with the body.
func TestMemory(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "list"})
	if err != nil {
		t.Fatal(err)
	}
	object := bytes.TrimSpace([]byte(shapes[0].in))
	spent := func(n int) uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		src := io.MultiReader(strings.NewReader(`{"items":[`), &endless{item: append(bytes.Clone(object), ','), n: n}, bytes.NewReader(object), strings.NewReader(`]}`))
		if _, err := io.Copy(sink{}, only{rules.Reader(src, session)}); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	spent(10)
	n := 650_000 // 500 MB
	if testing.Short() {
		n = 10_000
	}
	if few, many := spent(1), spent(n); many > few+1<<20 {
		t.Fatalf("a small list takes %d bytes, a large one %d", few, many)
	}
}

// What one read of the source gives is given on before the next.
func TestFirstByte(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "list"})
	if err != nil {
		t.Fatal(err)
	}
	src := &counting{r: bytes.NewReader(masktest.SecretList(200).Bytes())}
	r := rules.Reader(src, session)
	if n, err := r.Read(make([]byte, 32<<10)); n == 0 || err != nil || src.n != 1 {
		t.Fatalf("%d bytes after %d reads: %v", n, src.n, err)
	}
}

type counting struct {
	r io.Reader
	n int
}

func (c *counting) Read(p []byte) (int, error) {
	c.n++
	return c.r.Read(p[:min(len(p), 4096)])
}
