package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestLoadBalancer(t *testing.T) {
	tpl := stack(t)
	_, alb := tpl.one(t, "AWS::ElasticLoadBalancingV2::LoadBalancer", "Gate")
	got := map[string]string{}
	for _, a := range alb.Properties["LoadBalancerAttributes"].([]any) {
		got[at(a, "Key").(string)] = spell(at(a, "Value"))
	}
	want := map[string]string{
		"idle_timeout.timeout_seconds":                    "4000",
		"client_keep_alive.seconds":                       "3600",
		"routing.http.drop_invalid_header_fields.enabled": "true",
		"routing.http.preserve_host_header.enabled":       "true",
		"routing.http.xff_header_processing.mode":         "append",
		"routing.http.desync_mitigation_mode":             "strictest",
		"routing.http2.enabled":                           "true",
		"deletion_protection.enabled":                     "true",
		"access_logs.s3.enabled":                          "true",
		"access_logs.s3.bucket":                           "<Logs>",
		"access_logs.s3.prefix":                           "alb",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if alb.Properties["Scheme"] != "internal" {
		t.Errorf("scheme %v", alb.Properties["Scheme"])
	}
	_, l := tpl.one(t, "AWS::ElasticLoadBalancingV2::Listener", "Gate")
	if l.Properties["Protocol"] != "HTTPS" || l.Properties["Port"] != 443.0 || !strings.HasPrefix(l.Properties["SslPolicy"].(string), "ELBSecurityPolicy-TLS13-1-2-Res-") {
		t.Errorf("listener %v", l.Properties)
	}
	_, g := tpl.one(t, "AWS::ElasticLoadBalancingV2::TargetGroup", "Gate")
	for k, want := range map[string]any{"Protocol": "HTTPS", "ProtocolVersion": "HTTP1", "Port": 8443.0, "HealthCheckProtocol": "HTTP", "HealthCheckPort": "9090", "HealthCheckPath": "/readyz", "TargetType": "ip"} {
		if g.Properties[k] != want {
			t.Errorf("target group %s: %v, want %v", k, g.Properties[k], want)
		}
	}
	if at(g.Properties, "TargetGroupAttributes", 0, "Value") != "3600" {
		t.Errorf("streams are cut before: %v", g.Properties["TargetGroupAttributes"])
	}
}

func TestTask(t *testing.T) {
	tpl := stack(t)
	_, task := tpl.one(t, "AWS::ECS::TaskDefinition", "ProxyTask")
	c := at(task.Properties, "ContainerDefinitions", 0)
	for k, want := range map[string]any{
		"ReadonlyRootFilesystem": true, "User": "65532:65532", "StopTimeout": 120.0, "Privileged": nil, "Secrets": nil,
		"LinuxParameters": map[string]any{"Capabilities": map[string]any{"Drop": []any{"ALL"}}},
	} {
		if d := cmp.Diff(want, at(c, k)); d != "" {
			t.Errorf("%s: %s", k, d)
		}
	}
	if d := cmp.Diff(map[string]any{"CpuArchitecture": "ARM64", "OperatingSystemFamily": "LINUX"}, task.Properties["RuntimePlatform"]); d != "" {
		t.Error(d)
	}
	_, svc := tpl.one(t, "AWS::ECS::Service", "ProxyService")
	if svc.Properties["DesiredCount"] != 2.0 || svc.Properties["EnableExecuteCommand"] != false ||
		at(svc.Properties, "DeploymentConfiguration", "MinimumHealthyPercent") != 100.0 ||
		at(svc.Properties, "DeploymentConfiguration", "DeploymentCircuitBreaker", "Rollback") != true ||
		at(svc.Properties, "NetworkConfiguration", "AwsvpcConfiguration", "AssignPublicIp") != "DISABLED" {
		t.Errorf("service %v", svc.Properties)
	}
	_, cluster := tpl.one(t, "AWS::ECS::Cluster", "Tasks")
	if at(cluster.Properties, "ClusterSettings", 0, "Value") != "enabled" {
		t.Error("no container insights")
	}
	for _, id := range tpl.all("AWS::Logs::LogGroup") {
		if tpl.Resources[id].Properties["RetentionInDays"] != 365.0 {
			t.Errorf("log %s is kept for ever", id)
		}
	}
}

func TestNetwork(t *testing.T) {
	tpl := stack(t)
	var got []string
	add := func(group, dir string, r any) {
		var peer []string
		for _, k := range []string{"CidrIp", "SourceSecurityGroupId", "DestinationSecurityGroupId", "DestinationPrefixListId"} {
			if v := at(r, k); v != nil {
				peer = append(peer, spell(v))
			}
		}
		got = append(got, fmt.Sprint(group, " ", dir, " ", strings.Join(peer, "+"), " ", at(r, "IpProtocol"), " ", at(r, "FromPort")))
	}
	for _, id := range tpl.all("AWS::EC2::SecurityGroup") {
		p := tpl.Resources[id].Properties
		in, _ := p["SecurityGroupIngress"].([]any)
		for _, r := range in {
			add("<"+name(id)+">", "in", r)
		}
		out, _ := p["SecurityGroupEgress"].([]any)
		for _, r := range out {
			add("<"+name(id)+">", "out", r)
		}
	}
	for typ, dir := range map[string]string{"AWS::EC2::SecurityGroupIngress": "in", "AWS::EC2::SecurityGroupEgress": "out"} {
		for _, id := range tpl.all(typ) {
			add(spell(tpl.Resources[id].Properties["GroupId"]), dir, tpl.Resources[id].Properties)
		}
	}
	slices.Sort(got)
	want := []string{
		"<EndpointSecurityGroup> in 10.0.0.0/16 tcp 443",
		"<EndpointSecurityGroup> in <ProxySecurityGroup> tcp 443",
		"<EndpointSecurityGroup> out 255.255.255.255/32 icmp 252", // nothing: it takes the place of AWS's default, everything
		"<GateSecurityGroup> in 10.0.0.0/8 tcp 443",
		"<GateSecurityGroup> out <ProxySecurityGroup> tcp 8443",
		"<GateSecurityGroup> out <ProxySecurityGroup> tcp 9090",
		"<ProxySecurityGroup> in <GateSecurityGroup> tcp 8443",
		"<ProxySecurityGroup> in <GateSecurityGroup> tcp 9090",
		"<ProxySecurityGroup> out <EndpointSecurityGroup> tcp 443",
		"<ProxySecurityGroup> out pl-6da54004 tcp 443",
		"<ProxySecurityGroup> out sg-0123456789abcdef0 tcp 443",
		"sg-0123456789abcdef0 in <ProxySecurityGroup> tcp 443",
	}
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	var made []string
	for _, id := range tpl.all("AWS::EC2::VPCEndpoint") {
		made = append(made, strings.NewReplacer("<AWS::Region>", "eu-west-1").Replace(spell(tpl.Resources[id].Properties["ServiceName"])))
	}
	slices.Sort(made)
	if d := cmp.Diff([]string{"com.amazonaws.eu-west-1.ecr.api", "com.amazonaws.eu-west-1.ecr.dkr", "com.amazonaws.eu-west-1.lambda", "com.amazonaws.eu-west-1.logs", "com.amazonaws.eu-west-1.s3"}, made); d != "" {
		t.Error(d)
	}
}
