package status_test

import (
	"encoding/json"
	"errors"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"sallyport/proxy/status"
	"sallyport/shared/access"
)

func TestEveryKindHasItsAnswer(t *testing.T) {
	for kind, want := range map[access.Kind]struct {
		code   int
		reason metav1.StatusReason
	}{
		access.Invalid:         {400, metav1.StatusReasonBadRequest},
		access.Unauthenticated: {401, metav1.StatusReasonUnauthorized},
		access.Denied:          {403, metav1.StatusReasonForbidden},
		access.NotFound:        {404, metav1.StatusReasonNotFound},
		access.Method:          {405, metav1.StatusReasonMethodNotAllowed},
		access.Conflict:        {409, metav1.StatusReasonConflict},
		access.TooLarge:        {413, metav1.StatusReasonRequestEntityTooLarge},
		access.Media:           {415, metav1.StatusReasonUnsupportedMediaType},
		access.Limited:         {429, metav1.StatusReasonTooManyRequests},
		access.Internal:        {500, metav1.StatusReasonInternalError},
		access.Upstream:        {502, metav1.StatusReasonInternalError},
		access.Unavailable:     {503, metav1.StatusReasonServiceUnavailable},
		"no such kind":         {500, metav1.StatusReasonInternalError},
	} {
		w := httptest.NewRecorder()
		status.Write(w, access.Errorf(kind, "say %s", kind))
		var s metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		if w.Code != want.code || int(s.Code) != want.code || s.Reason != want.reason || s.Kind != "Status" || s.APIVersion != "v1" || s.Message != "say "+string(kind) {
			t.Errorf("%s: got %d %+v, want %+v", kind, w.Code, s, want)
		}
		if (w.Code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: WWW-Authenticate is %q", kind, w.Header().Get("WWW-Authenticate"))
		}
	}
}

func TestRetryAfterIsRoundedUpAndBounded(t *testing.T) {
	for d, want := range map[time.Duration]string{0: "", time.Millisecond: "1", 1500 * time.Millisecond: "2", 5 * time.Second: "5", 48 * time.Hour: "3600"} {
		w := httptest.NewRecorder()
		status.Write(w, access.Errorf(access.Unavailable, "away").After(d))
		if got := w.Header().Get("Retry-After"); got != want {
			t.Errorf("%v: Retry-After is %q, want %q", d, got, want)
		}
	}
}

func TestWhatIsNotOursShowsNothing(t *testing.T) {
	w := httptest.NewRecorder()
	status.Write(w, errors.New("secret detail"))
	if w.Code != 500 || strings.Contains(w.Body.String(), "secret detail") {
		t.Errorf("got %d %s", w.Code, w.Body)
	}
}

func TestDone(t *testing.T) {
	w := httptest.NewRecorder()
	status.Done(w, 202, "people are asked", []access.Reason{{Type: "Approval", Message: "a"}})
	var s metav1.Status
	if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != 202 || s.Code != 202 || s.Status != "Success" || s.Reason != "" || s.Kind != "Status" ||
		len(s.Details.Causes) != 1 || s.Details.Causes[0].Type != "Approval" || w.Header().Get("Retry-After") != "" {
		t.Errorf("got %d %s, %v", w.Code, w.Body, err)
	}
}
