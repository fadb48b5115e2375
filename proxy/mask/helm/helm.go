// Package helm masks what a Helm release holds, in the form Helm stores it in a Secret or a ConfigMap: base64 of gzip of
// JSON. The answer is a release again, so that helm list, status, history and get work through the gate.
//
// It promises, against an agent that reads what Helm stored and against whoever wrote the release: of the values a chart
// was installed with, and of the chart's own, every string and number is masked; of the manifests, what Sallyport masks
// of the objects themselves is masked (a Secret's data and stringData, environment variables and ConfigMap keys that are
// named like secrets, paths the policy adds); whatever else is text went through the detectors; what the notes repeat of
// a masked Secret is masked there too. What is not known is masked: fields that no release of Helm has, documents that do
// not parse or say more than JSON can (anchors, tags, merge keys), since two readers could take them for two things.
// Names, kinds, labels, keys, revisions, status and times stay.
//
// Nothing of a payload is trusted: it is read within bounds, and what is beyond them, or is compressed and no release, is
// an error. The caller must then mask the whole value; then Helm cannot read that release, and nobody else can either.
//
// It does not promise to find a secret in a chart's templates and files, or in the notes, that no detector knows and that
// no Secret of the manifest holds. A masked release can be read and not be written back: rolling back to it, or reusing
// its values, is refused by package back.
package helm

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// The layers of base64 around a release, as the API answers it in JSON.
const (
	SecretLayers    = 2 // a Secret's data.release: the API's own base64 around Helm's
	ConfigMapLayers = 1 // a ConfigMap's data.release: Helm's alone
)

// What is read, and written. The API server takes a MiB of a Secret or a ConfigMap; a release that inflates to more than
// sixteen times that is none that Helm could have made of a chart, or none worth the memory.
const (
	maxStored   = 1 << 20
	maxInflated = 16 << 20
	maxMasked   = 24 << 20 // masks are longer than most values
	maxLevel    = 200
)

// Constant is the mask where no other is given.
const Constant = "[masked]"

// Options say how values are masked.
type Options struct {
	// Plain is the mask of a value; nil stands for Constant.
	Plain func(value []byte) string
	// Encoded is the mask of what is base64 in a Secret's data, given as it is written, and must be base64 itself; nil
	// stands for the base64 of what Plain makes of the value in it.
	Encoded func(value []byte) string
	// Text masks the secrets in free text and leaves the rest of it as it is; nil finds none.
	Text func(text string) string
	// Secret says whether an environment variable or a ConfigMap's key of that name holds a secret; nil knows none.
	Secret func(name string) bool
	// Paths are further paths that hold secrets in objects of that kind, such as spec, users, [], password: * is any key,
	// [] the elements of a list. nil knows none.
	Paths func(apiVersion, kind string) [][]string
}

// ErrBounds is what Mask returns of a payload that is larger than is read.
var ErrBounds = errors.New("the release is larger than is looked into")

// Mask masks the release in payload, which has that many layers of base64 around it (SecretLayers, ConfigMapLayers).
//
// There are three answers. A release: out is the masked one, in the same layers. Not Helm's: isRelease is false, err is
// nil, and payload is to be treated like any other value of its kind. An error: it may be a release and cannot be looked
// into, and the whole of payload must be masked.
func Mask(payload []byte, layers int, opt Options) (out []byte, isRelease bool, err error) {
	defer func() {
		// The YAML library has panicked on hostile documents before. Nothing was shown yet.
		if r := recover(); r != nil {
			out, isRelease, err = nil, true, fmt.Errorf("masking a Helm release: %v", r)
		}
	}()
	b, err := open(payload, layers)
	if err != nil || b == nil {
		return nil, err != nil, err
	}
	size, err := length(b)
	if err != nil {
		return nil, true, err
	}
	leave, err := enter(size)
	if err != nil {
		return nil, true, err
	}
	defer leave()
	text, isRelease, err := unpack(b, size)
	if err != nil || !isRelease {
		return nil, isRelease, err
	}
	m := &masker{Options: opt.complete()}
	if err := m.rewrite(text); err != nil {
		return nil, true, err
	}
	b, err = shut(m.assemble(), layers)
	return b, true, err
}

