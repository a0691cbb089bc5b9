package l2test

import (
	"testing"

	"github.com/vswitch/vswitch/port"
)

// TestIsolation is bridge_port_isolation.
//
//	h1 ── p1 (isolated) ┐
//	h2 ── p2 (isolated) ┼ switch
//	h3 ── p3            ┘
func TestIsolation(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --isolated")
	l.sw.ctl("set-port p2 --isolated")

	// Flooded, and where the destination is known.
	l.want(h1, h1.toAll(), h3)
	l.want(h2, h2.toAll(), h3)
	l.want(h3, h3.toAll(), h1, h2)
	l.want(h1, frame{dst: 0x0100_5e01_0203, src: h1.mac}, h3)
	l.want(h1, frame{dst: station(0), src: h1.mac}, h3)
	l.wantDrop(h1, h1.to(h2), port.DropIsolated)
	l.want(h1, h1.to(h3), h3)
	l.want(h3, h3.to(h1), h1)

	l.address()
	l.wantPing(h1, h2, false)
	l.wantPing(h1, h3, true)
	l.wantPing(h3, h2, true)

	l.sw.ctl("set-port p2 --isolated=false")
	l.wantPing(h1, h2, true)
}
