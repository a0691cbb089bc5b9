package vnet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

const protoSCTP = 132

// chunk is a DATA chunk of n bytes with its header, padded unless it is the last.
func chunk(kind byte, n int, last bool) []byte {
	b := pattern(n)
	b[0], b[1] = kind, 3
	binary.BigEndian.PutUint16(b[2:], uint16(n))
	if !last {
		b = append(b, make([]byte, -n&3)...)
	}
	return b
}

// sctp is a frame with an SCTP packet, without a checksum.
func sctp(f superFrame, chunks ...[]byte) (frame []byte, l4 int) {
	f.proto, f.tcpOptions = protoUDP, nil
	f.payload = append([]byte{0, 0, 0, 0}, bytes.Join(chunks, nil)...) // SCTP's header is longer than UDP's
	b := f.build()
	fixOuter(b, &f, protoSCTP)
	clear(b[f.l4()+8 : f.l4()+12])
	return b, f.l4()
}

// validCRC reports whether an SCTP packet has the checksum of RFC 9260 appendix A.
func validCRC(packet []byte) bool {
	b := bytes.Clone(packet)
	clear(b[8:12])
	return binary.LittleEndian.Uint32(packet[8:]) == crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))
}

// TestSettleSCTP: a partial SCTP checksum becomes a CRC32c, whatever is at its place, and
// nothing is left.
func TestSettleSCTP(t *testing.T) {
	for _, f := range []superFrame{{}, {v6: true, ext: []uint8{protoDestOpt}}, {v6: true, ext: []uint8{protoRouting, protoDestOpt}}, {tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}}} {
		var o port.Offload
		for _, chunks := range [][][]byte{{chunk(0, 101, true)}, nil} {
			b, l4 := sctp(f, chunks...)
			copy(b[l4+8:], "\xde\xad\xbe\xef")
			o = port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(l4), CsumOffset: 8}
			if vnet.Partial(b, len(b), o) || vnet.PartialOuter(b, len(b), o) {
				t.Error("it is taken for a sum")
			}
			left, ok := vnet.Settle(b, o)
			if !ok || left != (port.Offload{}) || !validCRC(b[l4:]) {
				t.Errorf("%v, %+v is left, %x", ok, left, b[l4:])
			}
		}
		// The same place in another protocol's packet is an internet checksum.
		other := superFrame{proto: protoUDP, payload: pattern(50)}
		b := other.build()
		want := bytes.Clone(b)
		if left, ok := vnet.Settle(b, o); !ok && int(o.CsumStart)+10 <= len(b) || left != o || !bytes.Equal(b, want) {
			t.Errorf("UDP: %v, %+v is left", ok, left)
		}
	}
}

// TestSettleSCTPInside: so does that of a packet inside a tunnel, such as of segment routing, or behind labels.
func TestSettleSCTPInside(t *testing.T) {
	srv6 := superFrame{v6: true, ext: []uint8{protoRouting}}
	for name, f := range map[string]tunnelFrame{
		"IPv6 in SRv6":  {outer: srv6, proto: protoIPv6, inner: superFrame{v6: true}},
		"IPv4 in SRv6":  {outer: srv6, proto: protoIPIP},
		"SRv6 in IP":    {proto: protoIPv6, inner: srv6},
		"frame in SRv6": {outer: srv6, proto: protoEthernet, ether: true},
		"GRE":           {proto: protoGRE, csum: true},
		"VXLAN, tags":   {outer: superFrame{tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}}, proto: protoUDP, shim: make([]byte, 8), ether: true},
	} {
		f.inner.payload = append(make([]byte, 4), chunk(0, 101, true)...) // SCTP's header is longer than UDP's
		f.inner.proto = protoUDP
		b, l4 := f.build(), f.moved()+f.inner.l4()
		inner := f.inner
		at := f.moved()
		fixOuter(b[at:], &inner, protoSCTP)
		if f.proto == protoUDP {
			clear(b[f.l4()+6 : f.l4()+8])
		}
		o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(l4), CsumOffset: 8}
		want := bytes.Clone(b)
		if vnet.Partial(b, len(b), o) {
			t.Errorf("%s: it is taken for a sum", name)
		}
		left, ok := vnet.Settle(b, o)
		if !ok || left != (port.Offload{}) || !validCRC(b[l4:]) {
			t.Errorf("%s: %v, %+v is left, %x", name, ok, left, b[l4:])
		}
		copy(b[l4+8:], want[l4+8:][:4])
		if !bytes.Equal(b, want) {
			t.Errorf("%s: other bytes than the checksum have changed", name)
		}
	}
}

