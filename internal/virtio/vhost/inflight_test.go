package vhost

import (
	"bytes"
	"encoding/binary"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// packedRing is a driver's packed ring in memory, with single descriptors made available.
type packedRing struct {
	mem     *memory
	all     []byte
	journal []byte
}

func newPackedRing() *packedRing {
	r := &packedRing{journal: make([]byte, journalSize(fuzzRing))}
	r.mem, r.all = guestMemory(fuzzSize, 4096)
	return r
}

// fill makes all places from one on available, n of them, as buffers of 100 bytes.
func (r *packedRing) fill(at place, n int) {
	for range n {
		d := r.all[16*at.index:]
		binary.LittleEndian.PutUint64(d, testGPA+4096)
		binary.LittleEndian.PutUint32(d[8:], 100)
		flags := uint16(descUsed)
		if at.wrap {
			flags = descAvail
		}
		binary.LittleEndian.PutUint16(d[12:], uint16(at.index))
		binary.LittleEndian.PutUint16(d[14:], flags|descWrite)
		at.move(1, fuzzRing)
	}
}

// open is a back end that its front end tells to begin at the first descriptor.
func (r *packedRing) open(t *testing.T) *packed {
	t.Helper()
	p, err := openPacked(ringCommon{mem: r.mem}, fuzzRing, fuzzAddr(), 1<<15, r.journal)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func use(t *testing.T, p *packed, n int) {
	t.Helper()
	for i := range n {
		c, _, ok, err := p.next(nil, true)
		if !ok || err != nil {
			t.Fatalf("chain %d: %v, %v", i, ok, err)
		}
		p.use(c, uint32(10+i))
	}
}

// TestResume has back ends die at any step of making a batch known, in any lap.
func TestResume(t *testing.T) {
	for before := 1; before < 3*fuzzRing; before++ {
		lap := newPackedRing()
		p := lap.open(t)
		at := place{0, true}
		for range before { // one at a time, so that the batch begins anywhere
			lap.fill(at, 1)
			use(t, p, 1)
			p.publish()
			at.move(1, fuzzRing)
		}
		const batch = 3
		lap.fill(at, batch+before%3)
		end := at
		end.move(batch, fuzzRing)

		use(t, p, batch)
		taken := slices.Clone(lap.all)
		copy(p.journal[noteSize:], p.entries)
		p.putNote(p.begin)
		begun := slices.Clone(lap.journal)
		p.publish()
		done := slices.Clone(lap.journal)
		published := slices.Clone(lap.all)
		first := 16 * at.index

		lap.fill(end, fuzzRing-1)
		refilled := slices.Clone(lap.all)
		// spoil makes the first entry of the journal one of so many descriptors: whoever shares the
		// memory can.
		spoil := func(slots uint64) []byte {
			j := slices.Clone(begun)
			e := j[noteSize:]
			binary.NativeEndian.PutUint64(e, binary.NativeEndian.Uint64(e)&^(0xffff<<16)|slots<<16)
			return j
		}
		fresh, partly, full := newPackedRing(), newPackedRing(), newPackedRing()
		partly.fill(place{0, true}, 5)
		full.fill(place{0, true}, fuzzRing)

		for name, c := range map[string]struct {
			journal, ring, becomes []byte
			want                   place
		}{
			"published":                   {done, published, published, end},
			"published, but not noted":    {begun, published, published, end},
			"all but the first":           {begun, slices.Concat(published[:first], taken[first:first+16], published[first+16:]), published, end},
			"nothing of it in the ring":   {begun, taken, published, end},
			"an entry of no descriptors":  {spoil(0), taken, taken, place{0, true}},
			"an entry of more than all":   {spoil(fuzzRing + 1), taken, taken, place{0, true}},
			"refilled behind the batch":   {done, refilled, refilled, end},
			"another ring":                {done, fresh.all, fresh.all, place{0, true}},
			"another ring, partly filled": {done, partly.all, partly.all, place{0, true}},
			"another ring, full":          {done, full.all, full.all, place{0, true}},
		} {
			copy(lap.journal, c.journal)
			copy(lap.all, c.ring)
			q := lap.open(t)
			if q.seen != c.want || q.used != c.want {
				t.Errorf("%d before, %s: goes on at %+v, %+v, want %+v", before, name, q.seen, q.used, c.want)
			}
			if !bytes.Equal(lap.all, c.becomes) {
				t.Errorf("%d before, %s: the ring is not as it was to be", before, name)
			}
		}
	}
}

// A journal of the back end's own has its room in the file system before the ring uses
// it; where there is no room the ring goes on without.
func TestOwnJournalHasItsRoom(t *testing.T) {
	b, err := NewBackend(2, 0, noDevice{}, func(error) {})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	path := filepath.Join(t.TempDir(), "rings")
	if err := b.KeepInflight(path); err != nil {
		t.Fatal(err)
	}
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(path, &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks * 512
	}
	r := b.Ring(1)
	r.num = 1024
	before := blocks()
	if b.journalOf(r) == nil {
		t.Fatal("no journal")
	}
	if got := blocks() - before; got < int64(journalSize(1024)) && got != 0 { // 0: it cannot be told
		t.Errorf("the file has %d more bytes of room, of %d", got, journalSize(1024))
	}
	// A file that takes no more stands for a full file system.
	full, err := unix.Open("/dev/full", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Dup3(full, b.ownFile, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	unix.Close(full)
	if b.journalOf(r) != nil {
		t.Error("a journal without room")
	}
}
