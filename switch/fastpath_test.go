package vswitch_test

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// told is a fast path that remembers what it was told last.
type told struct {
	vswitch.FastPath // nothing else is called
	ports            []vswitch.FastPort
	flood            vswitch.FastFlood
	show             func(*vswitch.FastCopy)
	takes            func(uint16) bool
	guards           map[uint16]*vswitch.FastGuard
	settled          int
	counted          vswitch.PortStats
}

func (f *told) Bind(*fdb.Table)                        {}
func (f *told) Show(show func(*vswitch.FastCopy))      { f.show = show }
func (f *told) TakeFloods(takes func(uint16) bool)     { f.takes = takes }
func (f *told) Changed(fdb.Key)                        {}
func (f *told) Flushed(uint16)                         {}
func (f *told) Settle()                                { f.settled++ }
func (f *told) Refresh()                               {}
func (f *told) Now() int64                             { return 1 }
func (f *told) Budget(uint16, uint8) *atomic.Int64     { return new(atomic.Int64) }
func (f *told) Counters(uint16) (st vswitch.PortStats) { return f.counted }
func (f *told) Release(uint16) (st vswitch.PortStats)  { st, f.counted = f.counted, st; return st }

func (f *told) Publish(ports []vswitch.FastPort, flood vswitch.FastFlood) {
	f.ports, f.flood = ports, flood
}

func (f *told) Explain(uint16, []byte) vswitch.FastVerdict { return vswitch.FastSent }

func (f *told) Guard(number uint16, g *vswitch.FastGuard) { f.guards[number] = g }

func (f *told) GuardHeard(number uint16, s vswitch.FastSender) (time.Duration, bool) {
	return time.Second, f.guards[number] != nil && f.guards[number].Senders[0] == s
}

// device is a port on a device of the kernel.
type device struct {
	*memory.Port
	port.Device // nothing of it is called
}

func (device) Punted() bool { return true }

// bare is a device without a program; substitute stands in for a device.
type bare struct{ device }

func (bare) Punted() bool { return false }

type substitute struct{ *memory.Port }

func (substitute) Substitutes() string { return "something else stands in" }

// attach gives p0 another device.
func attach(dev func() port.Port) func(*vswitch.Switch, []*vswitch.Port) {
	return func(_ *vswitch.Switch, ports []*vswitch.Port) {
		if err := errors.Join(ports[0].Detach(), ports[0].Attach(dev())); err != nil {
			panic(err)
		}
	}
}

func manyMirrors(t *testing.T, sw *vswitch.Switch, n int) {
	var all []vswitch.Mirror
	for i := range n {
		all = append(all, vswitch.Mirror{Name: fmt.Sprint("m", i), Ports: []string{"p0"}, In: true, To: "p2"})
	}
	if err := sw.SetMirrors(all); err != nil {
		t.Error(err)
	}
}

