package action_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

const dbSecret = "/api/v1/namespaces/dev/secrets/db"

func TestReveal(t *testing.T) {
	for target, key := range map[string]string{
		dbSecret + "?reveal=password":                    "password",
		dbSecret + "?reveal=password&timeout=3s":         "password",
		dbSecret + "/?reveal=tls.key":                    "tls.key",
		dbSecret + "?%72eveal=p%61ssword":                "password",
		dbSecret + "?reveal=..data_-.A9":                 "..data_-.A9",
		dbSecret + "?reveal=" + strings.Repeat("k", 253): strings.Repeat("k", 253),
	} {
		got, err := action.Parse(http.MethodGet, target)
		path, _, _ := strings.Cut(target, "?")
		want := access.Action{Verb: "reveal", Version: "v1", Resource: "secrets", Namespace: "dev", Name: "db", Path: path, Reveal: key}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v %s", target, err, d)
		}
		if !got.Changes() {
			t.Errorf("%s: what is revealed must be on record before it is, as a change", target)
		}
		if f := action.Forwarded(target); f != path && f != path+"?timeout=3s" {
			t.Errorf("%s is forwarded as %s", target, f)
		}
		if got, err = action.Refine(got, "", []byte("{}")); access.KindOf(err) != access.Invalid {
			t.Errorf("%s with a body: %+v, %v", target, got, err)
		}
	}
}

// Whatever else says reveal gets nothing, rather than an answer it did not ask for.
func TestRevealIsOfOneKeyOfOneSecret(t *testing.T) {
	for _, line := range []string{
		"GET " + dbSecret + "?reveal=", "GET " + dbSecret + "?reveal", "GET " + dbSecret + "?reveal=a%2Fb", "GET " + dbSecret + "?reveal=a+b", "GET " + dbSecret + "?reveal=*", "GET " + dbSecret + "?reveal=a,b",
		"GET " + dbSecret + "?reveal=%00", "GET " + dbSecret + "?reveal=p%C3%A4ss", "GET " + dbSecret + "?reveal=" + strings.Repeat("k", 254),
		"GET " + dbSecret + "?reveal=a&reveal=b", "GET " + dbSecret + "?reveal=a&reveal=a", "GET " + dbSecret + "?reveal=a&rev%65al=b",
		"GET " + dbSecret + "?reveal=a&pretty=true", "GET " + dbSecret + "?limit=1&reveal=a", "GET " + dbSecret + "?reveal=a&watch=1", "GET " + dbSecret + "?reveal=a&watch", "GET " + dbSecret + "?reveal=a&resourceVersion=0",
		"GET " + dbSecret + "?reveal=a&dryRun=All", "GET " + dbSecret + "?reveal=a&=", "GET " + dbSecret + "?reveal=a&timeout=3s&limit=1", "GET " + dbSecret + "?reveal=a&timeout=3s&timeout=3s", "GET " + dbSecret + "?reveal=a&Timeout=3s",
		"GET /api/v1/namespaces/dev/secrets?reveal=a", "GET /api/v1/namespaces/dev/secrets?fieldSelector=metadata.name%3Ddb&reveal=a", "GET /api/v1/secrets?reveal=a",
		"GET /api/v1/watch/namespaces/dev/secrets/db?reveal=a", "GET /api/v1/watch/namespaces/dev/secrets?reveal=a",
		"GET " + dbSecret + "/status?reveal=a", "GET " + dbSecret + "/x/y?reveal=a",
		"GET /api/v1/secrets/db?reveal=a", "GET /api/v2/namespaces/dev/secrets/db?reveal=a",
		"GET /apis/example.com/v1/namespaces/dev/secrets/db?reveal=a", "GET /apis//v1/namespaces/dev/secrets/db?reveal=a",
		"GET /api/v1/namespaces/dev/configmaps/db?reveal=a", "GET /api/v1/namespaces/dev?reveal=a", "GET /version?reveal=a", "GET /api?reveal=a",
		"GET /api/v1/namespaces/dev/services/web/proxy/?reveal=a", "GET /api/v1/namespaces/dev/pods/web/exec?command=id&reveal=a",
		"PUT " + dbSecret + "?reveal=a", "PATCH " + dbSecret + "?reveal=a", "DELETE " + dbSecret + "?reveal=a", "POST /api/v1/namespaces/dev/secrets?reveal=a", "POST " + dbSecret + "?reveal=a",
	} {
		method, target, _ := strings.Cut(line, " ")
		if a, err := action.Parse(method, target); access.KindOf(err) != access.Invalid {
			t.Errorf("%s: got %+v, %v; want it refused", line, a, err)
		}
	}
	// Parameters are case-sensitive: this is one that the API server does not know, and a get.
	if a, err := action.Parse(http.MethodGet, dbSecret+"?Reveal=a"); err != nil || a.Verb != "get" || a.Reveal != "" {
		t.Errorf("got %+v, %v", a, err)
	}
}

func TestForwarded(t *testing.T) {
	for target, want := range map[string]string{
		"/version": "/version", "/x?": "/x?", "/x?a=1&b=2": "/x?a=1&b=2", "/x?b=%61&a=%2f": "/x?b=%61&a=%2f", "/x?Reveal=a": "/x?Reveal=a", "/x?xreveal=a&revealx=b": "/x?xreveal=a&revealx=b",
		"/x?reveal=a": "/x", "/x?reveal": "/x", "/x?r%65veal=a": "/x", "/x?a=1&reveal=a&b=2": "/x?a=1&b=2", "/x?reveal=a&reveal=b": "/x", "/x?a=reveal": "/x?a=reveal",
		"/x?reveal=a&%zz=1": "/x?%zz=1",
	} {
		if got := action.Forwarded(target); got != want {
			t.Errorf("%s: got %s, want %s", target, got, want)
		}
	}
}

// What is forwarded is the request that was classified, without the gate's parameter: a reveal becomes the get of the same
// Secret, and everything else stays as it is, byte for byte.
func FuzzForwarded(f *testing.F) {
	f.Add(dbSecret + "?reveal=password")
	f.Add(dbSecret + "?reveal=a&reveal=b&%72eveal")
	f.Add(dbSecret + "?a=1&reveal=b;c")
	f.Add("/api/v1/pods?limit=1&watch")
	f.Fuzz(func(t *testing.T, target string) {
		forwarded := action.Forwarded(target)
		if again := action.Forwarded(forwarded); again != forwarded {
			t.Errorf("%q: %q becomes %q", target, forwarded, again)
		}
		a, err := action.Parse(http.MethodGet, target)
		if err != nil {
			return
		}
		b, err := action.Parse(http.MethodGet, forwarded)
		if a.Reveal == "" {
			if forwarded != target || (a.Verb == "reveal") {
				t.Errorf("%q is forwarded as %q", target, forwarded)
			}
			return
		}
		a.Verb, a.Reveal = "get", ""
		if d := cmp.Diff(a, b); err != nil || d != "" {
			t.Errorf("%q is forwarded as %q: %v %s", target, forwarded, err, d)
		}
	})
}
