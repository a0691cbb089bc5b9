package vnet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

const protoGRE, protoIPIP, protoIPv6, protoMPLS, protoEthernet = 47, 4, 41, 137, 143

// tunnelFrame is a super-frame inside a tunnel, as the kernel leaves it undone: the outer
// lengths are those of the whole, an outer UDP checksum is the pseudo header's sum.
type tunnelFrame struct {
	inner superFrame
	outer superFrame // its headers up to the transport header count
	proto uint8      // protoUDP, protoGRE, protoIPIP, protoIPv6, protoMPLS, protoEthernet
	shim  []byte     // what stands between the outer transport header and the inner packet
	ether bool       // the inner packet has an Ethernet header
	csum  bool       // UDP or GRE have a checksum
}

func (f *tunnelFrame) l4() int { return f.outer.l4() }

// innerAt is where the inner packet begins, at its Ethernet header if it has one.
func (f *tunnelFrame) innerAt() int {
	at := f.l4() + len(f.shim)
	switch {
	case f.proto == protoUDP:
		at += 8
	case f.proto == protoGRE && f.csum:
		at += 8
	case f.proto == protoGRE:
		at += 4
	}
	return at
}

// moved is how far the inner packet lies behind where it would without a tunnel.
func (f *tunnelFrame) moved() int {
	if f.ether {
		return f.innerAt()
	}
	return f.innerAt() - f.inner.l3()
}

func (f *tunnelFrame) build() []byte {
	inner := f.inner.build()
	if !f.ether {
		inner = inner[f.inner.l3():]
	}
	o := f.outer
	o.proto = protoUDP
	o.payload = append(bytes.Clone(f.shim), inner...)
	b := o.build() // with a UDP header
	l4 := o.l4()
	switch f.proto {
	case protoUDP:
		if !f.csum {
			clear(b[l4+6 : l4+8])
		}
		return b
	case protoGRE:
		head := []byte{0, 0, 0x65, 0x58}
		if f.csum {
			head = []byte{0x80, 0, 0x65, 0x58, 0xde, 0xad, 0, 0}
		}
		b = append(append(b[:l4:l4], head...), b[l4+8:]...)
	default:
		b = append(b[:l4:l4], b[l4+8:]...)
	}
	fixOuter(b, &o, f.proto)
	return b
}

// fixOuter sets the protocol, lengths and header checksum of the outer IP header.
func fixOuter(b []byte, o *superFrame, proto uint8) {
	l3, l4 := o.l3(), o.l4()
	if o.v6 {
		at := l3 + 6
		if len(o.ext) > 0 {
			at = l3 + 40
			for range o.ext[1:] {
				at += 8 * (int(b[at+1]) + 1)
			}
		}
		b[at] = proto
		binary.BigEndian.PutUint16(b[l3+4:], uint16(len(b)-l3-40))
		return
	}
	b[l3+9] = proto
	binary.BigEndian.PutUint16(b[l3+2:], uint16(len(b)-l3))
	clear(b[l3+10 : l3+12])
	binary.BigEndian.PutUint16(b[l3+10:], ^slowSum(b[l3:l4]))
}

func (f *tunnelFrame) offload(gso uint8, size int) port.Offload {
	o := f.inner.offload(gso, size)
	o.CsumStart += uint16(f.moved())
	o.HdrLen += uint16(f.moved())
	return o
}

func drawTunnel(t *rapid.T) tunnelFrame {
	f := tunnelFrame{inner: drawFrame(t), outer: drawFrame(t), csum: rapid.Bool().Draw(t, "outerCsum")}
	f.inner.payload = pattern(rapid.IntRange(1, 20000).Draw(t, "innerPayload"))
	f.outer.tcpOptions = nil
	shim := func(words int) []byte {
		n := 4 * rapid.IntRange(0, words).Draw(t, "shim")
		return rapid.SliceOfN(rapid.Byte(), n, n).Draw(t, "shimBytes")
	}
	f.proto = rapid.SampledFrom([]uint8{protoUDP, protoGRE, protoIPIP, protoMPLS, protoEthernet}).Draw(t, "tunnel")
	switch f.proto {
	case protoUDP:
		f.ether, f.shim = rapid.Bool().Draw(t, "ether"), shim(10)
	case protoGRE:
		f.ether, f.shim = rapid.Bool().Draw(t, "ether"), shim(2) // a key, a sequence number
	case protoMPLS:
		f.shim = shim(3)
	case protoEthernet:
		f.ether = true
	default:
		if f.inner.v6 {
			f.proto = protoIPv6
		}
	}
	return f
}

