package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-lambda-go/lambda/messages"
	"github.com/google/go-cmp/cmp"

	wire "sallyport/shared/broker"

	"sallyport/functions/inforce"
	"sallyport/functions/inforce/inforcetest"
	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/mail"
	"sallyport/shared/slack"
	"sallyport/shared/slack/slacktest"
	"sallyport/shared/store/storetest"
)

const policyText = `apiVersion: sallyport/v1
kind: Policy
audience: sallyport
issuers:
- {url: https://idp.example.com, algorithms: [ES256], groupsClaim: groups, owner: owner}
clusters:
- {name: dev, region: eu-west-1}
tiers:
- {name: operate, role: "arn:aws:iam::111122223333:role/sallyport/operate", group: "sallyport:operate", groups: [agents]}
reviewers:
- name: sre
  issuer: https://idp.example.com
  audience: sallyport-reviews
  people: [ana@example.com, Ben@example.com, chi@example.com]
  slack: {team: T0000000001, channel: C0000000SRE, users: {U0000000ANA: ana@example.com}}
- name: leads
  issuer: https://idp.example.com
  audience: sallyport-reviews
  people: [ana@example.com, dan@example.com]
  slack: {team: T0000000001, channel: C00000LEADS, users: {U0000000DAN: dan@example.com}}
- name: mailed
  issuer: https://idp.example.com
  audience: sallyport-reviews
  people: [eva@example.com]
asks: {reviewers: [sre], quorum: 1, expires: 15m}
rules:
- {name: read, effect: allow, groups: [agents], verbs: [get, list], apiGroups: [""], resources: [pods]}
- {name: deletes, effect: ask, groups: [agents], verbs: [delete], apiGroups: [""], resources: [pods]}
`

// mailbox takes mails.
type mailbox struct {
	mu   sync.Mutex
	got  []mail.Message
	fail map[string]error // by recipient; "" for all
}

func (m *mailbox) Send(_ context.Context, in mail.Message) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.fail[""]; err != nil {
		return "", err
	}
	if err := m.fail[in.To]; err != nil {
		return "", err
	}
	m.got = append(m.got, in)
	return fmt.Sprint(len(m.got)), nil
}

func (m *mailbox) to() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var to []string
	for _, in := range m.got {
		to = append(to, in.To)
	}
	slices.Sort(to)
	return to
}

// world is a notifier with all that it reaches for.
type world struct {
	*notifier
	t       *testing.T
	store   *storetest.ApprovalsMemory
	slack   *slacktest.Server
	mailbox *mailbox
	policy  *inforcetest.Bucket
	secret  string
	clock   time.Time
	log     *strings.Builder
	locked  *sync.Mutex
}

const id = "abcdefghijklmnopqrstuvwxyz"

type locked struct {
	mu *sync.Mutex
	b  *strings.Builder
}

func (l locked) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func newWorld(t *testing.T, change func(*access.Decision)) *world {
	w := &world{t: t, store: storetest.NewApprovals(), slack: slacktest.New(), mailbox: &mailbox{fail: map[string]error{}}, policy: &inforcetest.Bucket{},
		clock: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC), log: &strings.Builder{}, locked: &sync.Mutex{},
		secret: fmt.Sprintf(`{"signing_secret": "s", "bot_token": %q}`, slacktest.Token)}
	t.Cleanup(w.slack.Close)
	now := func() time.Time { return w.clock }
	log := slog.New(slog.NewJSONHandler(locked{w.locked, w.log}, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.policy.Put("v1", policyText)
	w.notifier = &notifier{
		approvals: w.store, policies: inforce.New(inforce.Config{Policies: w.policy.Follow, Keys: inforcetest.NewIssuers(now).Keys, Now: now, Log: log}),
		bucket: "sallyport-policy", pages: "https://reviews.example.com", now: now, log: log, post: w.mailbox,
		chat: &chat{url: w.slack.URL, secrets: slack.NewSecrets(func(context.Context) (string, error) {
			if w.secret == "" {
				return "", errors.New("AccessDenied")
			}
			return w.secret, nil
		}, now)},
	}
	d := access.Decision{Effect: access.Ask, Rule: "deletes", Tier: "operate", Obligations: access.Obligations{Reviewers: []string{"sre"}, Quorum: 1,
		Expires: 15 * time.Minute, Grant: access.Grant{Scope: access.ScopeObject, Length: time.Hour}, Links: "login",
		Escalate: access.Escalate{After: 10 * time.Minute, Reviewers: []string{"leads"}}}}
	if change != nil {
		change(&d)
	}
	a := approval.New(approval.Ask{
		ID: id, Digest: "d", Principal: access.Principal{Issuer: "https://idp.example.com", Subject: "bot", Agent: "bot", Owner: "chi@example.com", Groups: []string{"agents"}},
		Session: "s", Request: "r", Cluster: "dev", Reason: "it hangs", Action: access.Action{Verb: "delete", Resource: "pods", Namespace: "dev", Name: "web-0"},
		Decision: d, Kubectl: "kubectl delete pod web-0 -n dev", Sentence: "Delete pod web-0 in dev.", Now: w.clock,
	})
	if _, _, err := w.store.Open(t.Context(), a, access.View{Affected: []access.Affected{{Kind: "Pod", Namespace: "dev", Name: "web-0"}}}, func(access.Approval) bool { return false }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, wrong := range w.slack.Wrong() {
			t.Error(wrong)
		}
		for _, secret := range []string{"of-the-workflow", slacktest.Token, "/link/"} {
			if strings.Contains(w.logged(), secret) {
				t.Errorf("%q is in the log:\n%s", secret, w.logged())
			}
		}
	})
	return w
}

