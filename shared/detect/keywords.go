package detect

import (
	"cmp"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
)

// lower maps ASCII capitals to small letters and leaves every other byte.
var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] = byte(i) + 'a' - 'A'
		}
	}
	return t
}()

// Keywords finds many words in any case in one pass. Of each word five neighbouring bytes that are rare in other text give
// two hashes, of the first and of the last four; of each byte only the low five bits count, which fold case and throw
// together a few others. Every second place of the text is looked up, so one of the two is met, and only there are bytes
// compared. A shorter word has a hash for all that may stand beside it.
type keywords struct {
	words   []word // in order
	filter  [1 << (hashBits - 6)]uint64
	heads   [1 << hashBits]uint16 // one more than the place in lists, 0 for none
	lists   [][]guess
	pairs   [1 << 10]bool // how words begin
	longest int
}

// A guess is that a word is at a place, if so many bytes before the hash.
type guess struct{ word, before int }

type word struct {
	text   string
	rules  []int
	inside bool // it may be part of a secret
}

// A hit is a word that is at a place.
type hit struct{ word, at int }

const (
	gram     = 4
	hashBits = 17
	maxLists = 1 << (hashBits - 3) // with more, most text would have to be compared
)

// hash is of four bytes, the first is the lowest, of which only the low five bits are there.
func hash(x uint32) uint32 { return x * 0x9e3779b1 >> (32 - hashBits) }

const folds = 0x1f1f1f1f1f1f1f1f

func pair(a, b byte) int { return int(a&31) | int(b&31)<<5 }

func hashOf(b []byte) uint32 { return hash(binary.LittleEndian.Uint32(b) & (folds & 0xffffffff)) }

func newKeywords(rules []*rule) (*keywords, error) {
	k := &keywords{}
	byText := map[string]*word{}
	for i, r := range rules {
		for _, text := range r.keywords {
			w := byText[text]
			if w == nil {
				w = &word{text: text}
				byText[text] = w
			}
			w.rules = append(w.rules, i)
			w.inside = w.inside || r.inside
		}
	}
	for _, w := range byText {
		k.words = append(k.words, *w)
		k.longest = max(k.longest, len(w.text))
	}
	slices.SortFunc(k.words, func(a, b word) int { return strings.Compare(a.text, b.text) })
	for n, w := range k.words {
		k.pairs[pair(w.text[0], w.text[1])] = true
		i := rarest(w.text)
		k.note(w.text[i:min(len(w.text), i+gram)], n, i)
		if len(w.text) > gram {
			k.note(w.text[i+1:i+1+gram], n, i+1)
			continue
		}
		for c := range byte(32) {
			k.note(string([]byte{c})+w.text[:minKeyword], n, -1)
		}
		if len(k.lists) > maxLists {
			return nil, errors.New("too many detectors")
		}
	}
	return k, nil
}

func (k *keywords) note(part string, n, before int) {
	if len(part) < gram {
		for c := range byte(32) {
			k.note(part+string([]byte{c}), n, before)
		}
		return
	}
	h := hashOf([]byte(part))
	k.filter[h>>6] |= 1 << (h & 63)
	if k.heads[h] == 0 {
		k.lists = append(k.lists, nil)
		k.heads[h] = uint16(len(k.lists)) //nolint:gosec // bound by maxLists
	}
	if list, g := &k.lists[k.heads[h]-1], (guess{n, before}); !slices.Contains(*list, g) {
		*list = append(*list, g)
	}
}

// rarest is where the bytes are that other text is least likely to have.
func rarest(text string) int {
	const common = "etaoinsrlcdpumhgfbyvw-k_.:/=0123456789x\"zjq"
	best, at := -1, 0
	for i := 0; i+gram < len(text); i++ {
		sum := 0
		for _, c := range []byte(text[i : i+gram+1]) {
			rank := strings.IndexByte(common, c)
			if rank < 0 {
				rank = len(common)
			}
			sum += rank
		}
		if sum > best {
			best, at = sum, i
		}
	}
	return at
}

