package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	vswitch "github.com/vswitch/vswitch/switch"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/linux/tuntap/tuntest"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
)

// inRig runs f with a rig of so many ports, in a bubble of time.
func inRig(t *testing.T, ports int, f func(t *testing.T, r *rig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, ports, memory.Options{Depth: 4096})
		defer r.Close()
		f(t, r)
	})
}

func (r *rig) configure(t *testing.T, p int, c vswitch.PortConfig) {
	t.Helper()
	if err := r.ports[p].Configure(c); err != nil {
		t.Fatal(err)
	}
}

// pass sends one frame and returns how many copies arrive at each port.
func (r *rig) pass(in int, wire []byte) []int {
	r.lines[in].Put(0, memory.Packet{Wire: wire})
	synctest.Wait()
	n := make([]int, len(r.lines))
	for p := range r.lines {
		n[p] = len(r.taken(p))
	}
	return n
}

func wantPass(t *testing.T, r *rig, in int, wire []byte, want ...int) {
	t.Helper()
	if got := r.pass(in, wire); !slices.Equal(got, want) {
		t.Errorf("from port %d to %v: copies %v, want %v", in, port.MACFrom(wire), got, want)
	}
}

func wantDrops(t *testing.T, r *rig, p int, why port.Drop, want uint64) {
	t.Helper()
	st := r.ports[p].Stats()
	if got := st.RX.Dropped[why] + st.TX.Dropped[why]; got != want {
		t.Errorf("port %d: %d dropped as %v, want %d", p, got, why, want)
	}
}

func TestIsolation(t *testing.T) {
	inRig(t, 4, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{Isolated: true})
		r.configure(t, 1, vswitch.PortConfig{Isolated: true})
		all := frame(port.Broadcast, station(0), 0, 60)
		wantPass(t, r, 0, all, 0, 0, 1, 1)
		wantPass(t, r, 2, frame(port.Broadcast, station(2), 0, 60), 1, 1, 0, 1)
		wantPass(t, r, 1, frame(station(2), station(1), 0, 60), 0, 0, 1, 0)
		wantPass(t, r, 2, frame(station(1), station(2), 0, 60), 0, 1, 0, 0)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 0, 0, 0, 0)
		wantDrops(t, r, 1, port.DropIsolated, 1)
		wantPass(t, r, 1, frame(station(9), station(1), 0, 60), 0, 0, 1, 1) // unknown
		r.configure(t, 1, vswitch.PortConfig{})
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 1, 0, 0, 0)
	})
}

// TestTunnels: what came through a tunnel goes through none, whatever else is set.
func TestTunnels(t *testing.T) {
	inRig(t, 4, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{Tunnel: true})
		r.configure(t, 1, vswitch.PortConfig{Tunnel: true})
		r.configure(t, 2, vswitch.PortConfig{Isolated: true})
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 0, 1, 1)
		wantPass(t, r, 2, frame(port.Broadcast, station(2), 0, 60), 1, 1, 0, 1)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 0, 0, 0, 0)
		wantDrops(t, r, 1, port.DropIsolated, 1)
	})
}

func TestLocked(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{Locked: true})
		hello := frame(port.Broadcast, station(0), 0, 60)
		wantPass(t, r, 0, hello, 0, 0, 0)
		wantDrops(t, r, 0, port.DropLocked, 1)
		if r.FDB().Len() != 0 {
			t.Error("a locked port learned")
		}
		k := fdb.MakeKey(1, uint64(station(0)))
		if err := r.FDB().Add(k, 0, fdb.Static); err != nil {
			t.Fatal(err)
		}
		wantPass(t, r, 0, hello, 0, 1, 1)
		// An entry at another port does not admit.
		if err := r.FDB().Add(k, 1, fdb.Static); err != nil {
			t.Fatal(err)
		}
		wantPass(t, r, 0, hello, 0, 0, 0)
		// A station may roam from a locked port, and not back.
		if err := r.FDB().Add(k, 0, fdb.Dynamic); err != nil {
			t.Fatal(err)
		}
		wantPass(t, r, 0, hello, 0, 1, 1)
		wantPass(t, r, 1, hello, 1, 0, 1)
		wantPass(t, r, 0, hello, 0, 0, 0)
	})
}