// TestSettleOther: what asks for a checksum at that offset and is no whole SCTP packet
// keeps its bytes and its offload.
func TestSettleOther(t *testing.T) {
	good, l4 := sctp(superFrame{}, chunk(0, 101, true))
	fragment := bytes.Clone(good)
	fragment[20] = 0x20
	for name, c := range map[string]struct {
		b     []byte
		start int
	}{
		"a fragment": {fragment, l4}, "the coverage begins elsewhere": {good, l4 + 4}, "cut off": {good[:l4+11], l4},
	} {
		b := bytes.Clone(c.b)
		o := port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(c.start), CsumOffset: 8}
		if left, _ := vnet.Settle(b, o); left != o || !bytes.Equal(b, c.b) {
			t.Errorf("%s: %+v is left", name, left)
		}
	}
}

// TestSettleList: datagrams that GRO has put together with complete checksums are
// segmented to what they were.
func TestSettleList(t *testing.T) {
	for _, f := range []superFrame{{}, {v6: true}} {
		f.proto, f.payload = protoUDP, pattern(5000)
		partial, o := f.build(), f.offload(port.GSOUDPL4, 1200)
		want, _ := segments(t, partial, o, port.CapsNone)
		list := bytes.Clone(partial)
		copy(list[f.csumAt():], want[0][f.csumAt():][:2]) // the first one's
		left, ok := vnet.Settle(list, port.Offload{GSOType: port.GSOUDPL4, GSOSize: 1200, HdrLen: o.HdrLen})
		if !ok || left != o || !bytes.Equal(list, partial) {
			t.Fatalf("%v, %+v is left, want %+v", ok, left, o)
		}
	}
	empty := superFrame{proto: protoUDP}
	if b := empty.build(); len(b) != empty.l4()+8 {
		t.Fatalf("%d bytes are no empty datagram", len(b))
	} else if _, ok := vnet.Settle(b, port.Offload{GSOType: port.GSOUDPL4, GSOSize: 1200}); !ok {
		t.Error("a datagram without payload is refused")
	}
	udp := superFrame{proto: protoUDP, payload: pattern(3000)}
	routed := superFrame{proto: protoUDP, v6: true, ext: []uint8{protoRouting}, payload: pattern(3000)}
	tcp := superFrame{proto: protoTCP, payload: pattern(3000)}
	fragment := udp.build()
	fragment[20] = 0x20
	arp := udp.build()
	arp[13] = 6
	for name, b := range map[string][]byte{
		"TCP": tcp.build(), "a fragment": fragment, "ARP": arp, "cut off": udp.build()[:41],
		"the last destination is another": routed.build(),
	} {
		want := bytes.Clone(b)
		if _, ok := vnet.Settle(b, port.Offload{GSOType: port.GSOUDPL4, GSOSize: 1200}); ok || !bytes.Equal(b, want) {
			t.Errorf("%s: taken for datagrams", name)
		}
	}
}

