package sigv4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/google/go-cmp/cmp"

	"sallyport/local/aws/sigv4"
)

const (
	key    = "ASIAEXAMPLE000000000"
	secret = "a secret of forty characters, more or less"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// request signs with the SDK's own signer, then reads the result back as a server would see it.
func request(t *testing.T, presign bool, method, target string, headers map[string]string, body string, at time.Time) *http.Request {
	t.Helper()
	r, err := http.NewRequest(method, target, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range headers {
		r.Header.Set(k, v)
	}
	creds := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret, SessionToken: "session/token+with=signs"}
	sum := sha256.Sum256([]byte(body))
	hash := hex.EncodeToString(sum[:])
	if presign {
		u, h, err := v4.NewSigner().PresignHTTP(context.Background(), creds, r, hash, "sts", "eu-west-1", at)
		if err != nil {
			t.Fatal(err)
		}
		target = u
		r.Header = h
	} else if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hash, "sts", "eu-west-1", at); err != nil {
		t.Fatal(err)
	}
	in := httptest.NewRequest(method, target, strings.NewReader(body))
	in.Header = r.Header.Clone()
	in.Header.Del("Host")
	in.Host = r.URL.Host
	return in
}

func check(r *http.Request, body, secret string) (*sigv4.Signature, error) {
	s, err := sigv4.Parse(r)
	if err != nil {
		return nil, err
	}
	return s, s.Verify(r, []byte(body), secret, "sts", "eu-west-1", now)
}

func code(err error) string {
	var e *sigv4.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		return err.Error()
	}
	return ""
}

func TestWhatTheSDKSignsPasses(t *testing.T) {
	for _, tt := range []struct {
		name, method, target, body string
		presign                    bool
		headers                    map[string]string
	}{
		{name: "form", method: "POST", target: "https://sts.eu-west-1.amazonaws.com/", body: "Action=GetCallerIdentity", headers: map[string]string{"Content-Type": "application/x-www-form-urlencoded"}},
		{name: "empty body", method: "GET", target: "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15"},
		{name: "port in host", method: "POST", target: "http://localhost:4566/", body: "x"},
		{name: "path", method: "GET", target: "http://localhost:4566/a%20b/c%2Fd/~e"},
		{name: "query order and characters", method: "GET", target: "http://localhost/?b=2&a=z&a=y&c=%20%2B%2F&e=&%C3%A9=1"},
		{name: "spaces in headers", method: "GET", target: "http://localhost/", headers: map[string]string{"X-Amz-Meta": "  a   b  "}},
		{name: "presigned", presign: true, method: "GET", target: "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60"},
		{name: "presigned with a header", presign: true, method: "GET", target: "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", headers: map[string]string{"X-K8s-Aws-Id": "dev"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, tt.presign, tt.method, tt.target, tt.headers, tt.body, now)
			s, err := check(r, tt.body, secret)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(sigv4.Scope{AccessKeyID: key, Date: "20260304", Region: "eu-west-1", Service: "sts"}, s.Scope); diff != "" {
				t.Error(diff)
			}
			if s.Token != "session/token+with=signs" || s.Presigned != tt.presign {
				t.Errorf("token %q, presigned %v", s.Token, s.Presigned)
			}
			if scope, ok := sigv4.ScopeOf(r); !ok || scope.Service != "sts" {
				t.Errorf("ScopeOf = %v, %v", scope, ok)
			}
			if _, err := check(r, tt.body, secret+"x"); code(err) != "SignatureDoesNotMatch" {
				t.Errorf("another secret: %v", err)
			}
		})
	}
}

