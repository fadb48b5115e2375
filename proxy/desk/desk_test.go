package desk_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"sallyport/proxy/desk"
	"sallyport/shared/access"
	"sallyport/shared/broker"
)

// review is the broker of one desk. It remembers what it was asked, and knows every approval: those it has no other word of
// are pending.
type review struct {
	mu     sync.Mutex
	state  broker.State
	known  map[string]broker.Approval
	silent map[string]bool // about these
	away   error
	asked  []broker.Poll
	during func()
}

func (r *review) Poll(_ context.Context, p broker.Poll) (broker.State, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, p)
	if r.during != nil {
		r.during()
	}
	s := r.state
	for _, id := range p.Approvals {
		a, ok := r.known[id]
		if !ok {
			a = pending(id)
		}
		if !r.silent[id] {
			s.Approvals = append(s.Approvals, a)
		}
	}
	return s, r.away
}

func (r *review) last() broker.Poll { return r.asked[len(r.asked)-1] }

// says makes it answer so from now on.
func (r *review) says(a broker.Approval) { r.known[a.ID] = a }

type fixture struct {
	*desk.Desk
	*review
	now time.Time
}

func newFixture() *fixture {
	f := &fixture{now: time.Unix(1000, 0), review: &review{
		state: broker.State{Policy: broker.Policy{Digest: "d"}, KeysDigest: "k1"}, known: map[string]broker.Approval{}, silent: map[string]bool{},
	}}
	f.Desk = desk.New(f.review, func() time.Time { return f.now })
	return f
}

