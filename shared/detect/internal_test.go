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
				// Others hold back what this one must hold back itself.
				if got, want := inPieces(t, alone, text, func() int { return 1 + r.IntN(20) }), string(alone.Mask(text)); got != want {
					t.Errorf("%s: alone, in pieces %q, want %q", p.name, got, want)
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

// Patterns that make an engine's life hard, over text of few letters so that much matches and overlaps: a stream gives what
// the whole gives, which covers what package regexp finds.
func TestTrickyPatterns(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 10))
	for _, p := range []pattern{
		{text: `\w{4}key\w{8}`}, {text: `(\w{2,4})key`}, {text: `(?:a|b){0,6}?key`, whole: true}, {text: `[ab]{0,5}key(b+)`}, {text: `key(a+?)(?:b|$)`},
		{text: `key(a*)b|key(b*)a`}, {text: `(?:key.*?ab|key)([ab]{3})`}, {text: `key(?:a(b)a)+`}, {text: `\bkey\b(.+)`}, {text: `key(\S+) `},
		{text: `(?m)^key(.*)$`}, {text: `(?i)KEY(a{3})`}, {text: `([ab]{3}key[ab]{3})`}, {text: `.key(.)`}, {text: `key(key)?(a|b)`}, {text: `a?b?key(.*?)key`},
		{text: `(key)[ab]{4}`}, {text: `([ab]{1,3})(?:key|kkk)`}, {text: `key|aaaa|bbbb`}, {text: `key((?:a|ab)(?:c|bcd)?)`}, {text: `key(a{2,}|b{2,})(?:\s|$)`},
		{text: `key([ab]{1,60}) `, entropy: .9}, {text: `key([^k]+)`}, {text: `^key(a)`}, {text: `key(a)$`}, {text: `key(b)\z`}, {text: `\Bkey([ab])`}, {text: `[ab]{2}key[ab]|kkea?`},
	} {
		re := regexp.MustCompile(p.text)
		x, err := compile(Detector{Name: "x", Pattern: p.text, Entropy: p.entropy}, 0, p.whole, nil)
		if err != nil {
			t.Fatal(err)
		}
		set, err := newSet([]*rule{x})
		if err != nil {
			t.Fatal(err)
		}
		masked := 0
		for range 400 {
			var text []byte
			for range r.IntN(25) {
				text = append(text, []string{"a", "b", "ab", "key", "key", "KEY", "k", "ke", " ", "\n", "c", "é"}[r.IntN(12)]...)
			}
			want := string(set.Mask(text))
			masked += strings.Count(want, Mark)
			spans := set.Find(text)
			for _, s := range p.secrets(re, text) {
				if strings.Contains(p.text, "(?:a(b)a)+") || !ascii7(text) && strings.Contains(p.text, ".") {
					continue // a part, and a count of bytes
				}
				if !covered(spans, s) {
					t.Errorf("%s: %q: found %v, want %v", p.text, text, spans, s)
				}
			}
			for _, most := range []int{1, 3, 20} {
				if got := inPieces(t, set, text, func() int { return 1 + r.IntN(most) }); got != want {
					t.Errorf("%s: %q: in pieces %q, whole %q", p.text, text, got, want)
				}
			}
		}
		if masked == 0 {
			t.Errorf("%s: no secrets", p.text)
		}
	}
}

func ascii7(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= 0x80 })
}

// Few secrets begin before what gives them away: for each of these a stream looks back at every write.
func TestLate(t *testing.T) {
	var late []string
	set := Default()
	for _, i := range set.late {
		late = append(late, set.rules[i].name)
	}
	if want := []string{"azure-ad-client-secret", "hashicorp-tf-api-token", "maxmind-license-key", "dsn-password"}; !slices.Equal(late, want) {
		t.Errorf("%v, want %v", late, want)
	}
}

// A stream keeps little, whatever comes.
func TestMemory(t *testing.T) {
	s := Default().Stream(func([]byte) error { return nil })
	for name, text := range map[string]string{
		"a secret without an end":     "eyJ" + strings.Repeat("abcDEF0123", 100_000),
		"many that may begin":         strings.Repeat("eyJ ghp_ -----BEGIN password= curl ", 30_000),
		"one that waits for its key":  "curl " + strings.Repeat("a b", 300_000),
		"many keys in one long match": "k8s-aws-v1." + strings.Repeat("glpat-eyJ", 100_000),
	} {
		for rest := []byte(text); len(rest) > 0; {
			n := min(1000, len(rest))
			if _, err := s.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
			runs := 0
			for _, r := range s.scan.runs {
				runs += len(r.threads) + len(r.matches) + len(r.starts)
			}
			if s.Pending() > 8<<10 || len(s.buf) > 16<<10 || len(s.scan.spans) > 1000 || runs > 10_000 {
				t.Fatalf("%s: %d bytes, %d spans and %d threads are kept", name, len(s.buf), len(s.scan.spans), runs)
			}
		}
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
