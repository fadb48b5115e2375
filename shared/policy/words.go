package policy

import (
	"maps"
	"slices"
	"strings"
)

// verbs are the verbs a rule may name: those of requests, and those that RBAC checks besides (escalate and the like),
// which no request has but which a rule may want to name next to the others.
var verbs = []string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"exec", "attach", "portforward",
	"escalate", "bind", "impersonate", "approve", "sign", "attest", "use",
	"*",
}

// streams are the verbs of upgrades. Each is one verb on resource pods, whichever way it is asked.
var streams = []string{"exec", "attach", "portforward"}

// stream says whether a verb is one of an upgrade's.
func stream(verb string) bool { return verb == "exec" || verb == "attach" || verb == "portforward" }

// bodied are the verbs whose request carries an object.
var bodied = []string{"create", "update", "patch"}

// collective says whether a verb is one on collections.
func collective(verb string) bool {
	return verb == "list" || verb == "watch" || verb == "deletecollection"
}

// paths are what an allow may open of what is no resource: versions, health, discovery and the OpenAPI schemas.
// /metrics, /logs, /debug and /configz are not among them.
var paths = []string{"/version", "/healthz", "/livez", "/readyz", "/api", "/apis", "/openapi"}

// open says whether a path is one of paths or below one.
func open(path string) bool {
	for _, p := range paths {
		if rest, ok := strings.CutPrefix(path, p); ok && (rest == "" || rest[0] == '/') {
			return true
		}
	}
	return false
}

// cluster and namespaced are the resources Kubernetes itself has, by API group. The first are of the whole cluster, so
// that a list of them says nothing about any namespace.
var clusterScoped = map[string][]string{
	"":                             {"componentstatuses", "namespaces", "nodes", "persistentvolumes"},
	"admissionregistration.k8s.io": {"mutatingadmissionpolicies", "mutatingadmissionpolicybindings", "mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings", "validatingwebhookconfigurations"},
	"apiextensions.k8s.io":         {"customresourcedefinitions"},
	"apiregistration.k8s.io":       {"apiservices"},
	"authentication.k8s.io":        {"selfsubjectreviews", "tokenreviews"},
	"authorization.k8s.io":         {"selfsubjectaccessreviews", "selfsubjectrulesreviews", "subjectaccessreviews"},
	"certificates.k8s.io":          {"certificatesigningrequests", "clustertrustbundles"},
	"flowcontrol.apiserver.k8s.io": {"flowschemas", "prioritylevelconfigurations"},
	"internal.apiserver.k8s.io":    {"storageversions"},
	"metrics.k8s.io":               {"nodes"},
	"networking.k8s.io":            {"ingressclasses", "ipaddresses", "servicecidrs"},
	"node.k8s.io":                  {"runtimeclasses"},
	"rbac.authorization.k8s.io":    {"clusterrolebindings", "clusterroles"},
	"resource.k8s.io":              {"deviceclasses", "devicetaintrules", "resourceslices"},
	"scheduling.k8s.io":            {"priorityclasses"},
	"storage.k8s.io":               {"csidrivers", "csinodes", "storageclasses", "volumeattachments", "volumeattributesclasses"},
	"storagemigration.k8s.io":      {"storageversionmigrations"},
}

var namespaced = map[string][]string{
	"":                          {"bindings", "configmaps", "endpoints", "events", "limitranges", "persistentvolumeclaims", "pods", "podtemplates", "replicationcontrollers", "resourcequotas", "secrets", "serviceaccounts", "services"},
	"apps":                      {"controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"},
	"authorization.k8s.io":      {"localsubjectaccessreviews"},
	"autoscaling":               {"horizontalpodautoscalers"},
	"batch":                     {"cronjobs", "jobs"},
	"certificates.k8s.io":       {"podcertificaterequests"},
	"coordination.k8s.io":       {"leasecandidates", "leases"},
	"discovery.k8s.io":          {"endpointslices"},
	"events.k8s.io":             {"events"},
	"metrics.k8s.io":            {"pods"},
	"networking.k8s.io":         {"ingresses", "networkpolicies"},
	"policy":                    {"poddisruptionbudgets"},
	"rbac.authorization.k8s.io": {"rolebindings", "roles"},
	"resource.k8s.io":           {"resourceclaims", "resourceclaimtemplates"},
	"scheduling.k8s.io":         {"podgroups", "workloads"},
	"storage.k8s.io":            {"csistoragecapacities"},
}

// global says whether a resource is one of Kubernetes' own that belongs to no namespace. Of any other, a collection
// over all namespaces may reach into each.
func global(group, resource string) bool { return slices.Contains(clusterScoped[group], resource) }

// knownGroups and knownResources are Kubernetes' own, to tell typos by.
func knownGroups() []string {
	all := maps.Clone(clusterScoped)
	maps.Copy(all, namespaced)
	return slices.Sorted(maps.Keys(all))
}

func knownResources() []string {
	var all []string
	for _, scope := range []map[string][]string{clusterScoped, namespaced} {
		for _, resources := range scope {
			all = append(all, resources...)
		}
	}
	all = append(all, "tokenrequests") // no resource, but what the body of serviceaccounts/token is called; denied by habit
	slices.Sort(all)
	return slices.Compact(all)
}

// own says whether an API group is Kubernetes' own rather than a CRD's or an aggregated API's.
func own(group string) bool {
	return !strings.Contains(group, ".") || strings.HasSuffix(group, ".k8s.io")
}
