package detect

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// kept is a rule of gitleaks.toml, as far as it is used. Allowlists are not: masking what is known to be an example does no
// harm, and what they say about paths and commits has no meaning here.
type kept struct {
	ID      string
	Regex   string
	Group   int
	Entropy float64
	Path    bool
}

// parse reads the part of TOML that gitleaks.toml is written in: tables, and keys with strings, numbers or lists of strings.
// Anything else is an error, so that a newer file cannot be half read.
func parse(file []byte) ([]kept, error) {
	p := &toml{rest: file, line: 1}
	var rules []kept
	table := ""
	for {
		p.blank()
		if len(p.rest) == 0 {
			return rules, nil
		}
		if p.rest[0] == '[' {
			line, _, _ := bytes.Cut(p.rest, []byte("\n"))
			p.rest = p.rest[len(line):]
			table = strings.TrimSpace(string(line))
			switch table {
			case "[[rules]]":
				rules = append(rules, kept{})
			case "[allowlist]", "[[rules.allowlists]]":
			default:
				return nil, p.error("unknown table %s", table)
			}
			continue
		}
		name, value, err := p.pair()
		if err != nil {
			return nil, err
		}
		if table != "[[rules]]" {
			continue
		}
		r := &rules[len(rules)-1]
		ok := true
		switch name {
		case "id":
			r.ID, ok = value.(string)
		case "regex":
			r.Regex, ok = value.(string)
		case "path":
			r.Path = true
		case "entropy":
			r.Entropy, ok = value.(float64)
		case "secretGroup":
			var n float64
			n, ok = value.(float64)
			r.Group = int(n)
		case "description", "keywords": // keywords are taken from the pattern
		default:
			return nil, p.error("unknown key %s", name)
		}
		if !ok {
			return nil, p.error("%s has the wrong type", name)
		}
	}
}

type toml struct {
	rest []byte
	line int
}

func (p *toml) error(format string, args ...any) error {
	return fmt.Errorf("line %d: %s", p.line, fmt.Sprintf(format, args...))
}

// blank skips white space and comments.
func (p *toml) blank() {
	for len(p.rest) > 0 {
		switch p.rest[0] {
		case '\n':
			p.line++
		case ' ', '\t', '\r':
		case '#':
			if i := bytes.IndexByte(p.rest, '\n'); i >= 0 {
				p.rest = p.rest[i:]
			} else {
				p.rest = nil
			}
			continue
		default:
			return
		}
		p.rest = p.rest[1:]
	}
}

func (p *toml) pair() (string, any, error) {
	name, rest, ok := bytes.Cut(p.rest, []byte("="))
	if !ok || bytes.ContainsAny(name, "\n\"'[") {
		return "", nil, p.error("not a key and a value")
	}
	p.rest = rest
	p.blank()
	value, err := p.value()
	return strings.TrimSpace(string(name)), value, err
}

func (p *toml) value() (any, error) {
	switch {
	case bytes.HasPrefix(p.rest, []byte("'''")), bytes.HasPrefix(p.rest, []byte(`"`)):
		return p.text()
	case bytes.HasPrefix(p.rest, []byte("[")):
		p.rest = p.rest[1:]
		var list []string
		for {
			p.blank()
			if bytes.HasPrefix(p.rest, []byte("]")) {
				p.rest = p.rest[1:]
				return list, nil
			}
			s, err := p.text()
			if err != nil {
				return nil, err
			}
			list = append(list, s)
			p.blank()
			if bytes.HasPrefix(p.rest, []byte(",")) {
				p.rest = p.rest[1:]
			} else if !bytes.HasPrefix(p.rest, []byte("]")) {
				return nil, p.error("a list without an end")
			}
		}
	}
	n := bytes.IndexAny(p.rest, " \t\r\n#")
	if n < 0 {
		n = len(p.rest)
	}
	f, err := strconv.ParseFloat(string(p.rest[:n]), 64)
	if err != nil {
		return nil, p.error("not a string, list or number")
	}
	p.rest = p.rest[n:]
	return f, nil
}

func (p *toml) text() (string, error) {
	if rest, ok := bytes.CutPrefix(p.rest, []byte("'''")); ok {
		s, rest, ok := bytes.Cut(rest, []byte("'''"))
		if !ok {
			return "", p.error("a string without an end")
		}
		p.rest = rest
		p.line += bytes.Count(s, []byte("\n"))
		return strings.TrimPrefix(string(s), "\n"), nil
	}
	quoted, err := strconv.QuotedPrefix(string(p.rest[:min(len(p.rest), 4<<10)]))
	if err != nil || quoted[0] != '"' {
		return "", p.error("not a string")
	}
	s, err := strconv.Unquote(quoted)
	if err != nil {
		return "", p.error("not a string")
	}
	p.rest = p.rest[len(quoted):]
	return s, nil
}
