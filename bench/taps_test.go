package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
	ns, dir := testenv.NewNetns(b), b.TempDir()
	sw := daemontest.Start(b, ns, "--state", dir)
	for i := range ports {
		addTap(b, sw, i)
	}
	var took [2]time.Duration
	var live [2]float64
	b.ResetTimer()
	for guarded := range took {
		if guarded == 1 {
			b.StopTimer()
			sw.Kill()
			guardTaps(b, filepath.Join(dir, "state.json"), addresses)
			sw.Restart(b)
			b.StartTimer()
		}
		for range b.N {
			sw.Kill()
			start := time.Now()
			sw.Restart(b)
			took[guarded] += time.Since(start)
			need := liveHeap(b, sw)
			b.Logf("guarded: %v, %.0f KiB in use", guarded == 1, need/1024)
			live[guarded] += need
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
// the size at which it next collects. Many small requests make it collect. Of several looks the
// least counts, since what it works on meanwhile is in use, too.
func liveHeap(b *testing.B, sw *daemontest.Daemon) float64 {
	b.Helper()
	const patience, looks, requests = 10 * time.Minute, 5, 2000
	start := time.Now()
	awaited := func(p api.Port) bool { return p.State != api.StateNoCarrier }
	for {
		all, err := sw.Client.Ports(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if !slices.ContainsFunc(all, awaited) {
			break
		}
		if time.Since(start) > patience {
			b.Fatal("some ports are not there")
		}
		time.Sleep(100 * time.Millisecond)
	}
	const collections, next = "go_gc_duration_seconds_count", "go_memstats_next_gc_bytes"
	var least float64
	last := metrics(b, sw)[collections]
	for n := 0; n < looks; {
		for range requests {
			if _, err := sw.Client.Switch(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
		now := metrics(b, sw)
		if now[collections] > last+1 { // the first may have begun before
			if size := now[next] / 2; n == 0 || size < least {
				least = size
			}
			last = now[collections]
			n++
		}
		if time.Since(start) > patience {
			b.Fatal("the daemon collects nothing")
		}
	}
	return least
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

// guardTaps guards all ports of a state that no daemon uses, and gives them leases.
func guardTaps(b *testing.B, file string, leases int) {
	b.Helper()
	type object = map[string]any
	var state struct {
		object
		Ports []struct {
			Spec  object `json:"spec"`
			Trace object `json:"trace"`
		} `json:"ports"`
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = errors.Join(json.Unmarshal(text, &state.object), json.Unmarshal(text, &state))
	}
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	bindings := make(object)
	for i, p := range state.Ports {
		mac := fmt.Sprintf("52:54:00:00:%02x:%02x", i>>8, i&0xff)
		p.Spec["guard"], p.Spec["guard_mac"], p.Spec["guard_limit"] = "on", []string{mac}, leases
		var entries []object
		for n := range leases {
			entries = append(entries, object{
				"vlan": 1, "mac": mac, "address": fmt.Sprintf("10.%d.%d.%d", i>>8, i&0xff, n+1), "source": "dhcp", "expires": now.Add(time.Hour).Unix(), "server": "10.255.0.1",
			})
		}
		bindings[p.Spec["name"].(string)] = entries
	}
	state.object["ports"], state.object["guard"] = state.Ports, object{"written": now.Unix(), "ports": bindings}
	if text, err = json.Marshal(state.object); err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	if err != nil {
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
