package detect

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	minKeyword = 3   // shorter ones would be found everywhere; the prefilter looks at three bytes
	maxKeyword = 16  // of longer ones the rest is left to the program
	maxBefore  = 256 // a match may begin so many bytes before its keyword: so much of the text is looked at again
	maxProgram = 4096
	nearby     = 128 // how far behind a keyword that is not in the pattern a match may begin
)

// A rule is a Detector ready to run: a program that is started where a keyword is and fed byte by byte. Everything it
// finds depends only on the bytes from there on and the one before, never on how they came, which is why a stream finds
// what the whole text has.
type rule struct {
	name     string
	insts    []inst
	start    uint32
	whole    bool // without a group the whole match is the secret
	entropy  float64
	except   *regexp.Regexp // what looks like the secret and is none
	keywords []string       // every match holds one, lower case
	before   int            // the match begins at most so many bytes before it
	inside   bool           // the keyword is part of the secret, or behind its beginning
	lead     set            // what may be before the keyword
}

// inst is one instruction of regexp/syntax, over bytes.
type inst struct {
	op   syntax.InstOp
	out  uint32
	arg  uint32
	cap  capture
	pass set // of InstRune: the bytes it takes
}

// A set of bytes.
type set [4]uint64

func (s *set) has(c byte) bool { return s[c>>6]&(1<<(c&63)) != 0 }
func (s *set) add(c byte)      { s[c>>6] |= 1 << (c & 63) }

func (s set) with(t set) set {
	for i := range s {
		s[i] |= t[i]
	}
	return s
}

type capture uint8

const (
	captureNone capture = iota
	captureBegin
	captureEnd
	captureOpen // from here on the secret counts even when its end is not seen
)

// openGroup is the name of the empty group behind which the end of a secret may be missing.
const openGroup = "open"

func compile(d Detector, group int, whole bool, except *regexp.Regexp) (*rule, error) {
	if d.Name == "" {
		return nil, errors.New("a detector without a name")
	}
	re, err := syntax.Parse(d.Pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	re, err = ascii(re)
	if err != nil {
		return nil, err
	}
	if whole {
		group = -1
	}
	re = groups(re, group, false)
	if _, ok := fixed(re); !ok && len(d.Keywords) > 0 {
		re, err = behind(re, d.Keywords)
		if err != nil {
			return nil, err
		}
	}
	if captures(re) {
		re = strip(re)
	}
	key, ok := fixed(re)
	switch {
	case !ok:
		return nil, fmt.Errorf("its pattern has no fixed text of %d bytes or more that every match holds: name keywords that stand before it", minKeyword)
	case key.before > maxBefore:
		return nil, fmt.Errorf("a match may begin more than %d bytes before its fixed text", maxBefore)
	}
	prog, err := syntax.Compile(re.Simplify())
	if err != nil {
		return nil, err
	}
	if len(prog.Inst) > maxProgram {
		return nil, errors.New("its pattern is too large")
	}
	r := &rule{name: d.Name, start: uint32(prog.Start), whole: !captures(re), entropy: d.Entropy, except: except, //nolint:gosec // bound by maxProgram
		keywords: key.words, before: key.before, inside: key.inside, lead: key.lead}
	r.inside = r.inside || r.whole
	open := slices.Index(re.CapNames(), openGroup)
	for _, in := range prog.Inst {
		i := inst{op: in.Op, out: in.Out, arg: in.Arg}
		switch in.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			i.op = syntax.InstRune
			for c := range 256 {
				if in.MatchRune(rune(c)) {
					i.pass.add(byte(c))
				}
			}
		case syntax.InstCapture:
			switch {
			case int(in.Arg/2) == open && open > 0:
				i.cap = captureOpen
			case in.Arg/2 == 0:
			case in.Arg%2 == 0:
				i.cap = captureBegin
			default:
				i.cap = captureEnd
			}
		}
		r.insts = append(r.insts, i)
	}
	return r, nil
}

