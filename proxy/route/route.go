// Package route finds the cluster a request is for: by the gate's host name, or by the path prefix /clusters/<name>.
//
// A host that is a cluster's decides alone: a prefix under it is just a path, which policy refuses. So no header can
// move a request from one cluster to another once TLS and the load balancer have said which host was asked for.
package route

import (
	"net"
	"net/http"
	"strings"

	"sallyport/shared/access"
)

// Prefix is what a path begins with when it names its cluster.
const Prefix = "/clusters/"

// Clusters are the clusters behind the gate.
type Clusters struct {
	byName, byHost map[string]access.Cluster
}

// New routes to these clusters.
func New(clusters []access.Cluster) *Clusters {
	c := &Clusters{byName: map[string]access.Cluster{}, byHost: map[string]access.Cluster{}}
	for _, x := range clusters {
		c.byName[x.Name] = x
		for _, h := range x.Hosts {
			c.byHost[h] = x
		}
	}
	return c
}

// Find returns the cluster of a request, and the target, path and query, as the cluster is to see it.
func (c *Clusters) Find(r *http.Request) (access.Cluster, string, error) {
	host := hostname(r.Host)
	if r.TLS != nil && r.TLS.ServerName != "" {
		// A client that says one name to TLS and another to HTTP is after something (RFC 9110 §7.4).
		sni := strings.ToLower(r.TLS.ServerName)
		_, known := c.byHost[sni]
		if _, names := c.byHost[host]; (known || names) && sni != host {
			return access.Cluster{}, "", access.Errorf(access.Invalid, "TLS was opened for another host than the request names")
		}
	}
	if cluster, ok := c.byHost[host]; ok {
		return cluster, r.RequestURI, nil
	}
	rest, ok := strings.CutPrefix(r.RequestURI, Prefix)
	if !ok {
		return access.Cluster{}, "", access.Errorf(access.NotFound, "no cluster is named: use a cluster's host name, or the path prefix %s<cluster>", Prefix)
	}
	name, _, _ := strings.Cut(rest, "/")
	cluster, ok := c.byName[name]
	if !ok {
		if len(name) > 80 {
			name = name[:80]
		}
		return access.Cluster{}, "", access.Errorf(access.NotFound, "there is no cluster %q behind this gate", name)
	}
	return cluster, strings.TrimPrefix(rest, name), nil
}

func hostname(hostport string) string {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = hostport
	}
	return strings.ToLower(host)
}
