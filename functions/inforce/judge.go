package inforce

import (
	"time"

	"k8s.io/apimachinery/pkg/util/json"

	"sallyport/shared/access"
	"sallyport/shared/action"
	"sallyport/shared/approval"
	"sallyport/shared/broker"
	"sallyport/shared/policy"
)

// A Ruling is what a raw request comes to, by today's policy.
type Ruling struct {
	Action access.Action
	// Object is what the body would have the cluster store; nil when that cannot be told.
	Object   *access.Object
	Live     map[string]any // the live object, in the proxy's words; nil when none was seen
	Decision access.Decision
	Tier     access.Tier // the base tier
	Digest   string      // what a yes is bound to
	Kubectl  string      // safe to show
	Sentence string      // safe to show
}

// Judge reads a raw request as the cluster will, and decides it as the gate does: the same steps, on the same bytes. What
// only the cluster can tell, the live object, is taken from the evidence: without it, and without the cluster's word that
// there is none, a patch is what nobody can tell, and the rules take that for the worst.
func (g *Generation) Judge(who access.Principal, cluster string, raw broker.Raw, ev broker.Evidence, now time.Time) (Ruling, error) {
	var r Ruling
	if _, err := g.Policy.Cluster(cluster); err != nil {
		return r, err
	}
	var err error
	if r.Tier, err = g.Policy.Tier(who); err != nil {
		return r, err
	}
	if r.Action, err = action.Parse(raw.Method, raw.Target); err != nil {
		return r, err
	}
	if r.Action, err = action.Refine(r.Action, raw.ContentType, raw.Body); err != nil {
		return r, err
	}
	if r.Live, err = live(r.Action, ev); err != nil {
		return r, err
	}
	match := g.Policy.Match(policy.Request{Principal: who, Tier: r.Tier.Name, Cluster: cluster, Action: r.Action, Now: now})
	needs := match.NeedsObject()
	if needs {
		if r.Object, err = object(r.Action, raw, r.Live, ev.Missing); err != nil {
			return r, err
		}
	}
	r.Decision = match.Decide(r.Object)
	if r.Decision.Effect == access.Ask && !needs { // the rules do not look at it; people do
		if r.Object, err = object(r.Action, raw, r.Live, ev.Missing); err != nil {
			return r, err
		}
	}
	r.Kubectl, r.Sentence = action.Kubectl(r.Action, r.Object), action.Sentence(r.Action)
	r.Digest, err = approval.Digest(approval.Request{
		Cluster: cluster, Principal: who, Verb: r.Action.Verb, Target: raw.Target, ContentType: raw.ContentType, Body: raw.Body,
	})
	return r, err
}

// live is the live object of the evidence.
func live(a access.Action, ev broker.Evidence) (map[string]any, error) {
	if len(ev.Live) == 0 {
		return nil, nil
	}
	var o map[string]any
	if err := json.Unmarshal(ev.Live, &o); err != nil { // whole numbers stay whole
		return nil, access.Errorf(access.Invalid, "the live object that came with the request cannot be read").Because(err)
	}
	meta, _ := o["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	if o != nil && (ev.Missing || a.Name != "" && name != a.Name || a.Namespace != "" && a.Resource != "namespaces" && namespace != a.Namespace) {
		return nil, access.Errorf(access.Invalid, "the live object that came with the request is not the one the request is about")
	}
	return o, nil
}

// object is what the body would make. A nil object is one that cannot be told: the rules take that for the worst.
func object(a access.Action, raw broker.Raw, live map[string]any, missing bool) (*access.Object, error) {
	b, err := action.Decode(a, raw.ContentType, raw.Body)
	switch {
	case access.KindOf(err) == access.Media:
		return nil, nil
	case err != nil:
		return nil, err
	}
	if b.NeedsLive() && live == nil {
		switch {
		case !missing:
			return nil, nil
		case a.Patch != access.ApplyPatch:
			return nil, access.Errorf(access.NotFound, "%s %q not found", a.Resource, a.Name)
		}
	}
	o, err := b.Judge(live)
	if access.KindOf(err) == access.Media {
		return nil, nil
	}
	return o, err
}
