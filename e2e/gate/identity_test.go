package gate_test

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"sallyport/e2e/stacktest"
)

func TestNames(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	one, other := s.Agent(t, "agents"), s.Agent(t, "agents")
	names := map[string]bool{}
	for _, a := range []*stacktest.Agent{one, other} {
		name := a.Whoami(t)
		if want := regexp.MustCompile(`^arn:aws:sts::\d{12}:assumed-role/operate/` + a.Subject + `-[a-z2-7]{12}$`); !want.MatchString(name) {
			t.Errorf("the cluster knows %s as %s, want %s", a.Subject, name, want)
		}
		names[name] = true
		for _, x := range a.Assumed(t) {
			if x.SourceIdentity != x.RoleSessionName || !strings.HasSuffix(name, "/"+x.RoleSessionName) || x.Tags["sallyport:session"] == "" {
				t.Errorf("the role was assumed as %+v, the cluster says %s", x, name)
			}
		}
	}
	// Two subjects that come to the same characters are two names all the same.
	word := stacktest.Word()
	for _, subject := range []string{word + "/a", word + "-a", word + "-a/", word + ":a", word + "+a", word + "@a"} {
		a := s.Agent(t)
		a.Token = s.Token(t, "--subject", subject, "--groups", "agents")
		names[a.Whoami(t)] = true
	}
	if len(names) != 8 {
		t.Errorf("eight agents have %d names: %v", len(names), names)
	}
}

