package packettest

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/vswitch/vswitch/port"
)

// Drawer draws frames of a station that passes for others, in all ways by which guards have been
// passed: in its headers, behind tags, options, extension headers and fragments, in lengths and
// padding, and in the bodies of ARP, neighbour discovery, DHCP and DHCPv6. Many are honest but
// for one thing, so that it is that one which has to be found.
type Drawer struct {
	*rand.Rand
	Own, Peer    port.MAC // the station, and the one that it sends to
	Addr4, Addr6 []string // its addresses first, then those of others
}

// pick returns the first of all, which is honest, or any.
func pick[T any](d *Drawer, all ...T) T {
	if d.IntN(3) != 0 {
		return all[0]
	}
	return all[d.IntN(len(all))]
}

// any returns one of all.
func (d *Drawer) any(all ...int) int { return all[d.IntN(len(all))] }

func (d *Drawer) mac() port.MAC { return pick(d, d.Own, d.Peer, Broadcast, d.Own|1<<40, 0) }

func (d *Drawer) addr4() string {
	return pick(d, append(append([]string{}, d.Addr4...), "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")...)
}

func (d *Drawer) addr6() string {
	return pick(d, append(append([]string{}, d.Addr6...), "::", "::1", "ff02::1", "::ffff:"+d.Addr4[0])...)
}

func (d *Drawer) zeros(n int) []byte { return make([]byte, d.IntN(n)) }

// Draw draws a frame.
func (d *Drawer) Draw() []byte {
	kind, body := 0x86dd, []byte(nil)
	switch d.IntN(8) {
	case 0:
		kind, body = 0x0806, d.arp()
	case 1:
		kind, body = 0x8035, ARP(uint16(d.any(3, 3, 4)), d.mac(), d.any4zero(), d.mac(), d.any4zero())
	case 2, 3, 4:
		kind, body = 0x0800, d.ipv4()
	default:
		body = d.ipv6()
	}
	if d.IntN(20) == 0 {
		kind = d.any(0x0800, 0x0806, 0x86dd, 0x8035, 0x88cc, 0x0835, 0x8847)
	}
	if d.IntN(20) == 0 { // LLC and SNAP
		body = append([]byte{0xaa, 0xaa, 3, 0, 0, 0, byte(kind >> 8), byte(kind)}, body...)
		kind = d.any(len(body), 0x05dc, 0x05ff)
	}
	dst := []port.MAC{d.Peer, d.Peer, Broadcast, 0x3333_0000_0001}[d.IntN(4)]
	wire := Bare(dst, pick(d, d.Own, d.mac()), uint16(kind), body)
	if d.IntN(4) == 0 {
		wire = append(wire, d.zeros(40)...)
	}
	if d.IntN(12) == 0 {
		wire = wire[:port.HeaderLen+d.IntN(len(wire)-port.HeaderLen+1)]
	}
	for d.IntN(6) == 0 {
		tpid, vid := d.any(0x8100, 0x8100, 0x88a8, 0x9100), d.any(0, 0, 1, 20, 0xfff)
		wire = Tag(wire, port.Tag(tpid<<16|d.IntN(16)<<12|vid))
	}
	for d.IntN(10) == 0 && len(wire) > port.HeaderLen {
		wire[port.HeaderLen+d.IntN(min(len(wire), 90)-port.HeaderLen)] = byte(d.IntN(256))
	}
	return wire
}

// segment is how long the first of two messages is in a datagram that can be cut between them.
const segment = 400

// Offload draws an offload header for a frame, which may be a lie.
func (d *Drawer) Offload(wire []byte) port.Offload {
	o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(d.IntN(len(wire))), CsumOffset: uint16(2 * d.IntN(10))}
	if d.IntN(2) == 0 {
		o.CsumStart, o.CsumOffset = uint16(d.any(34, 38, 54, 58)), uint16(d.any(6, 16))
	}
	// The kernel takes no frame of one segment for a super-frame.
	if size := d.any(1+d.IntN(8), segment); d.IntN(3) == 0 && len(wire) > int(o.CsumStart)+20+size {
		o.GSOType = uint8(d.any(int(port.GSOTCPv4), int(port.GSOTCPv6), int(port.GSOTCPv4|port.GSOECN), int(port.GSOUDP), int(port.GSOUDPL4)))
		o.GSOSize, o.HdrLen = uint16(size), uint16(d.IntN(80))
	}
	return o
}

func (d *Drawer) any4zero() string { return pick(d, "0.0.0.0", d.addr4()) }

func (d *Drawer) arp() []byte {
	b := ARP(uint16(pick(d, 1, 2, 0, 3, 8, 9)), d.mac(), d.addr4(), d.mac(), d.addr4())
	if d.IntN(8) == 0 {
		b[d.any(0, 1, 2, 3, 4, 5)] = byte(d.any(0, 1, 4, 6, 8, 16))
	}
	return b
}

func (d *Drawer) ipv4() []byte {
	proto, body := d.upper(false)
	b := IPv4(d.addr4(), d.addr4(), proto, body)
	if d.IntN(6) == 0 {
		n := 4 * (1 + d.IntN(10))
		b = append(append(b[:20:20], make([]byte, n)...), body...)
		b[0] += byte(n / 4)
		binary.BigEndian.PutUint16(b[2:], uint16(len(b)))
	}
	if d.IntN(6) == 0 {
		binary.BigEndian.PutUint16(b[6:], uint16(d.any(0x2000, 0x2000, 1, 0x2001, 0x4000)))
	}
	if d.IntN(8) == 0 {
		d.lie(b[2:4])
	}
	return b
}

