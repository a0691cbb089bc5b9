package vnet_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// lay lays frames one behind another as a tunnel delivers them, 8 bytes apart.
func lay(datagrams [][]byte) (frames []port.Frame) {
	var b []byte
	for _, d := range datagrams {
		b = append(append(b, 1, 2, 3, 4, 5, 6, 7, 8), d...)
	}
	b = slices.Grow(b, 100)
	for _, d := range datagrams {
		var f port.Frame
		f.SetStripped(b[8:8+len(d)], 0)
		frames = append(frames, f)
		b = b[8+len(d):]
	}
	return frames
}

// merge merges frames that lie one behind another, and returns what is left.
func merge(frames []port.Frame) (merged []*port.Frame) {
	var m vnet.Merger
	for i := range frames {
		f := &frames[i]
		if !m.Add(f) {
			merged = append(merged, f)
			m.Start(f)
		}
	}
	m.Finish()
	return merged
}

// TestMergeIsTheReverse: what a Segmenter divides, a Merger joins again, also what another super-frame
// follows.
func TestMergeIsTheReverse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := superFrame{
			proto: protoTCP, v6: rapid.Bool().Draw(t, "v6"), id: rapid.Uint16().Draw(t, "id"), seq: rapid.Uint32().Draw(t, "seq"),
			dfFlags: rapid.SampledFrom([]uint16{0, 0x4000}).Draw(t, "df"),
			flags:   rapid.SampledFrom([]uint8{0x10, 0x18}).Draw(t, "flags"),
			payload: pattern(rapid.IntRange(2, 60_000).Draw(t, "payload")),
		}
		f.tcpOptions = make([]byte, 4*rapid.IntRange(0, 10).Draw(t, "options"))
		size := rapid.IntRange((len(f.payload)+999)/1000, min(len(f.payload)-1, 9000)).Draw(t, "size")
		want, o := f.build(), f.offload(f.tso(), size)
		cut, _ := segments(t, want, o, port.CapsNone)
		got := merge(lay(slices.Concat(cut, cut)))
		if len(got) != 2 {
			t.Fatalf("twice %d segments become %d frames", len(cut), len(got))
		}
		for i, f := range got {
			if !bytes.Equal(f.Data, want) || f.Offload != o {
				t.Fatalf("%d segments become another frame %d, with %+v, not %+v", len(cut), i, f.Offload, o)
			}
		}
	})
}

// TestMergeKeepsApart: segments that differ in what the receiver would no longer see stay
// frames of their own, unchanged.
func TestMergeKeepsApart(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		f := superFrame{proto: protoTCP, v6: v6, seq: 1000, flags: 0x10, tcpOptions: make([]byte, 12), payload: pattern(300), dfFlags: 0}
		cut, _ := segments(t, f.build(), f.offload(f.tso(), 100), port.CapsNone)
		ip, l4 := f.l3(), f.l4()
		fix := func(b []byte) { // as a sender of such a segment would
			if !v6 {
				clear(b[ip+10 : ip+12])
				binary.BigEndian.PutUint16(b[ip+10:], ^slowSum(b[ip:l4]))
			}
			binary.BigEndian.PutUint16(b[l4+16:], f.pseudo(len(b)-l4))
			binary.BigEndian.PutUint16(b[l4+16:], ^slowSum(b[l4:]))
		}
		for name, change := range map[string]func(b []byte){
			"a gap":                   func(b []byte) { b[l4+7]++ },
			"another port":            func(b []byte) { b[l4]++ },
			"another acknowledgement": func(b []byte) { b[l4+11]++ },
			"another window":          func(b []byte) { b[l4+15]++ },
			"other options":           func(b []byte) { b[l4+21]++ },
			"urgent":                  func(b []byte) { b[l4+13] |= 0x20 },
			"the end":                 func(b []byte) { b[l4+13] |= 1 },
			"congestion":              func(b []byte) { b[l4+13] |= 0x40 },
			"another class":           func(b []byte) { b[ip+1] ^= 0x10 },
			"a broken checksum":       nil,
		} {
			t.Run(name, func(t *testing.T) {
				wire := [][]byte{cut[0], bytes.Clone(cut[1])}
				if change != nil {
					change(wire[1])
					fix(wire[1])
				} else {
					wire[1][len(wire[1])-1]++
				}
				got := merge(lay(wire))
				if len(got) != 2 {
					t.Fatal("merged")
				}
				for i, f := range got {
					if !bytes.Equal(f.Data, wire[i]) || f.Offload != (port.Offload{}) {
						t.Errorf("frame %d changed", i)
					}
				}
			})
		}
		// Control: unchanged, they merge; a short one and one with PSH end the frame.
		if got := merge(lay(cut[:2])); len(got) != 1 {
			t.Error("what belongs together is not merged")
		}
		if !v6 { // identifications count only where routers may fragment (RFC 6864)
			for _, df := range []byte{0, 0x40} {
				wire := [][]byte{bytes.Clone(cut[0]), bytes.Clone(cut[1])}
				for _, b := range wire {
					b[ip+6] |= df
					fix(b)
				}
				wire[1][ip+4] ^= 0x55
				fix(wire[1])
				if got := merge(lay(wire)); (len(got) == 1) != (df != 0) {
					t.Errorf("with an identification of its own and flags %#x a segment makes %d frames", df, len(got))
				}
			}
		}
		short, pushed := bytes.Clone(cut[0][:len(cut[0])-1]), bytes.Clone(cut[0])
		if v6 {
			binary.BigEndian.PutUint16(short[ip+4:], uint16(len(short)-ip-40))
		} else {
			binary.BigEndian.PutUint16(short[ip+2:], uint16(len(short)-ip))
		}
		fix(short)
		next := bytes.Clone(cut[1])
		binary.BigEndian.PutUint32(next[l4+4:], 1099)
		fix(next)
		if got := merge(lay([][]byte{short, next})); len(got) != 2 {
			t.Error("a longer segment is merged behind a shorter one")
		}
		pushed[l4+13] |= 0x08
		fix(pushed)
		if got := merge(lay([][]byte{pushed, cut[1]})); len(got) != 2 {
			t.Error("a segment is merged behind one that the sender pushed")
		}
	}
}

