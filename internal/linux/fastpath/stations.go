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

// stations is the table of that name in fastpath.c, in memory shared with the kernel, which
// records when each station was heard. A key hashes to two lines; its station is in the
// first, or in the second if the first was full. There are as many lines as the FDB holds
// stations, and four times as many places, so every station finds one. One goroutine
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

// linesFor returns the number of lines for that many stations: a power of two, which the
// hash requires, and at least 2.
func linesFor(capacity int) uint32 { return 1 << bits.Len(uint(max(capacity-1, 1))) }

// load maps the table, empty or as an earlier process left it.
func (s *stations) load(bpf *bpfMaps) error {
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

// newHash returns a random hash onto that many lines.
func newHash(lines int) bpfHash {
	odd := func() uint64 { return rand.Uint64() | 1 }
	return bpfHash{Mix: odd(), Choice: [2]uint64{odd(), odd()}, Shift: uint32(64 - bits.TrailingZeros(uint(lines)))}
}

func (s *stations) close() {
	if s.memory != nil {
		_ = unix.Munmap(s.memory)
	}
}

// word returns a station as one word, as it is in memory.
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

// find returns the place of a station, nil if it has none.
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

// put writes a station and reports whether there was a place for it: its own, a free one,
// or that of a station that is not current.
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

// give gives a place to a station. Meanwhile the program mistakes no station for another.
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

// makeRoom copies a station to its other line, where there is room, and returns its old
// place.
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

// delete removes a station if it is there. A process that was killed in makeRoom leaves a
// station in two places.
func (s *stations) delete(k fdb.Key) {
	for key, _ := s.find(k); key != nil; key, _ = s.find(k) {
		key.Store(0)
	}
}

// each calls f for all stations. It may skip or repeat a station that f moves.
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
