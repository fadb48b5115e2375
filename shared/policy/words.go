package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// verbs are the verbs a rule may name: those of requests, and those that RBAC checks besides (escalate and the like),
// which no request has but which a rule may want to name next to the others.
var verbs = []string{
	"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection",
	"exec", "attach", "portforward", reveal,
	"escalate", "bind", "impersonate", "approve", "sign", "attest", "use",
	"*",
}

// stream says whether a verb is one of an upgrade's. Each is one verb on resource pods, whichever way it is asked.
func stream(verb string) bool { return verb == "exec" || verb == "attach" || verb == "portforward" }

// reveal is the verb of a GET of a Secret that asks for the value of one key, unmasked. RBAC has none of that name: to the
// cluster it is a get.
const reveal = "reveal"

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

// clusterScoped and namespaced are the resources Kubernetes itself has, by API group. The first are of the whole cluster,
// so that a list of them says nothing about any namespace.
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

var (
	apiGroupRE = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$`)
	resourceRE = regexp.MustCompile(`^([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\*)(/([a-z0-9]([a-z0-9.-]*[a-z0-9])?|\*))?$`)
)

// apiGroup says what is wrong with an item of apiGroups; nothing is "".
func apiGroup(g string) string {
	known := knownGroups()
	switch {
	case g == "" || g == "*" || slices.Contains(known, g):
		return ""
	case g == "core" || g == "v1":
		return fmt.Sprintf(`%q is no API group; did you mean ""? That is the core group's name`, g)
	case strings.Contains(g, "/"):
		group, _, _ := strings.Cut(g, "/")
		return fmt.Sprintf("%q names a version; did you mean %s? A rule is about all versions", g, group)
	case !apiGroupRE.MatchString(g):
		return fmt.Sprintf("%q is no API group; name it in lower case, such as apps or example.com", g)
	}
	if own(g) { // somebody's CRD may be called whatever it likes
		if near := meant(g, known); near != "" {
			return fmt.Sprintf("there is no API group %q%s", g, near)
		}
	}
	return ""
}

// resource says what is wrong with an item of resources, of a rule with these API groups.
func resource(r string, groups []string) string {
	base, sub, _ := strings.Cut(r, "/")
	known := knownResources()
	switch {
	case r == "*/*":
		return `"*/*" is not how RBAC writes every subresource; did you mean "*"?`
	case !resourceRE.MatchString(r) && resourceRE.MatchString(strings.ToLower(r)):
		return fmt.Sprintf("%q: resources are written in lower case; did you mean %s?", r, strings.ToLower(r))
	case !resourceRE.MatchString(r):
		return fmt.Sprintf(`%q is no resource; write it as RBAC does: pods, pods/log, */scale, pods/* or *`, r)
	case stream(sub) && (base == "pods" || base == "*") && (len(groups) == 0 || slices.Contains(groups, "") || slices.Contains(groups, "*")):
		return fmt.Sprintf("%s is a verb of its own here, however it is asked; write verbs: [%s], resources: [pods]", sub, sub)
	case base == "*" || slices.Contains(known, base):
		return ""
	}
	if slices.ContainsFunc(groups, func(g string) bool { return g == "*" || !own(g) }) || len(groups) == 0 {
		return "" // it may be anybody's
	}
	for _, plural := range []string{base + "s", base + "es", strings.TrimSuffix(base, "y") + "ies"} {
		if slices.Contains(known, plural) {
			return fmt.Sprintf("%q: resources are written in the plural; did you mean %s?", r, plural)
		}
	}
	if near := meant(base, known); near != "" {
		return fmt.Sprintf("there is no resource %q%s", base, near)
	}
	return ""
}

// isPattern says whether a word is a pattern. Whatever looks like one and is not anchored does not load.
func isPattern(s string) bool {
	return len(s) >= 2 && strings.HasPrefix(s, "^") && strings.HasSuffix(s, "$")
}

// pattern says what is wrong with a word that may be a pattern.
func pattern(s string) string {
	switch {
	case s == "":
		return "an empty word matches nothing; leave it out"
	case isPattern(s):
		if _, err := regexp.Compile(s); err != nil {
			return fmt.Sprintf("pattern %q: %v", s, err)
		}
	case strings.ContainsAny(s, `*?+[](){}|\^$`):
		exactly := "'^" + regexp.QuoteMeta(s) + "$'"
		body := strings.TrimSuffix(strings.TrimPrefix(s, "^"), "$")
		body = "^" + strings.ReplaceAll(strings.ReplaceAll(body, ".*", "*"), "*", ".*") + "$" // many mean the shell's star
		if _, err := regexp.Compile(body); err != nil {
			return fmt.Sprintf("pattern %q is not anchored; write %s for exactly these characters", s, exactly)
		}
		return fmt.Sprintf("pattern %q is not anchored; write '%s', or %s for exactly these characters", s, body, exactly)
	}
	return ""
}
