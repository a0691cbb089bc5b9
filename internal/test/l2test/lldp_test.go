package l2test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

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
