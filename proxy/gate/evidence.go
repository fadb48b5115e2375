package gate

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"

	"sallyport/proxy/forward"
	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/broker"
)

const (
	// evidenceTime is how long looking around in the cluster may take, before people are asked.
	evidenceTime = 2 * time.Second
	// maxAffected is how many objects people are shown by name.
	maxAffected = 50
)

// sight is an object as the session's tier saw it in the cluster. Its zero value means that nobody looked.
type sight struct {
	path    string
	object  map[string]any // nil when there is none, or the tier may not read it
	missing bool
}

// own is a request of the gate's own in the caller's session.
func (p *pass) own(suffix string) forward.Request {
	return forward.Request{Live: p.live, Action: p.facts.Action, AuditID: p.facts.ID + suffix, Rejected: p.rejected}
}

// look reads the object at a path.
func (p *pass) look(ctx context.Context, path string) (map[string]any, error) {
	object, err := p.gate.forward.Get(ctx, p.own("-live"), path)
	if err == nil || access.KindOf(err) == access.NotFound {
		p.seen = sight{path, object, err != nil}
	}
	return object, err
}

// evidence is the object that the request is about, as it was looked at when the request was judged, or as it is now.
func (p *pass) evidence(ctx context.Context) (broker.Evidence, error) {
	var ev broker.Evidence
	path := objectPath(p.facts.Action)
	if path == "" {
		return ev, nil
	}
	if p.seen.path != path {
		if _, err := p.look(ctx, path); err != nil && access.KindOf(err) != access.NotFound {
			return ev, err
		}
	}
	ev.Missing = p.seen.missing
	if p.seen.object != nil {
		var err error
		if ev.Live, err = json.Marshal(p.seen.object); err != nil {
			return ev, fmt.Errorf("encoding the live object: %w", err)
		}
	}
	return ev, nil
}

// objectPath is where the object is that a request is about; empty when it names none. What a patch or an update is put on
// may be a subresource; what is done to a pod, an exec or an eviction, is about the pod.
func objectPath(a access.Action) string {
	switch {
	case a.Resourceless || a.Name == "" || a.Verb == "list" || a.Verb == "watch" || a.Verb == "deletecollection":
		return ""
	case a.Subresource == "" || a.Verb == "patch" || a.Verb == "update":
		return strings.TrimSuffix(a.Path, "/")
	}
	namespace := a.Namespace
	if a.Resource == "namespaces" {
		namespace = ""
	}
	return collection(a.Group, a.Version, namespace, a.Resource) + "/" + a.Name
}

func collection(group, version, namespace, resource string) string {
	path := "/apis/" + group + "/" + version
	if group == "" {
		path = "/api/" + version
	}
	if namespace != "" {
		path += "/namespaces/" + namespace
	}
	return path + "/" + resource
}

// affected are the objects that the request takes along: those a deletecollection selects, the pods of a workload that is
// deleted or scaled, of a node that is drained or a namespace that goes, and of a pod that is deleted or evicted what
// controls it. What the tier may not read is left out, and so are pods that cannot be had in time; but a deletecollection is
// what it selects, so nobody is asked about one that cannot be seen.
func (p *pass) affected(ctx context.Context) ([]access.Affected, int, error) {
	a := p.facts.Action
	if a.Verb == "deletecollection" {
		query := url.Values{}
		for name, v := range map[string]string{"labelSelector": a.LabelSelector, "fieldSelector": a.FieldSelector} {
			if v != "" {
				query.Set(name, v)
			}
		}
		items, more, err := p.gate.forward.List(ctx, p.own("-list"), strings.TrimSuffix(a.Path, "/"), query)
		if access.KindOf(err) == access.NotFound {
			err = nil // there is no such collection, as the cluster will say
		}
		if err != nil {
			return nil, 0, err
		}
		all, more := name(kindOf(a), items, more)
		return all, more, nil
	}
	from := p.takes()
	if from.self {
		var o metav1.PartialObjectMetadata
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(p.seen.object, &o); err != nil {
			return nil, 0, nil //nolint:nilerr // it is shown as it is, and has no owner that can be read
		}
		all, _ := name("Pod", []metav1.PartialObjectMetadata{o}, 0)
		return all, 0, nil
	}
	if from.query == nil {
		return nil, 0, nil
	}
	items, more, err := p.gate.forward.List(ctx, p.own("-list"), collection("", "v1", from.namespace, "pods"), from.query)
	if err != nil {
		return nil, 0, nil //nolint:nilerr // people see less, and the object itself all the same
	}
	if from.owner != "" {
		kept := items[:0]
		for _, o := range items {
			if c := metav1.GetControllerOf(&o); c != nil && string(c.UID) == from.owner {
				kept = append(kept, o)
			}
		}
		items = kept
	}
	all, more := name("Pod", items, more)
	return all, more, nil
}

