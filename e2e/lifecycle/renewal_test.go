package lifecycle_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"testing"
	"time"

	"sallyport/e2e/stacktest"
)

// renewal runs a watch and a polling client across several lives of the credential behind them.
func renewal(t *testing.T, s *stacktest.Stack) {
	const life, long = 6 * time.Second, 25 * time.Second
	recovered(t, s) // the keys were just rotated
	s.Lifetime(t, life)
	agent := s.Agent(t, "agents")
	name := s.ConfigMap(t)
	ctx, cancel := context.WithTimeout(t.Context(), 3*long)
	defer cancel()
	client := agent.Client(t, true)
	res, err := client.Do(agent.Request(ctx, t, "/api/v1/namespaces/dev/configmaps?watch=1&fieldSelector=metadata.name%3D"+name))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Fatal(res.Status)
	}
	events := make(chan string, 64)
	go func() {
		defer close(events)
		for d := json.NewDecoder(res.Body); ; {
			var e struct {
				Type   string
				Object struct{ Data map[string]string }
			}
			if err := d.Decode(&e); err != nil {
				if ctx.Err() == nil {
					events <- "broke off: " + err.Error()
				}
				return
			}
			events <- e.Type + " " + e.Object.Data["color"]
		}
	}()
	await := func(want string) {
		t.Helper()
		select {
		case got := <-events:
			if got != want {
				t.Errorf("the watch says %q, want %q", got, want)
			}
		case <-time.After(within):
			t.Errorf("the watch does not say %q", want)
		}
	}
	await("ADDED blue")

	polls := 0
	for end := time.Now().Add(long); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		res, err := client.Do(agent.Request(ctx, t, "/api/v1/namespaces/dev/configmaps/"+name))
		if err != nil {
			t.Errorf("poll %d: %v", polls, err)
			continue
		}
		if b, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || err != nil {
			t.Errorf("poll %d: %s %s (%v)", polls, res.Status, b, err)
		}
		res.Body.Close()
		polls++
	}
	s.Admin(t, "patch", "configmap", name, "-n", "dev", "-p", `{"data":{"color":"red"}}`)
	await("MODIFIED red")

	assumed := agent.Assumed(t)
	keys := map[string]bool{}
	for _, x := range assumed {
		keys[x.AccessKeyID] = true
		if x.Error != "" {
			t.Errorf("assuming the role failed: %s", x.Error)
		}
	}
	if len(keys) < 4 || len(keys) > 12 {
		t.Errorf("%d credentials in %v, each of which lives %v", len(keys), long, life)
	}
	t.Logf("%d polls and a watch over %d credentials, one session %s", polls, len(keys), agent.Session(t))
}
