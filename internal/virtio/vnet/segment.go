package vnet

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// Reasons why a frame cannot be segmented. Each maps to port.DropBadOffload.
var (
	ErrOffload = errors.New("the offload header contradicts itself or the frame; the sender's driver is at fault")
	ErrHeaders = errors.New("the frame does not begin with the headers that its offload header speaks of; the sender's driver is at fault")
	ErrSize    = errors.New("the segment size makes too many segments, or segments too long for IP; the sender's driver is at fault")
)

const (
	// MaxHeader bounds the headers of a frame to be segmented, in bytes. Ethernet, two
	// tags, IPv6, TCP and their options take less than 200; the rest leaves room for
	// segment routing (RFC 8754).
	MaxHeader = 512

	// MaxHead is the most of a segment that NextHead writes.
	MaxHead = MaxHeader + fragHeaderLen

	// maxSegments bounds the work that one frame of a hostile guest causes: 64 KiB in
	// segments of 64 bytes.
	maxSegments = 1024

	// maxDatagrams is the kernel's bound for UDP (UDP_MAX_SEGMENTS in
	// include/linux/udp.h); the kernel refuses a frame with more.
	maxDatagrams = 128

	udpHeaderLen  = 8
	tcpHeaderLen  = 20
	fragHeaderLen = 8 // RFC 8200 section 4.5

	// Offset of the checksum in the header.
	tcpCsum = 16
	udpCsum = 6

	tcpFIN, tcpPSH, tcpCWR = 0x01, 0x08, 0x80

	maxIPLen = 0xffff // limit of the length field
)

// A Segmenter divides a super-frame into the frames that a port without segmentation can
// take, byte for byte as the Linux kernel segments it. The checksum in each is complete
// or, if the port completes it, partial:
//
//   - TCP (GSOTCPv4, GSOTCPv6): sequence numbers advance; FIN and PSH stay only on the
//     last segment, CWR only on the first (RFC 3168 section 6.1.2); the IPv4
//     identification counts up, with or without "don't fragment".
//   - UDP datagrams (GSOUDPL4): each gets its UDP header; the identification as for TCP.
//   - SCTP (GSOSCTP): each packet gets as many whole chunks as fit; the checksum is always
//     complete.
//   - UDP fragmentation (GSOUDP): IP fragments of one datagram, whose checksum is always
//     complete. IPv6 gets its fragment header behind all extension headers, with
//     offsets that are right where the kernel's are not.
//
// TCP and UDP datagrams can also have GSOTunnel: each segment then gets the tunnel's
// headers too, with their lengths, IPv4 identification and checksums. What stands in front of
// the packet, MPLS labels or the header of a PPPoE session, is repeated as well.
//
// VLAN tags inside data, IPv4 options and IPv6 extension headers are repeated in each
// segment. A frame no longer than one segment comes out whole. So does a frame that needs
// no segmentation, with its checksum completed: a Segmenter handles every frame for which
// Plan does not return Pass.
//
// Init reads the headers once; it ignores the sender's hdr_len. One goroutine at a time
// uses a Segmenter; the zero Segmenter needs Init.
type Segmenter struct {
	rest  []byte // payload not yet sent
	count int
	next  int // number of the next segment

	layout  layout
	ipv4    bool
	partial bool // the port completes the checksum
	outer   outer
	shim    shim
	ip, l4  int // offsets of these headers in head
	headLen int // of every segment; the first fragment adds the UDP header
	size    int // payload behind headLen, perhaps less in the last segment
	longest int

	// Sums over the fields that all segments share. Each segment adds the rest to them
	// instead of reading the headers again.
	ipSum     uint32 // IPv4 header without length, identification and checksum
	pseudoSum uint32 // pseudo header without length
	l4Sum     uint32 // transport header without length, sequence, flags and checksum

	id      uint16
	step    int // increment of the identification
	seq     uint32
	flags   uint8
	offset  int // of the next fragment in its datagram
	offload port.Offload

	head [MaxHead]byte

	// For Regroup: the number of segments per group, and the length of each behind the
	// outer headers; and what to restore when a segment is written.
	group    int
	datagram int
	saved    [MaxHeader]byte
}

// layout says how the headers differ from one segment to the next.
type layout uint8

const (
	whole layout = iota // one frame
	tcpSegments
	udpDatagrams
	ipFragments
	sctpPackets
)

