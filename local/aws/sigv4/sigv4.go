// Package sigv4 checks AWS Signature Version 4: the receiving side of what the SDKs only write.
//
// It promises that a request passes only if whoever made it knew the secret of the access key it names, and that method,
// path, query, every signed header and the body are the ones that were signed, for this service, this region and about
// this moment. It is used by the local STS, so what it lets through wrongly makes the local gate look safer than it is,
// not the deployed one: in AWS this is AWS's work.
//
// It does not promise freshness within the window: like AWS's, a signature can be replayed until it is too old. Chunked
// and unsigned payloads and SigV4A are not spoken, nor is S3's single encoding of the path.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	algorithm  = "AWS4-HMAC-SHA256"
	timeFormat = "20060102T150405Z"
	// window is how far a request's date may be from ours, both ways.
	window = 15 * time.Minute
)

// Error is a refusal in AWS's words.
type Error struct {
	Code    string // such as SignatureDoesNotMatch
	Message string
	Status  int // HTTP
}

func (e *Error) Error() string { return e.Code + ": " + e.Message }

func refuse(status int, code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...), Status: status}
}

func mismatch(format string, args ...any) *Error {
	return refuse(http.StatusForbidden, "SignatureDoesNotMatch", format, args...)
}

func incomplete(format string, args ...any) *Error {
	return refuse(http.StatusBadRequest, "IncompleteSignature", format, args...)
}

// Scope is what a credential is limited to: AKID/20060102/us-east-1/sts/aws4_request.
type Scope struct {
	AccessKeyID string
	Date        string
	Region      string
	Service     string
}

func parseScope(s string) (Scope, bool) {
	p := strings.Split(s, "/")
	if len(p) != 5 || p[4] != "aws4_request" || slices.Contains(p, "") {
		return Scope{}, false
	}
	return Scope{AccessKeyID: p[0], Date: p[1], Region: p[2], Service: p[3]}, true
}

func (s Scope) String() string {
	return strings.Join([]string{s.Date, s.Region, s.Service, "aws4_request"}, "/")
}

// ScopeOf reads the credential scope a request claims, without checking anything: it tells services apart, and is no proof.
func ScopeOf(r *http.Request) (Scope, bool) {
	if h := r.Header.Get("Authorization"); h != "" {
		f, err := fields(h)
		if err != nil {
			return Scope{}, false
		}
		return parseScope(f["Credential"])
	}
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return Scope{}, false
	}
	return parseScope(q.Get("X-Amz-Credential"))
}

// Signature is what a request says about how it was signed. Nothing in it is proven until Verify returns nil.
type Signature struct {
	Scope     Scope
	Time      time.Time
	Token     string // session token, "" for long-term credentials
	Presigned bool   // signed in the query

	signed    []string
	signature string
}

