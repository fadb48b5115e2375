package action_test

import (
	"encoding/json"
	"slices"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/action"
)

// A patch borrows the identity and the Secrets that the pod did not have before, whatever it is written in. What it has
// already is no reason to ask for a new label.
func TestBorrowed(t *testing.T) {
	live := map[string]any{}
	if err := json.Unmarshal([]byte(`{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web","namespace":"dev","resourceVersion":"7"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},
	"spec":{"serviceAccountName":"app","containers":[{"name":"c","image":"i","envFrom":[{"secretRef":{"name":"db"}}],"securityContext":{"privileged":true}}]}}}}`), &live); err != nil {
		t.Fatal(err)
	}
	const merge, jsonPatch, strategic, apply = "application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"
	for _, test := range []struct {
		name, media, body string
		account, secret   bool // borrowed, or perhaps
	}{
		{"a label", merge, `{"metadata":{"labels":{"x":"y"}}}`, false, false},
		{"a label, strategic", strategic, `{"metadata":{"labels":{"x":"y"}}}`, false, false},
		{"an image, strategic", strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"j"}]}}}}`, false, false},
		{"an image, JSON", jsonPatch, `[{"op":"replace","path":"/spec/template/spec/containers/0/image","value":"j"}]`, false, false},
		{"an image, applied", apply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"containers":[{"name":"c","image":"j"}]}}}}`, false, false},
		{"the same account", merge, `{"spec":{"template":{"spec":{"serviceAccountName":"app"}}}}`, false, false},
		{"another account", merge, `{"spec":{"template":{"spec":{"serviceAccountName":"root"}}}}`, true, false},
		{"another account, strategic", strategic, `{"spec":{"template":{"spec":{"serviceAccountName":"root"}}}}`, true, false},
		{"another account, JSON", jsonPatch, `[{"op":"add","path":"/spec/template/spec/serviceAccountName","value":"root"}]`, true, false},
		{"another account, applied", apply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"serviceAccountName":"root"}}}}`, true, false},
		{"a token for an audience", strategic, `{"spec":{"template":{"spec":{"volumes":[{"name":"t","projected":{"sources":[{"serviceAccountToken":{"audience":"sts.amazonaws.com","path":"t"}}]}}]}}}}`, true, true},
		{"another Secret", strategic, `{"spec":{"template":{"spec":{"containers":[{"name":"c","env":[{"name":"K","valueFrom":{"secretKeyRef":{"name":"keys","key":"k"}}}]}]}}}}`, false, true},
		{"another Secret, applied", apply, `{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"web"},"spec":{"template":{"spec":{"volumes":[{"name":"s","secret":{"secretName":"keys"}}]}}}}`, true, true},
		{"all of it anew", strategic, `{"spec":{"template":{"spec":{"$patch":"replace","serviceAccountName":"root","containers":[{"name":"c","image":"i"}]}}}}`, true, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			a, err := action.Parse("PATCH", "/apis/apps/v1/namespaces/dev/deployments/web?fieldManager=t")
			if err != nil {
				t.Fatal(err)
			}
			if a, err = action.Refine(a, test.media, []byte(test.body)); err != nil {
				t.Fatal(err)
			}
			b, err := action.Decode(a, test.media, []byte(test.body))
			if err != nil {
				t.Fatal(err)
			}
			o, err := b.Judge(live)
			if err != nil {
				t.Fatal(err)
			}
			has := func(trait access.Trait) bool {
				return slices.Contains(o.Traits, trait) || slices.Contains(o.Unsure, trait)
			}
			if has(access.ServiceAccount) != test.account || has(access.SecretRef) != test.secret {
				t.Errorf("traits %v, unsure %v", o.Traits, o.Unsure)
			}
			if test.name != "all of it anew" && !has(access.Privileged) {
				t.Error("a patch of a privileged pod makes a privileged pod")
			}
		})
	}
}
