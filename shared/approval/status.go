package approval

import (
	"fmt"
	"time"

	"sallyport/shared/access"
)

// Status is an approval's state at a time, whether or not anybody stored yet that it is over, and a sentence about it for the
// agent: who was asked, who said what, and what to do.
func Status(a access.Approval, now time.Time) (access.ApprovalState, string) {
	switch a.State {
	case access.StatePending:
		if !now.Before(a.Expires) {
			return access.StateExpired, fmt.Sprintf("nobody of %s answered by %s; send the request again to ask again", list(a.Reviewers), clock(a.Expires))
		}
		return a.State, waiting(a)
	case access.StateApproved:
		if !now.Before(a.Expires) {
			return access.StateExpired, fmt.Sprintf("%s said yes, and the request was not sent by %s; send it again to ask again", voters(a), clock(a.Expires))
		}
		return a.State, fmt.Sprintf("%s said yes to this request, once, until %s", voters(a), clock(a.Expires))
	case access.StateGranted:
		if !now.Before(a.Until) {
			return access.StateExpired, fmt.Sprintf("what %s gave ended at %s: %s; send the request again to ask again", voters(a), clock(a.Until), Words(a.Grant, a))
		}
		return a.State, fmt.Sprintf("%s said yes to %s, until %s", voters(a), Words(a.Grant, a), clock(a.Until))
	case access.StateSpent:
		return a.State, spent(a, now)
	}
	return a.State, a.Message
}

func waiting(a access.Approval) string {
	who := list(a.Reviewers)
	if n := quorum(a); n > 1 {
		who = fmt.Sprintf("%d people of %s (%d said yes)", n, who, yeses(a))
	}
	return fmt.Sprintf("waiting for %s to answer approval %s, until %s", who, a.ID, clock(a.Expires))
}

func spent(a access.Approval, now time.Time) string {
	if len(a.Uses) == 0 {
		return "the approval was used"
	}
	switch use := a.Uses[0]; {
	case use.Code != 0:
		return fmt.Sprintf("the approval was used by request %s, which was answered %d; send this request again to ask again", use.Request, use.Code)
	case using(a, now):
		return fmt.Sprintf("the approval is being used by request %s; a yes lets one request pass", use.Request)
	default:
		return fmt.Sprintf("outcome unknown: request %s passed at %s and nobody knows how it was answered; look at the cluster before you ask again", use.Request, clock(use.At))
	}
}

func clock(t time.Time) string { return t.UTC().Format("15:04:05 MST") }
