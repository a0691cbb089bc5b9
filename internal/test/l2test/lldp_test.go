package l2test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/feature/lldp"
	"github.com/vswitch/vswitch/internal/test/testenv"
)

// startLLDPD runs lldpd on a host's eth0 until the test ends, and returns a function that
// asks it.
func startLLDPD(t *testing.T, h *host) (ask func(args ...string) string) {
	t.Helper()
	lldpd, lldpcli := testenv.Tool(t, "lldpd"), testenv.Tool(t, "lldpcli")
	// lldpd may miss that a device comes up later.
	testenv.Eventually(t, "the host's device is up", func() bool {
		return h.ns.Run("cat", "/sys/class/net/eth0/operstate") == "up"
	})
	// lldpd gives its rights away, and must still reach its socket.
	dir, err := os.MkdirTemp("", "lldpd")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	cmd := h.ns.Command(lldpd, "-d", "-u", socket, "-I", "eth0", "-C", "eth0", "-S", "station", "-P", "test")
	var log strings.Builder
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(os.Interrupt)
		cmd.Wait()
		if t.Failed() {
			t.Logf("log of lldpd:\n%s", log.String())
		}
	})
	testenv.Eventually(t, "lldpd answers", func() bool {
		return exec.Command(lldpcli, "-u", socket, "update").Run() == nil
	})
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command(lldpcli, append([]string{"-u", socket, "-f", "json"}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("lldpcli: %v: %s", err, out)
		}
		return string(out)
	}
}

// neighbours returns what `vswitch lldp` lists for a port; nil if the port does not speak.
func (d *daemon) neighbours(name string) []lldp.Neighbor {
	d.t.Helper()
	var all []lldp.Port
	d.decode(&all, "lldp")
	for _, p := range all {
		if p.Name == name {
			return p.Neighbors
		}
	}
	return nil
}

