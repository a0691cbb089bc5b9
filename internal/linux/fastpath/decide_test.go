package fastpath

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/vswitch/vswitch/fdb"
	"github.com/vswitch/vswitch/internal/test/testenv"
	"github.com/vswitch/vswitch/port"
	vswitch "github.com/vswitch/vswitch/switch"
)

// What the program returns (enum tcx_action_base).
const (
	tcxPass     = 0 // handed up
	tcxDrop     = 2
	tcxRedirect = 7
)

// device is a port's device.
type device struct {
	ifindex int
	punted  bool
}

func (d device) Ifindex() int { return d.ifindex }
func (d device) Punted() bool { return d.punted }

// rig is a Path and what a switch tells it. Its program is run by hand on frames that
// come by the devices of the ports, which nothing is attached to.
type rig struct {
	t     testing.TB
	ns    *testenv.Netns
	path  *Path
	table *fdb.Table
	ports []vswitch.FastPort // numbered from 0
	flood vswitch.FastFlood
	cpus  *unix.CPUSet // on which the program runs; nil: any
	stale bool         // a decision may be one that is remembered, and no longer right
}

// newRig makes a Path with so many ports as add-port makes them.
func newRig(t testing.TB, ports int) *rig {
	t.Helper()
	r := &rig{t: t, ns: testenv.NewNetns(t)}
	for n := range ports {
		name := "vm" + strconv.Itoa(n)
		r.ns.Run("ip", "tuntap", "add", "dev", name, "mode", "tap")
		r.ports = append(r.ports, vswitch.FastPort{
			Number: uint16(n),
			Device: device{r.ifindex(name), true},
			From:   true, To: true,
			PVID: 1, Native: 1, VLANs: vlans(1),
		})
	}
	r.open(fdb.DefaultCapacity)
	r.publish(r.ports)
	r.start()
	return r
}

// open makes the Path and its table.
func (r *rig) open(capacity int) {
	r.t.Helper()
	var err error
	r.path, err = Open(Options{Capacity: capacity, Log: slog.New(slog.NewTextHandler(r.t.Output(), nil))})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		r.path.Stop()
		if r.path.failed.Load() {
			r.t.Error("the kernel refused something; see the log")
		}
	})
	r.table = fdb.New(fdb.Config{Capacity: capacity, Aging: -1, Observer: r.path})
	r.path.Bind(r.table)
	program(r.t, r.path, "explain") // now, for it takes longer than some of what is seen
}

// publish and start are the Path's methods, called where the ports' devices are.
func (r *rig) publish(ports []vswitch.FastPort) { r.ns.Do(func() { r.path.Publish(ports, r.flood) }) }
func (r *rig) start()                           { r.ns.Do(r.path.Start) }

func (r *rig) ifindex(name string) int {
	r.t.Helper()
	n, err := strconv.Atoi(r.ns.Run("cat", "/sys/class/net/"+name+"/ifindex"))
	if err != nil {
		r.t.Fatal(err)
	}
	return n
}

func vlans(vids ...uint16) *port.VLANSet {
	s := new(port.VLANSet)
	for _, vid := range vids {
		s.Add(vid)
	}
	return s
}

// learn makes a station known behind a port.
func (r *rig) learn(vlan uint16, mac port.MAC, number uint16) {
	r.t.Helper()
	if o, _ := r.table.Learn(fdb.MakeKey(vlan, uint64(mac)), number); o != fdb.Learned && o != fdb.Moved {
		r.t.Fatalf("learning %v: %v", mac, o)
	}
	r.path.Settle()
}

// forget makes a station unknown.
func (r *rig) forget(mac port.MAC) {
	r.table.Delete(fdb.MakeKey(1, uint64(mac)))
	r.path.Settle()
}

// unlearned turns learning at port 0 off.
func (r *rig) unlearned(locked bool) {
	r.ports[0].NoLearning, r.ports[0].Locked = true, locked
	r.publish(r.ports)
}

// kilobyte is a rate of 1000 bytes a second.
var kilobyte = port.Rate{PerSecond: 8000, Bits: true}

