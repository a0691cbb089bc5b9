package l2test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestVLANAware is bridge_vlan_aware on access ports and a trunk.
//
//	h1 ── p1 access 10            ┐
//	h2 ── p2 access 10            ┼ switch
//	h3 ── p3 access 20            │
//	h4 ── p4 trunk 10,20 native 1 ┘
func TestVLANAware(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4, "--aging", "4s")
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --access 10")
	l.sw.ctl("set-port p3 --access 20")
	l.sw.ctl("set-port p4 --trunk 10,20 --native 1")

	// Flooded in its VLAN alone, learned there, and tagged on the trunk.
	l.wantTags(l.want(h1, h1.toAll(), h4, h2), customer(10))
	l.sw.wantEntry(h1.mac, 10, "p1")
	l.sw.wantEntry(h1.mac, 1, "")
	l.wantTags(l.want(h3, h3.toAll(), h4), customer(20))
	l.want(h2, h2.to(h1), h1)
	l.want(h1, h1.to(h2), h2)
	l.wantTags(l.want(h4, h4.to(h1, customer(10)), h1))
	l.wantTags(l.want(h1, h1.to(h4), h4), customer(10))
	l.want(h3, h3.to(h1), h4) // in VLAN 20 it is unknown

	// The same station in two VLANs is two entries.
	l.want(h4, h4.toAll(customer(20)), h3)
	l.sw.wantEntry(h4.mac, 10, "p4")
	l.sw.wantEntry(h4.mac, 20, "p4")
	l.want(h3, h3.to(h4), h4)

	testenv.Eventually(t, "the entries have aged", func() bool { return l.sw.entry(h2.mac, 10).Port == "" })
	l.want(h1, h1.to(h2), h2, h4)

	l.address()
	l.wantPing(h1, h2, true)
	l.wantPing(h1, h3, false)
}

// TestPingOverTrunk has real traffic pass two switches and the trunk between them.
//
//	h1 ── p1 access 10 ─ switch ─ p3 trunk ══ q1 trunk ─ switch ─ q2 access 10 ── h4
//	h2 ── p2 access 20 ───┘                                └───── q3 access 20 ── h5
func TestPingOverTrunk(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	other := newLAN(t, 2)
	h1, h2, h4, h5 := l.hosts[0], l.hosts[1], other.hosts[0], other.hosts[1]
	ip(t, l.ns, "link add t1 type veth peer name t2 netns "+other.ns.Name+"\nlink set t1 up\n")
	ip(t, other.ns, "link set t2 up\n")
	l.sw.ctl("add-port t1 --kind netdev --trunk 10,20")
	other.sw.ctl("add-port t2 --kind netdev --trunk 10,20")
	for _, n := range []*lan{l, other} {
		n.sw.ctl("set-port p1 --access 10")
		n.sw.ctl("set-port p2 --access 20")
	}
	l.address()
	other.address()
	l.wantPing(h1, h4, true)
	l.wantPing(h2, h5, true)
	l.wantPing(h1, h2, false)
	l.wantPing(h1, h5, false)

	// VLAN 10 is deleted from the trunk, and comes back.
	l.sw.ctl("set-port t1 --trunk 20")
	l.wantPing(h1, h4, false)
	l.wantPing(h2, h5, true)
	l.sw.ctl("set-port t1 --trunk 10,20")
	l.wantPing(h1, h4, true)
}

