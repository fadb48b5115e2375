package main

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"sallyport/shared/access"
)

// shelf holds versions of the policy, newest first.
type shelf []struct{ id, text string }

func (s shelf) Versions(context.Context) (ids []string, err error) {
	for _, v := range s {
		ids = append(ids, v.id)
	}
	return ids, nil
}

func (s shelf) Read(_ context.Context, id string) ([]byte, error) {
	for _, v := range s {
		if v.id == id {
			if v.text == "away" {
				return nil, errors.New("away")
			}
			return []byte(v.text), nil
		}
	}
	return nil, errors.New("no such version")
}

// changed is the policy with one thing in the place of another.
func changed(t *testing.T, replace ...string) string {
	t.Helper()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(policyText, replace[i]) {
			t.Fatalf("there is no %q in the policy", replace[i])
		}
	}
	return strings.NewReplacer(replace...).Replace(policyText)
}

func TestPolicyIsAnnounced(t *testing.T) {
	moved := changed(t, "rules:\n", "# words\n\nrules:\n")
	for name, test := range map[string]struct {
		event string
		shelf shelf
		title string
		says  []string
	}{
		"rules": {"policy", shelf{{"v2", changed(t,
			"- {name: read, effect: allow, groups: [agents], verbs: [get, list]", "- {name: secrets, effect: allow, groups: [agents], verbs: [get], apiGroups: [\"\"], resources: [secrets]}\n- {name: read, effect: allow, groups: [agents], verbs: [get]",
			"- {name: deletes, effect: ask, groups: [agents], verbs: [delete], apiGroups: [\"\"], resources: [pods]}\n", "")}, {"v1", policyText}},
			"The policy changed", []string{"Version v2, digest ", "It loads.", "Against version v1:\n+ rule secrets, which says allow\n~ rule read, which says allow\n- rule deletes, which said ask", "AWS names 111122223333", "s3://sallyport-policy/policy/current.yaml"}},
		"effect":           {"policy", shelf{{"v2", changed(t, "deletes, effect: ask", "deletes, effect: allow")}, {"v1", policyText}}, "The policy changed", []string{"~ rule deletes, which said ask and says allow"}},
		"what asks say":    {"policy", shelf{{"v2", changed(t, "quorum: 1, expires: 15m", "quorum: 2, expires: 15m")}, {"v1", policyText}}, "The policy changed", []string{"~ rule deletes, which says ask"}},
		"who is trusted":   {"policy", shelf{{"v2", changed(t, "groupsClaim: groups", "groupsClaim: roles", "audience: sallyport\n", "audience: gate\n")}, {"v1", policyText}}, "The policy changed", []string{"~ the gate's audience\n~ issuers of agents"}},
		"masks":            {"policy", shelf{{"v2", changed(t, "rules:\n", "masking: {names: [PIN]}\nrules:\n")}, {"v1", policyText}}, "The policy changed", []string{"~ masking, which is what agents are not shown"}},
		"masks moved":      {"policy", shelf{{"v2", changed(t, "rules:\n", "masking: {exempt: [{tiers: [operate], apiGroups: [\"\"], resources: [configmaps], path: data.a}]}\n\n\nrules:\n")}, {"v1", changed(t, "rules:\n", "masking: {exempt: [{tiers: [operate], apiGroups: [\"\"], resources: [configmaps], path: data.a}]}\nrules:\n")}}, "The policy changed", []string{"it changes nothing but words."}},
		"observe":          {"policy", shelf{{"v2", changed(t, "kind: Policy\n", "kind: Policy\nmode: observe\n")}, {"v1", policyText}}, "The policy changed", []string{"~ it observes only"}},
		"words":            {"policy", shelf{{"v2", moved}, {"v1", policyText}}, "The policy changed", []string{"Against version v1 it changes nothing but words."}},
		"the first":        {"policy", shelf{{"v2", policyText}}, "The policy changed", []string{"There was none before that loads. It has 2 rules."}},
		"past a bad one":   {"policy", shelf{{"v2", moved}, {"bad", "x"}, {"v1", policyText}}, "The policy changed", []string{"Against version v1"}},
		"late":             {"policy", shelf{{"v3", moved}, {"v2", moved}, {"v1", policyText}}, "The policy changed", []string{"A newer version was put since.", "Against version v1"}},
		"one that is none": {"policy", shelf{{"v2", "kind: <!here>\u202e https://evil.example.com"}, {"v1", policyText}}, "A policy was put that does not load", []string{"what was in force stays in force: version v1, digest ", "Why: policy policy/current.yaml: "}},
		"no masking by it": {"policy", shelf{{"v2", changed(t, "rules:\n", "masking: {detectors: [{name: acme, pattern: '[0-9a-f]{32}'}]}\nrules:\n")}, {"v1", policyText}}, "A policy was put that does not load", []string{"masking: detectors: \"acme\": its pattern has no fixed text"}},
		"too large":        {"policy", shelf{{"v2", strings.Repeat("#", 1<<20+1)}, {"v1", policyText}}, "A policy was put that does not load", []string{"larger than"}},
		"deleted":          {"policy-deleted", shelf{{"v1", policyText}}, "The policy was deleted", []string{"What was in force stays in force: version v1"}},
	} {
		w := newWorld(t, nil)
		w.files = test.shelf
		w.ok(test.event)
		messages := w.slack.Messages()
		if len(messages) != 2 || messages[0].Channel == messages[1].Channel {
			t.Errorf("%s: %d messages", name, len(messages))
			continue
		}
		all := []string{"ana@example.com", "ben@example.com", "chi@example.com", "dan@example.com", "eva@example.com"}
		if !slices.Equal(w.mailbox.to(), all) {
			t.Errorf("%s: mails to %q", name, w.mailbox.to())
		}
		for where, text := range map[string]string{"Slack": messages[0].All(), "mail": strings.ReplaceAll(w.mailbox.got[0].Text, "[:]//", "://")} {
			for _, want := range append(test.says, test.title) {
				if !strings.Contains(text, want) {
					t.Errorf("%s, %s: %q is not said:\n%s", name, where, want, text)
				}
			}
			if strings.Contains(text, "\u202e") {
				t.Errorf("%s, %s: what deceives a reader is not visible:\n%s", name, where, text)
			}
		}
		if strings.Contains(w.mailbox.got[0].HTML, "<!here>") || w.mailbox.got[0].Subject != "Sallyport: "+test.title {
			t.Errorf("%s: %s", name, w.mailbox.got[0].Subject)
		}
		w.ok(test.event)
		if len(w.slack.Messages()) != 2 || len(w.mailbox.got) != len(all) {
			t.Errorf("%s: told twice", name)
		}
	}
}