// Init starts a new frame: data without its outer tag, its offload, and the caps of the
// destination port. The Segmenter reads data until the last segment is out, and never
// writes to it. After an error there are no segments.
func (s *Segmenter) Init(data []byte, o port.Offload, caps port.Caps) error {
	s.Reset()
	if len(data) < port.HeaderLen || len(data) > port.MaxFrame {
		return ErrHeaders
	}
	s.partial = o.Flags&port.NeedsCsum != 0 && caps&port.CapCsum != 0
	head := s.head[:copy(s.head[:MaxHeader], data)]
	if !o.IsGSO() {
		return s.initWhole(data, o, port.HeaderLen)
	}
	super, err := findSuper(head, len(data), o)
	if err != nil {
		return err
	}
	p := super.packet
	s.ipv4, s.ip, s.l4 = p.Version == 4, p.Header, p.Transport
	s.shim = super.shim
	if super.tunnel || super.shim.len != 0 {
		// To complete the checksum of an inner packet, a device needs more than an
		// offset: some take it for the outer packet's.
		s.partial = false
	}
	if super.tunnel {
		s.setOuter(super.outer, len(data))
	}
	switch o.GSOType &^ (port.GSOECN | port.GSOTunnel) {
	case port.GSOUDPL4:
		return s.initDatagrams(data, o)
	case port.GSOUDP:
		return s.initFragments(data, o, p.ProtoAt)
	case port.GSOSCTP:
		return s.initSCTP(data, o)
	}
	return s.initTCP(data, head, o, p.Routed)
}

// Reset discards all segments, and forgets data.
func (s *Segmenter) Reset() {
	s.rest, s.count, s.next, s.longest, s.offset, s.offload = nil, 0, 0, 0, 0, port.Offload{}
	s.outer.on = false
	s.step = 1
}

// Inspect returns a super-frame's offload, with GSOTunnel if its type is that of the
// packet inside a tunnel, behind MPLS labels or in a PPPoE session. The frame has n bytes and
// begins with data. ok is false if data does not begin with the headers that o describes; a
// receiver of the whole frame trusts that it does.
func Inspect(data []byte, n int, o port.Offload) (_ port.Offload, ok bool) {
	super, err := findSuper(data[:min(len(data), MaxHeader)], n, o)
	o.GSOType &^= port.GSOTunnel
	if super.tunnel || super.shim.len != 0 {
		o.GSOType |= port.GSOTunnel
	}
	return o, err == nil
}

// super locates the packet of a super-frame, and the tunnel around it.
type super struct {
	packet eth.IPPacket
	outer  eth.IPPacket
	tunnel bool
	shim   shim // in front of the packet
}

// findSuper finds the packet in a super-frame of n bytes that begins with head.
func findSuper(head []byte, n int, o port.Offload) (s super, err error) {
	kind := o.GSOType &^ (port.GSOECN | port.GSOTunnel)
	if o.GSOType&^port.GSOTunnel == port.GSOSCTP {
		if o.Flags&port.NeedsCsum != 0 || o.GSOSize == 0 {
			return s, ErrOffload
		}
	} else {
		valid := o
		valid.GSOType &^= port.GSOTunnel
		if !Valid(valid, n) {
			return s, ErrOffload
		}
	}
	p, shim, ok := findPacket(head)
	if !ok || p.Fragment {
		return s, ErrHeaders
	}
	s.shim = shim
	if o.Flags&port.NeedsCsum != 0 && int(o.CsumStart) != p.Transport {
		// The sum of the outer header adds up only if its 16-bit words align with the inner
		// packet's.
		inner, ok := findInner(head, n, p, o)
		if !ok || (inner.Transport-p.Transport)&1 != 0 {
			return s, ErrOffload
		}
		s.outer, s.tunnel = p, true
		p = inner
	}
	s.packet = p
	proto, length := eth.ProtoUDP, udpHeaderLen
	switch kind {
	case port.GSOTCPv4, port.GSOTCPv6:
		proto, length = eth.ProtoTCP, tcpHeaderLen
		if (p.Version == 4) != (kind == port.GSOTCPv4) {
			return s, ErrHeaders
		}
	case port.GSOSCTP:
		proto, length = eth.ProtoSCTP, sctpHeaderLen
	}
	if p.Proto != proto || len(head) < p.Transport+length {
		return s, ErrHeaders
	}
	return s, nil
}

// initWhole makes data one frame. At least its first headLen bytes are copied.
func (s *Segmenter) initWhole(data []byte, o port.Offload, headLen int) error {
	if o.Flags&port.NeedsCsum != 0 {
		start := int(o.CsumStart)
		at := start + int(o.CsumOffset)
		if start < port.HeaderLen || at+2 > min(len(data), MaxHeader) {
			return ErrChecksum
		}
		if !s.partial {
			binary.BigEndian.PutUint16(s.head[at:], complement(uint32(Sum(data[start:]))))
			headLen = max(headLen, at+2)
		}
		s.leavePartial(start, int(o.CsumOffset))
	}
	s.layout, s.headLen, s.longest = whole, headLen, len(data)
	s.rest = data[headLen:]
	s.size, s.count = len(s.rest), 1
	return nil
}