// any says whether one of the words is in b.
func (k *keywords) any(b []byte) bool {
	var few [1]hit
	return len(k.search(b, 0, few[:0], true)) > 0
}

// find gives the words that are in b whole and begin at from or behind it, in order, in the space of hits.
func (k *keywords) find(b []byte, from int, hits []hit) []hit {
	hits = k.search(b, from, hits[:0], false)
	if len(hits) > 1 {
		slices.SortFunc(hits, func(a, b hit) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.word, b.word)) })
	}
	return hits
}

// search appends what find gives in no order, or only what it comes to first.
func (k *keywords) search(b []byte, from int, hits []hit, first bool) []hit {
	i := from
	for ; i+8 <= len(b); i += 6 {
		x := binary.LittleEndian.Uint64(b[i:]) & folds
		h0, h2, h4 := hash(uint32(x)), hash(uint32(x>>16)), hash(uint32(x>>32)) //nolint:gosec // the low half is wanted
		f0, f2, f4 := k.filter[h0>>6]>>(h0&63), k.filter[h2>>6]>>(h2&63), k.filter[h4>>6]>>(h4&63)
		if (f0|f2|f4)&1 == 0 {
			continue
		}
		if f0&1 != 0 {
			hits = k.try(b, h0, i, from, hits)
		}
		if f2&1 != 0 {
			hits = k.try(b, h2, i+2, from, hits)
		}
		if f4&1 != 0 {
			hits = k.try(b, h4, i+4, from, hits)
		}
		if first && len(hits) > 0 {
			return hits
		}
	}
	// The last bytes, fewer than eight, as if others came behind them.
	if i < len(b) {
		var last [8]byte
		copy(last[:], b[i:])
		for x := binary.LittleEndian.Uint64(last[:]) & folds; i < len(b); i, x = i+2, x>>16 {
			if h := hash(uint32(x)); k.filter[h>>6]>>(h&63)&1 != 0 { //nolint:gosec // the low half is wanted
				hits = k.try(b, h, i, from, hits)
			}
		}
	}
	return hits
}

// try compares the words that may be where a hash is.
func (k *keywords) try(b []byte, h uint32, i, from int, hits []hit) []hit {
	head := k.heads[h]
	if head == 0 {
		return hits
	}
	for _, g := range k.lists[head-1] {
		text := k.words[g.word].text
		start := i - g.before
		if start >= from && start+len(text) <= len(b) && folded(b[start:start+len(text)], text) {
			hits = append(hits, hit{g.word, start})
		}
	}
	return hits
}

func folded(b []byte, text string) bool {
	for i := range b {
		if lower[b[i]] != text[i] {
			return false
		}
	}
	return true
}

// tail says from where on the end of b may be the beginning of a word, and of a word that may be part of a secret;
// len(b) when it is not. Before from is not looked.
func (k *keywords) tail(b []byte, from int) (begins, inside int) {
	begins, inside = len(b), len(b)
	for i := len(b) - 1; i >= max(from, len(b)-k.longest+1); i-- {
		rest := b[i:]
		if len(rest) > 1 && !k.pairs[pair(rest[0], rest[1])] {
			continue
		}
		n, _ := slices.BinarySearchFunc(k.words, rest, func(w word, rest []byte) int {
			for j := range min(len(w.text), len(rest)) {
				if c := int(w.text[j]) - int(lower[rest[j]]); c != 0 {
					return c
				}
			}
			return len(w.text) - len(rest) // a longer word comes behind its beginning
		})
		for ; n < len(k.words) && len(k.words[n].text) >= len(rest) && folded(rest, k.words[n].text[:len(rest)]); n++ {
			if len(k.words[n].text) == len(rest) {
				continue // it is there whole
			}
			begins = i
			if k.words[n].inside {
				inside = i
				break
			}
		}
	}
	return begins, inside
}
