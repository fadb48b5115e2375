package gate

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/broker"
)

// bind ties a delete to the object people saw: it can take no other that has come to have its name. It is all the gate ever
// adds to a request; what the caller demanded stays, and must not be about another object.
func (p *pass) bind(body []byte) ([]byte, error) {
	a, uid := p.facts.Action, p.yes.target.UID
	if a.Resourceless || a.Verb != "delete" || a.Name == "" || a.Subresource != "" || uid == "" {
		return body, nil
	}
	options, err := deleteOptions(a, p.raw)
	if err != nil {
		return nil, err
	}
	pre, ok := options["preconditions"].(map[string]any)
	if !ok && options["preconditions"] != nil {
		return nil, access.Errorf(access.Invalid, "the body's preconditions must be an object")
	}
	switch has := pre["uid"]; has {
	case nil, "":
	case uid:
		return body, nil
	default:
		return nil, p.about(p.yes.Approval, access.Errorf(access.Conflict, "%s %q is another object by now than your preconditions say: its uid is %s; nothing was forwarded", a.Resource, a.Name, uid))
	}
	pre = maps.Clone(pre)
	if pre == nil {
		pre = map[string]any{}
	}
	pre["uid"] = uid
	options["preconditions"] = pre
	b, err := json.Marshal(options)
	if err != nil {
		return nil, fmt.Errorf("encoding DeleteOptions: %w", err)
	}
	p.yes.media = "application/json"
	return b, nil
}

// deleteOptions are what the API server takes a delete's options to be: the body's, or without a body the query's
// (k8s.io/apiserver/pkg/endpoints/handlers/delete.go). Since there will be a body, the query's move into it.
func deleteOptions(a access.Action, raw broker.Raw) (map[string]any, error) {
	if len(raw.Body) > 0 {
		b, err := action.Decode(a, raw.ContentType, raw.Body)
		if err != nil {
			return nil, err
		}
		object, err := b.Judge(nil)
		if err != nil {
			return nil, err
		}
		return maps.Clone(object.Value), nil
	}
	_, query, _ := strings.Cut(raw.Target, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return nil, access.Errorf(access.Invalid, "the query cannot be read").Because(err)
	}
	var o metav1.DeleteOptions
	if err := metav1.Convert_url_Values_To_v1_DeleteOptions(&values, &o, nil); err != nil {
		return nil, access.Errorf(access.Invalid, "the query is not the DeleteOptions a delete takes").Because(err)
	}
	b, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encoding DeleteOptions: %w", err)
	}
	options := map[string]any{}
	if err := json.Unmarshal(b, &options); err != nil {
		return nil, fmt.Errorf("decoding DeleteOptions: %w", err)
	}
	return options, nil
}