// TestSCTP: each packet has the header, as many whole chunks as fit, and its checksum.
func TestSCTP(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFrame(t)
		sizes := rapid.SliceOfN(rapid.IntRange(4, 900), 1, 30).Draw(t, "chunks")
		var chunks [][]byte
		for i, n := range sizes {
			kind := rapid.SampledFrom([]byte{0, 0, 0, 15}).Draw(t, "kind")
			chunks = append(chunks, chunk(kind, n, i == len(sizes)-1))
		}
		data, l4 := sctp(f, chunks...)
		size := rapid.IntRange(500, 2000).Draw(t, "size")
		o := port.Offload{GSOType: port.GSOSCTP, GSOSize: uint16(size)}
		if got, ok := vnet.Inspect(data, len(data), o); !ok || got != o {
			t.Fatalf("%+v, %v", got, ok)
		}
		frames, left := segments(t, data, o, port.CapsAll)
		if left != (port.Offload{}) {
			t.Fatalf("%+v is left", left)
		}
		var all []byte
		for i, b := range frames {
			payload := b[l4+12:]
			if !validCRC(b[l4:]) || !bytes.Equal(b[l4:l4+8], data[l4:l4+8]) {
				t.Fatalf("packet %d: header %x", i, b[l4:l4+12])
			}
			if h := b[f.l3():l4]; f.v6 && int(binary.BigEndian.Uint16(h[4:])) != len(b)-f.l3()-40 || !f.v6 &&
				(int(binary.BigEndian.Uint16(h[2:])) != len(b)-f.l3() || binary.BigEndian.Uint16(h[4:]) != f.id+uint16(i) || slowSum(h) != 0xffff) {
				t.Fatalf("packet %d of %d bytes: IP header %x", i, len(b), h)
			}
			first := (int(binary.BigEndian.Uint16(payload[2:])) + 3) &^ 3
			if len(payload) > size && first < len(payload) {
				t.Fatalf("packet %d has %d bytes of chunks, the first %d", i, len(payload), first)
			}
			if len(all) > 0 {
				// What comes here had no room in the packet before, or must come first.
				before := len(frames[i-1]) - l4 - 12
				if before+first <= size && payload[0] != 15 && before+len(payload[:min(first, len(payload))]) <= size {
					t.Fatalf("packet %d has room for %d bytes more", i-1, first)
				}
			}
			all = append(all, payload...)
		}
		if !bytes.Equal(all, bytes.Join(chunks, nil)) {
			t.Fatal("the chunks are not what was sent")
		}
	})
}

