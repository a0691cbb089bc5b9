package unixsock_test

import (
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/unixsock"
)

// station opens a dgram port and a peer that has said hello.
func station(t *testing.T, connected bool) (port.Port, *dgramPeer) {
	t.Helper()
	dir := tempDir(t)
	p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
	peer := newDgramPeer(t, filepath.Join(dir, "peer"), sock(dir), connected)
	t.Cleanup(func() { p.Close() }) // before the peer, which may wait for it
	greet(t, p, peer)
	return p, peer
}

// greet has the port learn the peer's address.
func greet(t *testing.T, p port.Port, peer *dgramPeer) {
	t.Helper()
	if err := peer.Send([]byte("VFKT"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if err := peer.Send(frame(99, 60), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	var frames [1]port.Frame
	n, err := p.Queues()[0].Recv(frames[:])
	if err != nil || n != 1 || number(frames[0].Data) != 99 {
		t.Fatalf("%d frames, %v", n, err)
	}
	p.Queues()[0].Release()
	awaitLink(t, p, true)
}

// TestDgram has a peer as QEMU is: it names the port's socket with each frame. The
// kernel then holds few frames for it (net.unix.max_dgram_qlen).
func TestDgram(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		p, peer := station(t, false)
		return porttest.Fixture{Port: p, Peer: peer, MaxLen: port.MaxFrame - 4}
	})
}

// TestDgramConnected has a peer as vfkit and libkrun are: connected to the port.
func TestDgramConnected(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		p, peer := station(t, true)
		return porttest.Fixture{Port: p, Peer: peer, MaxLen: port.MaxFrame - 4}
	})
}

// TestDgramClient has a peer that waits to be spoken to.
func TestDgramClient(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		path := sock(tempDir(t))
		peer := newDgramPeer(t, path, path+".sw", false)
		p := open(t, unixsock.Dgram{}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: path, Client: true}}})
		if d := send(p, frame(1, 60)); d[0] != port.DropNone {
			t.Fatalf("the first frame is lost: %v", d[0])
		}
		if _, _, err := peer.Recv(patience); err != nil {
			t.Fatal(err)
		}
		awaitLink(t, p, true)
		return porttest.Fixture{Port: p, Peer: peer, MaxLen: port.MaxFrame - 4}
	})
}

// A peer that never spoke is found beside the port's socket, also by a port that was
// not there when it came.
func TestDgramSilentPeer(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	k := unixsock.Dgram{Dir: dir}
	var peer *dgramPeer
	for range 3 {
		p, err := k.Open(port.Spec{Name: "vm0"}, new(port.Trace))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if peer == nil {
			if d := send(p, frame(1, 60)); d[0] != port.DropNoCarrier {
				t.Errorf("to nobody: %v", d[0])
			}
			peer = newDgramPeer(t, sock(dir)+unixsock.PeerSuffix, sock(dir), false)
		}
		if d := send(p, frame(2, 60)); d[0] != port.DropNone {
			t.Fatalf("to a peer that never spoke: %v", d[0])
		}
		if w, _, err := peer.Recv(patience); err != nil || number(w) != 2 {
			t.Fatal(err)
		}
		awaitLink(t, p, true)
		p.Close()
	}
}

func TestDgramRefuses(t *testing.T) {
	t.Parallel()
	p, peer := station(t, false)
	refuses(t, p, peer)
}

