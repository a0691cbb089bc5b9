package store

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// slowDisk takes a minute for each state. A state with the writer "bad" cannot be written.
type slowDisk struct {
	written  []string
	reported []error
}

func (d *slowDisk) write(st State) error {
	time.Sleep(time.Minute)
	if st.WrittenBy == "bad" {
		return errors.New("the disk fails")
	}
	d.written = append(d.written, st.WrittenBy)
	return nil
}

func writing(t *testing.T, f func(w *Writer, d *slowDisk)) {
	synctest.Test(t, func(t *testing.T) {
		d := &slowDisk{}
		w := NewWriter(d.write, func(err error) { d.reported = append(d.reported, err) })
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
		if awaited.Err() == nil || !slices.Equal(d.written, []string{"first"}) || !slices.Equal(d.reported, []error{nil}) {
			t.Errorf("error %v, written %q, reported %v", awaited.Err(), d.written, d.reported)
		}
		w.Put(by("bad"), false)
		if !w.Stop(time.Hour) || len(d.reported) != 2 || d.reported[1] == nil {
			t.Errorf("an error that nobody awaits: reported %v", d.reported)
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
		if !slices.Equal(d.written, []string{"a"}) {
			t.Errorf("written %q during a pause", d.written)
		}
		w.Resume()
		if w.Stop(time.Second) {
			t.Error("stopped at once, though the disk takes a minute")
		}
		time.Sleep(time.Hour)
		if !slices.Equal(d.written, []string{"a", "b"}) {
			t.Errorf("written %q after the pause", d.written)
		}
	})
}
