// Command sallyport is for those who look after the gate, and for those who ask it. It checks, tests and explains the policy,
// answers what agents ask people about, and shows what agents did; and an agent asks with it before it acts.
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
		colour:     isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == "",
		stdin:      os.Stdin,
		environ:    os.Environ,
		getenv:     os.Getenv,
		executable: os.Executable,
		now:        time.Now,
	}))
}
