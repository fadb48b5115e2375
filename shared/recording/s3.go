package recording

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"iter"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"sallyport/shared/access"
)

// S3 is a [Store] in a bucket. It needs s3:PutObject and nothing else. Client should keep Config.Uploads idle
// connections a host: the SDK keeps 10, and the rest would be opened anew for every segment.
type S3 struct {
	Client *s3.Client
	Bucket string
}

// Put stores body under key unless key exists. It sends the body's SHA-256, which S3 verifies and keeps: buckets with
// Object Lock demand a checksum.
func (s S3) Put(ctx context.Context, key string, body []byte) error {
	sum := sha256.Sum256(body)
	_, err := s.Client.PutObject(ctx, &s3.PutObjectInput{
		Bucket:         &s.Bucket,
		Key:            &key,
		Body:           bytes.NewReader(body),
		ContentType:    aws.String("application/zstd"),
		IfNoneMatch:    aws.String("*"),
		ChecksumSHA256: aws.String(base64.StdEncoding.EncodeToString(sum[:])),
	}, func(o *s3.Options) {
		o.Retryer = aws.NopRetryer{} // Store.Put tries once
	})
	if err == nil {
		return nil
	}
	// 412 says that key exists. 409 says that another write of it is under way: nothing is known yet.
	if statusOf(err) == http.StatusPreconditionFailed {
		return access.Errorf(access.Conflict, "recording: %s exists already", key).Because(err)
	}
	return access.Errorf(access.Unavailable, "recording: storing %s in bucket %s", key, s.Bucket).Because(err)
}

// S3Archive is an [Archive] in a bucket. It needs s3:ListBucket and s3:GetObject.
type S3Archive struct {
	Client *s3.Client
	Bucket string
}

// List yields the keys with a prefix that sort after a key, in order.
func (s S3Archive) List(ctx context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		in := &s3.ListObjectsV2Input{Bucket: &s.Bucket, Prefix: &prefix}
		if after != "" {
			in.StartAfter = &after
		}
		pages := s3.NewListObjectsV2Paginator(s.Client, in)
		for pages.HasMorePages() {
			page, err := pages.NextPage(ctx)
			if err != nil {
				yield("", s.read("listing "+prefix, err))
				return
			}
			for _, o := range page.Contents {
				if !yield(aws.ToString(o.Key), nil) {
					return
				}
			}
		}
	}
}

// Get opens an object.
func (s S3Archive) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	out, err := s.Client.GetObject(ctx, &s3.GetObjectInput{Bucket: &s.Bucket, Key: &key})
	if err != nil {
		return nil, s.read("reading "+key, err)
	}
	return out.Body, nil
}

func (s S3Archive) read(what string, err error) error {
	kind := access.Unavailable
	switch statusOf(err) {
	case http.StatusNotFound:
		kind = access.NotFound
	case http.StatusForbidden, http.StatusUnauthorized:
		kind = access.Denied
	}
	return access.Errorf(kind, "recording: %s in bucket %s: %w", what, s.Bucket, err)
}

// statusOf is the HTTP status behind an error of the SDK, and 0 when there was no answer.
func statusOf(err error) int {
	var re *smithyhttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}
