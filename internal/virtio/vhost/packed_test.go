package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"
)

// TestPackedWrap gives batches of all lengths back, in all laps. The driver knows by the
// wrap counter (virtio 1.2, 2.8.1) which descriptors are used, and sees a batch as a whole.
func TestPackedWrap(t *testing.T) {
	r := newPackedRing()
	p := r.open(t)
	at := place{0, true}
	for lap := range 5 {
		for n := 1; n <= fuzzRing; n++ {
			r.fill(at, n)
			filled := bytes.Clone(r.all[:descSize*fuzzRing])
			singles, err := p.singles(1, true)
			if err != nil || len(singles) != n {
				t.Fatalf("lap %d: %d of %d chains, %v", lap, len(singles), n, err)
			}
			for i := range singles {
				singles[i].Written = uint32((i + lap) % 3)
			}
			p.useSingles(singles[:n/2])
			p.useSingles(singles[n/2:])
			if !bytes.Equal(filled, r.all[:len(filled)]) {
				t.Fatalf("lap %d: %d chains are used before they are published", lap, n)
			}
			p.publish()
			for i := range n {
				d := r.all[descSize*at.index:][:descSize]
				id, flags := binary.LittleEndian.Uint16(d[12:]), binary.LittleEndian.Uint16(d[14:])
				written := binary.LittleEndian.Uint32(d[8:])
				if !isUsedAt(flags, at) || int(id) != at.index || int(written) != (i+lap)%3 || flags&descWrite != 0 != (written > 0) {
					t.Errorf("lap %d: chain %d of %d at %+v: id %d, flags %#x, %d written", lap, i, n, at, id, flags, written)
				}
				at.move(1, fuzzRing)
			}
			if p.peek() {
				t.Fatalf("lap %d: something is available at %+v", lap, at)
			}
		}
	}
}

// The log of a migration has each page of used descriptors, and no other.
func TestPackedLog(t *testing.T) {
	for n, want := range map[int]byte{1: 1 << 2, 2: 1<<2 | 1<<3} {
		r := newPackedRing()
		p := r.open(t)
		p.log, p.logRing, p.descGPA = &dirtyLog{bits: make([]byte, 8)}, true, 3*logPage-descSize // page 3 begins with the second
		r.fill(place{0, true}, n)
		singles, err := p.singles(1, true)
		if err != nil || len(singles) != n {
			t.Fatalf("%d of %d chains, %v", len(singles), n, err)
		}
		p.useSingles(singles)
		p.publish()
		if !bytes.Equal(p.log.bits, []byte{want, 0, 0, 0, 0, 0, 0, 0}) {
			t.Errorf("%d descriptors: the log has pages %b, want %b", n, p.log.bits, want)
		}
	}
}

// TestPackedOrder has a driver look for used descriptors while batches are published. It
// goes by the first one's flags, and finds all that was written before them. (The race
// detector knows what comes before what.)
func TestPackedOrder(t *testing.T) {
	const total = 20_000
	r := newPackedRing()
	p := r.open(t)
	length := func(n int) uint32 { return uint32(100 + n%50) }
	stop, done := make(chan struct{}), make(chan struct{})
	defer func() { close(stop); <-done }()
	go func() {
		defer close(done)
		give, take := place{0, true}, place{0, true}
		for given, taken := 0, 0; taken < total; {
			for ; given < total && given-taken < fuzzRing; given++ {
				d := r.all[descSize*give.index:]
				binary.LittleEndian.PutUint64(d, testGPA+4096)
				binary.LittleEndian.PutUint32(d[8:], length(given))
				store32(d[12:], uint32(given%fuzzRing)|uint32(availableFlag(give))<<16)
				give.move(1, fuzzRing)
			}
			d := r.all[descSize*take.index:]
			word := load32(d[12:])
			if !isUsedAt(uint16(word>>16), take) {
				select {
				case <-stop:
					t.Errorf("chain %d does not come back", taken)
					return
				default:
					runtime.Gosched()
				}
				continue
			}
			if n := binary.LittleEndian.Uint32(d[8:]); int(uint16(word)) != taken%fuzzRing || n != length(taken)+1 {
				t.Errorf("chain %d comes back as %d, with %d bytes", taken, uint16(word), n)
				return
			}
			take.move(1, fuzzRing)
			taken++
		}
	}()
	used := 0
	for limit := time.Now().Add(time.Minute); used < total; {
		select {
		case <-done:
			return // with an error
		default:
			if time.Now().After(limit) {
				t.Fatalf("after %d chains none comes", used)
			}
		}
		singles, err := p.singles(1, false)
		if err != nil {
			t.Fatal(err)
		}
		for i := range singles {
			singles[i].Written = uint32(len(singles[i].Bytes)) + 1
		}
		used += len(singles)
		p.useSingles(singles)
		p.publish()
		runtime.Gosched()
	}
	select {
	case <-done:
	case <-time.After(time.Minute): // stop has it say which one is missing
	}
}

// A driver that makes descriptors available of which it cannot know that they are used
// gets no further than the ring is long.
func TestPackedOverrun(t *testing.T) {
	for _, slots := range []int{1, 3} {
		r := newPackedRing()
		p := r.open(t)
		at := place{0, true}
		r.fill(at, fuzzRing)
		at.move(fuzzRing-slots+1, fuzzRing)
		use(t, p, fuzzRing-slots+1)
		if slots > 1 { // the last descriptors of the lap and the first of the next are a chain
			r.fill(at, slots)
			for range slots - 1 {
				r.all[descSize*at.index+14] |= descNext
				at.move(1, fuzzRing)
			}
		} else {
			r.fill(at, 1)
		}
		if singles, err := p.singles(1, true); len(singles) > 0 || err != nil {
			t.Errorf("%d descriptors are left: %d chains, %v", slots-1, len(singles), err)
		}
		if _, _, ok, err := p.next(nil, true); ok || !errors.Is(err, errAvail) {
			t.Errorf("%d descriptors are left, the chain has %d: %v, %v", slots-1, slots, ok, err)
		}
		p.publish()
	}
}
