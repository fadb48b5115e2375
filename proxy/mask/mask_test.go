package mask_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/go-json-experiment/json/jsontext"

	"sallyport/proxy/mask"
	"sallyport/shared/detect"
)

var (
	session  = bytes.Repeat([]byte{7}, 32)
	secretly = regexp.MustCompile(`(?i)(password|secret|token)$`)
	config   = mask.Config{Names: secretly, Detect: detect.Default()}
)

// strict is whether b is JSON as RFC 8259 has it, in UTF-8: one value, or values on lines of their own.
func strict(b []byte, lines bool) bool {
	d := jsontext.NewDecoder(bytes.NewReader(b), jsontext.AllowDuplicateNames(true))
	end := int64(0)
	for n := 0; ; n++ {
		v, err := d.ReadValue()
		if errors.Is(err, io.EOF) {
			return n == 1 || lines
		}
		if err != nil {
			return false
		}
		begin := d.InputOffset() - int64(len(v))
		if n > 0 && (!lines || bytes.IndexByte(b[end:begin], '\n') < 0) {
			return false
		}
		end = d.InputOffset()
	}
}

var shapes = []struct {
	name string
	req  mask.Request
	in   string
}{
	{"secret", mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod", Name: "db"},
		`{"kind":"Secret","apiVersion":"v1","metadata":{"name":"db","namespace":"prod","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"apiVersion\":\"v1\",\"data\":{\"password\":\"czNjcjN0\"},\"stringData\":{\"b\":\"s3cr3t\"},\"kind\":\"Secret\"}\n","x":"y"},"managedFields":[{"manager":"kubectl","fieldsV1":{"f:data":{".":{},"f:password":{}}}}]},"data":{"password":"czNjcjN0","empty":"","none":null},"stringData":{"b":"s3cr3t"},"type":"Opaque"}`},
	{"list", mask.Request{Resource: "secrets", Verb: "list"},
		`{"kind":"SecretList","apiVersion":"v1","metadata":{"resourceVersion":"1","continue":"abc"},"items":[{"metadata":{"namespace":"a"},"data":{"x":"czNjcjN0"}},{"metadata":{"namespace":"b"},"data":{"x":"czNjcjN0"}},{"data":{"x":"czNjcjN0"},"metadata":{"namespace":"c"}}]}`},
	{"objects in objects", mask.Request{Resource: "secrets", Verb: "list"},
		`{"metadata":{"namespace":"a"},"items":[{"data":{"x":"czNjcjN0"},"metadata":{"namespace":"b"},"object":{"data":{"x":"czNjcjN0"}}}],"data":{"x":"czNjcjN0"}}`},
	{"behind an object", mask.Request{Resource: "secrets", Verb: "list"},
		`{"items":[{"metadata":{"namespace":"b"}}],"data":{"x":"czNjcjN0"}}`},
	{"watch", mask.Request{Resource: "secrets", Verb: "watch"},
		`{"type":"ADDED","object":{"metadata":{"namespace":"a"},"data":{"x":"czNjcjN0"}}}` + "\n" + `{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"12"}}}` + "\n" + `{"type":"ERROR","object":{"kind":"Status","message":"too old"}}` + "\n"},
	{"table", mask.Request{Resource: "secrets", Verb: "list", Namespace: "prod"},
		`{"kind":"Table","rows":[{"cells":["db","Opaque",1,"2d",null],"object":{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"password\":\"czNjcjN0\"}}"}},"data":{"x":"czNjcjN0"}}}]}`},
	{"watched table", mask.Request{Resource: "secrets", Verb: "watch", Namespace: "prod"},
		`{"type":"ADDED","object":{"kind":"Table","rows":[{"cells":["db"],"object":{"data":{"x":"czNjcjN0"}}}]}}`},
	{"odd keys", mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"},
		`{"d\u0061ta":{"a":"czNjcjN0"},"Data":{"a":"czNjcjN0"},"data":{"a\"b":"czNjcjN0\"\\","a":"1","a":"czNjcjN0"},"data":{"\ud83d\ude00":"czNjcjN0"},"DATA":["czNjcjN0"],"data":"czNjcjN0","data":7,"\u017ftringdata":{"x":"s3cr3t"},"data":null,"data":{"o":{"a":["czNjcjN0",{"b":1e5}]},"n":-1.5e+3,"t":true,"f":false}}`},
	{"env", mask.Request{Group: "apps", Resource: "deployments", Verb: "get", Namespace: "prod"},
		`{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"DB_PASSWORD","value":"s3cr3t"},{"name":"LOG","value":"info"},{"value":"s3cr3t","name":"LOG"},{"name":"API_TOKEN","valueFrom":{"secretKeyRef":{"name":"a","key":"token"}}},{"Name":"LOG","value":"s3cr3t"},{"name":"LOG","NAME":"a-token","Value":"s3cr3t"},{"name":"X_SECRET","value":null}]}],"initContainers":[{"env":[{"name":"DB_PASSWORD","value":"s3cr3t"}]}]}},"odd":{"env":{"MY_TOKEN":"s3cr3t","A":"b"}}}}`},
	{"revision", mask.Request{Group: "apps", Resource: "controllerrevisions", Verb: "list", Namespace: "prod"},
		`{"items":[{"data":{"spec":{"template":{"spec":{"containers":[{"env":[{"name":"DB_PASSWORD","value":"s3cr3t"}]}]}}}}}]}`},
	{"configmap", mask.Request{Resource: "configmaps", Verb: "get", Namespace: "prod"},
		`{"data":{"db-password":"s3cr3t","log":"info","release":"not one"},"binaryData":{"a.token":"czNjcjN0","b":"aGVsbG8="}}`},
	{"token", mask.Request{Resource: "serviceaccounts", Subresource: "token", Verb: "create", Namespace: "prod"},
		`{"kind":"TokenRequest","spec":{"audiences":["a"]},"status":{"token":"s3cr3t","expirationTimestamp":"2026-01-01T00:00:00Z"}}`},
	{"csr", mask.Request{Group: "certificates.k8s.io", Resource: "certificatesigningrequests", Verb: "get"},
		`{"spec":{"request":"czNjcjN0","signerName":"x"},"status":{"certificate":"czNjcjN0"}}`},
	{"detectors", mask.Request{Resource: "pods", Verb: "get", Namespace: "prod"},
		`{"spec":{"containers":[{"args":["--db=postgres://u:s3cr3tpassw0rd@db/x","a\n\"b\"","postgres:\/\/u:s3cr3tpassw0rd@db\/x\u0021"]}]}}`},
	{"nested", mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"},
		`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"metadata\":{\"annotations\":{\"kubectl.kubernetes.io/last-applied-configuration\":\"{\\\"data\\\":{\\\"a\\\":\\\"czNjcjN0\\\"}}\"}}}"}}}`},
	{"broken inside", mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"},
		`{"metadata":{"annotations":{"kubectl.kubernetes.io/last-applied-configuration":"{\"data\":{\"a\":\"czNjcjN0\"}","KAPP.k14s.io/original":"czNjcjN0","objectset.rio.cattle.io/applied":"czNjcjN0"}}}`},
	{"spaces", mask.Request{Resource: "secrets", Verb: "get", Namespace: "prod"},
		" \r\n\t{ \"data\" : { \"a\" : \"czNjcjN0\" , \"b\" : [ ] } , \"x\" : [ 1 , -0.5e-7 , true , false , null , { } , [ ] , \"é\u2028😀\" ] }\n\n"},
}

