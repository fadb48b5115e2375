package forward

import (
	"io"
	"net/http"
	"slices"
)

// AnswerHeaders are the headers of a masked answer that the caller gets: what the API server sets of itself. Any other, and
// any trailer, is dropped, because nothing masks it: an API server behind an APIService may put there what it likes.
var AnswerHeaders = []string{
	"Cache-Control", "Content-Encoding", "Content-Length", "Content-Type", "Date", "Etag", "Last-Modified", "Retry-After", "Vary", "Warning",
	"X-Content-Type-Options", "X-Kubernetes-Pf-Flowschema-Uid", "X-Kubernetes-Pf-Prioritylevel-Uid",
	"Connection", "Upgrade", "Sec-Websocket-Accept", "Sec-Websocket-Protocol",
}

// bare leaves an answer the headers that are known, and no trailer.
func bare(res *http.Response) {
	for name := range res.Header {
		if !slices.Contains(AnswerHeaders, name) {
			delete(res.Header, name)
		}
	}
	res.Trailer = nil
	if _, stream := res.Body.(io.ReadWriteCloser); !stream {
		res.Body = &untrailed{res.Body, res}
	}
}

// untrailed is a body whose trailer, which net/http hands over at its end, is dropped.
type untrailed struct {
	io.ReadCloser
	res *http.Response
}

func (u *untrailed) Close() error {
	err := u.ReadCloser.Close()
	u.res.Trailer = nil
	return err
}
