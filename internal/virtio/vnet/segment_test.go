package vnet_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

func TestPlan(t *testing.T) {
	tso := port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, GSOSize: 1448}
	ecn := tso
	ecn.GSOType |= port.GSOECN
	for _, c := range []struct {
		o    port.Offload
		caps port.Caps
		want vnet.Work
	}{
		{port.Offload{}, port.CapsNone, vnet.Pass},
		{port.Offload{Flags: port.DataValid}, port.CapsNone, vnet.Pass},
		{port.Offload{Flags: port.NeedsCsum}, port.CapsNone, vnet.Checksum},
		{port.Offload{Flags: port.NeedsCsum}, port.CapCsum, vnet.Pass},
		{tso, port.CapsNone, vnet.Segment},
		{tso, port.CapCsum, vnet.Segment},
		{tso, port.CapCsum | port.CapTSO6, vnet.Segment},
		{tso, port.CapCsum | port.CapTSO4, vnet.Pass},
		{ecn, port.CapCsum | port.CapTSO4, vnet.Segment},
		{ecn, port.CapCsum | port.CapTSO4 | port.CapTSOECN, vnet.Pass},
		{port.Offload{GSOType: 0x42}, port.CapsAll, vnet.Segment},
	} {
		if got := vnet.Plan(c.o, c.caps); got != c.want {
			t.Errorf("Plan(%+v, %b) = %v, want %v", c.o, c.caps, got, c.want)
		}
	}
}

// segments returns what a super-frame is cut into.
func segments(t interface{ Fatalf(string, ...any) }, data []byte, o port.Offload, caps port.Caps) (frames [][]byte, left port.Offload) {
	var s vnet.Segmenter
	if err := s.Init(data, o, caps); err != nil {
		t.Fatalf("%+v: %v", o, err)
	}
	heads := s // not begun anew: fragments have a random number
	dst := make([]byte, s.FrameLen())
	var head [vnet.MaxHead]byte
	longest := 0
	for {
		n, ok := s.Next(dst)
		at, payload, more := heads.NextHead(head[:])
		if ok != more || ok && !bytes.Equal(append(head[:at:at], payload...), dst[:n]) {
			t.Fatalf("%+v: the head and payload of segment %d are not those of the segment", o, len(frames))
		}
		if !ok {
			break
		}
		longest = max(longest, n)
		frames = append(frames, bytes.Clone(dst[:n]))
	}
	if len(frames) != s.Count() || longest != s.FrameLen() {
		t.Fatalf("%d frames of up to %d bytes, Count says %d, FrameLen %d", len(frames), longest, s.Count(), s.FrameLen())
	}
	return frames, s.Offload()
}

func drawFrame(t *rapid.T) superFrame {
	f := superFrame{
		v6:      rapid.Bool().Draw(t, "v6"),
		id:      rapid.Uint16().Draw(t, "id"),
		seq:     rapid.Uint32().Draw(t, "seq"),
		flags:   rapid.Uint8().Draw(t, "flags"),
		dfFlags: rapid.SampledFrom([]uint16{0, 0x4000, 0x8000}).Draw(t, "df"),
		proto:   rapid.SampledFrom([]uint8{protoTCP, protoUDP}).Draw(t, "proto"),
		last:    [16]byte(addr6(3)),
	}
	for range rapid.IntRange(0, 2).Draw(t, "tags") {
		f.tags = append(f.tags, port.MakeTag(
			rapid.SampledFrom([]uint16{port.TPIDCustomer, port.TPIDService}).Draw(t, "tpid"),
			rapid.Uint16().Draw(t, "tci")))
	}
	if f.v6 {
		f.ext = rapid.SliceOfN(rapid.SampledFrom([]uint8{protoHopByHop, protoDestOpt, protoRouting}), 0, 4).Draw(t, "ext")
	} else {
		f.options = make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "options")) // end of list
	}
	if f.proto == protoTCP {
		f.tcpOptions = bytes.Repeat([]byte{1}, 4*rapid.IntRange(0, 10).Draw(t, "tcpOptions")) // no operation
	}
	f.payload = pattern(rapid.IntRange(1, 20000).Draw(t, "payload"))
	return f
}

