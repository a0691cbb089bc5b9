package unixsock_test

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/porttest"
	"github.com/vswitch/vswitch/port/unixsock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve opens a stream port and connects to it.
func serve(t *testing.T) (port.Port, *streamPeer) {
	t.Helper()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	peer := dialPeer(t, sock(dir))
	awaitLink(t, p, true)
	return p, peer
}

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func accept(t *testing.T, l *net.UnixListener) *streamPeer {
	t.Helper()
	l.SetDeadline(time.Now().Add(patience))
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &streamPeer{UnixConn: c}
}

func TestStreamServer(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		p, peer := serve(t)
		return porttest.Fixture{Port: p, Peer: patient(t, peer), MaxLen: port.MaxFrame - 4}
	})
}

func TestStreamClient(t *testing.T) {
	porttest.Run(t, func(t *testing.T) porttest.Fixture {
		path := sock(tempDir(t))
		l := listen(t, path)
		p := open(t, unixsock.Stream{}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: path, Client: true}}})
		peer := accept(t, l)
		awaitLink(t, p, true)
		return porttest.Fixture{Port: p, Peer: patient(t, peer), MaxLen: port.MaxFrame - 4}
	})
}

// However the bytes of a stream come, the frames are the same.
func TestStreamInPieces(t *testing.T) {
	t.Parallel()
	p, peer := serve(t)
	r := read(t, p)
	var stream []byte
	sizes := []int{18, 19, 60, 64}
	for i, size := range sizes {
		stream = append(stream, framed(frame(uint32(i), size))...)
	}
	conn, err := peer.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for cut := 1; cut < len(stream); cut++ {
		for _, part := range [][]byte{stream[:cut], stream[cut:]} {
			if _, err := peer.Write(part); err != nil {
				t.Fatal(err)
			}
			testenv.Eventually(t, "the port has read what was written", func() bool {
				unread := 0
				conn.Control(func(fd uintptr) { unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
				return err == nil && unread == 0
			})
		}
		for i, size := range sizes {
			if f := r.next(t); f.Drop != port.DropNone || len(f.Data) != size || number(f.Data) != uint32(i) {
				t.Fatalf("cut at %d: frame %d came in as %d bytes, %v", cut, i, len(f.Data), f.Drop)
			}
		}
		r.none(t)
	}
}

// A length that no frame has ends the connection, for a reason, and no other.
func TestStreamHostileLength(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sent string
		want port.Drop
	}{
		"zero":           {"\x00\x00\x00\x00", port.DropRunt},
		"runt":           {"\x00\x00\x00\x0d", port.DropRunt},
		"oversize":       {"\x00\x01\x00\x16", port.DropOversize},
		"little endian":  {"\x40\x00\x00\x00", port.DropOversize},
		"all ones":       {"\xff\xff\xff\xff", port.DropOversize},
		"negative":       {"\x80\x00\x00\x00", port.DropOversize},
		"another speech": {"GET / HTTP/1.1\r\n", port.DropOversize},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
			r := read(t, p)
			peer := dialPeer(t, sock(dir))
			// What came before it is good; what comes after it is not looked at.
			sent := append(framed(frame(7, 60)), c.sent...)
			if _, err := peer.Write(append(sent, framed(frame(8, 60))...)); err != nil {
				t.Fatal(err)
			}
			if f := r.next(t); f.Drop != port.DropNone || number(f.Data) != 7 {
				t.Fatalf("the frame before came in as %d bytes, %v", len(f.Data), f.Drop)
			}
			if f := r.next(t); f.Drop != c.want {
				t.Fatalf("dropped as %v, want %v", f.Drop, c.want)
			}
			peer.hungUp(t)
			awaitLink(t, p, false)
			if err := linkError(p); err == nil || !strings.Contains(err.Error(), "announced a frame") {
				t.Errorf("the link is down because: %v", err)
			}
			again := dialPeer(t, sock(dir))
			awaitLink(t, p, true)
			passes(t, p, r, again)
			if err := linkError(p); err != nil {
				t.Errorf("the link is up, and down because: %v", err)
			}
			r.none(t)
		})
	}
}