// police gives a port a rate that is used for so long.
func (r *rig) police(at int, rate port.Rate, burst, used time.Duration) {
	p := &r.ports[at]
	p.Police = vswitch.FastRate{Rate: rate, Burst: burst, Turn: p.Police.Turn ^ 1}
	r.path.Budget(p.Number, p.Police.Turn).Store(r.path.Now() + int64(used))
	r.publish(r.ports)
}

// skb is the part of struct __sk_buff that a run can set.
type skb struct {
	_       [40]byte
	Ifindex uint32
	_       [120]byte
	GSOSegs uint32
	_       [8]byte
	GSOSize uint32
	_       [4]byte
}

// program returns a program of a path by its name.
func program(t testing.TB, p *Path, name string) *ebpf.Program {
	t.Helper()
	is, err := p.programs.get(name)
	if err != nil {
		t.Fatal(err)
	}
	return is
}

// run gives the program a frame that came by a device, and returns its decision and
// what has become of the frame.
func (r *rig) run(wire []byte, ctx skb) (decision uint32, out []byte) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: wire, DataOut: make([]byte, len(wire)+64), Context: ctx}
	explained := vswitch.FastUnknown
	if ctx.GSOSize == 0 {
		r.ns.Do(func() { explained = r.path.explain(ctx.Ifindex, wire) })
	}
	decision = r.execute(&o)
	r.explained(ctx.Ifindex, wire, decision, explained)
	return decision, o.DataOut
}

// execute runs the program.
func (r *rig) execute(o *ebpf.RunOptions) (decision uint32) {
	r.t.Helper()
	r.ns.Do(func() {
		if r.cpus != nil {
			var before unix.CPUSet
			for _, err := range []error{unix.SchedGetaffinity(0, &before), unix.SchedSetaffinity(0, r.cpus)} {
				if err != nil {
					r.t.Fatal(err)
				}
			}
			defer unix.SchedSetaffinity(0, &before)
		}
		var err error
		if decision, err = program(r.t, r.path, "vswitch").Run(o); err != nil {
			r.t.Fatal(err)
		}
	})
	return decision
}

// repeat runs the program so many times for a frame that comes by a port and is sent on.
func (r *rig) repeat(from int, wire []byte, times uint32) {
	r.t.Helper()
	o := ebpf.RunOptions{Data: wire, Context: skb{Ifindex: uint32(r.ports[from].Device.Ifindex())}, Repeat: times}
	if d := r.execute(&o); d != tcxRedirect {
		r.t.Fatalf("the decision is %d", d)
	}
}

// onCPU has the program run on one CPU from now on.
func (r *rig) onCPU(n int) {
	r.cpus = new(unix.CPUSet)
	r.cpus.Set(n)
}

// send is run for a frame by a port, of which the decision is of interest.
func (r *rig) send(from int, wire []byte) uint32 {
	r.t.Helper()
	decision, _ := r.run(wire, skb{Ifindex: uint32(r.ports[from].Device.Ifindex())})
	return decision
}

const (
	macA, macB, macC = port.MAC(0x02_00_00_00_00_0a), port.MAC(0x02_00_00_00_00_0b), port.MAC(0x02_00_00_00_00_0c)
	frameLen         = 60
)

func frame(dst, src port.MAC, length int) []byte {
	b := append(append(dst.HardwareAddr(), src.HardwareAddr()...), 0x88, 0xb5)
	for len(b) < length {
		b = append(b, byte(len(b)))
	}
	return b
}

// marked is a frame as it is handed up: the outer one of two marks is beside its bytes.
func marked(wire []byte) []byte {
	return append(append(bytes.Clone(wire[:12]), 0x88, 0xa8, 0x0f, 0xff), wire[12:]...)
}

// sentOn, samePort and isolated are the counters of two ports after one frame.
func sentOn(rxBytes, txBytes uint64) (c [2]vswitch.PortStats) {
	c[0].Fast, c[0].RX.Frames, c[0].RX.Bytes = 1, 1, rxBytes
	c[1].TX.Frames, c[1].TX.Bytes = 1, txBytes
	return c
}