// TestGuess: what the header cannot say is made up for, in segments that fit.
func TestGuess(t *testing.T) {
	udp := superFrame{proto: protoUDP, payload: pattern(4000)}
	udp6 := superFrame{proto: protoUDP, v6: true, payload: pattern(4000)}
	tcp := superFrame{proto: protoTCP, tcpOptions: bytes.Repeat([]byte{1}, 12), payload: pattern(4000)}
	tcp6 := superFrame{proto: protoTCP, v6: true, payload: pattern(4000)}
	tag := port.MakeTag(port.TPIDCustomer, 5)
	for _, c := range []struct {
		name    string
		f       superFrame
		tag     port.Tag
		mtu     int
		gso     uint8
		longest int // without the outer tag
	}{
		{"UFO", udp, 0, 1500, port.GSOUDP, 1514},
		{"UFO, IPv6", udp6, 0, 1500, port.GSOUDP, 1510},
		{"UFO, large MTU", udp, 0, 9000, port.GSOUDP, 1514},
		{"UFO, small MTU", udp, 0, 1000, port.GSOUDP, 1010},
		{"UFO, tag", udp, tag, 1500, port.GSOUDP, 1506},
		{"UFO, two tags", superFrame{proto: protoUDP, tags: []port.Tag{tag}, payload: pattern(4000)}, tag, 1500, port.GSOUDP, 1510},
		{"LRO", tcp, 0, 1500, port.GSOTCPv4, 1514},
		{"LRO, two tags", superFrame{proto: protoTCP, tags: []port.Tag{tag}, payload: pattern(4000)}, tag, 1500, port.GSOTCPv4, 1510},
		{"LRO, IPv6", tcp6, 0, 1400, port.GSOTCPv6, 1414},
	} {
		for _, partial := range []bool{true, false} {
			data := c.f.build()
			o, ok := vnet.Guess(data, c.tag, partial, c.mtu)
			if !ok || o.GSOType != c.gso || (o.Flags&port.NeedsCsum != 0) != partial {
				t.Errorf("%s: %+v, %v", c.name, o, ok)
				continue
			}
			frames, _ := segments(t, data, o, port.CapsNone)
			if len(frames) < 3 || len(frames[0]) != c.longest {
				t.Errorf("%s: %d frames, the first of %d bytes", c.name, len(frames), len(frames[0]))
			}
		}
	}
	data, _ := sctp(superFrame{}, chunk(0, 1200, false), chunk(0, 1200, true))
	if o, ok := vnet.Guess(data, 0, true, 1500); !ok || o != (port.Offload{GSOType: port.GSOSCTP, GSOSize: 1468}) {
		t.Errorf("SCTP: %+v, %v", o, ok)
	}
	for _, v6 := range []bool{false, true} {
		inner, _ := sctp(superFrame{v6: v6}, chunk(0, 1200, false), chunk(0, 1200, true))
		vxlan := superFrame{proto: protoUDP, payload: append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, inner...)}
		if o, ok := vnet.Guess(vxlan.build(), 0, true, 1500); ok {
			t.Errorf("SCTP in VXLAN, IPv6 %v: %+v", v6, o)
		}
	}
	ends, _ := sctp(superFrame{}, chunk(0, 1200, false), chunk(0, 1200, true))
	for name, inner := range map[string][]byte{"TCP": tcp.build(), "SCTP that ends before": append(ends, 0)} {
		vxlan := superFrame{proto: protoUDP, payload: append([]byte{8, 0, 0, 0, 0, 0, 42, 0}, inner...)}
		if o, ok := vnet.Guess(vxlan.build(), 0, true, 1500); !ok || o.GSOType != port.GSOUDP {
			t.Errorf("%s in VXLAN: %+v, %v", name, o, ok)
		}
	}
	for shim, want := range map[int]bool{8 + 63*4: false, 8 + 63*4 + 2: true} { // GENEVE's longest, and longer
		tags := []port.Tag{port.MakeTag(port.TPIDService, 5), port.MakeTag(port.TPIDCustomer, 6)}
		inner, _ := sctp(superFrame{tags: tags}, chunk(0, 1200, false), chunk(0, 1200, true))
		geneve := superFrame{proto: protoUDP, payload: append(make([]byte, shim), inner...)}
		if o, ok := vnet.Guess(geneve.build(), 0, true, 1500); ok != want {
			t.Errorf("SCTP behind %d bytes: %+v, %v", shim, o, ok)
		}
	}
	icmp := udp.build()
	icmp[23] = 1
	fragment := udp.build()
	fragment[20] = 0x20
	for name, b := range map[string][]byte{
		"ICMP": icmp, "a fragment": fragment, "runt": make([]byte, 13), "ARP": append(make([]byte, 12), 8, 6, 0, 0), "no room": udp.build(), "cut off": tcp.build()[:40],
	} {
		mtu := 1500
		if name == "no room" {
			mtu = 27
		}
		if o, ok := vnet.Guess(b, 0, true, mtu); ok {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// TestSplit: a super-frame of BIG TCP becomes super-frames that make the same segments.
func TestSplit(t *testing.T) {
	for _, c := range []struct {
		name string
		f    superFrame
		size int
	}{
		{"IPv4", superFrame{proto: protoTCP, id: 0xfff0, seq: 0xffff_0000, flags: 0x99, payload: pattern(150_001)}, 1448},
		{"IPv4, tag", superFrame{proto: protoTCP, tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}, flags: 0x18, payload: pattern(200_000)}, 1000},
		{"IPv6", superFrame{proto: protoTCP, v6: true, tcpOptions: bytes.Repeat([]byte{1}, 12), flags: 0x19, payload: pattern(500_000)}, 1428},
		{"IPv6, a hop-by-hop header of its own", superFrame{proto: protoTCP, v6: true, ext: []uint8{protoHopByHop}, flags: 0x18, payload: pattern(70_000)}, 1428},
		{"IPv6, options", superFrame{proto: protoTCP, v6: true, ext: []uint8{protoDestOpt}, flags: 0x18, payload: pattern(70_000)}, 1428},
	} {
		data, o := c.f.build(), c.f.offload(c.f.tso(), c.size)
		l3 := c.f.l3()
		if c.f.v6 && !slices.Contains(c.f.ext, protoHopByHop) {
			// As the kernel makes it: the jumbo payload option comes first.
			binary.BigEndian.PutUint16(data[l3+4:], 0)
			jumbo := append([]byte{data[l3+6], 0, 0xc2, 4}, binary.BigEndian.AppendUint32(nil, uint32(len(data)-l3-40+8))...)
			data[l3+6] = protoHopByHop
			data = append(data[:l3+40:l3+40], append(jumbo, data[l3+40:]...)...)
			o.CsumStart += 8
			o.HdrLen += 8
		} else if !c.f.v6 {
			binary.BigEndian.PutUint16(data[l3+2:], 0)
		}
		orig := bytes.Clone(data)
		s := inUse(t)
		if err := s.Split(data, o); err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		var got [][]byte
		dst := make([]byte, s.FrameLen())
		if s.FrameLen() > port.MaxFrame {
			t.Fatalf("%s: %d bytes", c.name, s.FrameLen())
		}
		for i := range s.Count() {
			n, ok := s.Next(dst)
			if !ok {
				t.Fatalf("%s: %d pieces, Count says %d", c.name, i, s.Count())
			}
			if i < s.Count()-1 && n < 60_000 {
				t.Errorf("%s: piece %d has %d bytes", c.name, i, n)
			}
			frames, _ := segments(t, dst[:n], s.Offload(), port.CapsNone)
			got = append(got, frames...)
		}
		if _, ok := s.Next(dst); ok || !bytes.Equal(data, orig) {
			t.Fatalf("%s: too many pieces, or the original was written to", c.name)
		}
		// What must come out: the segments of frames that are not too long, one by one.
		n := len(c.f.payload)
		if want := (n + c.size - 1) / c.size; len(got) != want {
			t.Fatalf("%s: %d segments, want %d", c.name, len(got), want)
		}
		one := c.f
		for i, b := range got {
			one.payload = c.f.payload[i*c.size : min(n, (i+1)*c.size)]
			one.seq, one.id = c.f.seq+uint32(i*c.size), c.f.id+uint16(i)
			one.flags = c.f.flags
			if i > 0 {
				one.flags &^= 0x80
			}
			if i < len(got)-1 {
				one.flags &^= 0x09
			}
			want := one.build()
			if err := vnet.Complete(want, one.offload(port.GSONone, 0)); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(b, want) {
				t.Fatalf("%s: segment %d, %s", c.name, i, firstDifference(b, want))
			}
		}
	}
	s := inUse(t)
	for name, f := range map[string]superFrame{
		"UDP":           {proto: protoUDP, payload: pattern(100_000)},
		"cut off":       {proto: protoTCP, payload: nil},
		"segments huge": {proto: protoTCP, payload: pattern(100_000)},
	} {
		gso, size, want := f.tso(), 1000, vnet.ErrSize
		switch name {
		case "UDP":
			gso, want = port.GSOUDPL4, vnet.ErrOffload
		case "segments huge":
			size = 65534
		}
		if err := s.Split(f.build(), f.offload(gso, size)); !errors.Is(err, want) || s.Count() != 0 {
			t.Errorf("%s: %v, %d pieces", name, err, s.Count())
		}
	}
}

// TestSplitTunnel: so does one of BIG TCP in a tunnel, and the outer headers are right.
func TestSplitTunnel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawTunnel(t)
		f.inner.proto, f.inner.ext, f.inner.flags = protoTCP, nil, f.inner.flags&^0x89
		if f.proto == protoIPIP || f.proto == protoIPv6 {
			f.proto = protoIPIP
			if f.inner.v6 {
				f.proto = protoIPv6
			}
		}
		size := rapid.IntRange(400, 2000).Draw(t, "size")
		part := pattern(rapid.IntRange(1, 3*size).Draw(t, "part"))
		f.inner.payload = append(pattern(rapid.IntRange(70_000, 300_000).Draw(t, "payload")/size*size), part...)
		data, o := f.build(), f.offload(f.inner.tso(), size)
		l3, inner := f.outer.l3(), f.moved()+f.inner.l3()
		if f.outer.v6 {
			clear(data[l3+4 : l3+6])
		} else {
			clear(data[l3+2 : l3+4])
		}
		if f.inner.v6 {
			clear(data[inner+4 : inner+6])
			jumbo := append([]byte{protoTCP, 0, 0xc2, 4}, binary.BigEndian.AppendUint32(nil, uint32(len(data)-inner-40+8))...)
			data[inner+6] = protoHopByHop
			data = slices.Insert(data, inner+40, jumbo...)
			o.CsumStart += 8
			if f.proto == protoUDP && f.csum {
				// The sum of the pseudo header covers the option.
				at := f.l4() + 6
				sum := uint32(binary.BigEndian.Uint16(data[at:])) + 8
				binary.BigEndian.PutUint16(data[at:], uint16(sum+sum>>16))
			}
		} else {
			clear(data[inner+2 : inner+4])
		}
		s := inUse(t)
		if err := s.Split(data, o); err != nil {
			t.Fatal(err)
		}
		var got [][]byte
		dst := make([]byte, s.FrameLen())
		for range s.Count() {
			n, _ := s.Next(dst)
			o := s.Offload()
			if n-int(o.HdrLen) <= int(o.GSOSize) {
				o.GSOType, o.GSOSize = port.GSONone, 0
			}
			if n > port.MaxFrame {
				t.Fatalf("a piece of %d bytes", n)
			}
			if marked, ok := vnet.Inspect(dst[:n], n, o); o.IsGSO() && (!ok || marked.GSOType != o.GSOType|port.GSOTunnel) || !o.IsGSO() && !vnet.Partial(dst[:n], n, o) {
				t.Fatalf("a piece of %d bytes contradicts %+v", n, o)
			}
			frames, _ := segments(t, dst[:n], o, port.CapsNone)
			got = append(got, frames...)
		}
		if want := (len(f.inner.payload) + size - 1) / size; len(got) != want {
			t.Fatalf("%d segments, want %d", len(got), want)
		}
		for i, b := range got {
			one := f
			one.inner.payload = f.inner.payload[i*size : min(len(f.inner.payload), (i+1)*size)]
			one.inner.seq, one.inner.id, one.outer.id = f.inner.seq+uint32(i*size), f.inner.id+uint16(i), f.outer.id+uint16(i)
			data, o := one.build(), one.offload(one.inner.tso(), size)
			want, _ := segments(t, data, o, port.CapsNone)
			if len(want) != 1 || !bytes.Equal(b, want[0]) {
				t.Fatalf("segment %d of %d, %s", i, len(got), firstDifference(b, want[0]))
			}
		}
	})
}

