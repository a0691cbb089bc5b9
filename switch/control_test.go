package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/port"
	"github.com/vswitch/vswitch/port/memory"
	vswitch "github.com/vswitch/vswitch/switch"
)

// Guests that flood the switch with joins do not keep BPDUs from it.
func TestBPDUsGoFirst(t *testing.T) {
	const group, bpdus = ipGroup, bpduGroup
	synctest.Test(t, func(t *testing.T) {
		busy, first := make(chan struct{}), make(chan struct{})
		var order []port.MAC
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
			if order = append(order, port.MACFrom(c.Data)); len(order) == 1 {
				close(first)
				<-busy
			}
		}}, 2, memory.Options{Depth: 1024})
		defer r.Close()
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{VLANs: one, IsControl: func([]byte) bool { return true }})
		hearBPDUs(r.ports[1])
		wantPass(t, r, 0, frame(group, station(0), 0, 60), 0, 0)
		<-first
		for range 300 {
			r.pass(0, frame(group, station(0), 0, 60))
		}
		if n := r.ports[0].Stats().RX.Dropped[port.DropControlFull]; n != 300-256 {
			t.Errorf("%d joins were too many, want %d", n, 300-256)
		}
		wantPass(t, r, 1, frame(bpdus, station(1), 0, 60), 0, 0)
		wantDrops(t, r, 1, port.DropConsumed, 1)
		close(busy)
		synctest.Wait()
		if len(order) != 258 || order[1] != bpdus {
			t.Errorf("%d control frames, the second to %v", len(order), order[1])
		}
	})
}

// gatedRig is a switch with a tree and snooping whose handler of control frames waits
// for gate. What it was given is in heard, which is filled once gate is closed.
type gatedRig struct {
	*rig
	gate  chan struct{}
	heard []vswitch.ControlFrame
}

const ownGroup, bpduGroup, pvstGroup, ipGroup = port.MAC(0x0300_0000_0001), port.MAC(0x0180_c200_0000), port.MAC(0x0100_0ccc_cccd), port.MAC(0x0100_5e01_0203)

// gated runs f with the first control frame, a join by the last port, in the handler.
func gated(t *testing.T, ports int, f func(r *gatedRig)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r := &gatedRig{gate: make(chan struct{})}
		cfg := vswitch.Config{Traps: []vswitch.Trap{{Dst: ownGroup, Queue: vswitch.QueueLoop}}}
		cfg.OnControl = func(c vswitch.ControlFrame) {
			<-r.gate
			c.Data = slices.Clone(c.Data)
			r.heard = append(r.heard, c)
		}
		r.rig = newRig(t, cfg, ports, memory.Options{Depth: 4096})
		defer r.Close()
		defer func() { // also where the test ends early
			select {
			case <-r.gate:
			default:
				close(r.gate)
			}
		}()
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{
			VLANs:     one,
			IsControl: func(data []byte) bool { return port.MACFrom(data) == ipGroup },
			Lookup:    func(uint16, uint64) ([]uint16, bool) { return nil, true },
		})
		for _, p := range r.ports {
			hearBPDUs(p)
		}
		r.put(ports-1, ipGroup, 1, 60)
		synctest.Wait()
		f(r)
		wantBalance(t, r.rig)
	})
}

// put has n frames come in by a port, numbered from 0.
func (r *gatedRig) put(in int, dst port.MAC, n, size int) {
	for i := range n {
		r.lines[in].Put(0, memory.Packet{Wire: frame(dst, station(in), uint32(i), size)})
	}
	synctest.Wait()
	for i := range r.lines {
		r.taken(i)
	}
}

// open lets the handler go, and returns what it was given after the first.
func (r *gatedRig) open() []vswitch.ControlFrame {
	close(r.gate)
	synctest.Wait()
	return r.heard[1:]
}

