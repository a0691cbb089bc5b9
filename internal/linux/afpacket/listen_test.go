package afpacket

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// A Listener gets the untagged frames of its EtherType and no others, whoever else gets them; so does the
// one that another process makes of its socket.
func TestListen(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", 0)
		l, err := Listen(p.ifindex, 0x88b5)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		typed := func(number uint32, head ...byte) []byte {
			b := tuntest.Ethernet(number, 60)
			return append(append(b[:12:12], head...), b[14:]...)
		}
		tagged, other, right := typed(1, 0x81, 0, 0, 5, 0x88, 0xb5), typed(2, 0x88, 0xb6), typed(3, 0x88, 0xb5)
		want := func(what string, l *Listener) {
			t.Helper()
			b := make([]byte, 2000)
			if n, err := l.Recv(b); err != nil || !bytes.Equal(b[:n], right) {
				t.Errorf("%s: % x, %v", what, b[:n], err)
			}
		}
		send := func(all ...[]byte) {
			t.Helper()
			for _, wire := range all {
				if err := g.Send(wire, port.Offload{}); err != nil {
					t.Fatal(err)
				}
			}
		}
		defer time.AfterFunc(patience, func() { l.Close() }).Stop()
		send(tagged, other, right)
		want("at first", l)

		// While it is interrupted frames wait.
		l.Interrupt(true)
		if n, err := l.Recv(make([]byte, 2000)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("interrupted, it got %d bytes, %v", n, err)
		}
		send(other, right)
		l.Interrupt(false)
		want("after an interruption", l)

		fd, err := l.Dup()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := TakeListener(p.ifindex+1, fd); err == nil {
			t.Error("a socket is taken that is at another interface")
		}
		pipe, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(pipe)
		if _, err := TakeListener(p.ifindex, pipe); err == nil {
			t.Error("what is no socket is taken")
		}
		next, err := TakeListener(p.ifindex, fd)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Close(fd); err != nil { // it is the caller's
			t.Error(err)
		}
		defer time.AfterFunc(patience, func() { next.Close() }).Stop()
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := l.Dup(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after its end: %v", err)
		}
		send(tagged, right)
		want("in the next process", next)
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
}