// Every part that was signed, changed one at a time.
func TestChangedAfterSigning(t *testing.T) {
	setQuery := func(k, v string) func(*http.Request) {
		return func(r *http.Request) {
			q := r.URL.Query()
			q.Set(k, v)
			r.URL.RawQuery = q.Encode()
		}
	}
	addQuery := func(k, v string) func(*http.Request) {
		return func(r *http.Request) { r.URL.RawQuery += "&" + url.QueryEscape(k) + "=" + url.QueryEscape(v) }
	}
	auth := func(old, new string) func(*http.Request) {
		return func(r *http.Request) {
			a := r.Header.Get("Authorization")
			b := strings.Replace(a, old, new, 1)
			if a == b {
				panic("nothing replaced in " + a)
			}
			r.Header.Set("Authorization", b)
		}
	}
	const both, headerOnly, queryOnly = 0, 1, 2
	for _, tt := range []struct {
		name string
		form int
		do   func(*http.Request)
		body string
		want string
	}{
		{name: "method", do: func(r *http.Request) { r.Method = "PUT" }},
		{name: "path", do: func(r *http.Request) { r.URL.Path = "/x" }},
		{name: "query value", do: setQuery("Action", "AssumeRole")},
		{name: "query added", do: addQuery("More", "1")},
		{name: "query repeated", do: addQuery("Action", "GetCallerIdentity")},
		{name: "host", do: func(r *http.Request) { r.Host = "sts.us-east-1.amazonaws.com" }},
		{name: "signed header changed", do: func(r *http.Request) { r.Header.Set("X-K8s-Aws-Id", "prod") }},
		{name: "signed header repeated", do: func(r *http.Request) { r.Header.Add("X-K8s-Aws-Id", "dev") }},
		{name: "signed header gone", do: func(r *http.Request) { r.Header.Del("X-K8s-Aws-Id") }},
		{name: "body", body: "another"},
		{name: "date", form: headerOnly, do: func(r *http.Request) { r.Header.Set("X-Amz-Date", "20260304T050608Z") }},
		{name: "token", form: headerOnly, do: func(r *http.Request) { r.Header.Set("X-Amz-Security-Token", "x") }},
		{name: "key", form: headerOnly, do: auth(key, "ASIAEXAMPLE000000001"), want: "ok"}, // found out by whoever looks the secret up
		{name: "service", form: headerOnly, do: auth("/sts/", "/s3/")},
		{name: "region", form: headerOnly, do: auth("/eu-west-1/", "/us-east-1/")},
		{name: "scope's date", form: headerOnly, do: auth("/20260304/", "/20260305/")},
		{name: "header taken out of the list", form: headerOnly, do: auth("x-k8s-aws-id", "accept"), want: "IncompleteSignature"},
		{name: "date not signed", form: headerOnly, do: auth(";x-amz-date", "")},
		{name: "token not signed", form: headerOnly, do: auth(";x-amz-security-token", "")},
		{name: "host not signed", form: headerOnly, do: auth("host;", "")},
		{name: "unsorted", form: headerOnly, do: auth("host;", "zhost;host;"), want: "IncompleteSignature"},
		{name: "empty signature", form: headerOnly, do: func(r *http.Request) {
			a := r.Header.Get("Authorization")
			r.Header.Set("Authorization", a[:strings.Index(a, "Signature=")+len("Signature=")])
		}, want: "IncompleteSignature"},
		{name: "signature cut", form: headerOnly, do: func(r *http.Request) {
			a := r.Header.Get("Authorization")
			r.Header.Set("Authorization", a[:len(a)-2])
		}},
		{name: "two headers", form: headerOnly, do: func(r *http.Request) { r.Header.Add("Authorization", r.Header.Get("Authorization")) }, want: "IncompleteSignature"},
		{name: "header and query", do: func(r *http.Request) {
			r.Header.Set("Authorization", "AWS4-HMAC-SHA256 Credential=a")
			addQuery("X-Amz-Signature", "aa")(r)
		}, want: "IncompleteSignature"},
		{name: "another algorithm", form: headerOnly, do: auth("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), want: "IncompleteSignature"},
		{name: "no signature", form: headerOnly, do: func(r *http.Request) { r.Header.Del("Authorization") }, want: "MissingAuthenticationToken"},
		{name: "query date", form: queryOnly, do: setQuery("X-Amz-Date", "20260304T050608Z")},
		{name: "query token", form: queryOnly, do: setQuery("X-Amz-Security-Token", "x")},
		{name: "query expires", form: queryOnly, do: setQuery("X-Amz-Expires", "900")},
		{name: "query expires unreadable", form: queryOnly, do: setQuery("X-Amz-Expires", "1h"), want: "AuthorizationQueryParametersError"},
		{name: "query signed headers", form: queryOnly, do: setQuery("X-Amz-SignedHeaders", "host")},
		{name: "query signature", form: queryOnly, do: setQuery("X-Amz-Signature", strings.Repeat("0", 64))},
		{name: "query signature empty", form: queryOnly, do: setQuery("X-Amz-Signature", "")},
		{name: "query signature twice", form: queryOnly, do: addQuery("X-Amz-Signature", "00"), want: "IncompleteSignature"},
		{name: "query semicolon", form: queryOnly, do: func(r *http.Request) { r.URL.RawQuery += ";a=b" }, want: "IncompleteSignature"},
	} {
		for _, presign := range []bool{false, true} {
			if presign && tt.form == headerOnly || !presign && tt.form == queryOnly {
				continue
			}
			name := tt.name + "/header"
			if presign {
				name = tt.name + "/query"
			}
			t.Run(name, func(t *testing.T) {
				r := request(t, presign, "GET", "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&X-Amz-Expires=60", map[string]string{"X-K8s-Aws-Id": "dev"}, "", now)
				if _, err := check(r, "", secret); err != nil {
					t.Fatalf("unchanged: %v", err)
				}
				if tt.do != nil {
					tt.do(r)
				}
				want := tt.want
				switch want {
				case "":
					want = "SignatureDoesNotMatch"
				case "ok":
					// The key is in no signed text: it only picks the secret.
					want = ""
				}
				if _, err := check(r, tt.body, secret); code(err) != want {
					t.Errorf("got %v, want %q", err, want)
				}
			})
		}
	}
}

// A good signature for something else is no signature for this.
func TestScope(t *testing.T) {
	for _, presign := range []bool{false, true} {
		r := request(t, presign, "GET", "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity", nil, "", now)
		for _, tt := range []struct{ service, region, want string }{
			{"sts", "eu-west-1", ""},
			{"s3", "eu-west-1", "SignatureDoesNotMatch"},
			{"sts", "us-east-1", "SignatureDoesNotMatch"},
		} {
			s, err := sigv4.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(r, nil, secret, tt.service, tt.region, now); code(err) != tt.want {
				t.Errorf("presigned %v for %s in %s: got %v, want %q", presign, tt.service, tt.region, err, tt.want)
			}
		}
	}
}

// What decides, but came after signing and is under no signature.
func TestAddedAfterSigning(t *testing.T) {
	for _, name := range []string{"X-Amz-Security-Token", "X-Amz-Target"} {
		r, err := http.NewRequest("POST", "http://localhost/", nil)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(nil)
		creds := aws.Credentials{AccessKeyID: key, SecretAccessKey: secret}
		if err := v4.NewSigner().SignHTTP(context.Background(), creds, r, hex.EncodeToString(sum[:]), "sts", "eu-west-1", now); err != nil {
			t.Fatal(err)
		}
		r.Host = "localhost"
		if _, err := check(r, "", secret); err != nil {
			t.Fatal(err)
		}
		r.Header.Set(name, "x")
		if _, err := check(r, "", secret); code(err) != "SignatureDoesNotMatch" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWindow(t *testing.T) {
	for _, presign := range []bool{false, true} {
		for _, tt := range []struct {
			at   time.Duration
			want string
		}{
			{-15*time.Minute - time.Second, "SignatureDoesNotMatch"},
			{-15 * time.Minute, ""},
			{-2 * time.Minute, ""}, // past the 60 s the URL asks for: STS does not care
			{15 * time.Minute, ""},
			{15*time.Minute + time.Second, "SignatureDoesNotMatch"},
		} {
			r := request(t, presign, "GET", "https://sts.eu-west-1.amazonaws.com/?Action=GetCallerIdentity&X-Amz-Expires=60", nil, "", now.Add(tt.at))
			if _, err := check(r, "", secret); code(err) != tt.want {
				t.Errorf("presigned %v, signed %v from now: got %v, want %q", presign, tt.at, err, tt.want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("AWS4-HMAC-SHA256 Credential=a/20260304/r/sts/aws4_request, SignedHeaders=host, Signature=00", "a=b")
	f.Add("", "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a%2F20260304%2Fr%2Fsts%2Faws4_request&X-Amz-Signature=00&X-Amz-SignedHeaders=host&X-Amz-Date=20260304T050607Z")
	f.Fuzz(func(t *testing.T, auth, query string) {
		r := &http.Request{Method: "GET", URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{}, Host: "h"}
		if auth != "" {
			r.Header.Set("Authorization", auth)
			r.Header.Set("X-Amz-Date", "20260304T050607Z")
		}
		s, err := sigv4.Parse(r)
		if err != nil {
			return
		}
		if err := s.Verify(r, bytes.Repeat([]byte("x"), 3), secret, "sts", s.Scope.Region, now); err == nil {
			t.Errorf("a made-up signature passed: %q %q", auth, query)
		}
	})
}