// TestLikeness: wherever bytes in front of the inner packet look like an IP header that ends where its own
// does, and of a packet that ends with the frame, the packet is found all the same.
func TestLikeness(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawTunnel(t)
		gso := f.inner.tso()
		if f.inner.proto == protoUDP {
			gso = port.GSOUDPL4
		}
		size := len(f.inner.payload)/100 + 1
		data, o := f.build(), f.offload(gso, size)
		want, _ := segments(t, f.inner.build(), f.inner.offload(gso, size), port.CapsNone)
		version := rapid.SampledFrom([]int{4, 6}).Draw(t, "version")
		from, to, l4 := f.l4(), f.moved()+f.inner.l3(), int(o.CsumStart)
		switch f.proto {
		case protoUDP:
			from += 8
		case protoGRE:
			from += 4
		}
		var places []int // as the search goes
		for at := l4 - 20; version == 4 && at >= max(from-3, l4-60); at -= 4 {
			places = append(places, at)
		}
		for at := l4 - 40; version == 6 && at >= from-5; at -= 8 {
			places = append(places, at)
		}
		if len(places) == 0 {
			return // there is nothing between the tunnel's header and the inner packet
		}
		at := rapid.SampledFrom(places).Draw(t, "at")
		// Only what lies in front of the inner packet is another, and not all that makes a header.
		put := func(i int, b byte) {
			if i >= from && i < to {
				data[i] = b
			}
		}
		n := len(data) - at
		if version == 4 {
			put(at, 0x40|byte((l4-at)/4))
			put(at+6, 0)
			put(at+7, 0)
			put(at+9, 50)
		} else {
			put(at, 0x60)
			put(at+6, rapid.SampledFrom([]byte{50, protoHopByHop, protoRouting, protoDestOpt}).Draw(t, "next"))
			n -= 40
			at += 2
		}
		put(at+2, byte(n>>8))
		put(at+3, byte(n))
		frames, _ := segments(t, data, o, port.CapsNone)
		for i, b := range frames {
			if !f.ether {
				want[i] = want[i][f.inner.l3():]
			}
			// The Ethernet header, if there is one, is what the likeness may lie in.
			skip := f.moved() + f.inner.l3() - f.innerAt()
			if !bytes.Equal(b[f.innerAt()+skip:], want[i][skip:]) {
				t.Fatalf("segment %d carries\n%x, want\n%x", i, b[f.innerAt():], want[i])
			}
		}
		one := f
		one.inner.payload = pattern(size)
		copy(data, one.build()[:from])
		small := append(data[:to:to], one.build()[to:]...)
		o.GSOType, o.GSOSize = port.GSONone, 0
		if !vnet.Partial(small, len(small), o) {
			t.Fatalf("a segment is refused: %+v, %x", o, small)
		}
	})
}

