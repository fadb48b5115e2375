package route_test

import (
	"crypto/tls"
	"net/http"
	"strings"
	"testing"

	"sallyport/proxy/route"
	"sallyport/shared/access"
)

func TestFind(t *testing.T) {
	clusters := route.New([]access.Cluster{{Name: "dev", Hosts: []string{"dev.gate.example.com"}}, {Name: "prod", Hosts: []string{"prod.gate.example.com"}}})
	for _, test := range []struct {
		name, host, sni, uri string
		cluster, target      string
		kind                 access.Kind
	}{
		{"by host", "dev.gate.example.com", "", "/api?x=1", "dev", "/api?x=1", ""},
		{"by host with a port, in capitals", "Dev.Gate.Example.Com:443", "", "/api", "dev", "/api", ""},
		{"by prefix", "10.0.0.1:8443", "", "/clusters/prod/api/v1/pods?watch=1", "prod", "/api/v1/pods?watch=1", ""},
		{"a host decides alone", "dev.gate.example.com", "", "/clusters/prod/api", "dev", "/clusters/prod/api", ""},
		{"host and SNI agree", "dev.gate.example.com", "dev.gate.example.com", "/api", "dev", "/api", ""},
		{"SNI of another cluster", "dev.gate.example.com", "prod.gate.example.com", "/api", "", "", access.Invalid},
		{"SNI of a cluster, prefix of another", "localhost", "prod.gate.example.com", "/clusters/dev/api", "", "", access.Invalid},
		{"SNI of no cluster, host of one", "dev.gate.example.com", "elsewhere", "/api", "", "", access.Invalid},
		{"no cluster", "localhost", "localhost", "/api", "", "", access.NotFound},
		{"unknown cluster", "localhost", "", "/clusters/test/api", "", "", access.NotFound},
		{"empty cluster", "localhost", "", "/clusters//api", "", "", access.NotFound},
		{"escaped prefix", "localhost", "", "/%63lusters/dev/api", "", "", access.NotFound},
		{"escaped name", "localhost", "", "/clusters/d%65v/api", "", "", access.NotFound},
		{"name with a query", "localhost", "", "/clusters/dev?x", "", "", access.NotFound},
		{"absolute form", "localhost", "", "http://dev.gate.example.com/api", "", "", access.NotFound},
		{"a name without end", "localhost", "", "/clusters/" + strings.Repeat("x", 1<<16), "", "", access.NotFound},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := &http.Request{Host: test.host, RequestURI: test.uri}
			if test.sni != "" {
				r.TLS = &tls.ConnectionState{ServerName: test.sni}
			}
			cluster, target, err := clusters.Find(r)
			if cluster.Name != test.cluster || target != test.target || access.KindOf(err) != test.kind {
				t.Errorf("got %q, %q, %v; want %q, %q, %q", cluster.Name, target, err, test.cluster, test.target, test.kind)
			}
			if err != nil && len(err.Error()) > 300 {
				t.Errorf("the error is %d bytes long", len(err.Error()))
			}
		})
	}
}
