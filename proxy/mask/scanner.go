package mask

import (
	"fmt"
	"math"
	"regexp"

	"sallyport/shared/detect"
)

// Bounds of what is read.
const (
	maxDepth   = 1000     // of objects and lists; encoding/json stops at 10,000, and the cluster stores less
	maxKey     = 16 << 10 // a set's managed fields have values for keys
	maxLiteral = 1 << 10
	maxWhole   = 32 << 10 // a string that is longer is looked through in windows
	maxObject  = 1 << 20  // an object in a string; an annotation has at most 256 KiB
	maxHelm    = 2 << 20  // a Helm release: a MiB, and base64 around it
	maxNested  = 2        // objects in strings in objects in strings
	outLimit   = 32 << 10 // output waits for its reader when it is more
	noLimit    = math.MaxInt
)

// state is what comes next.
type state uint8

const (
	document  state = iota // a body, or the next event of a watch
	val                    // a value
	firstElem              // a value, or the end of the list
	firstKey               // a key, or the end of the object
	nextKey                // a key
	colon
	after   // a comma, or the end of what it is in
	inside  // the rest of a long string
	skipped // the rest of an object or list without rules
)

// mode is what becomes of a long string, while it comes.
type mode uint8

const (
	copied   mode = iota // it goes out as it is
	hashed               // it is masked
	held                 // it is kept until it is whole
	windowed             // the detectors see it window by window
)

// What is known of an environment variable whose object is open.
const (
	harmless uint8 = 1 << iota // its name came, and is none of a secret
	secret                     // a name came that is
	told                       // its value went out
)

type frame struct {
	node *node
	list bool
	env  uint8
}

// A scanner masks one body. It is a machine that can stop at any byte: what it cannot judge yet it leaves in the input, and
// where a string is too long for that it remembers what it was doing.
type scanner struct {
	rules  *Rules
	detect *detect.Set
	usual  action // look, or keep without detectors
	key    []byte
	words  *words // nil without a key, or before the first mask
	out    []byte
	limit  int // of out
	read   int64
	watch  bool // documents may follow one another
	events int
	broken bool // a line ended since the last document

	state state
	node  *node // of the value that comes
	stack []frame

	mode   mode
	act    action  // of the string that comes, in modes hashed and held
	looked int     // how much of the token that was left in the input is known to be good
	flags  flags   // of that
	sub    state   // what comes next in what is skipped
	within nesting // of what is skipped
	muted  bool    // what is skipped is masked whole

	ns    []byte // the namespace of the object that is read
	known bool   // whether it is known
	fixed bool   // whether it is the request's

	hashing bool   // a value comes whose mask is keyed
	masking []byte // the mask that was made last
	text    []byte // unescaped
	hold    []byte // the string that is kept until it is whole
	window  []byte
	stream  *detect.Stream  // of the string that is looked through in windows
	names   map[string]bool // whose names were looked at
	namesOf *regexp.Regexp
	nested  *scanner // for an object in a string
	level   int      // how many strings this one's object is in
}

func newScanner(r *Rules, key []byte) *scanner {
	s := &scanner{}
	s.reset(r, key)
	return s
}

// reset prepares a scanner, perhaps used before, for a body.
func (s *scanner) reset(r *Rules, key []byte) {
	*s = scanner{
		rules: r, detect: r.config.Detect, key: key, limit: outLimit, watch: r.watch(), node: r.tree.root,
		masking: s.masking[:0], out: s.out[:0], stack: s.stack[:0], ns: s.ns[:0], text: s.text[:0], hold: s.hold[:0], window: s.window[:0],
		names: s.names, namesOf: s.namesOf, nested: s.nested,
	}
	if s.usual = look; s.detect == nil {
		s.usual = keep
	}
	if s.namesOf != r.config.Names {
		s.names, s.namesOf = nil, r.config.Names
	}
	if r.request.Namespace != "" || r.global {
		s.ns, s.known, s.fixed = append(s.ns, r.request.Namespace...), true, true
	}
}

