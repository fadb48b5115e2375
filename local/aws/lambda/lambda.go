// Package lambda runs unmodified Go Lambda binaries under the Lambda Runtime API (2018-06-01) and answers Invoke as AWS
// does: one invocation at a time per process, processes started when they are needed and reused, a timeout that kills,
// a crash that is an answer and not an outage.
//
// It promises a function nothing but what AWS would give it: its environment holds the configured variables, those
// Lambda defines and nothing of the parent's; its credentials are its role's. It does not confine it: a function runs as
// the user who started the stack and can read whatever that user can. Whoever can reach the Invoke API can invoke any
// function, which in AWS IAM decides.
package lambda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// MaxPayload is the most bytes a synchronous invocation may carry, each way.
	MaxPayload = 6 << 20
	// MaxEvent is the most bytes of an asynchronous one.
	MaxEvent = 1 << 20

	defaultTimeout   = 3 * time.Second
	maxTimeout       = 15 * time.Minute
	defaultInstances = 10
	defaultIdle      = 10 * time.Minute
	defaultWait      = 10 * time.Second
	defaultMemory    = 128
	initTimeout      = 10 * time.Second
)

// Credentials of the function's role.
type Credentials struct {
	AccessKeyID     string
	SecretAccessKey string
	SessionToken    string
}

// Function is one deployed function.
type Function struct {
	Name string
	// Binary is the path of the bootstrap executable. When the file changes, the next invocation runs the new one.
	Binary string
	// Env is the configured environment. Names Lambda reserves are refused, as AWS does.
	Env map[string]string
	// Timeout of an invocation, 1 s to 15 min; zero is Lambda's default of 3 s.
	Timeout time.Duration
	// MemoryMB is only told to the function; zero is 128.
	MemoryMB    int
	Credentials Credentials
	// MaxInstances at the same time; zero is 10.
	MaxInstances int
}

// Config of a Server.
type Config struct {
	Region    string
	AccountID string
	// Dir gets one log file per function, NAME.log.
	Dir       string
	Functions []Function
	// Idle is how long an instance waits for work before it is ended; zero is 10 min.
	Idle time.Duration
	// Wait is how long an invocation waits for an instance when all are busy, before it is throttled; zero is 10 s.
	Wait time.Duration
	// Retries are the pauses before an asynchronous invocation that failed is tried again; nil is AWS's 1 and 2 min.
	Retries []time.Duration
	Log     *slog.Logger
}

// Server is the stand-in. Its methods may be called by several goroutines.
type Server struct {
	cfg Config
	log *slog.Logger

	mu        sync.Mutex
	functions map[string]*function
	closed    bool

	ctx    context.Context // ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // asynchronous invocations and reaping
}

// Result of an invocation.
type Result struct {
	Payload []byte
	// FunctionError is "" for success, "Unhandled" when the function failed and Payload says how.
	FunctionError string
	RequestID     string
}

// Error is a refusal of the service, not of the function, in AWS's words.
type Error struct {
	Code    string
	Status  int
	Message string
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

// New makes a Server; no process is started yet.
func New(cfg Config) (*Server, error) {
	if cfg.Idle == 0 {
		cfg.Idle = defaultIdle
	}
	if cfg.Wait == 0 {
		cfg.Wait = defaultWait
	}
	if cfg.Retries == nil {
		cfg.Retries = []time.Duration{time.Minute, 2 * time.Minute}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("lambda: making the log directory: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, functions: map[string]*function{}}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for _, f := range cfg.Functions {
		if err := s.PutFunction(f); err != nil {
			s.cancel()
			return nil, err
		}
	}
	return s, nil
}

var (
	functionName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)
	envName      = regexp.MustCompile(`^[a-zA-Z][a-zA-Z0-9_]+$`)
)

// reservedEnv are the variables Lambda sets itself and does not let a function's configuration set.
var reservedEnv = []string{
	"_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
	"AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE",
	"AWS_LAMBDA_LOG_GROUP_NAME", "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID",
	"AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
}

// PutFunction adds a function, or replaces one: invocations that run go on as they were, the next get the new one.
func (s *Server) PutFunction(f Function) error {
	if !functionName.MatchString(f.Name) {
		return fmt.Errorf("lambda: function name %q must match %s", f.Name, functionName)
	}
	if f.Timeout == 0 {
		f.Timeout = defaultTimeout
	}
	if f.Timeout < time.Second || f.Timeout > maxTimeout {
		return fmt.Errorf("lambda: function %s: timeout %v is not between 1 s and 15 min", f.Name, f.Timeout)
	}
	if f.MaxInstances == 0 {
		f.MaxInstances = defaultInstances
	}
	if f.MemoryMB == 0 {
		f.MemoryMB = defaultMemory
	}
	for k := range f.Env {
		if !envName.MatchString(k) || slices.Contains(reservedEnv, k) {
			return fmt.Errorf("lambda: function %s: environment variable %s is reserved or not well-formed", f.Name, k)
		}
	}
	bin, err := filepath.Abs(f.Binary)
	if err != nil {
		return fmt.Errorf("lambda: function %s: %w", f.Name, err)
	}
	if info, err := os.Stat(bin); err != nil {
		return fmt.Errorf("lambda: function %s: %w", f.Name, err)
	} else if info.IsDir() || info.Mode()&0o111 == 0 {
		return fmt.Errorf("lambda: function %s: %s is not executable", f.Name, bin)
	}
	f.Binary = bin
	f.Env = maps.Clone(f.Env)

	n := &function{Function: f, server: s, slots: make(chan struct{}, f.MaxInstances),
		arn: "arn:aws:lambda:" + s.cfg.Region + ":" + s.cfg.AccountID + ":function:" + f.Name}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return errors.New("lambda: closed")
	}
	old := s.functions[f.Name]
	s.functions[f.Name] = n
	s.mu.Unlock()
	if old != nil {
		old.retire()
	}
	return nil
}