// ascii makes a pattern over characters one over bytes, where a byte is the character of the same number: other than
// ASCII text becomes its UTF-8 bytes, and a class with characters outside ASCII takes every byte of theirs. So a class
// takes more than its author wrote, and a count of such characters counts their bytes. The two letters that only fold to
// ASCII (U+017F and U+212A) are left out.
func ascii(re *syntax.Regexp) (*syntax.Regexp, error) {
	switch re.Op {
	case syntax.OpLiteral:
		var runes []rune
		for _, r := range re.Rune {
			if r < utf8.RuneSelf {
				runes = append(runes, r)
				continue
			}
			if re.Flags&syntax.FoldCase != 0 {
				return nil, errors.New("case can only be ignored in ASCII")
			}
			for _, c := range []byte(string(r)) {
				runes = append(runes, rune(c))
			}
		}
		re.Rune = runes
	case syntax.OpCharClass:
		var low []rune
		wide := false
		for i := 0; i < len(re.Rune); i += 2 {
			lo, hi := re.Rune[i], re.Rune[i+1]
			if lo < utf8.RuneSelf {
				low = append(low, lo, min(hi, utf8.RuneSelf-1))
			}
			if folded := lo == hi && (lo == '\u017f' || lo == '\u212a'); hi >= utf8.RuneSelf && !folded {
				wide = true
			}
		}
		if wide {
			low = append(low, utf8.RuneSelf, 0xff)
		}
		re.Rune = low
	}
	for i, sub := range re.Sub {
		s, err := ascii(sub)
		if err != nil {
			return nil, err
		}
		re.Sub[i] = s
	}
	return re, nil
}

// groups leaves the groups that hold the secret: the one that is asked for (0: every one on the outside, -1: none). A
// group that repeats, or is inside another, only holds a part.
func groups(re *syntax.Regexp, want int, inside bool) *syntax.Regexp {
	keep := false
	switch re.Op {
	case syntax.OpCapture:
		keep = re.Name == openGroup || !inside && (want == 0 || want == re.Cap)
		inside = inside || keep
	case syntax.OpStar, syntax.OpPlus, syntax.OpRepeat:
		inside = true
	}
	for i, sub := range re.Sub {
		re.Sub[i] = groups(sub, want, inside)
	}
	if re.Op == syntax.OpCapture && !keep {
		return re.Sub[0]
	}
	return re
}

// captures says whether there is a group for the secret in re.
func captures(re *syntax.Regexp) bool {
	return re.Op == syntax.OpCapture && re.Name != openGroup || slices.ContainsFunc(re.Sub, captures)
}

// behind is re behind one of words.
func behind(re *syntax.Regexp, words []string) (*syntax.Regexp, error) {
	var quoted []string
	for _, w := range words {
		if len(w) < minKeyword {
			return nil, fmt.Errorf("keyword %q has less than %d bytes", w, minKeyword)
		}
		for i := range len(w) {
			if w[i] >= utf8.RuneSelf {
				return nil, fmt.Errorf("keyword %q is not ASCII", w)
			}
		}
		quoted = append(quoted, regexp.QuoteMeta(w))
	}
	before, err := syntax.Parse(fmt.Sprintf(`(?i:%s)(?s:.{0,%d}?)`, strings.Join(quoted, "|"), nearby), syntax.Perl)
	if err != nil {
		return nil, err
	}
	if before, err = ascii(before); err != nil {
		return nil, err
	}
	if !captures(re) {
		re = &syntax.Regexp{Op: syntax.OpCapture, Cap: 1, Sub: []*syntax.Regexp{re}}
	}
	return &syntax.Regexp{Op: syntax.OpConcat, Sub: []*syntax.Regexp{before, re}}, nil
}

// strip takes off what may stand before the rest and is not the secret, as in `[\w.-]{0,50}?(?:adafruit)…`: the same
// secrets match without it, and the match begins at the keyword.
func strip(re *syntax.Regexp) *syntax.Regexp {
	switch re.Op {
	case syntax.OpAlternate:
		for i, sub := range re.Sub {
			if captures(sub) {
				re.Sub[i] = strip(sub)
			}
		}
	case syntax.OpConcat:
		for len(re.Sub) > 0 {
			first := re.Sub[0]
			optional := first.Op == syntax.OpStar || first.Op == syntax.OpQuest || first.Op == syntax.OpRepeat && first.Min == 0
			switch {
			case optional && !captures(first):
				re.Sub = re.Sub[1:]
				continue
			case first.Op == syntax.OpConcat && !captures(first):
				re.Sub = append(slices.Clone(first.Sub), re.Sub[1:]...)
				continue
			}
			break
		}
	}
	return re
}