// A datagram that is no frame is dropped for its reason; the hello is no frame.
func TestDgramHostile(t *testing.T) {
	t.Parallel()
	p, peer := station(t, false)
	r := read(t, p)
	for _, c := range []struct {
		sent []byte
		want port.Drop
	}{
		{nil, port.DropRunt},
		{[]byte("VFK"), port.DropRunt},
		{[]byte("VFKT\n"), port.DropRunt},
		{make([]byte, 13), port.DropRunt},
		{[]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x81\x00\x00\x64"), port.DropRunt},
		{frame(5, port.MaxFrame), port.DropNone},
		{frame(5, port.MaxFrame+1), port.DropOversize},
		{frame(5, 100_000), port.DropOversize},
	} {
		for _, b := range [][]byte{[]byte("VFKT"), c.sent} {
			if err := peer.Send(b, port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		if f := r.next(t); f.Drop != c.want {
			t.Errorf("%d bytes: %v, want %v", len(c.sent), f.Drop, c.want)
		}
	}
	passes(t, p, r, peer)
	r.none(t)
}

// A peer is followed to wherever it starts anew, and what it left unread is forgotten.
func TestDgramPeerRestarts(t *testing.T) {
	t.Parallel()
	for name, paths := range map[string][]string{
		"at the same path":  {"a", "a", "a", "a"},
		"at another path":   {"a", "b", "c", "d"},
		"after it was full": {"a full", "a full", "b full", "b"},
	} {
		for _, connected := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				dir := tempDir(t)
				p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
				if d := send(p, frame(1, 60)); d[0] != port.DropNoCarrier {
					t.Errorf("to nobody: %v", d[0])
				}
				r := read(t, p)
				for _, path := range paths {
					path, full := strings.CutSuffix(path, " full")
					peer := newDgramPeer(t, filepath.Join(dir, path), sock(dir), connected)
					passes(t, p, r, peer)
					for full && send(p, frame(3, 1514))[0] == port.DropNone {
					}
					peer.Close()
					testenv.Eventually(t, "frames to a peer that is gone are lost for that", func() bool {
						return send(p, frame(4, 60))[0] == port.DropNoCarrier
					})
					awaitLink(t, p, false)
					if err := linkError(p); err == nil || !strings.Contains(err.Error(), "nobody listens at") {
						t.Errorf("the link is down because: %v", err)
					}
				}
			})
		}
	}
}

