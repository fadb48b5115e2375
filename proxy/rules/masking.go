package rules

import (
	"fmt"

	"sallyport/proxy/mask"
	"sallyport/shared/detect"
	"sallyport/shared/policy"
)

// Masking is what masks the answers to requests that are forwarded as one tier. It does not change.
type Masking struct {
	Masker *mask.Masker
	Detect *detect.Set
}

// Masking is that of a tier; false when the policy has no such tier, and then there is nothing to answer with.
func (g *Generation) Masking(tier string) (Masking, bool) {
	all, _ := g.maskings()
	m, ok := all[tier]
	return m, ok
}

// maskings are compiled once, when the policy is taken in: one that cannot be masked by is refused.
func (g *Generation) maskings() (map[string]Masking, error) {
	g.once.Do(func() { g.masking, g.unclear = masking(g.Policy) })
	return g.masking, g.unclear
}

// masking compiles what a policy says of masks, for each of its tiers.
func masking(p *policy.Policy) (map[string]Masking, error) {
	set := p.Detect()
	names, more := p.Masking.NamesRE(), paths(p.Masking.Paths)
	all := map[string]Masking{}
	for _, t := range p.Tiers {
		m, err := mask.New(mask.Config{Names: names, Paths: more, Exempt: paths(p.Masking.Exempted(t.Name)), Detect: set})
		if err != nil {
			return nil, fmt.Errorf("masking: %w", err)
		}
		all[t.Name] = Masking{Masker: m, Detect: set}
	}
	return all, nil
}

func paths(in []policy.MaskPath) []mask.Path {
	var out []mask.Path
	for _, p := range in {
		out = append(out, mask.Path{APIGroups: p.APIGroups, Resources: p.Resources, Steps: p.Steps})
	}
	return out
}
