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
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/invoke"
	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
)

// function is one of the broker's as far as Lambda's API shows it.
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

func newLambda(t *testing.T, f *function) *lambda.Client {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	return lambda.New(lambda.Options{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 2,
		Retryer:     retry.NewStandard(func(o *retry.StandardOptions) { o.MaxAttempts, o.MaxBackoff = 2, time.Millisecond }),
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})
}

func newClient(t *testing.T, f *function) invoke.Client {
	return invoke.Client{Function: "exchange", Lambda: newLambda(t, f)}
}

func newReview(t *testing.T, f *function) invoke.Review {
	return invoke.Review{Function: "review", Lambda: newLambda(t, f)}
}

func encode(t *testing.T, a any) string {
	t.Helper()
	b, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

const (
	path   = "/2015-03-31/functions/exchange/invocations "
	review = "/2015-03-31/functions/review/invocations "
)

func TestKeys(t *testing.T) {
	fetched := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := &function{answer: encode(t, broker.Answer{Keys: &broker.KeySet{Issuers: []broker.IssuerKeys{{Issuer: "https://i", JWKS: json.RawMessage(`{"keys":[]}`), Fetched: fetched}}}})}
	want := []identity.IssuerKeys{{Issuer: "https://i", JWKS: json.RawMessage(`{"keys":[]}`), Fetched: fetched}}
	keys, err := newClient(t, f).Keys(t.Context())
	if d := cmp.Diff(want, keys); d != "" || err != nil {
		t.Error(d, err)
	}
	// Who met an unknown key wants fresh ones.
	if d := cmp.Diff([]string{path + `{"keys":{"fresh":true}}`}, f.asked); d != "" {
		t.Error(d)
	}
}

func TestPoll(t *testing.T) {
	want := broker.State{
		Approvals: []broker.Approval{{ID: "a", State: access.StateDenied, Message: "ana said no"}},
		Policy:    broker.Policy{Digest: "d1", Version: "v1", Refused: &broker.Refusal{Version: "v2", Digest: "d2", Message: "line 4"}}, KeysDigest: "k",
	}
	f := &function{answer: encode(t, broker.ReviewAnswer{State: &want})}
	got, err := newReview(t, f).Poll(t.Context(), broker.Poll{Approvals: []string{"a"}, Outcomes: []broker.Outcome{{Approval: "b", Request: "r", Code: 200}}, Keys: "k"})
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	if d := cmp.Diff([]string{review + `{"poll":{"approvals":["a"],"outcomes":[{"approval":"b","request":"r","code":200}],"keys":"k"}}`}, f.asked); d != "" {
		t.Error(d)
	}
}

func TestOpen(t *testing.T) {
	want := broker.Approval{ID: "a", State: access.StatePending, Message: "sre was asked"}
	f := &function{answer: encode(t, broker.ReviewAnswer{Approval: &want})}
	c := newReview(t, f)
	got, err := c.Open(t.Context(), broker.Open{SubjectToken: "t", Cluster: "dev", Raw: broker.Raw{Method: "DELETE", Target: "/x"}, Session: "s", Request: "r"})
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
	// Nothing there is an answer to who only looks, and to nobody else.
	f.answer = `{"approval":{"id":"","state":"","expires":"0001-01-01T00:00:00Z"}}`
	if got, err := c.Open(t.Context(), broker.Open{Peek: true}); err != nil || got.State != "" {
		t.Errorf("a look got %+v, %v", got, err)
	}
	if _, err := c.Open(t.Context(), broker.Open{}); access.KindOf(err) != access.Unavailable {
		t.Errorf("an ask got %v", err)
	}
	// What Lambda would not take is said before it is sent.
	if _, err := c.Open(t.Context(), broker.Open{Raw: broker.Raw{Body: make([]byte, 5<<20)}}); access.KindOf(err) != access.Denied || len(f.asked) != 3 {
		t.Errorf("5 MiB got %v after %d calls", err, len(f.asked))
	}
}

// A redemption whose answer was lost may have been a yes that is used up: it is not sent again. A question is.
func TestRedeemOnce(t *testing.T) {
	f := &function{status: http.StatusInternalServerError}
	_, err := newClient(t, f).Redeem(t.Context(), broker.Redeem{Approval: "a"})
	if access.KindOf(err) != access.Unavailable || len(f.asked) != 1 {
		t.Errorf("got %v after %d calls", err, len(f.asked))
	}
	f = &function{status: http.StatusInternalServerError}
	if _, err := newReview(t, f).Open(t.Context(), broker.Open{}); access.KindOf(err) != access.Unavailable || len(f.asked) != 2 {
		t.Errorf("a question got %v after %d calls", err, len(f.asked))
	}
	token := broker.Token{IssuedTokenType: broker.CredentialsType, Tier: "maintain", Approval: &broker.Approval{ID: "a", State: access.StateSpent}}
	f = &function{answer: encode(t, broker.Answer{Token: &token})}
	got, err := newClient(t, f).Redeem(t.Context(), broker.Redeem{Approval: "a"})
	if d := cmp.Diff(token, got); d != "" || err != nil {
		t.Error(d, err)
	}
	token.Approval = nil
	f = &function{answer: encode(t, broker.Answer{Token: &token})}
	if _, err := newClient(t, f).Redeem(t.Context(), broker.Redeem{Approval: "a"}); access.KindOf(err) != access.Unavailable {
		t.Errorf("a token without the approval: %v", err)
	}
}

func TestNoAnswer(t *testing.T) {
	for name, test := range map[string]struct {
		function function
		kind     access.Kind
	}{
		"refused":              {function{answer: encode(t, broker.Refuse(access.Errorf(access.Limited, "slow down")))}, access.Limited},
		"no policy":            {function{answer: `{"state":{"policy":{}}}`}, access.Unavailable},
		"another answer":       {function{answer: `{"token":{}}`}, access.Unavailable},
		"no JSON":              {function{answer: `<html>`}, access.Unavailable},
		"the function died":    {function{answer: `{"errorMessage":"secret detail"}`, fault: "Unhandled"}, access.Unavailable},
		"Lambda is away":       {function{status: http.StatusServiceUnavailable}, access.Unavailable},
		"it may not be called": {function{status: http.StatusForbidden}, access.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := newReview(t, &test.function).Poll(t.Context(), broker.Poll{})
			if access.KindOf(err) != test.kind {
				t.Errorf("got %v, want kind %s", err, test.kind)
			}
			if keys, err := newClient(t, &test.function).Keys(t.Context()); name != "no policy" && (access.KindOf(err) != test.kind || keys != nil) {
				t.Errorf("got %v, %v, want kind %s", keys, err, test.kind)
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("%q shows what the function died with", err)
			}
		})
	}
}