func (s *Segmenter) initTCP(data, head []byte, o port.Offload, routed bool) error {
	t := head[s.l4:]
	n := int(t[12]>>4) * 4
	if n < tcpHeaderLen || n > len(t) {
		return ErrHeaders
	}
	t = t[:n]
	payload := data[s.l4+n:]
	if len(payload) <= int(o.GSOSize) && !s.outer.on {
		return s.initWhole(data, o, s.l4+n)
	}
	switch {
	case o.Flags&port.NeedsCsum != 0:
		s.pseudoFromPartial(t[tcpCsum:], len(data)-s.l4)
	case routed:
		// The pseudo header holds the last destination (RFC 8200 section 8.1); the IP
		// header may hold an intermediate one.
		return ErrChecksum
	default:
		s.pseudoFromAddresses(eth.ProtoTCP)
	}
	s.seq, s.flags = binary.BigEndian.Uint32(t[4:]), t[13]
	clear(t[4:8])
	t[13] = 0
	clear(t[tcpCsum : tcpCsum+2])
	s.l4Sum = uint32(Sum(t))
	s.leavePartial(s.l4, tcpCsum)
	return s.cut(tcpSegments, payload, len(payload), s.l4+n, int(o.GSOSize), maxSegments)
}

// initDatagrams prepares UDP datagrams. Valid has checked that the checksum is
// requested.
func (s *Segmenter) initDatagrams(data []byte, o port.Offload) error {
	headLen := s.l4 + udpHeaderLen
	payload := data[headLen:]
	if len(payload) <= int(o.GSOSize) && !s.outer.on {
		return s.initWhole(data, o, headLen)
	}
	u := s.head[s.l4:headLen]
	s.pseudoFromPartial(u[udpCsum:], len(data)-s.l4)
	clear(u[4:])
	s.l4Sum = uint32(Sum(u))
	s.leavePartial(s.l4, udpCsum)
	return s.cut(udpDatagrams, payload, len(payload), headLen, int(o.GSOSize), maxDatagrams)
}

// initFragments prepares IP fragments. The first one holds the UDP header, which counts
// toward the segment size. No port can complete a checksum that covers several frames,
// so it is always completed here. All fragments but the last are multiples of eight
// bytes (RFC 791 section 3.2, RFC 8200 section 4.5).
func (s *Segmenter) initFragments(data []byte, o port.Offload, protoAt int) error {
	datagram := data[s.l4:]
	payload := datagram[udpHeaderLen:]
	if len(datagram) <= int(o.GSOSize) {
		return s.initWhole(data, o, s.l4+udpHeaderLen)
	}
	size := int(o.GSOSize) &^ 7
	if size == 0 || s.ipLen(len(data)) > maxIPLen {
		return ErrSize
	}
	u := s.head[s.l4 : s.l4+udpHeaderLen]
	if o.Flags&port.NeedsCsum != 0 {
		binary.BigEndian.PutUint16(u[udpCsum:], complement(uint32(Sum(datagram))))
	}
	if s.ipv4 {
		clear(s.head[s.ip+6 : s.ip+8]) // flags and offset
	} else {
		f := s.head[s.l4 : s.l4+fragHeaderLen]
		s.l4 += fragHeaderLen
		copy(s.head[s.l4:], u)
		clear(f)
		f[0], s.head[protoAt] = eth.ProtoUDP, eth.ProtoFragment
		binary.BigEndian.PutUint32(f[4:], rand.Uint32()) // unpredictable (RFC 7739)
	}
	return s.cut(ipFragments, payload, len(datagram), s.l4, size, maxSegments)
}

// cut divides total bytes into segments of size bytes behind headLen bytes of headers.
// It is the last step: from here on there are segments.
func (s *Segmenter) cut(l layout, rest []byte, total, headLen, size, limit int) error {
	count := max(1, (total+size-1)/size)
	longest := headLen + min(size, total)
	if count > limit || s.ipLen(longest) > maxIPLen || s.outer.on && longest-s.outer.ip > maxIPLen {
		return ErrSize
	}
	if s.ipv4 {
		s.id, s.ipSum = fixIPv4(s.head[s.ip:s.l4])
	}
	s.layout, s.rest, s.headLen, s.size = l, rest, headLen, size
	s.longest, s.count = longest, count
	return nil
}

// ipLen returns the value of the IP header's length field in a frame of n bytes: IPv4
// counts the header, IPv6 does not.
func (s *Segmenter) ipLen(n int) int {
	if s.ipv4 {
		return n - s.ip
	}
	return n - s.ip - eth.IPv6HeaderLen
}

// pseudoFromPartial takes the sum of the pseudo header from a partial checksum, less
// the length in it. That is right with a routing header too, since the sender knew of
// it.
func (s *Segmenter) pseudoFromPartial(csum []byte, length int) {
	s.pseudoSum = uint32(binary.BigEndian.Uint16(csum)) + uint32(^fold(uint32(length)))
}

// pseudoFromAddresses computes the sum of the pseudo header from the IP header's
// addresses (RFC 9293 section 3.1, RFC 8200 section 8.1).
func (s *Segmenter) pseudoFromAddresses(proto uint8) {
	addresses := s.head[s.ip+12 : s.ip+20]
	if !s.ipv4 {
		addresses = s.head[s.ip+8 : s.ip+40]
	}
	s.pseudoSum = uint32(Sum(addresses)) + uint32(proto)
}

// leavePartial marks the segments' checksum as partial in their offload, if it is.
func (s *Segmenter) leavePartial(start, offset int) {
	if s.partial {
		s.offload = port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(start), CsumOffset: uint16(offset)}
	}
}
