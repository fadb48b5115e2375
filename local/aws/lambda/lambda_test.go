package lambda_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	runtime "github.com/aws/aws-lambda-go/lambda"
	"github.com/aws/aws-lambda-go/lambdacontext"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	api "github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"

	"sallyport/local/aws/lambda"
)

// TestMain lets this binary be the function: run by the stand-in, it is an ordinary aws-lambda-go bootstrap.
func TestMain(m *testing.M) {
	if os.Getenv("_HANDLER") == "" {
		os.Exit(m.Run())
	}
	switch os.Getenv("START") {
	case "exit":
		fmt.Fprintln(os.Stderr, "no configuration")
		os.Exit(3)
	case "panic":
		panic("at start")
	}
	runtime.Start(handle)
}

type question struct {
	Do    string
	Sleep int // milliseconds
	Size  int
}

type reply struct {
	PID      int
	Request  string
	ARN      string
	Left     float64 // seconds to the deadline
	Env      []string
	Dir      string
	Text     string
	Client   string
	Overlaps bool
}

type denied struct{}

func (denied) Error() string { return "not by me" }

var busy sync.Mutex

func handle(ctx context.Context, q question) (any, error) {
	if !busy.TryLock() {
		return reply{Overlaps: true}, nil
	}
	defer busy.Unlock()
	time.Sleep(time.Duration(q.Sleep) * time.Millisecond)
	switch q.Do {
	case "fail":
		return nil, errors.New("boom")
	case "deny":
		return nil, denied{}
	case "panic":
		panic("at work")
	case "exit":
		os.Exit(7)
	case "exit0":
		os.Exit(0)
	case "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	case "hang":
		select {}
	case "print":
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	case "die later":
		time.AfterFunc(50*time.Millisecond, func() { os.Exit(1) })
	}
	lc, _ := lambdacontext.FromContext(ctx)
	end, _ := ctx.Deadline()
	dir, _ := os.Getwd()
	return reply{PID: os.Getpid(), Request: lc.AwsRequestID, ARN: lc.InvokedFunctionArn, Left: time.Until(end).Seconds(), Env: os.Environ(), Dir: dir,
		Text: strings.Repeat("x", q.Size), Client: lc.ClientContext.Custom["k"]}, nil
}

type stand struct {
	t   *testing.T
	s   *lambda.Server
	c   *api.Client
	url string
	dir string
}

func start(t *testing.T, change func(*lambda.Config)) *stand {
	t.Helper()
	t.Setenv("SECRET_OF_THE_PARENT", "do not pass on")
	cfg := lambda.Config{Region: "eu-west-1", AccountID: "111122223333", Dir: t.TempDir(), Functions: []lambda.Function{{
		Name: "echo", Binary: os.Args[0], Timeout: 20 * time.Second, Env: map[string]string{"TABLE": "sessions"},
		Credentials: lambda.Credentials{AccessKeyID: "ASIAX", SecretAccessKey: "s", SessionToken: "t"}}}}
	if change != nil {
		change(&cfg)
	}
	s, err := lambda.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(s)
	t.Cleanup(func() { srv.Close(); s.Close() })
	return &stand{t: t, s: s, dir: cfg.Dir, url: srv.URL, c: api.New(api.Options{Region: "eu-west-1", BaseEndpoint: &srv.URL, RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("x", "x", "")})}
}

func (s *stand) invoke(name string, q question) *api.InvokeOutput {
	s.t.Helper()
	b, _ := json.Marshal(q)
	out, err := s.c.Invoke(s.t.Context(), &api.InvokeInput{FunctionName: &name, Payload: b})
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stand) ok(q question) reply {
	s.t.Helper()
	out := s.invoke("echo", q)
	var r reply
	if err := json.Unmarshal(out.Payload, &r); err != nil || out.FunctionError != nil {
		s.t.Fatalf("%s %s: %v", aws.ToString(out.FunctionError), out.Payload, err)
	}
	return r
}

func TestEnvironment(t *testing.T) {
	s := start(t, nil)
	r := s.ok(question{})
	got := map[string]string{}
	for _, kv := range r.Env {
		k, v, _ := strings.Cut(kv, "=")
		got[k] = v
	}
	for k, check := range map[string]string{"AWS_LAMBDA_RUNTIME_API": "127.0.0.1:", "AWS_LAMBDA_LOG_STREAM_NAME": time.Now().UTC().Format("2006/")} {
		if !strings.HasPrefix(got[k], check) {
			t.Errorf("%s=%s", k, got[k])
		}
		delete(got, k)
	}
	root := filepath.Dir(os.Args[0])
	want := map[string]string{
		"TABLE": "sessions", "AWS_ACCESS_KEY_ID": "ASIAX", "AWS_SECRET_ACCESS_KEY": "s", "AWS_SESSION_TOKEN": "t",
		"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-1", "_HANDLER": "bootstrap",
		"AWS_LAMBDA_FUNCTION_NAME": "echo", "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST", "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
		"AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand", "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/echo",
		"LAMBDA_TASK_ROOT": root, "LAMBDA_RUNTIME_DIR": root, "PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin", "LANG": "en_US.UTF-8", "TZ": ":UTC",
	}
	// The runtime client sets this one itself.
	delete(got, "_X_AMZN_TRACE_ID")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if r.ARN != "arn:aws:lambda:eu-west-1:111122223333:function:echo" || r.Request == "" || r.Left <= 10 || r.Left > 20 || r.Dir != root {
		t.Errorf("%+v", r)
	}
}

