package gate

import (
	"sallyport/proxy/forward"
	"sallyport/proxy/mask"
	"sallyport/proxy/mask/stream"
	"sallyport/shared/access"
)

// masking is how the answer is masked; nil for what no object is in, and where a rule says so.
func (p *pass) masking(live *forward.Request) (*forward.Masking, error) {
	a, block := p.facts.Action, p.facts.Decision.Obligations.Binary == "block"
	if a.Resourceless || p.facts.Decision.Obligations.Mask == "off" && !block {
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
		Detect: m.Detect, Key: p.live.MaskKey, Block: block,
	}, nil
}

// readable refuses a command that is known to carry an archive, where only text may pass. A port-forward is denied by the
// policy then.
func (p *pass) readable() error {
	d := p.facts.Decision
	if d.Obligations.Binary != "block" || !stream.Binary(p.facts.Action.Argv) {
		return nil
	}
	return because(d, access.Errorf(access.Denied, "the policy lets nothing out of this container that is not text (binary: block), and this command carries an archive, as kubectl cp does; show what you need as text, or ask who runs the gate"))
}

// stricter says whether what may be seen of a stream is less by one decision than by another.
func stricter(now, before access.Obligations) bool {
	return now.Mask != "off" && before.Mask == "off" || now.Binary == "block" && before.Binary != "block"
}

// revealed is the key of a Secret that the caller sees as it is: what it asked to see, and people let it see.
func (p *pass) revealed() string {
	if !p.yes.given() {
		return ""
	}
	return p.facts.Action.Reveal
}
