// Package action answers "what?": it reads a request exactly as the cluster will and says what it would do.
//
// It promises that what it calls an action is what a Kubernetes API server does with the same bytes: classification is
// the API server's own (k8s.io/apiserver/pkg/endpoints/request), and whatever two readers could read differently, an
// escaped path, an empty segment, a repeated parameter, is refused before it is classified, never cleaned up. It works
// on the target that is forwarded, so that there is no second reading to disagree with.
//
// Bodies are held to the same promise. They are decoded by the API server's own libraries (sigs.k8s.io/json,
// sigs.k8s.io/yaml, the Kubernetes scheme's protobuf), strictly: duplicate keys, aliases, second documents, bytes that are
// no UTF-8, a kind, name or namespace other than the URL's are refused. Protobuf is understood only when encoding it again
// gives the same bytes; so a field this release does not know is never overlooked. JSON and merge patches are applied by the
// API server's library to the live object and go upstream tied to its version; only the tests of a JSON patch are left to the
// cluster, or they would tell guesses at masked values. Strategic and apply patches cannot be tied so; what they touch among
// the guarded fields is reported as unsure, which a rule must take for the worst. What cannot be decoded is an error of kind
// access.Media, and a gate must not take that for harmless.
//
// One thing is said in the gate's words and not in the cluster's: a get of a Secret that asks for a value unmasked is the verb
// reveal, and Forwarded is the same request without that wish.
//
// It does not promise to see what is hidden in strings (manifests in a ConfigMap, values of a Helm release), what a
// controller makes of a custom resource whose fields are not called as a pod's are, what admission adds later, or which
// Secret an imagePullSecrets, an Ingress or a custom resource names: only what containers would mount or read counts.
//
// A mistake here can make the gate allow what policy denies. For verbs, resources and namespaces the tier's RBAC is the
// wall behind it. For bodies, names and arguments there is none but the cluster's own admission: RBAC does not look at them,
// so a trait that is missed here is a pod that runs.
package action

import (
	"net/http"
	"net/url"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"sallyport/shared/access"
)

// What a request may be long. Longer ones are refused; the API server's own limit for headers is 1 MiB.
const (
	maxTarget = 64 << 10
	maxArgv   = 1024
)

var factory = &request.RequestInfoFactory{
	APIPrefixes:          sets.NewString("api", "apis"),
	GrouplessAPIPrefixes: sets.NewString("api"),
}

// Methods are the methods the Kubernetes API is served by. HEAD, OPTIONS, TRACE and CONNECT are not among them.
var methods = []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete}

// repeatable are the only query parameters that may come more than once: the words of a command, and the ports of a
// port-forward.
var repeatable = []string{"command", "ports"}

