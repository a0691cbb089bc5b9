package vhost

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// A call that blocks is over after a second look at it, however many calls went before, and the
// ring breaks for it. Calls that do not block may last as long as they like.
func TestCallThatBlocks(t *testing.T) {
	b := newTestBackend(t)
	for before := range uint64(6) {
		broke := make(chan error, 9)
		r := newRing(1, &b.mem, func(err error) { broke <- err })
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC) // its front end made it block
		if err != nil {
			t.Fatal(err)
		}
		r.setCall(fd)
		for range before {
			r.signal()
		}
		endCalls()
		endCalls()
		if len(broke) != 0 {
			t.Fatalf("after %d calls: %v", before, <-broke)
		}
		if _, err := unix.Write(fd, binary.NativeEndian.AppendUint64(nil, 1<<64-2-before)); err != nil {
			t.Fatal(err)
		}
		done := make(chan struct{})
		go func() {
			r.signal()
			close(done)
		}()
		for r.calls.Load()%2 == 0 {
			runtime.Gosched()
		}
		endCalls()
		endCalls()
		<-done
		if err := <-broke; !errors.Is(err, ErrCall) {
			t.Errorf("after %d calls: %v", before, err)
		}
		r.setCall(-1)
		callers.mu.Lock()
		_, seen := callers.seen[r]
		callers.mu.Unlock()
		if seen {
			t.Error("a ring without calls is looked after")
		}
		r.signal()
	}
	if endCalls() {
		t.Error("no ring has a descriptor, and calls are still looked after")
	}
}

// Whoever passes on what a front end has set up hears of it once it has changed.
func TestSetupIsTold(t *testing.T) {
	b := newTestBackend(t)
	changed := func() bool {
		select {
		case <-b.SetupChanged():
			return true
		default:
			return false
		}
	}
	if changed() {
		t.Error("at first")
	}
	b.setup.note(SetFeatures, u64(1), nil)
	b.setup.note(SetFeatures, u64(3), nil)
	if !changed() || changed() {
		t.Error("two changes are none, or more than one")
	}
	b.setup.forgetAll()
	if !changed() {
		t.Error("all is forgotten")
	}
}
