package store

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowDisk takes a minute for each state. A state with the writer "bad" cannot be written.
type slowDisk struct {
	mu       sync.Mutex
	written  []string
	reported []error
}

func (d *slowDisk) write(st State) error {
	time.Sleep(time.Minute)
	if st.WrittenBy == "bad" {
		return errors.New("the disk fails")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written = append(d.written, st.WrittenBy)
	return nil
}

func (d *slowDisk) report(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reported = append(d.reported, err)
}

// results returns the states written and the results reported.
func (d *slowDisk) results() ([]string, []error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.written), slices.Clone(d.reported)
}

func writing(t *testing.T, f func(w *Writer, d *slowDisk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		w := NewWriter(d.write, d.report)
		go w.Run()
		f(w, d)
	})
}

func by(name string) State { return State{WrittenBy: name} }

// States that come while one is written are one write, of the newest. Who awaits one of them gets
// its result; the result of a write that nobody awaits is reported.
func TestWriterSkipsOlderStates(t *testing.T) {
	writing(t, func(w *Writer, d *slowDisk) {
		w.Put(by("first"), false)
		synctest.Wait()
		awaited := w.Put(by("second"), true)
		if w.Put(by("bad"), false) != awaited {
			t.Error("a state that waits is not replaced by a newer one")
		}
		<-awaited.Done()
		if written, reported := d.results(); awaited.Err() == nil || !slices.Equal(written, []string{"first"}) || !slices.Equal(reported, []error{nil}) {
			t.Errorf("error %v, written %q, reported %v", awaited.Err(), written, reported)
		}
		w.Put(by("bad"), false)
		stopped := w.Stop(time.Hour)
		if _, reported := d.results(); !stopped || len(reported) != 2 || reported[1] == nil {
			t.Errorf("an error that nobody awaits: stopped %v, reported %v", stopped, reported)
		}
	})
}

func TestWriterPauses(t *testing.T) {
	writing(t, func(w *Writer, d *slowDisk) {
		w.Put(by("a"), false)
		synctest.Wait()
		if w.Pause(time.Second) {
			t.Error("paused while a state is written")
		}
		w.Resume() // undoes nothing
		if !w.Pause(time.Hour) {
			t.Error("not paused after the write")
		}
		w.Put(by("b"), false)
		time.Sleep(time.Hour)
		if written, _ := d.results(); !slices.Equal(written, []string{"a"}) {
			t.Errorf("written %q during a pause", written)
		}
		w.Resume()
		w.Resume() // nothing is left to undo
		if w.Stop(time.Second) {
			t.Error("stopped at once, though the disk takes a minute")
		}
		time.Sleep(time.Hour)
		if written, _ := d.results(); !slices.Equal(written, []string{"a", "b"}) {
			t.Errorf("written %q after the pause", written)
		}
	})
}

// What is put before Stop is written, whichever the Writer hears of first.
func TestWriterWritesTheLastState(t *testing.T) {
	for range 30 {
		writing(t, func(w *Writer, d *slowDisk) {
			w.Put(by("a"), false)
			synctest.Wait()
			w.Put(by("b"), false)
			stopped := w.Stop(time.Hour)
			if written, _ := d.results(); !stopped || !slices.Equal(written, []string{"a", "b"}) {
				t.Errorf("stopped %v, written %q", stopped, written)
			}
		})
	}
}
