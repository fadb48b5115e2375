package gate

import (
	"context"
	"net/http"
	"strings"

	"sallyport/proxy/forward"
	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/policy"
)

// judge decides. It reads the body only when a rule whose lists match looks at it, and the live object only when the
// body is a patch. What it returns is what may be forwarded: the body, for a merge or JSON patch with the version of the
// object it was judged on, so that it cannot land on another one.
func (p *pass) judge(ctx context.Context, body []byte) ([]byte, error) {
	match := p.rules.Policy.Match(policy.Request{
		Principal: p.facts.Principal, Tier: p.live.Session.Tier, Cluster: p.facts.Cluster, Action: p.facts.Action, Now: p.gate.Now(),
	})
	var object *access.Object
	if match.NeedsObject() {
		var err error
		if object, body, err = p.object(ctx, body); err != nil {
			return nil, err
		}
	}
	p.facts.Decision = match.Decide(object)
	switch d := p.facts.Decision; d.Effect {
	case access.Allow:
		return body, nil
	case access.Ask:
		return nil, because(d, access.Errorf(access.Denied, "%s; no reviewer configured: this gate cannot ask anybody yet, so nothing was forwarded", d.Message))
	default:
		return nil, because(d, access.Errorf(access.Denied, "%s", d.Message))
	}
}

// because adds to a refusal, for machines, which rule it was and what nearly let the request through.
func because(d access.Decision, e *access.Error) *access.Error {
	e.Reasons = append(e.Reasons, access.Reason{Type: "Rule", Message: d.Rule})
	for _, s := range d.Near {
		e.Reasons = append(e.Reasons, access.Reason{Type: "NearMiss", Message: s})
	}
	return e
}

// object is what the body would make, and the body to forward. A nil object is one that cannot be decoded: the rules
// take that for the worst.
func (p *pass) object(ctx context.Context, body []byte) (*access.Object, []byte, error) {
	a := p.facts.Action
	b, err := action.Decode(a, p.media, body)
	switch {
	case access.KindOf(err) == access.Media:
		return nil, body, nil
	case err != nil:
		return nil, nil, err
	}
	var live map[string]any
	if b.NeedsLive() {
		path := strings.TrimSuffix(a.Path, "/")
		live, err = p.gate.forward.Get(ctx, forward.Request{Live: p.live, Action: a, AuditID: p.facts.ID + "-live", Rejected: p.rejected}, path)
		if err != nil && (a.Patch != access.ApplyPatch || access.KindOf(err) != access.NotFound) {
			return nil, nil, err
		}
		if live == nil && err == nil {
			return nil, body, nil // the tier may not read it, so nobody can tell what the patch would make
		}
	}
	object, err := b.Judge(live)
	switch {
	case access.KindOf(err) == access.Media:
		return nil, body, nil
	case err != nil:
		return nil, nil, err
	}
	if object.Version != "" {
		if body, err = b.Bytes(object.Version); err != nil {
			return nil, nil, err
		}
		p.judged = true
	}
	return object, body, nil
}

// media is the one Content-Type of a request.
func media(h http.Header) (string, error) {
	switch v := h.Values("Content-Type"); len(v) {
	case 0:
		return "", nil
	case 1:
		return v[0], nil
	}
	return "", access.Errorf(access.Invalid, "Content-Type comes more than once; give it once")
}
