package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"sallyport/shared/access"
)

// shortestKey is how much of a secret the masks' key must be made of.
const shortestKey = 32

// maskKeys are the keys that masks are made with: one a session, the same for every proxy task, and of no use in another.
// Whoever has one can find out whether a mask of that session stands for a value that they can guess; it decrypts nothing.
type maskKeys struct {
	read func(ctx context.Context) (string, error) // the secret, as Secrets Manager has it

	mu     sync.Mutex
	master []byte
}

// of is the key of a session. Without one there is no session: an answer could not be masked.
func (m *maskKeys) of(ctx context.Context, session string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.master == nil {
		text, err := m.read(ctx)
		var secret struct {
			Key string `json:"key"`
		}
		if err == nil {
			if err = json.Unmarshal([]byte(text), &secret); err != nil {
				err = errors.New("it is no JSON object with a key") // the decoder's own words would quote it
			} else if len(secret.Key) < shortestKey {
				err = errors.New("its key is too short")
			}
		}
		if err != nil {
			return nil, access.Errorf(access.Unavailable, "the key that secrets are masked with cannot be had, so no session is opened; ask again, and if it stays so, whoever runs the gate: see SALLYPORT_MASK_SECRET").Because(err).After(2 * time.Second)
		}
		m.master = []byte(secret.Key)
	}
	h := hmac.New(sha256.New, m.master)
	h.Write([]byte("sallyport mask of session " + session))
	return h.Sum(nil), nil
}
