package gate_test

import (
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/e2e/stacktest"
)

// entry is what the record says of a request.
type entry struct {
	Verb, Resource, Decision, Tier string
	Code                           int32
	Stages                         string
}

func TestRecord(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	pod := s.Pod(t, "dev")
	ids := map[string]string{} // by what was done
	did := func(what string, a stacktest.Answer) { ids[what] = a.AuditID() }
	did("list", agent.Get(t, "/api/v1/namespaces/dev/pods"))
	did("missing", agent.Get(t, "/api/v1/namespaces/dev/pods/nothing"))
	did("secrets", agent.Get(t, "/api/v1/namespaces/dev/secrets"))
	did("whoami", agent.Post(t, stacktest.ReviewPath, stacktest.Review))
	body := `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"written-"},"data":{"word":"word-in-a-body"}}`
	did("refused write", agent.Post(t, "/api/v1/namespaces/prod/configmaps", body))
	did("write", agent.Post(t, "/api/v1/namespaces/dev/configmaps?dryRun=All", body))
	did("proxy", agent.Get(t, "/api/v1/nodes/dev-node/proxy/pods"))
	did("metrics", agent.Get(t, "/metrics"))
	did("watch", agent.Get(t, "/api/v1/namespaces/dev/configmaps?watch=1&timeoutSeconds=1"))
	did("bad upgrade", agent.Get(t, "/api/v1/namespaces/dev/pods/"+pod+"/exec?command=word-in-argv"))
	did("escaped", agent.Get(t, "/api/v1/namespaces/dev/%70ods"))
	did("token in the query", agent.Get(t, "/api/v1/namespaces/dev/pods?limit=1&access_token=word-in-a-token"))
	c := s.Dial(t)
	c.Send(stacktest.Request{Target: s.Path("/api/v1/namespaces/dev/pods/" + pod + "/exec?command=sh&command=-c&command=echo+word-in-argv&stdout=true"),
		Header: append([]string{stacktest.Bearer(agent.Token), "Sec-WebSocket-Protocol: v5.channel.k8s.io"}, webSocket...)})
	a, err := c.Receive(http.MethodGet)
	if err != nil || a.Code != http.StatusSwitchingProtocols {
		t.Fatalf("exec: %v, %v", a, err)
	}
	did("exec", a)
	_, _ = c.Read(make([]byte, 4096))
	c.Close()

	var all, early []string
	for what, id := range ids {
		if id == "" {
			t.Fatalf("%s has no audit id", what)
		}
		if what == "escaped" {
			early = append(early, id) // it was refused before there was a session
		} else {
			all = append(all, id)
		}
	}
	record := agent.Recorded(t, all...)
	refusals := s.Refused(t, early...)

	want := map[string]entry{
		"list":               {"list", "pods", "allow", "develop", 200, "ResponseComplete"},
		"missing":            {"get", "pods/nothing", "allow", "develop", 404, "ResponseComplete"},
		"secrets":            {"list", "secrets", "allow", "develop", 200, "ResponseComplete"},
		"whoami":             {"create", "selfsubjectreviews", "allow", "develop", 201, "ResponseComplete"},
		"refused write":      {"create", "configmaps", "deny", "develop", 403, "ResponseComplete"},
		"write":              {"create", "configmaps", "allow", "develop", 201, "RequestReceived ResponseComplete"},
		"proxy":              {"get", "nodes/dev-node/proxy", "deny", "develop", 403, "ResponseComplete"},
		"metrics":            {"get", "", "deny", "develop", 403, "ResponseComplete"},
		"watch":              {"watch", "configmaps", "allow", "develop", 200, "ResponseStarted ResponseComplete"},
		"bad upgrade":        {"exec", "pods/" + pod + "/exec", "allow", "develop", 400, "ResponseComplete"},
		"token in the query": {"list", "pods", "allow", "develop", 200, "ResponseComplete"},
		"exec":               {"exec", "pods/" + pod + "/exec", "allow", "develop", 101, "RequestReceived ResponseComplete"},
		"escaped":            {"get", "", "", "", 400, "ResponseComplete"},
	}
	got := map[string]entry{}
	for what, id := range ids {
		events := append(record.Of(id), refusals.Of(id)...)
		var x entry
		var stages []string
		for _, e := range events {
			stages = append(stages, string(e.Stage))
			if e.APIVersion != "audit.k8s.io/v1" || e.Kind != "Event" || e.RequestReceivedTimestamp.IsZero() || e.StageTimestamp.IsZero() {
				t.Errorf("%s: no event of audit.k8s.io/v1: %+v", what, e)
			}
			if e.User.Username != agent.Subject || e.Annotations["sallyport.io/cluster"] != "dev" {
				t.Errorf("%s: recorded for %s on cluster %q", what, e.User.Username, e.Annotations["sallyport.io/cluster"])
			}
			x.Verb, x.Decision, x.Tier = e.Verb, e.Annotations["sallyport.io/decision"], e.Annotations["sallyport.io/tier"]
			if o := e.ObjectRef; o != nil {
				x.Resource = strings.Join(strings.FieldsFunc(o.Resource+"/"+o.Name+"/"+o.Subresource, func(r rune) bool { return r == '/' }), "/")
			}
			if e.ResponseStatus != nil {
				x.Code = e.ResponseStatus.Code
			}
		}
		x.Stages = strings.Join(stages, " ")
		got[what] = x
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the record (-want +got):\n%s", diff)
	}
	if n := len(record.Events); n != len(all)+3 {
		t.Errorf("%d events of %d requests, three of which have two", n, len(all))
	}
	if s := record.Session; s.Requests != len(all) || s.Refused != 3 || s.Tier != "develop" || !strings.HasPrefix(s.RoleSession, agent.Subject+"-") || s.Cluster != "dev" {
		t.Errorf("the session's summary: %+v", s)
	}
	for _, e := range append(record.Of(ids["exec"]), record.Of(ids["bad upgrade"])...) {
		if !strings.Contains(e.RequestURI, "command=REDACTED") {
			t.Errorf("exec's command is recorded as %s", e.RequestURI)
		}
	}
	if m := regexp.MustCompile(`word-in-[a-z-]+`).FindString(record.Raw + refusals.Raw); m != "" {
		t.Errorf("the record holds %s", m)
	}

	// The cluster's own audit log has what was forwarded under the same ids, and nothing else.
	inCluster := map[string]bool{}
	for _, e := range s.Audit(t) {
		if strings.Contains(e.User.Username, "/"+agent.Subject+"-") {
			inCluster[string(e.AuditID)] = true
		}
	}
	for what, id := range ids {
		forwarded := got[what].Decision == "allow" && what != "bad upgrade"
		if inCluster[id] != forwarded {
			t.Errorf("%s: in the cluster's audit log: %v, want %v", what, inCluster[id], forwarded)
		}
		delete(inCluster, id)
	}
	for id := range inCluster {
		t.Errorf("the cluster served request %s of the agent, and the record does not have it", id)
	}
}

