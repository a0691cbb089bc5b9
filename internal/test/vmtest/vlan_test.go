package vmtest_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
	"github.com/vswitch/vswitch/internal/test/vmtest/console"
	"github.com/vswitch/vswitch/internal/test/vmtest/guestimg"
)

// withIPv6 has a guest's kernel keep IPv6 at hand, off until it is asked for.
func withIPv6(o vmtest.Options) vmtest.Options {
	args := o.Args(guestimg.Image{}, "")
	line := args[slices.Index(args, "-append")+1]
	o.Machine = append(o.Machine, "-append", strings.Replace(line, "ipv6.disable=1", "ipv6.disable_ipv6=1", 1))
	return o
}

// withoutQueries does what is measured, again if the switch's querier spoke meanwhile: it
// does in each VLAN, twice in the first minute and every other minute from then on.
func withoutQueries(t *testing.T, sw *daemontest.Daemon, measure func()) {
	t.Helper()
	sent := func() uint64 {
		mdb, err := sw.Client.MDB(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return mdb.Messages.QueriesSent
	}
	for range 5 {
		before := sent()
		measure()
		if sent() == before {
			return
		}
	}
	t.Fatal("the querier never pauses")
}

// TestVLANGuests has guests in VLANs, with multicast snooped. Its parts follow one
// another.
//
//	guest a, eth0.100 ⇄ vm0 trunk 100  ─┐
//	guest b           ⇄ vm1 access 100 ─┼─ vswitch --snooping --querier
//	guest c           ⇄ vm2 access 200 ─┤
//	           gw0 host, access 100    ─┘
func TestVLANGuests(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	busybox := testenv.Tool(t, "busybox")
	sw := daemontest.Start(t, ns, "--snooping", "--querier")
	sw.Ctl(t, "add-port vm0 --trunk 100")
	sw.Ctl(t, "add-port vm1 --access 100")
	sw.Ctl(t, "add-port vm2 --access 200")
	sw.Ctl(t, "add-port gw0 --kind host --access 100 --address 10.0.0.254/24")
	var guests []*vmtest.Guest
	for i := range 3 {
		guests = append(guests, vmtest.Start(t, withIPv6(guest(ns, i))))
	}
	a, b, c := guests[0], guests[1], guests[2]
	vmtest.Wait(t, guests...)
	// What a sends untagged has no VLAN, so it cannot be what reaches the others.
	a.Run(t, "ip addr del %s dev eth0 && vconfig add eth0 100 && ip addr add %s dev eth0.100 && ip link set eth0.100 up", a.IP, a.IP)
	// Without it, a NIC hides from the counters what is not for it.
	for _, g := range []*vmtest.Guest{b, c} {
		g.Run(t, "ip link set eth0 promisc on")
	}

	t.Run("vlan", func(t *testing.T) {
		var seen int // by c
		withoutQueries(t, sw, func() {
			before := c.Counter(t, "rx_packets")
			vmtest.Reach(t, a, b)
			if n := a.Ping(t, c.IP.Addr(), 2); n != 0 {
				t.Errorf("c in VLAN 200 answers a in VLAN 100 %d times", n)
			}
			if n := b.Ping(t, c.IP.Addr(), 2); n != 0 {
				t.Errorf("c in VLAN 200 answers b in VLAN 100 %d times", n)
			}
			seen = c.Counter(t, "rx_packets") - before
		})
		if seen != 0 {
			t.Errorf("c sees %d frames of VLAN 100", seen)
		}
		// With c in VLAN 100 the same ping is answered.
		sw.Ctl(t, "set-port vm2 --access 100")
		vmtest.Reach(t, a, c)
		sw.Ctl(t, "set-port vm2 --access 200")
	})

	t.Run("igmp", func(t *testing.T) {
		const group, n = "239.1.2.3:5000", 20
		dir := t.TempDir()
		build := exec.Command("go", "build", "-o", filepath.Join(dir, "joingroup"), "./cmd/joingroup")
		build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOARCH=amd64")
		if out, err := build.CombinedOutput(); err != nil {
			t.Fatalf("go build: %v: %s", err, out)
		}
		web := ns.Command(busybox, "httpd", "-f", "-p", "10.0.0.254:80", "-h", dir)
		if err := web.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { web.Process.Kill(); web.Wait() })
		a.Run(t, "for i in $(seq 50); do wget -q -O /tmp/joingroup http://10.0.0.254/joingroup && break; usleep 100000; done; chmod +x /tmp/joingroup")

		stream := func(prefix string) {
			t.Helper()
			ns.Do(func() {
				conn, err := net.DialUDP("udp", &net.UDPAddr{IP: net.IPv4(10, 0, 0, 254)}, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(group)))
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				for i := range n {
					if _, err := fmt.Fprintf(conn, "%s %d", prefix, i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		ns.Run("ip", "route", "add", "239.0.0.0/8", "dev", "gw0")

		// Nobody has joined: it is flooded in its VLAN.
		before := b.Counter(t, "rx_packets")
		stream("flooded")
		testenv.Eventually(t, "b sees what nobody joined", func() bool { return b.Counter(t, "rx_packets")-before >= n })

		a.Run(t, "/tmp/joingroup eth0.100 %s >/tmp/stream 2>&1 &", group)
		testenv.Eventually(t, "the switch knows the group", func() bool {
			return strings.Contains(sw.Ctl(t, "mdb list"), "239.1.2.3")
		})
		// Until hosts had the time to answer the querier's first query, groups are flooded.
		testenv.Eventually(t, "the group is no longer flooded", func() bool {
			before := b.Counter(t, "rx_packets")
			stream("early")
			return b.Counter(t, "rx_packets") == before
		})
		var seenB, seenC, sent int
		for range 3 { // now and then a station solicits or resolves something
			withoutQueries(t, sw, func() {
				beforeB, beforeC := b.Counter(t, "rx_packets"), c.Counter(t, "rx_packets")
				stream("joined")
				sent += n
				testenv.Eventually(t, "a gets the stream", func() bool {
					lines, err := strconv.Atoi(a.Run(t, "grep -c joined /tmp/stream; true"))
					return err == nil && lines == sent
				})
				seenB, seenC = b.Counter(t, "rx_packets")-beforeB, c.Counter(t, "rx_packets")-beforeC
			})
			if seenB == 0 && seenC == 0 {
				break
			}
		}
		if seenB != 0 {
			t.Errorf("b, which has not joined, sees %d frames", seenB)
		}
		if seenC != 0 {
			t.Errorf("c in VLAN 200 sees %d frames", seenC)
		}
		a.Run(t, "killall joingroup")
	})

	t.Run("ipv6", func(t *testing.T) {
		for i, g := range []*vmtest.Guest{a, b} {
			nic := []string{"eth0.100", "eth0"}[i]
			// Without the check for duplicates, which takes seconds.
			g.Run(t, "cd /proc/sys/net/ipv6/conf && echo 0 >%[1]s/accept_dad && echo 0 >%[1]s/disable_ipv6 && ip addr add fd00::%[2]d/64 dev %[1]s", nic, i+1)
		}
		for _, way := range []struct {
			from *vmtest.Guest
			to   string
		}{{a, "fd00::2"}, {b, "fd00::1"}} {
			out, err := way.from.TryRun("ping6 -c 5 -i 0.2 -W 5 %s", way.to)
			var exit *console.ExitError
			if err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if !strings.Contains(out, " 5 packets received") {
				t.Errorf("ping6 from %s to %s: %s", way.from.Name, way.to, out)
			}
		}
	})
}
