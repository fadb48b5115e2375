package stack

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	lambdatypes "github.com/aws/aws-sdk-go-v2/service/lambda/types"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport/shared/policy"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

// putPolicy puts a policy where the CDK app does: under its digest, and as the newest version of the policy in force.
func putPolicy(ctx context.Context, endpoint string, file []byte) (digest, version string, err error) {
	files := s3.NewFromConfig(DeployerConfig(endpoint), policystore.PathStyle)
	sum := sha256.Sum256(file)
	digest = hex.EncodeToString(sum[:])
	for _, key := range []string{settings.PolicyKey(digest), settings.PolicyCurrent} {
		out, err := files.PutObject(ctx, &s3.PutObjectInput{Bucket: aws.String(PolicyBucket), Key: &key, Body: bytes.NewReader(file),
			ContentType: aws.String("application/yaml"), ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:]))})
		if err != nil {
			return "", "", fmt.Errorf("putting the policy at %s: %w", key, err)
		}
		version = aws.ToString(out.VersionId)
	}
	return digest, version, nil
}

// A Watcher deploys the stack's policy file whenever it changes, as cdk deploy would: with the deployer's credentials, and
// as it is, whether or not it is a policy. To refuse what is none is the broker's work.
type Watcher struct {
	File     string
	Endpoint string // of AWS
	Issuer   string // the stack's
	// Before is called with a policy that loads before it is put: what it speaks of, the tiers' roles and access entries,
	// must be there when it takes effect.
	Before func(*policy.Policy) error
	Log    *slog.Logger
}

// Run watches until ctx ends. What the file holds when it begins was put by whoever started the stack.
func (w Watcher) Run(ctx context.Context) {
	put, _ := os.ReadFile(w.File)
	last, said := put, ""
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		file, err := os.ReadFile(w.File)
		if err != nil { // between two names of an editor, or the stack is going down
			continue
		}
		settled := bytes.Equal(file, last) // or it is still being written
		last = file
		if !settled || bytes.Equal(file, put) {
			continue
		}
		if err := w.deploy(ctx, file); err != nil {
			if err.Error() != said { // it is tried again until it can be
				w.Log.Error("the policy file changed, and cannot be deployed", "file", filepath.Base(w.File), "error", err)
			}
			said = err.Error()
			continue
		}
		put, said = file, ""
	}
}

func (w Watcher) deploy(ctx context.Context, file []byte) error {
	filled, err := fill(file, w.Issuer, Cluster)
	if err != nil {
		filled = file // no YAML: the broker will say where
	}
	if p, err := policy.Load(filepath.Base(w.File), filled); err != nil {
		w.Log.Warn("the policy file changed, and does not load; the broker will refuse it too", "file", filepath.Base(w.File), "error", err)
	} else if err := w.Before(p); err != nil {
		return err
	}
	digest, version, err := putPolicy(ctx, w.Endpoint, filled)
	if err != nil {
		return err
	}
	if err := w.announce(ctx, version); err != nil {
		// It is in force all the same: S3 does not take a put back because nobody heard of it.
		w.Log.Warn("function notify cannot be told of the new policy", "error", err)
	}
	w.Log.Info("the policy file changed, and was deployed", "file", filepath.Base(w.File), "digest", digest, "version", version, "filled", !bytes.Equal(file, filled))
	return nil
}

// announce invokes function notify with the event that the CDK app's rule makes of S3's.
func (w Watcher) announce(ctx context.Context, version string) error {
	now := time.Now().UTC()
	event, err := json.Marshal(map[string]any{"Records": []any{map[string]any{
		"eventSource": "aws:s3", "eventName": "ObjectCreated", "eventTime": now.Format(time.RFC3339), "userIdentity": map[string]any{"principalId": Account},
		"s3": map[string]any{"bucket": map[string]any{"name": PolicyBucket},
			"object": map[string]any{"key": settings.PolicyCurrent, "versionId": version, "sequencer": fmt.Sprintf("%016X", now.UnixNano())}},
	}}})
	if err != nil {
		return err
	}
	_, err = lambda.NewFromConfig(DeployerConfig(w.Endpoint)).Invoke(ctx, &lambda.InvokeInput{FunctionName: aws.String(settings.NotifyFunction),
		InvocationType: lambdatypes.InvocationTypeEvent, Payload: event})
	return err
}

// SetPolicy makes a file the running stack's policy file, filled in like the one the stack started with; the stack
// deploys it within a second or two. A file that is no policy is refused, with the lines it was written with.
func (s *Stack) SetPolicy(name string) error {
	d, err := s.Describe()
	if err != nil || !s.Running() {
		return errors.Join(errors.New("the stack is not up; make up starts it"), err)
	}
	filled, err := s.filled(name, nil, d.Issuer.URL)
	if err != nil {
		return err
	}
	if err := writeFile(d.Policy.File, filled); err != nil {
		return err
	}
	sum := sha256.Sum256(filled)
	fmt.Fprintf(s.Out, "%s is the stack's policy file now, with this stack's issuer, cluster and roles filled in.\n  file    %s\n  digest  %s\nIt is deployed within two seconds and decides within 30, on sessions and streams that are open too.\n",
		s.name(name), s.rel(d.Policy.File), hex.EncodeToString(sum[:]))
	return nil
}

// filled is a policy file filled in, and sure to load. Without a name it is the default policy, the one that is deployed to
// AWS; without its bytes they are read.
func (s *Stack) filled(name string, file []byte, issuer string) ([]byte, error) {
	into := fill
	if name == "" {
		name, into = s.DefaultPolicy(), adopt
	}
	if file == nil {
		var err error
		if file, err = os.ReadFile(name); err != nil {
			return nil, err
		}
	}
	filled, err := into(file, issuer, Cluster)
	if err != nil {
		return nil, fmt.Errorf("policy %s: %w", name, err)
	}
	if _, err := policy.Load(name, filled); err != nil {
		return nil, inOriginal(file, filled, err)
	}
	return filled, nil
}

func (s *Stack) name(name string) string {
	if name == "" {
		return s.rel(s.DefaultPolicy())
	}
	return name
}

// rel is a path as somebody in the checkout would write it.
func (s *Stack) rel(p string) string {
	if r, err := filepath.Rel(s.Root, p); err == nil {
		return r
	}
	return p
}
