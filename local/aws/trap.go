package aws

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"sallyport/local/aws/front"
)

// A Trap kills a function at a certain call of AWS: what a test of crashes wants, and waiting for the right moment does
// not give it.
type Trap struct {
	// At is the operation, such as UpdateItem, SendTaskSuccess or AssumeRole; what is no JSON service is known by method and
	// path, whose beginning is enough: "POST /v2/email". "*" is any.
	At string `json:"at"`
	// With makes it a call whose body holds this: one among those of others.
	With string `json:"with,omitempty"`
	// Count is at which such call of the function it springs; zero is the first.
	Count int `json:"count,omitempty"`
	// After lets the call have its effect; the function dies without knowing.
	After bool `json:"after,omitempty"`
}

// trapped are the traps that are set, and whose access keys are which function's.
type trapped struct {
	kill func(function string)

	mu        sync.Mutex
	functions map[string]string // by access key id
	traps     map[string]*Trap  // by function
}

func (t *trapped) known(key, function string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.functions == nil {
		t.functions, t.traps = map[string]string{}, map[string]*Trap{}
	}
	t.functions[key] = function
}

func (t *trapped) set(function string, trap Trap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.traps[function] = &trap
}

// left is a function's trap that has not sprung, nil when there is none.
func (t *trapped) left(function string) *Trap {
	t.mu.Lock()
	defer t.mu.Unlock()
	if trap := t.traps[function]; trap != nil {
		c := *trap
		return &c
	}
	return nil
}

func (t *trapped) remove(function string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.traps, function)
}

func (t *Trap) at(operation string) bool {
	return t.At == "*" || t.At == operation || strings.Contains(t.At, " ") && strings.HasPrefix(operation, t.At)
}

// spring is asked about every call: front.Config's Trap.
func (t *trapped) spring(c front.Call) (instead, after func()) {
	function, trap := t.under(c)
	if trap == nil || trap.With != "" && !bytes.Contains(c.Body(), []byte(trap.With)) {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.traps[function] != trap { // another call was here, or it was taken away
		return nil, nil
	}
	if trap.Count--; trap.Count > 0 {
		return nil, nil
	}
	delete(t.traps, function)
	kill := func() { t.kill(function) }
	if trap.After {
		return nil, kill
	}
	return kill, nil
}

// under is the trap that a call is under, as far as its name tells, and whose it is.
func (t *trapped) under(c front.Call) (string, *Trap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	function := t.functions[c.AccessKeyID]
	if trap := t.traps[function]; trap != nil && trap.at(c.Operation) {
		return function, trap
	}
	return function, nil
}

func (s *Stack) serveKill(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	var trap Trap
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields()
	switch err := d.Decode(&trap); {
	case errors.Is(err, io.EOF):
		n, err := s.Lambda.Kill(name)
		if err != nil {
			reply(w, http.StatusNotFound, map[string]string{"message": err.Error()})
			return
		}
		reply(w, http.StatusOK, map[string]int{"killed": n})
	case err != nil || trap.At == "":
		reply(w, http.StatusBadRequest, map[string]string{"message": `the body must be empty, or as {"at": "UpdateItem", "with": "", "count": 1, "after": false}`})
	default:
		s.traps.set(name, trap)
		reply(w, http.StatusOK, map[string]Trap{"trap": trap})
	}
}
