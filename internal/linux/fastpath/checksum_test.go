package fastpath

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	. "github.com/vswitch/vswitch/internal/packet/packettest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// EtherTypes.
const (
	typeIPv4 = 0x0800
	typeARP  = 0x0806
	typeIPv6 = 0x86dd
)

// tcpSegment is a TCP segment without a checksum.
func tcpSegment() []byte {
	return append([]byte{0, 22, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0}, "what it carries"...)
}

func udpDatagram() []byte { return UDP(1000, 2000, []byte("what it carries")) }

// withOptions puts IPv4 options into a packet.
func withOptions(packet []byte) []byte {
	b := bytes.Clone(packet[:20])
	b[0] = 0x46
	binary.BigEndian.PutUint16(b[2:], uint16(len(packet)+4))
	return append(append(b, 148, 4, 0, 0), packet[20:]...)
}

// fragment4 makes an IPv4 packet a fragment.
func fragment4(packet []byte, field uint16) []byte {
	b := bytes.Clone(packet)
	binary.BigEndian.PutUint16(b[6:], field)
	return b
}

// checksummed are frames of a guest in all forms that have a checksum, and some that have none.
// The program itself knows the checksums of those in known.
var checksummed = []struct {
	name  string
	known bool
	kind  uint16
	body  []byte
}{
	{"TCP", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 6, tcpSegment())},
	{"UDP", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram())},
	{"padded", true, typeIPv4, append(IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram()), make([]byte, 40)...)},
	{"TCP in IPv6", true, typeIPv6, IPv6("fd00::1", "fd00::2", 6, tcpSegment())},
	{"UDP in IPv6", true, typeIPv6, IPv6("fd00::1", "fd00::2", 17, udpDatagram())},
	{"behind options", true, typeIPv4, withOptions(IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram()))},
	{"behind extension headers", true, typeIPv6, IPv6("fd00::1", "fd00::2", 0, Extension(60, Extension(6, tcpSegment())))},
	{"VXLAN", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, UDP(1000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 42, 0},
		Bare(macB, macA, typeIPv4, IPv4("10.1.0.1", "10.1.0.2", 6, tcpSegment()))...)))},
	{"VXLAN over IPv6", true, typeIPv6, IPv6("fd00::1", "fd00::2", 17, UDP(1000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 42, 0},
		Bare(macB, macA, typeIPv6, IPv6("fd01::1", "fd01::2", 17, udpDatagram()))...)))},
	{"VXLAN between addresses that read like an IPv4 header", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, UDP(1000, 4789, append([]byte{8, 0, 0, 0, 0, 0, 42, 0},
		Bare(macB, 0x4c54_0012_3456, typeIPv6, IPv6("fd01::1", "fd01::2", 6, tcpSegment()))...)))},
	{"MPLS in IP", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 137, append([]byte{0, 0, 0x11, 64}, IPv4("10.1.0.1", "10.1.0.2", 6, tcpSegment())...))},
	{"Ethernet in IPv6", true, typeIPv6, IPv6("fd00::1", "fd00::2", 43, append([]byte{143, 0, 4, 0, 0, 0, 0, 0}, Bare(macB, macA, typeIPv4, IPv4("10.1.0.1", "10.1.0.2", 17, udpDatagram()))...))},
	{"GRE", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 47, append([]byte{0x80, 0, 8, 0, 0, 0, 0, 0}, IPv4("10.1.0.1", "10.1.0.2", 6, tcpSegment())...))},
	{"IP in IP", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 4, withOptions(IPv4("10.1.0.1", "10.1.0.2", 17, udpDatagram())))},
	{"extension headers in a tunnel", false, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 41, IPv6("fd01::1", "fd01::2", 60, Extension(17, udpDatagram())))},
	{"tagged", true, 0x8100, append([]byte{0, 5, 8, 0}, IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram())...)},
	{"first fragment", true, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram()), 0x2000)},
	{"later fragment", true, typeIPv4, fragment4(IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram()), 2)},
	{"fragment of IPv6", true, typeIPv6, IPv6("fd00::1", "fd00::2", 44, Fragment(17, 0, false, udpDatagram()))},
	{"packet longer than the frame", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 17, udpDatagram())[:40]},
	{"ARP", true, typeARP, append(ARP(2, macA, "10.0.0.1", macB, "10.0.0.2"), make([]byte, 18)...)},
	{"ICMP", true, typeIPv4, IPv4("10.0.0.1", "10.0.0.2", 1, tcpSegment())},
}

// A guest leaves a checksum to the host that can be anywhere in its frame. The program sends
// on what the switch would, and asks it about the rest: so no byte that somebody looked at
// is changed afterwards.
func TestChecksum(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	from, to := r.plug(t, "vm0"), r.plug(t, "vm1")
	for _, c := range checksummed {
		wire := Bare(macB, macA, c.kind, c.body)
		sent := 0
		for start := range len(wire) {
			for _, offset := range []int{0, 2, 4, 6, 8, 16} {
				o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(offset)}
				packet := make([]byte, vnet.HeaderLen, vnet.HeaderLen+len(wire))
				vnet.Encode(packet, o)
				if _, err := unix.Write(from, append(packet, wire...)); err != nil {
					continue // the kernel itself refuses it
				}
				got := len(read(t, to))
				may := vnet.Valid(o, len(wire)) && vnet.Partial(wire, len(wire), o)
				if got != 0 {
					sent++
				}
				if got != 0 && !may || got == 0 && may && c.known {
					t.Errorf("%s: a checksum at %d+%d: %d frames are sent on, and the switch would: %v", c.name, start, offset, got, may)
				}
			}
		}
		if c.name == "TCP" && sent == 0 {
			t.Error("nothing is sent on")
		}
	}
	// Without a checksum that is left to others, nothing of this matters.
	for _, c := range checksummed {
		if _, err := unix.Write(from, append(make([]byte, vnet.HeaderLen), Bare(macB, macA, c.kind, c.body)...)); err != nil {
			t.Fatal(err)
		}
		if n := len(read(t, to)); n != 1 && c.kind != 0x8100 {
			t.Errorf("%s: %d frames are sent on", c.name, n)
		}
	}
}
