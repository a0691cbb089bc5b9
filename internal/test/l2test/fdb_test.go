package l2test

import (
	"fmt"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// station is an address that no host has.
func station(n int) port.MAC { return port.MAC(0x02_00_00_01_00_00 + n) }

// from makes a broadcast frame of a station.
func from(n int) frame { return frame{dst: port.Broadcast, src: station(n)} }

// TestLearningLimit is bridge_fdb_learning_limit, the limit being a port's.
//
//	h1 ── p1 (--learn-limit 3) ┐
//	h2 ── p2                   ┴ switch
func TestLearningLimit(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	const limit = 3
	l.sw.ctl("set-port p1 --learn-limit %d", limit)

	// What was entered by hand does not count.
	l.sw.ctl("fdb add %s p1", station(100))
	l.sw.ctl("fdb add %s p1", station(101))
	for n := range limit {
		l.want(h1, from(n), h2)
		l.sw.wantEntry(station(n), 1, "p1")
	}
	// Beyond it, a frame passes and its station stays unknown.
	l.want(h1, from(limit), h2)
	l.sw.wantEntry(station(limit), 1, "")
	l.want(h1, from(0), h2)
	l.sw.wantEntry(station(0), 1, "p1")
	l.sw.ctl("fdb add %s p1", station(102))
	l.sw.wantEntry(station(102), 1, "p1")
	// The other port has no limit.
	for n := range limit + 2 {
		l.want(h2, from(10+n), h1)
		l.sw.wantEntry(station(10+n), 1, "p2")
	}

	// An entry that goes makes room for another.
	l.sw.ctl("fdb del %s", station(0))
	l.want(h1, from(limit), h2)
	l.sw.wantEntry(station(limit), 1, "p1")
	l.sw.ctl("set-port p1 --learn-limit 0")
	l.want(h1, from(0), h2)
	l.sw.wantEntry(station(0), 1, "p1")
}

// TestOwnAddressOfHost: a guest that claims the address of the host's own interface does not get the
// host's frames, also once that has another address or other VLANs.
//
//	h1 ── p1  ┐
//	h2 ── p2  ┤
//	host  gw0 ┴ switch
func TestOwnAddressOfHost(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("add-port gw0 --kind host")
	for _, own := range []port.MAC{station(50), station(51)} {
		ip(t, l.ns, fmt.Sprintf("link set gw0 address %s\n", own))
		testenv.Eventually(t, "the host's address is entered", func() bool { return l.sw.entry(own, 1).Port == "gw0" })
		l.want(h1, frame{dst: port.Broadcast, src: own}, h2)
		l.sw.wantEntry(own, 1, "gw0")
		l.want(h2, frame{dst: own, src: h2.mac})
	}
	l.sw.wantEntry(station(50), 1, "")
	l.sw.ctl("set-port gw0 --access 20")
	l.sw.wantEntry(station(51), 20, "gw0")
	l.sw.wantEntry(station(51), 1, "")
	l.sw.ctl("del-port gw0")
	l.sw.wantEntry(station(51), 20, "")
}

// TestLearningProtect drops what stations beyond the limit send.
//
//	h1 ── p1 (--learn-limit 2 --learn-action protect) ┐
//	h2 ── p2                                          ┴ switch
func TestLearningProtect(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("set-port p1 --learn-limit 2 --learn-action protect")
	l.sw.ctl("fdb add %s p1", station(100))
	l.want(h1, from(0), h2)
	l.want(h1, from(1), h2)
	l.wantDrop(h1, from(2), port.DropLearnLimit)
	l.sw.wantEntry(station(2), 1, "")
	l.want(h1, from(1), h2)
	l.want(h1, from(100), h2)

	// A station that moves away makes room.
	l.want(h2, from(1), h1)
	l.want(h1, from(2), h2)
	l.wantDrop(h1, from(1), port.DropLearnLimit)
}

// TestLearningShutdown shuts a port down at the first station beyond the limit, for a
// while.
//
//	h1 ── p1 (--learn-limit 1 --learn-action shutdown) ┐
//	h2 ── p2                                           ┼ switch
//	h3 ── p3                                           ┘
func TestLearningShutdown(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3, "--recovery", "4s")
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --learn-limit 1 --learn-action shutdown")
	state := func() api.State { return l.sw.port("p1").State }

	l.want(h1, from(0), h2, h3)
	l.wantDrop(h1, from(1), port.DropLearnLimit)
	testenv.Eventually(t, "p1 is shut down", func() bool { return state() == api.StateDown })
	if p := l.sw.port("p1"); p.Reason == "" {
		t.Error("p1 is down without a reason")
	}
	l.wantDrop(h1, from(0), port.DropPortDown)
	l.want(h2, h2.toAll(), h3)
	l.sw.wantEntry(station(0), 1, "")

	testenv.Eventually(t, "p1 has recovered", func() bool { return state() == api.StateUp })
	l.want(h1, from(1), h2, h3)
	l.wantDrop(h1, from(0), port.DropLearnLimit)

	// Or at once, by hand.
	testenv.Eventually(t, "p1 is shut down again", func() bool { return state() == api.StateDown })
	l.sw.ctl("set-port p1 --learn-limit 0")
	if s := state(); s != api.StateUp {
		t.Errorf("after set-port p1 is %s", s)
	}
	l.want(h1, from(0), h2, h3)
	l.want(h1, from(1), h2, h3)
}

