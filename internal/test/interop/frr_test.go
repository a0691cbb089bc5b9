//go:build interop

package interop

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// fabric is an IP network with hosts in it.
//
//	g1 ── vswitch 192.0.2.1 ══╗
//	g2 ── vswitch 192.0.2.2 ══╬══ the network ── FRR 192.0.2.9, a route reflector
//	g3 ── FRR     192.0.2.3 ══╝
type fabric struct {
	t   *testing.T
	net *testenv.Netns
}

func newFabric(t *testing.T) *fabric {
	f := &fabric{t, testenv.NewNetns(t)}
	ip(t, f.net, "link add br0 type bridge\nlink set br0 up\n")
	return f
}

// host makes a namespace with an address in the network.
func (f *fabric) host(n int) *testenv.Netns {
	f.t.Helper()
	ns := testenv.NewNetns(f.t)
	ip(f.t, ns, fmt.Sprintf("link add ul0 mtu 1600 type veth peer name ul%d mtu 1600 netns %s\nlink set ul0 up\naddr add 192.0.2.%[1]d/24 dev ul0\n", n, f.net.Name))
	ip(f.t, f.net, fmt.Sprintf("link set ul%d master br0\nlink set ul%[1]d up\n", n))
	return ns
}

func ip(t *testing.T, ns *testenv.Netns, commands string) {
	t.Helper()
	cmd := exec.Command("ip", "-n", ns.Name, "-batch", "-")
	cmd.Stdin = strings.NewReader(commands)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ip -batch: %v: %s", err, out)
	}
}

// vswitch runs a switch at a host, in EVPN with the route reflector.
func (f *fabric) vswitch(n int) *daemontest.Daemon {
	f.t.Helper()
	d := daemontest.Start(f.t, f.host(n))
	d.Ctl(f.t, "add-port up0 --kind vxlan --local 192.0.2.%d --vni 10010", n)
	d.Ctl(f.t, "set --evpn-as 65001")
	d.Ctl(f.t, "evpn neighbor add 192.0.2.9 --as 65001 --hold 90s --bfd")
	return d
}

// frr is FRR in a namespace, with a configuration.
type frr struct {
	t       *testing.T
	ns      *testenv.Netns
	daemons []string
	config  string
}

