package vhost

import (
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"
)

const (
	testGPA = 0x10_0000
	testUVA = 0x7f00_0000_0000
)

// guestMemory is memory of two regions that are one to the guest.
func guestMemory(size, cut int) (*memory, []byte) {
	all := make([]byte, size)
	m := &memory{}
	for _, r := range [][2]int{{cut, size}, {0, cut}} {
		err := m.add(mapped{Region: Region{GPA: testGPA + uint64(r[0]), UVA: testUVA + uint64(r[0]), Size: uint64(r[1] - r[0])}, bytes: all[r[0]:r[1]]})
		if err != nil {
			panic(err)
		}
	}
	return m, all
}

// inside reports whether buffers are the guest's memory and nothing else.
func inside(all []byte, buffers []Buffer) bool {
	base := uintptr(unsafe.Pointer(&all[0]))
	for _, b := range buffers {
		off := uintptr(unsafe.Pointer(&b.Bytes[0])) - base
		if len(b.Bytes) == 0 || off+uintptr(len(b.Bytes)) > uintptr(len(all)) || b.gpa != testGPA+uint64(off) {
			return false
		}
	}
	return true
}

// Where the fuzz tests have their rings.
const (
	fuzzSize = 1 << 13
	fuzzRing = 16
	descAt   = 0
	availAt  = 16 * fuzzRing
	usedAt   = availAt + 2*fuzzRing + 8
	logAt    = 0x2000_0000
)

func fuzzAddr() RingAddr {
	return RingAddr{Desc: testUVA + descAt, Avail: testUVA + availAt, Used: testUVA + usedAt, LogAddr: logAt, Log: true}
}

// exercise uses a ring as a device does while the guest's memory is what it is, with
// more of that coming in as script while it does. How far the script is says what is done.
func exercise(t *testing.T, q queue, all []byte, script []byte, write bool) {
	var buffers []Buffer
	for range 200 {
		if len(script)%4 == 3 {
			singles, err := q.singles(1, write)
			if err != nil {
				return
			}
			singles = singles[:min(len(singles), int(script[0])%fuzzRing)]
			for i := range singles {
				if !inside(all, []Buffer{singles[i].Buffer}) {
					t.Fatal("a buffer that is not the guest's memory")
				}
				singles[i].Written = uint32(i)
			}
			q.useSingles(singles)
		}
		mark := q.mark()
		c, bs, ok, err := q.next(buffers[:0], write)
		if err != nil {
			return
		}
		buffers = bs
		if !inside(all, buffers) || len(buffers) > 2*maxChain {
			t.Fatalf("%d buffers, not all of them the guest's memory", len(buffers))
		}
		if ok && len(script)%3 == 1 {
			q.rewind(mark)
			again, _, ok, err := q.next(nil, write)
			if !ok || err != nil || again != c {
				t.Fatalf("after rewind: %+v, %v, %v, not %+v", again, ok, err, c)
			}
		}
		if ok {
			q.use(c, uint32(len(buffers)))
		}
		if len(script)%32 < 3 { // else the batch goes on
			q.publish()
			q.wantsCall()
			q.askKick(len(script)%2 == 0)
		}
		if len(script) < 3 {
			if !ok {
				return
			}
			continue
		}
		at := int(binary.LittleEndian.Uint16(script)) % len(all)
		all[at] = script[2]
		script = script[3:]
	}
}

// image lays what the fuzzer made over the guest's memory.
func image(all, made []byte) { copy(all, made) }

func FuzzSplitRing(f *testing.F) {
	// A chain of two, an indirect table, and what is available.
	ring := make([]byte, availAt)
	desc := func(i int, addr uint64, n uint32, flags, next uint16) {
		binary.LittleEndian.PutUint64(ring[16*i:], addr)
		binary.LittleEndian.PutUint32(ring[16*i+8:], n)
		binary.LittleEndian.PutUint16(ring[16*i+12:], flags)
		binary.LittleEndian.PutUint16(ring[16*i+14:], next)
	}
	desc(0, testGPA+4000, 200, descNext, 1)
	desc(1, testGPA+5000, 100, 0, 0)
	desc(2, testGPA, 32, descIndirect, 0)
	desc(3, testGPA+4000, 100, descNext, 3)
	avail := binary.LittleEndian.AppendUint32(nil, 3<<16)
	for _, head := range []uint16{0, 2, 3} {
		avail = binary.LittleEndian.AppendUint16(avail, head)
	}
	f.Add(append(slices.Clone(ring), avail...), []byte{1, 2, 3, 4, 5, 6}, uint8(0))
	f.Add(ring, []byte{0, 1, 200}, uint8(7))
	f.Fuzz(func(t *testing.T, made, script []byte, how uint8) {
		mem, all := guestMemory(fuzzSize, 4096-16+int(how))
		image(all, made)
		c := ringCommon{mem: mem, log: &dirtyLog{bits: make([]byte, 64)}, logRing: how&1 != 0, eventIdx: how&2 != 0, indirect: how&4 != 0}
		q, err := openSplit(c, fuzzRing, fuzzAddr())
		if err != nil {
			t.Fatal(err)
		}
		exercise(t, q, all, script, how&8 != 0)
	})
}

