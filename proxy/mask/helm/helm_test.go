package helm_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"sallyport/proxy/mask/helm"
)

var secretName = regexp.MustCompile(`(?i)(password|token|secret)$`)

const akid = "AKIAIOSFODNN7EXAMPLE"

func options() helm.Options {
	return helm.Options{
		Plain:   func([]byte) string { return "[plain]" },
		Encoded: func([]byte) string { return base64.StdEncoding.EncodeToString([]byte("[plain]")) },
		Text:    func(s string) string { return strings.ReplaceAll(s, akid, "[masked]") },
		Secret:  secretName.MatchString,
		Paths: func(apiVersion, kind string) [][]string {
			if apiVersion == "acme.io/v1" && kind == "Database" {
				return [][]string{{"spec", "users", "[]", "login"}, {"spec", "extra", "*", "pin"}}
			}
			return nil
		},
	}
}

// pack is how Helm stores a release.
func pack(text string, layers int) []byte {
	var b bytes.Buffer
	w, _ := gzip.NewWriterLevel(&b, gzip.BestCompression)
	_, _ = w.Write([]byte(text))
	w.Close()
	return encode(b.Bytes(), layers)
}

func encode(b []byte, layers int) []byte {
	for range layers {
		b = []byte(base64.StdEncoding.EncodeToString(b))
	}
	return b
}

