package main

import (
	"fmt"
	"slices"

	"github.com/aws/aws-cdk-go/awscdk/v2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awscertificatemanager"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsec2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsecs"
	elb "github.com/aws/aws-cdk-go/awscdk/v2/awselasticloadbalancingv2"
	"github.com/aws/aws-cdk-go/awscdk/v2/awsiam"
	"github.com/aws/aws-cdk-go/awscdk/v2/awslambda"
	"github.com/aws/constructs-go/constructs/v10"

	"sallyport/shared/settings"
)

const (
	gatePort    = 8443 // HTTPS, with the proxy's own certificate
	metricsPort = 9090 // HTTP: health, readiness and metrics
)

// newGate is the load balancer, the proxy behind it, and the only ways between them and out.
func newGate(st awscdk.Stack, c *Config, s stores, exchange, review awslambda.Function, policy constructs.IDependable, image awsecs.ContainerImage) elb.ApplicationLoadBalancer {
	n := newNetwork(st, c)
	svc := newProxy(st, c, s, n, exchange, review, policy, image)

	front := n.private
	if c.LoadBalancer.InternetFacing {
		front = &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PUBLIC}
	}
	alb := elb.NewApplicationLoadBalancer(st, str("Gate"), &elb.ApplicationLoadBalancerProps{
		Vpc: n.vpc, VpcSubnets: front, InternetFacing: &c.LoadBalancer.InternetFacing, SecurityGroup: n.front,
		// An exec may wait for a human before it is upgraded, and a session may be silent: longer than an hour, which
		// is all a tier's credential lives.
		IdleTimeout:             seconds(4000),
		ClientKeepAlive:         awscdk.Duration_Hours(num(1)),
		DropInvalidHeaderFields: yes,
		DesyncMitigationMode:    elb.DesyncMitigationMode_STRICTEST,
		// The host name chooses the cluster, so the proxy sees what the agent sent; the proxy believes only the last
		// address of X-Forwarded-For, which the load balancer appends.
		PreserveHostHeader:      yes,
		XffHeaderProcessingMode: elb.XffHeaderProcessingMode_APPEND,
		Http2Enabled:            yes,
		DeletionProtection:      yes,
	})
	alb.LogAccessLogs(s.logs, str("alb"))

	listener := alb.AddListener(str("HTTPS"), &elb.BaseApplicationListenerProps{
		Port: num(443), Protocol: elb.ApplicationProtocol_HTTPS, Open: no,
		SslPolicy: elb.SslPolicy_TLS13_12_RES_PQ, // TLS 1.3, or 1.2 with forward secrecy and AEAD
		Certificates: &[]elb.IListenerCertificate{
			elb.ListenerCertificate_FromCertificateManager(awscertificatemanager.Certificate_FromCertificateArn(st, str("Certificate"), &c.LoadBalancer.Certificate)),
		},
	})
	listener.AddTargets(str("Proxy"), &elb.AddApplicationTargetsProps{
		Port: num(gatePort), Protocol: elb.ApplicationProtocol_HTTPS, ProtocolVersion: elb.ApplicationProtocolVersion_HTTP1,
		Targets: &[]elb.IApplicationLoadBalancerTarget{svc},
		HealthCheck: &elb.HealthCheck{
			Protocol: elb.Protocol_HTTP, Port: str(fmt.Sprint(metricsPort)), Path: str("/readyz"), HealthyHttpCodes: str("200"),
			Interval: seconds(10), Timeout: seconds(5), HealthyThresholdCount: num(2), UnhealthyThresholdCount: num(3),
		},
		// A task that is replaced gets no new connections, and keeps its streams for as long as the load balancer allows,
		// which is as long as a credential lives. A target without connections is let go at once.
		DeregistrationDelay: seconds(3600),
	})
	return alb
}

// A network is the VPC and the security groups. Every rule is one of these, both ways: clients to the load balancer,
// load balancer to the proxy's two ports, proxy to the clusters, the endpoints and S3.
type network struct {
	vpc     awsec2.IVpc
	private *awsec2.SubnetSelection
	front   awsec2.SecurityGroup // the load balancer's
	proxy   awsec2.SecurityGroup
}