// The groups decide the tier, and tier and groups what an agent can do.
func TestTiers(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, test := range []struct {
		name   string
		groups []string
		tier   string
		exec   map[string]string // by namespace what is said to it; nothing when it is allowed, and asks when people are asked
	}{
		{"observers", []string{"observers"}, "observe", map[string]string{"dev": "no rule allows", "prod": "no rule allows"}},
		{"agents", []string{"agents"}, "operate", map[string]string{"dev": "asks", "prod": "asks"}},
		{"developers", []string{"developers"}, "develop", map[string]string{"dev": "", "prod": "no rule allows"}},
		{"the most powerful of two", []string{"developers", "observers", "strangers"}, "develop", map[string]string{"dev": "", "prod": "no rule allows"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			agent := s.Agent(t, test.groups...)
			if name := agent.Whoami(t); !strings.Contains(name, ":assumed-role/"+test.tier+"/"+agent.Subject+"-") {
				t.Errorf("whoami: want tier %s, got %s", test.tier, name)
			}
			if a := agent.Get(t, "/api/v1/namespaces/prod/pods"); a.Code != http.StatusOK {
				t.Errorf("reading pods: %v", a)
			}
			for ns, refused := range test.exec {
				if refused == "asks" {
					a := agent.Get(t, "/api/v1/namespaces/"+ns+"/pods/"+s.Pod(t, ns)+"/exec?command=true", "Sallyport-Ask: look")
					if a.Code != http.StatusAccepted || a.Rule() != "exec" {
						t.Errorf("exec in %s: want people to be asked, got %v", ns, a)
					}
					continue
				}
				out := agent.Kubectl(t, "exec", "-n", ns, s.Pod(t, ns), "--", "true")
				switch {
				case refused == "" && out.Code != 0:
					t.Errorf("exec in %s: %v", ns, out)
				case refused != "" && (out.Code == 0 || !strings.Contains(out.Stderr, "(Forbidden)") || !strings.Contains(out.Stderr, refused)):
					t.Errorf("exec in %s: want a refusal that says %q, got %v", ns, refused, out)
				}
			}
			// Tier develop reads Secrets masked, and asks to write one or to see a value; the others have nothing of them, however
			// they are asked for.
			reads := test.tier == "develop"
			for _, path := range []string{
				"/api/v1/secrets",
				"/api/v1/namespaces/dev/secrets",
				"/api/v1/namespaces/dev/secrets/",
				"/api/v1/namespaces/dev/secrets/db",
				"/api/v1/namespaces/dev/secrets/db/",
				"/api/v1/namespaces/dev/secrets?fieldSelector=metadata.name=db",
				"/api/v1/namespaces/dev/secrets?watch=1&timeoutSeconds=1",
				"/api/v1/watch/namespaces/dev/secrets?timeoutSeconds=1",
				"/api/v1/watch/namespaces/dev/secrets/db?timeoutSeconds=1",
			} {
				a := agent.Get(t, path)
				if status, err := a.Status(); reads && (a.Code != http.StatusOK || !strings.Contains(a.Body, `"db"`)) ||
					!reads && (err != nil || a.Code != http.StatusForbidden || !strings.Contains(status.Message, "secrets")) {
					t.Errorf("GET %s: tier %s got %v (%v)", path, test.tier, a, err)
				}
				hidden(t, "GET "+path, a.Body)
			}
			may := http.StatusForbidden
			if reads {
				may = http.StatusOK
			}
			for accept, want := range map[string]int{
				"application/json;as=Table;v=v1;g=meta.k8s.io": may, "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io": may, "application/vnd.kubernetes.protobuf,application/json": may, "*/*": may,
				"application/vnd.kubernetes.protobuf": http.StatusNotAcceptable, "application/yaml": http.StatusNotAcceptable, "application/cbor": http.StatusNotAcceptable, // nobody could mask them
			} {
				a := agent.Get(t, "/api/v1/namespaces/dev/secrets", "Accept: "+accept)
				if a.Code != want || !strings.HasPrefix(a.Header.Get("Content-Type"), "application/json") {
					t.Errorf("secrets as %s: tier %s got %v", accept, test.tier, a)
				}
				hidden(t, "secrets as "+accept, a.Body)
			}
			out := agent.Kubectl(t, "get", "secret", "db", "-n", "dev", "-o", "json")
			hidden(t, "kubectl get secret", out.Stdout+out.Stderr)
			if !reads {
				if out.Code == 0 || !strings.Contains(out.Stderr, "(Forbidden)") {
					t.Errorf("kubectl get secret: %v", out)
				}
				return
			}
			var db corev1.Secret // its data is base64, or this errs
			if err := json.Unmarshal([]byte(out.Stdout), &db); err != nil || len(db.Data) != 2 {
				t.Errorf("kubectl get secret: %v %v", err, out)
			}
			for key, value := range db.Data {
				if !masked.Match(value) {
					t.Errorf("kubectl get secret: %s is %q", key, value)
				}
			}
			for path, rule := range map[string]string{
				"GET /api/v1/namespaces/dev/secrets/db?reveal=password": "reveal", "GET /api/v1/namespaces/prod/secrets/db?reveal=password": "",
				"DELETE /api/v1/namespaces/dev/secrets/db": "write-secrets", "DELETE /api/v1/namespaces/prod/secrets/db": "",
			} {
				method, target, _ := strings.Cut(path, " ")
				a := s.Do(t, stacktest.Request{Method: method, Target: s.Path(target), Header: []string{stacktest.Bearer(agent.Token), "Sallyport-Ask: look"}})
				if rule != "" && (a.Code != http.StatusAccepted || a.Rule() != rule) || rule == "" && a.Code != http.StatusForbidden {
					t.Errorf("%s: want rule %q, got %v", path, rule, a)
				}
				hidden(t, path, a.Body)
			}
		})
	}
}

// masked is what stands for a value of a Secret.
var masked = regexp.MustCompile(`^\[masked:[a-z2-7]{12}\]$`)

// hidden says that nothing of the stack's Secrets is in a text, plain or as base64, at any of the three places it may begin.
func hidden(t *testing.T, what, text string) {
	t.Helper()
	for _, ns := range []string{"dev", "prod"} {
		for _, secret := range []string{"correct-horse-" + ns, "app:correct-horse-" + ns + "@db"} {
			for skip := range 3 {
				b := base64.RawStdEncoding.EncodeToString([]byte(strings.Repeat("x", skip) + secret))
				if strings.Contains(text, secret) || strings.Contains(text, b[4:len(b)-4]) {
					t.Errorf("%s: a secret was shown", what)
					return
				}
			}
		}
	}
}

