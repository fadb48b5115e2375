package forward

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// However properly the cluster ends what was cut, the caller is given an error and not one byte of it.
func TestCut(t *testing.T) {
	why := errors.New("the token expired")
	ctx, cut := context.WithCancelCause(context.Background())
	body := cuttable(ctx, io.NopCloser(strings.NewReader("half and the proper end")))
	b := make([]byte, 4)
	if n, err := body.Read(b); n != 4 || err != nil {
		t.Fatalf("before the cut: %d, %v", n, err)
	}
	cut(why)
	if n, err := body.Read(b); n != 0 || !errors.Is(err, why) {
		t.Errorf("after the cut: %d bytes, %v; want none and the cause", n, err)
	}
}

// An upgraded connection stays one that can be written to, and is cut in the same way.
func TestCutStream(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	why := errors.New("revoked")
	ctx, cut := context.WithCancelCause(context.Background())
	rw, ok := cuttable(ctx, ours).(io.ReadWriteCloser)
	if !ok {
		t.Fatal("an upgraded connection lost its Write")
	}
	defer rw.Close()
	go func() { _, _ = rw.Write([]byte("in")) }()
	b := make([]byte, 2)
	if _, err := io.ReadFull(theirs, b); err != nil || string(b) != "in" {
		t.Fatalf("got %q, %v", b, err)
	}
	cut(why)
	go func() { _, _ = theirs.Write([]byte("\x88\x02\x03\xe8")) }() // a WebSocket close, 1000: all is well
	if n, err := rw.Read(make([]byte, 16)); n != 0 || !errors.Is(err, why) {
		t.Errorf("after the cut: %d bytes, %v", n, err)
	}
}