func (f *fixture) poll(t *testing.T) {
	t.Helper()
	if _, _, err := f.Desk.Poll(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func pending(id string) broker.Approval {
	return broker.Approval{ID: id, State: access.StatePending, Message: "sre was asked"}
}

func as(id string, s access.ApprovalState) broker.Approval {
	return broker.Approval{ID: id, State: s, Message: "ana said so"}
}

// waiting begins to wait for an approval and returns once it is asked about.
func (f *fixture) waiting(ctx context.Context, t *testing.T, a broker.Approval) chan result {
	t.Helper()
	done := make(chan result, 1)
	go func() {
		a, err := f.Wait(ctx, a)
		done <- result{a, err}
	}()
	for {
		f.poll(t)
		for _, id := range f.last().Approvals {
			if id == a.ID {
				return done
			}
		}
		runtime.Gosched()
	}
}

type result struct {
	a   broker.Approval
	err error
}

// got is how a wait ends, with polls going on.
func (f *fixture) got(t *testing.T, w chan result) result {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); runtime.Gosched() {
		select {
		case got := <-w:
			return got
		default:
			f.poll(t)
		}
	}
	t.Fatal("somebody still waits")
	return result{}
}

func TestWait(t *testing.T) {
	f := newFixture()
	one, two, other := f.waiting(t.Context(), t, pending("a")), f.waiting(t.Context(), t, pending("a")), f.waiting(t.Context(), t, pending("b"))
	f.poll(t)
	if d := cmp.Diff([]string{"a", "b"}, f.last().Approvals); d != "" {
		t.Error("one call asks about each once:", d)
	}
	f.state.Approvals = []broker.Approval{as("never asked about", access.StateDenied)}
	f.says(as("a", access.StateApproved))
	f.poll(t)
	for _, w := range []chan result{one, two} {
		if got := f.got(t, w); got.err != nil || got.a.State != access.StateApproved || got.a.Message != "ana said so" {
			t.Errorf("got %+v", got)
		}
	}
	select {
	case got := <-other:
		t.Errorf("who waits for something else got %+v", got)
	default:
	}
	for {
		f.poll(t)
		if cmp.Equal([]string{"b"}, f.last().Approvals) { // and nobody asks about what nobody waits for
			break
		}
	}
	// What is over already is not waited for.
	if a, err := f.Wait(t.Context(), as("c", access.StateDenied)); err != nil || a.State != access.StateDenied {
		t.Errorf("got %+v, %v", a, err)
	}
}

// Who stops waiting hears what is known by then, and disturbs nobody.
func TestWaitEnds(t *testing.T) {
	f := newFixture()
	why := errors.New("held long enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	one, two := f.waiting(ctx, t, pending("a")), f.waiting(t.Context(), t, pending("a"))
	news := pending("a")
	news.Message = "sre and leads were asked"
	f.says(news)
	f.poll(t)
	cancel(why)
	if got := f.got(t, one); !errors.Is(got.err, why) || got.a.Message != news.Message {
		t.Errorf("got %+v", got)
	}
	f.says(as("a", access.StateDenied))
	f.poll(t)
	if got := f.got(t, two); got.err != nil || got.a.State != access.StateDenied {
		t.Errorf("got %+v", got)
	}
}

// A broker that is away changes nothing for who waits.
func TestTheBrokerIsAway(t *testing.T) {
	f := newFixture()
	w := f.waiting(t.Context(), t, pending("a"))
	f.Report(broker.Outcome{Approval: "z", Request: "r", Code: 200})
	f.away = access.Errorf(access.Unavailable, "away")
	for range 5 {
		if _, _, err := f.Desk.Poll(t.Context()); err == nil {
			t.Error("nobody said so")
		}
	}
	f.away = nil
	f.says(as("a", access.StateApproved))
	f.poll(t)
	if n := len(f.last().Outcomes); n != 1 || f.Untold() != 0 {
		t.Errorf("%d outcomes were told, %d are untold", n, f.Untold())
	}
	if got := f.got(t, w); got.a.State != access.StateApproved {
		t.Errorf("got %+v", got)
	}
}

// One function may look where the news is not yet: what was answered is not pending again, and one miss is none.
func TestLateNews(t *testing.T) {
	f := newFixture()
	var heard []access.ApprovalState
	stop := f.Follow(as("a", access.StateGranted), func(a broker.Approval) { heard = append(heard, a.State) })
	for _, s := range []access.ApprovalState{access.StatePending, "", access.StateGranted, "", "", access.StateRevoked, access.StateRevoked, access.StatePending} {
		f.silent["a"] = s == ""
		f.says(as("a", s))
		f.poll(t)
	}
	if d := cmp.Diff([]access.ApprovalState{access.StateRevoked}, heard); d != "" {
		t.Error(d)
	}
	stop()
	stop()
	f.poll(t)
	if len(f.last().Approvals) != 0 {
		t.Errorf("still asks about %v", f.last().Approvals)
	}
	w := f.waiting(t.Context(), t, pending("gone"))
	f.silent["gone"] = true
	for range 3 {
		f.poll(t)
	}
	if got := f.got(t, w); got.a.State != access.StateWithdrawn || got.a.ID != "gone" || got.a.Message == "" {
		t.Errorf("who waits for what is gone got %+v", got)
	}
}

// Who follows what was taken back a moment before hears of it at once.
func TestFollowHearsWhatWasSaid(t *testing.T) {
	f := newFixture()
	defer f.Follow(as("a", access.StateGranted), func(broker.Approval) {})()
	f.says(as("a", access.StateRevoked))
	f.poll(t)
	var heard access.ApprovalState
	defer f.Follow(as("a", access.StateGranted), func(a broker.Approval) { heard = a.State })()
	if heard != access.StateRevoked {
		t.Errorf("heard %q", heard)
	}
}

// Outcomes are told until that was answered, in order, some at a time, and what comes meanwhile is told next.
func TestOutcomes(t *testing.T) {
	f := newFixture()
	for i := range 120 {
		f.Report(broker.Outcome{Approval: "a", Request: fmt.Sprint(i), Code: 200})
	}
	var told []string
	f.during = func() { f.during = nil; f.Report(broker.Outcome{Approval: "a", Request: "late", Code: 200}) }
	for f.Untold() > 0 {
		f.poll(t)
		for _, o := range f.last().Outcomes {
			told = append(told, o.Request)
		}
	}
	if len(told) != 121 || told[0] != "0" || told[119] != "119" || told[120] != "late" || len(f.asked) != 3 {
		t.Errorf("%d were told in %d calls", len(told), len(f.asked))
	}
}

// Keys are sent when they change, and now and then for when they were fetched.
func TestKeys(t *testing.T) {
	f := newFixture()
	f.state.Issuers = []broker.IssuerKeys{{Issuer: "https://i", JWKS: json.RawMessage(`{}`), Fetched: f.now}}
	in, keys, err := f.Desk.Poll(t.Context())
	if err != nil || in.Digest != "d" || len(keys) != 1 || keys[0].Issuer != "https://i" || !keys[0].Fetched.Equal(f.now) || f.last().Keys != "" {
		t.Fatalf("got %+v %+v %v", in, keys, err)
	}
	f.state.Issuers = nil
	if _, keys, _ := f.Desk.Poll(t.Context()); keys != nil || f.last().Keys != "k1" {
		t.Errorf("asked with %q, got %v", f.last().Keys, keys)
	}
	f.now = f.now.Add(time.Minute)
	f.poll(t)
	if f.last().Keys != "" {
		t.Errorf("a minute later it asks with %q", f.last().Keys)
	}
	f.state.KeysDigest = "k2"
	f.poll(t)
	f.poll(t)
	if f.last().Keys != "k2" {
		t.Errorf("asks with %q", f.last().Keys)
	}
}

// Many wait, and none of them costs a goroutine but its own.
func TestManyWait(t *testing.T) {
	f := newFixture()
	before := runtime.NumGoroutine()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 500 {
		wg.Go(func() { _, _ = f.Wait(ctx, pending(fmt.Sprint(i%100))) })
	}
	for len(f.asked) == 0 || len(f.last().Approvals) < 100 {
		f.poll(t)
	}
	if n := runtime.NumGoroutine() - before; n > 510 {
		t.Errorf("%d goroutines for 500 who wait", n)
	}
	cancel()
	wg.Wait()
	f.poll(t)
	if len(f.last().Approvals) != 0 {
		t.Errorf("%d are asked about when nobody waits", len(f.last().Approvals))
	}
}
