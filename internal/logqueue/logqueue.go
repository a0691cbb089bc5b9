// Package logqueue writes log lines from a queue, so that a reader that stops reading, or
// goes, delays nobody who logs. Lines that do not fit are dropped and counted, and the log
// says how many; so are lines that a guest or a peer could cause without end (Limit). A
// Writer may be used from any goroutine.
package logqueue

import (
	"io"
	"sync"
	"time"
)

// Writer is an io.Writer that never waits. Each Write is one line.
type Writer struct {
	out  io.Writer
	note func(out io.Writer, lost uint64) error

	mu     sync.Mutex
	lines  []entry
	bytes  int    // in lines
	lost   uint64 // lines lost after the last of lines
	closed bool
	wake   chan struct{} // holds a value when there is something to do
	done   chan struct{} // closed when the goroutine has ended
}

// entry is a line and the number of lines lost before it.
type entry struct {
	line []byte
	lost uint64
}

// capacity limits the waiting lines, in bytes: some ten thousand lines.
const capacity = 1 << 20

// New returns a Writer to out. Where lines are missing, it calls note, which writes to out
// how many were lost.
func New(out io.Writer, note func(out io.Writer, lost uint64) error) *Writer {
	w := &Writer{out: out, note: note, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write implements io.Writer. It never fails: the log itself says what it lost.
func (w *Writer) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || w.bytes+len(line) > capacity {
		w.lost++
	} else {
		w.lines = append(w.lines, entry{append([]byte(nil), line...), w.lost})
		w.bytes += len(line)
		w.lost = 0
	}
	w.kick()
	return len(line), nil
}

func (w *Writer) kick() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// Close writes the waiting lines, for at most the given time, and ends the Writer: later
// lines are lost.
func (w *Writer) Close(within time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.kick()
	w.mu.Unlock()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-w.done:
	case <-t.C:
	}
}

func (w *Writer) run() {
	defer close(w.done)
	for range w.wake {
		for {
			e := w.take()
			if e.lost > 0 && w.note(w.out, e.lost) != nil {
				w.lose(e.lost)
			}
			if e.line == nil {
				break
			}
			if _, err := w.out.Write(e.line); err != nil {
				w.lose(1)
			}
		}
		if w.drained() {
			return
		}
	}
}

// take returns what to write next; its line is empty when all are written.
func (w *Writer) take() (e entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) == 0 {
		e.lost, w.lost, w.lines = w.lost, 0, nil
		return e
	}
	e = w.lines[0]
	w.lines = w.lines[1:]
	w.bytes -= len(e.line)
	return e
}

func (w *Writer) lose(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lines) > 0 {
		w.lines[0].lost += n
	} else {
		w.lost += n
	}
}

// drained reports whether the Writer is closed and has nothing left to write.
func (w *Writer) drained() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed && len(w.lines) == 0
}
