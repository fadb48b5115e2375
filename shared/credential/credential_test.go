package credential_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/credential"
)

var sessionName = regexp.MustCompile(`^[\w+=,.@-]{2,64}$`) // AWS STS AssumeRole, RoleSessionName

// E2: whatever agents are called, their names are legal and differ.
func TestName(t *testing.T) {
	agents := []string{"bot", "bot@example.com", "bot-example.com", "bot example com", "repo:o/r:ref:refs/heads/main", "ünïcode", "…", "", strings.Repeat("a", 300), "-", "a\r\nb"}
	seen := map[string]string{}
	for _, agent := range agents {
		who := access.Principal{Issuer: "https://i", Subject: "s/" + agent, Agent: agent}
		name := credential.Name(who)
		if !sessionName.MatchString(name) {
			t.Errorf("%q became %q, which STS refuses", agent, name)
		}
		if other, twice := seen[name]; twice {
			t.Errorf("%q and %q are both %q", agent, other, name)
		}
		seen[name] = agent
		if again := credential.Name(who); again != name {
			t.Errorf("%q is %q and then %q", agent, name, again)
		}
	}
	a := credential.Name(access.Principal{Issuer: "https://a", Subject: "s", Agent: "bot"})
	b := credential.Name(access.Principal{Issuer: "https://b", Subject: "s", Agent: "bot"})
	if a == b {
		t.Errorf("one subject at two issuers has one name, %q", a)
	}
	if !strings.HasPrefix(a, "bot-") {
		t.Errorf("%q does not begin with the agent's name", a)
	}
}

// E1: the cluster's name is among the signed headers, and another cluster's token is another signature.
func TestTokenSignsTheCluster(t *testing.T) {
	c := access.Credential{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret", SessionToken: "token"}
	signatures := map[string]bool{}
	for _, name := range []string{"dev", "prod"} {
		token, err := credential.Token(context.Background(), c, access.Cluster{Name: name, Region: "eu-west-1"}, time.Unix(1e9, 0))
		if err != nil {
			t.Fatal(err)
		}
		raw, ok := strings.CutPrefix(token, "k8s-aws-v1.")
		b, err := base64.RawURLEncoding.DecodeString(raw)
		if !ok || err != nil {
			t.Fatalf("%q is no EKS token: %v", token, err)
		}
		u, err := url.Parse(string(b))
		if err != nil || u.Host != "sts.eu-west-1.amazonaws.com" {
			t.Fatalf("%q, %v: not the region's STS", b, err)
		}
		if signed := u.Query().Get("X-Amz-SignedHeaders"); signed != "host;x-k8s-aws-id" {
			t.Errorf("signed headers are %q", signed)
		}
		if strings.Contains(string(b), "secret") {
			t.Error("the secret key is in the token")
		}
		signatures[u.Query().Get("X-Amz-Signature")] = true
	}
	if len(signatures) != 2 {
		t.Error("two clusters' tokens carry one signature")
	}
}

func TestCredentialDoesNotPrint(t *testing.T) {
	c := access.Credential{AccessKeyID: "ASIAKEY", SecretAccessKey: "hushhush", SessionToken: "sessiontoken"}
	j, _ := json.Marshal(map[string]any{"c": c})
	for _, s := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c), string(j), fmt.Sprintf("%+v", struct{ C access.Credential }{c})} {
		for _, secret := range []string{"ASIAKEY", "hushhush", "sessiontoken"} {
			if strings.Contains(s, secret) {
				t.Errorf("%q shows %q", s, secret)
			}
		}
	}
}

func BenchmarkToken(b *testing.B) {
	c := access.Credential{AccessKeyID: "ASIAEXAMPLE", SecretAccessKey: "secret", SessionToken: "token"}
	for b.Loop() {
		if _, err := credential.Token(context.Background(), c, access.Cluster{Name: "dev", Region: "eu-west-1"}, time.Unix(1e9, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
