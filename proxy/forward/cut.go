package forward

import (
	"context"
	"io"
)

// cuttable makes an answer end with an error from the moment its context ends. When a stream is cut, the connection to
// the cluster is closed, and the cluster may take that for the end and finish properly, a last chunk or a WebSocket
// close that says all is well, in the moment before it is gone. What was cut must not look like a success to the caller.
func cuttable(ctx context.Context, body io.ReadCloser) io.ReadCloser {
	if rw, ok := body.(io.ReadWriteCloser); ok {
		return &cutStream{cutBody{ctx, body}, rw}
	}
	return &cutBody{ctx, body}
}

type cutBody struct {
	ctx  context.Context
	body io.ReadCloser
}

func (b *cutBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	return n, err
}

func (b *cutBody) Close() error { return b.body.Close() }

// cutStream is the connection behind an upgrade.
type cutStream struct {
	cutBody
	stream io.ReadWriteCloser
}

func (s *cutStream) Write(p []byte) (int, error) { return s.stream.Write(p) }

// CloseWrite tells the cluster that the caller has no more to say.
func (s *cutStream) CloseWrite() error {
	if c, ok := s.stream.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}
