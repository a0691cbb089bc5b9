package vmtest_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// portOf returns the port that the FDB has for a guest, "" if none.
func portOf(t *testing.T, sw *daemontest.Daemon, g *vmtest.Guest) string {
	t.Helper()
	entries, err := sw.Client.FDB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.MAC.String() == g.MAC {
			return e.Port
		}
	}
	return ""
}

// states tells the state of each port, behind its name.
func states(t *testing.T, sw *daemontest.Daemon) (states []string) {
	t.Helper()
	ports, err := sw.Client.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		states = append(states, fmt.Sprintf("%s %s", p.Name, p.State))
	}
	return states
}

// guest is the options of guest number i, the first being 0.
func guest(ns *testenv.Netns, i int) vmtest.Options {
	return vmtest.Options{
		Name:  string(rune('a' + i)),
		Netns: ns,
		Tap:   "vm" + strconv.Itoa(i),
		MAC:   fmt.Sprintf("52:54:00:00:00:%02x", i+1),
		IP:    netip.MustParsePrefix(fmt.Sprintf("10.0.0.%d/24", i+1)),
	}
}

func sum(t *testing.T, g *vmtest.Guest, file string) string {
	t.Helper()
	return strings.Fields(g.Run(t, "sha256sum %s", file))[0]
}