// startFRR runs daemons of FRR until the test ends.
func startFRR(t *testing.T, ns *testenv.Netns, config string, daemons ...string) *frr {
	t.Helper()
	f := &frr{t, ns, daemons, config}
	for _, dir := range []string{f.run(), f.etc()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.RemoveAll(dir) })
	}
	for name, text := range map[string]string{"frr.conf": config, "vtysh.conf": ""} {
		if err := os.WriteFile(filepath.Join(f.etc(), name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ns.Run("chown", "-R", "frr:frr", f.run(), f.etc())
	t.Cleanup(f.stop)
	f.start()
	return f
}

func (f *frr) run() string { return "/var/run/frr/" + f.ns.Name }
func (f *frr) etc() string { return "/etc/frr/" + f.ns.Name }

func (f *frr) start() {
	f.t.Helper()
	for _, d := range f.daemons {
		f.ns.Run("/usr/lib/frr/"+d, "-N", f.ns.Name, "-d", "-A", "127.0.0.1")
	}
	testenv.Eventually(f.t, "FRR takes its configuration", func() bool {
		return f.ns.Command("vtysh", "-N", f.ns.Name, "-b").Run() == nil
	})
}

// stop ends the daemons by the process numbers that they left.
func (f *frr) stop() {
	for _, d := range f.daemons {
		if pid, err := os.ReadFile(filepath.Join(f.run(), d+".pid")); err == nil {
			number := strings.TrimSpace(string(pid))
			_ = exec.Command("kill", number).Run()
			testenv.Eventually(f.t, d+" ends", func() bool { _, err := os.Stat("/proc/" + number); return err != nil })
		}
	}
}

func (f *frr) show(command string) string {
	f.t.Helper()
	return f.ns.Run("vtysh", "-N", f.ns.Name, "-c", "show "+command)
}

// guest is a machine: a namespace that moves from host to host.
type guest struct {
	t       *testing.T
	ns      *testenv.Netns
	mac, v4 string
	v6      string
	moves   int
}

func newGuest(t *testing.T, n int) *guest {
	return &guest{t: t, ns: testenv.NewNetns(t), mac: fmt.Sprintf("52:54:00:00:00:%02x", n), v4: fmt.Sprintf("10.0.0.%d", n), v6: fmt.Sprintf("fd00::%x", n)}
}

// plug connects the guest to a host, by a device of a new name there, and returns the name.
func (g *guest) plug(at *testenv.Netns) string {
	g.t.Helper()
	g.moves++
	name := fmt.Sprintf("g%s-%d", g.mac[15:], g.moves)
	ip(g.t, g.ns, fmt.Sprintf("link add eth0 address %s type veth peer name %s netns %s\nlink set eth0 up\naddr add %s/24 dev eth0\naddr add %s/64 dev eth0 nodad\n", g.mac, name, at.Name, g.v4, g.v6))
	ip(g.t, at, "link set "+name+" up\n")
	return name
}

func (g *guest) unplug() { ip(g.t, g.ns, "link del eth0\n") }

func (g *guest) plugVswitch(d *daemontest.Daemon) {
	g.t.Helper()
	d.Ctl(g.t, "add-port %s --kind netdev", g.plug(d.Netns))
}

func (g *guest) plugFRR(f *frr) {
	g.t.Helper()
	ip(g.t, f.ns, "link set "+g.plug(f.ns)+" master br100\n")
}

// wantPing checks that the guests reach each other by IPv4 and IPv6.
func (g *guest) wantPing(other *guest) {
	g.t.Helper()
	for _, to := range []string{other.v4, other.v6} {
		if out, err := g.ns.Command("ping", "-n", "-q", "-c", "3", "-i", "0.1", "-w", "30", to).CombinedOutput(); err != nil {
			g.t.Fatalf("ping from %s to %s: %v: %s", g.v4, to, err, out)
		}
	}
}

// awaitMAC waits until a switch knows a guest at a host.
func awaitMAC(t *testing.T, d *daemontest.Daemon, g *guest, vtep string) (m api.EVPNMAC) {
	t.Helper()
	testenv.Eventually(t, fmt.Sprintf("vswitch knows %s at %s", g.mac, vtep), func() bool {
		all, err := d.Client.EVPNMACs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		i := slices.IndexFunc(all, func(m api.EVPNMAC) bool { return m.MAC.String() == g.mac })
		if i < 0 || all[i].VTEP.String() != vtep {
			return false
		}
		m = all[i]
		return true
	})
	return m
}

// awaitFRR waits until FRR and its kernel know a guest at a host; "" is FRR's own.
func (f *frr) awaitFRR(g *guest, vtep string) {
	f.t.Helper()
	var shown, entries string
	defer func() {
		if f.t.Failed() {
			f.t.Logf("FRR shows:\n%s\nthe kernel:\n%s", shown, entries)
		}
	}()
	testenv.Eventually(f.t, fmt.Sprintf("FRR knows %s at %q", g.mac, vtep), func() bool {
		shown = f.show("evpn mac vni 10010 mac " + g.mac)
		entries = f.ns.Run("bridge", "fdb", "show", "dev", "vx100")
		if vtep == "" {
			return strings.Contains(shown, "Intf: ")
		}
		return strings.Contains(shown, "Remote VTEP: "+vtep) && strings.Contains(entries, g.mac+" dst "+vtep)
	})
}

func awaitSession(t *testing.T, d *daemontest.Daemon, state string) {
	t.Helper()
	testenv.Eventually(t, "the session is "+state, func() bool {
		all, err := d.Client.EVPNNeighbors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].State == state
	})
}

const reflector = `router bgp 65001
 bgp router-id 192.0.2.9
 no bgp default ipv4-unicast
 neighbor hosts peer-group
 neighbor hosts remote-as 65001
 neighbor hosts timers 30 90
 neighbor hosts bfd
 bgp listen range 192.0.2.0/24 peer-group hosts
 address-family l2vpn evpn
  neighbor hosts activate
  neighbor hosts route-reflector-client
`

const member = `router bgp 65001
 bgp router-id 192.0.2.3
 no bgp default ipv4-unicast
 neighbor 192.0.2.9 remote-as 65001
 neighbor 192.0.2.9 timers 30 90
 neighbor 192.0.2.9 timers connect 2
 address-family l2vpn evpn
  neighbor 192.0.2.9 activate
  advertise-all-vni
`

// TestFRR: two switches and a host of FRR with the kernel's bridge, behind a route reflector of
// FRR. All agree where each machine is, whatever moves or is restarted.
func TestFRR(t *testing.T) {
	f := newFabric(t)
	testenv.Tool(t, "vtysh")
	rr := startFRR(t, f.host(9), reflector, "zebra", "bgpd", "bfdd")
	a, b := f.vswitch(1), f.vswitch(2)
	ns := f.host(3)
	ip(t, ns, `link add br100 type bridge
link set br100 up
link add vx100 type vxlan id 10010 local 192.0.2.3 dstport 4789 nolearning
link set vx100 master br100
link set vx100 up
link set vx100 type bridge_slave learning off neigh_suppress on
`)
	k := startFRR(t, ns, member, "zebra", "bgpd")
	g1, g2, g3 := newGuest(t, 1), newGuest(t, 2), newGuest(t, 3)
	g1.plugVswitch(a)
	g2.plugVswitch(b)
	g3.plugFRR(k)
	awaitSession(t, a, "established")
	awaitSession(t, b, "established")
	awaitBFD(t, a)
	awaitBFD(t, b)
	g1.wantPing(g2)
	g1.wantPing(g3)
	g3.wantPing(g2)
	awaitMAC(t, a, g3, "192.0.2.3")
	awaitMAC(t, b, g1, "192.0.2.1")
	k.awaitFRR(g1, "192.0.2.1")
	k.awaitFRR(g2, "192.0.2.2")
	k.awaitFRR(g3, "")

	// The router flag of RFC 9047, which FRR sends for such neighbours, does not lose the route.
	router := netip.MustParseAddr("2001:db8::77")
	ns.Run("ip", "-6", "neigh", "add", router.String(), "lladdr", g3.mac, "dev", "br100", "router", "nud", "reachable")
	testenv.Eventually(t, "the router is known as one", func() bool {
		all, err := a.Client.EVPNRoutes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return slices.ContainsFunc(all, func(r api.EVPNRoute) bool { return r.IP == router && r.Router && r.MAC.String() == g3.mac })
	})

	// A machine moves from FRR to a switch while FRR still announces it, and back.
	ip(t, ns, fmt.Sprintf("link set g%s-1 down\n", g3.mac[15:])) // nobody tells FRR more than that
	g3.unplug()
	g3.plugVswitch(a)
	g3.wantPing(g2)
	awaitMAC(t, b, g3, "192.0.2.1")
	k.awaitFRR(g3, "192.0.2.1")
	g3.unplug()
	g3.plugFRR(k)
	g3.wantPing(g1)
	awaitMAC(t, a, g3, "192.0.2.3")
	k.awaitFRR(g3, "")

	// A static entry is sticky at FRR.
	a.Ctl(t, "fdb add %s g%s-1", g1.mac, g1.mac[15:])
	testenv.Eventually(t, "FRR knows it as sticky", func() bool {
		return strings.Contains(k.show("evpn mac vni 10010 mac "+g1.mac), "Sticky")
	})

	// The reflector is restarted: all is as before.
	rr.stop()
	awaitNot(t, a)
	rr.start()
	awaitSession(t, a, "established")
	awaitSession(t, b, "established")
	awaitMAC(t, a, g3, "192.0.2.3")
	k.awaitFRR(g2, "192.0.2.2")
	g1.wantPing(g3)

	// A switch is killed, and started again.
	b.Kill()
	b.Restart(t)
	awaitSession(t, b, "established")
	g2.wantPing(g3)
	awaitMAC(t, b, g3, "192.0.2.3")
	k.awaitFRR(g2, "192.0.2.2")

	// A host falls silent: BFD tells the reflector, which tells the others, long before the hold time.
	awaitBFD(t, b)
	ip(t, f.net, "link set ul2 down\n")
	testenv.Eventually(t, "its machine is gone", func() bool {
		all, err := a.Client.EVPNMACs(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(all, func(m api.EVPNMAC) bool { return m.MAC.String() == g2.mac })
	})
	awaitNot(t, b)
}

// awaitBFD waits until BFD of a switch hears the reflector.
func awaitBFD(t *testing.T, d *daemontest.Daemon) {
	t.Helper()
	testenv.Eventually(t, "BFD is up", func() bool {
		all, err := d.Client.EVPNNeighbors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].BFD == "up"
	})
}

// awaitNot waits until a switch has no session.
func awaitNot(t *testing.T, d *daemontest.Daemon) {
	t.Helper()
	testenv.Eventually(t, "the session is over", func() bool {
		all, err := d.Client.EVPNNeighbors(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return all[0].State != "established"
	})
}

const leaf = `router bgp 65100
 bgp router-id 192.0.2.3
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 neighbor 2001:db8::1 remote-as 65001
 neighbor 2001:db8::1 password wrong
 neighbor 2001:db8::1 timers 30 90
 neighbor 2001:db8::1 timers connect 2
 neighbor 192.0.2.2 remote-as external
 address-family l2vpn evpn
  neighbor 2001:db8::1 activate
  neighbor 192.0.2.2 activate
  advertise-all-vni
`

// TestFRRLeaf: a switch and a leaf of FRR in another autonomous system, over IPv6 and with a
// password. There is a session while both have the same password, and only then. The leaf's route
// targets are of its own system; the tunnel stays on IPv4.
func TestFRRLeaf(t *testing.T) {
	f := newFabric(t)
	testenv.Tool(t, "vtysh")
	host, ns := f.host(1), f.host(3)
	ip(t, host, "addr add 2001:db8::1/64 dev ul0 nodad\n")
	ip(t, ns, `addr add 2001:db8::3/64 dev ul0 nodad
link add br100 type bridge
link set br100 up
link add vx100 type vxlan id 10010 local 192.0.2.3 dstport 4789 nolearning
link set vx100 master br100
link set vx100 up
link set vx100 type bridge_slave learning off neigh_suppress on
`)
	d := daemontest.Start(t, host)
	d.Ctl(t, "add-port up0 --kind vxlan --local 192.0.2.1 --vni 10010")
	d.Ctl(t, "set --evpn-as 65001")
	k := startFRR(t, ns, leaf, "zebra", "bgpd")
	g1, g3 := newGuest(t, 1), newGuest(t, 3)
	g1.plugVswitch(d)
	g3.plugFRR(k)
	password := func(at *frr, text string) {
		t.Helper()
		ns.Run("vtysh", "-N", ns.Name, "-c", "configure terminal", "-c", "router bgp 65100", "-c", "neighbor 2001:db8::1 password "+text)
	}

	const add = "evpn neighbor add 2001:db8::3 --as 65100 --hold 9s --password "
	d.Ctl(t, add+"secret")
	testenv.Eventually(t, "the switch says what may be wrong", func() bool {
		return strings.Contains(d.Ctl(t, "evpn neighbors"), "the passwords differ")
	})
	password(k, "secret")
	awaitSession(t, d, "established")
	g1.wantPing(g3)
	awaitMAC(t, d, g3, "192.0.2.3")
	k.awaitFRR(g1, "192.0.2.1")

	// The leaf changes the password: the session is over until the switch has it, too.
	password(k, "other")
	awaitNot(t, d)
	d.Ctl(t, "evpn neighbor del 2001:db8::3")
	d.Ctl(t, add+"other")
	awaitSession(t, d, "established")
	g1.wantPing(g3)
	k.awaitFRR(g1, "192.0.2.1")

	// A second switch cannot be in the same system, and says why it does not know the first one's
	// stations. In a system of its own it does.
	second := daemontest.Start(t, f.host(2))
	second.Ctl(t, "add-port up0 --kind vxlan --local 192.0.2.2 --vni 10010")
	second.Ctl(t, "set --evpn-as 65001")
	second.Ctl(t, "evpn neighbor add 192.0.2.3 --as 65100")
	testenv.Eventually(t, "the second switch says what is wrong", func() bool {
		return strings.Contains(second.Ctl(t, "evpn neighbors"), "routes of 192.0.2.1 are left out, for autonomous system 65001")
	})
	second.Ctl(t, "set --evpn-as 65002")
	awaitMAC(t, second, g1, "192.0.2.1")
}
