package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	wire "sallyport/shared/broker"

	"sallyport/shared/access"
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
	f.bucket.Put("2", strings.Replace(policyText, "[observers]", "[watchers]", 1))
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
	// Back again, by putting the old bytes as a new version.
	f.bucket.Put("3", policyText)
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
	f.bucket.Put("2", strings.Replace(policyText, "audience:", "audiense:", 1))
	for range 3 {
		p := f.poll(t).Keys.Policy
		if p.Digest != good.Digest || p.Version != good.Version {
			t.Errorf("in force is %+v", p)
		}
		if p.Refused == nil || p.Refused.Version != "2" || !strings.Contains(p.Refused.Message, "audiense") {
			t.Errorf("the refusal is %+v", p.Refused)
		}
	}
	if a := f.ask(t, "good:bot", "dev"); a.Error != nil {
		t.Error("a bad policy keeps agents out:", a.Error)
	}
}

// Without a policy in force nothing is answered; with one, S3 may be away.
func TestPolicyAway(t *testing.T) {
	f := newFixture(t)
	f.bucket.Err = access.Errorf(access.Unavailable, "no version loads").Because(errors.New("secret detail"))
	for _, a := range []wire.Answer{f.poll(t), f.ask(t, "good:bot", "dev")} {
		if a.Error == nil || a.Error.Kind != access.Unavailable || a.Error.RetryAfter == 0 || strings.Contains(a.Error.Description, "secret") {
			t.Errorf("got %+v, want it refused as unavailable", a)
		}
	}
	if len(f.assumed) != 0 {
		t.Error("a role was assumed without a policy")
	}
	f.bucket.Err = nil
	if a := f.ask(t, "good:bot", "dev"); a.Error != nil { // no waiting: there was nothing in force
		t.Fatal(a.Error)
	}
	f.bucket.Err = access.Errorf(access.Unavailable, "S3 is away")
	if p := f.poll(t); p.Error != nil || p.Keys.Policy.Version != "1" {
		t.Errorf("got %+v, want the last good", p)
	}
}
