package stream_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"sallyport/proxy/mask/stream"
	"sallyport/shared/access"
)

// However the wire is cut, the caller is given the same on every channel, in the same order, and the secret nowhere.
func TestEveryByte(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.protocol, func(t *testing.T) {
			p := c.payload(1, canary[20:]+" tail\n")
			wire := c.write(1, "") +
				c.write(1, "a key: "+canary[:20]) +
				frame(false, c.op, p[:1]) + frame(true, 9, "are you there") + frame(false, 0, p[1:9]) + frame(true, 0, p[9:]) +
				c.write(2, "warning\n") + c.write(1, strings.Repeat("long ", 60)) +
				c.write(3, `{"status":"Failure","reason":"NonZeroExitCode"}`) + closeFrame(1000, "bye")
			want := "|1:a key: " + mark + " tail\n|2:warning\n|1:" + strings.Repeat("long ", 60) + `|3:{"status":"Failure","reason":"NonZeroExitCode"}`
			for cut := 0; cut <= len(wire); cut++ {
				for _, sizes := range [][]int{{cut, 1 << 20}, {cut, 1, 1, 1, 1 << 20}} {
					if cut == 0 {
						sizes = []int{1}
					}
					b, err := through(t, c, wire, stream.Options{}, sizes...)
					if err != nil {
						t.Fatalf("cut at %d: %v", cut, err)
					}
					got := c.understand(t, b)
					if got.order != want {
						t.Fatalf("cut at %d:\n%q, want\n%q", cut, got.order, want)
					}
					if fmt.Sprint(got.control) != `[9:"are you there" 8:"\x03\xe8bye"]` || string(got.empty) != "\x01" {
						t.Fatalf("cut at %d: control %v, empty %v", cut, got.control, got.empty)
					}
				}
			}
		})
	}
}

// Output without a secret is byte for byte what the container wrote, on every channel and in its order, in any framing.
func TestUntouched(t *testing.T) {
	set := canaries(t)
	for seed := range uint64(600) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		c := codecs[rnd.IntN(len(codecs))]
		var out []output
		want := received{channel: map[byte]string{}}
		for range rnd.IntN(8) {
			o := output{1 + byte(rnd.IntN(2)), text(rnd, 1+rnd.IntN(1+rnd.IntN(900)))}
			if n := len(out); n > 0 && out[n-1].channel == o.channel {
				continue
			}
			out = append(out, o)
			want.channel[o.channel] += o.data
			want.order += fmt.Sprintf("|%d:%s", o.channel, o.data)
		}
		if len(set.Find([]byte(want.channel[1])))+len(set.Find([]byte(want.channel[2]))) > 0 {
			t.Errorf("seed %d: the text happens to hold what a detector knows", seed)
			continue
		}
		b, err := through(t, c, frameUp(rnd, c, out), stream.Options{Set: set}, sizes(rnd)...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if got := c.understand(t, b); got.order != want.order {
			t.Fatalf("seed %d, %s:\n%q, want\n%q", seed, c.protocol, got.order, want.order)
		}
	}
}

// A secret never appears, wherever it is cut and whatever is written on the other channel meanwhile.
func TestSecretAnywhere(t *testing.T) {
	set := canaries(t)
	for seed := range uint64(600) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		c := codecs[rnd.IntN(len(codecs))]
		channel := 1 + byte(rnd.IntN(2))
		before, after := text(rnd, rnd.IntN(300))+"\n", "\n"+text(rnd, rnd.IntN(300))
		var out []output
		other := ""
		for secret := before + canary + after; secret != ""; {
			n := 1 + rnd.IntN(len(secret))
			out = append(out, output{channel, secret[:n]})
			secret = secret[n:]
			if rnd.IntN(2) == 0 {
				s := text(rnd, 1+rnd.IntN(50)) + "\n"
				other += s
				out = append(out, output{3 - channel, s})
			}
		}
		b, err := through(t, c, frameUp(rnd, c, out), stream.Options{Set: set}, sizes(rnd)...)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		got := c.understand(t, b)
		if got.channel[channel] != before+mark+after || got.channel[3-channel] != other {
			t.Fatalf("seed %d, %s:\n%q, want\n%q", seed, c.protocol, got.channel[channel], before+mark+after)
		}
	}
}

