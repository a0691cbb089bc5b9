package bench

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"syscall"
	"testing"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// BenchmarkPorts: known unicast in a switch of so many ports, of which two talk, or all
// in turn: a batch from a port to one, then from the next port.
func BenchmarkPorts(b *testing.B) {
	for _, ports := range []int{2, 8, 64, 1000} {
		switchPorts(b, ports, 2)
		if ports > 2 {
			switchPorts(b, ports, ports)
		}
	}
}

func switchPorts(b *testing.B, ports, talking int) {
	b.Run(fmt.Sprintf("size=64/ports=%d/talking=%d", ports, talking), func(b *testing.B) {
		sw := vswitch.New(vswitch.Config{})
		defer sw.Close()
		lines := attach(b, sw, ports, vswitch.PortConfig{})
		batches := make([][]memory.Packet, ports)
		for i := range lines {
			know(b, sw, station(i), i)
			for range port.BatchSize {
				batches[i] = append(batches[i], memory.Packet{Wire: frame(station((i+1)%talking), station(i), 60)})
			}
		}
		talk := func(n int) {
			for i := 0; n > 0; i = (i + 1) % talking {
				few := min(n, port.BatchSize)
				pump(lines[i], lines[(i+1)%talking:][:1], batches[i], few)
				n -= few
			}
		}
		talk(ports * 4 * port.BatchSize) // all buffers are made
		perFrame(b, talk)
	})
}

// BenchmarkStations: known unicast from one port to another, each frame from another
// station to another; half of them are behind each port.
func BenchmarkStations(b *testing.B) {
	for _, all := range []int{1 << 10, fdb.DefaultCapacity, fdb.MaxCapacity} {
		b.Run(fmt.Sprintf("size=64/stations=%dKi", all>>10), func(b *testing.B) {
			stations := all / 2
			sw := vswitch.New(vswitch.Config{FDB: fdb.Config{Capacity: fdb.MaxCapacity}})
			defer sw.Close()
			lines := attach(b, sw, 2, vswitch.PortConfig{})
			for i := range all {
				know(b, sw, station(i), i%2)
			}
			// In the order in which they were learned, the hardware would prefetch them.
			packets := make([]memory.Packet, stations)
			wires := make([]byte, 60*stations)
			from, to := rand.Perm(stations), rand.Perm(stations)
			for i := range packets {
				packets[i].Wire = wires[60*i:][:60]
				copy(packets[i].Wire, frame(station(2*to[i]+1), station(2*from[i]), 60))
			}
			pump(lines[0], lines[1:], packets, stations)
			perFrame(b, func(n int) { pump(lines[0], lines[1:], packets, n) })
		})
	}
}

// perFrame reports the CPU time that a frame costs when send switches b.N of them, the
// copies of both memory ports included. It does not suffer from what else the machine
// does, but for its caches.
func perFrame(b *testing.B, send func(n int)) {
	// On one CPU nobody spins while another works.
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	before := cpuTime(b)
	send(b.N)
	b.StopTimer()
	b.ReportMetric(float64(cpuTime(b)-before)/float64(b.N), "cpu-ns/frame")
}

// cpuTime is what the process has used so far.
func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// know has the switch know a station behind a port.
func know(b *testing.B, sw *vswitch.Switch, mac port.MAC, number int) {
	if o, _ := sw.FDB().Learn(fdb.MakeKey(1, uint64(mac)), uint16(number)); o != fdb.Learned {
		b.Fatalf("learn %v: %v", mac, o)
	}
}
