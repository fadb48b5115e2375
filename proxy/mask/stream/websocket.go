package stream

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"io"
	"time"
	"unicode/utf8"

	"sallyport/shared/access"
	"sallyport/shared/detect"
)

// Options say what becomes of one stream.
type Options struct {
	Set *detect.Set
	// Binary streams are left as they are, every byte: a copy with tar (see Binary), a port-forward.
	Binary bool
	// Block refuses what is not text, known beforehand or found out, instead of leaving it as it is.
	Block bool
	// Delay is how long a channel is silent before what is held back of it goes out; zero is the constant Delay.
	Delay time.Duration
}

// The channels of remotecommand, as the server writes them.
const (
	stdout  = 1
	stderr  = 2
	outcome = 3   // how the command ended
	half    = 255 // version 5: a channel ends, its number follows
)

// protocols are those that are understood, by what Sec-WebSocket-Protocol in the server's answer says.
var protocols = map[string]struct{ base64, halfClose bool }{
	"":                         {},
	"channel.k8s.io":           {},
	"v2.channel.k8s.io":        {},
	"v3.channel.k8s.io":        {},
	"v4.channel.k8s.io":        {},
	"v5.channel.k8s.io":        {halfClose: true},
	"base64.channel.k8s.io":    {base64: true},
	"v4.base64.channel.k8s.io": {base64: true},
}

// Supported says whether streams of a WebSocket subprotocol can be masked. Others must not be agreed on for exec and
// attach: a Read of them is an error.
func Supported(protocol string) bool {
	_, ok := protocols[protocol]
	return ok
}

// WebSocket masks what conn, the server's side of an upgraded exec or attach, sends on channels 1, 2 and 3. protocol is
// the one the server chose. No extension may have been agreed on: Sec-WebSocket-Extensions is not to be passed on in
// either direction.
//
// Data is framed anew: what came in one message may leave in several, or several in one, of the same kind and channel.
// Output of one channel keeps its order against the other's as far as it was not held back together with a secret. Pings
// and pongs stay where they are in time. Before a close frame, and when conn ends, everything held back goes out. Where
// the server breaks the protocol, the caller is sent a close frame that says so, and then an error, never a clean end.
//
// What is written goes to conn as it is. There is one reader at a time, one writer at a time, and Close may be called at
// any time.
func WebSocket(conn io.ReadWriteCloser, protocol string, opt Options) io.ReadWriteCloser {
	if opt.Binary && !opt.Block {
		return conn
	}
	if opt.Delay <= 0 {
		opt.Delay = Delay
	}
	p, known := protocols[protocol]
	s := &socket{set: opt.Set, base64: p.base64, halfClose: p.halfClose}
	s.to = s
	for i := range s.lanes {
		s.lanes[i] = newLane(opt.Set)
		s.lanes[i].id, s.lanes[i].block = byte(i+stdout), opt.Block
	}
	last := s.lanes[outcome-stdout]
	last.open = func() scanner { return &status{set: opt.Set, emit: last.emit} }
	c := &socketConn{newFlow(conn, s, s.lanes[:], opt.Delay), conn}
	switch {
	case opt.Binary:
		c.err = s.fail(errBinary())
	case !known:
		c.err = s.fail(broken("the subprotocol is none that can be masked"))
	}
	return c
}

type socketConn struct {
	*flow
	conn io.ReadWriteCloser
}

func (c *socketConn) Write(p []byte) (int, error) { return c.conn.Write(p) }

// CloseWrite tells the cluster that the caller has no more to say.
func (c *socketConn) CloseWrite() error {
	if w, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return nil
}

// socket masks the messages of one connection.
type socket struct {
	frames
	set               *detect.Set
	base64, halfClose bool
	lanes             [3]*lane
	out               *[]byte

	// The message that is open.
	begun   bool // its channel is known
	channel byte
	length  uint64 // of what followed the channel
	closes  byte   // the channel that a half-close names
	quantum [4]byte
	digits  int  // of the quantum
	padded  bool // nothing may follow
	decoded []byte

	batch   []byte // data of a lane that it was not given yet
	batchOf *lane

	// queue is what came and did not go yet, in order. Only its first segment goes out before it is complete.
	queue  []segment
	queued int
	spare  []byte // of a segment that went
	over   bool   // a close frame went out
}

// A segment is a piece of one lane between two of others, or a message as it is.
type segment struct {
	lane       *lane // nil when out is frames
	op         byte
	start, end int // of the lane's input
	out        []byte
}

const (
	maxQueued   = 64 << 10 // how much is read while a lane that holds back is waited for
	segmentSize = 64       // what a segment costs beside its bytes
	smallPiece  = 4 << 10
)