// Every place where a secret can be cut in two messages, with a message on the other channel in between.
func TestEveryCutOfASecret(t *testing.T) {
	set := canaries(t)
	for _, c := range codecs {
		for cut := 1; cut < len(canary); cut++ {
			wire := c.write(1, "x "+canary[:cut]) + c.write(2, "meanwhile") + c.write(1, canary[cut:]+" y") + closeFrame(1000, "")
			b, err := through(t, c, wire, stream.Options{Set: set})
			if err != nil {
				t.Fatal(err)
			}
			if got := c.understand(t, b); got.channel[1] != "x "+mark+" y" || got.channel[2] != "meanwhile" {
				t.Errorf("%s, cut at %d: %q", c.protocol, cut, got.order)
			}
		}
	}
}

// What the default detectors know is found in frames as it is in text.
func TestWellKnown(t *testing.T) {
	key := strings.Repeat("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\r\n", 8)
	for name, secret := range map[string]string{
		"a GitHub token":      "ghp_" + "x7Kq2mZ9pL4vT1nB8cW5rY3dF6hJ0sA4gE2u",
		"a bearer":            "eyJhbGciOiJSUzI1NiIsImtpZCI6IkE3In0.eyJpc3MiOiJodHRwczovL2EuZXhhbXBsZSIsInN1YiI6ImFsaWNlIn0.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJVadQssw5c",
		"a private key":       "-----BEGIN PRIVATE KEY-----\r\n" + key + "-----END PRIVATE KEY-----",
		"a connection string": "Xk9vQ2pLr7Wz",
	} {
		before, after := "value: ", "\r\nnext line\r\n"
		if name == "a connection string" {
			before, after = "postgres://app:", "@db.internal:5432/app\r\n"
		}
		c := codecs[0]
		all := before + secret + after
		for cut := 1; cut < len(all); cut += 1 + len(all)/60 {
			wire := c.write(1, all[:cut]) + c.write(2, "meanwhile\n") + c.write(1, all[cut:]) + closeFrame(1000, "")
			b, err := through(t, c, wire, stream.Options{}, 11)
			if got := c.understand(t, b); err != nil || got.channel[1] != before+mark+after || got.channel[2] != "meanwhile\n" {
				t.Errorf("%s, cut at %d: %q, %v", name, cut, got.order, err)
				break
			}
		}
	}
}