// A second machine is refused while the first is alive, however far behind that one is: its
// frames are counted, and the port says who it is. It has the port once the first is gone.
func TestDgramSecondPeer(t *testing.T) {
	t.Parallel()
	for _, connected := range []bool{false, true} {
		dir := tempDir(t)
		p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
		r := read(t, p)
		notice := func() string { return p.(port.Noticer).Notice() }
		first := newDgramPeer(t, filepath.Join(dir, "a"), sock(dir), connected)
		t.Cleanup(func() { p.Close() }) // before the peers, which may wait for it
		passes(t, p, r, first)
		<-p.(port.Linked).LinkChanged()
		for _, path := range []string{"b", "c", "d\n"} {
			second := newDgramPeer(t, filepath.Join(dir, path), sock(dir), false)
			for n := range uint32(3) {
				if err := second.Send(frame(n, 60), port.Offload{}); err != nil {
					t.Fatal(err)
				}
				if f := r.next(t); f.Drop != port.DropSecondPeer || number(f.Data) != n {
					t.Fatalf("a second machine's frame comes in: %v", f.Drop)
				}
				passes(t, p, r, first)
			}
			if n := notice(); !strings.Contains(n, filepath.Join(dir, path[:1])) || strings.Contains(n, "\n") {
				t.Errorf("the port says %q of %q", n, path)
			}
			if _, _, err := second.Recv(time.Millisecond); err == nil {
				t.Fatal("a second machine has a frame")
			}
			// Also while the first takes nothing.
			took := 0
			for send(p, frame(3, 1514))[0] == port.DropNone {
				took++
			}
			if err := second.Send(frame(9, 60), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			if f := r.next(t); f.Drop != port.DropSecondPeer {
				t.Fatalf("a second machine's frame comes in: %v", f.Drop)
			}
			for range took {
				if w, _, err := first.Recv(patience); err != nil || number(w) != 3 {
					t.Fatalf("what waits for the first does not come: %v", err)
				}
			}
		}
		select {
		case <-p.(port.Linked).LinkChanged(): // worth one line of the log
		default:
			t.Error("nobody is told")
		}
		select {
		case <-p.(port.Linked).LinkChanged():
			t.Error("it is told again at once")
		default:
		}
		second := newDgramPeer(t, filepath.Join(dir, "e"), sock(dir), false)
		if err := second.Send(frame(5, 60), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		if f := r.next(t); f.Drop != port.DropSecondPeer {
			t.Fatalf("a second machine's frame comes in: %v", f.Drop)
		}
		first.Close()
		testenv.Eventually(t, "the second has the port", func() bool {
			if err := second.Send(frame(5, 60), port.Offload{}); err != nil {
				t.Fatal(err)
			}
			return r.next(t).Drop == port.DropNone
		})
		passes(t, p, r, second)
		if n := notice(); n != "" {
			t.Errorf("it has the port, and the notice stays: %s", n)
		}
		// And no third right behind it.
		third := newDgramPeer(t, filepath.Join(dir, "f"), sock(dir), false)
		if err := third.Send(frame(6, 60), port.Offload{}); err != nil {
			t.Fatal(err)
		}
		if f := r.next(t); f.Drop != port.DropSecondPeer {
			t.Fatalf("a third machine's frame comes in: %v", f.Drop)
		}
		passes(t, p, r, second)
	}
}

// Who has no address cannot be answered, but heard.
func TestDgramUnnamed(t *testing.T) {
	t.Parallel()
	p, peer := station(t, false)
	r := read(t, p)
	unnamed := newDgramPeer(t, "", peer.to.(*unix.SockaddrUnix).Name, false)
	if err := unnamed.Send(frame(8, 60), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if f := r.next(t); number(f.Data) != 8 {
		t.Errorf("frame %d came in", number(f.Data))
	}
	passes(t, p, r, peer)
}

// A path may fill its field to the last byte, without a NUL.
func TestDgramLongestPath(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
	r := read(t, p)
	peer := newDgramPeer(t, "", sock(dir), false)
	raw := unix.RawSockaddrUnix{Family: unix.AF_UNIX}
	path := dir + "/" + strings.Repeat("x", len(raw.Path)-len(dir)-1)
	for i := range raw.Path {
		raw.Path[i] = int8(path[i])
	}
	if _, _, errno := unix.Syscall(unix.SYS_BIND, uintptr(peer.fd), uintptr(unsafe.Pointer(&raw)), unsafe.Sizeof(raw)); errno != 0 {
		t.Fatal(errno)
	}
	passes(t, p, r, peer)
	for send(p, frame(3, 1514))[0] == port.DropNone {
	}
	for range 50 {
		if _, _, err := peer.Recv(patience); err != nil {
			t.Fatal(err)
		}
	}
	peer.Close()
	testenv.Eventually(t, "the peer is gone", func() bool { return send(p, frame(4, 60))[0] == port.DropNoCarrier })
	if err := linkError(p); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the link is down because: %v", err)
	}
}

// A peer outside of the file system is answered as well.
func TestDgramAbstract(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
	r := read(t, p)
	peer := newDgramPeer(t, "@vswitch-test"+dir, sock(dir), false)
	passes(t, p, r, peer)
	for send(p, frame(3, 1514))[0] == port.DropNone {
	}
	// The backlog, too, finds the way.
	for range 50 {
		if _, _, err := peer.Recv(patience); err != nil {
			t.Fatal(err)
		}
	}
}

func TestDgramStalledPeer(t *testing.T) {
	t.Parallel()
	for name, connected := range map[string]bool{"unconnected": false, "connected": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			stalls(t, func() (port.Port, porttest.Peer) { return station(t, connected) })
		})
	}
}

// Peers come and go, frames flow, the port closes: in any order, at any time.
func TestDgramClosesAnyTime(t *testing.T) {
	t.Parallel()
	for range 8 {
		dir := tempDir(t)
		p := open(t, unixsock.Dgram{Dir: dir}, port.Spec{})
		r := read(t, p)
		first := newDgramPeer(t, filepath.Join(dir, "a"), sock(dir), false)
		passes(t, p, r, first)
		stop := flood(p)
		var wg sync.WaitGroup
		var others []*dgramPeer
		for i := range 4 {
			others = append(others, newDgramPeer(t, filepath.Join(dir, string(rune('b'+i))), sock(dir), i%2 == 0))
		}
		t.Cleanup(func() { p.Close() }) // before the peers, which may wait for it
		wg.Go(func() {
			for i := range 40 {
				others[i%4].Send(frame(3, 60), port.Offload{})
				if i%10 == 0 {
					others[i%4].Recv(time.Millisecond) // there may be nothing
				}
			}
		})
		testenv.Eventually(t, "another peer came", func() bool { return len(r.frames) > 0 })
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if d := send(p, frame(1, 60)); d[0] != port.DropPortClosed {
			t.Errorf("after Close: %v", d[0])
		}
		if err := <-r.ended; !errors.Is(err, port.ErrClosed) {
			t.Errorf("Recv: %v", err)
		}
		stop()
		wg.Wait()
	}
}
