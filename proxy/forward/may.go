package forward

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	authorizationv1 "k8s.io/api/authorization/v1"

	"sallyport/shared/access"
)

const accessReviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

// May asks the cluster whether the session's tier may open the stream a request asks for. It is for the request that
// comes second: kubectl, refused over WebSocket, tries SPDY and shows what that was answered, so that answer must be the
// cluster's refusal and not ours of SPDY. The error is the refusal; nil means that the cluster would allow it, or that
// it could not be asked.
func (f *Forwarder) May(ctx context.Context, req Request) error {
	a := req.Action
	review := authorizationv1.SelfSubjectAccessReview{Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &authorizationv1.ResourceAttributes{
		Verb: "create", Group: a.Group, Version: a.Version, Resource: a.Resource, Subresource: a.Subresource, Namespace: a.Namespace, Name: a.Name}}}
	review.APIVersion, review.Kind = "authorization.k8s.io/v1", "SelfSubjectAccessReview"
	body, err := json.Marshal(review)
	if err != nil {
		return fmt.Errorf("encoding a SelfSubjectAccessReview: %w", err)
	}
	token, err := req.Live.Token(ctx)
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, req.Live.Base.String()+accessReviews, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("asking what tier %q may: %w", req.Live.Session.Tier, err)
	}
	r.Header = http.Header{"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Accept": {"application/json"}, "Accept-Encoding": {"identity"},
		"Audit-Id": {req.AuditID}, "User-Agent": {"sallyport"}}
	res, err := req.Live.Transports.Requests.RoundTrip(r)
	if err != nil {
		return nil
	}
	defer res.Body.Close()
	var answer authorizationv1.SelfSubjectAccessReview
	if err := json.NewDecoder(io.LimitReader(res.Body, maxReview)).Decode(&answer); err != nil || res.StatusCode != http.StatusCreated || answer.Status.Allowed {
		return nil
	}
	return access.Errorf(access.Denied, "%s %q is forbidden: %s cannot create resource %q in API group %q in the namespace %q; the cluster's RBAC for tier %q says so",
		a.Resource, a.Name, req.Live.Session.Name, a.Resource+"/"+a.Subresource, a.Group, a.Namespace, req.Live.Session.Tier)
}