func TestNoTier(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"no group", nil, "none of them has a tier"},
		{"an unknown group", []string{"--groups", "strangers"}, "strangers"},
		{"a group of another case", []string{"--groups", "Agents"}, "Agents"},
		{"a reviewer", []string{"--reviewer", "ana@example.com", "--audience", "sallyport"}, "none of them has a tier"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			agent := s.Agent(t)
			if args := test.args; len(args) == 0 || args[0] != "--reviewer" {
				agent.Token = s.Token(t, append(args, "--subject", agent.Subject)...)
			} else {
				agent.Token = s.Token(t, args...)
			}
			a := agent.Get(t, "/api/v1/namespaces/dev/pods")
			if status, err := a.Status(); err != nil || a.Code != http.StatusForbidden || status.Reason != "Forbidden" || !strings.Contains(status.Message, test.want) {
				t.Errorf("want a Forbidden that says %q, got %v (%v)", test.want, a, err)
			}
			if out := agent.Kubectl(t, "get", "--raw", "/api/v1/namespaces/dev/pods"); out.Code == 0 || !strings.Contains(out.Stderr, "none of them has a tier") {
				t.Errorf("kubectl: want the same sentence, got %v", out)
			}
			// Refused at discovery, client-go throws the sentence away; that it was refused it does say.
			if out := agent.Kubectl(t, "get", "pods", "-n", "dev"); out.Code == 0 || !strings.Contains(out.Stderr, "(Forbidden)") {
				t.Errorf("kubectl: want Forbidden, got %v", out)
			}
			if n := len(agent.Assumed(t)); n != 0 {
				t.Errorf("a role was assumed %d times for nobody", n)
			}
		})
	}
}

// Changes that no rule allows are refused by the gate, whichever way kubectl makes them.
func TestKubectlMayNotWrite(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	name := s.ConfigMap(t)
	before := s.Admin(t, "get", "configmap", name, "-n", "dev", "-o", "yaml")
	pods := map[string]string{"dev": s.Pod(t, "dev"), "prod": s.Pod(t, "prod")}
	for group, ns := range map[string]string{"observers": "dev", "agents": "dev", "developers": "prod"} {
		agent := s.Agent(t, group)
		pod, object := pods[ns], name
		if ns == "prod" {
			object = "settings"
		}
		for _, args := range [][]string{
			{"delete", "pod", pod},
			{"delete", "configmap", object},
			{"delete", "configmaps", "--all"},
			{"create", "configmap", "written"},
			{"create", "deployment", "written", "--image=localhost/web:1"},
			{"create", "token", "app"},
			{"run", "written", "--image=localhost/web:1"},
			{"label", "configmap", object, "color=red"},
			{"annotate", "configmap", object, "color=red"},
			{"patch", "configmap", object, "-p", `{"data":{"color":"red"}}`},
			{"patch", "configmap", object, "-p", `{}`, "--dry-run=server"},
			{"scale", "deployment", "web", "--replicas=0"},
			{"set", "image", "deployment/web", "web=localhost/other:1"},
			{"rollout", "restart", "deployment/web"},
			{"expose", "deployment", "web", "--port=80"},
			{"debug", pod, "--image=localhost/web:1", "--attach=false"},
			{"cordon", "dev-node"},
		} {
			if group == "agents" && (args[0] == "scale" || args[1] == "restart") {
				continue // these are what agents are for
			}
			t.Run(group+" "+strings.Join(args[:2], " "), func(t *testing.T) {
				t.Parallel()
				out := agent.Kubectl(t, append(args, "-n", ns)...)
				// kubectl cordon says so and exits with 0.
				if out.Code == 0 && args[0] != "cordon" || !regexp.MustCompile(`no rule allows|rule "[a-z-]+" (denies|asks)`).MatchString(out.Stderr) {
					t.Errorf("want the gate's refusal, got %v", out)
				}
			})
		}
	}
	t.Cleanup(func() {
		if after := s.Admin(t, "get", "configmap", name, "-n", "dev", "-o", "yaml"); after != before {
			t.Errorf("it was changed:\n%s\n%s", before, after)
		}
		s.Admin(t, "get", "configmap/settings", "pod/"+pods["prod"], "-n", "prod")
	})
}
