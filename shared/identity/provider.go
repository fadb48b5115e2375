package identity

import (
	"context"
	"crypto/x509"
	"fmt"
	"net/http"
	"strings"

	"sallyport/shared/access"
)

// A Provider is where an issuer's people log in.
type Provider struct {
	Authorization string // where a browser is sent: its authorization_endpoint
	Token         string // where a code becomes a token: its token_endpoint
	// Iss is true when its answers to a browser name it (RFC 9207 §3): one that does not is another's.
	Iss bool
	// Client reaches the token endpoint, under the rules of a [Fetcher]: no address that such an issuer cannot be at.
	Client *http.Client
}

// Discover reads where an issuer's people log in from its discovery document (OpenID Connect Discovery §4), as a
// [Fetcher] would. Roots are the certificate authorities its server is verified with; nil means the system's. The error
// is of kind unavailable.
func Discover(ctx context.Context, issuer access.Issuer, roots *x509.CertPool) (Provider, error) {
	p := Provider{Client: client(FetcherConfig{Roots: roots}, issuer.Private)}
	fail := func(err error) (Provider, error) {
		return Provider{}, access.Errorf(access.Unavailable, "where to log in at issuer %s cannot be found out; try again, or tell who runs the gate", short(issuer.URL)).Because(err)
	}
	if err := checkURL(issuer.URL, issuer.Private); err != nil {
		return fail(err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	data, err := get(ctx, p.Client, strings.TrimSuffix(issuer.URL, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return fail(err)
	}
	document, err := object(data)
	if err != nil {
		return fail(fmt.Errorf("the document %w", err))
	}
	// §4.3: the document must be the issuer's own, or one issuer could speak for another.
	if said, _ := text(document["issuer"]); said != issuer.URL {
		return fail(fmt.Errorf("the document is that of issuer %s", short(said)))
	}
	p.Authorization, _ = text(document["authorization_endpoint"])
	p.Token, _ = text(document["token_endpoint"])
	p.Iss = string(document["authorization_response_iss_parameter_supported"]) == "true"
	// Only a browser is sent to the authorization endpoint, which may have a query (RFC 6749 §3.1).
	page, _, _ := strings.Cut(p.Authorization, "?")
	if err := checkURL(page, issuer.Private); err != nil {
		return fail(fmt.Errorf("its authorization_endpoint %s: %w", short(p.Authorization), err))
	}
	if err := checkURL(p.Token, issuer.Private); err != nil {
		return fail(fmt.Errorf("its token_endpoint %s: %w", short(p.Token), err))
	}
	return p, nil
}
