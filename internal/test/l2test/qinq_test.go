package l2test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// TestQinQ carries what customers send, tags and all, through a provider's trunk
// under their service VLANs.
//
//	h1 ── p1 QinQ 500 ─ switch ─ t1 trunk ══ t2 ─ switch ─ p1 QinQ 500 ── h4
//	h2 ── p2 QinQ 600 ───┤  by S-tags 500,600        └──── p2 QinQ 600 ── h5
//	h3 ── p3 trunk 500 ──┘
func TestQinQ(t *testing.T) {
	t.Parallel()
	l, other := newLAN(t, 3), newLAN(t, 2)
	h1, h2, h3, h4, h5 := l.hosts[0], l.hosts[1], l.hosts[2], other.hosts[0], other.hosts[1]
	ip(t, l.ns, "link add t1 type veth peer name t2 netns "+other.ns.Name+"\nlink set t1 up\n")
	ip(t, other.ns, "link set t2 up\n")
	l.sw.ctl("add-port t1 --kind netdev --trunk 500,600 --trunk-tpid 0x88a8")
	other.sw.ctl("add-port t2 --kind netdev --trunk 500,600 --trunk-tpid 0x88a8")
	for _, n := range []*lan{l, other} {
		n.sw.ctl("set-port p1 --qinq 500")
		n.sw.ctl("set-port p2 --qinq 600")
	}
	l.sw.ctl("set-port p3 --trunk 500 --trunk-tpid 0x88a8")
	testenv.Eventually(t, "the trunk is up", func() bool { return l.sw.port("t1").State == "up" && other.sw.port("t2").State == "up" })

	// As seen on the trunk: the service tag in front, with the customer's priority.
	const pcp3 = 3 << 13
	whole := &lan{t: t, sw: l.sw, hosts: []*host{h1, h2, h3, h4, h5}}
	for _, c := range []struct{ sent, trunk []port.Tag }{
		{nil, []port.Tag{service(500)}},
		{[]port.Tag{customer(10)}, []port.Tag{service(500), customer(10)}},
		{[]port.Tag{customer(pcp3 | 10)}, []port.Tag{service(pcp3 | 500), customer(pcp3 | 10)}},
		{[]port.Tag{customer(0)}, []port.Tag{service(500), customer(0)}},
		{[]port.Tag{service(600)}, []port.Tag{service(500), service(600)}},
		{[]port.Tag{service(600), customer(10)}, []port.Tag{service(500), service(600), customer(10)}},
	} {
		got := whole.send(h1, h1.toAll(c.sent...), h3, h4)
		if len(got[h2]) != 0 || len(got[h5]) != 0 {
			t.Errorf("tags %#x reach the other customer", c.sent)
		}
		if len(got[h3]) != 1 || len(got[h4]) != 1 {
			t.Fatalf("tags %#x: %d frames on the trunk, %d at the other site, want 1 and 1", c.sent, len(got[h3]), len(got[h4]))
		}
		l.wantTags(tagsOf(got[h3][0]), c.trunk...)
		l.wantTags(tagsOf(got[h4][0]), c.sent...)
	}
	l.sw.wantEntry(h1.mac, 500, "p1")
	other.sw.wantEntry(h1.mac, 500, "t2")

	// From the trunk, a C-tag is foreign and a VLAN not carried is refused.
	whole.wantTags(whole.want(h3, h3.toAll(service(500), customer(7)), h1, h4), customer(7))
	whole.wantDrop(h3, h3.toAll(customer(500)), port.DropVLANUntagged)
	whole.wantDrop(h3, h3.toAll(service(600)), port.DropVLANFiltered)

	l.address()
	other.address()
	l.wantPing(h1, h4, true)
	l.wantPing(h2, h5, true)
	l.wantPing(h1, h5, false)
}
