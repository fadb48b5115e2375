package stream_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/httpstream/wsstream"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"sallyport/proxy/mask/stream"
)

// command is what runs in the container.
type command func(in io.Reader, out, errOut io.Writer) error

// serve is exec as the API server and the kubelet have it, with the code they have for it and without what is behind.
func (f command) serve(w http.ResponseWriter, r *http.Request) {
	channels := []wsstream.ChannelType{wsstream.ReadChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadChannel}
	conn := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		"v5.channel.k8s.io": {Binary: true, Channels: channels},
		"v4.channel.k8s.io": {Binary: true, Channels: channels},
	})
	conn.SetIdleTimeout(time.Minute)
	_, streams, err := conn.Open(w, r)
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = streams[1].Write(nil)
	status := metav1.Status{Status: metav1.StatusSuccess}
	if err := f(streams[0], streams[1], streams[2]); err != nil {
		status = metav1.Status{Status: metav1.StatusFailure, Message: err.Error()}
		var exit exec.CodeExitError
		if errors.As(err, &exit) {
			status.Reason = "NonZeroExitCode"
			status.Details = &metav1.StatusDetails{Causes: []metav1.StatusCause{{Type: "ExitCode", Message: strconv.Itoa(exit.Code)}}}
		}
	}
	b, _ := json.Marshal(status)
	_, _ = streams[3].Write(b)
}

// cluster is exec of a command behind a proxy that masks.
func cluster(t *testing.T, f command, opt stream.Options) string {
	t.Helper()
	api := httptest.NewServer(http.HandlerFunc(f.serve))
	t.Cleanup(api.Close)
	to, _ := url.Parse(api.URL)
	gate := httptest.NewServer(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(to) },
		ModifyResponse: func(res *http.Response) error {
			if res.StatusCode != http.StatusSwitchingProtocols {
				return nil
			}
			if res.Header.Get("Sec-Websocket-Extensions") != "" {
				return errors.New("an extension")
			}
			res.Body = stream.WebSocket(res.Body.(io.ReadWriteCloser), res.Header.Get("Sec-Websocket-Protocol"), opt)
			return nil
		},
	})
	t.Cleanup(gate.Close)
	return gate.URL
}

func run(t *testing.T, base, protocol string, in io.Reader) (stdout, stderr string, err error) {
	t.Helper()
	e, err := remotecommand.NewWebSocketExecutorForProtocols(&rest.Config{Host: base}, "GET", base+"/exec", protocol)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out, errOut bytes.Buffer
	err = e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Stderr: &errOut})
	return out.String(), errOut.String(), err
}

var versions = []string{"v5.channel.k8s.io", "v4.channel.k8s.io"}

// client-go gets the output of a command with its secrets masked, however it was written, and how the command ended.
func TestClient(t *testing.T) {
	base := cluster(t, func(_ io.Reader, out, errOut io.Writer) error {
		for _, part := range []string{"begin ", canary[:9], canary[9:30], canary[30:], " end\n"} {
			if _, err := io.WriteString(out, part); err != nil {
				return err
			}
			time.Sleep(2 * time.Millisecond)
		}
		_, _ = io.WriteString(errOut, "on stderr: "+canary+"\n")
		return exec.CodeExitError{Err: errors.New("command " + canary + " failed"), Code: 7}
	}, stream.Options{Set: canaries(t)})
	for _, v := range versions {
		out, errOut, err := run(t, base, v, nil)
		var exit exec.CodeExitError
		if !errors.As(err, &exit) || exit.Code != 7 {
			t.Errorf("%s: %v, want exit code 7", v, err)
		}
		if out != "begin "+mark+" end\n" || errOut != "on stderr: "+mark+"\n" {
			t.Errorf("%s: %q, %q", v, out, errOut)
		}
	}
}

// What fails before it runs says why, with no secret in the sentence.
func TestClientError(t *testing.T) {
	base := cluster(t, func(io.Reader, io.Writer, io.Writer) error { return errors.New("no runtime for " + canary) }, stream.Options{Set: canaries(t)})
	for _, v := range versions {
		if _, _, err := run(t, base, v, nil); err == nil || !strings.Contains(err.Error(), "no runtime for "+mark) {
			t.Errorf("%s: %v", v, err)
		}
	}
}

// Large output arrives whole, text and an archive both.
func TestClientLarge(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 7))
	page := text(rnd, 10_000)
	for name, data := range map[string][]byte{
		"text":    []byte(strings.Repeat(page, 200)),
		"archive": bytes.Repeat(slices.Concat([]byte("name"), make([]byte, 508), []byte(canary), make([]byte, 473)), 2000),
	} {
		base := cluster(t, func(_ io.Reader, out, _ io.Writer) error {
			_, err := out.Write(data)
			return err
		}, stream.Options{Set: canaries(t)})
		for _, v := range versions {
			out, _, err := run(t, base, v, nil)
			if err != nil || sha256.Sum256([]byte(out)) != sha256.Sum256(data) {
				t.Errorf("%s, %s: %d bytes of %d, %v", name, v, len(out), len(data), err)
			}
		}
	}
}

// Input passes, its end too, and an answer comes while the command waits for more.
func TestClientInput(t *testing.T) {
	base := cluster(t, func(in io.Reader, out, _ io.Writer) error {
		_, _ = io.WriteString(out, "? "+canary[:12]) // held back until silence
		b, err := io.ReadAll(in)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(out, "|got %d bytes\n", len(b))
		return err
	}, stream.Options{Set: canaries(t)})
	r, w := io.Pipe()
	go func() {
		time.Sleep(300 * time.Millisecond)
		_, _ = io.WriteString(w, canary)
		w.Close()
	}()
	out, _, err := run(t, base, "v5.channel.k8s.io", r) // in version 4 input has no end
	if want := fmt.Sprintf("? %s|got %d bytes\n", canary[:12], len(canary)); err != nil || out != want {
		t.Errorf("%q, %v, want %q", out, err, want)
	}
}

// Where output that is no text is refused, client-go says so.
func TestClientBlocked(t *testing.T) {
	base := cluster(t, func(_ io.Reader, out, _ io.Writer) error {
		_, err := out.Write([]byte("\x7fELF\x00\x00"))
		return err
	}, stream.Options{Set: canaries(t), Block: true})
	for _, v := range versions {
		if out, _, err := run(t, base, v, nil); err == nil || !strings.Contains(err.Error(), "not text") || strings.Contains(out, "\x00") {
			t.Errorf("%s: %q, %v", v, out, err)
		}
	}
}
