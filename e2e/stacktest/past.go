package stacktest

import (
	"strings"
	"sync"
)

// PastTheGate is the User-Agent of requests that a test sends to the cluster itself, with a credential that only the gate
// should have, to see the second wall. The sweep looks for what went through the gate, and leaves them out.
const PastTheGate = "sallyport-e2e-past-the-gate"

// Observing says that an agent is let through to the cluster in observe mode, where RBAC alone answers it: the sweep has no
// business with what it asked for.
func Observing(a *Agent) { observing.Store(a.Subject, true) }

var observing sync.Map

func isObserving(user string) bool {
	found := false
	observing.Range(func(subject, _ any) bool {
		found = strings.Contains(user, ":assumed-role/") && strings.Contains(user, "/"+subject.(string)+"-")
		return !found
	})
	return found
}