func TestLearning(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{NoLearning: true})
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 1, 1)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 1, 0, 1)
		if _, ok := r.FDB().Get(fdb.MakeKey(1, uint64(station(0)))); ok {
			t.Error("a port that must not learned")
		}
	})
}

func TestLearnLimit(t *testing.T) {
	for _, c := range []struct {
		action  vswitch.LearnAction
		passes  int
		dropped uint64
		events  int
	}{
		{vswitch.LearnForward, 1, 0, 0},
		{vswitch.LearnProtect, 0, 1, 0},
		{vswitch.LearnShutdown, 0, 1, 1},
	} {
		t.Run(fmt.Sprint(c.action), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var events []vswitch.Event
				r := newRig(t, vswitch.Config{OnEvent: func(e vswitch.Event) { events = append(events, e) }}, 2, memory.Options{})
				defer r.Close()
				r.configure(t, 0, vswitch.PortConfig{LearnLimit: 2, LearnAction: c.action})
				for i := range 2 {
					wantPass(t, r, 0, frame(port.Broadcast, station(i), 0, 60), 0, 1)
				}
				wantPass(t, r, 0, frame(port.Broadcast, station(2), 0, 60), 0, c.passes)
				wantPass(t, r, 0, frame(port.Broadcast, station(1), 0, 60), 0, 1) // an old one
				wantDrops(t, r, 0, port.DropLearnLimit, c.dropped)
				if r.FDB().Count(0) != 2 || len(events) != c.events {
					t.Errorf("%d learned, events %v", r.FDB().Count(0), events)
				}
				// A static entry is none of the limit's.
				if err := r.FDB().Add(fdb.MakeKey(1, uint64(station(2))), 0, fdb.Static); err != nil {
					t.Fatal(err)
				}
				wantPass(t, r, 0, frame(port.Broadcast, station(2), 0, 60), 0, 1)
			})
		})
	}
}

func TestFloodClasses(t *testing.T) {
	frames := map[vswitch.Class][]byte{
		vswitch.Broadcast:      frame(port.Broadcast, station(0), 0, 60),
		vswitch.Multicast:      frame(0x0100_5e01_0203, station(0), 0, 60),
		vswitch.UnknownUnicast: frame(station(9), station(0), 0, 60),
	}
	inRig(t, 3, func(t *testing.T, r *rig) {
		for off := range frames {
			r.configure(t, 1, vswitch.PortConfig{NoFlood: off})
			for class, wire := range frames {
				want := 1
				if class == off {
					want = 0
				}
				wantPass(t, r, 0, wire, 0, want, 1)
			}
		}
		// What is known is not flooded, so it arrives whatever is off.
		r.configure(t, 1, vswitch.PortConfig{NoFlood: vswitch.UnknownUnicast})
		wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0, 1)
		wantPass(t, r, 0, frame(station(1), station(0), 0, 60), 0, 1, 0)
	})
}

