package main

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// What the pages' secret is used for. Each has a key of its own, so that what was sealed for one opens as nothing else.
const (
	forSession = "session" // who is logged in
	forLogin   = "login"   // a login that is under way
	forForm    = "form"    // that a form was made for the session that posts it
)

const (
	sessionFor  = time.Hour
	loginFor    = 10 * time.Minute
	maxCookie   = 4 << 10
	secretEvery = 10 * time.Minute // how long a secret is used before it is read again
)

// A keyring derives keys from the pages' secret.
type keyring struct {
	read func(context.Context) (string, error)
	now  func() time.Time

	mu     sync.Mutex
	secret []byte
	until  time.Time
}

// key is the key of one use. While the secret cannot be read again, the one that was read goes on.
func (k *keyring) key(ctx context.Context, use string) ([]byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now().Round(0)
	if left := k.until.Sub(now); k.secret == nil || left <= 0 || left > secretEvery {
		secret, err := k.fetch(ctx)
		switch {
		case err == nil:
			k.secret, k.until = secret, now.Add(secretEvery)
		case k.secret == nil:
			return nil, access.Errorf(access.Unavailable, "the pages' secret cannot be read, so nobody can log in; who runs the gate must look at SALLYPORT_PAGES_SECRET").Because(err)
		default:
			k.until = now.Add(time.Minute)
		}
	}
	return hkdf.Key(sha256.New, k.secret, nil, "sallyport pages "+use, 32)
}

func (k *keyring) fetch(ctx context.Context) ([]byte, error) {
	text, err := k.read(ctx)
	if err != nil {
		return nil, err
	}
	var in struct {
		Key string `json:"key"`
	}
	if err := json.Unmarshal([]byte(text), &in); err != nil {
		return nil, errors.New(`the secret is no JSON like {"key": "…"}`) // not err: it could quote the secret
	}
	if len(in.Key) < 32 {
		return nil, fmt.Errorf("the secret's key has %d bytes; 32 random ones or more are wanted", len(in.Key))
	}
	return []byte(in.Key), nil
}

// seal encrypts v for one use (RFC 7516: dir, A256GCM).
func (k *keyring) seal(ctx context.Context, use string, v any) (string, error) {
	key, err := k.key(ctx, use)
	if err != nil {
		return "", err
	}
	enc, err := jose.NewEncrypter(jose.A256GCM, jose.Recipient{Algorithm: jose.DIRECT, Key: key}, nil)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "", err
	}
	sealed, err := enc.Encrypt(text)
	if err != nil {
		return "", err
	}
	return sealed.CompactSerialize()
}

// open decrypts what seal encrypted for that use. Everything else is one error: what is wrong with it is nobody's business.
func (k *keyring) open(ctx context.Context, use, sealed string, v any) error {
	if len(sealed) > maxCookie {
		return errSeal
	}
	key, err := k.key(ctx, use)
	if err != nil {
		return err
	}
	object, err := jose.ParseEncryptedCompact(sealed, []jose.KeyAlgorithm{jose.DIRECT}, []jose.ContentEncryption{jose.A256GCM})
	if err != nil {
		return errSeal
	}
	text, err := object.Decrypt(key)
	if err != nil || json.Unmarshal(text, v) != nil {
		return errSeal
	}
	return nil
}

var errSeal = access.Errorf(access.Unauthenticated, "you are not logged in, or no longer")

// form is the token of the forms that are made for a session: it says nothing, and only who has the key makes it.
func (k *keyring) form(ctx context.Context, session string) (string, error) {
	key, err := k.key(ctx, forForm)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(session))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)), nil
}

// checkForm refuses a form that was not made for the session that posts it.
func (k *keyring) checkForm(ctx context.Context, session, token string) error {
	want, err := k.form(ctx, session)
	if err != nil {
		return err
	}
	if !hmac.Equal([]byte(want), []byte(token)) {
		return access.Errorf(access.Denied, "this form was not made for your login: it is from before you logged in again, or another site made it. Nothing was changed; open the page anew")
	}
	return nil
}

// A person is who is logged in, as their cookie says. It is a claim about the past: what they may do is looked up in the
// policy every time.
type person struct {
	Email    string    `json:"email"`
	Subject  string    `json:"sub"`
	Issuer   string    `json:"iss"`
	Audience string    `json:"aud"` // with Issuer: whose login it was
	Expires  time.Time `json:"exp"`
}

// A login is one that is under way, in the cookie of the browser that began it.
type login struct {
	State    string    `json:"state"`
	Nonce    string    `json:"nonce"`
	Verifier string    `json:"verifier"`
	Issuer   string    `json:"iss"`
	Audience string    `json:"aud"`
	Next     string    `json:"next"`
	Expires  time.Time `json:"exp"`
}

// cookieName has the prefix that makes browsers refuse the cookie from another host, or from plain http (RFC 6265bis
// §4.1.3.2), where there is https.
func (s *site) cookieName(use string) string {
	name := "sallyport-" + use
	if s.secure {
		return "__Host-" + name
	}
	return name
}

func (s *site) setCookie(ctx context.Context, w http.ResponseWriter, use string, v any, length time.Duration) error {
	sealed, err := s.keys.seal(ctx, use, v)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(use, sealed, int(length/time.Second)))
	return nil
}

func (s *site) dropCookie(w http.ResponseWriter, use string) {
	http.SetCookie(w, s.cookie(use, "", -1))
}

// cookie is Lax, not Strict: a link in a mail must find who is logged in, and the issuer leads back by a link.
func (s *site) cookie(use, value string, age int) *http.Cookie {
	return &http.Cookie{ //nolint:gosec // Secure wherever there is https; a browser refuses it without
		Name: s.cookieName(use), Value: value, Path: "/", MaxAge: age, Secure: s.secure, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// cookieOf is the value of a cookie that is there exactly once: of two, one is somebody else's.
func (s *site) cookieOf(r *http.Request, use string) string {
	all := r.CookiesNamed(s.cookieName(use))
	if len(all) != 1 {
		return ""
	}
	return all[0].Value
}
