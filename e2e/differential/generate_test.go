package differential_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	corev1 "k8s.io/api/core/v1"
)

// generator makes up requests. The same seed on the same kind of cluster makes the same ones.
type generator struct {
	*rand.Rand
	kinds []kind
	known []request
	n     int
}

func newGenerator(r *rand.Rand, kinds []kind, known map[string]request) *generator {
	g := &generator{Rand: r, kinds: kinds}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		g.known = append(g.known, known[name])
	}
	return g
}

func pick[T any](g *generator, from ...T) T { return from[g.IntN(len(from))] }

// chance is true in so many of a hundred cases.
func (g *generator) chance(percent int) bool { return g.IntN(100) < percent }

// next is the next request: plain, or one of the corpus, and in half of the cases bent.
func (g *generator) next() request {
	g.n++
	var r request
	if g.chance(25) {
		r = pick(g, g.known...)
	} else {
		r = g.plain()
	}
	for range pick(g, 0, 0, 0, 0, 1, 1, 2, 3) {
		r = g.bend(r)
	}
	return r
}

// favourites are what there are objects of.
var favourites = []kind{
	{version: "v1", resource: "configmaps", name: "ConfigMap", namespaced: true},
	{version: "v1", resource: "configmaps", name: "ConfigMap", namespaced: true},
	{version: "v1", resource: "secrets", name: "Secret", namespaced: true},
	{version: "v1", resource: "pods", name: "Pod", namespaced: true, subresources: []string{"attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize", "status"}},
	{version: "v1", resource: "services", name: "Service", namespaced: true, subresources: []string{"proxy", "status"}},
	{version: "v1", resource: "serviceaccounts", name: "ServiceAccount", namespaced: true, subresources: []string{"token"}},
	{version: "v1", resource: "namespaces", name: "Namespace", subresources: []string{"finalize", "status"}},
	{version: "v1", resource: "nodes", name: "Node", subresources: []string{"proxy", "status"}},
	{group: "apps", version: "v1", resource: "deployments", name: "Deployment", namespaced: true, subresources: []string{"scale", "status"}},
	{group: "coordination.k8s.io", version: "v1", resource: "leases", name: "Lease", namespaced: true},
}

var names = []string{"a", "b", "s", "gated", "web", "none", "default", "x:y", "a=b", "a.b", "kube-root-ca.crt", "exec", "log", "watch", "proxy", "status", scratch}

func (g *generator) plain() request {
	if g.chance(6) {
		return request{Method: pick(g, "GET", "GET", "POST"), Target: pick(g, "/version", "/api", "/apis", "/api/v1", "/apis/apps", "/apis/apps/v1", "/openapi/v3", "/healthz", "/livez/ping", "/readyz", "/metrics", "/logs/", "/configz", "/")}
	}
	k := pick(g, favourites...)
	if g.chance(40) {
		k = pick(g, g.kinds...)
	}
	r := request{Method: pick(g, "GET", "GET", "GET", "GET", "GET", "DELETE", "DELETE", "POST", "POST", "PUT", "PATCH", "PATCH")}
	path := "/apis/" + k.group + "/" + k.version
	if k.group == "" {
		path = "/api/" + k.version
	}
	switch {
	case k.namespaced && g.chance(85):
		path += "/namespaces/" + scratch
	case k.namespaced && g.chance(30):
		path += "/namespaces/" + pick(g, "dev", "kube-system", "nowhere")
	}
	path += "/" + k.resource
	if r.Method != "POST" && g.chance(65) || g.chance(20) {
		path += "/" + pick(g, names...)
		if len(k.subresources) > 0 && g.chance(30) {
			path += "/" + pick(g, k.subresources...)
		}
	}
	r.Target = path
	for sep := "?"; g.chance(35); sep = "&" {
		r.Target += sep + g.parameter()
	}
	return g.body(r, k)
}

func (g *generator) parameter() string {
	return pick(g,
		"watch=1", "watch=true", "watch=false", "watch=0", "watch", "watch=", "watch=yes", "Watch=1", "%77atch=1", "watch=1&watch=0", "watch=T", "follow=true", "follow", "timeoutSeconds=1", "timeout=1s",
		"dryRun=All", "dryRun=all", "dryRun=", "dryRun", "dryRun=All&dryRun=All", "dryRun=None", "DryRun=All", "dryRun=All,All", "dry%52un=All", "dryRun=+All",
		"fieldSelector=metadata.name=a", "fieldSelector=metadata.name%3Da", "fieldSelector=metadata.name!=a", "fieldSelector=metadata.name=a,metadata.name=b", "fieldSelector=metadata.name==a", "fieldSelector=metadata.namespace=dev",
		"fieldSelector=metadata.name=%61", "fieldSelector=metadata.name=", "fieldSelector=", "fieldSelector=metadata.name=a/b", "fieldSelector=spec.nodeName=", "fieldSelector=a",
		"labelSelector=app=a", "labelSelector=app%20in%20(a,b)", "labelSelector=", "labelSelector=!app", "labelSelector=%", "limit=1", "limit=x", "continue=x", "resourceVersion=0", "resourceVersionMatch=NotOlderThan", "sendInitialEvents=true",
		"allowWatchBookmarks=true", "pretty=true", "fieldManager=x", "force=true", "fieldValidation=Strict", "propagationPolicy=Orphan", "propagationPolicy=Background", "gracePeriodSeconds=0", "orphanDependents=true", "preconditions=x",
		"container=c", "command=true", "command=true&command=x", "stdin=true", "stdout=1", "tty=true", "ports=80", "tailLines=1", "path=/x", "name=a", "namespace=dev", "x", "=", "", "a=b;c=d", "%zz", "a=%00", "a=%ff", "a+b=c+d", "ü=ü",
		"verb=delete", "_method=DELETE", "kind=DeleteOptions", "apiVersion=v1", "ignoreStoreReadErrorWithClusterBreakingPotential=true")
}

