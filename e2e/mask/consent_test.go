package mask_test

import (
	"encoding/json"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// A consent is a person who says yes to all that some agents ask, as long as the test runs.
type consent struct {
	mu    sync.Mutex
	given []stacktest.Approval
}

// consenting lets a person say yes.
func consenting(t *testing.T, s *stacktest.Stack, agents ...*stacktest.Agent) *consent {
	t.Helper()
	ana, c, done := s.Reviewer(t, "ana@example.com"), &consent{}, make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for tick := time.Tick(100 * time.Millisecond); ; {
			select {
			case <-done:
				return
			case <-tick:
			}
			var list struct {
				Approvals []stacktest.Approval `json:"approvals"`
			}
			if json.Unmarshal([]byte(ana.Do(t, http.MethodGet, "/api/approvals?state=pending", nil).Body), &list) != nil {
				continue // the next time
			}
			for _, a := range list.Approvals {
				if !slices.ContainsFunc(agents, func(g *stacktest.Agent) bool { return g.Subject == a.Principal.Subject }) {
					continue
				}
				if ana.Do(t, http.MethodPost, "/api/approvals/"+a.ID+"/approve", map[string]any{}).Code == http.StatusOK {
					c.mu.Lock()
					c.given = append(c.given, a)
					c.mu.Unlock()
				}
			}
		}
	})
	t.Cleanup(func() {
		close(done)
		wg.Wait()
	})
	return c
}

// all is what was said yes to so far.
func (c *consent) all() []stacktest.Approval {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.given)
}
