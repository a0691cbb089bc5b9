package fastpath

import (
	"encoding/binary"
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
		benchFlood(b, guests, guests-1)
	}
}

// BenchmarkGroup is the same with a frame to a group that four of 33 guests joined, in a VLAN that
// is snooped.
func BenchmarkGroup(b *testing.B) { benchFlood(b, 33, 4) }

// benchFlood has one guest send to so many of the others: to all, or to the members of a group.
func benchFlood(b *testing.B, guests, members int) {
	for _, by := range []string{"fast path", "bridge"} {
		b.Run(fmt.Sprintf("guests=%d/%s", guests, by), func(b *testing.B) {
			dst, all := port.Broadcast, members == guests-1
			if !all {
				dst = 0x0100_5e01_0203
			}
			r := newRig(b, guests)
			if by == "bridge" {
				r.path.Stop()
				r.open(1024) // with no port: it is at no device
				r.ns.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
				r.ns.Run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
				if !all { // the bridge filters once hosts had the time to answer its query
					r.ns.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_query_response_interval", "10")
					r.ns.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1")
				}
				r.ns.Run("ip", "link", "set", "br0", "up")
			} else {
				r.flood.VLANs = *vlans(1)
				if !all {
					r.joined(map[port.MAC][]uint16{dst: {1, 2, 3, 4}}, nil, true)
				}
				r.publish(r.ports)
				r.learn(1, macA, 0)
			}
			var fds []int
			for n := range guests {
				name := "vm" + strconv.Itoa(n)
				if by == "bridge" {
					fds = append(fds, r.boot(b, name))
					r.ns.Run("ip", "link", "set", name, "master", "br0")
					if !all && n >= 1 && n <= members {
						r.ns.Run("bridge", "mdb", "add", "dev", "br0", "port", name, "grp", "239.1.2.3", "permanent")
					}
				} else {
					fds = append(fds, r.plug(b, name))
				}
			}
			wire := frame(dst, macA, frameLen)
			if !all { // the bridge knows groups by IP
				copy(wire[12:], []byte{0x08, 0x00, 0x45, 0, 0, frameLen - 14, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 239, 1, 2, 3})
				sum := uint32(0)
				for i := 14; i < 34; i += 2 {
					sum += uint32(binary.BigEndian.Uint16(wire[i:]))
				}
				binary.BigEndian.PutUint16(wire[24:], ^uint16(sum>>16+sum&0xffff))
			}
			packet := append(make([]byte, vnet.HeaderLen), wire...)
			got := make([]byte, 2048)
			pass := func() {
				if _, err := unix.Write(fds[0], packet); err != nil {
					b.Fatal(err)
				}
				for _, fd := range fds[1 : members+1] {
					n, err := unix.Read(fd, got)
					for err == nil && n != len(packet) { // a query of the bridge's
						n, err = unix.Read(fd, got)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
			}
			if by == "bridge" {
				testenv.Eventually(b, "the bridge forwards", func() bool {
					for _, fd := range fds {
						read(b, fd)
					}
					_, _ = unix.Write(fds[0], packet)
					_, err := unix.Read(fds[members], got)
					if !all && err == nil {
						_, err := unix.Read(fds[members+1], got)
						return err != nil
					}
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
