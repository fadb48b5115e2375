// Package recording answers "what happened?": it keeps one audit.k8s.io/v1 Event per request and stage, and reads them
// back.
//
// # Format
//
// Events are JSON lines in zstd segments. A segment is one object, written once and never over another:
//
//	sessions/<cluster>/<session>/<time>-<task>-<seq>.ndjson.zst
//	refused/<cluster or ->/<yyyy>/<mm>/<dd>/<hh>/<time>-<task>-<seq>.ndjson.zst
//
// <time> is when the segment was opened, in UTC to the nanosecond and of fixed width, so that names sort as time does.
// <task> is the process that wrote it, <seq> counts its segments. refused/ holds requests that never had a session.
// A reader that meets a line of a kind it does not know says so; that is how the format can grow.
//
// # What it promises
//
// A [Recorder] loses nothing in silence. An event that [Recorder.Append] accepted is stored, or [Recorder.Close] says how
// many are not. When the store is slow, Append makes its caller wait; when the store is away for too long, Append
// refuses, and the gate with it: what cannot be recorded does not happen. A caller that must not go on before the record
// exists, because it is about to change something, uses [Recorder.AppendDurable].
//
// An event may be stored twice, when the store answered an attempt badly that in truth succeeded. Readers tell by
// auditID and stage.
//
// # What it does not hold
//
// Never a token, a credential, a body or the argv of a command: events are built from [Facts], which have no place for
// headers or bodies, and every string that came from outside is made safe by [Event].
//
// # What it does not promise
//
// Nothing yet proves that a segment was not deleted or altered by somebody with the right to write the bucket. A process
// that is killed loses what Append accepted in its last moments (Config.MaxAge, or as long as the store is away), never
// what AppendDurable returned nil for.
package recording

import (
	"context"
	"strconv"
	"strings"
	"time"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

// A Store keeps segments. It is called by many goroutines at once.
//
// Put stores body under key and returns nil only when it is durable. It never replaces an object: when key exists it
// returns an error of kind [access.Conflict] and leaves the object alone. Any other error means that nothing is known:
// the body may have been stored. Put tries once, without retries of its own, so that a conflict on the first call means
// that somebody else wrote key. It ends soon after ctx does, and keeps no reference to body after it returned.
type Store interface {
	Put(ctx context.Context, key string, body []byte) error
}

// A Stream is where an event belongs: a session of a cluster, or the cluster's refused requests when Session is empty.
// Refused requests that name no cluster of ours have none here either.
type Stream struct {
	Cluster string
	Session string
}

const (
	// timeFormat is of fixed width and has no character that sorts or quotes oddly in a key.
	timeFormat = "20060102T150405.000000000Z"
	extension  = ".ndjson.zst"
	nowhere    = "-" // stands for the cluster of a refused request that named none of ours
	seqDigits  = 8
	// maxEvent bounds one line. Event keeps far below it.
	maxEvent = 1 << 20
	// maxSegment bounds a segment before compression, for the writer and for every reader.
	maxSegment = 16 << 20
)

// prefix is where the stream's segments lie, given when the segment was opened. Clusters and sessions come from outside:
// one that is not safe in a key has no prefix.
func (s Stream) prefix(t time.Time) (string, error) {
	if s.Session == "" {
		return refusedPrefix(s.Cluster) + t.UTC().Format("2006/01/02/15/"), nil
	}
	return sessionPrefix(s.Cluster, s.Session)
}

func refusedPrefix(cluster string) string {
	if !validCluster(cluster) {
		cluster = nowhere
	}
	return settings.RefusedPrefix + cluster + "/"
}

func clusterPrefix(cluster string) (string, error) {
	if !validCluster(cluster) {
		return "", access.Errorf(access.Invalid, "recording: %q is no name of a cluster: letters, digits, - and _, at most 100, the first a letter or digit", cluster)
	}
	return settings.SessionsPrefix + cluster + "/", nil
}

func sessionPrefix(cluster, session string) (string, error) {
	prefix, err := clusterPrefix(cluster)
	if err != nil {
		return "", err
	}
	if !validSession(session) {
		return "", access.Errorf(access.Invalid, "recording: %q is no id of a session: lower-case base32, at most 128 characters", session)
	}
	return prefix + session + "/", nil
}

// validCluster holds for the names EKS gives clusters.
func validCluster(s string) bool {
	if s == "" || len(s) > 100 || s[0] == '-' || s[0] == '_' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && r != '-' && r != '_' })
}

func validSession(s string) bool {
	return s != "" && len(s) <= 128 &&
		!strings.ContainsFunc(s, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') })
}

func validTask(s string) bool {
	return s != "" && len(s) <= 64 &&
		!strings.ContainsFunc(s, func(r rune) bool { return !alphanumeric(r) && r != '-' })
}

func alphanumeric(r rune) bool {
	return r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// segmentName is the last element of a segment's key.
func segmentName(t time.Time, task string, seq uint64) string {
	n := strconv.FormatUint(seq, 10)
	if len(n) < seqDigits {
		n = strings.Repeat("0", seqDigits-len(n)) + n
	}
	return t.UTC().Format(timeFormat) + "-" + task + "-" + n + extension
}

// segmentTime is when the segment with that key was opened; ok is false for keys that are no segment's.
func segmentTime(key string) (t time.Time, ok bool) {
	name := key[strings.LastIndexByte(key, '/')+1:]
	stamp, rest, found := strings.Cut(name, "-")
	if !found || !strings.HasSuffix(rest, extension) {
		return time.Time{}, false
	}
	t, err := time.Parse(timeFormat, stamp)
	return t, err == nil
}
