package mask

// skip reads on in an object or a list that has no rule inside: all that is asked of it is that it is JSON. Most of a list of
// pods is such, the managed fields, so this is the short way round the scanner. It returns where it stopped, and whether
// that is behind the end of what it reads.
func (s *scanner) skip(p []byte, i int) (int, bool, error) {
	var (
		j    int
		f    flags
		list = s.within.list()
	)
	switch s.sub {
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
	}

key:
	for ; i < len(p) && p[i] != '"'; i++ {
		if p[i] == '}' && s.sub == firstKey {
			goto end
		}
		if !space(p[i]) {
			return i, false, s.fault(i, "a key is missing")
		}
	}
	// The rule: a short key of plain letters, and behind it, without a space, an object.
	for i+window <= len(p) {
		w := (*[window]byte)(p[i:])
		k := 1 + first(load(w[1:]))
		if k == 9 {
			k += first(load(w[9:]))
		}
		if k &= window - 1; w[0] != '"' || w[k] != '"' || w[k+1] != ':' || w[k+2] != '{' {
			break
		}
		s.looked = 0
		switch w[k+3] {
		case '"':
			if len(s.stack)+s.within.depth >= maxDepth {
				return i, false, s.fault(i, "it is nested too deeply")
			}
			s.within.push(false)
			list = false
			i += k + 3
			continue
		case '}':
			if i += k + 4; w[k+4] == ',' && w[k+5] == '"' {
				i++
				s.sub = nextKey
				continue
			}
			goto after
		}
		break
	}
	if i == len(p) {
		return i, false, nil
	}
	j, f = scanString(p, i+1+s.looked)
	switch {
	case f&bad != 0:
		return j, false, s.fault(j, "a key is not what JSON and UTF-8 allow")
	case j-i > maxKey:
		return i, false, s.fault(i, "a key is too long")
	case f&ended == 0:
		s.looked = j - i - 1
		return i, false, nil
	}
	i, s.looked = j, 0

colon:
	for ; i < len(p) && p[i] != ':'; i++ {
		if !space(p[i]) {
			return i, false, s.fault(i, "a colon is missing")
		}
	}
	if i == len(p) {
		s.sub = colon
		return i, false, nil
	}
	i++
	s.sub = val

value:
	for i < len(p) && p[i] <= ' ' && space(p[i]) {
		i++
	}
	if i == len(p) {
		return i, false, nil
	}
	switch c := p[i]; c {
	case '{', '[':
		if i+1 < len(p) && p[i+1] == c+2 { // {} or []
			i += 2
			goto after
		}
		if len(s.stack)+s.within.depth >= maxDepth {
			return i, false, s.fault(i, "it is nested too deeply")
		}
		list = c == '['
		s.within.push(list)
		i++
		if list {
			s.sub = firstElem
			goto value
		}
		s.sub = firstKey
		goto key
	case ']':
		if s.sub != firstElem {
			return i, false, s.fault(i, "a value is missing")
		}
		goto end
	case '"':
		i++
		goto inside
	default:
		j, ok, sure := scanLiteral(p, i, false)
		switch {
		case !ok:
			return i, false, s.fault(i, "there is no such value")
		case j-i > maxLiteral:
			return i, false, s.fault(i, "a number is too long")
		case !sure:
			return i, false, nil
		}
		i = j
		goto after
	}

inside:
	i, f = scanString(p, i)
	switch {
	case f&bad != 0:
		return i, false, s.fault(i, "a string is not what JSON and UTF-8 allow")
	case f&ended == 0:
		s.sub = inside
		return i, false, nil
	}

after:
	for ; ; i++ {
		if i == len(p) {
			s.sub = after
			return i, false, nil
		}
		switch c := p[i]; {
		case c == ',' && list:
			i++
			s.sub = val
			goto value
		case c == ',':
			i++
			s.sub = nextKey
			goto key
		case c == '}' && !list, c == ']' && list:
			goto end
		case !space(c):
			return i, false, s.fault(i, "a comma or an end is missing")
		}
	}

end:
	i++
	if s.within.pop() {
		return i, true, nil
	}
	list = s.within.list()
	goto after
}

// nesting is a stack of objects and lists, a bit each.
type nesting struct {
	depth int
	lists [maxDepth/64 + 1]uint64
}

func (n *nesting) push(list bool) {
	n.depth++
	n.lists[n.depth>>6] &^= 1 << (n.depth & 63)
	if list {
		n.lists[n.depth>>6] |= 1 << (n.depth & 63)
	}
}

// pop says whether that was the last.
func (n *nesting) pop() bool {
	n.depth--
	return n.depth == 0
}

func (n *nesting) list() bool { return n.lists[n.depth>>6]>>(n.depth&63)&1 != 0 }

// window is a key of up to 16 bytes, and what is around it.
const window = 32
