package vnet_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/vswitch/vswitch/internal/packet/eth"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// vxlanShim is what stands between UDP and the inner Ethernet header (RFC 7348).
var vxlanShim = []byte{8, 0, 0, 0, 0, 0, 42, 0}

func tcp() superFrame { return superFrame{proto: protoTCP, payload: pattern(64)} }
func udp() superFrame { return superFrame{proto: protoUDP, payload: pattern(64)} }

func TestPartial(t *testing.T) {
	v6 := func(f superFrame, ext ...uint8) superFrame { f.v6, f.ext = true, ext; return f }
	with := func(f superFrame, change func(*superFrame)) superFrame { change(&f); return f }
	for name, c := range map[string]struct {
		f        superFrame
		ok       bool
		off      int // added to the place of the checksum's coverage
		at       int // added to its offset
		trailing int // bytes of padding
	}{
		"TCP":                        {f: tcp(), ok: true},
		"UDP":                        {f: udp(), ok: true},
		"TCP, padded":                {f: tcp(), ok: true, trailing: 6},
		"behind IPv4 options":        {f: with(tcp(), func(f *superFrame) { f.options = []byte{148, 4, 0, 0} }), ok: true},
		"inside a tag":               {f: with(udp(), func(f *superFrame) { f.tags = []port.Tag{0x8100_0005} }), ok: true},
		"TCP in IPv6":                {f: v6(tcp()), ok: true},
		"UDP behind hop-by-hop":      {f: v6(udp(), protoHopByHop), ok: true},
		"TCP behind all extensions":  {f: v6(tcp(), protoHopByHop, protoDestOpt, protoRouting, protoDestOpt), ok: true},
		"the IPv4 source":            {f: tcp(), off: -14, at: -16 + 6},
		"the ports":                  {f: udp(), at: -6},
		"UDP's length":               {f: udp(), at: -2},
		"the payload":                {f: udp(), at: 2},
		"an extension header":        {f: v6(udp(), protoHopByHop), off: -8},
		"the IPv6 source":            {f: v6(udp()), off: -40, at: 2},
		"TCP's offset in UDP":        {f: udp(), at: 10},
		"a fragment":                 {f: with(udp(), func(f *superFrame) { f.dfFlags = 0x2000 })},
		"the last fragment":          {f: with(udp(), func(f *superFrame) { f.dfFlags = 5 })},
		"another protocol":           {f: with(udp(), func(f *superFrame) { f.proto = protoGRE })},
		"beyond the packet's length": {f: with(tcp(), func(f *superFrame) { f.payload = nil }), trailing: -10},
	} {
		b := c.f.build()
		o := c.f.offload(0, 0)
		o.GSOType, o.GSOSize = port.GSONone, 0
		o.CsumStart, o.CsumOffset = uint16(int(o.CsumStart)+c.off), uint16(int(o.CsumOffset)+c.at)
		if c.trailing >= 0 {
			b = append(b, make([]byte, c.trailing)...)
		} else {
			b = b[:len(b)+c.trailing]
		}
		if got := vnet.Partial(b, len(b), o); got != c.ok {
			t.Errorf("%s: %v", name, got)
		}
		if got := vnet.PartialOuter(b, len(b), o); got != c.ok {
			t.Errorf("%s: outer %v", name, got)
		}
	}
}

func TestPartialNoIP(t *testing.T) {
	// An ARP reply whose sender address would be written over.
	b := append([]byte("\x52\x54\x00\x00\x00\x02\x52\x54\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x02"), make([]byte, 64)...)
	for start := uint16(14); start < 40; start++ {
		for offset := uint16(0); offset < 20; offset++ {
			if vnet.Partial(b, len(b), port.Offload{Flags: port.NeedsCsum, CsumStart: start, CsumOffset: offset}) {
				t.Fatalf("csum_start %d, csum_offset %d in ARP", start, offset)
			}
		}
	}
	// A neighbour advertisement whose bytes read like an IPv4 header, with a TCP checksum
	// where the link-layer address is.
	f := superFrame{v6: true, proto: protoUDP, payload: pattern(64)}
	nd := f.build()
	nd[20] = 58
	nd[54+4] = 0x45
	nd[54+4+9] = protoTCP
	binary.BigEndian.PutUint16(nd[54+4+2:], 60)
	if vnet.Partial(nd, len(nd), port.Offload{Flags: port.NeedsCsum, CsumStart: 54 + 24, CsumOffset: 16}) {
		t.Error("a packet inside ICMPv6")
	}
}