// unpack is how Helm reads one.
func unpack(t testing.TB, payload []byte, layers int) string {
	t.Helper()
	b := payload
	for range layers {
		var err error
		if b, err = base64.StdEncoding.DecodeString(string(b)); err != nil {
			t.Fatal(err)
		}
	}
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func str(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// masked masks a release and answers its JSON.
func masked(t *testing.T, text string) string {
	t.Helper()
	out, ok, err := helm.Mask(pack(text, 2), helm.SecretLayers, options())
	if err != nil || !ok {
		t.Fatalf("release %v, %v: %s", ok, err, text)
	}
	return unpack(t, out, 2)
}

func TestRelease(t *testing.T) {
	file := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	got := masked(t, `{"name":"web","info":{"first_deployed":"2026-11-24T12:00:00Z","deleted":"","description":"Install complete `+akid+`","status":"deployed",
		"notes":"the password is hunter2-hunter2, the user shopper","resources":{"v1/Secret":[{"data":{"a":"s3cret"}}]},"new":"unknown"},
		"chart":{"metadata":{"name":"shop","version":"1.2.3","deprecated":true,"annotations":{"a":"`+akid+`"}},"lock":null,
		"templates":[{"name":"templates/a.yaml","data":"`+file("x: "+akid)+`","other":"s3cret"}],
		"values":{"a":"s3cret","b":[1,2.5e3,true,null,{"c":""}],"password":"hunter2-hunter2"},"schema":"`+file(akid)+`","files":[{"name":"f","data":"not base64"}],"Values":{"a":"s3cret"}},
		"config":{"user":"shopper","nested":{"pin":12345678,"on":false,"none":null}},"config":{"again":"s3cret"},"Config":{"a":"s3cret","n":7},"MANIFEST":"s3cret",
		"manifest":"","hooks":[{"name":"h","kind":"Job","path":"p","manifest":"","events":["pre-install"],"last_run":{"started_at":"","phase":""},"weight":-5,"delete_policies":["hook-succeeded"],"x":"s3cret"}],
		"version":3,"namespace":"shop","apply_method":"ssa","labels":{"a":"s3cret"}}`)
	want := `{"name":"web","info":{"first_deployed":"2026-11-24T12:00:00Z","deleted":"","description":"Install complete [masked]","status":"deployed",
		"notes":"the password is [masked], the user shopper","resources":{"v1/Secret":[{"data":{"a":"[plain]"}}]},"new":"[plain]"},
		"chart":{"metadata":{"name":"shop","version":"1.2.3","deprecated":true,"annotations":{"a":"[masked]"}},"lock":null,
		"templates":[{"name":"templates/a.yaml","data":"` + file("x: [masked]") + `","other":"[plain]"}],
		"values":{"a":"[plain]","b":["[plain]","[plain]",true,null,{"c":"[plain]"}],"password":"[plain]"},"schema":"` + file("[masked]") + `","files":[{"name":"f","data":"` + file("[plain]") + `"}],"Values":{"a":"[plain]"}},
		"config":{"user":"[plain]","nested":{"pin":"[plain]","on":false,"none":null}},"config":{"again":"[plain]"},"Config":{"a":"[plain]","n":"[plain]"},"MANIFEST":"[plain]",
		"manifest":"","hooks":[{"name":"h","kind":"Job","path":"p","manifest":"","events":["pre-install"],"last_run":{"started_at":"","phase":""},"weight":-5,"delete_policies":["hook-succeeded"],"x":"[plain]"}],
		"version":3,"namespace":"shop","apply_method":"ssa","labels":{"a":"[plain]"}}`
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(want)); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(compact.String(), got); d != "" {
		t.Error(d)
	}
}

func manifest(t *testing.T, text string) string {
	t.Helper()
	var r struct {
		Manifest string
		Hooks    []struct{ Manifest string }
	}
	if err := json.Unmarshal([]byte(masked(t, `{"name":"web","info":{},"manifest":`+str(text)+`,"hooks":[{"manifest":`+str(text)+`}]}`)), &r); err != nil {
		t.Fatal(err)
	}
	if r.Hooks[0].Manifest != r.Manifest {
		t.Errorf("a hook is masked otherwise:\n%s\n%s", r.Hooks[0].Manifest, r.Manifest)
	}
	return r.Manifest
}

// Every way to write a secret into a manifest, and what is left of it.
func TestManifest(t *testing.T) {
	const whole = "# [plain] stands for a document that could not be masked in parts\n"
	for name, test := range map[string]struct{ in, want string }{
		"nothing":         {"", ""},
		"only a comment":  {"# hello\n", ""},
		"secret":          {"kind: Secret\nmetadata: {name: a}\ndata:\n  a: czNjcmV0\nstringData:\n  b: s3cret\n", "kind: Secret\nmetadata: {name: a}\ndata:\n  a: \"W3BsYWluXQ==\"\nstringData:\n  b: \"[plain]\"\n"},
		"one line":        {"{kind: Secret, data: {a: s3cret}}", "{kind: Secret, data: {a: \"W3BsYWluXQ==\"}}\n"},
		"JSON":            {`{"kind": "Secret", "data": {"a": "s3cret"}}`, "{\"kind\": \"Secret\", \"data\": {\"a\": \"W3BsYWluXQ==\"}}\n"},
		"kind last":       {"data: {a: s3cret}\nkind: Secret\n", "data: {a: \"W3BsYWluXQ==\"}\nkind: Secret\n"},
		"folded":          {"Kind: sEcRet\nDATA: {a: s3cret}\nStringData: {a: s3cret}\n", "Kind: sEcRet\nDATA: {a: \"W3BsYWluXQ==\"}\nStringData: {a: \"[plain]\"}\n"},
		"escaped":         {"\"\\x6bind\": \"S\\u0065cret\"\n\"d\\x61ta\": {a: s3cret}\n", "\"kind\": \"Secret\"\n\"data\": {a: \"W3BsYWluXQ==\"}\n"},
		"twice":           {"kind: Secret\nkind: Pod\ndata: {a: s3cret}\ndata: {b: s3cret}\n", "kind: Secret\nkind: Pod\ndata: {a: \"W3BsYWluXQ==\"}\ndata: {b: \"W3BsYWluXQ==\"}\n"},
		"no kind":         {"stringData: {a: s3cret}\n", "stringData: {a: \"[plain]\"}\n"},
		"odd values":      {"kind: Secret\ndata: {a: 7, b: true, c: null, d: [s3cret], e: {s3cret: s3cret}, f: \"\", g: ~}\n", "kind: Secret\ndata: {a: \"W3BsYWluXQ==\", b: \"W3BsYWluXQ==\", c: null, d: \"W3BsYWluXQ==\", e: \"W3BsYWluXQ==\", f: \"W3BsYWluXQ==\", g: ~}\n"},
		"no mapping":      {"kind: Secret\ndata: s3cret\nstringData: [s3cret]\n", "kind: Secret\ndata: \"W3BsYWluXQ==\"\nstringData: \"[plain]\"\n"},
		"comments":        {"# shown\nkind: Secret\ndata: # s3cret\n  # s3cret\n  a: s3cret # s3cret\n  # s3cret\n", "# shown\nkind: Secret\ndata:\n  a: \"W3BsYWluXQ==\"\n"},
		"block":           {"kind: Secret\nstringData:\n  a: |\n    s3cret\n    s3cret\n", "kind: Secret\nstringData:\n  a: \"[plain]\"\n"},
		"list":            {"kind: List\nitems:\n  - kind: Secret\n    data: {a: s3cret}\n", "kind: List\nitems:\n  - kind: Secret\n    data: {a: \"W3BsYWluXQ==\"}\n"},
		"list of secrets": {"kind: SecretList\nitems:\n  - data: {a: s3cret}\n", "kind: SecretList\nitems:\n  - data: {a: \"W3BsYWluXQ==\"}\n"},
		"inside another":  {"kind: Template\nobjects:\n  - {kind: Secret, data: {a: s3cret}}\n", "kind: Template\nobjects:\n  - {kind: Secret, data: {a: \"W3BsYWluXQ==\"}}\n"},
		"two":             {"---\nkind: Pod\n---\nkind: Secret\ndata: {a: s3cret}\n", "kind: Pod\n---\nkind: Secret\ndata: {a: \"W3BsYWluXQ==\"}\n"},
		"dots":            {"kind: Pod\n...\n---\nkind: Secret\ndata: {a: s3cret}\n", "kind: Pod\n---\nkind: Secret\ndata: {a: \"W3BsYWluXQ==\"}\n"},
		"carriage return": {"kind: Pod\r---\rkind: Secret\rdata: {a: s3cret}\r", "kind: Pod\n---\nkind: Secret\ndata: {a: \"W3BsYWluXQ==\"}\n"},
		"config map":      {"kind: ConfigMap\ndata:\n  HOST: db\n  db_password: s3cret\n  id: " + akid + "\nbinaryData: {token: czNjcmV0}\n", "kind: ConfigMap\ndata:\n  HOST: db\n  db_password: \"[plain]\"\n  id: \"[masked]\"\nbinaryData: {token: \"W3BsYWluXQ==\"}\n"},
		"env":             {"kind: Odd\na: {b: [{env: [{name: TOKEN, value: s3cret}, {value: s3cret, name: TOKEN}, {name: HOST, value: db}, {name: TOKEN, valueFrom: {name: x}}]}]}\n", "kind: Odd\na: {b: [{env: [{name: TOKEN, value: \"[plain]\"}, {value: \"[plain]\", name: TOKEN}, {name: HOST, value: db}, {name: TOKEN, valueFrom: {name: x}}]}]}\n"},
		"env twice":       {"env: [{name: TOKEN, name: HOST, value: s3cret}, {name: HOST, name: TOKEN, value: s3cret}]\n", "env: [{name: TOKEN, name: HOST, value: \"[plain]\"}, {name: HOST, name: TOKEN, value: \"[plain]\"}]\n"},
		"env's comments":  {"env:\n  - name: TOKEN\n    # s3cret\n    value: s3cret # s3cret\n", "env:\n  - name: TOKEN\n    value: \"[plain]\"\n"},
		"map's comments":  {"kind: ConfigMap\ndata:\n  # s3cret\n  token: s3cret # s3cret\n", "kind: ConfigMap\ndata:\n  token: \"[plain]\"\n"},
		"comment after":   {"kind: Secret\ndata: {a: s3cret} # s3cret\n", "kind: Secret\ndata: {a: \"W3BsYWluXQ==\"}\n"},
		"last applied":    {"kind: Pod\nmetadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: '{\"a\": \"s3cret\"}'}}\n", "kind: Pod\nmetadata: {annotations: {kubectl.kubernetes.io/last-applied-configuration: \"[plain]\"}}\n"},
		"paths":           {"apiVersion: acme.io/v1\nkind: Database\nspec: {users: [{login: s3cret, name: a}], extra: {x: {pin: 1234}, y: {PIN: s3cret}}, login: shown}\n", "apiVersion: acme.io/v1\nkind: Database\nspec: {users: [{login: \"[plain]\", name: a}], extra: {x: {pin: \"[plain]\"}, y: {PIN: \"[plain]\"}}, login: shown}\n"},
		"no such path":    {"apiVersion: acme.io/v2\nkind: Database\nspec: {users: [{login: shown}]}\n", "apiVersion: acme.io/v2\nkind: Database\nspec: {users: [{login: shown}]}\n"},
		"detected":        {"# " + akid + "\nkind: Pod\nargs: [--id=" + akid + "] # " + akid + "\ntext: |\n  " + akid + "\n  more\n", "# [masked]\nkind: Pod\nargs: [\"--id=[masked]\"] # [masked]\ntext: |\n  [masked]\n  more\n"},
		"alias":           {"x: &s {a: s3cret}\nkind: Secret\ndata: *s\n", whole},
		"merge":           {"<<: {kind: Secret}\ndata: {a: s3cret}\n", whole},
		"tag":             {"kind: !!binary U2VjcmV0\ndata: {a: s3cret}\n", whole},
		"odd key":         {"? [kind]\n: Secret\ndata: {a: s3cret}\n", whole},
		"broken":          {"kind: Secret\n\tdata: s3cret\n", whole},
		"half":            {"kind: Secret\ndata: {a: s3cret\n", whole},
		"not YAML":        {"\x00s3cret", whole},
		"one of two":      {"kind: Secret\ndata: {a: s3cret\n---\nkind: Pod\n", whole + "---\nkind: Pod\n"},
		"deep":            {strings.Repeat("[", 500) + "s3cret" + strings.Repeat("]", 500), whole},
		"wide":            {"[" + strings.Repeat("1,", 200_000) + "s3cret]", whole},
		"long":            {"a: s3cret" + strings.Repeat("x", 2<<20), whole},
	} {
		t.Run(name, func(t *testing.T) {
			got := manifest(t, test.in)
			if test.want != "" {
				test.want = "---\n" + test.want
			}
			if d := cmp.Diff(test.want, got); d != "" {
				t.Error(d)
			}
			if d := yaml.NewDecoder(strings.NewReader(got)); test.want != "" && !strings.Contains(got, "stands for") {
				for {
					if err := d.Decode(new(yaml.Node)); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						t.Fatalf("what is shown does not parse: %v", err)
					}
				}
			}
		})
	}
}

