package vmtest_test

import (
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// end is a station with a TCP of its own: a guest, or a namespace.
type end struct {
	name string
	addr netip.Addr
	run  func(t testing.TB, command string) string
}

func guestEnd(g *vmtest.Guest) end {
	return end{g.Name, g.IP.Addr(), func(t testing.TB, command string) string {
		t.Helper()
		return g.Run(t, "%s", command)
	}}
}

// netnsEnd has a namespace serve files from dir as guests do.
func netnsEnd(t *testing.T, name string, ns *testenv.Netns, addr string) end {
	t.Helper()
	busybox, dir := testenv.Tool(t, "busybox"), t.TempDir()
	e := end{name, netip.MustParseAddr(addr), func(t testing.TB, command string) string {
		t.Helper()
		out, err := ns.Command(busybox, "sh", "-c", strings.ReplaceAll(command, "/tmp/", dir+"/")).Output()
		if err != nil {
			t.Fatalf("%s: %s: %v", name, command, err)
		}
		return strings.TrimSpace(string(out))
	}}
	e.run(t, "mkdir /tmp/www && dd if=/dev/urandom of=/tmp/www/data bs=1M count=4 2>/dev/null")
	web := ns.Command(busybox, "httpd", "-f", "-p", addr+":80", "-h", dir+"/www")
	if err := web.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { web.Process.Kill(); web.Wait() })
	testenv.Eventually(t, name+" serves", func() bool {
		return ns.Command(busybox, "wget", "-q", "-O", "/dev/null", "http://"+addr+"/data").Run() == nil
	})
	return e
}

// exchange has every end fetch from every other what it serves, by TCP, and compares
// the bytes.
func exchange(t *testing.T, ends ...end) {
	t.Helper()
	for _, from := range ends {
		want := from.run(t, "sha256sum </tmp/www/data")
		for _, to := range ends {
			if to.addr == from.addr {
				continue
			}
			if got := to.run(t, fmt.Sprintf("wget -q -O - http://%s/data | sha256sum", from.addr)); got != want {
				t.Errorf("from %s to %s: the bytes that came are others", from.name, to.name)
			}
		}
	}
}

// wantGoodSums checks that no end has received a wrong checksum, in all its life.
func wantGoodSums(t *testing.T, ends ...end) {
	t.Helper()
	for _, e := range ends {
		// Lines come in pairs: names, and values under them.
		lines := strings.Split(e.run(t, "cat /proc/net/snmp"), "\n")
		seen := 0
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j, name := range names {
				if name != "InCsumErrors" {
					continue
				}
				seen++
				if values[j] != "0" {
					t.Errorf("%s received %s packets with a wrong checksum: %s", e.name, names[0], values[j])
				}
			}
		}
		if seen == 0 {
			t.Errorf("%s counts no wrong checksums", e.name)
		}
	}
}