// Of four ports, of which the last has no device, and all but it are in VLAN 1, a fast path
// learns what each may do, and in which VLANs it may flood.
func TestFastPathIsTold(t *testing.T) {
	stage := &vswitch.Stage{Check: acceptAll, Setting: "--test"}
	mirror := func(change func(m *vswitch.Mirror)) func(*vswitch.Switch, []*vswitch.Port) {
		return func(sw *vswitch.Switch, _ []*vswitch.Port) {
			m := vswitch.Mirror{Name: "m0", Ports: []string{"p0"}, In: true, To: "p2"}
			change(&m)
			if err := sw.SetMirrors([]vswitch.Mirror{m}); err != nil {
				t.Fatal(err)
			}
		}
	}
	configure := func(n int, c vswitch.PortConfig) func(*vswitch.Switch, []*vswitch.Port) {
		return func(_ *vswitch.Switch, ports []*vswitch.Port) {
			if err := ports[n].Configure(c); err != nil {
				t.Fatal(err)
			}
		}
	}
	rate := port.Rate{PerSecond: 1000}
	for name, c := range map[string]struct {
		change   func(*vswitch.Switch, []*vswitch.Port)
		from, to string // "+" where a port is on the fast path, "-" where it is not
		floods   bool   // in VLAN 1
		why      string // why p0 is kept off
		check    func(*told) bool
	}{
		"nothing": {from: "+++", to: "+++", floods: true},
		"police":  {change: configure(0, vswitch.PortConfig{Police: rate}), from: "+++", to: "+++", floods: true},
		"storm": {
			change: configure(0, vswitch.PortConfig{Storm: vswitch.StormRates{Multicast: rate, UnknownUnicast: rate}}),
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[0].Punt == vswitch.Multicast|vswitch.UnknownUnicast },
		},
		"not flooded": {
			change: configure(0, vswitch.PortConfig{NoFlood: vswitch.Multicast | vswitch.UnknownUnicast}),
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool {
				return f.ports[0].NoFlood == vswitch.Multicast|vswitch.UnknownUnicast && f.ports[1].NoFlood == 0
			},
		},
		"not learning": {change: configure(0, vswitch.PortConfig{NoLearning: true}), from: "+++", to: "+++", floods: true},
		"shape":        {change: configure(0, vswitch.PortConfig{Shape: rate}), from: "+++", to: "-++", why: "--rate-out"},
		"not below":    {change: configure(0, vswitch.PortConfig{Shape: rate, NotBelow: "which is slow"}), from: "+++", to: "-++", why: "--rate-out, which is slow"},
		"shaped below": {change: configure(0, vswitch.PortConfig{Shape: rate, ShapedBelow: true}), from: "+++", to: "+++", floods: true},
		"no device in the VLAN": {
			change: configure(3, vswitch.PortConfig{}),
			from:   "+++", to: "+++",
		},
		"blocked": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) { ports[0].SetTree(vswitch.TreeDiscarding, true) },
			from:   "-++", to: "-++", floods: true, why: "spanning tree does not forward by it",
			check: func(f *told) bool { return f.ports[0].Deaf && !f.ports[1].Deaf },
		},
		"resolution": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) { ports[0].SetResolution(true) },
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool {
				return f.ports[0].Punt == vswitch.Broadcast|vswitch.Multicast && f.ports[1].Punt == 0
			},
		},
		"router guard": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) {
				sw.SetGroups(&vswitch.Groups{})
				ports[0].SetRouterGuard(true)
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[0].RouterGuard && !f.ports[1].RouterGuard },
		},
		"a stage for all": { // floods pass it
			change: func(sw *vswitch.Switch, _ []*vswitch.Port) { sw.SetDefaultStage(stage) },
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[2].Punt == vswitch.Broadcast|vswitch.Multicast },
		},
		"a stage": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) { ports[0].SetStage(stage) },
			from:   "-++", to: "-++", why: "--test",
			check: func(f *told) bool { return !f.ports[0].Guarded && !f.ports[0].Snoop && !f.ports[1].Guarded },
		},
		"a stage that the fast path knows": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) {
				ports[0].SetStage(&vswitch.Stage{Check: stage.Check, Fast: true})
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[0].Guarded && !f.ports[0].Snoop && !f.ports[1].Guarded },
		},
		"a stage that others learn from": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) {
				ports[0].SetStage(&vswitch.Stage{Check: stage.Check, Fast: true, Snoop: true})
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[0].Guarded && f.ports[0].Snoop && !f.ports[1].Snoop },
		},
		"traps": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) {
				ports[0].SetTraps(vswitch.QueueGuard, []vswitch.Trap{{Dst: 0x0100_0000_0001}, {Dst: 0x0180_c200_0003}})
				ports[1].SetTraps(vswitch.QueueGuard, []vswitch.Trap{{Dst: 0x0100_0000_0001}, {Dst: 0x0100_0000_0002, Type: 5}})
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return slices.Equal(f.flood.Traps, []port.MAC{0x0100_0000_0001, 0x0100_0000_0002}) },
		},
		"too many traps": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) {
				var traps []vswitch.Trap
				for n := range 9 {
					traps = append(traps, vswitch.Trap{Dst: 0x0100_0000_0000 + port.MAC(n)})
				}
				ports[0].SetTraps(vswitch.QueueGuard, traps)
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.flood.Traps == nil && f.ports[2].Punt == vswitch.Multicast },
		},
		"snooping": {
			change: func(sw *vswitch.Switch, _ []*vswitch.Port) {
				g := &vswitch.Groups{}
				g.VLANs.Add(1)
				sw.SetGroups(g)
			},
			from: "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.flood.Groups != nil && f.flood.Groups.VLANs.Has(1) },
		},

		"mirror": {
			change: mirror(func(*vswitch.Mirror) {}),
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].MirrorIn == 1 && f.ports[2].MirrorTo == 1 && f.ports[2].Deaf },
		},
		"mirror of what is sent": { // a mirror copies a flooded frame once
			change: mirror(func(m *vswitch.Mirror) { m.In, m.Out = false, true }),
			from:   "++-", to: "++-",
			check: func(f *told) bool { return f.ports[0].MirrorOut == 1 },
		},
		"mirror to no device": {
			change: mirror(func(m *vswitch.Mirror) { m.To = "p3" }),
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool {
				p := f.ports[0]
				return p.MirrorIn == 0 && p.CopyIn && !p.CopyOut && p.CopyLen > 1<<30
			},
		},
		"mirror with a filter": {
			change: mirror(func(m *vswitch.Mirror) { m.Filter = func(*port.Frame, port.Tag) bool { return true } }),
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].MirrorIn == 0 && f.ports[0].CopyIn && !f.ports[0].CopyOut },
		},
		"mirror with a filter of what one port receives and sends": {
			change: mirror(func(m *vswitch.Mirror) {
				m.Filter = func(*port.Frame, port.Tag) bool { return true }
				m.Out = true
			}),
			from: "++-", to: "++-",
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[0].CopyOut && !f.ports[1].CopyIn },
		},
		"mirror with a filter of what several ports send": {
			change: mirror(func(m *vswitch.Mirror) {
				m.Filter = func(*port.Frame, port.Tag) bool { return true }
				m.In, m.Out, m.Ports = false, true, []string{"p0", "p1"}
			}),
			from: "++-", to: "++-",
			check: func(f *told) bool { return f.ports[0].CopyOut && f.ports[1].CopyOut && !f.ports[0].CopyIn },
		},
		"mirror with a filter of a port and a VLAN": {
			change: mirror(func(m *vswitch.Mirror) {
				m.Filter = func(*port.Frame, port.Tag) bool { return true }
				m.Out = true
				m.VLANs.Add(1)
			}),
			from: "---", to: "---",
			why: "mirror m0 has a filter, and copies what several ports receive and send",
		},
		"mirror that truncates": {
			change: mirror(func(m *vswitch.Mirror) { m.SnapLen, m.Out = 64, true }),
			from:   "++-", to: "++-", // of what is flooded it copies one
			check: func(f *told) bool {
				p := f.ports[0]
				return p.CopyIn && p.CopyOut && p.CopyLen == port.MinHead+4 && !f.ports[1].CopyIn
			},
		},
		"mirror that truncates what several ports receive and send": {
			change: mirror(func(m *vswitch.Mirror) { m.SnapLen, m.Out, m.Ports = 64, true, []string{"p0", "p1"} }),
			from:   "++-", to: "++-",
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[1].CopyOut },
		},
		"mirror with a filter of what several ports receive and send": {
			change: mirror(func(m *vswitch.Mirror) {
				m.Filter = func(*port.Frame, port.Tag) bool { return true }
				m.Out, m.Ports = true, []string{"p0", "p1"}
			}),
			from: "---", to: "---",
			why: "mirror m0 has a filter, and copies what several ports receive and send",
		},
		"mirror that truncates what several ports receive": {
			change: mirror(func(m *vswitch.Mirror) { m.SnapLen, m.Ports = 1000, []string{"p0", "p1"} }),
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[1].CopyIn && f.ports[1].CopyLen == 1004 },
		},
		"mirror of a VLAN": {
			change: mirror(func(m *vswitch.Mirror) { m.Ports = nil; m.VLANs.Add(1) }),
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[1].CopyIn && f.ports[1].MirrorIn == 0 },
		},
		"mirror of a port and a VLAN": { // by one way only, so that no frame is copied twice
			change: mirror(func(m *vswitch.Mirror) { m.Out = true; m.VLANs.Add(1) }),
			from:   "++-", to: "++-",
			check: func(f *told) bool { return f.ports[0].MirrorIn == 0 && f.ports[0].CopyIn && f.ports[1].CopyOut },
		},
		"mirror into a VLAN": {
			change: mirror(func(m *vswitch.Mirror) { m.To, m.ToVLAN = "", 2 }),
			from:   "+++", to: "+++", floods: true,
			check: func(f *told) bool { return f.ports[0].CopyIn && !f.ports[1].CopyIn },
		},
		"mirror of what is sent into a VLAN": {
			change: mirror(func(m *vswitch.Mirror) { m.To, m.ToVLAN, m.Out = "", 2, true }),
			from:   "-++", to: "-++", why: "mirror m0 copies what is sent into a VLAN",
		},
		"mirror to a captured port": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) {
				mirror(func(*vswitch.Mirror) {})(sw, ports)
				sw.Watch(&vswitch.Watch{Ports: []string{"p2"}, Out: true, See: func(vswitch.Sight) {}})
			},
			from: "++-", to: "++-", floods: true,
			check: func(f *told) bool {
				return !f.ports[0].SeeOut && f.ports[2].SeeOut && f.ports[0].CopyIn && f.ports[0].MirrorIn == 0
			},
		},
		"mirror to a shaped port": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) {
				mirror(func(*vswitch.Mirror) {})(sw, ports)
				configure(2, vswitch.PortConfig{Shape: rate})(sw, ports)
			},
			from: "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[0].MirrorIn == 0 },
		},
		"mirror to a tunnel": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) {
				mirror(func(*vswitch.Mirror) {})(sw, ports)
				configure(2, vswitch.PortConfig{Tunnel: true})(sw, ports)
			},
			from: "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].CopyIn && f.ports[0].MirrorIn == 0 },
		},
		"mirror to a blocked port": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) {
				mirror(func(m *vswitch.Mirror) { m.SnapLen = 64 })(sw, ports)
				ports[2].SetTree(vswitch.TreeDiscarding, true)
			},
			from: "++-", to: "++-", floods: true,
		},
		"eight mirrors": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) { manyMirrors(t, sw, 8) },
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].MirrorIn == 0xff && f.ports[2].MirrorTo == 0xff },
		},
		"nine mirrors": {
			change: func(sw *vswitch.Switch, ports []*vswitch.Port) { manyMirrors(t, sw, 9) },
			from:   "++-", to: "++-", floods: true,
			check: func(f *told) bool { return f.ports[0].MirrorIn == 0xff && f.ports[0].CopyIn },
		},
		"not learning, tagged": {
			change: configure(0, vswitch.PortConfig{NoLearning: true, VLAN: port.VLAN{Trunk: vlans(1, 7)}}),
			from:   "+++", to: "+++", floods: true, why: "--learning off, for tagged frames",
		},
		"locked, tagged": {
			change: configure(0, vswitch.PortConfig{NoLearning: true, Locked: true, VLAN: port.VLAN{Trunk: vlans(1, 7)}}),
			from:   "+++", to: "+++", floods: true,
		},
		"not learning, one VLAN": {
			change: configure(0, vswitch.PortConfig{NoLearning: true, VLAN: port.VLAN{Trunk: vlans(7)}}),
			from:   "+++", to: "+++", floods: true,
		},
		"shut": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) { ports[0].SetForwarding(false) },
			from:   "++", to: "++", floods: true, why: "it does not forward",
		},
		"without a program": {
			change: attach(func() port.Port { return bare{device{Port: memory.New(memory.Options{})}} }),
			from:   "+++", to: "+++", floods: true, why: "no program is at its device; the log says why",
		},
		"memory": {
			change: attach(func() port.Port { return memory.New(memory.Options{}) }),
			from:   "++", to: "++", why: "its frames come by memory or a socket, not by a device of the kernel",
		},
		"a substitute": {
			change: attach(func() port.Port { return substitute{memory.New(memory.Options{})} }),
			from:   "++", to: "++", why: "something else stands in",
		},
		"no device": {
			change: func(_ *vswitch.Switch, ports []*vswitch.Port) {
				if err := ports[0].Detach(); err != nil {
					t.Error(err)
				}
			},
			from: "++", to: "++", floods: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := new(told)
			sw := vswitch.New(vswitch.Config{FastPath: f})
			defer sw.Close()
			var ports []*vswitch.Port
			for n := range 4 {
				p, err := sw.AddPort(fmt.Sprintf("p%d", n))
				if err != nil {
					t.Fatal(err)
				}
				var dev port.Port = memory.New(memory.Options{})
				if n < 3 {
					dev = device{Port: dev.(*memory.Port)}
				} else if err := p.Configure(vswitch.PortConfig{VLAN: port.VLAN{Access: 2}}); err != nil {
					t.Fatal(err)
				}
				if err := p.Attach(dev); err != nil {
					t.Fatal(err)
				}
				p.SetForwarding(true)
				ports = append(ports, p)
			}
			if c.change != nil {
				c.change(sw, ports)
			}
			sign := map[bool]string{true: "+", false: "-"}
			from, to := "", ""
			for _, p := range f.ports {
				from, to = from+sign[p.From], to+sign[p.To]
			}
			if from != c.from || to != c.to {
				t.Errorf("from is %s, to is %s, want %s and %s", from, to, c.from, c.to)
			}
			left := name == "no device in the VLAN" || name == "mirror to no device" // p3 is not in VLAN 2, or deaf
			if f.flood.VLANs.Has(1) != c.floods || f.flood.VLANs.Has(2) != left || !f.flood.VLANs.Has(3) {
				t.Errorf("it floods in %v", &f.flood.VLANs)
			}
			if why := strings.Join(ports[0].KeptOff(), "; "); why != c.why {
				t.Errorf("p0 is kept off by %q, want %q", why, c.why)
			}
			if c.check != nil && !c.check(f) {
				t.Errorf("it was told %+v, %v", f.ports, f.flood.Traps)
			}
		})
	}
}

