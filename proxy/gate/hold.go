package gate

import (
	"sync"
	"time"

	"sallyport/shared/access"
)

// What bodies may take of the task's memory at one time. A body is held whole, since nothing is forwarded before it was
// decided about.
const (
	heldByAgent = 32 << 20
	heldByTask  = 256 << 20
)

// held counts the bytes of bodies in memory, so that no agent can take it all.
type held struct {
	mu    sync.Mutex
	total int64
	agent map[string]int64
}

// take reserves n bytes for an agent and returns what gives them back.
func (h *held) take(agent string, n int64) (func(), error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.agent[agent]+n > heldByAgent:
		return nil, access.Errorf(access.Limited, "your requests in flight hold %d MiB of bodies, the most one agent may; wait for their answers", heldByAgent>>20).After(time.Second)
	case h.total+n > heldByTask:
		return nil, access.Errorf(access.Limited, "the gate holds all the bodies it can; ask again").After(time.Second)
	}
	if h.agent == nil {
		h.agent = map[string]int64{}
	}
	h.total += n
	h.agent[agent] += n
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.total -= n
		if h.agent[agent] -= n; h.agent[agent] == 0 {
			delete(h.agent, agent)
		}
	}, nil
}
