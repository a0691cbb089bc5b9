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
	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/internal/testenv/daemontest"
	"github.com/vswitch/vswitch/port"
)

func TestMain(m *testing.M) { daemontest.Main(m) }

// BenchmarkIdleTaps: what the daemon takes for 1,000 tap ports that wait for frames,
// and how long it takes to add the last hundred of them. It needs root.
func BenchmarkIdleTaps(b *testing.B) {
	const ports, last, idle = 1000, 100, 5 * time.Second
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
		spec := port.Spec{Name: fmt.Sprint("vm", i), Kind: "tap"}
		if _, err := sw.Client.AddPort(b.Context(), api.AddPort{Spec: spec}); err != nil {
			b.Fatal(err)
		}
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
