package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"sallyport/shared/access"
	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

// A Deployment is what deployment.yaml says: the account, network and clusters the gate is put into.
type Deployment struct {
	Account      string       `yaml:"account"`
	Region       string       `yaml:"region"`
	Policy       string       `yaml:"policy"` // file, relative to the deployment file
	Network      Network      `yaml:"network"`
	LoadBalancer LoadBalancer `yaml:"loadBalancer"`
	Clusters     []Cluster    `yaml:"clusters"`
	Proxy        Proxy        `yaml:"proxy"`
	Reviews      Reviews      `yaml:"reviews"`
	Recordings   Recordings   `yaml:"recordings"`
}

// Network is where the proxy runs. Subnets, RouteTables and Zones go together by position.
type Network struct {
	VPC                    string   `yaml:"vpc"`
	Zones                  []string `yaml:"zones"`
	Subnets                []string `yaml:"subnets"`
	RouteTables            []string `yaml:"routeTables"`
	S3PrefixList           string   `yaml:"s3PrefixList"`
	Endpoints              []string `yaml:"endpoints"`
	EndpointSecurityGroups []string `yaml:"endpointSecurityGroups"`
	EndpointClients        []string `yaml:"endpointClients"`
}

// LoadBalancer is the gate's front.
type LoadBalancer struct {
	Host           string   `yaml:"host"`
	Certificate    string   `yaml:"certificate"`
	Clients        []string `yaml:"clients"`
	InternetFacing bool     `yaml:"internetFacing"`
	PublicSubnets  []string `yaml:"publicSubnets"`
}

// Cluster is an EKS cluster of the policy, and the security group of its API server.
type Cluster struct {
	Name          string `yaml:"name"`
	SecurityGroup string `yaml:"securityGroup"`
}

// Proxy is how many tasks run, and their size: CPU in 1/1024 of a vCPU, memory in MiB.
type Proxy struct {
	Tasks  int `yaml:"tasks"`
	CPU    int `yaml:"cpu"`
	Memory int `yaml:"memory"`
}

// Reviews is where reviewers answer, and what reaches them. A channel whose field is empty is not there.
type Reviews struct {
	Host        string `yaml:"host"`
	Certificate string `yaml:"certificate"`
	Slack       struct {
		Secret string `yaml:"secret"` // name in Secrets Manager
	} `yaml:"slack"`
	Mail struct {
		From string `yaml:"from"` // an address that SES may send as
	} `yaml:"mail"`
}

// Recordings is how long recordings are locked.
type Recordings struct {
	RetentionDays int `yaml:"retentionDays"`
}

// Config is a Deployment and the policy it names, checked to agree.
type Config struct {
	Deployment
	Rules      *policy.Policy
	PolicyText []byte // the policy file's bytes
}

// LoadConfig reads a deployment file and the policy it names. Its error names every field that is wrong.
func LoadConfig(file string) (*Config, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading the deployment: %w", err)
	}
	c := &Config{}
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&c.Deployment); err != nil {
		return nil, fmt.Errorf("deployment %s: %s", file, strings.TrimPrefix(err.Error(), "yaml: "))
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("deployment %s: more than one document", file)
	}
	if c.Policy == "" {
		return nil, fmt.Errorf("deployment %s: policy: name the policy file, such as policy: policy.yaml", file)
	}
	path := c.Policy
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(file), path)
	}
	if c.PolicyText, err = os.ReadFile(path); err != nil {
		return nil, fmt.Errorf("deployment %s: policy: %w", file, err)
	}
	if c.Rules, err = policy.Load(c.Policy, c.PolicyText); err != nil {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("deployment %s:\n%w", file, err)
	}
	return c, nil
}

