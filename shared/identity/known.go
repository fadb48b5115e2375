package identity

import "crypto/sha256"

// Known says whether a token was verified before and is still remembered. It is for deciding how much work an
// unverified token may cause, never for believing it: that is Verify's.
func (v *Verifier) Known(token string) bool {
	if len(token) > MaxToken {
		return false
	}
	return v.memory.has(sha256.Sum256([]byte(token)))
}

func (m *memory) has(token digest) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.tokens[token]
	return ok
}

// Ready says whether the ring holds the keys of any issuer that may still be used.
func (r *Ring) Ready() bool {
	r.shelf.mu.Lock()
	defer r.shelf.mu.Unlock()
	for _, h := range r.shelf.keys {
		if age(h, r.now) <= Stale {
			return true
		}
	}
	return false
}
