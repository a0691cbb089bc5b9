package unixsock_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/port"
)

// tempDir is as t.TempDir, but short: the path of a socket has 107 bytes at most.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "us")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// streamPeer plays QEMU's -netdev stream. It shares no code with the package.
type streamPeer struct {
	*net.UnixConn
	partial []byte // of a frame that Recv had no time for
}

func dialPeer(t testing.TB, path string) *streamPeer {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &streamPeer{UnixConn: c}
}

func framed(wire []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(wire))), wire...)
}

// Close hangs up. To close alone would not, while a child of another test is between
// fork and exec and has a copy of the descriptor.
func (p *streamPeer) Close() error {
	return errors.Join(p.CloseRead(), p.CloseWrite(), p.UnixConn.Close())
}

func (p *streamPeer) Send(wire []byte, _ port.Offload) error {
	_, err := p.Write(framed(wire))
	return err
}

func (p *streamPeer) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	if err := p.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, port.Offload{}, err
	}
	need := func(n int) error {
		for len(p.partial) < n {
			b := make([]byte, n-len(p.partial))
			got, err := p.Read(b)
			p.partial = append(p.partial, b[:got]...)
			if err != nil {
				return err
			}
		}
		return nil
	}
	if err := need(4); err != nil {
		return nil, port.Offload{}, err
	}
	n := int(binary.BigEndian.Uint32(p.partial))
	if err := need(4 + n); err != nil {
		return nil, port.Offload{}, err
	}
	wire := p.partial[4:]
	p.partial = nil
	return wire, port.Offload{}, nil
}

// patientPeer is a streamPeer whose Send does not wait for the port to receive, however
// little the kernel holds on this machine.
type patientPeer struct {
	*streamPeer
	queue chan []byte
}

func patient(t testing.TB, peer *streamPeer) patientPeer {
	p := patientPeer{peer, make(chan []byte, 4096)}
	var done sync.WaitGroup
	done.Go(func() {
		for b := range p.queue {
			p.Write(b) // a port that is gone makes it an error
		}
	})
	t.Cleanup(func() {
		close(p.queue)
		peer.Close()
		done.Wait()
	})
	return p
}

func (p patientPeer) Send(wire []byte, _ port.Offload) error {
	p.queue <- framed(wire)
	return nil
}

// hungUp expects the port to close the connection.
func (p *streamPeer) hungUp(t testing.TB) {
	t.Helper()
	p.SetReadDeadline(time.Now().Add(patience))
	if n, err := p.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Fatalf("the port does not close the connection: %v", err)
	}
}

// dgramPeer plays QEMU's -netdev dgram, or vfkit where it is connected: a socket that
// blocks, so that another goroutine sends.
type dgramPeer struct {
	fd    int
	to    unix.Sockaddr // nil: connected
	queue chan []byte
	done  sync.WaitGroup
	once  sync.Once
	buf   [1 << 17]byte
}

// newDgramPeer makes a socket at path, unnamed if it is empty, that sends to the socket
// at to.
func newDgramPeer(t testing.TB, path, to string, connected bool) *dgramPeer {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &dgramPeer{fd: fd, queue: make(chan []byte, 4096)}
	if path != "" {
		os.Remove(path)
		if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
			t.Fatal(err)
		}
	}
	if connected {
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: to}); err != nil {
			t.Fatal(err)
		}
	} else {
		p.to = &unix.SockaddrUnix{Name: to}
	}
	p.done.Go(func() {
		for b := range p.queue {
			for {
				err := unix.Sendto(fd, b, unix.MSG_NOSIGNAL, p.to)
				if err != unix.EINTR {
					break // a port that is gone makes it an error
				}
			}
		}
	})
	t.Cleanup(p.Close)
	return p
}

// Close ends the peer as kill -9 would. What it still wants to send must have a port
// that takes it or is closed.
func (p *dgramPeer) Close() {
	p.once.Do(func() {
		close(p.queue)
		p.done.Wait()
		unix.Close(p.fd)
	})
}

func (p *dgramPeer) Send(wire []byte, _ port.Offload) error {
	p.queue <- wire
	return nil
}