var (
	accountRE     = regexp.MustCompile(`^[0-9]{12}$`)
	regionRE      = regexp.MustCompile(`^[a-z]{2}(-[a-z]+)+-[0-9]$`)
	hostRE        = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$`)
	certificateRE = regexp.MustCompile(`^arn:aws[a-z-]*:acm:([a-z0-9-]+):([0-9]{12}):certificate/[A-Za-z0-9-]+$`)
	secretRE      = regexp.MustCompile(`^[A-Za-z0-9/_+=.@-]{1,512}$`)
	suffixRE      = regexp.MustCompile(`-[A-Za-z0-9]{6}$`) // what Secrets Manager ends an ARN with
	mailRE        = regexp.MustCompile(`^[A-Za-z0-9._+-]{1,64}@([a-z0-9.-]+)$`)
	roleRE        = regexp.MustCompile(`^arn:([a-z-]+):iam::([0-9]{12}):role(/.*/|/)([^/]+)$`)
)

// The interface endpoints come after s3, in the order they are made.
var endpoints = []string{"s3", "lambda", "logs", "ecr.api", "ecr.dkr"}

// The task sizes of Fargate up to 4 vCPU: CPU, then the least and most memory and its step, in MiB.
var sizes = []struct{ cpu, least, most, step int }{
	{256, 512, 2048, 512}, {512, 1024, 4096, 1024}, {1024, 2048, 8192, 1024}, {2048, 4096, 16384, 1024}, {4096, 8192, 30720, 1024},
}

func (c *Config) check() error {
	var errs []error
	bad := func(field, format string, a ...any) {
		errs = append(errs, fmt.Errorf("  %s: %s", field, fmt.Sprintf(format, a...)))
	}
	want := func(ok bool, field, format string, a ...any) {
		if !ok {
			bad(field, format, a...)
		}
	}
	id := func(field, value, prefix string) {
		want(regexp.MustCompile(`^`+prefix+`-[0-9a-f]{8,17}$`).MatchString(value), field, "%q is no id like %s-0123456789abcdef0", value, prefix)
	}
	ids := func(field string, values []string, prefix string, n int) {
		want(n < 0 || len(values) == n, field, "%d given, but there are %d zones: one for each, in their order", len(values), n)
		for _, v := range values {
			id(field, v, prefix)
		}
	}
	distinct := func(field string, values []string) {
		for i, v := range values {
			want(!slices.Contains(values[:i], v), field, "%q is named twice", v)
		}
	}
	ranges := func(field string, values []string) {
		for _, v := range values {
			p, err := netip.ParsePrefix(v)
			want(err == nil && p.Addr().Is4() && p.Masked() == p, field, "%q is no IPv4 range like 10.0.0.0/16", v)
		}
		distinct(field, values)
	}

	want(accountRE.MatchString(c.Account), "account", "%q is no account id: twelve digits, in quotes", c.Account)
	want(regionRE.MatchString(c.Region), "region", "%q is no region like eu-west-1", c.Region)

	n := len(c.Network.Zones)
	id("network.vpc", c.Network.VPC, "vpc")
	want(n >= 2, "network.zones", "name at least two, so that the loss of one does not close the gate")
	for _, z := range c.Network.Zones {
		want(strings.HasPrefix(z, c.Region) && len(z) > len(c.Region), "network.zones", "%q is not a zone of %s", z, c.Region)
	}
	distinct("network.zones", c.Network.Zones)
	ids("network.subnets", c.Network.Subnets, "subnet", n)
	distinct("network.subnets", c.Network.Subnets)
	ids("network.routeTables", c.Network.RouteTables, "rtb", n)
	id("network.s3PrefixList", c.Network.S3PrefixList, "pl")
	for _, e := range c.Network.Endpoints {
		want(slices.Contains(endpoints, e), "network.endpoints", "%q is not one of %s", e, strings.Join(endpoints, ", "))
	}
	distinct("network.endpoints", c.Network.Endpoints)
	ids("network.endpointSecurityGroups", c.Network.EndpointSecurityGroups, "sg", -1)
	distinct("network.endpointSecurityGroups", c.Network.EndpointSecurityGroups)
	for _, e := range endpoints[1:] {
		want(slices.Contains(c.Network.Endpoints, e) || len(c.Network.EndpointSecurityGroups) > 0, "network.endpoints",
			"%s is left out, so the VPC must have it already: name its security group under network.endpointSecurityGroups", e)
	}
	ranges("network.endpointClients", c.Network.EndpointClients)

	want(hostRE.MatchString(c.LoadBalancer.Host), "loadBalancer.host", "%q is no host name like gate.example.com", c.LoadBalancer.Host)
	certificate := func(field, arn string) {
		cert := certificateRE.FindStringSubmatch(arn)
		want(cert != nil && cert[1] == c.Region && cert[2] == c.Account, field, "%q is no ACM certificate of account %s in %s", arn, c.Account, c.Region)
	}
	certificate("loadBalancer.certificate", c.LoadBalancer.Certificate)
	want(len(c.LoadBalancer.Clients) > 0, "loadBalancer.clients", "name the ranges that may connect, or nobody can")
	ranges("loadBalancer.clients", c.LoadBalancer.Clients)
	if c.LoadBalancer.InternetFacing {
		ids("loadBalancer.publicSubnets", c.LoadBalancer.PublicSubnets, "subnet", n)
	} else {
		want(len(c.LoadBalancer.PublicSubnets) == 0, "loadBalancer.publicSubnets", "given, but internetFacing is not true")
	}

	want(c.Proxy.Tasks >= 2, "proxy.tasks", "%d: run at least two, so that the loss of one does not close the gate", c.Proxy.Tasks)
	want(slices.ContainsFunc(sizes, func(s struct{ cpu, least, most, step int }) bool {
		return c.Proxy.CPU == s.cpu && c.Proxy.Memory >= s.least && c.Proxy.Memory <= s.most && c.Proxy.Memory%s.step == 0
	}), "proxy", "Fargate has no task of cpu %d and memory %d; cpu 512 and memory 1024 is one it has", c.Proxy.CPU, c.Proxy.Memory)
	want(c.Recordings.RetentionDays >= 1 && c.Recordings.RetentionDays <= 36500, "recordings.retentionDays",
		"%d is not between 1 and 36500", c.Recordings.RetentionDays)

	want(hostRE.MatchString(c.Reviews.Host), "reviews.host", "%q is no host name like reviews.example.com", c.Reviews.Host)
	want(c.Reviews.Host != c.LoadBalancer.Host, "reviews.host", "%q is the gate's; the reviewers' pages need a name of their own", c.Reviews.Host)
	for _, p := range c.Rules.Clusters {
		want(!slices.Contains(p.Hosts, c.Reviews.Host), "reviews.host", "%q is cluster %q's; the reviewers' pages need a name of their own", c.Reviews.Host, p.Name)
	}
	certificate("reviews.certificate", c.Reviews.Certificate)
	c.checkChannels(want)

	var groups []string
	for _, cl := range c.Clusters {
		id("clusters["+cl.Name+"].securityGroup", cl.SecurityGroup, "sg")
		groups = append(groups, cl.SecurityGroup)
		want(slices.ContainsFunc(c.Rules.Clusters, func(p access.Cluster) bool { return p.Name == cl.Name }),
			"clusters["+cl.Name+"]", "the policy has no such cluster")
	}
	distinct("clusters[].securityGroup", groups)
	for _, p := range c.Rules.Clusters {
		named := 0
		for _, cl := range c.Clusters {
			if cl.Name == p.Name {
				named++
			}
		}
		want(named == 1, "clusters", "the policy's cluster %q is named %d times here, once is wanted", p.Name, named)
		want(p.Region == c.Region, "policy", "cluster %q is in %s, but its access entries are made by this stack, in %s", p.Name, p.Region, c.Region)
	}
	for _, t := range c.Rules.Tiers {
		r := roleRE.FindStringSubmatch(t.Role)
		want(r != nil && r[1] == partition(c.Region) && r[2] == c.Account && r[3] == settings.RolePath && r[4] == t.Name, "policy",
			"tier %q: its role is %s, but this stack makes arn:%s:iam::%s:role%s%s", t.Name, t.Role, partition(c.Region), c.Account, settings.RolePath, t.Name)
	}
	if err := carried(c.PolicyText); err != nil {
		bad("policy", "%v", err)
	}
	return errors.Join(errs...)
}

// checkChannels holds that every reviewer the policy names can be reached: a question that nobody is told of is denied at
// once, which should be known before it is deployed.
func (c *Config) checkChannels(want func(ok bool, field, format string, a ...any)) {
	secret, from := c.Reviews.Slack.Secret, c.Reviews.Mail.From
	if secret != "" {
		want(secretRE.MatchString(secret), "reviews.slack.secret", "%q is no name of a secret like %s; give its name, not its ARN", secret, settings.SlackSecret)
		want(!suffixRE.MatchString(secret), "reviews.slack.secret", "%q ends as only the ARN of a secret does; give the name without the last seven characters, or choose another", secret)
		want(secret != settings.PagesSecret, "reviews.slack.secret", "%q is the secret this stack makes for the pages", secret)
	}
	if from != "" {
		// It becomes part of an ARN, where * and ? would stand for others.
		m := mailRE.FindStringSubmatch(from)
		want(m != nil && hostRE.MatchString(m[1]), "reviews.mail.from", "%q is no address like sallyport@example.com: letters, digits, and . _ + - before the @", from)
	}
	for _, g := range c.Rules.Reviewers {
		if g.Slack != nil {
			want(secret != "", "reviews.slack.secret", "missing, but the policy asks reviewers %q in Slack; name the secret, such as %s", g.Name, settings.SlackSecret)
		} else {
			want(from != "", "reviews.mail.from", "missing, and reviewers %q of the policy have no channel in Slack, so nobody could ask them", g.Name)
		}
	}
	for _, r := range c.Rules.Rules {
		want(r.Obligations.Links != "alone" || from != "", "reviews.mail.from", "missing, but rule %q lets links in mails decide", r.Name)
	}
}

// carried refuses a policy that would not reach its bucket byte for byte. It travels in the template, where
// CloudFormation resolves dynamic references, the CDK resolves tokens, and only ASCII is certain to stay what it is.
// ASCII also keeps look-alikes and invisible characters out of what people review.
func carried(text []byte) error {
	if len(text) > 128<<10 {
		return fmt.Errorf("%d bytes are more than a template carries; 131072 is the limit", len(text))
	}
	for i, l := range bytes.Split(text, []byte("\n")) {
		for _, mark := range []string{"{{resolve:", "${Token["} {
			if bytes.Contains(l, []byte(mark)) {
				return fmt.Errorf("line %d: %s would be replaced on the way to the bucket", i+1, mark)
			}
		}
		if bytes.ContainsFunc(l, func(r rune) bool { return r > '~' || r < ' ' && r != '\t' && r != '\r' }) {
			return fmt.Errorf("line %d: only printable ASCII is certain to reach the bucket unchanged", i+1)
		}
	}
	return nil
}

func partition(region string) string {
	switch {
	case strings.HasPrefix(region, "cn-"):
		return "aws-cn"
	case strings.HasPrefix(region, "us-gov-"):
		return "aws-us-gov"
	}
	return "aws"
}
