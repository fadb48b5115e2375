package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const (
	// tokenVariable holds the reviewer's token; reviewsVariable says where the reviews API is.
	tokenVariable   = "SALLYPORT_TOKEN"
	reviewsVariable = "SALLYPORT_REVIEWS"

	maxAnswer = 8 << 20 // bytes of an answer of the reviews API
)

// reviews are the flags that every command has which speaks with the reviews API.
type reviews struct {
	env       environment
	profile   string
	url       string
	tokenFile string
}

func reviewsFlags(env environment, fs *flag.FlagSet) *reviews {
	r := &reviews{env: env}
	fs.StringVar(&r.url, "reviews", "", "the `URL` of the review pages; by default $"+reviewsVariable+", or the profile's reviews_url")
	fs.StringVar(&r.profile, "profile", "", "a JSON `FILE` that says where things are; by default $"+profileVariable+", or the local stack's")
	fs.StringVar(&r.tokenFile, "token-file", "", "a `FILE` with your own token, for when $"+tokenVariable+" has none")
	return r
}

// A desk is the reviews API as one reviewer sees it. It sends their token, to that place alone.
type desk struct {
	base  string
	token string
	http  *http.Client
}

func (r *reviews) desk() (*desk, error) {
	base, err := r.place()
	if err != nil {
		return nil, err
	}
	token, err := r.token()
	if err != nil {
		return nil, err
	}
	return &desk{base: base, token: token, http: &http.Client{
		Timeout: 30 * time.Second,
		// A redirect would take the token elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// place is where the API is.
func (r *reviews) place() (string, error) {
	base, from := r.url, "--reviews"
	if base == "" {
		base, from = r.env.getenv(reviewsVariable), reviewsVariable
	}
	const how = "name the place of the review pages with --reviews URL, " + reviewsVariable + " or reviews_url in the profile"
	if base == "" {
		file, err := (&place{env: r.env, profile: r.profile}).file()
		if err != nil {
			return "", hint(errors.New("nothing says where the review pages are"), how)
		}
		prof, err := parseProfile(file)
		if err != nil {
			return "", err
		}
		if prof.ReviewsURL == "" {
			return "", hint(fmt.Errorf("profile %s has no reviews_url", file), how)
		}
		base, from = prof.ReviewsURL, "reviews_url of profile "+file
	}
	u, err := url.Parse(base)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", usageError("such as https://reviews.example.com", "%s is no http or https URL", from)
	case u.Scheme == "http" && !loopback(u.Hostname()):
		return "", usageError("use https: your token goes there", "%s is http, and not on this machine", from)
	}
	return strings.TrimRight(base, "/"), nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()
}

// token is the reviewer's own. It is never printed.
func (r *reviews) token() (string, error) {
	token := strings.TrimSpace(r.env.getenv(tokenVariable))
	from := tokenVariable
	if token == "" {
		if r.tokenFile == "" {
			return "", hint(errors.New("no token says who you are"), "put your own token of the issuer that the policy names for reviewers into %s, or name a file of it with --token-file FILE", tokenVariable)
		}
		text, err := os.ReadFile(r.tokenFile)
		if err != nil {
			var reason *fs.PathError
			if errors.As(err, &reason) {
				err = reason.Err
			}
			return "", hint(fmt.Errorf("reading the token file %s: %w", r.tokenFile, err), "name another with --token-file FILE, or set %s", tokenVariable)
		}
		token, from = strings.TrimSpace(string(text)), "the token file "+r.tokenFile
	}
	if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", hint(fmt.Errorf("%s holds no token", from), "a token is one word, such as eyJhbGciOi…")
	}
	return token, nil
}

// call asks the API and decodes its answer into out.
func (d *desk) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, d.base+path, body)
	if err != nil {
		return fmt.Errorf("asking the reviews API: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+d.token)
	req.Header.Set("Accept", "application/json")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := d.http.Do(req)
	if err != nil {
		var u *url.Error
		if errors.As(err, &u) {
			err = u.Err // the URL is said already
		}
		return hint(fmt.Errorf("asking the reviews API at %s: %w", d.base, err), "check that the place is right and can be reached; nothing is known to have been decided")
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil || len(text) > maxAnswer {
		return hint(fmt.Errorf("reading the answer of the reviews API: %w", errors.Join(err, errors.New("it is cut or too long"))), "sallyport approvals show ID tells what was decided")
	}
	if res.StatusCode != http.StatusOK {
		return refusal(res.StatusCode, text)
	}
	if err := json.Unmarshal(text, out); err != nil {
		return hint(errors.New("the reviews API answered with something else than JSON"), "check that %s is the place of the review pages", d.base)
	}
	return nil
}

// refusal is the error that the API answered with, in its own words.
func refusal(code int, text []byte) error {
	var e struct {
		Error, Message, Hint string
	}
	if json.Unmarshal(text, &e) != nil || e.Message == "" {
		return hint(fmt.Errorf("the reviews API answered %d %s", code, http.StatusText(code)), "check that the place of the review pages is right; the operator finds more in the log of function callback")
	}
	if e.Hint == "" {
		e.Hint = "sallyport approvals list shows what waits for an answer"
	}
	return hint(errors.New(e.Message), "%s", e.Hint)
}
