package main

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Signals, by which the Go scheduler asks a thread to give way, neither end a guest's
// wait nor make it longer.
func TestWait(t *testing.T) {
	t.Parallel()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[1])
	d := newDescriptor(pipe[0])
	defer d.close()

	thread, quit, done := unix.Gettid(), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for tick := time.NewTicker(time.Millisecond); ; {
			select {
			case <-tick.C:
				unix.Tgkill(unix.Getpid(), thread, unix.SIGURG)
			case <-quit:
				return
			}
		}
	}()
	defer func() { close(quit); <-done }()

	const timeout = 50 * time.Millisecond
	start := time.Now()
	if d.wait(timeout) {
		t.Error("there is nothing, and the wait says there is")
	}
	if took := time.Since(start); took < timeout || took > 20*timeout {
		t.Errorf("waited %v for nothing, want %v", took, timeout)
	}
	if _, err := unix.Write(pipe[1], []byte{1}); err != nil {
		t.Fatal(err)
	}
	if !d.wait(timeout) {
		t.Error("there is something, and the wait does not say so")
	}
}
