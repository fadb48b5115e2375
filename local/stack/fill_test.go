package stack

import (
	"errors"
	"os"
	"strings"
	"testing"

	"sallyport/shared/policy"
)

func TestFill(t *testing.T) {
	builtIn, err := os.ReadFile("policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	deployed, err := os.ReadFile("../../infra/policy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string][]byte{"the built-in one": builtIn, "one for AWS": deployed} {
		filled, err := fill(file, "http://127.0.0.1:1234", "dev")
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Load(name, filled)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, filled)
		}
		last := p.Issuers[len(p.Issuers)-1]
		if last.URL != "http://127.0.0.1:1234" || !last.Private || last.GroupsClaim != "groups" {
			t.Errorf("%s: the stack's issuer is %+v", name, last)
		}
		if len(p.Clusters) != 1 || p.Clusters[0].Name != "dev" || p.Tiers[0].Role != "arn:aws:iam::111122223333:role/sallyport/observe" {
			t.Errorf("%s: got %+v and %+v", name, p.Clusters, p.Tiers[0])
		}
	}
	for _, bad := range []string{"", "- a", "\t"} {
		if _, err := fill([]byte(bad), "i", "dev"); err == nil {
			t.Errorf("%q was filled in", bad)
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