// TestMergeKeepsAllBits: whatever bit of a segment's headers is another one, in a packet that is
// right, the segment stays apart, or comes out of the super-frame with that bit again. So do two
// segments that both have it.
func TestMergeKeepsAllBits(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		f := superFrame{proto: protoTCP, v6: v6, id: 77, dfFlags: 0x4000, seq: 1000, flags: 0x10, tcpOptions: make([]byte, 12), payload: pattern(300)}
		cut, _ := segments(t, f.build(), f.offload(f.tso(), 100), port.CapsNone)
		ip, l4 := f.l3(), f.l4()
		merged := 0
		for which := range 3 { // of the two, the one that differs; 2: both do
			for bit := range 8 * f.head() {
				wire := [][]byte{bytes.Clone(cut[0]), bytes.Clone(cut[1])}
				for i, b := range wire {
					if which == 1-i {
						continue
					}
					b[bit/8] ^= 1 << (bit % 8)
					if !v6 {
						clear(b[ip+10 : ip+12])
						binary.BigEndian.PutUint16(b[ip+10:], ^slowSum(b[ip:l4]))
					}
					clear(b[l4+16 : l4+18])
					pseudo := slowSum(append(binary.BigEndian.AppendUint32([]byte{0, protoTCP}, uint32(len(b)-l4)), b[l4-map[bool]int{false: 8, true: 32}[v6]:l4]...))
					binary.BigEndian.PutUint16(b[l4+16:], pseudo)
					binary.BigEndian.PutUint16(b[l4+16:], ^slowSum(b[l4:]))
				}
				got := merge(lay(wire))
				if len(got) == 2 {
					if !bytes.Equal(got[0].Data, wire[0]) || !bytes.Equal(got[1].Data, wire[1]) {
						t.Fatalf("IPv6 %v, segment %d, bit %d: frames changed that were not merged", v6, which, bit)
					}
					continue
				}
				if which < 2 {
					merged++
				}
				again, _ := segments(t, got[0].Data, got[0].Offload, port.CapsNone)
				for i := range again {
					if !v6 { // counts up; with DF nobody looks at it
						clear(again[i][ip+4 : ip+6])
						clear(again[i][ip+10 : ip+12])
						clear(wire[i][ip+4 : ip+6])
						clear(wire[i][ip+10 : ip+12])
					}
					if !bytes.Equal(again[i], wire[i]) {
						t.Errorf("IPv6 %v, segment %d, bit %d: %x comes out as %x", v6, which, bit, wire[i][:f.head()], again[i][:f.head()])
					}
				}
			}
		}
		want := map[bool]int{false: 2*16 + 1 + 2*16 + 2*16, true: 1 + 2*16}[v6] // identification, PSH of the last, checksums
		if merged != want {
			t.Errorf("IPv6 %v: with %d bits of others they merge, want %d", v6, merged, want)
		}
	}
}

