package vxlan

import (
	"maps"
	"net/netip"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// waysKernel is a Kernel that remembers the ways.
type waysKernel struct {
	Kernel
	all map[netip.Addr]link.Way
}

func (k *waysKernel) SetWays(_ port.Encapsulation, _ uint16, all map[netip.Addr]link.Way) bool {
	k.all = all
	return true
}

// waysOf is a tunnel to so many hosts in a namespace, from 10.0.0.2 on; 10.0.0.1 is its own address.
func waysOf(t testing.TB, ns *testenv.Netns, hosts int) (*replica, *waysKernel) {
	t.Helper()
	ns.Run("ip", "link", "add", "u0", "type", "veth", "peer", "name", "u1")
	ns.Run("ip", "addr", "add", "10.0.0.1/16", "dev", "u0")
	ns.Run("ip", "link", "set", "u1", "up")
	ns.Run("ip", "link", "set", "u0", "up")
	var peers []netip.Addr
	for n := range hosts {
		peers = append(peers, netip.AddrFrom4([4]byte{10, 0, byte((n + 2) >> 8), byte(n + 2)}))
	}
	tun := new(tunnel)
	tun.init(netip.MustParseAddr("10.0.0.1"), port.VXLAN, 4789)
	if err := tun.configure([]port.VNI{{VNI: 7}}, peers, true); err != nil {
		t.Fatal(err)
	}
	k := new(waysKernel)
	return newReplica(tun, k), k
}

// Routes are read once for each host, and again once they have changed; some are read from time to time.
func TestFindWays(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	r, k := waysOf(t, ns, 3*sampled)
	to, gone := netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("10.0.0.10")
	ns.Do(func() {
		r.findWays(0)
		if len(k.all) != 3*sampled || k.all[to].Via != to || r.detour() != "" {
			t.Errorf("%d ways; to %v: %+v; %s", len(k.all), to, k.all[to], r.detour())
		}
		ns.Run("ip", "route", "add", "10.0.0.9/32", "via", "10.0.0.2")
		r.findWays(0)
		if k.all[to].Via != to {
			t.Error("a known route is read again")
		}
		r.findWays(maxVTEPs)
		if k.all[to].Via != netip.MustParseAddr("10.0.0.2") {
			t.Errorf("the new route is not read: %+v", k.all[to])
		}
		ns.Run("ip", "route", "add", "unreachable", "10.0.0.10/32")
		for n := 0; r.detour() == "" && n < 10_000; n++ {
			r.findWays(sampled)
		}
		if _, ok := k.all[gone]; ok || len(k.all) != 3*sampled-1 || r.detour() == "" {
			t.Errorf("%d ways after one went unnoticed; %q", len(k.all), r.detour())
		}
		// Hosts that are no longer there have no ways, and new ones have.
		if err := r.t.configure([]port.VNI{{VNI: 7}}, []netip.Addr{to, netip.MustParseAddr("10.0.200.1")}, true); err != nil {
			t.Error(err)
		}
		r.findWays(0)
		want := map[netip.Addr]bool{to: true, netip.MustParseAddr("10.0.200.1"): true}
		for a := range maps.Keys(k.all) {
			if !want[a] {
				t.Errorf("%v has a way", a)
			}
		}
		if len(k.all) != 2 || r.detour() != "" {
			t.Errorf("the ways are %v; %s", k.all, r.detour())
		}
	})
}

// BenchmarkManyHosts: what a tunnel to 4,095 hosts does every ten seconds: it reads how long packets to
// each may be, and some of the routes. And all routes, as when one has changed.
func BenchmarkManyHosts(b *testing.B) {
	ns := testenv.NewNetns(b)
	r, _ := waysOf(b, ns, maxVTEPs)
	for name, do := range map[string]func(){
		"MTU":         func() { r.t.measure(true) },
		"routes=some": func() { r.findWays(sampled) },
		"routes=all":  func() { r.findWays(maxVTEPs) },
	} {
		b.Run(name, func(b *testing.B) {
			ns.Do(func() {
				r.findWays(0)
				for b.Loop() {
					do()
				}
			})
		})
	}
}
