package main

import (
	"archive/tar"
	"bytes"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// The user the image runs as, who owns nothing in it.
const user = "65532:65532"

// writeImage writes the proxy's image as `docker load` reads it: one binary and the roots it verifies AWS by, no shell.
func writeImage(out, binary string) error {
	proxy, err := os.ReadFile(binary)
	if err != nil {
		return err
	}
	layer, err := newLayer(
		file{"etc/ssl/certs/ca-certificates.crt", 0o444, roots()},
		file{"proxy", 0o555, proxy},
	)
	if err != nil {
		return err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", "arm64", v1.Time{Time: time.Unix(0, 0).UTC()}
	config.Config.Entrypoint, config.Config.User = []string{"/proxy"}, user
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return err
	}
	tag, err := name.NewTag("sallyport-proxy:latest")
	if err != nil {
		return err
	}
	if err := tarball.WriteToFile(out, tag, img); err != nil {
		return fmt.Errorf("writing the proxy's image: %w", err)
	}
	return nil
}

type file struct {
	name string
	mode int64
	data []byte
}

func newLayer(files ...file) (v1.Layer, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.data)), ModTime: time.Unix(0, 0), Typeflag: tar.TypeReg, Format: tar.FormatUSTAR}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
}

// roots are Mozilla's, as the Go project ships them: those of the machine that builds would differ on every one. A root
// that is trusted only under a condition, which PEM cannot say, is left out.
func roots() []byte {
	var b bytes.Buffer
	for r := range bundle.Roots() {
		if r.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: r.Certificate})
		}
	}
	return b.Bytes()
}
