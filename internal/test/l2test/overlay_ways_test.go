package l2test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// TestOverlayWays: frames go straight by the device that leads to the other host, but through the
// tunnel's own where the host does more with packets than send them; and each time by
// the route that there is.
func TestOverlayWays(t *testing.T) {
	t.Parallel()
	if !daemontest.FastPath() {
		t.Skip("without a fast path sockets carry all frames")
	}
	o := newOverlay(t, 2, 1600, false)
	o.mesh("--vni 100 --data-plane kernel")
	o.address()
	a, b := o.hosts[0], o.hosts[1]
	l := o.sites[0]
	l.wantPing(a, b, true)
	// awaitWay has pings go until they pass the tunnel's device, or until they do not.
	awaitWay := func(straight bool, by string) {
		t.Helper()
		frames := func() (n string) {
			for _, name := range []string{"rx_packets", "tx_packets"} {
				n += l.ns.Run("cat", "/sys/class/net/up0/statistics/"+name) + " "
			}
			return n
		}
		testenv.Eventually(t, "frames go "+by, func() bool {
			before := frames()
			if out, err := a.ns.Command("ping", "-n", "-q", "-c", "5", "-i", "0.01", "-w", "10", b.v4).CombinedOutput(); err != nil {
				t.Errorf("ping: %v: %s", err, out)
			}
			return (frames() == before) == straight && strings.Contains(l.sw.port("up0").FastPath.By, by)
		})
	}
	awaitWay(true, "straight")

	if features := l.ns.Run("ethtool", "-k", "up0"); !strings.Contains(features, "generic-receive-offload: off") {
		t.Error("the tunnel's device has GRO")
	}

	// Super-frames leave so, too, also where the device that leads to the host cannot cut them.
	sent := func() uint64 {
		n, err := strconv.ParseUint(strings.TrimSpace(l.ns.Run("cat", "/sys/class/net/up0/statistics/tx_bytes")), 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, can := range []string{"on", "off"} {
		l.ns.Run("ethtool", "-K", "ul0", "tx-udp_tnl-segmentation", can)
		before := sent()
		l.bulk(a, b, b.v4, 4<<20)
		if n := sent() - before; n > 1<<20 {
			t.Errorf("where cutting tunnels' super-frames is %s, %d bytes pass the tunnel's device", can, n)
		}
	}

	l.ns.Run("ip", "xfrm", "policy", "add", "src", "198.51.100.1", "dst", "198.51.100.2", "dir", "out", "action", "allow")
	awaitWay(false, "IPsec")
	l.ns.Run("ip", "xfrm", "policy", "flush")
	awaitWay(true, "straight")

	// A host route by way of a router, which is the other host itself, at another address.
	o.sites[1].ns.Run("ip", "addr", "add", "192.0.2.102/24", "dev", "ul0")
	l.ns.Run("ip", "route", "add", "192.0.2.2/32", "via", "192.0.2.102", "mtu", "1590")
	awaitWay(true, "straight")
	testenv.Eventually(t, "frames go by the router", func() bool {
		_, err := a.ns.Command("ping", "-n", "-q", "-c", "1", "-w", "10", b.v4).CombinedOutput()
		return err == nil && strings.Contains(l.ns.Run("ip", "neigh", "show", "192.0.2.102"), "lladdr")
	})
	l.ns.Run("ip", "route", "replace", "unreachable", "192.0.2.2/32")
	testenv.Eventually(t, "frames go nowhere", func() bool {
		return a.ns.Command("ping", "-n", "-q", "-c", "1", "-w", "1", b.v4).Run() != nil
	})
	l.ns.Run("ip", "route", "del", "unreachable", "192.0.2.2/32")
	awaitWay(true, "straight")
}
