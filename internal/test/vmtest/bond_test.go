package vmtest_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
	"github.com/vswitch/vswitch/internal/test/vmtest"
)

// TestBond has a lag port and the bonding driver of Linux be the two ends of a link.
//
//	guest, bond0 ─┬─ eth0 ⇄ vm0 ─┬─ lag0 ┐
//	              └─ eth1 ⇄ vm1 ─┘       ┼ vswitch
//	                    gw0 host ────────┘
func TestBond(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	sw := daemontest.Start(t, ns)
	for _, tap := range []string{"vm0", "vm1"} {
		ns.Run("ip", "tuntap", "add", "dev", tap, "mode", "tap")
		ns.Run("ip", "link", "set", tap, "up")
	}
	gateway := netip.MustParseAddr("10.0.0.254")
	sw.Ctl(t, "add-port gw0 --kind host --address %s/24", gateway)
	sw.Ctl(t, "add-port lag0 --kind lag --members vm0,vm1 --lacp-rate fast --no-wait")
	o := vmtest.Options{Name: "bond", Netns: ns, IP: netip.MustParsePrefix("10.0.0.1/24")}
	for i, mac := range []string{"52:54:00:00:01:01", "52:54:00:00:01:02"} {
		n := string(rune('0' + i))
		o.Net = append(o.Net, "-netdev", "tap,id=net"+n+",ifname=vm"+n+",script=no,downscript=no",
			"-device", "virtio-net-pci,netdev=net"+n+",speed=1000,duplex=full,mac="+mac) // LACP of Linux asks for them
	}
	g := vmtest.Start(t, o)
	vmtest.Wait(t, g)
	members := func(want ...string) {
		t.Helper()
		var got []string
		defer func() {
			if !slices.Equal(got, want) {
				t.Log(sw.Ctl(t, "ports lag0"), g.Run(t, "cat /proc/net/bonding/bond0"))
			}
		}()
		testenv.Eventually(t, "the members are "+strings.Join(want, ", "), func() bool {
			got = nil
			for _, m := range sw.Port(t, "lag0").Members {
				got = append(got, string(m.State))
			}
			return slices.Equal(got, want)
		})
	}
	// bond makes the bond anew, in a mode and with further settings.
	bond := func(mode string, settings ...string) {
		t.Helper()
		command := "for i in eth0 eth1; do echo -$i >/sys/class/net/bond0/bonding/slaves; ip addr flush dev $i; ip link set $i down; done 2>/dev/null; " +
			"ip addr flush dev bond0; ip link set bond0 down; echo " + mode + " >/sys/class/net/bond0/bonding/mode; echo 100 >/sys/class/net/bond0/bonding/miimon"
		for _, s := range settings {
			name, value, _ := strings.Cut(s, "=")
			command += "; echo " + value + " >/sys/class/net/bond0/bonding/" + name
		}
		g.Run(t, "%s; echo +eth0 >/sys/class/net/bond0/bonding/slaves && echo +eth1 >/sys/class/net/bond0/bonding/slaves && ip addr add %s dev bond0 && ip link set bond0 up", command, o.IP)
	}
	pings := func(what string) {
		t.Helper()
		testenv.Eventually(t, "the guest reaches the gateway: "+what, func() bool { return g.Ping(t, gateway, 1) == 1 })
		const n = 10
		if got := g.Ping(t, gateway, n); got != n {
			t.Errorf("%s: %d of %d pings are answered", what, got, n)
		}
	}

	members("negotiating", "negotiating")
	bond("802.3ad", "lacp_rate=fast", "xmit_hash_policy=layer3+4")
	members("active", "active")
	sw.AwaitState(t, "lag0", api.StateUp)
	pings("LACP")
	// Each end names the other.
	var bonding string
	testenv.Eventually(t, "both ends of both members are all that they can be", func() bool { // the last LACPDUs may be on their way
		bonding = g.Run(t, "cat /proc/net/bonding/bond0")
		return strings.Count(bonding, "port state: 63") == 4
	})
	first := strings.TrimSpace(ns.Run("cat", "/sys/class/net/vm0/address"))
	if !strings.Contains(bonding, "Number of ports: 2") || strings.Count(bonding, "system mac address: "+first) != 2 || !strings.Contains(bonding, "Partner Mac Address: "+first) {
		t.Errorf("the guest's bond lacks its partner %s:\n%s", first, bonding)
	}
	if strings.Contains(bonding, "Churn State: churned") {
		t.Errorf("churn:\n%s", bonding)
	}
	for i, m := range sw.Port(t, "lag0").Members {
		if m.LACP == nil || m.LACP.Partner == nil || m.LACP.Partner.System.String() != g.Run(t, "cat /sys/class/net/bond0/address") || int(m.LACP.Partner.Port) != i+1 {
			t.Errorf("member %d: %+v", i, m.LACP)
		}
	}

	// The guest gives a member up, and takes it again; then the switch does.
	g.Run(t, "echo -eth1 >/sys/class/net/bond0/bonding/slaves")
	members("active", "negotiating")
	pings("one member of the guest")
	g.Run(t, "echo +eth1 >/sys/class/net/bond0/bonding/slaves")
	members("active", "active")
	sw.Ctl(t, "set-port lag0 --members vm1")
	members("active")
	pings("one member of the switch")
	sw.Ctl(t, "set-port lag0 --members vm0,vm1")
	members("active", "active")
	pings("both again")

	sw.Ctl(t, "set-port lag0 --lag-mode static --lacp-rate=")
	bond("balance-xor", "xmit_hash_policy=layer2+3")
	members("active", "active")
	pings("static")
	sw.Ctl(t, "set-port lag0 --lag-mode active-backup")
	bond("active-backup")
	members("active", "standby")
	g.Run(t, "echo eth0 >/sys/class/net/bond0/bonding/active_slave")
	pings("active-backup")
}
