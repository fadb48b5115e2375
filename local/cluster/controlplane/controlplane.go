// Package controlplane is the applet "up": it makes a cluster's keys, runs its
// five components as children of this process, says when it serves, and ends
// everything when it is told to end.
//
// All state lies in one directory. A second run with the same directory finds
// the first run's objects again; two runs at a time are refused by a lock.
//
// What it promises about processes: a child that dies takes the cluster down
// with an error that shows the child's last words. On SIGTERM or SIGINT the
// children end in order, and after a deadline by force. When the supervisor
// itself is killed, the kernel ends the children for it, and the node ends its
// pods. The next run sweeps what could still be left.
package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"sallyport/local/cluster/pki"
	"sallyport/local/cluster/process"
)

// nodeName is the one node's name.
const nodeName = "dev-node"

type config struct {
	dir          string
	port         int
	tokenWebhook string
	tokenCache   time.Duration
	podNet       netip.Prefix
	readyFile    string
	timeout      time.Duration
}

type cluster struct {
	cfg     config
	dir     string
	pki     pki.Dir
	ports   ports
	started time.Time
	log     *log.Logger

	etcd, apiserver, controllers, scheduler, node *child
	died                                          chan *child
}

// Main runs "up" until a signal ends it and returns an exit code.
func Main(args []string) int {
	cfg, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "cluster up: %v\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := up(ctx, cfg); err != nil {
		fmt.Fprintf(os.Stderr, "cluster up: %v\n", err)
		return 1
	}
	return 0
}

func parse(args []string) (config, error) {
	var c config
	fs := flag.NewFlagSet("cluster up", flag.ContinueOnError)
	fs.StringVar(&c.dir, "dir", "", "directory for all state, logs, keys and kubeconfigs (required)")
	fs.IntVar(&c.port, "port", 0, "port of the API server on 127.0.0.1; 0 chooses a free one, the same as last time if it can")
	fs.StringVar(&c.tokenWebhook, "token-webhook", "", "kubeconfig `file` of a token review webhook (authentication.k8s.io/v1)")
	fs.DurationVar(&c.tokenCache, "token-webhook-cache-ttl", 10*time.Second, "how long answers of the webhook are believed")
	podNet := fs.String("pod-net", "127.77.0.0/16", "loopback `prefix` out of which pods get their addresses")
	fs.StringVar(&c.readyFile, "ready-file", "", "`file` to write when the cluster serves (JSON)")
	fs.DurationVar(&c.timeout, "ready-timeout", 3*time.Minute, "give up when the cluster does not serve after this time")
	if err := fs.Parse(args); err != nil {
		return c, err
	}
	if fs.NArg() > 0 {
		return c, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if c.dir == "" {
		return c, errors.New("--dir is required: name a directory for the cluster's state")
	}
	var err error
	if c.podNet, err = netip.ParsePrefix(*podNet); err != nil {
		return c, fmt.Errorf("--pod-net: %w", err)
	}
	if !c.podNet.Addr().IsLoopback() || !c.podNet.Addr().Is4() || c.podNet.Bits() > 29 {
		return c, fmt.Errorf("--pod-net %s: it must be an IPv4 prefix inside 127.0.0.0/8 of /29 or wider", c.podNet)
	}
	for _, path := range []*string{&c.dir, &c.tokenWebhook, &c.readyFile} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return c, err
		}
	}
	if c.tokenWebhook != "" {
		if _, err := os.Stat(c.tokenWebhook); err != nil {
			return c, fmt.Errorf("--token-webhook: %w", err)
		}
	}
	return c, nil
}

func up(ctx context.Context, cfg config) error {
	c := &cluster{cfg: cfg, dir: cfg.dir, started: time.Now(), died: make(chan *child, 5),
		log: log.New(os.Stderr, "cluster: ", 0)}
	unlock, err := c.prepare()
	if err != nil {
		return err
	}
	defer unlock()
	defer c.stop()
	if err := c.start(ctx); err != nil {
		return err
	}
	ready := make(chan error, 1)
	readyCtx, cancel := context.WithTimeout(ctx, cfg.timeout)
	defer cancel()
	go func() { ready <- c.waitReady(readyCtx) }()
	for {
		select {
		case <-ctx.Done():
			c.log.Print("ending")
			return nil
		case dead := <-c.died:
			return dead.died()
		case err := <-ready:
			if ctx.Err() != nil {
				continue
			}
			if err != nil {
				return fmt.Errorf("waiting for the cluster: %w; see the logs in %s", err, c.dir)
			}
			if err := c.announce(); err != nil {
				return err
			}
		}
	}
}

