package vswitch_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// acceptAll is the check of a stage that refuses nothing.
func acceptAll(*port.Frame, port.Drop) (port.Drop, bool) { return port.DropNone, false }

// A stage stands before everything else: what it refuses is neither trapped, learned nor
// mirrored, and is counted for its reason alone.
func TestStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		trapped := 0
		r := newRig(t, vswitch.Config{
			Traps:     []vswitch.Trap{{Dst: 0x0180_c200_0000, Queue: vswitch.QueueTree}, {Dst: 0x0300_0000_0001, Queue: vswitch.QueueLoop}},
			OnControl: func(vswitch.ControlFrame) { trapped++ },
		}, 3, memory.Options{})
		defer r.Close()
		if err := r.SetMirrors([]vswitch.Mirror{{Name: "m", Ports: []string{"p0"}, In: true, To: "p2"}}); err != nil {
			t.Fatal(err)
		}
		seen := 0
		r.ports[0].SetStage(&vswitch.Stage{Setting: "--test", Check: func(f *port.Frame, classified port.Drop) (port.Drop, bool) {
			seen++
			if classified != port.DropNone || f.VLAN != 1 {
				t.Errorf("the stage gets VLAN %d, %v", f.VLAN, classified)
			}
			return port.DropGuardMAC, false
		}})
		frames := [][]byte{
			frame(station(1), station(0), 1, 60), frame(port.Broadcast, station(0), 2, 60),
			frame(0x0180_c200_0000, station(0), 3, 60), frame(0x0300_0000_0001, station(0), 4, 60),
			frame(port.Broadcast, port.Broadcast, 5, 60),
		}
		put := func() {
			for _, wire := range frames {
				r.lines[0].Put(0, memory.Packet{Wire: wire})
			}
			synctest.Wait()
		}
		put()
		for p := 1; p < 3; p++ {
			if got := r.taken(p); len(got) != 0 {
				t.Errorf("port %d got %x", p, got)
			}
		}
		st := r.ports[0].Stats()
		if seen != len(frames) || trapped != 0 || r.FDB().Len() != 0 || st.RX.Dropped[port.DropGuardMAC] != uint64(len(frames)) {
			t.Errorf("%d seen, %d trapped, %d known, counted %v", seen, trapped, r.FDB().Len(), st.RX.Dropped)
		}
		r.ports[0].SetStage(nil)
		put()
		if got := r.taken(1); len(got) != 2 || seen != len(frames) || trapped != 2 {
			t.Errorf("without the stage %d arrive, %d seen, %d trapped", len(got), seen, trapped)
		}
	})
}

// A stage learns what became of the frames that it asks about, whichever later rule decides.
func TestStageOutcome(t *testing.T) {
	flooded := frame(port.Broadcast, station(0), 1, 60)
	for name, c := range map[string]struct {
		config vswitch.PortConfig // of both ports
		frame  []byte
		want   port.Drop
	}{
		"it leaves":     {vswitch.PortConfig{}, flooded, port.DropNone},
		"it is trapped": {vswitch.PortConfig{}, frame(0x0300_0000_0001, station(0), 1, 60), port.DropConsumed},
		"reserved":      {vswitch.PortConfig{}, frame(0x0180_c200_000e, station(0), 1, 60), port.DropReserved},
		"bad source":    {vswitch.PortConfig{}, frame(port.Broadcast, 0x0300_0000_0002, 1, 60), port.DropBadSource},
		"rate":          {vswitch.PortConfig{Police: port.Rate{PerSecond: 1}, PoliceBurst: time.Millisecond}, flooded, port.DropPoliced},
		"storm":         {vswitch.PortConfig{Storm: vswitch.StormRates{Broadcast: port.Rate{PerSecond: 1}}}, flooded, port.DropStormBroadcast},
		"locked":        {vswitch.PortConfig{Locked: true}, flooded, port.DropLocked},
		"isolated":      {vswitch.PortConfig{Isolated: true}, flooded, port.DropNoDestination},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRig(t, vswitch.Config{Traps: []vswitch.Trap{{Dst: 0x0300_0000_0001, Queue: vswitch.QueueLoop}}}, 2, memory.Options{})
				defer r.Close()
				for _, p := range r.ports {
					if err := p.Configure(c.config); err != nil {
						t.Fatal(err)
					}
				}
				var got []port.Drop
				odd := false
				r.ports[0].SetStage(&vswitch.Stage{
					Check: func(*port.Frame, port.Drop) (port.Drop, bool) { odd = !odd; return port.DropNone, odd },
					Outcome: func(f *port.Frame, drop port.Drop) {
						if f.VLAN != 1 {
							t.Errorf("it is in VLAN %d", f.VLAN)
						}
						got = append(got, drop)
					},
				})
				for range 4 { // the first uses up what a rate admits
					r.lines[0].Put(0, memory.Packet{Wire: c.frame})
				}
				synctest.Wait()
				if len(got) != 2 || got[1] != c.want {
					t.Errorf("told %v, want %v", got, c.want)
				}
			})
		})
	}
}

