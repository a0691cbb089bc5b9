package afpacket

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
)

// receive takes frames until it has n, and calls take with each.
func receive(t *testing.T, p *Port, n int, take func(i int, f *port.Frame)) {
	t.Helper()
	defer time.AfterFunc(patience, func() { p.Close() }).Stop()
	frames := make([]port.Frame, port.BatchSize)
	for got := 0; got < n; {
		k, err := p.queues[0].Recv(frames)
		if err != nil {
			t.Fatalf("after %d frames: %v", got, err)
		}
		for i := range frames[:k] {
			if f := &frames[i]; len(f.Data) < 14 || f.Data[12] != 0x86 { // the host speaks IPv6
				take(got, f)
				got++
			}
		}
		p.queues[0].Release()
	}
}

// A guest's UFO frames, whose type the header does not know, come with their offload,
// amid others that come with theirs.
func TestUFO(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		datagram, leftOfIt := tuntest.UFO(20000)
		super, leftOfSuper := tuntest.TCP4(40000)
		const n = 300
		wire := func(i int) ([]byte, port.Offload) {
			switch i % 3 {
			case 0:
				return datagram, leftOfIt
			case 1:
				return super, leftOfSuper
			}
			return tuntest.Ethernet(uint32(i), 60), port.Offload{}
		}
		sent := 0
		for sent < n {
			for range 30 {
				b, o := wire(sent)
				if err := g.Send(b, o); err != nil {
					t.Fatal(err)
				}
				sent++
			}
			receive(t, p, 30, func(i int, f *port.Frame) {
				i += sent - 30
				b, o := wire(i)
				if f.Drop != port.DropNone || !bytes.Equal(f.Data, b) {
					t.Fatalf("frame %d: %v, %d bytes, want %d", i, f.Drop, len(f.Data), len(b))
				}
				f.Offload.HdrLen, o.HdrLen = 0, 0
				if f.Offload != o {
					t.Fatalf("frame %d: %+v, want %+v", i, f.Offload, o)
				}
			})
		}
	})
}

// Once other frames have come for long, the first UFO frame is lost, by itself and with a
// reason of its own; the next comes.
func TestUFOAmidOthers(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		send := func(b []byte, o port.Offload) {
			if err := g.Send(b, o); err != nil {
				t.Fatal(err)
			}
		}
		for sent := 0; sent <= careful; sent += 64 {
			for i := range 64 {
				send(tuntest.Ethernet(uint32(i), 60), port.Offload{})
			}
			receive(t, p, 64, func(int, *port.Frame) {})
		}
		if p.queues[0].rx.careful > 0 {
			t.Fatal("the port still reads carefully")
		}
		datagram, o := tuntest.UFO(4000)
		want := []port.Drop{port.DropNone, port.DropUnsupported, port.DropNone, port.DropNone, port.DropNone}
		for i := range want {
			if i%2 == 1 {
				send(datagram, o)
			} else {
				send(tuntest.Ethernet(uint32(i), 60), port.Offload{})
			}
		}
		receive(t, p, len(want), func(i int, f *port.Frame) {
			if f.Drop != want[i] {
				t.Errorf("frame %d: %v, want %v", i, f.Drop, want[i])
			}
		})
	})
}

// A partial checksum at SCTP's place is a CRC32c.
func TestSCTP(t *testing.T) {
	t.Parallel()
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		b, _ := tuntest.TCP4(14 + 20 + 12 + 32)
		b[23] = unix.IPPROTO_SCTP
		clear(b[42:46])
		want := bytes.Clone(b)
		binary.LittleEndian.PutUint32(want[42:], crc32.Checksum(b[34:], crc32.MakeTable(crc32.Castagnoli)))
		if err := g.Send(b, port.Offload{Flags: port.NeedsCsum, CsumStart: 34, CsumOffset: 8}); err != nil {
			t.Fatal(err)
		}
		receive(t, p, 1, func(_ int, f *port.Frame) {
			if f.Drop != port.DropNone || f.Offload != (port.Offload{}) || !bytes.Equal(f.Data, want) {
				t.Errorf("%v, %+v\n%x, want\n%x", f.Drop, f.Offload, f.Data, want)
			}
		})
	})
}

