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

	// Super-frames leave so, too, also where the device that leads to the host cannot cut them. Where it can, they are whole
	// up to the station.
	type count struct{ frames, bytes uint64 }
	sent := func(site *lan, device string) (c count) {
		t.Helper()
		for name, n := range map[string]*uint64{"tx_packets": &c.frames, "tx_bytes": &c.bytes} {
			var err error
			if *n, err = strconv.ParseUint(strings.TrimSpace(site.ns.Run("cat", "/sys/class/net/"+device+"/statistics/"+name)), 10, 64); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	for _, can := range []string{"off", "on"} {
		l.ns.Run("ethtool", "-K", "ul0", "tx-udp_tnl-segmentation", can)
		tunnel, under, station := sent(l, "up0"), sent(l, "ul0"), sent(o.sites[1], b.port)
		l.bulk(a, b, b.v4, 4<<20)
		if n := sent(l, "up0").bytes - tunnel.bytes; n > 1<<20 {
			t.Errorf("where cutting tunnels' super-frames is %s, %d bytes pass the tunnel's device", can, n)
		}
		for where, c := range map[string][2]count{"to the other host": {under, sent(l, "ul0")}, "to the station": {station, sent(o.sites[1], b.port)}} {
			frames, bytes := c[1].frames-c[0].frames, c[1].bytes-c[0].bytes
			whole := bytes > 3*1600*frames
			if bytes < 4<<20 || can == "on" && !whole || can == "off" && whole && where == "to the other host" {
				t.Errorf("where cutting tunnels' super-frames is %s, %d bytes go %s as %d frames", can, bytes, where, frames)
			}
		}
	}

	l.ns.Run("ip", "xfrm", "policy", "add", "src", "198.51.100.1", "dst", "198.51.100.2", "dir", "out", "action", "allow")
	awaitWay(false, "IPsec")
	l.ns.Run("ip", "xfrm", "policy", "flush")
	awaitWay(true, "straight")

	// Rules may have the tunnel's packets take another route than others to the host.
	l.ns.Run("ip", "rule", "add", "ipproto", "udp", "dport", "4789", "lookup", "99")
	awaitWay(false, "routing rules")
	l.ns.Run("ip", "rule", "del", "ipproto", "udp", "dport", "4789", "lookup", "99")
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
