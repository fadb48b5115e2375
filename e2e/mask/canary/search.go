package canary

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"io"
	"maps"
	"slices"
)

// A Search looks for secrets in a text that comes in parts.
type Search struct {
	set   *Set
	last  []byte // what came before: too little to hold anything
	found map[int]bool
	pack  []byte // base64 of gzip, which goes on
	level int
}

// Search begins to look for secrets in one text.
func (s *Set) Search() *Search { return &Search{set: s, found: map[int]bool{}} }

// What is unpacked.
const (
	maxPacked   = 4 << 20
	maxUnpacked = 64 << 20
	maxLevel    = 3
)

// packs are how gzip begins in base64, and in base64 in base64.
var packs = [][]byte{[]byte("H4sI"), []byte("SDRzS")}

// Write takes the next part of the text. It never fails.
func (r *Search) Write(p []byte) (int, error) {
	b := append(r.last, p...)
	for i := 0; i+Shortest <= len(b); i++ {
		if at := r.set.at(b[i:]); at >= 0 {
			r.found[at] = true
		}
	}
	r.unpack(b, len(r.last))
	r.last = slices.Clone(b[max(0, len(b)-Shortest+1):])
	return len(p), nil
}

// unpack looks into what is packed in b, of which the first bytes were seen before.
func (r *Search) unpack(b []byte, seen int) {
	if r.level == maxLevel {
		return
	}
	at := seen
	for {
		if r.pack != nil {
			n := 0
			for at+n < len(b) && inBase64(b[at+n]) {
				n++
			}
			r.pack = append(r.pack, b[at:at+n]...)
			if at += n; at == len(b) && len(r.pack) < maxPacked {
				return // it goes on
			}
			r.open()
		}
		first := -1
		for _, p := range packs {
			from := max(0, at-len(p)+1)
			if i := bytes.Index(b[from:], p); i >= 0 && (first < 0 || from+i < first) {
				first = from + i
			}
		}
		if first < 0 {
			return
		}
		r.pack = append([]byte{}, b[first:max(at, first)]...)
		at = max(at, first)
	}
}

func inBase64(c byte) bool {
	return 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '+' || c == '/'
}

// open searches what was packed.
func (r *Search) open() {
	b := r.pack
	r.pack = nil
	for range 2 {
		b = b[:len(b)/4*4+[]int{0, 0, 2, 3}[len(b)%4]]
		out := make([]byte, base64.RawStdEncoding.DecodedLen(len(b)))
		n, _ := base64.RawStdEncoding.Decode(out, b)
		b = bytes.TrimRight(out[:n], "=")
		if !bytes.HasPrefix(b, []byte{0x1f, 0x8b}) {
			continue
		}
		z, err := gzip.NewReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		inside := &Search{set: r.set, found: r.found, level: r.level + 1}
		_, _ = io.Copy(inside, io.LimitReader(z, maxUnpacked)) // what comes before an error counts
		return
	}
}

// Found are the secrets found so far. It is asked when the text is at its end.
func (r *Search) Found() []Secret {
	if r.pack != nil {
		r.open()
	}
	var all []Secret
	for _, i := range slices.Sorted(maps.Keys(r.found)) {
		all = append(all, r.set.secrets[i])
	}
	return all
}
