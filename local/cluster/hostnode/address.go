package hostnode

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
)

// Addresses hands out loopback addresses, each to one pod on this machine.
//
// Another cluster may draw from the same prefix, so an address is claimed for
// as long as it is used: the claim is an abstract unix socket named after the
// address, which lives in the same network namespace as the address and goes
// away with the process that holds it.
type addresses struct {
	prefix netip.Prefix
	mu     sync.Mutex
	next   netip.Addr
}

func newAddresses(prefix netip.Prefix) *addresses {
	prefix = prefix.Masked()
	return &addresses{prefix: prefix, next: prefix.Addr()}
}

// A claim holds an address.
type claim struct {
	addr netip.Addr
	hold net.Listener
}

func (c *claim) release() {
	if c != nil && c.hold != nil {
		c.hold.Close()
	}
}

// claim returns the next address nobody holds. Addresses are used in turn, so
// that a released one rests before it comes again.
func (a *addresses) claim() (*claim, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for range 1 << (32 - a.prefix.Bits()) {
		a.next = a.next.Next()
		if !a.prefix.Contains(a.next) {
			a.next = a.prefix.Addr()
			continue
		}
		last := a.next.As4()[3]
		if last == 0 || last == 1 || last == 255 {
			continue // network, router and broadcast, by custom
		}
		hold, err := net.Listen("unix", "@sallyport-pod-"+a.next.String())
		if err == nil {
			return &claim{a.next, hold}, nil
		}
	}
	return nil, fmt.Errorf("no free pod address in %s: end another cluster or choose another --pod-net", a.prefix)
}
