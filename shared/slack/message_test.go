package slack_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/slack"
	"sallyport/shared/slack/slacktest"
)

func question() slack.Question {
	return slack.Question{
		Approval: access.Approval{
			ID: "abcdefghijklmnopqrstuvwxyz", State: access.StatePending, Cluster: "dev",
			Principal: access.Principal{Issuer: "https://ci.example.com", Subject: "repo:acme/web", Agent: "deploy-bot", Owner: "zoe@example.com",
				RunLink: "https://ci.example.com/acme/web/runs/42"},
			Action:   access.Action{Verb: "patch", Resource: "deployments", Namespace: "prod", Name: "web"},
			Decision: access.Decision{Rule: "ask-prod", Tier: "operate", Obligations: access.Obligations{Quorum: 2}},
			Kubectl:  "kubectl patch deployment web -n prod", Sentence: "Change deployment web in prod.", Reason: "pre-approved by SRE",
			Opened: now, Expires: now.Add(15 * time.Minute), Reviewers: []string{"sre"},
		},
		View:    access.View{Diff: " replicas:\n-  2\n+  3\n", Affected: []access.Affected{{Kind: "Pod", Namespace: "prod", Name: "web-1", Owner: "ReplicaSet/web"}}},
		Choices: []access.Grant{{Scope: access.ScopeRequest}, {Scope: access.ScopeObject, Length: 30 * time.Minute}, {Scope: access.ScopeNamespace, Length: 90 * time.Minute}},
		Page:    "https://reviews.example.com/approvals/abcdefghijklmnopqrstuvwxyz",
		Now:     now,
	}
}

func made(t testing.TB, m slack.Message) slacktest.Message {
	t.Helper()
	b, err := json.Marshal(m.Blocks)
	if err != nil {
		t.Fatal(err)
	}
	if err := slacktest.Check(b); err != nil {
		t.Errorf("Slack would not take it, or would parse it: %v\n%s", err, b)
	}
	return slacktest.Message{Text: m.Text, Blocks: b}
}

func TestQuestionSaysEverything(t *testing.T) {
	q := question()
	q.View.Argv = []string{"sh", "-c", `echo "hi"`}
	q.View.Approximate, q.View.Notes = "the cluster fills in defaults", []string{"stdin is recorded, not approved"}
	q.Approval.Votes = []access.Vote{{By: access.Reviewer{Email: "ana@example.com"}, Yes: true}}
	m := made(t, q.Message())
	all := m.All()
	for _, want := range []string{
		"deploy-bot wants to patch deployments web in prod on dev", "repo:acme/web", "<https://ci.example.com/acme/web/runs/42>", "zoe@example.com",
		"ask-prod", "operate", "kubectl patch deployment web -n prod", "Change deployment web in prod.", "the agent's own words:\npre-approved by SRE",
		" replicas:\n-  2\n+  3", `2: "echo "hi""`, "Approximate: the cluster fills in defaults", "Pod prod/web-1 (ReplicaSet/web)", "stdin is recorded",
		"Expires in 15 min, at 2026-11-24 12:15 UTC", "Needs 2 people", "Yes so far: ana@example.com", "Asked: sre", "<" + q.Page + ">",
		"this object for 30 min", "this namespace for 1 h 30 min",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("%q is not said:\n%s", want, all)
		}
	}
	if d := cmp.Diff([]string{"approve", "approve-for", "deny"}, m.Actions()); d != "" {
		t.Error(d)
	}
}

func TestNoChoiceNoSelect(t *testing.T) {
	q := question()
	q.Choices = q.Choices[:1]
	if d := cmp.Diff([]string{"approve", "deny"}, made(t, q.Message()).Actions()); d != "" {
		t.Error(d)
	}
}

