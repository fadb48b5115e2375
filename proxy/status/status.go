// Package status answers a refused request the way the Kubernetes API does: with a metav1.Status a machine can act on
// and a sentence a person can. It is the one place where kinds of error become HTTP codes and Status reasons.
package status

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/shared/access"
)

type answer struct {
	code   int32
	reason metav1.StatusReason
}

var answers = map[access.Kind]answer{
	access.Invalid:         {http.StatusBadRequest, metav1.StatusReasonBadRequest},
	access.Method:          {http.StatusMethodNotAllowed, metav1.StatusReasonMethodNotAllowed},
	access.TooLarge:        {http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge},
	access.Media:           {http.StatusUnsupportedMediaType, metav1.StatusReasonUnsupportedMediaType},
	access.Unauthenticated: {http.StatusUnauthorized, metav1.StatusReasonUnauthorized},
	access.Denied:          {http.StatusForbidden, metav1.StatusReasonForbidden},
	access.NotFound:        {http.StatusNotFound, metav1.StatusReasonNotFound},
	access.Conflict:        {http.StatusConflict, metav1.StatusReasonConflict},
	access.Limited:         {http.StatusTooManyRequests, metav1.StatusReasonTooManyRequests},
	access.Unavailable:     {http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable},
	access.Upstream:        {http.StatusBadGateway, metav1.StatusReasonInternalError},
}

// Of is the Status of an error. What is not one of our errors is an internal error that shows nothing of its cause.
func Of(err error) metav1.Status {
	e := access.AsError(err)
	a, ok := answers[e.Kind]
	if !ok {
		a = answer{http.StatusInternalServerError, metav1.StatusReasonInternalError}
	}
	s := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure,
		Code:     a.code,
		Reason:   a.reason,
		Message:  e.Message,
		// client-go builds an error's causes from Details; the retry is in the header as well, for everybody else.
		Details: &metav1.StatusDetails{RetryAfterSeconds: seconds(e.RetryAfter)},
	}
	s.Details.Causes = causes(e.Reasons)
	return s
}

func causes(reasons []access.Reason) []metav1.StatusCause {
	var out []metav1.StatusCause
	for _, r := range reasons {
		out = append(out, metav1.StatusCause{Type: metav1.CauseType(r.Type), Message: r.Message})
	}
	return out
}

// Write answers a request with the Status of err. Retry-After is sent only where asking again can help: client-go
// re-sends any request, writes too, on a 429 or 5xx that carries it, so this must never be called after a request was
// forwarded with an error that has one.
func Write(w http.ResponseWriter, err error) metav1.Status {
	s := Of(err)
	send(w, s)
	return s
}

// Done answers a request that was for the gate itself, and was done.
func Done(w http.ResponseWriter, code int, message string, reasons []access.Reason) metav1.Status {
	s := metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess, Code: int32(code), Message: message, //nolint:gosec // an HTTP status
		Details: &metav1.StatusDetails{Causes: causes(reasons)},
	}
	send(w, s)
	return s
}

func send(w http.ResponseWriter, s metav1.Status) {
	b, _ := json.Marshal(s) // a Status always marshals
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if s.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	if s.Code == http.StatusUnauthorized {
		h.Set("WWW-Authenticate", `Bearer realm="sallyport"`) // RFC 9110 §11.6.1
	}
	w.WriteHeader(int(s.Code))
	_, _ = w.Write(append(b, '\n'))
}

func seconds(d time.Duration) int32 {
	return int32(min((d+time.Second-1)/time.Second, 3600)) //nolint:gosec // bounded
}
