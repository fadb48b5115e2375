package recording

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
)

// Annotations of an event.
const (
	AnnotationCluster     = "sallyport.io/cluster"
	AnnotationSession     = "sallyport.io/session"
	AnnotationRoleSession = "sallyport.io/role-session" // the role session name the cluster's own audit log shows
	AnnotationDecision    = "sallyport.io/decision"     // absent when the request was refused before policy was asked
	AnnotationRule        = "sallyport.io/rule"
	AnnotationObserved    = "sallyport.io/observed" // what observe mode let through: the effect, and the rule behind it
	AnnotationTier        = "sallyport.io/tier"
	AnnotationPolicy      = "sallyport.io/policy"      // the policy's digest
	AnnotationBytesSent   = "sallyport.io/bytes-sent"  // to the caller
	AnnotationDuration    = "sallyport.io/duration-ms" // from receipt to this stage
	AnnotationError       = "sallyport.io/error"       // what went wrong at the gate or behind it
	AnnotationApproval    = "sallyport.io/approval"    // the approval that was asked for, or that let the request through
	AnnotationApprovedBy  = "sallyport.io/approved-by" // the people who said yes, separated by commas; set only on what their yes let through
)

// Keys of the user's extra fields.
const (
	ExtraIssuer  = "issuer"
	ExtraSubject = "subject"
	ExtraOwner   = "owner"
	ExtraRun     = "run/" // followed by the claim
)

// Who an event names when nobody was authenticated. No agent can have this name: the prefix is refused at exchange.
const (
	anonymous       = "system:anonymous"
	unauthenticated = "system:unauthenticated"
)

// What an event keeps at most of a string that came from outside, so that every event can be recorded.
const (
	maxURI     = 16 << 10
	maxText    = 2 << 10
	maxEntries = 128
)

// Facts is what the gate knows of a request at one stage. It has no place for headers and bodies.
type Facts struct {
	ID        string // the audit id: the same at every stage of a request, different for any other request
	Method    string
	URI       string // the request target exactly as it was received
	UserAgent string
	Sources   []string // IP addresses, the caller's first
	Cluster   string   // empty when the request named none of ours

	// Stage is RequestReceived for a change's intent, before it is forwarded; ResponseStarted when a stream opens;
	// ResponseComplete at the end; Panic when the gate itself failed.
	Stage    auditv1.Stage
	Received time.Time // when the request reached the gate
	At       time.Time // when it reached Stage

	Principal access.Principal // who asks; zero takes the session's, and nobody when there is none either
	Session   access.Session   // zero when the request never had one
	Action    access.Action    // zero when the request could not be read
	Decision  access.Decision  // zero when policy was not asked
	Approval  string           // id of the approval the request is about; empty when nobody was asked
	Approvers []string         // who said yes, when that lets the request through

	Code    int                 // HTTP status of the response; zero when there is none yet
	Reason  metav1.StatusReason // of a refusal by the gate
	Message string              // of a refusal by the gate: the sentence the caller was shown
	Sent    int64               // bytes of body sent to the caller
	Error   string              // what went wrong, for the auditor
}

// FactsOf begins the facts of a request as the server received it.
func FactsOf(r *http.Request) Facts {
	return Facts{Method: r.Method, URI: r.RequestURI, UserAgent: r.UserAgent()}
}

// Event is the record of f. It keeps nothing of f's slices and maps.
func Event(f Facts) *auditv1.Event {
	principal := f.Principal
	if principal.Issuer == "" && principal.Subject == "" {
		principal = f.Session.Principal
	}
	ev := &auditv1.Event{
		TypeMeta:                 metav1.TypeMeta{Kind: "Event", APIVersion: auditv1.SchemeGroupVersion.String()},
		Level:                    auditv1.LevelMetadata,
		AuditID:                  types.UID(clean(f.ID)),
		Stage:                    f.Stage,
		RequestURI:               cut(RedactURI(f.URI), maxURI, len(f.URI)),
		Verb:                     clean(f.Action.Verb),
		User:                     user(principal),
		UserAgent:                clean(f.UserAgent),
		ObjectRef:                object(f.Action),
		ResponseStatus:           status(f),
		RequestReceivedTimestamp: metav1.NewMicroTime(f.Received),
		StageTimestamp:           metav1.NewMicroTime(f.At),
		Annotations:              annotations(f),
	}
	if ev.Verb == "" {
		ev.Verb = strings.ToLower(clean(f.Method))
	}
	for _, ip := range f.Sources[:min(len(f.Sources), maxEntries)] {
		ev.SourceIPs = append(ev.SourceIPs, clean(ip))
	}
	return ev
}

