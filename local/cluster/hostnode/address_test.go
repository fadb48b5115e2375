package hostnode

import (
	"net/netip"
	"testing"
)

func TestAddressesAreDistinctAcrossNodes(t *testing.T) {
	// Two nodes of two clusters on one machine share a prefix.
	prefix := netip.MustParsePrefix("127.78.0.0/29")
	one, two := newAddresses(prefix), newAddresses(prefix)
	seen := map[netip.Addr]bool{}
	var claims []*claim
	for i := range 6 { // .2 to .7
		from := one
		if i%2 == 1 {
			from = two
		}
		c, err := from.claim()
		if err != nil {
			t.Fatal(err)
		}
		if seen[c.addr] {
			t.Errorf("%s was handed out twice", c.addr)
		}
		if !prefix.Contains(c.addr) {
			t.Errorf("%s is outside of %s", c.addr, prefix)
		}
		seen[c.addr] = true
		claims = append(claims, c)
	}
	if c, err := one.claim(); err == nil {
		t.Errorf("got %s from a prefix that is used up", c.addr)
	}
	claims[3].release()
	c, err := one.claim()
	if err != nil {
		t.Fatalf("after a release: %v", err)
	}
	if c.addr != claims[3].addr {
		t.Errorf("got %s, want the released %s", c.addr, claims[3].addr)
	}
	c.release()
	for i, c := range claims {
		if i != 3 {
			c.release()
		}
	}
}