// When what was held back turns out to be nothing, what came on the other channel keeps its place behind it.
func TestOrder(t *testing.T) {
	c := codecs[0]
	wire := c.write(1, "1 "+canary[:9]) + c.write(2, "2 "+canary[:8]) + c.write(1, canary[9:20]) + c.write(2, "!") + c.write(1, "!") + c.write(2, "?")
	b, err := through(t, c, wire, stream.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := "|1:1 " + canary[:9] + "|2:2 " + canary[:8] + "|1:" + canary[9:20] + "|2:!|1:!|2:?"
	if got := c.understand(t, b); got.order != want {
		t.Errorf("%q, want\n%q", got.order, want)
	}
}

// What breaks the protocol ends in a close frame that says so and in an error: half an answer must not look whole.
func TestBroken(t *testing.T) {
	c, long := codecs[0], strings.Repeat("x", 126)
	for name, wire := range map[string]string{
		"an extension":               "\xc2\x01\x01",
		"another reserved bit":       "\x92\x01\x01",
		"masked":                     "\x82\x86\x01abczz\x82\x02\x01y", // whose key and data read as two messages that are not
		"opcode 3":                   "\x83\x00",
		"opcode 11":                  "\x8b\x00",
		"16 bits for a short one":    "\x82\x7e\x00\x7d\x01" + long[:124],
		"64 bits for a short one":    "\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff\x01" + strings.Repeat("x", 65534),
		"a length below zero":        "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00\x01",
		"a continuation of nothing":  frame(true, 0, "\x01x"),
		"a message inside another":   frame(false, 2, "\x01x") + frame(true, 2, "\x01y"),
		"a fragmented ping":          frame(false, 9, ""),
		"a long ping":                frame(true, 9, long),
		"half a close code":          frame(true, 8, "\x03"),
		"a close that is no text":    closeFrame(1000, "\xff"),
		"a close inside a message":   frame(false, 2, "\x01x") + closeFrame(1000, ""),
		"standard input":             c.write(0, "x"),
		"the terminal's size":        c.write(4, "{}"),
		"a channel there is none of": c.write(77, "x"),
		"a half-close of nothing":    frame(true, 2, "\xff"),
		"a half-close of two":        frame(true, 2, "\xff\x01\x02"),
		"a half-close of a lot":      frame(false, 2, "\xff\x01") + frame(true, 0, "\x02"),
	} {
		for _, sizes := range [][]int{{1 << 20}, {1}} {
			b, err := through(t, c, c.write(1, "before")+wire+c.write(1, "after"), stream.Options{}, sizes...)
			if access.KindOf(err) != access.Upstream {
				t.Errorf("%s: %v, want an error about the cluster", name, err)
			}
			got := c.understand(t, b)
			if !strings.HasPrefix(got.order, "|1:before") || strings.Contains(got.order, "after") {
				t.Errorf("%s: %q", name, got.order)
			}
			if n := len(got.control); n != 1 || got.control[0].op != 8 || !strings.HasPrefix(got.control[0].payload, "\x03\xeathe cluster broke") {
				t.Errorf("%s: %v, want one close frame with 1002", name, got.control)
			}
		}
	}
	for name, wire := range map[string]string{
		"half-close before version 5": frame(true, 2, "\xff\x01"),
	} {
		if _, err := through(t, codecs[1], wire, stream.Options{}); access.KindOf(err) != access.Upstream {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, payload := range map[string]string{
		"no base64":          "1a_b=",
		"a line break":       "1YQ==\n",
		"a break inside":     "1Y\nQ=",
		"breaks for letters": "1YW\n\n\n\nJj",
		"breaks at the end":  "1YWJj\n\n\n\n",
		"cut base64":         "1YWJjZ",
		"padding inside":     "1YQ==YQ==",
		"padding and a rest": "1YQ==Y",
		"only padding":       "1====",
		"a binary channel":   "\x01YQ==",
	} {
		for _, sizes := range [][]int{{1 << 20}, {1}} {
			if _, err := through(t, codecs[4], frame(true, 1, payload), stream.Options{}, sizes...); access.KindOf(err) != access.Upstream {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// Something after the close frame is dropped: the caller took the close for the end.
	b, err := through(t, c, closeFrame(1000, "")+c.write(1, "after"), stream.Options{})
	if got := c.understand(t, b); err == nil || got.order != "" || len(got.control) != 1 {
		t.Errorf("after the close frame: %v, %v", got, err)
	}
}

// A connection that breaks off is an error for the caller, unless it breaks off where it may.
func TestBrokenOff(t *testing.T) {
	c := codecs[0]
	wire := c.write(1, "held "+canary[:20])
	for cut := range len(wire) + 1 {
		b, err := through(t, c, wire[:cut], stream.Options{})
		if clean := cut == 0 || cut == len(wire); clean != (err == nil) || !clean && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("broken off after %d: %v", cut, err)
		}
		if cut == len(wire) {
			if got := c.understand(t, b); got.order != "|1:held "+canary[:20] {
				t.Errorf("what was held back is gone: %q", got.order)
			}
		}
	}
	if _, err := through(t, c, frame(false, 2, "\x01x"), stream.Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off inside a message: %v", err)
	}
	gone := errors.New("reset by peer")
	s := stream.WebSocket(&server{Reader: &pieces{b: []byte(wire), sizes: []int{99}, end: gone}}, c.protocol, stream.Options{Set: canaries(t)})
	if b, err := io.ReadAll(s); !errors.Is(err, gone) || !strings.Contains(c.understand(t, b).order, "held CANARY") {
		t.Errorf("%q, %v", b, err)
	}
}

// What turns out not to be text reaches the caller as it is from there on, or not at all where the policy says so.
func TestBinaryOutput(t *testing.T) {
	set := canaries(t)
	c := codecs[0]
	for name, data := range map[string]string{
		"a NUL":                        "text\x00" + canary,
		"a NUL at once":                "\x00" + canary,
		"the end of what is looked at": strings.Repeat("x", 4095) + "\x00" + canary,
		"no UTF-8":                     "\x1f\x8b\x08" + canary,
		"half a character":             "\xe6\xbc" + canary,
		"a character cut short":        "\xe6\xe6\xbc\xa2" + canary,
		"a surrogate":                  "\xed\xa0\x80" + canary,
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			b, err := through(t, c, c.write(1, data)+c.write(2, canary)+closeFrame(1000, ""), stream.Options{Set: set}, size)
			if got := c.understand(t, b); err != nil || got.channel[1] != data {
				t.Errorf("%s, reads of %d: %.80q, %v", name, size, got.channel[1], err)
			} else if got.channel[2] != mark {
				t.Errorf("%s: the other channel is text, and was %q", name, got.channel[2])
			}
			b, err = through(t, c, c.write(1, data)+closeFrame(1000, ""), stream.Options{Set: set, Block: true}, size)
			got := c.understand(t, b)
			if access.KindOf(err) != access.Denied || strings.Contains(got.order, canary) || len(got.control) != 1 || !strings.HasPrefix(got.control[0].payload, "\x03\xf0the output is not text") {
				t.Errorf("%s, refused: %v, %v", name, got, err)
			}
		}
	}
	for name, data := range map[string]string{
		"a NUL too late":         strings.Repeat("x", 4096) + "\x00",
		"a character at the end": strings.Repeat("x", 4094) + "漢 ",
		"a character cut":        "漢",
	} {
		for _, size := range []int{1, 2, 3, 7, 1 << 20} {
			b, err := through(t, c, c.write(1, data)+c.write(1, canary)+closeFrame(1000, ""), stream.Options{Set: set}, size)
			if got := c.understand(t, b); err != nil || got.channel[1] != data+mark {
				t.Errorf("%s, reads of %d: %.80q, %v", name, size, got.channel[1], err)
			}
		}
	}
	// A refusal looks at the whole of it.
	if _, err := through(t, c, c.write(1, strings.Repeat("x", 9000)+"\x00"), stream.Options{Set: set, Block: true}); access.KindOf(err) != access.Denied {
		t.Errorf("a late NUL where it is refused: %v", err)
	}
	// A secret before is masked still.
	b, err := through(t, c, c.write(1, canary+" and "+canary[:30]+"\x00"), stream.Options{Set: set})
	if got := c.understand(t, b); err != nil || got.channel[1] != mark+" and "+canary[:30]+"\x00" {
		t.Errorf("%q, %v", got.order, err)
	}
}

// A stream that is known to be binary is the connection itself, or is refused before a byte of it.
func TestBinaryOption(t *testing.T) {
	s := &server{Reader: strings.NewReader("anything\x00 at all")}
	if got := stream.WebSocket(s, "SPDY/3.1+portforward.k8s.io", stream.Options{Binary: true}); got != io.ReadWriteCloser(s) {
		t.Error("a binary stream is wrapped")
	}
	b, err := io.ReadAll(stream.WebSocket(s, codecs[0].protocol, stream.Options{Set: canaries(t), Binary: true, Block: true}))
	if got := codecs[0].understand(t, b); access.KindOf(err) != access.Denied || len(got.control) != 1 || got.order != "" {
		t.Errorf("refused: %q, %v", b, err)
	}
	s = &server{Reader: strings.NewReader(codecs[0].write(1, "x") + closeFrame(1000, ""))}
	b, err = io.ReadAll(stream.WebSocket(s, "v6.channel.k8s.io", stream.Options{Set: canaries(t)}))
	if err == nil || len(codecs[0].understand(t, b).control) != 1 {
		t.Errorf("an unknown protocol: %q, %v", b, err)
	}
	for _, c := range codecs {
		if !stream.Supported(c.protocol) {
			t.Errorf("%q is not supported", c.protocol)
		}
	}
	if stream.Supported("v6.channel.k8s.io") || stream.Supported("SPDY/3.1+portforward.k8s.io") {
		t.Error("what cannot be masked counts as supported")
	}
}

// The Status stays JSON: its strings are masked as they read, and nothing else of it changes.
func TestStatus(t *testing.T) {
	for _, c := range codecs {
		plain := `{"metadata":{},"status":"Failure",  "message":"exit \u0031","details":{"causes":[{"reason":"ExitCode","message":"7"}]}}`
		b, err := through(t, c, c.write(1, "x")+c.write(3, plain)+closeFrame(1000, ""), stream.Options{})
		if got := c.understand(t, b); err != nil || got.order != "|1:x|3:"+plain {
			t.Errorf("%q, %v", got.order, err)
		}
		secret := `{"status":"Failure","message":"no \"file\" <\u0043` + canary[1:] + `> \\","code":500}`
		for cut := 1; cut < len(secret); cut++ {
			wire := c.write(3, secret[:cut]) + c.write(3, secret[cut:]) + closeFrame(1000, "")
			b, err = through(t, c, wire, stream.Options{})
			got := c.understand(t, b)
			if want := `{"status":"Failure","message":"no \"file\" <` + mark + `> \\","code":500}`; err != nil || got.channel[3] != want || !json.Valid([]byte(got.channel[3])) {
				t.Fatalf("cut at %d: %q, %v", cut, got.channel[3], err)
			}
		}
	}
	// Before version 4 it is text, and some of it might only look like JSON.
	for _, text := range []string{"error executing %s in x", "{%s", "{\"%s\"", "{%s}", " %s", strings.Repeat(" ", 40<<10) + "{%s}", `{"a":"` + strings.Repeat("y", 40<<10) + " %s\"}"} {
		b, err := through(t, codecs[2], codecs[2].write(3, fmt.Sprintf(text, canary))+closeFrame(1000, ""), stream.Options{})
		if got := codecs[2].understand(t, b); err != nil || got.channel[3] != fmt.Sprintf(text, mark) {
			t.Errorf("%.60q, %v", got.channel[3], err)
		}
	}
}

// What is kept of a Status that has no end is bounded: it is text from there on.
func TestStatusBounded(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		say(c.write(3, `{"a":"`+strings.Repeat("y", 40<<10)))
		if got := heard(); len(got) < 40<<10 {
			t.Errorf("at once: %d bytes", len(got))
		}
	})
}

// The reason in a close frame is text, too.
func TestCloseReason(t *testing.T) {
	b, err := through(t, codecs[0], closeFrame(1011, "cannot run "+canary), stream.Options{})
	if got := codecs[0].understand(t, b); err != nil || fmt.Sprint(got.control) != `[8:"\x03\xf3cannot run `+mark+`"]` {
		t.Errorf("%v, %v", got.control, err)
	}
}

// In version 5 a channel that ends lets go what is held back of it before it does.
func TestHalfClose(t *testing.T) {
	c := codecs[0]
	wire := c.write(1, canary[:20]) + c.write(2, canary[:9]) + frame(true, 2, "\xff\x01") + c.write(2, "x")
	b, err := through(t, c, wire, stream.Options{})
	if got := c.understand(t, b); err != nil || got.order != "|1:"+canary[:20]+"|2:"+canary[:9]+"|255:\x01|2:x" {
		t.Errorf("%q, %v", got.order, err)
	}
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		say(c.write(1, canary[:20]))
		say(frame(true, 2, "\xff\x01"))
		if got := heard(); got != "|1:"+canary[:20]+"|255:\x01" {
			t.Errorf("at once: %q", got)
		}
	})
}

