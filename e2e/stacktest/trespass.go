package stacktest

import (
	"fmt"
	"slices"
	"strings"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
)

// Trespasses are requests in the cluster's audit log that the cluster served to agents although no agent may make them,
// by any policy that a test puts in force. They are told from the audit log alone: tiers, verbs and resources stand in
// it. It returns them as sentences.
func (s *Stack) Trespasses() []string {
	events, err := s.audit()
	if err != nil {
		return []string{err.Error()}
	}
	var found []string
	agents := 0
	for _, e := range events {
		_, role, ok := strings.Cut(e.User.Username, ":assumed-role/")
		if !ok || e.UserAgent == PastTheGate {
			continue
		}
		agents++
		tier, _, _ := strings.Cut(role, "/")
		if e.ImpersonatedUser != nil {
			found = append(found, fmt.Sprintf("%s impersonated %s", e.User.Username, e.ImpersonatedUser.Username))
		}
		if e.ResponseStatus != nil && e.ResponseStatus.Code >= 400 {
			continue // the second wall
		}
		if why := trespass(tier, e); why != "" {
			found = append(found, fmt.Sprintf("the cluster did %s %s for %s: %s", e.Verb, e.RequestURI, e.User.Username, why))
		}
	}
	if agents == 0 {
		found = append(found, "the cluster's audit log names no agent; what was looked at?")
	}
	return found
}

// Groups and subresources that no tier changes anything in.
var (
	guardedGroups       = []string{"rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiregistration.k8s.io", "apiextensions.k8s.io", "certificates.k8s.io"}
	guardedSubresources = []string{"proxy", "token", "finalize", "ephemeralcontainers", "binding", "approval"}
	reviews             = []string{"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}
)

// trespass says why a request that was served is one that no agent of the tier may make, and "" when it may.
func trespass(tier string, e auditv1.Event) string {
	o := e.ObjectRef
	if o == nil {
		o = &auditv1.ObjectReference{}
	}
	stream := o.Resource == "pods" && slices.Contains([]string{"exec", "attach", "portforward"}, o.Subresource)
	read := (e.Verb == "get" || e.Verb == "list" || e.Verb == "watch") && !stream
	switch {
	case o.APIGroup == "" && o.Resource == "secrets":
		return "no tier has Secrets"
	case slices.Contains(guardedSubresources, o.Subresource):
		return "no tier has " + o.Resource + "/" + o.Subresource
	case read || e.Verb == "create" && o.Subresource == "" && slices.Contains(reviews, o.Resource):
		return ""
	case slices.Contains(guardedGroups, o.APIGroup):
		return "no tier changes " + o.APIGroup
	case strings.HasSuffix(o.APIGroup, ".example.com"):
		return "" // a test's own kinds
	case tier == "operate" && o.APIGroup == "apps" && (o.Subresource == "scale" && (e.Verb == "update" || e.Verb == "patch") || o.Subresource == "" && e.Verb == "patch"):
		return ""
	case tier == "develop" && o.Namespace == "dev":
		return ""
	}
	return "tier " + tier + " does not do that"
}