// TestTunnel: each segment is the segment that the inner frame alone would make, behind
// outer headers that are right.
func TestTunnel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawTunnel(t)
		gso, most := f.inner.tso(), 1000
		if f.inner.proto == protoUDP {
			gso, most = port.GSOUDPL4, 128
		}
		n := len(f.inner.payload)
		size := rapid.IntRange(n/most+1, n+10).Draw(t, "size")
		data, o := f.build(), f.offload(gso, size)
		want, _ := segments(t, f.inner.build(), f.inner.offload(gso, size), port.CapsNone)
		orig := bytes.Clone(data)
		marked, ok := vnet.Inspect(data, len(data), o)
		if !ok || marked.GSOType != gso|port.GSOTunnel {
			t.Fatalf("%+v, %v", marked, ok)
		}
		caps := rapid.SampledFrom([]port.Caps{port.CapsNone, port.CapCsum, port.CapsAll}).Draw(t, "caps")
		if vnet.Plan(marked, caps) != vnet.Segment {
			t.Fatal("a tunnel is passed on whole")
		}
		frames, left := segments(t, data, marked, caps)
		if left != (port.Offload{}) || len(frames) != len(want) || !bytes.Equal(data, orig) {
			t.Fatalf("%d segments, want %d; %+v is left", len(frames), len(want), left)
		}
		at, l4, l3 := f.innerAt(), f.l4(), f.outer.l3()
		for i, b := range frames {
			if !f.ether {
				want[i] = want[i][f.inner.l3():]
			}
			if !bytes.Equal(b[at:], want[i]) {
				t.Fatalf("segment %d carries\n%x, want\n%x", i, b[at:], want[i])
			}
			head := bytes.Clone(orig[:at])
			if f.outer.v6 {
				binary.BigEndian.PutUint16(head[l3+4:], uint16(len(b)-l3-40))
			} else {
				binary.BigEndian.PutUint16(head[l3+2:], uint16(len(b)-l3))
				binary.BigEndian.PutUint16(head[l3+4:], f.outer.id+uint16(i))
				clear(head[l3+10 : l3+12])
				binary.BigEndian.PutUint16(head[l3+10:], ^slowSum(head[l3:l4]))
			}
			switch {
			case f.proto == protoUDP:
				binary.BigEndian.PutUint16(head[l4+4:], uint16(len(b)-l4))
				copy(head[l4+6:l4+8], b[l4+6:])
				f.outer.proto = protoUDP
				pseudo := binary.BigEndian.AppendUint16(nil, f.outer.pseudo(len(b)-l4))
				switch csum := binary.BigEndian.Uint16(b[l4+6:]); {
				case !f.csum && csum != 0:
					t.Fatalf("segment %d: checksum %#x in a tunnel without", i, csum)
				case f.csum && (csum == 0 || slowSum(append(pseudo, b[l4:]...)) != 0xffff):
					t.Fatalf("segment %d: wrong outer checksum %#x", i, csum)
				}
			case f.proto == protoGRE && f.csum:
				copy(head[l4+4:l4+8], b[l4+4:])
				if slowSum(b[l4:]) != 0xffff || b[l4+6] != 0 || b[l4+7] != 0 {
					t.Fatalf("segment %d: wrong GRE checksum %x", i, b[l4+4:l4+8])
				}
			}
			if !bytes.Equal(b[:at], head) {
				t.Fatalf("segment %d begins\n%x, want\n%x", i, b[:at], head)
			}
		}
	})
}

// TestRegroup: the super-frames of datagrams that a UDP tunnel becomes make the same
// frames as the tunnel, with checksums.
func TestRegroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawTunnel(t)
		gso, most := f.inner.tso(), 400
		if f.inner.proto == protoUDP {
			gso, most = port.GSOUDPL4, 128
		}
		n := len(f.inner.payload)
		size := rapid.IntRange(n/most+1, n+10).Draw(t, "size")
		data, o := f.build(), f.offload(gso, size)
		with := f
		with.csum = with.csum || f.proto == protoUDP
		want, _ := segments(t, with.build(), o, port.CapsNone)
		caps := rapid.SampledFrom([]port.Caps{port.CapsAll, port.CapsAll, port.CapsAll &^ port.CapUSO, port.CapsAll &^ port.CapCsum}).Draw(t, "caps")
		s := inUse(t)
		if err := s.Init(data, o, caps); err != nil {
			t.Fatal(err)
		}
		if !s.Regroup(caps) {
			routed := len(f.outer.options) > 0 || slices.Contains(f.outer.ext, protoRouting)
			if f.proto == protoUDP && (f.csum || !routed) && caps == port.CapsAll && len(want) > 1 && 2*len(want[0]) < 65000 {
				t.Fatalf("%d segments of %d bytes do not go together", len(want), len(want[0]))
			}
			return
		}
		if f.proto != protoUDP || caps != port.CapsAll {
			t.Fatal("segments go together that must not")
		}
		var got [][]byte
		dst := make([]byte, s.GroupLen())
		groups := 0
		for {
			n, o, ok := s.NextGroup(dst)
			if !ok {
				if n != 0 || o != (port.Offload{}) {
					t.Fatalf("%d bytes, %+v after the last group", n, o)
				}
				break
			}
			groups++
			if n > port.MaxFrame || !vnet.Valid(o, n) {
				t.Fatalf("%d bytes, %+v", n, o)
			}
			if o.IsGSO() && int(o.GSOSize) >= n-f.l4()-8 {
				t.Fatalf("a group of one segment is a super-frame: %+v, %d bytes", o, n)
			}
			if o.IsGSO() {
				if marked, ok := vnet.Inspect(dst[:n], n, o); !ok || marked != o {
					t.Fatalf("%+v does not fit %x", o, dst[:n])
				}
			}
			frames, _ := segments(t, dst[:n], o, port.CapsNone)
			got = append(got, frames...)
		}
		if groups != s.Groups() || len(got) != len(want) {
			t.Fatalf("%d groups, Groups says %d; %d segments, want %d", groups, s.Groups(), len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("segment %d of %d, %s\n%x, want\n%x", i, len(want), firstDifference(got[i], want[i]), got[i], want[i])
			}
		}
	})
}

