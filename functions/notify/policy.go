package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"

	"github.com/aws/aws-lambda-go/events"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport/shared/access"
	"sallyport/shared/mail"
	"sallyport/shared/policy"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
	"sallyport/shared/slack"
	"sallyport/shared/view"
)

const (
	maxBack  = 20 // versions that are looked at for the one that was in force before
	mostSaid = 30 // changes that are named one by one
)

// history reads versions of the policy file.
type history interface {
	// Read is the bytes of a version.
	Read(ctx context.Context, version string) ([]byte, error)
	// Versions are the ids of the versions there are, newest first.
	Versions(ctx context.Context) ([]string, error)
}

// files is the policy bucket. It needs s3:GetObjectVersion and s3:ListBucketVersions.
type files struct {
	client *s3.Client
	bucket string
}

// Read is the bytes of a version.
func (f files) Read(ctx context.Context, version string) ([]byte, error) {
	out, err := f.client.GetObject(ctx, &s3.GetObjectInput{Bucket: &f.bucket, Key: aws.String(settings.PolicyCurrent), VersionId: &version})
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "version %s of the policy cannot be read", version).Because(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, policystore.MaxPolicy+1))
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "version %s of the policy cannot be read", version).Because(err)
	}
	return b, nil
}

// Versions are the ids of the versions there are, newest first.
func (f files) Versions(ctx context.Context) ([]string, error) {
	out, err := f.client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &f.bucket, Prefix: aws.String(settings.PolicyCurrent)})
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "the versions of the policy cannot be listed").Because(err)
	}
	var ids []string
	for _, v := range out.Versions {
		if aws.ToString(v.Key) == settings.PolicyCurrent { // the prefix of other keys too
			ids = append(ids, aws.ToString(v.VersionId))
		}
	}
	return ids, nil
}

// policyChanged tells every reviewer that the policy was changed: who could change it could else let through what they like
// and nobody would know. Those of the policy before are told too, for who changed it may have taken them out. An error has
// S3's event sent again, and nobody is told twice.
func (n *notifier) policyChanged(ctx context.Context, records []events.S3EventRecord) error {
	var failed []error
	for _, r := range records {
		if key := or(r.S3.Object.URLDecodedKey, r.S3.Object.Key); r.S3.Bucket.Name != n.bucket || key != settings.PolicyCurrent {
			n.log.WarnContext(ctx, "an event of something else than the policy", "bucket", r.S3.Bucket.Name, "key", key)
			continue
		}
		failed = append(failed, n.announce(ctx, r))
	}
	return errors.Join(failed...)
}

// loaded is a version of the policy.
type loaded struct {
	version, digest string
	policy          *policy.Policy // nil when it does not load
	err             error          // why not
}

func (n *notifier) load(ctx context.Context, version string) (loaded, error) {
	b, err := n.files.Read(ctx, version)
	if err != nil {
		return loaded{}, err
	}
	if len(b) > policystore.MaxPolicy {
		return loaded{version: version, digest: "unknown", err: fmt.Errorf("it is larger than %d bytes", policystore.MaxPolicy)}, nil
	}
	sum := sha256.Sum256(b)
	l := loaded{version: version, digest: hex.EncodeToString(sum[:])}
	l.policy, l.err = policy.Load(settings.PolicyCurrent, b)
	return l, nil
}

func (n *notifier) announce(ctx context.Context, r events.S3EventRecord) error {
	version := r.S3.Object.VersionID
	removed := strings.HasPrefix(strings.TrimPrefix(r.EventName, "s3:"), "ObjectRemoved")
	ids, err := n.files.Versions(ctx)
	if err != nil {
		return err
	}
	at := slices.Index(ids, version)
	var now loaded
	if !removed {
		if version == "" && len(ids) > 0 {
			version, at = ids[0], 0
		}
		if now, err = n.load(ctx, version); err != nil {
			return err
		}
	}
	before, err := n.before(ctx, ids[at+1:])
	if err != nil {
		return err
	}
	title, said := announcement(now, before, removed, at > 0)
	if who := r.PrincipalID.PrincipalID; who != "" {
		said = append(said, "AWS names "+who+" as who did it; CloudTrail knows more.")
	}
	said = append(said, "If you did not expect this, ask who runs the gate: who can write s3://"+n.bucket+"/"+settings.PolicyCurrent+" decides what agents may do.")
	for i := range said {
		said[i] = view.Visible(said[i])
	}
	n.log.InfoContext(ctx, "the policy changed", "version", version, "digest", now.digest, "loads", now.policy != nil, "removed", removed, "before", before.digest)
	return n.tell(ctx, "policy-"+or(version, r.S3.Object.Sequencer), title, said, now.policy, before.policy)
}

// before is the newest of the versions that loads.
func (n *notifier) before(ctx context.Context, ids []string) (loaded, error) {
	for _, id := range ids[:min(len(ids), maxBack)] {
		l, err := n.load(ctx, id)
		if err != nil || l.policy != nil {
			return l, err
		}
	}
	return loaded{}, nil
}

