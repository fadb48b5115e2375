package identity

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// patience is how long a caller who can do with the keys that are held waits for newer ones.
const patience = 2 * time.Second

// held are the keys an issuer had when it was last asked.
type held struct {
	set     *jose.JSONWebKeySet
	fetched time.Time
}

func (h held) has(kid string) bool {
	return kid == "" || len(h.set.Key(kid)) > 0
}

// shelf holds the keys of issuers.
type shelf struct {
	mu   sync.Mutex
	keys map[string]held
}

func (s *shelf) get(issuer string) (held, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.keys[issuer]
	return h, ok
}

// put keeps an issuer's keys unless newer ones are held: answers overtake one another, and an older one would bring
// back a key that was withdrawn. Keys held from the future, by a clock that was set back since, are not newer.
func (s *shelf) put(issuer string, h held, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.keys[issuer]; ok && old.fetched.After(h.fetched) && !old.fetched.After(now) {
		return
	}
	if s.keys == nil {
		s.keys = map[string]held{}
	}
	s.keys[issuer] = h
}

// lookup is the one rule by which keys are used, asked for anew, and no longer used. Nothing in it ends in using keys
// older than Stale.
func (s *shelf) lookup(ctx context.Context, issuer, kid string, now func() time.Time, r *refresher) (*jose.JSONWebKeySet, error) {
	h, ok := s.get(issuer)
	usable := ok && age(h, now) <= Stale
	known := usable && h.has(kid)
	if known && age(h, now) >= 0 && age(h, now) < Fresh {
		return h.set, nil
	}
	f, mine := r.start(ctx)
	var err error
	switch {
	case f == nil: // asked for too recently
	case !known || mine: // of those who can do without, one waits
		err = f.wait(ctx, known)
	}
	last := r.last()
	switch h, ok = s.get(issuer); {
	case !ok || age(h, now) > Stale:
		return nil, unavailable(issuer, r.next(), errors.Join(errors.New("no keys are held that are young enough"), err, last))
	case h.has(kid):
		return h.set, nil
	case err != nil || last != nil || age(h, now) > Fresh:
		// Whether the issuer has such a key by now is not known, and must not be told as if it were.
		return nil, unavailable(issuer, r.next(), errors.Join(errors.New("newer keys cannot be had"), err, last))
	}
	return h.set, nil
}

// wall is a clock without its monotonic reading, which stands still while a function is frozen between invocations
// and would make keys look younger than they are.
func wall(now func() time.Time) func() time.Time {
	if now == nil {
		now = time.Now
	}
	return func() time.Time { return now().Round(0) }
}

// age is how old keys are. It is negative when the clock was set back since; such keys are not fresh.
func age(h held, now func() time.Time) time.Duration { return now().Sub(h.fetched) }

// refresher runs one function, one call at a time and no more than one every RefreshEvery.
type refresher struct {
	now     func() time.Time
	run     func(context.Context) error
	timeout time.Duration // of one call

	mu     sync.Mutex
	tried  time.Time // when the last call began
	err    error     // what it came to
	flight *flight   // the call under way, nil when there is none
}

type flight struct {
	done chan struct{}
	err  error // valid once done is closed
}

// start joins the call under way or begins one; mine says which. It returns nil when it is too early for another.
func (r *refresher) start(ctx context.Context) (f *flight, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flight != nil {
		return r.flight, false
	}
	if r.wait() > 0 {
		return nil, false
	}
	f = &flight{done: make(chan struct{})}
	r.flight, r.tried = f, r.now()
	// The call is for everybody who waits, so it does not end with the caller who began it.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.timeout)
	go func() {
		defer cancel()
		err := r.run(ctx)
		r.mu.Lock()
		r.flight, r.err, f.err = nil, err, err
		r.mu.Unlock()
		close(f.done)
	}()
	return f, true
}

// wait is how long until the next call may begin. A clock that was set back does not make it longer.
func (r *refresher) wait() time.Duration {
	since := r.now().Sub(r.tried)
	if r.tried.IsZero() || since < 0 {
		return 0
	}
	return RefreshEvery - since
}

func (r *refresher) next() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, r.wait())
}

func (r *refresher) last() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// wait waits for the call's end or for ctx; who can do without what it brings waits no longer than patience.
func (f *flight) wait(ctx context.Context, spare bool) error {
	var enough <-chan time.Time
	if spare {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		enough = timer.C
	}
	select {
	case <-f.done:
		return f.err
	case <-enough:
		return errors.New("the answer is slow")
	case <-ctx.Done():
		return ctx.Err()
	}
}
