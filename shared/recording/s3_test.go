package recording_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
	"sallyport/shared/recording"
	"sallyport/shared/recording/recordingtest"
)

func client(t *testing.T, h http.Handler) *s3.Client {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return s3.New(s3.Options{
		Region:       "eu-west-1",
		BaseEndpoint: aws.String(server.URL),
		UsePathStyle: true,
		Credentials:  credentials.NewStaticCredentialsProvider("AKIDEXAMPLE", "secret", ""),
	})
}

// The contract of Store and Archive, run by the bucket in memory and by S3.
func TestStoreAndArchive(t *testing.T) {
	memory := &recordingtest.Bucket{}
	remote := client(t, &recordingtest.Bucket{Name: "recordings", PageSize: 3})
	tests := map[string]struct {
		store   recording.Store
		archive recording.Archive
	}{
		"memory": {memory, memory},
		"s3":     {recording.S3{Client: remote, Bucket: "recordings"}, recording.S3Archive{Client: remote, Bucket: "recordings"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			for i := range 10 {
				if err := test.store.Put(ctx, "sessions/c/"+strconv.Itoa(i), []byte("body"+strconv.Itoa(i))); err != nil {
					t.Fatal(err)
				}
			}
			wantKind(t, test.store.Put(ctx, "sessions/c/0", []byte("other")), access.Conflict)
			body, err := test.archive.Get(ctx, "sessions/c/0")
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			if got, err := io.ReadAll(body); string(got) != "body0" || err != nil {
				t.Errorf("Get = %q, %v, want what was put first", got, err)
			}
			_, err = test.archive.Get(ctx, "sessions/c/none")
			wantKind(t, err, access.NotFound)

			list := func(prefix, after string) (keys []string) {
				for key, err := range test.archive.List(ctx, prefix, after) {
					if err != nil {
						t.Fatal(err)
					}
					keys = append(keys, key[len("sessions/c/"):])
				}
				return keys
			}
			if diff := cmp.Diff([]string{"0", "1", "2", "3", "4", "5", "6", "7", "8", "9"}, list("sessions/c/", "")); diff != "" {
				t.Errorf("List (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string{"6", "7", "8", "9"}, list("sessions/", "sessions/c/5")); diff != "" {
				t.Errorf("List after (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]string(nil), list("refused/", "")); diff != "" {
				t.Errorf("List of nothing (-want +got):\n%s", diff)
			}
			for range test.archive.List(ctx, "sessions/c/", "") {
				break // a listing can be left
			}
		})
	}
}

func TestS3Failures(t *testing.T) {
	attempts := 0
	status := http.StatusServiceUnavailable
	broken := client(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		attempts++
		w.WriteHeader(status)
	}))
	store := recording.S3{Client: broken, Bucket: "recordings"}
	wantKind(t, store.Put(t.Context(), "k", nil), access.Unavailable)
	if attempts != 1 {
		t.Errorf("Put tried %d times; retries are the recorder's", attempts)
	}
	// 409 means that a write of the same key is under way: it is not known whether it lands.
	status = http.StatusConflict
	wantKind(t, store.Put(t.Context(), "k", nil), access.Unavailable)

	status = http.StatusForbidden
	archive := recording.S3Archive{Client: broken, Bucket: "recordings"}
	_, err := archive.Get(t.Context(), "k")
	wantKind(t, err, access.Denied)
	for _, err := range archive.List(t.Context(), "sessions/", "") {
		wantKind(t, err, access.Denied)
	}
	_, err = (&recording.Reader{Archive: archive}).Sessions(t.Context(), "prod", started)
	wantKind(t, err, access.Denied)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	wantKind(t, store.Put(ctx, "k", nil), access.Unavailable)
}

// The whole way: recorder, S3's API, reader.
func TestRecorderOverS3(t *testing.T) {
	b := &recordingtest.Bucket{Name: "recordings", PageSize: 2}
	remote := client(t, b)
	r := newRecorder(t, recording.Config{Store: recording.S3{Client: remote, Bucket: "recordings"}, MaxSegment: 1})
	mustAppend(t, r, prod, "1", "2", "3", "4", "5")
	mustClose(t, r)
	events, err := (&recording.Reader{Archive: recording.S3Archive{Client: remote, Bucket: "recordings"}}).Session(t.Context(), "prod", session.ID)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "4", "5"}, auditIDs(events)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