// TestSegments: what the segments carry is the payload, in segments of the size asked
// for, each with headers that say what it is.
func TestSegments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFrame(t)
		gso, most := f.tso(), 1000
		if f.proto == protoUDP {
			gso, most = port.GSOUDPL4, 128
		} else if rapid.Bool().Draw(t, "ecn") {
			gso |= port.GSOECN
		}
		n := len(f.payload)
		size := rapid.IntRange(n/most+1, n+10).Draw(t, "size")
		caps := rapid.SampledFrom([]port.Caps{port.CapsNone, port.CapCsum}).Draw(t, "caps")
		data, o := f.build(), f.offload(gso, size)
		o.HdrLen = rapid.Uint16().Draw(t, "hdrLen") // never trusted
		if f.proto == protoTCP && f.routings() == 0 && caps == port.CapsNone && rapid.Bool().Draw(t, "computed") {
			// Cut all the same when nobody asked for a checksum: the frame has one.
			if err := vnet.Complete(data, o); err != nil {
				t.Fatal(err)
			}
			o.Flags, o.CsumStart, o.CsumOffset = port.DataValid, 0, 0
		}
		orig := bytes.Clone(data)
		frames, left := segments(t, data, o, caps)
		if !bytes.Equal(data, orig) {
			t.Fatal("the original was written to")
		}
		if want := (n + size - 1) / size; len(frames) != want {
			t.Fatalf("%d segments, want %d", len(frames), want)
		}
		f.checkSegments(t, data, frames, left, size)
	})
}

// checkSegments holds each segment to what the standards say of it; data is what they
// were cut from.
func (f *superFrame) checkSegments(t *rapid.T, data []byte, frames [][]byte, left port.Offload, size int) {
	l3, l4, head := f.l3(), f.l4(), f.head()
	var payload []byte
	for i, b := range frames {
		first, last := i == 0, i == len(frames)-1
		got := b[head:]
		if len(got) != size && !last {
			t.Fatalf("segment %d has %d bytes, want %d", i, len(got), size)
		}
		want := bytes.Clone(data[:head])
		if f.v6 {
			binary.BigEndian.PutUint16(want[l3+4:], uint16(len(b)-l3-40))
		} else {
			binary.BigEndian.PutUint16(want[l3+2:], uint16(len(b)-l3))
			binary.BigEndian.PutUint16(want[l3+4:], f.id+uint16(i))
			copy(want[l3+10:], b[l3+10:l3+12])
			if slowSum(b[l3:l4]) != 0xffff {
				t.Fatalf("segment %d: IP checksum of %x", i, b[l3:l4])
			}
		}
		if f.proto == protoTCP {
			binary.BigEndian.PutUint32(want[l4+4:], f.seq+uint32(len(payload)))
			if !first {
				want[l4+13] &^= 0x80 // CWR
			}
			if !last {
				want[l4+13] &^= 0x09 // FIN, PSH
			}
		} else {
			binary.BigEndian.PutUint16(want[l4+4:], uint16(len(b)-l4))
		}
		at := f.csumAt()
		copy(want[at:], b[at:at+2])
		if !bytes.Equal(b[:head], want) {
			t.Fatalf("segment %d of %d begins\n%x, want\n%x", i, len(frames), b[:head], want)
		}
		pseudo := binary.BigEndian.AppendUint16(nil, f.pseudo(len(b)-l4))
		switch csum := binary.BigEndian.Uint16(b[at:]); {
		case left.Flags&port.NeedsCsum != 0:
			if int(left.CsumStart) != l4 || int(left.CsumStart+left.CsumOffset) != at || csum != f.pseudo(len(b)-l4) {
				t.Fatalf("segment %d: %+v, partial checksum %#x, want %x", i, left, csum, pseudo)
			}
		case left != port.Offload{}:
			t.Fatalf("%+v is left to do", left)
		case slowSum(append(pseudo, b[l4:]...)) != 0xffff:
			t.Fatalf("segment %d: wrong checksum %#x", i, csum)
		case csum == 0 && f.proto == protoUDP:
			t.Fatalf("segment %d has no checksum", i)
		}
		payload = append(payload, got...)
	}
	if !bytes.Equal(payload, f.payload) {
		t.Fatal("the payload is not what was sent")
	}
}