var (
	mediaTypes = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml",
		"application/cbor", "", "text/plain", "application/json; charset=utf-8", "Application/JSON", "application/json;stream=watch", "*/*", "application/x-www-form-urlencoded"}
	deleteOptions = []string{"", "", "", `{}`, ` `, `null`, `[]`, `""`, `{"dryRun":["All"]}`, `{"dryRun":[]}`, `{"dryRun":null}`, `{"dryRun":["None"]}`, `{"dryRun":["All","All"]}`, `{"DryRun":["All"]}`, `{"dryrun":["All"]}`,
		`{"dryRun":["All"],"dryRun":[]}`, `{"dryRun":[],"dryRun":["All"]}`, `{"dry\u0052un":["All"]}`, `{"kind":"DeleteOptions","apiVersion":"v1","dryRun":["All"]}`, `{"kind":"DeleteOptions","apiVersion":"meta.k8s.io/v1","dryRun":["All"]}`,
		`{"kind":"DeleteOptions","apiVersion":"apps/v1","dryRun":["All"]}`, `{"kind":"DeleteOptions","apiVersion":"v1"}`, `{"kind":"ConfigMap","apiVersion":"v1","dryRun":["All"]}`, `{"propagationPolicy":"Background"}`, `{"propagationPolicy":"Orphan","dryRun":["All"]}`,
		`{"preconditions":{"uid":"x"}}`, `{"gracePeriodSeconds":0}`, `{"unknown":1}`, "dryRun: [All]\n", "dryRun:\n- All\n", "{", "dryRun: []\ndryRun: [All]\n", "\xef\xbb\xbf{\"dryRun\":[\"All\"]}"}
)

// body gives a request a body that its method has, mostly.
func (g *generator) body(r request, k kind) request {
	gv := k.version
	if k.group != "" {
		gv = k.group + "/" + k.version
	}
	name := pick(g, "a", "b", "s", "web", fmt.Sprintf("new-%d", g.n))
	if _, last, ok := strings.Cut(r.Target, k.resource+"/"); ok && g.chance(80) {
		name, _, _ = strings.Cut(strings.SplitN(last, "?", 2)[0], "/")
	}
	spec := ""
	switch k.name {
	case "Pod":
		spec = `,"spec":{"schedulingGates":[{"name":"example.com/never"}],"containers":[{"name":"c","image":"localhost/none:1"}]}`
	case "ConfigMap":
		spec = fmt.Sprintf(`,"data":{"color":"c%d"}`, g.n)
	case "Deployment":
		spec = `,"spec":{"replicas":0,"selector":{"matchLabels":{"app":"web"}},"template":{"metadata":{"labels":{"app":"web"}},"spec":{"schedulingGates":[{"name":"example.com/never"}],"containers":[{"name":"c","image":"localhost/none:1"}]}}}`
	}
	object := fmt.Sprintf(`{"apiVersion":%q,"kind":%q,"metadata":{"name":%q}%s}`, gv, k.name, name, spec)
	switch r.Method {
	case "DELETE":
		r.Body = []byte(pick(g, deleteOptions...))
		if g.chance(8) {
			r.Body, r.ContentType = protobuf(&metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, DryRun: pick(g, nil, []string{"All"}, []string{})}), mediaTypes[2]
			return r
		}
		r.ContentType = pick(g, "application/json", "application/json", "application/json", "", "application/yaml", pick(g, mediaTypes...))
	case "POST", "PUT":
		r.Body, r.ContentType = []byte(object), pick(g, "application/json", "application/json", "application/json", "application/yaml", "", pick(g, mediaTypes...))
		switch {
		case g.chance(5):
			r.Body = []byte(pick(g, "", "{}", "null", "[]", "{", object[:len(object)-1]+`,"kind":"List"}`, `{"apiVersion":"v1","kind":"List","items":[`+object+`]}`, object+object, "# a comment\n"+object))
		case g.chance(8):
			cm := &corev1.ConfigMap{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"color": "p"}}
			r.Body, r.ContentType = protobuf(cm), mediaTypes[2]
		}
	case "PATCH":
		label := fmt.Sprintf(`{"metadata":{"labels":{"n":"%d"}}}`, g.n)
		switch g.IntN(5) {
		case 0:
			r.ContentType, r.Body = mediaTypes[3], []byte(label)
		case 1:
			r.ContentType, r.Body = mediaTypes[4], []byte(pick(g, `[]`, fmt.Sprintf(`[{"op":"add","path":"/metadata/labels","value":{"n":"%d"}}]`, g.n), `[{"op":"test","path":"/metadata/name","value":"a"}]`))
		case 2:
			r.ContentType, r.Body = mediaTypes[5], []byte(label)
		case 3:
			r.ContentType, r.Body = mediaTypes[6], []byte(object)
			if !strings.Contains(r.Target, "?") && g.chance(80) {
				r.Target += "?fieldManager=x&force=true"
			}
		default:
			r.ContentType, r.Body = pick(g, mediaTypes...), []byte(pick(g, label, object, "{}", "", "[]"))
		}
	default:
		if g.chance(3) {
			r.Body, r.ContentType = []byte(pick(g, deleteOptions...)), "application/json"
		}
	}
	return r
}