func (p *dgramPeer) Recv(timeout time.Duration) ([]byte, port.Offload, error) {
	for deadline := time.Now().Add(timeout); ; {
		wait := unix.NsecToTimeval(max(time.Until(deadline), time.Microsecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(p.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
			return nil, port.Offload{}, err
		}
		n, _, err := unix.Recvfrom(p.fd, p.buf[:], 0)
		switch err {
		case nil:
			return append([]byte(nil), p.buf[:n]...), port.Offload{}, nil
		case unix.EAGAIN:
			return nil, port.Offload{}, os.ErrDeadlineExceeded
		case unix.EINTR:
		default:
			return nil, port.Offload{}, err
		}
	}
}

const patience = 30 * time.Second

// awaitLink waits for a change of the link as the daemon does.
func awaitLink(t testing.TB, p port.Port, up bool) {
	t.Helper()
	l := p.(port.Linked)
	timeout := time.After(patience)
	for l.Link() != up {
		select {
		case <-l.LinkChanged():
		case <-timeout:
			t.Fatalf("the link is not up=%v: %v", up, linkError(p))
		}
	}
}

func linkError(p port.Port) error { return p.(interface{ LinkError() error }).LinkError() }

// open opens a port of the kind, which ends with the test.
func open(t testing.TB, k port.Kind, s port.Spec) port.Port {
	t.Helper()
	if s.Name == "" {
		s.Name = "vm0"
	}
	if err := k.Check(s); err != nil {
		t.Fatal(err)
	}
	var trace port.Trace
	p, err := k.Open(s, &trace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.Close()
		if err := k.Delete(s, trace); err != nil {
			t.Error(err)
		}
	})
	return p
}

// frame makes a frame of size bytes with a number in it.
func frame(number uint32, size int) []byte {
	b := []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x88\xb5")
	b = binary.BigEndian.AppendUint32(b, number)
	for len(b) < size {
		b = append(b, byte(uint32(len(b))*7+number))
	}
	return b
}

func number(wire []byte) uint32 { return binary.BigEndian.Uint32(wire[14:]) }

// send gives frames to the port and returns what became of each.
func send(p port.Port, frames ...[]byte) []port.Drop {
	out := make([]port.Out, len(frames))
	for i, b := range frames {
		f := new(port.Frame)
		f.SetWire(append([]byte(nil), b...))
		out[i] = port.Out{Frame: f, Tag: f.Tag, Drop: port.NumDrops}
	}
	p.Queues()[0].Send(out)
	drops := make([]port.Drop, len(out))
	for i := range out {
		drops[i] = out[i].Drop
	}
	return drops
}

// flood sends by a port from two goroutines until stop.
func flood(p port.Port) (stop func()) {
	var senders sync.WaitGroup
	quit := make(chan struct{})
	for range 2 {
		senders.Go(func() {
			for {
				select {
				case <-quit:
					return
				default:
					send(p, frame(1, 1000), frame(2, 60))
				}
			}
		})
	}
	return func() {
		close(quit)
		senders.Wait()
	}
}

// reader receives from a port as a worker does, and keeps what came.
type reader struct {
	frames chan port.Frame
	ended  chan error
}

func read(t testing.TB, p port.Port) *reader {
	r := &reader{frames: make(chan port.Frame, 1<<14), ended: make(chan error, 1)}
	done := make(chan struct{})
	t.Cleanup(func() {
		p.Close()
		<-done
	})
	go func() {
		defer close(done)
		q := p.Queues()[0]
		batch := make([]port.Frame, port.BatchSize)
		for {
			n, err := q.Recv(batch)
			if err != nil {
				r.ended <- err
				return
			}
			for _, f := range batch[:n] {
				f.Data = append([]byte(nil), f.Data...)
				r.frames <- f
			}
			q.Release()
		}
	}()
	return r
}

func (r *reader) next(t testing.TB) port.Frame {
	t.Helper()
	select {
	case f := <-r.frames:
		return f
	case err := <-r.ended:
		t.Fatalf("Recv: %v", err)
	case <-time.After(patience):
		t.Fatal("no frame came in")
	}
	return port.Frame{}
}

// none expects that nothing is left.
func (r *reader) none(t testing.TB) {
	t.Helper()
	select {
	case f := <-r.frames:
		t.Errorf("another frame of %d bytes came in, %v", len(f.Data), f.Drop)
	default:
	}
}

// passes tries a frame each way.
func passes(t testing.TB, p port.Port, r *reader, peer interface {
	Send([]byte, port.Offload) error
	Recv(time.Duration) ([]byte, port.Offload, error)
}) {
	t.Helper()
	if err := peer.Send(frame(1, 100), port.Offload{}); err != nil {
		t.Fatal(err)
	}
	if f := r.next(t); f.Drop != port.DropNone || number(f.Data) != 1 || len(f.Data) != 100 {
		t.Fatalf("a frame came in as %d bytes, %v", len(f.Data), f.Drop)
	}
	if d := send(p, frame(2, 100)); d[0] != port.DropNone {
		t.Fatalf("a frame is lost: %v: %v", d[0], linkError(p))
	}
	if w, _, err := peer.Recv(patience); err != nil || number(w) != 2 {
		t.Fatalf("no frame arrived: %v", err)
	}
}

func sock(dir string) string { return filepath.Join(dir, "vm0.sock") }
