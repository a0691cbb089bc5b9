package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
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

// BenchmarkRestoreGuardedTaps: 1,000 tap ports, killed and restored as above, without a guard
// and then guarded, each with 16 leases of DHCP: how long until the daemon answers, and how much
// more memory it then needs, without what its collector has yet to free. It needs root.
func BenchmarkRestoreGuardedTaps(b *testing.B) {
	const addresses = 16
	ns := testenv.NewNetns(b)
	sw := daemontest.Start(b, ns)
	for i := range ports {
		addTap(b, sw, i)
	}
	var took [2]time.Duration
	var live [2]float64
	b.ResetTimer()
	for guarded := range took {
		if guarded == 1 {
			b.StopTimer()
			for i := range ports {
				guardTap(b, sw, i, addresses)
			}
			b.StartTimer()
		}
		for range b.N {
			sw.Kill()
			start := time.Now()
			sw.Restart(b)
			took[guarded] += time.Since(start)
			live[guarded] += liveHeap(b, sw)
		}
	}
	b.StopTimer()
	var all []struct{}
	if err := sw.Client.Do(b.Context(), http.MethodGet, "/v1/guard", nil, &all); err != nil {
		b.Fatal(err)
	}
	if len(all) != ports*(addresses+1) { // and the one that the MAC makes
		b.Fatalf("%d addresses", len(all))
	}
	b.ReportMetric(float64(took[0].Milliseconds())/float64(b.N), "ms/restore-unguarded")
	b.ReportMetric(float64(took[1].Milliseconds())/float64(b.N), "ms/restore")
	b.ReportMetric((live[1]-live[0])/(1<<20)/float64(b.N), "MiB-more")
	b.ReportMetric(0, "ns/op")
}

// liveHeap returns how many bytes of its heap a daemon needs once all its ports are there: half of
// the size at which it next collects, after it has collected what it had for its start. That is
// after two minutes, if it does not need memory before.
func liveHeap(b *testing.B, sw *daemontest.Daemon) float64 {
	b.Helper()
	testenv.Eventually(b, "all ports are there", func() bool {
		all, err := sw.Client.Ports(b.Context())
		return err == nil && !slices.ContainsFunc(all, func(p api.Port) bool { return p.State != api.StateNoCarrier })
	})
	const collections, next = "go_gc_duration_seconds_count", "go_memstats_next_gc_bytes"
	for first, start := metrics(b, sw)[collections], time.Now(); ; time.Sleep(time.Second) {
		now := metrics(b, sw)
		if now[collections] > first+1 { // the first may have begun before
			return now[next] / 2
		}
		if time.Since(start) > 10*time.Minute {
			b.Fatal("the daemon collects nothing")
		}
	}
}

// metrics returns what the daemon reports to Prometheus without labels.
func metrics(b *testing.B, sw *daemontest.Daemon) map[string]float64 {
	b.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", sw.Socket())
	}}}
	a, err := client.Get("http://switch/metrics")
	if err != nil {
		b.Fatal(err)
	}
	defer a.Body.Close()
	page, err := io.ReadAll(a.Body)
	if err != nil {
		b.Fatal(err)
	}
	all := make(map[string]float64)
	for line := range strings.Lines(string(page)) {
		name, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err == nil {
			all[name] = n
		}
	}
	return all
}

// guardTap guards a tap port and gives it leases, as a VM that has moved here has them.
func guardTap(b *testing.B, sw *daemontest.Daemon, i, leases int) {
	b.Helper()
	name, mac := fmt.Sprint("vm", i), fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&0xff)
	settings := map[string]any{"guard": "on", "guard_mac": []string{mac}, "guard_limit": leases}
	if err := sw.Client.Do(b.Context(), http.MethodPatch, "/v1/ports/"+name, settings, nil); err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var entries []any
	for n := range leases {
		entries = append(entries, map[string]any{
			"vlan": 1, "mac": mac, "address": fmt.Sprintf("10.%d.%d.%d", i>>8, i&0xff, n+1), "source": "dhcp", "expires": now.Add(time.Hour).Unix(), "server": "10.255.0.1",
		})
	}
	if err := sw.Client.Do(b.Context(), http.MethodPost, "/v1/guard/"+name+"/import", map[string]any{"written": now.Unix(), "entries": entries}, nil); err != nil {
		b.Fatal(err)
	}
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
