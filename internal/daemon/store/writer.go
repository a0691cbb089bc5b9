package store

import (
	"sync"
	"time"
)

// Writer writes states to disk one after another, on its own goroutine. A waiting state is
// skipped when a newer one comes, which contains all of its changes.
type Writer struct {
	write  func(State) error
	report func(error)

	mu   sync.Mutex
	next *Saving       // not begun; nil: none
	wake chan struct{} // holds a value when there may be a next
	quit chan struct{}
	done chan struct{} // closed when the goroutine has ended

	writing chan struct{} // has a value while a state is written, or the Writer is paused
	paused  bool          // of the caller of Pause and Resume
}

// Saving is one write, of the newest of the states that came before it began.
type Saving struct {
	state   State
	awaited bool
	done    chan struct{} // closed when err is set
	err     error
}

// NewWriter returns a Writer that writes with write once Run runs. report receives the result of a
// write that nobody awaits, on the Writer's goroutine.
func NewWriter(write func(State) error, report func(error)) *Writer {
	return &Writer{
		write: write, report: report,
		wake: make(chan struct{}, 1), quit: make(chan struct{}), done: make(chan struct{}),
		writing: make(chan struct{}, 1),
	}
}

// Put schedules a write of st. It does not wait. The result of a write that is awaited by some caller
// is not reported.
func (w *Writer) Put(st State, awaited bool) *Saving {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.next == nil {
		w.next = &Saving{done: make(chan struct{})}
	}
	w.next.state = st
	w.next.awaited = w.next.awaited || awaited
	select {
	case w.wake <- struct{}{}:
	default:
	}
	return w.next
}

func (w *Writer) take() *Saving {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := w.next
	w.next = nil
	return next
}

// Run writes until Stop.
func (w *Writer) Run() {
	defer close(w.done)
	for {
		select {
		case <-w.wake:
		case <-w.quit:
			w.writeNext()
			return
		}
		w.writeNext()
	}
}

func (w *Writer) writeNext() {
	w.writing <- struct{}{}
	defer func() { <-w.writing }()
	g := w.take()
	if g == nil {
		return
	}
	g.err = w.write(g.state)
	close(g.done)
	if !g.awaited {
		w.report(g.err)
	}
}

// Pause makes the Writer write nothing until Resume, and reports whether the write under way
// ended in time.
func (w *Writer) Pause(within time.Duration) bool {
	select {
	case w.writing <- struct{}{}:
		w.paused = true
		return true
	case <-time.After(within):
		return false
	}
}

// Resume undoes Pause, if there was one.
func (w *Writer) Resume() {
	if w.paused {
		w.paused = false
		<-w.writing
	}
}

// Stop writes what is pending and reports whether that finished in time.
func (w *Writer) Stop(within time.Duration) bool {
	close(w.quit)
	select {
	case <-w.done:
		return true
	case <-time.After(within):
		return false
	}
}

// Done is closed when the write has ended, successfully or not.
func (g *Saving) Done() <-chan struct{} { return g.done }

// Err returns the result of a write that has ended.
func (g *Saving) Err() error { return g.err }
