package gate_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"

	"sallyport/e2e/stacktest"
)

// webSocket are the lines that ask for an upgrade.
var webSocket = []string{"Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="}

// Threats P11, U2, U6: upgrades that are none of ours, and requests that are too large or not to be unpacked.
func TestBadUpgradesAndBodies(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	exec := "/api/v1/namespaces/dev/pods/POD/exec?command=MARK&stdout=true"
	forward := "/api/v1/namespaces/dev/pods/POD/portforward?ports=8080&x=MARK"
	up := func(name, target, says string, lines ...string) probe {
		return probe{name: name, Request: get(target, lines...), code: 400, reason: "BadRequest", says: says}
	}
	probes := []probe{
		up("P11 WebSocket on a list", pods, "nothing but exec", webSocket...),
		up("P11 WebSocket on a watch", pods+"?watch=1", "nothing but exec", webSocket...),
		up("P11 WebSocket on logs", "/api/v1/namespaces/dev/pods/POD/log?follow=true&x=MARK", "nothing but exec", webSocket...),
		up("P11 WebSocket on discovery", "/version?MARK", "nothing but exec", webSocket...),
		up("P11 no upgrade", exec, "needs a WebSocket upgrade"),
		up("P1 no upgrade, with a slash", strings.Replace(exec, "/exec", "/exec/", 1), "needs a WebSocket upgrade"),
		up("U2 h2c", pods, "nothing but exec", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
		up("U2 h2c on exec", exec, "needs a WebSocket upgrade", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
		up("U2 SPDY", exec, "kubectl 1.31", "Connection: Upgrade", "Upgrade: SPDY/3.1"),
		up("U2 SPDY on port-forward", forward, "kubectl 1.31", "Connection: Upgrade", "Upgrade: SPDY/3.1"),
		up("U2 two protocols", exec, "needs a WebSocket upgrade", "Connection: Upgrade", "Upgrade: websocket, h2c"),
		up("U2 two lines", exec, "needs a WebSocket upgrade", "Connection: Upgrade", "Upgrade: websocket", "Upgrade: SPDY/3.1"),
		up("U2 an unknown protocol", exec, "needs a WebSocket upgrade", "Connection: Upgrade", "Upgrade: tls/1.0"),
		up("U2 an empty protocol", pods, "nothing but exec", "Connection: Upgrade", "Upgrade:"),
		{name: "U2 SPDY by POST", Request: send("POST", exec, "", "Connection: Upgrade", "Upgrade: SPDY/3.1"), code: 400, reason: "BadRequest", says: "kubectl 1.31"},
		{name: "U2 WebSocket by POST", Request: send("POST", exec, "", webSocket...), code: 400, reason: "BadRequest", says: "needs a WebSocket upgrade"},
		{name: "exec by PUT", Request: send("PUT", exec, "", webSocket...), code: 403, reason: "Forbidden"},

		{name: "U6 a hundred megabytes", Request: send("POST", stacktest.ReviewPath+"?MARK", "{}", "Content-Type: application/json", "Content-Length: 104857600"), code: 413, reason: "RequestEntityTooLarge"},
		{name: "U6 four megabytes in chunks", Request: send("POST", stacktest.ReviewPath+"?MARK", "400000\r\n"+strings.Repeat("x", 4<<20)+"\r\n0\r\n\r\n", "Content-Type: application/json", "Transfer-Encoding: chunked"), code: 413, reason: "RequestEntityTooLarge"},
		{name: "U6 gzip", Request: send("POST", stacktest.ReviewPath+"?MARK", "\x1f\x8b", "Content-Encoding: gzip"), code: 415, reason: "UnsupportedMediaType"},
		{name: "U6 two encodings", Request: send("POST", stacktest.ReviewPath+"?MARK", "{}", "Content-Encoding: identity", "Content-Encoding: gzip"), code: 415, reason: "UnsupportedMediaType"},
		{name: "U6 two lengths", Request: send("POST", stacktest.ReviewPath+"?MARK", "{}", "Content-Length: 2", "Content-Length: 3"), code: 400},
		{name: "U6 no length", Request: send("POST", stacktest.ReviewPath+"?MARK", "{}", "Content-Length: x"), code: 400},
		{name: "U6 an unknown transfer coding", Request: send("POST", stacktest.ReviewPath+"?MARK", "{}", "Transfer-Encoding: gzip, chunked"), code: 501},
		{name: "U6 a chunk of no size", Request: send("POST", stacktest.ReviewPath+"?MARK", "zz\r\n{}\r\n0\r\n\r\n", "Transfer-Encoding: chunked"), code: 400, reason: "BadRequest"},
		{name: "H8 two hosts", Request: get(pods, "Host: one.example.com", "Host: two.example.com"), code: 400},
	}
	refused(t, agent, probes)
}

// Threat U6: CL and TE both. Whatever the gate takes for the end of the body, the cluster never sees two requests.
func TestNoRequestIsSmuggled(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "agents")
	hidden := "mark" + stacktest.Word()
	inner := "GET " + s.Path("/api/v1/namespaces/"+hidden+"/pods") + " HTTP/1.1\r\nHost: x\r\nUser-Agent: " + hidden + "\r\n\r\n" // it brings no token
	review := fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(stacktest.Review), stacktest.Review)
	for name, r := range map[string]stacktest.Request{
		"CL.TE": {Header: []string{fmt.Sprintf("Content-Length: %d", len(review)+len(inner)), "Transfer-Encoding: chunked"}, Body: review + inner},
		"TE.CL": {Header: []string{"Transfer-Encoding: chunked", "Content-Length: 4"}, Body: review + inner},
		"TE.TE": {Header: []string{"Transfer-Encoding: chunked", "Transfer-Encoding: identity"}, Body: review + inner},
		"TE x":  {Header: []string{"Transfer-Encoding : chunked", fmt.Sprintf("Content-Length: %d", len(stacktest.Review))}, Body: stacktest.Review + inner},
		"bare LF in a chunk": {Header: []string{"Transfer-Encoding: chunked"},
			Body: fmt.Sprintf("%x\n%s\n0\n\n", len(stacktest.Review), stacktest.Review) + inner},
	} {
		t.Run(name, func(t *testing.T) {
			c := s.Dial(t)
			r.Method, r.Target = http.MethodPost, s.Path(stacktest.ReviewPath)
			r.Header = append(r.Header, stacktest.Bearer(agent.Token), "Content-Type: application/json")
			c.Send(r)
			for { // every answer that comes is the agent's own, or a refusal
				a, err := c.Receive(http.MethodPost)
				if err != nil {
					break
				}
				if a.Code == http.StatusOK {
					t.Errorf("the hidden request was answered: %v", a)
				}
				_ = c.SetReadDeadline(time.Now().Add(time.Second))
			}
		})
	}
	s.Reached(t, agent.Get(t, "/version").AuditID())
	for _, e := range s.Audit(t) {
		if strings.Contains(e.RequestURI, hidden) || e.UserAgent == hidden {
			t.Errorf("the hidden request reached the cluster: %s", e.RequestURI)
		}
	}
}

