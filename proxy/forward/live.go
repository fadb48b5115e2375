package forward

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/json"

	"sallyport/shared/access"
)

// maxLive bounds the object a patch is judged against. etcd keeps none that is larger than 1.5 MiB in its own form.
const maxLive = 8 << 20

// Get reads the object that a request is about, as the session's tier: what a patch would make can only be told from
// what it is put on. Nil and no error mean that the tier may not read it; a NotFound error that there is none.
func (f *Forwarder) Get(ctx context.Context, req Request, path string) (map[string]any, error) {
	token, err := req.Live.Token(ctx)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, req.Live.Base.String()+path, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("reading the live object: %w", err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + token}, "Accept": {"application/json"}, "Accept-Encoding": {"identity"}, "Audit-Id": {req.AuditID}, "User-Agent": {"sallyport"}}
	unreachable := func(cause error) error {
		return access.Errorf(access.Unavailable, "cluster %q did not show the object the patch is for, so the patch could not be judged; nothing was forwarded, ask again", req.Live.Session.Cluster).Because(cause).After(2 * time.Second)
	}
	res, err := req.Live.Transports.Requests.RoundTrip(r)
	if err != nil {
		return nil, unreachable(err)
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
		return nil, unreachable(fmt.Errorf("status %d", res.StatusCode))
	default:
		return nil, unreachable(fmt.Errorf("status %d", res.StatusCode))
	}
	b, err := io.ReadAll(io.LimitReader(res.Body, maxLive+1))
	switch {
	case err != nil:
		return nil, unreachable(err)
	case len(b) > maxLive:
		return nil, unreachable(fmt.Errorf("it is larger than %d bytes", maxLive))
	}
	var object map[string]any
	if err := json.Unmarshal(b, &object); err != nil { // whole numbers stay whole
		return nil, unreachable(err)
	}
	return object, nil
}
