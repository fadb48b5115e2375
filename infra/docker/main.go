// Command docker stands in for the Docker client while the CDK publishes the proxy's image, for machines that have no
// Docker:
//
//	go build -o dist/docker ./infra/docker
//	CDK_DOCKER=$PWD/dist/docker npx cdk deploy
//
// It knows the five commands the CDK uses for an image that is a file (login, inspect, load, tag, push) and refuses any
// other. Between them it remembers the registry's password and where the file is, in a file of the user's cache that
// only the user can read; push, which comes last, removes it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	cache, err := os.UserCacheDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		os.Exit(1)
	}
	// The CDK is the parent of every command but load, which runs in a pipe and remembers nothing.
	c := client{
		memory: filepath.Join(cache, "sallyport", fmt.Sprintf("docker-%d.json", os.Getppid())),
		in:     os.Stdin, out: os.Stdout,
	}
	if err := c.run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "docker:", err)
		os.Exit(1)
	}
}

type client struct {
	memory   string
	in       io.Reader
	out      io.Writer
	insecure bool // plain http, for tests
}

// What is remembered from one command to the next.
type memory struct {
	Logins map[string]login  // by registry
	Images map[string]string // file by reference
}

type login struct{ User, Password string }

func (c client) run(args []string) error {
	switch {
	case len(args) == 5 && args[0] == "login" && args[1] == "--username" && args[3] == "--password-stdin":
		password, err := io.ReadAll(c.in)
		if err != nil {
			return err
		}
		return c.remember(func(m *memory) { m.Logins[args[4]] = login{args[2], strings.TrimSpace(string(password))} })
	case len(args) == 2 && args[0] == "inspect":
		return fmt.Errorf("no such image: %s", args[1]) // so that the CDK loads it
	case len(args) == 3 && args[0] == "load" && args[1] == "-i":
		file, err := filepath.Abs(args[2])
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(c.out, "Loaded image: "+file) // the CDK hands it back to tag
		return err
	case len(args) == 3 && args[0] == "tag":
		return c.remember(func(m *memory) { m.Images[args[2]] = args[1] })
	case len(args) == 2 && args[0] == "push":
		return c.push(args[1])
	}
	return fmt.Errorf("this is no Docker: it only publishes the proxy's image for the CDK, and does not know %q", args)
}

func (c client) push(reference string) error {
	m, err := c.recall()
	if err != nil {
		return err
	}
	file, ok := m.Images[reference]
	if !ok {
		return fmt.Errorf("%s was not tagged", reference)
	}
	img, err := tarball.ImageFromPath(file, nil)
	if err != nil {
		return err
	}
	var opts []name.Option
	if c.insecure {
		opts = append(opts, name.Insecure)
	}
	ref, err := name.ParseReference(reference, opts...)
	if err != nil {
		return err
	}
	l := m.Logins[ref.Context().RegistryStr()]
	if err := remote.Write(ref, img, remote.WithAuth(&authn.Basic{Username: l.User, Password: l.Password})); err != nil {
		return fmt.Errorf("pushing %s: %w", reference, err)
	}
	return os.Remove(c.memory)
}

func (c client) recall() (memory, error) {
	m := memory{Logins: map[string]login{}, Images: map[string]string{}}
	b, err := os.ReadFile(c.memory)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	} else if err != nil {
		return m, err
	}
	return m, json.Unmarshal(b, &m)
}

func (c client) remember(change func(*memory)) error {
	m, err := c.recall()
	if err != nil {
		return err
	}
	change(&m)
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(c.memory), 0o700); err != nil {
		return err
	}
	return os.WriteFile(c.memory, b, 0o600)
}