// hearing is a fast path that hears one station all the time, and tells so when asked.
type hearing struct {
	vswitch.FastPath // nothing else is called
	key              fdb.Key
	table            *fdb.Table
	asked, changed   atomic.Int64
	flushed          atomic.Int64
}

func (h *hearing) Bind(t *fdb.Table)                             { h.table = t }
func (h *hearing) Show(func(*vswitch.FastCopy))                  {}
func (h *hearing) TakeFloods(func(uint16) bool)                  {}
func (h *hearing) Publish([]vswitch.FastPort, vswitch.FastFlood) {}
func (h *hearing) Changed(fdb.Key)                               { h.changed.Add(1) }
func (h *hearing) Flushed(uint16)                                { h.flushed.Add(1) }

func (h *hearing) Refresh() {
	h.asked.Add(1)
	h.table.Heard(h.key, 0, 0)
}

// A station that the fast path alone hears is not forgotten, with whatever ageing time and
// however that changes, and the fast path is not asked more often than that takes.
func TestFastPathIsAskedBeforeStationsAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &hearing{key: fdb.MakeKey(1, 2)}
		sw := vswitch.New(vswitch.Config{FastPath: h})
		defer sw.Close()
		if _, err := sw.AddPort("vm0"); err != nil {
			t.Fatal(err)
		}
		sw.FDB().Learn(h.key, 0)
		h.changed.Store(0)
		for _, c := range []struct {
			aging  time.Duration
			atMost int64 // times in a minute
		}{{300 * time.Second, 13}, {2 * time.Second, 61}, {-1, 13}, {time.Second, 61}, {20 * time.Second, 31}} {
			sw.Refresh()
			sw.FDB().SetAging(c.aging)
			before := h.asked.Load()
			time.Sleep(time.Minute)
			synctest.Wait()
			if n := h.changed.Load(); n != 0 {
				t.Fatalf("with an ageing time of %v the station is forgotten", c.aging)
			}
			if n := h.asked.Load() - before; n > c.atMost {
				t.Errorf("with an ageing time of %v the fast path is asked %d times in a minute, want %d at most", c.aging, n, c.atMost)
			}
		}
	})
}