// FuzzSettle: whatever the kernel hands over, what comes of it is valid, or refused, and
// can be segmented within its bounds.
func FuzzSettle(f *testing.F) {
	seed := func(b []byte, o port.Offload, more uint32) {
		var h [vnet.HeaderLen]byte
		vnet.Encode(h[:], o)
		f.Add(b, h[:], true, uint16(1500), more)
	}
	udp := superFrame{proto: protoUDP, payload: pattern(300)}
	seed(udp.build(), port.Offload{GSOType: port.GSOUDPL4, GSOSize: 100}, 0)
	tcp := superFrame{proto: protoTCP, v6: true, ext: []uint8{protoHopByHop}, payload: pattern(300)}
	seed(tcp.build(), tcp.offload(port.GSOTCPv6, 1000), 100_000)
	chunks, l4 := sctp(superFrame{}, chunk(0, 200, false), chunk(0, 60, true))
	seed(chunks, port.Offload{Flags: port.NeedsCsum, CsumStart: uint16(l4), CsumOffset: 8}, 0)
	f.Fuzz(func(t *testing.T, data, header []byte, partial bool, mtu uint16, more uint32) {
		if len(header) < vnet.HeaderLen {
			return
		}
		o := vnet.Decode(header)
		data = append(data, make([]byte, more%(512<<10))...)
		data = data[:len(data):len(data)]
		var s vnet.Segmenter
		if s.Split(data, o) == nil {
			if s.Count() < 2 || s.FrameLen() > port.MaxFrame {
				t.Fatalf("%d pieces of up to %d bytes", s.Count(), s.FrameLen())
			}
			dst := make([]byte, s.FrameLen())
			for {
				n, ok := s.Next(dst)
				if !ok {
					break
				}
				if _, ok := vnet.Inspect(dst[:n], n, s.Offload()); !ok {
					t.Fatalf("%+v does not fit the piece %x", s.Offload(), dst[:min(n, 200)])
				}
			}
		}
		if len(data) > port.MaxFrame {
			return
		}
		if o, ok := vnet.Guess(data, 0, partial, int(mtu)); ok {
			if _, ok := vnet.Inspect(data, len(data), o); !ok {
				t.Fatalf("guessed %+v", o)
			}
			if s.Init(data, o, port.CapsNone) == nil {
				segments(t, data, o, port.CapsNone)
			}
		}
		if left, ok := vnet.Settle(data, o); ok && !vnet.Valid(left, len(data)) {
			t.Fatalf("%+v is left", left)
		}
	})
}

