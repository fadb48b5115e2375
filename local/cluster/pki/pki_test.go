package pki

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
)

func TestEnsure(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pki")
	d, err := Ensure(path, "node")
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("mode of the directory: %v, %v", fi.Mode(), err)
	}
	before, err := os.ReadFile(d.Cert("admin"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Ensure(path, "node"); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(d.Cert("admin"))
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Error("good certificates were replaced")
	}
}

func TestEtcdTrustsItsOwnAuthorityOnly(t *testing.T) {
	d, err := Ensure(filepath.Join(t.TempDir(), "pki"), "node")
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(d.Cert("etcd-ca"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	for _, l := range leaves("node") {
		pair, err := tls.LoadX509KeyPair(d.Cert(l.name), d.Key(l.name))
		if err != nil {
			t.Fatal(err)
		}
		_, err = pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
		if trusted := err == nil; trusted != (l.authority == "etcd-ca") {
			t.Errorf("etcd trusts %s: %v", l.name, trusted)
		}
	}
}