func newNetwork(st awscdk.Stack, c *Config) network {
	a := &awsec2.VpcAttributes{
		VpcId: &c.Network.VPC, AvailabilityZones: strs(c.Network.Zones...),
		PrivateSubnetIds: strs(c.Network.Subnets...), PrivateSubnetRouteTableIds: strs(c.Network.RouteTables...),
	}
	if c.LoadBalancer.InternetFacing {
		a.PublicSubnetIds = strs(c.LoadBalancer.PublicSubnets...)
	}
	n := network{vpc: awsec2.Vpc_FromVpcAttributes(st, str("Network"), a)}
	n.private = &awsec2.SubnetSelection{SubnetType: awsec2.SubnetType_PRIVATE_WITH_EGRESS} // that is, PrivateSubnetIds
	group := func(id, what string) awsec2.SecurityGroup {
		return awsec2.NewSecurityGroup(st, &id, &awsec2.SecurityGroupProps{Vpc: n.vpc, Description: &what, AllowAllOutbound: no})
	}
	n.front = group("GateSecurityGroup", "Sallyport load balancer")
	n.proxy = group("ProxySecurityGroup", "Sallyport proxy")
	https := awsec2.Port_Tcp(num(443))

	for _, r := range c.LoadBalancer.Clients {
		n.front.AddIngressRule(awsec2.Peer_Ipv4(str(r)), https, str("agents"), nil)
	}
	// The rules for the gate's port come with the target group; the health check's port does not.
	n.proxy.Connections().AllowFrom(n.front, awsec2.Port_Tcp(num(metricsPort)), str("health checks"))

	for _, cl := range c.Clusters {
		peer := awsec2.SecurityGroup_FromSecurityGroupId(st, construct("Cluster", cl.Name), str(cl.SecurityGroup), nil)
		n.proxy.Connections().AllowTo(peer, https, str("API server of "+cl.Name))
	}

	n.proxy.AddEgressRule(awsec2.Peer_PrefixList(&c.Network.S3PrefixList), https, str("S3"), nil)
	if slices.Contains(c.Network.Endpoints, "s3") {
		awsec2.NewGatewayVpcEndpoint(st, str("Endpoint-s3"), &awsec2.GatewayVpcEndpointProps{
			Vpc: n.vpc, Service: awsec2.GatewayVpcEndpointAwsService_S3(), Subnets: &[]*awsec2.SubnetSelection{n.private},
		})
	}
	var made awsec2.SecurityGroup
	for _, e := range []struct {
		name    string
		service awsec2.InterfaceVpcEndpointAwsService
	}{
		{"lambda", awsec2.InterfaceVpcEndpointAwsService_LAMBDA()},
		{"logs", awsec2.InterfaceVpcEndpointAwsService_CLOUDWATCH_LOGS()},
		{"ecr.api", awsec2.InterfaceVpcEndpointAwsService_ECR()},
		{"ecr.dkr", awsec2.InterfaceVpcEndpointAwsService_ECR_DOCKER()},
	} {
		if !slices.Contains(c.Network.Endpoints, e.name) {
			continue
		}
		if made == nil {
			made = group("EndpointSecurityGroup", "Sallyport VPC endpoints")
			made.Connections().AllowFrom(n.proxy, https, str("proxy"))
			for _, r := range c.Network.EndpointClients {
				made.AddIngressRule(awsec2.Peer_Ipv4(str(r)), https, str("the VPC, which finds these endpoints by private DNS"), nil)
			}
		}
		awsec2.NewInterfaceVpcEndpoint(st, construct("Endpoint", e.name), &awsec2.InterfaceVpcEndpointProps{
			Vpc: n.vpc, Service: e.service, Subnets: n.private, PrivateDnsEnabled: yes, Open: no,
			SecurityGroups: &[]awsec2.ISecurityGroup{made},
		})
	}
	for _, id := range c.Network.EndpointSecurityGroups {
		peer := awsec2.SecurityGroup_FromSecurityGroupId(st, construct("Endpoints", id), str(id), nil)
		n.proxy.Connections().AllowTo(peer, https, str("VPC endpoints that were there"))
	}
	return n
}

