package recording

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/shared/access"
)

// An Archive is where a Reader finds segments. It is called by several goroutines at once.
//
// List yields every key that begins with prefix and sorts after after, in order; an error is the last thing it yields.
// Get opens an object. Errors are of kind [access.NotFound] and [access.Denied] where that is what they are.
type Archive interface {
	List(ctx context.Context, prefix, after string) iter.Seq2[string, error]
	Get(ctx context.Context, key string) (io.ReadCloser, error)
}

// A Reader reads recordings back. Segments that are damaged do not stop it: it returns what it could read, together with
// an error that joins one *[Damage] for each.
type Reader struct {
	Archive Archive
	// Progress, when set, hears how many of how many segments have been read.
	Progress func(done, total int)
}

// A Recorded is an event as it lies in a segment.
type Recorded struct {
	Event *auditv1.Event
	Line  json.RawMessage // the event's own bytes
}

// A Listing is a session that has a recording.
type Listing struct {
	Cluster string
	Session string
	First   time.Time // when its first segment was opened
	Last    time.Time // when its last segment was opened
	keys    []string
}

// Damage is a segment that could not be read whole.
type Damage struct {
	Key  string
	Line int // the first that could not be read; 0 when none could
	Err  error
}

func (d *Damage) Error() string {
	if d.Line == 0 {
		return fmt.Sprintf("%s: %v", d.Key, d.Err)
	}
	return fmt.Sprintf("%s: line %d: %v", d.Key, d.Line, d.Err)
}

func (d *Damage) Unwrap() error { return d.Err }

// maxBad is how many lines of a segment may be unreadable before the rest of it is left alone.
const maxBad = 100

// parallel is how many segments are fetched at once.
const parallel = 16

// Sessions are the cluster's sessions with a segment opened at since or later, the one heard of last first. A zero since
// means all.
func (r *Reader) Sessions(ctx context.Context, cluster string, since time.Time) ([]Listing, error) {
	prefix, err := clusterPrefix(cluster)
	if err != nil {
		return nil, err
	}
	var found []Listing
	for key, err := range r.Archive.List(ctx, prefix, "") {
		if err != nil {
			return nil, err
		}
		id, rest, ok := strings.Cut(key[len(prefix):], "/")
		at, segment := segmentTime(key)
		if !ok || !segment || !validSession(id) || strings.Contains(rest, "/") {
			continue // not ours
		}
		if len(found) == 0 || found[len(found)-1].Session != id {
			found = append(found, Listing{Cluster: cluster, Session: id, First: at})
		}
		l := &found[len(found)-1]
		l.Last = at
		l.keys = append(l.keys, key)
	}
	found = slices.DeleteFunc(found, func(l Listing) bool { return l.Last.Before(since) })
	slices.SortStableFunc(found, func(a, b Listing) int { return b.Last.Compare(a.Last) })
	return found, nil
}

// Find is the cluster's one session whose id begins with prefix.
func (r *Reader) Find(ctx context.Context, cluster, prefix string) (string, error) {
	under, err := clusterPrefix(cluster)
	if err != nil {
		return "", err
	}
	if !validSession(prefix) {
		return "", access.Errorf(access.Invalid, "recording: %q is no id of a session: lower-case letters and the digits 2 to 7", prefix)
	}
	var ids []string
	for after := ""; len(ids) < 3; {
		id := ""
		for key, err := range r.Archive.List(ctx, under+prefix, after) {
			if err != nil {
				return "", err
			}
			if s, _, ok := strings.Cut(key[len(under):], "/"); ok && validSession(s) {
				id = s
				break
			}
		}
		if id == "" {
			break
		}
		if id == prefix {
			return id, nil
		}
		ids = append(ids, id)
		after = under + id + "0" // the character after /
	}
	switch len(ids) {
	case 0:
		return "", access.Errorf(access.NotFound, "no session of cluster %s has an id that begins with %s", cluster, prefix)
	case 1:
		return ids[0], nil
	}
	return "", access.Errorf(access.Invalid, "%s begins the id of more than one session of cluster %s: %s, for example", prefix, cluster, strings.Join(ids, " and "))
}

// Session is what is recorded of a session, in order of time.
func (r *Reader) Session(ctx context.Context, cluster, id string) ([]Recorded, error) {
	prefix, err := sessionPrefix(cluster, id)
	if err != nil {
		return nil, err
	}
	keys, err := r.keys(ctx, prefix, "")
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, access.Errorf(access.NotFound, "cluster %s has no recording of session %s", cluster, id)
	}
	return r.read(ctx, keys)
}

// Listed is Session for a session that Sessions returned.
func (r *Reader) Listed(ctx context.Context, l Listing) ([]Recorded, error) {
	return r.read(ctx, l.keys)
}

