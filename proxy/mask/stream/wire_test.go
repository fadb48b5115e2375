package stream_test

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"sallyport/proxy/mask/stream"
	"sallyport/shared/detect"
)

// canary is a secret that a detector of the tests knows by its shape.
const (
	canary = "CANARY-5f0c1d77e2a94b3c8d6e7f8091a2b3c4"
	mark   = detect.Mark
)

var (
	canaryOnly = sync.OnceValues(func() (*detect.Set, error) { return new(detect.Set).With(canaryRule) })
	everything = sync.OnceValues(func() (*detect.Set, error) { return detect.Default().With(canaryRule) })
	canaryRule = []detect.Detector{{Name: "canary", Pattern: `CANARY-[0-9a-f]{32}`}}
)

// canaries are the default detectors and one for the canary.
func canaries(t testing.TB) *detect.Set { return must(t, everything) }

// only is the canary's detector alone, where it matters what is held back.
func only(t testing.TB) *detect.Set { return must(t, canaryOnly) }

func must(t testing.TB, f func() (*detect.Set, error)) *detect.Set {
	t.Helper()
	set, err := f()
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// message is one WebSocket message or control frame, as written by hand and as read back.
type message struct {
	op      byte
	payload string
}

func (m message) String() string { return fmt.Sprintf("%x:%q", m.op, m.payload) }

// frame is one frame, as a server writes it.
func frame(fin bool, op byte, payload string) string {
	first := op
	if fin {
		first |= 0x80
	}
	switch n := len(payload); {
	case n < 126:
		return string([]byte{first, byte(n)}) + payload
	case n < 1<<16:
		return string(binary.BigEndian.AppendUint16([]byte{first, 126}, uint16(n))) + payload
	default:
		return string(binary.BigEndian.AppendUint64([]byte{first, 127}, uint64(n))) + payload
	}
}

func closeFrame(code uint16, reason string) string {
	return frame(true, 8, string(binary.BigEndian.AppendUint16(nil, code))+reason)
}

// codec is how one subprotocol writes a message.
type codec struct {
	protocol string
	op       byte
	base64   bool
}

var codecs = []codec{
	{"v5.channel.k8s.io", 2, false},
	{"v4.channel.k8s.io", 2, false},
	{"channel.k8s.io", 2, false},
	{"", 2, false},
	{"base64.channel.k8s.io", 1, true},
	{"v4.base64.channel.k8s.io", 1, true},
}

func (c codec) payload(channel byte, data string) string {
	if c.base64 {
		return string('0'+channel) + base64.StdEncoding.EncodeToString([]byte(data))
	}
	return string([]byte{channel}) + data
}

func (c codec) write(channel byte, data string) string {
	return frame(true, c.op, c.payload(channel, data))
}

// read parses what a client got, by the book and not by the code under test: everything is there, so slices will do.
func read(wire []byte) (messages []message, rest []byte, err error) {
	var open *message
	for len(wire) >= 2 {
		first, length, b := wire[0], uint64(wire[1]), wire[2:]
		switch {
		case first&0x70 != 0:
			return messages, wire, errors.New("reserved bits")
		case length >= 128:
			return messages, wire, errors.New("masked")
		case length == 126 && len(b) < 2, length == 127 && len(b) < 8:
			return messages, wire, nil
		case length == 126:
			length, b = uint64(binary.BigEndian.Uint16(b)), b[2:]
			if length < 126 {
				return messages, wire, errors.New("length not minimal")
			}
		case length == 127:
			length, b = binary.BigEndian.Uint64(b), b[8:]
			if length < 65536 || length > 1<<63-1 {
				return messages, wire, errors.New("length not minimal")
			}
		}
		op, fin := first&0x0f, first&0x80 != 0
		if op >= 8 && (!fin || length > 125) {
			return messages, wire, errors.New("control frame")
		}
		switch {
		case op == 0 && open == nil, (op == 1 || op == 2) && open != nil, op > 2 && op < 8, op > 10:
			return messages, wire, fmt.Errorf("opcode %d", op)
		}
		if uint64(len(b)) < length {
			return messages, wire, nil
		}
		payload := string(b[:length])
		wire = b[length:]
		switch {
		case op >= 8:
			messages = append(messages, message{op, payload})
			continue
		case op == 0:
			open.payload += payload
		default:
			open = &message{op, payload}
		}
		if fin {
			messages, open = append(messages, *open), nil
		}
	}
	if open != nil {
		return messages, wire, errors.New("a message is open")
	}
	return messages, wire, nil
}

// received is what a client understood.
type received struct {
	channel map[byte]string
	order   string // the channels in the order of their bytes, with the text
	control []message
	empty   []byte // channels of messages without data
}

func (c codec) understand(t testing.TB, wire []byte) received {
	t.Helper()
	messages, rest, err := read(wire)
	if err != nil || len(rest) > 0 {
		t.Fatalf("the caller was sent what is no WebSocket: %v, left over %q", err, rest)
	}
	r := received{channel: map[byte]string{}}
	last := byte(0)
	for _, m := range messages {
		if m.op >= 8 {
			r.control = append(r.control, m)
			continue
		}
		if m.op != c.op {
			t.Errorf("a message of kind %d, want %d", m.op, c.op)
		}
		if m.payload == "" {
			r.empty = append(r.empty, 254)
			continue
		}
		channel, data := m.payload[0], m.payload[1:]
		if c.base64 {
			channel -= '0'
			b, err := base64.StdEncoding.DecodeString(data)
			if err != nil {
				t.Fatalf("the caller was sent %q in base64: %v", data, err)
			}
			data = string(b)
		}
		if data == "" {
			r.empty = append(r.empty, channel)
			continue
		}
		r.channel[channel] += data
		if channel != last {
			r.order += fmt.Sprintf("|%d:", channel)
			last = channel
		}
		r.order += data
	}
	return r
}

// server plays the cluster's side: what it sends, piece by piece, and what it is sent.
type server struct {
	io.Reader
	sent   bytes.Buffer
	ended  bool
	closed bool
}

func (s *server) Write(p []byte) (int, error) { return s.sent.Write(p) }
func (s *server) CloseWrite() error           { s.ended = true; return nil }
func (s *server) Close() error                { s.closed = true; return nil }

// pieces gives what is sent in reads of the sizes given, the last of which repeats.
type pieces struct {
	b     []byte
	sizes []int
	end   error
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.b) == 0 {
		if p.end == nil {
			return 0, io.EOF
		}
		return 0, p.end
	}
	n := p.sizes[0]
	if len(p.sizes) > 1 {
		p.sizes = p.sizes[1:]
	}
	n = copy(b, p.b[:min(max(n, 1), len(p.b))])
	p.b = p.b[n:]
	return n, nil
}