// A frame too short for its own tag is dropped alone: the stream is in order.
func TestStreamTaggedRunt(t *testing.T) {
	t.Parallel()
	p, peer := serve(t)
	r := read(t, p)
	if err := peer.Send([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x81\x00\x00\x64"), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if f := r.next(t); f.Drop != port.DropRunt {
		t.Fatalf("dropped as %v", f.Drop)
	}
	passes(t, p, r, peer)
}

func TestStreamServerReconnect(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	if d := send(p, frame(1, 60)); d[0] != port.DropNoCarrier {
		t.Errorf("to nobody: %v", d[0])
	}
	r := read(t, p)
	for range 20 {
		peer := dialPeer(t, sock(dir)) // the one before may not be gone yet
		passes(t, p, r, peer)
		// The last words of a peer are heard.
		for i := range uint32(3) {
			if err := peer.Send(frame(i, 60), port.Offload{}); err != nil {
				t.Fatal(err)
			}
		}
		peer.Close()
		for i := range uint32(3) {
			if f := r.next(t); number(f.Data) != i {
				t.Fatalf("frame %d came where %d was due", number(f.Data), i)
			}
		}
	}
	awaitLink(t, p, false)
	if d := send(p, frame(1, 60)); d[0] != port.DropNoCarrier {
		t.Errorf("to nobody: %v", d[0])
	}
	if err := linkError(p); err == nil || !strings.Contains(err.Error(), "hung up") {
		t.Errorf("the link is down because: %v", err)
	}
}

// Half a frame of one peer is no part of the next one's.
func TestStreamForgetsHalfAFrame(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	r := read(t, p)
	for range 5 {
		peer := dialPeer(t, sock(dir))
		passes(t, p, r, peer)
		if _, err := peer.Write(framed(frame(9, 1000))[:500]); err != nil {
			t.Fatal(err)
		}
		peer.Close()
	}
}

// A second peer is turned away; the first does not notice.
func TestStreamOnePeer(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	r := read(t, p)
	first := dialPeer(t, sock(dir))
	passes(t, p, r, first)
	for range 3 {
		dialPeer(t, sock(dir)).hungUp(t)
	}
	passes(t, p, r, first)
}

func TestStreamClientReconnect(t *testing.T) {
	t.Parallel()
	path := sock(tempDir(t))
	p := open(t, unixsock.Stream{}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: path, Client: true}}})
	r := read(t, p)
	testenv.Eventually(t, "the port says that there is nobody", func() bool {
		err := linkError(p)
		return err != nil && strings.Contains(err.Error(), "nobody listens at "+path)
	})
	for range 2 {
		l := listen(t, path)
		peer := accept(t, l)
		awaitLink(t, p, true)
		passes(t, p, r, peer)
		peer.Close()
		l.Close()
		awaitLink(t, p, false)
	}
}

func TestStreamStalledPeer(t *testing.T) {
	t.Parallel()
	stalls(t, func() (port.Port, porttest.Peer) { return serve(t) })
}

// stalls checks that a peer that takes nothing costs itself its frames, which are
// counted, and nobody else anything. What was taken for it is there when it reads again.
func stalls(t *testing.T, pair func() (port.Port, porttest.Peer)) {
	t.Helper()
	stalled, slow := pair()
	other, quick := pair()
	r := read(t, other)
	// Of many lengths, so that the kernel stops anywhere in a frame of a stream.
	numbered := func(n uint32) []byte { return frame(n, 60+int(n)*37%1400) }
	var took []uint32
	dropped := 0
	for n := uint32(0); dropped < 500; n += 10 {
		var vector [][]byte
		for i := range uint32(10) {
			vector = append(vector, numbered(n+i))
		}
		for i, d := range send(stalled, vector...) {
			switch d {
			case port.DropNone:
				took = append(took, n+uint32(i))
			case port.DropQueueFull:
				dropped++
			default:
				t.Fatalf("dropped as %v", d)
			}
		}
		if n%1000 == 0 {
			passes(t, other, r, quick)
		}
	}
	for _, n := range took {
		w, _, err := slow.Recv(patience)
		if err != nil {
			t.Fatalf("frame %d: %v", n, err)
		}
		if !bytes.Equal(w, numbered(n)) {
			t.Fatalf("frame %d arrived where %d was due, or changed", number(w), n)
		}
	}
	if w, _, err := slow.Recv(50 * time.Millisecond); err == nil {
		t.Errorf("frame %d arrived beyond the %d that were taken", number(w), len(took))
	}
	if d := send(stalled, frame(1, 60)); d[0] != port.DropNone {
		t.Errorf("after all was read: %v", d[0])
	}
}

