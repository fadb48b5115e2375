package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
	"sallyport/shared/policystore"
)

// poll asks for the policy in force, at a time that is after the last look.
func (f *fixture) poll(t *testing.T) wire.Answer {
	t.Helper()
	at := f.now().Add(lookEvery)
	f.now = func() time.Time { return at }
	a, err := f.handle(context.Background(), wire.Request{Keys: &wire.Keys{}})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestAnotherPolicyTakesEffect(t *testing.T) {
	f := newFixture(t)
	first := f.poll(t).Keys.Policy
	if a := f.ask(t, "observer:o", "dev"); a.Error != nil {
		t.Fatal(a.Error)
	}
	f.put(t, "2", strings.Replace(policyText, "[observers]", "[watchers]", 1))
	if a := f.ask(t, "observer:o", "dev"); a.Error != nil {
		t.Error("the policy was looked for again at once:", a.Error)
	}
	second := f.poll(t).Keys.Policy
	if second.Version != "2" || second.Digest == first.Digest || second.Refused != nil {
		t.Errorf("in force is %+v", second)
	}
	if a := f.ask(t, "observer:o", "dev"); a.Error == nil || a.Error.Kind != access.Denied {
		t.Errorf("who has no tier any more got %+v", a)
	}
	if !strings.Contains(f.log.String(), `msg="policy changed" old=`+first.Digest+" new="+second.Digest+" version=2") {
		t.Error("the change is not in the log:", f.log.String())
	}
	// Back again, by putting the old bytes as a new version.
	f.put(t, "3", policyText)
	if p := f.poll(t).Keys.Policy; p.Digest != first.Digest || p.Version != "3" {
		t.Errorf("in force is %+v", p)
	}
	if a := f.ask(t, "observer:o", "dev"); a.Error != nil {
		t.Error(a.Error)
	}
}

func TestRefusedPolicy(t *testing.T) {
	f := newFixture(t)
	good := f.poll(t).Keys.Policy
	bad := &policystore.Refused{Version: "2", Digest: "d2", Err: errors.New(`policy/current.yaml: line 4: unknown field "audiense"`)}
	f.look.Refused = bad
	for range 3 {
		p := f.poll(t).Keys.Policy
		if p.Digest != good.Digest || p.Version != good.Version {
			t.Errorf("in force is %+v", p)
		}
		if p.Refused == nil || p.Refused.Version != "2" || p.Refused.Digest != "d2" || p.Refused.Message != bad.Err.Error() {
			t.Errorf("the refusal is %+v", p.Refused)
		}
	}
	if a := f.ask(t, "good:bot", "dev"); a.Error != nil {
		t.Error("a bad policy keeps agents out:", a.Error)
	}
	if n := strings.Count(f.log.String(), "policy refused"); n != 1 || !strings.Contains(f.log.String(), "line 4") {
		t.Errorf("refused %d times in the log, want once, with the line: %s", n, f.log.String())
	}
	f.look.Refused = nil
	if p := f.poll(t).Keys.Policy; p.Refused != nil {
		t.Errorf("the refusal stays: %+v", p.Refused)
	}
}

// Without a policy in force nothing is answered; with one, S3 may be away.
func TestPolicyAway(t *testing.T) {
	f := newFixture(t)
	good := f.look
	f.look, f.next = policystore.Look{}, nil
	f.lookErr = access.Errorf(access.Unavailable, "no version loads").Because(errors.New("secret detail"))
	for _, a := range []wire.Answer{f.poll(t), f.ask(t, "good:bot", "dev")} {
		if a.Error == nil || a.Error.Kind != access.Unavailable || a.Error.RetryAfter == 0 || strings.Contains(a.Error.Description, "secret") {
			t.Errorf("got %+v, want it refused as unavailable", a)
		}
	}
	if len(f.assumed) != 0 {
		t.Error("a role was assumed without a policy")
	}
	f.put(t, "1", policyText)
	f.lookErr = nil
	if a := f.ask(t, "good:bot", "dev"); a.Error != nil { // no waiting: there was nothing in force
		t.Fatal(a.Error)
	}
	f.look, f.lookErr = good, access.Errorf(access.Unavailable, "S3 is away")
	if p := f.poll(t); p.Error != nil || p.Keys.Policy.Digest != good.File.Digest {
		t.Errorf("got %+v, want the last good", p)
	}
}

func TestLooksAreBounded(t *testing.T) {
	f := newFixture(t)
	for range 20 {
		f.ask(t, "good:bot", "dev")
	}
	if f.looks != 1 {
		t.Errorf("twenty answers within a moment looked %d times", f.looks)
	}
	f.now = func() time.Time { return now.Add(-time.Hour) } // a clock that was set back holds up nothing
	if f.ask(t, "good:bot", "dev"); f.looks != 2 {
		t.Error("nothing is looked for while the clock is behind")
	}
}

// What was verified or fetched for an issuer as it was is not used for what it became.
func TestGenerations(t *testing.T) {
	first, err := build("p", []byte(policyText), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name, from, to string
		kept           bool
	}{
		{"other tiers", "[observers]", "[watchers]", true},
		{"another cluster", "name: dev", "name: prod", true},
		{"another issuer", "https://i", "https://j", false},
		{"another groups claim", "groupsClaim: groups", "groupsClaim: roles", false},
		{"other algorithms", "[ES256]", "[RS256]", false},
		{"another audience", "audience: sallyport", "audience: other", false},
	} {
		next, err := build("p", []byte(strings.Replace(policyText, test.from, test.to, 1)), first)
		if err != nil {
			t.Fatal(err)
		}
		if (next.verifier == first.verifier) != test.kept || (next.keys == first.keys) != test.kept || (next.published == first.published) != test.kept {
			t.Errorf("%s: kept are verifier %v, keys %v, want %v", test.name, next.verifier == first.verifier, next.keys == first.keys, test.kept)
		}
	}
	// What the policy takes and the verifier does not is refused like any other fault.
	if _, err := build("p", []byte("kind: Nonsense"), first); err == nil {
		t.Error("nonsense became a generation")
	}
}
