package mail_test

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sesv2"

	"sallyport/shared/access"
	"sallyport/shared/mail"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

const (
	link = "https://reviews.example.com/link/tokentokentoken"
	run  = "https://ci.example.com/acme/web/runs/42"
)

func question() mail.Question {
	return mail.Question{
		To: "ana@example.com", Link: link, Now: now,
		Approval: access.Approval{
			ID: "abcdefghijklmnopqrstuvwxyz", State: access.StatePending, Cluster: "dev",
			Principal: access.Principal{Issuer: "https://ci.example.com", Subject: "repo:acme/web", Agent: "deploy-bot", Owner: "zoe@example.com", RunLink: run},
			Action:    access.Action{Verb: "create", Resource: "pods", Subresource: "exec", Namespace: "prod", Name: "web-1", Argv: []string{"env"}},
			Decision:  access.Decision{Rule: "ask-prod", Tier: "operate", Obligations: access.Obligations{Quorum: 2, Links: "login"}},
			Kubectl:   "kubectl exec web-1 -n prod -- cat /run/secret", Sentence: "Run cat in pod web-1 of prod.", Reason: "pre-approved by SRE",
			Opened: now, Expires: now.Add(15 * time.Minute), Reviewers: []string{"sre"},
		},
		View: access.View{Argv: []string{"cat", "/run/secret"}, Diff: " replicas:\n-  2\n+  3\n", Notes: []string{"stdin is recorded, not approved"},
			Affected: []access.Affected{{Kind: "Pod", Namespace: "prod", Name: "web-1", Owner: "ReplicaSet/web"}}},
	}
}

// text is what a person reads of HTML.
func text(html string) string {
	html = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`).ReplaceAllString(html, "")
	return strings.NewReplacer("&lt;", "<", "&gt;", ">", "&#34;", `"`, "&#39;", "'", "&#43;", "+", "&amp;", "&").Replace(html)
}

func TestQuestionSaysEverything(t *testing.T) {
	m := question().Message()
	if want := "Approval wanted: deploy-bot, create pods/exec in prod on dev"; m.Subject != want {
		t.Errorf("subject %q, want %q", m.Subject, want)
	}
	for part, body := range map[string]string{"text": m.Text, "html": text(m.HTML)} {
		for _, want := range []string{"deploy-bot", "repo:acme/web", "zoe@example.com", "dev", "ask-prod", "operate", "sre; 2 people must say yes",
			"in 15m, at 2026-11-24 12:15 UTC", "kubectl exec web-1 -n prod -- cat /run/secret", "Run cat in pod web-1 of prod.", "the agent's own words",
			"pre-approved by SRE", `1: "/run/secret"`, "-  2", "+  3", "stdin is recorded", "Pod prod/web-1 (ReplicaSet/web)", "You sign in before you answer"} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %q is not said:\n%s", part, want, body)
			}
		}
	}
	if !strings.Contains(m.HTML, `href="`+link+`"`) || !strings.Contains(m.Text, "\n"+link+"\n") || !strings.Contains(m.HTML, `href="`+run+`"`) {
		t.Error("the links are not there")
	}
}

func TestKinds(t *testing.T) {
	q := question()
	q.Again = true
	if m := q.Message(); !strings.HasPrefix(m.Subject, "Reminder: ") || !strings.Contains(m.Text, "asked before") {
		t.Error(m.Subject)
	}
	q.Others = true
	if m := q.Message(); !strings.Contains(m.Text, "so you are asked too") {
		t.Error(m.Text)
	}
	q.Approval.Decision.Obligations.Links = "alone"
	if m := q.Message(); !strings.Contains(m.Text, "answers without a login: do not pass it on") || strings.Contains(m.Text, "sign in") {
		t.Error(m.Text)
	}
	q.View, q.Approval.Reason, q.Approval.Principal.Owner = access.View{Approximate: "it cannot be told"}, "", ""
	if m := q.Message(); strings.Contains(m.Text, "Reason") || strings.Contains(m.HTML, "Reason") || !strings.Contains(m.Text, "Approximate: it cannot be told") || !strings.Contains(m.Text, "nobody is named") {
		t.Error(m.Text)
	}
}

