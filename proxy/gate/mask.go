package gate

import (
	"sallyport/proxy/forward"
	"sallyport/proxy/mask"
	"sallyport/shared/access"
)

// masking is how the answer is masked; nil for what no object is in, and where a rule says so.
func (p *pass) masking(live *forward.Request) (*forward.Masking, error) {
	a := p.facts.Action
	if a.Resourceless || p.facts.Decision.Obligations.Mask == "off" {
		return nil, nil
	}
	m, ok := p.rules.Masking(live.Live.Session.Tier)
	if !ok {
		return nil, access.Errorf(access.Unavailable, "the policy changed a moment ago, and how answers to tier %q are masked is not known; nothing was forwarded, ask again", live.Live.Session.Tier)
	}
	verb := a.Verb
	if a.Reveal != "" {
		verb = "get" // to the cluster
	}
	return &forward.Masking{
		Rules: m.Masker.Rules(mask.Request{Group: a.Group, Version: a.Version, Resource: a.Resource, Subresource: a.Subresource, Verb: verb,
			Namespace: a.Namespace, Name: a.Name, Reveal: p.revealed()}),
		Detect: m.Detect, Key: p.live.MaskKey,
	}, nil
}

// revealed is the key of a Secret that the caller sees as it is: what it asked to see, and people let it see.
func (p *pass) revealed() string {
	if !p.yes.given() {
		return ""
	}
	return p.facts.Action.Reveal
}