// TestBadChunks: SCTP whose chunks do not fill the packet is refused, wherever that shows.
func TestBadChunks(t *testing.T) {
	good := [][]byte{chunk(0, 21, false), chunk(0, 21, true)}
	for name, c := range map[string]struct {
		change func(b []byte) []byte // of the chunks, the second of which begins at 24
		ok     bool
	}{
		"as they are":               {func(b []byte) []byte { return b }, true},
		"less than a header behind": {func(b []byte) []byte { return append(b, 0, 0, 0, 0, 3, 0) }, false},
		"of three bytes":            {func(b []byte) []byte { b[24+3] = 3; return b }, false},
		"of four bytes":             {func(b []byte) []byte { b[24+3] = 4; return b[:28] }, true},
		"longer than the packet":    {func(b []byte) []byte { b[24+3] = 22; return b }, false},
		"all the packet has":        {func(b []byte) []byte { b[24+3] = 21; return b }, true},
		"without its last padding":  {func(b []byte) []byte { return append(b, 0, 0, 0) }, true},
	} {
		b, l4 := sctp(superFrame{}, c.change(bytes.Join(good, nil)))
		o := port.Offload{GSOType: port.GSOSCTP, GSOSize: 24}
		var s vnet.Segmenter
		err := s.Init(b, o, port.CapsNone)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, vnet.ErrHeaders) {
			t.Errorf("%s: %v", name, err)
		}
		if c.ok && (s.Count() != 2 || s.FrameLen() != l4+12+24) {
			t.Errorf("%s: %d packets of up to %d bytes", name, s.Count(), s.FrameLen())
		}
	}
}

