package l2test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// super is a super-frame from a to b. Even a slow machine sends several Gbit/s of them.
func (p *pair) super() (wire []byte, o port.Offload) {
	wire, o = tuntest.TCP4(30_000)
	copy(wire, p.b.mac.HardwareAddr())
	copy(wire[6:], p.a.mac.HardwareAddr())
	return wire, o
}

// flood has a send super-frames to b, as fast as it goes, and returns how many come.
func (p *pair) flood(n int) (came int) {
	p.t.Helper()
	var sending sync.WaitGroup
	sending.Go(func() {
		wire, o := p.super()
		for range n {
			if err := p.a.Send(wire, o); err != nil {
				p.t.Error(err)
				return
			}
		}
	})
	defer sending.Wait()
	for {
		wire, _, err := p.b.Recv(time.Second)
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return came
		case err != nil:
			p.t.Error(err)
			return came
		case port.MACFrom(wire) == p.b.mac:
			came++
		}
	}
}

// root is the kind of queueing discipline at a device's root.
func (p *pair) root(device string) string {
	p.t.Helper()
	return strings.Fields(p.ns.Run("tc", "qdisc", "show", "dev", device, "root"))[1]
}

// TestFastShaped has the kernel keep an egress rate: the port stays on the fast path, all that is lost
// is counted, the rate holds while the daemon is away, and the switch keeps it where the kernel
// does not.
func TestFastShaped(t *testing.T) {
	t.Parallel()
	p := newPair(t)
	const n = 400 // a second of the rate
	wire, _ := p.super()
	shaped := func(what string) {
		t.Helper()
		before, lost, fast := p.sw.port("vm1").TX, p.sw.dropped("vm1", port.DropShaped), p.fast()
		came := p.flood(n)
		after := p.sw.port("vm1")
		if sent, lost := int(after.TX.Frames-before.Frames), p.sw.dropped("vm1", port.DropShaped)-lost; sent != came || lost == 0 || came < 5 {
			t.Errorf("%s: of %d frames %d come, %d were sent and %d are counted as shaped", what, n, came, sent, lost)
		}
		if bytes := after.TX.Bytes - before.Bytes; bytes != uint64(len(wire)*came) {
			t.Errorf("%s: %d bytes are counted for %d frames of %d", what, bytes, came, len(wire))
		}
		if on := after.FastPath.On; on != (p.fast()-fast == n) {
			t.Errorf("%s: on the fast path is %v, and %d frames take it", what, on, p.fast()-fast)
		}
		p.sw.wantBalance()
	}
	wantRoot := func(kind string) {
		t.Helper()
		testenv.Eventually(t, kind+" is at vm1", func() bool { return p.root("vm1") == kind })
	}

	was := p.root("vm1")
	p.sw.ctl("set-port vm1 --rate-out 100mbit")
	wantRoot("htb")
	shaped("at first")
	if f := p.sw.port("vm1").FastPath; !f.On {
		t.Errorf("a shaped port is off the fast path: %v", f.Off)
	}

	// What the kernel drops is shown.
	c := p.sw.begin("drops", "--follow", "--count", "1", "--reason", "shaped", "--port", "vm1")
	p.flood(n)
	if out, _ := c.end(); !strings.Contains(out, "vm1 out") || !strings.Contains(out, p.a.mac.String()+" > "+p.b.mac.String()) {
		t.Errorf("shown is %q", out)
	}

	// The daemon dies, and another one takes the port.
	p.sw.Kill()
	if came := p.flood(n); came < 5 || came == n {
		t.Errorf("without a daemon %d of %d frames come", came, n)
	}
	p.sw.Restart(t)
	p.wantFast(true)
	wantRoot("htb")
	shaped("after a restart")

	// Others take it off, or put theirs there.
	p.ns.Run("tc", "qdisc", "del", "dev", "vm1", "root")
	wantRoot("htb")
	testenv.Eventually(t, "vm1 is on the fast path again", func() bool { return p.sw.port("vm1").FastPath.On })
	shaped("after it was taken off")
	p.ns.Run("tc", "qdisc", "replace", "dev", "vm1", "root", "pfifo", "limit", "10000")
	testenv.Eventually(t, "the switch keeps the rate", func() bool {
		return strings.Contains(strings.Join(p.sw.port("vm1").FastPath.Off, " "), "pfifo")
	})
	shaped("behind a discipline of others")
	p.ns.Run("tc", "qdisc", "del", "dev", "vm1", "root")
	wantRoot("htb")

	// Rates that the kernel cannot keep.
	for rate, why := range map[string]string{"2000pps": "frames", "9mbit": "10mbit"} {
		p.sw.ctl("set-port vm1 --rate-out %s", rate)
		if off := strings.Join(p.sw.port("vm1").FastPath.Off, " "); !strings.Contains(off, why) || p.root("vm1") == "htb" {
			t.Errorf("--rate-out %s with %s: %q", rate, p.root("vm1"), off)
		}
	}
	p.sw.ctl("set-port vm1 --rate-out 1gbit")
	wantRoot("htb")
	p.sw.ctl("set-port vm1 --rate-out off")
	if is := p.root("vm1"); is != was && is != "pfifo_fast" {
		t.Errorf("without a rate vm1 has %s in place of %s", is, was)
	}
	if came := p.flood(500); came != 500 {
		t.Errorf("without a rate %d of 500 frames come", came)
	}
	p.sw.wantBalance()
}

// TestFastShapedHellos has a guest fill the queue of a shaped port: hellos of spanning tree leave by it all
// the same, at once.
func TestFastShapedHellos(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tap", "netdev"} {
		p := newPair(t, "--stp=on")
		to := "vm1"
		hears := p.b.Recv
		if kind == "netdev" {
			peer := quietNetns(t)
			ip(t, p.ns, "link add nic0 type veth peer name eth0 netns "+peer.Name+"\nlink set nic0 up\n")
			ip(t, peer, "link set eth0 up\n")
			var station *tuntest.Station
			peer.Do(func() { station = tuntest.Listen(t, "eth0") })
			hears, to = station.Recv, "nic0"
			p.sw.ctl("add-port nic0 --kind netdev --exclusive --stp-edge on")
			p.sw.AwaitState(t, to, api.StateUp)
			p.sw.ctl("fdb add %s nic0", p.b.mac)
		}
		p.sw.ctl("set-port %s --rate-out 100mbit", to)
		if root := p.root(to); root != "htb" {
			t.Fatalf("%s has %s", to, root)
		}
		stop := make(chan struct{})
		var sending sync.WaitGroup
		sending.Go(func() {
			for {
				wire, o := p.super()
				for range 4 { // several times the rate
					if err := p.a.Send(wire, o); err != nil {
						t.Error(err)
						return
					}
				}
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
			}
		})
		hellos := 0
		for begin := time.Now(); time.Since(begin) < 9*time.Second && hellos < 3; {
			wire, _, err := hears(5 * time.Second)
			if err != nil {
				t.Error(err)
				break
			}
			if port.MACFrom(wire) == 0x0180_c200_0000 {
				hellos++
			}
		}
		close(stop)
		sending.Wait()
		if lost := p.sw.dropped(to, port.DropShaped); hellos < 3 || lost == 0 {
			t.Errorf("%s: %d hellos come in nine seconds, and %d frames are lost", kind, hellos, lost)
		}
	}
}