// name puts objects into words: the first few by name, the others by number.
func name(kind string, items []metav1.PartialObjectMetadata, more int) ([]access.Affected, int) {
	var all []access.Affected
	for i, o := range items {
		if i == maxAffected {
			return all, more + len(items) - i
		}
		x := access.Affected{Kind: kind, Namespace: o.Namespace, Name: o.Name}
		if c := metav1.GetControllerOf(&o); c != nil {
			x.Owner = c.Kind + "/" + c.Name
		}
		all = append(all, x)
	}
	return all, more
}

// pods are those a request takes along.
type pods struct {
	namespace string
	query     url.Values // nil for none
	owner     string     // the UID of what must control them; empty for whatever does
	self      bool       // the pod the request is about
}

// workloads are what keeps pods running, by group and resource; true of those that are their pods' controllers themselves.
var workloads = map[schema.GroupResource]bool{
	{Group: "apps", Resource: "deployments"}: false, {Group: "apps", Resource: "replicasets"}: true, {Group: "apps", Resource: "statefulsets"}: true,
	{Group: "apps", Resource: "daemonsets"}: true, {Group: "batch", Resource: "jobs"}: true, {Resource: "replicationcontrollers"}: true,
}

// takes says which pods the request takes along.
func (p *pass) takes() pods {
	a, live := p.facts.Action, p.seen.object
	writes := a.Verb == "patch" || a.Verb == "update"
	gr := schema.GroupResource{Group: a.Group, Resource: a.Resource}
	controls, workload := workloads[gr]
	switch {
	case live == nil:
	case gr == schema.GroupResource{Resource: "pods"} && (a.Verb == "delete" && a.Subresource == "" || a.Subresource == "eviction"):
		return pods{self: true}
	case gr == schema.GroupResource{Resource: "nodes"} && (a.Verb == "delete" || writes && a.Subresource == ""):
		return pods{query: url.Values{"fieldSelector": {"spec.nodeName=" + a.Name}}}
	case gr == schema.GroupResource{Resource: "namespaces"} && a.Verb == "delete":
		return pods{namespace: a.Name, query: url.Values{}}
	case workload && a.Subresource == "scale" && writes:
		if s, _ := nested(live, "status", "selector").(string); s != "" {
			return pods{namespace: a.Namespace, query: url.Values{"labelSelector": {s}}}
		}
	case workload && a.Subresource == "" && (a.Verb == "delete" && !p.orphans() || writes && p.scales()):
		s := selector(nested(live, "spec", "selector"))
		if s == "" {
			break
		}
		found := pods{namespace: a.Namespace, query: url.Values{"labelSelector": {s}}}
		if controls {
			found.owner, _ = nested(live, "metadata", "uid").(string)
		}
		return found
	}
	return pods{}
}

// orphans says whether a delete leaves alone what the object owns.
func (p *pass) orphans() bool {
	o, err := deleteOptions(p.facts.Action, p.raw)
	return err == nil && (o["propagationPolicy"] == string(metav1.DeletePropagationOrphan) || o["orphanDependents"] == true)
}

// scales says whether a write sets another number of replicas than there is.
func (p *pass) scales() bool {
	b, err := action.Decode(p.facts.Action, p.media, p.raw.Body)
	if err != nil {
		return false
	}
	o, err := b.Judge(p.seen.object)
	if err != nil {
		return false
	}
	wants := nested(o.Value, "spec", "replicas")
	return wants != nil && fmt.Sprint(wants) != fmt.Sprint(nested(p.seen.object, "spec", "replicas"))
}

func nested(o map[string]any, path ...string) any {
	var v any = o
	for _, key := range path {
		m, _ := v.(map[string]any)
		v = m[key]
	}
	return v
}

// selector is a workload's selector as a list takes it; empty when it has none that can be read.
func selector(v any) string {
	m, _ := v.(map[string]any)
	if len(m) == 0 {
		return ""
	}
	var s metav1.LabelSelector
	_, labels := m["matchLabels"].(map[string]any)
	_, expressions := m["matchExpressions"].([]any)
	if !labels && !expressions { // a replication controller's is the labels alone
		m = map[string]any{"matchLabels": m}
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err != nil {
		return ""
	}
	selector, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil || selector.Empty() {
		return ""
	}
	return selector.String()
}

var kinds = sync.OnceValue(func() map[schema.GroupVersionResource]string {
	all := map[schema.GroupVersionResource]string{}
	for gvk := range scheme.Scheme.AllKnownTypes() {
		if strings.HasSuffix(gvk.Kind, "List") || strings.HasSuffix(gvk.Kind, "Options") {
			continue
		}
		resource, _ := meta.UnsafeGuessKindToResource(gvk)
		all[resource] = gvk.Kind
	}
	return all
})

// kindOf is the kind of a resource's objects; of one that is not Kubernetes' own, the resource.
func kindOf(a access.Action) string {
	if kind := kinds()[schema.GroupVersionResource{Group: a.Group, Version: a.Version, Resource: a.Resource}]; kind != "" {
		return kind
	}
	return a.Resource
}