// TestVLANDeletion takes a VLAN from a port, with the entries that were learned in it.
//
//	h1 ── p1 access 10   ┐
//	h2 ── p2 trunk 10,20 ┼ switch
//	h3 ── p3 access 10   ┘
func TestVLANDeletion(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --trunk 10,20")
	l.sw.ctl("set-port p3 --access 10")
	l.want(h2, h2.toAll(customer(10)), h1, h3)
	l.want(h2, h2.toAll(customer(20)))
	l.sw.wantEntry(h2.mac, 10, "p2")
	l.want(h1, h1.to(h2), h2)

	l.sw.ctl("set-port p2 --trunk 20")
	l.sw.wantEntry(h2.mac, 10, "")
	l.sw.wantEntry(h2.mac, 20, "p2")
	l.want(h1, h1.to(h2), h3)
	l.wantDrop(h2, h2.toAll(customer(10)), port.DropVLANFiltered)

	l.sw.ctl("set-port p2 --trunk 10,20")
	l.want(h1, h1.to(h2), h2, h3)

	// A mode replaces the one before; without any, tags mean nothing.
	l.sw.ctl("set-port p2 --access 10")
	l.wantDrop(h2, h2.toAll(customer(20)), port.DropVLANTagged)
	l.want(h2, h2.toAll(), h1, h3)
	for _, p := range []string{"p1", "p2", "p3"} {
		l.sw.ctl("set-port %s --no-vlan", p)
	}
	l.wantTags(l.want(h2, h2.toAll(customer(20)), h1, h3), customer(20))
	l.sw.wantEntry(h2.mac, 1, "p2")
}

// TestForeignTPID sends tags of the other kind: they name no VLAN, and the frame
// belongs to that of untagged ones.
//
//	h1 ── p1 trunk 10,20 native 10 ┐
//	h2 ── p2 access 10             ┼ switch
//	h3 ── p3 trunk 10,20           │
//	h4 ── p4 access 20             ┘
func TestForeignTPID(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4)
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("set-port p1 --trunk 10,20 --native 10")
	l.sw.ctl("set-port p2 --access 10")
	l.sw.ctl("set-port p3 --trunk 10,20")
	l.sw.ctl("set-port p4 --access 20")

	got := l.send(h1, h1.toAll(service(20)), h2, h3)
	if len(got[h2]) != 1 || len(got[h3]) != 1 || len(got[h4]) != 0 {
		t.Fatalf("h2 gets %d, h3 %d, h4 %d, want 1, 1, 0", len(got[h2]), len(got[h3]), len(got[h4]))
	}
	l.wantTags(tagsOf(got[h2][0]), service(20))
	l.wantTags(tagsOf(got[h3][0]), customer(10), service(20))
	l.sw.wantEntry(h1.mac, 10, "p1")
	l.wantTags(l.want(h2, h2.toAll(service(20), customer(20)), h1, h3), service(20), customer(20))

	// Where untagged frames are refused, so are these.
	l.wantDrop(h3, h3.toAll(service(20)), port.DropVLANUntagged)

	// An S-tagged trunk, in turn, knows no C-tags.
	l.sw.ctl("set-port p3 --trunk 10,20 --trunk-tpid 0x88a8 --native 20")
	l.wantTags(l.want(h1, h1.toAll(), h3, h2), service(10))
	l.want(h3, h3.toAll(service(10)), h1, h2)
	l.wantTags(l.want(h3, h3.toAll(customer(10)), h1), customer(20), customer(10))
}

// TestPriorityTag sends VID 0, which is a priority and no VLAN; the priority is kept
// where the frame leaves tagged.
//
//	h1 ── p1 access 10             ┐
//	h2 ── p2 trunk 10              ┼ switch
//	h3 ── p3 trunk 10,20 native 10 ┘
func TestPriorityTag(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --trunk 10")
	l.sw.ctl("set-port p3 --trunk 10,20 --native 10")
	const pcp5, dei = 5 << 13, 1 << 12
	priority := customer(pcp5 | dei)

	l.wantTags(l.want(h1, h1.toAll(priority), h2, h3), customer(pcp5|dei|10))
	l.wantTags(l.want(h3, h3.toAll(priority), h2, h1), customer(pcp5|dei|10))
	l.wantTags(l.want(h3, h3.toAll(priority), h1, h2)) // the trunk's tag is gone
	l.wantTags(l.want(h2, h2.toAll(customer(pcp5|10)), h1, h3))
	l.wantDrop(h2, h2.toAll(priority), port.DropVLANUntagged)
	l.sw.ctl("set-port p3 --native 0")
	l.wantTags(l.want(h2, h2.toAll(customer(pcp5|10)), h3, h1), customer(pcp5|10))
}

