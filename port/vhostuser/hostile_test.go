package vhostuser_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vhostuser"
)

// wire is a frame of n bytes.
func wire(n int) []byte {
	b := append([]byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5}, make([]byte, n)...)
	return b[:n]
}

// reader takes from a port all the time, as a worker does, and keeps the last frame.
func reader(t testing.TB, p *vhostuser.Port) (frames <-chan port.Frame) {
	t.Helper()
	c := make(chan port.Frame, 1024)
	done := make(chan struct{})
	go func() {
		defer close(done)
		q := p.Queues()[0]
		var batch [port.BatchSize]port.Frame
		for {
			n, err := q.Recv(batch[:])
			if err != nil {
				return
			}
			for _, f := range batch[:n] {
				f.Data = bytes.Clone(f.Data)
				select {
				case c <- f:
				default:
				}
			}
			q.Release()
		}
	}()
	t.Cleanup(func() { p.Close(); <-done })
	return c
}

func frame(t testing.TB, frames <-chan port.Frame) port.Frame {
	t.Helper()
	select {
	case f := <-frames:
		return f
	case <-time.After(patience):
		t.Fatal("no frame comes")
		return port.Frame{}
	}
}

// send gives a frame to the port as a worker does.
func send(p *vhostuser.Port, b []byte) port.Drop {
	f := new(port.Frame)
	f.SetStripped(b, 0)
	out := []port.Out{{Frame: f, Drop: port.NumDrops}}
	p.Queues()[0].Send(out)
	return out[0].Drop
}

// thrownOut expects that a guest is disconnected for a reason, and that the next one is
// served.
func thrownOut(t *testing.T, p *vhostuser.Port, path string, frames <-chan port.Frame, reason string) {
	t.Helper()
	endsFor(t, p, reason)
	for len(frames) > 0 {
		<-frames
	}
	g := boot(t, p, path, guests["modern"])
	if err := g.Send([12]byte{}, wire(77)); err != nil {
		t.Fatal(err)
	}
	if f := frame(t, frames); len(f.Data) != 77 || f.Drop != port.DropNone {
		t.Errorf("the next guest's frame has %d bytes: %v", len(f.Data), f.Drop)
	}
	if d := send(p, wire(88)); d != port.DropNone {
		t.Errorf("to the next guest: %v", d)
	}
}

// endsFor waits until a guest was disconnected for a reason.
func endsFor(t *testing.T, p *vhostuser.Port, reason string) {
	t.Helper()
	linked(t, p, false)
	limit := time.Now().Add(patience)
	for !strings.Contains(fmt.Sprint(p.LinkError()), reason) {
		if time.Now().After(limit) {
			t.Fatalf("the reason is %q, not %q", p.LinkError(), reason)
		}
		time.Sleep(time.Millisecond)
	}
}

// descriptor writes one of a ring or a table; the last two are flags and next, or id
// and flags.
func descriptor(table []byte, i int, addr uint64, n uint32, a, b uint16) {
	d := table[16*i:]
	binary.LittleEndian.PutUint64(d, addr)
	binary.LittleEndian.PutUint32(d[8:], n)
	binary.LittleEndian.PutUint16(d[12:], a)
	binary.LittleEndian.PutUint16(d[14:], b)
}

const (
	descNext, descWrite, descIndirect = 1, 2, 4
	descAvail                         = 1 << 7
	gpa                               = vhosttest.GPA
)

// avail makes n chains of a split ring available, by the word that the index is in.
func avail(driver []byte, n int) {
	atomic.StoreUint32((*uint32)(unsafe.Pointer(&driver[0])), uint32(n)<<16)
}

