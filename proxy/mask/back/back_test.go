package back_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/back"
	"sallyport/proxy/mask/helm"
	"sallyport/shared/access"
	"sallyport/shared/action"
)

var key = bytes.Repeat([]byte{7}, 32)

var keyed = mask.Plain(key, "shop", []byte("hunter2"))

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

func squeezed(s string) string {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write([]byte(s))
	w.Close()
	return b.String()
}

func str(s string) string {
	b, _ := json.Marshal(s)
	return string(b)
}

// The spelling is package mask's.
func TestEverySpellingOfPackageMask(t *testing.T) {
	for i := range 500 {
		for _, s := range []string{
			mask.Plain(key, "shop", fmt.Append(nil, i)), mask.Encoded(key, "shop", fmt.Append(nil, i)),
			mask.Plain(nil, "", nil), mask.Encoded(nil, "", nil), mask.Constant,
		} {
			if access.KindOf(back.Check(s)) != access.Unprocessable {
				t.Fatalf("%s is taken for no mask", s)
			}
		}
	}
}

// wrappers are what clients put around a value, one by one; any of them may be inside any other.
var wrappers = map[string]func(string) string{
	"in text":           func(s string) string { return "postgres://app:" + s + "@db/app" },
	"base64":            b64,
	"base64 after 1":    func(s string) string { return b64("a" + s + "z") },
	"base64 after 2":    func(s string) string { return b64("ab" + s + "yz") },
	"base64 after 1000": func(s string) string { return b64(strings.Repeat("\xff", 1000) + s + strings.Repeat("\x00", 1000)) },
	"base64 of URLs": func(s string) string {
		return base64.RawURLEncoding.EncodeToString([]byte("\xfb\xff" + s + "\xfb\xff"))
	},
	"base64 in text":   func(s string) string { return `{"auths":{"r":{"auth":"` + b64("user:"+s) + `"}}}` },
	"lines of base64":  func(s string) string { return "cert: |\n  " + lines(b64(s), "\n  ") },
	"lines of DOS":     func(s string) string { return lines(b64(s), "\r\n") },
	"escaped lines":    func(s string) string { return lines(b64(s), `\n`) },
	"gzip":             func(s string) string { return b64(squeezed(s)) },
	"JSON in a string": func(s string) string { return `{"data":{"password":` + str(s) + `}}` },
	"escapes":          func(s string) string { return hex(s, `\u%04x`) },
	"capital escapes":  func(s string) string { return hex(s, `\u%04X`) },
	"YAML's escapes":   func(s string) string { return hex(s, `\x%02x`) },
	"a URL's":          func(s string) string { return hex(s, `%%%02X`) },
}

func lines(s, sep string) string {
	var out []string
	for len(s) > 64 {
		out, s = append(out, s[:64]), s[64:]
	}
	return strings.Join(append(out, s), sep)
}