// TestGroupLen: as many segments go together as an IP packet holds, two at least.
func TestGroupLen(t *testing.T) {
	const inner, udp = 8 + 14 + 20 + 20, 20 + 8 // what a segment of TCP in VXLAN has beside its data, and a group
	for _, c := range []struct{ datagram, together int }{
		{32750, 2}, {32753, 2}, {32754, 0}, {13100, 5}, {13101, 5}, {13102, 4}, {500, 128}, {511, 128}, {512, 127},
	} {
		f := tunnelFrame{proto: protoUDP, ether: true, csum: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, payload: pattern(65400)}}
		o := f.offload(port.GSOTCPv4, c.datagram-inner)
		s := inUse(t)
		if err := s.Init(f.build(), o, port.CapsAll); err != nil {
			t.Fatal(err)
		}
		if ok := s.Regroup(port.CapsAll); !ok {
			if c.together != 0 {
				t.Errorf("datagrams of %d bytes: none go together, want %d", c.datagram, c.together)
			}
			continue
		}
		n, left, _ := s.NextGroup(make([]byte, s.GroupLen()))
		if got := (n - 14 - udp) / c.datagram; got != min(c.together, s.Count()) || int(left.GSOSize) != c.datagram || n > s.GroupLen() {
			t.Errorf("datagrams of %d bytes: %d go together, want %d", c.datagram, got, c.together)
		}
	}
}

