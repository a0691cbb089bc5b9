package vhostuser_test

import (
	"bytes"
	"encoding/binary"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/internal/virtio/vhost/vhosttest"
	"github.com/vswitch/vswitch/internal/virtio/vnet"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/vhostuser"
)

// lent has a guest send a super-frame and returns it as the port hands it over: with a
// tail, which the guest has not got back.
func lent(t *testing.T, p *vhostuser.Port, g *vhosttest.Guest, size int) *port.Frame {
	t.Helper()
	b, o := tso(size)
	var h [12]byte
	vnet.Encode(h[:], o)
	if err := g.Send(h, b); err != nil {
		t.Fatal(err)
	}
	return lentAgain(t, p, b)
}

func lentAgain(t *testing.T, p *vhostuser.Port, want []byte) *port.Frame {
	t.Helper()
	timeout := time.AfterFunc(patience, func() { p.Close() })
	defer timeout.Stop()
	var frames [4]port.Frame
	if n, err := p.Queues()[0].Recv(frames[:]); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	f := &frames[0]
	if f.Tail == nil || len(f.Data) < port.MinHead || f.DataLen() != len(want) {
		t.Fatalf("%d bytes came, %d of them at once; drop %v", f.DataLen(), len(f.Data), f.Drop)
	}
	return f
}

// pass gives a frame to another port.
func pass(p *vhostuser.Port, f *port.Frame) port.Drop {
	out := []port.Out{{Frame: f, Drop: port.NumDrops}}
	p.Queues()[0].Send(out)
	return out[0].Drop
}

// listening opens a port.
func listening(t testing.TB) (*vhostuser.Port, string) {
	t.Helper()
	path := socketPath(t)
	return open(t, vhostuser.Kind{}, port.Spec{Settings: vhostuser.Settings{Socket: port.Socket{Path: path}}}), path
}

// tso is a TCP super-frame of n bytes.
func tso(n int) ([]byte, port.Offload) {
	b := wire(n)
	copy(b[12:], []byte{0x08, 0, 0x45, 0, byte((n - 14) >> 8), byte(n - 14)})
	b[22], b[23] = 64, 6
	b[46] = 5 << 4 // data offset
	for i := 54; i < n; i++ {
		b[i] = byte(i * 7)
	}
	return b, port.Offload{Flags: port.NeedsCsum, GSOType: port.GSOTCPv4, HdrLen: 54, GSOSize: 1448, CsumStart: 34, CsumOffset: 16}
}

// TestLent: a super-frame goes from one guest's memory to the other's, and the sender
// has its buffers back when the port was told that it did.
func TestLent(t *testing.T) {
	for _, from := range []string{"modern", "one buffer", "big buffers", "packed"} {
		for _, to := range []string{"modern", "big buffers", "small buffers", "packed"} {
			t.Run(from+" to "+to, func(t *testing.T) {
				p, path := listening(t)
				g := boot(t, p, path, guests[from])
				other, otherPath := listening(t)
				h := boot(t, other, otherPath, guests[to])
				want, o := tso(60_000)
				for range 300 { // more than the ring has
					f := lent(t, p, g, len(want))
					if id, _, ok := g.TX[0].Used(); ok {
						t.Fatalf("the guest has buffer %d back too early", id)
					}
					if d := pass(other, f); d != port.DropNone {
						t.Fatal(d)
					}
					p.Queues()[0].Release()
					header, b, err := h.Recv(patience)
					if err != nil || !bytes.Equal(b, want) {
						t.Fatalf("%d bytes arrived: %v", len(b), err)
					}
					if got := vnet.Decode(header[:]); got != o {
						t.Fatalf("with %+v", got)
					}
				}
			})
		}
	}
}