func TestOutcomes(t *testing.T) {
	for _, tt := range []struct {
		name string
		q    question
		kind string // errorType, "" for success
		says string
		same bool // the next invocation meets the same process
	}{
		{name: "success", same: true},
		{name: "error", q: question{Do: "fail"}, kind: "errorString", says: "boom", same: true},
		{name: "error of a type", q: question{Do: "deny"}, kind: "denied", says: "not by me", same: true},
		{name: "panic", q: question{Do: "panic"}, kind: "string", says: "at work"},
		{name: "exit", q: question{Do: "exit"}, kind: "Runtime.ExitError", says: "Error: Runtime exited with error: exit status 7"},
		{name: "exit 0", q: question{Do: "exit0"}, kind: "Runtime.ExitError", says: "Error: Runtime exited without providing a reason"},
		{name: "killed", q: question{Do: "kill"}, kind: "Runtime.ExitError", says: "signal: killed"},
		{name: "timeout", q: question{Do: "hang"}, kind: "Sandbox.Timedout", says: "Error: Task timed out after 2.00 seconds"},
		{name: "answer of 6 MB", q: question{Size: lambda.MaxPayload - 4000}, same: true},
		{name: "answer too large", q: question{Size: lambda.MaxPayload}, kind: "Function.ResponseSizeTooLarge"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Under the race detector a process that ends well first sleeps a second.
			s := start(t, func(c *lambda.Config) {
				c.Functions[0].Env["GORACE"] = "atexit_sleep_ms=0"
				if tt.q.Do == "hang" {
					c.Functions[0].Timeout = 2 * time.Second
				}
			})
			before := s.ok(question{}).PID
			out := s.invoke("echo", tt.q)
			var e struct{ ErrorType, ErrorMessage string }
			if err := json.Unmarshal(out.Payload, &e); err != nil {
				t.Fatalf("%s: %v", out.Payload, err)
			}
			want := map[bool]string{true: "Unhandled"}[tt.kind != ""]
			if aws.ToString(out.FunctionError) != want || e.ErrorType != tt.kind || !strings.Contains(e.ErrorMessage, tt.says) {
				t.Errorf("%s %.200s", aws.ToString(out.FunctionError), out.Payload)
			}
			if aws.ToString(out.ExecutedVersion) != "$LATEST" || out.StatusCode != 200 {
				t.Errorf("version %v, status %d", out.ExecutedVersion, out.StatusCode)
			}
			if after := s.ok(question{}).PID; tt.kind != "Function.ResponseSizeTooLarge" && (after == before) != tt.same {
				t.Errorf("process %d, then %d", before, after)
			}
		})
	}
}

func TestInitFails(t *testing.T) {
	for mode, want := range map[string]string{"exit": "exit status 3", "panic": "exit status 2"} {
		s := start(t, func(c *lambda.Config) { c.Functions[0].Env["START"] = mode })
		for range 2 { // the slot must come back
			out := s.invoke("echo", question{})
			if aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), want) {
				t.Errorf("%s: %s", mode, out.Payload)
			}
		}
	}
}

func TestOneInvocationAtATimeAndReuse(t *testing.T) {
	s := start(t, func(c *lambda.Config) { c.Functions[0].MaxInstances = 3; c.Functions[0].Timeout = 5 * time.Second })
	var mu sync.Mutex
	pids := map[int]int{}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			r := s.ok(question{Sleep: 50})
			mu.Lock()
			defer mu.Unlock()
			pids[r.PID]++
			if r.Overlaps {
				t.Error("two invocations in one process")
			}
		})
	}
	wg.Wait()
	if len(pids) < 2 || len(pids) > 3 {
		t.Errorf("12 invocations ran in processes %v, want 2 or 3 of them", pids)
	}
	if r := s.ok(question{}); pids[r.PID] == 0 {
		t.Errorf("a new process %d although %v wait", r.PID, pids)
	}
}

