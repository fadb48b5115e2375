package approval

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"

	"sallyport/shared/access"
)

// A Request is what a digest is of.
type Request struct {
	Cluster     string
	Principal   access.Principal
	Verb        string // the policy's, as in access.Action: a WebSocket's GET and a fallback POST are the same exec
	Target      string // path and query, as they are forwarded
	ContentType string
	Body        []byte
}

// Digest names a request: lower-case hexadecimal SHA-256 over cluster, Principal.Key, verb, path, query, content type and
// the SHA-256 of the body. Parameters of the query are sorted by name, the values of one keep their order, and both are
// decoded first; nothing else may differ between two requests of one digest. Each part is preceded by its length, so no
// part's end can be taken for another's beginning.
func Digest(r Request) (string, error) {
	path, raw, _ := strings.Cut(r.Target, "?")
	query, err := url.ParseQuery(raw)
	switch {
	case err != nil:
		return "", access.Errorf(access.Invalid, "the query cannot be read: %v", err)
	case r.Cluster == "", r.Verb == "", !strings.HasPrefix(path, "/"):
		return "", access.Errorf(access.Invalid, "a request without cluster, verb or path cannot be approved")
	}
	h := sha256.New()
	number := func(n int) {
		var b [8]byte
		binary.BigEndian.PutUint64(b[:], uint64(n)) //nolint:gosec // lengths are not negative
		h.Write(b[:])
	}
	part := func(s string) {
		number(len(s))
		h.Write([]byte(s))
	}
	part("sallyport approval 1")
	part(r.Cluster)
	part(r.Principal.Key())
	part(r.Verb)
	part(path)
	number(len(query))
	for _, name := range slices.Sorted(maps.Keys(query)) {
		part(name)
		number(len(query[name]))
		for _, v := range query[name] {
			part(v)
		}
	}
	part(r.ContentType)
	body := sha256.Sum256(r.Body)
	part(string(body[:]))
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Target is what tells an object from another of the same name, and from the same one after somebody changed it: its UID
// and generation, or, of kinds that have no generation, a hash of all a reviewer sees. Status, managedFields and
// resourceVersion are in neither: they change by themselves.
func Target(object map[string]any) access.Target {
	if len(object) == 0 {
		return access.Target{}
	}
	meta, _ := object["metadata"].(map[string]any)
	t := access.Target{}
	t.UID, _ = meta["uid"].(string)
	if t.Generation = integer(meta["generation"]); t.Generation != 0 {
		return t
	}
	shown := maps.Clone(object)
	delete(shown, "status")
	if meta != nil {
		meta = maps.Clone(meta)
		delete(meta, "managedFields")
		delete(meta, "resourceVersion")
		shown["metadata"] = meta
	}
	b, err := json.Marshal(shown) // maps are written in the order of their keys
	if err != nil {
		// Not JSON, so not from a cluster. Equal to nothing that is.
		b = []byte("unreadable")
	}
	sum := sha256.Sum256(b)
	t.Hash = hex.EncodeToString(sum[:])
	return t
}

func integer(v any) int64 {
	switch n := v.(type) {
	case int64:
		return n
	case float64:
		return int64(n)
	case json.Number:
		i, _ := n.Int64()
		return i
	}
	return 0
}
