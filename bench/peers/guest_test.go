package main

import (
	"encoding/binary"
	"testing"
)

func TestFrames(t *testing.T) {
	for _, size := range []int{smallest, 1514, superFrame} {
		p := newPacket(3, 4, size)
		f := p[headerLen:]
		if len(f) != size || int(binary.BigEndian.Uint16(f[16:])) != size-ipAt {
			t.Errorf("%d bytes: the frame has %d, its IP packet %d", size, len(f), binary.BigEndian.Uint16(f[16:]))
		}
		if s := fold(sum(0, f[ipAt:l4At])); s != 0xffff {
			t.Errorf("%d bytes: the IP header sums up to %#x", size, s)
		}
		want := message{kindAck, 3, 1 << 40, 1 << 50}
		want.put(p)
		if m, ok := parse(p); !ok || m != want {
			t.Errorf("%d bytes: %+v, %v; want %+v", size, m, ok, want)
		}
		if !isFor(p, 4) || isFor(p, 3) {
			t.Errorf("%d bytes: to the wrong guest", size)
		}
		if gso := p[1] != 0; gso != (size == superFrame) {
			t.Errorf("%d bytes: to be cut: %v", size, gso)
		}
		if size != superFrame {
			continue
		}
		// What the checksum begins with is the sum of the pseudo header alone.
		pseudo := append([]byte{198, 18, 0, 3, 198, 18, 0, 4, 0, 6}, f[16:18]...)
		binary.BigEndian.PutUint16(pseudo[10:], uint16(size-l4At))
		if got, want := binary.BigEndian.Uint16(f[l4At+16:]), fold(sum(0, pseudo)); got != want {
			t.Errorf("the TCP checksum begins with %#x, want %#x", got, want)
		}
	}
	if p := newPacket(0, everyone, smallest); !isFor(p, 1) || !isFor(p, 8) {
		t.Error("a broadcast is not for all")
	}
	for _, p := range [][]byte{nil, make([]byte, headerLen+l4At), make([]byte, 100)} {
		if m, ok := parse(p); ok {
			t.Errorf("% x is read as %+v", p, m)
		}
	}
}

// send sends n frames and returns the numbers of those that ask.
func send(t *testing.T, w *window, n int) (asks []uint64) {
	t.Helper()
	for range n {
		if w.room() < 1 {
			t.Fatalf("no room after frame %d", w.sent)
		}
		if seq, ask := w.next(); ask {
			asks = append(asks, seq)
		}
	}
	return asks
}

func TestWindow(t *testing.T) {
	w := newWindow(smallest, 1)
	if got := w.room(); got != maxWindowFrames {
		t.Fatalf("room for %d at first", got)
	}
	if asks := send(t, w, 256); len(asks) != 4 || asks[3] != 256 {
		t.Errorf("frames %v ask", asks)
	}
	if got := w.room(); got != 0 {
		t.Errorf("room for %d in a full window", got)
	}
	w.ack(0, 128, 128)
	if got := w.room(); got != 128 {
		t.Errorf("room for %d after half was acknowledged; the window has reached its end", got)
	}
	// A loss halves it, once for all that was under way.
	w.ack(0, 192, 190)
	w.ack(0, 256, 250)
	if got := w.room(); got != 128 {
		t.Errorf("room for %d after a loss", got)
	}
	// A whole window without loss adds a frame.
	send(t, w, 128)
	w.ack(0, 384, 378)
	if got := w.room(); got != 129 {
		t.Errorf("room for %d after a round trip without loss", got)
	}
	// Old, and beyond what was sent: nothing changes.
	w.ack(0, 300, 294)
	w.ack(0, 1000, 994)
	w.ack(1, 384, 384)
	if got := w.room(); got != 129 {
		t.Errorf("room for %d after acknowledgements of nothing", got)
	}
	if w.expire() {
		t.Error("nothing is under way, and expires")
	}
	send(t, w, 129)
	if !w.expire() || w.room() != 64 {
		t.Errorf("room for %d after silence", w.room())
	}
	for range 20 {
		send(t, w, w.room())
		w.expire()
	}
	if got := w.room(); got != minWindow {
		t.Errorf("room for %d after long silence", got)
	}
	if asks := send(t, w, minWindow); len(asks) != minWindow {
		t.Errorf("in the smallest window %v ask", asks)
	}
}

// The slowest receiver of a broadcast holds the window.
func TestWindowOfMany(t *testing.T) {
	w := newWindow(superFrame, 2)
	n := w.room()
	if n != maxWindowBytes/superFrame {
		t.Fatalf("room for %d super-frames", n)
	}
	send(t, w, n)
	w.ack(0, uint64(n), uint64(n))
	if got := w.room(); got != 0 {
		t.Errorf("room for %d while one has nothing", got)
	}
	w.ack(1, 3, 3)
	if got := w.room(); got != 3 {
		t.Errorf("room for %d when both have 3", got)
	}
}
