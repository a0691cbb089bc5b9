package fastpath

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// crowd is a Path with so many ports and stations, station n behind port n mod ports.
// The first port is the loopback, by which a frame comes that is run without saying by
// what; no frame leaves, so any devices do for the others.
func crowd(b *testing.B, ports, stations int) *rig {
	b.Helper()
	r := &rig{t: b, ns: testenv.NewNetns(b)}
	r.open(max(stations, 1024))
	for n := range ports {
		if n%2 == 1 {
			r.ns.Run("ip", "link", "add", "index", strconv.Itoa(n+1), "type", "veth", "peer", "index", strconv.Itoa(n+2))
		}
		r.ports = append(r.ports, vswitch.FastPort{
			Number: uint16(n), Device: device{n + 1, true}, From: true, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
		})
	}
	r.publish(r.ports)
	r.start()
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
			b.Run("sampled", func(b *testing.B) {
				r.ports[0].OneIn = 1000
				r.publish(r.ports)
				took := r.time(b, frame(crowdMAC(1), crowdMAC(0), frameLen), b.N)
				b.ReportMetric(float64(took.Nanoseconds()), "ns/frame")
				b.ReportMetric(0, "ns/op")
				r.ports[0].OneIn = 0
				r.publish(r.ports)
			})
			b.Run("policed", func(b *testing.B) {
				r.police(0, port.Rate{PerSecond: 4_000_000_000_000, Bits: true}, time.Second, 0)
				took := r.time(b, frame(crowdMAC(1), crowdMAC(0), frameLen), b.N)
				b.ReportMetric(float64(took.Nanoseconds()), "ns/frame")
				b.ReportMetric(0, "ns/op")
			})
			b.Run("guarded", func(b *testing.B) {
				r.ports[0].Police, r.ports[0].Guarded = vswitch.FastRate{}, true
				r.path.Guard(0, &vswitch.FastGuard{MACs: []port.MAC{crowdMAC(0)}, VLANs: *vlans(1), Senders: []vswitch.FastSender{
					{VLAN: 1, MAC: crowdMAC(0), Addr: netip.MustParseAddr("10.0.0.1")},
				}})
				r.publish(r.ports)
				took := r.time(b, packettest.Eth(crowdMAC(1), crowdMAC(0), typeIPv4, packettest.IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram())), b.N)
				b.ReportMetric(float64(took.Nanoseconds()), "ns/frame")
				b.ReportMetric(0, "ns/op")
				r.ports[0].Guarded = false
				r.publish(r.ports)
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
	decision, took, err := program(b, r.path, "vswitch").Benchmark(wire, times, nil)
	if err != nil || decision != tcxRedirect {
		b.Fatalf("the decision is %d, %v", decision, err)
	}
	return took
}

// BenchmarkGuestToGuest is all that a frame takes from the write of one guest to the read
// of another, at real TAPs, in one thread, whose CPU time is taken: with stations that are drawn anew for each
// frame from all there are, and with those of one flow. Half of the stations are behind
// each guest; the other ports are there.
func BenchmarkGuestToGuest(b *testing.B) {
	for _, c := range []struct{ ports, stations int }{{2, 2}, {1000, 1 << 20}} {
		r := newRig(b, 2)
		r.open(max(c.stations, 1024))
		for n := 2; n < c.ports; n++ {
			r.ports = append(r.ports, vswitch.FastPort{
				Number: uint16(n), Device: device{1 << 20 * n, true}, From: true, To: true, PVID: 1, Native: 1, VLANs: vlans(1),
			})
		}
		r.publish(r.ports)
		r.start()
		for n := range c.stations {
			r.table.Learn(fdb.MakeKey(1, uint64(crowdMAC(n))), uint16(n%2))
		}
		r.path.Settle()
		var guests [2]int
		for n := range guests {
			guests[n] = r.plug(b, "vm"+strconv.Itoa(n))
		}
		for _, traffic := range []struct {
			name  string
			among int
		}{{"frame", c.stations}, {"flow", 2}} {
			b.Run(fmt.Sprintf("ports=%d/stations=%d/%s", c.ports, c.stations, traffic.name), func(b *testing.B) {
				draw := rand.New(rand.NewPCG(1, 2))
				packet := make([]byte, vnet.HeaderLen+frameLen)
				copy(packet[vnet.HeaderLen:], frame(0, 0, frameLen))
				got := make([]byte, 2048)
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := cpuTime(b)
				for range b.N {
					src, dst := 2*draw.IntN(traffic.among/2), 2*draw.IntN(traffic.among/2)+1
					head := binary.BigEndian.AppendUint64(packet[:vnet.HeaderLen], uint64(crowdMAC(dst))<<16|uint64(crowdMAC(src))>>32)
					binary.BigEndian.AppendUint32(head, uint32(crowdMAC(src)))
					if _, err := unix.Write(guests[0], packet); err != nil {
						b.Fatal(err)
					}
					if n, err := unix.Read(guests[1], got); err != nil || n != len(packet) {
						b.Fatalf("%d bytes came, %v", n, err)
					}
				}
				b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/frame")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// cpuTime is that of the calling thread.
func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		b.Fatal(err)
	}
	return time.Duration(t.Nano())
}

// plug is boot, with the program at the device's ingress.
func (r *rig) plug(b testing.TB, name string) (fd int) {
	b.Helper()
	fd = r.boot(b, name)
	r.ns.Do(func() {
		program, err := r.path.Attach(r.ifindex(name))
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { program.Close() })
	})
	return fd
}

// boot opens a TAP as a guest does, and sets it up.
func (r *rig) boot(b testing.TB, name string) (fd int) {
	b.Helper()
	r.ns.Do(func() {
		var err error
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0); err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { unix.Close(fd) })
		req, err := unix.NewIfreq(name)
		if err != nil {
			b.Fatal(err)
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			b.Fatal(err)
		}
	})
	r.ns.Run("sysctl", "-qw", "net.ipv6.conf."+name+".disable_ipv6=1")
	r.ns.Run("ip", "link", "set", name, "up")
	return fd
}
