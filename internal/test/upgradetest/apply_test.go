package upgradetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// TestEndAmidApply kills and stops a daemon at random moments of an apply that adds, changes, replaces and removes
// ports, mirrors, entries and settings of EVPN. The next daemon has one of the two configurations, whole: the new one if
// apply had succeeded. There are the devices of that configuration, and those that were there before are as they were unless they are ports. A change that waits for its confirmation can be
// taken back.
func TestEndAmidApply(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))

	ns, container := testenv.NewNetns(t), testenv.NewNetns(t)
	ns.Run("ip", "link", "set", "lo", "up")
	ns.Run("ip", "link", "add", "an0", "type", "veth", "peer", "name", "x0")
	ns.Run("ip", "link", "add", "an1", "type", "veth", "peer", "name", "x1")
	var one, other strings.Builder
	one.WriteString(`version: 1
switch: {evpn_as: 65001, snooping: true}
ports:
  up0: {kind: vxlan, local: 127.0.0.1, vni: "10=100", trunk: 10}
  keep0: {access: 10}
  swap0: {access: 10}
  gone0: {kind: host, address: [192.0.2.1/24]}
`)
	// Ports are added in the order of their names, so those that need putting back are long half of a change.
	other.WriteString(`version: 1
switch: {evpn_as: 65002, aging: 60s}
ports:
  up0: {kind: vxlan, local: 127.0.0.1, vni: "10=100,20=200", trunk: "10,20"}
  keep0: {trunk: "10,20"}
  swap0: {kind: host, access: 20}
  an0: {kind: netdev, trunk: "10,20", exclusive: true, mtu: 1400}
  al0: {kind: lag, members: [an1], lag_mode: static, trunk: "10,20"}
`)
	fmt.Fprintf(&other, "  ac0: {kind: veth, netns: %s, access: 20}\n", container.Path())
	for i := range 10 {
		fmt.Fprintf(&one, "  a%d: {access: 10}\n", i)
		fmt.Fprintf(&other, "  b%d: {access: 20, isolated: true}\n", i)
	}
	one.WriteString(`fdb: [{mac: "52:54:00:00:00:01", vlan: 10, port: keep0}]
groups: [{group: 239.1.2.3, vlan: 10, port: a0}]
mirrors: {m0: {from: [keep0], to: a1}}
features: {evpn: {neighbors: [{address: 127.0.0.9, as: 65001}]}}
`)
	other.WriteString(`fdb: [{mac: "52:54:00:00:00:01", vlan: 20, port: b0, sticky: true}]
mirrors: {m0: {from: [b0, b1], to: keep0}, m1: {from: [up0], to_vlan: 10}}
features: {evpn: {neighbors: [{address: 127.0.0.8, as: 65002}, {address: 127.0.0.9, as: 65001}]}}
`)

	sw := daemontest.Start(t, ns)
	t.Cleanup(func() { sw.Kill(); sw.Cleanup(t) })
	type config struct{ path, text, devices string }
	look := func() (c config) {
		t.Helper()
		c.text = sw.Ctl(t, "config export")
		c.devices = ns.Run("ls", "/sys/class/net") + container.Run("ls", "/sys/class/net")
		for _, nic := range []string{"an0", "an1"} {
			c.devices += ns.Run("cat", "/sys/class/net/"+nic+"/ifalias", "/sys/class/net/"+nic+"/mtu",
				"/proc/sys/net/ipv6/conf/"+nic+"/disable_ipv6", "/proc/sys/net/ipv4/conf/"+nic+"/arp_ignore")
		}
		return c
	}
	dir := t.TempDir()
	args := func(path string) []string {
		return []string{"apply", "-f", path, "--prune=all", "--allow-replace", "--force", "--yes"}
	}
	const rounds = 12
	var middle time.Duration
	var configs []config
	for i, text := range []string{one.String(), other.String(), one.String()} {
		path := filepath.Join(dir, fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if out, err := sw.Try(args(path)...); err != nil {
			t.Fatalf("apply: %v: %s", err, out)
		}
		middle = time.Since(began) / 2
		c := look()
		c.path = path
		configs = append(configs, c)
	}
	if configs[0].text != configs[2].text || configs[0].devices != configs[2].devices || configs[0].text == configs[1].text {
		t.Fatalf("without a kill: %+v", configs)
	}

	is, ended := configs[0], map[string]int{}
	for n := range rounds {
		to := configs[0]
		if is.text == to.text {
			to = configs[1]
		}
		confirm := n%3 == 0
		command := args(to.path)
		if confirm {
			command = append(command, "--confirm", "1h")
		}
		cmd := sw.Command(command...)
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := time.Duration(r.Float64() * 2 * float64(middle))
		time.Sleep(after)
		way := "kill"
		if n%4 == 3 {
			way = "stop"
			sw.Stop(t)
		} else {
			sw.Kill()
		}
		done := cmd.Wait() == nil
		sw.Restart(t)
		got := look()
		what := fmt.Sprintf("%s after %v, confirm %v, apply succeeded: %v (%s)", way, after, confirm, done, out.String())
		if done && got.text != to.text {
			t.Fatalf("%s: after it\n%s\nwant\n%s", what, got.text, to.text)
		}
		for _, c := range []config{is, to} {
			if got.text != c.text {
				continue
			}
			if got.devices != c.devices {
				t.Errorf("%s: with the configuration\n%s\nthere are\n%s\nwant\n%s", what, c.text, got.devices, c.devices)
			}
			got.path = c.path
		}
		if got.path == "" {
			t.Fatalf("%s: after it\n%s\nwant\n%s\nor\n%s", what, got.text, is.text, to.text)
		}
		ended[fmt.Sprint(way, " with the new configuration: ", got.path == to.path)]++
		if got.path == to.path { // half of the ends are to be before the new configuration is kept
			middle = middle * 4 / 5
		} else {
			middle = middle * 5 / 4
		}
		if strings.Contains(sw.Ctl(t, "-o json apply --dry-run -f %s", got.path), `"pending"`) {
			sw.Ctl(t, "rollback")
			if got = look(); got.text != is.text || got.devices != is.devices {
				t.Fatalf("%s: after a rollback\n%s\n%s\nwant\n%s\n%s", what, got.text, got.devices, is.text, is.devices)
			}
			ended["taken back"]++
		}
		if got.text != is.text {
			is = to
		}
	}
	t.Log(ended)
}
