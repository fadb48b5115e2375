package credential_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sts"

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

// What a role is assumed with names the agent, the session and the tier, and the approval exactly when there is one.
func TestAssume(t *testing.T) {
	var asked url.Values
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			t.Error(err)
		}
		if asked = r.PostForm; asked.Get("RoleArn") == "arn:none" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		fmt.Fprint(w, `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ASIAKEY</AccessKeyId>`+
			`<SecretAccessKey>hushhush</SecretAccessKey><SessionToken>token</SessionToken><Expiration>2026-03-01T12:15:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`)
	}))
	defer server.Close()
	roles := credential.Roles{STS: sts.New(sts.Options{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")})}
	who := access.Principal{Issuer: "https://i", Subject: "s", Agent: "bot"}
	s := access.Session{ID: "s1", Principal: who, Name: credential.Name(who)}
	for _, test := range []struct {
		approval string
		lifetime time.Duration
		seconds  string
		tags     map[string]string
	}{
		{"", 5 * time.Hour, "3600", map[string]string{}},
		{"", 40 * time.Minute, "2400", map[string]string{}},
		{"a1", time.Minute, "900", map[string]string{"sallyport:approval": "a1"}},
	} {
		got, err := roles.Assume(t.Context(), access.Tier{Name: "operate", Role: "arn:operate"}, s, test.approval, test.lifetime)
		if err != nil || got.AccessKeyID != "ASIAKEY" || got.SessionToken != "token" || !got.Expires.Equal(time.Date(2026, 3, 1, 12, 15, 0, 0, time.UTC)) {
			t.Fatalf("got expiry %v, %v", got.Expires, err)
		}
		tags := map[string]string{}
		for i := 1; asked.Has(fmt.Sprintf("Tags.member.%d.Key", i)); i++ {
			tags[asked.Get(fmt.Sprintf("Tags.member.%d.Key", i))] = asked.Get(fmt.Sprintf("Tags.member.%d.Value", i))
		}
		want := map[string]string{"sallyport:session": "s1", "sallyport:principal": who.Key(), "sallyport:tier": "operate"}
		maps.Copy(want, test.tags)
		if !maps.Equal(tags, want) {
			t.Errorf("tags are %v, want %v", tags, want)
		}
		if asked.Get("RoleArn") != "arn:operate" || asked.Get("RoleSessionName") != s.Name || asked.Get("SourceIdentity") != s.Name || asked.Get("DurationSeconds") != test.seconds {
			t.Errorf("asked for %v", asked)
		}
	}
	_, err := roles.Assume(t.Context(), access.Tier{Name: "operate", Role: "arn:none"}, s, "", time.Hour)
	if e := access.AsError(err); e.Kind != access.Unavailable || e.RetryAfter == 0 || e.Cause == nil {
		t.Errorf("got %+v", e)
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
