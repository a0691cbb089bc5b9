package vmtest_test

import (
	"encoding/json"
	"os"
	"path/filepath"
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

// TestGuardedGuest has a guest behind a guarded port get its addresses from the network: a
// lease that it renews by unicast, and IPv6 addresses that it forms, temporary ones too. What it
// has by nobody goes nowhere.
//
//	guest a ⇄ vm0, guarded ─┐
//	                        ├─ vswitch
//	eth0, DHCP and RA ⇄ s0 ─┘
func TestGuardedGuest(t *testing.T) {
	t.Parallel()
	testenv.Root(t)
	busybox, dnsmasq := testenv.Tool(t, "busybox"), testenv.Tool(t, "dnsmasq")
	ns, server := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "s0", "type", "veth", "peer", "name", "eth0", "netns", server.Name)
	ns.Run("ip", "link", "set", "s0", "up")
	server.Run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1")
	server.Run("ip", "link", "set", "eth0", "up")
	server.Run("ip", "addr", "add", "10.99.0.1/24", "dev", "eth0")
	server.Run("ip", "addr", "add", "fd98::1/64", "dev", "eth0", "nodad")

	sw := daemontest.Start(t, ns)
	sw.Ctl(t, "add-port s0 --kind netdev --exclusive")
	o := guest(ns, 0)
	o.IPv6 = true
	sw.Ctl(t, "add-port vm0 --guard on --guard-mac %s", o.MAC)
	a := vmtest.Start(t, o)
	vmtest.Wait(t, a)

	// The guest's address is one that nobody gave it.
	if out, err := a.TryRun("ip addr add 10.99.0.77/24 dev eth0 && ping -c 2 -W 1 10.99.0.1"); err == nil {
		t.Errorf("an address of nobody reaches the server:\n%s", out)
	}
	a.Run(t, "ip addr flush dev eth0 scope global")

	home := t.TempDir()
	start := func(name string, args ...string) {
		cmd := server.Command(name, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	}
	// A server whose leases are as short as a test needs; dnsmasq's are two minutes or more.
	leases := filepath.Join(home, "leases")
	config := filepath.Join(home, "udhcpd.conf")
	for path, text := range map[string]string{
		leases: "",
		config: "start 10.99.0.100\nend 10.99.0.100\ninterface eth0\nmin_lease 10\noption subnet 255.255.255.0\noption lease 20\nlease_file " + leases +
			"\npidfile " + filepath.Join(home, "pid") + "\n",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(busybox, "udhcpd", "-f", "-S", config)
	start(dnsmasq, "--no-daemon", "--conf-file=/dev/null", "--port=0", "--interface=eth0", "--bind-interfaces", "--enable-ra",
		"--dhcp-range=fd98::,ra-only,64,1h", "--user=root", "--dhcp-leasefile="+filepath.Join(home, "leases6"))

	a.Run(t, `printf '#!/bin/sh\ncase $1 in deconfig) ip addr flush dev $interface scope global;; bound|renew) ip addr replace $ip/24 dev $interface;; esac\n' > /tmp/lease && chmod +x /tmp/lease`)
	a.Run(t, "udhcpc -i eth0 -t 20 -T 1 -A 1 -b -s /tmp/lease </dev/null >/tmp/udhcpc 2>&1")
	leased := func() int64 { return addresses(t, sw, "vm0", "dhcp")["10.99.0.100"] }
	testenv.Eventually(t, "the guest has a lease", func() bool { return leased() > 0 })
	first := time.Now().Add(time.Duration(leased()) * time.Second)
	a.Run(t, "ping -c 2 -W 10 10.99.0.1")
	testenv.Eventually(t, "the lease has been renewed for longer than it was for first", func() bool {
		return time.Now().After(first) && leased() > 0
	})
	if out, err := a.TryRun("ping -c 3 -W 10 10.99.0.1"); err != nil {
		t.Errorf("after the first lease: %v: %s\nudhcpc: %s", err, out, a.Run(t, "cat /tmp/udhcpc"))
	}

	// Two addresses of the prefix: a lasting one and a temporary one.
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
	if out, err := a.TryRun("ip -6 addr add fd98::1:77/64 dev eth0 nodad && ping6 -c 2 -W 1 -I fd98::1:77 fd98::1"); err == nil {
		t.Errorf("an address without detection reaches the router:\n%s", out)
	}
	wantFast(t, sw)
}
