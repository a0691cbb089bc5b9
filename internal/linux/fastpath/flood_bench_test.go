package fastpath

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strconv"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// BenchmarkFlood is all that a broadcast takes from the write of one guest to the reads of all
// others, in one thread, whose CPU time is taken; and the part of the write. Beside it are the
// kernel's bridge between such guests, and a program that clones to their devices without a
// decision: the least that any program can take.
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
	for _, by := range []string{"fast path", "clones", "bridge"} {
		b.Run(fmt.Sprintf("guests=%d/%s", guests, by), func(b *testing.B) {
			dst, all := port.Broadcast, members == guests-1
			if !all {
				dst = 0x0100_5e01_0203
			}
			r := newRig(b, guests)
			if by == "fast path" {
				r.flood.VLANs = *vlans(1)
				if !all {
					r.joined(map[port.MAC][]uint16{dst: {1, 2, 3, 4}}, nil, true)
				}
				r.publish(r.ports)
				r.learn(1, macA, 0)
			} else {
				r.path.Stop()
				r.open(1024) // with no port: it is at no device
			}
			if by == "bridge" {
				r.ns.Run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
				r.ns.Run("ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0")
				if !all { // the bridge filters once hosts had the time to answer its query
					r.ns.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_query_response_interval", "10")
					r.ns.Run("ip", "link", "set", "br0", "type", "bridge", "mcast_snooping", "1", "mcast_querier", "1")
				}
				r.ns.Run("ip", "link", "set", "br0", "up")
			}
			var fds []int
			for n := range guests {
				name := "vm" + strconv.Itoa(n)
				switch by {
				case "bridge":
					fds = append(fds, r.boot(b, name))
					r.ns.Run("ip", "link", "set", name, "master", "br0")
					if !all && n >= 1 && n <= members {
						r.ns.Run("bridge", "mdb", "add", "dev", "br0", "port", name, "grp", "239.1.2.3", "permanent")
					}
				case "clones":
					fds = append(fds, r.boot(b, name))
				default:
					fds = append(fds, r.plug(b, name))
				}
				r.ns.Run("tc", "qdisc", "replace", "dev", name, "root", "noqueue") // as the switch does
			}
			if by == "clones" {
				r.clones(b, members)
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
			const burst = 16 // what a guest sends before others have their turn
			start, write := cpuTime(b), int64(0)
			for left := b.N; left > 0; left -= burst {
				before := cpuTime(b)
				n := min(left, burst)
				for range n {
					if _, err := unix.Write(fds[0], packet); err != nil {
						b.Fatal(err)
					}
				}
				write += (cpuTime(b) - before).Nanoseconds()
				for _, fd := range fds[1 : members+1] {
					for range n {
						n, err := unix.Read(fd, got)
						for err == nil && n != len(packet) { // a query of the bridge's
							n, err = unix.Read(fd, got)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}
			}
			b.ReportMetric(float64((cpuTime(b)-start).Nanoseconds())/float64(b.N), "cpu-ns/frame")
			b.ReportMetric(float64(write)/float64(b.N*members), "write-ns/copy")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// clones has a program clone what comes by the first device to so many others, the last of which
// gets the frame itself.
func (r *rig) clones(b *testing.B, members int) {
	b.Helper()
	program := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	for n := 1; n <= members; n++ {
		ifindex := int32(r.ifindex("vm" + strconv.Itoa(n)))
		if n == members {
			program = append(program, asm.Mov.Imm(asm.R1, ifindex), asm.Mov.Imm(asm.R2, 0), asm.FnRedirect.Call(), asm.Return())
			break
		}
		program = append(program, asm.Mov.Reg(asm.R1, asm.R6), asm.Mov.Imm(asm.R2, ifindex), asm.Mov.Imm(asm.R3, 0), asm.FnCloneRedirect.Call())
	}
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, Instructions: program, License: "GPL"})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	r.ns.Do(func() {
		l, err := link.AttachTCX(link.TCXOptions{Interface: r.ifindex("vm0"), Program: p, Attach: ebpf.AttachTCXIngress})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { l.Close() })
	})
}
