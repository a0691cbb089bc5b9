package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// splitRing is a ring of fuzzSize in memory of a guest's, with descriptors and what is
// available of them.
func splitRing(t *testing.T, made []byte) (*split, []byte) {
	t.Helper()
	mem, all := guestMemory(fuzzSize, 5000)
	image(all, made)
	q, err := openSplit(ringCommon{mem: mem, indirect: true}, fuzzRing, fuzzAddr())
	if err != nil {
		t.Fatal(err)
	}
	return q, all
}

// Chains of one buffer come in a row, up to one that is something else. What was read of
// them is not read again.
func TestSingles(t *testing.T) {
	var ring []byte
	for _, d := range []descriptor{
		{testGPA + 2000, 100, 0, 9}, {testGPA + 3000, 60, 0, 9}, {testGPA + 4000, 1, 0, 9},
		{testGPA + 4000, 10, descNext, 4}, {testGPA + 4100, 10, 0, 0},
		{testGPA + 4000, 10, descWrite, 0},
	} {
		ring = binary.LittleEndian.AppendUint64(ring, d.addr)
		ring = binary.LittleEndian.AppendUint32(ring, d.len)
		ring = binary.LittleEndian.AppendUint16(ring, d.flags)
		ring = binary.LittleEndian.AppendUint16(ring, d.next)
	}
	ring = append(ring, make([]byte, availAt-len(ring))...)
	ring = binary.LittleEndian.AppendUint32(ring, 5<<16)
	for _, head := range []uint16{2, 0, 1, 3, 5} {
		ring = binary.LittleEndian.AppendUint16(ring, head)
	}
	q, all := splitRing(t, ring)
	r := newRing(1, q.mem, func(error) {})
	r.q = q

	lengths := func() (n []int) {
		for _, s := range r.Singles(false) {
			n = append(n, len(s.Bytes))
		}
		return n
	}
	if got := lengths(); !slices.Equal(got, []int{1, 100, 60}) {
		t.Fatalf("buffers of %d bytes", got)
	}
	r.UseSingles(r.Singles(false)[:1])
	all[descSize*1+8] = 61
	if got := lengths(); !slices.Equal(got, []int{100, 60}) {
		t.Fatalf("then buffers of %d bytes", got)
	}
	two := r.Singles(false)
	two[1].Written = 7
	r.UseSingles(two)
	if got := lengths(); got != nil {
		t.Errorf("a chain of two is %d single buffers", len(got))
	}
	c, parts, ok := r.Next(0, false)
	if !ok || len(parts) != 2 {
		t.Fatalf("a chain of %d buffers, %v", len(parts), ok)
	}
	r.Use(c, 0)
	q.publish()
	used := all[usedAt:]
	if idx := binary.LittleEndian.Uint16(used[2:]); idx != 4 {
		t.Errorf("%d chains are given back", idx)
	}
	for i, want := range [][2]uint32{{2, 0}, {0, 0}, {1, 7}, {3, 0}} {
		if got := [2]uint32{binary.LittleEndian.Uint32(used[4+8*i:]), binary.LittleEndian.Uint32(used[8+8*i:])}; got != want {
			t.Errorf("used %d is chain %d, length %d; want %d", i, got[0], got[1], want)
		}
	}
	if got := lengths(); got != nil {
		t.Error("a buffer to be written to is there to be read")
	}
	if _, _, ok := r.Next(0, false); ok || !errors.Is(r.err, errReadOnly) {
		t.Errorf("a buffer that goes the other way: %v, %v", ok, r.err)
	}
}

// FuzzSingles takes what is available from one ring by Next alone, and from another,
// which is the same, a few chains at a time as they are known: it is the same.
func FuzzSingles(f *testing.F) {
	seed := make([]byte, usedAt)
	for i := range fuzzRing {
		binary.LittleEndian.PutUint64(seed[16*i:], testGPA+uint64(500*i))
		binary.LittleEndian.PutUint32(seed[16*i+8:], 200)
	}
	binary.LittleEndian.PutUint16(seed[16*3+12:], descNext)
	binary.LittleEndian.PutUint16(seed[16*5+12:], descIndirect)
	binary.LittleEndian.PutUint32(seed[availAt:], 12<<16)
	for i := range 12 {
		binary.LittleEndian.PutUint16(seed[availAt+4+2*i:], uint16(i))
	}
	f.Add(seed, []byte{0, 3, 1, 2}, false)
	f.Add(seed[:availAt], []byte{}, true)
	f.Fuzz(func(t *testing.T, made, counts []byte, write bool) {
		one, _ := splitRing(t, made)
		other, all := splitRing(t, made)
		other.log = new(dirtyLog) // so that nothing is written before its turn: the ring may lie there
		var buffers []Buffer
		same := func(id uint16, parts []Buffer) {
			c, want, ok, err := one.next(nil, write)
			if !ok || err != nil || c.id != id || !slices.EqualFunc(parts, want, func(a, b Buffer) bool { return a.gpa == b.gpa && bytes.Equal(a.Bytes, b.Bytes) }) {
				t.Fatalf("chain %d of %d buffers; by Next %+v of %d, %v, %v", id, len(parts), c, len(want), ok, err)
			}
		}
		for {
			singles, err := other.singles(write)
			if err != nil {
				if _, _, _, want := one.next(nil, write); want != err {
					t.Fatalf("%v; by Next %v", err, want)
				}
				return
			}
			if len(counts) > 0 {
				singles = singles[:min(len(singles), int(counts[0]))]
				counts = counts[1:]
			}
			for _, s := range singles {
				if !inside(all, []Buffer{s.Buffer}) {
					t.Fatal("a buffer that is not the guest's memory")
				}
				same(s.id, []Buffer{s.Buffer})
			}
			other.seen += uint16(len(singles)) // none is given back, for the same reason
			c, parts, ok, err := other.next(buffers[:0], write)
			if !ok {
				if _, _, ok, want := one.next(nil, write); ok || (want == nil) != (err == nil) {
					t.Fatalf("%v; by Next %v, %v", err, ok, want)
				}
				return
			}
			buffers = parts
			same(c.id, parts)
		}
	})
}