// TestOffloads has stations that leave work to others and stations that take none
// exchange TCP, each with each. Its parts follow one another.
//
//	guest a, MTU 9000    ⇄ vm0 tap ─┐
//	guest b              ⇄ vm1 tap ─┤
//	guest c, no offloads ⇄ vm2 tap ─┼─ vswitch
//	far, a namespace  ⇄ up0 netdev ─┤
//	the host, MTU 9000     ⇄ host0 ─┘
func TestOffloads(t *testing.T) {
	t.Parallel()
	ns, farNS := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "eth0", "netns", farNS.Name)
	ns.Run("ip", "link", "set", "up0", "up")
	farNS.Run("ip", "addr", "add", "10.0.0.253/24", "dev", "eth0")
	farNS.Run("ip", "link", "set", "eth0", "up")
	sw := daemontest.Start(t, ns)
	sw.Ctl(t, "add-port vm0 --mtu 9000")
	sw.Ctl(t, "add-port vm1")
	sw.Ctl(t, "add-port vm2")
	sw.Ctl(t, "add-port up0 --kind netdev --exclusive")
	sw.Ctl(t, "add-port host0 --kind host --mtu 9000 --address 10.0.0.254/24")
	var guests []*vmtest.Guest
	for i := range 3 {
		o := guest(ns, i)
		switch i {
		case 0:
			o.Net = strings.Fields(sw.Ctl(t, "qemu-args vm0"))
		case 2:
			for _, feature := range []string{
				"csum", "gso", "host_tso4", "host_tso6", "host_ecn", "host_ufo",
				"guest_csum", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo",
			} {
				o.Machine = append(o.Machine, "-global", "virtio-net-pci."+feature+"=off")
			}
		}
		guests = append(guests, vmtest.Start(t, o))
	}
	host, far := netnsEnd(t, "host", ns, "10.0.0.254"), netnsEnd(t, "far", farNS, "10.0.0.253")
	vmtest.Wait(t, guests...)
	var ends []end
	for _, g := range guests {
		g.Serve(t)
		ends = append(ends, guestEnd(g))
	}
	a, b, c := guests[0], guests[1], guests[2]
	ends = append(ends, host, far)

	t.Run("each with each", func(t *testing.T) {
		exchange(t, ends...)
		wantGoodSums(t, ends...)
		// The test has tested what it says: a leaves segmentation to others, c
		// neither leaves nor takes it.
		if p := sw.Port(t, "vm0"); p.RX.Bytes < 9014*p.RX.Frames {
			t.Errorf("a sent %d bytes in %d frames: no super-frames", p.RX.Bytes, p.RX.Frames)
		}
		if p := sw.Port(t, "vm2"); p.RX.Bytes > 1514*p.RX.Frames {
			t.Errorf("c sent %d bytes in %d frames: super-frames", p.RX.Bytes, p.RX.Frames)
		}
		if bytes, frames := c.Counter(t, "rx_bytes"), c.Counter(t, "rx_packets"); bytes > 1514*frames {
			t.Errorf("c received %d bytes in %d frames: super-frames", bytes, frames)
		}
	})

	t.Run("jumbo frames", func(t *testing.T) {
		if mtu := a.Run(t, "cat /sys/class/net/eth0/mtu"); mtu != "9000" {
			t.Errorf("a's NIC has an MTU of %s", mtu)
		}
		// With don't-fragment set: 8972 bytes and 28 of headers are one packet.
		ns.Run("ping", "-n", "-q", "-M", "do", "-s", "8972", "-c", "3", "-i", "0.1", "-w", "10", a.IP.Addr().String())
		err := ns.Command("ping", "-n", "-q", "-M", "do", "-s", "8973", "-c", "1", "-w", "2", a.IP.Addr().String()).Run()
		if _, failed := err.(*exec.ExitError); !failed {
			t.Errorf("a packet of 9001 bytes: %v", err)
		}
	})

	// iperf runs TCP both ways between two guests while f does something to them.
	iperf := func(t *testing.T, from, to *vmtest.Guest, seconds int, f func()) {
		t.Helper()
		to.Run(t, "iperf3 -s -1 -D")
		from.Run(t, "rm -f /tmp/done; (iperf3 -c %s --bidir -t %d >/tmp/iperf 2>&1; echo $? >/tmp/done) >/dev/null 2>&1 &", to.IP.Addr(), seconds)
		f()
		testenv.Eventually(t, "iperf3 ends", func() bool { return from.Run(t, "cat /tmp/done 2>/dev/null; true") != "" })
		if status := from.Run(t, "cat /tmp/done"); status != "0" {
			t.Errorf("iperf3 between %s and %s: %s", from.Name, to.Name, from.Run(t, "cat /tmp/iperf"))
		}
	}

	t.Run("offloads changed under traffic", func(t *testing.T) {
		iperf(t, a, b, 4, func() {
			for range 4 {
				for _, on := range []string{"off", "on"} {
					b.Run(t, "ethtool -K eth0 tx %s tso %s gso %s && ethtool -K eth0 rx-gro-hw %s", on, on, on, on)
				}
			}
		})
		iperf(t, c, a, 2, func() {
			a.Run(t, "ethtool -K eth0 tx off")
			a.Run(t, "ethtool -K eth0 tx on tso on")
		})
		exchange(t, ends[:3]...)
		wantGoodSums(t, ends...)
	})

	t.Run("driver bound again", func(t *testing.T) {
		// Without a driver the TAP takes nothing undone, then not all that it did.
		b.Run(t, "cd /sys/bus/virtio/drivers/virtio_net && nic=$(ls -d virtio*) && echo $nic >unbind && echo $nic >bind")
		b.Run(t, "ip addr add %s dev eth0 && ip link set eth0 up && ethtool -K eth0 rx-gro-hw off", b.IP)
		sw.AwaitState(t, "vm1", api.StateUp)
		exchange(t, guestEnd(a), guestEnd(b), far)
		wantGoodSums(t, ends...)
	})

	wantFast(t, sw)
	for _, p := range []string{"vm0", "vm1", "vm2", "up0", "host0"} {
		d := sw.Port(t, p)
		if n := d.RX.Dropped["bad_offload"] + d.TX.Dropped["bad_offload"] + d.TX.Dropped["too_big"]; n != 0 {
			t.Errorf("%s dropped %d frames that were good: %v, %v", p, n, d.RX.Dropped, d.TX.Dropped)
		}
	}
}
