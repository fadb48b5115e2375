package identity

import (
	"container/list"
	"crypto/sha256"
	"sync"
	"time"
)

// memory remembers verified tokens by their SHA-256, the most recently used of them. Only tokens that verified are in
// it, so nobody without one can fill it; refusals are not remembered, so a token that becomes valid is not kept out.
type memory struct {
	size int

	mu     sync.Mutex
	recent *list.List // of *verified, most recently used first
	tokens map[digest]*list.Element
}

type digest = [sha256.Size]byte

type verified struct {
	token digest
	id    Identity
	at    time.Time
}

func newMemory(size int) *memory {
	return &memory{size: size, recent: list.New(), tokens: map[digest]*list.Element{}}
}

// get returns what a token was verified as, if that was at most Reverify ago and the token is valid now.
func (m *memory) get(token digest, now time.Time) (Identity, bool) {
	m.mu.Lock()
	e, ok := m.tokens[token]
	if !ok {
		m.mu.Unlock()
		return Identity{}, false
	}
	v := *e.Value.(*verified)
	m.recent.MoveToFront(e)
	m.mu.Unlock()
	// It was valid when it was verified, so nbf is passed unless the clock was set back; then nothing here counts.
	if age := now.Sub(v.at); age < 0 || age > Reverify || !now.Before(v.id.Expires) {
		return Identity{}, false
	}
	return v.id.clone(), true
}

func (m *memory) put(token digest, id Identity, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.tokens[token]; ok {
		e.Value = &verified{token, id, now}
		m.recent.MoveToFront(e)
		return
	}
	m.tokens[token] = m.recent.PushFront(&verified{token, id, now})
	if m.recent.Len() > m.size {
		m.drop(m.recent.Back())
	}
}

func (m *memory) forget(token digest) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e, ok := m.tokens[token]; ok {
		m.drop(e)
	}
}

func (m *memory) drop(e *list.Element) {
	delete(m.tokens, e.Value.(*verified).token)
	m.recent.Remove(e)
}