// Refused are the requests for the cluster that were refused before they had a session, in segments opened at since or
// later, in order of time. An empty cluster means requests that named no cluster of ours.
func (r *Reader) Refused(ctx context.Context, cluster string, since time.Time) ([]Recorded, error) {
	prefix := refusedPrefix(cluster)
	after := ""
	if !since.IsZero() {
		// The hour, and in it the name: everything that sorts after these was opened at since or later.
		after = prefix + since.UTC().Format("2006/01/02/15/") + since.UTC().Format(timeFormat)
	}
	keys, err := r.keys(ctx, prefix, after)
	if err != nil {
		return nil, err
	}
	return r.read(ctx, keys)
}

func (r *Reader) keys(ctx context.Context, prefix, after string) ([]string, error) {
	var keys []string
	for key, err := range r.Archive.List(ctx, prefix, after) {
		if err != nil {
			return nil, err
		}
		if _, ok := segmentTime(key); ok {
			keys = append(keys, key)
		}
	}
	return keys, nil
}

// read reads segments, several at once, and puts their events in order of time: the tasks of the gate serve one session
// together, so their segments overlap. Events of one task keep the order they were recorded in.
func (r *Reader) read(ctx context.Context, keys []string) ([]Recorded, error) {
	type result struct {
		events []Recorded
		err    error
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	results := make([]chan result, len(keys))
	for i := range results {
		results[i] = make(chan result, 1)
	}
	slots := make(chan struct{}, parallel)
	go func() {
		for i, key := range keys {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			go func() {
				defer func() { <-slots }()
				events, err := r.segment(ctx, key)
				results[i] <- result{events, err}
			}()
		}
	}()
	var all []Recorded
	var damage []error
	for i := range results {
		select {
		case res := <-results[i]:
			all = append(all, res.events...)
			if res.err != nil {
				damage = append(damage, res.err)
			}
		case <-ctx.Done():
			return nil, fmt.Errorf("reading recordings: %w", context.Cause(ctx))
		}
		if r.Progress != nil {
			r.Progress(i+1, len(keys))
		}
	}
	slices.SortStableFunc(all, func(a, b Recorded) int {
		return a.Event.StageTimestamp.Compare(b.Event.StageTimestamp.Time)
	})
	return all, errors.Join(damage...)
}

func (r *Reader) segment(ctx context.Context, key string) ([]Recorded, error) {
	body, err := r.Archive.Get(ctx, key)
	if err != nil {
		return nil, &Damage{Key: key, Err: err}
	}
	defer body.Close()
	events, line, err := decode(body)
	if err != nil {
		return events, &Damage{Key: key, Line: line, Err: err}
	}
	return events, nil
}

// decode reads a segment. When it is not whole, decode returns the events that can be read and the line of the first
// damage, or 0 when there is no line at all.
func decode(body io.Reader) (events []Recorded, line int, err error) {
	// Compression never makes a segment much longer, so the bound holds on both sides.
	z, err := zstd.NewReader(io.LimitReader(body, maxSegment+1),
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxSegment), zstd.WithDecoderMaxWindow(maxSegment))
	if err != nil {
		return nil, 0, fmt.Errorf("opening zstd: %w", err)
	}
	defer z.Close()
	lines, broken := io.ReadAll(io.LimitReader(z, maxSegment+1))
	if len(lines) > maxSegment {
		lines, broken = lines[:maxSegment], fmt.Errorf("longer than %d bytes", maxSegment)
	}
	bad := 0
	damaged := func(at int, e error) {
		if bad++; bad == 1 {
			line, err = at, e
		}
	}
	n := 1
	for ; len(lines) > 0 && bad < maxBad; n++ {
		text, rest, whole := bytes.Cut(lines, []byte("\n"))
		if !whole {
			if broken == nil {
				broken = io.ErrUnexpectedEOF
			}
			break
		}
		lines = rest
		ev := new(auditv1.Event)
		if e := json.Unmarshal(text, ev); e != nil {
			damaged(n, fmt.Errorf("reading an event: %w", e))
			continue
		}
		if ev.Kind != "Event" || ev.APIVersion != auditv1.SchemeGroupVersion.String() {
			damaged(n, fmt.Errorf("%.40q of %.40q is not known to this version of sallyport", ev.Kind, ev.APIVersion))
			continue
		}
		events = append(events, Recorded{Event: ev, Line: text})
	}
	if broken != nil {
		if n == 1 {
			n = 0
		}
		damaged(n, fmt.Errorf("the segment ends early: %w", broken))
	}
	if len(events) == 0 && err == nil {
		err = errors.New("the segment is empty") // none is written so
	}
	return events, line, err
}
