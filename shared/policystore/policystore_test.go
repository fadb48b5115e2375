package policystore_test

import (
	"bytes"
	"context"
	"crypto/md5" // what S3's ETags are
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/policystore"
	"sallyport/shared/settings"
)

// bucket is a versioned S3 bucket that holds one object, and answers nothing but what a Store may ask.
type bucket struct {
	t *testing.T

	mu       sync.Mutex
	versions []version // oldest first
	asked    []string
	status   int // when not zero, every answer is this
}

type version struct {
	id   string
	body []byte // nil is a delete marker
}

func (b *bucket) put(body string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.versions = append(b.versions, version{fmt.Sprint("v", len(b.versions)+1), []byte(body)})
}

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	q := r.URL.Query()
	q.Del("x-id")
	switch {
	case b.status != 0:
		w.WriteHeader(b.status)
	case r.Method == http.MethodGet && r.URL.Path == "/policies/"+settings.PolicyCurrent && (len(q) == 0 || len(q) == 1 && q.Has("versionId")):
		b.asked = append(b.asked, strings.TrimSpace("get "+q.Get("versionId")))
		i := len(b.versions) - 1
		if q.Has("versionId") {
			i = slices.IndexFunc(b.versions, func(v version) bool { return v.id == q.Get("versionId") })
		}
		if i < 0 || b.versions[i].body == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		etag := fmt.Sprintf(`"%x"`, md5.Sum(b.versions[i].body))
		w.Header().Set("Etag", etag)
		w.Header().Set("X-Amz-Version-Id", b.versions[i].id)
		if r.Header.Get("If-None-Match") == etag {
			b.asked[len(b.asked)-1] += " unchanged"
			w.WriteHeader(http.StatusNotModified)
			return
		}
		_, _ = w.Write(b.versions[i].body)
	case r.Method == http.MethodGet && strings.Trim(r.URL.Path, "/") == "policies" && q.Has("versions") && q.Get("prefix") == settings.PolicyCurrent && len(q) == 2:
		b.asked = append(b.asked, "list")
		fmt.Fprint(w, `<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">`)
		for i := len(b.versions) - 1; i >= 0; i-- {
			kind := "Version"
			if b.versions[i].body == nil {
				kind = "DeleteMarker"
			}
			fmt.Fprintf(w, "<%s><Key>%s</Key><VersionId>%s</VersionId><IsLatest>%v</IsLatest></%s>", kind, settings.PolicyCurrent, b.versions[i].id, i == len(b.versions)-1, kind)
		}
		fmt.Fprintf(w, "<Version><Key>%s.bak</Key><VersionId>other</VersionId></Version></ListVersionsResult>", settings.PolicyCurrent)
	default:
		b.t.Errorf("the store asked %s %s", r.Method, r.URL)
		w.WriteHeader(http.StatusBadRequest)
	}
}

