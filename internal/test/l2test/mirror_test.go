package l2test

import (
	"bytes"
	"testing"

	"github.com/vswitch/vswitch/port"
)

// TestMirrorToPort copies what p1 sends and gets to p3, which takes no part else.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘ ⇐ copies of p1
func TestMirrorToPort(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.want(h1, h1.toAll(), h2, h3)
	l.want(h2, h2.toAll(), h1, h3)
	l.want(h3, h3.toAll(), h1, h2)
	l.want(h1, h1.to(h2), h2)

	l.sw.ctl("mirror add m0 --from p1 --to p3")
	l.want(h1, h1.to(h2), h2, h3)
	l.want(h2, h2.to(h1), h1, h3)
	l.want(h1, h1.toAll(), h2, h3) // the copy, and no second one by flooding
	l.wantTags(l.want(h1, h1.to(h2, customer(7)), h3, h2), customer(7))
	l.wantDrop(h3, h3.toAll(), port.DropMirrorTarget)
	l.want(h2, h2.to(h3)) // nor is it a destination

	// One direction.
	l.sw.ctl("mirror del m0")
	l.want(h1, h1.to(h2), h2)
	l.want(h3, h3.to(h1), h1)
	l.sw.ctl("mirror add m0 --from p1 --direction in --to p3")
	l.want(h1, h1.to(h2), h2, h3)
	l.want(h2, h2.to(h1), h1)
	l.sw.ctl("mirror del m0")
	l.sw.ctl("mirror add m0 --from p1 --direction out --to p3")
	l.want(h1, h1.to(h2), h2)
	l.want(h2, h2.to(h1), h1, h3)
	l.sw.ctl("mirror del m0")

	l.sw.refuse("p1", "mirror add m0 --from p1 --to p1")
	l.sw.refuse("p9", "mirror add m0 --from p1 --to p9")
}

// TestMirrorFilter copies some frames, and of those the beginning.
//
//	h1 ── p1 ┐
//	h2 ── p2 ┼ switch
//	h3 ── p3 ┘ ⇐ copies of p1
func TestMirrorFilter(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.want(h1, h1.toAll(), h2, h3)
	l.want(h2, h2.toAll(), h1, h3)
	arp := h1.to(h2)
	arp.etherType = 0x0806
	for _, c := range []struct {
		filter          []string
		all, arp, other bool // h1 to h2, of ARP, and h2 to h1
	}{
		{[]string{"arp"}, false, true, false},
		{[]string{"not", "arp"}, true, false, true},
		{[]string{"ether", "host", station(0).String()}, false, false, false},
		{[]string{"(", "arp", "or", "ip6", ")", "and", "not", "tcp"}, false, true, false},
	} {
		args := []string{"mirror", "add", "m0", "--from", "p1", "--to", "p3", "--filter", joined(c.filter)}
		if out, err := l.sw.Try(args...); err != nil {
			t.Fatalf("vswitch %s: %s", joined(args), out)
		}
		for _, f := range []struct {
			from, to *host
			frame
			copied bool
		}{{h1, h2, h1.to(h2), c.all}, {h1, h2, arp, c.arp}, {h2, h1, h2.to(h1), c.other}} {
			to := []*host{f.to}
			if f.copied {
				to = append(to, h3)
			}
			l.want(f.from, f.frame, to...)
		}
		if t.Failed() {
			t.Fatalf("filter %q", c.filter)
		}
		l.sw.ctl("mirror del m0")
	}
	if out, err := l.sw.Try("mirror", "add", "m0", "--from", "p1", "--to", "p3", "--filter", "arp or or"); err == nil {
		t.Errorf("a filter without sense is accepted: %s", out)
	}

	// Of VLANs it is the tag on the wire that counts.
	l.sw.ctl("set-port p1 --trunk 10,20 --native 1")
	l.sw.ctl("set-port p2 --access 10")
	if out, err := l.sw.Try("mirror", "add", "m0", "--from", "p1,p2", "--to", "p3", "--filter", "vlan 10"); err != nil {
		t.Fatal(out)
	}
	l.wantTags(l.want(h1, h1.to(h2, customer(10)), h3, h2), customer(10)) // as it came in by p1, not as it left by p2
	l.wantTags(l.want(h2, h2.to(h1), h3, h1), customer(10))
	l.want(h1, h1.toAll(customer(20)))
	l.sw.ctl("mirror del m0")
	l.sw.ctl("set-port p1 --no-vlan")
	l.sw.ctl("set-port p2 --no-vlan")

	const snap = 64
	l.sw.ctl("mirror add m0 --from p1 --to p3 --snaplen %d", snap)
	long := h1.to(h2)
	long.size = 1000
	got := l.send(h1, long, h2, h3)
	if len(got[h2]) != 1 || len(got[h3]) != 1 {
		t.Fatalf("h2 gets %d frames, h3 %d, want 1 and 1", len(got[h2]), len(got[h3]))
	}
	if n := len(got[h2][0]); n != long.size {
		t.Errorf("the original has %d bytes, want %d", n, long.size)
	}
	if !bytes.Equal(got[h3][0], got[h2][0][:snap]) {
		t.Errorf("the copy is % x, want the first %d bytes of the original", got[h3][0], snap)
	}
}

// TestMirrorToVLAN copies VLAN 10 into VLAN 900, which a trunk carries to where it is
// looked at (RSPAN).
//
//	h1 ── p1 access 10     ┐
//	h2 ── p2 access 10     ┼ switch
//	h3 ── p3 access 20     │
//	h4 ── p4 trunk 20,900  ┘ ⇐ copies of VLAN 10 and of p3
func TestMirrorToVLAN(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4)
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("set-port p1 --access 10")
	l.sw.ctl("set-port p2 --access 10")
	l.sw.ctl("set-port p3 --access 20")
	l.sw.ctl("set-port p4 --trunk 20,900")
	l.sw.ctl("mirror add m0 --from-vlan 10 --direction in --to-vlan 900")
	l.wantTags(l.want(h1, h1.toAll(), h4, h2), customer(900))
	l.wantTags(l.want(h2, h2.to(h1), h4, h1), customer(900))
	l.wantTags(l.want(h3, h3.toAll(), h4), customer(20)) // the trunk goes on switching

	l.sw.ctl("mirror add m1 --from p3 --direction in --to-vlan 900")
	got := l.send(h3, h3.toAll(), h4, h4)
	if len(got[h4]) != 2 {
		t.Fatalf("h4 gets %d frames, want the original and its copy", len(got[h4]))
	}
	tags := append(tagsOf(got[h4][0]), tagsOf(got[h4][1])...)
	if tags[0].VID() == 900 {
		tags[0], tags[1] = tags[1], tags[0]
	}
	l.wantTags(tags, customer(20), customer(900))

	var mirrors []struct{ Name string }
	l.sw.decode(&mirrors, "mirror list")
	if len(mirrors) != 2 || mirrors[0].Name != "m0" || mirrors[1].Name != "m1" {
		t.Errorf("mirror list shows %v, want m0 and m1", mirrors)
	}
}
