// Package issuer is the OIDC provider of the local stack: discovery, keys that rotate on command, tokens on demand, and a
// login page for people's browsers (authorization code with PKCE).
//
// It gives a token with any claims to whoever can read its directory, and one with any e-mail address to whoever opens its
// login page, which is what it is for; so it belongs on one machine, its keys are files that only their owner may read,
// it sends a browser nowhere but to this machine, and nothing in AWS trusts it.
//
// All of its state is two files in a directory, written by renaming, so that tokens are minted without the server
// running and the server sees what another process rotated. Codes of logins under way are in the server's memory.
package issuer

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Algorithms are those the issuer signs with, the first by default. It has a key for each.
var Algorithms = []string{"ES256", "RS256"}

const (
	keysFile     = "keys.json"   // a JWK Set of private keys; of each algorithm the first one signs
	settingsFile = "issuer.json" // URL and audience, for who mints without the server
)

// Config is what an Issuer is made from.
type Config struct {
	// Dir is the directory its state is kept in; it is made if it is not there.
	Dir string
	// URL is its iss and where its handler is served, without a slash at the end.
	URL string
	// Audience is the aud of its tokens unless they ask for another.
	Audience string
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// An Issuer is the provider. It is safe for concurrent use, also by several processes on one directory.
type Issuer struct {
	dir string
	now func() time.Time
	settings

	mu    sync.Mutex
	raw   []byte // the keys file as it was last read
	keys  []jose.JSONWebKey
	codes map[string]grant // authorization codes that were not used
}

type settings struct {
	URL      string `json:"url"`
	Audience string `json:"audience"`
}

// New returns the issuer whose state is in a directory, and makes its keys if it has none.
func New(c Config) (*Issuer, error) {
	if c.Dir == "" || c.URL == "" || c.Audience == "" {
		return nil, errors.New("an issuer needs a directory, a URL and an audience")
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the issuer's directory: %w", err)
	}
	i := &Issuer{dir: c.Dir, now: c.Now, codes: map[string]grant{}, settings: settings{URL: c.URL, Audience: c.Audience}}
	if i.now == nil {
		i.now = time.Now
	}
	err := i.locked(func() error {
		if _, err := os.Stat(i.path(keysFile)); errors.Is(err, os.ErrNotExist) {
			if err := i.rotate(true); err != nil {
				return err
			}
		}
		data, err := json.MarshalIndent(i.settings, "", "  ")
		if err != nil {
			return err
		}
		return i.write(settingsFile, append(data, '\n'))
	})
	if err != nil {
		return nil, err
	}
	_, err = i.load()
	return i, err
}

// Open returns the issuer that New made in a directory.
func Open(dir string) (*Issuer, error) {
	data, err := os.ReadFile(filepath.Join(dir, settingsFile))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("there is no issuer in %s; start the local stack first", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the issuer's settings: %w", err)
	}
	var s settings
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("reading the issuer's settings: %w", err)
	}
	i := &Issuer{dir: dir, now: time.Now, codes: map[string]grant{}, settings: s}
	_, err = i.load()
	return i, err
}

// Rotate makes new keys and signs with them from now on. Tokens signed with the ones they replace still verify, until
// the next rotation; with drop, the old ones are gone at once.
func (i *Issuer) Rotate(drop bool) error {
	return i.locked(func() error { return i.rotate(drop) })
}

// rotate is Rotate under the lock.
func (i *Issuer) rotate(drop bool) error {
	var set jose.JSONWebKeySet
	for _, alg := range Algorithms {
		k, err := generate(alg)
		if err != nil {
			return fmt.Errorf("making a key for %s: %w", alg, err)
		}
		set.Keys = append(set.Keys, k)
	}
	if !drop {
		old, err := i.load()
		if err != nil {
			return err
		}
		for _, alg := range Algorithms {
			if n := slices.IndexFunc(old, func(k jose.JSONWebKey) bool { return k.Algorithm == alg }); n >= 0 {
				set.Keys = append(set.Keys, old[n])
			}
		}
	}
	data, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return err
	}
	return i.write(keysFile, append(data, '\n'))
}

func generate(alg string) (jose.JSONWebKey, error) {
	k := jose.JSONWebKey{Algorithm: alg, Use: "sig"}
	var err error
	switch alg {
	case "ES256":
		k.Key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "RS256":
		k.Key, err = rsa.GenerateKey(rand.Reader, 2048)
	}
	if err != nil {
		return k, err
	}
	thumbprint, err := k.Thumbprint(crypto.SHA256) // RFC 7638: the key's own name, never used twice
	k.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	return k, err
}

