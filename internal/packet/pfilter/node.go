package pfilter

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/port"
)

// node is a term of an expression, or two of them joined. Evaluation is a switch over op:
// calls through closures or interfaces would move the view to the heap.
type node struct {
	op   op
	a, b *node

	types  []uint16 // EtherTypes
	protos []uint8  // of IP
	side   side

	lo, hi uint16 // ports, or a VID
	any    bool   // every VID
	depth  int    // tags before the one that is meant

	mac port.MAC

	want []byte // an address prefix
	bits int
	arp  []uint16 // EtherTypes of ARP whose addresses count, too
	ip   bool     // addresses of IP packets count

	left, right *number
}

type op uint8

const (
	opAnd          op = iota // a, b
	opOr                     // a, b
	opNot                    // a
	opEtherType              // types
	opLLC                    // lo: DSAP; hi: DSAP and SSAP, or 0
	opProto                  // types, protos
	opVLAN                   // lo, any, depth
	opEtherHost              // mac, side
	opBroadcast              //
	opMulticast              //
	opIPMulticast            //
	opIP6Multicast           //
	opAddress                // want, bits, side, arp, ip
	opPort                   // protos, lo, hi, side
	opEqual                  // left, right
	opUnequal                // left, right
	opAbove                  // left, right
	opAtLeast                // left, right
)

// side selects which of a frame's two addresses or ports to look at.
type side uint8

const (
	source side = 1 << iota
	destination
	both   // source and destination, rather than one of them
	either = source | destination
)

// holds combines what a term says of the source and of the destination.
func (s side) holds(src, dst bool) bool {
	if s&both != 0 {
		return src && dst
	}
	return s&source != 0 && src || s&destination != 0 && dst
}

func (n *node) match(v *view) bool {
	switch n.op {
	case opAnd:
		return n.a.match(v) && n.b.match(v)
	case opOr:
		return n.a.match(v) || n.b.match(v)
	case opNot:
		return !n.a.match(v)
	case opEtherType:
		return v.payload != 0 && slices.Contains(n.types, v.etherType)
	case opLLC:
		return n.matchLLC(v)
	case opProto:
		return v.payload != 0 && slices.Contains(n.types, v.etherType) && n.matchProto(v)
	case opVLAN:
		tag, ok := v.vlanTag(n.depth)
		return ok && (n.any || tag.VID() == n.lo)
	case opEtherHost:
		return len(v.data) >= port.HeaderLen && n.side.holds(port.MACFrom(v.data[6:]) == n.mac, port.MACFrom(v.data) == n.mac)
	case opBroadcast:
		return len(v.data) >= port.HeaderLen && port.MACFrom(v.data) == port.Broadcast
	case opMulticast:
		return len(v.data) >= port.HeaderLen && v.data[0]&1 != 0
	case opIPMulticast:
		return v.is(eth.TypeIPv4, eth.IPv4HeaderLen) && v.data[v.payload+16] >= 224
	case opIP6Multicast:
		return v.is(eth.TypeIPv6, eth.IPv6HeaderLen) && v.data[v.payload+24] == 255
	case opAddress:
		return n.matchAddress(v)
	case opPort:
		return n.matchPort(v)
	default:
		return n.compare(v)
	}
}

// compare compares numbers. Without one of them the result is false.
func (n *node) compare(v *view) bool {
	left, ok := n.left.value(v)
	if !ok {
		return false
	}
	right, ok := n.right.value(v)
	if !ok {
		return false
	}
	switch n.op {
	case opEqual:
		return left == right
	case opUnequal:
		return left != right
	case opAbove:
		return left > right
	}
	return left >= right
}

// maxLLC is the greatest length field of 802.3; greater ones are EtherTypes.
const maxLLC = 1500

func (n *node) matchLLC(v *view) bool {
	if v.payload == 0 || v.etherType > maxLLC || len(v.data) < v.payload+2 {
		return false
	}
	saps := binary.BigEndian.Uint16(v.data[v.payload:])
	if n.hi != 0 {
		return saps == n.hi
	}
	return saps>>8 == n.lo
}

func (n *node) matchProto(v *view) bool {
	for _, p := range n.protos {
		if v.carries(p) {
			return true
		}
	}
	return false
}

// within reports whether an address is in the network n.want/n.bits.
func (n *node) within(addr []byte) bool {
	whole := n.bits / 8
	if !bytes.Equal(addr[:whole], n.want[:whole]) {
		return false
	}
	rest := uint(n.bits % 8)
	return rest == 0 || (addr[whole]^n.want[whole])>>(8-rest) == 0
}

