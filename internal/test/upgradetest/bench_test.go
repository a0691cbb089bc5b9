package upgradetest

import (
	"flag"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

var (
	queue = flag.Int("queue", 20_000, "frames that a TAP holds, or another device")
	down  = flag.Duration("down", 0, "how long a switch that was killed is down before the next process is started")
)

// BenchmarkLosses reports how many frames a flow between a kind of port and a TAP loses, and its
// longest gap, while the process is replaced, killed and started, killed and started by a service
// manager that keeps its files, or stopped and started.
func BenchmarkLosses(b *testing.B) {
	testenv.Root(b)
	modes := map[string][]string{"fast path": nil, "slow path": {"--fastpath", "off"}}
	kill := func(sw *daemontest.Daemon, t testing.TB) { sw.Kill(); time.Sleep(*down); sw.Restart(t) }
	what := map[string]func(*daemontest.Daemon, testing.TB){
		"nothing": func(*daemontest.Daemon, testing.TB) {}, // what the machine itself loses
		"upgrade": func(sw *daemontest.Daemon, t testing.TB) { sw.Upgrade(t) },
		"kill":    kill,
		"kept":    kill,
		"stop":    func(sw *daemontest.Daemon, t testing.TB) { sw.Stop(t); sw.Restart(t) },
	}
	// Their machines have to connect again, which a flow does not.
	connected := []string{"dgram", "stream", "vhost-user"}
	for _, mode := range slices.Sorted(maps.Keys(modes)) {
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			for _, event := range slices.Sorted(maps.Keys(what)) {
				if slices.Contains(connected, kind) && (event == "kill" || event == "stop") || kind == "stream" && event == "kept" {
					continue
				}
				start := daemontest.Start
				if event == "kept" {
					start = daemontest.StartService
				}
				for _, from := range []bool{true, false} {
					direction := map[bool]string{true: "from", false: "to"}[from]
					b.Run(strings.Join([]string{mode, kind, event, direction}, "/"), func(b *testing.B) {
						var lost, gap float64
						for range b.N {
							l, g := lose(b, start, modes[mode], kind, from, what[event])
							lost, gap = lost+l, max(gap, g)
						}
						b.ReportMetric(lost/float64(b.N), "lost")
						b.ReportMetric(gap, "gap-ms")
						b.ReportMetric(0, "ns/op")
					})
				}
			}
		}
	}
}

// lose returns how many frames a flow loses while something happens to its switch, and its longest
// gap in ms.
func lose(b *testing.B, start func(testing.TB, *testenv.Netns, ...string) *daemontest.Daemon, flags []string, kind string, from bool, happens func(*daemontest.Daemon, testing.TB)) (lost, gap float64) {
	ns := testenv.NewNetns(b)
	ns.Run("ip", "link", "set", "lo", "up")
	sw := start(b, ns, flags...)
	defer func() { sw.Kill(); sw.Cleanup(b) }()
	ends := []end{kinds[kind](b, sw, "p0"), kinds["tap"](b, sw, "p1")}
	// What waited comes at once. A TAP holds 500 frames, and what it drops then is not what counts here.
	for _, tap := range []string{"p0", "p1"} {
		if kind == "host" && tap == "p0" {
			continue // the switch made its other end, too
		}
		_ = ns.Command("ip", "link", "set", tap, "txqueuelen", strconv.Itoa(*queue)).Run() // it may be no device
	}
	if !from {
		slices.Reverse(ends)
	}
	f := newFlow(ends[0], ends[1], mac(0), mac(1))
	testenv.Eventually(b, "the station is known", func() bool {
		f.announce(b)
		return strings.Contains(sw.Ctl(b, "fdb list"), mac(1).String())
	})
	f.start()
	defer f.stop()
	f.more(b, uint32(*rate/10))
	happens(sw, b)
	f.more(b, uint32(*rate/2))
	_, n, _, longest := f.result(b)
	return float64(n), float64(longest.Microseconds()) / 1000
}
