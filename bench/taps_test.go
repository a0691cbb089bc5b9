package bench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/test/testenv/daemontest"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// ports is how many the daemon has in these benchmarks.
const ports = 1000

// BenchmarkIdleTaps: what the daemon takes for 1,000 tap ports that wait for frames,
// and how long it takes to add the last hundred of them. It needs root.
func BenchmarkIdleTaps(b *testing.B) {
	const last, idle = 100, 5 * time.Second
	ns := testenv.NewNetns(b)
	sw := daemontest.Start(b, ns)
	about, err := sw.Client.Switch(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	before := readProcess(b, about.PID)
	var addedLast time.Duration
	for i := range ports {
		start := time.Now()
		addTap(b, sw, i)
		if i >= ports-last {
			addedLast += time.Since(start)
		}
	}
	added := readProcess(b, about.PID)
	b.ResetTimer()
	for range b.N {
		time.Sleep(idle)
	}
	b.StopTimer()
	waited := readProcess(b, about.PID)
	b.ReportMetric(float64(addedLast.Milliseconds())/last, "ms/add")
	b.ReportMetric(float64(waited.rss-before.rss)/ports, "KiB/port")
	b.ReportMetric(float64(waited.threads), "threads")
	b.ReportMetric(100*float64(waited.cpu-added.cpu)/float64(b.Elapsed()), "cpu-%")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRestoreTaps: a daemon with 1,000 tap ports is killed: how long until it is
// dead, how long until the next one has them all and answers, and what processor time
// that takes. It needs root.
func BenchmarkRestoreTaps(b *testing.B) {
	ns := testenv.NewNetns(b)
	sw := daemontest.Start(b, ns)
	for i := range ports {
		addTap(b, sw, i)
	}
	var dead, back, cpu time.Duration
	b.ResetTimer()
	for range b.N {
		start := time.Now()
		sw.Kill()
		dead += time.Since(start)
		start = time.Now()
		sw.Restart(b)
		back += time.Since(start)
		about, err := sw.Client.Switch(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		cpu += readProcess(b, about.PID).cpu
	}
	b.StopTimer()
	perKill := func(d time.Duration) float64 { return float64(d.Milliseconds()) / float64(b.N) }
	b.ReportMetric(perKill(dead), "ms/death")
	b.ReportMetric(perKill(back), "ms/restore")
	b.ReportMetric(perKill(cpu), "cpu-ms/restore")
	b.ReportMetric(0, "ns/op")
}

func addTap(b *testing.B, sw *daemontest.Daemon, i int) {
	b.Helper()
	if _, err := sw.Client.AddPort(b.Context(), api.AddPort{Name: fmt.Sprint("vm", i), Kind: "tap"}); err != nil {
		b.Fatal(err)
	}
}

// process is what a process has of the machine, as in proc(5).
type process struct {
	rss     int // KiB
	threads int
	cpu     time.Duration
}

func readProcess(b *testing.B, pid int) (p process) {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		switch f := strings.Fields(line); f[0] {
		case "VmRSS:":
			p.rss = number(b, f[1])
		case "Threads:":
			p.threads = number(b, f[1])
		}
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	// Behind the name, which may contain anything; utime and stime are fields 14
	// and 15, in hundredths of a second (USER_HZ).
	f := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	p.cpu = time.Duration(number(b, f[14-3])+number(b, f[15-3])) * 10 * time.Millisecond
	return p
}

func number(b *testing.B, text string) int {
	b.Helper()
	n, err := strconv.Atoi(text)
	if err != nil {
		b.Fatal(err)
	}
	return n
}
