package guard_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

// TestKeepalived has two guarded stations share an address by keepalived. When the one that has
// it ends, the other takes it, and a third reaches it again: with a MAC of the virtual router's
// own, or with those of the stations.
func TestKeepalived(t *testing.T) {
	testenv.Root(t)
	keepalived := testenv.Tool(t, "keepalived")
	for _, vmac := range []string{"", "use_vmac"} {
		t.Run("with "+vmac, func(t *testing.T) {
			t.Parallel()
			ns, home := testenv.NewNetns(t), t.TempDir()
			sw := daemontest.Start(t, ns)
			var hosts []*testenv.Netns
			for i := range 3 {
				h := testenv.NewNetns(t)
				hosts = append(hosts, h)
				name, mac := fmt.Sprintf("k%d", i), fmt.Sprintf("52:54:00:99:00:2%d", i)
				ns.Run("ip", "link", "add", name, "type", "veth", "peer", "name", "eth0", "address", mac, "netns", h.Name)
				ns.Run("ip", "link", "set", name, "up")
				h.Run("ip", "link", "set", "eth0", "up")
				h.Run("ip", "addr", "add", fmt.Sprintf("10.99.0.2%d/24", i), "dev", "eth0")
				flags := ""
				if i < 2 {
					flags = fmt.Sprintf("--guard on --guard-mac %s --guard-address 10.99.0.2%d --guard-learn none --guard-pair vrrp:10=10.99.0.100", mac, i)
				}
				sw.Ctl(t, "add-port %s --kind netdev --exclusive %s", name, flags)
				sw.AwaitState(t, name, "up")
			}
			keep := func(i int) (stop func()) {
				file := func(name string) string { return filepath.Join(home, fmt.Sprint(name, i)) }
				text := fmt.Sprintf("vrrp_instance v {\nstate BACKUP\ninterface eth0\nvirtual_router_id 10\npriority %d\nadvert_int 1\n%s\nvirtual_ipaddress {\n10.99.0.100/24\n}\n}\n", 100-10*i, vmac)
				if err := os.WriteFile(file("conf"), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
				cmd := hosts[i].Command(keepalived, "--dont-fork", "--log-console", "--vrrp", "--use-file="+file("conf"), "--pid="+file("pid"), "--vrrp_pid="+file("vrrp"))
				var log strings.Builder
				cmd.Stdout, cmd.Stderr = &log, &log
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() { _ = cmd.Wait(); close(ended) }()
				stop = func() {
					_ = cmd.Process.Signal(syscall.SIGTERM) // it tells the other, and ends its child
					<-ended
				}
				t.Cleanup(func() {
					stop()
					if t.Failed() {
						t.Logf("keepalived %d:\n%s", i, &log)
					}
				})
				return stop
			}
			has := func(i int) bool { return strings.Contains(hosts[i].Run("ip", "-4", "addr"), "10.99.0.100/") }
			reach := func(when string) {
				t.Helper()
				testenv.Eventually(t, "the address answers "+when, func() bool {
					return hosts[2].Command("ping", "-n", "-q", "-c", "1", "-W", "1", "10.99.0.100").Run() == nil
				})
			}
			stop := keep(0)
			testenv.Eventually(t, "the first station has the address", func() bool { return has(0) })
			keep(1)
			reach("at the first station")
			// The second one hears the first; until it does, it may think that it is alone.
			testenv.Eventually(t, "the first station alone has the address", func() bool { return has(0) && !has(1) })
			stop()
			testenv.Eventually(t, "the second station has the address", func() bool { return has(1) && !has(0) })
			reach("at the second station")
			for _, name := range []string{"k0", "k1"} {
				for why, n := range sw.Port(t, name).RX.Dropped {
					if strings.HasPrefix(why, "guard_") && why != "guard_nd" && why != "guard_ipv6" { // what IPv6 of the virtual MAC tries
						t.Errorf("port %s dropped %d frames as %s", name, n, why)
					}
				}
			}
		})
	}
}
