package approval

import (
	"fmt"
	"slices"
	"time"

	"sallyport/shared/access"
)

// A Redemption is a request that wants to pass, as the broker computed it today from the agent's token and the raw request.
type Redemption struct {
	Digest    string
	Principal access.Principal
	Cluster   string
	Action    access.Action
	Decision  access.Decision // of the policy in force
	Target    access.Target   // as the proxy sees it now
	Use       access.Use      // Request is the audit id it passes under
}

// Redeem lets a request pass: a yes to one request is spent by it, a grant keeps it among its uses. When it returns nil and a
// was stored before anybody else's change of it, the request may pass, this once.
//
// An error refuses. Whoever calls stores a all the same: what was asked about may have changed, and then a is withdrawn;
// somebody may have tried what they may not, and then the history says so.
func Redeem(a *access.Approval, r Redemption, now time.Time) error {
	if r.Principal.Key() != a.Principal.Key() || r.Cluster != a.Cluster {
		err := access.Errorf(access.Denied, "approval %s is another's, or for another cluster: its id alone lets nothing pass", a.ID)
		Refused(a, r.Principal.Agent, "tried to use an approval that is not theirs, or not for cluster "+a.Cluster, now)
		return err
	}
	state, why := Status(*a, now)
	switch state {
	case access.StateApproved, access.StateGranted:
	case access.StateExpired:
		Expire(a, now)
		return access.Errorf(access.Denied, "%s", why)
	case access.StatePending, access.StateSpent:
		return access.Errorf(access.Conflict, "%s", why)
	default:
		return access.Errorf(access.Denied, "%s", why)
	}
	if state == access.StateApproved && r.Digest != a.Digest {
		Refused(a, r.Principal.Agent, "request "+r.Use.Request+" is not the one that was approved", now)
		return access.Errorf(access.Denied, "approval %s is for another request: send exactly what was approved, or ask for this", a.ID)
	}
	if state == access.StateGranted && r.Digest != a.Digest && !Covers(*a, r.Principal, r.Cluster, r.Action, r.Decision.Rule, now) {
		Refused(a, r.Principal.Agent, "request "+r.Use.Request+" is not covered by the grant", now)
		return access.Errorf(access.Denied, "approval %s gives %s; this request is outside of that, ask for it", a.ID, Words(a.Grant, *a))
	}
	if why := drift(*a, r); why != "" {
		Withdraw(a, why, now)
		return access.Errorf(access.Denied, "%s", why)
	}
	if why := moved(*a, r.Target); why != "" {
		Withdraw(a, why, now)
		return access.Errorf(access.Conflict, "%s", why)
	}
	use := r.Use
	use.At, use.Code = now.UTC(), 0
	a.Uses = append(a.Uses, use)
	if state == access.StateGranted {
		if n := len(a.Uses) - keptUses; n > 0 {
			a.Uses = slices.Delete(a.Uses, 0, n)
		}
		return nil
	}
	a.State, a.Ended = access.StateSpent, now.UTC()
	Note(a, "spent", a.Principal.Agent, "by request "+use.Request, now)
	return nil
}

// drift says how the policy that was asked about differs from today's; empty when it does not. A grant that today's rule
// would not let anybody give, and a yes of fewer people than it wants, are no answer to today's question.
func drift(a access.Approval, r Redemption) string {
	was, is := a.Decision, r.Decision
	const again = "; what was approved is withdrawn, send the request again"
	switch {
	case is.Effect != access.Ask:
		return "the policy changed, and does not ask about this request any more" + again
	case is.Rule != was.Rule:
		return fmt.Sprintf("the policy changed: this request is asked about by rule %s now, not %s%s", is.Rule, was.Rule, again)
	case is.Tier != was.Tier:
		return fmt.Sprintf("the policy changed: rule %s gives tier %s now, not %s%s", is.Rule, is.Tier, was.Tier, again)
	case yeses(a) < is.Obligations.Quorum:
		return fmt.Sprintf("the policy changed: rule %s wants %d people to say yes now, and %d did%s", is.Rule, is.Obligations.Quorum, yeses(a), again)
	case is.Obligations.Grant.Scope != "" && !within(a.Grant, is.Obligations.Grant):
		return fmt.Sprintf("the policy changed: rule %s does not let a reviewer give so much any more%s", is.Rule, again)
	}
	return ""
}

// moved says how the object that was asked about differs from what is there; empty when it does not. A grant outlives the
// changes it was given for, but of an object's scope not the object: another one of the same name is another.
func moved(a access.Approval, is access.Target) string {
	was := a.Target
	const again = "; what was approved is withdrawn, look at it and send the request again"
	switch {
	case a.State == access.StateGranted && (a.Grant.Scope != access.ScopeObject || was.UID == "" || was.UID == is.UID):
		return ""
	case was.UID != is.UID && is.UID == "" && is == (access.Target{}):
		return "the object is not there any more" + again
	case was.UID != is.UID && was == (access.Target{}):
		return "the object was not there when this was approved, and is there now" + again
	case was.UID != is.UID:
		return "the object is another one of the same name" + again
	case was != is:
		return "the object was changed by somebody since" + again
	}
	return ""
}
