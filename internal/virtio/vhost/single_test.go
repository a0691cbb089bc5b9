package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"
)

// offer is a chain that a driver makes available; of its descriptors the address, the
// length and WRITE are given.
type offer struct {
	id    uint16
	parts []descriptor
}

// offered is a ring with chains.
type offered struct {
	queue
	mem    *memory
	length func(chain int) []byte        // that of its first descriptor
	used   func() (idAndLen [][2]uint32) // what the driver is told
}

var offers = map[string]func(*testing.T, []offer, *dirtyLog) offered{"split": offerSplit, "packed": offerPacked}

// putDesc writes a descriptor; the last two are flags and next, or id and flags.
func putDesc(all []byte, i int, d descriptor, a, b uint16) {
	at := all[descAt+descSize*i:]
	binary.LittleEndian.PutUint64(at, d.addr)
	binary.LittleEndian.PutUint32(at[8:], d.len)
	binary.LittleEndian.PutUint16(at[12:], a)
	binary.LittleEndian.PutUint16(at[14:], b)
}

// offerSplit has chains begin at the descriptor of their id.
func offerSplit(t *testing.T, chains []offer, log *dirtyLog) offered {
	t.Helper()
	mem, all := guestMemory(fuzzSize, 5000)
	avail := binary.LittleEndian.AppendUint32(nil, uint32(len(chains))<<16)
	for _, c := range chains {
		for k, d := range c.parts {
			i := int(c.id) + k
			if k < len(c.parts)-1 {
				d.flags |= descNext
			}
			putDesc(all, i, d, d.flags, uint16(i+1))
		}
		avail = binary.LittleEndian.AppendUint16(avail, c.id)
	}
	copy(all[availAt:], avail)
	used := all[usedAt:]
	return offered{openQueue(t, ringCommon{mem: mem, log: log}, false), mem,
		func(i int) []byte { return all[descAt+descSize*int(chains[i].id)+8:][:4] },
		func() (list [][2]uint32) {
			for i := range int(binary.LittleEndian.Uint16(used[2:])) {
				e := used[4+8*i:]
				list = append(list, [2]uint32{binary.LittleEndian.Uint32(e), binary.LittleEndian.Uint32(e[4:])})
			}
			return list
		}}
}

// packedStart is where packed rings begin, so that what few chains there are wrap.
var packedStart = place{fuzzRing - 3, true}

// offerPacked has chains begin at packedStart.
func offerPacked(t *testing.T, chains []offer, log *dirtyLog) offered {
	t.Helper()
	mem, all := guestMemory(fuzzSize, 5000)
	at := packedStart
	var places []place
	for _, c := range chains {
		places = append(places, at)
		for k, d := range c.parts {
			if k < len(c.parts)-1 {
				d.flags |= descNext
			}
			putDesc(all, at.index, d, c.id, d.flags|availableFlag(at))
			at.move(1, fuzzRing)
		}
	}
	return offered{openQueue(t, ringCommon{mem: mem, log: log}, true), mem,
		func(i int) []byte { return all[descAt+descSize*places[i].index+8:][:4] },
		func() (list [][2]uint32) {
			for _, at := range places {
				d := all[descAt+descSize*at.index:]
				if !isUsedAt(binary.LittleEndian.Uint16(d[14:]), at) {
					break
				}
				list = append(list, [2]uint32{uint32(binary.LittleEndian.Uint16(d[12:])), binary.LittleEndian.Uint32(d[8:])})
			}
			return list
		}}
}

// availableFlag is the one of AVAIL and USED that a driver sets at a place (virtio 1.2,
// 2.8.1), and isUsedAt reports whether the device has set or cleared both there.
func availableFlag(at place) uint16 {
	if at.wrap {
		return 1 << 7
	}
	return 1 << 15
}

func isUsedAt(flags uint16, at place) bool {
	both := uint16(0)
	if at.wrap {
		both = 1<<7 | 1<<15
	}
	return flags&(1<<7|1<<15) == both
}

// openQueue opens a ring of fuzzRing.
func openQueue(t *testing.T, c ringCommon, packed bool) queue {
	t.Helper()
	c.indirect = true
	var q queue
	var err error
	if packed {
		q, err = openPacked(c, fuzzRing, fuzzAddr(), uint32(packedStart.bits()), nil)
	} else {
		q, err = openSplit(c, fuzzRing, fuzzAddr())
	}
	if err != nil {
		t.Fatal(err)
	}
	return q
}

