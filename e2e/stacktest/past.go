package stacktest

import (
	"strings"
	"testing"
)

// PastTheGate is the User-Agent of requests that a test sends to the cluster itself, with a credential that only the gate
// should have, to see the second wall. The sweep looks for what went through the gate, and leaves them out.
const PastTheGate = "sallyport-e2e-past-the-gate"

// observed begins the subjects of agents in observe mode, so that a sweep in any later process still knows them.
const observed = "observed-"

// Observed makes an agent that is let through to the cluster in observe mode, where RBAC alone answers it: the sweep has
// no business with what the cluster refused it.
func (s *Stack) Observed(t testing.TB, groups ...string) *Agent {
	t.Helper()
	return s.agent(t, observed+Word(), groups)
}

func isObserved(user string) bool {
	_, session, _ := strings.Cut(user, ":assumed-role/")
	_, name, _ := strings.Cut(session, "/")
	return strings.HasPrefix(name, observed)
}