func TestMasks(t *testing.T) {
	for _, tt := range shapes {
		t.Run(tt.name, func(t *testing.T) {
			for _, key := range [][]byte{session, nil} {
				out := agree(t, model{req: tt.req, key: key}, config, []byte(tt.in))
				for _, gone := range []string{"czNjcjN0", "s3cr3t"} {
					if bytes.Contains(out, []byte(gone)) {
						t.Fatalf("%s is in %s", gone, out)
					}
				}
				rules, err := mask.Compile(config, tt.req)
				if err != nil {
					t.Fatal(err)
				}
				for n := 1; n <= len(tt.in); n++ {
					got, err := io.ReadAll(rules.Reader(pieces(tt.in, n), key))
					if err != nil || !bytes.Equal(got, out) {
						t.Fatalf("in pieces of %d: %v\n%s\nwhole:\n%s", n, err, got, out)
					}
					at, err := io.ReadAll(rules.Reader(io.MultiReader(strings.NewReader(tt.in[:n]), strings.NewReader(tt.in[n:])), key))
					if err != nil || !bytes.Equal(at, out) {
						t.Fatalf("split at %d: %v\n%s\nwhole:\n%s", n, err, at, out)
					}
				}
				// A body that breaks off is never a whole one.
				if tt.req.Verb != "watch" {
					for n := range len(strings.TrimRight(tt.in, " \n")) {
						if _, err := rules.Bytes([]byte(tt.in[:n]), key); !errors.Is(err, mask.ErrSyntax) {
							t.Fatalf("%q: %v", tt.in[:n], err)
						}
						if _, err := io.ReadAll(rules.Reader(strings.NewReader(tt.in[:n]), key)); !errors.Is(err, mask.ErrSyntax) {
							t.Fatalf("%q: %v", tt.in[:n], err)
						}
					}
				}
			}
		})
	}
}