// A message without a channel, and one without data, say something to a client, and are passed on in their place.
func TestEmptyMessages(t *testing.T) {
	for _, c := range codecs {
		b, err := through(t, c, c.write(3, "")+c.write(1, "a")+frame(true, c.op, "")+frame(false, c.op, c.payload(2, ""))+frame(true, 0, ""), stream.Options{}, 1)
		if got := c.understand(t, b); err != nil || got.order != "|1:a" || string(got.empty) != "\x03\xfe\x02" {
			t.Errorf("%s: %q, %v, %v", c.protocol, got.order, got.empty, err)
		}
	}
}

// What the caller sends is not looked at, and its end is passed on.
func TestInput(t *testing.T) {
	s := &server{Reader: strings.NewReader("")}
	w := stream.WebSocket(s, "v5.channel.k8s.io", stream.Options{Set: canaries(t)})
	in := "\x82\xffanything " + canary
	if n, err := io.WriteString(w, in); n != len(in) || err != nil || s.sent.String() != in {
		t.Errorf("%d, %v, %q", n, err, s.sent.String())
	}
	if err := w.(interface{ CloseWrite() error }).CloseWrite(); err != nil || !s.ended {
		t.Errorf("CloseWrite: %v, passed on %v", err, s.ended)
	}
	if err := w.Close(); err != nil || !s.closed {
		t.Errorf("Close: %v, passed on %v", err, s.closed)
	}
	if err := stream.WebSocket(struct{ io.ReadWriteCloser }{s}, "v5.channel.k8s.io", stream.Options{Set: canaries(t)}).(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Errorf("CloseWrite on what has none: %v", err)
	}
}