func TestStormControl(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{Storm: vswitch.StormRates{
			Broadcast:      port.Rate{PerSecond: 100},
			UnknownUnicast: port.Rate{PerSecond: 800_000, Bits: true}, // 1000 frames of 100 bytes
		}})
		send := func(wire []byte, n int) (arrived int) {
			for range n {
				arrived += r.pass(0, wire)[1]
			}
			return arrived
		}
		all, unknown := frame(port.Broadcast, station(0), 0, 60), frame(station(9), station(0), 0, 100)
		total := 0
		for range 10 { // seconds
			total += send(all, 500)
			time.Sleep(time.Second)
		}
		// A rate of 100 a second lets a hundred pass each second, also all at once.
		if total != 1000 {
			t.Errorf("%d broadcasts in 10 bursts passed, want 1000", total)
		}
		total = 0
		for range 1000 { // 10 s in steps of 10 ms
			total += send(unknown, 20)
			time.Sleep(10 * time.Millisecond)
		}
		if total < 10_900 || total > 11_100 { // of which a second's worth at once
			t.Errorf("%d unknown unicasts passed in 10 s at 1000/s after a pause", total)
		}
		if got := send(frame(0x0100_5e01_0203, station(0), 0, 60), 300); got != 300 {
			t.Errorf("%d of 300 multicasts passed, which have no limit", got)
		}
		wantDrops(t, r, 0, port.DropStormMulticast, 0)
		st := r.ports[0].Stats()
		if st.RX.Dropped[port.DropStormBroadcast] == 0 || st.RX.Dropped[port.DropStormUnicast] == 0 {
			t.Error(text(st.RX, st.TX))
		}
	})
}

func TestStormShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []vswitch.Event
		r := newRig(t, vswitch.Config{OnEvent: func(e vswitch.Event) { events = append(events, e) }}, 2, memory.Options{})
		defer r.Close()
		rates := vswitch.StormRates{Broadcast: port.Rate{PerSecond: 1}}
		all := frame(port.Broadcast, station(0), 0, 60)
		for _, shutdown := range []bool{false, true} {
			r.configure(t, 0, vswitch.PortConfig{Storm: rates, StormShutdown: shutdown})
			time.Sleep(time.Second)
			r.pass(0, all)
			r.pass(0, all)
		}
		if want := (vswitch.StormHit{Port: 0, Why: port.DropStormBroadcast}); len(events) != 1 || events[0] != want {
			t.Errorf("events %v, want %v", events, want)
		}
		wantDrops(t, r, 0, port.DropStormBroadcast, 2)
	})
}

func TestPolice(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		// Known unicast is policed too; a super-frame counts as its segments.
		wantPass(t, r, 1, frame(port.Broadcast, station(1), 0, 60), 1, 0)
		r.configure(t, 0, vswitch.PortConfig{Police: port.Rate{PerSecond: 1000}})
		wire, o := tuntest.TCP4(54 + 10*1000)
		o.GSOSize = 1000
		copy(wire, frame(station(1), station(0), 0, 60)[:12])
		big := memory.Packet{Wire: wire, Offload: o}
		passed := 0
		for range 1000 { // 10 s
			for range 5 {
				r.lines[0].Put(0, big)
				synctest.Wait()
				passed += len(r.taken(1))
			}
			time.Sleep(10 * time.Millisecond)
		}
		if passed < 1030 || passed > 1045 { // of which 40 at once
			t.Errorf("%d super-frames of 10 segments passed in 10 s at 1000 frames/s after a pause", passed)
		}
		wantDrops(t, r, 0, port.DropPoliced, uint64(5000-passed))
	})
}

func TestShape(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 8_000_000, Bits: true}}) // 1000 frames of 1000 bytes
		wire := frame(port.Broadcast, station(0), 0, 1000)
		number := uint32(0)
		for range 180 {
			binary.BigEndian.PutUint32(wire[14:], number)
			number++
			r.lines[0].Put(0, memory.Packet{Wire: wire})
			synctest.Wait()
		}
		start, next := time.Now(), uint32(0)
		for next < 180 {
			got, err := r.lines[1].Take(0, nil)
			if err != nil {
				t.Fatal(err)
			}
			if n := binary.BigEndian.Uint32(got.Wire[14:]); n != next {
				t.Fatalf("frame %d arrived where %d was due", n, next)
			}
			next++
		}
		if took := time.Since(start); took < 170*time.Millisecond || took > 190*time.Millisecond {
			t.Errorf("180 frames at 1000/s took %v", took)
		}
		// What would wait for longer than a fifth of a second is dropped by name, and all
		// is accounted for.
		time.Sleep(time.Second)
		for range 3000 {
			r.lines[0].Put(0, memory.Packet{Wire: wire})
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		arrived := len(r.taken(1))
		st := r.ports[1].Stats()
		if arrived < 195 || arrived > 210 || uint64(arrived)+st.TX.Dropped[port.DropShaped] != 3000 || st.TX.Frames != 180+uint64(arrived) {
			t.Errorf("%d of 3000 arrived, want about 200; %s", arrived, text(st.RX, st.TX))
		}
		// Without the rate frames pass at once again.
		r.configure(t, 1, vswitch.PortConfig{})
		wantPass(t, r, 0, wire, 0, 1)
	})
}

