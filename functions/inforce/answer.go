package inforce

import (
	"crypto/rand"
	"encoding/base32"
	"strings"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/approval"
	"sallyport/shared/broker"
)

// NewID is 128 random bits in lower-case base32: unguessable, and safe in keys, paths and tags.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}

// Answer is what the proxy may know of an approval.
func Answer(a access.Approval, now time.Time) broker.Approval {
	state, message := approval.Status(a, now)
	out := broker.Approval{ID: a.ID, State: state, Message: message, Expires: a.Expires, Until: a.Until}
	if n := len(a.Uses); n > 0 && state == access.StateSpent {
		out.By = a.Uses[n-1].Request
	}
	for _, v := range a.Votes {
		if v.Yes {
			out.Approvers = append(out.Approvers, v.By.Email)
		}
	}
	return out
}
