package detect

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"
	"testing"
)

// sample writes text that re matches. Boundaries are not looked at.
func sample(r *rand.Rand, re *syntax.Regexp, out *bytes.Buffer) {
	times := func(lo, hi int) {
		n := lo
		if hi > lo {
			n += r.IntN(hi - lo + 1)
		}
		for range n {
			sample(r, re.Sub[0], out)
		}
	}
	switch re.Op {
	case syntax.OpLiteral:
		for _, c := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 && r.IntN(2) == 0 {
				out.WriteString(strings.ToUpper(string(c)))
			} else {
				out.WriteRune(c)
			}
		}
	case syntax.OpCharClass:
		for {
			i := r.IntN(len(re.Rune)/2) * 2
			lo, hi := re.Rune[i], min(re.Rune[i+1], 0x7f)
			if lo > hi {
				continue
			}
			out.WriteRune(lo + r.Int32N(hi-lo+1))
			return
		}
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		out.WriteByte(byte(' ' + r.IntN(95)))
	case syntax.OpCapture:
		sample(r, re.Sub[0], out)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			sample(r, sub, out)
		}
	case syntax.OpAlternate:
		sample(r, re.Sub[r.IntN(len(re.Sub))], out)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpStar:
		times(0, 12)
	case syntax.OpPlus:
		times(1, 12)
	case syntax.OpRepeat:
		hi := re.Max
		if hi < 0 || hi > re.Min+30 {
			hi = re.Min + 30
		}
		times(re.Min, hi)
	}
}

type pattern struct {
	name, text string
	group      int
	whole      bool
	entropy    float64
	except     *regexp.Regexp
}

// patterns are the ones Default has, as they were written.
func patterns(t testing.TB) []pattern {
	t.Helper()
	rules, err := parse(gitleaks)
	if err != nil {
		t.Fatal(err)
	}
	var all []pattern
	for _, k := range rules {
		if _, left := LeftOut()[k.ID]; !left {
			all = append(all, pattern{k.ID, k.Regex, k.Group, wholeMatch[k.ID], k.Entropy, nil})
		}
	}
	for _, o := range own {
		p := pattern{name: o.Name, text: o.Pattern, entropy: o.Entropy}
		if o.reference {
			p.except = references
		}
		all = append(all, p)
	}
	return all
}

// secrets are the places that package regexp finds, read as compile reads groups.
func (p pattern) secrets(re *regexp.Regexp, b []byte) []Span {
	var spans []Span
	for _, m := range re.FindAllSubmatchIndex(b, -1) {
		begin, end := m[0], m[1]
		if !p.whole && !wholeByShape[p.name] && len(m) > 2 {
			g := p.group
			for i := 1; g == 0 && i < len(m)/2; i++ {
				if m[2*i] >= 0 && re.SubexpNames()[i] != openGroup {
					g = i
				}
			}
			begin, end = m[2*g], m[2*g+1]
		}
		s := b[begin:end]
		if len(s) == 0 || p.entropy > 0 && entropy(s) <= p.entropy || p.except != nil && p.except.Match(s) {
			continue
		}
		spans = append(spans, Span{begin, end, p.name})
	}
	return spans
}

// wholeByShape are patterns whose only groups repeat.
var wholeByShape = map[string]bool{"microsoft-teams-webhook": true}

func covered(spans []Span, s Span) bool {
	return slices.ContainsFunc(spans, func(n Span) bool { return n.Start <= s.Start && s.End <= n.End })
}

