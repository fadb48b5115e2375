package action

import (
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/shared/access"
)

// kinds are the kinds of Kubernetes' own resources, and groups their API groups.
var kinds, groups = builtin()

func builtin() (map[schema.GroupResource]string, map[string]bool) {
	kinds := map[schema.GroupResource]string{ // served by every cluster, though client-go has no types for them
		{Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"}: "CustomResourceDefinition",
		{Group: "apiregistration.k8s.io", Resource: "apiservices"}:             "APIService",
	}
	groups := map[string]bool{"apiextensions.k8s.io": true, "apiregistration.k8s.io": true}
	for gvk := range scheme.Scheme.AllKnownTypes() {
		if gvk.Version == runtime.APIVersionInternal || strings.HasSuffix(gvk.Kind, "List") || strings.HasSuffix(gvk.Kind, "Options") {
			continue
		}
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		kinds[resource.GroupResource()] = gvk.Kind
		groups[gvk.Group] = true
	}
	return kinds, groups
}

// subkinds are the subresources whose bodies are of another kind than their resource; every other subresource takes the
// resource itself.
var subkinds = map[string]schema.GroupKind{
	"pods/eviction":         {Group: "policy", Kind: "Eviction"},
	"pods/binding":          {Kind: "Binding"},
	"serviceaccounts/token": {Group: "authentication.k8s.io", Kind: "TokenRequest"},
}

// A want is the kind a body must be of. Kind is empty where only the cluster knows it.
type want struct {
	schema.GroupKind
	version string // empty where several versions of it are taken
	any     bool   // an aggregated API's own subresource, which may take anything
}

// wants says what kind of body the action takes.
func wants(a access.Action) want {
	if a.Subresource == "scale" {
		return want{GroupKind: schema.GroupKind{Group: "autoscaling", Kind: "Scale"}}
	}
	if gk, ok := subkinds[a.Resource+"/"+a.Subresource]; ok && a.Group == "" {
		return want{GroupKind: gk}
	}
	kind := kinds[gr(a)]
	return want{
		GroupKind: schema.GroupKind{Group: a.Group, Kind: kind}, version: a.Version,
		any: !groups[a.Group] && a.Subresource != "" && a.Subresource != "status",
	}
}

// fits refuses an object that is of another kind, or is named otherwise, than the URL says: rules look at the URL, the
// cluster may look at the body. A kind that is left out is filled in, as the API server does.
func fits(a access.Action, value map[string]any) error {
	for k := range value {
		// The API server reads these two, and only these, in any case (k8s.io/apimachinery/pkg/runtime/serializer/json).
		if k != "apiVersion" && k != "kind" && (strings.EqualFold(k, "apiVersion") || strings.EqualFold(k, "kind")) {
			return access.Errorf(access.Invalid, "the body has the key %s; write apiVersion and kind exactly so", quoted(clip(k)))
		}
	}
	apiVersion, ok := text(value["apiVersion"])
	kind, ok2 := text(value["kind"])
	if !ok || !ok2 {
		return access.Errorf(access.Invalid, "the body's apiVersion and kind must be strings")
	}
	w := wants(a)
	if !w.any {
		if err := w.fits(a, value, apiVersion, kind); err != nil {
			return err
		}
	}
	m, ok := value["metadata"].(map[string]any)
	if !ok && value["metadata"] != nil {
		return access.Errorf(access.Invalid, "the body's metadata must be an object")
	}
	name, ok := text(m["name"])
	_, ok2 = text(m["generateName"])
	namespace, ok3 := text(m["namespace"])
	if !ok || !ok2 || !ok3 {
		return access.Errorf(access.Invalid, "the body's metadata.name, generateName and namespace must be strings")
	}
	if name != "" && a.Name != "" && name != a.Name {
		return access.Errorf(access.Invalid, "the body is named %s and the URL %s; make them the same", quoted(clip(name)), quoted(clip(a.Name)))
	}
	if namespace != "" && namespace != a.Namespace {
		return access.Errorf(access.Invalid, "the body is in namespace %s and the URL in %s; make them the same", quoted(clip(namespace)), quoted(clip(a.Namespace)))
	}
	return nil
}

func (w want) fits(a access.Action, value map[string]any, apiVersion, kind string) error {
	if kind == "" && w.Kind == "" {
		return access.Errorf(access.Invalid, "the body has no kind; say what it is")
	}
	if _, items := value["items"].([]any); kind == "List" || items && strings.HasSuffix(kind, "List") {
		return access.Errorf(access.Invalid, "the body is a list; send its items one by one")
	}
	if kind != "" && w.Kind != "" && kind != w.Kind {
		return access.Errorf(access.Invalid, "the body is a %s and the URL takes a %s", quoted(clip(kind)), w.Kind)
	}
	if apiVersion == "" {
		apiVersion = schema.GroupVersion{Group: a.Group, Version: a.Version}.String()
		if w.version == "" {
			apiVersion = "" // the API server fills in its own
		}
	} else {
		gv, err := schema.ParseGroupVersion(apiVersion)
		if err != nil || gv.Group != w.Group || w.version != "" && gv.Version != w.version {
			return access.Errorf(access.Invalid, "the body's apiVersion is %s, which is not what the URL takes: %s", quoted(clip(apiVersion)), schema.GroupVersion{Group: w.Group, Version: w.version})
		}
	}
	if kind == "" {
		kind = w.Kind
	}
	value["kind"] = kind
	if apiVersion != "" {
		value["apiVersion"] = apiVersion
	}
	return nil
}

// text is a string that may be missing.
func text(v any) (string, bool) {
	if v == nil {
		return "", true
	}
	s, ok := v.(string)
	return s, ok
}

func gr(a access.Action) schema.GroupResource {
	return schema.GroupResource{Group: a.Group, Resource: a.Resource}
}