// TestHostileRing has guests that do with their rings what no driver does.
func TestHostileRing(t *testing.T) {
	type attack struct {
		name   string
		ring   int // 0: what the guest takes from, 1: what it sends by
		packed bool
		do     func(g *vhosttest.Guest, desc, driver []byte)
		reason string
	}
	split := func(i int, addr uint64, n uint32, flags, next uint16) func(*vhosttest.Guest, []byte, []byte) {
		return func(_ *vhosttest.Guest, desc, driver []byte) {
			descriptor(desc, i, addr, n, flags, next)
			binary.LittleEndian.PutUint16(driver[4:], uint16(i))
			avail(driver, 1)
		}
	}
	packed := func(addr uint64, n uint32, flags uint16) func(*vhosttest.Guest, []byte, []byte) {
		return func(_ *vhosttest.Guest, desc, _ []byte) {
			for i := range 256 {
				descriptor(desc, i, addr, n, uint16(i), flags|descAvail)
			}
		}
	}
	table := func(at int, do func(table []byte)) func(*vhosttest.Guest, []byte, []byte) {
		return func(g *vhosttest.Guest, desc, driver []byte) {
			do(g.Mem[at:])
			split(0, gpa+uint64(at), 32, descIndirect, 0)(g, desc, driver)
		}
	}
	const (
		outside   = "outside of the guest's memory"
		direction = "to be written to where one to be read is due"
	)
	for _, a := range []attack{
		{"head beyond the ring", 1, false, func(_ *vhosttest.Guest, _, driver []byte) {
			binary.LittleEndian.PutUint16(driver[4:], 256)
			avail(driver, 1)
		}, "beyond the ring's size"},
		{"next beyond the ring", 1, false, split(0, gpa, 10, descNext, 300), "beyond the ring's size"},
		{"loop", 1, false, split(3, gpa, 10, descNext, 3), "longer than the ring"},
		{"loop of nothing", 1, false, split(3, gpa, 0, descNext, 3), "longer than the ring"},
		{"index jumps", 1, false, func(_ *vhosttest.Guest, _, driver []byte) { avail(driver, 257) }, "more descriptors made available"},
		{"index goes back", 1, false, func(_ *vhosttest.Guest, _, driver []byte) { avail(driver, 65535) }, "more descriptors made available"},
		{"no memory there", 1, false, split(0, 0x1234, 100, 0, 0), outside},
		{"end of memory", 1, false, func(g *vhosttest.Guest, desc, driver []byte) {
			split(0, gpa+uint64(len(g.Mem))-10, 11, 0, 0)(g, desc, driver)
		}, outside},
		{"address wraps", 1, false, split(0, ^uint64(0)-5, 100, 0, 0), outside},
		{"all there is and more", 1, false, split(0, gpa, ^uint32(0), 0, 0), outside},
		{"to be written to", 1, false, split(0, gpa, 100, descWrite, 0), direction},
		{"table of odd size", 1, false, split(0, gpa, 17, descIndirect, 0), "indirect table"},
		{"table of nothing", 1, false, split(0, gpa, 0, descIndirect, 0), "indirect table"},
		{"table outside", 1, false, split(0, 0x10, 32, descIndirect, 0), "indirect table"},
		{"table that goes on", 1, false, split(0, gpa, 32, descIndirect|descNext, 0), "indirect descriptor"},
		{"table in a table", 1, false, table(64, func(b []byte) { descriptor(b, 0, gpa, 32, descIndirect, 0) }), "indirect descriptor"},
		{"loop in a table", 1, false, table(64, func(b []byte) { descriptor(b, 0, gpa, 1, descNext, 0) }), "longer than the ring"},
		{"next beyond a table", 1, false, table(64, func(b []byte) { descriptor(b, 0, gpa, 1, descNext, 2) }), "beyond the ring's size"},
		{"receive: to be read", 0, false, split(0, gpa, 2048, 0, 0), direction},
		{"receive: no room", 0, false, split(0, gpa, 0, descWrite, 0), "without room"},
		{"receive: no memory there", 0, false, split(0, 0, 2048, descWrite, 0), outside},
		{"receive: loop", 0, false, split(0, gpa, 1, descWrite|descNext, 0), "longer than the ring"},
		{"receive: index jumps", 0, false, func(_ *vhosttest.Guest, _, driver []byte) { avail(driver, 1000) }, "more descriptors made available"},

		{"packed: no end", 1, true, packed(gpa, 1, descNext), "longer than the ring"},
		{"packed: no memory there", 1, true, packed(0x1234, 100, 0), outside},
		{"packed: to be written to", 1, true, packed(gpa, 100, descWrite), direction},
		{"packed: odd table", 1, true, packed(gpa, 15, descIndirect), "indirect table"},
		{"packed: table in a table", 1, true, func(g *vhosttest.Guest, desc, driver []byte) {
			descriptor(g.Mem[64:], 0, gpa, 32, 0, descIndirect)
			packed(gpa+64, 16, descIndirect)(g, desc, driver)
		}, "indirect descriptor"},
		{"packed: receive: to be read", 0, true, packed(gpa, 2048, 0), direction},
		{"packed: receive: no end", 0, true, packed(gpa, 1, descNext|descWrite), "longer than the ring"},
	} {
		t.Run(a.name, func(t *testing.T) {
			path := socketPath(t)
			p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
			frames := reader(t, p)
			o := guests["one buffer"]
			if a.packed {
				o.Features |= vhosttest.RingPacked
			}
			g := boot(t, p, path, o)
			q := g.Queue(a.ring)
			desc, driver, _ := q.Rings()
			a.do(g, desc, driver)
			q.KickAlways()
			if a.ring == 0 {
				send(p, wire(1000))
			}
			thrownOut(t, p, path, frames, a.reason)
		})
	}
}