// TestAccept refuses frames for having a tag or for having none.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┴ switch
func TestAccept(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("set-port p2 --trunk 10,20")
	for _, c := range []struct {
		set                        string
		untagged, priority, tagged port.Drop // of VLAN 10
	}{
		{"--access 10", port.DropNone, port.DropNone, port.DropVLANTagged},
		{"--access 10 --accept all", port.DropNone, port.DropNone, port.DropNone},
		{"--access 10 --accept untagged", port.DropNone, port.DropNone, port.DropVLANTagged},
		{"--access 20 --accept all", port.DropNone, port.DropNone, port.DropVLANFiltered},
		{"--trunk 10", port.DropVLANUntagged, port.DropVLANUntagged, port.DropNone},
		{"--trunk 20 --native 20", port.DropNone, port.DropNone, port.DropVLANFiltered},
		{"--trunk 10 --native 20", port.DropNone, port.DropNone, port.DropNone},
		{"--trunk 10 --native 20 --accept tagged", port.DropVLANUntagged, port.DropVLANUntagged, port.DropNone},
		{"--trunk 10 --native 20 --accept untagged", port.DropNone, port.DropNone, port.DropVLANTagged},
	} {
		l.sw.ctl("set-port p1 %s", c.set)
		for _, f := range []struct {
			frame
			why port.Drop
		}{{h1.toAll(), c.untagged}, {h1.toAll(customer(0)), c.priority}, {h1.toAll(customer(10)), c.tagged}} {
			if f.why == port.DropNone {
				l.want(h1, f.frame, h2)
			} else {
				l.wantDrop(h1, f.frame, f.why)
			}
			if t.Failed() {
				t.Fatalf("with %s", c.set)
			}
		}
		l.sw.ctl("set-port p1 --no-vlan") // what belonged to the mode goes with it
	}
	l.sw.refuse("trunk", "set-port p1 --access 10 --accept tagged")
	l.sw.refuse("one of", "set-port p1 --access 10 --trunk 20")
	l.sw.refuse("4095", "set-port p1 --access 4095")
}

// TestAllVLANs has one trunk carry every VLAN there is to another.
//
//	h1 ── p1 trunk all ┐
//	h2 ── p2 trunk all ┴ switch
func TestAllVLANs(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 2)
	h1, h2 := l.hosts[0], l.hosts[1]
	for _, h := range l.hosts {
		l.sw.ctl("set-port %s --trunk 1-4094", h.port)
	}
	for _, vid := range []uint16{1, 2, 100, 2047, 2048, 4093, 4094} {
		l.wantTags(l.want(h1, h1.toAll(customer(vid)), h2), customer(vid))
		l.sw.wantEntry(h1.mac, vid, "p1")
	}
	l.wantDrop(h1, h1.toAll(customer(4095)), port.DropVLANFiltered) // reserved (802.1Q-2018 table 9-2)
}

// TestVLANList shows who is in which VLAN.
func TestVLANList(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --trunk 10,20 --native 30")
	var vlans []struct {
		VLAN             uint16
		Tagged, Untagged []string
	}
	l.sw.decode(&vlans, "vlan list")
	got := map[uint16][2]string{}
	for _, v := range vlans {
		got[v.VLAN] = [2]string{joined(v.Tagged), joined(v.Untagged)}
	}
	for vid, want := range map[uint16][2]string{1: {"", "p3"}, 10: {"p2", "p1"}, 20: {"p2", ""}, 30: {"", "p2"}} {
		if got[vid] != want {
			t.Errorf("VLAN %d has tagged and untagged members %q, want %q", vid, got[vid], want)
		}
	}
	if len(got) != 4 {
		t.Errorf("VLANs %v, want four", got)
	}
}