// Control frames of a port are handled in the order they came in; those of a lower
// queue, whosever, before the others.
func TestControlOrder(t *testing.T) {
	gated(t, 3, func(r *gatedRig) {
		r.ports[0].SetTraps(vswitch.QueueGuard, []vswitch.Trap{{Dst: pvstGroup, Queue: vswitch.QueueGuard}})
		r.put(0, ipGroup, 3, 60)
		r.put(0, ownGroup, 2, 60)
		r.put(0, pvstGroup, 1, 60)
		r.put(0, bpduGroup, 3, 60)
		r.put(1, bpduGroup, 3, 60)
		want := []struct {
			port  string
			queue vswitch.Queue
			n     uint32
		}{
			{"p0", vswitch.QueueTree, 0}, {"p1", vswitch.QueueTree, 0},
			{"p0", vswitch.QueueTree, 1}, {"p1", vswitch.QueueTree, 1},
			{"p0", vswitch.QueueTree, 2}, {"p1", vswitch.QueueTree, 2},
			{"p0", vswitch.QueueGuard, 0},
			{"p0", vswitch.QueueLoop, 0}, {"p0", vswitch.QueueGroups, 0},
			{"p0", vswitch.QueueLoop, 1}, {"p0", vswitch.QueueGroups, 1},
			{"p0", vswitch.QueueGroups, 2},
		}
		got := r.open()
		if len(got) != len(want) {
			t.Fatalf("%d control frames, want %d", len(got), len(want))
		}
		for i, w := range want {
			g := got[i]
			if n := binary.BigEndian.Uint32(g.Data[14:]); g.Port.Name() != w.port || g.Queue != w.queue || n != w.n {
				t.Errorf("frame %d: number %d of queue %d by %s, want %+v", i, n, g.Queue, g.Port.Name(), w)
			}
			if vlan := g.VLAN; (vlan == 0) != (g.Queue == vswitch.QueueTree) || vlan > 1 {
				t.Errorf("frame %d of queue %d is in VLAN %d", i, g.Queue, vlan)
			}
		}
	})
}

// A switch that closes handles no further control frame, however many wait.
func TestCloseAmongControlFrames(t *testing.T) {
	gated(t, 2, func(r *gatedRig) {
		r.put(0, ipGroup, 3, 60)
		closed := make(chan error)
		go func() { closed <- r.Close() }()
		synctest.Wait()
		further := r.open()
		if err := <-closed; err != nil || len(further) != 0 {
			t.Errorf("%d frames are handled, %v", len(further), err)
		}
	})
}

// A flood of BPDUs by one port keeps nobody's joins waiting, and no BPDUs by another.
func TestControlTurns(t *testing.T) {
	gated(t, 3, func(r *gatedRig) {
		r.put(0, bpduGroup, 1000, 60)
		r.put(0, ipGroup, 1, 60)
		r.put(1, ipGroup, 2, 60)
		r.put(1, bpduGroup, 1, 60)
		if n := r.ports[0].Stats().RX.Dropped[port.DropControlFull]; n != 1000-256 {
			t.Errorf("%d BPDUs of the flood dropped, want %d", n, 1000-256)
		}
		at := map[string][]int{}
		for i, c := range r.open() {
			k := c.Port.Name() + [...]string{" bpdu", "", "", " join"}[c.Queue]
			at[k] = append(at[k], i)
		}
		// Ten BPDUs of p0 and one of p1, two joins; then ten, and a join.
		if got := at["p1 bpdu"]; !slices.Equal(got, []int{1}) {
			t.Errorf("p1's BPDU is handled as number %v", got)
		}
		if got := at["p0 join"]; !slices.Equal(got, []int{11}) {
			t.Errorf("p0's join is handled as number %v", got)
		}
		if got := at["p1 join"]; !slices.Equal(got, []int{12, 23}) {
			t.Errorf("p1's joins are handled as numbers %v", got)
		}
		if got := len(at["p0 bpdu"]); got != 256 {
			t.Errorf("%d BPDUs of the flood", got)
		}
	})
}

