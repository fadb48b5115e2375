package inforce

import (
	"regexp"

	"sallyport/shared/access"
)

// Label is what a name that the proxy gives may look like: it ends up in pages, records and tags.
var Label = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Why is an error for the log: what the caller is told, and the cause that it is not.
func Why(err error) []any {
	e := access.AsError(err)
	attrs := []any{"kind", e.Kind, "message", e.Message}
	if e.Cause != nil {
		attrs = append(attrs, "cause", e.Cause.Error())
	}
	return attrs
}