func hex(s, format string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 {
			fmt.Fprintf(&b, format, s[i])
		} else {
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

func TestWrappedMasks(t *testing.T) {
	for name, wrap := range wrappers {
		for _, m := range []string{keyed, mask.Constant} {
			if back.Check(wrap(m)) == nil {
				t.Errorf("%s: %s is not found in %q", name, m, wrap(m))
			}
			if strings.HasPrefix(name, "gzip") {
				continue // what gzip makes of other things is as good as random
			}
			for _, other := range []string{"masked:abcdefghijkl", "[masked:abcdefghijk]", "[masked:abcdefghijk1]", "[masked:ABCDEFGHIJKL]", "[masked", "(masked)", "[mask]", "[masked:abcdefghijkl"} {
				if err := back.Check(wrap(other)); err != nil {
					t.Errorf("%s: %s is taken for a mask in %q", name, other, wrap(other))
				}
			}
		}
		for outer, around := range wrappers {
			if s := around(wrap(keyed)); back.Check(s) == nil {
				t.Errorf("%s in %s: not found in %.200q", name, outer, s)
			}
		}
	}
}

// Wherever a mask begins and whatever is around it, its base64 is found.
func TestEveryAlignment(t *testing.T) {
	for before := range 20 {
		for after := range 5 {
			s := b64(strings.Repeat("q", before) + keyed + strings.Repeat("r", after))
			for _, around := range []string{"", "A", "AB", "ABC", "ABCD", "-", "/", "=", " ", "\n", ":"} {
				if back.Check(around+s+around) == nil {
					t.Errorf("%d bytes before and %d after, in %q", before, after, around)
				}
				if back.Check(around+strings.TrimRight(s, "=")) == nil {
					t.Errorf("%d bytes before and %d after, without padding, after %q", before, after, around)
				}
			}
		}
	}
}

// Wherever lines are broken, and whatever the first of them begins with.
func TestBrokenLines(t *testing.T) {
	for before := range 130 {
		text := strings.Repeat("q", before) + keyed + strings.Repeat("r", 100)
		for _, s := range []string{lines(b64(text), "\n"), lines("x"+b64(text), "\n"), lines("xy"+b64(text), "\r\n\t"), "a-long-word-before-it " + lines(b64(b64(text)), "\n    ") + "\nmore"} {
			if back.Check(s) == nil {
				t.Errorf("%d bytes before: not found in %q", before, s)
			}
		}
	}
}

// What is in a cluster and is no mask.
func TestNoFalseAlarm(t *testing.T) {
	for _, v := range []any{
		nil, true, int64(7), 1.5, "", "masked", "[", "[redacted]", "[Masked]", "[ masked ]", strings.Repeat("[masked", 1000), strings.Repeat("W21hc2tlZ", 1000), strings.Repeat("ttYXNrZW", 1000),
		strings.Repeat("bbWFza2Vk", 1000), "\x1f\x8b", "\x1f\x8b\x08\x00", `\u00`, `\u005`, `%`, `%5`, `\x5`, `\U0000005`, strings.Repeat("%5B", 1000), strings.Repeat(`\u005b`, 1000),
		"sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", b64(strings.Repeat("certificate\n", 200)), b64(squeezed(strings.Repeat("text ", 1000))),
		[]any{"a", map[string]any{"b": []any{"c"}}},
	} {
		if err := back.Check(v); err != nil {
			t.Errorf("%.100v: %v", v, err)
		}
	}
}

func TestFields(t *testing.T) {
	value := map[string]any{
		"metadata": map[string]any{"annotations": map[string]any{"a.b/c": keyed, "evil\u202ekey": keyed}},
		"spec":     map[string]any{"list": []any{"a", map[string]any{"value": mask.Constant}, []any{keyed}}},
		"data":     map[string]any{"tls.key": b64(keyed), keyed: "a key", strings.Repeat("é", 100): keyed},
		"more":     []any{keyed, keyed, keyed, keyed, keyed},
	}
	e := access.AsError(back.Check(value))
	var got []string
	for _, r := range e.Reasons {
		got = append(got, r.Field)
		if r.Type != "FieldValueInvalid" || !strings.Contains(r.Message, "mask") {
			t.Errorf("got %+v", r)
		}
	}
	want := []string{
		"data[" + keyed + "]", "data[tls.key]", `data["` + strings.Repeat(`\u00e9`, 50) + `\u2026"]`, "metadata.annotations[a.b/c]", `metadata.annotations["evil\u202ekey"]`,
		"more[0]", "more[1]", "more[2]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if !strings.HasPrefix(e.Message, want[0]+" (and 11 more) carries Sallyport's mask") {
		t.Error(e.Message)
	}
}

// stored is a release as the real Helm stored it, masked.
func stored(t testing.TB) string {
	b, err := os.ReadFile("../helm/testdata/release.txt")
	if err != nil {
		t.Fatal(err)
	}
	out, ok, err := helm.Mask(bytes.TrimSpace(b), helm.SecretLayers, helm.Options{Plain: func(v []byte) string { return mask.Plain(key, "shop", v) }})
	if err != nil || !ok {
		t.Fatal(ok, err)
	}
	return string(out)
}

func proto(t testing.TB, o runtime.Object) string {
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(o, &b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every way to write, and what is answered.
func TestBody(t *testing.T) {
	const (
		js, yml, pb          = "application/json", "application/yaml", "application/vnd.kubernetes.protobuf"
		jsonPatch, merge     = "application/json-patch+json", "application/merge-patch+json"
		strategic, apply     = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
		secrets, db, configs = "/api/v1/namespaces/shop/secrets", "/api/v1/namespaces/shop/secrets/db", "/api/v1/namespaces/shop/configmaps"
		last                 = "kubectl.kubernetes.io/last-applied-configuration"
	)
	m := b64(keyed)
	head := `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"db"},`
	secret := func(v string) *corev1.Secret {
		return &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Name: "db"}, Data: map[string][]byte{"password": []byte(v)}}
	}
	const ask = "kubectl get --raw '/api/v1/namespaces/shop/secrets/db?reveal=password'"
	for name, test := range map[string]struct {
		method, target, media, body string
		field, advice               string // empty for a body that may pass
	}{
		"JSON":                   {"PUT", db, js, head + `"data":{"password":"` + m + `"}}`, "data.password", ask},
		"no type":                {"PUT", db, "", head + `"data":{"password":"` + m + `"}}`, "data.password", ask},
		"create":                 {"POST", secrets, js, head + `"stringData":{"password":"` + keyed + `"}}`, "stringData.password", ask},
		"dry run":                {"POST", secrets + "?dryRun=All", js, head + `"stringData":{"password":"` + keyed + `"}}`, "stringData.password", ask},
		"create without a name":  {"POST", secrets, js, `{"apiVersion":"v1","kind":"Secret","metadata":{"generateName":"db"},"stringData":{"password":"` + keyed + `"}}`, "stringData.password", "each with its own value"},
		"folded":                 {"PUT", db, js, head + `"DATA":{"password":"` + m + `"}}`, "DATA.password", "own value"},
		"escaped":                {"PUT", db, js, head + `"data":{"password":"` + hex(m, `\u%04x`) + `"}}`, "data.password", ask},
		"YAML":                   {"PUT", db, yml, "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\ndata:\n  password: \"" + hex(m, `\x%02x`) + "\"\n", "data.password", ask},
		"YAML's lines":           {"PUT", db, yml, "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData:\n  password: \"" + keyed[:9] + "\\\n    " + keyed[9:] + "\"\n", "stringData.password", ask},
		"a comment":              {"PUT", db, yml, "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\n# " + keyed + "\n", "", ""},
		"protobuf":               {"PUT", db, pb, proto(t, secret(keyed)), "data.password", ask},
		"JSON patch":             {"PATCH", db, jsonPatch, `[{"op":"test","path":"/metadata/name","value":"db"},{"op":"replace","path":"/data/password","value":"` + m + `"}]`, "data.password", ask},
		"JSON patch of more":     {"PATCH", db, jsonPatch, ` [{"op":"add","path":"/data","value":{"password":"` + m + `"}}]`, "data.password", ask},
		"JSON patch's test":      {"PATCH", db, jsonPatch, `[{"op":"test","path":"/data/password","value":"` + m + `"}]`, "data.password", ask},
		"JSON patch's key":       {"PATCH", db, jsonPatch, `[{"op":"add","path":"/data/` + keyed + `","value":"YQ=="}]`, "[0].path", "own value"},
		"JSON patch's escape":    {"PATCH", db, jsonPatch, `[{"op":"add","path":"/metadata/annotations/a.b~1c","value":"` + keyed + `"}]`, "metadata.annotations[a.b/c]", "Leave the annotation out"},
		"merge patch":            {"PATCH", db, merge, `{"data":{"password":"` + m + `"}}`, "data.password", ask},
		"strategic patch":        {"PATCH", db, strategic, `{"data":{"password":"` + m + `"}}`, "data.password", ask},
		"apply":                  {"PATCH", db + "?fieldManager=a", apply, "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\ndata: {password: " + m + "}\n", "data.password", ask},
		"last applied":           {"PATCH", db, merge, `{"metadata":{"annotations":{"` + last + `":` + str(head+`"data":{"password":"`+m+`"}}`) + `}}}`, "metadata.annotations[" + last + "]", "let kubectl apply make it"},
		"a release":              {"POST", secrets, js, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":"sh.helm.release.v1.web.v2"},"type":"helm.sh/release.v1","data":{"release":"` + stored(t) + `"}}`, "data.release", "--reset-values"},
		"an environment":         {"PATCH", "/apis/apps/v1/namespaces/shop/deployments/web", strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"web","env":[{"name":"TOKEN","value":"` + keyed + `"}]}]}}}}`, "spec.template.spec.containers[0].env[0].value", "Send only"},
		"a ConfigMap":            {"POST", configs, js, `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"binaryData":{"a":"` + b64(squeezed(keyed)) + `"}}`, "binaryData.a", "Send only"},
		"a custom resource":      {"POST", "/apis/acme.io/v1/namespaces/shop/databases", js, `{"apiVersion":"acme.io/v1","kind":"Database","metadata":{"name":"c"},"spec":{"p":"` + keyed + `"}}`, "spec.p", "Send only"},
		"what nobody decodes":    {"POST", "/apis/acme.io/v1/namespaces/shop/databases", pb, "k8s\x00" + keyed, "the body", "Send only"},
		"of a type not read":     {"POST", secrets, "text/plain", "x=" + m, "the body", "Send only"},
		"twice a key":            {"PUT", db, js, head + `"data":{"password":"` + m + `","password":"YQ=="}}`, "the body", "Send only"},
		"through a service":      {"POST", "/api/v1/namespaces/shop/services/web/proxy/login", "application/x-www-form-urlencoded", "p=" + hex(keyed, "%%%02X"), "the body", "Send only"},
		"no body":                {"DELETE", db, "", "", "", ""},
		"another value":          {"PUT", db, js, head + `"data":{"password":"aHVudGVyMg=="}}`, "", ""},
		"another key's":          {"PATCH", db, merge, `{"data":{"user":"aHVudGVyMg=="}}`, "", ""},
		"another in protobuf":    {"PUT", db, pb, proto(t, secret("hunter2")), "", ""},
		"a delete's":             {"DELETE", db, js, `{"preconditions":{"uid":"` + keyed + `"}}`, "preconditions.uid", "Send only"},
		"what it asks of a kind": {"PUT", db, js, `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"db"},"x":"` + keyed + `"}`, "the body", "Send only"},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := action.Parse(test.method, test.target)
			if err != nil {
				t.Fatal(err)
			}
			if refined, err := action.Refine(a, test.media, []byte(test.body)); err == nil {
				a = refined
			}
			err = back.Body(a, test.media, []byte(test.body))
			if test.field == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			e := access.AsError(err)
			if e.Kind != access.Unprocessable || !strings.HasPrefix(e.Message, test.field+" carries Sallyport's mask") || !strings.Contains(e.Message, test.advice) {
				t.Fatalf("%s: %s", e.Kind, e.Message)
			}
			if len(e.Reasons) != 1 || e.Reasons[0].Field != test.field || !strings.Contains(e.Reasons[0].Message, test.advice) {
				t.Errorf("%+v", e.Reasons)
			}
		})
	}
}

// A release in every layer, as any Helm writes it.
func TestReleases(t *testing.T) {
	release := stored(t)
	once, err := base64.StdEncoding.DecodeString(release)
	if err != nil {
		t.Fatal(err)
	}
	if back.Check(release) == nil || back.Check(string(once)) == nil {
		t.Error("a masked release may come back")
	}
	for name, text := range map[string]string{
		"values":    `{"name":"web","config":{"a":"` + keyed + `"}}`,
		"manifest":  `{"name":"web","manifest":` + str("kind: Secret\ndata:\n  a: "+b64(keyed)+"\n") + `}`,
		"templates": `{"name":"web","chart":{"templates":[{"name":"a","data":"` + b64("a: "+keyed) + `"}]}}`,
		"far in":    `{"name":"web","manifest":"` + strings.Repeat("text of a manifest ", 200_000) + keyed + `"}`,
	} {
		for _, s := range []string{b64(squeezed(text)), b64(b64(squeezed(text))), "release: " + b64(b64(squeezed(text)))} {
			if back.Check(s) == nil {
				t.Errorf("%s: not found", name)
			}
		}
	}
}

// What is sent to keep the gate busy.
func TestBombs(t *testing.T) {
	zeros := squeezed(squeezed(strings.Repeat("\x00", 100<<20)))
	wide := strings.Repeat("QUFBQUFBQUFBQUFBQUFB", 50_000)
	for name, s := range map[string]string{
		"gzip":        b64(zeros),
		"many":        strings.Repeat(b64(zeros)+" ", 20),
		"nested":      wide,
		"lines":       lines(wide, "\n"),
		"words":       strings.Repeat("a-long-word-of-many and-another-that-is-shorter ", 20_000),
		"short lines": strings.Repeat("QUFBQUFBQUFBQUFB\n", 50_000),
		"escapes":     strings.Repeat(`\u005cu005cu005c`, 50_000),
		"percents":    strings.Repeat("%25%25", 100_000),
		"stems":       strings.Repeat("W21hc2tlZ", 100_000),
		"backslashes": strings.Repeat(`\`, 500_000),
		"gzips":       strings.Repeat("AH4sI", 100_000),
		"begins":      strings.Repeat("[masked:", 100_000),
	} {
		start := time.Now() // with room for a machine that is busy; what grows with the square takes minutes
		if err := back.Check(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("%s took %v", name, took)
		}
	}
}

// Whatever is around a mask, and however it is wrapped, it is found; and nothing panics.
func FuzzFind(f *testing.F) {
	f.Add("before", "after", uint16(0x1234), uint8(2), []byte("{}"))
	f.Add("[masked:", "]", uint16(0xffff), uint8(3), []byte("\x1f\x8b\x08\x00W21hc2tlZ"))
	f.Add(`\u00`, "=", uint16(7), uint8(1), []byte(`[{"op":"add","path":"/a/~1","value":"\u005b"}]`))
	f.Fuzz(func(t *testing.T, before, after string, way uint16, depth uint8, raw []byte) {
		_ = back.Check(string(raw))
		for _, target := range []string{"PUT /api/v1/namespaces/a/secrets/b", "PATCH /api/v1/namespaces/a/secrets/b", "DELETE /api/v1/namespaces/a/secrets/b"} {
			method, path, _ := strings.Cut(target, " ")
			a, err := action.Parse(method, path)
			if err != nil {
				t.Fatal(err)
			}
			for _, media := range []string{"", "application/yaml", "application/json-patch+json", "application/merge-patch+json", "application/vnd.kubernetes.protobuf"} {
				_ = back.Body(a, media, raw)
			}
		}
		apart := "" // what is wrapped twice begins somewhere; a mask in base64 needs not
		around := []func(string) string{
			b64,
			func(s string) string { return b64(before + apart + s + apart + after) },
			func(s string) string { return b64(squeezed(before + apart + s + apart + after)) },
			func(s string) string { return str(s) },
			func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(after + apart + s)) },
			func(s string) string {
				return before + apart + lines(b64(before+apart+s+apart+after), "\n  ") + apart + after
			},
		}
		s := before + keyed + after
		for range depth % 5 {
			s = around[int(way)%len(around)](s)
			way /= uint16(len(around))
			apart = "\x00"
		}
		if back.Check(s) == nil || back.Check(map[string]any{"a": []any{s}}) == nil || back.Check(map[string]any{s: 1}) == nil {
			t.Fatalf("not found in %q", s)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	text := strings.Repeat("some text that a file holds, and a name: sha256:9f86d081884c7d659a2f\n", 2000)
	for name, s := range map[string]string{"text": text, "base64": b64(text), "release": stored(b)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(s)))
			for b.Loop() {
				_ = back.Check(s)
			}
		})
	}
}