// Parse reads the signature of r from its Authorization header or its query, exactly one of them.
func Parse(r *http.Request) (*Signature, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, incomplete("the query cannot be read")
	}
	auth := r.Header.Values("Authorization")
	presigned := q.Has("X-Amz-Signature") || q.Has("X-Amz-Credential") || q.Has("X-Amz-Algorithm")
	switch {
	case len(auth) == 0 && !presigned:
		return nil, refuse(http.StatusForbidden, "MissingAuthenticationToken", "Request is missing Authentication Token")
	case len(auth) > 1, len(auth) == 1 && presigned:
		return nil, incomplete("the request is signed more than once")
	}

	var credential, signed, date string
	s := &Signature{Presigned: presigned}
	if presigned {
		for k, v := range q {
			if strings.HasPrefix(strings.ToLower(k), "x-amz-") && len(v) != 1 {
				return nil, incomplete("query parameter %q must have one value", k)
			}
		}
		if got := q.Get("X-Amz-Algorithm"); got != algorithm {
			return nil, incomplete("unsupported algorithm %q", got)
		}
		// STS ignores how long the signer wanted the URL to live: it is good for as long as any signature is.
		// aws-iam-authenticator's tokens rest on that; they say 60 s and live 15 minutes.
		if e := q.Get("X-Amz-Expires"); e != "" {
			if n, err := strconv.Atoi(e); err != nil || n < 0 || n > 7*24*60*60 {
				return nil, refuse(http.StatusBadRequest, "AuthorizationQueryParametersError", "X-Amz-Expires must be a number of seconds of a week at most")
			}
		}
		credential, signed, date = q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Date")
		s.signature, s.Token = q.Get("X-Amz-Signature"), q.Get("X-Amz-Security-Token")
	} else {
		f, err := fields(auth[0])
		if err != nil {
			return nil, err
		}
		credential, signed, date = f["Credential"], f["SignedHeaders"], r.Header.Get("X-Amz-Date")
		s.signature, s.Token = f["Signature"], r.Header.Get("X-Amz-Security-Token")
	}
	var ok bool
	if s.Scope, ok = parseScope(credential); !ok {
		return nil, incomplete("Credential must have five parts: key, date, region, service, aws4_request")
	}
	if s.Time, err = time.Parse(timeFormat, date); err != nil {
		return nil, incomplete("Date must be in ISO-8601 'basic format'")
	}
	if s.Scope.Date != s.Time.Format("20060102") {
		return nil, mismatch("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	}
	s.signed = strings.Split(signed, ";")
	if !slices.IsSorted(s.signed) || signed != strings.ToLower(signed) || len(slices.Compact(slices.Clone(s.signed))) != len(s.signed) {
		return nil, incomplete("SignedHeaders must be lower case, sorted and unique")
	}
	if !slices.Contains(s.signed, "host") {
		return nil, mismatch("'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	if !presigned {
		// What the signature is judged by must be under it.
		for _, h := range []string{"x-amz-date", "x-amz-security-token", "x-amz-target"} {
			if len(r.Header.Values(h)) > 0 && !slices.Contains(s.signed, h) {
				return nil, mismatch("%q must be a 'SignedHeader' in the AWS Authorization.", h)
			}
		}
	}
	return s, nil
}

// fields splits an Authorization header: AWS4-HMAC-SHA256 Credential=…, SignedHeaders=…, Signature=…
func fields(h string) (map[string]string, error) {
	rest, ok := strings.CutPrefix(h, algorithm+" ")
	if !ok {
		return nil, incomplete("Authorization header requires %s", algorithm)
	}
	f := map[string]string{}
	for kv := range strings.SplitSeq(rest, ",") {
		k, v, ok := strings.Cut(strings.TrimSpace(kv), "=")
		if _, twice := f[k]; !ok || twice {
			return nil, incomplete("Authorization header cannot be read")
		}
		f[k] = v
	}
	for _, k := range []string{"Credential", "SignedHeaders", "Signature"} {
		if f[k] == "" {
			return nil, incomplete("Authorization header requires '%s' parameter.", k)
		}
	}
	return f, nil
}

// Verify reports whether r with this body was signed with secret for the service and region, at about now.
func (s *Signature) Verify(r *http.Request, body []byte, secret, service, region string, now time.Time) error {
	if s.Scope.Service != service {
		return mismatch("Credential should be scoped to correct service: '%s'.", service)
	}
	if s.Scope.Region != region {
		return mismatch("Credential should be scoped to a valid region.")
	}
	if t := now.Add(-window); s.Time.Before(t) {
		return mismatch("Signature expired: %s is now earlier than %s (%s - 15 min.)",
			s.Time.Format(timeFormat), t.UTC().Format(timeFormat), now.UTC().Format(timeFormat))
	}
	if t := now.Add(window); s.Time.After(t) {
		return mismatch("Signature not yet current: %s is still later than %s (%s + 15 min.)",
			s.Time.Format(timeFormat), t.UTC().Format(timeFormat), now.UTC().Format(timeFormat))
	}
	want, err := s.compute(r, body, secret)
	if err != nil {
		return err
	}
	got, err := hex.DecodeString(s.signature)
	if err != nil || !hmac.Equal(got, want) {
		return mismatch("The request signature we calculated does not match the signature you provided. " +
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

func (s *Signature) compute(r *http.Request, body []byte, secret string) ([]byte, error) {
	query, err := s.canonicalQuery(r.URL.RawQuery)
	if err != nil {
		return nil, err
	}
	path := r.URL.EscapedPath()
	if path == "" {
		path = "/"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\n%s\n", r.Method, escape(path, "/"), query)
	for _, h := range s.signed {
		v, err := header(r, h)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(&b, "%s:%s\n", h, v)
	}
	// The hash is taken of the bytes that came, whatever X-Amz-Content-Sha256 claims.
	sum := sha256.Sum256(body)
	fmt.Fprintf(&b, "\n%s\n%x", strings.Join(s.signed, ";"), sum)

	request := sha256.Sum256([]byte(b.String()))
	text := strings.Join([]string{algorithm, s.Time.Format(timeFormat), s.Scope.String(), hex.EncodeToString(request[:])}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.Scope.Date, s.Scope.Region, s.Scope.Service, "aws4_request", text} {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(part))
		key = m.Sum(nil)
	}
	return key, nil
}

func (s *Signature) canonicalQuery(raw string) (string, error) {
	q, err := url.ParseQuery(raw)
	if err != nil {
		return "", incomplete("the query cannot be read")
	}
	if s.Presigned {
		q.Del("X-Amz-Signature")
	}
	type pair struct{ k, v string }
	var pairs []pair
	for k, vs := range q {
		for _, v := range vs {
			pairs = append(pairs, pair{escape(k, ""), escape(v, "")})
		}
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		if c := strings.Compare(a.k, b.k); c != 0 {
			return c
		}
		return strings.Compare(a.v, b.v)
	})
	var b strings.Builder
	for i, p := range pairs {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.k + "=" + p.v)
	}
	return b.String(), nil
}

func header(r *http.Request, name string) (string, error) {
	if name == "host" {
		return r.Host, nil // net/http keeps it out of Header
	}
	vs := r.Header.Values(name)
	if len(vs) == 0 {
		if name == "content-length" && r.ContentLength >= 0 {
			return strconv.FormatInt(r.ContentLength, 10), nil
		}
		return "", mismatch("signed header %q is missing from the request", name)
	}
	out := make([]string, len(vs))
	for i, v := range vs {
		out[i] = strings.Join(strings.Fields(v), " ")
	}
	return strings.Join(out, ","), nil
}

// escape is RFC 3986's: everything but unreserved characters and those in keep.
func escape(s, keep string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("-._~"+keep, c) >= 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
