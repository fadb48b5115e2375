package recording_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/recording"
)

var update = flag.Bool("update", false, "write golden files")

var (
	started = time.Date(2025, 11, 24, 9, 30, 0, 0, time.UTC)
	agent   = access.Principal{
		Issuer:  "https://issuer.example.com",
		Subject: "repo:acme/shop:ref:refs/heads/main",
		Agent:   "shop-deployer",
		Run:     map[string]string{"run_id": "4711", "run_attempt": "1"},
		Owner:   "ada@example.com",
		Groups:  []string{"deployers"},
	}
	session = access.Session{
		ID:        "k5wq2a7m",
		Principal: agent,
		Cluster:   "prod",
		Tier:      "view",
		Name:      "shop-deployer-3f2a",
		Started:   started,
		Policy:    "9f86d081884c7d65",
	}
)

func execFacts() recording.Facts {
	return recording.Facts{
		ID:        "8b1f6a52-3f0e-4d43-9a80-0d1f8f0e6d11",
		Method:    "GET",
		URI:       "/api/v1/namespaces/shop/pods/web-0/exec?command=cat&command=%2Fetc%2Fpasswd&container=web&stdout=true",
		UserAgent: "kubectl/v1.35.4 (linux/amd64)",
		Sources:   []string{"203.0.113.7"},
		Cluster:   "prod",
		Stage:     auditv1.StageResponseComplete,
		Received:  started,
		At:        started.Add(1500 * time.Millisecond),
		Session:   session,
		Action: access.Action{
			Verb: "exec", Version: "v1", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "web-0",
			Path: "/api/v1/namespaces/shop/pods/web-0/exec", Argv: []string{"cat", "/etc/passwd"}, Stream: true, Upgrade: true,
		},
		Decision: access.Decision{Effect: access.Allow, Rule: "operators-exec", Tier: "view", Policy: "9f86d081884c7d65"},
		Code:     101,
		Sent:     2048,
	}
}

func TestEventGolden(t *testing.T) {
	refused := recording.Facts{
		ID: "refused-1", Method: "DELETE", URI: "/api/v1/namespaces/shop/secrets/db", UserAgent: "curl/8", Cluster: "prod",
		Stage: auditv1.StageResponseComplete, Received: started, At: started.Add(time.Millisecond),
		Code: 401, Reason: metav1.StatusReasonUnauthorized, Message: "the token is expired; get a new one", Sent: 211,
	}
	intent := execFacts()
	intent.Stage, intent.Code, intent.Sent, intent.At = auditv1.StageRequestReceived, 0, 0, started
	approved := execFacts()
	approved.Decision = access.Decision{Effect: access.Ask, Rule: "ask-exec", Tier: "operate", Policy: "9f86d081884c7d65"}
	approved.Approval, approved.Approvers = "k7q2wn5tqzj4c6m3vdbx2hsaye", []string{"ana@example.com", "ben@example.com"}
	for name, f := range map[string]recording.Facts{"exec": execFacts(), "refused": refused, "intent": intent, "approved": approved} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(recording.Event(f), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			file := filepath.Join("testdata", "event-"+name+".golden.json")
			if *update {
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the record's format changed (-want +got):\n%s", diff)
			}
		})
	}
}

// A request can carry credentials in many places; none may reach the bytes of the record.
func TestEventHoldsNoCredential(t *testing.T) {
	const (
		jwt      = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9.c2lnbmF0dXJlc2lnbmF0dXJl"
		eksToken = "k8s-aws-v1.aHR0cHM6Ly9zdHMuZXUtd2VzdC0xLmFtYXpvbmF3cy5jb20v"
	)
	encoded := base64.RawURLEncoding.EncodeToString([]byte(jwt))
	r := httptest.NewRequest(http.MethodGet, "https://user:hunter2@gate.example.com/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&command=echo+argv-secret&token=query-secret&Access_Token=other-secret&%74oken=third-secret;command=fourth-secret&x="+jwt, strings.NewReader("body-secret"))
	r.Header.Set("Authorization", "Bearer "+jwt)
	r.Header.Add("Sec-WebSocket-Protocol", "v5.channel.k8s.io, base64url.bearer.authorization.k8s.io."+encoded)
	r.Header.Set("Cookie", "session=cookie-secret")
	r.Header.Set("X-Amz-Security-Token", "sts-secret")
	r.Header.Set("User-Agent", "kubectl "+jwt+" "+eksToken)
	r.AddCookie(&http.Cookie{Name: "c", Value: "cookie-secret"})

	f := recording.FactsOf(r)
	f.Session, f.Stage, f.Received, f.At = session, auditv1.StageResponseComplete, started, started
	f.Action = access.Action{Verb: "exec", Resource: "pods", Name: "p-" + eksToken, Argv: []string{"sh", "-c", "echo argv-secret"}}
	f.Error = "forwarding: Get https://cluster: token " + eksToken + " was refused"
	f.Message = "no: " + jwt
	f.Code = 403

	got, err := json.Marshal(recording.Event(f))
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{
		jwt, eksToken, encoded, "hunter2", "argv-secret", "query-secret", "other-secret", "third-secret", "fourth-secret",
		"body-secret", "cookie-secret", "sts-secret", "Authorization", "bearer.authorization", "eyJ", "aHR0cHM6",
	} {
		if bytes.Contains(got, []byte(secret)) {
			t.Errorf("the record contains %q:\n%s", secret, got)
		}
	}
	if want := "command=REDACTED&command=REDACTED&command=REDACTED&token=REDACTED"; !bytes.Contains(got, []byte(strings.ReplaceAll(want, "&", `\u0026`))) {
		t.Errorf("the record does not keep how many parameters there were: want %s in\n%s", want, got)
	}
}

