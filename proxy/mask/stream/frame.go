package stream

import (
	"encoding/binary"

	"sallyport/shared/access"
)

// The opcodes of RFC 6455 §5.2.
const (
	opContinuation = 0x0
	opText         = 0x1
	opBinary       = 0x2
	opClose        = 0x8
	opPing         = 0x9
	opPong         = 0xa

	bitFin, bitsReserved, bitControl = 0x80, 0x70, 0x08
	bitMask                          = 0x80 // of the second byte

	maxControl = 125 // RFC 6455 §5.5
)

// A receiver takes what frames carry.
type receiver interface {
	// data takes a piece of a message, as it comes: a message may be of any length and is kept by nobody.
	data(op byte, p []byte) error
	// message is called at the end of each.
	message(op byte) error
	// control takes a whole control frame. They come in the middle of messages, too.
	control(op byte, payload []byte) error
}

// frames parses what a WebSocket server sends, cut in any way (RFC 6455 §5). It is strict: what a client could read in
// another way than this, or refuses, is an error.
type frames struct {
	to receiver

	header  [10]byte // of the frame that is read
	got     int
	inside  bool   // the header is complete
	left    uint64 // of its payload
	op      byte   // of the message that is open; a frame that continues it does not say
	open    bool   // a message began and has not ended
	closed  bool   // a close frame came, and nothing may follow (RFC 6455 §5.5.1)
	payload []byte // of a control frame
}

func broken(what string) error {
	return access.Errorf(access.Upstream, "the cluster broke the WebSocket protocol: %s; the stream was ended", what)
}

func (f *frames) write(p []byte) error {
	for len(p) > 0 {
		if f.closed {
			return broken("something came after the close frame")
		}
		if !f.inside {
			f.header[f.got], p = p[0], p[1:]
			f.got++
			if f.got < 2 || f.got < f.headerLen() {
				continue
			}
			if err := f.begin(); err != nil {
				return err
			}
		}
		n := min(f.left, uint64(len(p)))
		part := p[:n]
		p, f.left = p[n:], f.left-n
		if err := f.take(part); err != nil {
			return err
		}
	}
	return nil
}

// between says whether the stream may end here.
func (f *frames) between() bool { return !f.inside && f.got == 0 && !f.open }

func (f *frames) headerLen() int {
	switch f.header[1] &^ bitMask {
	case 126:
		return 4
	case 127:
		return 10
	}
	return 2
}

// begin reads a header.
func (f *frames) begin() error {
	first, length := f.header[0], uint64(f.header[1]&^bitMask)
	op, fin := first&0xf, first&bitFin != 0
	switch {
	case first&bitsReserved != 0:
		return broken("a frame uses an extension, and none was agreed on")
	case f.header[1]&bitMask != 0:
		return broken("a frame of a server is masked")
	}
	switch length {
	case 126:
		if length = uint64(binary.BigEndian.Uint16(f.header[2:])); length < 126 {
			return broken("a length is not written in its shortest form")
		}
	case 127:
		if length = binary.BigEndian.Uint64(f.header[2:]); length < 1<<16 || length >= 1<<63 {
			return broken("a length is not written in its shortest form")
		}
	}
	switch op {
	case opContinuation:
		if !f.open {
			return broken("a frame continues no message")
		}
	case opText, opBinary:
		if f.open {
			return broken("a message begins inside another")
		}
		f.op, f.open = op, true
	case opClose, opPing, opPong:
		if !fin || length > maxControl {
			return broken("a control frame is fragmented or too long")
		}
		f.payload = f.payload[:0]
	default:
		return broken("a frame is of a kind that does not exist")
	}
	f.inside, f.left = true, length
	return nil
}

// take takes a part of the payload of the frame that was begun, the last of it when nothing is left.
func (f *frames) take(p []byte) error {
	op, fin := f.header[0]&0xf, f.header[0]&bitFin != 0
	if op&bitControl != 0 {
		f.payload = append(f.payload, p...)
		if f.left > 0 {
			return nil
		}
		f.inside, f.got = false, 0
		f.closed = op == opClose
		return f.to.control(op, f.payload)
	}
	if len(p) > 0 {
		if err := f.to.data(f.op, p); err != nil {
			return err
		}
	}
	if f.left > 0 {
		return nil
	}
	f.inside, f.got = false, 0
	if !fin {
		return nil
	}
	f.open = false
	return f.to.message(f.op)
}

// appendHeader appends the header of an unfragmented frame, as a server writes it.
func appendHeader(b []byte, op byte, length int) []byte {
	b = append(b, bitFin|op)
	switch {
	case length < 126:
		return append(b, byte(length)) //nolint:gosec // a length is not negative
	case length < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(length))
	}
	return binary.BigEndian.AppendUint64(append(b, 127), uint64(length))
}

func appendFrame(b []byte, op byte, payload []byte) []byte {
	return append(appendHeader(b, op, len(payload)), payload...)
}