// However many ports flood, each has room for its first frames, memory is bounded, and
// all of it is free again afterwards.
func TestControlShares(t *testing.T) {
	const ports, jumbo = 64, 9000
	gated(t, ports, func(r *gatedRig) {
		flood := func() (taken int) {
			var before uint64
			for i := range ports - 2 {
				before += r.ports[i].Stats().RX.Dropped[port.DropConsumed]
				r.put(i, ipGroup, 40, jumbo)
				r.put(i, bpduGroup, 40, jumbo)
			}
			for i := range ports - 2 {
				taken += int(r.ports[i].Stats().RX.Dropped[port.DropConsumed])
			}
			return taken - int(before)
		}
		taken := flood()
		if bytes := taken * jumbo; bytes > 4<<20 || bytes < 3<<20 {
			t.Errorf("%d bytes of control frames wait", bytes)
		}
		for i := range ports - 2 {
			if n := r.ports[i].Stats().RX.Dropped[port.DropConsumed]; n < 2 && i < 20 {
				t.Errorf("port %d has %d frames", i, n)
			}
		}
		// Every other port still has room: two frames for sure.
		for _, i := range []int{ports - 2, 0, 30} {
			dst := ownGroup // a queue that nobody flooded
			if i == ports-2 {
				dst = ipGroup
			}
			before := r.ports[i].Stats().RX.Dropped[port.DropConsumed]
			r.put(i, dst, 2, 1500)
			if n := r.ports[i].Stats().RX.Dropped[port.DropConsumed] - before; n != 2 {
				t.Errorf("port %d: %d of 2 frames have room", i, n)
			}
		}
		r.open()
		if again := flood(); again < 2*taken {
			t.Errorf("%d frames were taken of the first flood, %d of the second, with nothing in the way", taken, again)
		}
	})
}

// A guard's trap takes whatever goes to its address: with a tag, of any length, from no
// possible sender, with a false offload header, by a port that does not forward.
func TestGuardTrap(t *testing.T) {
	traps := []vswitch.Trap{{Dst: bpduGroup, Queue: vswitch.QueueGuard, Tagged: true}, {Dst: pvstGroup, Queue: vswitch.QueueGuard}}
	tag := func(f []byte, tags ...byte) []byte { return slices.Concat(f[:12], tags, f[12:]) }
	plain := frame(bpduGroup, station(0), 0, 60)
	for name, c := range map[string]struct {
		wire    []byte
		offload port.Offload
		pass    bool // no trap takes it
	}{
		"plain":           {wire: plain},
		"header alone":    {wire: plain[:14]},
		"jumbo":           {wire: frame(bpduGroup, station(0), 0, 9100)},
		"beyond jumbo":    {wire: frame(bpduGroup, station(0), 0, 20000)},
		"tagged":          {wire: tag(plain, 0x81, 0, 0, 5)},
		"priority-tagged": {wire: tag(plain, 0x81, 0, 0xe0, 0)},
		"service tag":     {wire: tag(plain, 0x88, 0xa8, 0, 5)},
		"two tags":        {wire: tag(plain, 0x88, 0xa8, 0, 5, 0x81, 0, 0, 6)},
		"from a group":    {wire: frame(bpduGroup, port.Broadcast, 0, 60)},
		"from zero":       {wire: frame(bpduGroup, 0, 0, 60)},
		"bad offload":     {wire: plain, offload: port.Offload{Flags: port.NeedsCsum, CsumStart: 60000}},
		"PVST+":           {wire: frame(pvstGroup, station(0), 0, 64)},
		"LLDP":            {wire: frame(bpduGroup|0xe, station(0), 0, 60), pass: true},
		"other group":     {wire: frame(pvstGroup-1, station(0), 0, 60), pass: true},
	} {
		synctest.Test(t, func(t *testing.T) {
			var got []vswitch.ControlFrame
			r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) {
				if got = append(got, c); len(c.Data) > 64 {
					t.Errorf("%s: %d bytes are kept", name, len(c.Data))
				}
			}}, 2, memory.Options{})
			defer r.Close()
			r.ports[0].SetTraps(vswitch.QueueGuard, traps)
			r.lines[0].Put(0, memory.Packet{Wire: slices.Clone(c.wire), Offload: c.offload})
			synctest.Wait()
			want := []vswitch.Queue{vswitch.QueueGuard}
			if c.pass {
				want = nil
			} else if n := len(r.taken(1)); n != 0 {
				t.Errorf("%s: is forwarded", name)
			}
			if len(got) != len(want) || len(got) == 1 && (got[0].Queue != want[0] || got[0].Port != r.ports[0]) {
				t.Errorf("%s: %+v", name, got)
			}
			// In place of the traps, that of a spanning tree takes BPDUs without tag alone.
			r.ports[0].SetTraps(vswitch.QueueGuard, nil)
			hearBPDUs(r.ports[0])
			got = nil
			r.lines[0].Put(0, memory.Packet{Wire: slices.Clone(plain)})
			r.lines[0].Put(0, memory.Packet{Wire: tag(plain, 0x81, 0, 0, 5)})
			synctest.Wait()
			if len(got) != 1 || got[0].Queue != vswitch.QueueTree {
				t.Errorf("%s: without a guard %+v", name, got)
			}
		})
	}
}

