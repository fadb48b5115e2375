package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// The commands the CDK gives, in its order.
func TestPublish(t *testing.T) {
	const password = "a password"
	store := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, p, ok := r.BasicAuth(); r.URL.Path != "/v2/" || ok {
			if r.Method != http.MethodGet && (user != "AWS" || p != password) {
				t.Errorf("%s as %q", r.URL.Path, user)
			}
			store.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="registry"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer srv.Close()
	host := strings.TrimPrefix(srv.URL, "http://")
	reference := host + "/assets:1135c2"

	dir := t.TempDir()
	file := filepath.Join(dir, "proxy.tar")
	tag, err := name.NewTag("sallyport-proxy:latest")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(file, tag, empty.Image); err != nil {
		t.Fatal(err)
	}
	memory := filepath.Join(dir, "cache", "docker.json")
	run := func(in string, args ...string) (string, error) {
		var out bytes.Buffer
		err := client{memory: memory, in: strings.NewReader(in), out: &out, insecure: true}.run(args)
		return out.String(), err
	}

	if _, err := run("", "inspect", "cdkasset-1135c2"); err == nil {
		t.Error("an image is there before it is loaded")
	}
	if _, err := run(password+"\n", "login", "--username", "AWS", "--password-stdin", host); err != nil {
		t.Fatal(err)
	}
	if s, err := os.Stat(memory); err != nil || s.Mode().Perm() != 0o600 {
		t.Errorf("the password lies in %v, %v", s, err)
	}
	out, err := run("", "load", "-i", file)
	if err != nil {
		t.Fatal(err)
	}
	loaded := strings.TrimSpace(strings.Replace(out, "Loaded image: ", "", 1))
	if _, err := run("", "tag", loaded, reference); err != nil {
		t.Fatal(err)
	}
	if _, err := run("", "push", reference); err != nil {
		t.Fatal(err)
	}
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	got, err := remote.Image(ref)
	if err != nil {
		t.Fatal(err)
	}
	want, err := empty.Image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	if c, err := got.ConfigName(); err != nil || c != want {
		t.Errorf("image %v arrived, want %v: %v", c, want, err)
	}
	if _, err := os.Stat(memory); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the password is still there: %v", err)
	}
}

func TestOtherCommandsAreRefused(t *testing.T) {
	for _, args := range [][]string{nil, {"build", "."}, {"run", "--rm", "x"}, {"push"}, {"login", "--username", "AWS", "--password", "p", "h"}} {
		c := client{memory: filepath.Join(t.TempDir(), "m"), in: strings.NewReader(""), out: &bytes.Buffer{}}
		if c.run(args) == nil {
			t.Errorf("%q is taken for done", args)
		}
	}
	c := client{memory: filepath.Join(t.TempDir(), "m")}
	if err := c.run([]string{"push", "r.example.com/a:b"}); err == nil || !strings.Contains(err.Error(), "was not tagged") {
		t.Errorf("pushing what was not tagged: %v", err)
	}
}