func (o Options) complete() Options {
	if o.Plain == nil {
		o.Plain = func([]byte) string { return Constant }
	}
	if o.Encoded == nil {
		plain := o.Plain
		o.Encoded = func(value []byte) string {
			if b, err := base64.StdEncoding.DecodeString(string(value)); err == nil {
				value = b
			}
			return base64.StdEncoding.EncodeToString([]byte(plain(value)))
		}
	}
	if o.Text == nil {
		o.Text = func(text string) string { return text }
	}
	if o.Secret == nil {
		o.Secret = func(string) bool { return false }
	}
	if o.Paths == nil {
		o.Paths = func(string, string) [][]string { return nil }
	}
	return o
}

var magic = []byte{0x1f, 0x8b, 0x08} // as Helm looks for it

// open takes the base64 off a payload; nil when there is none.
func open(payload []byte, layers int) (b []byte, err error) {
	limit := maxStored
	for range layers - 1 {
		limit = base64.StdEncoding.EncodedLen(limit)
	}
	if b = payload; len(b) > limit {
		// Not a question of whose it is: nobody looks. What is not Helm's is masked here too, by the caller.
		return nil, ErrBounds
	}
	for range layers {
		if b, err = decode(b); err != nil {
			return nil, nil
		}
	}
	return b, nil
}

// unpack is the JSON of a release, of at most size bytes. Not compressed is how Helm once wrote, and still reads.
func unpack(b []byte, size int) (text []byte, isRelease bool, err error) {
	if !bytes.HasPrefix(b, magic) {
		return b, release(b), nil
	}
	if b, err = inflate(b, size); err != nil {
		return nil, true, err
	}
	if !release(b) {
		// Helm 2 kept its releases so, in another form; and nobody can say what else this is.
		return nil, true, errors.New("what is compressed is not a release of Helm 3 or later")
	}
	return b, true, nil
}

// decode reads base64 as Helm and the API server do.
func decode(b []byte) ([]byte, error) {
	out := make([]byte, base64.StdEncoding.DecodedLen(len(b)))
	n, err := base64.StdEncoding.Decode(out, b)
	return out[:n], err
}

// length is how long what is stored is when it is unpacked. Of what is compressed it is what the gzip says of itself (RFC 1952
// §2.3.1, ISIZE). Anybody may have written that, so no more than that is unpacked.
func length(b []byte) (int, error) {
	if !bytes.HasPrefix(b, magic) {
		return len(b), nil
	}
	if len(b) < smallest {
		return 0, errors.New("inflating the release: it is cut off")
	}
	return int(min(binary.LittleEndian.Uint32(b[len(b)-4:]), maxInflated)), nil
}

// smallest is the length of a gzip's header and trailer.
const smallest = 18

func inflate(b []byte, size int) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("inflating the release: %w", err)
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(size)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("inflating the release: %w", err)
	case len(out) > size:
		return nil, ErrBounds
	}
	return out, nil
}

// release says whether b is one JSON value, and a release: what all of them have, as Helm's decoder would find it.
func release(b []byte) bool {
	var r struct {
		Name  string
		Info  *struct{ Status string }
		Chart json.RawMessage
	}
	return json.Unmarshal(b, &r) == nil && r.Name != "" && (r.Info != nil || r.Chart != nil)
}

// writers are kept, since each takes more than a megabyte, and a list may have a hundred releases.
var writers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

// shut is the way back. The best compression is Helm's choice and costs several times as much; what is read once needs none
// of that.
func shut(text []byte, layers int) ([]byte, error) {
	var b bytes.Buffer
	w := writers.Get().(*gzip.Writer)
	defer writers.Put(w)
	w.Reset(&b)
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	out := b.Bytes()
	for range layers {
		out = base64.StdEncoding.AppendEncode(nil, out)
	}
	return out, nil
}