// Requests of nobody are recorded too.
func TestRecordOfTheRefused(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	word := stacktest.Word()
	ask := func(target string, lines ...string) string {
		return s.Do(t, stacktest.Request{Target: target, Header: append([]string{"User-Agent: " + word}, lines...)}).AuditID()
	}
	nobody := s.Agent(t, "strangers")
	want := map[string]struct {
		code int32
		user string
	}{
		ask(s.Path("/api/v1/pods")):                                              {401, "system:anonymous"},
		ask(s.Path("/api/v1/pods"), "Authorization: Bearer x.y.z"):               {401, "system:anonymous"},
		ask(s.Path("/api/v1/pods"), stacktest.Bearer(nobody.Token)):              {403, nobody.Subject},
		ask("/clusters/nowhere/api/v1/pods", stacktest.Bearer(nobody.Token)):     {404, "system:anonymous"},
		ask(s.Path("/api/v1/pods"), "Impersonate-User: admin", "Authorization:"): {403, "system:anonymous"},
	}
	var ids []string
	for id := range want {
		ids = append(ids, id)
	}
	r := s.Refused(t, ids...)
	for id, w := range want {
		events := r.Of(id)
		if len(events) != 1 {
			t.Errorf("request %s has %d events, want one", id, len(events))
			continue
		}
		e := events[0]
		if e.ResponseStatus.Code != w.code || e.User.Username != w.user || e.UserAgent != word || e.Stage != auditv1.StageResponseComplete || len(e.SourceIPs) != 1 || e.ResponseStatus.Message == "" {
			t.Errorf("want %v, got %+v", w, e)
		}
	}
}

func TestSallyportSessions(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"an id that is nobody's", []string{"sessions", "show", "abcdefghijklmnopqrstuvwxyz"}, 1, "abcdefghijklmnopqrstuvwxyz"},
		{"no id", []string{"sessions", "show"}, 2, "needs one ID"},
		{"an unknown cluster", []string{"sessions", "show", "--cluster", "nowhere", "abcdefghijklmnopqrstuvwxyz"}, 1, "nowhere"},
		{"no such command", []string{"sessions", "erase"}, 2, "erase"},
	} {
		t.Run(test.name, func(t *testing.T) {
			out := s.Sallyport(t, test.args...)
			if out.Code != test.code || !strings.Contains(out.Stderr, test.want) || out.Stdout != "" {
				t.Errorf("want exit code %d and %q on stderr, got %v", test.code, test.want, out)
			}
		})
	}
}