// What waited at a shaped port goes before what comes once the rate is off.
func TestShapeOff(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		wire := frame(port.Broadcast, station(0), 0, 1000)
		number, next := uint32(0), uint32(0)
		send := func(n int) {
			for range n {
				binary.BigEndian.PutUint32(wire[14:], number)
				number++
				r.lines[0].Put(0, memory.Packet{Wire: bytes.Clone(wire)})
			}
		}
		for range 20 {
			r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 1000}})
			send(100)
			synctest.Wait() // they wait
			var more sync.WaitGroup
			more.Go(func() { send(100) })
			r.configure(t, 1, vswitch.PortConfig{})
			more.Wait()
			for ; next < number; next++ {
				got, err := r.lines[1].Take(0, nil)
				if err != nil {
					t.Fatal(err)
				}
				if n := binary.BigEndian.Uint32(got.Wire[14:]); n != next {
					t.Fatalf("frame %d arrived where %d was due", n, next)
				}
			}
		}
		wantDrops(t, r, 1, port.DropShaped, 0)
	})
}

// All that waited is sent when the call that takes the rate off returns, were it one frame.
func TestShapeOffSendsAll(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		for n := range 12 { // some of which are too many to be sent at once
			r.configure(t, 1, vswitch.PortConfig{Shape: port.Rate{PerSecond: 1000}})
			for range n {
				r.lines[0].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(0), 0, 1000)})
			}
			synctest.Wait()
			r.configure(t, 1, vswitch.PortConfig{})
			if got := len(r.taken(1)); got != n {
				t.Errorf("%d of %d frames were sent", got, n)
			}
		}
	})
}

func TestMirrorToPort(t *testing.T) {
	inRig(t, 4, func(t *testing.T, r *rig) {
		set := func(m ...vswitch.Mirror) {
			t.Helper()
			if err := r.SetMirrors(m); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 3 {
			r.pass(i, frame(port.Broadcast, station(i), 0, 60))
		}
		set(vswitch.Mirror{Name: "in", Ports: []string{"p0"}, In: true, To: "p3"})
		wantPass(t, r, 0, frame(station(1), station(0), 0, 60), 0, 1, 0, 1)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 1, 0, 0, 0)
		// What the source port refuses is mirrored as well.
		wantPass(t, r, 0, frame(0x0180_c200_0003, station(0), 0, 60), 0, 0, 0, 1)

		set(vswitch.Mirror{Name: "out", Ports: []string{"p0"}, Out: true, To: "p3"})
		wantPass(t, r, 0, frame(station(1), station(0), 0, 60), 0, 1, 0, 0)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 1, 0, 0, 1)

		set(vswitch.Mirror{Name: "both", Ports: []string{"p0"}, In: true, Out: true, To: "p3"})
		wantPass(t, r, 0, frame(station(1), station(0), 0, 60), 0, 1, 0, 1)
		wantPass(t, r, 1, frame(station(0), station(1), 0, 60), 1, 0, 0, 1)
		// The target is not flooded to, and what it sends goes nowhere.
		wantPass(t, r, 2, frame(port.Broadcast, station(2), 0, 60), 1, 1, 0, 1) // by p0's mirror alone
		wantPass(t, r, 3, frame(port.Broadcast, station(3), 0, 60), 0, 0, 0, 0)
		wantDrops(t, r, 3, port.DropMirrorTarget, 1)

		// A shortened copy; the original is whole.
		set(vswitch.Mirror{Name: "short", Ports: []string{"p0"}, In: true, To: "p3", SnapLen: 64,
			Filter: func(f *port.Frame, _ port.Tag) bool { return len(f.Data) > 500 }})
		big := frame(station(1), station(0), 0, 1000)
		r.lines[0].Put(0, memory.Packet{Wire: big}, memory.Packet{Wire: frame(station(1), station(0), 0, 60)})
		synctest.Wait()
		if got := r.taken(1); len(got) != 2 || !bytes.Equal(got[0], big) {
			t.Error("the originals did not arrive whole")
		}
		if got := r.taken(3); len(got) != 1 || !bytes.Equal(got[0], big[:64]) {
			t.Errorf("%d copies arrived, want one of 64 bytes", len(got))
		}

		set()
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 1, 1, 1)
	})
}

