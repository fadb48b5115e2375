// Package aws is the AWS of one machine: what Sallyport needs of it, at http://localhost:PORT, with the deployed
// binaries and the SDKs unchanged.
//
//	front    the one endpoint; tells services apart and passes on what is not played here
//	sts      AssumeRole and GetCallerIdentity, verified by signature and trust policy
//	eks      DescribeCluster, access entries, and the token webhook of the API servers
//	lambda   runs the functions' bootstrap binaries under the Lambda Runtime API
//	httpapi  the HTTP API before the function with the reviewers' pages, at an address of its own
//	moto     everything else: DynamoDB, Step Functions, S3, SES, Secrets Manager, KMS, CloudFormation
//
// What is simulated proves that requests are well-formed, signed by whom they should be, and that the parts work
// together. IAM's evaluation of policies, EKS access policies and networking are not simulated, and nothing here proves
// anything about them.
//
// Every listener is on loopback. Whoever has an account on this machine can use this AWS as he likes; no credential of
// it is good anywhere else, and no credential of the developer's is read.
package aws

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"sigs.k8s.io/aws-iam-authenticator/pkg/token"

	"sallyport/local/aws/eks"
	"sallyport/local/aws/front"
	"sallyport/local/aws/lambda"
	"sallyport/local/aws/moto"
	"sallyport/local/aws/pki"
	"sallyport/local/aws/sts"
)

const (
	// DefaultAccountID is AWS's account for documentation.
	DefaultAccountID = "111122223333"
	// DefaultRegion is used when the config names none.
	DefaultRegion = "us-east-1"
)

// Function is a Lambda function with its execution role.
type Function struct {
	lambda.Function
	// Role is the IAM ARN of the role it runs as. When the function has no credentials they are made up and
	// registered with STS as the role's session named after the function, as Lambda does.
	Role string
}

// Config of the local AWS.
type Config struct {
	// Dir gets logs, the CA's certificate and the webhooks' kubeconfigs. It is made when missing.
	Dir string
	// Python is the interpreter moto runs in, as printed by local/aws/moto/venv.sh.
	Python string
	// FrontPort is the port of the endpoint, 0 for a free one.
	FrontPort int
	Region    string // DefaultRegion when empty
	AccountID string // DefaultAccountID when empty

	// Functions get AWS_ENDPOINT_URL unless their environment has one.
	Functions []Function
	// Principals hold credentials from the start.
	Principals []sts.Principal
	// Roles may be assumed.
	Roles []sts.Role
	// Clusters need no endpoint yet: an API server needs the webhook first. PutCluster tells it later.
	Clusters []eks.Cluster
	// AccessEntries of the clusters.
	AccessEntries []eks.AccessEntry
	// CredentialLifetime, when not zero, is the most that credentials minted by AssumeRole live.
	CredentialLifetime time.Duration
	// Mail, when not nil, is put before SES v2's SendEmail.
	Mail func(http.Handler) http.Handler
	// Local are more handlers of what is under /_local/, by pattern.
	Local map[string]http.Handler

	Log *slog.Logger // nil for none
}

// Stack is a running local AWS.
type Stack struct {
	// URL is the endpoint, http://localhost:PORT: the value of AWS_ENDPOINT_URL.
	URL string
	// CAFile holds the certificate that the webhook and STS's TLS listener are verified by.
	CAFile string
	// STSAddress is the TLS listener that answers as sts.REGION.amazonaws.com and as localhost.
	STSAddress string
	// WebhookURL is the base of the token webhooks; cluster NAME's is at /authenticate/NAME.
	WebhookURL string
	// Startup is how long it took to be ready.
	Startup time.Duration

	// The parts, to be asked and changed while they run.
	STS    *sts.Server
	EKS    *eks.Server
	Lambda *lambda.Server
	Moto   *moto.Server

	cfg     Config
	ca      *pki.Authority
	servers []*http.Server
	failed  chan error // what ended a part that should run
	stop    sync.Once

	traps trapped
}

