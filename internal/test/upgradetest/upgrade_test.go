package upgradetest

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// ring starts a switch with a port of each of these kinds, and a flow from each to the next one.
func ring(t *testing.T, binary string, of []string, flags ...string) (*daemontest.Daemon, []*flow) {
	t.Helper()
	ns := testenv.NewNetns(t)
	sw := daemontest.StartBinary(t, binary, ns, flags...)
	return sw, ringOf(t, sw, of)
}

// ringOf adds the ports to a switch, which ends with the test.
func ringOf(t *testing.T, sw *daemontest.Daemon, of []string) []*flow {
	t.Helper()
	sw.Netns.Run("ip", "link", "set", "lo", "up")
	t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
	return flowsAround(t, sw, of)
}

// flowsAround adds the ports to a switch, and starts the flows.
func flowsAround(t testing.TB, sw *daemontest.Daemon, of []string) []*flow {
	t.Helper()
	var ends []end
	for i, kind := range of {
		ends = append(ends, kinds[kind](t, sw, "p"+string(rune('a'+i))+strings.ReplaceAll(kind, "-", "")))
	}
	var flows []*flow
	for i := range ends {
		j := (i + 1) % len(ends)
		f := newFlow(ends[i], ends[j], mac(i), mac(j))
		f.announce(t)
		flows = append(flows, f)
	}
	testenv.Eventually(t, "all stations are known", func() bool {
		out := sw.Ctl(t, "fdb list")
		for i := range ends {
			if !strings.Contains(out, mac(i).String()) {
				flows[(i+len(ends)-1)%len(ends)].announce(t)
				return false
			}
		}
		return true
	})
	for _, f := range flows {
		f.start()
		t.Cleanup(f.stop)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(sw.Try("stats"))
			t.Log(sw.Try("ports"))
			t.Log(sw.Try("fdb", "list"))
		}
	})
	for _, f := range flows {
		f.more(t, 20)
	}
	return flows
}

// wantAll fails the test if a flow has lost a frame, or has one twice.
func wantAll(t *testing.T, what string, flows []*flow) {
	t.Helper()
	wantAllBut(t, what, flows, 0)
}

// wantAllBut is wantAll where a flow may lose some, and one whose connection ends any number.
func wantAllBut(t testing.TB, what string, flows []*flow, most int) {
	t.Helper()
	for _, f := range flows {
		sent, lost, twice, gap := f.result(t)
		if f.reconnects() {
			lost = 0
		}
		if lost > most || twice > 0 {
			t.Errorf("%s: %s → %s lost %d of %d frames, %d came twice; longest gap %v", what, f.from.name, f.to.name, lost, sent, twice, gap)
		}
	}
}

// A switch is upgraded twice while frames pass between all kinds of port, and no frame is lost. A
// next process that fails, in whatever way, does not matter.
func TestUpgrade(t *testing.T) {
	testenv.Root(t)
	for name, flags := range map[string][]string{
		"fast path": nil,
		"slow path": {"--fastpath", "off"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			of := slices.Sorted(maps.Keys(kinds))
			of = slices.DeleteFunc(of, func(kind string) bool { return kind == "redial" }) // no connection ends
			sw, flows := ring(t, daemontest.Binary(t), of, flags...)
			before := counters(t, sw)
			for range 2 {
				u := sw.Upgrade(t)
				if u.Ports != len(of) || u.Stations < len(of) {
					t.Errorf("%d ports with %d stations were handed over", u.Ports, u.Stations)
				}
				for _, f := range flows {
					f.more(t, 30)
				}
			}
			wantAll(t, "upgrade", flows)
			for name, n := range counters(t, sw) {
				if n < before[name] {
					t.Errorf("port %s has received %d frames, and had %d before", name, n, before[name])
				}
			}
			for why, binary := range map[string]string{
				"it is no program":         script(t, "no program"),
				"it ends":                  script(t, "#!/bin/sh\necho it cannot run >&2; exit 1\n"),
				"it claims and then stops": script(t, "#!/bin/sh\nprintf '\\0\\0\\0\\046\\0\\0\\0\\0{\"Format\":1,\"Version\":\"x\",\"PID\":12345}' >&3; sleep 0.2\n"),
				"it is of another format":  script(t, "#!/bin/sh\nprintf '\\0\\0\\0\\046\\0\\0\\0\\0{\"Format\":9,\"Version\":\"x\",\"PID\":12345}' >&3; sleep 0.2\n"),
			} {
				out, err := sw.UpgradeCommand("--binary", binary).CombinedOutput()
				if err == nil || !strings.Contains(string(out), "the switch goes on as before") {
					t.Errorf("%s: %v: %s", why, err, out)
				}
			}
			for _, f := range flows {
				f.more(t, 30)
			}
			wantAll(t, "after failures", flows)
			sw.Upgrade(t)
			wantAll(t, "upgrade after failures", flows)
		})
	}
}

// counters returns how many frames each port has received.
func counters(t *testing.T, sw *daemontest.Daemon) map[string]uint64 {
	t.Helper()
	all, err := sw.Client.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := make(map[string]uint64)
	for _, p := range all {
		n[p.Name] = p.RX.Frames
	}
	return n
}

func script(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "vswitch")
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// What somebody has set down stays down when the switch is upgraded.
func TestInterfacesThatAreDown(t *testing.T) {
	testenv.Root(t)
	t.Parallel()
	sw := daemontest.StartBinary(t, daemontest.Binary(t), testenv.NewNetns(t))
	t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
	container := testenv.NewNetns(t)
	sw.Ctl(t, "add-port vm0")
	sw.Ctl(t, "add-port h0 --kind host")
	sw.Ctl(t, "add-port w0 --kind veth --netns %s", container.Path())
	sw.Ctl(t, "add-port w1 --kind veth --netns %s --ifname eth1", container.Path())
	for _, name := range []string{"vm0", "h0", "w0"} {
		sw.Netns.Run("ip", "link", "set", name, "down")
	}
	container.Run("ip", "link", "set", "eth1", "down")
	states := func() string {
		all, err := sw.Client.Ports(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var text strings.Builder
		for _, p := range all {
			fmt.Fprintf(&text, "%s %s, ", p.Name, p.State)
		}
		return text.String()
	}
	const want = "vm0 down, h0 down, w0 down, w1 no-carrier, "
	testenv.Eventually(t, "all ports are down", func() bool { return states() == want })
	sw.Upgrade(t)
	for _, name := range []string{"vm0", "h0", "w0"} {
		sw.Netns.Run("sh", "-c", "! ip link show dev "+name+" up | grep -q .")
	}
	container.Run("sh", "-c", "! ip link show dev eth1 up | grep -q .")
	testenv.Eventually(t, "all ports are down after the upgrade", func() bool { return states() == want })
	sw.Netns.Run("ip", "link", "set", "vm0", "up")
	testenv.Eventually(t, "the port follows its interface", func() bool { return strings.HasPrefix(states(), "vm0 no-carrier") })
}
