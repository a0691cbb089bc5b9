package upgradetest

import (
	"flag"
	"os/exec"
	"strings"
	"testing"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

var unit = flag.String("unit", "", "systemd unit of a running switch, such as vswitch@sw0")

// BenchmarkUnit kills and restarts a switch that systemd runs, under flows through its ports, and
// fails if more is lost than docs/upgrade.md says: a kill takes what the process has in its hands, a
// restart nothing; a stream connects again. packaging/systemd-test.sh runs it.
func BenchmarkUnit(b *testing.B) {
	if *unit == "" {
		b.Skip("it takes a switch under systemd: -unit vswitch@sw0")
	}
	testenv.Root(b)
	_, name, _ := strings.Cut(*unit, "@")
	sw := daemontest.Running(b, "vswitch", "/run/vswitch/"+name+".sock")
	systemctl := func(args ...string) string {
		out, err := exec.Command("systemctl", append(args, *unit)...).CombinedOutput()
		if err != nil {
			b.Fatalf("systemctl %s: %v: %s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	flows := flowsAround(b, sw, []string{"dgram", "host", "lag", "netdev", "tap", "vhost-user", "redial"})
	again := func(how ...string) {
		pid := systemctl("show", "--value", "-p", "MainPID")
		systemctl(how...)
		testenv.Eventually(b, "systemd has started it again", func() bool {
			_, err := sw.Client.Ports(b.Context())
			return err == nil && systemctl("show", "--value", "-p", "MainPID") != pid
		})
		for _, f := range flows {
			f.more(b, 30)
		}
	}
	for range b.N {
		again("kill", "-s", "KILL")
		again("kill", "-s", "KILL")
	}
	wantAllBut(b, "kill -9", flows, 2*b.N*inHand)
	lost := func() (n int) {
		for _, f := range flows {
			_, l, _, _ := f.result(b)
			if !f.reconnects() {
				n += l
			}
		}
		return n
	}
	killed := lost()
	again("restart")
	if n := lost() - killed; n > 0 {
		b.Errorf("a restart loses %d frames", n)
	}
	b.ReportMetric(float64(killed), "lost")
	b.ReportMetric(0, "ns/op")
}
