package identity

import (
	"net/url"
	"regexp"
	"strings"

	"sallyport/shared/access"
)

// maxLink bounds a run's address.
const maxLink = 512

var placeholder = regexp.MustCompile(`\{([^{}]*)\}`)

// checkRunLink refuses an address whose host the caller could choose: all that claims fill in is the path and the query.
func checkRunLink(link string) error {
	if link == "" {
		return nil
	}
	rest, https := strings.CutPrefix(link, "https://")
	host, _, path := strings.Cut(rest, "/")
	bare := placeholder.ReplaceAllString(link, "x")
	u, err := url.Parse(bare)
	switch {
	case !https || !path || err != nil || u.Host == "" || u.User != nil || strings.ContainsAny(host, "{}@"):
		return access.Errorf(access.Invalid, "runLink %q must be https, with a host that holds no claim, such as https://github.com/{repository}/actions/runs/{run_id}", link)
	case strings.ContainsAny(bare, "{}"):
		return access.Errorf(access.Invalid, "runLink %q has a brace without its other half", link)
	}
	for _, m := range placeholder.FindAllStringSubmatch(link, -1) {
		if m[1] == "" {
			return access.Errorf(access.Invalid, "runLink %q has {} without a claim's name in it", link)
		}
	}
	return nil
}

// runLink is the address of a token's run, empty when the token lacks one of the claims it is made from: a link that is
// missing misleads nobody, a link with a hole does.
func (t *trusted) runLink(c claims) string {
	if t.RunLink == "" {
		return ""
	}
	whole := true
	link := placeholder.ReplaceAllStringFunc(t.RunLink, func(p string) string {
		value, ok := c.scalar(p[1 : len(p)-1])
		if !ok || value == "" || checkText(value) != nil {
			whole = false
			return ""
		}
		segments := strings.Split(value, "/") // owner/name is two segments
		for i, s := range segments {
			if s == "" || s == "." || s == ".." {
				whole = false
			}
			segments[i] = strings.ReplaceAll(url.QueryEscape(s), "+", "%20") // good in a path and in a query
		}
		return strings.Join(segments, "/")
	})
	if !whole || len(link) > maxLink {
		return ""
	}
	return link
}
