package identity

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/go-jose/go-jose/v4"

	"sallyport/shared/access"
)

// checkIssuers refuses issuers that could not be trusted safely, whatever their tokens say.
func checkIssuers(issuers []access.Issuer) error {
	seen := map[string]bool{}
	for _, i := range issuers {
		if seen[i.URL] {
			return access.Errorf(access.Invalid, "issuer %q is listed twice; make it one entry", i.URL)
		}
		seen[i.URL] = true
		if _, err := trust(i); err != nil {
			return err
		}
	}
	return nil
}

// trust compiles an issuer.
func trust(i access.Issuer) (*trusted, error) {
	invalid := func(err error) (*trusted, error) {
		return nil, access.Errorf(access.Invalid, "issuer %q: %w", i.URL, err)
	}
	if err := checkURL(i.URL, i.Private); err != nil {
		return invalid(err)
	}
	if i.JWKS != "" {
		if err := checkURL(i.JWKS, i.Private); err != nil {
			return invalid(fmt.Errorf("its JWKS address %q: %w", i.JWKS, err))
		}
	}
	if i.Audience == "" {
		return invalid(errors.New("no audience; name the one its tokens carry for this gate"))
	}
	if len(i.Algorithms) == 0 {
		return invalid(fmt.Errorf("no algorithms; list those it signs with, of %v", algorithms))
	}
	t := &trusted{Issuer: i}
	for _, a := range i.Algorithms {
		if !slices.Contains(algorithms, jose.SignatureAlgorithm(a)) {
			return invalid(fmt.Errorf("algorithm %q is not one of %v", a, algorithms))
		}
		t.algorithms = append(t.algorithms, jose.SignatureAlgorithm(a))
	}
	if slices.Contains(i.Run, "") {
		return invalid(errors.New("a run claim has no name"))
	}
	// A renewed token belongs to the same run (access.Principal).
	for _, claim := range []string{"jti", "iat", "exp", "nbf"} {
		if slices.Contains(i.Run, claim) {
			return invalid(fmt.Errorf("claim %q differs in every token and cannot tell runs apart", claim))
		}
	}
	if err := checkRunLink(i.RunLink); err != nil {
		return invalid(err)
	}
	for _, c := range i.Require {
		compiled, err := compile(c)
		if err != nil {
			return invalid(err)
		}
		t.require = append(t.require, compiled)
	}
	for _, r := range i.Groups {
		if err := checkName(r.Group); err != nil {
			return invalid(fmt.Errorf("group %q %w", r.Group, err))
		}
		if len(r.When) == 0 {
			return invalid(fmt.Errorf("group %q has no condition and would be everybody's", r.Group))
		}
		rule := groupRule{group: r.Group}
		for _, c := range r.When {
			compiled, err := compile(c)
			if err != nil {
				return invalid(fmt.Errorf("group %q: %w", r.Group, err))
			}
			rule.when = append(rule.when, compiled)
		}
		t.groups = append(t.groups, rule)
	}
	return t, nil
}

// checkURL checks the address of an issuer or of its keys as far as that can be done without resolving its name;
// dial does the rest.
func checkURL(address string, private bool) error {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("not a URL")
	}
	host := strings.TrimSuffix(strings.ToLower(u.Hostname()), ".")
	switch {
	case host == "" || u.Opaque != "":
		return errors.New("not an absolute URL")
	case u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(address, "#"):
		return errors.New("a user, a query or a fragment has no place in it")
	}
	ip, err := netip.ParseAddr(host)
	literal := err == nil
	loopback := literal && ip.IsLoopback() || host == "localhost"
	switch {
	case u.Scheme == "http" && private && loopback:
	case u.Scheme != "https":
		return errors.New("it must be https; plain http is for loopback and private issuers only")
	}
	if private {
		return nil
	}
	if literal && !public(ip) || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return errors.New("a loopback, link-local or private address; mark the issuer private if that is meant")
	}
	return nil
}

// special are the ranges of IPv4 that are not on the public internet and that [netip.Addr] has no word for (IANA
// special-purpose registry). 100.64.0.0/10 is where pods of many an EKS cluster live.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),
	netip.MustParsePrefix("100.64.0.0/10"),
	netip.MustParsePrefix("192.0.0.0/24"),
	netip.MustParsePrefix("192.0.2.0/24"),
	netip.MustParsePrefix("192.88.99.0/24"),
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("198.51.100.0/24"),
	netip.MustParsePrefix("203.0.113.0/24"),
	netip.MustParsePrefix("240.0.0.0/4"),
}

// unicast6 is all of IPv6 that is on the public internet; tunnels are the parts of it that wrap an IPv4 address.
var (
	unicast6 = netip.MustParsePrefix("2000::/3")
	tunnels  = []netip.Prefix{
		netip.MustParsePrefix("2001::/23"), // Teredo and other protocol assignments
		netip.MustParsePrefix("2001:db8::/32"),
		netip.MustParsePrefix("2002::/16"), // 6to4
		netip.MustParsePrefix("3fff::/20"),
	}
)

// public reports whether an address is on the public internet. One that wraps another, of IPv4 in IPv6 in whatever way,
// is not, nor is one with a zone. Metadata services are on link-local (169.254.169.254,
// 169.254.170.2) and unique local (fd00:ec2::254) addresses.
func public(ip netip.Addr) bool {
	in := func(p netip.Prefix) bool { return p.Contains(ip) }
	if ip.Is6() {
		return unicast6.Contains(ip) && !slices.ContainsFunc(tunnels, in)
	}
	return ip.IsGlobalUnicast() && !ip.IsPrivate() && !slices.ContainsFunc(special, in)
}
