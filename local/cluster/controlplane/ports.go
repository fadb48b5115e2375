package controlplane

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"sallyport/local/cluster/pki"
)

// Ports are the loopback ports of one cluster. Controllers and scheduler serve
// nothing, so they have none.
type ports struct {
	APIServer, Etcd, EtcdPeer, Node int
}

// Ports are drawn below the range Linux uses for outgoing connections: between
// choosing a port and the child binding it, only another server could take it.
const lowestPort, highestPort = 20000, 32000

// choosePorts finds a free port for everything. apiserver is used as it is
// unless 0. Ports of an earlier run are kept where they are still free, so that
// copies of its kubeconfig stay good.
func choosePorts(dir string, apiserver int) (ports, error) {
	file := filepath.Join(dir, "ports.json")
	var p ports
	if old, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(old, &p); err != nil {
			p = ports{} // not worth failing for
		}
	}
	if apiserver != 0 {
		if !free(apiserver) {
			return p, fmt.Errorf("port %d is in use: choose another with --port, or let --port 0 find one", apiserver)
		}
		p.APIServer = apiserver
	}
	taken := map[int]bool{}
	for _, port := range []*int{&p.APIServer, &p.Etcd, &p.EtcdPeer, &p.Node} {
		for tries := 0; *port == 0 || taken[*port] || !free(*port); tries++ {
			if tries == 1000 {
				return p, fmt.Errorf("no free port between %d and %d on 127.0.0.1", lowestPort, highestPort)
			}
			*port = lowestPort + rand.IntN(highestPort-lowestPort)
		}
		taken[*port] = true
	}
	out, err := json.Marshal(p)
	if err != nil {
		return p, err
	}
	return p, pki.WriteFile(file, out, 0o600)
}

func free(port int) bool {
	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return false
	}
	return l.Close() == nil
}
