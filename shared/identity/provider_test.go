package identity_test

import (
	"net/http"
	"strings"
	"testing"

	"sallyport/shared/access"
	"sallyport/shared/identity"
)

func TestDiscover(t *testing.T) {
	p := newProvider(t)
	good := func() map[string]any {
		return map[string]any{"issuer": p.URL, "authorization_endpoint": p.URL + "/authorize?policy=one", "token_endpoint": p.URL + "/token"}
	}
	p.document = good()
	ask := func(private bool) (identity.Provider, error) {
		return identity.Discover(t.Context(), access.Issuer{URL: p.URL, Private: private}, p.roots())
	}
	got, err := ask(true)
	if err != nil || got.Authorization != p.URL+"/authorize?policy=one" || got.Token != p.URL+"/token" || got.Iss || got.Client == nil {
		t.Fatal(got, err)
	}
	// The client that codes are exchanged with goes nowhere that the issuer cannot be at, whatever the document said.
	if _, err := ask(false); access.KindOf(err) != access.Unavailable {
		t.Errorf("an issuer on loopback that is not marked private: %v", err)
	}
	p.broken = func(w http.ResponseWriter, r *http.Request) bool {
		http.Redirect(w, r, "https://elsewhere.example.com"+r.URL.Path, http.StatusTemporaryRedirect)
		return true
	}
	if res, err := got.Client.Get(p.URL + "/token"); err == nil || !strings.Contains(err.Error(), "redirected to another host") {
		t.Error(res, err)
	}
	if _, err := ask(true); access.KindOf(err) != access.Unavailable {
		t.Errorf("redirected: %v", err)
	}
	p.broken = nil
	for name, change := range map[string]func(map[string]any){
		"another issuer's":      func(d map[string]any) { d["issuer"] = "https://elsewhere.example.com" },
		"no issuer":             func(d map[string]any) { delete(d, "issuer") },
		"no login":              func(d map[string]any) { delete(d, "authorization_endpoint") },
		"no token endpoint":     func(d map[string]any) { delete(d, "token_endpoint") },
		"a login over http":     func(d map[string]any) { d["authorization_endpoint"] = "http://elsewhere.example.com/a" },
		"a script for a login":  func(d map[string]any) { d["authorization_endpoint"] = "javascript:alert(1)" },
		"tokens over http":      func(d map[string]any) { d["token_endpoint"] = "http://169.254.169.254/latest" },
		"a user in the address": func(d map[string]any) { d["token_endpoint"] = "https://u:p@elsewhere.example.com/t" },
	} {
		p.document = good()
		change(p.document)
		if got, err := ask(true); access.KindOf(err) != access.Unavailable || got.Token != "" {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	p.document = good()
	p.document["authorization_response_iss_parameter_supported"] = true
	if got, err := ask(true); err != nil || !got.Iss {
		t.Error(got, err)
	}
}
