// Package storetest holds the contracts every keeper of sessions and of approvals fulfils, and keepers in memory for tests.
package storetest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/shared/access"
)

// Sessions is what the contract is about.
type Sessions interface {
	Open(ctx context.Context, want access.Session, idle time.Duration, now time.Time) (access.Session, error)
	Get(ctx context.Context, id string) (access.Session, error)
}

// Session is a valid session of that id and agent that starts at now and may last eight hours.
func Session(id, agent string, now time.Time) access.Session {
	return access.Session{
		ID: id, Cluster: "dev", Tier: "observe", Name: agent + "-hash", Policy: "digest",
		Principal: access.Principal{Issuer: "https://ci.example.com", Subject: agent, Agent: agent, Run: map[string]string{"run_id": "1"}, Owner: "ana", Groups: []string{"observers"}},
		Started:   now, Seen: now, Ends: now.Add(8 * time.Hour),
	}
}

// Contract runs the contract against a keeper. Ids and agents are made unique, so it may share a table.
func Contract(t *testing.T, s Sessions) {
	t.Helper()
	ctx := context.Background()
	now := time.UnixMilli(time.Now().UnixMilli()).UTC()
	unique := now.Format("150405.000")
	const idle = time.Hour
	open := func(t *testing.T, want access.Session, at time.Time) access.Session {
		t.Helper()
		got, err := s.Open(ctx, want, idle, at)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	t.Run("opens, finds and joins", func(t *testing.T) {
		first := Session("a1"+unique, "join"+unique, now)
		if d := cmp.Diff(first, open(t, first, now)); d != "" {
			t.Error(d)
		}
		got, err := s.Get(ctx, first.ID)
		if d := cmp.Diff(first, got); err != nil || d != "" {
			t.Error(err, d)
		}
		later := now.Add(30 * time.Minute)
		joined := open(t, Session("a2"+unique, "join"+unique, later), later)
		if joined.ID != first.ID || !joined.Seen.Equal(later) || !joined.Started.Equal(now) || !joined.Ends.Equal(first.Ends) {
			t.Errorf("got %+v, want the first session, seen at %v", joined, later)
		}
		if _, err := s.Get(ctx, "a2"+unique); access.KindOf(err) != access.NotFound {
			t.Errorf("got %v: the session that was not opened is there", err)
		}
	})
	t.Run("another run, cluster or agent is another session", func(t *testing.T) {
		first := open(t, Session("b1"+unique, "other"+unique, now), now)
		run := Session("b2"+unique, "other"+unique, now)
		run.Principal.Run = map[string]string{"run_id": "2"}
		cluster := Session("b3"+unique, "other"+unique, now)
		cluster.Cluster = "prod"
		agent := Session("b4"+unique, "another"+unique, now)
		for _, want := range []access.Session{run, cluster, agent} {
			if got := open(t, want, now); got.ID == first.ID || got.ID != want.ID {
				t.Errorf("got %s, want %s", got.ID, want.ID)
			}
		}
	})
	t.Run("one that was idle, or is over, or had another tier is not joined", func(t *testing.T) {
		open(t, Session("c1"+unique, "idle"+unique, now), now)
		later := now.Add(idle + time.Second)
		if got := open(t, Session("c2"+unique, "idle"+unique, later), later); got.ID != "c2"+unique {
			t.Errorf("joined %s, which was idle", got.ID)
		}
		for at := later; at.Before(now.Add(9 * time.Hour)); at = at.Add(idle) {
			got := open(t, Session(fmt.Sprint("c3", at.Unix(), unique), "idle"+unique, at), at)
			if !got.Ends.After(at) {
				t.Fatalf("joined %s at %v, after its end at %v", got.ID, at, got.Ends)
			}
		}
		tier := Session("c4"+unique, "tier"+unique, now)
		open(t, tier, now)
		tier.ID, tier.Tier = "c5"+unique, "operate"
		if got := open(t, tier, now); got.ID != "c5"+unique || got.Tier != "operate" {
			t.Errorf("got %s of tier %s, want a new session of tier operate", got.ID, got.Tier)
		}
	})
	t.Run("fifty at once are one", func(t *testing.T) {
		var mu sync.Mutex
		ids := map[string]int{}
		var wg sync.WaitGroup
		for i := range 50 {
			wg.Go(func() {
				got, err := s.Open(ctx, Session(fmt.Sprint("d", i, unique), "many"+unique, now), idle, now)
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				ids[got.ID]++
				mu.Unlock()
			})
		}
		wg.Wait()
		if len(ids) != 1 {
			t.Errorf("%d sessions were opened: %v", len(ids), ids)
		}
	})
}

// Memory keeps sessions in memory.
type Memory struct {
	mu       sync.Mutex
	sessions map[string]access.Session
	open     map[string]string
}

// NewMemory returns an empty keeper.
func NewMemory() *Memory {
	return &Memory{sessions: map[string]access.Session{}, open: map[string]string{}}
}

// Open implements Sessions.
func (m *Memory) Open(_ context.Context, want access.Session, idle time.Duration, now time.Time) (access.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	run := want.Principal.Key() + "#" + want.Cluster
	if s, ok := m.sessions[m.open[run]]; ok && s.Ends.After(now) && !s.Seen.Add(idle).Before(now) && s.Tier == want.Tier {
		s.Seen = now
		m.sessions[s.ID] = s
		return s, nil
	}
	m.sessions[want.ID], m.open[run] = want, want.ID
	return want, nil
}

// Get implements Sessions.
func (m *Memory) Get(_ context.Context, id string) (access.Session, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s, ok := m.sessions[id]; ok {
		return s, nil
	}
	return access.Session{}, access.Errorf(access.NotFound, "there is no session %q", id)
}
