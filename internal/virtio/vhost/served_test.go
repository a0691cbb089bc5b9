package vhost

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
)

const patience = 20 * time.Second

// device is a Handler that notes what it is told.
type device struct {
	changed   atomic.Int64
	announced atomic.Pointer[[6]byte]
	mtu       atomic.Int64
}

func (d *device) Changed()             { d.changed.Add(1) }
func (d *device) Announce(mac [6]byte) { d.announced.Store(&mac) }
func (d *device) SetMTU(mtu int)       { d.mtu.Store(int64(mtu)) }

// connection returns the two ends of a connection.
func connection(t *testing.T) (ours, theirs *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]*net.UnixConn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "socket")
		c, err := net.FileConn(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		ends[i] = c.(*net.UnixConn)
		t.Cleanup(func() { c.Close() })
	}
	return ends[0], ends[1]
}

// served is a Backend at one end of a connection.
type served struct {
	*Backend
	device *device
	conn   *net.UnixConn
	ended  chan error // of Serve

	stopped atomic.Bool
	echoes  sync.WaitGroup
}

func newServed(t *testing.T, conn *net.UnixConn) *served {
	t.Helper()
	s := &served{device: new(device), conn: conn, ended: make(chan error, 1)}
	var err error
	s.Backend, err = NewBackend(2, vhosttest.MrgRxBuf, s.device, func(err error) { t.Errorf("a ring broke: %v", err) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.quiet()
		s.Disconnect()
		s.Close()
	})
	return s
}

func (s *served) serve() { go func() { s.ended <- s.Serve(s.conn) }() }

// end returns why Serve ended.
func (s *served) end(t *testing.T) error {
	t.Helper()
	select {
	case err := <-s.ended:
		return err
	case <-time.After(patience):
		t.Fatal("Serve does not end")
		return nil
	}
}

// echo sends back to the guest what it sends, until quiet.
func (s *served) echo() {
	s.stopped.Store(false)
	s.echoes.Go(func() {
		for !s.stopped.Load() {
			for _, f := range s.take() {
				for !s.give(f) && !s.stopped.Load() {
					time.Sleep(time.Millisecond)
				}
			}
			s.Ring(1).Wait()
		}
	})
}

func (s *served) quiet() {
	s.stopped.Store(true)
	s.Ring(1).Wake()
	s.echoes.Wait()
}

// take returns the frames of the ring from the guest: of a chain alone, and of several at once.
func (s *served) take() (frames [][]byte) {
	r := s.Ring(1)
	if !r.Begin() {
		return nil
	}
	defer r.End()
	for {
		singles := r.Singles(false)
		for i := range singles {
			frames = append(frames, bytes.Clone(singles[i].Bytes))
		}
		r.UseSingles(singles)
		c, parts, ok := r.Next(0, false)
		if !ok {
			break
		}
		var f []byte
		for _, p := range parts {
			f = append(f, p.Bytes...)
		}
		frames = append(frames, f)
		r.Use(c, 0)
	}
	r.Flush()
	return frames
}

// give writes a frame to the ring to the guest.
func (s *served) give(f []byte) bool {
	r := s.Ring(0)
	if !r.Begin() {
		return false
	}
	defer r.End()
	c, parts, ok := r.Next(0, true)
	if !ok {
		return false
	}
	n := 0
	for _, p := range parts {
		m := copy(p.Bytes, f[n:])
		r.Wrote(p, m)
		n += m
	}
	r.Use(c, uint32(n))
	r.Flush()
	return true
}

// there and back exchanges frames with an echo, one at a time and some at once.
func thereAndBack(t *testing.T, g *vhosttest.Guest, n int) {
	t.Helper()
	for i := range n {
		burst := 1 + i%4
		for k := range burst {
			if err := g.Send([12]byte{10: 1}, bytes.Repeat([]byte{byte(i + k)}, 60+i)); err != nil {
				t.Fatal(err)
			}
		}
		for k := range burst {
			if _, got, err := g.Recv(patience); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i + k)}, 60+i)) {
				t.Fatalf("frame %d, %d of %d: %d bytes, %v", i, k, burst, len(got), err)
			}
		}
	}
}

