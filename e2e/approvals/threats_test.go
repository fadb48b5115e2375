package approvals_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"sallyport/e2e/stacktest"
)

const asJSON = "application/json"

// Threat A1: what was approved is exactly one request; any other asks for itself.
func TestA1AnotherRequest(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, target := configMap(t, s, "a1-")
	other, otherTarget := configMap(t, s, "a1-")
	body := `{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}`
	id := ahead(t, agent, "DELETE", target, asJSON, body)
	ana.Approve(t, id)
	for what, r := range map[string][4]string{
		"another object":        {"DELETE", otherTarget, asJSON, body},
		"another body":          {"DELETE", target, asJSON, strings.Replace(body, "Background", "Orphan", 1)},
		"the body spelled anew": {"DELETE", target, asJSON, strings.Replace(body, ",", ", ", 1)},
		"no body":               {"DELETE", target, "", ""},
		"another media type":    {"DELETE", target, asJSON + "; charset=utf-8", body},
		"another query":         {"DELETE", target + "?gracePeriodSeconds=1", asJSON, body},
		"a field manager":       {"DELETE", target + "?fieldManager=me", asJSON, body},
		"dry run":               {"DELETE", target + "?dryRun=All", asJSON, body},
		"the collection":        {"DELETE", "/api/v1/namespaces/dev/configmaps?labelSelector=no%3Dsuch", asJSON, body},
	} {
		if got := send(t, agent, "", r[0], r[1], r[2], r[3], "Sallyport-Ask: ahead"); got.Code != http.StatusAccepted || cause(got, "Approval") == id {
			t.Errorf("%s: %v", what, got)
		}
	}
	if !there(t, s, name) || !there(t, s, other) {
		t.Fatal("one of them passed")
	}
	stranger := s.Agent(t, "agents")
	if got := ahead(t, stranger, "DELETE", target, asJSON, body); got == id {
		t.Error("another agent joined the approval")
	}
	if got := send(t, agent, "", "DELETE", target, asJSON, body); got.Code != http.StatusOK {
		t.Errorf("the approved request: %v", got)
	}
	if there(t, s, name) {
		t.Error("it is still there")
	}
}

