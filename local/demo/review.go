package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"
)

// A person is a browser in which somebody logged in, as far as a tour needs one: it follows links and posts forms.
type person struct {
	http *http.Client
	base string
}

var (
	formRE = regexp.MustCompile(`(?s)<form[^>]*method="post"[^>]*>.*?</form>`)
	tagRE  = regexp.MustCompile(`<(?:input|form)[^>]*>`)
	attrRE = regexp.MustCompile(`([a-z-]+)="([^"]*)"`)
	wordRE = regexp.MustCompile(`(?s)<style.*?</style>|<[^>]*>`)
)

// login goes through the issuer's login page.
func (t *tour) login(email string) (*person, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	p := &person{http: &http.Client{Jar: jar, Timeout: 20 * time.Second}, base: t.d.Reviews.URL}
	at, page, err := p.get(t.ctx, "/approvals")
	if err != nil {
		return nil, err
	}
	if err := p.post(t.ctx, at, page, `value="`+email+`"`, url.Values{"email": {email}}); err != nil {
		return nil, fmt.Errorf("logging in as %s: %w", email, err)
	}
	return p, nil
}

func (p *person) get(ctx context.Context, path string) (*url.URL, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return nil, "", err
	}
	return p.do(req)
}

func (p *person) do(req *http.Request) (*url.URL, string, error) {
	res, err := p.http.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err == nil && res.StatusCode >= http.StatusBadRequest {
		err = fmt.Errorf("%s: %s: %.300s", req.URL.Path, res.Status, words(string(b)))
	}
	return res.Request.URL, string(b), err
}

// post posts the form of a page that holds some text, with values put in.
func (p *person) post(ctx context.Context, at *url.URL, page, holds string, values url.Values) error {
	for _, form := range formRE.FindAllString(page, -1) {
		if !strings.Contains(form, holds) {
			continue
		}
		target := at
		for _, tag := range tagRE.FindAllString(form, -1) {
			attrs := map[string]string{}
			for _, a := range attrRE.FindAllStringSubmatch(tag, -1) {
				attrs[a[1]] = html.UnescapeString(a[2])
			}
			switch {
			case attrs["action"] != "":
				var err error
				if target, err = at.Parse(attrs["action"]); err != nil {
					return err
				}
			case attrs["type"] == "hidden" && !values.Has(attrs["name"]):
				values.Set(attrs["name"], attrs["value"])
			}
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(values.Encode()))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", target.Scheme+"://"+target.Host)
		_, _, err = p.do(req)
		return err
	}
	return fmt.Errorf("no form with %s on the page: %.300s", holds, words(page))
}

// words are what a page says.
func words(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(wordRE.ReplaceAllString(page, " "))), " ")
}

// find waits until the list of what waits has something about a name, and opens it.
func (p *person) find(ctx context.Context, about string) (*url.URL, string, error) {
	link := regexp.MustCompile(`href="(/approvals/[a-z0-9-]+)"[^>]*>[^<]*` + regexp.QuoteMeta(about))
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		_, page, err := p.get(ctx, "/approvals")
		if err != nil {
			return nil, "", err
		}
		waiting, _, _ := strings.Cut(page, `id="recent"`)
		if m := link.FindStringSubmatch(waiting); m != nil {
			return p.get(ctx, m[1])
		}
	}
	return nil, "", fmt.Errorf("nothing about %s waits for an answer", about)
}

// held is a kubectl that waits.
type held struct {
	mu   sync.Mutex
	out  bytes.Buffer
	done chan struct{}
	code int
	err  error
}

func (h *held) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.out.Write(b)
}

// start starts kubectl as the agent, through the gate.
func (t *tour) start(args ...string) (*held, error) {
	t.command(append([]string{"kubectl"}, args...)...)
	h := &held{done: make(chan struct{})}
	cmd := exec.CommandContext(t.ctx, filepath.Join(t.stack.Root, "bin", "kubectl"), args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = t.env(), t.dir, h, h
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(h.done)
		err := cmd.Wait()
		var exit *exec.ExitError
		switch {
		case errors.As(err, &exit):
			h.code = exit.ExitCode()
		default:
			h.err = err
		}
	}()
	return h, nil
}

