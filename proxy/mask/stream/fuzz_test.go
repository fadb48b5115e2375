package stream_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"sallyport/proxy/mask/stream"
)

// FuzzWebSocket sends anything. Whatever it is and however it is cut, the caller is sent WebSocket; what a reader by the
// book cannot read is an error; what it can is on the same channels, and no secret is, in text.
func FuzzWebSocket(f *testing.F) {
	set := canaries(f)
	for i, c := range codecs {
		f.Add([]byte(c.write(1, "")+c.write(1, "a "+canary[:9])+frame(true, 9, "x")+c.write(2, "err")+c.write(1, canary[9:])+c.write(3, `{"message":"`+canary+`"}`)+closeFrame(1000, "")), uint8(i), uint16(20), false)
		f.Add([]byte(frame(false, c.op, c.payload(1, canary)[:12])+frame(true, 0, c.payload(1, canary)[12:])), uint8(i), uint16(3), true)
		f.Add([]byte(c.write(2, "\x00binary"+strings.Repeat("y", 300))+frame(true, c.op, "\xff\x01")), uint8(i), uint16(1), false)
	}
	f.Add([]byte("\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00\x01"), uint8(0), uint16(4), false)
	f.Fuzz(func(t *testing.T, wire []byte, which uint8, cut uint16, block bool) {
		c := codecs[int(which)%len(codecs)]
		opt := stream.Options{Set: set, Block: block}
		whole, err := through(t, c, string(wire), opt)
		again, errAgain := through(t, c, string(wire), opt, int(cut), 1, 2, 3, int(cut)+1)
		if (err == nil) != (errAgain == nil) { // where two things are wrong, either is said
			t.Fatalf("cut at %d: %v, whole: %v", cut, errAgain, err)
		}
		got, wrong := understood(c, whole)
		if wrong != nil {
			t.Fatalf("the caller was sent %q: %v", whole, wrong)
		}
		gotAgain, wrong := understood(c, again)
		if wrong != nil {
			t.Fatalf("the caller was sent %q: %v", again, wrong)
		}
		for channel := range byte(255) {
			// After an error the pieces that got through before it may be fewer or more, and one begins with the other.
			if a, b := got[channel], gotAgain[channel]; err == nil && a != b || !strings.HasPrefix(a, b) && !strings.HasPrefix(b, a) {
				t.Fatalf("channel %d, cut at %d: %q, whole: %q", channel, cut, b, a)
			}
		}
		want, wrong := understood(c, wire)
		if err == nil && wrong != nil {
			t.Fatalf("%q was passed on, but is none: %v", wire, wrong)
		}
		for channel, data := range want {
			text := utf8.ValidString(data) && !strings.Contains(data, "\x00")
			// What of a message got through before the wire broke off may be no text, unlike the whole messages.
			if text && utf8.ValidString(got[channel]) && !strings.Contains(got[channel], "\x00") && strings.Contains(got[channel], canary) {
				t.Fatalf("channel %d: %q", channel, got[channel])
			}
			if err == nil && len(set.Find([]byte(data))) == 0 && !bytes.Contains(wire, []byte("CANARY")) && channel != 3 && got[channel] != data {
				t.Fatalf("channel %d: %q, want %q", channel, got[channel], data)
			}
			if block && err == nil && !text && channel < 3 && utf8.ValidString(data) {
				t.Fatalf("channel %d: %q was not refused", channel, got[channel])
			}
		}
		if errors.Is(err, io.EOF) {
			t.Fatal("an end is an error")
		}
	})
}

// understood is what a client by the book makes of a wire.
func understood(c codec, wire []byte) (map[byte]string, error) {
	messages, rest, err := read(wire)
	if err == nil && len(rest) > 0 {
		err = errors.New("it breaks off")
	}
	channels := map[byte]string{}
	for _, m := range messages {
		if m.op >= 8 || m.payload == "" {
			continue
		}
		channel, data := m.payload[0], m.payload[1:]
		if c.base64 {
			channel -= '0'
			b, e := base64.StdEncoding.DecodeString(data)
			if e != nil {
				return channels, e
			}
			data = string(b)
		}
		channels[channel] += data
	}
	return channels, err
}

// FuzzLog sends any bytes: without a secret they arrive as they were, and a secret never does.
func FuzzLog(f *testing.F) {
	set := canaries(f)
	f.Add([]byte("line\n"+canary+"\nline"), uint16(9))
	f.Add([]byte("CANARY-CANARY-"+canary+"0"), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, cut uint16) {
		got, err := logOf(t, string(b), nil, int(cut), 1, 2, 3, int(cut)+1)
		if err != nil || strings.Contains(got, canary) {
			t.Fatalf("%q, %v", got, err)
		}
		if len(set.Find(b)) == 0 && got != string(b) {
			t.Fatalf("%q, want %q", got, b)
		}
	})
}
