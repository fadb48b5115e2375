package canary_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"sallyport/e2e/mask/canary"
)

func base64of(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }

func gzipped(text string) string {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = z.Write([]byte(text))
	_ = z.Close()
	return b.String()
}

// What a secret may be spelled like, in what agents read.
var spelled = map[string]func(text string) string{
	"as it is":              func(t string) string { return "password: " + t + "\n" },
	"base64":                func(t string) string { return `{"data":{"password":"` + base64of(t) + `"}}` },
	"base64, in the middle": func(t string) string { return base64of("postgres://app:" + t + "@db:5432/app") },
	"base64, one further":   func(t string) string { return base64of("postgres://apps:" + t + "@db:5432/app") },
	"base64, two further":   func(t string) string { return base64of("postgres://apple:" + t + "@db:5432/app") },
	"base64url":             func(t string) string { return base64.RawURLEncoding.EncodeToString([]byte("~~" + t + "??")) },
	"base64 in base64":      func(t string) string { return base64of(`{"auth":"` + base64of("user:"+t) + `"}`) },
	"hex":                   func(t string) string { return "0x" + hex.EncodeToString([]byte(t)) },
	"HEX":                   func(t string) string { return fmt.Sprintf("%X", t) },
	"JSON in JSON": func(t string) string {
		inner, _ := json.Marshal(map[string]string{"password": t})
		outer, _ := json.Marshal(map[string]string{"last-applied-configuration": string(inner)})
		return string(outer)
	},
	"a Helm release in a ConfigMap": func(t string) string {
		return `{"release":"` + base64of(gzipped(`{"config":{"password":"`+t+`"}}`)) + `"}`
	},
	"a Helm release in a Secret": func(t string) string {
		return `{"release":"` + base64of(base64of(gzipped(`{"config":{"password":"`+t+`"}}`))) + `"}`
	},
	"a manifest in a Helm release": func(t string) string {
		return base64of(base64of(gzipped(`{"manifest":"data:\n  password: ` + base64of(t) + `\n"}`)))
	},
}

// A secret is found in each spelling, however the text is cut, and is said to be the right one.
func TestFound(t *testing.T) {
	set := canary.New()
	for i := range 100 {
		set.Plant(fmt.Sprint("other ", i))
	}
	secret := set.Plant("the one")
	for name, spell := range spelled {
		text := spell(secret)
		for cut := range len(text) + 1 {
			search := set.Search()
			_, _ = search.Write([]byte(text[:cut]))
			_, _ = search.Write([]byte(text[cut:]))
			if found := search.Found(); len(found) != 1 || found[0].Carrier != "the one" {
				t.Fatalf("%s, cut at %d of %d: found %v in %q", name, cut, len(text), found, text)
			}
		}
		search := set.Search()
		for i := range len(text) {
			_, _ = search.Write([]byte{text[i]})
		}
		if found := search.Found(); len(found) != 1 {
			t.Errorf("%s, byte by byte: found %v", name, found)
		}
	}
}

// Any ten characters are enough.
func TestTenCharacters(t *testing.T) {
	set := canary.New()
	secret := set.Plant("the one")
	for i := range len(secret) - canary.Shortest + 1 {
		piece := secret[i:][:canary.Shortest]
		if len(set.In("x"+piece+"x")) != 1 || len(set.In(base64of("x"+piece+"x"))) != 1 {
			t.Errorf("%q of %q is not found", piece, secret)
		}
	}
	if found := set.In(secret[:canary.Shortest-1] + " " + secret[canary.Shortest:][:canary.Shortest-1]); len(found) > 0 {
		t.Errorf("nine characters are found as %v; what else is?", found)
	}
}

// Of several in a text each is found, and what is none of them is none.
func TestSeveral(t *testing.T) {
	set := canary.New()
	var text strings.Builder
	for i := range 50 {
		text.WriteString(spelled["a Helm release in a Secret"](set.Plant(fmt.Sprint(i))) + "\n")
	}
	if found := set.In(text.String()); len(found) != 50 || set.Len() != 50 || len(set.Carriers()) != 50 {
		t.Errorf("%d of %d are found", len(found), set.Len())
	}
	other := canary.New()
	for range 50 {
		other.Plant("other")
	}
	if found := other.In(text.String()); len(found) > 0 {
		t.Errorf("found what was never planted: %v", found)
	}
}

func BenchmarkSearch(b *testing.B) {
	set := canary.New()
	for range 600 {
		set.Plant("x")
	}
	text := []byte(strings.Repeat(`{"metadata":{"name":"canary-1-abcdefghij","namespace":"dev","uid":"0b6f9c9e-2f57-4f0c-8a55-3a2f5a0a5a0e"},"data":{"password":"W21hc2tlZDo3d3BheWVxbzc3amJd"}}`, 1000))
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		search := set.Search()
		_, _ = search.Write(text)
	}
}
