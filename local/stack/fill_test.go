package stack

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policy"
)

const own = "http://127.0.0.1:1234"

func deployed(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("../../infra/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkStack loads a policy and checks what is of this stack.
func checkStack(t *testing.T, file []byte) *policy.Policy {
	t.Helper()
	p, err := policy.Load("policy.yaml", file)
	if err != nil {
		t.Fatalf("%v\n%s", err, file)
	}
	if len(p.Clusters) != 1 || p.Clusters[0].Name != "dev" || p.Clusters[0].Region != Region || len(p.Clusters[0].Hosts) != 0 {
		t.Errorf("the clusters are %+v", p.Clusters)
	}
	for _, tier := range p.Tiers {
		if tier.Role != "arn:aws:iam::111122223333:role/sallyport/"+tier.Name {
			t.Errorf("tier %s has role %s", tier.Name, tier.Role)
		}
	}
	return p
}

// The default policy is the one for AWS, but for who is trusted.
func TestAdopt(t *testing.T) {
	adopted, err := adopt(deployed(t), own, "dev")
	if err != nil {
		t.Fatal(err)
	}
	p := checkStack(t, adopted)
	want := []access.Issuer{{URL: own, Audience: "sallyport", Algorithms: []string{"ES256", "RS256"}, Private: true, Owner: "owner", GroupsClaim: "groups"}}
	if d := cmp.Diff(want, p.Issuers); d != "" {
		t.Error(d)
	}
	for _, r := range p.Reviewers {
		if r.Issuer != own {
			t.Errorf("reviewers %s are of %s", r.Name, r.Issuer)
		}
	}
	original, err := policy.Load("policy.yaml", deployed(t))
	if err != nil {
		t.Fatal(err)
	}
	for n, r := range original.Reviewers {
		want := r
		want.Issuer = own
		if d := cmp.Diff(want, p.Reviewers[n]); d != "" || r.Slack == nil {
			t.Errorf("reviewers %s: %s", r.Name, d)
		}
	}
	if len(p.Rules) != len(original.Rules) || len(p.Tiers) != len(original.Tiers) {
		t.Errorf("%d rules and %d tiers became %d and %d", len(original.Rules), len(original.Tiers), len(p.Rules), len(p.Tiers))
	}
	if again, err := fill(adopted, own, "dev"); err != nil || !bytes.Equal(again, adopted) {
		t.Errorf("the file that the stack wrote is filled in once more: %v\n%s", err, cmp.Diff(string(adopted), string(again)))
	}
}

func TestFill(t *testing.T) {
	const small = `apiVersion: sallyport/v1
kind: Policy
audience:   sallyport # spaced as somebody liked it
issuers:
- {url: local, groups: [{group: agents, when: [{claim: sub, matches: "^bot-.*$"}]}]}
tiers:
- {name: observe, group: "sallyport:observe", groups: [agents]}
sessions: {idle: 2h, longest: 12h, credential: 1h}
`
	none := strings.Replace(small, "- {url: local, groups: [{group: agents, when: [{claim: sub, matches: \"^bot-.*$\"}]}]}\n", "- {url: \"https://idp.example.com\", algorithms: [RS256], groupsClaim: roles}\n", 1)
	for name, test := range map[string]struct {
		file   string
		claims []string // of the issuers, in order
	}{
		"local is replaced":     {small, []string{""}},
		"it is added":           {none, []string{"roles", "groups"}},
		"to no issuers at all":  {strings.Replace(small, "issuers:\n- {url: local, groups: [{group: agents, when: [{claim: sub, matches: \"^bot-.*$\"}]}]}\n", "", 1), []string{"groups"}},
		"to the one for AWS":    {string(deployed(t)), []string{"", "groups", "groups"}},
		"an empty key is a key": {strings.Replace(small, "- {url: local, groups: [{group: agents, when: [{claim: sub, matches: \"^bot-.*$\"}]}]}\n", "", 1), []string{"groups"}},
	} {
		t.Run(name, func(t *testing.T) {
			filled, err := fill([]byte(test.file), own, "dev")
			if err != nil {
				t.Fatal(err)
			}
			p := checkStack(t, filled)
			var claims []string
			for _, i := range p.Issuers {
				claims = append(claims, i.GroupsClaim)
			}
			if d := cmp.Diff(test.claims, claims); d != "" {
				t.Error(d)
			}
			last := p.Issuers[len(p.Issuers)-1]
			if last.URL != own || !last.Private {
				t.Errorf("the stack's issuer is %+v", last)
			}
			if again, err := fill(filled, own, "dev"); err != nil || !bytes.Equal(again, filled) {
				t.Errorf("filling it in once more changed it: %v\n%s", err, cmp.Diff(string(filled), string(again)))
			}
			// What is written into a filled file by hand stays as it was written.
			edited := append([]byte("# mine\n\n\n"), bytes.Replace(filled, []byte("idle: 2h"), []byte("idle:   3h"), 1)...)
			if got, err := fill(edited, own, "dev"); err != nil || !bytes.Equal(got, edited) {
				t.Errorf("an edited file was rewritten: %v\n%s", err, cmp.Diff(string(edited), string(got)))
			}
		})
	}
	for _, bad := range []string{"", "- a", "\t"} {
		if _, err := fill([]byte(bad), own, "dev"); err == nil {
			t.Errorf("%q was filled in", bad)
		}
	}
	// What is of the wrong shape is left for the policy's own errors to name.
	for _, odd := range []string{"issuers: x", "issuers: {a: b}", "tiers: x", "reviewers: {a: b}", "tiers: [x]", "issuers: [x]", "reviewers: [x]"} {
		if _, err := fill([]byte(odd+"\n"), own, "dev"); err != nil {
			t.Errorf("%s: %v", odd, err)
		}
		if _, err := adopt([]byte(odd+"\n"), own, "dev"); err != nil {
			t.Errorf("%s: %v", odd, err)
		}
	}
}

// Errors name the line that the user wrote, not the one it has once filled in.
func TestInOriginal(t *testing.T) {
	file := []byte("a: 1\n\n\ntiers:\n\n- name: x\n  grups: y\n")
	filled := []byte("a: 1\ntiers:\n  - name: x\n    grups: y\n    role: z\n")
	for from, want := range map[string]string{
		`line 4: unknown field "grups"`: `line 7: unknown field "grups"`,
		"line 3: tier x":                "line 6: tier x",
		"line 5: role":                  "line 6: role", // not written by the user: the item it was added to
		"no line":                       "no line",
	} {
		if got := inOriginal(file, filled, errors.New(from)).Error(); !strings.Contains(got, want) {
			t.Errorf("%q became %q, want %q", from, got, want)
		}
	}
}
