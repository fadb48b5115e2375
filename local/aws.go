package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"sallyport/local/aws"
	"sallyport/local/aws/eks"
	"sallyport/local/aws/lambda"
	"sallyport/local/aws/sts"
	"sallyport/local/stack"
	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

// serveAWS runs the local AWS: the functions with the roles and settings that the CDK app gives them.
func serveAWS(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve-aws", flag.ExitOnError)
	dir := flags.String("dir", "", "where its state is kept")
	file := flags.String("policy", "", "the policy file, whose tiers' roles can be assumed")
	exchange := flags.String("exchange", "", "function exchange's bootstrap")
	lifetime := flags.Duration("credential-lifetime", 0, "the most a minted credential lives; 0 for as long as asked")
	ready := flags.String("ready", "", "file that is written when it serves")
	_ = flags.Parse(args)
	b, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	p, err := policy.Load(*file, b)
	if err != nil {
		return err
	}
	var roles []sts.Role
	for _, t := range p.Tiers {
		roles = append(roles, sts.Role{ARN: t.Role, MaxSessionDuration: time.Hour, Trust: []sts.Trust{{
			Callers: []string{stack.ExchangeRole}, RequireTags: []string{settings.TagSession, settings.TagPrincipal, settings.TagTier},
			AllowSourceIdentity: true, RequireSourceIdentity: true,
		}}})
	}
	var clusters []eks.Cluster
	for _, c := range p.Clusters {
		clusters = append(clusters, eks.Cluster{Name: c.Name})
	}
	cfg := aws.Config{
		Dir: *dir, Python: os.Getenv("SALLYPORT_MOTO_PYTHON"), Region: stack.Region, AccountID: stack.Account, Roles: roles, Clusters: clusters, CredentialLifetime: *lifetime,
		Principals: stack.Principals(),
		Functions: []aws.Function{{Role: stack.ExchangeRole, Function: lambda.Function{
			Name: settings.ExchangeFunction, Binary: *exchange, Timeout: 10 * time.Second,
			Env: settings.Environment(settings.Exchange{Table: settings.Sessions.Name, PolicyBucket: stack.PolicyBucket, PolicyDigest: p.Digest}),
		}}},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	return aws.Serve(ctx, cfg, func(s *aws.Stack) {
		err := announce(*ready, stack.AWSReady{
			Endpoint: s.URL, WebhookKubeconfig: s.WebhookKubeconfig(stack.Cluster), PIDs: map[string]int{"moto": s.Moto.PID()}, ProxyEnvironment: stack.ProxyEnvironment(s.URL),
		})
		if err != nil {
			cfg.Log.Error("cannot say that it is ready", "file", filepath.Base(*ready), "error", err)
		}
	})
}
