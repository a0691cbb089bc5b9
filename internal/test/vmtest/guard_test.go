package vmtest_test

import (
	"encoding/json"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// addresses returns those that a guarded port learned from a source, and how many seconds each
// is still valid.
func addresses(t *testing.T, sw *daemontest.Daemon, port, source string) map[string]int64 {
	t.Helper()
	var all []struct {
		Address, Source, State string
		ExpiresS               int64 `json:"expires_s"`
	}
	if err := json.Unmarshal([]byte(sw.Ctl(t, "guard list %s -o json", port)), &all); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]int64)
	for _, b := range all {
		if b.Source == source && b.State == "bound" {
			found[b.Address] = b.ExpiresS
		}
	}
	return found
}

// TestGuardedGuest has a guest behind a guarded port get its addresses from another guest: a
// lease of dnsmasq's, short leases that it renews by unicast, and IPv6 addresses that it forms,
// temporary ones too. What it has by nobody goes nowhere, and it takes nothing from others.
//
//	guest a                ⇄ vm0, guarded ─┐
//	guest b, DHCP and RA   ⇄ vm1, guarded ─┼─ vswitch
//	eth0, a's neighbour    ⇄ s0 ───────────┘
func TestGuardedGuest(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	testenv.Tool(t, "dnsmasq")
	ns, neighbour := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "s0", "type", "veth", "peer", "name", "eth0", "netns", neighbour.Name)
	ns.Run("ip", "link", "set", "s0", "up")
	neighbour.Run("ip", "link", "set", "eth0", "up")
	neighbour.Run("ip", "addr", "add", "10.99.0.9/24", "dev", "eth0")

	sw := daemontest.Start(t, ns)
	sw.Ctl(t, "add-port s0 --kind netdev --exclusive")
	o, router := guest(ns, 0), guest(ns, 1)
	router.IP, router.Programs = netip.MustParsePrefix("10.99.0.1/24"), []string{"dnsmasq"}
	o.IPv6, router.IPv6 = true, true
	sw.Ctl(t, "add-port vm0 --guard on --guard-mac %s", o.MAC)
	sw.Ctl(t, "add-port vm1 --guard on --guard-mac %s --guard-address 10.99.0.1 --guard-address fd98::1 --guard-learn none --guard-allow dhcp-server,router", router.MAC)
	a, b := vmtest.Start(t, o), vmtest.Start(t, router)
	vmtest.Wait(t, a, b)
	t.Cleanup(func() {
		if t.Failed() {
			for _, g := range []*vmtest.Guest{a, b} {
				out, err := g.TryRun("ip addr; ip neigh; tail -n 40 /tmp/*.log")
				t.Logf("guest %s: %v\n%s", g.Name, err, out)
			}
		}
	})
	b.Run(t, "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad && ip addr add fd98::1/64 dev eth0 && mkdir -p /etc && echo root:x:0:0::/root:/bin/sh > /etc/passwd && echo root:x:0: > /etc/group")

	// The guest's address is one that nobody gave it.
	if out, err := a.TryRun("ip addr add 10.99.0.77/24 dev eth0 && ping -c 2 -W 1 10.99.0.1"); err == nil {
		t.Errorf("an address of nobody reaches the router:\n%s", out)
	}
	a.Run(t, "ip addr flush dev eth0 scope global")

	serve := func(name, flags string) {
		b.Run(t, "dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=eth0 --bind-interfaces --user=root --group=root --pid-file --dhcp-leasefile=/tmp/%[1]s.leases %[2]s </dev/null >/tmp/%[1]s.log 2>&1 & echo $! > /tmp/%[1]s.pid", name, flags)
	}
	a.Run(t, `printf '#!/bin/sh\ncase $1 in deconfig) ip addr flush dev $interface scope global;; bound|renew) ip addr replace $ip/24 dev $interface;; esac\n' > /tmp/lease && chmod +x /tmp/lease`)
	ask := func() {
		a.Run(t, "udhcpc -i eth0 -t 20 -T 1 -A 1 -b -p /tmp/udhcpc.pid -s /tmp/lease </dev/null >>/tmp/udhcpc.log 2>&1")
	}
	// until is when the lease of an address ends, or the zero time.
	until := func(address string) (end time.Time) {
		if left, has := addresses(t, sw, "vm0", "dhcp")[address]; has && left > 0 {
			end = time.Now().Add(time.Duration(left) * time.Second)
		}
		return end
	}

	// dnsmasq's leases are two minutes or more, so the guest renews before it has to.
	serve("dhcp", "--dhcp-range=10.99.0.50,10.99.0.50,255.255.255.0,2m")
	ask()
	testenv.Eventually(t, "the guest has a lease of dnsmasq's", func() bool { return !until("10.99.0.50").IsZero() })
	first := until("10.99.0.50")
	a.Run(t, "ping -c 2 -W 10 10.99.0.1")
	testenv.Eventually(t, "the lease is renewed", func() bool {
		a.Run(t, "kill -USR1 $(cat /tmp/udhcpc.pid)")
		return until("10.99.0.50").After(first.Add(2 * time.Second))
	})
	a.Run(t, "kill $(cat /tmp/udhcpc.pid); ip addr flush dev eth0 scope global")
	b.Run(t, "kill $(cat /tmp/dhcp.pid)")

	// A server whose leases are as short as a test needs.
	b.Run(t, `printf 'start 10.99.0.100\nend 10.99.0.100\ninterface eth0\nmin_lease 10\noption subnet 255.255.255.0\noption lease 20\nlease_file /tmp/leases\npidfile /tmp/udhcpd.pid\n' > /tmp/udhcpd.conf; : > /tmp/leases`)
	b.Run(t, "while ! udhcpd -S /tmp/udhcpd.conf </dev/null >>/tmp/udhcpd.log 2>&1; do sleep 1; done")
	ask()
	testenv.Eventually(t, "the guest has a short lease", func() bool { return !until("10.99.0.100").IsZero() })
	first = until("10.99.0.100")
	a.Run(t, "ping -c 2 -W 10 10.99.0.1")
	testenv.Eventually(t, "the lease has been renewed for longer than it was for first", func() bool {
		return time.Now().After(first) && !until("10.99.0.100").IsZero()
	})
	a.Run(t, "ping -c 3 -W 10 10.99.0.1")

	// Two addresses of the prefix: a lasting one and a temporary one.
	serve("ra", "--enable-ra --dhcp-range=fd98::,ra-only,64,1h")
	a.Run(t, "echo 2 > /proc/sys/net/ipv6/conf/eth0/use_tempaddr && ip link set eth0 down && ip link set eth0 up")
	testenv.Eventually(t, "the guest has formed addresses", func() bool {
		n := 0
		for text := range addresses(t, sw, "vm0", "slaac") {
			if strings.HasPrefix(text, "fd98::") {
				n++
			}
		}
		return n >= 2
	})
	out := a.Run(t, "ip -6 addr show dev eth0 scope global")
	tried := 0
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "inet6" {
			tried++
			text, _, _ := strings.Cut(f[1], "/")
			a.Run(t, "ping6 -c 2 -W 10 -I %s fd98::1", text)
		}
	}
	if tried < 2 {
		t.Errorf("the guest's addresses are\n%s", out)
	}
	a.Run(t, "echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad && ip -6 addr add fd98::1:77/64 dev eth0")
	if out, err := a.TryRun("ping6 -c 2 -W 1 -I fd98::1:77 fd98::1"); err == nil {
		t.Errorf("an address without detection reaches the router:\n%s", out)
	}

	// It passes for the router: it announces its address by requests and replies, as arpspoof does,
	// and answers for it when the neighbour asks.
	knows := func() bool {
		return strings.Contains(neighbour.Run("ip", "neigh", "show", "10.99.0.1"), router.MAC)
	}
	reach := func() bool {
		return neighbour.Command("ping", "-n", "-q", "-c", "1", "-W", "5", "10.99.0.1").Run() == nil
	}
	testenv.Eventually(t, "the neighbour reaches the router", func() bool { return reach() && knows() })
	dropped := func() uint64 { return sw.Port(t, "vm0").RX.Dropped["guard_arp"] }
	before := dropped()
	a.Run(t, "ip addr add 10.99.0.1/32 dev eth0 && arping -q -U -c 2 -I eth0 -s 10.99.0.1 10.99.0.1; arping -q -A -c 2 -I eth0 -s 10.99.0.1 10.99.0.1; true")
	if !knows() {
		t.Errorf("the neighbour believes the forged announcements: %s", neighbour.Run("ip", "neigh", "show", "10.99.0.1"))
	}
	announced := dropped()
	neighbour.Run("ip", "neigh", "flush", "10.99.0.1")
	testenv.Eventually(t, "the neighbour reaches the router beside an impostor", reach)
	testenv.Eventually(t, "the impostor has answered", func() bool { return dropped() > announced })
	if !knows() {
		t.Errorf("the neighbour believes the forged answer: %s", neighbour.Run("ip", "neigh", "show", "10.99.0.1"))
	}
	if announced < before+4 {
		t.Errorf("%d forged announcements were dropped, want 4", announced-before)
	}
	for why, n := range sw.Port(t, "vm1").RX.Dropped {
		if strings.HasPrefix(why, "guard_") {
			t.Errorf("the router's port dropped %d frames as %s", n, why)
		}
	}
	wantFast(t, sw)
}
