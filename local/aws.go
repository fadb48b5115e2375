package main

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
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
	issuer := flags.String("issuer", "", "the stack's issuer, which is filled in when the policy file changes")
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
		roles = append(roles, tierRole(t.Role))
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
			Env: settings.Environment(settings.Exchange{Table: settings.Sessions.Name, PolicyBucket: stack.PolicyBucket}),
		}}},
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}
	return aws.Serve(ctx, cfg, func(s *aws.Stack) {
		err := announce(*ready, stack.AWSReady{
			Endpoint: s.URL, WebhookKubeconfig: s.WebhookKubeconfig(stack.Cluster), PIDs: map[string]int{"moto": s.Moto.PID()}, ProxyEnvironment: stack.ProxyEnvironment(s.URL),
		})
		go stack.Watcher{File: *file, Endpoint: s.URL, Issuer: *issuer, Log: cfg.Log.With("part", "policy"),
			Before: func(p *policy.Policy) error { return makeTiers(s, p) }}.Run(ctx)
		if err != nil {
			cfg.Log.Error("cannot say that it is ready", "file", filepath.Base(*ready), "error", err)
		}
	})
}

// tierRole is a tier's role as the CDK app makes it: function exchange alone may assume it, and must say for whom.
func tierRole(arn string) sts.Role {
	return sts.Role{ARN: arn, MaxSessionDuration: time.Hour, Trust: []sts.Trust{{
		Callers: []string{stack.ExchangeRole}, RequireTags: []string{settings.TagSession, settings.TagPrincipal, settings.TagTier},
		AllowSourceIdentity: true, RequireSourceIdentity: true,
	}}}
}

// makeTiers makes the roles and access entries of the tiers that a policy has and the stack has not yet.
func makeTiers(s *aws.Stack, p *policy.Policy) error {
	have, err := s.EKS.ListAccessEntries(stack.Cluster)
	if err != nil {
		return err
	}
	for _, t := range p.Tiers {
		if err := s.STS.PutRole(tierRole(t.Role)); err != nil {
			return err
		}
		groups := []string{t.Group}
		if slices.Contains(have, t.Role) {
			_, err = s.EKS.UpdateAccessEntry(stack.Cluster, t.Role, &groups, nil)
		} else {
			_, err = s.EKS.CreateAccessEntry(eks.AccessEntry{Cluster: stack.Cluster, PrincipalARN: t.Role, Groups: groups}, "")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