// Every rule finds what package regexp finds with the pattern as it was written, where there is one match exactly that,
// and the whole set covers it however the text is cut.
func TestRulesAreWhatTheyWere(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	set := Default()
	for _, p := range patterns(t) {
		re := regexp.MustCompile(p.text)
		tree, err := syntax.Parse(p.text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		one := slices.IndexFunc(set.rules, func(r *rule) bool { return r.name == p.name })
		alone, err := newSet([]*rule{set.rules[one]})
		if err != nil {
			t.Fatal(err)
		}
		tried := 0
		for range 50 {
			var b bytes.Buffer
			b.WriteString([]string{"", " ", "x = ", "{\"a\":\"", "ключ "}[r.IntN(5)])
			sample(r, tree, &b)
			b.WriteString([]string{"", "\n", " tail", "\"}", "\\n"}[r.IntN(5)])
			text := b.Bytes()
			want := p.secrets(re, text)
			if len(want) == 0 {
				continue
			}
			tried++
			got := alone.Find(text)
			for _, s := range want {
				if !covered(got, s) {
					t.Errorf("%s: %q: found %v, want %v", p.name, text, got, want)
				}
				if !covered(set.Find(text), s) {
					t.Errorf("%s: %q: not found by all", p.name, text)
				}
			}
			if len(want) == 1 && len(got) == 1 && got[0] != want[0] && strings.Count(strings.ToLower(string(text)), set.rules[one].keywords[0]) == 1 {
				t.Errorf("%s: %q: found %v, want %v", p.name, text, got, want)
			}
			if len(text) > 2000 {
				continue
			}
			whole := string(set.Mask(text))
			for range 3 {
				if got := inPieces(t, set, text, func() int { return 1 + r.IntN(20) }); got != whole {
					t.Errorf("%s: in pieces %q, want %q", p.name, got, whole)
				}
			}
		}
		if tried < 3 {
			t.Errorf("%s: only %d samples match", p.name, tried)
		}
		if t.Failed() {
			return
		}
	}
}

// On text that is made of parts of secrets a rule finds at least what package regexp finds.
func TestAtLeastRegexp(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	set := Default()
	all := patterns(t)
	for _, p := range all {
		re := regexp.MustCompile(p.text)
		tree, err := syntax.Parse(p.text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		one := slices.IndexFunc(set.rules, func(r *rule) bool { return r.name == p.name })
		alone, err := newSet([]*rule{set.rules[one]})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			var text []byte
			for range 1 + r.IntN(6) {
				var b bytes.Buffer
				sample(r, tree, &b)
				s := b.Bytes()
				if r.IntN(2) == 0 {
					s = s[r.IntN(len(s)):]
				}
				if r.IntN(2) == 0 {
					s = s[:r.IntN(len(s)+1)]
				}
				text = append(append(text, s...), []string{"", "", " ", "\n", "\"", "é", ":"}[r.IntN(7)]...)
			}
			got := alone.Find(text)
			for _, s := range p.secrets(re, text) {
				if !covered(got, s) {
					t.Fatalf("%s: %q: found %v, want %v", p.name, text, got, s)
				}
			}
		}
	}
}

// Text made of parts of all kinds of secrets is masked the same however it is cut.
func TestPieces(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	set := Default()
	var trees []*syntax.Regexp
	for _, p := range patterns(t) {
		tree, err := syntax.Parse(p.text, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		trees = append(trees, tree)
	}
	masked := 0
	for range 1500 {
		var text []byte
		for range 1 + r.IntN(8) {
			var b bytes.Buffer
			sample(r, trees[r.IntN(len(trees))], &b)
			s := b.Bytes()
			switch r.IntN(4) {
			case 0:
				s = s[r.IntN(len(s)):]
			case 1:
				s = s[:r.IntN(len(s)+1)]
			}
			text = append(append(text, s...), []string{"", "", " ", "\n", "\"", "é", ":", "@tcp(", "_mmk"}[r.IntN(9)]...)
		}
		want := string(set.Mask(text))
		masked += strings.Count(want, Mark)
		for _, most := range []int{1, 5, 100} {
			if got := inPieces(t, set, text, func() int { return 1 + r.IntN(most) }); got != want {
				t.Fatalf("%q\nin pieces %q\nwhole     %q", text, got, want)
			}
		}
	}
	if masked < 1000 {
		t.Errorf("only %d secrets", masked)
	}
}

func inPieces(t *testing.T, set *Set, text []byte, size func() int) string {
	t.Helper()
	var out bytes.Buffer
	s := set.Stream(func(b []byte) error { out.Write(b); return nil })
	for len(text) > 0 {
		n := min(len(text), size())
		if m, err := s.Write(text[:n]); m != n || err != nil {
			t.Fatalf("Write: %d, %v", m, err)
		}
		if s.Pending() > 8<<10 {
			t.Fatalf("%d bytes held back", s.Pending())
		}
		text = text[n:]
	}
	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	if s.Pending() != 0 {
		t.Fatalf("%d bytes held back after Flush", s.Pending())
	}
	return out.String()
}

func TestKeywordsAgainstSearch(t *testing.T) {
	k := Default().keywords
	r := rand.New(rand.NewPCG(5, 6))
	for range 3000 {
		var b []byte
		for range 1 + r.IntN(6) {
			w := k.words[r.IntN(len(k.words))].text
			w = w[:1+r.IntN(len(w))]
			if r.IntN(3) == 0 {
				w = strings.ToUpper(w)
			}
			b = append(append(b, w...), fmt.Sprintf("%*s", r.IntN(7), "")...)
		}
		from := r.IntN(len(b))
		var want []hit
		low := strings.ToLower(string(b))
		for at := from; at < len(b); at++ {
			for n, w := range k.words {
				if strings.HasPrefix(low[at:], w.text) {
					want = append(want, hit{n, at})
				}
			}
		}
		if got := k.find(b, from, nil); !slices.Equal(got, want) {
			t.Fatalf("%q from %d: %v, want %v", b, from, got, want)
		}
		if got := k.any(b[from:]); got != (len(want) > 0) {
			t.Fatalf("%q from %d: any is %v", b, from, got)
		}
		begins, inside := len(b), len(b)
		for at := len(b) - 1; at >= from; at-- {
			for _, w := range k.words {
				if len(w.text) > len(b)-at && strings.HasPrefix(w.text, low[at:]) {
					begins = at
					if w.inside {
						inside = at
					}
				}
			}
		}
		if a, b2 := k.tail(b, from); a != begins || b2 != inside {
			t.Fatalf("%q from %d: %d, %d, want %d, %d", b, from, a, b2, begins, inside)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := parse([]byte("title = \"x\" # y\n[allowlist]\npaths = [\n  '''a]''', # c\n \"b\",\n]\n[[rules]]\nid = \"a\"\nregex = '''x\\d'''\nentropy = 3.5\nsecretGroup = 2\nkeywords = [\"k\"]\n[[rules.allowlists]]\nid = \"z\"\n[[rules]]\nid = \"b\"\npath = '''p'''"))
	want := []kept{{ID: "a", Regex: `x\d`, Group: 2, Entropy: 3.5}, {ID: "b", Path: true}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"a", "a = ", "a = x", "a = \"x", "a = '''x", "a = [\"x\"", "a = [\"x\" \"y\"]", "a = [1]", "[other]", "a = true",
		"[[rules]]\nid = 1", "[[rules]]\nregex = [\"a\"]", "[[rules]]\nentropy = \"1\"", "[[rules]]\nnew = 1", "a = 'x'",
	} {
		if got, err := parse([]byte(bad)); err == nil {
			t.Errorf("%q: %+v", bad, got)
		}
	}
	for _, file := range []string{
		"[[rules]]\nid = \"a\"\nregex = \"abcd\"", // none of those left out is there
		string(gitleaks) + "\n[[rules]]\nid = \"a\"\nregex = \"abcd\"\npath = \"x\"\n",
		string(gitleaks) + "\n[[rules]]\nid = \"a\"\nregex = \"[0-9]{30}\"\n",
		string(gitleaks) + "\n[[rules]]\nid = \"github-pat\"\nregex = \"abcd\"\n",
	} {
		if _, err := load([]byte(file)); err == nil {
			t.Errorf("loaded %.60q", file)
		}
	}
}
