// Package credential answers "with which key?": the broker's half assumes a tier's role for one session, the proxy's
// half turns that credential into an EKS token in memory.
//
// What is promised: a credential names the agent to AWS and to the cluster (role session name, SourceIdentity, session
// tags), so CloudTrail and the cluster's audit log name it too; a token is good for one cluster only, because the
// cluster's name is signed into it; neither is ever printed, logged or marshalled. What is not: whoever reads the proxy's
// memory has the credentials of the sessions in it until they end, an hour at the most.
package credential

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/aws-sdk-go-v2/service/sts/types"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// unsafeInName is what a role session name may not hold ([\w+=,.@-]), and @, which the cluster would show as a hyphen.
var unsafeInName = regexp.MustCompile(`[^A-Za-z0-9_.-]+`)

// Name is the role session name and SourceIdentity of a principal: the agent's name, made safe and short, and a hash
// of issuer and subject, so that two agents never share a name whatever they call themselves.
func Name(who access.Principal) string {
	name := strings.Trim(unsafeInName.ReplaceAllString(who.Agent, "-"), "-.")
	if len(name) > 50 {
		name = name[:50]
	}
	if name == "" {
		name = "agent"
	}
	return name + "-" + access.Digest(who.Issuer, who.Subject)[:12]
}

// Roles assumes tiers' roles. It is safe for concurrent use.
type Roles struct {
	STS *sts.Client
}

// Shortest is the least lifetime AWS gives a credential.
const Shortest = 15 * time.Minute

// Assume returns a credential of the tier for the session, tagged with the approval it is minted for unless that is empty:
// the roles of tiers that are nobody's base tier want that tag. lifetime is asked for within what AWS allows: no less than
// Shortest and, as the broker's own role is assumed already, no more than an hour.
func (r Roles) Assume(ctx context.Context, tier access.Tier, s access.Session, approval string, lifetime time.Duration) (access.Credential, error) {
	lifetime = min(max(lifetime, Shortest), time.Hour)
	tags := []types.Tag{
		{Key: aws.String(settings.TagSession), Value: aws.String(s.ID)},
		{Key: aws.String(settings.TagPrincipal), Value: aws.String(s.Principal.Key())},
		{Key: aws.String(settings.TagTier), Value: aws.String(tier.Name)},
	}
	if approval != "" {
		tags = append(tags, types.Tag{Key: aws.String(settings.TagApproval), Value: aws.String(approval)})
	}
	out, err := r.STS.AssumeRole(ctx, &sts.AssumeRoleInput{
		RoleArn:         &tier.Role,
		RoleSessionName: &s.Name,
		SourceIdentity:  &s.Name,
		DurationSeconds: aws.Int32(int32(lifetime / time.Second)),
		Tags:            tags,
	})
	if err != nil {
		return access.Credential{}, access.Errorf(access.Unavailable, "the broker cannot assume tier %q's role now; nothing was forwarded, ask again", tier.Name).
			Because(fmt.Errorf("assuming role for tier %q: %w", tier.Name, err)).After(2 * time.Second)
	}
	c := out.Credentials
	return access.Credential{AccessKeyID: *c.AccessKeyId, SecretAccessKey: *c.SecretAccessKey, SessionToken: *c.SessionToken, Expires: *c.Expiration}, nil
}

// TokenLife is how long EKS takes a token for good, whatever it says itself.
// https://docs.aws.amazon.com/eks/latest/best-practices/identity-and-access-management.html
const TokenLife = 15 * time.Minute

// emptyBody is the SHA-256 of nothing: a presigned GET has no body.
const emptyBody = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// Token mints an EKS token for cluster: GetCallerIdentity at the cluster's regional STS, presigned with the
// credential, the cluster's name signed in as x-k8s-aws-id. Nothing is sent anywhere.
// https://github.com/kubernetes-sigs/aws-iam-authenticator#api-authorization-from-outside-a-cluster
func Token(ctx context.Context, c access.Credential, cluster access.Cluster, now time.Time) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"https://sts."+cluster.Region+"."+suffix(cluster.Region)+"/?Action=GetCallerIdentity&Version=2011-06-15&X-Amz-Expires=60", nil)
	if err != nil {
		return "", fmt.Errorf("minting a token for cluster %q: %w", cluster.Name, err)
	}
	req.Header.Set("x-k8s-aws-id", cluster.Name)
	signed, _, err := v4.NewSigner().PresignHTTP(ctx, aws.Credentials{AccessKeyID: c.AccessKeyID, SecretAccessKey: c.SecretAccessKey, SessionToken: c.SessionToken},
		req, emptyBody, "sts", cluster.Region, now)
	if err != nil {
		return "", fmt.Errorf("minting a token for cluster %q: %w", cluster.Name, err)
	}
	return "k8s-aws-v1." + base64.RawURLEncoding.EncodeToString([]byte(signed)), nil
}

// suffix is the DNS suffix of a region's partition.
func suffix(region string) string {
	if strings.HasPrefix(region, "cn-") {
		return "amazonaws.com.cn"
	}
	return "amazonaws.com"
}