// A guest that takes away the memory that it lent is thrown out; the one that was to
// get it is not, and misses that frame alone. So it is the other way round.
func TestLentTruncated(t *testing.T) {
	for _, culprit := range []string{"sender", "receiver"} {
		t.Run(culprit, func(t *testing.T) {
			p, path := listening(t)
			other, otherPath := listening(t)
			options := guests["one buffer"]
			options.Unsealed = true
			g := boot(t, p, path, options)
			h := boot(t, other, otherPath, options)
			f := lent(t, p, g, 30_000)
			guilty, honest, bad, want := p, other, g, port.DropMemoryGone
			left := g.TX[0].Buffers()
			if culprit == "receiver" {
				guilty, honest, bad, want = other, p, h, port.DropNoCarrier
				left = h.RX[0].Buffers() + 2048 // the rest of the frame is gone
			}
			if err := unix.Ftruncate(bad.FD, int64(left)); err != nil {
				t.Fatal(err)
			}
			if d := pass(other, f); d != want {
				t.Errorf("the frame: %v, want %v", d, want)
			}
			p.Queues()[0].Release()
			endsFor(t, guilty, "memory was taken away")
			if !honest.Link() {
				t.Error("the other guest is gone as well:", honest.LinkError())
			}
			if culprit == "receiver" {
				f := lent(t, p, g, 30_000)
				if got := make([]byte, f.DataLen()); !f.CopyTo(got, new([1][]byte)) {
					t.Error("the sender's frames are lost")
				}
				p.Queues()[0].Release()
				return
			}
			if d := send(other, wire(100)); d != port.DropNone {
				t.Error("a frame to the other guest:", d)
			}
			if _, b, err := h.Recv(patience); err != nil || !bytes.Equal(b, wire(100)) {
				t.Errorf("the other guest got %d bytes: %v", len(b), err)
			}
		})
	}
}

// A front end that changes the memory or stops the ring takes back what was lent. The
// frame is still there to be sent, by this back end or the next.
func TestLentTakenBack(t *testing.T) {
	for name, o := range map[string]vhosttest.Options{"split": guests["one buffer"], "packed": guests["packed"]} {
		t.Run(name, func(t *testing.T) {
			p, path := listening(t)
			g := boot(t, p, path, o)
			want, _ := tso(30_000)
			first := lent(t, p, g, len(want))
			g.Request(t, vhosttest.NetSetMTU, vhosttest.U64(1500))
			if got := make([]byte, len(want)); !first.CopyTo(got, new([1][]byte)) {
				t.Error("a request that concerns no ring has taken the frame")
			}
			g.Request(t, vhosttest.SetFeatures, vhosttest.U64(g.Features|vhosttest.Protocol|vhosttest.LogAll))
			if got := make([]byte, len(want)); first.CopyTo(got, new([1][]byte)) {
				t.Error("what was taken back can be read")
			}
			p.Queues()[0].Release()

			second := lentAgain(t, p, want)
			base := g.Ask(t, vhosttest.GetVringBase, vhosttest.U32s(1, 0)) >> 32
			if got := make([]byte, len(want)); second.CopyTo(got, new([1][]byte)) {
				t.Error("what a stopped ring had can be read")
			}
			p.Queues()[0].Release()
			if want := uint64(g.Base); name == "split" && base != want {
				t.Errorf("the ring stopped at %d, not before the frame, at %d", base, want)
			}
			g.SetRing(t, 1, uint32(base))
			third := lentAgain(t, p, want)
			if got := make([]byte, len(want)); !third.CopyTo(got, new([1][]byte)) || !bytes.Equal(got, want) {
				t.Error("the frame comes again with other bytes")
			}
			p.Close() // while it is lent
			p.Queues()[0].Release()
		})
	}
}