// The default stage is that of ports without one of their own.
func TestDefaultStage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, vswitch.Config{}, 2, memory.Options{})
		defer r.Close()
		counted := func(n *int) func(*port.Frame, port.Drop) (port.Drop, bool) {
			return func(*port.Frame, port.Drop) (port.Drop, bool) { *n++; return port.DropNone, false }
		}
		own, others := 0, 0
		r.ports[0].SetStage(&vswitch.Stage{Check: counted(&own)})
		r.SetDefaultStage(&vswitch.Stage{Check: counted(&others)})
		for p := range 2 {
			r.lines[p].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(p), 1, 60)})
		}
		synctest.Wait()
		if own != 1 || others != 1 {
			t.Errorf("%d and %d", own, others)
		}
		r.SetDefaultStage(nil)
		r.lines[1].Put(0, memory.Packet{Wire: frame(port.Broadcast, station(1), 1, 60)})
		synctest.Wait()
		if others != 1 {
			t.Errorf("%d after it is gone", others)
		}
	})
}

// Frames to unknown stations do not reach a port with a stage of its own, unless it says so.
func TestStageUnknown(t *testing.T) {
	for _, unknown := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			r := newRig(t, vswitch.Config{}, 3, memory.Options{})
			defer r.Close()
			r.ports[1].SetStage(&vswitch.Stage{Unknown: unknown, Check: acceptAll})
			r.lines[0].Put(0, memory.Packet{Wire: frame(station(9), station(0), 1, 60)}, memory.Packet{Wire: frame(port.Broadcast, station(0), 2, 60)})
			synctest.Wait()
			want := 1
			if unknown {
				want = 2
			}
			if n := len(r.taken(1)); n != want {
				t.Errorf("with %v %d frames arrive, want %d", unknown, n, want)
			}
			if n := len(r.taken(2)); n != 2 {
				t.Errorf("%d frames arrive elsewhere", n)
			}
		})
	}
}

// Classify is how the port treats a frame that it receives.
func TestClassify(t *testing.T) {
	r := newRig(t, vswitch.Config{}, 1, memory.Options{})
	defer r.Close()
	if err := r.ports[0].Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: 10}}); err != nil {
		t.Fatal(err)
	}
	var f port.Frame
	f.SetWire(frame(port.Broadcast, station(0), 1, 60))
	if why := r.ports[0].Classify(&f); why != port.DropNone || f.VLAN != 10 {
		t.Errorf("untagged: %v, VLAN %d", why, f.VLAN)
	}
	f.Tag = port.MakeTag(port.TPIDCustomer, 10)
	if why := r.ports[0].Classify(&f); why != port.DropVLANTagged {
		t.Errorf("tagged: %v", why)
	}
}

func TestStageAllocs(t *testing.T) {
	if testenv.RaceEnabled {
		t.Skip("the race detector allocates")
	}
	r := newRig(t, vswitch.Config{}, 2, memory.Options{Depth: 16})
	defer r.Close()
	checked := make(chan struct{}, 1)
	r.ports[0].SetStage(&vswitch.Stage{Check: func(*port.Frame, port.Drop) (port.Drop, bool) {
		checked <- struct{}{}
		return port.DropGuardIPv4, false
	}})
	packets := []memory.Packet{{Wire: frame(station(1), station(0), 1, 60)}}
	check := func() {
		r.lines[0].Put(0, packets...)
		<-checked
	}
	for range 100 { // makes all buffers
		check()
	}
	if n := testing.AllocsPerRun(100, check); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