func user(p access.Principal) authnv1.UserInfo {
	if p.Issuer == "" && p.Subject == "" {
		return authnv1.UserInfo{Username: anonymous, Groups: []string{unauthenticated}}
	}
	u := authnv1.UserInfo{
		Username: clean(p.Agent),
		UID:      p.Key(),
		Extra: map[string]authnv1.ExtraValue{
			ExtraIssuer:  {clean(p.Issuer)},
			ExtraSubject: {clean(p.Subject)},
		},
	}
	if p.Owner != "" {
		u.Extra[ExtraOwner] = authnv1.ExtraValue{clean(p.Owner)}
	}
	run := slices.Sorted(maps.Keys(p.Run))
	for _, claim := range run[:min(len(run), maxEntries)] {
		u.Extra[ExtraRun+clean(claim)] = authnv1.ExtraValue{clean(p.Run[claim])}
	}
	for _, g := range p.Groups[:min(len(p.Groups), maxEntries)] {
		u.Groups = append(u.Groups, clean(g))
	}
	return u
}

func object(a access.Action) *auditv1.ObjectReference {
	if a.Resource == "" {
		return nil
	}
	return &auditv1.ObjectReference{
		APIGroup:    clean(a.Group),
		APIVersion:  clean(a.Version),
		Resource:    clean(a.Resource),
		Subresource: clean(a.Subresource),
		Namespace:   clean(a.Namespace),
		Name:        clean(a.Name),
	}
}

func status(f Facts) *metav1.Status {
	if f.Code == 0 && f.Reason == "" && f.Message == "" {
		return nil
	}
	s := &metav1.Status{
		Code:    int32(f.Code), //nolint:gosec // an HTTP status
		Reason:  metav1.StatusReason(clean(string(f.Reason))),
		Message: clean(f.Message),
	}
	switch {
	case f.Code >= 400 || f.Reason != "":
		s.Status = metav1.StatusFailure
	case f.Code != 0:
		s.Status = metav1.StatusSuccess
	}
	return s
}

func annotations(f Facts) map[string]string {
	a := make(map[string]string, 12)
	set := func(key string, values ...string) {
		for _, v := range values {
			if v != "" {
				a[key] = clean(v)
				return
			}
		}
	}
	set(AnnotationCluster, f.Cluster, f.Session.Cluster)
	set(AnnotationSession, f.Session.ID)
	set(AnnotationRoleSession, f.Session.Name)
	if f.Decision.Effect != "" || f.Decision.Rule != "" {
		set(AnnotationDecision, string(f.Decision.Effect), string(access.Deny))
	}
	set(AnnotationRule, f.Decision.Rule)
	if o := f.Decision.Observed; o != nil {
		set(AnnotationObserved, string(o.Effect)+" "+o.Rule)
	}
	set(AnnotationTier, f.Decision.Tier, f.Session.Tier)
	set(AnnotationPolicy, f.Decision.Policy, f.Session.Policy)
	set(AnnotationError, f.Error)
	set(AnnotationApproval, f.Approval)
	set(AnnotationApprovedBy, strings.Join(f.Approvers[:min(len(f.Approvers), maxEntries)], ","))
	if f.Stage != auditv1.StageRequestReceived {
		set(AnnotationDuration, strconv.FormatInt(max(0, f.At.Sub(f.Received).Milliseconds()), 10))
	}
	if f.Stage == auditv1.StageResponseComplete || f.Stage == auditv1.StagePanic {
		set(AnnotationBytesSent, strconv.FormatInt(f.Sent, 10))
	}
	return a
}