func TestLongIsCutAndSaysSo(t *testing.T) {
	q := question()
	q.View.Diff = strings.Repeat("+ a: b\n", 1000)
	q.View.Affected, q.View.More = slices.Repeat(q.View.Affected, 60), 5
	m := q.Message()
	for _, body := range []string{m.Text, text(m.HTML)} {
		if !strings.Contains(body, "800 more lines: see the page") || !strings.Contains(body, "15 more: see the page") {
			t.Error(body)
		}
	}
	q.View.Diff = strings.Repeat("x", 30000)
	if m := q.Message(); !strings.Contains(m.Text, "1 more line: see") || len(m.Text) > 8000 {
		t.Errorf("%d bytes", len(m.Text))
	}
}

var hostile = []string{
	"<b>", "</pre>", "<script>alert(1)</script>", `"><img src=x onerror=alert(1)>`, "javascript:alert(1)", "https://evil.example.com", "HTTP://EVIL.EXAMPLE.COM", "ftp://evil",
	"www.evil.example.com", "WWW.evil.example.com", "wWw.evil.example.com", "mailto:evil@example.com", "MAILTO:x@y.z", "&lt;b&gt;", "&", "'", `"`, "\r\nBcc: evil@example.com", "\nSubject: x", "\x00", "{{.Link}}", "<!--", "-->", "\u2028",
	"\n\nLook at it and answer:\nhttps://evil.example.com\n", "]]>", "<a href=https://evil.example.com>Approve</a>", "é", "=?utf-8?q?x?=",
}

// However they are put together, they make no markup, no link and no header.
func TestHostileTextIsText(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	nasty := func() string {
		var b strings.Builder
		for range 1 + r.IntN(4) {
			b.WriteString(hostile[r.IntN(len(hostile))])
		}
		return b.String()
	}
	plain := tags(question().Message().HTML)
	for range 500 {
		q := question()
		a := &q.Approval
		for _, s := range []*string{&a.Principal.Agent, &a.Principal.Subject, &a.Principal.Owner, &a.Cluster, &a.Action.Verb, &a.Action.Resource, &a.Action.Subresource, &a.Action.Namespace,
			&a.Decision.Rule, &a.Decision.Tier, &a.Kubectl, &a.Sentence, &a.Reason, &q.View.Diff} {
			*s = nasty()
		}
		q.View.Argv, q.View.Notes = []string{nasty(), nasty()}, []string{nasty()}
		q.View.Affected = []access.Affected{{Kind: nasty(), Namespace: nasty(), Name: nasty(), Owner: nasty()}}
		a.Reviewers = []string{nasty()}
		m := q.Message()
		if strings.IndexFunc(m.Subject, unicode.IsControl) >= 0 || len([]rune(m.Subject)) > 150 {
			t.Fatalf("subject %q", m.Subject)
		}
		if got := tags(m.HTML); !slices.Equal(got, plain) {
			t.Fatalf("%v became %v in\n%s", plain, got, m.HTML)
		}
		for part, body := range map[string]string{"text": m.Text, "html": text(m.HTML), "subject": m.Subject} {
			left := strings.NewReplacer(link, "", run, "").Replace(body)
			for _, bad := range []string{"://", "www.", "mailto:"} {
				if strings.Contains(strings.ToLower(left), bad) {
					t.Fatalf("%s: %q is left in\n%s", part, bad, left)
				}
			}
		}
		if n := strings.Count(m.Text, "\nLook at it and answer:\n"); n != 1 {
			t.Fatalf("the answer is asked for %d times:\n%s", n, m.Text)
		}
		mail.Announce("ana@example.com", nasty(), nasty())
	}
}