// Chains of one buffer come in a row, up to one that is something else. What was read of
// them is not read again.
func TestSingles(t *testing.T) {
	chains := []offer{
		{2, []descriptor{{addr: testGPA + 4000, len: 1}}},
		{0, []descriptor{{addr: testGPA + 2000, len: 100}}},
		{1, []descriptor{{addr: testGPA + 3000, len: 60}}},
		{3, []descriptor{{addr: testGPA + 4000, len: 10}, {addr: testGPA + 4100, len: 10}}},
		{5, []descriptor{{addr: testGPA + 4000, len: 10}}},
		{6, []descriptor{{addr: testGPA + 4000, len: 10, flags: descWrite}}},
	}
	for name, offer := range offers {
		t.Run(name, func(t *testing.T) {
			q := offer(t, chains, nil)
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
			q.length(2)[0] = 61
			if got := lengths(); !slices.Equal(got, []int{100, 60}) {
				t.Fatalf("then buffers of %d bytes", got)
			}
			mark := r.Mark()
			if c, _, ok := r.Next(0, false); !ok || c.id != 0 {
				t.Fatalf("chain %d is next, %v", c.id, ok)
			}
			if got := lengths(); !slices.Equal(got, []int{60}) {
				t.Errorf("behind a chain that was taken alone: buffers of %d bytes", got)
			}
			r.Rewind(mark)
			two := r.Singles(false)
			two[1].Written = 7
			r.UseSingles(two)
			if got := lengths(); got != nil {
				t.Errorf("a chain of two is %d single buffers", len(got))
			}
			mark = r.Mark()
			r.Next(0, false)
			r.Rewind(mark)
			if got := lengths(); got != nil {
				t.Errorf("after going back a chain of two is %d single buffers", len(got))
			}
			c, parts, ok := r.Next(0, false)
			if !ok || len(parts) != 2 {
				t.Fatalf("a chain of %d buffers, %v", len(parts), ok)
			}
			r.Use(c, 0)
			if got := lengths(); !slices.Equal(got, []int{10}) {
				t.Fatalf("behind a chain of two: buffers of %d bytes", got)
			}
			r.UseSingles(r.Singles(false))
			if got := q.used(); len(got) > 0 {
				t.Errorf("the driver is told of %d before that is due", got)
			}
			q.publish()
			if got, want := q.used(), [][2]uint32{{2, 0}, {0, 0}, {1, 7}, {3, 0}, {5, 0}}; !slices.Equal(got, want) {
				t.Errorf("chains and lengths %d are used, want %d", got, want)
			}
			if got := lengths(); got != nil {
				t.Error("a buffer to be written to is there to be read")
			}
			if _, _, ok := r.Next(0, false); ok || !errors.Is(r.err, errReadOnly) {
				t.Errorf("a buffer that goes the other way: %v, %v", ok, r.err)
			}
		})
	}
}

// What the log of a migration does not know of is not written: receive buffers are left
// alone until their turn.
func TestSinglesLogged(t *testing.T) {
	chains := []offer{{0, []descriptor{{addr: testGPA + 2000, len: 100, flags: descWrite}}}}
	for name, offer := range offers {
		t.Run(name, func(t *testing.T) {
			log := new(dirtyLog)
			q := offer(t, chains, log)
			r := newRing(0, q.mem, func(error) {})
			r.q, r.log = q, log
			hint := 0
			buffer := q.mem.at(testGPA+2000, 100, &hint)
			copy(buffer, bytes.Repeat([]byte{1}, len(buffer)))
			r.ReadOn(1)
			if got := r.Singles(true); len(got) != 1 {
				t.Fatalf("%d chains", len(got))
			}
			if bytes.Contains(buffer, []byte{0}) {
				t.Error("a buffer was written to")
			}
		})
	}
}