// TestLLDP has the switch and lldpd name each other.
//
//	h1, lldpd ── p1 ┐
//	h2        ── p2 ┼ switch
//	h3        ── p3 ┘
func TestLLDP(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 3)
	h1, h2, h3 := l.hosts[0], l.hosts[1], l.hosts[2]
	l.sw.refuse("vswitch set --lldp", "lldp")
	l.sw.refuse("give --lldp as well", "set --lldp-name x")
	// Nobody forwards what is for neighbours, whoever speaks.
	f := frame{dst: 0x0180_c200_000e, src: h3.mac, etherType: 0x88cc}
	other := f
	other.etherType = 0x88f7 // PTP
	l.want(h3, f)
	ask := startLLDPD(t, h1)
	l.sw.ctl("set-port p3 --lldp off")
	l.sw.ctl("set-port p1 --access 10 --description uplink")
	l.sw.ctl("set --lldp --lldp-name rack7 --lldp-address 192.0.2.7")
	testenv.Eventually(t, "vswitch lldp lists lldpd", func() bool {
		// Speak now: what lldpd says while it starts can get lost. A command that comes while it
		// starts can leave it paused.
		ask("pause")
		ask("resume")
		ask("update")
		// Before it knows its interface, it may have another chassis, and be another neighbour.
		return slices.ContainsFunc(l.sw.neighbours("p1"), func(n lldp.Neighbor) bool {
			return n.Chassis == h1.mac.String() && n.SystemDescription == "station" && n.PortDescription == "eth0"
		})
	})
	if out := l.sw.ctl("lldp"); !strings.Contains(out, h1.mac.String()) || strings.Contains(out, "p3") {
		t.Errorf("vswitch lldp prints %s", out)
	}
	var heard any
	testenv.Eventually(t, "lldpd lists the switch", func() bool {
		out := ask("show", "neighbors", "details")
		if err := json.Unmarshal([]byte(out), &heard); err != nil {
			t.Fatal(err)
		}
		return strings.Contains(out, "rack7")
	})
	text, _ := json.Marshal(heard)
	for _, want := range []string{`"mgmt-ip":"192.0.2.7"`, `"p1"`, `"uplink"`, `"mfs":"1518"`, `"vlan-id":"10"`, `"VLAN0010"`, `"Bridge"`, `"ttl":"121"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("lldpd did not hear %s: %s", want, text)
		}
	}

	// What LLDP takes on its ports goes on where others forward it, as do other protocols.
	l.sw.ctl("set-port p1 --access 1")
	l.sw.ctl("set --group-forward 0x4000")
	l.want(h3, f, h1, h2)
	f.src = h2.mac
	other.src = h2.mac
	l.want(h2, f)
	l.want(h2, other, h1, h3)

	l.sw.ctl("set --lldp=off")
	testenv.Eventually(t, "lldpd forgets the switch", func() bool { return !strings.Contains(ask("show", "neighbors"), "rack7") })
	l.want(h2, f, h1, h3)
}

// TestLLDPOfRunning has an lldpd that has said all it says for an hour answer the switch, which it
// takes for a new neighbour whenever LLDP begins at a port. It speaks once each time.
func TestLLDPOfRunning(t *testing.T) {
	t.Parallel()
	l := newLAN(t, 1)
	h := l.hosts[0]
	ask := startLLDPD(t, h)
	fastStart := "lldp"
	if strings.Contains(ask("show", "configuration"), "lldpmed-faststart") {
		fastStart = "med" // before version 1.0.20
	}
	testenv.Eventually(t, "lldpd knows its interface", func() bool {
		// A command that comes while it starts can leave it paused.
		ask("pause")
		ask("resume")
		ask("unconfigure", fastStart, "fast-start")
		ask("configure", "lldp", "tx-interval", "3600")
		out := ask("show", "interfaces", "details")
		return strings.Contains(out, h.mac.String()) && strings.Contains(out, `"14400"`)
	})
	for _, c := range []struct {
		what  string
		begin func()
	}{
		{"the switch speaks", func() { l.sw.ctl("set --lldp=off"); l.sw.ctl("set --lldp") }},
		{"the port speaks", func() { l.sw.ctl("set-port p1 --lldp off"); l.sw.ctl("set-port p1 --lldp on") }},
		{"a new port", func() { l.sw.ctl("del-port p1"); l.sw.ctl("add-port p1 --kind netdev") }},
		{"a restart", func() { l.sw.Stop(t); l.sw.Restart(t) }},
		{"after a kill", func() { l.sw.Kill(); l.sw.Restart(t) }}, // without a farewell
	} {
		listed := false
		for try := 0; try < 3 && !listed; try++ { // an lldpd that stands still for a second misses the farewell
			c.begin()
			for end := time.Now().Add(20 * time.Second); !listed && time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
				listed = slices.ContainsFunc(l.sw.neighbours("p1"), func(n lldp.Neighbor) bool { return n.Chassis == h.mac.String() })
			}
		}
		if !listed {
			t.Errorf("%s: vswitch lldp does not list lldpd", c.what)
		}
	}
}

// TestLLDPOfMembers has each link of a lag port speak for itself, also one that carries no frames.
//
//	            ┌─ up0 ═══ up0 ─┐
//	a ── lag0 ──┤               ├── b, with a port for each
//	            └─ up1 ═══ up1 ─┘
func TestLLDPOfMembers(t *testing.T) {
	t.Parallel()
	a, b := quietNetns(t), quietNetns(t)
	for i, name := range []string{"up0", "up1"} {
		// The kernel is slow to report the carrier of a veth whose two ends have the same number.
		ip(t, b, fmt.Sprintf("link add spare%d type veth peer name spare%d\n", 2*i, 2*i+1))
		ip(t, a, fmt.Sprintf("link add %s type veth peer name %s netns %s\nlink set %s up\n", name, name, b.Name, name))
		ip(t, b, fmt.Sprintf("link set %s up\n", name))
	}
	one, two := startDaemon(t, a, "--lldp", "--lldp-name", "one"), startDaemon(t, b, "--lldp", "--lldp-name", "two")
	for _, name := range []string{"up0", "up1"} {
		two.ctl("add-port %s --kind netdev --exclusive", name)
	}
	one.ctl("add-port lag0 --kind lag --members up0,up1 --lag-mode active-backup --description rack")
	one.awaitMembers("lag0", "active standby")

	// heard returns what the switch at the other end of a member says.
	heard := func(member string) []lldp.Neighbor {
		t.Helper()
		var all []lldp.Port
		one.decode(&all, "lldp")
		for _, p := range all {
			if p.Name == "lag0" && p.Member == member {
				return p.Neighbors
			}
		}
		return nil
	}
	both := func() {
		t.Helper()
		for _, name := range []string{"up0", "up1"} {
			testenv.Eventually(t, "the neighbour at "+name, func() bool {
				n := heard(name)
				return len(n) == 1 && n[0].SystemName == "two" && n[0].Port == name
			})
			testenv.Eventually(t, "the neighbour of "+name, func() bool {
				n := two.neighbours(name)
				return len(n) == 1 && n[0].SystemName == "one" && n[0].Port == name && n[0].PortDescription == "lag0 rack" && n[0].Aggregated != 0
			})
		}
	}
	both()
	if out := one.ctl("lldp"); !regexp.MustCompile(`(?m)^lag0/up1 +two .* up1 `).MatchString(out) {
		t.Errorf("vswitch lldp prints\n%s", out)
	}

	// A member that waits for LACP speaks, too: so people see where its cable leads.
	one.ctl("set-port lag0 --lag-mode lacp")
	one.awaitMembers("lag0", "negotiating negotiating")
	two.ctl("set --lldp=off")
	testenv.Eventually(t, "the neighbours are gone", func() bool { return len(heard("up0"))+len(heard("up1")) == 0 })
	two.ctl("set --lldp=on --lldp-name two")
	both()

	// A cable that is pulled has no neighbour, a member that is taken out none either.
	ip(t, b, "link set up1 down\n")
	testenv.Eventually(t, "the cable's neighbour is gone", func() bool { return len(heard("up1")) == 0 && len(heard("up0")) == 1 })
	ip(t, b, "link set up1 up\n")
	both()
	one.ctl("set-port lag0 --members up1")
	testenv.Eventually(t, "the member's neighbour is gone", func() bool { return heard("up0") == nil && len(heard("up1")) == 1 })
	// Each end of a link is told to the neighbour: it does not wait for the TTL of two minutes.
	forgotten := func(name string) {
		t.Helper()
		testenv.Eventually(t, "the neighbour at "+name+" forgets it", func() bool { return len(two.neighbours(name)) == 0 })
	}
	forgotten("up0")
	one.ctl("set-port lag0 --members up0,up1")
	both()
	one.ctl("set-port lag0 --lldp off")
	forgotten("up0")
	forgotten("up1")
	one.ctl("set-port lag0 --lldp on")
	both()
	one.ctl("del-port lag0")
	forgotten("up0")
	forgotten("up1")
	one.ctl("add-port lag0 --kind lag --members up0,up1 --lag-mode static --description rack")
	both()
	one.ctl("set --lldp=off")
	forgotten("up0")
	forgotten("up1")
	one.ctl("set --lldp=on --lldp-name one")
	both()
	one.Stop(t)
	forgotten("up0")
	forgotten("up1")
	one.Restart(t)
	both()
	// A port of one interface is no different.
	one.ctl("del-port lag0")
	one.ctl("add-port up0 --kind netdev --exclusive")
	said := func() {
		t.Helper()
		testenv.Eventually(t, "the neighbour of up0", func() bool { return len(two.neighbours("up0")) == 1 })
	}
	said()
	one.ctl("del-port up0")
	forgotten("up0")
	one.ctl("add-port up0 --kind netdev --exclusive")
	said()
	one.Stop(t)
	forgotten("up0")
	one.Restart(t)
	one.ctl("add-port lag0 --kind lag --members up1 --lag-mode static")
	if p := one.port("lag0"); p.RX.Dropped["control_full"] != 0 {
		t.Errorf("lag0 drops %v", p.RX.Dropped)
	}
}