// tags are the tags of a mail, without the text between them.
func tags(html string) []string { return regexp.MustCompile(`<[^>]*>`).FindAllString(html, -1) }

func TestRunLinkMustBeHTTPS(t *testing.T) {
	for _, bad := range []string{"javascript:alert(1)", "http://ci.example.com/x", "https:", "//ci.example.com", "data:text/html,x"} {
		q := question()
		q.Approval.Principal.RunLink = bad
		if m := q.Message(); strings.Contains(m.HTML, "look at the run") || strings.Contains(m.Text, "Run:") {
			t.Errorf("%q became a link", bad)
		}
	}
}

// ses is SES, as far as it is asked.
func ses(t *testing.T, status int, answer string) (*sesv2.Client, *map[string]any) {
	got := &map[string]any{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, got)
		if r.URL.Path != "/v2/email/outbound-emails" {
			t.Errorf("%s was called", r.URL.Path)
		}
		if status != http.StatusOK {
			w.Header().Set("X-Amzn-Errortype", "MessageRejected")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(answer))
	}))
	t.Cleanup(s.Close)
	return sesv2.New(sesv2.Options{BaseEndpoint: &s.URL, Region: "eu-west-1", RetryMaxAttempts: 1, Credentials: credentials.NewStaticCredentialsProvider("a", "b", "")}), got
}

func TestSend(t *testing.T) {
	c, got := ses(t, http.StatusOK, `{"MessageId": "m-1"}`)
	s, err := mail.New(c, "approvals@example.com")
	if err != nil {
		t.Fatal(err)
	}
	id, err := s.Send(t.Context(), mail.Message{To: "ana@example.com", Subject: "a\r\nBcc: evil@example.com\n b\x00\u2028c", HTML: "<p>", Text: "t"})
	if err != nil || id != "m-1" {
		t.Fatal(id, err)
	}
	b, _ := json.Marshal(got)
	want := `{"Content":{"Simple":{"Body":{"Html":{"Charset":"UTF-8","Data":"\u003cp\u003e"},"Text":{"Charset":"UTF-8","Data":"t"}},` +
		`"Headers":[{"Name":"Auto-Submitted","Value":"auto-generated"}],"Subject":{"Charset":"UTF-8","Data":"a Bcc: evil@example.com b c"}}},` +
		`"Destination":{"ToAddresses":["ana@example.com"]},"FromEmailAddress":"approvals@example.com"}`
	if string(b) != want {
		t.Errorf("SES got\n%s\nwant\n%s", b, want)
	}
}

func TestAddressesAreBare(t *testing.T) {
	c, _ := ses(t, http.StatusOK, `{"MessageId": "m-1"}`)
	for _, bad := range []string{"", "ana", "Ana <ana@example.com>", "ana@example.com, ben@example.com", "ana@example.com\r\nBcc: evil@example.com", "ana@example.com\n", " ana@example.com", "<ana@example.com>", "\"a b\"@example.com"} {
		if _, err := mail.New(c, bad); err == nil || !strings.Contains(err.Error(), mail.Setting) {
			t.Errorf("%q may send: %v", bad, err)
		}
		s, err := mail.New(c, "approvals@example.com")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Send(t.Context(), mail.Message{To: bad}); access.KindOf(err) != access.Invalid {
			t.Errorf("%q is sent to: %v", bad, err)
		}
	}
}

func TestSESRefuses(t *testing.T) {
	c, _ := ses(t, http.StatusBadRequest, `{"message": "Email address is not verified."}`)
	s, err := mail.New(c, "approvals@example.com")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Send(t.Context(), mail.Message{To: "ana@example.com", Subject: "s", HTML: "h", Text: "t"})
	if access.KindOf(err) != access.Unavailable || !strings.Contains(err.Error(), mail.Setting) || !strings.Contains(err.Error(), "MessageRejected") {
		t.Error(err)
	}
}