// TestFragments: reassembled as RFC 791 and RFC 8200 say, the fragments are the datagram
// with its checksum complete.
func TestFragments(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := drawFrame(t)
		f.proto, f.tcpOptions = protoUDP, nil
		n := len(f.payload) + 8
		size := rapid.IntRange(max(8, n/900+8), n+10).Draw(t, "size")
		data, o := f.build(), f.offload(port.GSOUDP, size)
		whole := bytes.Clone(data)
		if err := vnet.Complete(whole, o); err != nil {
			t.Fatal(err)
		}
		if !rapid.Bool().Draw(t, "needsCsum") {
			copy(data, whole)
			o.Flags = 0
		}
		caps := rapid.SampledFrom([]port.Caps{port.CapsNone, port.CapCsum}).Draw(t, "caps")
		frames, left := segments(t, data, o, caps)
		if len(frames) == 1 {
			if n > size {
				t.Fatalf("%d bytes in one frame", n)
			}
			if left.Flags&port.NeedsCsum != 0 {
				whole = data
			}
			if !bytes.Equal(frames[0], whole) {
				t.Fatal("a frame that fits was changed")
			}
			return
		}
		if left != (port.Offload{}) {
			t.Fatalf("%+v is left to do", left)
		}
		l3, l4 := f.l3(), f.l4()
		var datagram, ident []byte
		for i, b := range frames {
			more := i < len(frames)-1
			var offset int
			var gotMore bool
			at := l4
			if f.v6 {
				at += 8
				frag := b[l4:at]
				word := binary.BigEndian.Uint16(frag[2:])
				offset, gotMore = int(word&^7), word&1 != 0
				if frag[0] != protoUDP || frag[1] != 0 || word&6 != 0 {
					t.Fatalf("fragment header %x", frag)
				}
				if i == 0 {
					ident = frag[4:]
				} else if !bytes.Equal(frag[4:], ident) {
					t.Fatalf("identification %x, then %x", ident, frag[4:])
				}
				if got := int(binary.BigEndian.Uint16(b[l3+4:])); got != len(b)-l3-40 {
					t.Fatalf("length %d in a frame of %d", got, len(b))
				}
			} else {
				word := binary.BigEndian.Uint16(b[l3+6:])
				offset, gotMore = int(word&0x1fff)*8, word&0x2000 != 0
				if got := int(binary.BigEndian.Uint16(b[l3+2:])); got != len(b)-l3 || slowSum(b[l3:l4]) != 0xffff {
					t.Fatalf("length %d in a frame of %d, header %x", got, len(b), b[l3:l4])
				}
				if got := binary.BigEndian.Uint16(b[l3+4:]); got != f.id || word&0xc000 != 0 {
					t.Fatalf("identification %#x, flags %#x", got, word)
				}
			}
			if offset != len(datagram) || gotMore != more || more && (len(b)-at)%8 != 0 || len(b)-at > size {
				t.Fatalf("fragment %d of %d: %d bytes at %d, more %v; %d came before", i, len(frames), len(b)-at, offset, gotMore, len(datagram))
			}
			datagram = append(datagram, b[at:]...)
		}
		if !bytes.Equal(datagram, whole[l4:]) {
			t.Fatal("the datagram is not what was sent")
		}
	})
}

