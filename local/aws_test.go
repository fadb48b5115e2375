package main

import (
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/local/inbox"
	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

func deployed(t *testing.T) *policy.Policy {
	t.Helper()
	b, err := os.ReadFile("../infra/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load("policy.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// A tier that is nobody's base tier is never given without an approval.
func TestTierRoles(t *testing.T) {
	elevated := 0
	for _, tier := range deployed(t).Tiers {
		trust := tierRole(tier).Trust[0]
		required := slices.Contains(trust.RequireTags, settings.TagApproval)
		if required != (len(tier.Groups) == 0) || !slices.Contains(trust.AllowTags, settings.TagApproval) {
			t.Errorf("tier %s of groups %v: required %v, allowed %v", tier.Name, tier.Groups, trust.RequireTags, trust.AllowTags)
		}
		if required {
			elevated++
		}
	}
	if elevated == 0 {
		t.Error("there is no tier that only an approval leads to")
	}
}

// The inbox's Slack is the one that the policy speaks of.
func TestWorkspace(t *testing.T) {
	p := deployed(t)
	slack := p.Reviewers[0].Slack
	want := inbox.Workspace{Channels: map[string]inbox.Channel{slack.Channel: {Name: p.Reviewers[0].Name, Team: slack.Team}}, Users: slack.Users}
	if d := cmp.Diff(want, workspace(p)); d != "" || len(slack.Users) == 0 {
		t.Error(d)
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[2Jb\u202e\tc é"); got != "a\ufffd[2Jb\ufffd\tc é" {
		t.Errorf("%q", got)
	}
}