func TestEventIsBoundedAndPrintable(t *testing.T) {
	long := strings.Repeat("\x1b[2J\u202e\u200b\xff", 1<<18)
	f := recording.Facts{
		ID: long, Method: long, URI: "/" + long, UserAgent: long, Cluster: long, Message: long, Error: long, Code: 400,
		Action:    access.Action{Verb: long, Resource: long, Name: long},
		Principal: access.Principal{Issuer: long, Subject: long, Agent: long, Owner: long, Run: map[string]string{long: long}},
	}
	for range 1000 {
		f.Sources = append(f.Sources, long)
		f.Principal.Groups = append(f.Principal.Groups, long)
	}
	ev := recording.Event(f)
	line, err := json.Marshal(ev)
	if err != nil {
		t.Fatal(err)
	}
	if len(line) > 1<<20 {
		t.Errorf("an event of %d bytes is more than can be recorded", len(line))
	}
	for _, s := range []string{ev.RequestURI, ev.UserAgent, ev.Verb, ev.User.Username, ev.ObjectRef.Name, ev.ResponseStatus.Message} {
		if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == '\ufffd' }) {
			t.Errorf("%.80q is not printable", s)
		}
	}
}

func TestRedactURI(t *testing.T) {
	for in, want := range map[string]string{
		"/api/v1/pods":                           "/api/v1/pods",
		"/exec?command=a&container=c&command=b":  "/exec?command=REDACTED&container=c&command=REDACTED",
		"/exec?command&command=&stdin=true":      "/exec?command&command=&stdin=true",
		"/exec?%63ommand=a":                      "/exec?%63ommand=REDACTED",
		"/exec?COMMAND=a":                        "/exec?COMMAND=REDACTED",
		"/exec?x=1?command=a":                    "/exec?x=1?command=REDACTED",
		"/exec?x=1;command=a;y=2&z=3":            "/exec?x=1;command=REDACTED&z=3",
		"/exec?command=a?b;c&command=?d":         "/exec?command=REDACTED&command=REDACTED",
		"/exec?command=a=b":                      "/exec?command=REDACTED",
		"/exec?id_token=a&X-Amz-Signature=b":     "/exec?id_token=REDACTED&X-Amz-Signature=REDACTED",
		"/pods?limit=500&continue=abc":           "/pods?limit=500&continue=abc",
		"/pods?labelSelector=app%3Dweb":          "/pods?labelSelector=app%3Dweb",
		"http://u:p@h/api?x=1":                   "http://REDACTED@h/api?x=1",
		"/a b\x1b\u202e\xff?x=\x00":              "/a%20b%1B%E2%80%AE%FF?x=%00",
		"/exec?command\x00=a&command%00=b":       "/exec?command%00=REDACTED&command%00=REDACTED",
		"":                                       "",
		"?":                                      "?",
		"/eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJh.abc": "/REDACTED",
	} {
		if got := recording.RedactURI(in); got != want {
			t.Errorf("RedactURI(%q) = %q, want %q", in, got, want)
		}
	}
}

func FuzzRedactURI(f *testing.F) {
	f.Add("/api/v1/namespaces/n/pods/p/exec?command=sh&command=-c&token=x")
	f.Add("http://u:p@h//?a;%63ommand=x?command=y")
	f.Add("/a b\x1b\u202e\xff?x=\x00eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhZ2VudCJ9")
	f.Fuzz(func(t *testing.T, uri string) {
		got := recording.RedactURI(uri)
		if strings.ContainsFunc(got, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			t.Errorf("RedactURI(%q) = %q is not printable ASCII", uri, got)
		}
		if again := recording.RedactURI(got); again != got {
			t.Errorf("RedactURI is not stable: %q, then %q", got, again)
		}
		_, query, _ := strings.Cut(got, "?")
		values, _ := url.ParseQuery(query)
		_, query, _ = strings.Cut(uri, "?")
		before, _ := url.ParseQuery(query)
		for _, name := range []string{"command", "token"} {
			for _, v := range values[name] {
				if v != "REDACTED" && v != "" {
					t.Errorf("RedactURI(%q) = %q still says %s=%q", uri, got, name, v)
				}
			}
			if len(before[name]) > len(values[name]) {
				t.Errorf("RedactURI(%q) = %q has %d %s, had %d", uri, got, len(values[name]), name, len(before[name]))
			}
		}
	})
}
