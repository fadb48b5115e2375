package forward

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"sallyport/proxy/mask"
	"sallyport/proxy/mask/stream"
	"sallyport/shared/access"
	"sallyport/shared/detect"
)

// Masking says how an answer is masked. Nil is for what no object is in: discovery, health, the version.
type Masking struct {
	Rules  *mask.Rules
	Detect *detect.Set
	Key    []byte // the session's; nil makes every mask the constant one
	Block  bool   // a stream that brings something else than text ends
}

// jsonType is the one form of objects that is masked, and so the only one that is asked for.
const jsonType = "application/json"

// maxText bounds an error in plain text that is read whole.
const maxText = 64 << 10

// Accepts are the media ranges of a request that may be asked for: JSON, with whatever parameters it is wanted (as a table,
// as metadata, as a stream). Protobuf, YAML and CBOR are never negotiated, however they are spelt, because they could not be
// masked; clients that prefer them take JSON too. The types are parsed (RFC 9110 §12.5.1), not searched for.
func Accepts(in http.Header) ([]string, error) {
	all := strings.Join(in.Values("Accept"), ",")
	if strings.TrimSpace(all) == "" {
		return []string{jsonType}, nil
	}
	var kept []string
	anything := false
	for _, r := range ranges(all) {
		media, _, err := mime.ParseMediaType(r)
		switch {
		case err != nil:
			return nil, access.Errorf(access.Invalid, "Accept holds %.80q, which is no media range; write one like application/json", r)
		case media == jsonType:
			kept = append(kept, strings.TrimSpace(r))
		case media == "*/*", media == "application/*":
			anything = true
		}
	}
	if anything {
		kept = append(kept, jsonType)
	}
	if len(kept) == 0 {
		return nil, access.Errorf(access.NotAcceptable, "Accept names no application/json, and this gate answers with nothing else, as it could not mask it; add application/json")
	}
	return []string{strings.Join(kept, ",")}, nil
}

// ranges splits a list at its commas, but for those in quotes.
func ranges(list string) []string {
	var out []string
	quoted, from := false, 0
	for i := 0; i < len(list); i++ {
		switch c := list[i]; {
		case c == '\\' && quoted:
			i++
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			out = append(out, list[from:i])
			from = i + 1
		}
	}
	out = append(out, list[from:])
	kept := out[:0]
	for _, r := range out {
		if strings.TrimSpace(r) != "" {
			kept = append(kept, r)
		}
	}
	return kept
}

// mask puts what masks between an answer and the caller. What cannot be masked is not passed on.
func (s *state) mask(res *http.Response) error {
	m, a := s.Masking, s.Action
	if m == nil {
		return nil
	}
	defer bare(res)
	for i, w := range res.Header.Values("Warning") {
		res.Header["Warning"][i] = m.Rules.Text(w)
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		return s.maskStream(res)
	}
	if e := res.Header.Get("Content-Encoding"); e != "" && e != "identity" {
		return access.Errorf(access.Upstream, "the cluster answered in an encoding that was not asked for and cannot be masked; nothing of it was passed on")
	}
	if res.StatusCode == http.StatusNoContent || res.StatusCode == http.StatusNotModified || res.Body == http.NoBody {
		return nil
	}
	media, _, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
	switch {
	case err == nil && media == jsonType:
		s.read(res, m.Rules.Reader(res.Body, m.Key))
	case err == nil && media == "text/plain" && a.Resource == "pods" && a.Subresource == "log" && res.StatusCode == http.StatusOK:
		if res.Request.URL.Query().Has("limitBytes") {
			res.Body = stream.LogPart(res.Body, m.Detect)
		} else {
			res.Body = stream.Log(res.Body, m.Detect)
		}
		longer(res)
	case err == nil && media == "text/plain" && res.StatusCode >= http.StatusBadRequest:
		b, err := io.ReadAll(io.LimitReader(res.Body, maxText+1))
		if err != nil || len(b) > maxText {
			return access.Errorf(access.Upstream, "the cluster's answer, an error in plain text, did not arrive whole or is too long to be masked").Because(err)
		}
		s.read(res, strings.NewReader(m.Rules.Text(string(b))))
	default:
		return access.Errorf(access.Upstream, "the cluster answered with %.80q, which cannot be masked; nothing of it was passed on", res.Header.Get("Content-Type"))
	}
	return nil
}

// maskStream masks the output of exec and attach. A forwarded port is the two ends' own business.
func (s *state) maskStream(res *http.Response) error {
	if s.Action.Verb == "portforward" {
		return nil
	}
	conn, ok := res.Body.(io.ReadWriteCloser)
	protocol := res.Header.Get("Sec-Websocket-Protocol")
	switch {
	case !ok:
		return access.Errorf(access.Internal, "the upgraded connection cannot be written to; it was closed")
	case !stream.Supported(protocol):
		return access.Errorf(access.Upstream, "the cluster chose the subprotocol %.80q, whose output cannot be masked; the connection was closed", protocol)
	case res.Header.Get("Sec-Websocket-Extensions") != "":
		return access.Errorf(access.Upstream, "the cluster chose a WebSocket extension that was not offered; the connection was closed")
	}
	masked := stream.WebSocket(conn, protocol, stream.Options{Set: s.Masking.Detect, Binary: stream.Binary(s.Action.Argv), Block: s.Masking.Block})
	res.Body = &brokenStream{cutStream{cutBody{body: masked}, masked}, s}
	return nil
}

// read is the answer's body from now on; closing it closes what it is made from.
func (s *state) read(res *http.Response, r io.Reader) {
	res.Body = masked{&broken{r, s}, res.Body}
	longer(res)
}

// longer says that an answer has another length than the cluster said.
func longer(res *http.Response) {
	res.Header.Del("Content-Length")
	res.ContentLength = -1
}

type masked struct {
	io.Reader
	io.Closer
}

// broken tells why a body broke off, for the log: the caller only sees that it did.
type broken struct {
	io.Reader
	s *state
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err != nil && err != io.EOF && b.s.Broken != nil {
		b.s.Broken(fmt.Errorf("masking the answer: %w", err))
	}
	return n, err
}

// brokenStream tells why the gate itself ended a stream, once the caller was told.
type brokenStream struct {
	cutStream
	s *state
}

func (b *brokenStream) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	var ours *access.Error
	if b.s.Broken != nil && errors.As(err, &ours) {
		b.s.Broken(err)
	}
	return n, err
}
