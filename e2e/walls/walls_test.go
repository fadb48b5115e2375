// Package walls_test asks the API server of a running stack what it would refuse if the gate did not: the second wall.
//
// What is asked does not come from the policy: it is what the API server says it serves, every resource with every verb,
// and a list of attacks written by hand. The first is compared with the policy the stack runs; the second is sent past
// the gate, by whoever stole the credential of a tier.
package walls_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"sallyport/e2e/stacktest"
	"sallyport/proxy/invoke"
	"sallyport/shared/access"
	"sallyport/shared/credential"
	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

func TestMain(m *testing.M) { stacktest.Main(m) }

// running is the policy the stack was started with.
func running(t *testing.T, s *stacktest.Stack) *policy.Policy {
	t.Helper()
	b, err := os.ReadFile(s.Description.Policy.File)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Load(s.Description.Policy.File, b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// operator is the cluster's supervisor. It may everything, and the audit log, which other tests read often, leaves it
// out: tens of thousands of reviews are asked here.
func operator(t *testing.T, s *stacktest.Stack) *rest.Config {
	t.Helper()
	cfg, err := clientcmd.BuildConfigFromFlags("", s.Cluster.AdminKubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	pki := filepath.Join(filepath.Dir(s.Cluster.AdminKubeconfig), "pki")
	cfg.CertData, cfg.KeyData = nil, nil
	cfg.CertFile, cfg.KeyFile = filepath.Join(pki, "operator.crt"), filepath.Join(pki, "operator.key")
	cfg.QPS = -1
	return cfg
}

func client(t *testing.T, cfg *rest.Config) *kubernetes.Clientset {
	t.Helper()
	cfg = rest.CopyConfig(cfg)
	cfg.ContentType = "application/vnd.kubernetes.protobuf" // a third of the time of JSON
	c, err := kubernetes.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// An intruder is inside the gate's network and has the credential of a tier: it speaks to the API server directly.
type intruder struct {
	tier   access.Tier
	server string
	http   *http.Client
	header http.Header
	// borrowed is true when the credential is the administrator's, who puts on the tier's groups.
	borrowed bool
}

// thief steals what the proxy holds for an agent of a tier: it asks the broker as the proxy does, with the proxy's own
// credentials.
func thief(t *testing.T, s *stacktest.Stack, tier access.Tier) *intruder {
	t.Helper()
	agent := s.Agent(t, tier.Groups[0])
	env := stacktest.Environ(t, s.PIDs["proxy"])
	get := func(name string) string { return stacktest.Lookup(env, name) }
	broker := invoke.Client{Function: settings.ExchangeFunction, Lambda: lambda.NewFromConfig(aws.Config{
		Region: s.AWS.Region, BaseEndpoint: aws.String(s.AWS.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), get("AWS_SESSION_TOKEN")),
	})}
	issued, err := broker.Exchange(t.Context(), agent.Token, s.Cluster.Name)
	if err != nil {
		t.Fatal(err)
	}
	c := issued.Credentials
	token, err := credential.Token(t.Context(), access.Credential{
		AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expires: c.Expiration,
	}, access.Cluster{Name: s.Cluster.Name, Region: issued.Cluster.Region}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(issued.Cluster.CA) {
		t.Fatal("the broker's answer holds no certificate")
	}
	return &intruder{
		tier: tier, server: issued.Cluster.Endpoint, header: http.Header{"Authorization": {"Bearer " + token}},
		http: &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: true}},
	}
}

// actor is somebody of a tier that no token leads to: the administrator, in the tier's groups. To RBAC it is the same.
func actor(t *testing.T, s *stacktest.Stack, tier access.Tier) *intruder {
	t.Helper()
	cfg := operator(t, s)
	h, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Timeout = 30 * time.Second
	return &intruder{tier: tier, server: cfg.Host, http: h, borrowed: true, header: http.Header{
		"Impersonate-User": {someone(tier)}, "Impersonate-Group": {tier.Group, "system:authenticated"},
	}}
}

// someone is the name the cluster knows an agent of a tier by.
func someone(tier access.Tier) string {
	return "arn:aws:sts::111122223333:assumed-role/" + tier.Name + "/walls-e2e"
}

// send sends a request and returns the status code and the body. A header in lines goes along.
func (in *intruder) send(ctx context.Context, method, target, media, body string, lines ...string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, in.server+target, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, "", err
	}
	req.Header = in.header.Clone()
	req.Header.Set("User-Agent", stacktest.PastTheGate)
	if media != "" {
		req.Header.Set("Content-Type", media)
	}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		req.Header.Set(name, value)
	}
	res, err := in.http.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
	return res.StatusCode, string(b), err
}

// refused says "" when the cluster's own authorizer refused the request, and else what happened.
func (in *intruder) refused(ctx context.Context, method, target, media, body string, lines ...string) string {
	code, text, err := in.send(ctx, method, target, media, body, lines...)
	if err != nil {
		return err.Error()
	}
	var status metav1.Status
	if err := json.Unmarshal([]byte(text), &status); err != nil || code != http.StatusForbidden || status.Reason != metav1.StatusReasonForbidden {
		return fmt.Sprintf("want the cluster to forbid it, got %d %.200s", code, text)
	}
	// "may not grant what it has not got" and quotas are forbidden too, later and on other grounds.
	if !strings.Contains(status.Message, `: User "`) || !strings.Contains(status.Message, `" cannot `) {
		return "it is forbidden, but not by the authorizer: " + status.Message
	}
	return ""
}

// tiers are the policy's, with an intruder for each.
func tiers(t *testing.T, s *stacktest.Stack) []*intruder {
	t.Helper()
	p := running(t, s)
	var all []*intruder
	for _, tier := range p.Tiers {
		if len(tier.Groups) > 0 {
			all = append(all, thief(t, s, tier))
		} else {
			all = append(all, actor(t, s, tier))
		}
	}
	if !slices.ContainsFunc(all, func(in *intruder) bool { return in.tier.Name == "maintain" }) {
		all = append(all, actor(t, s, access.Tier{Name: "maintain", Group: "sallyport:maintain"})) // its bindings are there all the same
	}
	return all
}
