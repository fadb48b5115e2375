package gate

import (
	"context"
	"net/http"
	"strings"

	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/approval"
	"sallyport/shared/policy"
)

// judge decides; only a denial is an error. It reads the body only when a rule whose lists match looks at it, and the live
// object only when the body is a patch. What it returns is what may be forwarded: the body, for a merge or JSON patch with
// the version of the object it was judged on, so that it cannot land on another one.
func (p *pass) judge(ctx context.Context, body []byte) ([]byte, error) {
	p.judged, p.seen = false, sight{}
	match := p.rules.Policy.Match(policy.Request{
		Principal: p.facts.Principal, Tier: p.live.Session.Tier, Cluster: p.facts.Cluster, Action: p.facts.Action, Now: p.gate.Now(),
	})
	var object *access.Object
	looks := match.NeedsObject()
	if looks {
		var err error
		if object, body, err = p.object(ctx, body); err != nil {
			return nil, err
		}
	}
	p.facts.Decision = match.Decide(object)
	if p.facts.Decision.Effect != access.Deny {
		if err := p.readable(); err != nil {
			return nil, err
		}
	}
	switch d := p.facts.Decision; d.Effect {
	case access.Allow:
		return body, nil
	case access.Ask:
		if !looks && p.facts.Action.Patch != "" {
			// No rule looks at it, but people do, and they see it put on the object that is there now.
			var err error
			if _, body, err = p.object(ctx, body); err != nil {
				return nil, err
			}
		}
		return body, nil
	default:
		return nil, because(d, access.Errorf(access.Denied, "%s", d.Message))
	}
}

// rejudge is judge for a patch whose object changed after it was decided: nothing else may come out of it, and what people
// let through they let through for the object as they saw it.
func (p *pass) rejudge(ctx context.Context, body []byte) ([]byte, error) {
	before := p.facts.Decision
	body, err := p.judge(ctx, body)
	switch {
	case err != nil:
		return nil, err
	case !same(before, p.facts.Decision):
		return nil, because(p.facts.Decision, access.Errorf(access.Conflict, "%s %q changed while it was being patched, and what the patch makes of it now is decided otherwise; look at it and ask again", p.facts.Action.Resource, p.facts.Action.Name))
	case p.yes.given() && approval.Target(p.seen.object) != p.yes.target:
		return nil, because(p.facts.Decision, access.Errorf(access.Conflict, "%s %q changed after approval %s was given for it, so the patch was not made; look at it and ask again", p.facts.Action.Resource, p.facts.Action.Name, p.yes.ID))
	}
	return body, nil
}

// same says whether two decisions come to the same: the same answer, and where people are asked by the same rule for the
// same tier.
func same(a, b access.Decision) bool {
	return a.Effect == b.Effect && (a.Effect != access.Ask || a.Rule == b.Rule && a.Tier == b.Tier)
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
		live, err = p.look(ctx, strings.TrimSuffix(a.Path, "/"))
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
