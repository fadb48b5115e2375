package forward

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/json"

	"sallyport/shared/access"
)

// What a read of the gate's own may bring. etcd keeps no object that is larger than 1.5 MiB in its own form.
const (
	maxLive = 8 << 20
	maxPage = 500 // objects of a collection
)

// Get reads the object that a request is about, as the session's tier: what a patch would make can only be told from what
// it is put on, and what people are asked about they must see. Nil and no error mean that the tier may not read it; a
// NotFound error that there is none.
func (f *Forwarder) Get(ctx context.Context, req Request, path string) (map[string]any, error) {
	b, err := f.read(ctx, req, path, "application/json")
	if err != nil || b == nil {
		return nil, err
	}
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil { // whole numbers stay whole
		return nil, unseen(req, err)
	}
	return object, nil
}

// List reads the metadata of the first objects of a collection, as the session's tier; more is how many there are besides,
// as far as the cluster says. Nil and no error mean that the tier may not read it.
func (f *Forwarder) List(ctx context.Context, req Request, path string, query url.Values) (items []metav1.PartialObjectMetadata, more int, err error) {
	query.Set("limit", strconv.Itoa(maxPage))
	b, err := f.read(ctx, req, path+"?"+query.Encode(), "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json")
	if err != nil || b == nil {
		return nil, 0, err
	}
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, 0, unseen(req, err)
	}
	if list.Continue != "" {
		more = 1 // at least: with a selector the cluster does not count
		if n := list.RemainingItemCount; n != nil {
			more = int(max(*n, 1))
		}
	}
	return list.Items, more, nil
}

func (f *Forwarder) read(ctx context.Context, req Request, target, accept string) ([]byte, error) {
	token, err := req.Live.Token(ctx)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, req.Live.Base.String()+target, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("reading what a request is about: %w", err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + token}, "Accept": {accept}, "Accept-Encoding": {"identity"}, "Audit-Id": {req.AuditID}, "User-Agent": {"sallyport"}}
	res, err := req.Live.Transports.Requests.RoundTrip(r)
	if err != nil {
		return nil, unseen(req, err)
	}
	defer res.Body.Close()
	switch res.StatusCode {
	case http.StatusOK:
	case http.StatusNotFound:
		return nil, access.Errorf(access.NotFound, "%s %q not found", req.Action.Resource, req.Action.Name)
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
		return nil, nil
	case http.StatusUnauthorized:
		req.Rejected()
		return nil, unseen(req, fmt.Errorf("status %d", res.StatusCode))
	default:
		return nil, unseen(req, fmt.Errorf("status %d", res.StatusCode))
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxLive+1))
	switch {
	case err != nil:
		return nil, unseen(req, err)
	case len(b) > maxLive:
		return nil, unseen(req, fmt.Errorf("it is larger than %d bytes", maxLive))
	}
	return b, nil
}

func unseen(req Request, cause error) error {
	return access.Errorf(access.Unavailable, "cluster %q did not show the object the request is for, so the request could not be judged; nothing was forwarded, ask again", req.Live.Session.Cluster).Because(cause).After(2 * time.Second)
}