// What the notes repeat of a Secret is masked, the longest first.
func TestNotes(t *testing.T) {
	got := masked(t, `{"name":"web","info":{"notes":"s3cret-pass s3cret-pass-2 `+akid+` user abc","description":"s3cret-pass!"},
		"manifest":`+str("kind: Secret\nstringData: {a: s3cret-pass, s: abc}\ndata: {b: "+base64.StdEncoding.EncodeToString([]byte("s3cret-pass-2"))+"}")+`}`)
	if !strings.Contains(got, `"notes":"[masked] [masked] [masked] user abc","description":"[masked]!"`) {
		t.Error(got)
	}
}

// Without options everything that is masked has the constant mask, in base64 where it must be.
func TestNoOptions(t *testing.T) {
	out, ok, err := helm.Mask(pack(`{"name":"web","info":{"notes":"n"},"config":{"a":"b"},"manifest":"kind: Secret\ndata: {a: Yg==}\nstringData: {a: b}"}`, 1), helm.ConfigMapLayers, helm.Options{})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	want := `{"name":"web","info":{"notes":"n"},"config":{"a":"[masked]"},"manifest":` + str("---\nkind: Secret\ndata: {a: \"W21hc2tlZF0=\"}\nstringData: {a: \"[masked]\"}\n") + `}`
	if d := cmp.Diff(want, unpack(t, out, 1)); d != "" {
		t.Error(d)
	}
}