// pieces reads s n bytes at a time.
func pieces(s string, n int) io.Reader {
	var r []io.Reader
	for i := 0; i < len(s); i += n {
		r = append(r, strings.NewReader(s[i:min(len(s), i+n)]))
	}
	return io.MultiReader(r...)
}

func TestRefuses(t *testing.T) {
	for _, in := range []string{
		``, ` `, "\ufeff{}", `{`, `}`, `[`, `]`, `[}`, `{]`, `{"a"}`, `{"a":}`, `{"a" "b"}`, `{"a":1,}`, `[1,]`, `[,1]`, `{,}`, `{a:1}`, `{'a':1}`, `[1 2]`, `{"a":1 "b":2}`,
		`{}{}`, "{}\n{}", `{} x`, `1 2`, `tru`, `truex`, `nul`, `nil`, `True`, `01`, `-`, `-a`, `+1`, `.5`, `1.`, `1.e5`, `1e`, `1e+`, `0x1`, `1_0`, `NaN`, `Infinity`, `--1`,
		`"`, `"\`, `"\x"`, `"\u12"`, `"\u12g4"`, `"\ud800"`, `"\ud800\u0041"`, `"\ud800x"`, `"\udc00"`, `"\udc00\udc00"`, `"\ud800\ud800"`, "\"\x01\"", "\"\n\"", "\"\xff\"", "\"\xc0\x80\"", "\"\xed\xa0\x80\"", "\"\xf4\x90\x80\x80\"", "\"\xe2\x82\"", "{\"\xff\":1}", `{"\ud800":1}`,
		"[\x00]", "[1\x0b]", "{}\x00", "/**/{}", `{"a":1}//`,
		`[1}`, `{"a":1]`, `[[1}]`, `{"a":{"b":1]}`, `{"a":[1}}`,
		strings.Repeat("[", 1001) + strings.Repeat("]", 1001), strings.Repeat(`{"k":`, 1001) + "1" + strings.Repeat("}", 1001),
		`{"` + strings.Repeat("k", 20000) + `":1}`,
		`[` + strings.Repeat("1", 2000) + `]`,
		`{"env":[{"name":"A","value":"x","name":"A_PASSWORD"}]}`,
		`{"data":{"a":"b\u00"}}`, `{"data":{"a":{"b":]}}`, `{"data":{"a":{"b" 1}}}`, "{\"data\":{\"a\":\"\xff\"}}", `{"data":{"a":01}}`, `{"data":{"a":[1,]}}`,
	} {
		rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "get"})
		if err != nil {
			t.Fatal(err)
		}
		wrong := []string{in}
		if strings.TrimSpace(in) != "" && !strings.Contains(in, "env") {
			// Where nothing is looked at, the grammar is the same.
			wrong = append(wrong, `{"data":{"a":[`+in+`]}}`, `{"metadata":{"managedFields":[{"fieldsV1":{"x":`+in+`}}]}}`, `{"data":{"a":{"b":`+in+`,"c":1}}}`)
		}
		for _, in := range wrong {
			if out, err := rules.Bytes([]byte(in), session); !errors.Is(err, mask.ErrSyntax) {
				t.Errorf("%.100q: %q, %v", in, out, err)
			}
			if out, err := io.ReadAll(rules.Reader(iotest.OneByteReader(strings.NewReader(in)), session)); !errors.Is(err, mask.ErrSyntax) {
				t.Errorf("%.100q, byte by byte: %q, %v", in, out, err)
			}
		}
	}
}

