package vhost

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"testing"
	"time"
)

// Who writes to a guest may have to wait for a ring that another guest lent from. So
// that nobody waits in a circle, rings to a guest are always locked first.
func TestLockOrder(t *testing.T) {
	b, err := NewBackend(6, 0, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	first := b.Ring(1)
	first.mu.Lock()
	done := make(chan struct{})
	go func() {
		b.lock()
		b.unlock()
		close(done)
	}()
	for limit := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
		if last := &b.Ring(4).mu; !last.TryLock() {
			break
		} else {
			last.Unlock()
		}
		if time.Now().After(limit) {
			t.Fatal("a ring from the guest is waited for before those to it are locked")
		}
	}
	first.mu.Unlock()
	<-done
}

// FuzzLoan lends any bytes of the guest's memory, in any pieces, to be copied into any.
func FuzzLoan(f *testing.F) {
	f.Add([]byte{0, 0, 200, 16, 0, 100}, []byte{3, 250, 0, 90}, uint8(7), uint8(1))
	f.Add([]byte{0, 0, 200, 16, 0, 100, 0, 1, 90}, []byte{3, 250, 0, 90}, uint8(7), uint8(0))
	f.Add([]byte{255, 255, 1}, []byte{}, uint8(0), uint8(0))
	f.Fuzz(func(t *testing.T, made, cuts []byte, skip, keep uint8) {
		mem, all := guestMemory(1<<16, 5000)
		for i := range all {
			all[i] = byte(i * 11)
		}
		r := newRing(1, mem, func(err error) { t.Error(err) })
		r.q = &fakeQueue{}
		// What was taken before is kept, and is not part of it.
		var want []byte
		first := min(int(keep), len(made)/3)
		for n := 0; len(made) >= 3; n++ {
			at, size := int(binary.LittleEndian.Uint16(made)), int(made[2])
			made = made[3:]
			piece := all[at:min(at+size, len(all))]
			r.parts = append(r.parts, Buffer{Bytes: piece})
			if n < first {
				continue
			}
			if n == first {
				skip = uint8(min(int(skip), len(piece)))
				piece = piece[skip:]
			}
			want = append(want, piece...)
		}
		var l Loan
		r.Lend(&l, first, int(skip), len(want))
		for range 2 {
			got := make([]byte, len(want))
			var dst [][]byte
			rest := got
			for _, n := range cuts {
				n := min(int(n), len(rest))
				dst = append(dst, rest[:n:n])
				rest = rest[n:]
			}
			if !l.CopyTo(append(dst, rest)) || l.Len() != len(want) || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes were lent, %d came", len(want), l.Len())
			}
		}
		r.shut()
		if l.CopyTo([][]byte{make([]byte, len(want))}) {
			t.Error("what was taken back is copied")
		}
	})
}
