package detect

import (
	"math"
	"regexp/syntax"
	"slices"
)

const (
	// A secret of which no end is seen for so long is one: it is masked, to where it may end. It bounds what a stream
	// holds back.
	maxSecret = 7 << 10
	// A secret that counts without its end goes on for so long at most.
	maxOpen = 16 << 10
	// A keyword may begin so much before what was looked at last, and a match so much before a keyword.
	overlap = maxBefore + maxKeyword
)

// A thread is one way a rule may go on from here.
type thread struct {
	pc         uint32
	open, over bool
	from       int // where the match begins
	begin, end int // the secret, as far as it is known; else -1
}

type interval struct{ from, to int }

// A run is one rule at work.
type run struct {
	threads []thread
	matches []thread   // of each beginning the best so far, while threads of it could find a better one
	starts  []interval // matches may begin there
	first   int        // of starts, the first that is not all tried
	pos     int        // bytes before were taken
}

func (r *run) idle() bool {
	return len(r.threads) == 0 && len(r.matches) == 0 && r.first == len(r.starts)
}

func (r *run) clear() { *r = run{threads: r.threads[:0], matches: r.matches[:0], starts: r.starts[:0]} }

// A scan looks for secrets in text that grows. Places are counted from the text's beginning; of the text only a window is
// there.
type scan struct {
	set    *Set
	runs   []run // by rule
	active []int // rules that have threads or starts
	looked int   // keywords that begin before it were found
	spans  []Span

	hits []hit
	next []thread
	mark []uint32 // by instruction: the step that reached it last
	step uint32

	trial run // of early
}

func newScan(set *Set) *scan {
	return &scan{set: set, runs: make([]run, len(set.rules)), mark: make([]uint32, set.largest)}
}

// reset forgets everything.
func (s *scan) reset() {
	for _, i := range s.active {
		s.runs[i].clear()
	}
	s.active, s.spans, s.looked = s.active[:0], s.spans[:0], 0
}

// A window is a part of the text.
type window struct {
	b    []byte
	base int  // its place
	last bool // the text ends with it
}

func (w window) end() int { return w.base + len(w.b) }

// advance takes what is new in w, which overlaps the last one by what keep said. It adds to spans, and returns the place
// before which nothing that comes can be a secret any more.
func (s *scan) advance(w window) (safe int) {
	k := s.set.keywords
	from := s.looked - w.base
	limit, safe := w.end(), w.end()
	if !w.last {
		anyTail, inside := k.tail(w.b, from)
		limit, safe = w.base+anyTail, w.base+inside
	}
	s.hits = k.find(w.b, from, s.hits)
	for _, h := range s.hits {
		at := w.base + h.at
		if at >= limit {
			break // found again when all of its kind can be
		}
		for _, i := range k.words[h.word].rules {
			s.start(i, interval{max(0, at-s.set.rules[i].before), at})
		}
	}
	s.looked = limit
	active := s.active[:0]
	for _, i := range s.active {
		r, rule := &s.runs[i], s.set.rules[i]
		upTo := limit
		if !w.last {
			upTo -= rule.before // a keyword behind limit may begin a match there
		}
		s.run(rule, r, w, upTo)
		if r.idle() {
			r.clear()
			continue
		}
		active = append(active, i)
		safe = min(safe, r.held())
	}
	s.active = active
	if !w.last {
		for _, i := range s.set.late {
			safe = min(safe, s.early(i, w, limit))
		}
	}
	return safe
}

// start notes that matches of a rule may begin in n.
func (s *scan) start(i int, n interval) {
	r := &s.runs[i]
	if r.idle() {
		s.active = append(s.active, i)
		r.pos = n.from
	}
	if r.first < len(r.starts) && n.from <= r.starts[len(r.starts)-1].to+1 {
		last := &r.starts[len(r.starts)-1]
		last.to = max(last.to, n.to)
		return
	}
	r.starts = append(r.starts, n)
}

// held is the place from which on bytes may be of a secret that is not found yet.
func (r *run) held() int {
	at := r.pos
	if len(r.threads) == 0 && r.first < len(r.starts) {
		at = max(at, r.starts[r.first].from)
	}
	for _, t := range r.threads {
		if t.begin >= 0 {
			at = min(at, t.begin)
		}
	}
	for _, t := range r.matches {
		at = min(at, t.begin)
	}
	return at
}

