package main

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func digestOf(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func checksumOf(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func TestExampleLoads(t *testing.T) {
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if want := digestOf(t, "policy.yaml"); c.Rules.Digest != want {
		t.Errorf("digest %s, want %s", c.Rules.Digest, want)
	}
}

// Each case changes one thing in the examples; the error names the field, and says what to write.
func TestWrongDeployments(t *testing.T) {
	for _, c := range []struct{ name, in, old, new, want string }{
		{"unknown field", "deployment", "region: eu-west-1", "region: eu-west-1\nregoin: x", "field regoin not found"},
		{"account", "deployment", `account: "111122223333"`, `account: "1111"`, `account: "1111" is no account id`},
		{"account of another", "deployment", `account: "111122223333"`, `account: "444455556666"`, `tier "observe": its role is arn:aws:iam::111122223333:role/sallyport/observe, but this stack makes arn:aws:iam::444455556666:role/sallyport/observe`},
		{"region", "deployment", "region: eu-west-1", "region: Ireland", `region: "Ireland" is no region`},
		{"region of another", "deployment", "region: eu-west-1", "region: eu-west-2", `cluster "dev" is in eu-west-1`},
		{"no policy", "deployment", "policy: policy.yaml", "", "policy: name the policy file"},
		{"policy not there", "deployment", "policy: policy.yaml", "policy: other.yaml", "policy: open "},
		{"vpc", "deployment", "vpc: vpc-0123456789abcdef0", "vpc: main", `network.vpc: "main" is no id like vpc-`},
		{"one zone", "deployment", "zones: [eu-west-1a, eu-west-1b]", "zones: [eu-west-1a]", "network.zones: name at least two"},
		{"zone elsewhere", "deployment", "zones: [eu-west-1a, eu-west-1b]", "zones: [eu-west-1a, eu-central-1b]", `"eu-central-1b" is not a zone of eu-west-1`},
		{"subnets", "deployment", "subnets: [subnet-0123456789abcdef0, subnet-0123456789abcdef1]", "subnets: [subnet-0123456789abcdef0]", "network.subnets: 1 given, but there are 2 zones"},
		{"route tables", "deployment", "routeTables: [rtb-0123456789abcdef0, rtb-0123456789abcdef1]", "routeTables: []", "network.routeTables: 0 given"},
		{"prefix list", "deployment", "s3PrefixList: pl-6da54004", "", "network.s3PrefixList"},
		{"endpoint unknown", "deployment", "endpoints: [s3, lambda,", "endpoints: [s3, lamda,", `network.endpoints: "lamda" is not one of`},
		{"endpoint nowhere", "deployment", "endpoints: [s3, lambda, logs, ecr.api, ecr.dkr]", "endpoints: [s3, lambda, logs, ecr.api]", "ecr.dkr is left out, so the VPC must have it already"},
		{"endpoint clients", "deployment", "endpointClients: [10.0.0.0/16]", "endpointClients: [10.0.0.1/16]", `network.endpointClients: "10.0.0.1/16" is no IPv4 range`},
		{"host", "deployment", "host: gate.example.com", "host: https://gate.example.com", "loadBalancer.host"},
		{"certificate elsewhere", "deployment", "certificate: arn:aws:acm:eu-west-1", "certificate: arn:aws:acm:us-east-1", "loadBalancer.certificate"},
		{"reviews host", "deployment", "host: reviews.example.com", "host: https://reviews.example.com/", "reviews.host"},
		{"reviews host is the gate's", "deployment", "host: reviews.example.com", "host: gate.example.com", `reviews.host: "gate.example.com" is the gate's`},
		{"reviews host is a cluster's", "deployment", "host: reviews.example.com", "host: dev.gate.example.com", `reviews.host: "dev.gate.example.com" is cluster "dev"'s`},
		{"reviews certificate", "deployment", "eu-west-1:111122223333:certificate/00000000-0000-0000-0000-000000000001", "us-east-1:111122223333:certificate/00000000-0000-0000-0000-000000000001", "reviews.certificate: \"arn:aws:acm:us-east-1"},
		{"secret's ARN", "deployment", "secret: sallyport/slack", "secret: arn:aws:secretsmanager:eu-west-1:111122223333:secret:sallyport/slack-Ab12Cd", "give its name, not its ARN"},
		{"secret's whole name", "deployment", "secret: sallyport/slack", "secret: sallyport/slack-Ab12Cd", "ends as only the ARN of a secret does"},
		{"secret for two", "deployment", "secret: sallyport/slack", "secret: sallyport/pages", "is the secret this stack makes for the pages"},
		{"no secret", "deployment", "secret: sallyport/slack", `secret: ""`, `reviews.slack.secret: missing, but the policy asks reviewers "sre" in Slack`},
		{"sender with a name", "deployment", "from: sallyport@example.com", "from: Sallyport <sallyport@example.com>", "reviews.mail.from"},
		{"sender is everybody", "deployment", "from: sallyport@example.com", `from: "*@example.com"`, `reviews.mail.from: "*@example.com" is no address`},
		{"sender without a domain", "deployment", "from: sallyport@example.com", "from: sallyport@localhost", "reviews.mail.from"},
		{"no clients", "deployment", "clients: [10.0.0.0/8] ", "clients: [] ", "loadBalancer.clients: name the ranges"},
		{"public without subnets", "deployment", "internetFacing: false", "internetFacing: true", "loadBalancer.publicSubnets: 0 given"},
		{"subnets without public", "deployment", "publicSubnets: []", "publicSubnets: [subnet-0123456789abcdef2, subnet-0123456789abcdef3]", "internetFacing is not true"},
		{"cluster unknown", "deployment", "- name: dev", "- name: prod", "clusters[prod]: the policy has no such cluster"},
		{"cluster missing", "deployment", "- name: dev", "- name: prod", `the policy's cluster "dev" is named 0 times`},
		{"cluster group", "deployment", "securityGroup: sg-0123456789abcdef0", "securityGroup: default", `clusters[dev].securityGroup: "default" is no id`},
		{"one task", "deployment", "tasks: 2", "tasks: 1", "proxy.tasks: 1: run at least two"},
		{"size", "deployment", "memory: 1024", "memory: 512", "Fargate has no task of cpu 512 and memory 512"},
		{"retention", "deployment", "retentionDays: 365", "retentionDays: 0", "recordings.retentionDays"},
		{"two documents", "deployment", "retentionDays: 365", "retentionDays: 365\n---\na: b", "more than one document"},
		{"role path", "policy", "role/sallyport/operate", "role/operate", `tier "operate": its role is arn:aws:iam::111122223333:role/operate`},
		{"role name", "policy", "role/sallyport/operate", "role/sallyport/admin", `tier "operate"`},
		{"reserved group", "policy", "group: sallyport:develop", "group: system:masters", `tier "develop"`},
		{"dynamic reference", "policy", "# Who is trusted", "# {{resolve:ssm:/a}}", "line 1: {{resolve: would be replaced"},
		{"token", "policy", "# Who is trusted", "# ${Token[AWS.Region.1]}", "line 1: ${Token[ would be replaced"},
		{"not ASCII", "policy", "# Who is trusted", "# Who is trusted\u200b", "line 1: only printable ASCII"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, f := range []string{"deployment", "policy"} {
				b, err := os.ReadFile(f + ".yaml")
				if err != nil {
					t.Fatal(err)
				}
				text := string(b)
				if f == c.in {
					if !strings.Contains(text, c.old) {
						t.Fatalf("the example holds no %q", c.old)
					}
					text = strings.Replace(text, c.old, c.new, 1)
				}
				if err := os.WriteFile(filepath.Join(dir, f+".yaml"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := LoadConfig(filepath.Join(dir, "deployment.yaml"))
			if err == nil {
				t.Fatal("it loads")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q does not say %q", err, c.want)
			}
		})
	}
}

func TestInternetFacing(t *testing.T) {
	stack(t)
	c, err := LoadConfig("deployment.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c.LoadBalancer.InternetFacing = true
	c.LoadBalancer.PublicSubnets = []string{"subnet-0123456789abcdef2", "subnet-0123456789abcdef3"}
	c.Network.Endpoints = []string{"s3"}
	c.Network.EndpointSecurityGroups = []string{"sg-0123456789abcdef9"}
	tpl := synth(c)
	_, alb := tpl.one(t, "AWS::ElasticLoadBalancingV2::LoadBalancer", "Gate")
	if got := spell(alb.Properties["Subnets"]); alb.Properties["Scheme"] != "internet-facing" || got != "subnet-0123456789abcdef2 subnet-0123456789abcdef3" {
		t.Errorf("%v in %s", alb.Properties["Scheme"], got)
	}
	_, svc := tpl.one(t, "AWS::ECS::Service", "ProxyService")
	if got := spell(at(svc.Properties, "NetworkConfiguration", "AwsvpcConfiguration", "Subnets")); got != "subnet-0123456789abcdef0 subnet-0123456789abcdef1" {
		t.Errorf("the proxy is in %s", got)
	}
	if n := len(tpl.all("AWS::EC2::VPCEndpoint")); n != 1 {
		t.Errorf("%d endpoints are made", n)
	}
	_, out := tpl.one(t, "AWS::EC2::SecurityGroupEgress", "ProxySecurityGrouptoSallyportEndpointssg")
	if out.Properties["DestinationSecurityGroupId"] != "sg-0123456789abcdef9" {
		t.Errorf("%v", out.Properties)
	}
}
