package logqueue

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// reader is a log's reader that can stop reading, or go.
type reader struct {
	mu      sync.Mutex
	text    bytes.Buffer
	gone    bool
	stopped chan struct{} // not nil: until it is closed
}

func (r *reader) Write(b []byte) (int, error) {
	r.mu.Lock()
	stopped := r.stopped
	r.mu.Unlock()
	if stopped != nil {
		<-stopped
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return 0, errors.New("broken pipe")
	}
	return r.text.Write(b)
}

func (r *reader) set(gone bool, stopped chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone, r.stopped = gone, stopped
}

func (r *reader) reset() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.text.Reset()
}

// lines returns what was read.
func (r *reader) lines() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Split(strings.TrimSuffix(r.text.String(), "\n"), "\n")
}

func note(w io.Writer, lost uint64) error {
	_, err := fmt.Fprintf(w, "lost %d\n", lost)
	return err
}

func TestNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(reader)
		w := New(r, note)
		var want []string
		for i := range 1000 {
			line := fmt.Sprint("line ", i)
			want = append(want, line)
			b := []byte(line + "\n")
			if n, err := w.Write(b); n != len(b) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
			clear(b) // the caller's buffer is its own again
		}
		w.Close(time.Second)
		if got := strings.Join(r.lines(), "\n"); got != strings.Join(want, "\n") {
			t.Errorf("got %.200q", got)
		}
	})
}

// A reader that stops reading holds up nobody; what it missed is counted where it is
// missing.
func TestReaderStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stopped := new(reader), make(chan struct{})
		r.set(false, stopped)
		w := New(r, note)
		line := []byte(strings.Repeat("x", 1023) + "\n")
		const fits = capacity/1024 + 1 // and one is with the reader
		_, _ = w.Write(line)
		synctest.Wait()
		for range fits - 1 + 7 {
			_, _ = w.Write(line)
		}
		r.set(false, nil)
		close(stopped)
		synctest.Wait()
		_, _ = w.Write([]byte("well again\n"))
		w.Close(time.Second)
		got := r.lines()
		if len(got) != fits+2 || got[fits] != "lost 7" || got[fits+1] != "well again" {
			t.Errorf("%d lines, the last are %.20q", len(got), got[max(0, len(got)-3):])
		}
	})
}

func TestReaderGoes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := new(reader)
		w := New(r, note)
		_, _ = w.Write([]byte("first\n"))
		synctest.Wait()
		r.set(true, nil)
		for range 3 {
			_, _ = w.Write([]byte("unread\n"))
			synctest.Wait()
		}
		r.set(false, nil)
		_, _ = w.Write([]byte("again\n"))
		w.Close(time.Second)
		if got := strings.Join(r.lines(), "|"); got != "first|lost 3|again" {
			t.Errorf("got %q", got)
		}
	})
}

func TestCloseDoesNotWaitForAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, stopped := new(reader), make(chan struct{})
		r.set(false, stopped)
		w := New(r, note)
		_, _ = w.Write([]byte("first\n"))
		began := time.Now()
		w.Close(time.Second)
		if took := time.Since(began); took != time.Second {
			t.Errorf("closed after %v", took)
		}
		_, _ = w.Write([]byte("late\n"))
		close(stopped)
		<-w.done
		if got := strings.Join(r.lines(), "|"); got != "first|lost 1" {
			t.Errorf("got %q", got)
		}
	})
}