// Storm control and policing come before snooping: a flood of joins is dropped by
// their names. A loop is when BPDUs and probes are needed: those have their lane alone.
func TestLimitsBeforeSnooping(t *testing.T) {
	for _, c := range []struct {
		config vswitch.PortConfig
		why    port.Drop
	}{
		{vswitch.PortConfig{Storm: vswitch.StormRates{Multicast: port.Rate{PerSecond: 10}}}, port.DropStormMulticast},
		{vswitch.PortConfig{Police: port.Rate{PerSecond: 10}}, port.DropPoliced},
	} {
		gated(t, 2, func(r *gatedRig) {
			if err := r.ports[0].Configure(c.config); err != nil {
				t.Fatal(err)
			}
			r.put(0, ipGroup, 200, 60)
			st := r.ports[0].Stats().RX
			if st.Dropped[c.why] < 150 || st.Dropped[port.DropConsumed] == 0 || st.Dropped[c.why]+st.Dropped[port.DropConsumed] != 200 {
				t.Errorf("of 200 joins %d were %v, %d consumed", st.Dropped[c.why], c.why, st.Dropped[port.DropConsumed])
			}
			before := st.Dropped[port.DropConsumed]
			r.put(0, bpduGroup, 20, 60)
			if n := r.ports[0].Stats().RX.Dropped[port.DropConsumed] - before; n != 20 {
				t.Errorf("%v: %d of 20 BPDUs were taken", c.why, n)
			}
			if c.why == port.DropStormMulticast {
				r.put(0, ownGroup, 20, 60)
				if n := r.ports[0].Stats().RX.Dropped[port.DropConsumed] - before; n != 40 {
					t.Errorf("%v: %d of 20 probes were taken", c.why, n-20)
				}
			}
		})
	}
}

// A control frame of which its sender still holds a part is read whole, or not at all.
func TestControlTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got [][]byte
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) { got = append(got, slices.Clone(c.Data)) }}, 0, memory.Options{})
		defer r.Close()
		p, err := r.AddPort("p0")
		if err != nil {
			t.Fatal(err)
		}
		l := &lender{Port: memory.New(memory.Options{})}
		if err := p.Attach(l); err != nil {
			t.Fatal(err)
		}
		p.SetForwarding(true)
		r.ports, r.lines = append(r.ports, p), append(r.lines, l.Port)
		hearBPDUs(p)
		put := func(f []byte) {
			r.lines[0].Put(0, memory.Packet{Wire: slices.Clone(f), Offload: port.Offload{GSOType: port.GSOTCPv4, GSOSize: 1000}})
			synctest.Wait()
		}
		whole := frame(bpduGroup, station(0), 0, 3000)
		put(whole)
		if len(got) != 1 || !bytes.Equal(got[0], whole) {
			t.Errorf("%d control frames", len(got))
		}
		put(frame(bpduGroup, station(0), 0, 9217))
		wantDrops(t, r, 0, port.DropOversize, 1)
		l.gone = true
		put(whole)
		wantDrops(t, r, 0, port.DropMemoryGone, 1)
		p.SetTraps(vswitch.QueueTree, nil)
		p.SetTraps(vswitch.QueueGuard, []vswitch.Trap{{Dst: bpduGroup, Queue: vswitch.QueueGuard}})
		put(whole)
		if len(got) != 2 || !bytes.Equal(got[1], whole[:64]) {
			t.Errorf("a guard reads no tail: %d control frames", len(got))
		}
		wantBalance(t, r)
	})
}