func TestThrottled(t *testing.T) {
	s := start(t, func(c *lambda.Config) {
		c.Functions[0].MaxInstances, c.Wait = 1, 50*time.Millisecond
	})
	s.ok(question{})
	go s.s.Invoke(context.Background(), "echo", []byte(`{"Sleep":600}`))
	time.Sleep(100 * time.Millisecond)
	_, err := s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: aws.String("echo")})
	var e *types.TooManyRequestsException
	if !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
}

func TestIdleInstancesEnd(t *testing.T) {
	s := start(t, func(c *lambda.Config) { c.Idle = 50 * time.Millisecond })
	pid := s.ok(question{}).PID
	deadline := time.Now().Add(5 * time.Second)
	for syscall.Kill(pid, 0) == nil {
		if time.Now().After(deadline) {
			t.Fatal("the idle process stays")
		}
		time.Sleep(10 * time.Millisecond)
	}
	if again := s.ok(question{}).PID; again == pid {
		t.Error("the dead process answered")
	}
}

func TestDeathBetweenInvocationsIsNotAnError(t *testing.T) {
	s := start(t, nil)
	for range 3 {
		pid := s.ok(question{Do: "die later"}).PID
		time.Sleep(120 * time.Millisecond)
		if again := s.ok(question{}).PID; again == pid {
			t.Error("the dead process answered")
		}
	}
}

func TestCloseEndsBusyInstances(t *testing.T) {
	s := start(t, func(c *lambda.Config) { c.Functions[0].Timeout = time.Minute })
	pid := s.ok(question{}).PID
	done := make(chan struct{})
	go func() { defer close(done); s.s.Invoke(context.Background(), "echo", []byte(`{"Do":"hang"}`)) }()
	time.Sleep(100 * time.Millisecond)
	s.s.Close()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("the invocation hangs")
	}
	if syscall.Kill(pid, 0) == nil {
		t.Error("the process is still there")
	}
}

func TestNewBinaryIsPickedUp(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "bootstrap")
	install := func() {
		in, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(bin+".new", in, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(bin+".new", bin); err != nil {
			t.Fatal(err)
		}
	}
	install()
	s := start(t, func(c *lambda.Config) { c.Functions[0].Binary = bin })
	first := s.ok(question{}).PID
	if again := s.ok(question{}).PID; again != first {
		t.Errorf("the process changed without need")
	}
	install()
	if again := s.ok(question{}).PID; again == first {
		t.Error("the old binary answered")
	}
}

func TestReplacedFunction(t *testing.T) {
	s := start(t, nil)
	s.ok(question{})
	if err := s.s.PutFunction(lambda.Function{Name: "echo", Binary: os.Args[0], Env: map[string]string{"TABLE": "other"}}); err != nil {
		t.Fatal(err)
	}
	if env := strings.Join(s.ok(question{}).Env, "\n"); !strings.Contains(env, "TABLE=other") {
		t.Errorf("environment %s", env)
	}
}

func TestInvokeAPI(t *testing.T) {
	s := start(t, nil)
	const arn = "arn:aws:lambda:eu-west-1:111122223333:function:echo"
	for _, name := range []string{"echo", arn, arn + ":$LATEST", arn + ":live", "111122223333:function:echo", "echo:live"} {
		if out := s.invoke(name, question{}); out.FunctionError != nil {
			t.Errorf("%s: %s", name, out.Payload)
		}
	}
	for name, want := range map[string]string{
		"nothing": "ResourceNotFoundException", "arn:aws:lambda:eu-west-1:111122223333:function:nothing": "ResourceNotFoundException",
		"arn:aws:lambda:eu-west-1:999999999999:function:echo": "ResourceNotFoundException", "a/b": "ValidationException",
	} {
		_, err := s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: &name})
		var e smithy.APIError
		if !errors.As(err, &e) || e.ErrorCode() != want {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, tt := range []struct {
		payload []byte
		kind    types.InvocationType
		status  int
		code    string
	}{
		{[]byte(`"` + strings.Repeat("x", lambda.MaxPayload) + `"`), "", 413, "RequestTooLargeException"},
		{[]byte(`"` + strings.Repeat("x", lambda.MaxEvent) + `"`), types.InvocationTypeEvent, 413, "RequestTooLargeException"},
		{[]byte(`{`), "", 400, "InvalidRequestContentException"},
		{[]byte(`{}`), "Later", 400, "InvalidParameterValueException"},
	} {
		_, err := s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: aws.String("echo"), Payload: tt.payload, InvocationType: tt.kind})
		var e smithy.APIError
		var h *smithyhttp.ResponseError
		if !errors.As(err, &e) || e.ErrorCode() != tt.code || !errors.As(err, &h) || h.HTTPStatusCode() != tt.status {
			t.Errorf("%d bytes %s: %v", len(tt.payload), tt.kind, err)
		}
	}
	out, err := s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeDryRun})
	if err != nil || out.StatusCode != 204 {
		t.Errorf("dry run: %v %v", out, err)
	}
	out, err = s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: aws.String("echo"), ClientContext: aws.String("eyJjdXN0b20iOnsiayI6InYifX0=")})
	if err != nil || !bytes.Contains(out.Payload, []byte(`"Client":"v"`)) {
		t.Errorf("client context: %s %v", out.Payload, err)
	}
}