// early is held for a rule whose keyword comes behind the beginning of its secret, as if the keyword came next.
func (s *scan) early(i int, w window, limit int) int {
	rule := s.set.rules[i]
	from := limit
	for from > w.base && from > limit-rule.before && rule.lead.has(w.b[from-1-w.base]) {
		from--
	}
	if from == limit {
		return limit
	}
	spans := s.spans
	s.spans = nil
	s.trial.clear()
	r := &s.trial
	r.pos, r.starts = from, append(r.starts, interval{from, limit - 1})
	w.last = false
	s.run(rule, r, w, limit)
	s.spans = spans
	return r.held()
}

// keep is the place from which on the text is needed again. No run is further behind what was looked at than overlap.
func (s *scan) keep() int {
	at := s.looked - overlap
	for _, i := range s.active {
		r := &s.runs[i]
		for _, t := range r.threads {
			if t.begin >= 0 {
				at = min(at, t.begin)
			}
		}
		for _, t := range r.matches {
			at = min(at, t.begin)
		}
	}
	return max(0, at)
}

// run takes the bytes up to a place, and the text's end if that is there.
func (s *scan) run(rule *rule, r *run, w window, upTo int) {
	for !r.idle() {
		if len(r.threads) == 0 {
			r.pos = max(r.pos, r.starts[r.first].from)
		}
		if r.pos >= upTo {
			break
		}
		if r.first < len(r.starts) && r.starts[r.first].from <= r.pos {
			if !rule.whole {
				r.threads = append(r.threads, thread{pc: rule.start, from: r.pos, begin: -1, end: -1})
			} else if !w.between(r.pos) {
				r.threads = append(r.threads, thread{pc: rule.start, from: r.pos, begin: r.pos, end: -1})
			}
			if n := &r.starts[r.first]; n.to > r.pos {
				n.from = r.pos + 1
			} else if r.first++; r.first == len(r.starts) {
				r.starts, r.first = r.starts[:0], 0
			}
		}
		s.take(rule, r, w)
		r.pos++
	}
	if w.last && !r.idle() {
		for _, t := range r.threads {
			if t.open && t.begin >= 0 {
				s.found(rule, t.begin, w.end())
			}
		}
		s.take(rule, r, w)
		r.clear()
	}
}

// A place is what instructions without bytes ask for.
type place struct {
	cur       byte
	end       bool
	between   bool // bytes of one character: no secret begins or ends there, or a mask would break it
	condition syntax.EmptyOp
}

func (w window) between(pos int) bool {
	i := pos - w.base
	return i > 0 && i < len(w.b) && w.b[i]&0xc0 == 0x80 && w.b[i-1] >= 0x80
}

func (w window) place(pos int) place {
	var p place
	i := pos - w.base
	prevWord, curWord := false, false
	if pos == 0 {
		p.condition |= syntax.EmptyBeginText | syntax.EmptyBeginLine
	} else {
		prevWord = isWord(w.b[i-1])
		if w.b[i-1] == '\n' {
			p.condition |= syntax.EmptyBeginLine
		}
	}
	if i == len(w.b) {
		p.end = true
		p.condition |= syntax.EmptyEndText | syntax.EmptyEndLine
	} else {
		p.cur = w.b[i]
		curWord = isWord(p.cur)
		if p.cur == '\n' {
			p.condition |= syntax.EmptyEndLine
		}
	}
	p.between = w.between(pos)
	if prevWord != curWord {
		p.condition |= syntax.EmptyWordBoundary
	} else {
		p.condition |= syntax.EmptyNoWordBoundary
	}
	return p
}

func isWord(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_'
}

