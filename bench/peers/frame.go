package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// headerLen is the length of the virtio-net header before each frame on a TAP (struct
// virtio_net_hdr), in host byte order.
const headerLen = 10

// Values of the header's flags and gso_type fields (virtio 1.2, 5.1.6).
const (
	needsCsum = 1
	gsoTCPv4  = 1
)

// The frames are UDP, or TCP if they are to be segmented, over IPv4 between addresses
// reserved for benchmarks (RFC 2544): switches that inspect frames find what they find in
// users' frames. Offsets count from the frame's first byte.
const (
	ipAt     = 14
	l4At     = 34
	udpData  = 42
	tcpData  = 54
	mss      = 1448
	protoTCP = 6
	protoUDP = 17
)

// smallest is the size of the smallest frames, without the check sequence.
const smallest = 64

// A message is at the beginning of the payload: magic (2 bytes), kind (1), the sender's index
// (1), a sequence number (8), a count (8).
const (
	magic      = 0xbe9c
	messageLen = 20
)

const (
	kindHello   = iota // broadcast until all guests have heard each other
	kindData           // counted on arrival
	kindDataAsk        // the same, answered with an acknowledgement
	kindAck            // the highest number seen, and the number of frames that arrived
	kindRequest        // answered with a reply of the same number
	kindReply
)

// everyone is the index for the broadcast address, and theGroup for a multicast address.
const (
	everyone = 0xff
	theGroup = 0xfe
)

// groupAddress is the address of theGroup.
var groupAddress = netip.AddrFrom4([4]byte{239, 18, 0, theGroup})

type message struct {
	kind  byte
	from  byte
	seq   uint64
	count uint64
}

// newPacket makes a frame of size bytes between two guests, behind its virtio-net header. A
// frame longer than an Ethernet frame is a TCP segment to be split; whoever splits it
// computes the checksums.
func newPacket(from, to byte, size int) []byte {
	p := make([]byte, headerLen+size)
	f := p[headerLen:]
	putMAC(f, to)
	putMAC(f[6:], from)
	binary.BigEndian.PutUint16(f[12:], 0x0800)

	ip := f[ipAt:l4At]
	ip[0], ip[8], ip[9] = 0x45, 64, protoUDP
	binary.BigEndian.PutUint16(ip[2:], uint16(size-ipAt))
	copy(ip[12:], []byte{198, 18, 0, from})
	copy(ip[16:], []byte{198, 18, 0, to})
	if to == theGroup {
		copy(ip[16:], groupAddress.AsSlice())
	}
	super := size > 1514
	if super {
		ip[9] = protoTCP
	}
	binary.BigEndian.PutUint16(ip[10:], ^fold(sum(0, ip)))

	l4 := f[l4At:]
	binary.BigEndian.PutUint16(l4, 4000)
	binary.BigEndian.PutUint16(l4[2:], 4001)
	if !super {
		binary.BigEndian.PutUint16(l4[4:], uint16(len(l4))) // no checksum: 0
		return p
	}
	l4[12], l4[13] = 5<<4, 0x10 // data offset, ACK
	// The checksum field starts with the sum of the pseudo header.
	binary.BigEndian.PutUint16(l4[16:], fold(sum(protoTCP+uint32(len(l4)), ip[12:20])))
	p[0], p[1] = needsCsum, gsoTCPv4
	for i, v := range []uint16{tcpData, mss, l4At, 16} { // hdr_len, gso_size, csum_start, csum_offset
		binary.NativeEndian.PutUint16(p[2+2*i:], v)
	}
	return p
}

func putMAC(b []byte, index byte) {
	if index == everyone {
		copy(b, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		return
	}
	if index == theGroup { // RFC 1112 section 6.4
		copy(b, []byte{1, 0, 0x5e})
		copy(b[3:], groupAddress.AsSlice()[1:])
		return
	}
	copy(b, []byte{2, 0, 0, 0, 0, index})
}

// macText and addressText return the addresses of a guest, as commands take them.
func macText(index int) string     { return fmt.Sprintf("02:00:00:00:00:%02x", index) }
func addressText(index int) string { return fmt.Sprintf("198.18.0.%d", index) }

// isFor reports whether the packet is addressed to the guest or to all.
func isFor(p []byte, index byte) bool {
	dst := p[headerLen:]
	return dst[5] == index && dst[0] == 2 || dst[0]&1 != 0
}

// payloadAt returns the offset of the payload in a packet from newPacket.
func payloadAt(p []byte) int {
	if p[headerLen+ipAt+9] == protoTCP {
		return headerLen + tcpData
	}
	return headerLen + udpData
}

// put writes the message into a packet. No checksum covers it: UDP has none, and TCP's is
// still to be computed.
func (m message) put(p []byte) {
	b := p[payloadAt(p):]
	_ = b[messageLen-1]
	binary.BigEndian.PutUint16(b, magic)
	b[2], b[3] = m.kind, m.from
	binary.BigEndian.PutUint64(b[4:], m.seq)
	binary.BigEndian.PutUint64(b[12:], m.count)
}

// parse reads the message of a packet; ok is false for a packet from somebody else.
func parse(p []byte) (m message, ok bool) {
	if len(p) < headerLen+l4At {
		return m, false
	}
	at := payloadAt(p)
	if len(p) < at+messageLen || binary.BigEndian.Uint16(p[at:]) != magic {
		return m, false
	}
	b := p[at:]
	return message{b[2], b[3], binary.BigEndian.Uint64(b[4:]), binary.BigEndian.Uint64(b[12:])}, true
}

// sum and fold are the ones' complement sum of RFC 1071.
func sum(s uint32, b []byte) uint32 {
	for ; len(b) >= 2; b = b[2:] {
		s += uint32(binary.BigEndian.Uint16(b))
	}
	return s
}

func fold(s uint32) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
