package vxlan

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// A station that sends packets too long for the tunnel is told so, as a router would: by an
// ICMP message that seems to come from the packet's destination (RFC 1191, RFC 8201). Its
// system then sends shorter ones, or fragments.

const (
	// quoteLen is how much of the packet a message repeats: at least its headers.
	quoteLen = 512
	replyLen = port.HeaderLen + eth.IPv6HeaderLen + icmpLen + quoteLen
	icmpLen  = 8

	// maxReplies is how many messages may wait at once. A station that needs one
	// gets it for its next packet.
	maxReplies = 16

	// replyGap is the least time between two messages, so that replying costs little.
	replyGap = time.Millisecond
)

// replies are messages that wait for the Recv of one queue.
type replies struct {
	wake    func() // has that queue look
	waiting atomic.Bool

	mu   sync.Mutex
	last time.Time
	n    int
	made [maxReplies]reply

	// Of the worker: those of the last Recv.
	given [maxReplies]reply
}

type reply struct {
	bytes [replyLen]byte
	n     int
	tag   port.Tag
}

// tooBig replies to a frame for a known station that is longer than limit bytes with its
// inner tags.
func (t *tunnel) tooBig(o *port.Out, tagLen, limit int) {
	r := &t.replies
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if o.Flags&port.Push != 0 || r.n == maxReplies || now.Sub(r.last) < replyGap {
		return
	}
	to := &r.made[r.n]
	if to.n = writeTooBig(to.bytes[:], o.Frame, limit-tagLen-port.HeaderLen); to.n == 0 {
		return
	}
	to.tag = o.Tag
	r.last = now
	r.n++
	r.waiting.Store(true)
	r.wake()
}

// take fills frames with waiting replies.
func (r *replies) take(frames []port.Frame) (n int) {
	if !r.waiting.Load() {
		return 0
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n = min(r.n, len(frames))
	for i := range n {
		g := &r.given[i]
		*g = r.made[i]
		frames[i].SetStripped(g.bytes[:g.n], g.tag)
	}
	copy(r.made[:], r.made[n:r.n])
	r.n -= n
	r.waiting.Store(r.n > 0)
	return n
}

// writeTooBig writes to b the frame that tells f's sender how long an IP packet may be, and
// returns its length; 0: f is no packet that is replied to (RFC 1122 section 3.2.2, RFC 4443
// section 2.4).
func writeTooBig(b []byte, f *port.Frame, mtu int) int {
	if f.Src.IsGroup() || f.Dst.IsGroup() || mtu < minIPv4MTU || len(f.Data) < port.HeaderLen {
		return 0
	}
	switch binary.BigEndian.Uint16(f.Data[12:]) {
	case eth.TypeIPv4:
		return writeTooBig4(b, f, mtu)
	case eth.TypeIPv6:
		return writeTooBig6(b, f, mtu)
	}
	return 0
}

// minIPv4MTU is what each IPv4 link carries (RFC 791).
const minIPv4MTU = 68

const (
	protoICMP, protoICMPv6 = 1, 58
	unreachable, needed    = 3, 4 // ICMP: destination unreachable, fragmentation needed
	packetTooBig           = 2    // ICMPv6
	hops                   = 64
)

func writeTooBig4(b []byte, f *port.Frame, mtu int) int {
	p, ok := eth.FindIPAt(f.Data, port.HeaderLen, 4)
	if !ok {
		return 0
	}
	ip := f.Data[p.Header:]
	src, dst := ip[12:16], ip[16:20]
	switch {
	case src[0] == 0 || src[0] == 127 || src[0] >= 224 || dst[0] >= 224: // no one host
		return 0
	case binary.BigEndian.Uint16(ip[6:])&0x1fff != 0: // not the first fragment
		return 0
	case p.Proto == protoICMP && (len(f.Data) <= p.Transport || !icmpQuery(f.Data[p.Transport])):
		return 0
	}
	quote := ip[:min(len(ip), p.Transport-p.Header+quoteLen-60)]
	putEthernet(b, f)
	h := b[port.HeaderLen:]
	length := eth.IPv4HeaderLen + icmpLen + len(quote)
	clear(h[:eth.IPv4HeaderLen+icmpLen])
	h[0], h[8], h[9] = 0x45, hops, protoICMP
	binary.BigEndian.PutUint16(h[2:], uint16(length))
	copy(h[12:], dst)
	copy(h[16:], src)
	binary.BigEndian.PutUint16(h[10:], ^vnet.Sum(h[:eth.IPv4HeaderLen]))
	icmp := h[eth.IPv4HeaderLen:length]
	icmp[0], icmp[1] = unreachable, needed
	binary.BigEndian.PutUint16(icmp[6:], uint16(min(mtu, 0xffff)))
	copy(icmp[icmpLen:], quote)
	binary.BigEndian.PutUint16(icmp[2:], ^vnet.Sum(icmp))
	return port.HeaderLen + length
}

// icmpQuery reports whether an ICMP message of the type is a query or its answer, not an
// error.
func icmpQuery(typ uint8) bool { return typ == 0 || typ == 8 || typ >= 13 && typ <= 18 }

func writeTooBig6(b []byte, f *port.Frame, mtu int) int {
	p, ok := eth.FindIPAt(f.Data, port.HeaderLen, 6)
	if !ok {
		return 0
	}
	ip := f.Data[p.Header:]
	src, dst := ip[8:24], ip[24:40]
	switch {
	case src[0] == 0xff || [16]byte(src) == [16]byte{}:
		return 0
	case dst[0] == 0xff:
		return 0
	case p.Proto == protoICMPv6 && (len(f.Data) <= p.Transport || f.Data[p.Transport] < 128): // an error
		return 0
	}
	quote := ip[:min(len(ip), quoteLen)]
	putEthernet(b, f)
	h := b[port.HeaderLen:]
	length := icmpLen + len(quote)
	clear(h[:eth.IPv6HeaderLen+icmpLen])
	h[0], h[6], h[7] = 6<<4, protoICMPv6, hops
	binary.BigEndian.PutUint16(h[4:], uint16(length))
	copy(h[8:], dst)
	copy(h[24:], src)
	icmp := h[eth.IPv6HeaderLen:][:length]
	icmp[0] = packetTooBig
	binary.BigEndian.PutUint32(icmp[4:], uint32(mtu))
	copy(icmp[icmpLen:], quote)
	sum := uint32(vnet.Sum(h[8:40])) + uint32(length) + protoICMPv6 + uint32(vnet.Sum(icmp))
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(icmp[2:], ^uint16(sum))
	return port.HeaderLen + eth.IPv6HeaderLen + length
}

// putEthernet writes the header of a frame back to f's sender.
func putEthernet(b []byte, f *port.Frame) {
	copy(b, f.Src.HardwareAddr())
	copy(b[6:], f.Dst.HardwareAddr())
	copy(b[12:14], f.Data[12:14])
}
