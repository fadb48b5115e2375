package identity

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"sallyport/shared/access"
)

const (
	maxGroups = 200 // as many as Entra ID puts into a JWT
	maxText   = 512 // OpenID Connect Core §2 gives sub 255 ASCII characters; CI issuers go past that
	maxDepth  = 32  // of nested JSON
)

// claims are a token's claims as they were spelled. A map, not a struct: Go's decoder folds the case of struct fields.
type claims map[string]json.RawMessage

func parseClaims(payload []byte) (claims, error) {
	c, err := object(payload)
	if err != nil {
		return nil, access.Errorf(access.Unauthenticated, "the bearer token is no JWT this gate reads: its payload %w. Ask its issuer", err)
	}
	return c, nil
}

// object reads one JSON object strictly: valid UTF-8, nothing after it, no member twice at any depth.
func object(data []byte) (map[string]json.RawMessage, error) {
	if !utf8.Valid(data) || !json.Valid(data) {
		return nil, errors.New("is not JSON")
	}
	if data = bytes.TrimSpace(data); data[0] != '{' {
		return nil, errors.New("is not a JSON object")
	}
	if err := unique(data); err != nil {
		return nil, err
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, errors.New("is not JSON")
	}
	return o, nil
}

// unique refuses JSON in which an object names a member twice: readers differ on which one counts (RFC 8259 §4).
func unique(data []byte) error {
	type level struct {
		names map[string]bool // nil in an array
		value bool            // a member's value comes next
	}
	var levels []*level
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	for {
		token, err := dec.Token()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return errors.New("is not JSON")
		}
		if token == json.Delim('}') || token == json.Delim(']') {
			levels = levels[:len(levels)-1]
			continue
		}
		if n := len(levels); n > 0 && levels[n-1].names != nil {
			in := levels[n-1]
			if !in.value {
				name := token.(string)
				if in.names[name] {
					return fmt.Errorf("has the member %s twice", short(name))
				}
				in.names[name] = true
			}
			in.value = !in.value
		}
		switch token {
		case json.Delim('{'):
			levels = append(levels, &level{names: map[string]bool{}})
		case json.Delim('['):
			levels = append(levels, &level{})
		}
		if len(levels) > maxDepth {
			return errors.New("is nested too deeply")
		}
	}
}

// text is a JSON string's value.
func text(raw json.RawMessage) (string, bool) {
	var s string
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &s) != nil {
		return "", false
	}
	return s, true
}

// text is the value of a claim that must be a string and not empty.
func (c claims) text(claim string) (string, error) {
	raw, ok := c[claim]
	if !ok {
		return "", fmt.Errorf("the claim %q is missing", claim)
	}
	s, ok := text(raw)
	if !ok {
		return "", fmt.Errorf("the claim %q is not a string", claim)
	}
	if s == "" {
		return "", fmt.Errorf("the claim %q is empty", claim)
	}
	return s, nil
}

// name is the value of a claim that names somebody.
func (c claims) name(claim string) (string, error) {
	s, err := c.text(claim)
	if err != nil {
		return "", access.Errorf(access.Denied, "the token does not name who asks: %w. Have its issuer add it", err)
	}
	if err := checkName(s); err != nil {
		return "", access.Errorf(access.Denied, "the token's claim %q %w", claim, err)
	}
	return s, nil
}

// scalar is a claim's value if that is a string, a number or a boolean; the latter two in their JSON spelling.
func (c claims) scalar(claim string) (string, bool) {
	raw := c[claim]
	if len(raw) == 0 {
		return "", false
	}
	switch raw[0] {
	case '"':
		return text(raw)
	case '{', '[', 'n':
		return "", false
	}
	return string(raw), true
}

// audience checks that the token is for this gate and for nobody else: one that is good elsewhere as well could be
// replayed by whoever receives it there.
func (c claims) audience(want string) error {
	raw, ok := c["aud"]
	if !ok {
		return access.Errorf(access.Unauthenticated, "the token is for no audience; ask its issuer for one for %q", want)
	}
	got, ok := text(raw)
	if !ok {
		var list []json.RawMessage
		if raw[0] != '[' || json.Unmarshal(raw, &list) != nil || len(list) == 0 {
			return access.Errorf(access.Unauthenticated, "the token's audience is not readable; ask its issuer for one for %q", want)
		}
		if len(list) > 1 {
			return access.Errorf(access.Unauthenticated, "the token is for %d audiences; ask its issuer for one for %q alone", len(list), want)
		}
		if got, ok = text(list[0]); !ok {
			return access.Errorf(access.Unauthenticated, "the token's audience is not a string; ask its issuer for one for %q", want)
		}
	}
	if got != want {
		return access.Errorf(access.Unauthenticated, "the token is for audience %s; this gate's is %q", short(got), want)
	}
	return nil
}

