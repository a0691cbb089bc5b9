package main

// window keeps a sender at the rate that arrives, the way TCP does (RFC 5681, 3.1):
// it bounds the frames under way, by half of what it was where one was lost, by one
// more per round trip where none was. Nothing is sent again. A broadcast is under
// way until the last of its receivers has it.
type window struct {
	size    float64 // frames
	max     float64
	sent    uint64 // number of the last frame sent; the first is 1
	asked   uint64 // number of the last frame that asked for an acknowledgement
	recover uint64 // a loss up to this number has been answered already
	seen    []receiver
}

// receiver is what a receiver has acknowledged.
type receiver struct{ highest, lost uint64 }

// A window holds as much as fits the queues of all the switches compared, above
// which more only waits longer: TAPs queue 1000 frames, sockets some hundred KiB.
const (
	maxWindowFrames = 256
	maxWindowBytes  = 512 << 10
	minWindow       = 2
)

func newWindow(size, receivers int) *window {
	most := float64(max(minWindow, min(maxWindowFrames, maxWindowBytes/size)))
	return &window{size: most, max: most, seen: make([]receiver, receivers)}
}

// room is how many frames may be sent now.
func (w *window) room() int {
	return int(w.size) - int(w.sent-w.acked())
}

// acked is the number up to which all receivers have acknowledged.
func (w *window) acked() uint64 {
	n := w.sent
	for _, r := range w.seen {
		n = min(n, r.highest)
	}
	return n
}

// next returns the number of the next frame, and whether it asks for an
// acknowledgement: four times per window, so that it keeps moving.
func (w *window) next() (seq uint64, ask bool) {
	w.sent++
	if ask = float64(w.sent-w.asked) >= w.size/4; ask {
		w.asked = w.sent
	}
	return w.sent, ask
}

// ack takes what receiver i says: the highest number it saw, and how many frames.
func (w *window) ack(i int, highest, arrived uint64) {
	if i >= len(w.seen) {
		return // of one who was not asked
	}
	r := &w.seen[i]
	if highest <= r.highest || highest > w.sent || arrived > highest {
		return // overtaken, or not of this window
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

// expire gives up on what is under way, of which nothing was heard for too long. It
// tells whether there was anything.
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