func TestMirrorToVLAN(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		r.configure(t, 0, vswitch.PortConfig{VLAN: port.VLAN{Access: 10}})
		r.configure(t, 1, vswitch.PortConfig{VLAN: port.VLAN{Access: 10}})
		var carried port.VLANSet
		carried.Add(999)
		r.configure(t, 2, vswitch.PortConfig{VLAN: port.VLAN{Trunk: carried}})
		var ten port.VLANSet
		ten.Add(10)
		if err := r.SetMirrors([]vswitch.Mirror{{Name: "rspan", VLANs: ten, In: true, ToVLAN: 999}}); err != nil {
			t.Fatal(err)
		}
		wire := frame(station(1), station(0), 0, 60)
		r.lines[0].Put(0, memory.Packet{Wire: wire})
		synctest.Wait()
		if got := r.taken(1); len(got) != 1 || !bytes.Equal(got[0], wire) {
			t.Errorf("the original arrived as %x", got)
		}
		want := slices.Concat(wire[:12], []byte{0x81, 0, 0x03, 0xe7}, wire[12:])
		if got := r.taken(2); len(got) != 1 || !bytes.Equal(got[0], want) {
			t.Errorf("the copy arrived as %x, want %x", got, want)
		}
	})
}

// TestMirrorBalance: copies of mirrors are accounted for.
func TestMirrorBalance(t *testing.T) {
	inRig(t, 3, func(t *testing.T, r *rig) {
		if err := r.SetMirrors([]vswitch.Mirror{{Name: "m", Ports: []string{"p0", "p1"}, In: true, Out: true, To: "p2"}}); err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			r.pass(i%2, frame(station(i%3), station(i%2), 0, 60))
		}
		var in, out uint64
		for _, p := range r.ports {
			st := p.Stats()
			in += st.RX.Frames + st.RX.Copies
			out += st.TX.Frames + st.RX.Drops() + st.TX.Drops()
		}
		if in != out || in <= 100 {
			t.Errorf("%d in, %d out", in, out)
		}
	})
}

func TestBadMirrors(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 2, memory.Options{})
	defer r.Close()
	var ten port.VLANSet
	ten.Add(10)
	good := vswitch.Mirror{Name: "m", Ports: []string{"p0"}, In: true, To: "p1"}
	for name, change := range map[string]func(*vswitch.Mirror){
		"no name":           func(m *vswitch.Mirror) { m.Name = "" },
		"no source":         func(m *vswitch.Mirror) { m.Ports = nil },
		"no direction":      func(m *vswitch.Mirror) { m.In = false },
		"no target":         func(m *vswitch.Mirror) { m.To = "" },
		"two targets":       func(m *vswitch.Mirror) { m.ToVLAN = 5 },
		"VLAN 4095":         func(m *vswitch.Mirror) { m.To, m.ToVLAN = "", 4095 },
		"VLAN into itself":  func(m *vswitch.Mirror) { m.VLANs, m.To, m.ToVLAN = ten, "", 10 },
		"port to itself":    func(m *vswitch.Mirror) { m.To = "p0" },
		"less than headers": func(m *vswitch.Mirror) { m.SnapLen = 13 },
	} {
		m := good
		change(&m)
		if err := r.SetMirrors([]vswitch.Mirror{m}); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	if err := r.SetMirrors([]vswitch.Mirror{good, good}); err == nil {
		t.Error("two mirrors of a name are taken")
	}
	if err := r.SetMirrors([]vswitch.Mirror{good}); err != nil {
		t.Error(err)
	}
}

