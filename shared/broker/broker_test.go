package broker_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// A refusal crosses the wire with its kind, its sentence and its retry, and with nothing of its cause.
func TestRefusalsCrossTheWire(t *testing.T) {
	for _, kind := range []access.Kind{access.Invalid, access.Unauthenticated, access.Denied, access.NotFound, access.Conflict, access.Unprocessable, access.Limited, access.Unavailable, access.Internal} {
		a := broker.Refuse(access.Errorf(kind, "because").Because(errors.New("secret detail")).After(3 * time.Second))
		if a.Error == nil || a.Error.Code == "" || strings.Contains(a.Error.Description, "secret") {
			t.Fatalf("%s: %+v", kind, a.Error)
		}
		got := a.Error.Err()
		if got.Kind != kind || got.Message != "because" || got.RetryAfter != 3*time.Second {
			t.Errorf("%s came back as %+v", kind, got)
		}
	}
	if got := (&broker.Error{Kind: "made up"}).Err().Kind; got != access.Internal {
		t.Errorf("a kind nobody knows became %q", got)
	}
}
