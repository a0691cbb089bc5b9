package upgradetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// values are settings of ports with values of which some contradict others, or the port's kind.
var values = map[string][]string{
	"access": {"1", "10", "none"}, "trunk": {"10,20", "all"}, "native": {"1"}, "qinq": {"100"}, "accept": {"all", "tagged"},
	"isolated": {"on", "off"}, "locked": {"on", "off"}, "learning": {"on", "off"}, "flood": {"broadcast", "none", "all"},
	"learn-limit": {"4", "0"}, "learn-action": {"protect", "shutdown", "forward"}, "storm-broadcast": {"100pps", "off"},
	"storm-action": {"shutdown", "drop"}, "rate-in": {"100mbit", "500pps", "off"}, "burst": {"20ms"}, "rate-out": {"100mbit", "off"},
	"stp-edge": {"on", "auto"}, "stp-cost": {"100", "0"}, "bpdu-guard": {"on", "off"}, "description": {"two words", ""}, "label": {"a=b", "a="},
	"mcast-router": {"on", "off"}, "mcast-limit": {"5", "0"}, "lldp": {"on", "auto"}, "sflow": {"100", "off"},
	"guard": {"on", "off", "mac"}, "guard-mac": {"52:54:00:00:00:01"}, "guard-address": {"10.0.0.1"}, "guard-learn": {"dhcp"}, "guard-limit": {"5"},
	"mtu": {"1400", "9000"}, "peers": {"none", "127.0.0.3"}, "vni": {"200", "10=10010"}, "exclusive": {"on", "off"},
	"poll": {"busy", "adaptive"}, "mode": {"0600"}, "owner": {"nobody"}, "queues": {"2"}, "min-links": {"2", "1"},
}

// TestCommandsInAnyOrder draws commands, kills, restarts and upgrades. A command that fails changes nothing,
// nor does a new process; a switch can be told to be what it says that it is; once all ports are removed, nothing of
// them is left.
func TestCommandsInAnyOrder(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	pick := func(from ...string) string { return from[r.IntN(len(from))] }

	ns, container := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "set", "lo", "up")
	var names []string
	for i := range 2 {
		ns.Run("ip", "link", "add", fmt.Sprintf("n%d", i), "type", "veth", "peer", "name", fmt.Sprintf("x%d", i))
		names = append(names, fmt.Sprintf("n%d", i))
	}
	links := ns.Run("ls", "/sys/class/net")
	for i := range 5 {
		names = append(names, fmt.Sprintf("p%d", i))
	}
	keys := make([]string, 0, len(values))
	for k := range values {
		keys = append(keys, k)
	}
	slices.Sort(keys)

	sw := daemontest.Start(t, ns)
	t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
	export := func() string { t.Helper(); return sw.Ctl(t, "config export") }
	command := func() []string {
		name := pick(names...)
		switch r.IntN(10) {
		case 0, 1, 2:
			kind := pick("tap", "host", "veth", "stream", "dgram", "vhost-user", "vxlan")
			if name[0] == 'n' {
				kind = pick("netdev", "lag", "netdev", "tap")
			}
			args := []string{"add-port", name, "--kind", kind}
			switch kind {
			case "veth":
				args = append(args, "--netns", container.Path(), "--ifname", name)
			case "lag":
				args = []string{"add-port", "l" + name, "--kind", kind, "--members", name}
			case "vxlan":
				args = append(args, "--local", "127.0.0.1", "--peers", "127.0.0.2", "--vni", pick(values["vni"]...), "--data-plane", pick("auto", "sockets"))
			}
			return args
		case 3:
			return []string{"del-port", pick(append(names, "ln0", "ln1")...)}
		case 4, 5, 6:
			key := pick(keys...)
			return []string{"set-port", name, "--" + key + "=" + pick(values[key]...)}
		case 7:
			return []string{"set", pick("--stp=on", "--stp=off", "--snooping=on", "--snooping=off", "--querier=on", "--querier=off", "--aging=60s", "--hold-down=10s",
				"--loop-detect=on", "--lldp=on", "--lldp=off", "--evpn-as=65001", "--evpn-as=0", "--stp-priority=4096", "--sflow-collector=127.0.0.1")}
		}
		return [][]string{
			{"fdb", "add", "52:54:00:00:00:01", name}, {"fdb", "add", "52:54:00:00:00:02", name, "--sticky"}, {"fdb", "del", "52:54:00:00:00:01"}, {"fdb", "flush"},
			{"mirror", "add", "m0", "--from", name, "--to", pick(names...)}, {"mirror", "del", "m0"},
			{"mdb", "add", "239.1.1.1", name}, {"mdb", "del", "239.1.1.1", name},
			{"evpn", "neighbor", "add", "127.0.0.9", "--as", "65001"}, {"evpn", "neighbor", "del", "127.0.0.9"}, {"rollback"},
		}[r.IntN(11)]
	}

	var done []string
	failed := func(what, before, after string) {
		t.Helper()
		t.Fatalf("%s; before it\n%s\nand after it\n%s\nafter these commands:\n%s", what, before, after, strings.Join(done, "\n"))
	}
	file := filepath.Join(t.TempDir(), "switch.yaml")
	succeeded := 0
	for range 12 {
		for range 15 {
			before, args := export(), command()
			out, err := sw.Try(args...)
			done = append(done, strings.Join(args, " "))
			if err == nil {
				succeeded++
				continue
			}
			if after := export(); after != before {
				failed(fmt.Sprintf("%q failed, %s, and changed the switch", args, out), before, after)
			}
		}
		before := export()
		if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := sw.Try("apply", "-f", file); err != nil || export() != before {
			failed("what it is cannot be applied: "+out, before, export())
		}
		way := pick("kill", "stop", "upgrade")
		done = append(done, way)
		switch way {
		case "kill":
			sw.Restart(t)
		case "stop":
			sw.Stop(t)
			sw.Restart(t)
		case "upgrade":
			sw.Upgrade(t)
		}
		if after := export(); after != before {
			failed(way+" changed the switch", before, after)
		}
	}
	if succeeded < 20 {
		t.Errorf("%d commands of %d succeeded", succeeded, len(done))
	}

	ports, err := sw.Client.Ports(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range ports {
		sw.Ctl(t, "del-port %s", p.Name)
	}
	if left := ns.Run("ls", "/sys/class/net"); left != links {
		t.Errorf("of interfaces, these were there:\n%sand these are left:\n%s", links, left)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(sw.Socket()), sw.Name, "*")); len(left) > 0 {
		t.Errorf("these are left: %q", left)
	}
}