// A key is what every match holds: one of words, which begins at most before bytes behind the match's beginning.
type key struct {
	words  []string
	before int
	inside bool
	lead   set // all that is before it is of these bytes
}

func (k key) better(than key) bool {
	if len(than.words) == 0 || k.before != than.before {
		return len(than.words) == 0 || k.before < than.before
	}
	if s, t := min(enough, shortest(k.words)), min(enough, shortest(than.words)); s != t {
		return s > t
	}
	return len(k.words) < len(than.words)
}

// enough is how long a word has to be to be rare; from there on fewer words are worth more than longer ones.
const enough = 8

func shortest(words []string) int {
	n := math.MaxInt
	for _, w := range words {
		n = min(n, len(w))
	}
	return n
}

// fixed finds the key of a pattern that is nearest to its beginning.
func fixed(re *syntax.Regexp) (key, bool) {
	var best key
	consider := func(k key) {
		if shortest(k.words) < minKeyword || len(k.words) == 0 {
			return
		}
		if k.better(best) {
			best = k
		}
	}
	if words, ok := expand(re); ok {
		consider(key{words: words, inside: captures(re)})
	}
	switch re.Op {
	case syntax.OpCapture:
		if k, ok := fixed(re.Sub[0]); ok {
			k.inside = k.inside || re.Name != openGroup
			consider(k)
		}
	case syntax.OpPlus:
		if k, ok := fixed(re.Sub[0]); ok {
			consider(k)
		}
	case syntax.OpRepeat:
		if re.Min > 0 {
			if k, ok := fixed(re.Sub[0]); ok {
				consider(k)
			}
		}
	case syntax.OpAlternate:
		var all key
		for _, sub := range re.Sub {
			k, ok := fixed(sub)
			if !ok {
				return best, len(best.words) > 0
			}
			all.words = append(all.words, k.words...)
			all.before = max(all.before, k.before)
			all.inside = all.inside || k.inside
			all.lead = all.lead.with(k.lead)
		}
		consider(all)
	case syntax.OpConcat:
		// Neighbours of which everything is known make longer words together.
		run, at := []string{""}, key{}
		var before key // what is before the neighbour
		for _, sub := range re.Sub {
			if k, ok := fixed(sub); ok {
				k.before = add(before.before, k.before)
				k.inside = k.inside || before.inside
				k.lead = before.lead.with(k.lead)
				consider(k)
			}
			before.inside = before.inside || captures(sub)
			words, ok := expand(sub)
			after := key{before: add(before.before, longest(sub)), inside: before.inside, lead: before.lead.with(bytesOf(sub))}
			next := at
			switch {
			case !ok:
				if shortest(run) < gram {
					run = cross(run, beginnings(sub))
				}
				words, next = []string{""}, after
			case cross(run, words) == nil:
				run, at, next = words, before, before
				words = run
			default:
				run = cross(run, words)
				words = run
			}
			consider(key{words: run, before: at.before, inside: before.inside, lead: at.lead})
			run, at, before = words, next, after
		}
	}
	slices.Sort(best.words)
	best.words = slices.Compact(best.words)
	return best, len(best.words) > 0
}

const maxWords = 64

