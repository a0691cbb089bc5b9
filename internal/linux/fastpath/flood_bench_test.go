package fastpath

import (
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// BenchmarkFlood is all that a broadcast takes from the write of one guest to the reads of all
// others, in one thread, whose CPU time is taken; beside the kernel's bridge between such
// guests.
func BenchmarkFlood(b *testing.B) {
	for _, guests := range []int{2, 8, 32} {
		for _, by := range []string{"fast path", "bridge"} {
			b.Run(fmt.Sprintf("guests=%d/%s", guests, by), func(b *testing.B) {
				r := newRig(b, guests)
				if by == "bridge" {
					r.path.Stop()
					r.open(1024) // with no port: it is at no device
					r.ns.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
					r.ns.Run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
					r.ns.Run("ip", "link", "set", "br0", "up")
				} else {
					r.flood.VLANs = *vlans(1)
					r.publish(r.ports)
					r.learn(1, macA, 0)
				}
				var fds []int
				for n := range guests {
					name := "vm" + strconv.Itoa(n)
					if by == "bridge" {
						fds = append(fds, r.boot(b, name))
						r.ns.Run("ip", "link", "set", name, "master", "br0")
					} else {
						fds = append(fds, r.plug(b, name))
					}
				}
				packet := append(make([]byte, vnet.HeaderLen), frame(port.Broadcast, macA, frameLen)...)
				got := make([]byte, 2048)
				pass := func() {
					if _, err := unix.Write(fds[0], packet); err != nil {
						b.Fatal(err)
					}
					for _, fd := range fds[1:] {
						if n, err := unix.Read(fd, got); err != nil || n != len(packet) {
							b.Fatalf("%d bytes came, %v", n, err)
						}
					}
				}
				if by == "bridge" {
					testenv.Eventually(b, "the bridge forwards", func() bool {
						_, _ = unix.Write(fds[0], packet)
						_, err := unix.Read(fds[guests-1], got)
						return err == nil
					})
					for _, fd := range fds {
						read(b, fd)
					}
				}
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				start := cpuTime(b)
				for range b.N {
					pass()
				}
				b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/frame")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}