// What cannot be shown whole cannot be approved there.
func TestWhatIsCutCannotBeApproved(t *testing.T) {
	many := func(n int, line string) string { return strings.Repeat(line+"\n", n) }
	for name, test := range map[string]struct {
		change func(*slack.Question)
		says   string
	}{
		"diff":           {func(q *slack.Question) { q.View.Diff = many(500, "+ a: b") }, "more lines: see the page"},
		"one line":       {func(q *slack.Question) { q.View.Diff = many(1, strings.Repeat("x", 5000)) }, "1 more line: see the page"},
		"kubectl":        {func(q *slack.Question) { q.Approval.Kubectl = strings.Repeat("k", 5000) }, "3500 more characters of the command line"},
		"sentence":       {func(q *slack.Question) { q.Approval.Sentence = strings.Repeat("s", 5000) }, "of the sentence"},
		"reason":         {func(q *slack.Question) { q.Approval.Reason = strings.Repeat("r", 1001) }, "1 more characters of the reason"},
		"argv":           {func(q *slack.Question) { q.View.Argv = slices.Repeat([]string{"argument"}, 300) }, "more arguments"},
		"affected":       {func(q *slack.Question) { q.View.Affected = slices.Repeat(q.View.Affected, 40) }, "28 more objects"},
		"more than seen": {func(q *slack.Question) { q.View.More = 3 }, "3 more objects"},
		"notes":          {func(q *slack.Question) { q.View.Notes = slices.Repeat([]string{"note"}, 9) }, "3 more notes"},
		"long note":      {func(q *slack.Question) { q.View.Notes = []string{strings.Repeat("n", 400)} }, "of the note"},
		"approximate":    {func(q *slack.Question) { q.View.Approximate = strings.Repeat("n", 400) }, "of the note"},
		"agent":          {func(q *slack.Question) { q.Approval.Principal.Agent = strings.Repeat("n", 400) }, "of the agent"},
		"rule":           {func(q *slack.Question) { q.Approval.Decision.Rule = strings.Repeat("n", 400) }, "of the rule"},
		"everything": {func(q *slack.Question) {
			q.View.Diff, q.Approval.Kubectl, q.Approval.Sentence = many(500, "+ a: b"), strings.Repeat("k", 5000), strings.Repeat("s", 5000)
			q.Approval.Reason, q.View.Argv = strings.Repeat("r", 5000), slices.Repeat([]string{"argument"}, 300)
			q.View.Notes = slices.Repeat([]string{strings.Repeat("n", 400)}, 9)
			q.View.Approximate, q.Approval.Principal.Agent = strings.Repeat("n", 400), strings.Repeat("n", 400)
			q.Approval.Principal.Subject, q.Approval.Principal.Owner = q.Approval.Principal.Agent, q.Approval.Principal.Agent
			q.View.Affected = slices.Repeat([]access.Affected{{Kind: "Pod", Name: strings.Repeat("p", 253), Namespace: strings.Repeat("n", 63)}}, 40)
		}, "see the page"},
	} {
		q := question()
		test.change(&q)
		m := made(t, q.Message())
		if d := cmp.Diff([]string{"deny"}, m.Actions()); d != "" {
			t.Errorf("%s: %s", name, d)
		}
		if all := m.All(); !strings.Contains(all, test.says) || !strings.Contains(all, "approved only there") || !strings.Contains(all, "<"+q.Page+">") {
			t.Errorf("%s: %q is not said:\n%s", name, test.says, all)
		}
	}
}

func TestMessagesOfWhatIsOver(t *testing.T) {
	vote := func(yes bool, email, reason string) access.Vote {
		return access.Vote{By: access.Reviewer{Email: email}, Yes: yes, Reason: reason, At: now, Grant: access.Grant{Scope: access.ScopeRequest}}
	}
	for name, test := range map[string]struct {
		change func(*access.Approval)
		says   []string
	}{
		"approved": {func(a *access.Approval) {
			a.State, a.Votes = access.StateApproved, []access.Vote{vote(true, "ana@example.com", ""), vote(true, "ben@example.com", "fine")}
		},
			[]string{"Approved once by ana@example.com, ben@example.com", "ben@example.com said yes, this request once at 2026-11-24 12:00 UTC: fine"}},
		"granted": {func(a *access.Approval) {
			a.State, a.Until, a.Grant = access.StateGranted, now.Add(time.Hour), access.Grant{Scope: access.ScopeNamespace, Length: time.Hour}
			a.Votes = []access.Vote{vote(true, "ana@example.com", "")}
		}, []string{"Approved by ana@example.com, this namespace for 1 h, until 2026-11-24 13:00 UTC"}},
		"denied": {func(a *access.Approval) {
			a.State, a.Message, a.Votes = access.StateDenied, "x", []access.Vote{vote(true, "ana@example.com", ""), vote(false, "ben@example.com", "not in a freeze")}
		}, []string{"Denied by ben@example.com:", "said no at 2026-11-24 12:00 UTC: not in a freeze"}},
		"nobody":  {func(a *access.Approval) { a.State, a.Message = access.StateDenied, "set SALLYPORT_MAIL_FROM" }, []string{"Denied: nobody could be asked", "set SALLYPORT_MAIL_FROM"}},
		"expired": {func(a *access.Approval) { a.State = access.StateExpired }, []string{"Expired without an answer"}},
		"late":    {func(a *access.Approval) { a.Expires = now }, []string{"Expired without an answer"}},
		"unused": {func(a *access.Approval) {
			a.State, a.Votes = access.StateExpired, []access.Vote{vote(true, "ana@example.com", "")}
		}, []string{"Expired: "}},
		"spent": {func(a *access.Approval) {
			a.State, a.Votes = access.StateSpent, []access.Vote{vote(true, "ana@example.com", "")}
			a.Uses = []access.Use{{Request: "r", At: now, Code: 200}}
		}, []string{"Approved once by ana@example.com, and used", "Last used at 2026-11-24 12:00 UTC, answered 200"}},
		"withdrawn": {func(a *access.Approval) { a.State, a.Message = access.StateWithdrawn, "the object was replaced" }, []string{"Withdrawn", "the object was replaced"}},
		"revoked":   {func(a *access.Approval) { a.State, a.Message = access.StateRevoked, "enough" }, []string{"Revoked", "enough"}},
	} {
		q := question()
		test.change(&q.Approval)
		m := made(t, q.Message())
		if len(m.Actions()) > 0 {
			t.Errorf("%s: %v can be pressed", name, m.Actions())
		}
		all := m.All()
		for _, want := range append(test.says, "kubectl patch deployment web -n prod", "<"+q.Page+">") {
			if !strings.Contains(all, want) {
				t.Errorf("%s: %q is not said:\n%s", name, want, all)
			}
		}
	}
}