func (w *world) logged() string {
	w.locked.Lock()
	defer w.locked.Unlock()
	return w.log.String()
}

// send sends a sample event and returns what the workflow would see as the error, if any.
func (w *world) send(name string) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join("../../events/notify", name+".json"))
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.handle(w.t.Context(), b)
	var e messages.InvokeResponse_Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		w.t.Fatalf("%s: the workflow would see the type of %T: %v", name, err, err)
	}
	return e.Type
}

func (w *world) ok(name string) {
	w.t.Helper()
	if e := w.send(name); e != "" {
		w.t.Fatalf("%s: %s\n%s", name, e, w.logged())
	}
}

func (w *world) get() access.Approval {
	w.t.Helper()
	a, err := w.store.Get(w.t.Context(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// told is the history since it was opened, without the times.
func (w *world) told() []string {
	var out []string
	for _, h := range w.get().History[1:] {
		out = append(out, strings.TrimSpace(fmt.Sprintf("%s %s: %s", h.What, h.By, h.Text)))
	}
	slices.Sort(out)
	return out
}

func (w *world) vote(yes bool) {
	w.t.Helper()
	in, _, err := w.policies.InForce(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := w.store.Update(w.t.Context(), id, func(a *access.Approval) error {
		return approval.Vote(a, in.Roster(), access.Vote{By: access.Reviewer{Email: "ana@example.com", Issuer: "https://idp.example.com", Audience: "sallyport-reviews", Subject: "ana", Channel: "page"},
			Yes: yes, Grant: access.Grant{Scope: access.ScopeRequest}}, w.clock)
	}); err != nil {
		w.t.Fatal(err)
	}
}

func diff(t *testing.T, want, got any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAsk(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	m := w.slack.Messages()
	if len(m) != 1 || m[0].Channel != "C0000000SRE" || !strings.Contains(m[0].All(), "kubectl delete pod web-0 -n dev") || !strings.Contains(m[0].All(), "<https://reviews.example.com/approvals/"+id+">") {
		t.Fatalf("%+v", m)
	}
	diff(t, []string{"approve", "approve-for", "deny"}, m[0].Actions())
	diff(t, []string{"ana@example.com", "ben@example.com"}, w.mailbox.to()) // not chi, whose agent it is
	diff(t, []string{"notified mail: ana@example.com, ben@example.com", "notified slack C0000000SRE: sre"}, w.told())
	a := w.get()
	if !a.Notified.Equal(w.clock) || a.State != access.StatePending {
		t.Errorf("notified %v, %s", a.Notified, a.State)
	}
	token, found, err := w.store.Task(t.Context(), id)
	if err != nil || !found || !strings.HasSuffix(token, "of-the-workflow") {
		t.Errorf("token %q, %v", token, err)
	}
	// Each has a link of their own, which leads to this approval and no other, and which nothing but its hash is kept of.
	seen := map[string]bool{}
	for _, m := range w.mailbox.got {
		_, rest, _ := strings.Cut(m.Text, "https://reviews.example.com/link/")
		secret, _, _ := strings.Cut(rest, "\n")
		l, found, err := w.store.Link(t.Context(), approval.LinkHash(secret))
		if err != nil || !found || l.Approval != id || l.Email != m.To || !l.Expires.Equal(a.Expires) || seen[secret] {
			t.Errorf("%s: link %q is %+v, %v", m.To, secret, l, err)
		}
		seen[secret] = true
		if strings.Contains(m.Subject, secret) || strings.Contains(m.Text, token) || strings.Contains(m.HTML, token) {
			t.Error("a secret where none belongs")
		}
	}
	if strings.Contains(m[0].All()+string(m[0].Blocks), token) || strings.Contains(string(m[0].Blocks), "/link/") {
		t.Error("a secret in Slack")
	}
	sent, err := w.store.Sent(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	diff(t, []string{"mail:ana@example.com", "mail:ben@example.com", "slack:C0000000SRE"}, slices.Sorted(maps.Keys(sent)))
}

// A try that was lost is made again, and so is an execution: nobody is asked twice.
func TestAskAgainAsksNobodyTwice(t *testing.T) {
	w := newWorld(t, nil)
	w.mailbox.fail["ben@example.com"] = access.Errorf(access.Unavailable, "SES is away")
	w.ok("ask")
	diff(t, []string{"ana@example.com"}, w.mailbox.to())
	delete(w.mailbox.fail, "ben@example.com")
	w.ok("ask")
	w.ok("ask")
	diff(t, []string{"ana@example.com", "ben@example.com"}, w.mailbox.to())
	if m := w.slack.Messages(); len(m) != 1 || m[0].Updates != 2 {
		t.Errorf("%+v", m)
	}
	diff(t, []string{"notified mail: ana@example.com", "notified mail: ben@example.com", "notified slack C0000000SRE: sre", "unreached mail: ben@example.com: SES is away"}, w.told())
}

// Who decides stores the decision and then reads the token; the other way round here. One of them sees the other.
func TestDecidedBeforeTheTokenWasStored(t *testing.T) {
	w := newWorld(t, nil)
	w.vote(true)
	for _, step := range []string{"ask", "remind", "escalate"} {
		if e := w.send(step); e != wire.DecidedError {
			t.Errorf("%s: %q", step, e)
		}
	}
	if len(w.slack.Messages()) > 0 || len(w.mailbox.got) > 0 {
		t.Error("somebody was asked what was decided")
	}
	if _, found, _ := w.store.Task(t.Context(), id); !found {
		t.Error("the token was not stored before the approval was read")
	}
}

// decider decides when the token is stored, or when the approval is read after it.
type decider struct {
	approvals
	w    *world
	when string
}

func (d decider) PutTask(ctx context.Context, id, token string) error {
	if d.when == "before" {
		d.w.vote(false)
	}
	err := d.approvals.PutTask(ctx, id, token)
	if d.when == "between" {
		d.w.vote(false)
	}
	return err
}

func (d decider) Sent(ctx context.Context, id string) (map[string]string, error) {
	if d.when == "after" {
		d.w.vote(false)
	}
	return d.approvals.Sent(ctx, id)
}

func TestDecidedMeanwhile(t *testing.T) {
	for _, when := range []string{"before", "between", "after"} {
		w := newWorld(t, nil)
		w.approvals = decider{w.store, w, when}
		if e := w.send("ask"); e != wire.DecidedError {
			t.Errorf("%s: %q", when, e)
		}
		if n := len(w.slack.Messages()); (n > 0) != (when == "after") {
			t.Errorf("%s: %d messages", when, n)
		}
		if a := w.get(); a.State != access.StateDenied || len(a.Votes) != 1 {
			t.Errorf("%s: %s", when, a.State)
		}
	}
}

func TestRemind(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	w.clock = w.clock.Add(5 * time.Minute)
	w.ok("remind")
	w.ok("remind")
	m := w.slack.Messages()
	if len(m) != 2 || m[1].Thread != m[0].TS || !strings.Contains(m[1].All(), "Still waiting for an answerExpires in 10 min") {
		t.Errorf("%+v", m)
	}
	diff(t, []string{"ana@example.com", "ana@example.com", "ben@example.com", "ben@example.com"}, w.mailbox.to())
	if s := w.mailbox.got[3].Subject; !strings.HasPrefix(s, "Reminder: ") {
		t.Error(s)
	}
	diff(t, []string{"notified mail: ana@example.com, ben@example.com", "notified slack C0000000SRE: sre",
		"reminded mail: ana@example.com, ben@example.com", "reminded slack C0000000SRE: sre"}, w.told())
}

// Who said yes already, of two that are wanted, is not reminded.
func TestRemindsWhoDidNotAnswer(t *testing.T) {
	w := newWorld(t, func(d *access.Decision) { d.Obligations.Quorum = 2 })
	w.ok("ask")
	w.vote(true)
	w.ok("remind")
	diff(t, []string{"ana@example.com", "ben@example.com", "ben@example.com"}, w.mailbox.to())
}

func TestEscalate(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	w.clock = w.clock.Add(10 * time.Minute)
	w.ok("escalate")
	w.ok("escalate")
	m := w.slack.Messages()
	if len(m) != 2 || m[1].Channel != "C00000LEADS" || !strings.Contains(m[0].All(), "Asked: sre, leads") || m[0].Updates == 0 {
		t.Errorf("%+v", m)
	}
	diff(t, []string{"ana@example.com", "ben@example.com", "dan@example.com"}, w.mailbox.to())
	if text := w.mailbox.got[2].Text; !strings.Contains(text, "so you are asked too") {
		t.Error(text)
	}
	diff(t, []string{"sre", "leads"}, w.get().Reviewers)
	diff(t, []string{"escalated : to leads", "notified mail: ana@example.com, ben@example.com", "notified mail: dan@example.com",
		"notified slack C0000000SRE: sre", "notified slack C00000LEADS: leads"}, w.told())
}

func TestExpire(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	if e := w.send("expire"); e != "Notify.unavailable" {
		t.Errorf("expired early: %q", e)
	}
	w.clock = w.clock.Add(15 * time.Minute)
	w.ok("expire")
	w.ok("expire")
	if a := w.get(); a.State != access.StateExpired {
		t.Error(a.State)
	}
	w.ok("outcome")
	if m := w.slack.Messages(); len(m) != 1 || len(m[0].Actions()) > 0 || !strings.Contains(m[0].All(), "Expired without an answer") {
		t.Errorf("%+v", m)
	}
}

// Decided in the moment it was to expire: the decision stands.
func TestExpireAfterTheDecision(t *testing.T) {
	w := newWorld(t, nil)
	w.vote(true)
	w.clock = w.clock.Add(time.Minute)
	w.ok("expire")
	if a := w.get(); a.State != access.StateApproved {
		t.Error(a.State)
	}
}

func TestOutcome(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	w.ok("escalate")
	w.vote(true)
	w.ok("outcome")
	for _, m := range w.slack.Messages() {
		if len(m.Actions()) > 0 || !strings.Contains(m.All(), "Approved once by ana@example.com") {
			t.Errorf("%+v", m)
		}
	}
	if n := len(w.slack.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
	w.slack.Answer = func(_, channel string) (int, string) {
		if channel == "C00000LEADS" {
			return 500, ""
		}
		return 0, ""
	}
	if e := w.send("outcome"); e != "Notify.unavailable" {
		t.Errorf("buttons are left and nobody tries again: %q", e)
	}
	w.slack.Answer = nil
	w.slack.Delete("C00000LEADS")
	w.ok("outcome")
}

// Nobody asked in time, and the workflow did not write it down.
func TestOutcomeOfWhatIsLate(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	w.clock = w.clock.Add(time.Hour)
	if e := w.send("remind"); e != wire.DecidedError {
		t.Error(e)
	}
	w.ok("outcome")
	if a := w.get(); a.State != access.StateExpired {
		t.Error(a.State)
	}
}

func TestOneChannelInTrouble(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*world)
		says   string
		mails  int
		slack  int
	}{
		"Slack answers 500":       {func(w *world) { w.slack.Answer = func(string, string) (int, string) { return 500, "" } }, "unreached slack C0000000SRE: sre: Slack answered HTTP status 500 twice", 2, 0},
		"Slack without its token": {func(w *world) { w.slack.Tokens = []string{"xoxb-other"} }, "SALLYPORT_SLACK_SECRET", 2, 0},
		"no secret":               {func(w *world) { w.secret = "" }, "unreached slack C0000000SRE: sre: the secret that SALLYPORT_SLACK_SECRET names cannot be read", 2, 0},
		"a secret that is none":   {func(w *world) { w.secret = "{}" }, "SALLYPORT_SLACK_SECRET", 2, 0},
		"not invited":             {func(w *world) { w.slack.Answer = func(string, string) (int, string) { return 200, "not_in_channel" } }, "invite the bot", 2, 0},
		"Slack is not configured": {func(w *world) { w.chat = nil }, "unreached slack C0000000SRE: sre: nothing was sent: SALLYPORT_SLACK_SECRET is not set", 2, 0},
		"mail is away":            {func(w *world) { w.mailbox.fail[""] = access.Errorf(access.Unavailable, "SES is away") }, "unreached mail: ana@example.com, ben@example.com: SES is away", 0, 1},
		"mail is set up wrong": {func(w *world) {
			w.post = broken{access.Errorf(access.Unavailable, "SALLYPORT_MAIL_FROM is no address")}
		}, "unreached mail: ana@example.com, ben@example.com: SALLYPORT_MAIL_FROM is no address", 0, 1},
		"mail is not configured": {func(w *world) { w.post = nil }, "notified slack C0000000SRE: sre", 0, 1},
	} {
		w := newWorld(t, nil)
		test.change(w)
		w.ok("ask")
		a := w.get()
		if len(w.mailbox.got) != test.mails || len(w.slack.Messages()) != test.slack || a.State != access.StatePending || a.Notified.IsZero() {
			t.Errorf("%s: %d mails, %d messages, %s, notified %v", name, len(w.mailbox.got), len(w.slack.Messages()), a.State, a.Notified)
		}
		if !strings.Contains(strings.Join(w.told(), "\n"), test.says) {
			t.Errorf("%s: %q is not said: %q", name, test.says, w.told())
		}
	}
}

// Slack that never answers keeps no mail, and the workflow is not taken for lost meanwhile.
func TestSlackIsSlow(t *testing.T) {
	w := newWorld(t, nil)
	stop := make(chan struct{})
	defer close(stop)
	w.slack.Answer = func(string, string) (int, string) { <-stop; return 500, "" }
	early := make(chan time.Duration, 1)
	began := time.Now()
	go func() {
		for range 100 {
			if a, err := w.store.Get(context.Background(), id); err == nil && !a.Notified.IsZero() {
				early <- time.Since(began)
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
	}()
	w.ok("ask")
	took := time.Since(began)
	if took > 8*time.Second {
		t.Errorf("it took %v", took)
	}
	select {
	case d := <-early:
		if d > 2*time.Second || d > took-time.Second {
			t.Errorf("that mail reached somebody was written down after %v of %v", d, took)
		}
	default:
		t.Error("that mail reached somebody was not written down in time")
	}
	diff(t, []string{"ana@example.com", "ben@example.com"}, w.mailbox.to())
	if told := strings.Join(w.told(), "\n"); !strings.Contains(told, "Slack did not answer within 3s, twice") {
		t.Error(told)
	}
}

func TestANewBotTokenIsTaken(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask") // reads the secret
	w.slack.Tokens, w.secret = []string{"xoxb-new"}, `{"signing_secret": "s", "bot_token": "xoxb-new"}`
	w.ok("remind")
	if n := len(w.slack.Messages()); n != 2 {
		t.Errorf("%d messages: %q", n, w.told())
	}
}

// An agent whose reviewers nobody can reach is told so at once, with what to set.
func TestNobodyCanBeReached(t *testing.T) {
	group := func(names ...string) func(*access.Decision) {
		return func(d *access.Decision) { d.Obligations.Reviewers = names }
	}
	for name, test := range map[string]struct {
		decision func(*access.Decision)
		change   func(*world)
		says     []string
	}{
		"no channel": {nil, func(w *world) { w.chat, w.post = nil, nil }, []string{slack.Setting + " is not set", mail.Setting + " is not set"}},
		"all fail": {nil, func(w *world) {
			w.slack.Answer = func(string, string) (int, string) { return 500, "" }
			w.mailbox.fail[""] = access.Errorf(access.Unavailable, "SES is away; SALLYPORT_MAIL_FROM must be verified")
		}, []string{"slack C0000000SRE: Slack answered HTTP status 500 twice", "mail: SES is away; SALLYPORT_MAIL_FROM must be verified"}},
		"no Slack channel, and no mail": {group("mailed"), func(w *world) { w.post = nil }, []string{"the policy names no slack channel for mailed", mail.Setting + " is not set"}},
		"a group that is no more":       {group("gone"), func(*world) {}, []string{"nobody of gone is left", "no slack channel for gone"}},
	} {
		w := newWorld(t, test.decision)
		test.change(w)
		if e := w.send("ask"); e != wire.DecidedError {
			t.Errorf("%s: the workflow goes on waiting: %q", name, e)
		}
		a := w.get()
		if a.State != access.StateDenied {
			t.Errorf("%s: %s", name, a.State)
		}
		for _, want := range test.says {
			if !strings.Contains(a.Message, want) {
				t.Errorf("%s: %q is not in %q", name, want, a.Message)
			}
		}
		w.ok("outcome")
	}
}

// Who was asked can still answer when a reminder fails.
func TestAReminderThatFailsDeniesNothing(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("ask")
	w.slack.Answer = func(string, string) (int, string) { return 500, "" }
	w.mailbox.fail[""] = access.Errorf(access.Unavailable, "SES is away")
	w.ok("remind")
	if a := w.get(); a.State != access.StatePending {
		t.Error(a.State)
	}
	if x := wire.NewExecution(w.get(), w.clock); x.Ask.Then == wire.StepRemind {
		t.Error("it would be reminded again")
	}
}

func TestFailed(t *testing.T) {
	w := newWorld(t, nil)
	w.ok("failed")
	if a := w.get(); a.State != access.StateDenied || !strings.Contains(a.Message, "function notify failed") {
		t.Errorf("%s: %s", a.State, a.Message)
	}
	if told := strings.Join(w.told(), "\n"); !strings.Contains(told, "failed : the workflow could not go on: Notify.unavailable") || strings.Contains(told, "errorMessage") {
		t.Error(told)
	}
	w = newWorld(t, nil)
	w.ok("ask")
	w.ok("failed")
	if a := w.get(); a.State != access.StatePending {
		t.Errorf("%s, although people were asked", a.State)
	}
}

func TestThePolicyIsAway(t *testing.T) {
	w := newWorld(t, nil)
	w.policy.Err = access.Errorf(access.Unavailable, "the bucket is away")
	if e := w.send("ask"); e != "Notify.unavailable" {
		t.Errorf("%q, so nobody tries again", e)
	}
	if a := w.get(); a.State != access.StatePending {
		t.Error(a.State)
	}
}

func TestEventsThatAreNone(t *testing.T) {
	w := newWorld(t, nil)
	for _, bad := range []string{`{}`, `[]`, `"x"`, `{"kind": "ask"}`, `{"kind": "approve", "approval": "x", "token": "t"}`, `{"kind": "ask", "approval": "` + id + `"}`, `{"Records": []}`, `{"kind": "ask", "approval": "nobody", "token": "t"}`} {
		if _, err := w.handle(t.Context(), json.RawMessage(bad)); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	if len(w.slack.Messages())+len(w.mailbox.got) > 0 {
		t.Error("something was sent")
	}
}

// What deceives a reader is made visible, wherever in the request it stands.
func TestHostileNamesAreVisible(t *testing.T) {
	w := newWorld(t, nil)
	const evil = "a\u202eb\u200bc\nd"
	if _, err := w.store.Update(t.Context(), id, func(a *access.Approval) error {
		for _, s := range []*string{&a.Principal.Agent, &a.Principal.Subject, &a.Cluster, &a.Action.Name, &a.Action.Namespace, &a.Action.Resource, &a.Reason, &a.Kubectl, &a.Sentence, &a.Decision.Rule} {
			*s = evil
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	w.ok("ask")
	m := w.mailbox.got[0]
	for where, text := range map[string]string{"Slack": w.slack.Messages()[0].All(), "the mail's text": m.Text, "the mail's HTML": m.HTML, "the subject": m.Subject} {
		if strings.ContainsAny(text, "\u202e\u200b") || !strings.Contains(text, `a\u{202e}b\u{200b}c`) {
			t.Errorf("%s: %s", where, text)
		}
	}
}