// clocked runs a stream in a bubble of false time: what it says, and when.
func clocked(t *testing.T, c codec, opt stream.Options, f func(say func(string), heard func() string)) {
	t.Helper()
	opt.Set = only(t)
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := stream.WebSocket(ours, c.protocol, opt)
		var mu sync.Mutex
		var got []byte
		end := make(chan error, 1)
		go func() {
			b := make([]byte, 4096)
			for {
				n, err := s.Read(b)
				mu.Lock()
				got = append(got, b[:n]...)
				mu.Unlock()
				if err != nil {
					end <- err
					return
				}
			}
		}()
		say := func(wire string) {
			if _, err := io.WriteString(theirs, wire); err != nil {
				t.Error(err)
			}
		}
		heard := func() string { // what reached the caller until now
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			return c.understand(t, got).order
		}
		f(say, heard)
		s.Close()
		if err := <-end; err == nil || errors.Is(err, io.EOF) {
			t.Errorf("a Read that waits ends with %v", err)
		}
		theirs.Close()
	})
}

// A prompt that might be the beginning of a secret appears after a tenth of a second of silence, and not before.
func TestSilence(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		say(c.write(1, "prompt> "+canary[:10]))
		if got := heard(); got != "|1:prompt> " {
			t.Errorf("at once: %q", got)
		}
		time.Sleep(99 * time.Millisecond)
		if got := heard(); got != "|1:prompt> " {
			t.Errorf("after 99 ms: %q", got)
		}
		time.Sleep(time.Millisecond)
		if got := heard(); got != "|1:prompt> "+canary[:10] {
			t.Errorf("after 100 ms: %q", got)
		}
		say(c.write(1, " more"))
		if got := heard(); got != "|1:prompt> "+canary[:10]+" more" {
			t.Errorf("afterwards: %q", got)
		}
	})
}