// Functions lists the names of all functions, in order.
func (s *Server) Functions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.functions))
}

// Kill ends every process of a function at once, whatever it is doing, and returns how many there were: AWS takes an
// instance away like that, too. Invocations under way fail; the next one starts a new process.
func (s *Server) Kill(id string) (int, error) {
	f, refused := s.find(id)
	if refused != nil {
		return 0, refused
	}
	f.mu.Lock()
	all := slices.Collect(maps.Keys(f.all))
	f.mu.Unlock()
	killed := 0
	for _, i := range all {
		select {
		case <-i.proc.Done(): // its id may be another's by now
		default:
			i.proc.Kill()
			killed++
		}
	}
	return killed, nil
}

// Close ends every instance and waits for them.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	all := slices.Collect(maps.Values(s.functions))
	s.mu.Unlock()
	s.cancel()
	for _, f := range all {
		f.retire()
	}
	s.wg.Wait()
}

// identify finds the function name in what an Invoke URL may carry: a name, a partial ARN or an ARN, each with or
// without a version or alias.
var identify = regexp.MustCompile(`^(?:arn:aws:lambda:[a-z0-9-]+:)?(?:([0-9]{12}):)?(?:function:)?([a-zA-Z0-9_-]+)(?::(\$LATEST|[a-zA-Z0-9_-]+))?$`)

func (s *Server) find(id string) (*function, *Error) {
	m := identify.FindStringSubmatch(id)
	if m == nil {
		return nil, &Error{"ValidationException", http.StatusBadRequest, fmt.Sprintf("%q is not the name or ARN of a function", id)}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	f := s.functions[m[2]]
	if f == nil || m[1] != "" && m[1] != s.cfg.AccountID {
		return nil, &Error{"ResourceNotFoundException", http.StatusNotFound,
			"Function not found: arn:aws:lambda:" + s.cfg.Region + ":" + s.cfg.AccountID + ":function:" + m[2]}
	}
	return f, nil
}

// Invoke runs a function, named as in the Invoke API, and waits for its answer. An error is the service's refusal;
// a function that fails is a Result. An invocation that has begun goes on when ctx ends, as in AWS.
func (s *Server) Invoke(ctx context.Context, id string, payload []byte) (Result, error) {
	f, refused := s.find(id)
	if refused != nil {
		return Result{}, refused
	}
	return s.run(ctx, f, invocation{id: uuid(), payload: payload})
}

// run invokes f, or what has replaced it meanwhile.
func (s *Server) run(ctx context.Context, f *function, in invocation) (Result, error) {
	for {
		out, err := f.invoke(ctx, in)
		if !errors.Is(err, errRetired) {
			return out, err
		}
		now, refused := s.find(f.Name)
		if refused != nil || now == f {
			return Result{}, errRetired
		}
		f = now
	}
}

// event runs an asynchronous invocation to its end.
func (s *Server) event(f *function, in invocation) {
	for try := 0; ; try++ {
		out, err := s.run(s.ctx, f, in)
		if err == nil && out.FunctionError == "" {
			return
		}
		s.log.Warn("asynchronous invocation failed", "function", f.Name, "request", in.id, "try", try+1, "error", err)
		if try == len(s.cfg.Retries) {
			return
		}
		select {
		case <-s.ctx.Done():
			return
		case <-time.After(s.cfg.Retries[try]):
		}
	}
}

// problem is how Lambda writes what went wrong with a function.
func problem(kind, format string, args ...any) []byte {
	b, _ := json.Marshal(map[string]string{"errorType": kind, "errorMessage": fmt.Sprintf(format, args...)})
	return b
}

// environ is all an instance gets to see.
func (f *function) environ(api, stream string) []string {
	env := map[string]string{
		"PATH": "/usr/local/bin:/usr/bin:/bin:/opt/bin", "LANG": "en_US.UTF-8", "TZ": ":UTC",
		"_HANDLER":                        "bootstrap",
		"AWS_REGION":                      f.server.cfg.Region,
		"AWS_DEFAULT_REGION":              f.server.cfg.Region,
		"AWS_ACCESS_KEY_ID":               f.Credentials.AccessKeyID,
		"AWS_SECRET_ACCESS_KEY":           f.Credentials.SecretAccessKey,
		"AWS_SESSION_TOKEN":               f.Credentials.SessionToken,
		"AWS_LAMBDA_RUNTIME_API":          api,
		"AWS_LAMBDA_FUNCTION_NAME":        f.Name,
		"AWS_LAMBDA_FUNCTION_VERSION":     latest,
		"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": fmt.Sprint(f.MemoryMB),
		"AWS_LAMBDA_INITIALIZATION_TYPE":  "on-demand",
		"AWS_LAMBDA_LOG_GROUP_NAME":       "/aws/lambda/" + f.Name,
		"AWS_LAMBDA_LOG_STREAM_NAME":      stream,
		"LAMBDA_TASK_ROOT":                filepath.Dir(f.Binary),
		"LAMBDA_RUNTIME_DIR":              filepath.Dir(f.Binary),
	}
	maps.Copy(env, f.Env) // PATH, LANG, TZ may be set; the reserved ones were refused
	out := make([]string, 0, len(env))
	for k, v := range env {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

const latest = "$LATEST"

// stream names an instance's log as CloudWatch would.
func stream(now time.Time) string {
	return now.UTC().Format("2006/01/02") + "/[" + latest + "]" + strings.ReplaceAll(uuid(), "-", "")
}