// prepare makes everything the components need on disk. The returned function
// releases the directory.
func (c *cluster) prepare() (unlock func(), err error) {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(c.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			lock.Close()
		}
	}()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, fmt.Errorf("another cluster runs in %s: end it first, or choose another --dir", c.dir)
	}
	if c.cfg.readyFile != "" {
		if err := os.Remove(c.cfg.readyFile); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	process.KillMarked(c.pods(), 5*time.Second) // of a run that was killed
	if c.ports, err = choosePorts(c.dir, c.cfg.port); err != nil {
		return nil, err
	}
	if c.pki, err = pki.Ensure(filepath.Join(c.dir, "pki"), nodeName); err != nil {
		return nil, err
	}
	for _, name := range []string{"admin", "operator", "kube-controller-manager", "kube-scheduler", "hostnode"} {
		if err := c.pki.Kubeconfig(c.kubeconfig(name), name, c.server()); err != nil {
			return nil, fmt.Errorf("writing the kubeconfig of %s: %w", name, err)
		}
	}
	if err := pki.WriteFile(filepath.Join(c.dir, "audit-policy.yaml"), []byte(auditPolicy), 0o600); err != nil {
		return nil, err
	}
	return func() { lock.Close() }, nil
}

// start starts all components. The API server waits for etcd and the others
// for the API server by themselves only so long, so each is started when it can
// get somewhere.
func (c *cluster) start(ctx context.Context) error {
	steps := []struct {
		child    **child
		name     string
		args     []string
		deathsig syscall.Signal
		wait     func(context.Context) error
	}{
		{&c.etcd, "etcd", c.etcdArgs(), syscall.SIGKILL, nil},
		{&c.apiserver, "kube-apiserver", c.apiserverArgs(), syscall.SIGKILL, c.waitServing},
		{&c.controllers, "kube-controller-manager", c.controllerArgs(), syscall.SIGKILL, nil},
		{&c.node, "hostnode", c.nodeArgs(), syscall.SIGTERM, nil}, // it has pods to end
		{&c.scheduler, "kube-scheduler", c.schedulerArgs(), syscall.SIGKILL, nil},
	}
	for _, s := range steps {
		k, err := startChild(c.dir, s.name, s.deathsig, s.args...)
		if err != nil {
			return err
		}
		*s.child = k
		go func() {
			<-k.Done()
			c.died <- k
		}()
		if s.wait == nil {
			continue
		}
		if err := c.whileAlive(ctx, s.wait); err != nil {
			return err
		}
	}
	return nil
}

// whileAlive runs wait and gives up when a child dies. An ending supervisor is
// no error.
func (c *cluster) whileAlive(ctx context.Context, wait func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.timeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- wait(ctx) }()
	select {
	case dead := <-c.died:
		return dead.died()
	case err := <-done:
		if errors.Is(err, context.Canceled) {
			return nil
		}
		return err
	}
}

// stop ends pods first, then the control plane from the outside in.
func (c *cluster) stop() {
	if c.node != nil {
		c.node.Stop(8 * time.Second)
	}
	process.KillMarked(c.pods(), 5*time.Second)
	for _, group := range [][]*child{{c.controllers, c.scheduler}, {c.apiserver}, {c.etcd}} {
		var running []*child
		for _, k := range group {
			if k != nil {
				running = append(running, k)
			}
		}
		stop(4*time.Second, running...)
	}
	if c.cfg.readyFile != "" {
		os.Remove(c.cfg.readyFile)
	}
}

// announce writes the ready file.
func (c *cluster) announce() error {
	pids := map[string]int{"up": os.Getpid()}
	for _, k := range []*child{c.etcd, c.apiserver, c.controllers, c.scheduler, c.node} {
		pids[k.name] = k.Pid
	}
	ready := struct {
		Server          string         `json:"server"`
		CA              string         `json:"ca"`
		AdminKubeconfig string         `json:"admin_kubeconfig"`
		AuditLog        string         `json:"audit_log"`
		PIDs            map[string]int `json:"pids"`
	}{c.server(), c.pki.Cert("ca"), c.kubeconfig("admin"), c.auditLog(), pids}
	out, err := json.MarshalIndent(ready, "", "  ")
	if err != nil {
		return err
	}
	if c.cfg.readyFile != "" {
		if err := pki.WriteFile(c.cfg.readyFile, append(out, '\n'), 0o600); err != nil {
			return fmt.Errorf("writing the ready file: %w", err)
		}
	}
	c.log.Printf("serving on %s after %.1f s; KUBECONFIG=%s", c.server(), time.Since(c.started).Seconds(), c.kubeconfig("admin"))
	return nil
}

func (c *cluster) server() string   { return loopback(c.ports.APIServer) }
func (c *cluster) auditLog() string { return filepath.Join(c.dir, "audit.log") }
func (c *cluster) pods() string     { return filepath.Join(c.dir, "pods") }
func (c *cluster) kubeconfig(name string) string {
	return filepath.Join(c.dir, name+".kubeconfig")
}
