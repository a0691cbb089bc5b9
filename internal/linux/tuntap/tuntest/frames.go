package tuntest

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/vswitch/vswitch/port"
)

// Addresses of the stations that the frames here are from and to.
var (
	MACA, MACB = port.MAC(0x02_00_00_00_00_0a), port.MAC(0x02_00_00_00_00_0b)
	IPA, IPB   = netip.MustParseAddr("192.0.2.10"), netip.MustParseAddr("192.0.2.11")
)

// Ethernet makes a frame of an EtherType that no one answers to, with a number in
// its payload.
func Ethernet(number uint32, size int) []byte {
	b := header(MACB, MACA, 0x88b5)
	b = binary.BigEndian.AppendUint32(b, number)
	for len(b) < size {
		b = append(b, byte(len(b)))
	}
	return b
}

// IsEthernet reports whether a frame without tag is one of Ethernet's.
func IsEthernet(b []byte) bool {
	return len(b) >= 18 && binary.BigEndian.Uint16(b[12:]) == 0x88b5
}

// Tagged puts a VLAN tag into a frame.
func Tagged(b []byte, tag port.Tag) []byte {
	w := binary.BigEndian.AppendUint32(append([]byte(nil), b[:12]...), uint32(tag))
	return append(w, b[12:]...)
}

// ARPRequest asks who has the address.
func ARPRequest(who netip.Addr) []byte {
	b := header(port.Broadcast, MACA, 0x0806)
	b = append(b, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, MACA.HardwareAddr()...), IPA.AsSlice()...)
	return append(append(b, 0, 0, 0, 0, 0, 0), who.AsSlice()...)
}

// IsARPReply reports whether a frame answers an ARPRequest for who.
func IsARPReply(b []byte, who netip.Addr) bool {
	return len(b) >= 42 && binary.BigEndian.Uint16(b[12:]) == 0x0806 && b[21] == 2 && [4]byte(b[28:32]) == who.As4()
}

// Broadcast makes a UDP datagram to 255.255.255.255, which every host that sees it
// takes.
func Broadcast(dstPort uint16) []byte {
	b := append(header(port.Broadcast, MACA, 0x0800), make([]byte, 28)...)
	ip, udp := b[14:34], b[34:]
	ip4(ip, 17, len(b)-14, IPA, netip.MustParseAddr("255.255.255.255"))
	binary.BigEndian.PutUint16(udp, 4000)
	binary.BigEndian.PutUint16(udp[2:], dstPort)
	binary.BigEndian.PutUint16(udp[4:], 8)
	return b
}

const tcpAt, tcpData = 34, 54

// TCP4 makes a TCP segment from A to B of size bytes with its Ethernet header, to
// be cut into pieces of 1448 bytes, and the offload header that says so.
func TCP4(size int) ([]byte, port.Offload) {
	b := append(header(MACB, MACA, 0x0800), make([]byte, size-14)...)
	ip4(b[14:34], 6, size-14, IPA, IPB)
	tcp := b[tcpAt:]
	binary.BigEndian.PutUint16(tcp, 4000)
	binary.BigEndian.PutUint16(tcp[2:], 4001)
	binary.BigEndian.PutUint32(tcp[4:], 1) // sequence number
	tcp[12], tcp[13] = 5<<4, 0x10          // data offset, ACK
	for i := range b[tcpData:] {
		b[tcpData+i] = byte(i * 7 >> 3)
	}
	binary.BigEndian.PutUint16(tcp[16:], fold(pseudo(b)))
	return b, port.Offload{
		Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1448,
		HdrLen: tcpData, CsumStart: tcpAt, CsumOffset: 16,
	}
}

// UFO makes a UDP datagram from A to B with so many bytes of payload, whose fragmentation
// is left to others, and the offload header that says so.
func UFO(payload int) ([]byte, port.Offload) {
	b, o := TCP4(udpData + payload)
	ip4(b[14:34], 17, 20+8+payload, IPA, IPB)
	binary.BigEndian.PutUint16(b[38:], uint16(8+payload))
	binary.BigEndian.PutUint16(b[40:], fold(pseudo(b)))
	o.GSOType, o.GSOSize, o.HdrLen, o.CsumOffset = port.GSOUDP, 1480, udpData, 6
	return b, o
}

const udpData = 42

// Joiner puts the pieces of one TCP4 frame together again.
type Joiner struct {
	Pieces int
	data   []byte
	next   uint32
}

// Add takes the next piece, a whole frame without tag whose checksums must be right
// unless o says that the TCP checksum is partial.
func (j *Joiner) Add(b []byte, o port.Offload) error {
	if len(b) < tcpData || binary.BigEndian.Uint16(b[12:]) != 0x0800 || b[23] != 6 {
		return fmt.Errorf("not a TCP segment: % x", b[:min(len(b), 40)])
	}
	if sum := fold(sum(0, b[14:34])); sum != 0xffff {
		return fmt.Errorf("the IP header sums up to %#x", sum)
	}
	if o.Flags&port.NeedsCsum == 0 {
		if sum := fold(sum(pseudo(b), b[tcpAt:])); sum != 0xffff {
			return fmt.Errorf("the TCP segment sums up to %#x", sum)
		}
	}
	seq := binary.BigEndian.Uint32(b[tcpAt+4:])
	if j.Pieces == 0 {
		j.next = seq
	}
	if seq != j.next {
		return fmt.Errorf("sequence number %d where %d was due", seq, j.next)
	}
	j.Pieces++
	j.data = append(j.data, b[tcpData:]...)
	j.next += uint32(len(b) - tcpData)
	return nil
}

// Data is what the pieces carried so far.
func (j *Joiner) Data() []byte { return j.data }

// TCPData is what a TCP4 frame carries.
func TCPData(b []byte) []byte { return b[tcpData:] }

func header(dst, src port.MAC, etherType uint16) []byte {
	return binary.BigEndian.AppendUint16(append(dst.HardwareAddr(), src.HardwareAddr()...), etherType)
}

// ip4 fills in an IPv4 header (RFC 791).
func ip4(h []byte, protocol byte, length int, src, dst netip.Addr) {
	h[0], h[8], h[9], h[10], h[11] = 0x45, 64, protocol, 0, 0
	binary.BigEndian.PutUint16(h[2:], uint16(length))
	copy(h[12:], src.AsSlice())
	copy(h[16:], dst.AsSlice())
	binary.BigEndian.PutUint16(h[10:], ^fold(sum(0, h)))
}

// pseudo sums the pseudo header of an IPv4 frame (RFC 9293, 3.1).
func pseudo(b []byte) uint32 {
	return sum(uint32(b[23])+uint32(len(b)-34), b[26:34])
}

func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	if len(b) == 1 {
		s += uint32(b[0]) << 8
	}
	return s
}

// fold is the ones' complement sum in 16 bits (RFC 1071).
func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
