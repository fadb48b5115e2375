package approvals_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/secretsmanager"

	"sallyport/e2e/stacktest"
)

// upgrade are the lines that ask for a WebSocket.
var upgrade = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Protocol: v5.channel.k8s.io"}

func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// page is an answer in HTML.
type page struct {
	code int
	body string
	url  string
}

func (p page) String() string { return fmt.Sprintf("%d %s %.1500s", p.code, p.url, p.body) }

func read(t *testing.T, res *http.Response, err error) page {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return page{res.StatusCode, string(b), res.Request.URL.String()}
}

func get(t *testing.T, address string) page {
	t.Helper()
	res, err := http.Get(address)
	return read(t, res, err)
}

var (
	formRE  = regexp.MustCompile(`(?s)<form[^>]*method="post"[^>]*>.*?</form>`)
	inputRE = regexp.MustCompile(`<input[^>]*>`)
	attrRE  = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
)

// fields are the hidden fields of the form of a page that posts a decision.
func fields(body, decision string) (action string, values url.Values) {
	values = url.Values{}
	for _, form := range formRE.FindAllString(body, -1) {
		if !strings.Contains(form, `value="`+decision+`"`) {
			continue
		}
		for _, a := range attrRE.FindAllStringSubmatch(form[:strings.Index(form, ">")], -1) {
			if a[1] == "action" {
				action = html.UnescapeString(a[2])
			}
		}
		for _, in := range inputRE.FindAllString(form, -1) {
			attrs := map[string]string{}
			for _, a := range attrRE.FindAllStringSubmatch(in, -1) {
				attrs[a[1]] = html.UnescapeString(a[2])
			}
			if attrs["type"] == "hidden" {
				values.Set(attrs["name"], attrs["value"])
			}
		}
		return action, values
	}
	return "", values
}