// Multicast that is flooded counts once towards its rate.
func TestMulticastStormCountsOnce(t *testing.T) {
	gated(t, 2, func(r *gatedRig) {
		if err := r.ports[0].Configure(vswitch.PortConfig{Storm: vswitch.StormRates{Multicast: port.Rate{PerSecond: 200}}}); err != nil {
			t.Fatal(err)
		}
		before := r.ports[1].Stats().TX.Frames
		var storm uint64
		for range 100 { // half the rate
			r.put(0, ipGroup+1, 1, 60)
			time.Sleep(10 * time.Millisecond)
		}
		storm = r.ports[0].Stats().RX.Dropped[port.DropStormMulticast]
		if n := r.ports[1].Stats().TX.Frames - before; n != 100 || storm != 0 {
			t.Errorf("%d of 100 frames passed, %d were a storm", n, storm)
		}
	})
}

// A BPDU has no tag: one that has is of a network that is carried through.
func TestTaggedBPDU(t *testing.T) {
	inRig(t, 2, func(t *testing.T, r *rig) {
		hearBPDUs(r.ports[0])
		bpdu := frame(0x0180_c200_0000, station(0), 0, 60)
		wantPass(t, r, 0, slices.Concat(bpdu[:12], []byte{0x81, 0, 0, 5}, bpdu[12:]), 0, 0)
		wantDrops(t, r, 0, port.DropReserved, 1)
		wantPass(t, r, 0, bpdu, 0, 0)
		wantDrops(t, r, 0, port.DropConsumed, 1)
	})
}

// What a VLAN carries inside another tag is not snooped: it is flooded, joins too.
func TestGroupsOfTunnels(t *testing.T) {
	const group = port.MAC(0x0100_5e01_0203)
	tagged := func(size int, tags ...byte) []byte {
		f := frame(group, station(0), 0, size)
		return slices.Concat(f[:12], tags, f[12:])
	}
	inRig(t, 3, func(t *testing.T, r *rig) {
		var one port.VLANSet
		one.Add(1)
		isControl := func(data []byte) bool { return len(data) > 80 }
		lookup := func(uint16, uint64) ([]uint16, bool) { return []uint16{2}, false }
		r.SetGroups(&vswitch.Groups{VLANs: one, IsControl: isControl, Lookup: lookup})
		wantPass(t, r, 0, tagged(60), 0, 0, 1)
		wantPass(t, r, 0, tagged(60, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100), 0, 0, 0)
		// The same inside a service VLAN's tag.
		r.configure(t, 0, vswitch.PortConfig{VLAN: port.VLAN{Trunk: one, Native: 1, TrunkTPID: port.TPID(port.TPIDService)}})
		wantPass(t, r, 0, tagged(60, 0x88, 0xa8, 0, 1), 0, 0, 1)
		wantPass(t, r, 0, tagged(60, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 5), 0, 1, 1)
		wantPass(t, r, 0, tagged(100, 0x88, 0xa8, 0, 1, 0x81, 0, 0, 5), 0, 1, 1)
	})
}

// Frames to a well-known group of link scope flood, though a group of wider scope with
// the same MAC has members.
func TestLinkControlFloods(t *testing.T) {
	const group = port.MAC(0x3333_0001_0003)
	packet := func(dst ...byte) []byte {
		f := frame(group, station(0), 0, 14+40)
		f[12], f[13] = 0x86, 0xdd
		copy(f[14+24:], append(dst, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 3))
		return f
	}
	inRig(t, 3, func(t *testing.T, r *rig) {
		var one port.VLANSet
		one.Add(1)
		r.SetGroups(&vswitch.Groups{
			VLANs: one, IsControl: func([]byte) bool { return false },
			Lookup: func(uint16, uint64) ([]uint16, bool) { return []uint16{2}, false },
		})
		wantPass(t, r, 0, packet(0xff, 2), 0, 1, 1)
		wantPass(t, r, 0, packet(0xff, 5), 0, 0, 1)
		wantPass(t, r, 0, packet(0xff, 0x12), 0, 0, 1) // transient, so that its members report
		wantPass(t, r, 0, packet(0xff, 2)[:39], 0, 0, 1)
		wantPass(t, r, 0, packet(0xff, 2)[:40], 0, 1, 1)
		ipv4 := packet(0xff, 2)
		ipv4[12], ipv4[13] = 8, 0
		wantPass(t, r, 0, ipv4, 0, 0, 1)
	})
}

