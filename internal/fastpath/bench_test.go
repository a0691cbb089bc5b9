package fastpath

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// crowd is a Path with so many ports and stations, station n behind port n mod ports.
// The first port is the loopback, by which a frame comes that is run without saying by
// what; no frame leaves, so the others need no device.
func crowd(b *testing.B, ports, stations int) *rig {
	b.Helper()
	testenv.Root(b)
	r := &rig{t: b}
	r.open(max(stations, 1024))
	for n := range ports {
		r.ports = append(r.ports, vswitch.FastPort{
			Number: uint16(n), Device: device{n + 1, true}, From: true, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
		})
	}
	r.path.Publish(r.ports)
	r.path.Start()
	for n := range stations {
		r.table.Learn(fdb.MakeKey(1, uint64(crowdMAC(n))), uint16(n%ports))
	}
	r.path.Settle()
	return r
}

func crowdMAC(n int) port.MAC { return 0x02_00_00_00_00_00 + port.MAC(n) }

// BenchmarkPath is what the program takes for a frame, as the kernel measures it: for
// one between stations that are drawn anew each time, frame by frame; and for those of
// one flow, in a row. And how long it takes to ask the kernel which of all stations it
// heard.
func BenchmarkPath(b *testing.B) {
	for _, c := range []struct{ ports, stations int }{{2, 2}, {2, 1 << 16}, {1000, 1 << 20}} {
		b.Run(fmt.Sprintf("ports=%d/stations=%d", c.ports, c.stations), func(b *testing.B) {
			r := crowd(b, c.ports, c.stations)
			b.Run("frame", func(b *testing.B) {
				draw := rand.New(rand.NewPCG(1, 2))
				var took time.Duration
				for range b.N {
					src := draw.IntN(c.stations/c.ports) * c.ports
					dst := src
					for dst%c.ports == 0 {
						dst = draw.IntN(c.stations)
					}
					took += r.time(b, frame(crowdMAC(dst), crowdMAC(src), frameLen), 1)
				}
				b.ReportMetric(float64(took.Nanoseconds())/float64(b.N), "ns/frame")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("flow", func(b *testing.B) {
				took := r.time(b, frame(crowdMAC(1), crowdMAC(0), frameLen), b.N)
				b.ReportMetric(float64(took.Nanoseconds()), "ns/frame")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("refresh", func(b *testing.B) {
				for range b.N {
					r.path.Refresh()
				}
			})
		})
	}
}

// time runs the program so many times on a frame that is sent on, and returns the mean.
func (r *rig) time(b *testing.B, wire []byte, times int) time.Duration {
	b.Helper()
	decision, took, err := r.path.bpf.Vswitch.Benchmark(wire, times, nil)
	if err != nil || decision != tcxRedirect {
		b.Fatalf("the decision is %d, %v", decision, err)
	}
	return took
}
