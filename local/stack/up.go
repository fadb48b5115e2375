package stack

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sallyport/shared/settings"
)

// Options are what a start can be told.
type Options struct {
	Policy             []byte        // the policy file; nil for the default one
	PolicyName         string        // what errors call it
	CredentialLifetime time.Duration // shortens the tier credentials' life, for tests of renewal; zero for AWS's
	Drain              time.Duration // how long the proxy lets streams go on when it ends; 2 s by default
}

// DefaultPolicy is the policy file the stack starts with: the one that is deployed to AWS.
func (s *Stack) DefaultPolicy() string { return filepath.Join(s.Root, "infra", "policy.yaml") }

// Up starts the stack and waits until it serves. When it runs already, it says so and does nothing.
func (s *Stack) Up(ctx context.Context, o Options) (d Description, err error) {
	if s.Running() {
		d, err := s.Describe()
		fmt.Fprintln(s.Out, "The stack is up already.")
		return d, err
	}
	if err := os.MkdirAll(s.path("logs"), 0o700); err != nil {
		return d, err
	}
	unlock, err := s.lock(false)
	if err != nil {
		return d, err
	}
	defer unlock()
	if err := s.Down(); err != nil { // what a start that failed, or a machine that crashed, left
		return d, err
	}
	u := &start{Stack: s, o: o, began: time.Now()}
	defer func() {
		if err != nil {
			_ = s.Down()
		}
	}()
	for _, step := range []struct {
		say string
		do  func(context.Context) error
	}{
		{"the issuer", u.issuer},
		{"AWS: moto, STS, EKS, Lambda", u.aws},
		{"Kubernetes: etcd, API server, controllers, node", u.cluster},
		{"the proxy", u.proxy},
	} {
		fmt.Fprintf(s.Out, "%5.1fs  starting %s\n", time.Since(u.began).Seconds(), step.say)
		if err := step.do(ctx); err != nil {
			return d, err
		}
	}
	fmt.Fprintf(s.Out, "%5.1fs  up\n", time.Since(u.began).Seconds())
	return u.d, writeJSON(s.path("stack.json"), u.d)
}

// start is one start under way.
type start struct {
	*Stack
	o      Options
	began  time.Time
	d      Description
	procs  []process
	awsEnv []string
	hook   string // kubeconfig of the token webhook
	slack  Slack
}

