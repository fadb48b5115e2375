package policystore

import (
	"context"
	"fmt"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// maxBack is how many versions a process that finds the newest one bad walks back.
const maxBack = 20

// A Follower finds the policy in force, look by look. It is not safe for concurrent use.
type Follower struct {
	store Store
	load  func(name string, b []byte) error

	in      Look
	etag    string // of the newest version, once all that follows from it is known
	nothing error  // why there is no policy in force, when that is known
}

// A Look is what is in force.
type Look struct {
	File File // the newest version that loads; its Digest is empty when there is none
	// Refused is the newest version, when it does not load. It has no version when the object was deleted.
	Refused *Refused
}

// Refused is a version that does not load, and why.
type Refused struct {
	Version, Digest string
	Err             error
}

// Follow follows the policy in a store. load says whether a file is a policy; of those it took last, Look's File is the
// one in force.
func Follow(s Store, load func(name string, b []byte) error) *Follower {
	return &Follower{store: s, load: load}
}

// Look looks for a newer version, with one conditional request while there is none. The error is of kind unavailable: the
// bucket could not be read, or holds no version that loads. What was in force before is returned with it, as it still is.
func (f *Follower) Look(ctx context.Context) (Look, error) {
	in := &s3.GetObjectInput{}
	if f.etag != "" {
		in.IfNoneMatch = &f.etag
	}
	newest, err := f.store.get(ctx, in)
	switch {
	case err != nil && f.etag != "" && statusOf(err) == http.StatusNotModified:
		return f.in, f.nothing
	case err != nil && !gone(err):
		return f.in, err
	case err != nil:
		f.etag = "" // so that whatever comes next is news
		return f.back(ctx, &Refused{Err: fmt.Errorf("%s was deleted or may not be read; put a policy there, and let the broker read it", settings.PolicyCurrent)})
	}
	if err := f.try(newest); err != nil {
		look, gone := f.back(ctx, &Refused{Version: newest.Version, Digest: newest.Digest, Err: err})
		if look.Refused != nil {
			f.etag = newest.etag
		}
		return look, gone
	}
	f.in, f.etag, f.nothing = Look{File: newest}, newest.etag, nil
	return f.in, nil
}

// back is for a newest version that is refused: what is in force stays, and when nothing is yet, the newest version
// before it that loads is.
func (f *Follower) back(ctx context.Context, why *Refused) (Look, error) {
	if f.in.File.Digest != "" {
		f.in.Refused = why
		return f.in, nil
	}
	ids, err := f.store.versions(ctx)
	if err != nil {
		return Look{}, err
	}
	tried := 0
	for _, id := range ids {
		if id == why.Version {
			continue
		}
		if tried++; tried > maxBack {
			break
		}
		file, err := f.store.get(ctx, &s3.GetObjectInput{VersionId: aws.String(id)})
		if err != nil {
			return Look{}, err // it may be the one; an older one must not be taken for it
		}
		if f.try(file) == nil {
			f.in, f.nothing = Look{File: file, Refused: why}, nil
			return f.in, nil
		}
	}
	f.nothing = access.Errorf(access.Unavailable, "no policy is in force: no version of it loads, so everything is refused; who runs the gate must put a good one").Because(why.Err)
	f.in = Look{Refused: why}
	return f.in, f.nothing
}

func (f *Follower) try(file File) error {
	if file.large {
		return fmt.Errorf("%s is larger than %d bytes", settings.PolicyCurrent, MaxPolicy)
	}
	return f.load(settings.PolicyCurrent, file.Bytes)
}