// TestHeaderLies: a virtio-net header that contradicts its frame costs the frame.
func TestHeaderLies(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	g := boot(t, p, path, guests["one buffer"])
	for _, c := range []struct {
		name string
		o    port.Offload
		wire []byte
		want port.Drop
	}{
		{"checksum outside", port.Offload{Flags: port.NeedsCsum, CsumStart: 14, CsumOffset: 45}, wire(60), port.DropBadOffload},
		{"checksum wraps", port.Offload{Flags: port.NeedsCsum, CsumStart: 0xffff, CsumOffset: 0xffff}, wire(60), port.DropBadOffload},
		{"checksum in the tag", port.Offload{Flags: port.NeedsCsum, CsumStart: 14}, append(append(wire(12), 0x81, 0, 0, 5), wire(48)...), port.DropBadOffload},
		{"segments of nothing", port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, CsumStart: 34, CsumOffset: 16}, wire(60), port.DropBadOffload},
		{"unknown segmentation", port.Offload{GSOType: 9, GSOSize: 100}, wire(60), port.DropBadOffload},
		{"runt", port.Offload{}, wire(13), port.DropRunt},
		{"nothing", port.Offload{}, nil, port.DropRunt},
		{"half a tag", port.Offload{}, append(wire(12), 0x81, 0, 0), port.DropRunt},
		{"oversize", port.Offload{}, wire(port.MaxFrame + 1), port.DropOversize},
		{"longest", port.Offload{}, wire(port.MaxFrame), port.DropNone},
		{"said to be checked", port.Offload{Flags: port.DataValid, HdrLen: 0xffff, CsumStart: 0xffff}, wire(60), port.DropNone},
	} {
		var h [12]byte
		vnet.Encode(h[:], c.o)
		if err := g.Send(h, c.wire); err != nil {
			t.Fatal(err)
		}
		f := frame(t, frames)
		if f.Drop != c.want {
			t.Errorf("%s: %v, want %v", c.name, f.Drop, c.want)
		}
		if c.want == port.DropNone && f.Offload != (port.Offload{}) {
			t.Errorf("%s: %+v is left of it", c.name, f.Offload)
		}
	}
	if !p.Link() {
		t.Error("a frame has cost the connection:", p.LinkError())
	}
}