// The mask is given the value itself, so that equal values have equal masks in a release and out of it.
func TestMasksAreOfTheValue(t *testing.T) {
	opt := helm.Options{Plain: func(v []byte) string { return "<" + string(v) + ">" }}
	out, _, err := helm.Mask(pack(`{"name":"web","info":{},"config":{"a":"value","n":1.50},"manifest":"kind: Secret\ndata: {a: dmFsdWU=}\nstringData: {a: value}"}`, 1), 1, opt)
	if err != nil {
		t.Fatal(err)
	}
	got := unpack(t, out, 1)
	for _, want := range []string{str("<value>"), str("<1.50>"), base64.StdEncoding.EncodeToString([]byte("<value>"))} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}

// Not every value is a release, and some must not be shown.
func TestNotARelease(t *testing.T) {
	release := `{"name":"web","info":{"status":"deployed"}}`
	bomb := pack(`{"name":"web","info":{},"config":{"a":"`+strings.Repeat("a", 17<<20)+`"}}`, 2)
	masks := pack(`{"name":"web","info":{},"config":{"a":[1`+strings.Repeat(",1", 25<<10)+`]}}`, 2)
	opt := options()
	opt.Plain = func([]byte) string { return strings.Repeat("m", 1<<10) }
	for name, test := range map[string]struct {
		payload []byte
		layers  int
		release bool
		bad     bool
	}{
		"a release":             {pack(release, 2), 2, true, false},
		"of a ConfigMap":        {pack(release, 1), 1, true, false},
		"as Helm once did":      {encode([]byte(release), 2), 2, true, false},
		"wrapped lines":         {[]byte(wrap(string(pack(release, 1)))), 1, true, false},
		"nothing":               {nil, 2, false, false},
		"a password":            {encode([]byte("hunter2"), 1), 2, false, false},
		"one layer less":        {pack(release, 1), 2, false, false},
		"text":                  {[]byte("hello"), 1, false, false},
		"other JSON":            {encode([]byte(`{"a":1}`), 1), 1, false, false},
		"other JSON, squeezed":  {pack(`{"a":1}`, 1), 1, true, true},
		"JSON of another shape": {pack(`{"name":1,"info":{}}`, 1), 1, true, true},
		"other, squeezed":       {pack("hello", 1), 1, true, true},
		"broken":                {append(pack(release, 0)[:20:20], 0), 0, true, true},
		"cut":                   {encode(pack(release, 0)[:30], 2), 2, true, true},
		"more follows":          {pack(release+`{}`, 2), 2, true, true},
		"deep":                  {pack(`{"name":"web","info":{},"config":{"a":`+strings.Repeat("[", 300)+strings.Repeat("]", 300)+`}}`, 2), 2, true, true},
		"inflates to too much":  {bomb, 2, true, true},
		"too short, as it says": {encode(append(pack(release, 0), pack(" ", 0)...), 2), 2, true, true},
		"masks to too much":     {masks, 2, true, true},
		"too long":              {encode(make([]byte, 1<<20), 2), 2, true, true},
	} {
		out, ok, err := helm.Mask(test.payload, test.layers, opt)
		if ok != test.release || (err != nil) != test.bad || (out != nil) != (ok && err == nil) {
			t.Errorf("%s: release %v, %d bytes, %v", name, ok, len(out), err)
		}
		if errors.Is(err, helm.ErrBounds) != strings.Contains(name, "too ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// wrap breaks base64 as the base64 command does; Go's decoder, which Helm and the API server use, reads it.
func wrap(s string) string {
	var out strings.Builder
	for len(s) > 20 {
		out.WriteString(s[:20] + "\r\n")
		s = s[20:]
	}
	return out.String() + s
}

// A release as the real Helm stored it; cli_test.go makes it.
func stored(t testing.TB) []byte {
	b, err := os.ReadFile("testdata/release.txt")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSpace(b)
}

func TestStoredByHelm(t *testing.T) {
	out, ok, err := helm.Mask(stored(t), helm.SecretLayers, options())
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	before, after := unpack(t, stored(t), 2), unpack(t, out, 2)
	var r struct {
		Chart struct {
			Templates, Files []struct {
				Name string
				Data []byte
			}
		}
	}
	if err := json.Unmarshal([]byte(after), &r); err != nil {
		t.Fatal(err)
	}
	for _, f := range append(r.Chart.Templates, r.Chart.Files...) {
		// A chart's templates are whoever's wrote it, and only detectors look at them.
		after += strings.ReplaceAll(string(f.Data), canary+"-comment", "")
	}
	encoded := base64.StdEncoding.EncodeToString([]byte(canary))[:16]
	if n := strings.Count(before, canary) + strings.Count(before, encoded); n < 8 {
		t.Fatalf("only %d secrets were planted", n)
	}
	if strings.Contains(after, canary) || strings.Contains(after, encoded) || strings.Contains(after, akid) {
		t.Error(after)
	}
}

// Whatever is stored: no panic, and what is answered is a release that Helm reads, without the secrets that were put where
// secrets are.
func FuzzMask(f *testing.F) {
	f.Add([]byte("{}"), "kind: Secret\ndata: {a: @}\n", "notes @")
	f.Add([]byte(`{"name":"web","info":{"notes":"x"},"manifest":"kind: Secret\ndata: {a: b}"}`), "kind: SecretList\nitems: [{data: {a: @}}]", "")
	f.Add([]byte("\x1f\x8b\x08"), "stringData: &a [@]\nb: *a\n---\n{kind: ConfigMap, data: {token: @}}", "@@")
	f.Add([]byte(`{"name":"a","chart":{"values":{"a":[1]},"files":[{"data":"QQ=="}]}}`), "# c\nenv: [{value: \"@\", name: TOKEN}] # d\n", "\xff")
	f.Add([]byte("null"), "? {kind: @}\n: |\n  a\n...\n%YAML 1.1\n---\n!!str b", "a")
	f.Fuzz(func(t *testing.T, raw []byte, doc, notes string) {
		for layers := range 3 {
			for _, payload := range [][]byte{raw, encode(raw, layers), pack(string(raw), layers)} {
				out, ok, err := helm.Mask(payload, layers, options())
				if (out != nil) != (ok && err == nil) {
					t.Fatalf("release %v, %v, %d bytes", ok, err, len(out))
				}
				if out != nil && !json.Valid([]byte(unpack(t, out, layers))) {
					t.Fatal("what is shown is no JSON")
				}
			}
		}
		// Secrets where they are known to be, among whatever else.
		doc = strings.ReplaceAll(doc, canary, "")
		text := fmt.Sprintf(`{"name":"web","info":{"notes":%s},"config":{%s:%s},"chart":{"values":[%s]},"manifest":%s}`, str(strings.ReplaceAll(notes, canary, "")+canary), str(doc), str(canary), str(notes+canary),
			str("kind: Secret\nstringData:\n  a: "+canary+"\n---\n"+doc))
		out, ok, err := helm.Mask(pack(text, 2), 2, options())
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		got := unpack(t, out, 2)
		var r struct {
			Name     string
			Manifest string
		}
		if err := json.Unmarshal([]byte(got), &r); err != nil || r.Name != "web" {
			t.Fatalf("%v: %s", err, got)
		}
		if strings.Contains(got, canary) {
			t.Fatal(got)
		}
		for d := yaml.NewDecoder(strings.NewReader(r.Manifest)); ; {
			if err := d.Decode(new(yaml.Node)); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("what is shown does not parse: %v\n%s", err, r.Manifest)
			}
		}
	})
}

func BenchmarkMask(b *testing.B) {
	small := stored(b)
	var docs strings.Builder
	for i := range 200 {
		fmt.Fprintf(&docs, "---\n# Source: shop/templates/%d.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c%d\n  labels: {app: shop, part: p%d}\ndata:\n  a: |\n%s", i, i, i, strings.Repeat("    some text that a file holds\n", 30))
	}
	large := pack(`{"name":"web","info":{"status":"deployed"},"manifest":`+str(docs.String())+`}`, 2)
	for name, payload := range map[string][]byte{"small": small, "large": large} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(unpack(b, payload, 2))))
			b.ReportAllocs()
			for b.Loop() {
				if _, ok, err := helm.Mask(payload, 2, options()); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