func TestPartialTunnel(t *testing.T) {
	for name, f := range map[string]tunnelFrame{
		"VXLAN":               {inner: tcp(), proto: protoUDP, shim: vxlanShim, ether: true},
		"VXLAN over IPv6":     {inner: udp(), outer: superFrame{v6: true}, proto: protoUDP, shim: vxlanShim, ether: true},
		"VXLAN with checksum": {inner: tcp(), proto: protoUDP, shim: vxlanShim, ether: true, csum: true},
		"GENEVE with option":  {inner: udp(), proto: protoUDP, shim: []byte{1, 0, 0x65, 0x58, 0, 0, 1, 0, 0, 1, 2, 0}, ether: true},
		"MPLS in IPv4":        {inner: tcp(), proto: protoMPLS, shim: []byte{0, 0, 0x11, 64}},
		"Ethernet in IPv6":    {inner: tcp(), outer: superFrame{v6: true, ext: []uint8{protoRouting}}, proto: protoEthernet, ether: true},
		"GRE":                 {inner: tcp(), proto: protoGRE},
		"GRE, Ethernet, csum": {inner: tcp(), proto: protoGRE, ether: true, csum: true},
		"IPIP":                {inner: tcp(), proto: protoIPIP},
		"IPv6 in IPv4":        {inner: superFrame{v6: true, proto: protoTCP, payload: pattern(9)}, proto: protoIPv6},
		"extensions inside":   {inner: superFrame{v6: true, ext: []uint8{protoHopByHop}, proto: protoUDP}, proto: protoUDP, shim: vxlanShim, ether: true},
	} {
		b := f.build()
		o := f.inner.offload(0, 0)
		o.GSOType, o.GSOSize = port.GSONone, 0
		o.CsumStart += uint16(f.moved())
		if !vnet.Partial(b, len(b), o) {
			t.Errorf("%s: refused", name)
		}
		if vnet.PartialOuter(b, len(b), o) {
			t.Errorf("%s: taken for the frame's own", name)
		}
		for _, move := range []int{-2, 2, -8, 8} {
			m := o
			m.CsumStart = uint16(int(m.CsumStart) + move)
			if vnet.Partial(b, len(b), m) {
				t.Errorf("%s: accepted %d bytes off", name, move)
			}
		}
	}
	// Beyond all headers there is no packet.
	long := tunnelFrame{inner: superFrame{proto: protoTCP, payload: pattern(5000)}, proto: protoUDP, shim: vxlanShim, ether: true}
	far := port.Offload{Flags: port.NeedsCsum, CsumStart: vnet.MaxHeader + 40, CsumOffset: 16}
	if b := long.build(); vnet.Partial(b, len(b), far) {
		t.Error("a checksum in the payload of a tunnel is taken")
	}
	// GRE's own checksum, which Linux leaves undone as well, if there is one.
	f := tunnelFrame{inner: tcp(), proto: protoGRE, csum: true}
	b := f.build()
	o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(f.l4()), CsumOffset: 4}
	if !vnet.Partial(b, len(b), o) || vnet.PartialOuter(b, len(b), o) {
		t.Error("GRE's checksum is refused, or taken for TCP's or UDP's")
	}
	b[f.l4()] = 0
	if vnet.Partial(b, len(b), o) {
		t.Error("GRE without a checksum gets one")
	}
}

// A MAC address inside a tunnel may hold what looks like the begin of an IPv4 header with options that ends
// where the inner IPv6 header does.
func TestLikenessInMAC(t *testing.T) {
	f := tunnelFrame{inner: superFrame{v6: true, proto: protoUDP, payload: pattern(900)}, proto: protoUDP, shim: vxlanShim, ether: true}
	super := f.offload(port.GSOUDPL4, 100)
	one := super
	one.GSOType, one.GSOSize = port.GSONone, 0
	header := f.innerAt() + 14
	for at := f.innerAt(); at < f.innerAt()+12; at++ {
		b := f.build()
		b[at] = 0x40 | byte((header+40-at)/4)
		if at+3 < f.innerAt()+12 {
			binary.BigEndian.PutUint16(b[at+2:], uint16(len(b)-at))
		}
		if !vnet.Partial(b, len(b), one) {
			t.Errorf("refused with %#x as byte %d of the inner frame", b[at], at-f.innerAt())
		}
		if _, ok := vnet.Inspect(b, len(b), super); !ok {
			t.Errorf("a super-frame is refused with %#x as byte %d of the inner frame", b[at], at-f.innerAt())
		}
	}
}