// cross is every word of a followed by every one of b, or nil when they are too many.
func cross(a, b []string) []string {
	if len(a)*len(b) > maxWords {
		return nil
	}
	var out []string
	for _, x := range a {
		for _, y := range b {
			w := x + y
			out = append(out, w[:min(len(w), maxKeyword)])
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// expand is everything re matches, in lower case, when that is little.
func expand(re *syntax.Regexp) ([]string, bool) {
	switch re.Op {
	case syntax.OpEmptyMatch, syntax.OpWordBoundary, syntax.OpNoWordBoundary, syntax.OpBeginLine, syntax.OpBeginText,
		syntax.OpEndLine, syntax.OpEndText:
		return []string{""}, true
	case syntax.OpLiteral:
		b := make([]byte, len(re.Rune))
		for i, r := range re.Rune {
			b[i] = lower[byte(r)] //nolint:gosec // ascii left bytes
		}
		return []string{string(b[:min(len(b), maxKeyword)])}, true
	case syntax.OpCharClass:
		var words []string
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				if w := string([]byte{lower[byte(r)]}); !slices.Contains(words, w) { //nolint:gosec // ascii left bytes
					words = append(words, w)
				}
				if len(words) > 16 {
					return nil, false
				}
			}
		}
		return words, len(words) > 0
	case syntax.OpCapture:
		return expand(re.Sub[0])
	case syntax.OpQuest:
		words, ok := expand(re.Sub[0])
		return append(slices.Clone(words), ""), ok && len(words) < maxWords
	case syntax.OpRepeat:
		if re.Min != re.Max || re.Max > 4 {
			return nil, false
		}
		words, ok := expand(re.Sub[0])
		if !ok {
			return nil, false
		}
		out := []string{""}
		for range re.Min {
			if out = cross(out, words); out == nil {
				return nil, false
			}
		}
		return out, true
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			words, ok := expand(sub)
			if !ok {
				return nil, false
			}
			if out = cross(out, words); out == nil {
				return nil, false
			}
		}
		return out, true
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			words, ok := expand(sub)
			if !ok || len(out)+len(words) > maxWords {
				return nil, false
			}
			out = append(out, words...)
		}
		return out, true
	}
	return nil, false
}

// beginnings are words one of which is at the beginning of every match of re, perhaps empty.
func beginnings(re *syntax.Regexp) []string {
	if words, ok := expand(re); ok {
		return words
	}
	switch re.Op {
	case syntax.OpCapture, syntax.OpPlus:
		return beginnings(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return beginnings(re.Sub[0])
		}
	case syntax.OpAlternate:
		var out []string
		for _, sub := range re.Sub {
			out = append(out, beginnings(sub)...)
		}
		if len(out) <= maxWords {
			return out
		}
	case syntax.OpConcat:
		out := []string{""}
		for _, sub := range re.Sub {
			more := cross(out, beginnings(sub))
			if more == nil || len(more) > len(out) && shortest(out) >= gram {
				return out
			}
			out = more
			if _, ok := expand(sub); !ok {
				break
			}
		}
		return out
	}
	return []string{""}
}

// longest is how many bytes re matches at most.
func longest(re *syntax.Regexp) int {
	switch re.Op {
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpStar, syntax.OpPlus:
		return math.MaxInt
	case syntax.OpRepeat:
		if re.Max < 0 {
			return math.MaxInt
		}
		n := 0
		for range re.Max {
			n = add(n, longest(re.Sub[0]))
		}
		return n
	case syntax.OpCapture, syntax.OpQuest:
		return longest(re.Sub[0])
	case syntax.OpConcat:
		n := 0
		for _, sub := range re.Sub {
			n = add(n, longest(sub))
		}
		return n
	case syntax.OpAlternate:
		n := 0
		for _, sub := range re.Sub {
			n = max(n, longest(sub))
		}
		return n
	}
	return 0
}

// bytesOf are the bytes that a match of re may have.
func bytesOf(re *syntax.Regexp) (s set) {
	switch re.Op {
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			s.add(byte(r)) //nolint:gosec // ascii left bytes
			if re.Flags&syntax.FoldCase != 0 {
				s.add(byte(unicode.ToUpper(r))) //nolint:gosec // only ASCII is folded
				s.add(byte(unicode.ToLower(r))) //nolint:gosec // only ASCII is folded
			}
		}
	case syntax.OpCharClass:
		for i := 0; i < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				s.add(byte(r)) //nolint:gosec // ascii left bytes
			}
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return set{math.MaxUint64, math.MaxUint64, math.MaxUint64, math.MaxUint64}
	}
	for _, sub := range re.Sub {
		s = s.with(bytesOf(sub))
	}
	return s
}

func add(a, b int) int {
	if a > math.MaxInt-b {
		return math.MaxInt
	}
	return a + b
}