// Two guests send to each other by several queues while their front ends change things:
// nobody waits for one who waits for him.
func TestLentBothWays(t *testing.T) {
	const pairs, each = 2, 1000
	var ports [2]*vhostuser.Port
	var gs [2]*vhosttest.Guest
	for i := range ports {
		var path string
		ports[i], path = listening(t)
		o := guests["modern"]
		o.Pairs = pairs
		o.Features |= vhosttest.MQ
		gs[i] = boot(t, ports[i], path, o)
	}
	var workers, others sync.WaitGroup
	for i, p := range ports {
		for k := range pairs {
			workers.Go(func() {
				q, to := p.Queues()[k], ports[1-i].Queues()[k]
				var frames [port.BatchSize]port.Frame
				for {
					n, err := q.Recv(frames[:])
					if err != nil {
						return
					}
					var out []port.Out
					for j := range frames[:n] {
						out = append(out, port.Out{Frame: &frames[j]})
					}
					to.Send(out)
					q.Release()
				}
			})
			others.Go(func() {
				b, o := tso(20_000)
				var h [12]byte
				vnet.Encode(h[:], o)
				for n := range each {
					binary.BigEndian.PutUint32(b[100:], uint32(n))
					if err := gs[i].TX[k].Send(h, b); err != nil {
						t.Errorf("guest %d, queue %d, frame %d: %v", i, k, n, err)
						return
					}
					gs[i].RX[k].Again()
				}
			})
		}
		others.Go(func() {
			for range each {
				gs[i].Request(t, vhosttest.SetFeatures, vhosttest.U64(gs[i].Features|vhosttest.Protocol))
			}
		})
	}
	others.Wait()
	for i, p := range ports {
		if !p.Link() {
			t.Errorf("guest %d is gone: %v", i, p.LinkError())
		}
		p.Close()
	}
	workers.Wait()
}

// during is a tail whose copying does something first.
type during struct {
	bytes []byte
	do    func()
}

func (d *during) Len() int { return len(d.bytes) }

func (d *during) CopyTo(dst [][]byte) bool {
	d.do()
	b := d.bytes
	for _, to := range dst {
		b = b[copy(to, b):]
	}
	return true
}

// sendWith sends a batch of n frames, where do happens while the last is copied.
func sendWith(p *vhostuser.Port, n int, do func()) []port.Out {
	out := make([]port.Out, n)
	for i := range out {
		f := new(port.Frame)
		f.SetStripped(wire(100), 0)
		out[i] = port.Out{Frame: f, Drop: port.NumDrops}
	}
	out[n-1].Frame.Tail = &during{make([]byte, 100), do}
	p.Queues()[0].Send(out)
	return out
}

// A guest that gets few frames sees the first ones while the switch is with the others.
func TestFirstSeenEarly(t *testing.T) {
	for _, ring := range []string{"modern", "packed"} {
		for n, want := range map[int]int{1: 0, 16: 0, 19: 0, 20: 16, 32: 16, 33: 0, 64: 0} {
			p, path := listening(t)
			g := boot(t, p, path, guests[ring])
			count := func() (seen int) {
				for {
					if _, _, ok := g.RX[0].Used(); !ok {
						return seen
					}
					seen++
				}
			}
			seen := -1
			for i, o := range sendWith(p, n, func() { seen = count() }) {
				if o.Drop != port.DropNone {
					t.Errorf("%s: frame %d of %d: %v", ring, i, n, o.Drop)
				}
			}
			if later := count(); seen != want || seen+later != n {
				t.Errorf("%s: of %d frames, %d came early and %d later; want %d early", ring, n, seen, later, want)
			}
		}
	}
}

// What a guest has seen counts as sent, also if it then takes its memory away.
func TestFirstSeenThenTruncated(t *testing.T) {
	p, path := listening(t)
	options := guests["modern"]
	options.Unsealed = true
	g := boot(t, p, path, options)
	out := sendWith(p, 30, func() {
		if err := unix.Ftruncate(g.FD, int64(g.RX[0].Buffers())); err != nil {
			t.Error(err)
		}
	})
	for i, o := range out {
		want := port.DropNone
		if i >= 16 {
			want = port.DropNoCarrier
		}
		if o.Drop != want {
			t.Errorf("frame %d: %v, want %v", i, o.Drop, want)
		}
	}
	endsFor(t, p, "memory was taken away")
}