// load returns the keys as they are in the file now; of each algorithm the first one signs.
func (i *Issuer) load() ([]jose.JSONWebKey, error) {
	data, err := os.ReadFile(i.path(keysFile))
	if err != nil {
		return nil, fmt.Errorf("reading the issuer's keys: %w", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if bytes.Equal(data, i.raw) {
		return i.keys, nil
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("reading the issuer's keys: %w", err)
	}
	i.raw, i.keys = data, set.Keys
	return i.keys, nil
}

func (i *Issuer) path(name string) string { return filepath.Join(i.dir, name) }

// write replaces a file as a whole; readers see the old one or the new one.
func (i *Issuer) write(name string, data []byte) error {
	f, err := os.CreateTemp(i.dir, "."+name+"-*") // made with mode 0600
	if err != nil {
		return fmt.Errorf("writing the issuer's %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the issuer's %s: %w", name, err)
	}
	return os.Rename(f.Name(), i.path(name))
}

// locked runs f while no other process changes the directory.
func (i *Issuer) locked(f func() error) error {
	lock, err := os.OpenFile(i.path(".lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("locking the issuer's directory: %w", err)
	}
	defer lock.Close() // unlocks
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return fmt.Errorf("locking the issuer's directory: %w", err)
	}
	return f()
}

// Claims are what a token says beside iss, iat, nbf and jti.
type Claims struct {
	Subject  string
	Audience string        // empty means the issuer's
	Groups   []string      // no groups claim when empty
	Expires  time.Duration // from now; zero means ten minutes, negative makes a token that is expired
	// Extra are further claims. One that the token has anyway is replaced: a test may want any token.
	Extra     map[string]any
	Algorithm string // empty means the first of Algorithms
}

// Mint returns a signed token.
func (i *Issuer) Mint(c Claims) (string, error) {
	keys, err := i.load()
	if err != nil {
		return "", err
	}
	if c.Algorithm == "" {
		c.Algorithm = Algorithms[0]
	}
	n := slices.IndexFunc(keys, func(k jose.JSONWebKey) bool { return k.Algorithm == c.Algorithm })
	if n < 0 {
		return "", fmt.Errorf("no key for algorithm %q; the local issuer signs with %s", c.Algorithm, strings.Join(Algorithms, " and "))
	}
	if c.Subject == "" {
		return "", errors.New("a token needs a subject")
	}
	if c.Audience == "" {
		c.Audience = i.Audience
	}
	if c.Expires == 0 {
		c.Expires = 10 * time.Minute
	}
	now := i.now()
	issued, expires := now, now.Add(c.Expires)
	if !expires.After(now) {
		issued = expires.Add(-10 * time.Minute) // it was good once
	}
	claims := map[string]any{
		"iss": i.URL, "sub": c.Subject, "aud": c.Audience, "jti": rand.Text(),
		"iat": issued.Unix(), "nbf": issued.Unix(), "exp": expires.Unix(),
	}
	if len(c.Groups) > 0 {
		claims["groups"] = c.Groups
	}
	maps.Copy(claims, c.Extra)
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("writing the token's claims: %w", err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(c.Algorithm), Key: keys[n]},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("signing the token: %w", err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("signing the token: %w", err)
	}
	return signed.CompactSerialize()
}

// Handler serves the issuer:
//
//	GET  /.well-known/openid-configuration   the discovery document
//	GET  /jwks                               the public keys
//	GET  /authorize                          the login page; it posts to itself
//	POST /token                              a code for an ID token
//	POST /rotate                             new keys; ?drop=1 drops the old ones at once. Loopback only.
func (i *Issuer) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, r *http.Request) {
		answer(w, "public, max-age=60", map[string]any{
			"issuer":                                i.URL,
			"jwks_uri":                              i.URL + "/jwks",
			"authorization_endpoint":                i.URL + "/authorize",
			"token_endpoint":                        i.URL + "/token",
			"response_types_supported":              []string{"code"},
			"response_modes_supported":              []string{"query"},
			"grant_types_supported":                 []string{"authorization_code"},
			"scopes_supported":                      []string{"openid", "email"},
			"code_challenge_methods_supported":      []string{"S256"},
			"token_endpoint_auth_methods_supported": []string{"none"},
			"subject_types_supported":               []string{"public"},
			"id_token_signing_alg_values_supported": Algorithms,
			"claims_supported":                      []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "auth_time", "nonce", "groups", "email", "email_verified"},
		})
	})
	mux.HandleFunc("GET /jwks", func(w http.ResponseWriter, r *http.Request) {
		keys, err := i.load()
		if err != nil {
			http.Error(w, "the issuer's keys cannot be read", http.StatusInternalServerError)
			return
		}
		public := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
		for _, k := range keys {
			public.Keys = append(public.Keys, k.Public())
		}
		answer(w, "public, max-age=10", public)
	})
	sameOrigin := http.NewCrossOriginProtection() // a page open in a browser on this machine is on loopback, too
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.Handle("POST /authorize", sameOrigin.Handler(http.HandlerFunc(i.authorize)))
	mux.HandleFunc("POST /token", i.token)
	mux.HandleFunc("GET /login.css", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/css; charset=utf-8")
		_, _ = w.Write(loginCSS)
	})
	mux.Handle("POST /rotate", sameOrigin.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !loopback(r) {
			http.Error(w, "keys are rotated from this machine only", http.StatusForbidden)
			return
		}
		drop := r.URL.Query().Get("drop")
		if err := i.Rotate(drop == "1" || drop == "true"); err != nil {
			http.Error(w, "the issuer's keys cannot be rotated", http.StatusInternalServerError)
			return
		}
		keys, err := i.load()
		if err != nil {
			http.Error(w, "the issuer's keys cannot be read", http.StatusInternalServerError)
			return
		}
		ids := []string{}
		for _, k := range keys {
			ids = append(ids, k.KeyID)
		}
		answer(w, "no-store", map[string]any{"keys": ids})
	})))
	return mux
}

func answer(w http.ResponseWriter, cache string, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", cache)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	encode(w, v)
}

func encode(w http.ResponseWriter, v any) {
	_ = json.NewEncoder(w).Encode(v) // an error is the client gone
}

// loopback reports whether a request comes from this machine.
func loopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