func TestEventIsTriedAgainAndLogged(t *testing.T) {
	s := start(t, func(c *lambda.Config) { c.Retries = []time.Duration{time.Millisecond, time.Millisecond} })
	log := func() string {
		b, _ := os.ReadFile(filepath.Join(s.dir, "echo.log"))
		return string(b)
	}
	for _, q := range []string{`{"Do":"print"}`, `{"Do":"panic"}`} {
		out, err := s.c.Invoke(t.Context(), &api.InvokeInput{FunctionName: aws.String("echo"), InvocationType: types.InvocationTypeEvent, Payload: []byte(q)})
		if err != nil || out.StatusCode != 202 || len(out.Payload) != 0 {
			t.Fatalf("%+v %v", out, err)
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for strings.Count(log(), "at work") < 3 || !strings.Contains(log(), "to stdout") || !strings.Contains(log(), "to stderr") {
		if time.Now().After(deadline) {
			t.Fatalf("log:\n%s", log())
		}
		time.Sleep(20 * time.Millisecond)
	}
	if info, err := os.Stat(filepath.Join(s.dir, "echo.log")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log file %v %v", info.Mode(), err)
	}
}

func TestClientGoesAwayInvocationGoesOn(t *testing.T) {
	s := start(t, nil)
	pid := s.ok(question{}).PID
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := s.c.Invoke(ctx, &api.InvokeInput{FunctionName: aws.String("echo"), Payload: []byte(`{"Sleep":300}`)})
	if err == nil {
		t.Fatal("answered too soon")
	}
	time.Sleep(400 * time.Millisecond)
	if again := s.ok(question{}).PID; again != pid {
		t.Errorf("the invocation was cut: process %d, then %d", pid, again)
	}
}

func TestConfigIsChecked(t *testing.T) {
	good := lambda.Function{Name: "x", Binary: os.Args[0]}
	for name, change := range map[string]func(*lambda.Function){
		"name":           func(f *lambda.Function) { f.Name = "a/b" },
		"no binary":      func(f *lambda.Function) { f.Binary = "/nowhere/bootstrap" },
		"directory":      func(f *lambda.Function) { f.Binary = os.TempDir() },
		"not executable": func(f *lambda.Function) { f.Binary = "lambda.go" },
		"timeout":        func(f *lambda.Function) { f.Timeout = 16 * time.Minute },
		"reserved env":   func(f *lambda.Function) { f.Env = map[string]string{"AWS_ACCESS_KEY_ID": "x"} },
		"env name":       func(f *lambda.Function) { f.Env = map[string]string{"A=B": "x"} },
	} {
		f := good
		change(&f)
		if s, err := lambda.New(lambda.Config{Region: "r", AccountID: "111122223333", Dir: t.TempDir(), Functions: []lambda.Function{f}}); err == nil {
			s.Close()
			t.Errorf("%s: accepted", name)
		}
	}
}

// Kill takes a function's processes away whatever they do, and the next invocation does not notice.
func TestKill(t *testing.T) {
	s := start(t, nil)
	first := s.ok(question{})
	if n, err := s.s.Kill("echo"); n != 1 || err != nil {
		t.Fatalf("%d idle processes killed: %v", n, err)
	}
	if n, err := s.s.Kill("echo"); n != 0 || err != nil {
		t.Errorf("%d processes killed that were dead: %v", n, err)
	}
	second := s.ok(question{})
	if second.PID == first.PID {
		t.Error("the dead process answered")
	}
	ended := make(chan *api.InvokeOutput)
	go func() { ended <- s.invoke("echo", question{Do: "hang"}) }()
	time.Sleep(200 * time.Millisecond)
	if n, err := s.s.Kill("arn:aws:lambda:eu-west-1:111122223333:function:echo"); n != 1 || err != nil {
		t.Errorf("%d busy processes killed: %v", n, err)
	}
	if out := <-ended; aws.ToString(out.FunctionError) != "Unhandled" || !strings.Contains(string(out.Payload), "signal: killed") {
		t.Errorf("%s %s", aws.ToString(out.FunctionError), out.Payload)
	}
	if third := s.ok(question{}); third.PID == second.PID {
		t.Error("the dead process answered")
	}
	if _, err := s.s.Kill("nobody"); err == nil {
		t.Error("a function that is not there was killed")
	}
}