func TestGroups(t *testing.T) {
	const group, other = port.MAC(0x0100_5e01_0203), port.MAC(0x0100_5e01_0204)
	synctest.Test(t, func(t *testing.T) {
		var control []vswitch.ControlFrame
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
			c.Data = bytes.Clone(c.Data)
			control = append(control, c)
		}}, 4, memory.Options{})
		defer r.Close()
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{
			VLANs:     one,
			IsControl: func(data []byte) bool { return bytes.HasSuffix(data, []byte("join")) },
			IsQuery:   func(data []byte) bool { return bytes.HasSuffix(data, []byte("query")) },
			Lookup: func(vlan uint16, mac uint64) (ports []uint16, flood bool) {
				if vlan != 1 {
					t.Errorf("a group of VLAN %d is looked up", vlan)
				}
				return []uint16{0, 2, 77}, mac != uint64(group)
			},
		})
		wantPass(t, r, 0, frame(group, station(0), 0, 60), 0, 0, 1, 0)
		wantPass(t, r, 1, frame(group, station(1), 0, 60), 1, 0, 1, 0)
		wantPass(t, r, 0, frame(other, station(0), 0, 60), 0, 1, 1, 1)
		// What no host joins is flooded all the same.
		for _, mac := range []port.MAC{port.Broadcast, 0x0180_c200_0021, 0x0900_0700_0001} {
			wantPass(t, r, 0, frame(mac, station(0), 0, 60), 0, 1, 1, 1)
		}
		// A join goes to the switch itself and nowhere else.
		wantPass(t, r, 1, append(frame(group, station(1), 0, 60), "join"...), 0, 0, 0, 0)
		if len(control) != 1 || control[0].Port != r.ports[1] || control[0].VLAN != 1 || port.MACFrom(control[0].Data) != group {
			t.Errorf("control frames %+v", control)
		}
		wantDrops(t, r, 1, port.DropConsumed, 1)
		wantPass(t, r, 1, append(frame(port.Broadcast, station(1), 0, 60), "join"...), 0, 0, 0, 0)
		wantDrops(t, r, 1, port.DropConsumed, 2)
		if len(control) != 2 || control[1].Queue != vswitch.QueueGroups || control[1].VLAN != 1 {
			t.Errorf("control frames of a broadcast %+v", control)
		}
		// A query to a station goes to it, known or not, or to the switch itself.
		for _, dst := range []port.MAC{station(1), station(3)} {
			query := append(frame(dst, station(0), 0, 60), "query"...)
			r.ports[0].SetRouterGuard(false)
			if got := r.pass(0, query); got[1] != 1 && got[3] != 1 {
				t.Errorf("a query reaches %v", got)
			}
			r.ports[0].SetRouterGuard(true)
			before := len(control)
			wantPass(t, r, 0, query, 0, 0, 0, 0)
			if len(control) != before+1 || !bytes.Equal(control[before].Data, query) || control[before].Queue != vswitch.QueueGroups || control[before].VLAN != 1 {
				t.Errorf("control frames %+v", control[before:])
			}
			if got := r.pass(0, frame(dst, station(0), 0, 60)); got[1] != 1 && got[3] != 1 {
				t.Errorf("another frame reaches %v", got)
			}
		}
		// Other VLANs are not snooped.
		for p := range r.ports {
			r.configure(t, p, vswitch.PortConfig{VLAN: port.VLAN{QinQ: 2}})
		}
		wantPass(t, r, 0, frame(group, station(0), 0, 60), 0, 1, 1, 1)
		wantPass(t, r, 0, append(frame(station(3), station(0), 0, 60), "query"...), 0, 1, 1, 1)
	})
}