// submit opens a page without a login and posts its form.
func submit(t *testing.T, address, decision, reason string) page {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	res, err := client.Get(address)
	first := read(t, res, err)
	action, values := fields(first.body, decision)
	values.Set("verdict", decision)
	if reason != "" {
		values.Set("reason", reason)
	}
	at, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	if action != "" {
		if at, err = at.Parse(action); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.String(), strings.NewReader(values.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", at.Scheme+"://"+at.Host)
	res, err = client.Do(req)
	return read(t, res, err)
}

// mailLinks are the links that were mailed about something, by person.
func mailLinks(t *testing.T, s *stacktest.Stack, about string) map[string]string {
	t.Helper()
	links := map[string]string{}
	stacktest.Eventually(t, within, func() string {
		for _, m := range s.Inbox(t) {
			if m.Channel != "mail" || !strings.Contains(m.Text+m.Subject, about) {
				continue
			}
			for _, l := range m.Links {
				if strings.Contains(l, "/link/") {
					links[m.To] = l
				}
			}
		}
		if len(links) == len(stacktest.People) {
			return ""
		}
		return fmt.Sprintf("mails with links: %v", links)
	})
	return links
}

// login is a browser in which a person logged in by the issuer's page.
func login(t *testing.T, s *stacktest.Stack, email string) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Jar: jar}
	res, err := client.Get(s.Reviews.URL + "/login")
	p := read(t, res, err)
	forms := formRE.FindAllString(p.body, -1)
	if len(forms) == 0 {
		t.Fatalf("no login page: %v", p)
	}
	at, err := url.Parse(p.url)
	if err != nil {
		t.Fatal(err)
	}
	values := url.Values{}
	for _, in := range inputRE.FindAllString(forms[0], -1) {
		attrs := map[string]string{}
		for _, a := range attrRE.FindAllStringSubmatch(in, -1) {
			attrs[a[1]] = html.UnescapeString(a[2])
		}
		if attrs["type"] == "hidden" {
			values.Set(attrs["name"], attrs["value"])
		}
	}
	for _, a := range attrRE.FindAllStringSubmatch(forms[0][:strings.Index(forms[0], ">")], -1) {
		if a[1] == "action" {
			if at, err = at.Parse(html.UnescapeString(a[2])); err != nil {
				t.Fatal(err)
			}
		}
	}
	values.Set("email", email)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, at.String(), strings.NewReader(values.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Origin", at.Scheme+"://"+at.Host)
	res, err = client.Do(req)
	if p := read(t, res, err); p.code != http.StatusOK || !strings.HasPrefix(p.url, s.Reviews.URL) {
		t.Fatalf("logging in as %s: %v", email, p)
	}
	return client
}

// browse is a page as a person who logged in sees it.
func browse(t *testing.T, s *stacktest.Stack, r *stacktest.Reviewer, path string) string {
	t.Helper()
	res, err := login(t, s, r.Email).Get(s.Reviews.URL + path)
	p := read(t, res, err)
	if p.code != http.StatusOK {
		t.Fatalf("%s: %v", path, p)
	}
	return p.body
}

// Threat A7, A14: looking decides nothing, whoever looks and however; a link by itself decides nothing unless a rule says so.
func TestA7A14Links(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, target := configMap(t, s, "a7-")
	id := ahead(t, agent, "DELETE", target, "", "")
	links := mailLinks(t, s, name)
	all := []string{s.Reviews.URL + "/approvals/" + id, s.Reviews.URL + "/api/approvals/" + id + "/approve", s.Reviews.URL + "/approvals/" + id + "/decision?verdict=approve", s.Reviews.URL + "/approvals/" + id + "/revoke", s.Reviews.URL + "/slack/interactions"}
	for _, l := range links {
		all = append(all, l, l+"?verdict=approve")
	}
	for _, m := range s.Inbox(t) {
		if strings.Contains(m.Text, name) {
			all = append(all, m.Links...)
		}
	}
	browser := login(t, s, "ana@example.com")
	for _, address := range all {
		for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodOptions} {
			for _, client := range []*http.Client{http.DefaultClient, browser} {
				req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("User-Agent", "Slackbot-LinkExpanding 1.0 (+https://api.slack.com/robots)")
				res, err := client.Do(req)
				read(t, res, err)
			}
		}
	}
	if a, _ := ana.Show(t, id); a.State != "pending" || len(a.Votes) != 0 {
		t.Fatalf("looking made it %s with votes %+v", a.State, a.Votes)
	}
	// The agent reads its owner's mail, follows the link and posts what it finds there.
	for who, l := range links {
		if p := submit(t, l, "approve", ""); strings.Contains(p.body, "approved by") {
			t.Errorf("the link of %s decided without a login: %v", who, p)
		}
		res, err := http.PostForm(l, url.Values{"verdict": {"approve"}})
		read(t, res, err)
	}
	// Nor does a page decide for whoever did not open it: another site's form, in a browser that is logged in.
	for _, header := range []map[string]string{{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {}} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Reviews.URL+"/approvals/"+id+"/decision", strings.NewReader("verdict=approve"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for k, v := range header {
			req.Header.Set(k, v)
		}
		res, err := browser.Do(req)
		if p := read(t, res, err); p.code < 400 {
			t.Errorf("a form of another site, %v: %v", header, p)
		}
	}
	if a, _ := ana.Show(t, id); a.State != "pending" || len(a.Votes) != 0 {
		t.Errorf("it is %s with votes %+v", a.State, a.Votes)
	}
	// Threat A12: nobody outside the broker sees a task token.
	for name, text := range outside(t, s) {
		if m := regexp.MustCompile(`(?i)task.?token["=: ]+[A-Za-z0-9+/=_-]{16,}`).FindString(text); m != "" {
			t.Errorf("%s holds a task token: %.60s", name, m)
		}
	}
}

// outside is what left the broker: the logs and the inbox.
func outside(t *testing.T, s *stacktest.Stack) map[string]string {
	t.Helper()
	all, err := s.Logs()
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(s.Inbox(t))
	if err != nil {
		t.Fatal(err)
	}
	all["inbox"] = string(b)
	return all
}

// slack is what is needed to play Slack: the signing secret, and who is who by the policy.
type slack struct {
	Secret        string
	Team, Channel string
	Users         map[string]string // e-mail address to user id
}

// signing is the stack's Slack, with the secret that the functions have.
func signing(t *testing.T, s *stacktest.Stack) slack {
	t.Helper()
	env := s.ProxyEnvironment(t)
	client := secretsmanager.New(secretsmanager.Options{Region: s.AWS.Region, BaseEndpoint: aws.String(s.AWS.Endpoint), Credentials: credentials.NewStaticCredentialsProvider(
		stacktest.Lookup(env, "AWS_ACCESS_KEY_ID"), stacktest.Lookup(env, "AWS_SECRET_ACCESS_KEY"), stacktest.Lookup(env, "AWS_SESSION_TOKEN"))})
	out, err := client.GetSecretValue(t.Context(), &secretsmanager.GetSecretValueInput{SecretId: aws.String("sallyport/slack")})
	if err != nil {
		t.Fatal(err)
	}
	var secret struct {
		SigningSecret string `json:"signing_secret"`
	}
	if err := json.Unmarshal([]byte(aws.ToString(out.SecretString)), &secret); err != nil || secret.SigningSecret == "" {
		t.Fatalf("the secret of Slack cannot be read: %v", err)
	}
	return slack{secret.SigningSecret, "T0123456789", "C0123456789", map[string]string{"ana@example.com": "U0000000ANA", "ben@example.com": "U0000000BEN", "chi@example.com": "U0000000CHI"}}
}

// press is the body that Slack posts when somebody presses a button.
func (k slack) press(email, action, id string) string {
	payload, _ := json.Marshal(map[string]any{
		"type": "block_actions", "team": map[string]any{"id": k.Team, "domain": "local"}, "user": map[string]any{"id": k.Users[email], "team_id": k.Team, "username": "x"},
		"channel": map[string]any{"id": k.Channel}, "container": map[string]any{"type": "message", "channel_id": k.Channel, "message_ts": "1.1"},
		"trigger_id": stacktest.Word(), "response_url": "https://evil.example/collect",
		"actions": []any{map[string]any{"action_id": action, "block_id": "b", "value": id, "type": "button", "action_ts": fmt.Sprint(time.Now().UnixNano())}},
	})
	return "payload=" + url.QueryEscape(string(payload))
}

// post posts a body as Slack does, signed at a time with a secret.
func (k slack) post(t *testing.T, s *stacktest.Stack, body, secret string, at time.Time, sent string) page {
	t.Helper()
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	fmt.Fprintf(mac, "v0:%s:%s", stamp, body)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Reviews.URL+"/slack/interactions", strings.NewReader(sent))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("X-Slack-Request-Timestamp", stamp)
	req.Header.Set("X-Slack-Signature", "v0="+hex.EncodeToString(mac.Sum(nil)))
	res, err := http.DefaultClient.Do(req)
	return read(t, res, err)
}

