package l2test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
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

// TestLoopThroughGuest has a guest bridge its two interfaces: one of them is shut down
// as soon as somebody speaks.
//
//	h1 ── p1 ┐          ┌ x1 ── y1 ┐
//	h2 ── p2 ┴ switch ──┴ x2 ── y2 ┴ bridge
func TestLoopThroughGuest(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2, "--loop-detect")
	h1, h2 := l.hosts[0], l.hosts[1]
	guest := quietNetns(t)
	ip(t, guest, "link add br0 type bridge\nlink set br0 up\n")
	for _, n := range []string{"1", "2"} {
		ip(t, l.ns, fmt.Sprintf("link add x%s type veth peer name y%s netns %s\nlink set x%s up\n", n, n, guest.Name, n))
		ip(t, guest, fmt.Sprintf("link set y%s up master br0\n", n))
		l.sw.ctl("add-port x%s --kind netdev --stp-edge on --storm-broadcast 100pps --storm-multicast 100pps", n)
	}
	testenv.Eventually(t, "one interface of the guest is shut down", func() bool {
		wire, _ := h1.toAll().wire()
		if err := h1.Send(wire, port.Offload{}); err != nil {
			t.Fatal(err)
		}
		return l.sw.port("x1").State == api.StateDown || l.sw.port("x2").State == api.StateDown
	})
	if a, b := l.sw.port("x1"), l.sw.port("x2"); a.State == b.State || !strings.Contains(a.Reason+b.Reason, "loop: ") {
		t.Errorf("x1 is %s (%s), x2 is %s (%s)", a.State, a.Reason, b.State, b.Reason)
	}
	l.want(h1, h1.toAll(), h2)
	l.want(h2, h2.to(h1), h1)
	l.awaitUp()
}

// TestLoopDetectWithTree has two links to a bridge, of which spanning tree blocks one: that
// is no loop.
//
//	h1 ── p1 ── switch ──┬ x1 ── y1 ┐
//	                     └ x2 ── y2 ┴ bridge, the root
func TestLoopDetectWithTree(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1, "--loop-detect", "--stp")
	root := quietNetns(t)
	ip(t, root, "link add br0 type bridge stp_state 1 priority 0 hello_time 100 forward_delay 400 max_age 600\nlink set br0 up\n")
	for _, n := range []string{"1", "2"} {
		ip(t, l.ns, fmt.Sprintf("link add x%s type veth peer name y%s netns %s\nlink set x%s up\n", n, n, root.Name, n))
		ip(t, root, fmt.Sprintf("link set y%s up master br0\n", n))
		l.sw.ctl("add-port x%s --kind netdev", n)
	}
	testenv.Eventually(t, "the tree is there", func() bool {
		return strings.HasPrefix(l.sw.part("x1"), "root forwarding") && strings.HasPrefix(l.sw.part("x2"), "alternate discarding")
	})
	before := l.sw.port("x1").TX.Frames // only probes leave by a root port
	testenv.Eventually(t, "probes leave", func() bool { return l.sw.port("x1").TX.Frames >= before+5 })
	for _, name := range []string{"x1", "x2"} {
		if p := l.sw.port(name); p.State != api.StateUp {
			t.Errorf("%s is %s: %s", name, p.State, p.Reason)
		}
	}
}

// TestBPDUGuardTakesAnything has a station send what is no BPDU to the address of
// BPDUs, and to that of PVST+.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestBPDUGuardTakesAnything(t *testing.T) {
	t.Parallel()
	const bpdus, pvst = port.MAC(0x0180_c200_0000), port.MAC(0x0100_0ccc_cccd)
	l := newLAN(t, 2, "--stp")
	h1 := l.hosts[0]
	l.sw.ctl("set-port p1 --stp-edge on --bpdu-guard on")
	l.sw.ctl("set-port p2 --stp-edge on")
	for _, f := range []frame{
		{dst: bpdus, src: h1.mac},
		{dst: bpdus, src: h1.mac, size: 1500},
		{dst: bpdus, src: h1.mac, tags: []port.Tag{customer(5)}},
		{dst: bpdus, src: h1.mac, tags: []port.Tag{service(5), customer(6)}},
		{dst: bpdus, src: port.Broadcast},
		{dst: pvst, src: h1.mac},
	} {
		testenv.Eventually(t, "p1 is up", func() bool { return l.sw.port("p1").State == api.StateUp })
		l.want(h1, f)
		testenv.Eventually(t, "p1 is shut down", func() bool { return l.sw.port("p1").State == api.StateDown })
		if p := l.sw.port("p1"); !strings.Contains(p.Reason, "BPDU guard") {
			t.Errorf("%v: %s", f, p.Reason)
		}
		l.sw.ctl("set-port p1 --bpdu-guard on")
	}
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
