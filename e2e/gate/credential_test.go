package gate_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/lambda"

	"sallyport/e2e/stacktest"
	"sallyport/proxy/invoke"
	"sallyport/shared/access"
	"sallyport/shared/credential"
	"sallyport/shared/settings"
)

// Threat E1. The test is a stolen proxy: it holds the task's credentials and an agent's token, asks the broker the way
// the proxy does, and tries what it gets on the cluster directly, past the gate.
func TestTokensAreForOneCluster(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	env := stacktest.Environ(t, s.PIDs["proxy"])
	var get = func(name string) string { return stacktest.Lookup(env, name) }
	client := invoke.Client{Function: settings.ExchangeFunction, Lambda: lambda.NewFromConfig(aws.Config{
		Region: s.AWS.Region, BaseEndpoint: aws.String(s.AWS.Endpoint),
		Credentials: credentials.NewStaticCredentialsProvider(get("AWS_ACCESS_KEY_ID"), get("AWS_SECRET_ACCESS_KEY"), get("AWS_SESSION_TOKEN")),
	})}
	issued, err := client.Exchange(t.Context(), agent.Token, s.Cluster.Name)
	if err != nil {
		t.Fatal(err)
	}
	c := issued.Credentials
	cred := access.Credential{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken, Expires: c.Expiration}
	mint := func(cluster string, at time.Time) string {
		token, err := credential.Token(t.Context(), cred, access.Cluster{Name: cluster, Region: issued.Cluster.Region}, at)
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(issued.Cluster.CA) {
		t.Fatal("the broker's answer holds no certificate")
	}
	direct := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}, Timeout: 30 * time.Second}
	now := time.Now()
	for _, test := range []struct {
		name, token string
		want        int
	}{
		{"for this cluster", mint("dev", now), http.StatusOK},
		{"for another cluster", mint("other", now), http.StatusUnauthorized},
		{"for a cluster whose name begins the same", mint("dev2", now), http.StatusUnauthorized},
		{"for a cluster of another case", mint("Dev", now), http.StatusUnauthorized},
		{"for no cluster", mint("", now), http.StatusUnauthorized},
		{"too old", mint("dev", now.Add(-16*time.Minute)), http.StatusUnauthorized},
		{"the agent's own", agent.Token, http.StatusUnauthorized},
	} {
		t.Run(test.name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(context.WithoutCancel(t.Context()), http.MethodGet, issued.Cluster.Endpoint+"/api/v1/namespaces/dev/pods", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+test.token)
			res, err := direct.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != test.want {
				t.Errorf("want %d, got %s", test.want, res.Status)
			}
		})
	}

	// What the broker gives it is the agent's base tier, and the session the agent has at the gate.
	if got := agent.Assumed(t); len(got) != 1 || got[0].Tags[settings.TagSession] != issued.Session.ID || issued.Session.Tier != "operate" {
		t.Errorf("issued %+v, assumed %+v", issued.Session, got)
	}
	// Without the agent's token it gets nothing.
	for name, token := range map[string]string{
		"no token": "", "a forged token": s.Forge(t).Unsigned(`{"alg":"none"}`, s.Forge(t).Claims(nil)),
		"an expired token": s.Token(t, "--subject", agent.Subject, "--groups", "agents", "--expires", "-1s"),
		"nobody's token":   s.Agent(t, "strangers").Token,
	} {
		if _, err := client.Exchange(t.Context(), token, s.Cluster.Name); access.KindOf(err) != access.Unauthenticated && access.KindOf(err) != access.Denied {
			t.Errorf("exchange with %s: %v", name, err)
		}
	}
	if _, err := client.Exchange(t.Context(), agent.Token, "other"); access.KindOf(err) != access.NotFound {
		t.Errorf("exchange for another cluster: %v", err)
	}
}
