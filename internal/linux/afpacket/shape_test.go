package afpacket

import (
	"encoding/binary"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/shape"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// A device that keeps a rate refuses what finds no room, and each frame that it takes arrives, in
// order, whatever becomes of the rate meanwhile. What the switch itself sends does not wait.
func TestShape(t *testing.T) {
	t.Parallel()
	for name, direct := range map[string]bool{"NIC": false, "direct": true} {
		ns := testenv.NewNetns(t)
		ns.Do(func() {
			ns.Run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "peer0")
			index := func(name string) int {
				ns.Run("ip", "link", "set", name, "up")
				l, err := link.ByName(name)
				if err != nil {
					t.Fatal(err)
				}
				return l.Index
			}
			peer, err := Open(Config{Ifindex: index("peer0")})
			if err != nil {
				t.Fatal(err)
			}
			defer peer.Close()
			p, err := Open(Config{Ifindex: index("nic0"), Direct: direct})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			keep := func(bits uint64) {
				t.Helper()
				if _, err := p.Shape(bits); err != nil || p.Shapes() != (bits != 0) {
					t.Errorf("%s: Shape(%d): %v, and Shapes is %v", name, bits, err, p.Shapes())
				}
			}
			next, took, refused := uint32(0), 0, 0
			var sent []uint32
			send := func(n int, flags port.OutFlags) {
				t.Helper()
				out := make([]port.Out, n) // made before the first one is sent: none may leave meanwhile
				first := next
				for i := range out {
					f := new(port.Frame)
					f.SetStripped(tuntest.Ethernet(next, 1400), 0)
					out[i] = port.Out{Frame: f, Flags: flags}
					next++
				}
				for batch := range slices.Chunk(out, port.BatchSize) {
					p.queues[0].Send(batch)
				}
				for i := range out {
					switch number := first + uint32(i); out[i].Drop {
					case port.DropNone:
						if took++; flags&port.Control == 0 {
							sent = append(sent, number)
						}
					case port.DropShaped:
						if refused++; flags&port.Control != 0 {
							t.Errorf("%s: there is no room for a frame of the switch", name)
						}
					default:
						t.Errorf("%s: frame %d: %v", name, number, out[i].Drop)
					}
				}
			}
			frames, left, at := make([]port.Frame, port.BatchSize), 0, 0
			receive := func() uint32 {
				t.Helper()
				for {
					for ; at < left; at++ {
						if b := frames[at].Data; tuntest.IsEthernet(b) {
							at++
							return binary.BigEndian.Uint32(b[14:])
						}
					}
					if left > 0 {
						peer.Queues()[0].Release()
					}
					at = 0
					if left, err = peer.Queues()[0].Recv(frames); err != nil {
						t.Fatal(err)
					}
				}
			}

			keep(100_000_000)
			send(2000, 0) // more than the peer's socket has room for, if the rate did not hold them back
			if took < 100 || refused < 50 {
				t.Errorf("%s: of %d frames %d are taken and %d are refused", name, next, took, refused)
			}
			waiting := 100 // at least
			control := next
			send(1, port.Control)
			for _, rate := range []uint64{100_000_000, 10_000_000_000, 0, 100_000_000, 0} {
				keep(rate)
				send(20, 0)
			}
			for i := 0; i < len(sent); {
				switch n := receive(); {
				case n == control:
					if i > len(sent)-waiting {
						t.Errorf("%s: %d of %d frames leave before that of the switch", name, i, len(sent))
					}
				case n != sent[i]:
					t.Fatalf("%s: frame %d comes in place of %d", name, n, sent[i])
				default:
					i++
				}
			}
			if lost := p.Shaped(); lost != 0 {
				t.Errorf("%s: %d frames are said to be dropped of which no sender knows", name, lost)
			}
			if r, err := shape.Read(p.ifindex); err != nil || r.On {
				t.Errorf("%s: the root is %+v, %v", name, r, err)
			}
		})
	}
}

// A discipline that cannot be taken off is known to be there, so that somebody can try it again.
func TestShapeLeft(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "peer0")
	ns.Run("ip", "link", "set", "nic0", "up")
	ns.Run("ip", "link", "set", "peer0", "up")
	ns.Do(func() {
		l, err := link.ByName("nic0")
		if err != nil {
			t.Fatal(err)
		}
		p, err := Open(Config{Ifindex: l.Index})
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		if _, err := p.Shape(1e9); err != nil {
			t.Fatal(err)
		}
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var all [2]unix.CapUserData
		if err := unix.Capget(&header, &all[0]); err != nil {
			t.Fatal(err)
		}
		less := all
		less[0].Effective &^= 1 << unix.CAP_NET_ADMIN
		for _, bits := range []uint64{0, 2e9, 0} {
			if err := unix.Capset(&header, &less[0]); err != nil {
				t.Fatal(err)
			}
			_, err := p.Shape(bits)
			if err := unix.Capset(&header, &all[0]); err != nil {
				t.Fatal(err)
			}
			if err == nil || !p.Shapes() {
				t.Errorf("Shape(%d) without the right to: %v, and Shapes is %v", bits, err, p.Shapes())
			}
		}
		if _, err := p.Shape(0); err != nil || p.Shapes() {
			t.Errorf("Shape(0): %v, and Shapes is %v", err, p.Shapes())
		}
		if r, err := shape.Read(l.Index); err != nil || r.On {
			t.Errorf("the root is %+v, %v", r, err)
		}
	})
}