// TestGuests has three guests behind one switch. Its parts follow one another.
//
//	guest a ⇄ vm0 ─┐
//	guest b ⇄ vm1 ─┼─ vswitch
//	guest c ⇄ vm2 ─┘
func TestGuests(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	sw := daemontest.Start(t, ns)
	var guests []*vmtest.Guest
	for i := range 3 {
		o := guest(ns, i)
		if i < 2 {
			sw.Ctl(t, "add-port %s", o.Tap) // before its VM starts
		}
		guests = append(guests, vmtest.Start(t, o))
	}
	a, b, c := guests[0], guests[1], guests[2]
	// c made its TAP itself and is there before its port is.
	c.Run(t, "true")
	sw.Ctl(t, "add-port vm2")
	vmtest.Wait(t, guests...)
	for _, g := range guests {
		sw.AwaitState(t, g.Tap, api.StateUp)
		g.Serve(t)
	}

	t.Run("ping", func(t *testing.T) {
		vmtest.Reach(t, guests...)
		for _, g := range guests {
			if p := portOf(t, sw, g); p != g.Tap {
				t.Errorf("%s is learned at port %q, want %s", g.MAC, p, g.Tap)
			}
		}
	})

	t.Run("tcp", func(t *testing.T) {
		for _, way := range [][2]*vmtest.Guest{{a, b}, {b, c}, {c, a}} {
			way[0].Fetch(t, way[1])
		}
		b.Run(t, "iperf3 -s -1 -D")
		var report struct {
			End struct {
				Received struct{ Bytes int } `json:"sum_received"`
			}
		}
		if err := json.Unmarshal([]byte(a.Run(t, "iperf3 -J -t 1 -c %s", b.IP.Addr())), &report); err != nil {
			t.Fatal(err)
		}
		if report.End.Received.Bytes == 0 {
			t.Error("iperf3 received nothing")
		}
	})

	// The next parts count frames, so no guest may ask for an address anew.
	for _, g := range guests {
		for _, other := range guests {
			if other != g {
				g.Run(t, "arp -s %s %s", other.IP.Addr(), other.MAC)
			}
		}
	}

	t.Run("known unicast is not flooded", func(t *testing.T) {
		// A NIC that is not promiscuous drops in QEMU what is not for it, and
		// would hide a flood.
		c.Run(t, "ip link set eth0 promisc on")
		vmtest.Reach(t, a, b)
		before := c.Counter(t, "rx_packets")
		vmtest.Reach(t, a, b)
		a.Fetch(t, b)
		if n := c.Counter(t, "rx_packets") - before; n != 0 {
			t.Errorf("c saw %d frames between a and b", n)
		}
		// An unknown station's frames are: so c would have seen the others.
		const absent, n = "10.0.0.99", 3
		before = c.Counter(t, "rx_packets")
		a.Run(t, "arp -s %s 52:54:00:00:00:99", absent)
		if got := a.Ping(t, netip.MustParseAddr(absent), n); got != 0 {
			t.Errorf("%d pings to nobody were answered", got)
		}
		testenv.Eventually(t, "c sees unknown unicast", func() bool { return c.Counter(t, "rx_packets")-before == n })
	})

	t.Run("broadcast reaches all", func(t *testing.T) {
		const n = 3
		beforeB, beforeC := b.Counter(t, "rx_packets"), c.Counter(t, "rx_packets")
		// Nobody has the address, so the status tells nothing.
		a.Run(t, "arping -c %d -w 5 -I eth0 10.0.0.77 || true", n)
		testenv.Eventually(t, "b and c see each request once", func() bool {
			return b.Counter(t, "rx_packets")-beforeB == n && c.Counter(t, "rx_packets")-beforeC == n
		})
	})

	t.Run("tagged frames", func(t *testing.T) {
		for i, g := range []*vmtest.Guest{a, b} {
			g.Run(t, "vconfig add eth0 100 && ip addr add 10.1.0.%d/24 dev eth0.100 && ip link set eth0.100 up", i+1)
		}
		if got := a.Ping(t, netip.MustParseAddr("10.1.0.2"), 5); got != 5 {
			t.Errorf("%d of 5 pings in VLAN 100 answered", got)
		}
	})

	t.Run("offloads", func(t *testing.T) {
		for _, send := range []string{"on", "off"} {
			for _, receive := range []string{"on", "off"} {
				b.Run(t, "ethtool -K eth0 tso %s", send)
				a.Run(t, "ethtool -K eth0 rx-gro-hw %s", receive)
				t.Run("TSO "+send+" to GRO "+receive, func(t *testing.T) { a.Fetch(t, b) })
			}
		}
		b.Run(t, "ethtool -K eth0 tso on")
		a.Run(t, "ethtool -K eth0 rx-gro-hw on")
	})

	t.Run("tap in use", func(t *testing.T) {
		second := vmtest.Start(t, guest(ns, 0))
		if got := second.Exit(t); !strings.Contains(got, "Device or resource busy") {
			t.Errorf("a second QEMU on %s says %q", a.Tap, got)
		}
		vmtest.Reach(t, a, b)
	})

	t.Run("guest killed and restarted", func(t *testing.T) {
		b.Kill()
		sw.AwaitState(t, b.Tap, api.StateNoCarrier)
		b.Restart(t)
		vmtest.Wait(t, b)
		sw.AwaitState(t, b.Tap, api.StateUp)
		vmtest.Reach(t, a, b)
		b.Serve(t)
	})

	t.Run("daemon killed under a transfer", func(t *testing.T) {
		// The bytes come slowly, so that the transfer is surely in its midst.
		const chunks = 100
		b.Run(t, `mkdir -p /tmp/www/cgi-bin && dd if=/dev/urandom of=/tmp/chunk bs=64k count=1 && cat >/tmp/www/cgi-bin/slow <<'END'
#!/bin/sh
printf 'Content-Type: application/octet-stream\r\n\r\n'
for i in $(seq %d); do cat /tmp/chunk; usleep 50000; done
END
chmod +x /tmp/www/cgi-bin/slow`, chunks)
		want := strings.Fields(b.Run(t, "for i in $(seq %d); do cat /tmp/chunk; done | sha256sum", chunks))[0]
		size := func() int {
			n, err := strconv.Atoi(a.Run(t, "stat -c %%s /tmp/slow"))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		a.Run(t, "rm -f /tmp/done; >/tmp/slow; (wget -q -O /tmp/slow http://%s/cgi-bin/slow; echo $? >/tmp/done) >/dev/null 2>&1 &", b.IP.Addr())
		const whole = chunks * 64 << 10
		testenv.Eventually(t, "a tenth of the bytes came", func() bool { return size() > whole/10 })

		before := states(t, sw)
		sw.Kill()
		if n := size(); n >= whole {
			t.Fatal("the transfer was over before the daemon was killed")
		}
		sw.Restart(t)
		testenv.Eventually(t, "the transfer ends", func() bool { return a.Run(t, "cat /tmp/done 2>/dev/null; true") == "0" })
		if got := sum(t, a, "/tmp/slow"); got != want {
			t.Error("the bytes that came are others")
		}
		if after := states(t, sw); !slices.Equal(before, after) {
			t.Errorf("ports were %v, are %v", before, after)
		}
		vmtest.Reach(t, b, c)
	})
}
