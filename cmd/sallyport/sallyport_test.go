package main

import (
	"errors"
	"flag"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
	"sallyport/shared/recording"
	"sallyport/shared/recording/recordingtest"
)

var update = flag.Bool("update", false, "write what the scripts expect")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": main, "fakectl": fakectl})
}

// Every script has a bucket of its own behind S3's API, with what record puts there.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:           filepath.Join("testdata", "script"),
		UpdateScripts: *update,
		Setup: func(env *testscript.Env) error {
			bucket := &recordingtest.Bucket{Name: "recordings", PageSize: 3}
			if err := record(t, bucket); err != nil {
				return err
			}
			server := httptest.NewServer(bucket)
			env.Defer(server.Close)
			profile := fmt.Sprintf(`{"region": "eu-west-1", "endpoint": %q, "recordings_bucket": "recordings", "cluster": "prod",
				"credentials": {"access_key_id": "test", "secret_access_key": "test"}}`, server.URL)
			env.Setenv("ESC", "\x1b")
			env.Values["bucket"] = bucket
			if err := asking(env); err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(env.WorkDir, "profile.json"), []byte(profile), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// usage SAYS ARGS... runs sallyport and wants a usage error that says it: exit code 2, a hint, no output.
			"usage": func(ts *testscript.TestScript, _ bool, args []string) {
				err := ts.Exec("sallyport", args[1:]...)
				stderr := ts.ReadFile("stderr")
				var exit *exec.ExitError
				switch {
				case !errors.As(err, &exit) || exit.ExitCode() != exitUsage:
					ts.Fatalf("%v, want exit code %d", err, exitUsage)
				case !strings.Contains(stderr, args[0]) || !strings.Contains(stderr, "\nsallyport: hint: "):
					ts.Fatalf("stderr %q, want it to say %q, and a hint", stderr, args[0])
				case ts.ReadFile("stdout") != "":
					ts.Fatalf("a usage error wrote to stdout")
				}
			},
			// nothing wants that a server which is no gate was asked to do nothing.
			"nothing": nothing,
			// damage KEY-PART cuts the one object whose key has it.
			"damage": func(ts *testscript.TestScript, _ bool, args []string) {
				bucket := ts.Value("bucket").(*recordingtest.Bucket)
				for _, key := range bucket.Keys() {
					if strings.Contains(key, args[0]) {
						bucket.Set(key, []byte("\x28\xb5\x2f\xfd cut"))
						return
					}
				}
				ts.Fatalf("no key has %s", args[0])
			},
		},
	})
}