func TestTree(t *testing.T) {
	bpdu := frame(0x0180_c200_0000, station(1), 0, 60)
	synctest.Test(t, func(t *testing.T) {
		control := 0
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
			if c.Port.Name() != "p1" || c.VLAN != 0 {
				t.Errorf("BPDU by %s in VLAN %d", c.Port.Name(), c.VLAN)
			}
			control++
		}}, 3, memory.Options{})
		defer r.Close()
		wantPass(t, r, 1, bpdu, 0, 0, 0)
		wantDrops(t, r, 1, port.DropReserved, 1)

		hearBPDUs(r.ports[1])
		r.ports[1].SetTree(vswitch.TreeDiscarding, true)
		hello := frame(port.Broadcast, station(1), 0, 60)
		wantPass(t, r, 1, hello, 0, 0, 0)
		wantPass(t, r, 0, frame(port.Broadcast, station(0), 0, 60), 0, 0, 1)
		wantPass(t, r, 1, bpdu, 0, 0, 0)
		wantDrops(t, r, 1, port.DropBlocked, 1)
		if r.FDB().Count(1) != 0 || control != 1 {
			t.Errorf("discarding: %d learned, %d BPDUs", r.FDB().Count(1), control)
		}
		r.ports[1].SetTree(vswitch.TreeLearning, true)
		wantPass(t, r, 1, hello, 0, 0, 0)
		if r.FDB().Count(1) != 1 {
			t.Error("learning: nothing is learned")
		}
		r.ports[1].SetTree(vswitch.TreeForwarding, true)
		wantPass(t, r, 1, hello, 1, 0, 1)
	})
}

func TestGroupForward(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		lldp, eapol := frame(0x0180_c200_000e, station(0), 0, 60), frame(0x0180_c200_0003, station(0), 0, 60)
		wantPass(t, r, 0, lldp, 0, 0)
		r.SetGroupForward(1 << 0xe)
		wantPass(t, r, 0, lldp, 0, 1)
		wantPass(t, r, 0, eapol, 0, 0)
	})
}

func TestTransmit(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		var carried port.VLANSet
		carried.Add(20)
		r.configure(t, 1, vswitch.PortConfig{VLAN: port.VLAN{Trunk: carried, Native: 10}})
		wire := frame(port.Broadcast, station(9), 0, 60)
		for vlan, want := range map[uint16][]byte{
			0: wire, 10: wire, 20: slices.Concat(wire[:12], []byte{0x81, 0, 0, 20}, wire[12:]),
		} {
			if err := r.ports[1].Transmit(vlan, wire); err != nil {
				t.Fatal(err)
			}
			if got := r.taken(1); len(got) != 1 || !bytes.Equal(got[0], want) {
				t.Errorf("VLAN %d: sent %x, want %x", vlan, got, want)
			}
		}
		if err := r.ports[1].Transmit(30, wire); err == nil {
			t.Error("a VLAN that the port does not carry is taken")
		}
		if err := r.ports[1].Transmit(0, wire[:13]); err == nil {
			t.Error("a runt is taken")
		}
		r.ports[1].SetForwarding(false)
		if err := r.ports[1].Transmit(0, wire); err == nil {
			t.Error("a port that is shut takes a frame")
		}
		if st := r.ports[1].Stats(); r.Injected() != 3 || st.TX.Frames != 3 {
			t.Errorf("%d injected; %s", r.Injected(), text(st.RX, st.TX))
		}
	})
}
