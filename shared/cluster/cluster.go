// Package cluster finds out where an EKS cluster is. It is the broker's: the proxy learns it from the broker's answer,
// so that it needs no right at EKS and cannot be sent elsewhere by its own settings.
package cluster

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/eks"
	"github.com/aws/aws-sdk-go-v2/service/eks/types"

	"sallyport/shared/access"
)

// fresh is how long a description is used before EKS is asked again.
const fresh = 5 * time.Minute

// EKS describes clusters. It is safe for concurrent use.
type EKS struct {
	client *eks.Client
	now    func() time.Time

	mu    sync.Mutex
	known map[string]described
}

type described struct {
	endpoint access.Endpoint
	at       time.Time
}

// New describes clusters with that client.
func New(client *eks.Client, now func() time.Time) *EKS {
	return &EKS{client: client, now: now, known: map[string]described{}}
}

// Endpoint says where the cluster is. When EKS is away, an earlier answer is used however old: the address of a
// cluster does not change in its life, and its certificate is verified all the same.
func (e *EKS) Endpoint(ctx context.Context, c access.Cluster) (access.Endpoint, error) {
	e.mu.Lock()
	d, known := e.known[c.Name]
	e.mu.Unlock()
	if known && e.now().Sub(d.at) < fresh {
		return d.endpoint, nil
	}
	endpoint, err := e.describe(ctx, c)
	if err != nil {
		if known && access.KindOf(err) == access.Unavailable {
			return d.endpoint, nil
		}
		return access.Endpoint{}, err
	}
	e.mu.Lock()
	e.known[c.Name] = described{endpoint, e.now()}
	e.mu.Unlock()
	return endpoint, nil
}

func (e *EKS) describe(ctx context.Context, c access.Cluster) (access.Endpoint, error) {
	out, err := e.client.DescribeCluster(ctx, &eks.DescribeClusterInput{Name: &c.Name}, func(o *eks.Options) { o.Region = c.Region })
	var missing *types.ResourceNotFoundException
	switch {
	case errors.As(err, &missing):
		return access.Endpoint{}, access.Errorf(access.NotFound, "EKS knows no cluster %q in %s; correct the policy", c.Name, c.Region).Because(err)
	case err != nil:
		return access.Endpoint{}, access.Errorf(access.Unavailable, "EKS does not answer for cluster %q; nothing was forwarded, ask again", c.Name).
			Because(fmt.Errorf("describing cluster %q: %w", c.Name, err)).After(2 * time.Second)
	case out.Cluster == nil || out.Cluster.Endpoint == nil || out.Cluster.CertificateAuthority == nil || out.Cluster.CertificateAuthority.Data == nil:
		return access.Endpoint{}, access.Errorf(access.Unavailable, "cluster %q has no endpoint yet; ask again when it is active", c.Name).After(30 * time.Second)
	}
	ca, err := base64.StdEncoding.DecodeString(*out.Cluster.CertificateAuthority.Data)
	if err != nil {
		return access.Endpoint{}, fmt.Errorf("decoding the certificate authority of cluster %q: %w", c.Name, err)
	}
	u, err := url.Parse(*out.Cluster.Endpoint)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return access.Endpoint{}, fmt.Errorf("cluster %q: endpoint %q is no https URL", c.Name, *out.Cluster.Endpoint)
	}
	return access.Endpoint{URL: "https://" + u.Host, CA: ca}, nil
}
