package gate_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/e2e/stacktest"
)

func TestManyRequestsOneExchange(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	clients := []*http.Client{agent.Client(t, true), agent.Client(t, false)}
	const n = 200
	var wg sync.WaitGroup
	start := make(chan struct{})
	failed := make(chan string, n)
	for i := range n {
		wg.Go(func() {
			<-start
			res, err := clients[i%2].Do(agent.Request(t.Context(), t, "/api/v1/namespaces/dev/configmaps/settings"))
			if err != nil {
				failed <- err.Error()
				return
			}
			defer res.Body.Close()
			if b, err := io.ReadAll(res.Body); res.StatusCode != http.StatusOK || err != nil || !strings.Contains(string(b), "greeting") {
				failed <- res.Status + ": " + string(b)
			}
		})
	}
	close(start)
	wg.Wait()
	close(failed)
	for why := range failed {
		t.Error(why)
	}
	if got := agent.Assumed(t); len(got) != 1 || got[0].Error != "" {
		t.Errorf("%d requests made %d exchanges, want one: %+v", n, len(got), got)
	}
}

// Threat U8: a client that goes away takes its own request with it, up to the cluster, and nobody else's.
func TestOneOfTwelveGoesAway(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	client := agent.Client(t, true) // one connection: they share all there is to share
	follow := "/api/v1/namespaces/dev/pods/" + s.Pod(t, "dev") + "/log?follow=true&tailLines=1"
	const n = 12
	type stream struct {
		cancel context.CancelFunc
		lines  chan string
		id     string
	}
	streams := make([]stream, n)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithCancel(t.Context())
			streams[i] = stream{cancel: cancel, lines: make(chan string, 1024)}
			res, err := client.Do(agent.Request(ctx, t, follow))
			if err != nil || res.StatusCode != http.StatusOK {
				t.Errorf("stream %d: %v", i, err)
				close(streams[i].lines)
				return
			}
			streams[i].id = res.Header.Get("Audit-Id")
			go func() {
				defer close(streams[i].lines)
				defer res.Body.Close()
				for r := bufio.NewScanner(res.Body); r.Scan(); {
					streams[i].lines <- r.Text()
				}
			}()
		})
	}
	wg.Wait()
	defer func() {
		for _, x := range streams {
			x.cancel()
		}
	}()
	next := func(i, lines int) {
		t.Helper()
		timeout := time.After(within)
		for range lines {
			select {
			case _, ok := <-streams[i].lines:
				if !ok {
					t.Fatalf("stream %d ended", i)
				}
			case <-timeout:
				t.Fatalf("stream %d stands still", i)
			}
		}
	}
	for i := range n {
		next(i, 2)
	}
	const gone = 5
	streams[gone].cancel()
	over := func() map[string]bool {
		ids := map[string]bool{}
		for _, e := range s.Audit(t) {
			if e.Stage == auditv1.StageResponseComplete {
				ids[string(e.AuditID)] = true
			}
		}
		return ids
	}
	stacktest.Eventually(t, 5*time.Second, func() string {
		if !over()[streams[gone].id] {
			return "the cluster still serves the request whose client went away"
		}
		return ""
	})
	ended := over()
	for i := range n {
		if i == gone {
			continue
		}
		next(i, 3)
		if ended[streams[i].id] {
			t.Errorf("stream %d ended at the cluster too", i)
		}
	}
	// A client that goes away before its session is open disturbs nobody who waits for the same exchange.
	fresh := s.Agent(t, "agents")
	client = fresh.Client(t, true)
	codes := make(chan int, n)
	for i := range n {
		ctx, cancel := context.WithCancel(t.Context())
		if i == gone {
			time.AfterFunc(2*time.Millisecond, cancel)
		}
		go func() {
			defer cancel()
			res, err := client.Do(fresh.Request(ctx, t, "/version"))
			if err != nil {
				codes <- 0
				return
			}
			res.Body.Close()
			codes <- res.StatusCode
		}()
	}
	good := 0
	for range n {
		if <-codes == http.StatusOK {
			good++
		}
	}
	if good < n-1 {
		t.Errorf("%d of %d requests were answered, want all but the one that went away", good, n)
	}
}