// scan reads as much of p as it can judge, and says how much that was; the rest must be given again, with more behind it. It
// also stops when out is full. At eof, all of a whole body is read.
func (s *scanner) scan(p []byte, eof bool) (int, error) {
	var (
		i    int // where we are
		from int // from where on p goes out as it is
		j    int
		f    flags
		n    = s.node
		act  action
		ok   bool
		sure bool
		err  error
		end  byte
	)
	switch s.state {
	case document:
		goto document
	case val, firstElem:
		goto value
	case firstKey, nextKey:
		goto key
	case colon:
		goto colon
	case after:
		goto after
	case inside:
		goto inside
	case skipped:
		goto skip
	}

document:
	for i < len(p) && space(p[i]) {
		s.broken = s.broken || p[i] == '\n'
		i++
	}
	if i == len(p) {
		s.state = document
		if eof && s.events == 0 && !s.watch {
			return 0, s.fault(i, "it is empty")
		}
		goto pause
	}
	if s.events > 0 && (!s.watch || !s.broken) {
		return 0, s.fault(i, "something follows it")
	}
	s.events++
	n = s.rules.tree.root
	if s.level > 0 {
		n = s.rules.tree.inner
	}
	s.state = val

value:
	for i < len(p) && p[i] <= ' ' && space(p[i]) {
		i++
	}
	if i == len(p) {
		goto pause
	}
	switch c := p[i]; c {
	case '"':
		goto str
	case '{', '[':
		if len(s.stack) == maxDepth {
			return 0, s.fault(i, "it is nested too deeply")
		}
		if n.act != look {
			if act = s.action(n, c); act.masks() {
				s.put(p[from:i])
				from = i
				s.begin(act)
				s.muted, n = true, sealed
			}
		}
		i++
		if n == sealed {
			s.within.push(c == '[')
			if s.sub = firstKey; c == '[' {
				s.sub = firstElem
			}
			goto skip
		}
		s.stack = append(s.stack, frame{node: n, list: c == '['})
		if c == '[' {
			s.state = firstElem
			if n.first != nil {
				n = n.first
			} else {
				n = n.elem
			}
			goto value
		}
		if n.object {
			s.forget()
		}
		s.state = firstKey
		goto key
	case ']':
		if s.state != firstElem {
			return 0, s.fault(i, "a value is missing")
		}
		end = c
		goto close
	}
	j, ok, sure = scanLiteral(p, i, eof)
	switch {
	case !ok:
		return 0, s.fault(i, "there is no such value")
	case j-i > maxLiteral:
		return 0, s.fault(i, "a number is too long")
	case !sure:
		goto pause
	}
	if act = s.action(n, p[i]); act.masks() && p[i] != 'n' {
		s.put(p[from:i])
		s.masked(act, p[i:j])
		from = j
	}
	i = j
	goto after

skip:
	s.state = skipped
	i, ok, err = s.skip(p, i)
	if err != nil {
		return 0, err
	}
	if !ok {
		goto pause
	}
	if s.muted {
		s.add(p[from:i])
		s.end()
		s.muted, from = false, i
	}
	goto after

str:
	j, f = scanString(p, i+1+s.looked)
	f |= s.flags
	if f&bad != 0 {
		return 0, s.fault(j, "a string is not what JSON and UTF-8 allow")
	}
	if act = s.usual; n.act != look {
		act = s.action(n, '"')
	}
	if act == look && f == ended && j-i <= maxWhole { // most of what is no key
		s.looked = 0
		if j > i+2 {
			if spans := s.detect.Find(p[i+1 : j-1]); len(spans) > 0 {
				s.put(p[from:i])
				s.found(p[i+1:j-1], spans)
				from = j
			}
		}
		i = j
		goto after
	}
	if f&ended != 0 && (act.copies() || j-i <= maxWhole) {
		s.looked, s.flags = 0, 0
		if !act.copies() {
			from = s.str(act, p, from, i, j, f)
		}
		i = j
		goto after
	}
	if f&ended == 0 && len(p)-i <= maxWhole && !act.copies() && !act.masks() {
		s.looked, s.flags = j-i-1, f // it will be seen whole
		s.state = val
		goto pause
	}
	// From here on it is too long, or needs not be seen whole.
	s.looked, s.flags = 0, 0
	if act.copies() {
		s.mode = copied
	} else {
		s.put(p[from:i])
		from = i + 1
		s.long(act)
	}
	i++
	goto inside

inside:
	j, f = scanString(p, i)
	if f&bad != 0 {
		return 0, s.fault(j, "a string is not what JSON and UTF-8 allow")
	}
	s.state = inside
	if s.mode != copied {
		s.part(p[i:j-int(f&ended)], f) // ended is 1, the length of a quote
		from = j
	}
	i = j
	if f&ended == 0 {
		goto pause
	}
	if s.mode != copied {
		s.whole()
		from = i
	}
	goto after

key:
	for i < len(p) && p[i] <= ' ' && space(p[i]) {
		i++
	}
	if i == len(p) {
		goto pause
	}
	if p[i] != '"' {
		if p[i] == '}' && s.state == firstKey {
			end = '}'
			goto close
		}
		return 0, s.fault(i, "a key is missing")
	}
	if i+9 <= len(p) { // nearly always it is short and plain
		if k := i + 1 + first(load(p[i+1:])); k < i+9 && p[k] == '"' {
			j, f = k+1, ended
			goto keyed
		}
	}
	j, f = scanString(p, i+1+s.looked)
	f |= s.flags
	switch {
	case f&bad != 0:
		return 0, s.fault(j, "a key is not what JSON and UTF-8 allow")
	case j-i > maxKey:
		return 0, s.fault(i, "a key is too long")
	case f&ended == 0:
		s.looked, s.flags = j-i-1, f
		goto pause
	}

keyed:
	s.looked, s.flags = 0, 0
	n = s.child(s.stack[len(s.stack)-1].node, p[i+1:j-1], f)
	if (n.act == name || n.act == alias) && s.stack[len(s.stack)-1].env&told != 0 {
		return 0, s.fault(i, "an environment variable is named twice") // its value went out under the first name
	}
	i = j

colon:
	s.state = colon
	for ; i < len(p) && p[i] != ':'; i++ {
		if !space(p[i]) {
			return 0, s.fault(i, "a colon is missing")
		}
	}
	if i == len(p) {
		goto pause
	}
	i++
	s.state = val
	goto value

after:
	s.state = after
	if len(s.stack) == 0 {
		s.broken = false
		goto document
	}
	for i < len(p) && p[i] <= ' ' && space(p[i]) {
		i++
	}
	if i == len(p) || len(s.out) >= s.limit {
		goto pause
	}
	switch top := &s.stack[len(s.stack)-1]; {
	case p[i] == ',' && top.list:
		i++
		n = top.node.elem
		s.state = val
		goto value
	case p[i] == ',':
		i++
		s.state = nextKey
		goto key
	}
	end = p[i]

close:
	if list := s.stack[len(s.stack)-1].list; end != '}' && end != ']' || list != (end == ']') {
		return 0, s.fault(i, "a comma or an end is missing")
	}
	i++
	if s.stack[len(s.stack)-1].node.object {
		s.forget()
	}
	s.stack = s.stack[:len(s.stack)-1]
	goto after

pause:
	s.node = n
	if s.muted {
		s.add(p[from:i])
	} else {
		s.put(p[from:i])
	}
	s.read += int64(i)
	if eof && (i < len(p) && len(s.out) < s.limit || i == len(p) && s.state != document) {
		return i, s.fault(0, "it ends in the middle")
	}
	return i, nil
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func (s *scanner) put(p []byte) { s.out = append(s.out, p...) }

func (s *scanner) fault(at int, why string) error {
	return fmt.Errorf("%w: byte %d: %s", ErrSyntax, s.read+int64(at), why)
}