// Super-frames of BIG TCP are split, from the first on; once other frames have come for
// long, one is lost.
func TestBigTCP(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	const size = 180_000
	ns.Run("ip", "link", "add", "a0", "type", "veth", "peer", "name", "b0")
	for _, name := range []string{"a0", "b0"} {
		ns.Run("ip", "link", "set", name, "up")
	}
	ns.Do(func() {
		for _, name := range []string{"a0", "b0"} {
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetGSOIPv4MaxSize(l, 200_000)
			}
			if err != nil {
				t.Skipf("this kernel has no BIG TCP of IPv4 (Linux 6.3): %v", err)
			}
		}
		l, err := link.ByName("a0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(Config{Ifindex: l.Index})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s := tuntest.Listen(t, "b0")
		b, o := tuntest.TCP4(size)
		binary.BigEndian.PutUint16(b[16:], 0)
		clear(b[24:26])
		binary.BigEndian.PutUint16(b[24:], ^vnet.Sum(b[14:34]))
		round := func() (data []byte, drop port.Drop) {
			if err := s.Send(b, o); err != nil {
				t.Fatal(err)
			}
			var j tuntest.Joiner
			receive(t, p, 1, func(i int, f *port.Frame) {
				if f.Drop != port.DropNone {
					drop = f.Drop
					return
				}
				if f.Dst != tuntest.MACB || f.Src != tuntest.MACA || f.Tag.Present() {
					t.Fatalf("from %v to %v, tag %#x", f.Src, f.Dst, f.Tag)
				}
				if len(f.Data) > port.MaxFrame {
					t.Fatalf("a frame of %d bytes", len(f.Data))
				}
				var seg vnet.Segmenter
				if err := seg.Init(f.Data, f.Offload, port.CapsNone); err != nil {
					t.Fatal(err)
				}
				dst := make([]byte, seg.FrameLen())
				for range seg.Count() {
					n, _ := seg.Next(dst)
					if err := j.Add(bytes.Clone(dst[:n]), port.Offload{}); err != nil {
						t.Fatal(err)
					}
				}
			})
			return j.Data(), drop
		}
		if data, drop := round(); drop != port.DropNone || !bytes.Equal(data, tuntest.TCPData(b)) {
			t.Errorf("%v, %d bytes of %d", drop, len(data), len(tuntest.TCPData(b)))
		}
		p.queues[0].rx.careful = 0
		if _, drop := round(); drop != port.DropUnsupported {
			t.Errorf("amid others: %v", drop)
		}
		if data, drop := round(); drop != port.DropNone || !bytes.Equal(data, tuntest.TCPData(b)) {
			t.Errorf("then: %v, %d bytes", drop, len(data))
		}
		// Where the parts have no room, one frame says so.
		if err := s.Send(b, o); err != nil {
			t.Fatal(err)
		}
		frames := make([]port.Frame, 2)
		for {
			n, err := p.queues[0].Recv(frames)
			if err != nil {
				t.Fatal(err)
			}
			p.queues[0].Release()
			if frames[0].Drop == port.DropNone {
				continue // the host speaks IPv6
			}
			if n != 1 || frames[0].Drop != port.DropUnsupported || frames[0].Src != tuntest.MACA {
				t.Errorf("without room: %d frames, the first %v from %v", n, frames[0].Drop, frames[0].Src)
			}
			break
		}
	})
}

// Careful reading allocates nothing.
func TestCarefulAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	testenv.NewNetns(t).Do(func() {
		p := tap(t, "vm0")
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		datagram, o := tuntest.UFO(20000)
		frames := make([]port.Frame, port.BatchSize)
		sending := testing.AllocsPerRun(50, func() {
			if err := g.Send(datagram, o); err != nil {
				t.Fatal(err)
			}
		})
		if n := testing.AllocsPerRun(50, func() {
			if err := g.Send(datagram, o); err != nil {
				t.Fatal(err)
			}
			if _, err := p.queues[0].Recv(frames); err != nil {
				t.Fatal(err)
			}
			p.queues[0].Release()
		}); n > sending {
			t.Errorf("%v allocations, %v of them of the sender", n, sending)
		}
	})
}
