package identity_test

import (
	"strings"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

// Known is of tokens that verified, and of those alone.
func TestKnown(t *testing.T) {
	v, c, k := newVerifier(t)
	token := es256.sign(es256.header(), with(nil))
	foreign := stranger.sign(stranger.header(), with(nil))
	if v.Known(token) {
		t.Error("known before it was verified")
	}
	accepted(t, v, token)
	refused(t, v, foreign, access.Unauthenticated, "signature")
	if !v.Known(token) {
		t.Error("not known once it was verified")
	}
	for what, other := range map[string]string{"refused": foreign, "nothing": "", "altered": token + "x", "too large": strings.Repeat("x", identity.MaxToken+1)} {
		if v.Known(other) {
			t.Errorf("%s: known", what)
		}
	}
	// One that is refused later is forgotten.
	k.replace(rs256)
	c.Advance(identity.Reverify + 1)
	refused(t, v, token, access.Unauthenticated, "not among")
	if v.Known(token) {
		t.Error("known after it was refused")
	}
}

// A ring is ready while it holds keys that may be used.
func TestRingReady(t *testing.T) {
	_, r, c, _, _ := newRing(t)
	if r.Ready() {
		t.Error("ready with nothing")
	}
	if err := r.Set([]identity.IssuerKeys{pushed(issuerURL, at, es256)}); err != nil {
		t.Fatal(err)
	}
	c.Advance(identity.Stale)
	if !r.Ready() {
		t.Error("not ready with keys as old as may be")
	}
	c.Advance(1)
	if r.Ready() {
		t.Error("ready with keys nobody may use")
	}
}