// A fast path hears of each change of the FDB.
func TestFastPathHearsChanges(t *testing.T) {
	h := &hearing{key: fdb.MakeKey(1, 2)}
	sw := vswitch.New(vswitch.Config{FastPath: h})
	defer sw.Close()
	sw.FDB().Learn(h.key, 0)
	sw.FDB().FlushPort(0)
	if h.table != sw.FDB() || h.changed.Load() != 1 || h.flushed.Load() != 1 {
		t.Errorf("it heard of %d changes and %d flushes of %p", h.changed.Load(), h.flushed.Load(), h.table)
	}
}

// A fast path is told what a port may send, also before the port is there, and says when it heard
// a sender. Without a fast path nobody was heard.
func TestFastGuardIsTold(t *testing.T) {
	f := &told{guards: map[uint16]*vswitch.FastGuard{}}
	sw := vswitch.New(vswitch.Config{FastPath: f})
	defer sw.Close()
	alone := vswitch.New(vswitch.Config{})
	defer alone.Close()
	sender := vswitch.FastSender{MAC: station(1), Addr: netip.MustParseAddr("192.0.2.1")}
	guard := &vswitch.FastGuard{Senders: []vswitch.FastSender{sender}}
	alone.SetFastGuard(7, guard)
	sw.SetFastGuard(7, guard)
	if f.guards[7] != guard {
		t.Errorf("the fast path has %+v", f.guards)
	}
	if ago, ok := sw.FastHeard(7, sender); !ok || ago != time.Second {
		t.Errorf("the sender was heard %v ago, %v", ago, ok)
	}
	if _, ok := sw.FastHeard(8, sender); ok {
		t.Error("the sender was heard by another port")
	}
	if ago, ok := alone.FastHeard(7, sender); ok || ago != 0 {
		t.Errorf("without a fast path the sender was heard %v ago, %v", ago, ok)
	}
	if !sw.Fast() || alone.Fast() {
		t.Error("the wrong switch has a fast path")
	}
}

