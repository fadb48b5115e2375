package storetest

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/store"
)

// ApprovalsMemory keeps approvals in memory, for tests.
type ApprovalsMemory struct {
	mu    sync.Mutex
	items map[string][]byte // approvals as JSON, so that nobody shares memory with what is kept
	views map[string]access.View
	ask   map[string]string
	words map[string]string // task tokens, messages, people
	links map[string]store.Link
	count map[string]int
}

// NewApprovals returns an empty keeper.
func NewApprovals() *ApprovalsMemory {
	return &ApprovalsMemory{items: map[string][]byte{}, views: map[string]access.View{}, ask: map[string]string{}, words: map[string]string{},
		links: map[string]store.Link{}, count: map[string]int{}}
}

func (m *ApprovalsMemory) get(id string) (access.Approval, error) {
	var a access.Approval
	b, ok := m.items[id]
	if !ok {
		return a, access.Errorf(access.NotFound, "there is no approval %q", id)
	}
	return a, json.Unmarshal(b, &a)
}

func (m *ApprovalsMemory) put(a access.Approval) (access.Approval, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return a, err
	}
	m.items[a.ID] = b
	return m.get(a.ID)
}

// Open implements Approvals.
func (m *ApprovalsMemory) Open(_ context.Context, want access.Approval, view access.View, joins func(access.Approval) bool) (access.Approval, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b, err := json.Marshal(view); err != nil {
		return want, false, err
	} else if len(b) > 300<<10 {
		return want, false, access.Errorf(access.Denied, "the request cannot be shown whole, so nobody can approve it")
	}
	at := want.Principal.Key() + "#" + want.Digest
	if a, err := m.get(m.ask[at]); err == nil && joins(a) {
		return a, false, nil
	}
	m.ask[at], m.views[want.ID] = want.ID, view
	a, err := m.put(want)
	return a, true, err
}

// Get implements Approvals.
func (m *ApprovalsMemory) Get(_ context.Context, id string) (access.Approval, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.get(id)
}

// GetAll implements Approvals.
func (m *ApprovalsMemory) GetAll(_ context.Context, ids []string) (map[string]access.Approval, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := map[string]access.Approval{}
	for _, id := range ids {
		if a, err := m.get(id); err == nil {
			found[id] = a
		}
	}
	return found, nil
}

// View implements Approvals.
func (m *ApprovalsMemory) View(_ context.Context, id string) (access.View, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, err := m.get(id)
	return m.views[id], err
}

// Find implements Approvals.
func (m *ApprovalsMemory) Find(_ context.Context, principalKey, digest string) (access.Approval, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	id, ok := m.ask[principalKey+"#"+digest]
	if !ok {
		return access.Approval{}, false, nil
	}
	a, err := m.get(id)
	return a, err == nil, err
}

// Update implements Approvals. change must not call the keeper.
func (m *ApprovalsMemory) Update(_ context.Context, id string, change func(*access.Approval) error) (access.Approval, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	a, err := m.get(id)
	if err != nil {
		return a, err
	}
	stored, refused := store.Kept(change(&a))
	if refused != nil && !stored {
		old, _ := m.get(id)
		return old, refused
	}
	if a, err = m.put(a); err != nil {
		return a, err
	}
	return a, refused
}

// all are the approvals there are, newest first.
func (m *ApprovalsMemory) all() []access.Approval {
	var all []access.Approval
	for id := range m.items {
		a, _ := m.get(id)
		all = append(all, a)
	}
	slices.SortFunc(all, func(a, b access.Approval) int { return cmp.Or(b.Opened.Compare(a.Opened), cmp.Compare(a.ID, b.ID)) })
	return all
}

// Granted implements Approvals.
func (m *ApprovalsMemory) Granted(_ context.Context, principalKey, cluster string) ([]access.Approval, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.DeleteFunc(m.all(), func(a access.Approval) bool {
		return a.State != access.StateGranted || a.Principal.Key() != principalKey || a.Cluster != cluster
	}), nil
}

// List implements Approvals.
func (m *ApprovalsMemory) List(_ context.Context, pending bool, limit int, before time.Time) ([]access.Approval, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := slices.DeleteFunc(m.all(), func(a access.Approval) bool {
		return (a.State == access.StatePending) != pending || !before.IsZero() && !a.Opened.Before(before)
	})
	return all[:min(limit, len(all))], nil
}

func (m *ApprovalsMemory) set(word, value string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.words[word] = value
	return nil
}

func (m *ApprovalsMemory) word(word string) (string, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	value, ok := m.words[word]
	return value, ok, nil
}

// PutTask implements Approvals.
func (m *ApprovalsMemory) PutTask(_ context.Context, id, token string) error {
	return m.set("task#"+id, token)
}

// Task implements Approvals.
func (m *ApprovalsMemory) Task(_ context.Context, id string) (string, bool, error) {
	return m.word("task#" + id)
}

// PutLink implements Approvals.
func (m *ApprovalsMemory) PutLink(_ context.Context, hash, id, email string, expires time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if l, ok := m.links[hash]; ok && (l.Approval != id || l.Email != email) {
		return access.Errorf(access.Conflict, "the link is another's")
	}
	m.links[hash] = store.Link{Approval: id, Email: email, Expires: expires}
	return nil
}

// Link implements Approvals.
func (m *ApprovalsMemory) Link(_ context.Context, hash string) (store.Link, bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.links[hash]
	return l, ok, nil
}

// UseLink implements Approvals.
func (m *ApprovalsMemory) UseLink(_ context.Context, hash string, now time.Time) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.links[hash]
	if !ok {
		return access.Errorf(access.NotFound, "there is no such link")
	}
	if err := l.Spent(now); err != nil {
		return err
	}
	l.Used = now
	m.links[hash] = l
	return nil
}

// PutSent implements Approvals.
func (m *ApprovalsMemory) PutSent(_ context.Context, id, channel, ref string) error {
	return m.set("sent#"+id+"#"+channel, ref)
}

// Sent implements Approvals.
func (m *ApprovalsMemory) Sent(_ context.Context, id string) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	sent := map[string]string{}
	for word, ref := range maps.All(m.words) {
		if channel, ok := strings.CutPrefix(word, "sent#"+id+"#"); ok {
			sent[channel] = ref
		}
	}
	return sent, nil
}

// Limit implements Approvals.
func (m *ApprovalsMemory) Limit(_ context.Context, key string, window time.Time, limit int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	at := fmt.Sprint("limit#", key, "#", window.UnixMilli())
	if m.count[at] >= limit {
		return store.Full(limit)
	}
	m.count[at]++
	return nil
}

// Once implements Approvals.
func (m *ApprovalsMemory) Once(_ context.Context, key string, _ time.Time) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.count["once#"+key]++
	return m.count["once#"+key] == 1, nil
}

// PutKnown implements Approvals.
func (m *ApprovalsMemory) PutKnown(_ context.Context, issuer, subject, email string) error {
	return m.set("known#"+access.Digest(issuer, subject), strings.ToLower(email))
}

// Known implements Approvals.
func (m *ApprovalsMemory) Known(_ context.Context, issuer, subject string) (string, bool, error) {
	return m.word("known#" + access.Digest(issuer, subject))
}
