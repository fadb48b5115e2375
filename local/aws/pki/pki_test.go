package pki_test

import (
	"crypto/tls"
	"strings"
	"testing"

	"sallyport/local/aws/pki"
)

func handshake(t *testing.T, server *tls.Config, client *tls.Config) error {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_ = c.(*tls.Conn).Handshake()
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), client)
	if err == nil {
		c.Close()
	}
	return err
}

func TestNames(t *testing.T) {
	ca, err := pki.New()
	if err != nil {
		t.Fatal(err)
	}
	other, err := pki.New()
	if err != nil {
		t.Fatal(err)
	}
	server := ca.Server(func(name string) bool { return strings.HasPrefix(name, "sts.") })
	for _, tt := range []struct {
		name   string
		server string
		ca     *pki.Authority
		ok     bool
	}{
		{"localhost", "localhost", ca, true},
		{"address", "127.0.0.1", ca, true},
		{"IPv6", "::1", ca, true},
		{"STS", "sts.eu-west-1.amazonaws.com", ca, true},
		{"a name nobody allowed", "s3.amazonaws.com", ca, false},
		{"allowed, but outside of what the authority may vouch for", "sts.example.com", ca, false},
		{"another authority", "localhost", other, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := handshake(t, server, &tls.Config{ServerName: tt.server, RootCAs: tt.ca.Pool()})
			if (err == nil) != tt.ok {
				t.Errorf("handshake: %v, want ok %v", err, tt.ok)
			}
		})
	}
}