func TestTakes(t *testing.T) {
	for _, in := range []string{
		`null`, ` true `, `0`, `-0`, `-0.0E-0`, `123.456e+789`, `""`, `[]`, `{}`, `"\u0000\b\f\n\r\t\/\\\""`, `"\ud83d\ude00"`, "\"\u2028\x7f\U0010ffff\"", `{"":""}`, `{"a":1,"a":2}`,
		strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
		`[` + strings.Repeat(" ", 200000) + `1]`,
	} {
		for _, req := range []mask.Request{{Resource: "secrets", Verb: "get"}, {Resource: "pods", Verb: "watch"}} {
			if got := agree(t, model{req: req, key: session}, config, []byte(in)); !bytes.Equal(got, []byte(in)) {
				t.Errorf("%.100q became %.100q", in, got)
			}
			rules, _ := mask.Compile(config, req)
			if got, err := io.ReadAll(rules.Reader(iotest.OneByteReader(strings.NewReader(in)), session)); err != nil || string(got) != in {
				t.Errorf("%.100q became %.100q: %v", in, got, err)
			}
		}
	}
}

// Events follow one another in a watch, each on its line.
func TestWatch(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Resource: "pods", Verb: "watch"})
	if err != nil {
		t.Fatal(err)
	}
	for in, ok := range map[string]bool{"": true, "\n": true, "{}\n{}": true, "{}\r\n \n{}\n": true, "{}{}": false, "{} {}": false, "1\n2": true, "{}\n{": false} {
		for _, src := range []io.Reader{strings.NewReader(in), iotest.OneByteReader(strings.NewReader(in))} {
			out, err := io.ReadAll(rules.Reader(src, session))
			if (err == nil) != ok || ok && string(out) != in {
				t.Errorf("%q became %q: %v", in, out, err)
			}
		}
	}
}

// An event goes out when it is there, not when the next one is.
func TestAtOnce(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "watch"})
	if err != nil {
		t.Fatal(err)
	}
	pr, pw := io.Pipe()
	r := rules.Reader(pr, session)
	buf := make([]byte, 1000)
	for range 3 {
		event := `{"type":"ADDED","object":{"data":{"a":"czNjcjN0"},"type":"Opaque"}}` + "\n"
		go func() { _, _ = pw.Write([]byte(event)) }()
		got := ""
		for !strings.HasSuffix(got, "\n") {
			n, err := r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buf[:n])
		}
		if !json.Valid([]byte(got)) {
			t.Fatal(got)
		}
	}
}

// What is broken off by its source is not whole, even between events.
func TestBroken(t *testing.T) {
	rules, err := mask.Compile(config, mask.Request{Resource: "secrets", Verb: "watch"})
	if err != nil {
		t.Fatal(err)
	}
	lost := errors.New("connection lost")
	out, err := io.ReadAll(rules.Reader(io.MultiReader(strings.NewReader("{}\n"), iotest.ErrReader(lost)), session))
	if !errors.Is(err, lost) || string(out) != "{}\n" {
		t.Fatalf("%q, %v", out, err)
	}
	if out, err := io.ReadAll(rules.Reader(iotest.DataErrReader(strings.NewReader("{}\n")), session)); err != nil || string(out) != "{}\n" {
		t.Fatalf("%q, %v", out, err)
	}
}