// record fills the bucket as the gate does: two sessions of cluster prod, one of an hour ago, and refused requests.
func record(t *testing.T, bucket *recordingtest.Bucket) error {
	day := time.Date(2025, 11, 24, 9, 30, 0, 0, time.UTC)
	keys := day
	r, err := recording.New(recording.Config{Store: bucket, Task: "task1", MaxSegment: 1, Now: func() time.Time { return keys }})
	if err != nil {
		return err
	}
	deployer := access.Session{
		ID: "deploy2abc", Cluster: "prod", Tier: "operate", Name: "shop-deployer-3f2a", Policy: "9f86d081",
		Principal: access.Principal{
			Issuer: "https://issuer.example.com", Subject: "repo:acme/shop", Agent: "shop-deployer",
			Run: map[string]string{"run_id": "4711", "run_attempt": "1"}, Owner: "ada@example.com", Groups: []string{"deployers"},
		},
	}
	evil := access.Session{
		ID: "evil7xyz", Cluster: "prod", Tier: "view", Name: "evil-77aa", Policy: "9f86d081",
		Principal: access.Principal{Issuer: "https://issuer.example.com", Subject: "evil", Agent: "evil\x1b[2J\u202e\u009b31m"},
	}
	n := 0
	request := func(s access.Session, at time.Time, f recording.Facts) {
		n++
		f.ID, f.Session, f.Cluster, f.Sources, f.UserAgent = fmt.Sprintf("request-%d", n), s, s.Cluster, []string{"203.0.113.7"}, "kubectl/v1.35.4"
		if f.Stage == "" {
			f.Stage = auditv1.StageResponseComplete
		}
		f.Received, f.At = at, at.Add(25*time.Millisecond)
		keys = at
		if err := r.Append(t.Context(), recording.Stream{Cluster: f.Cluster, Session: s.ID}, recording.Event(f)); err != nil {
			t.Errorf("recording: %v", err)
		}
	}
	allow := func(rule string) access.Decision {
		return access.Decision{Effect: access.Allow, Rule: rule, Tier: "operate", Policy: "9f86d081"}
	}
	at := func(d time.Duration) time.Time { return day.Add(d) }
	request(deployer, at(0), recording.Facts{
		Method: "GET", URI: "/apis/apps/v1/namespaces/shop/deployments/web", Decision: allow("read"), Code: 200, Sent: 2048,
		Action: access.Action{Verb: "get", Group: "apps", Version: "v1", Resource: "deployments", Namespace: "shop", Name: "web"},
	})
	request(deployer, at(time.Second), recording.Facts{
		Method: "GET", URI: "/version", Decision: allow("discovery"), Code: 200, Sent: 263,
		Action: access.Action{Verb: "get", Path: "/version", Resourceless: true},
	})
	request(deployer, at(2*time.Second), recording.Facts{
		Method: "GET", URI: "/api/v1/namespaces/shop/pods/web-0/exec?command=cat&command=/etc/passwd", Decision: allow("exec"), Code: 101,
		Stage:  auditv1.StageResponseStarted,
		Action: access.Action{Verb: "exec", Version: "v1", Resource: "pods", Subresource: "exec", Namespace: "shop", Name: "web-0", Stream: true, Upgrade: true},
	})
	request(deployer, at(3*time.Second), recording.Facts{
		Method: "DELETE", URI: "/api/v1/namespaces/shop/secrets/db", Code: 403, Reason: metav1.StatusReasonForbidden, Message: "no rule allows it", Sent: 211,
		Decision: access.Decision{Effect: access.Deny, Rule: "default", Policy: "9f86d081"},
		Action:   access.Action{Verb: "delete", Version: "v1", Resource: "secrets", Namespace: "shop", Name: "db"},
	})
	// A watch: it opened, and it ended.
	watch := recording.Facts{
		Method: "GET", URI: "/api/v1/pods?watch=true", Decision: allow("read"), Code: 200,
		Stage:  auditv1.StageResponseStarted,
		Action: access.Action{Verb: "watch", Version: "v1", Resource: "pods", Stream: true},
	}
	request(deployer, at(4*time.Second), watch)
	n--
	watch.Stage, watch.Sent = auditv1.StageResponseComplete, 70000
	request(deployer, at(4*time.Second), watch)
	// What the policy asks about, and people said yes to.
	request(deployer, at(4500*time.Millisecond), recording.Facts{
		Method: "DELETE", URI: "/api/v1/namespaces/shop/pods/web-0", Code: 200, Sent: 120, Approval: "a1", Approvers: []string{"ana@example.com"},
		Decision: access.Decision{Effect: access.Ask, Rule: "delete", Tier: "maintain", Policy: "9f86d081"},
		Action:   access.Action{Verb: "delete", Version: "v1", Resource: "pods", Namespace: "shop", Name: "web-0"},
	})

	request(evil, time.Now().Add(-time.Hour), recording.Facts{
		Method: "GET", URI: "/api/v1/namespaces/\x1b]0;pwned\x07/pods", Code: 200,
		Decision: access.Decision{Effect: access.Allow, Rule: "read", Tier: "view", Policy: "9f86d081"},
		Action:   access.Action{Verb: "list", Version: "v1", Resource: "pods", Namespace: "\x1b]0;pwned\x07"},
	})

	request(access.Session{Cluster: "prod"}, time.Now().Add(-time.Hour), recording.Facts{
		Method: "GET", URI: "/api/v1/secrets", Code: 401, Reason: metav1.StatusReasonUnauthorized, Message: "the token is expired",
	})
	request(access.Session{}, time.Now().Add(-time.Minute), recording.Facts{
		Method: "GET", URI: "/nowhere", Code: 404, Reason: metav1.StatusReasonNotFound, Message: "no such cluster",
	})
	// A segment that the gate did not write, in a cluster of its own.
	const raw = `{"kind":"Event","apiVersion":"audit.k8s.io/v1","auditID":"raw","stage":"ResponseComplete",` +
		`"requestURI":"/\u001b[2J","verb":"\u009b31m","user":{"username":"a\u001b]0;x\u0007","extra":{"issuer":["\u202e"],"run/\u001b":["\u001b"]}},` +
		`"objectRef":{"resource":"pods","name":"\t\u001b[1A"},"responseStatus":{"code":401,"message":"\u001b[31m"},` +
		`"annotations":{"sallyport.io/tier":"\u200b","sallyport.io/decision":"\u001b[8m"}}` + "\n"
	z, err := zstd.NewWriter(nil)
	if err != nil {
		return err
	}
	bucket.Set("sessions/raw/raw/20251124T093000.000000000Z-x-00000001.ndjson.zst", z.EncodeAll([]byte(raw), nil))
	bucket.Set("refused/raw/2025/11/24/09/20251124T093000.000000000Z-x-00000001.ndjson.zst", z.EncodeAll([]byte(raw), nil))
	return r.Close(t.Context())
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain ünïcode": "plain ünïcode",
		"\x1b[2J":       `\x1b[2J`,
		"a\tb\nc\x7f":   `a\x09b\x0ac\x7f`,
		"\u202e\u200b":  `\u{202e}\u{200b}`,
		"\u009b31m":     `\u{9b}31m`,
		"\xff\ufffd":    `\xff` + "\ufffd",
	} {
		if got := safe(in); got != want {
			t.Errorf("safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestPrintJSONIsSafe(t *testing.T) {
	var b strings.Builder
	if err := printJSON(&b, map[string]string{"a": "\x1b\u009b\x7f\u202e\U000e0001é\u2028"}); err != nil {
		t.Fatal(err)
	}
	if strings.ContainsFunc(b.String(), func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' }) {
		t.Errorf("%q is not safe on a terminal", b.String())
	}
	want := "{\n  \"a\": \"\\u001b\\u009b\\u007f\\u202e\\udb40\\udc01é\\u2028\"\n}\n"
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestProfileBesideTheExecutable(t *testing.T) {
	dir := t.TempDir()
	env := environment{
		getenv:     func(string) string { return "" },
		executable: func() (string, error) { return filepath.Join(dir, "bin", "sallyport"), nil },
	}
	if _, err := (&place{env: env}).file(); err == nil {
		t.Error("a profile was found where none is")
	}
	want := filepath.Join(dir, ".local", "profile.json")
	if err := os.MkdirAll(filepath.Dir(want), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(want, []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := (&place{env: env}).file(); got != want || err != nil {
		t.Errorf("file = %q, %v, want the local stack's", got, err)
	}
	env.getenv = func(name string) string { return map[string]string{profileVariable: "/from/env"}[name] }
	if got, _ := (&place{env: env}).file(); got != "/from/env" {
		t.Errorf("file = %q, want the environment's", got)
	}
	if got, _ := (&place{env: env, profile: "flag"}).file(); got != "flag" {
		t.Errorf("file = %q, want the flag's", got)
	}
}

func TestPolicyBesideTheExecutable(t *testing.T) {
	dir := t.TempDir()
	env := environment{executable: func() (string, error) { return filepath.Join(dir, "bin", "sallyport"), nil }}
	if got, err := policyFile(env); err == nil {
		t.Errorf("policy %q was found where none is", got)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".local"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".local", "stack.json"), []byte(`{"policy": {"file": "/stack/policy.yaml"}, "pids": {}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := policyFile(env); got != "/stack/policy.yaml" || err != nil {
		t.Errorf("policy = %q, %v, want the local stack's", got, err)
	}
}

// The policy that the gate is deployed with decides as its vectors say, and is all of effect.
func TestDefaultPolicy(t *testing.T) {
	for _, args := range [][]string{
		{"policy", "test", "../../infra/policy.vectors.yaml"},
		{"policy", "check", "--strict", "../../infra/policy.yaml"},
	} {
		var out, errs strings.Builder
		if code := run(t.Context(), args, environment{stdout: &out, stderr: &errs, now: time.Now}); code != exitDone {
			t.Errorf("%v: exit code %d\n%s%s", args, code, out.String(), errs.String())
		}
	}
}

func TestOutputThatCannotBeWrittenIsNoSuccess(t *testing.T) {
	var stderr strings.Builder
	code := run(t.Context(), []string{"--help"}, environment{stdout: broken{}, stderr: &stderr})
	if code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("no space left") }