// newProxy is the proxy on Fargate. Its role may invoke two functions, read policies and put recordings; it may assume
// nothing, list nothing and read no recording.
func newProxy(st awscdk.Stack, c *Config, s stores, n network, exchange, review awslambda.Function, policy constructs.IDependable, image awsecs.ContainerImage) awsecs.FargateService {
	role := awsiam.NewRole(st, str("ProxyRole"), &awsiam.RoleProps{
		Description: str("Proxy: invokes exchange and review, reads policies, puts recordings"),
		AssumedBy: awsiam.NewServicePrincipal(service("ecs-tasks"), &awsiam.ServicePrincipalOpts{
			Conditions: &map[string]any{"StringEquals": map[string]any{"aws:SourceAccount": c.Account}},
		}),
	})
	role.AddToPolicy(allow("Broker", strs("lambda:InvokeFunction"), exchange.FunctionArn(), review.FunctionArn()))
	role.AddToPolicy(allow("Policy", strs("s3:GetObject", "s3:GetObjectVersion"), under(s.policy.BucketArn(), settings.PolicyPrefix)))
	role.AddToPolicy(allow("Record", strs("s3:PutObject"),
		under(s.recordings.BucketArn(), settings.RefusedPrefix), under(s.recordings.BucketArn(), settings.SessionsPrefix)))

	task := awsecs.NewFargateTaskDefinition(st, str("ProxyTask"), &awsecs.FargateTaskDefinitionProps{
		Family: str("sallyport-proxy"), Cpu: num(c.Proxy.CPU), MemoryLimitMiB: num(c.Proxy.Memory), TaskRole: role,
		RuntimePlatform: &awsecs.RuntimePlatform{
			CpuArchitecture: awsecs.CpuArchitecture_ARM64(), OperatingSystemFamily: awsecs.OperatingSystemFamily_LINUX(),
		},
	})
	linux := awsecs.NewLinuxParameters(st, str("ProxyLinux"), nil)
	linux.DropCapabilities(awsecs.Capability_ALL)
	task.AddContainer(str("proxy"), &awsecs.ContainerDefinitionOptions{
		Image: image, ReadonlyRootFilesystem: yes, User: str("65532:65532"), LinuxParameters: linux,
		PortMappings: &[]*awsecs.PortMapping{{ContainerPort: num(gatePort)}, {ContainerPort: num(metricsPort)}},
		StopTimeout:  seconds(120), // the most Fargate gives: streams end and their recordings are closed in it
		Logging:      awsecs.LogDrivers_AwsLogs(&awsecs.AwsLogDriverProps{StreamPrefix: str("proxy"), LogGroup: newLogGroup(st, "ProxyLog")}),
		Environment: environment(settings.Proxy{
			Listen:            fmt.Sprintf(":%d", gatePort),
			MetricsListen:     fmt.Sprintf(":%d", metricsPort),
			ExchangeFunction:  *exchange.FunctionName(),
			ReviewFunction:    *review.FunctionName(),
			PolicyBucket:      *s.policy.BucketName(),
			RecordingsBucket:  *s.recordings.BucketName(),
			Drain:             "100s", // within StopTimeout
			TrustForwardedFor: "true",
		}),
	})

	svc := awsecs.NewFargateService(st, str("ProxyService"), &awsecs.FargateServiceProps{
		Cluster: awsecs.NewCluster(st, str("Tasks"), &awsecs.ClusterProps{
			Vpc: n.vpc, ContainerInsightsV2: awsecs.ContainerInsights_ENABLED,
		}),
		TaskDefinition: task, DesiredCount: num(c.Proxy.Tasks), MinHealthyPercent: num(100), MaxHealthyPercent: num(200),
		CircuitBreaker:         &awsecs.DeploymentCircuitBreaker{Rollback: yes},
		HealthCheckGracePeriod: seconds(60),
		SecurityGroups:         &[]awsec2.ISecurityGroup{n.proxy}, VpcSubnets: n.private, AssignPublicIp: no,
		EnableExecuteCommand: no, // a shell in the proxy would see agents' tokens
	})
	svc.Node().AddDependency(policy) // its tasks are ready, and the service is made, once there is a policy
	return svc
}
