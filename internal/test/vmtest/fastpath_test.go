package vmtest_test

import (
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// wantFast checks that the kernel has forwarded frames, where it may.
func wantFast(t *testing.T, sw *daemontest.Daemon) {
	t.Helper()
	about, err := sw.Client.Switch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f := about.FastPath; f.On != daemontest.FastPath() || (f.Frames > 0) != f.On {
		t.Errorf("the fast path is %+v, want it on: %v", f, daemontest.FastPath())
	}
}

// TestFastTaggedTCP has the kernel push and pop the tags of super-frames, and cut some
// of them: all bytes come, with right checksums.
//
//	guest a, eth0.100 ⇄ vm0 trunk 100  ─┐
//	guest b           ⇄ vm1 access 100 ─┼─ vswitch
//	guest c, eth0.100 ⇄ vm2 trunk 100  ─┘
func TestFastTaggedTCP(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	sw := daemontest.Start(t, ns, "--fastpath", "require")
	sw.Ctl(t, "add-port vm0 --trunk 100")
	sw.Ctl(t, "add-port vm1 --access 100")
	sw.Ctl(t, "add-port vm2 --trunk 100")
	var guests []*vmtest.Guest
	for i := range 3 {
		guests = append(guests, vmtest.Start(t, guest(ns, i)))
	}
	a, b, c := guests[0], guests[1], guests[2]
	vmtest.Wait(t, guests...)
	var ends []end
	for _, g := range guests {
		if g != b {
			g.Run(t, "ip addr del %s dev eth0 && vconfig add eth0 100 && ip addr add %s dev eth0.100 && ip link set eth0.100 up", g.IP, g.IP)
		}
		g.Serve(t)
		ends = append(ends, guestEnd(g))
	}
	for _, tso := range []string{"on", "off"} {
		c.Run(t, "ethtool -K eth0 tso %s gso %s rx-gro-hw %s", tso, tso, tso)
		exchange(t, ends...)
		wantGoodSums(t, ends...)
	}
	if p := sw.Port(t, a.Tap); p.RX.Bytes < 3000*p.RX.Frames {
		t.Errorf("a sent %d bytes in %d frames: no super-frames", p.RX.Bytes, p.RX.Frames)
	}
	wantFast(t, sw)
}
