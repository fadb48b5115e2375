package mask

import "bytes"

// folds says whether a key, unescaped, is one that a decoder may take for the lower-case key it is compared with. Go's
// encoding/json folds case as Unicode does, so that the Kelvin sign is a k.
func folds(key []byte, lower string) bool {
	if len(key) != len(lower) {
		return len(key) > len(lower) && bytes.EqualFold(key, []byte(lower)) // letters beyond ASCII are longer
	}
	for i, c := range key {
		switch {
		case c >= 0x80:
			return bytes.EqualFold(key, []byte(lower))
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