func TestControlGroup(t *testing.T) {
	const own, other = port.MAC(0x0300_0000_0001), port.MAC(0x0300_0000_0002)
	synctest.Test(t, func(t *testing.T) {
		var by []string
		r := newRig(t, vswitch.Config{Traps: []vswitch.Trap{{Dst: own, Queue: vswitch.QueueLoop}}, OnControl: func(c vswitch.ControlFrame) {
			if c.VLAN != 1 || port.MACFrom(c.Data) != own {
				t.Errorf("%+v", c)
			}
			by = append(by, c.Port.Name())
		}}, 3, memory.Options{})
		defer r.Close()
		wantPass(t, r, 1, frame(own, station(1), 0, 60), 0, 0, 0)
		wantPass(t, r, 1, frame(other, station(1), 0, 60), 1, 0, 1)
		wantDrops(t, r, 1, port.DropConsumed, 1)
		if len(by) != 1 || by[0] != "p1" {
			t.Errorf("control frames by %v", by)
		}
	})
}

// A trap can be for one EtherType of an address, and each queue has its own traps of a port.
// What no trap takes is dropped, or forwarded as SetGroupForward says.
func TestTrapsOfTypes(t *testing.T) {
	const neighbours port.MAC = 0x0180_c200_000e
	lldp := frame(neighbours, station(0), 0, 60)
	lldp[12], lldp[13] = 0x88, 0xcc
	ptp := slices.Clone(lldp)
	ptp[13] = 0xf7
	group := frame(pvstGroup, station(0), 0, 60)
	synctest.Test(t, func(t *testing.T) {
		var got []vswitch.Queue
		r := newRig(t, vswitch.Config{OnControl: func(c vswitch.ControlFrame) { got = append(got, c.Queue) }}, 2, memory.Options{})
		defer r.Close()
		want := func(name string, wire []byte, passed int, queues ...vswitch.Queue) {
			t.Helper()
			got = nil
			r.lines[0].Put(0, memory.Packet{Wire: slices.Clone(wire)})
			synctest.Wait()
			if n := len(r.taken(1)); n != passed || !slices.Equal(got, queues) {
				t.Errorf("%s: forwarded %d times, in the queues %v", name, n, got)
			}
		}
		want("without traps", lldp, 0)
		r.ports[0].SetTraps(vswitch.QueueLink, []vswitch.Trap{
			{Dst: neighbours, Type: 0x88cc, Queue: vswitch.QueueLink},
			{Dst: pvstGroup, Type: 0x88cc, Queue: vswitch.QueueLink},
		})
		r.ports[0].SetTraps(vswitch.QueueGuard, []vswitch.Trap{{Dst: bpduGroup, Queue: vswitch.QueueGuard}})
		want("its type", lldp, 0, vswitch.QueueLink)
		want("another type", ptp, 0)
		want("with a tag", slices.Concat(lldp[:12], []byte{0x81, 0, 0, 5}, lldp[12:]), 0)
		want("another trap", frame(bpduGroup, station(0), 0, 60), 0, vswitch.QueueGuard)
		want("a group, another type", group, 1)
		r.SetGroupForward(1 << 0xe)
		want("its type, forwarded", lldp, 0, vswitch.QueueLink)
		want("another type, forwarded", ptp, 1)
		r.ports[0].SetTraps(vswitch.QueueGuard, nil)
		want("after other traps went", lldp, 0, vswitch.QueueLink)
		r.ports[0].SetTraps(vswitch.QueueLink, nil)
		want("after its trap went", lldp, 1)
	})
}

// AwaitControl waits for the frame in the handler and for those that wait for it.
func TestAwaitControl(t *testing.T) {
	gated(t, 2, func(r *gatedRig) {
		r.put(0, ipGroup, 3, 60)
		if r.AwaitControl(time.Second) {
			t.Error("it has not waited")
		}
		awaited := make(chan int)
		go func() {
			if !r.AwaitControl(time.Second) {
				t.Error("it has not waited long enough")
			}
			awaited <- len(r.heard)
		}()
		synctest.Wait()
		close(r.gate)
		if n := <-awaited; n != 4 {
			t.Errorf("%d frames were handled, not 4", n)
		}
	})
}
