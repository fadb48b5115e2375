package gate_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"sallyport/proxy/mask/masktest"
)

// An answer of any size takes the same memory, on its whole way.
func TestMemoryIsFlat(t *testing.T) {
	if testing.Short() {
		t.Skip("half a gigabyte, encrypted twice")
	}
	list := masktest.SecretList(1)
	var body io.Reader
	r := masking(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, body) })
	r.recorder.discard = true
	masktest.Flat(t, 500<<20, func(size int64, watch func(io.Reader) io.Reader) error {
		body = watch(masktest.Endless(size, string(list[0]), string(list[1])+",", string(list[1])+"]}"))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.URL+secrets, nil)
		if err != nil {
			return err
		}
		req.Header = good("bot")
		res, err := r.Client().Do(req)
		if err != nil {
			return err
		}
		defer res.Body.Close()
		if n, err := io.Copy(io.Discard, res.Body); err != nil || n < size/20 || res.StatusCode != http.StatusOK {
			return fmt.Errorf("%d, %d bytes: %w", res.StatusCode, n, err)
		}
		return nil
	})
}

// What the cluster said reaches the caller, masked, while the cluster has not said the rest.
func TestNothingWaitsForTheRest(t *testing.T) {
	item := func(n int) string {
		return fmt.Sprintf(`{"metadata":{"name":"s%d"},"data":{"password":"%s"}}`, n, hunter2)
	}
	event := func(n int) string { return `{"type":"ADDED","object":` + item(n) + "}\n" }
	for _, test := range []struct {
		name, path string
		parts      []string // what the cluster says: each when the one before has reached the caller
		ends       []string // what each ends with there
	}{
		{"a list", secrets, []string{`{"items":[` + item(1) + ",", item(2) + ",", item(3) + "]}"}, []string{"},", "},", "}]}"}},
		{"a list, its header", secrets, []string{"", `{"items":[]}`}, []string{"", "]}"}},
		{"a watch", secrets + "?watch=1", []string{event(1), event(2), event(3)}, []string{"}}\n", "}}\n", "}}\n"}},
		{"a log", "/clusters/dev/api/v1/namespaces/dev/pods/web/log", []string{"one\n", "two\n", "three\n"}, []string{"one\n", "two\n", "three\n"}},
		{"a log that is followed", "/clusters/dev/api/v1/namespaces/dev/pods/web/log?follow=true", []string{"one\n", "two\n", "three\n"}, []string{"one\n", "two\n", "three\n"}},
	} {
		for _, protocol := range []string{"HTTP/1.1", "HTTP/2.0"} {
			t.Run(test.name+"/"+protocol, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				arrived := make(chan struct{}, len(test.parts))
				r := masking(t, func(w http.ResponseWriter, _ *http.Request) {
					for i, part := range test.parts {
						_, _ = io.WriteString(w, part)
						if i == len(test.parts)-1 {
							return
						}
						_ = http.NewResponseController(w).Flush()
						select {
						case <-arrived:
						case <-ctx.Done():
							return
						}
					}
				})
				client := r.Client()
				if protocol == "HTTP/1.1" {
					client = http1(r)
				}
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, r.URL+test.path, nil)
				req.Header = good("bot")
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				if res.Proto != protocol || res.StatusCode != http.StatusOK {
					t.Fatalf("%s %s", res.Proto, res.Status)
				}
				var all []byte
				for i, end := range test.ends {
					var got []byte
					for b := make([]byte, 1<<10); !bytes.HasSuffix(got, []byte(end)); {
						n, err := res.Body.Read(b)
						if got = append(got, b[:n]...); err != nil && !bytes.HasSuffix(got, []byte(end)) {
							t.Fatalf("part %d: %q, %v", i, got, err)
						}
					}
					all = append(all, got...)
					arrived <- struct{}{}
				}
				if rest, err := io.ReadAll(res.Body); err != nil || len(rest) > 0 {
					t.Errorf("then %q, %v", rest, err)
				}
				if bytes.Contains(all, []byte(hunter2)) || strings.Contains(test.parts[0], hunter2) && !bytes.Contains(all, []byte("s1")) {
					t.Errorf("got %s", all)
				}
			})
		}
	}
}

// So does what a command prints.
func TestOutputDoesNotWaitForTheRest(t *testing.T) {
	arrived := make(chan struct{}, 3)
	r := newRig(t, func(w http.ResponseWriter, q *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n")
		for n := range 3 {
			_, _ = io.WriteString(c, output(fmt.Sprintf("line %d\n", n)))
			select {
			case <-arrived:
			case <-time.After(10 * time.Second):
				return
			}
		}
	})
	c, br := dial(t, r, execRequest+"Authorization: Bearer good:bot\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n\r\n")
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	if res, err := http.ReadResponse(br, nil); err != nil || res.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("got %+v, %v", res, err)
	}
	frames := bufio.NewReader(br)
	for n := range 3 {
		if got, err := frames.ReadString('\n'); err != nil || got != output(fmt.Sprintf("line %d\n", n)) {
			t.Fatalf("line %d: %q, %v", n, got, err)
		}
		arrived <- struct{}{}
	}
}