func FuzzPackedRing(f *testing.F) {
	ring := make([]byte, 16*fuzzRing)
	desc := func(i int, addr uint64, n uint32, id, flags uint16) {
		binary.LittleEndian.PutUint64(ring[16*i:], addr)
		binary.LittleEndian.PutUint32(ring[16*i+8:], n)
		binary.LittleEndian.PutUint16(ring[16*i+12:], id)
		binary.LittleEndian.PutUint16(ring[16*i+14:], flags)
	}
	desc(0, testGPA+4000, 200, 5, descAvail|descNext)
	desc(1, testGPA+5000, 100, 5, descAvail)
	desc(2, testGPA, 32, 6, descAvail|descIndirect)
	f.Add(ring, []byte{1, 2, 3, 4, 5, 6}, uint8(6))
	for i := range fuzzRing {
		desc(i, testGPA+4000, 50, uint16(i), descAvail|descNext)
	}
	f.Add(ring, []byte{200, 0, 1}, uint8(1))
	f.Fuzz(func(t *testing.T, made, script []byte, how uint8) {
		mem, all := guestMemory(fuzzSize, 4096-16+int(how))
		image(all, made)
		c := ringCommon{mem: mem, log: &dirtyLog{bits: make([]byte, 64)}, logRing: how&1 != 0, eventIdx: how&2 != 0, indirect: how&4 != 0}
		var journal []byte
		if len(script) > 8 { // what somebody left there who was not us
			journal = make([]byte, journalSize(fuzzRing-1))
			copy(journal, script)
		}
		q, err := openPacked(c, fuzzRing-1, fuzzAddr(), 1<<15|uint32(how>>4)%15, journal)
		if err != nil {
			t.Fatal(err)
		}
		exercise(t, q, all, script, how&8 != 0)
	})
}

func TestMemory(t *testing.T) {
	m, all := guestMemory(1<<13, 5000)
	hint := 0
	for _, c := range []struct{ gpa, n, want uint64 }{
		{testGPA, 10, 10}, {testGPA + 4990, 100, 10}, {testGPA + 5000, 100, 100},
		{testGPA + 8191, 10, 1}, {testGPA + 8192, 1, 0}, {testGPA - 1, 10, 0},
		{0, 1, 0}, {^uint64(0), 10, 0}, {testGPA, 1 << 40, 5000}, {testGPA + 5000, ^uint64(0), 3192},
	} {
		b := m.at(c.gpa, c.n, &hint)
		if uint64(len(b)) != c.want || len(b) > 0 && &b[0] != &all[c.gpa-testGPA] {
			t.Errorf("%#x: %d bytes, want %d", c.gpa, len(b), c.want)
		}
	}
	for _, c := range []struct {
		uva, n, align uint64
		ok            bool
	}{
		{testUVA, 5000, 8, true}, {testUVA, 5001, 8, false}, {testUVA + 5000, 3192, 4, true}, {testUVA + 5000, 3193, 4, false},
		{testUVA + 2, 10, 4, false}, {testUVA - 8, 10, 4, false}, {^uint64(0) - 7, 8, 8, false}, {testUVA + 8, ^uint64(0), 8, false},
	} {
		if b, gpa, err := m.user(c.uva, c.n, c.align); (err == nil) != c.ok || c.ok && (uint64(len(b)) != c.n || gpa != c.uva-testUVA+testGPA) {
			t.Errorf("%#x, %d: %d bytes at %#x, %v", c.uva, c.n, len(b), gpa, err)
		}
	}
	for _, r := range []Region{{GPA: testGPA, Size: 1}, {GPA: testGPA - 10, Size: 11}, {GPA: testGPA + 8191, Size: 10}, {GPA: 0, Size: 1 << 40}} {
		if m.add(mapped{Region: r}) == nil {
			t.Errorf("%+v overlaps", r)
		}
	}
	for _, r := range []Region{
		{Size: 0}, {Size: 1 << 57}, {GPA: ^uint64(0), Size: 10}, {UVA: ^uint64(0), Size: 10}, {Offset: ^uint64(0) - 5, Size: 10},
	} {
		if r.check() == nil {
			t.Errorf("%+v is no region", r)
		}
	}
	for i := range MaxMemSlots - 2 {
		if err := m.add(mapped{Region: Region{GPA: 1<<32 + uint64(i)*2, Size: 2}}); err != nil {
			t.Fatal(i, err)
		}
	}
	if m.add(mapped{Region: Region{GPA: 1 << 40, Size: 1}}) == nil {
		t.Error("more regions than slots")
	}
}

func TestDirtyLog(t *testing.T) {
	l := &dirtyLog{bits: make([]byte, 8)}
	for _, w := range [][2]uint64{{0, 0}, {0, 1}, {4095, 2}, {9 * 4096, 3 * 4096}, {63*4096 + 4000, 1000}, {64 * 4096, 1}, {1 << 60, 10}, {^uint64(0), 1}} {
		l.mark(w[0], w[1])
	}
	if want := []byte{3, 0b1110, 0, 0, 0, 0, 0, 0x80}; !slices.Equal(l.bits, want) {
		t.Errorf("%08b, want %08b", l.bits, want)
	}
}

// The driver is told exactly when its event lies in what was used since.
func TestNeedEvent(t *testing.T) {
	for _, c := range []struct {
		event, now, old uint16
		want            bool
	}{
		{5, 6, 5, true}, {5, 5, 4, false}, {5, 7, 6, false}, {65535, 0, 65534, true}, {65535, 65535, 65530, false}, {0, 10, 65530, true},
	} {
		if got := needEvent(c.event, c.now, c.old); got != c.want {
			t.Errorf("event %d, from %d to %d: %v", c.event, c.old, c.now, got)
		}
	}
}