// TestFrameIsCopied: what was looked at is what is sent, whatever the guest does to its
// memory meanwhile.
func TestFrameIsCopied(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	g := boot(t, p, path, guests["one buffer"])
	b := wire(400)
	if err := g.Send([12]byte{}, b); err != nil {
		t.Fatal(err)
	}
	var batch [4]port.Frame
	q := p.Queues()[0]
	if n, err := q.Recv(batch[:]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	defer q.Release()
	clear(g.Mem[g.TX[0].Buffers():][:1<<16])
	if !bytes.Equal(batch[0].Data, b) {
		t.Error("the guest has changed a frame that the switch has")
	}
}

// TestTruncatedMemory takes the memory's file away under the port. The race detector's
// own code looks at rings, where a fault cannot be recovered from, so with it they stay.
func TestTruncatedMemory(t *testing.T) {
	for _, way := range []string{"from the guest", "to the guest", "rings"} {
		t.Run(way, func(t *testing.T) {
			path := socketPath(t)
			p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
			frames := reader(t, p)
			o := guests["modern"]
			o.Unsealed = true
			g := boot(t, p, path, o)
			left := int64(g.TX[0].Buffers())
			switch {
			case way == "to the guest":
				left = int64(g.RX[0].Buffers())
			case way == "rings" && !testenv.RaceEnabled:
				left = 0
			}
			kick := func() {}
			if way == "from the guest" {
				_, driver, _ := g.TX[0].Rings()
				desc, _, _ := g.TX[0].Rings()
				descriptor(desc, 0, gpa+uint64(left)+4096, 500, 0, 0)
				kick = func() { avail(driver, 1); g.TX[0].KickAlways() }
			}
			if err := unix.Ftruncate(g.FD, left); err != nil {
				t.Fatal(err)
			}
			kick()
			g.TX[0].KickAlways()
			if way != "from the guest" && testenv.RaceEnabled && left > int64(g.RX[0].Buffers()) {
				return // nothing of what is left is missing
			}
			if way == "to the guest" {
				if d := send(p, wire(100)); d != port.DropNoCarrier {
					t.Errorf("into memory that is gone: %v", d)
				}
			}
			thrownOut(t, p, path, frames, "memory was taken away")
		})
	}
}

// A front end makes its call descriptor block after the switch made it non-blocking, and fills
// it: whoever sends to the guest goes on all the same.
func TestCallThatBlocks(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	g := boot(t, p, path, guests["modern"])
	g.RX[0].BlockCalls(t)
	sent := make(chan struct{})
	go func() {
		send(p, wire(100))
		close(sent)
	}()
	select {
	case <-sent:
	case <-time.After(patience):
		t.Fatal("a worker waits for the front end")
	}
	thrownOut(t, p, path, frames, "a call descriptor that blocks")
}

// A file that can be sealed cannot be taken away at all.
func TestSealed(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	g := boot(t, p, path, guests["modern"])
	if err := unix.Ftruncate(g.FD, 0); err != unix.EPERM {
		t.Errorf("taking the memory away: %v", err)
	}
}

// A front end whose memory is a file on a disk would hold up whoever sends to its guest. It is
// thrown out, and the reason says what to give instead.
func TestMemoryOnDisk(t *testing.T) {
	const tmpfs = 0x01021994
	dir := t.TempDir()
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil || fs.Type == tmpfs {
		t.Skip("the directory for tests is in memory: ", err)
	}
	name := filepath.Join(dir, "memory")
	for _, table := range []bool{false, true} {
		path := socketPath(t)
		p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
		frames := reader(t, p)
		g := boot(t, p, path, guests["modern"])
		const size = 1 << 20
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
		if err == nil {
			err = unix.Ftruncate(fd, size)
		}
		if err != nil {
			t.Fatal(err)
		}
		region := append(append(vhosttest.U64(1<<40), vhosttest.U64(size)...), append(vhosttest.U64(1<<46), vhosttest.U64(0)...)...)
		if table {
			err = g.Write(vhosttest.SetMemTable, 1, append(vhosttest.U32s(1, 0), region...), fd)
		} else {
			err = g.Write(vhosttest.AddMemReg, 1, append(vhosttest.U64(0), region...), fd)
		}
		unix.Close(fd)
		if err != nil {
			t.Fatal(err)
		}
		thrownOut(t, p, path, frames, strconv.Quote(name)+" is no shared memory; use a memfd, or a file on tmpfs or hugetlbfs")
	}
}

// TestGarbage has what is no front end connect.
func TestGarbage(t *testing.T) {
	path := socketPath(t)
	p := open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}})
	frames := reader(t, p)
	random := rand.NewChaCha8([32]byte{1})
	for name, do := range map[string]func(*vhosttest.Guest){
		"nothing":         func(*vhosttest.Guest) {},
		"half a header":   func(g *vhosttest.Guest) { g.Conn.Write([]byte{1, 2, 3}) },
		"HTTP":            func(g *vhosttest.Guest) { g.Conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")) },
		"half a payload":  func(g *vhosttest.Guest) { g.Conn.Write(append(vhosttest.U32s(5, 1, 200), 1)) },
		"endless payload": func(g *vhosttest.Guest) { g.Conn.Write(vhosttest.U32s(5, 1, 1<<31)) },
		"random": func(g *vhosttest.Guest) {
			b := make([]byte, 4096)
			random.Read(b)
			g.Conn.Write(b)
		},
		"random after a good header": func(g *vhosttest.Guest) {
			b := make([]byte, 40)
			for r := range uint32(45) {
				random.Read(b)
				if g.Write(r, 1, b) != nil {
					return
				}
			}
		},
		"many descriptors": func(g *vhosttest.Guest) {
			_ = g.Write(vhosttest.SetMemTable, 1, make([]byte, 8), g.FD, g.FD, g.FD, g.FD, g.FD, g.FD, g.FD, g.FD, g.FD, g.FD)
		},
		"no memory file": func(g *vhosttest.Guest) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			_ = g.Write(vhosttest.AddMemReg, 1, append(vhosttest.U64(0), g.RegionBytes(0, 4096)...), int(w.Fd()))
		},
		"memory beyond its file": func(g *vhosttest.Guest) {
			_ = g.Write(vhosttest.AddMemReg, 1, append(vhosttest.U64(0), g.RegionBytes(len(g.Mem)-4096, 8192)...), g.FD)
		},
		"call that is no eventfd": func(g *vhosttest.Guest) {
			_ = g.Write(vhosttest.SetVringCall, 1, vhosttest.U64(0), g.FD)
		},
		"kick that is no eventfd": func(g *vhosttest.Guest) {
			_ = g.Write(vhosttest.SetVringKick, 1, vhosttest.U64(0), g.FD)
		},
		"kick that is a pipe": func(g *vhosttest.Guest) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			defer w.Close()
			_ = g.Write(vhosttest.SetVringKick, 1, vhosttest.U64(0), int(r.Fd()))
		},
		"ring without memory": func(g *vhosttest.Guest) {
			_ = g.Write(vhosttest.SetVringNum, 1, vhosttest.U32s(0, 256))
			_ = g.Write(vhosttest.SetVringAddr, 1, g.AddrBytes(0, 0))
			_ = g.Write(vhosttest.SetVringKick, 1, vhosttest.U64(1<<8))
		},
	} {
		before := files(t)
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		g := vhosttest.New(t, conn, guests["modern"])
		do(g)
		if name == "nothing" || strings.HasPrefix(name, "half") || strings.HasPrefix(name, "random") {
			g.Conn.CloseWrite()
		}
		_ = g.Conn.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 1024); err == nil; {
			_, err = g.Conn.Read(b)
		}
		if os.IsTimeout(err) {
			t.Errorf("%s: the port still listens to it", name)
		}
		g.Close()
		limit := time.Now().Add(patience)
		for files(t) > before {
			if time.Now().After(limit) {
				t.Fatalf("%s: %d files open before, %d after", name, before, files(t))
			}
			time.Sleep(time.Millisecond)
		}
	}
	boot(t, p, path, guests["modern"]).Close()
	thrownOut(t, p, path, frames, "front end has ended")
}

func files(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}
