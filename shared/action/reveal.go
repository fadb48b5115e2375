package action

import (
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/request"

	"sallyport/shared/access"
)

// reveal is the query parameter that asks for one value of a Secret as it is. It is the gate's own: the API server has
// none of that name, and never gets it.
const reveal = "reveal"

// A key of a Secret, as the API server takes it (validation.IsConfigMapKey).
var keyRE = regexp.MustCompile(`^[-._a-zA-Z0-9]{1,253}$`)

// revealed is the key that a request asks to see. A GET of one Secret that says reveal=KEY, and nothing else of the answer,
// is a reveal: a verb of its own, so that no rule about reading Secrets, whose values come masked, is ever taken for leave to
// see one. Everything else that carries the parameter is refused. The caller would not get what it says it wants; and an
// answer in another form than one Secret (a list, a watch, a table) would have to be searched for the one value that may be
// seen.
func revealed(method string, info *request.RequestInfo, values url.Values) (string, error) {
	v, there := values[reveal] // once: what comes twice was refused before
	if !there {
		return "", nil
	}
	one := method == http.MethodGet && info.IsResourceRequest && info.Verb == "get" && info.APIPrefix == "api" && info.APIGroup == "" && info.APIVersion == "v1" &&
		info.Resource == "secrets" && info.Subresource == "" && info.Namespace != "" && info.Name != "" && len(info.Parts) == 2
	_, timeout := values["timeout"] // of client-go's own making (kubectl --request-timeout); it changes no answer
	switch {
	case !one:
		return "", access.Errorf(access.Invalid, "reveal is for one key of one Secret: GET /api/v1/namespaces/NAMESPACE/secrets/NAME?reveal=KEY")
	case len(values) > 2 || len(values) == 2 && !timeout:
		return "", access.Errorf(access.Invalid, "reveal=KEY comes alone, or with timeout; leave the other query parameters out")
	case !keyRE.MatchString(v[0]):
		return "", access.Errorf(access.Invalid, "reveal=%q names no key of a Secret; write reveal=KEY", clip(v[0]))
	}
	return v[0], nil
}

// Forwarded is the target as the cluster gets it: without the parameters that are the gate's own. It takes them away and
// touches nothing else, byte for byte, so what was classified is what is sent.
func Forwarded(target string) string {
	path, query, there := strings.Cut(target, "?")
	if !there || query == "" {
		return target
	}
	var kept []string
	taken := false
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if is, err := url.QueryUnescape(name); err == nil && is == reveal {
			taken = true
			continue
		}
		kept = append(kept, pair)
	}
	switch {
	case !taken:
		return target
	case len(kept) == 0:
		return path
	}
	return path + "?" + strings.Join(kept, "&")
}
