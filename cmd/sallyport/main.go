// Command sallyport is for those who look after the gate: it checks, tests and explains its policy, and shows what agents
// did through it.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(run(ctx, os.Args[1:], environment{
		stdout:     os.Stdout,
		stderr:     os.Stderr,
		terminal:   isTerminal(os.Stderr),
		getenv:     os.Getenv,
		executable: os.Executable,
		now:        time.Now,
	}))
}