// TestSticky is bridge_sticky_fdb: traffic by another port moves no sticky entry.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘
func TestSticky(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("fdb add %s p1 --sticky", station(0))
	l.sw.ctl("fdb add %s p1", station(1))
	for n, kind := range []string{"sticky", "static"} {
		l.want(h2, from(n), h1, h3)
		if e := l.sw.entry(station(n), 1); e.Port != "p1" || e.Type != kind {
			t.Errorf("the %s entry is now %+v", kind, e)
		}
		l.want(h3, frame{dst: station(n), src: h3.mac}, h1)
	}
	// A dynamic one moves.
	l.want(h1, from(2), h2, h3)
	l.want(h2, from(2), h1, h3)
	l.sw.wantEntry(station(2), 1, "p2")
	l.sw.ctl("fdb del %s", station(0))
	l.want(h2, from(0), h1, h3)
	l.sw.wantEntry(station(0), 1, "p2")
}

// TestStaticDoesNotAge: entries made from outside stay while learned ones go.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestStaticDoesNotAge(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2, "--aging", "1s")
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("fdb add %s p1", station(0))
	for range 2 {
		l.want(h1, from(1), h2)
		l.sw.wantEntry(station(1), 1, "p1")
		testenv.Eventually(t, "the learned entry is gone", func() bool { return l.sw.entry(station(1), 1).Port == "" })
		l.sw.wantEntry(station(0), 1, "p1")
	}
}

// TestLocked is bridge_locked_port.
//
//	h1 ── p1 (locked) ┐
//	h2 ── p2          ┼ switch
//	h3 ── p3          ┘
func TestLocked(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.want(h1, h1.toAll(), h2, h3)
	l.sw.ctl("set-port p1 --locked")
	l.want(h1, h1.toAll(), h2, h3) // it was learned before, and keeps its place
	l.sw.ctl("fdb flush")
	l.wantDrop(h1, h1.toAll(), port.DropLocked)
	l.sw.wantEntry(h1.mac, 1, "")
	l.want(h2, h2.to(h1), h1, h3) // towards it nothing is locked
	l.sw.ctl("fdb add %s p1", h1.mac)
	l.want(h1, h1.to(h2), h2)
	l.wantDrop(h1, from(0), port.DropLocked)

	// A station may go to an unlocked port, and not back.
	l.want(h2, from(1), h1, h3)
	l.sw.wantEntry(station(1), 1, "p2")
	l.wantDrop(h1, from(1), port.DropLocked)
	l.sw.wantEntry(station(1), 1, "p2")
	// With an entry by hand at another port it is still no station of p1.
	l.sw.ctl("fdb add %s p2", station(2))
	l.wantDrop(h1, from(2), port.DropLocked)

	// An entry counts in its own VLAN only.
	l.sw.ctl("set-port p1 --trunk 10,20")
	l.sw.ctl("fdb add %s p1 --vlan 10", h1.mac)
	l.sw.ctl("set-port p2 --trunk 10,20")
	l.want(h1, h1.toAll(customer(10)), h2)
	l.wantDrop(h1, h1.toAll(customer(20)), port.DropLocked)
	l.sw.ctl("set-port p1 --locked=false")
	l.want(h1, h1.toAll(customer(20)), h2)

	l.sw.ctl("set-port p1 --no-vlan --locked")
	l.sw.ctl("set-port p2 --no-vlan")
	l.sw.ctl("fdb del %s", h1.mac)
	l.address()
	l.wantPing(h1, h2, false)
	l.sw.wantEntry(h1.mac, 1, "")
	l.sw.ctl("fdb add %s p1", h1.mac)
	l.wantPing(h1, h2, true)
}