// Threat A2: a target that was made anew since it was approved is another target.
func TestA2AnotherTarget(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	for what, change := range map[string]func(name string){
		"deleted and made again": func(name string) {
			s.Admin(t, "delete", "configmap", name, "-n", "dev")
			s.Create(t, fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: %s, namespace: dev}\ndata: {color: blue}\n", name))
		},
		"changed": func(name string) {
			s.Admin(t, "patch", "configmap", name, "-n", "dev", "-p", `{"data":{"color":"red"}}`)
		},
	} {
		name, target := configMap(t, s, "a2-")
		id := ahead(t, agent, "DELETE", target, "", "")
		ana.Approve(t, id)
		change(name)
		if got := send(t, agent, "", "DELETE", target, "", ""); got.Code != http.StatusConflict || !strings.Contains(got.Body, "withdrawn") {
			t.Errorf("%s: %v", what, got)
		}
		if !there(t, s, name) {
			t.Errorf("%s: it was deleted", what)
		}
		ana.Reached(t, id, "withdrawn")
		if again := ahead(t, agent, "DELETE", target, "", ""); again == id {
			t.Errorf("%s: the same approval again", what)
		}
	}
	// The status of an object is not the object: a Deployment whose pods come and go is the same one.
	deployment := "a2-" + stacktest.Word()
	s.Create(t, strings.ReplaceAll(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: NAME, namespace: dev}, spec: {replicas: 0, selector: {matchLabels: {app: NAME}}, template: {metadata: {labels: {app: NAME}}, spec: {containers: [{name: c, image: localhost/web:1}]}}}}`, "NAME", deployment))
	id := ahead(t, agent, "DELETE", "/apis/apps/v1/namespaces/dev/deployments/"+deployment, "", "")
	ana.Approve(t, id)
	s.Admin(t, "patch", "deployment", deployment, "-n", "dev", "--subresource=status", "--type=merge", "-p", `{"status":{"observedGeneration":7}}`)
	if got := send(t, agent, "", "DELETE", "/apis/apps/v1/namespaces/dev/deployments/"+deployment, "", ""); got.Code != http.StatusOK {
		t.Errorf("after its status changed: %v", got)
	}
}

// broker invokes the broker's functions as the proxy does: what a stolen proxy could ask.
func broker(t *testing.T, s *stacktest.Stack, function string, event any) map[string]any {
	t.Helper()
	out, err := invoke(t.Context(), s, s.ProxyEnvironment(t), function, event)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func invoke(ctx context.Context, s *stacktest.Stack, env []string, function string, event any) (map[string]any, error) {
	client := lambda.New(lambda.Options{Region: s.AWS.Region, BaseEndpoint: aws.String(s.AWS.Endpoint), Credentials: credentials.NewStaticCredentialsProvider(
		stacktest.Lookup(env, "AWS_ACCESS_KEY_ID"), stacktest.Lookup(env, "AWS_SECRET_ACCESS_KEY"), stacktest.Lookup(env, "AWS_SESSION_TOKEN"))})
	payload, err := json.Marshal(event)
	if err != nil {
		return nil, err
	}
	res, err := client.Invoke(ctx, &lambda.InvokeInput{FunctionName: &function, Payload: payload})
	if err != nil {
		return nil, err
	}
	var out map[string]any
	return out, json.Unmarshal(res.Payload, &out)
}

// redeem is the event with which the proxy redeems an approval.
func redeem(s *stacktest.Stack, agent *stacktest.Agent, id, method, target string, live json.RawMessage) map[string]any {
	evidence := map[string]any{}
	if live != nil {
		evidence["live"] = live
	}
	return map[string]any{"redeem": map[string]any{"subject_token": agent.Token, "cluster": s.Cluster.Name, "raw": map[string]any{"method": method, "target": target},
		"evidence": evidence, "approval": id, "session": "s", "request": "r-" + stacktest.Word()}}
}

func live(t *testing.T, s *stacktest.Stack, name string) json.RawMessage {
	t.Helper()
	return json.RawMessage(s.Admin(t, "get", "configmap", name, "-n", "dev", "-o", "json"))
}

// Threat A3: fifty at once, over two tasks and past them, and exactly one passes.
func TestA3FiftyAtOnce(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	second := s.StartProxy(t)
	name, target := configMap(t, s, "a3-")
	id := ahead(t, agent, "DELETE", target, "", "")
	ana.Approve(t, id)
	var mu sync.Mutex
	codes := map[int]int{}
	var wg sync.WaitGroup
	for i := range 50 {
		gate := []string{s.Proxy.URL, second.URL}[i%2]
		wg.Go(func() {
			got := send(t, agent, gate, "DELETE", target, "", "")
			mu.Lock()
			codes[got.Code]++
			mu.Unlock()
		})
	}
	wg.Wait()
	if codes[http.StatusOK] != 1 || there(t, s, name) {
		t.Errorf("50 at once were answered %v; want one 200", codes)
	}
	if minted := elevated(t, agent); minted != 1 {
		t.Errorf("%d credentials were minted, want 1", minted)
	}

	// By direct Invoke, as a stolen proxy would.
	agent = s.Agent(t, "agents")
	name, target = configMap(t, s, "a3-")
	id = ahead(t, agent, "DELETE", target, "", "")
	ana.Approve(t, id)
	object, env := live(t, s, name), s.ProxyEnvironment(t)
	tokens := 0
	for range 50 {
		wg.Go(func() {
			out, err := invoke(t.Context(), s, env, "sallyport-exchange", redeem(s, agent, id, "DELETE", target, object))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if out["token"] != nil {
				tokens++
			}
		})
	}
	wg.Wait()
	if tokens != 1 || elevated(t, agent) != 1 {
		t.Errorf("50 redemptions gave %d tokens and %d credentials; want one", tokens, elevated(t, agent))
	}
}

// Threats A4, A6, A16: what the policy says now holds, votes count by people, and a changed policy is announced.
func TestLivingPolicy(t *testing.T) {
	s := stacktest.Get(t)
	p := s.Policy(t)
	sent := len(s.Inbox(t))
	p.Add(
		`{name: two-people, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: ["^two-.*$"], quorum: 2}`,
		`{name: by-link, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: ["^link-.*$"], links: alone, quorum: 2}`,
	)
	ana, ben := s.Reviewer(t, "ana@example.com"), s.Reviewer(t, "ben@example.com")
	stacktest.Eventually(t, within, func() string { // A16
		for _, m := range s.Inbox(t)[sent:] {
			if strings.Contains(strings.ToLower(m.Subject+m.Text), "policy") && strings.Contains(m.Text, "two-people") {
				return ""
			}
		}
		return "nobody was told that the policy changed"
	})

	// A6
	agent := s.Agent(t, "agents")
	name, target := configMap(t, s, "two-")
	id := ahead(t, agent, "DELETE", target, "", "")
	ana.Approve(t, id)
	for _, email := range []string{"ana@example.com", "Ana@Example.com"} {
		again := s.Reviewer(t, email)
		if r := again.Do(t, "POST", "/api/approvals/"+id+"/approve", map[string]any{}); r.Code == http.StatusOK {
			t.Errorf("%s was counted twice: %v", email, r)
		}
	}
	if a, _ := ana.Show(t, id); a.State != "pending" {
		t.Fatalf("one person of two made it %s", a.State)
	}
	ben.Approve(t, id)
	if got := send(t, agent, "", "DELETE", target, "", ""); got.Code != http.StatusOK || there(t, s, name) {
		t.Errorf("after two people said yes: %v", got)
	}

	// A14: a link decides alone only where a rule says so, as one person, once.
	name, target = configMap(t, s, "link-")
	agent = s.Agent(t, "agents")
	id = ahead(t, agent, "DELETE", target, "", "")
	links := mailLinks(t, s, name)
	if len(links) != len(stacktest.People) || links["ana@example.com"] == links["ben@example.com"] {
		t.Fatalf("links %v", links)
	}
	for range 2 {
		get(t, links["ana@example.com"])
	}
	if a, _ := ana.Show(t, id); len(a.Votes) != 0 {
		t.Fatal("a GET decided")
	}
	page := submit(t, links["ana@example.com"], "approve", "")
	if page.code != http.StatusOK {
		t.Fatalf("a link alone, by POST: %v", page)
	}
	if a, _ := ana.Show(t, id); len(a.Votes) != 1 || a.Votes[0].By.Email != "ana@example.com" || a.Votes[0].By.Channel != "mail" {
		t.Fatalf("votes %+v", a.Votes)
	}
	if page := submit(t, links["ana@example.com"], "approve", ""); page.code == http.StatusOK && !strings.Contains(page.body, "used") {
		t.Errorf("the same link twice: %v", page)
	}
	if r := ana.Do(t, "POST", "/api/approvals/"+id+"/approve", map[string]any{}); r.Code == http.StatusOK {
		t.Errorf("ana was counted twice, by mail and by page: %v", r)
	}

	// A4: a yes given under a policy that no longer asks, or asks by another rule, is worth nothing.
	agent = s.Agent(t, "agents")
	name, target = configMap(t, s, "policy-")
	id = ahead(t, agent, "DELETE", target, "", "")
	ana.Approve(t, id)
	p.Add(`{name: frozen, effect: deny, verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: ["^policy-.*$"]}`)
	if got := send(t, agent, "", "DELETE", target, "", ""); got.Code != http.StatusForbidden {
		t.Errorf("denied by now: %v", got)
	}
	if out := broker(t, s, "sallyport-exchange", redeem(s, agent, id, "DELETE", target, live(t, s, name))); out["token"] != nil {
		t.Errorf("the broker redeemed what the policy denies: %v", out)
	}
	p.Add(`{name: stricter, effect: ask, verbs: [delete], groups: [agents], apiGroups: [""], resources: [configmaps], resourceNames: ["^policy-.*$"], quorum: 2}`)
	if out := broker(t, s, "sallyport-exchange", redeem(s, agent, id, "DELETE", target, live(t, s, name))); out["token"] != nil {
		t.Errorf("the broker redeemed what another rule asks: %v", out)
	}
	if !there(t, s, name) {
		t.Error("it was deleted")
	}
}

// Threat A4: nothing is decided after the time is up, nor used.
func TestA4Late(t *testing.T) {
	s := stacktest.Get(t)
	p := s.Policy(t)
	p.Change(func(text string) string {
		text = regexp.MustCompile(`(?m)^reviewers:\n( *)`).ReplaceAllString(text, "reviewers:\n${1}- {name: leads, issuer: '"+s.Issuer.URL+"', audience: sallyport-reviews, people: [dee@example.com]}\n${1}")
		return stacktest.AddRules(t, text, `{name: short, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [configmaps], resourceNames: ["^short-.*$"], quorum: 2, expires: 1m, remind: 10s, escalate: {after: 20s, reviewers: [leads]}}`)
	})
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	ben := s.Reviewer(t, "ben@example.com")
	kept, keptTarget := configMap(t, s, "short-")
	used, usedTarget := configMap(t, s, "short-")
	waiting := agent.Start(t, "delete", "configmap", kept, "-n", "dev")
	a := ana.Await(t, agent)
	approved := ahead(t, agent, "DELETE", usedTarget, "", "")
	ana.Approve(t, approved)
	ben.Approve(t, approved)
	if code := waiting.Ended(90 * time.Second); code == 0 || !strings.Contains(waiting.Text(), "nobody of ") {
		t.Errorf("kubectl ended with %d: %s", code, waiting.Text())
	}
	if r := ana.Do(t, "POST", "/api/approvals/"+a.ID+"/approve", map[string]any{}); r.Code == http.StatusOK {
		t.Errorf("a late yes was taken: %v", r)
	}
	a = ana.Reached(t, a.ID, "expired")
	if a.Happened("reminded") == 0 || a.Happened("escalated") != 1 {
		t.Errorf("its history is %+v", a.History)
	}
	if out := broker(t, s, "sallyport-exchange", redeem(s, agent, a.ID, "DELETE", keptTarget, live(t, s, kept))); out["token"] != nil {
		t.Errorf("an expired approval was redeemed: %v", out)
	}
	stacktest.Eventually(t, 30*time.Second, func() string {
		if got, _ := ana.Show(t, approved); got.State != "expired" {
			return got.State
		}
		return ""
	})
	if got := ahead(t, agent, "DELETE", usedTarget, "", ""); got == approved {
		t.Error("a yes that was not used in time is joined")
	}
	if !there(t, s, kept) || !there(t, s, used) {
		t.Error("one was deleted")
	}
}

// Threats A5 and A13: never the requester, nor the owner, nor somebody whom another issuer, audience or claim calls a reviewer.
func TestA5A13WhoMayNotAnswer(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	_, target := configMap(t, s, "a5-")
	ana := s.Reviewer(t, "ana@example.com")
	for what, args := range map[string][]string{
		"the requester":              {"--subject", "ana@example.com", "--groups", "agents"},
		"the owner":                  {"--subject", "bot-" + stacktest.Word(), "--groups", "agents", "--claim", "owner=ana@example.com"},
		"the owner in other letters": {"--subject", "bot-" + stacktest.Word(), "--groups", "agents", "--claim", "owner=ANA@example.com"},
		"the owner by account":       {"--subject", "bot-" + stacktest.Word(), "--groups", "agents", "--claim", "owner=ana"},
	} {
		agent := s.Agent(t, "agents")
		agent.Token = s.Token(t, args...)
		id := ahead(t, agent, "DELETE", target, "", "")
		if r := ana.Do(t, "POST", "/api/approvals/"+id+"/approve", map[string]any{}); r.Code != http.StatusForbidden || r.Message == "" {
			t.Errorf("%s: %v", what, r)
		}
		if a, _ := ana.Show(t, id); a.State != "pending" || len(a.Votes) != 0 || a.Happened("refused") == 0 {
			t.Errorf("%s: it is %s, with history %+v", what, a.State, a.History)
		}
		if r := pressed(t, s, "ana@example.com", "approve", id); strings.Contains(r, "approved") {
			t.Errorf("%s, in Slack: %s", what, r)
		}
		if a, _ := ana.Show(t, id); len(a.Votes) != 0 {
			t.Errorf("%s, in Slack: %+v", what, a.Votes)
		}
		s.Reviewer(t, "ben@example.com").Deny(t, id, "cleaning up")
	}
	agent := s.Agent(t, "agents")
	id := ahead(t, agent, "DELETE", target, "", "")
	for what, args := range map[string][]string{
		"a token for the gate":     {"--subject", "ana@example.com", "--claim", "email=ana@example.com", "--claim", "email_verified=true"},
		"a CI token":               {"--subject", "ci", "--groups", "agents", "--claim", "email=ana@example.com", "--claim", "email_verified=true"},
		"an address not verified":  {"--subject", "x", "--audience", "sallyport-reviews", "--claim", "email=ana@example.com"},
		"verified only in words":   {"--subject", "x", "--audience", "sallyport-reviews", "--claim", "email=ana@example.com", "--claim", `email_verified="yes"`},
		"a stranger":               {"--reviewer", "eve@example.com"},
		"no address":               {"--subject", "ana@example.com", "--audience", "sallyport-reviews"},
		"two audiences":            {"--reviewer", "ana@example.com", "--claim", `aud=["sallyport-reviews","sallyport"]`},
		"an expired token":         {"--reviewer", "ana@example.com", "--expires", "-1m"},
		"an address that looks so": {"--reviewer", "ana@example.com.evil.example"},
	} {
		who := &stacktest.Reviewer{}
		*who = *ana
		who.Token = s.Token(t, args...)
		for _, verb := range []string{"approve", "deny"} {
			if r := who.Do(t, "POST", "/api/approvals/"+id+"/"+verb, map[string]any{"reason": "x"}); r.Code != http.StatusForbidden && r.Code != http.StatusUnauthorized {
				t.Errorf("%s may %s: %v", what, verb, r)
			}
		}
		if r := who.Do(t, "GET", "/api/approvals?state=pending", nil); r.Code == http.StatusOK {
			t.Errorf("%s sees the list: %v", what, r)
		}
	}
	if a, _ := ana.Show(t, id); a.State != "pending" || len(a.Votes) != 0 {
		t.Errorf("it is %s with votes %+v", a.State, a.Votes)
	}
}

// Threat A9: what would deceive a reviewer is made visible, in every channel; what cannot be shown whole cannot be approved.
func TestA9HostileText(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	pod := s.Pod(t, "dev")
	hostile := "echo \u202egnp.exe\u200b <!channel> <https://evil.example|click> *bold* `code` <script>alert(1)</script> \x1b[31m"
	exec := "/api/v1/namespaces/dev/pods/" + pod + "/exec?command=sh&command=-c&stdout=1&command=" + escape(hostile)
	id := ahead(t, agent, "GET", exec, "", "", append([]string{"Sallyport-Reason: UTF-8''" + escape("pre-approved by SRE \u202eevil\u2066 <!here>")}, upgrade...)...)
	a, view := ana.Show(t, id)
	everything := fmt.Sprint(a, view)
	for _, bad := range []string{"\u202e", "\u200b", "\u2066", "\x1b"} {
		if strings.Contains(everything, bad) {
			t.Errorf("the API shows %q as it is", bad)
		}
	}
	if len(view.Argv) != 3 || !strings.Contains(strings.ToLower(view.Argv[2]), "202e") || !strings.Contains(view.Argv[2], "<!channel>") {
		t.Errorf("argv %q", view.Argv)
	}
	page := browse(t, s, ana, "/approvals/"+id)
	if strings.Contains(page, "<script>alert") || strings.Contains(page, "\u202e") || !strings.Contains(page, "&lt;script&gt;") {
		t.Errorf("the page shows hostile text as it is:\n%s", page)
	}
	lower := strings.ToLower(page)
	if !strings.Contains(lower, "own words") || !strings.Contains(page, "pre-approved by SRE") { // A11
		t.Error("the agent's reason is not labelled as its own words")
	}
	var sent []stacktest.Message
	stacktest.Eventually(t, within, func() string {
		sent = nil
		var slack, mail bool
		for _, m := range s.Inbox(t) {
			if strings.Contains(m.Text, id) || strings.Contains(strings.Join(m.Links, " "), id) || strings.Contains(m.Text, pod) {
				sent = append(sent, m)
				slack, mail = slack || m.Channel == "slack", mail || m.Channel == "mail"
			}
		}
		if !slack || !mail {
			return fmt.Sprintf("it was sent to Slack: %v, by mail: %v", slack, mail)
		}
		return ""
	})
	for _, m := range sent {
		for _, bad := range []string{"\u202e", "\u200b", "<!channel>", "<!here>", "<https://evil.example"} {
			invisible := !strings.HasPrefix(bad, "<") // in blocks of text that nobody parses for markup, < is a character like any other
			if invisible && strings.Contains(m.Text, bad) || strings.Contains(m.Subject, bad) || strings.Contains(string(m.Blocks), `"mrkdwn"`) {
				t.Errorf("%s shows %q as it is:\n%s", m.Channel, bad, m.Text)
			}
		}
	}
	long := "/api/v1/namespaces/dev/pods/" + pod + "/exec?stdout=1&command=" + strings.Repeat("a", 40<<10)
	if got := send(t, agent, "", "GET", long, "", "", append([]string{"Sallyport-Ask: ahead"}, upgrade...)...); got.Code != http.StatusForbidden || !strings.Contains(got.Body, "shown whole") {
		t.Errorf("an argv of 40 KiB: %.600v", got)
	}
}

// Threat A10: identical asks are one question, and a flood of different ones cannot drown the reviewers.
func TestA10Flood(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, target := configMap(t, s, "a10-")
	ids := map[string]bool{}
	for range 5 {
		ids[ahead(t, agent, "DELETE", target, "", "")] = true
	}
	if len(ids) != 1 {
		t.Errorf("the same ask five times is %d approvals", len(ids))
	}
	opened, limited := 1, 0
	for i := range 60 {
		got := send(t, agent, "", "DELETE", fmt.Sprintf("%s?gracePeriodSeconds=%d", target, i+1), "", "", "Sallyport-Ask: ahead")
		switch got.Code {
		case http.StatusAccepted:
			opened++
		case http.StatusTooManyRequests:
			limited++
		default:
			t.Fatalf("%v", got)
		}
	}
	if opened > 20 || limited < 40 {
		t.Errorf("of 61 different asks %d were opened and %d refused", opened, limited)
	}
	var mine int
	for _, a := range ana.List(t, "pending") {
		if a.Principal.Subject == agent.Subject {
			mine++
		}
	}
	if mine != opened {
		t.Errorf("%d are pending, %d were opened", mine, opened)
	}
	if other := ahead(t, s.Agent(t, "agents"), "DELETE", target, "", ""); other == "" || !there(t, s, name) {
		t.Error("another agent is limited too")
	}
}

// Threat A15: the broker believes neither the proxy's reading of a request nor an approval's id.
func TestA15AProxyThatLies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, ana := s.Agent(t, "agents"), s.Reviewer(t, "ana@example.com")
	name, target := configMap(t, s, "a15-")
	id := ahead(t, agent, "DELETE", target, "", "")
	ana.Approve(t, id)
	object := live(t, s, name)
	good := redeem(s, agent, id, "DELETE", target, object)
	for what, change := range map[string]func(map[string]any){
		"another request": func(r map[string]any) {
			r["raw"] = map[string]any{"method": "DELETE", "target": target + "?dryRun=All"}
		},
		"a bigger request": func(r map[string]any) {
			r["raw"] = map[string]any{"method": "DELETE", "target": "/api/v1/namespaces/dev/configmaps"}
		},
		"another agent's token": func(r map[string]any) { r["subject_token"] = s.Agent(t, "agents").Token },
		"no token":              func(r map[string]any) { r["subject_token"] = "" },
		"a forged token":        func(r map[string]any) { r["subject_token"] = agent.Token[:len(agent.Token)-4] + "AAAA" },
		"a reviewer's token":    func(r map[string]any) { r["subject_token"] = ana.Token },
		"another cluster":       func(r map[string]any) { r["cluster"] = "other" },
		"another approval":      func(r map[string]any) { r["approval"] = strings.Repeat("a", 26) },
		"no approval":           func(r map[string]any) { r["approval"] = "" },
	} {
		copied := map[string]any{}
		for k, v := range good["redeem"].(map[string]any) {
			copied[k] = v
		}
		change(copied)
		if out := broker(t, s, "sallyport-exchange", map[string]any{"redeem": copied}); out["token"] != nil || out["error"] == nil {
			t.Errorf("%s: %v", what, out)
		}
	}
	if a, _ := ana.Show(t, id); a.State != "approved" {
		t.Errorf("after all that it is %s", a.State)
	}
	if out := broker(t, s, "sallyport-exchange", good); out["token"] == nil {
		t.Errorf("the approved request: %v", out)
	}
	if out := broker(t, s, "sallyport-exchange", good); out["token"] != nil {
		t.Error("twice")
	}
	// Evidence of another target withdraws the approval, so each case has one of its own.
	for what, change := range map[string]func(object string) map[string]any{
		"another target": func(object string) map[string]any {
			return map[string]any{"live": json.RawMessage(strings.Replace(object, `"uid": "`, `"uid": "x`, 1))}
		},
		"a target that is gone": func(string) map[string]any { return map[string]any{"missing": true} },
	} {
		name, target := configMap(t, s, "a15-")
		id := ahead(t, agent, "DELETE", target, "", "")
		ana.Approve(t, id)
		object := live(t, s, name)
		lie := redeem(s, agent, id, "DELETE", target, object)
		lie["redeem"].(map[string]any)["evidence"] = change(string(object))
		if out := broker(t, s, "sallyport-exchange", lie); out["token"] != nil || out["error"] == nil {
			t.Errorf("%s: %v", what, out)
		}
		ana.Reached(t, id, "withdrawn")
	}
	// A reviewer sees what the broker computed, whatever the proxy says it is: there is nothing else to say it with.
	open := map[string]any{"open": map[string]any{"subject_token": agent.Token, "cluster": s.Cluster.Name, "raw": map[string]any{"method": "DELETE", "target": "/api/v1/namespaces/dev/pods/x"},
		"evidence": map[string]any{}, "session": "s", "request": "r", "kubectl": "kubectl get pods", "sentence": "harmless"}}
	out := broker(t, s, "sallyport-review", open)
	approval, _ := out["approval"].(map[string]any)
	if approval == nil {
		t.Fatalf("opening: %v", out)
	}
	if a, _ := ana.Show(t, approval["id"].(string)); !strings.Contains(a.Kubectl, "delete") || strings.Contains(a.Sentence, "harmless") {
		t.Errorf("the reviewer sees %q, %q", a.Kubectl, a.Sentence)
	}
	for what, event := range map[string]any{
		"what the policy allows": map[string]any{"method": "GET", "target": "/api/v1/namespaces/dev/pods"},
		"what the policy denies": map[string]any{"method": "GET", "target": "/api/v1/namespaces/dev/secrets/db"},
	} {
		open["open"].(map[string]any)["raw"] = event
		if out := broker(t, s, "sallyport-review", open); out["approval"] != nil {
			t.Errorf("%s was asked: %v", what, out)
		}
	}
}