// TestMergeRefused: a frame that is no whole TCP segment is neither begun with nor added.
func TestMergeRefused(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		f := superFrame{proto: protoTCP, v6: v6, seq: 1000, flags: 0x10, payload: pattern(200)}
		cut, _ := segments(t, f.build(), f.offload(f.tso(), 100), port.CapsNone)
		for n := range f.head() + 1 { // without payload, or cut off
			for which := range 2 {
				wire := [][]byte{cut[0], cut[1]}
				wire[which] = cut[which][:n]
				if n < port.HeaderLen {
					continue
				}
				if got := merge(lay(wire)); len(got) != 2 {
					t.Errorf("IPv6 %v: %d bytes of segment %d are merged", v6, n, which)
				}
			}
		}
		frames := lay(cut)
		frames[0].Offload.Flags = port.NeedsCsum
		if got := merge(frames); len(got) != 2 {
			t.Error("a frame with work left is merged")
		}
		frames = lay(cut)
		frames[1].Drop = port.DropRunt
		if got := merge(frames); len(got) != 2 {
			t.Error("a frame that is dropped is merged")
		}
		frames = lay(cut)
		frames[1].Tag = port.MakeTag(port.TPIDCustomer, 5)
		if got := merge(frames); len(got) != 2 {
			t.Error("frames of two VLANs are merged")
		}
	}
	// Acknowledgements without data are counted by who gets them.
	for _, v6 := range []bool{false, true} {
		segment := func(seq uint32, payload int) []byte {
			s := superFrame{proto: protoTCP, v6: v6, seq: seq, flags: 0x10, payload: pattern(payload)}
			b := s.build()
			if err := vnet.Complete(b, s.offload(s.tso(), 1)); err != nil {
				t.Fatal(err)
			}
			return b
		}
		ack, first, second := segment(1000, 0), segment(1000, 100), segment(1100, 0)
		for name, wire := range map[string][][]byte{"two": {ack, ack}, "one before data": {ack, first}, "one behind data": {first, second}} {
			if got := merge(lay(wire)); len(got) != 2 {
				t.Errorf("IPv6 %v: acknowledgements, %s, are merged", v6, name)
			}
		}
	}
	// As long as IP, and as many as a frame makes.
	for _, c := range []struct{ size, total, want int }{{1000, 65535 - 40, 1}, {1000, 65535 - 40 + 1, 2}, {10, 10 * 1024, 1}, {10, 10*1024 + 1, 2}} {
		f := superFrame{proto: protoTCP, flags: 0x10, payload: pattern(c.total)}
		var wire [][]byte
		for at := 0; at < c.total; at += c.size {
			s := superFrame{proto: protoTCP, flags: 0x10, seq: uint32(at), id: uint16(at / c.size), payload: f.payload[at:min(at+c.size, c.total)]}
			b := s.build()
			if err := vnet.Complete(b, s.offload(s.tso(), 1)); err != nil {
				t.Fatal(err)
			}
			wire = append(wire, b)
		}
		if got := merge(lay(wire)); len(got) != c.want {
			t.Errorf("%d bytes in segments of %d are %d frames, want %d", c.total, c.size, len(got), c.want)
		}
	}
}

// FuzzMerge: whatever two frames are, no byte beyond them changes, and a merged frame is a
// valid super-frame that the Segmenter divides into the same two.
func FuzzMerge(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		s := superFrame{proto: protoTCP, v6: v6, seq: 1000, flags: 0x18, payload: pattern(300)}
		cut, _ := segments(f, s.build(), s.offload(s.tso(), 200), port.CapsNone)
		f.Add(cut[0], cut[1])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		if len(a)+len(b) > 60_000 {
			return
		}
		frames := lay([][]byte{a, b})
		behind := frames[1].Data[len(b):][:50]
		clear(behind)
		got := merge(frames)
		if !bytes.Equal(behind, make([]byte, 50)) {
			t.Fatal("bytes behind the frames changed")
		}
		if len(got) == 2 {
			if !bytes.Equal(got[0].Data, a) || !bytes.Equal(got[1].Data, b) {
				t.Fatal("frames changed that were not merged")
			}
			return
		}
		o := got[0].Offload
		if _, ok := vnet.Inspect(got[0].Data, len(got[0].Data), o); !ok {
			t.Fatalf("%+v does not fit the frame", o)
		}
		cut, _ := segments(t, got[0].Data, o, port.CapsNone)
		if len(cut) != 2 || !bytes.Equal(cut[0][o.HdrLen:], a[o.HdrLen:]) || !bytes.Equal(cut[1][o.HdrLen:], b[o.HdrLen:]) {
			t.Fatalf("%d segments, or another payload", len(cut))
		}
	})
}
