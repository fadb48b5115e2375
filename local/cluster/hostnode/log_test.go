package hostnode

import (
	"bytes"
	"context"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// writeLog writes a log whose entries are a second apart, the first at noon.
func writeLog(t *testing.T, write func(out, err *logStream)) string {
	t.Helper()
	var buf bytes.Buffer
	n := -1
	log := &logFile{out: &buf, now: func() time.Time { n++; return noon.Add(time.Duration(n) * time.Second) }}
	out, errOut := log.stream("stdout"), log.stream("stderr")
	write(out, errOut)
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, buf.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func readLog(t *testing.T, path string, o logOptions) string {
	t.Helper()
	var got bytes.Buffer
	if err := copyLog(context.Background(), path, o, &got, nil); err != nil {
		t.Fatal(err)
	}
	return got.String()
}

func TestLogOptions(t *testing.T) {
	path := writeLog(t, func(out, errOut *logStream) {
		out.Write([]byte("one\ntwo\n"))
		errOut.Write([]byte("oops\n"))
		out.Write([]byte("\nlast line"))
		out.Close()
	})
	all := "one\ntwo\noops\n\nlast line"
	for name, test := range map[string]struct {
		opts logOptions
		want string
	}{
		"all":          {logOptions{tail: -1}, all},
		"tail 2":       {logOptions{tail: 2}, "\nlast line"},
		"tail 0":       {logOptions{tail: 0}, ""},
		"tail of more": {logOptions{tail: 99}, all},
		"limit":        {logOptions{tail: -1, limit: 6}, "one\ntw"},
		"since":        {logOptions{tail: -1, since: noon.Add(2 * time.Second)}, "oops\n\nlast line"},
		"stderr":       {logOptions{tail: -1, stream: "stderr"}, "oops\n"},
		"timestamps":   {logOptions{tail: 1, timestamps: true}, "2026-01-02T12:00:04.000000000Z last line"},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, readLog(t, path, test.opts)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLogKeepsBytesWhereverWritesSplit(t *testing.T) {
	text := "a\n\nlonger line\r\nno newline"
	for i := range len(text) + 1 {
		path := writeLog(t, func(out, _ *logStream) {
			out.Write([]byte(text[:i]))
			out.Write([]byte(text[i:]))
			out.Close()
		})
		if diff := cmp.Diff(text, readLog(t, path, logOptions{tail: -1})); diff != "" {
			t.Errorf("split at %d: %s", i, diff)
		}
	}
}

func TestLogCutsLongLines(t *testing.T) {
	text := strings.Repeat("x", 3*maxEntry+5) + "\nnext\n"
	path := writeLog(t, func(out, _ *logStream) { out.Write([]byte(text)) })
	if got := readLog(t, path, logOptions{tail: -1}); got != text {
		t.Errorf("got %d bytes back, want %d", len(got), len(text))
	}
	stamped := readLog(t, path, logOptions{tail: -1, timestamps: true})
	if n := strings.Count(stamped, "Z "); n != 2 {
		t.Errorf("%d timestamps for two lines", n)
	}
}

func TestLogFollowEndsWithTheContainer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	done, read := make(chan struct{}), make(chan string)
	go func() {
		var got bytes.Buffer
		copyLog(context.Background(), path, logOptions{tail: -1, follow: true}, &got, done)
		read <- got.String()
	}()
	out := (&logFile{out: f, now: time.Now}).stream("stdout")
	for _, line := range []string{"one\n", "two\n", "three\n"} {
		out.Write([]byte(line))
		time.Sleep(20 * time.Millisecond)
	}
	close(done)
	select {
	case got := <-read:
		if got != "one\ntwo\nthree\n" {
			t.Errorf("got %q", got)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("following did not end")
	}
}

func TestParseLogOptions(t *testing.T) {
	got, previous, err := parseLogOptions(url.Values{
		"tailLines": {"0"}, "follow": {"true"}, "sinceSeconds": {"60"}, "stream": {"Stderr"}, "limitBytes": {"7"}, "previous": {"true"},
	}, noon)
	if err != nil || !previous {
		t.Fatalf("previous %v, error %v", previous, err)
	}
	want := logOptions{follow: true, tail: 0, limit: 7, since: noon.Add(-time.Minute), stream: "stderr"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(logOptions{})); diff != "" {
		t.Error(diff)
	}
	if got, _, _ := parseLogOptions(url.Values{}, noon); got.tail >= 0 {
		t.Errorf("without tailLines: tail %d, want all", got.tail)
	}
	for _, bad := range []string{"tailLines=-1", "tailLines=x", "follow=maybe", "sinceTime=today", "stream=both"} {
		q, _ := url.ParseQuery(bad)
		if _, _, err := parseLogOptions(q, noon); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}
