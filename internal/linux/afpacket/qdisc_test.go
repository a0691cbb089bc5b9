package afpacket

import (
	"bytes"
	"testing"

	"github.com/vswitch/vswitch/internal/linux/link"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
)

// While somebody shapes a direct device, no frame goes past the discipline: small ones
// do not overtake a super-frame, and what it has no room for is lost aloud. Without it
// they go at once again.
func TestQueued(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		p := tap(t, "vm0")
		if p.queued.Load() {
			t.Fatal("a device of the kernel's making is queued")
		}
		g := tuntest.Boot(t, "vm0", tuntest.TSO)
		// 40 ms for a frame of 1,250 bytes, so that a busy machine, too, sends more than goes out
		// meanwhile; the kernel cuts what is longer.
		ns.Run("tc", "qdisc", "replace", "dev", "vm0", "root", "tbf", "rate", "250kbit", "burst", "2000", "limit", "30000")
		testenv.Eventually(t, "the port sees the discipline", p.queued.Load)

		super, o := tuntest.TCP4(10000)
		out := make([]port.Out, 40)
		for i := range out {
			f := new(port.Frame)
			if i == 0 {
				f.SetStripped(super, 0)
				f.Offload = o
			} else {
				f.SetStripped(tuntest.Ethernet(uint32(i), 1000), 0)
			}
			out[i].Frame = f
		}
		before := p.Lost(0)
		p.queues[0].Send(out)
		took, full := 0, 0
		for i := range out {
			switch out[i].Drop {
			case port.DropNone:
				took++
			case port.DropQueueFull:
				full++
			default:
				t.Errorf("frame %d: %v", i, out[i].Drop)
			}
		}
		if full == 0 || took < 10 {
			t.Errorf("a queue of 30,000 bytes took %d of %d frames and refused %d", took, len(out), full)
		}
		for i, payload := 1, 0; i < took; {
			b, _, err := g.Recv(patience)
			switch {
			case err != nil:
				t.Fatalf("frame %d: %v", i, err)
			case tuntest.IsEthernet(b):
				if payload < 9000 {
					t.Fatalf("frame %d overtakes a super-frame, of which %d bytes came", i, payload)
				}
				i++
			case b[12] == 8 && b[13] == 0:
				payload += len(tuntest.TCPData(b))
			}
		}
		if lost := p.Lost(0); lost != before {
			t.Errorf("%d frames are said to be lost in silence", lost-before)
		}

		ns.Run("tc", "qdisc", "del", "dev", "vm0", "root")
		testenv.Eventually(t, "the port sees that it is gone", func() bool { return !p.queued.Load() })
		ns.Run("tc", "qdisc", "add", "dev", "vm0", "clsact")
		testenv.Eventually(t, "the port sees a place for filters", p.queued.Load)

		// One that is there first is found.
		l, err := link.ByName("vm0")
		if err != nil {
			t.Fatal(err)
		}
		second, err := Open(Config{Ifindex: l.Index, Direct: true})
		if err != nil {
			t.Fatal(err)
		}
		defer second.Close()
		if !second.queued.Load() {
			t.Error("a discipline that is there at first is not seen")
		}
	})
}

// What the switch itself sends leaves a device before data that waits in its queueing
// discipline: in the first band where there are bands, or past the discipline.
func TestControlGoesFirst(t *testing.T) {
	t.Parallel()
	ns := testenv.NewNetns(t)
	ns.Do(func() {
		ns.Run("ip", "link", "add", "nic0", "type", "veth", "peer", "name", "peer0")
		for _, name := range []string{"nic0", "peer0"} {
			ns.Run("ip", "link", "set", name, "up")
		}
		at := func(name string) int {
			l, err := link.ByName(name)
			if err != nil {
				t.Fatal(err)
			}
			return l.Index
		}
		for name, c := range map[string]Config{"NIC": {}, "direct": {Direct: true}} {
			// A frame takes a second; pfifo_fast sends priorities 6 and 7 first.
			ns.Run("tc", "qdisc", "replace", "dev", "nic0", "root", "handle", "1:", "tbf", "rate", "16kbit", "burst", "2000", "limit", "30000")
			ns.Run("tc", "qdisc", "replace", "dev", "nic0", "parent", "1:1", "handle", "2:", "pfifo_fast")
			c.Ifindex = at("nic0")
			p, err := Open(c)
			if err != nil {
				t.Fatal(err)
			}
			peer, err := Open(Config{Ifindex: at("peer0")})
			if err != nil {
				t.Fatal(err)
			}
			if c.Direct {
				testenv.Eventually(t, "the port sees the discipline", p.queued.Load)
			}
			out := make([]port.Out, 9)
			for i := range out {
				out[i].Frame = new(port.Frame)
				out[i].Frame.SetStripped(tuntest.Ethernet(uint32(i), 1500), 0)
			}
			out[8].Frame.SetStripped(tuntest.Ethernet(8, 60), 0)
			out[8].Flags = port.Control
			p.queues[0].Send(out[:8])
			p.queues[0].Send(out[8:])
			if out[8].Drop != port.DropNone {
				t.Errorf("%s: %v", name, out[8].Drop)
			}
			frames := make([]port.Frame, port.BatchSize)
			for before, found := 0, false; !found; {
				n, err := peer.Queues()[0].Recv(frames)
				if err != nil {
					t.Fatal(err)
				}
				for i := range frames[:n] {
					if !bytes.Equal(frames[i].Data[12:14], out[8].Frame.Data[12:14]) {
						continue // the host's own
					}
					if len(frames[i].Data) == 60 {
						found = true
					} else if !found {
						before++
					}
				}
				peer.Queues()[0].Release()
				if before > 4 {
					t.Errorf("%s: %d frames left before that of the switch", name, before)
					break
				}
			}
			p.Close()
			peer.Close()
			ns.Run("tc", "qdisc", "del", "dev", "nic0", "root")
		}
	})
}