// askedDevice is a device of the kernel that is asked for its losses. The kernel may be slow, so the switch
// must not be locked meanwhile.
type askedDevice struct {
	device
	t      *testing.T
	sw     *vswitch.Switch
	others *[]uint64
}

func (d askedDevice) Lost(others uint64) uint64 {
	*d.others = append(*d.others, others)
	unlocked := make(chan struct{})
	go func() { d.sw.Departed(); close(unlocked) }()
	select {
	case <-unlocked:
	case <-time.After(5 * time.Second):
		d.t.Error("a device is asked while the switch is locked")
	}
	return 3
}

// What a fast path forwarded counts for the port, also when its device is gone. Whoever asks a
// device for its losses says how many frames reached it without the switch.
func TestFastPathCounts(t *testing.T) {
	f := &told{}
	sw := vswitch.New(vswitch.Config{FastPath: f})
	defer sw.Close()
	p, err := sw.AddPort("p0")
	if err != nil {
		t.Fatal(err)
	}
	var others []uint64
	if err := p.Attach(askedDevice{device{Port: memory.New(memory.Options{})}, t, sw, &others}); err != nil {
		t.Fatal(err)
	}
	for n, step := range []func(){
		func() { p.Stats() }, func() { p.SetPlugged(false) }, func() { p.SetPlugged(false) }, func() { p.SetPlugged(true) },
		func() { _ = p.Detach() },
	} {
		others = nil
		f.counted.Fast, f.counted.RX.Frames, f.counted.TX.Frames = 7, 20, uint64(10+n)
		step()
		if want := []uint64{uint64(10 + n)}; n != 2 && !slices.Equal(others, want) || n == 2 && others != nil {
			t.Errorf("step %d: the device is asked with %v, want %v", n, others, want)
		}
	}
	st := p.Stats()
	if st.Fast != 7 || st.RX.Frames != 20 || st.TX.Frames != 14-3 || st.TX.Dropped[port.DropQueueFull] != 3 {
		t.Errorf("the port counts %+v", st)
	}
}

