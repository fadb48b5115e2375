package action

import "sallyport/shared/access"

// lent takes out of a patched object's traits the identity and the Secrets that the live object has already: who may
// change the pod may use what it has, and borrows nothing by it. Only names are held against each other; what has none, a
// token for an audience, stays. Nothing else is ever taken out: a patch of a privileged pod makes a privileged pod.
func (b *Body) lent(o *access.Object, live map[string]any) error {
	if o.Partial && b.action.Patch != access.ApplyPatch {
		return nil // what it makes could not be computed
	}
	had, err := look(b.action, live)
	if err != nil {
		return err
	}
	now, err := look(b.action, o.Value)
	if err != nil {
		return err
	}
	touched := map[access.Trait]bool{}
	if b.action.Patch == access.StrategicPatch || b.action.Patch == access.ApplyPatch {
		touched = guarded(b.action, b.value) // these ask whatever comes of it, as nothing holds them to the object that was judged
	}
	drop := func(t access.Trait, had, now map[string]bool, unnamed bool) {
		if unnamed || touched[t] {
			return
		}
		for name := range now {
			if !had[name] {
				return
			}
		}
		o.Traits, o.Unsure = except(o.Traits, t), except(o.Unsure, t)
	}
	drop(access.ServiceAccount, had.serviceAccounts, now.serviceAccounts, now.unnamed[access.ServiceAccount])
	drop(access.SecretRef, had.secrets, now.secrets, now.unnamed[access.SecretRef])
	return nil
}

func except(list []access.Trait, t access.Trait) []access.Trait {
	var rest []access.Trait
	for _, x := range list {
		if x != t {
			rest = append(rest, x)
		}
	}
	return rest
}
