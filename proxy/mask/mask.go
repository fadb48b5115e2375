// Package mask masks secrets in what the cluster answers, while it streams.
//
// It promises, against an agent that reads through the gate, and whoever gets hold of the agent: what a rule names is not
// in what it sees. The rules are chosen by what was asked for, never by what the answer says of itself. Masked are the
// values of Secrets, wherever the API repeats them (lists, watch events, tables with their objects, the last applied
// configuration in an annotation, a Helm release, the words of an error); tokens and certificates that are handed out;
// environment variables and a ConfigMap's keys that are named like secrets, at any depth of any kind; what policy names;
// and in every other string what looks like a well-known secret. Keys, counts, nulls and the order of things stay, so that
// clients work, and every string that is not masked comes out as the value it had.
//
// There is one reading of the bytes. The whole JSON grammar is checked, UTF-8 and surrogate pairs included; keys are
// compared unescaped, and a key that some decoder would fold to a masked one (Data, data written \u0064ata) is masked like
// it; every one of several equal keys is. What is not strict JSON ends in an error in the middle of the stream, and the
// caller must then break the connection, never end the answer as if it were whole.
//
// The mask is described at Plain. Memory is some 250 KiB for a body of any size, and what has to be seen whole: one embedded
// object of at most 1 MiB, or one Helm release.
//
// A mistake here shows a secret to an agent; the tier's RBAC, which decides what can be read at all, is the wall behind it.
//
// It does not promise to find a secret where no rule looks and no detector knows its shape: in a key, in base64 inside a
// ConfigMap's binaryData, in a string that somebody split or encoded. A value that a write copies to a field that is not
// masked is shown there; that is why writes to Secrets ask. It masks JSON only: other encodings must not be negotiated.
package mask

import (
	"errors"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"sallyport/shared/detect"
)

// ErrSyntax is wrapped by the errors for what is not strict JSON, or more than is read. The caller must break off the
// answer. No error repeats anything of the body.
var ErrSyntax = errors.New("the answer is not strict JSON")

// Config says what is masked beyond what always is. It comes from the policy, for one tier.
type Config struct {
	Names  *regexp.Regexp // names of environment variables and of a ConfigMap's keys that hold secrets; nil: none
	Paths  []Path         // more places that hold secrets
	Exempt []Path         // places that are shown as they are, with all that is below them
	Detect *detect.Set    // finds secrets by their shape; nil: none
}

// A Path is a place in objects of some resources.
type Path struct {
	APIGroups []string // "" is the core group; * any
	Resources []string // such as secrets, or deployments/status; * any
	// Steps lead to the place: keys, * for every key, [] for every element of a list.
	Steps []string
}

// Request is what was asked for.
type Request struct {
	Group, Version, Resource, Subresource, Verb string

	Namespace string // empty for all namespaces and for what has none
	Name      string // of the object; it may be repeated in errors
	// Reveal is the key of a Secret whose value people let through this once. It counts for a Secret got by name, and in
	// no list, table, watch event or annotation.
	Reveal string
}

// A Masker makes the Rules for requests. It is safe for concurrent use.
type Masker struct {
	config Config
	mu     sync.Mutex
	trees  map[string]*tree // by what applies, of which there are few
}

// New returns a Masker for a policy and tier. Keep it: what it compiles is kept in it.
func New(c Config) (*Masker, error) {
	for _, p := range slices.Concat(c.Paths, c.Exempt) {
		if len(p.Steps) == 0 || slices.Contains(p.Steps, "") {
			return nil, errors.New("a path of the masking policy has no steps")
		}
	}
	return &Masker{config: c, trees: map[string]*tree{}}, nil
}

// Compile is New and Rules for one request alone.
func Compile(c Config, r Request) (*Rules, error) {
	m, err := New(c)
	if err != nil {
		return nil, err
	}
	return m.Rules(r), nil
}

// Rules are what is masked in the answer to one request. They do not change and are safe for concurrent use.
type Rules struct {
	config  *Config
	tree    *tree
	request Request
	global  bool // the resource has no namespaces, so its masks are of the namespace ""
}

// Rules returns the rules for a request.
func (m *Masker) Rules(r Request) *Rules {
	id := m.config.choose(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	t := m.trees[id]
	if t == nil {
		t = newTree(m.config.rules(r), m.config.Names)
		if r.Reveal == "" { // a key that people let through once is not worth keeping
			m.trees[id] = t
		}
	}
	return &Rules{config: &m.config, tree: t, request: r, global: certificates(r)}
}

// Reader masks a JSON body: an object, a list, a table, a Status, or, when the request is a watch, one event a line. A nil
// key gives the constant mask everywhere. What src gives is passed on as soon as it is known to be safe. A Reader ends with
// io.EOF only after a whole body.
func (r *Rules) Reader(src io.Reader, key []byte) io.Reader {
	return newReader(r, src, key)
}

// Bytes masks a whole body.
func (r *Rules) Bytes(b, key []byte) ([]byte, error) {
	s := newScanner(r, key)
	s.limit = noLimit
	n, err := s.scan(b, true)
	if err == nil && n < len(b) {
		err = s.fault(n, "it ends in the middle")
	}
	if err != nil {
		return nil, err
	}
	return s.out, nil
}

// Text masks text that is no JSON: a Warning header, an error of a proxy on the way. An object that the text quotes is masked
// whole; around Secrets, all that it quotes is.
func (r *Rules) Text(s string) string {
	s = quoted(s)
	if r.secrets() {
		s = r.sentence(s)
	}
	if r.config.Detect == nil {
		return s
	}
	return string(r.config.Detect.Mask([]byte(s)))
}

func (r *Rules) secrets() bool { return secrets(r.request) }

func (r *Rules) watch() bool { return strings.HasPrefix(r.request.Verb, "watch") }