func through(t testing.TB, c codec, wire string, opt stream.Options, sizes ...int) ([]byte, error) {
	t.Helper()
	if opt.Set == nil {
		opt.Set = canaries(t)
	}
	if len(sizes) == 0 {
		sizes = []int{1 << 20}
	}
	s := stream.WebSocket(&server{Reader: &pieces{b: []byte(wire), sizes: sizes}}, c.protocol, opt)
	defer s.Close()
	return io.ReadAll(s)
}

// fragments cuts a message into frames, with control frames in between.
func fragments(rnd *rand.Rand, op byte, payload string) string {
	var wire strings.Builder
	for first := true; ; first = false {
		n := len(payload)
		if rnd.IntN(3) > 0 {
			n = rnd.IntN(n + 1)
		}
		if !first {
			op = 0
		}
		wire.WriteString(frame(n == len(payload), op, payload[:n]))
		if n == len(payload) {
			return wire.String()
		}
		payload = payload[n:]
		if rnd.IntN(4) == 0 {
			wire.WriteString(frame(true, 9+byte(rnd.IntN(2)), "beat"))
		}
	}
}

// script is some output of a command: who wrote what, in order.
type output struct {
	channel byte
	data    string
}

// frameUp writes output as messages, fragments and control frames, cut anywhere.
func frameUp(rnd *rand.Rand, c codec, out []output) string {
	var wire strings.Builder
	wire.WriteString(c.write(1, ""))
	for _, o := range out {
		for data := o.data; data != ""; {
			n := 1 + rnd.IntN(len(data))
			wire.WriteString(fragments(rnd, c.op, c.payload(o.channel, data[:n])))
			data = data[n:]
			switch rnd.IntN(8) {
			case 0:
				wire.WriteString(frame(true, 9, "ping"))
			case 1:
				wire.WriteString(c.write(o.channel, ""))
			}
		}
	}
	return wire.String() + closeFrame(1000, "")
}

func sizes(rnd *rand.Rand) []int {
	var s []int
	for range rnd.IntN(40) {
		s = append(s, 1+rnd.IntN(1+rnd.IntN(300)))
	}
	return append(s, 1+rnd.IntN(2000))
}

var alphabet = []rune("aAbcdefghijklmnopqrstuvwxyz   \n\n\t=:/.-_{}[]\"'0123456789äß漢😀\x1b\r")

// text is some text, sometimes with what looks like the beginning of a secret.
func text(rnd *rand.Rand, n int) string {
	var b strings.Builder
	for b.Len() < n {
		switch rnd.IntN(60) {
		case 0:
			b.WriteString(canary[:rnd.IntN(len(canary)-1)] + "g")
		case 1:
			b.WriteString("CANARY")
		default:
			b.WriteRune(alphabet[rnd.IntN(len(alphabet))])
		}
	}
	if !utf8.ValidString(b.String()) {
		panic("no text")
	}
	return b.String()
}