func newStore(t *testing.T) (*bucket, policystore.Store) {
	t.Helper()
	b := &bucket{t: t}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	client := s3.New(s3.Options{Region: "eu-west-1", BaseEndpoint: aws.String(server.URL), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", "")}, policystore.PathStyle)
	return b, policystore.Store{Client: client, Bucket: "policies"}
}

// load takes what begins with good.
func load(_ string, b []byte) error {
	if !bytes.HasPrefix(b, []byte("good")) {
		return fmt.Errorf("line 1: %s is not good", b)
	}
	return nil
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// Each step puts versions, "" for a deletion, and then one look is taken.
func TestFollow(t *testing.T) {
	type step struct {
		put     []string
		want    string // in force; empty for none
		refused string // the version that is refused and why, in part
	}
	for name, steps := range map[string][]step{
		"good to good":               {{[]string{"good 1"}, "v1", ""}, {nil, "v1", ""}, {[]string{"good 2"}, "v2", ""}, {nil, "v2", ""}},
		"two at once":                {{[]string{"good 1"}, "v1", ""}, {[]string{"good 2", "good 3"}, "v3", ""}},
		"good to bad keeps":          {{[]string{"good 1"}, "v1", ""}, {[]string{"bad"}, "v1", "v2: line 1: bad"}, {nil, "v1", "v2: line 1: bad"}},
		"bad to worse":               {{[]string{"good 1"}, "v1", ""}, {[]string{"bad"}, "v1", "v2: line 1: bad"}, {[]string{"worse"}, "v1", "v3: line 1: worse"}},
		"bad to good":                {{[]string{"good 1", "bad"}, "v1", "v2: line 1: bad"}, {[]string{"good 3"}, "v3", ""}},
		"rollback":                   {{[]string{"good 1", "good 2"}, "v2", ""}, {[]string{"good 1"}, "v3", ""}},
		"back to what is in force":   {{[]string{"good 1"}, "v1", ""}, {[]string{"bad"}, "v1", "v2: line 1: bad"}, {[]string{"good 1"}, "v3", ""}},
		"cold start, newest bad":     {{[]string{"good 1", "good 2", "bad", "worse"}, "v2", "v4: line 1: worse"}, {nil, "v2", "v4: line 1: worse"}},
		"all bad":                    {{[]string{"bad", "worse"}, "", "v2: line 1: worse"}, {nil, "", "v2: line 1: worse"}, {[]string{"good 3"}, "v3", ""}},
		"nothing":                    {{nil, "", ": policy/current.yaml was deleted"}, {[]string{"good 1"}, "v1", ""}},
		"deleted":                    {{[]string{"good 1"}, "v1", ""}, {[]string{""}, "v1", ": policy/current.yaml was deleted"}, {[]string{"good 3"}, "v3", ""}},
		"deleted, and put as it was": {{[]string{"good 1"}, "v1", ""}, {[]string{"", "good 1"}, "v1", ""}},
		"cold start, deleted":        {{[]string{"good 1", "bad", ""}, "v1", ": policy/current.yaml was deleted"}},
		"too large":                  {{[]string{"good 1", "good" + strings.Repeat(" ", policystore.MaxPolicy)}, "v1", "v2: policy/current.yaml is larger"}},
		"far back":                   {{append([]string{"good 1"}, slices.Repeat([]string{"bad"}, 20)...), "v1", "v21: line 1: bad"}},
		"too far back":               {{append([]string{"good 1"}, slices.Repeat([]string{"bad"}, 21)...), "", "v22: line 1: bad"}},
	} {
		t.Run(name, func(t *testing.T) {
			b, store := newStore(t)
			f := policystore.Follow(store, load)
			for i, s := range steps {
				for _, body := range s.put {
					b.put(body)
					if body == "" {
						b.versions[len(b.versions)-1].body = nil
					}
				}
				look, err := f.Look(t.Context())
				if (err != nil) != (s.want == "") || err != nil && access.KindOf(err) != access.Unavailable {
					t.Errorf("look %d: %v", i, err)
				}
				if look.File.Version != s.want {
					t.Errorf("look %d: in force is %q, want %q", i, look.File.Version, s.want)
				}
				if s.want != "" && look.File.Digest != digest(string(look.File.Bytes)) {
					t.Errorf("look %d: digest %s", i, look.File.Digest)
				}
				refused := ""
				if r := look.Refused; r != nil {
					refused = r.Version + ": " + r.Err.Error()
				}
				if !strings.HasPrefix(refused, s.refused) || s.refused == "" && refused != "" {
					t.Errorf("look %d: refused is %q, want %q", i, refused, s.refused)
				}
			}
		})
	}
}

// While nothing changes, a look is one request that brings nothing.
func TestLooksAreCheap(t *testing.T) {
	b, store := newStore(t)
	f := policystore.Follow(store, load)
	for _, body := range []string{"bad", "worse"} {
		b.put(body)
	}
	for range 3 {
		_, _ = f.Look(t.Context())
	}
	if d := cmp.Diff([]string{"get", "list", "get v1", "get unchanged", "get unchanged"}, b.asked); d != "" {
		t.Error(d)
	}
}

// An older version is not taken for the one in force because a newer could not be read.
func TestAway(t *testing.T) {
	b, store := newStore(t)
	f := policystore.Follow(store, load)
	b.put("good 1")
	b.status = http.StatusServiceUnavailable
	if look, err := f.Look(t.Context()); access.KindOf(err) != access.Unavailable || look.File.Version != "" {
		t.Fatalf("got %+v, %v", look, err)
	}
	b.status = 0
	if _, err := f.Look(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.put("good 2")
	for _, b.status = range []int{http.StatusServiceUnavailable, http.StatusInternalServerError} {
		if look, err := f.Look(t.Context()); access.KindOf(err) != access.Unavailable || look.File.Version != "v1" || look.Refused != nil {
			t.Errorf("%d: got %+v, %v, want what was in force, and why", b.status, look, err)
		}
	}
	// Who may not read it is told 403; that puts nothing else in force either.
	b.status = http.StatusForbidden
	if look, err := f.Look(t.Context()); err != nil || look.File.Version != "v1" || look.Refused == nil {
		t.Errorf("got %+v, %v", look, err)
	}
	if _, err := policystore.Follow(store, load).Look(t.Context()); access.KindOf(err) != access.Unavailable {
		t.Errorf("cold start: %v", err)
	}
	b.status = 0
	if look, err := f.Look(t.Context()); err != nil || look.File.Version != "v2" || look.Refused != nil {
		t.Errorf("got %+v, %v", look, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Look(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestVersion(t *testing.T) {
	b, store := newStore(t)
	b.put("good 1")
	b.put("good 2")
	f, err := store.Version(t.Context(), "v1", digest("good 1"))
	if err != nil || string(f.Bytes) != "good 1" || f.Version != "v1" || f.Digest != digest("good 1") {
		t.Fatalf("got %+v, %v", f, err)
	}
	if _, err := store.Version(t.Context(), "v2", digest("good 1")); access.KindOf(err) != access.Invalid {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := store.Version(t.Context(), "v3", digest("good 1")); access.KindOf(err) != access.Unavailable {
		t.Errorf("no such version: %v", err)
	}
}