// Start starts everything and waits until it serves; ctx bounds the start alone. Close ends it.
func Start(ctx context.Context, cfg Config) (_ *Stack, err error) {
	began := time.Now()
	if cfg.Region == "" {
		cfg.Region = DefaultRegion
	}
	if cfg.AccountID == "" {
		cfg.AccountID = DefaultAccountID
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Dir == "" {
		return nil, errors.New("aws: no directory")
	}
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return nil, fmt.Errorf("aws: %w", err)
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("aws: %w", err)
	}
	s := &Stack{cfg: cfg, failed: make(chan error, 8)}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()

	// Moto takes the longest, and needs nothing but the front's port.
	fronts, port, err := Listen(cfg.FrontPort)
	if err != nil {
		return nil, fmt.Errorf("aws: opening the endpoint: %w", err)
	}
	serving := false
	defer func() {
		if !serving {
			for _, l := range fronts {
				l.Close()
			}
		}
	}()
	s.URL = "http://localhost:" + strconv.Itoa(port)
	if s.Moto, err = moto.Start(moto.Config{Python: cfg.Python, Dir: cfg.Dir, FrontPort: port, AccountID: cfg.AccountID, Region: cfg.Region}); err != nil {
		return nil, err
	}

	if s.ca, err = pki.New(); err != nil {
		return nil, fmt.Errorf("aws: %w", err)
	}
	s.CAFile = filepath.Join(cfg.Dir, "ca.pem")
	if err := os.WriteFile(s.CAFile, s.ca.PEM(), 0o644); err != nil {
		return nil, fmt.Errorf("aws: %w", err)
	}
	if err := s.startSTS(); err != nil {
		return nil, err
	}
	if err := s.startEKS(); err != nil {
		return nil, err
	}
	if err := s.startLambda(); err != nil {
		return nil, err
	}
	s.serve("front", &http.Server{Handler: front.New(front.Config{
		Moto: s.Moto.URL, Lambda: s.Lambda, STS: s.STS, EKS: s.EKS, Local: s.local(), Mail: cfg.Mail, Trap: s.traps.spring, Log: cfg.Log})}, fronts...)
	serving = true
	if err := s.Moto.Ready(ctx); err != nil {
		return nil, err
	}
	s.Startup = time.Since(began)
	cfg.Log.Info("local AWS is ready", "url", s.URL, "startup", s.Startup)
	return s, nil
}

// Serve is Start, ready when it serves, and then Wait and Close: the body of a process that is nothing but this.
func Serve(ctx context.Context, cfg Config, ready func(*Stack)) error {
	s, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	if ready != nil {
		ready(s)
	}
	return s.Wait(ctx)
}

// Wait returns nil when ctx ends, and an error when a part ends by itself.
func (s *Stack) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.failed:
		return err
	case <-s.Moto.Done():
		if ctx.Err() != nil {
			return nil
		}
		return s.Moto.Err()
	}
}

// Close ends everything and waits for it.
func (s *Stack) Close() {
	s.stop.Do(func() {
		for _, h := range s.servers {
			h.Close()
		}
		if s.Lambda != nil {
			s.Lambda.Close()
		}
		if s.Moto != nil {
			s.Moto.Stop()
		}
	})
}

// Serve lets h answer on listeners as one more part, until Close. It is not to be called once Close may be.
func (s *Stack) Serve(name string, h http.Handler, listeners ...net.Listener) {
	s.serve(name, &http.Server{Handler: h}, listeners...)
}

// serve lets h answer on all listeners, and Wait hear when that ends.
func (s *Stack) serve(name string, h *http.Server, listeners ...net.Listener) {
	h.ReadHeaderTimeout = 10 * time.Second
	h.ErrorLog = slog.NewLogLogger(s.cfg.Log.With("part", name).Handler(), slog.LevelWarn)
	s.servers = append(s.servers, h)
	run := h.Serve
	if h.TLSConfig != nil {
		run = func(l net.Listener) error { return h.ServeTLS(l, "", "") }
	}
	for _, l := range listeners {
		go func() {
			if err := run(l); !errors.Is(err, http.ErrServerClosed) {
				s.failed <- fmt.Errorf("%s: %w", name, err)
			}
		}()
	}
}

// stsNames are what the TLS listener of STS may be called.
var stsNames = regexp.MustCompile(`^sts(-fips)?\.([a-z0-9-]+\.)?(amazonaws\.com|api\.aws)$`)