// bend changes one thing about a request.
func (g *generator) bend(r request) request {
	path, query, asked := strings.Cut(r.Target, "?")
	segments := strings.Split(strings.TrimPrefix(path, "/"), "/")
	i := g.IntN(len(segments))
	insert := func(at int, s ...string) { segments = slices.Insert(segments, at, s...) }
	switch g.IntN(20) {
	case 0: // case
		segments[i] = pick(g, strings.ToUpper(segments[i]), strings.ToTitle(segments[i][:min(1, len(segments[i]))])+segments[i][min(1, len(segments[i])):])
	case 1:
		segments = append(segments, "")
	case 2:
		insert(i, "")
	case 3:
		insert(i, pick(g, ".", "..", "%2e", "%2e%2e", "x", "-", "*"))
	case 4: // a segment twice
		insert(i, segments[i])
	case 5, 6: // the old way to watch, and to reach a proxy
		at := min(2, len(segments))
		if segments[0] == "apis" {
			at = min(3, len(segments))
		}
		insert(at, pick(g, "watch", "watch", "watch", "proxy", "redirect"))
	case 7: // escapes
		if s := segments[i]; s != "" {
			j := g.IntN(len(s))
			segments[i] = s[:j] + pick(g, fmt.Sprintf("%%%02x", s[j]), fmt.Sprintf("%%%02X", s[j]), "%2F", "%00", "%25", "%20", ";", ":", "@", "+", "~", "!", "ü", "\xff", "\\", "|", "\"") + s[j+1:]
		}
	case 8: // a segment less
		segments = slices.Delete(segments, i, i+1)
	case 9, 10:
		segments = append(segments, pick(g, "exec", "attach", "portforward", "proxy", "log", "status", "scale", "finalize", "token", "eviction", "ephemeralcontainers", "approval", "binding", "unicorn", "exec/", "proxy/x/y", "log/x"))
	case 11: // another group or version
		switch {
		case segments[0] == "apis" && len(segments) > 2:
			segments[1+g.IntN(2)] = pick(g, "example.com", "v1beta1", "v2", "apps", "core", "", "k8s.io", "batch", "v1")
		case len(segments) > 1:
			segments[1] = pick(g, "v1", "v2", "v1beta1", "V1", "core")
		}
	case 12: // two neighbours change places
		if i > 0 {
			segments[i-1], segments[i] = segments[i], segments[i-1]
		}
	case 13:
		r.Method = pick(g, "GET", "POST", "PUT", "PATCH", "DELETE", "DELETE", "HEAD", "OPTIONS", "get", "WATCH")
	case 14, 15, 16:
		if asked && g.chance(30) {
			query += "&"
		} else if asked && query != "" {
			query += "&"
		}
		query, asked = query+g.parameter(), true
	case 17:
		r.ContentType = pick(g, mediaTypes...)
	case 18:
		r.Body = []byte(pick(g, deleteOptions...))
	case 19: // one byte of the target
		if s := segments[i]; s != "" {
			j := g.IntN(len(s))
			segments[i] = s[:j] + string(rune('!'+g.IntN(94))) + s[j:]
		}
	}
	r.Target = "/" + strings.Join(segments, "/")
	if asked {
		r.Target += "?" + query
	}
	r.Target = strings.NewReplacer(" ", "%20", "\r", "%0d", "\n", "%0a").Replace(r.Target)
	return r
}

// protobuf encodes an object as client-go does.
func protobuf(o runtime.Object) []byte {
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	b, err := runtime.Encode(info.Serializer, o)
	if err != nil {
		panic(err)
	}
	return b
}