func TestChoices(t *testing.T) {
	for _, g := range question().Choices[1:] {
		id, got, err := slack.Chosen(slack.Value("abc", g))
		if err != nil || id != "abc" || got != g {
			t.Errorf("%v came back as %q %v, %v", g, id, got, err)
		}
	}
	for _, bad := range []string{"", "abc", "abc|", "abc|request:0s", "abc|object:0s", "abc|object:-5m", "abc|cluster:5m", "abc|object:", "abc|object:5", "abc|object:5m|x"} {
		if _, g, err := slack.Chosen(bad); err == nil {
			t.Errorf("%q is %v", bad, g)
		}
	}
}

// What an agent may write into names, argv, reasons and objects.
var hostile = []string{
	"<!here>", "<!channel|x>", "<@U024BE7LH>", "<#C024BE7LR>", "<https://evil.example.com|Approve>", "https://evil.example.com", "www.evil.example.com",
	"@here", "@channel", "@everyone", "&lt;!here&gt;", "&", "*bold*", "_it_", "~no~", "`code`", "```", "\n> quote", "\n\n", ":white_check_mark:", "mailto:a@b.c",
	`"}]`, `\u003c!here\u003e`, "\\", "<!date^1392734382^{date}|x>", "<!subteam^S1>", "\t", "'", "{{.}}", "\n*Approved by ana*\n", "[x](https://evil.example.com)", "http://evil", "evil.example.com", "\u202eevil", "é", "日本語",
}

var harmless = regexp.MustCompile(`^[A-Za-z0-9 ·…-]*(: [A-Za-z0-9 ·…-]*)?$`)

// However they are put together, they are shown letter by letter, and the only links are ours.
func TestHostileTextIsNoMarkup(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	nasty := func() string {
		var b strings.Builder
		for range 1 + r.IntN(5) {
			b.WriteString(hostile[r.IntN(len(hostile))])
		}
		return b.String()
	}
	states := []access.ApprovalState{access.StatePending, access.StateApproved, access.StateDenied, access.StateGranted, access.StateSpent, access.StateWithdrawn}
	for i := range 400 {
		q := question()
		a := &q.Approval
		for _, s := range []*string{&a.Principal.Agent, &a.Principal.Subject, &a.Principal.Owner, &a.Cluster, &a.Action.Verb, &a.Action.Resource, &a.Action.Namespace,
			&a.Action.Name, &a.Decision.Rule, &a.Decision.Tier, &a.Kubectl, &a.Sentence, &a.Reason, &a.Message, &q.View.Diff, &q.View.Approximate} {
			*s = nasty()
		}
		q.View.Argv, q.View.Notes = []string{nasty(), nasty()}, []string{nasty()}
		q.View.Affected = []access.Affected{{Kind: nasty(), Namespace: nasty(), Name: nasty(), Owner: nasty()}}
		a.State, a.Reviewers = states[i%len(states)], []string{nasty()}
		a.Votes = []access.Vote{{By: access.Reviewer{Email: nasty()}, Yes: i%2 == 0, Reason: nasty()}}
		if i%3 == 0 {
			a.Principal.RunLink = "javascript:alert(1)//" + nasty()
		}
		m := made(t, q.Message()) // Check refuses every element that is parsed
		if !harmless.MatchString(m.Text) {
			t.Fatalf("notifications show %q", m.Text)
		}
		for _, u := range links(t, m.Blocks) {
			if u != q.Page && u != "https://ci.example.com/acme/web/runs/42" {
				t.Fatalf("a link to %q", u)
			}
		}
		if !strings.Contains(m.All(), a.Kubectl) {
			t.Fatalf("%q is not shown as it is:\n%s", a.Kubectl, m.All())
		}
		made(t, slack.Announce(nasty(), nasty()))
	}
}

func links(t *testing.T, blocks []byte) (urls []string) {
	var v any
	if err := json.Unmarshal(blocks, &v); err != nil {
		t.Fatal(err)
	}
	var walk func(any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if u, ok := v["url"]; ok {
				urls = append(urls, fmt.Sprint(u))
			}
			for _, e := range v {
				walk(e)
			}
		case []any:
			for _, e := range v {
				walk(e)
			}
		}
	}
	walk(v)
	return urls
}

// An argument with a newline must not look like two arguments.
func TestArgumentsStandApart(t *testing.T) {
	q := question()
	q.View.Argv = []string{"echo", "a\n2: \"rm\""}
	if all := made(t, q.Message()).All(); !strings.Contains(all, `1: "a\n2: "rm""`) {
		t.Error(all)
	}
}