// times checks when the token is valid (RFC 7519 §4.1.4 to §4.1.6).
func (c claims) times(now time.Time) (Identity, error) {
	unreadable := func(claim string) (Identity, error) {
		return Identity{}, access.Errorf(access.Unauthenticated, "the token's %s is not a number of seconds since 1970; ask its issuer", claim)
	}
	if _, ok := c["exp"]; !ok {
		return Identity{}, access.Errorf(access.Unauthenticated, "the token does not say when it expires; this gate accepts none without exp")
	}
	expires, ok := date(c["exp"])
	if !ok {
		return unreadable("exp")
	}
	if !now.Before(expires) {
		return Identity{}, access.Errorf(access.Unauthenticated, "the token expired %s ago; get a new one from its issuer", ago(now.Sub(expires)))
	}
	id := Identity{Expires: expires}
	for _, claim := range []string{"nbf", "iat"} {
		raw, said := c[claim]
		if !said {
			continue
		}
		from, ok := date(raw)
		if !ok {
			return unreadable(claim)
		}
		if from.After(now.Add(Skew)) {
			return Identity{}, access.Errorf(access.Unauthenticated, "the token is valid only in %s (%s); check the clock of its issuer", ago(from.Sub(now)), claim)
		}
		if claim == "nbf" {
			id.NotBefore = from
		}
	}
	return id, nil
}

// date reads a NumericDate (RFC 7519 §2). Past the year 9999 nothing is a date any more.
func date(raw json.RawMessage) (time.Time, bool) {
	if len(raw) == 0 || raw[0] < '0' || raw[0] > '9' {
		return time.Time{}, false
	}
	f, err := strconv.ParseFloat(string(raw), 64)
	if err != nil || f >= 253402300800 {
		return time.Time{}, false
	}
	seconds, fraction := math.Modf(f)
	return time.Unix(int64(seconds), int64(fraction*1e9)).UTC(), true
}

func ago(d time.Duration) string {
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d seconds", int(d/time.Second))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d minutes", int(d/time.Minute))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d hours", int(d/time.Hour))
	}
	return fmt.Sprintf("%d days", int(d/(24*time.Hour)))
}

// checkText refuses what must not reach a header, a role session name, a log line or a reviewer's eyes: line breaks
// and other control characters, anything that is not ASCII and could look like something else, too much of it.
func checkText(s string) error {
	if len(s) > maxText {
		return fmt.Errorf("is longer than %d characters", maxText)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return errors.New("holds a character that is not printable ASCII; this gate accepts no other in names")
		}
	}
	if strings.TrimSpace(s) != s {
		return errors.New("begins or ends with a space")
	}
	return nil
}

// reserved are the prefixes that Kubernetes and EKS keep for themselves.
var reserved = []string{"system:", "eks:"}

func checkName(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if err := checkText(s); err != nil {
		return err
	}
	for _, prefix := range reserved {
		if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
			return fmt.Errorf("begins with %q, which is kept for the cluster itself", prefix)
		}
	}
	return nil
}

// condition is an access.Condition, compiled.
type condition struct {
	claim  string
	equals []string
	match  *regexp.Regexp // nil when there is none
}

func compile(c access.Condition) (condition, error) {
	if c.Claim == "" {
		return condition{}, errors.New("a condition names no claim")
	}
	if len(c.Equals) == 0 && c.Matches == "" {
		return condition{}, fmt.Errorf("the condition on claim %q accepts nothing: give equals or matches", c.Claim)
	}
	compiled := condition{claim: c.Claim, equals: slices.Clone(c.Equals)}
	if c.Matches != "" {
		var err error
		if compiled.match, err = anchored(c.Matches); err != nil {
			return condition{}, fmt.Errorf("the condition on claim %q: %w", c.Claim, err)
		}
	}
	return compiled, nil
}

// anchored compiles a pattern that must match a value as a whole. In ^a|b$ the anchors bind tighter than the bar, so
// they are taken off and put around the whole; in ^a\$ the last is none, and what is left does not compile.
func anchored(pattern string) (*regexp.Regexp, error) {
	if _, err := regexp.Compile(pattern); err != nil {
		return nil, fmt.Errorf("the pattern %q does not compile: %w", pattern, err)
	}
	inner, begins := strings.CutPrefix(pattern, "^")
	inner, ends := strings.CutSuffix(inner, "$")
	if !begins || !ends {
		return nil, fmt.Errorf("the pattern %q must begin with ^ and end with $, or it would match a part of a value", pattern)
	}
	re, err := regexp.Compile(`\A(?:` + inner + `)\z`)
	if err != nil {
		return nil, fmt.Errorf("the pattern %q cannot be anchored as a whole: %w", pattern, err)
	}
	return re, nil
}

func (c condition) met(in claims) bool {
	value, ok := in.scalar(c.claim)
	return ok && (slices.Contains(c.equals, value) || c.match != nil && c.match.MatchString(value))
}
