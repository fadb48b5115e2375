package controlplane

import (
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestChoosePorts(t *testing.T) {
	dir := t.TempDir()
	first, err := choosePorts(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[int]bool{}
	for _, port := range []int{first.APIServer, first.Etcd, first.EtcdPeer, first.Node} {
		if port < lowestPort || port >= highestPort || seen[port] {
			t.Errorf("bad port %d in %+v", port, first)
		}
		seen[port] = true
	}
	again, err := choosePorts(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if again != first {
		t.Errorf("ports changed from %+v to %+v though they were free", first, again)
	}

	l, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(first.APIServer))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	moved, err := choosePorts(dir, 0)
	if err != nil {
		t.Fatal(err)
	}
	if moved.APIServer == first.APIServer || moved.Etcd != first.Etcd {
		t.Errorf("from %+v to %+v: only the taken port should move", first, moved)
	}
	if _, err := choosePorts(dir, first.APIServer); err == nil || !strings.Contains(err.Error(), "--port") {
		t.Errorf("a taken port by request: error %v", err)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{
		"", "--dir x extra", "--dir x --pod-net 10.0.0.0/16", "--dir x --pod-net 127.0.0.0/30", "--dir x --token-webhook /no/such/file",
	} {
		if _, err := parse(strings.Fields(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	c, err := parse([]string{"--dir", "x"})
	if err != nil {
		t.Fatal(err)
	}
	if !filepath.IsAbs(c.dir) || c.podNet.String() != "127.77.0.0/16" || c.tokenCache.String() != "10s" {
		t.Errorf("defaults: %+v", c)
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(strings.Repeat("filler\n", 10000)+"a\nb\nc\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := tail(path, 2); got != "b\nc" {
		t.Errorf("got %q", got)
	}
}
