// Package desk keeps what a proxy task waits for: approvals that requests wait for, approvals under which streams are
// open, and outcomes that the broker is yet to be told. However many there are, it asks about all of them in one call, and
// wakes who waits at once when the answer changes.
//
// It holds nothing that lasts. A task that dies loses what waited on it, and the same requests, sent again to any other
// task, wait there for the same approvals. Outcomes that were not told are lost with it: the broker then says "outcome
// unknown", which is true.
//
// It decides nothing. That an approval was given here only means that redeeming it is worth trying; what may pass is said
// by the redemption. A broker that is away changes nothing: who waits goes on waiting, for as long as it likes.
package desk

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/broker"
	"sallyport/shared/identity"
)

const (
	// keysWhole is how often the issuers' keys are asked for whole though they did not change: with them comes when they
	// were last fetched, and keys not heard of for an hour are not used (identity.Stale).
	keysWhole = time.Minute
	// maxOutcomes is how many outcomes one call tells: each costs the broker a write.
	maxOutcomes = 50
	// maxMisses is how often in a row the broker may leave out an approval before it is taken to be gone.
	maxMisses = 3
)

// Broker answers polls; invoke.Review. An error means that nothing was heard, and that outcomes may not have been.
type Broker interface {
	Poll(ctx context.Context, p broker.Poll) (broker.State, error)
}

// A Desk is safe for concurrent use.
type Desk struct {
	broker Broker
	now    func() time.Time

	polling sync.Mutex // one poll at a time, so that an older answer never undoes a newer one

	mu       sync.Mutex
	files    map[string]*file // by the approval's id
	outcomes []broker.Outcome // not told yet, oldest first
	keys     string           // digest of the keys that were heard
	whole    time.Time        // when they were last asked for whole
}

// file is one approval that somebody waits for or has a stream open under.
type file struct {
	last    broker.Approval
	changed chan struct{} // closed when last changed
	users   int
	misses  int
	told    map[*func(broker.Approval)]struct{}
}

// New returns a Desk with nothing on it.
func New(b Broker, now func() time.Time) *Desk {
	return &Desk{broker: b, now: now, files: map[string]*file{}}
}

// Poll asks the broker once about everything, and says what it heard of the policy in force and of the issuers' keys; no
// keys means that they are the ones heard before.
func (d *Desk) Poll(ctx context.Context) (broker.Policy, []identity.IssuerKeys, error) {
	d.polling.Lock()
	defer d.polling.Unlock()
	p := d.question()
	s, err := d.broker.Poll(ctx, p)
	if err != nil {
		return broker.Policy{}, nil, err
	}
	d.hear(p, s)
	var keys []identity.IssuerKeys
	for _, k := range s.Issuers {
		keys = append(keys, identity.IssuerKeys(k))
	}
	return s.Policy, keys, nil
}

func (d *Desk) question() broker.Poll {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := broker.Poll{
		Approvals: slices.Sorted(maps.Keys(d.files)),
		Outcomes:  slices.Clone(d.outcomes[:min(len(d.outcomes), maxOutcomes)]),
	}
	if now := d.now(); now.Sub(d.whole) < keysWhole {
		p.Keys = d.keys
	}
	return p
}

func (d *Desk) hear(p broker.Poll, s broker.State) {
	heard := map[string]broker.Approval{}
	for _, a := range s.Approvals {
		heard[a.ID] = a
	}
	var calls []func()
	d.mu.Lock()
	d.outcomes = slices.Delete(d.outcomes, 0, len(p.Outcomes))
	d.keys = s.KeysDigest
	if p.Keys == "" {
		d.whole = d.now()
	}
	for _, id := range p.Approvals {
		f := d.files[id]
		if f == nil {
			continue
		}
		a, ok := heard[id]
		if !ok {
			if f.misses++; f.misses < maxMisses {
				continue
			}
			a = broker.Approval{ID: id, State: access.StateWithdrawn, Message: "the broker does not know of this approval any more; run the same command again to ask anew"}
		}
		if ok {
			f.misses = 0
		}
		if f.hear(a) {
			for told := range f.told {
				calls = append(calls, func() { (*told)(a) })
			}
		}
	}
	d.mu.Unlock()
	for _, call := range calls {
		call()
	}
}

// hear says whether a is news. An approval that was answered is never pending again, whoever says so late.
func (f *file) hear(a broker.Approval) bool {
	old := f.last
	if old.State == a.State && old.Message == a.Message && old.Until.Equal(a.Until) && old.By == a.By && slices.Equal(old.Approvers, a.Approvers) {
		return false
	}
	if a.State == access.StatePending && old.State != "" && old.State != access.StatePending {
		return false
	}
	f.last = a
	close(f.changed)
	f.changed = make(chan struct{})
	return true
}

// open puts an approval on the desk, for one more user.
func (d *Desk) open(a broker.Approval) *file {
	f := d.files[a.ID]
	if f == nil {
		f = &file{last: a, changed: make(chan struct{}), told: map[*func(broker.Approval)]struct{}{}}
		d.files[a.ID] = f
	}
	f.users++
	return f
}

func (d *Desk) close(id string) {
	f := d.files[id]
	if f.users--; f.users == 0 {
		delete(d.files, id)
	}
}

// Wait waits until a is not pending any more, and says what it is then. When ctx ends first, what was heard last is
// returned, with why it ended. It takes no goroutine but the caller's.
func (d *Desk) Wait(ctx context.Context, a broker.Approval) (broker.Approval, error) {
	d.mu.Lock()
	f := d.open(a)
	defer func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.close(a.ID)
	}()
	for {
		last, changed := f.last, f.changed
		d.mu.Unlock()
		if last.State != access.StatePending {
			return last, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
		d.mu.Lock()
	}
}

// Follow calls told with every change of a, one that was heard before this call among them, until stop is called. It is for
// what is open under an approval. told must not block; it may be called once more while stop is.
func (d *Desk) Follow(a broker.Approval, told func(broker.Approval)) (stop func()) {
	d.mu.Lock()
	f := d.open(a)
	f.told[&told] = struct{}{}
	last := f.last
	d.mu.Unlock()
	if last.State != a.State {
		told(last)
	}
	return sync.OnceFunc(func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(f.told, &told)
		d.close(a.ID)
	})
}

// Report tells the broker, with the next polls until one is answered, how a request ended that an approval let through.
func (d *Desk) Report(o broker.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.outcomes = append(d.outcomes, o)
}

// Untold is how many outcomes the broker was not told yet.
func (d *Desk) Untold() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.outcomes)
}
