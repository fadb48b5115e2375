// Package policystore reads policies from their home: a versioned bucket that only the deploy role writes, each policy
// under the digest of its bytes.
//
// What is read is held against the digest that was asked for, so whoever can write the bucket cannot change what a
// running function or proxy obeys: they would have to change its settings too.
package policystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// maxPolicy is the largest policy file that is read.
const maxPolicy = 1 << 20

// PathStyle is how S3 clients are set up: it addresses buckets by path when an endpoint is set in the environment, where bucket host names do not resolve.
func PathStyle(o *s3.Options) {
	o.UsePathStyle = o.BaseEndpoint != nil
	o.DisableLogOutputChecksumValidationSkipped = true // what is read is held against its own digest
}

// Read returns the policy file with that digest.
func Read(ctx context.Context, client *s3.Client, bucket, digest string) ([]byte, error) {
	key := settings.PolicyKey(digest)
	out, err := client.GetObject(ctx, &s3.GetObjectInput{Bucket: aws.String(bucket), Key: aws.String(key)})
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "reading policy s3://%s/%s: %w", bucket, key, err)
	}
	defer out.Body.Close()
	b, err := io.ReadAll(io.LimitReader(out.Body, maxPolicy+1))
	if err != nil {
		return nil, access.Errorf(access.Unavailable, "reading policy s3://%s/%s: %w", bucket, key, err)
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != digest {
		return nil, &access.Error{Kind: access.Invalid, Message: fmt.Sprintf("policy s3://%s/%s is not the policy that was deployed: its bytes have another digest", bucket, key)}
	}
	return b, nil
}
