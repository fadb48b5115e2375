// Package detect finds secrets by their shape in text nobody described: logs, what exec prints, strings of objects, error
// texts. It has the rules of gitleaks, as data, and a few of its own, and can be given more.
//
// It promises, for text that says a secret in a shape it knows: the secret is found whole and masked, what stands around it
// stays as it was, and it makes no difference how the text was cut on its way. A [Stream] holds back only what may be the
// beginning of a secret, never more than 8 KiB; what goes on for longer inside a secret is masked without waiting for its
// end, and so is a private key whose end is missing. A mask does not break a UTF-8 character. Time is linear in the text,
// whatever the text: about 1.5 GB/s a core where no keyword is, 100 MB/s in objects and logs, and of the order of 1 MB/s in text
// that was made to be slow. All of it holds for hostile text: it comes from the workloads, and from the agent.
//
// How it works. Every rule is a pattern in which each match holds one of a few keywords (found all in one pass); where one
// is, the rule's program runs byte by byte until nothing can come of it. A match depends on nothing but the bytes from its
// keyword on and a few before, so the same is found in the whole text and in pieces. Matches of different rules, and of one
// rule that overlap, are masked together: package regexp would report fewer, never more.
//
// Not promised: that every secret is found. Who can choose what is printed can encode, reverse or space out a secret, and a
// password without a name beside it looks like any word. Structured places are the masker's, which knows where secrets are;
// this is the net below it. A stream that is flushed in the middle of a secret has let out its first part.
//
// What is wrong here shows as a secret that goes out, or as text that is masked for nothing: an error in a rule is confined
// to what the rule matches. No decision about what a request may do depends on it.
package detect

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Mark stands where a secret was. It is the same for all: who can make text appear, as in a log, must not learn from marks
// which values are equal.
const Mark = "[masked]"

// A Detector finds one kind of secret.
type Detector struct {
	Name string `json:"name"`
	// Pattern is RE2. The secret is what its group matches, of several from where the first begins to where the last ends, or
	// the whole match without one. Groups inside others or that repeat do not count.
	Pattern string `json:"pattern"`
	// Keywords are for a pattern without fixed text of three bytes or more, which could begin anywhere: it then counts only
	// within 128 bytes behind one of them, in any case. Other patterns do not need them.
	Keywords []string `json:"keywords,omitempty"`
	// Entropy is how many bits a byte of the secret must carry more than; 0 to count every match.
	Entropy float64 `json:"entropy,omitempty"`
}

// A Span is where a secret is: text[Start:End].
type Span struct {
	Start, End int
	Detector   string
}

// A Set is many detectors, compiled. It does not change and is safe for concurrent use.
type Set struct {
	rules    []*rule
	late     []int // rules whose secret may begin before what gives it away
	keywords *keywords
	largest  int
	scans    *sync.Pool
}

func newSet(rules []*rule) (*Set, error) {
	words, err := newKeywords(rules)
	if err != nil {
		return nil, err
	}
	s := &Set{rules: rules, keywords: words}
	names := map[string]bool{}
	for i, r := range rules {
		if names[r.name] {
			return nil, fmt.Errorf("detector %q: there are two of this name", r.name)
		}
		names[r.name] = true
		s.largest = max(s.largest, len(r.insts))
		if r.before > 0 && r.inside {
			s.late = append(s.late, i)
		}
	}
	s.scans = &sync.Pool{New: func() any { return newScan(s) }}
	return s, nil
}

// With is s and more detectors. The error says which one cannot be used, and why.
func (s *Set) With(more []Detector) (*Set, error) {
	if len(more) == 0 {
		return s, nil
	}
	rules := slices.Clone(s.rules)
	for _, d := range more {
		r, err := compile(d, 0, false, nil)
		if err != nil {
			return nil, fmt.Errorf("detector %q: %w", d.Name, err)
		}
		rules = append(rules, r)
	}
	return newSet(rules)
}

// Check says why a detector cannot be used with any other; nil when it can.
func Check(d Detector) error {
	_, err := compile(d, 0, false, nil)
	return err
}

// Names lists the detectors.
func (s *Set) Names() []string {
	var names []string
	for _, r := range s.rules {
		names = append(names, r.name)
	}
	return names
}

const (
	small = 4 << 10  // text that is looked over for keywords before anything else
	block = 64 << 10 // what is searched at once, so that what is noted on the way stays small
)

// Maybe says whether there may be a secret in b. When it says no, nothing is found in b, nor in any part of it: who has much
// text in small pieces asks once for all of it, and only looks at the pieces when the answer is yes. It costs less than a
// nanosecond a byte and knows nothing of escapes.
func (s *Set) Maybe(b []byte) bool { return s.keywords.any(b) }

// Find says where secrets are in b: in order, none touching another. It takes b for the whole text: for a part of one the
// places at its ends may differ, use a [Stream]. Nothing is allocated when there are none.
func (s *Set) Find(b []byte) []Span {
	if len(b) <= small && !s.keywords.any(b) {
		return nil
	}
	c := s.scans.Get().(*scan)
	defer s.scans.Put(c)
	for end := 0; end < len(b); {
		end = min(len(b), end+block)
		c.advance(window{b: b[:end], last: end == len(b)})
	}
	var spans []Span
	if len(c.spans) > 0 {
		spans = merge(slices.Clone(c.spans))
	}
	c.reset()
	return spans
}

// merge puts spans in order and makes one of those that touch.
func merge(spans []Span) []Span {
	slices.SortFunc(spans, func(a, b Span) int {
		if a.Start != b.Start {
			return a.Start - b.Start
		}
		if a.End != b.End {
			return b.End - a.End
		}
		return strings.Compare(a.Detector, b.Detector)
	})
	out := spans[:0]
	for _, n := range spans {
		if len(out) > 0 && n.Start <= out[len(out)-1].End {
			out[len(out)-1].End = max(out[len(out)-1].End, n.End)
			continue
		}
		out = append(out, n)
	}
	return out
}

// Mask returns b with a [Mark] for every secret, and b itself when there are none. b is not changed.
func (s *Set) Mask(b []byte) []byte {
	spans := s.Find(b)
	if len(spans) == 0 {
		return b
	}
	out := make([]byte, 0, len(b)+len(spans)*len(Mark))
	at := 0
	for _, n := range spans {
		out = append(append(out, b[at:n.Start]...), Mark...)
		at = n.End
	}
	return append(out, b[at:]...)
}

// isMask says whether b is a mask already, of this package or one that a structured path got.
func isMask(b []byte) bool {
	inner, ok := bytes.CutPrefix(b, []byte("[masked"))
	if !ok || !bytes.HasSuffix(inner, []byte("]")) {
		return false
	}
	inner = inner[:len(inner)-1]
	if len(inner) == 0 {
		return true
	}
	if len(inner) != 13 || inner[0] != ':' {
		return false
	}
	for _, c := range inner[1:] {
		if (c < 'a' || c > 'z') && (c < '2' || c > '7') {
			return false
		}
	}
	return true
}
