// Package canary plants secrets and finds them again, in whatever an agent gets out of a stack.
//
// A canary is random, so that wherever ten characters of it in a row appear, it came from where it was planted. It is looked
// for in every spelling in which a client could read it back: as it is, in base64 wherever the base64 begins, in base64 in
// base64, in hex, and in what a Helm release unpacks to. All of them are found in one pass, which needs to see no more
// of a text at a time than comes.
package canary

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Shortest is how many characters of a secret are found, in any of its spellings.
const Shortest = 10

// Length is how many random characters a planted secret has.
const Length = 20

// A Set is planted secrets. It must not be added to while it is searched for.
type Set struct {
	mu      sync.Mutex
	secrets []Secret
	windows map[[Shortest]byte]int // index of the secret
	filter  [1 << (filterBits - 6)]uint64
}

// A Secret is one that was planted.
type Secret struct {
	Text    string
	Carrier string // what holds it
}

// New is a set of nothing yet.
func New() *Set { return &Set{windows: map[[Shortest]byte]int{}} }

// Plant makes a secret for a carrier: small letters and digits.
func (s *Set) Plant(carrier string) string {
	text := strings.ToLower(rand.Text()[:Length])
	s.Add(carrier, text)
	return text
}

// Add adds a secret that somebody else made. It must be of text that is nowhere else.
func (s *Set) Add(carrier, text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(text) < Shortest {
		panic(fmt.Sprintf("the secret of %s is too short to be told from other text", carrier))
	}
	s.secrets = append(s.secrets, Secret{text, carrier})
	for _, spelling := range spellings(text) {
		for i := range len(spelling) - Shortest + 1 {
			w := [Shortest]byte([]byte(spelling[i:]))
			s.windows[w] = len(s.secrets) - 1
			slot := slot(w[:])
			s.filter[slot>>6] |= 1 << (slot & 63)
		}
	}
}

// spellings are a secret and what it looks like encoded.
func spellings(text string) []string {
	all := []string{text, hex.EncodeToString([]byte(text)), strings.ToUpper(hex.EncodeToString([]byte(text)))}
	for _, once := range encoded(text) {
		all = append(append(all, once), encoded(once)...)
	}
	return all
}

// encoded are the three things that base64 makes of a text in the middle of others: what does not depend on the others.
func encoded(text string) []string {
	var all []string
	for before := range 3 {
		b := base64.StdEncoding.EncodeToString(append(make([]byte, before), text...))
		all = append(all, b[(8*before+5)/6:8*(before+len(text))/6])
	}
	return all
}

// filterBits is the size of what tells fast that a text at some place is no secret's.
const filterBits = 23

func slot(b []byte) uint64 {
	return binary.LittleEndian.Uint64(b) * 0x9e3779b97f4a7c15 >> (64 - filterBits)
}

// at is the secret of which ten characters are at the beginning of b, and -1 when there is none.
func (s *Set) at(b []byte) int {
	slot := slot(b)
	if s.filter[slot>>6]>>(slot&63)&1 == 0 {
		return -1
	}
	if i, ok := s.windows[[Shortest]byte(b)]; ok {
		return i
	}
	return -1
}

// Len is how many there are.
func (s *Set) Len() int { return len(s.secrets) }

// Secrets are all of them.
func (s *Set) Secrets() []Secret { return slices.Clone(s.secrets) }

// Carriers are what holds them, each once, in order.
func (s *Set) Carriers() []string {
	var all []string
	for _, c := range s.secrets {
		all = append(all, c.Carrier)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// In are the secrets that are in a text.
func (s *Set) In(text string) []Secret {
	r := s.Search()
	_, _ = r.Write([]byte(text))
	return r.Found()
}
