// Package moto runs the moto server, which is every AWS service the local stack does not play itself: DynamoDB, Step
// Functions, S3, SES, Secrets Manager, KMS, CloudFormation.
//
// Moto believes everybody: it checks neither signatures nor permissions. It listens on a loopback port only the front
// needs to know, runs with an environment of its own so that no real AWS credential of the developer reaches it, and
// ends with this process. Its state is in memory and ends with it.
//
// venv.sh makes the Python environment it needs, from requirements.txt.
package moto

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"sallyport/local/aws/child"
)

//go:embed serve.py
var serve []byte

// Config of a Server.
type Config struct {
	// Python is the interpreter venv.sh printed.
	Python string
	// Dir gets moto.log and the launcher.
	Dir string
	// FrontPort is where moto calls other services, at localhost.
	FrontPort int
	AccountID string
	Region    string
}

// Server is a running moto.
type Server struct {
	// URL is where moto listens.
	URL  *url.URL
	proc *child.Process
	log  string
}

// Start starts moto without waiting for it; see Ready.
func Start(cfg Config) (*Server, error) {
	if cfg.Python == "" {
		return nil, errors.New("moto: no Python interpreter; local/aws/moto/venv.sh makes one and prints its path")
	}
	launcher := filepath.Join(cfg.Dir, "serve.py")
	if err := os.WriteFile(launcher, serve, 0o600); err != nil {
		return nil, fmt.Errorf("moto: writing the launcher: %w", err)
	}
	logPath := filepath.Join(cfg.Dir, "moto.log")
	log, err := child.Log(logPath)
	if err != nil {
		return nil, fmt.Errorf("moto: opening its log: %w", err)
	}
	defer log.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("moto: %w", err)
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, fmt.Errorf("moto: %w", err)
	}
	defer socket.Close()

	cmd := exec.Command(cfg.Python, launcher, "3")
	cmd.Dir = cfg.Dir
	cmd.ExtraFiles = []*os.File{socket}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + cfg.Dir, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8", "TZ=UTC",
		"PYTHONUNBUFFERED=1", "PYTHONDONTWRITEBYTECODE=1",
		"MOTO_ACCOUNT_ID=" + cfg.AccountID, "MOTO_PORT=" + strconv.Itoa(cfg.FrontPort),
		"AWS_DEFAULT_REGION=" + cfg.Region, "AWS_EC2_METADATA_DISABLED=true",
		"AWS_ACCESS_KEY_ID=moto", "AWS_SECRET_ACCESS_KEY=moto",
	}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("moto: %w", err)
	}
	return &Server{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}, proc: p, log: logPath}, nil
}

// PID is moto's process id.
func (s *Server) PID() int { return s.proc.PID() }

// Done is closed when moto has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.proc.Done() }

// Err says, once Done is closed, how moto ended, with the end of its log.
func (s *Server) Err() error {
	return fmt.Errorf("moto ended (%w); the end of %s:\n%s", s.proc.Err(), s.log, tail(s.log, 2000))
}

// Ready waits until moto answers.
func (s *Server) Ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-s.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	// The socket listens already, so the first request waits in its queue and is answered the moment moto is up.
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL.String()+"/moto-api/data.json", nil)
	if err != nil {
		return fmt.Errorf("moto: %w", err)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		select {
		case <-s.Done():
			return s.Err()
		case <-time.After(time.Second): // its end may be noticed a moment after the connection's
			return fmt.Errorf("waiting for moto: %w", err)
		}
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, resp.Body)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("moto answers %s; the end of %s:\n%s", resp.Status, s.log, tail(s.log, 2000))
	}
	return nil
}

// Stop ends moto.
func (s *Server) Stop() { s.proc.Stop(2 * time.Second) }

func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return strings.TrimSpace(string(b))
}