// Who takes the reviewers out of the policy cannot keep it from them.
func TestReviewersThatWereTakenOutAreTold(t *testing.T) {
	w := newWorld(t, nil)
	w.files = shelf{{"v2", changed(t, "ana@example.com, Ben@example.com, chi@example.com", "mallory@example.com", "C0000000SRE", "C0000000XXX", "{U0000000ANA: ana@example.com}", "{}")}, {"v1", policyText}}
	w.ok("policy")
	if to := w.mailbox.to(); !slices.Contains(to, "ben@example.com") || !slices.Contains(to, "mallory@example.com") {
		t.Errorf("mails to %q", to)
	}
	var channels []string
	for _, m := range w.slack.Messages() {
		channels = append(channels, m.Channel)
	}
	slices.Sort(channels)
	diff(t, []string{"C0000000SRE", "C0000000XXX", "C00000LEADS"}, channels)
}

// S3's event comes again until everybody was told.
func TestPolicyIsAnnouncedAgain(t *testing.T) {
	w := newWorld(t, nil)
	w.files = shelf{{"v2", policyText}}
	w.mailbox.fail["dan@example.com"] = access.Errorf(access.Unavailable, "SES is away")
	if e := w.send("policy"); e == "" {
		t.Error("nobody tries again")
	}
	delete(w.mailbox.fail, "dan@example.com")
	w.ok("policy")
	if len(w.mailbox.got) != 5 || len(w.slack.Messages()) != 2 {
		t.Errorf("%q", w.mailbox.to())
	}
	w = newWorld(t, nil)
	w.files = shelf{{"v2", "away"}}
	if e := w.send("policy"); e == "" {
		t.Error("a version that cannot be read is not read again")
	}
	w.files, w.chat, w.post = shelf{{"v2", policyText}}, nil, nil
	if e := w.send("policy"); e == "" || !strings.Contains(w.logged(), "SALLYPORT_MAIL_FROM") {
		t.Error("nobody was told, and nobody knows")
	}
}

func TestEventsOfOtherObjects(t *testing.T) {
	w := newWorld(t, nil)
	w.files, w.bucket = shelf{{"v2", policyText}}, "another"
	w.ok("policy")
	if len(w.slack.Messages())+len(w.mailbox.got) > 0 {
		t.Error("another bucket's object was announced")
	}
}
