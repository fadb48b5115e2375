package main

import (
	"archive/tar"
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func TestImage(t *testing.T) {
	dir := t.TempDir()
	binary, out, again := filepath.Join(dir, "proxy"), filepath.Join(dir, "a.tar"), filepath.Join(dir, "b.tar")
	if err := os.WriteFile(binary, []byte("a binary"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, f := range []string{out, again} {
		if err := writeImage(f, binary); err != nil {
			t.Fatal(err)
		}
	}
	a, _ := os.ReadFile(out)
	b, _ := os.ReadFile(again)
	if len(a) == 0 || !bytes.Equal(a, b) {
		t.Error("equal inputs give different images")
	}

	img, err := tarball.ImageFromPath(out, nil)
	if err != nil {
		t.Fatal(err)
	}
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if got := config.OS + "/" + config.Architecture; got != "linux/arm64" {
		t.Errorf("platform %s", got)
	}
	if config.Config.User != "65532:65532" || !cmp.Equal(config.Config.Entrypoint, []string{"/proxy"}) || config.Config.Env != nil {
		t.Errorf("config %+v", config.Config)
	}
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var got []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s %o %d:%d", h.Name, h.Mode, h.Uid, h.Gid))
		data, err := io.ReadAll(tr)
		if err != nil {
			t.Fatal(err)
		}
		switch h.Name {
		case "proxy":
			if string(data) != "a binary" {
				t.Errorf("the binary became %q", data)
			}
		default:
			if !x509.NewCertPool().AppendCertsFromPEM(data) || bytes.Count(data, []byte("BEGIN CERTIFICATE")) < 100 {
				t.Error("too few roots")
			}
		}
	}
	if d := cmp.Diff([]string{"etc/ssl/certs/ca-certificates.crt 444 0:0", "proxy 555 0:0"}, got); d != "" {
		t.Error(d)
	}
}