// Every byte starts the silence anew, so a secret that comes slowly is seen; the other channel waits for its place.
func TestSlowSecret(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		for i := 0; i < len(canary); i += 5 {
			say(c.write(1, canary[i:min(i+5, len(canary))]))
			say(c.write(2, "."))
			time.Sleep(90 * time.Millisecond)
			if got := heard(); i+5 < len(canary) && got != "" {
				t.Errorf("after %d bytes: %q", i+5, got)
			}
		}
		time.Sleep(10 * time.Millisecond)
		if got := heard(); got != "|1:"+mark+"|2:........" {
			t.Errorf("in the end: %q", got)
		}
	})
}

// What went out because nothing came is the beginning of a secret after all when the rest comes: that is masked.
func TestRestOfASecret(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		say(c.write(1, canary[:20]))
		time.Sleep(200 * time.Millisecond)
		say(c.write(1, canary[20:]+" and on\n"))
		time.Sleep(200 * time.Millisecond)
		if got := heard(); got != "|1:"+canary[:20]+mark+" and on\n" {
			t.Errorf("%q", got)
		}
	})
}

// What comes so slowly that it never ends goes out in the end: a delay is bounded.
func TestTrickle(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{}, func(say func(string), heard func() string) {
		for i := range 17 {
			say(c.write(1, canary[i:i+1]))
			if i == 16 {
				time.Sleep(40 * time.Millisecond)
				break
			}
			time.Sleep(60 * time.Millisecond)
			if got := heard(); got != "" {
				t.Errorf("after %d ms: %q", 60*i+60, got)
			}
		}
		if got := heard(); got != "|1:"+canary[:17] {
			t.Errorf("after 1 s: %q", got)
		}
	})
}

