package netdev_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/netdev"
	"github.com/vswitch/vswitch/port/porttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// switch ── sw0 ═══ veth ═══ peer0 ── station
func TestConformance(t *testing.T) {
	ns := testenv.NewNetns(t)
	var serial atomic.Int32
	porttest.Run(t, func(t *testing.T) (f porttest.Fixture) {
		n := serial.Add(1)
		spec, peer := port.Spec{Name: fmt.Sprintf("sw%d", n)}, fmt.Sprintf("peer%d", n)
		veth(ns, spec.Name, peer, 65521)
		ns.Do(func() {
			// An S-tag counts for the MTU.
			// The station may be slow, and a veth does not wait for it.
			f = porttest.Fixture{Port: open(t, spec, new(port.Trace)), Peer: tuntest.Listen(t, peer), MaxLen: 65535 - 4, Offloads: true, Silent: true}
		})
		return f
	})
}

// veth makes a cable between two interfaces and sets both ends up.
func veth(ns *testenv.Netns, a, b string, mtu int) {
	ns.Run("ip", "link", "add", a, "mtu", fmt.Sprint(mtu), "type", "veth", "peer", "name", b, "mtu", fmt.Sprint(mtu))
	ns.Run("ip", "link", "set", a, "up")
	ns.Run("ip", "link", "set", b, "up")
}

// open opens a port in the calling thread's namespace.
func open(t *testing.T, spec port.Spec, trace *port.Trace) *netdev.Port {
	t.Helper()
	p, err := netdev.Kind{}.Open(spec, trace)
	if err != nil {
		t.Fatalf("open %s: %v", spec.Name, err)
	}
	t.Cleanup(func() { p.Close() })
	return p.(*netdev.Port)
}
