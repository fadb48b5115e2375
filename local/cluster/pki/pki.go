// Package pki makes the keys, certificates and kubeconfigs of one local
// cluster, in a directory only its owner can read.
//
// There are two authorities, as kubeadm has them: one for the cluster, and one
// for etcd alone, because whoever may talk to etcd is above all authorization.
// Pods are processes of this host and can reach every port on loopback, so
// nothing here listens without asking for a certificate.
package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const lifetime = 365 * 24 * time.Hour

// A Dir holds <name>.crt and <name>.key for every name below, ca.crt, ca.key,
// etcd-ca.crt, etcd-ca.key and sa.key (the key of service account tokens).
type Dir string

// A Leaf is one certificate, good as server and as client.
type leaf struct {
	name, authority, commonName string
	groups, hosts               []string
}

// KubeletClient is the common name the API server shows to the node.
const KubeletClient = "kube-apiserver-kubelet-client"

// Operator is the common name of the supervisor itself. The audit policy
// leaves it out.
const Operator = "system:cluster-up"

func leaves(node string) []leaf {
	return []leaf{
		{name: "etcd", authority: "etcd-ca", commonName: "etcd"},
		{name: "etcd-client", authority: "etcd-ca", commonName: "kube-apiserver"},
		{name: "apiserver", authority: "ca", commonName: "kube-apiserver", hosts: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
		{name: "kubelet-client", authority: "ca", commonName: KubeletClient},
		{name: "admin", authority: "ca", commonName: "kubernetes-admin", groups: []string{"system:masters"}},
		{name: "operator", authority: "ca", commonName: Operator, groups: []string{"system:masters"}},
		{name: "kube-controller-manager", authority: "ca", commonName: "system:kube-controller-manager"},
		{name: "kube-scheduler", authority: "ca", commonName: "system:kube-scheduler"},
		{name: "hostnode", authority: "ca", commonName: "system:node:" + node, groups: []string{"system:nodes"}, hosts: []string{node}},
	}
}

// Ensure makes the directory unless it is there and still good for a day.
// A half-made directory is never left: it is built beside and renamed.
func Ensure(path, node string) (Dir, error) {
	d := Dir(path)
	if d.fresh(leaves(node)) {
		return d, nil
	}
	tmp := path + ".new"
	if err := os.RemoveAll(tmp); err != nil {
		return "", fmt.Errorf("clearing %s: %w", tmp, err)
	}
	if err := os.MkdirAll(tmp, 0o700); err != nil {
		return "", err
	}
	if err := Dir(tmp).fill(leaves(node)); err != nil {
		return "", fmt.Errorf("making certificates: %w", err)
	}
	// Tokens of service accounts survive a renewal of the certificates.
	if key, err := os.ReadFile(d.Key("sa")); err == nil {
		if err := os.WriteFile(Dir(tmp).Key("sa"), key, 0o600); err != nil {
			return "", err
		}
	}
	if err := os.RemoveAll(path); err != nil {
		return "", fmt.Errorf("clearing %s: %w", path, err)
	}
	return d, os.Rename(tmp, path)
}

// Cert is the path of a certificate, Key of its private key.
func (d Dir) Cert(name string) string { return filepath.Join(string(d), name+".crt") }

// Key is the path of a private key.
func (d Dir) Key(name string) string { return filepath.Join(string(d), name+".key") }

func (d Dir) fresh(want []leaf) bool {
	if _, err := os.Stat(d.Key("sa")); err != nil {
		return false
	}
	for _, l := range want {
		pair, err := tls.LoadX509KeyPair(d.Cert(l.name), d.Key(l.name))
		if err != nil || pair.Leaf == nil || pair.Leaf.Subject.CommonName != l.commonName || time.Until(pair.Leaf.NotAfter) < 24*time.Hour {
			return false
		}
	}
	return true
}

func (d Dir) fill(want []leaf) error {
	authorities := map[string]*authority{}
	for _, name := range []string{"ca", "etcd-ca"} {
		a, err := d.newAuthority(name)
		if err != nil {
			return err
		}
		authorities[name] = a
	}
	for _, l := range want {
		if err := d.issue(authorities[l.authority], l); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	sa, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return writeKey(d.Key("sa"), sa)
}

type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (d Dir) newAuthority(name string) (*authority, error) {
	t := template("local-cluster-" + name)
	t.IsCA, t.KeyUsage = true, x509.KeyUsageCertSign|x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	return &authority{t, key}, d.sign(name, t, &authority{t, key}, key)
}

func (d Dir) issue(a *authority, l leaf) error {
	t := template(l.commonName)
	t.Subject.Organization = l.groups
	t.DNSNames = append([]string{"localhost"}, l.hosts...)
	t.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv4(10, 96, 0, 1)}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	return d.sign(l.name, t, a, key)
}

func template(commonName string) *x509.Certificate {
	return &x509.Certificate{
		Subject:               pkix.Name{CommonName: commonName},
		NotBefore:             time.Now().Add(-time.Minute),
		NotAfter:              time.Now().Add(lifetime),
		BasicConstraintsValid: true,
	}
}

func (d Dir) sign(name string, t *x509.Certificate, by *authority, key crypto.Signer) error {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return err
	}
	t.SerialNumber = serial
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key.Public(), by.key)
	if err != nil {
		return err
	}
	crt := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	if err := os.WriteFile(d.Cert(name), crt, 0o644); err != nil {
		return err
	}
	return writeKey(d.Key(name), key)
}

func writeKey(path string, key crypto.Signer) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

// Kubeconfig writes a kubeconfig for the named client with everything embedded,
// so that the file can be copied.
func (d Dir) Kubeconfig(path, name, server string) error {
	ca, err1 := os.ReadFile(d.Cert("ca"))
	crt, err2 := os.ReadFile(d.Cert(name))
	key, err3 := os.ReadFile(d.Key(name))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	cfg := clientcmdapi.NewConfig()
	cfg.Clusters["dev"] = &clientcmdapi.Cluster{Server: server, CertificateAuthorityData: ca}
	cfg.AuthInfos[name] = &clientcmdapi.AuthInfo{ClientCertificateData: crt, ClientKeyData: key}
	cfg.Contexts["dev"] = &clientcmdapi.Context{Cluster: "dev", AuthInfo: name}
	cfg.CurrentContext = "dev"
	out, err := clientcmd.Write(*cfg)
	if err != nil {
		return err
	}
	return WriteFile(path, out, 0o600)
}

// WriteFile writes a file whole or not at all.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