// TestSplitRefused: what is no long super-frame of TCP, with a partial checksum, is not split.
func TestSplitRefused(t *testing.T) {
	tcp := superFrame{proto: protoTCP, flags: 0x18, payload: pattern(100_000)}
	for name, c := range map[string]struct {
		f      superFrame
		change func(b []byte, o *port.Offload)
		want   error
	}{
		"UDP":               {superFrame{proto: protoUDP, payload: pattern(100_000)}, func(b []byte, o *port.Offload) { o.GSOType = port.GSOUDPL4 }, vnet.ErrOffload},
		"no checksum":       {tcp, func(b []byte, o *port.Offload) { o.Flags = 0 }, vnet.ErrOffload},
		"a header of 16":    {tcp, func(b []byte, o *port.Offload) { b[46] = 0x40 }, vnet.ErrHeaders},
		"a header of 20":    {tcp, func(b []byte, o *port.Offload) { b[46] = 0x50 }, nil},
		"segments too long": {tcp, func(b []byte, o *port.Offload) { o.GSOSize = 65535 - 40 + 1 }, vnet.ErrSize},
		"one segment":       {superFrame{proto: protoTCP, payload: pattern(1000)}, func(b []byte, o *port.Offload) { o.GSOSize = 1000 }, vnet.ErrSize},
		"a byte more":       {superFrame{proto: protoTCP, payload: pattern(1001)}, func(b []byte, o *port.Offload) { o.GSOSize = 1000 }, nil},
		"no header at all":  {tcp, func(b []byte, o *port.Offload) { b[12] = 1 }, vnet.ErrHeaders},
	} {
		data, o := c.f.build(), c.f.offload(c.f.tso(), 1000)
		c.change(data, &o)
		var s vnet.Segmenter
		if err := s.Split(data, o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}
