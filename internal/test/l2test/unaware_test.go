package l2test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestVLANUnaware is bridge_vlan_unaware: ports that were told of no VLAN.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘
func TestVLANUnaware(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3, "--aging", "4s")
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]

	// Unknown, it is flooded; learned, it goes to its port alone, tagged or not.
	l.want(h1, h1.to(h2), h2, h3)
	l.sw.wantEntry(h1.mac, 1, "p1")
	l.want(h2, h2.to(h1), h1)
	l.sw.wantEntry(h2.mac, 1, "p2")
	l.want(h1, h1.to(h2), h2)
	l.wantTags(l.want(h1, h1.to(h2, customer(100)), h2), customer(100))
	l.wantTags(l.want(h1, h1.to(h2, service(100), customer(5)), h2), service(100), customer(5))
	l.want(h1, h1.toAll(), h2, h3)
	l.want(h3, frame{dst: 0x0100_5e01_0203, src: h3.mac}, h1, h2)
	l.wantDrop(h1, h1.to(h1), port.DropSamePort)

	// It moved.
	l.want(h3, h2.toAll(), h1, h2)
	l.sw.wantEntry(h2.mac, 1, "p3")
	l.want(h1, h1.to(h2), h3)
	l.want(h2, h2.to(h1), h1)

	// It aged.
	testenv.Eventually(t, "the entries have aged", func() bool { return l.sw.entry(h2.mac, 1).Port == "" })
	l.want(h1, h1.to(h2), h2, h3)
	l.want(h1, h1.to(h2), h2, h3)

	l.address()
	l.wantPing(h1, h2, true)
	l.wantPing(h3, h1, true)
}

// TestLearningOff has a port behind which nothing is learned, so frames to it are
// always flooded.
//
//	h1 ── p1 (learning off) ┐
//	h2 ── p2                ┼ switch
//	h3 ── p3                ┘
func TestLearningOff(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.want(h1, h1.toAll(), h2, h3)
	l.want(h2, h2.to(h1), h1)

	l.sw.ctl("set-port p1 --learning off")
	l.sw.ctl("fdb flush")
	l.want(h1, h1.toAll(), h2, h3)
	l.sw.wantEntry(h1.mac, 1, "")
	l.want(h2, h2.to(h1), h1, h3)

	l.sw.ctl("fdb add %s p1", h1.mac) // by hand all the same
	l.want(h2, h2.to(h1), h1)
	l.sw.ctl("fdb del %s", h1.mac)

	l.sw.ctl("set-port p1 --learning on")
	l.want(h1, h1.toAll(), h2, h3)
	l.sw.wantEntry(h1.mac, 1, "p1")
	l.want(h2, h2.to(h1), h1)
}

// TestFlood takes classes of frames out of what is flooded to p2.
//
//	h1 ── p1             ┐
//	h2 ── p2 (--flood …) ┼ switch
//	h3 ── p3             ┘
func TestFlood(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	const group, unknown = 0x0100_5e01_0203, 0x0200_0000_0099
	for _, c := range []struct {
		flood                         string
		broadcast, multicast, unicast bool
	}{
		{"all", true, true, true},
		{"multicast,unicast", false, true, true},
		{"broadcast,unicast", true, false, true},
		{"broadcast,multicast", true, true, false},
		{"none", false, false, false},
		{"all", true, true, true},
	} {
		l.sw.ctl("set-port p2 --flood %s", c.flood)
		for _, f := range []struct {
			frame
			reaches bool
		}{
			{h1.toAll(), c.broadcast},
			{frame{dst: group, src: h1.mac}, c.multicast},
			{frame{dst: unknown, src: h1.mac}, c.unicast},
		} {
			to := []*host{h3}
			if f.reaches {
				to = []*host{h3, h2}
			}
			l.want(h1, f.frame, to...)
		}
		// What is known is not flooded, and what p2 sends does not matter.
		l.want(h2, h2.toAll(), h1, h3)
		l.want(h1, h1.to(h2), h2)
	}
	l.sw.refuse("unicorns", "set-port p2 --flood unicorns")
}
