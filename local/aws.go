package main

import (
	"context"
	"crypto/rand"
	"flag"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"sallyport/local/aws"
	"sallyport/local/aws/eks"
	"sallyport/local/aws/httpapi"
	"sallyport/local/aws/sts"
	"sallyport/local/inbox"
	"sallyport/local/stack"
	"sallyport/shared/access"
	"sallyport/shared/policy"
	"sallyport/shared/settings"
)

// serveAWS runs the local AWS: the functions with the roles and settings that the CDK app gives them, the HTTP API before
// function callback, and what Slack and mail are here.
func serveAWS(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve-aws", flag.ExitOnError)
	dir := flags.String("dir", "", "where its state is kept")
	file := flags.String("policy", "", "the policy file, whose tiers' roles can be assumed")
	issuer := flags.String("issuer", "", "the stack's issuer, which is filled in when the policy file changes")
	functions := flags.String("functions", "", "the folder of the functions' binaries")
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
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	// The pages and the inbox are two sites to a browser, as they and Slack are: a cookie or a form that would need them to be
	// one must fail here, too.
	pages, port, err := aws.Listen(0)
	if err != nil {
		return err
	}
	reviews := "http://localhost:" + strconv.Itoa(port)
	chat, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	slack := stack.Slack{SigningSecret: rand.Text() + rand.Text(), BotToken: "xoxb-local-" + rand.Text()}
	box := inbox.New(inbox.Config{URL: "http://" + chat.Addr().String(), ReviewsURL: reviews, SigningSecret: slack.SigningSecret, BotToken: slack.BotToken, Log: log.With("part", "inbox")})
	box.SetWorkspace(workspace(p))

	var roles []sts.Role
	for _, t := range p.Tiers {
		roles = append(roles, tierRole(t))
	}
	var clusters []eks.Cluster
	for _, c := range p.Clusters {
		clusters = append(clusters, eks.Cluster{Name: c.Name})
	}
	cfg := aws.Config{
		Dir: *dir, Python: os.Getenv("SALLYPORT_MOTO_PYTHON"), Region: stack.Region, AccountID: stack.Account, Roles: roles, Clusters: clusters, CredentialLifetime: *lifetime,
		Principals: stack.Principals(), Functions: stack.Functions(*functions, reviews, box.SlackURL()), Mail: box.Tap, Local: map[string]http.Handler{"/_local/{channel}/fault": box.Handler()},
		Log: log,
	}
	return aws.Serve(ctx, cfg, func(s *aws.Stack) {
		s.Serve("reviews", httpapi.New(httpapi.Config{Function: settings.CallbackFunction, Invoke: s.Lambda.Invoke, AccountID: stack.Account, Host: "localhost:" + strconv.Itoa(port), Log: log.With("part", "reviews")}), pages...)
		s.Serve("inbox", box.Handler(), chat)
		err := announce(*ready, stack.AWSReady{
			Endpoint: s.URL, WebhookKubeconfig: s.WebhookKubeconfig(stack.Cluster), PIDs: map[string]int{"moto": s.Moto.PID()}, ProxyEnvironment: stack.ProxyEnvironment(s.URL),
			Reviews: reviews, Inbox: "http://" + chat.Addr().String(), Slack: slack,
		})
		go stack.Watcher{File: *file, Endpoint: s.URL, Issuer: *issuer, Log: cfg.Log.With("part", "policy"),
			Before: func(p *policy.Policy) error {
				box.SetWorkspace(workspace(p))
				return makeTiers(s, p)
			}}.Run(ctx)
		if err != nil {
			cfg.Log.Error("cannot say that it is ready", "file", filepath.Base(*ready), "error", err)
		}
	})
}

// workspace is a Slack in which there is all that the policy names.
func workspace(p *policy.Policy) inbox.Workspace {
	w := inbox.Workspace{Channels: map[string]inbox.Channel{}, Users: map[string]string{}}
	for _, g := range p.Reviewers {
		if g.Slack == nil {
			continue
		}
		w.Channels[g.Slack.Channel] = inbox.Channel{Name: g.Name, Team: g.Slack.Team}
		maps.Copy(w.Users, g.Slack.Users)
	}
	return w
}

// tierRole is a tier's role as the CDK app makes it: function exchange alone may assume it, and must say for whom; one that is
// nobody's base tier also by which approval.
func tierRole(t access.Tier) sts.Role {
	trust := sts.Trust{
		Callers: []string{stack.ExchangeRole}, RequireTags: []string{settings.TagSession, settings.TagPrincipal, settings.TagTier},
		AllowTags: []string{settings.TagApproval}, AllowSourceIdentity: true, RequireSourceIdentity: true,
	}
	if len(t.Groups) == 0 {
		trust.RequireTags = append(trust.RequireTags, settings.TagApproval)
	}
	return sts.Role{ARN: t.Role, MaxSessionDuration: time.Hour, Trust: []sts.Trust{trust}}
}

// makeTiers makes the roles and access entries of the tiers that a policy has and the stack has not yet.
func makeTiers(s *aws.Stack, p *policy.Policy) error {
	have, err := s.EKS.ListAccessEntries(stack.Cluster)
	if err != nil {
		return err
	}
	for _, t := range p.Tiers {
		if err := s.STS.PutRole(tierRole(t)); err != nil {
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
