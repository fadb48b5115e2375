package forward

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// again is how often a body is judged anew, as often as the API server itself puts a patch on a newer object.
const again = 5

// patience is how long a request that people let through is tried again while the cluster does not take it.
const (
	patience = 10 * time.Second
	pause    = time.Second // between two tries, where the cluster does not say
)

// transport is the last step before the wire.
type transport struct{}

func (transport) RoundTrip(r *http.Request) (*http.Response, error) {
	s := of(r.Context())
	if s.Action.Upgrade {
		return s.send(r, s.Live.Transports.Upgrades)
	}
	res, err := s.send(r, s.Live.Transports.Requests)
	for range again {
		if err != nil || s.Again == nil || res.StatusCode != http.StatusConflict {
			break
		}
		body, refused := s.Again(r.Context())
		if refused != nil {
			res.Body.Close()
			s.sent = false // a 409 is certain: nothing was done
			return nil, refused
		}
		if body == nil {
			break
		}
		discard(res)
		s.Body = body
		res, err = s.send(s.anew(r), s.Live.Transports.Requests)
	}
	return res, err
}

// send sends r, once. A request that people let through is sent again while the cluster says that it has too much to do,
// or cannot be reached: it has done nothing then.
func (s *state) send(r *http.Request, wire http.RoundTripper) (*http.Response, error) {
	until := time.Now().Add(patience)
	for {
		if err := check(r, s); err != nil {
			return nil, err
		}
		res, err := wire.RoundTrip(r)
		wait, ok := s.wait(res, err)
		if !ok || time.Now().Add(wait).After(until) || r.Context().Err() != nil {
			return res, err
		}
		if res != nil {
			discard(res)
		}
		select {
		case <-time.After(wait):
		case <-r.Context().Done():
			s.sent = false
			return nil, context.Cause(r.Context())
		}
		s.sent = false
		r = s.anew(r)
	}
}

// wait says whether r may be sent once more, and how long to wait before.
func (s *state) wait(res *http.Response, err error) (time.Duration, bool) {
	switch {
	case !s.Approved:
		return 0, false
	case err != nil:
		return pause, !s.sent
	case res.StatusCode != http.StatusTooManyRequests:
		return 0, false
	}
	if n, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && n > 0 { // the API server sends whole seconds
		return time.Duration(min(n, 3600)) * time.Second, true
	}
	return pause, true
}

// anew is r with its body from the beginning.
func (s *state) anew(r *http.Request) *http.Request {
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = http.NoBody, int64(len(s.Body))
	if len(s.Body) > 0 {
		r.Body = io.NopCloser(bytes.NewReader(s.Body))
	}
	return r
}

func discard(res *http.Response) {
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxReview))
	res.Body.Close()
}
