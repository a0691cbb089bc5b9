package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// drawConfig draws a port's settings.
func drawConfig(t *rapid.T) vswitch.PortConfig {
	var some port.VLANSet
	some.Add(10)
	some.Add(20)
	odd := func(label string) bool { return rapid.IntRange(0, 5).Draw(t, label) == 0 }
	c := vswitch.PortConfig{
		VLAN: rapid.SampledFrom([]port.VLAN{{}, {}, {}, {QinQ: 10}, {Access: 1}, {Access: 10},
			{Access: 10, Accept: port.AcceptAll},
			{Trunk: some, Native: 1}, {Trunk: some}, {Trunk: some, Native: 10, TrunkTPID: port.TPID(port.TPIDService)}}).Draw(t, "vlan"),
		Isolated:   rapid.IntRange(0, 2).Draw(t, "isolated") == 0,
		Locked:     odd("locked"),
		NoLearning: odd("no learning"),
		NoFlood:    vswitch.Class(rapid.SampledFrom([]int{0, 0, 0, 1, 2, 4, 7}).Draw(t, "no flood")),
	}
	if odd("limit") {
		c.LearnLimit = rapid.IntRange(1, 2).Draw(t, "learn limit")
		c.LearnAction = rapid.SampledFrom([]vswitch.LearnAction{vswitch.LearnForward, vswitch.LearnProtect, vswitch.LearnShutdown}).Draw(t, "action")
	}
	if odd("police") {
		c.Police, c.PoliceBurst = port.Rate{PerSecond: 2}, time.Millisecond
	}
	if odd("storm") {
		c.Storm.Broadcast, c.Storm.UnknownUnicast = port.Rate{PerSecond: 1}, port.Rate{PerSecond: 2}
	}
	if odd("shape") {
		c.Shape = port.Rate{PerSecond: 50} // also a mirror's copies leave within the wait below
	}
	return c
}

// left is a frame that leaves by a port, told by its addresses and tags.
func left(number int, wire []byte) string { return fmt.Sprintf("p%d %x", number, wire[:20]) }

// foretold are the frames that a trace says leave, in the form of left.
func foretold(tr *vswitch.Trace, wire []byte) (all []string) {
	var f port.Frame
	f.SetWire(bytes.Clone(wire))
	for _, c := range tr.Copies {
		out := port.Out{Frame: &f, Tag: c.Tag}
		if c.Push {
			out.Flags = port.Push
		}
		var b [port.MaxHeader]byte
		n := out.PutHeader(b[:])
		whole := append(b[:n:n], f.Data[12:]...)
		for range c.Frames {
			all = append(all, fmt.Sprintf("%s %x", c.Port.Name(), whole[:20]))
		}
	}
	slices.Sort(all)
	return all
}