func (s *Stack) startSTS() error {
	var err error
	if s.STS, err = sts.New(sts.Config{AccountID: s.cfg.AccountID, Region: s.cfg.Region, Principals: s.cfg.Principals,
		Roles: s.cfg.Roles, Lifetime: s.cfg.CredentialLifetime}); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("aws: opening STS: %w", err)
	}
	s.STSAddress = l.Addr().String()
	s.serve("sts", &http.Server{Handler: s.STS, TLSConfig: s.ca.Server(stsNames.MatchString)}, l)
	return nil
}

func (s *Stack) startEKS() error {
	var err error
	if s.EKS, err = eks.New(eks.Config{AccountID: s.cfg.AccountID, Region: s.cfg.Region,
		Verifier: func(cluster string) (token.Verifier, error) {
			return eks.NewVerifier(cluster, s.cfg.Region, s.STSAddress, s.ca.Pool())
		}}); err != nil {
		return err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("aws: opening the token webhook: %w", err)
	}
	s.WebhookURL = "https://" + l.Addr().String()
	s.serve("webhook", &http.Server{Handler: s.EKS.Webhook(s.cfg.Log.With("part", "webhook")), TLSConfig: s.ca.Server(nil)}, l)
	for _, c := range s.cfg.Clusters {
		if err := s.PutCluster(c); err != nil {
			return err
		}
	}
	for _, e := range s.cfg.AccessEntries {
		if _, err := s.EKS.CreateAccessEntry(e, ""); err != nil {
			return fmt.Errorf("aws: access entry of %s in %s: %w", e.PrincipalARN, e.Cluster, err)
		}
	}
	return nil
}

func (s *Stack) startLambda() error {
	var functions []lambda.Function
	for _, f := range s.cfg.Functions {
		if f.Role != "" && f.Credentials == (lambda.Credentials{}) {
			p, err := s.STS.Register(sts.Principal{ARN: f.Role, Session: f.Name})
			if err != nil {
				return fmt.Errorf("aws: function %s: %w", f.Name, err)
			}
			f.Credentials = lambda.Credentials(p.Credentials)
		}
		s.traps.known(f.Credentials.AccessKeyID, f.Name)
		env := map[string]string{"AWS_ENDPOINT_URL": s.URL}
		maps.Copy(env, f.Env)
		f.Env = env
		functions = append(functions, f.Function)
	}
	var err error
	s.traps.kill = func(name string) { _, _ = s.Lambda.Kill(name) }
	s.Lambda, err = lambda.New(lambda.Config{Region: s.cfg.Region, AccountID: s.cfg.AccountID, Dir: filepath.Join(s.cfg.Dir, "lambda"),
		Functions: functions, Log: s.cfg.Log.With("part", "lambda")})
	return err
}

// PutCluster adds a cluster or tells the endpoint of one that is there, and writes its webhook's kubeconfig.
func (s *Stack) PutCluster(c eks.Cluster) error {
	if err := s.EKS.PutCluster(c); err != nil {
		return err
	}
	b, err := eks.Kubeconfig(c.Name, s.WebhookURL, s.ca.PEM())
	if err != nil {
		return fmt.Errorf("aws: webhook of %s: %w", c.Name, err)
	}
	if err := os.WriteFile(s.WebhookKubeconfig(c.Name), b, 0o600); err != nil {
		return fmt.Errorf("aws: webhook of %s: %w", c.Name, err)
	}
	return nil
}

// WebhookKubeconfig is the path of the file that tells cluster's API server where its token webhook is.
func (s *Stack) WebhookKubeconfig(cluster string) string {
	return filepath.Join(s.cfg.Dir, "webhook-"+cluster+".kubeconfig")
}

