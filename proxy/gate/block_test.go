package gate_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

const (
	textOnly = `- {name: text, effect: allow, groups: [observers], verbs: [exec, attach, portforward], apiGroups: [""], resources: [pods], binary: block}` + "\n"
	upgraded = " HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nAuthorization: Bearer good:bot\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
)

// prints is a cluster whose containers print a text in one message, and then wait.
func prints(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, q *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		fmt.Fprint(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"+output(text))
		_, _ = rw.ReadByte() // until it is cut
	}
}

// opened is what comes out of a stream that was let through, to its end or for a moment.
func opened(t *testing.T, r *rig, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	_, br := dial(t, r, "GET "+path+upgraded)
	res, err := http.ReadResponse(br, nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, br
}

// Where the policy lets nothing but text out, what is known to be none is refused before it is forwarded or anybody is asked,
// and what turns out to be none ends.
func TestBinaryIsBlocked(t *testing.T) {
	const (
		copies  = pods + "/web/exec?command=tar&command=cf&command=-&command=/data&stdout=true"
		into    = pods + "/web/exec?command=tar&command=xmf&command=-&command=-C&command=/data&stdin=true"
		command = pods + "/web/exec?command=cat&command=/data&stdout=true"
		forward = pods + "/web/portforward?ports=80"
	)
	asks := strings.Replace(textOnly, "effect: allow, groups: [observers]", "effect: ask", 1)
	bare := strings.Replace(textOnly, "name: text", "name: bare", 1)
	bare = strings.Replace(bare, "binary: block", "mask: off", 1)
	for _, test := range []struct {
		name, rules, path string
		code              int
		says              string
	}{
		{"a copy", textOnly, copies, 403, "this command carries an archive"},
		{"a copy into it", textOnly, into, 403, "this command carries an archive"},
		{"a port-forward", textOnly, forward, 403, "lets nothing out that is not looked at (binary: block)"},
		{"a copy that would be asked", asks, copies, 403, "this command carries an archive"},
		{"a port-forward that would be asked", asks, forward, 403, "lets nothing out that is not looked at (binary: block)"},
		{"a command", textOnly, command, 101, "not text"},
		{"a command that another rule shows as it is", bare + textOnly, command, 101, "not text"},
		{"a copy where nothing is said", "", copies, 101, ""},
		{"a port-forward where nothing is said", "", forward, 101, ""},
		{"a command where nothing is said", "", command, 101, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			const archive = "usage:\x00\x01 and more"
			r := newRig(t, prints(archive))
			r.policy(t, test.rules)
			res, br := opened(t, r, test.path)
			if res.StatusCode != test.code {
				t.Fatalf("got %d", res.StatusCode)
			}
			if test.code != 101 {
				b, _ := io.ReadAll(res.Body)
				if !strings.Contains(string(b), test.says) || !strings.Contains(string(b), `"Forbidden"`) {
					t.Errorf("it says %s", b)
				}
				if len(r.reached()) != 0 || len(r.people.asked) != 0 {
					t.Errorf("%d requests reached the cluster, %d people were asked", len(r.reached()), len(r.people.asked))
				}
				return
			}
			if test.says == "" {
				got := make([]byte, len(output(archive)))
				if _, err := io.ReadFull(br, got); err != nil || string(got) != output(archive) {
					t.Errorf("it came as %q, %v", got, err)
				}
				return
			}
			got, _ := io.ReadAll(br)
			if s := string(got); !strings.Contains(s, "usage:") || strings.Contains(s, "\x00\x01") || !strings.Contains(s, "\x03\xf0the output is "+test.says) {
				t.Errorf("it came as %q", s)
			}
			events, _ := r.recorder.wait(t, 2)
			if e := events[1].Annotations["sallyport.io/error"]; !strings.Contains(e, "not text") {
				t.Errorf("recorded is %q", events[1].Annotations)
			}
		})
	}
}

// A stream is not longer open than what may be seen of it.
func TestRecheckEndsWhatIsShownNoLonger(t *testing.T) {
	const bare = `- {name: connect-bare, effect: allow, groups: [observers], verbs: [exec], apiGroups: [""], resources: [pods], namespaces: [prod], mask: off}` + "\n"
	for _, test := range []struct {
		name, before, after, namespace string
		ends                           bool
	}{
		{"only text from now on", "", textOnly, "dev", true},
		{"masked from now on", bare, strings.Replace(bare, "mask: off", "mask: on", 1), "prod", true},
		{"another place is masked", "", "masking: {names: [PIN]}\n", "dev", true},
		{"not only text any more", textOnly, "", "dev", false},
		{"not masked any more", strings.Replace(bare, "mask: off", "mask: on", 1), bare, "prod", false},
		{"other words", "", "# words\n", "dev", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t, prints("ready\n"))
			r.policy(t, test.before)
			res, br := opened(t, r, strings.Replace(pods, "dev/api/v1/namespaces/dev", "dev/api/v1/namespaces/"+test.namespace, 1)+"/web/exec?command=sh&stdout=true")
			if line, err := br.ReadString('\n'); res.StatusCode != 101 || err != nil {
				t.Fatalf("got %d %q, %v", res.StatusCode, line, err)
			}
			ended := make(chan struct{})
			go func() { _, _ = io.Copy(io.Discard, br); close(ended) }()
			r.gate.Recheck(context.Background())
			r.policy(t, test.after)
			r.gate.Recheck(context.Background())
			wait := 5 * time.Second
			if !test.ends {
				wait = 50 * time.Millisecond
			}
			select {
			case <-ended:
				if !test.ends {
					t.Error("it ended")
				}
			case <-time.After(wait):
				if test.ends {
					t.Error("it goes on")
				}
			}
		})
	}
}