// TestNotCut: a Segmenter also serves frames that need their checksum alone.
func TestNotCut(t *testing.T) {
	f := superFrame{proto: protoUDP, payload: pattern(500)}
	data, o := f.build(), f.offload(port.GSONone, 0)
	want := bytes.Clone(data)
	if err := vnet.Complete(want, o); err != nil {
		t.Fatal(err)
	}
	frames, left := segments(t, data, o, port.CapsNone)
	if len(frames) != 1 || !bytes.Equal(frames[0], want) || left != (port.Offload{}) {
		t.Errorf("%d frames, %+v left", len(frames), left)
	}
	frames, left = segments(t, data, o, port.CapCsum)
	if len(frames) != 1 || !bytes.Equal(frames[0], data) || left.CsumStart != o.CsumStart || left.Flags != port.NeedsCsum {
		t.Errorf("%d frames, %+v left", len(frames), left)
	}
	frames, _ = segments(t, data[:14], port.Offload{}, port.CapsNone)
	if len(frames) != 1 || !bytes.Equal(frames[0], data[:14]) {
		t.Errorf("%x", frames)
	}
	// The checksum may be the last of a frame, and of the longest headers.
	for _, n := range []int{100, vnet.MaxHeader, vnet.MaxHeader + 100} {
		for beyond := range 4 {
			data, o := pattern(n), port.Offload{Flags: port.NeedsCsum, CsumStart: 34}
			o.CsumOffset = uint16(min(n, vnet.MaxHeader) - 2 - int(o.CsumStart) + beyond)
			var s vnet.Segmenter
			if err := s.Init(data, o, port.CapsNone); beyond > 0 {
				if !errors.Is(err, vnet.ErrChecksum) || s.Count() != 0 {
					t.Errorf("%d bytes, checksum %d bytes too far: %d frames, %v", n, beyond, s.Count(), err)
				}
				continue
			}
			frames, _ := segments(t, data, o, port.CapsNone)
			if err := vnet.Complete(data, o); err != nil || len(frames) != 1 || !bytes.Equal(frames[0], data) {
				t.Errorf("%d bytes: %d frames, %v", n, len(frames), err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	tcp := superFrame{proto: protoTCP, payload: pattern(3000)}
	tcp6 := superFrame{proto: protoTCP, v6: true, payload: pattern(3000)}
	udp := superFrame{proto: protoUDP, payload: pattern(3000)}
	type change func(b []byte, o *port.Offload) []byte
	for _, c := range []struct {
		name   string
		f      superFrame
		gso    uint8
		change change
		want   error
	}{
		{"runt", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { return b[:13] }, vnet.ErrHeaders},
		{"no size", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { o.GSOSize = 0; return b }, vnet.ErrOffload},
		{"unknown type", tcp, 2, nil, vnet.ErrOffload},
		{"the checksum is elsewhere", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { o.CsumStart += 4; return b }, vnet.ErrOffload},
		{"the checksum is outside", tcp, port.GSONone, func(b []byte, o *port.Offload) []byte { o.CsumStart = 0xfff0; return b }, vnet.ErrChecksum},
		{"the checksum is in the addresses", tcp, port.GSONone, func(b []byte, o *port.Offload) []byte { o.CsumStart = 0; return b }, vnet.ErrChecksum},
		{"IPv6 said to be IPv4", tcp6, port.GSOTCPv4, nil, vnet.ErrHeaders},
		{"IPv4 said to be IPv6", tcp, port.GSOTCPv6, nil, vnet.ErrHeaders},
		{"TCP said to be UDP", tcp, port.GSOUDPL4, func(b []byte, o *port.Offload) []byte { o.CsumOffset = 6; return b }, vnet.ErrHeaders},
		{"UDP said to be TCP", udp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { o.CsumOffset = 16; return b }, vnet.ErrHeaders},
		{"UDP datagrams without checksum", udp, port.GSOUDPL4, func(b []byte, o *port.Offload) []byte { o.Flags = 0; return b }, vnet.ErrOffload},
		{"a fragment", udp, port.GSOUDPL4, func(b []byte, o *port.Offload) []byte { b[20] = 0x20; return b }, vnet.ErrHeaders},
		{"a TCP header of 16 bytes", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { b[46] = 0x40; return b }, vnet.ErrHeaders},
		{"TCP options cut off", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { b[46] = 0xf0; return b[:60] }, vnet.ErrHeaders},
		{"cut off in the TCP header", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { return b[:52] }, vnet.ErrHeaders},
		{"cut off in the UDP header", udp, port.GSOUDP, func(b []byte, o *port.Offload) []byte { o.Flags = 0; return b[:41] }, vnet.ErrHeaders},
		{"too many segments", tcp, port.GSOTCPv4, func(b []byte, o *port.Offload) []byte { o.GSOSize = 2; return b }, vnet.ErrSize},
		{"too many datagrams", udp, port.GSOUDPL4, func(b []byte, o *port.Offload) []byte { o.GSOSize = 23; return b }, vnet.ErrSize},
		{"fragments of less than eight bytes", udp, port.GSOUDP, func(b []byte, o *port.Offload) []byte { o.GSOSize = 7; return b }, vnet.ErrSize},
		{"segments longer than IP", superFrame{proto: protoTCP, payload: pattern(65503)}, port.GSOTCPv4,
			func(b []byte, o *port.Offload) []byte { o.GSOSize = 65500; return b }, vnet.ErrSize},
		{"a datagram longer than IP", superFrame{proto: protoUDP, payload: pattern(65508)}, port.GSOUDP, nil, vnet.ErrSize},
		{"oversize", superFrame{proto: protoTCP, payload: pattern(65536)}, port.GSOTCPv4, nil, vnet.ErrHeaders},
		{"headers past MaxHeader", superFrame{proto: protoTCP, v6: true, ext: bytes.Repeat([]uint8{protoRouting}, 7), payload: pattern(3000)}, port.GSOTCPv6,
			func(b []byte, o *port.Offload) []byte {
				b[55] = 0x40 // a routing header of 520 bytes
				return b
			}, vnet.ErrHeaders},
		{"a routing header, checksum not asked for", superFrame{proto: protoTCP, v6: true, ext: []uint8{protoRouting}, payload: pattern(3000)}, port.GSOTCPv6,
			func(b []byte, o *port.Offload) []byte { o.Flags = 0; return b }, vnet.ErrChecksum},
	} {
		data, o := c.f.build(), c.f.offload(c.gso, 1400)
		if c.change != nil {
			data = c.change(data, &o)
		}
		var s vnet.Segmenter
		err := s.Init(data, o, port.CapsNone)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if n, ok := s.Next(make([]byte, port.MaxFrame)); err != nil && (ok || n != 0 || s.Count() != 0) {
			t.Errorf("%s: a segment came out of a frame that was refused", c.name)
		}
	}
}

// TestOneFragment: a datagram of the size of a fragment is none.
func TestOneFragment(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		for size, more := range map[int]int{1000: 0, 1001: 0, 999: 1} {
			f := superFrame{proto: protoUDP, v6: v6, payload: pattern(992)}
			data, o := f.build(), f.offload(port.GSOUDP, size)
			got, _ := segments(t, data, o, port.CapsNone)
			if err := vnet.Complete(data, o); err != nil {
				t.Fatal(err)
			}
			if len(got) != 1+more || more == 0 && !bytes.Equal(got[0], data) {
				t.Errorf("IPv6 %v: 1000 bytes in fragments of %d are %d frames", v6, size, len(got))
			}
		}
	}
}

// TestMostSegments: a frame makes so many segments, and no more.
func TestMostSegments(t *testing.T) {
	chunks := func(n int) (all [][]byte) {
		for i := range n {
			all = append(all, chunk(0, 20, i == n-1))
		}
		return all
	}
	for name, c := range map[string]struct {
		most  int
		frame func(n int) ([]byte, port.Offload) // of n segments
	}{
		"TCP": {1024, func(n int) ([]byte, port.Offload) {
			f := superFrame{proto: protoTCP, payload: pattern(10*n - 9)}
			return f.build(), f.offload(f.tso(), 10)
		}},
		"UDP": {128, func(n int) ([]byte, port.Offload) {
			f := superFrame{proto: protoUDP, payload: pattern(10*n - 9)}
			return f.build(), f.offload(port.GSOUDPL4, 10)
		}},
		"fragments": {1024, func(n int) ([]byte, port.Offload) {
			f := superFrame{proto: protoUDP, payload: pattern(16*n - 8 - 15)}
			return f.build(), f.offload(port.GSOUDP, 16)
		}},
		"SCTP": {1024, func(n int) ([]byte, port.Offload) {
			b, _ := sctp(superFrame{}, chunks(n)...)
			return b, port.Offload{GSOType: port.GSOSCTP, GSOSize: 20}
		}},
	} {
		for n, want := range map[int]error{c.most: nil, c.most + 1: vnet.ErrSize} {
			data, o := c.frame(n)
			var s vnet.Segmenter
			if err := s.Init(data, o, port.CapsNone); !errors.Is(err, want) || want == nil && s.Count() != n {
				t.Errorf("%s in %d segments: %v, %d", name, n, err, s.Count())
			}
		}
	}
}

// TestNoSegmentWithoutChecksum: a datagram whose checksum comes out as zero says all
// ones, for zero would say that there is none (RFC 768).
func TestNoSegmentWithoutChecksum(t *testing.T) {
	f := superFrame{proto: protoUDP, payload: make([]byte, 2000)}
	frames, _ := segments(t, f.build(), f.offload(port.GSOUDPL4, 1000), port.CapsNone)
	// What the checksum of the first is short of all ones becomes its first word.
	binary.BigEndian.PutUint16(f.payload, binary.BigEndian.Uint16(frames[0][f.csumAt():]))
	frames, _ = segments(t, f.build(), f.offload(port.GSOUDPL4, 1000), port.CapsNone)
	if got := binary.BigEndian.Uint16(frames[0][f.csumAt():]); got != 0xffff {
		t.Errorf("checksum %#x", got)
	}
}

// inUse returns a Segmenter that is in the midst of a frame: of what that left in it, nothing
// shows in the next.
func inUse(t rapid.TB) *vnet.Segmenter {
	f := tunnelFrame{proto: protoUDP, ether: true, csum: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, payload: pattern(60_000)}}
	s := new(vnet.Segmenter)
	if err := s.Init(f.build(), f.offload(port.GSOTCPv4, 1000), port.CapsAll); err != nil || !s.Regroup(port.CapsAll) {
		t.Fatalf("a frame of a tunnel cannot be regrouped: %v", err)
	}
	s.NextGroup(make([]byte, s.GroupLen()))
	return s
}

// TestSegmenterIsReused: nothing of one frame shows in the next.
func TestSegmenterIsReused(t *testing.T) {
	var s vnet.Segmenter
	frag := superFrame{proto: protoUDP, v6: true, payload: pattern(3000)}
	tcp := superFrame{proto: protoTCP, payload: pattern(3000)}
	tunnel := tunnelFrame{proto: protoGRE, inner: tcp}
	data, o := tcp.build(), tcp.offload(port.GSOTCPv4, 1000)
	want, _ := segments(t, data, o, port.CapsNone)
	dst := make([]byte, port.MaxFrame)
	for range 2 {
		if err := s.Init(frag.build(), frag.offload(port.GSOUDP, 1480), port.CapCsum); err != nil {
			t.Fatal(err)
		}
		s.Next(dst)
		if offset := dst[frag.l4()+2 : frag.l4()+4]; !bytes.Equal(offset, []byte{0, 1}) {
			t.Fatalf("the first fragment is at %x", offset)
		}
		if err := s.Init(tunnel.build(), tunnel.offload(port.GSOTCPv4, 1000), port.CapsNone); err != nil {
			t.Fatal(err)
		}
		// The rest is left, and another frame begun.
		if err := s.Init(data, o, port.CapCsum); err != nil || s.Offload().Flags != port.NeedsCsum {
			t.Fatalf("%+v is left, %v", s.Offload(), err)
		}
		if err := s.Init(data, o, port.CapsNone); err != nil {
			t.Fatal(err)
		}
		if s.Offload() != (port.Offload{}) {
			t.Fatalf("%+v is left", s.Offload())
		}
		for i, w := range want {
			n, ok := s.Next(dst)
			if !ok || !bytes.Equal(dst[:n], w) {
				t.Fatalf("segment %d: %x, %v; want %x", i, dst[:n], ok, w)
			}
		}
	}
}

// FuzzSegmenter: whatever a guest sends, the Segmenter reads and writes inside what it
// was given, and says before how much comes out.
func FuzzSegmenter(f *testing.F) {
	for _, s := range []superFrame{
		{proto: protoTCP, payload: pattern(300)},
		{proto: protoTCP, v6: true, ext: []uint8{protoHopByHop, protoRouting}, payload: pattern(300)},
		{proto: protoUDP, options: make([]byte, 8), tags: []port.Tag{port.MakeTag(port.TPIDCustomer, 5)}, payload: pattern(300)},
		{proto: protoUDP, v6: true, payload: pattern(300)},
	} {
		for _, gso := range []uint8{port.GSONone, port.GSOTCPv4, port.GSOTCPv6, port.GSOUDP, port.GSOUDPL4, port.GSOTCPv4 | port.GSOECN} {
			var h [vnet.HeaderLen]byte
			vnet.Encode(h[:], s.offload(gso, 64))
			f.Add(s.build(), h[:], uint8(0), uint16(0))
		}
	}
	for _, s := range []tunnelFrame{
		{proto: protoUDP, ether: true, csum: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, payload: pattern(300)}},
		{proto: protoGRE, csum: true, inner: superFrame{proto: protoTCP, v6: true, payload: pattern(300)}, outer: superFrame{v6: true}},
		{proto: protoIPIP, inner: superFrame{proto: protoUDP, payload: pattern(300)}},
	} {
		for _, gso := range []uint8{s.inner.tso(), port.GSOUDPL4, s.inner.tso() | port.GSOTunnel, port.GSONone} {
			var h [vnet.HeaderLen]byte
			vnet.Encode(h[:], s.offload(gso, 64))
			f.Add(s.build(), h[:], uint8(0), uint16(0))
			f.Add(s.build(), h[:], uint8(port.CapsAll), uint16(0))
		}
	}
	chunks, _ := sctp(superFrame{}, chunk(0, 200, false), chunk(15, 60, true))
	f.Add(chunks, []byte{0, port.GSOSCTP, 0, 0, 100, 0, 0, 0, 0, 0}, uint8(0), uint16(0))
	f.Fuzz(func(t *testing.T, data, header []byte, caps uint8, more uint16) {
		if len(header) < vnet.HeaderLen {
			return
		}
		o := vnet.Decode(header)
		data = append(data, make([]byte, more)...)
		data = data[:len(data):len(data)]
		orig := bytes.Clone(data)
		marked, inspected := vnet.Inspect(data, len(data), o)
		var s vnet.Segmenter
		if s.Init(data, o, port.Caps(caps)) != nil {
			return
		}
		if o.IsGSO() && !inspected {
			t.Fatalf("%+v is refused, and still segmented", o)
		}
		if o.IsGSO() && marked.GSOType&port.GSOTunnel != 0 && s.Offload() != (port.Offload{}) {
			t.Fatalf("%+v is left of a tunnel", s.Offload())
		}
		if s.Count() < 1 || s.Count() > 1024 || s.FrameLen() > port.MaxFrame {
			t.Fatalf("%d segments of %d bytes", s.Count(), s.FrameLen())
		}
		if left := s.Offload(); left.IsGSO() || left.Flags != 0 && port.Caps(caps)&port.CapCsum == 0 {
			t.Fatalf("%+v is left for a port with %b", left, caps)
		}
		if s.Regroup(port.Caps(caps)) {
			dst := make([]byte, s.GroupLen())
			for range s.Groups() {
				n, o, ok := s.NextGroup(dst)
				if _, fits := vnet.Inspect(dst[:n], n, o); !ok || n > port.MaxFrame || o.IsGSO() && !fits {
					t.Fatalf("%+v does not fit a group of %d bytes", o, n)
				}
			}
		}
		frames, left := segments(t, data, o, port.Caps(caps))
		for _, b := range frames {
			if !vnet.Valid(left, len(b)) {
				t.Fatalf("%+v does not fit %x", left, b)
			}
		}
		if !bytes.Equal(data, orig) {
			t.Fatal("the original was written to")
		}
	})
}

func TestSegmenterAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates; this runs without it")
	}
	dst := make([]byte, port.MaxFrame)
	for _, c := range []struct {
		f   superFrame
		gso uint8
	}{
		{superFrame{proto: protoTCP, payload: pattern(60000)}, port.GSOTCPv4},
		{superFrame{proto: protoUDP, v6: true, payload: pattern(60000)}, port.GSOUDPL4},
		{superFrame{proto: protoUDP, v6: true, payload: pattern(60000)}, port.GSOUDP},
	} {
		data, o := c.f.build(), c.f.offload(c.gso, 1448)
		if n := segmentAllocs(t, data, o, dst); n != 0 {
			t.Errorf("type %d: %v allocations", c.gso, n)
		}
	}
	tunnel := tunnelFrame{proto: protoUDP, ether: true, csum: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, payload: pattern(60000)}}
	if n := segmentAllocs(t, tunnel.build(), tunnel.offload(port.GSOTCPv4, 1400), dst); n != 0 {
		t.Errorf("a tunnel: %v allocations", n)
	}
	chunks, _ := sctp(superFrame{}, chunk(0, 1200, false), chunk(0, 1200, false), chunk(0, 1200, true))
	if n := segmentAllocs(t, chunks, port.Offload{GSOType: port.GSOSCTP, GSOSize: 1400}, dst); n != 0 {
		t.Errorf("SCTP: %v allocations", n)
	}
}