func (s *socket) into(out *[]byte) { s.out = out }

func (s *socket) full() bool { return s.queued > maxQueued }

func (s *socket) feed(p []byte) error {
	err := s.write(p)
	if err == nil {
		err = s.commit()
	}
	if err != nil {
		return s.fail(err)
	}
	s.deliver()
	return nil
}

func (s *socket) flush(l *lane) error {
	err := l.flush()
	s.settle(l)
	if err != nil {
		return s.fail(err)
	}
	s.deliver()
	return nil
}

// flushAll lets everything go.
func (s *socket) flushAll() error {
	if err := s.commit(); err != nil {
		return err
	}
	for _, l := range s.lanes {
		err := l.flush()
		s.settle(l)
		if err != nil {
			return err
		}
	}
	s.deliver()
	return nil
}

func (s *socket) end(err error) error {
	if e := s.flushAll(); e != nil {
		return s.fail(e)
	}
	if errors.Is(err, io.EOF) && !s.between() {
		return io.ErrUnexpectedEOF
	}
	return err
}

// fail ends the stream: what came before goes out, then a close frame that says why, then the error.
func (s *socket) fail(err error) error {
	if s.over { // a second close frame would be a fault of ours
		return err
	}
	s.over = true
	_ = s.flushAll() // the first error is the one that counts
	code := uint16(1002)
	if access.KindOf(err) == access.Denied {
		code = 1008
	}
	*s.out = appendFrame(*s.out, opClose, closing(code, access.AsError(err).Message))
	return err
}

// closing is the payload of a close frame (RFC 6455 §5.5.1).
func closing(code uint16, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, code), clip(reason, maxControl-2)...)
}

// clip shortens a text to n bytes and whole characters.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func (s *socket) data(op byte, p []byte) error {
	if !s.begun {
		s.begun, s.channel, p = true, p[0], p[1:]
		if s.base64 {
			s.channel -= '0'
		}
		switch {
		case s.channel >= stdout && s.channel <= outcome:
		case s.channel == half && s.halfClose:
		default:
			return broken("a message is for a channel that the server does not write")
		}
	}
	if len(p) == 0 {
		return nil
	}
	s.length += uint64(len(p))
	if s.channel == half {
		s.closes = p[len(p)-1]
		if s.length > 1 {
			return broken("a channel is closed by a message of the wrong length")
		}
		return nil
	}
	if s.base64 {
		var err error
		if p, err = s.decode(p); err != nil {
			return err
		}
	}
	return s.add(s.lanes[s.channel-stdout], op, p)
}

func (s *socket) message(op byte) error {
	begun, channel, length := s.begun, s.channel, s.length
	s.begun, s.length = false, 0
	if s.base64 {
		if s.digits > 0 {
			return broken("a message is not base64")
		}
		s.padded = false
	}
	switch {
	case !begun:
		return s.asIs(op, nil)
	case channel == half:
		if length != 1 {
			return broken("a channel is closed by a message of the wrong length")
		}
		if err := s.commit(); err != nil {
			return err
		}
		if i := int(s.closes) - stdout; i >= 0 && i < len(s.lanes) {
			err := s.lanes[i].flush()
			s.settle(s.lanes[i])
			if err != nil {
				return err
			}
		}
		return s.asIs(op, []byte{half, s.closes})
	case length == 0: // the server says so that the connection stands
		if s.base64 {
			channel += '0'
		}
		return s.asIs(op, []byte{channel})
	}
	return nil
}

// asIs puts a message into the queue that is passed on as it came.
func (s *socket) asIs(op byte, message []byte) error {
	if err := s.commit(); err != nil {
		return err
	}
	s.queue = append(s.queue, segment{out: appendFrame(nil, op, message)})
	return nil
}

func (s *socket) control(op byte, payload []byte) error {
	if op != opClose {
		if err := s.commit(); err != nil {
			return err
		}
		s.deliver()
		// They are about the connection and not the data, and an answer in time is the point of them: they do not wait for
		// what is held back.
		*s.out = appendFrame(*s.out, op, payload)
		return nil
	}
	if len(payload) == 1 || len(payload) > 2 && !utf8.Valid(payload[2:]) {
		return broken("a close frame cannot be read")
	}
	if s.open {
		return broken("it was closed in the middle of a message")
	}
	if len(payload) > 2 {
		reason := string(s.set.Mask(payload[2:]))
		payload = closing(binary.BigEndian.Uint16(payload), reason)
	}
	if err := s.flushAll(); err != nil {
		return err
	}
	s.over = true
	*s.out = appendFrame(*s.out, opClose, payload)
	return nil
}