// Threat U1 (CVE-2018-1002105): after an upgrade that failed, nothing more is read from either connection.
func TestFailedUpgradeEndsTheConnection(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	agent := s.Agent(t, "developers")
	hidden := "mark" + stacktest.Word()
	c := s.Dial(t)
	second := "GET " + s.Path("/api/v1/namespaces/"+hidden+"/pods") + " HTTP/1.1\r\nHost: x\r\n" + stacktest.Bearer(agent.Token) + "\r\nUser-Agent: " + hidden + "\r\n\r\n"
	_ = c.SetDeadline(time.Now().Add(within))
	first := "GET " + s.Path("/api/v1/namespaces/dev/pods/nothing/exec?command=true&stdout=true") + " HTTP/1.1\r\nHost: x\r\n" + stacktest.Bearer(agent.Token) + "\r\n" +
		strings.Join(webSocket, "\r\n") + "\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n"
	if _, err := io.WriteString(c, first+second); err != nil {
		t.Fatal(err)
	}
	a, err := c.Receive(http.MethodGet)
	if err != nil || a.Code != http.StatusNotFound {
		t.Fatalf("want the cluster's 404 for a pod that is not there, got %v (%v)", a, err)
	}
	if a, err := c.Receive(http.MethodGet); err == nil {
		t.Errorf("a second request on the connection was answered: %v", a)
	}
	s.Reached(t, agent.Get(t, "/version").AuditID())
	for _, e := range s.Audit(t) {
		if strings.Contains(e.RequestURI, hidden) {
			t.Errorf("the second request reached the cluster: %s", e.RequestURI)
		}
	}
}