// kinds are drivers with rings of all kinds.
var kinds = map[string]vhosttest.Options{
	"split":           {Features: vhosttest.Version1 | vhosttest.MrgRxBuf, Base: 65530},
	"split, events":   {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.EventIdx, Split: 40, Table: true},
	"split, tables":   {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.Indirect, Split: 30, Apart: true},
	"packed":          {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.RingPacked},
	"packed, events":  {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.RingPacked | vhosttest.EventIdx, Split: 40, Inflight: true},
	"packed, tables":  {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.RingPacked | vhosttest.Indirect, Split: 30, Table: true},
	"packed, a piece": {Features: vhosttest.Version1 | vhosttest.MrgRxBuf | vhosttest.RingPacked, Apart: true},
}

// descriptors counts this process's open files.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A back end gives what its front end has set up to another, which goes on with the guest where
// the first one stopped. The front end notices nothing, and no descriptor stays behind.
func TestAnotherGoesOn(t *testing.T) {
	for name, o := range kinds {
		t.Run(name, func(t *testing.T) {
			before, mapped := descriptors(t), addresses.taken.Load()
			t.Cleanup(func() { // after all others
				if now := descriptors(t); now > before {
					t.Errorf("%d descriptors were open, now %d", before, now)
				}
				if now := addresses.taken.Load(); now != mapped {
					t.Errorf("%d bytes were mapped, now %d", mapped, now)
				}
			})
			ours, theirs := connection(t)
			s := newServed(t, ours)
			s.serve()
			o.Size = 64
			g := vhosttest.Start(t, theirs, o)
			for i := range 5 {
				s.echo()
				thereAndBack(t, g, 30)
				s.quiet()
				switch i {
				case 1: // the driver starts anew
					for ring := range 2 {
						base := g.Ask(t, vhosttest.GetVringBase, vhosttest.U32s(uint32(ring), 0))
						if s.Ring(ring).Begin() || uint32(base) != uint32(ring) || base>>32 == 0 {
							t.Fatalf("ring %d stops at %#x", ring, base)
						}
						g.StartRing(t, ring)
					}
				case 2: // with rings that are stopped
					for ring := range 2 {
						g.Ask(t, vhosttest.GetVringBase, vhosttest.U32s(uint32(ring), 0))
					}
				}
				s.PauseServe(ours)
				if err := s.end(t); !errors.Is(err, ErrPaused) {
					t.Fatal(err)
				}
				all, err := s.Setup()
				if err != nil {
					t.Fatal(err)
				}
				next := newServed(t, ours)
				if err := next.Restore(all); err != nil {
					t.Fatal(err)
				}
				for ring := range 2 {
					was, is := s.Ring(ring), next.Ring(ring)
					if is.base != was.base && was.q == nil || (is.q == nil) != (was.q == nil) || is.q != nil && is.q.base() != was.q.base() || is.enabled != was.enabled || is.num != 64 {
						t.Fatalf("ring %d, from %+v to %+v", ring, was, is)
					}
				}
				if i != 3 { // the former one may go at once or later
					s.Disconnect()
				}
				s = next
				s.ResumeServe(ours)
				s.serve()
				if got := g.Ask(t, vhosttest.GetStatus, nil); got != 0xf {
					t.Errorf("the guest's status is %#x", got)
				}
				if i == 2 {
					for ring := range 2 {
						g.StartRing(t, ring)
					}
				}
				s.Ring(0).Wake() // of the switch, about what it has to send
			}
			s.echo()
			thereAndBack(t, g, 5)
			g.Close()
			if err := s.end(t); !errors.Is(err, io.EOF) {
				t.Errorf("the guest ended the conversation: %v", err)
			}
			ours.Close()
			s.quiet()
		})
	}
}

// unread waits until the back end has read all that was sent.
func unread(t *testing.T, conn *net.UnixConn) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for limit := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		n := 0
		if err := raw.Control(func(fd uintptr) { n, err = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatal("nobody reads")
		}
	}
}

