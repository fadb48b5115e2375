package gate_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"sallyport/e2e/stacktest"
)

// Threat H1: nobody becomes somebody else by a header.
func TestImpersonation(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	var probes []probe
	for name, lines := range map[string][]string{
		"user":                    {"Impersonate-User: admin"},
		"group":                   {"Impersonate-Group: system:masters"},
		"uid":                     {"Impersonate-Uid: 0"},
		"extra":                   {"Impersonate-Extra-Scopes: all"},
		"user and group":          {"Impersonate-User: admin", "Impersonate-Group: system:masters"},
		"lower case":              {"impersonate-user: admin"},
		"upper case":              {"IMPERSONATE-USER: admin"},
		"nothing in it":           {"Impersonate-User:"},
		"itself":                  {"Impersonate-User: " + agent.Subject},
		"one yet to be invented":  {"Impersonate-Anything: x"},
		"twice":                   {"Impersonate-User: admin", "Impersonate-User: admin"},
		"named as hop-by-hop":     {"Connection: Impersonate-User", "Impersonate-User: admin"},
		"an upgrade that asks so": {"Connection: Upgrade", "Upgrade: websocket", "Impersonate-User: admin"},
	} {
		probes = append(probes, probe{name: name, Request: get(pods, lines...), code: 403, reason: "Forbidden", says: "impersonation"})
	}
	refused(t, agent, probes)
	if out := agent.Kubectl(t, "auth", "whoami", "--as=admin"); out.Code == 0 {
		t.Errorf("kubectl --as: %v", out)
	}
}

// Threats H2, H3, H4, H8: whatever else stands in a header, the cluster is asked as the agent itself.
func TestHeadersChangeNobody(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent, other := s.Agent(t, "agents"), s.Agent(t, "developers")
	want := agent.Whoami(t)
	for _, test := range []struct {
		name  string
		lines []string
	}{
		{"H2 Authorization is hop-by-hop", []string{"Connection: close, Authorization"}},
		{"H2 keep-alive too", []string{"Connection: keep-alive, Authorization, Audit-ID, Accept, Content-Type"}},
		{"H2 two lines", []string{"Connection: authorization", "Connection: AUTHORIZATION"}},
		{"H2 Proxy-Connection", []string{"Proxy-Connection: Authorization"}},
		{"H3 front proxy", []string{"X-Remote-User: root", "X-Remote-Group: system:masters", "X-Remote-Extra-Scopes: all", "X-Remote-Uid: 0"}},
		{"H3 load balancer", []string{"X-Amzn-Oidc-Data: x", "X-Amzn-Oidc-Identity: root", "X-Amzn-Oidc-Accesstoken: x"}},
		{"H3 forwarded", []string{"X-Forwarded-User: root", "X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "X-Forwarded-Host: evil", "X-Original-Url: /api/v1/secrets", "X-Http-Method-Override: DELETE"}},
		{"H3 AWS", []string{"X-Amz-Security-Token: x", "X-K8s-Aws-Id: other"}},
		{"H4 look-alikes", []string{"Authorization_: Bearer x", "Impersonate_User: admin", "X-Impersonate-User: admin", "Authorization2: Bearer x"}},
		{"H4 a cookie", []string{"Cookie: token=x"}},
		{"H4 a proxy's authorization", []string{"Proxy-Authorization: Bearer " + other.Token}},
		{"H8 another host", []string{"Host: other.example.com"}},
		{"an audit id of its own", []string{"Audit-ID: 00000000-0000-0000-0000-000000000000"}},
		{"Expect", []string{"Expect: 100-continue"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := s.Dial(t)
			c.Send(stacktest.Request{Method: http.MethodPost, Target: s.Path(stacktest.ReviewPath), Body: stacktest.Review,
				Header: append([]string{stacktest.Bearer(agent.Token), "Content-Type: application/json"}, test.lines...)})
			a, err := c.Receive(http.MethodPost)
			if err == nil && a.Code == http.StatusContinue {
				a, err = c.Receive(http.MethodPost)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, err := a.Username(); err != nil || got != want {
				t.Errorf("want %s, got %s (%v)", want, got, err)
			}
			e := s.Reached(t, a.AuditID())
			if e.User.Username != want || e.ImpersonatedUser != nil || strings.HasPrefix(string(e.AuditID), "00000000") || len(e.SourceIPs) != 1 {
				t.Errorf("the cluster's audit log has %s for %v from %v", e.User.Username, e.ImpersonatedUser, e.SourceIPs)
			}
		})
	}
	t.Run("H4 trailers", func(t *testing.T) {
		a := s.Do(t, stacktest.Request{Method: http.MethodPost, Target: s.Path(stacktest.ReviewPath),
			Header: []string{stacktest.Bearer(agent.Token), "Content-Type: application/json", "Transfer-Encoding: chunked", "Trailer: Impersonate-User, Authorization"},
			Body:   fmt.Sprintf("%x\r\n", len(stacktest.Review)) + stacktest.Review + "\r\n0\r\nImpersonate-User: admin\r\nAuthorization: Bearer x\r\n\r\n"})
		if got, err := a.Username(); err != nil || got != want {
			t.Errorf("want %s, got %s (%v)", want, got, err)
		}
	})
	// Threat U7: who asks is found out anew at every request of a connection.
	t.Run("U7 one connection, two people", func(t *testing.T) {
		c := s.Dial(t)
		ask := func(lines ...string) stacktest.Answer {
			c.Send(stacktest.Request{Method: http.MethodPost, Target: s.Path(stacktest.ReviewPath), Body: stacktest.Review, Header: append(lines, "Content-Type: application/json")})
			a, err := c.Receive(http.MethodPost)
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		for _, x := range []struct {
			who  *stacktest.Agent
			tier string
		}{{agent, "operate"}, {other, "develop"}, {agent, "operate"}} {
			if got, err := ask(stacktest.Bearer(x.who.Token)).Username(); err != nil || !strings.Contains(got, ":assumed-role/"+x.tier+"/"+x.who.Subject+"-") {
				t.Errorf("want %s in tier %s, got %s (%v)", x.who.Subject, x.tier, got, err)
			}
		}
		if a := ask(); a.Code != http.StatusUnauthorized {
			t.Errorf("without a token on a connection that had one: %v", a)
		}
	})
}