func dropped(why port.Drop) (c [2]vswitch.PortStats) {
	c[0].Fast, c[0].RX.Frames, c[0].RX.Bytes = 1, 1, frameLen
	c[0].RX.Dropped[why] = 1
	return c
}

// TestDecision has a frame from A come by port 0. A is known there, and B behind port
// 1, both in VLAN 1, but for what a case changes.
func TestDecision(t *testing.T) {
	t.Parallel()
	const tagLen = 4
	for name, c := range map[string]struct {
		change func(r *rig)
		dst    port.MAC // 0: B
		length int      // 0: frameLen
		gso    uint32   // payload of a piece
		ifname string   // "": vm0
		src    port.MAC // 0: A
		noSrc  bool

		want   uint32
		counts [2]vswitch.PortStats
	}{
		"known unicast":  {want: tcxRedirect, counts: sentOn(frameLen, frameLen)},
		"shortest frame": {length: port.HeaderLen, want: tcxRedirect, counts: sentOn(port.HeaderLen, port.HeaderLen)},

		"group":               {dst: 0x01_00_5e_00_00_01},
		"broadcast":           {dst: port.Broadcast},
		"unknown destination": {dst: macC},
		"unknown source": {change: func(r *rig) {
			r.forget(macA)
		}},
		"source is behind another port": {change: func(r *rig) { r.learn(1, macA, 1) }},
		"known in another VLAN": {change: func(r *rig) {
			r.ports[0].PVID, r.ports[0].Native, r.ports[0].VLANs = 2, 2, vlans(2)
			r.publish(r.ports)
			r.learn(2, macA, 0)
		}},
		"source forgotten with its port":      {change: func(r *rig) { r.table.FlushPort(0) }},
		"destination forgotten with its port": {change: func(r *rig) { r.table.FlushPort(1) }},
		"port removed": {change: func(r *rig) {
			r.publish(r.ports[:1])
			r.path.Release(1)
		}},
		"port's number given to another device": {change: func(r *rig) {
			r.publish(r.ports[:1])
			r.path.Release(1)
			r.table.FlushPort(1)
			r.ports[1].Device = device{r.ifindex("lo"), true}
			r.publish(r.ports)
		}},
		"destination's VLAN is no longer carried": {change: func(r *rig) {
			// At once: nothing leaves with the tag of a VLAN that the port left.
			r.ports[1].PVID, r.ports[1].Native, r.ports[1].TPID, r.ports[1].VLANs = 2, 2, port.TPIDCustomer, vlans(2)
			r.publish(r.ports)
		}},
		"no port's device": {ifname: "lo"},
		"more than forwarding to do on input": {change: func(r *rig) {
			r.ports[0].From = false
			r.publish(r.ports)
		}},
		"the switch sees all frames of the input": {change: func(r *rig) {
			r.ports[0].Device = device{r.ports[0].Device.Ifindex(), false}
			r.publish(r.ports)
		}},
		"more than forwarding to do on output": {change: func(r *rig) {
			r.ports[1].To = false
			r.publish(r.ports)
		}},
		"no VLAN for untagged frames": {change: func(r *rig) {
			r.ports[0].PVID = 0
			r.publish(r.ports)
		}},
		"tagged on output": {
			change: func(r *rig) {
				r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDCustomer
				r.publish(r.ports)
				r.path.Settle()
			},
			want: tcxRedirect, counts: sentOn(frameLen, frameLen+tagLen),
		},

		"within the rate": {
			change: func(r *rig) { r.police(0, kilobyte, time.Second, 0) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"beyond the rate": {
			change: func(r *rig) { r.police(0, kilobyte, time.Second, time.Hour) },
			want:   tcxDrop, counts: dropped(port.DropPoliced),
		},
		"beyond the rate, and drops are watched": {change: func(r *rig) {
			r.ports[0].Drops = true
			r.police(0, kilobyte, time.Second, time.Hour)
		}},
		"beyond the rate of the output": {
			change: func(r *rig) { r.police(1, kilobyte, time.Second, time.Hour) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"beyond the rate, group": { // the switch counts it
			change: func(r *rig) { r.police(0, kilobyte, time.Second, time.Hour) },
			dst:    port.Broadcast,
		},
		"beyond the rate, same port": {
			change: func(r *rig) { r.learn(1, macB, 0); r.police(0, kilobyte, time.Second, time.Hour) },
			want:   tcxDrop, counts: dropped(port.DropPoliced),
		},

		"unknown source, not to be learned": {
			change: func(r *rig) { r.unlearned(false); r.forget(macA) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"source behind another port, not to be learned": {
			change: func(r *rig) { r.unlearned(false); r.learn(1, macA, 1) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"known source, not to be learned": {
			change: func(r *rig) { r.unlearned(false) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"group as source, not to be learned":          {change: func(r *rig) { r.unlearned(false) }, src: 0x01_00_00_00_00_01},
		"no source, not to be learned":                {change: func(r *rig) { r.unlearned(false) }, noSrc: true},
		"unknown source, not to be learned, locked":   {change: func(r *rig) { r.unlearned(true); r.forget(macA) }},
		"source behind another port, none of it, too": {change: func(r *rig) { r.unlearned(true); r.learn(1, macA, 1) }},
		"known source, not to be learned, locked": {
			change: func(r *rig) { r.unlearned(true) },
			want:   tcxRedirect, counts: sentOn(frameLen, frameLen),
		},

		"same port": {
			change: func(r *rig) { r.learn(1, macB, 0) },
			want:   tcxDrop, counts: dropped(port.DropSamePort),
		},
		"same port, and drops are watched": {change: func(r *rig) {
			r.learn(1, macB, 0)
			r.ports[0].Drops = true
			r.publish(r.ports)
		}},
		"both isolated, and drops are watched": {change: func(r *rig) {
			r.ports[0].Isolated, r.ports[1].Isolated, r.ports[0].Drops = true, true, true
			r.publish(r.ports)
		}},
		"drops are watched": {
			change: func(r *rig) {
				r.ports[0].Drops, r.ports[1].Drops = true, true
				r.publish(r.ports)
			},
			want: tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"both isolated": {
			change: func(r *rig) {
				r.ports[0].Isolated, r.ports[1].Isolated = true, true
				r.publish(r.ports)
			},
			want: tcxDrop, counts: dropped(port.DropIsolated),
		},
		"input isolated": {
			change: func(r *rig) {
				r.ports[0].Isolated = true
				r.publish(r.ports)
			},
			want: tcxRedirect, counts: sentOn(frameLen, frameLen),
		},
		"output isolated": {
			change: func(r *rig) {
				r.ports[1].Isolated = true
				r.publish(r.ports)
			},
			want: tcxRedirect, counts: sentOn(frameLen, frameLen),
		},

		"as long as the output's MTU":  {length: 1514, want: tcxRedirect, counts: sentOn(1514, 1514)},
		"longer than the output's MTU": {length: 1515},
		"longer, but to be cut":        {length: 3000, gso: 1448, want: tcxRedirect, counts: sentOn(3000, 3000)},
		"as long, with a C-tag on output": {
			change: func(r *rig) {
				r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDCustomer
				r.publish(r.ports)
				r.path.Settle()
			},
			length: 1514, want: tcxRedirect, counts: sentOn(1514, 1514+tagLen),
		},
		"as long, with an S-tag on output": {
			change: func(r *rig) {
				r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDService
				r.publish(r.ports)
				r.path.Settle()
			},
			length: 1514,
		},
		"an S-tag shorter": {
			change: func(r *rig) {
				r.ports[1].Native, r.ports[1].TPID = 0, port.TPIDService
				r.publish(r.ports)
				r.path.Settle()
			},
			length: 1514 - tagLen, want: tcxRedirect, counts: sentOn(1514-tagLen, 1514),
		},
		"longer, with an MTU that is so": {
			change: func(r *rig) { r.ns.Run("ip", "link", "set", "vm1", "mtu", "9000") },
			length: 3000, want: tcxRedirect, counts: sentOn(3000, 3000),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t, 2)
			r.learn(1, macA, 0)
			r.learn(1, macB, 1)
			if c.change != nil {
				c.change(r)
			}
			ctx := skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: c.gso}
			if c.ifname != "" {
				ctx.Ifindex = uint32(r.ifindex(c.ifname))
			}
			dst, length := c.dst, c.length
			if dst == 0 {
				dst = macB
			}
			if length == 0 {
				length = frameLen
			}
			src := cmp.Or(c.src, macA)
			if c.noSrc {
				src = 0
			}
			wire := frame(dst, src, length)
			decision, out := r.run(wire, ctx)
			if decision != c.want {
				t.Errorf("the decision is %d, want %d", decision, c.want)
			}
			if c.want == tcxPass && !bytes.Equal(out, marked(wire)) {
				t.Errorf("handed up is\n% x, want\n% x", out, marked(wire))
			}
			for n, want := range c.counts {
				if got := r.path.Counters(uint16(n)); got != want {
					t.Errorf("port %d counts\n%+v, want\n%+v", n, got, want)
				}
			}
		})
	}
}

// Counters add up over CPUs and frames, and Release returns them for the last time.
func TestCounters(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	const frames = 20
	for i := range frames {
		r.onCPU(i % runtime.NumCPU())
		r.send(0, frame(macB, macA, frameLen))
	}
	for _, get := range []func(uint16) vswitch.PortStats{r.path.Counters, r.path.Release} {
		if c := get(0); c.Fast != frames || c.RX.Frames != frames || c.RX.Bytes != frames*frameLen {
			t.Errorf("port 0 counts %+v", c)
		}
		if c := get(1); c.TX.Frames != frames || c.TX.Bytes != frames*frameLen || c.RX.Frames != 0 {
			t.Errorf("port 1 counts %+v", c)
		}
	}
	if c := r.path.Counters(0); c != (vswitch.PortStats{}) {
		t.Errorf("a port that was released counts %+v", c)
	}
	// The next port does not begin with its counters.
	r.publish(r.ports)
	if c := r.path.Counters(0); c != (vswitch.PortStats{}) {
		t.Errorf("a new port counts %+v", c)
	}
}

// A station's frame is noted, a frame to it is not.
func TestHeard(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	keyA, keyB := fdb.MakeKey(1, uint64(macA)), fdb.MakeKey(1, uint64(macB))
	heard := func(key fdb.Key) uint32 {
		_, at := r.path.known.find(key)
		return stationOf(at.Load()).Heard
	}
	silence := func(key fdb.Key) {
		_, at := r.path.known.find(key)
		s := stationOf(at.Load())
		s.Heard = 0
		at.Store(word(s))
	}
	silence(keyA)
	silence(keyB)
	before := heardAt(0)
	// That the destination is unknown makes no difference.
	r.send(0, frame(macC, macA, frameLen))
	after := heardAt(0)
	if h := heard(keyA); h < before || h > after {
		t.Errorf("A was heard at %d, not between %d and %d", h, before, after)
	}
	if h := heard(keyB); h != 0 {
		t.Errorf("B was heard at %d, and has sent nothing", h)
	}
	// One that comes by another port was not heard where it is.
	silence(keyA)
	r.send(1, frame(macB, macA, frameLen))
	if h := heard(keyA); h != 0 {
		t.Errorf("A was heard at %d, by another port", h)
	}
}

// remembered is a Path of which one CPU remembers a flow, and a frame of that.
func remembered(t *testing.T) (r *rig, wire []byte) {
	t.Helper()
	r = newRig(t, 2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	r.onCPU(0) // each remembers for itself
	wire = frame(macB, macA, 100)
	if d := r.send(0, wire); d != tcxRedirect {
		t.Fatalf("a known flow gets %d", d)
	}
	return r, wire
}

// What the kernel remembers of a flow counts until the switch changes something. It
// would last much longer than the test takes.
func TestFlowCache(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *rig)
		want   uint32
	}{
		"station deleted":  {func(r *rig) { r.table.Delete(fdb.MakeKey(1, uint64(macB))); r.path.Settle() }, tcxPass},
		"port flushed":     {func(r *rig) { r.table.FlushPort(1) }, tcxPass},
		"port shut":        {func(r *rig) { r.publish(r.ports[:1]) }, tcxPass},
		"port released":    {func(r *rig) { r.path.Release(1) }, tcxPass},
		"moved":            {func(r *rig) { r.learn(1, macB, 0) }, tcxDrop},
		"sender moved":     {func(r *rig) { r.learn(1, macA, 1) }, tcxPass},
		"output is slower": {func(r *rig) { r.ports[1].To = false; r.publish(r.ports) }, tcxPass},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, wire := remembered(t)
			c.change(r)
			if d := r.send(0, wire); d != c.want {
				t.Errorf("the decision is %d, want %d", d, c.want)
			}
		})
	}
}

// What fits into the output is remembered as the device's MTU has it, whatever came before.
func TestFlowCacheMTU(t *testing.T) {
	t.Parallel()
	r, _ := remembered(t)
	for _, c := range []struct {
		length int
		gso    uint32 // payload of a piece
		want   uint32
	}{
		{1515, 0, tcxPass}, {1514, 0, tcxRedirect}, {1515, 0, tcxPass}, {1514, 0, tcxRedirect},
		{3000, 1448, tcxRedirect}, {1515, 0, tcxPass},
	} {
		ctx := skb{Ifindex: uint32(r.ports[0].Device.Ifindex()), GSOSize: c.gso}
		if d, _ := r.run(frame(macB, macA, c.length), ctx); d != c.want {
			t.Errorf("%d bytes, pieces of %d: the decision is %d, want %d", c.length, c.gso, d, c.want)
		}
	}
}

// What changes behind the switch's back counts when what is remembered has had its time.
func TestFlowCacheEnds(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(r *rig){
		"station deleted": func(r *rig) { r.path.known.delete(fdb.MakeKey(1, uint64(macB))) },
		"MTU is smaller":  func(r *rig) { r.ns.Run("ip", "link", "set", "vm1", "mtu", "68") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r *rig
			var wire []byte
			// The time may end while the test changes something.
			testenv.Eventually(t, "a flow is remembered", func() bool {
				r, wire = remembered(t)
				change(r)
				r.stale = true
				return r.send(0, wire) == tcxRedirect
			})
			testenv.Eventually(t, "it is forgotten", func() bool { return r.send(0, wire) == tcxPass })
		})
	}
}

// A station whose first line is full is known by its second.
func TestSecondLine(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	r.learn(1, macA, 0)
	first := &r.path.known.lines[0]
	found := 0
	for mac := macB; found <= places; mac++ {
		lines := r.path.known.of(fdb.MakeKey(1, uint64(mac)))
		if lines[0] != first || lines[1] == first {
			continue
		}
		found++
		r.learn(1, mac, 1)
		if d := r.send(0, frame(mac, macA, frameLen)); d != tcxRedirect {
			t.Errorf("a frame to station %d of the line gets %d", found, d)
		}
	}
}

// Flows that share a place in what is remembered are told apart: some of so many do.
func TestFlowCacheCollision(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	r.onCPU(0)
	r.learn(1, macA, 0)
	const stations = 1000
	for n := range stations {
		r.table.Learn(fdb.MakeKey(1, uint64(macC)+uint64(n)), uint16(1+n%2))
	}
	r.path.Settle()
	for n := range stations {
		known := frame(macC+port.MAC(n), macA, frameLen)
		if d := r.send(0, known); d != tcxRedirect {
			t.Fatalf("a known flow gets %d", d)
		}
		if d := r.send(0, frame(macC+port.MAC(n), macB+port.MAC(n)<<8, frameLen)); d != tcxPass {
			t.Fatalf("an unknown station's frame gets %d", d)
		}
		if d := r.send(1, known); d != tcxPass {
			t.Fatalf("a frame that comes by another port gets %d", d)
		}
	}
	for n := uint16(1); n <= 2; n++ {
		if c := r.path.Counters(n); c.TX.Frames != stations/2 {
			t.Errorf("port %d was sent %d frames, want %d", n, c.TX.Frames, stations/2)
		}
	}
}

// The slots of ports that come and go are used again, as many as there are.
func TestManyPorts(t *testing.T) {
	r := &rig{t: t, ns: testenv.NewNetns(t)}
	r.open(1024)
	r.start()
	for round := range 3 {
		ports := make([]vswitch.FastPort, maxPorts)
		for n := range ports {
			ports[n] = vswitch.FastPort{Number: uint16(n), Device: device{round<<16 + n + 1, true}, VLANs: vlans(1)}
		}
		r.publish(ports)
		slots := make(map[uint32]bool)
		for n := range ports {
			slots[r.path.slots.byNumber[uint16(n)].index] = true
		}
		if len(slots) != maxPorts {
			t.Fatalf("%d ports have %d slots", maxPorts, len(slots))
		}
		r.publish(nil)
		for n := range ports {
			r.path.Release(uint16(n))
		}
		if n := entries(t, r.path.bpf.Slots); n != 0 {
			t.Fatalf("%d devices have slots after all ports went", n)
		}
	}
}

// entries counts a table's.
func entries(t testing.TB, m *ebpf.Map) (n int) {
	t.Helper()
	keys, values := make([]byte, m.KeySize()), make([]byte, m.ValueSize())
	it := m.Iterate()
	for it.Next(&keys, &values) {
		n++
	}
	if err := it.Err(); err != nil {
		t.Fatal(fmt.Errorf("%v: %w", m, err))
	}
	return n
}

// A port that is gone leaves nothing in the kernel: neither its number nor its device, and its
// stations are unknown.
func TestReleaseLeavesNothing(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	index, ifindex := r.path.slots.byNumber[0].index, uint32(r.ports[0].Device.Ifindex())
	known := r.path.slots.byNumber[0].is.Generation // of its stations
	r.publish(r.ports[1:])
	r.path.Release(0)
	var value uint32
	if err := r.path.bpf.Devices.Lookup(index, &value); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("its slot has the device %d, %v", value, err)
	}
	if err := r.path.bpf.Slots.Lookup(ifindex, &value); !errors.Is(err, ebpf.ErrKeyNotExist) {
		t.Errorf("its device has the slot %d, %v", value, err)
	}
	var is bpfPort
	if err := r.path.bpf.Ports.Lookup(index, &is); err != nil || is.Flags != 0 || is.Generation == known {
		t.Errorf("its slot is %+v, %v", is, err)
	}
}

// What is known behind a port that goes is behind no other: a port that gets its place in the kernel
// gets none of its frames, be it that the switch has not forgotten the station yet.
func TestSlotGivenAway(t *testing.T) {
	t.Parallel()
	r := newRig(t, 3)
	successor := r.ports[2]
	successor.Number = 7
	r.publish(r.ports[:2])
	r.path.Release(2)
	r.learn(1, macA, 0)
	r.learn(1, macB, 1)
	if d := r.send(0, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Fatalf("a known flow gets %d", d)
	}
	slot := r.path.slots.byNumber[1].index
	r.publish(r.ports[:1])
	r.path.Release(1)
	r.publish([]vswitch.FastPort{r.ports[0], successor})
	if got := r.path.slots.byNumber[7].index; got != slot {
		t.Fatalf("the successor has slot %d, not %d", got, slot)
	}
	if d := r.send(0, frame(macB, macA, frameLen)); d != tcxPass {
		t.Errorf("a frame to a station of the port that went gets %d", d)
	}
}

// A port may have the number of a device whose own port is not released yet.
func TestReleaseAfterSuccessor(t *testing.T) {
	t.Parallel()
	r := newRig(t, 2)
	successor := r.ports[0]
	successor.Number = 2
	r.ports = append(r.ports, successor)
	r.publish(r.ports[1:])
	r.path.Release(0)
	r.learn(1, macA, 2)
	r.learn(1, macB, 1)
	if d := r.send(2, frame(macB, macA, frameLen)); d != tcxRedirect {
		t.Errorf("a known flow of the successor gets %d", d)
	}
}
