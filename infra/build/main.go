// Command build makes what the CDK app deploys, in dist: the functions' binaries and the proxy's image. cdk.json runs it
// before the app. Equal sources and an equal Go toolchain give equal bytes on any machine, so that a deployment without
// a change changes nothing. It needs no Docker.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

func main() {
	dist := flag.String("o", "dist", "directory to build into")
	flag.Parse()
	if err := build(*dist); err != nil {
		fmt.Fprintln(os.Stderr, "build:", err)
		os.Exit(1)
	}
}

func build(dist string) error {
	// lambda.norpc leaves out the protocol of the retired Go 1.x runtime.
	for _, name := range []string{"exchange", "review", "notify", "callback"} {
		if err := compile(filepath.Join(dist, "lambda", name, "bootstrap"), "./functions/"+name, "lambda.norpc"); err != nil {
			return err
		}
	}
	proxy := filepath.Join(dist, "proxy", "proxy")
	if err := compile(proxy, "./proxy", ""); err != nil {
		return err
	}
	return writeImage(filepath.Join(dist, "proxy.tar"), proxy)
}

// compile builds a static binary for Lambda and Fargate on Graviton.
func compile(out, pkg, tags string) error {
	cmd := exec.Command("go", "build", "-tags", tags, "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=", "-o", out, pkg) //nolint:gosec // the arguments are ours
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=arm64")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("compiling %s: %w", pkg, err)
	}
	return nil
}