// daemon spawns a process and waits for the file in which it says that it is ready.
func (u *start) daemon(ctx context.Context, name, ready string, within time.Duration, into any, env []string, argv ...string) error {
	_ = os.Remove(ready)
	p, err := u.spawn(name, env, argv...)
	if err != nil {
		return err
	}
	u.procs = append(u.procs, p)
	if err := writeJSON(u.path("processes.json"), u.procs); err != nil {
		return err
	}
	if u.d.PIDs == nil {
		u.d.PIDs = map[string]int{}
	}
	u.d.PIDs[name] = p.PID
	return u.await(ctx, p, within, func() (bool, error) {
		err := readJSON(ready, into)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}

// await polls until done, and fails with the end of the log when the process ends first or time is up.
func (s *Stack) await(ctx context.Context, p process, within time.Duration, done func() (bool, error)) error {
	deadline := time.Now().Add(within)
	for {
		ok, err := done()
		switch {
		case err != nil:
			return fmt.Errorf("%s: %w", p.Name, err)
		case ok:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !p.alive():
			return fmt.Errorf("%s ended as it started; the end of .local/logs/%s.log:\n%s", p.Name, p.Name, tail(s.path("logs", p.Name+".log")))
		case time.Now().After(deadline):
			return fmt.Errorf("%s is not ready after %v; the end of .local/logs/%s.log:\n%s", p.Name, within, p.Name, tail(s.path("logs", p.Name+".log")))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (u *start) issuer(ctx context.Context) error {
	var ready struct{ URL, Audience string }
	if err := u.daemon(ctx, "issuer", u.path("issuer", "ready.json"), 10*time.Second, &ready, environment(),
		u.bin("local"), "serve-issuer", "--dir", u.path("issuer"), "--ready", u.path("issuer", "ready.json")); err != nil {
		return err
	}
	u.d.Issuer.URL, u.d.Issuer.Audience = ready.URL, ready.Audience
	return u.policy()
}

// policy fills in the policy file and makes sure that it loads before anything is started with it.
func (u *start) policy() error {
	filled, err := u.filled(u.o.PolicyName, u.o.Policy, u.d.Issuer.URL)
	if err != nil {
		return err
	}
	u.d.Policy.File = u.path("policy.yaml")
	return writeFile(u.d.Policy.File, filled)
}

// AWSReady is what serve-aws writes when it serves.
type AWSReady struct {
	Endpoint          string            `json:"endpoint"`
	WebhookKubeconfig string            `json:"webhook_kubeconfig"`
	PIDs              map[string]int    `json:"pids"`
	ProxyEnvironment  map[string]string `json:"proxy_environment"` // credentials of the proxy's role
	Reviews           string            `json:"reviews"`           // where the reviewers' pages are
	Inbox             string            `json:"inbox"`
	Slack             Slack             `json:"slack"`
}

// Slack is what the gate and Slack know of each other, as the gate's secret holds it.
type Slack struct {
	SigningSecret string `json:"signing_secret"`
	BotToken      string `json:"bot_token"`
}

func (u *start) aws(ctx context.Context) error {
	python, err := os.ReadFile(u.bin(".moto-python"))
	if err != nil {
		return fmt.Errorf("moto is not installed; run make build: %w", err)
	}
	var ready AWSReady
	if err := u.daemon(ctx, "aws", u.path("aws", "ready.json"), 60*time.Second, &ready, environment("SALLYPORT_MOTO_PYTHON="+strings.TrimSpace(string(python))),
		u.bin("local"), "serve-aws", "--dir", u.path("aws"), "--policy", u.d.Policy.File, "--issuer", u.d.Issuer.URL, "--ready", u.path("aws", "ready.json"),
		"--functions", filepath.Join(u.Root, "dist", "local"), "--credential-lifetime", u.o.CredentialLifetime.String()); err != nil {
		return err
	}
	for name, pid := range ready.PIDs {
		u.d.PIDs[name] = pid
	}
	u.d.AWS.Endpoint, u.d.AWS.Region = ready.Endpoint, Region
	u.d.Reviews.URL, u.d.Reviews.Inbox = ready.Reviews, ready.Inbox
	u.hook, u.slack = ready.WebhookKubeconfig, ready.Slack
	for k, v := range ready.ProxyEnvironment {
		u.awsEnv = append(u.awsEnv, k+"="+v)
	}
	return nil
}

func (u *start) cluster(ctx context.Context) error {
	var ready struct {
		Server          string         `json:"server"`
		CA              string         `json:"ca"`
		AdminKubeconfig string         `json:"admin_kubeconfig"`
		AuditLog        string         `json:"audit_log"`
		PIDs            map[string]int `json:"pids"`
	}
	binary, err := filepath.EvalSymlinks(u.bin("cluster"))
	if err != nil {
		return fmt.Errorf("the cluster is not built; run make build: %w", err)
	}
	provisioned := make(chan error, 1)
	go func() { provisioned <- u.provision(ctx) }() // while Kubernetes starts
	if err := u.daemon(ctx, "cluster", u.path("cluster", "ready.json"), 90*time.Second, &ready, environment(),
		binary, "up", "--dir", u.path("cluster"), "--token-webhook", u.hook, "--token-webhook-cache-ttl", "2s", "--pod-net", podNet(u.Root), "--ready-file", u.path("cluster", "ready.json")); err != nil {
		return err
	}
	for name, pid := range ready.PIDs {
		u.d.PIDs[name] = pid
	}
	c := &u.d.Cluster
	c.Name, c.Server, c.AdminKubeconfig, c.AuditLog = Cluster, ready.Server, ready.AdminKubeconfig, ready.AuditLog
	if err := <-provisioned; err != nil {
		return fmt.Errorf("provisioning AWS: %w", err)
	}
	if err := u.register(ctx, ready.Server, ready.CA); err != nil {
		return fmt.Errorf("registering the cluster with EKS: %w", err)
	}
	fmt.Fprintf(u.Out, "%5.1fs  applying RBAC and workloads\n", time.Since(u.began).Seconds())
	return u.workloads(ctx)
}

// workloads applies what the cluster starts with and waits until its pods run.
func (u *start) workloads(ctx context.Context) error {
	template, err := os.ReadFile(filepath.Join(u.Root, "local", "stack", "workloads.yaml"))
	if err != nil {
		return err
	}
	var all []string
	for _, ns := range []string{"dev", "prod"} {
		all = append(all, strings.ReplaceAll(string(template), "NAMESPACE", ns))
	}
	if err := u.kubectl(ctx, strings.Join(all, "\n---\n"), "apply", "-f", "-"); err != nil {
		return err
	}
	if err := u.kubectl(ctx, "", "apply", "-k", filepath.Join(u.Root, "infra", "rbac")); err != nil {
		return err
	}
	for _, ns := range []string{"dev", "prod"} {
		if err := u.kubectl(ctx, "", "rollout", "status", "deployment/web", "-n", ns, "--timeout=60s"); err != nil {
			return err
		}
	}
	return nil
}

func (u *start) kubectl(ctx context.Context, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, u.bin("kubectl"), append([]string{"--kubeconfig", u.d.Cluster.AdminKubeconfig, "--cache-dir", u.path("cluster", "kubectl-cache")}, args...)...)
	cmd.Env = environment()
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

func (u *start) proxy(ctx context.Context) error {
	certificate, key, ca := u.path("proxy.crt"), u.path("proxy.key"), u.path("proxy-ca.crt")
	if err := certify(certificate, key, ca); err != nil {
		return fmt.Errorf("making the gate's certificate: %w", err)
	}
	drain := u.o.Drain
	if drain == 0 {
		drain = 2 * time.Second
	}
	t := task{AWS: u.awsEnv, Settings: settings.Proxy{
		TLSCertificate: certificate, TLSKey: key, ExchangeFunction: settings.ExchangeFunction, ReviewFunction: settings.ReviewFunction,
		PolicyBucket: PolicyBucket, RecordingsBucket: RecordingsBucket, Drain: drain.String(),
	}}
	if err := writeJSON(u.path(proxyFile), t); err != nil {
		return err
	}
	p, listen, metrics, err := u.spawnProxy("proxy", t)
	if err != nil {
		return err
	}
	u.procs = append(u.procs, p)
	u.d.PIDs["proxy"] = p.PID
	if err := writeJSON(u.path("processes.json"), u.procs); err != nil {
		return err
	}
	u.d.Proxy.URL, u.d.Proxy.CA, u.d.Proxy.Metrics = "https://"+listen, ca, "http://"+metrics+"/metrics"
	u.d.Recordings.Bucket = RecordingsBucket
	if err := u.awaitProxy(ctx, p, metrics); err != nil {
		return err
	}
	return u.files()
}

// files writes what an agent and an auditor need.
func (u *start) files() error {
	ca, err := os.ReadFile(u.d.Proxy.CA)
	if err != nil {
		return err
	}
	u.d.Agent.Kubeconfig = u.path("agent.kubeconfig")
	kubeconfig := map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "gate",
		"clusters": []any{map[string]any{"name": "gate", "cluster": map[string]any{
			"server": u.d.Proxy.URL + "/clusters/" + Cluster, "certificate-authority-data": ca}}},
		"users": []any{map[string]any{"name": "agent", "user": map[string]any{"exec": map[string]any{
			"apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
			"command": u.bin("local"), "args": []string{"token", "--exec-credential", "--subject", "agent", "--groups", "agents"}}}}},
		"contexts": []any{map[string]any{"name": "gate", "context": map[string]any{"cluster": "gate", "user": "agent", "namespace": "dev"}}},
	}
	if err := writeJSON(u.d.Agent.Kubeconfig, kubeconfig); err != nil {
		return err
	}
	profile := map[string]any{"region": Region, "endpoint": u.d.AWS.Endpoint, "recordings_bucket": RecordingsBucket, "cluster": Cluster, "reviews_url": u.d.Reviews.URL,
		"credentials": map[string]string{"access_key_id": auditorKey, "secret_access_key": auditorSecret}}
	return writeJSON(u.path("profile.json"), profile)
}

// environment is all that a process of the stack gets of ours, and more.
func environment(more ...string) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	for _, name := range []string{"XDG_CACHE_HOME", "TMPDIR", "LANG"} {
		if v := os.Getenv(name); v != "" {
			env = append(env, name+"="+v)
		}
	}
	return append(env, more...)
}

// lock keeps two starts in one checkout apart. With wait, the second goes on when the first is done.
func (s *Stack) lock(wait bool) (func(), error) {
	f, err := os.OpenFile(s.path("lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	how := syscall.LOCK_EX
	if !wait {
		how |= syscall.LOCK_NB
	}
	if err := syscall.Flock(int(f.Fd()), how); err != nil {
		f.Close()
		return nil, errors.New("another start is under way in this checkout; wait for it")
	}
	return func() { f.Close() }, nil
}

// podNet is the loopback network of this checkout's pods, so that two checkouts' pods do not meet.
func podNet(root string) string {
	sum := sha256.Sum256([]byte(root))
	return fmt.Sprintf("127.%d.%d.0/20", 64+int(sum[0])%128, sum[1]&0xf0)
}

func freePorts() (string, string, error) {
	a, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer a.Close()
	b, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", "", err
	}
	defer b.Close()
	return a.Addr().String(), b.Addr().String(), nil
}

// certify makes the gate's certificate authority, whose key is thrown away, and its certificate.
func certify(certificate, key, ca string) error {
	authority, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Sallyport on one machine"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, &authority.PublicKey, authority)
	if err != nil {
		return err
	}
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "sallyport"}, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(0, 1, 0),
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}, KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, root, &k.PublicKey, authority)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path, kind string
		der        []byte
	}{{ca, "CERTIFICATE", rootDER}, {certificate, "CERTIFICATE", leafDER}, {key, "PRIVATE KEY", der}} {
		if err := writeFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.der})); err != nil {
			return err
		}
	}
	return nil
}

// tail is the end of a log.
func tail(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return string(b)
}
