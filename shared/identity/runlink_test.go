package identity_test

import (
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// A run's address is on the issuer's host whatever a claim holds, and is left out rather than made with a hole.
func TestRunLink(t *testing.T) {
	for _, test := range []struct{ template, claim, value, want string }{
		{"https://ci.example.com/{project}/runs/{run_id}", "project", "acme/shop", "https://ci.example.com/acme/shop/runs/7"},
		{"https://ci.example.com/{project}/runs/{run_id}", "project", "a b?c#d", "https://ci.example.com/a%20b%3Fc%23d/runs/7"},
		{"https://ci.example.com/{project}/runs/{run_id}", "project", "../../evil", ""},
		{"https://ci.example.com/{project}/runs/{run_id}", "project", "//evil.example.com", ""},
		{"https://ci.example.com/{project}/runs/{run_id}", "project", "x\u202ey", ""},
		{"https://ci.example.com/{project}/runs/{run_id}", "other", "acme", ""},
		{"https://ci.example.com/runs?id={run_id}&p={project}", "project", "a&admin=1", "https://ci.example.com/runs?id=7&p=a%26admin%3D1"},
	} {
		v, _, _ := newVerifier(t, func(i *access.Issuer) { i.RunLink = test.template })
		got := accepted(t, v, es256.sign(es256.header(), with(map[string]any{"run_id": 7, test.claim: test.value}))).Principal.RunLink
		if got != test.want {
			t.Errorf("%s with %s=%q is %q, want %q", test.template, test.claim, test.value, got, test.want)
		}
	}
}

func TestRunLinksThatAreRefused(t *testing.T) {
	for _, link := range []string{"http://ci.example.com/{x}", "https://{x}/runs", "https://ci.{x}.com/r", "https://ci.example.com", "https://u@ci.example.com/{x}", "https://ci.example.com/{x", "https://ci.example.com/{}", "javascript:{x}", "//ci.example.com/{x}"} {
		i := trustedIssuer()
		i.RunLink = link
		if _, err := identity.New(identity.Config{Issuers: []access.Issuer{i}, Keys: keysOf()}); access.KindOf(err) != access.Invalid {
			t.Errorf("%q: %v", link, err)
		}
	}
}
