// Package dynamodb runs DynamoDB Local: Amazon's own stand-in for DynamoDB, in memory, for tests of what must hold on the real
// one. Moto, which the local stack uses, takes one write at a time behind the front; DynamoDB Local takes them at once and
// refuses conflicting transactions, as DynamoDB does.
//
// It believes everybody, and listens on every interface of the machine, which it cannot be told not to: it must hold nothing
// but a test's data, and ends with the test. It is no part of the product or of the local stack.
//
// fetch.sh fetches it; it needs Java 17 or newer.
package dynamodb

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"sallyport/local/aws/child"
)

// Server is a running DynamoDB Local.
type Server struct {
	URL  string
	proc *child.Process
}

// Start starts the DynamoDB Local in the directory that fetch.sh printed, on a free port, and waits until it answers. Its log
// is dynamodb.log in dir.
func Start(ctx context.Context, jars, dir string) (*Server, error) {
	var err error
	for range 5 { // between choosing a port and listening on it somebody else may take it
		var s *Server
		if s, err = start(ctx, jars, dir); err == nil || ctx.Err() != nil {
			return s, err
		}
	}
	return nil, err
}

func start(ctx context.Context, jars, dir string) (*Server, error) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		return nil, fmt.Errorf("dynamodb: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	logPath := filepath.Join(dir, "dynamodb.log")
	log, err := child.Log(logPath)
	if err != nil {
		return nil, fmt.Errorf("dynamodb: opening its log: %w", err)
	}
	defer log.Close()
	java := "java"
	if home := os.Getenv("JAVA_HOME"); home != "" {
		java = filepath.Join(home, "bin", "java")
	}
	cmd := exec.Command(java, "-Xmx256m", "-Djava.library.path="+jars, "-cp", filepath.Join(jars, "*"),
		"software.amazon.dynamodb.services.local.main.ServerRunner", "-inMemory", "-disableTelemetry", "-port", strconv.Itoa(port))
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
	// No credential of the developer's reaches it.
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir(), "LANG=C.UTF-8", "TZ=UTC"}
	p, err := child.Start(cmd)
	if err != nil {
		return nil, fmt.Errorf("dynamodb: %w", err)
	}
	s := &Server{URL: "http://localhost:" + strconv.Itoa(port), proc: p}
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		if answers(ctx, s.URL) {
			tick.Stop()
			return s, nil
		}
		select {
		case <-tick.C:
			continue
		case <-p.Done():
			err = fmt.Errorf("dynamodb: it ended: %w", p.Err())
		case <-ctx.Done():
			err = fmt.Errorf("dynamodb: it does not answer: %w", ctx.Err())
		}
		tick.Stop()
		p.Kill()
		b, _ := os.ReadFile(logPath)
		return nil, fmt.Errorf("%w; its log ends: %s", err, bytes.TrimSpace(b[max(0, len(b)-2000):]))
	}
}

// answers says whether DynamoDB Local, and nobody else, listens there.
func answers(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	return res.StatusCode == http.StatusBadRequest && res.Header.Get("X-Amzn-Requestid") != ""
}

// Close ends it.
func (s *Server) Close() { s.proc.Stop(2 * time.Second) }