// matchAddress compares the addresses of IP packets, and the protocol addresses of ARP and
// RARP packets for IPv4 (RFC 826).
func (n *node) matchAddress(v *view) bool {
	length := len(n.want)
	src, dst := 0, 0
	switch {
	case length == 16 && v.is(eth.TypeIPv6, eth.IPv6HeaderLen):
		src, dst = 8, 24
	case length == 4 && n.ip && v.is(eth.TypeIPv4, eth.IPv4HeaderLen):
		src, dst = 12, 16
	case length == 4 && slices.Contains(n.arp, v.etherType) && v.is(v.etherType, arpLen) && bytes.HasPrefix(v.data[v.payload:], arpIPv4):
		src, dst = 14, 24
	default:
		return false
	}
	b := v.data[v.payload:]
	return n.side.holds(n.within(b[src:src+length]), n.within(b[dst:dst+length]))
}

// ARP for IPv4 on Ethernet: its length in bytes, and its first bytes.
const arpLen = 28

var arpIPv4 = []byte{0, 1, 8, 0, 6, 4}

func (n *node) matchPort(v *view) bool {
	h, ok := v.transport()
	if !ok || len(h) < 4 || !slices.Contains(n.protos, v.ip.Proto) {
		return false
	}
	src, dst := binary.BigEndian.Uint16(h), binary.BigEndian.Uint16(h[2:])
	return n.side.holds(n.lo <= src && src <= n.hi, n.lo <= dst && dst <= n.hi)
}

// number is an arithmetic expression of 32 bits without sign.
type number struct {
	op   byte // one of + - * / % & | ^ < > (shifts), 'n' (negation), 'l' (len), 'b' (bytes), 'c' (constant)
	a, b *number

	constant uint32
	from     header // 'b': a is the offset in it
	size     uint32 // bytes: 1, 2 or 4
}

// header says where the bytes of PROTO[...] begin.
type header struct {
	ether  bool    // at the frame's beginning
	types  uint16  // at the data of this EtherType
	protos []uint8 // at the transport header of these protocols
	only   uint8   // of this IP version; 0: any
}

// value returns the expression's value; there is none if the frame lacks a byte or the
// divisor is 0.
func (n *number) value(v *view) (uint32, bool) {
	switch n.op {
	case 'c':
		return n.constant, true
	case 'l':
		return v.wireLen(), true
	case 'b':
		at, ok := n.a.value(v)
		if !ok {
			return 0, false
		}
		return n.load(v, at)
	}
	a, ok := n.a.value(v)
	if !ok {
		return 0, false
	}
	if n.op == 'n' {
		return -a, true
	}
	b, ok := n.b.value(v)
	if !ok {
		return 0, false
	}
	switch n.op {
	case '+':
		return a + b, true
	case '-':
		return a - b, true
	case '*':
		return a * b, true
	case '&':
		return a & b, true
	case '|':
		return a | b, true
	case '^':
		return a ^ b, true
	case '<':
		return a << b, true
	case '>':
		return a >> b, true
	case '/':
		if b == 0 {
			return 0, false
		}
		return a / b, true
	}
	if b == 0 {
		return 0, false
	}
	return a % b, true
}

// load reads bytes at an offset into a header.
func (n *number) load(v *view, at uint32) (uint32, bool) {
	var b []byte
	switch h := &n.from; {
	case h.ether:
		return n.loadWire(v, at)
	case h.types != 0:
		if !v.is(h.types, 0) {
			return 0, false
		}
		b = v.data[v.payload:]
	default:
		var ok bool
		if b, ok = v.transport(); !ok || !slices.Contains(h.protos, v.ip.Proto) || h.only != 0 && h.only != v.ip.Version {
			return 0, false
		}
	}
	if uint64(at)+uint64(n.size) > uint64(len(b)) {
		return 0, false
	}
	b = b[at:]
	switch n.size {
	case 1:
		return uint32(b[0]), true
	case 2:
		return uint32(binary.BigEndian.Uint16(b)), true
	}
	return binary.BigEndian.Uint32(b), true
}

func (n *number) loadWire(v *view, at uint32) (value uint32, ok bool) {
	for i := range n.size {
		if at+i < at {
			return 0, false
		}
		b, ok := v.wireByte(at + i)
		if !ok {
			return 0, false
		}
		value = value<<8 | uint32(b)
	}
	return value, true
}