// decode takes a piece of a message's base64. Each message is whole base64 of its own, and may be cut anywhere.
func (s *socket) decode(p []byte) ([]byte, error) {
	s.decoded = s.decoded[:0]
	for len(p) > 0 {
		if s.padded {
			return nil, broken("a message is not base64")
		}
		var whole []byte
		if s.digits > 0 || len(p) < 4 {
			n := copy(s.quantum[s.digits:], p)
			s.digits, p = s.digits+n, p[n:]
			if s.digits < 4 {
				break
			}
			whole, s.digits = s.quantum[:], 0
		} else {
			whole, p = p[:len(p)&^3], p[len(p)&^3:]
		}
		var err error
		if s.decoded, err = base64.StdEncoding.AppendDecode(s.decoded, whole); err != nil || bytes.ContainsAny(whole, "\r\n") {
			return nil, broken("a message is not base64")
		}
		s.padded = whole[len(whole)-1] == '='
	}
	return s.decoded, nil
}

// add takes data of a lane. Small pieces of the same are put together first: a scan costs more by the call than by the byte.
func (s *socket) add(l *lane, op byte, p []byte) error {
	if s.batchOf != l || l.op != op || len(s.batch)+len(p) > chunkSize {
		if err := s.commit(); err != nil {
			return err
		}
	}
	l.op = op
	if len(s.batch) == 0 && len(p) >= smallPiece {
		return s.enter(l, p)
	}
	s.batchOf, s.batch = l, append(s.batch, p...)
	return nil
}

// commit enters what was put together. Whatever goes into the queue, goes out or ends comes after it.
func (s *socket) commit() error {
	b := s.batch
	s.batch = s.batch[:0]
	return s.enter(s.batchOf, b)
}

// enter gives data to its lane, and puts it into the queue.
func (s *socket) enter(l *lane, p []byte) error {
	if len(p) == 0 {
		return nil
	}
	if last := len(s.queue) - 1; last < 0 || s.queue[last].lane != l || s.queue[last].op != l.op {
		s.queue = append(s.queue, segment{lane: l, op: l.op, start: l.in, end: l.in})
	}
	s.queue[len(s.queue)-1].end += len(p)
	var err error
	if l.id == outcome {
		err = l.write(p)
	} else {
		err = l.pass(p)
	}
	s.settle(l)
	return err
}

// settle puts what a lane emitted where its input stood. When it is as long as that input, nothing or something of equal
// length was masked and every byte has its place. When it is not, it goes where the input began: the mask with what was
// before it, and what came with it.
func (s *socket) settle(l *lane) {
	from, to := l.done, l.consumed()
	out := l.out
	exact := len(out) == to-from
	first := 0
	if last := len(s.queue) - 1; last >= 0 && s.queue[last].lane == l && from >= s.queue[last].start {
		first = last // as ever, when nothing is held back
	}
	for i := first; i < len(s.queue) && len(out) > 0; i++ {
		g := &s.queue[i]
		if g.lane != l || g.end <= from {
			continue
		}
		n := len(out)
		if exact {
			n = min(n, g.end-from)
			from += n
		}
		if g.out == nil {
			g.out, s.spare = s.spare, nil
		}
		g.out = append(g.out, out[:n]...)
		out = out[n:]
	}
	if len(out) > 0 { // emitted for nothing that waits: a detector that says late what it already took
		s.queue = append(s.queue, segment{lane: l, op: l.op, start: l.in, end: l.in, out: append([]byte(nil), out...)})
	}
	l.settled()
}

// deliver sends what is at the head of the queue, and what of it may go already.
func (s *socket) deliver() {
	n := 0
	for ; n < len(s.queue); n++ {
		g := &s.queue[n]
		if g.lane == nil {
			*s.out = append(*s.out, g.out...)
			continue
		}
		if len(g.out) > 0 {
			s.frame(g)
			s.spare, g.out = g.out[:0], nil
		}
		if g.lane.done < g.end {
			break
		}
	}
	s.queue = append(s.queue[:0], s.queue[n:]...)
	s.queued = 0
	for i := range s.queue {
		g := &s.queue[i]
		s.queued += segmentSize + len(g.out)
		if g.lane != nil {
			s.queued += g.end - max(g.start, min(g.end, g.lane.done))
		}
	}
}

// frame appends a segment's output as a message.
func (s *socket) frame(g *segment) {
	if s.base64 {
		b := appendHeader(*s.out, g.op, 1+base64.StdEncoding.EncodedLen(len(g.out)))
		*s.out = base64.StdEncoding.AppendEncode(append(b, '0'+g.lane.id), g.out)
		return
	}
	b := appendHeader(*s.out, g.op, 1+len(g.out))
	*s.out = append(append(b, g.lane.id), g.out...)
}
