// Package policystore reads the policy from its home: a versioned bucket that only the deploy role writes.
//
// In force is the newest version of one object, [settings.PolicyCurrent], that loads. The broker finds it ([Follow]) and
// tells the proxies its version and digest; they read that version and hold its bytes against the digest, so that broker
// and proxies decide by the same bytes or by none. Whoever can write the bucket can change the policy, within seconds and
// on everything that runs: that is the deploy role's alone, and what it wrote stays in the bucket as a version.
//
// A version that does not load changes nothing: what was in force stays, and a process that starts then walks back
// through the versions to the newest that loads. Deleting the object puts no other policy in force either.
package policystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// MaxPolicy is the size in bytes past which a policy is refused unread.
const MaxPolicy = 1 << 20

// PathStyle is how S3 clients are set up: it addresses buckets by path when an endpoint is set in the environment, where bucket host names do not resolve.
func PathStyle(o *s3.Options) {
	o.UsePathStyle = o.BaseEndpoint != nil
	o.DisableLogOutputChecksumValidationSkipped = true // what is read is held against its own digest
}

// A Store is the policy bucket. It needs s3:GetObject and s3:GetObjectVersion, and s3:ListBucketVersions for [Follow]. It is
// safe for concurrent use.
type Store struct {
	Client *s3.Client
	Bucket string
}

// A File is one version of the policy file.
type File struct {
	Bytes   []byte
	Version string // S3's id
	Digest  string // lower-case hex SHA-256 of Bytes

	etag  string
	large bool // Bytes are not all of it
}

// Version reads one version, and refuses it when its bytes are not those of the digest. Errors are of kind unavailable
// when it could not be read, and invalid when it is not what it should be.
func (s Store) Version(ctx context.Context, version, digest string) (File, error) {
	f, err := s.get(ctx, &s3.GetObjectInput{VersionId: &version})
	if err != nil {
		return File{}, err
	}
	if f.Digest != digest {
		return File{}, access.Errorf(access.Invalid, "version %s of policy %s is not the one that is in force: its bytes have digest %s, not %s", version, s.name(), f.Digest, digest)
	}
	return f, nil
}

// get reads a version of the object, the newest unless in names one.
func (s Store) get(ctx context.Context, in *s3.GetObjectInput) (File, error) {
	in.Bucket, in.Key = &s.Bucket, aws.String(settings.PolicyCurrent)
	if aws.ToString(in.VersionId) == "" {
		in.VersionId = nil
	}
	fail := func(err error) (File, error) {
		return File{}, access.Errorf(access.Unavailable, "policy %s cannot be read", s.name()).Because(err)
	}
	out, err := s.Client.GetObject(ctx, in)
	if err != nil {
		return fail(err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, MaxPolicy+1))
	if err != nil {
		return fail(err)
	}
	sum := sha256.Sum256(b)
	return File{Bytes: b, Version: aws.ToString(out.VersionId), Digest: hex.EncodeToString(sum[:]), etag: aws.ToString(out.ETag), large: len(b) > MaxPolicy}, nil
}

// versions are the ids of the newest versions, newest first. Deletions are not among them.
func (s Store) versions(ctx context.Context) ([]string, error) {
	out, err := s.Client.ListObjectVersions(ctx, &s3.ListObjectVersionsInput{Bucket: &s.Bucket, Prefix: aws.String(settings.PolicyCurrent)})
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "the versions of policy %s cannot be listed", s.name()).Because(err)
	}
	var ids []string
	for _, v := range out.Versions {
		if aws.ToString(v.Key) == settings.PolicyCurrent { // the prefix of other keys too
			ids = append(ids, aws.ToString(v.VersionId))
		}
	}
	return ids, nil
}

func (s Store) name() string { return fmt.Sprintf("s3://%s/%s", s.Bucket, settings.PolicyCurrent) }

// statusOf is the HTTP status behind an error of the SDK, and 0 when there was no answer.
func statusOf(err error) int {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// gone says whether the object is not there. Who may not list the bucket is told 403 instead of 404.
func gone(err error) bool {
	code := statusOf(err)
	return code == http.StatusNotFound || code == http.StatusForbidden
}