// TestTunnelRefused: what does not hold together is no tunnel.
func TestTunnelRefused(t *testing.T) {
	vxlan := func() tunnelFrame {
		return tunnelFrame{
			proto: protoUDP, ether: true, csum: true, shim: []byte{8, 0, 0, 0, 0, 0, 42, 0},
			inner: superFrame{proto: protoTCP, payload: pattern(5000)},
		}
	}
	for _, c := range []struct {
		name   string
		change func(b []byte, f *tunnelFrame, o *port.Offload)
	}{
		{"the inner length is another", func(b []byte, f *tunnelFrame, o *port.Offload) { b[f.innerAt()+17]++ }},
		{"the inner packet is a fragment", func(b []byte, f *tunnelFrame, o *port.Offload) { b[f.innerAt()+20] = 0x20 }},
		{"the inner version is another", func(b []byte, f *tunnelFrame, o *port.Offload) { o.GSOType = port.GSOTCPv6 }},
		{"the checksum starts two bytes later", func(b []byte, f *tunnelFrame, o *port.Offload) { o.CsumStart += 2 }},
		{"the checksum starts an odd number of bytes on", func(b []byte, f *tunnelFrame, o *port.Offload) { o.CsumStart++ }},
		{"the checksum starts in the outer header", func(b []byte, f *tunnelFrame, o *port.Offload) { o.CsumStart = uint16(f.l4() + 2) }},
		{"the packet would begin with the tunnel's own UDP header", func(b []byte, f *tunnelFrame, o *port.Offload) {
			l4 := f.l4()
			o.CsumStart = uint16(l4 + 20)
			b[l4], b[l4+6], b[l4+7], b[l4+9] = 0x45, 0, 0, protoTCP
			binary.BigEndian.PutUint16(b[l4+2:], uint16(len(b)-l4))
		}},
		{"the checksum starts past the headers", func(b []byte, f *tunnelFrame, o *port.Offload) { o.CsumStart = vnet.MaxHeader + 40 }},
		{"fragments inside a tunnel", func(b []byte, f *tunnelFrame, o *port.Offload) { o.GSOType, o.CsumOffset = port.GSOUDP, 6 }},
		{"no checksum", func(b []byte, f *tunnelFrame, o *port.Offload) { o.Flags = 0 }},
		{"no size", func(b []byte, f *tunnelFrame, o *port.Offload) { o.GSOSize = 0 }},
		{"the kernel's own size", func(b []byte, f *tunnelFrame, o *port.Offload) { o.GSOSize = 0xffff }},
		{"ICMP outside", func(b []byte, f *tunnelFrame, o *port.Offload) { b[f.outer.l3()+9] = 1 }},
		{"TCP outside", func(b []byte, f *tunnelFrame, o *port.Offload) { b[f.outer.l3()+9] = protoTCP }},
		{"a fragment outside", func(b []byte, f *tunnelFrame, o *port.Offload) { b[f.outer.l3()+6] = 0x20 }},
	} {
		f := vxlan()
		data, o := f.build(), f.offload(port.GSOTCPv4, 1400)
		if _, ok := vnet.Inspect(data, len(data), o); !ok {
			t.Fatal("a good one is refused")
		}
		c.change(data, &f, &o)
		marked, ok := vnet.Inspect(data, len(data), o)
		var s vnet.Segmenter
		if err := s.Init(data, marked, port.CapsNone); ok || err == nil {
			t.Errorf("%s: inspected %v, segmented %v", c.name, ok, err)
		}
	}
	// Nothing but the length tells that the packet is another's.
	for _, v6 := range []bool{false, true} {
		f := tunnelFrame{proto: protoIPIP, inner: superFrame{proto: protoTCP, v6: v6, payload: pattern(5000)}}
		data, o := f.build(), f.offload(f.inner.tso(), 1400)
		at := f.innerAt() + 3
		if v6 {
			at = f.innerAt() + 5
		}
		data[at] ^= 1
		if _, ok := vnet.Inspect(data, len(data), o); ok {
			t.Errorf("IPv6 %v: an inner packet of another length is taken", v6)
		}
	}
	// A segment too long for the outer IP header, though not for the inner one.
	f := tunnelFrame{proto: protoUDP, ether: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, v6: true, payload: pattern(65430)}}
	data, o := f.build(), f.offload(port.GSOTCPv6, 65430)
	var s vnet.Segmenter
	if err := s.Init(data, o, port.CapsNone); !errors.Is(err, vnet.ErrSize) {
		t.Errorf("a segment of %d bytes: %v", len(data), err)
	}
}

// A packet in a tunnel has no length if that is too long for its field, and only then (RFC 2675).
func TestLengthInTunnel(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{5000, 65535, 65536} {
			f := tunnelFrame{proto: protoIPIP, inner: superFrame{proto: protoTCP, v6: v6, payload: pattern(n - 40)}}
			if v6 {
				f.proto, f.inner.payload = protoIPv6, pattern(n-20)
			}
			data, o := f.build(), f.offload(f.inner.tso(), 1400)
			field := data[f.innerAt()+2:]
			if v6 {
				field = data[f.innerAt()+4:]
			}
			for _, length := range []int{0, min(n, 65535), 65535} {
				binary.BigEndian.PutUint16(field, uint16(length))
				want := length == n || length == 0 && n > 65535
				if _, ok := vnet.Inspect(data, len(data), o); ok != want {
					t.Errorf("IPv6 %v: %d bytes, of which the header says %d: %v", v6, n, length, ok)
				}
			}
		}
	}
}