// announcement is what is said of a change.
func announcement(now, before loaded, removed, old bool) (title string, said []string) {
	switch {
	case removed:
		return "The policy was deleted", []string{"What was in force stays in force" + of(before) + ". Put a policy there again."}
	case now.policy == nil:
		return "A policy was put that does not load", []string{
			fmt.Sprintf("Version %s, digest %s.", now.version, now.digest),
			"It does not load, so what was in force stays in force" + of(before) + ".",
			"Why: " + now.err.Error(),
		}
	}
	title = "The policy changed"
	said = []string{fmt.Sprintf("Version %s, digest %s. It loads.", now.version, now.digest)}
	if old {
		said = append(said, "A newer version was put since.")
	}
	if before.policy == nil {
		return title, append(said, fmt.Sprintf("There was none before that loads. It has %d rules.", len(now.policy.Rules)))
	}
	if changes := compare(before.policy, now.policy); len(changes) > 0 {
		if more := len(changes) - mostSaid; more > 0 {
			changes = append(changes[:mostSaid], fmt.Sprintf("and %d more", more))
		}
		return title, append(said, "Against version "+before.version+":\n"+strings.Join(changes, "\n"))
	}
	return title, append(said, "Against version "+before.version+" it changes nothing but words.")
}

func of(before loaded) string {
	if before.policy == nil {
		return ""
	}
	return fmt.Sprintf(": version %s, digest %s", before.version, before.digest)
}

// compare says what one policy has that the other has not, each in a line.
func compare(old, now *policy.Policy) []string {
	var out []string
	rules := func(p *policy.Policy) map[string]policy.Rule {
		m := map[string]policy.Rule{}
		for _, r := range p.Rules {
			r.Line = 0 // moved is not changed
			m[r.Name] = r
		}
		return m
	}
	was, is := rules(old), rules(now)
	for _, r := range now.Rules {
		o, there := was[r.Name]
		switch {
		case !there:
			out = append(out, fmt.Sprintf("+ rule %s, which says %s", r.Name, r.Effect))
		case o.Effect != r.Effect:
			out = append(out, fmt.Sprintf("~ rule %s, which said %s and says %s", r.Name, o.Effect, r.Effect))
		case !reflect.DeepEqual(o, is[r.Name]):
			out = append(out, fmt.Sprintf("~ rule %s, which says %s", r.Name, r.Effect))
		}
	}
	for _, r := range old.Rules {
		if _, there := is[r.Name]; !there {
			out = append(out, fmt.Sprintf("- rule %s, which said %s", r.Name, r.Effect))
		}
	}
	for _, part := range []struct {
		name     string
		old, now any
	}{
		{"the gate's audience", old.Audience, now.Audience}, {"issuers of agents", old.Issuers, now.Issuers}, {"clusters", old.Clusters, now.Clusters},
		{"tiers", old.Tiers, now.Tiers}, {"sessions", old.Sessions, now.Sessions}, {"reviewers", old.Reviewers, now.Reviewers},
	} {
		if !reflect.DeepEqual(part.old, part.now) {
			out = append(out, "~ "+part.name)
		}
	}
	if !old.Masking.Same(now.Masking) {
		out = append(out, "~ masking, which is what agents are not shown")
	}
	if old.Observe != now.Observe {
		out = append(out, map[bool]string{true: "~ it observes only: nothing it denies is denied any more", false: "~ it is enforced, and no longer only observed"}[now.Observe])
	}
	return out
}

// tell tells the reviewers of all the policies.
func (n *notifier) tell(ctx context.Context, id, title string, said []string, all ...*policy.Policy) error {
	var groups []policy.ReviewerGroup
	for _, p := range all {
		if p != nil {
			groups = append(groups, p.Reviewers...)
		}
	}
	sent, err := n.approvals.Sent(ctx, id)
	if err != nil {
		return err
	}
	var jobs []job
	add := func(j job) {
		if _, done := sent[j.key]; done || slices.ContainsFunc(jobs, func(o job) bool { return o.key == j.key }) {
			return
		}
		jobs = append(jobs, j)
	}
	if n.chat != nil {
		m := slack.Announce(title, said...)
		for _, c := range channels(groups) {
			add(job{by: "slack " + c.id, key: "slack:" + c.id, run: func(ctx context.Context) (ref string, err error) {
				err = n.chat.call(ctx, func(s *slack.Client) error {
					ref, err = s.Post(ctx, c.id, m)
					return err
				})
				return ref, err
			}})
		}
	}
	if n.post != nil {
		for _, g := range groups {
			for _, to := range g.People {
				to := strings.ToLower(strings.TrimSpace(to))
				add(job{by: "mail", text: to, key: "mail:" + to, run: func(ctx context.Context) (string, error) {
					return n.post.Send(ctx, mail.Announce(to, "Sallyport: "+title, said...))
				}})
			}
		}
	}
	if len(jobs) == 0 && len(sent) == 0 {
		return access.Errorf(access.Unavailable, "nobody could be told of the policy: set %s or %s", slack.Setting, mail.Setting)
	}
	var failed []error
	for _, r := range n.send(ctx, access.Approval{ID: id, Notified: n.now()}, jobs) {
		if r.err != nil {
			failed = append(failed, fmt.Errorf("%s: %s", r.by, sentence(r.err)))
		}
	}
	if len(failed) > 0 {
		return access.Errorf(access.Unavailable, "not everybody was told of the policy: %v", errors.Join(failed...))
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