// lie changes a length a little.
func (d *Drawer) lie(length []byte) {
	n := int(binary.BigEndian.Uint16(length)) + d.any(-8, -4, -1, 1, 8, 40)
	binary.BigEndian.PutUint16(length, uint16(n*d.any(1, 1, 1, 0)))
}

func (d *Drawer) ipv6() []byte {
	proto, body := d.upper(true)
	if d.IntN(8) == 0 { // a packet ends before its upper layer does
		body = body[:d.IntN(len(body)+1)]
	}
	for n := d.any(0, 0, 0, 1, 1, 2, 3, 9); n > 0; n-- {
		kind := byte(d.any(0, 43, 44, 44, 51, 60, 60, 135, 139, 140))
		switch kind {
		case 44:
			body = Fragment(proto, d.any(0, 0, 0, 8, 16), d.IntN(2) == 0, body)
		case 51:
			more := d.IntN(3) // in pairs of words
			body = append(append([]byte{proto, byte(2*more + 2)}, make([]byte, 14+8*more)...), body...)
		default:
			more := d.any(0, 0, 1, 2, 20)
			body = append(append([]byte{proto, byte(more), 1, byte(4 + 8*more)}, make([]byte, 4+8*more)...), body...)
		}
		proto = kind
	}
	b := IPv6(d.addr6(), d.addr6(), proto, body)
	b[7] = pick[byte](d, 255, 64)
	if d.IntN(8) == 0 {
		d.lie(b[4:6])
	}
	return b
}

// upper draws the upper layer of a packet.
func (d *Drawer) upper(v6 bool) (proto byte, body []byte) {
	switch d.IntN(4) {
	case 0:
		return byte(d.any(2, 4, 6, 41, 47, 50, 59, 103, 112, 132)), append([]byte{byte(d.any(0, 0x11, 0x12, 0x16, 0x22, 0x30))}, d.zeros(40)...)
	case 1:
		from, to := d.any(68, 67, 546, 547, 1000), d.any(67, 68, 547, 546, 2000)
		draw := d.dhcp4
		if v6 {
			draw = d.dhcp6
		}
		message := draw()
		if d.IntN(4) == 0 && len(message) < segment {
			message = append(append(message, make([]byte, segment-len(message))...), draw()...)
		}
		b := UDP(uint16(from), uint16(to), message)
		if d.IntN(10) == 0 {
			d.lie(b[4:6])
		}
		return 17, b
	}
	if !v6 {
		return 1, append([]byte{byte(d.any(0, 5, 8, 9, 10)), byte(d.IntN(2))}, d.zeros(40)...)
	}
	kind := byte(d.any(128, 130, 131, 133, 134, 135, 136, 136, 137, 143, 138, 151))
	b := []byte{kind, byte(d.any(0, 0, 0, 1)), 0, 0}
	switch kind {
	case 133:
		b = append(b, 0, 0, 0, 0)
	case 134:
		b = append(b, make([]byte, 12)...)
	default:
		b = append(append(b, 0, 0, 0, 0), Addr(d.addr6())...)
	}
	for n := d.any(0, 1, 1, 2, 3); n > 0; n-- {
		o := LinkLayer(byte(d.any(1, 2, 14)), d.mac())
		if d.IntN(6) == 0 {
			o[1] = byte(d.IntN(3))
			o = append(o, make([]byte, d.any(0, 8))...)
		}
		b = append(b, o...)
	}
	return 58, b
}

func (d *Drawer) dhcp4() []byte {
	b := make([]byte, 240)
	b[0], b[1], b[2] = pick[byte](d, 1, 2), pick[byte](d, 1, 6), pick[byte](d, 6, 16)
	copy(b[12:], Addr(d.any4zero()))
	copy(b[24:], Addr(pick(d, "0.0.0.0", "0.0.0.0", d.Addr4[0])))
	copy(b[28:], d.mac().HardwareAddr())
	binary.BigEndian.PutUint32(b[236:], 0x63825363)
	b = append(b, 53, 1, byte(d.any(1, 2, 3, 4, 5, 6, 7, 8, 0)))
	for n := d.IntN(4); n > 0; n-- {
		switch d.IntN(5) {
		case 0:
			b = append(append(b, 50, 4), Addr(d.addr4())...)
		case 1:
			b = append(append(b, 61, 7, byte(d.any(1, 1, 255))), d.mac().HardwareAddr()...)
		case 2:
			b = append(b, 82, 2, 1, 0)
		case 3:
			b = append(b, 52, 1, byte(d.IntN(4)))
			copy(b[44:], []byte{82, 1, 0, 255})
		case 4:
			b = append(b, 12, byte(d.IntN(8)))
		}
	}
	return append(b, 255)
}

func (d *Drawer) dhcp6() []byte {
	b := []byte{byte(d.any(1, 2, 3, 5, 7, 8, 9, 10, 11, 12, 13, 36)), 1, 2, 3}
	b = append(append(b, 0, 1, 0, 10, 0, 3, 0, 1), d.mac().HardwareAddr()...)
	for n := d.IntN(3); n > 0; n-- {
		b = append(append(b, 0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24), Addr(d.addr6())...)
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	return b
}
