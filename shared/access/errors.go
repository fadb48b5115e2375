package access

import (
	"errors"
	"fmt"
	"time"
)

// A Kind says what sort of thing went wrong. Each is mapped in exactly one place to a Kubernetes Status (proxy/status),
// to a broker answer (shared/broker) and to an exit code (cmd/sallyport).
type Kind string

// The kinds of error there are.
const (
	Invalid         Kind = "invalid"         // the request cannot be read or is not canonical
	Method          Kind = "method"          // the HTTP method is none that Kubernetes uses
	TooLarge        Kind = "too_large"       // the request is larger than is read
	Media           Kind = "media"           // the request is in a form that is not read
	Unauthenticated Kind = "unauthenticated" // no proof, or no good proof, of who asks
	Denied          Kind = "denied"          // who asks is known, and may not
	NotFound        Kind = "not_found"       // no such cluster, session, recording
	Conflict        Kind = "conflict"        // somebody else was first
	Limited         Kind = "limited"         // too many; ask again later
	Unavailable     Kind = "unavailable"     // something we need is away; nothing was done
	Upstream        Kind = "upstream"        // the cluster answered what must not be passed on
	Internal        Kind = "internal"        // a fault of ours; nothing was done
)

// An Error is an answer to the caller: Message is safe to show and says what to do next. Cause is for the log alone.
// Neither ever holds a token, a credential, a body or Secret data.
type Error struct {
	Kind    Kind
	Message string
	// RetryAfter is how long to wait before asking again; zero when asking again does not help.
	RetryAfter time.Duration
	// Reasons are for machines: type and sentence, such as {"Rule", "no-proxy"}. They become the Status's causes.
	Reasons []Reason
	Cause   error
}

// A Reason is one machine-readable reason of an Error.
type Reason struct {
	Type    string // Rule, NearMiss
	Message string
}

// Errorf returns an Error of a kind. A %w in the format becomes its Cause and is part of the message, so it must
// only wrap what may be shown.
func Errorf(kind Kind, format string, a ...any) *Error {
	err := fmt.Errorf(format, a...)
	return &Error{Kind: kind, Message: err.Error(), Cause: errors.Unwrap(err)}
}

// Because sets the cause, which is for the log alone, and returns e.
func (e *Error) Because(cause error) *Error {
	e.Cause = cause
	return e
}

// After sets RetryAfter and returns e.
func (e *Error) After(d time.Duration) *Error {
	e.RetryAfter = d
	return e
}

func (e *Error) Error() string { return e.Message }

func (e *Error) Unwrap() error { return e.Cause }

// AsError finds the Error in err. An error that is not one of ours is Internal and shows nothing of itself.
func AsError(err error) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Kind: Internal, Message: "the gate made a mistake; nothing was forwarded. The operator finds the cause in the gate's log", Cause: err}
}

// KindOf is the kind of err, and "" for nil.
func KindOf(err error) Kind {
	if err == nil {
		return ""
	}
	return AsError(err).Kind
}