func segmentAllocs(t *testing.T, data []byte, o port.Offload, dst []byte) float64 {
	var s vnet.Segmenter
	return testing.AllocsPerRun(10, func() {
		if _, ok := vnet.Inspect(data, len(data), o); !ok {
			t.Error("refused")
		}
		if err := s.Init(data, o, port.CapsNone); err != nil {
			t.Error(err)
		}
		for ok := true; ok; {
			_, ok = s.Next(dst)
		}
		if err := s.Init(data, o, port.CapsAll); err != nil {
			t.Error(err)
		}
		if s.Regroup(port.CapsAll) {
			for ok := true; ok; {
				_, _, ok = s.NextGroup(dst)
			}
		}
	})
}

func BenchmarkTunnel(b *testing.B) {
	f := tunnelFrame{proto: protoUDP, ether: true, csum: true, shim: make([]byte, 8), inner: superFrame{proto: protoTCP, payload: pattern(60000)}}
	data, o := f.build(), f.offload(port.GSOTCPv4, 1398)
	dst := make([]byte, port.MaxFrame)
	var s vnet.Segmenter
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := s.Init(data, o, port.CapsNone); err != nil {
			b.Fatal(err)
		}
		for ok := true; ok; {
			_, ok = s.Next(dst)
		}
	}
}

func BenchmarkSegmenter(b *testing.B) {
	f := superFrame{proto: protoTCP, tcpOptions: bytes.Repeat([]byte{1}, 12), payload: pattern(60000)}
	data, o := f.build(), f.offload(port.GSOTCPv4, 1448)
	dst := make([]byte, port.MaxFrame)
	run := func(name string, caps port.Caps, next func(*vnet.Segmenter) bool) {
		b.Run(name, func(b *testing.B) {
			var s vnet.Segmenter
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			segments := 0
			for b.Loop() {
				if err := s.Init(data, o, caps); err != nil {
					b.Fatal(err)
				}
				for next(&s) {
				}
				segments += s.Count()
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(segments), "ns/segment")
		})
	}
	copied := func(s *vnet.Segmenter) bool { _, ok := s.Next(dst); return ok }
	run("copy", port.CapsNone, copied)
	run("partial", port.CapCsum, copied)
}
