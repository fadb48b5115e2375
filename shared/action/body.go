package action

import (
	"mime"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A form is how a body is written.
type form string

const (
	formJSON     form = "application/json"
	formYAML     form = "application/yaml"
	formProtobuf form = "application/vnd.kubernetes.protobuf"
)

// patches are the media types of patches. They are all JSON, but for an apply patch.
var patches = map[string]access.Patch{
	"application/json-patch+json":            access.JSONPatch,
	"application/merge-patch+json":           access.MergePatch,
	"application/strategic-merge-patch+json": access.StrategicPatch,
	"application/apply-patch+yaml":           access.ApplyPatch,
}

// written finds how the body is written, and of a patch which patch it is.
func written(a access.Action, contentType string) (form, access.Patch, error) {
	if contentType == "" {
		if a.Verb == "patch" {
			return "", "", access.Errorf(access.Media, "a patch needs a Content-Type that says which patch it is, such as application/merge-patch+json")
		}
		return formJSON, "", nil // as the API server takes it
	}
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return "", "", access.Errorf(access.Media, "the Content-Type %s cannot be read", quoted(clip(contentType)))
	}
	if a.Verb == "patch" {
		p, ok := patches[media]
		switch {
		case !ok:
			return "", "", access.Errorf(access.Media, "the Content-Type %s is no patch's; use application/json-patch+json, merge-patch+json, strategic-merge-patch+json or apply-patch+yaml", quoted(clip(media)))
		case p == access.ApplyPatch:
			return formYAML, p, nil
		}
		return formJSON, p, nil
	}
	switch f := form(media); f {
	case formJSON, formYAML, formProtobuf:
		return f, "", nil
	}
	return "", "", access.Errorf(access.Media, "the Content-Type %s is not read here; use application/json, application/yaml or application/vnd.kubernetes.protobuf", quoted(clip(media)))
}

func (f form) read(b []byte) (any, error) {
	switch f {
	case formYAML:
		return readYAML(b)
	case formProtobuf:
		return readProtobuf(b)
	}
	return readJSON(b)
}

// reads says whether the action takes no body.
func reads(a access.Action) bool {
	return a.Upgrade || slices.Contains([]string{"get", "list", "watch", "reveal"}, a.Verb)
}

// deletes says whether the action's body is metav1.DeleteOptions.
func deletes(a access.Action) bool {
	return !a.Resourceless && a.Subresource != "proxy" && (a.Verb == "delete" || a.Verb == "deletecollection")
}

// Refine completes an action once its body was read: it sets the patch's form from the media type, and says truly
// whether a delete is a dry run. It refuses media types that are not read, and bodies where none belongs.
func Refine(a access.Action, contentType string, body []byte) (access.Action, error) {
	if len(body) == 0 && a.Verb != "patch" {
		return a, nil
	}
	if reads(a) {
		return a, access.Errorf(access.Invalid, "%s takes no body; leave it out", a.Verb)
	}
	f, patch, err := written(a, contentType)
	if err != nil {
		return a, err
	}
	if len(body) == 0 {
		return a, access.Errorf(access.Invalid, "a patch needs a body")
	}
	a.Patch = patch
	if deletes(a) {
		options, err := deleteOptions(f, body)
		if err != nil {
			return a, err
		}
		// A body replaces the query's options altogether (k8s.io/apiserver/pkg/endpoints/handlers/delete.go).
		dry, _ := options["dryRun"].([]any)
		a.DryRun = len(dry) > 0 && stores(a)
	}
	return a, nil
}

// deleteOptions reads the body of a delete. One that cannot be read is refused, whatever the reason: nobody could tell
// whether it is a dry run.
func deleteOptions(f form, body []byte) (map[string]any, error) {
	bad := func(err error) error {
		e := access.AsError(err)
		return access.Errorf(access.Invalid, "the body is not the DeleteOptions a delete takes: %s", e.Message).Because(e.Cause)
	}
	v, err := f.read(body)
	if err != nil {
		return nil, bad(err)
	}
	options, ok := v.(map[string]any)
	if !ok {
		return nil, bad(access.Errorf(access.Invalid, "it is not an object"))
	}
	for k := range options {
		if k != "kind" && strings.EqualFold(k, "kind") || k != "apiVersion" && strings.EqualFold(k, "apiVersion") {
			return nil, bad(access.Errorf(access.Invalid, "write apiVersion and kind exactly so"))
		}
	}
	if kind, ok := text(options["kind"]); !ok || kind != "" && kind != "DeleteOptions" {
		return nil, bad(access.Errorf(access.Invalid, "its kind is another"))
	}
	dry, ok := options["dryRun"].([]any)
	if !ok && options["dryRun"] != nil || slices.ContainsFunc(dry, func(v any) bool { return v != "All" }) {
		return nil, bad(access.Errorf(access.Invalid, `dryRun is ["All"] or is left out`))
	}
	return options, nil
}

// A Body is a request's body, decoded.
type Body struct {
	action access.Action
	raw    []byte
	value  map[string]any // an object, or a patch that is written as one
	ops    []any          // a JSON patch
}

// Decode reads a body strictly, in the one way the cluster reads it. An error of kind access.Invalid means that nobody
// should read it; access.Media that the cluster may, and we cannot. The body must not be changed while Body is in use.
// An action that takes no body, or came without one it could leave out, has an empty object.
func Decode(a access.Action, contentType string, body []byte) (*Body, error) {
	b := &Body{action: a, raw: body, value: map[string]any{}}
	if len(body) == 0 && (reads(a) || deletes(a)) {
		return b, nil
	}
	if reads(a) {
		return nil, access.Errorf(access.Invalid, "%s takes no body; leave it out", a.Verb)
	}
	if a.Resourceless || slices.Contains([]string{"exec", "attach", "portforward", "proxy"}, a.Subresource) {
		return nil, access.Errorf(access.Media, "the body is for something else than the API server")
	}
	f, patch, err := written(a, contentType)
	if err != nil {
		return nil, err
	}
	b.action.Patch = patch
	if deletes(a) {
		b.value, err = deleteOptions(f, body)
		return b, err
	}
	if len(body) == 0 {
		return nil, access.Errorf(access.Invalid, "the request needs a body")
	}
	v, err := f.read(body)
	if err != nil {
		return nil, err
	}
	if patch == access.JSONPatch {
		b.ops, err = operations(v)
		return b, err
	}
	var ok bool
	if b.value, ok = v.(map[string]any); !ok {
		return nil, access.Errorf(access.Invalid, "the body must be an object")
	}
	switch patch {
	case "", access.ApplyPatch:
		err = fits(a, b.value)
	default:
		if m, ok := b.value["metadata"]; ok {
			if _, ok := m.(map[string]any); !ok {
				err = access.Errorf(access.Invalid, "a patch must leave metadata an object")
			}
		}
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// NeedsLive is true of a patch, which is judged with the live object.
func (b *Body) NeedsLive() bool { return b.action.Patch != "" }

// Judge says what the body would have the cluster store. Of a patch live is the object it is for, and nil when there is
// none or it cannot be read; live is not changed. An error of kind access.Conflict means that the patch is for another
// version than the live one.
func (b *Body) Judge(live map[string]any) (*access.Object, error) {
	if b.action.Patch != "" {
		return b.judge(live)
	}
	return b.whole(b.value)
}

// whole judges an object that is complete.
func (b *Body) whole(value map[string]any) (*access.Object, error) {
	r, err := look(b.action, value)
	if err != nil {
		return nil, err
	}
	return &access.Object{Value: value, Traits: r.list(), Found: r.found()}, nil
}
