// Package web is the workload of the local cluster: the applet that image
// localhost/web:1 runs. It answers with its pod's name, so a test can tell
// replicas apart, and logs one numbered line a second, so a test can follow it.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// Main serves on $POD_IP:8080 until SIGTERM and returns an exit code. Without
// POD_IP it serves on 127.0.0.1; the first argument, if any, is the port.
func Main(args []string) int {
	ip, port := os.Getenv("POD_IP"), "8080"
	if ip == "" {
		ip = "127.0.0.1"
	}
	if len(args) > 0 {
		port = args[0]
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := serve(ctx, net.JoinHostPort(ip, port)); err != nil {
		fmt.Fprintf(os.Stderr, "web: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, addr string) error {
	name, err := os.Hostname()
	if pod := os.Getenv("HOSTNAME"); pod != "" {
		name, err = pod, nil
	}
	if err != nil {
		return fmt.Errorf("reading the host name: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "hello from %s\n", name)
	})
	srv := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- srv.ListenAndServe() }()

	fmt.Printf("serving on http://%s\n", addr)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-tick.C:
			fmt.Printf("line %d\n", n)
		case err := <-failed:
			return err
		case <-ctx.Done():
			if err := srv.Close(); err != nil && !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			fmt.Println("stopped")
			return nil
		}
	}
}