// TestTraceIsTrue: however the ports are set and whatever came before, what a trace of a frame
// says is what the switch then does with it; and the trace changes nothing, so that another
// one says the same.
func TestTraceIsTrue(t *testing.T) {
	const ports = 4
	synctest.Test(t, func(t *testing.T) {
		rapid.Check(struct{ testing.TB }{t}, func(t *rapid.T) {
			r := newRig(t, vswitch.Config{FDB: fdb.Config{Aging: aging}, Traps: []vswitch.Trap{{Dst: 0x0180_c200_000e, Queue: vswitch.QueueLoop}}}, ports, memory.Options{Depth: 1024})
			defer r.Close()
			for _, p := range r.ports {
				if err := p.Configure(drawConfig(t)); err != nil {
					t.Fatal(err)
				}
				if rapid.IntRange(0, 9).Draw(t, "down") == 0 {
					p.SetForwarding(false)
				}
				if rapid.IntRange(0, 9).Draw(t, "tree") == 0 {
					p.SetTree(rapid.SampledFrom([]vswitch.TreeState{vswitch.TreeDiscarding, vswitch.TreeLearning}).Draw(t, "state"), rapid.Bool().Draw(t, "in a tree"))
				}
			}
			if rapid.IntRange(0, 2).Draw(t, "mirrored") == 0 {
				m := vswitch.Mirror{Name: "m", Ports: []string{"p0"}, In: rapid.Bool().Draw(t, "in"), To: "p3"}
				m.Out = !m.In || rapid.Bool().Draw(t, "out")
				if rapid.Bool().Draw(t, "remote") {
					m.To, m.ToVLAN = "", 20
				}
				mirrors := []vswitch.Mirror{m}
				if rapid.Bool().Draw(t, "twice") {
					m.Name = "another"
					mirrors = append(mirrors, m)
				}
				if err := r.SetMirrors(mirrors); err != nil {
					t.Fatal(err)
				}
			}
			if rapid.Bool().Draw(t, "snooping") {
				var vlans port.VLANSet
				vlans.Add(1)
				vlans.Add(10)
				members := rapid.SliceOfN(rapid.Uint16Range(0, ports-1), 0, 2).Draw(t, "members")
				r.SetGroups(&vswitch.Groups{VLANs: vlans, IsControl: func([]byte) bool { return false },
					Lookup: func(_ uint16, mac uint64) ([]uint16, bool) { return members, mac&1 == 0 }})
			}
			number := uint32(0)
			for range rapid.IntRange(1, 20).Draw(t, "frames") {
				in := rapid.IntRange(0, ports-1).Draw(t, "in")
				dst := rapid.SampledFrom([]port.MAC{station(0), station(1), station(2), station(3), port.Broadcast, 0x0100_5e01_0203, 0x0100_5e01_0204, 0x0180_c200_0000, 0x0180_c200_000e}).Draw(t, "dst")
				src := rapid.SampledFrom([]port.MAC{station(in), station(in), station(in), station(0), station(9), 0}).Draw(t, "src")
				number++
				wire := frame(dst, src, number, 60)
				if tag := rapid.SampledFrom([]uint32{0, 0, 0x8100_000a, 0x8100_0014, 0x88a8_600a, 0x8100_0000}).Draw(t, "tag"); tag != 0 {
					wire = slices.Concat(wire[:12], binary.BigEndian.AppendUint32(nil, tag), wire[12:])
				}
				if rapid.IntRange(0, 9).Draw(t, "runt") == 0 {
					wire = wire[:13]
				}
				original := bytes.Clone(wire)
				tr := r.ports[in].Trace(wire)
				again := r.ports[in].Trace(wire)
				if diff := cmp.Diff(tr, again, cmp.Comparer(func(a, b *vswitch.Port) bool { return a == b })); diff != "" {
					t.Fatalf("a second trace says otherwise: %s", diff)
				}
				if !bytes.Equal(wire, original) {
					t.Fatal("a trace changes the frame")
				}
				before := r.ports[in].Stats()
				r.lines[in].Put(0, memory.Packet{Wire: bytes.Clone(wire)})
				time.Sleep(time.Second / 4) // a shaped port sends it
				synctest.Wait()
				var got []string
				for i := range r.lines {
					for _, b := range r.taken(i) {
						got = append(got, left(i, b))
					}
				}
				slices.Sort(got)
				var want []string
				if len(wire) >= 14 {
					want = foretold(&tr, wire)
				}
				if !slices.Equal(got, want) {
					t.Fatalf("%x by p%d: the trace says\n%q, there are\n%q\n%+v", wire, in, want, got, tr)
				}
				after := r.ports[in].Stats()
				for why := range after.RX.Dropped {
					n := uint64(0)
					if tr.Drop == port.Drop(why) && tr.Drop != port.DropNone {
						n = 1
					}
					if after.RX.Dropped[why]-before.RX.Dropped[why] != n {
						t.Fatalf("%x by p%d: the trace says %v, %d are dropped for %v", wire, in, tr.Drop, after.RX.Dropped[why]-before.RX.Dropped[why], port.Drop(why))
					}
				}
				if e, known := r.FDB().Get(fdb.MakeKey(tr.VLAN, uint64(src))); tr.VLAN != 0 && (known && e.Port == r.ports[in].Number()) != tr.Learned {
					t.Fatalf("%x by p%d: the trace says that it is learned: %v; the FDB has %+v, %v", wire, in, tr.Learned, e, known)
				}
				// Each other port has a reason, if the frame goes to several.
				if tr.Flood != 0 {
					seen := map[*vswitch.Port]bool{r.ports[in]: true}
					for _, c := range tr.Copies {
						seen[c.Port] = true
					}
					for _, o := range tr.Others {
						seen[o.Port] = true
						if o.Drop == port.DropNone && !o.NotFlooded && !o.NoMember {
							t.Fatalf("%x by p%d: no reason for %s", wire, in, o.Port.Name())
						}
					}
					if len(seen) != ports {
						t.Fatalf("%x by p%d: %d ports have an outcome", wire, in, len(seen))
					}
				}
			}
		})
	})
}

// A trace asks a stage without effects, and passes by one that refuses nothing.
func TestTraceStage(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 2, memory.Options{})
	defer r.Close()
	stage := &vswitch.Stage{
		Check: func(*port.Frame, port.Drop) (port.Drop, bool) {
			t.Error("a trace has an effect")
			return port.DropNone, true
		},
		Why: func(f *port.Frame, classified port.Drop) port.Drop { return port.DropGuardMAC },
	}
	r.ports[0].SetStage(stage)
	wire := frame(port.Broadcast, station(0), 0, 60)
	if tr := r.ports[0].Trace(wire); tr.Drop != port.DropGuardMAC || len(tr.Copies) != 0 {
		t.Errorf("%+v", tr)
	}
	r.ports[0].SetStage(&vswitch.Stage{Check: stage.Check})
	if tr := r.ports[0].Trace(wire); tr.Drop != port.DropNone || len(tr.Copies) != 1 {
		t.Errorf("%+v", tr)
	}
}

// A trace knows which stations move: those that were learned, and not those that a user has entered at
// a port.
func TestTraceMoves(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 3, memory.Options{})
	defer r.Close()
	for kind, moves := range map[fdb.Kind]bool{fdb.Dynamic: true, fdb.Sticky: false, fdb.Static: false} {
		if err := r.FDB().Add(fdb.MakeKey(1, uint64(station(9))), r.ports[1].Number(), kind); err != nil {
			t.Fatal(err)
		}
		tr := r.ports[0].Trace(frame(port.Broadcast, station(9), 0, 60))
		if tr.Drop != port.DropNone || tr.Learned != moves {
			t.Errorf("a station that is %v at another port: %v, learned %v", kind, tr.Drop, tr.Learned)
		}
	}
}

// A trace says what the fast path does first, once that knows what the FDB does.
func TestTraceFast(t *testing.T) {
	f := &told{}
	r := newRig(t, vswitch.Config{FastPath: f}, 2, memory.Options{})
	defer r.Close()
	settled := f.settled
	if tr := r.ports[0].Trace(frame(port.Broadcast, station(0), 0, 60)); tr.Fast != vswitch.FastSent || f.settled == settled {
		t.Errorf("the fast path was settled %d times: %+v", f.settled-settled, tr)
	}
}