// Messages come in any pieces. A pause takes effect between messages, an end within one is an
// error.
func TestMessagesInPieces(t *testing.T) {
	whole := append(vhosttest.U32s(vhosttest.GetVringBase, 1, 8), vhosttest.U32s(1, 0)...)
	for cut := range len(whole) {
		t.Run(fmt.Sprint(cut), func(t *testing.T) {
			ours, theirs := connection(t)
			s := newServed(t, ours)
			g := vhosttest.New(t, theirs, vhosttest.Options{Size: 16})
			send := func(b []byte) {
				t.Helper()
				if _, err := theirs.Write(b); err != nil {
					t.Fatal(err)
				}
			}
			answered := func() {
				t.Helper()
				if request, _, err := g.Read(); request != vhosttest.GetVringBase || err != nil {
					t.Fatalf("answers %d, %v", request, err)
				}
			}
			s.serve()
			send(whole[:cut])
			unread(t, ours)
			s.PauseServe(ours)
			if cut == 0 {
				if err := s.end(t); !errors.Is(err, ErrPaused) {
					t.Fatalf("paused: %v", err)
				}
				s.ResumeServe(ours)
				s.serve()
			}
			send(whole[cut:])
			answered()
			if cut > 0 {
				if err := s.end(t); !errors.Is(err, ErrPaused) {
					t.Fatalf("paused in a message: %v", err)
				}
				if err := s.Serve(ours); !errors.Is(err, ErrPaused) {
					t.Fatalf("while it is paused: %v", err)
				}
				s.ResumeServe(ours)
				s.serve()
			}
			send(whole)
			answered()
			send(whole[:cut])
			unread(t, ours)
			theirs.Close()
			want := io.EOF
			if cut > 0 {
				want = io.ErrUnexpectedEOF
			}
			if err := s.end(t); err != want {
				t.Errorf("an end: %v, want %v", err, want)
			}
		})
	}
}

// A message brings at most eight descriptors. Whatever comes, those that nobody takes are closed.
func TestDescriptorsOfMessages(t *testing.T) {
	table := func(n int) []byte {
		b := vhosttest.U32s(uint32(n), 0)
		for i := range n {
			for _, v := range []uint64{uint64(i) << 20, 4096, uint64(i) << 20, 0} {
				b = append(b, vhosttest.U64(v)...)
			}
		}
		return b
	}
	for _, c := range []struct {
		name         string
		request      uint32
		payload      []byte
		fds          int
		ok, inPieces bool
	}{
		{"a table of eight", vhosttest.SetMemTable, table(8), 8, true, false},
		{"a table of eight in pieces", vhosttest.SetMemTable, table(8), 8, true, true},
		{"a table of nine", vhosttest.SetMemTable, table(9), 9, false, false},
		{"nine for eight", vhosttest.SetMemTable, table(8), 9, false, false},
		{"seven for eight", vhosttest.SetMemTable, table(8), 7, false, true},
		{"many", vhosttest.SetMemTable, table(8), 100, false, false},
		{"many in pieces", vhosttest.SetMemTable, table(8), 16, false, true},
		{"some that nobody needs", vhosttest.GetFeatures, nil, 8, true, false},
		{"some with what nobody knows", 99, nil, 8, true, false},
		{"what is no eventfd", vhosttest.SetVringCall, vhosttest.U64(0), 1, false, false},
		{"what is no socket", vhosttest.SetBackendReqFD, nil, 1, false, false},
		{"what is no eventfd to wait on", vhosttest.SetVringKick, vhosttest.U64(0), 1, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := connection(t)
			s := newServed(t, ours)
			before := descriptors(t)
			s.serve()
			var fds []int
			for range c.fds {
				fds = append(fds, memfd(t, 4096, 0))
			}
			b := append(vhosttest.U32s(c.request, 1, uint32(len(c.payload))), c.payload...)
			for pieces := 2; len(b) > 0; pieces-- {
				n := len(b)
				some := fds
				if c.inPieces && pieces == 2 {
					n, some = HeaderSize, fds[:len(fds)/2]
				}
				_, _, err := theirs.WriteMsgUnix(b[:n], unix.UnixRights(some...), nil)
				if err != nil {
					t.Fatal(err)
				}
				b, fds = b[n:], fds[len(some):]
				closeAll(some)
			}
			_ = theirs.CloseWrite()
			if err := s.end(t); errors.Is(err, io.EOF) != c.ok {
				t.Errorf("it ends with %v", err)
			}
			if mapped := len(s.mem.regions) == 8; mapped != (c.ok && c.request == vhosttest.SetMemTable) {
				t.Errorf("%d regions are mapped", len(s.mem.regions))
			}
			s.Disconnect()
			if now := descriptors(t); now != before {
				t.Errorf("%d descriptors were open, now %d", before, now)
			}
		})
	}
}