// overrun is a port whose device loses frames that nobody receives in time.
type overrun struct {
	*memory.Port
	lost atomic.Uint64
}

func (p *overrun) Overruns() uint64 { return p.lost.Load() }

// The switch floods for a port in the fast path's place, but not for ten seconds after it lost frames
// of the port, nor for a port that is not there.
func TestTakeFloods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &told{}
		sw := vswitch.New(vswitch.Config{FastPath: f})
		defer sw.Close()
		p, err := sw.AddPort("p0")
		if err != nil {
			t.Fatal(err)
		}
		dev := &overrun{Port: memory.New(memory.Options{})}
		p.SetForwarding(true)
		if err := p.Attach(dev); err != nil {
			t.Fatal(err)
		}
		want := func(what string, want bool) {
			t.Helper()
			if got := f.takes(p.Number()); got != want {
				t.Errorf("%s the switch takes floods: %v, want %v", what, got, want)
			}
		}
		time.Sleep(time.Second)
		want("at first", true)
		dev.lost.Add(1)
		want("after a loss", false)
		time.Sleep(9 * time.Second)
		want("soon after it", false)
		time.Sleep(2 * time.Second)
		want("later", true)
		dev.lost.Add(1)
		time.Sleep(time.Minute)
		want("after a loss that nobody saw before", false)
		if f.takes(p.Number() + 1) {
			t.Error("the switch takes the floods of no port")
		}
	})
}
