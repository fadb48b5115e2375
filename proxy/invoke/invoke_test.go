package invoke_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/invoke"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
)

// function is function exchange as far as Lambda's API shows it.
type function struct {
	asked  []string
	answer string
	fault  string // Lambda's word for a function that died
	status int
}

func (f *function) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, _ := io.ReadAll(r.Body)
	f.asked = append(f.asked, r.URL.Path+" "+string(b))
	if f.fault != "" {
		w.Header().Set("X-Amz-Function-Error", f.fault)
	}
	if f.status != 0 {
		w.WriteHeader(f.status)
	}
	_, _ = io.WriteString(w, f.answer)
}

func newClient(t *testing.T, f *function) invoke.Client {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return invoke.Client{Function: "exchange", Lambda: lambda.New(lambda.Options{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})}
}

func answer(t *testing.T, a broker.Answer) string {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPollAndKeys(t *testing.T) {
	fetched := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	want := broker.Policy{Digest: "d1", Version: "v1", Refused: &broker.Refusal{Version: "v2", Digest: "d2", Message: "line 4"}}
	f := &function{answer: answer(t, broker.Answer{Keys: &broker.KeySet{Policy: want, Issuers: []broker.IssuerKeys{{Issuer: "https://i", JWKS: json.RawMessage(`{"keys":[]}`), Fetched: fetched}}}})}
	c := newClient(t, f)
	in, keys, err := c.Poll(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, in); d != "" {
		t.Error(d)
	}
	wantKeys := []identity.IssuerKeys{{Issuer: "https://i", JWKS: json.RawMessage(`{"keys":[]}`), Fetched: fetched}}
	if d := cmp.Diff(wantKeys, keys); d != "" {
		t.Error(d)
	}
	if keys, err = c.Keys(t.Context()); err != nil || !cmp.Equal(wantKeys, keys) {
		t.Errorf("got %v, %v", keys, err)
	}
	// A poll takes the keys as they are; who met an unknown key wants fresh ones.
	const path = "/2015-03-31/functions/exchange/invocations "
	if d := cmp.Diff([]string{path + `{"keys":{}}`, path + `{"keys":{"fresh":true}}`}, f.asked); d != "" {
		t.Error(d)
	}
}

func TestNoAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		function function
		kind     access.Kind
	}{
		"refused":              {function{answer: answer(t, broker.Refuse(access.Errorf(access.Limited, "slow down")))}, access.Limited},
		"no policy":            {function{answer: `{"keys":{"issuers":[]}}`}, access.Unavailable},
		"another answer":       {function{answer: `{"token":{}}`}, access.Unavailable},
		"no JSON":              {function{answer: `<html>`}, access.Unavailable},
		"the function died":    {function{answer: `{"errorMessage":"secret detail"}`, fault: "Unhandled"}, access.Unavailable},
		"Lambda is away":       {function{status: http.StatusServiceUnavailable}, access.Unavailable},
		"it may not be called": {function{status: http.StatusForbidden}, access.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, keys, err := newClient(t, &test.function).Poll(t.Context())
			if access.KindOf(err) != test.kind || keys != nil {
				t.Errorf("got %v, %v, want kind %s", keys, err, test.kind)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%q shows what the function died with", err)
			}
		})
	}
}