// pressed presses a button as a person, properly signed.
func pressed(t *testing.T, s *stacktest.Stack, email, action, id string) string {
	t.Helper()
	k := signing(t, s)
	body := k.press(email, action, id)
	return k.post(t, s, body, k.Secret, time.Now(), body).String()
}

// Threat A8: a button counts when Slack signed exactly these bytes a moment ago, once, for somebody who is enrolled.
func TestA8Slack(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	_, target := configMap(t, s, "a8-")
	id := ahead(t, agent, "DELETE", target, "", "")
	k := signing(t, s)
	body := k.press("ana@example.com", "approve", id)
	now := time.Now()
	stranger := k
	stranger.Users = map[string]string{"ana@example.com": "U0STRANGER"}
	elsewhere := k
	elsewhere.Team = "T0ELSEWHERE"
	strange, afar := stranger.press("ana@example.com", "approve", id), elsewhere.press("ana@example.com", "approve", id)
	for _, test := range []struct {
		what, signed, secret string
		at                   time.Time
		sent                 string
		slack                bool // it is Slack that says so, of somebody who may not
	}{
		{"another secret", body, "not the secret", now, body, false},
		{"no secret", body, "", now, body, false},
		{"an old timestamp", body, k.Secret, now.Add(-6 * time.Minute), body, false},
		{"a coming timestamp", body, k.Secret, now.Add(6 * time.Minute), body, false},
		{"one more field", body, k.Secret, now, body + "&x=1", false},
		{"the same form in other bytes", body, k.Secret, now, strings.ReplaceAll(body, "%2F", "%2f"), false},
		{"somebody not enrolled", strange, k.Secret, now, strange, true},
		{"another workspace", afar, k.Secret, now, afar, true},
	} {
		p := k.post(t, s, test.signed, test.secret, test.at, test.sent)
		if !test.slack && p.code != http.StatusUnauthorized && p.code != http.StatusForbidden {
			t.Errorf("%s: %v", test.what, p)
		}
		if a, _ := ana.Show(t, id); len(a.Votes) != 0 {
			t.Fatalf("%s decided: %v", test.what, p)
		}
	}
	if p := k.post(t, s, body, k.Secret, time.Now(), body); p.code != http.StatusOK {
		t.Fatalf("a button that was pressed: %v", p)
	}
	a := ana.Reached(t, id, "approved")
	if len(a.Votes) != 1 || a.Votes[0].By.Email != "ana@example.com" || a.Votes[0].By.Channel != "slack" {
		t.Errorf("votes %+v", a.Votes)
	}
	k.post(t, s, body, k.Secret, time.Now(), body) // again
	if a, _ := ana.Show(t, id); len(a.Votes) != 1 {
		t.Errorf("pressed twice: %+v", a.Votes)
	}
	// The one message says who decided, in place.
	stacktest.Eventually(t, within, func() string {
		n, told := 0, false
		for _, m := range s.Inbox(t) {
			if m.Channel == "slack" && strings.Contains(m.Text, agent.Subject) {
				n++
				told = told || strings.Contains(m.Text, "ana@example.com") && strings.Contains(strings.ToLower(m.Text), "approved")
			}
		}
		if n == 1 && told {
			return ""
		}
		return fmt.Sprintf("%d messages, told who decided: %v", n, told)
	})
}
