package l2test

import (
	"regexp"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestReserved sends to the addresses that bridges keep for themselves: none is
// forwarded but what --group-forward names.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestReserved(t *testing.T) {
	t.Parallel()
	const lldp = 0xe
	l := newLAN(t, 2, "--group-forward", "0x4000")
	h1, h2 := l.hosts[0], l.hosts[1]
	for low := range port.MAC(16) {
		f := frame{dst: 0x0180_c200_0000 | low, src: h1.mac}
		if low == lldp {
			l.want(h1, f, h2)
		} else {
			l.wantDrop(h1, f, port.DropReserved)
		}
	}
	l.want(h1, frame{dst: 0x0180_c200_0010, src: h1.mac}, h2) // the first that is not
}

// TestLoopDetect joins two ports by a cable, without a spanning tree.
//
//	h1 ── p1 ┐          ┌ x1
//	h2 ── p2 ┴ switch ──┤  ║
//	                    └ x2
func TestLoopDetect(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2, "--loop-detect")
	h1, h2 := l.hosts[0], l.hosts[1]
	ip(t, l.ns, "link add x1 type veth peer name x2\nlink set x1 up\nlink set x2 up\n")
	l.sw.ctl("add-port x1 --kind netdev")
	l.sw.ctl("add-port x2 --kind netdev")
	var shut api.Port
	testenv.Eventually(t, "one end of the cable is shut down", func() bool {
		for _, name := range []string{"x1", "x2"} {
			if p := l.sw.port(name); p.State == api.StateDown {
				shut = p
				return true
			}
		}
		return false
	})
	if !regexp.MustCompile(`loop.*x[12]`).MatchString(shut.Reason) {
		t.Errorf("%s is down for the reason %q", shut.Name, shut.Reason)
	}
	// Each host gets a broadcast once, and the others are up.
	l.want(h1, h1.toAll(), h2)
	l.want(h2, h2.to(h1), h1)
	l.awaitUp()
}

// TestFlapping has a station send by two ports in turn.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘
func TestFlapping(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3, "--hold-down", "3s")
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	info := func() api.Switch {
		sw, err := l.sw.Client.Switch(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return sw
	}
	// Two moves are those of a machine that migrates and comes back.
	l.want(h1, from(0), h2, h3)
	l.want(h2, from(0), h1, h3)
	l.want(h1, from(0), h2, h3)
	l.sw.wantEntry(station(0), 1, "p1")
	if n := info().FDB.Flaps; n != 0 {
		t.Errorf("%d flaps after two moves", n)
	}
	for range 3 {
		l.want(h2, from(0), h1, h3)
		l.want(h1, from(0), h2, h3)
	}
	testenv.Eventually(t, "the station is found flapping", func() bool { return info().FDB.Flaps == 1 })
	testenv.Eventually(t, "it is held", func() bool { return l.sw.entry(station(0), 1).Type == "sticky" })
	if at := l.sw.entry(station(0), 1).Port; at != "p1" {
		t.Errorf("the station is held at %s, want p1, where it was first", at)
	}
	l.want(h2, from(0), h1, h3)
	l.sw.wantEntry(station(0), 1, "p1")
	if !regexp.MustCompile(`flap.*` + station(0).String() + `.*p[12].*p[12]`).MatchString(l.sw.Log()) {
		t.Error("the log does not name the station and both ports")
	}
	testenv.Eventually(t, "it is free again", func() bool { return l.sw.entry(station(0), 1).Type == "dynamic" })
	l.want(h2, from(0), h1, h3)
	l.sw.wantEntry(station(0), 1, "p2")
}