// A ping is answered while text is held back, and another channel that is silent lets go of it even if this one is busy.
func TestPingAndOthers(t *testing.T) {
	c := codecs[0]
	clocked(t, c, stream.Options{Delay: time.Second}, func(say func(string), heard func() string) {
		say(c.write(2, canary[:10]))
		for i := range 11 {
			say(c.write(1, fmt.Sprint(i)))
			time.Sleep(100 * time.Millisecond)
			if got := heard(); (got != "") != (i >= 9) {
				t.Errorf("after %d ms: %q", 100+100*i, got)
			}
		}
		if got := heard(); got != "|2:"+canary[:10]+"|1:012345678910" {
			t.Errorf("in the end: %q", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := stream.WebSocket(ours, c.protocol, stream.Options{Set: only(t), Delay: time.Hour})
		go func() { _, _ = io.WriteString(theirs, c.write(1, canary[:10])+frame(true, 9, "now")) }()
		b := make([]byte, 99)
		began := time.Now()
		if n, err := s.Read(b); err != nil || string(b[:n]) != frame(true, 9, "now") || time.Since(began) > 0 {
			t.Errorf("%q, %v", b[:n], err)
		}
		s.Close()
		theirs.Close()
	})
}

// The time that a slow caller takes is no silence of the server: the rest of the secret has come and was not looked at.
func TestSlowCaller(t *testing.T) {
	c := codecs[0]
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		s := stream.WebSocket(&server{Reader: r}, c.protocol, stream.Options{Set: only(t)})
		go func() {
			for _, part := range []string{"x " + canary[:10], canary[10:20], canary[20:30], canary[30:] + " y"} {
				_, _ = io.WriteString(w, c.write(1, part))
			}
			w.Close()
		}()
		var all []byte
		b := make([]byte, 1)
		for {
			n, err := s.Read(b)
			all = append(all, b[:n]...)
			if err != nil {
				break
			}
			time.Sleep(5 * time.Second)
		}
		if got := c.understand(t, all).order; got != "|1:x "+mark+" y" {
			t.Errorf("%q", got)
		}
	})
}

// While one channel is held back, what is kept of another is bounded: the server is not read any further.
func TestBounded(t *testing.T) {
	c := codecs[0]
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := net.Pipe()
		s := stream.WebSocket(ours, c.protocol, stream.Options{Set: only(t)})
		taken := 0
		go func() {
			n, _ := io.WriteString(theirs, c.write(1, canary[:10]))
			for n > 0 {
				n, _ = io.WriteString(theirs, c.write(2, "line\n"))
				taken += n
			}
		}()
		first := make(chan int)
		go func() { n, _ := s.Read(make([]byte, 1<<20)); first <- n }()
		time.Sleep(50 * time.Millisecond)
		synctest.Wait()
		if taken > 256<<10 || taken == 0 {
			t.Errorf("%d bytes were taken while nothing could go out", taken)
		}
		<-first
		s.Close()
		theirs.Close()
	})
}
