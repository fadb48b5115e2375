package eks_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	stsapi "github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/google/go-cmp/cmp"
	authv1 "k8s.io/api/authentication/v1"
	"sigs.k8s.io/aws-iam-authenticator/pkg/token"

	"sallyport/local/aws/eks"
	"sallyport/local/aws/pki"
	"sallyport/local/aws/sts"
)

const exchange = "arn:aws:iam::" + account + ":role/sallyport/exchange"

var root = sts.Credentials{AccessKeyID: "ASIAROOT000000000001", SecretAccessKey: "secret", SessionToken: "token"}

// stand is STS behind TLS, and an EKS whose verifiers ask it.
type stand struct {
	t     *testing.T
	eks   *eks.Server
	asked atomic.Int64
	skew  atomic.Int64 // how far STS's clock is ahead
	addr  string
	url   string
	log   *bytes.Buffer
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{t: t, log: &bytes.Buffer{}}
	ca, err := pki.New()
	if err != nil {
		t.Fatal(err)
	}
	allow := []string{operate, develop, "arn:aws:iam::" + account + ":role/stranger"}
	var roles []sts.Role
	for _, r := range allow {
		roles = append(roles, sts.Role{ARN: r, Trust: []sts.Trust{{Callers: []string{exchange}}}})
	}
	server, err := sts.New(sts.Config{AccountID: account, Region: region, Roles: roles,
		Principals: []sts.Principal{{ARN: exchange, Session: "exchange", Credentials: root}, {ARN: ana, Credentials: sts.Credentials{AccessKeyID: "AKIAANA", SecretAccessKey: "s"}}},
		Now:        func() time.Time { return time.Now().Add(time.Duration(s.skew.Load())) }})
	if err != nil {
		t.Fatal(err)
	}
	counted := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.asked.Add(1); server.ServeHTTP(w, r) })
	l, err := tls.Listen("tcp", "127.0.0.1:0", ca.Server(func(n string) bool { return strings.HasPrefix(n, "sts.") }))
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	secure := &http.Server{Handler: counted, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go secure.Serve(l)
	t.Cleanup(func() { secure.Close() })
	plain := httptest.NewServer(server)
	t.Cleanup(plain.Close)
	s.url = plain.URL
	s.eks, err = eks.New(eks.Config{AccountID: account, Region: region, Clusters: []eks.Cluster{{Name: "dev"}, {Name: "prod"}},
		Verifier: func(c string) (token.Verifier, error) { return eks.NewVerifier(c, region, s.addr, ca.Pool()) }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *stand) entry(e eks.AccessEntry) {
	s.t.Helper()
	if e.Cluster == "" {
		e.Cluster = "dev"
	}
	if _, err := s.eks.CreateAccessEntry(e, ""); err != nil {
		s.t.Fatal(err)
	}
}

func provider(c sts.Credentials) aws.CredentialsProvider {
	return credentials.NewStaticCredentialsProvider(c.AccessKeyID, c.SecretAccessKey, c.SessionToken)
}

func (s *stand) assume(role, session string) sts.Credentials {
	s.t.Helper()
	c := stsapi.New(stsapi.Options{Region: region, BaseEndpoint: &s.url, Credentials: provider(root)})
	out, err := c.AssumeRole(s.t.Context(), &stsapi.AssumeRoleInput{RoleArn: &role, RoleSessionName: &session})
	if err != nil {
		s.t.Fatal(err)
	}
	return sts.Credentials{AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey, SessionToken: *out.Credentials.SessionToken}
}

// token makes one as kubectl's helper does.
func (s *stand) token(cluster string, c sts.Credentials) string {
	s.t.Helper()
	g, err := token.NewGenerator(false, false)
	if err != nil {
		s.t.Fatal(err)
	}
	tok, err := g.GetWithSTS(cluster, stsapi.New(stsapi.Options{Region: region, Credentials: provider(c)}))
	if err != nil {
		s.t.Fatal(err)
	}
	return tok.Token
}

func (s *stand) review(cluster, tok string) authv1.TokenReviewStatus {
	s.t.Helper()
	body, _ := json.Marshal(map[string]any{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": map[string]any{"token": tok}})
	w := httptest.NewRecorder()
	s.eks.Webhook(slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))).
		ServeHTTP(w, httptest.NewRequest("POST", "/authenticate/"+cluster, bytes.NewReader(body)))
	var out authv1.TokenReview
	if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil || w.Code != 200 {
		s.t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	if out.Status.Authenticated != (out.Status.Error == "") {
		s.t.Errorf("neither in nor out: %+v", out.Status)
	}
	return out.Status
}

// edit changes the URL inside a token.
func edit(t *testing.T, tok string, f func(u *url.URL, q url.Values)) string {
	t.Helper()
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(tok, "k8s-aws-v1."))
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(string(b))
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	f(u, q)
	u.RawQuery = q.Encode()
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(u.String()))
}

func TestReview(t *testing.T) {
	s := newStand(t)
	s.entry(eks.AccessEntry{PrincipalARN: operate, Groups: []string{"sallyport:operate"}})
	s.entry(eks.AccessEntry{PrincipalARN: develop, Username: "dev:{{AccountID}}:{{SessionName}}:{{SessionNameRaw}}"})
	s.entry(eks.AccessEntry{PrincipalARN: ana})
	s.entry(eks.AccessEntry{Cluster: "prod", PrincipalARN: operate, Groups: []string{"sallyport:observe"}})

	op := s.assume(operate, "mia@example.com")
	got := s.review("dev", s.token("dev", op))
	if len(got.User.Extra["principalId"]) != 1 || !strings.HasPrefix(got.User.Extra["principalId"][0], "AROA") {
		t.Fatalf("review %+v", got)
	}
	id := got.User.Extra["principalId"][0]
	want := authv1.TokenReviewStatus{Authenticated: true, User: authv1.UserInfo{
		Username: "arn:aws:sts::111122223333:assumed-role/operate/mia-example.com",
		UID:      "aws-iam-authenticator:111122223333:" + id,
		Groups:   []string{"sallyport:operate"},
		Extra: map[string]authv1.ExtraValue{
			"arn":          {"arn:aws:sts::111122223333:assumed-role/operate/mia@example.com"},
			"canonicalArn": {"arn:aws:iam::111122223333:role/operate"},
			"accessKeyId":  {op.AccessKeyID}, "principalId": {id}, "sessionName": {"mia@example.com"},
			"sigs.k8s.io/aws-iam-authenticator/principalId": {id},
		}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if got := s.review("prod", s.token("prod", op)).User.Groups; !cmp.Equal(got, []string{"sallyport:observe"}) {
		t.Errorf("groups in prod: %v", got)
	}
	if got := s.review("dev", s.token("dev", s.assume(develop, "a@b"))).User.Username; got != "dev:111122223333:a-b:a@b" {
		t.Errorf("templates: %s", got)
	}
	if got := s.review("dev", s.token("dev", sts.Credentials{AccessKeyID: "AKIAANA", SecretAccessKey: "s"})).User.Username; got != ana {
		t.Errorf("a user: %q", got)
	}
}

func TestReviewRefuses(t *testing.T) {
	s := newStand(t)
	s.entry(eks.AccessEntry{PrincipalARN: operate})
	s.entry(eks.AccessEntry{Cluster: "prod", PrincipalARN: operate})
	op := s.assume(operate, "agent")
	good := func() string { return s.token("dev", op) }
	if got := s.review("dev", good()); !got.Authenticated {
		t.Fatalf("a good token: %+v", got)
	}
	forged := op
	forged.SecretAccessKey = "guessed"
	resigned := op // another's valid secret under this key
	resigned.SecretAccessKey = s.assume(operate, "other").SecretAccessKey
	swapped := op
	swapped.SessionToken = s.assume(operate, "other").SessionToken
	for _, tt := range []struct {
		name, cluster, token string
		local                bool // refused without asking STS
	}{
		{name: "for another cluster", cluster: "prod", token: good()},
		{name: "of a cluster that does not exist", cluster: "none", token: good(), local: true},
		{name: "forged", token: s.token("dev", forged)},
		{name: "signed with another's secret", token: s.token("dev", resigned)},
		{name: "with another's session token", token: s.token("dev", swapped)},
		{name: "of a role without an entry", token: s.token("dev", s.assume("arn:aws:iam::"+account+":role/stranger", "agent"))},
		{name: "cluster name not signed", token: edit(t, good(), func(_ *url.URL, q url.Values) { q.Set("X-Amz-SignedHeaders", "host") }), local: true},
		{name: "old", token: edit(t, good(), func(_ *url.URL, q url.Values) {
			q.Set("X-Amz-Date", time.Now().Add(-20*time.Minute).UTC().Format("20060102T150405Z"))
		}), local: true},
		{name: "date moved", token: edit(t, good(), func(_ *url.URL, q url.Values) {
			q.Set("X-Amz-Date", time.Now().Add(time.Minute).UTC().Format("20060102T150405Z"))
		})},
		{name: "another action", token: edit(t, good(), func(_ *url.URL, q url.Values) { q.Set("Action", "AssumeRole") }), local: true},
		{name: "another host", token: edit(t, good(), func(u *url.URL, _ url.Values) { u.Host = "example.com" }), local: true},
		{name: "another region", token: edit(t, good(), func(u *url.URL, _ url.Values) { u.Host = "sts.us-east-1.amazonaws.com" })},
		{name: "the stand-in's own address", token: edit(t, good(), func(u *url.URL, _ url.Values) { u.Host = s.addr }), local: true},
		{name: "no TLS", token: edit(t, good(), func(u *url.URL, _ url.Values) { u.Scheme = "http" }), local: true},
		{name: "another path", token: edit(t, good(), func(u *url.URL, _ url.Values) { u.Path = "/x" }), local: true},
		{name: "parameter twice", token: edit(t, good(), func(_ *url.URL, q url.Values) { q.Set("x-amz-date", q.Get("X-Amz-Date")) }), local: true},
		{name: "foreign parameter", token: edit(t, good(), func(_ *url.URL, q url.Values) { q.Set("RoleArn", operate) }), local: true},
		{name: "signature cut", token: edit(t, good(), func(_ *url.URL, q url.Values) { q.Set("X-Amz-Signature", q.Get("X-Amz-Signature")[:62]) })},
		{name: "empty", token: "", local: true},
		{name: "a JWT", token: "eyJhbGciOiJub25lIn0.e30.", local: true},
		{name: "huge", token: "k8s-aws-v1." + strings.Repeat("A", 5000), local: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s.log.Reset()
			before := s.asked.Load()
			cluster := tt.cluster
			if cluster == "" {
				cluster = "dev"
			}
			if got := s.review(cluster, tt.token); got.Authenticated || got.User.Username != "" {
				t.Errorf("let in as %q", got.User.Username)
			}
			if asked := s.asked.Load() != before; asked == tt.local {
				t.Errorf("asked STS: %v", asked)
			}
			if len(tt.token) > 100 && strings.Contains(s.log.String(), tt.token[20:60]) {
				t.Error("the log holds the token")
			}
		})
	}
}

func TestUnreadableURLIsNotEchoed(t *testing.T) {
	s := newStand(t)
	tok := "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte("https://sts.eu-west-1.amazonaws.com/?X-Amz-Signature=0123456789abcdef\x7f"))
	got := s.review("dev", tok)
	if got.Authenticated || strings.Contains(got.Error+s.log.String(), "0123456789abcdef") {
		t.Errorf("%q, log %s", got.Error, s.log)
	}
}

func TestExpiredCredentialsEndTheToken(t *testing.T) {
	s := newStand(t)
	s.entry(eks.AccessEntry{PrincipalARN: operate})
	tok := s.token("dev", s.assume(operate, "agent"))
	s.skew.Store(int64(14 * time.Minute))
	if got := s.review("dev", tok); !got.Authenticated {
		t.Errorf("after 14 minutes: %s", got.Error)
	}
	s.skew.Store(int64(16 * time.Minute))
	if got := s.review("dev", tok); got.Authenticated {
		t.Error("after 16 minutes it still works")
	}
	s.skew.Store(0)
	short := s.token("dev", s.assume(operate, "short"))
	s.skew.Store(int64(time.Hour))
	if got := s.review("dev", short); got.Authenticated {
		t.Error("it outlives its credentials")
	}
}

func TestEntryChangesTakeEffectAtOnce(t *testing.T) {
	s := newStand(t)
	tok := s.token("dev", s.assume(operate, "agent"))
	if s.review("dev", tok).Authenticated {
		t.Fatal("in without an entry")
	}
	s.entry(eks.AccessEntry{PrincipalARN: operate, Groups: []string{"a"}})
	if got := s.review("dev", tok); !cmp.Equal(got.User.Groups, []string{"a"}) {
		t.Fatalf("with an entry: %+v", got)
	}
	if _, err := s.eks.UpdateAccessEntry("dev", operate, &[]string{"b"}, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.review("dev", tok); !cmp.Equal(got.User.Groups, []string{"b"}) {
		t.Errorf("after the update: %+v", got)
	}
	if err := s.eks.DeleteAccessEntry("dev", operate); err != nil {
		t.Fatal(err)
	}
	if s.review("dev", tok).Authenticated {
		t.Error("still in after the entry is gone")
	}
}

func TestVerifierKeepsToItself(t *testing.T) {
	before := http.DefaultTransport
	ca, err := pki.New()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	called := make(chan struct{}, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
			called <- struct{}{}
		}
	}()
	v, err := eks.NewVerifier("dev", region, l.Addr().String(), ca.Pool())
	if err != nil {
		t.Fatal(err)
	}
	s := &stand{t: t}
	if _, err := v.Verify(s.token("dev", root)); err == nil {
		t.Error("a hung-up STS vouches for a token")
	}
	select {
	case <-called:
	case <-time.After(5 * time.Second):
		t.Error("the verifier called somebody else")
	}
	if http.DefaultTransport != before {
		t.Error("the process's transport was changed")
	}
}

func TestSTSMustBeOurs(t *testing.T) {
	s := newStand(t)
	other, err := pki.New()
	if err != nil {
		t.Fatal(err)
	}
	v, err := eks.NewVerifier("dev", region, s.addr, other.Pool())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(s.token("dev", root)); err == nil || s.asked.Load() != 0 {
		t.Errorf("an STS under another authority was asked %d times: %v", s.asked.Load(), err)
	}
}

func TestWebhookSpeaksOnlyTokenReview(t *testing.T) {
	s := newStand(t)
	h := s.eks.Webhook(slog.New(slog.DiscardHandler))
	for _, tt := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/authenticate/dev", `{"apiVersion":"authentication.k8s.io/v1beta1","kind":"TokenReview"}`, 400},
		{"POST", "/authenticate/dev", `{"apiVersion":"authentication.k8s.io/v1","kind":"SubjectAccessReview"}`, 400},
		{"POST", "/authenticate/dev", `{`, 400},
		{"GET", "/authenticate/dev", ``, 405},
		{"POST", "/authenticate", `{}`, 404},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body)))
		if w.Code != tt.want {
			t.Errorf("%s %s %s: %d, want %d", tt.method, tt.path, tt.body, w.Code, tt.want)
		}
	}
}
