package main

// window keeps a sender at the rate that arrives, as TCP does (RFC 5681, 3.1): it limits the
// frames under way, and halves the limit after a loss or raises it by one per round trip
// without loss. Nothing is sent again. A broadcast is under way until its last receiver has
// it.
type window struct {
	size    float64 // frames
	max     float64
	sent    uint64 // number of the last frame sent; the first is 1
	asked   uint64 // number of the last frame that asked for an acknowledgement
	recover uint64 // losses up to this number have already been answered
	seen    []receiver
}

// receiver is the state that a receiver has acknowledged.
type receiver struct{ highest, lost uint64 }

// A window fits the queues of all compared switches; a larger one would only wait longer:
// TAPs queue 1000 frames, sockets some hundred KiB.
const (
	maxWindowFrames = 256
	maxWindowBytes  = 512 << 10
	minWindow       = 2
)

func newWindow(size, receivers int) *window {
	most := float64(max(minWindow, min(maxWindowFrames, maxWindowBytes/size)))
	return &window{size: most, max: most, seen: make([]receiver, receivers)}
}

// room returns how many frames may be sent now.
func (w *window) room() int {
	return int(w.size) - int(w.sent-w.acked())
}

// acked returns the number up to which all receivers have acknowledged.
func (w *window) acked() uint64 {
	n := w.sent
	for _, r := range w.seen {
		n = min(n, r.highest)
	}
	return n
}

// next returns the number of the next frame and whether it asks for an acknowledgement: four
// frames per window do, so that the window keeps moving.
func (w *window) next() (seq uint64, ask bool) {
	w.sent++
	if ask = float64(w.sent-w.asked) >= w.size/4; ask {
		w.asked = w.sent
	}
	return w.sent, ask
}

// ack handles receiver i's acknowledgement: the highest number it saw, and how many frames
// arrived.
func (w *window) ack(i int, highest, arrived uint64) {
	if i >= len(w.seen) {
		return // from a guest that was not asked
	}
	r := &w.seen[i]
	if highest <= r.highest || highest > w.sent || arrived > highest {
		return // overtaken, or of another window
	}
	before := w.acked()
	r.highest = highest
	if lost := highest - arrived; lost > r.lost {
		r.lost = lost
		if highest > w.recover {
			w.shrink()
		}
		return
	}
	w.size = min(w.max, w.size+float64(w.acked()-before)/w.size)
}

// expire gives up on the frames under way after too long a silence. It reports whether there
// were any.
func (w *window) expire() bool {
	if w.acked() == w.sent {
		return false
	}
	for i := range w.seen {
		w.seen[i].highest = w.sent
	}
	w.shrink()
	return true
}

func (w *window) shrink() {
	w.size = max(minWindow, w.size/2)
	w.recover = w.sent
}