// take moves every thread over one byte, best first. Of threads that reach the same instruction only the first goes on:
// what follows is the same for all, and its secret is the longest. When a thread matches, the ones after it that began with
// it are given up, as in any such engine; those that began later are not, so that one match never hides another.
// A match counts when no thread that is better and began with it is left.
func (s *scan) take(rule *rule, r *run, w window) {
	p := w.place(r.pos)
	s.step++
	if s.step == 0 {
		clear(s.mark)
		s.step = 1
	}
	s.next = s.next[:0]
	matched := -1
	for _, t := range r.threads {
		if t.from != matched && s.follow(rule, r, t, &p) {
			matched = t.from
		}
	}
	r.threads = append(r.threads[:0], s.next...)
	if len(r.matches) > 0 {
		s.settle(rule, r, w)
	}
}

// follow goes on from an instruction to the ones that take a byte, and says whether it came to a match.
func (s *scan) follow(rule *rule, r *run, t thread, p *place) bool {
	for {
		if s.mark[t.pc] == s.step {
			return false
		}
		s.mark[t.pc] = s.step
		in := &rule.insts[t.pc]
		switch in.op {
		case syntax.InstAlt, syntax.InstAltMatch:
			first := t
			first.pc = in.out
			if s.follow(rule, r, first, p) {
				return true
			}
			t.pc = in.arg
			continue
		case syntax.InstNop:
		case syntax.InstCapture:
			if p.between && (in.cap == captureBegin || in.cap == captureEnd) {
				return false
			}
			switch in.cap {
			case captureBegin:
				if t.begin < 0 {
					t.begin = r.pos
				}
				t.end = -1
			case captureEnd:
				t.end = r.pos
			case captureOpen:
				t.open = true
			}
		case syntax.InstEmptyWidth:
			if syntax.EmptyOp(in.arg)&^p.condition != 0 { //nolint:gosec // it is one
				return false
			}
		case syntax.InstMatch:
			if rule.whole {
				if p.between {
					return false
				}
				t.end = r.pos
			}
			r.match(t)
			return true
		case syntax.InstRune:
			if p.end || !in.pass.has(p.cur) {
				return false
			}
			t.pc = in.out
			s.push(rule, t, r.pos+1, p.cur)
			return false
		default:
			return false
		}
		t.pc = in.out
	}
}

// push lets a thread go on at pos.
func (s *scan) push(rule *rule, t thread, pos int, c byte) {
	if t.begin >= 0 && (t.over || pos-t.begin >= maxSecret) {
		if t.end >= 0 {
			// What is behind the secret decides, and does not come.
			s.found(rule, t.begin, t.end)
			t.begin, t.end = -1, -1
			return
		}
		s.found(rule, t.begin, pos)
		t.over, t.begin = true, pos
	}
	if t.open && pos-t.from >= maxOpen && c < 0x80 {
		return
	}
	s.next = append(s.next, t)
}

// match notes a match that ends here.
func (r *run) match(t thread) {
	if t.begin < 0 || t.end <= t.begin {
		return
	}
	for i := range r.matches {
		if r.matches[i].from == t.from {
			r.matches[i] = t
			return
		}
	}
	r.matches = append(r.matches, t)
}

// settle takes the matches that no thread can better any more, or has not for too long.
func (s *scan) settle(rule *rule, r *run, w window) {
	left := r.matches[:0]
	for _, m := range r.matches {
		better := slices.ContainsFunc(r.threads, func(t thread) bool { return t.from == m.from })
		if better && r.pos-m.begin < maxSecret {
			left = append(left, m)
			continue
		}
		if !m.over {
			b := w.b[m.begin-w.base : m.end-w.base]
			if rule.entropy > 0 && entropy(b) <= rule.entropy || isMask(b) || rule.except != nil && rule.except.Match(b) {
				continue
			}
		}
		s.found(rule, m.begin, m.end)
	}
	r.matches = left
}

func (s *scan) found(rule *rule, begin, end int) {
	if n := len(s.spans); n > 0 {
		if last := &s.spans[n-1]; last.Detector == rule.name && begin >= last.Start && begin <= last.End {
			last.End = max(last.End, end)
			return
		}
	}
	s.spans = append(s.spans, Span{begin, end, rule.name})
}

// entropy is Shannon's, in bits a byte.
func entropy(b []byte) float64 {
	var count [256]int
	for _, c := range b {
		count[c]++
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			p := float64(n) / float64(len(b))
			sum -= p * math.Log2(p)
		}
	}
	return sum
}
