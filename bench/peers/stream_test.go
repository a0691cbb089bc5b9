package main

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What one end of a stream writes comes out of another in whole frames, also where the
// socket takes or has a part of one.
func TestStreamEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	listener, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = unix.Bind(listener, &unix.SockaddrUnix{Name: path})
	}
	if err == nil {
		err = unix.Listen(listener, 1)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(listener)
	a, err := dialStream(path)
	if err != nil {
		t.Skipf("only root may have so large a buffer: %v", err)
	}
	defer a.close()
	fd, _, err := unix.Accept4(listener, unix.SOCK_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	b := newStreamEnd(fd)
	defer b.close()

	if b.wait(time.Millisecond) || b.read() != nil {
		t.Error("there is something before anything was sent")
	}
	sent, received := 0, 0
	take := func() {
		for p := b.read(); p != nil; p = b.read() {
			want := newPacket(1, 2, smallest+received%1450)
			if received++; !bytes.Equal(p[headerLen:], want[headerLen:]) {
				t.Fatalf("frame %d has %d bytes, or others than were sent", received, len(p)-headerLen)
			}
		}
	}
	for range 3 {
		for a.write(newPacket(1, 2, smallest+sent%1450)) {
			sent++
		}
		take()
	}
	for received < sent {
		before := received
		a.flush()
		if take(); received == before {
			t.Fatalf("%d of %d frames came", received, sent)
		}
	}
	if sent < 3000 {
		t.Errorf("the socket was full after %d frames", sent)
	}
}