// Chains are read that became available behind known ones, if more are wanted. The order stays.
func TestReadOn(t *testing.T) {
	var chains []offer
	for i := range 5 {
		chains = append(chains, offer{uint16(i), []descriptor{{addr: testGPA + 2000 + 100*uint64(i), len: uint32(10 * (i + 1)), flags: descWrite}}})
	}
	for name, offer := range offers {
		t.Run(name, func(t *testing.T) {
			q := offer(t, chains, nil)
			const late = 3 // the first that is not available yet
			becomeLate := func() {
				if s, ok := q.queue.(*split); ok {
					s.avail[2] ^= byte(late ^ len(chains))
				} else {
					q.length(late)[:8][6] ^= descAvail
				}
			}
			becomeLate()
			r := newRing(0, q.mem, func(error) {})
			r.q = q
			lengths := func() (n []int) {
				for _, s := range r.Singles(true) {
					n = append(n, len(s.Bytes))
				}
				return n
			}
			if got := lengths(); !slices.Equal(got, []int{10, 20, 30}) {
				t.Fatalf("buffers of %d bytes", got)
			}
			becomeLate()
			r.ReadOn(3)
			if got := lengths(); !slices.Equal(got, []int{10, 20, 30}) {
				t.Errorf("of which three are known: buffers of %d bytes", got)
			}
			r.UseSingles(r.Singles(true)[:2])
			r.ReadOn(2)
			if got := lengths(); !slices.Equal(got, []int{30, 40, 50}) {
				t.Errorf("then buffers of %d bytes", got)
			}
			if c, _, ok := r.Next(0, true); !ok || c.id != 2 {
				t.Errorf("chain %d is next, %v", c.id, ok)
			} else {
				r.Use(c, 3)
			}
			r.UseSingles(r.Singles(true))
			r.ReadOn(1)
			if got := lengths(); got != nil {
				t.Errorf("behind the last: buffers of %d bytes", got)
			}
			q.publish()
			if got, want := q.used(), [][2]uint32{{0, 0}, {1, 0}, {2, 3}, {3, 0}, {4, 0}}; !slices.Equal(got, want) {
				t.Errorf("chains and lengths %d are used, want %d", got, want)
			}
		})
	}
}

// FuzzSingles takes what is available from one ring by Next alone, and from another,
// which is the same, as it is known a few chains at a time: it is the same. Of counts, the lower
// half of a byte is how many are taken, and the rest says whether it is read on before.
func FuzzSingles(f *testing.F) {
	split := make([]byte, usedAt)
	for i := range fuzzRing {
		putDesc(split, i, descriptor{addr: testGPA + uint64(500*i), len: 200}, 0, 0)
	}
	binary.LittleEndian.PutUint16(split[16*3+12:], descNext)
	binary.LittleEndian.PutUint16(split[16*5+12:], descIndirect)
	binary.LittleEndian.PutUint32(split[availAt:], 12<<16)
	for i := range 12 {
		binary.LittleEndian.PutUint16(split[availAt+4+2*i:], uint16(i))
	}
	f.Add(split, []byte{0, 3, 1, 2}, false, false)
	f.Add(split, []byte{2, 0x10, 0x11, 0x12}, false, false)
	f.Add(split[:availAt], []byte{}, true, false)
	packed := make([]byte, usedAt)
	at := packedStart
	for i := range fuzzRing {
		flags := availableFlag(at)
		if i == 6 {
			flags |= descNext
		}
		putDesc(packed, at.index, descriptor{addr: testGPA + uint64(500*i), len: 200}, uint16(i), flags)
		at.move(1, fuzzRing)
	}
	f.Add(packed, []byte{0, 3, 1, 2}, false, true)
	f.Add(packed, []byte{2, 0x10, 0x11, 0x12}, false, true)
	f.Fuzz(func(t *testing.T, made, counts []byte, write, packed bool) {
		open := func() (queue, []byte) {
			mem, all := guestMemory(fuzzSize, 5000)
			image(all, made)
			// With a log nothing is written before its turn: the ring may lie there.
			return openQueue(t, ringCommon{mem: mem, log: new(dirtyLog)}, packed), all
		}
		one, _ := open()
		other, all := open()
		var buffers []Buffer
		same := func(id uint16, parts []Buffer) {
			c, want, ok, err := one.next(nil, write)
			if !ok || err != nil || c.id != id || !slices.EqualFunc(parts, want, func(a, b Buffer) bool { return a.gpa == b.gpa && bytes.Equal(a.Bytes, b.Bytes) }) {
				t.Fatalf("chain %d of %d buffers; by Next %+v of %d, %v, %v", id, len(parts), c, len(want), ok, err)
			}
		}
		for {
			if len(counts) > 0 && counts[0] > 0xf {
				_, _ = other.singles(int(counts[0]>>4), write)
			}
			singles, err := other.singles(1, write)
			if err != nil {
				if _, _, _, want := one.next(nil, write); want != err {
					t.Fatalf("%v; by Next %v", err, want)
				}
				return
			}
			if len(counts) > 0 {
				singles = singles[:min(len(singles), int(counts[0]&0xf))]
				counts = counts[1:]
			}
			for _, s := range singles {
				if !inside(all, []Buffer{s.Buffer}) {
					t.Fatal("a buffer that is not the guest's memory")
				}
				same(s.id, []Buffer{s.Buffer})
				other.next(nil, write) // not given back, for the same reason
			}
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
