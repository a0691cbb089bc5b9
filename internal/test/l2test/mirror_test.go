package l2test

import (
	"bytes"
	"slices"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
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
	if p := l.sw.port("p1"); daemontest.FastPath() && !p.FastPath.On {
		t.Errorf("a port with such a mirror is off the fast path: %v", p.FastPath.Off)
	}
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

// TestMirrorBulk copies a TCP transfer, by a filter, from one of two ports that stay on the fast
// path. Its super-frames reach the observer whole or in pieces.
func TestMirrorBulk(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	l.address()
	h1, h2 := l.hosts[0], l.hosts[1]
	l.sw.ctl("mirror add m0 --from p1 --direction in --to p3 --filter tcp")
	const size = 256 << 10
	before := l.sw.port("p3").TX.Bytes
	l.bulk(h1, h2, h2.v4, size)
	testenv.Eventually(t, "the observer has all", func() bool { return l.sw.port("p3").TX.Bytes-before > size })
	l.wantNoLies()
	l.sw.wantBalance()
	if p := l.sw.port("p1"); daemontest.FastPath() && (!p.FastPath.On || p.FastPath.Frames == 0) {
		t.Errorf("the fast path of the source: %+v", p.FastPath)
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

// TestMirrorOfLAG copies what passes a port of two links, and copies to it.
//
//	h1 ── p1 ┐        ┌─ p3 ── h3
//	         switch lag0
//	h2 ── p2 ┘        └─ p4 ── h4
func TestMirrorOfLAG(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 4)
	h1, h2, h3, h4 := l.hosts[0], l.hosts[1], l.hosts[2], l.hosts[3]
	l.sw.ctl("del-port p3")
	l.sw.ctl("del-port p4")
	l.sw.ctl("add-port lag0 --kind lag --lag-mode static --members p3,p4")
	h3.port, h4.port = "lag0", "lag0"
	l.sw.awaitMembers("lag0", "active active")
	// want sends a frame until it is clear who gets it: of h3 and h4, lag is to get it once.
	want := func(what string, from *host, f frame, lag bool, to ...*host) {
		t.Helper()
		got := l.send(from, f, to...)
		for _, h := range []*host{h1, h2} {
			if n := len(got[h]); n > 1 || (n == 1) != slices.Contains(to, h) {
				t.Errorf("%s: %s gets it %d times", what, h.port, n)
			}
		}
		if n := len(got[h3]) + len(got[h4]); n > 1 || (n == 1) != lag {
			t.Errorf("%s: lag0 gets it %d times, want it: %v", what, n, lag)
		}
	}
	want("a broadcast", h1, h1.toAll(), true, h2)
	want("a broadcast by a member", h3, h3.toAll(), false, h1, h2)
	want("a broadcast by the other", h4, h4.toAll(), false, h1, h2)
	want("to the port", h1, h1.to(h3), true)

	l.sw.ctl("mirror add m0 --from lag0 --to p2")
	for range 2 { // once known, frames of both paths
		want("mirrored, out", h1, h1.to(h3), true, h2)
		want("mirrored, in", h3, h3.to(h1), false, h1, h2)
		want("mirrored, in by the other", h4, h4.to(h1), false, h1, h2)
		want("mirrored, a broadcast", h1, h1.toAll(), true, h2)
	}
	l.sw.ctl("mirror del m0")
	want("no longer", h1, h1.to(h3), true)

	l.sw.ctl("mirror add m0 --from p1 --to lag0")
	want("known again", h2, h2.toAll(), true, h1) // the copy of what leaves by p1
	for range 2 {
		want("mirrored to it, in", h1, h1.to(h2), true, h2)
		want("mirrored to it, out", h2, h2.to(h1), true, h1)
	}
	before := l.sw.dropped("lag0", port.DropMirrorTarget)
	want("from the target", h3, h3.toAll(), false)
	want("from the target, the other", h4, h4.toAll(), false)
	if n := l.sw.dropped("lag0", port.DropMirrorTarget) - before; n != 2 {
		t.Errorf("%d frames from the target are dropped as such", n)
	}
}