// ended waits for its end.
func (t *tour) ended(h *held) (string, int, error) {
	select {
	case <-h.done:
	case <-time.After(30 * time.Second):
		return "", 0, errors.New("kubectl does not end")
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	t.mu.Lock()
	t.saw.Write(h.out.Bytes())
	t.mu.Unlock()
	return h.out.String(), h.code, h.err
}

// told waits until Slack and mail were both sent something about a name.
func (t *tour) told(about string) error {
	var sent string
	for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		var err error
		if sent, err = t.local("inbox", "--json"); err != nil {
			return err
		}
		if strings.Contains(sent, `"slack"`) && strings.Contains(sent, `"mail"`) && strings.Contains(sent, about) {
			return nil
		}
	}
	return fmt.Errorf("not both of Slack and mail were told: %.600s", sent)
}

func (t *tour) ask() error {
	ana, err := t.login("ana@example.com")
	if err != nil {
		return err
	}
	kubectl, err := t.start("delete", "pod", "-n", "dev", t.pod)
	if err != nil {
		return err
	}
	at, page, err := ana.find(t.ctx, "delete pod "+t.pod)
	if err != nil {
		return err
	}
	select {
	case <-kubectl.done:
		out, code, err := t.ended(kubectl)
		return fmt.Errorf("kubectl did not wait (exit %d, %w): %s", code, err, out)
	default:
	}
	fmt.Fprintf(t.out, "   kubectl waits. Ana opens %s, which says:\n", t.paint("36", strings.TrimSuffix(at.String(), "#decide")))
	if m := regexp.MustCompile(`(?s)<h1>(.*?)</h1>`).FindStringSubmatch(page); m != nil {
		t.show(words(m[1]), 1)
	}
	if m := regexp.MustCompile(`(?s)<pre class="command">(.*?)</pre>`).FindStringSubmatch(page); m != nil {
		t.show(words(m[1]), 1)
	}
	if err := t.told(t.pod); err != nil {
		return err
	}
	t.promise("Slack and each reviewer's mailbox have it too; the inbox at %s shows them", t.d.Reviews.Inbox)
	if out, code, err := t.admin("get", "pod", "-n", "dev", t.pod, "-o", "name"); err != nil || code != 0 {
		return fmt.Errorf("the pod is gone before anybody said yes (exit %d, %w): %s", code, err, out)
	}
	if err := ana.post(t.ctx, at, page, `value="approve"`, url.Values{}); err != nil {
		return err
	}
	fmt.Fprintf(t.out, "   She says yes.\n")
	out, code, err := t.ended(kubectl)
	if err := t.done(out, code, err, "deleted"); err != nil {
		return err
	}
	t.promise("the same kubectl process finished, with a credential that did not exist before she said yes")

	deleted := t.pod
	for deadline := time.Now().Add(30 * time.Second); t.pod == deleted; time.Sleep(200 * time.Millisecond) {
		out, _, err := t.admin("get", "pods", "-n", "dev", "-l", "app=web", "--field-selector=status.phase=Running", "-o", `jsonpath={range .items[*]}{.metadata.name}{"\n"}{end}`)
		if err != nil {
			return err
		}
		for _, pod := range strings.Fields(out) {
			if pod != deleted {
				t.pod = pod
			}
		}
		if time.Now().After(deadline) {
			return errors.New("no other pod runs")
		}
	}
	if kubectl, err = t.start("exec", "-n", "dev", t.pod, "--", "rm", "-rf", "/data"); err != nil {
		return err
	}
	if at, page, err = ana.find(t.ctx, "/data"); err != nil {
		return err
	}
	if !strings.Contains(words(page), "/data") {
		return fmt.Errorf("the page does not show the argv: %.600s", words(page))
	}
	if err := ana.post(t.ctx, at, page, `value="deny"`, url.Values{"reason": {"that volume is the only copy"}}); err != nil {
		return err
	}
	out, code, err = t.ended(kubectl)
	if err := t.refused(out, code, err, "that volume is the only copy"); err != nil {
		return err
	}
	t.promise("a no reaches the agent in the reviewer's words")
	return nil
}
