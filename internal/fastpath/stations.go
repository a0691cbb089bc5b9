package fastpath

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
)

// places is PLACES of fastpath.c.
const places = 4

// stations are the table of that name in fastpath.c, in memory shared with the kernel,
// which writes when a station was heard. A station is in one of the two lines that its
// key leads to, the second if the first was full. There are as many lines as the FDB
// takes stations, four times as many places: all find one. One goroutine
// writes at a time.
type stations struct {
	memory []byte
	lines  []line
	hash   bpfHash
}

// line is struct line of fastpath.c.
type line struct {
	key     [places]atomic.Uint64
	station [places]atomic.Uint64 // a bpfStation
}

// linesFor is how many lines there are for so many stations: a power of two, as the hash
// has it, and 2 at least.
func linesFor(capacity int) uint32 { return 1 << bits.Len(uint(max(capacity-1, 1))) }

// load maps the table, empty or as a former process left it.
func (s *stations) load(bpf *bpfObjects) error {
	n := int(bpf.Stations.MaxEntries())
	if err := bpf.Hashes.Lookup(uint32(0), &s.hash); err != nil {
		return err
	}
	if s.hash.Shift == 0 {
		s.hash = newHash(n)
		if err := bpf.Hashes.Put(uint32(0), &s.hash); err != nil {
			return err
		}
	}
	page := os.Getpagesize()
	size := (n*int(unsafe.Sizeof(line{})) + page - 1) / page * page
	var err error
	s.memory, err = unix.Mmap(bpf.Stations.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the stations: %w", err)
	}
	s.lines = unsafe.Slice((*line)(unsafe.Pointer(&s.memory[0])), n)
	return nil
}

// newHash returns a hash that leads to one of so many lines.
func newHash(lines int) bpfHash {
	odd := func() uint64 { return rand.Uint64() | 1 }
	return bpfHash{Mix: odd(), Choice: [2]uint64{odd(), odd()}, Shift: uint32(64 - bits.TrailingZeros(uint(lines)))}
}

func (s *stations) close() {
	if s.memory != nil {
		_ = unix.Munmap(s.memory)
	}
}

// word is a station as one word in memory.
func word(st bpfStation) uint64 { return *(*uint64)(unsafe.Pointer(&st)) }

func stationOf(word uint64) bpfStation { return *(*bpfStation)(unsafe.Pointer(&word)) }

// of returns the two lines that a station may be in.
func (s *stations) of(k fdb.Key) [2]*line {
	mixed := uint64(k) * s.hash.Mix
	mixed ^= mixed >> 32
	return [2]*line{
		&s.lines[mixed*s.hash.Choice[0]>>s.hash.Shift],
		&s.lines[mixed*s.hash.Choice[1]>>s.hash.Shift],
	}
}

// find returns where a station is, nil if nowhere.
func (s *stations) find(k fdb.Key) (key, station *atomic.Uint64) {
	for _, l := range s.of(k) {
		for i := range l.key {
			if l.key[i].Load() == uint64(k) {
				return &l.key[i], &l.station[i]
			}
		}
	}
	return nil, nil
}

// put writes a station, and tells whether there is a place for it: its own, one that is
// free, or that of a station that is not current.
func (s *stations) put(k fdb.Key, st bpfStation, current func(fdb.Key, bpfStation) bool) bool {
	if _, at := s.find(k); at != nil {
		at.Store(word(st))
		return true
	}
	key, at := s.free(k, current)
	if key == nil {
		key, at = s.makeRoom(k, current)
	}
	if key == nil {
		return false
	}
	give(key, at, k, word(st))
	return true
}

// give gives a place to a station. The program takes none for another meanwhile.
func give(key, at *atomic.Uint64, k fdb.Key, station uint64) {
	key.Store(0)
	at.Store(station)
	key.Store(uint64(k))
}

// free returns a place for a station, nil if there is none.
func (s *stations) free(k fdb.Key, current func(fdb.Key, bpfStation) bool) (key, station *atomic.Uint64) {
	for _, l := range s.of(k) {
		for i := range l.key {
			old := fdb.Key(l.key[i].Load())
			if old == 0 || !current(old, stationOf(l.station[i].Load())) {
				return &l.key[i], &l.station[i]
			}
		}
	}
	return nil, nil
}

// makeRoom returns the place of a station that has room in its other line, where it
// is from now on, too.
func (s *stations) makeRoom(k fdb.Key, current func(fdb.Key, bpfStation) bool) (key, station *atomic.Uint64) {
	for _, l := range s.of(k) {
		for i := range l.key {
			other := fdb.Key(l.key[i].Load())
			if key, at := s.free(other, current); key != nil {
				give(key, at, other, l.station[i].Load())
				return &l.key[i], &l.station[i]
			}
		}
	}
	return nil, nil
}

// delete takes a station out, if it is in. A process that was killed while it made room
// has left one in two places.
func (s *stations) delete(k fdb.Key) {
	for key, _ := s.find(k); key != nil; key, _ = s.find(k) {
		key.Store(0)
	}
}

// each calls f for all stations. One that f gives another place may be left out or
// given twice.
func (s *stations) each(f func(fdb.Key, bpfStation)) {
	for n := range s.lines {
		l := &s.lines[n]
		for i := range l.key {
			if k := l.key[i].Load(); k != 0 {
				f(fdb.Key(k), stationOf(l.station[i].Load()))
			}
		}
	}
}
