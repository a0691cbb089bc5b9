package vhost

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// splitRing is a split ring of single buffers of 100 bytes, of which each is available, with
// its available ring so many bytes behind where it could be.
func splitRing(t *testing.T, c ringCommon, shift int) (q *split, avail, used []byte) {
	t.Helper()
	mem, all := guestMemory(fuzzSize, 5000)
	for i := range fuzzRing {
		putDesc(all, i, descriptor{addr: testGPA + 4000, len: 100}, 0, 0)
	}
	a := fuzzAddr()
	a.Avail += uint64(shift)
	a.Used += 8 // makes room
	avail, used = all[availAt+shift:], all[a.Used-testUVA:]
	for i := range fuzzRing {
		binary.LittleEndian.PutUint16(avail[4+2*i:], uint16(i))
	}
	c.mem = mem
	q, err := openSplit(c, fuzzRing, a)
	if err != nil {
		t.Fatal(err)
	}
	return q, avail, used
}

// The available ring lies at any multiple of 2 (virtio 1.2, 2.7), the others at multiples of
// their words.
func TestSplitAlignment(t *testing.T) {
	for _, shift := range []int{0, 2, 4, 6} {
		for _, eventIdx := range []bool{false, true} {
			t.Run(fmt.Sprint(shift, eventIdx), func(t *testing.T) {
				q, avail, _ := splitRing(t, ringCommon{eventIdx: eventIdx}, shift)
				want := func(call bool) {
					t.Helper()
					q.publish()
					if got := q.wantsCall(); got != call {
						t.Errorf("calls for chain %d: %v", q.usedIdx, got)
					}
				}
				quiet := func(on uint16) {
					if eventIdx {
						binary.LittleEndian.PutUint16(avail[4+2*fuzzRing:], q.usedIdx+on)
						on = 0 // EVENT_IDX makes the flag void, which may be anything
					}
					binary.LittleEndian.PutUint16(avail, on)
				}
				for n := range uint16(3 * fuzzRing) {
					if q.peek() {
						t.Fatalf("before chain %d is available", n)
					}
					binary.LittleEndian.PutUint16(avail[2:], n+1)
					quiet(n % 2)
					c, parts, ok, err := q.next(nil, false)
					if !ok || err != nil || len(parts) != 1 || int(c.id) != int(n)%fuzzRing {
						t.Fatalf("chain %d: %+v, %v, %v", n, c, ok, err)
					}
					q.use(c, 0)
					want(n%2 == 0)
				}
			})
		}
	}
	mem, _ := guestMemory(fuzzSize, 5000)
	for what, a := range map[string]RingAddr{
		"available ring at 1":   {Desc: testUVA, Avail: testUVA + availAt + 1, Used: testUVA + usedAt},
		"used ring at 2":        {Desc: testUVA, Avail: testUVA + availAt, Used: testUVA + usedAt + 2},
		"descriptors at 4":      {Desc: testUVA + 4, Avail: testUVA + availAt + 16, Used: testUVA + usedAt + 16},
		"available ring behind": {Desc: testUVA, Avail: testUVA + fuzzSize - 4 - 2*fuzzRing, Used: testUVA + usedAt},
		"used ring behind":      {Desc: testUVA, Avail: testUVA + availAt, Used: testUVA + fuzzSize - 4 - 8*fuzzRing},
	} {
		if _, err := openSplit(ringCommon{mem: mem}, fuzzRing, a); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
	if _, err := openSplit(ringCommon{mem: mem}, fuzzRing-1, fuzzAddr()); !errors.Is(err, errSize) {
		t.Errorf("a ring of %d: %v", fuzzRing-1, err)
	}
}

// A legacy driver may want a call when nothing is left in the ring, even while it wants
// none (virtio 0.9.5, 2.4.2).
func TestNotifyOnEmpty(t *testing.T) {
	for _, onEmpty := range []bool{false, true} {
		for _, eventIdx := range []bool{false, true} {
			q, avail, _ := splitRing(t, ringCommon{onEmpty: onEmpty, eventIdx: eventIdx}, 0)
			binary.LittleEndian.PutUint16(avail, availNoInterrupt)
			binary.LittleEndian.PutUint16(avail[4+2*fuzzRing:], 1000) // far away
			binary.LittleEndian.PutUint16(avail[2:], 3)
			for n := range 3 {
				c, _, ok, err := q.next(nil, false)
				if !ok || err != nil {
					t.Fatal(ok, err)
				}
				q.use(c, 0)
				q.publish()
				if got, want := q.wantsCall(), onEmpty && n == 2; got != want {
					t.Errorf("on empty %v, event index %v: chain %d of 3 calls: %v", onEmpty, eventIdx, n+1, got)
				}
			}
			if q.wantsCall() {
				t.Error("a call without news")
			}
		}
	}
}

// The feature reaches the ring only when the driver has it.
func TestNotifyOnEmptyIsAgreedOn(t *testing.T) {
	for _, f := range []uint64{0, FeatureNotifyOnEmpty} {
		b := newTestBackend(t)
		if b.Features()&FeatureNotifyOnEmpty == 0 {
			t.Fatal("the feature is not offered")
		}
		if err := b.SetFeatures(f); err != nil {
			t.Fatal(err)
		}
		if err := b.AddMemory(Region{GPA: testGPA, UVA: testUVA, Size: fuzzSize}, memfd(t, fuzzSize, 0)); err != nil {
			t.Fatal(err)
		}
		_ = b.SetRingNum(0, fuzzRing)
		if err := b.SetRingAddr(0, fuzzAddr()); err != nil {
			t.Fatal(err)
		}
		if err := b.SetKick(0, -1); err != nil {
			t.Fatal(err)
		}
		if got := b.Ring(0).q.(*split).onEmpty; got != (f != 0) {
			t.Errorf("features %#x: calls on empty %v", f, got)
		}
	}
}

// A live migration is told of each byte that the device writes to a ring, also of those
// by which it asks for kicks: avail_event of a split ring, the device's area of a packed one.
func TestKicksAreLogged(t *testing.T) {
	const eventPage, devicePage = 7, 1
	for _, logged := range []bool{false, true} {
		for name, open := range map[string]func(c ringCommon) (queue, int, error){
			"split": func(c ringCommon) (queue, int, error) {
				a := fuzzAddr()
				a.LogAddr = eventPage*logPage - 4 - 8*fuzzRing // so that avail_event begins a page
				q, err := openSplit(c, fuzzRing, a)
				return q, eventPage, err
			},
			"packed": func(c ringCommon) (queue, int, error) {
				a := fuzzAddr()
				a.Used = testUVA + devicePage*logPage
				q, err := openPacked(c, fuzzRing, a, uint32(packedStart.bits()), nil)
				return q, testGPA/logPage + devicePage, err
			},
		} {
			for _, eventIdx := range []bool{false, true} {
				mem, _ := guestMemory(fuzzSize, 5000)
				log := &dirtyLog{bits: make([]byte, 64)}
				q, page, err := open(ringCommon{mem: mem, log: log, logRing: logged, eventIdx: eventIdx})
				if err != nil {
					t.Fatal(err)
				}
				if name == "split" && !eventIdx {
					page = eventPage - 1 // the flags, at the ring's beginning
					q.askKick(false)
					clear(log.bits)
				}
				q.askKick(true)
				want := make([]byte, 64)
				if logged {
					want[page/8] |= 1 << (page % 8)
				}
				if !bytes.Equal(log.bits, want) {
					t.Errorf("%s, logged %v, event index %v: %x, want %x", name, logged, eventIdx, log.bits, want)
				}
			}
		}
	}
}

// The log has a bit for each page that the front end gave it room for, and no other.
func TestLogTail(t *testing.T) {
	for size := uint64(1); size <= 12; size++ {
		for _, offset := range []uint64{0, 8, 4096 - 8, 4096} {
			b := newTestBackend(t)
			fd := memfd(t, int64(offset+size), 0)
			keep, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(keep)
			if err := b.SetLog(fd, offset, size); err != nil {
				t.Fatal(err)
			}
			for page := range uint64(8*size + 64) {
				b.log.mark(page*logPage, 1)
			}
			if err := unix.Ftruncate(keep, int64(offset+size+16)); err != nil { // grows
				t.Fatal(err)
			}
			got := make([]byte, size+16)
			if _, err := unix.Pread(keep, got, int64(offset)); err != nil {
				t.Fatal(err)
			}
			want := append(bytes.Repeat([]byte{0xff}, int(size)), make([]byte, 16)...)
			if !bytes.Equal(got, want) {
				t.Errorf("a log of %d bytes at %d: % x", size, offset, got)
			}
		}
	}
}
