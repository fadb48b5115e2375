package hostnode

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

// Logs are kept as container runtimes keep them, one entry a line:
//
//	2026-01-02T15:04:05.000000000Z stdout F the line
//
// F ends a line, P is a part of one: the next entry of the stream goes on.

// maxEntry is the length at which a line is cut into parts.
const maxEntry = 16 << 10

const stampLayout = "2006-01-02T15:04:05.000000000Z07:00"

// A logFile is written by both streams of a container.
type logFile struct {
	mu  sync.Mutex
	out io.Writer
	now func() time.Time
}

// stream returns the writer of one stream. Close writes what has no newline yet.
func (l *logFile) stream(name string) *logStream { return &logStream{log: l, name: name} }

type logStream struct {
	log  *logFile
	name string
	rest []byte
}

func (s *logStream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		line, after, full := bytes.Cut(p, []byte("\n"))
		s.rest = append(s.rest, line...)
		for len(s.rest) > maxEntry {
			if err := s.log.entry(s.name, 'P', s.rest[:maxEntry]); err != nil {
				return 0, err
			}
			s.rest = append(s.rest[:0], s.rest[maxEntry:]...)
		}
		if full {
			if err := s.log.entry(s.name, 'F', s.rest); err != nil {
				return 0, err
			}
			s.rest = s.rest[:0]
		}
		p = after
	}
	return n, nil
}

func (s *logStream) Close() error {
	if len(s.rest) == 0 {
		return nil
	}
	return s.log.entry(s.name, 'P', s.rest)
}

func (l *logFile) entry(stream string, tag byte, text []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := fmt.Fprintf(l.out, "%s %s %c %s\n", l.now().UTC().Format(stampLayout), stream, tag, text)
	return err
}

// logOptions are those of corev1.PodLogOptions. A negative tail means all.
type logOptions struct {
	follow, timestamps bool
	tail, limit        int64 // lines; bytes, 0 for no limit
	since              time.Time
	stream             string // stdout, stderr or empty for both
}

var errLimit = errors.New("limit reached")

// copyLog writes a log to out. Following it ends when done is closed and all is
// read, or with ctx.
func copyLog(ctx context.Context, path string, o logOptions, out io.Writer, done <-chan struct{}) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := seekTail(f, o.tail); err != nil {
		return err
	}
	r := logReader{opts: o, out: out}
	buf := make([]byte, 64<<10)
	for {
		ended := false
		select {
		case <-done:
			ended = true
		default:
		}
		// Read to the end after looking at done, so that nothing is missed.
		for {
			n, err := f.Read(buf)
			if err := r.write(buf[:n]); err != nil {
				if errors.Is(err, errLimit) {
					return nil
				}
				return err
			}
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return err
			}
		}
		if !o.follow || ended {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-done:
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// seekTail moves f to the start of the last n lines.
func seekTail(f io.ReadSeeker, n int64) error {
	if n < 0 {
		return nil
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	const block = 32 << 10
	buf := make([]byte, block)
	lines := int64(0)
	for pos := end; pos > 0; {
		size := min(pos, block)
		pos -= size
		if _, err := f.Seek(pos, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.ReadFull(f, buf[:size]); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			// The newline that ends the file begins no line.
			if buf[i] != '\n' || pos+i == end-1 {
				continue
			}
			if lines++; lines == n {
				_, err := f.Seek(pos+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// A logReader turns stored entries into what the client asked for.
type logReader struct {
	opts    logOptions
	out     io.Writer
	rest    []byte
	midLine bool // the last entry written was a part
	written int64
}

func (r *logReader) write(p []byte) error {
	var text []byte
	r.rest = append(r.rest, p...)
	for {
		entry, after, ok := bytes.Cut(r.rest, []byte("\n"))
		if !ok {
			break
		}
		text = r.render(text, entry)
		r.rest = after
	}
	limited := false
	if left := r.opts.limit - r.written; r.opts.limit > 0 && int64(len(text)) >= left {
		text, limited = text[:left], true
	}
	r.written += int64(len(text))
	if len(text) > 0 {
		if _, err := r.out.Write(text); err != nil {
			return err
		}
	}
	if limited {
		return errLimit
	}
	return nil
}

func (r *logReader) render(text, entry []byte) []byte {
	parts := bytes.SplitN(entry, []byte(" "), 4)
	if len(parts) != 4 {
		return text // torn by a crash
	}
	if r.opts.stream != "" && string(parts[1]) != r.opts.stream {
		return text
	}
	if !r.opts.since.IsZero() {
		at, err := time.Parse(stampLayout, string(parts[0]))
		if err != nil || at.Before(r.opts.since) {
			return text
		}
	}
	if r.opts.timestamps && !r.midLine {
		text = append(append(text, parts[0]...), ' ')
	}
	text = append(text, parts[3]...)
	r.midLine = string(parts[2]) == "P"
	if !r.midLine {
		text = append(text, '\n')
	}
	return text
}
