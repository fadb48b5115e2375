package mask

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"hash"
)

// Constant is the mask that says nothing of what it stands for: in free text, where an agent could print guesses and compare
// masks, and wherever the session's key or the namespace is not known.
const Constant = "[masked]"

// encodedConstant is Constant in base64.
const encodedConstant = "W21hc2tlZF0="

var letters = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// Plain is the mask of a value in a Secret: [masked:XXXXXXXXXXXX], always 21 bytes. The letters are 60 bits of a keyed hash of
// the namespace and the value, so equal values have equal masks within one session and namespace, and nowhere else, and
// nobody without the key can try guesses. An empty value is masked like any other. A nil key gives the Constant.
//
// Values elsewhere, at a place that is known to hold secrets, have masks of their own: who may write ConfigMaps could try
// guesses of what a Secret holds otherwise, thousands a request, and nobody would be asked.
func Plain(key []byte, namespace string, value []byte) string {
	if key == nil {
		return Constant
	}
	return string(newWords(key).plain(nil, []byte(namespace), value))
}

// Encoded is Plain as base64, always 28 bytes, for where the API has base64. The mask is that of what the value decodes to, so
// that a value has the same mask in data and in stringData; of one that is longer than a few lines, or is no base64, it is
// that of the value as it is written.
func Encoded(key []byte, namespace string, value []byte) string {
	if key == nil {
		return encodedConstant
	}
	w := newWords(key)
	return base64.StdEncoding.EncodeToString(w.plain(nil, []byte(namespace), w.decoded(value)))
}

// Sizes of what is hashed.
const (
	direct        = 256      // the longest value that is hashed as it is
	encodedDirect = 512      // the longest that may be base64 of one, with line breaks
	block         = 16 << 10 // of a longer one, what is compressed at a time
)

// words makes the masks of one session.
//
// The hash is HMAC-SHA-256 over the namespace, a zero and the value; of values in no Secret a byte comes before. Most bytes
// of a list of Secrets are hashed, and SHA-256 would be what takes the time; so a value longer than a few lines is compressed
// first, block by block, to its GMAC tags under a second key, and the HMAC is taken of those. This is a universal hash
// followed by a pseudo-random function (Wegman and Carter 1981): two values collide with a chance below 2^-115 for who does
// not know the key, and the tags, which with their fixed nonce would give the second key away, never leave this type.
type words struct {
	key  []byte
	mac  hash.Hash
	gcm  cipher.AEAD // nil before the first long value
	sum  [sha256.Size]byte
	text []byte // what goes into the mac next
	part []byte // of a value that comes in pieces: what is not compressed yet
	size int    // of the value so far

	plainly   []byte // what was decoded last
	elsewhere bool   // the values are in no Secrets
}

func newWords(key []byte) *words { return &words{key: key, mac: hmac.New(sha256.New, key)} }

// No namespace begins with these bytes, so no value in a Secret is hashed to what they begin.
const (
	elsewhere  = "\xfe"
	longValues = "\xffmask: long values"
)

// second makes the key for long values.
func (w *words) second() cipher.AEAD {
	m := hmac.New(sha256.New, w.key)
	m.Write([]byte(longValues))
	b, err := aes.NewCipher(m.Sum(nil)[:16])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	gcm, err := cipher.NewGCM(b)
	if err != nil {
		panic(err) // AES has the block size that GCM wants
	}
	return gcm
}

// decoded is what a short value is base64 of, as the API server reads it, and else the value. It is valid until the next.
func (w *words) decoded(value []byte) []byte {
	if len(value) > encodedDirect {
		return value
	}
	b, err := base64.StdEncoding.AppendDecode(w.plainly[:0], value)
	if err != nil || len(b) > direct {
		return value
	}
	w.plainly = b
	return b
}

// plain appends the mask of a value.
func (w *words) plain(dst, namespace, value []byte) []byte {
	w.begin(namespace)
	if w.size = len(value); w.size <= direct {
		return w.word(dst, value)
	}
	for len(value) > 0 {
		n := min(block, len(value))
		w.compress(value[:n])
		value = value[n:]
	}
	return w.word(dst, nil)
}

// begin begins a value, which may come in pieces to add, until end.
func (w *words) begin(namespace []byte) {
	w.mac.Reset()
	w.text = w.text[:0]
	if w.elsewhere {
		w.text = append(w.text, elsewhere...)
	}
	w.text = append(append(w.text, namespace...), 0)
	w.part, w.size = w.part[:0], 0
}

func (w *words) add(p []byte) {
	w.size += len(p)
	for len(p) > 0 {
		if len(w.part) == block { // and more comes: so a short value is never compressed
			w.compress(w.part)
			w.part = w.part[:0]
		}
		n := min(block-len(w.part), len(p))
		w.part = append(w.part, p[:n]...)
		p = p[n:]
	}
}

// end appends the mask of the value that was added, or of what it is base64 of.
func (w *words) end(dst []byte, encoded bool) []byte {
	if encoded && w.size <= encodedDirect {
		if v := w.decoded(w.part); len(v) <= direct {
			return w.word(dst, v)
		}
	}
	if w.size <= direct {
		return w.word(dst, w.part)
	}
	w.compress(w.part)
	return w.word(dst, nil)
}

var nonce [12]byte

func (w *words) compress(p []byte) {
	if w.gcm == nil {
		w.gcm = w.second()
	}
	w.text = w.gcm.Seal(w.text, nonce[:], nil, p) //nolint:gosec // G407: nothing is encrypted; see words
	if len(w.text) >= direct {
		w.mac.Write(w.text)
		w.text = w.text[:0]
	}
}

// word appends the mask for what was hashed, and the value itself where it is short. Each tag counts the bytes it is of, so
// no two values of different lengths are the same tags; and who does not know the tags cannot make a short value of them.
func (w *words) word(dst, short []byte) []byte {
	w.text = append(w.text, short...)
	w.mac.Write(w.text)
	sum := w.mac.Sum(w.sum[:0])
	dst = append(dst, "[masked:"...)
	dst = letters.AppendEncode(dst, sum[:8]) // 13 letters
	dst[len(dst)-1] = ']'
	return dst
}