// local is what the endpoint says about itself, under /_local/.
//
//	GET /_local/health               200 when every part serves, 503 and why when not
//	GET /_local/sts/assumed          the AssumeRole calls so far
//	PUT /_local/sts/lifetime         {"lifetime": "5s"}: of credentials minted from now on; "0s" for as long as asked
//	PUT /_local/eks/clusters/{name}  {"endpoint": "https://…", "ca": "PEM", "version": "1.35"}
//	POST /_local/lambda/{name}/kill  kills the function's processes at once; with a body that is a Trap, once it springs
//	GET /_local/lambda/{name}/kill   {"trap": …}: the one that has not sprung, or null. DELETE takes it away
//	POST /_local/stepfunctions/restart  Step Functions loses every execution
func (s *Stack) local() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /_local/health", func(w http.ResponseWriter, _ *http.Request) {
		moto, status := "ok", http.StatusOK
		select {
		case <-s.Moto.Done():
			moto, status = "ended", http.StatusServiceUnavailable
		default:
		}
		reply(w, status, map[string]any{"ready": status == http.StatusOK, "moto": moto, "region": s.cfg.Region, "account": s.cfg.AccountID,
			"functions": s.Lambda.Functions(), "clusters": s.EKS.Clusters(), "webhook": s.WebhookURL, "ca": s.CAFile})
	})
	mux.HandleFunc("GET /_local/sts/assumed", s.STS.ServeAssumed)
	mux.HandleFunc("PUT /_local/sts/lifetime", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Lifetime string }
		if !read(w, r, &in) {
			return
		}
		d, err := time.ParseDuration(in.Lifetime)
		if err != nil || d < 0 {
			reply(w, http.StatusBadRequest, map[string]string{"message": "lifetime must be a duration such as 5s"})
			return
		}
		s.STS.SetLifetime(d)
		reply(w, http.StatusOK, map[string]string{"lifetime": d.String()})
	})
	mux.HandleFunc("POST /_local/lambda/{name}/kill", s.serveKill)
	mux.HandleFunc("GET /_local/lambda/{name}/kill", func(w http.ResponseWriter, r *http.Request) {
		reply(w, http.StatusOK, map[string]*Trap{"trap": s.traps.left(r.PathValue("name"))})
	})
	mux.HandleFunc("DELETE /_local/lambda/{name}/kill", func(w http.ResponseWriter, r *http.Request) {
		s.traps.remove(r.PathValue("name"))
		reply(w, http.StatusOK, map[string]any{})
	})
	mux.HandleFunc("POST /_local/stepfunctions/restart", func(w http.ResponseWriter, r *http.Request) {
		res, err := http.Post(s.Moto.URL.String()+"/moto-api/stepfunctions/restart", "", nil)
		if err != nil {
			reply(w, http.StatusServiceUnavailable, map[string]string{"message": err.Error()})
			return
		}
		defer res.Body.Close()
		w.WriteHeader(res.StatusCode)
		_, _ = io.Copy(w, res.Body)
	})
	for pattern, h := range s.cfg.Local {
		mux.Handle(pattern, h)
	}
	mux.HandleFunc("PUT /_local/eks/clusters/{name}", func(w http.ResponseWriter, r *http.Request) {
		var in struct{ Endpoint, CA, Version string }
		if !read(w, r, &in) {
			return
		}
		name := r.PathValue("name")
		if err := s.PutCluster(eks.Cluster{Name: name, Endpoint: in.Endpoint, CA: []byte(in.CA), Version: in.Version}); err != nil {
			reply(w, http.StatusBadRequest, map[string]string{"message": err.Error()})
			return
		}
		reply(w, http.StatusOK, map[string]string{"name": name, "webhookKubeconfig": s.WebhookKubeconfig(name)})
	})
	return http.NewCrossOriginProtection().Handler(mux) // a page that is open in a browser on this machine is here, too
}

func read(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		reply(w, http.StatusBadRequest, map[string]string{"message": "the body cannot be read: " + err.Error()})
		return false
	}
	return true
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// Listen listens on both addresses localhost may mean, since clients try either: the SDKs, moto's own client, browsers.
// Port 0 is a free one.
func Listen(port int) ([]net.Listener, int, error) {
	for try := 0; ; try++ {
		v4, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
		if err != nil {
			return nil, 0, err
		}
		got := v4.Addr().(*net.TCPAddr).Port
		v6, err := net.Listen("tcp6", "[::1]:"+strconv.Itoa(got))
		switch {
		case err == nil:
			return []net.Listener{v4, v6}, got, nil
		case !strings.Contains(err.Error(), "address already in use"):
			return []net.Listener{v4}, got, nil // a machine without IPv6
		}
		v4.Close()
		if port != 0 || try == 20 {
			return nil, 0, err
		}
	}
}
