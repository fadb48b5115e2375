package differential_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/sets"
	apirequest "k8s.io/apiserver/pkg/endpoints/request"
)

// A request is what is sent, as it stands in the request line. In a file it is the request line without its version,
// header lines, an empty line, and the body as it is.
type request struct {
	Method, Target string
	ContentType    string
	Body           []byte
}

func (r request) String() string { return string(r.file()) }

func (r request) file() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s\n", r.Method, r.Target)
	if r.ContentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\n", r.ContentType)
	}
	if len(r.Body) > 0 {
		b.WriteByte('\n')
		b.Write(r.Body)
	}
	return b.Bytes()
}

func parseFile(b []byte) (request, error) {
	head, body, _ := bytes.Cut(b, []byte("\n\n"))
	line, rest, _ := strings.Cut(strings.TrimSuffix(string(head), "\n"), "\n")
	method, target, ok := strings.Cut(line, " ")
	r := request{Method: method, Target: target, Body: body}
	if media, has := strings.CutPrefix(rest, "Content-Type: "); has {
		r.ContentType = media
	} else if rest != "" {
		return r, fmt.Errorf("header %q: only Content-Type is sent", rest)
	}
	if !ok || strings.ContainsAny(target, " \r\n") {
		return r, fmt.Errorf("%q is no request line", line)
	}
	return r, nil
}

// wire are the bytes that are sent.
func (r request) wire(host, id string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: differential\r\nAudit-ID: %s\r\nImpersonate-User: %s\r\n", r.Method, r.Target, host, id, user)
	if r.ContentType != "" {
		fmt.Fprintf(&b, "Content-Type: %s\r\n", r.ContentType)
	}
	if len(r.Body) > 0 || r.Method == http.MethodPost || r.Method == http.MethodPut || r.Method == http.MethodPatch {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.Body))
	}
	b.WriteString("\r\n")
	b.Write(r.Body)
	return b.Bytes()
}

// requestInfo is what the API server's own parser makes of the bytes, net/http's reading of the target included.
func requestInfo(r request) (*apirequest.RequestInfo, error) {
	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(r.wire("x", "x"))))
	if err != nil {
		return nil, err
	}
	factory := apirequest.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	return factory.NewRequestInfo(req)
}

const corpusDir = "testdata/corpus"

// corpus are the requests that are kept, by the name of their file.
func corpus(t *testing.T) map[string]request {
	t.Helper()
	files, err := os.ReadDir(corpusDir)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]request{}
	for _, f := range files {
		b, err := os.ReadFile(filepath.Join(corpusDir, f.Name()))
		if err != nil {
			t.Fatal(err)
		}
		if known[f.Name()], err = parseFile(b); err != nil {
			t.Fatalf("%s: %v", f.Name(), err)
		}
	}
	if len(known) == 0 {
		t.Fatal("the corpus is empty")
	}
	return known
}

// keep writes a request that was read in two ways into the corpus.
func keep(t *testing.T, r request, known map[string]request) {
	t.Helper()
	for _, k := range known {
		if k.String() == r.String() {
			return
		}
	}
	sum := sha256.Sum256(r.file())
	name := filepath.Join(corpusDir, fmt.Sprintf("found-%x", sum[:6]))
	if err := os.WriteFile(name, r.file(), 0o600); err != nil {
		t.Error(err)
	}
	t.Logf("kept as %s", name)
}

// Files are read as they were written: else the corpus would replay something else.
func TestFiles(t *testing.T) {
	for _, want := range []request{
		{Method: "GET", Target: "/version"},
		{Method: "DELETE", Target: "/api/v1/namespaces/x/pods?a=b", ContentType: "application/json", Body: []byte("{}")},
		{Method: "POST", Target: "/x%zz\xff", Body: []byte("a\n\nb\n")},
		{Method: "PUT", Target: "/", ContentType: "x", Body: []byte{0, 1, '\n', '\n'}},
	} {
		got, err := parseFile(want.file())
		if err != nil || got.String() != want.String() || got.ContentType != want.ContentType || !bytes.Equal(got.Body, want.Body) {
			t.Errorf("want %+v, got %+v (%v)", want, got, err)
		}
	}
}
