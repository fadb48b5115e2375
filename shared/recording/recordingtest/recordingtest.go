// Package recordingtest has a bucket in memory for tests of recordings: it is a recording.Store, a recording.Archive and
// an S3 endpoint over HTTP, as strict as S3 where recordings rely on it.
package recordingtest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/xml"
	"fmt"
	"io"
	"iter"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"sallyport/shared/access"
)

// A Bucket is for many goroutines at once. Its zero value is an empty bucket with S3's page size.
type Bucket struct {
	// Name is the bucket's name over HTTP.
	Name string
	// PageSize bounds the keys in a page of a listing; 1000 by default.
	PageSize int
	// BeforePut, when set, is called before an object is stored; its error is Put's, and 503 over HTTP.
	BeforePut func(ctx context.Context, key string) error
	// AfterPut, when set, is called after an object is stored; its error is Put's, as when an answer is lost.
	AfterPut func(ctx context.Context, key string) error

	mu      sync.Mutex
	objects map[string][]byte
	puts    int
}

// Put stores body under key unless key exists.
func (b *Bucket) Put(ctx context.Context, key string, body []byte) error {
	if b.BeforePut != nil {
		if err := b.BeforePut(ctx, key); err != nil {
			return err
		}
	}
	if !b.put(key, body) {
		return access.Errorf(access.Conflict, "%s exists", key)
	}
	if b.AfterPut != nil {
		return b.AfterPut(ctx, key)
	}
	return nil
}

func (b *Bucket) put(key string, body []byte) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.puts++
	if _, exists := b.objects[key]; exists {
		return false
	}
	if b.objects == nil {
		b.objects = map[string][]byte{}
	}
	b.objects[key] = bytes.Clone(body)
	return true
}

// Set stores body under key whatever was there: the test's own hand, not a Store's.
func (b *Bucket) Set(key string, body []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.objects == nil {
		b.objects = map[string][]byte{}
	}
	b.objects[key] = bytes.Clone(body)
}

// Puts is how often something was put, in vain or not.
func (b *Bucket) Puts() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.puts
}

// Keys are the keys there are, in order.
func (b *Bucket) Keys() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.objects))
}

// List yields the keys with a prefix that sort after a key, in order.
func (b *Bucket) List(_ context.Context, prefix, after string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for _, k := range b.Keys() {
			if strings.HasPrefix(k, prefix) && k > after && !yield(k, nil) {
				return
			}
		}
	}
}

// Get opens an object.
func (b *Bucket) Get(_ context.Context, key string) (io.ReadCloser, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	body, ok := b.objects[key]
	if !ok {
		return nil, access.Errorf(access.NotFound, "%s does not exist", key)
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

// ServeHTTP answers PutObject, GetObject and ListObjectsV2 in path style. It refuses what S3 would refuse and, besides,
// puts without If-None-Match, without a checksum, and requests without a signature.
func (b *Bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 Credential="):
		s3Error(w, http.StatusForbidden, "AccessDenied", "the request is not signed")
	case bucket != b.Name:
		s3Error(w, http.StatusNotFound, "NoSuchBucket", "The specified bucket does not exist")
	case r.Method == http.MethodGet && key == "" && r.URL.Query().Get("list-type") == "2":
		b.serveList(w, r)
	case r.Method == http.MethodGet && key != "":
		body, err := b.Get(r.Context(), key)
		if err != nil {
			s3Error(w, http.StatusNotFound, "NoSuchKey", "The specified key does not exist.")
			return
		}
		_, _ = io.Copy(w, body) // the client sees what is missing
	case r.Method == http.MethodPut && key != "":
		b.servePut(w, r, key)
	default:
		s3Error(w, http.StatusMethodNotAllowed, "MethodNotAllowed", "not in this bucket")
	}
}

func (b *Bucket) servePut(w http.ResponseWriter, r *http.Request, key string) {
	body, err := io.ReadAll(r.Body)
	sum := sha256.Sum256(body)
	switch {
	case err != nil:
		s3Error(w, http.StatusBadRequest, "IncompleteBody", err.Error())
	case r.Header.Get("If-None-Match") != "*":
		s3Error(w, http.StatusForbidden, "AccessDenied", "this bucket takes only conditional writes")
	case r.Header.Get("X-Amz-Checksum-Sha256") != base64.StdEncoding.EncodeToString(sum[:]):
		s3Error(w, http.StatusBadRequest, "BadDigest", "the checksum is missing or not the body's")
	case b.BeforePut != nil && b.BeforePut(r.Context(), key) != nil:
		s3Error(w, http.StatusServiceUnavailable, "SlowDown", "Please reduce your request rate.")
	case !b.put(key, body):
		s3Error(w, http.StatusPreconditionFailed, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold")
	case b.AfterPut != nil && b.AfterPut(r.Context(), key) != nil:
		s3Error(w, http.StatusInternalServerError, "InternalError", "We encountered an internal error. Please try again.")
	}
}

func (b *Bucket) serveList(w http.ResponseWriter, r *http.Request) {
	type object struct {
		Key  string
		Size int
	}
	var page struct {
		XMLName               xml.Name `xml:"http://s3.amazonaws.com/doc/2006-03-01/ ListBucketResult"`
		Name, Prefix          string
		KeyCount, MaxKeys     int
		IsTruncated           bool
		NextContinuationToken string   `xml:",omitempty"`
		Contents              []object `xml:",omitempty"`
	}
	q := r.URL.Query()
	page.Name, page.Prefix, page.MaxKeys = b.Name, q.Get("prefix"), 1000
	if b.PageSize > 0 {
		page.MaxKeys = b.PageSize
	}
	if n, err := strconv.Atoi(q.Get("max-keys")); err == nil {
		page.MaxKeys = min(page.MaxKeys, n)
	}
	after := q.Get("start-after")
	if token := q.Get("continuation-token"); token != "" {
		raw, err := base64.StdEncoding.DecodeString(token)
		if err != nil {
			s3Error(w, http.StatusBadRequest, "InvalidArgument", "The continuation token provided is incorrect")
			return
		}
		after = string(raw)
	}
	for key, err := range b.List(r.Context(), page.Prefix, after) {
		if err != nil {
			s3Error(w, http.StatusInternalServerError, "InternalError", err.Error())
			return
		}
		if len(page.Contents) == page.MaxKeys {
			page.IsTruncated = true
			page.NextContinuationToken = base64.StdEncoding.EncodeToString([]byte(page.Contents[page.MaxKeys-1].Key))
			break
		}
		page.Contents = append(page.Contents, object{Key: key})
	}
	page.KeyCount = len(page.Contents)
	w.Header().Set("Content-Type", "application/xml")
	_, _ = io.WriteString(w, xml.Header)
	_ = xml.NewEncoder(w).Encode(page)
}

func s3Error(w http.ResponseWriter, status int, code, message string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "%s<Error><Code>%s</Code><Message>%s</Message></Error>", xml.Header, code, message)
}