// What is left for a peer that went is not for the next.
func TestStreamForgetsBacklog(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	r := read(t, p)
	peer := dialPeer(t, sock(dir))
	awaitLink(t, p, true)
	for d := port.DropNone; d == port.DropNone; d = send(p, frame(1, 1514))[0] {
	}
	peer.Close()
	awaitLink(t, p, false)
	again := dialPeer(t, sock(dir))
	awaitLink(t, p, true)
	passes(t, p, r, again)
}

// A peer that reads no more while it still writes is given up.
func TestStreamHalfClosed(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
	r := read(t, p)
	peer := dialPeer(t, sock(dir))
	awaitLink(t, p, true)
	if err := peer.CloseRead(); err != nil {
		t.Fatal(err)
	}
	if d := send(p, frame(1, 60)); d[0] != port.DropNoCarrier {
		t.Errorf("to a peer that reads no more: %v", d[0])
	}
	awaitLink(t, p, false)
	again := dialPeer(t, sock(dir))
	awaitLink(t, p, true)
	passes(t, p, r, again)
}

// What a socket never carries is refused, alone and with its reason.
func TestStreamRefuses(t *testing.T) {
	t.Parallel()
	p, peer := serve(t)
	refuses(t, p, peer)
}

func refuses(t *testing.T, p port.Port, peer porttest.Peer) {
	t.Helper()
	whole := func(n int) *port.Frame {
		f := new(port.Frame)
		f.SetStripped(frame(uint32(n), n), 0)
		return f
	}
	cut, long, partial := whole(60), whole(port.MaxFrame-3), whole(60)
	cut.Data = cut.Data[:13]
	partial.Offload = port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 6}
	tag := port.MakeTag(port.TPIDCustomer, 5)
	out := []port.Out{
		{Frame: whole(61)}, {Frame: cut}, {Frame: long, Tag: tag}, {Frame: partial}, {Frame: whole(62)},
	}
	p.Queues()[0].Send(out)
	for i, want := range []port.Drop{port.DropNone, port.DropRunt, port.DropTooBig, port.DropBadOffload, port.DropNone} {
		if out[i].Drop != want {
			t.Errorf("frame %d: %v, want %v", i, out[i].Drop, want)
		}
	}
	for _, n := range []uint32{61, 62} {
		if w, _, err := peer.Recv(patience); err != nil || number(w) != n {
			t.Errorf("frame %d did not arrive: %v", n, err)
		}
	}
}

// Peers come and go, frames flow, the port closes: in any order, at any time.
func TestStreamClosesAnyTime(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir := tempDir(t)
		p := open(t, unixsock.Stream{Dir: dir}, port.Spec{})
		r := read(t, p)
		stop := flood(p)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for range 20 {
					c, err := net.Dial("unix", sock(dir))
					if err != nil {
						return // closed
					}
					c.Write(framed(frame(3, 60)))
					c.Close()
				}
			})
		}
		r.next(t) // a peer came
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		if d := send(p, frame(1, 60)); d[0] != port.DropPortClosed {
			t.Errorf("after Close: %v", d[0])
		}
		stop()
		wg.Wait()
	}
}

// A client whose peer never comes can be closed at once.
func TestStreamClientClose(t *testing.T) {
	t.Parallel()
	p := open(t, unixsock.Stream{}, port.Spec{Settings: unixsock.Settings{Socket: port.Socket{Path: sock(tempDir(t)), Client: true}}})
	r := read(t, p)
	start := time.Now()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > patience {
		t.Errorf("Close took %v", took)
	}
	if err := <-r.ended; !errors.Is(err, port.ErrClosed) {
		t.Errorf("Recv: %v", err)
	}
}