// FuzzPartial: completing a checksum that Partial accepts changes neither the frame's
// addresses, nor a header of IP, nor the ports; and with PartialOuter none but the
// checksum of TCP or UDP.
func FuzzPartial(f *testing.F) {
	seeds := []superFrame{tcp(), udp(), {v6: true, ext: []uint8{protoHopByHop}, proto: protoTCP, payload: pattern(9)}}
	for _, s := range seeds {
		f.Add(s.build(), uint16(s.l4()), uint16(s.csumAt()-s.l4()))
	}
	tunnel := tunnelFrame{inner: tcp(), proto: protoUDP, shim: vxlanShim, ether: true}
	f.Add(tunnel.build(), uint16(tunnel.inner.l4()+tunnel.moved()), uint16(16))
	f.Fuzz(func(t *testing.T, data []byte, start, offset uint16) {
		o := port.Offload{Flags: port.NeedsCsum, CsumStart: start, CsumOffset: offset}
		outer := vnet.PartialOuter(data, len(data), o)
		if !vnet.Partial(data, len(data), o) {
			if outer {
				t.Fatal("accepted as the frame's own alone")
			}
			return
		}
		done := bytes.Clone(data)
		if err := vnet.Complete(done, o); err != nil {
			t.Fatalf("accepted, and then %v", err)
		}
		before, _ := eth.FindIP(data)
		after, ok := eth.FindIP(done)
		keep := after.Transport + 4 // the ports; of GRE, flags and protocol
		if before.Proto == eth.ProtoTCP {
			keep += 12
		}
		if before.Proto == 4 || before.Proto == 41 {
			keep -= 4
		}
		if !ok || before != after || !bytes.Equal(data[:keep], done[:keep]) {
			t.Fatalf("%+v became %+v", before, after)
		}
		if at := int(start) + int(offset) - before.Transport; outer && at != 16 && at != 6 {
			t.Fatalf("the checksum of the frame's own header lies at %d", at)
		}
	})
}

// TestUndone: a frame whose sender left its checksum is recognised; once it is complete, or
// where it cannot be completed, it is not.
func TestUndone(t *testing.T) {
	for _, f := range []superFrame{
		{proto: protoTCP, payload: pattern(100)},
		{proto: protoUDP, payload: pattern(101)},
		{proto: protoTCP, v6: true, tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}, payload: pattern(1)},
		{proto: protoUDP, v6: true, ext: []uint8{protoDestOpt}},
	} {
		b := f.build()
		want := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(f.l4()), CsumOffset: uint16(f.csumAt() - f.l4())}
		if got := vnet.Undone(b, 0); got != want {
			t.Errorf("%+v: %+v, want %+v", f, got, want)
		}
		if got := vnet.Undone(append(bytes.Clone(b), 0), 0); got != (port.Offload{}) {
			t.Errorf("%+v with padding: %+v", f, got)
		}
		super := want
		if f.proto == protoTCP && len(f.payload) > 1 {
			super = f.offload(f.tso(), 50)
		}
		if got := vnet.Undone(b, f.head()-f.l3()+50); got != super {
			t.Errorf("%+v, a super-frame: %+v, want %+v", f, got, super)
		}
		if err := vnet.Complete(b, want); err != nil {
			t.Fatal(err)
		}
		if got := vnet.Undone(b, 0); got != (port.Offload{}) {
			t.Errorf("%+v, complete: %+v", f, got)
		}
	}
}

// TestUndoneNot: what has no checksum that its sender may have left has no offload.
func TestUndoneNot(t *testing.T) {
	for name, b := range map[string][]byte{
		"no IP":         append(make([]byte, 12), 0x88, 0xb5, 1, 2, 3, 4),
		"a fragment":    (&superFrame{proto: protoUDP, dfFlags: 0x2000, payload: pattern(10)}).build(),
		"routed":        (&superFrame{proto: protoUDP, v6: true, ext: []uint8{protoRouting}, payload: pattern(10)}).build(),
		"no TCP or UDP": (&superFrame{proto: 99, payload: pattern(30)}).build(),
		"half of TCP":   (&superFrame{proto: protoTCP}).build()[:14+20+19],
		"half of UDP":   (&superFrame{proto: protoUDP}).build()[:14+20+7],
	} {
		if name[:4] == "half" {
			binary.BigEndian.PutUint16(b[16:], uint16(len(b)-14))
		}
		if got := vnet.Undone(b, 20); got != (port.Offload{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	f := superFrame{proto: protoTCP, v6: true, tcpOptions: make([]byte, 12), payload: pattern(100)}
	if got, want := vnet.Undone(f.build(), f.head()-f.l3()+1), f.offload(port.GSOTCPv6, 1); got != want {
		t.Errorf("segments of a byte: %+v, want %+v", got, want)
	}
	if got := vnet.Undone(f.build(), f.head()-f.l3()); got.GSOType != port.GSONone {
		t.Errorf("segments of nothing: %+v", got)
	}
}

// FuzzUndone: what Undone finds in any frame can be completed.
func FuzzUndone(f *testing.F) {
	for _, s := range []superFrame{{proto: protoTCP, payload: pattern(9)}, {proto: protoUDP, v6: true}} {
		f.Add(s.build(), uint16(48))
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu uint16) {
		o := vnet.Undone(b, int(mtu))
		if o == (port.Offload{}) || len(b) > port.MaxFrame {
			return
		}
		if !vnet.Valid(o, len(b)) || o.Flags != 0 && !vnet.Partial(b, len(b), o) {
			t.Errorf("%+v does not fit the frame", o)
		}
	})
}