// Threat U6: somebody who never ends his headers does not hold a connection.
func TestSlowHeaders(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	c := s.Dial(t)
	began := time.Now()
	_ = c.SetDeadline(began.Add(30 * time.Second))
	if _, err := io.WriteString(c, "GET "+s.Path("/version")+" HTTP/1.1\r\nHost: x\r\nX-Slow:"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is still open after %v", time.Since(began))
	}
}

// Threat U5: what was opened with a token ends when the token does.
func TestStreamsEndWithTheToken(t *testing.T) {
	s := stacktest.Get(t)
	t.Parallel()
	const life = 6 * time.Second // a whole number of seconds, as a token's are
	brief := func(t *testing.T) (*stacktest.Agent, func()) {
		agent := s.Agent(t, "developers")
		agent.Token = s.Token(t, "--subject", agent.Subject, "--groups", "developers", "--expires", life.String())
		expires := time.Now().Add(life)
		return agent, func() {
			t.Helper()
			if over := time.Since(expires); over < -2*time.Second || over > 5*time.Second {
				t.Errorf("it ended %v after the token", over)
			}
		}
	}
	for name, target := range map[string]string{
		"watch": "/api/v1/namespaces/dev/configmaps?watch=1", "log": "/api/v1/namespaces/dev/pods/" + s.Pod(t, "dev") + "/log?follow=true",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			agent, ended := brief(t)
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			res, err := agent.Client(t, true).Do(agent.Request(ctx, t, target))
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			if res.StatusCode != http.StatusOK {
				t.Fatal(res.Status)
			}
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("it ended as if it were whole")
			}
			ended()
			end, _ := agent.Recorded(t, res.Header.Get("Audit-Id")).End(res.Header.Get("Audit-Id"))
			if why := end.Annotations["sallyport.io/error"]; !strings.Contains(why, "token expired") {
				t.Errorf("the record says %q, not why it was cut", why)
			}
		})
	}
	for i := range 6 { // more than one: what ends it must not depend on who is first to hear of it
		t.Run(fmt.Sprint("exec ", i), func(t *testing.T) {
			t.Parallel()
			agent, ended := brief(t)
			w := agent.Start(t, "exec", "-n", "dev", s.Pod(t, "dev"), "--", "sh", "-c", "echo open; sleep 20")
			w.Await("open", within)
			if code := w.Ended(within); code == 0 {
				t.Errorf("exec ended as if the command had ended with 0:\n%s", w.Text())
			}
			ended()
			stacktest.Eventually(t, within, func() string {
				for _, e := range agent.Recorded(t).Events {
					if e.Verb == "exec" && e.Stage == auditv1.StageResponseComplete {
						if why := e.Annotations["sallyport.io/error"]; !strings.Contains(why, "token expired") {
							t.Errorf("the record says %q, not why it was cut", why)
						}
						return ""
					}
				}
				return "the end of exec is not in the record"
			})
		})
	}
}