// Parse reads a request line's method and origin-form target (RFC 9112 §3.2.1) as the cluster will see it.
func Parse(method, target string) (access.Action, error) {
	var a access.Action
	if !slices.Contains(methods, method) {
		return a, access.Errorf(access.Method, "method %q is not used by the Kubernetes API; use %s", clip(method), strings.Join(methods, ", "))
	}
	if len(target) > maxTarget {
		return a, access.Errorf(access.Invalid, "the request target is %d bytes long; %d is the limit", len(target), maxTarget)
	}
	path, query, _ := strings.Cut(target, "?")
	if err := canonical(path); err != nil {
		return a, err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return a, access.Errorf(access.Invalid, "the query cannot be read: %v; escape it as RFC 3986 says, and separate parameters by & alone", err)
	}
	for name, v := range values {
		if len(v) > 1 && !slices.Contains(repeatable, name) {
			return a, access.Errorf(access.Invalid, "query parameter %q comes %d times; give it once", clip(name), len(v))
		}
	}
	u := &url.URL{Path: path, RawQuery: query}
	info, err := factory.NewRequestInfo(&http.Request{Method: method, URL: u})
	if err != nil {
		return a, access.Errorf(access.Invalid, "the request cannot be classified: %v", err)
	}
	if info.Verb == "" {
		return a, access.Errorf(access.Invalid, "the request has no verb")
	}
	reveal, err := revealed(method, info, values)
	if err != nil {
		return a, err
	}
	if v, ok := values["dryRun"]; ok && v[0] != "All" {
		return a, access.Errorf(access.Invalid, "dryRun=%q means nothing to the API server; write dryRun=All or leave it out", clip(v[0]))
	}
	a = access.Action{
		Verb: info.Verb, Group: info.APIGroup, Version: info.APIVersion, Resource: info.Resource, Subresource: info.Subresource,
		Namespace: info.Namespace, Name: info.Name, Path: path, Resourceless: !info.IsResourceRequest,
	}
	if reveal != "" {
		a.Verb, a.Reveal = "reveal", reveal
	}
	if a.Verb == "watch" && method != http.MethodGet {
		// The API server's parser takes the old path prefix /watch/ for the verb, whatever the method.
		return a, access.Errorf(access.Method, "a watch is asked for with GET, not %s", method)
	}
	if info.IsResourceRequest && info.Resource == "" {
		return a, access.Errorf(access.Invalid, "the path %q names no resource", clip(path))
	}
	if a.Group == "" && a.Resource == "pods" && slices.Contains([]string{"exec", "attach", "portforward"}, a.Subresource) &&
		(method == http.MethodGet || method == http.MethodPost) {
		if a.Verb == "watch" { // the old path prefix /watch/, or ?watch: the cluster's RBAC would be asked for another verb than ours
			return a, access.Errorf(access.Invalid, "%s is no collection and cannot be watched", a.Subresource)
		}
		// One policy verb each, whichever way they are asked: GET for WebSocket, POST for SPDY.
		a.Verb, a.Upgrade, a.Stream = a.Subresource, true, true
		a.Argv = values["command"]
		if len(a.Argv) > maxArgv {
			return a, access.Errorf(access.Invalid, "the command has %d words; %d is the limit", len(a.Argv), maxArgv)
		}
	}
	if a.Upgrade && a.Verb != "portforward" {
		a.Container, a.Stdin, a.TTY = values.Get("container"), truthy(values, "stdin"), truthy(values, "tty")
	}
	if collection := slices.Contains([]string{"list", "watch", "deletecollection"}, a.Verb); collection && len(info.Parts) < 2 {
		// The classifier takes a name out of a field selector. It narrows what is answered, and only as the caller likes:
		// without a name in the path the request is for the collection.
		a.Name, a.LabelSelector, a.FieldSelector = "", values.Get("labelSelector"), values.Get("fieldSelector")
	}
	a.DryRun = len(values["dryRun"]) > 0 && stores(a)
	if a.Verb == "watch" || a.Subresource == "log" && truthy(values, "follow") {
		a.Stream = true
	}
	return a, nil
}

// stores says whether the API server itself does what the action says, so that its dry run stores nothing and hands out
// nothing. An aggregated API server is taken at its word for its resources. What is connected to (exec, proxy) never hears of a dry run, a token is minted in one too, and what an aggregated
// API server does under a subresource of its own is its affair.
func stores(a access.Action) bool {
	if a.Resourceless || !slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, a.Verb) {
		return false
	}
	switch a.Subresource {
	case "", "status", "scale":
		return true
	case "exec", "attach", "portforward", "proxy", "token":
		return false
	}
	return groups[a.Group]
}

// truthy reads a boolean parameter as the API server does.
func truthy(values url.Values, name string) bool {
	v, ok := values[name]
	if !ok {
		return false
	}
	var b bool
	if err := runtime.Convert_Slice_string_To_bool(&v, &b, nil); err != nil {
		return true
	}
	return b
}

// canonical refuses a path that could be read in two ways. The alphabet is an allow-list: RFC 3986's pchar without the
// percent sign and the semicolon. Names that need escaping exist only for a few kinds, such as RBAC's, and are refused.
func canonical(path string) error {
	if !strings.HasPrefix(path, "/") {
		return access.Errorf(access.Invalid, "the request target must be a path that begins with /")
	}
	for i := range len(path) {
		c := path[i]
		if 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("/-._~:@!$&'()*+,=", c) >= 0 {
			continue
		}
		if c == '%' {
			return access.Errorf(access.Invalid, "the path has an escaped character at byte %d; write it unescaped", i)
		}
		return access.Errorf(access.Invalid, "the path has the character %q at byte %d, which is not allowed in a path", c, i)
	}
	segments := strings.Split(path[1:], "/")
	for i, s := range segments {
		switch {
		case s == "" && i == len(segments)-1: // one trailing slash; the API server ignores it, and so does the classifier
		case s == "":
			return access.Errorf(access.Invalid, "the path has an empty segment")
		case s == "." || s == "..":
			return access.Errorf(access.Invalid, "the path has a %q segment", s)
		}
	}
	return nil
}

// clip keeps hostile text in messages short.
func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
